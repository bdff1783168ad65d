"""Completion in a real, interactive bash: it compares a typed line with the arguments of the completed command."""

import os
import pty
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.client.scripted_server import ScriptedServer
from tests.unit.client.small_project import serve_project

BASH = shutil.which("bash")
TIMEOUT_S = 30.0
pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")

Complete = Callable[[str], str]


@pytest.fixture
def complete(server: ScriptedServer, tmp_path: Path) -> Iterator[Complete]:
    """Return a function that types a line, a tab and Enter, and returns the arguments that the command gets."""
    serve_project(server)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "train set.gz").touch()
    (tmp_path / ".bonseyes" / "logs").mkdir(parents=True)
    (tmp_path / ".bonseyes" / "logs" / "training.log").touch()
    (tmp_path / "definitions.py").touch()
    bonseyes = tmp_path / "bonseyes"
    bonseyes.write_text(f"#!/bin/sh\nexec '{Path(sys.executable).with_name('bonseyes')}' \"$@\"\n")
    bonseyes.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "TERM": "dumb", "BONSEYES_URL": server.url, "HOME": str(tmp_path)}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(str(BASH), ["bash", "--norc", "--noprofile", "-i"], environ)
    # The completion starts the executable; Enter calls this function.
    setup = 'eval "$(bonseyes completion bash)"; bonseyes() { printf "GOT%s\\n" ":${*@Q}:"; }; PS1=; echo rea""dy\n'
    os.write(terminal, setup.encode())
    _read_until(terminal, b"ready\r\n")

    def type_line(line: str) -> str:
        os.write(terminal, f"bonseyes {line}\t\n".encode())
        output = _read_until(terminal, b":\r\n")
        return output.decode().rpartition("GOT:")[2].rpartition(":")[0].replace("'", "")

    yield type_line
    os.write(terminal, b"exit\n")
    os.close(terminal)
    os.waitpid(pid, 0)


def _read_until(terminal: int, end: bytes) -> bytes:
    output = b""
    until_s = time.monotonic() + TIMEOUT_S
    while not output.endswith(end):
        assert time.monotonic() < until_s, output
        if select.select([terminal], [], [], 0.5)[0]:
            output += os.read(terminal, 4096)
    return output


def test_bash_completes_a_typed_line(complete: Complete) -> None:
    """A key keeps its `=` at the cursor. The value after it is completed, too: a word, or a path of a file."""
    typed = {
        "run dig": "run digits-cnn",
        "run digits-cnn -p ep": "run digits-cnn -p epochs=",
        "run digits-cnn -f images=dig": "run digits-cnn -f images=digits/",
        "run digits-cnn -f images=digits/tr": "run digits-cnn -f images=digits/train set.gz",
        "artifact create training/x -p dataset=tr": "artifact create training/x -p dataset=training/",
        "artifact create training/x -p dataset=training/f": (
            "artifact create training/x -p dataset=training/first_train"
        ),
        "artifact data training/f": "artifact data training/first_train",
        "artifact data training/first_train m": "artifact data training/first_train m/report.json",
        "artifact metrics training/first_train l": "artifact metrics training/first_train loss",
        "artifacts --status comp": "artifacts --status completed",
        "artifacts --output-type com": "artifacts --output-type com.bonseyes.",
        "logs tr": "logs training",
    }
    assert {line: complete(line) for line in typed} == typed
