"""A process that has Dagster and the project's definitions loaded, and forks a ready process for each run.

`python -m bonseyes_dagster.orchestration.run_server -f definitions.py --working-directory DIR [--socket PATH]`, with
DAGSTER_HOME set; one for each code location. launcher.py asks it to start, stop and look at runs (run_protocol.py).

It is one thread around one selector, because it forks. Runs are its children, but they do not depend on it: each keeps
a locked record (run_record.py). A server that comes back adopts the runs that live, and brings those that do not on
their way (run_recovery.py); one that finds its code changed replaces itself by `exec` and keeps socket and children.

SIGTERM, SIGINT: stop; runs go on and are adopted later, or with `--on-stop terminate` get SIGTERM too. SIGHUP: reload.
"""

import argparse
import fcntl
import json
import logging
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.storage.tags import GRPC_INFO_TAG

from bonseyes_dagster.orchestration.compute_logs import route_streams
from bonseyes_dagster.orchestration.run_protocol import (
    PROTOCOL_VERSION,
    default_socket,
    records_folder,
    socket_address,
    storage_id,
)
from bonseyes_dagster.orchestration.run_record import read_record, read_records, remove_record
from bonseyes_dagster.orchestration.run_recovery import recover_run
from bonseyes_dagster.orchestration.run_worker import STARTED, WAIT_SIGNALS, open_worker_instance, work
from bonseyes_dagster.orchestration.source_watch import SourceWatch
from bonseyes_dagster.orchestration.warm_definitions import Target, load_target, warm_up

__all__ = ["RunServer", "main"]

logger = logging.getLogger("bonseyes.run_server")

WATCH_S = 1.0
SWEEP_S = 15.0
# A launcher reports a run as starting before it asks for its process: leave it that long.
ORPHAN_AGE_S = 30.0
REQUEST_LIMIT_BYTES = 65536


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What the command line says."""

    target: Target
    socket: Path
    grace_s: float
    stops_runs: bool
    logs: Path | None


class _Process:
    """A run's process as the server sees it: a child, or one adopted from an earlier server."""

    def __init__(self, run_id: str, pid: int) -> None:
        self.run_id = run_id
        self.pid = pid
        self.kill_at: float | None = None
        # Readable when the process ends, also of one that is no child; and no other process can take its place.
        self.descriptor = os.pidfd_open(pid)

    def send(self, number: signal.Signals) -> None:
        try:
            signal.pidfd_send_signal(self.descriptor, number)
        except ProcessLookupError:
            logger.debug("run %s has ended before its signal", self.run_id)

    def kill_group(self) -> None:
        """Kill what it has started too: nothing of it may work on beside its successor."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            self.send(signal.SIGKILL)

    def reap(self) -> str:
        """Say how it ended, and let its group and its descriptor go."""
        try:
            status = os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            # A zombie still has its pid, so this cannot be a stranger's group.
            self.kill_group()
            os.waitid(os.P_PIDFD, self.descriptor, os.WEXITED)
        except ChildProcessError:  # adopted: its end is seen, its exit code is not
            status = None
        os.close(self.descriptor)
        if status is None or status.si_code == os.CLD_EXITED:
            return f"exited with code {status.si_status}" if status else "ended"
        return f"was killed by signal {status.si_status}"


class _Client:
    """A connection with one request."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""

    def answer(self, **body: Any) -> None:
        try:
            self.connection.sendall(json.dumps(body).encode() + b"\n")
        except OSError:
            logger.info("a launcher has gone before its answer")
        self.connection.close()


@dataclass(slots=True)
class _Launch:
    """A child that has not said yet whether the run is its own."""

    process: _Process
    client: _Client | None
    reader: int


