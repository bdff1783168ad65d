"""What an op does while it runs: ask the container for the artifact, follow it, and hand on a reference to it."""

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
from bonseyes_dagster.orchestration.steps.following import TRANSIENT, follow
from bonseyes_dagster.orchestration.steps.order import Order
from bonseyes_dagster.orchestration.steps.references import ArtifactRef

__all__ = ["run_step"]

RETRY_WAIT_S = 1.0  # before the first retry, twice as long before each further one


def run_step(
    context: OpExecutionContext,
    *,
    container: str,
    tool: ToolFolder,
    references: Mapping[str, ArtifactRef | None],
    retries: int,
) -> Iterator[AssetMaterialization | Output[ArtifactRef]]:
    """Make the artifact of this step, or attach to it when it is being made, and yield a reference to it."""
    order = Order(context, container, tool, references)
    try:
        status = follow(context, order)
        if status.phase != "completed":
            raise _failure_of(order, status)
        yield from _results(context, order, status)
    except BonseyesError as error:
        failure = Failure(
            description=error.message,
            metadata={"artifact": MetadataValue.url(order.page)},
            allow_retries=isinstance(error, TRANSIENT),
        )
        raise _or_retry(context, failure, retries) from error
    except Failure as failure:
        raise _or_retry(context, failure, retries) from failure.__cause__


def _or_retry(context: OpExecutionContext, failure: Failure, retries: int) -> Failure | RetryRequested:
    """Return what to raise: a request for another attempt where one may help and is left.

    An op with a RetryPolicy would take a cancellation of the run for a failure, too, and begin again.
    """
    if not failure.allow_retries:
        return failure
    if context.retry_number >= retries:
        return Failure(failure.description, metadata=failure.metadata, allow_retries=False)
    context.log.warning(f"{failure.description} To be tried again.")
    wait_s = RETRY_WAIT_S * 2**context.retry_number * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load
    return RetryRequested(max_retries=retries, seconds_to_wait=wait_s)


def _failure_of(order: Order, status: Status) -> Failure:
    """An interrupted artifact is made again by the next attempt; a failed one would fail again."""
    return Failure(
        description=status.reason or f"The artifact was {status.phase}.",
        metadata={"artifact": MetadataValue.url(order.page), "phase": status.phase},
        allow_retries=status.phase == "interrupted",
    )


def _results(
    context: OpExecutionContext, order: Order, status: Status
) -> Iterator[AssetMaterialization | Output[ArtifactRef]]:
    if status.code_changed:
        context.log.warning(f"{order.artifact.url}: the code of its tool changed since it started; see its log.")
    reference = ArtifactRef(
        container=order.container.name,
        name=order.artifact.name,
        type=order.output_type,
        digest=status.digest,
        size=status.size,
    )
    yield AssetMaterialization(
        asset_key=AssetKey([run_names.pipeline_name(context.run), *str(context.op_handle).split(".")]),
        description=f"{reference.type} {reference.url}",
        metadata=_metadata(order, reference, status),
    )
    yield Output(reference)


def _metadata(order: Order, reference: ArtifactRef, status: Status) -> dict[str, Any]:
    info = order.artifact.info()
    order.check_inputs(info)
    provenance = info.get("provenance") or {}
    metadata: dict[str, Any] = {
        "page": MetadataValue.url(order.page),
        "url": reference.url,
        "type": reference.type,
        "container": reference.container,
        "artifact": reference.name,
        "digest": reference.digest or "",
        "size_bytes": MetadataValue.int(reference.size or 0),
        "parameters": MetadataValue.json(info.get("parameters") or order.parameters),
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
        metadata |= {name: MetadataValue.float(value) for name, value in _last_values(order.artifact)}
    return metadata


def _last_values(artifact: Artifact) -> Iterator[tuple[str, float]]:
    """Yield the final value of each metric, under a name that Dagster plots over the runs."""
    for metric in artifact.metrics():
        points, _ = artifact.metric(metric)
        if points:
            yield f"{names.METRIC_PREFIX}{metric}", points[-1].value
