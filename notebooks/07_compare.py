# %% [markdown]
# # Lab 07: Comparing
#
# Six labs, more than twenty methods. Which one should you use? Papers answer with a table and a bold number.
# In this lab you will
#
# 1. **compute** a difference between two methods with its interval, patient by patient;
# 2. **choose** among methods when there are several aims, without adding apples to pears;
# 3. **derive** what a network must remember for its backward pass, and **measure** what each method costs;
# 4. **test** the lecture's ranking of methods, and its formulas, on networks at hand;
# 5. **exchange** a LoRA with Hugging Face's peft, and **state** a comparison in a fair sentence.
#
# | | |
# | --- | --- |
# | Time | about 45 minutes, 14 points |
# | Computer | any laptop, no GPU; nothing is trained; less than 2 GB |
# | You know | Labs 01 and 03 to 06: freezing, prompts, LoRA, rank, adapters |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# The last line sets the seeds and looks whether your computer has what the lab needs.

# %%
import copy
import importlib.util
import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import nn
from tqdm.auto import tqdm

from labkit import lessons
from labkit.efficient.vtab import GROUPS, RESULTS
from labkit.explore import deltas, plots
from labkit.explore.budget import ParameterBudget
from labkit.explore.comparison import MethodComparison, kinds, learned, trained
from labkit.explore.pictures import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILLION, unit
from labkit.methods import METHODS, LoRA
from labkit.networks.anatomy import blocks
from labkit.phantoms.brain import brain_patient, split
from labkit.scans.slices import to_volume
from labkit.studies import parameter_tables
from labkit.training import cost
from labkit.training.evaluate import evaluate
from labkit.tuning import count, tune
from labkit.updates.peft_format import load_peft, save_peft

lab = lessons.start("07")

# %% [markdown]
# ## 1. A table that lies
#
# The kit carries networks that were trained in six ways on the same 20 patients, in batches of equal size,
# for an equal number of steps (240), each with the learning rate that did best on validation patients. All
# have the linear head of labs 03 to 06. The command that made each stands in the second column.
#
# | here called | made by `labkit deltas ...` | what learned |
# | --- | --- | --- |
# | full | `rank-full` | everything; the kit keeps of each matrix's change the 32 largest directions |
# | LoRA | `rank-lora` | rank 16 on all six matrices of each block |
# | adapter | `adapter-attn-mlp-48` | a bottleneck of 48 after attention and MLP |
# | deep prompts | `prompts-deep-10` | ten prompts in each block |
# | shallow prompts | `prompts-shallow-10` | ten prompts in front of the first block |
# | head | `probe` | the head alone |
#
# Of the first eight test patients we keep those that have an enhancing tumour: where there is none, Dice of
# that region is 0 or 1, and a single voxel decides which. Now we do what many do: take half of them,
# average, and mark the best. Then we take the other half.
#
# > **Predict.** Will the same method be marked? Will the order of all six be the same?
# >
# > Your prediction: ...

# %%
made_by = {
    "full": "rank-full",
    "LoRA": "rank-lora",
    "adapter": "adapter-attn-mlp-48",
    "deep prompts": "prompts-deep-10",
    "shallow prompts": "prompts-shallow-10",
    "head": "probe",
}
looked_at = [brain_patient(seed) for seed in tqdm(split("test")[:8], desc="test patients", leave=False)]
patients = [case for case in looked_at if (case.label == 4).any()]  # with enhancing tumour
test = [to_volume(case) for case in patients]


def dice_of_patients(model):
    """Mean Dice of the regions that a patient has, one number for each test patient: (patients,)."""
    rows = evaluate(model, test, hausdorff=False, progress=True)
    names = dict.fromkeys(row["case"] for row in rows)
    return np.array([np.nanmean([row["dice"] for row in rows if row["case"] == name]) for name in names])


dice = {name: dice_of_patients(trained(of)) for name, of in tqdm(made_by.items(), leave=False)}
half = len(dice["head"]) // 2
halves = {name: (values[:half].mean(), values[half:].mean()) for name, values in dice.items()}
best = [max(halves, key=lambda name: halves[name][i]) for i in (0, 1)]
print(f"{'mean Dice':16} {'some patients':>14} {'others':>10}")
for name, means in halves.items():
    marks = ["*" if name == best[i] else " " for i in (0, 1)]
    print(f"{name:16} {means[0]:13.3f}{marks[0]} {means[1]:9.3f}{marks[1]}")
orders = [sorted(halves, key=lambda name: -halves[name][i]) for i in (0, 1)]
print("the same order in both" if orders[0] == orders[1] else "not the same order")

# %% [markdown]
# Compare how far a method moves from one column to the other with how far the rows of a column lie apart. The
# next figure says why: it has a line for each patient.

# %%
marks = "osD^vP*X"
figure = Figure(figsize=(7.5, 3.6), layout="constrained")
axis = figure.subplots()
for i in range(len(dice["head"])):
    line = [values[i] for values in dice.values()]
    axis.plot(list(dice), line, "-" + marks[i], color=unit(BLUE), alpha=0.55, linewidth=1, markersize=5)
