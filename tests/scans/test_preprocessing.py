import json
from dataclasses import replace

import pytest

from labkit.phantoms.brain import brain_patient
from labkit.phantoms.kidney import kidney_patient
from labkit.scans.preprocessing import Preprocessing, is_ct

CT = Preprocessing(("CT",), {1: "kidney", 2: "tumour"}, (-160.0, 304.0), (3.0, 1.0, 1.0))


def test_it_comes_back_from_json_as_it_was():
    for one in (CT, Preprocessing(("T1", "T2"), {4: "rim"})):
        assert Preprocessing.from_json(json.loads(json.dumps(one.to_json(), sort_keys=True))) == one


@pytest.mark.parametrize(
    "kept", [{}, [], None, CT.to_json() | {"channels": 3}, CT.to_json() | {"label_names": {"x": "a"}}]
)
def test_what_is_none_is_refused_in_a_sentence(kept):
    with pytest.raises(ValueError, match="expected channels, label_names, window_hu and resampled_mm"):
        Preprocessing.from_json(kept)


@pytest.mark.parametrize(
    "other, sentence",
    [
        (dict(channels=("MR",)), "the channels MR, but the network was trained on CT; give it these"),
        (dict(label_names={1: "kidney", 2: "cyst"}), "labels 1 kidney, 2 cyst, but .* 1 kidney, 2 tumour;"),
        (
            dict(window_hu=None),
            "the window of HU none, but .* -160.0, 304.0; read the case with this `window",
        ),
        (dict(resampled_mm=None), "spacing in mm none, but .* 3.0, 1.0, 1.0; read the case with this `spac"),
    ],
)
def test_what_differs_is_named(other, sentence):
    assert CT.unlike(CT) == ""
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(CT.unlike(replace(CT, **other)))


def test_the_order_of_channels_counts_and_that_of_names_of_labels_does_not():
    one = Preprocessing(("T1", "T2"), {1: "a", 2: "b"})
    assert "in this order" in one.unlike(replace(one, channels=("T2", "T1")))
    assert one.unlike(replace(one, label_names={2: "b", 1: "a"})) == ""


def test_ct_is_known_by_its_name():
    assert is_ct("CT") and is_ct(" ct ") and not is_ct("T1") and not is_ct("CTA of the head")


def test_digital_patients_say_how_they_were_prepared():
    assert kidney_patient(0, window_hu=[-100, 200]).preprocessing.window_hu == (-100, 200)
    assert kidney_patient(0).preprocessing == replace(CT, resampled_mm=None)
    brain = brain_patient(0).preprocessing
    assert brain.channels == ("T1", "T1ce", "T2", "FLAIR") and brain.window_hu is None
