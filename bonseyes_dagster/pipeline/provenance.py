"""Makes the files of a completed run: `run.json` with the origin of its results, and the files of its benchmarks."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from bonseyes_dagster.errors import ConnectionFailedError, NotFoundError, UnavailableError
from bonseyes_dagster.execution.runs.run_names import pipeline_name, run_name
from bonseyes_dagster.formats.json_text import format_json
from bonseyes_dagster.model import FileEntry, Manifest
from bonseyes_dagster.orchestration.runs.container_requests import ContainerRequests
from bonseyes_dagster.orchestration.runs.states import RunState, StepState
from bonseyes_dagster.tags import VERSION_TAG
from bonseyes_dagster.web.backend import DataFile

__all__ = ["Provenance", "provenance_of"]

RUN_FILE = "run.json"
BENCHMARK = "com.bonseyes.benchmark"


def provenance_of(state: RunState, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `run.json`, from Dagster's storage alone: one run always gives the same content."""
    run, record = state.run, state.record
    return {
        "name": state.name,
        "pipeline": pipeline_name(run),
        "version": run.tags.get(VERSION_TAG),
        "run_id": run.run_id,
        "parent_run_id": run.parent_run_id,
        "parameters": dict(parameters),
        "inputs": _inputs(run.run_config, parameters),
        "started": _time(record.start_time),
        "finished": _time(record.end_time),
        "duration_s": _duration(record.start_time, record.end_time),
        "complete": all(each.phase == "completed" for each in state.steps),
        "steps": [_step(each) for each in state.steps],
    }


def _inputs(run_config: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that the user gave to a run of only some ops, with keys like `op.parameter`."""
    return {name: value for name, value in run_config.items() if "." in name and name not in parameters}


def _step(state: StepState) -> dict[str, Any]:
    made = state.made
    return {
        "name": state.name,
        "container": state.step.container,
        "tool_version": made.get("version") or None,
        "phase": state.phase,
        "inherited_from": {"name": run_name(state.run), "run_id": state.run.run_id} if state.is_inherited else None,
        "started": _time(state.stats.start_time if state.stats else None),
        "finished": _time(state.stats.end_time if state.stats else None),
        "duration_s": _rounded(state.duration_s),
        "attempts": state.stats.attempts if state.stats else None,
        "artifact": {
            "name": state.artifact or None,
            "url": made.get("url"),
            "type": made.get("type"),
            "digest": made.get("digest"),
            "size": made.get("size_bytes"),
            "parameters": made.get("parameters"),
            "reused_from": made.get("reused_from"),
            "code_changed": bool(made.get("code_changed")) if made else None,
        },
        "metrics": state.metrics,
    }


class Provenance:
    """The files of completed runs. The folder `cache` keeps files that were downloaded from benchmarks' containers."""

    def __init__(self, requests: ContainerRequests, cache: Path) -> None:
        self._requests = requests
        self._cache = cache

    def files(self, state: RunState, parameters: Mapping[str, Any]) -> list[DataFile]:
        """Return `run.json` and the files of each benchmark, below its step's name."""
        content = format_json(provenance_of(state, parameters), indent=2, ensure_ascii=False).encode() + b"\n"
        entry = FileEntry(RUN_FILE, len(content), hashlib.sha256(content).hexdigest())
        files = [DataFile(entry, lambda: _opened(content))]
        for step in state.steps:
            if step.step.output_type == BENCHMARK and step.is_selected:
                files += self._report(step)
        return sorted(files, key=lambda file: file.entry.path)

    def manifest(self, state: RunState, parameters: Mapping[str, Any]) -> Manifest:
        """Return the manifest of the files that `files` returns."""
        return Manifest(tuple(file.entry for file in self.files(state, parameters)))

    def _report(self, step: StepState) -> list[DataFile]:
        artifact = self._requests.container(step.step.container).artifact(step.artifact)
        try:
            manifest = artifact.manifest()
        except NotFoundError:  # somebody deleted the artifact: `run.json` alone is still useful
            return []
        except ConnectionFailedError as error:
            raise UnavailableError(f"The benchmark's container {step.step.container} does not answer.") from error
        if step.made.get("digest") not in (None, "", manifest.digest):
            return []  # another artifact has the name now

        def opener(entry: FileEntry) -> DataFile:
            path = self._cache / entry.sha256
            named = FileEntry(f"{step.name}/{entry.path}", entry.size, entry.sha256)
            return DataFile(named, lambda: _fetched(path, lambda: artifact.download(entry.path, path)))

        return [opener(entry) for entry in manifest.files]


def _fetched(path: Path, fetch: Any) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch()
        return path.open("rb")


def _opened(content: bytes) -> BinaryIO:
    # A real file: the web layer can serve ranges of it.
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    file.write(content)
    file.seek(0)
    return file


def _time(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _duration(started: float | None, finished: float | None) -> float | None:
    return _rounded(finished - started) if started is not None and finished is not None else None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
