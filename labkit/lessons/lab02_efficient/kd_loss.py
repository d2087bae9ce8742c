"""`kd_loss`: how far a student's softened probabilities are from its teacher's, at every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from labkit.efficient import distillation
from labkit.lessons.authoring import gradient, tensor
from labkit.lessons.exercise import Challenge, Exercise, mistake


def kd_loss(z: torch.Tensor, v: torch.Tensor, T: float) -> torch.Tensor:
    """T^2 KL(teacher || student), the mean over slices and pixels: logits z and v (B, K, H, W) -> ()."""
    return distillation.kd_loss(z, v, T)


def with_gradients(
    output: torch.Tensor, z: torch.Tensor, v: torch.Tensor, T: float
) -> dict[str, torch.Tensor]:
    """What is compared: the loss (), and its gradients for student and teacher (B, K, H, W)."""
    output = tensor(output, "the loss")
    return {
        "loss": output.detach(),
        "gradient for the student": gradient(output, z),
        "for the teacher": gradient(output, v),
    }


# Challenges


def two_pixels() -> tuple:
    """Logits (1, 3, 1, 2): a row for each of three classes, a column for each of two pixels."""
    z = torch.tensor([[1.0, 0], [2, 1], [3, 0]]).view(1, 3, 1, 2)
    v = torch.tensor([[3.0, 0], [1, 2], [0, 1]]).view(1, 3, 1, 2)
    return z.requires_grad_(), v.requires_grad_(), 2.0


def two_slices() -> tuple:
    z = 3 * torch.randn(2, 4, 3, 2)
    v = 3 * torch.randn(2, 4, 3, 2)
    return z.requires_grad_(), v.requires_grad_(), 4.0


# Mistakes


@mistake(
    "You left out T^2. Then the gradient falls as 1 / T^2, and a higher temperature turns the teacher off."
)
def without_T_squared(z, v, T):
    p, log_q = F.softmax(v.detach() / T, 1), F.log_softmax(z / T, 1)
    return (p * (p.log() - log_q)).sum(1).mean()


@mistake(
    "You exchanged teacher and student: KL(teacher || student) has the teacher's probabilities in front."
)
def teacher_and_student_exchanged(z, v, T):
    q, log_p = F.softmax(z / T, 1), F.log_softmax(v.detach() / T, 1)
    return T**2 * (q * (q.log() - log_p)).sum(1).mean()


@mistake(
    "You softened the student only. Both are divided by T, or the student is asked to be surer than the "
    "teacher."
)
def teacher_not_softened(z, v, T):
    p, log_q = F.softmax(v.detach(), 1), F.log_softmax(z / T, 1)
    return T**2 * (p * (p.log() - log_q)).sum(1).mean()


@mistake("You gave probabilities where logarithms belong: KL needs log_softmax of the student.")
def without_the_logarithm(z, v, T):
    p, q = F.softmax(v.detach() / T, 1), F.softmax(z / T, 1)
    return T**2 * (p * (p.log() - q)).sum(1).mean()


@mistake(
    "You averaged over the batch only, as reduction='batchmean' does. In a segmentation each pixel is an "
    "example."
)
def averaged_over_the_batch_only(z, v, T):
    p, log_q = F.softmax(v.detach() / T, 1), F.log_softmax(z / T, 1)
    return T**2 * (p * (p.log() - log_q)).sum() / len(z)


@mistake(
    "You averaged over classes too, as reduction='mean' does. KL sums over classes; the mean is over slices "
    "and pixels."
)
def averaged_over_classes_too(z, v, T):
    p, log_q = F.softmax(v.detach() / T, 1), F.log_softmax(z / T, 1)
    return T**2 * (p * (p.log() - log_q)).mean()


@mistake(
    "Your loss is the soft cross-entropy. It is larger than KL by the teacher's entropy, so it is not 0 for "
    "a perfect student."
)
def soft_cross_entropy(z, v, T):
    p, log_q = F.softmax(v.detach() / T, 1), F.log_softmax(z / T, 1)
    return -(T**2) * (p * log_q).sum(1).mean()


@mistake("Your loss reaches the teacher: it has a gradient, and would learn to be easy to copy. Detach v.")
def teacher_not_detached(z, v, T):
    p, log_q = F.softmax(v / T, 1), F.log_softmax(z / T, 1)
    return T**2 * (p * (p.log() - log_q)).sum(1).mean()


@mistake("Your softmax runs over the wrong axis. At each pixel the classes, axis 1, must sum to 1.")
def softmax_over_the_last_axis(z, v, T):
    log_p, log_q = F.log_softmax(v.detach() / T, -1), F.log_softmax(z / T, -1)
    return T**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()


@mistake(
    "F.kl_div takes the teacher's *probabilities*, and you gave it logarithms: say log_target=True, or "
    "give log_p.exp()."
)
def kl_div_without_log_target(z, v, T):
    log_p, log_q = F.log_softmax(v.detach() / T, 1), F.log_softmax(z / T, 1)
    return T**2 * F.kl_div(log_q, log_p, reduction="none").sum(1).mean()


@mistake(
    "Your sign is wrong: training would push the student away. KL is p (log p - log q), and never negative."
)
def of_the_wrong_sign(z, v, T):
    log_p, log_q = F.log_softmax(v.detach() / T, 1), F.log_softmax(z / T, 1)
    return T**2 * (log_p.exp() * (log_q - log_p)).sum(1).mean()


@mistake(
    "You summed over pixels. Then a larger picture is a larger loss: sum over classes, mean over pixels."
)
def summed_over_pixels(z, v, T):
    log_p, log_q = F.log_softmax(v.detach() / T, 1), F.log_softmax(z / T, 1)
    return T**2 * (log_p.exp() * (log_p - log_q)).sum()


EXERCISE = Exercise(
    reference=kd_loss,
    challenges=(
        Challenge("three classes at two pixels, T = 2", two_pixels),
        Challenge("random: two slices of 3 x 2 pixels, four classes, T = 4", two_slices),
    ),
    result=with_gradients,
    mistakes=(
        without_T_squared,
        teacher_and_student_exchanged,
        teacher_not_softened,
        without_the_logarithm,
        averaged_over_the_batch_only,
        averaged_over_classes_too,
        soft_cross_entropy,
        teacher_not_detached,
        softmax_over_the_last_axis,
        kl_div_without_log_target,
        of_the_wrong_sign,
        summed_over_pixels,
    ),
    hints=(
        "Soften both with T, compare them at each pixel, average over slices and pixels.",
        "T^2 mean over pixels of sum over classes of p (log p - log q), p = softmax(v / T), q = softmax(z / "
        "T).",
        "log_p = F.log_softmax(v.detach() / T, 1), log_q = F.log_softmax(z / T, 1); "
        "T**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean().",
    ),
)
