"""What runs in the forked child: one artifact, from its inputs to files in staging, and the reason when it fails."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import fcntl
import gc
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from bonseyes_dagster.description import ToolFolder
from bonseyes_dagster.errors import BonseyesError, ToolError
from bonseyes_dagster.model import ToolDescription
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.tool.artifact import Artifact
from bonseyes_dagster.tool.command import run_command
from bonseyes_dagster.tool.drafts import safe_file_name
from bonseyes_dagster.tool.fingerprint import fingerprint
from bonseyes_dagster.tool.index import Record
from bonseyes_dagster.tool.inputs import RemoteInput
from bonseyes_dagster.tool.layout import Folder, Volume
from bonseyes_dagster.tool.loading import attribute_of, find_modules, load_function
from bonseyes_dagster.tool.metrics import MetricsWriter
from bonseyes_dagster.tool.outbound import Policy, fetch, file_name_of
from bonseyes_dagster.tool.processes import ARTIFACT_VARIABLE, die_with_parent, flush_all
from bonseyes_dagster.tool.progress import ProgressWriter

__all__ = ["Job", "become_child"]

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


@dataclass(slots=True)
class Job:
    """All that a child needs to make one artifact."""

    record: Record
    tool: ToolFolder
    description: ToolDescription
    volume: Volume
    settings: Settings
    function: Callable[..., Any] | None
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Folder:
        """Return the artifact's folder."""
        return self.volume.folder(self.record.id)


def become_child(job: Job, report: int, parent_pid: int, inherited: Collection[int]) -> NoReturn:
    """Make the artifact and exit: 0 when staging holds all of it; what is to be told is written to `report`."""
    code = 1
    try:
        _separate(job, parent_pid, set(inherited) - {report})
        _work(job)
        code = 0
    except SystemExit as error:
        code = _exit_code(error, job)
    except BaseException as error:  # whatever a tool raises ends the artifact, not more
        _tell(error, job)
    finally:
        _leave(job, report, code)


def _separate(job: Job, parent_pid: int, inherited: Collection[int]) -> None:
    """Leave the server behind: its session, signals, files and environment."""
    os.setsid()
    die_with_parent(parent_pid)
    signal.set_wakeup_fd(-1)
    for name in _SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    gc.enable()
    _redirect(job.folder.log)
    for descriptor in inherited:
        if descriptor > 2:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    temporary = job.folder.temporary
    temporary.mkdir(mode=0o700, exist_ok=True)
    os.environ.update({ARTIFACT_VARIABLE: job.record.id, "TMPDIR": str(temporary)})
    for name in _HIDDEN_VARIABLES:
        os.environ.pop(name, None)
    tempfile.tempdir = None
    os.chdir(temporary)
    atexit._clear()
    with contextlib.suppress(OSError):
        # When memory runs out, the tool is to go, not the server.
        Path("/proc/self/oom_score_adj").write_text("500")


def _redirect(log: Path) -> None:
    """Send everything that is printed, here and in processes below, to the log; each line at once."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(nothing)
    os.close(descriptor)
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


def _work(job: Job) -> None:
    logging.getLogger().setLevel(job.settings.log_level)
    policy = Policy.from_settings(job.settings)
    _fetch_all(job, policy)
    if job.report.get("files") and _is_reuse_likely(job):
        return
    if job.tool.command:
        _run_command(job, policy)
    else:
        _call(job, policy)


def _call(job: Job, policy: Policy) -> None:
    function = job.function or load_function(job.tool)
    progress, metrics = ProgressWriter(job.folder.progress), MetricsWriter(job.folder.metrics)
    artifact = Artifact(
        str(job.record.name),
        dict(job.record.parameters),
        output=job.folder.staging,
        metrics=metrics,
        progress=progress,
    )
    arguments = {attribute_of(name): value for name, value in _values(job, policy).items()}
    try:
        function(artifact, **arguments)
    finally:
        with contextlib.suppress(OSError):
            progress.flush()


def _run_command(job: Job, policy: Policy) -> None:
    values = _values(job, policy)
    for name, value in values.items():
        if isinstance(value, RemoteInput):
            values[name] = value.download_all()
    values |= {"output": job.folder.staging, "inputs": job.folder.inputs, "name": job.record.name}
    job.folder.inputs.mkdir(exist_ok=True)
    find_modules(job.tool)
    run_command(job.tool.command, values, job.folder, job.tool.folder)


def _values(job: Job, policy: Policy) -> dict[str, Any]:
    """Return each parameter as the tool gets it: files as paths, artifacts as inputs."""
    values = dict(job.record.parameters)
    for parameter in job.description.parameters:
        values.setdefault(parameter.name, None)
    files = {**job.record.files, **job.report.get("files", {})}
    for name, file in files.items():
        values[name] = job.folder.inputs / name / file["filename"]
    for name, reference in job.record.inputs.items():
        values[name] = RemoteInput(reference, job.folder.artifacts / name, policy)
    return values


def _fetch_all(job: Job, policy: Policy) -> None:
    """Fetch each parameter that was given as a URL."""
    for parameter in job.description.parameters:
        url = job.record.parameters.get(parameter.name)
        if parameter.type not in ("file", "url") or url is None or parameter.name in job.record.files:
            continue
        folder = job.folder.inputs / parameter.name
        folder.mkdir(parents=True, exist_ok=True)
        fetched = fetch(url, folder / safe_file_name(file_name_of(url)), policy, job.settings)
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
    files = {**job.record.files, **job.report["files"]}
    mark = fingerprint(job.description, job.record.parameters, files, job.record.inputs)
    job.report["fingerprint"] = mark
    job.report["is_fetched_only"] = job.record.reuse
    return job.record.reuse


def _exit_code(error: SystemExit, job: Job) -> int:
    if error.code in (None, 0):
        return 0
    job.report["reason"] = str(error.code) if isinstance(error.code, str) else f"The tool exited with {error.code}."
    return 1


def _tell(error: BaseException, job: Job) -> None:
    """Put the error into the log, and its reason into the report."""
    with contextlib.suppress(Exception):
        if isinstance(error, BonseyesError):
            job.report["reason"] = error.message[:_LONGEST_REASON]
        else:
            text = traceback.format_exception_only(error)[-1].strip() or type(error).__name__
            job.report["reason"] = text[:_LONGEST_REASON]
        if isinstance(error, ToolError):
            _log.error("%s", error.message)
        else:
            shown = traceback.format_exception(type(error), error, _of_tool(error.__traceback__))
            _log.error("the tool failed\n%s", "".join(shown).rstrip())


def _of_tool(trace: TracebackType | None) -> TracebackType | None:
    """Return the part of a traceback that is the tool's: an author need not read ours."""
    frame = trace
    while frame is not None and frame.tb_frame.f_code.co_filename == __file__:
        frame = frame.tb_next
    return frame or trace


def _leave(job: Job, report: int, code: int) -> NoReturn:
    """Write out what is buffered and exit without the clean-up that belongs to the server."""
    try:
        for step in (atexit._run_exitfuncs, logging.shutdown, sys.stdout.flush, sys.stderr.flush, flush_all):
            with contextlib.suppress(Exception):
                step()
        with contextlib.suppress(Exception):
            # A report is a few lines; a pipe that nobody read yet holds 64 KiB.
            fcntl.fcntl(report, fcntl.F_SETFL, os.O_NONBLOCK)
            os.write(report, json.dumps(job.report).encode()[:_REPORT_LIMIT])
    finally:
        os._exit(code)
