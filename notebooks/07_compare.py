# %% [markdown]
# # Lab 07: Comparing
#
# Six labs, more than a dozen methods. Which one should you use? Papers answer with a table and a bold
# number. In this lab you will
#
# 1. **compute** a difference between two methods with its interval, patient by patient;
# 2. **tell apart** what other patients would change and what another training would change;
# 3. **choose** a learning rate without looking at the test, and a method when there are several aims;
# 4. **derive** what a network must remember for its backward pass, and **measure** what each method costs;
# 5. **exchange** a LoRA with Hugging Face's peft, and **plan** and **state** a comparison in a fair sentence.
#
# | | |
# | --- | --- |
# | Time | about 70 minutes for sections 1 to 5 and 12; 60 more for 6 to 11 |
# | The 45-minute path | sections 1 to 4, with exercise 2 left to labkit; section 12 at home |
# | Points | 12 in sections 1 to 5 and 12, 9 in sections 6 to 11 |
# | Computer | any laptop, no GPU; nothing is trained for long |
# | Counted | 130 minutes with all exercises: 4,016 words, 626 lines of code, 7 exercises, 60 seconds of computing; 1.4 GB of memory |
# | You know | Labs 01 and 03 to 06: freezing, prompts, LoRA, rank, adapters |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# The last line sets the seeds and checks whether your computer has what the lab needs.

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
from scipy import stats
from torch import nn
from tqdm.auto import tqdm

from labkit import lessons
from labkit.efficient.vtab import RESULTS
from labkit.explore import deltas, plots
from labkit.explore.budget import ParameterBudget
from labkit.explore.comparison import MethodComparison
from labkit.explore.pictures import BLUE, GREEN, ORANGE, PURPLE, SKY_BLUE, VERMILLION, unit
from labkit.methods import METHODS, LoRA
from labkit.networks.anatomy import blocks
from labkit.paths import data_dir
from labkit.phantoms.kidney import kidney_patients
from labkit.scans.slices import to_volume
from labkit.studies import parameter_tables, statistics
from labkit.studies.store import read_lines
from labkit.training import cost
from labkit.training.quick import at_most
from labkit.tuning import count, tune
from labkit.updates.peft_format import load_peft, save_peft

lab = lessons.start("07")


def explanation(*sentences):
    """A fold whose sentences were made from the numbers above it."""
    text = "\n\n".join(sentences)
    return Markdown(f"<details><summary>Our explanation, with your numbers</summary>\n\n{text}\n\n</details>")


# %% [markdown]
# ## 1. A table that looks convincing
#
# The kit carries the results of some hundred trainings, a line each, with the Dice of every single test
# patient. We begin with the digital kidneys: 20 patients to train on, 200 steps of 16 slices, 20 others to
# be tested on. You know all six rows.
#
# | here called | what learned (besides the decoder) | rate | lab |
# | --- | --- | --- | --- |
# | full | everything | 3e-5 | 01 |
# | LoRA | thin products beside q and v, rank 8 | 3e-3 | 04 |
# | adapter | a bottleneck after attention and MLP of each block | 2e-3 | 06 |
# | deep prompts | ten prompts in each block | 3e-3 | 03 |
# | shallow prompts | ten prompts in front of the first block | 1e-2 | 03 |
# | head | nothing: the decoder alone | 8e-3 | 01 |
#
# Each has the rate that did best on *validation* patients; in section 4 you choose them yourself. Now we do
# what many do: train each once (seed 0), take ten patients, average, and mark the best. Then the other ten.
#
# > **Predict.** Will the same method be marked? Will the order of all six be the same?
# >
# > Your prediction: ...

# %%
NAMES = {"full": "Full", "LoRA": "LoRA", "adapter": "Adapter", "deep prompts": "VPT-Deep",
         "shallow prompts": "VPT-Shallow", "head": "Head"}  # fmt: skip
KIDNEY_RATES = {
    "full": 3e-5,
    "LoRA": 3e-3,
    "adapter": 2e-3,
    "deep prompts": 3e-3,
    "shallow prompts": 1e-2,
    "head": 8e-3,
}
everything = {
    of: read_lines(data_dir() / "results" / f"{of}.jsonl") for of in ("kidney", "hippocampus", "brain")
}


def rate_of(line):
    """The learning rate of a training: the decoder's where nothing else learned."""
    return line.get("lr", line.get("head_lr"))


def trainings(of, name, rate):
    """The lines of a method at a rate, seed by seed."""
    return [line for line in everything[of] if line["row"] == NAMES.get(name, name) and rate_of(line) == rate]


def dice_of(lines):
    """Dice in per cent, (seeds, regions, patients)."""
    return 100 * statistics.scores(lines)


table = {name: dice_of(trainings("kidney", name, rate)) for name, rate in KIDNEY_RATES.items()}
tuned = {name: trainings("kidney", name, rate)[0]["tuned"] for name, rate in KIDNEY_RATES.items()}
print("seeds, regions (kidney, tumour), patients:", table["LoRA"].shape)
dice = {name: values[0].mean(0) for name, values in table.items()}  # seed 0; both regions: (patients,)
halves = {name: (values[:10].mean(), values[10:].mean()) for name, values in dice.items()}
best = [max(halves, key=lambda name: halves[name][i]) for i in (0, 1)]
print(f"\n{'mean Dice (%)':16} {'ten patients':>13} {'ten others':>13}")
for name, means in halves.items():
    marks = ["*" if name == best[i] else " " for i in (0, 1)]
    print(f"{name:16} {means[0]:12.1f}{marks[0]} {means[1]:12.1f}{marks[1]}")
orders = [sorted(halves, key=lambda name: -halves[name][i]) for i in (0, 1)]
print("the same order in both" if orders[0] == orders[1] else "not the same order")

# %% [markdown]
# Compare how far a method moves from one column to the other with how far the rows of a column lie apart. The
# next figure says why: it has a line for each patient.

# %%
figure = Figure(figsize=(7.5, 3.6), layout="constrained")
axis = figure.subplots()
for i in range(20):
    line = [values[i] for values in dice.values()]
    axis.plot(list(dice), line, "-o", color=unit(BLUE), alpha=0.4, linewidth=1, markersize=3)
axis.plot([], [], "-o", color=unit(BLUE), markersize=3, label="a patient")
axis.plot(list(dice), [v.mean() for v in dice.values()], "k_", markersize=28, label="mean")
axis.set(
    ylabel="Dice (%), mean of kidney and tumour", title="A line for each of 20 patients, one training each"
)
figure.legend(frameon=False, loc="outside lower center", ncols=2)
axis.grid(alpha=0.3, axis="y")
among_patients = np.ptp(np.mean(list(dice.values()), 0))
among_methods = np.ptp([values.mean() for values in dice.values()])
print(f"best minus worst patient, mean of all methods: {among_patients:.1f} points")
print(f"best minus worst method, mean of all patients: {among_methods:.1f} points")
plots.show(
    figure,
    "Dice of every test patient under six methods, a line for each patient. Patients lie up to "
    f"{among_patients:.0f} points apart on average, methods up to {among_methods:.0f}.",
)

