"""Run processes that are no children of who holds them, as after the run server has been killed."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from bonseyes_dagster.orchestration.run_process import RunProcess
from tests.waiting import until

# A server that ends, and the run's process that it leaves, with something that an op has started.
SERVER = """
import os, subprocess, time
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), subprocess.Popen(["sleep", "300"]).pid, flush=True)
    time.sleep(300)
"""


def test_what_an_adopted_process_has_started_ends_with_it() -> None:
    """Else it would work on beside what takes the run up again."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        run, started = map(int, server.stdout.readline().split())
        assert server.wait() == 0
        process = RunProcess("run", run)
        os.kill(run, 9)
        until(lambda: not process.is_running())
        assert process.reap() == "ended"
        try:
            until(lambda: not _works(started), 30)
        finally:
            with suppress(ProcessLookupError):
                os.kill(started, 9)


def _works(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
