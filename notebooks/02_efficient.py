# %% [markdown]
# # Lab 02: smaller, faster, cheaper
#
# A network that works is often too large for where it should work.
# The lecture names five ways out. In this lab you will
#
# 1. **prune** a trained segmenter, and **explain** why zeros make nothing faster;
# 2. **count** what a separable convolution saves, and **measure** what is left of it on a clock;
# 3. **derive** how a layer without multiplications learns;
# 4. **write** weights in 32 to 1 bits, and **explain** why 1 bit can be better than 2;
# 5. **write** the loss with which a small network learns from a large one.
#
# | | |
# | --- | --- |
# | Time | about 45 minutes, 15 points |
# | Computer | any laptop, no GPU; nothing is trained, less than 2 GB |
# | You know | Lab 00 (patients, Dice); PyTorch's layers and autograd |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# The last line sets the seeds and looks whether your computer has what the lab needs.

# %%
import copy
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import nn
from tqdm.auto import tqdm

from labkit import lessons
from labkit.efficient import adder, distillation, mobilenet, precision, prune, shufflenet
from labkit.efficient.counting import macs, matrices
from labkit.efficient.int8 import int8
from labkit.explore import pictures, plots
from labkit.explore.bits import BitsExplorer
from labkit.explore.prune import PruneExplorer, merged, milliseconds
from labkit.metrics import dice_by_region
from labkit.phantoms.brain import brain_patients
from labkit.scans.slices import to_volume
from labkit.training.quick import at_most

lab = lessons.start("02")

# %% [markdown]
# ## 1. What does "smaller" mean?
#
# Here is a network of the kit that segments brain tumours: a small Vision Transformer, tuned with LoRA
# (`labkit deltas volumes-lora`), the update added to the matrices.
# We measure it in five ways, on slices of two test patients.
# If your computer has not made these patients yet, the cell does, in a few seconds.
#
# A **MAC** is one multiplication and one addition. Some papers call it a FLOP, others count it as two.

# %%
network = merged("volumes-lora")
patients = [to_volume(case) for case in brain_patients("test", 2)]
shown = np.arange(20, 68, 6)[: at_most(8, 2)]  # 8 slices of each


@torch.inference_mode()
def dice(model):
    """Dice of whole tumour and of tumour core, the mean over the two patients."""
    scores = []
    for volume in patients:
        values = np.asarray([0, 1, 2, 4], np.uint8)[model(volume.image[shown]).argmax(1).numpy()]
        found = dice_by_region(values, volume.case.label[shown], volume.case.label_names)
        scores.append([found["WT"], found["TC"]])
    return np.mean(scores, 0)


def megabytes(model):
    """What torch.save writes."""
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "model.pt")
        return (Path(folder) / "model.pt").stat().st_size / 1e6


def report(name, model):
    number = sum(p.numel() for p in model.parameters())
    wt, tc = dice(model)
    print(
        f"{name:26} {number / 1e6:5.2f} M parameters {megabytes(model):6.2f} MB "
        f"{macs(model, 1, 4, 96, 96) / 1e6:6.0f} M MACs {milliseconds(model, patients[0].image[:1]):6.1f} ms "
        f"  WT {wt:.2f}  TC {tc:.2f}"
    )


report("the network", network)

# %% [markdown]
# Five numbers, and each of the five ways below moves other ones.
# Whoever says "ten times smaller" should say *which* of them.
#
# ## 2. Pruning: leave weights out
#
# Han et al. (2015, arXiv:1506.02626) take a trained network and set its smallest weights to zero:
#
# $$W' = M \odot W, \qquad M_i = 1 \text{ where } |W_i| \text{ is among the largest}$$
#
# Do it once by hand: of $(-3,\ 1,\ 2.2,\ -0.5,\ 2.5,\ 0.1)$ two thirds go.
# Four of six; what stays is $-3$ and $2.5$.
#
# ### Exercise 1: `magnitude_mask` (3 points, about 6 minutes, easy)
#
# Return a mask in the shape of `w`, True where a weight stays.
# Exactly `round(share * w.numel())` weights go, also where some are equal (any of them may go then).


