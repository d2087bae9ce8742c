# %% [markdown]
# # Lab 05: Rank
#
# LoRA asks for a number before it has seen any data: the rank $r$. What does this number buy, and how much
# of it is needed? In this lab you will
#
# 1. **read** a matrix as a sum of rank-one matrices, and **count** the directions that matter;
# 2. **compute** the singular values of an update from its two thin factors, without forming it;
# 3. **show** what full fine-tuning changes in a weight matrix, and how little of it a segmentation needs;
# 4. **cut** an update to any rank, and **explain** why LoRA's ranks have no order and DyLoRA's do;
# 5. **set** the two learning rates of LoRA+, and **explain** why B may learn faster than A.
#
# | | |
# | --- | --- |
# | Time | about 45 minutes |
# | Computer | any laptop, no GPU; one training of less than half a minute, less than 2 GB |
# | You know | Lab 04: $W = W_0 + \frac{\alpha}{r} BA$, with $B$ $(d, r)$ and $A$ $(r, k)$; matrix products |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# The last line sets the seeds and looks whether your computer has what the lab needs.

# %%
import dataclasses
import time

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from labkit.explore import deltas, plots
from labkit.explore.pictures import BLUE, GREEN, ORANGE, VERMILLION, unit
from labkit.explore.rank import RankExplorer
from labkit.lessons import start
from labkit.methods import DyLoRA, Full, LoRAPlus, dylora
from labkit.networks.anatomy import LINEARS, blocks
from labkit.phantoms.brain import brain_patient, split
from labkit.scans.slices import to_volume
from labkit.training.evaluate import evaluate, mean_dice
from labkit.training.fit import Recipe, fit, parameter_groups
from labkit.tuning import delta, tune
from labkit.updates import low_rank

lab = start("05")

# %% [markdown]
# ## 1. A picture as a sum
#
# Take two lists of numbers, $b$ with one for every row and $a$ with one for every column. Multiply each with
# each: $b\,a^\top$ is a matrix in which every row is the same row, more or less strongly. Its **rank** is 1.
# Every matrix is a sum of such pieces, and its rank is how many are needed:
#
# $$ W = \sum_{i=1}^{R} b_i\, a_i^\top $$
#
# There are many such sums. The **singular value decomposition** (SVD) gives the one whose pieces stand at
# right angles, sorted by size; the size of piece $i$ is the singular value $s_i \ge 0$:
#
# $$ W = \sum_{i=1}^{R} s_i\, u_i\, v_i^\top, \qquad s_1 \ge s_2 \ge \dots $$
#
# Cut after $r$ pieces, this sum is the closest matrix of rank $r$ that there is, in the sum of squares
# (Eckart and Young, 1936). A slice of a brain is a matrix too, so you can look at it.
#
# > **Predict.** The slice has 96 rows. How many pieces will you need until you recognise a brain? Until you
# > recognise the tumour?
# >
# > Your prediction: ...


# %%
def patients_of(part, n):
    """The first n patients of "train" or "test"; made at the first call, which takes a while."""
    return [brain_patient(seed) for seed in tqdm(split(part)[:n], desc=f"{part} patients", leave=False)]


patients = [case for case in patients_of("test", 4) if (case.label == 4).any()]  # with ET
case = patients[0]
level = int((case.label == 4).sum((1, 2)).argmax())  # the slice with the most enhancing tumour
flair = torch.from_numpy(case.image[-1, level])  # (96, 96)
U, s, Vh = torch.linalg.svd(flair)
figure = Figure(figsize=(11, 2.4), layout="constrained")
for panel, r in zip(figure.subplots(1, 6), (1, 2, 4, 8, 16, 96), strict=True):
    panel.imshow(U[:, :r] * s[:r] @ Vh[:r], cmap="gray", vmin=0, vmax=float(flair.max()))
    panel.set(xticks=[], yticks=[], title=f"{r} piece{'s' * (r > 1)}\n{min(r * 192, 96 * 96):,} numbers")
    panel.title.set_fontsize(10)
plots.show(
    figure,
    "A FLAIR slice as a sum of 1, 2, 4, 8, 16 and all 96 rank-one pieces: one piece is a blurred square of "
    "stripes, four give the outline of the brain and a bright patch, and with sixteen most of the anatomy is "
    "there.",
)

# %% [markdown]
# > **Explain.** One piece takes 96 + 96 numbers. From which number of pieces on is a sum no saving?
#
# <details><summary>Our explanation</summary>
#
# The whole slice has 96 x 96 numbers, so 48 pieces cost as much as the slice itself. The saving is large
# when few pieces suffice. Whether they do is a property of the matrix: a picture of noise would need nearly
# all of them. So the question of this lab is: **is the change that fine-tuning makes more like a picture, or
# more like noise?**
# </details>

