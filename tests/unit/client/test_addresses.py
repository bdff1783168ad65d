"""Where containers are, and what an artifact's URL stands for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bonseyes_dagster.client import Addresses
from bonseyes_dagster.errors import InvalidError, SettingsError
from bonseyes_dagster.settings import Settings


def test_without_a_file_a_container_is_its_name() -> None:
    """In a Docker network names resolve."""
    assert Addresses().base_url("training-set") == "http://training-set"
    assert Addresses().containers() == []


def test_the_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """Containers come and go while a process runs."""
    file = tmp_path / "addresses.json"
    addresses = Addresses.from_settings(Settings(addresses=file))
    assert addresses.containers() == []
    file.write_text(json.dumps({"import": "http://127.0.0.1:41001/"}))
    assert addresses.base_url("import") == "http://127.0.0.1:41001"
    replacement = tmp_path / "new"
    replacement.write_text(json.dumps({"import": "http://127.0.0.1:41002", "training": "http://127.0.0.1:1"}))
    replacement.replace(file)
    assert addresses.base_url("import") == "http://127.0.0.1:41002"
    assert addresses.containers() == ["import", "training"]
    assert addresses.base_url("other") == "http://other"


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    """The reader learns which setting is wrong."""
    file = tmp_path / "addresses.json"
    file.write_text(text)
    with pytest.raises(SettingsError, match="BONSEYES_ADDRESSES"):
        Addresses(file).containers()


def test_a_name_that_is_none_is_no_host() -> None:
    """Nothing but a container's name becomes a host to connect to."""
    with pytest.raises(InvalidError):
        Addresses().base_url("evil.example/x")


@pytest.mark.parametrize(
    "value",
    [
        "import/first",
        "http://import/artifacts/first",
        "http://import:80/artifacts/first",
        "http://127.0.0.1:41001/artifacts/first",
    ],
)
def test_artifacts_are_found_by_each_spelling(tmp_path: Path, value: str) -> None:
    """The short form, the canonical URL and a known base URL mean the same."""
    file = tmp_path / "addresses.json"
    file.write_text(json.dumps({"import": "http://127.0.0.1:41001"}))
    assert Addresses(file).parse_artifact(value) == ("import", "first")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "first",
        "a/b/c",
        "../etc",
        "import/..",
        "http://import/first",
        "http://import:8080/artifacts/first",
        "http://user@import/artifacts/first",
        "https://import/artifacts/first",
        "http://import/artifacts/first/data",
        "http://import/artifacts/first?x=1",
        "http://import/artifacts/a%2Fb",
        "http://[::1/artifacts/x",
        "ftp://import/artifacts/first",
        7,
    ],
)
def test_what_is_no_artifact_is_refused(value: str) -> None:
    """Only a container's artifact is one: no other host, port, scheme or path."""
    with pytest.raises(InvalidError, match="CONTAINER/NAME"):
        Addresses().parse_artifact(value)


def test_upper_case_survives() -> None:
    """Names are case-sensitive, unlike hosts."""
    assert Addresses().parse_artifact("http://Import/artifacts/First") == ("Import", "First")
