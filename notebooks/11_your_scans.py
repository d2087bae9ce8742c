# %% [markdown]
# # Lab 11: Your own scans, in one evening
#
# So far your patients came ready-made. Nobody will do that for you. In this lab you get a **folder**, as a
# hospital would send it, and take it all the way to a labelled scan that a colleague can open. You will
#
# 1. **look** at files before you train, and **find** the one that is broken;
# 2. **window** a CT, and bring labels to another grid without inventing any;
# 3. **split** by patient, and **choose** a method for a budget without the test patients;
# 4. **train** it beside a threshold and two controls, and **judge** the table with its intervals;
# 5. **label** a new scan on its own grid, **hand on** what was learned, and **write** the model card.
#
# | | |
# | --- | --- |
# | Time | about 100 minutes, 16 points; 45 if you leave exercises 2, 4 and 6 to labkit and stop after section 8 |
# | Computer | any laptop, no GPU; six trainings of about 20 seconds each |
# | Counted | 105 minutes with all exercises: 2,427 words, 520 lines of code, 6 exercises, 3 minutes of computing; 1.5 GB of memory |
# | You know | labs 00, 01 and 04 (Dice, controls, LoRA); 07 (intervals) helps |
#
# As always: **predict**, **run**, **explain**.

# %% [markdown]
# ## 1. The folder
#
# Two lines are yours to change. `DATA` is `"demo"`, or a folder laid out as in the Medical Segmentation
# Decathlon, or `"hippocampus"` once `labkit get hippocampus` has brought those to your computer. `OUT` is where
# everything is written; a folder of your own keeps it after the lab.

# %%
import json
import re
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure

from labkit import metrics, tuning
from labkit.explore import plots
from labkit.explore.pictures import BLUE, GREEN, VERMILLION, YELLOW, label_colours, unit
from labkit.lessons import start
from labkit.methods import Head, LoRA
from labkit.metrics import dice_by_region, regions_of
from labkit.networks.segmenter import resize
from labkit.phantoms.demo_folder import demo_folder
from labkit.scans import msd, nifti
from labkit.scans.folders import read_folder
from labkit.scans.get import folder_of
from labkit.scans.hounsfield import WINDOW_HU
from labkit.scans.scans import only_file
from labkit.scans.slices import to_volume
from labkit.studies import statistics, store
from labkit.studies.table import apart_of
from labkit.training.evaluate import predict
from labkit.training.fit import Recipe, fit, fresh
from labkit.training.label_scan import about_of, label_scan
from labkit.training.quick import at_most
from labkit.training.threshold import best_bands
from labkit.tuning import count
from labkit.updates.peft_format import load_peft, save_peft

lab = start("11")

DATA = "demo"  # or a folder of yours, or "hippocampus"
OUT = Path(tempfile.mkdtemp())  # or Path("my-study"), a new folder


def explanation(words):
    """A fold whose sentences are made from the numbers that were just computed."""
    return Markdown(
        f"<details><summary>Our explanation, with your numbers</summary>\n\n{words}\n\n</details>"
    )


# %%
folder = demo_folder(OUT / "demo-kidneys") if DATA == "demo" else folder_of(Path(DATA))
about = (
    json.loads((folder / "dataset.json").read_text("utf-8-sig")) if (folder / "dataset.json").exists() else {}
)
everybody = msd.msd_cases(folder)
names = everybody[:40]  # enough for an evening


def path_of(part, name):
    """The file of a scan ("imagesTr") or of its labels ("labelsTr"), packed or not."""
    return only_file(folder / part, [name], "file")


def voxels_of(path):
    """Slices, rows, columns of a file's first channel; the first row is in front."""
    voxels, _ = nifti.load(path)
    return voxels[..., 0] if voxels.ndim == 4 else voxels


for said in ("name", "description", "licence", "modality", "labels"):
    print(f"{said}: {about.get(said, 'not said')}")
of = f", the first of {len(everybody)}" * (len(everybody) > len(names))
print(f"{len(names)} labelled scans{of}: {', '.join(names[:14])}{', ...' * (len(names) > 14)}")

# %% [markdown]
# In a terminal `labkit demo-folder demo-kidneys` writes the same folder. The scans are **synthetic**, no real
# patients. Read the **licence** first, always: it decides whether you may train, and what you may hand on.
#
# ## 2. Look before you train
#
# A scan is numbers and a **header**. The header says how long a voxel is in mm (*spacing*), and towards which
# side of the patient each axis runs: `LPS` is left, posterior, superior. Both are in a matrix, the *affine*.
# The labels must lie on the same grid.
#
# > **Predict.** One of these scans is broken on purpose. Which columns of the table would show you a scan that
# > is mirrored? One that is stretched? One whose numbers were scaled?
# >
# > Your prediction: ...

# %%
scans, in_use = {}, set()
print(f"{'scan':18} axes {'voxels':>14} {'mm':>12}   5 %  50 %  99 %   voxels of each label")
for name in names:
    file, labels = (nib.load(path_of(part, name)) for part in ("imagesTr", "labelsTr"))
    assert np.allclose(file.affine, labels.affine, atol=0.1), f"{name}: image and label lie apart"
    scans[name], axes = np.asarray(file.dataobj), "".join(nib.aff2axcodes(file.affine))
    low, middle, high = np.percentile(scans[name], (5, 50, 99))
    shape, mm = ("x".join(f"{n:g}" for n in of) for of in (file.shape[:3], file.header.get_zooms()[:3]))
    found = np.unique(np.asarray(labels.dataobj).astype(int), return_counts=True)
    in_use |= set(found[0].tolist()) - {0}
    print(f"{name:18} {axes:4} {shape:>14} {mm:>12} {low:5.0f} {middle:5.0f} {high:5.0f}  ",
          {int(k): int(n) for k, n in zip(*found, strict=True) if k})  # fmt: skip