# %% [markdown]
# ## 2. How many directions matter?
#
# The rank itself is a poor answer. The smallest noise makes every singular value a little larger than zero,
# and the rank full. Better: how many values hold most of the **energy**, the sum of all squared entries?
# For pieces at right angles the energies add up:
#
# $$ \sum_{j,k} W_{jk}^2 = \sum_i s_i^2 $$
#
# The **effective rank** at a share $p$ is the smallest $n$ whose first $n$ values hold at least that share:
#
# $$ \frac{s_1^2 + \dots + s_n^2}{s_1^2 + \dots + s_R^2} \ge p $$
#
# By hand: $s = (4, 3, 0)$ has the energies 16, 9 and 0. The first holds 16 of 25, so 1 value suffices for
# 60 %, and 2 for 90 %.
#
# ### Exercise 1: `effective_rank` (2 points, easy, 6 minutes)
#
# `s` is a tensor of singular values, largest first. Return a plain whole number. `cumsum` may help.


# %% labkit={"exercise": "effective_rank", "role": "answer", "points": 2, "hides": ["labkit.updates.low_rank"]}
def effective_rank(s, share):
    """The fewest singular values (R,), from the largest, that hold a share of the energy: an int."""
    ### BEGIN SOLUTION
    energy = s**2
    held = energy.cumsum(0) / energy.sum()
    return int((held < share).sum()) + 1
    ### END SOLUTION


# %% labkit={"exercise": "effective_rank", "role": "check"}
lab.check("effective_rank", effective_rank)

# %% [markdown]
# Stuck? `lab.hint("effective_rank")` gives a nudge; again, and it says more. The next line takes your
# function if it passed, and labkit's own if it did not.

# %%
effective_rank = lab.working("effective_rank", effective_rank)
noise = torch.randn(96, 96, generator=torch.Generator().manual_seed(0))
for name, matrix in {"FLAIR slice": flair, "noise": noise}.items():
    values = torch.linalg.svdvals(matrix)
    print(f"{name:12} rank {torch.linalg.matrix_rank(matrix):2}", end="")
    print("".join(f"   {share:.0%} in {effective_rank(values, share):2}" for share in (0.5, 0.9, 0.99)))

# %% [markdown]
# > **Explain.** Compare the shares with the pictures of section 1. Would you outline the tumour on the
# > picture that holds 90 % of the energy?
#
# <details><summary>Our explanation</summary>
#
# The slice has few strong directions, noise has many weak ones: that is what we wanted the number to tell.
# But energy is not meaning. A brain is bright everywhere, and the first pieces are spent on that. The border
# of the tumour sits in pieces that hold a few per cent. Keep this for section 7, where we cut an update and
# ask what it still does.
# </details>

# %% [markdown]
# ## 3. What full fine-tuning changes
#
# Full fine-tuning may change every number of a matrix $W_0$. Nothing keeps
#
# $$ \Delta W = W_{\text{tuned}} - W_0 $$
#
# from having full rank. Let us look. The network is that of lab 04: the pretrained backbone with a
# **linear** head, one matrix from a token to the labels of its pixels. Such a head can do little by itself,
# so that you see what the backbone learns.
#
# > **Predict.** A matrix of queries has 384 rows and 384 columns. After some dozens of steps of full
# > tuning: what is the rank of its ΔW? How many directions hold half of its energy, and how many 90 %? For
# > comparison: of a matrix of noise of this size, 70 values hold half and 196 hold 90 %.
# >
# > Your prediction: ...
#
# The training takes about 20 seconds.

# %%
pretrained = deltas.start()
tuned = tune(deltas.start(), Full())
train = [to_volume(one) for one in patients_of("train", 4)]
history = fit(tuned, train, Recipe(steps=80, lr=3e-4, batch_size=8))
print(f"full tuning: {len(history)} steps, loss {history[0]['loss']:.2f} -> {history[-1]['loss']:.2f}")


# %%
def matrix_of(model, block, layer):
    """A block's weight matrix q, k, v, o, fc1 or fc2, (d, k)."""
    place, part, of = LINEARS[layer]
    return blocks(model.backbone)[block].get_submodule(place).weight.detach().chunk(of)[part]


