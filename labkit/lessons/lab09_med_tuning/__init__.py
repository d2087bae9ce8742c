"""Lab 09: Med-Tuning's adapter: its convolutions, its filter, the whole of it, and its size."""

from labkit.lessons.lab09_med_tuning import circular, forward, fourier, one_kernel, widest

EXERCISES = {
    "one_kernel": one_kernel.EXERCISE,
    "circular": circular.EXERCISE,
    "fourier": fourier.EXERCISE,
    "forward": forward.EXERCISE,
    "widest": widest.EXERCISE,
}
