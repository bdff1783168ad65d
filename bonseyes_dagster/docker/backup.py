"""The composed project's part of a backup: its named volumes, and Dagster's database as a dump.

Volumes are read and written by containers of the services' own images, as their own user. What the database's
service mounts is left out: the dump takes the place of its files, and its password is made anew by each project.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bonseyes_dagster.docker.engine import compose_argv, docker
from bonseyes_dagster.docker.project import DockerProject
from bonseyes_dagster.docker.project_lock import lock_project
from bonseyes_dagster.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from bonseyes_dagster.project.backup import BackupManifest, Show, Source
from bonseyes_dagster.version import __version__

__all__ = ["existing_volumes", "keep_down", "restore", "sources", "versions"]

DATABASE = "postgres"
DUMP = "postgres.dump"
# SQLite makes the first anew; the second holds the database's password, and is written at each start.
_NOT_KEPT = ("*-shm", "./dagster.yaml")
_CHUNK_BYTES = 1 << 20
_START_S = "180"
# An image may have to be pulled.
_COMPOSE_S = 900.0


@dataclass(frozen=True, slots=True)
class _Volume:
    """A named volume as its service knows it; `key` is its name in the compose file, `name` on the engine."""

    key: str
    name: str
    image: str
    target: str

    @property
    def file(self) -> str:
        return f"volumes/{self.key}.tar"


@contextmanager
def keep_down(project: DockerProject) -> Iterator[Callable[[], None]]:
    """See to it that nothing of the project runs, and that no `bonseyes` starts it, until the end of the block.

    Yields what looks for it once more, since Compose does not know the lock. Of its containers the database alone runs
    meanwhile, to be dumped or filled. Raises InvalidError when the project is up, UnavailableError when it is started.
    """
    with lock_project(project.folder, alone=True):
        _check_down(project)
        yield lambda: _check_down(project)


def _check_down(project: DockerProject) -> None:
    project.containers()  # refuses those of another folder
    # Whoever has a volume open counts, a run in a container of its own, too.
    filters = [f"--filter=volume={name}" for name in existing_volumes(project)]
    if filters and (names := docker("ps", "--format", "{{.Names}}", *filters).split()):
        raise InvalidError(
            f"{project.name} is up in Docker ({', '.join(sorted(names))}), and what it keeps is changing: "
            "`bonseyes down` first. Runs that are under way go on at the next `bonseyes up --docker`."
        )


def existing_volumes(project: DockerProject) -> list[str]:
    """Return the project's volumes that are on the engine."""
    there = set(docker("volume", "ls", "--format", "{{.Name}}").split())
    return [name for name in project.volumes() if name in there]


def versions(project: DockerProject) -> Mapping[str, str]:
    """Return the versions that a restore depends on."""
    return {"bonseyes-dagster": __version__, "postgres": _postgres(project)}


def _postgres(project: DockerProject) -> str:
    """Return the version of the database's image, such as `15.4`."""
    image = str(project.config["services"][DATABASE]["image"])
    said = docker("run", "--rm", "--network=none", "--entrypoint=postgres", image, "--version", timeout_s=_COMPOSE_S)
    return said.removeprefix("postgres (PostgreSQL) ").split(maxsplit=1)[0]


def _volumes(project: DockerProject) -> list[_Volume]:
    services = project.config["services"]
    mounts = [
        (mount, service)
        for name, service in services.items()
        for mount in service.get("volumes") or ()
        if mount["type"] == "volume" and name != DATABASE
    ]
    of_database = {mount["source"] for mount in services[DATABASE]["volumes"]}
    names = {key: str(volume["name"]) for key, volume in project.config["volumes"].items()}
    found = {
        mount["source"]: _Volume(mount["source"], names[mount["source"]], service["image"], mount["target"])
        for mount, service in mounts
        if mount["source"] not in of_database
    }
    return sorted(found.values(), key=lambda volume: volume.key)


# --- backup


def sources(project: DockerProject) -> dict[str, Source]:
    """Return what writes each part."""
    there = set(existing_volumes(project))
    if not there:
        raise NotFoundError(f"{project.name} has no volumes to back up: it has not been up in Docker here.")
    found: dict[str, Source] = {
        volume.file: _tar(project, volume) for volume in _volumes(project) if volume.name in there
    }
    found[DUMP] = lambda file: _dump(project, file)
    return found


def _tar(project: DockerProject, volume: _Volume) -> Source:
    def write(file: BinaryIO) -> None:
        excluded = [f"--exclude={pattern}" for pattern in _NOT_KEPT]
        _read(project, _in_container(volume, "ro", "--create", *excluded, "."), file)

    return write


def _dump(project: DockerProject, file: BinaryIO) -> None:
    with _database(project) as ask:
        _read(project, ask("pg_dump", "--format=custom", "--no-owner"), file)