axis.plot(list(dice), [v.mean() for v in dice.values()], "k_", markersize=28, label="mean")
axis.set(ylabel="Dice, mean of three regions", title="A line and a mark for each patient")
axis.legend(frameon=False)
axis.grid(alpha=0.3, axis="y")
among_patients = np.ptp(np.mean(list(dice.values()), 0))
among_methods = np.ptp([values.mean() for values in dice.values()])
print(f"best minus worst patient, mean of all methods: {among_patients:.3f}")
print(f"best minus worst method, mean of all patients: {among_methods:.3f}")
plots.show(
    figure,
    f"Dice of every test patient under six methods, a line for each patient. Patients lie up to "
    f"{among_patients:.2f} apart on average, methods up to {among_methods:.2f}.",
)

# %% [markdown]
# > **Explain.** A patient with a small or faint tumour: where does its line run? What would an error bar
# > tell that is drawn from the spread of all marks of one method?
#
# <details><summary>Our explanation</summary>
#
# Low, under nearly every method: what is hard is hard for all. An error bar over all marks of a method tells
# how different patients are. It says nothing about whether this method is better than the next one *on the
# same patient*, and that is the question.
# </details>

# %% [markdown]
# ## 2. The same patients, twice
#
# So compare within each patient. Let $a_i$ and $b_i$ be the Dice of two methods on patient $i$ of $n$:
#
# $$ d_i = a_i - b_i, \qquad \bar d = \frac1n \sum_i d_i, \qquad
#    \mathrm{sd}(d) = \sqrt{\frac{1}{n-1} \sum_i (d_i - \bar d)^2} $$
#
# If we drew other patients again and again, $\bar d$ would scatter around the true difference with about
# $\mathrm{sd}(d) / \sqrt n$. The interval
#
# $$ \bar d \pm 1.96\, \frac{\mathrm{sd}(d)}{\sqrt n} $$
#
# catches the true difference about 95 times in 100, if $n$ is not too small.
#
# > **Predict**, by hand. Four patients: method A .80, .60, .90, .70; method B .78, .56, .88, .62. A is ahead
# > on each. Is 0 inside the interval? And inside the one that you would get if the methods had been tested
# > on different patients, with the variances of both added?
# >
# > Your prediction: ...
#
# ### Exercise 1: `paired` (3 points, easy, 7 minutes)
#
# `a` and `b` are NumPy arrays of one number for each patient. Return $\bar d$ and the half width as two
# plain numbers.


# %% labkit={"exercise": "paired", "role": "answer", "points": 3}
def paired(a, b):
    """Mean of a - b, and half the width of its 95 % interval: two floats."""
    ### BEGIN SOLUTION
    d = a - b
    return float(d.mean()), float(1.96 * d.std(ddof=1) / math.sqrt(len(d)))
    ### END SOLUTION


# %% labkit={"exercise": "paired", "role": "check"}
lab.check("paired", paired)

# %% [markdown]
# Stuck? `lab.hint("paired")` gives a nudge; again, and it says more. The next line takes your function if it
# passed, and labkit's own if it did not.

# %%
paired = lab.working("paired", paired)


def unpaired(a, b):
    """The same if the methods had been tested on different patients."""
    return a.mean() - b.mean(), 1.96 * math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))


A, B = np.array([0.80, 0.60, 0.90, 0.70]), np.array([0.78, 0.56, 0.88, 0.62])
for name, interval in {"paired": paired, "unpaired": unpaired}.items():
    mean, half_width = interval(A, B)
    print(
        f"{name:9} {mean:+.3f} ± {half_width:.3f}: from {mean - half_width:+.3f} to {mean + half_width:+.3f}"
    )

# %% [markdown]
# The difference is the same, and only one of the intervals excludes 0. Now the five methods against the head
# alone.

# %%
rivals = [name for name in dice if name != "head"]
figure = Figure(figsize=(7, 3.2), layout="constrained")
axis = figure.subplots()
print(f"{'minus head':16} {'paired':>16} {'unpaired':>18}")
for i, name in enumerate(rivals):
    (mean, narrow), (_, wide) = (how(dice[name], dice["head"]) for how in (paired, unpaired))
    print(f"{name:16} {mean:+9.3f} ± {narrow:.3f} {mean:+11.3f} ± {wide:.3f}")
    look = [("paired", narrow, BLUE, "-", 0.12), ("as if unpaired", wide, ORANGE, ":", -0.12)]
    for label, width, colour, line, shift in look:
        ends = [mean - width, mean + width]
        text = label if i == 0 else None
        axis.plot(ends, [i + shift] * 2, line, color=unit(colour), linewidth=3, label=text)
        axis.plot(mean, i + shift, "o", color=unit(colour))
axis.axvline(0, color="black", linewidth=0.8)
axis.set_yticks(range(len(rivals)), rivals)
axis.invert_yaxis()
axis.set(xlabel="Dice, minus that of the head alone (95 % interval)")
figure.legend(frameon=False, loc="outside lower center", ncols=2)
plots.show(
    figure,
    "Differences of five methods to the head alone with two intervals each: the paired one, and the one "
    "that pretends that each method was tested on patients of its own.",
)

