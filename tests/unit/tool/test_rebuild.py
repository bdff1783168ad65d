"""An index that is lost, damaged or older than the folders loses no artifact."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.tool.artifacts import rebuild
from bonseyes_dagster.tool.artifacts.audit import audit
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index, IndexDamagedError
from bonseyes_dagster.tool.artifacts.layout import Volume
from bonseyes_dagster.tool.artifacts.lost_and_found import notices
from bonseyes_dagster.tool.artifacts.rebuild import ensure_index
from bonseyes_dagster.tool.artifacts.reuse import adopt
from bonseyes_dagster.tool.artifacts.row_copies import read_row_copy, write_row_copy
from bonseyes_dagster.tool.files.disk import throw_away
from bonseyes_dagster.tool.worker.recovery import sweep
from tests.unit.tool.expected_artifacts import TOOL, ExpectedArtifacts, store_of

_SUFFIXES = ("", "-wal", "-shm")


@pytest.fixture
def artifacts(tmp_path: Path) -> ExpectedArtifacts:
    """Return a volume with completed and failed artifacts."""
    made = ExpectedArtifacts.at(tmp_path / "volume")
    made.completed("first")
    made.ended("failed")
    made.completed("second")
    return made


def lose(volume: Volume) -> None:
    """Remove the index."""
    for suffix in _SUFFIXES:
        Path(f"{volume.index}{suffix}").unlink(missing_ok=True)


def test_lost_index_loses_no_artifact(artifacts: ExpectedArtifacts) -> None:
    """Every column comes back from the copies beside the data, in the old order."""
    lose(artifacts.volume)
    index = artifacts.start()
    artifacts.check(index)
    assert index.names(limit=None, after=None) == ["first", "failed", "second"]
    found = index.by_key("key of second")
    assert found is not None and found.name == "second"
    assert index.reusable("of first") is not None


@pytest.mark.parametrize("content", [b"", b"no database at all " * 500, b"SQLite format 3\0" + bytes(4080)])
def test_file_that_is_no_index_is_set_aside_and_reported(artifacts: ExpectedArtifacts, content: bytes) -> None:
    """An empty, foreign or torn file loses no artifact and is not removed."""
    lose(artifacts.volume)
    artifacts.volume.index.write_bytes(content)
    artifacts.check(artifacts.start())
    [old] = artifacts.volume.lost_and_found.glob("index-*/index.sqlite")
    assert old.read_bytes() == content
    [notice] = notices(artifacts.volume)
    assert notice.startswith("The index of artifacts is ")


def test_index_without_its_table_is_rebuilt(artifacts: ExpectedArtifacts) -> None:
    """The database of another program is no index."""
    lose(artifacts.volume)
    with closing(sqlite3.connect(artifacts.volume.index)) as connection:
        connection.execute("CREATE TABLE other (a)")
    artifacts.check(artifacts.start())


def test_queue_is_read_from_a_damaged_index(artifacts: ExpectedArtifacts) -> None:
    """The queue has no copy elsewhere: all its readable rows go on, in their order."""
    for number in range(40):
        artifacts.queued(f"waiting{number}", upload="x" if number % 2 else None)
    with artifacts.volume.index.open("r+b") as file:
        file.seek(0)
        file.write(bytes(100))
    index = artifacts.start()
    artifacts.check(index)
    claimed = [index.claim() for _ in range(40)]
    assert [each.name for each in claimed if each] == [f"waiting{number}" for number in range(40)]


def test_uploads_of_a_lost_queue_are_set_aside(artifacts: ExpectedArtifacts) -> None:
    """The container does not know their artifact, but a person may need them."""
    lost = artifacts.queued("waiting", upload="precious")
    lose(artifacts.volume)
    index = artifacts.start()
    with pytest.raises(NotFoundError):
        index.get("waiting")
    assert artifacts.set_aside() == [lost.id]
    [upload] = artifacts.volume.lost_and_found.glob("*/*/inputs/file/upload")
    assert upload.read_text() == "precious"
    assert "The index of artifacts is missing." in artifacts.why()
    # Later starts do not use the folders in lost+found.
    artifacts.check(artifacts.start(), "first", "failed", "second")


def test_older_index_gets_the_rows_of_later_artifacts(artifacts: ExpectedArtifacts, tmp_path: Path) -> None:
    """As if somebody had restored `index.sqlite` alone from a backup."""
    waiting = artifacts.queued("finished-later")
    shutil.copyfile(artifacts.volume.index, tmp_path / "old")
    with closing(Index(artifacts.volume.index)) as index:
        assert index.claim() is not None
        artifacts.folder("finished-later").staging.mkdir(parents=True)
        artifacts._publish(waiting, {"file": "content of finished-later"})
    artifacts.completed("third")
    lost = artifacts.queued("waiting", upload="precious")
    lose(artifacts.volume)
    shutil.copyfile(tmp_path / "old", artifacts.volume.index)
    index = artifacts.start()
    artifacts.check(index, "first", "second", "third", "failed")
    assert index.get("finished-later").phase == "completed"
    assert artifacts.set_aside() == [lost.id]
    assert "older" in artifacts.why()


def test_artifact_deleted_after_an_older_index_was_saved_stays_deleted(
    artifacts: ExpectedArtifacts, tmp_path: Path
) -> None:
    """A new artifact under its name keeps the name."""
    artifacts.ended("cancelled", "cancelled")
    shutil.copyfile(artifacts.volume.index, tmp_path / "old")
    with closing(Index(artifacts.volume.index)) as index:
        for name in ("first", "failed"):
            index.hide(name)
    artifacts.start()
    artifacts.completed("first")
    lose(artifacts.volume)
    shutil.copyfile(tmp_path / "old", artifacts.volume.index)
    index = artifacts.start()
    artifacts.check(index, "first", "second", "cancelled")
    with pytest.raises(NotFoundError):
        index.get("failed")


def start_with_old_index(artifacts: ExpectedArtifacts, old: Path) -> Index:
    """Start with an index that was saved before."""
    lose(artifacts.volume)
    shutil.copyfile(old, artifacts.volume.index)
    return artifacts.start()


@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_older_index_is_noticed_if_only_deletions_came_after_it(
    artifacts: ExpectedArtifacts, tmp_path: Path, is_rebuilt: bool
) -> None:
    """Also after a rebuild, which numbers the rows anew."""
    shutil.copyfile(artifacts.volume.index, tmp_path / "old")
    if is_rebuilt:
        lose(artifacts.volume)
        artifacts.start()
    store = store_of(artifacts)
    store.delete("first")
    store.delete("failed")
    artifacts.start()
    index = start_with_old_index(artifacts, tmp_path / "old")
    assert index.names(limit=None, after=None) == ["second"]
    artifacts.check(index, "second")


def test_same_older_index_is_noticed_a_second_time(artifacts: ExpectedArtifacts, tmp_path: Path) -> None:
    """Its rows were brought up to date once, but the saved file was not."""
    shutil.copyfile(artifacts.volume.index, tmp_path / "old")
    store_of(artifacts).delete("failed")
    start_with_old_index(artifacts, tmp_path / "old")
    store_of(artifacts).delete("first")
    index = start_with_old_index(artifacts, tmp_path / "old")
    assert index.names(limit=None, after=None) == ["second"]


@pytest.mark.parametrize("damage", ["tool = CAST(x'FF' AS TEXT)", "parameters = '{\"text'"])
def test_unreadable_value_is_found_at_the_start(artifacts: ExpectedArtifacts, damage: str) -> None:
    """The checks of SQLite do not look at values."""
    with closing(sqlite3.connect(artifacts.volume.index)) as connection:
        connection.execute(f"UPDATE artifacts SET {damage} WHERE name = 'first'")
        connection.commit()
    artifacts.check(artifacts.start(), "first", "second", "failed")
    assert "is damaged" in artifacts.why()


def test_column_with_another_name_is_found_at_the_start(artifacts: ExpectedArtifacts) -> None:
    """A flipped byte in the definition of the table does this, and the checks of SQLite accept any name."""
    with closing(sqlite3.connect(artifacts.volume.index)) as connection:
        connection.execute("ALTER TABLE artifacts RENAME COLUMN progress TO qrogress")
        connection.commit()
    artifacts.check(artifacts.start(), "first", "second", "failed")
    assert "has no column progress" in artifacts.why()


@pytest.mark.parametrize(
    ("text", "damage"), [(b"tableartifacts", b"tableartifa\xe3ts"), (b"reason TEXT", b"reason T\xe5XT")]
)
def test_schema_with_invalid_utf8_is_found_at_the_start(
    artifacts: ExpectedArtifacts, text: bytes, damage: bytes
) -> None:
    """SQLite's message quotes the schema, and Python cannot decode the message."""
    with closing(sqlite3.connect(artifacts.volume.index)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = artifacts.volume.index.read_bytes()
    assert content.count(text) == 1
    artifacts.volume.index.write_bytes(content.replace(text, damage))
    artifacts.check(artifacts.start(), "first", "second", "failed")
    assert "is damaged" in artifacts.why()


def test_found_artifact_gets_a_new_name_if_its_name_is_taken(artifacts: ExpectedArtifacts, tmp_path: Path) -> None:
    """The artifact that was created under the name since keeps it."""
    shutil.copyfile(artifacts.volume.index, tmp_path / "old")
    found = artifacts.completed("third")
    lose(artifacts.volume)
    shutil.copyfile(tmp_path / "old", artifacts.volume.index)
    other = artifacts.queued("third")
    index = artifacts.start()
    assert index.get("third").id == other.id
    again = index.get(f"third.found-{found.id[:8]}")
    assert (again.id, again.digest, again.idempotency_key) == (found.id, found.digest, None)
    artifacts.start()
    audit(index, artifacts.volume, pause_s=0)
    assert index.get(f"third.found-{found.id[:8]}").id == found.id


def test_folder_of_an_interrupted_creation_is_removed(artifacts: ExpectedArtifacts) -> None:
    """The index has had every row, so a folder without a row was never acknowledged."""
    folder = artifacts.volume.folder("0" * 32)
    (folder.inputs / "file").mkdir(parents=True)
    artifacts.start()
    assert not folder.path.exists()
    assert not artifacts.volume.lost_and_found.exists()


def test_re_used_artifact_without_a_row_is_not_removed(artifacts: ExpectedArtifacts) -> None:
    """Its row copy has no number, as after an interrupted creation. But a restored index may lack the row, too."""
    for name in ("first", "second"):
        write_row_copy(artifacts.folder(name), replace(artifacts.expected[name], seq=0))
        with closing(Index(artifacts.volume.index)) as index:
            index.remove(artifacts.expected[name].id)
    first, second = artifacts.expected["first"], artifacts.expected["second"]
    other = artifacts.queued("second")
    index = artifacts.start()
    assert index.get("first").id == first.id and index.get("first").phase == "completed"
    assert index.get("second").id == other.id
    assert artifacts.set_aside() == [second.id]


def test_published_artifact_is_completed_after_a_crash(artifacts: ExpectedArtifacts) -> None:
    """The worker was killed between the last rename and the row."""
    artifacts.published("third")
    artifacts.check(artifacts.start())


def test_deleted_artifact_stays_deleted_after_a_crash(artifacts: ExpectedArtifacts) -> None:
    """Also if the crash comes right after the deletion, when the folder is still complete."""
    index = artifacts.start()
    index.hide("first")
    again = artifacts.start()
    assert again.names(limit=None, after=None) == ["failed", "second"]
    assert not artifacts.folder("first").path.exists()
    assert index.by_id(artifacts.expected["first"].id) is None
    lose(artifacts.volume)
    assert artifacts.start().names(limit=None, after=None) == ["failed", "second"]


def test_index_of_an_earlier_version_is_taken_over(artifacts: ExpectedArtifacts) -> None:
    """It has no row copies and one column less. Nothing is lost, and the audit writes the copies."""
    with closing(sqlite3.connect(artifacts.volume.index)) as connection:
        connection.execute("ALTER TABLE artifacts DROP COLUMN damage")
    artifacts.volume.index_mark.unlink()
    for name in artifacts.expected:
        artifacts.folder(name).row_copy.unlink()
    manifest = artifacts.folder("first").manifest
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes())))
    index = artifacts.start()
    artifacts.check(index)
    audit(index, artifacts.volume, pause_s=0)
    lose(artifacts.volume)
    artifacts.check(artifacts.start())