# %% [markdown]
# > **Explain.** A patient with a small or faint tumour: where does the line run? What would an error bar
# > tell that is drawn from the spread of all marks of one method?

# %%
moves = max(abs(first - second) for first, second in halves.values())
explanation(
    f"Patients lie {among_patients:.0f} points apart, methods {among_methods:.1f}. So which ten patients "
    f"one happens to have moves a method by up to {moves:.1f} points, "
    + ("more" if moves > among_methods else "less")
    + " than there is between the best and the worst row. "
    + (
        f"Yet *{best[0]}* is marked twice: a convincing table. Remember it until section 3."
        if best[0] == best[1]
        else f"First *{best[0]}* is marked, then *{best[1]}*."
    ),
    "A hard patient's line runs low under nearly every method. An error bar over all marks of a method "
    "tells how different patients are. It says nothing about whether this method is better than the next "
    "one *on the same patient*, and that is the question.",
)

# %% [markdown]
# ## 2. The same patients, twice
#
# So compare within each patient. Let $a_i$ and $b_i$ be the Dice of two methods on patient $i$ of $n$:
#
# $$ d_i = a_i - b_i, \qquad \bar d = \frac1n \sum_i d_i, \qquad
#    \mathrm{sd}(d) = \sqrt{\frac{1}{n-1} \sum_i (d_i - \bar d)^2} $$
#
# If we drew other patients again and again, $\bar d$ would scatter around the true difference with about
# $\mathrm{sd}(d) / \sqrt n$, the **standard error**. How many of them to either side catch the truth 95
# times in 100? For very many patients 1.96, the number that everybody remembers. But the spread is
# estimated from the same few patients, and if it comes out too small by luck, the interval is too narrow
# just then. **Student's t** makes up for it; its quantile depends on the $n - 1$ degrees of freedom:
#
# $$ \bar d \pm t_{0.975,\, n-1}\, \frac{\mathrm{sd}(d)}{\sqrt n} $$
#
# > **Predict.** Six patients. An interval with 1.96 claims 95 %. How often does it catch the truth?

# %%
numbers = np.random.default_rng(0)
print("patients   t      caught by 1.96   caught by t")
caught = {}
for n in (4, 6, 8, 20, 100):
    drawn = numbers.standard_normal((20_000, n))  # the truth is 0
    errors = np.abs(drawn.mean(1)) / (drawn.std(1, ddof=1) / math.sqrt(n))
    t = stats.t.ppf(0.975, n - 1)
    caught[n] = [float((errors <= width).mean()) for width in (1.96, t)]
    print(f"{n:8}   {t:.2f} {caught[n][0]:17.1%} {caught[n][1]:13.1%}")

# %%
explanation(
    f"With six patients the interval of 1.96 catches the truth in {caught[6][0]:.0%} of the cases, so it "
    f"errs {(1 - caught[6][0]) / 0.05:.1f} times as often as it says. With 100 patients there is hardly a "
    f"difference ({caught[100][0]:.1%}): **1.96 is for many**. t is right throughout, if differences "
    "between patients are roughly normal."
)

# %% [markdown]
# ### Exercise 1: `paired` (3 points, easy, about 7 minutes)
#
# `a` and `b` are NumPy arrays of one number for each patient. Return $\bar d$ and half the width of the
# interval as two plain numbers. `stats.t.ppf(0.975, freedom)` is the quantile.


# %% labkit={"exercise": "paired", "role": "answer", "points": 3, "hides": ["labkit.studies.statistics:estimate"]}
def paired(a, b):
    """Mean of a - b, and half the width of its 95 % interval by Student's t: two floats."""
    ### BEGIN SOLUTION
    d = a - b
    t = stats.t.ppf(0.975, len(d) - 1)
    return float(d.mean()), float(t * d.std(ddof=1) / math.sqrt(len(d)))
    ### END SOLUTION


# %% labkit={"exercise": "paired", "role": "check"}
lab.check("paired", paired)

# %% [markdown]
# Stuck? `lab.hint("paired")` gives a nudge; again, and it says more. The next line takes your function if it
# passed, and labkit's own if it did not.
#
# Now five methods against the head alone, seed 0. Beside yours stands the interval that one would get if the
# two methods had been tested on *different* patients, so that the spreads of both add up.
#
# > **Predict.** A patient differs from the next by tens of points. How much wider will the unpaired
# > interval be? For how many of the five does that decide whether 0 is inside?

# %%
my_paired = lab.working("paired", paired)


def told(mean, half):
    """What may be said of a difference."""
    return "undecided" if abs(mean) <= half else "above" if mean > 0 else "below"


print(f"{'minus head':16} {'paired':>15} {'':10} {'as if unpaired':>16}")
rivals, one_training, changed = [name for name in dice if name != "head"], {}, []
for name in rivals:
    mean, narrow = my_paired(dice[name], dice["head"])
    assert math.isclose(narrow, statistics.difference(table[name][:1], table["head"][:1]).half, rel_tol=1e-4)
    wide = math.hypot(*(statistics.estimate(table[one][:1]).half for one in (name, "head")))
    one_training[name] = mean, narrow, wide
    verdicts = told(mean, narrow), told(mean, wide)
    if verdicts[0] != verdicts[1]:
        changed.append(name)
    print(
        f"{name:16} {mean:+7.1f} ± {narrow:4.1f} {verdicts[0]:>10} {mean:+9.1f} ± {wide:4.1f} "
        f"{verdicts[1]:>10}"
    )

# %%
figure = Figure(figsize=(7, 3.2), layout="constrained")
axis = figure.subplots()
for i, name in enumerate(rivals):
    mean, narrow, wide = one_training[name]
    look = [("paired", narrow, BLUE, "s", 0.12), ("as if unpaired", wide, ORANGE, "o", -0.12)]
    for label, half, colour, mark, shift in look:
        axis.errorbar(mean, i + shift, xerr=half, fmt=mark, color=unit(colour), capsize=4,
                      label=label if i == 0 else None)  # fmt: skip
