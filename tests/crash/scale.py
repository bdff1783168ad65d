"""How much of each campaign is run: little in `make test`, all of it in `make test-crash`; set by the environment."""

from __future__ import annotations

import os
import random

__all__ = [
    "CANCELS",
    "CREATIONS",
    "DAMAGES",
    "EDITS",
    "EVERY",
    "KILLS",
    "POWER_CUTS",
    "REEXECUTIONS",
    "RUN_KILLS",
    "STUCK_S",
    "seeded",
]


def _number(name: str, default: int) -> int:
    return int(os.environ.get(f"CRASH_{name}") or default)


CREATIONS = _number("CREATIONS", 40)
KILLS = _number("KILLS", 8)
RUN_KILLS = _number("RUN_KILLS", 7)
CANCELS = _number("CANCELS", 12)
POWER_CUTS = _number("POWER_CUTS", 1)
# Edits of a tool's code, restarts, re-uses and losses of its index.
EDITS = _number("EDITS", 8)
# Manifests, published files, and pages of an index, each in each of three ways, that are damaged.
DAMAGES = _number("DAMAGES", 1)
REEXECUTIONS = _number("REEXECUTIONS", 4)
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
