"""Both gateways as real processes with a real upstream, for the tests that both must pass."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path

import psutil
import requests

from bonseyes_dagster.gateway.nginx import Nginx, render
from bonseyes_dagster.gateway.routes import DAGSTER
from bonseyes_dagster.system import sockets
from tests.contract.gateway.upstream import Upstream
from tests.waiting import free_port

__all__ = [
    "EMBEDDED",
    "IMAGE",
    "NGINX",
    "TOKEN",
    "Gateway",
    "build_images",
    "has_nginx",
    "nginx_program",
    "read_all",
    "running",
    "start_access",
]

TOKEN = "the token of the tests"
EMBEDDED = "embedded"
NGINX = "nginx"
IMAGE = "image"
SOURCE = Path(__file__).parents[3]

_STARTER = ("-m", "bonseyes_dagster.gateway")
# The embedded gateway has no settings for its timeouts. Tests shorten them, to avoid waiting for minutes.
_HASTY = (
    "-c",
    "import sys; from bonseyes_dagster.gateway import __main__, forward, server; "
    "forward.STALL_S = server.IDLE_S = float(sys.argv[1]); sys.exit(__main__.main(sys.argv[2:]))",
)


@dataclass
class Gateway:
    """A running gateway. Clients connect to `process`; `access` is nginx's access service."""

    kind: str
    url: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    access: subprocess.Popen[bytes] | None = None
    access_port: int = 0
    environ: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, *, timeout_s: float = 20, **options: object) -> requests.Response:
        """Send a GET without following redirects."""
        return requests.get(self.url + path, timeout=timeout_s, allow_redirects=False, **options)  # type: ignore[arg-type]

    def head(self, method: str, path: str, *lines: str) -> bytes:
        """Return the head of a request."""
        return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *lines, "", "")).encode()

    def send(self, raw: bytes) -> bytes:
        """Send bytes on a new connection and return all bytes of the answer."""
        with self.connect() as connection:
            connection.sendall(raw)
            return read_all(connection)

    def answer(self, raw: bytes) -> tuple[int, bytes]:
        """Send bytes on a new connection and return the status and the body of the answer."""
        with self.connect() as connection:
            connection.sendall(raw)
            answer = HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read()

    def connect(self) -> socket.socket:
        """Return a new connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def memory_bytes(self) -> int:
        """Return the memory of the processes that handle bodies."""
        process = psutil.Process(_pid_in_image(self.process) if self.kind == IMAGE else self.process.pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))

    def log(self) -> str:
        """Return the log so far."""
        return (self.folder / "gateway.log").read_text()


def has_nginx() -> bool:
    """Tell whether this machine has nginx."""
    return Path(nginx_program()).exists()


def nginx_program() -> str:
    """Return the path of nginx."""
    # On Debian it is in a folder that is not in the PATH of users.
    return shutil.which("nginx") or "/usr/sbin/nginx"


def read_all(connection: socket.socket) -> bytes:
    """Return all bytes until the other side closes the connection."""
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


@contextmanager
def running(
    kind: str,
    folder: Path,
    upstream: Upstream | None,
    *,
    stall_s: float = 60,
    upstreams: dict[str, str] | None = None,
    resolver: str = "",
    **environ: str,
) -> Iterator[Gateway]:
    """Yield a gateway that answers; at the end, stop it by SIGTERM if it still runs."""
    if upstreams is None:
        assert upstream is not None
        upstreams = _upstreams(upstream, kind)
    if kind in (NGINX, IMAGE):
        gateway = _start_nginx(kind, folder, upstreams, stall_s, resolver, environ)
    else:
        gateway = _start_embedded(folder, upstreams, stall_s, environ)
    try:
        _wait(gateway)
        yield gateway
    finally:
        processes = [process for process in (gateway.process, gateway.access) if process is not None]
        for process in processes:
            process.terminate()
        assert [process.wait(15) for process in processes] == [0] * len(processes)


def _upstreams(upstream: Upstream, kind: str) -> dict[str, str]:
    """Return the addresses for a gateway: sockets for the embedded one, names and ports for nginx."""
    remote, down = f"http://127.0.0.1:{upstream.port}", f"http://127.0.0.1:{free_port()}"
    here = remote
    if kind == EMBEDDED:
        here, down = sockets.url_of(upstream.socket), sockets.url_of(upstream.socket.with_name("down.sock"))
    return {
        **dict.fromkeys(("tool", "dashboard", "visualization"), here),
        "remote": remote,
        "down": down,
        DAGSTER: here,
    }


def _start_embedded(folder: Path, upstreams: dict[str, str], stall_s: float, environ: dict[str, str]) -> Gateway:
    addresses = folder / "addresses.json"
    addresses.write_text(json.dumps({name: url for name, url in upstreams.items() if name != DAGSTER}))
    port = free_port()
    more = {"BONSEYES_ADDRESSES": str(addresses), "BONSEYES_DAGSTER_URL": upstreams[DAGSTER], **environ}
    argv = ("--bind", f"127.0.0.1:{port}")
    process = _python(folder, *argv, environ=more, starter=(*_HASTY, str(stall_s)) if stall_s != 60 else _STARTER)
    return Gateway(EMBEDDED, f"http://127.0.0.1:{port}", port, folder, process)


def _start_nginx(
    kind: str, folder: Path, upstreams: dict[str, str], stall_s: float, resolver: str, environ: dict[str, str]
) -> Gateway:
    port, access_port, health_port = free_port(), free_port(), free_port()
    nginx = Nginx(
        upstreams=upstreams,
        access=f"http://127.0.0.1:{access_port}",
        listen=(f"127.0.0.1:{port}",),
        health=f"127.0.0.1:{health_port}",
        folder=str(folder) if kind == NGINX else "/tmp",
        resolver=resolver,
        idle_s=stall_s,
        stall_s=stall_s,
    )
    file = folder / "nginx.conf"
    file.write_text(render(nginx))
    user = "user root; " if os.getuid() == 0 else ""
    argv = [nginx_program(), "-p", str(folder), "-c", str(file), "-g", f"{user}daemon off;"]
    if kind == IMAGE:
        file.chmod(0o644)
        argv = _in_image("gateway", "-v", f"{file}:/etc/nginx/nginx.conf:ro")
    with (folder / "gateway.log").open("ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    more = {"BONSEYES_PORT": str(port), **environ}
    gateway = Gateway(kind, f"http://127.0.0.1:{port}", port, folder, process, access_port=access_port, environ=more)
    start_access(gateway)
    return gateway


def start_access(gateway: Gateway) -> None:
    """Start the access service of an nginx; in its image if nginx runs in its image."""
    arguments = ("--access", "--bind", f"127.0.0.1:{gateway.access_port}")
    if gateway.kind != IMAGE:
        gateway.access = _python(gateway.folder, *arguments, environ=gateway.environ)
        return
    environ = [word for name, value in gateway.environ.items() for word in ("-e", f"{name}={value}")]
    argv = [*_in_image("tool", *environ), "python", "-m", "bonseyes_dagster.gateway", *arguments]
    with (gateway.folder / "gateway.log").open("ab") as log:
        gateway.access = subprocess.Popen(argv, stderr=log)


def build_images() -> None:
    """Build the images from this checkout."""
    argv = [str(Path(sys.executable).parent / "bonseyes"), "build", "--quiet", "tool", "gateway"]
    subprocess.run(argv, cwd=SOURCE, check=True)


def _in_image(name: str, *options: str) -> list[str]:
    """Return a command line that runs an image as Compose does, but in the network of this machine."""
    limits = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--init"]
    container = f"test-gateway-{uuid.uuid4().hex[:8]}"
    return ["docker", "run", "--rm", "--name", container, "--network", "host", *limits, *options, f"bonseyes/{name}"]


def _pid_in_image(process: subprocess.Popen[bytes]) -> int:
    assert isinstance(process.args, list)
    container = process.args[process.args.index("--name") + 1]
    argv = ["docker", "inspect", "--format", "{{.State.Pid}}", container]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def _python(
    folder: Path, *arguments: str, environ: dict[str, str], starter: Sequence[str] = _STARTER
) -> subprocess.Popen[bytes]:
    with (folder / "gateway.log").open("ab") as log:
        return subprocess.Popen([sys.executable, *starter, *arguments], env={**os.environ, **environ}, stderr=log)


def _wait(gateway: Gateway) -> None:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        assert gateway.process.poll() is None, gateway.log()
        try:
            if gateway.get("/healthz").status_code < 500:
                return
        except requests.RequestException:
            pass
        time.sleep(0.05)
    raise AssertionError(f"the gateway did not start: {gateway.log()}")
