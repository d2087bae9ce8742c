# %% [markdown]
# # Lab 01: Pre-train, then fine-tune
#
# The whole course rests on one sentence: *a network that has learned to see can be taught a new organ with
# few patients and few numbers*. In this lab you put the sentence to the test, with the controls that could
# refute it. You will
#
# 1. **read** a transformer block by the shapes of its matrices, and **place** this course's methods in it;
# 2. **freeze** a backbone, and **write** the loss that a segmentation is trained by;
# 3. **build** the control that shows what pre-training is worth: a backbone frozen without having learned;
# 4. **train** five networks for equally many steps, and **judge** them beside a threshold;
# 5. **explain** on which patients pre-training pays, on which it does not, and how you would have noticed.
#
# | | |
# | --- | --- |
# | Time | about 75 minutes; 45 if you leave exercise 2 to labkit and stop after section 7 |
# | Computer | any laptop, no GPU; five trainings of less than a minute each |
# | Counted | 75 minutes with all exercises: 2,245 words, 285 lines of code, 4 exercises, 7 minutes of computing; 1.6 GB of memory |
# | You know | Lab 00; PyTorch modules and optimisers |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# `start` sets the seeds and checks whether your computer has what the lab needs.

# %%
import copy

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import Markdown

from labkit.explore import drawings, plots
from labkit.explore.viewer import viewer
from labkit.lessons import start
from labkit.methods import Full, Head, LoRA, Scratch
from labkit.metrics import mean_by_region
from labkit.networks.segmenter import segmenter
from labkit.phantoms.kidney import kidney_patients
from labkit.scans.slices import every_other, to_volume
from labkit.studies import statistics, store
from labkit.studies.table import apart_of
from labkit.training.cost import measure
from labkit.training.evaluate import evaluate, predict
from labkit.training.fit import Recipe, fit, fresh
from labkit.training.threshold import best_bands, evaluate_bands
from labkit.tuning import count

lab = start("01")


def explanation(words):
    """A fold whose sentences are made from the numbers that were just computed."""
    return Markdown(
        f"<details><summary>Our explanation, with your numbers</summary>\n\n{words}\n\n</details>"
    )


# %% [markdown]
# ## 1. Kidneys, and how far one gets without a network
#
# Six patients to learn from, four others to be tested on. Each is a CT scan of the abdomen with contrast
# agent, at 3 mm, and has labels for **kidney** and **tumour**. They are synthetic: organs are drawn as
# shapes, bent differently for every patient, and scanned by a computed scanner while the patient breathes.
# (We test on every second slice: its neighbour shows nearly the same.)


# %%
train = [to_volume(case) for case in kidney_patients("train", 6)]
others = kidney_patients("test", 4)
patient, test = to_volume(others[2]), [every_other(to_volume(case)) for case in others]  # 6 mm apart
print("a scan as the network sees it, slices x channels x rows x columns:", tuple(patient.image.shape))
for role, volumes in (("train", train), ("test", test)):
    print(f"{role}: tumours of", ", ".join(str(int((v.target == 2).sum())) for v in volumes), "voxels")
plots.show(
    plots.contrasts(patient.case),
    "An axial CT slice of a test patient without and with outlines: the kidneys beside the spine, and a "
    "large tumour in one of them.",
)

# %% [markdown]
# The first opponent of every network is a **threshold**: all voxels between two brightnesses. Nothing is
# cheaper, and what it finds needs no learning. `best_bands` tries all pairs of bounds on the training
# patients.
#
# > **Predict.** Contrast agent makes kidneys bright; a tumour takes up less of it. The vessels, the liver,
# > the spleen and the muscles are there too. What Dice will the best band have for the kidney, and for the
# > tumour?

# %%
found = {"threshold": evaluate_bands(best_bands(train), test)}


def dices(rows):
    """Dice in per cent of each region, mean over the patients who have it, and the mean of the regions."""
    by_region = {region: 100 * dice for region, dice in mean_by_region(rows).items()}
    return by_region | {"mean": float(np.mean(list(by_region.values())))}


print({region: round(dice, 1) for region, dice in dices(found["threshold"]).items()})

