"""Run processes that are not children of the server, as after a kill of the run server."""

import os
import subprocess
import sys
from contextlib import suppress

from bonseyes_dagster.execution.processes.run_process import RunProcess
from tests.contract.tools.server import is_alive
from tests.waiting import until

# A server that ends and leaves a run's process, which has started a child, like an op may.
SERVER = """
import os, subprocess, time
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), subprocess.Popen(["sleep", "300"]).pid, flush=True)
    time.sleep(300)
"""


def test_child_of_an_adopted_process_ends_with_it() -> None:
    """Otherwise it would go on beside the run's next process."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        run, started = map(int, server.stdout.readline().split())
        assert server.wait() == 0
        process = RunProcess("run", run)
        os.kill(run, 9)
        until(lambda: not process.is_running())
        assert process.reap() == "ended"
        try:
            until(lambda: not is_alive(started), 30)
        finally:
            with suppress(ProcessLookupError):
                os.kill(started, 9)
