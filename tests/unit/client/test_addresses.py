"""The addresses of containers, and the container and name in an artifact's URL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bonseyes_dagster.client import Addresses
from bonseyes_dagster.errors import InvalidError, SettingsError
from bonseyes_dagster.settings import Settings


def test_base_url_without_file_is_the_name() -> None:
    """In a Docker network, the names of containers resolve."""
    assert Addresses().base_url("training-set") == "http://training-set"
    assert Addresses().containers() == []


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    """The containers may change while a process runs."""
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
def test_error_of_a_broken_file_names_the_setting(tmp_path: Path, text: str) -> None:
    """The user must know which setting to correct."""
    file = tmp_path / "addresses.json"
    file.write_text(text)
    with pytest.raises(SettingsError, match="BONSEYES_ADDRESSES"):
        Addresses(file).containers()


def test_invalid_container_name_is_refused() -> None:
    """The client must connect to no other host than a container."""
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
def test_artifact_address_is_parsed_in_all_forms(tmp_path: Path, value: str) -> None:
    """The short form, the canonical URL and a URL below a known base URL mean the same artifact."""
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
def test_address_of_anything_but_an_artifact_is_refused(value: str) -> None:
    """Any other host, port, scheme or path could lead the client elsewhere."""
    with pytest.raises(InvalidError, match="CONTAINER/NAME"):
        Addresses().parse_artifact(value)


def test_artifact_url_keeps_upper_case() -> None:
    """Names are case-sensitive, unlike hosts."""
    assert Addresses().parse_artifact("http://Import/artifacts/First") == ("Import", "First")
