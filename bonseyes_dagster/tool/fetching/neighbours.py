"""Link input files from the volume of another container on this machine, instead of a download."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Any

from bonseyes_dagster.model import FileEntry
from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.urls import is_name

__all__ = ["Neighbour"]

_ID = re.compile(r"[0-9a-f]{32}")
_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH


class Neighbour:
    """The files of one artifact in the volume of the container that made it.

    The volume is not trusted. A link counts only if the file is plain, read-only and at the expected path. It must also
    have the digest from the manifest, which came over HTTP.
    """

    def __init__(self, volumes: Path, container: str, artifact_id: Any) -> None:
        self._data: Path | None = None
        if is_name(container) and isinstance(artifact_id, str) and _ID.fullmatch(artifact_id):
            # The path to the volume may contain symbolic links; paths inside of it do not.
            volume = Volume((volumes / container).resolve())
            self._data = volume.folder(artifact_id).data

    def link(self, entry: FileEntry, target: Path) -> bool:
        """Make `target` a hard link to a published file; return False, without a `target`, if it must be downloaded.

        The other container may delete its file later; the link stays.
        """
        if self._data is None:
            return False
        source = self._data / entry.path
        temporary = target.with_name(f".{os.urandom(16).hex()}.linked")
        try:
            # `realpath` is quicker than `Path.resolve`, and there may be many files.
            if os.path.realpath(source) != str(source) or not source.is_relative_to(self._data):
                return False
            os.link(source, temporary, follow_symlinks=False)
            # Check the file only now: nobody else can replace our own link.
            if not _is_published_file(temporary, entry):
                return False
            temporary.rename(target)
        except OSError:  # the file is missing, not readable, or on another file system
            return False
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return True


def _is_published_file(path: Path, entry: FileEntry) -> bool:
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_mode & _WRITABLE or found.st_size != entry.size:
        return False
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
