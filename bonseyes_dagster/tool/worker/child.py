"""What runs in the forked child: one artifact, from its inputs to files in staging, and the reason when it fails."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import fcntl
import json
import logging
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from bonseyes_dagster.description import ToolFolder
from bonseyes_dagster.errors import BonseyesError, ToolError
from bonseyes_dagster.model import ToolDescription, python_name
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.system.prctl import end_with_parent
from bonseyes_dagster.tool.artifact import Artifact
from bonseyes_dagster.tool.artifacts.drafts import safe_file_name
from bonseyes_dagster.tool.artifacts.index import ArtifactRow
from bonseyes_dagster.tool.artifacts.layout import Folder, Volume
from bonseyes_dagster.tool.artifacts.metrics import MetricsWriter
from bonseyes_dagster.tool.artifacts.progress import ProgressWriter
from bonseyes_dagster.tool.code.fingerprint import fingerprint
from bonseyes_dagster.tool.code.loading import find_modules, load_function
from bonseyes_dagster.tool.code.modules import UncoveredModules
from bonseyes_dagster.tool.fetching.inputs import RemoteInput
from bonseyes_dagster.tool.fetching.outbound import Policy, fetch, file_name_of
from bonseyes_dagster.tool.files.disk import make_private
from bonseyes_dagster.tool.files.given_files import GivenFiles
from bonseyes_dagster.tool.worker.command import run_command
from bonseyes_dagster.tool.worker.leaving import run_exit_functions
from bonseyes_dagster.tool.worker.processes import ARTIFACT_VARIABLE, flush_all

__all__ = ["Job", "ToolRuntime", "become_child"]

_log = logging.getLogger("bonseyes_dagster.tool")
_LONGEST_REASON = 2000
_REPORT_LIMIT = 60_000
# Not for the eyes of tools: secrets, and what would make them part of this server.
_HIDDEN_VARIABLES = ("BONSEYES_TOKEN", "PROMETHEUS_MULTIPROC_DIR")
# uWSGI has handlers of its own, also for crashes; a child is to die of them.
_SIGNALS = (
    "SIGTERM",
    "SIGINT",
    "SIGHUP",
    "SIGCHLD",
    "SIGPIPE",
    "SIGUSR1",
    "SIGUSR2",
    "SIGALRM",
    "SIGTSTP",
    "SIGSEGV",
    "SIGFPE",
    "SIGABRT",
    "SIGBUS",
    "SIGILL",
)


@dataclass(frozen=True, slots=True)
class ToolRuntime:
    """What all artifacts of a container have in common."""

    tool: ToolFolder
    description: ToolDescription
    volume: Volume
    settings: Settings
    function: Callable[..., Any] | None
    """The entry point; None when it is for the child to load it, or there is none."""
    uncovered: UncoveredModules


@dataclass(slots=True)
class Job:
    """One artifact to make."""

    runtime: ToolRuntime
    row: ArtifactRow
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Folder:
        """Return the artifact's folder."""
        return self.runtime.volume.folder(self.row.id)


def become_child(
    runtime: ToolRuntime, orders: int, report: int, parent_pid: int, inherited: Collection[int]
) -> NoReturn:
    """Wait for a row on `orders`, make its artifact and exit: 0 when staging holds all of it.

    What is to be told is written to `report`. Without a row there was nothing to do.
    """
    code = 1
    job: Job | None = None
    try:
        _separate(parent_pid, inherited)
        row = _receive(orders)
        if row is not None:
            job = Job(runtime, row)
            _enter(job)
            _work(job)
        code = 0
    except SystemExit as error:
        code = _exit_code(error, job)
    except BaseException as error:  # whatever a tool raises ends the artifact, not more
        _tell(error, job)
    finally:
        _leave(job, report, code)


def _separate(parent_pid: int, inherited: Collection[int]) -> None:
    """Leave the server behind: its session, signals, files and secrets."""
    os.setsid()
    end_with_parent(parent_pid, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    for name in _SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    atexit._clear()
    for descriptor in inherited:
        if descriptor > 2:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    for name in _HIDDEN_VARIABLES:
        os.environ.pop(name, None)
    with contextlib.suppress(OSError):
        # When memory runs out, the tool is to go, not the server.
        Path("/proc/self/oom_score_adj").write_text("500")
    _open_streams()


def _open_streams() -> None:
    """Let everything be printed to descriptors 1 and 2, each line at once."""
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    faulthandler.enable(file=2)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )


def _receive(orders: int) -> ArtifactRow | None:
    """Wait for a row; None when the worker wants nothing any more."""
    with open(orders, "rb") as pipe:
        message = pipe.read()
    row = pickle.loads(message) if message else None  # noqa: S301 - from the process that forked this one
    return row if isinstance(row, ArtifactRow) else None


