"""Slices as pictures: arrays in, an array of pixels or PNG bytes out; nothing here displays anything."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from labkit.scans.case import Case

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255

# Okabe and Ito, 2008, "Color Universal Design": told apart with any common colour blindness. Neighbours in
# this order also differ in lightness, so that they survive a grey print.
VERMILLION, SKY_BLUE, YELLOW, PURPLE = (213, 94, 0), (86, 180, 233), (240, 228, 66), (204, 121, 167)
GREEN, ORANGE, BLUE = (0, 158, 115), (230, 159, 0), (0, 114, 178)
# Paul Tol, "Colour schemes", 2021 (SRON/EPS/TN/09-002), muted: for what is neither a label nor an error
WINE, SAND, INDIGO = (136, 34, 85), (221, 204, 119), (51, 34, 136)
PALETTE: tuple[Colour, ...] = (VERMILLION, SKY_BLUE, YELLOW, PURPLE, GREEN, ORANGE, BLUE)

RIGHT, MISSED, ADDED, CONFUSED = 0, 1, 2, 3
DIFFERENCES = {MISSED: "missed", ADDED: "too much", CONFUSED: "wrong label"}
DIFFERENCE_COLOURS = {MISSED: BLUE, ADDED: ORANGE, CONFUSED: GREEN}  # none of the first three labels'

INK = "#757575"  # 4.6 to 1 on white and on black: WCAG 2.2, 1.4.3 asks for 4.5
NO_GROUND = (117, 117, 117, 0)  # transparent, in the colour of the ink, so that its letters have no rim

SIDE_PX = 480  # the longest side of a volume in the viewer


@dataclass(frozen=True)
class Plane:
    """A way to cut a volume (S, H, W): the axis cut across, and the letter at each side of the picture."""

    axis: int
    top: str
    bottom: str
    left: str
    right: str

    def cut(self, volume: np.ndarray, index: int) -> np.ndarray:
        """The slice (rows, columns) as it is looked at: head or face up, the patient's right on the left."""
        slice_ = np.take(volume, index, axis=self.axis)
        return slice_ if self.axis == 0 else slice_[::-1]  # the first axial slice is the lowest

    def voxel(self, shape: Sequence[int], index: int, x: float, y: float) -> tuple[int, int, int]:
        """The voxel (s, h, w) of slice `index` at shares x of the picture's width and y of its height."""
        rows, columns = (n for axis, n in enumerate(shape) if axis != self.axis)
        row, column = (min(max(int(at * n), 0), n - 1) for at, n in ((y, rows), (x, columns)))
        found = [row if self.axis == 0 else rows - 1 - row, column]
        found.insert(self.axis, index)
        return tuple(found)

    def place(self, shape: Sequence[int], voxel: Sequence[int]) -> tuple[float, float]:
        """The reverse: shares x and y of the middle of a voxel."""
        (row, rows), (column, columns) = (
            at for axis, at in enumerate(zip(voxel, shape, strict=True)) if axis != self.axis
        )
        return (column + 0.5) / columns, ((row if self.axis == 0 else rows - 1 - row) + 0.5) / rows

    def pixel_mm(self, spacing_mm: Sequence[float]) -> tuple[float, float]:
        """Height and width of a voxel in the picture."""
        return tuple(mm for axis, mm in enumerate(spacing_mm) if axis != self.axis)


PLANES = {
    "axial": Plane(0, "A", "P", "R", "L"),
    "coronal": Plane(1, "S", "I", "R", "L"),
    "sagittal": Plane(2, "S", "I", "A", "P"),
}


# What a picture needs to know of a case


