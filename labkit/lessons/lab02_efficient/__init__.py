"""Lab 02: pruning, separable convolutions, adders, few bits and distillation; and the usual mistakes."""

from labkit.lessons.lab02_efficient import (
    adder_gradients,
    fake_quantize,
    kd_loss,
    magnitude_mask,
    separable_macs,
)

EXERCISES = {
    "magnitude_mask": magnitude_mask.EXERCISE,
    "separable_macs": separable_macs.EXERCISE,
    "adder_gradients": adder_gradients.EXERCISE,
    "fake_quantize": fake_quantize.EXERCISE,
    "kd_loss": kd_loss.EXERCISE,
}
