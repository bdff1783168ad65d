"""What an inbox remembers of earlier looks, kept in Dagster's storage: which contents have had their run.

A run that is deleted takes its run key along, so the key alone would let its archives start another. Dagster writes a
sensor's cursor into the row of each tick; it would be large. So the cursor is a token, and the memory one row beside.
"""

import json
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from dagster import DagsterInstance

__all__ = ["InboxState"]

_KEY = "bonseyes/inbox/{}"
# Contents whose folder is gone: a disk that is not mounted for a while must not start them all again.
_MOST_GONE = 10_000
# Ticks whose requests Dagster has not confirmed; "Test sensor" in the UI makes such, too.
_MOST_PENDING = 8


@dataclass
class InboxState:
    """One inbox's memory.

    `folders` is the stamp and the digest of each folder that was read; `done` the folder of each content that has
    had its run; `pending` the contents that a look requested, by the token that it gave Dagster as the cursor.
    """

    folders: dict[str, tuple[str, str]] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    pending: dict[str, dict[str, str]] = field(default_factory=dict)
    _saved: str = ""

    @classmethod
    def load(cls, instance: DagsterInstance, sensor: str) -> "InboxState":
        """Return what is kept for a sensor; an empty one when nothing is."""
        text = instance.run_storage.get_cursor_values({_KEY.format(sensor)}).get(_KEY.format(sensor), "")
        kept: dict[str, Any] = json.loads(text) if text else {}
        folders = {name: (stamp, digest) for name, (stamp, digest) in kept.get("folders", {}).items()}
        return cls(folders, kept.get("done", {}), kept.get("pending", {}), text)

    def save(self, instance: DagsterInstance, sensor: str) -> None:
        """Keep it, if it has changed."""
        text = json.dumps({"folders": self.folders, "done": self.done, "pending": self.pending})
        if text != self._saved:
            instance.run_storage.set_cursor_values({_KEY.format(sensor): text})
            self._saved = text

    def confirm(self, cursor: str | None, is_launched: Callable[[str], bool]) -> None:
        """Take the requests of the look that gave `cursor` as done, for Dagster has kept the cursor with their runs.

        Without a cursor nothing has been done: a user who clears it in the UI begins anew.
        """
        if cursor is None:
            self.done.clear()
            self.pending.clear()
        confirmed = self.pending.pop(cursor or "", {})
        self.done |= {digest: name for digest, name in confirmed.items() if is_launched(digest)}

    def request(self, digests: dict[str, str]) -> str:
        """Remember what is being requested, and return the cursor to give Dagster with the requests."""
        token = uuid.uuid4().hex[:16]
        self.pending[token] = digests
        for old in list(self.pending)[:-_MOST_PENDING]:
            del self.pending[old]
        return token

    def prune(self, present: Iterable[str]) -> None:
        """Forget folders that are gone, and the oldest contents that no folder holds, beyond a number."""
        present = set(present)
        self.folders = {name: known for name, known in self.folders.items() if name in present}
        held = {digest for _, digest in self.folders.values()}
        gone = [digest for digest in self.done if digest not in held]
        for digest in gone[: max(0, len(gone) - _MOST_GONE)]:
            del self.done[digest]
