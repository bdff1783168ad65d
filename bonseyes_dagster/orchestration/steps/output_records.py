"""Reads the records of step outputs from the event logs of runs; each process reads each event once.

references.py needs a record for each input of each step. A step with a thousand inputs must not read the log a
thousand times.
"""

import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from dagster import DagsterEventType, DagsterInstance

from bonseyes_dagster.execution.threads.stored_values import OutputPlace

__all__ = ["METADATA_KEY", "OutputRecords"]

METADATA_KEY = "reference"
_PAGE = 1000
_Kept = Mapping[str, Any]


class OutputRecords:
    """Finds the record of an output. This process's own records are in memory, all others in the run's event log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Separate from `_read`: the log may have an older attempt of the same step and not yet the newest.
        self._made: dict[OutputPlace, _Kept] = {}
        self._read: dict[OutputPlace, _Kept] = {}
        self._cursors: dict[str, str | None] = defaultdict(lambda: None)
        self._up_to_date: set[tuple[str, str]] = set()

    def add(self, place: OutputPlace, kept: _Kept) -> None:
        """Remember the record of an output that a step of this process has just made."""
        with self._lock:
            self._made[place] = kept

    def find(self, instance: DagsterInstance, place: OutputPlace, reader: str = "") -> _Kept | None:
        """Return the record of an output; None if its run has no event for it.

        `reader` is the key of the step that reads the output, if it is a step of the same run. At the step's first
        read, this reads new events of the log: a step in another process may have written the output again. All inputs
        of a step exist before the step starts, so one read is enough.
        """
        with self._lock:
            if place in self._made:
                return self._made[place]
            is_stale = bool(reader) and (place.run_id, reader) not in self._up_to_date
            if is_stale or place not in self._read:
                self._read_on(instance, place.run_id)
                self._up_to_date.add((place.run_id, reader))
            return self._read.get(place)

    def _read_on(self, instance: DagsterInstance, run_id: str) -> None:
        """Read the new events of a run's log; of two events for one output the later counts."""
        has_more = True
        while has_more:
            page = instance.get_records_for_run(
                run_id, cursor=self._cursors[run_id], of_type=DagsterEventType.HANDLED_OUTPUT, limit=_PAGE
            )
            for record in page.records:
                self._take(run_id, record.event_log_entry.dagster_event)
            self._cursors[run_id], has_more = page.cursor, page.has_more

    def _take(self, run_id: str, event: Any) -> None:
        data = event.event_specific_data
        if METADATA_KEY in data.metadata:
            kept = data.metadata[METADATA_KEY].value
            place = OutputPlace(run_id, event.step_key, data.output_name, kept.get("mapping_key"))
            self._read[place] = kept
