"""Lab 10: windows cut and pasted with gradients, hard choices with soft ones, and what a choice costs."""

from labkit.lessons.lab10_med_danet import hard_choice, mean_cost, paste, window_grid

EXERCISES = {
    "window_grid": window_grid.EXERCISE,
    "paste": paste.EXERCISE,
    "hard_choice": hard_choice.EXERCISE,
    "mean_cost": mean_cost.EXERCISE,
}
