"""A backup on disk: a folder with a file for each part of a project, and a manifest with their sizes and digests."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, get_args

from bonseyes_dagster.errors import (
    ConflictError,
    DigestMismatchError,
    InvalidError,
    NotFoundError,
    StorageFullError,
)
from bonseyes_dagster.model import now
from bonseyes_dagster.system.storage import is_full, sync_folder

__all__ = ["BackupManifest", "Kind", "Part", "Show", "Source", "read_backup", "verify", "write_backup"]

FORMAT = 1
MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 20
# A manifest may come from anywhere, and its file names are opened and become names of volumes.
_FILE = re.compile(r"(volumes/)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

Kind = Literal["embedded", "docker"]
# Writes one part to a file.
Source = Callable[[BinaryIO], None]
# Takes a part's file name and its size, if known; its block gets a function to call with the number of bytes done.
Show = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a backup: `volumes/NAME.tar`, `dagster.tar` or `postgres.dump`."""

    file: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupManifest:
    """The list of the parts of a backup. It is written last: a folder without a manifest is not a backup."""

    project: str
    kind: Kind
    created: str
    versions: Mapping[str, str]
    parts: tuple[Part, ...]
    format: int = FORMAT

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of the file."""
        return {**asdict(self), "parts": [asdict(part) for part in self.parts]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the JSON of `to_json`; raise ValueError, TypeError or KeyError for any other JSON."""
        manifest = cls(**{**data, "parts": tuple(Part(**entry) for entry in data["parts"])})
        if manifest.kind not in get_args(Kind):
            raise ValueError(f"{manifest.kind!r} is not a kind of project")
        for part in manifest.parts:
            if not _FILE.fullmatch(part.file) or ".." in part.file:
                raise ValueError(f"{part.file!r} is not the name of a part")
        return manifest


def write_backup(
    target: Path,
    *,
    project: str,
    kind: Kind,
    versions: Mapping[str, str],
    sources: Mapping[str, Source],
    show: Show,
    check: Callable[[], None] = lambda: None,
) -> BackupManifest:
    """Write every source to a file of its name below the new folder `target`; after an error, nothing is left.

    It calls `check` when all parts are written; `check` raises an error if the backup is useless. Raises ConflictError
    when `target` exists, StorageFullError when the disk is full.
    """
    if target.exists():
        raise ConflictError(f"{target} exists already; give the path of a new folder.")
    draft = target.with_name(f".{target.name}.partial")
    # A killed backup may have left this folder.
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(mode=0o700, parents=True)
        (draft / "volumes").mkdir(mode=0o700)
        parts = tuple(_write_part(draft, file, source, show) for file, source in sources.items())
        check()
        manifest = BackupManifest(project=project, kind=kind, created=now(), versions=dict(versions), parts=parts)
        with _durable(draft / MANIFEST) as file:
            file.write((json.dumps(manifest.to_json(), indent=2) + "\n").encode())
        for folder in (draft / "volumes", draft):
            sync_folder(folder)
        draft.rename(target)
        sync_folder(target.parent)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if is_full(error):
            raise StorageFullError(f"The disk of {target.parent} is full; the backup needs more room.") from error
        raise
    return manifest


def _write_part(draft: Path, name: str, source: Source, show: Show) -> Part:
    with show(name, None) as report, _durable(draft / name) as file:
        writer = _Digesting(file, report)
        source(writer)
        return Part(file=name, size=writer.size, sha256=writer.sha256)


class _Digesting(io.RawIOBase, BinaryIO):
    """A writer to a file that computes the digest and the size of the written data."""

    def __init__(self, file: BinaryIO, report: Callable[[int], None]) -> None:
        self._file = file
        self._report = report
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
        self._report(self.size)
        return len(data)


def read_backup(folder: Path) -> BackupManifest:
    """Return the manifest of a backup; raise NotFoundError or InvalidError when `folder` has no valid manifest."""
    try:
        data = json.loads((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise NotFoundError(f"{folder} is not a backup: {MANIFEST} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InvalidError(f"{folder / MANIFEST} is not JSON: {error}.") from error
    found = data.get("format") if isinstance(data, dict) else None
    if found != FORMAT:
        raise InvalidError(f"{folder} is a backup in format {found!r}; this version can only read format {FORMAT}.")
    try:
        return BackupManifest.from_json(data)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidError(f"{folder / MANIFEST} is damaged: {error}.") from error


def verify(folder: Path, manifest: BackupManifest, show: Show) -> None:
    """Read every part; raise DigestMismatchError when a digest differs from the manifest's."""
    for part in manifest.parts:
        with show(part.file, part.size) as report:
            found = _sha256(folder / part.file, report)
        if found != part.sha256:
            raise DigestMismatchError(
                f"{folder / part.file} is damaged: its sha256 is {found or 'missing'}, not {part.sha256}."
            )


def _sha256(path: Path, report: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                report(file.tell())
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


@contextmanager
def _durable(path: Path) -> Iterator[BinaryIO]:
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
