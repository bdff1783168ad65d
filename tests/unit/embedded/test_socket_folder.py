"""The folder of a project's sockets: only its owner can enter it, and its path is short enough."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bonseyes_dagster.embedded.socket_folder import SocketFolder
from bonseyes_dagster.errors import SettingsError
from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.system import sockets


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path; pytest's folders have long ones."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def project(short: Path) -> Project:
    """A project with a short path."""
    project = Project(short / "p")
    project.prepare()
    return project


@pytest.fixture
def deep(short: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose path is too long for sockets."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short / "run"))
    (short / "run").mkdir(mode=0o700)
    project = Project(short / ("d" * 90))
    project.prepare()
    return project


def _mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


def test_sockets_lie_in_the_state_folder(project: Project) -> None:
    """Sockets of a killed project are removed."""
    project.sockets.mkdir(mode=0o700)
    (project.sockets / "old.sock").touch()
    folder = SocketFolder(project)
    folder.make()
    assert folder.path("learn") == project.sockets / "learn.sock"
    assert _mode(project.sockets) == 0o700
    assert list(project.sockets.iterdir()) == []
    folder.remove()
    assert not project.sockets.exists()


def test_long_container_name_gets_a_short_socket_name(project: Project) -> None:
    """Names have up to 128 characters, socket paths up to 107 bytes; two names never share a socket."""
    folder = SocketFolder(project)
    folder.make()
    names = [f"{'n' * 126}{number}" for number in range(10)]
    paths = {folder.path(name) for name in names}
    assert len(paths) == 10
    assert all(len(os.fsencode(path)) <= sockets.LONGEST_PATH_BYTES for path in paths)


def test_project_with_a_long_path_has_its_sockets_elsewhere(deep: Project, short: Path) -> None:
    """The folder belongs to this project only; another process can find and remove it."""
    folder = SocketFolder(deep)
    folder.make()
    place = folder.path("learn").parent
    assert place.parent == short / "run"
    assert _mode(place) == 0o700
    folder.path("learn").touch()
    SocketFolder(deep).remove()
    assert not place.exists()
    assert not deep.socket_place.exists()


@pytest.mark.parametrize("folder", ["p :r", "p%r", "p,r"])
def test_socket_path_has_no_special_characters(short: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """UWSGI reads a colon as the begin of a port, and gRPC decodes percent signs."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    project = Project(short / folder)
    project.prepare()
    place = SocketFolder(project)
    place.make()
    assert folder not in str(place.path("learn"))
    place.remove()


def test_folder_that_others_can_replace_is_not_used(
    deep: Project, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime folder that everybody can change is skipped. Without any place, the error says what to do."""
    (short / "run").chmod(0o777)
    folder = SocketFolder(deep)
    folder.make()
    assert folder.path("learn").parent.parent != short / "run"
    folder.remove()
    monkeypatch.setattr("bonseyes_dagster.embedded.socket_folder._parents", lambda: iter(()))
    with pytest.raises(SettingsError, match="TMPDIR"):
        folder.make()


def test_only_our_own_folder_is_removed(deep: Project, tmp_path: Path) -> None:
    """By now, the stored path may lead to another folder, or to a link."""
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    (other / "file").touch()
    link = tmp_path / "link"
    link.symlink_to(other)
    for place in (other, link):
        deep.socket_place.write_text(str(place))
        SocketFolder(deep).remove()
    assert (other / "file").exists()