# %% labkit={"exercise": "magnitude_mask", "role": "answer", "points": 3, "hides": ["labkit.efficient.prune"]}
def magnitude_mask(w, share):
    """Which weights stay when a `share` of them, those of smallest magnitude, goes."""
    ### BEGIN SOLUTION
    order = w.abs().flatten().argsort()
    keep = torch.ones(w.numel(), dtype=torch.bool)
    keep[order[: round(share * w.numel())]] = False
    return keep.view(w.shape)
    ### END SOLUTION


# %% labkit={"exercise": "magnitude_mask", "role": "check"}
lab.check("magnitude_mask", magnitude_mask)

# %%
magnitude_mask = lab.working("magnitude_mask", magnitude_mask)

# %% [markdown]
# Stuck? `lab.hint("magnitude_mask")` gives a nudge; again, and it says more.
#
# On a real matrix, yours and labkit's agree. Then your mask empties seven of ten places in every matrix of
# the backbone.
#
# > **Predict.** Which of the five numbers will change?

# %%
weights = {name: w.detach() for name, w in matrices(network.backbone).items()}
example = weights["blocks.2.mlp.fc1.weight"]
mine, theirs = magnitude_mask(example, 0.7), prune.magnitude_mask(example, 0.7)
for kept in (mine, theirs):  # which of two equal weights goes is free, so compare what is left, in order
    print(f"{kept.sum():,} of {kept.numel():,} weights stay, from {example[kept].abs().min():.5f} on")
torch.testing.assert_close(example[mine].abs().sort().values, example[theirs].abs().sort().values)

pruned = copy.deepcopy(network)
prune.mask(pruned.backbone, {name: magnitude_mask(w, 0.7) for name, w in weights.items()})
report("the network", network)
report("70 % of each layer is zero", pruned)

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# Only Dice. A zero is a number like any other: it is stored in four bytes and multiplied like the rest.
# Two times in milliseconds that differ a little differ by chance: run the cell again.
#
# To gain from zeros one needs a file format that leaves them out, or a kernel made for sparse matrices, and
# those pay only when most places are zero.
# </details>
#
# ### Which weights?
#
# There are other ways to choose. **Globally**: one order for all weights of the network, not one for each
# layer. Or **units**: unit i of an MLP is row i of fc1 and column i of fc2. Take both out, and both matrices
# are really smaller.
#
# > **Predict.** Global pruning is the freest: it takes the smallest weights, wherever they are.
# > Is it better than the same share of each layer?

# %%
shares = (0.3, 0.5, 0.7, 0.9)
ways = {"each layer": prune.per_layer, "global": prune.globally}
scores = {name: [] for name in (*ways, "MLP units")}
for share in tqdm(shares, desc="pruning", leave=False):
    for name, masks in ways.items():
        pruned = copy.deepcopy(network)
        prune.mask(pruned.backbone, masks(weights, share))
        scores[name].append(dice(pruned)[0])
    smaller = copy.deepcopy(network)
    prune.drop_mlp_units(smaller.backbone, share)
    scores["MLP units"].append(dice(smaller)[0])

figure = Figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
looks = (("o-", pictures.BLUE), ("s--", pictures.VERMILLION), ("^:", pictures.GREEN))
for (name, found), (style, colour) in zip(scores.items(), looks, strict=True):
    left.plot([0, *(100 * s for s in shares)], [dice(network)[0], *found], style, color=pictures.unit(colour))
    left.annotate(name, (100 * shares[1], found[1]), xytext=(4, 4), textcoords="offset points", fontsize=9)
