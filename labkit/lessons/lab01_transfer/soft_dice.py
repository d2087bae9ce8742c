"""`soft_dice`: the loss that asks of a segmentation what it is scored by."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit.lessons.authoring import gradient, tensor
from labkit.lessons.exercise import Challenge, Exercise, mistake


def soft_dice(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 - the mean soft Dice of the labels but background, each over the whole batch: logits (B, K, H, W) and
    classes (B, H, W) -> ()."""
    overlap, total = sums(logits.softmax(1), truth(target, logits))
    return 1 - ((2 * overlap + 1) / (total + 1))[1:].mean()


def truth(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Classes (B, H, W) as a mask for each of them, (B, K, H, W)."""
    return F.one_hot(target, logits.shape[1]).movedim(-1, 1).to(logits.dtype)


def sums(p: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each class over slices and pixels: p t and p + t, (K,) both."""
    return (p * t).sum((0, 2, 3)), (p + t).sum((0, 2, 3))


def with_gradient(
    output: torch.Tensor, logits: torch.Tensor, target: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What is compared: the loss (), and its gradient for the logits (B, K, H, W)."""
    output = tensor(output, "the loss")
    return {"loss": output.detach(), "gradient for the logits": gradient(output, logits)}


# Challenges


def two_pixels() -> tuple:
    """Logits (1, 2, 1, 2): background and a label at two pixels, of which the second has the label."""
    logits = torch.tensor([[0.0, 0], [0, 1]]).view(1, 2, 1, 2)
    return logits.requires_grad_(), torch.tensor([[[0, 1]]])


def two_slices() -> tuple:
    """Three classes, with twice as much of one label as of the other, unequal in the two slices."""
    logits = 2 * torch.randn(2, 3, 2, 3)
    target = torch.tensor([[[0, 1, 1], [0, 0, 1]], [[2, 0, 0], [1, 2, 0]]])
    return logits.requires_grad_(), target


def a_label_that_nobody_has() -> tuple:
    """Four classes, of which the last is nowhere."""
    logits = torch.randn(2, 4, 3, 2)
    return logits.requires_grad_(), torch.randint(0, 3, (2, 3, 2))


# Mistakes


@mistake(
    "Your loss has no gradient for the logits. argmax, round, `>` and `.detach()` cut the graph: a step up "
    "or down has no slope. That is why the loss is *soft*: take the probabilities themselves."
)
def of_hard_labels(logits, target):
    hard = F.one_hot(logits.argmax(1), logits.shape[1]).movedim(-1, 1).float()
    overlap, total = sums(hard, truth(target, logits))
    return 1 - ((2 * overlap + 1) / (total + 1))[1:].mean()


@mistake("You returned the Dice, not 1 - Dice: training would make it as small as it can.")
def the_score_itself(logits, target):
    overlap, total = sums(logits.softmax(1), truth(target, logits))
    return ((2 * overlap + 1) / (total + 1))[1:].mean()


@mistake(
    "You took the logits for probabilities. They have any size and sign: softmax over the classes first."
)
def without_softmax(logits, target):
    overlap, total = sums(logits, truth(target, logits))
    return 1 - ((2 * overlap + 1) / (total + 1))[1:].mean()


@mistake("Your softmax runs over the wrong axis: at each pixel the classes, axis 1, must sum to 1.")
def softmax_over_the_last_axis(logits, target):
    overlap, total = sums(logits.softmax(-1), truth(target, logits))
    return 1 - ((2 * overlap + 1) / (total + 1))[1:].mean()


@mistake("You counted the background in. It is large and easy, and its Dice hides that of a small tumour.")
def background_counted_in(logits, target):
    overlap, total = sums(logits.softmax(1), truth(target, logits))
    return 1 - ((2 * overlap + 1) / (total + 1)).mean()


@mistake("You left out the factor 2: a perfect segmentation would have a Dice of one half.")
def without_the_two(logits, target):
    overlap, total = sums(logits.softmax(1), truth(target, logits))
    return 1 - ((overlap + 1) / (total + 1))[1:].mean()


@mistake("You divided by the union: that is the Jaccard index. Dice divides by the sum of the two sizes.")
def jaccard(logits, target):
    overlap, total = sums(logits.softmax(1), truth(target, logits))
    return 1 - ((overlap + 1) / (total - overlap + 1))[1:].mean()


@mistake(
    "You left out the 1 above and below. Of a label that no slice of the batch has, Dice is then 0, whatever "
    "the network says: what it marks there is not pushed down in proportion."
)
def without_the_one(logits, target):
    overlap, total = sums(logits.softmax(1), truth(target, logits))
    return 1 - (2 * overlap / total)[1:].mean()


@mistake(
    "You took a Dice for each slice and then the mean. Most slices have no tumour at all: sum over the batch "
    "first, then divide."
)
def slice_by_slice(logits, target):
    p, t = logits.softmax(1), truth(target, logits)
    overlap, total = (p * t).sum((2, 3)), (p + t).sum((2, 3))
    return 1 - ((2 * overlap + 1) / (total + 1))[:, 1:].mean()


@mistake(
    "You put all labels into one sum. The kidney is large, so its overlap drowns the tumour's: a Dice for "
    "each label, then their mean."
)
def labels_in_one_sum(logits, target):
    overlap, total = sums(logits.softmax(1), truth(target, logits))
    return 1 - (2 * overlap[1:].sum() + 1) / (total[1:].sum() + 1)


EXERCISE = Exercise(
    reference=soft_dice,
    challenges=(
        Challenge("one label, two pixels", two_pixels),
        Challenge("random logits: two labels, two slices of 2 x 3 pixels", two_slices),
        Challenge("random logits: three labels, of which one is nowhere", a_label_that_nobody_has),
    ),
    result=with_gradient,
    mistakes=(
        of_hard_labels,
        the_score_itself,
        without_softmax,
        softmax_over_the_last_axis,
        background_counted_in,
        without_the_two,
        jaccard,
        without_the_one,
        slice_by_slice,
        labels_in_one_sum,
    ),
    hints=(
        "Dice counts voxels in both masks. Let a voxel count by its probability, and no step is left.",
        "For each label k: (2 sum(p t) + 1) / (sum(p + t) + 1), sums over batch, rows and columns; then one "
        "minus the mean over k = 1, 2, ...",
        "p = logits.softmax(1); sums by .sum((0, 2, 3)) give a number for each class, and [1:] leaves out "
        "the background.",
    ),
)