# %% [markdown]
# > **Explain.** When would pairing not help?
#
# <details><summary>Our explanation</summary>
#
# The variance of a difference is $\mathrm{var}(a) + \mathrm{var}(b) - 2\,\mathrm{cov}(a, b)$. The paired
# interval takes the last term into account. If hard patients are hard for both, it is large, and the
# interval shrinks. If the two methods failed on different patients, nothing would be gained.
# </details>
#
# Three things this interval does *not* know.
#
# * **Few patients.** 1.96 is for many. Student's quantile is larger: 3.18 for 4 patients, 2.36 for 8, 2.09
#   for 20. Use it in a paper; here all intervals are too narrow by that factor.
# * **One training.** Each network was trained once. Another seed gives another network. The interval says
#   how the *network* would do on other patients, not how the *method* would do if trained again.
# * **Many looks.** Five comparisons at 95 % each: that one of them shows a difference where none is happens
#   up to five times as often as for a single one.

# %% [markdown]
# ## 3. More than one aim
#
# Dice is one aim. A small file is another. Then there may be no best method, and a division such as Dice
# per parameter only hides the choice. What can be said without an opinion is this: method $q$ **beats** $p$
# if it costs no more, scores no less, and is strictly better in one of the two. Who is beaten by nobody
# lies on the **Pareto front**. The rest you need never choose, as long as these two aims are all that you
# have.
#
# > **Predict.** Five methods with (cost, score): (1, .5), (2, .4), (3, .9), (3, .7), (5, .9). Which of them
# > lie on the front?
# >
# > Your prediction: ...
#
# ### Exercise 2: `pareto` (2 points, medium, 5 minutes)
#
# `points` is a list of pairs. Return the list of the indices of all that nobody beats. Two equal points do
# not beat each other.


# %% labkit={"exercise": "pareto", "role": "answer", "points": 2}
def pareto(points):
    """Indices of the points (cost, score) that no other point beats: a list of ints."""
    ### BEGIN SOLUTION
    front = []
    for i, p in enumerate(points):
        if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points):
            front.append(i)
    return front
    ### END SOLUTION


# %% labkit={"exercise": "pareto", "role": "check"}
lab.check("pareto", pareto)

# %%
pareto = lab.working("pareto", pareto)
sizes = {name: learned(of) for name, of in made_by.items()}
points = [(sizes[name], float(dice[name].mean())) for name in dice]
front = pareto(points)
colours = dict(zip(dice, (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY_BLUE), strict=True))
shapes = dict(zip(dice, "sodP^X", strict=True))

figure = Figure(figsize=(7, 3.8), layout="constrained")
axis = figure.subplots()
for i, (name, (size, score)) in enumerate(zip(dice, points, strict=True)):
    label = f"{name}{', on the front' if i in front else ''}"
    axis.scatter(size, score, s=70, color=unit(colours[name]), marker=shapes[name], label=label, zorder=3)
steps = sorted(points[i] for i in front)
axis.step(*zip(*steps, strict=True), where="post", color="black", linewidth=1, linestyle="--")
axis.set(
    xscale="log", xlabel="parameters that learned, head included", ylabel="mean Dice of the test patients"
)
axis.grid(alpha=0.3)
axis.legend(frameon=False, fontsize=9)
on_front = ", ".join(list(dice)[i] for i in front)
print(f"{'':16} {'learned':>10} {'Dice':>6}")
for name, (size, score) in zip(dice, points, strict=True):
    print(f"{name:16} {size:10,} {score:6.3f}")
plots.show(figure, f"Mean Dice against the number of tuned parameters. On the front: {on_front}.")

# %% [markdown]
# > **Explain.** Is a method below the front useless? And is the front itself a fact?
#
# <details><summary>Our explanation</summary>
#
# It is useless on these two axes. On a third one, memory or time or how easily it is merged, it may be ahead.
# And a point has an interval: with other patients or another seed a method may pass its neighbour, and the
# front would run through other names. Draw the front, and then the intervals of section 2 for those who are
# close to it.
# </details>

# %% [markdown]
# ## 4. Where memory goes
#
# The number of parameters decides how large a file is, how many gradients there are, and how large Adam's two
# moments are. What fills the memory of a GPU is often something else: what the forward pass **keeps for the
# backward pass**. Ask of each layer which of its inputs its derivatives need.
#
# | layer | backwards it computes | it needs |
# | --- | --- | --- |
# | linear, $z = W x$ | $dx = W^\top dz$ | $W$, which is there anyway |
# | linear whose $W$ learns | also $dW = dz\, x^\top$ | its input $x$ |
# | GELU, $y = g(z)$ | $dz = g'(z)\, dy$ | its input $z$ |
#
# And one more thing: the gradient comes from above and goes down only as far as something **learns**. Below
# the lowest thing that learns, nothing is computed backwards and nothing is kept.
#
# > **Predict**, on paper. 100 tokens pass linear (10 to 20), GELU, linear (20 to 30). How many numbers are
# > kept if both layers learn? The second alone? The first alone? If both are frozen and the tokens in front
# > are prompts that learn?
# >
# > Your prediction: ...
#
# ### Exercise 3: `kept` (4 points, hard, 10 minutes)
#
# For a chain linear, GELU, linear, GELU, ..., linear. `widths` has the width in front of the first layer and
# then the one behind each; `learns` says for each linear layer whether its weight learns; `input_learns`
# whether what comes in does. The chain ends with a linear layer, without a GELU behind it.


