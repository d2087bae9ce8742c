"""Lab 05: how many directions an update has, its spectrum from its factors, cutting, and LoRA+'s rates."""

from labkit.lessons.lab05_rank import effective_rank, rates, spectrum, truncate

EXERCISES = {
    "effective_rank": effective_rank.EXERCISE,
    "spectrum": spectrum.EXERCISE,
    "truncate": truncate.EXERCISE,
    "rates": rates.EXERCISE,
}
