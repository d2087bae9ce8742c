# %% [markdown]
# # Lab 06: Adapters and the rest
#
# A LoRA changes a matrix and can be folded into it. What if the network lacks not another matrix but another
# *bend*? In this lab you will
#
# 1. **build** a bottleneck adapter, **insert** it into a real network yourself, and **explain** why it must
#    start as nothing;
# 2. **tell apart** the three places where papers put adapters, by what each reads;
# 3. **measure** what is saved by leaving adapters out of the lower blocks, and **say** where it is saved;
# 4. **judge**, intervals first, whether adapters pay, and **plan** a network that many tasks share;
# 5. in the bonus: **shrink** adapters, by Kronecker products, to one direction, to the biases that are
#    already there; **prove** which of these can be merged; **combine** methods.
#
# | | |
# | --- | --- |
# | Time | sections 1 to 9: about 75 minutes; section 10 and the bonus, 11 to 15: about 45 more |
# | The 45-minute path | sections 1, 2, 5, 6 and 8 as far as its first figure; run the cells of 3 and 4 unread |
# | Points | 11 in sections 1 to 9, 4 in the bonus |
# | Computer | any laptop, no GPU; two trainings of less than a minute each |
# | Counted | 125 minutes with all exercises: 4,150 words, 748 lines of code, 6 exercises, 2 minutes of computing; 1.5 GB of memory |
# | You know | Labs 00 and 01 (patients, freezing, counting); LoRA's two matrices; prompts, for section 15 |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# The last line sets the seeds and checks whether your computer has what the lab needs.

# %%
import copy
import functools
import time

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from torch import nn

from labkit.explore import deltas, drawings, plots
from labkit.explore.adapters import AdapterExplorer
from labkit.explore.pictures import BLUE, GREEN, PURPLE, VERMILLION, unit
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
from labkit.networks.segmenter import segmenter
from labkit.phantoms.kidney import breathing_slices, kidney_patients, split
from labkit.scans.slices import excerpt, to_volume
from labkit.studies import statistics, store
from labkit.studies.table import apart_of, best_by_validation
from labkit.training.cost import MIB, measure, saved_for_backward
from labkit.training.evaluate import predict
from labkit.training.fit import dice_ce
from labkit.training.quick import BATCH, PATIENTS, SLICES, STEPS, at_most
from labkit.tuning import count, delta, merge, numel, tune

lab = start("06")


def explanation(*sentences):
    """A fold whose sentences were made from the numbers above it."""
    text = "\n\n".join(sentences)
    return Markdown(f"<details><summary>Our explanation</summary>\n\n{text}\n\n</details>")


# %% [markdown]
# ## 1. A small network inside the large one
#
# The network of lab 01 once more: four transformer blocks of width $d = 384$, distilled from photographs, and
# digital patients with a tumour of the kidney. The **head is a single linear map** from the last tokens to
# labels. Such a head can draw a tumour only if the tokens already tell where it is.


# %%
def fresh():
    """The pretrained network with a new linear head, the same at every call."""
    return segmenter("tiny", in_chans=1, classes=3, decoder="linear")


train, test = ([to_volume(case) for case in kidney_patients(name, 4)] for name in ("train", "test"))
images, truth = (torch.cat([getattr(volume, what) for volume in train]) for what in ("image", "target"))
shown = (truth > 0).flatten(1).any(1)
shown[::4] = True  # a network that never saw a slice without a kidney would find one everywhere
images, truth = images[shown], truth[shown]

breathing = breathing_slices(split("test")[0])
level, area = 0, 0  # the slice of the first test patient with most of the tumour, among those at rest
for index, label in enumerate(test[0].case.label):
    if index not in breathing and (label == 2).sum() > area:
        level, area = index, (label == 2).sum()
image = test[0].image[level][None]  # (1, 1, 96, 96)
print(f"{len(images)} slices to learn from; to look at: {test[0].case.name}, slice {level}")

head = count(tune(fresh(), Head())).tuned
print(f"the head trains {head:,} numbers under every method; below we count what is added to that")

# %% [markdown]
# (These patients breathe while they are scanned, and some slices show the level above or below their own. The
# one that we look at is not among them.)
#
# An **adapter** is a two-layer network of its own. It reads a token of $d$ numbers, makes it narrow
# ($m \ll d$ numbers, the *bottleneck*), bends it, makes it wide again, and adds the result to what it read
# (Houlsby et al., 2019, arXiv:1902.00751):
#
# $$\mathrm{adapter}(x) = x + W_2\,\mathrm{GELU}(W_1 x + b_1) + b_2, \qquad
#   W_1 \in \mathbb{R}^{m \times d},\ W_2 \in \mathbb{R}^{d \times m}$$
#
# Leave out GELU and the biases, and $x + W_2 W_1 x$ remains: a low-rank change, as in LoRA. So what does
# the bend buy?
#
# > **Predict.** Take tokens of a single number, and draw what comes out against what goes in. What shape has
# > the curve without the bend, whatever the two numbers $W_1$ and $W_2$ are? What shapes has it with one unit
# > ($m = 1$), and with two?
# >
# > Your prediction: ...

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
axis.set(xlabel="a token, x", ylabel="what comes out")
axis.legend(frameon=False, fontsize=8)
plots.show(
    figure,
    "What comes out against what goes in. Two matrices without a bend turn the diagonal into another "
    "straight line; an adapter of one unit follows the diagonal on one side and leaves it on the other; "
    "one of two units bends in two places.",
)

# %% [markdown]
# > **Explain.** What can the blue curve do that no dashed line can?
#
# <details><summary>Our explanation</summary>
#
# A line treats all tokens alike: it shrinks or stretches every one by the same factor. The blue curve leaves
# tokens above 0 nearly as they were and pushes those below 0 up; the green one treats three ranges in three
# ways. To leave one kind of token alone and move another is what the bend is for. It has a price, which we
# meet in section 7.
# </details>
#
# ### Exercise 1: `adapter` (2 points, about 5 minutes, easy)
#
# Write the formula. The tokens are the **rows** of `x`, so `x` is (N, d); `W1` is (m, d) and `W2` is
# (d, m), as `nn.Linear` keeps them. Everything but `F.gelu` is a sum or a matrix product.


# %% labkit={"exercise": "adapter", "role": "answer", "points": 2}
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
# function as a module around a frozen layer. It takes what the layer took and gives tokens of the same shape,
# so it can stand where the layer stood.


