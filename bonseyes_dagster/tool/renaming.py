"""Another name for an artifact that is final: its row first, then what lies beside its data. store.py calls it."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from bonseyes_dagster.model import now
from bonseyes_dagster.tool.disk import storage_errors
from bonseyes_dagster.tool.index import Index, Record
from bonseyes_dagster.tool.layout import Folder, Volume

__all__ = ["rename"]


def rename(index: Index, volume: Volume, name: str, new_name: str) -> Record:
    """Rename an artifact and return its new row.

    Its folder bears its id, so that the row decides, in one transaction; a crash leaves the old name or the new one.
    What describes the artifact beside its data is brought up to date by `update_folder`, once the row is durable.
    Raises NotFoundError, NotFinalError, ConflictError.
    """
    record = index.rename(name, new_name)
    with storage_errors():
        update_folder(volume.folder(record.id), record, f"{now()} Renamed from {name} to {new_name}.\n")
    return record


def update_folder(folder: Folder, record: Record, line: str) -> None:
    """Bring what lies beside the data up to date with a row that has changed, and say so in the artifact's log.

    Called after the row is durable; after a crash in between, the row is right and the folder is not. A copy of the
    row that is kept in the folder is to be written here.
    """
    with suppress(FileNotFoundError):  # it never began, or is being deleted
        _append(folder, line)


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
