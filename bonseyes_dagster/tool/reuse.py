"""Reuse: a new artifact made from a completed one by hard links, so neither time nor space is spent again."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from bonseyes_dagster.model import FileEntry
from bonseyes_dagster.tool.disk import link, link_tree, remove, sync_folder
from bonseyes_dagster.tool.index import Index, Record
from bonseyes_dagster.tool.layout import Folder, Volume
from bonseyes_dagster.tool.publishing import DamagedError, read_manifest
from bonseyes_dagster.tool.rows import write_row

__all__ = ["adopt", "adopt_newest"]

_log = logging.getLogger(__name__)
# A copy of a row that was itself copied, as by a restore, tells nothing of the files: its two times differ.
_SAME_TIME_NS = 10_000_000_000


def adopt_newest(
    index: Index, volume: Volume, fingerprint: str | None, target: Folder, record_of: Callable[[Record], Record]
) -> Record | None:
    """Make `target` from the newest artifact with the fingerprint that is whole; return its row, None without one.

    `record_of` makes the row from the one that is re-used. Damaged ones are marked, and never looked at again.
    """
    while fingerprint and (source := index.reusable(fingerprint)) is not None:
        folder, made = volume.folder(source.id), record_of(source)
        try:
            adopt(folder, target, record=made, digest=source.digest)
        except DamagedError as error:
            _mark(index, source, str(error))
        except FileNotFoundError:
            there = index.by_id(source.id)
            if there is None or there.name is None:
                return None
            _mark(index, source, "Files of it are gone.")
        else:
            return made
    return None


def _mark(index: Index, source: Record, damage: str) -> None:
    _log.error("the artifact %s (%s) is damaged and is not re-used: %s", source.name, source.id, damage)
    index.mark_damaged(source.id, damage)


def adopt(source: Folder, target: Folder, *, record: Record | None = None, digest: str | None = None) -> None:
    """Give `target` the data, manifest, log and metrics of `source`, durably, and a copy of its row, `record`.

    Raises DamagedError when `source` is not what has the digest `digest`, and FileNotFoundError when it is being
    deleted meanwhile; `target` has no data, no log and no metrics then.
    """
    try:
        _check_whole(source, digest)
        _link_all(source, target)
        if not source.manifest.exists():
            # What was not found may have been deleted.
            raise FileNotFoundError(source.manifest)
    except FileNotFoundError:
        # Links to the files of other artifacts, to which whoever makes `target` after all would append.
        for file in (target.log, target.progress, target.manifest):
            file.unlink(missing_ok=True)
        for folder in (target.metrics, target.data):
            remove(folder)
        raise
    if record is not None:
        write_row(target, record)
    sync_folder(target.path)


def _link_all(source: Folder, target: Folder) -> None:
    link_tree(source.data, target.data)
    for path, place in ((source.log, target.log), (source.progress, target.progress)):
        if path.exists():
            place.unlink(missing_ok=True)
            link(path, place)
    if source.metrics.is_dir():
        link_tree(source.metrics, target.metrics)
    # Last: after a crash, what has a manifest counts as published, all of it.
    link(source.manifest, target.manifest)


def _check_whole(source: Folder, digest: str | None) -> None:
    """Raise DamagedError when the files are not those that were published.

    The kernel changes a file's time whenever somebody writes to it. So the files are read again only where one of them
    is younger than the copy of the row, which was written when they were last known to be right.
    """
    if digest is None:
        digest = read_manifest(source).digest
    if hashlib.sha256(source.manifest.read_bytes()).hexdigest() != digest or not _is_untouched(source):
        _read_all(source, digest)
        with suppress(OSError):
            # From now on only what is written later has to be read again.
            os.utime(source.row)


def _is_untouched(source: Folder) -> bool:
    try:
        known = source.row.stat()
    except FileNotFoundError:
        return False
    if known.st_ctime_ns - known.st_mtime_ns > _SAME_TIME_NS:
        return False
    return all(time_ns <= known.st_mtime_ns for time_ns in _times_ns(source.data))


def _times_ns(folder: Path | str) -> Iterator[int]:
    yield os.stat(folder).st_mtime_ns  # noqa: PTH116 - a Path for each of ten thousand entries costs more than the call
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _times_ns(entry.path)
            else:
                yield entry.stat(follow_symlinks=False).st_mtime_ns


def _read_all(source: Folder, digest: str) -> None:
    entries = {entry.path: entry for entry in read_manifest(source, digest).files}
    there = {path.relative_to(source.data).as_posix() for path in source.data.rglob("*") if not path.is_dir()}
    if differing := sorted(there ^ entries.keys()):
        raise DamagedError(f"Its file {differing[0]!r} is {'new' if differing[0] in there else 'gone'}.")
    for path, entry in entries.items():
        if not _is_as_published(source.data / path, entry):
            raise DamagedError(f"Its file {path!r} is not what was published.")


def _is_as_published(path: Path, entry: FileEntry) -> bool:
    if path.is_symlink() or path.stat().st_size != entry.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
