"""Lab 04: LoRA by hand: its sum, start, gradients, merge, and its place in a fused qkv."""

from labkit.lessons.lab04_lora import first_gradients, fused, lora, merge, start

EXERCISES = {
    "lora": lora.EXERCISE,
    "start": start.EXERCISE,
    "first_gradients": first_gradients.EXERCISE,
    "merge": merge.EXERCISE,
    "fused": fused.EXERCISE,
}