# %%
band = dices(found["threshold"])
explanation(
    f"The best band has **{band['kidney']:.1f}** of the kidney and **{band['tumour']:.1f}** of the tumour. "
    + (
        "The kidney stands out by its brightness, though not alone: what else is as bright is marked as "
        "well. "
        if band["kidney"] > 20
        else "Not even the kidney stands out by its brightness alone. "
    )
    + (
        "The tumour's brightness is that of many other tissues. Whoever finds it must look at *where* it "
        "is and at its *form*, and that is what a network is for."
        if band["tumour"] < 20
        else "The tumour too can be told in part by brightness; a network must find more than that."
    )
)

# %% [markdown]
# ## 2. The network: tokens, and a block with six matrices
#
# Our **backbone** is a small vision transformer. It cuts a slice of 96 x 96 pixels into 12 x 12 patches
# of 8 x 8 pixels and turns each into a **token**, a list of $d = 384$ numbers. So a slice is a matrix of shape
# $(N, d) = (144, 384)$. Four **blocks** follow. Each takes such a matrix and gives one of the same shape.
#
# A block has two halves. In **attention** each token makes a *query* (what do I look for?), a *key* (what
# am I?) and a *value* (what do I have to tell?) by the matrices q, k and v. It reads the values of all
# tokens, most of those whose keys suit its query, and o mixes what it has read. In the **MLP** each token
# is worked on by itself: fc1 makes it longer, GELU bends it, fc2 makes it short again. Each half is *added*
# to what came in: the skips.
#
# > **Predict**, from the drawing alone: how many numbers do the six matrices of one block hold? And which
# > half holds more? (The size of a matrix is given as PyTorch gives it: outputs, inputs.)

# %%
plots.show(
    drawings.transformer_block(),
    "A transformer block from left to right. 144 tokens of 384 numbers come in and are normalised. "
    "Matrices q, k and v, each 384 by 384, lead into attention with six heads, then comes o, 384 by 384, "
    "and the sum with what came in. Then a norm, fc1, 960 by 384, GELU, fc2, 384 by 960, and again the sum "
    "with what came in.",
)

# %%
pretrained = segmenter("tiny", in_chans=1, classes=3)
block = pretrained.backbone.blocks[0]
attention = block.attn.qkv.weight.numel() + block.attn.proj.weight.numel()  # q, k, v lie in one; proj is o
mlp = block.mlp.fc1.weight.numel() + block.mlp.fc2.weight.numel()
blocks = sum(p.numel() for p in pretrained.backbone.blocks.parameters())
backbone, decoder = (
    sum(p.numel() for p in part.parameters()) for part in (pretrained.backbone, pretrained.decoder)
)
print(f"q, k, v, o {attention:,} = 4 x 384 x 384;   fc1, fc2 {mlp:,} = 2 x 384 x 960")
print(f"the matrices of four blocks: {4 * (attention + mlp):,} of {backbone:,} numbers of the backbone")
print(f"the decoder on top: {decoder:,}")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# Four squares of 384 x 384 are 589,824, two of 384 x 960 are 737,280: the MLP holds more. (In most
# transformers fc1 is four times as wide as a token, and the MLP holds twice as much as attention. Here
# fc1 is 2.5 times as wide.) The matrices of the blocks are nearly the whole backbone. Therefore almost every
# method of this course does something to these six, or beside them.
# </details>
#
# The backbone's weights were learned from photographs of dogs, teapots and bridges; it has never seen a CT
# scan. A **decoder** on top, new and random, turns tokens into a label for every pixel. Both together are
# the **segmenter**.

# %% [markdown]
# ## 3. A map of the course: three ways to tune little
#
# **Full fine-tuning** changes all 5.9 million numbers. The lecture asks three questions instead, and every
# method answers one of them:
#
# | family | its question | who answers it (lab) |
# | --- | --- | --- |
# | **addition** | add parameters, train just those? | prompts (03), adapters (06), Med-Tuning (09) |
# | **specification** | pick some that are there, train just those? | the head (here), biases (06) |
# | **reparameterisation** | write the change of a matrix with few numbers? | LoRA (04, 05), FacT (06) |
#
# Lab 07 compares all of them. Labs 02 and 10 ask another question: how to make the network itself cheaper.
#
# LoRA as an example. It adds to a frozen matrix $W_0$ a product of two thin ones, $W = W_0 + BA$. labkit's
# default puts such a product beside q and v of every block, as the paper does. The drawing shows where.

