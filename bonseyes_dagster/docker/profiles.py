"""Which compose files a project in Docker is made of: `docker-compose.yml`, and one more for each profile that has one.

A profile of Compose adds services and cannot change one, and Compose passes over one that it does not know. So here
the profile NAME is the file `docker-compose.NAME.yml`, if there is one, and otherwise one of Compose's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bonseyes_dagster.docker.compose.files import COMPOSE_FILE
from bonseyes_dagster.errors import SettingsError

__all__ = ["Profiles"]

# Compose reads it by itself, where it is not told which files to read.
_OVERRIDE = "override"
_RUN_CONTAINERS = "run-containers"


@dataclass(frozen=True, slots=True)
class Profiles:
    """The profiles that are wanted of the project in `folder`: those `named`, and those that `variables` say."""

    folder: Path
    variables: Mapping[str, str]
    named: tuple[str, ...] = ()

    @property
    def wanted(self) -> list[str]:
        """Their names, each once."""
        names = [*self.named, *self.variables.get("COMPOSE_PROFILES", "").split(",")]
        if self.variables.get("BONSEYES_RUN_LAUNCHER") == "docker":
            names.append(_RUN_CONTAINERS)
        return list(dict.fromkeys(filter(None, map(str.strip, names))))

    @property
    def with_file(self) -> dict[str, str]:
        """The name of each profile that there is a file for, with that file's."""
        files = {_name(file): file.name for file in sorted(self.folder.glob("docker-compose.*.yml"))}
        return {name: file for name, file in files.items() if name != _OVERRIDE}

    @property
    def own(self) -> list[str]:
        """Those wanted that must be Compose's own."""
        return [name for name in self.wanted if name not in self.with_file]

    @property
    def files(self) -> list[str]:
        """The files to be read, none where Compose finds them by itself."""
        more = [self.with_file[name] for name in self.wanted if name in self.with_file]
        if self._told or not more:
            return []
        found = f"docker-compose.{_OVERRIDE}.yml"
        return [COMPOSE_FILE, *([found] if (self.folder / found).exists() else []), *more]

    @property
    def _told(self) -> list[Path]:
        """The files that COMPOSE_FILE names."""
        separator = self.variables.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        names = filter(None, self.variables.get("COMPOSE_FILE", "").split(separator))
        return [(self.folder / name).resolve() for name in names]

    def check(self, composes: list[str]) -> None:
        """Raise SettingsError for what is wanted and not to be had; `composes` are the profiles of the compose file."""
        for name in self.own:
            if name not in composes:
                there = ", ".join(sorted({*self.with_file, *composes})) or "none"
                raise SettingsError(f"There is no profile {name!r}; there is: {there}.")
        for file in self._forgotten():
            raise SettingsError(
                f"{file} is wanted, and COMPOSE_FILE names all files but this: add it there, or unset COMPOSE_FILE."
            )

    def _forgotten(self) -> Iterator[str]:
        if told := self._told:
            for name in self.wanted:
                file = self.with_file.get(name)
                if file is not None and (self.folder / file).resolve() not in told:
                    yield file


def _name(file: Path) -> str:
    return file.name.removeprefix("docker-compose.").removesuffix(".yml")
