"""A process that imports Dagster once and forks each service that needs it, while a project starts.

Each of them would import it by itself, at a second of processor time, and have it in memory by itself. The nursery is
for the start alone: a service that has to start again is started as any other. `python -m` is how it is started itself.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import logging
import os
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bonseyes_dagster.system.prctl import end_with_parent

__all__ = ["Fork", "Nursery", "begin_as_child"]

# What the services have in common. Not `web.app`: the place of its metrics is taken from the environment when imported.
_SHARED = (
    "dagster._grpc.server",
    "dagster_webserver.cli",
    "dagster._daemon.cli",
    "bonseyes_dagster.execution.processes.warm_definitions",
    "bonseyes_dagster.pipeline.runs",
)
_REQUEST_BYTES = 1 << 20
# Room for a forked service's own command line, which `ps` is to show.
_ROOM = "." * 400


def begin_as_child(parent: int) -> None:
    """In the child: end with the supervisor, and take signals as if started by hand."""
    # TERM, not KILL: a server whose supervisor was killed still takes its own children along.
    end_with_parent(parent, signal.SIGTERM)
    # Started in the background of a shell SIGINT is ignored, and Dagster then ignores SIGTERM as well.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


class Fork:
    """A service that the nursery has started: a child of this process, seen as `subprocess` shows its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status once it has ended (negative: the signal)."""
        if self._status is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if done else None
        return self._status

    def terminate(self) -> None:
        """Ask it to end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class Nursery:
    """The supervisor's side: asks for services, one after another."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST_BYTES)
        self._socket.setblocking(False)
        self._turn = asyncio.Lock()
        command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), _ROOM]
        self._popen = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    async def fork(self, argv: Sequence[str], *, cwd: Path, environ: Mapping[str, str], output: int) -> Fork | None:
        """Start `python -m MODULE ...` as a child of this process; None when that cannot be."""
        order = {"argv": list(argv), "cwd": str(cwd), "environ": dict(environ), "parent": os.getpid()}
        loop = asyncio.get_running_loop()
        async with self._turn:
            try:
                socket.send_fds(self._socket, [json.dumps(order).encode()], [output])
                answer = await loop.sock_recv(self._socket, 64)
            except OSError:
                return None
        return Fork(int(answer)) if answer else None

    def close(self) -> None:
        """Do without it from now on; what it has started is no child of its."""
        self._socket.close()
        self._popen.kill()
        self._popen.wait()


def main(descriptor: int) -> None:
    """Import, then fork what is asked for until nobody asks any more."""
    # Imports make little garbage and many objects: looking for it among them is a fifth of their time.
    gc.disable()
    for module in _SHARED:
        importlib.import_module(module)
    gc.freeze()
    requests = socket.socket(fileno=descriptor)
    while True:
        message, [*descriptors], _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 1)
        if not message:
            return
        order = json.loads(message)
        requests.send(str(_fork(order, *descriptors)).encode())


def _fork(order: Mapping[str, Any], output: int) -> int:
    """Fork a service whose parent is the supervisor, the reaper of orphans; return its pid."""
    told, tell = os.pipe()
    go, hold = os.pipe()
    between = os.fork()
    if between == 0:
        pid = os.fork()
        if pid == 0:
            os.close(hold)
            os.read(go, 1)
            _become(order, output)
        os.write(tell, str(pid).encode())
        os._exit(0)
    os.waitpid(between, 0)  # the service's parent is the supervisor now
    pid = int(os.read(told, 32))
    for descriptor in (told, tell, go, hold, output):
        os.close(descriptor)
    return pid


def _become(order: Mapping[str, Any], output: int) -> NoReturn:
    """Be the service, as if it had been started by its command line."""
    code = 1
    try:
        begin_as_child(order["parent"])
        os.setsid()
        for number in (1, 2):
            os.dup2(output, number)
        os.closerange(3, 256)
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        os.chdir(order["cwd"])
        os.environ.clear()
        os.environ.update(order["environ"])
        argv = order["argv"]
        module, *arguments = argv[argv.index("-m") + 1 :]
        _show(argv)
        sys.argv = [module, *arguments]
        gc.enable()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
            logging.shutdown()
            sys.stdout.flush()
        os._exit(code)


def _show(argv: Sequence[str]) -> None:
    """Let `ps` show a service's own command line in the place of this one's, as far as there is room."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        numbers = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(numbers[45]), int(numbers[46])
        line = "\0".join(argv).encode()[: end - start - 1]
        ctypes.memmove(start, line.ljust(end - start, b"\0"), end - start)


if __name__ == "__main__":
    main(int(sys.argv[1]))
