"""How the things that a pipeline makes are called: its job, the artifacts of its steps, and their orders."""

import re
from collections.abc import Mapping
from typing import Any

from dagster import DagsterRun

from bonseyes_dagster.tags import LAUNCH_TAG

__all__ = ["METRIC_PREFIX", "artifact_name", "is_ordered_by", "job_name", "order_key"]

# Of the metadata of a step's output: the last value of a benchmark's metric.
METRIC_PREFIX = "metric."


def job_name(pipeline: str) -> str:
    """Return the Dagster job of a pipeline: jobs know no hyphens and dots."""
    return re.sub(r"[^A-Za-z0-9_]", "_", pipeline)


def artifact_name(run: str, step: str) -> str:
    """Return the name of the artifact that a step of a run makes, in whichever container."""
    return f"{run}_{step}"


def order_key(run: DagsterRun, step: str) -> str:
    """Return the idempotency key by which a step of a run orders its artifact: RUN_ID/STEP, or RUN_ID/LAUNCH/STEP.

    A run's id is made of its name: without the launch, the key would be that of a deleted run's step.
    """
    return "/".join(filter(None, [run.run_id, run.tags.get(LAUNCH_TAG), step]))


def is_ordered_by(info: Mapping[str, Any], key: str) -> bool:
    """Tell whether an artifact was ordered with a key; a container of an earlier version does not tell: it was."""
    return "idempotency_key" not in info or info["idempotency_key"] == key