class RunServer:
    """The loop, and what it knows of runs."""

    def __init__(self, options: ServerOptions, listener: socket.socket, instance: DagsterInstance) -> None:
        self._options = options
        self._folder = records_folder(options.socket)
        self._listener = listener
        self._instance = instance
        self._worker_instance = open_worker_instance()
        self._storage_id = storage_id(instance)
        self._processes: dict[str, _Process] = {}
        self._launches: dict[int, _Launch] = {}
        self._clients: set[_Client] = set()
        self._signals: set[int] = set()
        self._load_error: str | None = None
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # --- its life

    def load(self) -> None:
        """Load the code; what cannot be loaded is reported by each run, and again tried when it changes."""
        self._load_error = load_target(self._options.target)
        if self._load_error:
            logger.error("the definitions cannot be loaded:\n%s", self._load_error)
        _touch(self._worker_instance)
        self._watch = SourceWatch(Path(self._options.target.working_directory))
        warm_up()

    def serve(self) -> bool:
        """Serve until told to stop (False) or to start anew with new code (True)."""
        self._prepare()
        self._adopt()
        swept = watched = time.monotonic()
        while True:
            self._wait()
            now = time.monotonic()
            if self._signals & {signal.SIGTERM, signal.SIGINT}:
                self._stop()
                return False
            if now - watched >= WATCH_S:
                watched = now
                if self._watch.has_changed():
                    self._signals.add(signal.SIGHUP)
            if signal.SIGHUP in self._signals and not self._launches:
                return True
            if now - swept >= SWEEP_S:
                swept = now
                self._sweep()
            self._kill_overdue(now)

    def _prepare(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self._signals.add(number))
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        self._listener.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._drain)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _wait(self) -> None:
        for key, _ in self._selector.select(WATCH_S):
            if key.fd in self._selector.get_map():  # an earlier one of these may have unregistered it
                key.data()

    def _drain(self) -> None:
        os.read(self._wake_reader, 65536)

    def _stop(self) -> None:
        logger.info("stopping; %d runs are alive", len(self._processes))
        self._options.socket.unlink(missing_ok=True)
        self._listener.close()
        if not self._options.stops_runs:
            return
        for process in self._processes.values():
            process.send(signal.SIGTERM)
        deadline = time.monotonic() + self._options.grace_s
        while self._processes and time.monotonic() < deadline:
            self._selector.select(0.05)
            for process in list(self._processes.values()):
                if not _is_running(process):
                    self._forget(process)
        for process in self._processes.values():
            process.kill_group()

    def _forget(self, process: _Process) -> str:
        del self._processes[process.run_id]
        self._selector.unregister(process.descriptor)
        return process.reap()

    # --- requests

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        client = _Client(connection)
        self._clients.add(client)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: _Client) -> None:
        try:
            chunk = client.connection.recv(REQUEST_LIMIT_BYTES)
        except OSError:
            chunk = b""
        client.received += chunk
        if chunk and b"\n" not in client.received and len(client.received) < REQUEST_LIMIT_BYTES:
            return
        self._selector.unregister(client.connection)
        self._clients.discard(client)
        client.connection.settimeout(5)
        if b"\n" in client.received:
            self._serve_request(client)
        else:
            client.connection.close()

    def _serve_request(self, client: _Client) -> None:
        try:
            request = json.loads(client.received.partition(b"\n")[0])
            command, version = request.pop("command"), request.pop("version")
            serve: Callable[..., None] = self._commands()[command]
        except (ValueError, KeyError, AttributeError, TypeError):
            return client.answer(ok=False, code="bad_request", message="that is no request this server knows")
        if version != PROTOCOL_VERSION:
            message = f"this server speaks version {PROTOCOL_VERSION}, not {version}"
            return client.answer(ok=False, code="version", message=message)
        try:
            return serve(client, **request)
        except TypeError as error:
            return client.answer(ok=False, code="bad_request", message=str(error))

    def _commands(self) -> dict[str, Callable[..., None]]:
        return {"ping": self._ping, "launch": self._launch, "terminate": self._terminate, "status": self._status}

    def _ping(self, client: _Client) -> None:
        runs = {run_id: process.pid for run_id, process in self._processes.items()}
        client.answer(ok=True, pid=os.getpid(), runs=runs, storage=self._storage_id, load_error=self._load_error)

    def _launch(self, client: _Client, *, run_id: str, storage: str, resume: bool = False) -> None:
        if storage != self._storage_id:
            return client.answer(ok=False, code="other_instance", message="this server serves another Dagster instance")
        if self._watch.has_changed():
            # The launcher asks again when it finds the connection closed, and waits for the new code.
            self._signals.add(signal.SIGHUP)
            os.write(self._wake_writer, b"\0")
            return client.connection.close()
        if self._is_launching(run_id) or read_record(self._folder, run_id)[1]:
            return client.answer(ok=True, taken=True)
        self._fork(run_id, resume, client)
        return None

    def _status(self, client: _Client, *, run_id: str) -> None:
        if run_id not in self._processes and not read_record(self._folder, run_id)[1]:
            self._recover(run_id, "The run had no process.")
        client.answer(ok=True, alive=run_id in self._processes or read_record(self._folder, run_id)[1])

    def _terminate(self, client: _Client, *, run_id: str) -> None:
        process = self._processes.get(run_id)
        if process is None:
            self._recover(run_id, "The run had no process.")
        else:
            process.send(signal.SIGTERM)
            process.kill_at = process.kill_at or time.monotonic() + self._options.grace_s
        client.answer(ok=True, alive=process is not None)

    def _kill_overdue(self, now: float) -> None:
        for process in self._processes.values():
            if process.kill_at is not None and now >= process.kill_at:
                logger.warning("run %s did not stop in %g s and is killed", process.run_id, self._options.grace_s)
                process.kill_at = now + self._options.grace_s
                process.kill_group()

    # --- processes

    def _fork(self, run_id: str, is_resumed: bool, client: _Client | None = None) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        signal.pthread_sigmask(signal.SIG_BLOCK, WAIT_SIGNALS)
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            self._become_run(run_id, is_resumed, writer)
        process = _Process(run_id, pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAIT_SIGNALS)
        os.close(writer)
        launch = _Launch(process, client, reader)
        self._launches[reader] = launch
        self._selector.register(reader, selectors.EVENT_READ, lambda: self._hear(launch))

    def _become_run(self, run_id: str, is_resumed: bool, writer: int) -> None:
        """Never return: from here on this is the run's process."""
        code = 1
        try:
            os.setsid()
            self._close_all()
            log = self._options.logs / f"{run_id}.log" if self._options.logs else None

            def tell(word: bytes) -> None:
                os.write(writer, word)
                os.close(writer)

            code = work(self._worker_instance, self._folder, run_id, is_resumed=is_resumed, tell=tell, log=log)
        except BaseException:
            logger.exception("the process of run %s broke", run_id)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    def _close_all(self) -> None:
        """Close, in the child, what belongs to the server."""
        self._selector.close()
        self._listener.close()
        for client in [*self._clients, *(launch.client for launch in self._launches.values() if launch.client)]:
            client.connection.close()
        launching = [launch.process for launch in self._launches.values()]
        descriptors = [process.descriptor for process in [*self._processes.values(), *launching]]
        for descriptor in [*descriptors, *self._launches, self._wake_reader, self._wake_writer]:
            os.close(descriptor)

    def _hear(self, launch: _Launch) -> None:
        """Take a child's word that the run is its own; no word means that it died before."""
        word = os.read(launch.reader, 1)
        self._selector.unregister(launch.reader)
        os.close(launch.reader)
        del self._launches[launch.reader]
        process = launch.process
        if word == STARTED or not word:
            self._add(process)
        else:
            process.reap()
        if launch.client is not None:
            launch.client.answer(ok=True, taken=word != STARTED, pid=process.pid)

    def _is_launching(self, run_id: str) -> bool:
        return any(launch.process.run_id == run_id for launch in self._launches.values())

    def _add(self, process: _Process) -> None:
        self._processes[process.run_id] = process
        self._selector.register(process.descriptor, selectors.EVENT_READ, lambda: self._bury(process))

    def _bury(self, process: _Process) -> None:
        how = self._forget(process)
        self._recover(process.run_id, f"The run's process {process.pid} {how}.")

    def _recover(self, run_id: str, why: str) -> None:
        """See to a run that has no process."""
        if self._is_launching(run_id):
            return
        try:
            is_again = recover_run(self._instance, run_id, why, self._fork)
        except Exception:  # the database may be away; the next sweep tries again
            logger.exception("run %s cannot be seen to", run_id)
            return
        if not is_again:
            remove_record(self._folder, run_id)

    # --- runs of earlier servers

    def _adopt(self) -> None:
        for run_id in list(read_records(self._folder)):
            self._adopt_one(run_id)

    def _adopt_one(self, run_id: str) -> None:
        record, is_alive = read_record(self._folder, run_id)
        if not is_alive:
            self._recover(run_id, "The run's process ended while no run server was there.")
        elif record is not None and record.names_a_process():
            try:
                process = _Process(run_id, record.pid)
            except ProcessLookupError:
                return
            logger.info("adopting run %s (pid %d)", run_id, record.pid)
            self._add(process)

    def _sweep(self) -> None:
        """See to what nothing has announced: records without process, runs without record."""
        for run_id in list(read_records(self._folder)):
            if run_id not in self._processes:
                self._adopt_one(run_id)
        in_progress = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
        try:
            records = self._instance.get_run_records(RunsFilter(statuses=in_progress), limit=1000)
        except Exception:  # the database may be away
            logger.exception("runs in progress cannot be read")
            return
        for entry in records:
            run, age_s = entry.dagster_run, time.time() - entry.update_timestamp.timestamp()
            is_known = run.run_id in self._processes or read_record(self._folder, run.run_id)[0] is not None
            if not is_known and age_s > ORPHAN_AGE_S and self._is_ours(run):
                self._recover(run.run_id, "The run had no process.")

    def _is_ours(self, run: DagsterRun) -> bool:
        """Tell whether a launcher would have given us this run: not to a code server, not to its own process."""
        if run.remote_job_origin is None or GRPC_INFO_TAG in run.tags or run.job_code_origin is None:
            return False
        return self._options.target.has(run.job_code_origin.repository_origin.code_pointer)


