"""How Compose lays one file over another: mappings by key, lists by adding, a few in ways of their own."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any, Final

import yaml

from bonseyes_dagster.formats.yaml_file import StrictLoader

__all__ = ["Loader", "merge"]

# The one key of what is written as `!override VALUE`, or as `!reset`, which has no value.
_OVERRIDE: Final = "!override"
# Lists that the later file writes anew.
_REPLACED = frozenset({"command", "entrypoint", "test"})
# Lists that stand for mappings: of names alone, or of NAME=VALUE.
_NAMED = frozenset({"networks", "depends_on", "environment", "labels", "args"})


class Loader(StrictLoader):
    """Reads Compose's own tags, too."""

    def construct_override(self, node: yaml.Node) -> Any:
        """Keep in mind that a value takes the place of another as it is."""
        plain = copy(node)
        plain.tag = self.resolve(type(node), node.value, (True, False))  # type: ignore[no-untyped-call]
        return {_OVERRIDE: self.construct_object(plain, deep=True)}

    def construct_reset(self, node: yaml.Node) -> Any:
        """Keep in mind that there is to be no value."""
        return {_OVERRIDE: None}


Loader.add_constructor("!override", Loader.construct_override)
Loader.add_constructor("!reset", Loader.construct_reset)


def merge(base: Any, over: Any, key: str = "") -> Any:
    """Return `base` with the changes of `over`, both what YAML holds; `key` is whose value they are."""
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
    """Return where a volume is mounted."""
    if isinstance(entry, Mapping):
        return str(entry.get("target"))
    return [*str(entry).split(":"), ""][1] or str(entry)
