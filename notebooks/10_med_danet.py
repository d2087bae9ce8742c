# %% [markdown]
# # Lab 10: Compute only where it pays
#
# A brain scan has many slices, and most of them hold no tumour.
# Med-DANet V2 (Shen et al., 2024, arXiv:2310.18656) decides for every slice: skip it, look at a window of it,
# or look at all of it. In this lab you will
#
# 1. **cut** a window out of a picture and **paste** it back so that its *place* gets a gradient;
# 2. **make** a hard choice that can be learned;
# 3. **count** what a choice costs, and **explain** what this count does not say;
# 4. **train** a small Med-DANet V2 in about a minute, and **choose** a price of computing by its worst patient;
# 5. **measure** the small U-Net, new, against a pretrained transformer, tuned: in steps and in seconds;
# 6. **read** the paper's tables, and say what "17.3 times" was divided by.
#
# | | |
# | --- | --- |
# | Time | about 85 minutes, 16 points; 45 if you leave exercises 2 and 4 to labkit and stop after section 6 |
# | Computer | any laptop, no GPU; one training of about a minute, seven shorter ones |
# | Counted | 90 minutes with all exercises: 3,174 words, 409 lines of code, 5 exercises, 6 minutes of computing; 2.1 GB of memory |
# | You know | Lab 02 (bits, straight-through gradients, MACs); Lab 04 (LoRA); Lab 00 (Dice); Lab 08 (HD95) |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# `lessons.start` sets the seeds and checks whether your computer has what the lab needs.

# %%
import copy
import time

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tqdm.auto import tqdm

from labkit import lessons
from labkit.efficient import meddanet
from labkit.efficient.meddanet import CROP, SKIP, WHOLE, MedDANet
from labkit.efficient.meddanet_training import look_at, read, train_decision, train_networks
from labkit.efficient.meddanet_unet import other_macs, stage_macs
from labkit.efficient.unet import LR, SmallUNet
from labkit.explore import deltas, pictures, plots
from labkit.explore.dynamic import DynamicExplorer
from labkit.methods import Full, LoRA
from labkit.metrics import mean_by_region, mean_present, regions_of, score
from labkit.networks.segmenter import segmenter
from labkit.phantoms.brain import brain_patient, split
from labkit.scans.slices import every_other, to_volume
from labkit.studies import statistics
from labkit.studies.table import between
from labkit.training.evaluate import evaluate
from labkit.training.fit import Recipe, fit
from labkit.training.quick import at_most
from labkit.tuning import count, tune

lab = lessons.start("10")


def explanation(words):
    """A fold whose sentences are made from the numbers that were just computed."""
    return Markdown(
        f"<details><summary>Our explanation, with your numbers</summary>\n\n{words}\n\n</details>"
    )


# %% [markdown]
# ## 1. Where is there nothing to see?
#
# Ten patients to learn from, ten to be tested on. If your computer has not made them yet, it does so now,
# in a minute or two. They moved in the scanner: some slices show a ghost of the tumour (lab 00, section 9), which
# lowers every Dice below.
#
# > **Predict.** What share of the slices holds a tumour? And where one does, what share of its 96 x 96 pixels is
# > tumour?

# %%
patients = {}
for name in ("train", "test"):
    seeds = split(name)[: at_most(10, 3)]
    patients[name] = [to_volume(brain_patient(seed)) for seed in tqdm(seeds, desc=name, leave=False)]
train, test = patients["train"], patients["test"]

labelled = [(volume.target > 0).flatten(1).any(1) for volume in train]
sides, areas = [], []  # of the smallest box around the tumour, and of the tumour itself
for volume in train:
    for target in volume.target:
        rows, columns = (target > 0).nonzero(as_tuple=True)
        if len(rows):
            sides.append(int(max(rows.max() - rows.min(), columns.max() - columns.min())) + 1)
            areas.append(len(rows) / target.numel())
share = torch.cat(labelled).float().mean()
print(f"{share:.0%} of the slices hold a tumour, in {np.mean(areas):.1%} of their pixels")
print(f"the smallest box around it is at most {max(sides)} of 96 pixels wide or high")

figure = Figure(figsize=(9, 3), layout="constrained")
left, right = figure.subplots(1, 2)
for height, some in enumerate(labelled):
    left.plot(some.nonzero().flatten(), [height] * int(some.sum()), "s", color="black", markersize=2)
left.set(
    xlabel="slice",
    ylabel="training patient",
    xlim=(0, 80),
    title="slices with a tumour",
    yticks=range(len(train)),
)
right.hist(
    sides, bins=range(0, 97, 4), color=pictures.unit(pictures.SKY_BLUE), edgecolor="black", linewidth=0.4
)
right.axvline(64, color=pictures.unit(pictures.VERMILLION), linestyle="--")
right.text(65, right.get_ylim()[1] * 0.9, "64: our window")
right.set(
    xlabel="longer side of the tumour's box (pixels)", ylabel="slices", title="how large a window must be"
)
plots.show(
    figure,
    "Left: for each training patient the slices with a tumour, only a part of all. Right: the longer side "
    "of the tumour's box in those slices, always below 64 pixels.",
)

# %%
explanation(
    f"A tumour is in {share:.0%} of the slices; who skipped exactly the others would compute {share:.0%} of all. "
    f"Where there is one, it fills {np.mean(areas):.1%} of the pixels, and its box is at most {max(sides)} pixels "
    + (
        "wide, so a window of 64 can hold all of it, if it lies rightly. Whether a network finds that place is "
        "another question."
        if max(sides) <= 64
        else "wide, so a window of 64 does not always hold it."
    )
)

# %% [markdown]
# So there is something to save. But every saving is a decision, and decisions must be learned. Two small
# networks look at each slice first:
#
# * the **decision network** says what is done with the slice: skip it, crop a window, or take the whole;
# * the **position network** says where the window is.
#
# What is taken is segmented by a third network. All learn from the loss of the segmentation, by gradients.
# Gradients need smooth functions, and neither a place in whole pixels nor a choice is smooth.
# Sections 2 to 4 make them so.

