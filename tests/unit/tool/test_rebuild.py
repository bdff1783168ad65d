"""An index that is lost, damaged or older than the folders costs no artifact."""

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
    """A volume with one artifact of each kind."""
    made = ExpectedArtifacts.at(tmp_path / "volume")
    made.completed("first")
    made.ended("failed")
    made.completed("second")
    return made


def lose(volume: Volume) -> None:
    """Remove the index."""
    for suffix in _SUFFIXES:
        Path(f"{volume.index}{suffix}").unlink(missing_ok=True)


def test_a_lost_index_costs_no_artifact(artifacts: ExpectedArtifacts) -> None:
    """Every column comes back from beside the data, in the old order."""
    lose(artifacts.volume)
    index = artifacts.start()
    artifacts.check(index)
    assert index.names(limit=None, after=None) == ["first", "failed", "second"]
    found = index.by_key("key of second")
    assert found is not None and found.name == "second"
    assert index.reusable("of first") is not None


@pytest.mark.parametrize("content", [b"", b"no database at all " * 500, b"SQLite format 3\0" + bytes(4080)])
def test_what_is_no_index_is_kept_and_named(artifacts: ExpectedArtifacts, content: bytes) -> None:
    """An empty file, another file, or a torn one takes no artifact with it, and is not thrown away."""
    lose(artifacts.volume)
    artifacts.volume.index.write_bytes(content)
    artifacts.check(artifacts.start())
    [old] = artifacts.volume.lost_and_found.glob("index-*/index.sqlite")
    assert old.read_bytes() == content
    [told] = notices(artifacts.volume)
    assert told.startswith("The index of artifacts is ")


def test_an_index_without_its_table_is_rebuilt(artifacts: ExpectedArtifacts) -> None:
    """A database of somebody else's is no index."""
    lose(artifacts.volume)
    with closing(sqlite3.connect(artifacts.volume.index)) as connection:
        connection.execute("CREATE TABLE other (a)")
    artifacts.check(artifacts.start())


def test_what_waits_is_read_from_a_damaged_index(artifacts: ExpectedArtifacts) -> None:
    """The queue has no copy elsewhere: all that is readable of it goes on, in its order."""
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
    """Nobody knows what they were for; somebody may."""
    lost = artifacts.queued("waiting", upload="precious")
    lose(artifacts.volume)
    index = artifacts.start()
    with pytest.raises(NotFoundError):
        index.get("waiting")
    assert artifacts.set_aside() == [lost.id]
    [upload] = artifacts.volume.lost_and_found.glob("*/*/inputs/file/upload")
    assert upload.read_text() == "precious"
    assert "The index of artifacts is missing." in artifacts.why()
    # Later starts do not take up what is there.
    artifacts.check(artifacts.start(), "first", "failed", "second")


def test_an_older_index_learns_of_what_came_after_it(artifacts: ExpectedArtifacts, tmp_path: Path) -> None:
    """As after somebody has put back `index.sqlite` alone from a backup."""
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


def test_what_was_deleted_after_an_older_index_was_saved_stays_deleted(
    artifacts: ExpectedArtifacts, tmp_path: Path
) -> None:
    """And what was made under its name since keeps the name."""
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


def put_back(artifacts: ExpectedArtifacts, old: Path) -> Index:
    """Start with an index that was saved before."""
    lose(artifacts.volume)
    shutil.copyfile(old, artifacts.volume.index)
    return artifacts.start()


