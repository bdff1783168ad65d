"""A process that imports Dagster once, and forks each service that needs Dagster, while a project starts.

Each service would otherwise import Dagster itself, which takes a second of processor time, and hold its own copy in
memory. The fork server works only during the start: a later restart of a service uses its command line.
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

__all__ = ["Fork", "ForkServer", "begin_as_child"]

# Modules that the services share. Not `web.app`: at its import, it reads the folder for metrics from the environment.
_SHARED = (
    "dagster._grpc.server",
    "dagster_webserver.cli",
    "dagster._daemon.cli",
    "bonseyes_dagster.execution.processes.warm_definitions",
    "bonseyes_dagster.pipeline.runs",
)
_REQUEST_BYTES = 1 << 20
# Space in this process's command line for that of a forked service, so that `ps` can show it.
_ROOM = "." * 400


def begin_as_child(parent: int) -> None:
    """Prepare a child process: it ends with the supervisor, and handles signals as if started by hand."""
    # SIGTERM, not SIGKILL: a server whose supervisor was killed can still end its own children.
    end_with_parent(parent, signal.SIGTERM)
    # A background process of a shell ignores SIGINT, and Dagster would then ignore SIGTERM, too.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


class Fork:
    """A service that the fork server has started. It is a child of this process; the class looks like `Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status (negative: the signal); None while it runs."""
        if self._status is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if done else None
        return self._status

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)


class ForkServer:
    """The supervisor's client of the fork server; it requests one fork after another."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST_BYTES)
        self._socket.setblocking(False)
        self._request_lock = asyncio.Lock()
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
        """The process id of the fork server."""
        return self._popen.pid

    async def fork(self, argv: Sequence[str], *, cwd: Path, environ: Mapping[str, str], output: int) -> Fork | None:
        """Start `python -m MODULE ...` as a child of this process; return None when the fork server does not answer."""
        order = {"argv": list(argv), "cwd": str(cwd), "environ": dict(environ), "parent": os.getpid()}
        loop = asyncio.get_running_loop()
        async with self._request_lock:
            try:
                socket.send_fds(self._socket, [json.dumps(order).encode()], [output])
                answer = await loop.sock_recv(self._socket, 64)
            except OSError:
                return None
        return Fork(int(answer)) if answer else None

    def close(self) -> None:
        """End the fork server. The forked services go on: they are children of the supervisor."""
        self._socket.close()
        self._popen.kill()
        self._popen.wait()


def main(descriptor: int) -> None:
    """Import the shared modules, then fork services until the supervisor closes the socket."""
    # Imports make many objects and little garbage; the garbage collector would take a fifth of their time.
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
    """Fork a service twice, so that its parent becomes the supervisor, which adopts orphans; return its pid."""
    pid_reader, pid_writer = os.pipe()
    start_reader, start_writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        pid = os.fork()
        if pid == 0:
            os.close(start_writer)
            os.read(start_reader, 1)
            _run_service(order, output)
        os.write(pid_writer, str(pid).encode())
        os._exit(0)
    os.waitpid(middle, 0)  # now the supervisor is the parent of the service
    pid = int(os.read(pid_reader, 32))
    for descriptor in (pid_reader, pid_writer, start_reader, start_writer, output):
        os.close(descriptor)
    return pid


def _run_service(order: Mapping[str, Any], output: int) -> NoReturn:
    """Run the service in this process, as if its command line had started it."""
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
        _set_command_line(argv)
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


def _set_command_line(argv: Sequence[str]) -> None:
    """Let `ps` show the service's command line instead of the fork server's, as far as it fits."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        numbers = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(numbers[45]), int(numbers[46])
        line = "\0".join(argv).encode()[: end - start - 1]
        ctypes.memmove(start, line.ljust(end - start, b"\0"), end - start)


if __name__ == "__main__":
    main(int(sys.argv[1]))