# %%
class MyAdapter(nn.Module):
    """A frozen layer, then your adapter, with W2 and b2 at zero."""

    def __init__(self, layer, d, m):
        super().__init__()
        self.layer = layer
        self.W1, self.b1 = nn.Parameter(torch.randn(m, d) / d**0.5), nn.Parameter(torch.zeros(m))
        self.W2, self.b2 = nn.Parameter(torch.zeros(d, m)), nn.Parameter(torch.zeros(d))

    def forward(self, x, **masks):
        out = self.layer(x, **masks)  # (slices, tokens, d)
        rows = adapter(out.flatten(0, -2), self.W1, self.b1, self.W2, self.b2)
        return rows.reshape(out.shape)


def make(layer):
    """What goes into the place of a layer: the layer with an adapter of m = 48 behind it."""
    return MyAdapter(layer, d=384, m=48)


print(fresh().backbone.blocks[0])

# %% [markdown]
# So `backbone.blocks` is a row of blocks, and each has the attributes `attn` and `mlp`.
#
# ### Exercise 2: `insert` (4 points, about 10 minutes, medium)
#
# Three steps: **freeze** the backbone; in each of its blocks from number `first` on (counted from 0) put
# `make(layer)` in the place of `attn` and of `mlp`; **return how many numbers learn**. The order of the first
# two matters, and no error says so. `make` is any function of a layer; the check has one of its own.


# %% labkit={"exercise": "insert", "role": "answer", "points": 4, "hides": ["labkit.methods.bottleneck:insert"]}
def insert(backbone, make, first=0):
    """Freeze the backbone, put make(layer) in place of attn and mlp from block `first` on; what learns."""
    ### BEGIN SOLUTION
    backbone.requires_grad_(False)
    for block in backbone.blocks[first:]:
        block.attn = make(block.attn)
        block.mlp = make(block.mlp)
    return sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    ### END SOLUTION


# %% labkit={"exercise": "insert", "role": "check"}
lab.check("insert", insert)

# %%
insert = lab.working("insert", insert)

# %% [markdown]
# > **Predict.** $m = 48$, $d = 384$, four blocks, two adapters in each, and each adapter has $2dm + d + m$
# > numbers. How many will learn? What if you froze *after* inserting?
# >
# > Your prediction: ...

# %%
mine = fresh().backbone
print(f"your insert: {insert(mine, make):,} numbers learn")
print(f"by formula:  4 x 2 x (2 x 384 x 48 + 384 + 48) = {4 * 2 * (2 * 384 * 48 + 384 + 48):,}")
frozen_last = copy.deepcopy(mine).requires_grad_(False)
print(f"frozen last: {sum(p.numel() for p in frozen_last.parameters() if p.requires_grad):,}")

# %% [markdown]
# Frozen last, nothing of the backbone learns: the head would train alone, the loss would fall, and you would
# call the result "adapters". **Count what learns, each time.**
#
# labkit's way is one line, `tune(model, Adapter(m=48))`. To compare it with yours, the weights must be
# equal and must not be zero: two networks that both add nothing would agree, whatever was wrong in them.

# %%
theirs = tune(fresh(), Adapter(m=48)).backbone
torch.manual_seed(1)
with torch.no_grad():
    for my_block, block in zip(mine.blocks, theirs.blocks, strict=True):
        for my, their in ((my_block.attn, block.attn), (my_block.mlp, block.mlp)):
            down, up = their.adapter.down, their.adapter.up
            pairs = ((my.W1, down.weight), (my.b1, down.bias), (my.W2, up.weight), (my.b2, up.bias))
            for of_mine, of_theirs in pairs:
                of_theirs.copy_(of_mine.normal_(std=0.05))
    mine.eval(), theirs.eval()
    torch.testing.assert_close(mine(images[:2]), theirs(images[:2]), rtol=1e-4, atol=1e-4)
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
@torch.no_grad()
def last_features(backbone):
    return features(backbone.eval(), image)[-1]


class Forgotten(MyAdapter):
    """An adapter without the skip connection: what it adds, and no more."""

    def forward(self, x, **masks):
        return super().forward(x, **masks) - self.layer(x, **masks)


def small(layer):
    one = make(layer)
    nn.init.normal_(one.W1, std=1e-3), nn.init.normal_(one.W2, std=1e-3)
    return one


def as_pytorch(layer):
    one, down, up = make(layer), nn.Linear(384, 48), nn.Linear(48, 384)
    one.W1, one.b1, one.W2, one.b2 = down.weight, down.bias, up.weight, up.bias
    return one


starts = {
    "W2 and b2 zero": make,
    "all of deviation 0.001": small,
    "as PyTorch starts": as_pytorch,
    "skip forgotten": lambda layer: Forgotten(layer, d=384, m=48),
}
pretrained, changes = last_features(fresh().backbone), {}
torch.manual_seed(0)
for name, kind in starts.items():
    backbone = fresh().backbone
    insert(backbone, kind)
    changes[name] = float((last_features(backbone) - pretrained).norm() / pretrained.norm())
    print(f"{name:24} {changes[name]:10.4%}")

# %% [markdown]
# > **Explain** each of the four.

# %%
explanation(
    f"1. {changes['W2 and b2 zero']:.4%}: $W_2 = 0$ and $b_2 = 0$ add zero, and $y + 0$ is $y$ to the bit.",
    f"2. {changes['all of deviation 0.001']:.4%}: two tiny matrices in a row make a product that is tinier "
    "still. The paper starts like this (with 0.01, cut off at two deviations).",
    f"3. {changes['as PyTorch starts']:.0%}: "
    + (
        "the pretrained network is gone. Eight random networks write to the stream about as loudly as what "
        "is there, and each block reads what the blocks below have garbled. "
        if changes["as PyTorch starts"] > 0.5
        else "less than one might fear here; but the network that we start from is no longer the pretrained "
        "one. "
    )
    + "Nothing was wrong in the code; only the start.",
    f"4. {changes['skip forgotten']:.0%}: with a zero adapter and no skip, attention and MLP add nothing any "
    "more. Position and patch are all that reaches the top.",
)

# %% [markdown]
# > **Predict.** In the first step $W_2$ is all zeros, $W_1$ is not. Which of the two gets a gradient?
# > Which of the two would get one if **both** started at zero?
# >
# > Your prediction: ...

