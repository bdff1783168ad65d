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
from tests.unit.tool.kept import TOOL, Kept, store_of

_SUFFIXES = ("", "-wal", "-shm")


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """A volume with one artifact of each kind."""
    made = Kept.at(tmp_path / "volume")
    made.completed("first")
    made.ended("failed")
    made.completed("second")
    return made


def lose(volume: Volume) -> None:
    """Remove the index."""
    for suffix in _SUFFIXES:
        Path(f"{volume.index}{suffix}").unlink(missing_ok=True)


def test_a_lost_index_costs_no_artifact(kept: Kept) -> None:
    """Every column comes back from beside the data, in the old order."""
    lose(kept.volume)
    index = kept.start()
    kept.check(index)
    assert index.names(limit=None, after=None) == ["first", "failed", "second"]
    found = index.by_key("key of second")
    assert found is not None and found.name == "second"
    assert index.reusable("of first") is not None


@pytest.mark.parametrize("content", [b"", b"no database at all " * 500, b"SQLite format 3\0" + bytes(4080)])
def test_what_is_no_index_is_kept_and_named(kept: Kept, content: bytes) -> None:
    """An empty file, another file, or a torn one takes no artifact with it, and is not thrown away."""
    lose(kept.volume)
    kept.volume.index.write_bytes(content)
    kept.check(kept.start())
    [old] = kept.volume.lost_and_found.glob("index-*/index.sqlite")
    assert old.read_bytes() == content
    [told] = notices(kept.volume)
    assert told.startswith("The index of artifacts is ")


def test_an_index_without_its_table_is_rebuilt(kept: Kept) -> None:
    """A database of somebody else's is no index."""
    lose(kept.volume)
    with closing(sqlite3.connect(kept.volume.index)) as connection:
        connection.execute("CREATE TABLE other (a)")
    kept.check(kept.start())


def test_what_waits_is_read_from_a_damaged_index(kept: Kept) -> None:
    """The queue has no copy elsewhere: all that is readable of it goes on, in its order."""
    for number in range(40):
        kept.queued(f"waiting{number}", upload="x" if number % 2 else None)
    with kept.volume.index.open("r+b") as file:
        file.seek(0)
        file.write(bytes(100))
    index = kept.start()
    kept.check(index)
    claimed = [index.claim() for _ in range(40)]
    assert [each.name for each in claimed if each] == [f"waiting{number}" for number in range(40)]


def test_uploads_of_a_lost_queue_are_set_aside(kept: Kept) -> None:
    """Nobody knows what they were for; somebody may."""
    lost = kept.queued("waiting", upload="precious")
    lose(kept.volume)
    index = kept.start()
    with pytest.raises(NotFoundError):
        index.get("waiting")
    assert kept.set_aside() == [lost.id]
    [upload] = kept.volume.lost_and_found.glob("*/*/inputs/file/upload")
    assert upload.read_text() == "precious"
    assert "The index of artifacts is missing." in kept.why()
    # Later starts do not take up what is there.
    kept.check(kept.start(), "first", "failed", "second")


def test_an_older_index_learns_of_what_came_after_it(kept: Kept, tmp_path: Path) -> None:
    """As after somebody has put back `index.sqlite` alone from a backup."""
    waiting = kept.queued("finished-later")
    shutil.copyfile(kept.volume.index, tmp_path / "old")
    with closing(Index(kept.volume.index)) as index:
        assert index.claim() is not None
        kept.folder("finished-later").staging.mkdir(parents=True)
        kept._publish(waiting, {"file": "content of finished-later"})
    kept.completed("third")
    lost = kept.queued("waiting", upload="precious")
    lose(kept.volume)
    shutil.copyfile(tmp_path / "old", kept.volume.index)
    index = kept.start()
    kept.check(index, "first", "second", "third", "failed")
    assert index.get("finished-later").phase == "completed"
    assert kept.set_aside() == [lost.id]
    assert "older" in kept.why()


