"""`GivenModel`: answers what a benchmark asks with predictions that were made elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evenhand.core.hashing import digest
from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Ability, Benchmark, Choice, Dialogue, Model, Passage, Question, Reply, Sampling, Score

Asked = Question | Passage
UNKNOWN = Sampling()


class _Nobody(Model):
    """What all models without weights share here."""

    name = "predictions"

    @property
    def abilities(self) -> frozenset[Ability]:
        """All verbs."""
        return frozenset({"choose", "generate", "score"})

    @property
    def fingerprint(self) -> str:
        """Hash of the name only, as nothing is stored under it."""
        return digest(self.name)

    def save(self, folder: str | Path) -> Path:
        """Refuse to save.

        Raises:
            EvenhandError: Always.
        """
        raise EvenhandError("predictions are not a model, and cannot be saved as one")


class Replying(_Nobody):
    """A model that writes the same reply to everything."""

    def __init__(self, text: str) -> None:
        """Take the reply."""
        self.text = text

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = UNKNOWN) -> list[Reply]:
        """Return the reply, every time."""
        return [Reply(self.text)] * len(dialogues)


class _Listening(_Nobody):
    """A model that records what it is asked, and answers anything."""

    def __init__(self) -> None:
        self.heard: list[Asked] = []

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.heard += questions
        return [Choice(0) for _ in questions]

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        self.heard += passages
        return [Score(-1.0, 1) for _ in passages]


class GivenModel(_Nobody):
    """A model that answers with what it has learned, and knows nothing else."""

    def __init__(self) -> None:
        """Start without any knowledge."""
        self._known: dict[Asked, Choice | Score] = {}

    def asked_for(self, benchmark: Benchmark, item: Any) -> list[Asked]:
        """Return what a benchmark asks a model for one item, in order, with repetitions."""
        listening = _Listening()
        benchmark.ask(listening, [item])
        return listening.heard

    def learn(self, thing: Asked, answer: Choice | Score, place: str) -> None:
        """Store the answer to a question, or the score of a text.

        Args:
            thing: The question or text.
            answer: The answer.
            place: The item, for errors.

        Raises:
            SettingsError: It is asked for a second time, and the answer differs.
        """
        before = self._known.setdefault(thing, answer)
        if before != answer and not (_unscored(before) and _unscored(answer)):
            raise SettingsError(
                f"{place}: a text or question is asked for the second time, and {answer!r:.60} is not the first answer "
                f"({before!r:.60}); a model gives the same answer to both"
            )

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Return the learned answers."""
        return [self._known[q] for q in questions]  # type: ignore[misc]

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Return the learned scores."""
        return [self._known[p] for p in passages]  # type: ignore[misc]


def _unscored(answer: Choice | Score) -> bool:
    return isinstance(answer, Score) and math.isnan(answer.logprob)
