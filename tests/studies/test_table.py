"""What stands beside a table of results."""

from __future__ import annotations

import numpy as np
import pytest

from labkit.studies import store
from labkit.studies.table import threshold_beside
from labkit.training.threshold import best_bands, evaluate_bands


@pytest.mark.parametrize("sweep, patients", [("lora_places", 10), ("ranks_kidney", 20)])
def test_a_threshold_is_that_of_the_tables_own_patients(sweep, patients):
    made, stored = store.results(sweep), store.results("pretraining")
    organ = made.sweep.rows[0].data["organ"]
    (line,) = stored.trainings(stored.sweep.row(f"{organ}: threshold"))
    looked_at = made.trainings(made.sweep.rows[-1])[0]["patients"]
    assert len(looked_at) == patients and looked_at == line["patients"][:patients]
    for region, dice in threshold_beside(made).items():
        has = [one for one in line["test"]["dice"][region][:patients] if one is not None]
        assert dice == pytest.approx(100 * np.mean(has))


@pytest.mark.slow  # patients are made, and bands chosen on twenty of them
def test_the_stored_threshold_is_what_lab_01s_code_gives_today():
    from labkit.phantoms.kidney import kidney_patients
    from labkit.scans.slices import to_volume

    train, test = ([to_volume(case) for case in kidney_patients(name, 20)] for name in ("train", "test"))
    found = evaluate_bands(best_bands(train), test)
    for region, dice in threshold_beside(store.results("ranks_kidney")).items():
        mean = 100 * np.nanmean([row["dice"] for row in found if row["region"] == region])
        assert mean == pytest.approx(dice, abs=0.1)