axis.axvline(0, color="black", linewidth=0.8)
axis.set_yticks(range(len(rivals)), rivals)
axis.invert_yaxis()
axis.set(xlabel="Dice minus that of the head alone, in points (95 %, one training each)")
figure.legend(frameon=False, loc="outside lower center", ncols=2)
plots.show(
    figure,
    "Differences of five methods to the head alone with two intervals each: the paired one, and the "
    "wider one that pretends that each method had patients of its own. Pairing decides for: "
    f"{', '.join(changed) or 'none'}.",
)

# %% [markdown]
# > **Explain.** Why are the paired intervals so much narrower? When would pairing not help?

# %%
widest = max(rivals, key=lambda name: one_training[name][2] / one_training[name][1])
mean, narrow, wide = one_training[widest]
explanation(
    f"For *{widest}* the unpaired interval is {wide / narrow:.0f} times as wide (± {wide:.1f} against ± "
    f"{narrow:.1f}). "
    + (
        f"Pairing changes the verdict for {', '.join(f'*{name}*' for name in changed)}: whoever ignores that "
        "the patients are the same cannot tell them from the head."
        if changed
        else "Here it changes no verdict."
    ),
    "The variance of a difference is $\\mathrm{var}(a) + \\mathrm{var}(b) - 2\\,\\mathrm{cov}(a, b)$. If "
    "hard "
    "patients are hard for both, the last term is large. If the two methods failed on different patients, "
    "nothing would be gained.",
)

# %% [markdown]
# ## 3. Another training
#
# *LoRA is above the head*, the last section says, and its interval agrees. But it is an interval for **these
# two networks** on other patients. Train again with another seed (other starting values of what is new,
# other batches), and you get other networks. You want to know about the *method*.
#
# > **Predict.** Three seeds. Will LoRA be above the head in each? By about as much?

# %%
y = statistics.contributions(table["LoRA"] - table["head"])  # (seeds, patients)
order = y.mean(0).argsort()
figure = Figure(figsize=(7.5, 3.6), layout="constrained")
axis = figure.subplots()
for seed, (colour, mark) in enumerate(zip((BLUE, ORANGE, GREEN), "osD", strict=True)):
    axis.plot(y[seed, order], mark, color=unit(colour), markersize=5, label=f"seed {seed}")
    axis.axhline(y[seed].mean(), color=unit(colour), linestyle=("-", "--", ":")[seed], linewidth=1.5,
                 label=f"mean of seed {seed}")  # fmt: skip
axis.axhline(0, color="black", linewidth=0.8)
axis.set(xlabel="test patient, sorted by the mean of the seeds", ylabel="LoRA minus head (points of Dice)")
axis.set_xticks([])
figure.legend(frameon=False, loc="outside lower center", ncols=3)
each = [statistics.estimate((a - b)[None]) for a, b in zip(table["LoRA"], table["head"], strict=True)]
for seed, one in enumerate(each):
    print(f"seed {seed}: {one.mean:+.1f} ± {one.half:.1f}   {told(one.mean, one.half)}")
plots.show(
    figure,
    "LoRA minus head for 20 patients and three seeds, a mark each. The means of the seeds are "
    + ", ".join(f"{one.mean:+.1f}" for one in each)
    + " points.",
)

# %% [markdown]
# So there are two samples: of patients ($P$ columns) and of trainings ($S$ rows). Write the table as
#
# $$ y_{sp} = \text{mean} + \text{seed}_s + \text{patient}_p + \text{rest}_{sp} $$
#
# The variance of the mean of the table has three parts. How far the seeds' means differ, $v_S$, tells of
# the first; how far the patients' means differ, $v_P$, of the second. But the *rest* moves both of these
# means too. Adding them counts it twice, so it is taken off once. If the seeds differ less than the rest
# makes likely, the seeds' part is 0, not negative:
#
# $$ \mathrm{se}^2 = \frac{v_P}{P} + \max\left(0,\; \frac{v_S}{S} - \frac{v_\text{rest}}{S P}\right),
# \qquad v_\text{rest} = \frac{1}{(S-1)(P-1)} \sum_{s,p} \text{rest}_{sp}^2 $$
#
# where $\text{rest}_{sp} = y_{sp} - \bar y_{s\cdot} - \bar y_{\cdot p} + \bar y$, and $v_S$ and $v_P$ are
# variances with one less than their number below (`ddof=1`).
#
# > **Predict**, by hand. Two seeds, two patients, y = [[0, 2], [4, 6]]. What is the rest? Which of the two
# > moves the mean more, another seed or another patient?
#
# <details><summary>By hand</summary>
#
# The seeds' means are 1 and 5, the patients' 2 and 4, the mean is 3. Seeds and patients explain every number
# (0 = 3 - 2 - 1), so the rest is 0. $v_S / S = 8 / 2 = 4$ and $v_P / P = 2 / 2 = 1$: se is the root of 5, and
# another seed moves the mean twice as far as another patient.
# </details>
#
# ### Exercise 2: `standard_error` (4 points, medium, about 10 minutes)
#
# `y` is a NumPy array (seeds, patients). Return the standard error, the root of $\mathrm{se}^2$, as a plain
# number.


# %% labkit={"exercise": "standard_error", "role": "answer", "points": 4, "hides": ["labkit.studies.statistics:estimate"]}
def standard_error(y):
    """Of the mean of y (seeds, patients), if other seeds and other patients had been drawn: a float."""
    ### BEGIN SOLUTION
    S, P = y.shape
    rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    v_rest = (rest**2).sum() / ((S - 1) * (P - 1))
    of_seeds = y.mean(1).var(ddof=1) / S - v_rest / (S * P)
    return float(np.sqrt(y.mean(0).var(ddof=1) / P + max(0, of_seeds)))
    ### END SOLUTION


# %% labkit={"exercise": "standard_error", "role": "check"}
lab.check("standard_error", standard_error)

# %% [markdown]
# How many standard errors make an interval? Again a quantile of t; with two samples its degrees of freedom
# lie between those of the seeds and those of the patients, nearer to those of the part that is larger
# (Satterthwaite, 1946). `labkit.studies.statistics` computes them. Every interval with seeds in this course
# comes from there.

# %%
my_standard_error = lab.working("standard_error", standard_error)
print(f"{'minus head':16} {'se':>5} {'t':>5}   {'patients and seeds':>27}   {'patients alone':>26}")
both, patients_alone = {}, {}
for name in rivals:
    y = statistics.contributions(table[name] - table["head"])
    both[name] = statistics.difference(table[name], table["head"])
    patients_alone[name] = statistics.estimate(y.mean(0)[None, None])  # as if the mean network were one
    se = my_standard_error(y)
    cells = [
        f"{one.mean:+5.1f} ± {one.half:4.1f} {told(one.mean, one.half):>10}"
        for one in (both[name], patients_alone[name])
    ]
    print(f"{name:16} {se:5.2f} {both[name].half / se:5.2f}   {cells[0]:>27}   {cells[1]:>26}")

