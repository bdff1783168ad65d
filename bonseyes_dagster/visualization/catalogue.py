"""Which artifacts there are and which metrics they have: followed in the background while somebody looks."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice, takewhile
from typing import Any

from bonseyes_dagster.errors import BonseyesError, NotFoundError
from bonseyes_dagster.model import Status
from bonseyes_dagster.visualization.source import Source

__all__ = ["Catalogue", "Entry"]

log = logging.getLogger(__name__)

RELOAD_S = 2.0
# Deletions among what is final are noticed at this pace; everything newer at the pace above.
FULL_LISTING_S = 60.0
# Nobody asks the containers anything once nobody has looked for so long.
IDLE_S = 90.0
FIRST_LOOK_S = 5.0
_REQUESTS_AT_ONCE = 16


@dataclass(slots=True)
class Entry:
    """One artifact: a run in TensorBoard's words."""

    source: Source
    container: str
    status: Status
    tags: tuple[str, ...] = ()
    # Its metrics will not become more.
    is_settled: bool = False
    # None until somebody asked for hyperparameters.
    parameters: Mapping[str, Any] | None = None

    @property
    def run(self) -> str:
        """Return the run's name, `CONTAINER/ARTIFACT`."""
        return f"{self.container}/{self.status.name}"

    @property
    def identity(self) -> tuple[str, str]:
        """Return what tells this artifact from a later one of the same name."""
        return self.run, self.status.created or ""

    @property
    def started_at(self) -> float | None:
        """Return the UNIX time at which it was created."""
        try:
            return datetime.fromisoformat(self.status.created or "").timestamp()
        except ValueError:
            return None


@dataclass(slots=True)
class Shelf:
    """The artifacts of one container as they were last seen, oldest first."""

    container: str
    source: Source
    requests: ThreadPoolExecutor
    entries: dict[str, Entry] = field(default_factory=dict)
    listed_at: float = 0.0

    def refresh(self) -> None:
        """List what is new or was in progress, then ask those for their metrics; nothing if it is down."""
        try:
            self._list()
            self._ask()
        except BonseyesError as error:
            log.debug("%s is skipped: %s", self.container, error)

    def _list(self) -> None:
        kept = self._final_beginning()
        if not kept or time.monotonic() - self.listed_at > FULL_LISTING_S:
            self._list_all()
            return
        try:
            following = self._adopt(self.source.statuses(after=next(reversed(kept))))
        except BonseyesError:
            self._list_all()  # the one to go on from may be gone
            return
        self.entries = kept | following

    def _list_all(self) -> None:
        self.entries = self._adopt(self.source.statuses())
        self.listed_at = time.monotonic()

    def _final_beginning(self) -> dict[str, Entry]:
        return dict(takewhile(lambda item: item[1].status.is_final, self.entries.items()))

    def _adopt(self, statuses: Iterable[Status]) -> dict[str, Entry]:
        entries = {}
        for status in statuses:
            old = self.entries.get(status.name)
            if old is not None and old.status.created == status.created:
                old.status = status
            else:
                old = Entry(self.source, self.container, status)
            entries[status.name] = old
        return entries

    def _ask(self) -> None:
        # Newest first: that is what people look at while a long catalogue fills.
        asked = [e for e in reversed(self.entries.values()) if not e.is_settled and e.status.phase != "queued"]
        remaining = iter(asked)
        # In small batches, so that a long catalogue does not keep the other containers' requests waiting.
        while batch := list(islice(remaining, 2 * _REQUESTS_AT_ONCE)):
            for _ in self.requests.map(_ask_one, batch):
                pass


def _ask_one(entry: Entry) -> None:
    is_final = entry.status.is_final
    try:
        names = entry.source.metrics(entry.status.name)
    except NotFoundError:
        names = []
    entry.tags = tuple(sys.intern(name) for name in sorted(names))
    entry.is_settled = is_final


class Catalogue:
    """Every artifact of every container. `find` returns the base URLs of the containers by name."""

    def __init__(self, find: Callable[[], Mapping[str, str]], *, reload_s: float = RELOAD_S) -> None:
        self._find = find
        self._reload_s = reload_s
        self._lock = threading.Lock()
        self._shelves: dict[str, Shelf] = {}
        self._no_artifacts_until: dict[tuple[str, str], float] = {}
        self._refreshing: dict[str, Future[None]] = {}
        self._follower: threading.Thread | None = None
        self._looked_at = 0.0
        self._passed = threading.Event()
        self._containers = ThreadPoolExecutor(_REQUESTS_AT_ONCE, "container")
        self.requests = ThreadPoolExecutor(_REQUESTS_AT_ONCE, "metrics")

    def entries(self) -> list[Entry]:
        """Return the artifacts that are known to have metrics; the first look waits a little for them."""
        self.look()
        shelves = list(self._shelves.values())
        return [entry for shelf in shelves for entry in list(shelf.entries.values()) if entry.tags]

    def get(self, run: str) -> Entry | None:
        """Return the artifact `CONTAINER/NAME`."""
        container, _, name = run.partition("/")
        shelf = self._shelves.get(container)
        return shelf.entries.get(name) if shelf else None

    def counts(self) -> tuple[int, int]:
        """Return how many containers and how many artifacts are known."""
        shelves = list(self._shelves.values())
        return len(shelves), sum(len(shelf.entries) for shelf in shelves)

    def look(self) -> None:
        """Keep the catalogue followed; the first look, or one after a long pause, waits a little for it."""
        with self._lock:
            self._looked_at = time.monotonic()
            if self._follower is None or not self._follower.is_alive():
                self._passed.clear()
                self._follower = threading.Thread(target=self._follow, name="catalogue", daemon=True)
                self._follower.start()
        self._passed.wait(FIRST_LOOK_S)

    def _follow(self) -> None:
        while time.monotonic() - self._looked_at < IDLE_S:
            began = time.monotonic()
            try:
                self.refresh(FIRST_LOOK_S)
            except BonseyesError as error:
                log.warning("the containers cannot be listed: %s", error)
            self._passed.set()
            time.sleep(max(self._reload_s - (time.monotonic() - began), 0.1))

    def refresh(self, wait_s: float) -> None:
        """Ask every container once, at most `wait_s` long; what takes longer goes on in the background."""
        found = self._find()
        for container in [name for name in self._shelves if name not in found]:
            del self._shelves[container]
        for container, base_url in found.items():
            refreshing = self._refreshing.get(container)
            if refreshing is None or refreshing.done():
                self._refreshing[container] = self._containers.submit(self._refresh_one, container, base_url)
        futures.wait([self._refreshing[container] for container in found], wait_s)

    def _refresh_one(self, container: str, base_url: str) -> None:
        shelf = self._shelves.get(container)
        if shelf is None:
            shelf = self._open(container, base_url)
        if shelf is not None:
            shelf.source.move(base_url)
            shelf.refresh()

    def _open(self, container: str, base_url: str) -> Shelf | None:
        """Return a new shelf for a container that has artifacts; others are asked again after a while."""
        key = (container, base_url)
        if time.monotonic() < self._no_artifacts_until.get(key, 0.0):
            return None
        source = Source(base_url)
        try:
            kind = source.describe_kind()
        except BonseyesError:
            kind = None
        if kind is None:
            self._no_artifacts_until[key] = time.monotonic() + 10.0
            return None
        source.kind = kind
        shelf = self._shelves[container] = Shelf(container, source, self.requests)
        return shelf
