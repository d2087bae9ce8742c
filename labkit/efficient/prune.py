r"""Magnitude pruning. Han, Pool, Tran and Dally, "Learning both Weights and Connections for Efficient Neural
Networks", 2015, arXiv:1506.02626.

Of n weights, the round(s n) of smallest |w| become zero; s is the sparsity, M the mask:

$$ W' = M \odot W, \qquad M_i = 1 \iff \operatorname{rank}(|w_i|) \ge \operatorname{round}(s\, n) $$

- `per_layer`: ranks within each weight; every layer loses the same share.
- `globally`: ranks over all weights; layers with small weights may be emptied.
- Units: a hidden unit of an MLP is row i of fc1, its bias, and column i of fc2. To drop it makes both layers
  really smaller: 2 d + 1 parameters and 2 d multiply-adds a token, d the width. Such structured pruning is of
  Li et al., "Pruning Filters for Efficient ConvNets", 2017, arXiv:1608.08710, there for filters.

A mask makes no dense kernel faster and no file smaller; dropped units do both.

Deviations. The paper's threshold is a multiple of each layer's standard deviation; here it is a count, so the
sparsity is exact, ties included. It prunes and retrains in turns; `hold` keeps the zeros in the retraining.
Li et al. score a filter by the 1-norm of its incoming weights; here a unit by the product of the 2-norms of
its incoming and its outgoing ones, which no rescaling between the two layers changes (under a ReLU).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def _check(share: float, what: str) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{what} is a share between 0 and 1, not {share}; for 70 % write 0.7.")


def ranks(w: torch.Tensor) -> torch.Tensor:
    """Place of every weight in the order of |w|, 0 the smallest; of equal ones, the first comes first.

    Slow, but done once: for any sparsity the mask is then one comparison.
    """
    size = w.detach().abs().flatten()
    double = size.dtype == torch.float64
    bits = size.view(torch.int64) if double else size.float().view(torch.int32)
    order = bits.argsort(stable=True)  # the same order, and whole numbers are sorted faster
    places = torch.arange(len(order), dtype=torch.int32, device=w.device)
    return torch.empty_like(places).scatter_(0, order, places).view(w.shape)


def magnitude_mask(w: torch.Tensor, sparsity: float) -> torch.Tensor:
    """True where a weight stays: all but the round(sparsity * numel) of smallest magnitude; shape of `w`."""
    _check(sparsity, "The sparsity")
    size, gone = w.detach().abs().flatten(), round(sparsity * w.numel())
    if gone == 0:
        return torch.ones_like(w, dtype=torch.bool)
    # the largest of those that go, by numpy: torch.kthvalue takes ten times as long
    sizes = (size if size.dtype == torch.float64 else size.float()).cpu().numpy()
    largest = np.partition(sizes, gone - 1)[gone - 1].item()
    keep = size >= largest
    equal = (size == largest).nonzero().flatten()
    keep[equal[: gone - int((~keep).sum())]] = False
    return keep.view(w.shape)


def per_layer(weights: Mapping[str, torch.Tensor], sparsity: float) -> dict[str, torch.Tensor]:
    """Masks that take the same share from every weight."""
    return {name: magnitude_mask(w, sparsity) for name, w in weights.items()}


def globally(weights: Mapping[str, torch.Tensor], sparsity: float) -> dict[str, torch.Tensor]:
    """Masks that take the smallest of all weights together, wherever they are."""
    flat = torch.cat([w.detach().flatten() for w in weights.values()])
    parts = magnitude_mask(flat, sparsity).split([w.numel() for w in weights.values()])
    return {name: part.view(w.shape) for (name, w), part in zip(weights.items(), parts, strict=True)}


@torch.no_grad()
def mask(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> nn.Module:
    """Zero the weights that their mask leaves out; the same model, changed in place, no smaller."""
    for name, keep in masks.items():
        model.get_parameter(name).mul_(keep)
    return model


def hold(
    optimizer: torch.optim.Optimizer, model: nn.Module, masks: Mapping[str, torch.Tensor]
) -> RemovableHandle:
    """Mask again after every step of `optimizer`, until `.remove()`; else one step fills every zero."""
    return optimizer.register_step_post_hook(lambda *_: mask(model, masks))


def unit_scores(fc1: nn.Linear, fc2: nn.Linear) -> torch.Tensor:
    """||row of fc1|| ||column of fc2|| of every hidden unit between the two layers: (hidden,)."""
    return fc1.weight.detach().norm(dim=1) * fc2.weight.detach().norm(dim=0)


@torch.no_grad()
def drop_units(fc1: nn.Linear, fc2: nn.Linear, keep: torch.Tensor) -> tuple[nn.Linear, nn.Linear]:
    """Two smaller layers, with the hidden units that `keep` names or marks: indices, or (hidden,) bool.

    The function is that of the two layers with fc2's other columns at zero, for any activation between them.
    """
    if not (isinstance(fc1, nn.Linear) and isinstance(fc2, nn.Linear)):
        raise ValueError(
            f"Units are dropped from plain linear layers, not from {type(fc1).__name__} and "
            f"{type(fc2).__name__}; merge(model) first, or prune before tuning."
        )
    if fc1.out_features != fc2.in_features:
        raise ValueError(
            f"fc1 gives {fc1.out_features} units and fc2 takes {fc2.in_features}; "
            "name two layers that follow each other."
        )
    fc1, fc2 = copy.deepcopy(fc1), copy.deepcopy(fc2)
    fc1.weight = nn.Parameter(fc1.weight[keep].contiguous(), fc1.weight.requires_grad)
    if fc1.bias is not None:
        fc1.bias = nn.Parameter(fc1.bias[keep].contiguous(), fc1.bias.requires_grad)
    fc2.weight = nn.Parameter(fc2.weight[:, keep].contiguous(), fc2.weight.requires_grad)
    fc1.out_features = fc2.in_features = len(fc1.weight)
    return fc1, fc2


def drop_mlp_units(model: nn.Module, share: float) -> nn.Module:
    """Drop the `share` of lowest score from every MLP, a module with `fc1` and `fc2`; changed in place."""
    _check(share, "The share of units")
    mlps = [m for m in model.modules() if hasattr(m, "fc1") and hasattr(m, "fc2")]
    if not mlps:
        raise ValueError(f"{type(model).__name__} has no MLP with fc1 and fc2; give a transformer.")
    for mlp in mlps:
        keep = magnitude_mask(unit_scores(mlp.fc1, mlp.fc2), share)
        mlp.fc1, mlp.fc2 = drop_units(mlp.fc1, mlp.fc2, keep)
    return model
