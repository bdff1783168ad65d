"""The lock of the worker ends with the worker, even if it has forked processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bonseyes_dagster.errors import UnavailableError
from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.tool.worker.state import check_worker

HOLDER = """
import multiprocessing, os, sys, time
from pathlib import Path
from bonseyes_dagster.tool.worker.state import worker_lock

def help():
    print(os.getpid(), flush=True)
    time.sleep(60)

with worker_lock(Path(sys.argv[1]), lambda: False):
    multiprocessing.get_context("fork").Process(target=help).start()
    time.sleep(60)
"""
LATER = """
import os, sys
from pathlib import Path
from bonseyes_dagster.tool.worker.state import worker_lock

with worker_lock(Path(sys.argv[1]), lambda: False) as lock:
    pass
assert os.open(sys.argv[1], os.O_RDONLY) == lock
pid = os.fork()
if pid == 0:
    os.fstat(lock)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_lock_ends_with_the_worker(tmp_path: Path) -> None:
    """A forked process does not release the lock at its end, nor hold it after the worker is killed."""
    volume = Volume(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HOLDER, volume.worker_lock], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        helper = int(holder.stdout.readline())
        try:
            check_worker(volume)
            holder.kill()
            holder.wait()
            with pytest.raises(UnavailableError, match="not running"):
                check_worker(volume)
        finally:
            holder.kill()
            os.kill(helper, signal.SIGKILL)


def test_child_does_not_close_a_file_with_the_former_number_of_the_lock(tmp_path: Path) -> None:
    """Once the lock is released, another file may get its descriptor."""
    subprocess.run([sys.executable, "-c", LATER, tmp_path / "lock"], timeout=30, check=True)
