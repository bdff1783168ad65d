"""Launch runs by GraphQL, as Dagster's UI does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import requests

from tests.system.embedded import Embedded

__all__ = ["launch", "reexecute"]

_LAUNCH = """
mutation ($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_REEXECUTE = _LAUNCH.replace("launchRun(", "launchRunReexecution(")
_TIMEOUT_S = 120


def launch(project: Embedded, name: str, config: Mapping[str, Any], steps: Sequence[str] | None = None) -> str:
    """Launch a run of all steps, or of `steps` only; return its id."""
    parameters = {
        "selector": _selector(steps),
        "runConfigData": json.dumps(config),
        "executionMetadata": {"tags": [_name_tag(name)]},
    }
    return _run_id(project, _LAUNCH, "launchRun", parameters)


def reexecute(
    project: Embedded, name: str, config: Mapping[str, Any], steps: Sequence[str], *, parent: str, root: str
) -> str:
    """Execute steps of a run again as a new run; return its id."""
    metadata = {"parentRunId": parent, "rootRunId": root, "tags": [_name_tag(name)]}
    parameters = {
        "selector": _selector(None),
        "runConfigData": json.dumps(config),
        "stepKeys": list(steps),
        "executionMetadata": metadata,
    }
    return _run_id(project, _REEXECUTE, "launchRunReexecution", parameters)


def _selector(steps: Sequence[str] | None) -> dict[str, Any]:
    names = {"repositoryLocationName": "definitions", "repositoryName": "__repository__", "jobName": "five"}
    return names if steps is None else {**names, "solidSelection": list(steps)}


def _name_tag(name: str) -> dict[str, str]:
    return {"key": "bonseyes/run", "value": name}


def _run_id(project: Embedded, query: str, mutation: str, parameters: Mapping[str, Any]) -> str:
    answer = requests.post(
        f"{project.url}/dagster/graphql",
        json={"query": query, "variables": {"parameters": parameters}},
        timeout=_TIMEOUT_S,
    )
    body = answer.json()
    found = (body.get("data") or {}).get(mutation) or {}
    assert "run" in found, f"{answer.status_code} {body}"
    return str(found["run"]["runId"])
