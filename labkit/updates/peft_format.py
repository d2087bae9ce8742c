"""LoRA in the file format of Hugging Face's peft, both ways.

A folder holds adapter_config.json and adapter_model.safetensors, with peft's names for a timm backbone:
`PeftModel.from_pretrained(timm_vit, folder)` computes what our tuned backbone computes. What is trained
beside LoRA (a segmenter's decoder and final norm) is not part of it: `labkit.tuning.save` keeps that.

peft knows one A per linear layer, we have one for each of q, k, v in the fused qkv. Side by side they are one
update of rank n r, n the number of parts, whose B has zeros wherever a rank does not belong to a row:

    [B_q  0 ] [A_q]       for q and v: (3 d, 2 r) times (2 r, k)
    [ 0   0 ] [A_v]
    [ 0  B_v]

The same function, exactly, with more zeros in the file; who goes on training it in peft trains the zeros too.
The other way, an update of qkv of that pattern is read back as q and v, and any other update of rank r as
LoRA(r) on q, k and v, each with a copy of the one A. The format is that of peft 0.21.
"""

from __future__ import annotations

import json
import math
import re
from functools import partial
from pathlib import Path

import torch
from torch import nn

from labkit.files import write_atomically
from labkit.methods.lora import LoRA, LoRAConv, LoRALinear, stacked
from labkit.methods.lora_plus import LoRAPlus
from labkit.networks.anatomy import backbone_of
from labkit.tuning import check_finite

CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
UNCHANGED_BASE = (True, False, "gaussian", "orthogonal", "eva")  # starts that leave W0 alone
MORE_TRAINED = ("lora_bias", "modules_to_save", "trainable_token_indices")  # beside A and B
OTHER_EQUATIONS = ("use_dora", "use_qalora", "use_bdlora", "layer_replication", "alora_invocation_tokens")


def parts_of(layer: LoRALinear | LoRAConv) -> int:
    """How many updates lie side by side in a layer: more than one in a fused qkv alone."""
    return len(layer.parts) if isinstance(layer, LoRALinear) else 1


def lora_layers(model: nn.Module) -> dict[str, LoRALinear | LoRAConv]:
    """The LoRA layers of a backbone by their path in it. ValueError: it is tuned by anything else."""
    if type(getattr(model, "tuned_by", None)) not in (LoRA, LoRAPlus):
        raise ValueError(
            "Only a model tuned by LoRA alone has an equal in peft's format; this one is tuned by "
            f"{getattr(model, 'tuned_by', None)}. Use tune(model, LoRA(...)), or truncate a DyLoRA first."
        )
    found = backbone_of(model).named_modules()
    layers = {name: layer for name, layer in found if isinstance(layer, (LoRALinear, LoRAConv))}
    if not layers:
        raise ValueError("This model's LoRA is merged into its matrices; call unmerge(model) first.")
    return layers


def save_peft(model: nn.Module, folder: str | Path) -> None:
    """Write the LoRA of a tuned model for peft.

    ValueError: the model is not tuned by LoRA (or LoRA+) alone, or its LoRA is not finite.
    """
    from safetensors.torch import save_file

    layers, lora, tensors = lora_layers(model), model.tuned_by, {}
    for path, layer in layers.items():
        if isinstance(layer, LoRAConv):  # B is a convolution of size 1 there
            down, up = layer.A, layer.B.view(*layer.B.shape, *[1] * (layer.A.ndim - 2))
        else:
            down, up = layer.A.flatten(0, 1), stacked(layer.B, layer.parts, layer.of)
        tensors[f"{PREFIX}{path}.lora_A.weight"] = down.detach().contiguous()
        tensors[f"{PREFIX}{path}.lora_B.weight"] = up.detach().contiguous()
    check_finite(tensors, f"{folder} is not written", "the training diverged: train again at a lower rate")
    alpha = lora.r if lora.alpha is None else lora.alpha
    parts = {path: n for path, layer in layers.items() if (n := parts_of(layer)) > 1}
    config = dict(
        peft_type="LORA",
        task_type=None,
        inference_mode=True,
        r=lora.r,
        lora_alpha=alpha,
        lora_dropout=lora.dropout,
        target_modules=list(layers),
        rank_pattern={
            path: n * lora.r for path, n in parts.items()
        },  # the scale alpha / r is the same for all
        alpha_pattern={path: n * alpha for path, n in parts.items()},
        bias="none",
        fan_in_fan_out=False,
    )
    folder = Path(folder)
    write_atomically(folder / WEIGHTS, partial(save_file, tensors, metadata={"format": "pt"}))
    write_atomically(folder / CONFIG, lambda path: path.write_text(json.dumps(config, indent=2)))


