"""YAML files of templates: read and checked field by field; errors say what is wrong and where an example is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import yaml
from pydantic import ValidationError

from evenhand.core import yaml_reader
from evenhand.core.hashing import bytes_hash
from evenhand.data.io.content import read_bytes
from evenhand.data.io.rows import decoded
from evenhand.errors import DataError, reason


class Checked(Protocol):
    """A pydantic model of a file's content with a check across its fields."""

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Validate the content; pydantic implements this."""

    def check(self) -> None:
        """Refuse content that is wrong in ways that no single field shows.

        Raises:
            ValueError: The message says what.
        """


Content = TypeVar("Content", bound=Checked)


def read(path: Path, kind: type[Content], what: str, instead: str, shipped: Path) -> tuple[Content, str]:
    """Read the content and hash of a file.

    Args:
        path: The file.
        kind: Model of the content.
        what: Name of the content, for errors.
        instead: Names that may be given instead of a file, for errors.
        shipped: A file to use as an example.

    Raises:
        DataError: The file is missing or broken.
    """
    if not path.is_file():
        raise DataError(f"no file of {what} {str(path)!r}; give {instead} or a file like {shipped}")
    content = read_bytes(path)
    try:
        found = kind.model_validate(yaml_reader.load(decoded(content)))
        found.check()
    except ValidationError as error:
        raise DataError(
            f"{path} holds no {what}: {yaml_reader.wrong_fields(error)}. See {shipped} for the keys"
        ) from error
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} holds no usable {what}: {reason(error)}") from error
    return found, bytes_hash(content)
