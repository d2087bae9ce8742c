"""Lab 10: windows cut and pasted with gradients, hard choices with soft ones, what a choice costs, and which
price no patient pays for."""

from labkit.lessons.lab10_med_danet import cheapest_safe, hard_choice, mean_cost, paste, window_grid

EXERCISES = {
    "window_grid": window_grid.EXERCISE,
    "paste": paste.EXERCISE,
    "hard_choice": hard_choice.EXERCISE,
    "mean_cost": mean_cost.EXERCISE,
    "cheapest_safe": cheapest_safe.EXERCISE,
}
