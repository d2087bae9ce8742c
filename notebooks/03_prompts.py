# %% [markdown]
# # Lab 03: Prompts
#
# A frozen network can be steered without touching one of its weights: by giving it something more to look
# at. In this lab you will
#
# 1. **write** the attention that sees more than its own tokens, and **show** that a prompt works as a gate;
# 2. **put** prompts in front of a block, and **predict** what their place and their length change;
# 3. **prove** that VPT-deep is a prefix: keys and values that a prompt becomes;
# 4. **distinguish** prompt tuning, VPT-shallow, VPT-deep and prefix tuning by what is trained, what is kept
#    and what is thrown away, and **count** each;
# 5. **train** prompts for a segmenter, **see** who attends to them, and **measure** what they cost.
#
# | | |
# | --- | --- |
# | Time | about 45 minutes, of which two trainings take less than one; 13 points |
# | Computer | any laptop, no GPU; less than 2 GB |
# | You know | Lab 01: freezing, `tune`, Dice; what a softmax does |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# The last line sets the seeds and looks whether your computer has what the lab needs.

# %%
import copy

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from labkit.explore import plots
from labkit.explore.pictures import BLUE, ORANGE, VERMILLION, unit
from labkit.explore.prompts import PromptExplorer
from labkit.lessons import start
from labkit.methods import Full, Head, LoRA, PrefixTuning, PromptTuning, VPTDeep, VPTShallow
from labkit.methods.attention import attention_to_prompts
from labkit.methods.prefix import keep
from labkit.networks.anatomy import features
from labkit.networks.segmenter import segmenter
from labkit.phantoms.brain import brain_patient, split
from labkit.scans.slices import classes_of, to_volume
from labkit.training.cost import MIB, saved_for_backward
from labkit.training.evaluate import evaluate
from labkit.training.fit import Recipe, fit
from labkit.tuning import count, merge, tune

lab = start("03")

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
# Here is the patient of this lab, one whom no training will see. We pick the token in the middle of the
# tumour.

