"""Replaces a file whole: a reader sees the old content or the new, also after a crash, and never a part."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from bonseyes_dagster.system.storage import sync_folder

__all__ = ["replace_file", "replacing"]


@contextmanager
def replacing(path: Path, *, mode: int = 0o644, is_durable: bool = False) -> Iterator[BinaryIO]:
    """Yield a file to write; when the block ends it takes the place of `path`, and when the block raises it is removed.

    The file has `mode`, less the umask. With `is_durable` the new content survives a crash of the machine that comes
    after the block. Raises OSError.
    """
    # Two processes, or two threads, may replace one file at the same time.
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}")
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    if is_durable:
        sync_folder(path.parent)


def replace_file(path: Path, content: bytes, *, mode: int = 0o644, is_durable: bool = False) -> None:
    """Put `content` at `path`; arguments and errors are those of `replacing`."""
    with replacing(path, mode=mode, is_durable=is_durable) as file:
        file.write(content)
