"""How much of each campaign is run: little in `make test`, all of it in `make test-crash`; set by the environment."""

from __future__ import annotations

import os
import random

__all__ = ["CANCELS", "CODE_STEPS", "CREATIONS", "EVERY", "KILLS", "POWER_CUTS", "RUN_KILLS", "STUCK_S", "seeded"]


def _number(name: str, default: int) -> int:
    return int(os.environ.get(f"CRASH_{name}") or default)


CREATIONS = _number("CREATIONS", 40)
KILLS = _number("KILLS", 8)
RUN_KILLS = _number("RUN_KILLS", 7)
CANCELS = _number("CANCELS", 12)
POWER_CUTS = _number("POWER_CUTS", 1)
CODE_STEPS = _number("CODE_STEPS", 12)
# Every so many system calls one is made to fail, or is the last one.
EVERY = _number("EVERY", 40)
# Whether to leave out all operations but those that the others are variants of.
IS_SHORT = EVERY > 10
# How long a container may do nothing while it has something to do; ten seconds is the promise of an idle machine.
STUCK_S = _number("STUCK_S", 40)


def seeded() -> random.Random:
    """Return randomness that can be had again: its seed is printed, and taken from CRASH_SEED."""
    seed = _number("SEED", random.SystemRandom().randrange(1, 2**31))
    print(f"CRASH_SEED={seed}")
    return random.Random(seed)
