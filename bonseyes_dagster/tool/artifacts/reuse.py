"""Re-use: make a new artifact from a completed one by hard links, which cost neither time nor space."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Set
from pathlib import Path

from bonseyes_dagster.model import FileEntry, Manifest
from bonseyes_dagster.system.storage import sync_folder
from bonseyes_dagster.tool.artifacts import file_states
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index
from bonseyes_dagster.tool.artifacts.layout import Folder, Volume
from bonseyes_dagster.tool.artifacts.publishing import DamagedError, read_manifest
from bonseyes_dagster.tool.artifacts.row_copies import write_row_copy
from bonseyes_dagster.tool.files.disk import link, link_tree, remove

__all__ = ["LongReadingError", "adopt", "adopt_newest", "mark_damaged"]

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20


class LongReadingError(Exception):
    """The check of the files would have to read too many bytes."""


def _go_on() -> None:
    pass


def adopt_newest(
    index: Index,
    volume: Volume,
    fingerprint: str | None,
    target: Folder,
    row_of: Callable[[ArtifactRow], ArtifactRow],
    *,
    check: Callable[[], None] = _go_on,
    most_bytes: int | None = None,
) -> ArtifactRow | None:
    """Make `target` from the newest undamaged artifact with the fingerprint; return its row, or None without one.

    `row_of` makes the new row from the row of the re-used artifact. Damaged artifacts are marked and never used again.
    `check` is called between chunks and raises StoppedError to give up. Raises LongReadingError if the check of the
    files would read more than `most_bytes`.
    """
    while fingerprint and (source := index.reusable(fingerprint)) is not None:
        folder, made = volume.folder(source.id), row_of(source)
        try:
            adopt(folder, target, row=made, digest=source.digest, check=check, most_bytes=most_bytes)
        except DamagedError as error:
            mark_damaged(index, source, str(error))
        except FileNotFoundError:
            there = index.by_id(source.id)
            if there is None or there.name is None:
                return None
            mark_damaged(index, source, "Some of its files are gone.")
        else:
            return made
    return None


def mark_damaged(index: Index, source: ArtifactRow, damage: str) -> None:
    """Mark an artifact as damaged, so that it is never re-used, and log the damage."""
    _log.error("The artifact %s (%s) is damaged and is not re-used: %s", source.name, source.id, damage)
    index.mark_damaged(source.id, damage)


def adopt(
    source: Folder,
    target: Folder,
    *,
    row: ArtifactRow | None = None,
    digest: str | None = None,
    check: Callable[[], None] = _go_on,
    most_bytes: int | None = None,
) -> None:
    """Link the data, manifest, log and metrics of `source` into `target`, durably; write `row` as its copy of the row.

    Raises DamagedError if `source` does not have the digest `digest`, and FileNotFoundError if it is deleted meanwhile;
    `target` then has no data, no log and no metrics. For the other errors see `adopt_newest`.
    """
    try:
        if digest is None or not _link_unchanged(source, target, digest):
            _link_and_read(source, target, digest, check, most_bytes)
        _link_rest(source, target)
        if not source.manifest.exists():
            # Somebody may have deleted the source, and some of its files were missing for that reason.
            raise FileNotFoundError(source.manifest)
    except Exception:
        # Remove links to files of the other artifact: if `target` is now made by the tool, its writers would append.
        for file in (target.log, target.progress, target.manifest, target.file_states):
            file.unlink(missing_ok=True)
        for folder in (target.metrics, target.data):
            remove(folder)
        raise
    if row is not None:
        write_row_copy(target, row)
    sync_folder(target.path)


def _link_rest(source: Folder, target: Folder) -> None:
    for path, place in ((source.log, target.log), (source.progress, target.progress)):
        if path.exists():
            place.unlink(missing_ok=True)
            link(path, place)
    if source.metrics.is_dir():
        link_tree(source.metrics, target.metrics)
    # The manifest comes last: after a crash, a folder with a manifest counts as completely published.
    link(source.manifest, target.manifest)


def _link_unchanged(source: Folder, target: Folder, digest: str) -> bool:
    """Link the files of a large artifact if their states are the same as when they were digested; tell whether."""
    if not source.file_states.exists() or hashlib.sha256(source.manifest.read_bytes()).hexdigest() != digest:
        return False
    before = file_states.read_states(source.data)
    if not file_states.are_saved(digest, before, source):
        return False
    link_tree(source.data, target.data)
    linked = file_states.read_states(target.data)
    if not file_states.is_same_content(before, linked):
        remove(target.data)
        return False
    # The new links changed the states, which source and target share.
    file_states.save_states(digest, linked, source, target)
    return True


def _link_and_read(
    source: Folder, target: Folder, digest: str | None, check: Callable[[], None], most_bytes: int | None
) -> None:
    """Link the files and compare the content of each with the manifest."""
    manifest = read_manifest(source, digest)
    is_quick = file_states.is_quick_to_read(manifest)
    if not is_quick and most_bytes is not None and manifest.size > most_bytes:
        raise LongReadingError
    link_tree(source.data, target.data)
    linked = file_states.read_states(target.data)
    _read_all(target.data, manifest, {state[0] for state in linked}, check)
    # If a file was written to or linked during the reading, save no states: the next re-use reads the files again.
    if not is_quick and linked == file_states.read_states(target.data):
        # Links have the same states as the source's files; copies have others.
        is_linked = file_states.is_same_content(linked, file_states.read_states(source.data))
        file_states.save_states(digest or manifest.digest, linked, target, *([source] if is_linked else []))


def _read_all(data: Path, manifest: Manifest, there: Set[str], check: Callable[[], None]) -> None:
    entries = {entry.path: entry for entry in manifest.files}
    if differing := sorted(there ^ entries.keys()):
        raise DamagedError(f"Its file {differing[0]!r} is {'new' if differing[0] in there else 'gone'}.")
    for path, entry in entries.items():
        if not _is_as_published(data / path, entry, check):
            raise DamagedError(f"Its file {path!r} has other content than the published one.")


def _is_as_published(path: Path, entry: FileEntry, check: Callable[[], None]) -> bool:
    if path.is_symlink() or path.stat().st_size != entry.size:
        return False
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            check()
    return digest.hexdigest() == entry.sha256
