"""Lab 01: freezing, the loss that a segmentation is trained by, the control, and what fits on a disk."""

from labkit.lessons.lab01_transfer import freeze, frozen_random, soft_dice, tasks_that_fit

EXERCISES = {
    "freeze": freeze.EXERCISE,
    "soft_dice": soft_dice.EXERCISE,
    "frozen_random": frozen_random.EXERCISE,
    "tasks_that_fit": tasks_that_fit.EXERCISE,
}
