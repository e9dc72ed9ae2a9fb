"""`gpqa`: graduate-level questions (Rein et al. 2023, arXiv 2311.12022; idavidrein/gpqa, baselines/).

Accuracy is right / all, and the refusal fraction unparsed / all: an answer in a format that the official patterns do
not read counts as a refusal, so a method that changes the format of replies seems to refuse more.

The data set is gated, and its authors ask that no example be published in plain text where it could be crawled. Answers
are stored without the text of replies and turns (a reply is a hash), nothing asked or said here enters the answer
cache, and items are named by their Record ID.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from evenhand.core.answer_cache import answer_cache
from evenhand.core.draws import seeded_hash
from evenhand.core.hashing import text_hash
from evenhand.data.gpqa import Row as LoadedRow
from evenhand.data.gpqa import Subset, load
from evenhand.errors import SettingsError
from evenhand.evaluation.base import QuestionBenchmark, Row
from evenhand.evaluation.loading import Loaded, first_names
from evenhand.evaluation.metrics.multiple_choice import STATISTICS, exam_formulas, exam_row
from evenhand.interfaces import Ability, Choice, Dialogue, Message, Model, Question, Reply, Sampling, settings
from evenhand.models.asking import parsed
from evenhand.prompting import thinking

Asked = Literal["letters", "zero_shot", "zero_shot_cot"]
SYSTEM = "You are a very intelligent assistant, who follows instructions directly."
FORMAT = '\n\nFormat your response as follows: "The correct answer is (insert answer here)"'
THINK = "\nLet's think step by step: "
CONCLUDE = (
    "\n\nBased on the above, what is the single, most likely answer choice? "
    'Answer in the format "The correct answer is (insert answer here)".'
)
PATTERNS = tuple(
    re.compile(p) for p in (r"answer is \((.)\)", r"Answer: \((.)\)", r"answer: \((.)\)", r"answer \((.)\)", r"\((.)\)")
)
_ALONE = re.compile(r"\A\s*\((.)\)\.?\s*\Z")
_HARMLESS_NOTE = re.compile(
    r"needs \d+ tokens, the context holds \d+"
    r"|no option letter is among the \d+ most probable first tokens"
    r"|the server gave no log-probabilities; use answer_by='generation'"
    r"|options that speak of positions stay where they are: [A-Z](, [A-Z])*"
    r"|\d+ of \d+ orders could not be read"
    r"|not calibrated: \d+ answers share this prior, \d+ are needed"
    r"|the reply was cut at \d+ tokens; give it more with max_new_tokens"
    r"|undecided: the thought (was cut at \d+ tokens|never ended)"
)
"""Notes that models themselves write; any other note may come from a server and quote the question."""
HIDDEN_NOTE = "the reason is not kept, as it may quote the question"


@dataclass(frozen=True, slots=True)
class GPQAItem:
    """One question with its options in the order shown; its texts are left out of `repr`."""

    id: str
    cluster: str
    """Id of the first record with the same question."""
    domain: str
    right: int
    """Position of the right answer, from 0."""
    question: Question = field(repr=False)


def shown_order(record: str, seed: int) -> tuple[int, ...]:
    """Draw the order of a record's four options by a hash of seed, record and option, wherever the record stands."""
    return tuple(sorted(range(4), key=lambda option: seeded_hash(seed, record, option)))


def base_prompt(question: str, options: Sequence[str]) -> str:
    """Return the question in the official form."""
    lines = [f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True)]
    return "\n".join([f"What is the correct answer to this question: {question}", "", "Choices:", *lines])


def parse_official(reply: str, finished: bool = True) -> int | None:
    """Return the position of the answer: of the first pattern whose first match is one of the letters A to D.

    Unlike the official code, only "answer is (A)", "Answer: (A)", "answer: (A)" or a bare "(A)" is read in a reply that
    was cut at the token limit. The official code would take the first letter in brackets, with which the reply may only
    begin to discuss the options.
    """
    for pattern in PATTERNS if finished else (*PATTERNS[:3], _ALONE):
        match = pattern.search(reply)
        if match and match[1] in "ABCD":
            return "ABCD".index(match[1])
    return None