# %% [markdown]
# Scaled numbers show in the percentiles, a wrong spacing in *mm*. A mirrored scan shows in no column unless its header
# says so: that takes an eye on the liver.
#
# A CT is measured in **Hounsfield units**: water has 0, air -1000, whatever the scanner. That is what makes scans
# of two hospitals comparable, and it is lost easily. A file holds whole numbers, and a *slope* and an *intercept*
# by which they become HU; a converter that forgets one of them writes a file that every reader takes.
#
# Around a patient there is air. So the darkest twentieth of a scan of the trunk is air, and should measure
# -1000 HU.
#
# ### Exercise 1: `not_in_hu` (3 points, 6 minutes; easy)
#
# `scans` is a dictionary, name to array. Return the list of the names, in their order, of all scans whose 5th
# percentile is more than 100 HU away from -1000.


# %% labkit={"exercise": "not_in_hu", "role": "answer", "points": 3}
def not_in_hu(scans):
    """Names of the scans whose air (their 5th percentile) is more than 100 HU away from -1000: a list."""
    ### BEGIN SOLUTION
    air = {name: np.percentile(scan, 5) for name, scan in scans.items()}
    return [name for name, hu in air.items() if abs(hu + 1000) > 100]
    ### END SOLUTION


# %% labkit={"exercise": "not_in_hu", "role": "check"}
lab.check("not_in_hu", not_in_hu)

# %% [markdown]
# Stuck? `lab.hint("not_in_hu")` gives a nudge; again, and it says more.

# %%
my_not_in_hu = lab.working("not_in_hu", not_in_hu)
CT = about.get("modality", {}).get("0") == "CT"
broken = my_not_in_hu(scans) if CT else []  # other contrasts have no unit
good = [name for name in names if name not in broken]
print("not in HU:", ", ".join(broken) or "none")

# %%
figure = Figure(figsize=(7.5, 3.2), layout="constrained")
axis = figure.subplots()
shown = [(good[0], BLUE, "-"), (good[1], GREEN, ":"), *((name, VERMILLION, "--") for name in broken[:1])]
for name, colour, line in shown:
    share, ends = np.histogram(scans[name], 120, (-1100, 600) if CT else None, density=True)
    label = f"{name}, broken" if name in broken else name
    axis.semilogy((ends[1:] + ends[:-1]) / 2, share, line, color=unit(colour), label=label)
axis.set(xlabel="HU" if CT else "intensity as stored", ylabel="share of the voxels, per unit")
axis.legend(frameon=False)
plots.show(
    figure,
    "Histograms of the intensities of two scans that are well, solid and dotted"
    + (
        ", and, dashed, of one that is not. Where the "
        "others have a peak of air at -1000, the broken one has its peak half-way to 0."
        if broken
        else "."
    ),
)

# %% [markdown]
# > **Explain.** What is wrong with the broken scan? Would a network have complained? And may you mend it?

# %%
if broken:
    air, well = (float(np.percentile(scans[name], 5)) for name in (broken[0], good[0]))
    told = (
        f"Air measures **{air:.0f}** in {broken[0]} and {well:.0f} in {good[0]}: all its numbers are "
        f"{air / well:.2f} times what they should be. Its header is faultless, its labels fit, and labkit "
        "reads it without a word. A network would not complain, either: it would learn that some kidneys are "
        "half as bright.\n\nDividing by that number would *probably* mend it. Probably: you would guess what "
        "happened, of a patient's scan. So write to whoever sent it, and **leave it out** until they answer. "
        "The model card at the end says that you did."
    )
else:
    told = "All scans have air where it should be, or are no CT. Look at the table above all the same."
explanation(told)

# %% [markdown]
# ## 3. A window
#
# A CT has some 4,000 values, a screen 256 greys. So a radiologist looks through a **window**: `centre` and `width`
# in HU. What lies below it is black, above it white, between it grey. A soft-tissue window of the abdomen is
# centre 40, width 400. Networks are given a window, too, or bone and air decide what "bright" is.
#
# > **Predict.** How does a kidney look in a window for bone, centre 500 and width 1500? In one for the lung,
# > centre -600 and width 1500?
# >
# > Your prediction: ...
#
# ### Exercise 2: `windowed` (2 points, 5 minutes; easy)
#
# Return `hu` as grey values: 0 at the lower end of the window and below, 1 at its upper end and above, linear
# between. The width is that of the whole window.


# %% labkit={"exercise": "windowed", "role": "answer", "points": 2}
def windowed(hu, centre, width):
    """hu in a window of HU, an array of the same shape with numbers from 0 to 1."""
    ### BEGIN SOLUTION
    low = centre - width / 2
    return np.clip((hu - low) / width, 0, 1)
    ### END SOLUTION


# %% labkit={"exercise": "windowed", "role": "check"}
lab.check("windowed", windowed)

# %%
my_windowed = lab.working("windowed", windowed)
turned, truth = (voxels_of(path_of(part, good[0])) for part in ("imagesTr", "labelsTr"))
level = int((truth > 0).sum((1, 2)).argmax())
ours = (sum(WINDOW_HU) / 2, WINDOW_HU[1] - WINDOW_HU[0])
windows = {"abdomen": (40, 400), "labkit's": ours, "bone": (500, 1500), "lung": (-600, 1500)}
if not CT:  # no unit, so windows are taken from the scan itself: from one percentile to another
    low, dark, middle, bright, high = (float(np.percentile(turned, q)) for q in (0, 1, 50, 99, 100))
    ends = {
        "all of it": (low, high),
        "1 to 99 %": (dark, bright),
        "too dark": (middle, high),
        "too bright": (low, middle),
    }
    windows = {name: ((b + a) / 2, max(b - a, 1e-6)) for name, (a, b) in ends.items()}
figure = Figure(figsize=(9, 3.6), layout="constrained")
for axis, (name, (centre, width)) in zip(figure.subplots(1, 4), windows.items(), strict=True):
    axis.imshow(my_windowed(turned[level], centre, width), cmap="gray", vmin=0, vmax=1)
    axis.contour(truth[level] > 0, [0.5], colors=[unit(YELLOW)], linewidths=1)
    axis.set(title=f"{name}\n{centre:g}, {width:g}{' HU' * CT}", xticks=[], yticks=[])
figure.axes[0].plot([], [], color=unit(YELLOW), label="outline of all labels")
figure.legend(frameon=False, loc="outside lower center")
plots.show(
    figure,
    "The same slice in four windows. "
    + (
        "In the one for the abdomen and in labkit's, kidneys stand out from fat and "
        "muscle; in the one for bone all soft tissue is one dark grey, in the one for the lung it is white."
        if CT
        else "From the lowest to the highest value, from the 1st to the 99th percentile, from the median upwards, and "
        "up to the median; contrasts without a unit have no windows of their own."
    ),
)

