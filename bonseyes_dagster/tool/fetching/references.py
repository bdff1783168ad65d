"""Look up the artifacts that parameters name: the container, the type and the current digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bonseyes_dagster.client import Container
from bonseyes_dagster.errors import (
    BonseyesError,
    ConnectionFailedError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from bonseyes_dagster.model import Parameter
from bonseyes_dagster.tool.fetching.outbound import Policy, session
from bonseyes_dagster.urls import canonical

__all__ = ["check_references"]


def check_references(
    parameters: Iterable[Parameter], values: Mapping[str, Any], policy: Policy
) -> dict[str, dict[str, Any]]:
    """Return `{parameter: {container, name, url, digest, type}}` for each artifact parameter that has a value.

    Asks the containers of these artifacts. Raises InvalidError that lists every wrong artifact and URL;
    UnavailableError if nothing is wrong but a container does not answer.
    """
    wrong: dict[str, str] = {}
    silent: list[str] = []
    found: dict[str, dict[str, Any]] = {}
    for parameter in parameters:
        value = values.get(parameter.name)
        if value is None or parameter.type not in ("artifact", "url", "file"):
            continue
        try:
            if parameter.type == "artifact":
                found[parameter.name] = _ask(parameter, value, policy)
            else:
                policy.check_url(value)
        except (ConnectionFailedError, UnavailableError) as error:
            silent.append(f"{parameter.name!r}: {error.message}")
        except BonseyesError as error:
            wrong[parameter.name] = error.message
    if wrong:
        message = "; ".join(f"{name!r}: {sentence}" for name, sentence in wrong.items())
        raise InvalidError(f"Wrong parameters: {message}", detail=wrong)
    if silent:
        raise UnavailableError("; ".join(silent))
    return found


def _ask(parameter: Parameter, value: str, policy: Policy) -> dict[str, Any]:
    container_name, name = policy.addresses.parse_artifact(value)
    known = policy.addresses.containers()
    if known and container_name not in known:
        raise InvalidError(f"There is no container {container_name!r}; there are: {', '.join(known)}.")
    with session(policy) as http:
        container = Container(policy.addresses.base_url(container_name), name=container_name, session=http)
        made = _type(container, container_name)
        if made != parameter.artifact_type:
            raise InvalidError(
                f"{container_name} makes {made}, but {parameter.name!r} takes {parameter.artifact_type}."
            )
        digest = _digest(container, container_name, name)
    return {
        "container": container_name,
        "name": name,
        "url": canonical(container_name, name),
        "digest": digest,
        "type": made,
    }


def _type(container: Container, container_name: str) -> str:
    try:
        return container.describe().output_type
    except (NotFoundError, ForbiddenError) as error:
        raise InvalidError(f"{container_name} is not a container that makes artifacts: {error.message}") from error


def _digest(container: Container, container_name: str, name: str) -> str:
    try:
        status = container.artifact(name).status()
    except NotFoundError as error:
        raise InvalidError(f"{container_name} has no artifact {name!r}.") from error
    if status.phase != "completed" or status.digest is None:
        raise InvalidError(f"{container_name}/{name} is {status.phase}; only a completed artifact can be used.")
    return status.digest
