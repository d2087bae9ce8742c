# %% [markdown]
# # Lab 02: The network itself, made small
#
# In lab 01 you *learned* with few numbers; the network kept all of its 5.9 million. But a network that
# works is often too large for where it should work: a scanner's console, a phone, a robot. The lecture's
# first half is about making the network itself small. You will
#
# 1. **prune** a trained segmenter, **retrain** it, and **judge** the repair beside its control;
# 2. **write** weights in 32 to 1 bits, and **tell** what the scale of the levels does, and what it does not;
# 3. **train** a small student network with a teacher and without one, and **compare** the two;
# 4. **choose** a size yourself, and **defend** it by a number;
# 5. as a bonus, **take apart** convolutions that were split, shuffled, or freed of multiplications.
#
# | | |
# | --- | --- |
# | Time | 100 minutes, 80 without the bonus; 45 to the end of section 4 if you read only the code that you write |
# | Computer | any laptop, no GPU; nine short trainings of about ten seconds each |
# | Counted | 100 minutes with all exercises: 2,780 words, 589 lines of code, 5 exercises, 3 minutes of computing; 2.2 GB of memory |
# | You know | Lab 01: a block and its matrices, q k v o fc1 fc2, LoRA's name, a control; autograd |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# `start` sets the seeds and checks whether your computer has what the lab needs.

# %%
import copy
import dataclasses
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import nn
from tqdm.auto import tqdm

from labkit import lessons
from labkit.efficient import adder, distillation, mobilenet, precision, prune, shufflenet
from labkit.efficient.counting import macs, matrices
from labkit.efficient.int8 import int8
from labkit.efficient.unet import LR, SmallUNet
from labkit.explore import pictures, plots
from labkit.explore.bits import BitsExplorer
from labkit.explore.prune import PruneExplorer, merged, milliseconds
from labkit.methods import Full
from labkit.metrics import dice_by_region, mean_by_region
from labkit.networks.segmenter import segmenter
from labkit.phantoms.brain import brain_patients
from labkit.scans.slices import sample_slabs, to_volume
from labkit.training.fit import Recipe, dice_ce, fit
from labkit.training.quick import at_most
from labkit.training.threshold import best_bands, evaluate_bands
from labkit.tuning import tune

lab = lessons.start("02")


def explanation(words):
    """A fold whose sentences are made from the numbers that were just computed."""
    return Markdown(
        f"<details><summary>Our explanation, with your numbers</summary>\n\n{words}\n\n</details>"
    )


# %% [markdown]
# ## 1. What does "smaller" mean?
#
# labkit brings along a network that segments brain tumours: lab 01's transformer, tuned with LoRA on 20
# patients, the product BA added to its matrices. (Why brains again? What pre-training is worth does not
# matter here. Only that the network is a good one, so that it has something to lose. These patients *moved* in
# the scanner: some slices show a ghost of the tumour, lab 00, section 9. So do not compare with its patient who
# lay still.)
#
# We measure it in five ways, on slices of three test patients. If your computer has not made these patients
# yet, the cell does, in a few seconds. A **MAC** is one multiplication and one addition. Some papers call it
# a FLOP, others count it as two.

# %%
network = merged("volumes-lora")
train = [to_volume(case) for case in brain_patients("train", at_most(6, 2))]
patients = [to_volume(case) for case in brain_patients("test", at_most(3, 1))]
shown = np.arange(22, 70, 6)[-at_most(8, 1) :]  # 8 slices of each


@torch.inference_mode()
def dice(model):
    """Dice in per cent of whole tumour and of tumour core, the mean over three patients' slices."""
    scores, model = [], model.eval()
    for volume in patients:
        values = np.asarray([0, 1, 2, 4], np.uint8)[model(volume.image[shown]).argmax(1).numpy()]
        found = dice_by_region(values, volume.case.label[shown], volume.case.label_names)
        scores.append([found["WT"], found["TC"]])
    return 100 * np.nanmean(scores, 0)


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
        f"  WT {wt:.1f}  TC {tc:.1f}"
    )


def in_sight(volume):
    """The slices that `dice` looks at, as a volume of their own."""
    case = volume.case
    return to_volume(dataclasses.replace(case, image=case.image[:, shown], label=case.label[shown]))


report("the network", network)
band = mean_by_region(evaluate_bands(best_bands(train), [in_sight(volume) for volume in patients]))
print(f"{'a threshold (lab 01)':26} WT {100 * band['WT']:.1f}  TC {100 * band['TC']:.1f}")

# %% [markdown]
# A threshold, which has four numbers, finds much of the whole tumour too, and little of its core. So a network that
# keeps its WT may still have lost what it was for: below, every Dice is the mean of **both**, or both are there.
#
# There are five numbers, and each of the ways below moves different ones. Whoever says "ten times smaller"
# should say *which* of them. Dice here is from 24 slices: differences of a point or two are noise.
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
# ### Exercise 1: `magnitude_mask` (3 points, 6 minutes)
#
# Return a mask in the shape of `w`, True where a weight stays.
# Exactly `round(share * w.numel())` weights go, also where some are equal (any of them may go then).


