"""The process that runs a whole project on this machine, and leaves no process behind at its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection

import psutil

from bonseyes_dagster.embedded import leftovers
from bonseyes_dagster.embedded.fork_server import ForkServer
from bonseyes_dagster.embedded.guard import Guard
from bonseyes_dagster.embedded.logs import RotatingLog
from bonseyes_dagster.embedded.preparation import cached_pipelines, prepare
from bonseyes_dagster.embedded.services import Service, Services
from bonseyes_dagster.embedded.socket_folder import SocketFolder
from bonseyes_dagster.embedded.unit import Unit
from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.execution.storage.instance import write_instance, write_workspace
from bonseyes_dagster.gateway.access import rules_from_settings
from bonseyes_dagster.project.folder import Project
from bonseyes_dagster.project.port import check_port
from bonseyes_dagster.project.service_names import CODE, CONTAINER_KINDS, DAEMON, RUNS
from bonseyes_dagster.project.state import Lock, Phase, ProjectState, write_json
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system.prctl import adopt_orphans

__all__ = ["AlreadyUpError", "Supervisor"]

# A tool's worker gives a running artifact 10 s before it kills it.
STOP_S = 15.0
SWEEP_S = 10.0


class AlreadyUpError(BonseyesError):
    """Another supervisor runs this project."""


class Supervisor:
    """Runs the services of one project."""

    def __init__(self, project: Project, settings: Settings) -> None:
        self._project = project
        self._settings = settings
        self._on_change: Callable[[ProjectState], None] = lambda _: None
        self._lock = Lock(project.lock)
        self._sockets = SocketFolder(project)
        self._process_start = psutil.Process().create_time()
        # The mark differs for each supervisor, so that the late guard of an earlier one does not kill our processes.
        supervisor = f"{os.getpid()}-{self._process_start:.2f}"
        self._services = Services(project, settings, self._sockets, leftovers.mark_of(project, supervisor))
        self._guard = Guard(self._lock.give_back, lambda: self._clean_up_after(supervisor))
        self._units: dict[str, Unit] = {}
        self._containers: list[str] = []
        self._fork_server: ForkServer | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._phase: Phase = "starting"
        self._seconds: float | None = None
        self._begun_s = time.monotonic()
        self._stop = asyncio.Event()

    def check(self) -> None:
        """Take the project's lock, and find problems before any service starts.

        It forks, so call it before there are threads. Raises AlreadyUpError; SettingsError for a port in use, an open
        bind without a token, a wrong tool.
        """
        rules_from_settings(self._settings, self._settings.host, self._settings.port)
        self._project.tools()
        self._project.prepare()
        if not self._lock.take():
            raise AlreadyUpError(f"{self._project.name} is already up.")
        try:
            leftovers.kill(leftovers.find_leftovers(self._project))
            check_port(self._settings.host, self._settings.port)
            self._sockets.make()
            self._guard.start()
        except BaseException:
            self._lock.give_back()
            raise

    async def run(self, on_change: Callable[[ProjectState], None] | None = None) -> None:
        """Run all services until a signal; at the return, none of their processes is left.

        `on_change` gets each new state.
        """
        self._on_change = on_change or self._on_change
        adopt_orphans()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        try:
            await self._start()
            sweeping = asyncio.create_task(self._reap_regularly())
            await self._stop.wait()
            sweeping.cancel()
        finally:
            await self._end()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _clean_up_after(self, supervisor: str) -> None:
        """Kill the services; the guard calls this when the supervisor was killed."""
        leftovers.kill(leftovers.find_leftovers(self._project, supervisor))

    def _on_signal(self) -> None:
        """Stop on the first signal; kill all processes on the second."""
        if self._stop.is_set():
            self._kill_at_once()
        self._stop.set()

    def _kill_at_once(self) -> None:
        for process in _below(psutil.Process()):
            with contextlib.suppress(psutil.Error):
                if process.pid != self._guard.pid:
                    process.kill()

    async def _start(self) -> None:
        project = self._project
        write_instance(project.dagster_home, project=project.folder)
        write_workspace(project.dagster_home, socket=self._sockets.path(CODE))
        names = cached_pipelines(project)
        preparing = None if names is not None else asyncio.create_task(prepare(project, self._settings.pass_env))
        others = [*self._services.fixed(), *self._services.tools()]
        dagster = self._services.dagster() if project.definitions.exists() else []
        pipelines = self._services.pipelines(names or [])
        if dagster:
            self._fork_server = self._services.fork_server()
        # The gateway starts first, to hold its port; then the services with the longest start.
        self._start_services(self._services.gateway(), *dagster, *pipelines, *others)
        if preparing is not None:
            # Dagster's services wait for the storage by themselves (wait_for_file.py); a uWSGI server cannot.
            self._start_services(*self._services.pipelines(await self._unless_stopped(preparing)))
        self._phase = "up"
        self._publish_state()

    async def _unless_stopped(self, preparing: asyncio.Task[list[str]]) -> list[str]:
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait({preparing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if preparing.done():
            return preparing.result()
        preparing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await preparing
        return []

    def _start_services(self, *services: Service) -> None:
        self._containers += [service.name for service in services if service.kind in CONTAINER_KINDS]
        self._write_addresses()
        for service in services:
            self._start_service(service)

    def _start_service(self, service: Service) -> None:
        if service.kind in CONTAINER_KINDS:
            self._project.volume(service.name).mkdir(mode=0o700, exist_ok=True)
        unit = Unit(
            service,
            folder=self._project.folder,
            log=RotatingLog(self._project.logs / f"{service.name}.log"),
            url=f"{self._settings.gateway_url}{service.path}" if service.path else None,
            on_change=self._publish_state,
            is_healthy=lambda name: self._units[name].service_state.state == "healthy",
            fork_server=lambda: self._fork_server,
        )
        self._units[service.name] = unit
        self._tasks.append(asyncio.create_task(unit.run(), name=service.name))

    def _write_addresses(self) -> None:
        write_json(self._project.addresses, self._services.addresses(self._containers))

    async def _reap_regularly(self) -> None:
        """Reap adopted orphans regularly, so that none stays a zombie."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self._reap_orphans()

    def _reap_orphans(self) -> None:
        fork_server = self._fork_server.pid if self._fork_server is not None else None
        own = {self._guard.pid, fork_server, *(unit.pid for unit in self._units.values())}
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.Error, ChildProcessError):
                if process.pid not in own and process.status() == psutil.STATUS_ZOMBIE:
                    os.waitpid(process.pid, os.WNOHANG)

    async def _end(self) -> None:
        self._phase = "stopping"
        self._publish_state()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._close_fork_server()
        # First end the services that launch runs, and kill the runs. If the tools ended first, the runs would fail; a
        # killed run is resumed at the next start, as after a crash.
        launching = {name: unit for name, unit in self._units.items() if name in (RUNS, DAEMON)}
        await asyncio.gather(*(unit.end(STOP_S) for unit in launching.values()))
        await self._kill_descendants(spared=self._units.keys() - launching.keys())
        await asyncio.gather(*(unit.end(STOP_S) for unit in self._units.values()))
        await self._kill_descendants()
        leftovers.kill(leftovers.find_leftovers(self._project))
        for unit in self._units.values():
            unit.mark_stopped()
        self._project.state_file.unlink(missing_ok=True)
        self._project.addresses.unlink(missing_ok=True)
        self._sockets.remove()
        self._guard.dismiss()
        self._lock.give_back()

    async def _kill_descendants(self, spared: Collection[str] = ()) -> None:
        """Kill the processes that outlived their service; all of them are our descendants, because we adopt orphans."""
        spared_pids = {self._guard.pid, *(unit.pid for name, unit in self._units.items() if name in spared)}
        for _ in range(50):
            self._reap_orphans()
            others = [child for child in psutil.Process().children() if child.pid not in spared_pids]
            alive = [process for child in others for process in (child, *_below(child))]
            if not alive:
                return
            for process in alive:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            await asyncio.sleep(0.1)

    def _close_fork_server(self) -> None:
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None

    def _publish_state(self) -> None:
        services = tuple(unit.service_state for unit in self._units.values())
        if self._seconds is None and self._phase == "up" and all(s.is_settled for s in services):
            self._seconds = round(time.monotonic() - self._begun_s, 2)
            self._close_fork_server()
        project_state = ProjectState(
            pid=os.getpid(),
            process_start=self._process_start,
            phase=self._phase,
            url=self._settings.gateway_url,
            seconds=self._seconds,
            services=services,
        )
        write_json(self._project.state_file, project_state.to_json())
        self._on_change(project_state)


def _below(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []
