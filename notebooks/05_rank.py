# %% [markdown]
# # Lab 05: Rank
#
# LoRA asks for a number before it has seen any data: the rank $r$. What does this number buy, and how much
# of it is needed? In this lab you will
#
# 1. **read** a matrix as a sum of rank-one pieces, first by hand, and **count** the directions that matter;
# 2. **show** what full fine-tuning changes in a weight matrix, beside noise of the same size;
# 3. **explain** why LoRA's pieces have no order and DyLoRA's do, and **cut** an update to any rank;
# 4. **judge** how much rank a segmentation needs, beside a linear probe and with three seeds;
# 5. **choose** a rank for a budget, and **defend** it;
# 6. in part two: **compute** an update's singular values without the update, **run** LoRA+ beside LoRA, and
#    **meet** LongLoRA and LNLoRA.
#
# | | |
# | --- | --- |
# | Time | part one, sections 1 to 8: about 80 minutes; part two, sections 9 to 13: about 50 more |
# | The 45-minute path | sections 1, 2, 5 and 6, then the figure of 7; run the cells of 3 and 4 without reading them |
# | Points | 7 in part one, 6 in part two |
# | Computer | any laptop, no GPU; trainings of half a minute and less |
# | Counted | 115 minutes with all exercises: 4,631 words, 582 lines of code, 5 exercises, 4 minutes of computing; 1.4 GB of memory |
# | You know | Lab 04: $W = W_0 + \frac{\alpha}{r} BA$, with $B$ $(d, r)$ and $A$ $(r, k)$; matrix products |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# The last line sets the seeds and checks whether your computer has what the lab needs.

# %%
import dataclasses
import time
from itertools import pairwise

import numpy as np
import torch
from IPython.display import Markdown
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from labkit.explore import deltas, plots
from labkit.explore.pictures import BLUE, GREEN, ORANGE, PURPLE, VERMILLION, unit
from labkit.explore.rank import RankExplorer
from labkit.lessons import start
from labkit.methods import DyLoRA, Full, Head, LNLoRA, LongLoRA, LoRA, LoRAPlus, dylora
from labkit.methods.long_lora import GROUPS, grouped
from labkit.metrics import mean_by_region
from labkit.networks.anatomy import LINEARS, blocks
from labkit.phantoms.kidney import kidney_patients
from labkit.scans.slices import to_volume
from labkit.studies import store
from labkit.studies.table import apart_of, best_by_validation, table, threshold_beside
from labkit.training.evaluate import evaluate, mean_dice
from labkit.training.fit import Recipe, fit, fresh
from labkit.training.quick import PATIENTS, at_most
from labkit.training.threshold import best_bands, evaluate_bands
from labkit.tuning import count, delta, tune
from labkit.updates import low_rank

lab = start("05")


def explanation(*sentences):
    """A fold whose sentences were made from the numbers above it."""
    text = "\n\n".join(sentences)
    return Markdown(f"<details><summary>Our explanation</summary>\n\n{text}\n\n</details>")


# %% [markdown]
# ## 1. A matrix as a sum
#
# Take two lists of numbers, $b$ with one for every row and $a$ with one for every column. Multiply each with
# each: $b\,a^\top$ is a matrix in which every row is the same row, more or less strongly. Its **rank** is 1.
# Every matrix is a sum of such pieces, and its rank is how many are needed:
#
# $$ W = \sum_{i=1}^{R} b_i\, a_i^\top $$
#
# **By hand.** Here is a matrix of rank 2, one piece for each of its rows:
#
# $$ \begin{pmatrix} 2 & 2 \\ -1 & 1 \end{pmatrix}
#    = \begin{pmatrix} 1 \\ 0 \end{pmatrix} (2 \;\; 2) + \begin{pmatrix} 0 \\ 1 \end{pmatrix} (-1 \;\; 1) $$
#
# Its two rows stand at right angles: $2 \cdot (-1) + 2 \cdot 1 = 0$. Then the pieces do not overlap, and the
# size of each can be read off. It is the length of its row, $\sqrt 8$ and $\sqrt 2$. Leave out the smaller
# piece, and what is missing are the squares $(-1)^2 + 1^2 = 2$ of the $8 + 2 = 10$ in all. No other matrix of
# rank 1 comes closer.
#
# **When rows lean.** The rows of $\begin{pmatrix} 2 & 2 \\ 1 & 0 \end{pmatrix}$ are *not* at right angles.
# Leave out the smaller one, and the sum of squares that is missing is $1$.
#
# > **Predict.** Is there a matrix of rank 1 that misses less than 1?
# >
# > Your prediction: ...

# %%
leaning = torch.tensor([[2.0, 2.0], [1.0, 0.0]])
U, s, Vh = torch.linalg.svd(leaning)
pieces = [s[i] * torch.outer(U[:, i], Vh[i]) for i in range(2)]
print(
    "two pieces at right angles:", *(piece.double().numpy().round(2).tolist() for piece in pieces), sep="\n"
)
print(f"their sum: {(sum(pieces).double().numpy().round(2) + 0.0).tolist()}; sizes {s[0]:.2f} and {s[1]:.2f}")
print(f"without the second, squares of {s[1] ** 2:.2f} are missing")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# Yes. Where rows lean on each other, a piece that points *between* them can hold something of both. To find
# the best one, all has to be turned until the pieces stand at right angles. That is what the **singular value
# decomposition** (SVD) does:
#
# $$ W = \sum_{i=1}^{R} s_i\, u_i\, v_i^\top, \qquad s_1 \ge s_2 \ge \dots \ge 0 $$
#
# $u_i$ and $v_i$ have length one, and the **singular value** $s_i$ is the size of piece $i$. Cut after $r$
# pieces, this sum is the closest matrix of rank $r$ that there is, in the sum of squares (Eckart and Young,
# 1936). How it is computed is not our subject; you need only what it gives.
# </details>
#
# A slice of a CT scan is a matrix too, so you can look at its pieces.
#
# > **Predict.** The slice has 96 rows. How many pieces will you need until you recognise the kidneys? And
# > the tumour, the mass that bulges out of one of them?
# >
# > Your prediction: ...

# %%
patients = kidney_patients("test", 4)
case = patients[2]
level = int((case.label == 2).sum((1, 2)).argmax())  # the slice with the most tumour
ct = torch.from_numpy(case.image[0, level] - case.image.min())  # (96, 96), black is 0
U, s, Vh = torch.linalg.svd(ct)
figure = Figure(figsize=(11, 2.4), layout="constrained")
for panel, r in zip(figure.subplots(1, 6), (1, 2, 4, 8, 16, 96), strict=True):
    panel.imshow(U[:, :r] * s[:r] @ Vh[:r], cmap="gray", vmin=0, vmax=float(ct.max()))
    panel.set(xticks=[], yticks=[], title=f"{r} piece{'s' * (r > 1)}\n{min(r * 192, 96 * 96):,} numbers")
    panel.title.set_fontsize(10)
