"""The merged log of a run: Dagster's events and the output of the tools, in the order of time. `Runs.log` serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from dagster import DagsterEventType, DagsterInstance

__all__ = ["MergedLog"]

_PAGE = 500
_SHOWN = {
    DagsterEventType.RUN_ENQUEUED,
    DagsterEventType.RUN_STARTING,
    DagsterEventType.RUN_START,
    DagsterEventType.RUN_SUCCESS,
    DagsterEventType.RUN_FAILURE,
    DagsterEventType.RUN_CANCELING,
    DagsterEventType.RUN_CANCELED,
    DagsterEventType.STEP_START,
    DagsterEventType.STEP_SUCCESS,
    DagsterEventType.STEP_FAILURE,
    DagsterEventType.STEP_UP_FOR_RETRY,
    DagsterEventType.STEP_RESTARTED,
    DagsterEventType.STEP_SKIPPED,
    DagsterEventType.ENGINE_EVENT,
    DagsterEventType.ASSET_MATERIALIZATION,
}


class MergedLog:
    """Reads the merged log of a run. The log grows only at its end, so byte offsets stay valid."""

    def __init__(self, instance: DagsterInstance) -> None:
        self._instance = instance

    def read(self, run_id: str, *, offset: int, is_final: Callable[[], bool] | None) -> Iterator[bytes]:
        """Yield the log from byte `offset`.

        With `is_final`, follow the log until it returns True, and yield b"" whenever there is nothing new.
        """
        skip = offset
        for chunk in self._chunks(run_id, is_final):
            if len(chunk) > skip:
                yield chunk[skip:]
            elif not chunk:
                yield b""
            skip = max(0, skip - len(chunk))

    def _chunks(self, run_id: str, is_final: Callable[[], bool] | None) -> Iterator[bytes]:
        cursor: str | None = None
        latest = 0.0
        while True:
            # Ask before reading: then this pass reads the whole log of a final run.
            is_last = is_final is None or is_final()
            while True:
                page = self._instance.get_records_for_run(run_id, cursor=cursor, limit=_PAGE)
                for record in page.records:
                    # Steps write at the same time, so timestamps may be some milliseconds out of order.
                    latest = max(latest, record.event_log_entry.timestamp)
                    yield from filter(None, [_lines(record.event_log_entry, latest)])
                cursor = page.cursor
                if not page.has_more:
                    break
            if is_last:
                return
            yield b""


def _lines(entry: Any, moment: float) -> bytes:
    event = entry.dagster_event
    if event is not None and event.event_type not in _SHOWN:
        return b""
    head = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    where = entry.step_key or "run"
    text = _text(entry, event)
    return "".join(f"{head} {where}: {line}\n" for line in text.splitlines()).encode(errors="replace")


def _text(entry: Any, event: Any) -> str:
    if event is None:
        return str(entry.user_message)
    text = str(event.message or event.event_type_value)
    data = event.event_specific_data
    failure = getattr(data, "user_failure_data", None)
    error = getattr(data, "error", None)
    if failure is not None and failure.description:
        return f"{text}\n{failure.description}"
    if event.event_type is DagsterEventType.RUN_FAILURE and "Steps failed" in text:
        return text  # the events of the steps have the reasons
    if error is None or (error.cls_name or "").endswith("InterruptedError"):
        return text  # the traceback of an interruption is no help
    return f"{text}\n{error.to_string()}"
