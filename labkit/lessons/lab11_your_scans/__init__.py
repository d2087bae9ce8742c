"""Lab 11: from a folder of scans to a labelled one: look, window, split, resample, choose, score."""

from labkit.lessons.lab11_your_scans import (
    best_within,
    dice_of_region,
    nearest_label,
    not_in_hu,
    split_by_patient,
    windowed,
)

EXERCISES = {
    "not_in_hu": not_in_hu.EXERCISE,
    "windowed": windowed.EXERCISE,
    "split_by_patient": split_by_patient.EXERCISE,
    "nearest_label": nearest_label.EXERCISE,
    "best_within": best_within.EXERCISE,
    "dice_of_region": dice_of_region.EXERCISE,
}
