"""The runs of one pipeline, as the backend of the uniform routes. Runs are stored in Dagster's instance only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from bonseyes_dagster import tags
from bonseyes_dagster.client import Addresses
from bonseyes_dagster.description import check_parameters
from bonseyes_dagster.errors import (
    ConflictError,
    InvalidError,
    NotFinalError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from bonseyes_dagster.execution.runs.run_names import new_run_name, run_id_of, run_name
from bonseyes_dagster.execution.storage.instance import LOCATION
from bonseyes_dagster.execution.threads.compute_logs import remove_orphaned_logs
from bonseyes_dagster.model import Manifest, Status, ToolDescription
from bonseyes_dagster.orchestration.pipeline import Pipeline
from bonseyes_dagster.orchestration.runs.container_requests import ContainerRequests
from bonseyes_dagster.orchestration.runs.launching import RunStarter
from bonseyes_dagster.orchestration.runs.merged_log import MergedLog
from bonseyes_dagster.orchestration.runs.records import Instance, Records, is_marked, open_instance
from bonseyes_dagster.orchestration.runs.run_ending import RunEnding
from bonseyes_dagster.orchestration.runs.run_locks import RunLocks
from bonseyes_dagster.orchestration.runs.states import RunState, States
from bonseyes_dagster.pipeline.provenance import Provenance, provenance_of
from bonseyes_dagster.pipeline.run_metrics import metric_lines
from bonseyes_dagster.pipeline.uploads import RunDraft, Uploads
from bonseyes_dagster.settings import Settings
from bonseyes_dagster.urls import Collection
from bonseyes_dagster.web.backend import DataFile, Draft, Request
from bonseyes_dagster.web.final_watch import FinalWatch

__all__ = ["Runs"]

_ORPHAN_AGE_S = 3600.0
# After this time, a launch that began before the definitions were reloaded has ended.
_CLOSE_S = 120.0
_LOOK_EVERY_S = 0.05


class Runs:
    """Implements `bonseyes_dagster.web.backend.Backend` over a Dagster instance. It opens the instance at first use."""

    kind: Collection = "runs"

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        *,
        volume: Path,
        workspace: Path,
    ) -> None:
        self.pipeline = pipeline
        self._settings = settings
        self._workspace = workspace
        self._uploads = Uploads(volume, reserve_bytes=settings.disk_reserve_bytes)
        self._cache = volume / "cache"
        # `serve` does not replace the locks: a launch or a deletion may be in progress when it is called.
        self._start_locks = RunLocks()
        self._delete_locks = RunLocks()

    # Opened at first use, because the server forks after it has made this object

    @cached_property
    def instance(self) -> Instance:
        """Return the Dagster instance of DAGSTER_HOME."""
        return open_instance()

    @cached_property
    def _records(self) -> Records:
        return Records(self.instance, self.pipeline)

    @cached_property
    def _starter(self) -> RunStarter:
        return RunStarter(self.instance, self._workspace, self.pipeline.job_name, self._start_locks)

    @cached_property
    def _finals(self) -> FinalWatch:
        # Dagster's storages cannot notify. One look for all waiting requests costs half a millisecond.
        return FinalWatch(self._records.finished_among, partial(time.sleep, _LOOK_EVERY_S))

    @cached_property
    def states(self) -> States:
        """Return the reader of the runs' states."""
        return States(self._records, self.pipeline, self.requests, self._settings.gateway_url)

    @cached_property
    def requests(self) -> ContainerRequests:
        """Return the sender of requests to containers; it needs no Dagster."""
        return ContainerRequests(Addresses.from_settings(self._settings))

    @cached_property
    def _ending(self) -> RunEnding:
        return RunEnding(
            self._records,
            self.states,
            self._uploads.remove,
            delete_locks=self._delete_locks,
            start_locks=self._start_locks,
        )

    @cached_property
    def _provenance(self) -> Provenance:
        return Provenance(self.requests, self._cache)

    def serve(self, pipeline: Pipeline) -> None:
        """Serve a reloaded pipeline from now on; requests in progress still use the old one."""
        self.pipeline = pipeline
        former = self.__dict__.pop("_starter", None)
        for name in ("_records", "states", "_ending"):
            self.__dict__.pop(name, None)
        if former is not None:
            closing = threading.Timer(_CLOSE_S, former.close)
            closing.daemon = True
            closing.start()

    # About the pipeline

    def describe(self) -> ToolDescription:
        """Return the answer of `GET /`."""
        name = self.pipeline.job_name
        url = f"{self._settings.gateway_url}/dagster/locations/{LOCATION}/jobs/{name}"
        return replace(self.pipeline.describe(), dagster={"job": name, "url": url})

    def check_health(self) -> None:
        """Raise UnavailableError unless runs can be read and launched."""
        self._records.check()
        self._starter.check()

    def gauges(self) -> Mapping[str, float]:
        """Return the number of runs that wait, and of all runs by phase."""
        counts = self._records.counts()
        by_phase = {f'runs{{phase="{phase}"}}': float(count) for phase, count in counts.items()}
        return {"queue_length": float(counts["queued"]), **by_phase}

    # Creating

    def begin(self) -> Draft:
        """Begin a creation."""
        return self._uploads.begin()

    def create(self, request: Request) -> str:
        """Launch a run and return its name.

        The run's id is made from its name. So of several requests for one name, only one can create the run.
        """
        draft = request.draft
        assert isinstance(draft, RunDraft)  # begin() made it
        values = check_parameters(self.pipeline.parameters, request.parameters, files=draft.files)
        reuse = {True: "true", False: "false", None: ""}[request.reuse]
        key, body = _digests(request, draft, reuse)
        if key and (former := self._former_run(key, body)):
            return former
        name = request.name or new_run_name(self.pipeline.name)
        token = ""
        try:
            self._check_name(name)
            token = self._uploads.keep(draft)
            config = {each: value for each, value in values.items() if value is not None}
            config |= {each: str(self._uploads.path(token, file)) for each, file in draft.files.items()}
            self._starter.start(
                run_id=run_id_of(name),
                run_config=config,
                tags=_tags(
                    {
                        tags.RUN_TAG: name,
                        tags.UPLOADS_TAG: token,
                        tags.IDEMPOTENCY_TAG: key,
                        tags.IDEMPOTENCY_BODY_TAG: body,
                        tags.REUSE_TAG: reuse,
                        tags.LAUNCH_TAG: uuid.uuid4().hex,
                    }
                ),
            )
        except ConflictError:
            self._uploads.remove(token)
            if key and (former := self._former_run(key, body)):  # two equal requests at the same time
                return former
            raise self._conflict(name) from None
        except UnavailableError:
            self._remove_unused(token)
            raise
        return name

    def _remove_unused(self, token: str) -> None:
        """Remove uploads, unless their run still exists: its deletion can fail, and a later launch needs the files."""
        with contextlib.suppress(UnavailableError):  # the storage is away; `clean` looks again
            if self._records.by_tag(tags.UPLOADS_TAG, token) is None:
                self._uploads.remove(token)

    def _check_name(self, name: str) -> None:
        longest = self.pipeline.name_length
        if len(name) > longest:
            sentence = f"A run's name may have {longest} characters, for its artifacts add the steps' names."
            raise InvalidError(sentence, detail={"name": sentence})
        if self._records.owner(name) is not None:
            raise self._conflict(name)

    def _conflict(self, name: str) -> ConflictError | UnavailableError:
        owner = self._records.owner(name)
        if owner is None:
            return UnavailableError(f"The run {name!r} that had the name is gone; ask again.")
        return ConflictError(f"The pipeline {owner} has a run {name!r}; choose another name, or delete that run.")

    def _former_run(self, key: str, body: str) -> str | None:
        """Return the name of the run that an earlier request with this key made; launch the run if it still waits."""
        run = self._records.by_tag(tags.IDEMPOTENCY_TAG, key)
        if run is None:
            return None
        if run.tags.get(tags.IDEMPOTENCY_BODY_TAG) != body:
            sentence = f"This key was used for another request, which made the run {run_name(run)!r}."
            raise InvalidError(sentence, detail={"Idempotency-Key": sentence})
        if not is_marked(run, tags.DELETED_TAG):
            self._starter.launch_again(run.run_id)
            run = self._records.by_tag(tags.IDEMPOTENCY_TAG, key)
        return run_name(run) if run else None

    # Reading

    def names(self, *, limit: int | None = None, after: str | None = None) -> list[str]:
        """Return names, oldest first."""
        return [run_name(record.dagster_run) for record in self._records.page(limit=limit, after=after)]

    def statuses(self, *, limit: int | None = None, after: str | None = None) -> list[Status]:
        """Return the statuses of the same runs, from Dagster's data alone."""
        page = self._records.page(limit=limit, after=after)
        return [self.states.brief(record) for record in page]

    def info(self, name: str) -> dict[str, Any]:
        """Return all data about a run."""
        state = self._state(name)
        parameters = self._parameters(state.run.run_config, state.run.tags)
        status = self._status(state)
        return {
            "name": name,
            "status": status.to_json(),
            "parameters": parameters,
            "input_files": self._uploads.names(state.run.tags.get(tags.UPLOADS_TAG, "")),
            "digest": status.digest,
            "size": status.size,
            "provenance": provenance_of(state, parameters),
            "tags": {key: value for key, value in state.run.tags.items() if not key.startswith((".", "bonseyes/id"))},
        }

    def status(self, name: str) -> Status:
        """Return the current status, with that of the containers."""
        return self._status(self.states.read(self._records.find(name)))

    def when_final(self, name: str) -> Future[None]:
        """Return a future that is done once the run is final or gone."""
        return self._finals.when_final(self._records.find(name).dagster_run.run_id)

    def log(self, name: str, *, offset: int = 0, follow: bool = False) -> Iterator[bytes]:
        """Yield the merged log from byte `offset`; with `follow` until the run is final."""
        run_id = self._records.find(name).dagster_run.run_id
        is_final = (lambda: self._records.is_finished(run_id)) if follow else None
        return MergedLog(self.instance).read(run_id, offset=offset, is_final=is_final)

    def manifest(self, name: str) -> Manifest:
        """Return the files of a completed run."""
        state = self._completed(name)
        return self._provenance.manifest(state, self._parameters(state.run.run_config, state.run.tags))

    def data(self, name: str, prefix: str = "") -> list[DataFile]:
        """Return the file `prefix`, or every file below it."""
        state = self._completed(name)
        files = self._provenance.files(state, self._parameters(state.run.run_config, state.run.tags))
        return [file for file in files if prefix in ("", file.entry.path) or file.entry.path.startswith(f"{prefix}/")]

    def input_parameters(self, name: str) -> Mapping[str, Any]:
        """Return the parameters as used."""
        run = self._records.find(name).dagster_run
        return self._parameters(run.run_config, run.tags)

    def input_files(self, name: str) -> list[str]:
        """Return the names of the parameters with an uploaded file."""
        return self._uploads.names(self._records.find(name).dagster_run.tags.get(tags.UPLOADS_TAG, ""))

    def input_file(self, name: str, file: str) -> DataFile:
        """Return one uploaded file."""
        return self._uploads.file(self._records.find(name).dagster_run.tags.get(tags.UPLOADS_TAG, ""), file)

    def metrics(self, name: str) -> list[str]:
        """Return the names of the metrics that have a value."""
        return list(metric_lines(self._state(name)))

    def metric(self, name: str, metric: str, *, offset: int = 0) -> Iterable[bytes]:
        """Yield the lines of one metric from byte `offset`."""
        lines = metric_lines(self._state(name))
        if metric not in lines:
            raise NotFoundError(f"The run {name!r} has no metric {metric!r}.")
        return [lines[metric][offset:]]

    # Ending

    def cancel(self, name: str) -> Status:
        """Ask Dagster to end the run, and return its current status."""
        self._ending.cancel(self._records.find(name).dagster_run)
        return self.status(name)

    def rename(self, name: str, new_name: str) -> None:
        """Refuse: a run's id and its artifacts' names are made from its name."""
        raise NotFinalError(f"The run {name!r} keeps its name, which is in the names of its artifacts.")

    def delete(self, name: str, *, with_artifacts: bool = False) -> list[str]:
        """Hide the run at once, end it, and remove its row, its uploads and, if wanted, its artifacts.

        Returns the URLs of the run's artifacts that stay.
        """
        return self._ending.delete(self._records.find(name), with_artifacts=with_artifacts)

    def clean(self) -> None:
        """Finish interrupted deletions; set aside uploads, and remove logs of steps, that belong to no run."""
        self._ending.resume()
        self._uploads.clean_drafts()
        for token in self._uploads.tokens(older_than_s=_ORPHAN_AGE_S):
            if self._records.by_tag(tags.UPLOADS_TAG, token) is None:
                self._uploads.set_aside(token)
        remove_orphaned_logs(self.instance)

    def _state(self, name: str) -> RunState:
        return self.states.read(self._records.find(name))

    def _completed(self, name: str) -> RunState:
        state = self._state(name)
        if not state.run.is_success:
            status = self.states.status(state, is_live=False)
            raise NotReadyError(f"The run {name!r} is {status.phase}: {status.reason or 'it has no data.'}")
        return state

    def _status(self, state: RunState) -> Status:
        status = self.states.status(state, is_live=not state.run.is_finished)
        if status.phase == "completed":
            # The report is in another container. A run's status must not depend on the health of that container.
            with contextlib.suppress(UnavailableError):
                manifest = self._provenance.manifest(state, self._parameters(state.run.run_config, state.run.tags))
                status = replace(status, digest=manifest.digest, size=manifest.size)
        return status

    def _parameters(self, given: Mapping[str, Any], run_tags: Mapping[str, str]) -> dict[str, Any]:
        """Return the parameters as used, without uploaded files."""
        uploaded = self._uploads.names(run_tags.get(tags.UPLOADS_TAG, ""))
        wanted = [each for each in self.pipeline.parameters if each.name not in uploaded]
        return {each.name: given.get(each.name, each.default) for each in wanted}


def _digests(request: Request, draft: RunDraft, reuse: str) -> tuple[str, str]:
    """Return the digests of the idempotency key and of the request; both "" without a key."""
    if request.idempotency_key is None:
        return "", ""
    body = json.dumps([request.name, request.parameters, draft.digests(), reuse], sort_keys=True)
    return _digest(request.idempotency_key), _digest(body)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _tags(wanted: Mapping[str, str]) -> dict[str, str]:
    return {tag: value for tag, value in wanted.items() if value}
