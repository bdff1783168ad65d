"""Stores the archives that are uploaded with a run, on the volume, until the run is deleted. `runs.py` calls it."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from bonseyes_dagster.errors import NotFoundError, StorageFullError
from bonseyes_dagster.model import FileEntry
from bonseyes_dagster.web.backend import DataFile

__all__ = ["RunDraft", "Uploads"]

_log = logging.getLogger(__name__)
_INDEX = "files.json"
_CHECK_BYTES = 1 << 24
_DRAFT_AGE_S = 24 * 3600.0
_WHY = "No run has the tag of these uploads: the run was deleted in Dagster, or Dagster's storage was lost.\n"
_FULL = "The pipeline's volume has no room for the upload."


class Uploads:
    """Folders of uploaded files on the volume. Each folder has a token, and the run has that token as a tag."""

    def __init__(self, volume: Path, *, reserve_bytes: int) -> None:
        self._drafts = volume / "drafts"
        self._kept = volume / "uploads"
        self._lost = volume / "lost+found"
        self._reserve_bytes = reserve_bytes

    def begin(self) -> RunDraft:
        """Return a new draft, for the files of one creation."""
        return RunDraft(self._drafts / uuid.uuid4().hex, self._reserve_bytes)

    def keep(self, draft: RunDraft) -> str:
        """Keep the files of a draft durably, and return their token; "" if there are no files."""
        if not draft.files:
            return ""
        token = draft.folder.name
        index = draft.folder / _INDEX
        index.write_text(json.dumps({name: entry.to_json() for name, entry in draft.files.items()}))
        for path in (index, draft.folder):
            _sync(path)
        self._kept.mkdir(parents=True, exist_ok=True)
        draft.folder.rename(self._kept / token)
        _sync(self._kept)
        return token

    def path(self, token: str, file: UploadedFile) -> Path:
        """Return the path of a kept file."""
        return self._kept / token / file.relative

    def names(self, token: str) -> list[str]:
        """Return the names of the parameters with an uploaded file."""
        try:
            return list(self._index(token))
        except NotFoundError as error:
            # The other data of the run must stay readable.
            _log.error("The uploads %s cannot be listed: %s", token, error.message)
            return []

    def file(self, token: str, name: str) -> DataFile:
        """Return the file that was uploaded for a parameter."""
        index = self._index(token)
        entry = index.get(name)
        if entry is None:
            raise NotFoundError(f"No file was uploaded for {name!r}; there are: {', '.join(index) or 'none'}.")
        path = self._kept / token / entry["path"]
        size, sha256 = entry["size"], entry["sha256"]
        return DataFile(FileEntry(Path(entry["path"]).name, size, sha256), lambda: path.open("rb"))

    def remove(self, token: str) -> None:
        """Remove the files of a token."""
        if token:
            shutil.rmtree(self._kept / token, ignore_errors=True)

    def set_aside(self, token: str) -> None:
        """Move the files of a token without a run to `lost+found`: perhaps the storage has lost the run."""
        place = self._lost / f"uploads-{token}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        try:
            place.mkdir(parents=True)
            (place / "why.txt").write_text(_WHY)
            (self._kept / token).rename(place / token)
        except OSError as error:
            _log.error("The uploads %s belong to no run and cannot be set aside: %s.", token, error)
            return
        _log.warning("The uploads %s belong to no run and were set aside in %s.", token, place)

    def tokens(self, *, older_than_s: float) -> list[str]:
        """Return the tokens of files that are older than `older_than_s`."""
        limit = time.time() - older_than_s
        return [folder.name for folder in _folders(self._kept) if _modified(folder) < limit]

    def clean_drafts(self) -> None:
        """Remove the drafts of uploads whose process ended before the upload was complete."""
        for folder in _folders(self._drafts):
            if _modified(folder) < time.time() - _DRAFT_AGE_S:
                shutil.rmtree(folder, ignore_errors=True)

    def _index(self, token: str) -> Mapping[str, Any]:
        if not token:
            return {}
        try:
            found = json.loads((self._kept / token / _INDEX).read_text())
            return {name: _checked(entry) for name, entry in found.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NotFoundError(f"The list of the uploaded files is damaged: {error}.") from error


class RunDraft:
    """The files of one creation during their upload."""

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self.folder = folder
        self.files: dict[str, UploadedFile] = {}
        self._reserve_bytes = reserve_bytes

    def open(self, parameter: str, filename: str) -> BinaryIO:
        """Return an open file for one uploaded part."""
        relative = f"{parameter}/{_plain(filename)}"
        path = self.folder / relative
        path.parent.mkdir(parents=True)
        self.files[parameter] = UploadedFile(path, relative, self._reserve_bytes)
        return cast(BinaryIO, self.files[parameter])

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each file, by parameter."""
        return {name: file.sha256 for name, file in self.files.items()}

    def discard(self) -> None:
        """Remove all files that were not kept."""
        for file in self.files.values():
            file.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class UploadedFile(io.FileIO):
    """A file that computes its digest, leaves a reserve of free disk space, and is synced to disk when closed."""

    def __init__(self, path: Path, relative: str, reserve_bytes: int) -> None:
        super().__init__(path, "xb")
        self.relative = relative
        self.size = 0
        self._digest = hashlib.sha256()
        self._reserve_bytes = reserve_bytes
        self._unchecked = _CHECK_BYTES

    @property
    def sha256(self) -> str:
        """Return the hex digest of the written bytes."""
        return self._digest.hexdigest()

    def write(self, data: Any, /) -> int:
        """Write all of `data`; raise StorageFullError if only the reserve of disk space is left."""
        view = memoryview(data).cast("B")
        self._unchecked += len(view)
        if self._unchecked >= _CHECK_BYTES:
            self._check_space()
        while view:
            written = self._write_some(view)
            self._digest.update(view[:written])
            self.size += written
            view = view[written:]
        return len(data)

    def _write_some(self, view: memoryview) -> int:
        try:
            return super().write(view)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFullError(_FULL) from error
            raise

    def close(self) -> None:
        """Sync the file to disk and close it; do nothing if it is closed."""
        if not self.closed:
            os.fsync(self.fileno())
        super().close()

    def to_json(self) -> dict[str, Any]:
        """Return the entry of the file in `files.json`."""
        return {"path": self.relative, "size": self.size, "sha256": self.sha256}

    def _check_space(self) -> None:
        self._unchecked = 0
        status = os.fstatvfs(self.fileno())
        if status.f_bavail * status.f_frsize < self._reserve_bytes:
            raise StorageFullError(_FULL)


def _checked(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    path = entry["path"]
    if not isinstance(path, str) or path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"the path {path!r} leads out of the uploads")
    return {"path": path, "size": int(entry["size"]), "sha256": str(entry["sha256"])}


def _plain(filename: str) -> str:
    """Return a name that is safe for any file system and any log, with the same extension."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", filename)[-100:].lstrip(".") or "file"


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []


def _modified(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another process has just removed it
        return time.time()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