# %% labkit={"exercise": "kept", "role": "answer", "points": 4}
def kept(n, widths, learns, input_learns):
    """How many numbers a chain of linear layers with GELUs between keeps for n tokens: an int."""
    ### BEGIN SOLUTION
    total, flows = 0, input_learns  # flows: does anything in front of this place learn?
    for i, layer_learns in enumerate(learns):
        if layer_learns:
            total += n * widths[i]
            flows = True
        if flows and i < len(learns) - 1:
            total += n * widths[i + 1]
    return total
    ### END SOLUTION


# %% labkit={"exercise": "kept", "role": "check"}
lab.check("kept", kept)

# %% [markdown]
# Now PyTorch's own bookkeeping. `torch.autograd.graph.saved_tensors_hooks` shows every tensor that is kept;
# `labkit.training.cost.saved_for_backward` adds them up, parameters left out. Yours against it:

# %%
kept = lab.working("kept", kept)


def chain(widths, learns):
    """Linear layers with GELUs between them, some of them frozen."""
    layers = []
    for (before, behind), layer_learns in zip(itertools.pairwise(widths), learns, strict=True):
        layers += [nn.Linear(before, behind).requires_grad_(layer_learns), nn.GELU()]
    return nn.Sequential(*layers[:-1])


cases = [((10, 20, 30), learns, prompts) for learns in itertools.product((True, False), repeat=2)
         for prompts in (False, True)]  # fmt: skip
cases.append(((7, 11, 13, 17, 19), (False, True, False, False), False))
print(f"{'widths':22} {'learns':34} {'in front':9} {'yours':>7} {'PyTorch':>8}")
for widths, learns, prompts in cases:
    x = torch.randn(100, widths[0], requires_grad=prompts)
    found = cost.saved_for_backward(chain(widths, learns), x) // 4  # bytes of a float32
    mine = kept(100, widths, learns, prompts)
    torch.testing.assert_close(mine, found)
    print(f"{str(widths):22} {str(learns):34} {'learns' if prompts else '-':9} {mine:7,} {found:8,}")

# %% [markdown]
# > **Explain.** Compare the rows in which the first layer learns with the one in which nothing but the
# > prompts learns. What does freezing save, and what can it not save?
#
# <details><summary>Our explanation</summary>
#
# Freezing a weight saves the input that its gradient would have needed. It does not save what GELU keeps, nor
# what norms and attention keep in a transformer, as long as a gradient has to pass on its way down. That is
# why a method that inserts a little into the *first* block pays for the whole way.
# </details>

# %% [markdown]
# ## 5. What each method costs
#
# Now the real network: every method of labkit, as it is by default, on the laptop's backbone with a linear
# head, for one step on a run of two slices. Nothing is trained to be good here: a step is taken to see
# what it costs.
#
# > **Predict.** LoRA on all six matrices of a block lets a few per cent of the parameters learn. What per
# > cent of full tuning's activations will it keep? And BitFit, which only trains biases: a bias needs
# > nothing to be kept. What per cent?
# >
# > Your prediction: ...

# %%
# (1, 2, 4, 96, 96): two slices with four contrasts; a copy, since a view would keep the whole patient
run = test[0].image[38:40][None].clone()
empty = deltas.start()
settings = {name: method() for name, method in METHODS.items()}
settings["lora, six"] = LoRA(targets=("q", "k", "v", "o", "fc1", "fc2"))
costs = {}
for name, method in tqdm(settings.items(), desc="methods", leave=False):
    costs[name] = cost.measure(tune(copy.deepcopy(empty), method), run, repeats=3)

full = costs["full"]
print("two slices            learn     of all   kept for backward   gradients + Adam   a step")
for name, one in sorted(costs.items(), key=lambda item: -item[1].saved_mib):
    states = one.gradients_mib + one.optimizer_mib
    share, keeps = one.tuned / full.tuned, one.saved_mib / full.saved_mib
    print(f"{name:17} {one.tuned:9,} {share:9.1%} {one.saved_mib:9.1f} MiB {keeps:4.0%} "
          f"{states:13.1f} MiB {1000 * one.step_seconds:9.0f} ms")  # fmt: skip

# %%
order = sorted(costs, key=lambda name: costs[name].saved_mib)
figure = Figure(figsize=(8, 6), layout="constrained")
axis = figure.subplots()
for text, value, colour, mark in (
    ("parameters that learn", lambda one: one.tuned / full.tuned, ORANGE, "D"),
    ("activations kept", lambda one: one.saved_mib / full.saved_mib, BLUE, "o"),
):
    values = [100 * value(costs[name]) for name in order]
    axis.plot(values, range(len(order)), mark, color=unit(colour), label=text)
axis.set_yticks(range(len(order)), order)
axis.set(xlabel="per cent of full tuning", xlim=(-2, 105))
axis.grid(alpha=0.3)
axis.legend(frameon=False, loc="lower right")
lora6, bitfit = (costs[name] for name in ("lora, six", "bitfit"))
plots.show(
    figure,
    f"Parameters that learn and activations kept, in per cent of full tuning, for {len(order)} methods. "
    f"LoRA on six matrices: {lora6.tuned / full.tuned:.0%} of the parameters, "
    f"{lora6.saved_mib / full.saved_mib:.0%} of the activations; BitFit: {bitfit.tuned / full.tuned:.1%} and "
    f"{bitfit.saved_mib / full.saved_mib:.0%}.",
)

