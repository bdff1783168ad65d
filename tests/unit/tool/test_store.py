"""The store, asked by several at once."""

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
    """Create `twin` as another server process would, with a store of its own."""
    store = Store(TOOL, Volume(volume), Settings(container="tool", disk_reserve_bytes=0))
    return store.create(Request(name="twin", parameters={}, draft=store.begin(), idempotency_key=key))


@pytest.mark.parametrize("key", ["same", "other"])
def test_a_twin_that_comes_between_the_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """One with the same key is the same creation, though its key was not known yet; one with another key is not."""
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


def test_a_rename_is_whole_without_its_line_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a crash between the row and the folder: the next process finds the new name alone."""
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


def test_an_audit_leaves_a_new_name_alone(tmp_path: Path) -> None:
    """The copy of the row beside the data follows a rename, or the audit would give the row its old name again."""
    index, volume = Index(tmp_path / "index.sqlite"), Volume(tmp_path)
    store = ended(tmp_path)
    store.rename("twin", "renamed")
    audit(index, volume, pause_s=0)
    assert store.names() == ["renamed"]
    copy = read_row_copy(volume.folder(index.get("renamed").id))
    assert copy is not None and copy.name == "renamed"


def test_a_rename_that_broke_off_before_its_commit_is_finished_by_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is durable before the row, so that a crash leaves no copy that is older than its row."""
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


def test_a_rename_that_failed_is_not_made_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that kept the new name would have the audit rename the artifact after all."""
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


def test_a_rename_is_made_though_the_log_has_no_room_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is durable by then; an error would tell of something else."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = ended(tmp_path)
    monkeypatch.setattr(renaming, "append_line", fail)
    store.rename("twin", "renamed")
    assert store.names() == ["renamed"]


def ended(path: Path) -> Store:
    """Return a store with one artifact, `twin`, that has ended and has a folder with a copy of its row."""
    create(path, "key")
    store = Store(TOOL, Volume(path), Settings(container="tool", disk_reserve_bytes=0))
    store.cancel("twin")
    row = Index(path / "index.sqlite").get("twin")
    folder = Volume(path).folder(row.id)
    folder.path.mkdir(exist_ok=True)
    write_row_copy(folder, row)
    return store