left.set(xlabel="share removed (%)", ylabel="Dice of the whole tumour", ylim=(0, 1))
kept = prune.globally(weights, 0.5)
emptied = {name.removesuffix(".weight"): 100 * (~keep).float().mean().item() for name, keep in kept.items()}
right.barh(range(len(emptied)), list(emptied.values()), color=pictures.unit(pictures.VERMILLION))
right.axvline(50, color="black", linewidth=0.8)
right.set(
    yticks=range(len(emptied)), yticklabels=emptied, xlabel="zeros after 50 % globally (%)", xlim=(0, 100)
)
right.tick_params(axis="y", labelsize=7)
right.invert_yaxis()
plots.show(
    figure,
    "Left: Dice against the share removed, for global pruning, pruning of each layer and removal of MLP "
    "units; with units another thing is counted than with weights. Right: half of all weights go, but not "
    "half of each layer: global pruning takes more from some layers and less from others.",
)

# %% [markdown]
# > **Explain.** Use the right panel.
#
# <details><summary>Our explanation</summary>
#
# A layer with small weights is not a layer that does little: what follows may multiply it, or expect it
# small. One threshold for all takes most of such a layer, and whatever needed to pass there does not.
# Compare the two curves at 50 %. From 70 % on neither network is of any use, and which of two useless ones
# has the better Dice says nothing.
#
# The curve of the units is no fair comparison, and the next table says why: 90 % of the MLP units are
# far fewer weights than 90 % of all, since attention is left alone.
# </details>

# %%
for share in (0.5, 0.9):
    smaller = copy.deepcopy(network)
    prune.drop_mlp_units(smaller.backbone, share)
    report(f"without {share:.0%} of MLP units", smaller)

# %% [markdown]
# Now the file, the MACs and the clock move, and by unlike factors.
#
# All this is *without* training afterwards. Training with the mask held (`prune.hold`) repairs much of the
# loss. A report of such a repair needs a control: the network that was *not* pruned, trained for as many
# steps more. It gets better too.
#
# In a browser the next cell is live; in a printed copy it is a still picture.

# %%
PruneExplorer([patient.case for patient in patients])

# %% [markdown]
# > **Question.** For each of the three ways: which is the largest share at which you would still accept
# > the segmentation? And which bars have moved there?
# >
# > Your answer: ...

# %% [markdown]
# ## 3. Other architectures: split the convolution
#
# A 3 x 3 convolution from M to N channels does two things at once: it looks at neighbours, and it mixes
# channels. MobileNet (Howard et al., 2017, arXiv:1704.04861) does one after the other:
#
# * **depthwise**: each of the M channels gets a k x k kernel of its own, and no other channel is looked at;
# * **pointwise**: a 1 x 1 convolution mixes the M channels into N.
#
# The ordinary one costs $k^2 M N H W$ MACs on H x W places.
#
# ### Exercise 2: `separable_macs` (2 points, about 4 minutes, easy)


# %% labkit={"exercise": "separable_macs", "role": "answer", "points": 2}
def separable_macs(M, N, k, H, W):
    """MACs of depthwise k x k and pointwise together, from M to N channels on H x W places."""
    ### BEGIN SOLUTION
    depthwise = k * k * M
    pointwise = M * N
    return (depthwise + pointwise) * H * W
    ### END SOLUTION


# %% labkit={"exercise": "separable_macs", "role": "check"}
lab.check("separable_macs", separable_macs)

# %%
separable_macs = lab.working("separable_macs", separable_macs)

# %% [markdown]
# Divide by $k^2MNHW$, and the share that is left is $\frac1N + \frac1{k^2}$.
# For 64 channels and 3 x 3 that is an eighth.
#
# > **Predict.** Will it also take an eighth of the time?

# %%
M = N = 64
H = W = 48
ordinary = mobilenet.conv_norm(M, N).eval()
separable = mobilenet.separable(M, N).eval()
assert separable_macs(M, N, 3, H, W) == macs(separable, 1, M, H, W)  # counted by PyTorch
x = torch.randn(8, M, H, W)
times = [milliseconds(layer, x) for layer in (ordinary, separable)]
counts = [macs(layer, 1, M, H, W) for layer in (ordinary, separable)]
for name, ms, count in zip(("ordinary", "separable"), times, counts, strict=True):
    print(f"{name:10} {count / 1e6:6.1f} M MACs a map, {ms:6.1f} ms for 8 maps")
