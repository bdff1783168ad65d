"""The commands `bonseyes up`, `down`, `status` and `logs` for a docker project; project.py parses their options."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from bonseyes_dagster.client.command import State, print_note, write_bytes
from bonseyes_dagster.docker.build import build_images
from bonseyes_dagster.docker.compose.files import read_images
from bonseyes_dagster.docker.engine import EngineRefusedCommandError, check_engine
from bonseyes_dagster.docker.project import CLEAR_LINE, START_S, DockerProject
from bonseyes_dagster.docker.project_lock import lock_project
from bonseyes_dagster.errors import NotFoundError, SettingsError, UnavailableError
from bonseyes_dagster.gateway.access import check_bind
from bonseyes_dagster.project import display
from bonseyes_dagster.project.port import check_port
from bonseyes_dagster.project.state import ProjectState
from bonseyes_dagster.settings import Settings

__all__ = ["bring_down", "bring_up", "print_logs", "read_project_state"]

_LOOK_S = 5.0


def bring_up(
    folder: Path,
    state: State,
    settings: Settings,
    *,
    port: int | None,
    detach: bool,
    builds: bool,
    profiles: tuple[str, ...],
) -> ProjectState:
    """Start the project's containers and return its state; without `detach`, end them on Ctrl-C."""
    check_engine()
    project = DockerProject(folder, _environ(settings, port), profiles)
    project.check_name()
    project.check()
    # The access service would refuse this, too, and the gateway would then refuse every request without a reason.
    check_bind(project.address()[0], project.token())
    with contextlib.ExitStack() as lock:
        lock.enter_context(lock_project(folder, exclusive=False))
        was_up = project.state() is not None
        if was_up and not port:
            project = _with_published_port(project)
        _provide_images(project, state, builds)
        if not was_up:
            check_port(*project.address())
            if not state.json:
                _print_name(project)
        with (
            contextlib.nullcontext() if was_up else _stop_at_the_end(project, detach),
            display.show(as_json=state.json) as shown,
        ):
            project_state = _start(project, shown, stays=detach or was_up)
            lock.close()  # from now on, a backup sees by the containers that the project is up
            if not detach and not was_up:
                _show_until_stopped(project, shown)
    return project_state


def _print_name(project: DockerProject) -> None:
    print_note(f"Docker calls this project {project.name}.")
    if names := project.former_names():
        print_note(
            f"Docker also has volumes of {', '.join(names)}. If this folder was moved and they belong to it, set "
            "COMPOSE_PROJECT_NAME to that name; a line in `.env` keeps it."
        )


def _environ(settings: Settings, port: int | None) -> dict[str, str]:
    """Return the environment for Compose, with the options of the command line; `.env` counts below it."""
    environ = dict(os.environ)
    if port:
        environ["BONSEYES_PORT"] = str(port)
    # Set the URL only if the user gave a port or a host: a default would hide the URL in `.env`.
    if settings.url and (port or settings.host != Settings().host):
        environ["BONSEYES_URL"] = settings.url
    return environ


def _with_published_port(project: DockerProject) -> DockerProject:
    """Return the project with the port that its running gateway has."""
    for container in project.containers():
        if container.published is not None and "BONSEYES_PORT" not in project.environ:
            return replace(project, environ={**project.environ, "BONSEYES_PORT": str(container.published[1])})
    return project


def _provide_images(project: DockerProject, state: State, builds: bool) -> None:
    missing = [] if builds else project.missing_images()
    if missing and sys.stdin.isatty() and not state.json:
        builds = click.confirm(f"{len(missing)} images are not built yet. Build them now?", default=True, err=True)
    if builds:
        build_images(
            project.folder, read_images(project.folder, project.variables), quiet=state.json, report=print_note
        )
    elif missing:
        raise SettingsError(
            f"{len(missing)} images are not built: {', '.join(missing)}. "
            "Run `bonseyes build`, or `bonseyes up --docker --build`."
        )


def _start(project: DockerProject, shown: display.Display, *, stays: bool) -> ProjectState:
    """Start all services; an error has the last log lines, or if the containers stay, the command that shows them."""
    try:
        project_state = project.start(shown.update, START_S)
        if project_state is not None:
            return project_state
        message = f"Some services did not get healthy within {START_S:.0f} s."
    except EngineRefusedCommandError as error:
        message = error.message
    found = project.state()
    candidates = (
        [each for each in found.services if each.state not in ("healthy", "waiting")] if found is not None else []
    )
    failed = [each for each in candidates if each.state != "starting"] or candidates
    hint = "`bonseyes logs SERVICE` shows why." if stays else project.last_log_lines([s.name for s in failed])
    raise UnavailableError(f"{message}\n{hint}", detail={each.name: each.reason or each.state for each in failed})


@contextlib.contextmanager
def _stop_at_the_end(project: DockerProject, detach: bool) -> Iterator[None]:
    """Stop the project when the block is interrupted; without `detach`, stop it in any case."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    former = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    must_stop = not detach
    try:
        yield
    except KeyboardInterrupt:
        must_stop = True
        raise
    finally:
        if must_stop:
            _stop(project)
        for number, handler in former.items():
            signal.signal(number, handler)


def _stop(project: DockerProject) -> None:
    """Stop the project; on a second Ctrl-C, kill it."""
    with contextlib.suppress(OSError):
        print_note("Stopping.")
    try:
        project.stop()
    except KeyboardInterrupt:
        project.stop(at_once=True)


def _show_until_stopped(project: DockerProject, shown: display.Display) -> None:
    """Show the state of the services until Ctrl-C, or until another command has stopped them."""
    watch = project.watch()
    while True:
        time.sleep(_LOOK_S)
        project_state = watch.look()
        if all(service.state in ("waiting", "stopped") for service in project_state.services):
            return
        # A closed pipe or terminal must not end the project.
        with contextlib.suppress(OSError):
            shown.update(project_state)


def bring_down(folder: Path, *, with_volumes: bool, is_sure: bool) -> bool:
    """Stop and remove the project's containers; tell whether there were any.

    With `with_volumes`, all data is lost; unless `is_sure`, it lists the volumes and asks first.
    """
    project = DockerProject(folder)
    if with_volumes:
        project.check_name()
    if with_volumes and not is_sure:
        print_note(f"All runs and artifacts would be lost, with these volumes: {', '.join(project.volumes())}.")
        if not sys.stdin.isatty():
            raise SettingsError("There is no terminal to confirm on; give --yes to remove the volumes.")
        click.confirm("Remove them?", abort=True, err=True)
    return project.stop(with_volumes=with_volumes)


def read_project_state(folder: Path) -> ProjectState | None:
    """Return the state of the project; None when it is not up in Docker."""
    return DockerProject(folder).state()


def print_logs(folder: Path, service: str | None, *, follows: bool, lines: int) -> NoReturn:
    """Print the logs of all services, or of one, and exit; on a terminal, escape control characters."""
    project = DockerProject(folder)
    there = [container.service for container in project.containers()]
    if service is not None and service not in there:
        raise NotFoundError(f"There is no log of {service!r}; the services are: {', '.join(there) or 'none'}.")
    argv = project.logs(service, lines=lines, follows=follows)
    with subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE) as process:
        try:
            write_bytes(line.replace(CLEAR_LINE.encode(), b"") for line in process.stdout or ())
        except BaseException:
            process.terminate()
            raise
    sys.exit(process.returncode)
