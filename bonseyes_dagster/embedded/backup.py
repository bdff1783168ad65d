"""The embedded project's part of a backup: the volumes and Dagster's storage below `.bonseyes/`."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from bonseyes_dagster.embedded.leftovers import find_leftovers
from bonseyes_dagster.errors import ConflictError, InvalidError, NotFoundError
from bonseyes_dagster.project.backup import BackupManifest, Show, Source
from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.project.state import Lock
from bonseyes_dagster.version import __version__

__all__ = ["has_state", "keep_down", "restore", "sources", "versions"]

# SQLite makes it anew from the log; the state of locks in it is that of processes that are gone.
_NOT_KEPT = ("-shm",)
_BUFFER_BYTES = 1 << 20
# What is restored lets no other user write, and gives nobody the rights of its owner.
_MODES = 0o755


@contextmanager
def keep_down(project: Project) -> Iterator[Callable[[], None]]:
    """See to it that nothing of the project runs, or starts, until the end of the block; raise InvalidError if it does.

    Then every file is as its last writer left it, which is what the project takes up at any start. It yields what looks
    for it once more, where that can do anything.
    """
    project.make_folders()
    lock = Lock(project.lock)
    if not lock.take():
        raise InvalidError(
            f"{project.name} is up, and what it keeps is changing: `bonseyes down` first. "
            "Runs that are under way go on at the next `bonseyes up`."
        )
    try:
        if find_leftovers(project):
            raise InvalidError(f"Processes of {project.name} outlived their supervisor: `bonseyes down` ends them.")
        yield lambda: None
    finally:
        lock.give_back()


def has_state(project: Project) -> bool:
    """Tell whether there is anything that a restore would replace."""
    return any(folder.is_dir() and any(folder.iterdir()) for folder in _kept(project))


def _kept(project: Project) -> tuple[Path, Path]:
    return project.volumes, project.dagster_home


def versions(project: Project) -> Mapping[str, str]:
    """Return the versions that a restore depends on."""
    found = {"bonseyes-dagster": __version__}
    if project.storage_made.exists():
        found["dagster"] = project.storage_made.read_text(encoding="utf-8")
    return found


def sources(project: Project) -> dict[str, Source]:
    """Return what writes each part."""
    if not has_state(project):
        raise NotFoundError(f"{project.state_folder} holds nothing to back up: the project has not been up here.")
    found = {f"volumes/{volume.name}.tar": _tar(volume) for volume in sorted(project.volumes.iterdir())}
    if project.dagster_home.is_dir():
        found["dagster.tar"] = _tar(project.dagster_home)
    return found


def _tar(folder: Path) -> Source:
    def write(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w|", bufsize=_BUFFER_BYTES) as archive:
            # Sockets are left out by tarfile.
            archive.add(folder, arcname=".", filter=lambda member: None if _is_left_out(member) else member)

    return write


def _is_left_out(member: tarfile.TarInfo) -> bool:
    return member.name.endswith(_NOT_KEPT)


def restore(project: Project, backup: Path, manifest: BackupManifest, show: Show, *, force: bool) -> None:
    """Put a verified backup in the place of what the project keeps; with `force` also if that is something.

    Until everything is unpacked nothing is replaced. Raises ConflictError, InvalidError.
    """
    _check_dagster(manifest)
    if has_state(project) and not force:
        raise ConflictError(f"{project.state_folder} holds a project already; --force replaces all that it keeps.")
    new, old = project.state_folder / "restoring", project.state_folder / "replaced"
    for folder in (new, old):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        for folder in (new, old):
            folder.mkdir(mode=0o700)
        _unpack(backup, manifest, new, show)
        for folder in _kept(project):
            _exchange(folder, new / folder.name, old / folder.name)
    except BaseException:
        with suppress(OSError):  # what is in it was the project's, and somebody may want it back
            old.rmdir()
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old)


def _check_dagster(manifest: BackupManifest) -> None:
    made_by, installed = manifest.versions.get("dagster", ""), version("dagster")
    if _numbers(made_by) > _numbers(installed):
        raise InvalidError(
            f"Dagster {made_by} made the storage in this backup; Dagster {installed}, which is installed, is older."
        )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def _unpack(backup: Path, manifest: BackupManifest, new: Path, show: Show) -> None:
    for part in manifest.parts:
        folder = new / part.file.removesuffix(".tar")
        folder.mkdir(mode=0o700, parents=True)
        with show(part.file, part.size) as report, (backup / part.file).open("rb") as file:
            _extract(file, folder, report)


def _extract(file: BinaryIO, folder: Path, report: Callable[[int], None]) -> None:
    with tarfile.open(fileobj=file, mode="r|", bufsize=_BUFFER_BYTES) as archive:

        def members() -> Iterator[tarfile.TarInfo]:
            for member in archive:
                report(file.tell())
                yield _checked(member, folder)

        # Python 3.11.0 to 3.11.3, Debian 12's among them, have no filters; later ones must not use another than ours.
        archive.extraction_filter = lambda member, _: member
        archive.extractall(folder, members())  # noqa: S202 - members() checks them


def _checked(member: tarfile.TarInfo, folder: Path) -> tarfile.TarInfo:
    """Return a member with modes that are safe; raise InvalidError for one that leads out of the folder."""
    inside = os.path.realpath(folder)
    if os.path.commonpath([inside, os.path.realpath(folder / member.name)]) != inside:
        raise InvalidError(f"The backup holds {member.name!r}, which leads out of the folder to be restored.")
    member.mode &= _MODES
    return member


def _exchange(place: Path, new: Path, old: Path) -> None:
    if place.exists():
        place.rename(old)
    if new.exists():
        new.rename(place)