# %%
model = fresh()
insert(model.backbone, make)
learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
optimizer = torch.optim.AdamW([p for _, p in learning], lr=1e-3, weight_decay=0)
for step in range(2):
    optimizer.zero_grad()
    dice_ce(model(images[8:12]), truth[8:12]).backward()
    largest = {
        end: max(p.grad.abs().max() for name, p in learning if name.endswith(end)) for end in ("W1", "W2")
    }
    print(f"step {step + 1}: largest gradient of W1 {largest['W1']:.1e}, of W2 {largest['W2']:.1e}")
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
plots.show(
    drawings.adapter_places(),
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
# ### Exercise 3: `wire` (3 points, about 7 minutes, easy)
#
# `layer` and `added` are functions of a tensor; `where` is "sequential", "parallel" or "after". The scale
# `s` belongs to the parallel one alone. The check starts with the three results that you have just
# predicted.


# %% labkit={"exercise": "wire", "role": "answer", "points": 3}
def wire(x, layer, added, where, s):
    """The stream x (..., d) after a frozen layer and what an adapter adds to it: (..., d)."""
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
# compared adapters beside attention and beside the MLP, and found the latter, with a large scale, to be the
# better use of parameters; that is the form that labkit has.
#
# Read code when a formula matters: AdaptFormer's equation gives the adapter $\mathrm{LN}(x)$, as we do. Its
# authors' published code gives it $x$ as it comes, before the norm.

# %% [markdown]
# ## 5. Train it
#
# Your adapters behind attention and MLP of every block, four patients, forty steps: less than a minute on two
# idle cores. The loss is the one of lab 01, cross-entropy and soft Dice.
#
# The adapters have a lower rate than the head, and both rates rise from nearly nothing and fall again. Eight
# new layers in a row that take full steps from the first one on can spoil the features faster than the head
# learns to read them.


# %%
def train_loop(model, steps=40, lr=1e-3, head_lr=4e-3):
    """Train the head and whatever of the backbone learns; returns how many seconds a step took."""
    in_backbone = [p for p in model.backbone.parameters() if p.requires_grad]
    groups = [{"params": in_backbone}, {"params": model.decoder.parameters()}]
    optimizer = torch.optim.AdamW(groups)
    steps, batch = at_most(steps, STEPS), at_most(8, BATCH)  # a few when tests run this notebook
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, [lr, head_lr], total_steps=steps)
    batches, begin = torch.Generator().manual_seed(0), time.perf_counter()
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,), generator=batches)
        loss = dice_ce(model(images[chosen]), truth[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    return (time.perf_counter() - begin) / steps


models, added, seconds = {"adapters everywhere": fresh()}, {}, {}
added["adapters everywhere"] = insert(models["adapters everywhere"].backbone, make)
seconds["adapters everywhere"] = train_loop(models["adapters everywhere"])
print(f"{added['adapters everywhere']:,} numbers added, {seconds['adapters everywhere']:.2f} s a step")

# %%
outcome = {"adapters everywhere": predict(models["adapters everywhere"], test[0])}
plots.show(
    plots.comparison(test[0].case, outcome, level),
    "One slice of a test patient in CT: the true labels of kidney and tumour, and what the network with your "
    "adapters found after its training.",
)

# %% [markdown]
# ## 6. The lower blocks: are their adapters worth it?
#
# A gradient starts at the loss, at the top. It travels down through the blocks to the lowest parameter that
# learns, and no further. **AdapterDrop** (Rücklé et al., 2021, arXiv:2010.11918) leaves the adapters out of
# the first $n$ blocks. Your `insert` can do it already: `first=n`.
#
# > **Predict.** Of our four blocks the lower two lose their adapters. What happens to (a) the numbers that
# > learn, (b) the activations that the forward pass keeps for the backward pass, (c) the arithmetic and the
# > time of a training step, (d) the time of a prediction?
# >
# > Your prediction: ...
#
# GFLOPs are billions of multiplications and additions, forward and backward; they are counted, so they are
# the same on every computer. Seconds are measured, on yours, with whatever else it does.

# %%
costs = {n: measure(tune(fresh(), AdapterDrop(n=n, m=48)), images[:8], repeats=3) for n in range(4)}
costs[4] = measure(tune(fresh(), Head()), images[:8], repeats=3)
print(f"{'blocks without adapters':26} {'added':>9} {'kept, MiB':>10} {'GFLOPs':>8} {'seconds':>8}")
for n, cost in costs.items():
    name = f"the lower {n}" if 0 < n < 4 else ("none" if n == 0 else "all: the head alone")
    print(f"{name:26} {cost.inserted:9,} {cost.saved_mib:10.0f} {cost.gflops:8.1f} {cost.step_seconds:8.2f}")

# %%
figure = Figure(figsize=(8.4, 2.9), layout="constrained")
panels = figure.subplots(1, 2, sharey=True)
bars = {
    "activations kept for the backward pass (MiB)": [cost.saved_mib for cost in costs.values()],
    "arithmetic of a training step (GFLOPs)": [cost.gflops for cost in costs.values()],
}
for panel, (what, values), colour in zip(panels, bars.items(), (BLUE, GREEN), strict=True):
    panel.barh([str(n) for n in costs], values, color=unit(colour), height=0.6)
    panel.set_xlabel(f"{what}, 8 slices", fontsize=9)
panels[0].set_ylabel("lower blocks\nwithout adapters")
panels[0].invert_yaxis()
plots.show(
    figure,
    "Two panels of bars for 0 to 4 lower blocks without adapters, 4 being the head alone. Activations kept for "
    "the backward pass fall by about the same amount with each block and nearly vanish; the arithmetic of a "
    "step falls too, but much of it stays.",
)

# %% [markdown]
# Now train the one without adapters in the lower two blocks, on the same batches.

# %%
models["upper two only"] = fresh()
added["upper two only"] = insert(models["upper two only"].backbone, make, first=2)
seconds["upper two only"] = train_loop(models["upper two only"])
print(f"{added['upper two only']:,} numbers added, {seconds['upper two only']:.2f} s a step")


# %%
def dice_of(model):
    """Dice in points on every fourth slice of the test patients: (1 seed, 2 regions, patients)."""
    found = []
    for volume in test[: at_most(len(test), PATIENTS)]:
        volume = excerpt(volume, at_most(len(volume.image), 4 * SLICES))
        label = volume.case.label[::4]
        with torch.no_grad():
            classes = model.eval()(volume.image[::4]).argmax(1).numpy()
        found.append(list(dice_by_region(classes, label, volume.case.label_names).values()))
    return 100 * np.array(found).T[None]


dice = {name: dice_of(model) for name, model in models.items()}

# %%
regions = ("kidney", "tumour")
figure = Figure(figsize=(6.4, 3.2), layout="constrained")
panels = figure.subplots(1, 2, sharey=True)
for panel, region, scores in zip(
    panels, regions, zip(*(d[0] for d in dice.values()), strict=True), strict=True
):
    panel.plot([0, 1], scores, color="grey", linewidth=0.8)
    for column, (values, colour, mark) in enumerate(zip(scores, (BLUE, VERMILLION), "os", strict=True)):
        panel.plot([column] * len(values), values, mark, color=unit(colour))
    panel.set(title=region, xlim=(-0.5, 1.5), ylim=(-3, 103), xticks=[0, 1])
    panel.set_xticklabels([name.replace(" ", "\n", 1) for name in dice], fontsize=8)
panels[0].set_ylabel("Dice of a test patient (points)")
plots.show(
    figure,
    "Dice of every test patient for kidney and tumour, with adapters in all blocks and in the upper two only. "
    "A line joins the two results of one patient.",
)

# %% [markdown]
# > **Explain.** Answer (a) to (d) with the numbers above. Then look at the lines of the figure, not at the
# > means: do all patients agree which is better?

# %%
all_blocks, upper = costs[0], costs[2]
apart = statistics.difference(dice["upper two only"], dice["adapters everywhere"])
lines = (dice["upper two only"] - dice["adapters everywhere"]).ravel()
lines = lines[~np.isnan(lines)]
explanation(
    f"(a) {upper.inserted / all_blocks.inserted:.0%} of them. "
    f"(b) {upper.saved_mib / all_blocks.saved_mib:.0%}: no gradient passes the lower two blocks, so they keep "
    f"nothing for it. (c) {upper.gflops / all_blocks.gflops:.0%} of the arithmetic, not half: every slice "
    "still runs *forward* through all four blocks, and what is saved is the way back through two. In seconds "
    f"a step of the second training took {seconds['upper two only'] / seconds['adapters everywhere']:.0%} of the "
    f"first's, in the short measurement {upper.step_seconds / all_blocks.step_seconds:.0%}"
    + (
        "; where that is far from the arithmetic, your computer had other things to do. "
        if abs(upper.step_seconds / all_blocks.step_seconds - upper.gflops / all_blocks.gflops) > 0.1
        else ", as the arithmetic says. "
    )
    + "(d) A little less, by four small networks; that was not where the time went.",
    f"Dice: the upper two less all four {apart.mean:+.1f} points, {apart.low:+.1f} to {apart.high:+.1f} (95 %, "
    f"Student's t over {apart.patients} patients). "
    + (
        "The interval leaves 0 out, for these two trainings. "
        if abs(apart.mean) > apart.half
        else "The interval holds 0: nothing has been decided. "
    )
    + f"Of the {len(lines)} lines of the picture, one for each region of a patient, {(lines > 0).sum()} rise. "
    + "And it holds for other patients only, not for another seed or rate: there is one training of each, at a "
    "rate that was looked for with these very patients (a constant rate of 2e-3, tried first, left all four blocks "
    "far behind), and forty steps tell more of who learns fast than of who ends higher. "
    "Section 8 asks the same with more seeds, twenty patients and a rate for each. "
    "What *is* certain is the cost, and a second gain: the lower blocks are untouched, so many tasks can share "
    "what they compute. Section 9 makes use of that.",
)

# %% [markdown]
# ## 7. It stays beside, for ever
#
# A LoRA can be merged into its matrix and then costs nothing. An adapter?

# %%
try:
    merge(tune(fresh(), Adapter(m=48)))
except ValueError:
    print("labkit's merge refuses: what the adapter computes is no change of a matrix")

# %% [markdown]
# This is the price of the bend: no single matrix does what a bend does. So an adapter stays a layer of its
# own, to be passed at every prediction. In its favour: a task is one small file, and tasks can be exchanged
# without touching the network.

# %% [markdown]
# ## 8. Do they pay?
#
# One training on four patients shows that your code works. Whether adapters are worth their numbers takes
# several seeds, more patients, a rate chosen for each method on other patients, and the control without
# which all of it says nothing: **the head alone**, free to choose its rate like the rest. These trainings
# were made once (`labkit sweep combinations_kidney`, `small_kidney`, `lora_places_kidney`, `kidney`,
# `hippocampus`): three seeds each, 20 patients to test on, or 52 real ones with a labelled hippocampus. Not
# every method was trained everywhere: an empty row of a panel is a training that was not made, not a result.
# Where the best rate is the lowest or highest of those tried, it says "(edge)".
#
# > **Predict.** Which of BitFit (it trains the biases that are there, section 13), adapters, prompts and LoRA
# > will be above the head alone, by an interval that leaves 0 out? On which patients? And what is lost,
# > against adapters everywhere, by adapters in the upper two blocks, and by the small relatives of sections
# > 11 and 12, Compacter and AdapterBias?
# >
# > Your prediction: ...

# %%
TABLES = {
    "kidneys, linear head": {
        "head alone": ("lora_places_kidney", "head alone"),
        "BitFit": ("combinations_kidney", "BitFit"),
        "adapters, m = 48": ("combinations_kidney", "adapters"),
        "prompts, 10 a block": ("combinations_kidney", "prompts"),
        "LoRA on q and v": ("lora_places_kidney", "q and v, r = 4"),
        "adapters, upper two": ("small_kidney", "adapters, upper two"),
        "Compacter": ("small_kidney", "Compacter"),
        "AdapterBias": ("small_kidney", "AdapterBias"),
    },
    "kidneys, decoder": {
        "head alone": ("kidney", "Head"),
        "adapters, m = 48": ("kidney", "Adapter"),
        "AdaptFormer": ("kidney", "AdaptFormer"),
        "prompts, 10 a block": ("kidney", "VPT-Deep"),
        "LoRA on q and v": ("kidney", "LoRA"),
    },
    "real hippocampi, decoder": {
        "head alone": ("hippocampus", "Head"),
        "adapters, m = 48": ("hippocampus", "Adapter"),
        "prompts, 10 a block": ("hippocampus", "VPT-Deep"),
        "LoRA on q and v": ("hippocampus", "LoRA"),
    },
}


results = functools.cache(store.results)  # a file is read once


def stored(sweep, row):
    """A row's trainings at its best rate, one a seed; none where they were not made."""
    made = results(sweep)
    return made.trainings(made.sweep.row(row))


def rate_of(sweep, row):
    """A row's best rate, and which of those tried it is: "lowest", "highest", or nothing in between."""
    made = results(sweep)
    row = made.sweep.row(row)
    (rate,) = made.rate(row).values()
    highest = max(value for tried in row.rates for value in tried.values())
    return rate, ("highest" if rate == highest else "lowest") if made.at_edge(row) else ""


def rate_words(place):
    """The rate as it is printed."""
    rate, edge = rate_of(*place)
    return f"rate {rate:g}{' (edge)' if edge else ''}"


def at_edges(places):
    """Which of these rows were best at an end of their rates, as sentences; none: nothing."""
    ends = {}
    for name, place in places.items():
        if edge := rate_of(*place)[1]:
            ends.setdefault(edge, []).append(name)
    return "".join(
        f" At the {edge} rate tried, so another one might do better: {'; '.join(names)}."
        for edge, names in ends.items()
    )


def above(trainings, others):
    """How far one row is above another on the same patients, in points."""
    assert trainings[0]["patients"] == others[0]["patients"]
    return statistics.difference(*(100 * statistics.scores(these) for these in (trainings, others)))


stands, leads = {}, {}
for patients, places in TABLES.items():
    made = {name: trainings for name, place in places.items() if (trainings := stored(*place))}
    stands[patients] = {name: statistics.estimate(100 * statistics.scores(t)) for name, t in made.items()}
    leads[patients] = {
        name: above(trainings, made["head alone"]) for name, trainings in made.items() if name != "head alone"
    }
    for name, one in stands[patients].items():
        lead = leads[patients].get(name)
        less = (
            f"  {lead.mean:+5.1f} ({lead.low:+.1f} to {lead.high:+.1f})" if lead else "  less the head alone"
        )
        print(
            f"{patients:25} {name:20} {one.mean:5.1f} ({one.low:.1f} to {one.high:.1f})  "
            f"{rate_words(places[name]):18}{less}" + (", 1 seed" if one.seeds == 1 else "")
        )

# %%
compared = dict.fromkeys(name for rows in leads.values() for name in rows)
plots.show(
    plots.differences(
        {
            patients: {name: (one.mean, one.half) for name, one in rows.items()}
            for patients, rows in leads.items()
        },
        "points of Dice above the head alone",
    ),
    "How far each of these is above or below the head alone, with 95 % intervals for other patients and "
    "other seeds, in three panels, kidneys behind a linear head, kidneys behind a decoder, real hippocampi "
    f"behind a decoder: {'; '.join(compared)}.",
)

# %% [markdown]
# > **Explain.** Where do adapters pay, and where can nothing be told? What is behind the difference? And do
# > fewer numbers suffice?

# %%
verdicts = []
for patients, rows in leads.items():
    up = [f"{name} ({one.mean:+.1f})" for name, one in rows.items() if one.low > 0]
    down = [f"{name} ({one.mean:+.1f})" for name, one in rows.items() if one.high < 0]
    left = len(rows) - len(up) - len(down)
    verdicts.append(
        f"**{patients}**: above the head alone {', '.join(up) or 'none'}; below it "
        f"{', '.join(down) or 'none'}; "
        + (f"of the other {left} nothing can be told." if left else "all are told apart from it.")
        + at_edges({name: place for name, place in TABLES[patients].items() if name in stands[patients]})
    )
rival = above(stored("hippocampus", "Adapter"), stored("hippocampus", "LoRA"))
large, smaller_rows, sentences = stored("combinations_kidney", "adapters"), {}, []
for name in ("adapters, upper two", "Compacter", "AdapterBias"):
    if trainings := stored("small_kidney", name):
        smaller_rows[name] = one = above(trainings, large)
        sentences.append(
            f"{name} {one.mean:+.1f} ({one.low:+.1f} to {one.high:+.1f}; "
            f"{trainings[0]['inserted']:,} numbers of {large[0]['inserted']:,}; {one.seeds} seed"
            f"{'s' if one.seeds > 1 else ''}), "
            + ("above" if one.low > 0 else "below" if one.high < 0 else "not told apart")
        )
undecided = {name: one for name, one in smaller_rows.items() if one.low <= 0 <= one.high}
if smaller_rows:
    verdicts.append(
        f"**Fewer numbers**, on kidneys behind the linear head, less adapters of m = 48 everywhere: "
        f"{'; '.join(sentences)}. "
        + (
            "*Not told apart* is not *equal*: by these intervals the loss may still be "
            + ", ".join(f"{-one.low:.1f} points ({name})" for name, one in undecided.items())
            + "."
            if undecided
            else "All are told apart from it."
        )
    )
looks = sum(map(len, leads.values())) + len(smaller_rows)
explanation(
    *verdicts,
    f"Of {looks} intervals of 95 % {0.05 * looks:.1f} miss the truth by chance alone.",
    "Minus means *below*. The head alone was free to choose a rate up to 8e-3, where the heads of the others "
    "learn at 2e-3. Where a head at a good rate leaves nothing to gain, these patients cannot show what a "
    "method is worth; where it does leave something, they can. On hippocampi adapters less LoRA is "
    f"{rival.mean:+.1f} ({rival.low:+.1f} to {rival.high:+.1f}), with "
    f"{stored('hippocampus', 'Adapter')[0]['inserted'] / stored('hippocampus', 'LoRA')[0]['inserted']:.0f} times "
    "as many numbers"
    + (": the bend did not buy what LoRA has." if rival.high < 0 else ".")
    + at_edges({"adapters": ("hippocampus", "Adapter"), "LoRA": ("hippocampus", "LoRA")}),
    "What is *not* here: FacT, the parallel adapter of He et al., and adapters in the lower two blocks have "
    "no rows with seeds. Of them this lab claims no Dice.",
)

# %% [markdown]
# ### Does a small one do?
#
# The kit carries four networks with adapters, and one whose head was trained alone, of one training each on
# 20 patients (made by `labkit deltas`). Two differ in $m$ alone, 48 or 4; two have adapters of $m = 48$ in one
# place instead of both.
#
# > **Predict.** An eleventh of the numbers: what happens to Dice? Which place is worth more, behind the
# > attention or behind the MLP?
# >
# > Your prediction: ...

# %%
shipped = {
    "both, m = 48": "adapter-attn-mlp-48",
    "both, m = 4": "adapter-attn-mlp-4",
    "attention, m = 48": "adapter-attn-48",
    "MLP, m = 48": "adapter-mlp-48",
    "head alone": "probe",
}
sizes, found = {}, {}
for name, file in shipped.items():
    model = deltas.network(file)
    sizes[name], found[name] = count(model).inserted, dice_of(model)
print(f"{'behind':20} {'added':>9} {'kidney':>8} {'tumour':>8}   mean less that of 'both, m = 48' (95 %)")
for name, values in found.items():
    kidney, tumour = np.nanmean(values, axis=(0, 2))
    one = statistics.difference(values, found["both, m = 48"])
    less = f"{one.mean:+.1f} ({one.low:+.1f} to {one.high:+.1f})" if name != "both, m = 48" else ""
    print(f"{name:20} {sizes[name]:9,} {kidney:8.1f} {tumour:8.1f}   {less}")

# %%
smaller = {
    name: statistics.difference(values, found["both, m = 48"])
    for name, values in found.items()
    if name != "both, m = 48"
}
told = [name for name, one in smaller.items() if abs(one.mean) > one.half]
explanation(
    f"With m = 4 there are {sizes['both, m = 4']:,} numbers instead of {sizes['both, m = 48']:,}, and Dice is "
    f"{smaller['both, m = 4'].mean:+.1f} points from the large one's. "
    + (f"Told apart from it: {', '.join(told)}." if told else "No row is told apart from the large adapters.")
    + f" The intervals, Student's t over {smaller['both, m = 4'].patients} patients, are wide, and each row is "
    "one training: another seed may turn the order round. ",
    (
        "So more numbers were worth something here, on these patients and with one seed of each."
        if "both, m = 4" in told and smaller["both, m = 4"].mean < 0
        else "So the honest reading is not 'small is as good', but: whoever claims that *large is better* has to "
        "show it, and here cannot. The small file is the one to start with."
    ),
)

# %% [markdown]
# ## 9. Use it: one scanner, many organs
#
# A console beside the scanner outlines organs while the patient lies in it. One network serves all, and every
# organ has its own adapters and its own head. The computer manages a certain number of **block passes** a
# slice: one slice through one block. With adapters in all blocks, 20 organs take 20 times a whole network.
# Without adapters in the lower $n$ blocks these are passed **once** for all organs together (Rücklé et al.,
# section 6); only from there on every organ goes its own way.
#
# ### Exercise 4: `blocks_to_share` (2 points, about 6 minutes, easy)
#
# What is the *smallest* number $n$ of lower blocks without adapters, 0 to `blocks`, with which all `tasks`
# together take at most `passes` block passes a slice? (`passes` is at least `blocks`, or not even one network
# could run.) Return a whole number. By hand first: 4 blocks, 3 tasks, 9 passes.


# %% labkit={"exercise": "blocks_to_share", "role": "answer", "points": 2}
def blocks_to_share(blocks, tasks, passes):
    """The fewest lower blocks without adapters with which all tasks take at most so many block passes."""
    ### BEGIN SOLUTION
    for n in range(blocks + 1):
        if n + tasks * (blocks - n) <= passes:
            return n
    ### END SOLUTION


# %% labkit={"exercise": "blocks_to_share", "role": "check"}
lab.check("blocks_to_share", blocks_to_share)

# %%
my_blocks_to_share = lab.working("blocks_to_share", blocks_to_share)
shares = {tasks: my_blocks_to_share(12, tasks, 100) for tasks in (5, 10, 20, 40)}
print("a ViT-B, 12 blocks, 100 passes a slice; lower blocks to share, by organs:", shares)
with torch.no_grad():
    trunk = features(models["upper two only"].backbone, image)[1]  # after the second block
    same = torch.equal(trunk, features(fresh().backbone.eval(), image)[1])
print("after your training, the lower two blocks' output is the pretrained network's, to the bit:", same)

# %% [markdown]
# > **Decide**, in four sentences: for 20 organs, in how many blocks do you give each organ adapters, how wide,
# > and what do you say to a colleague who wants LoRA instead? Which number of this lab speaks for it, which
# > against it, and what would you measure before you promise it?
# >
# > Your proposal: ...

# %%
hippocampus = leads["real hippocampi, decoder"]
below_large = [name for name, one in smaller_rows.items() if one.high < 0]
shared = smaller_rows.get("adapters, upper two")
looked = f"your training had {apart.mean:+.1f} points for two of four blocks, one seed"
if shared:
    looked = (
        f"in section 8 the upper two of four blocks are {shared.mean:+.1f} points ({shared.low:+.1f} to "
        f"{shared.high:+.1f}) from all four, on kidneys, {shared.seeds} seed"
        f"{'s' if shared.seeds > 1 else ''}; {looked}"
    )
explanation(
    f"{shares[20]} of 12 blocks have to be shared, so every organ has adapters in the upper {12 - shares[20]}; "
    f"that is {shares[20]} + 20 x {12 - shares[20]} = {shares[20] + 20 * (12 - shares[20])} passes instead of "
    "240. "
    + (
        "Section 8 speaks for a large m, with one seed; show it again before you pay for it."
        if "both, m = 4" in told and smaller["both, m = 4"].mean < 0
        else "Start with a small m: nothing in section 8 speaks for a large one."
    )
    + (
        f" (Small in another way was not as good there: {', '.join(lost)}.)"
        if (lost := [name for name in ("Compacter", "AdapterBias") if name in below_large])
        else ""
    ),
    "The colleague has a point: "
    + (
        f"on real hippocampi LoRA is {hippocampus['LoRA on q and v'].mean:+.1f} above the head alone, adapters "
        f"{hippocampus['adapters, m = 48'].mean:+.1f}. "
        if hippocampus
        else ""
    )
    + "And LoRA in the upper blocks alone shares the lower ones just as well: sharing is a matter of *where*, "
    "not of the bend. Merged, though, LoRA makes twenty sets of matrices of those blocks; adapters and LoRA "
    "kept apart make twenty small files.",
    (
        "Against it speaks what sharing costs"
        if "adapters, upper two" in below_large
        else "No loss by sharing is shown on these patients"
        if shared and shared.low > 0
        else "No loss by sharing is shown, and none is ruled out"
    )
    + f": {looked}. Nothing here looks at {shares[20]} of 12. Before promising, measure Dice with the upper "
    f"{12 - shares[20]} blocks and with all, organ by organ, on patients of *this* hospital, with several "
    "seeds, beside the head alone, which shares everything.",
)

# %% [markdown]
# ## 10. Switch them on and off
#
# Here are the four networks with adapters of section 8. Choose one, and switch the adapters of single blocks
# off: the rest of the network, and its head, stay as they were trained. The map shows how much the adapters
# of a block add to each token, against what is there.
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
seen = seen[: at_most(len(seen), SLICES)]
score = {}
for name, choice in switched.shown().items():
    segmented = np.stack([switched.segment(choice, 0, i) for i in seen])
    score[name] = mean_present(list(dice_by_region(segmented, case.label[seen], case.label_names).values()))
    print(f"{name:12} mean Dice of kidney and tumour {score[name]:.3f}")
harm = {name: score["all on"] - value for name, value in score.items() if name != "all on"}
single = {name: value for name, value in harm.items() if name != "all off"}
together = sum(single.values())
best = min(single, key=single.get)
explanation(
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
    + f"Best spared is: *{best}*. One patient, a few slices: look at the others.",
    "And a warning. This network was trained *with* all its adapters. Where one is missing, the blocks above "
    "get what they never got in training, and the head stays the one that was trained with all. A block whose "
    "adapters cannot be spared here might have been spared from the beginning, as in section 6. To know that, "
    "one must train.",
)

# %% [markdown]
# ## 11. Bonus: smaller, the same block again and again
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
# ### Exercise 5: `kron_sum` (2 points, about 5 minutes, easy)
#
# `As` and `Bs` are lists of matrices, equally many. `torch.kron(A, B)` does a single product.


# %% labkit={"exercise": "kron_sum", "role": "answer", "points": 2}
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
torch.testing.assert_close(W1, layer.weight().detach(), rtol=1e-4, atol=1e-4)
print(
    f"W1 is {tuple(W1.shape)}, {W1.numel():,} numbers, rank {torch.linalg.matrix_rank(W1)}; as labkit has it"
)
print(f"made of {s.numel()} + {t.numel()} numbers, and of {A.numel()} in the rules A that all adapters share")
print(f"all of Compacter: {count(model).inserted:,} numbers; an ordinary adapter of m = 12: ", end="")
print(f"{count(tune(fresh(), Adapter(m=12))).inserted:,}")

# %%
figure = Figure(figsize=(9.5, 3.6), layout="constrained")
grid = figure.subplots(2, 1)
limit = float(W1.abs().max())
look = {"cmap": "PuOr", "vmin": -limit, "vmax": limit, "aspect": "auto", "interpolation": "nearest"}
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
# ## 12. Bonus: smaller still, one direction
#
# **AdapterBias** (Fu et al., 2022, arXiv:2205.00305) asks for less yet. Each block gets one vector $v$. Every
# token is moved along $v$, and says itself how far:
#
# $$y \leftarrow y + \alpha\,v, \qquad \alpha = h^\top w$$
#
# with $y$ what the MLP gives out, and $h$ the values in its middle, as in the authors' code. (The
# lecture's table asks the layer's input $X$ instead, and has lost the residual: a plain $X +$ belongs in
# front.)
#
# ### Exercise 6: `token_bias` (2 points, about 4 minutes, easy)
#
# Write the formula for all tokens at once; no loop is needed.


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
torch.testing.assert_close(
    token_bias(before, h, shifted.a.detach(), shifted.v.detach()), after, rtol=1e-4, atol=1e-4
)
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
    furthest = (merged(image) - logits).abs().max() / logits.abs().max()
pretrained_size = numel(fresh().parameters())
print(f"{numel(biased.parameters()) - pretrained_size:,} numbers beside the network before,", end=" ")
print(
    f"{numel(merged.parameters()) - pretrained_size} after; largest difference of the logits {furthest:.0e}"
)

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
# ## 13. Bonus: nothing new at all, biases
#
# **BitFit** (Ben Zaken et al., 2021, arXiv:2106.10199) adds nothing. It trains the biases that the network
# has, and so moves all tokens alike.

# %%
tuned = tune(fresh(), BitFit())
own = {
    n: p for n, p in delta(tuned).items() if n.startswith("backbone") and not n.startswith("backbone.norm")
}
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
dice_ce(tuned(images[8:12]), truth[8:12]).backward()
kinds = {}
for block in blocks(tuned.backbone):
    thirds = dict(zip(("query", "key", "value"), block.attn.qkv.bias.grad.chunk(3), strict=True))
    rest = {"attention out": block.attn.proj, "MLP 1": block.mlp.fc1, "MLP 2": block.mlp.fc2}
    rest |= {"norm 1": block.norm1, "norm 2": block.norm2}
    for kind, grad in (thirds | {name: layer.bias.grad for name, layer in rest.items()}).items():
        kinds.setdefault(kind, []).append(float(grad.abs().max()))

figure = Figure(figsize=(6.4, 3.2), layout="constrained")
axis = figure.subplots()
for number, (values, mark) in enumerate(zip(zip(*kinds.values(), strict=True), "osD^", strict=True)):
    axis.plot(values, range(len(kinds)), mark, color=unit(PURPLE), markersize=5, label=f"block {number}")
axis.set_yticks(range(len(kinds)), list(kinds))
axis.invert_yaxis()
axis.set(xscale="log", xlabel="largest gradient in the first step")
axis.legend(frameon=False, fontsize=8)
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
# ## 14. Bonus: FacT, read, not built
#
# The lecture mentions one more: **FacT** (Jie and Deng, 2023, arXiv:2212.03145). LoRA gives every matrix
# two factors of its own; Compacter shares its rules among all layers. FacT shares nearly everything. All
# updates of a network, cut into $d \times d$ pieces, are stacked to one tensor and factored together:
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
d, r, pieces = 384, 16, 4 * 4
counted = count(tune(fresh(), FacTTT(r=r))).inserted
print(f"FacT: 2dr + 16 r^2 = {2 * d * r + pieces * r**2:,}, counted {counted:,}")
print(f"LoRA: 16 x 2dr     = {pieces * 2 * d * r:,}")

# %% [markdown]
# Why not the MLP too? Its matrices are 384 x 960, and 960 is two and a half times 384: they cannot be cut
# into square pieces. In a ViT-B it is four times, and FacT takes all twelve pieces of a block. Read the
# code: `labkit.methods.fact`. The lecture's formulas for all of these, beside what is counted, stand in
# lab 07.

# %% [markdown]
# ## 15. Bonus: all together, a tuple of methods is a method
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
cells, some = {}, images[: at_most(8, 1)]
print(f"{'BitFit':>7} {'adapter':>8} {'prompts':>8} {'learn in the backbone':>22} {'kept for backward':>18}")
for number in range(8):
    chosen_parts = [name for i, name in enumerate(parts) if number >> i & 1]
    model = tune(fresh(), tuple(parts[name] for name in chosen_parts) or Head())
    learn = count(model).tuned - head
    cells[" + ".join(chosen_parts) or "head alone"] = mib = saved_for_backward(model, some) / MIB
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
# And Dice? The lecture's figure has eight cells on one task of sentences (SST-2), a number each. Ours have
# three seeds, twenty kidneys or ten brains, and each cell a rate of its own (`labkit sweep
# combinations_kidney`, `combinations`). A brain without enhancing tumour is left out of that region's mean.
# Every combination is compared with the **best single method**, chosen on validation patients so that the
# test patients had no say.
#
# > **Predict.** Will two methods together be above the better of the two? By an interval that leaves 0 out?
# >
# > Your prediction: ...

# %%
SINGLE = ("BitFit", "adapters", "prompts")
combined, best_single, edges = {}, {}, []
for organ, sweep in (("kidneys", "combinations_kidney"), ("brains", "combinations")):
    made = results(sweep)
    if best_one := best_by_validation(made, SINGLE):
        best_single[organ] = best_one
        rows = [row.name for row in made.sweep.rows if row.name not in SINGLE]
        found = {name: apart_of(made, name, best_one) for name in rows}
        combined[organ] = {name: one for name, one in found.items() if one}
        places = {name: (sweep, name) for name in (*SINGLE, *combined[organ]) if stored(sweep, name)}
        if said := at_edges(places):
            edges.append(f"{organ.capitalize()}:{said}")
        for name, place in places.items():
            line = f"{organ:8} {name:22} {rate_words(place):18}"
            if one := combined[organ].get(name):
                line += f" less {best_one:9} {one.mean:+.1f} ({one.low:+.1f} to {one.high:+.1f})"
            print(line + (" best single method" if name == best_one else ""))

# %%
plots.show(
    plots.differences(
        {
            f"{organ}, less {best_single[organ]}": {name: (one.mean, one.half) for name, one in rows.items()}
            for organ, rows in combined.items()
        },
        "points of Dice",
    ),
    "How far each combination is above or below the best single method, with 95 % intervals for other "
    "patients and other seeds, on kidneys and on brains.",
)

# %% [markdown]
# > **Explain.** Do the methods add up?

# %%
gains = [one for rows in combined.values() for one in rows.values()]
better, worse = sum(one.low > 0 for one in gains), sum(one.high < 0 for one in gains)
explanation(
    f"Of {len(gains)} combinations {better} are above the best single method by an interval that leaves 0 out, "
    f"{worse} below it. "
    + (
        "So here they do not add up beyond what other patients or seeds could turn round. "
        if not better
        else "Some do, some do not; and of twenty such intervals one leaves 0 out by chance. "
    )
    + "The numbers that learn add up; Dice need not.",
    *edges,
    "The lecture's figure is one task, one number a cell. To rank eight cells one needs what is above, and "
    "then the upper cells may still differ by less than two seeds of one cell do.",
)

# %% [markdown]
# ## 16. To try
#
# * **Both bends.** Put your own adapter into the network with ReLU, and with no activation. Train each as
#   in section 5. How much does the bend buy here? How many seeds do you need to say so?
# * **The scale.** He et al. use $s = 4$, AdaptFormer $s = 0.1$. $W_2$ starts at zero and Adam moves every
#   number by about the rate, whatever the size of its gradient. What does $s$ then do to the first steps?
#   Show it by measuring the change of the features after one step.
# * **Rows that are missing.** Section 8 has Compacter, AdapterBias and adapters in the upper two blocks. Copy
#   `labkit/studies/recipes/small_kidney.toml`, put rows for FacT (`fact_tt`), the parallel adapter
#   (`parallel_adapter`) and adapters in the upper one or three blocks in their place, and run `labkit sweep`
#   on your copy over night. From which block on do adapters suffice?

# %% [markdown]
# ## 17. Test yourself
#
# <details><summary>1. Why can't a Houlsby adapter be merged, while AdapterBias can?</summary>
# Between its two matrices there is an activation, so no single matrix does the same. AdapterBias has
# none: its change is an outer product, added to the MLP's second matrix.
# </details>
#
# <details><summary>2. A colleague inserts adapters and then calls <code>requires_grad_(False)</code> on the
# backbone. The loss falls. What has he trained?</summary>
# The head alone. The adapters belonged to the backbone by then and were frozen with it; counting what learns
# would have shown it.
# </details>
#
# <details><summary>3. What does s = 0.1 do in AdaptFormer?</summary>
# It keeps what is added, and each step of it, small beside what the frozen MLP gives out.
# </details>
#
# <details><summary>4. Why does AdapterDrop save time in the backward pass and not half of all time?</summary>
# The gradient ends at the lowest adapter, so the blocks below have no backward pass. Forward, every slice
# still runs through all blocks.
# </details>
#
# <details><summary>5. BitFit trains a quarter of a per cent of the backbone and keeps nothing for its biases.
# Why does it keep nearly as much for the backward pass as an adapter?</summary>
# To reach the biases of the lowest block, the gradient passes all blocks, and GELU, norms and attention must
# have kept their inputs for it.
# </details>
#
# <details><summary>6. What does Compacter save, and what not?</summary>
# Parameters: in the file, in the gradients, in Adam's two moments. Not time and hardly any activations:
# its matrices are built in full and used like any other.
# </details>

# %% [markdown]
# ## 18. What changes on real data
#
# * **Many tasks.** The case for adapters is a hospital with one network and twenty tasks: brain, liver,
#   prostate. Each is a file of a megabyte or two, swapped in by loading; nothing about the others can be
#   forgotten.
# * **One patient at a time.** At prediction, small layers in a row cost more time than their arithmetic,
#   because each must be started and waited for. Measure it on your machine with a single slice, with and
#   without adapters.
# * **Depth.** Our network has 4 blocks. In a ViT-B with 12, AdapterDrop has more to drop, and the path of
#   the gradient is where the memory of a GPU goes.
# * **Your own network.** `insert` knows two names, `attn` and `mlp`. Print your network's modules, change the
#   two names, count what learns before and after, and see after one backward pass that every $W_2$ has a
#   gradient. labkit's one line for such a network, with the names of *its* layers and *its* head:
#   `tune(net, LoRA(r=8, targets=("q_proj", "v_proj")), head="classifier")`. Count what learns before you
#   train.

# %%
lab.progress()
