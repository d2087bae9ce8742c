"""Lab 09: the parts of Med-Tuning's adapter, one by one."""

from labkit.lessons.lab09_med_tuning import circular, fourier, interact, mix, one_kernel

EXERCISES = {
    "one_kernel": one_kernel.EXERCISE,
    "circular": circular.EXERCISE,
    "fourier": fourier.EXERCISE,
    "mix": mix.EXERCISE,
    "interact": interact.EXERCISE,
}
