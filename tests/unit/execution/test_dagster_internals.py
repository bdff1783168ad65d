"""Each area imports the private parts of Dagster in one module, and the installed Dagster has these parts."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest
from dagster._daemon.monitoring import run_monitoring

import bonseyes_dagster
from bonseyes_dagster.execution.runs.dagster_internals import RESUME_RUN_LOG_MESSAGE

PACKAGE = Path(bonseyes_dagster.__file__).parent
MODULES = sorted(PACKAGE.rglob("dagster_internals.py"))


def private_imports(file: Path) -> list[tuple[str, str]]:
    """Return the module and the name of each import of a private part of Dagster."""
    nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
    return [
        (node.module, alias.name)
        for node in nodes
        if node.module and node.module.startswith("dagster") and "._" in node.module
        for alias in node.names
    ]


@pytest.mark.parametrize(
    ("area", "module", "name"),
    [
        (str(file.parent.relative_to(PACKAGE)), module, name)
        for file in MODULES
        for module, name in private_imports(file)
    ],
)
def test_installed_dagster_has_the_private_part(area, module, name):
    """After a change of Dagster's version, each failure names one moved part and the area that uses it."""
    found = hasattr(importlib.import_module(module), name) or importlib.util.find_spec(f"{module}.{name}")
    assert found, f"{area} uses {module}.{name}"


def test_private_parts_are_imported_only_in_dagster_internals():
    """In other modules, moved names would be found only one by one."""
    others = [file for file in PACKAGE.rglob("*.py") if file not in MODULES]
    assert [str(file) for file in others if private_imports(file)] == []


def test_copied_resume_message_equals_dagsters():
    """The message is copied, because the import of its module takes half a second."""
    assert run_monitoring.RESUME_RUN_LOG_MESSAGE == RESUME_RUN_LOG_MESSAGE
