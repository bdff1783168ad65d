"""Dagster's code server, which can load the definitions anew.

`python -m bonseyes_dagster.execution.servers.code_server` starts it.
Arguments are those of `dagster api grpc`, whose "Reload definitions" answers LOADED and loads nothing. `dagster
code-server start` does load, in a second process that imports Dagster again. Here the first process imports Dagster,
opens nothing and forks the server. To reload it forks another, which loads the definitions and listens at the same
port or unix socket; then the former one ends. A reload whose server does not come up leaves the former one at work.

When a server has loaded the definitions, at the start or at a reload, the file `definitions-loaded` of DAGSTER_HOME is
touched: the pipeline containers load anew, too.
"""

import gc
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from bonseyes_dagster.execution.servers.dagster_internals import dagster_api_pb2, dagster_server, grpc_command
from bonseyes_dagster.execution.storage.instance import LOADED_FILE
from bonseyes_dagster.system.prctl import end_with_parent
from bonseyes_dagster.system.sockets import claim

__all__ = ["CodeServer", "main"]

logger = logging.getLogger("bonseyes.code_server")

# Loading the definitions takes two seconds, on a machine at work many more.
RELOAD_S = 120.0
# What a former server still answers has so long. It ends when the runs have ended that it launched itself.
_GRACE_S = 30.0
_READY, _RELOAD, _TAKEN_OVER, _FAILED = b"ready", b"reload", b"taken over", b"failed"


@dataclass(frozen=True, slots=True)
class _Server:
    """A forked server; `control` carries its requests and the answers, and is at its end when the server is."""

    pid: int
    control: socket.socket


@dataclass(frozen=True, slots=True)
class _Place:
    """A server binds the socket `own` and, once it listens, renames it to `public`.

    So there is always one server at `public`. gRPC unlinks the path that it has bound when a server stops: by then it
    would be the socket of the successor.
    """

    public: Path
    own: Path


def _socket_in(arguments: Sequence[str]) -> Path | None:
    for name, value in pairwise(arguments):
        if name in ("-s", "--socket"):
            return Path(value)
    return None


class CodeServer:
    """The parent: forks servers, replaces them, ends with the one at work."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._socket = _socket_in(arguments)
        self._forks = 0
        self._current: _Server | None = None
        self._successor: _Server | None = None
        self._asked_s = 0.0
        self._former: list[_Server] = []
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Serve until the server at work ends; return its exit status."""
        if self._socket is not None:
            claim(self._socket)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)
        self._current = self._fork()
        while True:
            for key, _ in self._selector.select(1.0):
                status = self._hear(key.data)
                if status is not None:
                    return status
            if self._successor is not None and time.monotonic() - self._asked_s > RELOAD_S:
                logger.error("the definitions were not loaded within %.0f s", RELOAD_S)
                os.kill(self._successor.pid, signal.SIGKILL)
                self._asked_s = time.monotonic()

    def _fork(self, *more: str) -> _Server:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        self._forks += 1
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            for other in (ours, *(each.control for each in (self._current, *self._former) if each)):
                other.close()
            _serve([*self._arguments, *more], self._place(), theirs, parent)
        theirs.close()
        server = _Server(pid, ours)
        self._selector.register(ours, selectors.EVENT_READ, server)
        return server

    def _place(self) -> _Place | None:
        if self._socket is None:
            return None
        return _Place(self._socket, self._socket.with_name(f"{self._socket.name}.{self._forks}"))

    def _hear(self, server: _Server) -> int | None:
        """Do what a server asks; return the exit status when the one at work has ended."""
        try:
            message = server.control.recv(64)
        except ConnectionError:
            message = b""
        if not message:
            return self._reap(server)
        if message == _RELOAD and server is self._current and self._successor is None:
            self._asked_s = time.monotonic()
            # Definitions that cannot be loaded are shown as what they are: runs would fail with them, too.
            self._successor = self._fork("--lazy-load-user-code")
        elif message == _RELOAD:
            _send(server, _FAILED)
        elif message == _READY and server is self._successor:
            self._take_over()
        elif message == _READY:
            _tell_loaded()
        return None

    def _take_over(self) -> None:
        assert self._current is not None  # it asked
        former, self._current, self._successor = self._current, self._successor, None
        self._former.append(former)
        _tell_loaded()
        _send(former, _TAKEN_OVER)
        logger.info("the definitions are loaded anew")

    def _reap(self, server: _Server) -> int | None:
        self._selector.unregister(server.control)
        server.control.close()
        _, status = os.waitpid(server.pid, 0)
        if server is self._successor:
            self._successor = None
            if self._current is not None:
                _send(self._current, _FAILED)
        elif server is self._current:
            self._end_others()
            if self._socket is not None:
                self._socket.unlink(missing_ok=True)
            return os.waitstatus_to_exitcode(status)
        else:
            self._former.remove(server)
        return None

    def _end_others(self) -> None:
        for other in (self._successor, *self._former):
            if other is not None:
                with suppress(ProcessLookupError):
                    os.kill(other.pid, signal.SIGTERM)

    def _pass_on(self, *_: object) -> None:
        for server in (self._current, self._successor, *self._former):
            if server is not None:
                with suppress(ProcessLookupError):
                    os.kill(server.pid, signal.SIGTERM)


def _tell_loaded() -> None:
    with suppress(OSError, KeyError):
        (Path(os.environ["DAGSTER_HOME"]) / LOADED_FILE).touch()


def _send(server: _Server, message: bytes) -> None:
    with suppress(OSError):
        server.control.send(message)


def _serve(arguments: list[str], place: _Place | None, control: socket.socket, parent: int) -> NoReturn:
    """Be Dagster's code server, in the forked process."""
    code = 1
    try:
        end_with_parent(parent, signal.SIGTERM)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        gc.enable()
        _can_reload(control, place)
        if place is not None:
            arguments = [str(place.own) if argument == str(place.public) else argument for argument in arguments]
        grpc_command.main(arguments, prog_name="dagster api grpc", standalone_mode=False)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _can_reload(control: socket.socket, place: _Place | None) -> None:
    """Give Dagster's server a `ReloadCode` that does what it says, and have it tell when it listens."""
    turn = threading.Lock()

    class ListeningServer(dagster_server.DagsterGrpcServer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            start = self.server.start

            def start_and_tell() -> None:
                start()
                if place is not None:
                    place.own.chmod(0o600)
                    place.own.replace(place.public)
                control.send(_READY)

            self.server.start = start_and_tell
            servers.append(self.server)

    servers: list[Any] = []

    def reload(_self: object, _request: object, _context: object) -> object:
        with turn:
            control.send(_RELOAD)
            if control.recv(64) != _TAKEN_OVER:
                raise RuntimeError("The definitions could not be loaded anew; the code server's log tells why.")
            # New connections reach the successor from here on; this answer, too, still goes out.
            for server in servers:
                server.stop(_GRACE_S)
        return dagster_api_pb2.ReloadCodeReply()

    dagster_server.DagsterGrpcServer = ListeningServer  # type: ignore[misc]
    dagster_server.DagsterApiServer.ReloadCode = reload  # type: ignore[assignment]


def main() -> None:
    """Serve in the foreground; arguments are those of `dagster api grpc`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    gc.collect()
    gc.freeze()
    server = CodeServer(sys.argv[1:])
    status = server.run()
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
