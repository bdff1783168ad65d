"""Helpers of tests that start processes: a free port, and waiting for a condition."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar

from bonseyes_dagster.client import Project

T = TypeVar("T")


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(look: Callable[[], T], timeout_s: float = 120.0) -> T:
    """Return the first true result of `look`, called less and less often; fail after `timeout_s`."""
    began = time.monotonic()
    while not (found := look()):
        waited_s = time.monotonic() - began
        assert waited_s < timeout_s, f"{look} is not so after {timeout_s:.0f} s"
        time.sleep(min(max(waited_s / 10, 0.01), 0.5))
    return found


def is_at_work(project: Project, tool: str, artifact: str) -> bool:
    """Tell whether a tool makes an artifact now; a run shows the step as running earlier than the tool."""
    statuses = project.container(tool).statuses()
    return any(status.name == artifact and status.phase == "running" for status in statuses)
