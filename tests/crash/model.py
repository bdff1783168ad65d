"""The contract as a small state machine for each name, and a search for an order of requests that it explains.

The search is the test of linearizability by Wing and Gong. A history is right if its requests have an order in which
the model gives every answer. Each request takes effect at some time between its start and its end. A request without an
answer takes effect at any time after its start, or never.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from tests.crash.history import UNKNOWN, Event, History

__all__ = ["FINAL", "deleted_names", "is_explained", "undeleted_names", "violations", "wrong_lists", "wrong_order"]

FINAL = frozenset({"completed", "failed", "cancelled", "interrupted"})
_RANK = {"queued": 0, "running": 1, **dict.fromkeys(FINAL, 2)}

State = tuple[str, str] | None
"""None if the name is free, else the token of its creation and the latest observed phase."""


def _advanced(state: State, event: Event) -> list[State]:
    """Return the states after a reader got `event.phase`; a final phase never changes."""
    if state is None or event.phase is None or event.token not in (None, state[0]):
        return []
    if state[1] in FINAL:
        return [state] if event.phase == state[1] else []
    return [(state[0], event.phase)] if _RANK[event.phase] >= _RANK[state[1]] else []


def _created(state: State, event: Event) -> list[State]:
    is_same = state is not None and event.is_keyed and state[0] == event.token
    if event.outcome == "conflict":
        return [state] if state is not None and not is_same else []
    if state is None:
        return [(str(event.token), "queued")]
    return [state] if is_same else []


def _next(state: State, event: Event) -> list[State]:
    """Return every possible state after `event`; none if its answer is wrong in `state`."""
    if event.outcome == "missing":
        return [None] if state is None else []
    if event.kind == "create":
        return _created(state, event)
    if event.kind == "delete":
        return [None] if state is not None else []
    if event.kind == "not-ready":
        return [state] if state is not None and state[1] != "completed" else []
    if event.kind == "cancel" and event.phase == "queued":
        return []
    return _advanced(state, event)


def is_explained(events: Sequence[Event]) -> bool:
    """Tell whether the model explains any order of all `events` of one name."""
    ordered = sorted(events, key=lambda event: event.start)
    everything = sum(1 << number for number, event in enumerate(ordered) if event.outcome != UNKNOWN)
    seen: set[tuple[int, State]] = set()
    todo: list[tuple[int, State]] = [(0, None)]
    while todo:
        done, state = todo.pop()
        if done & everything == everything:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        todo += [(done | 1 << number, after) for number, after in _steps(ordered, done, state)]
    return False


def _steps(ordered: Sequence[Event], done: int, state: State) -> Iterable[tuple[int, State]]:
    """Yield each possible next request, and the state after it."""
    left = [(number, event) for number, event in enumerate(ordered) if not done >> number & 1]
    first_end = min((event.end for _, event in left if event.outcome != UNKNOWN), default=float("inf"))
    for number, event in left:
        if event.start > first_end:
            return
        for after in _next(state, event):
            yield number, after


def violations(history: History) -> list[str]:
    """Return every name with a history that no order explains, and the faults of lists."""
    found = list(history.wrong)
    for name, events in history.by_name().items():
        if not is_explained(events):
            story = "\n  ".join(str(event) for event in sorted(events, key=lambda event: event.start))
            found.append(f"no order explains {name}:\n  {story}")
    return found + wrong_lists(history)


def undeleted_names(history: History) -> dict[str, tuple[float, float]]:
    """Return acknowledged names that no request has deleted: start and end of their creation."""
    deleted = {event.name for event in history.events if event.kind == "delete"}
    found: dict[str, tuple[float, float]] = {}
    for event in history.events:
        if event.kind == "create" and event.outcome in ("ok", UNKNOWN) and event.name not in deleted:
            start, end = found.get(event.name, (event.start, float("inf")))
            is_known = event.outcome == "ok"
            found[event.name] = (min(start, event.start), min(end, event.end) if is_known else end)
    return {name: times for name, times in found.items() if times[1] < float("inf")}


def wrong_lists(history: History) -> list[str]:
    """Return the faults of lists: missing names, repeated names, and names in another order than that of creation."""
    kept, deleted = undeleted_names(history), deleted_names(history)
    found: list[str] = []
    for event in history.events:
        if event.kind != "names" or event.outcome != "ok":
            continue
        there = set(event.names)
        if len(there) != len(event.names):
            found.append("a list has a name twice")
        found += [f"{n} is not in a list" for n, (_, end) in kept.items() if end < event.start and n not in there]
        found += [
            f"{n} is in a list after its deletion" for n, end in deleted.items() if end < event.start and n in there
        ]
        found += wrong_order(event.names, kept, "listed")
    return found


def deleted_names(history: History) -> dict[str, float]:
    """Return finally deleted names: the end of the deletion, after which no client began to create them."""
    found: dict[str, float] = {}
    for name, events in history.by_name().items():
        ends = [event.end for event in events if event.kind == "delete" and event.outcome == "ok"]
        creations = [event for event in events if event.kind == "create"]
        is_clear = all(event.outcome != UNKNOWN and ends and event.end < min(ends) for event in creations)
        if ends and is_clear:
            found[name] = min(ends)
    return found


def wrong_order(names: Iterable[str], kept: dict[str, tuple[float, float]], what: str) -> list[str]:
    """Return pairs in which the first name was requested after the second was acknowledged."""
    known = [name for name in names if name in kept]
    found: list[str] = []
    latest = ""
    for before, after in pairwise(known):
        if not latest or kept[before][0] > kept[latest][0]:
            latest = before
        if kept[after][1] < kept[latest][0]:
            found.append(f"{latest} is {what} before {after}, which was acknowledged before it was asked for")
    return found