def test_what_was_deleted_after_an_older_index_was_saved_stays_deleted(kept: Kept, tmp_path: Path) -> None:
    """And what was made under its name since keeps the name."""
    kept.ended("cancelled", "cancelled")
    shutil.copyfile(kept.volume.index, tmp_path / "old")
    with closing(Index(kept.volume.index)) as index:
        for name in ("first", "failed"):
            index.hide(name)
    kept.start()
    kept.completed("first")
    lose(kept.volume)
    shutil.copyfile(tmp_path / "old", kept.volume.index)
    index = kept.start()
    kept.check(index, "first", "second", "cancelled")
    with pytest.raises(NotFoundError):
        index.get("failed")


def put_back(kept: Kept, old: Path) -> Index:
    """Start with an index that was saved before."""
    lose(kept.volume)
    shutil.copyfile(old, kept.volume.index)
    return kept.start()


@pytest.mark.parametrize("is_rebuilt", [False, True])
def test_an_older_index_is_noticed_when_only_deletions_came_after_it(
    kept: Kept, tmp_path: Path, is_rebuilt: bool
) -> None:
    """Also after a rebuild, which numbers the rows anew."""
    shutil.copyfile(kept.volume.index, tmp_path / "old")
    if is_rebuilt:
        lose(kept.volume)
        kept.start()
    store = store_of(kept)
    store.delete("first")
    store.delete("failed")
    kept.start()
    index = put_back(kept, tmp_path / "old")
    assert index.names(limit=None, after=None) == ["second"]
    kept.check(index, "second")


def test_an_older_index_is_noticed_when_it_is_put_back_again(kept: Kept, tmp_path: Path) -> None:
    """Its rows have learnt of everything once; the file that was saved has not."""
    shutil.copyfile(kept.volume.index, tmp_path / "old")
    store_of(kept).delete("failed")
    put_back(kept, tmp_path / "old")
    store_of(kept).delete("first")
    index = put_back(kept, tmp_path / "old")
    assert index.names(limit=None, after=None) == ["second"]


@pytest.mark.parametrize("damage", ["tool = CAST(x'FF' AS TEXT)", "parameters = '{\"text'"])
def test_a_value_that_cannot_be_read_is_found_at_the_start(kept: Kept, damage: str) -> None:
    """The checks of SQLite do not look at values."""
    with closing(sqlite3.connect(kept.volume.index)) as connection:
        connection.execute(f"UPDATE artifacts SET {damage} WHERE name = 'first'")
        connection.commit()
    kept.check(kept.start(), "first", "second", "failed")
    assert "is damaged" in kept.why()


def test_a_column_with_another_name_is_found_at_the_start(kept: Kept) -> None:
    """As after a byte of the table's definition was flipped; the checks of SQLite take any name."""
    with closing(sqlite3.connect(kept.volume.index)) as connection:
        connection.execute("ALTER TABLE artifacts RENAME COLUMN progress TO qrogress")
        connection.commit()
    kept.check(kept.start(), "first", "second", "failed")
    assert "has no column progress" in kept.why()


