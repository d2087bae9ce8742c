r"""Distilling logits. Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015,
arXiv:1503.02531.

A temperature T softens what a network says (equation 1), z its logits over n classes:

$$ q_i = \frac{\exp(z_i / T)}{\sum_j \exp(z_j / T)} $$

The student, z, learns the teacher's soft answers p, of logits v, beside the true labels y:

$$ \ell = (1 - \lambda)\, \operatorname{CE}(y, q^{T=1}) + \lambda\, T^2 \operatorname{KL}(p \,\Vert\, q) $$

The gradient of KL is (q - p) / T (equation 2); for a high T it is (z - v) / (n T^2), for centred logits
(equation 4). Hence T^2: without it a higher temperature would only turn the teacher off.

Of segmentations every pixel is an example, so the loss is a mean over pixels. Most are background, and so is
most of that mean; `weight` changes what counts.

Deviations. The paper writes the soft term as a cross-entropy, which is KL plus the teacher's entropy: the
same gradient, and only KL is 0 for a perfect student. `labkit.training.distill`, which made the bundled
backbone, teaches features and knows no labels; here are logits and labels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def kd_loss(
    student: torch.Tensor, teacher: torch.Tensor, T: float = 2.0, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """T^2 KL(teacher || student), the mean over examples and places; both logits are (B, K, ...).

    `weight`, (B, ...), is of the mean over places. No gradient reaches the teacher.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"The student's logits are {tuple(student.shape)}, the teacher's {tuple(teacher.shape)}; "
            "both must name the same classes at the same places."
        )
    if T <= 0:
        raise ValueError(f"A temperature is above 0, not {T}.")
    log_p, log_q = (F.log_softmax(logits / T, 1) for logits in (teacher.detach(), student))
    kl = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
    return T**2 * (kl.mean() if weight is None else (weight * kl).sum() / weight.sum())


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, T: float = 2.0, lam: float = 0.5
) -> torch.Tensor:
    """(1 - lam) cross-entropy with `labels` (B, ...) of class indices + lam times `kd_loss`."""
    return (1 - lam) * F.cross_entropy(student, labels) + lam * kd_loss(student, teacher, T)


@torch.no_grad()
def answers(teacher: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The teacher's logits as it gives them in use, without dropout; every module's mode is as before."""
    modes = {module: module.training for module in teacher.modules()}
    try:
        return teacher.eval()(x)
    finally:
        for module, training in modes.items():
            module.training = training
