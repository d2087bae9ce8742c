"""Lab 08: tokens as a volume, a convolution along slices, its reach, and a score by lesions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import label

from labkit.lessons.exercise import Challenge, Exercise
from labkit.metrics import dice, lesion_wise


def tokens_to_volume(x: torch.Tensor, S: int, h: int, w: int) -> torch.Tensor:
    """(B·S, h·w, d) -> (B, d, S, h, w)."""
    return x.unflatten(1, (h, w)).unflatten(0, (-1, S)).permute(0, 4, 1, 2, 3)


def along_slices(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Each channel of x (B, m, S) weighs the slice before, its own and the next by its row of w (m, 3)."""
    return F.conv1d(x, w[:, None], padding=1, groups=len(w))


def reach(kernels: Sequence[int]) -> int:
    """How many slices one slice sees through layers with these kernels, one after the other."""
    return 1 + sum(k - 1 for k in kernels)


def lesion_dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean Dice over the true lesions and the false components, of masks of up to three dimensions."""
    P, T = (mask[(None,) * (3 - mask.ndim)] for mask in (prediction, truth))
    # of 5 mm, no voxel is too small to count and none grows into the next
    return lesion_wise(P, T, (5.0,) * 3, hausdorff=False)["lesion_dice"]


# Tokens to a volume


def _sixteen() -> tuple:
    return torch.arange(16.0).view(4, 2, 2), 2, 1, 2


def _random_tokens() -> tuple:
    return torch.randn(6, 12, 5), 3, 3, 4


def _exchanged(x: torch.Tensor, S: int, h: int, w: int) -> torch.Tensor:
    return x.unflatten(1, (h, w)).unflatten(0, (S, -1)).permute(1, 4, 0, 2, 3)


# Along slices


def _padded(mode: str) -> Callable:
    """`along_slices` with something else than zeros beyond the ends."""

    def wrong(x, w):
        return F.conv1d(F.pad(x, (1, 1), mode=mode), w[:, None], groups=len(w))

    return wrong


def _glued(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    one = along_slices(x.movedim(0, 1).flatten(1)[None], w)[0]
    return one.unflatten(1, (len(x), -1)).movedim(1, 0)


def _mixed(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return along_slices(x, w).sum(1, keepdim=True).expand_as(x)


def _two_volumes() -> tuple:
    return torch.arange(1.0, 13).view(2, 2, 3), torch.tensor([[1.0, 2, 4], [0, 1, 0]])


# Lesions


def _row(text: str) -> np.ndarray:
    return np.array([digit == "1" for digit in text])


def _parts(mask: np.ndarray, corners: bool = True) -> tuple[np.ndarray, int]:
    return label(mask, np.ones((3,) * mask.ndim) if corners else None)


def _voted(
    misses: bool = True,
    false: bool = True,
    whole: bool = True,
    nothing: float = 1.0,
    corners: bool = True,
) -> Callable:
    """`lesion_dice` with one of its rules broken."""

    def wrong(prediction, truth):
        (lesions, n), (parts, m) = _parts(truth, corners), _parts(prediction, corners)
        votes, used = [], set()
        for i in range(1, n + 1):
            lesion = lesions == i
            mine = set(parts[lesion].tolist()) - {0}
            used |= mine
            if mine or misses:
                votes.append(dice(np.isin(parts, list(mine)) if whole else prediction & lesion, lesion))
        votes += [0.0] * (m - len(used)) if false else []
        return sum(votes) / len(votes) if votes else nothing

    return wrong


def _by_prediction(prediction: np.ndarray, truth: np.ndarray) -> float:
    """A vote for each component of the prediction, against all lesions that it touches."""
    (lesions, _), (parts, m) = _parts(truth), _parts(prediction)
    votes = []
    for i in range(1, m + 1):
        part = parts == i
        mine = set(lesions[part].tolist()) - {0}
        votes.append(dice(part, np.isin(lesions, list(mine))))
    return sum(votes) / len(votes) if votes else float(not truth.any())


def _rows(description: str, prediction: str, truth: str) -> Challenge:
    return Challenge(description, lambda: (_row(prediction), _row(truth)))


def _corner() -> tuple:
    truth = np.zeros((3, 4), bool)
    truth[0, 0] = truth[1, 1] = True
    prediction = truth.copy()
    prediction[1, 1] = False
    return prediction, truth


def _random_masks() -> tuple:
    truth, wrong = np.random.random((2, 5, 7, 8)) < 0.05
    return truth ^ wrong, truth


EXERCISES: dict[str, Exercise] = {
    "tokens_to_volume": Exercise(
        reference=tokens_to_volume,
        challenges=(
            Challenge("two volumes of two slices, each of 1 x 2 tokens of width 2", _sixteen),
            Challenge("two volumes of three slices, each of 3 x 4 random tokens of width 5", _random_tokens),
        ),
        mistakes={
            "You reshaped at once. That keeps the order of the numbers in memory, where the d numbers of a token "
            "stand side by side, and only gives the axes other names: channels and places are mixed.": (
                lambda x, S, h, w: x.reshape(-1, x.shape[-1], S, h, w)
            ),
            "You exchanged volumes and slices. The slices of one volume stand together in the stream; you took "
            "every other one, so neighbours come from different patients.": _exchanged,
            "The width stayed last. A convolution takes the channels second: (B, d, S, h, w).": (
                lambda x, S, h, w: tokens_to_volume(x, S, h, w).movedim(1, -1)
            ),
            "You exchanged rows and columns: the tokens of a slice come row by row, w of them in each.": (
                lambda x, S, h, w: tokens_to_volume(x, S, w, h)
            ),
            "You made one long volume of all slices. Then the last slice of a patient is the neighbour of the "
            "first slice of the next.": lambda x, S, h, w: tokens_to_volume(x, len(x), h, w),
        },
        hints=(
            "Give every axis a name before you move one.",
            "(B·S, h·w, d) -> (B, S, h, w, d) -> (B, d, S, h, w). The first arrow moves no number, the second does.",
            "unflatten the second axis into (h, w), the first into (-1, S); then permute(0, 4, 1, 2, 3).",
        ),
    ),
    "along_slices": Exercise(
        reference=along_slices,
        challenges=(
            Challenge(
                "one channel, three slices, and a filter that takes what lies below",
                lambda: (torch.tensor([[[1.0, 10, 100]]]), torch.tensor([[1.0, 0, 0]])),
            ),
            Challenge("two volumes of two channels and three slices", _two_volumes),
            Challenge(
                "three random volumes of four channels and five slices",
                lambda: (torch.randn(3, 4, 5), torch.randn(4, 3)),
            ),
        ),
        mistakes={
            "You turned the filter round: the first weight belongs to the slice before. (Mathematicians call the "
            "turned one a convolution, PyTorch the other.)": lambda x, w: along_slices(x, w.flip(-1)),
            "You closed the volume to a ring: the slice below the first became the last. The neck is no neighbour "
            "of the crown.": _padded("circular"),
            "You repeated the border: below the first slice you put the first slice again. Here, zeros lie "
            "outside.": _padded("replicate"),
            "You glued the volumes together: at its ends each volume saw the slices of another patient.": _glued,
            "You added the channels up. Depthwise means that each channel is filtered by itself; mixing them is "
            "what the two linear layers around are for.": _mixed,
            "You used the filter of the first channel for all. Each channel has a row of w of its own.": (
                lambda x, w: along_slices(x, w[:1].expand_as(w))
            ),
        },
        hints=(
            "Which slice stands before the first one of the second volume? None.",
            "y[s] = w[0] x[s-1] + w[1] x[s] + w[2] x[s+1], for each volume and channel, zeros outside.",
            "F.conv1d(x, w[:, None], padding=1, groups=...) does it; how many groups has it if no channel mixes "
            "with another?",
        ),
    ),
    "reach": Exercise(
        reference=reach,
        challenges=(
            Challenge("one layer of kernel 3", lambda: ([3],)),
            Challenge("kernels 3 and 5", lambda: ([3, 5],)),
            Challenge("four layers of kernel 3", lambda: ([3] * 4,)),
            Challenge("five layers", lambda: ([5, 1, 7, 3, 3],)),
        ),
        mistakes={
            "You added the kernels up. Each kernel counts its own slice too, which was there already: a layer "
            "adds k - 1.": lambda kernels: sum(kernels),
            "You multiplied the kernels. The reach would multiply if layers skipped slices; they add a few on "
            "both sides.": lambda kernels: int(np.prod(kernels)),
            "You took the widest kernel alone. What the second layer sees has seen its own neighbours.": max,
            "You counted one side only. A kernel reaches up and down.": lambda kernels: (
                1 + sum((k - 1) // 2 for k in kernels)
            ),
            "You forgot the slice itself.": lambda kernels: reach(kernels) - 1,
        },
        hints=(
            "How far does one layer see, to each side?",
            "To each side (k - 1) / 2 more for every layer; both sides, and the slice itself.",
            "1 + the sum of (k - 1) over all kernels.",
        ),
    ),
    "lesion_dice": Exercise(
        reference=lesion_dice,
        challenges=(
            _rows("one lesion, found, and one component that is nothing", "11110010", "11110000"),
            _rows("two lesions, one of them missed", "11110000", "11110010"),
            _rows("nothing there, nothing found", "00000000", "00000000"),
            _rows("two lesions bridged by the prediction", "11111000", "11011000"),
            _rows("one lesion found in two parts", "11011000", "11111000"),
            _rows("nothing there, something found", "00110000", "00000000"),
            Challenge("a lesion of two pixels that touch at a corner, half found", _corner),
            Challenge("random voxels", _random_masks),
        ),
        mistakes={
            "This is the plain Dice score: every voxel has a vote, so the large lesion decides alone.": dice,
            "False components cost you nothing: each of them takes part in the mean with 0.": _voted(
                false=False
            ),
            "Missed lesions cost you nothing: each of them takes part in the mean with 0.": _voted(
                misses=False
            ),
            "You cut the prediction to the lesion, so whatever was marked too much was forgiven. A component that "
            "touches a lesion belongs to it whole.": _voted(whole=False),
            "Where nothing is and nothing was found you gave no number (nan). That is a perfect answer: 1.": (
                _voted(nothing=float("nan"))
            ),
            "You gave the votes to the components of the prediction. The lesions vote, and those components that "
            "touch none of them.": _by_prediction,
            "Voxels that meet at a corner or an edge are connected too: give `label` a structure of ones.": _voted(
                corners=False
            ),
        },
        hints=(
            "Who has a vote? Every true lesion, and every component of the prediction that touches none.",
            "(sum of the lesions' Dice) / (lesions + false components), 1 if there is neither.",
            "For lesion i: `touching = set(parts[lesions == i]) - {0}`; its Dice is that of "
            "np.isin(parts, list(touching)) with lesions == i.",
        ),
    ),
}
