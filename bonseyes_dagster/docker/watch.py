"""Reads the state of a project repeatedly while its containers start, for `bonseyes up`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime

from bonseyes_dagster.docker.containers import ServiceContainer, project_state_of, url_of
from bonseyes_dagster.project.state import ProjectState

__all__ = ["Watch"]


class Watch:
    """Measures how long each service takes to get healthy; `expected` are the services of the compose files."""

    def __init__(self, containers: Callable[[], Collection[ServiceContainer]], expected: Collection[str]) -> None:
        self._containers = containers
        self._expected = expected
        self._seconds_of: dict[str, float] = {}
        self._seen: set[str] = set()
        self._begun = datetime.now(UTC)
        self.begun_s = time.monotonic()

    def look(self) -> ProjectState:
        """Return the current state; its `seconds` are set when all services are healthy."""
        containers = self._containers()
        for each in containers:
            if each.state == "healthy" and each.started > self._begun and each.identity not in self._seen:
                self._seen.add(each.identity)
                self._seconds_of[each.service] = round((datetime.now(UTC) - each.started).total_seconds(), 1)
        url = url_of(containers, "")
        project_state = project_state_of(containers, url=url, expected=self._expected, seconds_of=self._seconds_of)
        is_whole = project_state.phase == "up" and project_state.is_healthy
        return replace(project_state, seconds=round(time.monotonic() - self.begun_s, 2)) if is_whole else project_state
