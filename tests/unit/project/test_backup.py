"""What a backup is on disk: whole or not there, verified before anything is replaced, and never written over."""

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
    """Return what the command exits with."""
    with pytest.raises(SystemExit) as exited:
        main(argv)
    return int(exited.value.code or 0)


def make_project(folder: Path) -> Project:
    """A project that was up: a tool's index with a log that was never checkpointed, and files of every sort."""
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
    """The project, with the working folder in it."""
    project = make_project(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    yield project
    for folder in tmp_path.rglob("data"):
        folder.chmod(0o755)


def crash_index(file: Path) -> None:
    """Make an index as a killed process leaves it: its last row is in the log alone."""
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
    """Return what an index holds."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT name FROM artifacts").fetchall()


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return what stands in the manifest."""
    return dict(json.loads((folder / "manifest.json").read_bytes()))


def test_all_that_is_kept_comes_back(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, links, modes, and what an index has in its log alone; into a project that was never up."""
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


def test_it_says_what_it_wrote(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each part while it works, a sentence at the end; with --json the manifest and nothing else."""
    assert call("backup", str(tmp_path / "one")) == 0
    said = capsys.readouterr()
    assert "saving volumes/load.tar: done" in said.err
    assert said.out.startswith(f"{tmp_path / 'one'} holds project: 2 parts, ")
    assert call("--json", "backup", str(tmp_path / "two")) == 0
    said = capsys.readouterr()
    assert not said.err
    manifest = json.loads(said.out)
    assert manifest.pop("folder") == str(tmp_path / "two")
    assert manifest == manifest_of(tmp_path / "two")
    assert manifest["kind"] == "embedded"
    assert manifest["versions"]["dagster"] == "1.0.0"
    assert {part["file"] for part in manifest["parts"]} == {"volumes/load.tar", "dagster.tar"}
    assert stat.S_IMODE((tmp_path / "two").stat().st_mode) == 0o700


def test_what_processes_leave_is_left_out(project: Project, tmp_path: Path) -> None:
    """Sockets, and SQLite's table of locks."""
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


def test_a_project_that_is_up_is_refused(project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways: what changes cannot be copied, and what runs must not lose its files."""
    assert call("backup", str(tmp_path / "saved")) == 0
    lock = Lock(project.lock)
    assert lock.take()
    assert call("backup", str(tmp_path / "another")) == 2
    assert call("restore", str(tmp_path / "saved"), "--force") == 2
    assert capsys.readouterr().err.count("`bonseyes down` first") == 2
    lock.give_back()
    assert not (tmp_path / "another").exists()


def test_a_backup_is_never_written_over(project: Project, tmp_path: Path) -> None:
    """Whatever stands there; a left-over of a killed one is none."""
    (tmp_path / "saved").mkdir()
    assert call("backup", str(tmp_path / "saved")) == 4
    (tmp_path / "saved").rmdir()
    left_over = tmp_path / ".saved.partial" / "volumes"
    left_over.mkdir(parents=True)
    assert call("backup", str(tmp_path / "saved")) == 0
    assert not left_over.exists()


def test_nothing_to_back_up_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty backup would be found out too late."""
    (tmp_path / "definitions.py").touch()
    monkeypatch.chdir(tmp_path)
    assert call("backup", str(tmp_path / "saved")) == 3
    assert not (tmp_path / "saved").exists()


def test_a_backup_that_fails_is_none(tmp_path: Path) -> None:
    """Neither the folder nor a draft of it is left."""

    def fail(file: Any) -> None:
        file.write(b"some")
        raise RuntimeError("the disk is gone")

    show: Any = lambda part, total: closing_none()  # noqa: E731
    with pytest.raises(RuntimeError, match="the disk is gone"):
        write_backup(
            tmp_path / "saved", project="p", kind="embedded", versions={}, sources={"dagster.tar": fail}, show=show
        )
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_is_found_wrong_at_the_end_leaves_nothing(tmp_path: Path) -> None:
    """With its name and its manifest it would be one."""

    def check() -> None:
        assert [path.name for path in tmp_path.iterdir()] == [".saved.partial"]
        raise InvalidError("it was up meanwhile")

    show: Any = lambda part, total: closing_none()  # noqa: E731
    sources = {"dagster.tar": lambda file: file.write(b"1")}
    with pytest.raises(InvalidError, match="up meanwhile"):
        write_backup(
            tmp_path / "saved", project="p", kind="docker", versions={}, sources=sources, show=show, check=check
        )
    assert list(tmp_path.iterdir()) == []


def closing_none() -> Any:
    """Return what shows nothing."""
    from contextlib import nullcontext

    return nullcontext(lambda done: None)


def test_an_existing_project_is_replaced_only_if_told(project: Project, tmp_path: Path) -> None:
    """And then all of it: what came after the backup is gone."""
    assert call("backup", str(tmp_path / "saved")) == 0
    project.volume("later").mkdir()
    assert call("restore", str(tmp_path / "saved")) == 4
    assert project.volume("later").exists()
    assert call("restore", str(tmp_path / "saved"), "--force") == 0
    assert not project.volume("later").exists()
    assert (project.volume("load") / "artifacts" / "1" / "data" / "whole.bin").exists()
    assert {path.name for path in project.state_folder.iterdir()} <= {"volumes", "dagster", "logs", "supervisor.lock"}


def test_the_oldest_python_can_restore(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_backup_that_leads_out_of_its_folder_replaces_nothing(
    project: Project, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its digests it is whole; by `..`, an absolute path or a link it would write elsewhere."""
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
def test_a_damaged_backup_replaces_nothing(
    project: Project, tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every digest is verified first, and the part is named."""
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
    ("change", "code", "said"),
    [
        ({"format": 2}, 2, "format 2"),
        ({"kind": "paper"}, 2, "'paper'"),
        ({"parts": [{"file": "../../etc/passwd", "size": 1, "sha256": ""}]}, 2, "no name of a part"),
        ({"parts": [{"file": "/etc/passwd", "size": 1, "sha256": ""}]}, 2, "no name of a part"),
        ({"parts": 5}, 2, "damaged"),
        ({"versions": {"dagster": "99.1"}}, 2, "is older"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(
    project: Project,
    tmp_path: Path,
    change: dict[str, Any],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a sentence, with everything as it was."""
    assert call("backup", str(tmp_path / "saved")) == 0
    (tmp_path / "saved" / "manifest.json").write_text(json.dumps({**manifest_of(tmp_path / "saved"), **change}))
    assert call("restore", str(tmp_path / "saved"), "--force") == code
    assert said in capsys.readouterr().err
    assert (project.volume("load") / "artifacts" / "1" / "data" / "whole.bin").exists()


def test_what_is_no_backup_is_said(project: Project, tmp_path: Path) -> None:
    """Such as the one that was killed before its manifest."""
    assert call("restore", str(tmp_path), "--force") == 3
