"""The list of all artifacts and their metrics. A thread refreshes the list while TensorBoard is in use."""

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
# The time between two reads of the whole list. Only these reads find deletions of final artifacts.
FULL_LISTING_S = 60.0
# If TensorBoard sends no request for this time, the thread ends, and so do its requests to the containers.
IDLE_S = 90.0
FIRST_WAIT_S = 5.0
_REQUESTS_AT_ONCE = 16


@dataclass(slots=True)
class Entry:
    """One artifact, which TensorBoard calls a run."""

    source: Source
    container: str
    status: Status
    tags: tuple[str, ...] = ()
    # Whether `tags` is complete, because the artifact is final.
    is_settled: bool = False
    # None before the first request for hyperparameters.
    parameters: Mapping[str, Any] | None = None

    @property
    def run(self) -> str:
        """Return the run's name, `CONTAINER/ARTIFACT`."""
        return f"{self.container}/{self.status.name}"

    @property
    def identity(self) -> tuple[str, str]:
        """Return name and time of creation: a later artifact of the same name has another time."""
        return self.run, self.status.created or ""

    @property
    def started_at(self) -> float | None:
        """Return the Unix time of the artifact's creation."""
        try:
            return datetime.fromisoformat(self.status.created or "").timestamp()
        except ValueError:
            return None


@dataclass(slots=True)
class ContainerArtifacts:
    """The artifacts of one container at the last refresh, oldest first."""

    container: str
    source: Source
    requests: ThreadPoolExecutor
    entries: dict[str, Entry] = field(default_factory=dict)
    listed_at: float = 0.0

    def refresh(self) -> None:
        """Read the status of new and unfinished artifacts, then their metrics. Skip a container that is down."""
        try:
            self._list()
            self._ask()
        except BonseyesError as error:
            log.debug("Skipped the container %s: %s", self.container, error)

    def _list(self) -> None:
        kept = self._final_beginning()
        if not kept or time.monotonic() - self.listed_at > FULL_LISTING_S:
            self._list_all()
            return
        try:
            following = self._adopt(self.source.statuses(after=next(reversed(kept))))
        except BonseyesError:
            self._list_all()  # a client may have deleted the artifact in `after`
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
        # Newest first: users want to see these while the first refresh of a long list still runs.
        asked = [e for e in reversed(self.entries.values()) if not e.is_settled and e.status.phase != "queued"]
        remaining = iter(asked)
        # Small batches, so that a container with many artifacts does not delay the requests of the others.
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
    """All artifacts of all containers. `find` returns the base URL of each container by its name."""

    def __init__(self, find: Callable[[], Mapping[str, str]], *, reload_s: float = RELOAD_S) -> None:
        self._find = find
        self._reload_s = reload_s
        self._lock = threading.Lock()
        self._by_container: dict[str, ContainerArtifacts] = {}
        self._no_artifacts_until: dict[tuple[str, str], float] = {}
        self._refreshing: dict[str, Future[None]] = {}
        self._follower: threading.Thread | None = None
        self._used_at = 0.0
        self._refreshed_once = threading.Event()
        self._containers = ThreadPoolExecutor(_REQUESTS_AT_ONCE, "container")
        self.requests = ThreadPoolExecutor(_REQUESTS_AT_ONCE, "metrics")

    def entries(self) -> list[Entry]:
        """Return the artifacts that have metrics. The first call waits up to FIRST_WAIT_S for the first refresh."""
        self.keep_following()
        listed = list(self._by_container.values())
        return [entry for artifacts in listed for entry in list(artifacts.entries.values()) if entry.tags]

    def get(self, run: str) -> Entry | None:
        """Return the artifact with the run name `CONTAINER/NAME`, or None."""
        container, _, name = run.partition("/")
        artifacts = self._by_container.get(container)
        return artifacts.entries.get(name) if artifacts else None

    def counts(self) -> tuple[int, int]:
        """Return the number of known containers and the number of known artifacts."""
        listed = list(self._by_container.values())
        return len(listed), sum(len(artifacts.entries) for artifacts in listed)

    def keep_following(self) -> None:
        """Keep the refreshing thread running, or start it and wait up to FIRST_WAIT_S for its first refresh."""
        with self._lock:
            self._used_at = time.monotonic()
            if self._follower is None or not self._follower.is_alive():
                self._refreshed_once.clear()
                self._follower = threading.Thread(target=self._follow, name="catalogue", daemon=True)
                self._follower.start()
        self._refreshed_once.wait(FIRST_WAIT_S)

    def _follow(self) -> None:
        while time.monotonic() - self._used_at < IDLE_S:
            began = time.monotonic()
            try:
                self.refresh(FIRST_WAIT_S)
            except BonseyesError as error:
                log.warning("The list of containers cannot be read: %s", error)
            self._refreshed_once.set()
            time.sleep(max(self._reload_s - (time.monotonic() - began), 0.1))

    def refresh(self, wait_s: float) -> None:
        """Refresh every container once, but wait at most `wait_s`. Slower refreshes go on in the background."""
        found = self._find()
        for container in [name for name in self._by_container if name not in found]:
            del self._by_container[container]
        for container, base_url in found.items():
            refreshing = self._refreshing.get(container)
            if refreshing is None or refreshing.done():
                self._refreshing[container] = self._containers.submit(self._refresh_one, container, base_url)
        futures.wait([self._refreshing[container] for container in found], wait_s)

    def _refresh_one(self, container: str, base_url: str) -> None:
        artifacts = self._by_container.get(container)
        if artifacts is None:
            artifacts = self._open(container, base_url)
        if artifacts is not None:
            artifacts.source.change_address(base_url)
            artifacts.refresh()

    def _open(self, container: str, base_url: str) -> ContainerArtifacts | None:
        """Add a container to the catalogue. If it has no artifacts, return None; a call after 10 s asks it again."""
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
        artifacts = self._by_container[container] = ContainerArtifacts(container, source, self.requests)
        return artifacts
