# %% [markdown]
# # Lab 00: Welcome to the patient
#
# Before a network segments a tumour, you should have looked at one. In this lab you will
#
# 1. **explain** what each of four MRI contrasts shows of a brain tumour, and why four are taken;
# 2. **build** the three regions on which tumour segmentation is scored from the labels of a patient;
# 3. **recognise** what a single slice hides, and move through a volume with the viewer;
# 4. **implement** the Dice score, and **decide** what it should say when there is nothing to find;
# 5. **show** by experiment why a threshold on brightness is not enough.
#
# | | |
# | --- | --- |
# | Time | about 70 minutes; 45 if you leave out section 8 and read only the code that you write |
# | Computer | any laptop, no GPU; everything here computes in well under a minute |
# | Counted | 65 minutes with all exercises: 3,023 words, 339 lines of code, 3 exercises, 10 seconds of computing; 0.8 GB of memory |
# | You know | Python, arrays, a first network in PyTorch; nothing about medicine |
#
# How every lab works: read, **predict** (write it down, however roughly), **run**, **explain**. A
# prediction that turned out wrong teaches more than a result that was never in doubt.

# %% [markdown]
# `start` sets the seeds and checks whether your computer has what the lab needs.

# %%
import numpy as np
from IPython.display import Markdown
from matplotlib.figure import Figure

from labkit import metrics
from labkit.explore import plots
from labkit.explore.viewer import viewer
from labkit.lessons import start
from labkit.phantoms.brain import brain_patient, ghost_slices
from labkit.phantoms.mri_signal import TISSUES

lab = start("00")


def explanation(words):
    """A fold whose sentences are made from the numbers that were just computed."""
    return Markdown(
        f"<details><summary>Our explanation, with your numbers</summary>\n\n{words}\n\n</details>"
    )


# %% [markdown]
# ## 1. Why outline a tumour?
#
# A glioma is a tumour that grows from the supporting cells of the brain. It has no capsule: its cells
# wander along the nerve fibres, so it ends nowhere in particular. That makes it hard to remove, and hard to
# measure.
#
# And it must be measured. The surgeon needs to know what to take out and what to spare. Radiotherapy needs
# a target with a border. The oncologist compares today's scan with the one of three months ago and asks:
# did it grow? Each needs an **outline in three dimensions**, which is what we call a *segmentation*: a
# label for every voxel.
#
# Drawn by hand, an outline is slow, and two experts do not draw the same one. In the BraTS benchmark, human
# raters agreed with each other to a Dice score of 74 to 85 %, depending on the part of the tumour (Menze et
# al., 2015, IEEE TMI 34:1993). You will write this score yourself below. Keep the figure in mind: it says
# how well a network can sensibly be expected to agree with one rater.

# %% [markdown]
# ## 2. Meet a patient
#
# A patient here is a number. The same number gives the same patient on every computer.

# %%
case = brain_patient(13, ghosts=False)  # lies still; section 9 shows what happens otherwise
print(case.name)
print("image  ", case.image.shape, case.image.dtype, "contrasts:", ", ".join(case.channels))
print("label  ", case.label.shape, case.label.dtype, "values:", np.unique(case.label), case.label_names)
print("spacing", case.spacing_mm, "mm")

# %% [markdown]
# **This patient does not exist.** All patients of the first labs are synthetic, and made on your computer:
#
# * The *anatomy* is real but belongs to nobody: an average of 152 healthy brains, bent and scaled a little
#   differently for every patient.
# * The *tumour* is grown by a simple model: it starts at a point in the white matter, spreads more easily
#   along it than through grey matter, and pushes the brain aside.
# * The *picture* is computed: the equations of MRI physics turn tissue into brightness. Uneven illumination
#   and noise are added, as a scanner would.
#
# So we may share these patients freely, and we know the truth of every voxel. The price is that they are
# simpler than real ones. What you learn here about methods carries over; the *scores* do not. The last
# section says what changes on real data.

# %% [markdown]
# ## 3. Four contrasts: one brain, four questions
#
# MRI does not photograph tissue. It tips the magnetisation of the hydrogen nuclei, mostly those of water,
# and listens while it returns. Two times describe the return:
#
# * **T1**: how fast the magnetisation along the main field grows back;
# * **T2**: how fast the signal that we hear dies away.
#
# Both depend on how freely water moves. In free water, as in the fluid around the brain, both are long. In
# tissue packed with membranes and proteins both are short. Swollen tissue lies between. **The scanner
# chooses when to listen, and that choice decides which difference becomes a difference in brightness.**

# %%
styles = {
    "white": ("white matter", "#000000", "-"),
    "oedema": ("oedema (swelling)", "#D55E00", "--"),
    "csf": ("fluid (CSF)", "#0072B2", ":"),
}
figure = Figure(figsize=(10, 6.2), layout="constrained")
(t1_panel, t2_panel), (turned_panel, flair_panel) = figure.subplots(2, 2)
long_ms, short_ms = np.linspace(0, 4000, 200), np.linspace(0, 300, 200)


