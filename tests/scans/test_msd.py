"""Folders of the Medical Segmentation Decathlon kind, whole and broken, written with nibabel."""

from __future__ import annotations

import gzip
import json
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nibabel.processing import resample_from_to

from labkit.scans.folders import split
from labkit.scans.hounsfield import WINDOW_HU
from labkit.scans.msd import msd_cases, read_case, read_cases

RNG = np.random.default_rng(0)
SHAPE = (6, 8, 10)  # x, y, z
AFFINE = np.array([[1.0, 0, 0, -3], [0, 2.0, 0, 5], [0, 0, 3.0, 7], [0, 0, 0, 1]])  # RAS
IMAGE = RNG.normal(100, 20, SHAPE).astype(np.float32)
LABEL = np.zeros(SHAPE, np.uint8)
LABEL[1:4, 2:6, 3:8], LABEL[1, 2, 3] = 1, 2


def write(folder, name, image=IMAGE, label=LABEL, affine=AFFINE, label_affine=None, suffix=".nii.gz"):
    """One case; `image` or `label` None writes no such file."""
    for room, voxels, its in (
        ("imagesTr", image, affine),
        ("labelsTr", label, affine if label_affine is None else label_affine),
    ):
        (folder / room).mkdir(parents=True, exist_ok=True)
        if voxels is not None:
            nib.save(nib.Nifti1Image(voxels, its), folder / room / f"{name}{suffix}")


def describe(folder, encoding="utf-8", **about):
    (folder / "dataset.json").write_text(json.dumps(about, ensure_ascii=False), encoding=encoding)


def in_case_axes(voxels):
    """(x, y, z) in RAS -> (S, H, W) by the definition: slices upwards, row 0 anterior, column 0 right."""
    X, Y, Z = voxels.shape[:3]
    out = np.empty((Z, Y, X), voxels.dtype)
    for x, y, z in product(range(X), range(Y), range(Z)):
        out[z, Y - 1 - y, X - 1 - x] = voxels[x, y, z]
    return out


# --- a whole folder


def test_a_case_has_the_shapes_types_and_spacing_of_the_convention(tmp_path):
    write(tmp_path, "a")
    case = read_case(tmp_path, "a")
    assert case.image.shape == (1, 10, 8, 6) and case.image.dtype == np.float32
    assert case.label.shape == (10, 8, 6) and case.label.dtype == np.uint8
    assert case.image.flags.c_contiguous and case.label.flags.c_contiguous
    assert case.spacing_mm == (3.0, 2.0, 1.0) and not case.synthetic
    assert (case.name, case.channels, case.label_names) == ("a", ("channel 0",), {1: "label 1", 2: "label 2"})


def test_slice_0_is_lowest_row_0_anterior_and_column_0_the_patients_right(tmp_path):
    image, label = np.zeros((2, *SHAPE), np.float32)
    label[:] = 1
    image[-1, 0, 0], image[0, -1, 0], image[0, 0, -1] = 1, 2, 3  # RAS: rightmost, most anterior, highest
    write(tmp_path, "a", image, label.astype(np.uint8))
    volume = read_case(tmp_path, "a").image[0]
    assert volume[0, -1, 0] == 1  # lowest slice, last row posterior, first column right
    assert volume[0, 0, -1] == 2
    assert volume[-1, -1, -1] == 3


CODES = [
    "".join(a[s] for a, s in zip(axes, signs, strict=True))
    for axes in permutations(["LR", "PA", "IS"])
    for signs in product((0, 1), repeat=3)
]


@pytest.mark.parametrize("code", CODES)
def test_one_patient_stored_in_any_orientation_is_the_same_case(tmp_path, code):
    for room, voxels in (("imagesTr", IMAGE), ("labelsTr", LABEL)):
        (tmp_path / room).mkdir()
        stored = nib.Nifti1Image(voxels, AFFINE)
        stored = stored.as_reoriented(ornt_transform(io_orientation(AFFINE), axcodes2ornt(code)))
        assert "".join(nib.aff2axcodes(stored.affine)) == code
        nib.save(stored, tmp_path / room / "a.nii.gz")
    case = read_case(tmp_path, "a")
    assert np.array_equal(case.image[0], in_case_axes(IMAGE))
    assert np.array_equal(case.label, in_case_axes(LABEL))
    assert case.spacing_mm == (3.0, 2.0, 1.0)