@settings
class GPQA(QuestionBenchmark[GPQAItem]):
    """Hard science questions: what a method costs in knowledge, and whether it makes a model refuse."""

    name: ClassVar[str] = "gpqa"
    quotable: ClassVar[bool] = False
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"asked": "zero_shot"},
        "paper_cot": {"asked": "zero_shot_cot"},
    }
    statistics = STATISTICS
    formulas = exam_formulas(
        "refusal",
        "share of rows without a readable answer; a reply in a format other than "
        "the official patterns read counts as one, so format drift shows here",
    )

    source: str = "auto"
    """Where the rows come from: auto ($EVENHAND_DATA/gpqa, else the hub with your token), hub, demo, a folder or a csv
    file."""
    subset: Subset = "main"
    """Which of GPQA's files: diamond (198 rows), main (448) or extended (546)."""
    asked: Asked = "letters"
    """How questions are asked. letters: a multiple-choice question, answered in the model's usual way. zero_shot and
    zero_shot_cot: replies are written to the official prompts and read by the official patterns; zero_shot_cot takes
    two requests."""
    seed: int = 0
    """Seed of the order of each question's options."""
    max_new_tokens: int = 1000
    """Maximum length of a written reply in tokens, without preceding thoughts; the official code's limit."""

    def __post_init__(self) -> None:
        """Declare what is needed of a model, and refuse settings that make no sense.

        Raises:
            SettingsError: `max_new_tokens` is below 1.
        """
        if self.max_new_tokens < 1:
            raise SettingsError(f"gpqa: max_new_tokens={self.max_new_tokens} must be at least 1; the paper uses 1000")
        if self.asked != "letters":
            object.__setattr__(self, "needs", frozenset({"generate"}))

    def read(self) -> Loaded[GPQAItem]:
        """Read all rows in file order; the facts contain no text of the data set."""
        loaded = load(self.source, self.subset)
        clusters = first_names((row.question, row.id) for row in loaded.rows)
        return Loaded([self._item(r, c) for r, c in zip(loaded.rows, clusters, strict=True)], loaded.facts)

    def _item(self, row: LoadedRow, cluster: str) -> GPQAItem:
        order = shown_order(row.id, self.seed)
        return GPQAItem(row.id, cluster, row.domain, order.index(0), _question(row, order))

    def stratum(self, item: GPQAItem) -> str:
        """Return the domain."""
        return item.domain

    def ask(self, model: Model, items: Sequence[GPQAItem]) -> list[Choice]:
        """Ask without the cache, which would keep replies on disk, and discard every text that was said."""
        with answer_cache(None):
            if self.asked == "letters":
                return [_without_text(c) for c in model.choose([item.question for item in items])]
            return self._written(model, items)

    def _written(self, model: Model, items: Sequence[GPQAItem]) -> list[Choice]:
        sampling = Sampling(max_new_tokens=self.max_new_tokens)
        prompts = [base_prompt(i.question.question, i.question.options) for i in items]
        if self.asked == "zero_shot":
            return [_read(r, sampling) for r in model.generate([_dialogue(p + FORMAT) for p in prompts], sampling)]
        thoughts = model.generate([_dialogue(p + THINK) for p in prompts], sampling)
        said = {i: thinking.parts(r.text).answer for i, r in enumerate(thoughts) if r.text is not None}
        thought = [i for i, text in said.items() if text is not None]
        told = [_dialogue(f"{prompts[i]}{THINK}{said[i]}{CONCLUDE}") for i in thought]
        last = dict(zip(thought, model.generate(told, sampling), strict=True))
        return [
            _read(replace(last[i], usage=r.usage + last[i].usage) if i in last else r, sampling)
            for i, r in enumerate(thoughts)
        ]

    def row(self, item: GPQAItem, answer: Choice) -> Row:
        """Return whether the answer is right and readable, and the columns of the letters."""
        return exam_row(item, answer)

    def groups_of(self, item: GPQAItem) -> tuple[str]:
        """Return the domain."""
        return (item.domain,)


def _question(row: LoadedRow, order: Sequence[int]) -> Question:
    """Return the question with its options as shown, so that an option's identity does not reveal the right one."""
    return Question(f"gpqa {row.id}", row.question, tuple(row.answers[o] for o in order))


def _dialogue(text: str) -> Dialogue:
    return Dialogue((Message("system", SYSTEM), Message("user", text)))


def _read(reply: Reply, sampling: Sampling) -> Choice:
    said = thinking.answer(reply.text or "")  # a thought names options that it then rejects
    return _without_text(parsed(reply, parse_official(said, reply.finished), sampling))


def _without_text(choice: Choice) -> Choice:
    """Return the answer as it may be stored: the reply as a hash (replies remain comparable), no turns or notes."""
    reply = f"sha256:{text_hash(choice.reply)[:16]}" if choice.reply else ""
    note = choice.note if not choice.note or _HARMLESS_NOTE.fullmatch(choice.note) else HIDDEN_NOTE
    return replace(choice, reply=reply, before=(), note=note)
