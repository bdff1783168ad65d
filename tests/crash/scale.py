"""The size of each campaign, from the environment: small in `make test`, full in `make test-crash`."""

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
# Operations: edits of a tool's code, restarts, re-uses and losses of its index.
EDITS = _number("EDITS", 8)
# Damaged manifests, published files, and pages of an index (each in three ways).
DAMAGES = _number("DAMAGES", 1)
REEXECUTIONS = _number("REEXECUTIONS", 4)
# One of so many system calls fails, or is the last one.
EVERY = _number("EVERY", 40)
# Whether to test only the main operations, without their variants.
IS_SHORT = EVERY > 10
# So long a container may make no progress although it has work. On an idle machine the promise is ten seconds.
STUCK_S = _number("STUCK_S", 40)


def seeded() -> random.Random:
    """Return a random generator whose seed is printed and can be set by CRASH_SEED."""
    seed = _number("SEED", random.SystemRandom().randrange(1, 2**31))
    print(f"CRASH_SEED={seed}")
    return random.Random(seed)
