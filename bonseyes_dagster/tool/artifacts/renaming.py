"""Rename a final artifact: its row and the copy beside its data. store.py calls this."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.model import now
from bonseyes_dagster.system.storage import storage_errors
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index
from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.tool.artifacts.logs import append_line
from bonseyes_dagster.tool.artifacts.row_copies import rewrite_row_copy

__all__ = ["rename"]

_log = logging.getLogger(__name__)


def rename(index: Index, volume: Volume, name: str, new_name: str) -> ArtifactRow:
    """Rename an artifact and return its new row.

    The folder is named by the id, so only the row changes, in one transaction. The copy of the row is written first:
    after a crash between the two writes, the audit gives the row the new name, too. Raises NotFoundError,
    NotFinalError, ConflictError.
    """
    written: list[str] = []

    def write_copies(rows: Sequence[ArtifactRow]) -> None:
        for row in rows:
            if (folder := volume.folder(row.id)).path.is_dir():
                written.append(row.id)
                rewrite_row_copy(folder, row)

    try:
        with storage_errors():
            row = index.rename(name, new_name, write_copies)
    except Exception:
        _restore_copies(index, volume, written)
        raise
    try:
        append_line(volume.folder(row.id).log, f"{now()} Renamed from {name} to {new_name}.")
    except FileNotFoundError:
        pass  # the artifact never ran, or is being deleted
    except OSError as error:
        _log.warning("The new name cannot be written to the log of the artifact %s: %s", new_name, error)
    return row


def _restore_copies(index: Index, volume: Volume, written: Sequence[str]) -> None:
    """Write the copies anew from the rows: a copy that differs would rename the artifact later."""
    for artifact_id in written:
        folder = volume.folder(artifact_id)
        try:
            if (row := index.by_id(artifact_id)) is not None:
                rewrite_row_copy(folder, row)
        except (BonseyesError, OSError):
            with suppress(OSError):
                # The audit writes a missing copy anew.
                folder.row_copy.unlink(missing_ok=True)
