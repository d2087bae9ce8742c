"""`packed_bytes`: how large the file of a pruned and rounded matrix is."""

from __future__ import annotations

import torch

from labkit.lessons.exercise import Challenge, Exercise, mistake


def packed_bytes(places: int, left: int, bits: int) -> int:
    """Whole bytes of a matrix with so many places, of which `left` are not zero: a bit for each place says
    whether a weight is there, and each weight that is there takes so many bits."""
    return -(-(places + left * bits) // 8)


# Challenges


def random_matrix() -> tuple[int, int, int]:
    """Sizes as in a network, of no round number."""
    places = torch.randint(10_000, 100_000, ()).item()
    return places, torch.randint(1, places, ()).item(), torch.randint(2, 17, ()).item()


# Mistakes


@mistake(
    "You left out the bit of each place. Without it nobody knows where the weights belong that are left."
)
def map_left_out(places, left, bits):
    return -(-(left * bits) // 8)


@mistake("You stored the zeros too. Only the weights that are left take their bits; a zero has its one bit.")
def zeros_stored(places, left, bits):
    return -(-(places + places * bits) // 8)


@mistake("Your size is in bits. Eight of them are a byte.")
def in_bits(places, left, bits):
    return places + left * bits


@mistake("You took bits for bytes: a weight of 8 bits is one byte.")
def bits_for_bytes(places, left, bits):
    return -(-places // 8) + left * bits


@mistake("You gave a whole byte to each place. One bit is enough to say whether a weight is there.")
def a_byte_for_each_place(places, left, bits):
    return places + -(-(left * bits) // 8)


@mistake("You rounded down, or to the nearest. A byte that is used in part is used: round up.")
def rounded_down(places, left, bits):
    return (places + left * bits) // 8


@mistake("Return whole bytes, an int: `math.ceil(...)`, or -(-a // b).")
def a_fraction(places, left, bits):
    return (places + left * bits) / 8


EXERCISE = Exercise(
    reference=packed_bytes,
    challenges=(
        Challenge("16 places, 4 weights left, of 8 bits", lambda: (16, 4, 8)),
        Challenge("10 places, 3 weights left, of 5 bits", lambda: (10, 3, 5)),
        Challenge("nothing is left", lambda: (24, 0, 4)),
        Challenge("a matrix of random size", random_matrix),
    ),
    mistakes=(
        map_left_out,
        zeros_stored,
        in_bits,
        bits_for_bytes,
        a_byte_for_each_place,
        rounded_down,
        a_fraction,
    ),
    hints=(
        "Two things lie in the file: where weights are, and what they are.",
        "(places x 1 bit + left x bits) / 8, rounded up.",
        "return -(-(places + left * bits) // 8)",
    ),
)
