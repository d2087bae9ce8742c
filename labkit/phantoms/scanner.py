"""The scanner: from tissue to four contrasts, with a coil's shading, noise and a gain that means nothing.

Numbers without a source were chosen by eye, or so that each class differs from normal brain as in one real
case (see tests/data/test_brain.py).
"""

from __future__ import annotations

import numpy as np

from labkit.phantoms import synthesis
from labkit.phantoms.body import Body
from labkit.phantoms.mri_signal import TISSUES, Tissue, four_contrasts
from labkit.phantoms.synthesis import smooth_field

UNEVEN_MM = {"coarse": 9.0, "fine": 4.0}  # no tissue is the same everywhere: scales of log R1 and log R2
HEALTHY_UNEVEN = {"coarse": 0.06, "fine": 0.05}
DISEASED_UNEVEN = {"coarse": 0.10, "fine": 0.08}
DETAIL_GAIN = 1.5  # the template's nuclei differ in R1 and, by their iron, in R2
UPTAKE_MM, UPTAKE_UNEVEN = 6.0, 0.25  # log of the contrast agent's concentration
UPTAKE_VARIES = 0.15  # between patients, log
SHADING = 0.09  # spread of the log of a coil's sensitivity
NOISE = (0.04, 0.07)  # of the brain's mean signal
GAIN, GAIN_VARIES = 400, 0.25  # arbitrary units; log


def acquire(rng: np.random.Generator, body: Body, seen: Body | None = None) -> np.ndarray:
    """Four contrasts (4, S, H, W) uint16 of a body, 0 outside the brain and at least 1 inside.

    `seen` is the body as motion shows it (see ghosts.py), if that differs. Gain and noise are set by `body`,
    as a scanner adjusts them before it starts; so slices in which both are equal are equal in the image.
    """
    brain = sum(body.fractions.values()) > 0.5
    tissue = {name: jittered(rng, TISSUES[name]) for name in TISSUES}
    fields = {
        name: smooth_field(rng, brain.shape, body.spacing_mm, scale)[brain]
        for name, scale in (*UNEVEN_MM.items(), ("uptake", UPTAKE_MM))
    }
    signal = signals(body, brain, tissue, fields)
    level = signal.mean(1)
    if seen is not None:
        signal = signals(seen, brain, tissue, fields)
    image = np.zeros((4, *brain.shape), np.uint16)
    for channel, values in enumerate(signal):
        shading = synthesis.bias_field(rng, brain.shape, body.spacing_mm, SHADING)[brain]
        values = values * shading / level[channel]
        values = synthesis.rician(rng, values.astype(np.float32), noise=rng.uniform(*NOISE))
        gain = GAIN * np.exp(rng.normal(0, GAIN_VARIES))
        image[channel][brain] = np.clip(np.round(gain * values), 1, 65535)
    return image


def signals(
    body: Body, brain: np.ndarray, tissue: dict[str, Tissue], fields: dict[str, np.ndarray]
) -> np.ndarray:
    """Noiseless signal (4, N) of the N voxels in the mask `brain`; fields hold one value for each of them."""
    total = sum(body.fractions.values())[brain]
    share = {name: fraction[brain] / total for name, fraction in body.fractions.items()}
    healthy, diseased = (
        sum(amount[name] * fields[name] for name in amount) for amount in (HEALTHY_UNEVEN, DISEASED_UNEVEN)
    )
    uneven = np.where(body.diseased[brain], diseased, healthy)
    texture = np.exp(uneven + DETAIL_GAIN * body.detail[brain])

    # Water inside tissue exchanges, so rates are averaged; CSF is apart, so signals are.
    fluid = share.pop("csf")
    solid = np.maximum(1 - fluid, 1e-6)
    pd, r1, r2, agent = (
        sum(part * value(tissue[name]) for name, part in share.items()) / solid
        for value in (lambda t: t.pd, lambda t: 1 / t.t1_ms, lambda t: 1 / t.t2_ms, lambda t: t.agent)
    )
    uptake = np.exp(UPTAKE_UNEVEN * fields["uptake"])
    signal = four_contrasts(pd, r1 * texture, r2 * texture, agent * uptake)
    csf = tissue["csf"]
    of_fluid = four_contrasts(csf.pd, 1 / csf.t1_ms, 1 / csf.t2_ms, csf.agent)
    return solid * signal + fluid * of_fluid[:, None]


def jittered(rng: np.random.Generator, tissue: Tissue) -> Tissue:
    """The tissue as one patient has it: relaxation times and uptake scattered around the table's values."""
    t1, t2, agent = np.exp(rng.normal(0, (tissue.varies, tissue.varies, UPTAKE_VARIES)))
    return Tissue(tissue.pd, tissue.t1_ms * t1, tissue.t2_ms * t2, tissue.agent * agent, 0.0)
