"""`freeze`: the backbone stays as it is, the decoder learns."""

from __future__ import annotations

from torch import nn

from labkit.lessons.exercise import Challenge, Exercise, mistake
from labkit.lessons.lab01_transfer.inputs import Toy


def freeze(model: nn.Module) -> None:
    """Switch `requires_grad` off for all of the backbone and on for all of the decoder."""
    model.backbone.requires_grad_(False)
    model.decoder.requires_grad_(True)


# Challenges


def decoder_frozen_before() -> tuple:
    model = Toy()
    model.decoder.requires_grad_(False)
    return (model,)


# Mistakes


@mistake("You froze the decoder as well: then nothing is left that could learn.")
def froze_the_decoder_too(model):
    model.backbone.requires_grad_(False)
    model.decoder.requires_grad_(False)


@mistake(
    "It is the other way round: the backbone is pretrained and stays, the decoder is new and must learn."
)
def froze_the_decoder_instead(model):
    model.backbone.requires_grad_(True)
    model.decoder.requires_grad_(False)


@mistake(
    "You set `requires_grad` on the module. That only makes a new attribute: PyTorch asks each parameter, so "
    "set it on every one of `.parameters()`, or call `.requires_grad_(False)`, with an underscore."
)
def set_an_attribute_of_the_module(model):
    model.backbone.requires_grad = False
    model.decoder.requires_grad = True


@mistake("You froze the matrices and left biases and norms learning. (Another method does so: BitFit.)")
def froze_matrices_only(model):
    for p in model.backbone.parameters():
        p.requires_grad = p.ndim < 2
    model.decoder.requires_grad_(True)


@mistake("You left the decoder as you found it; somebody may have frozen it before. Switch it on.")
def left_the_decoder_as_found(model):
    model.backbone.requires_grad_(False)


@mistake(
    "You also set the backbone's weights to zero. Freezing keeps weights as they are: they are the knowledge "
    "that pre-training paid for."
)
def set_weights_to_zero(model):
    for p in model.backbone.parameters():
        p.requires_grad = False
        p.zero_()
    model.decoder.requires_grad_(True)


@mistake(
    "You also called `model.eval()`. That freezes nothing: it changes how dropout and batch norm behave, "
    "also in the decoder, which is still to be trained."
)
def called_eval(model):
    model.backbone.requires_grad_(False)
    model.decoder.requires_grad_(True)
    model.eval()


@mistake(
    "You also called `model.backbone.eval()`. That freezes nothing: it changes how dropout and batch norm "
    "behave, and whether it should is another decision."
)
def called_eval_of_the_backbone(model):
    model.backbone.requires_grad_(False)
    model.decoder.requires_grad_(True)
    model.backbone.eval()


EXERCISE = Exercise(
    reference=freeze,
    challenges=(
        Challenge("a linear layer with a norm as backbone, a linear layer as decoder", lambda: (Toy(),)),
        Challenge("the same with a decoder that someone froze before", decoder_frozen_before),
    ),
    result=lambda output, model: None,  # what counts is how the model is left
    changes=("model",),
    mistakes=(
        froze_the_decoder_too,
        froze_the_decoder_instead,
        set_an_attribute_of_the_module,
        froze_matrices_only,
        left_the_decoder_as_found,
        set_weights_to_zero,
        called_eval,
        called_eval_of_the_backbone,
    ),
    hints=(
        "Every parameter carries a switch, `requires_grad`. Which ones are off, which ones on?",
        "requires_grad = False for all of model.backbone.parameters(), True for all of "
        "model.decoder.parameters().",
        "model.backbone.requires_grad_(False), and the same with True for model.decoder.",
    ),
)
