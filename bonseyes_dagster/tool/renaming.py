"""Another name for an artifact that is final: its row first, then what lies beside its data. store.py calls it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress

from bonseyes_dagster.model import now
from bonseyes_dagster.tool.disk import storage_errors
from bonseyes_dagster.tool.index import Index, Record
from bonseyes_dagster.tool.layout import Folder, Volume
from bonseyes_dagster.tool.rows import rewrite_row

__all__ = ["rename"]


def rename(index: Index, volume: Volume, name: str, new_name: str) -> Record:
    """Rename an artifact and return its new row.

    Its folder bears its id, so that the row decides, in one transaction. The copy of the row beside the data is written
    first: after a crash in between, the audit gives the row the new name, too. Raises NotFoundError, NotFinalError,
    ConflictError.
    """

    def write_copies(records: Sequence[Record]) -> None:
        for record in records:
            if (folder := volume.folder(record.id)).path.is_dir():
                rewrite_row(folder, record)

    with storage_errors():
        record = index.rename(name, new_name, write_copies)
        with suppress(FileNotFoundError):  # it never began, or is being deleted
            _append(volume.folder(record.id), f"{now()} Renamed from {name} to {new_name}.\n")
    return record


def _append(folder: Folder, line: str) -> None:
    """Add a line to a log that may be a hard link, shared with artifacts that were made from this one."""
    draft = folder.path / f"{folder.log.name}.new"
    with draft.open("wb") as writer:
        if folder.log.exists():
            with folder.log.open("rb") as reader:
                shutil.copyfileobj(reader, writer, 1 << 20)
        writer.write(line.encode())
        writer.flush()
        os.fsync(writer.fileno())
    draft.replace(folder.log)
