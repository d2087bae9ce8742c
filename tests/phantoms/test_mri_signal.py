"""The signal equations against what every MR physics book says of them."""

import numpy as np
import pytest

from labkit.phantoms.mri_signal import TISSUES, four_contrasts, inversion_recovery, spin_echo


def test_a_spin_echo_of_long_tr_and_short_te_shows_proton_density():
    assert spin_echo(0.8, 1 / 800, 1 / 80, tr_ms=1e6, te_ms=0) == pytest.approx(0.8)
    assert spin_echo(1.0, 1 / 800, 1 / 80, tr_ms=1e6, te_ms=80) == pytest.approx(np.exp(-1))


def test_inversion_recovery_is_null_where_theory_says():
    t1, tr = 4300, 9000
    null = t1 * np.log(2 / (1 + np.exp(-tr / t1)))
    assert inversion_recovery(1.0, 1 / t1, 0.0, tr_ms=tr, te_ms=0, ti_ms=null) == pytest.approx(0, abs=1e-12)


def test_contrast_agent_brightens_t1ce_only():
    none, some = (four_contrasts(0.9, 1 / 1500, 1 / 180, agent) for agent in (0.0, 0.45))
    assert none[0] == none[1] and some[1] > 2 * some[0] and (some[[0, 2, 3]] == none[[0, 2, 3]]).all()


def test_white_matter_is_brightest_on_t1_and_darkest_on_t2_and_fluid_vanishes_on_flair():
    white, grey, csf = (
        four_contrasts(t.pd, 1 / t.t1_ms, 1 / t.t2_ms, 0.0)
        for t in (TISSUES[n] for n in ("white", "grey", "csf"))
    )
    assert white[0] > grey[0] > csf[0] and white[2] < grey[2] < csf[2] and csf[3] < 0.3 * white[3]
