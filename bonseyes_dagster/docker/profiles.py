"""The compose files of a docker project: `docker-compose.yml`, and one more for each profile that has a file.

A profile of Compose can add services, but cannot change one, and Compose ignores an unknown profile. So here the
profile NAME is the file `docker-compose.NAME.yml`, if it exists, and otherwise a profile of Compose.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bonseyes_dagster.docker.compose.files import COMPOSE_FILE
from bonseyes_dagster.errors import SettingsError

__all__ = ["Profiles"]

# Compose reads `docker-compose.override.yml` by itself, unless it gets a list of files.
_OVERRIDE = "override"
_RUN_CONTAINERS = "run-containers"


@dataclass(frozen=True, slots=True)
class Profiles:
    """The selected profiles of the project in `folder`: those of the command line (`named`) and of `variables`."""

    folder: Path
    variables: Mapping[str, str]
    named: tuple[str, ...] = ()

    @property
    def wanted(self) -> list[str]:
        """The names of the selected profiles, each once."""
        names = [*self.named, *self.variables.get("COMPOSE_PROFILES", "").split(",")]
        if self.variables.get("BONSEYES_RUN_LAUNCHER") == "docker":
            names.append(_RUN_CONTAINERS)
        return list(dict.fromkeys(filter(None, map(str.strip, names))))

    @property
    def with_file(self) -> dict[str, str]:
        """The profiles that have a file, each with the name of its file."""
        files = {_name(file): file.name for file in sorted(self.folder.glob("docker-compose.*.yml"))}
        return {name: file for name, file in files.items() if name != _OVERRIDE}

    @property
    def without_file(self) -> list[str]:
        """The selected profiles without a file, which must be profiles of Compose."""
        return [name for name in self.wanted if name not in self.with_file]

    @property
    def files(self) -> list[str]:
        """The files for Compose to read; an empty list when Compose finds them by itself."""
        more = [self.with_file[name] for name in self.wanted if name in self.with_file]
        if self._listed_files or not more:
            return []
        found = f"docker-compose.{_OVERRIDE}.yml"
        return [COMPOSE_FILE, *([found] if (self.folder / found).exists() else []), *more]

    @property
    def _listed_files(self) -> list[Path]:
        """The files in the variable COMPOSE_FILE."""
        separator = self.variables.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        names = filter(None, self.variables.get("COMPOSE_FILE", "").split(separator))
        return [(self.folder / name).resolve() for name in names]

    def check(self, compose_profiles: list[str]) -> None:
        """Raise SettingsError for an unknown profile or a file not listed; `compose_profiles` are those of Compose."""
        for name in self.without_file:
            if name not in compose_profiles:
                there = ", ".join(sorted({*self.with_file, *compose_profiles})) or "none"
                raise SettingsError(f"There is no profile {name!r}; the profiles are: {there}.")
        for file in self._files_not_listed():
            raise SettingsError(
                f"The selected profile needs {file}, but COMPOSE_FILE does not list it; add it, or unset COMPOSE_FILE."
            )

    def _files_not_listed(self) -> Iterator[str]:
        if listed := self._listed_files:
            for name in self.wanted:
                file = self.with_file.get(name)
                if file is not None and (self.folder / file).resolve() not in listed:
                    yield file


def _name(file: Path) -> str:
    return file.name.removeprefix("docker-compose.").removesuffix(".yml")
