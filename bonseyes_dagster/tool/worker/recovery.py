"""After a crash or a stop: end what still runs and mark it, finish deletions, remove what belongs to nobody."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.tool.artifacts.drafts import is_abandoned
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index
from bonseyes_dagster.tool.artifacts.layout import Folder, Volume
from bonseyes_dagster.tool.artifacts.lost_and_found import set_aside
from bonseyes_dagster.tool.artifacts.rebuild import has_result, published_row, put_back
from bonseyes_dagster.tool.artifacts.row_copies import read_sound_row_copy, write_row_copy
from bonseyes_dagster.tool.files.disk import is_full, locked, remove, sync_all, sync_folder, throw_away
from bonseyes_dagster.tool.worker.processes import end_stragglers
from bonseyes_dagster.tool.worker.runner import clear_leftovers

__all__ = ["finish_deletions", "recover", "sweep"]

_log = logging.getLogger(__name__)


def recover(index: Index, volume: Volume, tool: str) -> None:
    """Bring index, folders and processes in agreement; only the holder of the worker's lock may call this."""
    for row in index.running():
        with _setting_aside(row, index, volume):
            _end(row, index, volume, tool)
    for artifact_id in index.waiting():
        # Only an index that is older than the folders, or a claim that a power cut took back, leaves such folders.
        waiting = index.by_id(artifact_id) if volume.folder(artifact_id).path.exists() else None
        if waiting is not None:
            with _setting_aside(waiting, index, volume):
                _settle_waiting(waiting, index, volume, tool)
    finish_deletions(index, volume)
    sweep(index, volume, tool)


def sweep(index: Index, volume: Volume, tool: str) -> None:
    """Settle folders without a row, and remove what is left of creations and deletions that were not finished."""
    index.keep_room()
    _settle_orphans(index, volume, tool)
    with locked(volume.drafts, exclusively=True):
        abandoned = [path for path in volume.drafts.iterdir() if is_abandoned(path)]
    for path in (*abandoned, *volume.trash.iterdir()):
        remove(path)


def finish_deletions(index: Index, volume: Volume) -> None:
    """Remove the rows of what was deleted, after their folders: a folder that has no row is kept."""
    hidden = index.hidden()
    if not hidden:
        return
    for artifact_id in hidden:
        throw_away(volume.folder(artifact_id).path, volume.trash)
    gone = [artifact_id for artifact_id in hidden if not volume.folder(artifact_id).path.exists()]
    if gone:
        sync_all([volume.artifacts, volume.trash])
        index.remove(*gone)


@contextmanager
def _setting_aside(row: ArtifactRow, index: Index, volume: Volume) -> Iterator[None]:
    """End the artifact if the block fails, and set its folder aside: it must not keep the others waiting."""
    try:
        yield
    except BonseyesError:  # the index; without it nothing can be recovered
        raise
    except Exception as error:
        if is_full(error):  # that passes
            raise
        _log.exception("%s (%s) cannot be recovered", row.name, row.id)
        reason = f"The container could not recover this artifact after a restart: {error}"
        if row.name is not None:
            _put_away(volume.folder(row.id), volume, reason)
        index.finish(row.id, "interrupted", reason=reason)


def _put_away(folder: Folder, volume: Volume, why: str) -> None:
    if folder.path.exists():
        with suppress(OSError):
            set_aside(volume, [folder.path], folder.id, why)


def _end(row: ArtifactRow, index: Index, volume: Volume, tool: str) -> None:
    folder = volume.folder(row.id)
    ended = end_stragglers(row.id, folder.path, folder.temporary, _server(folder))
    if row.name is not None and _has_ended(row, index, volume, tool):
        return
    _log.warning("%s was interrupted; %d processes were left of it", row.name, ended)
    clear_leftovers(folder, is_completed=False)
    index.finish(row.id, "interrupted", reason="The server ended while it ran.")


def _settle_waiting(row: ArtifactRow, index: Index, volume: Volume, tool: str) -> None:
    """Learn what came of it since, or leave of its folder what its turn begins with: the uploads."""
    folder = volume.folder(row.id)
    if folder.process.exists():
        end_stragglers(row.id, folder.path, folder.temporary, _server(folder))
    if not _has_ended(row, index, volume, tool):
        clear_leftovers(folder, is_completed=False)