print(f"{'block 1':8}{'':14}{'rank':>6}{'50 %':>6}{'90 %':>6}")
values = {}
for layer in ("q", "v", "fc1"):
    W0 = matrix_of(pretrained, 1, layer)
    change = matrix_of(tuned, 1, layer) - W0
    noise = torch.randn(W0.shape, generator=torch.Generator().manual_seed(0))
    noise *= change.norm() / noise.norm()  # as much energy as the change has
    for name, matrix in {"pretrained": W0, "change": change, "noise": noise}.items():
        s = values[layer, name] = torch.linalg.svdvals(matrix)
        counts = [effective_rank(s, share) for share in (0.5, 0.9)]
        print(f"{layer:8}{name:14}{torch.linalg.matrix_rank(matrix):6}{counts[0]:6}{counts[1]:6}")

# %%
styles = {"pretrained": (GREEN, ":"), "change": (VERMILLION, "-"), "noise": (BLUE, "--")}
figure = Figure(figsize=(10, 3.2), layout="constrained")
for panel, layer in zip(figure.subplots(1, 3, sharey=True), ("q", "v", "fc1"), strict=True):
    for name, (colour, line) in styles.items():
        s = values[layer, name]
        panel.semilogy(range(1, len(s) + 1), s / s[0], line, color=unit(colour), label=name)
    panel.set(title=f"{layer}, block 1", xlabel="number of the singular value", ylim=(1e-4, 1.5))
    panel.grid(alpha=0.3)
figure.axes[0].set_ylabel("singular value / largest")
figure.axes[0].legend(frameon=False, loc="lower left")
plots.show(
    figure,
    "Singular values, relative to the largest, of three matrices: the pretrained weight, the change by full "
    "tuning, and noise. Those of the change fall steeply at first; those of noise fall slowly to the end.",
)

# %% [markdown]
# > **Explain.** Compare the rank with your prediction, then the other two columns. How can a matrix have
# > (nearly) full rank and so few directions?
#
# <details><summary>Our explanation</summary>
#
# The long tail makes the rank, the first few values make the change. A gradient is a sum over tokens, and
# tokens resemble each other, so a few directions dominate it. A part of the tail comes from the optimiser:
# Adam divides each number by its own running size, and its very first step is the learning rate times the
# **sign** of the gradient. The sign of a matrix of low rank need not be of low rank, as the next cell shows,
# on two made-up gradients and on the one that the last step of the training left behind.
# </details>

# %%
numbers = torch.Generator().manual_seed(0)
gradients = {
    f"made up, of rank {r}": torch.randn(384, r, generator=numbers) @ torch.randn(r, 384, generator=numbers)
    for r in (1, 4)
}
gradients["of q in block 1, last step"] = blocks(tuned.backbone)[1].attn.qkv.weight.grad[:384]
print(f"{'gradient':40}{'rank':>6}{'50 %':>6}{'90 %':>6}")
for name, gradient in gradients.items():
    for what, matrix in (("itself", gradient), ("its sign", gradient.sign())):
        s = torch.linalg.svdvals(matrix)
        counts = [effective_rank(s, share) for share in (0.5, 0.9)]
        print(f"{name:28}{what:12}{torch.linalg.matrix_rank(matrix):6}{counts[0]:6}{counts[1]:6}")

# %% [markdown]
# The sign of a product is the product of the signs, so rank 1 stays rank 1. From rank 2 on the sign fills the
# matrix with a little of everything. **"Full fine-tuning's update is of low rank" is false; "a few directions
# hold most of it" is what you can see.** LoRA bets that these few are enough.

# %% [markdown]
# ## 4. Singular values without the matrix
#
# The explorer below shows the singular values of an update while you move a slider. For LoRA there is a
# fast way. $\Delta W = BA$ is a large matrix, $(d, k)$, made of two thin ones. All that is not zero fits into
# $r \times r$. Write both as something with columns at right angles and length one, times something small
# (the QR decomposition):
#
# $$ B = Q_B R_B, \qquad A^\top = Q_A R_A \qquad \Rightarrow \qquad
#    BA = Q_B\,\big(R_B R_A^\top\big)\,Q_A^\top $$
#
# $Q_B$ and $Q_A$ turn and do not stretch. So the singular values of $BA$ are those of the small matrix in
# the middle.
#
# > **Think.** Why are they not the products of B's singular values with A's?
#
# <details><summary>Our answer</summary>
#
# $R_B R_A^\top$ first stretches along A's directions, then along B's. Only if the direction that A stretches
# most is also the one that B stretches most do the largest values multiply.
# </details>
#
# ### Exercise 2: `spectrum` (3 points, medium, 7 minutes)
#
# `torch.linalg.qr(M)` returns Q and R; `torch.linalg.svdvals(M)` the singular values.