def label_colours(label_names: Mapping[int, str]) -> dict[int, Colour]:
    """A colour per label, the smallest label first; from the eighth on they repeat in a lighter shade."""
    rounds = [divmod(i, len(PALETTE)) for i in range(len(label_names))]
    shades = [tuple(255 - (255 - c) // 2**turn for c in PALETTE[i]) for turn, i in rounds]
    return dict(zip(sorted(label_names), shades, strict=True))


def checked(case: Case, prediction: np.ndarray) -> np.ndarray:
    """`prediction` as uint8 (S, H, W), when it is a label volume of this case.

    ValueError: another shape, no whole numbers, or labels that the case does not know.
    """
    prediction = np.asarray(prediction)
    if prediction.shape != case.label.shape:
        raise ValueError(f"the prediction has shape {prediction.shape} but {case.name} {case.label.shape}; "
                         "give one label per voxel, on the same grid")  # fmt: skip
    if prediction.dtype.kind not in "biu":
        raise ValueError(f"a prediction holds integer labels, not {prediction.dtype}; take the argmax of "
                         "logits and turn it into the case's labels")  # fmt: skip
    known = sorted({0, *case.label_names})
    strange = sorted(set(np.unique(prediction).tolist()) - set(known))
    if strange:
        raise ValueError(f"the prediction holds label {strange[0]} but {case.name} knows {known}; turn class "
                         "numbers back into the case's labels")  # fmt: skip
    return prediction.astype(np.uint8)


def difference(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Where two label arrays disagree, and how: one of RIGHT, MISSED, ADDED, CONFUSED per voxel."""
    result = np.full(truth.shape, CONFUSED, np.uint8)
    result[(prediction == 0)] = MISSED
    result[(truth == 0)] = ADDED
    result[prediction == truth] = RIGHT
    return result


def fullest(label: np.ndarray, axis: int = 0) -> int:
    """The slice across `axis` with most labelled voxels; the middle one if there are none."""
    counts = (label > 0).sum(axis=tuple(a for a in range(label.ndim) if a != axis))
    return int(counts.argmax()) if counts.any() else label.shape[axis] // 2


def intensity_range(image: np.ndarray) -> tuple[float, float]:
    """What is shown as black and as white: the 1st and the 99.8th percentile of what is no background."""
    background = image.flat[0]
    inside = image[image != background]
    low, high = np.percentile(inside if inside.size else image, (1, 99.8))
    low = min(low, float(background))  # a background of 0 stays black
    return float(low), float(high if high > low else low + 1)


def px_scale(case: Case, side: int = SIDE_PX) -> float:
    """Pixels per mm that make the longest side of the volume `side` pixels long."""
    return side / max(n * mm for n, mm in zip(case.label.shape, case.spacing_mm, strict=True))


# One slice as an image


def slice_image(
    image: np.ndarray,
    label: np.ndarray | None = None,
    colours: Mapping[int, Colour] | None = None,
    *,
    black: float,
    white: float,
    pixel_mm: tuple[float, float] = (1.0, 1.0),
    px_per_mm: float = 3.0,
    opacity: float = 0.5,
    contours: bool = False,
) -> np.ndarray:
    """One slice (rows, columns) in grey, with its labels in colour, as (h, w, 3) uint8 in true proportions.

    The image is interpolated; labels keep their voxels' edges. `contours` paints only their borders.
    """
    rows, columns = (max(1, round(n * mm * px_per_mm)) for n, mm in zip(image.shape, pixel_mm, strict=True))
    scaled = np.clip((image - black) * (255 / (white - black)), 0, 255).astype(np.uint8)
    grey = np.asarray(Image.fromarray(scaled).resize((columns, rows), Image.Resampling.BILINEAR))
    picture = np.repeat(grey[..., None], 3, axis=2)
    if label is None or not label.any() or opacity <= 0:
        return picture
    label = np.asarray(Image.fromarray(label).resize((columns, rows), Image.Resampling.NEAREST))
    where = border(label) if contours else label > 0
    table = np.zeros((256, 3), np.float32)
    for value, colour in (colours or {}).items():
        table[value] = colour
    mixed = (1 - opacity) * picture[where] + opacity * table[label[where]]
    picture[where] = np.round(mixed).astype(np.uint8)
    return picture


def border(label: np.ndarray, px: int = 2) -> np.ndarray:
    """The outermost `px` pixels of every label in an array (h, w)."""
    wide = np.pad(label, px)
    h, w = label.shape
    shifts = ((0, px), (px, 0), (px, 2 * px), (2 * px, px))
    return (label > 0) & np.any([wide[i : i + h, j : j + w] != label for i, j in shifts], axis=0)


def annotate(picture: np.ndarray, plane: Plane, px_per_mm: float) -> np.ndarray:
    """The same picture with the patient's directions at its sides and a scale bar in mm."""
    h, w = picture.shape[:2]
    drawn, marks = Image.fromarray(picture), _marks(h, w, plane, px_per_mm)
    drawn.paste(marks, mask=marks)
    return np.asarray(drawn)


@lru_cache(maxsize=16)
def _marks(h: int, w: int, plane: Plane, px_per_mm: float) -> Image.Image:
    """What `annotate` draws, on no ground: the same for every slice of a patient."""
    drawn = Image.new("RGBA", (w, h))
    pen = ImageDraw.Draw(drawn)
    style = {"font": _font(), "fill": (255, 255, 255), "stroke_width": 2, "stroke_fill": (0, 0, 0)}
    pen.text((w / 2, 4), plane.top, anchor="ma", **style)
    pen.text((w / 2, h - 4), plane.bottom, anchor="md", **style)
    pen.text((5, h / 2), plane.left, anchor="lm", **style)
    pen.text((w - 5, h / 2), plane.right, anchor="rm", **style)
    bar_mm = max((mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm * px_per_mm < w / 3), default=1)
    right, bottom, long = w - 10, h - 10, bar_mm * px_per_mm
    pen.rectangle((right - long - 1, bottom - 4, right + 1, bottom + 1), fill=(0, 0, 0))
    pen.rectangle((right - long, bottom - 3, right, bottom), fill=(255, 255, 255))
    pen.text((right - long / 2, bottom - 7), f"{bar_mm} mm", anchor="md", **style)
    return drawn


def crossed(picture: np.ndarray, x: float, y: float, free_px: int = 10) -> np.ndarray:
    """The same picture with lines that would meet at shares x and y of its sides; there it stays free."""
    drawn = Image.fromarray(picture)
    pen, (h, w) = ImageDraw.Draw(drawn), picture.shape[:2]
    x, y = x * w, y * h
    for line in (
        (0, y, x - free_px, y),
        (x + free_px, y, w, y),
        (x, 0, x, y - free_px),
        (x, y + free_px, x, h),
    ):
        pen.line(line, fill="black", width=3)
        pen.line(line, fill="white", width=1)
    return np.asarray(drawn)


def beside(pictures: Mapping[str, np.ndarray], gap_px: int = 8) -> np.ndarray:
    """Pictures of equal height in a row on no ground of their own, each under its name, (h, w, 4) uint8."""
    above = 22
    height = above + max(p.shape[0] for p in pictures.values())
    width = sum(p.shape[1] + gap_px for p in pictures.values()) - gap_px
    drawn = Image.new("RGBA", (width, height), NO_GROUND)
    pen, left = ImageDraw.Draw(drawn), 0
    for name, picture in pictures.items():
        pen.text((left + picture.shape[1] / 2, above / 2), name, anchor="mm", font=_font(), fill=INK)
        drawn.paste(Image.fromarray(picture), (left, above))
        left += picture.shape[1] + gap_px
    return np.asarray(drawn)


def heat(values: np.ndarray, size: tuple[int, int], label: np.ndarray | None = None) -> np.ndarray:
    """A map (h, w) of values from 0 to 1 in viridis, enlarged without smoothing, (*size, 3) uint8.

    With the outlines of a label array (H, W) in white on black, if there is one.
    """
    import matplotlib

    colours = matplotlib.colormaps["viridis"](np.clip(values, 0, 1))[..., :3]
    small = Image.fromarray(np.round(255 * colours).astype(np.uint8))
    picture = np.array(small.resize(size[::-1], Image.Resampling.NEAREST))
    if label is not None:
        large = np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))
        picture[border(large, 3)] = 0  # seen on yellow, and the white line in it on violet
        picture[border(large, 1)] = 255
    return picture


def with_colour_bar(picture: np.ndarray, ends: tuple[str, str]) -> np.ndarray:
    """A map in viridis and right of it the colours from 0 (below) to 1, with a word for each end,
    (h, w, 4) uint8."""
    high, gap, wide = picture.shape[0], 8, 14
    room = max(round(_font().getlength(word)) for word in ends) + 6
    ramp = heat(np.linspace(1, 0, high)[:, None], (high, wide))
    drawn = Image.new("RGBA", (picture.shape[1] + gap + wide + room, high), NO_GROUND)
    drawn.paste(Image.fromarray(picture), (0, 0))
    drawn.paste(Image.fromarray(ramp), (picture.shape[1] + gap, 0))
    pen, left = ImageDraw.Draw(drawn), picture.shape[1] + gap + wide + 4
    for word, y, anchor in ((ends[1], 2, "lt"), (ends[0], high - 2, "lb")):
        pen.text((left, y), word, anchor=anchor, font=_font(), fill=INK)
    return np.asarray(drawn)


def bars(values: np.ndarray, used: int, size: tuple[int, int] = (640, 110)) -> np.ndarray:
    """Bars of non-negative values, the first `used` filled and the others hollow, (h, w, 3) uint8."""
    width, height = size
    drawn = Image.new("RGB", size, "white")
    pen, step, floor = ImageDraw.Draw(drawn), width / max(len(values), 1), height - 18
    for i, value in enumerate(values / max(float(np.max(values, initial=0)), 1e-12)):
        box = (i * step + 1, floor - value * (floor - 4), (i + 1) * step - 2, floor)
        pen.rectangle(box, fill=BLUE if i < used else "white", outline=BLUE)
        if len(values) <= 16 or i % 4 == 3 or i == 0:
            pen.text((i * step + step / 2, height - 9), str(i + 1), anchor="mm", font=_font(), fill="black")
    return np.asarray(drawn)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size=15)


