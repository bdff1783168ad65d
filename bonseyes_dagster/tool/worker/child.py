"""The forked child: it makes one artifact, from its inputs to the files in staging, and reports errors."""

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
from bonseyes_dagster.tool.worker.exit_functions import run_exit_functions
from bonseyes_dagster.tool.worker.processes import ARTIFACT_VARIABLE, flush_all
from bonseyes_dagster.web.uploads import safe_file_name

__all__ = ["Job", "ToolRuntime", "become_child"]

_log = logging.getLogger("bonseyes_dagster.tool")
_LONGEST_REASON = 2000
_REPORT_LIMIT = 60_000
# Tools must not see these: a secret, and a variable that would make them part of this server's metrics.
_HIDDEN_VARIABLES = ("BONSEYES_TOKEN", "PROMETHEUS_MULTIPROC_DIR")
# uWSGI handles these signals itself, also those of crashes. A child must die from them.
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
    """The parts that all artifacts of a container share."""

    tool: ToolFolder
    description: ToolDescription
    volume: Volume
    settings: Settings
    function: Callable[..., Any] | None
    """The entry point; None if the child must load it, or if the tool is a command."""
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
    """Wait for a row on the pipe `orders`, make its artifact and exit, with 0 if all files are in staging.

    The child writes its report to the pipe `report`. Without a row it has nothing to do and exits with 0.
    """
    code = 1
    job: Job | None = None
    try:
        _detach_from_server(parent_pid, inherited)
        row = _receive_row(orders)
        if row is not None:
            job = Job(runtime, row)
            _prepare_environment(job)
            _make_artifact(job)
        code = 0
    except SystemExit as error:
        code = _exit_code(error, job)
    except BaseException as error:  # any exception of a tool fails only this artifact
        _report_error(error, job)
    finally:
        _end_tool(job, report, code)


def _detach_from_server(parent_pid: int, inherited: Collection[int]) -> None:
    """Drop everything of the server: its session, signals, files and secrets."""
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
        # If memory runs out, the kernel must kill the tool, not the server.
        Path("/proc/self/oom_score_adj").write_text("500")
    _open_streams()


def _open_streams() -> None:
    """Let Python print to descriptors 1 and 2, and flush each line at once."""
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


def _receive_row(orders: int) -> ArtifactRow | None:
    """Wait for a row and return it; return None if the worker has closed the pipe without one."""
    with open(orders, "rb") as pipe:
        message = pipe.read()
    row = pickle.loads(message) if message else None  # noqa: S301 - from the process that forked this one
    return row if isinstance(row, ArtifactRow) else None


def _prepare_environment(job: Job) -> None:
    """Direct output to the artifact's log, make its temporary folder, and set its environment variables."""
    log = os.open(job.folder.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    temporary = job.folder.temporary
    make_private(temporary)
    os.environ.update({ARTIFACT_VARIABLE: job.row.id, "TMPDIR": str(temporary)})
    tempfile.tempdir = None
    os.chdir(temporary)


def _make_artifact(job: Job) -> None:
    logging.getLogger().setLevel(job.runtime.settings.log_level)
    policy = Policy.from_settings(job.runtime.settings)
    _fetch_all(job, policy)
    if job.report.get("files") and _is_reuse_likely(job):
        return
    if job.runtime.tool.command:
        _run_command(job, policy)
    else:
        _call_function(job, policy)


def _call_function(job: Job, policy: Policy) -> None:
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
    """Report and log modules that the tool's version does not cover."""
    uncovered = job.runtime.uncovered.find()
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
    """Return each parameter as the tool gets it: files as paths, artifacts as `RemoteInput`."""
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
    """Fetch the file of each parameter that is a URL."""
    for parameter in job.runtime.description.parameters:
        url = job.row.parameters.get(parameter.name)
        if parameter.type not in ("file", "url") or url is None or parameter.name in job.row.files:
            continue
        folder = job.folder.inputs / parameter.name
        folder.mkdir(parents=True, exist_ok=True)
        fetched = fetch(url, folder / (safe_file_name(file_name_of(url)) or "file"), policy, job.runtime.settings)
        _log.info("Fetched %s for the parameter %s: %d bytes.", url, parameter.name, fetched.size)
        job.report.setdefault("files", {})[parameter.name] = {
            "filename": fetched.filename,
            "size": fetched.size,
            "sha256": fetched.sha256,
            "url": url,
        }


def _is_reuse_likely(job: Job) -> bool:
    """Report the fingerprint, which is known once all URLs are fetched; tell whether the worker may re-use an artifact.

    The worker searches the index. The child must not: SQLite's connections do not survive a fork.
    """
    files = {**job.row.files, **job.report["files"]}
    found = fingerprint(job.runtime.description, job.row.parameters, files, job.row.inputs)
    job.report["fingerprint"] = found
    job.report["is_fetched_only"] = job.row.reuse
    return job.row.reuse


def _exit_code(error: SystemExit, job: Job | None) -> int:
    if error.code in (None, 0):
        return 0
    if job is not None:
        job.report["reason"] = str(error.code) if isinstance(error.code, str) else f"The tool exited with {error.code}."
    return 1


def _report_error(error: BaseException, job: Job | None) -> None:
    """Write the error to the log, and its reason to the report."""
    with contextlib.suppress(Exception):
        if job is not None:
            job.report["reason"] = _reason(error)[:_LONGEST_REASON]
        if isinstance(error, ToolError):
            _log.error("%s", error.message)
        else:
            shown = traceback.format_exception(type(error), error, _tool_part(error.__traceback__))
            _log.error("The tool failed.\n%s", "".join(shown).rstrip())


def _reason(error: BaseException) -> str:
    if isinstance(error, BonseyesError):
        return error.message
    return traceback.format_exception_only(error)[-1].strip() or type(error).__name__


def _tool_part(trace: TracebackType | None) -> TracebackType | None:
    """Return the tool's part of a traceback: its author need not read ours."""
    frame = trace
    while frame is not None and frame.tb_frame.f_code.co_filename == __file__:
        frame = frame.tb_next
    return frame or trace


def _end_tool(job: Job | None, report: int, code: int) -> NoReturn:
    """End the tool's threads and pools, and exit without the exit functions of the server."""
    is_leaving = threading.Lock()

    def exit_now() -> NoReturn:
        # The first thread exits the process; the other one waits here until then.
        is_leaving.acquire()
        _exit(job, report, code)

    try:
        run_exit_functions(exit_now)
    finally:
        exit_now()


def _exit(job: Job | None, report: int, code: int) -> NoReturn:
    """Flush all buffers, write the report and exit."""
    try:
        for step in (logging.shutdown, sys.stdout.flush, sys.stderr.flush, flush_all):
            with contextlib.suppress(Exception):
                step()
        with contextlib.suppress(Exception):
            # The report must fit into the pipe, which holds 64 KiB: the worker reads it only after this process ends.
            fcntl.fcntl(report, fcntl.F_SETFL, os.O_NONBLOCK)
            os.write(report, json.dumps(job.report if job else {}).encode()[:_REPORT_LIMIT])
    finally:
        os._exit(code)
