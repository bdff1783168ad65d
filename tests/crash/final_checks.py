"""Checks of a container once all artifacts are final: of its answers, its volume and its processes."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import psutil
import requests

from bonseyes_dagster.model import Manifest
from tests.contract.tools.server import ToolServer, is_alive
from tests.crash.model import FINAL
from tests.crash.tool.careful import content, expected

__all__ = ["fault_of", "leftover_files", "overlaps", "remaining_processes", "starts_of", "wait_until_all_final"]


def wait_until_all_final(server: ToolServer, stuck_s: float) -> float:
    """Wait until all artifacts are final; fail if nothing changes for too long. Return the longest pause."""
    seen: list[str] = []
    changed_s, longest_s = time.monotonic(), 0.0
    while True:
        try:
            body = requests.get(f"{server.url}/artifacts?detail=1", timeout=30).json()
            phases = [status["phase"] for status in body]
        except requests.RequestException:
            phases = seen
        if phases != seen:
            longest_s = max(longest_s, time.monotonic() - changed_s)
            seen, changed_s = phases, time.monotonic()
        if seen and FINAL.issuperset(seen):
            return longest_s
        assert time.monotonic() - changed_s < stuck_s, f"stuck for {stuck_s} s with {Counter(seen)}"
        time.sleep(0.05)


def fault_of(server: ToolServer, name: str) -> str | None:
    """Read a completed artifact with all its files; return its fault, or None."""
    url = f"{server.url}/artifacts/{name}"
    info = requests.get(url, timeout=30).json()
    if info["status"]["phase"] != "completed":
        return None
    parameters = info["parameters"]
    is_upload = "upload" in requests.get(f"{url}/input-files", timeout=30).json()
    upload = content(parameters["text"], 5000) if is_upload else None
    files = expected(parameters["text"], parameters["files"], parameters["size"], upload)
    answer = requests.get(f"{url}/files", timeout=30)
    if answer.status_code != 200:
        return f"{name} is completed, and its files are answered with {answer.text}"
    manifest = Manifest.from_json(answer.json())
    if {entry.path for entry in manifest.files} != files.keys():
        return f"{name} has {[entry.path for entry in manifest.files]} and not {[*files]}"
    if manifest.digest != info["digest"]:
        return f"{name} has another digest than its manifest"
    for entry in manifest.files:
        data = requests.get(f"{url}/data/{entry.path}", timeout=30).content
        if data != files[entry.path] or hashlib.sha256(data).hexdigest() != entry.sha256:
            return f"{name} has a wrong {entry.path}"
    return None


def leftover_files(volume: Path) -> list[str]:
    """Return files of a volume that belong to no row; call it only while no client creates or deletes."""
    with closing(sqlite3.connect(volume / "index.sqlite")) as connection:
        rows = dict(connection.execute("SELECT id, name FROM artifacts"))
        [[state]] = connection.execute("PRAGMA integrity_check")
    found = [] if state == "ok" else [f"the index is corrupt: {state}"]
    found += [f"row {row} has no name" for row, name in rows.items() if name is None]
    for path in (*volume.glob("drafts/*"), *volume.glob("trash/*"), *volume.glob("artifacts/*/staging")):
        found.append(str(path.relative_to(volume)))
    found += [str(path.relative_to(volume)) for path in volume.glob("artifacts/*") if path.name not in rows]
    return found


def starts_of(ledger: Path) -> list[str]:
    """Return the tokens of all starts, in their order."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [line.split()[1] for line in lines if line.startswith("begin ")]


def overlaps(ledger: Path) -> list[str]:
    """Return the tokens of artifacts that started while a process of an earlier one still ran."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [line.split()[1] for line in lines if line.startswith("overlap ")]


def remaining_processes(server: ToolServer, ledger: Path) -> list[str]:
    """Return processes that artifacts have left: known from the ledger, or by the volume in their environment."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    known = {int(line.split()[1]) for line in lines if line.startswith("pid ")}
    found = [f"{pid} of a family" for pid in known if is_alive(pid) and _is_of_a_tool(pid)]
    marker = f"BONSEYES_VOLUME={server.volume}"
    servers = {server.master, server.mule, *server.workers}
    spare = {child.pid for child in psutil.Process(server.mule).children()}
    for process in psutil.process_iter():
        try:
            is_ours = process.environ().get("BONSEYES_VOLUME") == marker.partition("=")[2]
        except psutil.Error:
            continue
        if is_ours and process.pid not in servers | spare and is_alive(process.pid):
            found.append(f"{process.pid} {process.cmdline()}")
    return found


def _is_of_a_tool(pid: int) -> bool:
    """Tell whether the pid still belongs to a tool, and not to a new process."""
    try:
        process = psutil.Process(pid)
        return "BONSEYES_ARTIFACT" in process.environ() or "BONSEYES_SERVER" in process.environ()
    except psutil.Error:
        return False
