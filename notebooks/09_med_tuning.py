# %% [markdown]
# # Lab 09: Med-Tuning
#
# The lecture's last method is an adapter for volumes: small, put after every block of a frozen 2-D
# transformer, and made of five parts. In this lab you will
#
# 1. **build** its two unusual parts from formulas, and **write** the whole adapter as a module's `forward`;
# 2. **prove** that yours computes what the authors' released code does, and **count** its parameters;
# 3. **show** how far a single token is heard through each part, before training and after;
# 4. **explain** what a filter in the frequency domain can do, and what the released one cannot;
# 5. **judge** which part pays, by leaving out one at a time, with an interval for other patients and seeds;
# 6. **read** the paper's tables critically, and **say** what they do not show.
#
# | | |
# | --- | --- |
# | Time | 100 minutes for sections 1 to 12; 15 more for the bonus and the questions |
# | The 45-minute path | sections 1, 2, 6 and 9; of the others run the cells, exercises left as they are |
# | Points | 15, of which 7 on the short path |
# | Computer | any laptop, no GPU; one training of less than a minute |
# | Counted | 120 minutes with all exercises: 4,452 words, 630 lines of code, 5 exercises, 2 minutes of computing; 1.8 GB of memory |
# | You know | lab 06 (the adapter: down, bend, up, skip); lab 08 (tokens as a volume, ghosts, HD95) |
#
# The paper: Shen et al., *Med-Tuning*, MIDL 2024, arXiv:2304.10880. Read, **predict**, **run**,
# **explain**.

# %%
import time

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.stats import spearmanr
from torch import nn
from tqdm.auto import tqdm

from labkit.explore import deltas, plots
from labkit.explore.med_tuning import MedTuningExplorer
from labkit.explore.pictures import GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILLION, intensity_range, unit
from labkit.lessons import start
from labkit.methods import MedTuning
from labkit.methods.fourier import ComplexFilter, RealFilter, at_frequencies
from labkit.metrics import mean_by_region, mean_present
from labkit.networks.anatomy import blocks
from labkit.networks.segmenter import segmenter
from labkit.phantoms.brain import brain_patient, ghost_slices, split
from labkit.scans.slices import to_volume
from labkit.studies import statistics, store
from labkit.studies.parameter_tables import med_tuning_table, published
from labkit.studies.table import table
from labkit.training.evaluate import evaluate, predict
from labkit.training.fit import Recipe, fit
from labkit.training.quick import PATIENTS, at_most
from labkit.tuning import count, delta, numel, tune

lab = start("09")


def explanation(*paragraphs):
    """A fold whose sentences are made from the numbers that were just computed."""
    words = "\n\n".join(paragraphs)
    return Markdown(
        f"<details><summary>Our explanation, with your numbers</summary>\n\n{words}\n\n</details>"
    )


# %% [markdown]
# ## 1. A tumour in one slice only
#
# This is a test patient who moved during the scan. In a few slices, no two of them neighbours, the scanner
# shows a copy of the tumour where there is none: a **ghost** (lab 08). A network that sees slices one by
# one is fooled by them. Ours is a LoRA; `labkit deltas volumes-lora` trained it. Among the slices with a
# ghost and enhancing tumour we take the one in which LoRA marks most outside the truth.


# %%
def patients(name, n):
    """The first n patients of a split, as the network sees them."""
    seeds = tqdm(split(name)[: at_most(n, PATIENTS)], desc=f"{name} patients", leave=False)
    return [to_volume(brain_patient(seed)) for seed in seeds]


test = patients("test", 8)
patient, haunted = test[0], ghost_slices(split("test")[0])
label = patient.case.label
by_lora = predict(deltas.network("volumes-lora"), patient, slices=4)
too_much = ((by_lora > 0) & (label == 0)).sum((1, 2))  # voxels of each slice
level = max((s for s in haunted if (label[s] == 4).any()), key=lambda s: too_much[s])
print(f"{patient.case.name} has ghosts in the slices {', '.join(map(str, haunted))}")
print(f"LoRA marks {too_much[level]} voxels outside the truth in slice {level}")


# %%
def grey(panel, case, index):
    """FLAIR of one slice, in grey, without axes."""
    black, white = intensity_range(case.image[-1])
    panel.imshow(case.image[-1, index], cmap="gray", vmin=black, vmax=white)
    panel.set(xticks=[], yticks=[])


figure = Figure(figsize=(8, 3.1), layout="constrained")
for panel, index in zip(figure.subplots(1, 3), (level - 1, level, level + 1), strict=True):
    grey(panel, patient.case, index)
    panel.contour(patient.case.label[index] > 0, [0.5], colors=[unit(ORANGE)], linewidths=1.5)
    panel.set_title(f"slice {index}" + (" (the ghost's)" if index == level else ""))
figure.suptitle(f"{patient.case.name}: FLAIR, the true tumour outlined")
plots.show(
    figure,
    f"FLAIR of the slices {level - 1}, {level} and {level + 1}, the true tumour outlined. The middle one "
    "shows a second bright area outside the outline; its neighbours, 2 mm below and above, do not.",
)

# %% [markdown]
# (The smaller bright spots are white-matter hyperintensities, no tumour: lab 00.)
#
# Whoever sees the middle slice alone cannot know which of the two large bright areas is the tumour. Whoever
# sees all three can: a real tumour is in the neighbours too.
#
# So an adapter for volumes must let slices exchange information, and Med-Tuning has two ways for that: one
# **near** (convolutions over a few neighbours) and one **far** (a filter over the whole volume).
#
# ### The adapter in five boxes

# %%
figure = Figure(figsize=(9.2, 3.5), layout="constrained")
panel = figure.subplots()
panel.set(xlim=(-0.4, 12.2), ylim=(-2.3, 2.3))
panel.set_axis_off()


def box(x, y, text, colour):
    style = {"boxstyle": "round,pad=0.4", "facecolor": colour, "edgecolor": "black"}
    panel.text(x, y, text, bbox=style, ha="center", va="center", fontsize=9)