# %%
plots.show(
    drawings.transformer_block(marked=("q", "v")),
    "The same block with q and v in orange: these two matrices are changed by LoRA, the others stay as "
    "they are.",
)

# %% [markdown]
# ### Exercise 1: `freeze` (2 points, 3 minutes)
#
# Specification in its simplest form: the backbone stays as it is, the decoder learns. That is **head
# tuning** (for one linear layer: a *linear probe*). Make the backbone of a model frozen and its decoder
# trainable. The model has the parts `model.backbone` and `model.decoder`; change it in place, and nothing
# else about it.


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
my_freeze = lab.working("freeze", freeze)
mine = copy.deepcopy(pretrained)
my_freeze(mine)
learns = sum(p.numel() for p in mine.parameters() if p.requires_grad)
theirs = count(fresh(Head(), patient.case, seed=0))
print(
    f"yours trains {learns:,} numbers, labkit's Head() {theirs.tuned:,}: "
    f"{theirs.tuned / theirs.pretrained:.1%} of all"
)
print(
    f"the difference, {theirs.tuned - learns}, is the backbone's last norm, which labkit counts to the head"
)

# %% [markdown]
# ## 4. A loss that asks what we score
#
# Cross-entropy asks of every pixel: is your label right? Most pixels are neither kidney nor tumour.
#
# > **Predict.** A network calls *everything* background. Which share of the pixels of our training patients
# > does it get right? And what is its Dice for the tumour?

# %%
target = torch.cat([v.target for v in train])
shares = [(target == k).float().mean().item() for k in range(3)]
print(f"background {shares[0]:.2%}, kidney {shares[1]:.2%}, tumour {shares[2]:.2%} of all pixels")

# %%
explanation(
    f"It gets **{shares[0]:.1%}** of the pixels right, and its Dice is **0** for kidney and tumour: it "
    f"found nothing. Of one pixel of tumour there are {shares[0] / max(shares[2], 1e-9):,.0f} of "
    "background, so in cross-entropy, a mean over pixels, a tumour counts for little. Dice looks only at "
    "what is marked, by the truth or by the network, and counts a small region as much as a large one."
)

# %% [markdown]
# Why not train with Dice itself? It counts labels, and a label is a step: move a weight a little and no
# pixel changes its label. The slope is zero. So let a pixel count not by its label but by its
# **probability** $p$. With $t = 1$ where label $k$ is and 0 elsewhere, sums over all pixels of all slices
# of the batch:
#
# $$ \text{soft Dice}_k = \frac{2\sum p_k t_k + 1}{\sum p_k + \sum t_k + 1}, \qquad
# \text{loss} = 1 - \text{mean over the labels } k = 1, 2, \dots $$
#
# The background, $k = 0$, is left out. The 1 above and below keeps a label that the batch does not have
# from being divided by next to nothing. (Milletari et al., 2016, arXiv:1606.04797, brought Dice into
# training.)
#
# ### Exercise 2: `soft_dice` (4 points, 12 minutes)
#
# `logits` has the shape (B, K, H, W), `target` (B, H, W) holds classes 0 to K - 1. `F.one_hot(target, K)`
# gives (B, H, W, K). The check looks at the value *and* at the gradient that arrives at the logits.


# %% labkit={"exercise": "soft_dice", "role": "answer", "points": 4, "hides": ["labkit.training.fit:dice_ce"]}
def soft_dice(logits, target):
    """1 - mean soft Dice of the labels but background: a tensor with one number, and with its graph."""
    ### BEGIN SOLUTION
    p = logits.softmax(1)
    t = F.one_hot(target, logits.shape[1]).movedim(-1, 1)
    overlap = (p * t).sum((0, 2, 3))
    sizes = p.sum((0, 2, 3)) + t.sum((0, 2, 3))
    dice = (2 * overlap + 1) / (sizes + 1)
    return 1 - dice[1:].mean()
    ### END SOLUTION


