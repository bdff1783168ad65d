"""Check the parameters of a creation, and report all faults in one answer. The store calls this."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bonseyes_dagster.description import check_parameters
from bonseyes_dagster.errors import InvalidError
from bonseyes_dagster.model import ToolDescription
from bonseyes_dagster.tool.fetching.outbound import Policy
from bonseyes_dagster.tool.fetching.references import check_references

__all__ = ["check_creation"]


def check_creation(
    tool: ToolDescription, values: Mapping[str, Any], parts: Collection[str], policy: Policy
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the parameters with defaults, and the artifact of each artifact parameter (see `check_references`).

    `parts` are the names of the uploaded files. Raises InvalidError that lists every wrong parameter;
    UnavailableError if nothing is wrong but another container does not answer.
    """
    wrong: dict[str, str] = {}
    checked: dict[str, Any] = {}
    inputs: dict[str, dict[str, Any]] = {}
    try:
        checked = check_parameters(tool.parameters, values, files=parts)
    except InvalidError as error:
        wrong.update(error.detail or {})
    # Check the references of all well-formed values, even if another value is wrong.
    fine = {key: value for key, value in (checked or values).items() if key not in wrong and key not in parts}
    try:
        inputs = check_references(tool.parameters, fine, policy)
    except InvalidError as error:
        wrong.update(error.detail or {})
    if wrong:
        message = "; ".join(f"{key!r}: {sentence}" for key, sentence in wrong.items())
        raise InvalidError(f"The artifact cannot be created: {message}", detail=wrong)
    # Write each artifact in the canonical form, so that parameters can be compared and followed.
    checked.update({key: reference["url"] for key, reference in inputs.items()})
    return checked, inputs