plots.show(
    figure,
    "A CT slice of the abdomen as a sum of 1, 2, 4, 8, 16 and all 96 rank-one pieces: one piece is a pattern "
    "of stripes, a few give the outline of the trunk, and with sixteen most of the anatomy is there.",
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
# For pieces at right angles the energies add up, as $8 + 2 = 10$ did above:
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
SHARES = (0.5, 0.9, 0.99)
noise = torch.randn(96, 96, generator=torch.Generator().manual_seed(0))
needed = {}
for name, matrix in {"CT slice": ct, "noise": noise}.items():
    singular = torch.linalg.svdvals(matrix)
    needed[name] = [effective_rank(singular, share) for share in SHARES]
    print(f"{name:12} rank {torch.linalg.matrix_rank(matrix):2}", end="")
    print("".join(f"   {share:.0%} in {n:2}" for share, n in zip(SHARES, needed[name], strict=True)))

# %% [markdown]
# > **Explain.** Compare the shares with the pictures of section 1. Would you outline the tumour on the
# > picture that holds 90 % of the energy?

# %%
explanation(
    f"90 % of the slice's energy is in {needed['CT slice'][1]} of 96 pieces, of noise in "
    f"{needed['noise'][1]}. Few strong directions against many weak ones: that is what we wanted the number "
    "to tell.",
    "But energy is not meaning. A trunk is bright all over, and the first pieces are spent on that. Try to "
    f"outline the tumour on the panel nearest to {needed['CT slice'][1]} pieces: its border sits in pieces that "
    "hold a few per cent. Keep this for section 6, where we cut an update and ask what it still does.",
)

# %% [markdown]
# ## 3. What full fine-tuning changes
#
# Full fine-tuning may change every number of a matrix $W_0$. Nothing keeps
#
# $$ \Delta W = W_{\text{tuned}} - W_0 $$
#
# from having full rank. Let us look. The network is that of lab 04: the pretrained backbone with a
# **linear** head, one matrix from a token to the labels of its pixels. Such a head can only weigh what a token
# already says; what the token does not say, the backbone has to learn. (Blocks are counted from 0: *block 1* is
# the second.)
#
# > **Predict.** A matrix of queries has 384 rows and 384 columns. After some dozens of steps of full
# > tuning: what is the rank of its ΔW? How many directions hold half of its energy, and how many 90 %? For
# > comparison: of a matrix of noise of this size, 70 values hold half and 196 hold 90 %.
# >
# > Your prediction: ...
#
# The training takes about half a minute.

# %%
train = [to_volume(one) for one in kidney_patients("train", at_most(4, PATIENTS))]
pretrained, tuned = deltas.start(), tune(deltas.start(), Full())
history = fit(tuned, train, Recipe(steps=60, lr=1e-4, head_lr=4e-3, batch_size=8))
print(f"full tuning: {len(history)} steps, loss {history[0]['loss']:.2f} -> {history[-1]['loss']:.2f}")


# %%
def matrix_of(model, block, layer):
    """A block's weight matrix q, k, v, o, fc1 or fc2, (d, k)."""
    place, part, of = LINEARS[layer]
    return blocks(model.backbone)[block].get_submodule(place).weight.detach().chunk(of)[part]


print(f"{'block 1':8}{'':14}{'rank':>6}{'50 %':>6}{'90 %':>6}")
values, counts = {}, {}
for layer in ("q", "v", "fc1"):
    W0 = matrix_of(pretrained, 1, layer)
    change = matrix_of(tuned, 1, layer) - W0
    noise = torch.randn(W0.shape, generator=torch.Generator().manual_seed(0))
    noise *= change.norm() / noise.norm()  # as much energy as the change has
    for name, matrix in {"pretrained": W0, "change": change, "noise": noise}.items():
        s = values[layer, name] = torch.linalg.svdvals(matrix)
        rank = int(torch.linalg.matrix_rank(matrix))
        counts[layer, name] = (rank, *(effective_rank(s, share) for share in (0.5, 0.9)))
        print(f"{layer:8}{name:14}" + "".join(f"{n:6}" for n in counts[layer, name]))

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
    "Singular values, relative to the largest, of the pretrained weight, the change by full tuning, and noise, "
    "for q, v and fc1. Directions that hold half of the energy of the change: "
    + ", ".join(f"{layer} {counts[layer, 'change'][1]}" for layer in ("q", "v", "fc1"))
    + "; of noise: "
    + ", ".join(str(counts[layer, "noise"][1]) for layer in ("q", "v", "fc1"))
    + ".",
)

# %% [markdown]
# > **Explain.** Compare the rank with your prediction, then the other two columns. How can a matrix have
# > (nearly) full rank and so few directions?

# %%
(rank, half, most), (_, noise_half, noise_most) = counts["q", "change"], counts["q", "noise"]
explanation(
    f"The change of q has rank {rank}; but {half} of its directions hold half of the energy and {most} hold "
    f"90 %, where noise takes {noise_half} and {noise_most}. "
    + (
        "The long tail makes the rank, the first few values make the change. A gradient is a sum over "
        "tokens, and tokens resemble each other, so a few directions dominate it."
        if half < noise_half / 2
        else "In this run that is not far from noise: after few steps there is little to see yet."
    ),
    'So **"full fine-tuning\'s update is of low rank" is false; "a few directions hold much of it" is what '
    "you can see.** LoRA bets that these few are enough. (Where the tail comes from is an experiment in the "
    "bonus section.)",
)

# %% [markdown]
# ## 4. Which of LoRA's pieces is the first?
#
# LoRA of rank 16 is a sum of 16 pieces as well, $b_1 a_1^\top + \dots + b_{16} a_{16}^\top$, with $b_i$ the
# columns of $B$ and $a_i$ the rows of $A$. It is tempting to speak of its first rank, or its third.
#
# **By hand.** The matrix of section 1 can be written as $BA$ in more than one way:
#
# $$ \begin{pmatrix} 2 & 2 \\ -1 & 1 \end{pmatrix}
#    = \begin{pmatrix} 2 & 0 \\ 0 & 1 \end{pmatrix} \begin{pmatrix} 1 & 1 \\ -1 & 1 \end{pmatrix}
#    = \begin{pmatrix} 2 & -2 \\ 0 & 1 \end{pmatrix} \begin{pmatrix} 0 & 2 \\ -1 & 1 \end{pmatrix} $$
#
# The first piece, column times row, is $\begin{pmatrix} 2 & 2 \\ 0 & 0 \end{pmatrix}$ in the one and
# $\begin{pmatrix} 0 & 4 \\ 0 & 0 \end{pmatrix}$ in the other. The sum is the same. In general any invertible
# matrix $M$ of size $r \times r$ may be put between the two:
#
# $$ BA = (B M^{-1})\,(M A) $$
#
# Now on an update that was trained: LoRA of rank 16 on all six linear layers of every block. The kit carries
# it; `labkit deltas rank-lora` made it.
#
# > **Predict.** With a random $M$: how much does the sum of all 16 pieces change? How much does the first
# > piece?
# >
# > Your prediction: ...

# %%
lora = deltas.update("rank-lora")  # the scale alpha / r is 1 here
one = lora.factors["2.fc1"]
print(f"fc1 of block 2: B {tuple(one.B.shape)}, A {tuple(one.A.shape)}")
M = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
B2, A2 = one.B @ torch.linalg.inv(M), M @ one.A
for r in (16, 1):
    before, after = one.B[:, :r] @ one.A[:r], B2[:, :r] @ A2[:r]
    print(f"first {r:2}: changed by {(after - before).norm() / before.norm():.2g} times its size")

