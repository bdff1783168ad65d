"""Write down each execution of a tool in a file; a kill of the tool cannot undo that."""

import os
import time
from pathlib import Path

LEDGER = Path(__file__).parents[1] / "ledger"


def work(name, seconds):
    """Wait for `seconds`, and write down the begin and the end."""
    _write("begun", name)
    time.sleep(seconds)
    _write("done", name)


def _write(event, name):
    descriptor = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{time.time()} {event} {name} {os.getpid()}\n".encode())
    os.close(descriptor)
