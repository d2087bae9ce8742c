"""Motion ghosts: where they may be, what they copy, and what they leave alone."""

from dataclasses import replace

import numpy as np
import pytest

from labkit.phantoms import ghosts
from labkit.phantoms.body import Body
from labkit.phantoms.ghosts import choose, haunt, room_in, show
from labkit.phantoms.synthesis import grid_mm

H = 4.0  # mm: coarse, so that many patients are quick


@pytest.fixture(scope="module")
def body():
    """A brain of one tissue with a tumour of three shells on the patient's left."""
    mm = grid_mm((40, 48, 48), H)
    brain = np.linalg.norm(mm / np.reshape([66, 84, 68], (3, 1, 1, 1)), axis=0) < 1
    away = np.linalg.norm(mm - np.reshape([10, -10, 34], (3, 1, 1, 1)), axis=0)
    label = np.select([away < 8, away < 14, away < 26], [1, 4, 2], 0).astype(np.uint8)
    masks = {"necrosis": label == 1, "solid": label == 9, "enhancing": label == 4, "oedema": label == 2}
    fractions = {"white": brain & (label == 0), **masks}
    fractions = {name: mask.astype(np.float32) for name, mask in fractions.items()}
    detail = np.where(brain & (label == 0), 0.1, 0).astype(np.float32)
    return Body(H, fractions, detail, label > 0, label)


def of(seed, body):
    return choose(np.random.default_rng(seed), body)


def test_eight_to_fourteen_slices_hold_a_ghost_and_no_two_are_neighbours(body):
    counts = set()
    for seed in range(60):
        slices = np.array([ghost.slice for ghost in of(seed, body)])
        assert 8 <= len(slices) <= 14 and np.diff(slices).min() > 1
        counts.add(len(slices))
    assert len(counts) >= 3


def test_seven_of_ten_are_mirrored_moves_and_strengths_keep_their_limits(body):
    many = [ghost for seed in range(60) for ghost in of(seed, body)]
    assert np.mean([ghost.mirrored for ghost in many]) == pytest.approx(0.7, abs=0.06)
    assert 20 < max(np.hypot(*ghost.shift_mm) for ghost in many) <= 28
    strengths = [ghost.strength for ghost in many]
    assert 0.7 <= min(strengths) < 0.75 and 0.95 < max(strengths) <= 1


def test_a_ghost_is_seen_off_the_tumour_of_its_own_and_both_neighbouring_slices_and_in_the_brain(body):
    inside = sum(body.fractions.values()) > 0.5
    for seed in range(10):
        for ghost in of(seed, body):
            amount, s = sum(show(ghost, body).values()), ghost.slice
            assert (amount > 0.5).sum() * H**2 >= 300  # mm2
            assert not amount[~inside[s]].any() and not amount[(body.label[s - 1 : s + 2] > 0).any(0)].any()
            assert amount.max() <= ghost.strength


def test_a_ghost_is_a_copy_of_the_tumour_mirrored_and_moved(body):
    ghost = ghosts.Ghost(slice=30, source=22, mirrored=True, shift_mm=(8.0, -4.0), strength=0.8)
    parts, room = show(ghost, body), room_in(body, 30)
    for name in ("oedema", "enhancing", "necrosis"):
        source = body.fractions[name][22]
        expected = np.roll(source[:, ::-1], (2, -1), (0, 1)) * 0.8 * room
        assert expected.any()
        np.testing.assert_allclose(parts[name], expected, atol=1e-6)
    left = show(replace(ghost, mirrored=False, shift_mm=(0.0, 0.0)), body)["oedema"]
    assert left[:, 24:].sum() > 0 and left[:, :24].sum() == 0  # where the tumour lies


def test_only_ghost_slices_change_and_tissue_still_adds_up_to_one(body):
    before = {name: fraction.copy() for name, fraction in body.fractions.items()}
    seen, shown = haunt(np.random.default_rng(3), body)
    slices = {ghost.slice for ghost in shown}
    assert seen.label is body.label
    for name, fraction in body.fractions.items():
        assert (fraction == before[name]).all()  # the body itself is as it was
        changed = np.flatnonzero((seen.fractions[name] != fraction).any((1, 2)))
        assert set(changed) <= slices
    assert set(np.flatnonzero((seen.fractions["white"] != body.fractions["white"]).any((1, 2)))) == slices
    assert set(np.flatnonzero((seen.diseased != body.diseased).any((1, 2)))) == slices
    for ghost in shown:  # no trace of the healthy template under a ghost
        amount, s = sum(show(ghost, body).values()), ghost.slice
        np.testing.assert_allclose(seen.detail[s], body.detail[s] * (1 - amount), atol=1e-6)
    np.testing.assert_allclose(sum(seen.fractions.values()), sum(body.fractions.values()), atol=1e-6)


def test_the_same_seed_gives_the_same_ghosts_whatever_ran_before(body):
    first = of(5, body)
    np.random.seed(1)
    of(6, body)
    assert of(5, body) == first != of(6, body)
