"""Rules about isolation: whom a container can reach, what is open to the world, and what a container may do at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bonseyes_dagster.deployment.check.finding import Finding
from bonseyes_dagster.deployment.check.subject import Subject
from bonseyes_dagster.deployment.compose import Service, read_deployment

__all__ = ["RULES"]

GATEWAY = "gateway"
# Where tools are asked from; a tool can connect to tools and the dashboard there, and to nothing else.
TOOL_NETWORKS = frozenset({"tools", "browse"})
OUTBOUND = "outbound"
_ELSEWHERE = "198.51.100.7"  # of a range that is kept for examples


def tool_networks(subject: Subject) -> Iterator[Finding]:
    """A tool is where tools are, and nowhere else."""
    for name in subject.tool_services:
        service = subject.services[name]
        if mode := service.raw.get("network_mode"):
            yield subject.at_service(
                name, f"its network_mode is {mode!r}.", "Tools are on `networks: [tools, browse]`."
            )
            continue
        for network in sorted(set(service.networks) - TOOL_NETWORKS - {OUTBOUND}):
            yield subject.at_service(
                name,
                f"it is on the network {network!r}, from which it could reach what is no tool.",
                "Tools are on `networks: [tools, browse]`.",
            )
        for network in sorted(TOOL_NETWORKS - set(service.networks)):
            yield subject.at_service(
                name,
                f"it is not on the network {network!r}, where it is looked for.",
                "Tools are on `networks: [tools, browse]`.",
            )


def networks_are_internal(subject: Subject) -> Iterator[Finding]:
    """No network leads out of the machine but the gateway's, and the one of tools that say so."""
    if subject.deployment is None:
        return
    for network, entry in subject.deployment.networks.items():
        members = [service.name for service in subject.services.values() if network in service.networks]
        if network == OUTBOUND or entry.get("internal") or not set(members) - {GATEWAY}:
            continue
        yield subject.at_service(
            network, f"the network of {', '.join(members)} leads out to the world.", "Add `internal: true`."
        )


def outbound_is_said(subject: Subject) -> Iterator[Finding]:
    """BONSEYES_OUTBOUND and the network `outbound` stand together: either alone has no effect, or too much."""
    for name, service in subject.services.items():
        says, can = "BONSEYES_OUTBOUND" in service.environment, OUTBOUND in service.networks
        if says and not can:
            yield subject.at_service(
                name,
                f"BONSEYES_OUTBOUND is set, but it is not on the network {OUTBOUND!r}.",
                "Without it nothing outside can be reached.",
            )
        elif can and not says:
            yield subject.at_service(
                name,
                f"it is on the network {OUTBOUND!r}, but BONSEYES_OUTBOUND is not set.",
                "Name the hosts that it may fetch from.",
            )


def outbound_is_open(subject: Subject) -> Iterator[Finding]:
    """The network `outbound` leads out."""
    if subject.deployment and subject.deployment.networks.get(OUTBOUND, {}).get("internal"):
        yield subject.at_service(OUTBOUND, "the network is internal.", "It is to lead out.")


def ports(subject: Subject) -> Iterator[Finding]:
    """One port is published, the gateway's, on this machine alone unless BONSEYES_HOST says otherwise."""
    if subject.deployment is None:
        return
    elsewhere = read_deployment(subject.deployment.file, {"BONSEYES_HOST": _ELSEWHERE}).services
    for name, service in subject.services.items():
        if name != GATEWAY and service.ports:
            yield subject.at_service(
                name,
                f"it publishes {', '.join(service.ports)}.",
                "Only the gateway's port is published: it is what asks for the token.",
            )
        elif any(not port.startswith("127.0.0.1:") for port in service.ports):
            yield subject.at_service(
                name,
                f"it publishes {', '.join(service.ports)}.",
                "Unless told otherwise it is bound to this machine: ${BONSEYES_HOST:-127.0.0.1}.",
            )
        elif any(not port.startswith(f"{_ELSEWHERE}:") for port in elsewhere[name].ports):
            yield subject.at_service(name, "it does not heed BONSEYES_HOST.", "Bind it to ${BONSEYES_HOST:-127.0.0.1}.")


def docker_socket(subject: Subject) -> Iterator[Finding]:
    """Whoever has the engine's socket has the machine."""
    for name, service in subject.services.items():
        for mount in service.mounts:
            if mount.source.rstrip("/").endswith(("docker.sock", "/var/run", "/run")):
                yield subject.at_service(
                    name, f"it mounts {mount.source}, and could do anything to the machine.", "Remove it."
                )


def _limited(*keys: str, resource: str) -> Callable[[Mapping[str, Any]], bool]:
    def is_limited(raw: Mapping[str, Any]) -> bool:
        limits = (raw.get("deploy") or {}).get("resources", {}).get("limits", {})
        return any(raw.get(key) for key in keys) or bool(limits.get(resource))

    return is_limited


# What every container is denied, and what would deny it.
_HARDENING: tuple[tuple[str, str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("it can write to its root file system", "read_only: true", lambda raw: raw.get("read_only") is True),
    ("it has capabilities", "cap_drop: [ALL]", lambda raw: "ALL" in (raw.get("cap_drop") or ())),
    ("it is given capabilities", "no cap_add", lambda raw: not raw.get("cap_add")),
    ("it is privileged", "no `privileged`", lambda raw: not raw.get("privileged")),
    (
        "it can gain privileges",
        'security_opt: ["no-new-privileges:true"]',
        lambda raw: any(str(each).startswith("no-new-privileges") for each in raw.get("security_opt") or ()),
    ),
    ("its memory has no limit", "mem_limit", _limited("mem_limit", resource="memory")),
    ("its processors have no limit", "cpu_quota, or cpus", _limited("cpu_quota", "cpus", resource="cpus")),
    ("its processes have no limit", "pids_limit", _limited("pids_limit", resource="pids")),
    ("it is not started again when it ends", "restart: unless-stopped", lambda raw: bool(raw.get("restart"))),
)


def hardening(subject: Subject) -> Iterator[Finding]:
    """Every container may do nothing but its work, and takes no more than its share."""
    for name, service in subject.services.items():
        for problem, remedy, is_right in _HARDENING:
            if not is_right(service.raw):
                yield subject.at_service(name, f"{problem}.", f"It is to have: {remedy}.")


def healthcheck(subject: Subject) -> Iterator[Finding]:
    """Whatever goes on running can be asked how it is, by a check of its own or its image's."""
    for name, service in subject.services.items():
        check = service.raw.get("healthcheck") or {}
        is_off = check.get("disable") is True or check.get("test") in ("NONE", ["NONE"])
        has_one = bool(check.get("test")) or subject.has_healthcheck(subject.image_of(service))
        if not _ends_by_itself(service) and (is_off or not has_one):
            yield subject.at_service(name, "it has no healthcheck.", "Say how to see that it works.")


def _ends_by_itself(service: Service) -> bool:
    return service.raw.get("restart") in ("no", "on-failure", False)


RULES = (
    tool_networks,
    networks_are_internal,
    outbound_is_said,
    outbound_is_open,
    ports,
    docker_socket,
    hardening,
    healthcheck,
)
