"""Measures ours and the rival in turn, so other work of the machine affects both. Estimates the ratio's error."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

__all__ = ["Timing", "cpu_s_of", "in_turn", "timed"]

_ERROR_WANTED = 0.05


@dataclass(frozen=True, slots=True)
class Timing:
    """The seconds of each round, ours and the rival's."""

    ours_s: list[float]
    rival_s: list[float]

    @property
    def ours(self) -> float:
        """Return our median."""
        return statistics.median(self.ours_s)

    @property
    def rival(self) -> float:
        """Return the rival's median."""
        return statistics.median(self.rival_s)

    @property
    def ratio(self) -> float:
        """Return our speed / the rival's: the median over the rounds, because both halves of a round have one load."""
        return statistics.median(self._ratios())

    @property
    def error(self) -> float:
        """Return the half width of the ratio's 95 % interval as a share of the ratio.

        It is McGill's notch, which is robust against outliers.
        """
        ratios = self._ratios()
        low, _, high = statistics.quantiles(ratios, n=4)
        return float(1.57 * (high - low) / len(ratios) ** 0.5 / self.ratio)

    def _ratios(self) -> list[float]:
        return [rival / ours for ours, rival in zip(self.ours_s, self.rival_s, strict=True)]


def timed(action: Callable[[], object]) -> float:
    """Return the seconds of an action."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turn(ours: Callable[[], float], rival: Callable[[], float], *, rounds: int = 7, most_rounds: int = 21) -> Timing:
    """Measure both once to warm up, then both in each round. The order changes from round to round.

    There are at least `rounds` rounds. The rounds end when the ratio's error is at most 5 %, or after `most_rounds`.

    Args:
        ours: Runs ours once and returns its seconds. Its preparation and clean-up do not count.
        rival: The same for the rival.
        rounds: The lowest number of rounds.
        most_rounds: The highest number of rounds.
    """
    ours(), rival()
    timing = Timing([], [])
    while len(timing.ours_s) < rounds or (timing.error > _ERROR_WANTED and len(timing.ours_s) < most_rounds):
        if len(timing.ours_s) % 2:
            timing.rival_s.append(rival())
            timing.ours_s.append(ours())
        else:
            timing.ours_s.append(ours())
            timing.rival_s.append(rival())
    return timing


def cpu_s_of(process: psutil.Process) -> float:
    """Return the processor time of a process and of its ended children, or 0 if the process has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0
