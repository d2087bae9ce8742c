"""A kernel in the jail that does not start."""

from __future__ import annotations

import gc

import pytest

from labkit.grading.jail import JailBroken, Limits, Zygote, course
from labkit.grading.kernel import JailedKernel
from labkit.grading.probes import _inside, _said


@pytest.mark.timeout(120)  # a context of zmq that is forgotten with open sockets ends never
def test_it_is_our_fault_and_nothing_of_it_is_left_to_wait_for(jailed, tmp_path, monkeypatch):
    def silent(self):
        raise RuntimeError("it says nothing on iopub")

    (tmp_path / "courses").mkdir()
    course(tmp_path / "courses", [])
    with _inside(tmp_path) as folder:
        zygote = Zygote(folder, folder / "courses", preload=("ipykernel.kernelapp",)).ready()
        try:
            with monkeypatch.context() as patched:
                patched.setattr(JailedKernel, "_ensure_iopub_up", silent)
                with pytest.raises(JailBroken, match="did not start: it says nothing"):
                    _said(zygote, folder / "courses", Limits(), "1")
            gc.collect()
            assert not zygote.students()
            assert _said(zygote, folder / "courses", Limits(), "print(2)") == "2\n", "the next one does"
        finally:
            zygote.close()
