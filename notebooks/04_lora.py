# %% [markdown]
# # Lab 04: LoRA
#
# Full fine-tuning makes a whole new network for every task.
# LoRA leaves the old one as it is and learns a small correction beside it.
# In this lab you will
#
# 1. **write** LoRA's sum, $z = W_0x + \frac{\alpha}{r}BAx$, and **choose** how it starts;
# 2. **write it yourself** as a module of PyTorch, and **put** it into any network by the names of its layers;
# 3. **train** it by a loop of your own, **save** what it learned, **load** it elsewhere and **merge** it;
# 4. **show** that Hugging Face's peft computes the same, and take your code to a network that is not ours;
# 5. **measure** what LoRA's paper promises, and **read** a table of where to put LoRA, intervals first.
#
# | | |
# | --- | --- |
# | Time | 70 minutes for sections 1 to 7; 25 more for 8 to 11; 35 more for the bonus sections 12 to 15 |
# | The 45-minute path | sections 2 to 5: a module of yours that goes into any network |
# | Points | 12 in sections 2 to 7, 5 in the bonus |
# | Computer | any laptop, no GPU; three trainings of less than a minute each |
# | Counted | 125 minutes with all exercises: 4,144 words, 618 lines of code, 7 exercises, 2 minutes of computing; 1.4 GB of memory |
# | You know | Lab 01 (freezing, counting, one training step); matrix products and the chain rule |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# The last line sets the seeds and checks whether your computer has what the lab needs.

# %%
import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from torch import nn

from labkit import lessons, tuning
from labkit.explore import deltas, pictures, plots
from labkit.methods import Full, LoRA
from labkit.metrics import mean_by_region
from labkit.networks.segmenter import segmenter
from labkit.phantoms.kidney import kidney_patients
from labkit.scans.slices import to_volume
from labkit.studies import statistics, store
from labkit.studies.table import apart_of, table, threshold_beside
from labkit.training.cost import MIB, measure, nbytes
from labkit.training.evaluate import evaluate, predict
from labkit.training.quick import BATCH, PATIENTS, REPEATS, STEPS, at_most
from labkit.training.threshold import best_bands, evaluate_bands

lab = lessons.start("04")


def explanation(*sentences):
    """A fold whose sentences were made from the numbers above it."""
    text = "\n\n".join(sentences)
    return Markdown(f"<details><summary>Our explanation</summary>\n\n{text}\n\n</details>")


# %% [markdown]
# ## 1. How large is the difference?
#
# A hospital wants a network for brain tumours, one for livers, one for hearts.
# Full fine-tuning gives it three complete networks.
# But all three began as the same pretrained one.
# So ask of any matrix $W$ in them: what is the **difference** $\Delta W = W - W_0$ to where it began?
#
# The kit carries a network whose every weight was tuned on 20 patients (made by `labkit deltas rank-full`).
# Of each $\Delta W$ it keeps a sum of 32 products, the largest first.
# Each is a column of 384 numbers times a row of 384 numbers: together a matrix of 384 x 384, in which
# every row is a multiple of that one row.
# Lab 05 computes such a sum; here we look at one.
#
# We take a matrix of attention. In each block three matrices make three lists of 384 numbers from a token:
# $W_q$ makes its **query** (what it looks for), $W_k$ its **key** (what it is found by), and
# $W_v$ its **value** (what it hands over to tokens that found it). Ours is $W_v$ of the third block.
#
# > **Predict.** $\Delta W$ has 384 x 384 entries.
# > How many of the 32 products hold half of the squared norm (the sum of all squared entries) of all 32?
# > And how many would it be if the change were noise?
# > Write down two numbers. (The picture shows a corner, 64 x 64, so that you can see single entries.)


