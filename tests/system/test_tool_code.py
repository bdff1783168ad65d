"""A result comes from the code of its version; else it has `code_changed` and is never re-used."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from bonseyes_dagster.client import Artifact
from tests.contract.tools.server import ToolServer, tool_server
from tests.waiting import until

pytestmark = pytest.mark.slow

DESCRIPTION = """
name: {name}
description: Writes what its files hold.
{runs}
output_type: com.bonseyes.text
code: [../shared]
parameters:
  text: {{type: string, default: "", description: Tells one request from another.}}
  gate: {{type: string, description: A file to make and then wait for until it is gone.}}
"""
FUNCTION = """
import time
from pathlib import Path

HERE = Path(__file__).parent


def create(artifact, *, text, gate):
    if gate:
        Path(gate).touch()
        while Path(gate).exists():
            time.sleep(0.005)
    import late
    import shared

    extra = HERE / "extra.txt"
    artifact.path("made").write_text(f"{early()} {late.VALUE} {shared.VALUE} {extra.exists()}")


def early():
    return 1
"""
PROGRAM = """
if [ -n "$2" ]; then
    touch "$2"
    while [ -e "$2" ]; do sleep 0.005; done
fi
cat value > "$1/made"
"""


def write_tool(folder: Path, *, is_program: bool = False) -> Path:
    """Write a tool and return its folder; `late.py` and `shared.py` are imported while it makes an artifact."""
    tool = folder / ("program" if is_program else "function")
    tool.mkdir(parents=True)
    (folder / "shared").mkdir(exist_ok=True)
    (folder / "shared" / "shared.py").write_text("VALUE = 1\n")
    runs = 'command: [sh, program.sh, "{output}", "{gate}"]' if is_program else "entry_point: tool:create"
    (tool / "tool.yml").write_text(DESCRIPTION.format(name=tool.name, runs=runs))
    files = {"program.sh": PROGRAM, "value": "1"} if is_program else {"tool.py": FUNCTION, "late.py": "VALUE = 1\n"}
    for name, content in files.items():
        (tool / name).write_text(content)
    return tool


def make(server: ToolServer, text: str = "", **parameters: Any) -> Artifact:
    """Return a completed artifact; an equal one is re-used."""
    name = f"a{time.monotonic_ns():x}"
    artifact = server.container.create(name, {"text": text, **parameters}, reuse=True)
    assert artifact.wait(timeout_s=60).phase == "completed"
    return artifact


def content(artifact: Artifact) -> str:
    """Return the output of the tool."""
    return artifact.read("made").decode().strip()


def log_of(artifact: Artifact) -> str:
    """Return the artifact's log."""
    return b"".join(artifact.iter_log()).decode()


def restart(server: ToolServer) -> None:
    """Stop the server and start it again."""
    server.stop()
    server.start()


@pytest.mark.parametrize("is_program", [True, False])
def test_result_of_changed_code_is_not_re_used_after_a_restore(tmp_path: Path, *, is_program: bool) -> None:
    """A file changes, an artifact is made, the file is restored, and the container restarts."""
    tool = write_tool(tmp_path, is_program=is_program)
    file = tool / ("value" if is_program else "late.py")
    original = file.read_text()
    with tool_server(tool, tmp_path / "volume") as server:
        file.write_text(original.replace("1", "2"))
        poisoned = make(server)
        assert "2" in content(poisoned)
        file.write_text(original)
        restart(server)
        true = make(server)
        assert true.status().reused_from is None
        assert "2" not in content(true)
        assert (poisoned.status().code_changed, true.status().code_changed) == (True, False)
        assert poisoned.info()["provenance"]["code_changed"] is True
        assert file.name in log_of(poisoned)
        assert "restart the container" in log_of(poisoned)
        assert make(server).status().reused_from == true.name