# %% [markdown]
# > **Explain.** Whose verdict depends on whether seeds count? Why are the t so different? Would twenty more
# > patients help?

# %%
turned = [name for name in rivals if told(both[name].mean, both[name].half)
          != told(patients_alone[name].mean, patients_alone[name].half)]  # fmt: skip
lora = both["LoRA"]
explanation(
    "LoRA less head, seed by seed: "
    + ", ".join(f"{one.mean:+.1f} ({told(one.mean, one.half)})" for one in each)
    + f". Over both samples it is {lora.mean:+.1f} ± {lora.half:.1f}: **{told(lora.mean, lora.half)}**. "
    + (
        "Whoever had trained seed 0 alone would have published it. "
        if told(lora.mean, lora.half) == "undecided"
        else ""
    ),
    (
        "Averaging the seeds away gives another verdict for "
        + ", ".join(f"*{name}*" for name in turned)
        + ". "
        if turned
        else "Here no verdict depends on the seeds. "
    )
    + "Where seeds move the mean most, t is that of two degrees of freedom or little more (4.3 for two): "
    "three seeds are few. Twenty more patients shrink only the patients' part. **What another training "
    "changes, no number of patients can average away; only more trainings can.**",
)

# %% [markdown]
# One thing no interval here knows: **many looks.** Where there is no difference at all, at least one of
# five comparisons at 95 % shows one up to five times as often as a single comparison does. Say how many you made.

# %% [markdown]
# ## 4. Choosing a rate without the test
#
# A learning rate belongs to a method. It has to be chosen, and whoever chooses it by the test patients
# reports the best of several lucky numbers. So there are three groups of patients: to **train**, to choose
# (**validation**), and to **test** once at the end. The kit's rule:
#
# 1. Every rate is trained with seed 0. The one with the highest *validation* score is chosen.
# 2. The chosen rate is trained with other seeds too. The mean of its *test* scores is reported.
# 3. If it is the lowest or highest rate that was tried, the table says **edge**: a better one may lie beyond.
#
# In our files there are also other seeds of rates that lost later (someone added a rate). They must not
# help to choose: a rate with three tries would be compared with a rate that had one.
#
# > **Predict.** How much would we gain, on average, by choosing on the test patients after all? Half a
# > point, two, five?
#
# ### Exercise 3: `choose_rate` (3 points, medium, about 8 minutes)
#
# `runs` is a list of (rate, seed, validation, test) in any order. Return the chosen rate, the mean test score
# of all its runs, and whether it lies at the edge, True or False.


# %% labkit={"exercise": "choose_rate", "role": "answer", "points": 3}
def choose_rate(runs):
    """The rate chosen on validation, its mean test score over seeds, and whether it is at the edge."""
    ### BEGIN SOLUTION
    tried = {rate: validation for rate, seed, validation, _ in runs if seed == 0}
    best = max(tried, key=tried.get)
    score = np.mean([test for rate, _, _, test in runs if rate == best])
    return best, float(score), best in (min(tried), max(tried))
    ### END SOLUTION


# %% labkit={"exercise": "choose_rate", "role": "check"}
lab.check("choose_rate", choose_rate)

# %%
my_choose_rate = lab.working("choose_rate", choose_rate)


def runs_of(of, name):
    """(rate, seed, validation, test) of every training of a method, scores in per cent."""
    lines = [line for line in everything[of] if line["row"] == NAMES.get(name, name)]
    tests = [float(np.nanmean(dice_of([line]), axis=2).mean()) for line in lines]
    return [
        (rate_of(line), line["seed"], 100 * line["validation"], test)
        for line, test in zip(lines, tests, strict=True)
    ]


assert all(my_choose_rate(runs_of("kidney", name))[0] == rate for name, rate in KIDNEY_RATES.items())
print(f"{'seed 0, hippocampi: full':26} {'validation':>11} {'test':>6}")
for rate, seed, validation, test in sorted(runs_of("hippocampus", "full")):
    if seed == 0:
        print(f"{rate:26g} {validation:11.1f} {test:6.1f}")
hippocampi = {name: dice_of(trainings("hippocampus", name, my_choose_rate(runs_of("hippocampus", name))[0]))
              for name in ("full", "LoRA", "adapter", "deep prompts")}  # fmt: skip
tables = {"kidneys": table, "hippocampi": hippocampi}
gains, edges, rows = [], 0, 0
for of, lines in everything.items():
    for row in dict.fromkeys(line["row"] for line in lines if line["row"] != "threshold"):
        runs = runs_of(of, row)
        chosen, _, edge = my_choose_rate(runs)
        first = {rate: test for rate, seed, _, test in runs if seed == 0}
        gains.append(max(first.values()) - first[chosen])
        edges, rows = edges + edge, rows + 1
print(f"\n{rows} rows of three tables: choosing on the test adds {np.mean(gains):.2f} points on average, "
      f"{max(gains):.1f} at most; {edges} rows at an edge")  # fmt: skip

# %% [markdown]
# > **Explain.** Is choosing on the test harmless, then? What in the little table of *full* is a larger
# > danger?

# %%
of_full = {rate: test for rate, seed, _, test in runs_of("hippocampus", "full") if seed == 0}
chosen, score, edge = my_choose_rate(runs_of("hippocampus", "full"))
explanation(
    f"It added {np.mean(gains):.2f} points on average here"
    + (
        ": little, because rates are few, far apart, and validation and test patients are alike. "
        if np.mean(gains) < 0.5
        else ": as much as many papers' gains. "
    )
    + "With a hundred settings to choose from, or with other test patients, it is more; and nobody can "
    "tell from outside.",
    f"The larger danger is the **grid**. On real hippocampi full tuning has {score:.1f} at its best rate, "
    f"{chosen:g}{', which lies at the edge' if edge else ''}. Whoever had begun the grid at 3e-4 would "
    f"report {of_full[3e-4]:.1f} for seed 0, {of_full[chosen] - of_full[3e-4]:.1f} points less than the best "
    "rate has with that seed, and LoRA would "
    f"shine. **A baseline is as good as the rates it was given**, and {edges} of {rows} rows are at an "
    "edge: a better rate may lie beyond for them.",
)

# %% [markdown]
# ## 5. The survey's ranking
#
# The lecture reports from a survey of methods for language (Ding et al., 2022, arXiv:2203.06904), over many
# tasks: full tuning > LoRA > adapters > prefix tuning > prompt tuning, in performance. Prefixes are closest
# to our deep prompts, which are prefixes tied to the network's own keys and values (lab 03). Prompt tuning
# is what shallow prompts do (the hippocampi's table has none).
#
# > **Predict.** Will this order hold on digital kidneys? On real hippocampi? If all five were equally good,
# > how likely would they come in exactly this order by luck?
# >
# > Your prediction: ...