def test_data_without_row_and_copy_is_served_under_a_new_name(artifacts: ExpectedArtifacts) -> None:
    """Its name is unknown, and it is never re-used."""
    copy = artifacts.folder("first").row_copy
    copy.unlink()
    lose(artifacts.volume)
    index = artifacts.start()
    found = index.get(f"found-{copy.parent.name[:8]}")
    assert (found.phase, found.digest, found.fingerprint) == ("completed", artifacts.expected["first"].digest, None)
    artifacts.check(index, "second", "failed")


def test_row_without_a_folder_is_marked_as_damaged(artifacts: ExpectedArtifacts) -> None:
    """This happens if the index is newer than the folders."""
    shutil.rmtree(artifacts.folder("first").path)
    index = artifacts.start()
    audit(index, artifacts.volume, pause_s=0)
    assert index.get("first").damage == "Its manifest is gone."
    assert index.reusable("of first") is None


def test_connections_switch_to_the_new_index(artifacts: ExpectedArtifacts) -> None:
    """Server processes that have the old file open read and write the new one."""
    server = Index(artifacts.volume.index)
    assert server.get("first").name == "first"
    artifacts.volume.index.unlink()
    with pytest.raises(IndexDamagedError):
        server.get("first")
    artifacts.start()
    assert server.get("first").name == "first"
    server.cancel("first")
    server.hide("second")
    assert Index(artifacts.volume.index).names(limit=None, after=None) == ["first", "failed"]