# %% labkit={"exercise": "magnitude_mask", "role": "answer", "points": 3, "hides": ["labkit.efficient.prune"]}
def magnitude_mask(w, share):
    """Which weights stay when a `share` of them, those of smallest magnitude, goes."""
    ### BEGIN SOLUTION
    smallest = w.abs().flatten().topk(round(share * w.numel()), largest=False, sorted=False)
    keep = torch.ones(w.numel(), dtype=torch.bool)
    keep[smallest.indices] = False  # argsort finds them, too, but puts all weights in order for it
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
stays = {name: magnitude_mask(w, 0.7) for name, w in weights.items()}
prune.mask(pruned.backbone, stays)
report("the network", network)
report("70 % of each layer is zero", pruned)

# %%
whole, zeros = dice(network), dice(pruned)
explanation(
    "Only Dice: "
    + ", ".join(f"{r} {a:.1f} to {b:.1f}" for r, a, b in zip(("WT", "TC"), whole, zeros, strict=True))
    + ". A zero is a number like any other: it is stored in four bytes and multiplied like the rest. (Two "
    "times in milliseconds that differ a little differ by chance: run the cell again.)\n\nTo gain from zeros "
    "one needs a file format that leaves them out, whose size you will count in section 5, or a kernel made "
    "for sparse matrices, and those pay only when most places are zero."
)

# %% [markdown]
# ### Which weights?
#
# There are other ways to choose. **Globally**: one order for all weights of the network, not one for each
# layer. Or **units**: unit i of an MLP is row i of fc1 and column i of fc2. Take both out, and both matrices
# are really smaller. The units that go first are those whose row and column are short (the product of their
# two lengths).
#
# > **Predict.** Global pruning is the freest: it takes the smallest weights, wherever they are.
# > Is it better than the same share of each layer?

# %%
shares = (0.3, 0.5, 0.7, 0.9)[: at_most(4, 2)]
ways = {"each layer": prune.per_layer, "global": prune.globally}
scores = {name: [] for name in (*ways, "MLP units")}
for share in tqdm(shares, desc="pruning", leave=False):
    for name, masks in ways.items():
        pruned = copy.deepcopy(network)
        prune.mask(pruned.backbone, masks(weights, share))
        scores[name].append(dice(pruned).mean())
    smaller = copy.deepcopy(network)
    prune.drop_mlp_units(smaller.backbone, share)
    scores["MLP units"].append(dice(smaller).mean())

figure = Figure(figsize=(11, 4.6), layout="constrained")
left, right = figure.subplots(1, 2)
looks = (("o-", pictures.BLUE), ("s--", pictures.VERMILLION), ("^:", pictures.GREEN))
for (name, found), (style, colour) in zip(scores.items(), looks, strict=True):
    places = [0, *(100 * s for s in shares)]
    left.plot(places, [whole.mean(), *found], style, color=pictures.unit(colour), label=name)
left.set(xlabel="share removed (%)", ylabel="Dice, mean of WT and TC (%)", ylim=(0, 100))
left.legend(frameon=False)
kept = prune.globally(weights, 0.5)
emptied = {name.removesuffix(".weight"): 100 * (~keep).float().mean().item() for name, keep in kept.items()}
right.barh(range(len(emptied)), list(emptied.values()), color=pictures.unit(pictures.VERMILLION))
right.axvline(50, color="black", linewidth=0.8)
right.set(
    yticks=range(len(emptied)), yticklabels=emptied, xlabel="zeros after 50 % globally (%)", xlim=(0, 100)
)
right.tick_params(axis="y", labelsize=9)
right.invert_yaxis()
plots.show(
    figure,
    "Left: Dice, the mean of whole tumour and core, against the share removed, for global pruning, pruning of each layer and removal of MLP "
    "units. Right: half of all weights go, but not half of each layer: global pruning takes more from some "
    "layers and less from others.",
)

# %% [markdown]
# > **Explain.** Which curve is higher at 50 %? Use the right panel. (The curve of the units is no fair third:
# > 90 % of the MLP units are far fewer weights than 90 % of all, since attention is left alone.)

# %%
by_layer, by_all = scores["each layer"][1], scores["global"][1]
most, least = (choose(emptied, key=emptied.get) for choose in (max, min))
sizes = {name.removesuffix(".weight"): w.abs().mean().item() for name, w in weights.items()}
explanation(
    f"At 50 % each layer for itself has {by_layer:.1f} (mean of WT and TC), all together {by_all:.1f}. Global pruning takes "
    f"{emptied[most]:.0f} % of {most}, whose weights have a mean size of {sizes[most]:.3f}, and "
    f"{emptied[least]:.0f} % of {least} with {sizes[least]:.3f}. "
    + (
        "A layer with small weights is not a layer that does little: what follows may multiply it, or expect "
        "it small. One threshold for all takes most of such a layer, and whatever needed to pass there does "
        "not. In the literature, with retraining, global pruning is usually the *better* one; there the "
        "layers may be of more equal scale, or the retraining mends it."
        if by_all < by_layer
        else "Here the freedom pays, as it usually does in the literature. It need not: a layer with small "
        "weights is not a layer that does little."
    )
    + " Where both are of no use any more, which of two useless networks has the better Dice says nothing."
)

# %%
for share in (0.5, 0.9)[: at_most(2, 1)]:
    smaller = copy.deepcopy(network)
    prune.drop_mlp_units(smaller.backbone, share)
    report(f"without {share:.0%} of MLP units", smaller)

