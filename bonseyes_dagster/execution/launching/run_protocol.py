"""How a launcher talks to the run server: a JSON line to a unix socket, a JSON line back, once for each connection."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bonseyes_dagster.errors import BonseyesError

__all__ = [
    "PROTOCOL_VERSION",
    "RunServerAnswerError",
    "RunServerClient",
    "RunServerGoneError",
    "default_socket",
    "records_folder",
    "socket_address",
    "storage_id",
]

PROTOCOL_VERSION = 1


class RunServerGoneError(BonseyesError):
    """Nobody listens at the run server's socket; nothing was asked of anybody."""

    code = "run_server_gone"


class RunServerAnswerError(BonseyesError):
    """The run server refused, or did not say whether it did what was asked; `reason` is its code."""

    code = "run_server_refused"

    def __init__(self, message: str, reason: str = "no_answer") -> None:
        super().__init__(message)
        self.reason = reason


def default_socket(dagster_home: str | Path) -> Path:
    """Return where a project's run server listens unless told otherwise."""
    return Path(dagster_home) / "run_server" / "socket"


def records_folder(socket_path: Path) -> Path:
    """Return where the run server that listens there keeps its records."""
    return socket_path.parent / "runs"


def storage_id(instance: Any) -> str:
    """Return what tells an instance's run storage from every other: runs must not be sought in the wrong one."""
    return str(instance.run_storage.get_run_storage_id())


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Yield an address for a socket at `path`, however long: addresses of unix sockets end at 107 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class RunServerClient:
    """Asks one run server; keeps nothing open, so any thread and any forked process may use it."""

    def __init__(self, path: Path, timeout_s: float = 60.0) -> None:
        self.path = path
        self._timeout_s = timeout_s

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Return the server's answer; wait for a server that is loading new code.

        Raises RunServerGoneError when nobody listens, RunServerAnswerError when the answer is a refusal or none came.
        """
        request = json.dumps({"version": PROTOCOL_VERSION, "command": command, **arguments}).encode() + b"\n"
        deadline = time.monotonic() + self._timeout_s
        was_sent = False
        while True:
            try:
                line = self._exchange(request, deadline)
            except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
                if not was_sent:
                    raise RunServerGoneError(f"no run server listens at {self.path}") from error
                line = b""
            except OSError as error:
                raise RunServerAnswerError(f"the run server at {self.path} did not answer: {error}") from error
            if line.endswith(b"\n"):
                return self._read(line)
            # It hung up, as it does when it starts itself anew with new code: all commands may be repeated.
            was_sent = True
            if time.monotonic() >= deadline:
                raise RunServerAnswerError(f"the run server at {self.path} hung up")
            time.sleep(0.05)

    def _exchange(self, request: bytes, deadline: float) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection, socket_address(self.path) as address:
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            connection.connect(address)
            line = b""
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                connection.sendall(request)
                while not line.endswith(b"\n"):
                    chunk = connection.recv(65536)
                    if not chunk:
                        break
                    line += chunk
            return line

    def _read(self, line: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(line)
        if not answer.get("ok"):
            raise RunServerAnswerError(str(answer.get("message")), str(answer.get("code")))
        return answer
