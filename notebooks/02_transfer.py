# %% [markdown]
# # Lab 02: Pre-train, then fine-tune
#
# Nobody trains a transformer from nothing on twenty patients.
# One takes a network that has already learned to see, and adapts it.
# In this lab you will
#
# 1. **see** what a network that has only ever looked at photographs makes of a brain;
# 2. **freeze** a backbone, **count** what is left to learn, and **write** one training step;
# 3. **train** the same network three ways on four patients: from scratch, in full, and the head alone;
# 4. **judge** the three by overlap with the truth, parameters, memory and time;
# 5. **explain** when pre-training pays, and when its advantage fades.
#
# | | |
# | --- | --- |
# | Time | about 45 minutes |
# | Computer | any laptop, no GPU; three trainings of about a minute each, less than 2 GB |
# | You know | Lab 00; PyTorch modules and optimisers |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# The last line sets the seeds and looks whether your computer has what the lab needs.

# %%
import copy
import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from labkit.explore import plots
from labkit.explore.viewer import viewer
from labkit.lessons import start
from labkit.methods import Full, Head, LoRA, Scratch
from labkit.metrics import mean_by_region
from labkit.networks.anatomy import features
from labkit.networks.segmenter import segmenter
from labkit.phantoms.brain import brain_patients
from labkit.scans.slices import to_volume
from labkit.training.cost import measure
from labkit.training.evaluate import evaluate, mean_dice, predict
from labkit.training.fit import Recipe, fit
from labkit.tuning import count, delta, tune

lab = start("02")

# %% [markdown]
# ## 1. A network that has never seen a patient
#
# Our **backbone** is a small vision transformer.
# It cuts a slice of 96 x 96 pixels into 12 x 12 patches and turns each into a *token*, a list of 384 numbers.
# Four blocks follow, in each of which every token looks at all the others.
# Its weights were learned from photographs of dogs, teapots and bridges; it has never seen an MRI scan.
#
# A **decoder** on top, new and random, turns tokens into a label for every pixel.
# Backbone and decoder together are the **segmenter**.

# %%
pretrained = segmenter("tiny", in_chans=4, classes=4)
untrained = segmenter("tiny", in_chans=4, classes=4, weights=None)
for part in ("backbone", "decoder"):
    size = sum(p.numel() for p in pretrained.get_submodule(part).parameters())
    print(f"{part}: {size / 1e6:.2f} million parameters")

# %% [markdown]
# Does it see anything in a brain?
# Two tokens are *alike* for the network when their 384 numbers point the same way.
# Take the token in the middle of a tumour, in the slice where the tumour is largest.
# Colour every other token by how alike it is (the cosine of the angle).
#
# > **Predict.** For the pretrained network, and for the same network with random weights:
# > which parts of the slice will be like the tumour?

# %%
test = [to_volume(case) for case in brain_patients("test", 4)]
patient = test[0]
tumour = patient.target > 0  # (S, H, W)
slice_index = int(tumour.sum((1, 2)).argmax())  # the slice with the most tumour
row, column = (tumour[slice_index].nonzero().float().mean(0) / 8).long().tolist()


def likeness(model, image, row, column):
    """How alike each token of an image (C, 96, 96) is to the token at (row, column): (12, 12)."""
    with torch.no_grad():
        tokens = features(model.backbone, image[None])[2][0].flatten(1)  # (384, 144)
    tokens = tokens - tokens.mean(1, keepdim=True)  # what all tokens share says nothing
    return F.cosine_similarity(tokens, tokens[:, [12 * row + column]], dim=0).view(12, 12)


image = patient.image[slice_index]
figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
panels[0].imshow(image[3], cmap="gray")
panels[0].contour(tumour[slice_index], levels=[0.5], colors="#E69F00")
panels[0].plot(8 * column + 4, 8 * row + 4, "o", color="#56B4E9")
panels[0].set_title("FLAIR, the tumour's outline,\nthe chosen token")
names, both = ("pretrained", "random weights"), (pretrained, untrained)
for panel, name, model in zip(panels[1:], names, both, strict=True):
    picture = panel.imshow(likeness(model, image, row, column), cmap="viridis", vmin=-0.5, vmax=1)
    panel.set_title(f"alike to the chosen token,\n{name}")
