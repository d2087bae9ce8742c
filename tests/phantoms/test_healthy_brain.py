"""The template lies as we say it does, is nilearn's to the bit, and is there without importing it."""

import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from labkit.phantoms import healthy_brain
from labkit.phantoms.healthy_brain import EMPTY_SLICES_BELOW, FILES, PART


def test_columns_run_from_the_patients_right_to_left():
    from nilearn.datasets import load_mni152_wm_template

    world = load_mni152_wm_template(resolution=1)
    voxel = np.linalg.inv(world.affine) @ (
        30,
        -20,
        30,
        1,
    )  # 30 mm to the right, 20 behind, 30 above the origin
    x, y, z = np.round(voxel[:3]).astype(int)
    ours = healthy_brain.template()["white"][z + 3, world.shape[1] - 1 - y - 22, world.shape[0] - 1 - x - 2]
    assert ours == pytest.approx(world.get_fdata()[x, y, z], abs=0.005)
    assert world.shape[0] - 1 - x - 2 < 96


def test_the_maps_are_those_that_nilearn_loads():
    from nilearn import datasets

    found = healthy_brain._read_template()
    assert list(FILES) == ["t1", "grey", "white"]
    for name, kind in (("t1", ""), ("grey", "gm_"), ("white", "wm_")):
        world = getattr(datasets, f"load_mni152_{kind}template")(resolution=1)
        assert nib.aff2axcodes(world.affine) == ("R", "A", "S")
        turned = np.asarray(world.dataobj, np.float32).transpose(2, 1, 0)[:, ::-1, ::-1]
        raised = np.pad(turned, ((EMPTY_SLICES_BELOW, 0), (0, 0), (0, 0)))
        np.testing.assert_array_equal(found[name], np.round(raised[PART] * 255).astype(np.uint8))


def test_a_patient_is_made_without_importing_what_takes_longer_than_he_does(tmp_path):
    code = (
        "import sys; from labkit.phantoms.healthy_brain import template; template();"
        "print([name for name in ('sklearn', 'pandas', 'nilearn.datasets') if name in sys.modules])"
    )
    env = {**os.environ, "LABKIT_CACHE": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=env)
    assert told.stdout.strip() == "[]"