# %% labkit={"exercise": "spectrum", "role": "answer", "points": 3, "hides": ["labkit.updates.low_rank"]}
def spectrum(B, A):
    """Singular values of BA, (r,), largest first; B (d, r), A (r, k), and BA is never formed."""
    ### BEGIN SOLUTION
    R_B = torch.linalg.qr(B).R
    R_A = torch.linalg.qr(A.T).R
    return torch.linalg.svdvals(R_B @ R_A.T)
    ### END SOLUTION


# %% labkit={"exercise": "spectrum", "role": "check"}
lab.check("spectrum", spectrum)

# %% [markdown]
# Now on an update that was trained: LoRA of rank 16 on all six linear layers of every block. The kit carries
# it; `labkit deltas rank-lora` made it. Yours against the slow way, and against labkit's.

# %%
spectrum = lab.working("spectrum", spectrum)
lora = deltas.update("rank-lora")  # the scale alpha / r is 1 here
one = lora.factors["2.fc1"]
print(f"fc1 of block 2: B {tuple(one.B.shape)}, A {tuple(one.A.shape)}")


def timed(what, repeats):
    """The result, and milliseconds per call."""
    what()  # the first call warms up
    begin = time.perf_counter()
    for _ in range(repeats):
        result = what()
    return result, 1000 * (time.perf_counter() - begin) / repeats


fast, fast_ms = timed(lambda: spectrum(one.B, one.A), 20)
slow, slow_ms = timed(lambda: torch.linalg.svdvals(one.B @ one.A)[:16], 3)
torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-4)
torch.testing.assert_close(fast, low_rank.spectrum(one), rtol=1e-4, atol=1e-5)
print(f"the same values; from the factors {fast_ms:.2f} ms, from the matrix {slow_ms:.1f} ms")

# %% [markdown]
# ## 5. Which of LoRA's ranks is the first?
#
# LoRA of rank 16 is a sum of 16 pieces as well, $b_1 a_1^\top + \dots + b_{16} a_{16}^\top$. It is tempting
# to speak of its first rank, or its third. Take any invertible matrix $M$ of size $r \times r$:
#
# $$ BA = (B M^{-1})\,(M A) $$
#
# > **Predict.** With a random $M$: how much does the sum of all 16 pieces change? How much does the first
# > piece?
# >
# > Your prediction: ...

# %%
M = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
B2, A2 = one.B @ torch.linalg.inv(M), M @ one.A
for r in (16, 1):
    before, after = one.B[:, :r] @ one.A[:r], B2[:, :r] @ A2[:r]
    print(f"first {r:2}: changed by {(after - before).norm() / before.norm():.4%} of its size")

# %% [markdown]
# > **Explain.** What did training decide, and what did it leave open?
#
# <details><summary>Our explanation</summary>
#
# The loss sees only the sum, and the sum is the same up to rounding. So training decides on $\Delta W$, and
# not on how it is split into pieces. The first piece is an accident of the random start. To cut LoRA's update
# to lower rank, one has to bring its pieces into an order first. The SVD does so: it is the choice of $M$
# that makes the pieces stand at right angles and sorts them.
# </details>
#
# `labkit.updates.low_rank.ordered` does this for every layer. The figure shows how much of the update is
# missing after $r$ pieces, $\|\Delta W - \Delta W_r\| / \|\Delta W\|$, over all layers.

# %%
sources = {
    "LoRA, its own order": (lora, BLUE, "--", "o"),
    "LoRA, ordered by SVD": (low_rank.ordered(lora), ORANGE, "-.", "s"),
}


def missing(update, r):
    """What the first r terms lack of the whole update, relative to it, over all layers."""
    pairs = [(f.at(update.rank), f.at(r)) for f in update.factors.values()]
    lack = sum((whole - cut).square().sum() for whole, cut in pairs)
    return float((lack / sum(whole.square().sum() for whole, _ in pairs)).sqrt())


def curves(panel, found):
    """Lines over rank: name -> {rank: value}."""
    for name, points in found.items():
        _, colour, line, marker = sources[name]
        panel.plot(*zip(*points.items(), strict=True), line, marker=marker, color=unit(colour), label=name)
    panel.set_xscale("symlog", base=2, linthresh=1)
    panel.set_xticks([0, 1, 2, 4, 8, 16], ["0", "1", "2", "4", "8", "16"], minor=False)
    panel.set_xlabel("rank r")
    panel.grid(alpha=0.3)


