# %% [markdown]
# # Lab 03: Prompts
#
# A frozen network can be steered without touching one of its weights: by giving it something more to look
# at. In this lab you will
#
# 1. **write** the attention that sees more than its own tokens, and **show** that a prompt works as a gate;
# 2. **put** prompts in front of a block, and **predict** what their place and their length change;
# 3. **write** prompts as a module of PyTorch, and **train** them by a loop of your own, beside two controls;
# 4. **take** the prompts away again, and **see** who looked at them and what they were good for;
# 5. **prove** that VPT-deep is a prefix, **count** the whole family, and **measure** what each kind costs.
#
# | | |
# | --- | --- |
# | Time | 105 minutes: 70 for sections 1 to 6, 35 for 7 to 11 |
# | 45-minute path | 1 and 3 to 6, up to *Who looks at the prompts?*; exercise 1 is left to labkit |
# | Points | 13 in sections 2 to 5, 8 in sections 7, 8 and 11 |
# | Computer | any laptop, no GPU; three trainings of less than a minute each |
# | Counted | 120 minutes with all exercises: 4,361 words, 531 lines of code, 7 exercises, 3 minutes of computing; 1.8 GB of memory |
# | You know | Lab 01: freezing, the transformer block, soft Dice, the frozen random control |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# `start` sets the seeds and checks whether your computer has what the lab needs.

# %%
import copy

import numpy as np
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import nn

from labkit.explore import deltas, plots
from labkit.explore.pictures import BLUE, ORANGE, VERMILLION, unit
from labkit.explore.prompts import PromptExplorer
from labkit.lessons import start
from labkit.methods import Full, Head, LoRA, PrefixTuning, PromptTuning, VPTDeep, VPTShallow
from labkit.methods.prefix import keep
from labkit.metrics import mean_by_region
from labkit.networks.anatomy import features
from labkit.networks.segmenter import segmenter
from labkit.phantoms.kidney import kidney_patients
from labkit.scans.slices import to_volume
from labkit.studies import statistics, store
from labkit.studies.table import apart_of
from labkit.training.cost import MIB, saved_for_backward
from labkit.training.evaluate import evaluate, predict
from labkit.training.fit import dice_ce
from labkit.training.quick import STEPS, at_most
from labkit.training.threshold import best_bands, evaluate_bands
from labkit.tuning import count, merge, tune

lab = start("03")


def explanation(*paragraphs):
    """A fold whose sentences were made from the numbers above it."""
    text = "\n\n".join(paragraphs)
    return Markdown(f"<details><summary>Our explanation, with your numbers</summary>\n\n{text}\n\n</details>")


# %% [markdown]
# ## 1. A token looks around
#
# Our segmenter is the pretrained transformer of lab 01: 4 blocks, 6 heads, 384 numbers a token, and one
# token for each of the 12 x 12 patches of a slice. Its decoder is now as small as it can be: one matrix,
# which turns each token of the last block into the labels of its 8 x 8 pixels. Whatever a segmentation
# needs, the backbone has to have computed.
#
# In each block tokens look at each other, by **attention**. Each token makes a **query** (what it looks
# for), a **key** (what it is found by) and a **value** (what it hands over), once for each of the 6 heads.
# A query and a key multiplied give one number, a **logit**: how well they fit. A softmax turns the logits of
# one query into its **weights**, which are positive and sum to 1.
#
# The patients are those of lab 01: digital, in CT, with a tumour of the kidney. Here is one whom no training
# will see. We pick a token in the middle of the tumour.

