"""A model with a method around it: the result of every method that changes questions or answers, not weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evenhand.interfaces import (
    OPEN,
    Ability,
    AnswerBy,
    Choice,
    Dialogue,
    Method,
    Model,
    Passage,
    Question,
    Reading,
    Reply,
    Sampling,
    Score,
    Weights,
    stacked,
)
from evenhand.models import saved
from evenhand.models.files import LEARNED
from evenhand.models.fingerprint import digest

Choose = Callable[[Sequence[Question]], list[Choice]]
Generate = Callable[[Sequence[Dialogue], Sampling], list[Reply]]
ScoreVerb = Callable[[Sequence[Passage]], list[Score]]


class Mitigated(Model):
    """The base model with some verbs replaced. Verbs that are not given pass through to the base unchanged.

    Example:
        `Mitigated(model, self, choose=lambda questions: model.choose([shout(q) for q in questions]))`
    """

    def __init__(
        self,
        base: Model,
        method: Method,
        *,
        choose: Choose | None = None,
        generate: Generate | None = None,
        score: ScoreVerb | None = None,
        abilities: frozenset[Ability] | None = None,
        depends_on: Sequence[str] = (),
        keep: Callable[[Path], None] | None = None,
    ) -> None:
        """Put functions in place of verbs.

        Args:
            base: The model that the functions ask.
            method: The method that made them; its spec becomes part of name and fingerprint.
            choose: Replaces `choose`.
            generate: Replaces `generate`.
            score: Replaces `score`.
            abilities: What the result can do, where that differs from the base.
            depends_on: Hashes of what settings only name, such as a file or another model, or of what was learned; part
                of the fingerprint.
            keep: Writes what was learned to a folder, for the method's `restore`; None where nothing was.
        """
        self.base, self.method = base, method
        self.name = f"{base.name}+{method.spec}"
        self._verbs: dict[str, Any] = {"choose": choose, "generate": generate, "score": score}
        self._abilities = base.abilities if abilities is None else abilities
        self._depends_on = tuple(depends_on)
        self._keep = keep

    @property
    def abilities(self) -> frozenset[Ability]:
        """The base's, unless the method said otherwise."""
        return self._abilities

    @property
    def fingerprint(self) -> str:
        """Of the base, the method, its settings, and what these depend on."""
        return digest(self.base.fingerprint, self.method.name, self.method.settings, *self._depends_on)

    @property
    def acts_on(self) -> frozenset[str]:
        """The verbs that differ from the untouched model's, at any depth of a stack."""
        inner = self.base.acts_on if isinstance(self.base, Mitigated) else frozenset[str]()
        return inner | {verb for verb, function in self._verbs.items() if function is not None}

    @property
    def declared(self) -> Reading:
        """How the methods here, at any depth of the stack, have answers read; `OPEN` where none of them says."""
        inner = self.base.declared if isinstance(self.base, Mitigated) else OPEN
        return stacked([inner, self.method.reading(self.base)])

    @property
    def answer_by(self) -> AnswerBy:
        """How `choose` reads an answer where a question does not say: as a method here declares, else the base's way.

        Raises:
            AttributeError: Neither says, as with every model that has no such option.
        """
        return self.declared.answer_by or self.base.answer_by  # type: ignore[attr-defined]

    @property
    def sampling(self) -> Sampling:
        """How `choose` generates where a question does not say: as a method here declares, else the base's way.

        Raises:
            AttributeError: Neither says, as with every model that has no such option.
        """
        return self.declared.sampling or self.base.sampling  # type: ignore[attr-defined]

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """The method's way to choose, or the base's."""
        return self._verb("choose")(questions)  # type: ignore[no-any-return]

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        """The method's way to generate, or the base's."""
        return self._verb("generate")(dialogues, sampling)  # type: ignore[no-any-return]

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """The method's way to score, or the base's."""
        return self._verb("score")(passages)  # type: ignore[no-any-return]

    @property
    def weights(self) -> Weights:
        """The base's."""
        return self.base.weights

    @contextmanager
    def editing(self) -> Iterator[Weights]:
        """Those of the base, for changing them."""
        with self.base.editing() as weights:
            yield weights

    def rehash(self) -> None:
        """Hash the base's weights now."""
        self.base.rehash()

    def facts(self) -> dict[str, Any]:
        """The base's facts, with the method."""
        return {**self.base.facts(), "name": self.name, "method": self.method.spec, "abilities": sorted(self.abilities)}

    def save(self, folder: str | Path) -> Path:
        """Write the method's name and settings, and the base: by reference where it lies untouched, else in full."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        source = getattr(self.base, "source", None)
        if source is None or getattr(self.base, "edited", False):
            options = getattr(self.base, "asking", {}) | getattr(self.base, "precision", {})
            base: dict[str, Any] = {"folder": self.base.save(folder / "base").name, "options": options}
        else:
            options = getattr(self.base, "load_options", {}) | getattr(self.base, "asking", {})
            base = {"source": source, "options": options}
        content = {
            "kind": "mitigated",
            "method": {self.method.name: self.method.settings},
            "base": {**base, "fingerprint": self.base.fingerprint},
        }
        if self._keep is not None:
            learned = folder / LEARNED
            learned.mkdir(exist_ok=True)
            self._keep(learned)
        saved.write(folder, content)
        return folder

    def _verb(self, verb: str) -> Any:
        return self._verbs[verb] or getattr(self.base, verb)
