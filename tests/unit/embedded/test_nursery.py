"""What the nursery forks is a child of the supervisor, started as its command line says; without it, so is the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# Being the reaper of orphans is for life, so the supervisor's part is a process of its own.
SUPERVISOR = """
import asyncio, json, os, sys
from pathlib import Path
from bonseyes_dagster.embedded.child import Child
from bonseyes_dagster.system.prctl import adopt_orphans
from bonseyes_dagster.embedded.logs import RotatingLog
from bonseyes_dagster.embedded.nursery import Nursery

async def main(folder):
    adopt_orphans()
    nursery = Nursery(folder, os.environ)
    if sys.argv[2] == "killed":
        nursery.close()
        nursery.close = lambda: None
    said = []
    for arguments in (["0", "one"], ["3"], ["word"]):
        ended = asyncio.get_running_loop().create_future()
        child = await Child.start(
            [sys.executable, "-m", "service", *arguments],
            cwd=folder, environ={**os.environ, "SERVICE": "here"},
            log=RotatingLog(folder / "log"), on_exit=ended.set_result, nursery=nursery)
        said.append({"pid": child.pid, "status": await ended})
    nursery.close()
    print(json.dumps(said))

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
    """Return what the supervisor and its services said."""
    (folder / "service.py").write_text(SERVICE)
    command = [sys.executable, "-c", SUPERVISOR, str(folder), how]
    # No service finds modules in its working folder.
    environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1"}
    out = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=100, check=True
    ).stdout
    return json.loads(out), (folder / "log").read_text().splitlines()


def test_a_service_is_forked_as_its_command_line_says(tmp_path: Path) -> None:
    """With its arguments, environment, folder, session, output, exit status and name, and Dagster there already."""
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


def test_without_the_nursery_services_start_as_any_others(tmp_path: Path) -> None:
    """It was killed, say: nothing is different but the time."""
    children, lines = started(tmp_path, "killed")
    assert [child["status"] for child in children] == [0, 3, 1]
    assert not json.loads(lines[0])["is_ready"]
    assert lines[-1] == "a reason"
