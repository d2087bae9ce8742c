"""Lab 06: adapters, how and where they are put into a network, what they share, and two smaller kinds."""

from labkit.lessons.lab06_adapters import adapter, blocks_to_share, insert, kron_sum, token_bias, wire

EXERCISES = {
    "adapter": adapter.EXERCISE,
    "insert": insert.EXERCISE,
    "wire": wire.EXERCISE,
    "blocks_to_share": blocks_to_share.EXERCISE,
    "kron_sum": kron_sum.EXERCISE,
    "token_bias": token_bias.EXERCISE,
}
