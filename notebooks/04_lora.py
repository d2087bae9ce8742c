# %% [markdown]
# # Lab 04: LoRA
#
# Full fine-tuning makes a whole new network for every task.
# LoRA leaves the old one as it is and learns a small correction beside it.
# In this lab you will
#
# 1. **write** LoRA's layer, $z = W_0x + BAx$, and **explain** its shapes and its scale;
# 2. **derive** the gradients of $A$ and $B$ by hand, and **explain** why one of the two starts at zero;
# 3. **merge** an update into a matrix, take it out again, and **measure** what rounding leaves behind;
# 4. **place** LoRA in timm's fused qkv matrix, and **prove** your layer equal to labkit's;
# 5. **test** on our patients what the lecture's Table 5 asks: where to spend a fixed number of parameters?
#
# | | |
# | --- | --- |
# | Time | about 45 minutes, 14 points |
# | Computer | any laptop, no GPU; two trainings of less than 40 seconds each, less than 2 GB |
# | You know | Lab 02 (freezing, counting, one training step); matrix products and the chain rule |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# The last line sets the seeds and looks whether your computer has what the lab needs.

# %%
import json
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib.figure import Figure

from labkit import lessons, tuning
from labkit.explore import deltas, pictures, plots
from labkit.methods import LoRA
from labkit.metrics import mean_by_region
from labkit.networks.segmenter import segmenter
from labkit.phantoms.brain import brain_patients
from labkit.scans.slices import sample_slabs, to_volume
from labkit.studies import statistics, store
from labkit.studies.table import table
from labkit.training.evaluate import evaluate, mean_dice, predict
from labkit.training.fit import Recipe, dice_ce, fit
from labkit.updates.peft_format import load_peft, save_peft

lab = lessons.start("04")

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
# > How many of the 32 products do you need before a picture of it looks like that of all 32?
# > Write down a number. (The picture shows a corner of it, 64 x 64, so that you can see single entries.)


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
print(f"W0 has {W0.numel():,} entries; the norm of its change is {ratio:.1%} of its own")
for r in (1, 4, 8, 16, 32):
    share = change.at(r).square().sum() / change.at(32).square().sum()
    print(f"the first {r:2}: {r * (384 + 384):6,} numbers, {share:4.0%} of the squared norm of all 32")
plots.show(
    show_maps({f"the first {r} of 32 products": change.at(r)[:64, :64] for r in (1, 4, 8, 32)}),
    "Rows and columns 0 to 63 of a change of a matrix by full fine-tuning, from its first 1, 4, 8 and 32 "
    "products: one product makes a pattern of stripes, more of them fill in the rest.",
)

# %% [markdown]
# > **Explain.** How would you store this change, if it had to fit into little space?
#
# <details><summary>Our explanation</summary>
#
# As the products: a column and a row are 768 numbers, the matrix is 147,456.
# The few largest products carry more of the change than their number suggests: compare the
# printed shares with $r/32$.
# The lecture says it of language models: adapting them has a *low intrinsic dimension*.
#
# We saw only what the file keeps. What lies beyond 32 products it does not show; Lab 05 asks that question.
# </details>
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
# (Violet entries are positive, orange ones negative. $A$ and $B$ are random here, with r = 8.)

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
axis.text(897, -192, "=", ha="center", va="center", fontsize=16)
axis.set(xlim=(-10, 1394), ylim=(-490, 60))
axis.set_axis_off()
plots.show(
    figure,
    "To scale: W0 and BA are squares of 384 by 384, B is a strip 8 wide and A a strip 8 high. BA has as many "
    "entries as W0, but is made from two strips with 3,072 numbers each.",
)

# %% [markdown]
# ### Exercise 1: `lora` (3 points, about 6 minutes, easy)
#
# PyTorch keeps inputs as **rows**: `x` is (n, k), the result (n, d), and a linear layer is $xW_0^\top$.
# Write LoRA's layer for rows. The rank is in the shapes; it is not handed to you.