# %% labkit={"exercise": "soft_dice", "role": "check"}
lab.check("soft_dice", soft_dice)

# %% labkit={"exercise": "soft_dice", "role": "hidden"}
from labkit.lessons import Challenge


def unforeseen():
    """Random logits and classes of random number and size."""
    slices, classes, rows, columns = (int(torch.randint(2, 6, ())) for _ in range(4))
    target = torch.randint(0, classes, (slices, rows, columns))
    return torch.randn(slices, classes, rows, columns).requires_grad_(), target


challenges = [Challenge("logits whose number of classes and size nobody knows beforehand", unforeseen)]

# %%
my_soft_dice = lab.working("soft_dice", soft_dice)
slices = slice(patient.target.flatten(1).sum(1).argmax().item(), None, 8)
x, y = patient.image[slices], patient.target[slices]
logits = pretrained(x).detach().requires_grad_()
for name, loss in (("cross-entropy", F.cross_entropy(logits, y)), ("soft Dice", my_soft_dice(logits, y))):
    (gradient,) = torch.autograd.grad(loss, logits)
    at_tumour = gradient.abs().sum(1)[y == 2].sum() / gradient.abs().sum()
    print(f"{name:13}: loss {loss.item():.2f}, {at_tumour:.0%} of its gradient at the tumour's pixels")
print(f"({(y == 2).float().mean():.1%} of the pixels of these slices are tumour)")

# %% [markdown]
# labkit trains by the sum of the two, cross-entropy + soft Dice. The first has a slope everywhere, also
# where nothing is right yet; the second does not forget small regions. (Even cross-entropy pulls at the tumour
# by more than its share of the pixels: the new decoder calls nearly all background, so what it gets wrong are
# kidney and tumour. Soft Dice pulls more still.) The loop itself is
# `labkit.training.fit.fit`: forget the last gradient, predict, compare, differentiate, move. Read it:
# `fit??`.

# %% [markdown]
# ## 5. The control
#
# Say head tuning finds the kidneys well. *Because the backbone learned to see*, you say. Your reviewer
# answers: a decoder of half a million numbers is a network by itself. Perhaps it would find them behind
# *any* backbone, as long as the pixels come through.
#
# There is only one answer: take away what the backbone learned, **leave everything else as it is**, and
# look again.
#
# ### Exercise 3: `frozen_random` (3 points, 8 minutes)
#
# Build this control. You get `pretrained`, and `untrained`, the same network with random weights. Return a
# **new** network and leave both inputs as they are. In the new one
#
# * the backbone is *random*: that of `untrained`, and *frozen*;
# * the decoder starts as that of `pretrained`, and *learns*.


# %% labkit={"exercise": "frozen_random", "role": "answer", "points": 3}
def frozen_random(pretrained, untrained):
    """The control for head tuning: a frozen random backbone, and the same decoder, which learns."""
    ### BEGIN SOLUTION
    control = copy.deepcopy(pretrained)
    control.backbone.load_state_dict(untrained.backbone.state_dict())
    control.backbone.requires_grad_(False)
    control.decoder.requires_grad_(True)
    return control
    ### END SOLUTION


# %% labkit={"exercise": "frozen_random", "role": "check"}
lab.check("frozen_random", frozen_random)

# %%
my_frozen_random = lab.working("frozen_random", frozen_random)
untrained = segmenter("tiny", in_chans=1, classes=3, weights=None)
control = my_frozen_random(pretrained, untrained)
theirs = fresh(Head(), patient.case, seed=0, weights=None).cpu()
with torch.no_grad():
    same = torch.allclose(control(x), theirs(x), atol=1e-5)
print("your control and labkit's, fresh(Head(), ..., weights=None), say the same before training:", same)

