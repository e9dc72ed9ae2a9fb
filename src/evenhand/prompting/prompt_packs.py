"""Prompt packs: the texts that methods use in prompts, one YAML file per language.

English, German, Spanish, Catalan and Korean are shipped (`en`, `de`, `es`, `ca`, `ko`); your own file with the
same keys is given by its path. A file states the source of every wording.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from evenhand.core import yaml_reader
from evenhand.core.hashing import digest
from evenhand.core.text_fields import fields
from evenhand.errors import DataError, UnknownNameError, reason
from evenhand.interfaces import AnswerBy, Dialogue, Message, Question
from evenhand.prompting.rendering import BY_TEXT, SINGLE_LETTER, as_dialogue, letters_template
from evenhand.renaming import old_arguments

ATTRIBUTES = ("toxicity", "severe_toxicity", "sexually_explicit", "threat", "identity_attack", "profanity")
"""Names of the six attributes of Schick et al. 2021, in the order of their code."""
FOLDER = Path(__file__).parents[1] / "data" / "prompts"


def _fields(*names: str, needed: Collection[str] | None = None) -> AfterValidator:
    """Check that a text has only these fields in braces, and all of those in `needed` (default: all)."""

    def check(text: str) -> str:
        found = set(fields(text))
        lacking = sorted(set(names if needed is None else needed) - found)
        if lacking or not found <= set(names):
            written = ", ".join(f"{{{name}}}" for name in names)
            raise ValueError(f"the fields of this text are {written}; it has {sorted(found)}, without {lacking}")
        return text

    return AfterValidator(check)


Told = Annotated[str, _fields("axis", needed=())]
"""Text that may contain the field for the axis."""


class _Texts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_min_length=1)


class QuestionTexts(_Texts):
    """Texts around a question if a method writes the turn."""

    single_letter: str
    """Request of the baseline prompt."""


class SelfDebiasTexts(_Texts):
    """Gallegos et al. 2025: explanation and reprompting."""

    explain: str
    reprompt: str
    reprompt_open: str
    reprompt_stated: str
    reprompt_stated_open: str


class MoralTexts(_Texts):
    """Ganguli et al. 2023: moral self-correction."""

    instruction: str
    think: str
    decide: str
    decide_open: str


class IntentTexts(_Texts):
    """Anantaprayoon et al. 2025: intent-aware self-correction."""

    critique: Annotated[str, _fields("asked", "reasoning", "answer", "aspect")]
    aspects: Annotated[dict[str, str], Field(min_length=1)]
    feedback: Annotated[str, _fields("aspect", "score", "reason")]
    """One line of the feedback."""
    refine: Annotated[str, _fields("feedback")]
    refine_open: Annotated[str, _fields("feedback")]


class BiasFreeTexts(_Texts):
    """Ours, after the four prompts of BiasFreeBench (Xu et al. 2025): awareness, reflection, chain of thought, help."""

    aware: Told
    reflect: Told
    reflect_open: Told
    answer_mark: str
    """Text that begins the line with the answer."""
    steps: Annotated[str, _fields("axis", "answer_mark", needed=["answer_mark"])]
    steps_open: Annotated[str, _fields("axis", "answer_mark", needed=["answer_mark"])]
    system_mark: str
    """Heading of the first field of a rewrite, the system's text."""
    question_mark: str
    """Heading of the second field, the question."""
    no_system: str
    """Content of the first field if there is no system text."""
    rewrite: Annotated[
        str,
        _fields(
            *("axis", "system_mark", "question_mark", "no_system", "system", "question"),
            needed=["system_mark", "question_mark", "no_system", "system", "question"],
        ),
    ]


class DecodingTexts(_Texts):
    """Schick et al. 2021: self-debiasing decoding."""

    prefix: Told
    sentences: dict[str, Told] | None = None
    """Prefixes that are complete sentences, by name, such as the paper's six; packs may leave them out."""


class DiagnosisTexts(_Texts):
    """Schick et al. 2021: self-diagnosis."""

    form: Annotated[str, _fields("text", "question")]
    """Prompt up to the model's answer."""
    positive: str
    """Answer that the text has the attribute."""
    negative: str
    questions: Annotated[dict[str, str], Field(min_length=1)]
    """Questions by attribute, such as toxicity."""


