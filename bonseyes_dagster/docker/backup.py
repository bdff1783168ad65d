"""The backup of a docker project: its named volumes, and a dump of Dagster's database.

For each volume, a container of its service's image runs `tar`, as the service's user. The backup leaves out the
volumes of the database's service: the dump replaces its files, and each project makes a new password.
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
# SQLite makes the `-shm` files anew. `dagster.yaml` holds the database's password, and each start writes it.
_NOT_KEPT = ("*-shm", "./dagster.yaml")
_CHUNK_BYTES = 1 << 20
_START_S = "180"
# Compose may have to pull an image.
_COMPOSE_S = 900.0


@dataclass(frozen=True, slots=True)
class _Volume:
    """A named volume and its mount point in a service; `key` is its name in the compose file, `name` on the engine."""

    key: str
    name: str
    image: str
    target: str

    @property
    def file(self) -> str:
        return f"volumes/{self.key}.tar"


@contextmanager
def keep_down(project: DockerProject) -> Iterator[Callable[[], None]]:
    """Check that the project is down, and prevent that another `bonseyes` starts it before the end of the block.

    Yields a function that repeats the check, because Compose does not respect the lock. In the block, only the
    database's container runs. Raises InvalidError when the project is up, UnavailableError when another command
    starts it.
    """
    with lock_project(project.folder, exclusive=True):
        _check_down(project)
        yield lambda: _check_down(project)


def _check_down(project: DockerProject) -> None:
    project.containers()  # raises when they belong to another folder
    # Any container that mounts a volume could write to it, even the container of a run.
    filters = [f"--filter=volume={name}" for name in existing_volumes(project)]
    if filters and (names := docker("ps", "--format", "{{.Names}}", *filters).split()):
        raise InvalidError(
            f"{project.name} is up in Docker ({', '.join(sorted(names))}), and its data is changing; "
            "run `bonseyes down` first. Unfinished runs go on at the next `bonseyes up --docker`."
        )


def existing_volumes(project: DockerProject) -> list[str]:
    """Return the names of the project's volumes that exist on the engine."""
    there = set(docker("volume", "ls", "--format", "{{.Name}}").split())
    return [name for name in project.volumes() if name in there]


def versions(project: DockerProject) -> Mapping[str, str]:
    """Return the versions of the programs that write the backup. A restore needs the same or a newer Postgres."""
    return {"bonseyes-dagster": __version__, "postgres": _postgres(project)}


def _postgres(project: DockerProject) -> str:
    """Return the version of the database's image, such as `15.4`."""
    image = str(project.config["services"][DATABASE]["image"])
    output = docker("run", "--rm", "--network=none", "--entrypoint=postgres", image, "--version", timeout_s=_COMPOSE_S)
    return output.removeprefix("postgres (PostgreSQL) ").split(maxsplit=1)[0]


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
    """Return, by file, the functions that write the parts of the backup."""
    there = set(existing_volumes(project))
    if not there:
        raise NotFoundError(f"{project.name} has no volumes to back up: it has never been up in Docker here.")
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
    with _database(project) as argv_of:
        _read(project, argv_of("pg_dump", "--format=custom", "--no-owner"), file)