@pytest.mark.parametrize(
    ("text", "damage"), [(b"tableartifacts", b"tableartifa\xe3ts"), (b"reason TEXT", b"reason T\xe5XT")]
)
def test_a_schema_that_is_no_text_is_found_at_the_start(kept: Kept, text: bytes, damage: bytes) -> None:
    """SQLite's message about it is no text either, and Python cannot decode it."""
    with closing(sqlite3.connect(kept.volume.index)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = kept.volume.index.read_bytes()
    assert content.count(text) == 1
    kept.volume.index.write_bytes(content.replace(text, damage))
    kept.check(kept.start(), "first", "second", "failed")
    assert "is damaged" in kept.why()


def test_a_taken_name_is_not_taken_away(kept: Kept, tmp_path: Path) -> None:
    """What was made since under the name keeps it; what was found is called after it."""
    shutil.copyfile(kept.volume.index, tmp_path / "old")
    found = kept.completed("third")
    lose(kept.volume)
    shutil.copyfile(tmp_path / "old", kept.volume.index)
    other = kept.queued("third")
    index = kept.start()
    assert index.get("third").id == other.id
    again = index.get(f"third.found-{found.id[:8]}")
    assert (again.id, again.digest, again.idempotency_key) == (found.id, found.digest, None)
    kept.start()
    audit(index, kept.volume, pause_s=0)
    assert index.get(f"third.found-{found.id[:8]}").id == found.id


def test_a_folder_of_a_creator_that_died_is_removed(kept: Kept) -> None:
    """The index has had every row there was: what it does not know was never acknowledged."""
    folder = kept.volume.folder("0" * 32)
    (folder.inputs / "file").mkdir(parents=True)
    kept.start()
    assert not folder.path.exists()
    assert not kept.volume.lost_and_found.exists()


def test_a_copy_by_links_without_a_row_is_not_removed(kept: Kept) -> None:
    """Its copy of the row has no number, as that of a creation that broke off; an index put back may lack its row."""
    for name in ("first", "second"):
        write_row_copy(kept.folder(name), replace(kept.promised[name], seq=0))
        with closing(Index(kept.volume.index)) as index:
            index.remove(kept.promised[name].id)
    first, second = kept.promised["first"], kept.promised["second"]
    other = kept.queued("second")
    index = kept.start()
    assert index.get("first").id == first.id and index.get("first").phase == "completed"
    assert index.get("second").id == other.id
    assert kept.set_aside() == [second.id]


def test_what_was_published_is_completed_after_a_crash(kept: Kept) -> None:
    """The worker was killed between the last rename and the row."""
    kept.published("third")
    kept.check(kept.start())


def test_a_deleted_artifact_stays_deleted(kept: Kept) -> None:
    """Also when the crash comes right after the deletion is certain, and the folder is all there."""
    index = kept.start()
    index.hide("first")
    again = kept.start()
    assert again.names(limit=None, after=None) == ["failed", "second"]
    assert not kept.folder("first").path.exists()
    assert index.by_id(kept.promised["first"].id) is None
    lose(kept.volume)
    assert kept.start().names(limit=None, after=None) == ["failed", "second"]


def test_an_index_of_an_earlier_version_is_taken_over(kept: Kept) -> None:
    """No copy beside the data and one column less; all is kept, and the copies are written in time."""
    with closing(sqlite3.connect(kept.volume.index)) as connection:
        connection.execute("ALTER TABLE artifacts DROP COLUMN damage")
    kept.volume.index_mark.unlink()
    for name in kept.promised:
        kept.folder(name).row_copy.unlink()
    manifest = kept.folder("first").manifest
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes())))
    index = kept.start()
    kept.check(index)
    audit(index, kept.volume, pause_s=0)
    lose(kept.volume)
    kept.check(kept.start())


def test_without_row_and_copy_the_data_stays(kept: Kept) -> None:
    """Nobody knows its name; it gets one, is served, and is never re-used."""
    copy = kept.folder("first").row_copy
    copy.unlink()
    lose(kept.volume)
    index = kept.start()
    found = index.get(f"found-{copy.parent.name[:8]}")
    assert (found.phase, found.digest, found.fingerprint) == ("completed", kept.promised["first"].digest, None)
    kept.check(index, "second", "failed")


def test_a_row_without_a_folder_says_so(kept: Kept) -> None:
    """An index newer than the folders."""
    shutil.rmtree(kept.folder("first").path)
    index = kept.start()
    audit(index, kept.volume, pause_s=0)
    assert index.get("first").damage == "Its manifest is gone."
    assert index.reusable("of first") is None


def test_connections_move_to_the_new_index(kept: Kept) -> None:
    """Server processes that have the old file open read and write the new one."""
    server = Index(kept.volume.index)
    assert server.get("first").name == "first"
    kept.volume.index.unlink()
    with pytest.raises(IndexDamagedError):
        server.get("first")
    kept.start()
    assert server.get("first").name == "first"
    server.cancel("first")
    server.hide("second")
    assert Index(kept.volume.index).names(limit=None, after=None) == ["first", "failed"]


