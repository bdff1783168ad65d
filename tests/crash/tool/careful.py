"""A tool with a known output, which notices if another one runs at the same time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any


def content(text: str, size: int) -> bytes:
    """Return `size` bytes that follow from `text`."""
    seed = hashlib.sha256(text.encode()).digest()
    return (seed * (size // len(seed) + 1))[:size]


def expected(text: str, files: int = 2, size: int = 1000, upload: bytes | None = None) -> dict[str, bytes]:
    """Return all files of a completed artifact."""
    made = {f"part{number}/file": content(f"{text}/{number}", size) for number in range(files)}
    return made if upload is None else {**made, "upload": upload}


def create(
    artifact: Any, *, text: str, ledger: str, files: int, size: int, seconds: float, family: bool, upload: Path | None
) -> None:
    """Note the start, make the files, and wait for `seconds`."""
    lock = os.open(f"{ledger}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _note(ledger, "overlap", text)
    _note(ledger, "begin", text)
    if family:
        _found_family(ledger, lock)
    for path, data in expected(text, files, size).items():
        artifact.path(path).write_bytes(data)
    if upload is not None:
        shutil.copyfile(upload, artifact.path("upload"))
    time.sleep(seconds)


def _note(ledger: str, what: str, text: str) -> None:
    """Append one line in one write, so that no kill tears it."""
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{what} {text}\n".encode())
    os.close(descriptor)


def _found_family(ledger: str, lock: int) -> None:
    """Start a program and a double fork in other sessions; both keep the lock, which shows if they outlive the tool."""
    program = subprocess.Popen(["sleep", "300"], start_new_session=True, pass_fds=[lock])
    _note(ledger, "pid", str(program.pid))
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _note(ledger, "pid", str(os.getpid()))
            time.sleep(300)
        os._exit(0)
