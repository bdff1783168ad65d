"""Modules that a tool's version does not cover are found, whenever they are imported."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

from bonseyes_dagster.description import load_tool
from bonseyes_dagster.tool.code.modules import UncoveredModules


@pytest.fixture
def uncovered() -> UncoveredModules:
    """Return the uncovered modules of a tool."""
    return UncoveredModules(load_tool(Path("benchmarks/tools/empty")))


def imported(monkeypatch: pytest.MonkeyPatch, name: str, file: str) -> None:
    """Pretend the import of a module from `file`."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, origin=file)
    monkeypatch.setitem(sys.modules, name, module)


def test_module_imported_after_an_earlier_look_is_found(
    uncovered: UncoveredModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool may import it in the middle of an artifact."""
    assert "strange" not in uncovered.find()
    imported(monkeypatch, "strange", "/elsewhere/strange.py")
    assert uncovered.find()["strange"] == "/elsewhere/strange.py"
    assert uncovered.find()["strange"] == "/elsewhere/strange.py"


def test_module_that_replaces_another_is_found(uncovered: UncoveredModules, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of modules stays the same then."""
    imported(monkeypatch, "first", "/elsewhere/first.py")
    uncovered.find()
    monkeypatch.delitem(sys.modules, "first")
    imported(monkeypatch, "second", "/elsewhere/second.py")
    assert uncovered.find()["second"] == "/elsewhere/second.py"
