"""Lab 02: freezing, counting and one training step, with the mistakes that students make."""

from __future__ import annotations

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


def half_frozen() -> Toy:
    model = Toy()
    model.decoder.requires_grad_(False)
    return model


def who_learns(_output, model: nn.Module) -> dict[str, bool]:
    return {name: p.requires_grad for name, p in model.named_parameters()}


# --- freeze ------------------------------------------------------------------------------------------------


def freeze(model: nn.Module) -> None:
    model.backbone.requires_grad_(False)
    model.decoder.requires_grad_(True)


def freeze_all(model):
    model.requires_grad_(False)


def freeze_decoder(model):
    model.backbone.requires_grad_(True)
    model.decoder.requires_grad_(False)


def freeze_by_attribute(model):
    model.backbone.requires_grad = False
    model.decoder.requires_grad = True


def freeze_matrices(model):
    for p in model.backbone.parameters():
        p.requires_grad = p.ndim < 2
    model.decoder.requires_grad_(True)


def freeze_only(model):
    model.backbone.requires_grad_(False)


# --- count -------------------------------------------------------------------------------------------------


def count_tuned(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_all(model):
    return sum(p.numel() for p in model.parameters())


def count_tensors(model):
    return sum(1 for p in model.parameters() if p.requires_grad)


def count_matrices(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad and p.ndim >= 2)


def count_rows(model):
    return sum(len(p) for p in model.parameters() if p.requires_grad)


def tuned(model: nn.Module) -> nn.Module:
    freeze(model)
    return model


# --- training step -----------------------------------------------------------------------------------------


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor
) -> float:
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def step_without_zero(model, optimizer, x, y):
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def step_without_step(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    return loss.item()


def step_on_predictions(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def loss_after(model, optimizer, x, y):
    training_step(model, optimizer, x, y)
    return F.mse_loss(model(x), y).item()


def batch(stale: bool, seed: int = 0) -> tuple:
    """A frozen toy, its optimizer and a batch; `stale` leaves the gradient of an earlier step behind."""
    torch.manual_seed(seed)
    model = tuned(Toy())
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.1)
    x, y = torch.randn(3, 2), torch.randn(3, 1)
    if stale:
        F.mse_loss(model(x), y + 1).backward()
    return model, optimizer, x, y


def after_step(output, model: nn.Module, *_) -> dict:
    return {"the loss": output, **{name: p.detach().clone() for name, p in model.named_parameters()}}


EXERCISES = {
    "freeze": Exercise(
        reference=freeze,
        challenges=(
            Challenge("a linear layer with a norm as backbone, a linear layer as decoder", lambda: (Toy(),)),
            Challenge("the same with a decoder that someone froze before", lambda: (half_frozen(),)),
        ),
        result=who_learns,
        changes=("model",),
        mistakes={
            "You froze the decoder as well: then nothing is left that could learn.": freeze_all,
            "It is the other way round: the backbone is pretrained and stays, the decoder is new and must "
            "learn.": freeze_decoder,
            "You set `requires_grad` on the module. That only makes a new attribute: PyTorch asks each "
            "parameter, so set it on every one of `.parameters()`, or call `.requires_grad_(False)`, with an "
            "underscore.": freeze_by_attribute,
            "You froze the matrices and left biases and norms learning. (Another method does so: BitFit.)": freeze_matrices,
            "You left the decoder as you found it; somebody may have frozen it before. Switch it on.": freeze_only,
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
                lambda: (tuned(Toy(decoder_bias=False)),),
            ),
            Challenge("a decoder with bias, on a frozen backbone", lambda: (tuned(Toy(width=5)),)),
            Challenge("everything learns", lambda: (Toy(width=3),)),
        ),
        mistakes={
            "You counted the frozen parameters too; only those with requires_grad learn.": count_all,
            "You counted tensors. A weight matrix is one tensor and holds many numbers: `.numel()`.": count_tensors,
            "You left out biases and norms: a vector has parameters as well.": count_matrices,
            "`len` of a matrix is its number of rows; `.numel()` is how many numbers it holds.": count_rows,
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
            Challenge("a first step", lambda: batch(stale=False)),
            Challenge("a step after another one, whose gradient is still there", lambda: batch(stale=True)),
        ),
        result=after_step,
        changes=("model", "optimizer"),
        mistakes={
            "Gradients add up: without zero_grad() this step also repeats the one before.": step_without_zero,
            "Nothing moved. Either optimizer.step() is missing, for backward() only computes gradients; or "
            "zero_grad() stands between backward() and step() and wipes out what was just computed.": step_without_step,
            "Your loss does not look at y: the network learns to predict zero.": step_on_predictions,
            "Return the loss you computed the gradient of, from before the step.": loss_after,
        },
        hints=(
            "Four things happen in a step: forget, predict and compare, differentiate, move.",
            "zero_grad, loss = mse(model(x), y), loss.backward(), optimizer.step().",
            "optimizer.zero_grad(); loss = F.mse_loss(model(x), y); loss.backward(); then step, and return "
            "loss.item().",
        ),
    ),
}