# %% [markdown]
# Now the file, the MACs and the clock move, and each by a factor of its own.
#
# ### Retrain, and the control
#
# Han et al. do not stop at the mask. They **train on** with the weights that are left, and the zeros held:
# after every step of the optimiser the mask is applied again, or the first step would fill every zero. A
# weight that is left can take over from one that went.
#
# Your mask again, 70 % of each layer, and 20 steps on six patients. And then a network that nobody would
# think of: the **intact** one, trained for the same 20 steps on the same batches.
#
# > **Predict** the Dice of the four: the network; pruned; pruned and retrained; intact and trained on. What
# > is the last one for?

# %%
recipe = Recipe(steps=20, batch_size=4, lr=1e-4, head_lr=2e-4)


def trained_on(masks, recipe):
    """A copy of the network, trained for some more steps; what `masks` leave out is zero all the time."""
    model = segmenter("tiny", in_chans=4, classes=4)
    model.load_state_dict(network.state_dict())
    tune(model, Full())
    prune.mask(model.backbone, masks)
    history = fit(model, train, recipe, on_step=lambda row: prune.mask(model.backbone, masks))
    return model, history


retrained, history = trained_on(stays, recipe)
still = sum(int((w == 0).sum()) for w in matrices(retrained.backbone).values())
print(f"{still:,} weights are zero still")

# %%
control, control_history = trained_on({}, recipe)
found = {
    "the network": whole,
    "70 % zero": zeros,
    "70 % zero, retrained": dice(retrained),
    "intact, trained on": dice(control),
}
for name, (wt, tc) in found.items():
    print(f"{name:22} WT {wt:.1f}  TC {tc:.1f}")

# %%
plots.show(
    plots.curves({"70 % zero, retrained": history, "intact, trained on": control_history}),
    "Training loss against step of the pruned and of the intact network; the pruned one starts higher.",
)

# %% [markdown]
# > **Explain.** How much did the retraining repair? And what did *pruning* cost?

# %%
mean = {name: float(np.mean(one)) for name, one in found.items()}
repaired = mean["70 % zero, retrained"] - mean["70 % zero"]
beside_start = mean["70 % zero, retrained"] - mean["the network"]
cost = mean["70 % zero, retrained"] - mean["intact, trained on"]
explanation(
    f"Retraining moved the pruned network by {repaired:+.1f} points (mean of WT and TC), to "
    f"{beside_start:+.1f} from where the intact one began. "
    + ("A paper could stop here and write that pruning *improves* a network. " if beside_start > 0 else "")
    + f"But 20 steps more changed the intact network too, by "
    f"{mean['intact, trained on'] - mean['the network']:+.1f}. What pruning costs is the difference of the "
    f"two that learned equally long: **{cost:+.1f}** points. "
    + (
        "On 24 slices and one seed that is not told apart from nothing: this run does not show that seven of "
        "ten weights were needed, once the others had been allowed to adapt."
        if abs(cost) < 2
        else "A report without the control would have said another number."
    )
)

# %% [markdown]
# In a browser the next cell is live (nothing is retrained there); in a printed copy it is a still picture.

# %%
PruneExplorer([volume.case for volume in patients])

# %% [markdown]
# > **Question.** For each of the three ways: which is the largest share at which you would still accept
# > the segmentation without retraining? And which bars have moved there?
# >
# > Your answer: ...

# %%
near = {
    name: max((share for share, one in zip(shares, found, strict=True) if one > whole.mean() - 5), default=0)
    for name, found in scores.items()
}
explanation(
    "Say you accept five points less than the whole network (mean of WT and TC, three patients). Of the shares in the "
    "figure above, the largest that keeps so much is "
    + ", ".join(f"for {name} {share:.0%}" if share else f"for {name} none" for name, share in near.items())
    + ". Yours may be another: a surgeon looks at the core, a mean of two regions does not say which of them suffers, "
    "and three patients are few.\n\n"
    "Zeros that lie anywhere shorten the bars of what is counted, weights left and a file without zeros. The file as it "
    "is saved and the time of a slice stay: the matrices are as large as before. Only units make these smaller, too."
)

# %% [markdown]
# ## 3. Fewer bits
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
# ### Exercise 2: `fake_quantize` (3 points, 8 minutes)
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
# With 2 bits or more there is a choice of **scale**: one for each matrix; one for each row; or, for each
# row, one that is *fitted*: smaller than $\max|w|/Q$, so that the few largest weights are clipped and the
# many small ones get finer levels (`precision.best_scale` tries ten and takes the one of least squared
# error).
#
# > **Predict.** 8, 4, 2, 1 bits: where does the segmentation break? Which is better, 2 bits or 1? And how
# > much of that is the scale's doing?

# %%
SCALES, WIDTHS = ("matrix", "row", "row, fitted"), (8, 4, 2, 1)[-at_most(4, 2) :]
table, error = {}, {}
rounded = copy.deepcopy(network)
places = matrices(rounded.backbone)
for bits in tqdm(WIDTHS, desc="bits", leave=False):
    for kind in SCALES[: 2 if bits in (8, 1) else 3]:  # with 8 bits nothing is to be won, 1 bit is fitted
        per_row, squared = kind != "matrix", 0.0
        for name, w in weights.items():
            s = precision.best_scale(w, bits, per_row) if kind == "row, fitted" else None
            w_hat = precision.fake_quantize(w, bits, per_row, s)
            squared += (w_hat - w).square().sum().item()
            places[name].data = w_hat
        table[bits, kind], error[bits, kind] = dice(rounded), squared
