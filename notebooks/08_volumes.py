# %% [markdown]
# # Lab 08: Volumes
#
# A network made for photographs reads a patient slice by slice. It is never told what lies above and below.
# In this lab you will
#
# 1. **see** an error that no method working on single slices can avoid, and **prove** that it can't;
# 2. **turn** a stream of tokens into a volume, and **filter** it along the slices;
# 3. **assemble** ST-Adapter from both, and **prove** it equal to labkit's;
# 4. **compute** how many slices one slice then sees;
# 5. **score** a segmentation by lesions, and **explain** what plain Dice hides;
# 6. **judge** when looking at neighbours pays, and when not.
#
# | | |
# | --- | --- |
# | Time | about 45 minutes, of which a minute or two are a training |
# | Computer | any laptop, no GPU |
# | You know | labs 00 and 02 (patients, Dice, freezing); LoRA (04); a bottleneck adapter (06) |
#
# Read, **predict**, **run**, **explain**.

# %%

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.ndimage import label
from torch import nn
from tqdm.auto import tqdm

from labkit import metrics
from labkit.explore import deltas, plots
from labkit.explore.pictures import BLUE, GREEN, ORANGE, VERMILLION, unit
from labkit.explore.viewer import viewer
from labkit.lessons import start
from labkit.methods import ProTuning, STAdapter
from labkit.methods import volumetric as theirs
from labkit.networks.segmenter import segmenter
from labkit.phantoms.brain import brain_patient, ghost_slices, split
from labkit.scans.slices import to_volume
from labkit.studies import statistics, store
from labkit.studies.table import table
from labkit.training.evaluate import evaluate, predict
from labkit.training.fit import Recipe, dice_ce, fit
from labkit.tuning import count, tune

lab = start("08")

# %% [markdown]
# ## 1. A slice with two tumours
#
# This patient has one tumour, and moved during the scan, so in some slices the scanner shows a copy of
# it in a place where it is not. Such a copy is called a **motion ghost** (lab 00, section 9). The slices of
# our patients are measured one by one, so the neighbours of a ghost are clean.

# %%
test_seeds, few = split("test"), 6
test = [to_volume(brain_patient(seed)) for seed in tqdm(test_seeds[:few], leave=False)]

# a slice with the true tumour and a ghost: the one that shows most that its two neighbours don't
FLAIR = test[0].case.channels.index("FLAIR")


def shown_alone(volume, s):
    """Voxels of slice s, outside the tumour, that are far brighter in FLAIR than in both neighbours.

    None where the slice shows little of the true tumour.
    """
    if (volume.target[s] > 0).sum() < 150:
        return 0
    below, own, above = volume.image[s - 1 : s + 2, FLAIR]
    return int(((own > torch.maximum(below, above) + 1) & (volume.target[s] == 0)).sum())


ghosts = [(p, s) for p in range(few) for s in ghost_slices(test_seeds[p]) if 8 <= s < len(test[p].image) - 8]
chosen, level = max(ghosts, key=lambda place: shown_alone(test[place[0]], place[1]))
patient = test[chosen]
print(f"{patient.case.name}: ghosts in slices {ghost_slices(test_seeds[chosen])}; we look at slice {level}")

# %%
near = (level - 1, level, level + 1)
EDGES = {"truth": (ORANGE, "-"), "ST-Adapter": (BLUE, "--"), "LoRA": (VERMILLION, ":")}


def neighbours(outlines, title):
    """FLAIR of three neighbouring slices, with the outlines of the whole tumour of some label volumes."""
    figure = Figure(figsize=(9, 3.7), layout="constrained")
    image = patient.case.image[FLAIR]
    for axis, s in zip(figure.subplots(1, 3), near, strict=True):
        axis.imshow(image[s], cmap="gray", vmax=np.percentile(image, 99.8))
        for name, volume in outlines.items():
            colour, line = EDGES[name]
            if volume[s].any():
                axis.contour(volume[s] > 0, [0.5], colors=[unit(colour)], linestyles=line, linewidths=2)
        axis.set(title=f"slice {s}" + (", a ghost" if s == level else ""), xticks=[], yticks=[])
    lines = [figure.axes[0].plot([], [], EDGES[n][1], color=unit(EDGES[n][0]), label=n)[0] for n in outlines]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure


