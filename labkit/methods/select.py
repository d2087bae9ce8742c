"""Methods that add nothing: they choose which pretrained parameters learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn


@dataclass(frozen=True)
class Full:
    """Every parameter learns: the standard "pre-training then fine-tuning"."""

    family: ClassVar[str] = "choose"

    def inject(self, backbone: nn.Module) -> None:
        backbone.requires_grad_(True)


@dataclass(frozen=True)
class Head:
    """The backbone stays frozen; only the head learns, that is what `labkit.networks.anatomy.head` lists."""

    family: ClassVar[str] = "choose"

    def inject(self, backbone: nn.Module) -> None:
        pass


@dataclass(frozen=True)
class Scratch:
    """The pretrained weights are thrown away and every parameter learns from a random start.

    Also where a decoder began as copies of the backbone's blocks: then as copies of the random ones.
    """

    family: ClassVar[str] = "choose"
    forgets: ClassVar[bool] = True

    def inject(self, backbone: nn.Module) -> None:
        if hasattr(backbone, "init_weights") and hasattr(backbone, "patch_embed"):  # timm
            backbone.init_weights()
            backbone.patch_embed.proj.reset_parameters()  # timm leaves it to its constructor
        else:
            _draw_anew(backbone)
        backbone.requires_grad_(True)


def _draw_anew(model: nn.Module) -> None:
    """Every layer as PyTorch starts it. ValueError: one that PyTorch does not know has numbers of its own."""
    found = [
        (m, getattr(m, "reset_parameters", getattr(m, "_reset_parameters", None))) for m in model.modules()
    ]
    for module, draw in found:
        if draw is None and [*module.parameters(recurse=False)]:
            raise ValueError(
                f"Scratch can't draw anew what {type(module).__name__} holds itself; build the network "
                "without its weights and tune it by Full()."
            )
    for _, draw in found:
        if draw is not None:
            draw()


@dataclass(frozen=True)
class BitFit:
    """Every bias of the backbone learns, nothing else. Ben Zaken et al., 2021, arXiv:2106.10199.

    The biases of the keys get a gradient of zero: a constant added to all keys adds the same to every logit
    of a query, and softmax ignores what its inputs share.
    """

    family: ClassVar[str] = "choose"

    def inject(self, backbone: nn.Module) -> None:
        for name, parameter in backbone.named_parameters():
            if name.split(".")[-1] == "bias":  # what else learns, beside Full() say, goes on learning
                parameter.requires_grad_(True)
