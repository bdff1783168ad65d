"""The backup of an embedded project: its volumes and Dagster's storage, both below `.bonseyes/`."""

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

# SQLite makes the `-shm` files anew from the log; their locks belong to processes that have ended.
_NOT_KEPT = ("-shm",)
_BUFFER_BYTES = 1 << 20
# The modes of restored files let no other user write, and have no set-user-id bit.
_MODES = 0o755


@contextmanager
def keep_down(project: Project) -> Iterator[Callable[[], None]]:
    """Check that the project is down, and hold its lock until the end of the block; raise InvalidError if it is up.

    While it is down, no file changes, and a later start can continue with the copied files. Yields a function that
    repeats the check; it does nothing, because the lock is enough.
    """
    project.make_folders()
    lock = Lock(project.lock)
    if not lock.take():
        raise InvalidError(
            f"{project.name} is up, and its data is changing; run `bonseyes down` first. "
            "Unfinished runs go on at the next `bonseyes up`."
        )
    try:
        if find_leftovers(project):
            raise InvalidError(
                f"Processes of {project.name} outlived their supervisor; run `bonseyes down` to end them."
            )
        yield lambda: None
    finally:
        lock.give_back()


def has_state(project: Project) -> bool:
    """Tell whether the project has data that a restore would replace."""
    return any(folder.is_dir() and any(folder.iterdir()) for folder in _kept(project))


def _kept(project: Project) -> tuple[Path, Path]:
    return project.volumes, project.dagster_home


def versions(project: Project) -> Mapping[str, str]:
    """Return the versions of the software that made the data."""
    found = {"bonseyes-dagster": __version__}
    if project.storage_made.exists():
        found["dagster"] = project.storage_made.read_text(encoding="utf-8")
    return found


def sources(project: Project) -> dict[str, Source]:
    """Return the writer of each part."""
    if not has_state(project):
        raise NotFoundError(f"{project.state_folder} has no data to back up: the project has never been up here.")
    found = {f"volumes/{volume.name}.tar": _tar(volume) for volume in sorted(project.volumes.iterdir())}
    if project.dagster_home.is_dir():
        found["dagster.tar"] = _tar(project.dagster_home)
    return found


def _tar(folder: Path) -> Source:
    def write(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w|", bufsize=_BUFFER_BYTES) as archive:
            # tarfile leaves out sockets by itself.
            archive.add(folder, arcname=".", filter=lambda member: None if _is_left_out(member) else member)

    return write


def _is_left_out(member: tarfile.TarInfo) -> bool:
    return member.name.endswith(_NOT_KEPT)


def restore(project: Project, backup: Path, manifest: BackupManifest, show: Show, *, force: bool) -> None:
    """Replace the project's data by a verified backup; existing data only with `force`.

    It unpacks all parts before it replaces anything. Raises ConflictError, InvalidError.
    """
    _check_dagster(manifest)
    if has_state(project) and not force:
        raise ConflictError(f"{project.state_folder} has data of a project already; --force replaces all of it.")
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
        with suppress(OSError):  # remove `old` only if it is empty: it may hold data of the project
            old.rmdir()
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old)


def _check_dagster(manifest: BackupManifest) -> None:
    made_by, installed = manifest.versions.get("dagster", ""), version("dagster")
    if _numbers(made_by) > _numbers(installed):
        raise InvalidError(
            f"Dagster {made_by} made the storage in this backup; the installed Dagster {installed} is older."
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

        # Python 3.11.0 to 3.11.3, also Debian 12's, have no filters. Later versions must use no filter but ours.
        archive.extraction_filter = lambda member, _: member
        archive.extractall(folder, members())  # noqa: S202 - members() checks them


def _checked(member: tarfile.TarInfo, folder: Path) -> tarfile.TarInfo:
    """Return a member with safe modes; raise InvalidError if its path leads out of the folder."""
    inside = os.path.realpath(folder)
    if os.path.commonpath([inside, os.path.realpath(folder / member.name)]) != inside:
        raise InvalidError(f"The backup has a file {member.name!r}, which leads out of the folder of the restore.")
    member.mode &= _MODES
    return member


def _exchange(place: Path, new: Path, old: Path) -> None:
    if place.exists():
        place.rename(old)
    if new.exists():
        new.rename(place)