# %% [markdown]
# > **Explain.** The lecture leaves prompt and prefix tuning out of its memory plot, "because they use the
# > same amount of memory as full fine-tuning". Find `vpt_deep` and `vpt_shallow` in the table. What could
# > make the sentence true?
#
# <details><summary>Our explanation</summary>
#
# With ten prompts it is false here: they keep less than full tuning, and little more or less than LoRA or
# an adapter, because frozen matrices need not keep their inputs. Each prompt makes every sequence a token
# longer, so with enough prompts the sentence comes true. *How many* belongs to such a sentence.
#
# LoRA's matrices keep the input of the layer they stand beside, just as a learning weight would. On all six
# matrices that is nearly everything. It saves gradients and Adam's moments. BitFit's biases need nothing, but
# the gradient has to pass GELU, norms and attention on the way down.
#
# Really cheap is what lets the gradient end early: the head alone. AdapterDrop goes a part of that way.
# </details>
#
# The last column is time, and it follows neither of the others. A frozen weight saves the product that would
# give its gradient; the forward pass and the way down remain. New small layers add time that no count of
# parameters shows. And it is your machine's: run the cell twice, and see how much the column moves.

# %% [markdown]
# ## 6. The survey's ranking
#
# The lecture reports from a survey of methods for language (Ding et al., 2022, arXiv:2203.06904), over many
# tasks: full tuning > LoRA > adapters > prefix tuning > prompt tuning, in performance. Prefixes are closest
# to our deep prompts, which are prefixes tied to the network's own keys and values (lab 03). Prompt tuning
# is what shallow prompts do.
#
# > **Predict.** Will this order hold for our six networks? If all five were equally good, how likely would
# > they come in exactly this order by luck?
# >
# > Your prediction: ...

# %%
ranking = ["full", "LoRA", "adapter", "deep prompts", "shallow prompts"]
print(f"{'the survey says':34} {'here':>16}")
verdicts = []
for better, worse in itertools.pairwise(ranking):
    mean, width = paired(dice[better], dice[worse])
    verdicts.append("undecided" if abs(mean) <= width else "as the survey" if mean > 0 else "the other way")
    print(f"{better + ' > ' + worse:34} {mean:+8.3f} ± {width:.3f}   {verdicts[-1]}")
ours = sorted(ranking, key=lambda name: -dice[name].mean())
print("\nour order of means:", " > ".join(ours))
print(f"five methods in one given order by luck: 1 in {math.factorial(5)}")

# %%
figure = Figure(figsize=(7, 2.8), layout="constrained")
axis = figure.subplots()
for i, (better, worse) in enumerate(itertools.pairwise(ranking)):
    differences = dice[better] - dice[worse]
    mean, width = paired(dice[better], dice[worse])
    axis.plot(differences, [i + 0.18] * len(differences), "o", color=unit(SKY_BLUE), markersize=4)
    axis.errorbar(mean, i - 0.1, xerr=width, fmt="s", color=unit(BLUE), capsize=4)
axis.axvline(0, color="black", linewidth=0.8)
axis.set_yticks(range(4), [f"{a} minus {b}" for a, b in itertools.pairwise(ranking)])
axis.invert_yaxis()
axis.set(xlabel="difference in Dice; right of 0: as the survey says")
plots.show(
    figure,
    "Differences between neighbours in the survey's ranking, with 95 % intervals, and a dot for each "
    f"patient: {', '.join(verdicts)}.",
)

# %% [markdown]
# > **Explain.** Where the answer here is another one, is the survey refuted? Where it is the same, confirmed?
#
# <details><summary>Our explanation</summary>
#
# Neither. It averaged over many language tasks with large models and many examples; here is one task in
# images, a small network, 20 patients, one seed; of full tuning the kit keeps only the largest directions.
# **A ranking of means over tasks is not a statement about your task**, and one order among five can be luck.
# With fewer patients full tuning has the most to lose, since it has the most numbers to overfit with.
# </details>

# %% [markdown]
# ## 7. An average of averages
#
# Rankings of vision methods often come from **VTAB-1k**: 19 classification tasks with 1000 training images
# each (Zhai et al., 2019, arXiv:1910.04867), in three groups: 7 natural, 4 specialised (satellite and
# medical images), 8 structured (count, measure, locate). The benchmark's own average is the mean over the
# 19 tasks. Papers on parameter-efficient tuning give the mean of the three group means, and call it
# "average" as well.
#
# > **Predict.** Which of the two gives more weight to a structured task? By what factor do the weights of a
# > specialised and a structured task differ in the papers' average?
# >
# > Your prediction: ...
#
# ### Exercise 4: `vtab_average` (2 points, easy, 4 minutes)
#
# `means` are the mean accuracies of the groups, `sizes` their numbers of tasks. Return both averages, first
# that over tasks.


# %% labkit={"exercise": "vtab_average", "role": "answer", "points": 2}
def vtab_average(means, sizes):
    """The mean over all tasks, and the mean over the groups: two floats."""
    ### BEGIN SOLUTION
    over_tasks = sum(mean * size for mean, size in zip(means, sizes, strict=True)) / sum(sizes)
    return over_tasks, sum(means) / len(means)
    ### END SOLUTION


# %% labkit={"exercise": "vtab_average", "role": "check"}
lab.check("vtab_average", vtab_average)

# %% [markdown]
# The published group means of eleven methods on a ViT-B/16, as V-PETL Bench lists them (Xin et al., 2024);
# they are kept in `labkit.efficient.vtab`.

# %%
vtab_average = lab.working("vtab_average", vtab_average)
tasks = [len(names) for names in GROUPS.values()]
averages = {name: vtab_average(list(one.groups.values()), tasks) for name, one in RESULTS.items()}
places = [sorted(averages, key=lambda name: -averages[name][i]) for i in (0, 1)]
print("                 natural specialised structured    19 tasks  place    3 groups  place")
for name in places[1]:
    groups = "".join(f"{mean:11.2f}" for mean in RESULTS[name].groups.values())
    seats = [places[i].index(name) + 1 for i in (0, 1)]
    print(f"{name:12} {groups} {averages[name][0]:13.2f} {seats[0]:5} {averages[name][1]:12.2f} {seats[1]:5}")
print(
    f"\nweight of one specialised over one structured task in the papers' average: {tasks[2] / tasks[1]:.0f}"
)

# %%
figure = Figure(figsize=(6.5, 3.8), layout="constrained")
axis = figure.subplots()
top = places[1][:5]
for i, name in enumerate(top):
    look = dict(color=unit((BLUE, VERMILLION, GREEN, PURPLE, ORANGE)[i]), marker="osD^v"[i])
    ahead = [averages[name][which] - averages["LoRA"][which] for which in (0, 1)]
    axis.plot([0, 1], ahead, **look)
    axis.annotate(name, (1, ahead[1]), (8, 0), textcoords="offset points", va="center")
axis.set_xticks([0, 1], ["mean of 19 tasks", "mean of 3 groups"])
axis.set(xlim=(-0.2, 1.4), ylabel="accuracy minus LoRA's (points)")
swaps = [f"{a} and {b}" for a, b in itertools.combinations(top, 2)
         if (averages[a][0] - averages[b][0]) * (averages[a][1] - averages[b][1]) < 0]  # fmt: skip
print("change places:", ", ".join(swaps))
plots.show(
    figure,
    "Two averages of the same results for the five methods with the largest mean over groups. Lines cross: "
    f"{', '.join(swaps)} change places.",
)

# %% [markdown]
# > **Explain.** Who is "state of the art" here? And what else should you ask before you believe a tenth of
# > a point?
#
# <details><summary>Our explanation</summary>
#
# It depends on an average that nobody chose for a reason. Ask also: on which images were the rates chosen?
# The code of FacT tests every ten epochs on the test images and reports the best; the benchmark sets 200 of
# the 1000 training images aside for choosing. And is the head counted among the parameters, for all or for
# some?
# </details>

# %% [markdown]
# ## 8. Formulas, counted
#
# The lecture's summary table gives a formula for the parameters of eight methods. Here they are for a
# ViT-B/16, beside what is really added. The networks are built without memory for their numbers (PyTorch's
# meta device).
#
# > **Predict.** Which of the eight will be exact? Which will be off by more than a tenth?
# >
# > Your prediction: ...

# %%
Markdown(parameter_tables.formula_table())

# %%
for row in parameter_tables.FORMULAS[-2:]:
    vit_b = parameter_tables.d, parameter_tables.L, parameter_tables.FF
    print(f"{row.name}: {row.written} with d_h, L, d_ff = {vit_b} is {row.value:,}")
print(f"BitFit with a bottleneck of 64 for d_m: {12 * (7 * 768 + 64):,}")
attention, fc1, fc2, norms = (3 + 1) * 768, 3072, 768, 2 * 768
print(f"biases of one block: {attention} + {fc1} + {fc2} + {norms} = {attention + fc1 + fc2 + norms}")
print(f"                     7 x 768 + 3072 = {7 * 768 + 3072}")

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# LoRA's is exact: it has no biases. Most others forget biases, which is a little where the matrices are
# large and much where they are small (Compacter). In BitFit's row $d_m$ stands for the width in the middle
# of the MLP, in all others for a bottleneck: **one letter, two meanings, and with the wrong one the number
# is off by a third**. A formula is a claim about code; a count settles it.
# </details>

# %% [markdown]
# ## 9. The same LoRA in another library
#
# The lecture ends with a tool, Hugging Face's **peft**. Can it read what we trained? It knows one A and one
# B for each linear layer, and timm's ViT has one layer for q, k and v together. Ours has a pair for q and a
# pair for v:
#
# $$ \frac{\alpha}{r} \begin{pmatrix} B_q A_q \\ 0 \\ B_v A_v \end{pmatrix}
#  = \frac{\alpha'}{2r}
#    \begin{pmatrix} B_q & 0 \\ 0 & 0 \\ 0 & B_v \end{pmatrix}
#    \begin{pmatrix} A_q \\ A_v \end{pmatrix} $$
#
# > **Predict.** What must $\alpha'$ be? If someone goes on training this in peft: how many of its numbers
# > learn, against ours? Is it still the same method?
# >
# > Your prediction: ...
#
# ### Exercise 5: `as_peft` (3 points, medium, 8 minutes)
#
# `A_q` and `A_v` are (r, k), `B_q` and `B_v` (d, r). Return peft's A (2r, k), its B (3d, 2r), and its alpha.


