"""The project's containers for the dashboard: ask all of them in parallel for their descriptions.

When a container does not answer, the dashboard shows its last description.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

from bonseyes_dagster.client import Addresses, Container
from bonseyes_dagster.dashboard.registry import Registry
from bonseyes_dagster.errors import BonseyesError, ForbiddenError

__all__ = ["Containers", "makes_runs"]

FRESH_S = 5.0
ASK_TIMEOUT_S = 2.0
# The limit for all answers together: a slow container may send each byte within ASK_TIMEOUT_S.
ANSWERS_TIMEOUT_S = 5.0
_LIMITS: Mapping[str, Any] = {"read_timeout_s": ASK_TIMEOUT_S, "limit_bytes": 1 << 20}
_ASKED_AT_ONCE = 32

Description = Mapping[str, Any]


class Containers:
    """The descriptions of all registered containers, and of the other containers in the addresses file that answer."""

    def __init__(self, registry: Registry, addresses: Addresses, own_name: str) -> None:
        self._registry = registry
        self._addresses = addresses
        self._own_name = own_name
        self._lock = threading.Lock()
        self._asked_at: dict[str, float] = {}
        self._seen: dict[str, Description] = {}
        self._asked: dict[str, Future[Description | None]] = {}
        self._tasks: dict[str, Mapping[str, Any]] = {}
        self._pool = ThreadPoolExecutor(_ASKED_AT_ONCE, "container")

    def descriptions(self) -> dict[str, Description]:
        """Return each container's description: its last one if it does not answer now, {} if it never answered."""
        registered = self._registry.entries()
        unregistered = {*self._addresses.containers()} - {*registered, self._own_name}
        self._refresh([*registered, *unregistered])
        # An unlisted name is not a container of the project any more: its old description must not show.
        result = {
            name: (self._seen.get(name) or last) if self._addresses.is_listed(name) else {}
            for name, last in registered.items()
        }
        result |= {name: self._seen[name] for name in sorted(unregistered) if self._seen.get(name)}
        return result

    def check_known(self, name: str) -> None:
        """Raise ForbiddenError for a name outside the project: the dashboard sends requests to registered names."""
        if not self._addresses.is_known(name):
            raise ForbiddenError(f"{name!r} is not a container of this project; a container registers its own name.")

    def pipelines(self) -> list[dict[str, str]]:
        """Return name, container and description of the containers that make runs."""
        return [
            {
                "name": str(description.get("name") or container),
                "container": container,
                "description": str(description.get("description") or ""),
            }
            for container, description in self.descriptions().items()
            if makes_runs(description)
        ]

    def task(self, container: str) -> Mapping[str, Any]:
        """Return the last known task of a pipeline, {} if its container never returned one."""
        return self._tasks.get(container, {})

    def _refresh(self, names: Collection[str]) -> None:
        """Ask the containers whose descriptions are stale.

        One thread asks at a time. Meanwhile other threads use the known descriptions, if each name was asked before.
        """
        if not self._stale(names) or not self._lock.acquire(blocking=not self._asked_at.keys() >= set(names)):
            return
        try:
            stale = self._stale(names)
            answers = self._ask_all(stale)
            self._seen |= answers
            self._asked_at |= dict.fromkeys(stale, time.monotonic())
            self._registry.describe(answers)
        finally:
            self._lock.release()

    def _stale(self, names: Iterable[str]) -> list[str]:
        oldest = time.monotonic() - FRESH_S
        return [name for name in names if self._asked_at.get(name, float("-inf")) < oldest]

    def _ask_all(self, names: Iterable[str]) -> dict[str, Description]:
        """Return the answers that arrive in time; do not ask a container again while its last request is pending."""
        for name in names:
            if name not in self._asked or self._asked[name].done():
                self._asked[name] = self._pool.submit(self._ask, name)
        done, _ = wait([self._asked[name] for name in names], ANSWERS_TIMEOUT_S)
        answers = {name: self._asked[name].result() for name in names if self._asked[name] in done}
        return {name: answer for name, answer in answers.items() if answer}

    def _ask(self, name: str) -> Description | None:
        if not self._addresses.is_known(name):
            return None
        try:
            transport = Container(self._addresses.base_url(name), retry_s=0.0).transport
            description = transport.get_json("/", _description, **_LIMITS)
        except BonseyesError:
            return None
        if makes_runs(description):
            with suppress(BonseyesError):
                self._tasks[name] = transport.get_json("/task", dict, **_LIMITS)
        return description


def makes_runs(description: Description) -> bool:
    """Tell whether this is the description of a pipeline container."""
    return "/runs" in description.get("artifacts", ())


def _description(body: Any) -> Description:
    if not isinstance(body, dict) or not isinstance(body.get("artifacts"), list):
        raise TypeError("not a description")
    return body
