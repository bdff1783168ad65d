"""Merge one compose file over another, as Compose does: mappings by key, lists by addition, with a few exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, Final

import yaml

from bonseyes_dagster.formats.yaml_file import StrictLoader

__all__ = ["Loader", "merge"]

# The only key of the mapping that stands for `!override VALUE`, or for `!reset`, which has no value.
_OVERRIDE: Final = "!override"
# Lists that the later file replaces.
_REPLACED = frozenset({"command", "entrypoint", "test"})
# Lists that are short for mappings: they hold names, or NAME=VALUE.
_NAMED = frozenset({"networks", "depends_on", "environment", "labels", "args"})


class Loader(StrictLoader):
    """A YAML loader that knows Compose's tags `!override` and `!reset`."""

    def construct_override(self, node: yaml.Node) -> Any:
        """Mark a value that replaces the earlier one."""
        plain = copy(node)
        plain.tag = self.resolve(type(node), node.value, (True, False))  # type: ignore[no-untyped-call]
        return {_OVERRIDE: self.construct_object(plain, deep=True)}

    def construct_reset(self, node: yaml.Node) -> Any:
        """Mark a value that removes the earlier one."""
        return {_OVERRIDE: None}


Loader.add_constructor("!override", Loader.construct_override)
Loader.add_constructor("!reset", Loader.construct_reset)


def merge(base: Any, over: Any, key: str = "") -> Any:
    """Return the YAML value `base` with `over` merged over it; both are values of `key`."""
    if key in _NAMED and isinstance(base, list | Mapping) and isinstance(over, list | Mapping):
        base, over = _by_name(base), _by_name(over)
    if isinstance(over, Mapping):
        return over[_OVERRIDE] if _OVERRIDE in over else _merge_mappings(base, over)
    if not isinstance(base, list) or not isinstance(over, list) or key in _REPLACED:
        return over
    if key == "volumes":
        return list({_target(entry): entry for entry in (*base, *over)}.values())
    return [*base, *(entry for entry in over if entry not in base)]


def _merge_mappings(base: Any, over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base) if isinstance(base, Mapping) else {}
    for name, value in over.items():
        merged[name] = merge(merged.get(name), value, name)
        if value == {_OVERRIDE: None}:
            del merged[name]
    return merged


def _by_name(entries: list[Any] | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(entries, Mapping):
        return entries
    pairs = (str(entry).partition("=") for entry in entries)
    return {name: value if equals else None for name, equals, value in pairs}


def _target(entry: Any) -> str:
    """Return the path where a volume is mounted."""
    if isinstance(entry, Mapping):
        return str(entry.get("target"))
    return [*str(entry).split(":"), ""][1] or str(entry)
