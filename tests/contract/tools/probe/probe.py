"""A tool that misbehaves: each function does something wrong."""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bonseyes_dagster.errors import ToolError


def create(
    artifact: Any,
    *,
    act: str,
    seconds: float,
    note: str | None,
    text: str,
    some_file: Path | None,
    some_url: Path | None,
) -> None:
    """Run the function that `act` names."""
    acts: dict[str, Callable[[], None]] = {
        "write": lambda: None,
        "sleep": lambda: time.sleep(seconds),
        "raise": lambda: fail(text),
        "tool-error": lambda: refuse(text),
        "exit": lambda: sys.exit(3),
        "exit-zero": lambda: sys.exit(0),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "crash": crash,
        "full": full,
        "ignore-term": lambda: ignore_term(seconds),
        "families": lambda: families(seconds),
        "leave-behind": lambda: leave_behind(str(note)),
        "link-out": lambda: artifact.path("out").symlink_to("/etc/passwd"),
        "link-up": lambda: artifact.path("a/out").symlink_to("../../../secret"),
        "link-in": lambda: artifact.path("a/link").symlink_to("../real"),
        "link-nowhere": lambda: artifact.path("gone").symlink_to("nothing"),
        "link-folder": lambda: artifact.path("loop").symlink_to("."),
        "hard-link": lambda: hard_link(artifact, str(note)),
        "pipe": lambda: os.mkfifo(artifact.path("pipe")),
        "socket": lambda: bind(artifact.path("socket")),
        "bad-name": lambda: Path(os.fsdecode(bytes(artifact.folder) + b"/\xff")).write_text(""),
        "no-folder": lambda: replace_folder(artifact.folder),
        "no-permission": lambda: lock_away(artifact),
        "escape": lambda: artifact.path("../escaped"),
        "prints": prints,
        "metrics": lambda: measure(artifact, seconds),
        "temporary": lambda: keep_temporary(str(note)),
        "many": lambda: many(artifact),
        "large": lambda: large(artifact, int(seconds)),
    }
    if note:
        append(note, os.getpid())
        artifact.note = note
    print(f"{act} begins", flush=True)
    families.note = leave_behind.note = note  # type: ignore[attr-defined]
    if act != "no-folder":
        artifact.path("real").write_text(text)
    if some_file is not None:
        shutil.copyfile(some_file, artifact.path("file.bin"))
    if some_url is not None:
        shutil.copyfile(some_url, artifact.path("url.bin"))
    acts[act]()
    print(f"{act} ends", flush=True)


def append(note: str, pid: int) -> None:
    """Write the id of a process for the test."""
    with Path(note).open("a") as file:
        file.write(f"{pid}\n")


def fail(text: str) -> None:
    """Raise an unexpected exception."""
    raise ValueError(text)


def refuse(text: str) -> None:
    """Raise a ToolError."""
    raise ToolError(text)


def crash() -> None:
    """Read from an invalid address."""
    ctypes.string_at(0)


def full() -> None:
    """Write to a full disk."""
    with Path("/dev/full").open("w") as file:
        file.write("x" * 100)


def ignore_term(seconds: float) -> None:
    """Ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("stubborn", flush=True)
    time.sleep(seconds)


def families(seconds: float) -> None:
    """Start descendants that try to escape: a program in another session, and a fork of a fork in another."""
    note = str(families.note)  # type: ignore[attr-defined]
    program = subprocess.Popen(["sleep", "300"], start_new_session=True, env={}, cwd="/", stdout=subprocess.DEVNULL)
    append(note, program.pid)
    inside = subprocess.Popen(["sleep", "300"])
    append(note, inside.pid)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            append(note, os.getpid())
            time.sleep(300)
        os._exit(0)
    time.sleep(0.3)
    print("family complete", flush=True)
    time.sleep(seconds)


def leave_behind(note: str) -> None:
    """Return while a background process runs."""
    append(note, subprocess.Popen(["sleep", "300"]).pid)
    append(note, subprocess.Popen(["sleep", "300"], start_new_session=True).pid)


def hard_link(artifact: Any, victim: str) -> None:
    """Make a hard link to another file an output."""
    os.link(f"{victim}.victim", artifact.path("linked"))


def bind(path: Path) -> None:
    """Leave a socket as an output."""
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def replace_folder(folder: Path) -> None:
    """Replace the output folder by a link."""
    folder.rmdir()
    folder.symlink_to("/etc")


def lock_away(artifact: Any) -> None:
    """Leave a folder and a file without permissions for their owner."""
    path = artifact.path("locked/file")
    path.write_text("x")
    path.chmod(0)
    path.parent.chmod(0o500)


def prints() -> None:
    """Print in every way."""
    print("from print")
    logging.getLogger("probe").info("from logging")
    sys.stderr.write("from stderr\n")
    subprocess.run(["sh", "-c", "echo from program"], check=True)
    libc = ctypes.CDLL(None)
    libc.printf(b"from C\n")


def measure(artifact: Any, seconds: float) -> None:
    """Report metrics and progress."""
    for step in artifact.progress(range(5), unit="steps", message="measuring"):
        artifact.scalar("loss", step, 1 / (step + 1))
        time.sleep(seconds)


def keep_temporary(note: str) -> None:
    """Leave temporary files behind."""
    _, path = tempfile.mkstemp()
    Path(f"{note}.temporary").write_text(path)


def large(artifact: Any, megabytes: int) -> None:
    """Write a large file."""
    with artifact.path("large").open("wb") as file:
        for _ in range(megabytes):
            file.write(b"x" * 1_000_000)


def many(artifact: Any) -> None:
    """Write many small files."""
    for number in range(500):
        artifact.path(f"folder-{number % 10}/file-{number}").write_text(str(number))
