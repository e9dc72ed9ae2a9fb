"""The check of a server that a comparison makes once, before the first request that the cache does not answer.

Findings are kept in the answer cache, so that a resumed run does not ask again. Only what a server can do is cached:
what it cannot do may work when the run is resumed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection
from typing import Any, Literal

from evenhand.core import answer_cache
from evenhand.errors import EndpointError, EvenhandError, SettingsError
from evenhand.models.endpoint_preflight import Preflight, ServerCheck

Need = Literal["letters", "draws"]


def needs(*, letters: object, draws: object) -> list[Need]:
    """Return what a server must support, beyond a greedy reply.

    Args:
        letters: Whether log-probabilities are read.
        draws: Whether replies are drawn.
    """
    found: list[Need] = ["letters"] if letters else []
    return [*found, "draws"] if draws else found


class FirstLook:
    """The requirements of a comparison for a server, and the findings so far."""

    def __init__(self, check: Callable[[], ServerCheck], name: str, key: Callable[[], str]) -> None:
        """Create the check; nothing is asked until `before` is called after `wish`.

        Args:
            check: Creates the object that asks the server.
            name: Label of the model, for warnings.
            key: Returns the key under which the answer cache keeps the findings.
        """
        self._check, self._name, self._key = check, name, key
        self._wished = False
        self._wanted: frozenset[Need] = frozenset()
        self._good: set[str] = set()
        self._failed: dict[str, EvenhandError] = {}
        self.found: dict[str, Any] = {}
        """Fields of `Preflight`; {} until the server was reached."""
        self.seconds = 0.0
        """Total duration in seconds."""

    def wish(self, needs: Collection[Need]) -> None:
        """Request a check of what the active cache does not know; earlier findings are dropped."""
        self._wished, self._wanted = True, frozenset(needs)
        self._good, self._failed, self.found, self.seconds = set(), {}, {}, 0.0
        store, key = answer_cache.active(), self._key()
        known = store.get([key], counted=False).get(key) if store is not None else None
        if known is not None:
            self._good, self.found = set(known["good"]), dict(known["found"])

    def before(self, needs: Collection[Need]) -> None:
        """Check the server, if that was requested and has not been done yet.

        All that the comparison will need is checked the first time. Failures that concern later requests only warn.

        Args:
            needs: What the next requests need.

        Raises:
            EvenhandError: The server cannot be used for these requests; one line with the remedy.
        """
        if not self._wished:
            return
        new = [what for what in ("reach", *sorted({*self._wanted, *needs})) if not self._is_known(what)]
        for what in new:
            if "reach" not in self._failed:
                self._look(what)
        if any(what in self._good for what in new):
            self._keep()
        for what in ("reach", *sorted(needs)):
            if what in self._failed:
                raise _again(self._failed[what])
        for what in new:
            if what in self._failed:
                warnings.warn(f"{self._name}: {self._failed[what]}", stacklevel=4)

    def _is_known(self, what: str) -> bool:
        return what in self._good or what in self._failed

    def _look(self, what: str) -> None:
        begun, check = time.monotonic(), self._check()
        try:
            if what == "reach":
                self._reached(check.reach())
            elif what == "letters":
                check.letters()
            else:
                check.draws()
            self._good.add(what)
        except EvenhandError as error:
            self._failed[what] = error
        finally:
            self.seconds += time.monotonic() - begun

    def _reached(self, found: Preflight) -> None:
        self.found = found._asdict()
        if found.thinks or found.hidden:
            warnings.warn(found.line(self._name), stacklevel=6)

    def _keep(self) -> None:
        store = answer_cache.active()
        if store is not None:
            store.put({self._key(): {"good": sorted(self._good), "found": self.found}})


def _again(error: EvenhandError) -> EvenhandError:
    """Copy an error: one that is raised twice would collect both tracebacks."""
    return SettingsError(str(error)) if isinstance(error, SettingsError) else EndpointError(str(error))
