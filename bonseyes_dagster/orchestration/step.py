"""What an op does while it runs: ask the container for the artifact, follow it, and hand on a reference to it."""

import contextlib
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterExecutionInterruptedError,
    Failure,
    MetadataValue,
    OpExecutionContext,
    Output,
    RetryRequested,
)

from bonseyes_dagster.client import Addresses, Artifact, Container
from bonseyes_dagster.description import ToolFolder
from bonseyes_dagster.errors import (
    BonseyesError,
    ConflictError,
    ConnectionFailedError,
    InvalidError,
    NotFoundError,
    QueueFullError,
    StorageFullError,
    UnavailableError,
)
from bonseyes_dagster.model import Status
from bonseyes_dagster.orchestration import names
from bonseyes_dagster.orchestration.interruption import run_is_interrupted
from bonseyes_dagster.orchestration.references import ArtifactRef

__all__ = ["run_step"]

# May pass by itself, so it is waited for and then retried.
TRANSIENT = (ConnectionFailedError, UnavailableError, QueueFullError, StorageFullError)
PATIENCE_S = 60.0
RETRY_WAIT_S = 1.0  # before the first retry, twice as long before each further one
TICK_S = 2.0  # between looks at progress and log; the end is seen at once
INTERRUPT_S = 0.1
PROGRESS_S = 15.0  # between lines about progress in Dagster's own log
LOG_LIMIT_BYTES = 16_384  # of a tool's output in one event of Dagster's log; all of it goes to the step's stdout

_T = TypeVar("_T")


def run_step(
    context: OpExecutionContext,
    *,
    container: str,
    tool: ToolFolder,
    references: Mapping[str, ArtifactRef | None],
    retries: int,
) -> Iterator[AssetMaterialization | Output[ArtifactRef]]:
    """Make the artifact of this step, or attach to it when it is being made, and yield a reference to it."""
    order = _Order(context, container, tool, references)
    try:
        status = _follow(context, order)
        if status.phase != "completed":
            raise _failure_of(order, status)
        yield from _results(context, order, status)
    except BonseyesError as error:
        failure = Failure(
            description=error.message,
            metadata={"artifact": MetadataValue.url(order.artifact.url)},
            allow_retries=isinstance(error, TRANSIENT),
        )
        raise _or_retry(context, failure, retries) from error
    except Failure as failure:
        raise _or_retry(context, failure, retries) from failure.__cause__


def _or_retry(context: OpExecutionContext, failure: Failure, retries: int) -> Failure | RetryRequested:
    """Return what to raise: a request for another attempt where one may help and is left.

    An op with a RetryPolicy would take a cancellation of the run for a failure, too, and begin again.
    """
    if not failure.allow_retries:
        return failure
    if context.retry_number >= retries:
        return Failure(failure.description, metadata=failure.metadata, allow_retries=False)
    context.log.warning(f"{failure.description} To be tried again.")
    wait_s = RETRY_WAIT_S * 2**context.retry_number * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load
    return RetryRequested(max_retries=retries, seconds_to_wait=wait_s)


