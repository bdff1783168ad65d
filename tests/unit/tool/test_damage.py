"""A damaged artifact is marked. It is neither served nor re-used."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bonseyes_dagster.errors import NotReadyError
from bonseyes_dagster.tool.artifacts import file_states
from bonseyes_dagster.tool.artifacts.audit import audit
from bonseyes_dagster.tool.artifacts.index import ArtifactRow, Index
from bonseyes_dagster.tool.artifacts.layout import Folder
from bonseyes_dagster.tool.artifacts.publishing import DamagedError, StoppedError
from bonseyes_dagster.tool.artifacts.reuse import LongReadingError, adopt, adopt_newest
from bonseyes_dagster.tool.artifacts.row_copies import RowDamagedError, read_row_copy, write_row_copy
from bonseyes_dagster.tool.store import reused_row
from tests.unit.tool.expected_artifacts import ExpectedArtifacts, store_of, tick


@pytest.fixture
def artifacts(tmp_path: Path) -> ExpectedArtifacts:
    """Return a volume with one artifact."""
    made = ExpectedArtifacts.at(tmp_path / "volume")
    made.completed("first", file="content of first", **{"folder/other": "x" * 5000})
    tick()
    return made


def change(path: Path, offset: int, *, keep_time: bool = False) -> None:
    """Flip one bit of a file, even of a read-only file."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(folder: Folder) -> None:
    """Cut a file short."""
    (folder.data / "file").chmod(0o644)
    os.truncate(folder.data / "file", 3)


def add(folder: Folder) -> None:
    """Add a file to the published ones."""
    (folder.data / "folder/new").write_text("new")


DAMAGES: dict[str, Callable[[Folder], None]] = {
    "a flipped byte": lambda folder: change(folder.data / "folder/other", 2500),
    "a flipped byte with its time set back": lambda folder: change(folder.data / "folder/other", 9, keep_time=True),
    "a short file": cut,
    "a missing file": lambda folder: (folder.data / "folder/other").unlink(),
    "a new file": add,
    "a flipped manifest": lambda folder: change(folder.manifest, 40),
    "no manifest": lambda folder: folder.manifest.unlink(),
}


def reuse_first(artifacts: ExpectedArtifacts, name: str) -> tuple[ArtifactRow | None, Folder]:
    """Try to make `name` by a re-use of `first`; return its row, or None, and its folder."""
    row = artifacts.queued(name)
    folder = artifacts.volume.folder(row.id)
    folder.path.mkdir()
    index = Index(artifacts.volume.index)
    made = adopt_newest(index, artifacts.volume, "of first", folder, lambda source: reused_row(row, source))
    return made, folder


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExpectedArtifacts:
    """Return a volume with an artifact that counts as large: not every re-use reads its files."""
    monkeypatch.setattr(file_states, "_QUICK_BYTES", -1)
    made = ExpectedArtifacts.at(tmp_path / "volume")
    made.completed("first", file="content of first", **{"folder/other": "x" * 5000})
    tick()
    return made