def _in_container(volume: _Volume, mode: str, *arguments: str) -> list[str]:
    """Return the command line of a tar that sees the volume and nothing else."""
    denied = ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    # What tar prints is the archive: no log of it is to fill the engine's disk.
    run = ["docker", "run", "--rm", "--interactive", "--log-driver=none", "--pull=never", *denied]
    mount = f"--volume={volume.name}:{volume.target}:{mode}"
    return [*run, mount, "--entrypoint=tar", volume.image, f"--directory={volume.target}", *arguments]


# --- restore


def restore(project: DockerProject, backup: Path, manifest: BackupManifest, show: Show, *, force: bool) -> None:
    """Put a verified backup into fresh volumes and a fresh database; with `force` after removing those there are.

    Raises ConflictError, InvalidError. When it fails on the way nothing is left of it.
    """
    volumes = {volume.file: volume for volume in _volumes(project)}
    _check(project, manifest, volumes, force=force)
    project.compose("down", "--volumes", "--remove-orphans")
    try:
        # Its volumes come with the right owners.
        project.compose("create", "--no-build", timeout_s=_COMPOSE_S)
        project.compose("down", "--remove-orphans")
        for part in manifest.parts:
            with show(part.file, part.size) as tell, (backup / part.file).open("rb") as file:
                if part.file == DUMP:
                    _fill(project, file, tell)
                else:
                    argv = _in_container(volumes[part.file], "rw", "--extract", "--preserve-permissions")
                    _write(project, argv, file, tell)
    except BaseException:
        project.compose("down", "--volumes", "--remove-orphans")
        raise


def _check(project: DockerProject, manifest: BackupManifest, volumes: Mapping[str, _Volume], *, force: bool) -> None:
    if unknown := [part.file for part in manifest.parts if part.file not in (*volumes, DUMP)]:
        raise InvalidError(f"{', '.join(unknown)} of the backup belong to no service of {project.name}.")
    if missing := project.missing_images():
        raise InvalidError(f"There are no images {', '.join(missing)}: `bonseyes build` makes them.")
    if (there := existing_volumes(project)) and not force:
        raise ConflictError(
            f"{project.name} has volumes already: {', '.join(there)}. --force removes them with all in them."
        )
    dumped, ours = manifest.versions.get("postgres", ""), _postgres(project)
    if _major(dumped) > _major(ours):
        raise InvalidError(
            f"Postgres {dumped} made the dump in this backup; Postgres {ours}, which is to read it, is older."
        )


def _major(version: str) -> int:
    """Return what comes before the first point, 0 where a version does not begin with a number."""
    return int(re.match(r"\d*", version)[0] or 0)  # type: ignore[index]


def _fill(project: DockerProject, file: BinaryIO, tell: Callable[[int], None]) -> None:
    with _database(project) as ask:
        argv = ask("pg_restore", "--no-owner", "--exit-on-error", "--single-transaction")
        _write(project, argv, file, tell)


# --- the engine


@contextmanager
def _database(project: DockerProject) -> Iterator[Callable[..., list[str]]]:
    """Run the database alone; yield what makes the command line of one of its programs."""
    service = project.config["services"][DATABASE]
    user, name = (service["environment"][f"POSTGRES_{key}"] for key in ("USER", "DB"))
    options = [f"--username={user}", f"--dbname={name}"]
    own = {DATABASE, *service.get("depends_on", ())}
    try:
        waiting = ("--wait", "--wait-timeout", _START_S)
        project.compose("up", "--detach", "--no-build", *waiting, DATABASE, timeout_s=_COMPOSE_S)
        yield lambda program, *words: compose_argv(
            "exec", "--no-TTY", DATABASE, program, *options, *words, project=project.name
        )
    finally:
        # Whoever has started the project meanwhile has taken the database over.
        if {each.service for each in project.containers() if each.is_alive} <= own:
            project.compose("down", "--remove-orphans")


def _read(project: DockerProject, argv: Sequence[str], file: BinaryIO) -> None:
    """Write what a program prints to `file`; raise UnavailableError with what it says when it fails."""
    with _running(project, argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while chunk := process.stdout.read(_CHUNK_BYTES):
            file.write(chunk)


def _write(project: DockerProject, argv: Sequence[str], file: BinaryIO, tell: Callable[[int], None]) -> None:
    """Give a program what is in `file`; raise UnavailableError with what it says when it fails."""
    # When it fails it reads no more, and says why.
    with _running(project, argv, stdin=subprocess.PIPE) as process, contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        with process.stdin as stdin:
            while chunk := file.read(_CHUNK_BYTES):
                stdin.write(chunk)
                tell(file.tell())


@contextmanager
def _running(
    project: DockerProject, argv: Sequence[str], *, stdin: int = subprocess.DEVNULL, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            argv, cwd=project.folder, env=dict(project.environ), stdin=stdin, stdout=stdout, stderr=said
        )
        try:
            yield process
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.wait() != 0:
            said.seek(0)
            raise UnavailableError(f"`{' '.join(argv[:3])}` failed: {said.read().decode(errors='replace').strip()}")
