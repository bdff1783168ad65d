"""Runs a parser on many random inputs: 300 in `make test`, and `CASES` in `make fuzz CASES=`.

The seed, the name of the test and the number of the input determine each input. So a developer can repeat one failure
alone.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

__all__ = ["CASES", "SEED", "fuzz"]

CASES = int(os.environ.get("FUZZ_CASES") or 300)
SEED = os.environ.get("FUZZ_SEED") or str(random.SystemRandom().randrange(10**9))
# The number of one input. Only this input runs, to repeat a failure.
ONLY_CASE = os.environ.get("FUZZ_CASE")
_SLOWEST_S = 1.0
_GROWTH_BYTES = 64 << 20
_T = TypeVar("_T")


def fuzz(name: str, make: Callable[[random.Random], _T], check: Callable[[_T], object], *, cases: int = CASES) -> None:
    """Call `check` with inputs from `make`, `cases` times.

    Raises:
        AssertionError: `check` took more than a second of processor time, or the memory of this process grew.
        BaseException: `check` raised it. A note has the seed and the input.
    """
    print(f"{name}: {cases} cases, FUZZ_SEED={SEED}")
    warm_up, memory_bytes = cases // 5, 0
    for number in range(cases) if ONLY_CASE is None else [int(ONLY_CASE)]:
        case = make(random.Random(f"{SEED} {name} {number}"))
        if number == warm_up:
            memory_bytes = _memory_bytes()
        began_s = time.thread_time()
        try:
            check(case)
        except BaseException as error:
            error.add_note(f"{name}: FUZZ_SEED={SEED} FUZZ_CASE={number} with {case!r:.3000}")
            raise
        took_s = time.thread_time() - began_s
        assert took_s < _SLOWEST_S, f"{name}: FUZZ_SEED={SEED} FUZZ_CASE={number} took {took_s} s: {case!r:.3000}"
    if ONLY_CASE is None:
        grown_bytes = _memory_bytes() - memory_bytes
        assert grown_bytes < _GROWTH_BYTES, f"{name}: FUZZ_SEED={SEED}: the memory grew by {grown_bytes} bytes"


def _memory_bytes() -> int:
    size: int = psutil.Process().memory_info().rss
    return size
