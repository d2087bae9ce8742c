r"""How the bundled backbone was made: a small ViT taught by a large one, on natural images, without labels.

Knowledge distillation, three ideas in the order they are used here:

* **Inheritance** (DistilBERT: Sanh et al., 2019, arXiv:1910.01108). The student is cut from the teacher: some
  of its blocks, and of each MLP the hidden units that matter most. It starts as a damaged teacher, not at
  random.
* **Hints** (FitNets: Romero et al., 2015, arXiv:1412.6550). The student must reproduce the teacher's features
  in the middle as well as at the end. Both live in the same d-dimensional residual stream, so no projection
  is needed.
* **The teacher as labeller** (Hinton et al., 2015, arXiv:1503.02531). Any picture has a target, so pictures
  are cropped, tiled, recoloured and inverted freely: the student learns the teacher's function, not the
  pictures.

The loss is the share of the teacher's variance left unexplained, per channel c over images and tokens n:

$$ \ell = \frac{1}{d}\sum_c \frac{\langle (s_{nc} - t_{nc})^2 \rangle_n}{\operatorname{Var}_n\, t_{nc}} $$

0 is a perfect copy, 1 is as good as predicting the mean.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from labkit.files import write_atomically
from labkit.networks.backbones import IMAGENET_MEAN, IMAGENET_STD, TINY, tiny_vit

TEACHER_PATCH = 14
CHECK_EVERY = 100  # steps between looks at held-out pictures, each with a checkpoint


@dataclass(frozen=True)
class Recipe:
    """One distillation run; written beside the weights it made."""

    steps: int = 3000
    batch: int = 64
    lr: float = 5e-4
    weight_decay: float = 0.02
    warmup: int = 200
    seed: int = 0
    inherit: tuple[int, ...] = (0, 1, 2, 3)  # the teacher's blocks that become the student's
    hints: tuple[tuple[int, int], ...] = ((1, 2), (3, 5))  # student and teacher block that must agree


# --- pictures -------------------------------------------------------------------------------------


def load_images(path: Path) -> torch.Tensor:
    """All JPEGs of an archive with `bytes` and `offsets`, decoded: (n, 3, 64, 64) uint8."""
    from PIL import Image

    archive = np.load(path)
    raw, offsets = archive["bytes"].tobytes(), archive["offsets"]
    ranges = list(zip(offsets[:-1], offsets[1:], strict=True))
    images = [
        np.asarray(Image.open(io.BytesIO(raw[a:b])).convert("RGB"))
        for a, b in tqdm(ranges, desc="decoding", unit="image")
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def augment(images: torch.Tensor, count: int, size: int, rng: torch.Generator) -> torch.Tensor:
    """`count` random views, normalised as for ImageNet: (count, 3, size, size).

    Half are crops of one picture, enlarged (smooth). Half are crops of four tiled pictures at about their own
    resolution (sharp, with edges), because medical slices will be shown to the student pixel for pixel.
    """

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(*shape, generator=rng)

    tiles = images[torch.randint(len(images), (count, 4), generator=rng)].float() / 255  # (count, 4, 3, h, h)
    upper, lower = (torch.cat([tiles[:, i], tiles[:, i + 1]], -1) for i in (0, 2))
    mosaic = torch.cat([upper, lower], -2)
    single = torch.rand(count, generator=rng) < 0.5
    # share of the mosaic's side
    scale = torch.where(single, uniform(0.25, 0.5, count), uniform(0.6, 1.0, count))
    room = torch.where(single, 0.5 - scale, 1 - scale)  # a single picture is the mosaic's upper left quarter
    shift = torch.where(single, -0.5, 0.0)[:, None] + uniform(-1, 1, count, 2) * room[:, None]
    flip = torch.where(torch.rand(count, generator=rng) < 0.5, -1.0, 1.0)
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = scale * flip, scale * uniform(0.85, 1.0, count)
    affine[:, :, 2] = shift
    x = F.grid_sample(
        mosaic,
        F.affine_grid(affine, (count, 3, size, size), align_corners=False),
        padding_mode="reflection",
        align_corners=False,
    )

    colour = torch.eye(3) + 0.15 * torch.randn(count, 3, 3, generator=rng)
    grey = torch.rand(count, 1, 1, generator=rng) < 0.2
    colour = torch.where(grey, torch.full((3, 3), 1 / 3), colour)
    colour = colour * torch.where(torch.rand(count, 1, 1, generator=rng) < 0.1, -1.0, 1.0)  # negative
    x = (x - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    x = torch.einsum("nij,njhw->nihw", colour, x)
    return x * uniform(0.7, 1.4, count, 1, 1, 1) + uniform(-0.3, 0.3, count, 1, 1, 1)


# --- teacher and student --------------------------------------------------------------------------


def load_teacher(path: Path, depth: int, grid: int) -> nn.Module:
    """The first `depth` blocks of a ViT-S/14, frozen, for pictures of `grid` x `grid` patches."""
    import timm
    from timm.layers import resample_abs_pos_embed

    teacher = timm.create_model(
        "vit_small_patch14_dinov2", num_classes=0, depth=depth, img_size=grid * TEACHER_PATCH
    )
    weights = {name: w.float() for name, w in load_file(path).items()}
    weights["pos_embed"] = resample_abs_pos_embed(weights["pos_embed"], [grid, grid])
    wanted = teacher.state_dict().keys()
    teacher.load_state_dict({name: w for name, w in weights.items() if name in wanted})
    return teacher.eval().requires_grad_(False)


def features(vit: nn.Module, x: torch.Tensor, blocks: list[int]) -> list[torch.Tensor]:
    """Residual stream after each of `blocks`, patch tokens only: a list of (n, N, d)."""
    x = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(x))))
    found = []
    for i, block in enumerate(vit.blocks[: max(blocks) + 1]):
        x = block(x)
        if i in blocks:
            found.append(x[:, vit.num_prefix_tokens :].float())
    return found


def shrink_patch(weight: torch.Tensor, size: int) -> torch.Tensor:
    """(d, 3, p, p) -> (d, 3, size, size): the same inner product, with the small patch itself."""
    p = weight.shape[-1]
    basis = torch.eye(size * size).view(-1, 1, size, size)
    enlarge = F.interpolate(basis, (p, p), mode="bicubic", antialias=True).flatten(1)  # (size², p²)
    return (weight.flatten(2) @ enlarge.T).unflatten(2, (size, size))


@torch.no_grad()
def inherit(teacher: nn.Module, blocks: tuple[int, ...], probe: torch.Tensor) -> nn.Module:
    """A student made of the teacher's `blocks`, each MLP pruned to the units that write most into the stream.

    A unit's importance is its mean activation on `probe`, (n, 3, H, W), times the length of its output
    vector. LayerScale is folded into the matrices before it, so the student is a plain ViT.
    """
    student = tiny_vit()
    student.patch_embed.proj.weight.copy_(shrink_patch(teacher.patch_embed.proj.weight, TINY["patch_size"]))
    student.patch_embed.proj.bias.copy_(teacher.patch_embed.proj.bias)
    student.pos_embed.copy_(teacher.pos_embed[:, teacher.num_prefix_tokens :])
    activations: dict[int, torch.Tensor] = {}
    hooks = [
        block.mlp.act.register_forward_hook(lambda _m, _i, out, i=i: activations.update({i: out}))
        for i, block in enumerate(teacher.blocks)
    ]
    teacher(probe)
    for hook in hooks:
        hook.remove()
    for mine, i in zip(student.blocks, blocks, strict=True):
        theirs = teacher.blocks[i]
        importance = activations[i].abs().mean((0, 1)) * theirs.mlp.fc2.weight.norm(dim=0)
        keep = importance.topk(mine.mlp.fc1.out_features).indices.sort().values
        for name in ("norm1", "norm2", "attn.qkv"):
            mine.get_submodule(name).load_state_dict(theirs.get_submodule(name).state_dict())
        mine.attn.proj.weight.copy_(theirs.ls1.gamma[:, None] * theirs.attn.proj.weight)
        mine.attn.proj.bias.copy_(theirs.ls1.gamma * theirs.attn.proj.bias)
        mine.mlp.fc1.weight.copy_(theirs.mlp.fc1.weight[keep])
        mine.mlp.fc1.bias.copy_(theirs.mlp.fc1.bias[keep])
        mine.mlp.fc2.weight.copy_(theirs.ls2.gamma[:, None] * theirs.mlp.fc2.weight[:, keep])
        mine.mlp.fc2.bias.copy_(theirs.ls2.gamma * theirs.mlp.fc2.bias)
    return student


# --- training -------------------------------------------------------------------------------------


def unexplained(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The loss of the module's docstring; both (n, N, d) -> scalar."""
    return ((student - teacher).square().mean((0, 1)) / teacher.var((0, 1))).mean()


