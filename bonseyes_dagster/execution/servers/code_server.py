"""Dagster's code server, with a reload that loads the definitions again.

`python -m bonseyes_dagster.execution.servers.code_server` starts it, with the arguments of `dagster api grpc`. In
`dagster api grpc`, "Reload definitions" answers LOADED but loads nothing. `dagster code-server start` does reload, but
in a second process that imports Dagster again. Here the parent process imports Dagster, opens nothing and forks a
server. For a reload it forks a second server, the successor. The successor loads the definitions and listens at the
same port or unix socket; then the former server ends. If the successor fails, the former server goes on.

At the start and after each reload, the server touches the file `definitions-loaded` in DAGSTER_HOME. The pipeline
containers then load the definitions again, too.
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

# Loading the definitions takes two seconds, and many more on a busy machine.
RELOAD_S = 120.0
# Time for the requests that a former server still answers. It ends when the runs that it launched itself have ended.
_GRACE_S = 30.0
_READY, _RELOAD, _TAKEN_OVER, _FAILED = b"ready", b"reload", b"taken over", b"failed"


@dataclass(frozen=True, slots=True)
class _Server:
    """A forked server. The socket `control` carries its requests and the answers, and closes when the server ends."""

    pid: int
    control: socket.socket


@dataclass(frozen=True, slots=True)
class _SocketPaths:
    """A server binds the path `own`, and renames it to `public` when it listens.

    So there is always one server at `public`. gRPC unlinks the path that it bound when a server stops. If that path
    were `public`, gRPC would unlink the socket of the successor.
    """

    public: Path
    own: Path


def _socket_in(arguments: Sequence[str]) -> Path | None:
    for name, value in pairwise(arguments):
        if name in ("-s", "--socket"):
            return Path(value)
    return None


class CodeServer:
    """The parent process: it forks and replaces servers, and ends with the current server."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._socket = _socket_in(arguments)
        self._forks = 0
        self._current: _Server | None = None
        self._successor: _Server | None = None
        self._reload_began_at = 0.0
        self._former: list[_Server] = []
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Serve until the current server ends; return its exit status."""
        if self._socket is not None:
            claim(self._socket)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._forward_signal)
        self._current = self._fork()
        while True:
            for key, _ in self._selector.select(1.0):
                status = self._handle_message(key.data)
                if status is not None:
                    return status
            if self._successor is not None and time.monotonic() - self._reload_began_at > RELOAD_S:
                logger.error("The definitions were not loaded within %.0f s; the former server goes on.", RELOAD_S)
                os.kill(self._successor.pid, signal.SIGKILL)
                self._reload_began_at = time.monotonic()

    def _fork(self, *more: str) -> _Server:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        self._forks += 1
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            for other in (ours, *(each.control for each in (self._current, *self._former) if each)):
                other.close()
            _serve([*self._arguments, *more], self._paths(), theirs, parent)
        theirs.close()
        server = _Server(pid, ours)
        self._selector.register(ours, selectors.EVENT_READ, server)
        return server

    def _paths(self) -> _SocketPaths | None:
        if self._socket is None:
            return None
        return _SocketPaths(self._socket, self._socket.with_name(f"{self._socket.name}.{self._forks}"))

    def _handle_message(self, server: _Server) -> int | None:
        """Handle a message of a server; return the exit status if the current server has ended."""
        try:
            message = server.control.recv(64)
        except ConnectionError:
            message = b""
        if not message:
            return self._reap(server)
        if message == _RELOAD and server is self._current and self._successor is None:
            self._reload_began_at = time.monotonic()
            # The successor also serves definitions that cannot be loaded, so that the UI shows their error. Runs fail
            # as well.
            self._successor = self._fork("--lazy-load-user-code")
        elif message == _RELOAD:
            _send(server, _FAILED)
        elif message == _READY and server is self._successor:
            self._take_over()
        elif message == _READY:
            _touch_loaded_file()
        return None

    def _take_over(self) -> None:
        assert self._current is not None  # it sent the request
        former, self._current, self._successor = self._current, self._successor, None
        self._former.append(former)
        _touch_loaded_file()
        _send(former, _TAKEN_OVER)
        logger.info("The definitions are loaded again.")

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

    def _forward_signal(self, *_: object) -> None:
        for server in (self._current, self._successor, *self._former):
            if server is not None:
                with suppress(ProcessLookupError):
                    os.kill(server.pid, signal.SIGTERM)


def _touch_loaded_file() -> None:
    with suppress(OSError, KeyError):
        (Path(os.environ["DAGSTER_HOME"]) / LOADED_FILE).touch()


def _send(server: _Server, message: bytes) -> None:
    with suppress(OSError):
        server.control.send(message)


def _serve(arguments: list[str], paths: _SocketPaths | None, control: socket.socket, parent: int) -> NoReturn:
    """Run Dagster's code server in the forked process."""
    code = 1
    try:
        end_with_parent(parent, signal.SIGTERM)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        gc.enable()
        _patch_reload(control, paths)
        if paths is not None:
            arguments = [str(paths.own) if argument == str(paths.public) else argument for argument in arguments]
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


def _patch_reload(control: socket.socket, paths: _SocketPaths | None) -> None:
    """Give Dagster's server a `ReloadCode` that loads the code, and let it report when it listens."""
    lock = threading.Lock()

    class ListeningServer(dagster_server.DagsterGrpcServer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            start = self.server.start

            def start_and_report() -> None:
                start()
                if paths is not None:
                    paths.own.chmod(0o600)
                    paths.own.replace(paths.public)
                control.send(_READY)

            self.server.start = start_and_report
            servers.append(self.server)

    servers: list[Any] = []

    def reload(_self: object, _request: object, _context: object) -> object:
        with lock:
            control.send(_RELOAD)
            if control.recv(64) != _TAKEN_OVER:
                raise RuntimeError("The definitions could not be loaded again; the code server's log has the reason.")
            # From here on, new connections reach the successor. This server still sends the answer to this request.
            for server in servers:
                server.stop(_GRACE_S)
        return dagster_api_pb2.ReloadCodeReply()

    dagster_server.DagsterGrpcServer = ListeningServer  # type: ignore[misc]
    dagster_server.DagsterApiServer.ReloadCode = reload  # type: ignore[assignment]


def main() -> None:
    """Serve in the foreground, with the arguments of `dagster api grpc`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    gc.collect()
    gc.freeze()
    server = CodeServer(sys.argv[1:])
    status = server.run()
    sys.exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
