"""Writes down each execution of a tool where nobody who is killed can take it back."""

import os
import time
from pathlib import Path

LEDGER = Path(__file__).parents[1] / "ledger"


def work(name, seconds):
    """Take some time, and write down its begin and its end."""
    _write("begun", name)
    time.sleep(seconds)
    _write("done", name)


def _write(event, name):
    descriptor = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{time.time()} {event} {name} {os.getpid()}\n".encode())
    os.close(descriptor)
