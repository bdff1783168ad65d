"""Pauses grow up to their limit, and begin anew after a success."""

import pytest

from bonseyes_dagster.backoff import Backoff


def test_pauses_double_up_to_the_longest():
    """Twice as long each time by default."""
    backoff = Backoff(0.5, 3.0)
    assert [backoff.take() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_reset_begins_with_the_first_pause():
    """The next trouble is a new one."""
    backoff = Backoff(0.1, 1.0, factor=3)
    backoff.take()
    assert backoff.take() == pytest.approx(0.3)
    backoff.reset()
    assert backoff.take() == 0.1


def test_a_limit_of_one_pause_holds_back_the_next_ones():
    """A service whose settings are broken starts again soon after they were mended."""
    backoff = Backoff(1.0, 30.0)
    assert [backoff.take(4.0) for _ in range(5)] == [1.0, 2.0, 4.0, 4.0, 4.0]
    assert backoff.take() == 8.0


def test_a_limit_that_shrinks_holds_at_once():
    """Callers set it by how much else they have to do."""
    backoff = Backoff(1.0, 8.0)
    backoff.take()
    backoff.longest_s = 1.5
    assert [backoff.take(), backoff.take()] == [1.5, 1.5]


def test_spread_pauses_stay_within_their_spread():
    """Clients of one server do not come back together."""
    found = [Backoff(1.0, 1.0, spread=0.25).take() for _ in range(200)]
    assert all(0.75 <= each <= 1.25 for each in found)
    assert len(set(found)) > 100
