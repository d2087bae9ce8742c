"""Lab 04: LoRA by hand: its sum, start and gradients, a module, its injection, merge, and a fused qkv."""

from labkit.lessons.lab04_lora import first_gradients, fused, inject, lora, lora_linear, merge, start

EXERCISES = {
    "lora": lora.EXERCISE,
    "start": start.EXERCISE,
    "first_gradients": first_gradients.EXERCISE,
    "LoRALinear": lora_linear.EXERCISE,
    "inject": inject.EXERCISE,
    "merge": merge.EXERCISE,
    "fused": fused.EXERCISE,
}