class PromptPack(_Texts):
    """All texts in one language."""

    language: str
    question: QuestionTexts
    self_debias: SelfDebiasTexts
    instructions: Annotated[dict[str, Told], Field(min_length=1)]
    """Clauses by name, with {axis}. `clauses` also accepts each with "ours_" before its name."""
    paper_instructions: dict[str, Told] | None = None
    """The originals of Chen et al. 2024, by name; they speak of gender. Packs may leave them out."""
    moral: MoralTexts
    intent: IntentTexts
    decoding: DecodingTexts
    diagnosis: DiagnosisTexts | None = None
    """None in packs that were written before these texts;  `diagnosis_texts` refuses such a pack."""
    bias_free: BiasFreeTexts | None = None
    """None in packs that were written before these texts;  `bias_free_texts` refuses such a pack."""
    axes: dict[str, str]
    """Word for an axis, by the benchmark's name of it."""
    any_axis: str
    """Word used if no axis is named."""

    @property
    def hash(self) -> str:
        """Hash of all texts, since a file may change while its path stays the same."""
        return digest(self.model_dump(exclude_none=True))

    @property
    def bias_free_texts(self) -> BiasFreeTexts:
        """The texts after BiasFreeBench.

        Raises:
            DataError: The pack has none.
        """
        if self.bias_free is None:
            raise self._lacks("bias_free")
        return self.bias_free

    @property
    def diagnosis_texts(self) -> DiagnosisTexts:
        """The texts of self-diagnosis.

        Raises:
            DataError: The pack has none.
        """
        if self.diagnosis is None:
            raise self._lacks("diagnosis")
        return self.diagnosis

    def prefix(self, name: str) -> str:
        """Return a prefix of self-debiasing decoding that is a complete sentence.

        Raises:
            DataError: The pack has no such prefixes.
            UnknownNameError: The pack has no prefix of this name.
        """
        if self.decoding.sentences is None:
            raise self._lacks("decoding.sentences")
        if name not in self.decoding.sentences:
            raise UnknownNameError("prefix", name, self.decoding.sentences)
        return self.decoding.sentences[name]

    def _lacks(self, key: str) -> DataError:
        return DataError(
            f"the {self.language} prompt pack has no texts under {key}, which this method, variant or benchmark needs; "
            f"add them as in {FOLDER / 'en.yaml'}"
        )

    @property
    def clauses(self) -> dict[str, str]:
        """Instructions that `instruction` can use, by name.

        These are the instructions, both by name and, as they are ours, with the prefix "ours_"; the originals of the
        paper; and `self_awareness`. Packs need not have the last two.
        """
        own = {} if self.bias_free is None else {"self_awareness": self.bias_free.aware}
        ours = {f"ours_{name}": text for name, text in self.instructions.items()}
        return {**own, **ours, **(self.paper_instructions or {}), **self.instructions}

    def put(self, question: Question) -> Dialogue:
        """Return the turn that asks for an answer by letter: the question's ready dialogue, or its template's text."""
        if question.dialogue is None and question.template == "letters":
            text = letters_template(question, self.question.single_letter)
            return Dialogue((Message("user", text),), question.draw)
        return as_dialogue(question, "letters")

    def worded(self, question: Question, answer_by: AnswerBy | None = None) -> Question:
        """Write out the prompt of a question if this language words it differently from the template.

        A question answered by texts has no request in its prompt, and is returned unchanged.

        Args:
            question: What is asked.
            answer_by: How the answer is read if the question leaves it to the model.
        """
        same = self.question.single_letter == SINGLE_LETTER or question.template != "letters"
        if same or question.dialogue is not None or (answer_by or question.answer_by) in BY_TEXT:
            return question
        return question.altered(dialogue=self.put(question))

    @old_arguments(topic="item_axis")
    def axis(self, axis: str, item_axis: str = "") -> str:
        """Return the word for an axis.

        Args:
            axis: "auto" for that of `item_axis`, "any" for the word that fits all, a benchmark's axis, or the word.
            item_axis: The axis that an item is about, as its benchmark names it; an axis without a word in the pack
                gets the general one.
        """
        if axis == "auto":
            return self.axes.get(item_axis, self.any_axis)
        return self.any_axis if axis == "any" else self.axes.get(axis, axis)


def prompt_pack(name: str = "en") -> PromptPack:
    """Read a pack by language, or by the path of a YAML file with the same keys.

    Args:
        name: A shipped language, such as "en", or a file's path.

    Raises:
        UnknownNameError: The name is neither a shipped language nor a file.
        DataError: The file is not a prompt pack; the message says which key is wrong.
    """
    shipped = {path.stem: path for path in FOLDER.glob("*.yaml")}
    path = shipped.get(name) or Path(name).expanduser()
    if not path.is_file():
        raise UnknownNameError("prompt pack", name, shipped)
    return _read(path, path.stat().st_mtime_ns)


@cache
def _read(path: Path, modified: int) -> PromptPack:  # the time only makes the cache key
    try:
        return PromptPack.model_validate(yaml_reader.load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        wrong = yaml_reader.wrong_fields(error)
        raise DataError(f"{path} is not a prompt pack: {wrong}. See {FOLDER / 'en.yaml'} for the keys") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as a prompt pack: {reason(error)}") from error