# %%
test = [to_volume(case) for case in kidney_patients("test", 4)]
patient = test[2]
label = patient.case.label
level = int((label == 2).sum((1, 2)).argmax())  # the slice with the largest tumour
image = patient.image[level]  # (1, 96, 96)
row, column = (np.argwhere(label[level] == 2).mean(0) // 8).astype(int)
chosen = 12 * row + column

frozen = segmenter("tiny", in_chans=1, classes=3, decoder="linear").requires_grad_(False)
block = frozen.backbone.blocks[3]  # the last one
maps = features(frozen.backbone, image[None])  # what each of the four blocks gives, (1, 384, 12, 12)
x = maps[2].flatten(2).mT  # what the last one gets: (1, 144, 384)


def heads_of(block, x):
    """Queries, keys and values of the tokens (1, N, d) of one image, by head: each (6, N, d / 6)."""
    qkv = block.attn.qkv(block.norm1(x))[0]  # (N, 3d)
    return qkv.unflatten(1, (3, 6, -1)).permute(1, 2, 0, 3)


q, K, V = heads_of(block, x)
weights = (q @ K.mT / 64**0.5).softmax(-1)  # (6, 144, 144)
print(f"{patient.case.name}, slice {level}; the chosen token is number {chosen}")
for head, one in enumerate(weights[:, chosen]):
    print(f"head {head}: its weights sum to {one.sum():.3f}, the largest is {one.max():.3f}")

# %%
plots.show(
    plots.token_maps(
        patient.case,
        level,
        {f"head {head}": weights[head, chosen].view(12, 12) for head in range(3)},
        "weight (all sum to 1)",
        top=0.1,
        token=(row, column),
    ),
    "A CT slice with kidneys and tumour outlined and a token chosen in the tumour, and the attention of this "
    "token to the 144 patches in three heads of the last block: each head spreads it in another way.",
)

# %% [markdown]
# What the token gets from a head is the mean of all values, weighted by this map:
#
# $$ \mathrm{softmax}\!\left(\frac{q K^\top}{\sqrt{d}}\right) V $$
#
# with $d$ the width of a head, 64 here. The weights sum to 1. So attention is a *share*: whoever gets more
# of it takes it from others. That is the handle by which a frozen network can be steered.

# %% [markdown]
# ## 2. One key more
#
# Three tokens have the logits $0$, $\ln 2$ and $\ln 3$ for some query, hence the weights 1/6, 2/6 and 3/6.
# (A softmax takes $e^{\text{logit}}$ of each and divides by their sum, $1 + 2 + 3$.)
# Now someone else joins, with a key and a value that no token made. We call it a **prompt**; where it comes
# from is the question of section 3. Its logit is $\ln 6$.
#
# > **Predict.** What weights do the four get? And what became of the *ratios* among the three tokens?
# >
# > Your prediction: ...

# %%
logits = torch.tensor([1.0, 2.0, 3.0]).log()
joined = torch.cat([torch.tensor([6.0]).log(), logits])
figure = Figure(figsize=(7, 2.8), layout="constrained")
without, beside = figure.subplots(1, 2, sharey=True, width_ratios=(3, 4))
without.bar(("token 1", "token 2", "token 3"), logits.softmax(0), color=unit(BLUE))
bars = beside.bar(
    ("prompt", "token 1", "token 2", "token 3"), joined.softmax(0), color=[unit(ORANGE)] + 3 * [unit(BLUE)]
)
bars[0].set_hatch("//")
without.set(title="without", ylabel="weight", ylim=(0, 0.6))
beside.set(title="with one more key")
for panel in (without, beside):
    panel.bar_label(panel.containers[0], fmt="%.3f")
    panel.spines[["top", "right"]].set_visible(False)
plots.show(
    figure,
    "The weights of three tokens without and with a prompt. The prompt takes one half; the three share the "
    "other half in the same ratios as before, 1 to 2 to 3.",
)

# %% [markdown]
# > **Explain.** Why do all three tokens lose the same factor?
#
# <details><summary>Our explanation</summary>
#
# A softmax divides $e^{\text{logit}}$ by the sum over all. The prompt changes nothing but this sum: it was 6
# and is now 12. So each token keeps half of what it had.
# </details>
#
# $n$ such keys and values, as rows of $P_k$ and $P_v$, make the equation of this lab:
#
# $$ \mathrm{softmax}\!\left(\frac{q\,[P_k; K]^\top}{\sqrt{d}}\right)[P_v; V] $$
#
# where $[\,;\,]$ puts rows on top of each other. Keys and values become more; the queries stay.
#
# ### Exercise 1: `attend` (4 points, 10 minutes, medium)
#
# Write it for one head of one image. $q$ is (M, d), $K$ is (N, d), $V$ is (N, d_v); $P_k$ is (n, d), $P_v$
# is (n, d_v). The result is (M, d_v).


# %% labkit={"exercise": "attend", "role": "answer", "points": 4}
def attend(q, K, V, P_k, P_v):
    """Attention of the queries q to the tokens and to n prompts beside them: (M, d_v)."""
    ### BEGIN SOLUTION
    keys, values = torch.cat([P_k, K]), torch.cat([P_v, V])
    return (q @ keys.T / q.shape[-1] ** 0.5).softmax(-1) @ values
    ### END SOLUTION


# %% labkit={"exercise": "attend", "role": "check"}
lab.check("attend", attend)

# %% [markdown]
# Stuck? `lab.hint("attend")` helps, three times, each time more.

# %%
attend = lab.working("attend", attend)

# %% [markdown]
# ### A prompt is a gate
#
# A gate lets more or less through. Call $\lambda$ the share of a token's attention that goes to the prompts.
# The bars above say: the tokens' part of the result stays what it was, times $1 - \lambda$. With one prompt
#
# $$ \text{new} = (1 - \lambda)\,\text{old} + \lambda\,P_v $$
#
# Try it in head 1 of the real block. The prompt's key is that of the chosen token, so that whoever looks for
# such tokens finds the prompt as well; its value is random.

# %%
numbers = torch.Generator().manual_seed(0)
P_k, P_v = K[1, [chosen]], torch.randn(1, 64, generator=numbers)
new = attend(q[1], K[1], V[1], P_k, P_v)  # (144, 64)
old = weights[1] @ V[1]
share = attend(q[1], K[1], torch.zeros(144, 1), P_k, torch.ones(1, 1))  # each token's λ: (144, 1)
torch.testing.assert_close(new, (1 - share) * old + share * P_v, rtol=1e-4, atol=1e-4)
print(f"new = (1 - λ) old + λ P_v holds for all {len(new)} tokens;")
print(f"λ is {share[chosen].item():.3f} at the chosen token, {share.max():.3f} where it is largest,", end=" ")
print(f"and below {share.median():.4f} for half of the tokens")

# %% [markdown]
# > **Think.** How did `attend` compute $\lambda$ in this cell?
# >
# > And why is a prompt more than a constant that is added to all tokens?
#
# <details><summary>Our answer</summary>
#
# Its values were 0 for all tokens and 1 for the prompt. The weighted mean of these is the prompt's weight.
#
# $\lambda$ depends on the token: on how well its query fits the prompt's key. A prompt can say one thing to
# tokens that look like tumour and leave the others alone.
# </details>

# %% [markdown]
# ## 3. A token in front
#
# Where could such keys and values come from? One answer needs no new part at all: put **a token that belongs
# to no patch** in front of the others. The block makes a key and a value of it, as of all tokens.
#
# That is a **prompt**: $P$, $n$ rows of width $d$ (now the full width, 384), learned by backpropagation
# while the network stays frozen. In language models, prompts stand in front of the words of a sentence:
# *prompt tuning* (Lester et al., 2021, arXiv:2104.08691). In a vision transformer they stand in front of the
# patches: *Visual Prompt Tuning*, **VPT** (Jia et al., 2022, arXiv:2203.12119). For one block $L_i$ with
# patch tokens $E_{i-1}$ its deep variant computes
#
# $$ [\_, E_i] = L_i([P_{i-1}, E_{i-1}]) $$
#
# The dash says: what the block computes for the prompts is thrown away.
#
# ### Exercise 2: `prompted` (3 points, 6 minutes, medium)
#
# Run a block on a batch with prompts and return its patch tokens. `block` takes and gives (B, any number of
# tokens, d); `x` is (B, N, d), `P` is (n, d). The result is (B, N, d). All images of the batch get the same
# prompts; a tensor's method `expand` repeats it along new axes, where -1 means "as it is".


# %% labkit={"exercise": "prompted", "role": "answer", "points": 3}
def prompted(block, x, P):
    """The patch tokens that a block makes of x (B, N, d) beside the prompts P (n, d): (B, N, d)."""
    ### BEGIN SOLUTION
    prompts = P.expand(len(x), -1, -1)
    return block(torch.cat([prompts, x], dim=1))[:, len(P) :]
    ### END SOLUTION


# %% labkit={"exercise": "prompted", "role": "check"}
lab.check("prompted", prompted)

# %%
prompted = lab.working("prompted", prompted)

# %% [markdown]
# Now play with ten random prompts in the last block.
#
# > **Predict**, for each row: does the block's result change a lot, a little, or not at all?
# >
# > * The prompts stand *behind* the patches instead of in front.
# > * The prompts change places among themselves.
# > * All prompts are ten times as long, as arrows are: every number times ten, $10 P$.
# > * The prompts are all zero, compared with *no prompts*.
# >
# > Your prediction: ...

# %%
P = 0.1 * torch.randn(10, 384, generator=numbers)


@torch.no_grad()
def change(result, reference):
    """How far a result lies from a reference, in percent of the reference's length."""
    return f"{100 * float((result - reference).norm() / reference.norm()):9.5f} %"


usual, plain = prompted(block, x, P), block(x)
print("prompts instead of none        ", change(usual, plain))
print("behind instead of in front     ", change(block(torch.cat([x, P[None]], 1))[:, :144], usual))
print("in another order               ", change(prompted(block, x, P.flip(0)), usual))
print("ten times as long              ", change(prompted(block, x, 10 * P), usual))
print("zeros instead of no prompts    ", change(prompted(block, x, torch.zeros(10, 384)), plain))

# %% [markdown]
# > **Explain.** Of the last four rows, two are zero but for rounding, one is nearly so, and one is not. Why?
#
# <details><summary>Our explanation</summary>
#
# *Place and order* change nothing. A query sums over all keys, and a sum has no order. Patches know where
# they are only because a position was added to them at the entrance; prompts got none.
#
# *Length* changes nothing either, up to the tiny constant in the norm's denominator. A block normalises its
# tokens before it looks at them: of a prompt only the direction counts. (With prompts that travel on through
# the network this holds no longer: a block *adds* its result to what came in, so their length travels on.)
#
# *Zeros* are not nothing. The norm turns a zero token into its bias, and the block makes a key of that. It
# is found by some queries and takes its share. "No prompts" is $n = 0$, not $P = 0$.
# </details>

# %% [markdown]
# ## 4. Write it yourself
#
# So far `P` was a tensor on a desk. To be learned it must belong to a **module** that can stand where the
# block stood: it takes tokens (B, N, d) and gives tokens (B, N, d). Two things make it VPT-deep:
#
# * the old block is **kept** inside the new one, and **frozen**: nothing in it has `requires_grad`;
# * the prompts are of the class `nn.Parameter`. A module finds what it owns by this class, and so does
#   whoever asks it for `parameters()`: the optimiser, `state_dict()`, `.to("cuda")`. A plain tensor is
#   invisible to them.
#
# ### Exercise 3: `PromptedBlock` (3 points, 7 minutes, medium)
#
# Write both methods. Keep the block as `self.block` and the prompts as `self.prompts`. Your `prompted` does
# the work in `forward`.


# %% labkit={"exercise": "PromptedBlock", "role": "answer", "points": 3}
class PromptedBlock(nn.Module):
    """A frozen block that sees the prompts P (n, d), which learn."""

    def __init__(self, block, P):
        super().__init__()
        ### BEGIN SOLUTION
        self.block = block.requires_grad_(False)
        self.prompts = nn.Parameter(P)
        ### END SOLUTION

    def forward(self, x):
        """Tokens (B, N, d) to tokens (B, N, d)."""
        ### BEGIN SOLUTION
        return prompted(self.block, x, self.prompts)
        ### END SOLUTION


# %% labkit={"exercise": "PromptedBlock", "role": "check"}
lab.check("PromptedBlock", PromptedBlock)

# %%
PromptedBlock = lab.working("PromptedBlock", PromptedBlock)

# %% [markdown]
# Now into the network: every block is replaced by yours around it, each with ten prompts of its own. That is
# all of VPT-deep. (From here on *head* also means the network's decoder, as in "head tuning". It has nothing to
# do with the heads of attention.)
#
# > **Predict.** How many numbers learn in the backbone? And does the network, before any training, still say
# > what the pretrained one says?


# %%
def network(prompts=0, weights="default"):
    """A frozen backbone under a new head, which learns; with `prompts` in every block if there are any."""
    model = segmenter("tiny", in_chans=1, classes=3, decoder="linear", weights=weights)
    model.backbone.requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for i in range(4 if prompts else 0):
        P = 0.1 * torch.randn(prompts, 384, generator=random)
        model.backbone.blocks[i] = PromptedBlock(model.backbone.blocks[i], P)
    return model


def learning(module):
    """How many numbers of a module learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


models = {"probe": network(), "prompts": network(prompts=10)}
for name, model in models.items():
    print(f"{name:8} backbone {learning(model.backbone):6,} numbers learn, head {learning(model.decoder):,}")
at_start = features(models["prompts"].backbone, image[None])[3]
print("features of the last block changed by", change(at_start, features(frozen.backbone, image[None])[3]))

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# Ten prompts of 384 numbers in four blocks: 15,360. The head has five times as many. And no, it is no longer
# the pretrained network: fresh prompts take a share of the attention and hand out random values. Section 9
# looks at that start.
# </details>

# %% [markdown]
# ## 5. Train them
#
# Six patients to learn from. Into one tensor go all slices that show a kidney, and a quarter of the others: a
# network that never saw a slice without a kidney would find one everywhere. The loss is that of lab 01:
# `dice_ce(logits, target)`, cross-entropy + soft Dice.

# %%
train_volumes = [to_volume(case) for case in kidney_patients("train", 6)]
images, truth = (
    torch.cat([getattr(volume, what) for volume in train_volumes]) for what in ("image", "target")
)
shown = (truth > 0).flatten(1).any(1)
shown[::4] = True
images, truth = images[shown], truth[shown]
chosen_slices = torch.randint(
    len(images), (at_most(80, STEPS), 6), generator=torch.Generator().manual_seed(0)
)
batches = [(images[some], truth[some]) for some in chosen_slices]  # the same for every network
print(f"{len(images)} slices of {len(train_volumes)} patients; {len(batches)} batches of 6 of them")

# %% [markdown]
# ### Exercise 4: `train` (3 points, 8 minutes, medium)
#
# Write the loop. One optimiser, `torch.optim.AdamW`, for whatever of the model **learns**, at the rate `lr`;
# then one step for each batch. Return the loss of every step as a plain number.


# %% labkit={"exercise": "train", "role": "answer", "points": 3}
def train(model, batches, loss_of, lr):
    """One step of AdamW for each batch (x, y) on loss_of(model(x), y); the list of losses."""
    ### BEGIN SOLUTION
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for x, y in batches:
        loss = loss_of(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
    ### END SOLUTION


# %% labkit={"exercise": "train", "role": "check"}
lab.check("train", train)

# %%
train = lab.working("train", train)

# %% [markdown]
# Who stands beside the prompts?
#
# * **probe**: the same head and batches, no prompts (a *linear probe*). What it finds, no prompt can claim.
# * **random + prompts**: the same prompts on a backbone that never saw an image. If it did as well, prompts
#   would owe nothing to pre-training. A small part that learns could be a network by itself: lab 01's
#   reviewer asks this again for every method.
# * **threshold**: the best band of brightness, no network at all. (All slices count here, in lab 01 every second
#   one: so its Dice differs a little.)
#
# Each network has a rate of its own, searched on three *validation* patients with one seed and these 80 steps.
# Prompts: 1.6e-2, the best of 4e-3, 8e-3, 1.6e-2 and 3.2e-2. Probe: 1.6e-2, the better of 8e-3 and 1.6e-2.
# Random + prompts: 4e-3, the better of 4e-3 and 8e-3. The last two stand at an edge of what was tried, so there
# may be more in them. Nothing else was searched: not the number of prompts, not their start, not the steps.
#
# > **Predict.** Rank the four: in the kidney, and in the tumour.
# >
# > Your prediction: ...

# %%
models["random + prompts"] = network(prompts=10, weights=None)
losses = {"probe": train(models["probe"], batches, dice_ce, lr=1.6e-2)}  # 10 s on two idle cores

# %%
losses["prompts"] = train(models["prompts"], batches, dice_ce, lr=1.6e-2)  # some 20 s

# %%
losses["random + prompts"] = train(models["random + prompts"], batches, dice_ce, lr=4e-3)

# %%
histories = {
    name: [{"step": step, "loss": loss} for step, loss in enumerate(of, 1)] for name, of in losses.items()
}
plots.show(
    plots.curves(histories),
    "Training loss against step for the linear probe, for ten deep prompts, and for ten deep prompts on a "
    "random backbone.",
)

# %%
rows = {"threshold": evaluate_bands(best_bands(train_volumes), test)}
rows |= {name: evaluate(model.eval(), test, hausdorff=False) for name, model in models.items()}


def table_of(rows):
    """Prints Dice (%): means over patients, their mean, and each patient; returns the means by region."""
    means = {name: {region: 100 * v for region, v in mean_by_region(of).items()} for name, of in rows.items()}
    print(f"{'Dice (%)':18}{'kidney':>8}{'tumour':>8}{'mean':>7}   kidney, tumour of each patient")
    for name, of in means.items():
        each = [f"{100 * row['dice']:.0f}" for row in rows[name]]
        pairs = "  ".join(f"{a:>3},{b:>3}" for a, b in zip(each[::2], each[1::2], strict=True))
        print(f"{name:18}{of['kidney']:8.1f}{of['tumour']:8.1f}{sum(of.values()) / 2:7.1f}   {pairs}")
    return means


means = table_of(rows)

# %% [markdown]
# > **Explain.** Kidney or tumour: where did the prompts help? Count patients, too. And which row tells you
# > whether they needed pre-training?


# %%
def gain(rows, means, mine, other):
    """A sentence for each region: how far one row is above another, and for how many patients."""
    said = []
    for region in ("kidney", "tumour"):
        pairs = [[row["dice"] for row in rows[name] if row["region"] == region] for name in (mine, other)]
        better = sum(a > b for a, b in zip(*pairs, strict=True))
        above = means[mine][region] - means[other][region]
        said.append(f"{region} **{above:+.1f}** points, better for {better} of {len(pairs[0])} patients")
    return "; ".join(said)


apart = {region: means["prompts"][region] - means["probe"][region] for region in ("kidney", "tumour")}
most = max(apart, key=apart.get)
worth = means["prompts"]["kidney"] - means["random + prompts"]["kidney"]
explanation(
    f"**Prompts less probe**: {gain(rows, means, 'prompts', 'probe')}. "
    + (
        "So in this run the prompts helped in neither. "
        if apart[most] <= 0
        else "So in this run they helped in both, about equally. "
        if min(apart.values()) > max(0, apart[most] - 2)
        else f"So in this run it is the *{most}* where they helped more. "
    )
    + "Four patients and one seed: a few points are noise.",
    f"**Prompts less random + prompts**: {gain(rows, means, 'prompts', 'random + prompts')}. "
    + (
        "Prompts do not replace what the backbone knows: they steer it, and where nothing is known there is "
        "nothing to steer."
        if worth > 5
        else "In this run pre-training shows no gain; look at the larger table below."
    ),
    f"The threshold has {means['threshold']['kidney']:.1f} of the kidney. "
    + (
        "Prompts on a random backbone are no better than it."
        if means["random + prompts"]["kidney"] <= means["threshold"]["kidney"] + 2
        else "Prompts on a random backbone read something more than it."
    ),
)

# %%
patient_found = {name: predict(models[name], patient) for name in ("probe", "prompts", "random + prompts")}
plots.show(
    plots.comparison(patient.case, patient_found, level),
    "The slice of this lab: the scan, the true kidney and tumour, and what the linear probe, the prompts and "
    "the prompts on a random backbone marked.",
)

# %% [markdown]
# ### Trained longer
#
# Eighty steps on six patients show that your code works. Beside it two networks that labkit brings
# along: a probe and ten deep prompts, trained on twenty patients. Same test patients.

# %%
for name in ("probe", "prompts-deep-10"):
    recipe = deltas.named(name).recipe
    print(
        f"{name}: {recipe.steps} steps of {recipe.batch_size}, lr {recipe.lr}, of the head {recipe.head_lr}"
    )
shipped = {"probe": deltas.network("probe"), "prompts": deltas.network("prompts-deep-10")}
longer = {name: evaluate(model, test, hausdorff=False) for name, model in shipped.items()}
longer_means = table_of(longer)

# %% [markdown]
# ### Asked properly
#
# Four patients and one seed are a hint. The same with twenty test patients, three seeds, 150 steps, and rates
# chosen on six validation patients takes a GPU or a night: it is stored. Two questions to it: are ten prompts
# better than a head alone behind the *linear* head, and behind the decoder of lab 01,
# which labkit calls *light* (with 200 steps of 16 slices there)?


# %%
def stored(sweep, row):
    """Trainings of a row of a stored table, and the learning rate that was chosen for it."""
    results = store.results(sweep)
    row = results.sweep.row(row)
    return results.trainings(row), results.rate(row)


(with_prompts, rate), (alone, head_rate) = (
    stored("combinations_kidney", "prompts"),
    stored("lora_places_kidney", "head alone"),
)
linear = light = None
if with_prompts and alone and with_prompts[0]["patients"] == alone[0]["patients"]:
    a, b = (100 * statistics.scores(trainings) for trainings in (with_prompts, alone))
    linear = statistics.estimate(a - b)
    print(f"linear head: prompts {statistics.estimate(a).mean:.1f} at {rate}")
    print(f"             head alone {statistics.estimate(b).mean:.1f} at {head_rate}")
    print(f"             prompts less head alone {linear.mean:+.1f} ({linear.low:.1f} to {linear.high:.1f})")
kidneys = store.results("kidney")
light, head_at_edge = apart_of(kidneys, "VPT-Deep", "Head"), kidneys.at_edge(kidneys.sweep.row("Head"))
if light:
    print(f"light decoder: VPT-deep less head {light.mean:+.1f} ({light.low:.1f} to {light.high:.1f})")

# %% [markdown]
# > **Explain.** What may you say about prompts on these patients, and what not? (Behind the linear head, both
# > rates are the highest of those that were tried.)

# %%
explanation(
    f"Trained longer, prompts less probe: {gain(longer, longer_means, 'prompts', 'probe')}. One seed.",
    (
        f"With a learning rate of its own the head alone is {abs(linear.mean):.1f} points from the prompts "
        f"(whose head learned at a default rate); the interval of the difference is {linear.low:.1f} to "
        f"{linear.high:.1f}, "
        + (
            "all above 0."
            if linear.low > 0
            else "all below 0: the head alone is better."
            if linear.high < 0
            else "and 0 lies in it: **not told apart**. Give a control the search that you give your method."
        )
        if linear
        else "The stored table is not complete on this computer. "
    )
    + (
        f" Behind the light decoder it is {light.mean:+.1f} ({light.low:.1f} to {light.high:.1f}), "
        + ("told apart" if light.low > 0 or light.high < 0 else "not told apart either")
        + (
            "; but the head's best rate there was the highest tried, so it may not have been at its best."
            if head_at_edge
            else "."
        )
        if light
        else ""
    ),
    "You may say that prompts train, and what they owe to the backbone. That they beat a head alone, whatever "
    "the decoder, "
    + (
        "this table bears out."
        if linear and light and min(linear.low, light.low) > 0
        else "you may not say: say behind which decoder, and at which rates the head was tried."
    ),
)

# %% [markdown]
# ## 6. Take them away
#
# What do the prompts *do* in the trained network? The best experiment costs three lines: take them away, and
# look. Your block is still inside: `.block`.
#
# > **Predict.** Without the prompts of one block, how much Dice is lost? Which block's prompts matter most?
# > And with none at all: is the network then the *probe* again?
# >
# > Your prediction: ...


# %%
def without(model, gone):
    """A copy of the network whose blocks with these numbers see no prompts."""
    bare = copy.deepcopy(model)
    for i in gone:
        bare.backbone.blocks[i] = bare.backbone.blocks[i].block
    return bare


taken = {"all prompts": ()} | {f"without block {i}'s": (i,) for i in range(4)}
taken |= {"without any": (0, 1, 2, 3)}
dice = {
    name: mean_by_region(evaluate(without(models["prompts"], gone), [patient], hausdorff=False))
    for name, gone in taken.items()
}
dice["the probe"] = mean_by_region(evaluate(models["probe"], [patient], hausdorff=False))
print(f"{'Dice (%) of this patient':26}{'kidney':>8}{'tumour':>8}")
for name, of in dice.items():
    print(f"{name:26}{100 * of['kidney']:8.1f}{100 * of['tumour']:8.1f}")

# %%
lost = {i: 100 * (dice["all prompts"]["kidney"] - dice[f"without block {i}'s"]["kidney"]) for i in range(4)}
worst = max(lost, key=lost.get)
bare = 100 * (dice["without any"]["kidney"] - dice["the probe"]["kidney"])
explanation(
    f"The kidney loses most without the prompts of block {worst}: {lost[worst]:.1f} points. "
    + (
        "No single block's prompts are missed much: the others and the head make up for them."
        if lost[worst] < 3
        else "The others lose "
        + ", ".join(f"{v:.1f} (block {i})" for i, v in lost.items() if i != worst)
        + "."
    ),
    f"Without any the Dice is {100 * dice['without any']['kidney']:.1f}, {bare:+.1f} from the probe's. "
    + (
        "The backbone is the same one, but the head is not: it learned to read features that prompts had "
        "changed. **Prompts and head belong together**: neither can be judged or stored alone."
        if bare < -3
        else "The head that learned beside the prompts reads the plain features nearly as well: these prompts "
        "changed little that it relies on."
    ),
)

# %% [markdown]
# ### Who looks at the prompts?
#
# (The 45-minute path ends here.) Now the gate. The share of a token's attention that goes to prompts needs
# no new tool. Put the prompts in front, make queries and keys as in section 1, and add up the softmax over
# the columns of the prompts.


# %%
@torch.no_grad()
def share_to_prompts(block, x, P):
    """Of each token's attention the part that goes to P, by head: (6, N)."""
    q, K, _ = heads_of(block, torch.cat([P[None], x], 1))
    weights = (q @ K.mT / 64**0.5).softmax(-1)  # (6, n + N, n + N)
    return weights[:, len(P) :, : len(P)].sum(-1)


mine = label[level].reshape(12, 8, 12, 8)
in_tumour = torch.from_numpy((mine == 2).mean((1, 3)) > 0.5).flatten()  # tokens that are mostly tumour
print(f"with equal keys the ten prompts would get {10 / 154:.1%}; {int(in_tumour.sum())} tokens are tumour")
shares = {}
for when, model in (("start", network(prompts=10)), ("trained", models["prompts"])):
    arriving = features(model.backbone, image[None])[2].flatten(2).mT.detach()
    last = model.backbone.blocks[3]
    shares[when] = share_to_prompts(last.block, arriving, last.prompts.detach())
    for where, tokens in (("tumour", in_tumour), ("elsewhere", ~in_tumour)):
        by_head = "".join(f"{share:7.1%}" for share in shares[when][:, tokens].mean(1).tolist())
        print(f"last block, {when:8} {where:10} head by head {by_head}")

# %%
top = float(shares["trained"].max())
plots.show(
    plots.token_maps(
        patient.case,
        level,
        {f"head {head}": share.view(12, 12) for head, share in enumerate(shares["trained"])},
        "share to prompts",
        top=top,
    ),
    "The share of attention that each token pays to the ten trained prompts of the last block, one map for "
    "each of six heads, beside the CT slice, all with the outlines of kidney and tumour: it differs from head "
    "to head and from place to place.",
)

# %% [markdown]
# > **Explain.** Does any head treat the tumour's tokens in another way than the rest? What would a head that
# > is all dark mean, and one that is all bright?

# %%
inside, outside = (shares["trained"][:, tokens].mean(1) for tokens in (in_tumour, ~in_tumour))
differs = int((inside - outside).abs().argmax())
factor = float(inside[differs] / outside[differs])
opens = bool(inside[differs] > outside[differs])  # or does this gate close at the tumour?
extreme = shares["trained"][differs].topk(int(in_tumour.sum()), largest=opens).indices
hits = int(in_tumour[extreme].sum())
before = float(shares["start"][differs, in_tumour].mean() / shares["start"][differs, ~in_tumour].mean())
explanation(
    f"Look at **head {differs}**: {inside[differs]:.1%} at the tumour against {outside[differs]:.1%} "
    f"elsewhere, {factor:.2f} times as much; at the start it was {before:.2f} times. "
    + (
        "So training changed how this gate treats the tumour. "
        if abs(np.log(factor) - np.log(before)) > 0.2
        else "So the difference was there before training: it comes from the tokens' queries, not from what "
        "the prompts learned. "
    )
    + f"Does it point at the tumour? Of the {len(extreme)} tokens with the {'largest' if opens else 'smallest'} share "
    f"in this head {hits} are tumour. "
    + (
        "That is a gate for tumours."
        if hits > len(extreme) / 2
        else "So it is no detector of tumours: other tissue does the same to it, and the map shows where. "
        "Look for what the bright region has in common, and check it in another slice."
    ),
    "A dark head ignores the prompts: it works as in pre-training. A bright one listens to hardly anything "
    "else, and says nearly the same whatever the image. Between lies the gate of section 2.",
    "Such a map shows where the gate is open, not what passes through it. Attention is no proof of cause; "
    "taking the prompts away is.",
)

# %% [markdown]
# ### Explorer
#
# Networks with 1, 10 and 50 deep prompts and with 10 shallow ones, all trained beforehand on the same twenty
# patients (made by `labkit deltas`; the recipes stand in `labkit/explore/deltas.py`). The map is the share to
# the prompts, of one block and one head. With 0 prompts you see the linear probe.
#
# > **One question.** How much does the tumour's outline move from 1 to 50 prompts, and how much does the
# > map? Try two patients before you answer.

# %%
PromptExplorer([volume.case for volume in test[:3]])

# %% [markdown]
# <details><summary>What to look for</summary>
#
# Count pixels, not impressions: the numbers below the picture say how far the outline moved. More prompts take
# a larger share (fifty equal keys beside 144 would get 50/194, a quarter), so the map changes whenever $n$
# does. That the outline follows is not said: a map of attention and a segmentation are two things.
# </details>

# %% [markdown]
# ## 7. A prompt is a prefix
#
# In VPT-deep, a block's prompts are new and their results are thrown away. Then what of them has ever
# reached a patch? Not their queries: those decide what the *prompts* see. Not what the MLP makes of them:
# the MLP works on each token alone. Only their **keys and values**:
#
# $$ P_k = W_k\,\mathrm{LN}(P) + b_k \qquad P_v = W_v\,\mathrm{LN}(P) + b_v $$
#
# where $\mathrm{LN}$ is the norm at the block's entrance and $b_k$, $b_v$ are biases.
# Keys and values in front of those of the tokens are called a **prefix** (Li & Liang, 2021,
# arXiv:2101.00190).
#
# ### Exercise 5: `as_prefix` (4 points, 8 minutes, medium)
#
# timm keeps the three matrices in one: `W` is (3d, d), the rows of $W_q$, then $W_k$, then $W_v$; `b` is
# (3d) alike. `norm` is the block's norm, a function. Return the keys and the values that prompts `P` (n, d)
# become, (n, d) each.


# %% labkit={"exercise": "as_prefix", "role": "answer", "points": 4}
def as_prefix(P, norm, W, b):
    """Keys and values, (n, d) each, that a block with norm, W (3d, d) and b (3d) makes of P (n, d)."""
    ### BEGIN SOLUTION
    d = P.shape[1]
    qkv = norm(P) @ W.T + b
    return qkv[:, d : 2 * d], qkv[:, 2 * d :]
    ### END SOLUTION


# %% labkit={"exercise": "as_prefix", "role": "check"}
lab.check("as_prefix", as_prefix)

# %%
as_prefix = lab.working("as_prefix", as_prefix)

# %% [markdown]
# **The proof.** Three ways to compute one block of VPT-deep: with prompts in front (yours); as attention
# with a prefix (yours, head by head, then the block's other parts as they are); and labkit's, which tunes
# the whole network by the one verb of this course.

# %%
deep = tune(copy.deepcopy(frozen), VPTDeep(n=10)).eval()
theirs = deep.backbone.blocks[3]
P = theirs.attn.prompts.detach()  # labkit's prompts of this block: (10, 384)

in_front = prompted(block, x, P)

P_k, P_v = as_prefix(P, block.norm1, block.attn.qkv.weight, block.attn.qkv.bias)
by_head = [
    attend(q[h], K[h], V[h], P_k[:, 64 * h : 64 * (h + 1)], P_v[:, 64 * h : 64 * (h + 1)]) for h in range(6)
]
after_attention = x + block.attn.proj(torch.cat(by_head, dim=1))
as_a_prefix = after_attention + block.mlp(block.norm2(after_attention))

torch.testing.assert_close(in_front, theirs(x), rtol=1e-4, atol=1e-4)
torch.testing.assert_close(as_a_prefix, theirs(x), rtol=1e-4, atol=1e-4)
print("prompts in front, a prefix, and labkit's VPT-deep: the same block")
print("differences:", change(in_front, theirs(x)), change(as_a_prefix, theirs(x)))

# %% [markdown]
# So labkit need not carry deep prompts through the block at all. It computes their keys and values and
# spares itself their queries and their MLP: read `labkit.methods.vpt.TokenPrefix`. Section 10 shows what
# that saves.
#
# > **Think.** A *free* prefix learns $P_k$ and $P_v$ themselves. Can VPT-deep become any such prefix?
#
# <details><summary>Our answer</summary>
#
# In general no. A free prefix has $2d$ numbers per prompt and block, VPT-deep has $d$. Its key and its value
# are made of the same token, by matrices that pre-training fixed: it is a prefix *tied* to the block. The
# lecture calls prefix tuning "slightly more complex" with "finer control". This is what the control consists
# of: what a prompt is found by, and what it says, are learned apart.
# </details>

# %% [markdown]
# ## 8. The family
#
# | | where | learns | is thrown away |
# | --- | --- | --- | --- |
# | prompt tuning, VPT-shallow | $n$ tokens before block 1; they travel | $P$ | at the end: prompts |
# | VPT-deep | $n$ new tokens before every block | one $P$ a block | in each block: prompts |
# | prefix tuning | $n$ keys and values in every block | a table and an MLP | after training: the MLP |
#
# Prompt tuning and VPT-shallow are one idea with two starts: random numbers within 0.5 the one, within a
# bound that depends on patch and width the other.
#
# Prefix tuning has a turn of its own. Li and Liang found it unstable to train keys and values directly. So
# they learn a table $P'$ of $n$ rows of width $d$, and an MLP $d \to \text{mid} \to 2Ld$ that makes of each
# row all its keys and values, $2d$ numbers for each of $L$ blocks. Both layers of the MLP have biases. Once
# trained, the MLP has done its work: its output is stored, and it is dropped.
#
# ### Exercise 6: `prompt_counts` (2 points, 5 minutes, easy)
#
# How many numbers is that? Return a dictionary: what `"shallow"` and `"deep"` learn; what of a prefix is
# `"trained"`, with $P'$ and the MLP; and what of it is `"kept"`.


# %% labkit={"exercise": "prompt_counts", "role": "answer", "points": 2}
def prompt_counts(n, d, L, mid):
    """Numbers for n prompts of width d in L blocks: {"shallow", "deep", "trained", "kept"}."""
    ### BEGIN SOLUTION
    table, first, second = n * d, (d + 1) * mid, (mid + 1) * 2 * L * d
    return {"shallow": n * d, "deep": L * n * d, "trained": table + first + second, "kept": 2 * L * n * d}
    ### END SOLUTION


# %% labkit={"exercise": "prompt_counts", "role": "check"}
lab.check("prompt_counts", prompt_counts)

# %%
prompt_counts = lab.working("prompt_counts", prompt_counts)

# %% [markdown]
# Now yours against the real layers.
#
# > **Predict.** Ten prompts, our backbone (d = 384, L = 4; 5.4 million numbers), an MLP with 512 hidden
# > units: which share of the backbone's size does prefix tuning *train*? Which does it *keep*?
# >
# > Your prediction: ...

# %%
mine = prompt_counts(n=10, d=384, L=4, mid=512)
prefix = tune(copy.deepcopy(frozen), PrefixTuning(n=10, mid=512)).eval()
shallow = tune(copy.deepcopy(frozen), VPTShallow(n=10)).eval()
labkits = {
    "shallow": count(shallow).inserted,
    "deep": count(deep).inserted,
    "trained": count(prefix).inserted,
}
before = prefix(image[None])
labkits["kept"] = count(keep(prefix)).inserted  # keep: runs the MLP once, stores its output, drops the MLP
torch.testing.assert_close(prefix(image[None]), before)  # and nothing else changes
assert mine == labkits, (mine, labkits)

size = sum(p.numel() for p in frozen.backbone.parameters())
keys = {"VPT-shallow": "shallow", "VPT-deep": "deep", "prefix, trained": "trained", "prefix, kept": "kept"}
numbers_of = {name: mine[key] for name, key in keys.items()}
figure = Figure(figsize=(7, 2.4), layout="constrained")
axis = figure.subplots()
bars = axis.barh(list(numbers_of), numbers_of.values(), color=unit(BLUE))
bars[2].set(facecolor=unit(ORANGE), hatch="//")
axis.bar_label(bars, [f"{c:,} ({c / size:.2%})" for c in numbers_of.values()], padding=4)
axis.set(xscale="log", xlabel="numbers, and their share of the backbone", xlim=(1e3, 1e8))
axis.invert_yaxis()
axis.spines[["top", "right"]].set_visible(False)
plots.show(
    figure,
    "Numbers of four variants with ten prompts, on a logarithmic axis: "
    + "; ".join(f"{name} {number:,}" for name, number in numbers_of.items())
    + ".",
)

# %% [markdown]
# So "parameter-efficient" has two meanings. What has to be *stored* for each task is tiny in all of them.
# What has to be *trained*, with its gradients and Adam's two moments, is not tiny in prefix tuning, because
# of the MLP.
#
# The formula in the lecture's table, $n d_m + d_m^2 + 2 L d_h d_m$, counts an MLP whose table $P'$ is as
# wide as its hidden layer, and no biases.

# %% [markdown]
# ## 9. The start
#
# Many methods of this course start as the pretrained network exactly: LoRA, for one, adds a product of which
# one factor is zero. Training then departs from what the network knew. And prompts?
#
# > **Predict.** Take fresh prompts, before any training. How far are the features of the last block from
# > those of the pretrained network: 0 %, 1 %, 10 %, more? Rank six: VPT-deep, VPT-shallow, prompt tuning and
# > prefix tuning with ten prompts each, VPT-deep with one, and LoRA.
# >
# > Your prediction: ...

# %%
methods = {
    "VPT-deep, n = 10": VPTDeep(n=10),
    "VPT-shallow, n = 10": VPTShallow(n=10),
    "prompt tuning, n = 10": PromptTuning(n=10),
    "prefix tuning, n = 10": PrefixTuning(n=10),
    "VPT-deep, n = 1": VPTDeep(n=1),
    "LoRA, r = 8": LoRA(r=8),
}
with torch.no_grad():
    known = features(frozen.backbone, image[None])[3]
    moved = {}
    for name, method in methods.items():
        fresh = tune(copy.deepcopy(frozen), method).eval()
        moved[name] = float((features(fresh.backbone, image[None])[3] - known).norm() / known.norm())
moved = dict(sorted(moved.items(), key=lambda item: item[1]))

figure = Figure(figsize=(7, 2.8), layout="constrained")
axis = figure.subplots()
bars = axis.barh(list(moved), [100 * value for value in moved.values()], color=unit(BLUE))
axis.bar_label(bars, fmt="%.0f %%", padding=4)
axis.set(xlabel="change of the last features at the start (%)", xlim=(0, 1.25 * 100 * max(moved.values())))
axis.invert_yaxis()
axis.spines[["top", "right"]].set_visible(False)
plots.show(
    figure,
    "How far the last features lie from the pretrained ones before any training: LoRA at 0, every kind of "
    "prompt above it. " + "; ".join(f"{name}: {value:.0%}" for name, value in moved.items()) + ".",
)

# %% [markdown]
# > **Explain.** Who has been given attention that had belonged to patches? How much would it be if all keys
# > were equally attractive?
#
# <details><summary>Our explanation</summary>
#
# A softmax has no way to ignore a key. A fresh prompt has some logit with every query, so it takes a share
# and hands out a random value. If all $N + n$ keys were equal, ten prompts beside 144 patches would get
# 10/154 = 6.5 %. Only a logit of minus infinity, or $n = 0$, gives the pretrained network.
#
# So training sets out not from the pretrained network but from a changed one. How long these bars are
# depends on the random start; that they are not zero does not.
# </details>

# %% [markdown]
# ## 10. What prompts cost
#
# A slide of the lecture leaves prompt tuning and prefix tuning out of its plot of memory, "because they use
# the same amount of memory as full fine-tuning". Others call them cheap. Who is right?
#
# Most memory of our trainings goes neither to weights nor to gradients. It goes to what each layer **keeps
# of the forward pass** until the gradient comes back. We measure it for a batch of 16 slices: what is kept
# inside the backbone, and apart from it the gradients and Adam's two moments, 3 x 4 bytes for every number
# that learns.
#
# > **Predict.** Of what full tuning keeps, what share do ten deep prompts keep: 1 %, 10 %, 60 %, 100 %? And
# > which grows faster with $n$, deep prompts or shallow ones?
# >
# > Your prediction: ...

# %%
slices = patient.image[torch.linspace(0, len(label) - 1, at_most(16, 2)).long()]
kept = {}
print(f"{'':18} {'kept (MiB)':>10} {'gradients and Adam (MiB)':>25}")
for name, method in {
    "head alone": Head(),
    "full": Full(),
    "prefix, n = 10": PrefixTuning(n=10),
    **{f"VPT-deep, n = {n}": VPTDeep(n=n) for n in (1, 10, 100)},
    **{f"VPT-shallow, n = {n}": VPTShallow(n=n) for n in (1, 10, 100)},
}.items():
    model = tune(copy.deepcopy(frozen), method)
    kept[name] = saved_for_backward(model.backbone, slices) / MIB
    print(f"{name:18} {kept[name]:10.0f} {12 * count(model).tuned / MIB:25.1f}")
own = network(prompts=10)
print(f"{'your module, n = 10':19}{saved_for_backward(own.backbone, slices) / MIB:10.0f}", end="")
print(f"{12 * learning(own) / MIB:26.1f}")

# %%
figure = Figure(figsize=(6.5, 3.2), layout="constrained")
axis = figure.subplots()
for name, marker, colour in (("VPT-shallow", "s--", VERMILLION), ("VPT-deep", "o-", BLUE)):
    points = [(n, kept[f"{name}, n = {n}"]) for n in (1, 10, 100)]
    axis.plot(*zip(*points, strict=True), marker, color=unit(colour), label=name)
axis.axhline(kept["full"], color="black", linewidth=1)
axis.text(1, kept["full"] + 3, "full tuning")
axis.set(xlabel="prompts n", ylabel="kept for backward (MiB)", ylim=(0, 1.2 * max(kept.values())))
axis.legend(loc="lower right", frameon=False)
axis.spines[["top", "right"]].set_visible(False)
plots.show(
    figure,
    "Memory kept for the backward pass against the number of prompts. Prompts that travel through the "
    "network rise steeply and pass full tuning before 100; deep prompts, computed as a prefix, rise little "
    "and stay below.",
)

# %% [markdown]
# > **Explain.** Three questions. Why does one prompt already cost so much more than the head alone? Why is
# > it still less than full tuning? And why do prompts that travel cost so much more than deep ones?
#
# <details><summary>Our explanation</summary>
#
# *One prompt* in the first block gets its gradient through all blocks above. Every GELU, every norm and
# every attention on the way must remember what went through it (GELU is the MLP's activation). It does not
# matter that nothing of them learns.
#
# *Less than full*: a linear layer keeps its input for one purpose, the gradient of its own weight. Frozen,
# it keeps nothing.
#
# *Travelling prompts* are tokens like the others: in every block there are queries, keys, values, norms and
# an MLP for each of them, and all of it is kept. With 100 of them the network has 244 tokens instead of 144.
# A prefix is keys and values alone, and there is no more to it, as you have proven.
#
# So the slide is nearly right about many prompts that travel: what they keep passes full tuning, and only
# gradients and moments speak for them. About prompts computed as a prefix it is wrong as far as we measured:
# a prefix with $n = 10$ and VPT-deep up to $n = 100$, in labkit's implementation, on this small backbone and
# with float32. Your own `PromptedBlock` lets prompts run through the whole block: compare the last row of the
# table. "Prompts are cheap" is right about what is *stored*. A method's cost is no single number.
# </details>

# %% [markdown]
# ## 11. Trade-offs, and a use
#
# One cost remains for ever. LoRA's update can be folded into the weights after training (the next lab). Can
# prompts?

# %%
try:
    merge(deep)
except ValueError as error:
    print(error)

# %% [markdown]
# No: what a prompt adds depends on the softmax, hence on the image. Every forward pass carries it.
#
# The lecture's trade-offs (in italics), and what you have seen of each:
#
# * *Prompt tuning is for quick adaptation with minimal changes and simple integration.* No layer changes:
#   tokens in front, tokens off. It has the fewest numbers to store; its memory grows with every prompt.
# * *Prefix tuning gives nuanced control over what happens inside, and is slightly more complex.* Keys and
#   values in every block, learned apart; but there is an MLP to train and to drop.
# * *Prefix tuning comes near full fine-tuning; prompt tuning might not match it in all cases.* We measured
#   VPT-deep against a head alone (section 5), and no more. Lab 07 compares methods, with intervals.
# * *A survey found full > LoRA > adapters > prefix > prompt tuning.* That was on tasks of language. Labs 04
#   to 06 put the other methods beside them, on our patients.
#
# When would you choose prompts? When one frozen network is *served* to many tasks at once: prompts are
# inputs, so a batch may hold images of different tasks, each with its own (Lester et al., 2021). No weight
# changes from one to the next.

# %% [markdown]
# ### Use it: one network, many tasks at once
#
# A hospital serves **40 tasks** from one frozen network on one GPU. Beside the network, **20 MB** of its
# memory are left for whatever is particular to a task: its deep prompts, and its linear head.
#
# ### Exercise 7: `prompts_that_fit` (2 points, 6 minutes, easy)
#
# How many deep prompts a block may each task have, at most? `head` numbers are one task's head, $d$ is the
# width, $L$ the number of blocks; 4 bytes a number, a megabyte is $10^6$ bytes. Return a whole number.


# %% labkit={"exercise": "prompts_that_fit", "role": "answer", "points": 2}
def prompts_that_fit(megabytes, tasks, head, d, L):
    """How many deep prompts a block fit for each task, beside its head."""
    ### BEGIN SOLUTION
    numbers = int(megabytes * 1e6 / 4) // tasks
    return max(0, (numbers - head) // (L * d))
    ### END SOLUTION


# %% labkit={"exercise": "prompts_that_fit", "role": "check"}
lab.check("prompts_that_fit", prompts_that_fit)

# %%
prompts_that_fit = lab.working("prompts_that_fit", prompts_that_fit)
head_size = learning(models["probe"].decoder)
fits = {tasks: prompts_that_fit(20, tasks, head_size, 384, 4) for tasks in (10, 20, 40, 60)}
print(f"a head is {head_size:,} numbers; deep prompts a block that fit, by tasks: {fits}")

# %% [markdown]
# > **Decide**, in four sentences: how many prompts do you give each of the 40 tasks, deep or shallow? Which
# > number of this lab speaks for it, and which against it? What would you measure before you promise it?
# >
# > Your proposal: ...

# %%
explanation(
    f"At most {fits[40]} deep prompts fit for 40 tasks; for 60 it would be {fits[60]}. "
    f"{head_size / (head_size + fits[40] * 4 * 384):.0%} of a task's numbers are then its *head*: who wants "
    "more tasks saves there first, or stores 2 bytes a number. *Fits* is no reason: every prompt is paid "
    "again in each forward pass"
    + (
        f", and the table of section 5 has {linear.mean:+.1f} ({linear.low:.1f} to {linear.high:.1f}) for "
        "ten of them."
        if linear
        else "."
    ),
    (
        "So the honest first proposal is **no prompts and a head at its best rate**, with prompts as the "
        "thing to be shown better, task by task, on validation patients of this hospital, beside the head "
        "alone and the random backbone."
        if not (linear and linear.low > 0)
        else "In your table prompts are above the head alone: propose few, and show on validation patients "
        "that more are better before you pay for them."
    ),
)

# %% [markdown]
# ## 12. What changes on real data
#
# * Images of 224 pixels give 196 tokens with patches of 16, and 784 with patches of 8. The same $n$ then has
#   a smaller share: $n$ is a setting to choose for each task, on validation patients.
# * Networks with windows, such as Swin, need the prompts in every window; labkit's methods do this.
# * A volume is cut into slices, and all of them get the same prompts: none knows which slice it stands
#   before. Lab 08 is about methods that see neighbouring slices.
# * Our patients are synthetic. Nobody should choose a method for a hospital by these scores.

# %% [markdown]
# ## 13. Bonus: must prompts start different?
#
# Two predictions, then the cell. *Ten equal prompts:* is that the same as one? And when they start equal,
# what will training make of them?

# %%
equal = deep.backbone.blocks[3].attn.prompts.detach()[:1].repeat(10, 1).requires_grad_()
print("ten equal prompts instead of one: ", change(prompted(block, x, equal), prompted(block, x, equal[:1])))
prompted(block, x, equal).square().mean().backward()
spread = (equal.grad - equal.grad.mean(0)).norm() / equal.grad.norm()
print(f"their gradients differ from each other by {spread:.1e} of their size")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# Ten equal keys are one key with $\ln 10$ added to its logit: the same word, with ten votes. And equal prompts
# get equal gradients, so they take equal steps, and stay one prompt for ever. A random start is what makes
# them ten.
# </details>
#
# Further, without answers: take single prompts away (rows of `.prompts`) and find the one that the kidney
# depends on. Or train 50 prompts, or one: what would you have to hold constant for a fair comparison?

# %% [markdown]
# ## 14. Test yourself
#
# <details><summary>1. Why is the position of a prompt irrelevant in VPT-deep?</summary>
#
# Attention sums over keys, and a sum has no order. Prompts get no position embedding.
# </details>
#
# <details><summary>2. What of VPT-deep is thrown away, and when? And of prefix tuning?</summary>
#
# VPT-deep: what each block computes for its prompts, in every forward pass. Prefix tuning: the MLP, once,
# after training; the keys and values it made are kept.
# </details>
#
# <details><summary>3. A colleague starts with all prompts at zero, so that the network starts as
# the pretrained one. What do you answer?</summary>
#
# It does not: the norm turns zero into its bias, which has a key and takes its share. And equal prompts stay
# equal.
# </details>
#
# <details><summary>4. Ten deep prompts are 0.3 % of the backbone's numbers. Why do they not save
# 99.7 % of the memory?</summary>
#
# The gradient of the first block's prompts travels through the whole network, and each nonlinear layer on
# its way has to keep its input.
# </details>
#
# <details><summary>5. Why can prompts not be merged into the weights?</summary>
#
# Their share of the attention depends on the query, through the softmax. No fixed matrix does the same.
# </details>

# %%
lab.progress()
