"""The tuning methods, one paper each."""

from labkit.methods.adapter import Adapter
from labkit.methods.adapter_bias import AdapterBias
from labkit.methods.adapter_drop import AdapterDrop
from labkit.methods.adaptformer import AdaptFormer
from labkit.methods.compacter import Compacter
from labkit.methods.dylora import DyLoRA
from labkit.methods.fact import FacTTK, FacTTT
from labkit.methods.ln_lora import LNLoRA
from labkit.methods.long_lora import LongLoRA
from labkit.methods.lora import LoRA
from labkit.methods.lora_plus import LoRAPlus
from labkit.methods.med_tuning import MedTuning
from labkit.methods.parallel_adapter import ParallelAdapter
from labkit.methods.prefix import PrefixTuning
from labkit.methods.pro_tuning import ProTuning
from labkit.methods.prompt import PromptTuning
from labkit.methods.select import BitFit, Full, Head, Scratch
from labkit.methods.st_adapter import STAdapter
from labkit.methods.vpt import VPTDeep, VPTShallow

METHODS = {
    # choose
    "scratch": Scratch,
    "full": Full,
    "head": Head,
    "bitfit": BitFit,
    # prompts
    "prompt": PromptTuning,
    "prefix": PrefixTuning,
    "vpt_shallow": VPTShallow,
    "vpt_deep": VPTDeep,
    # reparameterise
    "lora": LoRA,
    "lora_plus": LoRAPlus,
    "dylora": DyLoRA,
    "ln_lora": LNLoRA,
    "long_lora": LongLoRA,
    "fact_tt": FacTTT,
    "fact_tk": FacTTK,
    "adapter_bias": AdapterBias,
    # add
    "adapter": Adapter,
    "parallel_adapter": ParallelAdapter,
    "adapter_drop": AdapterDrop,
    "compacter": Compacter,
    "adaptformer": AdaptFormer,
    "pro_tuning": ProTuning,
    # add, for volumes
    "st_adapter": STAdapter,
    "med_tuning": MedTuning,
}

__all__ = ["METHODS", *(method.__name__ for method in METHODS.values())]
