"""`bonseyes build`: parse the options, and print the images; docker/build.py does the work."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from bonseyes_dagster.client.command import State, json_option, pass_state, print_json, print_note, print_table, size
from bonseyes_dagster.docker.build import build_images, select_images
from bonseyes_dagster.docker.compose.files import read_images
from bonseyes_dagster.docker.engine import check_engine
from bonseyes_dagster.project.folder import find_project

__all__ = ["build"]


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--no-cache", is_flag=True, help="Build every layer anew.")
@click.option("--pull", is_flag=True, help="Look for newer base images first.")
@click.option("--quiet", "-q", is_flag=True, help="Print the engine's output only when an image fails.")
@json_option
@pass_state
def build(state: State, names: tuple[str, ...], no_cache: bool, pull: bool, quiet: bool) -> None:
    """Build the project's container images: all of them, or NAMEs and their base images."""
    project = find_project()
    images = select_images(read_images(project.folder), names)
    check_engine()
    started = time.monotonic()
    built = build_images(
        project.folder, images, options=["--no-cache"] if no_cache else [], pull=pull, quiet=quiet, report=print_note
    )
    if state.json:
        print_json([asdict(image) for image in built])
        return
    rows = [(image.reference, size(image.size_bytes), "new" if image.is_new else "as before") for image in built]
    print_table(("IMAGE", "SIZE", ""), rows)
    count = "1 image" if len(built) == 1 else f"{len(built)} images"
    print_note(f"{count} in {time.monotonic() - started:.1f} s")
