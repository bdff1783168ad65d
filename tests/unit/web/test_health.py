"""The health check of containers."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bonseyes_dagster.web.health import check

ANSWERS: dict[str, tuple[int, bytes]] = {
    "/healthz": (200, b'{"status": "ok"}'),
    "/sick": (503, json.dumps({"error": {"message": "The tool's code cannot be loaded."}}).encode()),
    "/gone": (404, b"<html>"),
}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS[self.path]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def host() -> Iterator[str]:
    """Serve the answers above; yield HOST:PORT."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_status_200_is_healthy(host: str) -> None:
    """Any other answer is reported with its own reason, or with its status."""
    assert check(f"http://{host}/healthz") is None
    assert check(f"http://{host}/sick") == "The tool's code cannot be loaded."
    assert "404" in (check(f"http://{host}/gone") or "")


def test_a_service_without_http_is_healthy_if_it_accepts_connections(host: str, tmp_path: Path) -> None:
    """By TCP or at a unix socket."""
    assert check(f"tcp://{host}") is None
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert "refused" in (check(f"unix://{tmp_path}/socket") or "")
        server.listen()
        assert check(f"unix://{tmp_path}/socket") is None


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "http://127.0.0.1:1/x", "unix:///none", "tcp://nonsense", "ftp://x"]
)
def test_a_failure_names_the_address(address: str) -> None:
    """The log of a container shows nothing else."""
    assert address in (check(address) or "")


def test_the_exit_status_is_0_or_1(host: str) -> None:
    """Docker expects these; the reason is on standard output."""
    command = [sys.executable, "-m", "bonseyes_dagster.web.health"]
    well = subprocess.run([*command, f"http://{host}/healthz"], capture_output=True, text=True, check=False)
    sick = subprocess.run([*command, f"http://{host}/sick"], capture_output=True, text=True, check=False)
    assert (well.returncode, well.stdout) == (0, "")
    assert (sick.returncode, sick.stdout) == (1, "The tool's code cannot be loaded.\n")
