"""`frozen_random`: the control that shows what pre-training is worth."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake
from labkit.lessons.lab01_transfer.inputs import Toy


def frozen_random(pretrained: nn.Module, untrained: nn.Module) -> nn.Module:
    """A new network: the backbone of `untrained`, frozen, and the decoder of `pretrained`, which learns."""
    control = copy.deepcopy(pretrained)
    control.backbone.load_state_dict(untrained.backbone.state_dict())
    control.backbone.requires_grad_(False)
    control.decoder.requires_grad_(True)
    return control


def parts(control: Any, pretrained: nn.Module, untrained: nn.Module) -> dict[str, dict[str, Any]]:
    """What is compared: of each parameter its values and whether it learns, by name."""
    if not isinstance(control, nn.Module):
        raise Unfit(f"return the network, not a {type(control).__name__}")
    named = dict(control.named_parameters())
    return {
        "values": {name: p.detach() for name, p in named.items()},
        "learns": {name: p.requires_grad for name, p in named.items()},
    }


# Challenges


def two_toys(width: int = 2) -> tuple[Toy, Toy]:
    """Two networks of one shape: "pretrained" and "untrained" have other numbers everywhere."""
    both = Toy(width), Toy(width)
    with torch.no_grad():
        for model in both:
            for p in model.parameters():
                p.copy_(torch.randn(p.shape))
    return both


def decoder_frozen_before() -> tuple[Toy, Toy]:
    pretrained, untrained = two_toys(3)
    pretrained.backbone.requires_grad_(False)
    pretrained.decoder.requires_grad_(False)
    return pretrained, untrained


# Mistakes


@mistake(
    "You left the random backbone learning. That is training from scratch: a good result would then show "
    "what was learned now, not what a frozen backbone gives."
)
def backbone_learns(pretrained, untrained):
    control = copy.deepcopy(pretrained)
    control.backbone.load_state_dict(untrained.backbone.state_dict())
    control.backbone.requires_grad_(True)
    control.decoder.requires_grad_(True)
    return control


@mistake("Your control still has the pretrained backbone: that is head tuning, the very thing to be judged.")
def pretrained_backbone(pretrained, untrained):
    control = copy.deepcopy(pretrained)
    control.backbone.requires_grad_(False)
    control.decoder.requires_grad_(True)
    return control


@mistake(
    "Your control starts with another decoder as well. Then two things differ, and nobody can say which "
    "of them mattered: take the decoder of `pretrained`."
)
def another_decoder(pretrained, untrained):
    control = copy.deepcopy(untrained)
    control.backbone.requires_grad_(False)
    control.decoder.requires_grad_(True)
    return control


@mistake("You froze the decoder too. A control must learn as much as what it is compared with.")
def nothing_learns(pretrained, untrained):
    control = copy.deepcopy(pretrained)
    control.backbone.load_state_dict(untrained.backbone.state_dict())
    return control.requires_grad_(False)


@mistake("You left the decoder as you found it; somebody may have frozen it before. Switch it on.")
def decoder_as_found(pretrained, untrained):
    control = copy.deepcopy(pretrained)
    control.backbone.load_state_dict(untrained.backbone.state_dict())
    control.backbone.requires_grad_(False)
    return control


@mistake(
    "You wrote the random numbers into `pretrained` itself: what pre-training had learned is gone. Work on a "
    "copy, `copy.deepcopy(pretrained)`."
)
def overwrote_the_pretrained(pretrained, untrained):
    pretrained.backbone.load_state_dict(untrained.backbone.state_dict())
    pretrained.backbone.requires_grad_(False)
    pretrained.decoder.requires_grad_(True)
    return pretrained


@mistake("You set the backbone to zero. Random is not nothing: zeros pass no pixel on, random numbers do.")
def a_backbone_of_zeros(pretrained, untrained):
    control = copy.deepcopy(pretrained)
    control.backbone.requires_grad_(False)
    for p in control.backbone.parameters():
        p.zero_()
    control.decoder.requires_grad_(True)
    return control


EXERCISE = Exercise(
    reference=frozen_random,
    challenges=(
        Challenge("two small networks, in which all learns", two_toys),
        Challenge("the same, but somebody froze `pretrained` before", decoder_frozen_before),
    ),
    result=parts,
    mistakes=(
        backbone_learns,
        pretrained_backbone,
        another_decoder,
        nothing_learns,
        decoder_as_found,
        overwrote_the_pretrained,
        a_backbone_of_zeros,
    ),
    hints=(
        "One thing may differ from head tuning: what the backbone knows. What learns must be the same, and "
        "so must the decoder's start.",
        "A deep copy of `pretrained`; into its backbone the `state_dict()` of the other one; backbone "
        "frozen, decoder learning.",
        "control.backbone.load_state_dict(untrained.backbone.state_dict()), then requires_grad_ twice.",
    ),
)
