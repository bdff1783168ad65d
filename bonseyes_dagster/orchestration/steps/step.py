"""Runs one tool op: requests its artifact, follows it, and returns a reference to it. `tool_op.py` calls it."""

import random
from collections.abc import Iterator, Mapping
from typing import Any

from dagster import (
    AssetKey,
    AssetMaterialization,
    Failure,
    MetadataValue,
    OpExecutionContext,
    Output,
    RetryRequested,
)

from bonseyes_dagster.client import Artifact
from bonseyes_dagster.description import ToolFolder
from bonseyes_dagster.errors import BonseyesError
from bonseyes_dagster.execution.runs import run_names
from bonseyes_dagster.model import Status
from bonseyes_dagster.orchestration import names
from bonseyes_dagster.orchestration.steps.artifact_request import ArtifactRequest
from bonseyes_dagster.orchestration.steps.following import TRANSIENT, follow
from bonseyes_dagster.orchestration.steps.references import ArtifactRef

__all__ = ["run_step"]

RETRY_WAIT_S = 1.0  # before the first retry; doubled for each further one


def run_step(
    context: OpExecutionContext,
    *,
    container: str,
    tool: ToolFolder,
    references: Mapping[str, ArtifactRef | None],
    retries: int,
) -> Iterator[AssetMaterialization | Output[ArtifactRef]]:
    """Create the artifact of this step, or follow it if it exists already, and yield a reference to it."""
    request = ArtifactRequest(context, container, tool, references)
    try:
        status = follow(context, request)
        if status.phase != "completed":
            raise _failure_of(request, status)
        yield from _results(context, request, status)
    except BonseyesError as error:
        failure = Failure(
            description=error.message,
            metadata={"artifact": MetadataValue.url(request.page)},
            allow_retries=isinstance(error, TRANSIENT),
        )
        raise _or_retry(context, failure, retries) from error
    except Failure as failure:
        raise _or_retry(context, failure, retries) from failure.__cause__


def _or_retry(context: OpExecutionContext, failure: Failure, retries: int) -> Failure | RetryRequested:
    """Return the exception to raise: RetryRequested if a retry may help and is left, else Failure.

    A RetryPolicy would not do: it treats a cancellation of the run as a failure, and retries the step.
    """
    if not failure.allow_retries:
        return failure
    if context.retry_number >= retries:
        return Failure(failure.description, metadata=failure.metadata, allow_retries=False)
    context.log.warning(f"{failure.description} The step will be retried.")
    wait_s = RETRY_WAIT_S * 2**context.retry_number * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load
    return RetryRequested(max_retries=retries, seconds_to_wait=wait_s)


def _failure_of(request: ArtifactRequest, status: Status) -> Failure:
    """Return the failure of the step. Only an interrupted artifact is retried: a failed one would fail again."""
    return Failure(
        description=status.reason or f"The artifact was {status.phase}.",
        metadata={"artifact": MetadataValue.url(request.page), "phase": status.phase},
        allow_retries=status.phase == "interrupted",
    )


def _results(
    context: OpExecutionContext, request: ArtifactRequest, status: Status
) -> Iterator[AssetMaterialization | Output[ArtifactRef]]:
    if status.code_changed:
        context.log.warning(f"{request.artifact.url}: the code of its tool changed since it started; see its log.")
    reference = ArtifactRef(
        container=request.container.name,
        name=request.artifact.name,
        type=request.output_type,
        digest=status.digest,
        size=status.size,
    )
    yield AssetMaterialization(
        asset_key=AssetKey([run_names.pipeline_name(context.run), *str(context.op_handle).split(".")]),
        description=f"{reference.type} {reference.url}",
        metadata=_metadata(request, reference, status),
    )
    yield Output(reference)


def _metadata(request: ArtifactRequest, reference: ArtifactRef, status: Status) -> dict[str, Any]:
    info = request.artifact.info()
    request.check_inputs(info)
    provenance = info.get("provenance") or {}
    metadata: dict[str, Any] = {
        "page": MetadataValue.url(request.page),
        "url": reference.url,
        "type": reference.type,
        "container": reference.container,
        "artifact": reference.name,
        "digest": reference.digest or "",
        "size_bytes": MetadataValue.int(reference.size or 0),
        "parameters": MetadataValue.json(info.get("parameters") or request.parameters),
        "version": str(provenance.get("version") or info.get("version") or ""),
        "created": status.created or "",
        "started": status.started or "",
        "finished": status.finished or "",
    }
    if status.reused_from:
        metadata["reused_from"] = status.reused_from
    if status.code_changed:
        metadata["code_changed"] = MetadataValue.bool(True)
    if reference.type == "com.bonseyes.benchmark":
        metadata |= {name: MetadataValue.float(value) for name, value in _last_values(request.artifact)}
    return metadata


def _last_values(artifact: Artifact) -> Iterator[tuple[str, float]]:
    """Yield the last value of each metric, under a name that Dagster plots over all runs."""
    for metric in artifact.metrics():
        points, _ = artifact.metric(metric)
        if points:
            yield f"{names.METRIC_PREFIX}{metric}", points[-1].value
