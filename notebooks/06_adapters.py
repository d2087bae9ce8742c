# %% [markdown]
# # Lab 06: Adapters and the rest
#
# A LoRA changes a matrix and can be folded into it. What if the network lacks not another matrix but another
# *bend*? In this lab you will
#
# 1. **build** a bottleneck adapter, **put** it into a real network, and **explain** why it must start as
#    nothing;
# 2. **tell apart** the three places where papers put adapters, by what each reads;
# 3. **measure** what is saved by leaving adapters out of the lower blocks, and **say** where it is saved;
# 4. **shrink** adapters: by Kronecker products, to one direction, to the biases that are already there;
# 5. **prove** which of these can be merged into the network;
# 6. **combine** methods, and **judge** what a combination costs.
#
# | | |
# | --- | --- |
# | Time | about 50 minutes, of which a minute or two are trainings |
# | Computer | any laptop, no GPU |
# | You know | labs 00 and 02 (patients, freezing, counting); LoRA's two matrices; prompts, for section 10 |
#
# Read, **predict**, **run**, **explain**.

# %%
import copy
import time

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from torch import nn

from labkit.explore import plots
from labkit.explore.adapters import AdapterExplorer
from labkit.explore.pictures import BLUE, GREEN, ORANGE, PURPLE, VERMILLION, unit
from labkit.lessons import start
from labkit.methods import (
    Adapter,
    AdapterBias,
    AdapterDrop,
    AdaptFormer,
    BitFit,
    Compacter,
    FacTTT,
    Head,
    ParallelAdapter,
    VPTDeep,
)
from labkit.metrics import dice_by_region, mean_present
from labkit.networks.anatomy import blocks, features
from labkit.networks.backbones import load_backbone
from labkit.networks.segmenter import segmenter
from labkit.phantoms.brain import brain_patients
from labkit.scans.slices import to_volume
from labkit.training.cost import MIB, saved_for_backward
from labkit.training.evaluate import evaluate, predict
from labkit.training.fit import Recipe, dice_ce, fit
from labkit.tuning import count, delta, merge, numel, tune

lab = start("06")

# %% [markdown]
# ## 1. A small network inside the large one
#
# The network of lab 01 once more: four transformer blocks of width $d = 384$, distilled from photographs.
# This time the **head is a single linear map** from the last tokens to labels. Such a head can draw a
# tumour only if the tokens already tell where it is. What the backbone learns will show.


# %%
def fresh():
    """The pretrained network with a new linear head, the same at every call."""
    return segmenter("tiny", in_chans=4, classes=4, decoder="linear")


train = [to_volume(case) for case in brain_patients("train", 4)]
test = [to_volume(case) for case in brain_patients("test", 4)]

enhancing = [(volume.case.label == 4).sum((1, 2)) for volume in test]  # voxels of ET in each slice
chosen = int(np.argmax([sizes.max() for sizes in enhancing]))
patient, level = test[chosen], int(enhancing[chosen].argmax())
print(f"{patient.case.name}, slice {level}: the slice of the test patients with the largest enhancing tumour")

