"""Each rule reports a project that breaks it, and no other rule does; this project breaks none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bonseyes_dagster.client.command import main
from bonseyes_dagster.docker.check.dagster_settings import check_settings
from bonseyes_dagster.docker.check.pipelines import ask_pipelines
from bonseyes_dagster.docker.check.rules import RULES, check_project, find
from bonseyes_dagster.docker.check.subject import read_subject

PROJECT = Path(__file__).parents[3]
AUTHORING = PROJECT / "docs" / "authoring.md"
PIPELINES = {"digits-cnn": ("import", "training"), "digits-mlp": ("import", "training")}
COMPONENT = "components/image-classification"
OVERRIDES = (RUNS, GPU) = ("docker-compose.run-containers.yml", "docker-compose.gpu.yml")
# A tool whose image the project does not build.
ELSEWHERE = {
    "environment": {"BONSEYES_TOOL": "/project/containers/import"},
    "image": "elsewhere/import",
    "user": "10001:10001",
}


class Loader(yaml.SafeLoader):
    """A YAML loader that accepts Compose's own tags."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


@dataclass
class Copy:
    """A copy of the project that a test may break."""

    folder: Path

    def edit(self, file: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the content of a YAML file."""
        document = yaml.load((self.folder / file).read_text(), Loader)
        change(document)
        (self.folder / file).write_text(yaml.safe_dump(document, sort_keys=False))

    def service(self, name: str, file: str = "docker-compose.yml", **changes: Any) -> None:
        """Change a service; None removes a key."""

        def change(document: dict[str, Any]) -> None:
            service = document["services"][name]
            for key, value in changes.items():
                service[key] = value
                if value is None:
                    del service[key]

        self.edit(file, change)

    def replace(self, file: str, old: str, new: str) -> None:
        """Replace `old` in a file, which must hold it."""
        text = (self.folder / file).read_text()
        assert old in text
        (self.folder / file).write_text(text.replace(old, new))

    def remove_service(self, name: str) -> Any:
        """Remove a service from all files, and return its entry in docker-compose.yml."""
        removed: dict[str, Any] = {}
        for file in ("docker-compose.yml", *OVERRIDES):
            self.edit(file, lambda d, file=file: removed.update({file: d["services"].pop(name, None)}))
        return removed["docker-compose.yml"]

    def add_service(self, name: str, service: Any, file: str = "docker-compose.yml") -> None:
        """Add a service."""
        self.edit(file, lambda d: d["services"].update({name: service}))

    def rename_service(self, old: str, new: str) -> None:
        """Rename a service and its addresses."""
        service = json.dumps(self.remove_service(old)).replace(f"{old}.", f"{new}.")
        self.add_service(new, json.loads(service))

    def check(self) -> list[tuple[str, str]]:
        """Return (rule, text) of each finding."""
        subject, wrong = read_subject(self.folder, PIPELINES)
        found = [("readable", str(finding)) for finding in wrong]
        return found + [(finding.rule, str(finding)) for finding in find(subject)]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """A copy of the files of this project that the check reads."""
    folder = tmp_path / "project"
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("containers", "components"):
        shutil.copytree(PROJECT / name, folder / name, ignore=ignored)
    for file in (*PROJECT.glob("*Dockerfile"), *PROJECT.glob("docker-compose*.yml")):
        shutil.copy(file, folder)
    return Copy(folder)


def test_this_project_has_no_findings(copy: Copy) -> None:
    """The unchanged copy has none, either; otherwise the tests below would prove nothing."""
    assert copy.check() == []
    report = check_project(PROJECT)
    assert (report.findings, report.skipped) == ((), ())
    assert set(report.subject.pipelines or ()) == set(PIPELINES)


def _forget_service(copy: Copy) -> None:
    copy.edit("docker-compose.yml", lambda d: d["services"].pop("import"))


def _forget_image(copy: Copy) -> None:
    copy.edit("docker-compose-build.yml", lambda d: d["services"].pop("import"))
    copy.service("import", **ELSEWHERE)


def _forget_folder(copy: Copy) -> None:
    shutil.rmtree(copy.folder / "containers" / "import")
    copy.edit("docker-compose-build.yml", lambda d: d["services"].pop("import"))
    copy.service("import", **ELSEWHERE)


def _forget_folder_of_image(copy: Copy) -> None:
    target = copy.folder / "left"
    target.mkdir()
    shutil.copy(copy.folder / "containers/import/Dockerfile", target / "Dockerfile")
    shutil.rmtree(copy.folder / "containers/import")
    copy.edit("docker-compose.yml", lambda d: d["services"].pop("import"))
    copy.edit(
        "docker-compose-build.yml", lambda d: d["services"]["import"]["build"].update(dockerfile="left/Dockerfile")
    )


def _two_of_a_name(copy: Copy) -> None:
    shutil.copytree(copy.folder / "containers/import", copy.folder / COMPONENT / "containers/import")
    copy.replace(f"{COMPONENT}/containers/import/tool.yml", f"{COMPONENT}/code", "code")


def _name_of_our_own(copy: Copy) -> None:
    _add_tool(copy, "postgres")
    copy.edit("docker-compose.yml", lambda d: d["services"].pop("postgres"))
    _add_service(copy, "postgres")


def _impossible_name(copy: Copy) -> None:
    _add_tool(copy, "up..down")
    _add_service(copy, "up..down")


def _add_tool(copy: Copy, name: str) -> None:
    """Add a tool with its image."""
    shutil.copytree(copy.folder / "containers/import", copy.folder / "containers" / name)
    copy.replace(f"containers/{name}/Dockerfile", "containers/import", f"containers/{name}")
    entry = {
        "image": f"bonseyes/{name}:latest",
        "build": {"context": ".", "dockerfile": f"containers/{name}/Dockerfile"},
    }
    copy.edit("docker-compose-build.yml", lambda d: d["services"].update({name: entry}))


def _add_service(copy: Copy, name: str) -> None:
    """Add a service for a tool, like the services of the others."""

    def change(document: dict[str, Any]) -> None:
        service = dict(document["services"]["import"])
        document["services"][name] = service | {
            "image": f"bonseyes/{name}:latest",
            "environment": {"BONSEYES_CONTAINER": name},
            "volumes": [f"{name}:/volume"],
        }
        document["volumes"][name] = None

    copy.edit("docker-compose.yml", change)


def _let_out(copy: Copy) -> None:
    copy.edit("docker-compose.yml", lambda d: d["networks"].update(outbound={}))
    copy.edit("docker-compose.yml", lambda d: d["services"]["import"].update(networks=["tools", "browse", "outbound"]))


def _let_out_another(copy: Copy) -> None:
    copy.edit("docker-compose.yml", lambda d: d["networks"].update(outbound={}))
    copy.service("access", networks=["front", "outbound"], environment={"BONSEYES_OUTBOUND": "example.org"})


def _shut_outbound(copy: Copy) -> None:
    _let_out(copy)
    copy.service("import", environment={"BONSEYES_OUTBOUND": "example.org"})
    copy.edit("docker-compose.yml", lambda d: d["networks"].update(outbound={"internal": True}))


def _open_network(copy: Copy) -> None:
    copy.edit("docker-compose.yml", lambda d: d["networks"].update(tools={}))


def _pipeline_unknown(copy: Copy) -> None:
    services: dict[str, Any] = {}
    copy.edit("docker-compose.yml", lambda d: services.update(d["services"]))
    copy.add_service("digits-svm", json.loads(json.dumps(services["digits-cnn"]).replace("digits-cnn", "digits-svm")))


def _shared_uploads(copy: Copy) -> None:
    copy.edit(
        "docker-compose.yml",
        lambda d: d["services"]["digits-mlp"]["environment"].update(BONSEYES_VOLUME="/dagster/volumes/digits-cnn"),
    )


def _wrong_base(copy: Copy) -> None:
    copy.replace("containers/import/Dockerfile", "FROM bonseyes/image-classification:", "FROM bonseyes/imaging:")


def _wrong_target(copy: Copy) -> None:
    def change(document: dict[str, Any]) -> None:
        document["services"]["spare"] = {"image": "bonseyes/spare", "build": {"context": ".", "target": "nowhere"}}

    copy.edit("docker-compose-build.yml", change)


def _wrong_tool_yml(copy: Copy) -> None:
    copy.replace("containers/import/tool.yml", "entry_point:", "entrypoint:")


def _wrong_component(copy: Copy) -> None:
    entries: dict[str, Any] = {}
    copy.edit(f"{COMPONENT}/docker-compose-build.yml", lambda d: entries.update(d["services"].pop("export")))
    entries["build"] |= {"context": COMPONENT}
    copy.edit("docker-compose-build.yml", lambda d: d["services"].update(export=entries))


ROOT_STAGE = """USER root
RUN true
FROM libraries AS image-classification-onnx"""
MINE = """services:
  mine:
    image: elsewhere/mine:1
    user: "472:472"
    networks: [front]
    volumes: ["mine:/data"]
    restart: unless-stopped
    read_only: true
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    mem_limit: 1g
    cpus: 0.5
    pids_limit: 100
    healthcheck: {test: [CMD, "true"]}
volumes: {mine: }
"""

BREAKS: dict[str, tuple[Callable[[Copy], object], str, str]] = {
    # tools
    "no tool.yml": (
        lambda c: (c.folder / "containers/import/tool.yml").unlink(),
        "tool_description",
        "tool.yml: There is no such file.",
    ),
    "a key of tool.yml that comes twice": (
        lambda c: c.replace("containers/import/tool.yml", "name: import\n", "name: import\nname: import\n"),
        "tool_description",
        "containers/import/tool.yml:2: the key 'name' is already in line 1. docs/",
    ),
    "a key of a Compose file that comes twice": (
        lambda c: c.replace("docker-compose.yml", "services:\n", "services: {}\nservices:\n"),
        "readable",
        "the key 'services' is already in line",
    ),
    "wrong tool.yml": (_wrong_tool_yml, "tool_description", "'entrypoint' is unknown"),
    "impossible name": (_impossible_name, "tool_name", "'up..down' cannot be"),
    "name of a service": (_name_of_our_own, "tool_name", "'postgres' is already the name of a service"),
    "two of a name": (_two_of_a_name, "tool_name", "'import' is already the name of the tool containers/import"),
    "no service": (_forget_service, "tool_has_service", "containers/import: No service"),
    "another service's name": (
        lambda c: c.rename_service("import", "importer"),
        "service_runs_its_tool",
        "importer: it runs the tool in containers/import",
    ),
    "wrong path": (
        lambda c: c.replace(
            "containers/import/Dockerfile", "BONSEYES_TOOL=/project/containers", "BONSEYES_TOOL=/tools"
        ),
        "service_runs_its_tool",
        "import: BONSEYES_TOOL, here or in its image, is '/tools/import'",
    ),
    "no folder": (_forget_folder, "service_runs_its_tool", "is '/project/containers/import'"),
    "no build entry": (_forget_image, "tool_has_image", "No build file makes its image"),
    "entry in the wrong file": (
        _wrong_component,
        "tool_has_image",
        "Move the entry to components/image-classification/",
    ),
    # images
    "no Dockerfile": (
        lambda c: (c.folder / COMPONENT / "containers/export/Dockerfile").unlink(),
        "dockerfile_there",
        "export: there is no components/image-classification/containers/export/Dockerfile",
    ),
    "no such stage": (_wrong_target, "dockerfile_there", "spare: Dockerfile has no stage 'nowhere'"),
    "a base that no build file makes": (_wrong_base, "base_is_built", "import: it is made from bonseyes/imaging"),
    "an image of no tool": (_forget_folder_of_image, "image_has_tool", "import: its BONSEYES_TOOL is"),
    "another tool's image": (
        lambda c: c.service("import", image="bonseyes/tool:latest"),
        "service_image",
        "builds 'bonseyes/import:latest' for it",
    ),
    "another tag": (
        lambda c: c.service("dashboard", image="bonseyes/tool:1.0"),
        "service_image",
        "dashboard: its image is 'bonseyes/tool:1.0'",
    ),
    "an image that no build file makes": (
        lambda c: c.service("dashboard", image="bonseyes/board:latest"),
        "service_image",
        "'bonseyes/board:latest', which no build file makes",
    ),
    # pipelines and volumes
    "no pipeline service": (
        lambda c: c.remove_service("digits-mlp"),
        "pipeline_has_service",
        "definitions.py: No service of docker-compose.yml serves the pipeline 'digits-mlp'",
    ),
    "no such pipeline": (_pipeline_unknown, "service_serves_its_pipeline", "BONSEYES_PIPELINE is 'digits-svm'"),
    "pipeline of another name": (
        lambda c: c.rename_service("digits-mlp", "mlp"),
        "service_serves_its_pipeline",
        "mlp: it serves the pipeline 'digits-mlp'",
    ),
    "another name in its environment": (
        lambda c: c.service("import", environment={"BONSEYES_CONTAINER": "importer"}),
        "container_name",
        "import: it calls itself 'importer'",
    ),
    "another name in tool.yml": (
        lambda c: (
            c.replace("containers/import/tool.yml", "name: import", "name: importer"),
            c.service("import", environment={}),
        ),
        "container_name",
        "import: it calls itself 'importer'",
    ),
    "no volume": (lambda c: c.service("import", volumes=None), "has_volume", "import: no named volume is mounted"),
    "a volume that is not declared": (
        lambda c: c.edit("docker-compose.yml", lambda d: d["volumes"].pop("import")),
        "volume_is_declared",
        "Add 'import'",
    ),
    "a volume of two": (
        lambda c: c.service("export", volumes=["import:/volume"]),
        "volume_of_a_tool",
        "export: it mounts the volume 'import', as 'import' does",
    ),
    "two pipelines in one place": (_shared_uploads, "volume_is_its_own", "as 'digits-cnn' does"),
    "a tool's volume elsewhere": (
        lambda c: c.service("access", volumes=["import:/import:ro"]),
        "volume_of_a_tool",
        "access: it mounts the volume 'import', as 'import' does",
    ),
    "a tool with another's volume, too": (
        lambda c: c.service("export", volumes=["export:/volume", "import:/import:ro"]),
        "volume_of_a_tool",
        "export: it mounts the volume 'import', as 'import' does",
    ),
    "a tool with the database's password": (
        lambda c: c.service("import", volumes=["import:/volume", "secrets:/secrets:ro"]),
        "volume_of_a_tool",
        "import: it mounts the volume 'secrets', as 'secrets' does",
    ),
    "a tool with all runs": (
        lambda c: c.service("import", volumes=["import:/volume", "dagster-home:/dagster"]),
        "volume_of_a_tool",
        "import: it mounts the volume 'dagster-home', as 'digits-cnn' does",
    ),
    # isolation
    "a tool on Dagster's network": (
        lambda c: c.service("import", networks=["tools", "browse", "dagster"]),
        "tool_networks",
        "import: it is on the network 'dagster'",
    ),
    "a tool that is not on the network tools": (
        lambda c: c.service("import", networks=["browse"]),
        "tool_networks",
        "import: it is not on the network 'tools'",
    ),
    "a tool without network": (
        lambda c: c.edit(
            "docker-compose.yml", lambda d: d["services"]["import"].update(networks=["tools"], network_mode="none")
        ),
        "tool_networks",
        "import: it is not on the network 'browse'",
    ),
    **{
        f"{name} on the host's network": (
            lambda c, name=name: c.service(name, networks=None, network_mode="host"),
            "own_network",
            f"{name}: its network_mode is 'host'",
        )
        for name in ("import", "dagster-webserver")
    },
    "in another's network": (
        lambda c: c.service("access", networks=None, network_mode="service:postgres"),
        "own_network",
        "access: its network_mode is 'service:postgres'",
    ),
    "a network that is not declared": (
        lambda c: c.service("access", networks=["frnt"]),
        "networks_are_declared",
        "access: it is on the network 'frnt'",
    ),
    "no networks": (
        lambda c: c.service("access", networks=None),
        "networks_are_internal",
        "default: the network leads out",
    ),
    "a database where tools are": (
        lambda c: c.service("postgres", networks=["dagster", "tools"]),
        "listens_elsewhere",
        "postgres: it is on the network 'tools', where every tool could connect to it. Have it bind postgres.dagster",
    ),
    "a pipeline that tools can connect to": (
        lambda c: c.replace("docker-compose.yml", '"digits-cnn.front:80"', '"0.0.0.0:80"'),
        "listens_elsewhere",
        "digits-cnn: it is on the network 'tools', where every tool could connect to it. Have it bind digits-cnn.front",
    ),
    "a pipeline that was copied": (
        lambda c: c.replace("docker-compose.yml", '"digits-mlp.front:80"', '"digits-cnn.front:80"'),
        "listens_elsewhere",
        "digits-mlp: it is on the network 'tools'",
    ),
    "a pipeline without its alias": (
        lambda c: c.service("digits-mlp", networks=["front", "tools", "dagster"]),
        "listens_elsewhere",
        "digits-mlp: it binds digits-mlp.front, which is not its alias there",
    ),
    "a service that only mentions its address": (
        lambda c: c.service("visualization", command=["serve", "http://visualization.front:80"]),
        "listens_elsewhere",
        "visualization: it is on the network 'browse'",
    ),
    "a gateway with a misspelt alias": (
        lambda c: c.replace("docker-compose.yml", "[gateway.edge]", "[gateway.egde]"),
        "listens_elsewhere",
        "gateway: it binds gateway.edge, which is not its alias there. Give it `aliases: [gateway.edge]`",
    ),
    "a gateway that tools can connect to": (
        lambda c: c.replace("Dockerfile", "--listen gateway.edge:8080", "--listen 8080"),
        "listens_elsewhere",
        "gateway: it is on the network 'browse'",
    ),
    "another service on the network outbound": (
        _let_out_another,
        "listens_elsewhere",
        "access: it is on the network 'outbound', where every tool could connect to it. Have it bind access.front",
    ),
    "a network with the machine on it": (
        lambda c: c.edit("docker-compose.yml", lambda d: d["networks"].update(tools={"internal": True})),
        "networks_are_internal",
        "tools: the machine has an address on the network",
    ),
    "a network that leads out": (_open_network, "networks_are_internal", "tools: the network leads out"),
    "outbound, without the variable": (_let_out, "outbound_is_said", "import: it is on the network 'outbound'"),
    "outbound, without the network": (
        lambda c: c.service("import", environment={"BONSEYES_OUTBOUND": "example.org"}),
        "outbound_is_said",
        "import: BONSEYES_OUTBOUND is set",
    ),
    "outbound that leads nowhere": (_shut_outbound, "outbound_is_open", "outbound: the network is internal"),
    "another port": (
        lambda c: c.service("postgres", ports=["127.0.0.1:5432:5432"]),
        "ports",
        "postgres: it publishes 127.0.0.1:5432:5432",
    ),
    "an open port": (lambda c: c.service("gateway", ports=["8000:8080"]), "ports", "it must be bound to this machine"),
    "a port that cannot be opened": (
        lambda c: c.service("gateway", ports=["127.0.0.1:8000:8080"]),
        "ports",
        "it ignores BONSEYES_HOST",
    ),
    "the engine's socket": (
        lambda c: c.service("access", volumes=["/var/run/docker.sock:/var/run/docker.sock"]),
        "mounts_volumes_only",
        "access: it mounts /var/run/docker.sock, which is the machine's",
    ),
    "the machine's files": (
        lambda c: c.service("import", volumes=["import:/volume", "/:/host"]),
        "mounts_volumes_only",
        "import: it mounts /, which is the machine's",
    ),
    "a folder beside the file": (
        lambda c: c.service("access", volumes=[{"type": "bind", "source": "./data", "target": "/data"}]),
        "mounts_volumes_only",
        "access: it mounts ./data",
    ),
    "an unset variable": (
        lambda c: c.service("access", volumes=["${FOLDER}:/data"]),
        "mounts_volumes_only",
        "access: it mounts the value of an unset variable",
    ),
    "a volume that is a folder": (
        lambda c: c.edit(
            "docker-compose.yml",
            lambda d: d["volumes"].update({"import": {"driver_opts": {"type": "none", "o": "bind", "device": "/etc"}}}),
        ),
        "mounts_volumes_only",
        "import: the volume is /etc",
    ),
    **{
        f"{user} as user": (
            lambda c, user=user: c.service("import", user=user),
            "runs_as_nobody",
            f"import: it runs as {str(user)!r}",
        )
        for user in ("0:0", "root", "00", 0, ":10001", "root:nogroup", "+0")
    },
    "USER root": (
        lambda c: c.replace("containers/import/Dockerfile", "ENV BONSEYES", "USER root\nENV BONSEYES"),
        "runs_as_nobody",
        "import: it runs as 'root'",
    ),
    "USER root in its base": (
        lambda c: c.replace(f"{COMPONENT}/Dockerfile", "FROM libraries AS image-classification-onnx", ROOT_STAGE),
        "runs_as_nobody",
        "training: it runs as 'root'",
    ),
    "an image of others without a user": (
        lambda c: c.service("postgres", user=None),
        "runs_as_nobody",
        "postgres: it has no user",
    ),
    **{
        f"{key}: {value}": (
            lambda c, key=key, value=value: c.service("import", **{key: value}),
            "known_keys",
            f"import: it has `{key}`, which no container here may have",
        )
        for key, value in {
            "privileged": True,
            "cap_add": ["NET_ADMIN"],
            "pid": "host",
            "ipc": "host",
            "uts": "host",
            "cgroup": "host",
            "userns_mode": "host",
            "devices": ["/dev/mem"],
            "device_cgroup_rules": ["a *:* rwm"],
            "volumes_from": ["postgres"],
            "group_add": ["docker"],
            "extends": {"service": "postgres"},
            "secrets": ["password"],
        }.items()
    },
    "a device that is reserved": (
        lambda c: c.service(
            "training", file=GPU, deploy={"resources": {"reservations": {"devices": [{"capabilities": ["tpu"]}]}}}
        ),
        "hardening",
        "docker-compose.gpu.yml:2: training: it has devices of the machine",
    ),
    **{
        f"security_opt: {options}": (
            lambda c, options=options: c.service("import", security_opt=options),
            "hardening",
            "import: it can gain privileges",
        )
        for options in (
            ["no-new-privileges:false"],
            ["no-new-privileges:true", "seccomp:unconfined"],
            ["no-new-privileges:true", "apparmor:unconfined"],
        )
    },
    "no limit of processes": (
        lambda c: c.service("import", pids_limit=-1),
        "hardening",
        "import: its processes have no limit",
    ),
    "no healthcheck": (
        lambda c: c.service("postgres", healthcheck=None),
        "healthcheck",
        "postgres: it has no healthcheck",
    ),
    "a healthcheck that is off": (
        lambda c: c.service("import", healthcheck={"disable": True}),
        "healthcheck",
        "import: it has no healthcheck",
    ),
    **{
        f"no {key}": (lambda c, key=key: c.service("import", **{key: None}), "hardening", f"import: {problem}")
        for key, problem in {
            "read_only": "it can write to its root",
            "cap_drop": "it has capabilities",
            "security_opt": "it can gain privileges",
            "mem_limit": "its memory has no limit",
            "cpu_quota": "its processors have no limit",
            "pids_limit": "its processes have no limit",
            "restart": "it is not started again",
        }.items()
    },
    # overrides
    "an override of a service that is renamed": (
        lambda c: c.edit("docker-compose.yml", lambda d: d["services"].pop("dagster-daemon")),
        "readable",
        f"{RUNS}: docker-compose.yml has no service 'dagster-daemon'",
    ),
    "an override that opens a network": (
        lambda c: c.edit(RUNS, lambda d: d["networks"]["engine"].pop("internal")),
        "networks_are_internal",
        "engine: the network leads out",
    ),
    "a tool on an override's network": (
        lambda c: c.add_service("import", {"networks": {"engine": {}}}, RUNS),
        "tool_networks",
        "import: it is on the network 'engine'",
    ),
    "a socket proxy where tools are": (
        lambda c: c.service("socket-proxy", file=RUNS, networks=["engine", "tools"]),
        "listens_elsewhere",
        "socket-proxy: it is on the network 'tools'",
    ),
    "a socket proxy that is something else": (
        lambda c: c.service("socket-proxy", file=RUNS, command=["sleep"], volumes=None),
        "runs_as_nobody",
        "socket-proxy: it runs as '0:0'",
    ),
    "a socket proxy with more than the socket": (
        lambda c: c.service("socket-proxy", file=RUNS, volumes=["/etc:/etc"]),
        "mounts_volumes_only",
        "socket-proxy: it mounts /etc",
    ),
    "a new service in an override": (
        lambda c: (c.folder / "docker-compose.mine.yml").write_text(MINE.replace("read_only: true", "")),
        "hardening",
        "docker-compose.mine.yml:2: mine: it can write to its root file system",
    ),
    "an override that removes a key": (
        lambda c: (c.folder / "docker-compose.mine.yml").write_text("services: {access: {cap_drop: !reset []}}"),
        "hardening",
        "access: it has capabilities",
    ),
    # files
    "no YAML in an override": (
        lambda c: (c.folder / "docker-compose.mine.yml").write_text("services: ["),
        "readable",
        "docker-compose.mine.yml",
    ),
    "no YAML": (
        lambda c: (c.folder / "docker-compose.yml").write_text("services: ["),
        "readable",
        "docker-compose.yml",
    ),
    "no image in an entry": (
        lambda c: c.edit("docker-compose-build.yml", lambda d: d["services"]["tool"].pop("image")),
        "readable",
        "service 'tool' must have 'image'",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKS)
def test_broken_project_gets_exactly_one_finding(copy: Copy, name: str) -> None:
    """The finding has the right rule and place."""
    break_it, rule, text = BREAKS[name]
    break_it(copy)
    found = copy.check()
    if rule == "readable":
        found = found[:1]  # parts that depend on the unreadable file may be reported, too
    assert [each[0] for each in found] == [rule], found
    assert text in found[0][1]


def test_every_rule_is_tested() -> None:
    """A rule that no project can break is useless."""
    assert {rule.__name__ for rule in RULES} == {rule for _, rule, _ in BREAKS.values()} - {"readable"}


def test_finding_has_file_and_line(copy: Copy) -> None:
    """The path is relative to the project, and the line is that of the service."""
    copy.service("processing", read_only=None)
    ((_, text),) = copy.check()
    lines = (copy.folder / "docker-compose.yml").read_text().splitlines()
    assert text.startswith(f"docker-compose.yml:{lines.index('  processing:') + 1}: processing: ")


def test_tool_may_use_the_network_outbound(copy: Copy) -> None:
    """docs/authoring.md describes this."""
    _let_out(copy)
    copy.service("import", environment={"BONSEYES_OUTBOUND": "example.org"}, dns=[], dns_opt=[])
    assert copy.check() == []


def test_example_service_in_the_docs_has_no_findings(copy: Copy) -> None:
    """Users copy this service from docs/authoring.md."""
    block = AUTHORING.read_text().partition("```yaml\n  notes:\n")[2].partition("```")[0]
    compose_file = copy.folder / "docker-compose.yml"
    before, mark, after = compose_file.read_text().partition("  # --- The pipelines")
    compose_file.write_text(f"{before}  notes:\n{block}\n{mark}{after}\n  notes:\n")
    assert "notes" in read_subject(copy.folder)[0].services
    assert copy.check() == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"networks": {"front": {"aliases": ["mine.front"]}, "tools": {}}, "command": "serve --bind=mine.front:80"},
        {"networks": ["front", "tools", "browse", "dagster"], "x-listens": False},
        {"volumes": ["mine:/data", {"type": "tmpfs", "target": "/run"}], "env_file": "mine.env", "user": "nobody"},
        {"privileged": False, "cap_add": [], "devices": None},
    ],
)
def test_service_of_a_user_has_no_findings(copy: Copy, changes: dict[str, Any]) -> None:
    """It may use the networks of tools as long as it does not listen on them."""
    (copy.folder / "docker-compose.mine.yml").write_text(MINE)
    copy.edit("docker-compose.mine.yml", lambda d: d["services"]["mine"].update(changes))
    assert copy.check() == []


def test_limits_under_deploy_count(copy: Copy) -> None:
    """Compose has two places for limits."""
    limits = {"memory": "1g", "cpus": "2", "pids": 100}
    copy.service("import", mem_limit=None, cpu_quota=None, pids_limit=None, deploy={"resources": {"limits": limits}})
    assert copy.check() == []


def test_project_without_compose_files_has_no_findings(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tools are checked all the same; the report says that the project runs embedded only."""
    for file in copy.folder.rglob("docker-compose*.yml"):
        file.unlink()
    monkeypatch.chdir(copy.folder)
    with pytest.raises(SystemExit) as exited:
        main(["check"])
    assert exited.value.code == 0
    output = capsys.readouterr()
    assert output.out == "6 tools: no problems. There is no docker-compose.yml: the project runs embedded only.\n"
    assert output.err == "Not checked: the pipelines: there is no definitions.py.\n"
    _wrong_tool_yml(copy)
    assert [rule for rule, _ in copy.check()] == ["tool_description"]


def test_findings_are_printed_as_json(
    copy: Copy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is 1 when there are findings."""
    copy.service("import", read_only=None)
    monkeypatch.chdir(copy.folder)
    with pytest.raises(SystemExit) as exited:
        main(["check", "--json"])
    assert exited.value.code == 1
    report = json.loads(capsys.readouterr().out)
    (finding,) = [finding for finding in report["findings"] if finding["rule"] == "hardening"]
    assert finding["file"] == "docker-compose.yml"
    assert finding["line"]
    assert finding["problem"] == "import: it can write to its root file system."
    assert finding["remedy"] == "It must have: read_only: true."
    assert report["skipped"] == ["the pipelines: there is no definitions.py"]


def test_definitions_with_an_unknown_tool_are_a_finding(tmp_path: Path) -> None:
    """The finding has the error of the import of definitions.py."""
    code = 'from bonseyes_dagster import tool_op\ntrain = tool_op("training")\n'
    (tmp_path / "definitions.py").write_text(code)
    pipelines, skipped, (finding,) = ask_pipelines(tmp_path)
    assert (pipelines, skipped) == (None, None)
    assert finding.file == Path("definitions.py")
    assert "There is no tool 'training' in the project" in finding.problem


def test_pipelines_are_skipped_without_dagster(tmp_path: Path) -> None:
    """An environment with the tool extra alone has no Dagster; the report says so."""
    (tmp_path / "definitions.py").touch()
    code = (
        "import sys; sys.modules['dagster'] = None\nfrom bonseyes_dagster.client.command import main\nmain(['check'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Not checked: the pipelines: Dagster is not installed" in done.stderr


def test_check_guides_the_steps_of_adding_a_tool(copy: Copy) -> None:
    """At each step it reports the missing parts; docs/authoring.md describes the same steps."""
    name = "counting"
    folder = copy.folder / "containers" / name
    folder.mkdir()
    assert {rule for rule, _ in copy.check()} == {"tool_description", "tool_has_service", "tool_has_image"}
    (folder / "tool.yml").write_text(
        "name: counting\ndescription: Counts.\nentry_point: counting:create\noutput_type: com.bonseyes.count\n"
    )
    (folder / "counting.py").write_text("def create(artifact):\n    artifact.path('count').write_text('1')\n")
    assert {rule for rule, _ in copy.check()} == {"tool_has_service", "tool_has_image"}
    shutil.rmtree(folder)
    _add_tool(copy, name)
    assert {rule for rule, _ in copy.check()} == {"tool_has_service"}
    _add_service(copy, name)
    assert copy.check() == []


def test_wrong_dagster_settings_are_found(tmp_path: Path) -> None:
    """This process checks the keys, and Dagster the values."""
    assert check_settings(tmp_path) == []
    (tmp_path / "dagster.yaml").write_text("storage: {}\n")
    (finding,) = check_settings(tmp_path)
    assert str(finding).startswith("dagster.yaml: storage cannot be set here")
    (tmp_path / "dagster.yaml").write_text("run_retries: {max_retries: many}\n")
    (finding,) = check_settings(tmp_path)
    assert "run_retries:max_retries" in finding.problem
