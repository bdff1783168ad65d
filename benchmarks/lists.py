"""Measures the lists of ten thousand artifacts and of ten thousand runs, and a start after a crash."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import requests

from benchmarks.figure import Figure, compare
from benchmarks.many_runs import fill
from benchmarks.service import pipeline_container, scratch, tool_container
from benchmarks.timing import timed
from bonseyes_dagster.client import Container
from bonseyes_dagster.orchestration.project import load_pipeline

COUNT = 10_000
QUEUED = 200
PAGE = 100
ROUNDS = 15
ROOT = Path(__file__).parents[1]
PIPELINE = "digits-cnn"


def _fill_volume(volume: Path) -> None:
    """Create artifacts through the API, as in real use, then kill all processes of the server with SIGKILL.

    The tool makes the first artifact. Most others are reused from it. At the kill, the last ones are queued, and one of
    them runs.
    """
    with tool_container("empty", volume) as (container, process), ThreadPoolExecutor(8) as pool:
        container.create("a00000").wait(timeout_s=60)
        create = partial(_create, container)
        list(pool.map(lambda index: create(index, reuse=True), range(1, COUNT - QUEUED)))
        list(pool.map(create, range(COUNT - QUEUED, COUNT)))
        for member in [process, *process.children(recursive=True)]:
            os.kill(member.pid, signal.SIGKILL)
        psutil.wait_procs([process], timeout=10)


def _create(container: Container, index: int, *, reuse: bool = False) -> None:
    container.create(f"a{index:05d}", reuse=reuse)


def _median_list_ms(url: str, expected: int) -> float:
    """Return the median milliseconds of a list, from the request to the last byte. The first request warms up."""

    def read_list() -> None:
        answer = requests.get(url, timeout=60)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()) == expected

    read_list()
    return statistics.median(timed(read_list) for _ in range(ROUNDS)) * 1e3


def _lists(container: Container, what: str, queries: Sequence[tuple[str, str, int]]) -> list[Figure]:
    figures = []
    for figure, query, expected in queries:
        taken_ms = _median_list_ms(f"{container.base_url}/{what}{query}", expected)
        figures.append(compare(figure, taken_ms, None, "ms", "under 100 ms", taken_ms < 100))
    return figures


def _artifacts(folder: Path) -> list[Figure]:
    volume = folder / "volume"
    _fill_volume(volume)
    began = time.perf_counter()
    with tool_container("empty", volume) as (container, _):
        recovery_s = time.perf_counter() - began
        recovered = compare(
            f"start after SIGKILL with 10,000 artifacts, {QUEUED} of them queued",
            recovery_s,
            None,
            "s",
            "under 5 s",
            recovery_s < 5,
        )
        container.artifact(f"a{COUNT - 1:05d}").wait(timeout_s=120)
        queries = (
            ("list of 10,000 artifacts", "", COUNT),
            ("first page of 10,000 artifacts: 100 names", f"?limit={PAGE}", PAGE),
            ("first page of 10,000 artifacts: 100 statuses", f"?limit={PAGE}&detail=1", PAGE),
        )
        return [*_lists(container, "artifacts", queries), recovered]


def _runs(folder: Path) -> list[Figure]:
    home = folder / "dagster"
    steps = [step.name for step in load_pipeline(ROOT, PIPELINE).steps]
    fill(home, PIPELINE, steps, COUNT, detailed=PAGE + 1)
    with pipeline_container(PIPELINE, ROOT, home) as container:
        queries = (
            ("first page of 10,000 runs: 100 names", f"?limit={PAGE}", PAGE),
            ("first page of 10,000 runs: 100 statuses", f"?limit={PAGE}&detail=1", PAGE),
        )
        url = f"{container.base_url}/runs?limit={PAGE}&detail=1"
        first_ms = timed(lambda: requests.get(url, timeout=60).raise_for_status()) * 1e3
        return [
            *_lists(container, "runs", queries),
            compare(
                "first page of 10,000 runs: 100 statuses, first time since the start", first_ms, None, "ms", "", None
            ),
        ]


def measure() -> list[Figure]:
    """Fill a tool's volume and a Dagster instance. Measure the lists of both."""
    with scratch() as folder:
        return [*_artifacts(folder), *_runs(folder)]
