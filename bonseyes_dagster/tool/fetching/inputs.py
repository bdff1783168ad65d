"""Input artifacts as a tool sees them: a file is fetched at its first use and verified by its digest."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from bonseyes_dagster.client import Container
from bonseyes_dagster.errors import BonseyesError, NotFoundError, ToolError
from bonseyes_dagster.model import FileEntry, Manifest
from bonseyes_dagster.tool.fetching.neighbours import Neighbour
from bonseyes_dagster.tool.fetching.outbound import Policy, session
from bonseyes_dagster.tool.files.given_files import GivenFiles

__all__ = ["Input", "LocalInput", "RemoteInput"]

_FEW_FILES = 4


class Input(ABC):
    """An artifact that is the value of a parameter."""

    name: str
    container: str
    url: str
    folder: Path
    """The folder on this disk for its files; a file is there after its first use."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """The sha256 of its content."""

    @property
    @abstractmethod
    def manifest(self) -> Manifest:
        """All its files."""

    @abstractmethod
    def path(self, relative: str) -> Path:
        """Return the path of the file `relative`, complete and verified; the tool must not change the file."""

    def json(self, relative: str) -> Any:
        """Return the parsed content of a JSON file."""
        return json.loads(self.path(relative).read_bytes())

    def paths(self, prefix: str = "") -> list[Path]:
        """Return all files, or those below the folder `prefix`."""
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        return [self.path(entry.path) for entry in self.manifest.files if entry.path.startswith(start)]

    @cached_property
    def _entries(self) -> dict[str, FileEntry]:
        return {entry.path: entry for entry in self.manifest.files}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.container}/{self.name}>"

    def _entry(self, relative: str) -> FileEntry:
        relative = PurePosixPath(relative).as_posix()
        if relative in self._entries:
            return self._entries[relative]
        few = ", ".join(entry.path for entry in self.manifest.files[:_FEW_FILES])
        more = ", ..." if len(self.manifest.files) > _FEW_FILES else ""
        raise NotFoundError(f"{self.container}/{self.name} has no file {relative!r}; it has {few or 'none'}{more}.")


class RemoteInput(Input):
    """An artifact of another container.

    `volumes` is the folder on this machine where the files of other containers may lie. Files that are linked from
    there are added to `given`.
    """

    def __init__(
        self,
        reference: Mapping[str, Any],
        folder: Path,
        policy: Policy,
        volumes: Path | None = None,
        given: GivenFiles | None = None,
    ) -> None:
        self.name = reference["name"]
        self.container = reference["container"]
        self.url = reference["url"]
        self._digest: str = reference["digest"]
        self.folder = folder
        base_url = policy.addresses.base_url(self.container)
        self._artifact = Container(base_url, name=self.container, session=session(policy)).artifact(self.name)
        self._volumes = volumes
        self._given = given
        self._there: set[str] = set()

    @property
    def digest(self) -> str:
        """Return its digest from when this artifact was created."""
        return self._digest

    @cached_property
    def manifest(self) -> Manifest:
        """Return its files; raise ToolError if it has another digest than when this artifact was created."""
        manifest = self._artifact.manifest()
        if manifest.digest != self.digest:
            raise ToolError(f"The artifact {self.container}/{self.name} was replaced since it was given as input.")
        return manifest

    @cached_property
    def _neighbour(self) -> Neighbour | None:
        if self._volumes is None:
            return None
        try:
            return Neighbour(self._volumes, self.container, self._artifact.info().get("id"))
        except BonseyesError:  # the download will report the error
            return None

    def path(self, relative: str) -> Path:
        """Return the path of the file; the first call links or downloads it and verifies it."""
        entry = self._entry(relative)
        target = self.folder / entry.path
        if entry.path not in self._there:
            if not _is_inside(entry.path):
                raise ToolError(f"{self.container}/{self.name} names {relative!r}, which is outside of it.")
            target.parent.mkdir(parents=True, exist_ok=True)
            if self._neighbour is None or not self._neighbour.link(entry, target):
                self._artifact.download(entry, target)
            elif self._given is not None:
                self._given.add(target, f"{entry.path!r}, a file that {self.container}/{self.name} has published")
            self._there.add(entry.path)
        return target

    def download_all(self) -> Path:
        """Download everything and return the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.paths()
        return self.folder


class LocalInput(Input):
    """A folder that takes the place of an artifact in the tests of a tool."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.container = "local"
        self.url = folder.absolute().as_uri()

    @cached_property
    def manifest(self) -> Manifest:
        """Return the manifest of the folder's files, which are digested here."""
        files = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return Manifest(tuple(sorted((_entry(path, self.folder) for path in files), key=lambda entry: entry.path)))

    @cached_property
    def digest(self) -> str:
        """Return the digest of the manifest."""
        return self.manifest.digest

    def path(self, relative: str) -> Path:
        """Return the path of the file in the folder itself."""
        return self.folder / self._entry(relative).path


def _entry(path: Path, folder: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(path.relative_to(folder).as_posix(), path.stat().st_size, digest)


def _is_inside(relative: str) -> bool:
    path = PurePosixPath(relative)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
