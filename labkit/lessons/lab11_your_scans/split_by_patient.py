"""`split_by_patient`: scans for training and for the test, no patient in both."""

from __future__ import annotations

import numpy as np

from labkit.lessons.compare import kind
from labkit.lessons.exercise import Challenge, Exercise, Unfit, mistake


def split_by_patient(patient_of: dict[str, str], n_test: int) -> tuple[list[str], list[str]]:
    """Names of scans to train on, and to be tested on: all those of n_test patients."""
    patients = sorted(set(patient_of.values()))
    for_test = set(np.random.default_rng(6).permutation(patients)[:n_test].tolist())
    train = [scan for scan, patient in patient_of.items() if patient not in for_test]
    return train, [scan for scan, patient in patient_of.items() if patient in for_test]


def facts(output: object, patient_of: dict[str, str], n_test: int) -> dict[str, object]:
    """What is compared: whichever patients are chosen, this must come out."""
    parts = output if isinstance(output, (tuple, list)) else ()
    if len(parts) != 2 or not all(isinstance(part, (tuple, list)) for part in parts):
        raise Unfit(f"return two lists of names, `return train, test`, not {kind(output)}")
    train, test = parts
    if strangers := [str(name) for name in (*train, *test) if name not in patient_of]:
        raise Unfit(f"{strangers[0]!r} is no scan; return names of scans, the keys of patient_of")
    patients = [{patient_of[scan] for scan in part} for part in parts]
    return {
        "patients in both parts": sorted(patients[0] & patients[1]),
        "scans in no part": sorted(patient_of.keys() - {*train, *test}),
        "scans that are listed twice": len(train) + len(test) - len({*train, *test}),
        "patients in the test": len(patients[1]),
    }


# Challenges: the first and the last scans are of patients with two


def one_has_two() -> tuple:
    return {"scan1": "Ann", "scan2": "Ann", "scan3": "Ben"}, 1


def first_and_last_have_two() -> tuple:
    return {"s1": "Ann", "s2": "Ann", "s3": "Ben", "s4": "Cem", "s5": "Dora", "s6": "Dora"}, 1


def drawn() -> tuple:
    """Nine patients with one to four scans each, in no order."""
    scans = [f"p{patient}-{scan}" for patient in range(9) for scan in range(1 + (patient * 3) % 4)]
    patients = {scan: scan.split("-")[0] for scan in np.random.permutation(scans).tolist()}
    return patients, int(np.random.randint(2, 5))


# Mistakes


LEAK = (
    "You split the scans, not the patients: one who has two may be in both parts, and the network is then "
    "tested on somebody it knows. Draw patients first; their scans follow."
)


@mistake(LEAK)
def last_scans(patient_of, n_test):
    scans = list(patient_of)
    return scans[:-n_test], scans[-n_test:]


@mistake(LEAK)
def first_scans(patient_of, n_test):
    scans = list(patient_of)
    return scans[n_test:], scans[:n_test]


@mistake(LEAK)
def scans_drawn(patient_of, n_test):
    scans = np.random.default_rng(0).permutation(list(patient_of)).tolist()
    return scans[n_test:], scans[:n_test]


@mistake("You exchanged the parts: first those to train on, then those of the test.")
def exchanged(patient_of, n_test):
    return split_by_patient(patient_of, n_test)[::-1]


@mistake("You kept one scan of each patient and lost the others. All of a patient's scans go where he goes.")
def one_scan_each(patient_of, n_test):
    first = {}
    for scan, patient in patient_of.items():
        first.setdefault(patient, scan)
    return split_by_patient({scan: patient for patient, scan in first.items()}, n_test)


@mistake("Your training part has everybody, those of the test, too. Leave them out there.")
def all_to_train(patient_of, n_test):
    return list(patient_of), split_by_patient(patient_of, n_test)[1]


@mistake("You returned patients. Asked for are names of scans, the keys of patient_of.")
def patients_themselves(patient_of, n_test):
    patients = sorted(set(patient_of.values()))
    return patients[n_test:], patients[:n_test]


EXERCISE = Exercise(
    reference=split_by_patient,
    challenges=(
        Challenge("two patients, one of them with two scans", one_has_two),
        Challenge("four patients, the first and the last with two scans", first_and_last_have_two),
        Challenge("nine patients with one to four scans each", drawn),
    ),
    result=facts,
    mistakes=(
        last_scans,
        first_scans,
        scans_drawn,
        exchanged,
        one_scan_each,
        all_to_train,
        patients_themselves,
    ),
    hints=(
        "Who is drawn: scans or patients?",
        "Choose n_test of the different patients; a scan is for the test if its patient is one of them.",
        "`patients = sorted(set(patient_of.values()))`, shuffled with a seed; then "
        "`[scan for scan, patient in patient_of.items() if patient in for_test]`.",
    ),
)
