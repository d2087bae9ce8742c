"""The template lies as we say it does."""

import numpy as np
import pytest

from labkit.phantoms import healthy_brain


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