# %% labkit={"exercise": "lora", "role": "answer", "points": 3}
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
torch.testing.assert_close(lora(x, W0, A_shown, B_shown, alpha=8), x @ (W0 + B_shown @ A_shown).T)
print(f"x through A, then B: {144 * 8 * (k + d):12,} multiplications")
print(f"BA first, then x:    {d * 8 * k + 144 * d * k:12,}")
print(f"the frozen layer:    {144 * d * k:12,}")

# %% [markdown]
# ### Two knobs
#
# r and $\alpha$ are both chosen by hand.
# r is called the **rank**, after the rank of a matrix: how many of its rows are independent, that is, no sum
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
figure.colorbar(drawn, ax=axes, label="entry of the update", shrink=0.8)
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
A_random, B_zero = start(5, 6, 2)
A_zero, B_random = torch.zeros_like(A_random), torch.randn_like(B_zero)
starts = {
    "zero, zero": (A_zero, B_zero),
    "random, random": (A_random, B_random),
    "zero, random": (A_zero, B_random),
    "random, zero": (A_random, B_zero),
}
print(f"{'A, B':16} {'output changed by':>18} {'gradient of A':>14} {'gradient of B':>14}")
for name, (A, B) in starts.items():
    A, B = A.clone().requires_grad_(), B.clone().requires_grad_()
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
# In the last row $A$ has no gradient in the first step. Does it ever get one? That is the next section.
# </details>

# %% [markdown]
# ## 4. Gradients by hand
#
# Autograd computes them for you. Once, derive them yourself: they say how LoRA learns.
#
# Cut the path of one token into steps, with $s = \alpha/r$:
#
# $$h = Ax, \qquad z = W_0x + s\,Bh, \qquad g = \frac{\partial L}{\partial z}$$
#
# $L$ is the loss, and $g$ arrives from behind. For a matrix in a product the rule is always the same:
# **its gradient is what came in from behind, times what had gone in from the front.**
# For $B$, what had gone in is $h$. For $A$ it is $x$, and what comes in has already passed back through $B$.
#
# The small example again: $x = (1, 2)$, $A = (3, 1)$, $B$ the column $(2, 1, 0)$, s = 1. So $h = 5$.
# Let $g = (1, 0, 4)$ arrive. The gradient of $B$ is $5g$, the column $(5, 0, 20)$.
# Going back, $B$ weighs the three numbers of $g$ and adds them: $2 \cdot 1 + 1 \cdot 0 + 0 \cdot 4 = 2$.
# The gradient of $A$ is $2x$, the row $(2, 4)$.
#
# ### Exercise 3: `first_gradients` (4 points, about 10 minutes, medium)
#
# Rows again: `x` is (n, k), `g` is (n, d). Every row adds to the gradient; a matrix product
# sums over them for you.
# Return the gradients of $A$ and of $B$, each in the shape of its matrix. No autograd.


# %% labkit={"exercise": "first_gradients", "role": "answer", "points": 4}
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
for name, mine, theirs in zip("AB", first_gradients(x, z.grad, A, B, 3), (A.grad, B.grad), strict=True):
    torch.testing.assert_close(mine, theirs)
    print(f"the gradient of {name}, {tuple(mine.shape)}, is autograd's")

# %% [markdown]
# ### Five steps, watched
#
# Now the real network: the backbone of Lab 02 with LoRA on q and v in each of its four blocks, and a head
# that is a single linear layer.
# (With a strong decoder the head does most of the work, and you would see little of LoRA.)
# The patients are those of Lab 02; if you skipped it, the cell first makes them, in less than a minute.
#
# > **Predict.** At the start $B = 0$. Put it into your formulas.
# > Which of the two has a gradient in step 1? In step 2?
# > Does $A$ stand perfectly still in step 1? The optimizer is AdamW with weight decay 0.01: besides following
# > the gradients it pulls every weight a little towards 0.

# %%
train = [to_volume(case) for case in brain_patients("train", 4)]


def fresh(method):
    """The pretrained segmenter with a linear head, tuned by a method."""
    return tuning.tune(segmenter("tiny", in_chans=4, classes=4, decoder="linear"), method)


