"""What `bonseyes up`, `down`, `status` and `logs` do where the project runs in Docker: parsing is done, this prints."""

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
    """Start the project's containers, and unless `detach`, end them on Ctrl-C; return the state of all services."""
    check_engine()
    project = DockerProject(folder, _environ(settings, port), profiles)
    project.check_name()
    project.check()
    # The access service would refuse it, too, and the gateway let nobody pass; this says why.
    check_bind(project.address()[0], project.token())
    with contextlib.ExitStack() as lock:
        lock.enter_context(lock_project(folder, alone=False))
        was_up = project.state() is not None
        if was_up and not port:
            project = _where_it_is(project)
        _provide_images(project, state, builds)
        if not was_up:
            check_port(*project.address())
            if not state.json:
                _tell_name(project)
        with (
            contextlib.nullcontext() if was_up else _ended_with_us(project, detach),
            display.show(as_json=state.json) as shown,
        ):
            project_state = _start(project, shown, stays=detach or was_up)
            lock.close()  # whoever wants the project down sees from now on that it is up
            if not detach and not was_up:
                _stay(project, shown)
    return project_state


def _tell_name(project: DockerProject) -> None:
    print_note(f"Docker calls this project {project.name}.")
    if moved := project.moved():
        print_note(
            f"Docker has volumes of {', '.join(moved)}, too: if this folder was moved and they are its own, set "
            "COMPOSE_PROJECT_NAME to that name; a line in `.env` keeps it."
        )


def _environ(settings: Settings, port: int | None) -> dict[str, str]:
    """Return what Compose is to know of the command line; what `.env` says counts where that says nothing."""
    environ = dict(os.environ)
    if port:
        environ["BONSEYES_PORT"] = str(port)
    # Otherwise the address that the settings make up for here would hide the one in `.env`.
    if settings.url and (port or settings.host != Settings().host):
        environ["BONSEYES_URL"] = settings.url
    return environ


def _where_it_is(project: DockerProject) -> DockerProject:
    """Keep the port that a running project has."""
    for container in project.containers():
        if container.published is not None and "BONSEYES_PORT" not in project.environ:
            return replace(project, environ={**project.environ, "BONSEYES_PORT": str(container.published[1])})
    return project


def _provide_images(project: DockerProject, state: State, builds: bool) -> None:
    missing = [] if builds else project.missing_images()
    if missing and sys.stdin.isatty() and not state.json:
        builds = click.confirm(f"{len(missing)} images are not built yet. Build them now?", default=True, err=True)
    if builds:
        build_images(project.folder, read_images(project.folder, project.variables), quiet=state.json, tell=print_note)
    elif missing:
        raise SettingsError(
            f"{len(missing)} images are not built: {', '.join(missing)}. "
            "`bonseyes build` builds them, and `bonseyes up --docker --build` does both."
        )


def _start(project: DockerProject, shown: display.Display, *, stays: bool) -> ProjectState:
    """Start everything; when that fails tell where to look, or unless all that there is `stays`, what is to be seen."""
    try:
        project_state = project.start(shown.update, START_S)
        if project_state is not None:
            return project_state
        message = f"Not everything got healthy in {START_S:.0f} s."
    except EngineRefusedCommandError as error:
        message = error.message
    found = project.state()
    ill = [each for each in found.services if each.state not in ("healthy", "waiting")] if found is not None else []
    sick = [each for each in ill if each.state != "starting"] or ill
    hint = "`bonseyes logs SERVICE` tells more." if stays else project.last_words([each.name for each in sick])
    raise UnavailableError(f"{message}\n{hint}", detail={each.name: each.reason or each.state for each in sick})


@contextlib.contextmanager
def _ended_with_us(project: DockerProject, detach: bool) -> Iterator[None]:
    """End the project when the block is interrupted; without `detach` however it ends."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    former = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    is_over = not detach
    try:
        yield
    except KeyboardInterrupt:
        is_over = True
        raise
    finally:
        if is_over:
            _end(project)
        for number, handler in former.items():
            signal.signal(number, handler)


def _end(project: DockerProject) -> None:
    """Stop politely; whoever asks twice has no more patience."""
    with contextlib.suppress(OSError):
        print_note("Stopping.")
    try:
        project.stop()
    except KeyboardInterrupt:
        project.stop(at_once=True)


def _stay(project: DockerProject, shown: display.Display) -> None:
    """Show how the services are until interrupted, or until somebody else has ended them."""
    watch = project.watch()
    while True:
        time.sleep(_LOOK_S)
        project_state = watch.look()
        if all(service.state in ("waiting", "stopped") for service in project_state.services):
            return
        # A closed pipe or terminal must not decide over what runs.
        with contextlib.suppress(OSError):
            shown.update(project_state)


def bring_down(folder: Path, *, with_volumes: bool, is_sure: bool) -> bool:
    """End the project's containers and remove them; tell whether there were any.

    With `with_volumes` everything that was made is lost; it is said what, and asked before unless `is_sure`.
    """
    project = DockerProject(folder)
    if with_volumes:
        project.check_name()
    if with_volumes and not is_sure:
        print_note(f"All runs and artifacts would be lost for ever, in: {', '.join(project.volumes())}")
        if not sys.stdin.isatty():
            raise SettingsError("Nobody is there to be asked: --yes says that this is meant.")
        click.confirm("Remove them?", abort=True, err=True)
    return project.stop(with_volumes=with_volumes)


def read_project_state(folder: Path) -> ProjectState | None:
    """Return how the services are, None when the project is not up in Docker."""
    return DockerProject(folder).state()


def print_logs(folder: Path, service: str | None, *, follows: bool, lines: int) -> NoReturn:
    """Print the logs of all services, or of one, and exit; what the services say steers no terminal."""
    project = DockerProject(folder)
    there = [container.service for container in project.containers()]
    if service is not None and service not in there:
        raise NotFoundError(f"There is no log of {service!r}; there is: {', '.join(there)}.")
    argv = project.logs(service, lines=lines, follows=follows)
    with subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE) as process:
        try:
            write_bytes(line.replace(CLEAR_LINE.encode(), b"") for line in process.stdout or ())
        except BaseException:
            process.terminate()
            raise
    sys.exit(process.returncode)
