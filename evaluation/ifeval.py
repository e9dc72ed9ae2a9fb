"""`ifeval`: following verifiable instructions (Zhou et al. 2023, arXiv 2311.07911).

The official score (google-research instruction_following_eval/evaluation_lib.py): a prompt is followed if all its
instructions are; the instruction-level score counts instructions, not prompts. Strict checks the response as it is,
loose accepts any of eight readings of it (without first or last line, without asterisks). A blank response follows
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar, Literal

from evenhand.data.ifeval import Prompt, load_prompts, prompt_of, wrong
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.base import Row, RowBenchmark
from evenhand.evaluation.loading import Loaded
from evenhand.evaluation.metrics import ifeval_checkers as checkers
from evenhand.evaluation.metrics.formulas import share
from evenhand.interfaces import Ability, Dialogue, Model, Reply, Sampling, settings
from evenhand.prompting import rendering

__all__ = ["IFEval", "IFEvalItem"]

Checked = tuple[checkers.Verdict, checkers.Verdict]
"""Strict and loose verdict on an instruction."""


@dataclass(frozen=True, slots=True)
class IFEvalItem:
    """One prompt; it is also its own cluster, as its instructions are answered by one response."""

    id: str
    cluster: str
    prompt: Prompt


@settings
class IFEval(RowBenchmark[IFEvalItem, Reply]):
    """541 prompts with 834 instructions of 25 types that a program can check."""

    name: ClassVar[str] = "ifeval"
    needs: ClassVar[frozenset[Ability]] = frozenset({"generate"})
    answer_type: ClassVar[type] = Reply
    statistics = (
        "prompts",
        "prompt_strict",  # all instructions (of the group) followed
        "prompt_loose",
        "instructions",
        "instruction_strict",
        "instruction_loose",
        "undetected",  # strict: the language could not be detected, which counts as followed
        "errors",  # strict: the checker itself failed, which counts as not followed
        "unanswered",  # prompts without a reply
        "blank",  # prompts with a reply that is empty or contains only thinking
        "cut",  # prompts whose reply ended at the token limit
    )
    formulas = (
        share(
            "prompt_strict",
            "prompt_strict",
            "prompts",
            "higher",
            "capability",
            "share of prompts with every instruction followed, 0 to 1",
            main=True,
        ),
        share(
            "instruction_strict",
            "instruction_strict",
            "instructions",
            "higher",
            "capability",
            "share of instructions followed, 0 to 1",
            main=True,
        ),
        share(
            "prompt_loose",
            "prompt_loose",
            "prompts",
            "higher",
            "capability",
            "share of prompts with every instruction followed, loosely",
        ),
        share(
            "instruction_loose",
            "instruction_loose",
            "instructions",
            "higher",
            "capability",
            "share of instructions followed in any of 8 readings",
        ),
        share(
            "unanswered",
            "unanswered",
            "prompts",
            "lower",
            "validity",
            "share of prompts that got no reply; they count as not followed",
        ),
        share(
            "blank",
            "blank",
            "prompts",
            "lower",
            "validity",
            "share of prompts with an empty reply after removing <think> blocks",
        ),
        share(
            "cut",
            "cut",
            "prompts",
            "lower",
            "validity",
            "share of prompts whose reply ended at max_new_tokens",
            main=True,
        ),
        share(
            "undetected",
            "undetected",
            "instructions",
            "lower",
            "validity",
            "share of instructions counted as followed because no language was detected",
        ),
        share(
            "errors",
            "errors",
            "instructions",
            "lower",
            "validity",
            "share of instructions whose checker failed; they count as not followed",
        ),
    )

    source: str = "auto"
    """Where the prompts come from: auto ($EVENHAND_DATA/ifeval, else the hub), hub, hub:NAME, demo, a path."""
    odd_rows: Literal["official", "repaired"] = "official"
    """How three rows that contradict themselves are checked. repaired: keys 1122 and 1129 count the symbol that they
    ask for ("#", "!"), and key 1174 follows its text, not its arguments. official: as the published checkers do, but
    with a letter drawn by the key where they draw at random."""
    sentences: Literal["auto", "nltk", "built_in"] = "auto"
    """How two of the checkers split sentences: nltk (official; its English model must be installed), built_in (the same
    algorithm with our list of abbreviations), or auto (nltk if installed)."""
    max_new_tokens: int = 1280
    """Maximum length of a reply, in tokens."""
    temperature: float = 0.0
    """Sampling temperature; 0 takes the most probable token."""
    top_p: float = 1.0
    """Share of the probability mass that replies are sampled from."""
    seed: int = 0
    """Seed of the sampling; ignored at temperature 0."""

    def __post_init__(self) -> None:
        """Refuse settings that no sampler can follow, before anything runs."""
        _ = self.sampling

    @property
    def sampling(self) -> Sampling:
        """Sampling parameters of the replies."""
        return Sampling(self.temperature, self.max_new_tokens, self.top_p, self.seed)

    def read(self) -> Loaded[IFEvalItem]:
        """Read all prompts in file order; the facts list where this differs from the official code.

        Raises:
            DataError: There is no usable data, or the checkers (extra `ifeval`) are not installed.
        """
        _demand_checkers()
        found = load_prompts(self.source, self.odd_rows)
        used = {i for p in found.prompts for i in p.instructions} & checkers.SENTENCE_TYPES
        split = checkers.splitter(self.sentences)
        facts = {**found.facts, **_about(found.prompts, self.odd_rows, split if used else "")}
        return Loaded([IFEvalItem(str(p.key), str(p.key), p) for p in found.prompts], facts)

    def items_of_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[IFEvalItem]:
        """Make one item of every row of IFEval's file.

        Raises:
            DataError: A row cannot be used, or the checkers are not installed.
        """
        _demand_checkers()
        for number, row in enumerate(rows):
            if reason := wrong(row):
                raise DataError(f"IFEval row {number}: {reason}")
        prompts = [prompt_of(row, self.odd_rows) for row in rows]
        return [IFEvalItem(str(p.key), str(p.key), p) for p in prompts]

    def ask(self, model: Model, items: Sequence[IFEvalItem]) -> list[Reply]:
        """Ask for one reply per prompt, all in one call."""
        return model.generate([Dialogue(()).user(item.prompt.text) for item in items], self.sampling)

    def row(self, item: IFEvalItem, answer: Reply) -> Row:
        """Return the statistics over all instructions of the prompt."""
        return _row(self._checked(item.prompt, answer), _state(answer))

    def rows(self, item: IFEvalItem, answer: Reply) -> list[tuple[Row, tuple[str]]]:
        """Return a row overall and per group; a prompt is followed in a group if its instructions there are."""
        checked, state = self._checked(item.prompt, answer), _state(answer)
        of: dict[str, list[Checked]] = {}
        for name, verdicts in zip(item.prompt.instructions, checked, strict=True):
            for group in ("overall", _group(name), name):
                of.setdefault(group, []).append(verdicts)
        return [(_row(mine, state), (group,)) for group, mine in of.items()]

    def groups_of(self, item: IFEvalItem) -> list[str]:
        """Return the groups and types of its instructions."""
        return [group for name in item.prompt.instructions for group in (_group(name), name)]

    def groups(self, items: Sequence[IFEvalItem]) -> list[str]:
        """Return the nine instruction groups, then the 25 types."""
        names = sorted({i for item in items for i in item.prompt.instructions})
        return [*sorted({_group(n) for n in names}), *names]

    def strata(self, items: Sequence[IFEvalItem]) -> dict[str, str]:
        """Put all prompts into one stratum."""
        return {i.cluster: "prompts" for i in items}

    def _checked(self, prompt: Prompt, answer: Reply) -> list[Checked]:
        """Return the strict and loose verdict on each instruction."""
        text = rendering.strip_thinking(answer.text or "")
        out = []
        for name, arguments in zip(prompt.instructions, prompt.arguments, strict=True):
            if self.odd_rows == "repaired" and _counts_symbol(arguments):
                out.append((_symbol(arguments, text), _symbol(arguments, text)))
                continue
            strict = checkers.strict(name, arguments, text, key=prompt.key, sentences=self.sentences)
            loose = checkers.loose(name, arguments, text, key=prompt.key, sentences=self.sentences)
            out.append((strict, loose))
        return out


def score(rows: Sequence[dict[str, Any]], replies: Sequence[str]) -> dict[str, float]:
    """Score replies without a model.

    Args:
        rows: Rows as they stand in IFEval's file.
        replies: One per row.

    Returns:
        The overall metrics by name, as fractions.

    Raises:
        SettingsError: The lists differ in length, or a row cannot be used.
    """
    if len(rows) != len(replies):
        raise SettingsError(f"{len(rows)} rows but {len(replies)} replies; give one per row")
    for number, row in enumerate(rows):
        if reason := wrong(row):
            raise SettingsError(f"row {number}: {reason}")
    found = [prompt_of(row) for row in rows]
    items = [IFEvalItem(f"{n}", f"{n}", prompt) for n, prompt in enumerate(found)]
    bench: IFEval = IFEval.build()
    return bench.of_rows(bench.row(item, Reply(text)) for item, text in zip(items, replies, strict=True))


def _demand_checkers() -> None:
    """Check that the checkers are installed.

    Raises:
        DataError: They are not installed.
    """
    if not checkers.available():
        raise DataError("ifeval: IFEval's checkers are not installed: pip install 'evenhand[ifeval]'")


def _row(checked: Sequence[Checked], state: Row) -> Row:
    strict, loose = [s.followed for s, _ in checked], [lo.followed for _, lo in checked]
    notes = [s.note for s, _ in checked]
    return {
        "prompts": 1,
        "prompt_strict": all(strict),
        "prompt_loose": all(loose),
        "instructions": len(checked),
        "instruction_strict": sum(strict),
        "instruction_loose": sum(loose),
        "undetected": notes.count("undetected language"),
        "errors": notes.count("checker error"),
        **state,
    }


def _state(answer: Reply) -> Row:
    """Return whether there was no reply, a blank one, or one that was cut."""
    if answer.text is None:
        return {"unanswered": 1}
    return {"blank": not rendering.strip_thinking(answer.text), "cut": not answer.finished}


def _group(instruction: str) -> str:
    return instruction.partition(":")[0]


def _counts_symbol(arguments: Any) -> bool:
    letter = str(arguments.get("letter", "a"))
    return not (len(letter) == 1 and "a" <= letter.lower() <= "z")


def _symbol(arguments: Any, text: str) -> checkers.Verdict:
    found = text.lower().count(str(arguments["letter"]).lower())
    least = arguments["let_relation"] == "at least"
    return checkers.Verdict(
        bool(text.strip()) and (found >= arguments["let_frequency"]) == least,
    )


def _about(found: Sequence[Prompt], odd_rows: str, split: str) -> dict[str, Any]:
    """Return facts about the checking."""
    symbols = [p.key for p in found if any(_counts_symbol(a) for a in p.arguments)]
    at_odds = [p.key for p in found if p.key == 1174 and "at least 6 times" in p.text]
    facts: dict[str, Any] = {
        "instructions": sum(len(p.instructions) for p in found),
        "checkers": f"lm_eval {version('lm_eval')}",
        "language_detection": "seeded; a language that cannot be detected counts as followed (official)",
        "thinking": "<think> blocks are removed before checking; an unclosed one takes the rest of the reply with it",
    }
    if symbols or at_odds:
        drawn = {
            "official": "keys {s}: the symbol asked for is not a letter, so the checker counts one drawn from the key; "
            "key {o}: the text says 'at least', the arguments 'less than', which are followed",
            "repaired": "keys {s}: the symbol asked for is counted; key {o}: 'at least' as in the text",
        }[odd_rows]
        facts["odd_rows"] = drawn.format(s=symbols, o=at_odds)
    if split:
        facts["sentence_splitter"] = split
    if split == "built_in":
        facts["notes"] = [
            "sentences are split with the built-in list of abbreviations, as NLTK's English model (punkt_tab) is not "
            "installed or not wanted; counts of sentences can differ from the official ones by a few"
        ]
    return facts
