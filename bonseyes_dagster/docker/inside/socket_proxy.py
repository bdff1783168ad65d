"""A proxy before the Docker engine's socket. It forwards only the calls that launch runs in containers.

A process with access to the engine's socket controls the machine. Of the project's services only this one has it, and
it knows seven calls: create a container as `run_container.py` describes it, connect it to the project's two networks,
start it, inspect it, signal it, remove it, and list such containers. It refuses calls for any other container. It
answers a refused call with 403 and the reason. It logs each refusal and each change.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import logging
import re
import socket
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.execution.containers.run_container import API_VERSION, LABEL, check_creation, networks
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system.hosts import is_own_host, own_names

__all__ = ["Engine", "ProxyRefusedCallError", "SocketProxy", "main"]

logger = logging.getLogger("bonseyes.socket_proxy")

_REQUEST_BYTES = 65536
_ANSWER_BYTES = 2**24
_ENGINE_S = 60.0
_CLIENT_S = 30.0
_NAME = "socket-proxy"
_SIGNALS = ("SIGTERM", "SIGKILL")
_ID = r"([0-9a-f]{64})"
Answer = tuple[int, bytes]


class ProxyRefusedCallError(Exception):
    """The proxy refuses a call; the text has the reason."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=_ENGINE_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ENGINE_S)
        self.sock.connect(self._path)


