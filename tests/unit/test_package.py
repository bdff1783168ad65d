"""The public names of the package: few, sorted, and without Dagster until one of them needs it."""

from __future__ import annotations

import subprocess
import sys

import bonseyes_dagster


def test_public_names_are_sorted_and_exist() -> None:
    """Every public name can be imported."""
    assert list(bonseyes_dagster.__all__) == sorted(bonseyes_dagster.__all__)
    for name in bonseyes_dagster.__all__:
        assert getattr(bonseyes_dagster, name) is not None
        assert name in dir(bonseyes_dagster)


def test_public_names_are_unchanged() -> None:
    """A change of the authoring API must be a decision, not an accident."""
    assert bonseyes_dagster.__all__ == [
        "Artifact",
        "ArtifactRef",
        "Input",
        "Pipeline",
        "PipelineParameter",
        "Task",
        "ToolError",
        "concurrent_executor",
        "inbox_sensor",
        "tool_op",
    ]


def test_import_does_not_load_dagster() -> None:
    """A tool image and a client are installed without Dagster."""
    code = (
        "import bonseyes_dagster, sys; from bonseyes_dagster import Task; "
        "sys.exit('dagster' in sys.modules or 'flask' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    assert not hasattr(bonseyes_dagster, "Workflow")