# %% [markdown]
# ## 2. Cut
#
# `x[:, i:i+64, j:j+64]` has no derivative with respect to i. **Sampling** has: read the picture at places
# between pixels, by interpolation. Move the place a little, and what is read changes a little.
#
# PyTorch does it in two steps. `F.affine_grid(theta, size)` makes the places, `F.grid_sample(x, grid)` reads
# there. Coordinates run from $-1$ to $1$ over the picture, **x first**. (We give `align_corners=False` to
# both: then $-1$ and $1$ are the outer edges of the picture, not the middles of its outermost pixels.)
#
# The window has coordinates of its own, $(u_x, u_y)$, also from $-1$ to $1$. theta, (B, 2, 3), holds for
# each picture of a batch the matrix that leads from them to the place (x, y) in the picture:
#
# $$\begin{pmatrix} x \\ y \end{pmatrix} =
#   \begin{pmatrix} s & 0 & t_x \\ 0 & s & t_y \end{pmatrix}
#   \begin{pmatrix} u_x \\ u_y \\ 1 \end{pmatrix}$$
#
# s is the zoom, t the window's centre. Our window of m pixels has its upper left corner at row and column
# $a\,(n - m)$ of the n x n picture, $a = (a_\text{row}, a_\text{column})$, both from 0 to 1.
#
# By hand, n = 10 and m = 4: the window covers 4/10 of the picture, so s = 0.4. At a = 0 it reaches
# from $-1$ to $-0.2$, its centre is $-0.6$. At a = 1 the centre is $0.6$.
#
# ### Exercise 1: `window_grid` (3 points, about 8 minutes, medium)
#
# Return theta alone. A later cell makes the grid of it. A place is to be learned: a gradient must lead from theta
# back to a, so fill it with tensors, not with numbers taken out of them.


# %% labkit={"exercise": "window_grid", "role": "answer", "points": 3}
def window_grid(a, m, n):
    """theta (B, 2, 3) for affine_grid: windows of m pixels at a (n - m); a (B, 2) is (row, column)."""
    ### BEGIN SOLUTION
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = m / n
    theta[:, :, 2] = ((2 * a - 1) * (n - m) / n).flip(1)
    return theta
    ### END SOLUTION


# %% labkit={"exercise": "window_grid", "role": "check"}
lab.check("window_grid", window_grid)

# %%
my_window_grid = lab.working("window_grid", window_grid)

# %% [markdown]
# Stuck? `lab.hint("window_grid")` gives a nudge; again, and it says more.
#
# On a patient's slice: your window is labkit's, and that of ordinary slicing, where it begins at a whole
# pixel.

# %%
patient = next(volume for volume in test if (volume.case.label == 4).any())
level = int((patient.target > 0).sum((1, 2)).argmax())
picture = patient.image[level][None]
n, m = 96, 64
a = torch.tensor([[8.0, 24.0]]) / (n - m)
grid = F.affine_grid(my_window_grid(a, m, n), [1, 4, m, m], align_corners=False)
window = F.grid_sample(picture, grid, align_corners=False)
torch.testing.assert_close(window, meddanet.cut(picture, a, m), rtol=1e-4, atol=1e-4)
torch.testing.assert_close(window, picture[:, :, 8 : 8 + m, 24 : 24 + m], rtol=0, atol=1e-4)
print("cut at row 8, column 24:", tuple(window.shape))

# %% [markdown]
# ## 3. Paste
#
# The window is segmented. Its features must go back to where it was, on a canvas of zeros. That is sampling
# once more, with the roles changed: what is *read* is the window, what is *written* is the canvas. Outside
# the window grid_sample reads zeros.
#
# Now x is a place on the canvas, and we ask which place u of the window it shows. Solve the cut's equation
# for it: with $s = m/n$, $u = \tfrac{n}{m}\,x - \tfrac{n}{m}\,t$.
#
# ### Exercise 2: `paste` (3 points, about 7 minutes, medium)
#
# Return the canvas this time, by `F.affine_grid` and `F.grid_sample`, again with `align_corners=False`, and with
# a gradient for a.


