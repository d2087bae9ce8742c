# %% [markdown]
# # Lab 08: Volumes
#
# A network made for photographs reads a patient slice by slice. It is never told what lies above and below.
# In this lab you will
#
# 1. **see** an error that no method working on single slices can avoid, and **prove** that it can't;
# 2. **turn** a stream of tokens into a volume, and **filter** it along the slices;
# 3. **assemble** ST-Adapter from both, and **prove** it equal to labkit's;
# 4. **measure** how many slices one slice then sees;
# 5. **score** a segmentation by distance and by lesions, and **explain** what plain Dice hides;
# 6. **judge** from intervals when looking at neighbours pays, and when not;
# 7. **choose** a filter for a scanner, and defend it.
#
# | | |
# | --- | --- |
# | Time | about 100 minutes, 20 points; 45 if you leave exercises 3 to 5 to labkit and stop after section 11 |
# | Computer | any laptop, no GPU; one training of about half a minute |
# | Counted | 120 minutes with all exercises: 3,468 words, 491 lines of code, 6 exercises, 3 minutes of computing; 1.6 GB of memory |
# | You know | labs 00 and 01 (patients, Dice, freezing); LoRA (04); a bottleneck adapter (06) |
#
# Read, **predict**, **run**, **explain**.

# %%

import math

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown
from matplotlib.figure import Figure
from scipy.ndimage import binary_erosion, distance_transform_edt, label
from torch import nn
from tqdm.auto import tqdm

from labkit import metrics
from labkit.explore import deltas, plots
from labkit.explore.pictures import GREEN, SKY_BLUE, VERMILLION, YELLOW, unit
from labkit.explore.viewer import viewer
from labkit.lessons import start
from labkit.methods import ProTuning, STAdapter
from labkit.methods import volumetric as theirs
from labkit.networks.segmenter import segmenter
from labkit.phantoms.brain import brain_patient, ghost_slices, split
from labkit.scans.slices import to_volume
from labkit.studies import statistics, store
from labkit.studies.table import apart_of, table
from labkit.training.evaluate import evaluate, predict
from labkit.training.fit import Recipe, dice_ce, fit
from labkit.training.quick import at_most
from labkit.tuning import count, tune

lab = start("08")


def explanation(words):
    """A fold whose sentences are made from the numbers that were just computed."""
    return Markdown(
        f"<details><summary>Our explanation, with your numbers</summary>\n\n{words}\n\n</details>"
    )


# %% [markdown]
# ## 1. A slice with two tumours
#
# This patient has one tumour, and moved during the scan, so in some slices the scanner shows a copy of
# it in a place where it is not. Such a copy is called a **motion ghost** (lab 00, section 9). The slices of
# our patients are measured one by one, so the neighbours of a ghost are clean.

# %%
test_seeds, few = split("test"), at_most(6, 2)
test = [to_volume(brain_patient(seed)) for seed in tqdm(test_seeds[:few], leave=False)]

# a slice with the true tumour and a ghost: the one that shows most that its two neighbours don't
FLAIR = test[0].case.channels.index("FLAIR")


