import pytest
import torch
import torch.nn.functional as F
from torch import nn

from labkit.efficient.distillation import answers, distillation_loss, kd_loss

Z, V = torch.tensor([[1.0, 2, 3]]), torch.tensor([[3.0, 1, 0]])


@pytest.mark.parametrize(("T", "loss"), [(1, 1.685124), (2, 2.073816), (4, 2.154541)])
def test_three_classes_by_hand(T, loss):
    assert kd_loss(Z, V, T).item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize(
    ("T", "expected"),
    [
        (1, (-0.753764, 0.130533, 0.623231)),
        (4, (-0.906996, 0.138960, 0.768037)),
        (1e3, (-0.888889, 0.111111, 0.777778)),  # its limit: (z - v) / n, centred
    ],
)
def test_the_gradient_tends_to_the_difference_of_the_logits(T, expected):
    z = Z.double().requires_grad_()
    kd_loss(z, V.double(), T).backward()
    torch.testing.assert_close(
        z.grad[0], torch.tensor(expected).double(), rtol=0, atol=2e-3 if T > 100 else 1e-6
    )


def test_only_the_student_learns_and_a_perfect_one_no_more():
    z, v = Z.clone().requires_grad_(), Z.clone().requires_grad_()
    loss = kd_loss(z, v)
    loss.backward()
    assert loss.abs() < 1e-6 and v.grad is None and z.grad.abs().max() < 1e-6


def test_every_pixel_is_an_example():
    z, v = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    pixels = lambda t: t.movedim(1, -1).reshape(-1, 3)  # noqa: E731
    torch.testing.assert_close(kd_loss(z, v), kd_loss(pixels(z), pixels(v)))
    each = torch.stack([kd_loss(a[None], b[None]) for a, b in zip(pixels(z), pixels(v), strict=True)])
    torch.testing.assert_close(kd_loss(z, v), each.mean())
    weight = torch.rand(2, 4, 5)
    torch.testing.assert_close(kd_loss(z, v, weight=weight), (weight.flatten() * each).sum() / weight.sum())


def test_soft_and_hard_labels_are_mixed():
    z, v, y = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    mixed = 0.25 * F.cross_entropy(z, y) + 0.75 * kd_loss(z, v, 4)
    torch.testing.assert_close(distillation_loss(z, v, y, 4, 0.75), mixed)


def test_teachers_of_other_classes_and_temperatures_of_zero_are_refused():
    with pytest.raises(ValueError, match="same classes"):
        kd_loss(torch.zeros(1, 3), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="above 0"):
        kd_loss(Z, V, 0)


def test_a_teacher_answers_without_dropout_and_stays_in_its_mode():
    teacher = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.BatchNorm1d(8)).train()
    teacher[2].eval()
    x = torch.randn(4, 3)
    one, two = answers(teacher, x), answers(teacher, x)
    assert torch.equal(one, two) and not one.requires_grad
    assert [m.training for m in teacher.modules()] == [True, True, True, False]