# %%
ranking = ["full", "LoRA", "adapter", "deep prompts", "shallow prompts"]
verdicts, steps = {}, {}
for organ, of in tables.items():
    print(f"{organ}: {next(iter(of.values())).shape[2]} test patients, three seeds")
    for better, worse in itertools.pairwise(name for name in ranking if name in of):
        one = statistics.difference(of[better], of[worse])
        said = {"undecided": "undecided", "above": "as the survey", "below": "the other way"}[
            told(one.mean, one.half)
        ]
        verdicts[organ, better, worse], steps[organ, better, worse] = said, one
        print(f"  {better + ' > ' + worse:32} {one.mean:+5.1f} ± {one.half:3.1f}   {said}")
print(f"five methods in one given order by luck: 1 in {math.factorial(5)}")

# %%
figure = Figure(figsize=(8, 3.4), layout="constrained")
pairs = list(itertools.pairwise(ranking))
for axis, (organ, of) in zip(figure.subplots(1, 2, sharex=True, sharey=True), tables.items(), strict=True):
    for i, (better, worse) in enumerate(pairs):
        if (organ, better, worse) not in steps:
            axis.text(0.5, i, "no such row", va="center", fontsize=9)
            continue
        one = steps[organ, better, worse]
        means = statistics.contributions(of[better] - of[worse]).mean(1)
        axis.plot(
            means,
            [i + 0.2] * len(means),
            "o",
            color=unit(ORANGE),
            markersize=4,
            label="a seed" if i == 0 else None,
        )
        axis.errorbar(one.mean, i - 0.1, xerr=one.half, fmt="s", color=unit(BLUE), capsize=4,
                      label="mean, 95 %" if i == 0 else None)  # fmt: skip
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_title(organ)
    axis.set_yticks(range(len(pairs)), [f"{a} minus {b}" for a, b in pairs])
axis.invert_yaxis()
figure.supxlabel("difference in points of Dice; right of 0: as the survey says", fontsize=10)
figure.legend(*axis.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2)
plots.show(
    figure,
    "Differences between neighbours in the survey's ranking on kidneys and hippocampi, with 95 % "
    "intervals over patients and seeds, and a dot for each seed: "
    + "; ".join(f"{organ}, {a} over {b}: {said}" for (organ, a, b), said in verdicts.items())
    + ".",
)

# %% [markdown]
# > **Explain.** Where the answer here is another one, is the survey refuted? Where it is the same, confirmed?

# %%
counted = {
    said: list(verdicts.values()).count(said) for said in ("as the survey", "undecided", "the other way")
}
explanation(
    f"Of {len(verdicts)} steps {counted['as the survey']} come out as in the survey, "
    f"{counted['undecided']} are undecided, {counted['the other way']} go the other way. Undecided is not "
    "*equal*: it says that these patients and seeds cannot tell.",
    "Neither refuted nor confirmed. The survey averaged over many language tasks with large models; here "
    "are two organs and a small network, and for some rows the best rate lies at an edge. **A ranking of "
    "means over tasks is not a statement about your task.** And with seven looks one false alarm in "
    "three such tables is to be expected.",
)

# %% [markdown]
# ## 6. More than one aim
#
# Dice is one aim. A small file is another. Then there may be no best method, and a division such as Dice
# per parameter only hides the choice. What can be said without an opinion is this: method $q$ **beats** $p$
# if it costs no more, scores no less, and is strictly better in at least one of the two. The methods that no
# other beats are the **Pareto front**. The rest you need never choose, as long as these two aims are all
# that you have.
#
# > **Predict.** Five methods with (cost, score): (1, .5), (2, .4), (3, .9), (3, .7), (5, .9). Which of them
# > are on the front?
# >
# > Your prediction: ...
#
# ### Exercise 4: `pareto` (2 points, medium, about 5 minutes)
#
# `points` is a list of pairs. Return the list of the indices of all that no other beats, in any order. Two
# equal points do not beat each other.


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
my_pareto = lab.working("pareto", pareto)
whole = {name: statistics.estimate(values) for name, values in table.items()}
points = [(tuned[name], whole[name].mean) for name in table]
front = sorted(my_pareto(points))
on_front = [list(table)[i] for i in front]
colours = dict(zip(table, (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY_BLUE), strict=True))
shapes = dict(zip(table, "sodP^X", strict=True))

figure = Figure(figsize=(7, 3.8), layout="constrained")
axis = figure.subplots()
for name, (size, score) in zip(table, points, strict=True):
    label = f"{name}{', on the front' if name in on_front else ''}"
    axis.scatter(size, score, s=70, color=unit(colours[name]), marker=shapes[name], label=label, zorder=3)
axis.step(*zip(*sorted(points[i] for i in front), strict=True), where="post", color="black", linewidth=1,
          linestyle="--")  # fmt: skip
axis.set(
    xscale="log",
    xlabel="million parameters that learned, decoder included",
    ylabel="mean Dice (%), three seeds",
)
axis.set_xticks([5e5, 1e6, 2e6, 5e6], ["0.5", "1", "2", "5"])
axis.minorticks_off()
axis.grid(alpha=0.3)
figure.legend(frameon=False, loc="outside right upper", fontsize=9)
print(f"{'':16} {'learned':>10} {'Dice':>6}")
for name, (size, score) in zip(table, points, strict=True):
    print(f"{name:16} {size:10,} {score:6.1f}")
plots.show(
    figure,
    "Mean Dice on kidneys against the number of parameters that learned. On the front: "
    + ", ".join(on_front)
    + ".",
)

# %% [markdown]
# > **Explain.** Is a method below the front useless? And is the front itself a fact?

# %%
dear = max(front, key=lambda i: points[i][0])
ends = [list(table)[i] for i in (min(front, key=lambda i: points[i][0]), dear)]
apart = statistics.difference(table[ends[1]], table[ends[0]])
below = [name for name in table if name not in on_front]
explanation(
    f"On the front: {', '.join(on_front)}. Below it: {', '.join(below) or 'none'}. Useless on these two "
    "axes; on a third, memory or time or how easily it is merged, such a method may be ahead.",
    (
        f"And a point has an interval. From the cheapest of the front, *{ends[0]}*, to its dearest, "
        f"*{ends[1]}*, it is {apart.mean:+.1f} ± {apart.half:.1f} points, {told(apart.mean, apart.half)}. "
        if ends[0] != ends[1]
        else "And a point has an interval. "
    )
    + "With other patients or another seed the front would run through other names. Draw the front, and "
    "then the intervals of section 3 for those who are close to it.",
)

