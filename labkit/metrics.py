"""Dice and HD95: how much two segmentations overlap, and how far apart their borders lie; of a whole region,
or of each of its lesions.

**A region that a patient does not have is no test of its Dice.** Dice would be 0 for one marked voxel and 1
for none: a question of one voxel, and with few patients such questions decide whole tables (Reinke et al.,
2024, Nat. Methods 21:182, on empty references). So `score` gives NaN for its overlap and distance, as MONAI's
metrics do by default, every mean leaves it out, and what is marked there all the same stands beside it:
`false_mm3`, and by lesion `false_lesions`, which BraTS 2023 counts (see `lesion_wise`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

# Labels of BraTS 2019/20: 1 necrotic core, 2 oedema, 4 enhancing tumour. The challenge scores regions that
# overlap: enhancing tumour, whole tumour, tumour core (Bakas et al., 2018, arXiv:1811.02629).
BRATS_REGIONS: dict[str, tuple[int, ...]] = {"ET": (4,), "WT": (1, 2, 4), "TC": (1, 4)}
# what the names of these labels say in the papers and files of those years: NCR/NET, ED and ET
BRATS_WORDS = {
    1: r"necro|non-?.?enhancing|core|\bNCR|\bNET\b",
    2: r"o?edema|\bED\b",
    4: r"^(?!.*non-?.?enhanc).*(enhanc|\bET\b)",
}

# Lesion-wise scores of BraTS 2023 (see `lesion_wise`)
LESION_REACH_MM, SMALLEST_LESION_MM3, MISSED_MM = 3.0, 50.0, 374.0

REGION_NAMES = {"ET": "enhancing tumour", "WT": "whole tumour", "TC": "tumour core"}


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Twice the overlap of two binary masks over the sum of their sizes (Dice, 1945, Ecology 26:297): 0 to 1.

    Both masks empty: 1, for nothing was there and nothing was found; one empty: 0. So scores BraTS. MONAI's
    default leaves out a case with an empty truth (NaN); its `ignore_empty=False` is the rule here.
    """
    P, T = _masks(prediction, truth)
    sizes = P.sum() + T.sum()
    return 1.0 if sizes == 0 else float(2 * (P & T).sum() / sizes)


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """95th percentile Hausdorff distance between the borders of two binary masks, in mm.

    95 % of the border voxels of either mask lie no farther than this from the border of the other: the
    larger of the two directions (Huttenlocher et al., 1993, IEEE TPAMI 15:850; Taha and Hanbury, 2015, BMC
    Med Imaging 15:29). Both masks empty: 0. One empty: the diagonal of the volume, the worst there can be, so
    that a missed region costs and a mean stays finite; on the 240 x 240 x 155 mm of BraTS it is the 373.13 mm
    customary there. MONAI returns NaN in both, which its mean leaves out.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects

    P, T = _masks(prediction, truth)
    spacing_mm = _spacing(spacing_mm, P.ndim)
    if not (P.any() and T.any()):
        return float(np.linalg.norm(P.shape * spacing_mm)) if P.any() or T.any() else 0.0
    box = find_objects((P | T).astype(np.uint8))[0]  # holds both borders: nothing outside it matters
    P, T = P[box], T[box]
    P, T = P & ~binary_erosion(P), T & ~binary_erosion(T)  # the borders
    to_T = distance_transform_edt(~T, sampling=spacing_mm)[P]  # mm, one per border voxel of the prediction
    to_P = distance_transform_edt(~P, sampling=spacing_mm)[T]
    return float(max(np.percentile(to_T, 95), np.percentile(to_P, 95)))


def lesion_wise(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], hausdorff: bool = True
) -> dict[str, float]:
    """Dice and HD95 with one vote for each lesion, as BraTS 2023 ranks segmentations of glioma.

    {"lesion_dice": 0 to 1, "lesion_hd95": mm, "false_lesions": how many}. Two masks -> one mean over the true
    lesions and the false ones. Dice counts voxels, so a large tumour hides a small one that was missed, and a
    tumour that is not there; here each counts as much as the large one:

    * A true lesion is a connected component of the truth; components that come together when grown by 3 mm
      are one. Voxels connect by faces, edges and corners.
    * All components of the prediction that touch the grown lesion belong to it, whole, and are scored against
      it. One that touches two lesions belongs to both.
    * A lesion that nothing touches is missed, a component that touches no lesion is false: Dice 0, 374 mm.
    * True lesions of at most 50 mm^3 have no vote. False ones count whatever their size.
    * No votes at all: Dice 1, 0 mm.

    These are the rules of the challenge's published metrics (github.com/rachitsaluja/BraTS-2023-Metrics,
    announced at synapse.org, syn51156910, thread 10357; Moawad et al., 2023, arXiv:2306.00838), which are
    made for voxels of 1 mm. In mm, its three steps of growth to the 18 nearest voxels are all places at most
    3 mm away along each axis and 6 mm in sum: the same at 1 mm; at 2 mm, the 26 nearest voxels, so two
    lesions are one if at most two voxels part them. 50 mm^3 are 50 voxels at 1 mm, 6 at 2 mm.
    Distances are those of `hd95`. `hausdorff=False` leaves them out.
    """
    from scipy.ndimage import binary_dilation, label

    P, T = _masks(prediction, truth)
    spacing = _spacing(spacing_mm, P.ndim)
    P, T = _cropped(P, T, margin=_reach(spacing))
    neighbours = np.ones((3,) * P.ndim)
    components, n = label(P, neighbours)
    # growing commutes with union, so a component of the grown truth is one lesion, grown
    grown, lesions = label(binary_dilation(T, _ball(spacing)), neighbours)
    claimed, dices, distances = np.zeros(n + 1, bool), [], []
    claimed[0] = True  # what is no component
    for number in range(1, lesions + 1):
        lesion = T & (grown == number)
        touching = np.isin(np.arange(n + 1), components[grown == number]) & (np.arange(n + 1) > 0)
        claimed |= touching
        if lesion.sum() * spacing.prod() <= SMALLEST_LESION_MM3 + 1e-6:
            continue
        found = touching[components]
        dices.append(dice(found, lesion))
        if hausdorff:
            distances.append(hd95(found, lesion, spacing) if touching.any() else MISSED_MM)
    false = int((~claimed).sum())
    votes = len(dices) + false
    scores = {"lesion_dice": sum(dices) / votes if votes else 1.0, "false_lesions": false}
    if hausdorff:
        scores["lesion_hd95"] = (sum(distances) + false * MISSED_MM) / votes if votes else 0.0
    return scores


def regions_of(label_names: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    """The regions to score: those of BraTS for its labels 1, 2, 4 if their names are those of a core, oedema
    and enhancing tumour; those of KiTS where a kidney and a tumour are labelled; else one per label,
    {"anterior": (1,)}.

    Background is none. ValueError: two labels share a name.
    """
    labels = {value: name for value, name in label_names.items() if value != 0}
    if labels.keys() == BRATS_WORDS.keys() and all(
        re.search(BRATS_WORDS[value], name, re.IGNORECASE) for value, name in labels.items()
    ):
        return BRATS_REGIONS
    if set(labels.values()) in ({"kidney", "tumour"}, {"kidney", "tumour", "cyst"}):
        of = {name: value for value, name in labels.items()}
        masses = {"masses": (of["tumour"], of["cyst"])} if "cyst" in of else {}
        return {"kidney": tuple(sorted(labels))} | masses | {"tumour": (of["tumour"],)}
    if len(set(labels.values())) < len(labels):
        raise ValueError(f"two labels share a name in {labels}; give every label a name of its own")
    return {name: (value,) for value, name in labels.items()}


def score(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    regions: Mapping[str, Sequence[int]],
    hausdorff: bool = True,
    lesions: bool = False,
) -> dict[str, dict[str, float]]:
    """Scores of every region of two label volumes: {"WT": {"dice": .., "hd95": .., "false_mm3": ..}, ..}.

    Dice is 0 to 1, HD95 in mm; both are NaN for a region that the truth does not have. `false_mm3` is then
    the volume that is marked as such, otherwise NaN. Distances take most of the time; `hausdorff=False`
    leaves them out. `lesions=True` adds what `lesion_wise` returns, by the same rule: of a region that is not
    there, its `false_lesions` alone.
    `regions` says which labels make up each: BRATS_REGIONS, or `regions_of(case.label_names)`.
    ValueError: volumes that hold no integers, or differ in shape.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    _check_shapes(prediction, truth)
    for which, volume in (("prediction", prediction), ("truth", truth)):
        if volume.dtype.kind not in "iu":
            raise ValueError(
                f"{which} must hold integer labels, not {volume.dtype}; turn logits into the "
                "data set's label values, or whole numbers into integers with .astype(np.uint8)"
            )
    return {
        name: score_region(
            np.isin(prediction, labels), np.isin(truth, labels), spacing_mm, hausdorff, lesions
        )
        for name, labels in regions.items()
    }


