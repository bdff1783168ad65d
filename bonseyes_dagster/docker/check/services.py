"""Rules about services: each pipeline has a service, and each service has its own volume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from bonseyes_dagster.docker.check.finding import Finding
from bonseyes_dagster.docker.check.subject import DASHBOARD, Subject
from bonseyes_dagster.docker.compose.files import COMPOSE_FILE, ComposeService

__all__ = ["RULES"]

_VOLUME = "/volume"


def pipeline_has_service(subject: Subject) -> Iterator[Finding]:
    """A service serves each pipeline of definitions.py."""
    served = set(subject.pipeline_services.values())
    for name in subject.pipelines or ():
        if subject.compose_model and name not in served:
            yield Finding(
                file=subject.shown(subject.folder / "definitions.py"),
                problem=f"No service of {COMPOSE_FILE} serves the pipeline {name!r}.",
                remedy=f"Add a service {name!r} there, with BONSEYES_PIPELINE: {name}.",
            )


def service_serves_its_pipeline(subject: Subject) -> Iterator[Finding]:
    """A pipeline's service has the name of the pipeline, and the pipeline exists."""
    for name, pipeline in subject.pipeline_services.items():
        if subject.pipelines is not None and pipeline not in subject.pipelines:
            there = ", ".join(sorted(subject.pipelines)) or "none"
            yield subject.at_service(name, f"BONSEYES_PIPELINE is {pipeline!r}.", f"definitions.py has: {there}.")
        elif name != pipeline:
            yield subject.at_service(
                name,
                f"it serves the pipeline {pipeline!r}.",
                f"Give the service the name of its pipeline: {pipeline!r}.",
            )


def container_name(subject: Subject) -> Iterator[Finding]:
    """A container has the name of its service: it registers under it, and uses it in links to its artifacts."""
    named = {name: tool.name for name, tool in subject.tool_services.items() if tool} | subject.pipeline_services
    for name in (name for name, of in named.items() if name == of):
        tool = subject.tool_services.get(name)
        given = subject.services[name].environment.get("BONSEYES_CONTAINER") or (tool and tool.title) or name
        if given != name:
            yield subject.at_service(name, f"it calls itself {given!r}.", f"Set BONSEYES_CONTAINER: {name}.")


def has_volume(subject: Subject) -> Iterator[Finding]:
    """A container keeps its data in a named volume: other data is lost with the container."""
    for service in _keepers(subject):
        if _place(service) is None:
            path = service.environment.get("BONSEYES_VOLUME", _VOLUME)
            yield subject.at_service(
                service.name,
                f"no named volume is mounted at {path}, where it keeps its data.",
                f'Add `volumes: ["{service.name}:{path}"]`, and add {service.name!r} to the volumes of the file.',
            )


def volume_is_declared(subject: Subject) -> Iterator[Finding]:
    """The file declares each named volume."""
    for service in subject.services.values():
        assert subject.compose_model is not None
        for mount in service.mounts:
            if mount.kind == "volume" and mount.source and mount.source not in subject.compose_model.volumes:
                yield subject.at_service(
                    service.name,
                    f"it mounts the volume {mount.source!r}, which the file does not declare.",
                    f"Add {mount.source!r} to `volumes` at the end of the file.",
                )


def volume_is_its_own(subject: Subject) -> Iterator[Finding]:
    """No two containers keep their data in the same place."""
    owners: dict[tuple[str, str], str] = {}
    for service in _keepers(subject):
        place = _place(service)
        if service.name in subject.tool_services or place is None:
            continue  # `volume_of_a_tool` is stricter
        if owners.setdefault(place, service.name) != service.name:
            yield subject.at_service(
                service.name,
                f"it keeps its data in the volume {place[0]!r}, as {owners[place]!r} does.",
                "Give each service its own volume.",
            )


def volume_of_a_tool(subject: Subject) -> Iterator[Finding]:
    """No other service mounts a volume of a tool."""
    kept: dict[str, str] = {}
    users: dict[str, list[str]] = {}
    for service in subject.services.values():
        if service.name in subject.tool_services and (place := _place(service)):
            kept.setdefault(place[0], service.name)
        for mount in service.mounts:
            if mount.kind == "volume" and mount.source:
                users.setdefault(mount.source, []).append(service.name)
    for volume, names in users.items():
        owner = kept.get(volume)
        for name in names:
            other = owner or next((other for other in names if other != name), name)
            if other != name and (owner or name in subject.tool_services):
                yield subject.at_service(
                    name,
                    f"it mounts the volume {volume!r}, as {other!r} does.",
                    "Only the tool may mount its volumes; other services get its artifacts over HTTP.",
                )


def _keepers(subject: Subject) -> list[ComposeService]:
    return [
        service
        for service in subject.services.values()
        if service.name in subject.tool_services
        or service.name in subject.pipeline_services
        or DASHBOARD in service.command
    ]


def _place(service: ComposeService) -> tuple[str, str] | None:
    """Return the named volume in which a service keeps its data, and the folder in it; None without one."""
    path = PurePosixPath(service.environment.get("BONSEYES_VOLUME", _VOLUME))
    for mount in service.mounts:
        if mount.kind == "volume" and mount.source and not mount.is_read_only and path.is_relative_to(mount.target):
            return mount.source, str(path.relative_to(mount.target))
    return None


RULES = (
    pipeline_has_service,
    service_serves_its_pipeline,
    container_name,
    has_volume,
    volume_is_declared,
    volume_is_its_own,
    volume_of_a_tool,
)
