"""Compose files are read as Compose reads them, and each error names the file and the problem."""

from __future__ import annotations

from pathlib import Path

import pytest

from bonseyes_dagster.docker.compose.files import Mount, read_compose_model, read_images, repository_of
from bonseyes_dagster.errors import SettingsError

COMPOSE_TEXT = """
x-habits: &habits
  restart: unless-stopped
services:
  tool:
    <<: *habits
    image: me/tool:${VERSION:-latest}
    command: [serve, --port, 80]
    environment: [PATH_ONLY, "A=b=c"]
    networks: [tools]
    ports: ["${HOST:-127.0.0.1}:8000:80", 9000]
    volumes:
      - tool:/volume
      - ./here:/there:ro
      - /anonymous
      - {type: tmpfs, target: /tmp}
    depends_on: [other]
  other:
    image: me/other
    command: serve
    environment: {FLAG: true, NUMBER: 5, ABSENT: }
    networks: {tools: , front: {aliases: [other.front]}}
    ports: [{host_ip: 127.0.0.1, published: "81", target: 80}]
    profiles: [gpu]
    depends_on: {tool: {condition: service_healthy}}
    mem_limit: !override 1g
networks: {tools: {internal: true}, front: }
volumes: {tool: }
"""


def _write(folder: Path, text: str, name: str = "docker-compose.yml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    return file


def test_compose_file_is_read_in_all_notations(tmp_path: Path) -> None:
    """Compose has several notations for most keys."""
    compose_model = read_compose_model(_write(tmp_path, COMPOSE_TEXT), {"VERSION": "3"})
    tool, other = compose_model.services["tool"], compose_model.services["other"]
    assert (tool.image, tool.repository) == ("me/tool:3", "me/tool")
    assert tool.command == ("serve", "--port", "80")
    assert tool.environment == {"A": "b=c"}
    assert tool.networks == {"tools": ()}
    assert tool.ports == ("127.0.0.1:8000:80", "9000")
    assert tool.mounts == (
        Mount(kind="volume", source="tool", target="/volume"),
        Mount(kind="bind", source="./here", target="/there", is_read_only=True),
        Mount(kind="volume", source="", target="/anonymous"),
        Mount(kind="tmpfs", source="", target="/tmp"),
    )
    assert tool.needs == ("other",)
    assert tool.raw["restart"] == "unless-stopped"
    assert other.command == ("serve",)
    assert other.environment == {"FLAG": "true", "NUMBER": "5"}
    assert other.networks == {"tools": (), "front": ("other.front",)}
    assert (other.ports, other.profiles, other.needs) == (("127.0.0.1:81:80",), ("gpu",), ("tool",))
    assert other.raw["mem_limit"] == "1g"
    assert compose_model.networks == {"tools": {"internal": True}, "front": {}}
    assert compose_model.volumes == {"tool": {}}


def test_override_changes_and_adds_services(tmp_path: Path) -> None:
    """A new service without an image is an error: most likely, its name is misspelt."""
    file = _write(tmp_path, COMPOSE_TEXT)
    override = _write(
        tmp_path,
        "services: {tool: {ports: !reset [], networks: {more: }}, third: {image: me/third}}\nnetworks: {more: }",
        "docker-compose.more.yml",
    )
    compose_model = read_compose_model(file, {}, override=override)
    assert (compose_model.file, compose_model.override) == (file, override)
    assert list(compose_model.services) == ["tool", "other", "third"]
    assert list(compose_model.services["tool"].networks) == ["tools", "more"]
    assert compose_model.services["tool"].ports == ()
    assert compose_model.networks == {"tools": {"internal": True}, "front": {}, "more": {}, "default": {}}
    _write(tmp_path, "services: {tool: {}, tol: {mem_limit: 1g}}", override.name)
    with pytest.raises(SettingsError, match=r"more\.yml: docker-compose\.yml has no service 'tol'"):
        read_compose_model(file, {}, override=override)


def test_service_without_networks_is_on_the_default_network(tmp_path: Path) -> None:
    """The default network leads to the world. A service with a `network_mode` is not on it."""
    text = "services: {a: {image: x, network_mode: none}, b: {image: x, entrypoint: 'sh -c', command: 'echo \"1 2\"'}}"
    compose_model = read_compose_model(_write(tmp_path, text), {})
    assert {name: list(service.networks) for name, service in compose_model.services.items()} == {
        "a": [],
        "b": ["default"],
    }
    assert compose_model.networks == {"default": {}}
    assert compose_model.services["b"].command == ("sh", "-c", "echo", "1 2")


def test_volume_source_from_a_variable_counts_as_a_path(tmp_path: Path) -> None:
    """The variable could hold any path of the machine."""
    text = "services: {a: {image: x, volumes: ['${PLACE}:/place', 'named:/named', '~/me:/me']}}"
    mounts = read_compose_model(_write(tmp_path, text), {}).services["a"].mounts
    assert [mount.kind for mount in mounts] == ["bind", "volume", "bind"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: [", "line 1: it is not YAML"),
        ("{services: {}, include: [other.yml]}", "'include' is not supported"),
        ("hello", "must hold a mapping"),
        ("services: [a]", "must map names to services"),
        ("services: {a: b}", "service 'a' must be a mapping"),
        ("services: {a: {image: '${NONE:?which}'}}", "NONE must be set: which"),
        ("services: {a: {image: x, volumes: [{source: y}]}}", "service 'a' is not valid for Compose"),
    ],
)
def test_error_of_a_compose_file_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    """The user never gets a traceback of the YAML library."""
    with pytest.raises(SettingsError, match=f"docker-compose.yml.*{message}"):
        read_compose_model(_write(tmp_path, text), {})


def test_images_of_the_project_and_its_components_are_read(tmp_path: Path) -> None:
    """Contexts are relative to the folder of each file, Dockerfiles to their context."""
    _write(tmp_path, "services: {a: {image: 'me/a:1', build: .}}", "docker-compose-build.yml")
    folder = tmp_path / "components" / "part"
    build = "{context: .., dockerfile: part/b.Dockerfile, target: t, args: [X=1, Y]}"
    _write(folder, f"services: {{b: {{image: 'me/b', build: {build}}}}}", "docker-compose-build.yml")
    images = read_images(tmp_path, {})
    assert list(images) == ["a", "b"]
    a, b = images["a"], images["b"]
    assert (a.context, a.dockerfile, a.target) == (tmp_path, tmp_path / "Dockerfile", None)
    assert (b.context, b.dockerfile) == (tmp_path / "components", folder / "b.Dockerfile")
    assert (b.target, b.args, b.repository, b.tag) == ("t", {"X": "1"}, "me/b", "latest")


def test_variables_come_from_the_environment_and_the_projects_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compose does the same, so the built images are the started ones. An argument replaces both."""
    image = "'me/a:${BOTH}${ONLY_HERE}'"
    _write(tmp_path, f"services: {{a: {{image: {image}, build: .}}}}", "docker-compose-build.yml")
    _write(tmp_path, "BOTH=file\nONLY_HERE='-and more' # a comment\n", ".env")
    assert read_images(tmp_path)["a"].tag == "file-and more"
    monkeypatch.setenv("BOTH", "environment")
    assert read_images(tmp_path)["a"].tag == "environment-and more"
    assert read_images(tmp_path, {"BOTH": "1"})["a"].tag == "1"


def test_missing_incomplete_and_duplicate_images_are_refused(tmp_path: Path) -> None:
    """There is no build file, then a service without an image, then two images of one name."""
    with pytest.raises(SettingsError, match=r"no docker-compose-build\.yml"):
        read_images(tmp_path, {})
    _write(tmp_path, "services: {a: {build: .}}", "docker-compose-build.yml")
    with pytest.raises(SettingsError, match="service 'a' must have 'image' and 'build'"):
        read_images(tmp_path, {})
    for folder in (tmp_path, tmp_path / "components" / "part"):
        _write(folder, "services: {a: {image: x, build: .}}", "docker-compose-build.yml")
    with pytest.raises(SettingsError, match="Two images have the name 'a'"):
        read_images(tmp_path, {})


@pytest.mark.parametrize(
    ("reference", "repository"),
    [
        ("a", "a"),
        ("a/b:1", "a/b"),
        ("host:5000/a/b", "host:5000/a/b"),
        ("host:5000/a:1", "host:5000/a"),
        ("a:1@sha256:x", "a"),
    ],
)
def test_repository_is_the_reference_without_tag_and_digest(reference: str, repository: str) -> None:
    """The port of a registry is not a tag."""
    assert repository_of(reference) == repository