model = fresh(LoRA(r=8))
layer = model.backbone.blocks[2].attn.qkv  # labkit's LoRALinear in the third block
print("A", tuple(layer.A.shape), "and B", tuple(layer.B.shape), ": first q's, then v's")
before = layer.A.detach().clone()
optimizer = torch.optim.AdamW(tuning.delta(model).values(), lr=1e-3, weight_decay=0.01)
largest = {"A": [], "B": []}
for step in range(5):
    images, truth = sample_slabs(train, 8, 1, model.size, torch.Generator().manual_seed(step))
    loss = dice_ce(model(images).flatten(0, 1), truth.flatten(0, 1))
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
# ## 5. Merge, and take back
#
# After training, $W = W_0 + \frac{\alpha}{r}BA$ is again one matrix of the old shape.
# The network is then as large and as fast as before tuning.
# Prompts (Lab 03) and adapters (Lab 06) cannot do that.
#
# ### Exercise 4: `merge` (2 points, about 4 minutes, easy)
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
# The lecture's slide takes the update out again by $W - BA = W_0$.
#
# > **Predict.** On paper that is an equation. On a computer every sum is rounded.
# > Of the 147,456 entries of a real $W_0$, how many come back exactly, to the last bit, in float32 and in
# > bfloat16 (numbers of 16 bits, in which large networks are often kept)?
# > Does a thousandth round of merging and subtracting do more harm than the first?

# %%
torch.manual_seed(0)
A, B = layer.A[0].detach(), 0.05 * torch.randn(384, 8)  # an update, as large as training might make it
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
#
# labkit's `tuning.merge` does it for all layers of a network.
# We give every $B$ random values, as if it had been trained.

# %%
with torch.no_grad():
    for name, p in model.named_parameters():
        if name.endswith(".B"):
            p.normal_(0, 0.05)
    model.eval()
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    apart = model(images)
    print(f"with A and B:  {sum(p.numel() for p in model.parameters()):,} parameters")
    torch.testing.assert_close(merge(W_q, layer.A[0], layer.B[0], alpha=8), layer.merged().weight[:384])
    tuning.merge(model)
    print(f"merged:        {sum(p.numel() for p in model.parameters()):,} parameters")
    print(f"output differs by at most {(model(images) - apart).abs().max():.0e}")
    tuning.unmerge(model)
same = all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
print(f"unmerged: every tensor is as before to the bit: {same}")
assert same

# %% [markdown]
# Merged and apart differ in the last digits: the same sums, added in another order.

# %% [markdown]
# ## 6. Three layers in one matrix
#
# Papers write $W_q$, $W_k$ and $W_v$ as three layers.
# timm, like many libraries, stacks them into one matrix, because one large product is faster than three.

# %%
qkv = layer.original
print("timm's qkv:", tuple(qkv.weight.shape), "= 3 x 384 outputs by 384 inputs; rows of q, then k, then v")

# %% [markdown]
# LoRA on q and v: two pairs $A_q, B_q$ and $A_v, B_v$, and k stays frozen.
# To the fused matrix that is a single update of 1152 x 384. What does it look like?
#
# > **Predict.** Another way, which Hugging Face's peft takes, is one pair for the whole fused matrix,
# > $A$ of 8 x 384 and $B$ of 1152 x 8.
# > Which way has more parameters? And what can each way do that the other cannot?
#
# ### Exercise 5: `fused` (3 points, about 6 minutes, medium)
#
# Return the update of the fused matrix for LoRA on q and v, at scale 1. No number such as 384 is needed:
# the shapes tell, and the check tries other sizes.


# %% labkit={"exercise": "fused", "role": "answer", "points": 3, "hides": ["labkit.methods.lora"]}
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
# ## 7. On patients
#
# Four patients to learn from, four others to be tested on, as in Lab 02.
# LoRA of rank 4 on q and v, 100 steps of 8 slices.
#
# > **Predict.** After training we switch the update off and leave the trained head on.
# > Will the tumour still be found? Better or worse than with the update?