# %% [markdown]
# > **Explain.** What did training decide, and what did it leave open?
#
# <details><summary>Our explanation</summary>
#
# The loss sees only the sum, and the sum is the same up to rounding. So training decides on $\Delta W$, and
# not on how it is split into pieces. (Physicists call such a freedom a *gauge* freedom.) The first piece is an
# accident of the random start. To cut LoRA's update to a lower rank, one has to bring its pieces into an order
# first. The SVD does so: it is the choice of $M$ that makes the pieces stand at right angles and sorts them.
# </details>
#
# `labkit.updates.low_rank.ordered` does this for every layer; in section 10 you write it yourself. The figure
# shows how much of the update is missing after $r$ pieces, $\|\Delta W - \Delta W_r\| / \|\Delta W\|$, over
# all layers.

# %%
RANKS = (0, 1, 2, 4, 8, 16)
sources = {
    "LoRA, its own order": (lora, BLUE, "--", "o"),
    "LoRA, ordered by SVD": (low_rank.ordered(lora), ORANGE, "-.", "s"),
}


def missing(update, r):
    """What the first r pieces lack of the whole update, relative to it, over all layers."""
    pairs = [(f.at(update.rank), f.at(r)) for f in update.factors.values()]
    lack = sum((whole - cut).square().sum() for whole, cut in pairs)
    return float((lack / sum(whole.square().sum() for whole, _ in pairs)).sqrt())


def over_rank(panel, found):
    """Lines over rank: name -> {rank: value}."""
    for name, points in found.items():
        _, colour, line, marker = sources[name]
        panel.plot(*zip(*points.items(), strict=True), line, marker=marker, color=unit(colour), label=name)
    panel.set_xscale("symlog", base=2, linthresh=1)
    panel.set_xticks(RANKS, [str(r) for r in RANKS], minor=False)
    panel.set_xlabel("rank r")
    panel.grid(alpha=0.3)


lacks = {name: {r: missing(update, r) for r in RANKS} for name, (update, *_) in sources.items()}
figure = Figure(figsize=(6, 3.4), layout="constrained")
panel = figure.subplots()
over_rank(panel, lacks)
panel.set_ylabel("missing of the update, relative")
panel.legend(frameon=False)
plots.show(
    figure,
    "What is missing of LoRA's update after r pieces, for r from 0 to 16: the curve of the order by SVD lies "
    "below that of LoRA's own order at every rank between, and they meet at 0 and at 16.",
)

# %% [markdown]
# That the second curve is never above the first is a theorem (Eckart and Young). Whether a *segmentation*
# cares about the missing part is another question. It comes in section 6.

# %% [markdown]
# ## 5. DyLoRA: train the order
#
# Must one know the rank before training? One could train ranks 1, 2, 4, 8 and 16, and compare. That is five
# trainings. **DyLoRA** (Valipour et al., 2023, arXiv:2210.07558) needs one, for every rank from 1 to $r$. Its
# idea is one line: in every step, draw a number $b$ between 1 and $r$, and use the first $b$ ranks only.
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
# ### Exercise 2: `truncate` (2 points, easy, 6 minutes)
#
# Return the update of a DyLoRA layer, cut to its first $b$ ranks. At $b = 0$ it is a matrix of zeros.


# %% labkit={"exercise": "truncate", "role": "answer", "points": 2, "hides": ["labkit.updates.low_rank"]}
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
# ## 6. How much rank does a segmentation need?
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
# that was trained beside the update.
#
# **What is rank 0?** It is the pretrained backbone, and still *not* what lab 01 called head tuning. Its head
# was trained for tokens that the update had changed, and now gets tokens without the change. The honest
# comparison for "no update" is a head that was trained for the unchanged backbone: the **linear probe**
# (`labkit deltas probe`), our control.
#
# Full tuning has also changed biases, norms and embeddings, which have no rank. They are as it left them from
# rank 1 on; so it gets a control of its own, *without its matrices*.
#
# > **Predict.** Sketch Dice over rank 0, 1, 2, 4, 8, 16 for LoRA in its own order, for LoRA ordered by SVD,
# > and for DyLoRA. Where is the largest step? Where does rank 0 lie, above or below the linear probe?
# >
# > Your prediction: ...
#
# Four test patients, every sixth slice; the bar shows how far it is.

# %%
test = [
    to_volume(
        dataclasses.replace(one, image=one.image[:, ::6], label=one.label[::6], spacing_mm=(18.0, 3.0, 3.0))
    )
    for one in patients[: at_most(4, 1)]
]
sources |= {
    "DyLoRA": (deltas.update("rank-dylora"), VERMILLION, "-", "^"),
    "full tuning, cut by SVD": (deltas.update("rank-full"), GREEN, ":", "D"),
}


def dices(network):
    """Dice of kidney and of tumour, each the mean over the patients, and the mean of the two."""
    rows = evaluate(network, test, hausdorff=False)
    return {**mean_by_region(rows), "mean": mean_dice(rows)}


band = mean_by_region(evaluate_bands(best_bands(train), test))  # lab 01's, of four patients: no network
probe = dices(deltas.network("probe"))
found = {name: {} for name in sources}
with tqdm(total=len(sources) * len(RANKS), desc="reading by rank", leave=False) as bar:
    for name, (update, *_) in sources.items():
        ranked = low_rank.Ranked(deltas.start(), update)
        for r in RANKS:
            found[name][r] = dices(ranked.at(r))
            bar.update()
no_matrix = dices(ranked.at(1, layers=()))  # the last one: full tuning

per_rank = sum(len(f.B) + f.A.shape[1] for f in lora.factors.values())
print(f"{'Dice: kidney / tumour':26}" + "".join(f"{f'r = {r}':>12}" for r in RANKS))
for name, by_rank in found.items():
    cells = (f"{one['kidney']:.2f} / {one['tumour']:.2f}" for one in by_rank.values())
    print(f"{name:26}" + "".join(f"{cell:>12}" for cell in cells))
print(f"{'numbers in the matrices':26}" + "".join(f"{r * per_rank:12,}" for r in RANKS))
print(f"a threshold, no network {band['kidney']:.2f} / {band['tumour']:.2f}; ", end="")
print(f"linear probe {probe['kidney']:.2f} / {probe['tumour']:.2f}; ", end="")
print(f"full tuning without its matrices {no_matrix['kidney']:.2f} / {no_matrix['tumour']:.2f}")

# %%
mean = {name: {r: one["mean"] for r, one in by_rank.items()} for name, by_rank in found.items()}
top = max(value for points in mean.values() for value in points.values())
figure = Figure(figsize=(10, 3.8), layout="constrained")
wide, near = figure.subplots(1, 2)
for panel in (wide, near):
    over_rank(panel, mean)
    panel.axhline(probe["mean"], color="black", linewidth=1, label="linear probe")
