"""Recover after a crash or a stop: end processes, settle the rows of their artifacts, finish deletions, sweep folders.

The worker calls `recover` at its start and `sweep` from time to time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.system.storage import is_full, sync_folder
from bonseyes_dagster.tool.artifacts.drafts import is_abandoned
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index
from bonseyes_dagster.tool.artifacts.layout import Folder, Volume
from bonseyes_dagster.tool.artifacts.lost_and_found import set_aside
from bonseyes_dagster.tool.artifacts.rebuild import has_result, restore_row, row_from_folder
from bonseyes_dagster.tool.artifacts.row_copies import read_sound_row_copy, write_row_copy
from bonseyes_dagster.tool.files.disk import locked, remove, sync_all, throw_away
from bonseyes_dagster.tool.worker.processes import end_stragglers
from bonseyes_dagster.tool.worker.runner import clear_leftovers

__all__ = ["finish_deletions", "recover", "sweep"]

_log = logging.getLogger(__name__)


def recover(index: Index, volume: Volume, tool: str) -> None:
    """Make index, folders and processes agree; only the holder of the worker's lock may call this."""
    for row in index.running_rows():
        with _setting_aside_on_error(row, index, volume):
            _end_running(row, index, volume, tool)
    for artifact_id in index.queued_ids():
        # A queued artifact has such a folder only if the index is older, or if a power cut has undone its claim.
        waiting = index.by_id(artifact_id) if volume.folder(artifact_id).path.exists() else None
        if waiting is not None:
            with _setting_aside_on_error(waiting, index, volume):
                _recover_queued(waiting, index, volume, tool)
    finish_deletions(index, volume)
    sweep(index, volume, tool)


def sweep(index: Index, volume: Volume, tool: str) -> None:
    """Handle folders without a row, and remove the rest of unfinished creations and deletions."""
    index.allocate_log()
    _handle_folders_without_row(index, volume, tool)
    with locked(volume.drafts, exclusively=True):
        abandoned = [path for path in volume.drafts.iterdir() if is_abandoned(path)]
    for path in (*abandoned, *volume.trash.iterdir()):
        remove(path)


def finish_deletions(index: Index, volume: Volume) -> None:
    """Remove the folders of deleted artifacts, then their rows: a folder without a row would be kept."""
    deleted = index.deleted_ids()
    if not deleted:
        return
    for artifact_id in deleted:
        throw_away(volume.folder(artifact_id).path, volume.trash)
    removed = [artifact_id for artifact_id in deleted if not volume.folder(artifact_id).path.exists()]
    if removed:
        sync_all([volume.artifacts, volume.trash])
        index.remove(*removed)


@contextmanager
def _setting_aside_on_error(row: ArtifactRow, index: Index, volume: Volume) -> Iterator[None]:
    """If the block fails, end the artifact and set its folder aside, so that it does not block the others."""
    try:
        yield
    except BonseyesError:  # without a usable index nothing can be recovered
        raise
    except Exception as error:
        if is_full(error):  # a full disk is temporary
            raise
        _log.exception("The artifact %s (%s) cannot be recovered.", row.name, row.id)
        reason = f"The container could not recover this artifact after a restart: {error}"
        if row.name is not None:
            _set_folder_aside(volume.folder(row.id), volume, reason)
        index.finish(row.id, "interrupted", reason=reason)


def _set_folder_aside(folder: Folder, volume: Volume, why: str) -> None:
    if folder.path.exists():
        with suppress(OSError):
            set_aside(volume, [folder.path], folder.id, why)


def _end_running(row: ArtifactRow, index: Index, volume: Volume, tool: str) -> None:
    folder = volume.folder(row.id)
    ended = end_stragglers(row.id, folder.path, folder.temporary, _read_server_id(folder))
    if row.name is not None and _restore_end(row, index, volume, tool):
        return
    _log.warning("The artifact %s was interrupted; %d processes of it were left and are ended.", row.name, ended)
    clear_leftovers(folder, is_completed=False)
    index.finish(row.id, "interrupted", reason="The server ended while it ran.")