# %%
recipe = Recipe(steps=100, lr=3e-3, batch_size=8)
models = {"q, v (r = 4)": fresh(LoRA(r=4, targets=("q", "v")))}
number = tuning.count(models["q, v (r = 4)"])
print(
    f"LoRA adds {number.inserted:,} parameters to {number.pretrained:,}; with the head {number.tuned:,} learn"
)
histories = {"q, v (r = 4)": fit(models["q, v (r = 4)"], train, recipe)}

# %%
test = [to_volume(case) for case in brain_patients("test", 4)]
patient = next(volume for volume in test if (volume.case.label == 4).any())
level = int((patient.case.label == 4).sum((1, 2)).argmax())  # the slice with the largest enhancing tumour
tuned = models["q, v (r = 4)"]
found = {"with the update": predict(tuned, patient)}
with tuning.bypass(tuned):
    found["without it, same head"] = predict(tuned, patient)
plots.show(
    plots.comparison(patient.case, found, level),
    "One slice of a test patient: FLAIR, the true labels, what the network finds with its LoRA update, and "
    "what the same head finds when the update is switched off.",
)

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# The two predictions differ by the update alone, 24,576 numbers. The head was trained *together* with it and
# expects what it does to the tokens.
# So "without" is not what head tuning would have reached: a head trained alone would have learned
# to do without it.
# The table below has such a row as its control.
# </details>

# %% [markdown]
# ## 8. Where should the parameters go?
#
# A transformer block has many matrices. The lecture's Table 5 gives GPT-3 175B 18 million parameters in seven
# ways and measures two tasks of language (Hu et al., 2021), as accuracy in percent.
# In WikiSQL a question becomes a database query; in MultiNLI one sentence follows from another, or does not.
# q, k and v you know; **o** is the matrix behind attention, which mixes what all heads found:
#
# | LoRA on | q | k | v | o | q, k | q, v | q, k, v, o |
# | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
# | rank | 8 | 8 | 8 | 8 | 4 | 4 | 2 |
# | WikiSQL (± 0.5) | 70.4 | 70.0 | 73.0 | 73.2 | 71.4 | **73.7** | **73.7** |
# | MultiNLI (± 0.1) | 91.0 | 90.8 | 91.0 | 91.3 | 91.3 | 91.3 | **91.7** |
#
# The rank falls as the number of matrices grows: only so are the seven equally large.
# It is the same for our network:

# %%
places = {("q",): 8, ("k",): 8, ("v",): 8, ("o",): 8, ("q", "k"): 4, ("q", "v"): 4, ("q", "k", "v", "o"): 2}
places |= {("fc1", "fc2"): 2, ("q", "k", "v", "o", "fc1", "fc2"): 1}
for targets, r in places.items():
    inserted = tuning.count(fresh(LoRA(r, targets=targets))).inserted
    print(f"{', '.join(targets):22} r = {r}: {inserted:,} parameters")

# %% [markdown]
# fc1 and fc2 are the two matrices of the block's MLP, the two linear layers that follow attention.
# The last two rows are no part of Table 5 and cannot be had at exactly that number:
# at the next rank they would be above it.
#
# You trained q, v. Take k alone, the worst of the seven for GPT-3, on the same slices for as many steps.
#
# > **Predict.** k decides what a token is *found by*, v what it *hands over*.
# > Which of the two networks will be better, and by how many points of Dice?
# > (As in Lab 02: enhancing tumour ET, whole tumour WT, tumour core TC.)

# %%
models["k (r = 8)"] = fresh(LoRA(r=8, targets=("k",)))
histories["k (r = 8)"] = fit(models["k (r = 8)"], train, recipe)

# %%
print(f"{'':14} {'ET':>6} {'WT':>6} {'TC':>6} {'mean':>6}")
for name, one in models.items():
    scores = evaluate(one, test, hausdorff=False, progress=True)
    dices = [*mean_by_region(scores).values(), mean_dice(scores)]
    print(f"{name:14}", *(f"{100 * value:6.1f}" for value in dices))

# %%
plots.show(plots.curves(histories), "Training loss against step for LoRA on q and v and for LoRA on k.")

