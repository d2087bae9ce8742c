"""`mean_cost`: what the choices and the bits of a batch of slices cost."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit.lessons.authoring import gradient
from labkit.lessons.exercise import Challenge, Exercise, mistake


def mean_cost(
    choice: torch.Tensor, stages: torch.Tensor, other: torch.Tensor, bits: torch.Tensor
) -> torch.Tensor:
    """Mean MACs x bits/32 of slices: choice (B, 3), stages (3, 4), other (3,), bits (B, 4)."""
    return (choice * (bits @ stages.T / 32 + other)).sum(1).mean()


def with_gradient(
    output: torch.Tensor, choice: torch.Tensor, stages: torch.Tensor, other: torch.Tensor, bits: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What is compared: the cost, and the gradient by which a choice learns what it costs."""
    return {"cost": output.detach(), "gradient of choice": gradient(output, choice)}


# Challenges


def round_tables() -> tuple[torch.Tensor, torch.Tensor]:
    """Stages (3, 4) and the rest (3,) of skip, crop and whole, in round numbers."""
    stages = torch.tensor([[0.0, 0, 0, 0], [32, 64, 64, 96], [64, 96, 128, 160]])
    return stages, torch.tensor([0.0, 10, 30])


def one_hot(*choices: int) -> torch.Tensor:
    """A row for each slice, (B, 3): 0 for skip, 1 for crop, 2 for whole."""
    return F.one_hot(torch.tensor(choices), 3).float().requires_grad_()


def one_slice() -> tuple:
    return one_hot(1), *round_tables(), torch.tensor([[8.0, 16, 16, 8]])


def three_slices() -> tuple:
    bits = torch.tensor([[16.0, 8, 8, 32], [8, 8, 16, 16], [16, 16, 8, 8]])
    return one_hot(2, 0, 1), *round_tables(), bits


def random_tables() -> tuple:
    return one_hot(0, 2, 1, 1), torch.rand(3, 4), torch.rand(3), 8 * torch.ones(4, 4)


# Mistakes


@mistake(
    "You scaled the rest too. Only the encoder's stages are in few bits; stem, decoder and head stay at 32."
)
def rest_in_few_bits(choice, stages, other, bits):
    rest = bits.mean(1, keepdim=True) * other
    return (choice * (bits @ stages.T + rest) / 32).sum(1).mean()


@mistake(
    "You divided the rest by 32, too. Stem, decoder and head are in full precision: they cost their MACs."
)
def rest_divided_by_32(choice, stages, other, bits):
    return (choice * (bits @ stages.T + other) / 32).sum(1).mean()


@mistake("You added the rest once for each stage. Sum over the stages first.")
def rest_once_for_each_stage(choice, stages, other, bits):
    chosen_stages = choice @ stages
    chosen_rest = choice @ other
    return (chosen_stages * bits / 32 + chosen_rest[:, None]).sum(1).mean()


@mistake("You added the rest of all three ways. The choice picks the rest, too.")
def rest_of_all_ways(choice, stages, other, bits):
    chosen_stages = choice @ stages
    return ((chosen_stages * bits / 32).sum(1) + other).mean()


@mistake(
    "You divided by the bits, so that few of them cost much. Few must cost little: multiply by bits / 32."
)
def divided_by_the_bits(choice, stages, other, bits):
    return (choice * (32 / bits @ stages.T + other)).sum(1).mean()


@mistake("bits is (B, 4) and stages (3, 4): to sum over the stages, turn the second, bits @ stages.T.")
def stages_not_turned(choice, stages, other, bits):
    return (choice * (bits @ stages / 32 + other)).sum(1).mean()


@mistake(
    "stages @ bits.T has a row for each way and a column for each slice. "
    "choice is the other way round: use bits @ stages.T."
)
def bits_turned(choice, stages, other, bits):
    return (choice * (stages @ bits.T / 32 + other)).sum(1).mean()