def test_edit_and_restore_during_an_artifact_is_found(tmp_path: Path) -> None:
    """The tool may have read the changed file in between."""
    tool = write_tool(tmp_path)
    file, gate = tool / "late.py", tmp_path / "gate"
    with tool_server(tool, tmp_path / "volume") as server:
        for change in (lambda: file.write_text("VALUE = 2\n"), lambda: (tool / "extra.txt").touch()):
            artifact = server.container.create(f"g{time.monotonic_ns():x}", {"gate": str(gate)})
            until(gate.exists)
            change()
            file.write_text("VALUE = 1\n") if file.read_text() != "VALUE = 1\n" else (tool / "extra.txt").unlink()
            gate.unlink()
            assert artifact.wait(timeout_s=30).code_changed
            assert "while this artifact was made" in log_of(artifact)
            assert not make(server, text=artifact.name).status().code_changed


def test_description_says_that_the_code_changed(tmp_path: Path) -> None:
    """`GET /` has `code_changed` until a restart, which makes a new version of the changed code."""
    tool = write_tool(tmp_path)
    with tool_server(tool, tmp_path / "volume") as server:

        def description() -> dict[str, Any]:
            return dict(requests.get(f"{server.url}/", timeout=10).json())

        first = description()
        assert first["code_changed"] is False
        (tool.parent / "shared" / "shared.py").write_text("VALUE = 2\n")
        assert description()["code_changed"] is True
        assert description()["version"] == first["version"]
        assert server.container.describe().code_changed
        restart(server)
        assert description()["code_changed"] is False
        assert description()["version"] != first["version"]
        assert content(make(server)) == "1 1 2 False"


def test_compiled_modules_are_no_change(tmp_path: Path) -> None:
    """Python writes `__pycache__` at the first import of a module, which may be during an artifact."""
    tool = write_tool(tmp_path)
    with tool_server(tool, tmp_path / "volume", PYTHONDONTWRITEBYTECODE="") as server:
        first = make(server, text="a")
        assert (tmp_path / "shared" / "__pycache__").is_dir()
        assert not first.status().code_changed
        assert make(server, text="a").status().reused_from == first.name


def test_queued_artifact_gets_the_version_that_makes_it(tmp_path: Path) -> None:
    """It may have waited through a restart with other code."""
    tool = write_tool(tmp_path)
    gate = tmp_path / "gate"
    with tool_server(tool, tmp_path / "volume") as server:
        server.container.create("first", {"gate": str(gate)})
        until(gate.exists)
        server.container.create("second", {"text": "waits"}, reuse=True)
        before = server.container.describe().version
        server.kill()
        (tool / "late.py").write_text("VALUE = 2\n")
        server.start()
        second = server.container.artifact("second")
        assert second.wait(timeout_s=30).phase == "completed"
        assert content(second) == "1 2 1 False"
        assert second.info()["provenance"]["version"] == server.container.describe().version != before
        server.stop()
        (tool / "late.py").write_text("VALUE = 1\n")
        server.start()
        assert content(make(server, text="waits")) == "1 1 1 False"


def test_restarted_worker_with_changed_code_marks_its_artifacts(tmp_path: Path) -> None:
    """The worker loads the current code, but the version is that of the start of the servers."""
    tool = write_tool(tmp_path)
    original = (tool / "tool.py").read_text()
    with tool_server(tool, tmp_path / "volume") as server:
        (tool / "tool.py").write_text(original.replace("return 1", "return 2"))
        os.kill(server.mule, signal.SIGKILL)
        for text in ("changed", "restored"):
            artifact = make(server, text=text)
            assert content(artifact).startswith("2")
            assert artifact.status().code_changed
            (tool / "tool.py").write_text(original)
        assert server.container.describe().code_changed
        restart(server)
        assert content(make(server)).startswith("1")


