"""Rules about isolation: which containers a container can reach, and which ports are published."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bonseyes_dagster.docker.check.finding import Finding
from bonseyes_dagster.docker.check.subject import DASHBOARD, Subject
from bonseyes_dagster.docker.compose.files import ComposeService, read_compose_model

__all__ = ["RULES"]

GATEWAY = "gateway"
# The networks on which tools listen. There, a tool can connect only to other tools and the dashboard.
TOOL_NETWORKS = frozenset({"tools", "browse"})
OUTBOUND = "outbound"
# Services with one of these words in their command listen on no network.
_SILENT = frozenset(
    {
        "bonseyes_dagster.orchestration.run_server",
        "bonseyes_dagster.orchestration.run_watch",
        "dagster-daemon",
    }
)
# With this option, the machine has no address on the network.
_INHIBIT = "com.docker.network.bridge.inhibit_ipv4"
_ELSEWHERE = "198.51.100.7"  # an address reserved for examples


def networks_are_declared(subject: Subject) -> Iterator[Finding]:
    """The compose file declares each network that a service is on."""
    for name, service in subject.services.items():
        for network in service.networks:
            if subject.compose_model and network not in subject.compose_model.networks:
                yield subject.at_service(
                    name,
                    f"it is on the network {network!r}, which the file does not declare.",
                    f"Add {network!r} to `networks`.",
                )


def own_network(subject: Subject) -> Iterator[Finding]:
    """No container uses the machine's network, or the network of another container."""
    for name, service in subject.services.items():
        mode = service.raw.get("network_mode")
        if mode not in (None, "none"):
            yield subject.at_service(
                name, f"its network_mode is {mode!r}.", "List its `networks`; the only mode allowed is `none`."
            )


def tool_networks(subject: Subject) -> Iterator[Finding]:
    """A tool is on both networks of tools, and on no other network but `outbound`."""
    for name in subject.tool_services:
        service = subject.services[name]
        if service.raw.get("network_mode", "none") != "none":
            continue  # `own_network` reports it
        for network in sorted(set(service.networks) - TOOL_NETWORKS - {OUTBOUND}):
            yield subject.at_service(
                name,
                f"it is on the network {network!r}, where it could reach services that are not tools.",
                "Tools are on `networks: [tools, browse]`.",
            )
        for network in sorted(TOOL_NETWORKS - set(service.networks)):
            yield subject.at_service(
                name,
                f"it is not on the network {network!r}, where other services connect to it.",
                "Tools are on `networks: [tools, browse]`.",
            )


def listens_elsewhere(subject: Subject) -> Iterator[Finding]:
    """On the tools' networks and `outbound`, only tools and the dashboard listen; others bind another network."""
    for name, service in subject.services.items():
        if name in subject.tool_services or DASHBOARD in service.command or _is_silent(service):
            continue
        shared = sorted(set(service.networks) & {*TOOL_NETWORKS, OUTBOUND})
        own = {f"{name}.{network}": network for network in service.networks if network not in shared}
        bound = [address for address in own if _is_bound(address, subject.command_of(service))]
        address = next(iter(bound or own), f"{name}.front")
        network = own.get(address, "front")
        if shared and not bound:
            yield subject.at_service(
                name,
                f"it is on the network {shared[0]!r}, where every tool could connect to it.",
                f"Have it bind {address}, with `aliases: [{address}]` on the network {network!r}; "
                "or set `x-listens: false` if it does not listen at all.",
            )
        elif bound and address not in service.networks[network]:
            yield subject.at_service(
                name,
                f"it binds {address}, which is not its alias there.",
                f"Give it `aliases: [{address}]` on the network {network!r}.",
            )


def _is_silent(service: ComposeService) -> bool:
    return service.raw.get("x-listens") is False or bool(_SILENT.intersection(service.command))


def _is_bound(address: str, command: str) -> bool:
    return re.search(rf"(?<![\w./-]){re.escape(address)}(?![\w.-])", command) is not None


def networks_are_internal(subject: Subject) -> Iterator[Finding]:
    """Only the gateway's network and `outbound` lead to the machine or to the world."""
    if subject.compose_model is None:
        return
    for network, entry in subject.compose_model.networks.items():
        members = {service.name for service in subject.services.values() if network in service.networks}
        if network == OUTBOUND or not members - {GATEWAY}:
            continue
        if not entry.get("internal"):
            yield subject.at_service(network, "the network leads out of the machine.", "Add `internal: true`.")
        elif str((entry.get("driver_opts") or {}).get(_INHIBIT)).lower() != "true":
            yield subject.at_service(
                network,
                "the machine has an address on the network.",
                f'Add `driver_opts: {{{_INHIBIT}: "true"}}`, as the other networks have.',
            )


def outbound_is_said(subject: Subject) -> Iterator[Finding]:
    """A service has both BONSEYES_OUTBOUND and the network `outbound`, or neither of them."""
    for name, service in subject.services.items():
        is_set, is_connected = "BONSEYES_OUTBOUND" in service.environment, OUTBOUND in service.networks
        if is_set and not is_connected:
            yield subject.at_service(
                name,
                f"BONSEYES_OUTBOUND is set, but the service is not on the network {OUTBOUND!r}.",
                "Add the network: without it, the service can reach no host outside the project.",
            )
        elif is_connected and not is_set:
            yield subject.at_service(
                name,
                f"it is on the network {OUTBOUND!r}, but BONSEYES_OUTBOUND is not set.",
                "Set BONSEYES_OUTBOUND to the hosts from which the tool may fetch.",
            )


def outbound_is_open(subject: Subject) -> Iterator[Finding]:
    """The network `outbound` leads to the world."""
    if subject.compose_model and subject.compose_model.networks.get(OUTBOUND, {}).get("internal"):
        yield subject.at_service(
            OUTBOUND, "the network is internal.", "Remove `internal`: this network must lead to the world."
        )


def ports(subject: Subject) -> Iterator[Finding]:
    """Only the gateway publishes a port, at the address BONSEYES_HOST, by default only on this machine."""
    if subject.compose_model is None:
        return
    compose_model, environ = subject.compose_model, {"BONSEYES_HOST": _ELSEWHERE}
    elsewhere = read_compose_model(compose_model.file, environ, override=compose_model.override).services
    for name, service in subject.services.items():
        if name != GATEWAY and service.ports:
            yield subject.at_service(
                name,
                f"it publishes {', '.join(service.ports)}.",
                "Publish only the gateway's port: only the gateway asks for the token.",
            )
        elif any(not port.startswith("127.0.0.1:") for port in service.ports):
            yield subject.at_service(
                name,
                f"it publishes {', '.join(service.ports)}.",
                "By default it must be bound to this machine: use ${BONSEYES_HOST:-127.0.0.1}.",
            )
        elif any(not port.startswith(f"{_ELSEWHERE}:") for port in elsewhere[name].ports):
            yield subject.at_service(name, "it ignores BONSEYES_HOST.", "Bind it to ${BONSEYES_HOST:-127.0.0.1}.")


RULES = (
    networks_are_declared,
    own_network,
    tool_networks,
    listens_elsewhere,
    networks_are_internal,
    outbound_is_said,
    outbound_is_open,
    ports,
)