class _Order:
    """What this step wants of its container, and the key by which the container knows it again."""

    def __init__(
        self,
        context: OpExecutionContext,
        container: str,
        tool: ToolFolder,
        references: Mapping[str, ArtifactRef | None],
    ) -> None:
        step = _step_name(context)
        self._addresses = Addresses.from_settings()
        self._container = container
        self._name = names.artifact_name(names.run_name(context.run), step)
        self.key = f"{context.run_id}/{step}"
        self.reuse = context.run.tags.get(names.REUSE_TAG, "true") != "false"
        self.output_type = tool.description.output_type
        self.parameters: dict[str, Any] = {name: ref.url for name, ref in references.items() if ref is not None}
        self.files: dict[str, Path] = {}
        self._take_config(context.op_config or {}, tool)
        self.stop = threading.Event()

    @property
    def container(self) -> Container:
        """Return the container's client, wherever the container is now: it may be started anew elsewhere."""
        return Container(self._addresses.base_url(self._container), name=self._container, kind="artifacts", retry_s=0)

    @property
    def artifact(self) -> Artifact:
        """Return the handle of the artifact, whether it exists or not."""
        return self.container.artifact(self._name)

    def _take_config(self, config: Mapping[str, Any], tool: ToolFolder) -> None:
        for parameter in tool.description.parameters:
            value = config.get(parameter.name)
            if value is None:
                continue
            if parameter.type == "file" and not value.lower().startswith(("http://", "https://")):
                self.files[parameter.name] = _local_file(parameter.name, value)
            else:
                self.parameters[parameter.name] = value

    def place(self) -> None:
        """Create the artifact unless it is there; one that a former attempt left unfinished is made again."""
        former = self._former()
        if former is not None and former.is_final and former.phase != "completed":
            self._delete()
        try:
            self._create()
        except (ConflictError, InvalidError) as error:
            if former is None and not isinstance(error, ConflictError):
                raise
            raise Failure(
                description=f"{self.artifact.url} exists, and was not made by this step with these parameters. "
                f"Delete it, or give the run another name. ({error.message})",
                allow_retries=False,
            ) from error

    def _create(self) -> None:
        self.container.create(
            self.artifact.name,
            self.parameters,
            dict(self.files),
            idempotency_key=self.key,
            reuse=self.reuse,
        )

    def _former(self) -> Status | None:
        try:
            return self.artifact.status()
        except NotFoundError:
            return None

    def _delete(self) -> None:
        with contextlib.suppress(NotFoundError):
            self.artifact.delete()

    def cancel(self) -> None:
        """Take the order back, whether it has been placed yet or not."""
        self.stop.set()
        with contextlib.suppress(BonseyesError):
            self.artifact.cancel()


def _step_name(context: OpExecutionContext) -> str:
    mapping_key = context.get_mapping_key()
    step = str(context.op_handle)
    return f"{step}.{mapping_key}" if mapping_key else step


def _local_file(parameter: str, value: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_file():
        raise Failure(f"{parameter}: there is no file {path.absolute()} where the run executes.", allow_retries=False)
    return path


def _follow(context: OpExecutionContext, order: _Order) -> Status:
    """Return the artifact's final status. All HTTP is in a thread of its own, so that an interrupt is heard at once."""
    news: queue.SimpleQueue[Status | bytes | BaseException] = queue.SimpleQueue()
    watcher = _Watcher(order, news)
    threading.Thread(target=watcher.run, daemon=True, name=f"watch {order.artifact.name}").start()
    journal = _Journal(context, order)
    try:
        while True:
            if run_is_interrupted():
                raise DagsterExecutionInterruptedError()
            try:
                item = news.get(timeout=INTERRUPT_S)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, bytes):
                journal.write(item)
            else:
                journal.note(item)
                if item.is_final:
                    journal.close()
                    return item
    except (DagsterExecutionInterruptedError, KeyboardInterrupt, SystemExit, GeneratorExit):
        context.log.info(f"Cancelling {order.artifact.url}")
        order.cancel()
        raise
    finally:
        order.stop.set()


class _Watcher:
    """Places the order, then reports log and status; the final status comes last, after all of the log."""

    def __init__(self, order: _Order, news: "queue.SimpleQueue[Status | bytes | BaseException]") -> None:
        self._order = order
        self._news = news
        self._offset = 0

    def run(self) -> None:
        """Report until the artifact is final or nobody listens any more; an error is reported, too."""
        order = self._order
        try:
            _patiently(order.place, order.stop)
            if order.stop.is_set():  # interrupted while the order was on its way
                order.cancel()
            while not order.stop.is_set():
                status = _patiently(lambda: order.artifact.status(wait_s=TICK_S), order.stop)
                if status.started or status.is_final:
                    _patiently(self._report_log, order.stop)
                self._news.put(status)
                if status.is_final:
                    return
        except (BonseyesError, Failure) as error:
            self._news.put(error)

    def _report_log(self) -> None:
        for chunk in self._order.artifact.iter_log(self._offset, patience_s=0):
            self._offset += len(chunk)
            self._news.put(chunk)


def _patiently(call: Callable[[], _T], stop: threading.Event) -> _T:
    """Return what `call` returns, asking again for a minute while the container is away or has no room."""
    deadline = time.monotonic() + PATIENCE_S
    pause_s = 0.2
    while True:
        try:
            return call()
        except TRANSIENT:
            if stop.is_set() or time.monotonic() + pause_s > deadline:
                raise
            stop.wait(pause_s)
            pause_s = min(pause_s * 2, 5.0)


