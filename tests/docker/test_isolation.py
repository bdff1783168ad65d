"""The limits of containers towards each other, the machine and the world, tested from inside each container."""

from __future__ import annotations

import json
import socket
import textwrap
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bonseyes_dagster.docker.engine import docker
from tests.docker.running_project import PIPELINES, SERVICES, TOOLS, RunningProject

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

OPEN = {*TOOLS, "dashboard"}
HIDDEN = sorted(set(SERVICES) - OPEN)
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
# The state LISTEN in /proc/net/tcp.
_LISTENS = "0A"
_LOOPBACK = "7F"
# Prints the status of an artifact that a tool makes from two URLs, or the error of its creation.
FETCH = """
import json, sys, requests
tool, images, labels = sys.argv[1:]
made = requests.post(
    f"http://{tool}/artifacts", json={"name": "fetched", "parameters": {"images": images, "labels": labels}}
)
if made.ok:
    made = requests.get(f"http://{tool}/artifacts/fetched/status?wait=60")
print(made.text)
"""
# The service of a tool that fetches from the world, as in docs/authoring.md.
FETCHER = """
  fetcher:
    <<: *tool
    image: bonseyes/import:${BONSEYES_VERSION:-latest}
    environment: {BONSEYES_CONTAINER: fetcher, BONSEYES_OUTBOUND: %s}
    volumes: ["fetcher:/volume"]
    networks: [tools, browse, outbound]
    dns: []
    dns_opt: []
"""
# Prints whether a place is reached, then the routes, then the neighbours that have answered.
LOOK = """
timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$0" "$1" 2>/dev/null && echo reached || echo lost
echo; cat /proc/net/route
echo; grep -v " 0x0 " /proc/net/arp
"""
# A port at which no service listens.
CLOSED = 9
RESOLVE = """
import socket, sys
for name in sys.argv[1:]:
    try:
        print(name, socket.getaddrinfo(name, 80))
    except OSError:
        pass
"""


@dataclass(frozen=True)
class World:
    """A file server at every address of this machine; `address` is on a network that no project uses."""

    network: str
    address: str
    port: int

    @property
    def place(self) -> tuple[str, int]:
        """Its address and port."""
        return self.address, self.port


