"""Lab 06: adapters, where they are put, two smaller kinds, and biases."""

from labkit.lessons.lab06_adapters import adapter, biases, kron_sum, token_bias, wire

EXERCISES = {
    "adapter": adapter.EXERCISE,
    "wire": wire.EXERCISE,
    "kron_sum": kron_sum.EXERCISE,
    "token_bias": token_bias.EXERCISE,
    "biases": biases.EXERCISE,
}
