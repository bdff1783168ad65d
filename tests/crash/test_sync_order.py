"""Everything is synced before it is acknowledged: this test checks the order of the system calls in a trace.

A real loss of the page cache needs a separate disk (see test_power_cut.py). This test runs wherever strace runs. It is
stricter in one way: it finds all data that a power cut could lose, not only data that one cut has lost.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.contract.tools.server import ToolServer
from tests.crash.operations import ContainerUnderTest
from tests.crash.scale import IS_SHORT
from tests.crash.trace_order import TRACED_CALLS, Call, Unsynced, calls_of
from tests.crash.tracing import Strace, why_not
from tests.waiting import until

pytestmark = pytest.mark.slow

TOOL = Path(__file__).parent / "tool"
_FILES = 5


def test_unsynced_finds_files_and_names_without_a_sync() -> None:
    """Content, names and moved files stay unsynced until they are synced themselves."""
    state = Unsynced()

    def unsynced_after(*lines: str) -> set[str]:
        for call in calls_of(lines):
            state.add(call)
        return state.within("/v")

    assert unsynced_after('1 mkdir("/v/d", 0777) = 0') == {"/v/d"}
    assert unsynced_after('1 openat(AT_FDCWD</>, "/v/d/f", O_WRONLY|O_CREAT, 0644) = 3</v/d/f>') == {"/v/d", "/v/d/f"}
    assert unsynced_after('1 write(3</v/d/f>, "x", 1) = 1', "1 fsync(3</v/d/f>) = 0") == {"/v/d", "/v/d/f"}
    assert unsynced_after("1 fsync(3</v/d>) = 0") == {"/v/d"}
    begun, ended = "1 fsync(3</v> <unfinished ...>", "1 <... fsync resumed>) = 0"
    assert unsynced_after(begun, '2 write(3</v/d/f>, "x", 1) = 1', ended) == {"/v/d/f"}
    late = "1 fsync(3</v/d/f> <unfinished ...>"
    assert unsynced_after(late, '2 write(3</v/d/f>, "y", 1) = 1', ended) == {"/v/d/f"}
    assert unsynced_after('1 rename("/v/d", "/v/e") = 0') == {"/v/e", "/v/e/f"}
    assert unsynced_after("1 fdatasync(3</v/e/f>) = -1 EIO (Input/output error)") == {"/v/e", "/v/e/f"}
    assert unsynced_after("1 syncfs(3</v>) = 0") == set()


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize("files", [0, 30] if IS_SHORT else [0, _FILES, 30])
def test_everything_is_synced_in_time(tmp_path: Path, files: int) -> None:
    """Inputs and row before the 200, outputs before the row is completed, the row before the bell rings."""
    server = ToolServer(TOOL, tmp_path / "volume", BONSEYES_PROCESSES="1", BONSEYES_THREADS="1")
    try:
        server.start()
        tested = ContainerUnderTest(server, tmp_path / "ledger")
        tested.ensure_completed("witness")
        # The waiting child writes the outputs of the next artifact.
        pids = [server.workers[0], server.mule, server.child()]
        options = ("-y", "-s", "64", "-e", f"trace={TRACED_CALLS}")
        with Strace(pids, tmp_path / "trace", *options) as strace:
            tested.ensure_completed("made", files=files)
            tested.ensure_deleted("made")
            tested.ensure_created("again")
            until(lambda: tested.phase("again") == "completed")
            # The row is readable before the worker rings the bell.
            until(lambda: len(final_rings(strace.lines(), server)) >= 2)
        lines = strace.lines()
    finally:
        server.end()
    checker = SyncChecker(str(server.volume))
    for call in calls_of(lines):
        checker.check_call(call)
    assert checker.seen == {"acknowledged": 3, "published": 2, "completed": 2, "reported": 2}


def final_rings(lines: list[str], server: ToolServer) -> list[str]:
    """Return the lines of the trace in which the worker rings the final bell."""
    return [line for line in lines if line.startswith(f"{server.mule} ") and "final.bell" in line]


class SyncChecker:
    """Follows a trace, and fails if something is promised before its sync; counts its checks."""

    def __init__(self, volume: str) -> None:
        self.seen: Counter[str] = Counter()
        self._volume = volume
        self._log = f"{volume}/index.sqlite-wal"
        self._state = Unsynced()
        self._published: dict[int, str] = {}
        self._completed: set[int] = set()

    def check_call(self, call: Call) -> None:
        """Check one call against the state, then add it."""
        if call.name == "writev" and "HTTP/1.1 200" in call.arguments and "success" in call.arguments:
            self._check_acknowledged(call)
        elif call.name.startswith("rename") and call.paths[1].endswith("/data"):
            self._check_published(call, call.paths[1].removesuffix("/data"))
        elif call.name == "pwrite64" and call.file == self._log and call.pid in self._published:
            self._check_completed(call)
        elif call.paths[:1] == [f"{self._volume}/final.bell"] and call.pid in self._completed:
            self._completed.remove(call.pid)
            self._check("reported", call, set())
        self._state.add(call)

    def _check(self, what: str, call: Call, missing: set[str]) -> None:
        self.seen[what] += 1
        assert not missing, f"{what} before these were synced: {missing}"
        if what in ("acknowledged", "reported"):
            # Other processes may write to the log meanwhile; only the writes of this one count.
            assert call.pid not in self._state.contents.get(self._log, ()), f"{what} before the row was synced"

    def _check_acknowledged(self, call: Call) -> None:
        """Check before a 200 for a creation or a deletion: uploads, their folders and the row are synced."""
        pattern = re.compile(rf"{re.escape(self._volume)}(/artifacts(/\w+(/inputs(/.*)?)?)?)?")
        unsynced = self._state.within(self._volume)
        self._check("acknowledged", call, {path for path in unsynced if pattern.fullmatch(path)})

    def _check_published(self, call: Call, folder: str) -> None:
        """Check before the rename of the outputs: they and the content of the manifest are synced."""
        self._published[call.pid] = folder
        missing = self._state.within(f"{folder}/staging") - {f"{folder}/staging"}
        self._check("published", call, missing | {f"{folder}/manifest.json"} & self._state.contents.keys())

    def _check_completed(self, call: Call) -> None:
        """Check before the row is completed: data, manifest and their names are synced."""
        folder = self._published.pop(call.pid)
        self._completed.add(call.pid)
        self._check("completed", call, self._state.within(f"{folder}/data", f"{folder}/manifest.json"))
        assert folder not in self._state.names
