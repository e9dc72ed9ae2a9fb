"""A model with a method around it: the result of every method that changes questions or answers, not weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any

from evenhand.core.hashing import digest
from evenhand.interfaces import (
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

Choose = Callable[[Sequence[Question]], list[Choice]]
Generate = Callable[[Sequence[Dialogue], Sampling], list[Reply]]
ScoreVerb = Callable[[Sequence[Passage]], list[Score]]


def _of_base(name: str) -> Any:
    """A read-only attribute whose value is the base's; `Model` declares its type."""
    return property(attrgetter(f"base.{name}"), doc=f"`{name}` of the base.")


class Mitigated(Model):
    """The base model with some verbs replaced. All that is not replaced is the base's, at any depth of a stack.

    Only prefixes are refused (`behind`): a model that is guided by them would answer without the method.

    Example:
        `Mitigated(model, self, choose=lambda questions: model.choose([shout(q) for q in questions]))`
    """

    source = _of_base("source")
    load_options = _of_base("load_options")
    too_long = _of_base("too_long")
    thinking_tokens = _of_base("thinking_tokens")
    architecture = _of_base("architecture")
    context_length = _of_base("context_length")
    asking = _of_base("asking")
    precision = _of_base("precision")
    edited = _of_base("edited")
    weights_hash = _of_base("weights_hash")

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
    def declared(self) -> Reading:  # type: ignore[override]
        """How the methods here, at any depth of the stack, have answers read; `OPEN` where none of them says."""
        return stacked([self.base.declared, self.method.reading(self.base)])

    @property
    def answer_by(self) -> AnswerBy | None:  # type: ignore[override]  # it follows from the methods, so it cannot be set
        """How `choose` reads an answer where a question does not say: as a method declares, else the base's way."""
        return self.declared.answer_by or self.base.answer_by

    @property
    def sampling(self) -> Sampling | None:  # type: ignore[override]
        """How `choose` generates where a question does not say: as a method declares, else the base's way."""
        return self.declared.sampling or self.base.sampling

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
        content = {
            "kind": "mitigated",
            "method": {self.method.name: self.method.settings},
            "base": {**self._saved_base(folder), "fingerprint": self.base.fingerprint},
        }
        if self._keep is not None:
            learned = folder / LEARNED
            learned.mkdir(exist_ok=True)
            self._keep(learned)
        saved.write(folder, content)
        return folder

    def _saved_base(self, folder: Path) -> dict[str, Any]:
        """Where a saved copy has its base, and with what options that is opened."""
        base = self.base
        if isinstance(base, Mitigated):  # its own file says how it is asked
            return {"folder": base.save(folder / "base").name, "options": {}}
        if base.source is None or base.edited:
            return {"folder": base.save(folder / "base").name, "options": {**base.asking, **base.precision}}
        return {"source": base.source, "options": {**base.load_options, **base.asking}}

    def _verb(self, verb: str) -> Any:
        return self._verbs[verb] or self.base.verbs[verb]
