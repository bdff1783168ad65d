"""A process that outlives the supervisor by a moment, to end what it leaves when it is killed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import NoReturn

__all__ = ["Guard"]

_DISMISSED = b"."


class Guard:
    """A child that waits for this process's end, which the kernel tells it by closing a pipe, and calls `clean_up`.

    Forked, not started: it costs no import, and nothing that it needs can be gone when it is needed. Fork it before
    there are threads and an event loop. `let_go` closes, in it, what belongs to this process alone.
    """

    def __init__(self, let_go: Callable[[], None], clean_up: Callable[[], None]) -> None:
        self._let_go = let_go
        self._clean_up = clean_up
        self._writer: int | None = None
        self.pid: int | None = None

    def post(self) -> None:
        """Start to watch over this process."""
        reader, self._writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(self._writer)
            self._watch(reader)
        os.close(reader)
        self.pid = pid

    def dismiss(self) -> None:
        """Nothing is left to be cleaned up."""
        if self._writer is None or self.pid is None:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(self._writer, _DISMISSED)
        os.close(self._writer)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self._writer = self.pid = None

    def _watch(self, reader: int) -> NoReturn:
        try:
            os.setsid()
            self._let_go()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            if os.read(reader, 1) != _DISMISSED:
                self._clean_up()
        finally:
            os._exit(0)
