"""What the event logs of runs say of the outputs of their steps, each event read once by a process.

references.py asks it for each input of each step. A step with a thousand inputs must not read the log a thousand times.
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
    """Finds what is kept of an output: what this process made is in memory, all else in the event log of its run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Apart from what was read: the log may still lack the newest attempt, and have an older one of the same step.
        self._made: dict[OutputPlace, _Kept] = {}
        self._read: dict[OutputPlace, _Kept] = {}
        self._cursors: dict[str, str | None] = defaultdict(lambda: None)
        self._up_to_date: set[tuple[str, str]] = set()

    def add(self, place: OutputPlace, kept: _Kept) -> None:
        """Remember an output that a step of this process has just made."""
        with self._lock:
            self._made[place] = kept

    def find(self, instance: DagsterInstance, place: OutputPlace, reader: str = "") -> _Kept | None:
        """Return what is kept of an output; None if its run has no event that tells of it.

        `reader` is the key of a step of the same run. Its first read brings the log up to date: since the log was last
        read, a step in a process of its own may have given the output again. All inputs of the step were there before.
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
        """Read what a run's log has gained since it was last read; of two events of one output the later counts."""
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
