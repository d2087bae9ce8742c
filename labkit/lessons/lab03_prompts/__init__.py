"""Lab 03: attention that sees more, prompts before a block, a module and a loop that train them, the prefix
they become, and what each kind costs."""

from labkit.lessons.lab03_prompts import (
    as_prefix,
    attend,
    prompt_counts,
    prompted,
    prompted_block,
    prompts_that_fit,
    train,
)

EXERCISES = {
    "attend": attend.EXERCISE,
    "prompted": prompted.EXERCISE,
    "PromptedBlock": prompted_block.EXERCISE,
    "train": train.EXERCISE,
    "as_prefix": as_prefix.EXERCISE,
    "prompt_counts": prompt_counts.EXERCISE,
    "prompts_that_fit": prompts_that_fit.EXERCISE,
}
