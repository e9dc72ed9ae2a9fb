"""Public names of a package that are imported when they are first used, so that importing the package is instant."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evenhand.core import moved


def lazy_names(
    package: str, places: Mapping[str, Iterable[str]], old: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` for a package whose public names are defined in its modules.

    Type checkers see none of this: a package also imports its names below `if TYPE_CHECKING`.

    Args:
        package: The package's `__name__`.
        places: Names by module; a module without names is public itself.
        old: Old names, each with the module that provides it for one release; they are not listed.
    """
    module_of = {name: module for module, names in places.items() for name in names}
    modules = {module.removeprefix(f"{package}."): module for module, names in places.items() if not names}

    def get(name: str) -> Any:
        if name in module_of:
            value = getattr(importlib.import_module(module_of[name]), name)
            setattr(sys.modules[package], name, value)
            return value
        if old is not None and name in old:
            return getattr(importlib.import_module(old[name]), name)
        if name in modules:
            return importlib.import_module(modules[name])
        if (module := moved.attribute(package, name)) is not None:
            return module
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted([*module_of, *modules])

    return get, names