# %% [markdown]
# ## 6. Five networks, equal steps
#
# All start from the same seed, see the same batches in the same order, and take 60 steps of 5 slices:
#
# * **frozen random**: your control. Only the decoder learns;
# * **scratch**: random weights too, but everything learns;
# * **head**: the pretrained backbone, frozen. Only the decoder learns;
# * **full**: the pretrained backbone, and everything learns;
# * **LoRA**: the pretrained backbone, frozen, plus thin products beside q and v; these and the decoder learn.
#
# Their learning rates were not chosen here. Each is the one that did best on *validation* patients in a
# larger experiment (section 7), out of four. For *frozen random*, *head* and *full* it is the highest or the
# lowest of the four, so another one might have done better still. Section 9 asks why that matters.
#
# > **Predict.** Rank the five by Dice, and put the threshold where it belongs. Then rank them by the time
# > of a step: *frozen random* costs what *head* does, and *scratch* what *full* does. Which pair tells you
# > what pre-training is worth?

# %%
networks = {
    "frozen random": (Head(), {"weights": None}, {"head_lr": 8e-3}),
    "head": (Head(), {}, {"head_lr": 8e-3}),
    "scratch": (Scratch(), {}, {"lr": 1e-3}),
    "full": (Full(), {}, {"lr": 3e-5}),
    "LoRA": (LoRA(), {}, {"lr": 3e-3}),
}
models = {name: fresh(method, patient.case, 0, **network) for name, (method, network, _) in networks.items()}
costs = {name: measure(models[name], train[0].image[24:29], repeats=1) for name in ("head", "full", "LoRA")}
print(f"{'':13} {'learns':>10} {'saved for backward':>19} {'one step':>9}")
for name, cost in costs.items():
    print(f"{name:13} {cost.tuned:>10,} {cost.saved_mib:>15.0f} MiB {cost.step_seconds:>7.2f} s")

# %%
dearest, cheapest = (choose(costs, key=lambda name: costs[name].step_seconds) for choose in (max, min))
explanation(
    f"The step of *{dearest}* takes {costs[dearest].step_seconds / costs[cheapest].step_seconds:.1f} times "
    f"as long as that of *{cheapest}*. With *head* the gradient never enters the backbone, so nothing inside "
    f"it is kept for the way back: {costs['head'].saved_mib:.0f} MiB against "
    f"{costs['full'].saved_mib:.0f}. **LoRA** trains "
    f"{costs['full'].tuned / costs['LoRA'].tuned:.0f} times fewer numbers than *full*, but keeps "
    f"{costs['LoRA'].saved_mib:.0f} MiB: its gradient has to travel through the backbone to reach q and v. "
    "*Few numbers* and *little memory* are two things; you will meet that again in the coming labs."
)

# %% [markdown]
# Now train.

# %%
STEPS, histories = 60, {}


def train_and_test(name):
    """The steps; then Dice of the four test patients, whom no network has seen."""
    rate = networks[name][2]
    histories[name] = fit(models[name], train, Recipe(steps=STEPS, batch_size=5, **rate))
    found[name] = evaluate(models[name], test, hausdorff=False, progress=True)
    print(f"{name}: loss {histories[name][-1]['loss']:.2f}, mean Dice {dices(found[name])['mean']:.1f}")


train_and_test("frozen random")

# %%
train_and_test("head")

# %%
train_and_test("scratch")

# %%
train_and_test("full")

# %%
train_and_test("LoRA")

# %% [markdown]
# ### What came out
#
# The loss that each line above shows is that of its last batch. It says as much about the batch as about the
# network: do not rank by it.

# %%
order = ["threshold", "frozen random", "scratch", "head", "full", "LoRA"]
print(f"{'Dice (%)':13} {'kidney':>7} {'tumour':>7} {'mean':>7}   kidney of each patient")
for name in order:
    each = " ".join(f"{100 * row['dice']:5.0f}" for row in found[name] if row["region"] == "kidney")
    print(f"{name:13}", *(f"{dice:7.1f}" for dice in dices(found[name]).values()), f" {each}")

