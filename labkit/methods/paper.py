"""The parameter tables of Med-Tuning (Shen et al., 2024, arXiv:2304.10880) as settings of our methods.

The paper prints no settings for the methods it compares with. These are the published forms of the methods
whose counts are the printed ones; Med-Tuning's is the released code's, whose filters have 128 slices.
"""

from __future__ import annotations

from dataclasses import dataclass

from labkit.methods import Full, Head, MedTuning, ProTuning, Scratch, STAdapter, VPTDeep
from labkit.tuning import Method

NETWORKS = {"vit": ("vit_b16", "upernet"), "swin": ("swin_t", "swin_unet")}  # backbone and decoder


@dataclass(frozen=True)
class Row:
    """A method on both networks (None: not in labkit) and what the paper prints, in millions of parameters:
    tuned and, where there are any, inserted."""

    name: str
    vit: Method | None
    swin: Method | None
    printed_vit: tuple[float, float | None]
    printed_swin: tuple[float, float | None]


RELEASED = MedTuning(fourier="released", T=128, start="released")
ROWS = (
    Row("Scratch", Scratch(), Scratch(), (100.849, None), (27.154, None)),
    Row("Full", Full(), Full(), (100.849, None), (27.154, None)),
    Row("Head", Head(), Head(), (15.007, None), (6.752, None)),
    # 6.753 is the sum of the rounded 6.752 and .001; the sum, rounded, is 6.752
    Row("VPT-Shallow", None, None, (15.015, 0.008), (6.753, 0.001)),
    Row("VPT-Deep", VPTDeep(n=10), None, (15.100, 0.092), (6.780, 0.029)),
    Row("Adapter", None, None, (18.567, 3.560), (7.541, 0.790)),
    Row("AdaptFormer", None, None, (16.197, 1.190), (7.124, 0.372)),
    Row("Pro-tuning", ProTuning(), ProTuning(), (19.812, 4.805), (8.359, 1.607)),
    Row("ST-Adapter", STAdapter(), STAdapter(), (22.118, 7.110), (8.328, 1.577)),
    Row("Med-Tuning", RELEASED, RELEASED, (17.853, 2.846), (7.489, 0.738)),
)