def test_image_and_label_may_be_stored_in_different_orientations(tmp_path):
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1
    write(tmp_path, "a", label=LABEL[::-1], label_affine=AFFINE @ flip)
    assert np.array_equal(read_case(tmp_path, "a").label, in_case_axes(LABEL))


def test_an_oblique_volume_keeps_its_voxels_and_spacing(tmp_path):
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    write(tmp_path, "a", affine=turn @ AFFINE)
    case = read_case(tmp_path, "a")
    assert np.array_equal(case.image[0], in_case_axes(IMAGE)) and np.allclose(case.spacing_mm, (3, 2, 1))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])  # the second as editors on Windows write it
def test_names_in_dataset_json_may_hold_any_letters(tmp_path, encoding):
    write(tmp_path, "a")
    describe(tmp_path, encoding, labels={"1": "Nebenhöhle", "2": "腫瘍"})
    assert read_case(tmp_path, "a").label_names == {1: "Nebenhöhle", 2: "腫瘍"}


def test_modalities_become_channels_named_by_dataset_json(tmp_path):
    image = np.stack([IMAGE, IMAGE + 1000], axis=-1)
    write(tmp_path, "a", image)
    assert read_case(tmp_path, "a").channels == ("channel 0", "channel 1")
    describe(tmp_path, modality={"1": "T1w", "0": "FLAIR"}, labels={"0": "none", "1": "rim", "2": "core"})
    case = read_case(tmp_path, "a")
    assert case.channels == ("FLAIR", "T1w") and case.label_names == {1: "rim", 2: "core"}
    assert np.array_equal(case.image[1], in_case_axes(IMAGE + 1000))


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
def test_labels_are_integers_whatever_type_they_are_stored_in(tmp_path, kind):
    write(tmp_path, "a", label=LABEL.astype(kind))
    label = read_case(tmp_path, "a").label
    assert label.dtype == np.uint8 and np.array_equal(label, in_case_axes(LABEL))


