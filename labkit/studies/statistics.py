"""What trainings say: scores as arrays, and intervals that hold for other seeds and other patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SCORES = ("dice", "lesion_dice", "false_lesions")


@dataclass(frozen=True)
class Estimate:
    """A mean with half the width of its 95 % interval."""

    mean: float
    half: float  # NaN: there is one patient alone
    seeds: int  # with 1, the interval holds for other patients, not for another training
    patients: int

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.mean + self.half


def scores(trainings: Sequence[dict], score: str = "dice") -> np.ndarray:
    """One score of every test patient: (seeds, regions, patients), NaN where a patient does not have the
    region."""
    return np.array([list(line["test"][score].values()) for line in trainings], dtype=float)


def estimate(values: np.ndarray) -> Estimate:
    """The mean over regions of the means over seeds and over the patients who have the region, of (seeds,
    regions, patients) with NaN where a patient does not.

    Another class would have other patients, and another run of the same recipe another seed: both are
    samples. With y_sp, seed s on patient p, as mu + seed + patient + rest, all random, the variance of the
    mean is

        (MS_seeds + MS_patients - MS_rest) / (seeds x patients)

    with the mean squares of a two-way analysis of variance without replication, and its degrees of freedom
    are Satterthwaite's (1946, Biometrics Bulletin 2:110; Burdick and Graybill, 1992, Confidence Intervals on
    Variance Components). The seeds' part is kept at 0 or more. With one seed: Student's t over patients.
    """
    y = contributions(values)  # (seeds, patients)
    n_seeds, n_patients = y.shape
    mean = float(y.mean())
    if n_patients < 2:
        return Estimate(mean, float("nan"), n_seeds, n_patients)
    from scipy.special import stdtrit  # the quantile of t without scipy.stats, which takes a second to import

    by_seed, by_patient = y.mean(1, keepdims=True), y.mean(0, keepdims=True)
    squares = {"patients": (n_seeds * ((by_patient - mean) ** 2).sum(), n_patients - 1)}
    if n_seeds > 1:
        rest = ((y - by_seed - by_patient + mean) ** 2).sum()
        squares["seeds"] = (n_patients * ((by_seed - mean) ** 2).sum(), n_seeds - 1)
        squares["rest"] = (rest, (n_seeds - 1) * (n_patients - 1))
    means = {name: square / freedom for name, (square, freedom) in squares.items()}
    parts = {"patients": means["patients"]}
    if n_seeds > 1 and means["seeds"] > means["rest"]:
        parts |= {"seeds": means["seeds"], "rest": -means["rest"]}
    variance = sum(parts.values())
    if variance <= 0:
        return Estimate(mean, 0.0, n_seeds, n_patients)
    freedom = variance**2 / sum(part**2 / squares[name][1] for name, part in parts.items())
    half = stdtrit(freedom, 0.975) * np.sqrt(variance / (n_seeds * n_patients))
    return Estimate(mean, float(half), n_seeds, n_patients)


def difference(a: np.ndarray, b: np.ndarray) -> Estimate:
    """How far a is above b on the same patients, both (seeds, regions, patients); seeds that only one of them
    has are left out."""
    n = min(len(a), len(b))
    return estimate(a[:n] - b[:n])


def contributions(values: np.ndarray) -> np.ndarray:
    """What each seed and patient adds to the mean over regions: (seeds, regions, patients) -> (seeds,
    patients) with that mean.

    A patient who lacks a region adds nothing to it, above or below: the linearised ratio of sampling theory
    (Cochran, 1977, Sampling Techniques, section 2.11), needed as other patients would lack other regions.
    """
    there = ~np.isnan(values[0])  # (regions, patients)
    values, there = values[:, there.any(1)], there[there.any(1)]
    means = np.nanmean(values, axis=(0, 2))[:, None]  # (regions, 1)
    share = there.mean(1, keepdims=True)
    return means.mean() + np.where(there, (values - means) / share, 0.0).mean(1)