# %% labkit={"exercise": "paste", "role": "answer", "points": 3, "hides": ["labkit.efficient.meddanet"]}
def paste(window, a, n):
    """The window (B, C, m, m) on a canvas (B, C, n, n) of zeros, where `window_grid` cut it out."""
    ### BEGIN SOLUTION
    m = window.shape[-1]
    theta = torch.zeros(len(a), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = n / m
    theta[:, :, 2] = ((1 - 2 * a) * (n - m) / m).flip(1)
    grid = F.affine_grid(theta, [*window.shape[:2], n, n], align_corners=False)
    return F.grid_sample(window, grid, align_corners=False)
    ### END SOLUTION


# %% labkit={"exercise": "paste", "role": "check"}
lab.check("paste", paste)

# %%
my_paste = lab.working("paste", paste)

# %% [markdown]
# The authors' released code exchanges x and y when it pastes. In the third picture we do the same, on purpose.
#
# > **Predict.** Where will the window come back that was cut at row 8, column 24?

# %%
torch.testing.assert_close(my_paste(window, a, n), meddanet.paste(window, a, n), rtol=1e-4, atol=1e-4)
figure = Figure(figsize=(9, 3.3), layout="constrained")
shown = {
    "the slice, window marked": picture,
    "cut and pasted": my_paste(window, a, n),
    "pasted with x and y exchanged": my_paste(window, a.flip(1), n),
}
for axis, (title, image) in zip(figure.subplots(1, 3), shown.items(), strict=True):
    axis.imshow(image[0, -1], cmap="gray", vmin=-1, vmax=3)
    axis.add_patch(Rectangle((23.5, 7.5), m, m, fill=False, color="orange"))
    axis.contour(patient.target[level] > 0, [0.5], colors="cyan", linewidths=1)
    axis.set(xticks=[], yticks=[], title=title)
    axis.title.set_fontsize(10)
plots.show(
    figure,
    "A slice with a frame at row 8, column 24, and the outline of its tumour. Pasted rightly, the window "
    "fills the frame. With x and y exchanged it lies at row 24, column 8, and the tumour is no longer "
    "inside its outline.",
)

# %% [markdown]
# Pasted with x and y exchanged, a window comes back to its place only if it lies on the diagonal, row =
# column. A position network that is trained so can only do right by cutting there. (Orange is where the window
# was cut, cyan the outline of the tumour.)
#
# Does the place get a gradient? Paste a window of ones, low and far left, and see what share of the tumour
# it covers. (The slice is the one above.)
#
# > **Predict.** Two signs: does the share grow with the row? With the column?

# %%
place = torch.tensor([[0.9, 0.1]], requires_grad=True)
covered = my_paste(torch.ones(1, 1, m, m), place, n)[0, 0][patient.target[level] > 0].mean()
print(f"{covered:.1%} of the tumour lies in this window")
row, column = torch.autograd.grad(covered, place)[0][0].tolist()
print(f"gradient with respect to (row, column): ({row:+.2f}, {column:+.2f})")

# %% [markdown]
# A negative number says: a smaller row, or column, covers more. So the two numbers point from the window to where
# the rest of the tumour is. Compare them with the figure.
#
# > **Explain.** When is this gradient zero although the window misses the tumour?
#
# <details><summary>Our explanation</summary>
#
# When its border touches nothing of it: a window wholly beside the tumour covers none, and moved by a hair's
# breadth it still covers none. Nothing says in which direction to go. The position network therefore begins
# with windows in the middle, and large ones.
# </details>

# %% [markdown]
# ## 4. Choose
#
# The decision network gives three numbers z for a slice. The choice is $\arg\max z$, as a **one-hot** row,
# 1 at what is chosen and 0 elsewhere: $(1, 0, 0)$ skips, $(0, 1, 0)$ crops, $(0, 0, 1)$ takes the whole.
# argmax has no gradient. The remedy is the one of Lab 02, the straight-through gradient: the value of one
# thing, the gradient of another.
#
# ### Exercise 3: `hard_choice` (3 points, about 5 minutes, medium)
#
# z is (B, K): for each of B slices K numbers, here 3. Return one-hot rows, also (B, K), whose gradient is
# that of the softmax. It must work, too, where no slice of the batch takes the last choice.


# %% labkit={"exercise": "hard_choice", "role": "answer", "points": 3, "hides": ["labkit.efficient.meddanet"]}
def hard_choice(z):
    """One-hot of each row's largest, (B, K), with the gradient of softmax(z)."""
    ### BEGIN SOLUTION
    soft = z.softmax(1)
    hard = F.one_hot(z.argmax(1), z.shape[1])
    return hard + (soft - soft.detach())
    ### END SOLUTION


# %% labkit={"exercise": "hard_choice", "role": "check"}
lab.check("hard_choice", hard_choice)

# %%
my_hard_choice = lab.working("hard_choice", hard_choice)

# %%
z = torch.tensor([[0.3, 0.9, 0.1]], requires_grad=True)
torch.testing.assert_close(my_hard_choice(z), meddanet.hard_choice(z), rtol=1e-4, atol=1e-4)
numbers = torch.Generator().manual_seed(0)
drawn = torch.cat([meddanet.hard_choice(z, numbers) for _ in range(2000)]).mean(0)
print("softmax:       ", [round(p, 2) for p in z.softmax(1)[0].tolist()])
print("without noise: ", my_hard_choice(z)[0].tolist())
print("with noise, share of 2,000 draws:", [round(p, 2) for p in drawn.tolist()])

# %% [markdown]
# In training, noise of the right kind (Gumbel's) is added to $\log\operatorname{softmax} z$ before the
# argmax. Then each choice is drawn as often as its probability says, and all three get tried. In use there
# is none: the same slice, the same choice.

# %% [markdown]
# ## 5. What does a choice cost?
#
# What segments is a **U-Net** (Ronneberger et al., 2015, arXiv:1505.04597), built of convolutions. After a
# first layer, the *stem*, its *encoder* halves the resolution from stage to stage. Its *decoder* doubles it
# again, and at each resolution gets what the encoder had there, so that outlines stay sharp. A *head* makes
# the labels.
#
# The paper also chooses, for each of the encoder's four stages, whether its weights are in 8 or 16 bits, and
# counts a stage's MACs times bits/32. All else, stem, decoder and head, stays at 32 bits:
#
# $$\text{cost} = \sum_{i=1}^4 \text{MACs}_i \cdot \frac{b_i}{32} + \text{MACs}_\text{other}$$
#
# ### Exercise 4: `mean_cost` (4 points, about 7 minutes, medium)
#
# For B slices:
#
# * `choice` (B, 3): a one-hot row for each slice;
# * `stages` (3, 4): a row each for skip, crop and whole, with the MACs of the four stages;
# * `other` (3,): the MACs of all else, also for skip, crop and whole;
# * `bits` (B, 4): for each slice the bits of the four stages.
#
# Return the mean over the slices of what is chosen for them: a tensor through which a gradient reaches `choice`,
# for by it the decision learns what it costs.


# %% labkit={"exercise": "mean_cost", "role": "answer", "points": 4, "hides": ["labkit.efficient.meddanet:cost"]}
def mean_cost(choice, stages, other, bits):
    """Mean over slices of what the chosen way costs, in MACs x bits/32."""
    ### BEGIN SOLUTION
    each = bits @ stages.T / 32 + other  # (B, 3)
    return (choice * each).sum(1).mean()
    ### END SOLUTION


# %% labkit={"exercise": "mean_cost", "role": "check"}
lab.check("mean_cost", mean_cost)

# %%
my_mean_cost = lab.working("mean_cost", mean_cost)

# %% [markdown]
# The paper's network has 16 channels, slices of 128 pixels and windows of 96; ours 8 channels, 96 and 64.

# %%
for name, c, n_, m_ in (("paper", 16, 128, 96), ("ours", 8, 96, 64)):
    stages = torch.tensor([[0.0] * 4, stage_macs(c, m_), stage_macs(c, n_)])
    other = torch.tensor([0.0, other_macs(c, m_, n_), other_macs(c, n_, n_)])
    print(f"{name}, million MACs x bits/32")
    for bits in (32, 16, 8):
        costs = [
            my_mean_cost(
                F.one_hot(torch.tensor([k]), 3).float(), stages, other, torch.full((1, 4), float(bits))
            )
            / 1e6
            for k in (SKIP, CROP, WHOLE)
        ]
        print(f"  {bits:2} bits: skip {costs[0]:4.0f}  crop {costs[1]:6.1f}  whole {costs[2]:6.1f}")

# %% [markdown]
# > **Explain.** A stage in 8 bits counts a quarter. Will it take a quarter of the time?
#
# <details><summary>Our explanation</summary>
#
# No. In the released code weights are rounded and then multiplied as 32-bit floats: bits/32 is a credit for
# hardware that nobody used. A window and a skipped slice save real MACs.
# Below we train with full precision, so that every saving can be measured.
# </details>

# %% [markdown]
# ## 6. Train it
#
# First both ways of looking, crop and whole, with one U-Net and two heads. Then the decision alone, for a
# **price**:
#
# $$L = \text{Dice loss of what was chosen} + \text{price} \times \text{mean cost}$$
#
# with costs as shares of a whole slice, so that always whole costs about 1.
# The networks are new: nothing in them is pretrained.

# %%
model = MedDANet(c=8, n=96, m=64)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
history = train_networks(model, train, steps=100, slices=8)

# %%
plots.show(
    plots.curves({"crop and whole": history}), "Training loss of crop and whole together against step."
)

# %% [markdown]
# Now every second training slice is looked at in all ways once; its neighbour would say nearly the same. From what
# that gave, four decision networks learn.
#
# > **Predict.** The prices are 0, 0.03, 0.1 and 1. What shares of the slices will be skipped, cropped, whole? At a
# > price of 0 nothing speaks against *whole*: will it be chosen always? And does a skipped slice ever hold a tumour?

# %%
seen = look_at(model, [every_other(volume) for volume in train])

# %%
decisions = {price: train_decision(model, seen, price, steps=80) for price in (0.0, 0.03, 0.1, 1.0)}

# %% [markdown]
# Each price on every second slice of the test patients. *MACs* is the mean cost, always whole being 100 %. *HD95* is
# that of the whole tumour, in mm (lab 08). *Worst* is the patient who loses most of his WT Dice against always whole,
# in points. *Tumour skipped* is the share of a patient's tumour that lies in skipped slices, the mean over patients. A patient
# who has no enhancing tumour is no test of its Dice: he is left out of ET, in every row (`labkit.metrics`).
#
# A second table has differences from *always whole*, with 95 % intervals (`labkit.studies.statistics`, labs
# 07 to 09). There is one training, so they hold for other patients, not for another seed. A patient for whom
# either distance is infinite or missing is left out of the difference in HD95.

# %%
some = [every_other(volume) for volume in test[: at_most(10, 1)]]


def measured(model, always=None):
    """Scores of each patient, choices, mean cost, and milliseconds a slice."""
    began = time.perf_counter()
    results = [read(model, volume, always) for volume in tqdm(some, desc="reading", leave=False)]
    ms = 1000 * (time.perf_counter() - began) / sum(len(one.choices) for one in results)
    scores = [
        score(one.labels, volume.case.label, volume.case.spacing_mm, regions_of(volume.case.label_names))
        for one, volume in zip(results, some, strict=True)
    ]
    missed = [
        (volume.target[torch.from_numpy(one.choices == SKIP)] > 0).sum().item()
        / (volume.target > 0).sum().item()
        for one, volume in zip(results, some, strict=True)
    ]
    choices = np.concatenate([one.choices for one in results])
    return dict(
        dices={region: np.array([one[region]["dice"] for one in scores]) for region in ("WT", "TC", "ET")},
        hd95=np.array([one["WT"]["hd95"] for one in scores]),
        shares=[(choices == k).mean() for k in (SKIP, CROP, WHOLE)],
        cost=np.concatenate([one.costs for one in results]).mean(),
        ms=ms,
        missed=np.mean(missed),
    )


read(model, some[0])  # the first run is slower than the others
rows = {"always whole": measured(model, WHOLE), "always crop": measured(model, CROP)}
for price, decision in decisions.items():
    priced = copy.copy(model)
    priced._modules = dict(model._modules, decision=decision)
    rows[f"price {price:g}"] = measured(priced)

base = rows["always whole"]["dices"]["WT"]
have_et = int((~np.isnan(rows["always whole"]["dices"]["ET"])).sum())
print(f"{len(some)} test patients, {have_et} of them with ET")
print(
    f"{'':13} {'skip':>5} {'crop':>5} {'whole':>5}   WT    TC    ET   HD95   worst   MACs  ms a slice  "
    "tumour skipped"
)
for name, row in rows.items():
    dices = (mean_present(row["dices"][region]) for region in ("WT", "TC", "ET"))
    print(
        f"{name:13} "
        + " ".join(f"{share:5.0%}" for share in row["shares"])
        + "  "
        + "  ".join(f"{value:.2f}" for value in dices)
        + f"  {mean_present(row['hd95']):5.1f}  {100 * (row['dices']['WT'] - base).min():+6.1f}"
        + f"  {row['cost']:5.0%}  {row['ms']:10.1f}  {row['missed']:14.1%}"
    )


def less_whole(values, whole):
    """How far the patients' values are above those of always whole; who lacks either is left out."""
    both = np.isfinite(values) & np.isfinite(whole)
    return statistics.difference(values[None, None, both], whole[None, None, both])  # one seed, one region


less = {
    name: {
        "WT": less_whole(100 * row["dices"]["WT"], 100 * base),
        "HD95": less_whole(row["hd95"], rows["always whole"]["hd95"]),
    }
    for name, row in rows.items()
    if name != "always whole"
}
print(f"\n{'':13} {'WT less always whole (95 %)':30} HD95 less always whole (95 %), patients")
for name, one in less.items():
    points, mm = (f"{one[what].mean:+.1f} ({between(one[what])})" for what in ("WT", "HD95"))
    print(f"{name:13} {points:30} {mm}, {one['HD95'].patients}")

# %%
free, dear = rows["price 0"], rows["price 1"]


def told(name, what):
    """A difference from always whole, its interval, and what that allows to say."""
    one, unit = less[name][what], {"WT": "points", "HD95": "mm"}[what]
    verdict = "told apart" if one.low > 0 or one.high < 0 else "not told apart"
    return f"{what} {one.mean:+.1f} {unit} ({between(one)}), {verdict}"


given_up = [name for name, row in rows.items() if "price" in name and row["shares"][WHOLE] < 0.01]
explanation(
    f"At a price of 0 *whole* is chosen for {free['shares'][WHOLE]:.0%} of the slices and *crop* for "
    f"{free['shares'][CROP]:.0%}; {free['shares'][SKIP]:.0%} are skipped though nothing in the loss rewards "
    "saving: a skipped slice can have no false alarm. "
    + (
        f"So all three choices are alive. *Always crop* less *always whole*: {told('always crop', 'WT')}. "
        + (
            "Every tumour would fit the window, so the window does not always lie where the tumour is, or "
            "its head has learned less. *Whole* is for those slices, while it is cheap. "
            if less["always crop"]["WT"].high < 0
            else "So these patients do not show that *whole* is needed. "
        )
        if free["shares"][WHOLE] >= 0.05
        else "The third choice is dead or nearly so: every tumour fits the window, and *whole* costs twice as much. "
        "It takes other patients to bring it to life, with two tumours far apart, or one larger than the window. "
    )
    + (f"Nobody takes it at {', '.join(given_up)}. " if given_up else "It is taken at every price. ")
    + "A method with three choices is tested in all of them only where the price lets all be chosen.\n\n"
    f"At a price of 1, {dear['missed']:.1%} of a patient's tumour lies in skipped slices. *Price 1* less "
    f"*always whole*: {told('price 1', 'WT')}; {told('price 1', 'HD95')}. "
    + (
        "The *shorter* distance comes with the *worse* Dice: false alarms far from the tumour are skipped with "
        "their slices, and so is some of the tumour. One score alone would have misled you."
        if less["price 1"]["HD95"].high < 0 and less["price 1"]["WT"].high < 0
        else "Dice is worse and the distance does not show it: by HD95 alone you would have missed the loss."
        if less["price 1"]["WT"].high < 0 and less["price 1"]["HD95"].low <= 0
        else "Read both scores before you decide."
    )
    + " There is one training: these intervals are over patients only."
)

# %%
figure = Figure(figsize=(9, 3.8), layout="constrained")
left, right = figure.subplots(1, 2)
COLOURS = [
    pictures.unit(getattr(pictures, name))
    for name in ("BLUE", "GREEN", "PURPLE", "ORANGE", "VERMILLION", "SKY_BLUE")
]
for i, (name, row) in enumerate(rows.items()):
    lost, x = 100 * (row["dices"]["WT"] - base), 100 * row["cost"]
    left.plot(np.full(len(lost), x), lost, ".", color="grey", alpha=0.6)
    left.plot((x, x), (lost.min(), lost.mean()), "-", color=COLOURS[i], linewidth=1)
    left.plot(x, lost.mean(), "Ds^ovP"[i], color=COLOURS[i], markersize=8, label=name)
    left.plot(x, lost.min(), "x", color=COLOURS[i], markersize=8, markeredgewidth=2)
    whole = rows["always whole"]
    for place, (value, colour, hatch) in enumerate(
        ((row["cost"], "0.6", ""), (row["ms"] / whole["ms"], "white", "//"))
    ):
        right.barh(i + 0.4 * place, 100 * value, 0.38, color=colour, hatch=hatch, edgecolor="black")
left.plot([], [], "x", color="black", label="worst patient")
left.axhline(0, color="black", linewidth=0.6)
left.axhline(-3, color="black", linestyle="--", linewidth=0.8, label="3 points less")
left.set(xlabel="MACs (% of always whole)", ylabel="WT Dice against always whole (points)", xlim=(0, 120))
right.set(yticks=np.arange(len(rows)) + 0.2, yticklabels=rows, xlabel="% of always whole")
right.invert_yaxis()
figure.legend(
    *left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8
)
right.legend(handles=right.patches[:2], labels=["MACs", "time"], frameon=False, fontsize=8)
plots.show(
    figure,
    "Left: whole-tumour Dice of each test patient against that of always whole, by MACs; grey dots are "
    "patients, the larger marks means, crosses the patient who loses most, and a dashed line marks 3 points "
    "less. Right: MACs beside measured time, both as shares of always whole. Worst patient, in points: "
    + ", ".join(f"{name} {100 * (row['dices']['WT'] - base).min():+.0f}" for name, row in rows.items())
    + ".",
)

# %% [markdown]
# (Left: a grey dot is a patient, a larger mark the mean, a cross the patient who loses most.)
#
# > **Explain.** Why is the time not saved in the proportion of the MACs? And why can skipping make Dice *better* for
# > a patient?

# %%
cheap = min(rows, key=lambda name: rows[name]["cost"])
gains = {name: 100 * (row["dices"]["WT"] - base).max() for name, row in rows.items()}
explanation(
    f"*{cheap}* needs {rows[cheap]['cost']:.0%} of the MACs and {rows[cheap]['ms'] / rows['always whole']['ms']:.0%} "
    "of the time. The decision and the position network have many layers and few MACs, cutting and pasting move "
    "memory without computing, and small batches use a processor badly.\n\n"
    f"The patient who gains most by *{cheap}* gains {gains[cheap]:+.1f} points. A skipped slice cannot have false "
    "alarms: where the networks see a tumour in a healthy slice, skipping corrects them."
)

# %% [markdown]
# ### Use it: a price for a clinic
#
# A clinic wants the cheapest way, under one condition: **no patient** may lose more than so many points of Dice
# against looking at everything. The mean does not count; a patient is not consoled by the mean.
#
# ### Exercise 5: `cheapest_safe` (3 points, about 8 minutes, medium)
#
# K ways and P patients, all NumPy arrays: `costs` (K,); `dices` (K, P), the Dice of every patient by every way;
# `base` (P,), that of looking at everything. `allowed` is a share, 0.03 for 3 points. A patient without the region
# has NaN in `base` and in `dices`, and is left out. Return the number of the way, counted from 0, or None if no
# way is safe.


# %% labkit={"exercise": "cheapest_safe", "role": "answer", "points": 3}
def cheapest_safe(costs, dices, base, allowed):
    """The number of the cheapest way by which no patient loses more than `allowed`; None: there is none."""
    ### BEGIN SOLUTION
    safe = [k for k in range(len(costs)) if np.nanmax(base - dices[k]) <= allowed]
    return min(safe, key=lambda k: costs[k], default=None)
    ### END SOLUTION


# %% labkit={"exercise": "cheapest_safe", "role": "check"}
lab.check("cheapest_safe", cheapest_safe)

# %%
my_cheapest_safe = lab.working("cheapest_safe", cheapest_safe)
names = [name for name in rows if name != "always whole"]
costs = np.array([rows[name]["cost"] for name in names])
chosen = {}
for region in ("WT", "ET"):
    dices = np.stack([rows[name]["dices"][region] for name in names])
    for allowed in (0.03, 0.1, 0.2):
        k = my_cheapest_safe(costs, dices, rows["always whole"]["dices"][region], allowed)
        chosen[region, allowed] = "always whole" if k is None else names[k]
        print(f"{region}: nobody loses more than {100 * allowed:2.0f} points: {chosen[region, allowed]}")

# %% [markdown]
# > **Decide**, in four sentences: which price do you propose, and by which region did you judge? Name the number
# > that speaks for it and the one against it. What would you want to see before a patient is read so?
# >
# > Your proposal: ...

# %%
strict, mild = chosen["WT", 0.03], chosen["WT", 0.2]
explanation(
    (
        f"With 3 points of WT allowed it is *{strict}*, {rows[strict]['cost']:.0%} of the MACs; "
        if strict in names
        else "With 3 points of WT allowed no way is safe, and so nothing may be saved: that is an answer, too. "
    )
    + (
        f"With 20 points it is *{mild}*. "
        if mild in names
        else "Even with 20 points there is none: this small training has not earned its savings. "
    )
    + f"By ET, 20 points: *{chosen['ET', 0.2]}*. "
    "The worst patient decides, so ten patients are few: the eleventh may lose more. Choose on validation "
    "patients, not on those of the table, and look at the column *tumour skipped*: a tumour in a skipped slice "
    "is one that nobody will see, however small its share of Dice."
)

# %% [markdown]
# One training, ten patients: another seed shifts all of these numbers, and may exchange two prices. (The 45-minute
# path ends here.)

# %% [markdown]
# ## 7. A slider for the price
#
# In a browser the price is live; in a printed copy you see a strip for each. A bar of the strip is a slice,
# the lowest of the head at the left. A low bar is skipped, a middle one cropped, a high one whole. A black
# line lies below the slices with a tumour.

# %%
DynamicExplorer(model, decisions, [volume.case for volume in test[: at_most(3, 1)]])

# %% [markdown]
# > **Question.** Is there a slice with a tumour that is skipped? Where among the slices does it lie, and
# > what does that cost in Dice?
# >
# > Your answer: ...

# %% [markdown]
# ## 8. A small network from the start, or a large one tuned?
#
# Labs 01 and 03 to 09 tune a pretrained transformer. The U-Net above has a fraction of its parameters and has never
# seen a picture before. A fair question: what was the tuning good for?
#
# `SmallUNet` is this U-Net with one head, always whole; all of it learns. Beside it: the transformer of the
# labs before, with LoRA on q and v, r = 8, and a new decoder. Both are trained by the same `fit` on the same
# ten patients, and a step shows both the same 8 slices. Each has the learning rates that it has elsewhere in
# the labs, and is tested on every second slice of four patients.
#
# > **Predict.** Which is better after 25 steps? And if the faster one goes on for as many *seconds* as the
# > slower one had?


# %%
def new():
    return tune(SmallUNet(), Full()), dict(lr=LR, head_lr=LR)


def tuned():
    return tune(segmenter("tiny"), LoRA(r=8)), dict(lr=3e-3)


def row(name, model, steps, seconds):
    dices = mean_by_region(evaluate(model, [every_other(volume) for volume in test[:4]], hausdorff=False))
    print(f"{name:14} {steps:5} steps {seconds:6.1f} s   WT {dices['WT']:.2f}  TC {dices['TC']:.2f}")
    return dict(name=name, steps=steps, seconds=seconds) | dices


def trained(name, make, steps):
    """Train anew for so many steps; what it took, and Dice, the mean over four test patients' slices."""
    model, rates = make()
    began = time.perf_counter()
    fit(model, train, Recipe(steps=steps, batch_size=8, **rates))
    return row(name, model, steps, time.perf_counter() - began)


for name, make in (("U-Net, new", new), ("LoRA, tuned", tuned)):
    number = count(make()[0])
    print(f"{name:14} {number.tuned:9,} parameters learn, {number.pretrained + number.inserted:9,} in all")
    model, rates = make()
    fit(model, train, Recipe(steps=1, batch_size=8, **rates))  # the first step is slower than the others
STEPS = 25

# %%
slow = trained("LoRA, tuned", tuned, STEPS)

# %%
fast = [trained("U-Net, new", new, STEPS)]
as_long = round(STEPS * slow["seconds"] / fast[0]["seconds"])
fast.append(trained("U-Net, new", new, as_long))

# %% [markdown]
# And what comes of LoRA with more patience? The update that the kit carries was trained for 200 steps of 16
# slices, sixteen times as many slices as in your 25 steps, and on twenty patients (`labkit deltas
# volumes-lora`). It is not trained again here: the seconds in its row are those of your steps, times as
# many.

# %%
long = row("LoRA, shipped", deltas.network("volumes-lora"), 200, slow["seconds"] * 200 * 16 / (STEPS * 8))
figure = Figure(figsize=(9, 3.2), layout="constrained")
for axis, (region, title) in zip(
    figure.subplots(1, 2, sharey=True), (("WT", "whole tumour"), ("TC", "tumour core")), strict=True
):
    best = max(one[region] for one in (slow, *fast))
    for rows_, style, colour in (([slow], "o", pictures.BLUE), (fast, "s--", pictures.VERMILLION)):
        seconds, dices = ([one[key] for one in rows_] for key in ("seconds", region))
        axis.plot(seconds, dices, style, color=pictures.unit(colour), label=rows_[0]["name"])
        for one in rows_:
            above = one[region] == best  # the two that took as long stand above each other
            words = dict(textcoords="offset points", fontsize=8, ha="center", va="bottom" if above else "top")
            place = (one["seconds"], one[region])
            words["bbox"] = dict(facecolor="white", edgecolor="none", pad=1)  # no line through the words
            axis.annotate(f"{one['steps']} steps", place, xytext=(0, 7 if above else -7), **words)
    axis.axhline(
        long[region], color=pictures.unit(pictures.BLUE), linestyle=":", label="LoRA, shipped (longer)"
    )
    longest = max(one["seconds"] for one in (slow, *fast))
    axis.set(xlabel="training (s)", title=title, xlim=(0, 1.15 * longest), ylim=(0, 1))
figure.axes[0].set_ylabel("Dice, four test patients")
figure.axes[0].legend(frameon=False, fontsize=8, loc="lower right")  # below all points
plots.show(
    figure,
    "Dice of whole tumour, left, and of tumour core, right, against seconds of training, for the new U-Net "
    "and for the transformer tuned with LoRA, a mark; small numbers are steps, and a dotted line is LoRA trained "
    "sixteen times as long. "
    + "; ".join(
        f"{one['name']}, {one['steps']} steps, {one['seconds']:.0f} s: WT {one['WT']:.2f}, TC {one['TC']:.2f}"
        for one in (slow, *fast)
    )
    + f"; the dotted line: WT {long['WT']:.2f}, TC {long['TC']:.2f}.",
)

# %% [markdown]
# > **Explain.** The transformer has seen many photographs. Do your marks show it ahead, after as many steps, or
# > after as many seconds? What may be the reason? And when would you still tune a pretrained one?

# %%
gains = {
    what: {region: 100 * (one[region] - slow[region]) for region in ("WT", "TC")}
    for what, one in (("steps", fast[0]), ("seconds", fast[1]))
}
ahead = all(gain > 0 for gain in gains["seconds"].values())
explanation(
    "U-Net less LoRA, in points of Dice: "
    + "; ".join(
        f"after as many {what} " + ", ".join(f"{region} {gain:+.0f}" for region, gain in by_region.items())
        for what, by_region in gains.items()
    )
    + f". A step of the U-Net takes {fast[0]['seconds'] / slow['seconds']:.0%} of the time of one of LoRA's. "
    f"(Its {fast[1]['steps']} steps were reckoned to take LoRA's {slow['seconds']:.0f} s; they took "
    f"{fast[1]['seconds']:.0f} s.) "
    + (
        "So in a short training of as many seconds the photographs gave no lead. "
        if ahead
        else "So here the new network is not ahead in everything; "
    )
    + "It is one seed, four patients, and a computer whose speed decides how many steps the U-Net gets: do not read "
    "a difference of a point or two.\n\n"
    f"The longer LoRA, the dotted line (WT {long['WT']:.2f}, TC {long['TC']:.2f}), had sixteen times as many slices and "
    "twice as many patients. More time may change the order.\n\n"
    "Two likely reasons, neither of them tested here. Photographs are not scans, and on these brains brightness "
    "decides (lab 01: there a backbone that knows nothing does nearly as well as a pretrained one). And this "
    "transformer sees a slice as 12 x 12 tokens of 8 x 8 pixels, so that its new decoder must learn what an outline "
    "is, while a convolution looks at neighbours, and does the same everywhere, from the first step."
)

# %% [markdown]
# <details><summary>And when would one still tune a pretrained transformer?</summary>
#
# A small U-Net is the baseline to run *first*. On real scans, too, a well-trained one is hard to beat (Isensee et
# al., 2024, arXiv:2404.09556). One still tunes a pretrained transformer
#
# * where it was pretrained on much that resembles the task, and labelled patients are too few for a new network;
# * where a large one is wanted anyhow and nobody here could train it anew;
# * where one backbone is in use already, and each further task or hospital is to be a small file beside it;
# * where there is time, and the measurement says that it pays: the same patients, steps and seconds, and more than
#   one seed.
# </details>

# %% [markdown]
# ## 9. The paper's tables
#
# From the authors' project page. Dice is in %, HD95 in mm, each for ET / WT / TC, on the challenge's hidden
# validation patients. G is $10^9$ MACs as the authors count them, for a patient and for a slice.
#
# | BraTS 2019 | Dice | HD95 | G a patient | G a slice |
# | --- | :---: | :---: | ---: | ---: |
# | 3D U-Net | 70.86 / 87.38 / 72.48 | 5.06 / 9.43 / 8.72 | 1669.53 | 13.04 |
# | TransBTS | 78.36 / 88.89 / **81.41** | 5.91 / 7.60 / 7.58 | 333.09 | 2.60 |
# | Swin-UNet | 78.49 / 89.38 / 78.75 | 6.93 / 7.51 / 9.26 | 250.88 | 1.96 |
# | Med-DANet | 79.99 / 90.13 / 80.83 | 4.09 / **5.83** / 6.89 | 77.78 | 0.61 |
# | Med-DANet V2 | **80.08** / **90.27** / 81.28 | **3.49** / 5.87 / **6.17** | **19.36** | **0.15** |
#
# | BraTS 2020 | Dice | HD95 | G a patient | G a slice |
# | --- | :---: | :---: | ---: | ---: |
# | TransBTS | 78.50 / 89.00 / **81.36** | 16.72 / 6.47 / 10.47 | 333.09 | 2.60 |
# | Med-DANet | **80.57** / **90.28** / 81.34 | **6.47** / 6.72 / **7.42** | 77.71 | 0.61 |
# | Med-DANet V2 | 80.38 / 90.14 / 81.16 | 10.17 / **6.15** / 8.22 | **33.85** | **0.26** |
#
# The abstract says "4.1 times" less than Med-DANet and "17.3 times" less than TransBTS.
#
# > **Predict.** Which two numbers of the table give 17.3? Try both columns. And in which cells does V2 *lose* to its
# > predecessor?

# %%
print(f"a slice, as printed:  {0.61 / 0.15:.2f} and {2.60 / 0.15:.2f}")
print(f"a patient:            {77.78 / 19.36:.2f} and {333.09 / 19.36:.2f}")
print(f"2020, a patient:      {77.71 / 33.85:.2f} and {333.09 / 33.85:.2f}")
print(f"a patient / a slice:  {19.36 / 0.15:.0f} slices, unrounded {333.09 / 2.60:.0f}")
stages, other = stage_macs(16, 96), other_macs(16, 96, 128)
cheapest = (sum(stages) * 8 / 32 + other) / 1e9
print(f"2019: {19.36 / 128:.3f} G a slice; a window with all stages in 8 bits costs {cheapest:.3f} G")
print(f"so at least {1 - 19.36 / 128 / cheapest:.0%} of the slices are skipped")
print(
    f"a patient at 373 mm among 125: {373.13 / 125:.1f} mm of a mean; ET 2020, V2 less V1: {10.172 - 6.474:.1f} mm"
)

# %% [markdown]
# <details><summary>How to read it</summary>
#
# * 17.3 and 4.1 divide numbers that were rounded to two digits; the numbers for a patient give 17.2 and 4.0.
#   It is 2019's patients. On 2020's it is 9.8 and 2.3, and Dice is a little lower than Med-DANet's.
# * In V2's numbers is the credit of bits/32. In TransBTS's there is none: all its weights have 32 bits.
#   Part of the factor is arithmetic that was *not* left out.
# * V2 loses where the text is silent: on 2020 in Dice of all three regions, by 0.1 to 0.2 points, and in the
#   distance of ET (10.2 against 6.5 mm) and TC; on 2019 in the distance of WT, by a hair. But where a region is
#   missed, or marked and not there, the challenge gives 373 mm: **one** such patient more of 125 makes 3 mm of the 3.7
#   that ET is worse. Skipping a slice is one way to miss a small region. No table here has an interval.
# * What is left is skipping and cropping, as you built it, and against TransBTS a smaller network: a whole slice
#   costs V2 about 1 G even in 32 bits (section 5), TransBTS 2.60. How much of it a clock would show, the table
#   does not say.
# * The decision and the position network are not in the released code's count. They are small.
# </details>

# %% [markdown]
# ## 10. Test yourself
#
# <details><summary>1. Why not cut the window by slicing, and train the position some other way?</summary>
# One could, for instance by reinforcement learning. Sampling gives a gradient from the loss itself, which
# is simpler.
# </details>
#
# <details><summary>2. A colleague uses the softmax itself in place of the hard choice, and finds that it
# trains well. What is wrong?</summary>
# All three ways are computed and mixed. What is trained is not what will run, and nothing is saved.
# </details>
#
# <details><summary>3. Why is cost a mean over the batch and not a sum?</summary>
# With a sum the price means something else for each batch size.
# </details>
#
# <details><summary>4. A decision network is trained on batches of which two thirds hold a tumour. What
# happens in use?</summary>
# It skips too little: it has learned that most slices are worth a look. Train decisions on slices as they
# come.
# </details>
#
# <details><summary>5. Which number would you ask a hospital's engineer for, and which a
# radiologist?</summary>
# Milliseconds on their computer. And tumours in skipped slices, patient by patient.
# </details>

# %% [markdown]
# ## 11. What changes on real data
#
# * Real tumours can be several, far apart: one window does not hold them, and a skipped slice may hide a
#   small one. Dice hardly notices a small one. Count lesions.
# * Real slices have 240 x 240 pixels, and the authors read each as overlapping windows of 128, four times,
#   flipped. A patient is then thousands of decisions.
# * The share of empty slices depends on how a scan was cut: with more air around the head, any method that
#   skips looks better.
# * Scores on our synthetic patients say nothing about patients.
#
# ### Bonus
#
# * Train the decision at a price so high that all is skipped. What are its Dice, its HD95 and its cost, and which of
#   the three would have warned you?
# * Make the third choice necessary: `MedDANet(m=32)` has a window that does not hold many of the tumours. From which
#   price on is *whole* given up?

# %%
lab.progress()
