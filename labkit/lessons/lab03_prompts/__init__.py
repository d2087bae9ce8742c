"""Lab 03: attention that sees more, prompts before a block, the prefix they become, what each one costs."""

from labkit.lessons.lab03_prompts import as_prefix, attend, prompt_counts, prompted

EXERCISES = {
    "attend": attend.EXERCISE,
    "prompted": prompted.EXERCISE,
    "as_prefix": as_prefix.EXERCISE,
    "prompt_counts": prompt_counts.EXERCISE,
}