print(f"{'':8}" + "".join(f"{kind:>26}" for kind in SCALES))
for bits in WIDTHS:
    cells = (
        f"WT {table[bits, kind][0]:.0f}  TC {table[bits, kind][1]:.0f}  err {error[bits, kind]:.0f}"
        if (bits, kind) in table
        else "-"
        for kind in SCALES
    )
    print(f"{bits} bit{'s' if bits > 1 else ' '}  " + "".join(f"{cell:>26}" for cell in cells))
print("err: squared error of all weights;  without rounding: WT {:.0f}  TC {:.0f}".format(*whole))

# %%
row_of_weights = example.flatten()
figure = Figure(figsize=(10, 3), layout="constrained")
for axis, bits in zip(figure.subplots(1, 3, sharey=True), (4, 2, 1), strict=True):
    levels = precision.fake_quantize(example, bits).unique()
    zero = (precision.fake_quantize(example, bits) == 0).float().mean()
    edge = example.abs().max().item() * 1.05
    blue = dict(color=pictures.unit(pictures.SKY_BLUE), histtype="stepfilled")
    axis.hist(row_of_weights.numpy(), bins=120, range=(-edge, edge), **blue)
    for level in levels:
        axis.axvline(level.item(), color=pictures.unit(pictures.VERMILLION), linewidth=0.8, linestyle="--")
    axis.set(
        title=f"{bits} bit{'s' * (bits > 1)}: {len(levels)} levels used (dashed), {zero:.0%} zeros",
        xlabel="weight",
    )
    axis.title.set_fontsize(10)
figure.axes[0].set_yscale("log", subs=[])  # of all three; no small ticks
figure.axes[0].yaxis.set_major_formatter("{x:,.0f}")
figure.axes[0].set_ylabel("weights (logarithmic)")
plots.show(
    figure,
    "The weights of one matrix, most of them near zero, and the levels of 4, 2 and 1 bits as dashed lines, "
    "with one scale for the matrix. With 2 bits the outer levels lie at the largest weight, where hardly "
    "any weight is; with 1 bit the two levels lie among the many.",
)

# %% [markdown]
# > **Explain.** Read the row of 2 bits from left to right, then compare its ends with 1 bit. What does the
# > scale explain, and what not?

# %%
two = {kind: float(np.mean(table[2, kind])) for kind in SCALES}
one = max(("matrix", "row"), key=lambda kind: np.mean(table[1, kind]))
other = "row" if one == "matrix" else "matrix"
one_dice, fitted = float(np.mean(table[1, one])), two["row, fitted"]
zero = (precision.fake_quantize(example, 2) == 0).float().mean()
explanation(
    "With 2 bits there are three levels: $-\\max|w|$, 0 and $\\max|w|$. Few weights are as large as half of "
    f"the largest one, so {zero:.1%} of the matrix drawn above become 0: the network is pruned to death. "
    f"**The scale's doing**: one for each matrix {two['matrix']:.1f} (mean of WT and TC), one for each row "
    f"{two['row']:.1f}, fitted {fitted:.1f}. "
    + ("Fitting it mends most of the damage. " if fitted - two["matrix"] > 20 else "")
    + f"**What it does not explain**: 1 bit, with a scale for each {one}, has {one_dice:.1f} at a squared "
    f"error of {error[1, one]:.0f}; 2 bits, fitted, {fitted:.1f} at {error[2, 'row, fitted']:.0f}. "
    + f"And of 1 bit itself, a scale for each {other} errs by {error[1, other]:.0f} and has "
    f"{float(np.mean(table[1, other])):.1f}. "
    + (
        "So weights can be *farther* off, and the network as good or better: near weights do not always "
        "make a near network. We have not found out why; only the segmentation decides."
        if (one_dice > fitted - 2 and error[1, one] > error[2, "row, fitted"])
        or error[1, one] > error[1, other]
        else "Here the order of the errors is that of the networks. It need not be: only the segmentation "
        "decides."
    )
)

# %% [markdown]
# **The file.** `fake_quantize` returns floats, and their file is as large as before. It becomes small
# when codes are packed bit by bit, with their scales beside them:

# %%
print(f"32 bits: {megabytes(network.backbone):6.2f} MB")
for bits in WIDTHS:
    with tempfile.TemporaryDirectory() as folder:
        precision.save(network.backbone, Path(folder) / "few.safetensors", bits, per_row=True)
        print(f"{bits:2} bits: {(Path(folder) / 'few.safetensors').stat().st_size / 1e6:6.2f} MB")

# %% [markdown]
# **The clock.** Weights in few bits alone compute no faster: they are floats again when they are multiplied.
# For 8 bits processors can multiply whole numbers, if the *activations* are put into 8 bits too. (Where a
# processor has no instructions for it, the products are of 32-bit integers instead: the same numbers, slower.)

# %%
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    whole_numbers = int8(network)
for name, model in (("32-bit floats", network), ("8-bit products", whole_numbers)):
    wt, tc = dice(model)
    ms = milliseconds(model, patients[0].image[shown[:1]])
    print(f"{name:16} {ms:7.1f} ms a slice, WT {wt:.1f}, TC {tc:.1f}")

