"""The memory of an inbox, in Dagster's storage: which contents have had their run. `sensor.py` uses it.

The run key is not enough: a deleted run takes its key along, and its archives would start another run. The sensor's
cursor is no good place either: Dagster writes it into the row of each tick, and it would be large. So the cursor is
only a token, and the memory is one separate row.
"""

import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from dagster import DagsterInstance

__all__ = ["InboxState"]

_KEY = "bonseyes/inbox/{}"
# So many contents are remembered after their folder is gone: when an unmounted disk comes back, they start no new runs.
_MOST_GONE = 10_000
# So many ticks are remembered whose requests Dagster has not confirmed. "Test sensor" in the UI makes such ticks.
_MOST_PENDING = 8


@dataclass
class InboxState:
    """One inbox's memory.

    `folders` has the stamp and digest of each folder that was read. `done` has the folder of each content that has had
    its run. `pending` has the contents that a look requested, by the token that the look gave Dagster as the cursor.
    """

    folders: dict[str, tuple[str, str]] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    pending: dict[str, dict[str, str]] = field(default_factory=dict)
    _saved: str = ""

    @classmethod
    def load(cls, instance: DagsterInstance, sensor: str) -> "InboxState":
        """Return the stored memory of a sensor; an empty one if nothing is stored."""
        text = instance.run_storage.get_cursor_values({_KEY.format(sensor)}).get(_KEY.format(sensor), "")
        kept: dict[str, Any] = json.loads(text) if text else {}
        folders = {name: (stamp, digest) for name, (stamp, digest) in kept.get("folders", {}).items()}
        return cls(folders, kept.get("done", {}), kept.get("pending", {}), text)

    def save(self, instance: DagsterInstance, sensor: str) -> None:
        """Store the memory if it has changed."""
        text = json.dumps({"folders": self.folders, "done": self.done, "pending": self.pending})
        if text != self._saved:
            instance.run_storage.set_cursor_values({_KEY.format(sensor): text})
            self._saved = text

    def confirm(self, cursor: str | None, is_launched: Callable[[str], bool]) -> None:
        """Mark the requests of the look that returned `cursor` as done: Dagster stores the cursor with their runs.

        Without a cursor, forget all contents: a user who clears the cursor in the UI wants to start from the beginning.
        """
        if cursor is None:
            self.done.clear()
            self.pending.clear()
        confirmed = self.pending.pop(cursor or "", {})
        self.done |= {digest: name for digest, name in confirmed.items() if is_launched(digest)}

    def request(self, digests: dict[str, str]) -> str:
        """Remember the requested contents, and return the cursor for Dagster."""
        token = uuid.uuid4().hex[:16]
        self.pending[token] = digests
        for old in list(self.pending)[:-_MOST_PENDING]:
            del self.pending[old]
        return token

    def prune(self, present: Iterable[str]) -> None:
        """Forget folders that are gone. Of the contents that no folder holds, forget all but the newest 10 000."""
        present = set(present)
        self.folders = {name: known for name, known in self.folders.items() if name in present}
        held = {digest for _, digest in self.folders.values()}
        gone = [digest for digest in self.done if digest not in held]
        for digest in gone[: max(0, len(gone) - _MOST_GONE)]:
            del self.done[digest]