# %% [markdown]
# <details><summary>How to think about it</summary>
#
# Whatever LoRA does to k (or to q) changes where a token looks: the attention weights, which are positive
# and sum to 1. What is handed over, $W_v x$, stays as it was.
# LoRA on v changes what is handed over, but not where tokens look.
# q, v does a little of both. Whether that pays is a question to the data, not to this argument.
# </details>
#
# One seed, four test patients, one learning rate: a hint, no finding.
# A table worth reading takes two learning rates for every place, three seeds, ten test patients.
# That takes longer than a lab, and a command of its own does it:
#
#     labkit sweep lora_places                     all rows, in the course's folder
#     labkit sweep lora_places --row "k, r = 8"    one row
#
# It trains for 150 steps on 20 patients and writes one line of results for each training.
# The next cell shows what is there. *Not computed yet* means that nobody has run the command for this row
# on this computer. Where that is so of all rows, read on at section 9 and come back when you have time.

# %%
made = store.results("lora_places")
Markdown(table(made))

# %%
figure = plots.patients_by_row(
    {row.name: statistics.scores(made.trainings(row)) for row in made.sweep.rows if made.trainings(row)},
    "Dice, mean of ET, WT and TC",
)
plots.show(
    figure,
    "Dice by where LoRA was put, sorted by its mean: grey dots are test patients, a blue diamond their mean "
    "with its deviation over seeds.",
)

# %% [markdown]
# > **Explain.** Which rows can you rank, and which not?
#
# <details><summary>How to read it</summary>
#
# Two means that differ by less than the bars of the seeds are not ranked by this table.
# Compare also how far apart the grey dots of one row are, and how far apart the diamonds of two rows.
# The patients are the same ten in every row, so comparing patient by patient says more than comparing
# clouds. Lab 07 does that.
#
# First ask of each row whether it beats the head alone. Then look whether the order is that of GPT-3.
# It need not be. Another network, another kind of data, and a budget of 24,576 instead of 18 million.
# In GPT-3's own table the seven lie within 3.7 points on one task and within 0.9 on the other.
# </details>

# %% [markdown]
# ## 9. Bonus: hand your update to others
#
# Others have the backbone already: you send the update, and the small head.
# Hugging Face's *peft* has a file format for updates, and `labkit.updates.peft_format` writes and reads it.
# peft knows one $A$ for each layer, so q's and v's are laid side by side.
# That makes an update of rank 8 out of two of rank 4, with zeros in $B$.

# %%
with tempfile.TemporaryDirectory() as folder:
    save_peft(tuned, folder)
    for path in sorted(Path(folder).iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1000:,.0f} kB")
    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    other = load_peft(fresh(LoRA(r=4, targets=("q", "v"))), folder)
print("rank of one layer in the file:", next(iter(config["rank_pattern"].values())))
weights = sum(p.numel() * p.element_size() for p in tuned.backbone.parameters())
print(f"the backbone it belongs to: {weights / 1000:,.0f} kB")
other.decoder.load_state_dict(tuned.decoder.state_dict())  # head and final norm are no part of the file
other.backbone.norm.load_state_dict(tuned.backbone.norm.state_dict())
print("the same segmentation as before:", (predict(other, patient) == found["with the update"]).all())

# %% [markdown]
# The file holds the LoRA alone, and the cell had to copy the head and the final norm by itself.
# labkit's own `tuning.save` keeps all that was trained.
#
# Try next, with what you have: `targets=("q", "k", "v", "o", "fc1", "fc2")`, r = 16.
# What does it cost, and what does it gain?

# %% [markdown]
# ## 10. Test yourself
#
# <details><summary>1. Why must not both matrices start at zero?</summary>
# Each one's gradient has the other as a factor. Both are zero then, and stay so for ever.
# </details>
#
# <details><summary>2. LoRA trains under 1 % of the numbers. Why does training not need under 1 % of the
# memory?</summary>
# Gradients travel back through all blocks, so the activations on their way have to be kept.
# For each tuned layer x and Ax are kept as well.
# What shrinks is Adam's two copies, and the gradients of the weights.
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
# ## 11. What changes on real data
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
