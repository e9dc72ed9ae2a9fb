"""Methods written for the previous release: functions under old names, their own and inherited, are still called.

`evenhand.interfaces.Method` calls this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from evenhand.renaming import warn_in_module

OLD_FORMS = {
    "missing": "missing(model) is now unsupported_reason(model, data)",
    "untrained": "untrained(data) is now unsupported_reason(None, data)",
}
"""Old names of functions, each with the text of its warning."""

_ASKED: ContextVar[tuple[tuple[Any, str], ...]] = ContextVar("methods that are asked by an old name", default=())


def is_asked(method: Any, name: str) -> bool:
    """Whether an override under an old name is waiting for its base, so that it must not be called again."""
    return any(asked is method and old == name for asked, old in _ASKED.get())


@contextmanager
def _asking(method: Any, name: str) -> Iterator[None]:
    before = _ASKED.set((*_ASKED.get(), (method, name)))
    try:
        yield
    finally:
        _ASKED.reset(before)


def reason_above(method: Any, base: type, name: str, model: Any, data: Any) -> str:
    """Return the reason that a base would have given under an old name.

    Args:
        method: The method.
        base: `Method`, which does not count as overriding the name.
        name: The old name. The classes above its last override are asked, all of them if nothing overrides it.
        model: None for a reason that concerns the data alone.
        data: None for a reason that concerns the model alone.
    """
    overriding = [cls for cls in type(method).__mro__ if name in vars(cls) and cls is not base]
    above: Any = super(overriding[-1], method) if overriding else method
    with _asking(method, name):
        reason: str = above.unsupported_reason(model, data)
        return "" if model is not None and reason == above.unsupported_reason(None) else reason


def warn_of_old_function(cls: type, name: str) -> None:
    """Warn, in the name of the module that defines the class, of a function under its old name."""
    warn_in_module(cls, f"method {cls.__name__}: {OLD_FORMS[name]}; the old name works for one release")
