"""A tool ends, even if it has left a pool or a thread behind."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

# Like the forked child: drop the exit functions of the server, before the tool makes pools.
BEGIN = """
import atexit, os, threading, time
from bonseyes_dagster.tool.worker.exit_functions import run_exit_functions
atexit._clear()
"""
LEFT = {
    "a pool of processes": """
from concurrent.futures import ProcessPoolExecutor
pool = ProcessPoolExecutor(2)
print(sum(pool.map(abs, range(3))))
""",
    "an older pool of processes": """
from multiprocessing import Pool
pool = Pool(2)
print(sum(pool.map(abs, range(3))))
""",
    "a thread that is about to write": """
threading.Timer(0.1, lambda: print(3, flush=True)).start()
""",
}
END = "run_exit_functions(lambda: os._exit(7), limit_s={}); print('left', flush=True); os._exit(0)"


@pytest.mark.parametrize("left", LEFT)
def test_pools_and_threads_are_closed(left: str) -> None:
    """Pools end at once, as at the end of Python. Without this the artifact would run for ever."""
    code = BEGIN + LEFT[left] + END.format(30)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\nleft\n", "")


@pytest.mark.parametrize(
    ("left", "name"),
    [
        ("threading.Thread(target=time.sleep, args=(60,), name='sleeper').start()\n", "the thread sleeper"),
        ("atexit.register(time.sleep, 60)\n", "an exit function of the tool"),
    ],
)
def test_thread_that_does_not_end_is_abandoned_after_a_limit(left: str, name: str) -> None:
    """The log names it."""
    begun_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + left + END.format(0.2)], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (7, "")
    assert name in done.stderr and "is ended now" in done.stderr
    assert time.monotonic() - begun_s < 10