plots.show(
    neighbours({"truth": patient.case.label}, "FLAIR, and the outline of the true tumour"),
    "Three neighbouring slices in FLAIR. The middle one shows a bright region that is neither in the slice "
    "below nor in the slice above, and that lies outside the outline of the true tumour.",
)

# %% [markdown]
# > **Predict.** Cover the two outer panels. Is there anything *in* the middle slice that tells the ghost from
# > a tumour? What would you ask for?
# >
# > Your prediction: ...
#
# We ask a network that was tuned for this task: LoRA on the queries and values, trained for you by
# `labkit deltas volumes-lora`.

# %%
lora = deltas.network("volumes-lora")
lora_recipe = deltas.DELTAS["volumes-lora"].recipe
print(f"trained on {deltas.TRAIN_PATIENTS} patients for {lora_recipe.steps} steps,", end=" ")
print(f"each of {lora_recipe.batch_size} runs of {lora_recipe.slices} neighbouring slices")
by_lora = predict(lora, patient, slices=lora_recipe.slices)
plots.show(
    neighbours({"truth": patient.case.label, "LoRA": by_lora}, "What LoRA outlines"),
    "The same three slices with the outline of what LoRA takes for tumour beside the true outline.",
)

# %% [markdown]
# ## 2. Shuffle the slices
#
# > **Predict.** We put the slices of the patient into a random order, and let the same network read them.
# > What happens to its answers? And what would happen to yours?
# >
# > Your prediction: ...


# %%
@torch.no_grad()
def shuffled_alike(model, run):
    """Largest difference of a shuffled run's logits to the shuffled logits of the run."""
    order = torch.randperm(len(run), generator=torch.Generator().manual_seed(0))
    return float((model(run[order][None]) - model(run[None])[:, order]).abs().max())


run = patient.image[level - 8 : level + 8]
print(f"LoRA: largest difference {shuffled_alike(lora, run):.1e}")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# Nothing happens: each answer moves along with its slice. The network was given a stack of slices, and it
# treated them as a pile of photographs. You would notice at once: the tumour would flicker.
# </details>
#
# ## 3. Why no such method can do better
#
# This is not LoRA's fault, nor one of too little training. A method that reads slice by slice is a
# **function of the slice**. Think of a slice with a ghost, and of a patient who really has a second tumour
# there, so that the slice is the same. Equal slice, equal answer: whatever a network says, it is wrong for
# one of the two. Prompts, adapters, BitFit, and training *all* weights change which function it is. None of
# them makes it a function of something else.
#
# So we need a path by which slices can tell each other something. The lecture's goal is just that: a network
# made for flat pictures is to learn about volumes, with few parameters.

# %% [markdown]
# ## 4. From tokens to a volume
#
# Between its blocks our network passes on a stream of tokens: one row for each token of each slice of each
# volume, (B·S, N, d). The slices of a volume stand together, and the $N = h \cdot w$ tokens of a slice come
# row by row. A convolution over slices wants a volume instead: batch, channels, slices, rows, columns.
#
# > **Predict.** `x.reshape(B, d, S, h, w)` has the right shape. Is it right?
# >
# > Your prediction: ...
#
# ### Exercise 1: `tokens_to_volume` (3 points, 8 minutes; medium)
#
# (B·S, h·w, d) $\to$ (B, d, S, h, w). B follows from the rest.


# %% labkit={"exercise": "tokens_to_volume", "role": "answer", "points": 3}
def tokens_to_volume(x, S, h, w):
    """The tokens x (B·S, h·w, d) of slices that make volumes of S slices, as (B, d, S, h, w)."""
    ### BEGIN SOLUTION
    d = x.shape[-1]
    named = x.reshape(-1, S, h, w, d)
    return named.permute(0, 4, 1, 2, 3)
    ### END SOLUTION


# %% labkit={"exercise": "tokens_to_volume", "role": "check"}
lab.check("tokens_to_volume", tokens_to_volume)

# %% [markdown]
# Stuck? `lab.hint("tokens_to_volume")` gives a nudge; again, and it says more. Then the proof on the real
# stream: tokens of two volumes of eight slices, as they come out of the first block.

# %%
tokens_to_volume = lab.working("tokens_to_volume", tokens_to_volume)
plain = segmenter("tiny", in_chans=4, classes=4).eval()
stream = []
watch = plain.backbone.blocks[0].register_forward_hook(lambda layer, inputs, output: stream.append(output))
with torch.no_grad():
    plain(run.unflatten(0, (2, 8)))