# %% [markdown]
# <details><summary>Our explanation</summary>
#
# A kidney with contrast agent has some 180 HU, muscle 60, a tumour 50 to 120. The window for bone gives these
# differences a tenth of its greys; in the one for the lung all of them lie above the upper end, 150 HU, or just
# below it. labkit's runs from -160 to 304 HU, so that fat, muscle, tumour and kidney are four greys.
# `labkit train` and the reader below cut CT off at its ends, and the window is written into what you hand on.
# </details>

# %% [markdown]
# ## 4. Split by patient
#
# A folder has scans; a study has **patients**. Somebody who was scanned twice is one patient, and if one of the
# scans is trained on and the other is tested on, the test is an examination whose answers were handed out.
#
# In the demo a name is the patient's and the number of the scan: `kidney-04_2` is the second one of kidney-04. In
# your own data ask how they are told apart.
#
# ### Exercise 3: `split_by_patient` (3 points, 8 minutes; medium)
#
# `patient_of` is a dictionary, scan to patient. Return two lists of *scans*, first those to train on, then those of
# exactly `n_test` patients to be tested on. No scan is lost, nobody is in both. Which patients you choose is up to
# you; draw them with a seed, so that tomorrow's split is today's.


# %% labkit={"exercise": "split_by_patient", "role": "answer", "points": 3, "hides": ["labkit.scans.folders:split"]}
def split_by_patient(patient_of, n_test):
    """Scans to train on, and all scans of n_test other patients: two lists of names."""
    ### BEGIN SOLUTION
    patients = sorted(set(patient_of.values()))
    chosen = np.random.default_rng(6).permutation(patients)[:n_test]
    train = [scan for scan, patient in patient_of.items() if patient not in chosen]
    test = [scan for scan, patient in patient_of.items() if patient in chosen]
    return train, test
    ### END SOLUTION


# %% labkit={"exercise": "split_by_patient", "role": "check"}
lab.check("split_by_patient", split_by_patient)