def score_region(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    hausdorff: bool = True,
    lesions: bool = False,
) -> dict[str, float]:
    """The scores of one region, as `score` has them, from its two masks."""
    there = bool(truth.any())
    scores = {"dice": dice(prediction, truth) if there else math.nan}
    if hausdorff:
        scores["hd95"] = hd95(prediction, truth, spacing_mm) if there else math.nan
    scores["false_mm3"] = math.nan if there else float(prediction.sum() * np.prod(spacing_mm))
    if lesions:
        by_lesion = lesion_wise(prediction, truth, spacing_mm, hausdorff)
        if not there:
            by_lesion = {
                name: value if name == "false_lesions" else math.nan for name, value in by_lesion.items()
            }
        scores |= by_lesion
    return scores


def dice_by_region(
    prediction: np.ndarray, truth: np.ndarray, label_names: Mapping[int, str]
) -> dict[str, float]:
    """Dice of each region of `regions_of(label_names)`: {"ET": 0.71, "WT": 0.85, "TC": 0.8}; NaN for one that
    the truth does not have."""
    scores = score(prediction, truth, (1.0,) * np.ndim(truth), regions_of(label_names), hausdorff=False)
    return {region: values["dice"] for region, values in scores.items()}


def mean_by_region(rows: Sequence[Mapping]) -> dict[str, float]:
    """Mean Dice per region over the patients who have it, of rows that have a region and a dice; NaN where
    nobody has it."""
    regions = dict.fromkeys(row["region"] for row in rows)
    return {r: mean_present([row["dice"] for row in rows if row["region"] == r]) for r in regions}