def test_bytecode_of_changed_code_is_not_run_after_a_restore(tmp_path: Path) -> None:
    """Python compares only the size of a file and its time in seconds with those in the bytecode."""
    tool = write_tool(tmp_path)
    file = tool / "late.py"
    with tool_server(tool, tmp_path / "volume", PYTHONDONTWRITEBYTECODE="") as server:
        make(server)  # the code is loaded
        for round_number in range(3):
            file.write_text("VALUE = 2\n")
            stat = file.stat()
            assert content(make(server, text=f"changed {round_number}")) == "1 2 1 False"
            file.write_text("VALUE = 1\n")
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            true = make(server, text=f"restored {round_number}")
            assert (content(true), true.status().code_changed) == ("1 1 1 False", False)


def test_equal_requests_in_the_queue_are_computed_once(tmp_path: Path) -> None:
    """Of forty equal requests in the queue one is computed. The others name their source."""
    tool = write_tool(tmp_path)
    gate = tmp_path / "gate"
    with tool_server(tool, tmp_path / "volume") as server:
        server.container.create("holder", {"gate": str(gate)})
        until(gate.exists)
        equal = [server.container.create(f"equal{n}", {"text": "equal"}, reuse=True) for n in range(40)]
        anew = server.container.create("anew", {"text": "equal"})
        gate.unlink()
        statuses = [artifact.wait(timeout_s=60) for artifact in equal]
        assert {status.phase for status in statuses} == {"completed"}
        assert [status.reused_from for status in statuses].count(None) == 1
        assert statuses[0].reused_from is None
        assert {status.reused_from for status in statuses[1:]} <= {artifact.name for artifact in equal}
        assert {status.digest for status in statuses} == {statuses[0].digest}
        assert anew.wait(timeout_s=30).reused_from is None
        for before, after in itertools.pairwise(statuses):
            assert str(before.finished) <= str(after.started)


def test_queued_artifact_is_computed_if_the_equal_one_before_it_cannot_be_re_used(tmp_path: Path) -> None:
    """The first artifact is cancelled or deleted, or its code has changed. Cancelled ones stay cancelled."""
    tool = write_tool(tmp_path)
    gate = tmp_path / "gate"
    with tool_server(tool, tmp_path / "volume") as server:

        def wait_behind(*texts: str) -> list[Artifact]:
            """Queue requests behind one that runs until the gate is gone."""
            server.container.create(f"h{time.monotonic_ns():x}", {"gate": str(gate)})
            until(gate.exists)
            return [server.container.create(f"{t}{n}", {"text": t}, reuse=True) for n, t in enumerate(texts)]

        first, second, third, fourth = wait_behind("cancel", "cancel", "cancel", "cancel")
        first.cancel()
        fourth.cancel()
        gate.unlink()
        assert [artifact.wait(timeout_s=30).phase for artifact in (first, second, third, fourth)] == [
            "cancelled",
            "completed",
            "completed",
            "cancelled",
        ]
        assert (second.status().reused_from, third.status().reused_from) == (None, second.name)

        first, second = wait_behind("delete", "delete")
        first.delete()
        gate.unlink()
        assert second.wait(timeout_s=30).reused_from is None

        first, second, third = wait_behind("change", "change", "change")
        (tool / "late.py").write_text("VALUE = 2\n")
        gate.unlink()
        statuses = [artifact.wait(timeout_s=30) for artifact in (first, second, third)]
        assert [(status.reused_from, status.code_changed) for status in statuses] == [(None, True)] * 3
        (tool / "late.py").write_text("VALUE = 1\n")
        assert not make(server, text="change").status().code_changed


def test_result_of_a_module_from_elsewhere_is_not_re_used(tmp_path: Path) -> None:
    """The version does not cover the module, so nothing would find a change between two starts."""
    tool = write_tool(tmp_path)
    (tool / "tool.yml").write_text((tool / "tool.yml").read_text().replace("code: [../shared]", ""))
    with tool_server(tool, tmp_path / "volume", PYTHONPATH=str(tmp_path / "shared"), TMPDIR="/var/tmp") as server:
        first = make(server)
        assert "shared/shared.py" in log_of(first)
        assert first.info()["provenance"]["fingerprint"] is None
        assert make(server).status().reused_from is None
