"""The project that the campaigns with runs share, because its start takes longer than a short campaign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.embedded import Embedded, embedded

FIVE = Path(__file__).parent / "five"


@pytest.fixture(scope="session")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """Start a project with the pipeline of five steps."""
    with embedded(tmp_path_factory.mktemp("five") / "project", with_dagster=True, source=FIVE) as project:
        project.up()
        yield project
