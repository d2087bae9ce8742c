"""`smallest_filter`: how wide the filters must be for a slice to see far enough, in mm."""

from __future__ import annotations

import math
import random

from labkit.lessons.exercise import Challenge, Exercise, mistake


def smallest_filter(distance_mm: float, spacing_mm: float, blocks: int) -> int:
    """The smallest odd size of the filters in so many blocks by which a slice sees this far up and down."""
    slices = math.ceil(distance_mm / spacing_mm)
    return 2 * math.ceil(slices / blocks) + 1


# Challenges: quotients that are exact or far from whole, so that rounding decides nothing


def drawn() -> tuple:
    spacing = random.choice([1.0, 2.0, 4.0])
    return spacing * (random.randint(3, 40) + random.choice([0.0, 0.5])), spacing, random.randint(1, 12)


# Mistakes


@mistake("You rounded down: the last slice that you need is then not seen. Round up.")
def rounded_down(distance_mm, spacing_mm, blocks):
    return 2 * (int(distance_mm // spacing_mm) // blocks) + 1


@mistake("You took mm for slices. Divide the distance by the spacing first.")
def millimetres_for_slices(distance_mm, spacing_mm, blocks):
    return 2 * math.ceil(distance_mm / blocks) + 1


@mistake("You let one block do all. Every block reaches a little farther than the one before it.")
def one_block_for_all(distance_mm, spacing_mm, blocks):
    return 2 * math.ceil(distance_mm / spacing_mm) + 1


@mistake(
    "You counted the distance for both sides together. A filter of size k reaches (k - 1) / 2 slices up, and "
    "as many down."
)
def both_sides_together(distance_mm, spacing_mm, blocks):
    k = math.ceil(math.ceil(distance_mm / spacing_mm) / blocks) + 1
    return k if k % 2 else k + 1


@mistake(
    "You give the slices that a block must reach. The filter reaches them up and down, and has a middle."
)
def slices_a_block(distance_mm, spacing_mm, blocks):
    return math.ceil(math.ceil(distance_mm / spacing_mm) / blocks)


@mistake("You forgot the slice in the middle: an even filter has none.")
def without_the_middle(distance_mm, spacing_mm, blocks):
    return 2 * math.ceil(math.ceil(distance_mm / spacing_mm) / blocks)


EXERCISE = Exercise(
    reference=smallest_filter,
    challenges=(
        Challenge("4 mm with slices 2 mm apart, one block", lambda: (4.0, 2.0, 1)),
        Challenge("8 mm with slices 2 mm apart, four blocks", lambda: (8.0, 2.0, 4)),
        Challenge("18 mm with slices 2 mm apart, four blocks", lambda: (18.0, 2.0, 4)),
        Challenge("30 mm with slices 4 mm apart, two blocks", lambda: (30.0, 4.0, 2)),
        Challenge("drawn at random", drawn),
    ),
    mistakes=(
        rounded_down,
        millimetres_for_slices,
        one_block_for_all,
        both_sides_together,
        slices_a_block,
        without_the_middle,
    ),
    hints=(
        "First from mm to slices; then from slices to slices a block; then to the size of a filter.",
        "A filter of size k reaches (k - 1) / 2 slices to each side, n blocks n times as many.",
        "k = 2 * math.ceil(slices / blocks) + 1, with slices = math.ceil(distance_mm / spacing_mm).",
    ),
)
