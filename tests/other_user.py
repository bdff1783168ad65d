"""Run an action as another user of the machine, in a process with another uid."""

from __future__ import annotations

import json
import os
import socket
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

__all__ = ["NOBODY", "as_other_user", "connectable", "needs_root", "readable"]

NOBODY = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


def as_other_user(action: Callable[[], Any], uid: int = NOBODY) -> Any:
    """Return the result of `action`, through JSON, from a process of the other user."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _act(action, uid, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(pid, 0)
    assert "error" not in answer, answer["error"]
    return answer["answer"]


def _act(action: Callable[[], Any], uid: int, writer: int) -> None:
    try:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        answer = {"answer": action()}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    os.write(writer, json.dumps(answer).encode())
    os._exit(0)


def connectable(paths: Iterable[str]) -> list[str]:
    """Return the unix sockets that accept a connection."""
    found = []
    for path in paths:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(path)
            except OSError:
                continue
            found.append(path)
    return found


def readable(folders: Iterable[Path]) -> list[str]:
    """Return the folders that can be listed, and the files below them that can be read."""
    found = []
    for folder in folders:
        for path, _, names in os.walk(folder):
            found += [path, *(f"{path}/{name}" for name in names if os.access(f"{path}/{name}", os.R_OK))]
    return found
