"""Publish the staging folder of a tool: check its files, digest them, sync them, and move them by one rename."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bonseyes_dagster.errors import ToolError
from bonseyes_dagster.model import FileEntry, Manifest
from bonseyes_dagster.system.storage import sync_folder
from bonseyes_dagster.tool.artifacts import file_states
from bonseyes_dagster.tool.artifacts.index import ArtifactRow
from bonseyes_dagster.tool.artifacts.layout import Folder
from bonseyes_dagster.tool.artifacts.row_copies import write_row_copy
from bonseyes_dagster.tool.files.disk import copy, syncing
from bonseyes_dagster.tool.files.writers import FileState, has_leases, is_open_to_write, state_of, writers_of

__all__ = ["DamagedError", "StoppedError", "publish", "read_manifest", "scan", "size_damage"]

_CHUNK_BYTES = 1 << 20
_CLOSED_WITHIN_S = 1.0
# Zips, URLs and other systems have similar limits, and readers of an artifact would hit them.
_MOST_FOLDERS = 100
_LONGEST_PATH_BYTES = 1024
_SHOWN_CHARACTERS = 80
_NO_LIMIT = 10**9
_LOOK_EVERY_S = 0.01
# A part of a path that is empty, `.` or `..`; a zero byte.
_OUTSIDE = re.compile(r"(?:^|/)\.{0,2}(?:/|\Z)|\0")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class DamagedError(FileNotFoundError):
    """The published files have changed; the message says which one and how."""


class StoppedError(Exception):
    """A client cancelled the artifact, or the server stops, during the publication."""


def publish(
    folder: Folder,
    check: Callable[[], None],
    row_of: Callable[[Manifest], ArtifactRow] | None = None,
    *,
    files_limit: int = _NO_LIMIT,
) -> Manifest:
    """Publish the files in staging; all files are durable and in place when this returns. The index is not changed.

    `row_of` returns the final row; its copy is written beside the manifest. `check` is called between chunks and raises
    StoppedError to give up. Raises ToolError if the outputs cannot be an artifact, for example with more than
    `files_limit` files and folders; OSError if the disk fails.
    """
    if not stat.S_ISDIR(folder.staging.lstat().st_mode):
        raise ToolError("The output folder was replaced by something that is not a folder.")
    entries = scan(folder.staging, check, files_limit)
    manifest = Manifest(tuple(sorted(entries, key=lambda entry: entry.path)))
    with folder.manifest.open("xb") as file:
        # In this form the sha256 of the file is the digest of the artifact.
        file.write(manifest.canonical)
    with syncing([folder.manifest, *_written(folder.staging, manifest)]):
        if row_of is not None:
            write_row_copy(folder, row_of(manifest))
        if not file_states.is_quick_to_read(manifest):
            file_states.save_states(manifest.digest, file_states.read_states(folder.staging), folder)
    folder.staging.rename(folder.data)
    sync_folder(folder.path)
    return manifest


def read_manifest(folder: Folder, digest: str | None = None) -> Manifest:
    """Return the manifest; raise DamagedError if it is damaged or does not have the digest `digest`."""
    content = folder.manifest.read_bytes()
    try:
        manifest = Manifest.from_json(json.loads(content))
        _check_entries(manifest)
        # Earlier versions wrote it in another form.
        if digest is not None and hashlib.sha256(content).hexdigest() != digest != manifest.digest:
            raise ValueError("it does not have the digest of the artifact.")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"Its manifest is damaged: {error}") from error
    return manifest


def size_damage(entry: FileEntry, path: str) -> str | None:
    """Return a sentence if the published file at `path` is missing or has another size."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return f"Its file {entry.path!r} is gone."
    if not stat.S_ISREG(found.st_mode):
        return f"Its file {entry.path!r} is now {_kind(found.st_mode)}."
    if found.st_size != entry.size:
        return f"Its file {entry.path!r} has {found.st_size} bytes instead of {entry.size}."
    return None


def _check_entries(manifest: Manifest) -> None:
    for entry in manifest.files:
        if not isinstance(entry.path, str) or _OUTSIDE.search(entry.path):
            raise ValueError(f"the path {entry.path!r} leads out of the artifact.")
        entry.path.encode()  # a lone surrogate is no text that could be served
        if not isinstance(entry.size, int) or entry.size < 0 or not _SHA256.fullmatch(entry.sha256):
            raise ValueError(f"size and digest of {entry.path!r} cannot be read.")


def _written(root: Path, manifest: Manifest) -> Iterator[Path]:
    """Yield every file and folder that must be synced."""
    if not manifest.files:
        return
    for entry in manifest.files:
        yield root / entry.path
    for folder, _, _ in os.walk(root):
        yield Path(folder)


def scan(root: Path, check: Callable[[], None], files_limit: int = _NO_LIMIT) -> list[FileEntry]:
    """Digest every file below `root` and make it read-only.

    Raises ToolError for anything but plain files and folders, and for more than `files_limit` of them. Raises it, too,
    for a file that another process has open to write, or that changes before the last file is digested.
    """
    _Scan(root, check, files_limit).resolve_links()
    found = list(_Scan(root, check, files_limit).files())
    _detach(found)
    can_ask_for_writers = has_leases(root)
    digested = [_digest(path, root, check, can_ask_for_writers) for path in found]
    for path, (entry, state) in zip(found, digested, strict=True):
        if _state(path) != state:
            raise _changed(entry.path)
    return [entry for entry, _ in digested]


