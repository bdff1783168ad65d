"""What the Compose project of a folder is called; everything that asks Docker by a project's name asks here first.

Docker knows projects by name alone, and two checkouts may lie in folders of one name. So the default name holds a
digest of the folder's path. Containers know their folder, volumes do not.
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
    """Return what Compose calls the project in `folder`: what the environment or `.env` says, else the default name.

    Raises UnavailableError when the default name is wanted and the engine does not answer.
    """
    said = compose_environ(folder, environ).get("COMPOSE_PROJECT_NAME")
    return said or DefaultName(folder, timeout_s).chosen()


def name_with_containers(folder: Path, environ: Mapping[str, str], *, timeout_s: float = ASKING_S) -> str | None:
    """Return the project's name as `project_name` does, None where the engine is known to have no containers of it."""
    said = compose_environ(folder, environ).get("COMPOSE_PROJECT_NAME")
    return said or DefaultName(folder, timeout_s).with_containers()


@dataclass(frozen=True, slots=True)
class DefaultName:
    """The name of the project in `folder` where nobody has chosen one."""

    folder: Path
    timeout_s: float = ASKING_S

    @property
    def plain(self) -> str:
        """The folder's name, as `docker compose` has it by itself, and earlier versions of this package had."""
        return re.sub(r"[^-_a-z0-9]", "", self.folder.resolve().name.lower()).lstrip("-_")

    @property
    def own(self) -> str:
        """The folder's name and a digest of its path."""
        digest = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()
        return f"{self.plain or 'project'}-{digest[:_DIGITS]}"

    def chosen(self) -> str:
        """Return the plain name while this folder has containers of it, else the folder's own."""
        return self.with_containers() or self.own

    def with_containers(self) -> str | None:
        """Return the name that this folder's containers have, None when it has none."""
        folders = self._folders()
        if self.folder.resolve() in folders.get(self.plain, ()):
            return self.plain
        return self.own if self.own in folders else None

    def check(self) -> None:
        """Raise SettingsError when there are volumes of the plain name that may be this folder's, or another's."""
        if self.plain in self._ownerless():
            raise SettingsError(
                f"Docker has volumes of a project {self.plain!r} and does not know which folder they are of. "
                f"If they are of {self.folder.resolve()}, set COMPOSE_PROJECT_NAME={self.plain}; "
                f"if they are another's, set COMPOSE_PROJECT_NAME={self.own}. A line in `.env` keeps the choice."
            )

    def moved(self) -> list[str]:
        """Return the projects that may be this folder's of before it was moved: they have volumes and no containers."""
        pattern = re.compile(rf"{re.escape(self.own[:-_DIGITS])}[0-9a-f]{{{_DIGITS}}}")
        return sorted(filter(pattern.fullmatch, self._ownerless()))

    def _ownerless(self) -> set[str]:
        """Return the projects that have volumes and no containers; none when the folder's own project has any."""
        projects = set(_lines("volume", "ls", "--filter", f"label={PROJECT}", "--format", _label(PROJECT)))
        folders = self._folders()
        is_known = self.own in projects or self.chosen() == self.plain
        return set() if is_known else projects - folders.keys()

    def _folders(self) -> dict[str, set[Path]]:
        """Return the folders that the containers of each project were started from."""
        found: dict[str, set[Path]] = {}
        columns = f"{_label(PROJECT)}\t{_label(FOLDER)}"
        for line in _lines(
            "ps", "--all", "--filter", f"label={PROJECT}", "--format", columns, timeout_s=self.timeout_s
        ):
            project, _, folder = line.partition("\t")
            # A container of a run has no folder. Compose writes down the links by which a shell went there.
            found.setdefault(project, set()).update([Path(folder).resolve()] if folder else [])
        return found


def _label(name: str) -> str:
    return f'{{{{.Label "{name}"}}}}'


def _lines(*arguments: str, timeout_s: float = ASKING_S) -> Iterator[str]:
    yield from filter(None, docker(*arguments, timeout_s=timeout_s).splitlines())
