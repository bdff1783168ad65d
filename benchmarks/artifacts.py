"""Measures an artifact whose tool does nothing, from POST to completed. The rival is the start of an empty Python."""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial

from benchmarks.figure import Figure, compare
from benchmarks.service import scratch, tool_container
from benchmarks.timing import timed

WARM_UP, COUNT = 10, 500


def measure() -> list[Figure]:
    """Alternate ours and the rival: a slow moment of the machine then affects both."""
    ours: list[float] = []
    rival: list[float] = []
    with scratch() as folder, tool_container("empty", folder / "volume") as (container, _):

        def create(index: int) -> None:
            assert container.create(f"a{index}").wait(timeout_s=30).phase == "completed"

        for index in range(WARM_UP + COUNT):
            ours.append(1e3 * timed(partial(create, index)))
            if index % 5 == 0:
                rival.append(1e3 * timed(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True)))
    ours, rival = sorted(ours[WARM_UP:]), sorted(rival)
    median, python = statistics.median(ours), statistics.median(rival)
    p99, python99 = ours[int(0.99 * len(ours))], rival[int(0.99 * len(rival))]
    return [
        compare(
            "empty artifact, POST to completed, median (python -c pass)",
            median,
            python,
            "ms",
            "under 30 ms",
            median < 30,
        ),
        compare("empty artifact, POST to completed, p99 (its p99)", p99, python99, "ms", "under 100 ms", p99 < 100),
    ]
