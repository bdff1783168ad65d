"""An artifact that cannot be recovered does not block the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bonseyes_dagster.tool.artifacts.layout import Folder
from bonseyes_dagster.tool.worker import recovery
from bonseyes_dagster.tool.worker.runner import clear_leftovers
from tests.unit.tool.expected_artifacts import ExpectedArtifacts


def test_deep_staging_is_removed_by_the_next_start(tmp_path: Path, nest: Callable[..., None]) -> None:
    """The worker was killed after its tool had made 1,200 folders, one in the other."""
    artifacts = ExpectedArtifacts.at(tmp_path / "volume")
    artifacts.running("deep")
    nest(artifacts.folder("deep").staging)
    index = artifacts.start()
    assert index.get("deep").phase == "interrupted"
    assert not artifacts.folder("deep").staging.exists()


def test_artifact_that_cannot_be_recovered_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are recovered, the queue stays, and the row has the reason."""
    artifacts = ExpectedArtifacts.at(tmp_path / "volume")
    bad, good = artifacts.running("bad"), artifacts.running("good")
    artifacts.queued("waiting")

    def clear(folder: Folder, *, is_completed: bool) -> None:
        if folder.id == bad.id:
            raise RecursionError("too deep")
        clear_leftovers(folder, is_completed=is_completed)

    monkeypatch.setattr(recovery, "clear_leftovers", clear)
    index = artifacts.start()
    assert index.get("bad").phase == "interrupted"
    assert "too deep" in str(index.get("bad").reason)
    assert index.get("good").phase == "interrupted"
    assert not artifacts.volume.folder(good.id).staging.exists()
    assert index.queued_ids() == [artifacts.expected["waiting"].id]
    assert list(artifacts.volume.lost_and_found.glob(f"{bad.id}-*/{bad.id}"))