# %% labkit={"exercise": "as_peft", "role": "answer", "points": 3}
def as_peft(A_q, B_q, A_v, B_v, alpha):
    """One LoRA on the fused qkv that does what two do on q and v: A (2r, k), B (3d, 2r), alpha."""
    ### BEGIN SOLUTION
    A = torch.cat([A_q, A_v])
    zero = torch.zeros_like(B_q)
    q, k, v = torch.cat([B_q, zero], 1), torch.cat([zero, zero], 1), torch.cat([zero, B_v], 1)
    return A, torch.cat([q, k, v]), 2 * alpha
    ### END SOLUTION


# %% labkit={"exercise": "as_peft", "role": "check"}
lab.check("as_peft", as_peft)

# %% [markdown]
# Proof, on the real network: a LoRA of rank 8 on q and v, filled with random numbers, since with B = 0 any
# mistake would go unseen. First without peft: your three results, as the change of the fused weight.

# %%
as_peft = lab.working("as_peft", as_peft)
r, alpha = 8, 16.0
ours = tune(deltas.start(), LoRA(r=r, alpha=alpha)).eval()
torch.manual_seed(0)
converted = []
with torch.no_grad():
    for block in blocks(ours.backbone):
        layer = block.attn.qkv
        layer.B.normal_(std=0.05)
        A, B, theirs = as_peft(layer.A[0], layer.B[0], layer.A[1], layer.B[1], alpha)
        converted.append((A, B))
        tokens = torch.randn(5, A.shape[1])
        expected = layer(tokens) - layer.original(tokens)
        torch.testing.assert_close(theirs / len(A) * tokens @ A.T @ B.T, expected, rtol=1e-4, atol=1e-5)
in_peft = sum(t.numel() for pair in converted for t in pair)
print(
    f"A {tuple(A.shape)}, B {tuple(B.shape)}, alpha {theirs:g}: the same change of q, k and v in every block"
)
print(f"numbers that learn: ours {count(ours).inserted:,}, in peft {in_peft:,}")

# %% [markdown]
# And with peft itself, where it is installed. It is not part of the kit: `pip install peft` brings it.

# %%
image = test[0].image[40][None]
plain = deltas.start().backbone.eval()
has_peft = importlib.util.find_spec("peft") is not None
if has_peft:
    print("loading peft ...")
    import peft

    wrapped = peft.get_peft_model(
        copy.deepcopy(plain), peft.LoraConfig(r=2 * r, lora_alpha=2 * alpha, target_modules=["qkv"])
    ).eval()
    state = wrapped.state_dict()
    for i, pair in enumerate(converted):
        for which, matrix in zip("AB", pair, strict=True):
            state[f"base_model.model.blocks.{i}.attn.qkv.lora_{which}.default.weight"].copy_(matrix)
    with torch.no_grad():
        mine, other, before = ours.backbone(image), wrapped(image), plain(image)
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    print(f"largest difference between the two libraries: {(mine - other).abs().max():.1e}")
    print(f"largest difference to the pretrained network: {(mine - before).abs().max():.1e}")
else:
    print("peft is not installed here, so this comparison is left out; `pip install peft` and run it again.")

# %% [markdown]
# The two compute the same, and are **not the same method to go on with**: peft's optimizer would also move
# the zeros, so k would begin to learn, and q would begin to read what belongs to v.
#
# ### A delta goes out and comes back
#
# `labkit.updates.peft_format` does this for a whole network, in the files that peft reads and writes. It
# needs no peft.

# %%
fresh = tune(deltas.start(), LoRA(r=r, alpha=alpha), seed=1).eval()
with tempfile.TemporaryDirectory() as folder, torch.no_grad():
    save_peft(ours, folder)
    for file in sorted(Path(folder).iterdir()):
        print(f"{file.name:28} {file.stat().st_size:9,} bytes")
    load_peft(fresh, folder)
    print("read back by labkit, to the bit:", torch.equal(fresh.backbone(image), ours.backbone(image)))
    if has_peft:
        read = peft.PeftModel.from_pretrained(copy.deepcopy(plain), folder).eval()
        print(f"read by peft, largest difference: {(read(image) - ours.backbone(image)).abs().max():.1e}")
        read.save_pretrained(folder)
        again = load_peft(tune(deltas.start(), LoRA(r=r, alpha=alpha), seed=2).eval(), folder)
        print("written by peft, read by labkit:", torch.equal(again.backbone(image), ours.backbone(image)))

# %% [markdown]
# Half of the file are zeros. And it holds LoRA only: the head, without which nobody gets a segmentation,
# stays in labkit's own file. Who receives such a folder has to ask for it.