class _Journal:
    """Writes what the tool prints to the step's stdout, and the gist of it, with progress, to Dagster's log."""

    def __init__(self, context: OpExecutionContext, order: _Order) -> None:
        self._context = context
        self._url = order.artifact.url
        self._phase = ""
        self._noted = time.monotonic()
        self._rest = b""

    def write(self, chunk: bytes) -> None:
        """Pass whole lines on."""
        whole, newline, self._rest = (self._rest + chunk).rpartition(b"\n")
        self._pass_on(whole + newline)

    def close(self) -> None:
        """Pass on what is left without a line end."""
        if self._rest:
            self._pass_on(self._rest + b"\n")
            self._rest = b""

    def _pass_on(self, lines: bytes) -> None:
        if not lines:
            return
        sys.stdout.write(lines.decode(errors="replace"))
        sys.stdout.flush()
        shown = lines.rstrip(b"\n")
        if len(shown) > LOG_LIMIT_BYTES:
            shown = b"[...] the whole log is the step's stdout\n" + shown[-LOG_LIMIT_BYTES:].partition(b"\n")[2]
        self._context.log.info(shown.decode(errors="replace"))

    def note(self, status: Status) -> None:
        """Tell a change of phase at once, and progress now and then."""
        is_new = status.phase != self._phase
        if not is_new and time.monotonic() - self._noted < PROGRESS_S:
            return
        progress = _progress(status)
        if is_new or progress:
            self._phase, self._noted = status.phase, time.monotonic()
            self._context.log.info(f"{self._url} is {status.phase}{progress}")


def _progress(status: Status) -> str:
    if status.position:
        return f" at position {status.position}"
    progress = status.progress
    if progress.done is None:
        return ""
    total = f" of {progress.total:g}" if progress.total is not None else ""
    return f": {progress.done:g}{total} {progress.unit or ''} {progress.message or ''}".rstrip()


def _failure_of(order: _Order, status: Status) -> Failure:
    """An interrupted artifact is made again by the next attempt; a failed one would fail again."""
    return Failure(
        description=status.reason or f"The artifact was {status.phase}.",
        metadata={"artifact": MetadataValue.url(order.artifact.url), "phase": status.phase},
        allow_retries=status.phase == "interrupted",
    )


def _results(
    context: OpExecutionContext, order: _Order, status: Status
) -> Iterator[AssetMaterialization | Output[ArtifactRef]]:
    reference = ArtifactRef(
        container=order.container.name,
        name=order.artifact.name,
        type=order.output_type,
        digest=status.digest,
        size=status.size,
    )
    yield AssetMaterialization(
        asset_key=AssetKey([names.pipeline_name(context.run), *str(context.op_handle).split(".")]),
        description=f"{reference.type} {reference.url}",
        metadata=_metadata(order, reference, status),
    )
    yield Output(reference)


def _metadata(order: _Order, reference: ArtifactRef, status: Status) -> dict[str, Any]:
    info = order.artifact.info()
    provenance = info.get("provenance") or {}
    metadata: dict[str, Any] = {
        "url": MetadataValue.url(reference.url),
        "type": reference.type,
        "container": reference.container,
        "artifact": reference.name,
        "digest": reference.digest or "",
        "size_bytes": MetadataValue.int(reference.size or 0),
        "parameters": MetadataValue.json(info.get("parameters") or order.parameters),
        "version": str(provenance.get("version") or info.get("version") or ""),
        "created": status.created or "",
        "started": status.started or "",
        "finished": status.finished or "",
    }
    if status.reused_from:
        metadata["reused_from"] = status.reused_from
    if reference.type == "com.bonseyes.benchmark":
        metadata |= {name: MetadataValue.float(value) for name, value in _last_values(order.artifact)}
    return metadata


def _last_values(artifact: Artifact) -> Iterator[tuple[str, float]]:
    """Yield the final value of each metric, under a name that Dagster plots over the runs."""
    for metric in artifact.metrics():
        points, _ = artifact.metric(metric)
        if points:
            yield f"metric.{metric}", points[-1].value
