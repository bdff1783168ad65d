"""A process that outlives the supervisor, and ends its services if the supervisor is killed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import NoReturn

__all__ = ["Guard"]

_DISMISSED = b"."


class Guard:
    """A child that calls `clean_up` when this process is killed; it notices this because the kernel closes a pipe.

    The child is a fork: it imports nothing, so that no deleted file can stop it. Fork it before there are threads and
    an event loop. In the child, `close_in_child` closes the resources that only this process may hold.
    """

    def __init__(self, close_in_child: Callable[[], None], clean_up: Callable[[], None]) -> None:
        self._close_in_child = close_in_child
        self._clean_up = clean_up
        self._writer: int | None = None
        self.pid: int | None = None

    def start(self) -> None:
        """Fork the child, which starts to watch this process."""
        reader, self._writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(self._writer)
            self._watch(reader)
        os.close(reader)
        self.pid = pid

    def dismiss(self) -> None:
        """End the child; nothing needs to be cleaned up."""
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
            self._close_in_child()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            if os.read(reader, 1) != _DISMISSED:
                self._clean_up()
        finally:
            os._exit(0)