def load_peft(model: nn.Module, folder: str | Path) -> nn.Module:
    """Fill the LoRA of `model`, tuned by LoRA on the same layers, from a folder that peft or we wrote.

    Where the file's scale alpha / r is another, B takes up the difference. ValueError, before anything has
    changed: the file is unreadable, of another method, or does not fit the model's LoRA; says what would.
    """
    layers = lora_layers(model)
    config, tensors = read(Path(folder))
    names = {f"{PREFIX}{path}.lora_{which}.weight" for path in layers for which in "AB"}
    unlike = sorted(names ^ tensors.keys())
    if unlike:
        raise ValueError(
            f"{folder} and this model's LoRA are not on the same layers: only one of them has "
            f"{', '.join(unlike[:3])}; the file is for {config.get('target_modules')}."
        )
    check_one_rank(folder, layers, {path: len(tensors[f"{PREFIX}{path}.lora_A.weight"]) for path in layers})
    found = {}
    for path, layer in layers.items():
        A, B = (tensors[f"{PREFIX}{path}.lora_{which}.weight"].float() for which in "AB")
        scale = scale_of(config, path, r=len(A))
        if scale != layer.scale:
            if not layer.scale:
                raise ValueError(f"This model's LoRA has alpha = 0; tune a fresh one with alpha={scale} * r.")
            B = B * (scale / layer.scale)
        found[path] = apart(path, layer, A, B)
    with torch.no_grad():
        for path, (A, B) in found.items():
            layers[path].A.copy_(A)
            layers[path].B.copy_(B)
    return model


def check_one_rank(
    folder: str | Path, layers: dict[str, LoRALinear | LoRAConv], ranks: dict[str, int]
) -> None:
    """ValueError: no single rank r fits all layers of the file, as r or, for n parts side by side, as n r."""
    fits = [{rank, rank / parts_of(layers[path])} for path, rank in ranks.items()]
    if not set.intersection(*fits):
        unlike = ", ".join(map(str, sorted(set(ranks.values()))))
        raise ValueError(
            f"{folder} has layers of unlike ranks ({unlike}), but LoRA here has one r for all its layers; "
            "train it in peft without rank_pattern."
        )


def read(folder: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Configuration and tensors of a peft folder. ValueError: unreadable, or not LoRA as its paper has it."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
        raise ValueError(
            f"{folder} holds its weights as adapter_model.bin, a pickle that could run code; load it in peft "
            "and save it by save_pretrained(..., safe_serialization=True)."
        )
    try:
        config, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"{folder} holds no readable {CONFIG} and {WEIGHTS} ({error}); give the folder that "
            "save_pretrained (peft) or save_peft wrote."
        ) from error
    start = config.get("init_lora_weights", True)
    other = [name for name in OTHER_EQUATIONS if config.get(name)]
    if config.get("peft_type") != "LORA" or other or start not in UNCHANGED_BASE:
        what = ", ".join(other) or f"{config.get('peft_type')} started by {start!r}"
        raise ValueError(f"{folder} is not plain LoRA on unchanged weights but {what}; save plain LoRA.")
    more = [f"{name}={config[name]!r}" for name in MORE_TRAINED if config.get(name)]
    if config.get("bias", "none") != "none":  # whose biases peft up to 0.19 did not even write
        more.append(f"bias={config['bias']!r}")
    if more:
        raise ValueError(
            f"{folder} was trained with {', '.join(more)}, so with more than LoRA's A and B, and these alone "
            "are not what was trained; train with bias='none' and nothing else to save."
        )
    if not isinstance(config.get("lora_alpha"), (int, float)):
        raise ValueError(
            f"{folder}: {CONFIG} gives no number as lora_alpha, which LoRA's scale is made of; save it again."
        )
    check_finite(tensors, str(folder), "its training diverged; train it again")
    return config, tensors


def scale_of(config: dict, path: str, r: int) -> float:
    """alpha / r of the layer at `path`, or alpha / sqrt(r) if the file says so (rsLoRA)."""
    patterns = config.get("alpha_pattern") or {}
    fits = [alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", path)]
    return (fits or [config["lora_alpha"]])[0] / (math.sqrt(r) if config.get("use_rslora") else r)


def apart(
    path: str, layer: LoRALinear | LoRAConv, A: torch.Tensor, B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One update (R, k) and (d_out, R) as A and B of the layer's parts. ValueError: they can't hold it."""
    if isinstance(layer, LoRAConv):
        if A.shape == layer.A.shape:
            return A, B.flatten(1)
        raise ValueError(
            f"The file's update of {path} has A of shape {tuple(A.shape)}, this model's "
            f"{tuple(layer.A.shape)}; tune a fresh model by LoRA(r={len(A)})."
        )
    n, r, k = layer.A.shape
    rows = len(B) // layer.of
    if A.shape == (n * r, k):  # side by side, as save_peft writes it
        mine = torch.stack([B.view(layer.of, rows, n, r)[part, :, i] for i, part in enumerate(layer.parts)])
        if torch.equal(stacked(mine, layer.parts, layer.of), B):
            return A.view(n, r, k), mine
    if A.shape == (r, k) and n == layer.of:  # one A for all parts
        return A.expand(n, r, k), B.view(n, rows, r)
    every = ' with "q", "k" and "v" among its targets' if layer.of == 3 else ""
    raise ValueError(
        f"The file's update of {path} has rank {len(A)} and does not fit LoRA of rank {r} on "
        f"{n} of {layer.of} part(s); tune a fresh model by LoRA(r={len(A)}){every}."
    )
