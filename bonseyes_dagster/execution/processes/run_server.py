"""The run server: it loads Dagster and the project's definitions, and forks a ready process for each run.

`python -m bonseyes_dagster.execution.processes.run_server -f definitions.py --working-directory DIR` starts it, with
DAGSTER_HOME set; one for each code location. Projects start `orchestration/run_server.py`, which also cancels the work
that ended runs left in tools. launcher.py sends it requests to start, stop and check runs (run_protocol.py).

The server has one thread with one selector, because it forks. The processes of runs are its children, but do not depend
on it: each keeps its record locked (process_record.py). A new server adopts the live runs and recovers the lost runs
(run_recovery.py). When its code changes, the server replaces itself by `exec`, and keeps its socket and its children.

SIGTERM and SIGINT stop the server. Runs go on, and the next server adopts them; with `--on-stop terminate` they get
SIGTERM. SIGHUP reloads the code.
"""

import argparse
import fcntl
import inspect
import json
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster import DagsterInstance

from bonseyes_dagster.execution.launching.run_protocol import (
    PROTOCOL_VERSION,
    default_socket,
    records_folder,
    socket_address,
    storage_id,
)
from bonseyes_dagster.execution.processes.run_keeper import RunKeeper
from bonseyes_dagster.execution.processes.source_watch import SourceWatch
from bonseyes_dagster.execution.processes.warm_definitions import Target, load_target, warm_up
from bonseyes_dagster.execution.runs.run_end import Withdraw, close_left_steps
from bonseyes_dagster.execution.threads.step_streams import route_streams
from bonseyes_dagster.urls import is_name

__all__ = ["RunServer", "main"]

logger = logging.getLogger("bonseyes.run_server")

CODE_CHECK_S = 1.0
RUN_CHECK_S = 15.0
KILL_CHECK_S = 0.1
ANSWER_TIMEOUT_S = 5.0
REQUEST_LIMIT_BYTES = 65536


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options of the command line."""

    target: Target
    socket: Path
    grace_s: float
    stops_runs: bool
    logs: Path | None
    withdraw: Withdraw


class _Client:
    """A connection, which carries one request."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""

    def answer(self, **body: Any) -> None:
        try:
            self.connection.sendall(json.dumps(body).encode() + b"\n")
        except OSError:
            logger.info("A launcher closed its connection before it got its answer.")
        self.connection.close()