def _recover_queued(row: ArtifactRow, index: Index, volume: Volume, tool: str) -> None:
    """Restore the end of a queued artifact if its folder has one; else remove all but the uploads from the folder."""
    folder = volume.folder(row.id)
    if folder.process.exists():
        end_stragglers(row.id, folder.path, folder.temporary, _read_server_id(folder))
    if not _restore_end(row, index, volume, tool):
        clear_leftovers(folder, is_completed=False)


def _restore_end(row: ArtifactRow, index: Index, volume: Volume, tool: str) -> bool:
    """Write the artifact's end to the index if its folder shows one; tell whether it does."""
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
    with suppress(OSError):  # the row in the index is enough
        write_row_copy(folder, made)
    _log.warning("The artifact %s was %s in the index, but has ended as %s.", row.name, row.phase, made.phase)
    return True


def _complete(row: ArtifactRow, index: Index, volume: Volume, tool: str) -> None:
    """Set the row of a published artifact to completed: the crash came before the index was written."""
    folder = volume.folder(row.id)
    made = row_from_folder(folder, row, tool)
    sync_folder(folder.path)
    clear_leftovers(folder, is_completed=True)
    made = replace(made, seq=row.seq, name=row.name, idempotency_key=row.idempotency_key)
    if not index.put(made, if_there=True):
        return
    _log.warning("The artifact %s was %s in the index, but is published: it is completed now.", row.name, row.phase)


def _read_server_id(folder: Folder) -> str | None:
    try:
        known = json.loads(folder.process.read_bytes())
    except (OSError, ValueError):
        return None
    return known.get("server") if isinstance(known, dict) else None


def _handle_folders_without_row(index: Index, volume: Volume, tool: str) -> None:
    """Restore the row of each folder without a row, or set the folder aside, or remove it.

    While the index is in doubt, nothing is removed. Otherwise the index has had every row, and a row is removed only
    after its folder. Then a folder without results belongs to a creation that died before it wrote its row.
    """
    doubt = _read_doubt(volume)
    known = index.ids()
    is_settled = True
    for path in volume.artifacts.iterdir():
        if path.name not in known and is_abandoned(path) and _is_still_unknown(path, index):
            try:
                _handle_folder_without_row(Folder(path), index, volume, tool, doubt)
            except (OSError, BonseyesError) as error:  # the volume is full, for example
                _log.error("The folder %s has no row, and cannot be handled yet: %s", path, error)
                is_settled = False
    if doubt and is_settled:
        volume.index_doubt.unlink()


def _handle_folder_without_row(folder: Folder, index: Index, volume: Volume, tool: str, doubt: str) -> None:
    if has_result(folder) and (doubt or not _may_be_unacknowledged(folder, index)):
        made = restore_row(index, folder, tool)
        if made.phase == "running":
            with _setting_aside_on_error(made, index, volume):
                _end_running(made, index, volume, tool)
    elif doubt:
        if folder.process.exists():
            # The lost row had the phase running.
            end_stragglers(folder.id, folder.path, folder.temporary, _read_server_id(folder))
        set_aside(volume, [folder.path], folder.id, f"The artifact with the id {folder.id} has no row. {doubt}")
    elif has_result(folder):
        why = "This artifact has no row, and another one has its name; its creation may have been interrupted."
        set_aside(volume, [folder.path], folder.id, why)
    else:
        throw_away(folder.path, volume.trash)


def _read_doubt(volume: Volume) -> str:
    try:
        return volume.index_doubt.read_text() or "The index of artifacts was lost."
    except FileNotFoundError:
        return ""


def _may_be_unacknowledged(folder: Folder, index: Index) -> bool:
    """Tell whether the creation of a re-used artifact may have died before its row, and been repeated by the client.

    The copy of such a row has no number yet. That is no proof: a restored older index may lack the row, too.
    """
    copy = read_sound_row_copy(folder)
    return copy is not None and copy.seq == 0 and copy.name is not None and index.has_name(copy.name)


def _is_still_unknown(path: Path, index: Index) -> bool:
    # The creation may have written the row and unlocked the folder after we read the rows.
    return index.by_id(path.name) is None
