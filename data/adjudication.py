"""Texts for the members of a pool: how they are asked, how they judge, and how a reply is revised.

`en` and `demo` are shipped; your own file with the same keys is given by its path.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from evenhand.core.text_fields import fields
from evenhand.data.io import yaml
from evenhand.data.io.content import read_bytes
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.rows import unusable_pattern

FOLDER = Path(__file__).parent / "templates"
SHIPPED = ("en", "demo")
RubricName = Literal["bias", "helpfulness", "refusal"]


class Rubric(BaseModel):
    """A question to a judge that is answered with one of a few short labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    labels: Annotated[dict[str, float], Field(min_length=2)]
    """Value of each label; several may have the same value."""


class AdjudicationTexts(BaseModel):
    """The content of a file such as `templates/adjudication_en.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: str
    ask: str
    """The user's turn; its field is {text}, the sentence."""
    opening: str = ""
    """Beginning that is put before every answer; its field is {people}, such as "Old people"."""
    rubrics: dict[RubricName, Rubric]
    critique: str
    revise: str
    refusals: tuple[str, ...] = ()
    """Regular expressions that match the beginning of a refusal."""
    names: tuple[str, ...] = ()
    """Names by which a reply would give its author away."""
    hidden: str = "[a model]"
    """Text that replaces these names."""

    def check(self) -> None:
        """Refuse texts that lack a required field or have an unknown one.

        Raises:
            ValueError: Names the text.
        """
        if "bias" not in self.rubrics:
            raise ValueError("rubrics must hold bias")
        _fields("ask", self.ask, {"text"}, {"text"})
        _fields("opening", self.opening, set(), {"people"})
        _fields("critique", self.critique, {"answer"}, {"asked", "answer"})
        _fields("revise", self.revise, {"critique"}, {"critique"})
        for name, rubric in self.rubrics.items():
            _fields(f"rubrics.{name}.prompt", rubric.prompt, {"answer"}, {"asked", "answer"})
            if len(set(rubric.labels.values())) < 2:
                raise ValueError(f"rubrics.{name}: all labels are worth the same")
        for pattern in self.refusals:
            if why := unusable_pattern(pattern):
                raise ValueError(f"refusals: {pattern[:40]!r} is not a regular expression: {why}")

    def refuses(self, reply: str) -> bool:
        """Whether a reply begins like a refusal."""
        start = reply.strip()
        return any(re.match(pattern, start, re.I) for pattern in self.refusals)

    def anonymous(self, reply: str, also: tuple[str, ...] = ()) -> str:
        """Replace the names of models in a reply."""
        names = sorted({*self.names, *also}, key=len, reverse=True)
        if not names:
            return reply
        return re.sub(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)", self.hidden, reply, flags=re.I)


class Loaded(NamedTuple):
    """The texts, and the hash of their file."""

    texts: AdjudicationTexts
    sha256: str


def load_texts(name: str | Path) -> Loaded:
    """Read a shipped file by name, or another file by path.

    Raises:
        DataError: The file is missing or broken.
    """
    path = FOLDER / f"adjudication_{name}.yaml" if str(name) in SHIPPED else Path(name).expanduser()
    what, shipped = "texts for adjudication", FOLDER / "adjudication_en.yaml"
    return Loaded(*yaml.read(path, AdjudicationTexts, what, " or ".join(SHIPPED), shipped))


def demo_instructions() -> list[str]:
    """Read general instructions for the demo family: texts in two forms at once; the IFEval-type set asks for one."""
    return read_bytes(demo_folder("adjudication") / "instructions.txt").decode().splitlines()


def _fields(where: str, text: str, needed: set[str], known: set[str]) -> None:
    found = set(fields(text))
    if not needed <= found <= known:
        raise ValueError(f"{where}: its fields are {sorted(known)}, needed {sorted(needed)}; it has {sorted(found)}")