# %% [markdown]
# ## 7. Where memory goes
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
# ### Exercise 5: `kept` (4 points, hard, about 12 minutes)
#
# For a chain linear, GELU, linear, GELU, ..., linear. `widths` has the width in front of the first layer and
# then the one behind each; `learns` says for each linear layer whether its weight learns; `input_learns`
# whether what comes in does. The chain ends with a linear layer, without a GELU behind it.


# %% labkit={"exercise": "kept", "role": "answer", "points": 4, "hides": ["labkit.training.cost:saved_for_backward"]}
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
my_kept = lab.working("kept", kept)


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
    mine = my_kept(100, widths, learns, prompts)
    assert mine == found
    print(f"{str(widths):22} {str(learns):34} {'learns' if prompts else '-':9} {mine:7,} {found:8,}")

# %% [markdown]
# > **Explain.** Compare the rows in which the first layer learns with the one in which nothing but the
# > prompts learns. What does freezing save, and what can it not save?

# %%
numbers_kept = {
    (learns, prompts): my_kept(100, (10, 20, 30), learns, prompts) for _, learns, prompts in cases[:-1]
}
all_learn, prompts_only = numbers_kept[(True, True), False], numbers_kept[(False, False), True]
explanation(
    f"With both layers learning {all_learn:,} numbers are kept, with nothing but prompts {prompts_only:,}. "
    "Freezing a weight saves the input that its gradient would have needed. It does not save what GELU "
    "keeps, nor what norms and attention keep in a transformer, as long as a gradient has to pass on its "
    "way down. That is why a method that inserts a little into the *first* block pays for the whole way. "
    f"With nothing that learns at all it is {numbers_kept[(False, False), False]}."
)

# %% [markdown]
# ## 8. What each method costs
#
# Now the real network: the methods of labs 01 to 06, as they are by default, on the laptop's backbone with a
# linear head, for one step of two slices. Nothing is trained to be good here: a step is taken to see what it
# costs. Counted are the activations that autograd keeps, in float32.
#
# > **Predict.** LoRA on all six matrices of a block lets a few per cent of the parameters learn. What per
# > cent of full tuning's activations will it keep? And BitFit, which only trains biases: a bias needs
# > nothing to be kept. What per cent?
# >
# > Your prediction: ...

# %%
MET = ("full", "head", "vpt_shallow", "vpt_deep", "lora", "adapter", "adapter_drop", "bitfit", "prefix",
       "parallel_adapter", "compacter", "adaptformer", "adapter_bias", "fact_tt")  # fmt: skip
MET = MET[: at_most(len(MET), 8)]  # all of them, but in quick mode
cases = kidney_patients("test", 2)
# (2, 1, 96, 96): two slices with one contrast; a copy, since a view would keep the whole patient
run = to_volume(cases[0]).image[38:40].clone()
empty = deltas.start()
settings = {name: METHODS[name]() for name in MET}
settings["lora, six"] = LoRA(targets=("q", "k", "v", "o", "fc1", "fc2"))
costs = {}
for name, method in tqdm(settings.items(), desc="methods", leave=False):
    costs[name] = cost.measure(tune(copy.deepcopy(empty), method), run, repeats=2)

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
    f"{lora6.saved_mib / full.saved_mib:.0%} of the activations; BitFit: {bitfit.tuned / full.tuned:.1%} "
    f"and {bitfit.saved_mib / full.saved_mib:.0%}.",
)

# %% [markdown]
# > **Explain.** The lecture leaves prompt and prefix tuning out of its memory plot, "because they use the
# > same amount of memory as full fine-tuning". Find `vpt_deep` and `vpt_shallow` in the table. What could
# > make the sentence true?

# %%
keeps = {name: one.saved_mib / full.saved_mib for name, one in costs.items()}
explanation(
    f"With ten prompts, deep ones keep {keeps['vpt_deep']:.0%} of what full tuning keeps and shallow ones "
    f"{keeps['vpt_shallow']:.0%}, LoRA on q and v {keeps['lora']:.0%}, an adapter {keeps['adapter']:.0%}. "
    + (
        "So the sentence is false here: frozen matrices need not keep their inputs. "
        if max(keeps["vpt_deep"], keeps["vpt_shallow"]) < 0.95
        else "So the sentence is about true here. "
    )
    + "Each prompt makes every sequence a token longer, so with enough prompts it comes true. *How many* "
    "belongs to such a sentence.",
    "LoRA's matrices keep the input of the layer they stand beside, just as a learning weight would: on "
    f"all six {keeps['lora, six']:.0%}, with {costs['lora, six'].tuned / full.tuned:.0%} of the "
    "parameters. It saves gradients and Adam's moments. BitFit's biases need nothing, but the gradient "
    f"has to pass GELU, norms and attention: {keeps['bitfit']:.0%}.",
    f"Really cheap is what lets the gradient end early: the head alone, {keeps['head']:.0%}. AdapterDrop, "
    f"{keeps['adapter_drop']:.0%}, goes a part of that way.",
)

# %% [markdown]
# The last column is time, and it follows neither of the others. A frozen weight saves the product that would
# give its gradient; the forward pass and the way down remain. New small layers add time that no count of
# parameters shows. And it is your machine's: run the cell twice, and see how much the column moves.
#
# **On a GPU** you will ask for the *peak*: how much the card held at the worst moment, weights, gradients,
# moments and temporary results included. Around one step of your loop:
#
# ```python
# torch.cuda.reset_peak_memory_stats()
# step()
# print(torch.cuda.max_memory_allocated() / 2**30, "GiB")
# ```
#
# We did so on an H100 (ViT-B/16 with UPerNet, 64 slices of 128 x 128, bfloat16): full 2.89 GiB, LoRA 1.86,
# adapter 2.01, BitFit 1.80, head 1.79. There the moments of 86 million weights count, and tuning little
# saves a third. A step took 48, 53, 50, 39 and 36 ms: no time is saved by LoRA or adapters.
# (labkit's LoRA needs fewer operations since; these numbers are from before. All methods: `docs/research.md`.)

# %% [markdown]
# ## 9. To read: an average of averages, and formulas counted
#
# Rankings of vision methods often come from **VTAB-1k**: 19 classification tasks with 1000 training images
# each (Zhai et al., 2019, arXiv:1910.04867), in three groups: 7 natural, 4 specialised (satellite and
# medical images), 8 structured (count, measure, locate). The benchmark's own average is the mean over the
# 19 tasks. Papers on parameter-efficient tuning give the mean of the three group means, and call it
# "average" as well: there a specialised task weighs twice as much as a structured one. Here are eleven
# methods on a ViT-B/16, as V-PETL Bench lists them (Xin et al., 2024).
#
# > **Predict.** Will the two averages order the methods alike?

