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
    """What watches the modules of a tool."""
    return UncoveredModules(load_tool(Path("benchmarks/tools/empty")))


def imported(monkeypatch: pytest.MonkeyPatch, name: str, file: str) -> None:
    """Have a module that was read from `file`."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None, origin=file)
    monkeypatch.setitem(sys.modules, name, module)


def test_a_module_from_elsewhere_is_found_after_an_earlier_look(
    uncovered: UncoveredModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool may import it in the middle of an artifact."""
    assert "strange" not in uncovered.look()
    imported(monkeypatch, "strange", "/elsewhere/strange.py")
    assert uncovered.look()["strange"] == "/elsewhere/strange.py"
    assert uncovered.look()["strange"] == "/elsewhere/strange.py"


def test_a_module_that_takes_the_place_of_another_is_found(
    uncovered: UncoveredModules, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are as many modules as before then."""
    imported(monkeypatch, "first", "/elsewhere/first.py")
    uncovered.look()
    monkeypatch.delitem(sys.modules, "first")
    imported(monkeypatch, "second", "/elsewhere/second.py")
    assert uncovered.look()["second"] == "/elsewhere/second.py"
