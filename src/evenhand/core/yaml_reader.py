"""A YAML reader that refuses repeated keys: YAML's own readers silently keep the last value and drop the others."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml
from pydantic import ValidationError

from evenhand.core.nesting import DEEPEST
from evenhand.errors import REASON, reason, short

LARGEST = 1_000_000
"""Maximum number of values, which no file of evenhand reaches; a few lines of anchors can stand for more."""
FIELDS = 5
"""Maximum number of wrong fields that a message names."""


class DoubleKeyError(yaml.YAMLError):
    """A key occurs twice in a mapping."""

    def __init__(self, key: str, line: int, first: int) -> None:
        """Take the key as it is written, and the lines of its second and first occurrence, from 1."""
        self.key, self.line, self.first = key, line, first
        super().__init__(f"line {line}: the key {key!r} is there twice, first in line {first}")


def load(text: str) -> Any:
    """Read a YAML document of plain values.

    Raises:
        DoubleKeyError: A mapping has a key twice.
        YAMLError: It is not YAML, has tags or values that are not plain ones, is nested too deeply, or stands for too
            many values. The message is one line.
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except DoubleKeyError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: an escape that is not a character
        raise yaml.YAMLError(reason(error)) from error


def wrong_fields(error: ValidationError) -> str:
    """Describe the first wrong fields of a file's content."""
    found = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
    more = f"; and {len(found) - FIELDS} more" if len(found) > FIELDS else ""
    return short("; ".join(found[:FIELDS]), REASON) + more


class _Loader(yaml.SafeLoader):
    """Loader that checks keys when a mapping is parsed, since merging (`<<`) later adds keys that may be repeated."""

    depth = 0

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None and _size(node, {}) > LARGEST:
            raise yaml.YAMLError(f"its anchors stand for more than {LARGEST:,} values; write them out")
        return node

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        try:
            found = super().construct_object(node, deep)
            str(found).encode()
        except (ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:  # whatever its readers do
            kind = node.tag.rpartition(":")[2]
            shown = short(node.value, 40)
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {shown!r} cannot be read as {kind}") from error
        return found

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Hashable, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                name, line = self.construct_object(key), key.start_mark.line + 1  # 1 and 01 are the same key
                if name in lines:
                    raise DoubleKeyError(key.value, line, lines[name])
                lines[name] = line
        return node


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values that a node stands for, those of anchors at every use.

    Raises:
        YAMLError: A value contains itself.
    """
    if id(node) not in known:
        known[id(node)] = 0  # marks it as being counted
        parts = node.value if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    if not known[id(node)]:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: the value contains itself")
    return known[id(node)]
