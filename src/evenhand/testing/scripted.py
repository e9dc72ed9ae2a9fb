"""A fake model with exact answers, and questions for the tiny models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evenhand.core.hashing import digest
from evenhand.errors import EvenhandError
from evenhand.interfaces import Ability, Choice, Dialogue, Model, Question, Reply, Sampling, Usage


class ScriptedModel(Model):
    """A fake model that answers by a script and records what it was asked, for exact tests of transcripts."""

    def __init__(
        self,
        reply: Callable[[Dialogue], str | None] = lambda dialogue: "A",
        decide: Callable[[Question], int | None] = lambda question: 0,
        abilities: frozenset[Ability] = frozenset({"choose", "generate"}),
    ) -> None:
        """Set the script.

        Args:
            reply: Returns the reply to a dialogue; None stands for a missing reply.
            decide: Returns the option chosen for a question; None is an unparsed answer.
            abilities: Abilities that the model claims to have.
        """
        self.name = "scripted"
        self.reply, self.decide, self._abilities = reply, decide, abilities
        self.dialogues: list[Dialogue] = []
        """Everything that `generate` was asked, in order."""
        self.questions: list[Question] = []
        """Everything that `choose` was asked, in order."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """The abilities given to the constructor."""
        return self._abilities

    @property
    def fingerprint(self) -> str:
        """Hash of a fixed name, as a script has no content to hash."""
        return digest("scripted")

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Choose by the script."""
        self.questions += questions
        out = []
        for q in questions:
            decision = self.decide(q)
            out.append(Choice(decision, status="unparsed" if decision is None else "answered", usage=Usage(1)))
        return out

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        """Reply by the script."""
        self.dialogues += dialogues
        return [Reply(self.reply(d), Usage(1)) for d in dialogues]

    def save(self, folder: Any) -> Any:
        """Raise an error, as a script cannot be saved."""
        raise EvenhandError("a scripted model cannot be saved")


def questions(count: int = 5) -> list[Question]:
    """Make questions with two to four options, from words that the tiny models know."""
    words = ("dog", "cat", "letter", "question")
    return [
        Question(
            f"q{i}", "Who was there?", words[: 2 + i % 3], context=f"There was a {words[i % 4]} and a {words[i % 3]}."
        )
        for i in range(count)
    ]
