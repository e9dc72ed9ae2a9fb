"""YAML in which no key occurs twice: YAML's own readers take the last value and drop the others without a word."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml
from pydantic import ValidationError


class DoubleKeyError(yaml.YAMLError):
    """A key occurs twice in a mapping."""

    def __init__(self, key: str, line: int, first: int) -> None:
        """Take the key as it is written, and the lines of its second and first occurrence, from 1."""
        self.key, self.line, self.first = key, line, first
        super().__init__(f"line {line}: the key {key!r} is there twice, first in line {first}")


def load(text: str) -> Any:
    """The content of a YAML document of plain values.

    Raises:
        DoubleKeyError: A mapping has a key twice.
        YAMLError: It is not YAML, or has tags that are not of plain values.
    """
    return yaml.load(text, _Loader)  # a SafeLoader


def wrong_fields(error: ValidationError) -> str:
    """Every field of a file's content that is wrong, and why."""
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())


class _Loader(yaml.SafeLoader):
    """Looks at keys when a mapping is parsed, as merging (`<<`) later adds keys that may be there twice."""

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