class Engine:
    """The client of the engine's socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Return status and body of the engine's answer; raise OSError when it does not answer."""
        connection = _UnixConnection(self._path)
        try:
            content = b"" if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json", "Content-Length": str(len(content))}
            connection.request(method, f"/v{API_VERSION}{path}", content, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(_ANSWER_BYTES)
        except http.client.HTTPException as error:
            raise OSError(f"the engine's answer is not HTTP: {error!r}") from error
        finally:
            connection.close()


class CallRules:
    """The rules for each call. The proxy builds the engine's request itself, and never forwards the client's."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._networks = networks(settings.compose_project)
        self._mark = f"{LABEL}={settings.compose_project}"
        of_network = r"/networks/([A-Za-z0-9][A-Za-z0-9_.-]{0,127})"
        self._calls: list[tuple[str, str, Callable[..., Answer]]] = [
            ("GET", "/_ping", self._ping),
            ("GET", "/version", self._version),
            ("POST", "/containers/create", self._create),
            ("GET", "/containers/json", self._list),
            ("GET", f"/containers/{_ID}/json", self._inspect),
            ("POST", f"/containers/{_ID}/start", self._start),
            ("POST", f"/containers/{_ID}/kill", self._kill),
            ("DELETE", f"/containers/{_ID}", self._remove),
            ("GET", of_network, self._network),
            ("POST", f"{of_network}/connect", self._connect),
        ]

    def answer(self, method: str, target: str, body: Any) -> Answer:
        """Return the engine's answer; raise ProxyRefusedCallError for a call outside the rules."""
        path, _, text = target.partition("?")
        path = path.removeprefix(f"/v{API_VERSION}")
        query = dict(parse_qsl(text))
        for wanted, pattern, call in self._calls:
            found = re.fullmatch(pattern, path)
            if wanted == method and found:
                return call(*found.groups(), query=query, body=body)
        if path == "/images/create":
            raise ProxyRefusedCallError(
                f"Images cannot be pulled; run `bonseyes build` to make {self._settings.run_image}."
            )
        raise ProxyRefusedCallError("Launching runs does not need this call.")

    def _ping(self, *, query: dict[str, str], body: Any) -> Answer:
        return self._engine.ask("GET", "/_ping")

    def _version(self, *, query: dict[str, str], body: Any) -> Answer:
        return self._engine.ask("GET", "/version")

    def _create(self, *, query: dict[str, str], body: Any) -> Answer:
        if query:
            raise ProxyRefusedCallError("The call must not choose the container's name or platform.")
        try:
            return self._engine.ask("POST", "/containers/create", check_creation(body, self._settings))
        except ValueError as error:
            raise ProxyRefusedCallError(f"This is not a container of a run: {str(error).rstrip('.')}.") from error

    def _list(self, *, query: dict[str, str], body: Any) -> Answer:
        own = urlencode({"all": "1", "filters": json.dumps({"label": [self._mark]})})
        return self._engine.ask("GET", f"/containers/json?{own}")

    def _inspect(self, container: str, *, query: dict[str, str], body: Any) -> Answer:
        return self._own(container)

    def _start(self, container: str, *, query: dict[str, str], body: Any) -> Answer:
        self._own(container)
        return self._engine.ask("POST", f"/containers/{container}/start")

    def _kill(self, container: str, *, query: dict[str, str], body: Any) -> Answer:
        name = query.get("signal")
        if name not in _SIGNALS:
            raise ProxyRefusedCallError(f"The signal must be {' or '.join(_SIGNALS)}.")
        self._own(container)
        return self._engine.ask("POST", f"/containers/{container}/kill?signal={name}")

    def _remove(self, container: str, *, query: dict[str, str], body: Any) -> Answer:
        self._own(container)
        return self._engine.ask("DELETE", f"/containers/{container}?force=1")

    def _network(self, name: str, *, query: dict[str, str], body: Any) -> Answer:
        status, answer = self._engine.ask("GET", f"/networks/{quote(name)}")
        if status == http.client.OK and json.loads(answer)["Name"] not in self._networks:
            raise ProxyRefusedCallError("The network is not one of the networks for runs.")
        return status, answer

    def _connect(self, name: str, *, query: dict[str, str], body: Any) -> Answer:
        given = {key: value for key, value in body.items() if value} if isinstance(body, dict) else {}
        container = given.get("Container")
        if set(given) != {"Container"} or not re.fullmatch(_ID, str(container)):
            raise ProxyRefusedCallError("The call must have the container's id and nothing else.")
        self._own(str(container))
        status, answer = self._network(name, query={}, body=None)
        if status != http.client.OK:
            return status, answer
        return self._engine.ask("POST", f"/networks/{json.loads(answer)['Id']}/connect", {"Container": container})

    def _own(self, container: str) -> Answer:
        """Return the engine's description of a run's container; raise ProxyRefusedCallError for any other container."""
        status, answer = self._engine.ask("GET", f"/containers/{container}/json")
        if status == http.client.OK:
            labels = json.loads(answer)["Config"]["Labels"] or {}
            if labels.get(LABEL) != self._settings.compose_project:
                raise ProxyRefusedCallError("The container does not belong to a run.")
        return status, answer


class _Handler(BaseHTTPRequestHandler):
    """One connection; it answers every request by the rules."""

    protocol_version = "HTTP/1.1"
    server_version = "socket-proxy"
    sys_version = ""
    timeout = _CLIENT_S
    server: SocketProxy

    def _answer(self) -> None:
        try:
            body = self._body()
            if not is_own_host(self.headers.get("Host"), self.server.names):
                raise ProxyRefusedCallError("The Host header must name the proxy.")
            status, content = self.server.rules.answer(self.command, self.path, body)
            reason = ""
        except ProxyRefusedCallError as error:
            status, reason = 403, str(error)
        except OSError as error:
            status, reason = 502, f"The engine does not answer: {error}."
        if reason:
            content = json.dumps({"message": f"socket-proxy: {reason}"}).encode()
            logger.warning("%s %s %s: %d %s", self.client_address[0], self.command, self.path[:200], status, reason)
        else:
            level = (
                logging.DEBUG if self.command == "GET" else logging.INFO
            )  # the run watch sends a GET every two seconds
            logger.log(level, "%s %s %s: %d", self.client_address[0], self.command, self.path[:200], status)
        self._send(status, content)

    def __getattr__(self, name: str) -> Any:
        """Return the same handler for every method, such as `do_GET`."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isascii() or not length.isdigit():
            self.close_connection = True
            raise ProxyRefusedCallError("A request must have a Content-Length.")
        if int(length) > _REQUEST_BYTES:
            self.close_connection = True
            raise ProxyRefusedCallError(f"A request may have {_REQUEST_BYTES} bytes at most.")
        content = self.rfile.read(int(length))
        if not content:
            return None
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(content)
        raise ProxyRefusedCallError("The body must be JSON.")

    def _send(self, status: int, content: bytes) -> None:
        self.send_response_only(status)
        has_body = status not in (204, 304)
        if has_body:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if has_body and self.command != "HEAD":
            self.wfile.write(content)


class SocketProxy(ThreadingHTTPServer):
    """The server, with one thread per connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], engine: Engine, settings: Settings) -> None:
        if not settings.compose_project or not settings.run_image:
            raise SettingsError(
                "BONSEYES_COMPOSE_PROJECT and BONSEYES_RUN_IMAGE must name the project and the image of its runs."
            )
        self.rules = CallRules(engine, settings)
        self.names = own_names(settings, _NAME)
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log in one line the error that ended a connection."""
        logger.warning("%s: %r", client_address[0], sys.exception())


def main() -> None:
    """Run the server in the foreground."""
    parser = argparse.ArgumentParser(prog="python -m bonseyes_dagster.docker.inside.socket_proxy", description=__doc__)
    parser.add_argument("--bind", default="127.0.0.1:2375", help="address and port to listen at (%(default)s)")
    parser.add_argument(
        "--socket", type=Path, default=Path("/var/run/docker.sock"), help="the engine's socket (%(default)s)"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    host, _, port = arguments.bind.rpartition(":")
    try:
        server = SocketProxy((host, int(port)), Engine(arguments.socket), Settings.from_environ())
    except SettingsError as error:
        sys.exit(f"bonseyes_dagster.docker.inside.socket_proxy: {error.message}")
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
