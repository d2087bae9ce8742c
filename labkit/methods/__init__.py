"""The tuning methods, one paper each."""

from labkit.methods.adapter import Adapter
from labkit.methods.adapter_bias import AdapterBias
from labkit.methods.adapter_drop import AdapterDrop
from labkit.methods.adaptformer import AdaptFormer
from labkit.methods.compacter import Compacter
from labkit.methods.lora import LoRA
from labkit.methods.med_tuning import MedTuning
from labkit.methods.parallel_adapter import ParallelAdapter
from labkit.methods.prefix import PrefixTuning
from labkit.methods.pro_tuning import ProTuning
from labkit.methods.prompt import PromptTuning
from labkit.methods.select import BitFit, Full, Head, Scratch
from labkit.methods.st_adapter import STAdapter
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
    "adapter": Adapter,
    "parallel_adapter": ParallelAdapter,
    "adapter_drop": AdapterDrop,
    "adapter_bias": AdapterBias,
    "compacter": Compacter,
    "adaptformer": AdaptFormer,
    "st_adapter": STAdapter,
    "pro_tuning": ProTuning,
    "med_tuning": MedTuning,
}

__all__ = ["METHODS", *(method.__name__ for method in METHODS.values())]
