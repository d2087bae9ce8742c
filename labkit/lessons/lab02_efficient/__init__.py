"""Lab 02: pruning, few bits and distillation; adders as a bonus; and the usual mistakes."""

from labkit.lessons.lab02_efficient import (
    adder_gradients,
    fake_quantize,
    kd_loss,
    magnitude_mask,
    packed_bytes,
)

EXERCISES = {
    "magnitude_mask": magnitude_mask.EXERCISE,
    "fake_quantize": fake_quantize.EXERCISE,
    "kd_loss": kd_loss.EXERCISE,
    "packed_bytes": packed_bytes.EXERCISE,
    "adder_gradients": adder_gradients.EXERCISE,
}
