"""What is computed ahead is what would be computed, by another network, and never in the way."""

import threading
import time

from labkit.explore.ahead import REST_SECONDS, Ahead


def test_a_key_is_computed_once_and_remembered():
    calls = []
    ahead = Ahead(lambda key: calls.append(key) or key * 2, lambda key: key * 2)
    assert (ahead(3), ahead(3), ahead(4)) == (6, 6, 8) and calls == [3, 4]


def test_keys_are_made_while_at_rest_by_the_other_function_and_told_of():
    told, asked = [], []
    ahead = Ahead(lambda key: asked.append(key), lambda key: key * 2, told.append)
    ahead.rest([1, 2, 3])
    ahead.finish()
    assert ahead.values == {1: 2, 2: 4, 3: 6} and told == [1, 2, 3] and not asked
    assert ahead(2) == 4 and not asked


def test_it_waits_while_somebody_keeps_asking():
    made = []
    ahead = Ahead(lambda key: key, lambda key: made.append(key))
    ahead.rest([100])
    end = time.monotonic() + 3 * REST_SECONDS
    while time.monotonic() < end:
        ahead(0)
        time.sleep(REST_SECONDS / 10)
    assert made == []
    ahead.finish()
    assert made == [100]


def test_a_new_wish_replaces_the_old_and_stop_ends_it():
    made, gate = [], threading.Event()
    ahead = Ahead(lambda key: key, lambda key: (made.append(key), gate.wait(5)))
    ahead.rest(range(10))
    while not made:
        time.sleep(0.01)
    ahead.rest([50])
    gate.set()
    ahead.finish()
    ahead.stop()
    assert made == [0, 50]