def distill(images_path: Path, teacher_path: Path, out: Path, recipe: Recipe = Recipe()) -> dict:
    """Train the student and write `out` (half precision) with its figures; returns those figures.

    Interrupted, it goes on from `out` + ".checkpoint" and ends in the same weights.
    """
    grid = TINY["img_size"] // TINY["patch_size"]
    student_blocks, teacher_blocks = map(list, zip(*recipe.hints, strict=True))
    images = load_images(images_path)
    held_out = torch.arange(len(images)) % 30 == 0  # the archive is sorted by class
    held_out, images = images[held_out], images[~held_out]
    teacher = load_teacher(teacher_path, max(teacher_blocks) + 1, grid)
    count = min(256, 4 * len(held_out))
    views = augment(held_out, count, TINY["img_size"], torch.Generator().manual_seed(10**6))
    enlarge = lambda x: F.interpolate(x, grid * TEACHER_PATCH, mode="bicubic", antialias=True)  # noqa: E731

    student = inherit(teacher, recipe.inherit, enlarge(views[:64]))
    matrices = [p for p in student.parameters() if p.ndim >= 2]
    vectors = [p for p in student.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        betas=(0.9, 0.98),
    )
    checkpoint, first, history = Path(f"{out}.checkpoint"), 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["recipe"] != json.dumps(asdict(recipe)):
            raise ValueError(f"{checkpoint} belongs to another recipe; delete it, or choose another --out.")
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        first, history = state["step"], state["history"]

    @torch.no_grad()
    def held_out_loss() -> float:
        with torch.autocast("cpu", torch.bfloat16):
            return unexplained(
                features(student, views, student_blocks[-1:])[0],
                features(teacher, enlarge(views), teacher_blocks[-1:])[0],
            ).item()

    if not history:
        history.append((0, held_out_loss()))
    bar = tqdm(range(first, recipe.steps), initial=first, total=recipe.steps, desc="distilling", unit="step")
    for step in bar:
        # a step's views do not depend on the past
        rng = torch.Generator().manual_seed(recipe.seed * 10**6 + step)
        x = augment(images, recipe.batch, TINY["img_size"], rng)
        rate = min(1, (step + 1) / recipe.warmup) * (1 + math.cos(math.pi * step / recipe.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * rate
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                targets = features(teacher, enlarge(x), teacher_blocks)
            found = features(student, x, student_blocks)
            losses = [unexplained(s, t) for s, t in zip(found, targets, strict=True)]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        bar.set_postfix(unexplained=f"{losses[-1].item():.3f}")
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == recipe.steps:
            history.append((step + 1, held_out_loss()))
            state = {
                "recipe": json.dumps(asdict(recipe)),
                "student": student.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
                "history": history,
            }
            write_atomically(checkpoint, partial(torch.save, state))

    figures = {
        "recipe": asdict(recipe),
        "unexplained variance on held-out pictures": history[-1][1],
        "parameters": sum(p.numel() for p in student.parameters()),
        "history": history,
    }
    halves = {name: w.half().contiguous() for name, w in student.state_dict().items()}
    write_atomically(out, partial(save_file, halves))
    write_atomically(out.with_suffix(".json"), lambda path: path.write_text(json.dumps(figures, indent=1)))
    return figures
