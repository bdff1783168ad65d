"""The looks by which an engine knows how a container is: docker-compose.yml's scripts, run here."""

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


def _look(service: str) -> str:
    script: str = SERVICES[service].raw["healthcheck"]["test"][3]
    return script


@contextmanager
def _answering(listener: socket.socket, answer: bytes | None) -> Iterator[None]:
    """Answer whoever connects; with None never."""
    held = []

    def work() -> None:
        with suppress(OSError):
            while True:
                held.append(listener.accept()[0])
                if answer is not None:
                    asked = more = held[-1].recv(65536)
                    while more and not asked.endswith((b"\r\n\r\n", b"}\n")):  # the shell writes line by line
                        asked += (more := held[-1].recv(65536))
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


def _run(script: str, well: Path, *arguments: str) -> tuple[int, str]:
    """Run a look with a second for each of its patiences."""
    quick = re.sub(r"\b(sleep|timeout) \d+", r"\1 1", script.replace("/tmp/.well", str(well)))
    quick = quick.replace("SECONDS < 20", "SECONDS < 1").replace("monotonic() + 60", "monotonic() + 1")
    done = subprocess.run(
        ["bash", "-c", quick, "look", *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    return done.returncode, done.stdout.strip().rpartition("\n")[2]


@pytest.mark.parametrize("was_well", [False, True])
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
def test_a_look_tells_what_is_answered(
    tmp_path: Path, was_well: bool, answer: bytes | None, path: str, expected: tuple[int, str]
) -> None:
    """Or that nothing is, however long one waits; only after a good look the next one waits first."""
    well = tmp_path / "well"
    if was_well:
        well.touch()
    listener = socket.create_server(("127.0.0.1", 0))
    with _answering(listener, answer):
        address = f"127.0.0.1/{listener.getsockname()[1]}"
        assert _run(_look(TOOL), well, address, *([path] if path else [])) == expected
    assert well.exists() == (expected[0] == 0)


def test_a_look_tells_that_nobody_listens(tmp_path: Path) -> None:
    """In the shell's words."""
    code, said = _run(_look(TOOL), tmp_path / "well", "127.0.0.1/1", "/healthz")
    assert (code, "refused" in said) == (1, True), said


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"ok": true, "load_error": null}\n', (0, "")),
        (b'{"ok": true, "load_error": "Traceback\\nNameError: x"}\n', (1, "NameError: x")),
        (None, (1, "no answer: timed out")),
    ],
)
def test_a_look_at_the_run_server(tmp_path: Path, answer: bytes | None, expected: tuple[int, str]) -> None:
    """It is well with its definitions."""
    well = tmp_path / "well"
    well.touch()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    with _answering(listener, answer):
        script = _look(RUN_SERVER).replace("/dagster/run_server/socket", str(tmp_path / "socket"))
        assert _run(script, well) == expected
    assert well.exists() == (expected[0] == 0)


@pytest.mark.parametrize("service", [TOOL, RUN_SERVER])
def test_a_look_ends_before_the_engine_ends_it(service: str) -> None:
    """Which would be without a reason: pause, patience and the last question together."""
    script, timeout = _look(service), SERVICES[service].raw["healthcheck"]["timeout"]
    waits = re.findall(r"sleep (\d+) &&|SECONDS < (\d+)|timeout (\d+)|monotonic\(\) \+ (\d+)", script)
    assert len(waits) == (3 if service == TOOL else 2)
    assert sum(int("".join(wait)) for wait in waits) + 10 < int(timeout.removesuffix("s"))


def test_the_daemons_look_ends_before_the_engine_ends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It tells why, and begins at once the next time, whether or not it got so far."""
    well, clock_s = tmp_path / "well", [0.0]
    well.touch()

    def sleep(seconds: float) -> None:
        clock_s[0] += seconds

    def look() -> str:
        assert not well.exists()
        return "no heartbeat"

    monkeypatch.setattr(heartbeat, "_WELL", well)
    monkeypatch.setattr(heartbeat, "_look", look)
    monkeypatch.setattr(heartbeat.time, "sleep", sleep)
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: clock_s[0])
    assert (heartbeat.main(), capsys.readouterr().out) == (1, "no heartbeat\n")
    assert clock_s[0] < int(SERVICES["dagster-daemon"].raw["healthcheck"]["timeout"].removesuffix("s")) - 10