@pytest.mark.parametrize("call", ["rename", "unlink"])
def test_a_crash_while_it_is_rebuilt_loses_nothing(kept: Kept, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever rename or removal is the last one: the next start ends with the same rows."""
    kept.queued("waiting")
    with kept.volume.index.open("r+b") as file:
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
                ensure_index(kept.volume, TOOL)
            except KeyboardInterrupt:
                continue
            break
    assert done <= last, "it never came to an end"
    kept.check(kept.start())


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
    made = Kept.at(tmp_path / "volume")
    for number in range(6):
        made.completed(f"done{number}")
    made.ended("failed")
    for number in range(6):
        made.queued(f"waiting{number}", upload="precious" if number % 3 == 0 else None)
    pages = [*range(_pages(made.volume))] * int(os.environ.get("CRASH_PAGE_ROUNDS") or 1)
    for page in pages:
        copy = Kept(Volume(tmp_path / "copy"), made.promised)
        shutil.copytree(made.volume.path, copy.volume.path)
        content = bytearray(copy.volume.index.read_bytes())
        DAMAGES[damage](page, content, random_)
        copy.volume.index.write_bytes(content)
        try:
            _check_damaged(copy)
        except BaseException as error:
            raise AssertionError(f"page {page}, CRASH_SEED={seed}: {error!r}") from error
        shutil.rmtree(copy.volume.path)


def _check_damaged(kept: Kept) -> None:
    index = kept.start()
    audit(index, kept.volume, pause_s=0)
    final = [name for name, row in kept.promised.items() if row.phase != "queued"]
    kept.check(index, *final)
    there = index.names(limit=None, after=None)
    assert [name for name in there if name in final] == final
    for name, row in kept.promised.items():
        if row.files:
            uploads = [*kept.volume.path.glob(f"*/{row.id}/inputs/file/upload")]
            uploads += kept.volume.path.glob(f"lost+found/*/{row.id}/inputs/file/upload")
            assert [upload.read_text() for upload in uploads] == ["precious"], name


def _is_leaf_with(text: bytes, content: bytes, page: int) -> bool:
    of_page = content[page * 4096 : (page + 1) * 4096]
    return of_page[0] == 13 and text in of_page


def test_a_page_of_rows_costs_only_those_rows(tmp_path: Path) -> None:
    """What lies on other pages of a large index is read past a page that is gone."""
    made = Kept.at(tmp_path / "volume")
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


def test_a_full_volume_sets_nothing_aside_and_loses_nothing(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be moved stays, is not removed by the next look either, and is moved when there is room."""
    lost = kept.queued("waiting", upload="precious")
    lose(kept.volume)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    ensure_index(kept.volume, TOOL)
    with monkeypatch.context() as patch:
        patch.setattr("bonseyes_dagster.tool.worker.recovery.set_aside", refuse)
        kept.start()
        kept.start()
    assert (kept.folder("waiting").inputs / "file/upload").exists()
    index = kept.start()
    assert kept.set_aside() == [lost.id]
    assert not kept.volume.index_doubt.exists()
    assert rebuild.read_mark(kept.volume) == index.last_seq()


def test_what_runs_while_the_index_is_replaced_is_kept(kept: Kept) -> None:
    """Its row is lost in the middle: it goes on, is published, and gets its row back."""
    row = kept.running("third")
    lose(kept.volume)
    ensure_index(kept.volume, TOOL)
    index = Index(kept.volume.index)
    assert not index.is_cancelling(row.id) and not index.is_hidden(row.id)
    kept._publish(row, {"file": "content of third"})
    index.finish(row.id, "completed", digest=kept.promised["third"].digest)
    sweep(index, kept.volume, TOOL)
    kept.check(index)


def test_a_deletion_in_place_takes_the_description_first(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that takes no rename: should index and power go in the middle, what is left is no artifact."""
    removed: list[str] = []

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        patch.setattr("bonseyes_dagster.tool.files.disk.remove", lambda path: removed.append(path.name))
        throw_away(kept.folder("first").path, kept.volume.trash)
    assert removed == [kept.promised["first"].id]
    assert (kept.folder("first").data / "file").exists()
    lose(kept.volume)
    index = kept.start()
    assert index.names(limit=None, after=None) == ["failed", "second"]
    assert kept.set_aside() == removed


# What a crash leaves half done


def put_index(volume: Volume, saved: Path) -> None:
    """Put a saved index in the place of the one that is there."""
    lose(volume)
    shutil.copyfile(saved, volume.index)


def begin_to_publish(kept: Kept, name: str) -> ArtifactRow:
    """Leave what a worker leaves that is killed before staging becomes data."""
    row = kept.published(name)
    kept.folder(name).data.rename(kept.folder(name).staging)
    return row


def break_a_row(kept: Kept, name: str) -> None:
    """Make the index one that must be rebuilt."""
    with closing(sqlite3.connect(kept.volume.index)) as connection:
        connection.execute("UPDATE artifacts SET parameters = '{' WHERE name = ?", (name,))
        connection.commit()


def test_what_was_published_without_a_whole_copy_is_not_re_used(kept: Kept) -> None:
    """The torn copy may have said that the code had changed, which the row of what runs does not know."""
    row = kept.published("third")
    copy = kept.folder("third").row_copy
    write_row_copy(kept.folder("third"), replace(row, code_changed=True, fingerprint=None))
    copy.write_bytes(b"")
    index = kept.start()
    assert (index.get("third").phase, index.get("third").digest) == ("completed", row.digest)
    assert index.get("third").fingerprint is None
    assert index.reusable("of third") is None


def test_creations_after_a_rebuilding_that_was_cut_short_are_kept(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker dies with the new index made, and server processes go on with the old one."""
    break_a_row(kept, "first")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "set_aside", crash)
        with pytest.raises(KeyboardInterrupt):
            kept.start()
    kept.queued("acknowledged")
    kept.check(kept.start())


@pytest.mark.parametrize("phase", ["queued", "running"])
def test_what_was_deleted_while_it_had_not_ended_gives_its_name_away(kept: Kept, tmp_path: Path, phase: str) -> None:
    """The older index has it in the queue, or running; another artifact has its name since."""
    old = kept.queued("third") if phase == "queued" else kept.running("third")
    waiting = kept.queued("waiting")
    shutil.copyfile(kept.volume.index, tmp_path / "old")
    with closing(Index(kept.volume.index)) as index:
        index.finish(waiting.id, "cancelled")
        if phase == "running":
            index.finish(old.id, "failed", reason="Because.")
        index.hide("third")
    kept.start()
    kept.completed("third")
    put_index(kept.volume, tmp_path / "old")
    index = kept.start()
    kept.check(index, "first", "failed", "second", "third", "waiting")
    assert index.by_id(old.id) is None


@pytest.mark.parametrize("phase", ["queued", "running"])
def test_an_older_index_learns_how_an_artifact_failed(kept: Kept, tmp_path: Path, phase: str) -> None:
    """A failure that was told is not made again, and not called an interruption."""
    row = kept.queued("third") if phase == "queued" else kept.running("third")
    shutil.copyfile(kept.volume.index, tmp_path / "old")
    with closing(Index(kept.volume.index)) as index:
        claimed = index.claim() if phase == "queued" else row
        assert claimed is not None
        folder = kept.folder("third")
        folder.staging.mkdir(parents=True, exist_ok=True)
        final = replace(claimed, phase="failed", reason="Because.", finished="2026-01-01T00:00:00Z")
        write_row_copy(folder, final)
        index.finish(row.id, "failed", reason=final.reason, finished=final.finished)
    kept.promised["third"] = final
    kept.completed("fourth")
    put_index(kept.volume, tmp_path / "old")
    kept.check(kept.start())
    assert read_row_copy(kept.folder("third")) is not None
    assert not kept.folder("third").staging.exists()


def test_a_failure_that_only_its_copy_knows_is_no_interruption(kept: Kept) -> None:
    """The worker was killed between the copy of the row and the row."""
    row = kept.running("third")
    kept.promised["third"] = replace(row, phase="failed", reason="Because.", finished="2026-01-01T00:00:00Z")
    write_row_copy(kept.folder("third"), kept.promised["third"])
    kept.check(kept.start())


@pytest.mark.parametrize("loss", ["lost", "damaged", "lost while up"])
def test_what_was_not_published_in_time_is_interrupted(kept: Kept, loss: str) -> None:
    """Its manifest and its copy were there before its data; with the index lost it is not called completed."""
    begin_to_publish(kept, "third")
    if loss == "damaged":
        break_a_row(kept, "first")
    elif loss == "lost":
        lose(kept.volume)
    else:
        with closing(Index(kept.volume.index)) as index:
            index.remove(kept.promised["third"].id)
        kept.volume.index_doubt.write_text("The index was lost.")
    index, folder = kept.start(), kept.folder("third")
    found = index.get("third")
    assert (found.phase, found.digest, found.size, found.damage) == ("interrupted", None, None, None)
    assert not folder.staging.exists() and not folder.manifest.exists()
    kept.check(index, "first", "failed", "second")


def test_what_was_not_published_in_time_still_waits_in_an_older_index(kept: Kept, tmp_path: Path) -> None:
    """It has no data, so it is not completed; its turn comes again."""
    kept.queued("third")
    shutil.copyfile(kept.volume.index, tmp_path / "old")
    with closing(Index(kept.volume.index)) as index:
        row = index.claim()
        assert row is not None
    kept.folder("third").staging.mkdir(parents=True)
    kept._publish(row, {"file": "content of third"})
    kept.folder("third").data.rename(kept.folder("third").staging)
    put_index(kept.volume, tmp_path / "old")
    assert kept.start().get("third").phase == "queued"
    assert not kept.folder("third").staging.exists()
    assert not kept.folder("third").manifest.exists()


def test_another_name_stays_when_the_own_one_is_free_again(kept: Kept) -> None:
    """The copy of a row that a rebuilding gave another name has that name, too."""
    write_row_copy(kept.folder("second"), replace(kept.promised["second"], name="first"))
    lose(kept.volume)
    index = kept.start()
    [found] = [name for name in index.names(limit=None, after=None) if ".found-" in name]
    index.hide("first")
    audit(index, kept.volume, pause_s=0)
    assert found in index.names(limit=None, after=None)
    lose(kept.volume)
    assert found in kept.start().names(limit=None, after=None)


def test_files_of_a_claim_that_was_lost_are_not_in_the_way(kept: Kept) -> None:
    """A power cut leaves the row in the queue, and files half linked; the uploads stay."""
    row = kept.queued("third", upload="precious")
    folder = kept.folder("third")
    folder.data.mkdir()
    (folder.data / "file").write_text("half")
    index = kept.start()
    kept.check(index)
    adopt(kept.folder("first"), folder, row=row)
    assert (folder.inputs / "file/upload").read_text() == "precious"


def test_a_crash_before_the_mark_is_set_drops_no_row(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new index gives lower numbers; it is not taken for an older one."""
    kept.completed("third")
    with closing(Index(kept.volume.index)) as index:
        index.hide("first")
    kept.start()
    shutil.rmtree(kept.folder("second").path)
    break_a_row(kept, "third")
    rename = Path.rename

    def crash(path: Path, target: Path) -> Path:
        made = rename(path, target)
        if path.name.endswith(".rebuilt"):
            raise KeyboardInterrupt
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            kept.start()
    index = kept.start()
    assert index.names(limit=None, after=None) == ["failed", "second", "third"]
    assert index.get("second").damage == "Its folder is gone."


def test_what_a_killed_rebuilding_read_is_removed(kept: Kept) -> None:
    """Copies of an index may be large."""
    left = kept.volume.path / ".salvage-killed"
    left.mkdir()
    (left / "copy.sqlite").write_text("x")
    kept.check(kept.start())
    assert not left.exists()


def test_a_crash_between_the_old_index_and_its_log_loses_nothing(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is set aside first; its log does not become that of the new one."""
    with closing(Index(kept.volume.index)) as server:
        server.check()
        kept.queued("waiting")
        break_a_row(kept, "first")
        log = Path(f"{kept.volume.index}-wal")
        assert log.stat().st_size > 0
        rename = Path.rename

        def crash(path: Path, target: Path) -> Path:
            if path == log:
                raise KeyboardInterrupt
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", crash)
            with pytest.raises(KeyboardInterrupt):
                kept.start()
        assert not kept.volume.index.exists() and log.exists()
        kept.check(kept.start())


def test_what_took_the_name_of_one_that_is_being_deleted_still_waits(kept: Kept, tmp_path: Path) -> None:
    """The copy of a row that is in the way of its name is that of a deleted artifact."""
    with closing(Index(kept.volume.index)) as index:
        index.hide("first")
    kept.queued("first")
    shutil.copyfile(kept.volume.index, tmp_path / "old")
    kept.queued("lost")
    put_index(kept.volume, tmp_path / "old")
    assert kept.start().get("first").phase == "queued"
