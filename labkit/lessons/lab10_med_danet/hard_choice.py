"""`hard_choice`: one of several branches for each slice, with the gradient of the soft choice."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit.efficient import meddanet
from labkit.lessons.authoring import gradient
from labkit.lessons.exercise import Challenge, Exercise, mistake


def hard_choice(z: torch.Tensor) -> torch.Tensor:
    """Logits (B, K) -> one-hot rows (B, K) of the largest, with the softmax's gradient."""
    return meddanet.hard_choice(z)


def with_gradient(output: torch.Tensor, z: torch.Tensor) -> dict[str, torch.Tensor]:
    """What is compared: the choice (B, 3), and z's gradient of a loss with another weight for each entry."""
    weights = torch.tensor([1.0, 2, 4]) * torch.arange(1.0, len(z) + 1)[:, None]
    return {"choice": output.detach(), "gradient": gradient((output * weights).sum(), z)}


# Challenges


def one_slice() -> tuple:
    return (torch.tensor([[0.4, 0.2, 0.0]], requires_grad=True),)


def two_slices() -> tuple:
    return (torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 1.0]], requires_grad=True),)


def five_slices() -> tuple:
    return (torch.randn(5, 3, requires_grad=True),)


# Mistakes


@mistake(
    "No gradient reaches the logits. argmax has none, nor has a softmax so steep that it is one-hot; "
    "`requires_grad_()` on the rows makes a new beginning of them, which leads back to nothing; and a "
    "softmax that is added and taken away as it is cancels its own. What is taken away must be detached."
)
def without_a_gradient(z):
    return F.one_hot(z.argmax(1), z.shape[1]).float()


@mistake(
    "You return the one-hot rows alone, in whole numbers. No gradient passes them: add the softmax, and "
    "take its own value, detached, away again."
)
def in_whole_numbers(z):
    return F.one_hot(z.argmax(1), z.shape[1])


@mistake("You return the number of the choice. Asked for is its one-hot row.")
def number_of_the_choice(z):
    return z.argmax(1)


@mistake(
    "You did not tell one_hot how many choices there are: it counts up to the largest one that is taken. "
    "Where no slice is looked at whole, the rows are too short."
)
def without_the_number_of_choices(z):
    soft = z.softmax(1)
    return F.one_hot(z.argmax(1)) + (soft - soft.detach())


@mistake("You rounded the softmax. Where no choice has more than a half, none is taken.")
def rounded_the_softmax(z):
    soft = z.softmax(1)
    return soft.round() + (soft - soft.detach())


@mistake("You took one argmax for all slices together. Each row has its own: argmax(1).")
def one_argmax_for_all(z):
    soft = z.softmax(1)
    return F.one_hot(z.argmax(), z.shape[1]) + (soft - soft.detach())


@mistake("Your argmax compares the slices with each other. Compare the choices of a slice: argmax(1).")
def argmax_over_the_slices(z):
    soft = z.softmax(1)
    return F.one_hot(z.argmax(0), z.shape[1]) + (soft - soft.detach())


@mistake("Your softmax runs over the slices. The choices of one slice compete: softmax(1).")
def softmax_over_the_slices(z):
    soft = z.softmax(0)
    return F.one_hot(z.argmax(1), z.shape[1]) + (soft - soft.detach())


@mistake("You multiplied by the softmax: the chosen one gets its probability, not 1.")
def multiplied_by_the_softmax(z):
    return F.one_hot(z.argmax(1), z.shape[1]) * z.softmax(1)


@mistake("You return the softmax. Then all three branches must be computed and mixed, and nothing is saved.")
def the_softmax_itself(z):
    return z.softmax(1)


@mistake(
    "Your result is one-hot minus softmax plus itself without a gradient: the detach is on the wrong one."
)
def detached_the_wrong_one(z):
    soft = z.softmax(1)
    return F.one_hot(z.argmax(1), z.shape[1]) + (soft.detach() - soft)


@mistake("You added the softmax and did not take it away again: the choices no longer sum to 1.")
def softmax_not_taken_away(z):
    return F.one_hot(z.argmax(1), z.shape[1]) + z.softmax(1)


@mistake(
    "Your gradient is that of the logits themselves. With the softmax, choices compete: one can only gain "
    "what others lose."
)
def gradient_of_the_logits(z):
    return F.one_hot(z.argmax(1), z.shape[1]) + (z - z.detach())


@mistake("You added noise. It helps to explore in training; in use the same slice must get the same choice.")
def with_noise(z):
    return F.gumbel_softmax(z, hard=True)


EXERCISE = Exercise(
    reference=hard_choice,
    challenges=(
        Challenge("one slice, skipped", one_slice),
        Challenge("two slices", two_slices),
        Challenge("random: five slices", five_slices),
    ),
    result=with_gradient,
    mistakes=(
        without_a_gradient,
        in_whole_numbers,
        number_of_the_choice,
        without_the_number_of_choices,
        rounded_the_softmax,
        one_argmax_for_all,
        argmax_over_the_slices,
        softmax_over_the_slices,
        multiplied_by_the_softmax,
        the_softmax_itself,
        detached_the_wrong_one,
        softmax_not_taken_away,
        gradient_of_the_logits,
        with_noise,
    ),
    hints=(
        "s - s.detach() is 0, and has the gradient of s. What is s here, and what is it added to?",
        "one_hot(argmax z) + (softmax z - its own value, detached).",
        "soft = z.softmax(1); return F.one_hot(z.argmax(1), z.shape[1]) + (soft - soft.detach()).",
    ),
)