# %% [markdown]
# ## 10. Equal Dice, other voxels
#
# Here are the six networks side by side (and, where the kit carries them, those of lab 08, behind the light
# decoder, under "Trained on"). In the picture on top each is a point: choose one in the
# list (click, or arrow keys), and another to compare it with.
#
# > **One question.** Find two methods whose Dice on this patient is nearly equal. Do they fail on the same
# > voxels? Predict what share of the wrong voxels is wrong in both.
# >
# > Your prediction: ...

# %%
MethodComparison(patients[:2], kinds() | {"single slices, linear head": tuple(made_by.values())})

# %% [markdown]
# <details><summary>What to look for</summary>
#
# The words below the picture count the voxels that only one of the two has wrong, and those that both have.
# Much is shared: the borders, where one voxel is half tumour, and what the linear head cannot draw. The
# rest is not. Dice counts how many voxels are wrong, not which. **Two methods with equal Dice are two
# different networks.** If their failures differ, averaging their probabilities may help; if a surgeon needs
# the rim and not the oedema, one of them may be the better one.
# </details>

# %% [markdown]
# ## 11. A budget
#
# And what would it cost elsewhere? Choose a method and its size, and see three networks: the laptop's, and
# the two of the Med-Tuning paper, with its decoders. Every count comes from building that network.
#
# > **One question.** On ViT-B/16 with UPerNet, which part of what is tuned belongs to the method? At which
# > rank would LoRA catch up with the decoder?
# >
# > Your prediction: ...

# %%
ParameterBudget()

# %% [markdown]
# <details><summary>What to look for</summary>
#
# "Tuned parameters" in a table of segmentation methods is mostly the decoder, which every method trains. A
# method that inserts 2 % may tune 17 %. Ask which of the two numbers stands on the axis.
# </details>

# %% [markdown]
# ## 12. A fair sentence
#
# Not fair: *"LoRA outperforms full fine-tuning with 8 % of the parameters."* It says not on what, not by
# how much, not how sure, and not what was equal. The cell writes a better one from what we measured.

# %%
mean, width = paired(dice["LoRA"], dice["full"])
verb = "was not told apart from" if abs(mean) <= width else "was above" if mean > 0 else "was below"
print(
    f"On {len(dice['LoRA'])} synthetic test patients, LoRA (rank 16, six matrices, "
    f"{sizes['LoRA']:,} learned parameters\nwith the linear head) {verb} full tuning ({sizes['full']:,}; its "
    f"update cut to rank 32): {mean:+.3f} Dice\n(mean of three regions; paired 95 % interval "
    f"{mean - width:+.3f} to {mean + width:+.3f}; one training each,\nthe same 20 patients, batches and 240 "
    "steps, rates chosen on validation patients)."
)

# %% [markdown]
# What belongs into it: the **patients** and how many; **what was equal** (data, steps, the way rates were
# chosen); the **difference** and its interval; **how many trainings**; the **costs** and what they count;
# and what was changed after training.
#
# > **Think.** Write such a sentence for the adapter against deep prompts, with a cost from section 5 that
# > is not the number of parameters.

# %% [markdown]
# ## 13. Bonus
#
# * **Student.** Replace 1.96 by `scipy.stats.t.ppf(0.975, n - 1)`. Which verdicts of section 6 change?
# * **Resample.** Draw the patients anew with replacement, a thousand times, and take the 2.5 % and 97.5 %
#   quantiles of the mean difference (the bootstrap). How far is it from `paired`?
# * **Two fronts.** Draw the front of section 3 with the activations of section 5 as cost. Who leaves it,
#   who enters?
# * **More prompts.** At how many prompts does `VPTDeep(n)` keep as much as full tuning? Solve it by
#   bisection.

# %% [markdown]
# ## 14. Test yourself
#
# <details><summary>1. Why compare patient by patient?</summary>
# Patients differ, often as much as methods do. In the difference, what makes a patient hard for both cancels.
# </details>
#
# <details><summary>2. Which cost does LoRA hardly improve?</summary>
# Activations, if it stands at all matrices: each keeps its input for A's gradient, as a learning weight
# would.
# </details>
#
# <details><summary>3. Is a dominated method useless?</summary>
# On these axes. Add one (time, merging, memory), and it may be on the front.
# </details>
#
# <details><summary>4. What must be equal in a comparison, and what may differ?</summary>
# Patients, batches, steps, and the effort of choosing rates. The chosen rate may differ: it belongs to the
# method.
# </details>
#
# <details><summary>5. Which three things make training the head alone cheap?</summary>
# No backward pass through the backbone, few gradients and moments of Adam, a small file.
# </details>

# %% [markdown]
# ## 15. What changes on real data
#
# * **Memory has other cures.** Gradient checkpointing forgets activations and computes them again. It moves
#   every method on that axis, and costs time.
# * **Arithmetic is not time.** On a GPU small layers wait for memory; a method with fewer operations may be
#   slower.
# * **Hospitals, not patients.** Patients of one scanner resemble each other. Draw whole hospitals anew, or
#   the interval is too narrow for the next hospital.
# * **What is not seen in Dice.** A missed small lesion costs a patient more than a border that is one voxel
#   off. Lab 08 scores lesions one by one.

# %%
lab.progress()
