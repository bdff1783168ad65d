"""The project that the campaigns with runs share: to start it takes longer than a short campaign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.embedded import Embedded, embedded

FIVE = Path(__file__).parent / "five"


@pytest.fixture(scope="session")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """The pipeline of five steps, up."""
    with embedded(tmp_path_factory.mktemp("five") / "project", with_dagster=True, source=FIVE) as project:
        project.up()
        yield project