# %%
score = {name: dices(found[name]) for name in order}
kidney = {name: [row["dice"] for row in found[name] if row["region"] == "kidney"] for name in order}
better = sum(h > r for h, r in zip(kidney["head"], kidney["frozen random"], strict=True))
worth = score["head"]["kidney"] - score["frozen random"]["kidney"]
beside_band = score["frozen random"]["kidney"] - score["threshold"]["kidney"]
finds = [name for name in order if score[name]["tumour"] >= 10]
explanation(
    "**Head against frozen random** is the pair that answers the question: nothing differs but what the "
    f"backbone knows. On the kidney {score['head']['kidney']:.1f} against "
    f"{score['frozen random']['kidney']:.1f}, {worth:+.1f} points; head is the better one for {better} of "
    f"{len(kidney['head'])} patients. "
    + (
        "So a backbone that has only seen photographs helps to find a kidney in CT. "
        if worth > 5 and better > len(kidney["head"]) / 2
        else "In this run that shows no gain from pre-training: look at the larger table of section 7. "
    )
    + f"The decoder behind random features is {abs(beside_band):.1f} points "
    + ("above" if beside_band > 0 else "below")
    + " the threshold: "
    + (
        "nothing here shows that it reads more than brightness. "
        if beside_band < 10
        else "it reads more than brightness. "
    )
    + "\n\n**Tumour.** "
    + (f"A Dice of 10 or more: {', '.join(finds)}. " if finds else "No row reaches a Dice of 10. ")
    + (
        "A row below that marks none, or the wrong places: a tumour is small, and so few steps show little "
        "of it. "
        "Whether more steps and patients would find it, this table cannot say; the next one can."
        if len(finds) < len(order)
        else f"All of them find something of it after {STEPS} steps."
    )
    + "\n\n"
    + ", ".join(f"**{name}** {score[name]['mean']:.1f}" for name in ("head", "full", "LoRA"))
    + " in the mean. "
    f"Four patients, one seed, {STEPS} steps: do not rank rows that are a few points apart."
)

# %%
plots.show(plots.curves(histories), "Training loss against step for the five networks, one line each.")

# %%
shown = {name: predict(models[name], patient) for name in ("frozen random", "head", "LoRA")}
plots.show(
    plots.comparison(patient.case, shown),
    "One slice of a test patient: the scan, the true kidney and tumour, and what three networks marked.",
)

# %% [markdown]
# > **Explain.** What did the three do with the tumour? And how do the kidneys of the frozen random network
# > differ from those of the two behind a pretrained backbone?
#
# <details><summary>Our explanation</summary>
#
# The Dice above each panel says it: hardly a voxel of it is *labelled* tumour. (The picture scores all slices,
# the table every second one, so their numbers differ a little.) Where the tumour is marked at all,
# it is marked as kidney. To label it, a network must see that this mass bulges out of a kidney and is a
# little darker than it, and so few steps did not get there. Now the kidneys. In our picture the frozen random
# network has rags of them, where the tissue is brightest; behind the pretrained backbone the marks close
# and follow the form. If your picture shows something else, believe your picture, and move through the
# other slices in the viewer.
# </details>

# %%
viewer(patient.case, shown["head"])

# %% [markdown]
# ### Equal steps, or equal time?
#
# A step behind a frozen backbone is cheaper. So "equal steps" is unfair to *head*, and "equal time" is
# unfair to *full*, which then takes fewer. Neither is wrong. Say which one you mean.

# %%
seconds = STEPS * costs["full"].step_seconds
for name, cost in costs.items():
    print(f"{name:13}: {seconds / cost.step_seconds:4.0f} steps in the time of {STEPS} steps of full")

# %% [markdown]
# ## 7. The same question, asked properly
#
# One seed and four patients are a hint. `labkit sweep pretraining` asks it with 20 test patients (52 of the
# hippocampi), three seeds, 200 steps of 16 slices, and each learning rate chosen on validation patients. It
# takes hours, so its results lie in `data/results`. It asks about three kinds of patients:
#
# * **hippocampi**: real MRI scans of the Medical Segmentation Decathlon;
# * **kidneys**: the digital ones that you know now;
# * **brains**: the digital tumours of lab 00, whose patients move.
#
# > **Predict.** For which of the three is *head* farthest above *frozen random*? For which is it the least?

