"""The package's own face: few names, sorted, and Dagster only when one of them is used."""

from __future__ import annotations

import subprocess
import sys

import bonseyes_dagster


def test_all_is_sorted_and_there() -> None:
    """Every public name leads somewhere."""
    assert list(bonseyes_dagster.__all__) == sorted(bonseyes_dagster.__all__)
    for name in bonseyes_dagster.__all__:
        assert getattr(bonseyes_dagster, name) is not None
        assert name in dir(bonseyes_dagster)


def test_public_names_are_these() -> None:
    """A change of the authoring API is a decision, not an accident."""
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


def test_importing_it_loads_no_dagster() -> None:
    """A tool image and a client install without it."""
    code = (
        "import bonseyes_dagster, sys; from bonseyes_dagster import Task; "
        "sys.exit('dagster' in sys.modules or 'flask' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    assert not hasattr(bonseyes_dagster, "Workflow")
