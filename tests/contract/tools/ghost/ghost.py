"""A tool whose processes outlive it: each act is another way to keep writing to an output."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SIZE = 100_000
# The container's own fork server reads orders from one end; artifacts write them to the other.
_ORDERS, _SERVER = socket.socketpair()


def create(
    artifact: Any, *, act: str, note: str, end: str, upload: Path | None, source: Path | None, made: Any | None
) -> None:
    """Start the process of the act, wait until it runs, and return."""
    path = artifact.path("output")
    path.write_bytes(b"0" * SIZE)
    acts: dict[str, Callable[[], None]] = {
        "daemon": lambda: daemon(write_on, path, note),
        "mapped": lambda: daemon(write_mapped, path, note),
        "bare": lambda: daemon(write_bare, path, note),
        "fork-server": lambda: borrow(path, note),
        "hand-over": lambda: hand_over(path, note),
        "change-input": lambda: change(upload or source or made.path("output"), note),
    }
    acts[act]()
    while not Path(note).exists() or not Path(note).read_text().endswith("\n"):
        time.sleep(0.01)
    print("no newline at the end", end="", flush=True)
    ends: dict[str, Callable[[], None]] = {
        "return": lambda: None,
        "raise": lambda: fail(),
        "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "exit": lambda: sys.exit(0),
        "wait": lambda: time.sleep(300),
    }
    ends[end]()


def fail() -> None:
    """Fail."""
    raise ValueError("failed on purpose")


def daemon(work: Callable[[Path, str], None], path: Path, note: str) -> None:
    """Start a grandchild in its own session, whose parent has ended."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            work(path, note)
        os._exit(0)
    os.waitpid(child, 0)


def write_on(path: Path, note: str) -> None:
    """Change the output continuously."""
    with path.open("r+b", buffering=0) as file:
        tell(note)
        for content in contents():
            file.seek(0)
            file.write(content)


def write_mapped(path: Path, note: str) -> None:
    """Change the output through mapped memory, without an open descriptor."""
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), SIZE)
    tell(note)
    for content in contents():
        memory[:] = content


def write_bare(path: Path, note: str) -> None:
    """Change the output from a program without the artifact's environment, log and working folder."""
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    loop = f"echo $$ >>{note}; while :; do echo changed >&9; done"
    output = os.open(path, os.O_RDWR)
    os.dup2(output, 9, inheritable=True)
    os.execve("/bin/sh", ["sh", "-c", loop], {})


def borrow(path: Path, note: str) -> None:
    """Let the container's own fork server fork this process."""
    _ORDERS.sendall(f"{path}\n{note}".encode())


def serve_forks() -> None:
    """Fork for each artifact that requests a process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while order := _SERVER.recv(4096).decode():
        if os.fork() == 0:
            path, note = order.split("\n")
            write_on(Path(path), note)
            os._exit(0)
    os._exit(0)


def hand_over(path: Path, note: str) -> None:
    """Pass the open output to a foreign process, which listens beside the note."""
    with path.open("r+b") as file, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"{note}.socket")
        socket.send_fds(connection, [b"x"], [file.fileno()])
        connection.recv(1)
    tell(note)


def change(path: Path, note: str) -> None:
    """Write to an input."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"changed")
    tell(note)


def tell(note: str) -> None:
    """Tell the test about this process."""
    with Path(note).open("a") as file:
        file.write(f"{os.getpid()}\n")


def contents() -> Iterator[bytes]:
    """Yield the content of the next write, for a minute."""
    deadline_s = time.monotonic() + 60
    number = 0
    with contextlib.suppress(KeyboardInterrupt):
        while time.monotonic() < deadline_s:
            number += 1
            yield str(number % 10).encode() * SIZE


if os.fork() == 0:
    _ORDERS.close()
    serve_forks()