# %%
def show_maps(panels, size=2.6):
    """Matrices side by side by their titles, all with the same colours around 0."""
    figure = Figure(figsize=(size * len(panels) + 1, size + 0.7), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    limit = max(float(matrix.abs().max()) for matrix in panels.values())
    for axis, (title, matrix) in zip(axes, panels.items(), strict=True):
        drawn = axis.imshow(matrix, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=10)
    figure.colorbar(drawn, ax=axes, label="value of the entry", shrink=0.8)
    return figure


change = deltas.update("rank-full").factors["2.v"]  # the value matrix of the third block
W0 = deltas.start().backbone.blocks[2].attn.qkv.weight.detach()[768:]  # (384, 384), frozen
ratio = change.at(32).norm() / W0.norm()  # norm: the root of the sum of all squared entries
print(f"W0 has {W0.numel():,} entries; the norm of its change, as far as kept, is {ratio:.1%} of its own")

squares = torch.linalg.svdvals(change.at(32))[:32].square()  # what each product adds to the squared norm
of_noise = torch.linalg.svdvals(torch.randn(384, 384)).square()
print("the first ...     numbers  of our 32  of the first 32 of noise  of all of noise")
for r in (1, 4, 8, 16, 32):
    mine, noise = squares[:r].sum() / squares.sum(), of_noise[:r].sum() / of_noise[:32].sum()
    print(
        f"{r:12} {r * (384 + 384):12,} {mine:10.0%} {noise:25.0%} {of_noise[:r].sum() / of_noise.sum():16.0%}"
    )
plots.show(
    show_maps({f"the first {r} of 32 products": change.at(r)[:64, :64] for r in (1, 4, 8, 32)}),
    "Rows and columns 0 to 63 of a change of a matrix by full fine-tuning, from its first 1, 4, 8 and 32 "
    "products: one product makes a pattern of stripes, more of them fill in the rest.",
)

# %% [markdown]
# > **Explain.** How would you store this change, if it had to fit into little space? And what does the table
# > *not* show?

# %%
half = int((squares.cumsum(0) < squares.sum() / 2).sum()) + 1
half_of_noise = int((of_noise[:32].cumsum(0) < of_noise[:32].sum() / 2).sum()) + 1
explanation(
    f"As the products: a column and a row are 768 numbers, the matrix is 147,456. {half} of the 32 products "
    "hold "
    f"half of the squared norm of all 32; of noise it would be {half_of_noise}. "
    + (
        "So the change is concentrated in few products, and noise is not."
        if half < half_of_noise
        else "So this change is no more concentrated than noise is."
    ),
    "Mind what 100 % is: the file keeps 32 products, and what the change had beyond them we cannot see. The "
    "last "
    "column shows how much that can be: of noise the first 32 hold "
    f"{of_noise[:32].sum() / of_noise.sum():.0%} only. Lab 05 asks this question properly.",
)

# %% [markdown]
# Lab 05, section 3, cuts nothing off: there you count how many directions a *whole* change needs.
#
# If the change can be *stored* as few products, why not *learn* it as few products from the beginning?
# That is LoRA (Hu et al., 2021, arXiv:2106.09685).

# %% [markdown]
# ## 2. Two thin matrices
#
# A frozen linear layer computes $z = W_0 x$. LoRA adds a second path to it:
#
# $$z = W_0 x + \tfrac{\alpha}{r} B A x$$
#
# | | shape | |
# | --- | --- | --- |
# | $W_0$ | d x k | frozen; k inputs, d outputs |
# | $A$ | r x k | learned; makes r numbers out of k |
# | $B$ | d x r | learned; makes d numbers out of r |
# | $\alpha / r$ | one number | chosen once, not learned |
#
# $\alpha / r$ is the **scale** of the update.
#
# Do it once in your head, with r = 1, scale 1, $x = (1, 2)$, $A = (3, 1)$ and $B$ the column $(2, 1, 0)$.
# First $Ax = 3 + 2 = 5$: all that the second path knows of $x$ is this one number.
# Then $BAx = (10, 5, 0)$: whatever $x$ was, the correction points along $B$.
#
# One slide of the lecture exchanges the two names ($A$ is d x r there, and the product $AB$).
# We keep the paper's $BA$ throughout.
#
# The figure is drawn to scale: how large are the two strips beside the square that they make?
# (Violet entries are positive, orange ones negative; from half of a matrix's largest entry on all are equally
# dark. $A$ and $B$ are random here, with r = 8.)

# %%
torch.manual_seed(0)
d = k = 384
A_shown, B_shown = torch.randn(8, k) / k**0.5, torch.randn(d, 8) / 8**0.5
figure = Figure(figsize=(10, 3.4), layout="constrained")
axis = figure.subplots()
shown = {
    "$W_0$, frozen": (0, W0),
    "$BA$": (470, B_shown @ A_shown),
    "$B$": (940, B_shown),
    "$A$": (1000, A_shown),
}
for name, (left, matrix) in shown.items():
    high, wide = matrix.shape
    limit = float(matrix.abs().max()) / 2
    axis.imshow(matrix, cmap="PuOr", vmin=-limit, vmax=limit, extent=(left, left + wide, -high, 0))
    axis.text(left + wide / 2, 15, name, ha="center")
    text = f"{high} x {wide}:\n{matrix.numel():,} numbers"
    axis.text(left + wide / 2, -high - 15, text, ha="center", va="top", fontsize=9)
axis.text(897, -192, "$=$", ha="center", va="center", fontsize=16)
axis.set(xlim=(-10, 1394), ylim=(-490, 60))
axis.set_axis_off()
plots.show(
    figure,
    "To scale: W0 and BA are squares of 384 by 384, B is a strip 8 wide and A a strip 8 high. BA has as many "
    "entries as W0, but is made from two strips with 3,072 numbers each.",
)

# %% [markdown]
# ### Exercise 1: `lora` (2 points, about 6 minutes, easy)
#
# PyTorch keeps inputs as **rows**: `x` is (n, k), the result (n, d), and a linear layer is $xW_0^\top$.
# Write LoRA's layer for rows. The rank is in the shapes; it is not handed to you.


# %% labkit={"exercise": "lora", "role": "answer", "points": 2}
def lora(x, W0, A, B, alpha):
    """Rows x (n, k) through W0 (d, k) and its update alpha / r B A; A (r, k), B (d, r); returns (n, d)."""
    ### BEGIN SOLUTION
    r = A.shape[0]
    frozen = x @ W0.T
    update = (x @ A.T) @ B.T
    return frozen + alpha / r * update
    ### END SOLUTION


# %% labkit={"exercise": "lora", "role": "check"}
lab.check("lora", lora)

# %%
lora = lab.working("lora", lora)

# %% [markdown]
# Stuck? `lab.hint("lora")` gives a nudge; again, and it says more.
#
# Your layer is the same as one with the single matrix $W_0 + BA$ (here the scale is 1),
# since $(W_0 + BA)x = W_0x + BAx$.
# The order of the products matters for the cost, not for the result:

# %%
x = torch.randn(144, k)  # the tokens of one slice
torch.testing.assert_close(
    lora(x, W0, A_shown, B_shown, alpha=8), x @ (W0 + B_shown @ A_shown).T, rtol=1e-4, atol=1e-4
)
print(f"x through A, then B: {144 * 8 * (k + d):12,} multiplications")
print(f"BA first, then x:    {d * 8 * k + 144 * d * k:12,}")
print(f"the frozen layer:    {144 * d * k:12,}")

# %% [markdown]
# ## 3. What should the start be?
#
# The pretrained network is good. Training should begin **at** it, so $BA$ should be 0 at the start.
# There are four ways to fill two matrices with zeros or random numbers.
#
# > **Predict.** Fill in the table with yes or no.
# >
# > | A | B | begins at the pretrained network? | can learn? |
# > | --- | --- | --- | --- |
# > | zero | zero | | |
# > | random | random | | |
# > | zero | random | | |
# > | random | zero | | |
#
# ### Exercise 2: `start` (2 points, about 4 minutes, easy)
#
# Return $A$ and $B$ as LoRA starts. The lecture has it on the slide on initialization; if you do not
# remember, choose the row of the table that convinces you: the check will say what is wrong with it.
# It looks at facts (shapes, what is zero, the rank of $A$), not at your random numbers.


# %% labkit={"exercise": "start", "role": "answer", "points": 2}
def start(d, k, r):
    """A and B as training starts from them, for a layer of k inputs and d outputs."""
    ### BEGIN SOLUTION
    A = torch.randn(r, k) / k**0.5
    B = torch.zeros(d, r)
    return A, B
    ### END SOLUTION


# %% labkit={"exercise": "start", "role": "check"}
lab.check("start", start)

# %%
start = lab.working("start", start)

# %% [markdown]
# Now all four, tried out. A layer, eight inputs, a target that the frozen layer does not reach.
# Autograd tells how large the gradients of $A$ and $B$ are in the first step.

# %%
torch.manual_seed(1)
x, frozen, wanted = torch.randn(8, 6), torch.randn(5, 6), torch.randn(8, 5)
A_random, B_zero = (M.detach().clone() for M in start(5, 6, 2))
A_zero, B_random = torch.zeros_like(A_random), torch.randn_like(B_zero)
starts = {
    "zero, zero": (A_zero, B_zero),
    "random, random": (A_random, B_random),
    "zero, random": (A_zero, B_random),
    "random, zero": (A_random, B_zero),
}
print(f"{'A, B':16} {'output changed by':>18} {'gradient of A':>14} {'gradient of B':>14}")
for name, (A, B) in starts.items():
    A, B = A.detach().clone().requires_grad_(), B.detach().clone().requires_grad_()
    z = lora(x, frozen, A, B, alpha=2)
    F.mse_loss(z, wanted).backward()
    changed = (z - x @ frozen.T).abs().max()
    print(f"{name:16} {changed:18.3f} {A.grad.abs().max():14.3f} {B.grad.abs().max():14.3f}")

# %% [markdown]
# > **Explain.** Compare with your table. Which rows begin at the pretrained network and can learn?
#
# <details><summary>Our explanation</summary>
#
# The last two. With both at zero neither has a gradient, now or ever: the network is frozen for good.
# With both random the output is disturbed before anything was learned.
# One zero and one random works, either way round.
# LoRA takes $A$ random and $B$ zero; its files, and the learning rates in papers, mean that one.
#
# In the last row $A$ has no gradient in the first step. Does it ever get one? Section 12 derives it.
# </details>

# %% [markdown]
# ## 4. Write it yourself
#
# So far these are matrices on a desk. A network is made of **modules**: objects that own parameters and
# compute something in `forward`. To put LoRA into a network you need a module that can stand where an
# `nn.Linear` stood: it takes the same rows and gives rows of the same shape.
#
# Three things make it LoRA and not just a layer with more in it:
#
# * the old layer is **kept**, inside the new one, and **frozen**: `requires_grad` is off for its weight and
# bias;
# * $A$ and $B$ are of the class `nn.Parameter`. A module finds what it owns by this class, and so does
#   whoever asks it for `parameters()`: the optimizer, `state_dict()`, `.to("cuda")`. A plain tensor is
# invisible;
# * the scale is a plain number. Nobody learns it.
#
# ### Exercise 3: `LoRALinear` (3 points, about 10 minutes, medium)
#
# Write both methods. Keep the frozen layer as `self.original`, and call the parameters `self.A` and `self.B`:
# these names will stand in your files. The first line of every `__init__` of a module is there already.


# %% labkit={"exercise": "LoRALinear", "role": "answer", "points": 3, "hides": ["labkit.methods.lora"]}
class LoRALinear(nn.Module):
    """A frozen nn.Linear of k inputs and d outputs, plus alpha / r B A, with A (r, k) and B (d, r)."""

    def __init__(self, original, A, B, alpha):
        super().__init__()
        ### BEGIN SOLUTION
        self.original = original.requires_grad_(False)
        self.A = nn.Parameter(A)
        self.B = nn.Parameter(B)
        self.scale = alpha / A.shape[0]
        ### END SOLUTION

    def forward(self, x):
        """x (..., k) to (..., d)."""
        ### BEGIN SOLUTION
        return self.original(x) + self.scale * (x @ self.A.T) @ self.B.T
        ### END SOLUTION


# %% labkit={"exercise": "LoRALinear", "role": "check"}
lab.check("LoRALinear", LoRALinear)

# %%
LoRALinear = lab.working("LoRALinear", LoRALinear)

# %% [markdown]
# Try it on one layer. Nothing may change at the start, and only two of its four parameters may learn:


# %%
def with_lora(layer, r=8, alpha=8):
    """Your LoRALinear around a layer, with A and B as your `start` makes them."""
    A, B = (M.detach().clone() for M in start(layer.out_features, layer.in_features, r))
    return LoRALinear(layer, A, B, alpha)


plain = nn.Linear(384, 1152)
tokens = torch.randn(144, 384)
before = plain(tokens)
wrapped = with_lora(plain)
print("changed at the start by at most", (wrapped(tokens) - before).abs().max().item())
for name, p in wrapped.named_parameters():
    print(f"{name:16} {str(tuple(p.shape)):12} {'learns' if p.requires_grad else 'frozen'}")

# %% [markdown]
# ## 5. Into a network
#
# A network is a tree of modules, and each has a path: `blocks.2.attn.qkv` is the attribute `qkv` of the
# attribute `attn` of block 2 of `blocks` (counted from 0, so the third). `named_modules()` walks through the whole
# tree and gives every path with its module. That is all one needs to put LoRA into a network that somebody else
# wrote, without touching its code: find a layer by its name, and hang the wrapped one into its place, in its
# **parent**.
#
# Our backbone is timm's vision transformer with four blocks. These are the modules of one of them:


# %%
def network(weights="default"):
    """The pretrained backbone, frozen, under a new head of one linear layer, which learns."""
    model = segmenter("tiny", in_chans=1, classes=3, decoder="linear", weights=weights)
    model.backbone.requires_grad_(False)
    return model


for path, module in network().backbone.named_modules():
    if isinstance(module, (nn.Linear, nn.Conv2d)) and not path.startswith(
        ("blocks.1", "blocks.2", "blocks.3")
    ):
        print(f"{path:22} {type(module).__name__:8} {tuple(module.weight.shape)}")

# %% [markdown]
# `qkv` makes queries, keys and values of a token in one matrix (section 14 looks inside), `proj` mixes what
# the heads of attention found, `fc1` and `fc2` are the block's MLP. Look at the first line: it has a trap in
# it.
#
# ### Exercise 4: `inject` (3 points, about 10 minutes, medium)
#
# Replace every `nn.Linear` whose own name (the last part of its path) is one of `names` by `wrap(layer)`, and
# return how many you replaced. `path.rpartition(".")` and `model.get_submodule(path)` help; the path of the
# network itself is `""`.


# %% labkit={"exercise": "inject", "role": "answer", "points": 3}
def inject(model, names, wrap):
    """Put wrap(layer) in the place of every nn.Linear of these names, anywhere in model; returns how many."""
    ### BEGIN SOLUTION
    count = 0
    for path, layer in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if name in names and isinstance(layer, nn.Linear):
            setattr(model.get_submodule(parent), name, wrap(layer))
            count += 1
    return count
    ### END SOLUTION


# %% labkit={"exercise": "inject", "role": "check"}
lab.check("inject", inject)

# %%
inject = lab.working("inject", inject)

# %% [markdown]
# > **Predict.** Rank 8 on `qkv`, a matrix of 1152 x 384, in each of four blocks. How many parameters come in?
# > What happens to the output of the network?


# %%
def learning(module):
    """How many numbers of a module learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def total(module):
    """How many numbers a module has."""
    return sum(p.numel() for p in module.parameters())


torch.manual_seed(0)
model, untouched = network(), network()
image = torch.randn(2, 1, 96, 96)
print(f"before: {total(model):,} parameters, {learning(model.backbone):,} of the backbone learn")
replaced = inject(model.backbone, ("qkv",), with_lora)
print(f"after:  {total(model):,} parameters, {learning(model.backbone):,} of the backbone learn")
print(f"{replaced} layers replaced; the head has {learning(model.decoder):,} parameters, which learn too")
with torch.no_grad():
    print("the output changed by at most", float((model(image) - untouched(image)).abs().max()))

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# A has 8 x 384 numbers and B 1152 x 8: 12,288 a block, 49,152 in four. The output is the same, since every
# $B$ is zero: training will start *at* the pretrained network.
#
# The order matters. First everything is frozen, then LoRA comes in. The other way round the new $A$ and $B$
# would be
# frozen as well, without any error: the loss would fall (the head learns) and LoRA would stand still. So
# **count what learns, each time**.
# </details>

# %% [markdown]
# ## 6. Train it
#
# Four digital patients with a tumour of the kidney, in CT, to learn from, four others to be tested on. They
# are
# made on the spot, a second or two each. Into one tensor go all slices that show a kidney, and a quarter of
# the
# others: a network that never saw a slice without a kidney would find one everywhere.

# %%
few = at_most(4, PATIENTS)  # two when tests run this notebook
train, test = ([to_volume(case) for case in kidney_patients(name, few)] for name in ("train", "test"))
images, truth = (torch.cat([getattr(volume, what) for volume in train]) for what in ("image", "target"))
shown = (truth > 0).flatten(1).any(1)
shown[::4] = True
images, truth = images[shown], truth[shown]
print(
    "slices", tuple(images.shape), "and their labels", tuple(truth.shape), "0 background, 1 kidney, 2 tumour"
)
print(f"{(truth > 0).flatten(1).any(1).float().mean():.0%} of the slices show a kidney")

# %% [markdown]
# No helper does the training here: this is the whole of it. The loss is the one of most segmentation papers.
# Cross-entropy
# asks every pixel for its class. That alone is content with background, which is nearly everywhere; so soft
# Dice is added, which asks every class how much it overlaps. The ones in the fraction keep it from being 0 /
# 0.


# %%
def loss_of(logits, truth):
    """Cross-entropy plus 1 - soft Dice: logits (n, K, H, W), truth (n, H, W)."""
    p = logits.softmax(1)
    is_class = F.one_hot(truth, logits.shape[1]).movedim(-1, 1)  # (n, K, H, W), 0 or 1
    overlap, sizes = (p * is_class).sum((0, 2, 3)), (p + is_class).sum((0, 2, 3))
    soft_dice = (2 * overlap + 1) / (sizes + 1)
    return F.cross_entropy(logits, truth) + 1 - soft_dice[1:].mean()  # the background's Dice asks nothing


def train_loop(model, steps=50, lr=4e-3):
    """Train whatever of a model learns; returns the loss of every step."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    batches, losses = torch.Generator().manual_seed(0), []
    for _ in range(at_most(steps, STEPS)):  # a few steps of a few slices when tests run this notebook
        chosen = torch.randint(len(images), (at_most(8, BATCH),), generator=batches)
        loss = loss_of(model(images[chosen]), truth[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %% [markdown]
# > **Predict.** Beside your network we train two controls on the same batches: the head alone, without LoRA, and
# > LoRA on a backbone that was never trained. Will LoRA be better than the head? By how many points of Dice? And
# > what would it mean if the *random* backbone did as well as the pretrained one?

# %%
models = {
    "LoRA on qkv, r = 8": model,
    "head alone": network(),
    "random backbone, LoRA": network(weights=None),
}
inject(models["random backbone, LoRA"].backbone, ("qkv",), with_lora)
losses = {"LoRA on qkv, r = 8": train_loop(models["LoRA on qkv, r = 8"])}

# %%
losses["head alone"] = train_loop(models["head alone"])

# %%
losses["random backbone, LoRA"] = train_loop(models["random backbone, LoRA"])

# %%
figure = Figure(figsize=(6, 3.4), layout="constrained")
axis = figure.subplots()
for (name, values), colour, style in zip(
    losses.items(), (pictures.BLUE, pictures.VERMILLION, pictures.GREEN), ("-", "--", ":"), strict=True
):
    smooth = [
        sum(values[max(0, i - 9) : i + 1]) / len(values[max(0, i - 9) : i + 1]) for i in range(len(values))
    ]
    axis.plot(range(1, len(values) + 1), smooth, style, color=pictures.unit(colour), label=name)
axis.set(xlabel="step", ylabel="loss, mean of the last 10 steps")
axis.grid(alpha=0.3)
axis.legend(frameon=False)
plots.show(
    figure,
    "Training loss against step, smoothed, of LoRA on qkv, of the head alone, and of LoRA in a random backbone.",
)

# %%
table_of = {"threshold": mean_by_region(evaluate_bands(best_bands(train), test))}
table_of |= {
    name: mean_by_region(evaluate(one.eval(), test, hausdorff=False, progress=True))
    for name, one in models.items()
}
print(f"{'Dice on four test patients':28} {'kidney':>8} {'tumour':>8} {'mean':>8}")
for name, dices in table_of.items():
    values = [100 * value for value in (*dices.values(), sum(dices.values()) / len(dices))]
    print(f"{name:28}", *(f"{value:8.1f}" for value in values))

# %%
patient = test[0]
level = int((patient.case.label == 2).sum((1, 2)).argmax())  # the slice with the largest tumour
found = {name: predict(one, patient) for name, one in models.items()}
plots.show(
    plots.comparison(patient.case, found, level),
    "One slice of a test patient in CT: the true labels of kidney and tumour, and what the network with LoRA, the "
    "head alone and LoRA in a random backbone found.",
)

# %% [markdown]
# > **Explain.** What did LoRA add, and how sure are you?

# %%
lead = {
    region: 100 * (table_of["LoRA on qkv, r = 8"][region] - table_of["head alone"][region])
    for region in ("kidney", "tumour")
}
known = apart_of(store.results("lora_places_kidney"), "q and v, r = 4", "head alone")
kidney_of = {name: 100 * dices["kidney"] for name, dices in table_of.items()}
random_one, band = kidney_of["random backbone, LoRA"], kidney_of["threshold"]
explanation(
    f"LoRA less head: kidney {lead['kidney']:+.1f} points, tumour {lead['tumour']:+.1f}. "
    + (
        "With the head alone all that the backbone sees has to be of use as it is; LoRA may bend it."
        if sum(lead.values()) > 0
        else "Here the head alone does as well: what the frozen backbone sees was enough for it."
    ),
    "How sure? One seed, four patients, one rate, chosen by nobody. A single run shows that your code "
    "works, not which "
    "method is better."
    + (
        " The kit's own table for kidneys behind this head (section 11; twenty patients, three seeds, each "
        "row at the "
        "rate that did best on other patients) has LoRA on q and v less the head alone at "
        f"{known.mean:+.1f} points, "
        f"{known.low:+.1f} to {known.high:+.1f}."
        if known
        else ""
    ),
    "Without the first control we would have seen a loss that falls and a kidney that is found, and called it "
    "LoRA's work.",
    f"LoRA in the random backbone has a Dice of {random_one:.1f} on the kidney, a threshold without any network "
    f"{band:.1f}. "
    + (
        "So what LoRA bends matters: as many numbers, trained on the same batches, do not make up for photographs "
        "never seen."
        if random_one < kidney_of["head alone"]
        else "So in this short training the photographs show no worth: the random backbone does as well as the head "
        "on the pretrained one."
    ),
)

# %% [markdown]
# If the two numbers disagree, look at what differs. Here both learned from four patients, for fifty steps, at one
# rate that nobody chose. In the table each had twenty patients, 150 steps and a rate that suits it, and the head
# alone took the highest that was tried. Part of what LoRA gains in a short training may be *speed*, which a better
# rate can give the head as well.

# %% [markdown]
# ## 7. Save, load, merge
#
# What has to be kept of a training? The backbone is the same for everyone. The rest is the **delta**:
# whatever
# `requires_grad`.

# %%
folder = tempfile.TemporaryDirectory()
file = Path(folder.name) / "kidney.safetensors"
delta = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
save_file(delta, file)
whole = sum(p.numel() * p.element_size() for p in model.parameters())
of_lora = sum(p.numel() * p.element_size() for name, p in delta.items() if name.startswith("backbone"))
print(
    f"the delta: {file.stat().st_size / 1000:,.0f} kB, {of_lora / 1000:,.0f} of them LoRA, the rest the head"
)
print(f"the whole network: {whole / 1000:,.0f} kB")

# %% [markdown]
# Somebody else has the backbone, your class and this file. A fresh network, LoRA injected (with other random
# numbers, which do not matter any more), the file loaded. `strict=False` since the file has only a part of
# the
# names. So check that none of its names was *unwanted*: a load that does nothing says nothing.

# %%
other = network()
inject(other.backbone, ("qkv",), with_lora)
unwanted = other.load_state_dict(load_file(file), strict=False).unexpected_keys
other.eval()
image = patient.image[level][None]
with torch.no_grad():
    print("names that nobody wanted:", unwanted, "- same output:", torch.equal(other(image), model(image)))

# %% [markdown]
# ### Merge
#
# After training, $W = W_0 + \frac{\alpha}{r}BA$ is again one matrix of the old shape.
# The network is then as large and as fast as before tuning.
# Prompts (Lab 03) and adapters (Lab 06) cannot do that.
#
# ### Exercise 5: `merge` (2 points, about 4 minutes, easy)
#
# Return the merged matrix. $W_0$ itself must stay as it is: other tasks need it.


# %% labkit={"exercise": "merge", "role": "answer", "points": 2}
def merge(W0, A, B, alpha):
    """The single matrix (d, k) that does what W0 and its update do together."""
    ### BEGIN SOLUTION
    r = A.shape[0]
    return W0 + alpha / r * B @ A
    ### END SOLUTION


# %% labkit={"exercise": "merge", "role": "check"}
lab.check("merge", merge)

# %%
merge = lab.working("merge", merge)

# %% [markdown]
# Into a network without a trace of LoRA in it:

# %%
merged = network().eval()
for path, layer in other.named_modules():
    if isinstance(layer, LoRALinear):
        W = merge(layer.original.weight.detach(), layer.A.detach(), layer.B.detach(), alpha=8)
        merged.get_submodule(path).weight.data.copy_(W)
merged.decoder.load_state_dict(other.decoder.state_dict())
with torch.no_grad():
    apart, together = other(image), merged(image)
print(f"apart:  {total(other):,} parameters")
print(f"merged: {total(merged):,} parameters")
print(f"outputs up to {apart.abs().max():.1f}, differing by at most {(together - apart).abs().max():.0e}")
print(
    f"pixels with another label: {int((together.argmax(1) != apart.argmax(1)).sum())} of "
    f"{together[0, 0].numel():,}"
)
torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-3)

# %% [markdown]
# Merged and apart differ in the last digits: the same sums, added in another order.

# %% [markdown]
# ## 8. The same in five lines
#
# You will not write LoRA each time. Hugging Face's library *peft* does what you did: it freezes, walks over
# `named_modules`, wraps the layers of the names in `target_modules`, and calls $\alpha$ `lora_alpha`.
# Now that you know what it does, check that it does it: give it your $A$ and $B$.
#
# (peft is no part of this course's installation, only of its tests; without it the cell says so.)

# %%
if importlib.util.find_spec("peft"):
    from peft import LoraConfig, get_peft_model

    theirs = get_peft_model(network(), LoraConfig(r=8, lora_alpha=8, target_modules=["qkv"])).eval()
    print(
        f"peft: {sum(p.numel() for p in theirs.parameters() if p.requires_grad):,} parameters learn (it "
        "froze the head too)"
    )
    base = theirs.base_model.model  # the network, with peft's layers in it
    base.decoder.load_state_dict(other.decoder.state_dict())
    for path, layer in other.named_modules():
        if isinstance(layer, LoRALinear):
            base.get_submodule(path).lora_A["default"].weight.data.copy_(layer.A.detach())
            base.get_submodule(path).lora_B["default"].weight.data.copy_(layer.B.detach())
    with torch.no_grad():
        print(f"peft's output and yours differ by at most {(theirs(image) - apart).abs().max():.0e}")
        torch.testing.assert_close(theirs(image), apart, rtol=1e-3, atol=1e-3)
else:
    print("peft is not installed here; `pip install peft` brings it, and nothing later needs it.")

# %% [markdown]
# > **Explain.** In peft a network was handed over whose head learned, and it came back with a frozen one.
# > Why,
# > and what would you lose if you did not notice?
#
# <details><summary>Our explanation</summary>
#
# peft freezes all that is not LoRA: for a language model that is right, its head is pretrained too. A new
# head would
# keep its random numbers, and the training would look like LoRA's failure. peft's switch for it is
# `modules_to_save=["decoder"]`; it also makes the head part of the file.
#
# Two more of its switches, both off by default: `lora_dropout` drops, in training, a share of what $A$ reads,
# against learning few patients by heart; `bias` lets biases learn beside $A$ and $B$.
#
# (Networks tuned by labkit's own LoRA are written to peft's file format, and read from it, by
# `labkit.updates.peft_format`.)
# </details>

# %% [markdown]
# ## 9. A network that is not ours
#
# Nothing in `inject` or `LoRALinear` knows our network. Take a convolutional one from timm, which none of our
# labs uses: ConvNeXt (Liu et al., 2022, arXiv:2201.03545). (Its weights are random here, so that nothing has
# to be
# downloaded; for a task of yours you would take pretrained ones. `conv_mlp=False` has its MLP written as
# `nn.Linear`;
# timm's own choice for this size is 1 x 1 convolutions, the same arithmetic, where your `inject` would
# return 0.)
#
# > **Predict.** Its blocks convolve, and then have an MLP whose layers are called `fc1` and `fc2`. How much
# > of
# > such a network can LoRA for linear layers reach?

# %%
import timm

convnext = timm.create_model("convnext_atto", num_classes=2, conv_mlp=False).eval().requires_grad_(False)
picture = torch.randn(2, 3, 96, 96)
before = convnext(picture)
in_linear = sum(m.weight.numel() for m in convnext.modules() if isinstance(m, nn.Linear))
in_convolutions = sum(m.weight.numel() for m in convnext.modules() if isinstance(m, nn.Conv2d))
replaced = inject(convnext, ("fc1", "fc2"), with_lora)
print(f"weights in linear layers {in_linear:,}, in convolutions {in_convolutions:,}")
print(
    f"{replaced} layers replaced, {learning(convnext):,} numbers learn, output the same: "
    f"{torch.equal(convnext(picture), before)}"
)
F.cross_entropy(convnext(picture), torch.tensor([0, 1])).backward()
arrived = sum(layer.B.grad is not None for layer in convnext.modules() if isinstance(layer, LoRALinear))
print(f"after one backward pass {arrived} of {replaced} B have a gradient")

# %% [markdown]
# Some layers only *look* as if they could be replaced. PyTorch's own attention has an `nn.Linear` named
# `out_proj`, and never calls it: it reads its `.weight` and multiplies itself.

# %%
attention = nn.MultiheadAttention(8, 2, batch_first=True)
replaced = inject(attention, ("out_proj",), lambda layer: with_lora(layer, r=2, alpha=2))
print(f"{replaced} layer replaced")
try:
    attention(*[torch.randn(1, 4, 8)] * 3)
    print("it runs; whether A and B had a part in it, only their gradients say")
except AttributeError as error:
    print(f"AttributeError: {error}")

# %% [markdown]
# > **Explain.** How much did LoRA reach in ConvNeXt? And what do you check first in a network that is new to
# > you?

# %%
explanation(
    f"In this network {in_linear / (in_linear + in_convolutions):.0%} of those weights are in linear "
    "layers, and so "
    "within reach. Convolutions are not: their weight has four axes. They can be had in the same way: a "
    "convolution "
    "down to r channels and one of 1 x 1 up again (peft does so), since a convolution is a linear layer on "
    "patches.",
    "Three looks at a new network: print `named_modules()` for the names; count what learns before and "
    "after; and "
    "after one backward pass see that every $B$ has a gradient. A layer whose `forward` nobody calls fails "
    "the third, "
    "or falls over as above. (Such a network wants a LoRA that is written for it; torchvision's ViT is one.)",
)

# %% [markdown]
# ## 10. What was promised
#
# LoRA's abstract says, of GPT-3 with 175 billion parameters and Adam: **10,000 times fewer** trainable
# parameters,
# **3 times less** memory of the GPU, **no additional latency** at inference. The lecture quotes it. Those are
# measurements on one network; here are ours, on another.
#
# > **Predict.** Which of the three will hold for a network of 5.5 million, and which depends on its size?

# %%
networks = {
    name: tuning.tune(segmenter("tiny", in_chans=1, classes=3, decoder="linear"), method)
    for name, method in (("full", Full()), ("LoRA, r = 8 on q, v", LoRA(r=8)))
}
costs = {name: measure(tuned, images[:8]) for name, tuned in networks.items()}
weights = {name: nbytes(tuned.parameters()) / MIB for name, tuned in networks.items()}
totals = {name: weights[name] + c.gradients_mib + c.optimizer_mib + c.saved_mib for name, c in costs.items()}
print(
    f"{'MiB of one step, 8 slices':26} {'learn':>10} {'weights':>9} {'gradients':>10} {'Adam':>7} "
    f"{'activations':>12} {'sum':>7}"
)
for name, c in costs.items():
    print(
        f"{name:26} {c.tuned:10,} {weights[name]:9.1f} {c.gradients_mib:10.1f} {c.optimizer_mib:7.1f} "
        f"{c.saved_mib:12.1f} {totals[name]:7.1f}"
    )


def milliseconds(one):
    """Median time of a forward pass of eight slices."""
    times = []
    for _ in range(at_most(20, REPEATS)):
        start_of_pass = time.perf_counter()
        with torch.no_grad():
            one(images[: at_most(8, BATCH)])
        times.append(1000 * (time.perf_counter() - start_of_pass))
    return sorted(times)[len(times) // 2]


inference = {
    name: milliseconds(one)
    for name, one in (("frozen", untouched.eval()), ("apart", other), ("merged", merged))
}
print("forward pass, milliseconds:", {name: round(value, 1) for name, value in inference.items()})

# %% [markdown]
# > **Explain.** Which promise held?

# %%
full, lora_cost = costs.values()
fewer, of_the_backbone = full.tuned / lora_cost.tuned, full.tuned / lora_cost.inserted
saved = totals["full"] / totals["LoRA, r = 8 on q, v"]
explanation(
    f"**Fewer**: {fewer:.0f} times, or {of_the_backbone:.0f} times if A and B alone are counted. Not 10,000. "
    "A matrix of d x d "
    "gets 2 r d numbers from LoRA. GPT-3's blocks have matrices worth 12 d x d each, and rank 4 on q and v "
    "adds 16 d to "
    "them: one number for each 12 d / 16 = 9,216, as d is 12,288. Ours is 384. The factor is one of size, "
    "not of method.",
    f"**Memory**: {saved:.1f} times less. What LoRA saves are gradients and Adam's two numbers per "
    "parameter: "
    f"{full.gradients_mib + full.optimizer_mib:.0f} MiB became "
    f"{lora_cost.gradients_mib + lora_cost.optimizer_mib:.0f}. "
    f"Of the activations it saves less: {full.saved_mib:.0f} MiB became {lora_cost.saved_mib:.0f}. "
    "With eight slices of a "
    "small network these weigh as they do; in GPT-3 parameters weigh far more. Try a batch of 2, and of 32.",
    "**Latency**: merged it is the frozen network with other numbers, so where their two times differ "
    f"({inference['frozen']:.1f} and {inference['merged']:.1f} ms here) it is the clock and what else your "
    "computer does. "
    f"Not merged it was {inference['apart']:.1f} ms: two small products more in each of four layers, perhaps too "
    "little for this clock to see. The promise is one of merging, and holds for one task at a time.",
)

# %% [markdown]
# ## 11. Where should the parameters go?
#
# A transformer block has many matrices. The lecture's Table 5 gives GPT-3 175B 18 million parameters in seven
# ways and measures two tasks of language (Hu et al., 2021), as accuracy in percent.
# In WikiSQL a question becomes a database query; in MultiNLI one sentence follows from another, or does not.
# **o** is the matrix behind attention, `proj` in timm; q, k and v are the three parts of `qkv`:
#
# | LoRA on | q | k | v | o | q, k | q, v | q, k, v, o |
# | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
# | rank | 8 | 8 | 8 | 8 | 4 | 4 | 2 |
# | WikiSQL (± 0.5) | 70.4 | 70.0 | 73.0 | 73.2 | 71.4 | **73.7** | **73.7** |
# | MultiNLI (± 0.1) | 91.0 | 90.8 | 91.0 | 91.3 | 91.3 | 91.3 | **91.7** |
#
# The rank falls as the number of matrices grows: only so are the seven equally large. On our network each
# gets
# 24,576 parameters in the same way. fc1 and fc2, and all six, are no part of Table 5 and get a little
# less: at the next rank they would be above it.
#
# > **Predict.** k decides what a token is *found by*, v what it *hands over*. Will the order be GPT-3's?
# > And will the *differences* be large enough to be seen on ten or twenty patients?
#
# One training says nothing here; these are 110 trainings, made once by `labkit sweep lora_places` and
# `labkit sweep lora_places_kidney`: every place at the best of three rates (the head alone of four), chosen
# on other
# patients, with three seeds. The last column compares each row with "q and v", patient by patient. The brains moved
# in the scanner (lab 00, section 9). Above each table stands what a threshold has on the same patients, without a
# network: a region in which the rows are hardly better tells nothing about the places.

# %%
places = {"brains": store.results("lora_places"), "kidneys": store.results("lora_places_kidney")}
bands = {organ: threshold_beside(made) for organ, made in places.items()}
for organ, dices in bands.items():
    print(
        f"a threshold on these {organ}:", ", ".join(f"{region} {dice:.1f}" for region, dice in dices.items())
    )
Markdown(table(places["brains"]))

# %%
Markdown(table(places["kidneys"]))

# %%
RIVAL = "q and v, r = 4"
figure = Figure(figsize=(10, 4.2), layout="constrained")
for axis, (organ, made) in zip(figure.subplots(1, 2, sharex=True, sharey=True), places.items(), strict=True):
    rows = [row.name for row in made.sweep.rows if row.name != RIVAL][::-1]
    for height, name in enumerate(rows):
        if apart_from_rival := apart_of(made, name, RIVAL):
            tells = apart_from_rival.low > 0 or apart_from_rival.high < 0
            colour, marker = (pictures.VERMILLION, "s") if tells else (pictures.BLUE, "o")
            axis.errorbar(
                apart_from_rival.mean,
                height,
                xerr=apart_from_rival.half,
                fmt=marker,
                color=pictures.unit(colour),
                capsize=3,
            )
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set(yticks=range(len(rows)), yticklabels=rows, title=organ, xlabel="points of Dice above q and v")
axis.plot([], [], "o", color=pictures.unit(pictures.BLUE), label="95 % interval holds 0")
axis.plot([], [], "s", color=pictures.unit(pictures.VERMILLION), label="95 % interval leaves 0 out")
figure.legend(loc="outside lower center", ncols=2, frameon=False)
plots.show(
    figure,
    "How far each place is above or below LoRA on q and v, with 95 % intervals, on brains and on kidneys; "
    "round blue "
    "marks for intervals across zero, square red ones for those that leave it out.",
)

# %% [markdown]
# > **Explain.** Which rows can you rank, and which not? First ask of each whether it beats the head alone.

# %%
GPT3 = (
    "q, r = 8",
    "k, r = 8",
    "q and k, r = 4",
    "v, r = 8",
    "o, r = 8",
    "q and v, r = 4",
    "q, k, v and o, r = 2",
)
WIKISQL = dict(zip(GPT3, (70.4, 70.0, 71.4, 73.0, 73.2, 73.7, 73.7), strict=True))


def told_apart(made, other):
    """The rows whose interval above or below another leaves 0 out, and how many rows were compared."""
    found = {row.name: apart_of(made, row.name, other) for row in made.sweep.rows if row.name != other}
    found = {name: one for name, one in found.items() if one}
    return [f"{name} ({one.mean:+.1f})" for name, one in found.items() if one.low > 0 or one.high < 0], len(
        found
    )


def in_order(made):
    """Pairs of Table 5's rows that stand in the order of WikiSQL's accuracy, and how many differ there."""
    mean = {
        name: statistics.estimate(statistics.scores(made.trainings(made.sweep.row(name)))).mean
        for name in GPT3
    }
    pairs = [(a, b) for a in GPT3 for b in GPT3 if WIKISQL[a] < WIKISQL[b]]
    return sum(mean[a] < mean[b] for a, b in pairs), len(pairs)


said = []
for organ, made in places.items():
    if all(made.trainings(row) for row in made.sweep.rows):
        right, pairs = in_order(made)
        (tells, compared), (other_than_head, _) = told_apart(made, RIVAL), told_apart(made, "head alone")
        said.append(
            f"**On {organ}** {right} of {pairs} pairs of rows stand in the order of GPT-3's WikiSQL. Of "
            f"{compared} "
            f"differences to q and v, these leave 0 out: {', '.join(tells) or 'none'}. Of {compared} "
            "differences to the "
            f"head alone, these: {', '.join(other_than_head) or 'none'}."
        )
above = {}
for organ, made in places.items():
    of_rows = [100 * statistics.scores(made.trainings(row)) for row in made.sweep.rows if made.trainings(row)]
    best = np.max([np.nanmean(np.nanmean(one, 2), 0) for one in of_rows], 0)  # region by region, of all rows
    above[organ] = ", ".join(
        f"{region} {top - band:+.1f}" for (region, band), top in zip(bands[organ].items(), best, strict=True)
    )
explanation(
    *said,
    "The best row of each region above the threshold: "
    + "; ".join(f"{organ}: {leads}" for organ, leads in above.items())
    + ". A region where that is little can't tell places apart: a band of brightness finds nearly as much.",
    "An order of means can be GPT-3's and still not be *shown*: where an interval crosses 0, other patients "
    "or other "
    "seeds might turn the two rows round. And of twenty intervals of 95 % one leaves 0 out by chance.",
    "Minus means *below*: a row that is told apart from the head alone need not be better than it. The head "
    "alone could "
    "choose a higher rate (its best is the highest tried) than the head had in the other "
    "rows. With a head that learns fast enough, where to put LoRA is a small question on these patients. On "
    "a network a thousand "
    "times as large, and on tasks that the pretrained one cannot solve with a new head, it may be a larger "
    "one.",
    "In GPT-3's own table the seven lie within 3.7 points on one task and within 0.9 on the other.",
)

# %% [markdown]
# ### Use it: where, for this hospital?
#
# A hospital sends brains and kidneys, twenty patients of each with labels. **Decide**, in four sentences: which
# matrices, at which rank, for brains and for kidneys? Or the head alone? Which number of the tables speaks for your
# choice, which against it, and what would you measure first?
#
# <details><summary>One answer</summary>
#
# First the head alone, at its best rate: it costs least, and no row of either table is beyond doubt better. Its
# rate was the highest tried, so try a higher one before anything else. Then LoRA on q, k, v and o at r = 2: its
# mean is the highest on both organs, at the same number of parameters, but its intervals beside the head hold 0. On
# brains read TC: in the whole tumour a threshold is nearly as good, and in ET not far behind.
#
# </details>

# %% [markdown]
# ## 12. Bonus: gradients by hand
#
# Autograd computes them for you. Once, derive them yourself: they say how LoRA learns.
#
# Cut the path of one token into steps, with $s = \alpha/r$:
#
# $$h = Ax, \qquad z = W_0x + s\,Bh, \qquad g = \frac{\partial L}{\partial z}$$
#
# $L$ is the loss, and $g$ arrives from the layers above. For a matrix in a product the rule is always the
# same:
# **its gradient is what came back from above, times what had gone in from below.**
# For $B$, what had gone in is $h$. For $A$ it is $x$, and what comes in has already passed back through $B$.
#
# The small example again: $x = (1, 2)$, $A = (3, 1)$, $B$ the column $(2, 1, 0)$, s = 1. So $h = 5$.
# Let $g = (1, 0, 4)$ arrive. The gradient of $B$ is $5g$, the column $(5, 0, 20)$.
# Going back, $B$ weighs the three numbers of $g$ and adds them: $2 \cdot 1 + 1 \cdot 0 + 0 \cdot 4 = 2$.
# The gradient of $A$ is $2x$, the row $(2, 4)$.
#
# ### Exercise 6: `first_gradients` (3 points, about 10 minutes, medium)
#
# Rows again: `x` is (n, k), `g` is (n, d). Every row adds to the gradient; a matrix product
# sums over them for you.
# Return the gradients of $A$ and of $B$, each in the shape of its matrix. No autograd.


# %% labkit={"exercise": "first_gradients", "role": "answer", "points": 3}
def first_gradients(x, g, A, B, s):
    """(dL/dA, dL/dB) of z = W0 x + s B A x, for rows x (n, k) and g = dL/dz (n, d)."""
    ### BEGIN SOLUTION
    h = x @ A.T  # (n, r), what went into B
    back = s * g @ B  # (n, r), what comes back out of B
    return back.T @ x, s * g.T @ h
    ### END SOLUTION


# %% labkit={"exercise": "first_gradients", "role": "check"}
lab.check("first_gradients", first_gradients)

# %%
first_gradients = lab.working("first_gradients", first_gradients)

# %% [markdown]
# Yours against autograd, on numbers that nobody chose:

# %%
A, B = torch.randn(2, 6, requires_grad=True), torch.randn(5, 2, requires_grad=True)
z = lora(x, frozen, A, B, alpha=6)  # s = 3
z.retain_grad()
F.mse_loss(z, wanted).backward()
for name, mine, theirs in zip(
    "AB", first_gradients(x, z.grad, A.detach(), B.detach(), 3), (A.grad, B.grad), strict=True
):
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    print(f"the gradient of {name}, {tuple(mine.shape)}, is autograd's")

# %% [markdown]
# ### Five steps, watched
#
# Now the real network, with your module on `qkv` in each of its four blocks.
#
# > **Predict.** At the start $B = 0$. Put it into your formulas.
# > Which of the two has a gradient in step 1? In step 2?
# > Does $A$ stand perfectly still in step 1? The optimizer is AdamW with weight decay 0.01: besides following
# > the gradients it pulls every weight a little towards 0.

# %%
model = network()
inject(model.backbone, ("qkv",), with_lora)
layer = model.backbone.blocks[2].attn.qkv  # your LoRALinear in the third block
before = layer.A.detach().clone()
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.01)
largest = {"A": [], "B": []}
for step in range(5):
    numbers = torch.Generator().manual_seed(step)
    some = torch.randint(len(images), (at_most(8, BATCH),), generator=numbers)
    loss = loss_of(model(images[some]), truth[some])
    optimizer.zero_grad()
    loss.backward()
    for name in largest:
        largest[name].append(float(layer.get_parameter(name).grad.abs().max()))
    optimizer.step()
    if step == 0:
        moved = float(1 - layer.A.detach().norm() / before.norm())
    print(f"step {step + 1}: largest gradient of A {largest['A'][-1]:.1e}, of B {largest['B'][-1]:.1e}")
print(f"in step 1, the norm of A fell by {moved:.1e} of itself")

# %%
figure = Figure(figsize=(5.5, 3.2), layout="constrained")
axis = figure.subplots()
for name, colour, marker in (("A", pictures.VERMILLION, "o"), ("B", pictures.BLUE, "s")):
    steps = [step for step, value in enumerate(largest[name], start=1) if value > 0]
    values = [value for value in largest[name] if value > 0]
    axis.semilogy(steps, values, color=pictures.unit(colour), marker=marker, label=name)
for step, value in enumerate(largest["A"], start=1):
    if value == 0:
        axis.text(step, 0.05, "A: exactly 0", ha="center", transform=axis.get_xaxis_transform())
axis.set(xlabel="step", ylabel="largest |gradient|", xticks=range(1, 6), xlim=(0.5, 5.5))
axis.set_ylim(bottom=axis.get_ylim()[0] / 3)
axis.legend(title="matrix", frameon=False)
plots.show(
    figure,
    "Largest gradient of A and of B in the third block over five steps, on a logarithmic axis: in step 1 "
    "that of A is exactly zero, from step 2 on both have one.",
)

# %% [markdown]
# > **Explain** the zero, the end of the zero, and the shrinking.
#
# <details><summary>Our explanation</summary>
#
# The gradient of $A$ has the factor $B$, so it is exactly 0 while $B$ is.
# That of $B$ has the factor $Ax$, which is not 0.
# So $B$ moves first; from step 2 on it lets gradients through to $A$.
#
# Yet $A$ did not stand still in step 1. AdamW shrinks every weight by learning rate x weight decay
# = 0.001 x 0.01 = 1e-5 of itself, gradient or not. Without weight decay $A$ would have stood still.
# </details>

# %% [markdown]
# ## 13. Bonus: merge, and take back
#
# The lecture's slide takes the update out again by $W - BA = W_0$.
#
# > **Predict.** On paper that is an equation. On a computer every sum is rounded.
# > Of the 147,456 entries of a real $W_0$, how many come back exactly, to the last bit, in float32 and in
# > bfloat16 (numbers of 16 bits, in which large networks are often kept)?
# > Does a thousandth round of merging and subtracting do more harm than the first?

# %%
torch.manual_seed(0)
A, B = layer.A.detach(), 0.05 * torch.randn(384, 8)  # an update, as large as training might make it
W_q = layer.original.weight[:384].detach()
for dtype in (torch.float32, torch.bfloat16):
    kept, update = W_q.to(dtype), (B @ A).to(dtype)
    back = kept
    for rounds in range(1, 1001):
        back = (back + update) - update
        if rounds in (1, 1000):
            error = (back - kept).float().abs()
            print(
                f"{dtype}, {rounds:4} rounds: {(error > 0).float().mean():5.1%} of the entries changed, "
                f"at most by {error.max():.1e}, the largest weight being {kept.abs().max():.2f}"
            )

# %% [markdown]
# > **Explain.** Why do they not come back? When would you mind?
#
# <details><summary>Our explanation</summary>
#
# Adding a small number to a larger one drops its last digits, and subtracting does not bring them back.
# bfloat16 keeps 8 significant bits instead of 24: it rounds 65,536 times as coarsely.
# Compare the first round with the thousandth: the digits that get lost are lost in the first.
#
# You would mind where a network has to be *exactly* the pretrained one again: to compare, or to put another
# task's update on it. The cure is not to subtract but to **keep** $W_0$.
# labkit's `merge` puts it aside, and `unmerge` puts it back.
# </details>

# %% [markdown]
# ## 14. Bonus: three layers in one matrix
#
# Papers write $W_q$, $W_k$ and $W_v$ as three layers.
# timm, like many libraries, stacks them into one matrix, because one large product is faster than three.

# %%
layer = tuning.tune(segmenter("tiny"), LoRA(r=8, targets=("q", "v"))).backbone.blocks[2].attn.qkv
layer.B.data.normal_(0, 0.05)  # as if it had been trained
qkv = layer.original  # `layer` is labkit's LoRALinear, with two pairs
print("timm's qkv:", tuple(qkv.weight.shape), "= 3 x 384 outputs by 384 inputs; rows of q, then k, then v")

# %% [markdown]
# LoRA on q and v: two pairs $A_q, B_q$ and $A_v, B_v$, and k stays frozen.
# To the fused matrix that is a single update of 1152 x 384. What does it look like?
#
# > **Predict.** Another way, which peft takes and you took in section 5, is one pair for the whole fused
# > matrix,
# > $A$ of 8 x 384 and $B$ of 1152 x 8.
# > Which way has more parameters? And what can each way do that the other cannot?
#
# ### Exercise 7: `fused` (2 points, about 6 minutes, medium)
#
# Return the update of the fused matrix for LoRA on q and v, at scale 1. No number such as 384 is needed:
# the shapes tell, and the check tries other sizes.


# %% labkit={"exercise": "fused", "role": "answer", "points": 2, "hides": ["labkit.methods.lora"]}
def fused(A_q, B_q, A_v, B_v):
    """The update (3 d, k) of timm's qkv, from A (r, k) and B (d, r) of q and of v."""
    ### BEGIN SOLUTION
    of_q, of_v = B_q @ A_q, B_v @ A_v
    return torch.cat([of_q, torch.zeros_like(of_q), of_v])
    ### END SOLUTION


# %% labkit={"exercise": "fused", "role": "check"}
lab.check("fused", fused)

# %%
fused = lab.working("fused", fused)

# %% [markdown]
# **The proof.** labkit's layer in the third block, with its own $A$ and $B$, on random tokens.
# Your functions get copies of the same matrices. (timm's layer also adds a bias, which stays as it is.)

# %%
tokens = torch.randn(2, 144, 384)
(A_q, A_v), (B_q, B_v) = (p.detach().clone() for p in (layer.A, layer.B))
W_qkv, bias = qkv.weight.detach(), qkv.bias.detach()
with torch.no_grad():
    theirs = layer(tokens)
update = fused(A_q, B_q, A_v, B_v)
torch.testing.assert_close(F.linear(tokens, W_qkv + update, bias), theirs, rtol=1e-4, atol=1e-4)
for name, rows, A, B in (("q", slice(0, 384), A_q, B_q), ("v", slice(768, 1152), A_v, B_v)):
    mine = lora(tokens, W_qkv[rows], A, B, alpha=8) + bias[rows]
    torch.testing.assert_close(mine, theirs[..., rows], rtol=1e-4, atol=1e-4)
    print(f"{name}: your lora is labkit's, up to {(mine - theirs[..., rows]).abs().max():.0e}")

# %%
figure = Figure(figsize=(8, 3), layout="constrained")
axis = figure.subplots()
for name, first, colour in (
    ("q", 0, pictures.BLUE),
    ("k", 384, pictures.GREEN),
    ("v", 768, pictures.VERMILLION),
):
    rows = torch.arange(first, first + 384)
    axis.plot(rows, update[rows].norm(dim=1), ".", markersize=3, color=pictures.unit(colour))
    axis.text(first + 192, 1.05, name, ha="center", transform=axis.get_xaxis_transform())
    axis.axvline(first, color="grey", linewidth=0.5)
axis.set(xlabel="row of timm's qkv matrix", ylabel="norm of the update's row", xlim=(0, 1152))
plots.show(
    figure,
    "Norm of each of the 1152 rows of the fused update: above zero for the 384 rows of q and of v, exactly "
    "zero for the 384 rows of k between them.",
)

# %%
print(
    f"two pairs, q and v:       {A_q.numel() + B_q.numel() + A_v.numel() + B_v.numel():,} parameters a block"
)
print(f"one pair for all of qkv:  {8 * 384 + 1152 * 8:,}")

# %% [markdown]
# > **Explain.** Which way has more parameters, and what can each do that the other cannot?
#
# <details><summary>Our explanation</summary>
#
# The same number. But one pair shares its $A$: q, k and v all read the same 8 numbers of a token, and k
# changes too. Two pairs let q and v read different things, and leave k alone.
# So "LoRA, r = 8, on attention" means different networks in different libraries.
# </details>

# %% [markdown]
# ## 15. Bonus: two knobs
#
# r and $\alpha$ are both chosen by hand.
# r is the **rank**, after the rank of a matrix: how many of its rows are independent, that is, no sum
# of multiples of the others. All rows of $BA$ are sums of multiples of the r rows of $A$. So the rank of $BA$
# is at most r.
#
# > **Predict.** The figure shows $\frac{\alpha}{r}BA$, 48 x 48, for random $A$ (r x 48) and $B$ (48 x r).
# > What will you see when r grows from left to right?
# > And when $\alpha$ is twice as large, in the lower row?

# %%
figure = Figure(figsize=(9, 5), layout="constrained")
axes = figure.subplots(2, 4)
numbers = torch.Generator().manual_seed(0)
A_all, B_all = (torch.randn(shape, generator=numbers) for shape in ((32, 48), (48, 32)))
for row, alpha in zip(axes, (8, 16), strict=True):
    for axis, r in zip(row, (1, 2, 8, 24), strict=True):
        update = alpha / r * B_all[:, :r] @ A_all[:r]
        drawn = axis.imshow(update, cmap="PuOr", vmin=-20, vmax=20, interpolation="nearest")
        rank, size = torch.linalg.matrix_rank(update), update.square().mean().sqrt()
        axis.set_title(f"r = {r}, $\\alpha$ = {alpha}\nrank {rank}, typical entry {size:.1f}", fontsize=10)
        axis.set(xticks=[], yticks=[])
figure.colorbar(drawn, ax=axes, label="entry of the update; cut at ±20", shrink=0.8, extend="both")
plots.show(
    figure,
    "Eight updates: along a row the pattern changes from crossing stripes at rank 1 to noise at rank 24 and "
    "gets paler; the lower row has the same patterns as the upper one, twice as strong.",
)

# %% [markdown]
# > **Explain.** Which knob changes the pattern, and which one only the strength of the colours?
# > Does dividing by r keep the strength the same for every r?
#
# <details><summary>Our explanation</summary>
#
# $r$ changes the pattern: at r = 1 every row is a multiple of one row, hence the stripes. $\alpha$ changes
# the strength alone.
#
# Dividing by r does not make the rank neutral. A sum of r random products grows as $\sqrt r$, so
# divided by r it falls as $1/\sqrt r$: the pictures get paler to the right.
# Whoever changes r therefore has to search the learning rate or $\alpha$ again.
# (Dividing by $\sqrt r$ is a later proposal, rsLoRA: Kalajdzievski, 2023, arXiv:2312.03732.)
# labkit's default is $\alpha = r$, a scale of 1.
# </details>

# %% [markdown]
# ## 16. Test yourself
#
# <details><summary>1. Why must the two matrices not both start at zero?</summary>
# Each one's gradient has the other as a factor. Both are zero then, and stay so for ever.
# </details>
#
# <details><summary>2. LoRA trains under 1 % of the numbers. Why does training not need under 1 % of the
# memory?</summary>
# Gradients travel back through all blocks, so the activations on their way have to be kept.
# For each tuned layer x and Ax are kept as well.
# What shrinks are Adam's two copies, and the gradients of the weights.
# </details>
#
# <details><summary>3. Why does LoRA cost nothing when the network is used, and an adapter does?</summary>
# BA is a matrix and can be added to W0. An adapter has an activation in its middle, and no single matrix
# computes what it does.
# </details>
#
# <details><summary>4. Is alpha a second learning rate?</summary>
# Nearly, under SGD. Under Adam the steps of A and B do not depend on the size of their gradients, so alpha
# scales what a step of theirs does to the layer, not the step.
# </details>
#
# <details><summary>5. A colleague merges in bfloat16, subtracts BA for the next task, and does so
# for fifty tasks. What do you say?</summary>
# W0 does not come back to the bit. Keep W0 and the small updates, and merge from W0 each time.
# </details>

# %% [markdown]
# ## 17. What changes on real data
#
# * r and $\alpha$ are searched together with the learning rate; a paper that compares ranks at one rate has
#   compared something else too.
# * Real backbones are larger, and LoRA's share falls: on a ViT-B/16, r = 8 on q and v is about 0.3 M of 86 M.
# * A clinic keeps one backbone and many updates: per organ, per scanner, per hospital. Each can be checked,
#   sent and withdrawn by itself. An update is useless without exactly the backbone it was trained on.
# * Scores on our synthetic patients say nothing about patients. Which of two methods is better on
#   your data only your data can tell.
#
# How many ranks does a segmentation need? In Lab 05 a slider answers.

# %%
lab.progress()
