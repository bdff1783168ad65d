"""Asks all containers of a pipeline, at the same time, for their descriptions or their artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bonseyes_dagster import urls
from bonseyes_dagster.errors import NotFoundError
from bonseyes_dagster.model import Status, ToolDescription
from bonseyes_dagster.orchestration.pipeline import Pipeline
from bonseyes_dagster.orchestration.runs.container_requests import ContainerRequests

__all__ = ["ContainerSurvey", "kind_of"]

REQUEST_TIMEOUT_S = 5.0
_PAGE = 1000
_KINDS = {
    "com.bonseyes.dataset": "data",
    "com.bonseyes.tensors": "data",
    "com.bonseyes.training-set": "data",
    "com.bonseyes.model": "model",
    "com.bonseyes.benchmark": "model",
}


def kind_of(output_type: str) -> str:
    """Return "data" or "model" for a container that works on data or models, "other" for any other."""
    return _KINDS.get(output_type, "other")


class ContainerSurvey:
    """The containers of one pipeline, and their artifacts."""

    def __init__(self, pipeline: Pipeline, requests: ContainerRequests) -> None:
        self._pipeline = pipeline
        self._requests = requests
        self._output_types = {step.container: step.output_type for step in pipeline.steps}

    def containers(self) -> list[dict[str, Any]]:
        """Return every container of the pipeline; a container that does not answer has the status `missing`."""
        answers = self._call_all(self._output_types, "/", ToolDescription.from_json)
        return [self._entry(name, answers[name]) for name in self._output_types]

    def container(self, name: str) -> dict[str, Any]:
        """Return one container of the pipeline; raise NotFoundError if the pipeline does not use it."""
        if name not in self._output_types:
            there = ", ".join(self._output_types)
            raise NotFoundError(f"The pipeline {self._pipeline.name} has no container {name!r}; it has: {there}.")
        return self._entry(name, self._call_all([name], "/", ToolDescription.from_json)[name])

    def artifacts(self, filters: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the artifacts of all containers that pass `filters`, and the names of the silent containers.

        `filters` are `type` (data, model or other), `output_type` and `status` (a phase or a result).
        """
        wanted = [name for name in self._output_types if self._passes(name, filters)]
        answers = self._call_all(wanted, f"{urls.collection()}?detail=1&limit={_PAGE}", _statuses)
        missing = [name for name in wanted if not isinstance(answers[name], list)]
        entries = [
            self._artifact(name, status)
            for name in wanted
            if name not in missing
            for status in answers[name]
            if filters.get("status") in (None, status.phase, status.result)
        ]
        return entries, missing

    def _passes(self, container: str, filters: Mapping[str, str]) -> bool:
        output_type = self._output_types[container]
        return filters.get("output_type") in (None, output_type) and filters.get("type") in (None, kind_of(output_type))

    def _entry(self, name: str, answer: object) -> dict[str, Any]:
        is_there = isinstance(answer, ToolDescription)
        return {
            "name": name,
            "type": kind_of(self._output_types[name]),
            "status": "started" if is_there else "missing",
            "info": answer.to_json() if isinstance(answer, ToolDescription) else None,
        }

    def _artifact(self, container: str, status: Status) -> dict[str, Any]:
        output_type = self._output_types[container]
        return {
            "name": status.name,
            "container": container,
            "href": urls.canonical(container, status.name),
            "status": status.phase,
            "output_type": output_type,
            "type": kind_of(output_type),
        }

    def _call_all(self, containers: Iterable[str], path: str, parse: Any) -> dict[str, Any]:
        def call(container: str) -> Any:
            transport = self._requests.container(container).transport
            return lambda: transport.get_json(path, parse, read_timeout_s=REQUEST_TIMEOUT_S, repeat=False)

        return self._requests.call_all({name: call(name) for name in containers})


def _statuses(body: Any) -> list[Status]:
    return [Status.from_json(entry) for entry in body]
