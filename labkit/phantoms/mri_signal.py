r"""From tissue to MR signal: relaxation at 1.5 T, spin echo, inversion recovery, contrast agent.

Spin echo            S = PD (1 - exp(-TR R1)) exp(-TE R2)
Inversion recovery   S = PD |1 - 2 exp(-TI R1) + exp(-TR R1)| exp(-TE R2)
Contrast agent       R1 = 1/T1 + r1 c,  R2 = 1/T2 + r2 c

Grey and white matter: the BrainWeb values (Kwan, Evans & Pike, IEEE Trans. Med. Imaging 18:1085, 1999).
Cerebrospinal fluid: T1 from Rooney et al. (Magn. Reson. Med. 57:308, 2007). Relaxivities of gadopentetate in
plasma: Rohrer et al. (Invest. Radiol. 40:715, 2005). Measured T1 and T2 of gliomas scatter widely and
overlap between grades (Just & Thelen, Radiology 169:779, 1988; Newman et al., Eur. Radiol. 3:49, 1993); the
values here are no measurements: within that scatter they are set so that the contrast of each class to
normal brain resembles one real case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

T1_RELAXIVITY, T2_RELAXIVITY = 4.1, 4.6  # 1 / (mmol/l s), 37 degrees, 1.5 T


@dataclass(frozen=True)
class Tissue:
    """Proton density relative to water, relaxation times in ms, contrast agent in mmol/l after injection."""

    pd: float
    t1_ms: float
    t2_ms: float
    agent: float
    varies: float  # spread between patients of log T1 and log T2


TISSUES = {
    "white": Tissue(0.77, 500, 70, 0.01, 0.03),
    "grey": Tissue(0.86, 833, 83, 0.02, 0.03),
    "csf": Tissue(1.00, 4300, 1500, 0.0, 0.02),
    "necrosis": Tissue(0.94, 2300, 420, 0.04, 0.12),
    "solid": Tissue(0.90, 1550, 185, 0.02, 0.08),  # tumour that does not enhance
    "enhancing": Tissue(0.90, 1500, 195, 0.45, 0.08),
    "oedema": Tissue(0.89, 1300, 195, 0.01, 0.08),
    "lesion": Tissue(0.85, 950, 165, 0.01, 0.08),  # white-matter hyperintensity
    "blood": Tissue(0.90, 1400, 175, 0.50, 0.05),  # in slow veins; flow voids are left out
}


def spin_echo(pd: np.ndarray, r1: np.ndarray, r2: np.ndarray, tr_ms: float, te_ms: float) -> np.ndarray:
    """Spin-echo signal; rates r1, r2 in 1/ms."""
    return pd * (1 - np.exp(-tr_ms * r1)) * np.exp(-te_ms * r2)


def inversion_recovery(
    pd: np.ndarray, r1: np.ndarray, r2: np.ndarray, tr_ms: float, te_ms: float, ti_ms: float
) -> np.ndarray:
    """Magnitude of the inversion-recovery spin-echo signal; rates r1, r2 in 1/ms."""
    return pd * np.abs(1 - 2 * np.exp(-ti_ms * r1) + np.exp(-tr_ms * r1)) * np.exp(-te_ms * r2)


def four_contrasts(pd: np.ndarray, r1: np.ndarray, r2: np.ndarray, agent: np.ndarray) -> np.ndarray:
    """T1, T1 after contrast agent (mmol/l), T2 and FLAIR, stacked first; rates r1, r2 in 1/ms."""
    return np.stack(
        [
            spin_echo(pd, r1, r2, tr_ms=500, te_ms=12),
            spin_echo(
                pd, r1 + T1_RELAXIVITY * agent / 1000, r2 + T2_RELAXIVITY * agent / 1000, tr_ms=500, te_ms=12
            ),
            spin_echo(pd, r1, r2, tr_ms=5000, te_ms=90),
            inversion_recovery(pd, r1, r2, tr_ms=9000, te_ms=130, ti_ms=2400),
        ]
    )
