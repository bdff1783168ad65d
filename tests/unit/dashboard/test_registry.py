"""The registry keeps every acknowledged name through restarts, crashes and many writers at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bonseyes_dagster.dashboard import registry as module
from bonseyes_dagster.dashboard.app import OPENAPI
from bonseyes_dagster.dashboard.registry import Registry, check_name
from bonseyes_dagster.errors import InvalidError, StorageFullError, UnavailableError
from bonseyes_dagster.web.openapi import read_document


def test_registered_names_survive_a_restart(tmp_path: Path) -> None:
    """A new process finds every name, in the order of registration, with its last description."""
    registry = Registry(tmp_path / "volume")
    for name in ("training", "import"):
        registry.add(name)
    registry.describe({"training": {"artifacts": ["/artifacts"]}, "stranger": {"artifacts": []}})
    again = Registry(tmp_path / "volume")
    assert dict(again.entries()) == {"training": {"artifacts": ["/artifacts"]}, "import": {}}
    assert list(again.entries()) == ["training", "import"]


def test_registering_again_changes_nothing(tmp_path: Path) -> None:
    """The file stays unchanged, too: containers register at each start."""
    registry = Registry(tmp_path)
    registry.add("training")
    registry.describe({"training": {"version": "1"}})
    before = (tmp_path / "containers.json").stat()
    registry.add("training")
    registry.describe({"training": {"version": "1"}})
    after = (tmp_path / "containers.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert dict(registry.entries()) == {"training": {"version": "1"}}


def test_changes_of_another_process_are_visible(tmp_path: Path) -> None:
    """Server processes share the file."""
    registry = Registry(tmp_path)
    registry.add("a")
    code = (
        "import sys, pathlib; from bonseyes_dagster.dashboard.registry import Registry; "
        "Registry(pathlib.Path(sys.argv[1])).add('b')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    assert list(registry.entries()) == ["a", "b"]


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    """Each reads and writes under one lock, with whichever object."""
    registries = [Registry(tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: registries[i % 4].add(f"c{i}"), range(40)))
    assert set(Registry(tmp_path).entries()) == {f"c{i}" for i in range(40)}


def test_the_number_of_names_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless loop of registrations cannot fill the disk; known names still register."""
    monkeypatch.setattr(module, "LIMIT", 2)
    registry = Registry(tmp_path)
    registry.add("a")
    registry.add("b")
    with pytest.raises(StorageFullError):
        registry.add("c")
    registry.add("a")
    assert list(registry.entries()) == ["a", "b"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"containers": []}', '{"containers": {"a": 1}}'])
@pytest.mark.parametrize("act", ["entries", "check_health", "add"])
def test_a_damaged_file_is_kept_and_reported(
    tmp_path: Path, content: str, act: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The file is not lost, and the containers can register again."""
    (tmp_path / "containers.json").write_text(content)
    registry = Registry(tmp_path)
    getattr(registry, act)(*(["a"] if act == "add" else []))
    registry.add("b")
    assert set(Registry(tmp_path).entries()) == {"b"} | ({"a"} if act == "add" else set())
    [kept] = tmp_path.glob("containers.json.damaged-*")
    assert kept.read_text() == content
    assert kept.name in caplog.text
    assert kept.name in registry.notices()[0]


def test_a_damaged_file_that_cannot_be_renamed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry raises an error and does not overwrite the file."""
    (tmp_path / "containers.json").write_text("{")
    registry = Registry(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    for act in (registry.entries, registry.check_health, lambda: registry.add("a")):
        with pytest.raises(UnavailableError):
            act()
    assert (tmp_path / "containers.json").read_text() == "{"


def test_the_file_is_readable_json(tmp_path: Path) -> None:
    """An operator can read and repair it."""
    Registry(tmp_path).add("training")
    assert json.loads((tmp_path / "containers.json").read_text()) == {"containers": {"training": {}}}


@pytest.mark.parametrize("name", ["training", "a.b", "digits-cnn", "X_1", "a" * 128, "v4"])
def test_valid_names(name: str) -> None:
    """Every name of a container."""
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        ".a",
        "a b",
        "a/b",
        "a..b",
        "a\n",
        "é",
        "a" * 129,
        None,
        1,
        ["a"],
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "LocalHost",
    ],
)
def test_invalid_names(name: object) -> None:
    """Also IP addresses in any notation: the dashboard sends requests to registered names."""
    with pytest.raises(InvalidError) as caught:
        check_name(name)
    assert list(caught.value.detail) == ["name"]


@pytest.mark.parametrize("name", ["training", "0", "1.2.3.4", "0x7f.1", "localhost", "a..b", "v4", "10-x", "local", ""])
def test_openapi_has_the_same_name_pattern(name: str) -> None:
    """The pattern of the document and the check must agree."""
    body = read_document(OPENAPI)["paths"]["/containers"]["post"]["requestBody"]["content"]["application/json"]
    is_described = re.search(body["schema"]["properties"]["name"]["pattern"], name) is not None
    try:
        is_taken = bool(check_name(name))
    except InvalidError:
        is_taken = False
    assert is_described == is_taken