def test_scaled_and_big_endian_files_are_read_right(tmp_path):
    write(tmp_path, "a")
    scaled = nib.Nifti1Image(LABEL.astype(np.float32), AFFINE)
    scaled.set_data_dtype(np.uint8)
    nib.save(scaled, tmp_path / "labelsTr" / "a.nii.gz")  # nibabel stretches 0..2 over the 256 integers
    swapped = nib.Nifti1Image(IMAGE.astype(">f4"), AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(swapped, tmp_path / "imagesTr" / "a.nii.gz")
    assert nib.load(tmp_path / "labelsTr" / "a.nii.gz").dataobj.slope != 1
    assert nib.load(tmp_path / "imagesTr" / "a.nii.gz").header.endianness == ">"
    case = read_case(tmp_path, "a")
    assert np.array_equal(case.image[0], in_case_axes(IMAGE)) and case.image.dtype.isnative
    assert np.array_equal(case.label, in_case_axes(LABEL))


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_both_versions_of_nifti_packed_or_not(tmp_path, image_class, suffix, endianness):
    write(tmp_path, "a")
    (tmp_path / "imagesTr" / "a.nii.gz").unlink()
    header = image_class.header_class(endianness=endianness)
    nib.save(image_class(IMAGE, AFFINE, header), tmp_path / "imagesTr" / f"a{suffix}")
    assert np.array_equal(read_case(tmp_path, "a").image[0], in_case_axes(IMAGE))


def test_a_label_volume_may_have_a_last_axis_of_one(tmp_path):
    write(tmp_path, "a", label=LABEL[..., None])
    assert np.array_equal(read_case(tmp_path, "a").label, in_case_axes(LABEL))


# --- resampling


def test_resampling_equals_nibabels(tmp_path):
    write(tmp_path, "a")
    case = read_case(tmp_path, "a", spacing_mm=(2, 1.6, 1.2))
    assert case.spacing_mm == (2.0, 1.6, 1.2)
    native = read_case(tmp_path, "a")
    grid = np.diag([*native.spacing_mm, 1]), np.diag([2, 1.6, 1.2, 1])  # affines of (S, H, W)
    for volume, mine, order in ((native.image[0], case.image[0], 1), (native.label, case.label, 0)):
        volume = nib.Nifti1Image(volume, grid[0])
        theirs = resample_from_to(volume, (mine.shape, grid[1]), order, mode="nearest")
        assert np.allclose(mine, np.asanyarray(theirs.dataobj), rtol=1e-5)


def test_resampling_makes_no_label_that_was_not_there(tmp_path):
    write(tmp_path, "a", label=LABEL * 7)  # 7 and 14: interpolation would make values between
    case = read_case(tmp_path, "a", spacing_mm=0.8)
    assert set(np.unique(case.label)) == {0, 7, 14} and case.label.dtype == np.uint8
    assert case.image.dtype == np.float32 and case.image.shape[1:] == case.label.shape


def test_resampling_keeps_places_and_sizes(tmp_path):
    """A ramp along each axis stays the same ramp in mm, and a box keeps its volume."""
    x, y, z = np.meshgrid(*map(np.arange, (24, 24, 24)), indexing="ij")
    label = ((abs(x - 11) < 6) & (abs(y - 12) < 6) & (abs(z - 10) < 6)).astype(np.uint8)
    write(tmp_path, "a", np.stack([x, y, z], -1).astype(np.float32), label, affine=np.eye(4))
    case = read_case(tmp_path, "a", spacing_mm=0.5)
    assert case.image.shape == (3, 47, 47, 47)  # the 23 steps from first to last centre, halved
    s, h, w = np.unravel_index(np.flatnonzero(case.label), case.label.shape)
    inside = case.image[:, s, h, w]  # (x y z, voxels)
    assert np.allclose(inside.mean(axis=1), (11, 12, 10), atol=0.3)
    assert case.label.sum() * 0.5**3 == pytest.approx(label.sum(), rel=0.1)


def test_the_spacing_it_has_already_changes_nothing(tmp_path):
    write(tmp_path, "a")
    native, same = read_case(tmp_path, "a"), read_case(tmp_path, "a", spacing_mm=(3, 2, 1))
    assert np.array_equal(same.image, native.image) and same.spacing_mm == native.spacing_mm


def test_a_label_lost_by_resampling_is_said_to_be(tmp_path):
    label = np.zeros(SHAPE, np.uint8)
    label[2, 3, 4] = 1
    write(tmp_path, "a", label=label)
    with pytest.raises(ValueError, match=r"labelsTr.a.nii.gz: the foreground is lost at .* finer"):
        read_case(tmp_path, "a", spacing_mm=9)


@pytest.mark.parametrize("spacing_mm", [0, -1, np.nan, (1, 1), (1, 1, 0)])
def test_a_target_spacing_that_makes_no_sense_is_refused_at_once(tmp_path, spacing_mm):
    write(tmp_path, "a")
    for read, what in ((read_case, "a"), (read_cases, ["a"])):
        with pytest.raises(ValueError, match="spacing_mm must be one positive number, or three"):
            read(tmp_path, what, spacing_mm)


# --- which cases


def test_without_dataset_json_every_image_is_a_case(tmp_path):
    write(tmp_path, "b")
    write(tmp_path, "a", suffix=".nii")
    (tmp_path / "imagesTr" / "._b.nii.gz").write_bytes(b"macOS")
    (tmp_path / "imagesTr" / "notes.txt").write_text("not an image")
    assert msd_cases(tmp_path) == ["a", "b"]


def test_dataset_json_decides_which_cases_there_are(tmp_path):
    for name in "abc":
        write(tmp_path, name)
    describe(tmp_path, training=[{"image": f"./imagesTr/{name}.nii.gz", "label": ""} for name in "cag"])
    assert msd_cases(tmp_path) == ["a", "c", "g"]
    cases, problems = read_cases(tmp_path)
    assert [case.name for case in cases] == ["a", "c"]
    assert list(problems) == ["g"] and "there is no image; expected g.nii.gz" in problems["g"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[1, 2]",
        '{"training": [3]}',
        '{"labels": {"rim": "one"}}',
        '{"modality": "CT"}',
        '{"training": null}',
        "\x00\xff",
    ],
)
def test_a_broken_dataset_json_is_named_and_the_cases_stay_usable(tmp_path, text):
    write(tmp_path, "a")
    (tmp_path / "dataset.json").write_bytes(text.encode("latin-1"))
    for read in (lambda: msd_cases(tmp_path), lambda: read_case(tmp_path, "a")):
        with pytest.raises(ValueError, match=r"dataset.json: expected JSON with .* remove it") as error:
            read()
        assert "\n" not in str(error.value)
    cases, problems = read_cases(tmp_path)
    assert [case.name for case in cases] == ["a"] and list(problems) == ["dataset.json"]