watch.remove()
tokens = stream[0]
mine = tokens_to_volume(tokens, 8, 12, 12)
as_labkit = theirs.to_volume(tokens.unflatten(1, (12, 12)).unflatten(0, (-1, 8)))
torch.testing.assert_close(mine, as_labkit)
print(f"{tuple(tokens.shape)} -> {tuple(mine.shape)}, as labkit has it")

# %% [markdown]
# <details><summary>And reshape?</summary>
#
# It moves no number. In memory the $d$ numbers of the first token come first, and `reshape` would spread them
# over the places of a volume. The shape is right, the network trains, and it learns little: one of the
# errors that nothing reports.
# </details>

# %% [markdown]
# ## 5. A filter along the slices
#
# The cheapest way to let neighbours speak: every channel takes a weighted sum of what it has in the slice
# below, in its own, and in the slice above.
#
# $$y_s = w_0\,x_{s-1} + w_1\,x_s + w_2\,x_{s+1}$$
#
# Each channel has three weights of its own; no channel sees another. This is a **depthwise** convolution of
# size (3, 1, 1) over (slice, row, column).
#
# > **Predict.** With $m = 192$ channels and a bias each: how many numbers has a depthwise convolution of size
# > (3, 1, 1)? One that mixes all channels? And both with 3 x 3 x 3?
# >
# > Your prediction: ...

# %%
m = 192
for size in ((3, 1, 1), (3, 3, 3)):
    for groups, kind in ((m, "depthwise"), (1, "mixing all channels")):
        layer = nn.Conv3d(m, m, size, groups=groups)
        print(f"{size}, {kind:20} {sum(p.numel() for p in layer.parameters()):10,}")

# %% [markdown]
# ### Exercise 2: `along_slices` (3 points, 7 minutes; medium)
#
# `x` is (B, m, S): for one place, what m channels have in S slices of B volumes. Row c of `w` (m, 3) holds
# the weights of channel c. Outside a volume lie zeros.


# %% labkit={"exercise": "along_slices", "role": "answer", "points": 3}
def along_slices(x, w):
    """Each channel of x (B, m, S) filtered along its slices by its own row of w (m, 3): (B, m, S)."""
    ### BEGIN SOLUTION
    padded = F.pad(x, (1, 1))
    S = x.shape[-1]
    return sum(w[:, k, None] * padded[..., k : k + S] for k in range(3))
    ### END SOLUTION


# %% labkit={"exercise": "along_slices", "role": "check"}
lab.check("along_slices", along_slices)

# %%
along_slices = lab.working("along_slices", along_slices)

# %% [markdown]
# ## 6. ST-Adapter
#
# Put the filter into the bottleneck of lab 06, and you have **ST-Adapter** (Pan et al., 2022,
# arXiv:2206.13559), made to let a network for images read videos:
#
# $$\mathrm{ST\text{-}Adapter}(X) = X + f\big(\mathrm{DWConv3D}(X\,W_{down})\big)\,W_{up}$$
#
# Down to $m$ channels, along the slices, up again, added to what was there. $f$ is an activation in the
# formula; in the authors' code it is none. Here it is from your two functions:


# %%
def st_adapter(x, S, h, w, layer):
    """What ST-Adapter makes of the stream x (B·S, h·w, d), with the weights of labkit's `layer`."""
    z = tokens_to_volume(layer.W_down(x), S, h, w)  # (B, m, S, h, w)
    B, m = z.shape[:2]
    z = z.permute(0, 3, 4, 1, 2).flatten(0, 2)  # (B·h·w, m, S): every place for itself
    z = along_slices(z, layer.conv.weight.view(m, 3)) + layer.conv.bias[:, None]
    z = z.unflatten(0, (B, h * w)).permute(0, 3, 1, 2).flatten(0, 1)  # (B·S, h·w, m)
    return x + layer.W_up(z)


tuned = tune(segmenter("tiny", in_chans=4, classes=4), STAdapter())
block = tuned.backbone.blocks[0]
torch.manual_seed(1)
with torch.no_grad():
    for parameter in block.adapter.parameters():
        parameter.normal_(std=0.1)  # at the start it adds nothing: two such layers agree whatever is wrong
    labkits = block.adapter(tokens.unflatten(1, (12, 12)).unflatten(0, (-1, 8))).flatten(0, 1).flatten(1, 2)
    torch.testing.assert_close(st_adapter(tokens, 8, 12, 12, block.adapter), labkits, rtol=1e-4, atol=1e-4)