class RunServer:
    """Runs the loop and answers the requests; its RunKeeper handles the runs."""

    def __init__(self, options: ServerOptions, listener: socket.socket, instance: DagsterInstance) -> None:
        self._options = options
        self._listener = listener
        self._storage_id = storage_id(instance)
        self._load_error: str | None = None
        self._signals: set[int] = set()
        self._clients: set[_Client] = set()
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._keeper = RunKeeper(
            self._selector,
            instance,
            options.target,
            folder=records_folder(options.socket),
            grace_s=options.grace_s,
            logs=options.logs,
            close_in_child=self._close,
            withdraw=options.withdraw,
        )

    def load(self) -> None:
        """Load the code. If that fails, each run reports the error, and the next change of the code is tried."""
        self._load_error = load_target(self._options.target)
        if self._load_error:
            logger.error("The definitions cannot be loaded:\n%s", self._load_error)
        self._watch = SourceWatch(Path(self._options.target.working_directory))
        warm_up()

    def serve(self) -> bool:
        """Serve until a signal or new code; return False to stop, True to start again with the new code."""
        self._prepare()
        self._keeper.adopt()
        runs_checked_at = code_checked_at = time.monotonic()
        while not self._signals & {signal.SIGTERM, signal.SIGINT}:
            self._wait()
            now = time.monotonic()
            if now - code_checked_at >= CODE_CHECK_S:
                code_checked_at = now
                if self._watch.has_changed():
                    self._signals.add(signal.SIGHUP)
            if signal.SIGHUP in self._signals and not self._keeper.is_launching:
                return True
            if now - runs_checked_at >= RUN_CHECK_S:
                runs_checked_at = now
                self._keeper.check_runs()
            self._keeper.kill_overdue()
        self._stop()
        return False

    def _prepare(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self._signals.add(number))
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        self._listener.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._drain_wakeups)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _wait(self) -> None:
        for key, _ in self._selector.select(KILL_CHECK_S if self._keeper.is_terminating else CODE_CHECK_S):
            if key.fd in self._selector.get_map():  # an earlier call may have unregistered it
                key.data()

    def _drain_wakeups(self) -> None:
        os.read(self._wake_reader, 65536)

    def _stop(self) -> None:
        logger.info("Stopping; %d runs are alive.", len(self._keeper.pids))
        self._options.socket.unlink(missing_ok=True)
        self._listener.close()
        if self._options.stops_runs:
            self._keeper.stop_all()

    def _close(self) -> None:
        """Close the descriptors that a forked child must not have."""
        self._listener.close()
        for client in self._clients:
            client.connection.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

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
        is_whole = b"\n" in client.received
        if chunk and not is_whole and len(client.received) < REQUEST_LIMIT_BYTES:
            return
        self._selector.unregister(client.connection)
        client.connection.settimeout(ANSWER_TIMEOUT_S)
        if is_whole:
            self._serve_request(client)
        else:
            self._hang_up(client)

    def _serve_request(self, client: _Client) -> None:
        commands: dict[str, Callable[..., None]] = {
            "ping": self._ping,
            "launch": self._launch,
            "terminate": self._terminate,
            "status": self._status,
        }
        try:
            request = json.loads(client.received.partition(b"\n")[0])
            version, serve = request.pop("version"), commands[request.pop("command")]
            inspect.signature(serve).bind(client, **request)
        except (ValueError, KeyError, AttributeError, TypeError):
            self._refuse(
                client, "bad_request", "The request must be a JSON object with a known command and its arguments."
            )
            return
        if version != PROTOCOL_VERSION:
            self._refuse(
                client, "version", f"The request has version {version}; this server needs version {PROTOCOL_VERSION}."
            )
        elif not is_name(str(request.get("run_id", "none"))):
            self._refuse(client, "bad_request", "The run_id of the request is not valid; it must be a run id.")
        else:
            serve(client, **request)

    def _answer(self, client: _Client, **body: Any) -> None:
        client.answer(ok=True, **body)
        self._clients.discard(client)

    def _refuse(self, client: _Client, code: str, message: str) -> None:
        client.answer(ok=False, code=code, message=message)
        self._clients.discard(client)

    def _hang_up(self, client: _Client) -> None:
        client.connection.close()
        self._clients.discard(client)

    def _ping(self, client: _Client) -> None:
        loaded = {"storage": self._storage_id, "load_error": self._load_error}
        self._answer(client, pid=os.getpid(), runs=self._keeper.pids, **loaded)

    def _launch(self, client: _Client, *, run_id: str, storage: str, resume: bool = False) -> None:
        if storage != self._storage_id:
            self._refuse(
                client,
                "other_instance",
                "The run is in another Dagster instance than the run server's; DAGSTER_HOME must be the same.",
            )
        elif self._watch.has_changed():
            # The launcher repeats its request when the connection is closed, and waits for the new code.
            self._signals.add(signal.SIGHUP)
            self._hang_up(client)
        elif self._keeper.has_process(run_id):
            self._answer(client, taken=True)
        else:
            try:
                self._keeper.start(run_id, resume, lambda taken, pid: self._answer(client, taken=taken, pid=pid))
            except OSError as error:
                self._refuse(client, "no_process", f"No process can be started: {error}.")

    def _status(self, client: _Client, *, run_id: str) -> None:
        if not self._keeper.has_process(run_id):
            self._keeper.recover(run_id)
        self._answer(client, alive=self._keeper.has_process(run_id))

    def _terminate(self, client: _Client, *, run_id: str) -> None:
        self._answer(client, alive=self._keeper.terminate(run_id))