# %%
BitsExplorer([volume.case for volume in patients])

# %% [markdown]
# > **Question.** What is the smallest file whose segmentation you would accept, and with which scale?
# > Look at two slices of each patient before you answer.
# >
# > Your answer: ...

# %%
good = {
    (bits, kind): float(np.mean(one))
    for (bits, kind), one in table.items()
    if np.mean(one) > whole.mean() - 5
}
fewest = min((bits for bits, _ in good), default=None)
explanation(
    "Within five points of the network in 32 bits (mean of WT and TC): "
    + "; ".join(
        f"{bits} bit{'s' * (bits > 1)} with a scale for each {kind}, {one:.1f}"
        for (bits, kind), one in good.items()
    )
    + ". "
    + (
        f"So the smallest file has {fewest} bit{'s' * (fewest > 1)} a weight. "
        if fewest
        else "No file of few bits does it. "
    )
    + "A scale costs 32 bits for a whole row, next to nothing. But three patients "
    "cannot tell two of these rows apart, and what a mean over slices hides you see in the pictures: a "
    "few voxels beside the tumour, which a threshold on size would remove, or an edge that has moved."
)

# %% [markdown]
# ## 4. Distillation: learn from a large network
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
# ### Exercise 3: `kd_loss` (3 points, 7 minutes)
#
# Return a tensor with its graph, for a student should learn from it. The teacher must get no gradient.


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
torch.testing.assert_close(
    kd_loss(student, said, 3.0), distillation.kd_loss(student, said, 3.0), rtol=1e-4, atol=1e-4
)

temperatures = (1, 2, 4, 8, 16)
lengths = []
for T in temperatures:
    lengths.append(torch.autograd.grad(kd_loss(student, said, T), student)[0].norm().item())
figure = Figure(figsize=(10, 3), layout="constrained")
left, right = figure.subplots(1, 2)
names = ("background", "necrotic", "oedema", "enhancing")
for i, (T, hatch) in enumerate(zip((1, 2, 4), ("", "//", "xx"), strict=True)):
    p = (said[0].flatten(1)[:, pixel] / T).softmax(0)
    colour = pictures.unit((pictures.BLUE, pictures.SKY_BLUE, pictures.ORANGE)[i])
    places = np.arange(4) + 0.27 * (i - 1)
    left.bar(places, p, 0.25, label=f"T = {T}", color=colour, hatch=hatch, edgecolor="black", linewidth=0.5)
left.set(xticks=range(4), xticklabels=names, ylabel="probability", title="the teacher on one pixel")
left.legend(frameon=False)
right.plot(temperatures, lengths, "o-", color=pictures.unit(pictures.BLUE), label="with T²")
without = [length / T**2 for length, T in zip(lengths, temperatures, strict=True)]
right.plot(temperatures, without, "s--", color=pictures.unit(pictures.VERMILLION), label="without")
right.set(
    xlabel="temperature T", ylabel="length of the gradient", yscale="log", title="what the student gets"
)
right.yaxis.set_major_formatter("{x:g}")
right.legend(frameon=False)
plots.show(
    figure,
    "Left: four probabilities of one pixel, drawn closer together as T rises from 1 to 4. Right: the "
    "length of the student's gradient against T: with the factor T squared it stays of one order, without "
    "it it falls steeply.",
)

# %% [markdown]
# > **Explain** both curves on the right.

# %%
explanation(
    f"From T = 1 to T = {temperatures[-1]} the gradient with $T^2$ changes by a factor of "
    f"{lengths[-1] / lengths[0]:.1f}, without by {without[-1] / without[0]:.4f}. The gradient of KL with "
    "respect to z is $(q - p)/T$, and q and p come closer to each other as T rises: together about $1/T^2$. "
    "The factor $T^2$ takes that back, so that the teacher keeps its weight beside the true labels. Without "
    "it a slider for T would be a slider that turns the teacher off."
)

# %% [markdown]
# ### Does a teacher help?
#
# Only an experiment says, and it needs a control. The student is a **U-Net** of 402 thousand numbers,
# fifteen times smaller than its teacher, with random weights: it has never seen a picture. It takes 48
# steps of 8 slices, three times:
#
# * **labels**: one patient, outlined by an expert. This is the control;
# * **labels + teacher**: the same patient, the same batches, and what the teacher says about it beside the
#   labels;
# * **teacher alone**: six patients, whose outlines we *hide*. What the teacher says about them is all that the
#   student gets.
#
# The teacher itself was tuned on twenty outlined patients, and all of these are among them. So it may say more
# about them than it would about patients who are new to it.
#
# > **Predict.** Rank the three. In which of them can the student become better than its teacher?

# %%
few, many = 40, 96
pools = {}  # slices, their labels, what the teacher says of them
for name, volumes, count in (("one", train[:1], few), ("six", train, many)):
    numbers = torch.Generator().manual_seed(0)
    x, y = sample_slabs(volumes, at_most(count, 1), 1, (96, 96), numbers)
    x, y = x.flatten(0, 1), y.flatten(0, 1)
    said = [distillation.answers(network, some) for some in x.split(16)]  # all at once would take 1 GB
    pools[name] = (x, y, torch.cat(said))
