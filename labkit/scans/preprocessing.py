"""What is done to a scan before a network sees it, and what its channels and labels are called.

The reader of a folder decides it, a `Case` carries it, a delta keeps it: a network is used on scans that were
prepared like those it learned from, and on no others. The standardisation inside the body is not part of it:
that of `labkit.scans.slices.to_volume` is the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Preprocessing:
    """How cases of one source are prepared."""

    channels: tuple[str, ...]  # in the order of the image's first axis
    label_names: dict[int, str]  # what each label value above 0 is
    window_hu: tuple[float, float] | None = None  # ends of the range kept of channels that `is_ct`; None: all
    resampled_mm: tuple[float, float, float] | None = None  # of S, H, W; None: every scan keeps its own grid

    def unlike(self, other: Preprocessing) -> str:
        """How `other` differs from what a network was trained on, self, and what to do; "" if it does not."""
        parts = (
            ("the channels", "channels", "give it these, in this order"),
            ("the labels", "label_names", "give it a case with these labels"),
            ("the window of HU", "window_hu", "read the case with this `window_hu`"),
            ("the resampled spacing in mm", "resampled_mm", "read the case with this `spacing_mm`"),
        )
        for what, name, cure in parts:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return (
                    f"{what} {said(theirs)}, but the network was trained on {said(mine)}; {cure}, or use "
                    "another network"
                )
        return ""

    def to_json(self) -> dict:
        """As `json.dumps` takes it; label values become texts there."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping) -> Preprocessing:
        """What `to_json` gave, read back. ValueError: it is something else."""
        try:
            window, spacing = kept["window_hu"], kept["resampled_mm"]
            return cls(
                tuple(map(str, kept["channels"])),
                {int(value): str(name) for value, name in kept["label_names"].items()},
                window and tuple(map(float, window)),
                spacing and tuple(map(float, spacing)),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"expected channels, label_names, window_hu and resampled_mm of a preprocessing, not {kept!r}"
            ) from error


def is_ct(channel: str) -> bool:
    """Whether a channel holds CT numbers, by its name, as nnU-Net decides it (Isensee et al., 2021)."""
    return channel.strip().casefold() == "ct"


def said(value: tuple | dict | None) -> str:
    """For a sentence: ('T1', 'T2') -> "T1, T2", {1: 'kidney'} -> "1 kidney"."""
    if isinstance(value, dict):
        return ", ".join(f"{number} {name}" for number, name in sorted(value.items())) or "none"
    return "none" if value is None else ", ".join(map(str, value))
