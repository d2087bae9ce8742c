"""Small label volumes."""

from __future__ import annotations

import numpy as np


def labels(*values: int) -> np.ndarray:
    """A single row of labels, (1, 1, W)."""
    return np.array([[values]], dtype=np.uint8)


def random_labels() -> np.ndarray:
    """Labels drawn from 0, 1, 2 and 4, (3, 4, 5)."""
    return np.random.choice(np.array([0, 1, 2, 4], dtype=np.uint8), size=(3, 4, 5))
