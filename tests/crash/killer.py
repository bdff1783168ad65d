"""Kill random processes of a container at random moments by SIGKILL."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

import psutil

from tests.contract.tools.server import ToolServer
from tests.crash.clients import ClientGroup

__all__ = ["Killer"]

_WEIGHTS = {"master": 1, "server": 3, "mule": 2, "child": 5}
_LONGEST_DELAY_S = 0.2


class Killer:
    """Kills processes at random while the clients create. After a kill of the master it restarts the server."""

    def __init__(self, server: ToolServer, group: ClientGroup, seeded: random.Random) -> None:
        self._server = server
        self._group = group
        self._random = seeded
        self.killed: Counter[str] = Counter()

    def kill(self, times: int, is_over: Callable[[], bool]) -> None:
        """Kill so often, evenly over the creations; the rest follows when the clients have ended."""
        for number in range(times):
            while self._group.created < self._group.goal * number / times and not is_over():
                time.sleep(0.002)
            time.sleep(self._random.uniform(0, _LONGEST_DELAY_S))
            while not self._kill_one():
                time.sleep(0.002)

    def _kill_one(self) -> bool:
        [victim] = self._random.choices([*_WEIGHTS], [*_WEIGHTS.values()])
        if victim == "master":
            self._server.kill()
            self._server.log = self._server.log.with_name(f"server{self.killed.total()}.log")
            self._server.start()
        elif (pid := self._find(victim)) is None:
            return False
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.killed[victim] += 1
        return True

    def _find(self, victim: str) -> int | None:
        """Return a living process of this kind, or None."""
        mule = self._server.mule
        if victim == "server":
            pids = self._server.workers
        elif victim == "mule":
            pids = [mule]
        else:
            with contextlib.suppress(psutil.NoSuchProcess):
                pids = [process.pid for process in psutil.Process(mule).children(recursive=True)]
                return self._random.choice(pids) if pids else None
            return None
        alive = [pid for pid in pids if psutil.pid_exists(pid)]
        return self._random.choice(alive) if alive else None