def mean_present(values: Sequence[float]) -> float:
    """The mean of those that are no NaN; NaN where none is."""
    present = [value for value in values if not math.isnan(value)]
    return float(np.mean(present)) if present else math.nan


def _masks(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    _check_shapes(prediction, truth)
    for which, mask in (("prediction", prediction), ("truth", truth)):
        if mask.dtype != bool and not ((mask == 0) | (mask == 1)).all():
            raise ValueError(
                f"{which} must be a mask of 0 and 1 but holds other values; compare first "
                "(labels == 4, probabilities > 0.5), or give whole label volumes to score()"
            )
    return prediction.astype(bool), truth.astype(bool)


def _check_shapes(prediction: np.ndarray, truth: np.ndarray) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {prediction.shape} and truth {truth.shape} differ in shape; "
            "both must lie on the same grid"
        )


def _reach(spacing: np.ndarray) -> np.ndarray:
    """How many voxels a lesion grows along each axis."""
    return (LESION_REACH_MM / spacing + 1e-6).astype(int)


def _ball(spacing: np.ndarray) -> np.ndarray:
    """The voxels around one into which a lesion grows: its own lies in the middle."""
    reach = _reach(spacing)
    away = np.indices(2 * reach + 1) - reach.reshape(-1, *(1,) * len(reach))
    away_mm = np.tensordot(spacing, np.abs(away), 1)  # the sum over axes
    return away_mm <= 2 * LESION_REACH_MM + 1e-6


def _cropped(P: np.ndarray, T: np.ndarray, margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The box that holds both masks, and a margin where the volume has one."""
    from scipy.ndimage import find_objects

    if not (P.any() or T.any()):
        return P, T
    box = find_objects((P | T).astype(np.uint8))[0]
    box = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(box, margin, strict=True))
    return P[box], T[box]


def _spacing(spacing_mm: Sequence[float], axes: int) -> np.ndarray:
    spacing = np.asarray(spacing_mm, dtype=float)
    if spacing.shape != (axes,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing_mm must be {axes} positive numbers, one per axis, not {spacing_mm}")
    return spacing
