"""The tuning methods, one paper each."""

from labkit.methods.dylora import DyLoRA
from labkit.methods.fact import FacTTK, FacTTT
from labkit.methods.ln_lora import LNLoRA
from labkit.methods.long_lora import LongLoRA
from labkit.methods.lora import LoRA
from labkit.methods.lora_plus import LoRAPlus
from labkit.methods.select import BitFit, Full, Head, Scratch
from labkit.methods.vpt import VPTDeep

METHODS = {
    "scratch": Scratch,
    "full": Full,
    "head": Head,
    "bitfit": BitFit,
    "vpt_deep": VPTDeep,
    "lora": LoRA,
    "lora_plus": LoRAPlus,
    "dylora": DyLoRA,
    "ln_lora": LNLoRA,
    "long_lora": LongLoRA,
    "fact_tt": FacTTT,
    "fact_tk": FacTTK,
}

__all__ = ["METHODS", *(method.__name__ for method in METHODS.values())]
