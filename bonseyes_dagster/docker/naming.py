"""The name of a folder's Compose project; every call of Docker that needs this name gets it here.

Docker identifies a project by its name alone, but two checkouts may lie in folders of one name. So the default name
holds a digest of the folder's path. Containers store the path of their folder, volumes do not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bonseyes_dagster.docker.engine import ASKING_S, docker
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.project.environment import compose_environ

__all__ = ["FOLDER", "PROJECT", "DefaultName", "name_with_containers", "project_name"]

PROJECT = "com.docker.compose.project"
FOLDER = f"{PROJECT}.working_dir"
_DIGITS = 8


def project_name(folder: Path, environ: Mapping[str, str], *, timeout_s: float = ASKING_S) -> str:
    """Return the Compose name of the project in `folder`: from the environment or `.env`, else the default name.

    Raises UnavailableError when it needs the default name and the engine does not answer.
    """
    chosen = compose_environ(folder, environ).get("COMPOSE_PROJECT_NAME")
    return chosen or DefaultName(folder, timeout_s).current()


def name_with_containers(folder: Path, environ: Mapping[str, str], *, timeout_s: float = ASKING_S) -> str | None:
    """Return the name as `project_name` does, but no default name while the folder has no containers."""
    chosen = compose_environ(folder, environ).get("COMPOSE_PROJECT_NAME")
    return chosen or DefaultName(folder, timeout_s).with_containers()


@dataclass(frozen=True, slots=True)
class DefaultName:
    """The name of the project in `folder` when the user has not set COMPOSE_PROJECT_NAME."""

    folder: Path
    timeout_s: float = ASKING_S

    @property
    def plain(self) -> str:
        """The folder's name: the default of `docker compose`, and of earlier versions of this package."""
        return re.sub(r"[^-_a-z0-9]", "", self.folder.resolve().name.lower()).lstrip("-_")

    @property
    def own(self) -> str:
        """The folder's name and a digest of its path."""
        digest = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()
        return f"{self.plain or 'project'}-{digest[:_DIGITS]}"

    def current(self) -> str:
        """Return the plain name while this folder has containers of that name, else the name with the digest."""
        return self.with_containers() or self.own

    def with_containers(self) -> str | None:
        """Return the project name of this folder's containers; None when it has no containers."""
        folders = self._folders()
        if self.folder.resolve() in folders.get(self.plain, ()):
            return self.plain
        return self.own if self.own in folders else None

    def check(self) -> None:
        """Raise SettingsError when volumes of the plain name exist that may belong to another folder."""
        if self.plain in self._ownerless():
            raise SettingsError(
                f"Docker has volumes of a project {self.plain!r} and does not know to which folder they belong. "
                f"If they belong to {self.folder.resolve()}, set COMPOSE_PROJECT_NAME={self.plain}; "
                f"if they belong to another folder, set COMPOSE_PROJECT_NAME={self.own}. A line in `.env` keeps it."
            )

    def former_names(self) -> list[str]:
        """Return the names that this project may have had before a move of its folder; they have only volumes."""
        pattern = re.compile(rf"{re.escape(self.own[:-_DIGITS])}[0-9a-f]{{{_DIGITS}}}")
        return sorted(filter(pattern.fullmatch, self._ownerless()))

    def _ownerless(self) -> set[str]:
        """Return the projects with volumes but no containers; an empty set if this folder's project has volumes."""
        projects = set(_lines("volume", "ls", "--filter", f"label={PROJECT}", "--format", _label(PROJECT)))
        folders = self._folders()
        is_known = self.own in projects or self.current() == self.plain
        return set() if is_known else projects - folders.keys()

    def _folders(self) -> dict[str, set[Path]]:
        """Return the folders of each project, from the labels of its containers."""
        found: dict[str, set[Path]] = {}
        columns = f"{_label(PROJECT)}\t{_label(FOLDER)}"
        for line in _lines(
            "ps", "--all", "--filter", f"label={PROJECT}", "--format", columns, timeout_s=self.timeout_s
        ):
            project, _, folder = line.partition("\t")
            # A container of a run has no folder. Compose stores the path of the shell, which may lead through links.
            found.setdefault(project, set()).update([Path(folder).resolve()] if folder else [])
        return found


def _label(name: str) -> str:
    return f'{{{{.Label "{name}"}}}}'


def _lines(*arguments: str, timeout_s: float = ASKING_S) -> Iterator[str]:
    yield from filter(None, docker(*arguments, timeout_s=timeout_s).splitlines())
