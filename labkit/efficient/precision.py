r"""Weights in few bits. The uniform quantiser of Jacob et al., "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference", 2018, arXiv:1712.05877, symmetric: b bits, codes q, scale s,

$$ Q = 2^{b-1} - 1, \quad s = \max|w| / Q, \quad q = \operatorname{clip}(\operatorname{round}(w / s), -Q, Q),
   \quad \hat w = s\, q, $$

2^b - 1 levels, and one s per tensor or per row (output unit). One bit has Q = 0; there it is the best
multiple of the signs in least squares (XNOR-Net: Rastegari et al., 2016, arXiv:1603.05279, section 3.1):

$$ \hat w = \alpha \operatorname{sign}(w), \qquad \alpha = \operatorname{mean}|w| $$

Training keeps w real and passes the gradient straight through the rounding (Bengio, Leonard and Courville,
2013, arXiv:1308.3432): dq/d(w/s) := 1 inside the clip, 0 outside; d sign/dw := 1 for |w| <= 1.

Deviations. Jacob et al. have a zero point (asymmetric range), per tensor, and quantise activations as well;
here weights alone, until `int8` computes. XNOR-Net prints 1/n for the gradient through alpha; here autograd's
own, sign(w_i)/n times the sum of g_j sign(w_j). Its centring and its binary activations are left out.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from labkit.efficient.counting import matrices
from labkit.files import write_atomically


def levels(bits: int | torch.Tensor) -> int | torch.Tensor:
    """Q, the largest code of b bits: codes run from -Q to Q."""
    if not torch.is_tensor(bits) and not 2 <= bits <= 16:
        raise ValueError(
            f"A uniform quantiser has 2 to 16 bits here, not {bits}; choose one of them, or 1 (signs)."
        )
    return 2 ** (bits - 1) - 1


def scale(w: torch.Tensor, bits: int, per_row: bool = False) -> torch.Tensor:
    """s, or for one bit alpha, shaped to multiply `w`: (1, 1, ...) or (rows, 1, ...).

    A uniform scale of zeros is 1, so that nothing is 0/0. Only alpha passes a gradient to `w`.
    """
    rows = w.abs().flatten(1) if per_row else w.abs().reshape(1, -1)
    if bits == 1:
        s = rows.mean(1)
    else:
        s = rows.detach().amax(1) / levels(bits)
        s = torch.where(s > 0, s, 1.0)
    return s.view(-1, *[1] * (w.ndim - 1))


def best_scale(w: torch.Tensor, bits: int, per_row: bool = False) -> torch.Tensor:
    """Of 1, .9, ... .1 times the `scale`, the one of least squared error: outliers are clipped."""
    size, full = w.detach().abs(), scale(w, bits, per_row).detach()  # the signs make no error
    tries = [full * share / 10 for share in range(10, 0, -1)]
    errors = []
    for s in tries:  # one after the other: ten copies of a matrix side by side take three times as long
        rounded = s if bits == 1 else s * (size / s).round().clamp(max=levels(bits))
        squared = (rounded - size).square()
        errors.append(squared.flatten(1).sum(1) if per_row else squared.sum().view(1))
    best = torch.stack(errors).argmin(0).view(1, *full.shape)
    return torch.stack(tries).gather(0, best)[0]


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        ctx.save_for_backward(w)
        return torch.where(w >= 0, 1.0, -1.0).to(w.dtype)  # torch.sign(0) is 0: a third level

    @staticmethod
    def backward(ctx, g):
        (w,) = ctx.saved_tensors
        return g * (w.abs() <= 1)


def round_through(x: torch.Tensor) -> torch.Tensor:
    """round(x), with the gradient of x: the straight-through estimator."""
    return x + (x.round() - x).detach()


def codes(w: torch.Tensor, bits: int, s: torch.Tensor) -> torch.Tensor:
    """q, whole numbers as floats, with the straight-through gradient."""
    if bits == 1:
        return _Sign.apply(w)
    q, Q = round_through(w / s), levels(bits)
    return torch.where(q.abs() <= Q, q, q.detach().clamp(-Q, Q))  # clamp alone stops the gradient at Q, too


def fake_quantize(
    w: torch.Tensor, bits: int, per_row: bool = False, s: torch.Tensor | None = None
) -> torch.Tensor:
    """w-hat, still in floats: what a network of b bits would compute with; straight-through gradient.

    `s` is another scale than max|w| / Q, such as `best_scale`.
    """
    s = scale(w, bits, per_row) if s is None else s
    return s * codes(w, bits, s)


@torch.no_grad()
def quantize_(model: nn.Module, bits: int, per_row: bool = False) -> nn.Module:
    """Round the matrices of a model to b bits, in place; the file of it is as large as before, see `save`."""
    for w in matrices(model).values():
        w.copy_(fake_quantize(w, bits, per_row))
    return model


# --- files ----------------------------------------------------------------------------------------


def pack(q: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes of b bits, one after the other without a gap: ceil(numel * b / 8) bytes, uint8."""
    whole = q.flatten().int().numpy()
    whole = (whole + 1) // 2 if bits == 1 else whole + levels(bits)
    in_bytes = whole.astype("<u2").view(np.uint8).reshape(-1, 2)  # the lower one first
    return torch.from_numpy(np.packbits(np.unpackbits(in_bytes, axis=1, count=bits, bitorder="little")))


def unpack(packed: torch.Tensor, bits: int, shape: tuple[int, ...]) -> torch.Tensor:
    """The codes that were packed, float32, of `shape`."""
    size = int(np.prod(shape))
    ones = np.unpackbits(packed.numpy(), count=size * bits).reshape(size, bits)
    whole = (ones.astype(np.int32) << np.arange(bits)).sum(1)
    whole = 2 * whole - 1 if bits == 1 else whole - levels(bits)
    return torch.from_numpy(whole).float().view(shape)


@torch.no_grad()
def save(model: nn.Module, path: Path, bits: int, per_row: bool = False) -> None:
    """Write a model as safetensors: matrices in b bits with their scales, all else as it is."""
    from safetensors.torch import save_file

    found = matrices(model)
    tensors = {name: t.contiguous() for name, t in model.state_dict().items() if name not in found}
    for name, w in found.items():
        s = scale(w, bits, per_row)
        tensors |= {f"{name}.packed": pack(codes(w, bits, s), bits), f"{name}.scale": s}
    about = {"bits": bits, "shapes": {name: list(w.shape) for name, w in found.items()}}
    write_atomically(
        Path(path), partial(save_file, tensors, metadata={"labkit.precision": json.dumps(about)})
    )


def load(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file of `save`: floats again, w-hat in place of w."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {}).get("labkit.precision", "null"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    if about is None:
        raise ValueError(f"{path} holds no weights in few bits; give a file that precision.save wrote.")
    for name, shape in about["shapes"].items():
        tensors[name] = tensors.pop(f"{name}.scale") * unpack(
            tensors.pop(f"{name}.packed"), about["bits"], shape
        )
    return tensors