# %%
made = store.results("pretraining")
ORGANS, ROWS = (
    ("hippocampus", "kidney", "brain"),
    ("threshold", "frozen random", "scratch", "head", "full", "LoRA"),
)


def stored(organ, row):
    """Dice in per cent of each region, (seeds, regions, patients); None where nothing was computed."""
    trainings = made.trainings(made.sweep.row(f"{organ}: {row}"))
    return 100 * statistics.scores(trainings) if trainings else None


print(f"{'mean Dice (%)':15}", *(f"{row:>14}" for row in ROWS))
for organ in ORGANS:
    values = [stored(organ, row) for row in ROWS]
    cells = ("not there" if one is None else f"{statistics.estimate(one).mean:.1f}" for one in values)
    print(f"{organ:15}", *(f"{cell:>14}" for cell in cells))
tumours = (stored("kidney", row) for row in ROWS)  # its regions: kidney, tumour
cells = ("not there" if one is None else f"{np.nanmean(one[:, 1]):.1f}" for one in tumours)
print(f"{'kidney: tumour':15}", *(f"{cell:>14}" for cell in cells))
print("\nhead less frozen random, with the 95 % interval for other patients and other seeds:")
apart = {organ: apart_of(made, f"{organ}: head", f"{organ}: frozen random") for organ in ORGANS}
for organ, one in apart.items():
    if one:
        print(f"{organ:15} {one.mean:+5.1f} ({one.low:.1f} to {one.high:.1f})")

# %% [markdown]
# `labkit sweep pretraining --table` prints all of it, with the rates, and marks those at the edge of what
# was tried.
#
# > **Explain.** On brains the control comes close to head tuning. *Why does what it learned help so little
# > there?* Which number of which row tells you, before you train anything?

# %%
known = [organ for organ in ORGANS if apart[organ]]
if len(known) == len(ORGANS):
    bands, randoms = (
        {organ: stored(organ, row) for organ in ORGANS} for row in ("threshold", "frozen random")
    )
    regions = list(made.trainings(made.sweep.row("brain: threshold"))[0]["test"]["dice"])
    whole = dict(zip(regions, np.nanmean(bands["brain"], axis=(0, 2)), strict=True))["WT"]
    most, least = (choose(known, key=lambda organ: apart[organ].mean) for choose in (max, min))
    answer = (
        f"Pre-training is worth most on *{most}* ({apart[most].mean:+.1f}) and least on *{least}* "
        f"({apart[least].mean:+.1f}). The threshold's row tells: without any network it has "
        + ", ".join(f"{statistics.estimate(bands[organ]).mean:.1f} on {organ}" for organ in ORGANS)
        + f"; of the *whole tumour* in brains it has **{whole:.1f}**. There a tumour is a matter of "
        "brightness, and random features pass brightness on: "
        f"{statistics.estimate(randoms['brain']).mean:.1f} in the mean of the regions. What the pretrained "
        "backbone knows of form and place adds little to that. Where brightness does not decide, it "
        "decides.\n\nThe lesson is not "
        "that pre-training is useless for brains, but that *these* brains cannot show what it is worth. A "
        "claim about pre-training needs patients on which it could fail, and the control that would show it."
    )
else:
    answer = "The table is not complete on this computer; `labkit sweep pretraining` makes what is missing."
explanation(answer)

# %% [markdown]
# ## 8. Use it: one disk, many tasks
#
# A hospital wants to outline forty organs on a small computer beside the scanner. Its disk has **100 MB**
# for networks. A network tuned by *full* is stored whole for every organ. Of one tuned by *head* or *LoRA*
# only what learned is stored, and the backbone once for all.
#
# ### Exercise 4: `tasks_that_fit` (2 points, 6 minutes)
#
# How many tasks fit on the disk? `shared` numbers are stored once, `per_task` numbers for each task, 4
# bytes a number; a megabyte is $10^6$ bytes. Return a whole number.


