"""What is checked: the project's tools, images, services and pipelines, each read once for all rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from bonseyes_dagster.docker.check.finding import Finding, line_of
from bonseyes_dagster.docker.compose.files import (
    BUILD_FILE,
    COMPOSE_FILE,
    ComposeModel,
    ComposeService,
    Image,
    read_compose_model,
    read_images,
    repository_of,
)
from bonseyes_dagster.errors import SettingsError

__all__ = ["DASHBOARD", "PROJECT", "SOCKET_PROXY", "Subject", "Tool", "read_subject"]

# Where a project lies in its images: its tools' folders are below it as they are on disk.
PROJECT = PurePosixPath("/project")
# The dashboard is known by the module that it runs, and may have any name; the socket proxy is known by both.
DASHBOARD = "bonseyes_dagster.dashboard"
SOCKET_PROXY = "socket-proxy"
_OVERRIDES = "docker-compose.*.yml"
_PLACES = ("containers", "components/*/containers")
_ENV = re.compile(r"^ENV\s+(?:.*\s)?BONSEYES_TOOL[= ]\"?([^\s\"\\]+)", re.MULTILINE)
_HEALTHCHECK = re.compile(r"^HEALTHCHECK\s+(?!NONE)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool's folder; `build_file` is where its image belongs, which is its component's if it has one."""

    name: str
    folder: Path
    inner: str
    build_file: Path

    @property
    def title(self) -> str | None:
        """What the tool.yml calls it, which is its container's name unless that is told another."""
        found = re.search(r"^name:\s*[\"']?([^\s\"'#]+)", _text(self.folder / "tool.yml"), re.MULTILINE)
        return found[1] if found else None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A project as its files have it. `pipelines` maps their names to their containers; None when they are not known.

    Without `deployment` the project is run by `bonseyes up` alone. `overrides` are what it becomes with each of the
    files that can be laid over it.
    """

    folder: Path
    tools: tuple[Tool, ...]
    images: Mapping[str, Image] = field(default_factory=dict)
    compose_model: ComposeModel | None = None
    overrides: tuple[ComposeModel, ...] = ()
    pipelines: Mapping[str, tuple[str, ...]] | None = None

    @property
    def services(self) -> Mapping[str, ComposeService]:
        """The services of the compose file."""
        return self.compose_model.services if self.compose_model else {}

    @cached_property
    def tool_services(self) -> dict[str, Tool | None]:
        """The services that run tools, each with the tool that it says it runs, None when there is no such folder."""
        by_place = {tool.inner: tool for tool in self.tools}
        by_name = {tool.name: tool for tool in self.tools}
        found: dict[str, Tool | None] = {}
        for service in self.services.values():
            if place := self.tool_path(service):
                found[service.name] = by_place.get(place)
            elif service.name in by_name:
                found[service.name] = by_name[service.name]
        return found

    @property
    def pipeline_services(self) -> dict[str, str]:
        """The services that serve pipelines, with the pipelines' names."""
        named = {name: service.environment.get("BONSEYES_PIPELINE") for name, service in self.services.items()}
        return {name: pipeline for name, pipeline in named.items() if pipeline}

    def variants(self) -> Iterator[Subject]:
        """Yield the project as it is deployed, and as it is with each override."""
        yield self
        for compose_model in self.overrides:
            yield replace(self, compose_model=compose_model, overrides=())

    def image_of(self, service: ComposeService) -> Image | None:
        """Return the image of a service, if the project builds it."""
        return self._built.get(service.repository)

    @cached_property
    def _built(self) -> dict[str, Image]:
        return {image.repository: image for image in self.images.values()}

    def is_ours(self, repository: str) -> bool:
        """Tell whether an image has the first name of those that this project builds; others are pulled."""
        return "/" in repository and repository.split("/")[0] in {
            ours.split("/")[0] for ours in self._built if "/" in ours
        }

    def user_of(self, repository: str) -> str:
        """Return as whom an image runs, "" when nothing here says; raise SettingsError when it cannot be built."""
        image = self._built.get(repository)
        if image is None and self.is_ours(repository):
            raise SettingsError(f"No build file makes {repository}.")
        user, base = image.user() if image else ("", "")
        return user if user is not None else self.user_of(repository_of(base))

    def command_of(self, service: ComposeService) -> str:
        """Return what a service runs: its command, or all of its image's Dockerfile, which then has it."""
        image = self.image_of(service)
        return " ".join(service.command) or (_text(image.dockerfile) if image else "")

    def tool_path(self, service: ComposeService) -> str | None:
        """Return the path in its container of the tool that a service runs, as it or its image says."""
        image = self.image_of(service)
        return service.environment.get("BONSEYES_TOOL") or (self.tool_of(image) if image else None)

    @staticmethod
    def tool_of(image: Image) -> str | None:
        """Return the path in its container of the tool that an image runs, as its Dockerfile says."""
        said = _ENV.findall(_text(image.dockerfile))
        return said[-1] if said else None

    def has_healthcheck(self, image: Image | None) -> bool:
        """Tell whether an image, or one that it is made from, brings a health check along."""
        if image is None:
            return False
        if _HEALTHCHECK.search(_text(image.dockerfile)):
            return True
        try:
            bases = image.bases()
        except SettingsError:
            return False
        return any(self.has_healthcheck(self._built.get(base)) for base in bases - {image.repository})

    def at_service(self, name: str, problem: str, remedy: str) -> Finding:
        """Return a finding about a service, which begins with its name."""
        assert self.compose_model is not None
        files = [file for file in (self.compose_model.override, self.compose_model.file) if file]
        file = next((file for file in files if line_of(file, name)), files[0])
        return Finding(file=self.shown(file), line=line_of(file, name), problem=f"{name}: {problem}", remedy=remedy)

    def shown(self, file: Path) -> Path:
        """Return a path as a reader in the project's folder writes it."""
        return file.relative_to(self.folder) if file.is_relative_to(self.folder) else file


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # which `dockerfile_there` has a finding for


