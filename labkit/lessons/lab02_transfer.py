"""Lab 02: freezing, counting and one training step, with the mistakes that students make."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from labkit.lessons.exercise import Challenge, Exercise


class Toy(nn.Module):
    """The smallest thing with a backbone and a decoder."""

    def __init__(self, width: int = 2, decoder_bias: bool = True):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(2, width), nn.LayerNorm(width))
        self.decoder = nn.Linear(width, 1, bias=decoder_bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.backbone(x))


def freeze(model: nn.Module) -> None:
    model.backbone.requires_grad_(False)
    model.decoder.requires_grad_(True)


def count_tuned(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> float:
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


# Freezing


def _frozen(**toy) -> Toy:
    model = Toy(**toy)
    freeze(model)
    return model


def _decoder_frozen() -> Toy:
    model = Toy()
    model.decoder.requires_grad_(False)
    return model


def _learning(backbone: bool, decoder: bool | None) -> Callable:
    """`freeze` with other switches; None leaves the decoder's as they are."""

    def wrong(model):
        model.backbone.requires_grad_(backbone)
        if decoder is not None:
            model.decoder.requires_grad_(decoder)

    return wrong


def _freeze_by_attribute(model):
    model.backbone.requires_grad = False
    model.decoder.requires_grad = True


def _freeze_matrices(model):
    freeze(model)
    for p in model.backbone.parameters():
        p.requires_grad = p.ndim < 2


def _freeze_and(more: Callable) -> Callable:
    """`freeze` that also does something else to the model."""

    def wrong(model):
        freeze(model)
        with torch.no_grad():
            more(model)

    return wrong


def _zero(model):
    for p in model.backbone.parameters():
        p.zero_()


# Counting


def _count(counts: Callable, asked: Callable = lambda p: p.requires_grad) -> Callable:
    """`count_tuned` with another count per parameter, or of other parameters."""
    return lambda model: sum(counts(p) for p in model.parameters() if asked(p))


# One step


def _step(
    loss: Callable = F.mse_loss, zero: bool = True, step: bool = True, told: Callable = torch.Tensor.item
) -> Callable:
    """`training_step` with another loss, with a part left out, or with something else returned."""

    def wrong(model, optimizer, x, y):
        if zero:
            optimizer.zero_grad()
        error = loss(model(x), y)
        error.backward()
        if step:
            optimizer.step()
        return told(error)

    return wrong


def _loss_after(model, optimizer, x, y):
    training_step(model, optimizer, x, y)
    return F.mse_loss(model(x), y).item()


def _batch(stale: bool) -> tuple:
    """A frozen toy, its optimizer and a batch; `stale` leaves the gradient of an earlier step behind."""
    model = _frozen()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    x, y = torch.randn(3, 2), torch.randn(3, 1)
    if stale:
        F.mse_loss(model(x), y + 1).backward()
    return model, optimizer, x, y


EXERCISES = {
    "freeze": Exercise(
        reference=freeze,
        challenges=(
            Challenge("a linear layer with a norm as backbone, a linear layer as decoder", lambda: (Toy(),)),
            Challenge("the same with a decoder that someone froze before", lambda: (_decoder_frozen(),)),
        ),
        result=lambda output, model: None,  # what counts is how the model is left
        changes=("model",),
        mistakes={
            "You froze the decoder as well: then nothing is left that could learn.": _learning(False, False),
            "It is the other way round: the backbone is pretrained and stays, the decoder is new and must "
            "learn.": _learning(True, False),
            "You set `requires_grad` on the module. That only makes a new attribute: PyTorch asks each "
            "parameter, so set it on every one of `.parameters()`, or call `.requires_grad_(False)`, with an "
            "underscore.": _freeze_by_attribute,
            "You froze the matrices and left biases and norms learning. (Another method does so: BitFit.)": _freeze_matrices,
            "You left the decoder as you found it; somebody may have frozen it before. Switch it on.": _learning(
                False, None
            ),
            "You also set the backbone's weights to zero. Freezing keeps weights as they are: they are the "
            "knowledge that pre-training paid for.": _freeze_and(_zero),
            "You also called `model.eval()`. That freezes nothing: it changes how dropout and batch norm "
            "behave, also in the decoder, which is still to be trained.": _freeze_and(Toy.eval),
            "You also called `model.backbone.eval()`. That freezes nothing: it changes how dropout and batch "
            "norm behave, and whether it should is another decision.": _freeze_and(
                lambda model: model.backbone.eval()
            ),
        },
        hints=(
            "Every parameter carries a switch, `requires_grad`. Which ones are off, which ones on?",
            "requires_grad = False for all of model.backbone.parameters(), True for all of "
            "model.decoder.parameters().",
            "model.backbone.requires_grad_(False), and the same with True for model.decoder.",
        ),
    ),
    "count_tuned": Exercise(
        reference=count_tuned,
        challenges=(
            Challenge(
                "a decoder of one row and no bias, on a frozen backbone",
                lambda: (_frozen(decoder_bias=False),),
            ),
            Challenge("a decoder with bias, on a frozen backbone", lambda: (_frozen(width=5),)),
            Challenge("everything learns", lambda: (Toy(width=3),)),
        ),
        mistakes={
            "You counted the frozen parameters too; only those with requires_grad learn.": _count(
                torch.Tensor.numel, asked=lambda p: True
            ),
            "You counted tensors. A weight matrix is one tensor and holds many numbers: `.numel()`.": _count(
                lambda p: 1
            ),
            "You left out biases and norms: a vector has parameters as well.": _count(
                torch.Tensor.numel, asked=lambda p: p.requires_grad and p.ndim >= 2
            ),
            "`len` of a matrix is its number of rows; `.numel()` is how many numbers it holds.": _count(len),
        },
        hints=(
            "Go through the parameters, keep those that learn, add up how many numbers each holds.",
            "The sum over all p with p.requires_grad of p.numel().",
            "return sum(p.numel() for p in model.parameters() if ...)",
        ),
    ),
    "training_step": Exercise(
        reference=training_step,
        challenges=(
            Challenge("a first step", lambda: _batch(stale=False)),
            Challenge("a step after another one, whose gradient is still there", lambda: _batch(stale=True)),
        ),
        changes=("model", "optimizer"),
        mistakes={
            "Gradients add up: without zero_grad() this step also repeats the one before.": _step(zero=False),
            "Nothing moved. Either optimizer.step() is missing, for backward() only computes gradients; or "
            "zero_grad() stands between backward() and step() and wipes out what was just computed.": _step(
                step=False
            ),
            "Your loss does not look at y: the network learns to predict zero.": _step(
                loss=lambda prediction, y: prediction.square().mean()
            ),
            "Return the loss you computed the gradient of, from before the step.": _loss_after,
            "You return the loss as a tensor. It holds on to the graph of the whole step, so a list of losses "
            "fills the memory: loss.item() is the plain number.": _step(told=lambda loss: loss),
        },
        hints=(
            "Four things happen in a step: forget, predict and compare, differentiate, move.",
            "zero_grad, loss = mse(model(x), y), loss.backward(), optimizer.step().",
            "optimizer.zero_grad(); loss = F.mse_loss(model(x), y); loss.backward(); then step, and return "
            "loss.item().",
        ),
    ),
}
