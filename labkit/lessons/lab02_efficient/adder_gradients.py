"""`adder_gradients`: what an adder layer has in place of its derivatives."""

from __future__ import annotations

import torch

from labkit.efficient import adder
from labkit.lessons.exercise import Challenge, Exercise, mistake


def adder_gradients(
    X: torch.Tensor, filters: torch.Tensor, g: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """dX (L, k) and dF (o, k) of Y = -sum |X - F|, (L, o), for patches X (L, k) and g = dL/dY (L, o)."""
    X, filters = X.clone().requires_grad_(), filters.clone().requires_grad_()
    Y = adder.Adder.apply(X.T[None], filters, None)  # (1, o, L)
    return torch.autograd.grad(Y, (X, filters), g.T[None])


# Challenges


def one_patch() -> tuple:
    return torch.tensor([[2.0, 0.7]]), torch.tensor([[0.5, 1.0]]), torch.tensor([[2.0]])


def two_patches() -> tuple:
    X = torch.tensor([[2.0, 0.0, 0.25], [1.0, -1.5, 0.5]])
    filters = torch.tensor([[0.5, 0.5, 0.0]])
    g = torch.tensor([[2.0], [-1.0]])
    return X, filters, g


def random_patches() -> tuple:
    return 2 * torch.randn(4, 3), torch.randn(2, 3), torch.randn(4, 2)


# Mistakes


@mistake(
    "You used the true derivative, the sign, for the filters. Then a filter that is far off learns no faster "
    "than one that is nearly right; AdderNet puts X - F there."
)
def sign_for_the_filters(X, filters, g):
    away = filters - X[:, None]
    dX = (g[..., None] * away.clamp(-1, 1)).sum(1)
    dF = (g[..., None] * (-away).sign()).sum(0)
    return dX, dF


@mistake(
    "You clipped the filters' gradient. X - F stays in full; it is dX that is clipped, because it is passed "
    "on and would grow from layer to layer."
)
def clipped_for_the_filters(X, filters, g):
    away = filters - X[:, None]
    dX = (g[..., None] * away.clamp(-1, 1)).sum(1)
    dF = (g[..., None] * (-away).clamp(-1, 1)).sum(0)
    return dX, dF


@mistake("Your dX has the filters' sign. If X grows beyond F, Y falls: dX is clip(F - X).")
def dX_of_the_wrong_sign(X, filters, g):
    away = filters - X[:, None]
    dX = (g[..., None] * (-away).clamp(-1, 1)).sum(1)
    dF = (g[..., None] * -away).sum(0)
    return dX, dF


@mistake(
    "Your dF has the wrong sign. Y is largest when the filter is like the patch, so F moves towards X: X - F."
)
def dF_of_the_wrong_sign(X, filters, g):
    away = filters - X[:, None]
    dX = (g[..., None] * away.clamp(-1, 1)).sum(1)
    dF = (g[..., None] * away).sum(0)
    return dX, dF


@mistake("You left out g, what arrives from above: each pair of patch and filter counts times its g.")
def without_g(X, filters, g):
    away = filters - X[:, None]
    dX = away.clamp(-1, 1).sum(1)
    dF = (-away).sum(0)
    return dX, dF


@mistake("You averaged over the patches. Every patch that a filter met adds to its gradient.")
def averaged_over_the_patches(X, filters, g):
    away = filters - X[:, None]
    dX = (g[..., None] * away.clamp(-1, 1)).sum(1)
    dF = (g[..., None] * -away).mean(0)
    return dX, dF


@mistake(
    "You left dX as it is. F - X is clipped to -1 and 1, because it is passed on to the layers before: else "
    "it grows from layer to layer."
)
def not_clipped(X, filters, g):
    away = filters - X[:, None]
    dX = (g[..., None] * away).sum(1)
    dF = (g[..., None] * -away).sum(0)
    return dX, dF


@mistake(
    "Both of yours are the true derivatives, the signs. AdderNet puts X - F and clip(F - X, -1, 1) there."
)
def signs_for_both(X, filters, g):
    away = filters - X[:, None]
    dX = (g[..., None] * away.sign()).sum(1)
    dF = (g[..., None] * (-away).sign()).sum(0)
    return dX, dF


EXERCISE = Exercise(
    reference=adder_gradients,
    challenges=(
        Challenge("one patch of two numbers, one filter", one_patch),
        Challenge("two patches of three numbers, one filter", two_patches),
        Challenge("random: four patches, two filters", random_patches),
    ),
    mistakes=(
        sign_for_the_filters,
        clipped_for_the_filters,
        dX_of_the_wrong_sign,
        dF_of_the_wrong_sign,
        without_g,
        averaged_over_the_patches,
        not_clipped,
        signs_for_both,
    ),
    hints=(
        "For one patch and one filter write down what stands in place of dY/dX and of dY/dF. Then sum: dX "
        "over filters, dF over patches, each times g.",
        "away = F - X for every pair, (L, o, k). dX = sum over o of g clip(away, -1, 1); dF = sum over L of "
        "g times -away.",
        "away = filters - X[:, None]; dX = (g[..., None] * away.clamp(-1, 1)).sum(1); "
        "dF = (g[..., None] * -away).sum(0).",
    ),
)