def read_subject(folder: Path, pipelines: Mapping[str, tuple[str, ...]] | None = None) -> tuple[Subject, list[Finding]]:
    """Read a project; what cannot be read is a finding, and left out."""
    wrong: list[Finding] = []
    images: Mapping[str, Image] = {}
    compose_model: ComposeModel | None = None
    # Without the environment: what is checked is what is written, wherever the check runs.
    environ: dict[str, str] = {}
    try:
        if (folder / BUILD_FILE).exists() or list(folder.glob(f"components/*/{BUILD_FILE}")):
            images = read_images(folder, environ)
    except SettingsError as error:
        wrong.append(_unreadable(folder, BUILD_FILE, error))
    try:
        if (folder / COMPOSE_FILE).exists():
            compose_model = read_compose_model(folder / COMPOSE_FILE, environ)
    except SettingsError as error:
        wrong.append(_unreadable(folder, COMPOSE_FILE, error))
    overrides = []
    for file in sorted(folder.glob(_OVERRIDES)) if compose_model else ():
        try:
            overrides.append(read_compose_model(folder / COMPOSE_FILE, environ, override=file))
        except SettingsError as error:
            wrong.append(_unreadable(folder, file.name, error))
    subject = Subject(
        folder=folder,
        tools=tuple(_tools(folder)),
        images=images,
        compose_model=compose_model,
        overrides=tuple(overrides),
        pipelines=pipelines,
    )
    return subject, wrong


def _unreadable(folder: Path, file: str, error: SettingsError) -> Finding:
    problem = error.message.replace(f"{folder}/", "").removeprefix(f"{file}: ")
    return Finding(rule="readable", file=Path(file), problem=problem, remedy="What depends on it could not be checked.")


def _tools(folder: Path) -> Iterator[Tool]:
    for pattern in _PLACES:
        for tool in sorted(folder.glob(f"{pattern}/*/")):
            if tool.name.startswith((".", "__")):
                continue
            inner = tool.relative_to(folder)
            component = folder / Path(*inner.parts[:2]) if inner.parts[0] == "components" else folder
            yield Tool(
                name=tool.name, folder=tool, inner=str(PROJECT / inner.as_posix()), build_file=component / BUILD_FILE
            )