# %%
averages = {name: (one.task_mean, one.group_mean) for name, one in RESULTS.items()}
places = [sorted(averages, key=lambda name: -averages[name][i]) for i in (0, 1)]
print("                 natural specialised structured    19 tasks  place    3 groups  place")
for name in places[1]:
    groups = "".join(f"{mean:11.2f}" for mean in RESULTS[name].groups.values())
    seats = [places[i].index(name) + 1 for i in (0, 1)]
    print(f"{name:12} {groups} {averages[name][0]:13.2f} {seats[0]:5} {averages[name][1]:12.2f} {seats[1]:5}")
swaps = [f"{a} and {b}" for a, b in itertools.combinations(places[1], 2)
         if (averages[a][0] - averages[b][0]) * (averages[a][1] - averages[b][1]) < 0]  # fmt: skip

# %%
explanation(
    (f"No: {', '.join(swaps)} change places with the average. " if swaps else "Here they do. ")
    + "Which of them is right depends on what you care about, and a table should say. Ask also: on which "
    "images were the rates chosen? The code of FacT tests every ten epochs on the test images and reports "
    "the best; the benchmark sets 200 of the 1000 training images aside. And there are no seeds and no "
    "intervals in such a table: with what you saw in section 3, how many of these places would you defend?"
)

# %% [markdown]
# The lecture's summary table gives a formula for the parameters of eight methods. Here they are for a
# ViT-B/16, beside what is really added. (The networks are built without memory for their numbers, on
# PyTorch's meta device.)
#
# > **Predict.** Which of the eight will be exact? Which will be off by more than a tenth?

# %%
Markdown(parameter_tables.formula_table())

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# LoRA's is exact: it has no biases. Most others forget biases, which is a little where the matrices are
# large and much where they are small (Compacter). Two more are off by more than a tenth, for other reasons: the
# parallel adapter stands in one place instead of two, and AdapterBias reads the wide middle of the MLP.
# In BitFit's row $d_m$ stands for the width in the middle of the MLP, in all others for a bottleneck: **one letter,
# two meanings, and with the wrong one the number is off by a third**. A formula is a claim about code; a count
# settles it.
# </details>

# %% [markdown]
# ## 10. The same LoRA in another library
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
# ### Exercise 6: `as_peft` (3 points, medium, about 8 minutes)
#
# `A_q` and `A_v` are (r, k), `B_q` and `B_v` (d, r). Return peft's A (2r, k), its B (3d, 2r), and its alpha.
# Several answers are right: what counts is the change of the matrix.


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
my_as_peft = lab.working("as_peft", as_peft)
r, alpha = 8, 16.0
ours = tune(deltas.start(), LoRA(r=r, alpha=alpha)).eval()
torch.manual_seed(0)
converted = []
with torch.no_grad():
    for block in blocks(ours.backbone):
        layer = block.attn.qkv
        layer.B.normal_(std=0.05)
        q_and_v = (t.detach() for t in (layer.A[0], layer.B[0], layer.A[1], layer.B[1]))
        A, B, theirs = my_as_peft(*q_and_v, alpha)
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
image = run[:1]
plain = deltas.start().backbone.eval()
has_peft = importlib.util.find_spec("peft") is not None
if has_peft:
    print("loading peft ...")
    import peft

    wrapped = peft.get_peft_model(
        copy.deepcopy(plain), peft.LoraConfig(r=2 * r, lora_alpha=theirs, target_modules=["qkv"])
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
# Half of the file is zeros. And it holds LoRA only: the head, without which nobody gets a segmentation,
# stays in labkit's own file. Whoever receives such a folder has to ask for it.

# %% [markdown]
# ### peft on a network of your own
#
# No timm, no labkit: any module whose linear layers have names. `target_modules` says where LoRA goes,
# `modules_to_save` what learns in full, here the new head. (Forget it, and the head stays random: lab 04.)


# %%
class Mine(nn.Module):
    """A network of one's own."""

    def __init__(self):
        super().__init__()
        self.lift, self.mix, self.head = nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 3)

    def forward(self, x):
        return self.head(torch.relu(self.mix(torch.relu(self.lift(x)))))


if has_peft:
    torch.manual_seed(0)
    mine = Mine()
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["lift", "mix"], modules_to_save=["head"])
    wrapped = peft.get_peft_model(copy.deepcopy(mine), config)
    wrapped.print_trainable_parameters()
    with tempfile.TemporaryDirectory() as folder:
        # ... here your own loop trains wrapped.parameters() ...
        wrapped.save_pretrained(folder)
        again = peft.PeftModel.from_pretrained(copy.deepcopy(mine), folder)
    x = torch.randn(5, 8)
    print("read back, the same outputs:", torch.equal(wrapped.eval()(x), again.eval()(x)))

# %% [markdown]
# ## 11. Look, and count elsewhere
#
# ### Equal Dice, other voxels
#
# Here are trained networks of labs 03 to 06 side by side, behind the linear head. (Of *rank-full*
# the kit keeps 32 directions of each matrix's change: it is full tuning, cut to rank 32.) In the picture on
# top each is a point: choose one in the list (click, or arrow keys), and another to compare it with.
#
# > **One question.** Find two methods whose Dice on this patient is nearly equal. Do they fail on the same
# > voxels? Predict what share of the wrong voxels is wrong in both.
# >
# > Your prediction: ...

# %%
COMPARED = ("rank-full", "rank-lora", "adapter-attn-mlp-48", "prompts-deep-10", "prompts-shallow-10", "probe")
MethodComparison(cases[:1], {"kidneys: single slices, linear head": COMPARED[: at_most(6, 3)]})

# %% [markdown]
# <details><summary>What to look for</summary>
#
# The words below the picture count the voxels that only one of the two has wrong, and those that both have.
# Much is shared: the borders, where one voxel is half kidney, and what the linear head cannot draw. The
# rest is not. Dice counts how many voxels are wrong, not which. **Two methods with equal Dice are two
# different networks.** If their failures differ, averaging their probabilities may help.
# (`MethodComparison()` without patients also has the brains of lab 08.)
# </details>

# %% [markdown]
# ### A budget
#
# And what would it cost elsewhere? Choose a method and its size, and see three networks: the laptop's, and
# the two of the Med-Tuning paper, with its decoders. Every count comes from building that network. (The still
# picture of a printed copy shows LoRA on q and v at rank 8.)
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
# method may insert 2.8 % and tune 17.7 % (Med-Tuning in its paper, with UPerNet). Ask which of the two numbers
# stands on the axis. Beside this decoder of 15 million, LoRA on q and v would catch up at a rank of about 400, on
# all six matrices at about 90.
# </details>

