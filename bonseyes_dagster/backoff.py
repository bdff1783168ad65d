"""Pauses between tries that grow from try to try; every loop that waits for something to come back uses it."""

from __future__ import annotations

import math
import random

__all__ = ["Backoff"]


class Backoff:
    """Pauses of `first_s` seconds, then each `factor` times the one before, up to `longest_s`.

    With `spread` each is longer or shorter by up to this part of it, so that many clients of one server that was
    started anew do not come back all at once.
    """

    def __init__(self, first_s: float, longest_s: float, *, factor: float = 2.0, spread: float = 0.0) -> None:
        self.longest_s = longest_s
        self._first_s = first_s
        self._next_s = first_s
        self._factor = factor
        self._spread = spread

    def take(self, at_most_s: float = math.inf) -> float:
        """Return the seconds to pause now, `at_most_s` of them; the next pause will be longer."""
        pause_s = min(self._next_s, self.longest_s, at_most_s)
        self._next_s = pause_s * self._factor
        return pause_s * random.uniform(1 - self._spread, 1 + self._spread)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Begin with the shortest pause again, because a try has succeeded."""
        self._next_s = self._first_s
