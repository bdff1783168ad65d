"""Measures latency and rates through nginx, through the embedded gateway, and without a gateway."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.figure import Figure, compare
from benchmarks.service import scratch, tool_container
from benchmarks.timing import in_turn, timed
from bonseyes_dagster.client import Container
from bonseyes_dagster.gateway.routes import DAGSTER
from tests.contract.gateway.processes import EMBEDDED, NGINX, TOKEN, has_nginx, running

GIB = 1 << 30
UPLOAD_BYTES = GIB // 2
REQUESTS = 400
CLIENTS = 8
WINDOW_S = 2.0


def measure() -> list[Figure]:
    """Measure latency, request rate, downloads and uploads. All requests have a token, as on a public gateway."""
    with scratch() as folder, ExitStack() as stack:
        container, _ = stack.enter_context(tool_container("files", folder / "volume", BONSEYES_THREADS="64"))
        status = container.create("big", {"count": 1, "size": GIB}).wait(timeout_s=600)
        assert status.phase == "completed", status.reason
        bases = {"direct": container.base_url}
        for kind in (EMBEDDED, *([NGINX] if has_nginx() else [])):
            upstreams = dict.fromkeys(("files", DAGSTER), container.base_url)
            place = folder / kind
            place.mkdir()
            started = running(kind, place, None, upstreams=upstreams, BONSEYES_TOKEN=TOKEN, BONSEYES_LOG_LEVEL="INFO")
            bases[kind] = f"{stack.enter_context(started).url}/containers/files"
        return [*_latency(bases), *_requests(bases), *_downloads(bases), *_uploads(bases, folder)]


def _latency(bases: dict[str, str]) -> list[Figure]:
    """Send one request at a time on a kept-alive connection, to each gateway in turn."""
    clients = {name: _RawClient(base) for name, base in bases.items()}
    times: dict[str, list[float]] = {name: [] for name in bases}
    for _ in range(REQUESTS):
        for name, client in clients.items():
            times[name].append(timed(client.send) * 1e3)
    median = {name: statistics.median(each) for name, each in times.items()}
    direct = median["direct"]
    return [
        compare(f"status of an artifact through {name}, median (direct)", each, direct, "ms", "", None)
        for name, each in median.items()
        if name != "direct"
    ]


def _requests(bases: dict[str, str]) -> list[Figure]:
    rates: dict[str, list[float]] = {name: [] for name in bases}
    for _ in range(3):
        for name, base in bases.items():
            rates[name].append(_rate(base))
    median = {name: statistics.median(each) for name, each in rates.items()}
    figure = f"requests a second of {CLIENTS} clients through"
    return [
        compare(f"{figure} {name} (direct)", each, median["direct"], "1/s", "", None)
        for name, each in median.items()
        if name != "direct"
    ]


def _rate(base: str) -> float:
    until_s = time.monotonic() + WINDOW_S
    counts = [0] * CLIENTS

    def work(number: int) -> None:
        client = _RawClient(base)
        while time.monotonic() < until_s:
            client.send()
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / WINDOW_S


class _RawClient:
    """A client that needs almost no processor time: it sends the same bytes each time."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        self._address = (parts.hostname, parts.port)
        self._request = (
            f"GET {parts.path}/artifacts/big/status HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {TOKEN}\r\n\r\n"
        ).encode()
        self._connection: socket.socket | None = None

    def send(self) -> None:
        if self._connection is None:
            self._connection = socket.create_connection(self._address)
        self._connection.sendall(self._request)
        received = b""
        while b"\r\n\r\n" not in received or not received.endswith(b"}"):
            chunk = self._connection.recv(65536)
            if not chunk:
                break
            received += chunk
        assert received.startswith(b"HTTP/1.1 200"), received[:200]
        if not received.endswith(b"}") or b"connection: close" in received.lower():
            self._connection.close()
            self._connection = None


def _curl(*arguments: str) -> None:
    subprocess.run(
        ["curl", "--silent", "--fail", "--output", "/dev/null", "-H", f"Authorization: Bearer {TOKEN}", *arguments],
        check=True,
    )


def _downloads(bases: dict[str, str]) -> list[Figure]:
    def fetch(name: str) -> float:
        return timed(partial(_curl, f"{bases[name]}/artifacts/big/data"))

    return [_stream(f"download of 1 GiB through {name} (direct)", fetch, name, 1.0) for name in _gateways(bases)]


def _uploads(bases: dict[str, str], folder: Path) -> list[Figure]:
    source = folder / "upload"
    source.write_bytes(os.urandom(1 << 20) * (UPLOAD_BYTES >> 20))
    artifact = Container(bases["direct"], name="files").artifact("up")

    def send(name: str) -> float:
        taken_s = timed(partial(_curl, "-F", "name=up", "-F", f"upload=@{source}", f"{bases[name]}/artifacts"))
        artifact.wait(timeout_s=60)
        artifact.delete()
        return taken_s

    return [_stream(f"upload of 512 MiB through {name} (direct)", send, name, 0.5) for name in _gateways(bases)]


def _stream(figure: str, run: Callable[[str], float], name: str, gib: float) -> Figure:
    timing = in_turn(partial(run, name), partial(run, "direct"), rounds=5, most_rounds=9)
    rates = gib / timing.ours, gib / timing.rival
    return compare(figure, *rates, "GiB/s", "", None, ratio=timing.ratio, error=timing.error)


def _gateways(bases: dict[str, str]) -> list[str]:
    return [name for name in bases if name != "direct"]