# %% labkit={"exercise": "tasks_that_fit", "role": "answer", "points": 2}
def tasks_that_fit(megabytes, shared, per_task):
    """How many whole tasks a disk of so many megabytes holds."""
    ### BEGIN SOLUTION
    numbers = int(megabytes * 1e6 / 4)
    return max(0, (numbers - shared) // per_task)
    ### END SOLUTION


# %% labkit={"exercise": "tasks_that_fit", "role": "check"}
lab.check("tasks_that_fit", tasks_that_fit)

# %%
my_tasks_that_fit = lab.working("tasks_that_fit", tasks_that_fit)
shared = {"full": 0, "head": backbone, "LoRA": backbone}
fits = {name: my_tasks_that_fit(100, shared[name], costs[name].tuned) for name in shared}
print("organs on 100 MB:", fits)

# %% [markdown]
# > **Decide**, in four sentences: which of the three do you propose, for how many organs? Which number of
# > this lab speaks for it, which against it, and what would you measure before the hospital buys?
# >
# > Your proposal: ...

# %%
gap = apart_of(made, "hippocampus: LoRA", "hippocampus: head")
enough = [name for name, n in fits.items() if n >= 40]
explanation(
    f"Full fits {fits['full']} organs, head {fits['head']}, LoRA {fits['LoRA']}. "
    + (f"For forty, {' and '.join(enough)} will do" if enough else "None of them fits forty")
    + "; but *fits* is no reason yet. "
    + (
        f"On real hippocampi LoRA is {gap.mean:+.1f} points ({gap.low:.1f} to {gap.high:.1f}) from head, so "
        "the organs that do not fit have to be weighed against what each of the others gains. "
        if gap
        else ""
    )
    + "Half precision (2 bytes a number) would at least double what fits, and most of what is stored is "
    "the *decoder*: a smaller one is the next thing to try. Before buying, measure Dice on patients of "
    "*this* hospital, beside a threshold and the frozen random control, organ by organ."
)

# %% [markdown]
# ## 9. Test yourself
#
# <details><summary>1. You call <code>model.eval()</code>. Is the model frozen?</summary>
# No. eval() changes how dropout and batch norm behave.
# Gradients flow and an optimiser moves the weights as before.
# </details>
#
# <details><summary>2. Scratch is below head. Does that prove that pre-training pays?</summary>
# Not by itself. Scratch trains 5.9 million numbers, head half a million, at another rate: three things
# differ. Only frozen random against head changes one.
# </details>
#
# <details><summary>3. A colleague's LoRA beats full fine-tuning by 8 points. What do you ask first?</summary>
# At which learning rates, chosen on which patients. On the hippocampi of section 7 full had 74.3 at the
# lowest rate of an earlier grid, and 82.3 at a rate ten times lower (`docs/results.md`): a baseline is as
# good as the rates it was given.
# </details>
#
# <details><summary>4. To which family belongs tuning the biases alone? And a prompt?</summary>
# Specification: the biases are there already, a subset is picked. Addition: the prompt was not there before.
# </details>
#
# <details><summary>5. Why must patients, not slices, be split into training and test?</summary>
# Neighbouring slices of one patient are nearly the same picture. With one in training and the other in the
# test, the network is examined on what it has memorised.
# </details>

# %% [markdown]
# ## 10. Bonus
#
# * **Equal time.** Train *head* for as many steps as the last table of section 6 gives it (a new
#   `fresh(Head(), ...)`). Does it pass *full*?
# * **More steps.** From how many steps on does *head* find the tumour? Does *frozen random* ever?
# * **Your own seed.** `fresh(..., seed=1)` and `Recipe(..., seed=1)` for *head* and *frozen random*. Is the
#   gap of section 6 larger than what a seed moves?

# %% [markdown]
# ## 11. What changes on real data
#
# * Hospitals differ: other scanners, other phases of the contrast agent, movement, cysts. A learning rate
#   chosen at one hospital may not suit the next. The control costs one training more, anywhere.
# * Our patients are synthetic and at 3 mm; a clinical CT has voxels of 1 mm or less. It needs a GPU, and
#   windows instead of whole slices.
# * The backbone here has 5.4 million parameters. With ViT-B/16 (86 million) the argument for not training
#   all of it grows: the subject of the lecture, and of the labs that follow.

# %%
lab.progress()