print("your ST-Adapter and labkit's give the same tokens")

# %% [markdown]
# **Without an activation it is linear**, so it can be written in one line. Every neighbour $k$ is read
# through a low-rank map, and the three maps share $W_{down}$ and $W_{up}$:
#
# $$y_s = x_s + \sum_{k=-1}^{1} U\,\mathrm{diag}(w_k)\,D\;x_{s+k}$$
#
# A LoRA of the neighbours, if you like. Let us see that it holds (biases aside, on one slice in the middle):

# %%
with torch.no_grad():
    D, U = block.adapter.W_down.weight, block.adapter.W_up.weight
    filters = block.adapter.conv.weight.view(-1, 3)
    for bias in (block.adapter.W_down.bias, block.adapter.conv.bias, block.adapter.W_up.bias):
        bias.zero_()
    s = 3
    maps = [U @ torch.diag(filters[:, k]) @ D for k in range(3)]
    by_maps = tokens[s] + sum(tokens[s + k - 1] @ maps[k].T for k in range(3))
    torch.testing.assert_close(st_adapter(tokens, 8, 12, 12, block.adapter)[s], by_maps, rtol=1e-4, atol=1e-4)
print(f"three maps of {tuple(maps[0].shape)}, each of rank {min(D.shape)} at most: the same tokens")

# %% [markdown]
# ## 7. How it starts
#
# As with every adapter, the start must be the pretrained network. The authors set the *convolution* to zero;
# labkit sets $W_{up}$ to zero.
#
# > **Predict.** Either way nothing is added at first. Which of the three layers get a gradient in the first
# > step: with the authors' start, and with labkit's?
# >
# > Your prediction: ...

# %%
target = patient.target[level - 8 : level + 8]
for who in ("authors'", "labkit's"):
    model = tune(segmenter("tiny", in_chans=4, classes=4), STAdapter())
    adapter = model.backbone.blocks[0].adapter
    if who == "authors'":
        adapter.W_up.reset_parameters()
        for zero in (adapter.conv.weight, adapter.conv.bias, adapter.W_up.bias):
            nn.init.zeros_(zero)
    dice_ce(model(run[None]).flatten(0, 1), target).backward()
    grads = {name: float(p.grad.abs().max()) for name, p in adapter.named_parameters() if "weight" in name}
    print(f"{who} start: " + ", ".join(f"{name} {g:.0e}" for name, g in grads.items()))

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# A layer learns if what it gives out reaches the loss, and if what it is given is not zero. The authors'
# start: behind a zero convolution $W_{up}$ is given zeros, and in front of it nothing that $W_{down}$ does
# can pass. So the weights of the convolution learn alone. labkit's: nothing passes back through a zero
# $W_{up}$, so it learns alone. From the second step on, all learn. It is the same story as with A and B in
# LoRA.
# </details>

# %% [markdown]
# ## 8. How far does a slice see?
#
# One filter of size 3 reaches one slice up and one down. The next block filters what has been filtered.
#
# > **Predict.** How many slices can reach one, through the 4 blocks of our network? Through the 12 of a
# > ViT-B? Through 12 with filters of size 5?
# >
# > Your prediction: ...
#
# ### Exercise 3: `reach` (2 points, 4 minutes; easy)


