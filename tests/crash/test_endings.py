"""Cancels and deletes at any moment: no process runs on, no artifact comes back, no short download looks complete."""

from __future__ import annotations

import io
import random
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.contract.tools.server import ToolServer
from tests.crash.final_checks import fault_of, leftover_files, overlaps, remaining_processes
from tests.crash.history import answer_of
from tests.crash.model import FINAL
from tests.crash.operations import ContainerUnderTest
from tests.crash.scale import CANCELS, seeded
from tests.crash.tool.careful import expected
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]
TOOL = Path(__file__).parent / "tool"
_GONE_WITHIN_S = 10
_FILES, _SIZE = 3, 3_000_000


def end_one(tested: ContainerUnderTest, number: int, seed: int) -> str:
    """Create an artifact with child processes, and cancel or delete it after a while; return its end."""
    random_ = random.Random(seed)
    name = f"e{number}"
    tested.ensure_created(name, seconds=random_.choice([0, 0.05, 0.3, 60]), family=random_.random() < 0.7)
    time.sleep(random_.choice([0, 0, random_.uniform(0, 0.4)]))
    if random_.random() < 0.3:
        # The most delicate moment is when it begins to finish.
        answer_of("GET", f"{tested.url}/{name}/status?wait=0.4")
    if random_.random() < 0.5:
        answer, _, _ = answer_of("POST", f"{tested.url}/{name}/cancel")
        assert answer is not None and answer.status_code == 200, answer
        until(lambda: tested.phase(name) in FINAL, 120)
        return str(tested.phase(name))
    answer, _, _ = answer_of("DELETE", f"{tested.url}/{name}")
    assert answer is not None and answer.status_code == 200, answer
    assert tested.phase(name) == "missing"
    return "deleted"


def test_cancels_and_deletes_leave_no_process_and_no_file(tmp_path: Path) -> None:
    """The artifact waits, runs or finishes, also with descendants in other sessions."""
    seeded_ = seeded()
    server = ToolServer(TOOL, tmp_path / "volume")
    try:
        server.start()
        tested = ContainerUnderTest(server, tmp_path / "ledger")
        with ThreadPoolExecutor(4) as pool:
            seeds = [seeded_.randrange(2**31) for _ in range(CANCELS)]
            counts = Counter(pool.map(lambda pair: end_one(tested, *pair), enumerate(seeds)))
        until(lambda: not remaining_processes(server, tested.ledger), _GONE_WITHIN_S)
        until(lambda: not leftover_files(server.volume), _GONE_WITHIN_S)
        statuses = requests.get(f"{tested.url}?detail=1", timeout=30).json()
        assert len(statuses) == CANCELS - counts["deleted"]
        assert {status["phase"] for status in statuses} <= {"completed", "cancelled"}
        assert not [wrong for status in statuses if (wrong := fault_of(server, status["name"]))]
        assert not overlaps(tested.ledger)
        print(f"{CANCELS} endings: {dict(counts)}")
    finally:
        server.end()


def download(url: str, started: threading.Event, random_: random.Random) -> bytes | None:
    """Read slowly, so that the artifact can be deleted meanwhile; return None if the download breaks off."""
    try:
        with requests.get(url, stream=True, timeout=60) as answer:
            if answer.status_code != 200:
                assert answer.status_code == 404, answer.text
                return None
            data = io.BytesIO()
            for chunk in answer.iter_content(1 << 18):
                data.write(chunk)
                started.set()
                time.sleep(random_.uniform(0, 0.02))
            return data.getvalue()
    except requests.RequestException:
        return None
    finally:
        started.set()


def test_downloads_during_deletes_are_complete_or_break_off(tmp_path: Path) -> None:
    """A download must never look complete if it is shorter."""
    seeded_ = seeded()
    counts: Counter[str] = Counter()
    with ThreadPoolExecutor(3) as pool:
        server = ToolServer(TOOL, tmp_path / "volume")
        try:
            server.start()
            tested = ContainerUnderTest(server, tmp_path / "ledger")
            for number in range(max(3, CANCELS // 10)):
                name = f"d{number}"
                tested.ensure_completed(name, files=_FILES, size=_SIZE)
                events = [threading.Event() for _ in range(3)]
                url = f"{tested.url}/{name}/data"
                urls = [f"{url}/part0/file", f"{url}/part2/file", url]
                reads = [
                    pool.submit(download, url, event, random.Random(seeded_.random()))
                    for url, event in zip(urls, events, strict=True)
                ]
                for event in events:
                    event.wait(60)
                time.sleep(seeded_.uniform(0, 0.1))
                tested.ensure_deleted(name)
                files = expected(name, _FILES, _SIZE)
                for path, read in zip(("part0/file", "part2/file", ""), reads, strict=True):
                    counts[result_of_download(read.result(), path, files)] += 1
            until(lambda: not leftover_files(server.volume), _GONE_WITHIN_S)
        finally:
            server.end()
    print(f"downloads during deletions: {dict(counts)}")
    assert counts["whole file"]


def result_of_download(data: bytes | None, path: str, files: dict[str, bytes]) -> str:
    """Return how a download ended; fail if it is neither complete nor broken off."""
    if data is None:
        return "broken"
    if path:
        assert data == files[path], f"{len(data)} of {len(files[path])} bytes of {path}, and no error"
        return "whole file"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        found = {name: archive.read(name) for name in archive.namelist()}
    assert {name: found[name] for name in files} == files
    return "whole archive"