print(f"MACs: {counts[0] / counts[1]:.1f} times fewer. Time: {times[0] / times[1]:.1f} times less.")
print(f"1/N + 1/k^2 = {mobilenet.separable_ratio(N):.3f}")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# The depthwise part fetches as many numbers as the ordinary convolution does and computes little with each.
# It waits for memory. MACs count arithmetic alone.
# </details>
#
# A whole network of such layers, with 1000 classes, and the same network with ordinary convolutions:

# %%
for name, standard in (("MobileNetV1", False), ("the same, ordinary", True)):
    model = mobilenet.mobilenet_v1(standard=standard)
    number = sum(p.numel() for p in model.parameters())
    print(f"{name:20} {number:11,} parameters {macs(model, 1, 3, 224, 224):14,} MACs")

# %% [markdown]
# ### Shuffling
#
# Now the pointwise part is the dear one. ShuffleNet (Zhang et al., 2017, arXiv:1707.01083) cuts *its*
# channels into g groups that do not see each other, which is g times cheaper. Then it mixes the groups, for
# nothing: it writes the channels as a table with a row for each group, and reads it column by column.
#
# > **Predict.** Six channels 0 to 5 in two groups. In which order do they come out?

# %%
channels = torch.arange(6.0).view(1, 6, 1, 1)
mixed = shufflenet.channel_shuffle(channels, 2).flatten().int().tolist()
figure = Figure(figsize=(6, 2.2), layout="constrained")
axis = figure.subplots()
for row, (label, order) in enumerate((("before", range(6)), ("after", mixed))):
    axis.text(-0.8, -row, label, ha="right", va="center")
    for place, channel in enumerate(order):
        colour, hatch = ((pictures.SKY_BLUE, ""), (pictures.ORANGE, "//"))[channel // 3]
        axis.bar(place, 0.7, bottom=-row - 0.35, color=pictures.unit(colour), hatch=hatch, edgecolor="black")
        axis.text(place, -row, str(channel), ha="center", va="center", fontweight="bold")
axis.axvline(2.5, color="black", linestyle=":")
axis.set(xlim=(-2.2, 5.6), ylim=(-1.5, 0.5))
axis.set_axis_off()
plots.show(
    figure,
    f"Six channels in two groups of three, plain and hatched. After the shuffle their order is {mixed}: "
    "each half now holds channels of both groups.",
)

# %% [markdown]
# Turned the other way, two columns and three rows, it would be 0, 2, 4, 1, 3, 5: that undoes a shuffle.
# Lab 10 uses a small ShuffleNet to decide which slices are worth computing.
#
# ## 4. AdderNet: no multiplications
#
# A convolution asks how alike a patch X and a filter F are by multiplying them.
# Chen et al. (2020, arXiv:1912.13200) ask for their distance instead, which needs additions alone:
#
# $$Y = -\sum_i |X_i - F_i|$$
#
# > **Predict.** The derivative of $-|X - F|$ with respect to F is the sign of $X - F$.
# > F = 0.5 in one place is to become like X = 0.6, and in another like X = 5. How far does each move in a
# > step?

# %%
f = torch.linspace(-4, 6, 201)
away = 1 - f  # X - F for X = 1
figure = Figure(figsize=(9, 3), layout="constrained")
panels = figure.subplots(1, 2, sharex=True)
panels[0].plot(f, -away.abs(), color=pictures.unit(pictures.BLUE))
panels[0].set(xlabel="F, with X = 1", ylabel="Y = -|X - F|")
panels[1].plot(f, away.sign(), "--", color=pictures.unit(pictures.VERMILLION), label="true: the sign")
panels[1].plot(f, away, color=pictures.unit(pictures.GREEN), label="AdderNet: X - F")
panels[1].set(xlabel="F, with X = 1", ylabel="derivative with respect to F")
panels[1].legend(frameon=False)
plots.show(
    figure,
    "Left: Y is a tent with its top where F equals X. Right: its true derivative is 1 left of X and -1 "
    "right of it, however far away; AdderNet's is a line through zero at X.",
)

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# Equally far: the sign does not know how much is missing. So AdderNet puts something else in its place:
# </details>
#
# $$\frac{\partial Y}{\partial F} := X - F, \qquad
#   \frac{\partial Y}{\partial X} := \operatorname{clip}(F - X, -1, 1)$$
#
# The second is clipped, since it is handed to the layer before, and that one's to the one before it.
# For F = 0.5 and X = 2: $Y = -1.5$, the filter gets 1.5, and X gets $-1$.
#
# ### Exercise 3: `adder_gradients` (4 points, about 9 minutes, hard)
#
# Many patches and filters at once. `X` is (L, k), a patch in each row; `filters` is (o, k);
# `g` is (L, o), what comes in from behind for each pair.
# A patch meets all filters, and a filter all patches: sum over whom each one met, every pair weighted with
# its g.


# %% labkit={"exercise": "adder_gradients", "role": "answer", "points": 4, "hides": ["labkit.efficient.adder"]}
def adder_gradients(X, filters, g):
    """(dX (L, k), dF (o, k)) of Y = -sum |X - F|, by AdderNet's rules."""
    ### BEGIN SOLUTION
    away = filters - X[:, None]  # F - X for each pair, (L, o, k)
    g = g[..., None]
    dX = (g * away.clamp(-1, 1)).sum(1)
    dF = (g * -away).sum(0)
    return dX, dF
    ### END SOLUTION


# %% labkit={"exercise": "adder_gradients", "role": "check"}
lab.check("adder_gradients", adder_gradients)

# %%
adder_gradients = lab.working("adder_gradients", adder_gradients)

# %% [markdown]
# Your gradients against those of labkit's adder layer, on a map of 6 x 6 with 2 channels and 3 filters:

# %%
maps, filters = torch.randn(1, 2, 6, 6), torch.randn(3, 2, 3, 3, requires_grad=True)
patches = F.unfold(maps, 3)[0].T  # (16, 18)
Y = adder.adder2d(maps, filters, eta=None)  # (1, 3, 4, 4)
behind = torch.randn_like(Y)
theirs = torch.autograd.grad(Y, filters, behind)[0]
mine = adder_gradients(patches, filters.detach().flatten(1), behind[0].flatten(1).T)[1]
torch.testing.assert_close(mine.view_as(filters), theirs, rtol=1e-4, atol=1e-4)
print("the filters' gradient is labkit's")

x = torch.randn(1, 8, 48, 48)
convolution, adding = nn.Conv2d(8, 8, 3, bias=False).eval(), adder.AdderConv2d(8, 8).eval()
ms = [milliseconds(layer, x) for layer in (convolution, adding)]
print(f"8 to 8 channels on 48 x 48: convolution {ms[0]:.2f} ms, adder layer {ms[1]:.2f} ms")

# %% [markdown]
# > **Explain.** Additions are cheaper than multiplications. Why is the adder layer the slower one here?
#
# <details><summary>Our explanation</summary>
#
# Processors have circuits that multiply and add in one go, and libraries that keep them busy. For sums of
# distances they have neither. A chip *made* for adders would save energy; your laptop is not one.
# </details>
#
# ## 5. Fewer bits
#
# A weight takes 32 bits. With b bits there are only whole numbers from $-Q$ to $Q$, the **codes**, and one
# **scale** s for all weights of a row:
#
# $$Q = 2^{b-1} - 1, \qquad s = \frac{\max|w|}{Q}, \qquad \hat w = s \cdot \operatorname{round}(w / s)$$
#
# Three bits: Q = 3. Of $(-1, -0.3, 0.2, 1)$ the scale is 1/3, the codes are $-3, -1, 1, 3$, and
# $\hat w = (-1, -\tfrac13, \tfrac13, 1)$.
#
# To *train* such weights one keeps w and rounds it anew in each step.
# But the derivative of rounding is 0 nearly everywhere. So one pretends that it is 1:
# the **straight-through estimator** (Bengio et al., 2013, arXiv:1308.3432). In PyTorch it is a line,
# `w + (w_hat - w).detach()`: the value of $\hat w$, and the gradient of w.
#
# ### Exercise 4: `fake_quantize` (3 points, about 8 minutes, medium)
#
# A scale for each row, at least 2 bits. A row of zeros stays zeros. The gradient passes straight through.


# %% labkit={"exercise": "fake_quantize", "role": "answer", "points": 3, "hides": ["labkit.efficient.precision", "labkit.efficient.int8"]}
def fake_quantize(w, bits):
    """w (rows, columns) as b bits would have it, in floats; with the gradient of w."""
    ### BEGIN SOLUTION
    Q = 2 ** (bits - 1) - 1
    s = w.detach().abs().amax(1, keepdim=True) / Q
    s = torch.where(s > 0, s, 1.0)
    w_hat = s * (w / s).round()
    return w + (w_hat - w).detach()
    ### END SOLUTION


# %% labkit={"exercise": "fake_quantize", "role": "check"}
lab.check("fake_quantize", fake_quantize)

# %%
fake_quantize = lab.working("fake_quantize", fake_quantize)

# %%
for bits in (8, 4, 2):
    torch.testing.assert_close(
        fake_quantize(example, bits), precision.fake_quantize(example, bits, per_row=True)
    )
print("yours is labkit's, for 8, 4 and 2 bits")

# %% [markdown]
# One bit has Q = 0, and the formula divides by it. XNOR-Net (Rastegari et al., 2016, arXiv:1603.05279) takes
# the signs, times the one number that fits them best: $\hat w = \operatorname{mean}|w| \cdot
# \operatorname{sign}(w)$.
#
# > **Predict.** 8, 4, 2, 1 bits: where does the segmentation break?
# > And which is better, 2 bits or 1?

# %%
table = {}
for bits in tqdm((8, 4, 3, 2, 1), desc="bits", leave=False):
    for per_row in (False, True):
        rounded = copy.deepcopy(network)
        precision.quantize_(rounded.backbone, bits, per_row)
        table[bits, per_row] = dice(rounded)
print(f"{'':8} {'a scale for each matrix':>26} {'a scale for each row':>26}")
for bits in (8, 4, 3, 2, 1):
    cells = (f"WT {table[bits, row][0]:.2f}  TC {table[bits, row][1]:.2f}" for row in (False, True))
    print(f"{bits} bit{'s' if bits > 1 else ' '}   " + " ".join(f"{cell:>26}" for cell in cells))

# %%
row_of_weights = example.flatten()
figure = Figure(figsize=(10, 3), layout="constrained")
for axis, bits in zip(figure.subplots(1, 3, sharey=True), (4, 2, 1), strict=True):
    levels = precision.fake_quantize(example, bits).unique()
    zero = (precision.fake_quantize(example, bits) == 0).float().mean()
    edge = example.abs().max().item() * 1.05
    axis.hist(row_of_weights.numpy(), bins=120, range=(-edge, edge), color=pictures.unit(pictures.SKY_BLUE))
    for level in levels:
        axis.axvline(level.item(), color=pictures.unit(pictures.VERMILLION), linewidth=0.8, linestyle="--")
    axis.set(
        title=f"{bits} bit{'s' * (bits > 1)}: {len(levels)} levels used, {zero:.0%} zeros", xlabel="weight"
    )
    axis.set_yscale("log")
    axis.title.set_fontsize(10)
figure.axes[0].set_ylabel("weights (logarithmic)")
plots.show(
    figure,
    "The weights of one matrix, most of them near zero, and the levels of 4, 2 and 1 bits as dashed lines, "
    "with one scale for the matrix. With 2 bits the outer levels lie at the largest weight, where hardly "
    "any weight is; with 1 bit the two levels lie among the many.",
)

# %% [markdown]
# > **Explain.** Why can 1 bit beat 2?
#
# <details><summary>Our explanation</summary>
#
# With 2 bits there are three levels: $-\max|w|$, 0 and $\max|w|$. Few weights are as large as half of the
# largest one, so nearly all become 0: the network is pruned to death. With 1 bit no weight becomes 0. Its
# sign and a usual size are left.
#
# The culprit is not the number of bits but the scale: one outlier sets it for all. A scale for each row has
# fewer weights under one outlier; a smaller one that clips the outliers is better still
# (`precision.best_scale`).
#
# Look at the last row, too: with 1 bit it is the scale for each *matrix* that segments better here. And yet
# the scales for the rows fit the weights better, as the explorer below will tell you. Near weights do not
# always make a near network: only the segmentation decides.
# </details>
#
# **The file.** `fake_quantize` returns floats, and their file is as large as before. It becomes small
# when codes are packed bit by bit, with their scales beside them:

# %%
print(f"32 bits: {megabytes(network.backbone):6.2f} MB")
for bits in (8, 4, 2, 1):
    with tempfile.TemporaryDirectory() as folder:
        precision.save(network.backbone, Path(folder) / "few.safetensors", bits, per_row=True)
        print(f"{bits:2} bits: {(Path(folder) / 'few.safetensors').stat().st_size / 1e6:6.2f} MB")

# %% [markdown]
# **The clock.** Weights in few bits alone compute no faster: they are floats again when they are multiplied.
# For 8 bits processors can multiply whole numbers, if the *activations* are put into 8 bits too:

# %%
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    whole_numbers = int8(network)
slices = patients[0].image[32:40]
for name, model in (("32-bit floats", network), ("8-bit products", whole_numbers)):
    wt, tc = dice(model)
    print(f"{name:16} {milliseconds(model, slices):7.1f} ms for 8 slices, WT {wt:.2f}, TC {tc:.2f}")

# %%
BitsExplorer([patient.case for patient in patients])

# %% [markdown]
# > **Question.** What is the smallest file whose segmentation you would accept, and with which scale?
# > Look at two slices of each patient before you answer.
# >
# > Your answer: ...

# %% [markdown]
# ## 6. Distillation: learn from a large network
#
# A label says "oedema". A good network says "oedema 70 %, core 25 %, background 5 %", which tells a student
# more: what this pixel is *like*. Hinton et al. (2015, arXiv:1503.02531) let a small network, the student,
# learn these answers. A **temperature** T makes them softer still:
#
# $$p = \operatorname{softmax}(v / T), \qquad q = \operatorname{softmax}(z / T), \qquad
#   L = T^2 \sum_i p_i\,(\log p_i - \log q_i)$$
#
# v are the teacher's logits, z the student's. The sum is over classes; L is its mean over pixels and slices.
#
# ### Exercise 5: `kd_loss` (3 points, about 7 minutes, medium)
#
# The teacher must get no gradient.


# %% labkit={"exercise": "kd_loss", "role": "answer", "points": 3, "hides": ["labkit.efficient.distillation"]}
def kd_loss(z, v, T):
    """T^2 KL(teacher || student), the mean over slices and pixels; logits z and v, (B, K, H, W)."""
    ### BEGIN SOLUTION
    log_p = F.log_softmax(v.detach() / T, 1)
    log_q = F.log_softmax(z / T, 1)
    return T**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()
    ### END SOLUTION


# %% labkit={"exercise": "kd_loss", "role": "check"}
lab.check("kd_loss", kd_loss)

# %%
kd_loss = lab.working("kd_loss", kd_loss)

# %% [markdown]
# Our network as a teacher, on the slice with the largest tumour. A pixel there that it is 80 % sure of, at
# three temperatures; and beside it the length of the gradient that a student gets who knows nothing yet.
#
# > **Predict.** With a higher T, is the gradient with $T^2$ larger or smaller? And without?

# %%
volume = patients[0]
level = int((volume.target > 0).sum((1, 2)).argmax())
with torch.inference_mode():
    said = network(volume.image[level][None])
said = said.clone()  # an ordinary tensor again
pixel = int((said.softmax(1).amax(1) - 0.8).abs().argmin())
student = torch.zeros_like(said).requires_grad_()
torch.testing.assert_close(kd_loss(student, said, 3.0), distillation.kd_loss(student, said, 3.0))

temperatures = (1, 2, 4, 8, 16)
lengths = []
for T in temperatures:
    lengths.append(torch.autograd.grad(kd_loss(student, said, T), student)[0].norm().item())
figure = Figure(figsize=(10, 3), layout="constrained")
left, right = figure.subplots(1, 2)
names = ("background", "core", "oedema", "enhancing")
for i, (T, hatch) in enumerate(zip((1, 2, 4), ("", "//", "xx"), strict=True)):
    p = (said[0].flatten(1)[:, pixel] / T).softmax(0)
    colour = pictures.unit((pictures.BLUE, pictures.SKY_BLUE, pictures.ORANGE)[i])
    places = np.arange(4) + 0.27 * (i - 1)
    left.bar(places, p, 0.25, label=f"T = {T}", color=colour, hatch=hatch, edgecolor="black", linewidth=0.5)
left.set(xticks=range(4), xticklabels=names, ylabel="probability", title="the teacher on one pixel")
left.legend(frameon=False)
right.plot(temperatures, lengths, "o-", color=pictures.unit(pictures.BLUE), label="with $T^2$")
without = [length / T**2 for length, T in zip(lengths, temperatures, strict=True)]
right.plot(temperatures, without, "s--", color=pictures.unit(pictures.VERMILLION), label="without")
right.set(
    xlabel="temperature T", ylabel="length of the gradient", yscale="log", title="what the student gets"
)
right.legend(frameon=False)
plots.show(
    figure,
    "Left: four probabilities of one pixel, drawn closer together as T rises from 1 to 4. Right: the "
    "length of the student's gradient against T: with the factor T squared it stays of one order, without "
    "it it falls steeply.",
)

# %% [markdown]
# > **Explain.**
#
# <details><summary>Our explanation</summary>
#
# The gradient of KL with respect to z is $(q - p)/T$, and q and p come closer to each other as T rises:
# together about
# $1/T^2$. The factor $T^2$ takes that back, so that the teacher keeps its weight beside the true labels.
# Without it a slider for T would be a slider that turns the teacher off.
# </details>
#
# Does it help? Only an experiment says, and it needs a control: the same student, as many steps, with labels
# alone. And first a look whether the teacher *is* better. A small network trained on its own may be the
# better one of the two: Lab 10 measures such a U-Net against the transformer tuned with LoRA.

# %% [markdown]
# ## 7. Bonus
#
# Combine two ways: remove half of the MLP units, then put the rest into 4 bits with a scale for each row.
# `report` it. Does the order matter? Is the loss the sum of the two losses?

# %% [markdown]
# ## 8. Test yourself
#
# <details><summary>1. "Our network is 90 % sparse, so it is ten times faster." What do you ask?</summary>
# On which kernel? A dense one does not look whether a number is zero. And how was it measured?
# </details>
#
# <details><summary>2. Why remove whole units rather than single weights?</summary>
# The matrices become smaller ones, which every computer multiplies faster. Single weights can be chosen
# more finely.
# </details>
#
# <details><summary>3. Eight times fewer MACs, but not eight times faster. Is the measurement wrong?</summary>
# Probably not. Time is also spent fetching numbers from memory, and a depthwise convolution fetches as many.
# </details>
#
# <details><summary>4. What does the straight-through estimator pretend?</summary>
# That rounding has the derivative 1. It has 0, and with that nothing would learn.
# </details>
#
# <details><summary>5. Pruned, then trained for 24 steps more, a network is good again. What is
# missing?</summary>
# The control: the intact network, trained for the same 24 steps more.
# </details>

# %% [markdown]
# ## 9. What changes on real data
#
# * Test patients differ, and small changes of a network hit the hard ones first. Look at the worst
#   patient, not at
#   the mean; a rounding that costs a point on average may cost one patient the tumour.
# * A hospital's computer decides which way pays: a server with 8-bit kernels, a phone with little memory,
#   a scanner's console with neither.
# * Pruned or rounded, it is another network. A medical device must be tested again as a whole.
# * Better than all five is often not to compute: most slices of a brain hold no tumour.
#   Lab 10 builds a network that leaves them out.
#
# Labs 03 to 09 take another road: they leave the network as it is and make *learning* cheap.

# %%
lab.progress()
