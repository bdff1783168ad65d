"""The history of all requests: each with its start, its end and its answer. `model.py` checks it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from math import inf

import requests

__all__ = ["Event", "History", "answer_of"]

UNKNOWN = "unknown"
_REQUEST_S = 60


@dataclass(frozen=True, slots=True)
class Event:
    """One request. `token` is the requested or the observed content; `end` is infinite without an answer."""

    kind: str
    name: str
    start: float
    end: float
    outcome: str
    token: str | None = None
    is_keyed: bool = False
    phase: str | None = None
    names: tuple[str, ...] = ()


@dataclass(slots=True)
class History:
    """All requests of all clients, in the order of their ends."""

    events: list[Event] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Answers that are wrong in every state of the container; the client itself reports them."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: dict[int, Event] = field(default_factory=dict)

    def begin(self, kind: str, name: str, token: str | None = None, *, is_keyed: bool = False) -> None:
        """Note that this thread sends a request that changes something; `add` removes the note."""
        event = Event(kind, name, time.monotonic(), inf, UNKNOWN, token, is_keyed)
        with self._lock:
            self._open[threading.get_ident()] = event

    def add(self, event: Event) -> None:
        """Record a request of this thread."""
        with self._lock:
            self.events.append(event)
            self._open.pop(threading.get_ident(), None)

    def snapshot(self) -> History:
        """Return the history so far, with open requests as unanswered."""
        with self._lock:
            return History([*self.events, *self._open.values()])

    def add_wrong_answer(self, sentence: str) -> None:
        """Record a wrong answer."""
        with self._lock:
            self.wrong.append(sentence)

    def by_name(self) -> dict[str, list[Event]]:
        """Return the requests about each name."""
        found: dict[str, list[Event]] = {}
        for event in self.events:
            if event.name:
                found.setdefault(event.name, []).append(event)
        return found


def answer_of(method: str, url: str, **options: object) -> tuple[requests.Response | None, float, float]:
    """Send one request and read the whole answer; return it, or None if it broke off, and its start and end."""
    start = time.monotonic()
    try:
        answer = requests.request(method, url, timeout=_REQUEST_S, **options)  # type: ignore[arg-type]
    except requests.RequestException:
        return None, start, time.monotonic()
    return answer, start, time.monotonic()
