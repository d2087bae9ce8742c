"""The tuning methods, one paper each."""

from labkit.methods.lora import LoRA
from labkit.methods.prefix import PrefixTuning
from labkit.methods.prompt import PromptTuning
from labkit.methods.select import BitFit, Full, Head, Scratch
from labkit.methods.vpt import VPTDeep, VPTShallow

METHODS = {
    "scratch": Scratch,
    "full": Full,
    "head": Head,
    "bitfit": BitFit,
    "prompt": PromptTuning,
    "prefix": PrefixTuning,
    "vpt_shallow": VPTShallow,
    "vpt_deep": VPTDeep,
    "lora": LoRA,
}

__all__ = ["METHODS", *(method.__name__ for method in METHODS.values())]
