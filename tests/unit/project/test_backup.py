"""Backups of embedded projects: complete or absent, verified before a restore, and never overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bonseyes_dagster.client.command import main
from bonseyes_dagster.errors import InvalidError
from bonseyes_dagster.project.backup import write_backup
from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.project.state import Lock


def call(*argv: str) -> int:
    """Return the exit code of the command."""
    with pytest.raises(SystemExit) as exited:
        main(argv)
    return int(exited.value.code or 0)


def make_project(folder: Path) -> Project:
    """Make a project that has been up, with files, links and modes of all kinds."""
    (folder / "containers" / "load").mkdir(parents=True)
    (folder / "containers" / "load" / "tool.yml").touch()
    project = Project(folder)
    project.prepare()
    artifact = project.volume("load") / "artifacts" / "1" / "data"
    artifact.mkdir(parents=True)
    (artifact / "whole.bin").write_bytes(b"data" * 1000)
    os.link(artifact / "whole.bin", artifact / "linked.bin")
    (artifact / "here").symlink_to("whole.bin")
    (artifact / "run.sh").write_text("true")
    (artifact / "run.sh").chmod(0o755)
    artifact.chmod(0o555)
    (project.dagster_home / "storage-made").write_text("1.0.0")
    return project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The project; its folder is the working folder."""
    project = make_project(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    yield project
    for folder in tmp_path.rglob("data"):
        folder.chmod(0o755)


def crash_index(file: Path) -> None:
    """Make an index as a killed process leaves it: its last row is only in the log."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE artifacts (name TEXT)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("INSERT INTO artifacts VALUES ('first')")
        connection.commit()
        names = (file.name, f"{file.name}-wal", f"{file.name}-shm")
        left = {name: (file.parent / name).read_bytes() for name in names}
    for name, content in left.items():
        (file.parent / name).write_bytes(content)


def rows(file: Path) -> list[Any]:
    """Return the rows of an index."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT name FROM artifacts").fetchall()


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return the content of the manifest."""
    return dict(json.loads((folder / "manifest.json").read_bytes()))


def test_restore_brings_back_all_data(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It restores files, links, modes and rows that are only in an index's log, into a project that was never up."""
    crash_index(project.volume("load") / "index.sqlite")
    assert call("backup", str(tmp_path / "saved")) == 0
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    (fresh / "definitions.py").touch()
    monkeypatch.chdir(fresh)
    assert call("restore", str(tmp_path / "saved")) == 0
    volume = Project(fresh).volume("load")
    assert rows(volume / "index.sqlite") == [("first",)]
    data = volume / "artifacts" / "1" / "data"
    assert (data / "whole.bin").read_bytes() == b"data" * 1000
    assert (data / "whole.bin").samefile(data / "linked.bin")
    assert (data / "here").readlink() == Path("whole.bin")
    assert stat.S_IMODE((data / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE(data.stat().st_mode) == 0o555
    assert Project(fresh).storage_made.read_text() == "1.0.0"


def test_backup_prints_its_parts_or_the_manifest(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints a line for each part and a sentence at the end; with --json, only the manifest."""
    assert call("backup", str(tmp_path / "one")) == 0
    output = capsys.readouterr()
    assert "saving volumes/load.tar: done" in output.err
    assert output.out.startswith(f"{tmp_path / 'one'} holds project: 2 parts, ")
    assert call("--json", "backup", str(tmp_path / "two")) == 0
    output = capsys.readouterr()
    assert not output.err
    manifest = json.loads(output.out)
    assert manifest.pop("folder") == str(tmp_path / "two")
    assert manifest == manifest_of(tmp_path / "two")
    assert manifest["kind"] == "embedded"
    assert manifest["versions"]["dagster"] == "1.0.0"
    assert {part["file"] for part in manifest["parts"]} == {"volumes/load.tar", "dagster.tar"}
    assert stat.S_IMODE((tmp_path / "two").stat().st_mode) == 0o700


def test_backup_leaves_out_sockets_and_lock_tables(project: Project, tmp_path: Path) -> None:
    """They belong to processes that have ended."""
    crash_index(project.volume("load") / "index.sqlite")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(project.dagster_home)
        server.bind("socket")
        os.chdir(project.folder)
        assert call("backup", str(tmp_path / "saved")) == 0
    with tarfile.open(tmp_path / "saved" / "dagster.tar") as archive:
        assert "./socket" not in archive.getnames()
    with tarfile.open(tmp_path / "saved" / "volumes" / "load.tar") as archive:
        assert "./index.sqlite-wal" in archive.getnames()
        assert "./index.sqlite-shm" not in archive.getnames()


def test_backup_and_restore_refuse_a_running_project(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Changing files cannot be copied, and a running project must not lose its files."""
    assert call("backup", str(tmp_path / "saved")) == 0
    lock = Lock(project.lock)
    assert lock.take()
    assert call("backup", str(tmp_path / "another")) == 2
    assert call("restore", str(tmp_path / "saved"), "--force") == 2
    assert capsys.readouterr().err.count("`bonseyes down` first") == 2
    lock.give_back()
    assert not (tmp_path / "another").exists()


def test_backup_never_overwrites_a_folder(project: Project, tmp_path: Path) -> None:
    """It only removes the draft of a killed backup."""
    (tmp_path / "saved").mkdir()
    assert call("backup", str(tmp_path / "saved")) == 4
    (tmp_path / "saved").rmdir()
    left_over = tmp_path / ".saved.partial" / "volumes"
    left_over.mkdir(parents=True)
    assert call("backup", str(tmp_path / "saved")) == 0
    assert not left_over.exists()


def test_backup_of_a_project_without_data_exits_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user would notice too late that a backup is empty."""
    (tmp_path / "definitions.py").touch()
    monkeypatch.chdir(tmp_path)
    assert call("backup", str(tmp_path / "saved")) == 3
    assert not (tmp_path / "saved").exists()


def test_failed_backup_leaves_no_files(tmp_path: Path) -> None:
    """Neither the folder nor its draft is left."""

    def fail(file: Any) -> None:
        file.write(b"some")
        raise RuntimeError("the disk is gone")

    show: Any = lambda part, total: silent_show()  # noqa: E731
    with pytest.raises(RuntimeError, match="the disk is gone"):
        write_backup(
            tmp_path / "saved", project="p", kind="embedded", versions={}, sources={"dagster.tar": fail}, show=show
        )
    assert list(tmp_path.iterdir()) == []


def test_backup_of_a_project_started_meanwhile_leaves_no_files(tmp_path: Path) -> None:
    """The last check comes before the folder gets its manifest and its name."""

    def check() -> None:
        assert [path.name for path in tmp_path.iterdir()] == [".saved.partial"]
        raise InvalidError("It was up meanwhile.")

    show: Any = lambda part, total: silent_show()  # noqa: E731
    sources = {"dagster.tar": lambda file: file.write(b"1")}
    with pytest.raises(InvalidError, match="up meanwhile"):
        write_backup(
            tmp_path / "saved", project="p", kind="docker", versions={}, sources=sources, show=show, check=check
        )
    assert list(tmp_path.iterdir()) == []


def silent_show() -> Any:
    """Return a block that shows no progress."""
    from contextlib import nullcontext

    return nullcontext(lambda done: None)


def test_restore_replaces_existing_data_only_with_force(project: Project, tmp_path: Path) -> None:
    """It then replaces all data: data that is newer than the backup is gone."""
    assert call("backup", str(tmp_path / "saved")) == 0
    project.volume("later").mkdir()
    assert call("restore", str(tmp_path / "saved")) == 4
    assert project.volume("later").exists()
    assert call("restore", str(tmp_path / "saved"), "--force") == 0
    assert not project.volume("later").exists()
    assert (project.volume("load") / "artifacts" / "1" / "data" / "whole.bin").exists()
    assert {path.name for path in project.state_folder.iterdir()} <= {"volumes", "dagster", "logs", "supervisor.lock"}


def test_restore_works_with_python_3_11_2(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian 12 has 3.11.2, whose `extractall` takes no filter."""
    extract = tarfile.TarFile.extractall

    def extract_in_3_11_2(
        archive: tarfile.TarFile, path: Path, members: Any = None, *, numeric_owner: bool = False
    ) -> None:
        extract(archive, path, members, numeric_owner=numeric_owner)

    assert call("backup", str(tmp_path / "saved")) == 0
    monkeypatch.setattr(tarfile.TarFile, "extractall", extract_in_3_11_2)
    assert call("restore", str(tmp_path / "saved"), "--force") == 0
    assert (project.volume("load") / "artifacts" / "1" / "data" / "run.sh").exists()


@pytest.mark.parametrize("name", ["../../out", "/out", "link/out"])
def test_restore_refuses_paths_out_of_the_folder(
    project: Project, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digests are right, but `..`, an absolute path or a link would make it write elsewhere."""
    assert call("backup", str(tmp_path / "saved")) == 0
    tar = tmp_path / "saved" / "dagster.tar"
    link, out = tarfile.TarInfo("link"), tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    with tarfile.open(tar, "w") as archive:
        archive.addfile(link)
        archive.addfile(out)
    manifest = manifest_of(tmp_path / "saved")
    part = next(each for each in manifest["parts"] if each["file"] == "dagster.tar")
    part |= {"size": tar.stat().st_size, "sha256": hashlib.sha256(tar.read_bytes()).hexdigest()}
    (tmp_path / "saved" / "manifest.json").write_text(json.dumps(manifest))
    assert call("restore", str(tmp_path / "saved"), "--force") == 2
    assert f"{name!r}, which leads out of the folder" in capsys.readouterr().err
    assert project.storage_made.exists()
    assert {path.name for path in project.state_folder.iterdir()} <= {"volumes", "dagster", "logs", "supervisor.lock"}


@pytest.mark.parametrize("harm", ["a byte", "the end", "the file"])
def test_restore_of_a_damaged_backup_replaces_nothing(
    project: Project, tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It verifies every digest first, and the error names the part."""
    assert call("backup", str(tmp_path / "saved")) == 0
    part = tmp_path / "saved" / "volumes" / "load.tar"
    content = bytearray(part.read_bytes())
    content[600] ^= 1
    if harm == "the file":
        part.unlink()
    else:
        part.write_bytes(content if harm == "a byte" else content[:-512])
    project.volume("later").mkdir()
    assert call("restore", str(tmp_path / "saved"), "--force") == 8
    assert "volumes/load.tar is damaged" in capsys.readouterr().err
    assert project.volume("later").exists()


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"format": 2}, 2, "in format 2"),
        ({"kind": "paper"}, 2, "'paper'"),
        ({"parts": [{"file": "../../etc/passwd", "size": 1, "sha256": ""}]}, 2, "not the name of a part"),
        ({"parts": [{"file": "/etc/passwd", "size": 1, "sha256": ""}]}, 2, "not the name of a part"),
        ({"parts": 5}, 2, "damaged"),
        ({"versions": {"dagster": "99.1"}}, 2, "is older"),
    ],
)
def test_restore_refuses_an_invalid_manifest(
    project: Project,
    tmp_path: Path,
    change: dict[str, Any],
    code: int,
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The user gets a sentence, and all data stays as it was."""
    assert call("backup", str(tmp_path / "saved")) == 0
    (tmp_path / "saved" / "manifest.json").write_text(json.dumps({**manifest_of(tmp_path / "saved"), **change}))
    assert call("restore", str(tmp_path / "saved"), "--force") == code
    assert text in capsys.readouterr().err
    assert (project.volume("load") / "artifacts" / "1" / "data" / "whole.bin").exists()


def test_restore_of_a_folder_without_a_manifest_exits_3(project: Project, tmp_path: Path) -> None:
    """A killed backup leaves such a folder."""
    assert call("restore", str(tmp_path), "--force") == 3
