"""Parameter-efficient fine-tuning for medical image segmentation, to be taken apart and rebuilt."""

__version__ = "0.1.0"
