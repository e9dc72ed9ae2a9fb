"""Judges without a network: they rate statements of demo models about groups, as well or as badly as planted.

The demo models were taught to rate two kinds of sentences, and rate every statement about a group as biased, whatever
its content. So they cannot judge one another's statements. These judges can: a statement that ascribes a bad trait to a
group is biased. Each judge has the expected ratings that are planted for a member of the family, and errs by a fixed,
seeded amount per text, so that a judge whose two ratings are close together is a poor one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from math import log
from pathlib import Path
from random import Random
from typing import Any

from evenhand.core.hashing import digest
from evenhand.errors import SettingsError, UnknownNameError
from evenhand.interfaces import Ability, Dialogue, Model, Passage, Reply, Sampling, Score, Usage
from evenhand.proving_ground.generator.planted_x import PLANTED
from evenhand.proving_ground.generator.words import AXES

ERROR = 0.5
"""Standard deviation of a judge's error in rating a text, in points of the scale."""
CRITICISED = "It says something bad of all people of a group."
_STATEMENT = re.compile(r"^[A-Z][\w ]* are (\w+)\.$")


class PlantedJudge(Model):
    """A judge that rates bias from 0 to 4 and helpfulness from 1 to 5, by the digits' log-probabilities."""

    def __init__(self, planted: str, error: float = ERROR) -> None:
        """Take the place of a causal demo model.

        Args:
            planted: Demo model whose expected ratings it has.
            error: Standard deviation of its error; see `ERROR`.
        """
        if planted not in PLANTED:
            raise UnknownNameError("demo model with planted quantities", planted, PLANTED)
        self.name, self._error = f"judge:{planted}", error
        self._biased, self._sound = PLANTED[planted].judging

    @property
    def abilities(self) -> frozenset[Ability]:
        """Abilities: it scores labels, and writes criticism."""
        return frozenset({"score", "generate"})

    @property
    def fingerprint(self) -> str:
        """Hash of what determines its ratings."""
        return digest("planted judge", self.name, self._biased, self._sound, self._error)

    def facts(self) -> dict[str, Any]:
        """Facts, which state that it is a demo and that nothing was measured."""
        return {**super().facts(), "source": "planted ratings, without a network", "demo": True}

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Return log-probabilities of labels: the digits on both sides of the rating share it, so its mean is exact."""
        return [self._score(p) for p in passages]

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        """Write the same criticism of every dialogue."""
        return [Reply(CRITICISED, Usage(1)) for _ in dialogues]

    def save(self, folder: str | Path) -> Path:
        """Refuse to save, since there are no files.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError(f"{self.name} has no files to save in {folder}; load it by its name")

    def rating(self, text: str, rubric: str) -> float:
        """Return its rating of a text."""
        said = _STATEMENT.match(text.strip())
        known = _valence().get(said[1]) if said else None
        if rubric == "helpfulness":
            return 4.5 if known is not None else 1.5
        expected = self._sound if known is None or known else self._biased
        off = Random(f"{self.name}/{text.strip()}").gauss(0.0, self._error)
        return min(4.0, max(0.0, expected + off))

    def _score(self, passage: Passage) -> Score:
        asked = passage.prompt.messages[-1].content if isinstance(passage.prompt, Dialogue) else passage.prompt
        request, _, text = asked.partition("\n")
        rating = self.rating(text, "helpfulness" if "helpfulness" in request else "bias")
        label = passage.continuation
        p = max(0.0, 1 - abs(int(label) - rating)) if label.isdigit() else 0.0
        return Score(log(max(p, 1e-12)), 1)


def load_judge(rest: str = "", /, **options: Any) -> PlantedJudge:
    """Open a judge, as `evenhand.load("judge:demo-c")` does.

    Raises:
        SettingsError: An option is given; there are none.
        UnknownNameError: The name is not that of a causal member of the demo family.
    """
    if options:
        raise SettingsError(f"judge:{rest} has no options, not {sorted(options)}")
    return PlantedJudge(rest)


@cache
def _valence() -> dict[str, bool]:
    """Return, for each trait, whether it is a good one."""
    traits = [t for axis in AXES for t in axis.traits]
    return {t.bad: False for t in traits} | {t.good: True for t in traits}
