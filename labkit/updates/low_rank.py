r"""What fine-tuning changed in a transformer's matrices, as sums of rank-one matrices, read at any rank.

$$ W(r) = W_0 + \sum_{i \le r} b_i\, a_i^\top = W_0 + B_{:,:r}\, A_{:r} $$

LoRA and DyLoRA have such factors; any other change gets them from its singular value decomposition, which is
the best sum of r terms in the least-squares sense (Eckart and Young, 1936, Psychometrika 1:211).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from labkit.methods.lora import LoRALinear
from labkit.networks.anatomy import LINEARS, block_paths, blocks


@dataclass(frozen=True)
class Factors:
    """The change of one linear layer: B (d, R) and A (R, k), the largest term first if `ordered`."""

    B: torch.Tensor
    A: torch.Tensor

    def at(self, r: int) -> torch.Tensor:
        """The sum of the first r terms, (d, k)."""
        return self.B[:, :r] @ self.A[:r]


@dataclass(frozen=True)
class Update:
    """A fine-tuned network as its difference from the pretrained one.

    `factors` are by block and layer, "2.fc1"; `rest` holds what is no such matrix: the head and, after full
    tuning, biases, norms, patch and position embedding, each as it is after training.
    """

    factors: dict[str, Factors]
    rest: dict[str, torch.Tensor]

    @property
    def rank(self) -> int:
        return max(one.B.shape[1] for one in self.factors.values())


def spectrum(factors: Factors) -> torch.Tensor:
    """Singular values of B A, (R,), without ever forming it: those of R_B R_A^T of two thin QRs."""
    R_B = torch.linalg.qr(factors.B.float()).R
    R_A = torch.linalg.qr(factors.A.float().T).R
    return torch.linalg.svdvals(R_B @ R_A.T)


def ordered(update: Update) -> Update:
    """The same change with its terms in the order of its singular values, largest first."""
    found = {}
    for name, one in update.factors.items():
        Q_B, R_B = torch.linalg.qr(one.B.float())
        Q_A, R_A = torch.linalg.qr(one.A.float().T)
        U, s, Vh = torch.linalg.svd(R_B @ R_A.T)
        found[name] = Factors(Q_B @ U * s, Vh @ Q_A.T)
    return Update(found, update.rest)


def difference(tuned: nn.Module, pretrained: nn.Module, rank: int) -> Update:
    """The change that full tuning made to a segmenter, its matrices cut to `rank` by SVD."""
    factors, matrices = {}, set()
    for i, path in enumerate(block_paths(pretrained.backbone)):
        new, old = (m.backbone.get_submodule(path) for m in (tuned, pretrained))
        for name, (place, part, of) in LINEARS.items():
            change = new.get_submodule(place).weight - old.get_submodule(place).weight
            U, s, Vh = torch.linalg.svd(change.detach().chunk(of)[part].float(), full_matrices=False)
            factors[f"{i}.{name}"] = Factors(U[:, :rank] * s[:rank], Vh[:rank])
            matrices.add(f"backbone.{path}.{place}.weight")
    rest = {n: p.detach().clone() for n, p in tuned.named_parameters() if n not in matrices}
    return Update(factors, rest)


def of_lora(model: nn.Module) -> Update:
    """The change that LoRA or DyLoRA made to a segmenter, its terms in LoRA's own order.

    ValueError: DyLoRA(rescale=True), whose scale is another at every rank.
    """
    names = {(place, part): name for name, (place, part, _) in LINEARS.items()}
    factors, inserted = {}, set()
    for i, block in enumerate(blocks(model.backbone)):
        for place in {place for place, _, _ in LINEARS.values()}:
            layer = block.get_submodule(place)
            if not isinstance(layer, LoRALinear):
                continue
            if getattr(layer, "rescale", False):
                raise ValueError(
                    "DyLoRA(rescale=True) has another scale at every rank, so its update is no sum of terms "
                    "to cut; use DyLoRA(rescale=False), or fix one rank first by truncate(model, b)."
                )
            inserted |= {id(p) for p in (layer.A, layer.B)}
            for part, A, B in zip(layer.parts, layer.A.detach(), layer.B.detach(), strict=True):
                factors[f"{i}.{names[place, part]}"] = Factors(layer.scale * B, A.clone())
    trained = ((n, p) for n, p in model.named_parameters() if p.requires_grad and id(p) not in inserted)
    return Update(factors, {name: p.detach().clone() for name, p in trained})


class Ranked:
    """A pretrained segmenter that shows an update at any rank, for any choice of linear layers.

    At rank 0 it is the pretrained backbone with the head that was trained beside the update.
    """

    def __init__(self, pretrained: nn.Module, update: Update):
        self.model, self.update = pretrained.eval().requires_grad_(False), update
        self.base = {name: p.detach().clone() for name, p in pretrained.named_parameters()}

    @torch.no_grad()
    def at(self, r: int, layers: Sequence[str] = tuple(LINEARS)) -> nn.Module:
        """The segmenter with the first r terms of the update in the named layers; changed in place."""
        mine = dict(self.model.named_parameters())
        for name, tensor in self.update.rest.items():
            in_backbone = name.startswith("backbone.") and not name.startswith("backbone.norm.")
            mine[name].copy_(self.base[name] if in_backbone and r == 0 else tensor)
        for i, path in enumerate(block_paths(self.model.backbone)):
            for layer, (place, part, of) in LINEARS.items():
                name = f"backbone.{path}.{place}.weight"
                rows, base = mine[name].chunk(of)[part], self.base[name].chunk(of)[part]
                factors = self.update.factors.get(f"{i}.{layer}")
                if factors is None or layer not in layers or r == 0:
                    rows.copy_(base)
                else:
                    torch.addmm(base, factors.B[:, :r], factors.A[:r], out=rows)
        return self.model


def save_update(update: Update, path: Path, about: str) -> None:
    """Write an update in half precision as safetensors; `about` says how it was made."""
    from safetensors.torch import save_file

    from labkit.files import write_atomically

    tensors = {f"rest:{name}": t.half().contiguous() for name, t in update.rest.items()}
    for name, one in update.factors.items():
        tensors |= {f"B:{name}": one.B.half().contiguous(), f"A:{name}": one.A.half().contiguous()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, {"labkit": about}))


def load_update(path: Path) -> Update:
    """An update from a file of `save_update`, in single precision."""
    from safetensors.torch import load_file

    tensors = {name: t.float() for name, t in load_file(path).items()}
    names = [name.removeprefix("B:") for name in tensors if name.startswith("B:")]
    rest = {name.removeprefix("rest:"): t for name, t in tensors.items() if name.startswith("rest:")}
    return Update({name: Factors(tensors[f"B:{name}"], tensors[f"A:{name}"]) for name in names}, rest)
