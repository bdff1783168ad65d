"""Dagster's multiprocess executor as `Pipeline(executor="multiprocess")` takes it: each op in a process of its own.

Its processes are forked from one that has loaded Dagster: Dagster's default starts Python anew for each op, which
takes seconds of processor time. The configuration is that of the concurrent executor.
"""

from typing import Any

from dagster import ExecutorDefinition, Field, Int, Noneable, multiprocess_executor
from dagster._core.execution.retries import get_retries_config
from dagster._core.execution.tags import get_tag_concurrency_limits_config

__all__ = ["separate_executor"]

_PRELOADED = ["dagster", "bonseyes_dagster.orchestration.pipeline"]


def _configure(config: Any) -> dict[str, Any]:
    given = {key: value for key, value in config.items() if value is not None}
    return {**given, "start_method": {"forkserver": {"preload_modules": _PRELOADED}}}


separate_executor: ExecutorDefinition = multiprocess_executor.configured(
    _configure,
    name="multiprocess",
    config_schema={
        "max_concurrent": Field(
            Noneable(Int),
            default_value=None,
            description="How many ops of a run may run at the same time; one for each processor by default.",
        ),
        "retries": get_retries_config(),  # type: ignore[no-untyped-call]
        "tag_concurrency_limits": get_tag_concurrency_limits_config(),  # type: ignore[no-untyped-call]
    },
)
