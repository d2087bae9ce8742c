"""Lab 02: freezing, counting and one training step."""

from labkit.lessons.lab02_transfer import count_tuned, freeze, training_step

EXERCISES = {
    "freeze": freeze.EXERCISE,
    "count_tuned": count_tuned.EXERCISE,
    "training_step": training_step.EXERCISE,
}