@pytest.mark.parametrize("size", ["artifacts", "large"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_artifact_is_not_re_used(
    size: str, damage: str, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    """The row is marked, the log names the artifact, and the status names the damage. No links to its files stay."""
    artifacts: ExpectedArtifacts = request.getfixturevalue(size)
    DAMAGES[damage](artifacts.folder("first"))
    made, folder = reuse_first(artifacts, "second")
    assert made is None
    assert not folder.data.exists() and not folder.manifest.exists() and not folder.row_copy.exists()
    assert "first" in caplog.text and "damaged" in caplog.text
    assert Index(artifacts.volume.index).reusable("of first") is None
    status = store_of(artifacts).status("first")
    assert (status.phase, str(status.reason)[:21]) == ("completed", "Its data is damaged. ")


def test_older_undamaged_artifact_is_re_used_instead_of_a_damaged_one(artifacts: ExpectedArtifacts) -> None:
    """Of two artifacts with one fingerprint, the newer is damaged."""
    made, folder = reuse_first(artifacts, "second")
    assert made is not None
    index = Index(artifacts.volume.index)
    assert index.put(replace(made, seq=2, fingerprint="of first"))
    tick()
    change(folder.manifest, 40)
    # The artifacts share the manifest file. Give the first one an undamaged copy again.
    content = artifacts.folder("first").manifest
    damaged = bytearray(content.read_bytes())
    damaged[40] ^= 1
    content.unlink()
    content.write_bytes(damaged)
    made, _ = reuse_first(artifacts, "third")
    assert made is not None and made.reused_from == "first"
    assert index.get("second").damage is not None and index.get("first").damage is None


def test_small_artifact_is_read_at_each_re_use(artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """This also finds bit rot below the file system, at little cost."""
    read: list[object] = []
    monkeypatch.setattr("bonseyes_dagster.tool.artifacts.reuse._read_all", lambda *arguments: read.append(arguments))
    for name in ("second", "third"):
        assert reuse_first(artifacts, name)[0] is not None
    assert len(read) == 2


def test_large_artifact_is_read_only_after_a_change(large: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A re-use links files that did not change since their digest was computed, and does not read them."""
    monkeypatch.setattr("bonseyes_dagster.tool.artifacts.reuse._read_all", lambda *_: pytest.fail("read"))
    for name in ("second", "third"):
        made, folder = reuse_first(large, name)
        assert made is not None and (folder.data / "file").read_text() == "content of first"
        tick()
    other = Folder(large.volume.artifacts / ("f" * 32))
    other.path.mkdir()
    adopt(folder, other, row=made, digest=made.digest)


def test_worker_does_the_long_reading(large: ExpectedArtifacts) -> None:
    """Another hard link changes the state of a file, so all files are read again. No request must wait for this."""
    (large.volume.path / "link").hardlink_to(large.folder("first").data / "folder/other")
    row = large.queued("second")
    folder = large.volume.folder(row.id)
    folder.path.mkdir()

    def attempt(most_bytes: int | None) -> ArtifactRow | None:
        index = Index(large.volume.index)
        return adopt_newest(index, large.volume, "of first", folder, lambda _: row, most_bytes=most_bytes)

    with pytest.raises(LongReadingError):
        attempt(5000)
    assert not list(folder.path.iterdir())
    assert attempt(None) is not None


def test_cancelled_re_use_leaves_no_links(artifacts: ExpectedArtifacts) -> None:
    """Otherwise the tool would append to the log of the other artifact."""
    row = artifacts.queued("second")
    folder = artifacts.volume.folder(row.id)
    folder.path.mkdir()

    def stop() -> None:
        raise StoppedError

    with pytest.raises(StoppedError):
        adopt_newest(Index(artifacts.volume.index), artifacts.volume, "of first", folder, lambda _: row, check=stop)
    assert not list(folder.path.iterdir())


def test_restored_artifact_is_read_once(large: ExpectedArtifacts) -> None:
    """A restore keeps the times of files, but not their inodes, so the re-use reads the files."""
    change(large.folder("first").data / "folder/other", 7, keep_time=True)
    restored = large.folder("first").data / "folder/other"
    before, content = restored.stat(), restored.read_bytes()
    (restored.parent / "new").write_bytes(content)
    (restored.parent / "new").replace(restored)
    os.utime(restored, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reuse_first(large, "second")[0] is None


def test_re_used_artifact_has_its_own_row_copy(artifacts: ExpectedArtifacts) -> None:
    """The row copy is not a link to that of the other artifact."""
    made, folder = reuse_first(artifacts, "second")
    assert made is not None
    copy = read_row_copy(folder)
    assert copy is not None and (copy.name, copy.reused_from) == ("second", "first")
    assert read_row_copy(artifacts.folder("first")) == artifacts.expected["first"]


@pytest.mark.parametrize("content", ["[]", "[{}]", "{", "null", "\x00", '[{"path": 1, "size": 1, "sha256": "a"}]'])
def test_damaged_manifest_gives_not_ready(artifacts: ExpectedArtifacts, content: str) -> None:
    """The error names the damage. It is not a 500."""
    artifacts.folder("first").manifest.write_text(content)
    with pytest.raises(NotReadyError, match="is damaged"):
        store_of(artifacts).manifest("first")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("a short file", "Its file 'file' has 3 bytes instead of 16."),
        ("a missing file", "Its file 'folder/other' is gone."),
        ("no manifest", "Its manifest is gone."),
    ],
)
def test_reading_a_damaged_artifact_marks_it(artifacts: ExpectedArtifacts, damage: str, sentence: str) -> None:
    """The error names artifact, file and damage. The next equal request makes the artifact again."""
    DAMAGES[damage](artifacts.folder("first"))
    for _ in range(2):
        with pytest.raises(NotReadyError, match=f"The data of the artifact 'first' is damaged. {sentence}"):
            store_of(artifacts).data("first")
    index = Index(artifacts.volume.index)
    assert index.get("first").damage == sentence
    assert index.reusable("of first") is None


def test_file_replaced_by_a_link_is_not_served(artifacts: ExpectedArtifacts) -> None:
    """The link may lead to a secret of the same size."""
    secret = artifacts.volume.path / "secret"
    secret.write_text("content of first")
    (artifacts.folder("first").data / "file").unlink()
    (artifacts.folder("first").data / "file").symlink_to(secret)
    with pytest.raises(NotReadyError, match="is now a symbolic link"):
        store_of(artifacts).data("first", "file")


def test_manifest_with_a_path_out_of_the_artifact_is_damaged(artifacts: ExpectedArtifacts) -> None:
    """The check of the paths does not depend on the digest of the manifest."""
    (artifacts.volume.path / "secret").write_text("secret")
    manifest = artifacts.folder("first").manifest
    entries = json.loads(manifest.read_bytes())
    for path in ("../../../secret", "/etc/passwd", "a//b", "a/../b", ""):
        entries[0]["path"] = path
        manifest.write_text(json.dumps(entries))
        for read in (store_of(artifacts).data, store_of(artifacts).manifest):
            with pytest.raises(NotReadyError, match=r"leads out|does not have the digest"):
                read("first")
        with pytest.raises(DamagedError, match="leads out"):
            adopt(artifacts.folder("first"), Folder(artifacts.volume.path / "other"))


def test_missing_folder_is_reported_as_damage(artifacts: ExpectedArtifacts) -> None:
    """This happens if the index is newer than the folders."""
    artifacts.folder("first").path.rename(artifacts.volume.path / "away")
    with pytest.raises(NotReadyError, match=r"is damaged\. Its manifest is gone\."):
        store_of(artifacts).data("first")


def test_random_damage_is_never_re_used(tmp_path: Path) -> None:
    """Flips bytes at random offsets of manifest and data. CRASH_FLIPS sets how many."""
    seed = int(os.environ.get("CRASH_SEED") or random.SystemRandom().randrange(1 << 31))
    random_ = random.Random(seed)
    made = ExpectedArtifacts.at(tmp_path / "volume")
    for number in range(int(os.environ.get("CRASH_FLIPS") or 25)):
        name = f"n{number}"
        row = made.completed(name)
        tick()
        path = random_.choice([made.folder(name).manifest, made.folder(name).data / "file"])
        change(path, random_.randrange(path.stat().st_size))
        target = Folder(made.volume.path / "target")
        target.path.mkdir(exist_ok=True)
        with pytest.raises(DamagedError):
            adopt(made.folder(name), target, digest=row.digest)
            pytest.fail(f"{path} was adopted, CRASH_SEED={seed}")


# The audit


def test_audit_marks_short_and_missing_files(artifacts: ExpectedArtifacts) -> None:
    """The audit finds damage before a client reads the artifact."""
    artifacts.completed("second")
    artifacts.completed("third")
    cut(artifacts.folder("first"))
    artifacts.folder("second").manifest.unlink()
    index = Index(artifacts.volume.index)
    audit(index, artifacts.volume, pause_s=0)
    assert index.get("first").damage == "Its file 'file' has 3 bytes instead of 16."
    assert index.get("second").damage == "Its manifest is gone."
    assert index.get("third").damage is None


@pytest.mark.parametrize(
    ("column", "value"),
    [("digest", "0" * 64), ("parameters", '{"text": "gurst"}'), ("parameters", "{"), ("version", "2")],
)
def test_audit_repairs_a_wrong_row(artifacts: ExpectedArtifacts, column: str, value: str) -> None:
    """The row copy beside the data has its own digest. Where row and copy differ, the manifest decides."""
    index = Index(artifacts.volume.index)
    with index._writing() as connection:
        connection.execute("DROP TRIGGER final_phases_stay")
        connection.execute(f"UPDATE artifacts SET {column} = ?", (value,))
    audit(index, artifacts.volume, pause_s=0)
    artifacts.check(index)


def test_audit_rewrites_a_damaged_row_copy(artifacts: ExpectedArtifacts) -> None:
    """The row in the index is right, so the audit writes the copy from it."""
    copy = artifacts.folder("first").row_copy
    change(copy, 100)
    with pytest.raises(RowDamagedError):
        read_row_copy(artifacts.folder("first"))
    audit(Index(artifacts.volume.index), artifacts.volume, pause_s=0)
    assert read_row_copy(artifacts.folder("first")) == artifacts.expected["first"]


def test_audit_marks_an_artifact_without_manifest_whose_row_and_copy_differ(artifacts: ExpectedArtifacts) -> None:
    """Only a manifest could show whether row or copy is right. Without a manifest, the data is damaged anyway."""
    folder = artifacts.folder("first")
    write_row_copy(folder, replace(artifacts.expected["first"], version="2"))
    folder.manifest.unlink()
    index = Index(artifacts.volume.index)
    audit(index, artifacts.volume, pause_s=0)
    assert index.get("first").damage == "Its manifest is gone."


def test_audit_does_not_restore_an_artifact_deleted_meanwhile(
    artifacts: ExpectedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client deletes the artifact between the check of its row and the repair."""
    index = Index(artifacts.volume.index)
    with index._writing() as connection:
        connection.execute("UPDATE artifacts SET version = '2'")
    put = Index.put

    def delete_first(own: Index, row: ArtifactRow, **options: bool) -> bool:
        index.hide("first")
        return put(own, row, **options)

    monkeypatch.setattr(Index, "put", delete_first)
    audit(index, artifacts.volume, pause_s=0)
    assert index.names(limit=None, after=None) == []