lacks = {name: {r: missing(u, r) for r in (0, 1, 2, 4, 8, 16)} for name, (u, *_) in sources.items()}
figure = Figure(figsize=(6, 3.4), layout="constrained")
panel = figure.subplots()
curves(panel, lacks)
panel.set_ylabel("missing of the update, relative")
panel.legend(frameon=False)
plots.show(
    figure,
    "What is missing of LoRA's update after r terms, for r from 0 to 16: the curve of the order by SVD lies "
    "below that of LoRA's own order at every rank between, and they meet at 0 and at 16.",
)

# %% [markdown]
# That the second curve is never above the first is a theorem (Eckart and Young). Whether a *segmentation*
# cares about the missing part is another question. It comes in section 7.

# %% [markdown]
# ## 6. DyLoRA: train the order
#
# Must one know the rank before training? One could train ranks 1, 2, 4, 8 and 16, and compare. That is five
# trainings. **DyLoRA** (Valipour et al., 2023) needs one, for every rank from 1 to $r$. Its idea is one line:
# in every step, draw a number $b$ between 1 and $r$, and use the first $b$ ranks only.
#
# $$ h = W_0 x + \tfrac{\alpha}{r}\, B_{:,:b}\, A_{:b}\, x, \qquad b \sim \mathrm{Uniform}\{1, \dots, r\} $$
#
# The first rank takes part in every step, also when it is alone; the last in one of $r$. So what is needed
# most has to go into the first ranks. Afterwards you cut where you like.
#
# One detail. The paper scales by $\alpha / b$, so that the total scale is that of a LoRA of rank $b$. Then a
# piece is multiplied by another number in every step, and the update of rank 2 is not that of rank 1 plus a
# piece. labkit keeps $\alpha / r$ for every $b$: **cutting is cutting**.
#
# ### Exercise 3: `truncate` (3 points, medium, 6 minutes)
#
# Return the update of a DyLoRA layer, cut to its first $b$ ranks. At $b = 0$ it is a matrix of zeros.


# %% labkit={"exercise": "truncate", "role": "answer", "points": 3, "hides": ["labkit.updates.low_rank"]}
def truncate(B, A, b, alpha):
    """The update (d, k) by the first b ranks; B (d, r), A (r, k), scaled by alpha / r."""
    ### BEGIN SOLUTION
    r = len(A)
    return alpha / r * B[:, :b] @ A[:b]
    ### END SOLUTION


# %% labkit={"exercise": "truncate", "role": "check"}
lab.check("truncate", truncate)

# %% [markdown]
# The proof, against labkit's layer: `dylora.at_rank` lets a network use its first $b$ ranks, and
# `dylora.truncate` throws the others away and leaves a plain LoRA of rank $b$. Since $B$ starts at zero, we
# fill it with random numbers.

# %%
truncate = lab.working("truncate", truncate)
network = tune(deltas.start(), DyLoRA(r=16, alpha=32, targets=("fc1",)))
layer = blocks(network.backbone)[1].mlp.fc1
torch.nn.init.normal_(layer.B, generator=torch.Generator().manual_seed(0))
W0, B, A = layer.original.weight, layer.B[0].detach(), layer.A[0].detach()
for b in (0, 1, 3, 16):
    with dylora.at_rank(network, b):
        torch.testing.assert_close(layer.weight, W0 + truncate(B, A, b, alpha=32), rtol=1e-4, atol=1e-4)
dylora.truncate(network, 3)
plain = blocks(network.backbone)[1].mlp.fc1
torch.testing.assert_close(plain.weight, W0 + truncate(B, A, 3, alpha=32), rtol=1e-4, atol=1e-4)
print(f"the same at rank 0, 1, 3 and 16; what is left is tuned by {network.tuned_by}")

# %% [markdown]
# ## 7. How much rank does a segmentation need?
#
# Now read four updates rank by rank, and segment with each:
#
# | update | made by |
# | --- | --- |
# | LoRA, rank 16 on all six linear layers, in its own order | `labkit deltas rank-lora` |
# | the same, its pieces ordered by SVD | |
# | DyLoRA, rank 16 on the same layers | `labkit deltas rank-dylora` |
# | full fine-tuning, each matrix cut by SVD | `labkit deltas rank-full` |
#
# `low_rank.Ranked(network, update).at(r)` sets every tuned matrix to $W_0 + B_{:,:r} A_{:r}$, with the head
# that was trained beside the update. Full tuning has also changed biases, norms and embeddings, which have no
# rank. They are as it left them from rank 1 on; the table also says what they do without any matrix.
#
# **What is rank 0?** It is the pretrained backbone, and still *not* what lab 01 called head tuning. Its head
# was trained for tokens that the update had changed, and now gets tokens without the change. The honest
# comparison for "no update" is a head that was trained for the unchanged backbone: the **linear probe**
# (`labkit deltas probe`). Both are in the table.
#
# > **Predict.** Sketch Dice over rank 0, 1, 2, 4, 8, 16 for LoRA in its own order, for LoRA ordered by SVD,
# > and for DyLoRA. Where is the largest step? Where does rank 0 lie, above or below the linear probe?
# >
# > Your prediction: ...
#
# Three test patients, every eighth slice; the bar shows how far it is.