@pytest.fixture(scope="module")
def world(digits: dict[str, Path]) -> Iterator[World]:
    """A server outside of the project that has the archives; the machine itself may have no internet."""
    network = f"test-{uuid.uuid4().hex[:8]}-world"
    folder = next(iter(digits.values())).parent
    docker("network", "create", network)
    server = ThreadingHTTPServer(("0.0.0.0", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        (address,) = _gateways(network)
        yield World(network, address, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        docker("network", "rm", network)


def test_only_the_gateways_port_is_published(docker_project: RunningProject, world: World) -> None:
    """It is published on this machine only."""
    published = [
        (service, binding["HostIp"], binding["HostPort"])
        for service in SERVICES
        for bindings in docker_project.inspect(service)["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert published == [("gateway", "127.0.0.1", str(docker_project.port))]
    assert _can_connect(*world.place)
    assert not _can_connect(world.address, docker_project.port)


def _can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 3).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("service", SERVICES)
def test_container_has_no_root_and_no_capabilities(docker_project: RunningProject, service: str) -> None:
    """No process in it can gain a capability, either."""
    statuses = docker_project.inside(
        service, "bash", "-c", "cat /proc/[0-9]*/status 2>/dev/null; :"
    )  # some processes may have ended
    values: dict[str, set[str]] = {}
    for line in statuses.splitlines():
        name, _, value = line.partition(":")
        values.setdefault(name, set()).add(value.strip())
    assert "1" in values["Pid"]
    assert "0" not in {word for each in values["Uid"] for word in each.split()}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert values[name] == {"0" * 16}, name
    assert values["NoNewPrivs"] == {"1"}
    assert "0" not in values["Seccomp"]


@pytest.mark.parametrize("service", SERVICES)
def test_container_can_write_only_to_its_volume_and_tmp(docker_project: RunningProject, service: str) -> None:
    """/tmp is in memory. The test tries every folder in the container."""
    script = 'find / -xdev -type d 2>/dev/null | while read -r d; do [ -w "$d" ] && echo "$d"; done; :'
    allowed = {"/tmp", *VOLUMES.get(service, ())}
    assert set(docker_project.inside(service, "bash", "-c", script).split()) <= allowed
    mounts = [line.split() for line in docker_project.inside(service, "cat", "/proc/mounts").splitlines()]
    kernels = ("/proc", "/sys", "/dev")
    writable = {mount[1] for mount in mounts if mount[3].startswith("rw") and not mount[1].startswith(kernels)}
    # Root owns the files there that Docker makes.
    assert writable - {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} == allowed
    docker_project.inside(service, "bash", "-c", "! echo >/etc/hosts; ! echo >/etc/resolv.conf; ! echo >/etc/hostname")


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_can_use_the_engine(docker_project: RunningProject, service: str) -> None:
    """No container mounts the engine's socket, or anything but volumes."""
    found = docker_project.inspect(service)
    assert {mount["Type"] for mount in found["Mounts"]} <= {"volume", "tmpfs"}
    limits = found["HostConfig"]
    assert limits["Memory"] > 0
    assert limits["PidsLimit"] > 0
    assert limits["CpuQuota"] > 0 or limits["NanoCpus"] > 0


@pytest.fixture(scope="module")
def hidden(docker_project: RunningProject) -> list[tuple[str, int]]:
    """Every address and listening port of every service that tools must not reach."""
    ports = {port for service in HIDDEN for port in _listening(docker_project, service)}
    assert {80, 3000, 4000, 5432, 8080} <= ports
    return [(address, port) for service in HIDDEN for address in _addresses(docker_project, service) for port in ports]


def _addresses(docker_project: RunningProject, service: str) -> list[str]:
    networks = docker_project.inspect(service)["NetworkSettings"]["Networks"]
    return [network["IPAddress"] for network in networks.values()]


def _listening(docker_project: RunningProject, service: str) -> set[int]:
    """Return the ports at which processes in a container listen for other containers."""
    lines = docker_project.inside(service, "bash", "-c", "cat /proc/net/tcp /proc/net/tcp6").splitlines()
    listening = [entry[1].split(":") for entry in map(str.split, lines) if entry[3] == _LISTENS]
    return {int(port, 16) for address, port in listening if not address.endswith(_LOOPBACK)}


def _reached(docker_project: RunningProject, service: str, targets: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return _read(docker_project.inside(service, "python", "-c", textwrap.dedent(CONNECT), json.dumps(targets)))


def _read(answer: str) -> list[tuple[str, int]]:
    return [tuple(each) for each in json.loads(answer)]


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_reaches_only_tools_and_the_dashboard(
    docker_project: RunningProject, hidden: list[tuple[str, int]], world: World, tool: str
) -> None:
    """It reaches no port of Dagster, Postgres, pipelines, access, gateway, the machine or the world."""
    wanted = [(name, 80) for name in sorted(OPEN)]
    assert _reached(docker_project, tool, wanted) == wanted
    networks = [
        network for service in SERVICES for network in docker_project.inspect(service)["NetworkSettings"]["Networks"]
    ]
    gateways = [(address, world.port) for name in sorted(set(networks)) for address in _gateways(name)]
    here = [(world.address, port) for port in (world.port, docker_project.port, 22)]
    assert _reached(docker_project, tool, [*hidden, *gateways, *here]) == []
    assert docker_project.inside(tool, "python", "-c", RESOLVE, "example.com", "deb.debian.org", "pypi.org") == ""
    assert docker_project.inspect(tool)["HostConfig"]["Dns"] == ["127.0.0.1"]  # also on a machine without internet


def _gateways(network: str) -> list[str]:
    found: list[dict[str, Any]] = json.loads(docker("network", "inspect", network))
    return [config["Gateway"] for config in found[0]["IPAM"]["Config"] if "Gateway" in config]


def test_machine_is_reachable_on_the_gateways_network(docker_project: RunningProject, world: World) -> None:
    """This proves that the server runs which no tool can reach."""
    (address,) = _gateways(f"{docker_project.name}_edge")
    assert _can_connect(address, world.port)
    assert _reached(docker_project, "import", [(address, world.port)]) == []


def test_container_on_an_ordinary_network_reaches_the_world(docker_project: RunningProject, world: World) -> None:
    """The same image reaches the world on an ordinary network; otherwise the other tests would prove nothing."""
    image = docker_project.inspect("import")["Config"]["Image"]
    ordinary = ("run", "--rm", "--network", world.network, image)
    looked = docker(*ordinary, "bash", "-c", LOOK, world.address, str(world.port), timeout_s=60)
    assert _ways_out(looked) == ("reached", {world.address})


@pytest.mark.parametrize("service", sorted({*SERVICES} - {"gateway"}))
def test_only_the_gateway_has_a_route_to_the_world(docker_project: RunningProject, world: World, service: str) -> None:
    """An old engine may give other containers a route, but the router does not answer."""
    looked = docker_project.inside(service, "bash", "-c", LOOK, world.address, str(world.port))
    assert _ways_out(looked) == ("lost", set())


def _ways_out(looked: str) -> tuple[str, set[str]]:
    """Return whether the world was reached, and the routers that exist."""
    answer, routes, neighbours = looked.strip().split("\n\n")
    there = {line.split()[0] for line in neighbours.splitlines()}
    routers = {socket.inet_ntoa(bytes.fromhex(line.split()[2])[::-1]) for line in routes.splitlines()[1:]}
    return answer, routers & there


@pytest.fixture(scope="module")
def fetcher(docker_project: RunningProject, world: World) -> Iterator[str]:
    """An additional tool with the network `outbound`, which may fetch from the world."""
    text = (docker_project.folder / "docker-compose.yml").read_text()
    before, mark, after = text.partition("\n  # --- The pipelines")
    after = after.replace("\nnetworks:\n", "\nnetworks:\n  outbound:\n")
    file = docker_project.folder / "outbound.yml"
    file.write_text(f"{before}{FETCHER % world.address}{mark}{after}\n  fetcher:\n")
    try:
        docker_project.compose("--file", file.name, "up", "--detach", "--wait", "--no-deps", "fetcher")
        yield "fetcher"
    finally:
        docker_project.compose("--file", file.name, "rm", "--stop", "--force", "fetcher")
        docker("network", "rm", f"{docker_project.name}_outbound")
        docker("volume", "rm", f"{docker_project.name}_fetcher")
        file.unlink()


def test_tool_on_the_network_outbound_reaches_the_world(
    docker_project: RunningProject, world: World, hidden: list[tuple[str, int]], fetcher: str
) -> None:
    """In the project, it reaches no more than other tools; an address that answers at every port is on the way out."""
    assert _reached(docker_project, fetcher, [world.place]) == [world.place]
    closed = [(address, CLOSED) for address in {address for address, _ in hidden}]
    elsewhere = {address for address, _ in _reached(docker_project, fetcher, closed)}
    assert [place for place in _reached(docker_project, fetcher, hidden) if place[0] not in elsewhere] == []
    assert not docker_project.inspect(fetcher)["HostConfig"][
        "Dns"
    ]  # the engine's own servers resolve names of the world


def test_tool_on_the_network_outbound_fetches_urls(
    docker_project: RunningProject, world: World, digits: dict[str, Path], fetcher: str
) -> None:
    """It fetches the URLs in its parameters; another tool refuses them before it tries."""
    urls = [f"http://{world.address}:{world.port}/{digits[name].name}" for name in ("test-images", "test-labels")]
    status = json.loads(docker_project.inside("digits-cnn", "python", "-c", FETCH, fetcher, *urls))
    assert status["phase"] == "completed", status
    refused = json.loads(docker_project.inside("digits-cnn", "python", "-c", FETCH, "import", *urls))
    assert "BONSEYES_OUTBOUND" in refused["error"]["message"]
