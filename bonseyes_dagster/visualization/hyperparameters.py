"""Parameters of artifacts as TensorBoard's hyperparameters: their domains, and a session for each artifact."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from tensorboard import errors
from tensorboard.data import provider
from tensorboard.data.provider import HyperparameterDomainType as Domain
from tensorboard.data.provider import HyperparameterFilterType as FilterType

from bonseyes_dagster.errors import BonseyesError, NotFoundError
from bonseyes_dagster.formats.patterns import is_match
from bonseyes_dagster.visualization.catalogue import Entry

__all__ = ["ARTIFACTS", "fetch", "list_all", "newest", "read"]

# The rows of the table. Nobody reads more rows than this, and each row costs one request.
ARTIFACTS = 1000

Scalar = str | float | bool


def newest(entries: Sequence[Entry]) -> list[Entry]:
    """Return the newest artifacts, whose parameters the table shows."""
    return sorted(entries, key=lambda entry: entry.status.created or "", reverse=True)[:ARTIFACTS]


def fetch(entry: Entry) -> None:
    """Set `entry.parameters` to the parameters with scalar values; an artifact's parameters never change."""
    try:
        parameters = entry.source.parameters(entry.status.name)
    except NotFoundError:
        parameters = {}
    except BonseyesError:
        return
    entry.parameters = {name: value for name, value in parameters.items() if _is_scalar(value)}


def list_all(entries: Sequence[Entry], limit: int | None) -> provider.ListHyperparametersResult:
    """Return all parameters with their domains, first those with different values, and the sessions."""
    domains = _domains(entries)
    found = [_describe(name, entries, domain) for name, domain in domains.items()]
    found.sort(key=lambda hyperparameter: (not hyperparameter.differs, hyperparameter.hyperparameter_name))
    return provider.ListHyperparametersResult(
        hyperparameters=found[:limit] if limit else found,
        session_groups=[_group(entry, domains, None) for entry in entries],
    )


def read(
    entries: Sequence[Entry], filters: Iterable[Any], sort: Sequence[Any], include: Collection[str] | None
) -> list[provider.HyperparameterSessionGroup]:
    """Return the artifacts that pass all `filters`, in the order of `sort`, with the parameters in `include`."""
    domains = _domains(entries)
    filters = list(filters)
    chosen = [entry for entry in entries if all(_passes(entry, rule, domains) for rule in filters)]
    for order in reversed(sort):
        is_descending = order.sort_direction == provider.HyperparameterSortDirection.DESCENDING
        chosen.sort(key=_sort_key(order.hyperparameter_name, domains), reverse=is_descending)
    if include is not None:
        include = {*include, *(rule.hyperparameter_name for rule in [*filters, *sort])}
    return [_group(entry, domains, include) for entry in chosen]


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _domains(entries: Iterable[Entry]) -> dict[str, Domain]:
    """Return the domain of each parameter; a parameter with values of several types becomes text."""
    domains: dict[str, Domain] = {}
    for entry in entries:
        for name, value in (entry.parameters or {}).items():
            domain = _domain(value)
            if domains.setdefault(name, domain) != domain:
                domains[name] = Domain.DISCRETE_STRING
    return domains


def _domain(value: object) -> Domain:
    if isinstance(value, bool):
        return Domain.DISCRETE_BOOL
    return Domain.INTERVAL if isinstance(value, int | float) else Domain.DISCRETE_STRING


def _value(parameters: Mapping[str, Any] | None, name: str, domain: Domain | None) -> Scalar | None:
    value = (parameters or {}).get(name)
    if value is None or domain is None:
        return None
    if domain == Domain.INTERVAL:
        return float(value)
    return bool(value) if domain == Domain.DISCRETE_BOOL else str(value)


def _describe(name: str, entries: Iterable[Entry], domain: Domain) -> provider.Hyperparameter:
    values: Any = {value for entry in entries if (value := _value(entry.parameters, name, domain)) is not None}
    ordered = sorted(values)
    return provider.Hyperparameter(
        hyperparameter_name=name,
        hyperparameter_display_name=name,
        domain_type=domain,
        domain=(ordered[0], ordered[-1]) if domain == Domain.INTERVAL else ordered,
        differs=len(ordered) > 1,
    )


def _group(
    entry: Entry, domains: Mapping[str, Domain], include: Collection[str] | None
) -> provider.HyperparameterSessionGroup:
    session = provider.HyperparameterSessionRun(experiment_id="", run=entry.run)
    values = [
        provider.HyperparameterValue(name, domains[name], _value(entry.parameters, name, domains[name]))
        for name in entry.parameters or ()
        if include is None or name in include
    ]
    return provider.HyperparameterSessionGroup(root=session, sessions=[session], hyperparameter_values=values)


def _passes(entry: Entry, rule: Any, domains: Mapping[str, Domain]) -> bool:
    name = rule.hyperparameter_name
    value = _value(entry.parameters, name, domains.get(name))
    if value is None:
        return False
    if rule.filter_type == FilterType.REGEX:
        try:
            return is_match(rule.filter, str(value))
        except ValueError as error:
            raise errors.InvalidArgumentError(f"{rule.filter!r} is not a regular expression: {error}") from error
    if rule.filter_type == FilterType.INTERVAL:
        low, high = rule.filter
        return isinstance(value, float) and low <= value <= high
    return value in rule.filter


def _sort_key(name: str, domains: Mapping[str, Domain]) -> Callable[[Entry], tuple[bool, Any]]:
    def key(entry: Entry) -> tuple[bool, Any]:
        value = _value(entry.parameters, name, domains.get(name))
        return (True, value) if value is not None else (False, 0)

    return key
