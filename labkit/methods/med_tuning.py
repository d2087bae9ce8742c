r"""Med-Tuning: A New Parameter-Efficient Tuning Framework for Medical Volumetric Segmentation.
Shen et al., 2024, arXiv:2304.10880 (MIDL 2024).

After every block an adapter looks at the block's tokens as a volume, through a bottleneck of width m = d / 6:

    h = GELU(W_down x)                                          (B, m, S, h, w)
    M = Mix( DW3(h) + DW5(h) + f(h) )                           intra-stage feature enhancement
    M = Mix'( [M, Align(M of the stage before)] )               inter-stage interaction, last block of a stage
    x + W_up(h + M)                                             (7)

DWk: a depthwise (1, k, k) and a depthwise (k, 1, 1) convolution, batch norm, ReLU. f: the global branch, see
labkit.methods.fourier. Mix, Mix', Align: 1 x 1 x 1 convolutions; between the stages of a Swin, Align is a
(1, 3, 3) convolution of stride 2. The first stage has none before it and is given zeros: Align's weight gets
no gradient there, ever. Parameters of an adapter as released: 2dm + m^2 + 52m + d + 2T, and 3m^2 + 2m (Swin:
6.5m^2 + 2m) where stages interact.

What the authors' code does and the paper does not say is kept: biases, one norm and ReLU per branch, Mix',
zeros before the first stage, and that the fused M is what is handed on. Where code and paper differ, a field
decides. `fourier`: "complex", the paper's filter (default, since the released one sees nothing of the plane),
"released", or None. `start`: "zero", W_up starts at zero, so the tuned network starts as the pretrained one,
and nothing follows it, as in (7) (default: this trains well on few patients); "released", PyTorch's default
values and a GELU after W_up.

Not said above, and harmless: the backbone keeps the epsilon its weights were trained with (1e-6, theirs
1e-5); their Swin drops paths with probability .1 while it trains, here none.

T is how many slices the Fourier filter has numbers for (the authors': 128); nothing else depends on slices. A
run of another length S is filtered by the numbers nearest to its frequencies (the authors' code stops), and
where S < T only those learn: predict in runs of the length of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from labkit.methods.fourier import ComplexFilter, RealFilter
from labkit.methods.relay import Relay
from labkit.methods.volumetric import AcrossSlices, InPlane, put_after, to_maps, to_volume
from labkit.networks.anatomy import block_paths, blocks, grid, stage_ends, width

FILTERS = {"complex": ComplexFilter, "released": RealFilter}


def depthwise(m: int, k: int) -> nn.Sequential:
    """k x k x k in two steps: in the plane, then along slices."""
    return nn.Sequential(InPlane(m, k), AcrossSlices(m, k), nn.BatchNorm3d(m), nn.ReLU())


class IntraStage(nn.Module):
    """The branches added, then channels mixed: (B, m, S, h, w) -> the same shape."""

    def __init__(self, m: int, branches: list[nn.Module], mixing: bool):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.mix = nn.Conv3d(m, m, 1) if mixing else nn.Identity()

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.mix(sum(branch(h) for branch in self.branches))


class InterStage(nn.Module):
    """M and the feature of the stage before become one: (B, m, S, h, w) -> the same shape."""

    def __init__(self, m: int, before: int, shrinks: bool, how: str, stage: int, relay: Relay):
        super().__init__()
        how_far = ((1, 3, 3), (1, 2, 2), (0, 1, 1)) if shrinks else (1,)  # kernel, stride, padding
        self.align = nn.Conv3d(before, m, *how_far)
        self.mix = nn.Conv3d(2 * m, m, 1) if how == "concat" else None
        self.how, self.stage, self.relay = how, stage, relay

    def forward(self, M: torch.Tensor) -> torch.Tensor:
        before = self.align(self.relay.features[self.stage - 1] if self.stage else self.nothing(M))
        if self.how == "concat":
            M = self.mix(torch.cat([M, before], 1))
        else:
            M = M + before if self.how == "add" else torch.maximum(M, before)
        self.relay.put(self.stage, M)
        return M

    def nothing(self, M: torch.Tensor) -> torch.Tensor:
        """Zeros of the shape that a stage before would have."""
        B, _, S, h, w = M.shape
        step = self.align.stride[-1]
        return M.new_zeros(B, self.align.in_channels, S, step * h, step * w)


class MedAdapter(nn.Module):
    """(B, S, h, w, d) -> the same shape."""

    def __init__(self, d: int, m: int, intra: nn.Module | None, inter: nn.Module | None, start: str):
        super().__init__()
        self.W_down, self.W_up = nn.Linear(d, m), nn.Linear(m, d)
        self.intra, self.inter, self.start = intra, inter, start
        if start == "zero":
            nn.init.zeros_(self.W_up.weight)
            nn.init.zeros_(self.W_up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = to_volume(F.gelu(self.W_down(x)))
        if self.intra is not None:
            M = self.intra(h)
            h = h + (M if self.inter is None else self.inter(M))
        y = self.W_up(to_maps(h))
        return x + (y if self.start == "zero" else F.gelu(y))


@dataclass(frozen=True)
class MedTuning:
    """The adapter after every block; each ingredient can be left out, as in the paper's ablations."""

    ratio: int = 6  # d / m
    local: bool = True  # the two depthwise branches
    fourier: str | None = "complex"  # or "released"
    mixing: bool = True
    interaction: str | None = "concat"  # or "add", "max"
    T: int = 16
    start: str = "zero"  # or "released"
    family: ClassVar[str] = "add"

    def inject(self, backbone: nn.Module) -> None:
        self.check(min(width(block) for block in blocks(backbone)))
        ends, before, relay = stage_ends(backbone), None, Relay(len(stage_ends(backbone)))
        shrinks = len({grid(backbone, backbone.get_submodule(path)) for path in ends}) > 1
        for path in block_paths(backbone):
            block = backbone.get_submodule(path)
            d = width(block)
            m, inter = d // self.ratio, None
            if self.interaction and path in ends:
                before = before or (max(1, m // 2) if shrinks else m)
                inter = InterStage(m, before, shrinks, self.interaction, ends.index(path), relay)
                before = m
            intra = self.intra(m, grid(backbone, block))
            put_after(backbone, path, MedAdapter(d, m, intra, inter, self.start))

    def intra(self, m: int, grid: tuple[int, int]) -> IntraStage | None:
        branches = [depthwise(m, 3), depthwise(m, 5)] if self.local else []
        if self.fourier:
            branches.append(FILTERS[self.fourier](self.T, grid))
        return IntraStage(m, branches, self.mixing) if branches else None

    def check(self, narrowest: int) -> None:
        """ValueError: a setting that is none of those named above, or nothing to mix."""
        named = self.fourier in (*FILTERS, None) and self.start in ("zero", "released")
        named = named and self.interaction in ("concat", "add", "max", None)
        if not (named and 1 <= self.ratio <= narrowest and self.T >= 1):
            raise ValueError(
                f"{self} can't be built: fourier is 'complex', 'released' or None; interaction 'concat', "
                f"'add', 'max' or None; start 'zero' or 'released'; ratio 1 to {narrowest}; T at least 1."
            )
        if (self.mixing or self.interaction) and not (self.local or self.fourier):
            raise ValueError(
                f"{self} has nothing to mix: switch on local or fourier, or mixing and interaction off too."
            )
