"""What containers can do to each other, to the machine and to the world; each container is asked itself."""

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
# As /proc/net/tcp writes it.
_LISTENS = "0A"
_LOOPBACK = "7F"
# Prints the status of an artifact that a tool makes of two URLs, or why it does not begin.
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
# What docs/authoring.md says of a tool that fetches from the world.
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
# Whether a place is reached, and then the routes and the neighbours that have answered.
LOOK = """
timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$0" "$1" 2>/dev/null && echo reached || echo lost
echo; cat /proc/net/route
echo; grep -v " 0x0 " /proc/net/arp
"""
# A port at which nobody of ours listens.
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
    """A server of files at every address of this machine; `address` is one on a network of nobody else's."""

    network: str
    address: str
    port: int

    @property
    def place(self) -> tuple[str, int]:
        """Where it is to be reached."""
        return self.address, self.port


@pytest.fixture(scope="module")
def world(digits: dict[str, Path]) -> Iterator[World]:
    """What is outside for the project's containers, on a machine that may itself be cut off; it has the archives."""
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


def test_one_port_is_open(docker_project: RunningProject, world: World) -> None:
    """The gateway's, and on this machine only."""
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
def test_a_container_may_do_nothing_but_its_work(docker_project: RunningProject, service: str) -> None:
    """None of its processes is root, has a capability or can gain one."""
    statuses = docker_project.inside(
        service, "bash", "-c", "cat /proc/[0-9]*/status 2>/dev/null; :"
    )  # some may have ended
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
def test_a_container_writes_to_its_volume_only(docker_project: RunningProject, service: str) -> None:
    """And to /tmp, which is memory; every folder that it has is tried."""
    script = 'find / -xdev -type d 2>/dev/null | while read -r d; do [ -w "$d" ] && echo "$d"; done; :'
    allowed = {"/tmp", *VOLUMES.get(service, ())}
    assert set(docker_project.inside(service, "bash", "-c", script).split()) <= allowed
    mounts = [line.split() for line in docker_project.inside(service, "cat", "/proc/mounts").splitlines()]
    kernels = ("/proc", "/sys", "/dev")
    writable = {mount[1] for mount in mounts if mount[3].startswith("rw") and not mount[1].startswith(kernels)}
    # Docker's own files there are root's.
    assert writable - {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} == allowed
    docker_project.inside(service, "bash", "-c", "! echo >/etc/hosts; ! echo >/etc/resolv.conf; ! echo >/etc/hostname")


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_has_the_engine(docker_project: RunningProject, service: str) -> None:
    """Its socket is not mounted, and nothing of the machine but volumes."""
    found = docker_project.inspect(service)
    assert {mount["Type"] for mount in found["Mounts"]} <= {"volume", "tmpfs"}
    limits = found["HostConfig"]
    assert limits["Memory"] > 0
    assert limits["PidsLimit"] > 0
    assert limits["CpuQuota"] > 0 or limits["NanoCpus"] > 0


@pytest.fixture(scope="module")
def hidden(docker_project: RunningProject) -> list[tuple[str, int]]:
    """Every address of every service that tools have no business with, with every port at which one listens."""
    ports = {port for service in HIDDEN for port in _listening(docker_project, service)}
    assert {80, 3000, 4000, 5432, 8080} <= ports
    return [(address, port) for service in HIDDEN for address in _addresses(docker_project, service) for port in ports]


def _addresses(docker_project: RunningProject, service: str) -> list[str]:
    networks = docker_project.inspect(service)["NetworkSettings"]["Networks"]
    return [network["IPAddress"] for network in networks.values()]


def _listening(docker_project: RunningProject, service: str) -> set[int]:
    """Return the ports at which something in a container listens, but to the container itself."""
    lines = docker_project.inside(service, "bash", "-c", "cat /proc/net/tcp /proc/net/tcp6").splitlines()
    listening = [entry[1].split(":") for entry in map(str.split, lines) if entry[3] == _LISTENS]
    return {int(port, 16) for address, port in listening if not address.endswith(_LOOPBACK)}


