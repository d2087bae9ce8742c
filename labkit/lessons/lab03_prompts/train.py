"""`train`: the loop that moves whatever of a model learns, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import nn

from labkit.lessons.exercise import Challenge, Exercise, mistake


def train(
    model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]], loss_of: Callable, lr: float
) -> list[float]:
    """One step of AdamW for each batch (x, y), on loss_of(model(x), y); the loss before each step."""
    optimizer = torch.optim.AdamW(learning(model), lr=lr)
    losses = []
    for x, y in batches:
        loss = loss_of(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def learning(model: nn.Module) -> list[nn.Parameter]:
    """What of a model learns."""
    return [p for p in model.parameters() if p.requires_grad]


# Challenges


def half_frozen(inputs: int, steps: int) -> tuple:
    """A frozen layer under one that learns, batches of 5 rows with a class each, and cross-entropy: as with
    the lab's own loss, prediction and truth cannot change places."""
    model = nn.Sequential(nn.Linear(inputs, 3).requires_grad_(False), nn.Tanh(), nn.Linear(3, 2))
    batches = [(torch.randn(5, inputs), torch.randint(0, 2, (5,))) for _ in range(steps)]
    return model, batches, F.cross_entropy, 0.05


# Mistakes


def steps(model, batches, loss_of, optimizer, clear=True):
    """The loop with another optimizer, or without zero_grad."""
    losses = []
    for x, y in batches:
        loss = loss_of(model(x), y)
        if clear:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@mistake("You never call optimizer.zero_grad(): backward *adds* to what is there, so old gradients pile up.")
def gradients_pile_up(model, batches, loss_of, lr):
    return steps(model, batches, loss_of, torch.optim.AdamW(learning(model), lr=lr), clear=False)


@mistake(
    "Nothing moved: optimizer.step() is missing, or the gradients were cleared between backward() and step()."
)
def nothing_moves(model, batches, loss_of, lr):
    losses = []
    for x, y in batches:
        loss = loss_of(model(x), y)
        for p in learning(model):
            p.grad = None
        losses.append(loss.item())
    return losses


@mistake(
    "You unfroze the model. Prompts are trained *beside* a frozen backbone; give the optimizer what has "
    "requires_grad, and leave requires_grad as it is."
)
def unfrozen(model, batches, loss_of, lr):
    model.requires_grad_(True)
    return steps(model, batches, loss_of, torch.optim.AdamW(model.parameters(), lr=lr))


@mistake(
    "You make the optimizer anew at every step. AdamW remembers earlier gradients; make it once, before the "
    "loop."
)
def new_optimizer_each_step(model, batches, loss_of, lr):
    losses = []
    for batch in batches:
        losses += steps(model, [batch], loss_of, torch.optim.AdamW(learning(model), lr=lr))
    return losses


@mistake("That is SGD; AdamW is asked for, torch.optim.AdamW.")
def sgd(model, batches, loss_of, lr):
    return steps(model, batches, loss_of, torch.optim.SGD(learning(model), lr=lr))


@mistake("That is Adam; AdamW is asked for. It also pulls each weight a little towards 0 (weight decay).")
def adam(model, batches, loss_of, lr):
    return steps(model, batches, loss_of, torch.optim.Adam(learning(model), lr=lr))


@mistake("You did not give lr to the optimizer, which then takes its default, 0.001.")
def default_rate(model, batches, loss_of, lr):
    return steps(model, batches, loss_of, torch.optim.AdamW(learning(model)))


@mistake("You gave the loss its inputs in the wrong order: loss_of(model(x), y), the prediction first.")
def truth_first(model, batches, loss_of, lr):
    return train(model, batches, lambda logits, y: loss_of(y, logits), lr)


@mistake("You returned the last loss alone; the loss of every step is asked for, in a list.")
def last_loss_alone(model, batches, loss_of, lr):
    return train(model, batches, loss_of, lr)[-1]


@mistake(
    "Your losses are tensors, and each keeps all that was computed for it in memory. loss.item() is the "
    "number alone."
)
def losses_as_tensors(model, batches, loss_of, lr):
    return [torch.tensor(loss) for loss in train(model, batches, loss_of, lr)]


@mistake("You returned from inside the loop: one step was taken, on the first batch. Dedent `return`.")
def first_batch_alone(model, batches, loss_of, lr):
    return train(model, batches[:1], loss_of, lr)


EXERCISE = Exercise(
    reference=train,
    challenges=(
        Challenge("two inputs, two steps", lambda: half_frozen(2, 2)),
        Challenge("four inputs, six steps", lambda: half_frozen(4, 6)),
    ),
    changes=("model",),
    mistakes=(
        gradients_pile_up,
        nothing_moves,
        unfrozen,
        new_optimizer_each_step,
        sgd,
        adam,
        default_rate,
        truth_first,
        last_loss_alone,
        losses_as_tensors,
        first_batch_alone,
    ),
    hints=(
        "One optimizer, made before the loop, for whatever has requires_grad. In the loop: predict, compare, "
        "forget the last gradients, differentiate, move.",
        "torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr); then for x, y in "
        "batches: loss_of(model(x), y), zero_grad(), backward(), step(), and loss.item() into the list.",
        "loss = loss_of(model(x), y); optimizer.zero_grad(); loss.backward(); optimizer.step(); "
        "losses.append(loss.item())",
    ),
)
