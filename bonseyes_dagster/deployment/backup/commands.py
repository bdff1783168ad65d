"""`bonseyes backup` and `bonseyes restore`: parsing, progress, and what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from bonseyes_dagster.client.command import State, json_option, pass_state, print_json, print_note, show_bytes, size
from bonseyes_dagster.deployment.backup import embedded
from bonseyes_dagster.deployment.backup.folder import Manifest, Show, read_backup, verify, write_backup
from bonseyes_dagster.local.project import find_project

__all__ = ["backup", "restore"]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@json_option
@pass_state
def backup(state: State, folder: Path) -> None:
    """Write all that the project keeps to FOLDER, which must not exist. The project must be down.

    Runs that were under way go on at the next `bonseyes up`, here and where the backup is restored.
    """
    project = find_project()
    with embedded.still(project):
        manifest = write_backup(
            folder.absolute(),
            project=project.name,
            kind="embedded",
            versions=embedded.versions(project),
            sources=embedded.sources(project),
            show=_show(state, "saving"),
        )
    _print_done(state, manifest, folder, f"{folder} holds {project.name}")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace all that the project keeps now.")
@json_option
@pass_state
def restore(state: State, folder: Path, force: bool) -> None:
    """Put back what `bonseyes backup` wrote to FOLDER. The project must be down.

    Nothing is replaced before every file of the backup was verified by its digest and unpacked.
    """
    project = find_project()
    manifest = read_backup(folder)
    with embedded.still(project):
        verify(folder, manifest, _show(state, "verifying"))
        embedded.restore(project, folder, manifest, _show(state, "restoring"), force=force)
    _print_done(state, manifest, folder, f"{project.name} is as {manifest.project} was at {manifest.created}")


def _show(state: State, verb: str) -> Show:
    @contextmanager
    def show(part: str, total: int | None) -> Iterator[Callable[[int], None]]:
        with show_bytes(state, f"{verb} {part}") as tell:
            yield (lambda done: tell(done, total)) if tell else (lambda done: None)
        if not state.json:
            print_note(f"{verb} {part}: done")

    return show


def _print_done(state: State, manifest: Manifest, folder: Path, sentence: str) -> None:
    if state.json:
        print_json({"folder": str(folder), **manifest.to_json()})
        return
    click.echo(f"{sentence}: {len(manifest.parts)} parts, {size(manifest.size)}.")