def arrow(away, to):
    panel.annotate("", to, away, arrowprops={"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0})


def line(*corners):
    panel.plot(*zip(*corners, strict=True), color="black", linewidth=1)


light = [(*unit(colour), 0.45) for colour in (SKY_BLUE, GREEN, GREEN, ORANGE, VERMILLION, PURPLE, SKY_BLUE)]
panel.text(-0.3, 0, "x", ha="center", va="center", fontsize=12)
box(1.3, 0, "1  down\nGELU", light[0])
for y, text, colour in (
    (1.3, "2  conv 3", light[1]),
    (0, "2  conv 5", light[2]),
    (-1.3, "3  Fourier", light[3]),
):
    box(3.5, y, text, colour)
    arrow((1.76, 0), (3.0, y))
    arrow((4.02, y), (5.2, y / 9))
panel.text(5.35, 0, "+", ha="center", va="center", bbox={"boxstyle": "circle,pad=0.1", "facecolor": "white"})
box(6.6, 0, "4  mix\nchannels", light[4])
box(8.6, 0, "5  earlier\nstage", light[5])
panel.text(9.95, 0, "+", ha="center", va="center", bbox={"boxstyle": "circle,pad=0.1", "facecolor": "white"})
box(10.9, 0, "1  up", light[6])
panel.text(12.0, 0, "+", ha="center", va="center", bbox={"boxstyle": "circle,pad=0.1", "facecolor": "white"})
stations = ((-0.1, 0.85), (5.52, 6.1), (7.1, 8.1), (9.1, 9.78), (10.13, 10.55), (11.23, 11.83))
for away, to in stations:
    arrow((away, 0), (to, 0))
line((1.3, 0.29), (1.3, 2.1), (9.95, 2.1))
arrow((9.95, 2.1), (9.95, 0.2))
line((-0.3, -0.25), (-0.3, -2.1), (12.0, -2.1))
arrow((12.0, -2.1), (12.0, -0.2))
panel.text(8.6, -1.0, "M of the stage before", ha="center", fontsize=8)
arrow((8.6, -0.8), (8.6, -0.4))
for x, y, letter in ((1.45, 1.8, "h"), (7.6, 0.12, "M"), (9.4, 0.12, "M")):
    panel.text(x, y, letter, ha="center", fontsize=9)
plots.show(
    figure,
    "The adapter of Med-Tuning. Tokens x are made narrow and bent: h. Three branches, two convolutions and "
    "one Fourier filter, are added; channels are mixed: M. The M of an earlier stage joins; the result and "
    "h are added, made wide again, and added to x.",
)

# %% [markdown]
# The numbers are those of the five parts; box 1 comes twice, and box 2 in two sizes. In formulas, for the
# tokens $x$ that leave a block:
#
# $$
# \begin{aligned}
# h &= \mathrm{GELU}(W_\downarrow x) \\
# M &= W\,(\mathrm{DW}_3(h) + \mathrm{DW}_5(h) + f(h)) + b && \text{intra-stage: near and far, then mix} \\
# M &\leftarrow \mathrm{fuse}[M,\ \mathrm{align}(M_{\text{before}})] && \text{inter-stage interaction} \\
# x &\leftarrow x + W_\uparrow (h + M)
# \end{aligned}
# $$
#
# Box 1 is the adapter of lab 06: $d = 384$ numbers of a token become $m = 64$ (the paper's ratio 6), and
# 384 again. Everything between is done on the 64, and that is what keeps it small. We build the boxes 2 to
# 5, one a section; what $\mathrm{DW}$, $f$, align and fuse are is said there.
#
# ## 2. Two small kernels for one large
#
# A kernel of $3 \times 3 \times 3$ has 27 weights, one of $5 \times 5 \times 5$ has 125. Med-Tuning does
# each in **two steps**: first $(1, k, k)$ in the plane, then $(k, 1, 1)$ along slices. Both are *depthwise*
# (lab 08): every channel has its own kernel, and channels stay separate. $\mathrm{DW}_k$ is these two
# steps, then a batch norm and a ReLU; here we look at the two steps alone.
#
# > **Predict**, on paper. In the plane the weights are $(1, 2)$ in a row, along slices $(10, 100)$. Which
# > single kernel of two slices, one row and two columns does the same as both steps?
# >
# > Your prediction: ...
#
# ### Exercise 1: `one_kernel` (2 points, 5 minutes, easy)
#
# From `w_plane` (rows, columns) and `w_slice` (slices) make the kernel (slices, rows, columns) that does in
# one step what the two do in two.


# %% labkit={"exercise": "one_kernel", "role": "answer", "points": 2}
def one_kernel(w_plane, w_slice):
    """The kernel (slices, rows, columns) of a convolution in the plane and one along slices."""
    ### BEGIN SOLUTION
    return torch.einsum("s,ij->sij", w_slice, w_plane)
    ### END SOLUTION


# %% labkit={"exercise": "one_kernel", "role": "check"}
lab.check("one_kernel", one_kernel)

# %% [markdown]
# Stuck? `lab.hint("one_kernel")` gives a nudge; again, and it says more.

# %%
one_kernel = lab.working("one_kernel", one_kernel)
print("as predicted?", one_kernel(torch.tensor([[1.0, 2]]), torch.tensor([10.0, 100])).tolist())

torch.manual_seed(0)
h = torch.randn(1, 1, 8, 12, 12)  # one channel of 8 slices of 12 x 12 tokens
w_plane, w_slice = torch.randn(3, 3), torch.randn(3)
plane = F.conv3d(h, w_plane[None, None, None], padding=(0, 1, 1))
twice = F.conv3d(plane, w_slice[None, None, :, None, None], padding=(1, 0, 0))
once = F.conv3d(h, one_kernel(w_plane, w_slice)[None, None], padding=1)
torch.testing.assert_close(twice, once, rtol=1e-4, atol=1e-5)
print("two steps and your one kernel give the same volume")

# %% [markdown]
# What does one lose by two steps? Freedom: all slices of your kernel are multiples of one plane. As a
# matrix of 3 x 9 it has rank 1 (lab 05). And what is won?
#
# > **Predict.** 64 channels, kernels 3 and 5, biases counted. How many numbers have the two branches (a) in
# > two steps as here, (b) depthwise with full kernels, (c) as ordinary convolutions, every channel to every
# > channel?
# >
# > Your prediction: ...

# %%
m, d = 64, 384


def depthwise(m, k):
    """DW_k: k x k x k in two steps, a norm and a ReLU, for m channels; volumes keep their shape."""
    return nn.Sequential(
        nn.Conv3d(m, m, (1, k, k), padding=(0, k // 2, k // 2), groups=m),  # groups=m: channel by channel
        nn.Conv3d(m, m, (k, 1, 1), padding=(k // 2, 0, 0), groups=m),
        nn.BatchNorm3d(m),
        nn.ReLU(),
    )


ways = {
    "(a) in two steps": [depthwise(m, k)[:2] for k in (3, 5)],  # [:2]: no norm, no ReLU
    "(b) depthwise, k x k x k": [nn.Conv3d(m, m, k, groups=m) for k in (3, 5)],
    "(c) ordinary": [nn.Conv3d(m, m, k) for k in (3, 5)],
}
for name, both in ways.items():
    print(f"{name:26} {sum(numel(one.parameters()) for one in both):9,}")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# (a) Per channel $9 + 3$ and $25 + 5$ weights, and four biases: 46. (b) $27 + 125$ and two biases: 154. (c)
# is 64 times the weights of (b). In (a) kernel 5 has 30 weights a channel and not 125, which is why the
# method can afford both: a fine and a coarse look.
# </details>
#
# ## 3. A convolution on a ring
#
# The other branch should hear *all* slices. A kernel as long as the volume would do it, and the **Fourier
# transform** makes that cheap. But it has a view of its own of where a volume ends: it does not end. After
# the last slice comes the first, as on a ring. For $T$ slices with one number each, $x$, and a kernel $w$
# of $T$ weights:
#
# $$ y_s = \sum_{t=0}^{T-1} w_t\; x_{(s - t) \bmod T} $$
#
# So $w_t$ weighs the slice that lies $t$ *before* $s$ on the ring.
#
# > **Predict**, on paper. $x = (1, 2, 3)$. What is $y$ for $w = (0, 1, 0)$, and for $w = (1, 2, 0)$?
# >
# > Your prediction: ...
#
# ### Exercise 2: `circular` (3 points, 8 minutes, medium)
#
# Write the sum, for `x` and `w` of T numbers each. No Fourier transform yet: the slow way, which you can
# trust.


# %% labkit={"exercise": "circular", "role": "answer", "points": 3}
def circular(x, w):
    """The convolution of x (T) with w (T) on a ring: (T)."""
    ### BEGIN SOLUTION
    y = torch.zeros_like(x * w)
    for t, weight in enumerate(w):
        y = y + weight * torch.roll(x, t)
    return y
    ### END SOLUTION


# %% labkit={"exercise": "circular", "role": "check"}
lab.check("circular", circular)

# %%
circular = lab.working("circular", circular)
for w in (torch.tensor([0.0, 1, 0]), torch.tensor([1.0, 2, 0])):
    print(f"as predicted? w = {w.tolist()}: {circular(torch.tensor([1.0, 2, 3]), w).tolist()}")

# %% [markdown]
# ## 4. The same by frequencies
#
# The discrete Fourier transform $\mathcal F$ writes $T$ slices as a sum of $T$ waves, and keeps one complex
# number for each: how large the wave is, and where it begins (its *phase*). Frequency 0 does not swing at
# all; its number is the sum of the slices. Frequency $k$ swings $k$ times on the way round the ring.
# $\mathcal F^{-1}$ is the way back; it adds the waves up and divides by $T$.
#
# The **convolution theorem** says: a convolution on a ring is, in frequencies, a plain product,
#
# $$ \mathcal F(w * x) = \mathcal F(w) \cdot \mathcal F(x) . $$

# %%
x, w = torch.randn(16), torch.randn(16)
slow, fast = circular(x, w), torch.fft.ifft(torch.fft.fft(w) * torch.fft.fft(x)).real
print(f"largest difference between the sum and the product of frequencies: {(slow - fast).abs().max():.0e}")

# %% [markdown]
# The two agree but for rounding. So one can learn $\mathcal F(w)$ itself, and need not know $w$. Med-Tuning
# keeps a number $W_F$ for each frequency, and another, $b_F$, that is added there. The way back gives
# complex numbers, and the next layer wants real ones. So it takes their size, the **modulus** $|z|$ (in
# PyTorch `z.abs()`):
#
# $$ f(h) = \bigl|\, \mathcal F^{-1}\bigl( W_F \cdot \mathcal F(h) + b_F \bigr) \bigr| $$
#
# Here $\mathcal F$ runs over three axes, one after the other: slices, rows and columns. One filter serves
# all channels.
#
# > **Predict**, on paper. Four slices of a single token, $h = (1, -2, 3, 0)$, and $b_F = 0$. What is $f$ if
# > $W_F$ is 1 everywhere? And if $W_F = (1, 0, 0, 0)$, so that only frequency 0 (the sum) comes through?
# >
# > Your prediction: ...
#
# ### Exercise 3: `fourier` (3 points, 6 minutes, medium)
#
# `h` is (B, m, T, rows, columns): volumes, channels, and the three axes of $\mathcal F$. `W` and `b` are
# (T, 1, 1): the released code has one number for each frequency along slices, the same for all in the
# plane. `torch.fft.fftn` and `torch.fft.ifftn` go there and back; `dim=` says along which axes.


# %% labkit={"exercise": "fourier", "role": "answer", "points": 3, "hides": ["labkit.methods.fourier"]}
def fourier(h, W, b):
    """The global branch: h (B, m, T, rows, columns), W and b (T, 1, 1) -> the shape of h, real."""
    ### BEGIN SOLUTION
    volume = (-3, -2, -1)
    frequencies = torch.fft.fftn(h, dim=volume)
    return torch.fft.ifftn(frequencies * W + b, dim=volume).abs()
    ### END SOLUTION


# %% labkit={"exercise": "fourier", "role": "check"}
lab.check("fourier", fourier)

# %%
fourier = lab.working("fourier", fourier)
h, no_b = torch.tensor([1.0, -2, 3, 0]).view(1, 1, 4, 1, 1), torch.zeros(4, 1, 1)
for W in (torch.ones(4), torch.tensor([1.0, 0, 0, 0])):
    print(f"as predicted? W_F = {W.tolist()}: {fourier(h, W.view(4, 1, 1), no_b).flatten().tolist()}")

# %% [markdown]
# ## 5. What the released filter can do, and what it cannot
#
# The paper calls this branch global in three dimensions, with complex $W_F$ and $b_F$. The released code
# has **real** ones, a single number per slice frequency, and starts both at **one**.
#
# > **Predict.** $W_F$ is the same for all frequencies in the plane. What do the transforms along rows and
# > columns then do? How many numbers does a token get from other tokens of its own slice? And where does
# > $b_F$ arrive?
# >
# > Your prediction: ...

# %%
T = 16
h = torch.randn(1, 1, T, 12, 12)
W, b = torch.randn(T, 1, 1), torch.randn(T, 1, 1)
nothing = torch.zeros(T, 1, 1)

along_slices = torch.fft.ifft(torch.fft.fft(h, dim=2) * W, dim=2).abs()  # no transform in the plane at all
apart = (fourier(h, W, nothing) - along_slices).abs().max()
print(f"transforms over three axes against slices alone: largest difference {apart:.0e}")

kernel = torch.fft.ifft(W[:, 0, 0])  # W, as weights of slices; they are complex
token = h[0, 0, :, 5, 7]
one_token = torch.complex(circular(token, kernel.real), circular(token, kernel.imag)).abs()
print(
    f"against your sum on a ring, token (5, 7): {(one_token - along_slices[0, 0, :, 5, 7]).abs().max():.0e}"
)
print(f"the kernel's largest imaginary part: {kernel.imag.abs().max():.2f}")

reached = (fourier(h, W, b) - fourier(h, W, nothing)).abs().amax(2)[0, 0] > 1e-4
print(
    f"b reaches {int(reached.sum())} of {reached.numel()} places in the plane: {reached.nonzero().tolist()}"
)

ones = torch.ones(T, 1, 1)
at_start = fourier(h, ones, ones) - h.abs()
print(f"at the start f is |h|, but in {int((at_start.abs() > 1e-4).sum())} of {h.numel():,} tokens")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# They **cancel**. Forth and back along rows and columns with nothing between but a factor that does not
# depend on them is nothing at all. The released filter is a convolution on a ring **along slices**, the
# same for all channels and all places: $T$ numbers. A token hears the same place in all slices, and no
# other place in its own.
#
# $b_F$ is the same at all frequencies of the plane. Such a thing is a single peak at place $(0, 0)$: the
# token in the corner gets it, in every slice, and nobody else.
#
# The kernel is complex, because a real filter $W_F$ has a real kernel only if it is symmetric (the same at
# frequency $k$ and at $T - k$). Something must make the result real; the modulus does, and the sign of $h$
# is lost. At the start $W_F = 1$ changes nothing and $f = |h|$, but for the one token in the corner of
# slice 0, where the ones of $b_F$ all meet.
# </details>
#
# labkit has both: `MedTuning(fourier="released")`, and as default `"complex"`, the filter as the paper
# prints it: a complex number for each frequency of slices, rows and columns.
#
# ### How far is one token heard?
#
# Let a single token be 1 and all others 0, and look at what each branch makes of it. In each picture:
# slices from left to right, rows from top to bottom, in the token's own column. The filters have random
# numbers, since as they start they would let nothing spread.

# %%
S, rows, at = 16, 12, (8, 6, 6)
impulse = torch.zeros(1, 64, S, rows, rows)
impulse[(..., *at)] = 1
torch.manual_seed(0)
branches = {
    "conv 3": depthwise(64, 3)[:2],
    "conv 5": depthwise(64, 5)[:2],
    "Fourier, released": RealFilter(S, (rows, rows)),
    "Fourier, as published": ComplexFilter(S, (rows, rows)),
}
figure = Figure(figsize=(10, 2.7), layout="constrained")
reach = {}
with torch.no_grad():
    for panel, (name, branch) in zip(figure.subplots(1, 4, sharey=True), branches.items(), strict=True):
        for p in branch.parameters():
            p.normal_()
        response = (branch(impulse) - branch(0 * impulse)).abs().mean(1)[0]  # (slices, rows, columns)
        reach[name] = int((response > 1e-4 * response.max()).sum())
        panel.imshow(response[:, :, at[2]].T.sqrt(), cmap="Blues", vmin=0, extent=(-0.5, 15.5, 11.5, -0.5))
        panel.plot(at[0], at[1], "x", color=unit(VERMILLION))
        panel.set(xlabel="slice", title=f"{name}\n{reach[name]:,} of {response.numel():,} tokens")
        panel.title.set_fontsize(9)
figure.axes[0].set_ylabel("row of tokens")
plots.show(
    figure,
    "What becomes of a single token (marked x) in each branch, over slices and rows. Kernel 3: a square of "
    "three slices and rows; kernel 5: of five. The released filter: a line through all slices, in the "
    "token's own row only. The published filter: everywhere.",
)

# %% [markdown]
# > **Explain.** Which two pictures together reach other rows *and* far slices? What does the published
# > filter pay for doing both at once? (Count its numbers for 16 slices of 12 x 12 tokens.)
#
# <details><summary>Our explanation</summary>
#
# The squares reach other rows, the line reaches far slices, and channels are mixed after they were added.
# The published filter has a real and an imaginary part for each of 16 x 12 x 12 frequencies, twice ($W_F$
# and $b_F$): 9,216 numbers, where the released one has 32. And it is bound to this grid: another image size
# needs another filter.
#
# The filter along slices is bound to a length too, $T$. Given a run of another number of slices, labkit
# reads the filter at the frequencies of that run; the authors' code stops. In the training below a filter
# of $T = 16$ is given runs of 4 slices: then 4 of its 16 slice frequencies are used.
# </details>
#
# ## 6. Assemble it
#
# Two boxes are left, and both are small.
#
# **Box 4, mix.** Up to here channels are still separate. A convolution of $1 \times 1 \times 1$ changes
# that: it is one small matrix, the same at every token, $M = W\,(\mathrm{DW}_3(h) + \mathrm{DW}_5(h) +
# f(h)) + b$.
#
# **Box 5, the earlier stage.** Lower blocks see edges, higher blocks see things; borders need both. A
# **stage** is a group of blocks. A Swin has four stages, and between two of them the grid of tokens becomes
# coarser. A ViT has none, so its blocks are divided into four groups; ours has four blocks, and each is a
# stage. At the end of a stage the adapter is handed the $M$ of the stage before. `align` makes it fit (in a
# Swin the earlier grid is twice as fine and has half the channels), and `fuse`, again $1 \times 1 \times
# 1$, sees both side by side, this stage's $M$ first. The first stage has none before it and is handed
# zeros.
#
# > **Predict**, on paper. One channel: $M = 1$, before it was 10, align makes $2z + 1$ of $z$, and fuse
# > makes $a + 3b$ of $[a, b]$. What comes out? And at the first stage, where 0 is handed on?
# >
# > Your prediction: ...
#
# <details><summary>Our answer</summary>
#
# align makes 21 of 10, and fuse $1 + 3 \cdot 21 = 64$. Of the 0 at the first stage align makes its bias, 1,
# so 4 comes out: handing on zeros is not the same as leaving the box out.
# </details>
#
# All that the adapter *owns* is in the next cell. It is the authors' **released code**, which differs from
# the paper in two places: its filter has one real number per slice frequency (section 5), and a GELU
# follows $W_\uparrow$. (In the code alone are the biases, norms and ReLUs of the branches, the matrix of
# fuse, and that it is the fused $M$ which is handed on.)


# %%
class Filter(nn.Module):
    """Your `fourier`, with W and b that learn: (B, m, T, rows, columns) -> the same shape."""

    def __init__(self, T):
        super().__init__()
        self.W, self.b = nn.Parameter(torch.ones(T, 1, 1)), nn.Parameter(torch.ones(T, 1, 1))

    def forward(self, h):
        return fourier(h, self.W, self.b)


class Parts(nn.Module):
    """What an adapter owns, for tokens of d numbers, a bottleneck of m and runs of T slices."""

    def __init__(self, d, m, T):
        super().__init__()
        self.down, self.up = nn.Linear(d, m), nn.Linear(m, d)
        self.conv3, self.conv5, self.fourier = depthwise(m, 3), depthwise(m, 5), Filter(T)
        self.mix = nn.Conv3d(m, m, 1)
        self.align, self.fuse = nn.Conv3d(m, m, 1), nn.Conv3d(2 * m, m, 1)


# %% [markdown]
# ### Exercise 4: `forward` (5 points, 15 minutes, hard)
#
# What it *does* with them is yours to write: the arrows of the figure in section 1, about seven lines.
#
# $$
# \begin{aligned}
# h &= \mathrm{GELU}(W_\downarrow x) \\
# M &= \mathrm{mix}(\mathrm{DW}_3(h) + \mathrm{DW}_5(h) + f(h)) \\
# M &\leftarrow \mathrm{fuse}[M,\ \mathrm{align}(M_{\text{before}})] \\
# x &\leftarrow x + \mathrm{GELU}(W_\uparrow (h + M))
# \end{aligned}
# $$
#
# * `x` is (B, S, rows, columns, d): linear layers take the last axis. Convolutions and the filter take (B,
#   m, S, rows, columns): channels are axis 1. `.movedim(-1, 1)` moves the last axis there, `.movedim(1,
#   -1)` back.
# * `before` is the $M$ of the stage before, (B, m, S, rows, columns).
# * `self` is a `Parts`: call `self.down(...)`, `self.conv3(...)` and so on. `F.gelu` bends.
# * Return two things, the new tokens and $M$: the next stage is handed it.


# %% labkit={"exercise": "forward", "role": "answer", "points": 5, "hides": ["labkit.methods.med_tuning"]}
def forward(self, x, before):
    """Tokens x (B, S, rows, columns, d), M of the stage before (B, m, S, rows, columns) -> tokens, M."""
    ### BEGIN SOLUTION
    h = F.gelu(self.down(x)).movedim(-1, 1)
    branches = self.conv3(h) + self.conv5(h) + self.fourier(h)
    M = self.mix(branches)
    both = torch.cat([M, self.align(before)], dim=1)
    M = self.fuse(both)
    inner = (h + M).movedim(1, -1)
    return x + F.gelu(self.up(inner)), M
    ### END SOLUTION


# %% labkit={"exercise": "forward", "role": "check"}
lab.check("forward", forward)

# %%
forward = lab.working("forward", forward)


class MyAdapter(Parts):
    """The adapter of Med-Tuning as released: your `forward` over its parts."""

    forward = forward


tokens, M = MyAdapter(384, 64, T=4)(torch.randn(1, 4, 12, 12, 384), torch.zeros(1, 64, 4, 12, 12))
print(f"tokens {tuple(tokens.shape)}, and M {tuple(M.shape)} for the next stage")

# %% [markdown]
# ## 7. Prove it
#
# Now labkit's released variant in the real network, with all numbers random: weights, biases, and the
# running statistics of the norms. (At their start some are 0 or 1, and would hide an error.) They are
# copied into your adapters, and random tokens of two volumes of four slices go through all four blocks of
# both.


# %%
def fresh():
    """The pretrained network with the light decoder, the same at every call."""
    return segmenter("tiny", in_chans=4, classes=4)


names = {  # of labkit's parameters, and of yours
    "W_down.": "down.",
    "W_up.": "up.",
    "intra.branches.0.": "conv3.",
    "intra.branches.1.": "conv5.",
    "intra.branches.2.W_F": "fourier.W",
    "intra.branches.2.b_F": "fourier.b",
    "intra.mix.": "mix.",
    "inter.align.": "align.",
    "inter.mix.": "fuse.",
}


def copied(theirs, T):
    """Your adapter with the numbers of one of labkit's."""
    mine, numbers = MyAdapter(384, 64, T), {}
    for name, tensor in theirs.state_dict().items():
        start_of = next(begin for begin in names if name.startswith(begin))
        numbers[names[start_of] + name.removeprefix(start_of)] = tensor
    mine.load_state_dict(numbers)
    return mine.eval()


theirs = tune(fresh(), MedTuning(fourier="released", start="released", T=4)).backbone.eval()
torch.manual_seed(1)
for block in blocks(theirs):
    block.slices = 4
    for name, tensor in block.adapter.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.1)

x = torch.randn(2, 4, 12, 12, 384)  # (B, S, h, w, d)
before = torch.zeros(2, 64, 4, 12, 12)
with torch.no_grad():
    for i, block in enumerate(blocks(theirs)):
        stream = x.flatten(0, 1).flatten(1, 2)  # as a ViT has it: (B·S, N, d)
        expected = block(stream)
        x, before = copied(block.adapter, T=4)(block.original(stream).view_as(x), before)
        torch.testing.assert_close(x, expected.view_as(x), rtol=1e-4, atol=1e-4)
        print(f"block {i}: your adapter and labkit's give the same tokens")

# %% [markdown]
# ### Count it
#
# > **Predict.** $2dm + m^2 + 52m + d + 2T$ is the count of an adapter as released, and $3m^2 + 2m$ (align
# > and fuse) is added where stages interact. Here that is after each of the four blocks. Where do the 52,
# > the $d$ and the $2T$ come from?
# >
# > Your prediction: ...

# %%
T = 16
adapter, interaction = 2 * d * m + m**2 + 52 * m + d + 2 * T, 3 * m**2 + 2 * m
by_formula = 4 * (adapter + interaction)
counted = count(tune(fresh(), MedTuning(fourier="released", T=T))).inserted
print(f"as released:  4 x ({adapter:,} + {interaction:,}) = {by_formula:,}; counted {counted:,}")
assert by_formula == counted == 4 * numel(MyAdapter(d, m, T).parameters())
as_published = count(tune(fresh(), MedTuning(T=T)))
share = as_published.inserted / as_published.pretrained
print(f"as published: {as_published.inserted:,}: {share:.1%} of the network")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# 46 a channel are the two branches of section 2, 4 are the gains and shifts of their two batch norms, 1 is
# the bias of the mixing and 1 that of $W_\downarrow$: 52. The $d$ is the bias of $W_\uparrow$, and $2T$ are
# $W_F$ and $b_F$. So **the count depends on how many slices the filter was made for**: 128 in the paper.
# </details>
#
# And the paper's own networks, with a ViT-B/16 and $T = 128$. labkit has them; here they are built without
# numbers, to count. *Tuned* is all that learns; *inserted* is what the method adds to the backbone.

# %%
Markdown(med_tuning_table("vit"))

# %% [markdown]
# Every printed number comes out. The paper prints no settings for the methods that it compares with; those
# here are the published forms whose counts are the printed ones. One more thing: *tuned* minus *inserted*
# is 15.007 million, what "Head" trains. It is the decoder, and the position embedding, and the last norm.
#
# > **Predict.** A part of the adapter gets no gradient in the first stage, in any step of any training.
# > Which?
# >
# > Your prediction: ...

# %%
model = tune(fresh(), MedTuning(start="released"))  # not zero at the start, so that gradients pass everywhere
run = patient.image[None, level - 2 : level + 2]  # (1, 4, C, H, W)
model.train()(run).square().mean().backward()
for name, p in delta(model.backbone).items():
    if not p.grad.any():
        print(f"gradient exactly 0: {name}, {p.numel():,} numbers")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# The weight of `align` at the first stage: it multiplies zeros. Its bias does learn. 4,096 numbers that are
# counted, stored and never used; a count of parameters is a count of what is there, not of what works.
# </details>
#
# ## 8. Train it
#
# You have built **variant A**, the released code: real filter along slices, a GELU after $W_\uparrow$, a
# random start. What is trained from here on, in this lab and in the kit's tables, is **variant B**,
# labkit's default: the filter as the paper prints it (complex, a number for each frequency of slices, rows
# and columns), nothing after $W_\uparrow$, which starts at zero, so that training starts at the pretrained
# network. B was chosen since it trains well on few patients. Does it matter for the filter? One row of the
# table in section 9, "released Fourier branch", is B with A's filter.
#
# Eight patients; 40 steps, each with two runs of four neighbouring slices. It takes less than a minute on
# two idle cores. The rate is 0.002, which did best of four (0.0005 to 0.004) on validation patients in the
# kit's tables.

# %%
train = patients("train", 8)
mine = tune(fresh(), MedTuning())
begin = time.perf_counter()
history = fit(mine, train, Recipe(steps=40, lr=2e-3, batch_size=2, slices=4))
print(f"{len(history)} steps in {time.perf_counter() - begin:.0f} s, {count(mine).tuned:,} numbers learned")

# %%
plots.show(
    plots.curves({"Med-Tuning, here": history}), "The training loss of Med-Tuning at each step, and smoothed."
)

# %% [markdown]
# ### Beside others, in the paper's colours
#
# The kit carries networks that were trained on 20 patients for 200 steps, each step four runs of four
# slices, one training each (`labkit deltas volumes-lora`, `volumes-med_tuning` and so on). LoRA sees single
# slices. The figure uses the colours of the paper's Figure 4: **blue** enhancing tumour, **red**
# non-enhancing core, **green** oedema; hatching tells them apart without colours.

# %%
YOURS = "Med-Tuning,\nyours"
networks = {YOURS: mine, "Med-Tuning,\n20 patients": deltas.network("volumes-med_tuning")}


def in_runs(network, slices):
    """Labels of some slices of the patient, each read in a run of four around it."""
    runs = torch.stack([patient.image[s - 2 : s + 2] for s in slices])
    with torch.no_grad():
        classes = network(runs).argmax(2)[:, 2]  # (runs, H, W)
    return np.asarray([0, 1, 2, 4], np.uint8)[classes]


found = {"LoRA": by_lora[level]} | {name: in_runs(network, [level])[0] for name, network in networks.items()}
paper_colours = {4: (0, 0, 255), 1: (255, 0, 0), 2: (0, 160, 0)}
hatching = {4: "xxxx", 1: "....", 2: ""}
figure = Figure(figsize=(10, 3), layout="constrained")
shown = {"FLAIR": 0 * label[level], "truth": label[level]} | found
for panel, (name, one) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
    grey(panel, patient.case, level)
    paint = np.zeros((*one.shape, 4))
    for value, colour in paper_colours.items():
        paint[one == value] = (*unit(colour), 0.7)
    panel.imshow(paint)
    for value in (4, 1):
        panel.contourf(one == value, [0.5, 1.5], colors="none", hatches=[hatching[value]])
    panel.set_title(name, fontsize=9)
handles = [
    Patch(facecolor=unit(c), hatch=hatching[v], label=patient.case.label_names[v])
    for v, c in paper_colours.items()
]
figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
healthy = (label[level - 1 : level + 2] == 0).all(0)
marked = {name: int((one[healthy] > 0).sum()) * 0.04 for name, one in found.items()}  # a voxel has 0.04 cm²
plots.show(
    figure,
    f"{patient.case.name}, slice {level}: FLAIR, truth, and three segmentations in the paper's colours. "
    "Marked where neither this slice nor its neighbours hold tumour: "
    + ", ".join(f"{name.replace(chr(10), ' ')} {area:.1f} cm²" for name, area in marked.items())
    + ".",
)

# %%
hit = {name: float((one[label[level] > 0] > 0).mean()) for name, one in found.items()}
for name, area in marked.items():
    print(
        f"{name.replace(chr(10), ' '):24} {hit[name]:4.0%} of the tumour marked, and {area:5.1f} cm² where no slice "
        "of the three has tumour"
    )

# %% [markdown]
# > **Explain.** Which network marks the ghost? Could LoRA, however long it is trained, mark the tumour here
# > and leave the ghost?

# %%
area = {name.replace("\n", " "): size for name, size in marked.items()}
explanation(
    "Marked where none of the three slices has tumour: "
    + ", ".join(f"{name} {size:.1f} cm²" for name, size in area.items())
    + ". "
    + (
        "So LoRA marks the ghost, and Med-Tuning after 200 steps with 20 patients does not, or far less. "
        if area["LoRA"] > 2 * area["Med-Tuning, 20 patients"] + 1
        else "In this slice the two do not differ much; try others in section 10. "
    )
    + f"Yours, after 40 steps with 8 patients, has {hit[YOURS]:.0%} of the tumour "
    + (
        f"and marks {area['Med-Tuning, yours']:.1f} cm² elsewhere: the adapter *can* look beyond the slice, but "
        "what to do with what it sees there has to be learned. "
        if area["Med-Tuning, yours"] > area["LoRA"] / 2
        else "and hardly marks anything yet, so that it leaves the ghost alone is no merit. "
        if hit[YOURS] < 0.3
        else "and leaves most of the ghost alone. "
    ),
    "A network of single slices gives equal slices equal answers, however long it is trained. It can learn "
    "to be careful, and then it misses true tumours; or bold, and then it marks ghosts. What tells them "
    "apart is not in the slice.",
)

# %% [markdown]
# Variant A as released was trained by nobody here on equal terms, so no table of this lab tells A from B.
#
# ## 9. Which part pays?
#
# An **ablation** leaves out one part and trains again. A fair one gives every row its own learning rate,
# chosen on validation patients, and more than one training. That is too much for this computer, so the rows
# below are stored (`labkit sweep ablation` made them): 20 training patients, 200 steps of 4 runs of 4
# slices, the best of four rates, three seeds, 20 test patients that moved.
#
# > **Predict.** Which costs most when it is left out: the local branches, the Fourier branch, the mixing,
# > or the interaction of stages? Put a number of points of Dice to each.
# >
# > Your prediction: ...

# %%
ablation, brain = store.results("ablation"), store.results("brain")
Markdown(table(ablation))

# %% [markdown]
# The figure draws the last column, each row less the whole of Med-Tuning: dots are patients, means over the
# three seeds; a bar is the 95 % interval for other patients *and* other seeds (lab 07). LoRA and the head
# alone come from `labkit sweep brain`, same patients, same batches.

# %%
regions = ("ET", "WT", "TC")
ROWS = {
    "head alone": (brain, "Head"),
    "LoRA": (brain, "LoRA"),
    "no local branches": (ablation, "no local branches"),
    "no Fourier branch": (ablation, "no Fourier branch"),
    "released Fourier branch": (ablation, "released Fourier branch"),
    "no mixing": (ablation, "no mixing of channels"),
    "no interaction": (ablation, "no interaction of stages"),
}


def stored(results, row, score="dice"):
    """A score of a row of a stored table in per cent, lesions as counts: (seeds, regions, patients).

    NaN where nothing was computed, as when tests run this notebook.
    """
    trainings = results.trainings(results.sweep.row(row))
    unit_of = 1 if score == "false_lesions" else 100
    return unit_of * statistics.scores(trainings, score) if trainings else np.full((1, 3, 2), np.nan)


whole = stored(ablation, "Med-Tuning")
apart = {name: statistics.difference(stored(*row), whole) for name, row in ROWS.items()}
figure = Figure(figsize=(8, 3.8), layout="constrained")
axis = figure.subplots()
for i, (name, row) in enumerate(ROWS.items()):
    of_patients = np.nanmean(stored(*row) - whole, axis=(0, 1))
    axis.plot(of_patients, np.full(len(of_patients), i), "o", color=unit(SKY_BLUE), alpha=0.6, markersize=5)
    axis.errorbar(apart[name].mean, i, xerr=apart[name].half, fmt="kD", capsize=5, markersize=5)
axis.plot([], [], "o", color=unit(SKY_BLUE), label="a patient, mean of three seeds")
axis.errorbar([], [], xerr=[], fmt="kD", capsize=5, label="mean, 95 % interval for patients and seeds")
axis.axvline(0, color=unit(VERMILLION), label="Med-Tuning, whole")
axis.set_yticks(range(len(ROWS)), list(ROWS))
axis.invert_yaxis()
axis.set(xlabel="points of Dice, less Med-Tuning on the same patient")
axis.grid(axis="x", alpha=0.3)
figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=9)
plots.show(
    figure,
    "Difference from Med-Tuning in points of Dice, by row, with 95 % intervals: "
    + "; ".join(f"{name} {one.mean:+.1f} ({one.low:.1f} to {one.high:.1f})" for name, one in apart.items())
    + ".",
)

# %% [markdown]
# > **Explain.** For each row: does the interval hold 0? How much of Med-Tuning's lead over LoRA is gone
# > without its local branches?

# %%
told = [name for name in list(ROWS)[2:] if apart[name].high < 0 or apart[name].low > 0]
untold = [name for name in list(ROWS)[2:] if name not in told]
lead, without = -apart["LoRA"].mean, -apart["no local branches"].mean
beside_lora = statistics.difference(stored(*ROWS["no local branches"]), stored(*ROWS["LoRA"]))
explanation(
    (
        "The interval leaves 0 out for " + ", ".join(f"*{name}* ({apart[name].mean:+.1f})" for name in told)
        if told
        else "No interval leaves 0 out"
    )
    + (
        "; it holds 0 for " + ", ".join(f"*{name}* ({apart[name].mean:+.1f})" for name in untold) + "."
        if untold
        else "."
    ),
    f"Med-Tuning leads LoRA by {lead:.1f} points; without the local branches {without:.1f} of them are gone. "
    + (
        "So the local branches are nearly all of it. "
        if without > 0.8 * lead
        else "So the local branches are a part of it, and not all. "
    )
    + "What is left, an adapter with Fourier branch, mixing and interaction, is "
    + (
        "not told apart from"
        if beside_lora.low < 0 < beside_lora.high
        else "above"
        if beside_lora.low > 0
        else "below"
    )
    + f" LoRA ({beside_lora.mean:+.1f}, {beside_lora.low:.1f} to {beside_lora.high:.1f}), which sees single "
    "slices.",
    "An interval that holds 0 does not say that a part is useless; it says that more than so many points, "
    "up or down, can be ruled out, and less cannot. *no Fourier branch* for one: "
    f"{apart['no Fourier branch'].low:.1f} to {apart['no Fourier branch'].high:.1f}. And all of it holds "
    "for this recipe: runs of four slices, 200 steps, our patients.",
)

# %% [markdown]
# ### Why does the branch that hears all slices not see a ghost?
#
# It could. Take one token in a run of four slices: a tumour is in all of them, a ghost in one.
#
# > **Predict**, with section 4 in hand. What do the filters $W_F = (1, 1, 1, 1)$ (the start) and $(0, 1, 1,
# > 1)$ (frequency 0 taken out) make of the tumour $(1, 1, 1, 1)$ and of the ghost $(0, 0, 1, 0)$?

# %%
tumour, ghost = torch.ones(4), torch.tensor([0.0, 0, 1, 0])
for W in (torch.ones(4), torch.tensor([0.0, 1, 1, 1])):
    for what, slices in (("tumour", tumour), ("ghost", ghost)):
        out = fourier(slices.view(1, 1, 4, 1, 1), W.view(4, 1, 1), torch.zeros(4, 1, 1)).flatten()
        print(f"W_F = {W.tolist()}: {what:6} {slices.tolist()} becomes {[round(float(v), 2) for v in out]}")

# %% [markdown]
# The second filter subtracts the mean of the run: tumour gone, ghost left. So *being able to* is not the
# question. Now look at what the trained networks **learned**. A branch is a convolution; how much of the
# squared weights of its kernel lies on *other* slices than the token's own?


# %%
def from_other_slices(branch):
    """Share of a kernel's squared weights on other slices, of a filter as runs of four slices use it."""
    if isinstance(branch, ComplexFilter):
        W = at_frequencies(torch.view_as_complex(branch.W_F.detach()), 4)
        weights = torch.fft.ifftn(W, dim=(0, 1, 2)).abs().square().sum((1, 2))
        return float(1 - weights[0] / weights.sum())
    weights = branch[1].weight.detach().flatten(1).square().sum(0)  # of the step along slices
    return float(1 - weights[len(weights) // 2] / weights.sum())


learned = {}
for name in ("volumes-med_tuning", "volumes-med_tuning-no_local"):
    for block in blocks(deltas.network(name).backbone):
        for branch in block.adapter.intra.branches:
            kind = "Fourier" if isinstance(branch, ComplexFilter) else f"conv {branch[1].kernel_size[0]}"
            learned.setdefault((name, kind), []).append(from_other_slices(branch))
for (name, kind), shares in learned.items():
    print(f"{name:28} {kind:8} blocks 0 to 3:", "  ".join(f"{share:6.2%}" for share in shares))

# %% [markdown]
# > **Explain.** Which branch carries news from slice to slice, and which could and does not? Section 5 has
# > two reasons, one in the start and one in the run: what are they?

# %%
filters = max(share for (_, kind), shares in learned.items() if kind == "Fourier" for share in shares)
kernels = min(share for (_, kind), shares in learned.items() if kind != "Fourier" for share in shares)
explanation(
    f"At least {kernels:.0%} of each convolution's squared weights lie on other slices; of a filter's at "
    f"most {filters:.1%}. "
    + (
        "The branch that *could* hear every slice hears its own. "
        if filters < 0.1
        else "Both hear other slices; which of them the network uses, only the ablation tells. "
    ),
    "**The start.** A convolution starts with random weights, so it hears its neighbours from the first "
    "step, each of 64 channels in its own way, and training keeps what helps. The filter starts at $W_F = "
    "1$, and that is $f = |h|$: deaf to all other slices. To subtract a mean it would have to move far "
    "from 1, in many frequencies at once, for all 64 channels alike, since they share it. In 200 steps it "
    "moves little.",
    "**The run.** In training it is shown 4 slices, so 4 of its 16 slice frequencies are used; and of 4 "
    "slices kernel 5, two up and two down, hears nearly all in a single block. Here *global* reaches no "
    "farther than *local*. On the paper's 128 slices it does, and there the answer may be another one.",
    "**The modulus.** *Brighter than its neighbours* and *darker than its neighbours* come out alike.",
    "The first two can be tried: see the bonus.",
)

# %% [markdown]
# ### Whole tumours counted, and distances
#
# Dice counts voxels, and a ghost has few. The stored rows also have, for every patient and seed, the
# **false lesions** (lab 08): pieces marked as tumour that touch none.

# %%
print(f"{'whole tumour, a patient':26} false lesions, 95 % interval")
false = {}
for name, row in {"Med-Tuning, whole": (ablation, "Med-Tuning"), **ROWS}.items():
    false[name] = statistics.estimate(stored(*row, "false_lesions")[:, 1:2])
    print(f"{name:26} {false[name].mean:6.1f}  ({max(0, false[name].low):.1f} to {false[name].high:.1f})")

# %% [markdown]
# And **HD95**, which lab 08 defines: 95 % of the border voxels of truth and prediction lie no farther than
# this from the other's border, in mm; less is better, and it is half of the lecture's BraTS tables. The
# stored rows do not have it, so four of the kit's networks (one training each) label four patients now.

# %%
SHIPPED = {
    "LoRA": "volumes-lora",
    "no local branches": "volumes-med_tuning-no_local",
    "no Fourier branch": "volumes-med_tuning-no_fourier",
    "Med-Tuning": "volumes-med_tuning",
}
found = {}
for name, shipped in tqdm(SHIPPED.items(), desc="networks", leave=False):
    rows = evaluate(deltas.network(shipped), test[:4], progress=True, slices=4)
    found[name] = {"Dice": [100 * value for value in mean_by_region(rows).values()]}
    found[name]["HD95"] = [mean_present([r["hd95"] for r in rows if r["region"] == of]) for of in regions]
print(f"{'four patients':18}" + "".join(f"{f'Dice {of}':>9}" for of in regions), end="")
print("".join(f"{f'HD95 {of}':>10}" for of in regions) + "  (mm)")
for name, one in found.items():
    print(
        f"{name:18}" + "".join(f"{v:9.1f}" for v in one["Dice"]) + "".join(f"{v:10.1f}" for v in one["HD95"])
    )

# %% [markdown]
# > **Explain.** Do false lesions and HD95 tell the same story as Dice? Why does one ghost cost so much
# > HD95?

# %%
far = {name: one["HD95"][1] for name, one in found.items()}
without_local = stored(*ROWS["no local branches"], "false_lesions")[:, 1:2]
more = statistics.difference(without_local, stored(ablation, "Med-Tuning", "false_lesions")[:, 1:2])
explanation(
    f"A patient has {false['LoRA'].mean:.1f} false lesions by LoRA, {false['no local branches'].mean:.1f} "
    f"without local branches and {false['Med-Tuning, whole'].mean:.1f} by the whole network: without local "
    f"branches {more.mean:+.1f} ({more.low:.1f} to {more.high:.1f}) on the same patient. "
    + (
        "The same story as Dice's: who hears the neighbours leaves more ghosts alone, and the local branches hear "
        "them. But some are left: not every false lesion is a ghost, and not every ghost is recognised."
        if more.low > 0
        else "That is not told apart, so here false lesions do not confirm what Dice says."
    ),
    f"HD95 of the whole tumour: {', '.join(f'{name} {value:.1f} mm' for name, value in far.items())}. A "
    "ghost lies far from the tumour, often on the other side of the head. As soon as more than 5 % of the "
    "border voxels belong to ghosts, HD95 is no longer the error of a border but the distance between "
    "tumour and ghost. Four patients and one training each: this shows what HD95 *means*, and settles "
    "nothing.",
)

# %% [markdown]
# ## 10. Show it the neighbours
#
# The same networks, live. *Slices shown* is the length of the run around the slice that a network is
# given: 1 is the slice alone. They were trained on runs of 4. The slice at the start is the one of all
# slices in which LoRA marks most outside the truth. The colours are labkit's again, no longer the paper's.
#
# > **One question.** Take Med-Tuning and go from 1 slice to 2 and to 4. What happens to the false tumour,
# > and what to the true one? Then leave out one branch. Is one branch enough? Try two patients before you
# > answer.

# %%
MedTuningExplorer([volume.case for volume in test[:3]])

# %% [markdown]
# <details><summary>What to look for</summary>
#
# LoRA gives the same answer whatever is around the slice. A network with a branch along slices has only its
# training to go by when it sees one slice alone, and it never saw that in training. With neighbours shown
# it can compare: a true tumour is in the next slice too, 2 mm away, and a ghost is not. Whether one branch
# is enough is what the counts below the picture tell, patient by patient.
# </details>
#
# ## 11. The paper's tables, and ours
#
# Paper: ViT-B/16 with UPerNet, one number a cell. Ours: the small network on twenty digital test patients,
# three seeds (`labkit sweep brain`, `kidney`). **The two sides are not comparable**: other patients, other
# networks, other resolution. What may be compared is the *order* within each, so let us do it: Spearman's
# rank correlation is 1 for the same order, 0 for no relation, -1 for the opposite one.
#
# > **Predict.** On brains and on kidneys: will our order be the paper's? Who is second behind Med-Tuning?

# %%
kidney = store.results("kidney")
PAPERS = {"brain": ("BraTS 2019", brain), "kidney": ("KiTS19", kidney)}
agreement, ours = {}, {}
for organ, (data, results) in PAPERS.items():
    paper = {
        name: np.mean([v for region, v in of.items() if region != "composite"])
        for name, of in published(data, "vit").items()
    }
    ours[organ] = {name: statistics.estimate(stored(results, name)) for name in paper}
    agreement[organ] = spearmanr(list(paper.values()), [one.mean for one in ours[organ].values()])
    print(f"{data + ', and our ' + organ + 's':34} {'paper':>6}   ours (95 %)")
    for name in sorted(paper, key=paper.get, reverse=True):
        one = ours[organ][name]
        print(f"{name:34} {paper[name]:6.1f}   {one.mean:.1f} ({one.low:.1f} to {one.high:.1f})")
    print(
        f"Spearman {agreement[organ].statistic:+.2f}, p = {agreement[organ].pvalue:.2f}, n = {len(paper)}\n"
    )
print(
    "the largest claim of the paper, KiTS tumour: Med-Tuning less Full, 64.47 - 47.34 =",
    f"{64.47 - 47.34:.2f}",
)
TUMOUR = slice(1, 2)  # of the regions kidney and tumour
less, at_edge = {}, []
for other in ("Full", "LoRA", "ST-Adapter"):
    rows = (stored(kidney, name)[:, TUMOUR] for name in ("Med-Tuning", other))
    less[other] = one = statistics.difference(*rows)
    if kidney.at_edge(kidney.sweep.row(other)):
        at_edge.append(other)
    interval = f"{one.mean:+5.1f} ({one.low:.1f} to {one.high:.1f}){' (edge)' if other in at_edge else ''}"
    print(f"our kidneys, tumour: Med-Tuning less {other:10} {interval}")

# %% [markdown]
# > **Explain.** What of the paper's story do our two tables repeat, and what not?

# %%
first = {organ: max(rows, key=lambda name: rows[name].mean) for organ, rows in ours.items()}
st = statistics.difference(stored(kidney, "ST-Adapter"), stored(kidney, "LoRA"))
explanation(
    f"First is {first['brain']} on our brains and {first['kidney']} on our kidneys"
    + (", as in both of the paper's tables. " if set(first.values()) == {"Med-Tuning"} else ". ")
    + "The rest: "
    + "; ".join(
        f"on {organ}s Spearman is {one.statistic:.2f} (p = {one.pvalue:.2f})"
        + (
            ", more alike than chance"
            if one.pvalue < 0.05 and one.statistic > 0
            else ", which chance can do as well"
        )
        for organ, one in agreement.items()
    )
    + ".",
    "The tumour of the kidney: Med-Tuning less Full is +17.1 in the paper and "
    f"{less['Full'].mean:+.1f} ({less['Full'].low:.1f} to {less['Full'].high:.1f}) here. "
    + (
        "So it is ahead in both, on patients that can't be compared. "
        if less["Full"].low > 0
        else "So here it is not told to be ahead. "
    )
    + "By our intervals it is "
    + ", ".join(
        f"{'above' if one.low > 0 else 'below' if one.high < 0 else 'not told apart from'} {other}"
        for other, one in less.items()
    )
    + "."
    + (
        f" At an end of the rates tried, so another one might do better: {', '.join(at_edge)}."
        if at_edge
        else ""
    ),
    "The counter-example is ST-Adapter on kidneys. It hears its neighbours too; the paper has it second on "
    f"KiTS, and ours, mean of kidney and tumour, is {st.mean:+.1f} points ({st.low:.1f} to {st.high:.1f}) "
    "from LoRA, which hears none. To hear neighbours is no merit by itself; it has to be learned from the "
    "patients and in the steps that there are (lab 08, section 15).",
)

# %%
hd = published("BraTS 2019", "vit", "hd95")
for score, printed, best in (("Dice", published("BraTS 2019", "vit"), max), ("HD95", hd, min)):
    winners = {region: best(printed, key=lambda name: printed[name][region]) for region in regions}
    print(
        f"the paper's best by {score} on BraTS 2019:", ", ".join(f"{r} {who}" for r, who in winners.items())
    )

# %% [markdown]
# ### What the tables do not show
#
# Read a table as a reviewer would: what would have to be there for the claim to follow?
#
# * **No spread.** Every cell is a single number. No seeds, no intervals, no test. Med-Tuning above
#   ST-Adapter by 0.17 in TC: would another seed turn it round? Look at the widths of our intervals.
# * **By distance it is another table.** By HD95 an adapter is best on ET and ST-Adapter on TC, as the last
#   cell printed. A text that says "best" should say by what.
# * **An unequal race.** *Full* tunes a 2-D network, which sees slices alone. ST-Adapter and Med-Tuning see
#   neighbours. So "better than full fine-tuning" mixes two things: few parameters, and a third dimension.
#   Section 9's rows "LoRA" and "no local branches" begin to take them apart.
# * **Whose settings?** None are printed for the methods compared with, and a single learning rate is named
#   for each network. A method with a rate that was not chosen for it looks worse than it is.
# * **Ablation rows at unequal size.** In the paper's comparison of large kernels with the Fourier branch,
#   the counts fit a ratio of 6 for the kernels, and of 4 for the Fourier branch (recomputed from the
#   printed counts).
# * **"Head" is more than a head**: 15.007 million include a position embedding and a norm of the backbone.
# * **Small slips.** KiTS tumour, Swin-UNet: 70.14 - 62.13 is 8.01; the lecture's table says +8.02.
# * **Time.** Few parameters are not little time: the paper's training of Med-Tuning takes 1.88 h, of Full
#   1.73 h (ViT).

# %%
print(f"{70.14 - 62.13:.2f}   KiTS tumour, Med-Tuning less Full")
print(f"{79.35 - 79.18:.2f}   TC on BraTS 2019, Med-Tuning less ST-Adapter")
print(f"{17.853 / 100.849:.2%} of Full's parameters are tuned, {2.846 / 100.849:.2%} are inserted")
print(f"{1.88 / 1.73:.2f}   times as long a training as Full's")

# %% [markdown]
# None of this says that the method is bad. It says what one still has to find out, and section 9 shows how.
#
# ## 12. Use it: a budget
#
# A clinic wants Med-Tuning on its scanners' small computers. What is sent there for every organ may hold
# **230,000 inserted numbers**, for our backbone: $d = 384$, four blocks, runs of $T = 16$ slices.
#
# ### Exercise 5: `widest` (2 points, 6 minutes, easy)
#
# How wide may the bottleneck be? Return the largest whole $m$ for which all adapters as released, each with
# align and fuse, fit the budget; 0 if none does. The count of one is in section 7.


# %% labkit={"exercise": "widest", "role": "answer", "points": 2}
def widest(budget, d, T, blocks):
    """The largest m of which `blocks` adapters have at most `budget` numbers together."""
    ### BEGIN SOLUTION
    m = 0
    while True:
        wider = m + 1
        one = 2 * d * wider + wider**2 + 52 * wider + d + 2 * T + 3 * wider**2 + 2 * wider
        if blocks * one > budget:
            return m
        m = wider
    ### END SOLUTION


# %% labkit={"exercise": "widest", "role": "check"}
lab.check("widest", widest)

# %%
widest = lab.working("widest", widest)
budget = 230_000
all_parts = widest(budget, d=384, T=16, blocks=4)
sizes = {
    f"all parts, m = {all_parts}": MedTuning(ratio=384 // (all_parts + 1) + 1, fourier="released"),
    "all parts, m = 64": MedTuning(fourier="released"),
    "no interaction, m = 64": MedTuning(fourier="released", interaction=None),
    "no interaction, no mixing, m = 64": MedTuning(fourier="released", interaction=None, mixing=False),
    "the same without Fourier branch": MedTuning(fourier=None, interaction=None, mixing=False),
}
inserted = {name: count(tune(fresh(), method)).inserted for name, method in sizes.items()}
for name, numbers in inserted.items():
    print(f"{name:36} {numbers:9,}  {'fits' if numbers <= budget else 'is too large'}")

# %% [markdown]
# > **Decide**, in four sentences. A narrower adapter with all parts, or a wider one with fewer: which do
# > you send? Which interval of section 9 speaks for it? What does no table of this lab tell, and how would
# > you measure it before the clinic buys?
# >
# > Your proposal: ...

# %%
fits = [name for name, numbers in inserted.items() if numbers <= budget]
explanation(
    f"What fits: {'; '.join(fits) or 'none of these'}. The widest with all parts has m = {all_parts}. Section "
    f"9: without interaction {apart['no interaction'].mean:+.1f} ({apart['no interaction'].low:.1f} to "
    f"{apart['no interaction'].high:.1f}), without mixing {apart['no mixing'].mean:+.1f} "
    f"({apart['no mixing'].low:.1f} to {apart['no mixing'].high:.1f}), without local branches "
    f"{apart['no local branches'].mean:+.1f}. So the local branches stay, and what is dropped first is what "
    f"is large and within its interval: align and fuse, {interaction / (adapter + interaction):.0%} of all "
    "that is inserted at m = 64.",
    "What no table tells: what happens when two parts go *at once*, and how Dice depends on m. Parts can "
    "stand in for each other, so two harmless cuts need not add up to a harmless one. Before buying, train "
    "both candidates with three seeds each, the rate chosen anew for each, on patients of *this* scanner.",
)

# %% [markdown]
# ## 13. Bonus
#
# * **Only local.** Train `MedTuning(fourier=None, mixing=False, interaction=None)` as in section 8. Is it
#   as good as the whole? And neither branch: `MedTuning(local=False, fourier=None, mixing=False,
#   interaction=None)`?
# * **A filter that hears from the start.** Before training without local branches, shake every `W_F`:
#   `p.data.add_(0.3 * torch.randn_like(p))`. Does the filter now learn to leave ghosts alone?
# * **Longer runs.** `Recipe(slices=16, batch_size=1)`: all 16 frequencies are used.
# * **Variant A.** Train `MedTuning(fourier="released", start="released")`. It does not start as the
#   pretrained network. Does it matter after so few steps?

# %% [markdown]
# ## 14. Test yourself
#
# <details><summary>1. In which directions is the released Fourier branch global?</summary>
# Along slices only. Its filter is the same at all frequencies of the plane, so the transforms along rows
# and columns cancel.
# </details>
#
# <details><summary>2. Why does the number of parameters depend on T?</summary>
# The filter has a number for each slice frequency, and there are as many frequencies as slices: 2T per
# adapter.
# </details>
#
# <details><summary>3. What never learns in the first stage?</summary>
# The weight of align: it is given zeros, so its gradient is zero.
# </details>
#
# <details><summary>4. What does the modulus throw away?</summary>
# The phase, and with it the sign. A feature of -2 and one of 2 look alike to what comes after.
# </details>
#
# <details><summary>5. Which part would you drop first?</summary>
# The one that has many numbers and that by its interval in section 9 costs little at most: interaction,
# nearly a fifth of what is inserted as released. That is by Dice; without it the table counts more false
# lesions, so look at both. The local branches last.
# </details>

# %% [markdown]
# ## 15. What changes on real data
#
# * **Size.** The paper trains on crops of 128 x 128 x 128 voxels with a batch of 16: that needs a GPU. A
#   run of four slices on a laptop is a tiny crop.
# * **Slices are thick.** Many scans have slices of 3 to 6 mm. What is in the neighbour then says less.
# * **Batch norm** takes its statistics from the slices of a batch. With crops of one or two patients in it
#   they are those of one or two patients; the authors share them over eight GPUs.
# * **T is fixed.** A filter made for 128 slices belongs to crops of 128.
# * **Real ghosts are fainter**, may spoil many slices, and seldom hit all contrasts alike. Ours were made
#   to ask one question.

# %%
lab.progress()
