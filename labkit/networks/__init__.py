"""Pretrained backbones, what labkit knows of their insides, and the decoders that make segmenters of them."""
