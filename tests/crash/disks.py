"""Small disks for tests: one that fills up, and one whose power can be cut; both need root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["Disk", "mounted_image", "tmpfs"]

SIZE_BYTES = 64_000_000
_MOST_COPIES = 50


def _run(*command: str | Path) -> None:
    """Run a command that needs root; skip the test if it is not allowed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{command[0]} is not allowed here: {done.stderr.strip()[:200]}")


@contextmanager
def tmpfs(folder: Path) -> Iterator[Path]:
    """Mount a memory file system of 64 MB at `folder`."""
    _need_root()
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk of its own")


class Disk:
    """An ext4 file system in a file. It writes by itself only after minutes, so unsynced data is not in the file."""

    def __init__(self, image: Path) -> None:
        self.image = image

    def format(self) -> Disk:
        """Make an empty file system, without a reserve for root."""
        _need_root()
        with self.image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        return self

    def after_power_cut(self, image: Path) -> Disk:
        """Return the disk as it would be after a power cut at this moment: the file, without the content of memory.

        The copy is a new file, because a process that copied all mounts may still use an earlier image. A new mount of
        that image would show its old content. Another program's `sync` may write to the disk during the copy. Then the
        copy mixes two moments, and is made again.
        """
        for _ in range(_MOST_COPIES):
            image.unlink(missing_ok=True)
            _run("cp", "--sparse=always", self.image, image)
            if not subprocess.run(["cmp", "--silent", self.image, image], check=False).returncode:
                return Disk(image)
        raise AssertionError("the disk does not come to rest, though nobody works on it")

    @contextmanager
    def mounted(self, folder: Path) -> Iterator[Path]:
        """Mount the disk at `folder`."""
        folder.mkdir(exist_ok=True)
        _run("mount", "-o", "loop,commit=300", self.image, folder)
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=False)
            if folder.is_mount():
                subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def mounted_image(folder: Path) -> Iterator[Path]:
    """Mount an ext4 of 64 MB at `folder`."""
    with Disk(folder.with_suffix(".ext4")).format().mounted(folder) as mounted:
        yield mounted