# %% [markdown]
# ## 12. Use it: plan a study, and report it
#
# A clinic will test LoRA against adapters on patients of its own. A difference below two points of Dice would
# change nothing for anybody. How many test patients does it need, so that a difference of two points is told
# from 0?
#
# ### Exercise 7: `patients_needed` (2 points, easy, about 5 minutes)
#
# `sd` is the standard deviation of the differences between patients, `apart` the difference that must be
# told. Return the smallest whole number of patients, 2 or more, for which half the width of the paired
# interval is *smaller* than `apart`. (1000 suffice for whatever is asked here.)


# %% labkit={"exercise": "patients_needed", "role": "answer", "points": 2}
def patients_needed(sd, apart):
    """The fewest patients whose paired 95 % interval has a half width below `apart`: an int."""
    ### BEGIN SOLUTION
    for n in range(2, 1001):
        if stats.t.ppf(0.975, n - 1) * sd / math.sqrt(n) < apart:
            return n
    ### END SOLUTION


# %% labkit={"exercise": "patients_needed", "role": "check"}
lab.check("patients_needed", patients_needed)

# %%
my_patients_needed = lab.working("patients_needed", patients_needed)
needed = {}
for organ, of in tables.items():
    y = statistics.contributions(of["LoRA"] - of["adapter"])
    sd = float(y.std(1, ddof=1).mean())
    needed[organ] = {apart: my_patients_needed(sd, apart) for apart in (4.0, 2.0, 1.0)}
    print(f"{organ}: sd of LoRA minus adapter over patients {sd:.1f} points; patients for a difference of "
          + ", ".join(f"{apart:g}: {n}" for apart, n in needed[organ].items()))  # fmt: skip

# %% [markdown]
# And the report. Not fair: *"LoRA outperforms full fine-tuning with 9 % of the parameters."* It says not on
# what, not by how much, not how sure, and not what was equal. The cell writes a better one from the stored
# rows.

# %%
one = statistics.difference(table["LoRA"], table["full"])
verb = {"undecided": "was not told apart from", "above": "was above", "below": "was below"}[
    told(one.mean, one.half)
]
print(
    f"On {one.patients} synthetic test patients with kidney tumours, LoRA (rank 8 on q and v, "
    f"{tuned['LoRA']:,} learned parameters\n"
    f"with the decoder) {verb} full tuning ({tuned['full']:,}): {one.mean:+.1f} points of Dice (mean of "
    "two regions;\n"
    f"95 % interval {one.low:+.1f} to {one.high:+.1f} for other patients and other seeds; {one.seeds} "
    "trainings each, the same 20 patients,\n"
    "batches and 200 steps; each rate the best of four on validation patients, full's at the edge of its "
    "grid)."
)

# %% [markdown]
# What belongs in it: the **patients** and how many; **what was equal** (data, steps, the way rates were
# chosen); the **difference** and its interval; **how many trainings**; the **costs** and what they count.
#
# > **Decide**, in five sentences: how many patients and how many trainings do you plan for the clinic, on
# > which number of this lab does your plan rest, what can go wrong, and how will the sentence read that you
# > want to be able to write in the end?
# >
# > Your plan: ...

# %%
one = statistics.difference(table["LoRA"], table["adapter"])
alone = statistics.estimate(statistics.contributions(table["LoRA"] - table["adapter"]).mean(0)[None, None])
explanation(
    f"For two points: {needed['kidneys'][2.0]} patients with the spread of the kidneys, "
    f"{needed['hippocampi'][2.0]} with that of the hippocampi. For half the difference up to four times "
    f"as many, because of the root: {needed['kidneys'][1.0]} and {needed['hippocampi'][1.0]}. It is the "
    "least: if the truth is exactly two points, the mean comes out below them half of the time, so plan "
    "for twice as many or so.",
    f"And it holds for *one* training. With {one.seeds} seeds the kidneys' interval of LoRA less adapter "
    f"is ± {one.half:.1f}, with the seeds averaged away ± {alone.half:.1f}. "
    + (
        "The seeds are most of it: plan more trainings before more patients. "
        if one.half > 1.4 * alone.half
        else "Seeds add little here. "
    )
    + "What can go wrong: the clinic's patients differ more than ours; rates are not chosen anew; somebody "
    "looks at the test in between.",
)

# %% [markdown]
# ## 13. Bonus
#
# * **Resample.** Draw patients with replacement, a thousand times, and take the 2.5 % and 97.5 % quantiles of
#   the mean difference (the bootstrap). How far is it from `paired`? Then draw seeds *and* patients.
# * **Two fronts.** Draw the front of section 6 with the activations of section 8 as cost. Who leaves it,
#   who enters?
# * **Brains.** Repeat section 3 with the table of brains (`everything["brain"]`). Three of its patients have
#   no enhancing tumour: `contributions` leaves each of them out of that region's mean. Where do its verdicts
#   differ from those on kidneys?
# * **More prompts.** At how many prompts does `VPTDeep(n)` keep as much as full tuning? Solve it by
#   bisection.

# %% [markdown]
# ## 14. Test yourself
#
# <details><summary>1. Why compare patient by patient?</summary>
# Patients differ, often more than methods do. In the difference, what makes a patient hard for both cancels.
# </details>
#
# <details><summary>2. Three seeds, 200 patients, and still a wide interval. What will shrink it?</summary>
# More trainings. The seeds' part is divided by their number, not by that of the patients.
# </details>
#
# <details><summary>3. Which cost does LoRA hardly improve?</summary>
# Activations, if it stands at all matrices: each keeps its input for A's gradient, as a learning weight
# would.
# </details>
#
# <details><summary>4. Is a dominated method useless?</summary>
# On these axes. Add one (time, merging, memory), and it may be on the front.
# </details>
#
# <details><summary>5. What must be equal in a comparison, and what may differ?</summary>
# Patients, batches, steps, and the effort of choosing rates. The chosen rate may differ: it belongs to the
# method.
# </details>

# %% [markdown]
# ## 15. What changes on real data
#
# * **Memory has other cures.** Gradient checkpointing forgets activations and computes them again. It moves
#   every method on that axis, and costs time.
# * **Arithmetic is not time.** On a GPU small layers wait for memory; a method with fewer operations may be
#   slower.
# * **Hospitals, not patients.** Patients of one scanner resemble each other. Then hospitals are the sample,
#   as seeds are here: a third level, and the one with the fewest cases.
# * **What is not seen in Dice.** A missed small lesion costs a patient more than a border that is one voxel
#   off. Lab 08 scores lesions one by one.

# %%
lab.progress()