# %%
my_split_by_patient = lab.working("split_by_patient", split_by_patient)
PATIENT = re.compile(r"(kidney-\d+)_\d+")  # of the demo; elsewhere every scan is its own patient
patient_of = {name: match[1] if (match := PATIENT.fullmatch(name)) else name for name in good}
n_patients = len(set(patient_of.values()))
train_names, test_names = my_split_by_patient(patient_of, max(3, n_patients // 5))
first_of = {patient_of[name]: name for name in reversed(test_names)}  # one scan of each patient is tested on
test_names = sorted(first_of.values())
print(f"{len(good)} scans of {n_patients} patients")
print(f"train on {len(train_names)} scans of {len({patient_of[name] for name in train_names})} patients")
print("test on", ", ".join(test_names))

# %% [markdown]
# Of a test patient with two scans only the first is scored: two scans of one patient are no two patients, and an
# interval that takes them for two is too narrow. (Python's `set` of texts has another order in every session. Who
# does not sort before drawing has another split tomorrow.)
#
# ## 5. One grid for all, and labels that stay labels
#
# The table has scans at 3 and at 4 mm. A network that sees both sees kidneys of two sizes, so they are **resampled**
# to one spacing. Between two voxels of an image one takes something between: linear interpolation. Now the labels:
# 0 is background, 1 kidney, 2 tumour.
#
# > **Predict.** A tumour in fat, labels `0 2 2 0`. What does linear interpolation, rounded, put between a 0 and a
# > 2? Who would notice?
# >
# > Your prediction: ...
#
# ### Exercise 4: `nearest_label` (3 points, 9 minutes; medium)
#
# Along each axis new voxel i lies at the old place i x step. Return the labels of the **nearest** old voxels, an array
# of the given `shape` and of the type of `label`. A place beyond the last voxel takes the last one. (`step` and
# `shape` have a number for each axis; no place lies exactly half-way.)


# %% labkit={"exercise": "nearest_label", "role": "answer", "points": 3, "hides": ["labkit.scans.nifti:resample"]}
def nearest_label(label, step, shape):
    """label (S, H, W) at i * step along each axis, by the nearest voxel: an array of this shape."""
    ### BEGIN SOLUTION
    places = []
    for n, s, old in zip(shape, step, label.shape, strict=True):
        nearest = np.rint(np.arange(n) * s).astype(int)
        places.append(np.minimum(nearest, old - 1))
    return label[np.ix_(*places)]
    ### END SOLUTION


# %% labkit={"exercise": "nearest_label", "role": "check"}
lab.check("nearest_label", nearest_label)

# %%
my_nearest_label = lab.working("nearest_label", nearest_label)
lower, upper = min(in_use), max(in_use)  # in the demo 1 and 2
largest = max(good, key=lambda name: (voxels_of(path_of("labelsTr", name)) == upper).sum())
label = np.rint(voxels_of(path_of("labelsTr", largest))).astype(np.uint8)
step = (0.8, 0.8, 0.8)
shape = tuple(int(n / s) for n, s in zip(label.shape, step, strict=True))
kept = my_nearest_label(label, step, shape)
linear = np.rint(nifti.resample(label.astype(float), (1, 1, 1), step, order=1, shape=shape)).astype(np.uint8)
invented = (linear == lower) & (kept != lower)
near = np.pad(kept == lower, 1)
S, H, W = kept.shape
touching = sum(near[i : i + S, j : j + H, k : k + W] for i in range(3) for j in range(3) for k in range(3))
rim = invented & (touching == 0)  # no such label in the 26 voxels around
print(
    f"{largest}: on a grid of 0.8 times the spacing, label {lower} has {(kept == lower).sum():,} voxels by yours"
)
print(f"linear and rounded: {(linear == lower).sum():,}; {invented.sum():,} of them are none of yours,")
print(f"and {rim.sum():,} of these do not even touch one")

# %%
called = {value: about.get("labels", {}).get(str(value), f"label {value}") for value in (lower, upper)}
one, two, colours = called[lower], called[upper], label_colours(called)  # the kit's colours in every figure
where = int((rim.sum((1, 2)) * (kept == lower).any((1, 2))).argmax())  # a slice with both labels
labelled = np.argwhere(linear[where] > 0)  # a rim of one voxel is seen from near only
(top, left), (bottom, right) = (
    (labelled.min(0) - 4, labelled.max(0) + 4) if len(labelled) else ((0, 0), (H, W))
)
figure = Figure(figsize=(7, 2.8), layout="constrained")
for axis, (title, volume) in zip(
    figure.subplots(1, 2), {"nearest": kept, "linear, rounded": linear}.items(), strict=True
):
    for value in called:
        if (volume[where] == value).any():
            axis.contourf(volume[where] == value, [0.5, 1.5], colors=[unit(colours[value])])
    axis.set(title=title, xticks=[], yticks=[], aspect="equal", xlim=(left, right), ylim=(bottom, top))
plots.legend(figure, called, colours)
plots.show(
    figure,
    "Labels of one slice on the finer grid. "
    + (
        f"By the nearest voxel the {two} borders on the background; by linear interpolation a thin rim of "
        f"label {lower}, {one}, lies around it."
        if lower < upper
        else f"The only one is {one}, so both ways give it nearly the same border."
    ),
)

# %%
if lower == upper:
    told = (
        f"Your scans have one label, *{one}*, and no other lies between it and 0. With a second one there is."
    )
elif rim.sum():
    told = (
        f"On the way from 0 to {upper} lies {lower}, and {lower} is *{one}*. So the {two} gets a rim of {one}: "
        f"{rim.sum():,} voxels of it touch no true {one}. Nothing complains: all values are allowed ones. The "
        "network learns the rim, the test has it, too, and both agree."
    )
else:
    told = (
        f"On the way from 0 to {upper} lies {lower}, and {lower} is *{one}*. Here the rim touches true {one} "
        "everywhere, so it does not show far from it; it is wrong all the same."
    )
explanation(f"{told} **A label is a name. Names have no mean.**")

# %% [markdown]
# labkit's reader does all of this: it turns every scan to the same axes, cuts CT off at the window, and resamples
# images linearly and labels to the nearest voxel.

# %%
spacing_mm = 3 if DATA == "demo" else None
cases, problems = read_folder(folder, [*train_names, *test_names], spacing_mm)
for name, problem in problems.items():
    print(f"left out, {name}: {problem}")
volumes = {case.name: to_volume(case) for case in cases}
train, test = ([volumes[name] for name in part if name in volumes] for part in (train_names, test_names))
regions = regions_of(cases[0].label_names)
print("a scan as the network sees it:", tuple(train[0].image.shape), "  regions:", ", ".join(regions))

# %% [markdown]
# ## 6. A method for a budget, chosen without the test
#
# What you hand on must fit into an e-mail to a small clinic: **2.1 MB**, which are 525,000 numbers of 4 bytes, the
# decoder included. Your own patients are too few to choose a method on. But somebody has done a larger study of the
# same organ: the stored table of digital kidneys (`labkit sweep kidney --table`), 20 other test patients, three
# seeds, rates chosen on validation patients.
#
# > **Predict.** Whom will the budget exclude? Is the best of the rest chosen by the validation or by the test
# > column, and which number do you tell your colleague?
# >
# > Your prediction: ...

# %%
BUDGET = 525_000
kidney = store.results("kidney")
rows = []
for row in kidney.sweep.rows:
    trainings = kidney.trainings(row)
    if trainings and row.name not in ("threshold", "frozen random", "Scratch"):
        by_seed = np.nanmean(100 * statistics.scores(trainings), axis=(1, 2))
        on_validation = [100 * line["validation"] for line in trainings]
        tuned = trainings[0]["tuned"]
        rows.append({"name": row.name, "tuned": tuned, "validation": on_validation, "test": by_seed.tolist()})
print(f"{'':12} {'learns':>10}        validation, seed by seed")
for row in sorted(rows, key=lambda row: row["tuned"]):
    fits = "fits" if row["tuned"] <= BUDGET else "    "
    print(f"{row['name']:12} {row['tuned']:10,}  {fits}  ", *(f"{dice:6.1f}" for dice in row["validation"]))

# %% [markdown]
# The test column is not printed. Who sees it, chooses by it, whatever he means to do.
#
# ### Exercise 5: `best_within` (2 points, 6 minutes; easy)
#
# A row is a dictionary with `name`, `tuned` (how many numbers learn), and `validation` and `test`, a Dice for each
# seed. Of the rows that learn **at most** `budget` numbers take the one with the best *mean* validation Dice. Return
# its name, and the mean Dice that you may tell of it.


# %% labkit={"exercise": "best_within", "role": "answer", "points": 2}
def best_within(rows, budget):
    """Name of the best row within the budget, and the mean Dice to tell of it."""
    ### BEGIN SOLUTION
    affordable = [row for row in rows if row["tuned"] <= budget]
    best = max(affordable, key=lambda row: np.mean(row["validation"]))
    return best["name"], float(np.mean(best["test"]))
    ### END SOLUTION


# %% labkit={"exercise": "best_within", "role": "check"}
lab.check("best_within", best_within)

# %%
my_best_within = lab.working("best_within", best_within)
chosen, told_dice = my_best_within(rows, BUDGET)
best_of_all, _ = my_best_within(rows, max(row["tuned"] for row in rows))
print(f"within {BUDGET:,} numbers: {chosen}, {told_dice:.1f} on the 20 test patients")
print(f"without a budget it would be {best_of_all}")
ranks = store.results("ranks_kidney")
print("\nrank, behind a linear head, and how far it is from rank 1 (95 %, other patients and other seeds):")
beyond_1 = {}
for r in (1, 2, 4, 8, 16):
    one = statistics.estimate(100 * statistics.scores(ranks.trainings(ranks.sweep.row(f"r = {r}"))))
    apart = apart_of(ranks, f"r = {r}", "r = 1")
    beyond_1[r] = apart
    beside = f"{apart.mean:+.1f} ({apart.low:.1f} to {apart.high:.1f})" if r > 1 else ""
    print(f"r = {r:2}  {one.mean:.1f}   {beside}")

# %%
by_name = {row["name"]: row for row in rows}
lora, head = by_name["LoRA"]["tuned"], by_name["Head"]["tuned"]
a_rank = (lora - head) // 8
told = [r for r, apart in beyond_1.items() if r > 1 and not apart.low <= 0 <= apart.high]
explanation(
    f"The budget excludes {', '.join(row['name'] for row in rows if row['tuned'] > BUDGET)}. Of the others "
    f"*{chosen}* is best on validation patients, and **{told_dice:.1f}** is what you may tell: the validation "
    "Dice was used to choose, so it is too good by luck. "
    + (f"The budget costs something: *{best_of_all}* would be better. " if best_of_all != chosen else "")
    + f"\n\nA rank of LoRA on q and v costs {a_rank:,} numbers, so ranks up to {(BUDGET - head) // a_rank} fit. "
    + (
        f"Ranks {told} are told apart from rank 1. "
        if told
        else "No rank is told apart from rank 1 in that table: a higher one buys nothing that it could show. "
    )
    + "We train rank 8 below, as the table of methods did; you may take less."
)

# %% [markdown]
# ## 7. Train, beside what it has to beat
#
# Four rows. The **threshold** of lab 01, a band of brightness without a network. **Frozen random**: the decoder
# behind a backbone that never saw an image, the control for "pre-training pays". **Head**: the same behind the
# pretrained one, the control for "LoRA pays". And **LoRA**. Each network is trained with two seeds, 40 steps of 4
# slices; seed for seed they see the same batches. Rates are those of lab 01, chosen there on other patients.
#
# > **Predict.** Three test patients, two seeds. Will LoRA be *told apart* from head? From frozen random?
# >
# > Your prediction: ...

# %%
RANK, SEEDS, STEPS = 8, (0, 1)[: at_most(2, 1)], 40  # one seed when tests run this notebook
METHODS = {
    "frozen random": (Head(), {"weights": None}, {"head_lr": 8e-3}),
    "head": (Head(), {}, {"head_lr": 8e-3}),
    "LoRA": (LoRA(r=RANK), {}, {"lr": 3e-3}),
}
models, histories = {}, {}


def train_seeds(name):
    """A network for each seed, trained on our patients."""
    method, network, rate = METHODS[name]
    models[name] = [fresh(method, train[0].case, seed, **network) for seed in SEEDS]
    for seed, model in zip(SEEDS, models[name], strict=True):
        history = fit(model, train, Recipe(steps=STEPS, batch_size=4, seed=seed, **rate))
        histories[f"{name}, seed {seed}"] = history
        print(f"{name}, seed {seed}: {count(model).tuned:,} numbers learn, loss {history[-1]['loss']:.2f}")


train_seeds("frozen random")

# %%
train_seeds("head")

# %%
train_seeds("LoRA")

# %%
plots.show(
    plots.curves({name: rows for name, rows in histories.items() if name.endswith("seed 0")}),
    "Training loss against step for frozen random, head and LoRA, first seed.",
)

# %% [markdown]
# Now every network looks at every test patient.

# %%
found = {name: [[predict(model, v) for v in test] for model in models[name]] for name in models}
bands = best_bands(train)


def by_band(volume):
    """The labels that the threshold gives, region by region; a smaller region is painted over a larger."""
    labels = np.zeros_like(volume.case.label)
    for region, values in regions.items():
        labels[bands[region](volume)] = values[-1] if len(values) == 1 else values[0]
    return labels


found["threshold"] = [[by_band(v) for v in test]] * len(SEEDS)  # the same whatever the seed

# %% [markdown]
# ## 8. A Dice that hides nobody
#
# One of the demo's scans does not reach the tumour: kidneys, and no tumour. What is the Dice of a network that marks
# no tumour there? 2 x 0 / 0. The BraTS challenge says 1. Others add a small number above and below, and get 1
# without having decided anything.
#
# > **Predict.** A network that never marks a tumour is tested on three patients, one of whom has none. What is its mean
# > Dice, if empty against empty counts as 1?
# >
# > Your prediction: ...
#
# ### Exercise 6: `dice_of_region` (3 points, 9 minutes; medium)
#
# `predictions` and `truths` are lists of boolean masks, one each for every patient. Return two numbers: the mean Dice
# over the patients who **have** the region (NaN if nobody has it), and beside it, in ml, what is marked in those who
# do **not** have it, all together. One voxel has `voxel_ml`.


# %% labkit={"exercise": "dice_of_region", "role": "answer", "points": 3, "hides": ["labkit.metrics:score_region"]}
def dice_of_region(predictions, truths, voxel_ml):
    """Mean Dice of the patients who have the region, and ml marked in those who have not: two floats."""
    ### BEGIN SOLUTION
    dices, false = [], 0
    for P, T in zip(predictions, truths, strict=True):
        if T.any():
            dices.append(2 * (P & T).sum() / (P.sum() + T.sum()))
        else:
            false += P.sum()
    mean = float(np.mean(dices)) if dices else float("nan")
    return mean, float(false * voxel_ml)
    ### END SOLUTION


# %% labkit={"exercise": "dice_of_region", "role": "check"}
lab.check("dice_of_region", dice_of_region)

# %%
my_dice_of_region = lab.working("dice_of_region", dice_of_region)
region, values = list(regions.items())[-1]
truths = [np.isin(v.case.label, values) for v in test]
nothing = [np.zeros_like(T) for T in truths]
voxel_ml = float(np.prod(test[0].case.spacing_mm)) / 1000
lacking = [v.case.name for v, T in zip(test, truths, strict=True) if not T.any()]
print(f"test patients without {region}: {', '.join(lacking) or 'none'}\n")
print(f"Dice of {region} in per cent, networks of the first seed")
print(f"{region:15} empty against empty is 1   who has it   marked in who has not")
hidden = {}
for name in ("marks nothing", *found):
    masks = nothing if name == "marks nothing" else [np.isin(labels, values) for labels in found[name][0]]
    naive = float(np.mean([metrics.dice(P, T) for P, T in zip(masks, truths, strict=True)]))
    mean, false_ml = my_dice_of_region(masks, truths, voxel_ml)
    hidden[name] = naive, mean, false_ml
    print(f"{name:15} {100 * naive:22.1f} {100 * mean:16.1f} {false_ml:18.1f} ml")

# %%
naive, mean, _ = hidden["marks nothing"]
gain = {name: one for name, one in hidden.items() if one[0] - one[1] > 0.05}
explanation(
    f"A network that marks nothing has a mean Dice of **{100 * naive:.0f}** by the rule of BraTS, "
    + (
        f"because {len(lacking)} of {len(test)} patients have no {region}; over those who have one it is "
        f"**{100 * mean:.0f}**. Raised by more than five points: {', '.join(gain) or 'nobody'}. Whoever compares "
        "such means compares how willing a network is to say nothing."
        if lacking
        else f"as here every test patient has a {region}: the two columns agree. Another split, or another "
        "hospital, and they will not."
    )
    + " So labkit leaves such a patient out of the mean, and puts what is marked in him beside it."
)

# %% [markdown]
# ### The table
#
# Dice by labkit's rule, now the mean over the seeds. Then each network minus its control on the *same patients*, with
# the interval of lab 07: Student's t, for other patients **and** other seeds.

# %%


def scores_of(name):
    """Dice in per cent, (seeds, regions, patients); NaN where a patient does not have the region."""
    return 100 * np.array(
        [
            np.transpose(
                [
                    list(dice_by_region(labels, v.case.label, v.case.label_names).values())
                    for labels, v in zip(of_seed, test, strict=True)
                ]
            )
            for of_seed in found[name]
        ]
    )


score = {name: scores_of(name) for name in ("threshold", *METHODS)}
print(f"{'Dice (%)':14}", *(f"{r:>10}" for r in regions), f"{'mean':>8}")
for name, values in score.items():
    by_region = np.nanmean(values, axis=(0, 2))
    print(f"{name:14}", *(f"{x:10.1f}" for x in by_region), f"{statistics.estimate(values).mean:8.1f}")
PAIRS = (("head", "frozen random"), ("LoRA", "head"), ("LoRA", "threshold"))
apart = {pair: statistics.difference(*(score[name] for name in pair)) for pair in PAIRS}
print(f"\ndifferences, 95 % for other patients and other seeds ({len(test)} patients, {len(SEEDS)} seeds):")
for (one, other), is_apart in apart.items():
    print(f"{one:6} less {other:14} {is_apart.mean:+6.1f} ({is_apart.low:.1f} to {is_apart.high:.1f})")

# %%
stored = {
    (one, other): apart_of(kidney, row, rival)
    for one, other, row, rival in (
        ("head", "frozen random", "Head", "frozen random"),
        ("LoRA", "head", "LoRA", "Head"),
    )
}


def verdict(one):
    """What may be said of a difference."""
    return "not told apart" if one.low <= 0 <= one.high else "above" if one.mean > 0 else "below"


lines = [
    f"*{one}* less *{other}*: here {apart[one, other].mean:+.1f} ± {apart[one, other].half:.1f}, "
    f"{verdict(apart[one, other])}; in the stored table of {big.patients} patients and {big.seeds} seeds "
    f"{big.mean:+.1f} ± {big.half:.1f}, {verdict(big)}."
    for (one, other), big in stored.items()
]
explanation(
    "\n\n".join(lines)
    + "\n\nAn interval of three patients and two seeds is wide because Student's t has hardly a degree of freedom "
    "to stand on. That is no fault of the statistics: *you know little*. "
    + (
        "What the larger table tells and yours can't is a reason to collect patients, not to report the sign "
        "of yours. "
        if any(verdict(apart[pair]) != verdict(big) for pair, big in stored.items())
        else "Here both tables agree, and the larger one says by how much. "
    )
    + "Your own table is worth its price all the same: it would have shown a network that fails on *your* scans."
)

# %% [markdown]
# ## 9. The worst patient
#
# A mean has no face. Before anybody else sees the network, look at the patient with whom it fares worst.
#
# One thing beforehand, so that you do not blame the wrong party. Like real ones, the demo's patients *breathe*: a few
# slices show another level than their neighbours, and there the true labels lie beside the organ that you see. A slice
# alone cannot know that (lab 08). So we show the slice with the most mistakes among those that look like a neighbour.
# For another one give `plots.comparison` below its number in place of `level`.
#
# > **Predict.** What will be wrong with him: a missing organ, another organ marked, a border, the tumour?
# >
# > Your prediction: ...

# %%
main = list(regions)[0]
each = np.nanmean(score["LoRA"][:, 0], axis=0)  # of the first region, by patient
worst = int(np.nanargmin(each))
print(
    f"{main} of each test patient by LoRA, mean over the seeds: ",
    *(f"{v.case.name} {x:.1f}  " for v, x in zip(test, each, strict=True)),
)
patient = test[worst]
step = np.abs(np.diff(patient.case.image, axis=1)).mean((0, 2, 3))  # from each slice to the next
step = np.pad(step, 1, constant_values=np.inf)
alone = np.minimum(step[:-1], step[1:])  # how unlike both of its neighbours a slice is
wrong = (found["LoRA"][0][worst] != patient.case.label).sum((1, 2))
level = int(np.where(alone <= np.median(alone), wrong, -1).argmax())
plots.show(
    plots.comparison(
        patient.case, {name: found[name][0][worst] for name in ("frozen random", "head", "LoRA")}, level
    ),
    f"Slice {level} of the patient with the lowest Dice by LoRA: the scan, the truth, and what frozen random, head "
    "and LoRA marked.",
)

# %%
P, T = (np.isin(labels, regions[main]) for labels in (found["LoRA"][0][worst], patient.case.label))
missed, false = int((T & ~P).sum()), int((P & ~T).sum())
halves = np.array_split(np.arange(P.shape[2]), 2)
sides = {
    side: int((P & ~T)[..., columns].sum()) for side, columns in zip(("right", "left"), halves, strict=True)
}
explanation(
    f"{patient.case.name}, first seed: of {int(T.sum()):,} voxels of {main} LoRA misses {missed:,} and marks "
    f"{false:,} that are none, {sides['right']:,} of them on the patient's right, {sides['left']:,} on the left. "
    + (
        f"It rather marks too much: look what else is as bright as {main}{': spleen, liver, vessels' * CT}. "
        if false > missed
        else f"It rather misses: look whether a whole {main} or its border is lacking. "
    )
    + f"Its Dice, over the seeds, is {each[worst]:.1f}, the best patient's {np.nanmax(each):.1f}. Write down in "
    "one sentence what you see: it belongs in the model card, under *Worst patient*."
)

# %% [markdown]
# ## 10. Label a new scan, and open it elsewhere
#
# A scan arrives that nobody has labelled. It has a spacing and axes of its own. Whoever opens the labels wants them
# **on the scan's own grid**: to the voxel, with the same affine. `label_scan` (in a terminal `labkit predict`) does as
# in training: window, spacing, network; and then the way back, labels to the nearest voxel.

# %%
model = models["LoRA"][0]
delta = OUT / "lora.safetensors"
belongs_to = about_of(train[0].case, Recipe())  # window, spacing, channels and labels, single slices
tuning.save(model, delta, **belongs_to)
unlabelled = sorted((folder / "imagesTs").glob("[!.]*.nii*")) if (folder / "imagesTs").is_dir() else []
new = unlabelled[0] if unlabelled else path_of("imagesTr", test_names[0])
labels_file = OUT / f"{nifti.stem_of(new.name)}_labels.nii.gz"
volumes_cm3 = label_scan(delta, [new], labels_file)

scan, written = nib.load(new), nib.load(labels_file)  # nibabel alone: no labkit from here on
axes, spacing = (
    "".join(nib.aff2axcodes(scan.affine)),
    "x".join(f"{mm:g}" for mm in scan.header.get_zooms()[:3]),
)
print(f"{new.name}: axes {axes}, {'x'.join(map(str, scan.shape))} voxels of {spacing} mm")
print("same grid:", scan.shape[:3] == written.shape and np.allclose(scan.affine, written.affine))
print("type and values:", written.get_data_dtype(), np.unique(np.asarray(written.dataobj)).tolist())
print({cases[0].label_names[value]: f"{cm3:.0f} ml" for value, cm3 in volumes_cm3.items()})

# %%
seen, marked = voxels_of(new), voxels_of(labels_file)
level = int((marked > 0).sum((1, 2)).argmax())
figure = Figure(figsize=(7, 3.6), layout="constrained")
for axis, title in zip(figure.subplots(1, 2), ("the new scan", "and what LoRA marked"), strict=True):
    if CT:
        axis.imshow(my_windowed(seen[level], *ours), cmap="gray", vmin=0, vmax=1)
    else:
        axis.imshow(seen[level], cmap="gray")
    axis.set(title=f"{title}, slice {level}", xticks=[], yticks=[])
colours = label_colours(cases[0].label_names)
for value in cases[0].label_names:
    if (marked[level] == value).any():
        axis.contour(marked[level] == value, [0.5], colors=[unit(colours[value])], linewidths=1.5)
plots.legend(figure, cases[0].label_names, colours)
plots.show(figure, "A slice of the unlabelled scan, without and with the outlines of what LoRA marked in it.")

# %% [markdown]
# > **Try it.** Open both files in a viewer that knows nothing of labkit (ITK-SNAP, 3D Slicer, FSLeyes): the scan, and
# > the labels as its segmentation. Do they lie on each other? That is the test that counts, since your colleague will do
# > just that. (`print(OUT)` says where they lie.)
#
# ## 11. Hand it on
#
# Your colleague has the kit's backbone, as everybody has, and works with Hugging Face's **peft**. What do you send?
#
# > **Predict.** A folder in peft's format holds LoRA's matrices. He loads it into a fresh network. Does he get your
# > tokens? Does he get your segmentation?
# >
# > Your prediction: ...

# %%
save_peft(model, OUT / "peft")
for file in [delta, *sorted((OUT / "peft").iterdir())]:
    print(f"{file.relative_to(OUT).as_posix():34} {file.stat().st_size / 1e6:6.2f} MB")
colleague = fresh(LoRA(r=RANK), train[0].case, seed=99)
load_peft(colleague, OUT / "peft")
first = max(0, min(20, len(test[0].image) - 2))
x = test[0].image[first : first + 2].to(next(model.parameters()).device)
scaled = resize(x, model.size)  # a segmenter does this itself, its backbone does not
same = {}
for said, read in (("after the peft folder", False), ("after labkit's delta", True)):
    if read:
        tuning.load(colleague, delta)
    with torch.no_grad():
        tokens = float((colleague.eval().backbone(scaled) - model.backbone(scaled)).abs().max())
        logits = float((colleague(x[None]) - model(x[None])).abs().max())
    same[said] = tokens, logits
    print(
        f"{said}: largest difference of the backbone {tokens:.1e}, of the segmentation's logits {logits:.1e}"
    )

# %%
(after_peft, apart_peft), (_, apart_all) = same.values()
explanation(
    f"After the peft folder the backbones differ by {after_peft:.0e}, the segmentations by {apart_peft:.1f}. "
    + (
        "LoRA has arrived; the *decoder* has not, and the last norm neither: peft's format knows LoRA alone. "
        if apart_peft > 1e-3
        else "So here both have arrived. "
    )
    + f"labkit's file holds all that learned, and says which window, channels, labels and spacing it belongs to: "
    f"{apart_all:.0e}. Send both, or the decoder beside the peft folder. And send the card of the next section: "
    "numbers without it are a liability."
)

# %% [markdown]
# ## 12. The model card
#
# Whoever gets a network must know what it was made of and what it must not be used for (Mitchell et al., 2019,
# arXiv:1810.03993). The cell fills in what the lab knows. Three sentences are yours.

# %%
WORST = "..."  # what did you see in the worst patient?
USE = "..."  # what may it be used for?
NEXT = "..."  # what has to be done before anybody relies on it?

one = statistics.estimate(score["LoRA"])
threshold = statistics.estimate(score["threshold"])
against = apart["LoRA", "head"]
prepared = train[0].case
window = "a window of {:g} to {:g} HU".format(*prepared.window_hu) if prepared.window_hu else "no window"
mm = prepared.resampled_mm
spacing = "resampled to {:g} x {:g} x {:g} mm".format(*mm) if mm else "each at its own spacing"
card = f"""\
# LoRA for {", ".join(regions)}, from {about.get("name", folder.name)}

**Not for clinical use.** Made in a course; seen by no physician, tested on {len(test)} patients.

* **Data**: {about.get("name", folder.name)}, {about.get("description", "no description")}
* **Licence of the data**: {about.get("licence", about.get("license", "not said: ask before you hand this on"))}
* **Patients**: {len({patient_of[n] for n in train_names})} to train on ({len(train)} scans), {len(test)} others to test.
  Left out: {", ".join(broken) or "nobody"}{" (numbers not in HU)" if broken else ""}.
* **Input**: {", ".join(prepared.channels)}; {window}; {spacing}
* **Labels**: {", ".join(f"{value} {name}" for value, name in prepared.label_names.items())}
* **Network**: ViT and decoder, {count(model).pretrained:,} numbers; LoRA of rank {RANK} on q and v. It and the
  decoder, {count(model).tuned:,} numbers, learned in {STEPS} steps; the rest is frozen
* **Dice**: {one.mean:.1f} ({one.low:.1f} to {one.high:.1f}) per cent, mean of {len(regions)} regions, {len(SEEDS)} seeds;
  a threshold {threshold.mean:.1f}; LoRA less head {against.mean:+.1f} ({against.low:.1f} to {against.high:.1f})
* **Worst patient**: {patient.case.name}, {main} {each[worst]:.1f}. {WORST}
* **Limits**: one source, no other hospital, {"synthetic patients, " if DATA == "demo" else ""}short training. \
Patients without a {region} are left out of its Dice; in them {hidden["LoRA"][2]:.1f} ml were marked.
* **Use**: {USE}
* **Next**: {NEXT}
"""
(OUT / "model_card.md").write_text(card, encoding="utf-8")
Markdown(card)

# %% [markdown]
# ## 13. Use it: defend your choice
#
# Your colleague writes: *"2.1 MB is too much for our line; can you do 1.9?"*
#
# > **Decide**, in five sentences. What do you send: fewer ranks, another method, half precision? Compute it with
# > `my_best_within(rows, ...)` and the price of a rank in section 6. Which number speaks for it, which against it? What
# > do you measure before you send it, on which patients? And what do you *not* claim?
# >
# > Your answer: ...

# %%
for megabytes, bytes_each in ((1.9, 4), (1.9, 2)):
    numbers = int(megabytes * 1e6 / bytes_each)
    fitting = sum(numbers >= row["tuned"] for row in rows)
    what = "{}, {:.1f}".format(*my_best_within(rows, numbers)) if fitting else "nobody"
    print(f"{megabytes} MB at {bytes_each} bytes a number are {numbers:,} numbers: {what}")

# %%
half = OUT / "lora-half.safetensors"
tuning.save(model, half, half=True, **belongs_to)
rounded = predict(tuning.load(colleague, half), test[worst])
changed = int((rounded != found["LoRA"][0][worst]).sum())
full_numbers = int(1.9e6 / 4)
fitting = [row["name"] for row in rows if full_numbers >= row["tuned"]]
in_half, _ = my_best_within(rows, 2 * full_numbers)
explanation(
    f"At 4 bytes 1.9 MB are {full_numbers:,} numbers, and the decoder alone has {head:,}: "
    + (f"{', '.join(fitting)} will do. " if fitting else "nothing of the table fits. ")
    + f"In half precision the same LoRA has {half.stat().st_size / 1e6:.2f} MB, and of the "
    f"{rounded.size:,} voxels of the worst patient {changed:,} change their label. "
    + (
        "So rounding is a cheaper way out than a smaller method"
        if changed < 1e-3 * rounded.size
        else "That is not nothing: look at where"
    )
    + f"; measure it on validation patients before you send it. And with 2 bytes a number {in_half} would fit, "
    "which nobody has rounded here. Not to be claimed: that it is as good on the colleague's scanner. Nobody "
    "has looked."
)

# %% [markdown]
# ## 14. Test yourself
#
# <details><summary>1. All headers are faultless and all files are read. Is the folder?</summary>
# No. A header says where voxels lie, not what their numbers mean. Look at known tissue: air, water, fat.
# </details>
#
# <details><summary>2. A paper splits 3,000 slices of 60 patients at random, 80 to 20. What is its test
# worth?</summary>
# Little: nearly every patient is in both parts, and neighbouring slices are nearly the same picture.
# </details>
#
# <details><summary>3. Why are images resampled linearly, labels not?</summary>
# Between two brightnesses lies a brightness. Between two names lies nothing, or another name.
# </details>
#
# <details><summary>4. You tried ten settings and tell the best one's test Dice. What is wrong?</summary>
# The best of ten is too good by luck. Choose on validation patients; the test is looked at once.
# </details>
#
# <details><summary>5. A table says "mean Dice 0.81" for a tumour that a third of the patients lack. What do you
# ask?</summary>
# What empty against empty counts. A network that marks nothing would have 0.33 by one rule.
# </details>
#
# ## 15. Bonus
#
# * **Real patients.** `labkit get hippocampus`, `DATA = "hippocampus"`, and run all. (The text speaks of kidneys; the
#   cells do not, but for the stored tables that yours is put beside.)
# * **The leak.** Put `kidney-04_2` into the training and `kidney-04_1` into the test. By how much is its Dice above that
#   of the others, and above its own without the leak?
# * **The broken one.** Train with it. Who would have noticed?
# * **In a terminal.** `labkit train --data demo-kidneys --method lora --out mine.safetensors`, then `labkit predict`. A
#   table with rates and seeds is `labkit sweep mine.toml --data demo-kidneys` (`docs/research.md`).
#
# ## 16. What changes on real data
#
# * **More is broken.** Image and label mirrored to each other, two patients under one name, labels of another observer.
#   Look at *every* patient once; an hour of looking is cheaper than a week of training.
# * **Consent and licence.** CC BY-SA asks for the same licence of what is derived. Ethics committees ask more.
# * **Another hospital.** Three test patients of the same source say nothing of the next scanner. Test there.
# * **Two observers** disagree by some points of Dice on kidneys, and by more on tumours. No network can be shown to be
#   better than that.
#
# That was the course. What you can do now: take a network apart, tune a hundredth of it, tell whether that helped, and
# hand it on with an honest card.

# %%
lab.progress()
