"""Read YAML that people write (`tool.yml`, Compose files, `dagster.yaml`) and refuse probable mistakes in it.

YAML allows more than JSON: duplicate keys, dates, infinity, references that multiply the content. This reader refuses
them, so JSON can hold every value that it returns. Each error names file and line. `description.py`, `docker/`, the
gateway and `orchestration/` call it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from bonseyes_dagster.errors import SettingsError

__all__ = ["StrictLoader", "parse_yaml", "read_yaml"]

# Counted after all references are expanded: far above any file that a person writes, and still small in memory.
_MOST_VALUES = 100_000
_TEXT_TAGS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"})
_BASE_60 = re.compile(r"[-+]?[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?")


class StrictLoader(yaml.SafeLoader):
    """Reads the types of JSON: mappings with unique string keys, lists, strings, finite numbers, true, false, null."""

    def get_single_node(self) -> yaml.Node | None:
        """Return the document's root; refuse duplicate keys, and references that multiply the content."""
        root = super().get_single_node()
        if root is not None:
            # Before PyYAML makes mappings: later it adds the keys of `<<`, and they may repeat other keys.
            _check(root, {})
        return root

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """Return an integer or a finite number; 1:30 is a string, as in YAML 1.2 and for Compose."""
        text = self.construct_scalar(node)
        if _BASE_60.fullmatch(text):
            return text
        construct = self.construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
        try:
            value = construct(node)
        except ValueError as error:
            raise _refusal(f"{text[:40]!r} is not a number: {error}", node) from error
        if isinstance(value, float) and not math.isfinite(value):
            raise _refusal(f"{text} is not a finite number, and JSON has only finite numbers", node)
        return value

    def refuse_date(self, node: yaml.ScalarNode) -> Any:
        """Refuse a date: JSON has no dates, and the author most likely means a string."""
        raise _refusal(f'{node.value} is a date in YAML; write "{node.value}", in quotes', node)

    def refuse_tag(self, node: yaml.Node) -> Any:
        """Refuse a tag whose values JSON cannot hold."""
        raise _refusal(f"{node.tag.replace('tag:yaml.org,2002:', '!!')} is not allowed here", node)


for _tag in ("int", "float"):
    StrictLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", StrictLoader.construct_number)
for _tag in ("binary", "set", "omap", "pairs"):
    StrictLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", StrictLoader.refuse_tag)
StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", StrictLoader.refuse_date)


def read_yaml(file: Path, loader: type[StrictLoader] = StrictLoader) -> Any:
    """Return the content of a YAML file.

    Raises FileNotFoundError if there is no file, and SettingsError with file and line if it is wrong.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}.") from error
    return parse_yaml(content, file, loader)


def parse_yaml(content: bytes, file: Path, loader: type[StrictLoader] = StrictLoader) -> Any:
    """Return the value of YAML text from `file`; raise SettingsError that names file and line."""
    try:
        return yaml.load(content.decode(), loader)  # noqa: S506 - the loader is a SafeLoader
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{file}, line {line}: it is not UTF-8.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SettingsError(f"{file}, line {line}: {_problem(error)}.") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{file} cannot be read: {' '.join(str(error).split())}.") from error
    except RecursionError as error:
        raise SettingsError(f"{file} cannot be read: it is nested too deep.") from error
    # For a value that does not fit its tag, such as `!!bool x`, PyYAML raises plain Python errors.
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise SettingsError(f"{file} cannot be read: a value does not fit its tag ({error}).") from error


def _problem(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, yaml.constructor.ConstructorError):
        return error.problem or ""
    return f"it is not YAML: {' '.join(filter(None, [error.problem, error.context]))}"


def _refusal(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _check(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return how many values a node holds after its references are expanded; a count of 0 marks an open node."""
    count = counts.get(id(node))
    if count == 0:
        raise _refusal("a value contains itself through a reference", node)
    if count is None:
        counts[id(node)] = 0
        count = counts[id(node)] = 1 + sum(_check(part, counts) for part in _parts(node))
        if count > _MOST_VALUES:
            raise _refusal(f"this holds more than {_MOST_VALUES:,} values after its references are expanded", node)
    return count


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        return [value for _, value in node.value]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _refusal("a list or a mapping cannot be a key", key)
        if key.tag not in _TEXT_TAGS:
            raise _refusal(f'the key {key.value} is not a string in YAML; write "{key.value}", in quotes', key)
        if key.value in lines:
            raise _refusal(f"the key {key.value!r} is already in line {lines[key.value]}", key)
        lines[key.value] = key.start_mark.line + 1