def after_inversion(t1, ms):
    """Magnetisation a time after it was turned upside down, which is done every 9000 ms."""
    return 1 - 2 * np.exp(-ms / t1) + np.exp(-9000 / t1)


heard = {}  # what FLAIR hears of each tissue
for tissue, (name, colour, line) in styles.items():
    t1, t2 = TISSUES[tissue].t1_ms, TISSUES[tissue].t2_ms
    left = after_inversion(t1, 2400)
    heard[name] = abs(left) * np.exp(-130 / t2)
    t1_panel.plot(long_ms, 1 - np.exp(-long_ms / t1), line, color=colour, label=name)
    t2_panel.plot(short_ms, np.exp(-short_ms / t2), line, color=colour)
    turned_panel.plot(long_ms, after_inversion(t1, long_ms), line, color=colour)
    flair_panel.plot(short_ms, abs(left) * np.exp(-short_ms / t2), line, color=colour)
for panel, ms, title, height in (
    (t1_panel, 500, "T1: tip again soon (500 ms)", "magnetisation (relative)"),
    (t2_panel, 90, "T2: listen late (90 ms)", "signal (relative)"),
    (turned_panel, 2400, "FLAIR, first: wait until fluid is at zero (2400 ms)", "magnetisation (relative)"),
    (flair_panel, 130, "FLAIR, then: listen late (130 ms)", "signal (relative)"),
):
    panel.axvline(ms, color="grey", linewidth=1)
    panel.set(xlabel="time (ms)", ylabel=height, title=title)
    panel.title.set_fontsize(10)