figure.colorbar(picture, ax=panels, label="cosine", shrink=0.8)
for panel in panels:
    panel.set_axis_off()
plots.show(
    figure,
    "A FLAIR slice with a tumour outlined, and two maps of 12 by 12 tokens coloured by their "
    "likeness to the token in the tumour: one pretrained, one with random weights.",
)

# %% [markdown]
# **Explain.** Random weights already sort patches by brightness: they pass on what is in the pixels.
# The pretrained network groups patches by more than that, as texture, border and surroundings.
# Nobody told it about tumours.
# It is this knowledge that we want to keep, and keeping it means: do not let four patients overwrite it.

# %% [markdown]
# ## 2. Freezing
#
# The simplest way to keep knowledge is to **freeze** it.
# The backbone's parameters get no gradient and no update; only the decoder learns.
# That is *head tuning* (for one linear layer: a *linear probe*).
#
# **Exercise `freeze`** (2 points, about 5 minutes).
# Make the backbone of a model frozen and its decoder trainable.
# The model has the parts `model.backbone` and `model.decoder`; change it in place, and nothing else about it.


# %% labkit={"exercise": "freeze", "role": "answer", "points": 2}
def freeze(model):
    """Freeze model.backbone, let model.decoder learn; returns nothing."""
    ### BEGIN SOLUTION
    for p in model.backbone.parameters():
        p.requires_grad = False
    for p in model.decoder.parameters():
        p.requires_grad = True
    ### END SOLUTION


# %% labkit={"exercise": "freeze", "role": "check"}
lab.check("freeze", freeze)

# %% labkit={"exercise": "freeze", "role": "hidden"}
from collections import OrderedDict

from labkit.lessons import Challenge


def unforeseen():
    """A model of random depth and width, in which some parameters are frozen already."""
    depth, width, rows = torch.randint(1, 7, (3,)).tolist()
    backbone = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(depth)))
    decoder = torch.nn.Linear(width, rows)
    model = torch.nn.Sequential(OrderedDict(backbone=backbone, decoder=decoder))
    for p in model.parameters():
        p.requires_grad_(bool(torch.rand(()) < 0.5))
    return (model,)


challenges = [Challenge("a model whose size and frozen parameters nobody knows beforehand", unforeseen)]

# %% [markdown]
# Stuck? `lab.hint("freeze")` gives a nudge; again, and it says more.

# %%
freeze = lab.working("freeze", freeze)

# %% [markdown]
# ## 3. Counting
#
# How much is left to learn?
# A method of this course is judged by that number as much as by its accuracy.
# It is what has to be stored per task, and what Adam keeps two more copies of while it trains.
#
# **Exercise `count_tuned`** (2 points, about 5 minutes). Return how many single numbers of a model learn.


# %% labkit={"exercise": "count_tuned", "role": "answer", "points": 2}
def count_tuned(model):
    """How many numbers of the model are trained."""
    ### BEGIN SOLUTION
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
    ### END SOLUTION


# %% labkit={"exercise": "count_tuned", "role": "check"}
lab.check("count_tuned", count_tuned)

# %% labkit={"exercise": "count_tuned", "role": "hidden"}
from labkit.lessons import Challenge


def unforeseen():
    """Layers of random number and size, about half of their parameters frozen."""
    sizes = torch.randint(1, 12, (int(torch.randint(3, 7, ())),)).tolist()
    layers = [torch.nn.Linear(m, n) for m, n in zip(sizes, sizes[1:], strict=False)]
    model = torch.nn.Sequential(*layers)
    for p in model.parameters():
        p.requires_grad_(bool(torch.rand(()) < 0.5))
    return (model,)


challenges = [Challenge("a model whose size and frozen parameters nobody knows beforehand", unforeseen)]

# %%
count_tuned = lab.working("count_tuned", count_tuned)

# %% [markdown]
# Now yours against labkit's.
# `tune(model, Head())` is this course's one verb with its simplest method:
# freeze the backbone, train the head.
# (Its head is the decoder and the backbone's last normalisation, 2 x 384 numbers.)

# %%
mine = copy.deepcopy(pretrained)
freeze(mine)
theirs = tune(copy.deepcopy(pretrained), Head())
print(f"yours {count_tuned(mine)} + 2 x 384 = {count_tuned(mine) + 2 * 384}; labkit's {count(theirs).tuned}")
assert count_tuned(mine) + 2 * 384 == count(theirs).tuned == count_tuned(theirs)
print(f"that is {count(theirs).tuned / count(theirs).pretrained:.1%} of the network")