# %%
thinned = [
    dataclasses.replace(one, image=one.image[:, ::8], label=one.label[::8], spacing_mm=(16.0, 2.0, 2.0))
    for one in patients
]
test = [to_volume(one) for one in thinned]
sources |= {
    "DyLoRA": (deltas.update("rank-dylora"), VERMILLION, "-", "^"),
    "full tuning, cut by SVD": (deltas.update("rank-full"), GREEN, ":", "D"),
}
ranks = (0, 1, 2, 4, 8, 16)
probe = mean_dice(evaluate(deltas.network("probe"), test, hausdorff=False))
dice = {name: {} for name in sources}
with tqdm(total=len(sources) * len(ranks), desc="reading by rank", leave=False) as bar:
    for name, (update, *_) in sources.items():
        ranked = low_rank.Ranked(deltas.start(), update)
        for r in ranks:
            dice[name][r] = mean_dice(evaluate(ranked.at(r), test, hausdorff=False))
            bar.update()
no_matrix = mean_dice(evaluate(ranked.at(1, layers=()), test, hausdorff=False))  # the last one: full tuning

per_rank = sum(len(f.B) + f.A.shape[1] for f in lora.factors.values())
print(f"{'mean Dice (ET, WT, TC)':26}" + "".join(f"{f'r = {r}':>9}" for r in ranks))
for name, found in dice.items():
    print(f"{name:26}" + "".join(f"{value:9.3f}" for value in found.values()))
print(f"{'numbers in the matrices':26}" + "".join(f"{r * per_rank:9,}" for r in ranks))
print(f"linear probe: {probe:.3f}; full tuning without its matrices: {no_matrix:.3f}")

# %%
figure = Figure(figsize=(7, 3.8), layout="constrained")
panel = figure.subplots()
curves(panel, dice)
panel.axhline(probe, color="black", linewidth=1, label="linear probe")
panel.set(ylabel="mean Dice of the test patients", ylim=(0, 1))
panel.legend(frameon=False, loc="lower right", fontsize=9)
plots.show(
    figure,
    "Mean Dice of the test patients over the rank at which four updates are read, 0 to 16, beside a "
    "level line for the linear probe; "
    + "; ".join(f"{name} {found[0]:.2f}, {found[1]:.2f}, {found[16]:.2f}" for name, found in dice.items())
    + " at rank 0, 1 and 16.",
)

# %% [markdown]
# > **Explain.** Look at the two curves of LoRA first: they are the same network at rank 0 and at rank 16.
# > What happens between? Then compare DyLoRA with LoRA ordered by SVD: which of the two chose its order by
# > looking at tumours?
#
# <details><summary>Our explanation</summary>
#
# At rank 0 the head reads tokens that it was not trained for. That is no statement about the pretrained
# backbone; the linear probe is.
#
# LoRA's own order is an accident, so a cut throws away an arbitrary part of what the network relies on. The
# SVD keeps the part with the most energy. DyLoRA was trained to segment at *every* $b$, so its first ranks
# have to serve alone. The SVD's order is the best for the sum of squares of $\Delta W$, and knows nothing of
# tumours; DyLoRA's order comes from the loss itself.
#
# For full tuning, compare rank 1 with the number below the table: the difference is what one piece in each of
# 24 matrices does.
#
# Three patients and one training each: a difference of two or three points says nothing, and where the curves
# cross at high rank may be another place with another seed.
# </details>
#
# Is DyLoRA's order also one by size? Look, and compare with the figure of section 5.

# %%
for name, (update, *_) in sources.items():
    if update.rank == 16:
        print(f"{name:22} missing after r terms:", end="")
        print("".join(f"{f'  r = {r}:'} {missing(update, r):.2f}" for r in (1, 2, 4, 8)))

# %% [markdown]
# **Near in the sum of squares and good at the task are two things.** An update from which much is missing
# may segment well, if the part that is there is the right one.
#
# ### The explorer
#
# Here are the same four updates on whole patients. In a browser the controls are live, and bars show the
# singular values of the update, those in use filled; in a printed or executed copy you see a still picture of
# the first update at several ranks.