@pytest.mark.parametrize(
    "rooms, sentence", [([], "there is no folder imagesTr"), (["imagesTr"], "there are no images")]
)
def test_a_folder_without_images_says_what_is_missing(tmp_path, rooms, sentence):
    for room in rooms:
        (tmp_path / room).mkdir()
    for read in (msd_cases, read_cases):
        with pytest.raises(ValueError, match=sentence):
            read(tmp_path)


def test_all_cases_name_all_labels_even_those_one_of_them_lacks(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b", label=(LABEL > 0).astype(np.uint8))
    cases, problems = read_cases(tmp_path)
    assert [case.label_names for case in cases] == [{1: "label 1", 2: "label 2"}] * 2 and not problems


# --- broken cases: each is one sentence naming its file, and its neighbour is read


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_header(path, **fields):
    """Change a stored header byte for byte, since nibabel would mend it."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)))


def twin(path):
    """The same file unpacked beside it: which of the two is meant?"""
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


def with_one(value):
    image = IMAGE.copy()
    image[0, 1, 2] = value
    return image


def moved(mm):
    affine = AFFINE.copy()
    affine[0, 3] += mm
    return affine


IMAGE_FILE, LABEL_FILE = "imagesTr/bad.nii.gz", "labelsTr/bad.nii.gz"
TWICE = [np.stack([voxels] * 2, axis=-1) for voxels in (IMAGE, LABEL)]
BROKEN = [  # the file to be named, what is done to it or to the whole case, what is to be said
    (IMAGE_FILE, lambda file: file.write_bytes(b"\x1f\x8bno gzip"), "not an intact NIfTI file"),
    (IMAGE_FILE, flip_a_bit, "not an intact"),
    (IMAGE_FILE, lambda file: cut(file, 900), "not an intact"),
    (LABEL_FILE, lambda file: cut(file, -4), "not an intact"),  # only the checksum is gone
    (IMAGE_FILE, lambda file: file.write_bytes(gzip.decompress(file.read_bytes())[:-10]), "not an intact"),
    (IMAGE_FILE, lambda file: file.write_bytes(b""), "not an intact"),
    (LABEL_FILE, lambda file: file.write_text("<html>404</html>" * 99), "not an intact"),
    (IMAGE_FILE, lambda file: edit_header(file, dim=[3, *[32000] * 3, 1, 1, 1, 1]), "not an intact"),
    (IMAGE_FILE, lambda file: file.unlink(), "there is no image; expected bad.nii.gz"),
    (
        LABEL_FILE,
        lambda file: file.unlink(),
        "there is no label file; .* of the same name in labelsTr",
    ),
    (IMAGE_FILE, twin, "there are 2 files for the image, bad.nii.gz, bad.nii; keep one"),
    (LABEL_FILE, twin, "there are 2 files for the label file"),
    (IMAGE_FILE, dict(image=IMAGE[0]), r"the shape is \(8, 10\); expected"),
    (IMAGE_FILE, dict(image=np.stack([TWICE[0]] * 3, axis=-1)), r"the shape is \(6, 8, 10, 2, 3\); expected"),
    (IMAGE_FILE, dict(image=np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])), "voxels are of type"),
    (IMAGE_FILE, dict(image=with_one(np.nan)), "1 voxels are NaN or infinite"),
    (IMAGE_FILE, dict(image=with_one(-np.inf)), "1 voxels are NaN or infinite"),
    (IMAGE_FILE, dict(image=TWICE[0]), "2 modalities, but dataset.json names .*MRI"),
    (IMAGE_FILE, lambda file: edit_header(file, srow_y=[0, 0, 0, 0]), "the affine is singular"),
    (IMAGE_FILE, lambda file: edit_header(file, srow_y=[1, 0, 0, 0]), "the affine is singular"),
    (LABEL_FILE, lambda file: edit_header(file, srow_x=[np.nan, 0, 0, 0]), "is singular, not finite"),
    (IMAGE_FILE, lambda file: edit_header(file, sform_code=0, pixdim=[1, 1, 0, 1, 0, 0, 0, 0]), "zero sp"),
    (IMAGE_FILE, lambda file: edit_header(file, sform_code=0, qform_code=0), "which axis is which"),
    (LABEL_FILE, lambda file: edit_header(file, sform_code=0, qform_code=0), "which axis is which"),
    (LABEL_FILE, dict(label=LABEL[:, :, 1:]), r"it has \(9, 8, 6\) .* bad.nii.gz has \(10, 8, 6\)"),
    (LABEL_FILE, dict(label=TWICE[1]), r"the shape is \(10, 8, 6, 2\); expected one volume"),
    (LABEL_FILE, dict(label_affine=moved(4)), "its affine puts it up to 4 mm away"),
    (LABEL_FILE, dict(label_affine=AFFINE @ np.diag([-1, 1, 1, 1])), "its affine puts it"),
    (LABEL_FILE, dict(label=LABEL * 0), "there is no foreground"),
    (LABEL_FILE, dict(label=LABEL * np.float32(0.5)), "must be whole numbers 0 to 255, but 0.5 is"),
    (LABEL_FILE, dict(label=LABEL * np.float32(1.02)), "must be whole numbers 0 to 255, but 1.02 is"),
    (LABEL_FILE, dict(label=-LABEL.astype(np.int16)), "must be whole numbers 0 to 255, but -[12]"),
    (LABEL_FILE, dict(label=LABEL * np.int16(300)), "must be whole numbers 0 to 255, but [36]00"),
    (LABEL_FILE, dict(label=with_one(np.nan) * 0), "must be whole numbers 0 to 255, but nan"),
    (LABEL_FILE, dict(label=IMAGE), "must be whole numbers .* or is it an image"),
    (LABEL_FILE, dict(label=LABEL * 3), r"the labels are \[3, 6\], but dataset.json names"),
]


@pytest.mark.parametrize("file, harm, sentence", BROKEN)
def test_a_broken_case_is_one_sentence_naming_its_file_and_others_stay_usable(tmp_path, file, harm, sentence):
    write(tmp_path, "good")
    write(tmp_path, "bad", **(harm if isinstance(harm, dict) else {}))
    describe(tmp_path, modality={"0": "MRI"}, labels={"0": "background", "1": "rim", "2": "core"})
    if callable(harm):
        harm(tmp_path / file)
    with pytest.raises(ValueError, match=sentence) as error:
        read_case(tmp_path, "bad")
    place = tmp_path / file
    named = (f"{place}: ", f"{place.parent}: there is no ", f"{place.parent}: there are 2 files for ")
    assert str(error.value).startswith(named) and "\n" not in str(error.value)
    cases, problems = read_cases(tmp_path, ["bad", "good"])
    assert [case.name for case in cases] == ["good"] and problems == {"bad": str(error.value)}


def test_rounding_in_a_header_does_not_part_image_and_label(tmp_path):
    write(tmp_path, "a", label_affine=moved(0.01))
    assert read_case(tmp_path, "a").name == "a"


# --- splitting

NAMES = [f"patient_{i:03d}" for i in range(100)]


def test_a_split_holds_everyone_once_in_the_fractions_asked_for():
    parts = split(NAMES, validation=0.1, test=0.25)
    assert {part: len(names) for part, names in parts.items()} == {"train": 65, "validation": 10, "test": 25}
    assert sorted(sum(parts.values(), [])) == NAMES


def test_a_split_depends_on_seed_and_names_but_not_on_their_order():
    assert split(NAMES) == split(NAMES[::-1]) == split(NAMES + NAMES[:3])
    assert split(NAMES, seed=1)["test"] != split(NAMES)["test"]
    assert split(["a", "b", "c", "d"], seed=0)["test"] == ["b"]  # the same on every machine and for ever


def test_scans_of_one_patient_stay_in_one_part():
    scans = [f"{name}-{visit}" for name in NAMES[:20] for visit in range(3)]
    parts = split(scans, patient_of=lambda scan: scan[:11])
    patients = [{scan[:11] for scan in names} for names in parts.values()]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    assert [len(names) for names in parts.values()] == [39, 9, 12]


def test_a_small_folder_still_gets_someone_in_every_part():
    assert [len(names) for names in split(NAMES[:3]).values()] == [1, 1, 1]
    assert split(NAMES[:3], validation=0)["validation"] == []


@pytest.mark.parametrize(
    "names, fractions",
    [(NAMES[:2], {}), ([], {}), (NAMES, {"test": -0.1}), (NAMES, {"validation": 0.5, "test": 0.5})],
)
def test_a_split_that_leaves_nobody_to_train_on_is_refused(names, fractions):
    with pytest.raises(ValueError, match="cannot be split"):
        split(names, **fractions)


# --- CT, nnU-Net's layout, units


AIRY = np.full(SHAPE, -1000.0, np.float32)
AIRY[1:5, 1:7, 1:9], AIRY[2, 3, 4] = 40, 900


def test_a_modality_called_ct_is_cut_off_at_the_window_of_kits_and_says_so(tmp_path):
    write(tmp_path, "a", image=AIRY)
    assert read_case(tmp_path, "a").image.max() == 900, "nobody said that it is CT"
    describe(tmp_path, modality={"0": "CT"})
    case = read_case(tmp_path, "a")
    assert np.array_equal(case.image[0], in_case_axes(np.clip(AIRY, *WINDOW_HU)))
    assert case.preprocessing.window_hu == WINDOW_HU
    raw = read_cases(tmp_path, window_hu=None)[0][0]
    assert raw.image.max() == 900 and raw.preprocessing.window_hu is None


def test_of_several_modalities_only_ct_is_windowed(tmp_path):
    write(tmp_path, "a", image=np.stack([AIRY + 3, AIRY], axis=-1))
    describe(tmp_path, modality={"0": "PET", "1": "CT"})
    assert [channel.max() for channel in read_case(tmp_path, "a").image] == [903, 304]


def test_a_ct_that_holds_no_hu_is_refused_before_the_window_flattens_it(tmp_path):
    write(tmp_path, "a", image=AIRY + 1024)
    describe(tmp_path, modality={"0": "CT"})
    with pytest.raises(ValueError, match="a.nii.gz: the lowest value is 24, but in HU air is about -1000"):
        read_case(tmp_path, "a")
    write(tmp_path, "a", image=IMAGE - IMAGE.min())  # soft tissue that was cut out: the window cuts nothing
    assert np.array_equal(read_case(tmp_path, "a").image[0], in_case_axes(IMAGE - IMAGE.min()))


def nnunet(folder, name, channels=2, label=LABEL):
    write(folder, name, image=None, label=label)
    for i in range(channels):
        nib.save(nib.Nifti1Image(IMAGE + 1000 * i, AFFINE), folder / "imagesTr" / f"{name}_{i:04d}.nii.gz")


def test_the_layout_of_nnunet_is_read_by_its_own_words(tmp_path):
    nnunet(tmp_path, "case_01")
    nnunet(tmp_path, "case_02")
    labels = {"background": 0, "rim": 1, "core": 2}
    describe(tmp_path, channel_names={"1": "ADC", "0": "T2"}, labels=labels, file_ending=".nii.gz")
    cases, problems = read_cases(tmp_path)
    assert [case.name for case in cases] == ["case_01", "case_02"] and not problems
    assert cases[0].channels == ("T2", "ADC") and cases[0].label_names == {1: "rim", 2: "core"}
    assert np.array_equal(cases[0].image[1], in_case_axes(IMAGE + 1000))


@pytest.mark.parametrize("about", [None, dict(modality={"0": "T2", "1": "ADC"})])
def test_the_layout_of_nnunet_is_known_by_its_files(tmp_path, about):
    nnunet(tmp_path, "a")
    if about:  # as for its first version
        describe(
            tmp_path, training=[{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}], **about
        )
    cases, problems = read_cases(tmp_path)
    assert [(case.name, case.image.shape[0]) for case in cases] == [("a", 2)] and not problems


def test_four_digits_are_part_of_a_name_that_has_labels(tmp_path):
    write(tmp_path, "patient")
    write(tmp_path, "patient_0000")
    write(tmp_path, "patient_0001")
    assert msd_cases(tmp_path) == ["patient", "patient_0000", "patient_0001"]
    assert [len(case.channels) for case in read_cases(tmp_path)[0]] == [1, 1, 1]


def test_a_channel_that_is_missing_or_too_many_is_named(tmp_path):
    nnunet(tmp_path, "a", channels=1)
    nnunet(tmp_path, "b", channels=3)
    describe(tmp_path, channel_names={"0": "T2", "1": "ADC"})
    _, problems = read_cases(tmp_path)
    assert "there is no image; expected a_0001.nii.gz" in problems["a"] and "nnU-Net" in problems["a"]
    assert "there are 3 modalities, but dataset.json names ('T2', 'ADC')" in problems["b"]


@pytest.mark.parametrize(
    "labels, said", [({"whole": [1, 2]}, "'whole' is a region"), ({"a": 1, "ignore": 2}, "label to ignore")]
)
def test_labels_of_nnunet_that_are_no_tissue_are_not_taken_for_one(tmp_path, labels, said):
    nnunet(tmp_path, "a")
    describe(tmp_path, channel_names={"0": "T2", "1": "ADC"}, labels=labels)
    with pytest.raises(ValueError, match=f"dataset.json: .*{said}"):
        read_case(tmp_path, "a")


def test_metres_and_micrometres_are_read_as_what_they_are(tmp_path):
    for unit, factor in (("meter", 1e-3), ("micron", 1e3), ("mm", 1.0), ("unknown", 1.0)):
        for room, voxels in (("imagesTr", IMAGE), ("labelsTr", LABEL)):
            (tmp_path / room).mkdir(exist_ok=True)
            file = nib.Nifti1Image(voxels, np.diag([factor, factor, factor, 1]) @ AFFINE)
            file.header.set_xyzt_units(unit)
            nib.save(file, tmp_path / room / "a.nii.gz")
        assert read_case(tmp_path, "a").spacing_mm == pytest.approx((3, 2, 1))


def test_a_case_says_what_it_was_resampled_to(tmp_path):
    write(tmp_path, "a")
    assert read_case(tmp_path, "a").preprocessing.resampled_mm is None
    assert read_case(tmp_path, "a", spacing_mm=[2, 1, 1]).preprocessing.resampled_mm == (2.0, 1.0, 1.0)
