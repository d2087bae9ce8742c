"""Lab 07: how methods are compared: patients in pairs, several aims, memory, formats, averages."""

from labkit.lessons.lab07_compare import as_peft, kept, paired, pareto, vtab_average

EXERCISES = {
    "paired": paired.EXERCISE,
    "pareto": pareto.EXERCISE,
    "kept": kept.EXERCISE,
    "as_peft": as_peft.EXERCISE,
    "vtab_average": vtab_average.EXERCISE,
}
