"""The check of the request that creates a run's container; these tests need no engine."""

import copy
import uuid
from typing import Any

import docker
import pytest

from bonseyes_dagster.execution.containers import run_container
from bonseyes_dagster.execution.containers.run_container import LABEL, check_creation, launcher_config
from bonseyes_dagster.settings import Settings

SETTINGS = Settings(compose_project="project", run_image="bonseyes/project:latest")
RUN_ID = str(uuid.UUID(int=7))

# Each entry makes a correct body wrong.
HOSTILE: dict[str, Any] = {
    "another image": {"Image": "postgres:15"},
    "another command": {"Cmd": ["sh", "-c", "id"]},
    "a command after the run's": {"Cmd": ["python", "-m", "x", "--run-id", str(uuid.UUID(int=1)), ";", "id"]},
    "an entry point": {"Entrypoint": ["sh"]},
    "root": {"User": "0:0"},
    "nobody in particular": {"User": ""},
    "a library to load": {"Env": ["LD_PRELOAD=/dagster/evil.so"]},
    "another home": {"Env": ["DAGSTER_HOME=/dagster/evil"]},
    "another folder": {"WorkingDir": "/"},
    "no mark": {"Labels": {}},
    "another project's mark": {"Labels": {LABEL: "other"}},
    "a health check": {"Healthcheck": {"Test": ["CMD", "sh"]}},
    "privileges": {"HostConfig": {"Privileged": True}},
    "privileges, spelt for a lenient parser": {"hostconfig": {"Privileged": True}},
    "powers": {"HostConfig": {"CapAdd": ["SYS_ADMIN"]}},
    "kept powers": {"HostConfig": {"CapDrop": []}},
    "new privileges": {"HostConfig": {"SecurityOpt": []}},
    "no seccomp": {"HostConfig": {"SecurityOpt": ["no-new-privileges:true", "seccomp=unconfined"]}},
    "the machine's processes": {"HostConfig": {"PidMode": "host"}},
    "the machine's memory": {"HostConfig": {"IpcMode": "host"}},
    "the machine's network": {"HostConfig": {"NetworkMode": "host"}},
    "another container's network": {"HostConfig": {"NetworkMode": "container:other"}},
    "the machine's names": {"HostConfig": {"UTSMode": "host"}},
    "the machine's users": {"HostConfig": {"UsernsMode": "host"}},
    "the machine's control groups": {"HostConfig": {"CgroupnsMode": "host"}},
    "another control group": {"HostConfig": {"CgroupParent": "/"}},
    "the machine's files": {"HostConfig": {"Binds": ["/:/dagster:rw"]}},
    "the engine's socket": {"HostConfig": {"Binds": ["/var/run/docker.sock:/dagster:rw"]}},
    "another volume": {"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/x"}]}},
    "another container's volumes": {"HostConfig": {"VolumesFrom": ["other"]}},
    "devices": {"HostConfig": {"Devices": [{"PathOnHost": "/dev/mem", "PathInContainer": "/dev/mem"}]}},
    "devices by rule": {"HostConfig": {"DeviceCgroupRules": ["a *:* rwm"]}},
    "a published port": {"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "80"}]}}},
    "a root that can be written": {"HostConfig": {"ReadonlyRootfs": False}},
    "no limit of memory": {"HostConfig": {"Memory": 0}},
    "no limit of processes": {"HostConfig": {"PidsLimit": -1}},
    "another runtime": {"HostConfig": {"Runtime": "evil"}},
    "kernel settings": {"HostConfig": {"Sysctls": {"net.ipv4.ip_forward": "1"}}},
    "unmasked paths": {"HostConfig": {"MaskedPaths": [""]}},
    "to be started for ever": {"HostConfig": {"RestartPolicy": {"Name": "always"}}},
    "another resolver": {"HostConfig": {"Dns": ["8.8.8.8"]}},
    "another network": {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["postgres"]}}}},
}


def changed(body: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return the body with a change; a change of HostConfig is merged into it."""
    result = copy.deepcopy(body)
    for key, value in change.items():
        result[key] = {**result[key], **value} if key == "HostConfig" else value
    return result


@pytest.fixture
def body(monkeypatch) -> dict[str, Any]:
    """The body that Docker's client library sends for the launcher's configuration."""
    asked: list[dict[str, Any]] = []

    def keep(_self: Any, _url: str, data: Any = None, **_options: Any) -> None:
        asked.append(data)
        raise InterruptedError

    monkeypatch.setattr("docker.api.client.APIClient._post_json", keep)
    config = launcher_config(SETTINGS, {"BONSEYES_URL": "http://127.0.0.1:8000"})
    options = dict(config["container_kwargs"])
    labels = {**options.pop("labels"), run_container.RUN_ID_LABEL: RUN_ID, run_container.JOB_LABEL: "digits"}
    environ = dict(each.split("=", 1) for each in config["env_vars"]) | {"DAGSTER_RUN_JOB_NAME": "digits"}
    client = docker.DockerClient(base_url="tcp://127.0.0.1:1", version=run_container.API_VERSION)
    with pytest.raises(InterruptedError):
        client.containers.create(
            image=config["image"],
            command=run_container.command(RUN_ID, is_resumed=True),
            detach=True,
            environment=environ,
            network=config["networks"][0],
            labels=labels,
            **options,
        )
    client.close()
    return asked[0]


def test_request_of_the_launcher_is_accepted(body):
    """Empty values are removed before the request goes to the engine."""
    sent = check_creation(body, SETTINGS)
    assert sent["Cmd"][-3:] == ["--run-id", RUN_ID, "--resume"]
    assert sent["HostConfig"]["Binds"] == ["project_dagster-home:/dagster:rw"]
    assert "Volumes" not in sent


@pytest.mark.parametrize("name", HOSTILE)
def test_changed_request_is_refused(body, name):
    """The message begins with the wrong key."""
    [key] = HOSTILE[name]
    with pytest.raises(ValueError, match=rf"^{key}\b"):
        check_creation(changed(body, HOSTILE[name]), SETTINGS)


@pytest.mark.parametrize("body", [None, [], "x", {}, {"Cmd": None}, {"Cmd": [1], "Env": {}, "Labels": []}])
def test_body_that_is_no_container_is_refused(body):
    """It may have any JSON type."""
    with pytest.raises(ValueError, match="must be"):
        check_creation(body, SETTINGS)