def _reached(docker_project: RunningProject, service: str, targets: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return _read(docker_project.inside(service, "python", "-c", textwrap.dedent(CONNECT), json.dumps(targets)))


def _read(answer: str) -> list[tuple[str, int]]:
    return [tuple(each) for each in json.loads(answer)]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_reaches_tools_and_the_dashboard_only(
    docker_project: RunningProject, hidden: list[tuple[str, int]], world: World, tool: str
) -> None:
    """No address and port of anything else: not of Dagster, Postgres, pipelines, access, gateway, machine or world."""
    wanted = [(name, 80) for name in sorted(OPEN)]
    assert _reached(docker_project, tool, wanted) == wanted
    networks = [
        network for service in SERVICES for network in docker_project.inspect(service)["NetworkSettings"]["Networks"]
    ]
    gateways = [(address, world.port) for name in sorted(set(networks)) for address in _gateways(name)]
    here = [(world.address, port) for port in (world.port, docker_project.port, 22)]
    assert _reached(docker_project, tool, [*hidden, *gateways, *here]) == []
    assert docker_project.inside(tool, "python", "-c", RESOLVE, "example.com", "deb.debian.org", "pypi.org") == ""
    assert docker_project.inspect(tool)["HostConfig"]["Dns"] == ["127.0.0.1"]  # where the machine is cut off, too


def _gateways(network: str) -> list[str]:
    found: list[dict[str, Any]] = json.loads(docker("network", "inspect", network))
    return [config["Gateway"] for config in found[0]["IPAM"]["Config"] if "Gateway" in config]


def test_the_machine_can_be_found_where_it_is_open(docker_project: RunningProject, world: World) -> None:
    """The server that no tool finds is there: the gateway's network has an address of the machine."""
    (address,) = _gateways(f"{docker_project.name}_edge")
    assert _can_connect(address, world.port)
    assert _reached(docker_project, "import", [(address, world.port)]) == []


def test_an_ordinary_container_reaches_the_world(docker_project: RunningProject, world: World) -> None:
    """Or those that do not would prove nothing: the same image, on a network as Docker makes them."""
    image = docker_project.inspect("import")["Config"]["Image"]
    ordinary = ("run", "--rm", "--network", world.network, image)
    looked = docker(*ordinary, "bash", "-c", LOOK, world.address, str(world.port), timeout_s=60)
    assert _ways_out(looked) == ("reached", {world.address})


@pytest.mark.parametrize("service", sorted({*SERVICES} - {"gateway"}))
def test_nobody_else_reaches_the_world(docker_project: RunningProject, world: World, service: str) -> None:
    """Nobody but the gateway has a router, even where an engine of old has told it of one."""
    looked = docker_project.inside(service, "bash", "-c", LOOK, world.address, str(world.port))
    assert _ways_out(looked) == ("lost", set())


def _ways_out(looked: str) -> tuple[str, set[str]]:
    """Return whether the world was reached, and the routers that are there."""
    answer, routes, neighbours = looked.strip().split("\n\n")
    there = {line.split()[0] for line in neighbours.splitlines()}
    told = {socket.inet_ntoa(bytes.fromhex(line.split()[2])[::-1]) for line in routes.splitlines()[1:]}
    return answer, told & there


@pytest.fixture(scope="module")
def fetcher(docker_project: RunningProject, world: World) -> Iterator[str]:
    """A tool beside the project's own that says that it fetches from the world."""
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


def test_a_tool_that_says_so_reaches_the_world(
    docker_project: RunningProject, world: World, hidden: list[tuple[str, int]], fetcher: str
) -> None:
    """And of the project no more than any other does; what answers at every port is on the way to the world."""
    assert _reached(docker_project, fetcher, [world.place]) == [world.place]
    closed = [(address, CLOSED) for address in {address for address, _ in hidden}]
    elsewhere = {address for address, _ in _reached(docker_project, fetcher, closed)}
    assert [place for place in _reached(docker_project, fetcher, hidden) if place[0] not in elsewhere] == []
    assert not docker_project.inspect(fetcher)["HostConfig"][
        "Dns"
    ]  # names of the world are asked of the engine's own servers


def test_a_tool_that_says_so_fetches_from_the_world(
    docker_project: RunningProject, world: World, digits: dict[str, Path], fetcher: str
) -> None:
    """By the URLs in its parameters; another refuses these before it tries."""
    urls = [f"http://{world.address}:{world.port}/{digits[name].name}" for name in ("test-images", "test-labels")]
    status = json.loads(docker_project.inside("digits-cnn", "python", "-c", FETCH, fetcher, *urls))
    assert status["phase"] == "completed", status
    refused = json.loads(docker_project.inside("digits-cnn", "python", "-c", FETCH, "import", *urls))
    assert "BONSEYES_OUTBOUND" in refused["error"]["message"]
