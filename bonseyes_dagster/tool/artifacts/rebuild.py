"""Check the index at each start, and rebuild it from the folders if it is missing, damaged or too old.

The server calls this before it forks, and the worker before it takes an artifact from the queue. Afterwards
`recovery.py` removes folders or sets them aside.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from bonseyes_dagster.model import TERMINAL_PHASES, Manifest, at, now
from bonseyes_dagster.system.storage import sync_folder
from bonseyes_dagster.tool.artifacts.drafts import is_abandoned
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index, TakenError
from bonseyes_dagster.tool.artifacts.layout import Folder, Volume
from bonseyes_dagster.tool.artifacts.lost_and_found import set_aside
from bonseyes_dagster.tool.artifacts.publishing import DamagedError, read_manifest
from bonseyes_dagster.tool.artifacts.row_copies import read_sound_row_copy, write_row_copy
from bonseyes_dagster.tool.artifacts.salvage import COPIES, salvage
from bonseyes_dagster.tool.files.disk import locked, remove, sync_all

__all__ = ["ensure_index", "has_result", "read_mark", "restore_row", "row_from_folder", "write_mark"]

_log = logging.getLogger(__name__)
_SUFFIXES = ("", "-wal", "-shm")
_LONGEST_NAME = 128
_PAGE = 100


def ensure_index(volume: Volume, tool: str) -> None:
    """Make sure that the index of the tool `tool` is usable; log a fault, and keep the faulty index in `lost+found`."""
    with locked(volume.path, exclusively=True), closing(Index(volume.index, is_alone=True)) as index:
        _finish_interrupted_rebuild(volume)
        fault = index.fault()
        if fault is not None and not _is_new(volume):
            _rebuild(volume, tool, fault)
        else:
            index.make()
            if index.last_seq() < read_mark(volume):
                _restore_missing_rows(volume, index, tool)


def _is_new(volume: Volume) -> bool:
    """Tell whether the volume is new: it has no artifact, and no index or an empty one."""
    has_rows = volume.index.exists() and volume.index.stat().st_size > 0
    return not has_rows and not read_mark(volume) and next(volume.artifacts.iterdir(), None) is None


# The mark


def read_mark(volume: Volume) -> int:
    """Return the mark, the highest number that a row has ever had on this volume; 0 if it is unknown."""
    try:
        return int(volume.index_mark.read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0


def write_mark(volume: Volume, seq: int) -> None:
    """Raise the mark to `seq`. The write is not synced: a lower mark after a power cut is harmless."""
    descriptor = os.open(volume.index_mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        known = os.pread(descriptor, 20, 0)
        # If somebody restores an older index meanwhile, it must not lower the mark.
        if not known.isdigit() or int(known) < seq:
            os.pwrite(descriptor, b"%020d" % seq, 0)
    finally:
        os.close(descriptor)


# A lost or damaged index


def _rebuild(volume: Volume, tool: str, fault: str) -> None:
    why = f"The index of artifacts {fault}. It was found on {now()} and rebuilt from the copies beside the data."
    _log.error("The index of artifacts %s; it is rebuilt from the copies beside the data.", fault)
    _write_doubt(volume, why)
    salvaged = salvage(volume.index)
    rows = _merge_rows(volume, salvaged, tool)
    draft = volume.index.with_name(f"{volume.index.name}.draft")
    _remove(draft)
    with closing(Index(draft, is_alone=True)) as made:
        made.make()
        with made.without_sync():
            for row in rows:
                _put_with_copy(made, row, volume.folder(row.id))
            # The rows have new numbers, above all old ones. So the old index counts as older if somebody restores it.
            made.number_above(max(read_mark(volume), *(row.seq for row in salvaged.values()), 0))
    sync_all([draft])
    draft.rename(_rebuilt_path(volume))
    _replace_index(volume, why)
    _log.error(
        "The index of artifacts is rebuilt with %d rows; %d rows of the old one were readable.",
        len(rows),
        len(salvaged),
    )


def _rebuilt_path(volume: Volume) -> Path:
    """Return the path of the complete new index; the file exists until it replaces the old one."""
    return volume.index.with_name(f"{volume.index.name}.rebuilt")


def _finish_interrupted_rebuild(volume: Volume) -> None:
    """Finish or undo a rebuild that a crash has interrupted."""
    for left in volume.path.glob(f"{COPIES}*"):
        remove(left)
    if not _rebuilt_path(volume).exists():
        return
    if volume.index.exists():
        # The old index is still in use, and server processes may have written to it: drop the new one.
        _remove(_rebuilt_path(volume))
        sync_folder(volume.path)
    else:
        _replace_index(volume, "The index of artifacts was rebuilt; a crash interrupted the rebuild once.")


def _replace_index(volume: Volume, why: str) -> None:
    sync_folder(volume.path)
    # Move the index before its log: then no process writes to it. After a crash the next start goes on from here.
    old = [Path(f"{volume.index}{suffix}") for suffix in _SUFFIXES]
    there = [path for path in old if path.exists()]
    set_aside(volume, there, "index", why)
    _rebuilt_path(volume).rename(volume.index)
    sync_folder(volume.path)
    with closing(Index(volume.index, is_alone=True)) as index:
        write_mark(volume, index.last_seq())


def _remove(index: Path) -> None:
    for suffix in _SUFFIXES:
        Path(f"{index}{suffix}").unlink(missing_ok=True)


def _write_doubt(volume: Volume, why: str) -> None:
    volume.index_doubt.write_text(why)
    sync_all([volume.index_doubt, volume.path])


def _merge_rows(volume: Volume, salvaged: dict[str, ArtifactRow], tool: str) -> list[ArtifactRow]:
    """Return the rows for the new index, oldest first: from the folders, and from the old index."""
    rows = {key: row for key, row in salvaged.items() if not row.files or volume.folder(key).path.is_dir()}
    for path in volume.artifacts.iterdir():
        folder, old = Folder(path), salvaged.get(path.name)
        if old is not None and old.name is None:
            continue  # it is being deleted
        if has_result(folder) and is_abandoned(path):
            rows[path.name] = row_from_folder(folder, old, tool)
    for key, row in rows.items():
        if row.phase == "completed" and row.name is not None and not volume.folder(key).data.is_dir():
            rows[key] = replace(row, damage="Its folder is gone.")
    folders = {row.name for key, row in rows.items() if volume.folder(key).path.is_dir()}
    # Of two rows with one name, the one without a folder has a damaged id and is dropped.
    sound = [each for key, each in rows.items() if volume.folder(key).path.is_dir() or each.name not in folders]
    return _number_rows(sound)


def _number_rows(rows: Iterable[ArtifactRow]) -> list[ArtifactRow]:
    """Number the rows anew in the order of their old numbers; rows without a number are sorted in by their time."""
    numbered = sorted((each for each in rows if each.seq > 0), key=lambda each: each.seq)
    others = sorted((each for each in rows if each.seq <= 0), key=lambda each: each.created)
    ordered: list[ArtifactRow] = []
    for row in numbered:
        while others and others[0].created < row.created:
            ordered.append(others.pop(0))
        ordered.append(row)
    return [replace(row, seq=number) for number, row in enumerate([*ordered, *others], 1)]


# An index that is older than the folders


def _restore_missing_rows(volume: Volume, index: Index, tool: str) -> None:
    last, mark = index.last_seq(), read_mark(volume)
    why = f"The index of artifacts is older than the artifacts: its last number is {last}, but {mark} has been used."
    _log.error("%s Missing rows are restored from the copies beside the data.", why)
    _write_doubt(volume, f"{why} It was found on {now()}.")
    _remove_deleted_rows(volume, index)
    _remove_unfinished_rows(volume, index)
    known = index.ids()
    for path in volume.artifacts.iterdir():
        if path.name not in known and has_result(Folder(path)) and is_abandoned(path):
            restore_row(index, Folder(path), tool)
    # Somebody may restore the same old index once more.
    write_mark(volume, index.number_above(mark))


def _remove_deleted_rows(volume: Volume, index: Index) -> None:
    """Remove rows of artifacts that were deleted after the older index was saved; else they would block their names.

    An artifact that ran has a folder until its deletion. One that was cancelled in the queue may never have had one.
    """
    seq = 0
    while page := index.final_after(seq, _PAGE):
        for _, artifact_id in page:
            row = None if volume.folder(artifact_id).path.exists() else index.by_id(artifact_id)
            if row is not None and (row.phase == "completed" or row.started is not None):
                index.remove(artifact_id)
                _log_deletion(row)
        seq = page[-1][0]


def _remove_unfinished_rows(volume: Volume, index: Index) -> None:
    """Remove rows of artifacts that were deleted while they ran or waited. A waiting artifact may have no folder."""
    rows = [*index.running_rows(), *(index.by_id(artifact_id) for artifact_id in index.queued_ids())]
    gone = [row for row in rows if row is not None and not volume.folder(row.id).path.exists()]
    names = _names_of_folders(volume, index) if gone else set()
    for row in gone:
        if row.phase == "running" or row.name in names:
            index.remove(row.id)
            _log_deletion(row)


def _log_deletion(row: ArtifactRow) -> None:
    _log.warning(
        "The artifact %s (%s) was deleted after the older index was saved; its row is removed.", row.name, row.id
    )


def _names_of_folders(volume: Volume, index: Index) -> set[str | None]:
    """Return the names in the copies of rows, except those of artifacts that are being deleted."""
    deleted = set(index.deleted_ids())
    copies = [read_sound_row_copy(Folder(path)) for path in volume.artifacts.iterdir() if path.name not in deleted]
    return {copy.name for copy in copies if copy is not None}


def has_result(folder: Folder) -> bool:
    """Tell whether a folder belongs to an artifact that has ended, published or not."""
    return folder.manifest.exists() or folder.row_copy.exists()


def restore_row(index: Index, folder: Folder, tool: str) -> ArtifactRow:
    """Write the missing row of a folder and return it; it gets a new name if another artifact has its name."""
    row = row_from_folder(folder, None, tool)
    made = _put_with_copy(index, row, folder)
    _log.warning("The row of the artifact %s (%s) was missing and is restored.", made.name, folder.id)
    return made


def _put_with_copy(index: Index, row: ArtifactRow, folder: Folder) -> ArtifactRow:
    """Write a row. If it gets a new name, write its copy, too; else the copy would restore the old name later."""
    made = _put(index, row)
    if made != row and made.phase in TERMINAL_PHASES and folder.path.is_dir():
        with contextlib.suppress(OSError):
            write_row_copy(folder, made)
    return made


def _put(index: Index, row: ArtifactRow) -> ArtifactRow:
    own_name = row.name or "artifact"
    found_name = f"{own_name[: _LONGEST_NAME - 15]}.found-{row.id[:8]}"
    for changed in (
        row,
        replace(row, idempotency_key=None),
        replace(row, name=found_name, idempotency_key=None),
    ):
        try:
            index.put(changed)
        except TakenError:
            continue
        if changed.name != row.name:
            _log.warning("The name %s is taken; the found artifact gets the name %s.", row.name, changed.name)
        return changed
    raise TakenError(row.id)


def row_from_folder(folder: Folder, known_row: ArtifactRow | None, tool: str) -> ArtifactRow:
    """Return the row of a folder: from the copy beside the data, else from `known_row`, else from the manifest.

    The digest of the manifest decides which of them is right. If none agrees, the row is marked as damaged. An artifact
    whose publication did not finish gets the phase running, so that the worker ends it.
    """
    copy = read_sound_row_copy(folder)
    manifest, damage = _manifest(folder)
    known = copy or known_row or _unknown_row(folder, tool)
    if copy is not None and copy.phase != "completed":
        return copy
    if _is_unpublished(folder) and (known_row is None or known_row.phase not in TERMINAL_PHASES):
        return replace(known, phase="running", reason=None, finished=None, size=None, digest=None)
    if manifest is None:
        return replace(_completed(known), damage=damage)
    if known.phase == "completed" and known.digest == manifest.digest:
        return known
    if copy is None:
        # Either the row in the index is wrong, or an earlier version made the artifact, without a copy.
        if known.phase not in TERMINAL_PHASES:
            # Only the copy had the code and the inputs that made it, so the artifact is never re-used.
            known = replace(known, fingerprint=None)
        return replace(_completed(known), digest=manifest.digest, size=manifest.size)
    if known_row is not None and known_row.digest == manifest.digest:
        return known_row
    return replace(copy, damage="Its manifest has another digest than the published one.")


def _is_unpublished(folder: Folder) -> bool:
    """Tell whether a crash came before the rename of staging to data."""
    return folder.staging.is_dir() and not folder.data.exists()


def _completed(row: ArtifactRow) -> ArtifactRow:
    finished = row.finished or now()
    return replace(row, phase="completed", reason=None, finished=finished, is_cancelling=False)


def _manifest(folder: Folder) -> tuple[Manifest | None, str | None]:
    try:
        return read_manifest(folder), None
    except FileNotFoundError:
        return None, "Its manifest is gone."
    except DamagedError as error:
        return None, str(error)


def _unknown_row(folder: Folder, tool: str) -> ArtifactRow:
    """Return a row for data without a row and without a copy."""
    moment = now()
    with contextlib.suppress(OSError):
        moment = at(folder.manifest.stat().st_mtime)
    return ArtifactRow(
        id=folder.id,
        name=f"found-{folder.id[:8]}",
        created=moment,
        finished=moment,
        tool=tool,
        version="unknown",
        parameters={},
        files={},
        inputs={},
    )
