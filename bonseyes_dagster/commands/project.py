"""The commands that run a project on this machine: `bonseyes up`, `down`, `status`, `logs` and `tool run`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from bonseyes_dagster.client import Project as ProjectClient
from bonseyes_dagster.client.command import State, escape, json_option, pass_state, print_json, suggestion
from bonseyes_dagster.commands import in_docker as docker_commands
from bonseyes_dagster.description import load_description
from bonseyes_dagster.docker.project import is_in_docker, is_up_in_docker
from bonseyes_dagster.embedded import background
from bonseyes_dagster.embedded.logs import follow, tail
from bonseyes_dagster.errors import BonseyesError, NotFoundError, SettingsError, UnavailableError
from bonseyes_dagster.project import display
from bonseyes_dagster.project.environment import chosen_environ, read_env_file
from bonseyes_dagster.project.folder import Project, find_project
from bonseyes_dagster.project.state import ProjectState, read_project_state
from bonseyes_dagster.settings import Settings

__all__ = ["down", "logs", "status", "tool_run", "up"]

port_option = click.option(
    "--port", type=click.IntRange(1, 65535), help="The port to listen at.  [env: BONSEYES_PORT; 8000]"
)


@click.command()
@port_option
@click.option("--detach", "-d", is_flag=True, help="Return when all services are healthy, and leave them running.")
@click.option("--docker", "in_docker", is_flag=True, help="Run the project as the containers of docker-compose.yml.")
@click.option("--build", "builds", is_flag=True, help="With --docker: build the images first.")
@click.option(
    "--profile",
    "profiles",
    metavar="NAME",
    multiple=True,
    help="With --docker: merge docker-compose.NAME.yml over docker-compose.yml, for example `gpu`.",
)
@json_option
@pass_state
def up(state: State, port: int | None, detach: bool, in_docker: bool, builds: bool, profiles: tuple[str, ...]) -> None:
    """Run the project on this machine until Ctrl-C (or `bonseyes down`)."""
    project = find_project()
    if not in_docker:  # Compose reads the file itself
        read_env_file(project.folder)
    settings = _settings(state, port)
    running = read_project_state(project)
    if builds and not in_docker:
        raise click.UsageError("--build needs --docker.")
    if profiles and not in_docker:
        raise click.UsageError("--profile needs --docker.")
    if in_docker:
        _up_in_docker(project, settings, state, port=port, detach=detach, builds=builds, profiles=profiles)
    elif is_up_in_docker(project.folder):
        raise SettingsError(
            f"{project.name} is up in Docker; `bonseyes down` stops it, `bonseyes up --docker` updates it."
        )
    elif running is not None:
        _wait_for_other(project, state)
    elif detach:
        _up_in_background(project, settings, state)
    else:
        _up_in_foreground(project, settings, state)


def _up_in_docker(project: Project, settings: Settings, state: State, *, detach: bool, **options: Any) -> None:
    if read_project_state(project) is not None:
        raise SettingsError(f"{project.name} is up embedded; `bonseyes down` stops it.")
    project_state = docker_commands.bring_up(project.folder, state, settings, detach=detach, **options)
    if detach and not state.json:  # the display has printed the JSON
        _print_up(project_state, state, "It keeps running; `bonseyes down` stops it.")


def _settings(state: State, port: int | None) -> Settings:
    """Return the settings with the URL of this project, which may differ from the URL for the client."""
    settings = state.settings
    if port:
        settings = replace(settings, port=port, url="")
    host = settings.host.strip("[]")
    if settings.url or host in ("localhost", "0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return settings
    return replace(
        settings, url=f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
    )


def _wait_for_other(project: Project, state: State) -> None:
    project_state = background.wait_healthy(project, lambda _: None)
    _print_up(_healthy(project, project_state), state, f"{project.name} is already up.")


def _up_in_background(project: Project, settings: Settings, state: State) -> None:
    supervisor = background.start_supervisor(project, settings)
    try:
        with display.show() if not state.json else contextlib.nullcontext() as shown:
            on_state = shown.update if shown is not None else lambda _: None
            project_state = background.wait_healthy(project, on_state, supervisor=supervisor)
    except KeyboardInterrupt:
        background.bring_down(project)
        raise
    _print_up(_healthy(project, project_state), state, "It keeps running; `bonseyes down` stops it.")


def _up_in_foreground(project: Project, settings: Settings, state: State) -> None:
    from bonseyes_dagster.embedded.supervisor import (
        AlreadyUpError,
        Supervisor,
    )  # a late import keeps other commands fast

    supervisor = Supervisor(project, settings)
    try:
        supervisor.check()
    except AlreadyUpError:
        _wait_for_other(project, state)
        return
    with display.show(as_json=state.json) as shown:

        def update(project_state: ProjectState) -> None:
            # A closed pipe or terminal must not end the project.
            with contextlib.suppress(OSError):
                shown.update(project_state)

        asyncio.run(supervisor.run(update))


def _healthy(project: Project, project_state: ProjectState | None) -> ProjectState:
    if project_state is not None and not project_state.broken:
        return project_state
    if project_state is not None:
        raise UnavailableError(
            f"The code of {', '.join(service.name for service in project_state.broken)} cannot be loaded; "
            f"correct it, and its container loads it again. All other services are healthy at {project_state.url}.",
            detail={service.name: service.reason for service in project_state.broken},
        )
    latest = read_project_state(project)
    unhealthy = [s for s in latest.services if s.state != "healthy"] if latest is not None else []
    raise UnavailableError(
        f"Some services did not get healthy within {background.START_S:.0f} s; `bonseyes logs SERVICE` shows why.",
        detail={service.name: service.reason or service.state for service in unhealthy},
    )


def _print_up(project_state: ProjectState, state: State, sentence: str) -> None:
    if state.json:
        print_json(project_state.to_json())
        return
    click.echo(f"{sentence}\n\n  the project    {project_state.url}/")
    if project_state.has_dagster:
        click.echo(f"  Dagster        {project_state.url}/dagster/")
    click.echo(f"  TensorBoard    {project_state.url}/containers/visualization/")


@click.command()
@click.option("--volumes", is_flag=True, help="In Docker: also remove all data, with the volumes.")
@click.option("--yes", "-y", is_flag=True, help="With --volumes: do not ask.")
def down(volumes: bool, yes: bool) -> None:
    """Stop the project, and all processes or containers left of it."""
    project = find_project()
    was_up = background.bring_down(project)
    if volumes or is_in_docker(project.folder):
        was_up |= docker_commands.bring_down(project.folder, with_volumes=volumes, is_sure=yes)
    click.echo(f"{project.name} is down." if was_up else f"{project.name} was not up.")


@click.command()
@json_option
@pass_state
def status(state: State) -> int:
    """Show the state of each service. Exits with 5 when the project is not up or a service is not healthy."""
    project = find_project()
    read_env_file(project.folder)
    project_state = read_project_state(project)
    if project_state is None and is_up_in_docker(project.folder):
        project_state = docker_commands.read_project_state(project.folder)
    if project_state is None:
        raise UnavailableError(f"{project.name} is not up; `bonseyes up` starts it.")
    changed = _changed_code(project_state, state)
    if state.json:
        print_json({**project_state.to_json(), "code_changed": changed})
    else:
        click.echo("\n".join(display.lines(project_state)))
        for name in changed:
            click.echo(f"The code of {name} changed since it started; restart the container to use it.")
    return 0 if project_state.is_healthy else 5


def _changed_code(project_state: ProjectState, state: State) -> list[str]:
    """Return the containers whose code changed since they started; an empty list if the project does not answer."""
    project = ProjectClient(project_state.url, state.token or state.settings.token or None, retry_s=0)
    try:
        return sorted(name for name, each in project.containers().items() if each and each.code_changed)
    except BonseyesError:
        return []


def _complete_service(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    try:
        names = _logs_of(find_project())
    except SettingsError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _logs_of(project: Project) -> dict[str, Path]:
    return {file.name.removesuffix(".log"): file for file in sorted(project.logs.glob("*.log"))}


@click.command()
@click.argument("service", required=False, shell_complete=_complete_service)
@click.option("--follow", "-f", "follows", is_flag=True, help="Go on until the project is down or Ctrl-C.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="The number of lines of each log to begin with.",
)
def logs(service: str | None, follows: bool, lines: int) -> None:
    """Print the logs of all services, or of SERVICE."""
    project = find_project()
    if read_project_state(project) is None and is_in_docker(project.folder):
        docker_commands.print_logs(project.folder, service, follows=follows, lines=lines)
    files = _logs_of(project)
    if service is not None:
        if service not in files:
            there = ", ".join(files) or "none"
            raise NotFoundError(
                f"There is no log of {service!r}; the services are: {there}.{suggestion(service, files)}"
            )
        files = {service: files[service]}
    prefix = service is None
    for name, file in files.items():
        for line in tail(file, lines):
            _print_line(name, line, prefix)
    if follows:
        for name, line in follow(files, is_over=lambda: read_project_state(project) is None):
            _print_line(name, line, prefix)


def _print_line(name: str, line: bytes, prefix: bool) -> None:
    text = line.decode(errors="replace")
    text = f"{name:<20} {text}" if prefix else text
    click.echo(escape(text) if sys.stdout.isatty() else text)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="The port to listen at.")
def tool_run(folder: Path, port: int) -> None:
    """Run only the tool in FOLDER, in the foreground, on 127.0.0.1.

    Its artifacts lie in .bonseyes/tools/ of the project, or of the working folder. While the project is up,
    artifacts of its containers can be parameters.
    """
    description = load_description(folder)
    project = _project_around(folder)
    read_env_file(project.folder)
    volume = project.state_folder / "tools" / folder.absolute().name
    project.make_folders(volume)
    chosen = chosen_environ(os.environ, Settings.from_environ().pass_env)
    # The tool listens at its own port, and gets no other setting of the gateway.
    chosen |= {name: os.environ[name] for name in ("BONSEYES_ALLOWED_HOSTS",) if name in os.environ}
    environ = {**chosen, "BONSEYES_TOOL": str(folder.absolute()), "BONSEYES_VOLUME": str(volume)}
    environ.setdefault("BONSEYES_CONTAINER", folder.absolute().name)
    if read_project_state(project) is not None:
        environ.setdefault("BONSEYES_ADDRESSES", str(project.addresses))
    click.echo(f"{description.name}: http://127.0.0.1:{port}/  (artifacts in {volume}; Ctrl-C ends it)")
    sys.stdout.flush()
    _replace_process(["-P", "-m", "bonseyes_dagster.tool", "--bind", f"127.0.0.1:{port}"], environ)


def _project_around(folder: Path) -> Project:
    try:
        return find_project(folder)
    except SettingsError:
        return Project(Path.cwd())


def _replace_process(arguments: Sequence[str], environ: dict[str, str]) -> None:
    os.execve(sys.executable, [sys.executable, *arguments], environ)  # noqa: S606 - no shell is wanted
