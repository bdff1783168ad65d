"""Ours and the rival in turn, so that whatever else the machine does hits both alike; and how sure the ratio is."""

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
    """Seconds of each round, ours and the rival's."""

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
        """Return our speed by the rival's: the median over the rounds, since both halves of a round share a load."""
        return statistics.median(self._ratios())

    @property
    def error(self) -> float:
        """Return the half width of the ratio's 95 % interval, relative (McGill's notch: robust against outliers)."""
        ratios = self._ratios()
        low, _, high = statistics.quantiles(ratios, n=4)
        return float(1.57 * (high - low) / len(ratios) ** 0.5 / self.ratio)

    def _ratios(self) -> list[float]:
        return [rival / ours for ours, rival in zip(self.ours_s, self.rival_s, strict=True)]


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turn(ours: Callable[[], float], rival: Callable[[], float], *, rounds: int = 7, most_rounds: int = 21) -> Timing:
    """Measure both once for warming up, then in turn, each first every other time.

    At least `rounds` times, and until the ratio is known to 5 % or `most_rounds` are over. Both return seconds, which
    lets them prepare and clean up outside of what counts.
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
    """Return the processor time of a process and of what it saw end; nothing when it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0