# %% [markdown]
# ## 4. One training step
#
# Everything that follows is this step, some hundred times:
# forget the last gradient, predict, compare, differentiate, move.
#
# **Exercise `training_step`** (3 points, about 10 minutes).
# Do one step with the mean squared error (`F.mse_loss`) and return the loss as a plain number.


# %% labkit={"exercise": "training_step", "role": "answer", "points": 3}
def training_step(model, optimizer, x, y):
    """One step on the batch (x, y); returns the loss before the step, a float."""
    ### BEGIN SOLUTION
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION


# %% labkit={"exercise": "training_step", "role": "check"}
lab.check("training_step", training_step)

# %%
training_step = lab.working("training_step", training_step)

# %% [markdown]
# labkit's loop, `labkit.training.fit.fit`, is this step with a loss made for segmentation
# (cross-entropy plus soft Dice), a learning rate that rises and falls, and a progress bar.
# Read it: `fit??`.

# %% [markdown]
# ## 5. Three ways to use one network
#
# Four patients to learn from, four others to be tested on, and about the same time for each way:
#
# * **scratch**: forget the photographs, start from random weights, train everything;
# * **full**: start from the pretrained weights, train everything, as "fine-tuning" is usually meant;
# * **head**: start from the pretrained weights, keep them, train the decoder alone.
#
# > **Predict.** Rank the three by Dice.
# > Then rank them by how long one step takes.
# > Write both down.

# %%
train = [to_volume(case) for case in brain_patients("train", 4)]
ways = {  # a step through a frozen backbone is cheaper, so in the same time it takes more of them
    "scratch": (Scratch(), Recipe(steps=60, lr=1e-3, batch_size=8)),
    "full": (Full(), Recipe(steps=60, lr=3e-4, batch_size=8)),
    "head": (Head(), Recipe(steps=130, batch_size=8)),
}
models = {name: tune(segmenter("tiny", in_chans=4, classes=4), method) for name, (method, _) in ways.items()}
slices = train[0].image
batch = slices[torch.linspace(0, len(slices) - 1, 8).long()]  # 8 slices through the whole head
costs = {name: measure(model, batch) for name, model in models.items()}

print(f"{'':8} {'learns':>10} {'saved for backward':>19} {'Adam':>9} {'one step':>9}")
for name, cost in costs.items():
    print(
        f"{name:8} {cost.tuned:>10,} {cost.saved_mib:>15.0f} MiB {cost.optimizer_mib:>5.0f} MiB "
        f"{cost.step_seconds:>7.2f} s"
    )

# %% [markdown]
# **Explain.** Head tuning saves on everything at once.
# Nothing inside the backbone has to be remembered for the way back, because no gradient goes there.
# Keep this table in mind.
# In the next labs you will meet methods that train even fewer parameters and yet save much less memory,
# because their gradient has to travel through the backbone.
#
# Now train. Each cell takes about a minute or less on two idle cores; the times printed here are those of a
# busy computer.


# %%
def timed_fit(name, model, recipe):
    """Train a model on the four patients; returns its history (one row per step)."""
    begin = time.perf_counter()
    history = fit(model, train, recipe)
    seconds = time.perf_counter() - begin
    print(f"{name}: {len(history)} steps in {seconds:.0f} s, loss {history[-1]['loss']:.2f}")
    return history


histories = {"scratch": timed_fit("scratch", models["scratch"], ways["scratch"][1])}

# %%
histories["full"] = timed_fit("full", models["full"], ways["full"][1])

# %%
histories["head"] = timed_fit("head", models["head"], ways["head"][1])

# %% [markdown]
# ### Who won?
#
# Dice on the four test patients, whom no network has seen:
# for the enhancing tumour (ET), the whole tumour (WT) and the tumour core (TC), as in lab 00.


# %%
def dice_table(models):
    print(f"{'':10} {'ET':>6} {'WT':>6} {'TC':>6} {'mean':>6}")
    for name, model in models.items():
        scores = evaluate(model, test, hausdorff=False, progress=True)
        dices = [*mean_by_region(scores).values(), mean_dice(scores)]
        print(f"{name:10}", *(f"{100 * dice:6.1f}" for dice in dices))