def _in_container(volume: _Volume, mode: str, *arguments: str) -> list[str]:
    """Return the command line of `tar` in a container that mounts the volume and nothing else."""
    denied = ["--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    # tar prints the archive. A log driver would make the engine write a second copy to its disk.
    run = ["docker", "run", "--rm", "--interactive", "--log-driver=none", "--pull=never", *denied]
    mount = f"--volume={volume.name}:{volume.target}:{mode}"
    return [*run, mount, "--entrypoint=tar", volume.image, f"--directory={volume.target}", *arguments]


# --- restore


def restore(project: DockerProject, backup: Path, manifest: BackupManifest, show: Show, *, force: bool) -> None:
    """Put a verified backup into new volumes and a new database; with `force`, remove existing ones first.

    Raises ConflictError or InvalidError before it changes anything. After a later failure it removes the new volumes.
    """
    volumes = {volume.file: volume for volume in _volumes(project)}
    _check(project, manifest, volumes, force=force)
    project.compose("down", "--volumes", "--remove-orphans")
    try:
        # `create` makes the volumes with the right owners.
        project.compose("create", "--no-build", timeout_s=_COMPOSE_S)
        project.compose("down", "--remove-orphans")
        for part in manifest.parts:
            with show(part.file, part.size) as report, (backup / part.file).open("rb") as file:
                if part.file == DUMP:
                    _fill(project, file, report)
                else:
                    argv = _in_container(volumes[part.file], "rw", "--extract", "--preserve-permissions")
                    _write(project, argv, file, report)
    except BaseException:
        project.compose("down", "--volumes", "--remove-orphans")
        raise


def _check(project: DockerProject, manifest: BackupManifest, volumes: Mapping[str, _Volume], *, force: bool) -> None:
    if unknown := [part.file for part in manifest.parts if part.file not in (*volumes, DUMP)]:
        raise InvalidError(f"No service of {project.name} has the volumes of these parts: {', '.join(unknown)}.")
    if missing := project.missing_images():
        raise InvalidError(f"These images are missing: {', '.join(missing)}; run `bonseyes build`.")
    if (there := existing_volumes(project)) and not force:
        raise ConflictError(
            f"{project.name} has volumes already: {', '.join(there)}; --force removes them with all their data."
        )
    dumped, ours = manifest.versions.get("postgres", ""), _postgres(project)
    if _major(dumped) > _major(ours):
        raise InvalidError(f"Postgres {dumped} made the dump in this backup; Postgres {ours} of this project is older.")


def _major(version: str) -> int:
    """Return the major version; 0 when the text does not begin with a number."""
    return int(re.match(r"\d*", version)[0] or 0)  # type: ignore[index]


def _fill(project: DockerProject, file: BinaryIO, report: Callable[[int], None]) -> None:
    with _database(project) as argv_of:
        argv = argv_of("pg_restore", "--no-owner", "--exit-on-error", "--single-transaction")
        _write(project, argv, file, report)


# --- the engine


@contextmanager
def _database(project: DockerProject) -> Iterator[Callable[..., list[str]]]:
    """Run only the database; yield a function that returns the command line of one of its programs."""
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
        # If somebody has started the project meanwhile, it uses the database: leave the database running.
        if {each.service for each in project.containers() if each.is_alive} <= own:
            project.compose("down", "--remove-orphans")


def _read(project: DockerProject, argv: Sequence[str], file: BinaryIO) -> None:
    """Write the output of a program to `file`; raise UnavailableError with its error output when it fails."""
    with _running(project, argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while chunk := process.stdout.read(_CHUNK_BYTES):
            file.write(chunk)


def _write(project: DockerProject, argv: Sequence[str], file: BinaryIO, report: Callable[[int], None]) -> None:
    """Pass the content of `file` to a program; raise UnavailableError with its error output when it fails."""
    # A program that fails closes the pipe; `_running` raises its error.
    with _running(project, argv, stdin=subprocess.PIPE) as process, contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        with process.stdin as stdin:
            while chunk := file.read(_CHUNK_BYTES):
                stdin.write(chunk)
                report(file.tell())


@contextmanager
def _running(
    project: DockerProject, argv: Sequence[str], *, stdin: int = subprocess.DEVNULL, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as error_output:
        process = subprocess.Popen(
            argv, cwd=project.folder, env=dict(project.environ), stdin=stdin, stdout=stdout, stderr=error_output
        )
        try:
            yield process
        except BaseException:
            process.kill()
            process.wait()
            raise
        if process.wait() != 0:
            error_output.seek(0)
            text = error_output.read().decode(errors="replace").strip()
            raise UnavailableError(f"`{' '.join(argv[:3])}` failed: {text}")
