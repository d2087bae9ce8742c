"""Quick mode: LABKIT_QUICK=1 makes every training take one step of two slices, every evaluation look at two
slices of two patients, every measurement of time be a single one, and an explorer's still show two choices.

Tests execute all labs in it: what it shows is that everything runs, never how good something is.
"""

from __future__ import annotations

import os

STEPS, BATCH, PATIENTS, SLICES, REPEATS, CHOICES = 1, 2, 2, 2, 1, 2


def quick() -> bool:
    """Whether quick mode is on."""
    return os.environ.get("LABKIT_QUICK") == "1"


def at_most(asked: int, few: int) -> int:
    """What was asked for, or a few in quick mode."""
    return min(asked, few) if quick() else asked
