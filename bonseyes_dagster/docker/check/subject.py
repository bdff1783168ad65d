"""The project under check: its tools, images, services and pipelines, each read once for all rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from bonseyes_dagster.docker.check.finding import Finding, line_of
from bonseyes_dagster.docker.compose.dockerfile import environment_of, has_healthcheck
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
from bonseyes_dagster.formats.yaml_file import read_yaml

__all__ = ["DASHBOARD", "PROJECT", "SOCKET_PROXY", "Subject", "Tool", "read_subject"]

# The project's folder in its images. The paths of the tools below this folder are the same as on the disk.
PROJECT = PurePosixPath("/project")
# The rules recognize the dashboard by this module in its command, the socket proxy by its module and its name.
DASHBOARD = "bonseyes_dagster.dashboard"
SOCKET_PROXY = "socket-proxy"
_OVERRIDES = "docker-compose.*.yml"
_PLACES = ("containers", "components/*/containers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool's folder. `build_file`, of the tool's component or of the project, builds its image."""

    name: str
    folder: Path
    inner: str
    build_file: Path

    @property
    def title(self) -> str | None:
        """The name in tool.yml. It is the container's name if BONSEYES_CONTAINER is not set."""
        try:
            content = read_yaml(self.folder / "tool.yml")
        except SettingsError:  # the rule for tools reports this file
            return None
        name = content.get("name") if isinstance(content, dict) else None
        return str(name) if name else None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The content of a project's files. `pipelines` maps names to containers; None means that they are not known.

    Without a `compose_model`, the project can only run embedded. `overrides` has one model for each file that can be
    merged over docker-compose.yml.
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
        """The services that run tools, each with its tool, or None if the tool's folder does not exist."""
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
        """The services that serve pipelines, each with the name of its pipeline."""
        named = {name: service.environment.get("BONSEYES_PIPELINE") for name, service in self.services.items()}
        return {name: pipeline for name, pipeline in named.items() if pipeline}

    def variants(self) -> Iterator[Subject]:
        """Yield the project without an override, and with each override."""
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
        """Tell whether an image's name has the same first part as an image that this project builds."""
        return "/" in repository and repository.split("/")[0] in {
            ours.split("/")[0] for ours in self._built if "/" in ours
        }

    def user_of(self, repository: str) -> str:
        """Return an image's user, or "" if unknown. Raise SettingsError if it is ours and no build file makes it."""
        image = self._built.get(repository)
        if image is None and self.is_ours(repository):
            raise SettingsError(f"No build file makes {repository}.")
        user, base = image.user() if image else ("", "")
        return user if user is not None else self.user_of(repository_of(base))

    def command_of(self, service: ComposeService) -> str:
        """Return a service's command. Without one, return the text of its image's Dockerfile, which has the command."""
        image = self.image_of(service)
        return " ".join(service.command) or (_text(image.dockerfile) if image else "")

    def tool_path(self, service: ComposeService) -> str | None:
        """Return the path of a service's tool in its container, from its environment or its image."""
        image = self.image_of(service)
        return service.environment.get("BONSEYES_TOOL") or (self.tool_of(image) if image else None)

    @staticmethod
    def tool_of(image: Image) -> str | None:
        """Return the path of an image's tool in its container, from its Dockerfile."""
        try:
            return environment_of(image.dockerfile).get("BONSEYES_TOOL")
        except SettingsError:  # the rule `dockerfile_there` reports it
            return None

    def has_healthcheck(self, image: Image | None) -> bool:
        """Tell whether an image, or an image that it is based on, has a health check."""
        if image is None:
            return False
        try:
            if has_healthcheck(image.dockerfile):
                return True
            bases = image.bases()
        except SettingsError:
            return False
        return any(self.has_healthcheck(self._built.get(base)) for base in bases - {image.repository})

    def at_service(self, name: str, problem: str, remedy: str) -> Finding:
        """Return a finding about a service or a network; its text begins with this `name`."""
        assert self.compose_model is not None
        files = [file for file in (self.compose_model.override, self.compose_model.file) if file]
        file = next((file for file in files if line_of(file, name)), files[0])
        return Finding(file=self.shown(file), line=line_of(file, name), problem=f"{name}: {problem}", remedy=remedy)

    def shown(self, file: Path) -> Path:
        """Return a path relative to the project's folder."""
        return file.relative_to(self.folder) if file.is_relative_to(self.folder) else file


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # the rule `dockerfile_there` reports it


def read_subject(folder: Path, pipelines: Mapping[str, tuple[str, ...]] | None = None) -> tuple[Subject, list[Finding]]:
    """Read the files of a project. Return a subject, and a finding for each file that cannot be read."""
    wrong: list[Finding] = []
    images: Mapping[str, Image] = {}
    compose_model: ComposeModel | None = None
    # Use no environment variables: the check must find the same problems on every machine.
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
    return Finding(
        rule="readable",
        file=Path(file),
        problem=problem,
        remedy="Correct the file: the parts that depend on it were not checked.",
    )


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
