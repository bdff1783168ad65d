"""Lose, restore or damage the files of a container's index while no process uses them."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["IndexFiles"]

_SUFFIXES = ("", "-wal", "-shm")


class IndexFiles:
    """The SQLite file of the index, and its log if there is one."""

    def __init__(self, volume: Path) -> None:
        self._volume = volume
        self.main = volume / "index.sqlite"
        self._all = [volume / f"index.sqlite{suffix}" for suffix in _SUFFIXES]

    def save(self, folder: Path) -> None:
        """Copy the current index to `folder`."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in self._all:
            if path.exists():
                shutil.copy2(path, folder)

    def put_back(self, folder: Path) -> None:
        """Restore the index that was saved in `folder`."""
        self.lose()
        for path in folder.iterdir():
            shutil.copy2(path, self._volume)

    def merge(self) -> None:
        """Move the content of the log into the index itself."""
        with closing(sqlite3.connect(self.main)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def lose(self) -> None:
        """Remove the index and its log."""
        for path in self._all:
            path.unlink(missing_ok=True)

    def lose_main(self) -> None:
        """Remove the index, but not its log."""
        self.main.unlink()

    def empty(self) -> None:
        """Replace the index by an empty file."""
        self.lose()
        self.main.touch()

    @property
    def page_bytes(self) -> int:
        """Return the size of a page from the head of the file."""
        size = int.from_bytes(self.main.read_bytes()[16:18], "big")
        return 65536 if size == 1 else size

    @property
    def pages(self) -> int:
        """Return the number of pages."""
        return self.main.stat().st_size // self.page_bytes

    def zero(self, page: int) -> None:
        """Overwrite a page with zeros; the first page is 0."""
        self._write(page * self.page_bytes, bytes(self.page_bytes))

    def truncate(self, page: int) -> None:
        """End the file in the middle of a page."""
        with self.main.open("r+b") as file:
            file.truncate(page * self.page_bytes + self.page_bytes // 2)

    def flip(self, page: int, random_: random.Random) -> None:
        """Change eight bytes of a page."""
        for _ in range(8):
            offset = page * self.page_bytes + random_.randrange(self.page_bytes)
            byte = self.main.read_bytes()[offset]
            self._write(offset, bytes([byte ^ random_.randrange(1, 256)]))

    def _write(self, offset: int, data: bytes) -> None:
        with self.main.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def is_sound(self, folder: Path) -> bool:
        """Tell whether SQLite finds no fault in a copy of the index in `folder`."""
        self.save(folder)
        try:
            with closing(sqlite3.connect(folder / self.main.name)) as connection:
                return connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        except sqlite3.Error:
            return False

    def kept(self) -> list[str]:
        """Return the files of earlier indexes that the container has set aside."""
        ours = {path.name for path in self._all}
        return [path.name for path in self._volume.glob("*index*") if path.name not in ours]