# %%
RankExplorer(patients)

# %% [markdown]
# > **Question.** Choose an update and move the rank upwards from 0. Between which two ranks does the tumour
# > take its shape, and from which rank on do only single voxels at its border change? Answer it for DyLoRA,
# > then for LoRA in its own order.
# >
# > Your answer: ...
#
# <details><summary>How to check your answer</summary>
#
# Look at the table above: the tumour takes its shape where the row of your update makes its largest step.
# For LoRA in its own order this says nothing about tumours: another $M$ in section 5 would put the step
# elsewhere, for the same network at rank 16. And tick *linear probe instead* when you are at rank 0: a head
# without the update it was trained beside, and a head that never needed one.
# </details>

# %% [markdown]
# ## 8. When is rank 1 enough?
#
# Hu et al. (2021, arXiv:2106.09685, section 7.2) found that for GPT-3 and two data sets a rank of 1 sufficed,
# if the query and the value matrices were both adapted; with queries alone it did not. The lecture says:
# *for some data sets a rank of $r = 1$ is sufficient*. Read your table again with three questions:
#
# * **In how many places?** Rank 1 on six matrices of four blocks is 24 directions, not one. Fewer layers need
#   more rank each. In the explorer, set the layers to *q and v*, and ask again.
# * **How far away is the task?** From sentences to other sentences is near. From photographs to MRI is
#   farther. The authors say themselves that a small rank can't be expected to do for every task, and name
#   another language as an example.
# * **Who else learns?** A head trains beside the update. A strong head does the work itself, and then no
#   curve over rank shows anything. That is why this lab has a linear one.
#
# And a question that the table can't answer: a network *trained* at rank 1 is not a network cut to rank 1.
# It knows that it has nothing else. To learn which rank a task needs, train at that rank, with a learning
# rate chosen for that rank.

# %% [markdown]
# ## 9. LoRA+: two rates
#
# $A$ and $B$ have one learning rate in LoRA. Should they? Adam moves every number by about the rate, however
# large the gradient is. So count what a move does to the output. Give a layer one token $x$ with $n$ numbers
# of size about 1.
#
# * Move every entry of $A$ $(r, n)$ by the rate, each in the direction that helps: each of the $r$ numbers of
#   $Ax$ changes by a sum of **$n$** terms.
# * Move every entry of $B$ $(n, r)$ by the rate: each of the $n$ numbers of the output changes by a sum of
#   **$r$** terms.
#
# > **Predict.** $r = 4$. From width 64 to width 1024, how many times larger does the effect of moving $A$
# > become, and that of moving $B$?
# >
# > Your prediction: ...

# %%
rate, r = 1e-3, 4
numbers = torch.Generator().manual_seed(0)
print(f"{'width':>6} {'A moves: change of Ax':>24} {'B moves: change of the output':>32}")
for n in (64, 256, 1024):
    x = torch.randn(n, generator=numbers)
    A = torch.randn(r, n, generator=numbers) / n**0.5  # so that Ax is of size about 1
    by_A = (rate * x.sign().expand(r, n) @ x).abs().mean()  # each entry moves along the sign of its input
    by_B = (rate * (A @ x).sign().expand(n, r) @ (A @ x)).abs().mean()
    print(f"{n:6} {by_A:24.4f} {by_B:32.4f}")

# %% [markdown]
# > **Explain.** A rate that is right for $A$ at width 1024: what is it for $B$?
#
# <details><summary>Our explanation</summary>
#
# The effect of $A$'s move grows with the width, that of $B$'s stays where it is. So the wider the network,
# the smaller a rate $A$ can bear, and with that rate $B$ hardly moves. Hayou et al. (2024, arXiv:2402.12354)
# make this precise: for both to learn efficiently, $\eta_A$ must fall as $1/n$ while $\eta_B$ does not.
# </details>
#
# **LoRA+** is LoRA with two rates:
#
# $$ \eta_B = \lambda\, \eta_A, \qquad \lambda > 1 $$
#
# The number of parameters, the start and the merged matrix are LoRA's. The theory gives the order of
# $\lambda$ and no number; the paper's experiments recommend about 16, with $\eta_A$ chosen anew.
#
# ### Exercise 4: `rates` (2 points, easy, 4 minutes)
#
# `names` are names of parameters, as `"q.A"`, `"q.B"` and `"head.weight"`. Return a dictionary with the
# learning rate of each. Whatever is neither an A nor a B has the plain rate.


# %% labkit={"exercise": "rates", "role": "answer", "points": 2}
def rates(names, lr, ratio):
    """Learning rate by name: that of every B is `ratio` times as large."""
    ### BEGIN SOLUTION
    return {name: lr * ratio if name.endswith(".B") else lr for name in names}
    ### END SOLUTION


