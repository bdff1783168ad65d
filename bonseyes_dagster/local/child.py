"""One child process of the supervisor: started so that it cannot outlive us, its output kept, its end noticed."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bonseyes_dagster.local.logs import RotatingLog

__all__ = ["Child", "adopt_orphans"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)
_READ_BYTES = 65536


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none escapes the stop."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Child:
    """A running child. `on_exit` is called once, in the loop, with the exit status (negative: the signal)."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        environ: Mapping[str, str],
        log: RotatingLog,
        on_exit: Callable[[int], None],
    ) -> None:
        self._log = log
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._popen = subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_prepare(os.getpid()),
        )
        assert self._popen.stdout is not None
        self._output = self._popen.stdout.fileno()
        os.set_blocking(self._output, False)
        self._loop.add_reader(self._output, self._read)
        self._pidfd = os.pidfd_open(self._popen.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    def terminate(self) -> None:
        """Ask it to end."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.terminate()

    def _read(self) -> None:
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._log.write(data)
            return
        self._loop.remove_reader(self._output)
        if self._popen.stdout is not None:
            self._popen.stdout.close()

    def _reap(self) -> None:
        status = self._popen.poll()
        if status is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._on_exit(status)


def _prepare(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        # TERM, not KILL: a server whose supervisor was killed still takes its own children along.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        # Started in the background of a shell SIGINT is ignored, and Dagster then ignores SIGTERM as well.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])

    return prepare
