"""Judges evaluation criteria and constraints. Each is a metric with a minimum, a maximum, or both.

The benchmarking tool calls it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["judge"]


def judge(criteria: Iterable[Mapping[str, Any]], metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return each criterion with its `value`, with `passed` as a boolean, and with the `reason` as a sentence.

    A criterion fails when its metric does not exist or when it has no bound. Its reason says why.
    """
    return [_judge(criterion, metrics) for criterion in criteria]


def _judge(criterion: Mapping[str, Any], metrics: Mapping[str, float]) -> dict[str, Any]:
    metric = str(criterion.get("metric", ""))
    minimum, maximum = criterion.get("minimum"), criterion.get("maximum")
    value = metrics.get(metric)
    passed, reason = _compare(metric, value, minimum, maximum, metrics)
    return {
        "name": str(criterion.get("name") or metric),
        "description": str(criterion.get("description", "")),
        "metric": metric,
        "minimum": minimum,
        "maximum": maximum,
        "value": value,
        "passed": passed,
        "reason": reason,
    }


def _compare(
    metric: str, value: float | None, minimum: float | None, maximum: float | None, metrics: Mapping[str, float]
) -> tuple[bool, str]:
    if value is None:
        return False, f"There is no metric `{metric}`; the metrics are {', '.join(sorted(metrics))}."
    if minimum is None and maximum is None:
        return False, f"{metric} has no bound; give a minimum or a maximum."
    if math.isnan(value):
        return False, f"{metric} is not a number."
    for name, bound in (("minimum", minimum), ("maximum", maximum)):
        if bound is not None and not _is_number(bound):
            return False, f"The {name} of {metric} must be a finite number, not {bound!r}."
    if minimum is not None and value < minimum:
        return False, f"{metric} is {value:.6g}, below the minimum of {minimum:.6g}."
    if maximum is not None and value > maximum:
        return False, f"{metric} is {value:.6g}, above the maximum of {maximum:.6g}."
    bounds = [f"at least {minimum:.6g}"] if minimum is not None else []
    bounds += [f"at most {maximum:.6g}"] if maximum is not None else []
    return True, f"{metric} is {value:.6g}, {' and '.join(bounds)}."


def _is_number(bound: object) -> bool:
    # The comparison is false for NaN, and for an integer that is too large for a float.
    return isinstance(bound, int | float) and not isinstance(bound, bool) and abs(bound) <= sys.float_info.max