# %% labkit={"exercise": "rates", "role": "check"}
lab.check("rates", rates)

# %% [markdown]
# The proof: the rates with which labkit trains `LoRAPlus`. (Its head has a rate of its own, the same for
# every method, so we compare what is in the blocks.)

# %%
rates = lab.working("rates", rates)
network = tune(deltas.start(), LoRAPlus(r=8, ratio=16))
groups = parameter_groups(network, Recipe(lr=1e-3))
theirs = {id(p): group["peak"] for group in groups for p in group["params"]}
mine = rates(list(delta(network)), lr=1e-3, ratio=16)
inserted = {name: p for name, p in delta(network).items() if name.endswith((".A", ".B"))}
assert all(np.isclose(mine[name], theirs[id(p)]) for name, p in inserted.items())
for name in list(inserted)[:2]:
    print(f"{name:36} {mine[name]:.3f}")
print(f"... and the same for all {len(inserted)} matrices")

# %% [markdown]
# ## 10. Rank is not "intrinsic dimension"
#
# The lecture motivates LoRA with a finding: pretrained networks have a low *intrinsic dimension*
# (Aghajanyan et al., 2020, arXiv:2012.13255). It is the number of free parameters with which one can still
# tune the whole network, along random directions in the space of all weights. That is not rank:

# %%
direction = torch.randn(384, 384, generator=torch.Generator().manual_seed(0))
rank_one = torch.outer(direction[0], direction[:, 0])
for what, free, matrix in (
    ("t times a fixed random matrix", 1, 0.01 * direction),
    ("b a^T, both free", 384 + 384, rank_one),
):
    print(f"{what:32} free numbers {free:4}, rank {torch.linalg.matrix_rank(matrix):4}")

# %% [markdown]
# One free number, and full rank; 768 free numbers, and rank 1. Low intrinsic dimension says that few
# *numbers* need to be found. Low rank says that a matrix acts in few *directions*. That the first is true
# makes one hope for the second. It does not prove it.

# %% [markdown]
# ## 11. Bonus: does LoRA+ learn faster here?
#
# Train two networks on the four patients of section 3 for 60 steps each, `LoRA(r=8)` and
# `LoRAPlus(r=8, ratio=16)`, and draw both losses with `plots.curves({"LoRA": ..., "LoRA+": ...})`. Then try
# three rates for each. Is LoRA+ better than LoRA **at LoRA's best rate**? This is the comparison that counts,
# and the one that is easily left out. Our backbone is 384 wide; the argument of section 9 is about wide
# networks.

# %% [markdown]
# ## 12. Test yourself
#
# <details><summary>1. Can an update of rank 4 change the rank of W0, and by how much?</summary>
# Yes, by at most 4, up or down. It can also leave the rank as it is and change the matrix entirely in four
# directions.
# </details>
#
# <details><summary>2. A colleague plots "the third rank of LoRA" layer by layer. What do you say?</summary>
# That it has no meaning: (B M⁻¹)(M A) is the same update with other pieces, for any invertible M. Order the
# pieces by SVD first, or train with DyLoRA.
# </details>
#
# <details><summary>3. Is cutting by SVD always the best way to a lower rank?</summary>
# It is the closest in the sum of squares of the weights. The best for the task is another question: it
# depends on what the tokens are like and on what the loss cares about.
# </details>
#
# <details><summary>4. You read DyLoRA at rank 0. Is the result that of the pretrained network?</summary>
# Of the pretrained backbone, yes; but with a head that was trained beside the update. For "no update" train a
# head for the unchanged backbone, the linear probe.
# </details>
#
# <details><summary>5. Which of the two factors learns faster in LoRA+, and why does width matter?</summary>
# B. A sums over the n inputs of the layer, so a move of all its entries has an effect that grows with n; B
# sums over r. One rate for both is too small for B in a wide network.
# </details>

# %% [markdown]
# ## 13. What changes on real data
#
# * Ranks from 4 to 64 are tried in practice. More data, and data farther from those of pre-training, can use
#   more rank.
# * The scale moves with the rank. With $\alpha$ fixed, $\alpha / r$ makes a high rank learn slowly. A fair
#   comparison of ranks has a learning rate for each, chosen on validation patients; a table over rank at one
#   rate is a table over rate as well.
# * Our curves come from three patients who don't exist, and one training each. Before you choose a rank for a
#   hospital, read the curve on its validation patients, with several seeds, region by region.

# %%
lab.progress()