def _enter(job: Job) -> None:
    """Take the artifact's log, temporary folder and name."""
    log = os.open(job.folder.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    temporary = job.folder.temporary
    make_private(temporary)
    os.environ.update({ARTIFACT_VARIABLE: job.row.id, "TMPDIR": str(temporary)})
    tempfile.tempdir = None
    os.chdir(temporary)


def _work(job: Job) -> None:
    logging.getLogger().setLevel(job.runtime.settings.log_level)
    policy = Policy.from_settings(job.runtime.settings)
    _fetch_all(job, policy)
    if job.report.get("files") and _is_reuse_likely(job):
        return
    if job.runtime.tool.command:
        _run_command(job, policy)
    else:
        _call(job, policy)


def _call(job: Job, policy: Policy) -> None:
    function = job.runtime.function or load_function(job.runtime.tool)
    progress, metrics = ProgressWriter(job.folder.progress), MetricsWriter(job.folder.metrics)
    artifact = Artifact(
        str(job.row.name),
        dict(job.row.parameters),
        output=job.folder.staging,
        metrics=metrics,
        progress=progress,
    )
    arguments = {python_name(name): value for name, value in _values(job, policy).items()}
    try:
        function(artifact, **arguments)
    finally:
        with contextlib.suppress(OSError):
            progress.flush()
    _report_uncovered(job)


def _report_uncovered(job: Job) -> None:
    """Say when the result is made by code that the tool's version does not cover."""
    uncovered = job.runtime.uncovered.look()
    if not uncovered:
        return
    job.report["is_uncovered"] = True
    name, file = min(uncovered.items())
    more = f" and {len(uncovered) - 1} more" if len(uncovered) > 1 else ""
    _log.warning(
        "The tool's version does not cover the module %s (%s)%s, so this artifact is never re-used; "
        "name its folder under `code` in tool.yml, or install it as a package.",
        name, file, more,
    )  # fmt: skip


def _run_command(job: Job, policy: Policy) -> None:
    values = _values(job, policy)
    for name, value in values.items():
        if isinstance(value, RemoteInput):
            values[name] = value.download_all()
    values |= {"output": job.folder.staging, "inputs": job.folder.inputs, "name": job.row.name}
    job.folder.inputs.mkdir(exist_ok=True)
    find_modules(job.runtime.tool)
    run_command(job.runtime.tool.command, values, job.folder, job.runtime.tool.folder)


def _values(job: Job, policy: Policy) -> dict[str, Any]:
    """Return each parameter as the tool gets it: files as paths, artifacts as inputs."""
    values = dict(job.row.parameters)
    for parameter in job.runtime.description.parameters:
        values.setdefault(parameter.name, None)
    files = {**job.row.files, **job.report.get("files", {})}
    given = GivenFiles(job.folder.given_files)
    for name, file in files.items():
        values[name] = job.folder.inputs / name / file["filename"]
        given.add(values[name], repr(name))
    volumes = job.runtime.settings.volumes
    for name, reference in job.row.inputs.items():
        values[name] = RemoteInput(reference, job.folder.artifacts / name, policy, volumes, given)
    return values


def _fetch_all(job: Job, policy: Policy) -> None:
    """Fetch each parameter that was given as a URL."""
    for parameter in job.runtime.description.parameters:
        url = job.row.parameters.get(parameter.name)
        if parameter.type not in ("file", "url") or url is None or parameter.name in job.row.files:
            continue
        folder = job.folder.inputs / parameter.name
        folder.mkdir(parents=True, exist_ok=True)
        fetched = fetch(url, folder / safe_file_name(file_name_of(url)), policy, job.runtime.settings)
        _log.info("%s: fetched %s, %d bytes", parameter.name, url, fetched.size)
        job.report.setdefault("files", {})[parameter.name] = {
            "filename": fetched.filename,
            "size": fetched.size,
            "sha256": fetched.sha256,
            "url": url,
        }


def _is_reuse_likely(job: Job) -> bool:
    """Tell the worker the fingerprint, now that the content of all URLs is known; it looks for one to reuse.

    The index is left alone here: SQLite's connections do not survive a fork.
    """
    files = {**job.row.files, **job.report["files"]}
    mark = fingerprint(job.runtime.description, job.row.parameters, files, job.row.inputs)
    job.report["fingerprint"] = mark
    job.report["is_fetched_only"] = job.row.reuse
    return job.row.reuse


def _exit_code(error: SystemExit, job: Job | None) -> int:
    if error.code in (None, 0):
        return 0
    if job is not None:
        job.report["reason"] = str(error.code) if isinstance(error.code, str) else f"The tool exited with {error.code}."
    return 1


def _tell(error: BaseException, job: Job | None) -> None:
    """Put the error into the log, and its reason into the report."""
    with contextlib.suppress(Exception):
        if job is not None:
            job.report["reason"] = _reason(error)[:_LONGEST_REASON]
        if isinstance(error, ToolError):
            _log.error("%s", error.message)
        else:
            shown = traceback.format_exception(type(error), error, _of_tool(error.__traceback__))
            _log.error("the tool failed\n%s", "".join(shown).rstrip())


def _reason(error: BaseException) -> str:
    if isinstance(error, BonseyesError):
        return error.message
    return traceback.format_exception_only(error)[-1].strip() or type(error).__name__


def _of_tool(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that is the tool's: an author need not read ours."""
    frame = trace
    while frame is not None and frame.tb_frame.f_code.co_filename == __file__:
        frame = frame.tb_next
    return frame or trace


def _leave(job: Job | None, report: int, code: int) -> NoReturn:
    """End the tool's threads and pools, and exit without the clean-up that belongs to the server."""
    is_leaving = threading.Lock()

    def exit_now() -> NoReturn:
        # The first one; the other one waits until it is gone.
        is_leaving.acquire()
        _exit(job, report, code)

    try:
        run_exit_functions(exit_now)
    finally:
        exit_now()


def _exit(job: Job | None, report: int, code: int) -> NoReturn:
    """Write out what is buffered, and the report."""
    try:
        for step in (logging.shutdown, sys.stdout.flush, sys.stderr.flush, flush_all):
            with contextlib.suppress(Exception):
                step()
        with contextlib.suppress(Exception):
            # A report is a few lines; a pipe that nobody read yet holds 64 KiB.
            fcntl.fcntl(report, fcntl.F_SETFL, os.O_NONBLOCK)
            os.write(report, json.dumps(job.report if job else {}).encode()[:_REPORT_LIMIT])
    finally:
        os._exit(code)
