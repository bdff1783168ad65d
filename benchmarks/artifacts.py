"""What an artifact that does nothing costs, from POST to completed, beside starting a Python that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.figure import Figure, compare
from benchmarks.service import scratch, tool_container

COUNT = 300


def _timed(action: object) -> float:
    start = time.perf_counter()
    action()  # type: ignore[operator]
    return (time.perf_counter() - start) * 1e3


def measure() -> list[Figure]:
    """Alternate ours and the rival, so that a slow moment of the machine hits both."""
    ours: list[float] = []
    rival: list[float] = []
    with scratch() as folder, tool_container("empty", folder / "volume") as (container, _):
        for index in range(COUNT):

            def create(name: str = f"a{index}") -> None:
                assert container.create(name).wait(timeout_s=30).phase == "completed"

            ours.append(_timed(create))
            if index % 5 == 0:
                rival.append(_timed(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True)))
    ours.sort()
    median, p99 = statistics.median(ours), ours[int(0.99 * COUNT)]
    python = statistics.median(rival)
    return [
        compare("empty artifact, POST to completed, median", median, python, "ms", "under 30 ms", median < 30),
        compare("empty artifact, POST to completed, p99", p99, python, "ms", "under 100 ms", p99 < 100),
    ]
