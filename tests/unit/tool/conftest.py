"""Folders that neither Python nor pytest can remove; the fixture removes them at the end of the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Return a function that makes `depth` folders below a folder, one in the other, as a tool can.

    1,200 is more than Python recurses and more than a process has descriptors. Their path is too long for the system.
    """
    yield _nest
    subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)


def _nest(folder: Path, depth: int = 1200, name: str = "folder") -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        there = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
