"""One child process of the supervisor: it cannot outlive the supervisor, its output is logged, its end is reported."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from bonseyes_dagster.embedded.fork_server import Fork, ForkServer, begin_as_child
from bonseyes_dagster.embedded.logs import RotatingLog

__all__ = ["Child"]

_READ_BYTES = 65536


class Child:
    """A running child. The event loop calls `on_exit` once, with the exit status (negative: the signal)."""

    def __init__(
        self,
        process: subprocess.Popen[bytes] | Fork,
        output: int,
        log: RotatingLog,
        on_exit: Callable[[int], None],
    ) -> None:
        self._log = log
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._output = output
        os.set_blocking(output, False)
        self._loop.add_reader(output, self._read)
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._reap)

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        *,
        cwd: Path,
        environ: Mapping[str, str],
        log: RotatingLog,
        on_exit: Callable[[int], None],
        fork_server: ForkServer | None = None,
    ) -> Self:
        """Start a child: as a fork of the fork server if there is one, otherwise by its command line."""
        output, theirs = os.pipe()
        try:
            fork = await fork_server.fork(argv, cwd=cwd, environ=environ, output=theirs) if fork_server else None
            return cls(fork or _spawn(argv, cwd, environ, theirs), output, log, on_exit)
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(theirs)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def terminate(self) -> None:
        """Send SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def _read(self) -> None:
        try:
            data = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._log.write(data)
            return
        self._loop.remove_reader(self._output)
        os.close(self._output)

    def _reap(self) -> None:
        status = self._process.poll()
        if status is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._on_exit(status)


def _spawn(argv: Sequence[str], cwd: Path, environ: Mapping[str, str], output: int) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=lambda: begin_as_child(parent),
    )