arms = {
    "labels": ("one", True, False),
    "labels + teacher": ("one", True, True),
    "teacher alone": ("six", False, True),
}


def learn(arm, seed, steps=48):
    """Train a student; its Dice (mean of WT and TC) after every third of the steps, and the student."""
    pool, labels, teacher = arms[arm]
    x, y, said = pools[pool]
    student, steps = SmallUNet(8, seed=seed).train(), at_most(steps, 1)
    optimizer = torch.optim.AdamW(student.parameters(), lr=LR)
    numbers, path = torch.Generator().manual_seed(seed), []
    for step in range(1, steps + 1):
        optimizer.param_groups[0]["lr"] = LR * min(1, step / 6) * (1 - (step - 1) / steps)
        some = torch.randperm(len(x), generator=numbers)[:8]
        z = student(x[some])
        loss = torch.zeros(())
        if labels:
            loss = loss + dice_ce(z, y[some])
        if teacher:
            loss = loss + kd_loss(z, said[some], 2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if 3 * step % steps == 0:
            path.append((step, float(np.mean(dice(student)))))
            student.train()
    return path, student


paths, students = {}, {}


def learn_twice(arm):
    """Two students of one arm, which begin with different random weights."""
    for seed in tqdm((0, 1), desc=arm, leave=False):
        paths[arm, seed], students[arm, seed] = learn(arm, seed)


learn_twice("labels")

# %%
learn_twice("labels + teacher")

# %%
learn_twice("teacher alone")

# %%
teacher_dice = float(np.mean(whole))
print(f"{'mean of WT and TC (%)':22} {'seed 0':>7} {'seed 1':>7}")
for arm in arms:
    print(f"{arm:22} {paths[arm, 0][-1][1]:7.1f} {paths[arm, 1][-1][1]:7.1f}")
print(f"{'the teacher':22} {teacher_dice:7.1f}")
print(f"{'the threshold':22} {50 * (band['WT'] + band['TC']):7.1f}")

# %%
figure = Figure(figsize=(8, 4), layout="constrained")
axis = figure.subplots()
looks = (("o", pictures.BLUE), ("s", pictures.VERMILLION), ("^", pictures.GREEN))
for (arm, (marker, colour)), seed in (
    (pair, seed) for pair in zip(arms, looks, strict=True) for seed in (0, 1)
):
    style = dict(marker=marker, color=pictures.unit(colour), linestyle=("-", "--")[seed])
    axis.plot(*zip(*paths[arm, seed], strict=True), label=f"{arm}, seed {seed}", **style)
axis.axhline(teacher_dice, color="black", linestyle=":", label="the teacher")
axis.set(xlabel="step", ylabel="Dice on test patients (%)", ylim=(0, 100))
figure.legend(loc="outside right upper", frameon=False)
plots.show(
    figure,
    "Dice of the students on test patients after a third, two thirds and all of their steps: three ways to "
    "learn, two seeds each, and the teacher as a dotted line.",
)

# %% [markdown]
# > **Explain.** Which difference of two rows answers "does a teacher help", and is it larger than what a seed
# > moves? What does the third row teach you about labels?

# %%
last = {arm: [paths[arm, seed][-1][1] for seed in (0, 1)] for arm in arms}
gains = [b - a for a, b in zip(last["labels"], last["labels + teacher"], strict=True)]
moved = max(abs(a - b) for a, b in last.values())
alone = float(np.mean(last["teacher alone"]) - np.mean(last["labels"]))
explanation(
    "**labels + teacher less labels**: nothing else differs. That is "
    + " and ".join(f"{gain:+.1f}" for gain in gains)
    + f" points with the two seeds; a seed alone moves a row by up to {moved:.1f}. "
    + (
        "Both seeds say that the teacher helps, and by more than a seed moves. "
        if min(gains) > moved
        else "Both seeds say that the teacher harms here, and by more than a seed moves. "
        if max(gains) < -moved
        else "That is not more than chance: from this run nobody may say that the teacher helps *beside* "
        "labels. "
    )
    + f"\n\n**Teacher alone** is {alone:+.1f} from labels alone in the mean. "
    + (
        "Without one outlined patient the student did better than with one: the teacher hands on what "
        "it learned from twenty, on scans whose outlines the student never saw. That is where distillation "
        "pays in medicine: scans are many, outlines few. "
        if alone > 2
        else "It had no outline at all, and more slices. "
        if alone > -2
        else "It differs in three things: no outlines, more patients, and a loss without Dice, a mean over "
        "pixels that are mostly background. This run does not say which of them costs the points. "
    )
    + f"The teacher has {teacher_dice:.1f}. From its answers alone a student can hardly become better than "
    "that; where the labels know more than the teacher, it can. *Ask first whether the teacher is better "
    "than what the student would be by itself*: lab 10 has a U-Net that needs none."
)

# %% [markdown]
# ## 5. Use it: a size of your choice, within a point
#
# The scanner's console takes a file of at most **4 MB** for the backbone, less than a fifth of what it is. You
# may prune, retrain and round, and you may lose **one point** of Dice (mean of WT and TC) against the network
# as it is.
#
# ### Exercise 4: `packed_bytes` (2 points, 4 minutes)
#
# How large is the file of a pruned and rounded matrix? Of its `places` only `left` hold a weight. One *bit*
# for each place says whether it does; each weight that is left takes `bits` bits. Return whole bytes, of 8
# bits each. (Han et al., 2016, arXiv:1510.00149, squeeze out more still.)


# %% labkit={"exercise": "packed_bytes", "role": "answer", "points": 2}
def packed_bytes(places, left, bits):
    """Whole bytes of a matrix with so many places, of which `left` hold a weight of so many bits."""
    ### BEGIN SOLUTION
    whole_bits = places + left * bits
    return -(-whole_bits // 8)
    ### END SOLUTION


# %% labkit={"exercise": "packed_bytes", "role": "check"}
lab.check("packed_bytes", packed_bytes)

# %%
packed_bytes = lab.working("packed_bytes", packed_bytes)

# %% [markdown]
# Choose three numbers and run the cell, as often as you like. The first line of its output is the check.
#
# > **Predict** before each run: does it fit, and is it within a point?

# %%
SHARE, STEPS, BITS = 0.3, 10, 8  # share of each layer to prune, steps of retraining, bits of what is left

mine, _ = trained_on(
    {name: magnitude_mask(w, SHARE) for name, w in weights.items()},
    Recipe(steps=STEPS, batch_size=4, lr=1e-4, head_lr=2e-4),
)
size = sum(4 * p.numel() for p in mine.backbone.parameters())
with torch.no_grad():
    for w in matrices(mine.backbone).values():
        w.copy_(precision.fake_quantize(w, BITS, per_row=True))
        left = int(w.count_nonzero())
        size += packed_bytes(w.numel(), left, BITS) + 4 * len(w) - 4 * w.numel()  # a scale for each row
lost = teacher_dice - float(np.mean(dice(mine)))
fits, close = size <= 4e6, lost <= 1
print(
    f"{'YES' if fits and close else 'NOT YET'}: {size / 1e6:.2f} MB ({'fits' if fits else 'too large'}), "
    f"{lost:+.1f} points lost ({'within' if close else 'more than'} one)"
)

# %% [markdown]
# > **Decide**, in four sentences. Which size do you propose? Which number speaks for it? Against *what* did
# > you measure the point, the network as it is or the one trained on? And what would you look at before a
# > patient depends on it?
# >
# > Your proposal: ...

# %%
against_control = mean["intact, trained on"] - float(np.mean(dice(mine)))
explanation(
    f"{SHARE:.0%} of the weights out, {STEPS} steps, {BITS} bits: {size / 1e6:.2f} MB instead of "
    f"{sum(4 * p.numel() for p in network.backbone.parameters()) / 1e6:.1f}, and {lost:+.1f} points lost "
    "against the network as it is; against the intact one that was trained on for "
    f"{len(control_history)} steps (section 2) "
    f"{against_control:+.1f}. "
    + (
        "The two differ. The second is the honest price where both were trained for as many steps: with the "
        "first, retraining pays for pruning. "
        if abs(against_control - lost) > 0.5
        else "Here the two agree. "
    )
    + "A point is also about what 24 slices and a seed move. Before a patient depends on it: more patients, "
    "and the worst of them rather than the mean."
)

# %% [markdown]
# ## 6. Test yourself
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
# <details><summary>3. Why does the student get the teacher's probabilities, not its labels?</summary>
# Probabilities also say what a pixel is *like*, and how sure the teacher is. A label says neither.
# </details>
#
# <details><summary>4. What does the straight-through estimator pretend?</summary>
# That rounding has the derivative 1. It has 0, and with that nothing would learn.
# </details>
#
# <details><summary>5. Pruned, then trained for some steps more, a network is good again. What is
# missing?</summary> The control: the intact network, trained for as many steps more, on the same batches.
# </details>

# %% [markdown]
# ## 7. Bonus: other layers
#
# Nothing here is needed later, but for the shuffle, which lab 10 uses.
#
# ### A. Split the convolution
#
# A 3 x 3 convolution from M to N channels does two things at once: it looks at neighbours, and it mixes
# channels. MobileNet (Howard et al., 2017, arXiv:1704.04861) does one after the other:
#
# * **depthwise**: each of the M channels gets a k x k kernel of its own, and no other channel is looked at;
# * **pointwise**: a 1 x 1 convolution mixes the M channels into N.
#
# The ordinary one costs $k^2 M N H W$ MACs on H x W places, depthwise and pointwise together
# $(k^2 M + M N) H W$. Divide the second by the first, and the share that is left is $\frac1N + \frac1{k^2}$.
# For 64 channels and 3 x 3 that is an eighth.
#
# > **Predict.** Will it also take an eighth of the time? Which of its parts takes longest?

# %%
M = N = 64
H = W = 48
ordinary = mobilenet.conv_norm(M, N).eval()
separable = mobilenet.separable(M, N).eval()
x = torch.randn(8, M, H, W)
(depthwise, *after_depthwise), (pointwise, *after_pointwise) = separable
parts = {
    "ordinary convolution": ordinary[0],
    "depthwise": depthwise,
    "pointwise": pointwise,
    "two norms, two ReLU6": nn.Sequential(*after_depthwise, *after_pointwise),
}
ms = {name: milliseconds(part.eval(), x, repeats=20) for name, part in parts.items()}
count = {name: macs(part, 1, M, H, W) / 1e6 for name, part in parts.items()}
for name in parts:
    print(f"{name:21} {count[name]:6.1f} M MACs a map, {ms[name]:6.2f} ms for 8 maps")

# %%
split = ms["depthwise"] + ms["pointwise"]
fewer = count["ordinary convolution"] / (count["depthwise"] + count["pointwise"])
slow = (ms["depthwise"] / count["depthwise"]) / (ms["ordinary convolution"] / count["ordinary convolution"])
explanation(
    f"{fewer:.1f} times fewer MACs, {ms['ordinary convolution'] / split:.1f} times less time for the "
    f"convolutions alone, {ms['ordinary convolution'] / (split + ms['two norms, two ReLU6']):.1f} times when "
    "its two norms and activations are added (the one pair of the ordinary layer is not timed here). A MAC "
    f"of the depthwise part takes {slow:.1f} times as long as one of the ordinary convolution: it reads "
    "and writes as many numbers as the pointwise part and does 9 MACs with each instead of 64. That fits "
    "waiting for memory; clocks alone do not prove it. MACs count arithmetic only."
)

# %% [markdown]
# A whole network of such layers, with 1000 classes, and the same network with ordinary convolutions:

# %%
for name, standard in (("MobileNetV1", False), ("the same, ordinary", True))[: at_most(2, 1)]:
    with torch.device("meta"):  # shapes alone: both are only counted
        model = mobilenet.mobilenet_v1(standard=standard)
    number = sum(p.numel() for p in model.parameters())
    print(f"{name:20} {number:11,} parameters {macs(model, 1, 3, 224, 224):14,} MACs")

# %% [markdown]
# ### B. Shuffle the channels
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
        colour = (pictures.SKY_BLUE, pictures.ORANGE)[channel // 3]
        axis.bar(place, 0.7, bottom=-row - 0.35, color=pictures.unit(colour), edgecolor="black")
        axis.text(place, -row, f"{channel}\n{'ab'[channel // 3]}", ha="center", va="center", color="black")
axis.axvline(2.5, color="black", linestyle=":")
axis.set(xlim=(-2.2, 5.6), ylim=(-1.5, 0.5))
axis.set_axis_off()
plots.show(
    figure,
    f"Six channels in two groups of three, a and b. After the shuffle their order is {mixed}: "
    "each half now holds channels of both groups.",
)

# %% [markdown]
# Turned the other way, two columns and three rows, it would be 0, 2, 4, 1, 3, 5: that undoes a shuffle.
# Lab 10 uses a small ShuffleNet to decide which slices are worth computing.
#
# ### C. AdderNet: no multiplications
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
# Equally far: the sign does not know how much is missing. So AdderNet puts something else in its place:
#
# $$\frac{\partial Y}{\partial F} := X - F, \qquad
#   \frac{\partial Y}{\partial X} := \operatorname{clip}(F - X, -1, 1)$$
#
# The second is clipped, since it is handed to the layer before, and that one's to the one before it.
# For F = 0.5 and X = 2: $Y = -1.5$, the filter gets 1.5, and X gets $-1$.
#
# ### Exercise 5, bonus: `adder_gradients` (2 points, 9 minutes)
#
# Many patches and filters at once. `X` is (L, k), a patch in each row; `filters` is (o, k);
# `g` is (L, o), dL/dY of each pair, which the layer after hands back.
# A patch meets all filters, and a filter all patches: sum over whom each one met, every pair weighted with
# its g.


# %% labkit={"exercise": "adder_gradients", "role": "answer", "points": 2, "hides": ["labkit.efficient.adder"]}
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
Y = adder.adder2d(maps, filters, eta=None)  # (1, 3, 4, 4); no eta: the gradient as the formula has it
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
# > **Explain.** Additions are cheaper than multiplications. Why is the adder layer not the faster one here?

# %%
explanation(
    f"The adder layer takes {ms[1] / ms[0]:.1f} times as long as the convolution. Processors have circuits "
    "that multiply and add in one go, and libraries that keep them busy. For sums of distances they have "
    "neither. A chip *made* for adders would save energy; your laptop is not one. And to train at all, "
    "AdderNet needs two things more: batch norm after each layer, since its outputs are large and all "
    "negative, and a rate for each layer, which scales its filters' gradient to one length (`eta` of "
    "`adder.adder2d`)."
)

# %% [markdown]
# ### D. Two more questions
#
# * **The order.** Remove half of the MLP units, then put the rest into 4 bits with a scale for each row, and
#   `report` it. Does the order matter? Is the loss the sum of the two losses?
# * **A better teacher?** Train the student of section 4 with the network of section 2 as its teacher,
#   retrained and with 70 % zeros. Does the student notice?

# %% [markdown]
# ## 8. What changes on real data
#
# * Test patients differ, and small changes of a network hit the hard ones first. Look at the worst patient, not at
#   the mean; a rounding that costs a point on average may cost one patient the tumour.
# * A hospital's computer decides which way pays: a server with 8-bit kernels, a phone with little memory,
#   a scanner's console with neither.
# * Pruned or rounded, it is another network. A medical device must be tested again as a whole.
# * Better than all of these is often not to compute: most slices of a brain hold no tumour.
#   Lab 10 builds a network that leaves them out.
#
# Labs 03 to 09 take another road: they leave the network as it is and make *learning* cheap.

# %%
lab.progress()