@mistake(
    "You multiplied stages and bits row by row. A row of stages is a way, a row of bits a slice: every slice "
    "meets every way."
)
def row_by_row(choice, stages, other, bits):
    each = (stages * bits / 32).sum(1) + other
    return (choice * each).sum(1).mean()


@mistake("You return a number for each slice. Asked for is their mean.")
def a_number_for_each_slice(choice, stages, other, bits):
    return (choice * (bits @ stages.T / 32 + other)).sum(1)


@mistake("You return a plain number, which has no gradient. Leave the tensor as it is, without .item().")
def a_plain_number(choice, stages, other, bits):
    return (choice * (bits @ stages.T / 32 + other)).sum(1).mean().item()


@mistake(
    "You took the mean over the slices that are looked at. A skipped slice costs nothing, but it counts."
)
def mean_over_slices_looked_at(choice, stages, other, bits):
    each = (choice * (bits @ stages.T / 32 + other)).sum(1)
    return each[each > 0].mean()


@mistake("You took the mean of all three ways, whatever is chosen. Multiply by the choice and sum over them.")
def mean_of_all_ways(choice, stages, other, bits):
    return (bits @ stages.T / 32 + other).mean()


@mistake(
    "You summed over the batch. Then the price means something else for every batch size: take the mean."
)
def summed_over_the_batch(choice, stages, other, bits):
    return (choice * (bits @ stages.T / 32 + other)).sum()


@mistake("You forgot to divide by 32: full precision must cost its MACs, no more.")
def not_divided_by_32(choice, stages, other, bits):
    return (choice * (bits @ stages.T + other)).sum(1).mean()


@mistake("You left out the rest of the network: stem, decoder and head.")
def without_the_rest(choice, stages, other, bits):
    return (choice * (bits @ stages.T / 32)).sum(1).mean()


@mistake(
    "You charged every slice for all three choices. Only the chosen one is computed: multiply by the choice."
)
def charged_for_all_choices(choice, stages, other, bits):
    return (bits @ stages.T / 32 + other).sum(1).mean()


@mistake(
    "You used one mean number of bits for all stages. Each stage has its own, and stages cost differently."
)
def mean_number_of_bits(choice, stages, other, bits):
    mean_bits = bits.mean(1, keepdim=True)
    return (choice * (mean_bits * stages.sum(1) / 32 + other)).sum(1).mean()


@mistake(
    "You took the mean over the choices, too. Sum over the three, of which one is chosen; "
    "then the mean over slices."
)
def mean_over_the_choices(choice, stages, other, bits):
    return (choice * (bits @ stages.T / 32 + other)).mean()


@mistake(
    "Your cost is right, but no gradient leads from it to the choice: a number of the choice (argmax, an "
    "index, a mask) has none. Multiply the costs by the one-hot rows and sum."
)
def picked_by_number(choice, stages, other, bits):
    each = bits @ stages.T / 32 + other
    return each[torch.arange(len(each)), choice.argmax(1)].mean()


EXERCISE = Exercise(
    reference=mean_cost,
    result=with_gradient,
    challenges=(
        Challenge("one slice, cropped, in 8 and 16 bits", one_slice),
        Challenge("three slices, one of each choice", three_slices),
        Challenge("random choices and tables", random_tables),
    ),
    mistakes=(
        rest_in_few_bits,
        rest_divided_by_32,
        rest_once_for_each_stage,
        rest_of_all_ways,
        divided_by_the_bits,
        stages_not_turned,
        bits_turned,
        row_by_row,
        a_number_for_each_slice,
        a_plain_number,
        mean_over_slices_looked_at,
        mean_of_all_ways,
        summed_over_the_batch,
        not_divided_by_32,
        without_the_rest,
        charged_for_all_choices,
        mean_number_of_bits,
        mean_over_the_choices,
        picked_by_number,
    ),
    hints=(
        "First the cost of each of the three choices for each slice, (B, 3); "
        "then the choice picks one of them.",
        "cost[b, k] = sum over stages of stages[k, i] bits[b, i] / 32, plus other[k].",
        "each = bits @ stages.T / 32 + other; return (choice * each).sum(1).mean().",
    ),
)
