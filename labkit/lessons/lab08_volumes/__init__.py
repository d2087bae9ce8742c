"""Lab 08: tokens as a volume, a convolution along slices, its reach, and a score by lesions."""

from labkit.lessons.lab08_volumes import along_slices, lesion_dice, reach, tokens_to_volume

EXERCISES = {
    "tokens_to_volume": tokens_to_volume.EXERCISE,
    "along_slices": along_slices.EXERCISE,
    "reach": reach.EXERCISE,
    "lesion_dice": lesion_dice.EXERCISE,
}
