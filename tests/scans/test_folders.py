"""Folders of BraTS and KiTS, whole and broken, written with nibabel; and which layout a folder has."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from labkit.scans import brats, kits, msd
from labkit.scans.folders import layout_of, read_folder
from labkit.scans.slices import to_volume

RNG = np.random.default_rng(0)
N = 8
IMAGE = RNG.normal(300, 50, (N, N, N)).astype(np.float32)
IMAGE[:2] = 0
LABEL = np.zeros((N, N, N), np.uint8)
LABEL[3:6, 2:6, 2:5], LABEL[3, 2:4, 2:4], LABEL[5, 4:6, 3:5] = 2, 1, 4
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # as BraTS stores: x to the left, y to the back, z upwards
CT = RNG.normal(40, 60, (N, N, N)).astype(np.float32)
CT[:, :2] = -1000
KIDNEY = np.zeros((N, N, N), np.uint8)
KIDNEY[2:6, 3:7, 3:7], KIDNEY[3:5, 4:6, 4:6] = 1, 2
# slices first, from the highest down; rows to the back; columns to the left
KITS = np.array([[0, 0, -0.8, 0], [0, -0.8, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])


def save(path, voxels, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def contrast(i):
    return np.where(IMAGE > 0, IMAGE + i, 0).astype(np.float32)


def old_brats(folder, name="BraTS20_Training_001", label=LABEL):
    for i, end in enumerate(("t1", "t1ce", "t2", "flair")):
        save(folder / name / f"{name}_{end}.nii.gz", contrast(i), LPS)
    save(folder / name / f"{name}_seg.nii.gz", label, LPS)
    return folder / name


def new_brats(folder, name="BraTS-GLI-00000-000", label=None):
    for i, end in enumerate(("t1n", "t1c", "t2w", "t2f")):
        save(folder / name / f"{name}-{end}.nii.gz", contrast(i), LPS)
    label = np.where(LABEL == 4, 3, LABEL).astype(np.uint8) if label is None else label
    save(folder / name / f"{name}-seg.nii.gz", label, LPS)
    return folder / name


def kits_case(folder, name="case_00000", label=KIDNEY, called="segmentation"):
    save(folder / name / "imaging.nii.gz", CT, KITS)
    save(folder / name / f"{called}.nii.gz", label, KITS)
    return folder / name


# --- whole folders


@pytest.mark.parametrize("write", [old_brats, new_brats])
def test_both_namings_of_brats_give_four_contrasts_in_one_order_and_labels_1_2_4(tmp_path, write):
    name = write(tmp_path).name
    cases, problems = brats.read_cases(tmp_path)
    assert not problems and [case.name for case in cases] == [name]
    (case,) = cases
    assert case.channels == ("T1", "T1ce", "T2", "FLAIR") and set(case.label_names) == {1, 2, 4}
    assert case.image.shape == (4, N, N, N) and not case.synthetic
    for i, channel in enumerate(case.image):  # (x, y, z) to the left, back, up -> slices up, rows back
        assert np.array_equal(channel, contrast(i).transpose(2, 1, 0))
    assert np.array_equal(case.label, LABEL.transpose(2, 1, 0))
    inside = to_volume(case).image[:, 0].numpy()
    assert np.array_equal(inside == 0, case.image[0] == 0)  # z-score inside the brain, 0 outside


def test_patients_in_hgg_and_lgg_are_found(tmp_path):
    old_brats(tmp_path / "HGG", "BraTS19_2013_2_1")
    old_brats(tmp_path / "LGG", "BraTS19_2013_0_1")
    assert brats.brats_cases(tmp_path) == ["HGG/BraTS19_2013_2_1", "LGG/BraTS19_2013_0_1"]
    cases, problems = brats.read_cases(tmp_path)
    assert len(cases) == 2 and not problems


@pytest.mark.parametrize("below", ["", "ASNR-MICCAI-BraTS2023-PED-Challenge-TrainingData"])
def test_children_are_refused_by_name_whatever_labels_they_happen_to_have(tmp_path, below):
    name = "BraTS-PED-00001-000" if not below else "patient-1"
    new_brats(tmp_path / below, name)  # 1, 2 and 3, as an adult
    cases, problems = read_folder(tmp_path)
    assert not cases and len(problems) == 1
    (said,) = problems.values()
    assert "children (BraTS-PED), where label 1 is enhancing" in said and "dataset.json" in said


def test_ped_in_another_name_is_no_childs(tmp_path):
    new_brats(tmp_path, "BraTS-GLI-sped-00001")
    assert len(read_folder(tmp_path)[0]) == 1


def test_what_macos_adds_and_folders_called_as_files_are_nobody(tmp_path):
    name = old_brats(tmp_path).name
    for other in ("__MACOSX", ".Trash"):
        (tmp_path / other / name).mkdir(parents=True)
        (tmp_path / other / name / f"._{name}_flair.nii").write_bytes(b"macOS")
    (tmp_path / name / f"{name}_old.nii").mkdir()
    assert brats.brats_cases(tmp_path) == [name]
    cases, problems = read_folder(tmp_path)
    assert [case.name for case in cases] == [name] and not problems


def test_kits_slices_go_from_the_first_axis_upwards_rows_back_and_columns_left(tmp_path):
    kits_case(tmp_path)
    case = kits.read_case(tmp_path, "case_00000", window_hu=None)
    assert case.channels == ("CT",) and case.spacing_mm == pytest.approx((3.0, 0.8, 0.8))
    assert np.array_equal(case.image[0], CT[::-1]) and np.array_equal(case.label, KIDNEY[::-1])
    assert case.label_names == {1: "kidney", 2: "tumour"}


def test_kits_turned_to_other_axes_is_the_same_patient(tmp_path):
    kits_case(tmp_path)
    turned = np.diag([-0.8, -0.8, 3.0, 1.0])
    save(tmp_path / "case_00001" / "imaging.nii.gz", CT[::-1].transpose(2, 1, 0), turned)
    save(tmp_path / "case_00001" / "segmentation.nii.gz", KIDNEY[::-1].transpose(2, 1, 0), turned)
    one, other = kits.read_cases(tmp_path)[0]
    assert np.array_equal(one.image, other.image) and np.array_equal(one.label, other.label)


@pytest.mark.parametrize("below", ["", "data", "dataset"])
@pytest.mark.parametrize("called", ["segmentation", "aggregated_MAJ_seg"])
def test_kits_of_all_years_is_found(tmp_path, below, called):
    kits_case(tmp_path / below, called=called)
    cases, problems = kits.read_cases(tmp_path)
    assert [case.name for case in cases] == ["case_00000"] and not problems


def test_hu_outside_the_window_become_its_ends(tmp_path):
    kits_case(tmp_path)
    case = kits.read_case(tmp_path, "case_00000", window_hu=(-50, 60))
    assert case.image.min() == -50 and case.image.max() == 60
    assert kits.read_case(tmp_path, "case_00000").image.min() == -160


def test_a_cyst_in_one_patient_is_a_label_of_all(tmp_path):
    kits_case(tmp_path)
    label = KIDNEY.copy()
    label[4, 6, 6] = 3
    kits_case(tmp_path, "case_00001", label)
    cases, _ = kits.read_cases(tmp_path)
    assert [case.label_names for case in cases] == [{1: "kidney", 2: "tumour", 3: "cyst"}] * 2
    assert cases[1].label.max() == 3


def test_resampling_reaches_the_spacing_asked_for(tmp_path):
    kits_case(tmp_path)
    case = kits.read_case(tmp_path, "case_00000", spacing_mm=1.5)
    assert case.spacing_mm == (1.5, 1.5, 1.5) and case.image.shape == (1, 15, 5, 5)
    assert set(np.unique(case.label)) <= {0, 1, 2}


# --- which layout


def test_the_layout_is_recognised_and_read(tmp_path):
    for module, write in ((brats, old_brats), (brats, new_brats), (kits, kits_case)):
        folder = tmp_path / write.__name__
        write(folder)
        assert layout_of(folder) is module
        cases, problems = read_folder(folder)
        assert len(cases) == 1 and not problems
    decathlon = tmp_path / "Task01"
    save(decathlon / "imagesTr" / "a.nii.gz", IMAGE, LPS)
    save(decathlon / "labelsTr" / "a.nii.gz", LABEL, LPS)
    assert layout_of(decathlon) is msd and read_folder(decathlon)[0][0].name == "a"
    assert [case.name for case in read_folder(decathlon, ["a"], 2.0)[0]] == ["a"]


def test_a_folder_of_no_layout_of_two_or_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none of the layouts that labkit reads: imagesTr/"):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match="there is no such folder"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="there is no such folder"):
        read_folder(tmp_path / "file")
    old_brats(tmp_path)
    kits_case(tmp_path)
    with pytest.raises(ValueError, match="the layouts of 2 data sets"):
        read_folder(tmp_path)


@pytest.mark.parametrize("names", [brats.brats_cases, kits.kits_cases, brats.read_cases, kits.read_cases])
def test_an_empty_folder_says_what_it_should_hold(tmp_path, names):
    with pytest.raises(ValueError, match="there are no (patients of BraTS|cases of KiTS) .* expected"):
        names(tmp_path)
    with pytest.raises(ValueError, match="there is no such folder"):
        names(tmp_path / "nowhere")


@pytest.mark.parametrize("module, write", [(brats, old_brats), (kits, kits_case)])
def test_a_spacing_that_makes_no_sense_is_refused_at_once(tmp_path, module, write):
    write(tmp_path)
    with pytest.raises(ValueError, match="spacing_mm must be one positive number"):
        module.read_cases(tmp_path, spacing_mm=0)


# --- broken cases: one sentence that names the file or folder, and the neighbour is read


def again(change, affine=None):
    """Write a file anew with other voxels, and another affine."""

    def harm(path):
        file = nib.load(path)
        voxels = np.asarray(file.dataobj)
        path.unlink()
        save(path, change(voxels), file.affine if affine is None else affine(file.affine))

    return harm


def moved(affine):
    elsewhere = affine.copy()
    elsewhere[0, 3] += 5
    return elsewhere


def flipped(affine):
    return affine @ np.diag([-1, 1, 1, 1])


def with_one(value):
    def change(voxels):
        voxels = voxels.astype(np.float32)
        voxels[3, 3, 3] = value
        return voxels

    return again(change)


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def unpacked_too(path):
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


def unlabelled_axes(path):
    file = nib.load(path)
    voxels = np.asarray(file.dataobj)
    image = nib.Nifti1Image(voxels, None)
    image.header.set_zooms((3, 0.8, 0.8))
    nib.save(image, path)


def same(voxels):
    return voxels


T1CE, SEG = "BraTS20_Training_001_t1ce.nii.gz", "BraTS20_Training_001_seg.nii.gz"
NEW_SEG, NEW_T2 = "BraTS-GLI-00000-000-seg.nii.gz", "BraTS-GLI-00000-000-t2w.nii.gz"
CT_FILE, KIDNEY_FILE = "imaging.nii.gz", "segmentation.nii.gz"
FOR_ALL = [  # an image file, a label file; what is done to one of them; what is to be said
    ("image", lambda path: path.unlink(), "there is no .*image; expected"),
    ("label", lambda path: path.unlink(), "there is no label file; expected"),
    ("image", unpacked_too, "there are 2 files for the .*image, .* keep one"),
    ("label", unpacked_too, "there are 2 files for the label file"),
    ("image", cut, "not an intact NIfTI file"),
    ("label", cut, "not an intact NIfTI file"),
    ("image", flip_a_bit, "not an intact"),
    ("image", lambda path: path.write_bytes(b""), "not an intact"),
    ("label", lambda path: path.write_text("<html>404</html>" * 99), "not an intact"),
    ("image", again(lambda voxels: voxels[0]), "the shape is .8, 8.; expected"),
    ("label", again(lambda voxels: voxels[0]), "the shape is .8, 8.; expected"),
    ("image", again(lambda voxels: np.stack([voxels] * 2, -1)), "there are 2 volumes in it"),
    ("label", again(lambda voxels: np.stack([voxels] * 2, -1)), "expected one volume of labels"),
    ("label", again(lambda voxels: voxels[:, :, 1:]), "slices, rows and columns, but .* has"),
    ("image", with_one(np.nan), "1 voxels are NaN or infinite"),
    ("image", with_one(np.inf), "1 voxels are NaN or infinite"),
    ("label", with_one(np.nan), "must be whole numbers 0 to 255, but nan"),
    ("label", with_one(0.5), "must be whole numbers 0 to 255, but 0.5"),
    ("label", with_one(-1), "must be whole numbers 0 to 255, but -1"),
    ("label", with_one(9), r"the labels \[9\] are not among"),
    ("label", again(lambda voxels: voxels * 0), "there is no foreground"),
    ("label", again(same, moved), "affine puts it up to 5 mm away"),
    ("label", again(same, flipped), "affine puts it up to .* other way round"),
    ("label", again(same, lambda affine: affine * 1.5), "affine puts it up to"),
    ("image", unlabelled_axes, "does not say which axis is which"),
    ("label", unlabelled_axes, "does not say which axis is which"),
]
OF_ONE = [
    (old_brats, T1CE, again(same, flipped), "affine puts it up to .* away from BraTS20_Training_001_t1.nii"),
    (old_brats, T1CE, again(lambda voxels: voxels[1:]), "8 slices|slices, rows and columns, but"),
    (old_brats, SEG, with_one(3), "have 4 for enhancing tumour; turn"),
    (old_brats, SEG, lambda path: path.rename(path.with_name("W39_1998.09.19_Segm.nii.gz")), "355 .* rename"),
    (old_brats, SEG, lambda path: path.rename(path.with_name("BraTS20_Training_001-seg.nii.gz")), "one year"),
    (new_brats, NEW_SEG, with_one(4), r"the labels \[4\] .* resection cavity of 2024"),
    (new_brats, NEW_T2, lambda path: path.unlink(), "there is no T2 image; expected .*-t2w"),
    (kits_case, CT_FILE, again(lambda voxels: voxels + 1024), "the lowest value is .* in HU air is about"),
    (kits_case, CT_FILE, again(lambda voxels: np.clip(voxels, -79, 304)), "the lowest value is -79"),
    (kits_case, KIDNEY_FILE, with_one(4), r"the labels \[4\] are not among"),
    (
        kits_case,
        KIDNEY_FILE,
        lambda path: (path.parent / "aggregated_MAJ_seg.nii.gz").write_bytes(path.read_bytes()),
        "there are 2 files for the label file, segmentation.nii.gz, aggregated_MAJ_seg",
    ),
]
FILES = {
    old_brats: {"image": T1CE, "label": SEG},
    new_brats: {"image": NEW_T2, "label": NEW_SEG},
    kits_case: {"image": CT_FILE, "label": KIDNEY_FILE},
}
BROKEN = [
    (write, files[which], harm, sentence)
    for write, files in FILES.items()
    for which, harm, sentence in FOR_ALL
] + OF_ONE
GOOD = {old_brats: "BraTS20_Training_002", new_brats: "BraTS-GLI-00001-000", kits_case: "case_00001"}


@pytest.mark.parametrize("write, file, harm, sentence", BROKEN)
def test_a_broken_case_is_one_sentence_naming_it_and_its_neighbour_is_read(
    tmp_path, write, file, harm, sentence
):
    bad = write(tmp_path)
    write(tmp_path, GOOD[write])
    harm(bad / file)
    cases, problems = read_folder(tmp_path)
    assert [case.name for case in cases] == [GOOD[write]] and list(problems) == [bad.name]
    said = problems[bad.name]
    assert said.startswith(str(bad)) and "\n" not in said
    with pytest.raises(ValueError, match=sentence) as error:
        layout_of(tmp_path).read_case(tmp_path, bad.name)
    assert str(error.value) == said


def test_a_patient_whose_folder_is_empty_or_gone_is_named(tmp_path):
    old_brats(tmp_path)
    (tmp_path / "BraTS20_Training_009").mkdir()
    cases, problems = brats.read_cases(tmp_path)
    assert len(cases) == 1 and "there is no T1 image" in problems["BraTS20_Training_009"]
    for module, name in ((brats, "BraTS20_Training_077"), (kits, "case_00077")):
        with pytest.raises(ValueError, match="there is no such folder; expected one folder per"):
            module.read_case(tmp_path, name)