turned_panel.axhline(0, color="grey", linewidth=0.5)
figure.legend(*t1_panel.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
plots.show(
    figure,
    "Four plots over time for white matter, oedema and fluid. T1: at 500 ms white matter has grown back "
    "most and fluid least. T2: at 90 ms little is left of the signal of white matter, more of oedema, "
    "nearly all of fluid. FLAIR, first: after inversion fluid crosses zero at 2400 ms, when oedema is well "
    "above it and white matter higher still. FLAIR, then: from there the signals decay, white matter "
    "fastest, and at 130 ms oedema is the strongest of the three.",
)

# %%
print("what FLAIR hears:", ", ".join(f"{name} {signal:.2f}" for name, signal in heard.items()))

# %% [markdown]
# Read the four panels at the grey lines.
#
# **T1** listens to tissue that had only half a second to grow back. White matter, quick to recover, is
# bright; fluid is dark. T1 shows the anatomy.
#
# **T2** listens late. What decays slowly is still there: fluid is bright, and so is everything watery. T2
# shows water.
#
# **FLAIR** is T2 with a trick. It first turns the magnetisation upside down, then waits until that of the
# fluid, on its way back, is just passing zero. What is zero cannot be heard. At that moment oedema has come
# back less far than white matter; but *then* FLAIR listens late, as T2 does, and what decays slowly wins:
# the order of oedema and white matter turns round. FLAIR shows water that is *not* free fluid.
#
# **T1ce** ("contrast enhanced") is T1 once more, after a gadolinium compound was injected into a vein.
# Gadolinium makes T1 short, hence bright. The healthy brain keeps it out: its vessels are sealed by the
# *blood-brain barrier*. Where a fast tumour has built leaky vessels, the agent seeps out and the tissue
# lights up. It also stays where it was injected: in the **blood**. Remember this for section 5.
#
# > **Predict.** *Oedema* is the swelling around the tumour: tissue soaked with water. In which two of the
# > four contrasts is it brighter than healthy brain? Its border has to be drawn against healthy brain *and*
# > against fluid: in which of the two contrasts can you draw both?
# >
# > Your prediction: ...

# %%
plots.show(
    plots.contrasts(case, slice=50),
    "Slice 50 of the patient in T1, T1ce, T2 and FLAIR. A ring is bright in T1ce only; a wide zone "
    "around it is bright in T2 and in FLAIR; the fluid is bright in T2 but dark in FLAIR. Below, the same "
    "with the outlines of the three labels.",
)

# %% [markdown]
# Eyes adapt, so measure too: the mean of each tissue, divided by the median of the brain outside the
# tumour.

# %%
healthy = [volume[(case.label == 0) & (volume > 0)] for volume in case.image]
rows = {
    f"{value}  {name}": [
        volume[case.label == value].mean() / np.median(own)
        for volume, own in zip(case.image, healthy, strict=True)
    ]
    for value, name in case.label_names.items()
}
rows["0  the brightest hundredth, from"] = [np.percentile(own, 99) / np.median(own) for own in healthy]
print(f"{'':34}" + "".join(f"{channel:>8}" for channel in case.channels))
for name, brightness in rows.items():
    print(f"{name:34}" + "".join(f"{b:8.2f}" for b in brightness))

# %% [markdown]
# > **Explain.** Compare the row of the oedema with your prediction, and with the last row: the brightness at
# > which the brightest hundredth of the brain *outside* the tumour begins. What is that in T2, and what became
# > of it in FLAIR?

# %%
columns = dict(zip(case.channels, zip(*rows.values(), strict=True), strict=True))
oedema, rival = list(case.label_names).index(2), len(rows) - 1
above = [name for name in case.channels if columns[name][oedema] > 1.1]
free = [name for name in above if columns[name][oedema] > columns[name][rival]]
explanation(
    f"Oedema is clearly brighter than healthy brain in **{' and '.join(above) or 'none of them'}** ("
    + ", ".join(f"{name} {columns[name][oedema]:.2f}" for name in above)
    + "). The brightest hundredth of what is *no* tumour begins at "
    + ", ".join(f"{columns[name][rival]:.2f} in {name}" for name in above)
    + ". In T2 that is fluid: see the bright seam along the surface of the brain, and the ventricles in "
    "lower slices. Where a contrast has fluid as bright as oedema, it shows no border between the two. "
    + (
        f"Only {' and '.join(free)} has the oedema above that, for FLAIR silences the fluid: there "
        "the whole extent of a glioma is outlined. "
        if free
        else "In this patient no contrast has the oedema above that. "
    )
    + "\n\nNo contrast suffices alone: T1ce shows the ring but not the swelling, FLAIR the swelling but "
    "hardly the ring. This is why our networks get all four as input channels, as a photo has red, green "
    "and blue."
)

# %% [markdown]
# ## 4. Labels and regions
#
# The labels say what each voxel *is*. They follow the BraTS challenges of 2019 and 2020:
#
# | label | tissue | how it is recognised |
# | ---: | --- | --- |
# | 1 | necrotic and non-enhancing core | dead, or tumour without uptake: dark in T1ce, often in a ring |
# | 2 | oedema | bright in FLAIR, outside the core |
# | 4 | enhancing tumour | brighter in T1ce than in T1 |
# | 0 | everything else | |
#
# There is no label 3; an early version of the challenge had one.
#
# Doctors, however, ask about *regions*. Is the tumour active? That is the **enhancing tumour (ET)**: label
# 4. What would a surgeon take out? That is the **tumour core (TC)**: labels 1 and 4. How far does the
# disease reach? That is the **whole tumour (WT)**: labels 1, 2 and 4.
#
# So the regions overlap: ET lies in TC, TC in WT, like Russian dolls. A label is one answer per voxel;
# regions are three yes-or-no questions per voxel. They also forgive in a sensible way: to call a necrotic
# voxel "enhancing" is wrong for ET, but right for TC and WT, since it *is* tumour core.
#
# ### Exercise 1: `regions` (2 points, 5 minutes)
#
# Turn a label volume into the three masks. Comparisons of arrays give boolean arrays; `&` is *and*, `|` is
# *or*, `~` is *not*, each voxel by voxel. They bind tighter than `==`: put every comparison in brackets.


# %% labkit={"exercise": "regions", "role": "answer", "points": 2, "hides": ["labkit.metrics"]}
def regions(label):
    """Boolean masks, each of the shape of `label`: {"ET": ..., "WT": ..., "TC": ...}."""
    ### BEGIN SOLUTION
    necrosis, oedema, enhancing = label == 1, label == 2, label == 4
    core = necrosis | enhancing
    return {"ET": enhancing, "WT": core | oedema, "TC": core}
    ### END SOLUTION


# %% [markdown]
# The check tries your function on small inputs and names what it finds. When you are stuck,
# `lab.hint("regions")` helps, three times, each time more.

# %% labkit={"exercise": "regions", "role": "check"}
lab.check("regions", regions)

# %% [markdown]
# The next line takes your function if it passed, and labkit's own if it did not, so that you can always
# read on. Then comes the proof on the whole patient: your masks against those on which labkit scores.

# %%
my_regions = lab.working("regions", regions)
masks = my_regions(case.label)
for name, labels in metrics.BRATS_REGIONS.items():
    assert np.array_equal(masks[name], np.isin(case.label, labels)), name
    print(f"{name}: {masks[name].sum():6,} voxels, as labkit has them")

# %%
figure = Figure(figsize=(10, 4.1), layout="compressed")
axes = figure.subplots(1, 3)
for axis, (name, channel) in zip(axes, {"ET": "T1ce", "TC": "T1ce", "WT": "FLAIR"}.items(), strict=True):
    volume = case.image[case.channels.index(channel)]
    axis.imshow(volume[50], cmap="gray", vmax=np.percentile(volume, 99.8))
    axis.contour(masks[name][50], levels=[0.5], colors="#E69F00", linewidths=1.5)
    axis.set(title=f"{name} on {channel}", xticks=[], yticks=[], xlim=(14, 84), ylim=(84, 12))
plots.show(
    figure,
    "Slice 50 three times, with one outline each: ET follows the bright ring of T1ce on both of its "
    "sides, TC fills the ring, and WT is the whole bright zone of FLAIR, the core included.",
)

# %% [markdown]
# ## 5. A volume is not a pile of pictures
#
# The image is an array of shape (C, S, H, W): four contrasts, then slices from the lowest to the highest,
# rows from front to back, columns from left to right *as you see them*. You look at the patient from the
# feet, as radiologists do: the patient's right is on your left.
#
# An index counts voxels. Millimetres come from the **spacing**, the distance between neighbours along each
# axis. Here it is 2 mm along all three; in hospitals slices are often 3 to 6 mm apart while pixels measure
# less than 1 mm. A distance or a volume computed without the spacing means nothing.
#
# Now look at slice 56 in T1ce, the contrast of leaky vessels. Bright are the tumour's rim and a number of
# dots.
#
# > **Predict.** Which of the dots are tumour? What could you do to find out?
# >
# > Your prediction: ...

# %%
t1ce = case.image[1]
figure = Figure(figsize=(4.2, 4.2), layout="constrained")
axis = figure.subplots()
axis.imshow(t1ce[56], cmap="gray", vmax=np.percentile(t1ce, 99.8))
axis.set(title="T1ce, slice 56", xticks=[], yticks=[], xlim=(14, 84), ylim=(84, 12))
plots.show(
    figure,
    "Slice 56 in T1ce: a thick bright ring on the patient's right, and about ten bright dots of a few "
    "voxels each, some of them close to the ring.",
)

# %% [markdown]
# One slice cannot tell. So turn the volume: the next figure looks at it from the front. From rows 32 to 51,
# which hold most of the bright ring, it shows the brightest voxel along the line of sight. The height is
# measured in mm, by the spacing.

# %%
front = t1ce[:, 32:52].max(axis=1)  # (S, W)
brightest = np.percentile(t1ce, 99.97)
s_mm, _, w_mm = case.spacing_mm
height, width = np.array(front.shape) * (s_mm, w_mm)
figure = Figure(figsize=(5, 4.2), layout="constrained")
axis = figure.subplots()
axis.imshow(front, cmap="gray", origin="lower", extent=(0, width, 0, height), vmax=brightest)
axis.axhline((56 + 0.5) * s_mm, color="#E69F00", linestyle="--", linewidth=1)
axis.text(2, (56 + 2) * s_mm, "slice 56", color="#E69F00")
axis.set(title="T1ce from the front, rows 32 to 51", xlabel="mm", ylabel="mm, upwards")
plots.show(
    figure,
    "The same patient from the front: the ring has become a lump of about 35 mm, and the dots of slice 56 "
    "have become thin bright tubes that run up and down through many slices.",
)

# %% [markdown]
# > **Explain.** What are the dots, and why are they as bright as the tumour?
#
# <details><summary>Our explanation</summary>
#
# They are veins. The agent was injected into the blood, so blood is bright in T1ce. A vein that crosses a
# slice is a dot in it, just like a small piece of tumour. **Across** slices it is a tube, and the tumour is
# a lump. Nothing *within* the slice tells them apart.
#
# Remember this when we give a network, trained on flat photographs, a stack of slices. If it looks at each
# slice alone, it is in your position before you turned the volume.
# </details>
#
# ### The viewer
#
# Move through the patient yourself: the slider walks through the slices, *Plane* turns the patient, and
# *Channel* is which of the four contrasts you see. (*Contrast %* says which brightness is black and which is
# white.) In a browser the controls are live; in a printed or executed copy of this notebook you see a still
# picture.
#
# > **Predict**, then look: in how many slices will you still see the tumour (a) in FLAIR, (b) in T1ce?
# >
# > Your prediction: ...

# %%
viewer(case)

# %%
for name in ("WT", "ET"):
    slices = np.flatnonzero(masks[name].any(axis=(1, 2)))
    print(f"{name}: slices {slices[0]} to {slices[-1]}, {len(slices) * case.spacing_mm[0]:.0f} mm high")

# %% [markdown]
# > **Explain** the difference between the two counts. Which tissue lies in the slices that only FLAIR
# > shows?

# %%
any_wt, any_et = (masks[name].any(axis=(1, 2)) for name in ("WT", "ET"))
only = case.label[any_wt & ~any_et]
shares = {name: (only[only > 0] == value).mean() for value, name in case.label_names.items()}
explanation(
    f"{any_wt.sum()} slices hold tumour and {any_et.sum()} of them hold enhancing tumour. In the other "
    f"{(any_wt & ~any_et).sum()} lies "
    + ", ".join(f"{share:.0%} {name}" for name, share in shares.items() if share > 0)
    + ". Oedema surrounds the core on all sides, above and below as well, and T1ce is blind to it: whoever "
    "looks at T1ce alone takes the tumour for "
    f"{(any_wt.sum() - any_et.sum()) * case.spacing_mm[0]:.0f} mm lower than it is."
)

# %% [markdown]
# ## 6. Dice: how well do two outlines agree?
#
# Why not count the voxels that are right? Because nearly all of them are background:

# %%
nothing = np.zeros_like(masks["WT"])
print(f"A doctor who never finds a tumour is right in {(nothing == masks['WT']).mean():.1%} of the voxels.")

# %% [markdown]
# We need a score that ignores what both leave out. Take the prediction $P$ and the truth $T$ as sets of
# voxels. The **Dice score** is their overlap, measured against their mean size:
#
# $$\mathrm{Dice}(P, T) = \frac{2\,|P \cap T|}{|P| + |T|}$$
#
# It is 1 when the masks are equal and 0 when they share nothing. It treats missed voxels and false alarms
# alike. The background does not occur in it at all.
#
# One case is left open: **both masks are empty**, and the formula says 0/0. This is not far-fetched. Some
# tumours do not enhance, so the true ET is empty. A method that finds no ET there has done everything right
# and deserves 1. A method that claims a single voxel has raised a false alarm and gets, by the formula
# itself, 0.
#
# > **Predict.** A patient has no ET; your network marks one voxel. What happens to the patient's mean over
# > ET, WT and TC?
# >
# > Your prediction: ...
#
# ### Exercise 2: `dice` (3 points, 8 minutes)
#
# Both masks are boolean NumPy arrays of one shape, of any number of dimensions. Return one number.


# %% labkit={"exercise": "dice", "role": "answer", "points": 3, "hides": ["labkit.metrics"]}
def dice(prediction, truth):
    """Dice score of two boolean masks: 0 to 1, and 1 when both are empty."""
    ### BEGIN SOLUTION
    both = np.count_nonzero(prediction & truth)
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / total if total > 0 else 1.0
    ### END SOLUTION


# %% labkit={"exercise": "dice", "role": "check"}
lab.check("dice", dice)

# %% [markdown]
# The proof on a whole patient, against the function with which all labs score. As a stand-in for a
# prediction we take the truth, moved by one voxel (2 mm) towards the back.

# %%
my_dice = lab.working("dice", dice)
moved = {name: np.roll(mask, 1, axis=1) for name, mask in masks.items()}
for name in masks:
    mine = my_dice(moved[name], masks[name])
    assert abs(mine - metrics.dice(moved[name], masks[name])) < 1e-9, name
    print(f"{name}: {mine:.3f}, as labkit has it, for an error of 2 mm")

# %% [markdown]
# > **Explain.** The error is the same 2 mm for all three. Why are they not punished alike?

# %%
moved_dice = {name: my_dice(moved[name], masks[name]) for name in masks}
hit = {name: (masks[name] & moved[name]).sum() / masks[name].sum() for name in masks}
worst, best = (choose(moved_dice, key=moved_dice.get) for choose in (min, max))
explanation(
    f"Dice counts voxels, but the error sits at the surface. It misses {1 - hit[worst]:.0%} of the voxels of "
    f"{worst} and {1 - hit[best]:.0%} of {best}: ET is a thin shell and nearly all surface, WT a large "
    f"lump and mostly inside. So {worst} has {moved_dice[worst]:.2f} and {best} {moved_dice[best]:.2f} for "
    "the same 2 mm. A Dice of 0.8 may be poor for WT and excellent for ET: compare scores region by region. "
    "It is also why a distance is often reported beside Dice: **HD95**, the millimetres within which 95 % of "
    "each border's voxels find the other border (`labkit.metrics.hd95`)."
)

# %% [markdown]
# Now the empty mask. The next patient's tumour does not enhance.

# %%
without_et = brain_patient(3, ghosts=False)
truth = my_regions(without_et.label)
one_voxel = np.zeros_like(truth["ET"])
one_voxel[40, 40, 40] = True
for what, prediction in {"finds no ET": np.zeros_like(truth["ET"]), "marks one voxel": one_voxel}.items():
    scores = [my_dice(prediction, truth["ET"]), 1.0, 1.0]  # WT and TC perfect
    print(f"{what:16} ET {scores[0]:.0f}   mean of ET, WT, TC: {np.mean(scores):.2f}")

# %% [markdown]
# One voxel of 737,280 costs a third of the patient's score. This is harsh, and it is the rule of
# BraTS. So methods often drop an ET that is only a few voxels large. When you read a table of Dice scores,
# look up what it does with empty masks. labkit's own tables leave a region out that a patient does not have
# (`labkit.metrics`), so that no single voxel decides them.

# %% [markdown]
# ## 7. Do we need learning at all?
#
# The tumour is bright in FLAIR. Why not call everything bright a tumour? Let us take this seriously and
# give it every advantage: we measure brightness relative to the patient's own brain, and we choose the
# threshold that is **best for this patient, looking at the truth**. No honest method may do that.
#
# > **Predict.** What Dice will the best threshold reach for WT on this patient? What will the *same*
# > threshold reach on others? What will it mark that is no tumour?
# >
# > Your prediction: ...


# %%
def relative(case, channel):
    """One contrast in units of the median of the patient's brain."""
    volume = case.image[case.channels.index(channel)]
    return volume / np.median(volume[volume > 0])


def best_threshold(case, channel, region):
    """The threshold with the highest Dice on this very patient."""
    truth = my_regions(case.label)[region]
    candidates = np.arange(1.1, 3.0, 0.05)
    return max(candidates, key=lambda threshold: my_dice(relative(case, channel) > threshold, truth))


tried = {"FLAIR": "WT", "T1ce": "ET"}
thresholds = {channel: best_threshold(case, channel, region) for channel, region in tried.items()}
for channel, value in thresholds.items():
    print(f"{channel}: {value:.2f} times the brain's median, chosen on patient 13")
scores = {}
for seed in (13, 8, 9, 10, 11, 12):  # ours, and the five numbers before it: nobody was picked
    other = brain_patient(seed, ghosts=False)
    truth = my_regions(other.label)
    scores[seed] = {
        channel: my_dice(relative(other, channel) > thresholds[channel], truth[region])
        for channel, region in tried.items()
    }
    said = (f"{tried[channel]} by {channel} {one:.2f}" for channel, one in scores[seed].items())
    print(f"patient {seed:2}:  {'   '.join(said)}")

# %% [markdown]
# Now look where it goes wrong. We paint what is bright in the colour of oedema and read its WT; a threshold
# knows nothing of ET and TC, so these are 0.

# %%
bright = relative(case, "FLAIR") > thresholds["FLAIR"]
plots.show(
    plots.comparison(case, {"threshold": np.where(bright, 2, 0).astype(np.uint8)}, slice=50),
    "Slice 50: the true labels beside everything that is bright in FLAIR. The tumour is found, with a "
    "hole in its core; a few small spots in the rest of the brain are marked as well.",
)

# %%
hardest = min(scores, key=lambda seed: scores[seed]["FLAIR"])
hard = brain_patient(hardest, ghosts=False)
bright = relative(hard, "FLAIR") > thresholds["FLAIR"]
level = int((bright & (hard.label == 0)).sum(axis=(1, 2)).argmax())  # the slice with most false alarms
plots.show(
    plots.comparison(hard, {"threshold": np.where(bright, 2, 0).astype(np.uint8)}, slice=level),
    f"Patient {hardest}, the one with the lowest WT, in the slice with most false alarms: beside the tumour "
    "the threshold marks a wide bright zone between and along the ventricles, and spots in both halves of "
    "the brain.",
)

# %% [markdown]
# And the same for T1ce, painted as enhancing tumour, in the slice that you know from section 5.

# %%
bright = relative(case, "T1ce") > thresholds["T1ce"]
plots.show(
    plots.comparison(case, {"threshold": np.where(bright, 4, 0).astype(np.uint8)}, slice=56, channel=1),
    "Slice 56 in T1ce: the threshold marks the enhancing rim, and every vein as a dot.",
)

# %% [markdown]
# > **Explain.** Name two kinds of things that the thresholds take for tumour. Would a better threshold
# > help?

# %%
flair = [scores[seed]["FLAIR"] for seed in scores if seed != 13]
own = best_threshold(hard, "FLAIR", "WT")
own_dice = my_dice(relative(hard, "FLAIR") > own, my_regions(hard.label)["WT"])
explanation(
    "In **FLAIR** it marks *white-matter hyperintensities*: small scars and caps along the ventricles that "
    "come with age and have nothing to do with the tumour. In **T1ce** it marks the *veins* of section 5; "
    "their slow blood is bright in FLAIR, too, so many spots there are veins as well. "
    f"Noise adds single voxels.\n\nChosen on patient 13, where it has {scores[13]['FLAIR']:.2f}, the "
    f"threshold has {min(flair):.2f} to {max(flair):.2f} on the five others. Would a better one help? For "
    f"patient {hardest} the best there is, found by looking at the truth, is {own:.2f}: "
    f"{own_dice:.2f}, where ours has {scores[hardest]['FLAIR']:.2f}. "
    + (
        "So no threshold does: what it takes for tumour is as bright as the tumour itself, and whoever drops "
        "the one drops the other. "
        if own_dice < 0.8
        else "That helps this patient, but nobody knows it before the truth is drawn. "
    )
    + "\n\nWhat tells them apart is **context**: the other three contrasts, the surroundings within the "
    "slice, the course across slices. Writing rules for context by hand has been tried for decades. "
    "Learning it from examples works better. But examples are scarce in medicine, so we start from networks "
    "that have already learned to see, and tune a small part of them. This is what the coming labs are about."
)

# %% [markdown]
# ## 8. Use it: how large is it, and did it grow?
#
# ### Exercise 3 (optional): `tumour_ml` (1 point, 5 minutes)
#
# A growing tumour is reported in millilitres. Compute the volume of the whole tumour from the labels and
# the spacing. One millilitre is one cubic centimetre. Do not assume that voxels are cubes.


# %% labkit={"exercise": "tumour_ml", "role": "answer", "points": 1}
def tumour_ml(label, spacing_mm):
    """Volume of the whole tumour in millilitres; spacing_mm holds three numbers, for S, H and W."""
    ### BEGIN SOLUTION
    voxels = np.count_nonzero(label)
    s_mm, h_mm, w_mm = spacing_mm
    voxel_mm3 = s_mm * h_mm * w_mm
    return voxels * voxel_mm3 / 1000
    ### END SOLUTION


# %% labkit={"exercise": "tumour_ml", "role": "check"}
lab.check("tumour_ml", tumour_ml)

# %%
my_tumour_ml = lab.working("tumour_ml", tumour_ml)
coarse = brain_patient(13, spacing_mm=4.0)
for one in (case, coarse):
    print(
        f"{one.spacing_mm[0]:.0f} mm: {np.count_nonzero(one.label):6,} voxels, "
        f"{my_tumour_ml(one.label, one.spacing_mm):5.1f} ml"
    )

# %% [markdown]
# Voxels are the computer's unit; millilitres are the patient's.
#
# > **Decide.** The oncologist has two scans of one patient, three months apart: one at 4 mm, one at 2 mm. The
# > second says 5 % more millilitres. Write her three sentences: did the tumour grow? Which number above is
# > your reason? What would you ask for?
# >
# > Your report: ...

# %%
fine, rough = (my_tumour_ml(one.label, one.spacing_mm) for one in (case, coarse))
voxels = np.count_nonzero(case.label) / max(np.count_nonzero(coarse.label), 1)
apart = abs(fine - rough) / fine
explanation(
    f"{voxels:.1f} times the voxels say nothing: a voxel of 4 mm holds eight of 2 mm. Above is *one* tumour "
    f"on two grids, and its two volumes differ by {apart:.1%}, because a voxel gets one label only: where a "
    "coarse one holds tumour and healthy tissue, the larger part wins. "
    + (
        "That is more than half of the 5 %, and the grid alone makes it: no growth is shown. "
        if apart > 0.025
        else "5 % is more than that; but two experts who draw one tumour differ by more still (section 1). "
    )
    + "Ask for both scans on one grid, outlined by one reader; the criteria of trials call a glioma "
    "progressive only from a quarter more on (Wen et al., 2010, J Clin Oncol 28:1963: of the product of two "
    "diameters)."
)

# %% [markdown]
# ## 9. One slice shows a second tumour. Is it real?
#
# So far patient 13 lay still, as we asked for with `ghosts=False`. Real patients move. Here is the same
# patient once more, in a scan during which he did. Some of its eighty slices were spoilt by it, in T1ce and
# in FLAIR. We look at one of them.
#
# > **Predict.** Two lumps. Is each of them tumour? What in this slice speaks for your answer? And what would
# > you look at next, if you could look at one more thing?
# >
# > Your prediction: ...

# %%
restless = brain_patient(13)
s = 57
figure = Figure(figsize=(7.4, 4), layout="compressed")
for axis, channel in zip(figure.subplots(1, 2), ("T1ce", "FLAIR"), strict=True):
    volume = restless.image[restless.channels.index(channel)]
    axis.imshow(volume[s], cmap="gray", vmax=np.percentile(volume, 99.8))
    axis.set(title=f"{channel}, slice {s}", xticks=[], yticks=[], xlim=(14, 84), ylim=(84, 12))
plots.show(
    figure,
    "Slice 57 in T1ce and in FLAIR. In both halves of the brain lies a lump: a bright ring around a dark "
    "middle in T1ce, wide and bright in FLAIR. The two look alike.",
)

# %% [markdown]
# Now **run** through the volume. In the viewer, hide the labels (opacity 0) and go to slice 57. Then go one
# slice down and one slice up, and watch both lumps. Then bring the labels back, and look from the front
# (plane: coronal): what became of the second lump? The figure below the viewer shows the three slices, for
# printed copies.

# %%
viewer(restless)

# %%
figure = Figure(figsize=(10, 3.9), layout="compressed")
flair = restless.image[restless.channels.index("FLAIR")]
for axis, here in zip(figure.subplots(1, 3), (s - 1, s, s + 1), strict=True):
    axis.imshow(flair[here], cmap="gray", vmax=np.percentile(flair, 99.8))
    if restless.label[here].any():
        axis.contour(restless.label[here] > 0, levels=[0.5], colors="#E69F00", linewidths=1.5)
    axis.set(title=f"FLAIR, slice {here}", xticks=[], yticks=[], xlim=(14, 84), ylim=(84, 12))
plots.show(
    figure,
    "Slices 56, 57 and 58 in FLAIR, with the true whole tumour outlined. The lump on the left of the "
    "picture is outlined and there in all three. The one on the right is in slice 57 alone, without an "
    "outline.",
)

# %% [markdown]
# The eye sees it at once. A number says it too: of all that is brighter in FLAIR than the threshold of
# section 7, how much is bright in the slice below or above as well?

# %%
bright = relative(restless, "FLAIR") > thresholds["FLAIR"]
goes_on = bright[s - 1] | bright[s + 1]
parts = {
    "labelled as tumour": bright[s] & (restless.label[s] > 0),
    "not labelled": bright[s] & (restless.label[s] == 0),
}
going_on = {what: (part & goes_on).sum() / part.sum() for what, part in parts.items()}
for what, part in parts.items():
    print(f"{what:19} {part.sum():4} voxels, of which {going_on[what]:4.0%} go on")
print(
    f"slices of this scan with such a second lump: {len(ghost_slices(13))} of {len(bright)}:",
    *ghost_slices(13),
)

# %% [markdown]
# > **Explain.** What is the second lump? Why do the labels not mark it? And what can a network that is shown
# > slice 57 alone know about it?

# %%
explanation(
    "It is a **motion ghost**. MRI does not record a slice point by point. It records many waves one after "
    "the other, and adds them up to a picture afterwards. If the patient moves in between, the waves no "
    "longer fit together, and what is bright comes back in a second place where nothing is (Wood & "
    "Henkelman, 1985, Medical Physics 12:143).\n\n"
    f"It lives in **one slice**: {going_on['not labelled']:.0%} of what is bright without a label goes on in "
    f"a neighbour, {going_on['labelled as tumour']:.0%} of the tumour does. From the front it is a thin "
    f"streak, and there are {len(ghost_slices(13))} of them, since each slice is recorded at its own time "
    "here, and neighbours not one after the other.\n\n"
    "The **labels** say what the tissue *is*, not what the picture shows. There is healthy brain under the "
    "ghost. A surgeon who trusted the picture would cut into it.\n\n"
    "A network that sees **one slice** can know that there are two lumps, and outline both. Which of them is "
    "real it cannot know: nothing in the slice says so. Show it a real second focus that looks the same, and "
    "it must give the same answer, for the same input gives the same output. All that training can teach it "
    "is *how often* such a lump was a ghost. More layers do not help, and more patients do not help. What "
    "helps is to **see the neighbours**. This is the reason for the methods of the later labs that let "
    "slices talk to each other."
)

# %% [markdown]
# We exaggerate, to make one thing clear. Our ghosts are copies of the tumour, and nearly as strong. Real ones
# are mostly fainter, and come as a row of echoes along one direction of the picture. Real motion often spoils
# more than one slice. And the four contrasts are four recordings: to find one ghost in all of them alike
# would be a strange coincidence.

# %% [markdown]
# ## 10. Bonus
#
# * **Back again.** A network that answers the three yes-or-no questions must be turned into labels. Write
#   `labels(ET, WT, TC)`, the inverse of `regions`. What should it do when the network claims ET outside TC?
# * **Dice and size.** Make balls of radius 2 to 12 voxels, move each by one voxel and plot its Dice over
#   the radius. Where would the three regions of patient 13 lie?
# * **Two contrasts.** Mark as ET what is bright in T1ce *and* in FLAIR. Which false alarms go, which stay,
#   and what would it take to lose these as well?

# %% [markdown]
# ## 11. Test yourself
#
# **1.** A cyst filled with free fluid: how does it look in T1, T2 and FLAIR?
#
# <details><summary>Answer</summary>
# Dark in T1 (its long T1 has no time to recover), bright in T2 (its long T2 has hardly decayed), dark in
# FLAIR (it is inverted and read at zero).
# </details>
#
# **2.** Why do ET, TC and WT overlap although every voxel has one label only?
#
# <details><summary>Answer</summary>
# A label names the tissue; a region is a union of labels, made for a clinical question. ET is part of TC
# and TC part of WT.
# </details>
#
# **3.** A prediction contains the true tumour and as many voxels again outside it. What is its Dice?
#
# <details><summary>Answer</summary>
# With |T| = n, |P| = 2n and overlap n: 2n / 3n = 0.67. The Jaccard index would be n / 2n = 0.5.
# </details>
#
# **4.** Two methods have the same mean Dice for ET. One scored patients without ET as 1 or 0, the other
# left them out. May you compare them?
#
# <details><summary>Answer</summary>
# No. The first mean contains patients in which only false alarms count, the second does not. Score both by
# one rule.
# </details>
#
# **5.** A spot of three voxels is bright in T1ce. Which one thing would you look at to tell a vein from a
# tumour?
#
# <details><summary>Answer</summary>
# The slices above and below: if the spot goes on as a tube, it is a vessel.
# </details>

# %% [markdown]
# ## 12. What changes on real data
#
# * **Before** segmentation the four contrasts must be brought onto one grid and the skull be removed. BraTS
#   provides this done, at 1 mm and 240 x 240 x 155 voxels. A hospital does not.
# * **Contrasts go missing**, patients move, slices are thick, scanners differ. Intensities have no unit,
#   which is why we divided by the median; networks normalise each volume in a similar way.
# * **The truth is an opinion.** Experts drew it, and they differ. Our synthetic truth is exact, which makes
#   our scores look cleaner than they could ever be.
# * **Labels vary between releases**: BraTS called enhancing tumour 4 up to 2021 and calls it 3 since 2023.
#   Look before you count.
# * **Brains vary more** than ours: operated patients have cavities, there are bleedings, and in
#   fast-flowing vessels the blood is dark instead of bright.
# * **Patients have rights.** Real data come with terms of use, and faces can be rebuilt from heads.

# %%
lab.progress()
