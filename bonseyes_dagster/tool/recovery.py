"""After a crash or a stop: end what still runs and mark it, finish deletions, remove what belongs to nobody."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from bonseyes_dagster.tool.disk import locked, remove, throw_away
from bonseyes_dagster.tool.drafts import is_abandoned
from bonseyes_dagster.tool.index import Index, Record
from bonseyes_dagster.tool.layout import Folder, Volume
from bonseyes_dagster.tool.processes import end_stragglers
from bonseyes_dagster.tool.runner import clear_leftovers

__all__ = ["recover", "sweep"]

_log = logging.getLogger(__name__)


def recover(index: Index, volume: Volume) -> None:
    """Bring index, folders and processes in agreement; only the holder of the worker's lock may call this."""
    for record in index.running():
        _interrupt(record, index, volume)
    for artifact_id in index.hidden():
        throw_away(volume.folder(artifact_id).path, volume.trash)
        index.remove(artifact_id)
    sweep(index, volume)


def sweep(index: Index, volume: Volume) -> None:
    """Remove folders of creations that nobody goes on with, and of deletions that were not finished."""
    index.keep_room()
    _remove_orphans(index, volume)
    with locked(volume.drafts, exclusively=True):
        abandoned = [path for path in volume.drafts.iterdir() if is_abandoned(path)]
    for path in (*abandoned, *volume.trash.iterdir()):
        remove(path)


def _interrupt(record: Record, index: Index, volume: Volume) -> None:
    folder = volume.folder(record.id)
    ended = end_stragglers(record.id, folder.path, folder.temporary, _server(folder))
    _log.warning("%s was interrupted; %d processes were left of it", record.name, ended)
    clear_leftovers(folder, is_completed=False)
    index.finish(record.id, "interrupted", reason="The server ended while it ran.")


def _server(folder: Folder) -> str | None:
    try:
        known = json.loads(folder.process.read_bytes())
    except (OSError, ValueError):
        return None
    return known.get("server") if isinstance(known, dict) else None


def _remove_orphans(index: Index, volume: Volume) -> None:
    known = index.ids()
    for path in volume.artifacts.iterdir():
        if path.name not in known and is_abandoned(path) and _is_still_unknown(path, index):
            throw_away(path, volume.trash)


def _is_still_unknown(path: Path, index: Index) -> bool:
    # Its creator may have written the row, and let go of the folder, after we read the rows.
    return index.by_id(path.name) is None