wide.set(title="all of it", ylabel="mean Dice of kidney and tumour", ylim=(0, None))
near.set(title="near the linear probe", ylim=(probe["mean"] - 0.12, max(top, probe["mean"]) + 0.03))
figure.legend(*wide.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
plots.show(
    figure,
    "Mean Dice of the test patients over the rank at which four updates are read, 0 to 16, beside a level "
    "line for the linear probe, on the left all of it and on the right a narrow range around the probe; "
    + "; ".join(f"{name} {line[0]:.2f}, {line[1]:.2f}, {line[16]:.2f}" for name, line in mean.items())
    + " at rank 0, 1 and 16.",
)

# %% [markdown]
# > **Explain.** Look at the two curves of LoRA first: they are the same network at rank 0 and at rank 16.
# > What happens between? Then compare DyLoRA with LoRA ordered by SVD: which of the two chose its order by
# > looking at kidneys? And is more rank always more Dice?


# %%
def dips(points):
    """Where Dice is lower at the next rank by more than a point, in words."""
    return [
        f"{points[a]:.2f} at {a} to {points[b]:.2f} at {b}"
        for a, b in pairwise(RANKS)
        if points[b] < points[a] - 0.01
    ]


own, by_svd, dy = (mean[name] for name in ("LoRA, its own order", "LoRA, ordered by SVD", "DyLoRA"))
falls = {name: fall for name, points in mean.items() if (fall := dips(points))}
above = [name for name, points in mean.items() if points[16] > probe["mean"] + 0.01]
explanation(
    f"**Rank 0** of LoRA has {own[0]:.2f}, of DyLoRA {dy[0]:.2f}, the linear probe {probe['mean']:.2f}. At "
    "rank 0 the head reads tokens that it was not trained for. That is no statement about the pretrained "
    "backbone; the linear probe is.",
    f"**The order.** At rank 1 LoRA has {own[1]:.2f} in its own order, {by_svd[1]:.2f} ordered by SVD, and "
    f"DyLoRA {dy[1]:.2f}. LoRA's own order is an accident, so a cut throws away an arbitrary part of what the "
    "network relies on. The SVD keeps the part with the most energy. DyLoRA was trained to segment at *every* "
    "$b$, so its first ranks have to serve alone; its order comes from the loss itself. "
    + (
        "Here that shows."
        if dy[1] > by_svd[1] + 0.02
        else "On these patients the two are not far apart at rank 1, or the SVD is ahead."
    ),
    "**Dips.** "
    + (
        "; ".join(f"{name}: {', '.join(fall)}" for name, fall in falls.items())
        + ". More rank can be *less* Dice. A piece that is added changes what all others were trained "
        "beside: an update cut to a rank at which nobody trained it is another network."
        if falls
        else "No curve falls by more than a point from one rank to the next."
    ),
    "**Against the control.** At rank 16 "
    + (
        f"{', '.join(above)} {'is' if len(above) == 1 else 'are'} more than a point above the linear probe"
        if above
        else "none is more than a point above the linear probe"
    )
    + f". For full tuning, compare rank 1 ({mean['full tuning, cut by SVD'][1]:.2f}) with *without its "
    f"matrices* ({no_matrix['mean']:.2f}): the difference is what one piece in each of 24 matrices does. "
    "Four patients and one training each: two or three points say nothing. Section 7 asks it properly.",
)

# %% [markdown]
# Is DyLoRA's order also one by size? Look, and compare with the figure of section 4.

# %%
for name, (update, *_) in sources.items():
    if update.rank == 16:
        print(f"{name:22} missing after r pieces:", end="")
        print("".join(f"{f'  r = {r}:'} {missing(update, r):.2f}" for r in (1, 2, 4, 8)))

# %% [markdown]
# **Near in the sum of squares and good at the task are two things.** An update from which much is missing
# may segment well, if the part that is there is the right one.
#
# ### The explorer
#
# Here are the same four updates on whole patients. In a browser the controls are live, and bars show the
# singular values of the update, those in use filled; in a printed or executed copy you see a still picture of
# DyLoRA, the first in the explorer's list, at several ranks.

# %%
RankExplorer(patients[: at_most(4, 1)])

# %% [markdown]
# > **Question.** Choose an update and move the rank upwards from 0. Between which two ranks does the kidney
# > take its shape, and from which rank on do only single voxels at its border change? Answer it for DyLoRA,
# > then for LoRA in its own order.
# >
# > Your answer: ...

# %%
steps = {
    name: max(pairwise(RANKS), key=lambda pair: points[pair[1]] - points[pair[0]])
    for name, points in {"DyLoRA": dy, "LoRA in its own order": own}.items()
}
explanation(
    "In the table the largest step is "
    + " and ".join(f"from rank {a} to {b} for {name}" for name, (a, b) in steps.items())
    + "; the picture should agree. For LoRA in its own order this says nothing about kidneys: another $M$ in "
    "section 4 would put the step elsewhere, for the same network at rank 16.",
    "And tick *linear probe instead* when you are at rank 0: a head without the update it was trained beside, "
    "and a head that never needed one.",
)

# %% [markdown]
# ## 7. Trained at that rank
#
# A network *cut* to rank 1 is not a network *trained* at rank 1, which knows that it has nothing else. To
# learn which rank a task needs, train at each rank, with a learning rate chosen for that rank, and with
# several seeds. `labkit sweep ranks_kidney` and `labkit sweep ranks` (brain tumours) did: 150 steps of 8
# slices for every row, four rates tried on other patients, three seeds at the best.
#
# > **Predict.** Hu et al. (2021, arXiv:2106.09685, section 7.2) found for GPT-3 that a rank of 1 sufficed on
# > two data sets, if the query and the value matrices were both adapted. The lecture says: *for some data
# > sets a rank of $r = 1$ is sufficient*. Will it suffice for kidneys? For brain tumours? Will the probe, no
# > rank at all, be below all of them?
# >
# > Your prediction: ...
#
# The brains moved in the scanner (lab 00, section 9). Above each table stands what a threshold has on the same
# patients: a region in which the rows are hardly better tells nothing about ranks.

# %%
studies = {"kidneys": store.results("ranks_kidney"), "brains": store.results("ranks")}
for organ, made in studies.items():
    found_by_band = ", ".join(f"{region} {dice:.1f}" for region, dice in threshold_beside(made).items())
    print(f"a threshold on these {organ}: {found_by_band}")
Markdown(table(studies["kidneys"]))

# %%
Markdown(table(studies["brains"]))

# %% [markdown]
# The figure shows the last column of both: how far each row is above rank 1, on the same patients.

# %%
figure = Figure(figsize=(10, 3.6), layout="constrained")
for panel, (organ, made) in zip(
    figure.subplots(1, 2, sharex=True, sharey=True), studies.items(), strict=True
):
    names = [row.name for row in made.sweep.rows if row.name != "r = 1"][::-1]
    for height, name in enumerate(names):
        if apart := apart_of(made, name, "r = 1"):
            tells = apart.low > 0 or apart.high < 0
            colour, marker = (VERMILLION, "s") if tells else (BLUE, "o")
            panel.errorbar(apart.mean, height, xerr=apart.half, fmt=marker, color=unit(colour), capsize=3)
    panel.axvline(0, color="grey", linewidth=0.8)
    panel.set(yticks=range(len(names)), yticklabels=names, title=organ, xlabel="points of Dice above r = 1")
    panel.grid(axis="x", alpha=0.3)
panel.plot([], [], "o", color=unit(BLUE), label="95 % interval holds 0")
panel.plot([], [], "s", color=unit(VERMILLION), label="95 % interval leaves 0 out")
figure.legend(loc="outside lower center", ncols=2, frameon=False)
plots.show(
    figure,
    "How far the linear probe, ranks 2 to 16 and full tuning are above or below LoRA of rank 1, with 95 % "
    "intervals, on kidneys and on brains; round blue marks for intervals across zero, square red ones for "
    "those that leave it out.",
)

# %% [markdown]
# > **Explain.** For which of the two is rank 1 enough? And what does the first row, the probe, do to the
# > sentence "rank 1 suffices"?


# %%
def told_apart(made, other):
    """The rows above or below another one by more than the interval, in words; and how many there are."""
    apart = {row.name: apart_of(made, row.name, other) for row in made.sweep.rows if row.name != other}
    apart = {name: one for name, one in apart.items() if one}
    told = [f"{name} ({one.mean:+.1f})" for name, one in apart.items() if one.low > 0 or one.high < 0]
    return ", ".join(told) or "none", len(apart)


said = []
for organ, made in studies.items():
    if all(made.trainings(row) for row in made.sweep.rows):
        (to_one, rows), (to_probe, _) = told_apart(made, "r = 1"), told_apart(made, "linear probe")
        said.append(
            f"**{organ.capitalize()}.** Of {rows} rows, these are told apart from rank 1: {to_one}. And from "
            f"the linear probe, at a rate of its own choice: {to_probe}."
        )
explanation(
    *said,
    "Where no row is told apart from rank 1, nothing speaks against *rank 1 suffices*. But where none is told "
    "apart from the probe either, nothing speaks against *rank 0 suffices*: a head that learns fast enough did "
    "what the update would have done. A curve over rank is worth little without its point at no rank at all. "
    "Where higher ranks are above rank 1, and the highest above the probe too, the rank is a real choice. (Not "
    "told apart is not *equal*: look how wide the intervals are.)",
    "Compare with section 6: there one training was cut at many ranks and read on four patients; here each "
    "rank was trained, at a rate of its own. A control is as good as the rate it was given: look for *(edge)* in "
    "the row of rank 1, with which all others are compared.",
) if said else explanation("`labkit sweep ranks_kidney` and `labkit sweep ranks` make the tables.")

# %% [markdown]
# Three questions decide whether a small rank can be enough:
#
# * **In how many places?** Rank 1 on six matrices of four blocks is 24 directions, not one. Fewer layers need
#   more rank each. In the explorer, set the layers to *q and v*, and look again.
# * **How far away is the task?** From sentences to other sentences is near. From photographs to CT is
#   farther. Hu et al. say themselves that a small rank cannot be expected to do for every task, and name
#   another language as an example.
# * **Who else learns?** A head trains beside the update. A strong head does the work itself, and then no
#   curve over rank shows anything. That is why this lab has a linear one; and on kidneys even that is enough.

# %% [markdown]
# ## 8. Use it: a rank for a budget
#
# A hospital stores one small file for each of its organs. For kidneys it grants **400 kB**: at 2 bytes a
# number that is 200,000 numbers. The head takes some of them; LoRA may have the rest. Which matrices, and at
# which rank?
#
# ### Exercise 3: `rank_for` (3 points, medium, 8 minutes)
#
# `shapes` lists the matrices $(d, k)$ that get an update, all at the same rank $r$. How large can $r$ be, if
# all $B$ $(d, r)$ and $A$ $(r, k)$ together may hold `budget` numbers? No matrix has more directions than its
# short side, so a rank above that buys nothing: never return more. If not even one rank fits, return 0.


# %% labkit={"exercise": "rank_for", "role": "answer", "points": 3}
def rank_for(budget, shapes):
    """The largest rank for LoRA on matrices of these shapes within a budget of numbers: an int."""
    ### BEGIN SOLUTION
    one_rank = sum(d + k for d, k in shapes)
    short_side = min(min(shape) for shape in shapes)
    return min(budget // one_rank, short_side)
    ### END SOLUTION


# %% labkit={"exercise": "rank_for", "role": "check"}
lab.check("rank_for", rank_for)

# %%
rank_for = lab.working("rank_for", rank_for)
head = count(tune(deltas.start(), Head())).tuned
left = 200_000 - head
PLACES = {
    "q and v": ("q", "v"),
    "q, k, v and o": ("q", "k", "v", "o"),
    "fc1 and fc2": ("fc1", "fc2"),
    "all six": tuple(LINEARS),
}
largest = {}
print(f"the head has {head:,} numbers, {left:,} are left")
for name, layers in PLACES.items():
    shapes = [tuple(matrix_of(pretrained, i, layer).shape) for i in range(4) for layer in layers]
    largest[name] = rank_for(left, shapes)
    used = count(tune(deltas.start(), LoRA(r=largest[name], targets=layers))).tuned
    print(f"{name:15} {len(shapes):3} matrices: rank {largest[name]:3}; labkit counts {used:,} in all")

# %% [markdown]
# > **Decide**, in four sentences: which matrices, at which rank? Which number of section 7, or of lab 04's
# > table of places, speaks for it, which against it? Would you use the whole budget? And what would you
# > measure before the hospital agrees?
# >
# > Your proposal: ...

# %%
kidneys = studies["kidneys"]
best = best_by_validation(kidneys, [row.name for row in kidneys.sweep.rows])
lead = apart_of(kidneys, "r = 16", "linear probe")
places = store.results("lora_places_kidney")
told, compared = told_apart(places, "q and v, r = 4")
explanation(
    "Fewer places buy more rank: "
    + ", ".join(f"rank {r} on {name}" for name, r in largest.items())
    + ". All of them fit; *fits* is no reason yet.",
    (
        f"Does more rank pay? On twenty test patients rank 16 less the linear probe is {lead.mean:+.1f} "
        f"points ({lead.low:.1f} to {lead.high:.1f}). "
        + (
            "So no number here speaks for spending the budget at all: the head alone, at a rate that suits "
            "it, is the proposal to beat. "
            if lead.low <= 0 <= lead.high
            else "That speaks for it."
            if lead.low > 0
            else "That speaks against it."
        )
        + f"The row that did best on validation patients was *{best}*. "
        f"In lab 04's table, of {compared} rows these are told apart from q and v: {told}."
        if lead
        else "The table is not complete on this computer; `labkit sweep ranks_kidney` makes it."
    ),
    "A good answer could be: *rank 1 or 2 on all six, since it costs a fifth or two of what is left; "
    "more only where the table tells it apart from rank 1; beside it the head alone; both on patients of this hospital, with three "
    "seeds.* A higher rank on q and v, defended by a number, is as good an answer. One that spends the budget "
    "because it is there is not.",
)

# %% [markdown]
# # Part two
#
# What follows can be read in any order.
#
# ## 9. Singular values without the matrix
#
# The explorer's bars are singular values of updates, and they appear at once. The slow way would multiply
# $BA$ out, a large matrix, and take that apart. The fast way never makes it. It needs one tool, the
# **QR decomposition**: any matrix $B$ is $Q R$, where the columns of $Q$ have length one and stand at right
# angles, and $R$ is small and has zeros below its diagonal.
#
# **By hand**, column by column, with $B = \begin{pmatrix} 3 & 1 \\ 4 & 3 \end{pmatrix}$:
#
# * The first column $(3, 4)$ has length 5. Its direction is $q_1 = (0.6, 0.8)$, so it is $5\, q_1$.
# * The second column $(1, 3)$: how much of it goes along $q_1$? $0.6 \cdot 1 + 0.8 \cdot 3 = 3$. What is left
#   is $(1, 3) - 3\,(0.6, 0.8) = (-0.8, 0.6)$, of length 1. Call it $q_2$. So the column is $3\, q_1 + 1\, q_2$.
#
# $$ \begin{pmatrix} 3 & 1 \\ 4 & 3 \end{pmatrix}
#    = \begin{pmatrix} 0.6 & -0.8 \\ 0.8 & 0.6 \end{pmatrix} \begin{pmatrix} 5 & 3 \\ 0 & 1 \end{pmatrix} $$
#
# $Q$ only turns. All lengths and angles between the columns of $B$ are in $R$.
#
# > **Predict.** Put 382 rows of zeros below $B$. What happens to $R$, and what to the singular values?

# %%
B_small = torch.tensor([[3.0, 1.0], [4.0, 3.0]])
B_tall = torch.cat([B_small, torch.zeros(382, 2)])
for name, matrix in {"2 x 2": B_small, "384 x 2": B_tall}.items():
    Q, R = torch.linalg.qr(matrix)
    print(f"{name:8} Q {tuple(Q.shape)}, R {R.numpy().round(3).tolist()}")
    print(f"{'':8} singular values {torch.linalg.svdvals(matrix).numpy().round(4)}", end="")
    print(f", of R alone {torch.linalg.svdvals(R).numpy().round(4)}")

# %% [markdown]
# $R$ stays 2 x 2, and so do the singular values. (A column of $Q$ and its row of $R$ may both have changed
# sign: $q_2$ or $-q_2$ is a matter of taste.) Now do so with both factors, with $A$ lying down:
#
# $$ B = Q_B R_B, \qquad A^\top = Q_A R_A \qquad \Rightarrow \qquad
#    BA = Q_B\,\big(R_B R_A^\top\big)\,Q_A^\top $$
#
# $Q_B$ and $Q_A$ turn and do not stretch. So the singular values of $BA$ are those of the small matrix in
# the middle, $r \times r$.
#
# > **Think.** Why are they not the products of B's singular values with A's?
#
# <details><summary>Our answer</summary>
#
# $R_B R_A^\top$ first stretches along A's directions, then along B's. Only if the direction that A stretches
# most is also the one that B stretches most do the largest values multiply.
# </details>
#
# ### Exercise 4: `spectrum` (3 points, medium, 7 minutes)
#
# `torch.linalg.qr(M)` returns Q and R; `torch.linalg.svdvals(M)` the singular values. The check watches how
# large a matrix you compute: nothing as large as $BA$ is needed.


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
# Yours against the slow way, and against labkit's, on the update of section 4:

# %%
spectrum = lab.working("spectrum", spectrum)


def timed(what, repeats):
    """The result, and milliseconds per call."""
    what()  # the first call warms up
    begin = time.perf_counter()
    for _ in range(repeats):
        result = what()
    return result, 1000 * (time.perf_counter() - begin) / repeats


fast, fast_ms = timed(lambda: spectrum(one.B, one.A), 20)
slow, slow_ms = timed(lambda: torch.linalg.svdvals(one.B @ one.A)[:16], 3)
for theirs in (slow, low_rank.spectrum(one)):
    torch.testing.assert_close(fast, theirs, rtol=0, atol=1e-3 * float(slow[0]))
print(f"the same values; from the factors {fast_ms:.2f} ms, from the matrix {slow_ms:.1f} ms")

# %% [markdown]
# ## 10. Pieces in order
#
# Section 4 left it to labkit to bring LoRA's pieces into order. You have all it takes. Take the small matrix
# in the middle apart as well, $R_B R_A^\top = U S V^\top$, and
#
# $$ BA = \big(Q_B U S\big)\,\big(V^\top Q_A^\top\big) $$
#
# is a product of a tall and a flat matrix again: new factors of the same update. Of all that $M$ could do,
# this is the choice whose pieces stand at right angles, the largest first.
#
# ### Exercise 5: `in_order` (3 points, medium, 8 minutes)
#
# Return the new $B$ $(d, r)$ and $A$ $(r, k)$. Where the sizes go is up to you. `torch.linalg.svd(M)` returns
# $U$, the singular values as a vector, and $V^\top$.


# %% labkit={"exercise": "in_order", "role": "answer", "points": 3, "hides": ["labkit.updates.low_rank"]}
def in_order(B, A):
    """Factors B (d, r), A (r, k) of the same product, its pieces at right angles, largest first."""
    ### BEGIN SOLUTION
    Q_B, R_B = torch.linalg.qr(B)
    Q_A, R_A = torch.linalg.qr(A.T)
    U, s, Vh = torch.linalg.svd(R_B @ R_A.T)
    return Q_B @ U * s, Vh @ Q_A.T
    ### END SOLUTION


# %% labkit={"exercise": "in_order", "role": "check"}
lab.check("in_order", in_order)

# %%
in_order = lab.working("in_order", in_order)
new_B, new_A = in_order(one.B, one.A)
whole = one.B @ one.A
print(f"the sum changed by {(new_B @ new_A - whole).norm() / whole.norm():.1e} of its size")
for r in (1, 2, 4, 8):
    lacks_own, lacks_new = (
        float((whole - B[:, :r] @ A[:r]).norm() / whole.norm()) for B, A in ((one.B, one.A), (new_B, new_A))
    )
    theirs = low_rank.ordered(lora).factors["2.fc1"].at(r)
    torch.testing.assert_close(
        new_B[:, :r] @ new_A[:r], theirs, rtol=0, atol=1e-2 * float(theirs.abs().max())
    )
    print(f"after {r} pieces missing: in LoRA's order {lacks_own:.2f}, in yours {lacks_new:.2f}")

# %% [markdown]
# ## 11. LoRA+: two rates
#
# $A$ and $B$ have one learning rate in LoRA. Should they? Adam moves every number by about the rate $\eta$,
# however large the gradient is. So count what a move does **to the output** $BAx$, for one token $x$ with $n$
# numbers of size about 1, in a layer of $n$ inputs and $n$ outputs.
#
# * Move $B$ by $\eta$: each output is a sum over the $r$ numbers of $Ax$, so it changes by about $r\,\eta$.
# * Move $A$ by $\eta$: each of the $r$ numbers of $Ax$ is a sum over $n$ inputs and changes by about
#   $n\,\eta$. Then $B$ carries that to the output. At the start $B$ is **zero**, and so is the effect. After
#   $t$ steps the entries of $B$ are about $t\,\eta$, and the output changes by about $r \cdot t\eta \cdot n\,\eta$.
#
# > **Predict.** $r = 4$, ten steps. From width 64 to width 1024, how many times larger does the change of the
# > output become when $A$ moves? And when $B$ moves?
# >
# > Your prediction: ...

# %%
rate, r = 1e-3, 4
numbers = torch.Generator().manual_seed(0)
by_A, by_B = {}, {}
print(
    f"{'change of the output':>6}{'A moves, at the start':>27}{'A moves, after 10 steps':>26}{'B moves':>10}"
)
for n in (64, 256, 1024):
    x, wanted = torch.randn(n, generator=numbers), torch.randn(n, generator=numbers).sign()
    A = torch.randn(r, n, generator=numbers) / n**0.5  # so that Ax is of size about 1
    move_B = rate * torch.outer(wanted, A @ x).sign()  # what Adam does with the gradient of B
    B = 10 * move_B
    move_A = rate * torch.outer(B.T @ wanted, x).sign()  # and with that of A
    by_A[n], by_B[n] = float((B @ (move_A @ x)).abs().mean()), float((move_B @ (A @ x)).abs().mean())
    print(f"width {n:<14}{0:27.4f}{by_A[n]:26.4f}{by_B[n]:10.4f}")

# %% [markdown]
# > **Explain.** A rate that is right for $A$ at width 1024: what is it for $B$?

# %%
explanation(
    f"From width 64 to 1024 the effect of A's move grew {by_A[1024] / by_A[64]:.0f}-fold, that of B's "
    f"{by_B[1024] / by_B[64]:.1f}-fold (it goes with the size of Ax, which is random here). So the wider the "
    "network, the smaller a rate $A$ can bear, and with that rate $B$ hardly moves. Hayou et al. (2024, "
    "arXiv:2402.12354) make this precise: for both to learn efficiently, $\\eta_A$ must fall as $1/n$ while "
    "$\\eta_B$ does not."
)

# %% [markdown]
# **LoRA+** is LoRA with two rates:
#
# $$ \eta_B = \lambda\, \eta_A, \qquad \lambda > 1 $$
#
# The number of parameters, the start and the merged matrix are LoRA's. The theory gives the order of
# $\lambda$ and no number; the paper's experiments recommend about 16, with $\eta_A$ chosen anew.
#
# Does it learn faster *here*? "LoRA+ at $\eta_A = 0.00025$ beats LoRA at 0.00025" would be a poor comparison:
# its $B$ learns at 0.004, and perhaps LoRA only wanted a higher rate. So LoRA gets three rates: that of $A$,
# that of $B$, and one between. All on q and v with r = 8, for equally many steps of the same batches. Beside them
# stand two controls: the head alone, and the head alone on a backbone that is frozen and *random*.
#
# > **Predict.** Order the six rows by Dice.
# >
# > Your prediction: ...

# %%
runs = {
    "frozen random, head alone": (Head(), 1e-3, {"weights": None}),
    "head alone": (Head(), 1e-3, {}),
    "LoRA, both 0.00025": (LoRA(r=8), 2.5e-4, {}),
    "LoRA, both 0.001": (LoRA(r=8), 1e-3, {}),
    "LoRA, both 0.004": (LoRA(r=8), 4e-3, {}),
    "LoRA+, A 0.00025, B 0.004": (LoRAPlus(r=8, ratio=16), 2.5e-4, {}),
}
histories, scores = {}, {}


def run(name):
    """40 steps of 6 slices; the head learns at 0.008 in every row."""
    method, lr, network = runs[name]
    model = fresh(method, case, 0, decoder="linear", **network)
    histories[name] = fit(model, train, Recipe(steps=40, lr=lr, head_lr=8e-3, batch_size=6))
    scores[name] = dices(model)


for name in list(runs)[:3]:
    run(name)

# %%
for name in list(runs)[3:]:
    run(name)

# %%
last = {name: float(np.mean([row["loss"] for row in rows[-10:]])) for name, rows in histories.items()}
print(f"{'after 40 steps':27}{'loss, last 10':>14}{'kidney':>9}{'tumour':>9}{'mean':>9}")
for name, score in scores.items():
    print(
        f"{name:27}{last[name]:14.3f}" + "".join(f"{score[key]:9.3f}" for key in ("kidney", "tumour", "mean"))
    )


# %%
def losses(name):
    return np.array([row["loss"] for row in histories[name]])


figure = Figure(figsize=(8, 3.4), layout="constrained")
axis = figure.subplots()
looks = ((GREEN, ":"), (BLUE, "--"), (ORANGE, "-."), (VERMILLION, "-"))
for name, (colour, line) in zip(list(runs)[2:], looks, strict=True):
    less = losses(name) - losses("head alone")  # batch by batch, or the batches would hide it
    axis.plot(range(1, len(less) + 1), less, line, color=unit(colour), label=name)
axis.axhline(0, color="black", linewidth=0.8, label="the head alone")
axis.set(xlabel="step", ylabel="loss less the head's, same batch")
axis.grid(alpha=0.3)
figure.legend(loc="outside right upper", frameon=False)
plots.show(
    figure,
    "How far the loss of each batch lies below that of the head alone on the same batch, step by step, for LoRA at "
    "three rates and LoRA+. Over the last ten steps: "
    + ", ".join(f"{name} {last[name] - last['head alone']:+.3f}" for name in list(runs)[2:])
    + ".",
)

# %% [markdown]
# > **Explain.** Is LoRA+ better than LoRA **at LoRA's best rate**? And which part of a row's Dice is LoRA's at
# > all?

# %%
plus, slow = "LoRA+, A 0.00025, B 0.004", "LoRA, both 0.00025"
of_lora = [name for name in runs if name.startswith("LoRA,")]
quickest = min(of_lora, key=lambda name: last[name])
worth = scores["head alone"]["mean"] - scores["frozen random, head alone"]["mean"]
explanation(
    f"LoRA+ ends at a loss of {last[plus]:.3f}, LoRA with A's rate for both at {last[slow]:.3f}: "
    + ("two rates learned faster. " if last[plus] < last[slow] - 0.01 else "no faster. ")
    + f"But of LoRA's three rates *{quickest}* did best, {last[quickest]:.3f}. "
    + (
        "LoRA+ is ahead of that as well."
        if last[plus] < last[quickest] - 0.01
        else "LoRA+ is not ahead of that: part or all of its lead was a lead in rates."
    )
    + " This is the comparison that counts, and the one that is easily left out.",
    f"In Dice: LoRA+ {scores[plus]['mean']:.3f}, *{quickest}* {scores[quickest]['mean']:.3f}, the head alone "
    f"{scores['head alone']['mean']:.3f}. What LoRA adds is the distance to the head alone; and "
    f"{worth:+.3f} is what pre-training adds to the head (*frozen random* is the same head, batches and steps).",
    (
        f"No row finds the tumour (at most {most:.2f}), so each mean is half of the Dice of the kidney, and so is every "
        "difference here. "
        if (most := max(row["tumour"] for row in scores.values())) < 0.02
        else ""
    )
    + "One seed, forty steps, four patients; choosing the best of three rates by its own training loss favours "
    "LoRA a little. Our backbone is 384 wide; the argument above is about much wider networks. What you may "
    "say is which rates to try next.",
)

# %% [markdown]
# ## 12. Two more relatives: LongLoRA and LNLoRA
#
# The lecture names both in a line. In labkit each is a line to use as well:

# %%
of_method = {
    "LoRA(r=8)": LoRA(r=8),
    "LoRAPlus(r=8)": LoRAPlus(r=8),
    "DyLoRA(r=8)": DyLoRA(r=8),
    "LNLoRA(r=8)": LNLoRA(r=8),
    'LoRA(r=8, targets=("q", "k", "v", "o"))': LoRA(r=8, targets=("q", "k", "v", "o")),
    "LongLoRA(r=8)": LongLoRA(r=8),
}
for name, method in of_method.items():
    inside = [
        p.numel() for key, p in delta(tune(deltas.start(), method)).items() if key.startswith("backbone")
    ]
    print(f"tune(model, {name + ')':42} {sum(inside):9,} numbers learn in the backbone")

# %% [markdown]
# (768 of them in each row are the backbone's last norm, which learns with every head.)
#
# **LNLoRA** (Yuan et al., 2024, arXiv:2401.01752) normalises a token before LoRA reads it:
#
# $$ h = W_0 x + \tfrac{\alpha}{r} B A\, \mathrm{LN}(x) $$
#
# A LayerNorm with $2k$ numbers of its own per matrix makes tokens equally large, which its authors want when
# they train on normal and on adversarial images in turn. It has a price.
#
# > **Predict.** A token is doubled, $x \to 2x$. What happens to the update of LoRA, and to that of LNLoRA?
# > Which of the two can be merged into one matrix?

# %%
token = torch.randn(1, 384, generator=torch.Generator().manual_seed(0))
grows = {}
for name, method in {"LoRA": LoRA(targets=("fc1",)), "LNLoRA": LNLoRA(targets=("fc1",))}.items():
    layer = blocks(tune(deltas.start(), method).backbone)[1].mlp.fc1
    torch.nn.init.normal_(layer.B, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        once, twice = (layer(x) - layer.original(x) for x in (token, 2 * token))
    grows[name] = float(twice.norm() / once.norm())
    print(f"{name:7} update of 2x / update of x: {grows[name]:.2f}")

# %%
explanation(
    f"LoRA's update grew {grows['LoRA']:.2f}-fold with the token, as every matrix does with its input. "
    f"LNLoRA's grew {grows['LNLoRA']:.2f}-fold: LN has taken the size away. No matrix does that, so no single "
    "$W$ can do what $W_0$ and LNLoRA do together: it **cannot be merged**. (Our pretrained blocks normalise "
    "tokens before q, k, v and fc1 anyway; there LNLoRA changes little. Before o and fc2 nothing does.)"
)

# %% [markdown]
# **LongLoRA** (Chen et al., 2024, arXiv:2309.12307) changes *attention*, and only while it trains. Attention
# over $N$ tokens compares $N^2$ pairs. LongLoRA cuts the tokens into four groups and lets each look at its own
# only; half of the heads have their groups shifted by half a group, so that the groups hear of each other. At
# inference attention is whole again. With it LoRA on q, k, v and o alone fell short in its paper, so norms and
# embeddings learn too: these are the many numbers above.
#
# > **Predict.** Our 144 tokens are 12 rows of 12 patches, numbered row by row. Which shape has a group in the
# > picture? How many pairs are left of 144²?

# %%
numbered = torch.arange(144.0).view(1, 1, 144, 1).expand(1, 2, 144, 1)  # two heads: one straight, one shifted
group_of = torch.empty(2, 144)
for half, in_groups in enumerate(grouped(numbered)[0, :, :, :, 0].long()):
    for group, tokens in enumerate(in_groups):
        group_of[half, tokens] = float(group)
figure = Figure(figsize=(6, 2.9), layout="constrained")
palette = [unit(colour) for colour in (BLUE, ORANGE, GREEN, PURPLE)]
for panel, groups, title in zip(
    figure.subplots(1, 2), group_of, ("first half of the heads", "second half: shifted"), strict=True
):
    panel.imshow(groups.view(12, 12), cmap=ListedColormap(palette), vmin=-0.5, vmax=3.5)
    panel.set(xticks=[], yticks=[], title=title)
for group, colour in enumerate(palette):
    figure.axes[0].plot([], [], "s", color=colour, label=f"group {group + 1}")
figure.legend(loc="outside right center", frameon=False)
print(f"pairs of tokens: {144**2:,} whole, {GROUPS * (144 // GROUPS) ** 2:,} in four groups")
plots.show(
    figure,
    "The 12 by 12 patches of a slice, coloured by LongLoRA's four groups: bands of three rows each; in the "
    "second half of the heads shifted by one and a half rows, around the end, so that the top and the bottom "
    "of the picture share a group.",
)

# %% [markdown]
# > **Explain.** Would you use it for our slices?
#
# <details><summary>Our explanation</summary>
#
# A quarter of the pairs is left. For a text of 32,000 tokens that decides whether a training fits at all;
# with 144 tokens attention is the smaller part of the work, and little is saved. And a text goes on where a
# group ends, while the top of a slice has nothing to do with its bottom. It is a method for long sequences,
# say a volume whose every patch is a token.
# </details>

# %% [markdown]
# ## 13. Rank is not "intrinsic dimension"
#
# The lecture motivates LoRA with a finding: pretrained networks have a low *intrinsic dimension*
# (Aghajanyan et al., 2020, arXiv:2012.13255). It is the smallest number of free parameters with which
# the whole network can still be tuned well, along random directions in the space of all weights. That is not rank:

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
# ## 14. Bonus
#
# * **Where the tail comes from.** The change of section 3 has full rank. Part of that is the optimiser: Adam
#   divides each number by its own running size, and its very first step is the learning rate times the
#   **sign** of the gradient. The cell below takes the sign of made-up gradients of rank 1 and 4, and of the
#   one that the last step left behind. The sign of a product is the product of the signs, so rank 1 stays
#   rank 1. And from rank 2 on?
# * **Other seeds.** Run section 11 with another seed (the third argument of `fresh`, and `Recipe(seed=1)`).
#   Which differences keep their sign?
# * **Your own spectrum.** Retrain an update with *train it anew* under the explorer, at another number of
#   steps. Do the bars change more in their height or in their fall?

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
        halves = [effective_rank(s, share) for share in (0.5, 0.9)]
        print(f"{name:28}{what:12}{torch.linalg.matrix_rank(matrix):6}{halves[0]:6}{halves[1]:6}")

# %% [markdown]
# ## 15. Test yourself
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
# <details><summary>5. A paper shows Dice over rank 1 to 64, and it is flat. What is missing?</summary>
# Rank 0, a head tuned alone at a rate of its own; several seeds; and a rate chosen for each rank. A flat curve
# may say that rank 1 suffices, or that nothing was needed.
# </details>
#
# <details><summary>6. Which of the two factors learns faster in LoRA+, and why does width matter?</summary>
# B. A sums over the n inputs of the layer, so a move of all its entries has an effect on the output that grows
# with n; B sums over r. One rate for both is too small for B in a wide network.
# </details>

# %% [markdown]
# ## 16. What changes on real data
#
# * Ranks from 4 to 64 are tried in practice. More data, and data farther from those of pre-training, can use
#   more rank.
# * The scale moves with the rank. With $\alpha$ fixed, $\alpha / r$ makes a high rank learn slowly. A fair
#   comparison of ranks has a learning rate for each, chosen on validation patients; a table over rank at one
#   rate is a table over rate as well.
# * Our patients do not exist. Before you choose a rank for a hospital, read the curve on its validation
#   patients, with several seeds, region by region, beside the probe.

# %%
lab.progress()
