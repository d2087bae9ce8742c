"""Lab 05: how many directions an update has, cutting it, its pieces in order, and a rank for a budget."""

from labkit.lessons.lab05_rank import effective_rank, in_order, rank_for, spectrum, truncate

EXERCISES = {
    "effective_rank": effective_rank.EXERCISE,
    "truncate": truncate.EXERCISE,
    "rank_for": rank_for.EXERCISE,
    "spectrum": spectrum.EXERCISE,
    "in_order": in_order.EXERCISE,
}