middle = [len(volume.image) // 2 for volume in train]
batch = torch.cat([v.image[m - 8 : m + 8 : 8] for v, m in zip(train, middle, strict=True)])  # (8, 4, 96, 96)
truth = torch.cat([v.target[m - 8 : m + 8 : 8] for v, m in zip(train, middle, strict=True)])

head = count(tune(fresh(), Head())).tuned
print(f"the head trains {head:,} numbers under every method; below we count what is added to that")

# %% [markdown]
# An **adapter** is a two-layer network of its own. It reads a token of $d$ numbers, makes it narrow
# ($m \ll d$ numbers, the *bottleneck*), bends it, makes it wide again, and adds the result to what it read
# (Houlsby et al., 2019, arXiv:1902.00751):
#
# $$\mathrm{adapter}(x) = x + W_2\,\mathrm{GELU}(W_1 x + b_1) + b_2, \qquad
#   W_1 \in \mathbb{R}^{m \times d},\ W_2 \in \mathbb{R}^{d \times m}$$
#
# Leave out GELU and the biases, and $x + W_2 W_1 x$ remains: a low-rank change, as in LoRA. So what does
# the bend buy? Take tokens of a single number, and draw what comes out against what goes in.

# %%
t = torch.linspace(-3, 3, 121)
straight = t - 0.4 * t
bent_once = t + 0.8 * F.gelu(-1.2 * t)
bent_twice = bent_once - 1.5 * F.gelu(2 * t - 2)

figure = Figure(figsize=(5.2, 3.4), layout="constrained")
axis = figure.subplots()
axis.plot(t, t, ":", color="black", label="nothing added")
axis.plot(t, straight, "--", color=unit(VERMILLION), label="two matrices, no bend")
axis.plot(t, bent_once, "-", color=unit(BLUE), label="adapter, m = 1")
axis.plot(t, bent_twice, "-.", color=unit(GREEN), label="adapter, m = 2")
axis.set(xlabel="a token, x", ylabel="what comes out", title="Without the bend: a line, whatever the numbers")
axis.title.set_fontsize(10)
axis.legend(frameon=False, fontsize=8)
plots.show(
    figure,
    "What comes out against what goes in. Two matrices without a bend turn the diagonal into another "
    "straight line; an adapter of one unit follows the diagonal on one side and leaves it on the other; "
    "one of two units bends in two places.",
)

# %% [markdown]
# A line treats all tokens alike. A bend can leave one kind of token alone and move another. That is what
# the activation is for, and it has a price, which we meet in section 6.
#
# ### Exercise 1: `adapter` (3 points, 6 minutes)
#
# Write the formula. The tokens are the **rows** of `x`, so `x` is (N, d); `W1` is (m, d) and `W2` is
# (d, m), as `nn.Linear` keeps them.


# %% labkit={"exercise": "adapter", "role": "answer", "points": 3}
def adapter(x, W1, b1, W2, b2):
    """What a bottleneck adapter makes of the tokens x (N, d): (N, d)."""
    ### BEGIN SOLUTION
    narrow = F.gelu(x @ W1.T + b1)
    return x + narrow @ W2.T + b2
    ### END SOLUTION


# %% labkit={"exercise": "adapter", "role": "check"}
lab.check("adapter", adapter)

# %% [markdown]
# Stuck? `lab.hint("adapter")` gives a nudge; again, and it says more.

# %%
adapter = lab.working("adapter", adapter)

# %% [markdown]
# ## 2. Into the real network, by hand
#
# In a transformer block two layers write to the stream of tokens: the attention and the MLP. Houlsby et
# al. put an adapter behind each, before what the layer gives out is added to the stream. Here is your
# function as a layer around a frozen one, and the loop that puts it into every block.


# %%
class MyAdapter(nn.Module):
    """A frozen layer, then your adapter."""

    def __init__(self, layer, d, m):
        super().__init__()
        self.layer = layer
        self.W1, self.b1 = nn.Parameter(torch.randn(m, d) / d**0.5), nn.Parameter(torch.zeros(m))
        self.W2, self.b2 = nn.Parameter(torch.zeros(d, m)), nn.Parameter(torch.zeros(d))

    def forward(self, x, **masks):
        return adapter(self.layer(x, **masks), self.W1, self.b1, self.W2, self.b2)


def learns(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


mine = fresh().backbone.requires_grad_(False)
print(f"frozen:            {learns(mine):8,} numbers learn")
for block in mine.blocks:
    block.attn = MyAdapter(block.attn, d=384, m=48)
    block.mlp = MyAdapter(block.mlp, d=384, m=48)
print(f"with your adapters: {learns(mine):7,} numbers learn = 4 blocks x 2 x (2 x 384 x 48 + 384 + 48)")

# %% [markdown]
# And labkit's, which is one line: `tune(model, Adapter(m=48))`. To compare the two, the weights must be
# equal and must not be zero: two networks that both add nothing would agree, whatever was wrong in them.

# %%
theirs = tune(fresh(), Adapter(m=48)).backbone
torch.manual_seed(1)
with torch.no_grad():
    for my_block, block in zip(mine.blocks, blocks(theirs), strict=True):
        for my, their in ((my_block.attn, block.attn), (my_block.mlp, block.mlp)):
            for to, source in (
                (their.adapter.down.weight, my.W1),
                (their.adapter.down.bias, my.b1),
                (their.adapter.up.weight, my.W2),
                (their.adapter.up.bias, my.b2),
            ):
                source.normal_(std=0.05)
                to.copy_(source)
    mine.eval(), theirs.eval()
    torch.testing.assert_close(mine(batch[:2]), theirs(batch[:2]), rtol=1e-4, atol=1e-4)
print("your network and labkit's give the same features")

# %% [markdown]
# ## 3. Why it starts as nothing
#
# The lecture's formulas say what an adapter *is*. They do not say with which numbers it starts, and that
# decides whether there is still a pretrained network to adapt.
#
# > **Predict.** Eight adapters are put in, and nothing is trained yet. By how much do the last features of
# > the slice change, relative to their length, if
# >
# > 1. $W_2$ and $b_2$ start at zero;
# > 2. all matrices are normal random numbers of deviation 0.001;
# > 3. both layers start as PyTorch starts any `nn.Linear`;
# > 4. as 1, but someone forgot the "$x\,+$"?
# >
# > Your prediction: ...

# %%
image = patient.image[level][None]  # (1, 4, 96, 96)


@torch.no_grad()
def last_features(backbone):
    return features(backbone.eval(), image)[-1]


def bottlenecks(model):
    return [getattr(block, place).adapter for block in blocks(model.backbone) for place in ("attn", "mlp")]


def small(bottleneck):
    for layer in (bottleneck.down, bottleneck.up):
        nn.init.normal_(layer.weight, std=1e-3)
        nn.init.zeros_(layer.bias)


def as_pytorch(bottleneck):
    bottleneck.down.reset_parameters()
    bottleneck.up.reset_parameters()


class Forgotten(nn.Module):
    """A layer and what an adapter makes of it, without the skip connection."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def forward(self, x, **masks):
        return self.after.adapter(self.after.original(x, **masks))


pretrained = last_features(fresh().backbone)
starts = {"W2 and b2 zero": None, "all of deviation 0.001": small, "as PyTorch starts": as_pytorch}
changes = {}
torch.manual_seed(0)
for name, refill in starts.items():
    model = tune(fresh(), Adapter(m=48))
    for bottleneck in bottlenecks(model) if refill else ():
        refill(bottleneck)
    changes[name] = (last_features(model.backbone) - pretrained).norm() / pretrained.norm()
model = tune(fresh(), Adapter(m=48))
for block in blocks(model.backbone):
    block.attn, block.mlp = Forgotten(block.attn), Forgotten(block.mlp)
changes["skip forgotten"] = (last_features(model.backbone) - pretrained).norm() / pretrained.norm()
for name, change in changes.items():
    print(f"{name:24} {change:10.4%}")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# 1. Exactly nothing: $W_2 = 0$ and $b_2 = 0$ add zero, and $y + 0$ is $y$ to the bit.
# 2. Next to nothing: two tiny matrices in a row make a product that is tinier still. The paper starts like
#    this (with 0.01, cut off at two deviations).
# 3. The pretrained network is gone. Eight random networks write to the stream, together at least as loudly
#    as what is there. All that remains is an unusual random start.
# 4. Gone as well: with a zero adapter and no skip, attention and MLP add nothing any more.
# </details>
#
# > **Predict.** In the first step $W_2$ is all zeros, $W_1$ is not. Which of the two gets a gradient?
# > Which of the two would get one if **both** started at zero?
# >
# > Your prediction: ...

# %%
model = tune(fresh(), Adapter(m=48))
optimizer = torch.optim.AdamW(delta(model).values(), lr=1e-3, weight_decay=0)
for step in range(2):
    optimizer.zero_grad()
    dice_ce(model(batch[::2]), truth[::2]).backward()
    down, up = (
        max(p.grad.abs().max() for name, p in delta(model).items() if name.endswith(end))
        for end in ("adapter.down.weight", "adapter.up.weight")
    )
    print(f"step {step + 1}: largest gradient of W1 {down:.1e}, of W2 {up:.1e}")
    optimizer.step()

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# A gradient reaches $W_1$ only through $W_2$, so at first it is exactly 0, and $W_2$ alone learns. After
# one step $W_2$ is no longer zero, and $W_1$ learns too: the same as with LoRA's $B$ and $A$. With both at
# zero, neither would ever learn: $W_1$ gets nothing because $W_2 = 0$, and $W_2$ nothing because what
# reaches it is GELU of 0, which is 0. Only $b_2$ could move.
# </details>

# %% [markdown]
# ## 4. Where to put it: what does it read?
#
# The lecture's table has several adapters in it, and most have the same small network inside. They differ
# in the place. Let $F$ be a frozen layer that writes to the stream $x$, and $a$ what the adapter **adds**
# (from here on without its own skip):
#
# | place | what the stream becomes | the adapter reads |
# | --- | --- | --- |
# | sequential (Houlsby et al., 2019) | $x + F(x) + a(F(x))$ | what the layer gives out |
# | parallel (He et al., 2022; AdaptFormer) | $x + F(x) + s\,a(x)$ | what the layer takes in |
# | after the block | $(x + F(x)) + a(x + F(x))$ | the new stream |


# %%
def arrow(panel, to, away):
    panel.annotate("", to, away, arrowprops={"arrowstyle": "->", "color": "black"})


def box(panel, at, text, colour):
    style = {"boxstyle": "round,pad=0.45", "facecolor": colour, "edgecolor": "black"}
    panel.text(*at, text, bbox=style, ha="center", va="center", fontsize=10)


def join(panel, y):
    panel.text(
        0, y, "+", bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white"}, ha="center", va="center"
    )


frozen, new = "#DDDDDD", (*unit(ORANGE), 0.8)
figure = Figure(figsize=(9, 3.6), layout="constrained")
for panel, where in zip(figure.subplots(1, 3), ("sequential", "parallel", "after the block"), strict=True):
    panel.set(xlim=(-0.6, 3), ylim=(-0.3, 4.6), title=where)
    panel.set_axis_off()
    arrow(panel, (0, 4.5), (0, 0))
    panel.text(-0.2, 0, "x", ha="right")
    box(panel, (1.1, 0.9), "F", frozen)
    arrow(panel, (0.85, 0.75), (0, 0.3))
    if where == "sequential":
        box(panel, (1.1, 2.4), "a", new)
        arrow(panel, (1.1, 2.05), (1.1, 1.2))
        arrow(panel, (0.15, 3.5), (0.95, 2.75))
        arrow(panel, (0.15, 2.9), (0.9, 1.25))
        join(panel, 2.9)
        join(panel, 3.5)
    elif where == "parallel":
        box(panel, (2.3, 0.9), "s · a", new)
        arrow(panel, (1.85, 0.75), (0, 0.1))
        arrow(panel, (0.15, 2.6), (0.95, 1.25))
        arrow(panel, (0.15, 3.3), (2.15, 1.25))
        join(panel, 2.6)
        join(panel, 3.3)
    else:
        box(panel, (1.1, 2.9), "a", new)
        arrow(panel, (0.15, 1.8), (0.95, 1.2))
        arrow(panel, (0.85, 2.75), (0, 2.2))
        arrow(panel, (0.15, 3.9), (0.95, 3.25))
        join(panel, 1.8)
        join(panel, 3.9)
plots.show(
    figure,
    "Three drawings of a stream x with a frozen layer F and an adapter a. Sequential: the adapter reads what "
    "F gives out, and both are added to the stream. Parallel: it reads x, beside F. After the block: it "
    "reads the stream to which F has been added already.",
)

# %% [markdown]
# The place has consequences. A parallel adapter can be computed at the same time as its layer; the
# sequential one has to wait. An adapter after the block can be put *between* two blocks, without opening
# either.
#
# > **Predict**, on paper. One number: $x = 1$, $F(x) = 3x$, $a(z) = z^2$, $s = 0.5$. What are the three
# > results?
# >
# > Your prediction: ...
#
# ### Exercise 2: `wire` (4 points, 8 minutes)
#
# `layer` and `added` are functions of a tensor; `where` is "sequential", "parallel" or "after". The scale
# `s` belongs to the parallel one alone. The check starts with the three results that you have just
# predicted.


# %% labkit={"exercise": "wire", "role": "answer", "points": 4}
def wire(x, layer, added, where, s):
    """The stream x (N, d) after a frozen layer and what an adapter adds to it: (N, d)."""
    ### BEGIN SOLUTION
    out = layer(x)
    reads = {"sequential": out, "parallel": x, "after": x + out}[where]
    scale = s if where == "parallel" else 1
    return x + out + scale * added(reads)
    ### END SOLUTION


# %% labkit={"exercise": "wire", "role": "check"}
lab.check("wire", wire)

# %%
wire = lab.working("wire", wire)

# %% [markdown]
# The proof on the first block's MLP. A vision transformer normalises first: here $F(x)$ is the MLP of
# $\mathrm{LN}(x)$. A parallel adapter of labkit reads $\mathrm{LN}(x)$ too, as the MLP does.

# %%
tokens = 3 * torch.randn(2, 144, 384)
torch.manual_seed(2)
for method, where in (
    (Adapter(m=48), "sequential"),
    (ParallelAdapter(m=48), "parallel"),
    (AdaptFormer(), "parallel"),
):
    block = blocks(tune(fresh(), method).backbone.eval())[0]
    inner = block.mlp.adapter
    nn.init.normal_(inner.up.weight, std=0.05)  # at zero, every place would look alike
    s, reads = (inner.scale, block.norm2) if where == "parallel" else (1.0, nn.Identity())
    with torch.no_grad():
        expected = tokens + block.mlp(block.norm2(tokens))
        found = wire(
            tokens,
            lambda x, block=block: block.mlp.original(block.norm2(x)),
            lambda z, inner=inner, s=s, reads=reads: inner(reads(z)) / s,
            where,
            s,
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    print(f"{type(method).__name__:16} is your {where} wiring, s = {s}")

# %% [markdown]
# So **AdaptFormer** (Chen et al., 2022, arXiv:2205.13535), the adapter made for vision, is a parallel
# adapter beside the MLP with a small fixed scale, ReLU, and dropout. He et al. (2022, arXiv:2110.04366)
# use the same place with a large scale. Both leave the attention alone.

# %% [markdown]
# ## 5. Train one
#
# Adapters of $m = 48$ behind attention and MLP, four patients, about half a minute on two idle cores.

# %%
models = {}


def trained(name, method):
    """Tune a fresh network, train it on the four patients, and say how long a step took."""
    models[name] = tune(fresh(), method)
    begin = time.perf_counter()
    history = fit(models[name], train, Recipe(steps=120, lr=2e-3, batch_size=8))
    seconds = (time.perf_counter() - begin) / len(history)
    print(f"{name}: {count(models[name]).inserted:,} numbers added, {seconds:.2f} s a step")


trained("adapters everywhere", Adapter(m=48))

# %%
outcome = {"adapters everywhere": predict(models["adapters everywhere"], patient)}
plots.show(
    plots.comparison(patient.case, outcome, level),
    "The chosen slice of a test patient: FLAIR, the true labels, and what the network with adapters found "
    "after its training.",
)

# %% [markdown]
# ## 6. The lower blocks: are their adapters worth it?
#
# A gradient starts at the loss, at the top. It travels down through the blocks to the lowest parameter that
# learns, and no further. **AdapterDrop** (Rücklé et al., 2021, arXiv:2010.11918) leaves the adapters out of
# the first $n$ blocks.
#
# > **Predict.** Of our four blocks the lower two lose their adapters. What happens to (a) the numbers that
# > learn, (b) the activations that the forward pass keeps for the backward pass, (c) the time of a training
# > step, (d) the time of a prediction?
# >
# > Your prediction: ...

# %%
kept = {}
print(f"{'blocks without adapters':24} {'added':>9} {'kept for backward':>18}")
for n in range(4):
    model = tune(fresh(), AdapterDrop(n=n, m=48))
    kept[f"first {n}" if n else "none"] = mib = saved_for_backward(model, batch) / MIB
    print(f"{n:24} {count(model).inserted:9,} {mib:14.0f} MiB")
head_only = saved_for_backward(tune(fresh(), Head()), batch) / MIB
print(f"{'(the head alone)':24} {0:9} {head_only:14.0f} MiB")

# %%
figure = Figure(figsize=(6, 2.8), layout="constrained")
axis = figure.subplots()
axis.barh(list(kept), list(kept.values()), color=unit(BLUE), height=0.6)
axis.axvline(head_only, color=unit(VERMILLION), linestyle="--")
axis.text(head_only + 1, 3.65, "the head alone", color=unit(VERMILLION), fontsize=8, va="center")
axis.set(
    xlabel="activations kept for the backward pass, 8 slices (MiB)",
    ylabel="blocks without adapters",
    ylim=(3.9, -0.5),
)
plots.show(
    figure,
    "Activations kept for the backward pass: they fall by about the same amount with each lower block "
    "that has no adapters, towards those of the head alone.",
)

# %% [markdown]
# Now train the one without adapters in the lower two blocks, on the same batches.

# %%
trained("upper two blocks only", AdapterDrop(n=2, m=48))

# %%
dice = {name: evaluate(model, test, hausdorff=False, progress=True) for name, model in models.items()}

# %%
regions = ("ET", "WT", "TC")
figure = Figure(figsize=(7.6, 3.2), layout="constrained")
panels = figure.subplots(1, 3, sharey=True)
for panel, region in zip(panels, regions, strict=True):
    scores = [[row["dice"] for row in rows if row["region"] == region] for rows in dice.values()]
    panel.plot([0, 1], scores, color="grey", linewidth=0.8)
    for column, (values, colour, mark) in enumerate(zip(scores, (BLUE, ORANGE), "os", strict=True)):
        panel.plot([column] * len(values), values, mark, color=unit(colour))
    panel.set(title=region, xlim=(-0.5, 1.5), ylim=(-0.03, 1.03), xticks=[0, 1])
    panel.set_xticklabels([name.replace(" ", "\n", 1) for name in dice], fontsize=8)
panels[0].set_ylabel("Dice of a test patient")
plots.show(
    figure,
    "Dice of every test patient in ET, WT and TC, with adapters in all blocks and in the upper two only. "
    "A line joins the two results of one patient.",
)

# %% [markdown]
# > **Explain.** Look at the lines, not at the means: do all patients agree which is better? And compare the
# > seconds a step of the two trainings with the bars.
#
# <details><summary>Our explanation</summary>
#
# (a) Half of them. (b) Half again, and a little more: no gradient passes the lower two blocks, so they keep
# nothing for it. (c) Shorter, but not by half: every slice still runs *forward* through all four blocks.
# (d) A little shorter, by four small networks; that was not where the time went.
#
# As for Dice: four patients and one seed. If the lines cross, nothing has been decided. What *is* certain
# is the cost, and a second gain: the lower blocks are untouched, so ten tasks can share what they compute.
# </details>
#
# ### Why keep it beside, for ever?
#
# A LoRA can be merged into its matrix and then costs nothing. An adapter?

# %%
try:
    merge(tune(fresh(), Adapter(m=48)))
except ValueError as error:
    print(error)

# %% [markdown]
# This is the price of the bend: no single matrix does what a bend does. So an adapter stays a layer of its
# own, to be passed at every prediction. What speaks for it is something else. A task is one small file,
# and tasks can be exchanged without touching the network.

# %% [markdown]
# ## 7. Smaller: the same block again and again
#
# Nearly all numbers of an adapter are in $W_1$ and $W_2$. **Compacter** (Karimi Mahabadi et al., 2021,
# arXiv:2106.04647) builds each from much less, by **Kronecker products**. In $A \otimes B$ every number of
# $A$ is replaced by a copy of $B$, multiplied by it:
#
# $$\begin{pmatrix} 1 & 0 \\ 0 & 2 \end{pmatrix} \otimes \begin{pmatrix} 1 & 3 \end{pmatrix} =
#   \begin{pmatrix} 1 & 3 & 0 & 0 \\ 0 & 0 & 2 & 6 \end{pmatrix}$$
#
# One product is a wallpaper: one block, repeated at different strengths. A sum of $n$ of them is richer:
#
# $$W = \sum_{i=1}^{n} A_i \otimes B_i, \qquad A_i \in \mathbb{R}^{n \times n}, \quad
#   B_i = s_i\,t_i^\top \text{ of rank } 1$$
#
# ### Exercise 3: `kron_sum` (3 points, 6 minutes)
#
# `As` and `Bs` are lists of matrices, equally many. `torch.kron(A, B)` does a single product.


# %% labkit={"exercise": "kron_sum", "role": "answer", "points": 3}
def kron_sum(As, Bs):
    """The sum of the Kronecker products of the matrices in As (n, n) with those in Bs (p, q): (n p, n q)."""
    ### BEGIN SOLUTION
    total = torch.kron(As[0], Bs[0])
    for A, B in list(zip(As, Bs, strict=True))[1:]:
        total = total + torch.kron(A, B)
    return total
    ### END SOLUTION


# %% labkit={"exercise": "kron_sum", "role": "check"}
lab.check("kron_sum", kron_sum)

# %%
kron_sum = lab.working("kron_sum", kron_sum)

# %% [markdown]
# > **Predict.** Compacter's $W_1$ on our network is 12 x 384, from $n = 4$ terms. Each $B_i$ has rank 1. What
# > rank can $W_1$ have? And how many numbers does it take, for the 4,608 of the matrix?
# >
# > Your prediction: ...

# %%
model = tune(fresh(), Compacter())
layer = blocks(model.backbone)[0].mlp.adapter.down
A, s, t = layer.rules.A.detach(), layer.s.detach(), layer.t.detach()  # (4, 4, 4), (4, 3), (4, 96)
B = s[:, :, None] * t[:, None, :]  # (4, 3, 96): s_i t_i'
W1 = kron_sum(list(A), list(B))
torch.testing.assert_close(W1, layer.weight().detach())
print(
    f"W1 is {tuple(W1.shape)}, {W1.numel():,} numbers, rank {torch.linalg.matrix_rank(W1)}; as labkit has it"
)
print(f"made of {s.numel()} + {t.numel()} numbers, and of {A.numel()} in the rules A that all adapters share")
print(f"all of Compacter: {count(model).inserted:,} numbers; an ordinary adapter of m = 12: ", end="")
print(f"{count(tune(fresh(), Adapter(m=12))).inserted:,}")

# %%
figure = Figure(figsize=(9.5, 3.6), layout="constrained")
grid = figure.subplots(2, 1, height_ratios=(1, 1))
limit = float(W1.abs().max())
look = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "aspect": "auto", "interpolation": "nearest"}
for panel, matrix, title in (
    (grid[0], torch.kron(A[0], B[0]), "one term: the same block 16 times, at 16 strengths (rank 4 at most)"),
    (grid[1], W1, "the sum of four terms: W1 (12 x 384)"),
):
    picture = panel.imshow(matrix, **look)
    panel.set_title(title, fontsize=10)
    panel.set(xticks=[0, 96, 192, 288], yticks=[0, 3, 6, 9], ylabel="row")
grid[1].set_xlabel("column")
figure.colorbar(picture, ax=grid, label="weight")
plots.show(
    figure,
    "Two matrices of 12 by 384. Above, a single Kronecker product: 16 copies of one block of 3 by 96, each "
    "at its own strength. Below, the sum of four such products, in which no block is a copy of another.",
)

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# Full rank, 12. The rank of $A \otimes B$ is the product of their ranks, so a term has rank up to 4 times
# 1, and four terms up to 16, which is more than 12 rows can have. A few hundred numbers make a matrix of
# full rank, but not *any* matrix: a low rank is one way of having little freedom, Kronecker's is another.
#
# What is saved? Numbers, in the file and in Adam. Not time: $W$ is built and then used as any other
# matrix. And hardly any activations, for most of those belong to the frozen blocks that the gradient
# passes.
# </details>

# %% [markdown]
# ## 8. Smaller still: one direction
#
# **AdapterBias** (Fu et al., 2022, arXiv:2205.00305) asks for less yet. Each block gets one vector $v$. Every
# token is moved along $v$, and says itself how far:
#
# $$y \leftarrow y + \alpha\,v, \qquad \alpha = h^\top w$$
#
# with $y$ what the MLP gives out, and $h$ the values in its middle, as in the authors' code. (The
# lecture's table asks the layer's input $X$ instead, and has lost the residual: a plain $X +$ belongs in
# front.) BitFit, in the next section, moves all tokens alike.
#
# ### Exercise 4: `token_bias` (2 points, 4 minutes)


# %% labkit={"exercise": "token_bias", "role": "answer", "points": 2}
def token_bias(y, h, w, v):
    """y (N, d) with each token moved along v (d), as far as its own h (N, d_ff) says by w (d_ff): (N, d)."""
    ### BEGIN SOLUTION
    alpha = h @ w
    return y + alpha[:, None] * v
    ### END SOLUTION


# %% labkit={"exercise": "token_bias", "role": "check"}
lab.check("token_bias", token_bias)

# %%
token_bias = lab.working("token_bias", token_bias)

# %%
biased = tune(fresh(), AdapterBias())
with torch.no_grad():
    for block in blocks(biased.backbone):
        block.mlp.fc2.v.normal_(std=0.1)  # it starts at zero, where nothing could be seen
    shifted = blocks(biased.backbone)[0].mlp.fc2
    h = torch.randn(144, 960)  # the middle of the MLP, for 144 tokens
    before, after = shifted.original(h), shifted(h)
torch.testing.assert_close(token_bias(before, h, shifted.a.detach(), shifted.v.detach()), after)
print("your token_bias is labkit's AdapterBias")
print("largest singular values of the change, over all tokens:", end=" ")
print(", ".join(f"{value:.4f}" for value in torch.linalg.svdvals(after - before)[:4]))

# %% [markdown]
# The change over all tokens has rank one: a single direction, as promised.
#
# > **Predict.** AdapterBias is counted among the adapters. Can it be merged?
# >
# > Your prediction: ...

# %%
with torch.no_grad():
    logits = biased.eval()(image)
    merged = merge(copy.deepcopy(biased))
    apart = (merged(image) - logits).abs().max() / logits.abs().max()
pretrained_size = numel(fresh().parameters())
print(f"{numel(biased.parameters()) - pretrained_size:,} numbers beside the network before,", end=" ")
print(f"{numel(merged.parameters()) - pretrained_size} after; largest difference of the logits {apart:.0e}")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# It can. Nothing in it bends: $y = W h + b$, and $\alpha v = v\,(w^\top h)$, so
#
# $$y + \alpha v = (W + v w^\top)\,h + b .$$
#
# That is a change of **rank 1** of the MLP's second matrix. (labkit's $\alpha$ has a constant $a_0$ too,
# which changes $b$ by $a_0 v$.) By its name it is an adapter; by what it computes it is a LoRA of rank 1
# on `fc2`, with a bias. Ask a method what it computes.
# </details>

# %% [markdown]
# ## 9. Nothing new at all: biases
#
# **BitFit** (Ben Zaken et al., 2021, arXiv:2106.10199) adds nothing. It trains the biases that the network
# has. To find them one reads names, as `blocks.0.attn.qkv.bias`. A small task with a small trap:
#
# ### Exercise 5: `biases` (1 point, 3 minutes)
#
# From a list of parameter names, return those of biases, in their order. The check asks for a Swin
# transformer's.


# %% labkit={"exercise": "biases", "role": "answer", "points": 1}
def biases(names):
    """Those names that are a bias."""
    ### BEGIN SOLUTION
    return [name for name in names if name.rpartition(".")[2] == "bias"]
    ### END SOLUTION


# %% labkit={"exercise": "biases", "role": "check"}
lab.check("biases", biases)

# %%
biases = lab.working("biases", biases)
with torch.device("meta"):  # shapes without numbers: nothing is downloaded
    swin = dict(load_backbone("swin_t", weights=None).named_parameters())
found = biases(list(swin))
loosely = [name for name in swin if "bias" in name]
print(f"Swin-T: {numel(swin[n] for n in found):,} numbers in biases;", end=" ")
print(f"{numel(swin[n] for n in loosely):,} where 'bias' is somewhere in the name")

tuned = tune(fresh(), BitFit())
own = {
    n: p for n, p in delta(tuned).items() if n.startswith("backbone") and not n.startswith("backbone.norm")
}
assert sorted(own) == sorted(biases(own))
print(f"our network: {numel(own.values()):,} = 4 x (7 x 384 + 960) + 384, and {head:,} of the head")
print(f"that is {numel(own.values()) / numel(fresh().backbone.parameters()):.2%} of the backbone")

# %% [markdown]
# The lecture writes $L \times (7 d_h + d_m)$. It fits the four blocks if $d_m$ is the width of the MLP's
# middle, 960 here, and not a bottleneck, as in the table's other rows. The last 384 are the bias of the
# patch embedding.
#
# > **Predict.** One of the kinds of biases learns in vain: no value of it could change the result. Which?
# > Queries, keys, values, the output of the attention, the two layers of the MLP, the two norms?
# >
# > Your prediction: ...

# %%
dice_ce(tuned(batch[::2]), truth[::2]).backward()
kinds = {}
for block in blocks(tuned.backbone):
    thirds = dict(zip(("query", "key", "value"), block.attn.qkv.bias.grad.chunk(3), strict=True))
    rest = {"attention out": block.attn.proj, "MLP 1": block.mlp.fc1, "MLP 2": block.mlp.fc2}
    rest |= {"norm 1": block.norm1, "norm 2": block.norm2}
    for kind, grad in (thirds | {name: layer.bias.grad for name, layer in rest.items()}).items():
        kinds.setdefault(kind, []).append(float(grad.abs().max()))

figure = Figure(figsize=(6.4, 3), layout="constrained")
axis = figure.subplots()
for i, values in enumerate(kinds.values()):
    for value, mark in zip(values, "osD^", strict=True):
        axis.plot(value, i, mark, color=unit(PURPLE), markersize=5)
axis.set_yticks(range(len(kinds)), list(kinds))
axis.invert_yaxis()
axis.set(xscale="log", xlabel="largest gradient (a mark for each block)", title="BitFit, first step")
axis.grid(alpha=0.3)
plots.show(
    figure,
    "The largest gradient of each kind of bias, per block, on a logarithmic axis. Those of the keys are "
    "several orders of magnitude smaller than all others.",
)

# %%
with torch.no_grad():
    for kind, third in {"query": 0, "key": 1, "value": 2}.items():
        moved = fresh().backbone
        for block in moved.blocks:
            block.attn.qkv.bias[384 * third : 384 * (third + 1)] += 1
        change = (last_features(moved) - pretrained).norm() / pretrained.norm()
        print(f"1 added to every {kind} bias: the last features change by {change:.1e} of their length")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# The key's. A query $q$ compares itself with each key: $q^\top(k_j + b) = q^\top k_j + q^\top b$. The
# second term is the same for all $j$, and the softmax ignores what all its inputs share. What is left of
# its gradient in the figure is rounding. BitFit trains it none the less; it is a part of every file that
# is stored for nothing.
# </details>

# %% [markdown]
# ## 10. FacT: read, not built
#
# The lecture mentions one more: **FacT** (Jie and Deng, 2023, arXiv:2212.03145). LoRA gives every matrix
# two factors of its own; Compacter shares its rules among all layers. FacT shares nearly everything. All
# updates of a network, cut into $d \times d$ slices, are stacked to one tensor and factored together:
#
# $$\Delta W_i = s\,U\,\Sigma_i\,V^\top, \qquad U, V \in \mathbb{R}^{d \times r} \text{ shared by all},
#   \quad \Sigma_i \in \mathbb{R}^{r \times r}$$
#
# Each further matrix costs $r^2$ numbers instead of LoRA's $2dr$.
#
# > **Predict.** $d = 384$, $r = 16$, and the four matrices q, k, v, o in each of four blocks. How many
# > numbers has FacT, and how many has LoRA of the same rank?
# >
# > Your prediction: ...

# %%
d, r, slices = 384, 16, 4 * 4
counted = count(tune(fresh(), FacTTT(r=r))).inserted
print(f"FacT: 2dr + 16 r^2 = {2 * d * r + slices * r**2:,}, counted {counted:,}")
print(f"LoRA: 16 x 2dr     = {slices * 2 * d * r:,}")

# %% [markdown]
# Why not the MLP too? Its matrices are 384 x 960, and 960 is two and a half times 384: they cannot be cut
# into square slices. In a ViT-B it is four times, and FacT takes all twelve slices of a block. Read the
# code: `labkit.methods.fact`.

# %% [markdown]
# ## 11. What the table counts
#
# The lecture's summary gives a formula for each. Let us put them beside what is really added.

# %%
L, d, m = 4, 384, 48
rows = {
    "sequential, m = 48": (L * 2 * 2 * d * m, Adapter(m=m)),
    "AdapterDrop, n = 2": ((L - 2) * 2 * 2 * d * m, AdapterDrop(n=2, m=m)),
    "parallel, m = 48": (L * 2 * 2 * d * m, ParallelAdapter(m=m)),
    "Compacter, m = 12": (L * 2 * 2 * (d + 12), Compacter()),
    "AdapterBias": (L * 2 * d, AdapterBias()),
}
print(f"{'':20} {'lecture':>9} {'counted':>9}   merges?")
for name, (formula, method) in rows.items():
    model = tune(fresh(), method)
    inserted = count(model).inserted
    try:
        merge(model)
        merges = "yes"
    except ValueError:
        merges = "no"
    print(f"{name:20} {formula:9,} {inserted:9,}   {merges}")

# %% [markdown]
# > **Explain** each difference. Which rows are off by a factor and not by a little?
#
# <details><summary>Our explanation</summary>
#
# *Sequential, AdapterDrop:* the biases, $d + m$ an adapter. *Parallel:* about half, because the form that the
# paper found best, and labkit has, stands beside the MLP only. *Compacter:* biases again, $d + m$ beside
# only $2(d + m)$ for the two matrices, and the 64 numbers of the shared rules. *AdapterBias:* $w$ weighs
# the 960 values in the middle of the MLP, not 384; and the lecture counts two numbers for each of $d$
# where there are $d + 960 + 1$.
# </details>

# %% [markdown]
# ## 12. All together: a tuple of methods is a method
#
# The methods touch different things: biases, layers, tokens. So they can be combined, and the lecture
# shows a figure of all eight combinations of three, on a task of sentiment in sentences. Here it is one
# line:
#
# `tune(model, (BitFit(), Adapter(m=48), VPTDeep(10)))`
#
# In whatever order the tuple is written, labkit puts them in from the inside outwards, so the result is
# the same.
#
# > **Predict.** Take the numbers that each of the three adds, and the activations that it keeps. Which of
# > the two can you add up for the combination?
# >
# > Your prediction: ...

# %%
parts = {"BitFit": BitFit(), "adapter": Adapter(m=48), "prompts": VPTDeep(10)}
cells = {}
print(f"{'BitFit':>7} {'adapter':>8} {'prompts':>8} {'learn in the backbone':>22} {'kept for backward':>18}")
for number in range(8):
    chosen_parts = [name for i, name in enumerate(parts) if number >> i & 1]
    model = tune(fresh(), tuple(parts[name] for name in chosen_parts) or Head())
    learn = count(model).tuned - head
    cells[" + ".join(chosen_parts) or "head alone"] = mib = saved_for_backward(model, batch) / MIB
    ticks = ["yes" if name in chosen_parts else "-" for name in parts]
    print(f"{ticks[0]:>7} {ticks[1]:>8} {ticks[2]:>8} {learn:22,} {mib:14.0f} MiB")

both_ways = [tune(fresh(), order) for order in ((BitFit(), VPTDeep(10)), (VPTDeep(10), BitFit()))]
assert list(delta(both_ways[0])) == list(delta(both_ways[1]))

# %%
base = cells["head alone"]
figure = Figure(figsize=(8, 3.4), layout="constrained")
axis = figure.subplots()
ordered = sorted(cells, key=cells.get)
axis.barh(ordered, [cells[name] for name in ordered], color=unit(BLUE), height=0.6, label="measured")
added_up = [base + sum(cells[part] - base for part in name.split(" + ") if part in parts) for name in ordered]
axis.plot(added_up, range(8), "D", color=unit(VERMILLION), label="if what each keeps were added up")
axis.set(xlabel="activations kept for the backward pass, 8 slices (MiB)")
axis.legend(frameon=False, loc="lower right")
plots.show(
    figure,
    "Activations kept for the backward pass in the eight cells. Each method alone keeps many times what the "
    "head alone does; combinations keep far less than the sum of what their members keep.",
)

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# The *numbers* add up exactly: each method brings its own and takes none from the others. The
# *activations* do not. Most of what a method keeps belongs to the frozen network: GELU, norms and
# attention must remember what went in, as soon as any gradient passes. The first method pays for the way
# down to block 0, whichever it is. The next one finds the way open, and pays for its own part only.
# </details>
#
# **What the lecture's figure does and does not tell.** It compares eight cells on one task of sentences
# (SST-2). Ours would be another table. To rank eight cells one needs eight trainings, each with a rate
# chosen for it, several seeds, and more patients than four; and then the upper cells may still differ by
# no more than two seeds of one cell do. We show what a combination *costs*, which is certain, and claim no
# order.

# %% [markdown]
# ## 13. Switch them on and off
#
# Here are four networks with adapters that were trained for you, on 20 digital patients with a tumour of the
# kidney, by the commands `labkit deltas adapter-attn-mlp-48`, `adapter-attn-mlp-4`, `adapter-attn-48` and
# `adapter-mlp-48`. Choose one, and switch the adapters of single blocks off: the rest of the network, and its
# head, stay as they were trained. The map shows how much the adapters of a block add to each token, against
# what is there.
#
# > **One question.** Switch off the adapters of each block alone, then of all four. Is the harm of all
# > four the sum of the single harms? Predict it first, and name the block whose adapters you think can
# > best be spared. Then look at two patients.
# >
# > Your prediction: ...

# %%
switched = AdapterExplorer()
display(switched)

# %% [markdown]
# The same in numbers: the first patient, every fourth of the slices that show a kidney.

# %%
case = switched.cases[0]
seen = [i for i in range(len(case.label)) if case.label[i].any()][::4]
score = {}
for name, choice in switched.shown().items():
    found = np.stack([switched.segment(choice, 0, i) for i in seen])
    score[name] = mean_present(list(dice_by_region(found, case.label[seen], case.label_names).values()))
    print(f"{name:12} mean Dice of kidney and tumour {score[name]:.3f}")
harm = {name: score["all on"] - value for name, value in score.items() if name != "all on"}
single = {name: value for name, value in harm.items() if name != "all off"}
together = sum(single.values())
best = min(single, key=single.get)
Markdown(
    "<details><summary>What we found</summary>\n\n"
    f"With all adapters {score['all on']:.3f}. The single harms are "
    f"{', '.join(f'{value:+.3f} ({name})' for name, value in single.items())}, {together:+.3f} in sum; "
    f"without all four {harm['all off']:+.3f}. "
    + (
        "The whole is more than the sum: the four are not independent corrections. What one block's adapters "
        "do not do, the others partly do, until none is left. "
        if harm["all off"] > together + 0.02
        else "The whole is less than the sum: what one block's adapters spoil when they are missing, the "
        "others could not have used anyway. "
        if harm["all off"] < together - 0.02
        else "The whole is about the sum, here; that need not be so. "
    )
    + f"Best spared is: *{best}*. One patient, a few slices: look at the others.\n\n"
    "And a warning. This network was trained *with* all its adapters. Where one is missing, the blocks above "
    "get what they never got in training, and the head stays the one that was trained with all. A block whose "
    "adapters cannot be spared here might have been spared from the beginning, as in section 6. To know that, "
    "one must train.\n</details>"
)

# %% [markdown]
# ## 14. Bonus
#
# * **Both bends.** Put your own adapter into the network with ReLU, and with no activation. Train each as
#   in section 5. How much does the bend buy here? How many seeds do you need to say so?
# * **The scale.** He et al. use $s = 4$, AdaptFormer $s = 0.1$. $W_2$ starts at zero and Adam moves every
#   number by about the rate, whatever the size of its gradient. What does $s$ then do to the first steps?
#   Show it by measuring the change of the features after one step.
# * **One cell more.** Train two cells of section 12 with three seeds (`Recipe(seed=...)`), and draw all
#   results as single points. Do they part?

# %% [markdown]
# ## 15. Test yourself
#
# <details><summary>1. Why can't a Houlsby adapter be merged, while AdapterBias can?</summary>
# Between its two matrices there is an activation, so no single matrix does the same. AdapterBias has
# none: its change is an outer product, added to the MLP's second matrix.
# </details>
#
# <details><summary>2. What does s = 0.1 do in AdaptFormer?</summary>
# It keeps what is added, and each step of it, small beside what the frozen MLP gives out.
# </details>
#
# <details><summary>3. Why does AdapterDrop save time in the backward pass and not half of all time?</summary>
# The gradient ends at the lowest adapter, so the blocks below have no backward pass. Forward, every slice
# still runs through all blocks.
# </details>
#
# <details><summary>4. BitFit trains a quarter of a per cent of the backbone and keeps nothing for its biases.
# Why does it keep nearly as much for the backward pass as an adapter?</summary>
# To reach the biases of the lowest block, the gradient passes all blocks, and GELU, norms and attention must
# have kept their inputs for it.
# </details>
#
# <details><summary>5. What does Compacter save, and what not?</summary>
# Parameters: in the file, in the gradients, in Adam's two moments. Not time and hardly any activations:
# its matrices are built in full and used like any other.
# </details>

# %% [markdown]
# ## 16. What changes on real data
#
# * **Many tasks.** The case for adapters is a hospital with one network and twenty tasks: brain, liver,
#   prostate. Each is a file of a megabyte or two, swapped in by loading; nothing about the others can be
#   forgotten.
# * **One patient at a time.** At prediction, small layers in a row cost more time than their arithmetic,
#   because each must be started and waited for. Measure it on your machine with a single slice, with and
#   without adapters.
# * **Depth.** Our network has 4 blocks. In a ViT-B with 12, AdapterDrop has more to drop, and the path of
#   the gradient is where the memory of a GPU goes.

# %%
lab.progress()
