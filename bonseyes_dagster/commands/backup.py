"""`bonseyes backup` and `bonseyes restore`: parse the options, show progress, and print the result."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import click

from bonseyes_dagster.client.command import State, json_option, pass_state, print_json, print_note, show_bytes, size
from bonseyes_dagster.docker import backup as docker_backup
from bonseyes_dagster.docker.compose.files import COMPOSE_FILE
from bonseyes_dagster.docker.engine import check_engine
from bonseyes_dagster.docker.project import DockerProject
from bonseyes_dagster.embedded import backup as embedded_backup
from bonseyes_dagster.errors import InvalidError, UnavailableError
from bonseyes_dagster.project.backup import BackupManifest, Kind, Show, read_backup, verify, write_backup
from bonseyes_dagster.project.folder import Project, find_project

__all__ = ["backup", "restore"]

# The module for each kind of project; each has keep_down, versions, sources and restore.
_MODULES: dict[Kind, ModuleType] = {"docker": docker_backup, "embedded": embedded_backup}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--docker", "kind", flag_value="docker", help="Back up the docker project, if it has been up both ways.")
@click.option(
    "--embedded", "kind", flag_value="embedded", help="Back up the embedded project, if it has been up both ways."
)
@json_option
@pass_state
def backup(state: State, folder: Path, kind: Kind | None) -> None:
    """Write all data of the project to FOLDER, which must not exist. The project must be down.

    Unfinished runs go on at the next `bonseyes up`, here and in a project restored from the backup.
    """
    project = find_project()
    kind = kind or _only_kind(project)
    module = _MODULES[kind]
    of_kind = _of_kind(project, kind)
    with module.keep_down(of_kind) as check_down:
        manifest = write_backup(
            folder.absolute(),
            project=project.name,
            kind=kind,
            versions=module.versions(of_kind),
            sources=module.sources(of_kind),
            show=_show(state, "saving"),
            check=check_down,
        )
    _print_done(state, manifest, folder, f"{folder} holds {project.name}")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace all data that the project has now.")
@json_option
@pass_state
def restore(state: State, folder: Path, force: bool) -> None:
    """Restore the data that `bonseyes backup` wrote to FOLDER. The project must be down.

    Before it replaces anything, it verifies the digest of every file of the backup.
    """
    project = find_project()
    manifest = read_backup(folder)
    module = _MODULES[manifest.kind]
    of_kind = _of_kind(project, manifest.kind)
    with module.keep_down(of_kind) as check_down:
        verify(folder, manifest, _show(state, "verifying"))
        module.restore(of_kind, folder.absolute(), manifest, _show(state, "restoring"), force=force)
        check_down()
    _print_done(state, manifest, folder, f"{project.name} is as {manifest.project} was at {manifest.created}")


def _only_kind(project: Project) -> Kind:
    """Return the way in which the project has run here; raise InvalidError when it has run both ways."""
    in_docker, has_state = _has_volumes(project), embedded_backup.has_state(project)
    if in_docker and has_state:
        raise InvalidError(f"{project.name} has been up both embedded and in Docker; give --docker or --embedded.")
    if not in_docker and not has_state and _may_have_docker(project):
        with contextlib.suppress(UnavailableError):
            # An unknown owner of volumes is a better error than "nothing to back up".
            DockerProject(project.folder).check_name()
    return "docker" if in_docker else "embedded"


def _has_volumes(project: Project) -> bool:
    """Tell whether the project of this folder has volumes; False when Docker does not answer."""
    if not _may_have_docker(project):
        return False
    try:
        return bool(docker_backup.existing_volumes(DockerProject(project.folder)))
    except UnavailableError:
        return False


def _may_have_docker(project: Project) -> bool:
    return shutil.which("docker") is not None and (project.folder / COMPOSE_FILE).exists()


def _of_kind(project: Project, kind: Kind) -> Project | DockerProject:
    if kind == "embedded":
        return project
    check_engine()
    docker_project = DockerProject(project.folder)
    docker_project.check_name()
    return docker_project


def _show(state: State, verb: str) -> Show:
    @contextmanager
    def show(part: str, total: int | None) -> Iterator[Callable[[int], None]]:
        with show_bytes(state, f"{verb} {part}") as report:
            yield (lambda done: report(done, total)) if report else (lambda done: None)
        if not state.json:
            print_note(f"{verb} {part}: done")

    return show


def _print_done(state: State, manifest: BackupManifest, folder: Path, sentence: str) -> None:
    if state.json:
        print_json({"folder": str(folder), **manifest.to_json()})
        return
    click.echo(f"{sentence}: {len(manifest.parts)} parts, {size(manifest.size)}.")