# %%
test = [to_volume(brain_patient(seed)) for seed in tqdm(split("test")[:4], desc="patients", leave=False)]
patient = next(volume for volume in test if (volume.case.label == 4).any())  # one whose tumour enhances
label = patient.case.label
level = int((label == 4).sum((1, 2)).argmax())  # the slice with the most enhancing tumour
image = patient.image[level]  # (4, 96, 96)
row, column = (np.argwhere(label[level] > 0).mean(0) // 8).astype(int)
chosen = 12 * row + column

frozen = segmenter("tiny", in_chans=4, classes=4, decoder="linear").requires_grad_(False)
block = frozen.backbone.blocks[3]  # the last one
x = features(frozen.backbone, image[None])[2].flatten(2).mT  # what it gets: (1, 144, 384)


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
figure = Figure(figsize=(10, 2.9), layout="constrained")
panels = figure.subplots(1, 4)


def show_flair(panel, title):
    """The slice of this lab with the tumour's outline."""
    panel.imshow(image[3], cmap="gray")
    panel.contour(label[level] > 0, levels=[0.5], colors="#E69F00")
    panel.set_title(title, fontsize=10)


show_flair(panels[0], "FLAIR, the tumour's outline,\nthe chosen token")
panels[0].plot(8 * column + 4, 8 * row + 4, "o", color="#56B4E9", markeredgecolor="black")
for head, panel in enumerate(panels[1:]):
    picture = panel.imshow(weights[head, chosen].view(12, 12), cmap="viridis", vmin=0, vmax=0.1)
    panel.plot(column, row, "o", color="#56B4E9", markeredgecolor="black")
    panel.set_title(f"its attention,\nhead {head}", fontsize=10)
for panel in panels:
    panel.set(xticks=[], yticks=[])
figure.colorbar(picture, ax=panels, label="weight (all sum to 1)", shrink=0.8, extend="max")
plots.show(
    figure,
    "A FLAIR slice with a tumour outlined and a token chosen in it, and the attention of this token to the "
    "144 patches in three heads of the last block: each head spreads it in another way.",
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
# tokens that look like swelling and leave the others alone.
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
# patches: *Visual Prompt Tuning*, **VPT** (Jia et al., 2022, arXiv:2203.12119). Of one block $L_i$ with
# patch tokens $E_{i-1}$ its deep variant asks
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
# ## 4. A prompt is a prefix
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
# ### Exercise 3: `as_prefix` (4 points, 8 minutes, medium)
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
# spares itself their queries and their MLP: read `labkit.methods.vpt.TokenPrefix`. Section 9 shows what that
# saves.
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
# ## 5. The family
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
# ### Exercise 4: `prompt_counts` (2 points, 5 minutes, easy)
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
# > **Predict.** Ten prompts, our backbone (d = 384, L = 4; 5.5 million numbers), an MLP with 512 hidden
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
labkits["kept"] = count(keep(prefix)).inserted  # the MLP goes, its output stays
torch.testing.assert_close(prefix(image[None]), before)  # and nothing else changes
assert mine == labkits, (mine, labkits)

size = sum(p.numel() for p in frozen.backbone.parameters())
names = ("VPT-shallow", "VPT-deep", "prefix, trained", "prefix, kept")
figure = Figure(figsize=(7, 2.4), layout="constrained")
axis = figure.subplots()
bars = axis.barh(names, mine.values(), color=unit(BLUE))
bars[2].set(facecolor=unit(ORANGE), hatch="//")
axis.bar_label(bars, [f"{c:,} ({c / size:.2%})" for c in mine.values()], padding=4)
axis.set(xscale="log", xlabel="numbers, and their share of the backbone", xlim=(1e3, 1e8))
axis.invert_yaxis()
axis.spines[["top", "right"]].set_visible(False)
plots.show(
    figure,
    "Numbers of four variants with ten prompts, on a logarithmic axis: VPT-shallow has fewest, VPT-deep four "
    "times as many, a kept prefix twice as many again; what prefix tuning trains is a third of the backbone.",
)

# %% [markdown]
# So "parameter-efficient" has two meanings. What has to be *stored* for each task is tiny in all of them.
# What has to be *trained*, with its gradients and Adam's two moments, is not tiny in prefix tuning, because
# of the MLP.
#
# The formula in the lecture's table, $n d_m + d_m^2 + 2 L d_h d_m$, counts an MLP whose table $P'$ is as
# wide as its hidden layer, and no biases.

# %% [markdown]
# ## 6. The start
#
# Many methods of this course start as the pretrained network exactly: LoRA, for one, adds a product of which
# one factor is zero. Training then departs from what the network knew. And prompts?
#
# > **Predict.** Take fresh prompts, before any training. How far are the features of the last block from
# > those of the pretrained network: 0 %, 1 %, 10 %, more? Rank the six.
# >
# > Your prediction: ...

# %%
methods = {
    "LoRA, r = 8": LoRA(r=8),
    "prefix tuning, n = 10": PrefixTuning(n=10),
    "VPT-deep, n = 1": VPTDeep(n=1),
    "VPT-shallow, n = 10": VPTShallow(n=10),
    "VPT-deep, n = 10": VPTDeep(n=10),
    "prompt tuning, n = 10": PromptTuning(n=10),
}
with torch.no_grad():
    known = features(frozen.backbone, image[None])[3]
    moved = {}
    for name, method in methods.items():
        fresh = tune(copy.deepcopy(frozen), method).eval()
        moved[name] = float((features(fresh.backbone, image[None])[3] - known).norm() / known.norm())

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
# ## 7. Train ten deep prompts
#
# Six patients to learn from. Beside VPT-deep we train the **control**: the same head, the same steps, no
# prompts (a *linear probe*). Without it we could not say what the prompts did. The head learns at the same
# rate in both; the rate of the prompts, 3e-3, is the one that did best on validation patients. About a
# quarter of a minute for the probe and half a minute for the prompts, on two idle cores.

# %%
train = [to_volume(brain_patient(seed)) for seed in tqdm(split("train")[:6], desc="patients", leave=False)]
models = {
    "probe": tune(copy.deepcopy(frozen), Head()),
    "VPT-deep": tune(copy.deepcopy(frozen), VPTDeep(n=10)),
}
for name, model in models.items():
    print(f"{name} learns {count(model).tuned:,} numbers, {count(model).inserted:,} of them in prompts")
histories = {"probe": fit(models["probe"], train, Recipe(steps=120, batch_size=8))}

# %%
histories["VPT-deep"] = fit(models["VPT-deep"], train, Recipe(steps=120, lr=3e-3, batch_size=8))
plots.show(plots.curves(histories), "Training loss against step, for the linear probe and for VPT-deep.")

# %% [markdown]
# > **Predict.** To a head of some 100,000 numbers the prompts added 15 % more. Where will they help: in the
# > whole tumour (WT), which is bright on FLAIR, or in its core (TC), where a token has to be compared with
# > others?
# >
# > Your prediction: ...

# %%
rows = {name: evaluate(model, test, hausdorff=False, progress=True) for name, model in models.items()}
REGIONS = ("ET", "WT", "TC")
dice = {(name, row["case"], row["region"]): row["dice"] for name in rows for row in rows[name]}
print(f"{'Dice':22}" + "".join(f"{name:>24}" for name in rows))
print(f"{'':22}" + len(rows) * "".join(f"{region:>8}" for region in REGIONS))
for case in dict.fromkeys(row["case"] for row in rows["probe"]):
    print(f"{case:22}" + "".join(f"{dice[name, case, region]:8.2f}" for name in rows for region in REGIONS))

# %%
values = np.array(classes_of(patient.case))  # the label of each class
with torch.no_grad():
    found = {name: values[model(image[None])[0].argmax(0)] for name, model in models.items()}
plots.show(
    plots.multiples(patient.case, level, found),
    "The slice of this lab: the true labels, and what the linear probe and VPT-deep found.",
)

# %% [markdown]
# > **Explain.** Compare row by row in the table, not only one picture with another. Which patients gain,
# > which do not?
#
# Few patients and one seed: differences of some points are noise, and a patient without enhancing tumour has
# an ET of 0 or 1 and nothing between. A comparison with many patients, several seeds and an interval is the
# subject of lab 07.

# %% [markdown]
# ## 8. Who looks at the prompts?
#
# `attention_to_prompts(block, x)` gives the share of its attention that each token pays to each prompt: (B,
# heads, N, n). First in numbers, at the start and after the training, beside the share of *equal* keys.

# %%
uniform = 10 / (144 + 10)
print(f"share of attention that goes to the ten prompts; with equal keys it would be {uniform:.1%}")
shares = {}
for when, model in (("start", deep), ("trained", models["VPT-deep"])):
    maps = features(model.backbone, image[None])
    for number in (1, 2, 3):  # each gets what the block before it made
        arriving = maps[number - 1].flatten(2).mT
        share = attention_to_prompts(model.backbone.blocks[number], arriving)[0].sum(-1)  # (6, 144)
        shares[when, number] = share
        by_head = " ".join(f"{100 * mean:4.0f} %" for mean in share.mean(1).tolist())
        print(f"{when:8} block {number}: mean {share.mean():4.0%}; head by head {by_head}")

# %%
figure = Figure(figsize=(11, 1.9), layout="constrained")
panels = figure.subplots(1, 7)
show_flair(panels[0], "FLAIR, outline")
for head, panel in enumerate(panels[1:]):
    picture = panel.imshow(shares["trained", 3][head].view(12, 12), cmap="viridis", vmin=0, vmax=1)
    panel.contour(*2 * [np.arange(96) / 8 - 0.5 + 1 / 16], label[level] > 0, levels=[0.5], colors="#E69F00")
    panel.set_title(f"head {head}", fontsize=10)
for panel in panels:
    panel.set(xticks=[], yticks=[])
figure.colorbar(picture, ax=panels, label="share to prompts", shrink=0.8)
plots.show(
    figure,
    "The share of attention that each token pays to the ten trained prompts of the last block, one map for "
    "each of six heads, beside FLAIR with the tumour's outline: it differs from head to head and from place "
    "to place.",
)

# %% [markdown]
# > **Explain.** Does any head treat the tumour's tokens in another way than the rest? What would a head that
# > is all dark mean, and one that is all bright?
#
# <details><summary>Our explanation</summary>
#
# A dark head ignores the prompts: it works as in pre-training. A bright one listens to hardly anything else,
# and says nearly the same whatever the image. Between lies the gate of section 2: a head that gives the
# prompts more at some tokens than at others says to these tokens something else.
#
# A map like these shows where the gate is open, not what passes through it. Attention is no proof of cause.
# To know what a prompt does, take it away and look.
# </details>
#
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
# ## 9. What prompts cost
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
slices = patient.image[torch.linspace(0, len(label) - 1, 16).long()]
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
# gradients and moments speak for them. It is wrong about a prefix, and about few prompts. "Prompts are
# cheap" is right about what is *stored*. A method's cost is no single number.
# </details>

# %% [markdown]
# ## 10. Trade-offs
#
# One cost remains for ever. LoRA's update can be folded into the weights after training (the next lab). Can
# prompts?

# %%
try:
    merge(models["VPT-deep"])
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
#   VPT-deep against a probe, no more. Lab 07 compares methods, with intervals.
# * *A survey found full > LoRA > adapters > prefix > prompt tuning.* That was on tasks of language. Labs 04
#   to 06 put the other methods beside on our patients.
#
# When would you choose prompts? When one frozen network is *served* to many tasks at once: prompts are
# inputs, so a batch may hold images of different tasks, each with its own (Lester et al., 2021). No weight
# changes from one to the next.

# %% [markdown]
# ## 11. What changes on real data
#
# * Images of 224 pixels give 196 tokens with patches of 16, and 784 with patches of 8. The same $n$ then has
#   a smaller share: $n$ is a setting to choose for each task, on validation patients.
# * Networks with windows, as Swin, need the prompts in every window; labkit's methods do this.
# * A volume is cut into slices, and all of them get the same prompts: none knows which slice it stands
#   before. Lab 08 is about methods that see neighbouring slices.
# * Our patients are synthetic. Nobody should choose a method for a hospital by these scores.

# %% [markdown]
# ## 12. Bonus: must prompts start different?
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
# Ten equal keys are one key with $\ln 10$ added to its logit: the same word, said louder. And equal prompts
# get equal gradients, so they take equal steps, and stay one prompt for ever. A random start is what makes
# them ten.
# </details>
#
# Further, without answers: take single prompts of your trained network away
# (`model.backbone.blocks[i].attn.prompts`) and find the one that the tumour depends on. Or train 50 prompts,
# or one: what would you have to hold constant for a fair comparison?

# %% [markdown]
# ## 13. Test yourself
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
