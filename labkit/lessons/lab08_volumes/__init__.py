"""Lab 08: tokens as a volume, a convolution along slices, ST-Adapter, HD95, a score by lesions, a filter's
size."""

from labkit.lessons.lab08_volumes import (
    along_slices,
    hd95,
    lesion_dice,
    smallest_filter,
    st_adapter,
    tokens_to_volume,
)

EXERCISES = {
    "tokens_to_volume": tokens_to_volume.EXERCISE,
    "along_slices": along_slices.EXERCISE,
    "st_adapter": st_adapter.EXERCISE,
    "hd95": hd95.EXERCISE,
    "lesion_dice": lesion_dice.EXERCISE,
    "smallest_filter": smallest_filter.EXERCISE,
}