def _listen(path: Path) -> tuple[socket.socket, int]:
    """Bind the socket as the only server; return the socket and the descriptor of the lock file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # A POSIX lock is not inherited, so runs that outlive this server do not lock out the next server.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SystemExit(f"Another run server listens at {path}; stop it, or give another --socket.") from None
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    with socket_address(path) as address:
        mask = os.umask(0o177)
        listener.bind(address)
        os.umask(mask)
    listener.listen(1024)
    return listener, lock


def main(withdraw: Withdraw = close_left_steps) -> None:
    """Run the server in the foreground; call `withdraw` for each run that failed or was cancelled."""
    parser = argparse.ArgumentParser(description="Fork a ready process for each run of a Dagster code location.")
    code = parser.add_mutually_exclusive_group(required=True)
    code.add_argument("-f", "--python-file", help="File with the definitions.")
    code.add_argument("-m", "--module", help="Module with the definitions.")
    parser.add_argument("-a", "--attribute", help="Name of the definitions, if there are several.")
    parser.add_argument("-d", "--working-directory", default=".")
    parser.add_argument("--socket", type=Path, help="Socket to listen at; DAGSTER_HOME/run_server/socket by default.")
    parser.add_argument("--grace", type=float, default=10.0, help="Seconds from SIGTERM to SIGKILL of a run.")
    parser.add_argument(
        "--on-stop", choices=["leave", "terminate"], default="leave", help="What to do with runs when the server stops."
    )
    parser.add_argument(
        "--logs", type=Path, help="Folder for the output of run processes; the server's output by default."
    )
    parser.add_argument("--inherited", help=argparse.SUPPRESS)  # socket and lock, after `exec`
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    options = _options(arguments, withdraw)
    if arguments.inherited:
        listener_fd, lock = (int(number) for number in arguments.inherited.split(","))
        listener = socket.socket(fileno=listener_fd)
    else:
        listener, lock = _listen(options.socket)
    _run(options, listener, lock)


def _options(arguments: argparse.Namespace, withdraw: Withdraw) -> ServerOptions:
    folder = str(Path(arguments.working_directory).absolute())
    file = str(Path(arguments.python_file).absolute()) if arguments.python_file else None
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise SystemExit("DAGSTER_HOME is not set; it must name the folder of the Dagster instance.")
    return ServerOptions(
        target=Target(file, arguments.module, arguments.attribute, folder),
        socket=(arguments.socket or default_socket(home)).absolute(),
        grace_s=arguments.grace,
        stops_runs=arguments.on_stop == "terminate",
        logs=arguments.logs.absolute() if arguments.logs else None,
        withdraw=withdraw,
    )


def _run(options: ServerOptions, listener: socket.socket, lock: int) -> None:
    route_streams()
    started = time.monotonic()
    with DagsterInstance.get() as instance:
        server = RunServer(options, listener, instance)
        server.load()
        logger.info("Ready after %.1f s, listening at %s.", time.monotonic() - started, options.socket)
        is_reloading = server.serve()
    if is_reloading:
        logger.info("The code has changed: starting again.")
        for descriptor in (listener.fileno(), lock):
            os.set_inheritable(descriptor, True)
        kept = [argument for argument in sys.argv[1:] if not argument.startswith("--inherited=")]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # stays ignored until the new server handles it
        inherited = f"--inherited={listener.fileno()},{lock}"
        program = sys.modules["__main__"].__spec__
        assert program is not None  # it was started by `python -m`
        command = [sys.executable, "-P", "-m", program.name, *kept, inherited]
        os.execv(sys.executable, command)  # noqa: S606 - no shell, and the same process


if __name__ == "__main__":
    main()
