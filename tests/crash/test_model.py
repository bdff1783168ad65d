"""Tests of `model.py`: it accepts histories that the contract allows, and rejects each one that it forbids."""

from __future__ import annotations

from math import inf

import pytest

from tests.crash.history import UNKNOWN, Event, History
from tests.crash.model import is_explained, undeleted_names, violations


def create(start: float, end: float, token: str = "a", outcome: str = "ok", *, keyed: bool = False) -> Event:
    """Return a creation of `n`."""
    return Event("create", "n", start, inf if outcome == UNKNOWN else end, outcome, token, keyed)


def get(start: float, phase: str, token: str = "a") -> Event:
    """Return a read of `n` with this phase."""
    return Event("get", "n", start, start + 0.5, "ok", token, phase=phase)


def missing(start: float) -> Event:
    """Return a read of `n` with a 404."""
    return Event("get", "n", start, start + 0.5, "missing")


def delete(start: float, outcome: str = "ok") -> Event:
    """Return a deletion of `n`."""
    return Event("delete", "n", start, inf if outcome == UNKNOWN else start + 0.5, outcome)


def names(start: float, *listed: str) -> Event:
    """Return a list of names."""
    return Event("names", "", start, start + 0.5, "ok", names=listed)


RIGHT = {
    "a life": [create(0, 1), get(2, "queued"), get(3, "running"), get(4, "completed"), delete(5), missing(6)],
    "one of two at once": [create(0, 3, "a"), create(1, 2, "b", "conflict"), get(4, "queued", "a")],
    "again after deletion": [create(0, 1), delete(2), create(3, 4, "b"), get(5, "queued", "b")],
    "unanswered, took effect late": [create(0, 1, outcome=UNKNOWN), missing(2), get(3, "queued")],
    "unanswered, never took effect": [create(0, 1, outcome=UNKNOWN), missing(2), missing(9)],
    "the same key": [create(0, 1, keyed=True), get(2, "completed"), create(3, 4, keyed=True)],
    "unanswered deletion": [create(0, 1), delete(2, UNKNOWN), get(3, "queued"), missing(4)],
    "seen while it is deleted": [create(0, 1), Event("delete", "n", 2, 9, "ok"), get(3, "queued"), missing(4)],
}
WRONG = {
    "lost": [create(0, 1), missing(2)],
    "two winners": [create(0, 3, "a"), create(1, 2, "b")],
    "no winner": [create(0, 3, "a", "conflict")],
    "final changed": [create(0, 1), get(2, "failed"), get(3, "completed")],
    "final forgotten": [create(0, 1), get(2, "completed"), get(3, "queued")],
    "runs again": [create(0, 1), get(2, "running"), get(3, "queued")],
    "deleted is back": [create(0, 1), delete(2), get(3, "queued")],
    "name not free": [create(0, 1), delete(2), create(3, 4, "b", "conflict")],
    "another's": [create(0, 1, "a"), get(2, "queued", "b")],
    "made twice for a key": [create(0, 1, "a", keyed=True), create(2, 3, "a", "conflict", keyed=True)],
    "unanswered went back and forth": [create(0, 1, outcome=UNKNOWN), get(2, "queued"), missing(3)],
    "still queued after cancelling": [create(0, 1), Event("cancel", "n", 2, 3, "ok", phase="queued")],
    "no data though completed": [create(0, 1), get(2, "completed"), Event("not-ready", "n", 3, 4, "ok")],
}


@pytest.mark.parametrize("story", RIGHT)
def test_allowed_history_is_explained(story: str) -> None:
    """The contract allows these histories."""
    assert is_explained(RIGHT[story])


@pytest.mark.parametrize("story", WRONG)
def test_forbidden_history_is_not_explained(story: str) -> None:
    """The contract forbids these histories."""
    assert not is_explained(WRONG[story])


def test_wrong_lists_of_names_are_found() -> None:
    """A list may lack, repeat, keep or reorder names."""
    first, second = create(0, 1), Event("create", "m", 2, 3, "ok", "b")
    assert not violations(History([first, second, names(4, "n", "m")]))
    assert violations(History([first, second, names(4, "n")]))
    assert violations(History([first, second, names(4, "n", "m", "m")]))
    assert violations(History([first, second, names(4, "m", "n")]))
    assert violations(History([first, delete(2), names(4, "n")]))
    assert violations(History(wrong=["anything"]))


def test_unanswered_request_may_have_taken_effect() -> None:
    """The snapshot of a history has requests without an answer, too."""
    history = History([create(0, 1)])
    history.begin("delete", "n")
    assert [*undeleted_names(history)] == ["n"]
    assert not undeleted_names(history.snapshot())
    history.add(delete(2, "missing"))
    assert len(history.snapshot().events) == 2
