"""A forked service is a child of the supervisor, and runs as if started by its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# A process that adopts orphans cannot stop doing so, so the supervisor's part runs in its own process.
SUPERVISOR = """
import asyncio, json, os, sys
from pathlib import Path
from bonseyes_dagster.embedded.child import Child
from bonseyes_dagster.system.prctl import adopt_orphans
from bonseyes_dagster.embedded.logs import RotatingLog
from bonseyes_dagster.embedded.fork_server import ForkServer

async def main(folder):
    adopt_orphans()
    fork_server = ForkServer(folder, os.environ)
    if sys.argv[2] == "killed":
        fork_server.close()
        fork_server.close = lambda: None
    children = []
    for arguments in (["0", "one"], ["3"], ["word"]):
        ended = asyncio.get_running_loop().create_future()
        child = await Child.start(
            [sys.executable, "-m", "service", *arguments],
            cwd=folder, environ={**os.environ, "SERVICE": "here"},
            log=RotatingLog(folder / "log"), on_exit=ended.set_result, fork_server=fork_server)
        children.append({"pid": child.pid, "status": await ended})
    fork_server.close()
    print(json.dumps(children))

asyncio.run(main(Path(sys.argv[1])))
"""
SERVICE = """
import json, os, sys
from pathlib import Path
cmdline = Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0").decode().split("\\0")
about = {"pid": os.getpid(), "parent": os.getppid(), "argv": sys.argv[1:], "cwd": os.getcwd(), "ps": cmdline[1:],
         "session": os.getsid(0), "environ": os.environ["SERVICE"], "is_ready": "dagster" in sys.modules}
print(json.dumps(about))
sys.exit("a reason" if sys.argv[1] == "word" else int(sys.argv[1]))
"""


def started(folder: Path, how: str) -> tuple[list[dict[str, int]], list[Any]]:
    """Return the children that the supervisor reports, and the lines that its services print."""
    (folder / "service.py").write_text(SERVICE)
    command = [sys.executable, "-c", SUPERVISOR, str(folder), how]
    # A service imports no modules from its working folder.
    environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"}
    out = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=100, check=True
    ).stdout
    return json.loads(out), (folder / "log").read_text().splitlines()


def test_forked_service_runs_as_its_command_line_says(tmp_path: Path) -> None:
    """All but one property is the same: Dagster is imported already."""
    children, lines = started(tmp_path, "whole")
    about = json.loads(lines[0])
    assert about["argv"] == ["0", "one"]
    assert about["ps"] == ["-m", "service", "0", "one"]
    assert about["cwd"] == os.path.realpath(tmp_path)
    assert about["environ"] == "here"
    assert about["is_ready"]
    assert about["pid"] == about["session"] == children[0]["pid"]
    assert [child["status"] for child in children] == [0, 3, 1]
    assert lines[-1] == "a reason"


def test_services_start_without_the_fork_server(tmp_path: Path) -> None:
    """If the fork server was killed, only the start takes longer."""
    children, lines = started(tmp_path, "killed")
    assert [child["status"] for child in children] == [0, 3, 1]
    assert not json.loads(lines[0])["is_ready"]
    assert lines[-1] == "a reason"
