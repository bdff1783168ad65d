"""What containers can do to each other, to the machine and to the world; each container is asked itself."""

from __future__ import annotations

import json
import socket
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from bonseyes_dagster.deployment.engine import docker
from tests.docker.composed import PIPELINES, SERVICES, TOOLS, Composed

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

OPEN = {*TOOLS, "dashboard"}
HIDDEN = sorted(set(SERVICES) - OPEN)
# Where nobody of ours is: the documentation's range would do, but there nobody would answer anyway.
OUTSIDE = ("1.1.1.1", "8.8.8.8")
VOLUMES = {
    **{name: {"/volume"} for name in (*TOOLS, "dashboard")},
    **{name: {"/dagster"} for name in (*PIPELINES, "dagster-webserver", "dagster-daemon", "code-server", "run-server")},
    "postgres": {"/var/lib/postgresql/data", "/run/postgresql"},
}
CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def connect(target):
    try:
        socket.create_connection(target, 2).close()
        return True
    except OSError:
        return False
targets = [tuple(each) for each in json.loads(sys.argv[1])]
with ThreadPoolExecutor(128) as pool:
    print(json.dumps([target for target, is_open in zip(targets, pool.map(connect, targets)) if is_open]))
"""
# As /proc/net/tcp writes it.
_LISTENS = "0A"
_LOOPBACK = "7F"
RESOLVE = """
import socket, sys
for name in sys.argv[1:]:
    try:
        print(name, socket.getaddrinfo(name, 80))
    except OSError:
        pass
"""


def test_one_port_is_open(composed: Composed) -> None:
    """The gateway's, and on this machine only."""
    published = [
        (service, binding["HostIp"], binding["HostPort"])
        for service in SERVICES
        for bindings in composed.inspect(service)["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert published == [("gateway", "127.0.0.1", str(composed.port))]
    assert not _can_connect(_own_address(), composed.port)


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((OUTSIDE[0], 9))  # sends nothing: it only picks the interface
        return str(probe.getsockname()[0])


def _can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 3).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_may_do_nothing_but_its_work(composed: Composed, service: str) -> None:
    """None of its processes is root, has a capability or can gain one."""
    statuses = composed.inside(service, "bash", "-c", "cat /proc/[0-9]*/status")
    values: dict[str, set[str]] = {}
    for line in statuses.splitlines():
        name, _, value = line.partition(":")
        values.setdefault(name, set()).add(value.strip())
    assert "0" not in {word for each in values["Uid"] for word in each.split()}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert values[name] == {"0" * 16}, name
    assert values["NoNewPrivs"] == {"1"}
    assert "0" not in values["Seccomp"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_writes_to_its_volume_only(composed: Composed, service: str) -> None:
    """And to /tmp, which is memory; every folder that it has is tried."""
    script = 'find / -xdev -type d 2>/dev/null | while read -r d; do [ -w "$d" ] && echo "$d"; done; :'
    allowed = {"/tmp", *VOLUMES.get(service, ())}
    assert set(composed.inside(service, "bash", "-c", script).split()) <= allowed
    mounts = [line.split() for line in composed.inside(service, "cat", "/proc/mounts").splitlines()]
    kernels = ("/proc", "/sys", "/dev")
    writable = {mount[1] for mount in mounts if mount[3].startswith("rw") and not mount[1].startswith(kernels)}
    # Docker's own files there are root's.
    assert writable - {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} == allowed
    composed.inside(service, "bash", "-c", "! echo >/etc/hosts; ! echo >/etc/resolv.conf; ! echo >/etc/hostname")


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_has_the_engine(composed: Composed, service: str) -> None:
    """Its socket is not mounted, and nothing of the machine but volumes."""
    found = composed.inspect(service)
    assert {mount["Type"] for mount in found["Mounts"]} <= {"volume", "tmpfs"}
    limits = found["HostConfig"]
    assert limits["Memory"] > 0
    assert limits["PidsLimit"] > 0
    assert limits["CpuQuota"] > 0 or limits["NanoCpus"] > 0


@pytest.fixture(scope="module")
def machine() -> Iterator[int]:
    """A port of this machine that listens at every address."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def hidden(composed: Composed) -> list[tuple[str, int]]:
    """Every address of every service that tools have no business with, with every port at which one listens."""
    ports = {port for service in HIDDEN for port in _listening(composed, service)}
    assert {80, 3000, 4000, 5432, 8080} <= ports
    return [(address, port) for service in HIDDEN for address in _addresses(composed, service) for port in ports]


def _addresses(composed: Composed, service: str) -> list[str]:
    networks = composed.inspect(service)["NetworkSettings"]["Networks"]
    return [network["IPAddress"] for network in networks.values()]


def _listening(composed: Composed, service: str) -> set[int]:
    """Return the ports at which something in a container listens, but to the container itself."""
    lines = composed.inside(service, "bash", "-c", "cat /proc/net/tcp /proc/net/tcp6").splitlines()
    listening = [entry[1].split(":") for entry in map(str.split, lines) if entry[3] == _LISTENS]
    return {int(port, 16) for address, port in listening if not address.endswith(_LOOPBACK)}


def _reached(composed: Composed, service: str, targets: list[tuple[str, int]]) -> list[tuple[str, int]]:
    answer = composed.inside(service, "python", "-c", textwrap.dedent(CONNECT), json.dumps(targets))
    return [tuple(each) for each in json.loads(answer)]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_reaches_tools_and_the_dashboard_only(
    composed: Composed, hidden: list[tuple[str, int]], machine: int, tool: str
) -> None:
    """No address and port of anything else: not of Dagster, Postgres, pipelines, access, gateway, machine or world."""
    wanted = [(name, 80) for name in sorted(OPEN)]
    assert _reached(composed, tool, wanted) == wanted
    networks = [network for service in SERVICES for network in composed.inspect(service)["NetworkSettings"]["Networks"]]
    gateways = [(address, machine) for name in sorted(set(networks)) for address in _gateways(name)]
    world = [(address, port) for address in OUTSIDE for port in (53, 80, 443)]
    here = [(_own_address(), port) for port in (machine, composed.port, 22)]
    assert _reached(composed, tool, [*hidden, *gateways, *here, *world]) == []
    assert composed.inside(tool, "python", "-c", RESOLVE, "example.com", "deb.debian.org", "pypi.org") == ""


def _gateways(network: str) -> list[str]:
    found: list[dict[str, Any]] = json.loads(docker("network", "inspect", network))
    return [config["Gateway"] for config in found[0]["IPAM"]["Config"] if "Gateway" in config]


def test_the_machine_can_be_found_where_it_is_open(composed: Composed, machine: int) -> None:
    """The listener that no tool finds is there: the gateway's network has an address of the machine."""
    (address,) = _gateways(f"{composed.name}_edge")
    assert _can_connect(address, machine)
    assert _reached(composed, "import", [(address, machine)]) == []


@pytest.mark.parametrize("service", ["run-server", "code-server", "dagster-daemon", *PIPELINES, "visualization"])
def test_nobody_else_reaches_the_world(composed: Composed, service: str) -> None:
    """Neither do those that tools are asked by."""
    assert _reached(composed, service, [(address, port) for address in OUTSIDE for port in (53, 80, 443)]) == []
