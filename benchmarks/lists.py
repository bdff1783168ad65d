"""Ten thousand artifacts: how long a list of them takes, and how long a start after a crash."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from benchmarks.figure import Figure, compare
from benchmarks.service import scratch, tool_container

COUNT = 10_000


def _fill(volume: Path) -> None:
    """Create through the API, so that the store is as real use leaves it."""
    with tool_container("empty", volume) as (container, _), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: container.create(f"a{index:05d}"), range(COUNT)))
        for name in (f"a{COUNT - 1:05d}",):
            container.artifact(name).wait(timeout_s=600)


def measure() -> list[Figure]:
    """Fill a store, end its server by SIGKILL, start again, list."""
    with scratch() as folder:
        volume = folder / "volume"
        _fill(volume)
        start = time.perf_counter()
        with tool_container("empty", volume) as (container, _):
            recovery_s = time.perf_counter() - start
            session = requests.Session()

            def listed(query: str) -> float:
                begun = time.perf_counter()
                session.get(f"{container.base_url}/artifacts{query}", timeout=30).raise_for_status()
                return (time.perf_counter() - begun) * 1e3

            names = statistics.median(listed("") for _ in range(9))
            page = statistics.median(listed("?limit=100&detail=1") for _ in range(9))
    return [
        compare("list of 10,000 artifacts", names, None, "ms", "under 100 ms", names < 100),
        compare("first page of 10,000 artifacts with detail", page, None, "ms", "under 100 ms", page < 100),
        compare("start with 10,000 artifacts", recovery_s, None, "s", "under 5 s", recovery_s < 5),
    ]
