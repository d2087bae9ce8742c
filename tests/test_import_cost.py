import subprocess
import sys

import pytest

HEAVY = ("monai", "nilearn", "matplotlib", "scipy.ndimage", "sklearn", "pandas", "dask", "IPython", "timm")


def loaded_by(module):
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "module",
    [
        "labkit",
        "labkit.cli",
        "labkit.doctor",
        "labkit.methods, labkit.tuning, labkit.networks.segmenter, labkit.training.fit, labkit.metrics",
        "labkit.training.cost",
    ],
)
def test_importing_labkit_loads_no_heavy_library(module):
    assert loaded_by(module) == []


def test_a_heavy_library_would_be_noticed():
    assert "scipy.ndimage" in loaded_by("scipy.ndimage")