@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_an_older_index_is_noticed_when_only_deletions_came_after_it(
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
    index = put_back(artifacts, tmp_path / "old")
    assert index.names(limit=None, after=None) == ["second"]
    artifacts.check(index, "second")


def test_an_older_index_is_noticed_when_it_is_put_back_again(artifacts: ExpectedArtifacts, tmp_path: Path) -> None:
    """Its rows have learnt of everything once; the file that was saved has not."""
    shutil.copyfile(artifacts.volume.index, tmp_path / "old")
    store_of(artifacts).delete("failed")
    put_back(artifacts, tmp_path / "old")
    store_of(artifacts).delete("first")
    index = put_back(artifacts, tmp_path / "old")
    assert index.names(limit=None, after=None) == ["second"]


@pytest.mark.parametrize("damage", ["tool = CAST(x'FF' AS TEXT)", "parameters = '{\"text'"])
def test_a_value_that_cannot_be_read_is_found_at_the_start(artifacts: ExpectedArtifacts, damage: str) -> None:
    """The checks of SQLite do not look at values."""
    with closing(sqlite3.connect(artifacts.volume.index)) as connection:
        connection.execute(f"UPDATE artifacts SET {damage} WHERE name = 'first'")
        connection.commit()
    artifacts.check(artifacts.start(), "first", "second", "failed")
    assert "is damaged" in artifacts.why()


def test_a_column_with_another_name_is_found_at_the_start(artifacts: ExpectedArtifacts) -> None:
    """As after a byte of the table's definition was flipped; the checks of SQLite take any name."""
    with closing(sqlite3.connect(artifacts.volume.index)) as connection:
        connection.execute("ALTER TABLE artifacts RENAME COLUMN progress TO qrogress")
        connection.commit()
    artifacts.check(artifacts.start(), "first", "second", "failed")
    assert "has no column progress" in artifacts.why()


@pytest.mark.parametrize(
    ("text", "damage"), [(b"tableartifacts", b"tableartifa\xe3ts"), (b"reason TEXT", b"reason T\xe5XT")]
)
def test_a_schema_that_is_no_text_is_found_at_the_start(
    artifacts: ExpectedArtifacts, text: bytes, damage: bytes
) -> None:
    """SQLite's message about it is no text either, and Python cannot decode it."""
    with closing(sqlite3.connect(artifacts.volume.index)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = artifacts.volume.index.read_bytes()
    assert content.count(text) == 1
    artifacts.volume.index.write_bytes(content.replace(text, damage))
    artifacts.check(artifacts.start(), "first", "second", "failed")
    assert "is damaged" in artifacts.why()


def test_a_taken_name_is_not_taken_away(artifacts: ExpectedArtifacts, tmp_path: Path) -> None:
    """What was made since under the name keeps it; what was found is called after it."""
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


def test_a_folder_of_a_creator_that_died_is_removed(artifacts: ExpectedArtifacts) -> None:
    """The index has had every row there was: what it does not know was never acknowledged."""
    folder = artifacts.volume.folder("0" * 32)
    (folder.inputs / "file").mkdir(parents=True)
    artifacts.start()
    assert not folder.path.exists()
    assert not artifacts.volume.lost_and_found.exists()


def test_a_copy_by_links_without_a_row_is_not_removed(artifacts: ExpectedArtifacts) -> None:
    """Its copy of the row has no number, as that of a creation that broke off; an index put back may lack its row."""
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


def test_what_was_published_is_completed_after_a_crash(artifacts: ExpectedArtifacts) -> None:
    """The worker was killed between the last rename and the row."""
    artifacts.published("third")
    artifacts.check(artifacts.start())


def test_a_deleted_artifact_stays_deleted(artifacts: ExpectedArtifacts) -> None:
    """Also when the crash comes right after the deletion is certain, and the folder is all there."""
    index = artifacts.start()
    index.hide("first")
    again = artifacts.start()
    assert again.names(limit=None, after=None) == ["failed", "second"]
    assert not artifacts.folder("first").path.exists()
    assert index.by_id(artifacts.expected["first"].id) is None
    lose(artifacts.volume)
    assert artifacts.start().names(limit=None, after=None) == ["failed", "second"]


def test_an_index_of_an_earlier_version_is_taken_over(artifacts: ExpectedArtifacts) -> None:
    """No copy beside the data and one column less; all is kept, and the copies are written in time."""
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


def test_without_row_and_copy_the_data_stays(artifacts: ExpectedArtifacts) -> None:
    """Nobody knows its name; it gets one, is served, and is never re-used."""
    copy = artifacts.folder("first").row_copy
    copy.unlink()
    lose(artifacts.volume)
    index = artifacts.start()
    found = index.get(f"found-{copy.parent.name[:8]}")
    assert (found.phase, found.digest, found.fingerprint) == ("completed", artifacts.expected["first"].digest, None)
    artifacts.check(index, "second", "failed")


def test_a_row_without_a_folder_says_so(artifacts: ExpectedArtifacts) -> None:
    """An index newer than the folders."""
    shutil.rmtree(artifacts.folder("first").path)
    index = artifacts.start()
    audit(index, artifacts.volume, pause_s=0)
    assert index.get("first").damage == "Its manifest is gone."
    assert index.reusable("of first") is None


def test_connections_move_to_the_new_index(artifacts: ExpectedArtifacts) -> None:
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
def test_a_crash_while_it_is_rebuilt_loses_nothing(
    artifacts: ExpectedArtifacts, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever rename or removal is the last one: the next start ends with the same rows."""
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
def test_damage_at_each_page_costs_no_artifact(tmp_path: Path, damage: str) -> None:
    """Each page of a small index in turn; CRASH_PAGE_ROUNDS does it more often."""
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


def test_a_page_of_rows_costs_only_those_rows(tmp_path: Path) -> None:
    """What lies on other pages of a large index is read past a page that is gone."""
    made = ExpectedArtifacts.at(tmp_path / "volume")
    with closing(Index(made.volume.index)) as index, index.many():
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


def test_a_full_volume_sets_nothing_aside_and_loses_nothing(
    artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be moved stays, is not removed by the next look either, and is moved when there is room."""
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


def test_what_runs_while_the_index_is_replaced_is_kept(artifacts: ExpectedArtifacts) -> None:
    """Its row is lost in the middle: it goes on, is published, and gets its row back."""
    row = artifacts.running("third")
    lose(artifacts.volume)
    ensure_index(artifacts.volume, TOOL)
    index = Index(artifacts.volume.index)
    assert not index.is_cancelling(row.id) and not index.is_hidden(row.id)
    artifacts._publish(row, {"file": "content of third"})
    index.finish(row.id, "completed", digest=artifacts.expected["third"].digest)
    sweep(index, artifacts.volume, TOOL)
    artifacts.check(index)


def test_a_deletion_in_place_takes_the_description_first(
    artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that takes no rename: should index and power go in the middle, what is left is no artifact."""
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


# What a crash leaves half done


def put_index(volume: Volume, saved: Path) -> None:
    """Put a saved index in the place of the one that is there."""
    lose(volume)
    shutil.copyfile(saved, volume.index)


def begin_to_publish(artifacts: ExpectedArtifacts, name: str) -> ArtifactRow:
    """Leave what a worker leaves that is killed before staging becomes data."""
    row = artifacts.published(name)
    artifacts.folder(name).data.rename(artifacts.folder(name).staging)
    return row


def break_a_row(artifacts: ExpectedArtifacts, name: str) -> None:
    """Make the index one that must be rebuilt."""
    with closing(sqlite3.connect(artifacts.volume.index)) as connection:
        connection.execute("UPDATE artifacts SET parameters = '{' WHERE name = ?", (name,))
        connection.commit()


def test_what_was_published_without_a_whole_copy_is_not_re_used(artifacts: ExpectedArtifacts) -> None:
    """The torn copy may have said that the code had changed, which the row of what runs does not know."""
    row = artifacts.published("third")
    copy = artifacts.folder("third").row_copy
    write_row_copy(artifacts.folder("third"), replace(row, code_changed=True, fingerprint=None))
    copy.write_bytes(b"")
    index = artifacts.start()
    assert (index.get("third").phase, index.get("third").digest) == ("completed", row.digest)
    assert index.get("third").fingerprint is None
    assert index.reusable("of third") is None


def test_creations_after_a_rebuilding_that_was_cut_short_are_kept(
    artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies with the new index made, and server processes go on with the old one."""
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
def test_what_was_deleted_while_it_had_not_ended_gives_its_name_away(
    artifacts: ExpectedArtifacts, tmp_path: Path, phase: str
) -> None:
    """The older index has it in the queue, or running; another artifact has its name since."""
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
def test_an_older_index_learns_how_an_artifact_failed(artifacts: ExpectedArtifacts, tmp_path: Path, phase: str) -> None:
    """A failure that was told is not made again, and not called an interruption."""
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


def test_a_failure_that_only_its_copy_knows_is_no_interruption(artifacts: ExpectedArtifacts) -> None:
    """The worker was killed between the copy of the row and the row."""
    row = artifacts.running("third")
    artifacts.expected["third"] = replace(row, phase="failed", reason="Because.", finished="2026-01-01T00:00:00Z")
    write_row_copy(artifacts.folder("third"), artifacts.expected["third"])
    artifacts.check(artifacts.start())


@pytest.mark.parametrize("loss", ["lost", "damaged", "lost while up"])
def test_what_was_not_published_in_time_is_interrupted(artifacts: ExpectedArtifacts, loss: str) -> None:
    """Its manifest and its copy were there before its data; with the index lost it is not called completed."""
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


def test_what_was_not_published_in_time_still_waits_in_an_older_index(
    artifacts: ExpectedArtifacts, tmp_path: Path
) -> None:
    """It has no data, so it is not completed; its turn comes again."""
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


def test_another_name_stays_when_the_own_one_is_free_again(artifacts: ExpectedArtifacts) -> None:
    """The copy of a row that a rebuilding gave another name has that name, too."""
    write_row_copy(artifacts.folder("second"), replace(artifacts.expected["second"], name="first"))
    lose(artifacts.volume)
    index = artifacts.start()
    [found] = [name for name in index.names(limit=None, after=None) if ".found-" in name]
    index.hide("first")
    audit(index, artifacts.volume, pause_s=0)
    assert found in index.names(limit=None, after=None)
    lose(artifacts.volume)
    assert found in artifacts.start().names(limit=None, after=None)


def test_files_of_a_claim_that_was_lost_are_not_in_the_way(artifacts: ExpectedArtifacts) -> None:
    """A power cut leaves the row in the queue, and files half linked; the uploads stay."""
    row = artifacts.queued("third", upload="precious")
    folder = artifacts.folder("third")
    folder.data.mkdir()
    (folder.data / "file").write_text("half")
    index = artifacts.start()
    artifacts.check(index)
    adopt(artifacts.folder("first"), folder, row=row)
    assert (folder.inputs / "file/upload").read_text() == "precious"


def test_a_crash_before_the_mark_is_set_drops_no_row(
    artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new index gives lower numbers; it is not taken for an older one."""
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


def test_what_a_killed_rebuilding_read_is_removed(artifacts: ExpectedArtifacts) -> None:
    """Copies of an index may be large."""
    left = artifacts.volume.path / ".salvage-killed"
    left.mkdir()
    (left / "copy.sqlite").write_text("x")
    artifacts.check(artifacts.start())
    assert not left.exists()


def test_a_crash_between_the_old_index_and_its_log_loses_nothing(
    artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is set aside first; its log does not become that of the new one."""
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


def test_what_took_the_name_of_one_that_is_being_deleted_still_waits(
    artifacts: ExpectedArtifacts, tmp_path: Path
) -> None:
    """The copy of a row that is in the way of its name is that of a deleted artifact."""
    with closing(Index(artifacts.volume.index)) as index:
        index.hide("first")
    artifacts.queued("first")
    shutil.copyfile(artifacts.volume.index, tmp_path / "old")
    artifacts.queued("lost")
    put_index(artifacts.volume, tmp_path / "old")
    assert artifacts.start().get("first").phase == "queued"