@pytest.mark.parametrize("call", ["rename", "unlink"])
def test_crash_during_a_rebuild_loses_no_artifact(
    artifacts: ExpectedArtifacts, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any rename or removal, the next start ends with the same rows."""
    artifacts.queued("waiting")
    with artifacts.volume.index.open("r+b") as file:
        file.write(bytes(100))
    original, done = getattr(Path, call), 0
    for last in range(30):
        done = 0

        def crash(path: Path, *arguments: object, last: int = last, **options: object) -> object:
            nonlocal done
            done += 1
            if done > last:
                raise KeyboardInterrupt
            return original(path, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Path, call, crash)
            try:
                ensure_index(artifacts.volume, TOOL)
            except KeyboardInterrupt:
                continue
            break
    assert done <= last, "it never came to an end"
    artifacts.check(artifacts.start())


def _pages(volume: Volume) -> int:
    return volume.index.stat().st_size // 4096


def _zero(page: int, content: bytearray, _: random.Random) -> None:
    content[page * 4096 : (page + 1) * 4096] = bytes(4096)


def _flip(page: int, content: bytearray, random_: random.Random) -> None:
    for _ in range(random_.choice([1, 8])):
        content[page * 4096 + random_.randrange(4096)] ^= 1 << random_.randrange(8)


def _cut(page: int, content: bytearray, random_: random.Random) -> None:
    del content[page * 4096 + random_.randrange(4096) :]


DAMAGES = {"zero": _zero, "flip": _flip, "cut": _cut}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_at_each_page_loses_no_artifact(tmp_path: Path, damage: str) -> None:
    """Damages each page of a small index in turn. CRASH_PAGE_ROUNDS sets how often."""
    seed = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(1 << 31))
    random_ = random.Random(seed)
    made = ExpectedArtifacts.at(tmp_path / "volume")
    for number in range(6):
        made.completed(f"done{number}")
    made.ended("failed")
    for number in range(6):
        made.queued(f"waiting{number}", upload="precious" if number % 3 == 0 else None)
    pages = [*range(_pages(made.volume))] * int(os.environ.get("CRASH_PAGE_ROUNDS") or 1)
    for page in pages:
        copy = ExpectedArtifacts(Volume(tmp_path / "copy"), made.expected)
        shutil.copytree(made.volume.path, copy.volume.path)
        content = bytearray(copy.volume.index.read_bytes())
        DAMAGES[damage](page, content, random_)
        copy.volume.index.write_bytes(content)
        try:
            _check_damaged(copy)
        except BaseException as error:
            raise AssertionError(f"page {page}, CRASH_SEED={seed}: {error!r}") from error
        shutil.rmtree(copy.volume.path)


def _check_damaged(artifacts: ExpectedArtifacts) -> None:
    index = artifacts.start()
    audit(index, artifacts.volume, pause_s=0)
    final = [name for name, row in artifacts.expected.items() if row.phase != "queued"]
    artifacts.check(index, *final)
    there = index.names(limit=None, after=None)
    assert [name for name in there if name in final] == final
    for name, row in artifacts.expected.items():
        if row.files:
            uploads = [*artifacts.volume.path.glob(f"*/{row.id}/inputs/file/upload")]
            uploads += artifacts.volume.path.glob(f"lost+found/*/{row.id}/inputs/file/upload")
            assert [upload.read_text() for upload in uploads] == ["precious"], name


def _is_leaf_with(text: bytes, content: bytes, page: int) -> bool:
    of_page = content[page * 4096 : (page + 1) * 4096]
    return of_page[0] == 13 and text in of_page


def test_damaged_page_loses_only_its_rows(tmp_path: Path) -> None:
    """The rows on other pages of a large index are still read."""
    made = ExpectedArtifacts.at(tmp_path / "volume")
    with closing(Index(made.volume.index)) as index, index.without_sync():
        for number in range(300):
            row = ArtifactRow(
                id=f"{number:032x}", name=f"n{number}", tool=TOOL, version="1", parameters={}, files={}, inputs={}
            )
            index.insert(replace(row, created="2026"), queue_limit=1000)
    content = bytearray(made.volume.index.read_bytes())
    [leaf] = [page for page in range(len(content) // 4096) if _is_leaf_with(b"n150", content, page)]
    _zero(leaf, content, random.Random())
    made.volume.index.write_bytes(content)
    index = made.start()
    assert 200 < len(index.names(limit=None, after=None)) < 300
    assert [*made.volume.lost_and_found.glob("index-*/index.sqlite")]


def test_folder_stays_if_the_volume_is_too_full_to_set_it_aside(
    artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next check does not remove it either, and it is set aside once there is space."""
    lost = artifacts.queued("waiting", upload="precious")
    lose(artifacts.volume)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    ensure_index(artifacts.volume, TOOL)
    with monkeypatch.context() as patch:
        patch.setattr("bonseyes_dagster.tool.worker.recovery.set_aside", refuse)
        artifacts.start()
        artifacts.start()
    assert (artifacts.folder("waiting").inputs / "file/upload").exists()
    index = artifacts.start()
    assert artifacts.set_aside() == [lost.id]
    assert not artifacts.volume.index_doubt.exists()
    assert rebuild.read_mark(artifacts.volume) == index.last_seq()


def test_artifact_running_while_the_index_is_replaced_is_completed(artifacts: ExpectedArtifacts) -> None:
    """Its row is lost meanwhile. It goes on, is published, and gets its row back."""
    row = artifacts.running("third")
    lose(artifacts.volume)
    ensure_index(artifacts.volume, TOOL)
    index = Index(artifacts.volume.index)
    assert not index.is_cancelling(row.id) and not index.is_deleted(row.id)
    artifacts._publish(row, {"file": "content of third"})
    index.finish(row.id, "completed", digest=artifacts.expected["third"].digest)
    sweep(index, artifacts.volume, TOOL)
    artifacts.check(index)


def test_deletion_without_rename_removes_manifest_and_row_copy_first(
    artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses the rename. If the index is lost and a crash comes meanwhile, the rest must be no artifact."""
    removed: list[str] = []

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        patch.setattr("bonseyes_dagster.tool.files.disk.remove", lambda path: removed.append(path.name))
        throw_away(artifacts.folder("first").path, artifacts.volume.trash)
    assert removed == [artifacts.expected["first"].id]
    assert (artifacts.folder("first").data / "file").exists()
    lose(artifacts.volume)
    index = artifacts.start()
    assert index.names(limit=None, after=None) == ["failed", "second"]
    assert artifacts.set_aside() == removed


# After a crash


def put_index(volume: Volume, saved: Path) -> None:
    """Replace the index by a saved one."""
    lose(volume)
    shutil.copyfile(saved, volume.index)


def begin_to_publish(artifacts: ExpectedArtifacts, name: str) -> ArtifactRow:
    """Publish as a worker that is killed before staging becomes data."""
    row = artifacts.published(name)
    artifacts.folder(name).data.rename(artifacts.folder(name).staging)
    return row


def break_a_row(artifacts: ExpectedArtifacts, name: str) -> None:
    """Damage the index so that it must be rebuilt."""
    with closing(sqlite3.connect(artifacts.volume.index)) as connection:
        connection.execute("UPDATE artifacts SET parameters = '{' WHERE name = ?", (name,))
        connection.commit()


def test_published_artifact_with_a_torn_row_copy_is_not_re_used(artifacts: ExpectedArtifacts) -> None:
    """The torn copy may have said that the code had changed; the row of a running artifact does not know that."""
    row = artifacts.published("third")
    copy = artifacts.folder("third").row_copy
    write_row_copy(artifacts.folder("third"), replace(row, code_changed=True, fingerprint=None))
    copy.write_bytes(b"")
    index = artifacts.start()
    assert (index.get("third").phase, index.get("third").digest) == ("completed", row.digest)
    assert index.get("third").fingerprint is None
    assert index.reusable("of third") is None


def test_creations_after_an_interrupted_rebuild_are_kept(
    artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies after it made the new index, and server processes go on with the old one."""
    break_a_row(artifacts, "first")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "set_aside", crash)
        with pytest.raises(KeyboardInterrupt):
            artifacts.start()
    artifacts.queued("acknowledged")
    artifacts.check(artifacts.start())


@pytest.mark.parametrize("phase", ["queued", "running"])
def test_name_of_an_artifact_deleted_before_its_end_is_free_in_an_older_index(
    artifacts: ExpectedArtifacts, tmp_path: Path, phase: str
) -> None:
    """The older index has it in the queue, or running. Another artifact has its name since."""
    old = artifacts.queued("third") if phase == "queued" else artifacts.running("third")
    waiting = artifacts.queued("waiting")
    shutil.copyfile(artifacts.volume.index, tmp_path / "old")
    with closing(Index(artifacts.volume.index)) as index:
        index.finish(waiting.id, "cancelled")
        if phase == "running":
            index.finish(old.id, "failed", reason="Because.")
        index.hide("third")
    artifacts.start()
    artifacts.completed("third")
    put_index(artifacts.volume, tmp_path / "old")
    index = artifacts.start()
    artifacts.check(index, "first", "failed", "second", "third", "waiting")
    assert index.by_id(old.id) is None


@pytest.mark.parametrize("phase", ["queued", "running"])
def test_older_index_gets_the_failure_of_an_artifact(artifacts: ExpectedArtifacts, tmp_path: Path, phase: str) -> None:
    """A reported failure is not made again and does not become an interruption."""
    row = artifacts.queued("third") if phase == "queued" else artifacts.running("third")
    shutil.copyfile(artifacts.volume.index, tmp_path / "old")
    with closing(Index(artifacts.volume.index)) as index:
        claimed = index.claim() if phase == "queued" else row
        assert claimed is not None
        folder = artifacts.folder("third")
        folder.staging.mkdir(parents=True, exist_ok=True)
        final = replace(claimed, phase="failed", reason="Because.", finished="2026-01-01T00:00:00Z")
        write_row_copy(folder, final)
        index.finish(row.id, "failed", reason=final.reason, finished=final.finished)
    artifacts.expected["third"] = final
    artifacts.completed("fourth")
    put_index(artifacts.volume, tmp_path / "old")
    artifacts.check(artifacts.start())
    assert read_row_copy(artifacts.folder("third")) is not None
    assert not artifacts.folder("third").staging.exists()


def test_failure_in_the_row_copy_only_is_restored(artifacts: ExpectedArtifacts) -> None:
    """The worker was killed between the copy of the row and the row."""
    row = artifacts.running("third")
    artifacts.expected["third"] = replace(row, phase="failed", reason="Because.", finished="2026-01-01T00:00:00Z")
    write_row_copy(artifacts.folder("third"), artifacts.expected["third"])
    artifacts.check(artifacts.start())


@pytest.mark.parametrize("loss", ["lost", "damaged", "lost while up"])
def test_unfinished_publication_is_interrupted(artifacts: ExpectedArtifacts, loss: str) -> None:
    """The crash came after manifest and row copy, before the data. It is not completed, even with a lost index."""
    begin_to_publish(artifacts, "third")
    if loss == "damaged":
        break_a_row(artifacts, "first")
    elif loss == "lost":
        lose(artifacts.volume)
    else:
        with closing(Index(artifacts.volume.index)) as index:
            index.remove(artifacts.expected["third"].id)
        artifacts.volume.index_doubt.write_text("The index was lost.")
    index, folder = artifacts.start(), artifacts.folder("third")
    found = index.get("third")
    assert (found.phase, found.digest, found.size, found.damage) == ("interrupted", None, None, None)
    assert not folder.staging.exists() and not folder.manifest.exists()
    artifacts.check(index, "first", "failed", "second")


def test_unfinished_publication_still_waits_in_an_older_index(artifacts: ExpectedArtifacts, tmp_path: Path) -> None:
    """It has no data, so it is not completed; the worker makes it again."""
    artifacts.queued("third")
    shutil.copyfile(artifacts.volume.index, tmp_path / "old")
    with closing(Index(artifacts.volume.index)) as index:
        row = index.claim()
        assert row is not None
    artifacts.folder("third").staging.mkdir(parents=True)
    artifacts._publish(row, {"file": "content of third"})
    artifacts.folder("third").data.rename(artifacts.folder("third").staging)
    put_index(artifacts.volume, tmp_path / "old")
    assert artifacts.start().get("third").phase == "queued"
    assert not artifacts.folder("third").staging.exists()
    assert not artifacts.folder("third").manifest.exists()


def test_new_name_of_a_found_artifact_stays_if_its_old_name_is_free_again(artifacts: ExpectedArtifacts) -> None:
    """The rebuild writes the new name to the row copy, too."""
    write_row_copy(artifacts.folder("second"), replace(artifacts.expected["second"], name="first"))
    lose(artifacts.volume)
    index = artifacts.start()
    [found] = [name for name in index.names(limit=None, after=None) if ".found-" in name]
    index.hide("first")
    audit(index, artifacts.volume, pause_s=0)
    assert found in index.names(limit=None, after=None)
    lose(artifacts.volume)
    assert found in artifacts.start().names(limit=None, after=None)


def test_files_of_a_lost_claim_are_removed(artifacts: ExpectedArtifacts) -> None:
    """A power cut leaves the row in the queue, and some linked files; the uploads stay."""
    row = artifacts.queued("third", upload="precious")
    folder = artifacts.folder("third")
    folder.data.mkdir()
    (folder.data / "file").write_text("half")
    index = artifacts.start()
    artifacts.check(index)
    adopt(artifacts.folder("first"), folder, row=row)
    assert (folder.inputs / "file/upload").read_text() == "precious"


def test_crash_before_the_mark_is_written_loses_no_row(
    artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new index has lower numbers, and must not count as an older one."""
    artifacts.completed("third")
    with closing(Index(artifacts.volume.index)) as index:
        index.hide("first")
    artifacts.start()
    shutil.rmtree(artifacts.folder("second").path)
    break_a_row(artifacts, "third")
    rename = Path.rename

    def crash(path: Path, target: Path) -> Path:
        made = rename(path, target)
        if path.name.endswith(".rebuilt"):
            raise KeyboardInterrupt
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            artifacts.start()
    index = artifacts.start()
    assert index.names(limit=None, after=None) == ["failed", "second", "third"]
    assert index.get("second").damage == "Its folder is gone."


def test_copies_of_a_killed_rebuild_are_removed(artifacts: ExpectedArtifacts) -> None:
    """Copies of an index may be large."""
    left = artifacts.volume.path / ".salvage-killed"
    left.mkdir()
    (left / "copy.sqlite").write_text("x")
    artifacts.check(artifacts.start())
    assert not left.exists()


def test_crash_between_moving_the_index_and_its_log_loses_nothing(
    artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is set aside first, so its log does not become the log of the new one."""
    with closing(Index(artifacts.volume.index)) as server:
        server.check()
        artifacts.queued("waiting")
        break_a_row(artifacts, "first")
        log = Path(f"{artifacts.volume.index}-wal")
        assert log.stat().st_size > 0
        rename = Path.rename

        def crash(path: Path, target: Path) -> Path:
            if path == log:
                raise KeyboardInterrupt
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", crash)
            with pytest.raises(KeyboardInterrupt):
                artifacts.start()
        assert not artifacts.volume.index.exists() and log.exists()
        artifacts.check(artifacts.start())


def test_artifact_with_the_name_of_a_deleted_one_still_waits(artifacts: ExpectedArtifacts, tmp_path: Path) -> None:
    """The row copy with the same name belongs to an artifact that is being deleted."""
    with closing(Index(artifacts.volume.index)) as index:
        index.hide("first")
    artifacts.queued("first")
    shutil.copyfile(artifacts.volume.index, tmp_path / "old")
    artifacts.queued("lost")
    put_index(artifacts.volume, tmp_path / "old")
    assert artifacts.start().get("first").phase == "queued"
