"""The store with concurrent processes, crashes and a full disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from bonseyes_dagster.errors import ConflictError, StorageFullError
from bonseyes_dagster.model import Phase, ToolDescription
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.artifacts import renaming
from bonseyes_dagster.tool.artifacts.audit import audit
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index
from bonseyes_dagster.tool.artifacts.layout import Folder, Volume
from bonseyes_dagster.tool.artifacts.row_copies import read_row_copy, rewrite_row_copy, write_row_copy
from bonseyes_dagster.tool.store import Store
from bonseyes_dagster.web.backend import Request

TOOL = ToolDescription(name="tool", description="", parameters=(), output_type="com.bonseyes.dataset", version="1")


def create(volume: Path, key: str) -> str:
    """Create `twin` with a new store, as another server process does."""
    store = Store(TOOL, Volume(volume), Settings(container="tool", disk_reserve_bytes=0))
    return store.create(Request(name="twin", parameters={}, draft=store.begin(), idempotency_key=key))


@pytest.mark.parametrize("key", ["same", "other"])
def test_same_name_created_between_the_lookups_of_name_and_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """With the same key it is the same creation; with another key it is a conflict."""
    phase = Index.phase

    def come_between(index: Index, name: str) -> tuple[str, Phase]:
        monkeypatch.setattr(Index, "phase", phase)
        assert create(tmp_path, "same") == "twin"
        return index.phase(name)

    monkeypatch.setattr(Index, "phase", come_between)
    if key == "same":
        assert create(tmp_path, key) == "twin"
    else:
        with pytest.raises(ConflictError):
            create(tmp_path, key)


def test_rename_is_complete_without_its_line_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crash comes between the row and the log. The next process finds only the new name."""
    create(tmp_path, "key")
    store = Store(TOOL, Volume(tmp_path), Settings(container="tool", disk_reserve_bytes=0))
    store.cancel("twin")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(renaming, "append_line", crash)
    with pytest.raises(KeyboardInterrupt):
        store.rename("twin", "renamed")
    again = Store(TOOL, Volume(tmp_path), Settings(container="tool", disk_reserve_bytes=0))
    assert again.names() == ["renamed"]
    assert again.info("renamed")["idempotency_key"] is None
    assert create(tmp_path, "key") == "twin"


def test_audit_keeps_a_new_name(tmp_path: Path) -> None:
    """A rename changes the row copy, too. Otherwise the audit would restore the old name."""
    index, volume = Index(tmp_path / "index.sqlite"), Volume(tmp_path)
    store = ended(tmp_path)
    store.rename("twin", "renamed")
    audit(index, volume, pause_s=0)
    assert store.names() == ["renamed"]
    copy = read_row_copy(volume.folder(index.get("renamed").id))
    assert copy is not None and copy.name == "renamed"


def test_audit_finishes_a_rename_that_crashed_before_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is durable before the row, so that no crash leaves a copy that is older than its row."""
    index, volume = Index(tmp_path / "index.sqlite"), Volume(tmp_path)
    store = ended(tmp_path)

    def crash(folder: Folder, row: ArtifactRow) -> None:
        rewrite_row_copy(folder, row)
        raise KeyboardInterrupt

    monkeypatch.setattr(renaming, "rewrite_row_copy", crash)
    with pytest.raises(KeyboardInterrupt):
        store.rename("twin", "renamed")
    assert store.names() == ["twin"]
    audit(index, volume, pause_s=0)
    assert store.names() == ["renamed"]


def test_audit_does_not_repeat_a_failed_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy with the new name would make the audit rename the artifact."""
    index, volume = Index(tmp_path / "index.sqlite"), Volume(tmp_path)
    store = ended(tmp_path)

    def fail(folder: Folder, row: ArtifactRow) -> None:
        rewrite_row_copy(folder, row)
        if row.name == "renamed":
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(renaming, "rewrite_row_copy", fail)
    with pytest.raises(StorageFullError):
        store.rename("twin", "renamed")
    audit(index, volume, pause_s=0)
    assert store.names() == ["twin"]


def test_rename_succeeds_if_the_log_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is durable by then, so an error would be wrong."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = ended(tmp_path)
    monkeypatch.setattr(renaming, "append_line", fail)
    store.rename("twin", "renamed")
    assert store.names() == ["renamed"]


def ended(path: Path) -> Store:
    """Return a store with one artifact, `twin`, which has ended and has a row copy in its folder."""
    create(path, "key")
    store = Store(TOOL, Volume(path), Settings(container="tool", disk_reserve_bytes=0))
    store.cancel("twin")
    row = Index(path / "index.sqlite").get("twin")
    folder = Volume(path).folder(row.id)
    folder.path.mkdir(exist_ok=True)
    write_row_copy(folder, row)
    return store