def _is_running(process: _Process) -> bool:
    """A descriptor of a process is readable once it has ended."""
    poll = select.poll()
    poll.register(process.descriptor, select.POLLIN)
    return not poll.poll(0)


def _touch(instance: DagsterInstance) -> None:
    """Have the instance make its parts before the fork; none of them holds a connection or a thread."""
    _ = (instance.compute_log_manager, instance.run_launcher, instance.run_coordinator)


def _listen(path: Path) -> tuple[socket.socket, int]:
    """Bind the socket, as the only server there is; return it and the descriptor of the lock that says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # Of this process alone: runs that outlive it must not keep its successor out.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SystemExit(f"another run server listens at {path}") from None
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with socket_address(path) as address:
        mask = os.umask(0o177)
        listener.bind(address)
        os.umask(mask)
    listener.listen(1024)
    return listener, lock


def main() -> None:
    """Run the server in the foreground."""
    parser = argparse.ArgumentParser(description="Fork a ready process for each run of a Dagster code location.")
    code = parser.add_mutually_exclusive_group(required=True)
    code.add_argument("-f", "--python-file", help="file with the definitions")
    code.add_argument("-m", "--module", help="module with the definitions")
    parser.add_argument("-a", "--attribute", help="which definitions of several")
    parser.add_argument("-d", "--working-directory", default=".")
    parser.add_argument("--socket", type=Path, help="where to listen; DAGSTER_HOME/run_server/socket by default")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds from SIGTERM to SIGKILL of a run")
    parser.add_argument("--on-stop", choices=["leave", "terminate"], default="leave", help="what becomes of runs")
    parser.add_argument("--logs", type=Path, help="folder for each run process's own output; this one's by default")
    parser.add_argument("--inherited", help=argparse.SUPPRESS)  # socket and lock, after `exec`
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    options = _options(arguments)
    if arguments.inherited:
        listener_fd, lock = (int(number) for number in arguments.inherited.split(","))
        listener = socket.socket(fileno=listener_fd)
    else:
        listener, lock = _listen(options.socket)
    _run(options, listener, lock)


def _options(arguments: argparse.Namespace) -> ServerOptions:
    folder = str(Path(arguments.working_directory).absolute())
    file = str(Path(arguments.python_file).absolute()) if arguments.python_file else None
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise SystemExit("DAGSTER_HOME is not set; it names the folder of the instance whose runs these are")
    return ServerOptions(
        target=Target(file, arguments.module, arguments.attribute, folder),
        socket=(arguments.socket or default_socket(home)).absolute(),
        grace_s=arguments.grace,
        stops_runs=arguments.on_stop == "terminate",
        logs=arguments.logs.absolute() if arguments.logs else None,
    )


def _run(options: ServerOptions, listener: socket.socket, lock: int) -> None:
    route_streams()
    started = time.monotonic()
    with DagsterInstance.get() as instance:
        server = RunServer(options, listener, instance)
        server.load()
        logger.info("ready after %.1f s, listening at %s", time.monotonic() - started, options.socket)
        is_reloading = server.serve()
    if is_reloading:
        logger.info("the code has changed: starting anew")
        for descriptor in (listener.fileno(), lock):
            os.set_inheritable(descriptor, True)
        kept = [argument for argument in sys.argv[1:] if not argument.startswith("--inherited=")]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # stays so until the new one handles it
        inherited = f"--inherited={listener.fileno()},{lock}"
        command = [sys.executable, "-m", "bonseyes_dagster.orchestration.run_server", *kept, inherited]
        os.execv(sys.executable, command)  # noqa: S606 - that is the point: no shell, same process


if __name__ == "__main__":
    main()