@dataclass(frozen=True, slots=True)
class _Scan:
    """One walk through a staging folder."""

    root: Path
    check: Callable[[], None]
    files_limit: int

    def resolve_links(self) -> None:
        """Replace each symbolic link to a file of the artifact by that file; refuse all other links."""
        for path in list(self._walk()):
            if path.is_symlink():
                self._resolve(path)

    def _resolve(self, path: Path) -> None:
        shown = path.relative_to(self.root).as_posix()
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            raise ToolError(f"The output {shown!r} is a symbolic link that leads nowhere.") from None
        if not target.is_relative_to(self.root.resolve()):
            raise ToolError(f"The output {shown!r} is a symbolic link to the outside of the artifact.")
        if not target.is_file():
            raise ToolError(f"The output {shown!r} is a symbolic link to something that is not a file.")
        temporary = path.with_name(f".{path.name}.resolved"[:255])
        os.link(target, temporary)
        temporary.replace(path)

    def files(self) -> Iterator[Path]:
        """Yield every file; raise ToolError for anything that is neither file nor folder."""
        for path in self._walk():
            mode = path.lstat().st_mode
            shown = path.relative_to(self.root).as_posix()
            if not stat.S_ISREG(mode):
                raise ToolError(f"The output {shown!r} is {_kind(mode)}; outputs are files and folders.")
            _check_name(shown)
            yield path

    def _walk(self) -> Iterator[Path]:
        """Yield everything but the folders, without following links; raise ToolError at a limit of number or path."""
        waiting, count = [(os.fspath(self.root), 0)], 0
        start = len(waiting[0][0]) + 1
        while waiting:
            folder, depth = waiting.pop()
            self.check()
            with os.scandir(folder) as entries:
                listed = sorted(islice(entries, self.files_limit - count + 1), key=lambda entry: entry.name)
            count += len(listed)
            if count > self.files_limit:
                raise _too_many(self.files_limit)
            folders = []
            for entry in listed:
                _check_place(entry.path[start:], depth)
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, depth + 1))
                else:
                    yield Path(entry.path)
            waiting += reversed(folders)


def _too_many(files_limit: int) -> ToolError:
    return ToolError(
        f"The tool wrote more than {files_limit} files and folders, which is the limit of this container "
        "(BONSEYES_FILES_LIMIT); put many small files into one."
    )


def _check_place(shown: str, depth: int) -> None:
    if depth > _MOST_FOLDERS:
        raise ToolError(
            f"The output {_shortened(shown)} lies more than {_MOST_FOLDERS} folders deep; put it into fewer folders."
        )
    if len(os.fsencode(shown)) > _LONGEST_PATH_BYTES:
        raise ToolError(
            f"The output {_shortened(shown)} has a path of more than {_LONGEST_PATH_BYTES} bytes; shorten it."
        )


def _shortened(shown: str) -> str:
    return repr(shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:_SHOWN_CHARACTERS]}...")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFLNK: "a symbolic link",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _check_name(shown: str) -> None:
    try:
        shown.encode("utf-8")
    except UnicodeEncodeError:
        raise ToolError(f"The output {shown!r} has a name that is not UTF-8.") from None
    if not shown.isprintable() or "\\" in shown:
        raise ToolError(f"The output {shown!r} has a name with a backslash or a character that cannot be printed.")


def _detach(found: list[Path]) -> None:
    """Copy each file that has a hard link outside of staging.

    The file outside must not become read-only, and its changes must not reach the artifact.
    """
    stats = {path: path.lstat() for path in found}
    inside = Counter(entry.st_ino for entry in stats.values())
    for path, entry in stats.items():
        if entry.st_nlink > inside[entry.st_ino]:
            temporary = path.with_name(f".{path.name}.detached"[:255])
            copy(path, temporary)
            temporary.replace(path)


def _digest(
    path: Path, root: Path, check: Callable[[], None], can_ask_for_writers: bool
) -> tuple[FileEntry, FileState]:
    """Make a file read-only; return its entry, and its state from before it was read."""
    shown = str(path)[len(str(root)) + 1 :]
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor, opened without following links
        # Read-only, because an artifact that re-uses this one shares the same file.
        os.fchmod(descriptor, 0o444)
        if can_ask_for_writers and is_open_to_write(descriptor):
            _wait_for_writers(descriptor, shown, check)
        state = state_of(os.fstat(descriptor))
        digest, size = hashlib.sha256(), 0
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            check()
    return FileEntry(shown, size, digest.hexdigest()), state


def _wait_for_writers(descriptor: int, shown: str, check: Callable[[], None]) -> None:
    """Wait until no process has the file open to write; the kernel closes files of ended processes a little late."""
    deadline_s = time.monotonic() + _CLOSED_WITHIN_S
    while is_open_to_write(descriptor):
        check()
        if time.monotonic() >= deadline_s:
            pids = ", ".join(map(str, writers_of(descriptor)))
            raise ToolError(
                f"The output {shown!r} is still open to write in another process{pids and f' ({pids})'}; "
                "every process must close the files before the tool ends."
            )
        time.sleep(_LOOK_EVERY_S)


def _state(path: Path) -> FileState | None:
    try:
        return state_of(os.lstat(path))
    except FileNotFoundError:
        return None


def _changed(shown: str) -> ToolError:
    return ToolError(
        f"The output {shown!r} changed while outputs were digested: another process writes to it. "
        "Every process that writes to outputs must end before the tool ends."
    )