def png(picture: np.ndarray) -> bytes:
    """A picture (h, w, 3 or 4) uint8 as PNG; compressed little, for speed."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png", compress_level=1)
    return file.getvalue()


def legend_html(names: Mapping[int, str], colours: Mapping[int, Colour]) -> str:
    """The same for a notebook: a swatch and a word per label."""
    swatch = "display:inline-block;width:1em;height:1em;border:1px solid #555;background:rgb"
    items = (
        f"<li><span aria-hidden='true' style='{swatch}{colours[value]}'></span> {html.escape(text)}</li>"
        for value, text in sorted(names.items())
    )
    plain = "list-style:none;margin:0;padding:0;line-height:1.4"
    return f"<ul aria-label='legend' style='{plain}'>{''.join(items)}</ul>"


def legend_row(
    names: Mapping[int, str], colours: Mapping[int, Colour], width: int, title: str = ""
) -> np.ndarray:
    """A line of swatches and words as a picture (h, width, 3) uint8."""
    drawn = Image.new("RGB", (width, 26), "white")
    pen, x, font = ImageDraw.Draw(drawn), 10, ImageFont.load_default(size=14)
    if title:
        pen.text((x, 13), title, anchor="lm", font=font, fill="black")
        x += round(pen.textlength(title, font)) + 14
    for value, text in names.items():
        pen.rectangle((x, 6, x + 15, 20), fill=colours[value], outline="black")
        pen.text((x + 22, 13), text, anchor="lm", font=font, fill="black")
        x += 22 + round(pen.textlength(text, font)) + 20
    return np.asarray(drawn)


def unit(colour: Colour) -> tuple[float, ...]:
    """The same colour from 0 to 1, as matplotlib takes it."""
    return tuple(c / 255 for c in colour)
