"""Lab 07: how methods are compared: patients in pairs, seeds, several aims, memory, rates, formats."""

from labkit.lessons.lab07_compare import (
    as_peft,
    choose_rate,
    kept,
    paired,
    pareto,
    patients_needed,
    standard_error,
)

EXERCISES = {
    "paired": paired.EXERCISE,
    "standard_error": standard_error.EXERCISE,
    "choose_rate": choose_rate.EXERCISE,
    "pareto": pareto.EXERCISE,
    "kept": kept.EXERCISE,
    "as_peft": as_peft.EXERCISE,
    "patients_needed": patients_needed.EXERCISE,
}
