"""What trainings say: scores as arrays, and intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SCORES = ("dice", "lesion_dice", "false_lesions")


def scores(trainings: Sequence[dict], score: str = "dice") -> np.ndarray:
    """One score of every test patient: (seeds, regions, patients)."""
    return np.array([list(line["test"][score].values()) for line in trainings])


def paired(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean difference of the same patients' scores, and half of its 95 % interval (Student's t)."""
    from scipy import stats

    d = a - b
    return float(d.mean()), float(stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)))