def _has_ended(row: ArtifactRow, index: Index, volume: Volume, tool: str) -> bool:
    """Tell whether what lies in the folder says how it ended; the index learns of it then."""
    folder = volume.folder(row.id)
    if folder.manifest.exists() and folder.data.is_dir():
        _complete(row, index, volume, tool)
        return True
    copy = read_sound_row_copy(folder)
    if copy is None or copy.phase in ("queued", "running", "completed"):
        return False
    made = replace(copy, seq=row.seq, name=row.name, idempotency_key=row.idempotency_key)
    if not index.put(made, if_there=True):
        return False
    clear_leftovers(folder, is_completed=False)
    with suppress(OSError):  # the index has it
        write_row_copy(folder, made)
    _log.warning("%s was %s in the index and had ended: it is %s", row.name, row.phase, made.phase)
    return True


def _complete(row: ArtifactRow, index: Index, volume: Volume, tool: str) -> None:
    """What was published is completed, whatever an index says that did not learn of it in time."""
    folder = volume.folder(row.id)
    made = published_row(folder, row, tool)
    sync_folder(folder.path)
    clear_leftovers(folder, is_completed=True)
    made = replace(made, seq=row.seq, name=row.name, idempotency_key=row.idempotency_key)
    if not index.put(made, if_there=True):
        return
    _log.warning("%s was %s in the index and is published: it is completed", row.name, row.phase)


def _server(folder: Folder) -> str | None:
    try:
        known = json.loads(folder.process.read_bytes())
    except (OSError, ValueError):
        return None
    return known.get("server") if isinstance(known, dict) else None


def _settle_orphans(index: Index, volume: Volume, tool: str) -> None:
    """Put back, set aside or remove each folder that has no row.

    While the index is in doubt nothing is removed. Otherwise the index has had every row that there ever was, and a row
    goes only after its folder: then a folder without results is that of a creator who died before the row was there.
    """
    doubt = _read_doubt(volume)
    known = index.ids()
    is_settled = True
    for path in volume.artifacts.iterdir():
        if path.name not in known and is_abandoned(path) and _is_still_unknown(path, index):
            try:
                _settle_orphan(Folder(path), index, volume, tool, doubt)
            except (OSError, BonseyesError) as error:  # the volume is full, for example
                _log.error("%s has no row and stays where it is for now: %s", path, error)
                is_settled = False
    if doubt and is_settled:
        volume.index_doubt.unlink()


def _settle_orphan(folder: Folder, index: Index, volume: Volume, tool: str, doubt: str) -> None:
    if has_result(folder) and (doubt or not _may_be_unacknowledged(folder, index)):
        made = put_back(index, folder, tool)
        if made.phase == "running":
            with _setting_aside(made, index, volume):
                _end(made, index, volume, tool)
    elif doubt:
        if folder.process.exists():
            # Its row said that it was running.
            end_stragglers(folder.id, folder.path, folder.temporary, _server(folder))
        set_aside(volume, [folder.path], folder.id, f"There is no row of the artifact with the id {folder.id}. {doubt}")
    elif has_result(folder):
        why = "There is no row of this artifact, and another one has its name by now: its creation may have broken off."
        set_aside(volume, [folder.path], folder.id, why)
    else:
        throw_away(folder.path, volume.trash)


def _read_doubt(volume: Volume) -> str:
    try:
        return volume.index_doubt.read_text() or "The index of artifacts was lost."
    except FileNotFoundError:
        return ""


def _may_be_unacknowledged(folder: Folder, index: Index) -> bool:
    """Tell whether the creator of a copy by links may have died before its row was written, and have been repeated.

    Such a copy has no number yet. That is no proof: an index that was put back may lack the row of another one.
    """
    copy = read_sound_row_copy(folder)
    return copy is not None and copy.seq == 0 and copy.name is not None and index.has_name(copy.name)


def _is_still_unknown(path: Path, index: Index) -> bool:
    # Its creator may have written the row, and let go of the folder, after we read the rows.
    return index.by_id(path.name) is None