dice_table(models)

# %%
plots.show(plots.curves(histories), "Training loss against step for scratch, full and head tuning.")

# %%
named = tqdm(models.items(), desc="predicting", unit="network", leave=False)
predictions = {name: predict(model, patient) for name, model in named}
plots.show(
    plots.comparison(patient.case, predictions, slice_index),
    "One slice of a test patient: the image, the true labels, and those found by three networks.",
)

# %% [markdown]
# Look at the whole patient: move through the slices, switch from *truth* to *prediction* and *difference*.

# %%
viewer(patient.case, predictions["head"])

# %% [markdown]
# > **Explain.** Compare with what you predicted.
# > Where do the networks differ most: in the whole tumour, which is bright on FLAIR and easy,
# > or in the core, where a vessel can look like a rim?
#
# Three remarks, so that you do not learn more from this than it shows.
#
# * Four test patients and one seed: a difference of a few points is noise.
#   One of the four has no enhancing tumour; there a single falsely labelled voxel turns an ET Dice of 1
#   into 0 (lab 00), and the mean over four patients moves by 25 points.
#   `labkit sweep pretraining` does the same with ten test patients and three seeds, at equal steps, and
#   chooses every learning rate on validation patients; with `--table` it prints what is there already.
# * The budget decides. Scratch is not unable to learn: look at its row.
#   Change the numbers of steps and of patients.
#   From where on does pre-training pay, and for which region?
# * The decoder is trained from random weights in all three. What is compared is the backbone.

# %% [markdown]
# ## 6. Bonus: between all and nothing
#
# Full tuning changes 5.9 million numbers, head tuning leaves the backbone as it is.
# Is there something between? The rest of the course is about this question.
# One answer in advance: **LoRA** adds to some of the frozen matrices a product of two thin ones, of rank 8.

# %%
models["LoRA"] = tune(segmenter("tiny", in_chans=4, classes=4), LoRA(r=8))
print(
    f"LoRA adds {count(models['LoRA']).inserted:,} parameters "
    f"in {sum('.A' in name or '.B' in name for name in delta(models['LoRA']))} tensors"
)
histories["LoRA"] = timed_fit("LoRA", models["LoRA"], Recipe(steps=90, lr=1e-3, batch_size=8))

# %%
dice_table({name: models[name] for name in ("head", "LoRA")})

# %% [markdown]
# Try `r=1`. Try `targets=("q", "k", "v", "o")`. What changes, and what does it cost?

# %% [markdown]
# ## 7. Test yourself
#
# <details><summary>1. You call <code>model.eval()</code>. Is the model frozen?</summary>
# No. eval() changes how dropout and batch norm behave.
# Gradients flow and an optimizer moves the weights as before.
# </details>
#
# <details><summary>2. Head tuning trains 8 % of the parameters. Why does it save much more of the memory
# than that suggests, and not 92 % of the time?</summary>
# The backbone's activations need not be kept, since no gradient goes there.
# But every slice still runs forward through the whole backbone.
# </details>
#
# <details><summary>3. Why is the learning rate of full tuning smaller than that from scratch?</summary>
# Pretrained weights are already good.
# Large steps destroy what they know before the new, random decoder has learned to send back useful gradients.
# </details>
#
# <details><summary>4. Your colleague reports that scratch beats fine-tuning by 3 points.
# What do you ask first?</summary>
# How each learning rate was chosen, on which patients, with how many seeds;
# and whether the budgets were equal.
# </details>
#
# <details><summary>5. Why must patients, not slices, be split into training and test?</summary>
# Neighbouring slices of one patient are nearly the same picture.
# With one in training and the other in the test, the network is examined on what it has memorised.
# </details>

# %% [markdown]
# ## 8. What changes on real data
#
# * Real scans differ between hospitals: other coils, other sequences, movement, missing contrasts.
#   Pre-training helps there too, but the learning rate chosen at one hospital may not suit the next.
# * Our patients are synthetic and at 2 mm; a clinical scan has 1 mm, eight times the voxels, and takes a GPU.
# * The backbone here has 5.5 million parameters. With ViT-B/16 (86 million) the argument for not training
#   all of it grows with it: that is the subject of the lecture, and of the labs that follow.

# %%
lab.progress()
