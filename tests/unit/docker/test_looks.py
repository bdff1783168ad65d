"""The health checks of containers: the scripts in docker-compose.yml and the daemon's program, run on this machine."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bonseyes_dagster.docker.compose.files import read_compose_model
from bonseyes_dagster.docker.inside import heartbeat

PROJECT = Path(__file__).parents[3]
SERVICES = read_compose_model(PROJECT / "docker-compose.yml", {}).services
TOOL, RUN_SERVER = "import", "run-server"
REFUSAL = b'HTTP/1.0 503 X\r\n\r\n{"error": {"message": "The disk is full."}}\n'


def _script(service: str) -> str:
    script: str = SERVICES[service].raw["healthcheck"]["test"][3]
    return script


@contextmanager
def _answering(listener: socket.socket, answer: bytes | None) -> Iterator[None]:
    """Answer every connection with `answer`; with None, never answer."""
    held = []

    def work() -> None:
        with suppress(OSError):
            while True:
                held.append(listener.accept()[0])
                if answer is not None:
                    request = more = held[-1].recv(65536)
                    while more and not request.endswith((b"\r\n\r\n", b"}\n")):  # the shell writes line by line
                        request += (more := held[-1].recv(65536))
                    held[-1].sendall(answer)
                    held.pop().close()

    with listener:
        listener.listen()
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    for connection in held:
        connection.close()


def _run(script: str, marker: Path, *arguments: str) -> tuple[int, str]:
    """Run a health check with all waiting times reduced to a second."""
    quick = re.sub(r"\b(sleep|timeout) \d+", r"\1 1", script.replace("/tmp/.well", str(marker)))
    quick = quick.replace("SECONDS < 20", "SECONDS < 1").replace("monotonic() + 60", "monotonic() + 1")
    done = subprocess.run(
        ["bash", "-c", quick, "check", *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    return done.returncode, done.stdout.strip().rpartition("\n")[2]


@pytest.mark.slow
@pytest.mark.parametrize("was_healthy", [False, True])
@pytest.mark.parametrize(
    ("answer", "path", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "/healthz", (0, "")),
        (REFUSAL, "/healthz", (1, '{"error": {"message": "The disk is full."}}')),
        (b"", "/healthz", (1, "no answer")),
        (None, "/healthz", (1, "no answer")),
        (None, "", (0, "")),
    ],
)
def test_health_check_reports_the_answer(
    tmp_path: Path, was_healthy: bool, answer: bytes | None, path: str, expected: tuple[int, str]
) -> None:
    """A missing answer is an error after a timeout. Only after a success, the next check pauses first."""
    marker = tmp_path / "healthy"
    if was_healthy:
        marker.touch()
    listener = socket.create_server(("127.0.0.1", 0))
    with _answering(listener, answer):
        address = f"127.0.0.1/{listener.getsockname()[1]}"
        assert _run(_script(TOOL), marker, address, *([path] if path else [])) == expected
    assert marker.exists() == (expected[0] == 0)


def test_health_check_reports_a_refused_connection(tmp_path: Path) -> None:
    """The reason is the shell's message."""
    code, reason = _run(_script(TOOL), tmp_path / "healthy", "127.0.0.1/1", "/healthz")
    assert (code, "refused" in reason) == (1, True), reason


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"ok": true, "load_error": null}\n', (0, "")),
        (b'{"ok": true, "load_error": "Traceback\\nNameError: x"}\n', (1, "NameError: x")),
        (None, (1, "no answer: timed out")),
    ],
)
def test_health_check_of_the_run_server_reports_broken_definitions(
    tmp_path: Path, answer: bytes | None, expected: tuple[int, str]
) -> None:
    """The run server is healthy only if its definitions load."""
    marker = tmp_path / "healthy"
    marker.touch()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    with _answering(listener, answer):
        script = _script(RUN_SERVER).replace("/dagster/run_server/socket", str(tmp_path / "socket"))
        assert _run(script, marker) == expected
    assert marker.exists() == (expected[0] == 0)


@pytest.mark.parametrize("service", [TOOL, RUN_SERVER])
def test_health_check_ends_before_the_engines_timeout(service: str) -> None:
    """The engine would end it without a reason. Its pause, its wait and its last request must fit together."""
    script, timeout = _script(service), SERVICES[service].raw["healthcheck"]["timeout"]
    waits = re.findall(r"sleep (\d+) &&|SECONDS < (\d+)|timeout (\d+)|monotonic\(\) \+ (\d+)", script)
    assert len(waits) == (3 if service == TOOL else 2)
    assert sum(int("".join(wait)) for wait in waits) + 10 < int(timeout.removesuffix("s"))


def test_health_check_of_the_daemon_ends_before_the_engines_timeout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It reports the reason, and the next check begins without a pause."""
    marker, clock_s = tmp_path / "healthy", [0.0]
    marker.touch()

    def sleep(seconds: float) -> None:
        clock_s[0] += seconds

    def find_problem() -> str:
        assert not marker.exists()
        return "no heartbeat"

    monkeypatch.setattr(heartbeat, "_HEALTHY_FILE", marker)
    monkeypatch.setattr(heartbeat, "_find_problem", find_problem)
    monkeypatch.setattr(heartbeat.time, "sleep", sleep)
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: clock_s[0])
    assert (heartbeat.main(), capsys.readouterr().out) == (1, "no heartbeat\n")
    assert clock_s[0] < int(SERVICES["dagster-daemon"].raw["healthcheck"]["timeout"].removesuffix("s")) - 10
