"""Lab 00: regions from labels, the Dice score, a tumour's volume."""

from labkit.lessons.lab00_welcome import dice, regions, tumour_ml

EXERCISES = {
    "regions": regions.EXERCISE,
    "dice": dice.EXERCISE,
    "tumour_ml": tumour_ml.EXERCISE,
}
