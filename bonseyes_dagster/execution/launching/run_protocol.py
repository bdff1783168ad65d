"""The protocol of launchers and run server: a connection to a unix socket carries one JSON line each way."""

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
    """No run server listens at the socket; no request was sent."""

    code = "run_server_gone"


class RunServerAnswerError(BonseyesError):
    """The run server refused a request, or did not answer it; `reason` is the code of the refusal."""

    code = "run_server_refused"

    def __init__(self, message: str, reason: str = "no_answer") -> None:
        super().__init__(message)
        self.reason = reason


def default_socket(dagster_home: str | Path) -> Path:
    """Return the default socket of a project's run server."""
    return Path(dagster_home) / "run_server" / "socket"


def records_folder(socket_path: Path) -> Path:
    """Return the folder of records of the run server that listens at a socket."""
    return socket_path.parent / "runs"


def storage_id(instance: Any) -> str:
    """Return the unique id of an instance's run storage: a server must not look for runs in another storage."""
    return str(instance.run_storage.get_run_storage_id())


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """Yield a short address for a socket at `path`: the address of a unix socket has at most 107 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class RunServerClient:
    """Sends requests to one run server. It keeps nothing open, so any thread and any forked process may use it."""

    def __init__(self, path: Path, timeout_s: float = 60.0) -> None:
        self.path = path
        self._timeout_s = timeout_s

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Return the server's answer; wait for a server that loads new code.

        Raises RunServerGoneError if no server listens, and RunServerAnswerError if it refuses or does not answer.
        """
        request = json.dumps({"version": PROTOCOL_VERSION, "command": command, **arguments}).encode() + b"\n"
        deadline = time.monotonic() + self._timeout_s
        was_sent = False
        while True:
            try:
                line = self._exchange(request, deadline)
            except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
                if not was_sent:
                    raise RunServerGoneError(f"No run server listens at {self.path}.") from error
                line = b""
            except OSError as error:
                raise RunServerAnswerError(f"The run server at {self.path} did not answer: {error}.") from error
            if line.endswith(b"\n"):
                return self._read(line)
            # The server closes connections when it starts again with new code. All commands may be repeated.
            was_sent = True
            if time.monotonic() >= deadline:
                raise RunServerAnswerError(f"The run server at {self.path} closed the connection without an answer.")
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