def shown_alone(volume, s):
    """Voxels of slice s, outside the tumour, that are far brighter in FLAIR than in both neighbours.

    0 where the slice shows little of the true tumour, so that such a slice is never chosen.
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
EDGES = {"truth": (YELLOW, "-"), "ST-Adapter": (SKY_BLUE, "--"), "LoRA": (VERMILLION, ":")}


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


# %%
def too_much(volume, s):
    """Voxels of slice s that are marked as tumour and are none."""
    return int(((volume[s] > 0) & (patient.case.label[s] == 0)).sum())


wrong = {s: too_much(by_lora, s) for s in near}
explanation(
    f"Outside the tumour LoRA marks {wrong[level]} voxels of slice {level}, and "
    f"{wrong[level - 1]} and {wrong[level + 1]} of the two beside it. "
    + (
        "It takes the ghost for a tumour. Nothing *in* the slice says otherwise: a ghost is a copy of a real "
        "tumour, so it has a tumour's brightness and edges. You would ask for the slices beside it."
        if wrong[level] > 2 * max(wrong[level - 1], wrong[level + 1], 10)
        else "So here it does not fall for the ghost more than for other things; look at other slices of "
        "`ghost_slices` before you conclude that it can tell one."
    )
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
    run = run[: at_most(len(run), 4)]  # a few slices when tests run this notebook
    order = torch.randperm(len(run), generator=torch.Generator().manual_seed(0))
    return float((model(run[order][None]) - model(run[None])[:, order]).abs().max())


half = at_most(8, 5)  # slices to each side
run = patient.image[level - half : level + half]
lora_moved = shuffled_alike(lora, run)
print(f"LoRA: largest difference {lora_moved:.1e}")

# %%
explanation(
    f"The answers to the shuffled slices differ by {lora_moved:.0e} at most from the shuffled answers. "
    + (
        "That is nothing, or rounding: each answer moves along with its slice. The network was given a stack "
        "of slices and treated them as a pile of photographs."
        if lora_moved < 1e-3
        else "That is more than rounding, so something passes between slices: find out what before you go on."
    )
    + " You would notice at once: the tumour would flicker."
)

# %% [markdown]
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
# (B·S, h·w, d) $\to$ (B, d, S, h, w). B follows from the rest. It will stand inside a network: the check looks
# at the numbers, and whether a gradient goes on to x.


# %% labkit={"exercise": "tokens_to_volume", "role": "answer", "points": 3, "hides": ["labkit.methods.volumetric:to_volume"]}
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
my_tokens_to_volume = lab.working("tokens_to_volume", tokens_to_volume)
plain = segmenter("tiny", in_chans=4, classes=4).eval()
stream = []
watch = plain.backbone.blocks[0].register_forward_hook(lambda layer, inputs, output: stream.append(output))
with torch.no_grad():
    plain(run.unflatten(0, (2, half)))
watch.remove()
tokens = stream[0]
mine = my_tokens_to_volume(tokens, half, 12, 12)
as_labkit = theirs.to_volume(tokens.unflatten(1, (12, 12)).unflatten(0, (-1, half)))
torch.testing.assert_close(mine, as_labkit, rtol=1e-4, atol=1e-4)
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
# the weights of channel c. Outside a volume lie zeros. The filters are to learn: a gradient must reach `w`.


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
my_along_slices = lab.working("along_slices", along_slices)
print(my_along_slices(torch.tensor([[[0.0, 0, 1, 0, 0]]]), torch.tensor([[1.0, 2, 3]]))[0, 0].tolist())

# %% [markdown]
# (One bright slice, and the weights 1, 2, 3. Why do they come out as 3, 2, 1? The slice *below* the bright one
# has it as its upper neighbour, so it takes $w_2$ of it.)
#
# ## 6. ST-Adapter
#
# Put the filter into the bottleneck of lab 06, and you have **ST-Adapter** (Pan et al., 2022,
# arXiv:2206.13559), made to let a network for images read videos:
#
# $$\mathrm{ST\text{-}Adapter}(X) = X + f\big(\mathrm{DWConv3D}(X\,W_{down})\big)\,W_{up}$$
#
# Down to $m$ channels, along the slices, up again, added to what was there. $f$ is an activation in the
# formula; in the authors' code it is none.
#
# ### Exercise 3: `st_adapter` (4 points, 12 minutes; hard)
#
# Now the whole of it, on a stream of tokens, without $f$ and without biases: `x` (B·S, h·w, d), `down` (m, d),
# `filters` (m, 3), `up` (d, m), so that W_down of the formula is `down.T`. Out comes a stream again. Five
# steps; write the shape beside each. What you hand in is judged by itself, so write the volume and the filter
# once more rather than call the functions above. The check looks at the gradients of the three weights, too.


# %% labkit={"exercise": "st_adapter", "role": "answer", "points": 4}
def st_adapter(x, S, h, w, down, filters, up):
    """x (B·S, h·w, d) and, added to it, up of the filtered down: a stream of the same shape."""
    ### BEGIN SOLUTION
    z = x @ down.T  # (B·S, h·w, m)
    z = z.reshape(-1, S, h, w, len(down)).permute(0, 4, 1, 2, 3)  # (B, m, S, h, w)
    z = F.conv3d(z, filters[:, None, :, None, None], padding=(1, 0, 0), groups=len(filters))
    z = z.permute(0, 2, 3, 4, 1).reshape(*x.shape[:2], len(down))  # (B·S, h·w, m)
    return x + z @ up.T
    ### END SOLUTION


# %% labkit={"exercise": "st_adapter", "role": "check"}
lab.check("st_adapter", st_adapter)

# %% [markdown]
# And now with the weights of labkit's own layer, on the real stream. At the start it adds nothing, and two
# such layers agree whatever is wrong with one of them; so its weights are made random first.

# %%
my_st_adapter = lab.working("st_adapter", st_adapter)
tuned = tune(segmenter("tiny", in_chans=4, classes=4), STAdapter())
adapter = tuned.backbone.blocks[0].adapter
torch.manual_seed(1)
with torch.no_grad():
    for name, parameter in adapter.named_parameters():
        parameter.normal_(std=0.1) if name.endswith("weight") else parameter.zero_()
    D, U = adapter.W_down.weight, adapter.W_up.weight
    filters = adapter.conv.weight.view(-1, 3)
    yours = my_st_adapter(tokens, half, 12, 12, D, filters, U)
    labkits = adapter(tokens.unflatten(1, (12, 12)).unflatten(0, (-1, half))).flatten(0, 1).flatten(1, 2)
    torch.testing.assert_close(yours, labkits, rtol=1e-4, atol=1e-4)
print("your ST-Adapter and labkit's give the same tokens")

# %% [markdown]
# **Without an activation it is linear**, so it can be written in one line. Every neighbour $k$ is read
# through a low-rank map, and the three maps share $W_{down}$ and $W_{up}$:
#
# $$y_s = x_s + \sum_{k=-1}^{1} U\,\mathrm{diag}(w_k)\,D\;x_{s+k}$$
#
# A LoRA of the neighbours, if you like. Let us see that it holds, on one slice in the middle:

# %%
with torch.no_grad():
    s = 3
    maps = [U @ torch.diag(filters[:, k]) @ D for k in range(3)]
    by_maps = tokens[s] + sum(tokens[s + k - 1] @ maps[k].T for k in range(3))
    torch.testing.assert_close(yours[s], by_maps, rtol=1e-4, atol=1e-4)
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
some = run[: at_most(len(run), 4)]
target = patient.target[level - half :][: len(some)]
for who in ("authors'", "labkit's"):
    model = tune(segmenter("tiny", in_chans=4, classes=4), STAdapter())
    adapter = model.backbone.blocks[0].adapter
    if who == "authors'":
        adapter.W_up.reset_parameters()
        for zero in (adapter.conv.weight, adapter.conv.bias, adapter.W_up.bias):
            nn.init.zeros_(zero)
    dice_ce(model(some[None]).flatten(0, 1), target).backward()
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
# Each filter of size k adds (k - 1) / 2 slices to each side, and the slice itself was there before:
#
# $$\text{reach} = 1 + \sum_i (k_i - 1)$$


# %%
def reach(kernels):
    """How many slices, its own included, one slice sees through filters of these odd sizes in a row."""
    return 1 + sum(k - 1 for k in kernels)


for kernels, where in (([3] * 4, "our network"), ([3] * 12, "a ViT-B"), ([5] * 12, "a ViT-B, size 5")):
    print(f"{where:18} {reach(kernels):3} slices")

# %% [markdown]
# Does the network agree? We blacken one slice of 16, and look where the answer changes. The weights of the
# adapters are random for this, in one block or in all four.

# %%
changed = {}
touched = run.clone()
touched[half] = 0
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
axis.set_xticks(range(2 * half), [str(s - half) for s in range(2 * half)])
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
# Your own training is a short one: 40 steps of 2 runs, from 4 patients.
#
# > **Predict.** Before the first step nothing is added, and the network passes the shuffle test. After 40?

# %%
train = [to_volume(brain_patient(seed)) for seed in tqdm(split("train")[: at_most(4, 1)], leave=False)]
mine = tune(segmenter("tiny", in_chans=4, classes=4), STAdapter())
before = shuffled_alike(mine.eval(), run)
history = fit(mine, train, Recipe(steps=40, lr=2e-3, batch_size=2, slices=4))
after = shuffled_alike(mine.eval(), run)
print(f"shuffled, largest difference: before {before:.0e}, after {len(history)} steps {after:.2f}")
plots.show(
    plots.curves({"ST-Adapter": history}), "Training loss of ST-Adapter against step, which falls with noise."
)

# %% [markdown]
# Forty steps teach it to listen; to judge what it hears takes longer. So from here on the trained weights come
# from the kit (`labkit deltas volumes-st_adapter`): the same patients, steps and runs as LoRA's, each at a
# rate of its own.

# %%
st = deltas.network("volumes-st_adapter")
recipe = deltas.DELTAS["volumes-st_adapter"].recipe
for name, model, made_by in (("LoRA", lora, lora_recipe), ("ST-Adapter", st, recipe)):
    print(
        f"{name:11}{deltas.TRAIN_PATIENTS} patients, {made_by.steps} steps of {made_by.batch_size} x "
        f"{made_by.slices} slices, rate {made_by.lr:g}, {count(model).inserted:,} numbers; "
        f"shuffled: {shuffled_alike(model, run):.1e}"
    )

# %%
by_st = predict(st, patient, slices=recipe.slices)
found = {"truth": patient.case.label, "LoRA": by_lora, "ST-Adapter": by_st}
plots.show(
    neighbours(found, "What LoRA and ST-Adapter outline"),
    "The three slices with three outlines: the truth, LoRA's answer, and ST-Adapter's.",
)

# %% [markdown]
# > **Explain.** What became of the ghost, and of the true tumour in the same slice?

# %%
true_part = patient.case.label[level] > 0
kept = {
    name: int(((volume[level] > 0) & true_part).sum()) for name, volume in found.items() if name != "truth"
}
explanation(
    f"In slice {level} ST-Adapter marks {too_much(by_st, level)} voxels outside the tumour, LoRA "
    f"{too_much(by_lora, level)}; of the true tumour's {int(true_part.sum())} ST-Adapter has "
    f"{kept['ST-Adapter']}, LoRA {kept['LoRA']}. "
    + (
        "ST-Adapter sees the slices below and above the ghost, where there is nothing, and the true tumour, "
        "which goes on in both. So the ghost can go and the tumour stay. "
        if too_much(by_st, level) < 0.5 * too_much(by_lora, level)
        else "In this slice that did not help much. In a run of 4, the first and the last slice lack a "
        "neighbour on one side; is this one of them? "
    )
    + "Look at other slices of `ghost_slices` in the viewer below: does it always succeed?"
)

# %% [markdown]
# > **One question** for the viewer: turn to the coronal plane, where slices lie on top of each other. What
# > does LoRA's answer look like from the side, and what ST-Adapter's? (Exchange `by_st` for `by_lora`.)

# %%
viewer(patient.case, by_st)

# %% [markdown]
# ## 10. How far off? The Hausdorff distance
#
# Half of every BraTS table of the lecture is headed "Hausdorff (mm)". Dice asks how much two masks overlap; a surgeon
# asks another question: **how far is the outline wrong?** Take every voxel of the predicted border, and measure
# how far the nearest voxel of the true border is. Do the same from the true border to the predicted one. The
# largest distance of all is the **Hausdorff distance**. One stray voxel decides it, so one leaves out the
# farthest twentieth of each border and takes the 95th percentile. With $d(p, T)$ the distance from $p$ to the
# nearest voxel of the border $T$:
#
# $$\text{HD95} = \max\Big(\underset{p \in P}{\text{perc}_{95}}\, d(p, T),\;
#   \underset{t \in T}{\text{perc}_{95}}\, d(t, P)\Big)$$
#
# (Huttenlocher et al., 1993.) It is in **mm**, so the spacing of the slices counts. And it has two odd cases:
# *both masks empty* is a perfect answer, 0 mm. *One of them empty* has no distance at all; so that a missed
# lesion costs something, and a mean over patients stays finite, one takes the worst there can be: the
# diagonal of the volume.
#
# > **Predict.** A network finds a tumour perfectly, and marks besides it a ghost, some 40 mm away, a hundredth as
# > large. What are Dice and HD95, roughly? And if the ghost is a tenth as large?
#
# ### Exercise 4: `hd95` (4 points, 12 minutes; medium)
#
# `binary_erosion(mask)` takes the outermost layer of voxels away, so the border is what is in the mask and not
# in its erosion. `distance_transform_edt(a, sampling=spacing_mm)` gives every voxel its distance, in mm, to
# the nearest voxel where `a` is False. `np.percentile(d, 95)` is the percentile. One number, in mm.


# %% labkit={"exercise": "hd95", "role": "answer", "points": 4, "hides": ["labkit.metrics:hd95"]}
def hd95(prediction, truth, spacing_mm):
    """HD95 in mm of two boolean masks, with spacing_mm a number for each of their axes."""
    ### BEGIN SOLUTION
    if not (prediction.any() or truth.any()):
        return 0.0
    if not (prediction.any() and truth.any()):
        return float(np.linalg.norm(np.multiply(truth.shape, spacing_mm)))
    P, T = (mask & ~binary_erosion(mask) for mask in (prediction, truth))
    to_T = distance_transform_edt(~T, sampling=spacing_mm)[P]
    to_P = distance_transform_edt(~P, sampling=spacing_mm)[T]
    return float(max(np.percentile(to_T, 95), np.percentile(to_P, 95)))
    ### END SOLUTION


# %% labkit={"exercise": "hd95", "role": "check"}
lab.check("hd95", hd95)

# %%
my_hd95 = lab.working("hd95", hd95)
tumour = np.zeros((20, 60, 60), bool)
tumour[2:12, 5:25, 5:25] = True
for depth, side in ((1, 6), (1, 10), (5, 10)):
    marked = tumour.copy()
    marked[2 : 2 + depth, 35 : 35 + side, 35 : 35 + side] = True
    print(
        f"false {(marked & ~tumour).sum() / tumour.sum():5.1%} of the tumour: Dice "
        f"{metrics.dice(marked, tumour):.3f}, HD95 {my_hd95(marked, tumour, (2, 2, 2)):5.1f} mm"
    )
print(f"nothing found: {my_hd95(np.zeros_like(tumour), tumour, (2, 2, 2)):.0f} mm")
for name, volume in (("LoRA", by_lora), ("ST-Adapter", by_st)):
    P, T = volume > 0, patient.case.label > 0
    mm = my_hd95(P, T, patient.case.spacing_mm)
    assert abs(mm - metrics.hd95(P, T, patient.case.spacing_mm)) < 1e-3
    print(f"{name:11}whole tumour of this patient: Dice {metrics.dice(P, T):.3f}, HD95 {mm:.1f} mm")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# Dice falls slowly. HD95 *jumps*: as soon as more than a twentieth of the predicted border belongs to the
# ghost, it says how far away the ghost is, and not how large. So it is small for a network that draws
# outlines a little too wide, and large for one that marks something elsewhere. The percentile is a
# threshold: below it a ghost costs nothing.
# </details>
#
# > **Predict.** In the lecture's table (BraTS 2020, ViT) the distances of WT are 6 to 10 mm, and those of ET 29 to
# > 41 mm, for every method. The challenge has 125 validation patients, and gives 373 mm where a region is missed,
# > or is marked and not there. What may have happened?

# %%
for name, mm in (("Med-Tuning", 28.643), ("Adapter", 32.626), ("AdaptFormer", 41.026)):
    print(f"{name:12} ET {mm:5.1f} mm = {mm * 125 / 373.13:4.1f} patients at 373 mm, all others perfect")

# %% [markdown]
# <details><summary>How to read it</summary>
#
# Some ten patients of 125 would make all of it: most of what is called a distance there may be a count of
# patients whose enhancing tumour was missed, or was found where there is none. The table does not say which.
# labkit leaves a patient without a region out of that region's means, and counts what is marked there beside
# it (`labkit.metrics`).
#
# And look at both halves of such a table. On BraTS 2019, Med-Tuning has the best Dice of ET (70.53), but not
# its best distance: 5.86 mm, the adapter 5.50. In TC, ST-Adapter is nearer (6.78 against 6.95). "Best" needs the
# name of the score.
# </details>

# %% [markdown]
# ## 11. How many? A vote for each lesion
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
# ### Exercise 5: `lesion_dice` (4 points, 10 minutes; hard)
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
my_lesion_dice = lab.working("lesion_dice", lesion_dice)
print(f"a perfect tumour and five ghosts: {my_lesion_dice(marked, tumour):.3f}")

# %% [markdown]
# labkit's `metrics.lesion_wise` follows the challenge's code in two points more: the truth is grown by 3 mm
# before its parts are told apart, so that specks beside a tumour are no lesions of their own, and true
# lesions of 50 mm³ or less have no vote. On voxels of 5 mm neither happens, and it must be your function:

# %%
print(f"{'TC':12} {'yours':>8} {'labkit, no growth':>18} {'labkit, 2 mm':>14}")
for name, labels in (("LoRA", by_lora), ("ST-Adapter", by_st)):
    P, T = (np.isin(volume, metrics.BRATS_REGIONS["TC"]) for volume in (labels, patient.case.label))
    yours, at_5mm = my_lesion_dice(P, T), metrics.lesion_wise(P, T, (5, 5, 5), hausdorff=False)["lesion_dice"]
    assert abs(yours - at_5mm) < 1e-9
    official = metrics.lesion_wise(P, T, patient.case.spacing_mm, hausdorff=False)["lesion_dice"]
    print(f"{name:12} {yours:8.3f} {at_5mm:18.3f} {official:14.3f}")

# %% [markdown]
# > **Predict.** Now both networks, on several patients, by all three scores. Which one will show the largest
# > difference?
# >
# > Your prediction: ...

# %%
rows = {
    name: evaluate(model, test, progress=True, slices=recipe.slices, lesions=True)
    for name, model in (("LoRA", lora), ("ST-Adapter", st))
}
COLUMNS = ("dice", "hd95", "lesion_dice", "false_lesions")


def of(name, region, score):
    return np.array([row[score] for row in rows[name] if row["region"] == region])


def mean_of(name, region, score):
    """The mean over the patients who have the region; false lesions are counted in all."""
    return metrics.mean_present(of(name, region, score))


print(f"{'mean over patients':22} {'Dice':>6} {'HD95 (mm)':>10} {'lesion-wise':>12} {'false lesions':>14}")
for region in metrics.BRATS_REGIONS:
    for name in rows:
        dice, mm, by_lesions, false = (mean_of(name, region, score) for score in COLUMNS)
        have = int((~np.isnan(of(name, region, "dice"))).sum())
        print(f"{region} (n = {have}), {name:11} {dice:6.3f} {mm:10.1f} {by_lesions:12.3f} {false:14.1f}")
print("(A patient who does not have a region is left out of its Dice, HD95 and lesion-wise Dice.)")

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
# > **Explain.** What does a method that never marks a ghost win, by each score? Which would you use to choose
# > a network for a clinic?

# %%
lead = {score: mean_of("ST-Adapter", "TC", score) - mean_of("LoRA", "TC", score) for score in COLUMNS}
specks = mean_of("ST-Adapter", "WT", "false_lesions")
explanation(
    f"In the tumour core ST-Adapter is {100 * lead['dice']:+.1f} points of Dice, {lead['hd95']:+.1f} mm of HD95 "
    f"and {100 * lead['lesion_dice']:+.1f} points of lesion-wise Dice from LoRA, with "
    f"{mean_of('ST-Adapter', 'TC', 'false_lesions'):.1f} false lesions a patient against "
    f"{mean_of('LoRA', 'TC', 'false_lesions'):.1f}. "
    + (
        "By voxels a ghost is as bad as an edge that is drawn too wide: a few per cent. By lesions it is a "
        "false alarm that someone must look at, and weighs as much as the tumour. "
        if lead["lesion_dice"] > lead["dice"]
        else "In your run the lesion-wise lead is not the larger one; look at the single patients. "
    )
    + "Which score is right depends on what an error costs: for the volume of one large tumour Dice, for a "
    "margin HD95, for *is there a second one?* lesions. Report all three.\n\n"
    f"Then the false lesions of WT: ST-Adapter has {specks:.1f} a patient. They need not be ghosts: a speck of "
    "one voxel that is taken for oedema has a vote as large as the tumour's. So a low lesion-wise score says "
    "*that* something is marked besides, and not how much. See the bonus."
)

# %% [markdown]
# One training each, few patients: this shows the mechanism and ranks nothing. For ranks see the next section.
# (The 45-minute path ends here.)

# %% [markdown]
# ## 12. Without ghosts
#
# > **Predict.** We train and test again, on the same patients lying still. How much of ST-Adapter's lead over
# > LoRA remains?
# >
# > Your prediction: ...
#
# The tables below are made by two commands: equal batches and steps, three seeds, twenty test patients; for each
# row the rate, chosen on validation patients among those tried. "(edge)" says that it is the lowest or highest
# of them, so that the row may still be too low. *Threshold* and *frozen random* are the controls of lab 01;
# Pro-tuning comes in section 13, Med-Tuning in lab 09.
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
Markdown("\n\n".join(f"**{words}**, Dice:\n\n{table(made[kind])}" for kind, (*_, words) in KINDS.items()))

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
    f"Dice and lesion-wise Dice of {len(names)} rows, a mark for each seed, for patients who moved and for the "
    "same patients lying still. Rows that were not computed yet are empty.",
)

# %% [markdown]
# These stored rows have no HD95; section 11 has it for six patients.
#
# And the difference that you predicted, with its 95 % interval. Two things in it are samples: another class would
# have other patients, and another run of the same recipe another seed. `labkit.studies.statistics` puts both
# into the width, and every interval of labs 07 to 10 comes from there.


# %%
def told(one):
    """A difference, its interval, and what the interval allows to say."""
    verdict = "above" if one.low > 0 else "below" if one.high < 0 else "not told apart"
    return f"{one.mean:+.1f} ({one.low:.1f} to {one.high:.1f}), {verdict}"


def rate_of(results, name):
    rate = results.rate(results.sweep.row(name))
    edge = ", edge" if results.at_edge(results.sweep.row(name)) else ""
    return f"{'/'.join(f'{value:g}' for value in rate.values())}{edge}" if rate else "none yet"


apart = {}
for kind, (*_, words) in KINDS.items():
    rates = {name: rate_of(made[kind], name) for name in ("ST-Adapter", "Med-Tuning", "LoRA")}
    print(f"{words}; rates:", ", ".join(f"{name} {rate}" for name, rate in rates.items()))
    for name in ("ST-Adapter", "Med-Tuning"):
        for score, title in SCORES.items():
            if one := apart_of(made[kind], name, "LoRA", score):
                apart[kind, name, score] = one
                print(f"   {name + ' less LoRA':22} {title:17} {told(one)}")

# %% [markdown]
# > **Explain.** What part of the lead comes from the ghosts? Does the table allow you to say that ST-Adapter
# > *loses* on patients who lie still? And is "Full" a fair rival here?

# %%
moved, still = (apart.get((kind, "ST-Adapter", "dice")) for kind in KINDS)
answer = "The tables are not there yet; the two commands make them."
if moved and still:
    lesions = [apart[kind, "ST-Adapter", "lesion_dice"] for kind in KINDS]
    answer = (
        f"On patients who moved ST-Adapter is {moved.mean:+.1f} points from LoRA ({moved.low:.1f} to "
        f"{moved.high:.1f}), on the same patients lying still {still.mean:+.1f} ({still.low:.1f} to "
        f"{still.high:.1f}). "
        + (
            "The lead is gone with the ghosts: what it won, it won by recognising them. "
            if moved.low > 0 >= still.low
            else "Here the two do not differ as we expected; trust the intervals. "
        )
        + (
            "It does *not* follow that it loses there: the interval holds 0, and another seed or other "
            "patients could turn the sign. "
            if still.low < 0 < still.high
            else ""
        )
        + f"By lesions: with ghosts {told(lesions[0])}; without, {told(lesions[1])}. "
        + (
            "The lesion-wise means look large, and their intervals are wider still: three trainings that "
            "differ much among themselves say little. "
            if min(one.half for one in lesions) > 5
            else ""
        )
        + "\n\nNot quite all else is equal: each row has the rate that did best for it, and LoRA's is "
        f"{rate_of(made['brain'], 'LoRA')} on the ones and {rate_of(made['brain_still'], 'LoRA')} on the others. "
        "**A method that looks at neighbours pays where a slice alone can't know**, and a claim \"volumetric "
        'is better" needs a word about *what for*.\n\n'
        'The row "Full" trains every weight, and has no path between slices: it is no fair rival on this '
        "question, however many parameters it has. A table that shows a volumetric adapter above full tuning "
        "has shown this before anything about adapters."
    )
explanation(answer)

# %% [markdown]
# ## 13. Pro-tuning
#
# The lecture's table has another method with a convolution: **Pro-tuning** (Nie et al., 2022,
# arXiv:2207.14381). After each stage it adapts the feature map by a 1 x 1 convolution, a depthwise 5 x 5
# convolution *in the plane*, and another 1 x 1, and adds the result. "Pro" is for prompt, though nothing is
# put among the tokens. (The paper's text leaves the inner sizes open; labkit's are those with which the numbers
# of parameters in Med-Tuning's tables come out.)
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
# ## 14. Use it: a filter for a scanner
#
# A clinic's MRI has slices 3 mm apart, and its ghosts spoil up to four slices in a row. Its physicist wants every
# slice to know what lies **15 mm** above and below it. Your network has four blocks with an ST-Adapter each.
#
# ### Exercise 6: `smallest_filter` (2 points, 6 minutes; medium)
#
# Which is the smallest *odd* size of their filters by which a slice sees at least that far, up and down? All
# blocks have the same size.


# %% labkit={"exercise": "smallest_filter", "role": "answer", "points": 2}
def smallest_filter(distance_mm, spacing_mm, blocks):
    """The smallest odd filter size by which a slice sees distance_mm to each side, through so many blocks."""
    ### BEGIN SOLUTION
    slices = math.ceil(distance_mm / spacing_mm)
    return 2 * math.ceil(slices / blocks) + 1
    ### END SOLUTION


# %% labkit={"exercise": "smallest_filter", "role": "check"}
lab.check("smallest_filter", smallest_filter)

# %%
my_smallest_filter = lab.working("smallest_filter", smallest_filter)
adds = {}
for distance_mm in (12, 15, 30, 60):
    k = my_smallest_filter(distance_mm, 3, 4)
    adds[distance_mm] = count(tune(segmenter("tiny", in_chans=4, classes=4), STAdapter(k=k))).inserted
    print(
        f"{distance_mm} mm: size {k}, {adds[distance_mm]:,} numbers, runs of {2 * math.ceil(distance_mm / 3) + 1} "
        "slices to use it all"
    )

# %% [markdown]
# > **Decide**, in four sentences: which size, and how long must a run be in training? What does either cost,
# > and which number above speaks for your choice? What would you measure before the clinic relies on it?
# >
# > Your proposal: ...

# %%
wide = my_smallest_filter(15, 3, 4)
explanation(
    f"Size {wide} sees 15 mm, with {adds[15] - adds[12]:,} numbers more than the size that sees 12 mm: depthwise "
    "filters are cheap, so numbers do not decide. **Runs do**: in a run of 4 the outer slices lack neighbours "
    "whatever the filter's size, and a run of 11 slices needs nearly three times the memory a step. With ghosts "
    "of four slices in a row, a neighbour one slice away may be a ghost as well, so size 3 may fail though "
    "it does well on our single ghosts. Measure false lesions on *this* scanner's patients, for both sizes, "
    "with three seeds, and compare them by an interval."
)

# %% [markdown]
# ## 15. Kidneys: seeing neighbours is not yet winning
#
# The story so far: neighbours tell a ghost from a tumour, so a method that sees neighbours wins. One more table
# could refute it. Digital kidneys in CT, whose patients moved as well (`labkit sweep kidney`); and again with
# four times the steps (`kidney_long`).
#
# > **Predict.** ST-Adapter and Med-Tuning both see neighbours. How will each stand beside LoRA, which does not?

# %%
KIDNEYS = {"kidney": "200 steps", "kidney_long": "800 steps"}
kidney = {}
for name, words in KIDNEYS.items():
    results = store.results(name)
    for row in ("ST-Adapter", "Med-Tuning"):
        for score, title in SCORES.items():
            if one := apart_of(results, row, "LoRA", score):
                kidney[name, row, score] = one
                print(f"{words}, {row + ' less LoRA':22} {title:17} {told(one)}; {one.seeds} seeds")
    print(
        "   rates:",
        ", ".join(f"{row} {rate_of(results, row)}" for row in ("ST-Adapter", "Med-Tuning", "LoRA")),
    )

# %% [markdown]
# > **Explain.** Which part of the story stands, and which falls?

# %%
short, long = (kidney.get((name, "ST-Adapter", "dice")) for name in KIDNEYS)
other = kidney.get(("kidney", "Med-Tuning", "dice"))
if short and long and other:
    answer = (
        f"After 200 steps ST-Adapter is {short.mean:+.1f} points from LoRA ({short.low:.1f} to {short.high:.1f})"
        + (
            ": **behind a method that sees no neighbour at all**"
            + (", though the interval only just leaves 0 out. " if short.high > -0.5 else ". ")
            if short.high <= 0
            else ": not told apart from it. "
            if short.low <= 0
            else ": above it. "
        )
        + f"Med-Tuning, on the same patients, is {other.mean:+.1f} ({other.low:.1f} to {other.high:.1f}). "
        "So the neighbours may well hold something here that ST-Adapter did not get. (Med-Tuning filters in the "
        "plane, too, so this alone does not prove it.) After 800 steps ST-Adapter is "
        f"{long.mean:+.1f} ({long.low:.1f} to {long.high:.1f}) in Dice"
        + (
            f" and {kidney['kidney_long', 'ST-Adapter', 'lesion_dice'].mean:+.1f} by lesions. "
            if ("kidney_long", "ST-Adapter", "lesion_dice") in kidney
            else ". "
        )
        + "What stands: a path between slices is *needed* where a slice alone cannot know. What falls: that it "
        "is enough. It must also be learned in the steps that there are, at a rate that suits it; look at the "
        "rates above, and whether they lie at an edge. An earlier table of ours had it 19 points behind, at a "
        "rate of 0.001, and on hippocampi one of its three trainings collapsed (`docs/results.md`)."
    )
else:
    answer = "The tables are not there yet; `labkit sweep kidney` and `labkit sweep kidney_long` make them."
explanation(answer)

# %% [markdown]
# ## 16. Bonus
#
# * **Wider filters.** Train `STAdapter(k=5)` as in section 9, for longer. `reach` says what it could see; a run of 4 says
#   what it gets to see. Which of the two limits it?
# * **Remove the specks.** Remove from both answers every component smaller than 50 mm³, and score again.
#   What happens to the false lesions, to both Dice scores, and to the lead of ST-Adapter? Would you do it
#   in a clinic?
# * **Longer runs at prediction.** `predict(st, patient, slices=16)` shows it runs longer than any in
#   training. Does that help? At which slices of a run of 4 do ghosts survive?
# * **Fewer numbers.** `STAdapter(m=24)` has an eighth of the width. How much of the gain remains?

# %% [markdown]
# ## 17. Test yourself
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
# ## 18. What changes on real data
#
# * **Your own scans, your own network.** `labkit train --data FOLDER --method st_adapter --slices 4` trains and tests
#   on a folder of scans. `tune(network, STAdapter())` takes a bare ViT of timm, too; how many slices make a volume
#   it must be told: `labkit.networks.anatomy.tell_slices(network, 4)`.
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
