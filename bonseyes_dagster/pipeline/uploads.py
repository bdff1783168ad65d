"""Stores the archives that are uploaded with a run, on the volume, until the run is deleted. `runs.py` calls it."""

from __future__ import annotations

import json
import logging
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.model import FileEntry
from bonseyes_dagster.system.replacing import replace_file
from bonseyes_dagster.system.storage import storage_errors, sync_folder
from bonseyes_dagster.web.backend import DataFile
from bonseyes_dagster.web.uploads import UploadedFile

__all__ = ["RunDraft", "Uploads"]

_log = logging.getLogger(__name__)
_INDEX = "files.json"
_DRAFT_AGE_S = 24 * 3600.0
_WHY = "No run has the tag of these uploads: the run was deleted in Dagster, or Dagster's storage was lost.\n"


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
        for file in draft.files.values():
            sync_folder(file.path.parent)
        index = {name: _entry(draft.folder, file) for name, file in draft.files.items()}
        replace_file(draft.folder / _INDEX, json.dumps(index).encode(), is_durable=True)
        self._kept.mkdir(parents=True, exist_ok=True)
        draft.folder.rename(self._kept / token)
        sync_folder(self._kept)
        return token

    def path(self, token: str, file: UploadedFile) -> Path:
        """Return the path of a kept file."""
        return self._kept / token / file.path.parent.name / file.path.name

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
        path = self.folder / parameter / filename
        with storage_errors():
            path.parent.mkdir(parents=True)
            self.files[parameter] = UploadedFile(path, reserve_bytes=self._reserve_bytes)
        return cast(BinaryIO, self.files[parameter])

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each file, by parameter."""
        return {name: file.sha256 for name, file in self.files.items()}

    def discard(self) -> None:
        """Remove all files that were not kept."""
        for file in self.files.values():
            file.abandon()
        shutil.rmtree(self.folder, ignore_errors=True)


def _entry(folder: Path, file: UploadedFile) -> dict[str, Any]:
    """Return the entry of a file in `files.json`."""
    path = file.path.relative_to(folder)
    return {"path": path.as_posix(), "size": file.size_bytes, "sha256": file.sha256}


def _checked(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    path = entry["path"]
    if not isinstance(path, str) or path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"the path {path!r} leads out of the uploads")
    return {"path": path, "size": int(entry["size"]), "sha256": str(entry["sha256"])}


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []


def _modified(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another process has just removed it
        return time.time()