# %% labkit={"exercise": "reach", "role": "answer", "points": 2}
def reach(kernels):
    """How many slices, its own included, one slice sees through filters of these odd sizes in a row."""
    ### BEGIN SOLUTION
    to_each_side = sum(k // 2 for k in kernels)
    return 2 * to_each_side + 1
    ### END SOLUTION


# %% labkit={"exercise": "reach", "role": "check"}
lab.check("reach", reach)

# %%
reach = lab.working("reach", reach)
for kernels, where in (([3] * 4, "our network"), ([3] * 12, "a ViT-B"), ([5] * 12, "a ViT-B, size 5")):
    print(f"{where:18} {reach(kernels):3} slices")

# %% [markdown]
# Does the network agree? We blacken one slice of 16, and look where the answer changes. The weights of the
# adapters are random for this, in one block or in all four.

# %%
changed = {}
touched = run.clone()
touched[8] = 0
for name, alive in (("LoRA", 0), ("1 ST-Adapter", 1), ("4 ST-Adapters", 4)):
    model = lora if name == "LoRA" else tune(segmenter("tiny", in_chans=4, classes=4), STAdapter()).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for block in model.backbone.blocks[:alive]:
            block.adapter.W_up.weight.normal_(std=0.1)
        difference = (model(touched[None]) - model(run[None])).abs()[0]  # (S, K, H, W)
    changed[name] = (difference > 0).flatten(1).any(1).numpy()
    print(f"{name:14} slices that change: {changed[name].sum()}")
assert changed["4 ST-Adapters"].sum() == reach([3] * 4)

figure = Figure(figsize=(6.4, 2), layout="constrained")
axis = figure.subplots()
axis.imshow(np.stack(list(changed.values())), cmap="Greys", vmin=0, vmax=1.6, aspect="auto")
for i, marks in enumerate(changed.values()):
    for s in np.flatnonzero(marks):
        axis.text(s, i, "x", ha="center", va="center")
axis.set_yticks(range(3), list(changed))
axis.set_xticks(range(16), [str(s - 8) for s in range(16)])
axis.set(xlabel="slices away from the blackened one", title="whose answer changes (x)")
plots.show(
    figure,
    "Which of 16 slices change when one is blackened: with LoRA that slice alone; with one ST-Adapter also "
    "its two neighbours; with four, four slices on each side.",
)

# %% [markdown]
# ## 9. Train it
#
# One thing must be equal before we compare. A batch of 4 runs of 4 neighbours holds 16 slices, as a batch of
# 16 single slices does, but it teaches less: neighbours resemble each other. A method that needs runs would
# lose to one trained on single slices for that reason alone. So **every method here gets runs**; LoRA did.
#
# The same number of slices a step as for LoRA's, but fewer patients, to spare you the time of making them.

# %%
train = [to_volume(brain_patient(seed)) for seed in tqdm(split("train")[:8], leave=False)]
recipe = Recipe(steps=200, lr=2e-3, batch_size=4, slices=4)
st = tune(segmenter("tiny", in_chans=4, classes=4), STAdapter())
history = fit(st, train, recipe)
print(
    f"{len(train)} patients, {len(history)} steps; ST-Adapter adds {count(st).inserted:,} numbers, ", end=""
)
print(f"LoRA {count(lora).inserted:,}")

# %%
print(
    f"shuffled: largest difference {shuffled_alike(st, run):.2f}; LoRA's was {shuffled_alike(lora, run):.0e}"
)
by_st = predict(st, patient, slices=recipe.slices)
found = {"truth": patient.case.label, "LoRA": by_lora, "ST-Adapter": by_st}
plots.show(
    neighbours(found, "What LoRA and ST-Adapter outline"),
    "The three slices with three outlines: the truth, LoRA's answer, and ST-Adapter's after the training "
    "of the cell above.",
)

# %% [markdown]
# > **Explain.** What became of the ghost, and of the true tumour in the same slice?
#
# <details><summary>What to look for</summary>
#
# ST-Adapter sees the slices below and above the ghost, and there is nothing. The true tumour goes on in
# both. So the ghost can go and the tumour stay. Look at other slices of `ghost_slices` in the viewer below:
# does it always succeed? In a run of 4, the first and the last slice lack a neighbour on one side.
# </details>
#
# > **One question** for the viewer: turn to the coronal plane, where slices lie on top of each other. What
# > does LoRA's answer look like from the side, and what ST-Adapter's? (Exchange `by_st` for `by_lora`.)

# %%
viewer(patient.case, by_st)

# %% [markdown]
# ## 10. What Dice does not see
#
# > **Predict.** A network finds a tumour of 4,000 voxels perfectly, and five ghosts of 100 voxels each.
# > What is its Dice score? And how would you score it, as a doctor who must look at everything it marks?
# >
# > Your prediction: ...

# %%
tumour, marked = np.zeros((2, 20, 60, 60), bool)
tumour[:10, :20, :20] = marked[:10, :20, :20] = True
for i in range(5):
    marked[15, 10 * i : 10 * i + 5, 30:50] = True
print(
    f"{tumour.sum():,} true voxels, {(marked & ~tumour).sum()} false: Dice {metrics.dice(marked, tumour):.3f}"
)

# %% [markdown]
# Dice counts voxels, so the large tumour speaks for everything. Since 2023 the BraTS challenge ranks by
# **lesion-wise** scores. In short:
#
# * a *true lesion* is a connected part of the truth; every component of the prediction that touches it is
#   scored against it, whole;
# * a component of the prediction that touches no lesion is *false*;
# * each true lesion has one vote, its Dice; each false component has one vote, 0; the score is the mean.
#
# ### Exercise 4: `lesion_dice` (4 points, 10 minutes; hard)
#
# `label(mask, ones)` of SciPy numbers the components of a mask: it returns an array with 0 for the background
# and 1 to n for the components, and n. Voxels that meet at a corner are connected; `ones` says so. For the
# Dice of two masks take `metrics.dice`. No lesion and no false component: 1.


# %% labkit={"exercise": "lesion_dice", "role": "answer", "points": 4, "hides": ["labkit.metrics:lesion_wise"]}
def lesion_dice(prediction, truth):
    """Mean of the Dice of each true lesion and of a 0 for each false component; two boolean masks."""
    ones = np.ones((3,) * truth.ndim)
    ### BEGIN SOLUTION
    lesions, n = label(truth, ones)
    parts, m = label(prediction, ones)
    votes, used = [], set()
    for i in range(1, n + 1):
        touching = set(parts[lesions == i].tolist()) - {0}
        votes.append(metrics.dice(np.isin(parts, list(touching)), lesions == i))
        used |= touching
    votes += [0.0] * (m - len(used))
    return sum(votes) / len(votes) if votes else 1.0
    ### END SOLUTION


# %% labkit={"exercise": "lesion_dice", "role": "check"}
lab.check("lesion_dice", lesion_dice)

# %%
lesion_dice = lab.working("lesion_dice", lesion_dice)
print(f"a perfect tumour and five ghosts: {lesion_dice(marked, tumour):.3f}")

# %% [markdown]
# labkit's `metrics.lesion_wise` follows the challenge's code in two points more: the truth is grown by 3 mm
# before its parts are told apart, so that crumbs beside a tumour are no lesions of their own, and true
# lesions of 50 mm³ or less have no vote. On voxels of 5 mm neither happens, and it must be your function:

# %%
print(f"{'TC':12} {'yours':>8} {'labkit, no growth':>18} {'labkit, 2 mm':>14}")
for name, labels in (("LoRA", by_lora), ("ST-Adapter", by_st)):
    P, T = (np.isin(volume, metrics.BRATS_REGIONS["TC"]) for volume in (labels, patient.case.label))
    mine, at_5mm = lesion_dice(P, T), metrics.lesion_wise(P, T, (5, 5, 5), hausdorff=False)["lesion_dice"]
    assert abs(mine - at_5mm) < 1e-9
    official = metrics.lesion_wise(P, T, patient.case.spacing_mm, hausdorff=False)["lesion_dice"]
    print(f"{name:12} {mine:8.3f} {at_5mm:18.3f} {official:14.3f}")

# %% [markdown]
# > **Predict.** Now both networks, on several patients, by both scores. Which score will show the larger
# > difference?
# >
# > Your prediction: ...

# %%
rows = {
    name: evaluate(model, test, hausdorff=False, progress=True, slices=recipe.slices, lesions=True)
    for name, model in (("LoRA", lora), ("ST-Adapter", st))
}


def of(name, region, score):
    return np.array([row[score] for row in rows[name] if row["region"] == region])


print(f"{'mean over patients':20} {'Dice':>6} {'lesion-wise':>12} {'false lesions':>14}")
for region in metrics.BRATS_REGIONS:
    for name in rows:
        dice, by_lesions, false = (
            of(name, region, score).mean() for score in ("dice", "lesion_dice", "false_lesions")
        )
        print(f"{region}, {name:16} {dice:6.3f} {by_lesions:12.3f} {false:14.1f}")

figure = Figure(figsize=(7.6, 3.4), layout="constrained")
panels = zip(
    figure.subplots(1, 2, sharey=True), ("dice", "lesion_dice"), ("plain", "lesion-wise"), strict=True
)
for axis, score, title in panels:
    for x, (name, mark) in enumerate({"LoRA": "o", "ST-Adapter": "s"}.items()):
        found = of(name, "TC", score)
        axis.plot(np.full(len(found), x), found, mark, color=unit(EDGES[name][0]))
    for pair in zip(of("LoRA", "TC", score), of("ST-Adapter", "TC", score), strict=True):
        axis.plot((0, 1), pair, "-", color="grey", linewidth=0.8, zorder=0)
    axis.set(xticks=(0, 1), xticklabels=list(rows), xlim=(-0.4, 1.4), ylim=(0, 1), title=f"{title} Dice")
figure.axes[0].set_ylabel("tumour core")
plots.show(
    figure,
    "Plain and lesion-wise Dice of the tumour core for LoRA and ST-Adapter: a mark for each patient, and a "
    "line between the two marks of one patient.",
)

# %% [markdown]
# > **Explain.** What does a method win that never marks a ghost, by the left score and by the right one?
# > Which of the two would you use to choose a network for a clinic?
#
# <details><summary>Our explanation</summary>
#
# By voxels a ghost is as bad as an edge that is drawn too wide by a voxel or so: a few per cent. By lesions
# each ghost is a false alarm that someone must look at, and it weighs as much as the tumour. Which score is
# better depends on what an error costs. For the volume of one large tumour, plain Dice; for "is there a
# second one?", lesions. Report both.
#
# Then look at the false lesions of WT, in the table. They need not be ghosts: a speck of one voxel that is
# taken for oedema has a vote as large as the tumour's, since false components count whatever their size. So
# a low lesion-wise score says *that* something is marked besides, and not how much. See the bonus.
# </details>
#
# One seed, few patients, a short training: this shows the mechanism and ranks
# nothing. For ranks see the next section.

# %% [markdown]
# ## 11. Without ghosts
#
# > **Predict.** We train and test again, on the same patients lying still. How much of ST-Adapter's lead over
# > LoRA remains?
# >
# > Your prediction: ...
#
# The tables below are made by two commands: equal batches and steps, the best of four rates for each method,
# three seeds, twenty test patients. Rows that are not there yet say so; the commands make them.
#
#     labkit sweep brain          patients who moved, all methods of the paper
#     labkit sweep brain_still    the same patients lying still

# %%
KINDS = {
    "brain": (VERMILLION, "o", "patients who moved"),
    "brain_still": (GREEN, "s", "the same, lying still"),
}
SCORES = {"dice": "Dice", "lesion_dice": "lesion-wise Dice"}
made = {kind: store.results(kind) for kind in KINDS}
for kind, (*_, words) in KINDS.items():
    print(f"{words}, Dice:\n{table(made[kind])}\n")

# %%
names = [row.name for row in made["brain_still"].sweep.rows]
figure = Figure(figsize=(9, 3.4), layout="constrained")
for axis, (score, title) in zip(figure.subplots(1, 2, sharey=True), SCORES.items(), strict=True):
    for shift, (kind, (colour, mark, words)) in zip((-0.15, 0.15), KINDS.items(), strict=True):
        for i, name in enumerate(names):
            for one in made[kind].trainings(made[kind].sweep.row(name)):
                mean = statistics.estimate(100 * statistics.scores([one], score)).mean
                axis.plot(mean, i + shift, mark, color=unit(colour))
        axis.plot([], [], mark, color=unit(colour), label=words)
    axis.set(xlabel=f"{title}, mean of ET, WT and TC (%)", ylim=(len(names) - 0.5, -0.5))
    axis.grid(alpha=0.3)
axis.set_yticks(range(len(names)), names)
figure.suptitle("20 test patients; a mark for each seed", fontsize=11)
figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
plots.show(
    figure,
    "Dice and lesion-wise Dice of five methods, a mark for each seed, for patients who moved and for the "
    "same patients lying still. Rows that were not computed yet are empty.",
)

# %% [markdown]
# And the difference that you predicted, patient by patient and seed by seed, with its 95 % interval. It holds
# both, for another class would have other patients, and another run of the same recipe another seed
# (`labkit.studies.statistics`):

# %%
for score, title in SCORES.items():
    for kind, (*_, words) in KINDS.items():
        both = [made[kind].trainings(made[kind].sweep.row(name)) for name in ("ST-Adapter", "LoRA")]
        if all(both):
            apart = statistics.difference(*(100 * statistics.scores(one, score) for one in both))
            print(f"ST-Adapter - LoRA, {title:17} {words:22} {apart.mean:+5.1f} +- {apart.half:.1f}")

# %% [markdown]
# <details><summary>How to read it</summary>
#
# Compare the gap between LoRA and ST-Adapter in the two colours. What a volumetric method wins on patients
# who moved and not on those who lay still, it wins by recognising ghosts, for nothing else differs. **A
# method that looks at neighbours pays where a slice alone can't know.** Our ghosts were made to be such a
# case; a claim "volumetric is better" needs a word about *what for*.
#
# And the row "Full": it trains every weight of the network, and still has no path between slices. It is no
# fair rival on this question, however many parameters it has. A table that shows a volumetric adapter above
# full tuning has shown this before anything about adapters.
# </details>

# %% [markdown]
# ## 12. Pro-tuning
#
# The lecture's table has another method with a convolution: **Pro-tuning** (Nie et al., 2022,
# arXiv:2207.14381). After each stage it adapts the feature map by a 1 x 1 convolution, a depthwise 5 x 5
# convolution *in the plane*, and another 1 x 1, and adds the result. "Pro" is for prompt, though nothing is
# put among the tokens.
#
# > **Predict.** Does Pro-tuning pass the shuffle test as LoRA does, or not?

# %%
pro = tune(segmenter("tiny", in_chans=4, classes=4), ProTuning()).eval()
torch.manual_seed(0)
with torch.no_grad():
    for block in pro.backbone.blocks:
        block.adapter.W_2.weight.normal_(std=0.05)  # awake
print(f"Pro-tuning, shuffled: {shuffled_alike(pro, run):.1e}; it inserts {count(pro).inserted:,} numbers")
print(f"ST-Adapter inserts {count(st).inserted:,}")

# %% [markdown]
# A convolution alone makes no method volumetric. Ask **along which axis** it runs. Med-Tuning, the subject of
# lab 09, has both: in the plane and along the slices.

# %% [markdown]
# ## 13. Bonus
#
# * **Wider filters.** Train `STAdapter(k=5)` as in section 9. `reach` says what it could see; a run of 4 says
#   what it gets to see. Which of the two limits it?
# * **Sweep up the crumbs.** Remove from both answers every component smaller than 50 mm³, and score again.
#   What happens to the false lesions, to both Dice scores, and to the lead of ST-Adapter? Would you do it
#   in a clinic?
# * **Longer runs at prediction.** `predict(st, patient, slices=16)` shows it runs longer than any in
#   training. Does that help? At which slices of a run of 4 do ghosts survive?
# * **Fewer numbers.** `STAdapter(m=24)` has an eighth of the width. How much of the gain remains?

# %% [markdown]
# ## 14. Test yourself
#
# <details><summary>1. Why must LoRA be trained on runs of neighbours too, when it can't use them?</summary>
# Because the batch itself matters: neighbours resemble each other and teach less than as many single slices.
# With different batches one would compare samplers and not methods.
# </details>
#
# <details><summary>2. Why is a depthwise convolution cheap?</summary>
# It mixes no channels: three weights a channel, where a full one has three weights for each pair of channels.
# </details>
#
# <details><summary>3. What do the zeros beyond the last slice tell the network?</summary>
# That nothing is there: what is bright in the last slice of a run ends there, as a ghost does. At the true
# end of the brain this is right; at the end of a run it is not.
# </details>
#
# <details><summary>4. Why can Dice hardly see a ghost?</summary>
# It counts voxels, and a ghost has few of them beside the tumour.
# </details>
#
# <details><summary>5. Is full tuning of a 2-D network a fair rival for ST-Adapter?</summary>
# Not where the task needs neighbours: it has no path between slices, so no training can teach it to use them.
# </details>

# %% [markdown]
# ## 15. What changes on real data
#
# * **Distance.** Clinical slices are often 3 to 6 mm apart. A neighbour then says less about a slice, and a
#   small lesion may be in one slice only, just as a ghost is.
# * **Motion.** Real ghosts are mostly fainter, come in rows, and may spoil many slices in a row. Ours were
#   made to ask one question.
# * **Memory.** On real volumes runs are longer and slices larger: 128 x 128 x 128 voxels a patient are usual.
#   All slices of a run must be in memory at once, and that needs a GPU.
# * **Scores.** Where patients have many small lesions, as with metastases, the lesion-wise score and the
#   plain one can order methods differently. Say in advance which of the two you will go by.

# %%
lab.progress()
