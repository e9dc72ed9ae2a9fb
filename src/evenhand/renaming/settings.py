"""Renamed settings of methods and benchmarks: their old names work in calls, subclasses and presets.

`evenhand.interfaces.settings` calls this for each class that it decorates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from evenhand.errors import SettingsError
from evenhand.renaming import accept, keep_readable, translated, warn_in_module


def declared_old_names(classes: Sequence[Any], base: type) -> dict[str, str]:
    """Return the old names of settings with the present ones.

    Args:
        classes: In the order of an `__mro__`.
        base: `HasSettings`; an attribute `renamed` of other classes means something else.
    """
    declaring = [c for c in reversed(classes) if issubclass(c, base) and "renamed" in vars(c)]
    return {old: new for c in declaring for old, new in c.renamed.items()}


def rename_overridden(cls: Any, base: type) -> None:
    """Give a class's settings and presets their present names, if it overrides its base's by old ones.

    It warns in the name of the module that defines the class.

    Args:
        cls: A method or benchmark that is not a dataclass yet.
        base: `HasSettings`.
    """
    old_names, own = declared_old_names(cls.__mro__[1:], base), vars(cls)
    annotations = own.get("__annotations__", {})
    used = {name: old_names[name] for name in annotations if old_names.get(name, name) not in annotations}
    if used:
        cls.__annotations__ = {used.get(name, name): kind for name, kind in annotations.items()}
    for old, new in used.items():
        if old in own:
            setattr(cls, new, own[old])
            delattr(cls, old)
    if "presets" in own and old_names:
        used |= {name: old_names[name] for values in cls.presets.values() for name in values if name in old_names}
        cls.presets = {
            preset: translated(f"{cls.name}, preset {preset}", old_names, values, quiet=True)
            for preset, values in cls.presets.items()
        }
    if used:
        names = ", ".join(f"{old} is now {new}" for old, new in used.items())
        warn_in_module(cls, f"{cls.__name__}: {names}; what it overrides by an old name works for one release")


def accept_old_names(cls: Any) -> None:
    """Let a class be made with, and read by, the old names of its settings.

    Args:
        cls: A method or benchmark, as the dataclass that `settings` makes of it.

    Raises:
        SettingsError: A setting has the old name of another one, and would receive its values.
    """
    old_names = cls.old_names()
    for f in fields(cls):
        if f.name in old_names:
            raise SettingsError(
                f"{cls.__name__}: {f.name} is the old name of its setting {old_names[f.name]}, so no setting can be "
                "called that for one release"
            )
    if not old_names:
        return
    accept(cls, old_names, cls.with_present_names)
    for old, new in old_names.items():
        if not any(old in vars(c) for c in cls.__mro__):
            keep_readable(cls, old, new)
