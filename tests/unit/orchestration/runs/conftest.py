"""Fixtures for tests of a pipeline's runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance with files."""
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance
