"""From feature maps to logits."""
