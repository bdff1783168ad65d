"""Read compose files: the images of the build files, and the services of docker-compose.yml."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bonseyes_dagster.docker.compose.dockerfile import bases_of, user_of
from bonseyes_dagster.docker.compose.interpolation import interpolate
from bonseyes_dagster.docker.compose.merge import Loader, merge
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.formats.yaml_file import read_yaml
from bonseyes_dagster.project.environment import compose_environ

__all__ = [
    "BUILD_FILE",
    "COMPOSE_FILE",
    "ComposeModel",
    "ComposeService",
    "Image",
    "Mount",
    "read_compose_model",
    "read_images",
]

BUILD_FILE = "docker-compose-build.yml"
COMPOSE_FILE = "docker-compose.yml"
# The network of services that list no network.
DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that a build file describes; `name` is its service there. All paths are absolute."""

    name: str
    reference: str
    file: Path
    context: Path
    dockerfile: Path
    target: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def repository(self) -> str:
        """The reference without its tag, such as `bonseyes/tool`."""
        return repository_of(self.reference)

    @property
    def tag(self) -> str:
        """The tag of the reference; `latest` when the reference has none."""
        return self.reference.removeprefix(self.repository).removeprefix(":") or "latest"

    def references(self) -> frozenset[str]:
        """Return the references of the images from which its Dockerfile makes it."""
        return bases_of(self.dockerfile, self.args, self.target)

    def bases(self) -> frozenset[str]:
        """Return the references of these images without tags."""
        return frozenset(map(repository_of, self.references()))

    def user(self) -> tuple[str | None, str]:
        """Return the last user that its Dockerfile sets (or None), and the reference of its base image."""
        return user_of(self.dockerfile, self.args, self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One entry of a service's `volumes`. `kind` is `volume`, `bind` or `tmpfs`; `source` may be empty."""

    kind: str
    source: str
    target: str
    is_read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeService:
    """A service of a compose file; `networks` maps each network's name to the service's aliases there.

    `command` begins with the entry point, if the file has one.
    """

    name: str
    image: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    ports: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def repository(self) -> str:
        """The reference of the image without its tag."""
        return repository_of(self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeModel:
    """The content of a compose file; `networks` and `volumes` are its top-level entries as written.

    `override` is the file that was merged over `file`, if there is one.
    """

    file: Path
    override: Path | None = None
    services: Mapping[str, ComposeService]
    networks: Mapping[str, Mapping[str, Any]]
    volumes: Mapping[str, Mapping[str, Any]]


def repository_of(reference: str) -> str:
    """Return an image's reference without tag and digest."""
    reference = reference.partition("@")[0]
    name, _, tag = reference.rpartition(":")
    return name if name and "/" not in tag else reference


def read_images(project: Path, environ: Mapping[str, str] | None = None) -> dict[str, Image]:
    """Return the images in all build files of the project, by name; raise SettingsError for a wrong file.

    `environ` has the values of the variables in the files. By default, these come from the environment and `.env`.
    """
    environ = compose_environ(project) if environ is None else environ
    images: dict[str, Image] = {}
    files = [project / BUILD_FILE, *sorted(project.glob(f"components/*/{BUILD_FILE}"))]
    for file in (file.absolute() for file in files if file.exists()):
        for name, service in _services(merge({}, _read(file, environ)), file):
            if name in images:
                raise SettingsError(f"Two images have the name {name!r}: in {images[name].file} and in {file}.")
            images[name] = _image(name, service, file)
    if not images:
        raise SettingsError(f"There is no {BUILD_FILE} in {project} or its components.")
    return images


def read_compose_model(
    file: Path, environ: Mapping[str, str] | None = None, *, override: Path | None = None
) -> ComposeModel:
    """Return the content of a compose file, with the file `override` merged over it.

    Raises SettingsError for a wrong file. `environ` has the same meaning as in `read_images`.
    """
    environ = compose_environ(file.parent) if environ is None else environ
    document = merge({}, _read(file, environ))
    if override:
        document = _change(document, dict(_services(document, file)), override, environ)
    services = {name: _service(name, service, file) for name, service in _services(document, file)}
    networks = {name: entry or {} for name, entry in (document.get("networks") or {}).items()}
    if any(DEFAULT in service.networks for service in services.values()):
        networks.setdefault(DEFAULT, {})
    return ComposeModel(
        file=file,
        override=override,
        services=services,
        networks=networks,
        volumes={name: entry or {} for name, entry in (document.get("volumes") or {}).items()},
    )


def _change(
    document: Mapping[str, Any], services: Mapping[str, Any], override: Path, environ: Mapping[str, str]
) -> Any:
    """Return a document with the file `override` merged over it. A service only in `override` must have an image."""
    changes = _read(override, environ)
    for name, service in _services({"services": {}, **changes}, override):
        if name not in services and not service.get("image"):
            raise SettingsError(
                f"{override}: {COMPOSE_FILE} has no service {name!r}; rename it here, too, or give it an image."
            )
    return merge(document, changes)


def _read(file: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        document = read_yaml(file, Loader)
    except FileNotFoundError:
        raise SettingsError(f"There is no {file}.") from None
    try:
        document = interpolate(document, environ)
    except SettingsError as error:
        raise SettingsError(f"{file}: {error.message}") from error
    if not isinstance(document, dict):
        raise SettingsError(f"{file} must hold a mapping with the key 'services'.")
    if "include" in document:
        raise SettingsError(f"{file}: 'include' is not supported; write the included content into the file.")
    return document


def _services(document: Mapping[str, Any], file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    services = document.get("services")
    if not isinstance(services, dict):
        raise SettingsError(f"{file}: 'services' must map names to services.")
    for name, service in services.items():
        if not isinstance(service, dict):
            raise SettingsError(f"{file}: service {name!r} must be a mapping.")
        yield str(name), service


def _image(name: str, service: Mapping[str, Any], file: Path) -> Image:
    build = service.get("build")
    if not isinstance(service.get("image"), str) or not build:
        raise SettingsError(f"{file}: service {name!r} must have 'image' and 'build'.")
    build = {"context": build} if isinstance(build, str) else build
    # As in Compose, the context is relative to the file's folder, and the Dockerfile's path is relative to the context.
    context = (file.parent / build.get("context", ".")).resolve()
    return Image(
        name=name,
        reference=service["image"],
        file=file,
        context=context,
        dockerfile=context / build.get("dockerfile", "Dockerfile"),
        target=build.get("target"),
        args=_pairs(build.get("args")),
        raw=service,
    )


def _service(name: str, service: Mapping[str, Any], file: Path) -> ComposeService:
    networks = service.get("networks") or ({} if service.get("network_mode") else [DEFAULT])
    if not isinstance(networks, Mapping):
        networks = dict.fromkeys(networks)
    try:
        return ComposeService(
            name=name,
            image=service.get("image", ""),
            command=(*_words(service.get("entrypoint")), *_words(service.get("command"))),
            environment=_pairs(service.get("environment")),
            networks={network: tuple((entry or {}).get("aliases") or ()) for network, entry in networks.items()},
            mounts=tuple(map(_mount, service.get("volumes") or ())),
            ports=tuple(_port(port) for port in service.get("ports") or ()),
            profiles=tuple(service.get("profiles") or ()),
            needs=tuple(service.get("depends_on") or ()),
            raw=service,
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise SettingsError(f"{file}: service {name!r} is not valid for Compose: {error}.") from error


def _words(command: str | Sequence[Any] | None) -> tuple[str, ...]:
    return tuple(shlex.split(command) if isinstance(command, str) else map(str, command or ()))


def _pairs(entries: Mapping[str, Any] | Sequence[str] | None) -> dict[str, str]:
    """Return `args` or `environment` as a mapping, without names that have no value. A list holds `NAME=value`."""
    if isinstance(entries, Mapping):
        return {name: _text(value) for name, value in entries.items() if value is not None}
    return dict(entry.split("=", 1) for entry in entries or () if "=" in entry)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _mount(entry: str | Mapping[str, Any]) -> Mount:
    if isinstance(entry, Mapping):
        return Mount(
            kind=entry["type"],
            source=entry.get("source", ""),
            target=entry["target"],
            is_read_only=bool(entry.get("read_only")),
        )
    source, target, mode = [*(entry.split(":") if ":" in entry else ["", entry]), ""][:3]
    # An empty source comes from a variable that is not set; the variable could hold any path.
    kind = "bind" if source.startswith((".", "/", "~")) or entry.startswith(":") else "volume"
    return Mount(kind=kind, source=source, target=target, is_read_only="ro" in mode.split(","))


def _port(entry: str | int | Mapping[str, Any]) -> str:
    if not isinstance(entry, Mapping):
        return str(entry)
    parts = (entry.get("host_ip"), entry.get("published"), entry["target"])
    return ":".join(str(part) for part in parts if part not in (None, ""))
