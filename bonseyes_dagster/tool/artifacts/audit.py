"""Compare each row of the index with its copy beside the data, and repair the one that is wrong.

A server process runs the audit in the background: 20 seconds after its start, then once a day. The check of the index
at a start is too short to find such differences.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace

from bonseyes_dagster.errors import BonseyesError, UnavailableError
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index, TakenError
from bonseyes_dagster.tool.artifacts.layout import Folder, Volume
from bonseyes_dagster.tool.artifacts.publishing import DamagedError, read_manifest, size_damage
from bonseyes_dagster.tool.artifacts.row_copies import read_sound_row_copy, write_row_copy

__all__ = ["audit", "keep_auditing"]

_log = logging.getLogger(__name__)
_FIRST_S = 20.0
_EVERY_S = 24 * 3600.0
_PAGE = 100
# The pause after each artifact leaves the disk to requests.
_PAUSE_S = 0.002
# In these columns a copy may differ: it is written before the row has its number, and before damage is found.
_NOT_COMPARED = {"seq": 0, "damage": None, "is_cancelling": False}


def keep_auditing(volume: Volume) -> None:
    """Run the audit once a day, for ever; a thread in the background calls this."""
    pause_s = _FIRST_S
    while True:
        time.sleep(pause_s)
        try:
            audit(Index(volume.index), volume)
        except (BonseyesError, OSError) as error:
            _log.warning("The audit of the artifacts failed: %s", error)
        pause_s = _EVERY_S


def audit(index: Index, volume: Volume, *, pause_s: float = _PAUSE_S) -> None:
    """Check each final artifact once, and pause `pause_s` after each."""
    differed = index.repair_search_trees()
    if differed is not None:
        _log.error("The search trees of the index differed from its rows (%s); they are built anew.", differed)
    seq = 0
    while page := index.final_after(seq, _PAGE):
        for _, artifact_id in page:
            with suppress(FileNotFoundError):  # it is being deleted
                _audit_artifact(volume.folder(artifact_id), artifact_id, index)
            time.sleep(pause_s)
        seq = page[-1][0]


def _audit_artifact(folder: Folder, artifact_id: str, index: Index) -> None:
    row, copy = _row(index, artifact_id), read_sound_row_copy(folder)
    if row is not None and copy is not None and _is_equal(row, copy):
        _check_data(row, folder, index)
    elif copy is None and row is not None:
        _write_copy(row, folder, index)
    elif copy is not None and (row is None or _is_copy_right(copy, row, folder)):
        _repair_row(index, row, copy)
    elif row is not None:
        _write_copy(row, folder, index)
    else:
        _log.error("The row of the artifact with the id %s is damaged, and so is its copy.", artifact_id)


def _row(index: Index, artifact_id: str) -> ArtifactRow | None:
    try:
        return index.by_id(artifact_id)
    except UnavailableError as error:
        _log.error("%s", error.message)
        return None


def _is_equal(row: ArtifactRow, copy: ArtifactRow) -> bool:
    return replace(row, **_NOT_COMPARED) == replace(copy, **_NOT_COMPARED)  # type: ignore[arg-type]


def _is_copy_right(copy: ArtifactRow, row: ArtifactRow, folder: Folder) -> bool:
    """Tell whether the copy is right and the row is wrong.

    The digest in the copy proves that it is undamaged. It may still be the copy of another artifact.
    """
    if row.phase != "completed" or copy.phase != "completed":
        return row.phase == copy.phase
    with suppress(FileNotFoundError):  # DamagedError is a FileNotFoundError, too
        return read_manifest(folder).digest == copy.digest
    return False


def _repair_row(index: Index, row: ArtifactRow | None, copy: ArtifactRow) -> None:
    seq, damage = (row.seq, row.damage) if row else (copy.seq, None)
    with suppress(TakenError):
        if index.put(replace(copy, seq=seq, damage=damage), if_there=True):
            _log.error("The row of the artifact %s (%s) was wrong; its copy replaces it.", copy.name, copy.id)


def _write_copy(row: ArtifactRow, folder: Folder, index: Index) -> None:
    """Write the copy of `row` anew, because it is missing or wrong."""
    current: ArtifactRow | None = row
    while current is not None and current.name is not None and folder.path.is_dir():
        write_row_copy(folder, current)
        # A rename may have changed the row meanwhile and written its copy before this one: compare again.
        written, current = current, index.by_id(row.id)
        if current == written:
            break
    _check_data(row, folder, index)


def _check_data(row: ArtifactRow, folder: Folder, index: Index) -> None:
    """Mark the artifact as damaged if its manifest has a wrong digest, or a file has a wrong size."""
    if row.phase != "completed" or row.damage is not None:
        return
    damage = _damage(row, folder)
    if damage is not None and not index.is_deleted(row.id):
        _log.error("The artifact %s (%s) is damaged: %s", row.name, row.id, damage)
        index.mark_damaged(row.id, damage)


def _damage(row: ArtifactRow, folder: Folder) -> str | None:
    try:
        manifest = read_manifest(folder, row.digest)
    except DamagedError as error:
        return str(error)
    except FileNotFoundError:
        return "Its manifest is gone."
    for entry in manifest.files:
        if (damage := size_damage(entry, f"{folder.data}/{entry.path}")) is not None:
            return damage
    return None
