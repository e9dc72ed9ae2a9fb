"""Names that have changed: the old ones work for one release, with a warning that gives the new one."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from types import FrameType
from typing import Any, TypeVar, cast

from evenhand.errors import SettingsError

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
Given = dict[str, Any]


class RenamedWarning(DeprecationWarning):
    """Something was called by its old name; the message gives the new one."""


def warn(what: str, renamed: Mapping[str, str]) -> None:
    """Warn once of all old names that were used, at the first caller outside evenhand, whose code or text has them.

    Args:
        what: The method, benchmark or class that the names belong to.
        renamed: The old names that were used, with the new ones.
    """
    names = ", ".join(f"{old} is now {new}" for old, new in renamed.items())
    rest = "the old names work" if len(renamed) > 1 else "the old name works"
    warnings.warn(f"{what}: {names}; {rest} for one release", RenamedWarning, stacklevel=_level_outside())


def translated(what: str, renamed: Mapping[str, str], given: Mapping[str, Any], *, quiet: bool = False) -> Given:
    """Return keyword arguments or settings under their present names, in the same order.

    Args:
        what: The method, benchmark or class that they are for.
        renamed: Old names and the new ones.
        given: Under old or new names.
        quiet: Whether to give no warning of old names.

    Raises:
        SettingsError: The same thing is given under two names.
    """
    used = {name: renamed[name] for name in given if name in renamed}
    out: Given = {}
    for name, value in given.items():
        new = used.get(name, name)
        if new in out:
            old = next(o for o in used if used[o] == new)
            raise SettingsError(f"{what}: {old} is the old name of {new}, and both are given; leave {old} out")
        out[new] = value
    if used and not quiet:
        warn(what, used)
    return out


def old_fields(**renamed: str) -> Callable[[C], C]:
    """Decorate a dataclass or named tuple whose fields have been renamed: old names are accepted and can be read.

    Args:
        **renamed: Old names and the new ones.
    """

    def accepting(cls: C) -> C:
        accept(cls, renamed, lambda given: translated(cls.__name__, renamed, given))
        for old, new in renamed.items():
            keep_readable(cls, old, new)
        return cls

    return accepting


def old_arguments(**renamed: str) -> Callable[[F], F]:
    """Decorate a function whose arguments have been renamed: their old names are accepted as keywords.

    Args:
        **renamed: Old names and the new ones.
    """

    def accepting(function: F) -> F:
        @wraps(function)
        def called(*args: Any, **given: Any) -> Any:
            if any(old in given for old in renamed):
                given = translated(f"{function.__qualname__}()", renamed, given)
            return function(*args, **given)

        return cast(F, called)

    return accepting


def accept(cls: Any, old_names: Mapping[str, str], translate: Callable[[Given], Given]) -> None:
    """Make a class translate the keyword arguments of its constructor, and those of copies with changed fields.

    Args:
        cls: A dataclass or named tuple, which is changed.
        old_names: Old names with the new ones; arguments without an old name are not translated.
        translate: Takes and returns the keyword arguments.
    """
    is_tuple = issubclass(cls, tuple)
    plain = cls.__new__ if is_tuple else cls.__init__

    @wraps(plain)
    def made(self: Any, /, *args: Any, **given: Any) -> Any:
        if any(old in given for old in old_names):
            given = translate(_without_copied(given, old_names, sys._getframe(1)))
        return plain(self, *args, **given)

    if not is_tuple:
        cls.__init__ = made
        return
    replaced = cls._replace

    @wraps(replaced)
    def replaced_by_old_names(self: Any, /, **given: Any) -> Any:
        return replaced(self, **(translate(given) if any(old in given for old in old_names) else given))

    cls.__new__, cls._replace = staticmethod(made), replaced_by_old_names


def _without_copied(given: Given, old_names: Mapping[str, str], caller: FrameType) -> Given:
    """Drop arguments that `dataclasses.replace` copied from the object for fields given by an old name."""
    if _module(caller) != "dataclasses":
        return given
    copied = caller.f_locals.get("obj", caller.f_locals.get("self"))  # the latter from Python 3.13 on
    renamed = {old_names[name] for name in given if name in old_names}
    return {name: value for name, value in given.items() if name not in renamed or value is not getattr(copied, name)}


def keep_readable(cls: Any, old: str, new: str) -> None:
    """Make the attribute `new` of a class readable under the name `old` too."""

    def read(self: Any) -> Any:
        warn(cls.__name__, {old: new})
        return getattr(self, new)

    setattr(cls, old, property(read, doc=f"Old name of `{new}`; it works for one release."))


def warn_in_module(cls: type, message: str) -> None:
    """Warn of a deprecated form in the name of the module that defines the class."""
    module = sys.modules.get(cls.__module__)
    file = str(getattr(module, "__file__", None) or cls.__module__)
    warnings.warn_explicit(message, DeprecationWarning, file, 1, module=cls.__module__)


def _level_outside() -> int:
    """Return the `stacklevel`, for this function's caller, of the first frame outside evenhand and `dataclasses`."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _module(frame).partition(".")[0] in ("evenhand", "dataclasses"):
        frame, level = frame.f_back, level + 1
    return level


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
