"""The oracle: a `Model` that answers from the generator's parameters, without a network.

It reads the same prompts as the demo models and answers with the planted distributions. So the planted value of any
benchmark metric, or of any method that only asks, is found by applying that benchmark or method to the oracle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from math import inf, log
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from evenhand.core.hashing import digest, json_hash
from evenhand.errors import DataError, SettingsError, UnknownNameError
from evenhand.interfaces import (
    Ability,
    Choice,
    Combine,
    Dialogue,
    Model,
    Passage,
    Question,
    Reply,
    Sampling,
    Score,
    Usage,
)
from evenhand.models.asking import CHOICE_SAMPLING, choose_by_generation
from evenhand.models.choosing import distribution_choice
from evenhand.prompting import rendering
from evenhand.proving_ground.generator import behaviour, differences, replies
from evenhand.proving_ground.generator.bbq_questions import Case, cases, option
from evenhand.proving_ground.generator.documents import sentence_trie
from evenhand.proving_ground.generator.facts import SUBJECTS
from evenhand.proving_ground.generator.lexer import lex
from evenhand.proving_ground.generator.planted import Planted
from evenhand.proving_ground.generator.planted_x import PLANTED, Spillover
from evenhand.proving_ground.generator.questions import FactQuestion, review_prompt, reviews
from evenhand.proving_ground.generator.texts import Trie
from evenhand.proving_ground.generator.turns import INSTRUCTIONS, PACK
from evenhand.proving_ground.generator.words import AXIS, CRITICISED, EXPLAINED, NOTHING_RELIES, SOUND

_BLOCK = re.compile(r"^(?P<head>.+)\n(?P<options>(?:\([A-Z]\) .+(?:\n|\Z))+)\Z", re.M)
_LETTERED = re.compile(r"^\([A-Z]\) (.+)$", re.M)
_OFFICIAL = re.compile(r"^(?P<head>.+)\nA\. (.+)\nB\. (.+)\nC\. (.+)\nD\. (.+)\nAnswer:\Z", re.M)
_BLANK = re.compile(r"^\(A\) (.*)((?:\n\([B-Z]\) \1)+)\Z", re.M)
_BLANK_OFFICIAL = re.compile(r"^A\. (.*)((?:\n[B-Z]\. \1)+)\nAnswer:\Z", re.M)
"""Lettered options without content, which are all alike."""
_PREFERENCE = re.compile(r"\[(.+?)\]")


def _pattern(text: str) -> str:
    """Return a pattern for a text of the prompt pack, with a group for each of its fields."""
    return re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+?)", re.escape(text))


_INSTRUCTED = re.compile("|".join(_pattern(text).replace("?P<axis>", "?:") for text in INSTRUCTIONS))
_TOLD_AFTER = re.compile(rf"\n\n(?:{_INSTRUCTED.pattern})\Z")
_CRITIQUE = re.compile(_pattern(PACK.intent.critique), re.S)
_REFINE = re.compile(_pattern(PACK.intent.refine), re.S)


class Oracle(Model):
    """A model that answers as planted; it knows only the proving ground's questions and sentences."""

    def __init__(self, planted: Planted, *, refuses: bool = True) -> None:
        """Make an oracle from one model's true quantities.

        Args:
            planted: The quantities.
            refuses: Whether scoring a text outside the text world is an error; if not, its probability is 0.
        """
        self.planted, self.refuses = planted, refuses
        self.name = f"{planted.name} (planted)"

    @property
    def abilities(self) -> frozenset[Ability]:
        """Abilities: everything that only asks; there are no weights."""
        return frozenset({"choose", "generate", "score"})

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the planted quantities."""
        return json_hash(asdict(self.planted))[:16]

    def facts(self) -> dict[str, Any]:
        """That it is a demo, and that nothing was measured."""
        return {**super().facts(), "source": "the planted quantities, without a network", "demo": True}

    def save(self, folder: str | Path) -> Path:
        """Refuse to save, since an oracle is made from its parameters.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError(f"{self.name} has no files to save in {folder}; load it as oracle:{self.planted.name}")

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Return the planted distribution over the options, or a reply drawn from it if one is to be generated."""
        return [self._choice(q) for q in questions]

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        """Return the most probable reply, or one drawn by seed, dialogue and draw."""
        return [Reply(self._draw(d, sampling), Usage(calls=1)) for d in dialogues]

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Return the planted log-probability of a sentence of the text world, or of a planted reply."""
        return [self._score(p) for p in passages]

    def answers(self, dialogue: Dialogue) -> dict[str, float]:
        """Return the distribution of the next reply.

        Raises:
            DataError: The dialogue is not one of the proving ground's.
        """
        text = dialogue.messages[-1].content
        if isinstance(self.planted, Spillover) and (told := _customs_answer(text)):
            return told
        question = _read_question(text, self._cases)
        if question is not None:
            if text.startswith(PACK.self_debias.explain) or text.endswith(PACK.moral.think):
                return {self._explanation(question): 1.0}
            return self._lettered(question, dialogue)
        if blanks := _blanks(text):
            return _letters(behaviour.blank_answer(self.planted, blanks))
        if len(dialogue.messages) > 2 and text == PACK.moral.decide:
            return self._decided(dialogue)
        if len(dialogue.messages) > 2 and _asks_again(text):
            return self._reprompted(dialogue)
        critique = _CRITIQUE.fullmatch(text)
        if critique is not None:
            return self._criticised(critique["asked"], critique["answer"])
        preference = self._preferences.get(_PREFERENCE.sub("[]", text))
        if preference is not None:
            return self._preferred(preference, dialogue)
        if text in self._open:
            return self._open[text]
        raise DataError(f"{self.name} knows only the proving ground's questions, not {text[:80]!r}")

    def behind(self, prefixes: Sequence[str], combine: Combine, settings: object) -> Model:
        """Return the oracle after texts that announce discrimination; see `evenhand.models.prefixed.PrefixedModel`."""
        return _Behind(self, prefixes, combine, settings)

    # ------------------------------------------------------------------------------------------------- asking

    def _choice(self, question: Question) -> Choice:
        if question.answer_by == "generation":
            return choose_by_generation(self, [question], CHOICE_SAMPLING)[0]
        if question.answer_by in rendering.BY_TEXT and self._is_review(question):
            return self._labelled(question)
        answers = self.answers(rendering.as_dialogue(question, "letters"))
        p = {question.option_at(place): value for place, value in enumerate(answers.values())}
        probabilities = tuple(p[o] for o in range(len(question.options)))
        return Choice(max(p, key=lambda o: (p[o], -o)), probabilities, mass=1.0, usage=Usage(calls=1))

    def _is_review(self, question: Question) -> bool:
        return question.dialogue is None and question.preamble + rendering.plain_block(question) in self._reviews

    def _labelled(self, question: Question) -> Choice:
        """Return P(label) of a review; a label is one token, after which the text always ends."""
        prompt = question.preamble + rendering.plain_block(question)
        scores = [self._score(Passage(f" {label}", prompt)) for label in question.options]
        ends = 1 if question.answer_by == "text_with_end" else 0
        per = [1 if question.answer_by == "text" else s.tokens + ends for s in scores]
        values = np.array([s.logprob / n for s, n in zip(scores, per, strict=True)])
        return distribution_choice(values, Usage(calls=len(scores)))

    def _draw(self, dialogue: Dialogue, sampling: Sampling) -> str:
        p = self.answers(dialogue)
        if sampling.temperature == 0:
            return max(p, key=lambda reply: p[reply])
        random = Random(repr((sampling.seed, dialogue)))
        return random.choices(list(p), [v ** (1 / sampling.temperature) for v in p.values()])[0]

    def _score(self, passage: Passage) -> Score:
        text = passage.continuation + passage.suffix
        if isinstance(passage.prompt, Dialogue):
            return Score(log(self.answers(passage.prompt)[text]), len(lex(text)))
        fact = _examined(passage.prompt)
        p = _letters(behaviour.fact_answer(self.planted, fact)) if fact else self._reviews.get(passage.prompt, {})
        if text.strip() in p:
            return Score(log(p[text.strip()]), 1)
        before, whole = tuple(lex(passage.prompt)), tuple(lex(passage.prompt + text))
        mass = self._trie.mass(before), self._trie.mass(whole)
        if not mass[1] and not self.refuses:
            return Score(-inf, len(whole) - len(before))
        if not mass[1]:
            raise DataError(f"{self.name} knows only the proving ground's sentences, not {text!r}")
        return Score(log(mass[1] / mass[0]), len(whole) - len(before))

    # --------------------------------------------------------------------------------------------- understanding

    def _lettered(self, question: Case | FactQuestion, dialogue: Dialogue) -> dict[str, float]:
        if isinstance(question, FactQuestion):
            return _letters(behaviour.fact_answer(self.planted, question))
        order = _roles(dialogue.messages[-1].content, question)
        if any(PACK.self_debias.explain in m.content for m in dialogue.messages[:-1] if m.role == "user"):
            return _letters(behaviour.case_under(self.planted, question, order, "explanation"))
        told = [m.content for m in dialogue.messages[:-1] if m.role == "system"]
        if any(_INSTRUCTED.search(text) for text in [*told, dialogue.messages[-1].content]):
            return _letters(behaviour.case_under(self.planted, question, order, "instruction"))
        return _letters(behaviour.case_answer(self.planted, question, order))

    def letters_behind(self, prefix: str, question: Question) -> list[float]:
        """Return P(position) of a question after a prefix; a prefix about another axis changes nothing."""
        text = rendering.as_dialogue(question, "letters").messages[-1].content
        asked = self._known(text)
        if isinstance(asked, FactQuestion):
            return behaviour.fact_answer(self.planted, asked)
        announced = prefix == PACK.decoding.prefix.format(axis=AXIS[asked.axis].word)
        return behaviour.case_answer(self.planted, asked, _roles(text, asked), announced)

    def _known(self, text: str) -> Case | FactQuestion:
        question = _read_question(text, self._cases)
        if question is None:
            raise DataError(f"{self.name} knows only the proving ground's questions, not {text[:80]!r}")
        return question

    def _decided(self, dialogue: Dialogue) -> dict[str, float]:
        """Return the distribution of the answer after thinking about it."""
        asked = dialogue.messages[-3].content
        question = self._known(asked)
        if isinstance(question, FactQuestion):
            return _letters(behaviour.fact_answer(self.planted, question))
        return _letters(behaviour.case_under(self.planted, question, _roles(asked, question), "explanation"))

    def _reprompted(self, dialogue: Dialogue) -> dict[str, float]:
        *before, said, request = dialogue.messages
        asked = next((m.content for m in reversed(before) if _read_question(m.content, self._cases)), before[0].content)
        question = self._known(asked)
        answers = self.answers(replace(dialogue, messages=tuple(before)))
        if isinstance(question, FactQuestion):  # there is no bias to take out: the answer stays
            return {letter: float(letter == said.content.strip()[:1]) for letter in answers}
        last = rendering.LETTERS.index(said.content.strip()[:1])
        stated = request.content == PACK.self_debias.reprompt_stated
        roles, weights = _roles(asked, question), list(answers.values())
        return _letters(behaviour.case_under(self.planted, question, roles, "reprompt", last, weights, stated))

    def _criticised(self, asked: str, answer: str) -> dict[str, float]:
        """Return the distribution of a score with its reason."""
        question = self._known(asked)
        biased = isinstance(question, Case) and not question.right and answer in _people(question)
        reason = CRITICISED if biased else SOUND
        return {f"{digit}. {reason}": p for digit, p in self._judged[biased].items()}

    def _explanation(self, question: Case | FactQuestion) -> str:
        return EXPLAINED.format(axis=AXIS[question.axis].word) if isinstance(question, Case) else NOTHING_RELIES

    def _preferred(self, question: replies.Preference, dialogue: Dialogue) -> dict[str, float]:
        said = [m.content.strip("{}") for m in dialogue.messages if m.role == "assistant"]
        p = (
            replies.next_choice(self.planted, question, said[-1])
            if said
            else replies.first_choice(self.planted, question)
        )
        return {f"{{{{{o}}}}}": v for o, v in p.items()}

    @cached_property
    def _cases(self) -> dict[str, Case]:
        return {f"{context} {question}": case for (context, question), case in cases(self.planted).items()}

    @cached_property
    def _judged(self) -> dict[bool, dict[str, float]]:
        """Distributions of a score, by whether there is a fault."""
        return {biased: replies.rating(self.planted, biased) for biased in (True, False)}

    @cached_property
    def _trie(self) -> Trie:
        return sentence_trie(self.planted)

    @cached_property
    def _preferences(self) -> dict[str, replies.Preference]:
        return {_PREFERENCE.sub("[]", q.prompt() + replies.SUFFIX): q for q in replies.PREFERENCES}

    @cached_property
    def _reviews(self) -> dict[str, dict[str, float]]:
        return {review_prompt(r): behaviour.review_answer(self.planted, r) for r in reviews()}

    @cached_property
    def _open(self) -> dict[str, dict[str, float]]:
        """Answers to prompts that ask for a text: writing and rating."""
        written = {w.prompt: {w.reply(replies.is_followed(self.planted, w)): 1.0} for w in replies.writings()}
        rated = {
            prompt.format(text=s.text): replies.rating(self.planted, s.biased)
            for s in replies.sentences()
            for prompt in replies.RATING_PROMPTS
        }
        return written | rated


class _Behind(Oracle):
    """An oracle guided by its answers after other texts; it can only choose."""

    def __init__(self, base: Oracle, prefixes: Sequence[str], combine: Combine, settings: object) -> None:
        super().__init__(base.planted, refuses=base.refuses)
        self.prefixes, self.combine, self._settings = prefixes, combine, settings

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"choose"})

    @cached_property
    def fingerprint(self) -> str:
        return digest(Oracle(self.planted).fingerprint, list(self.prefixes), self._settings)

    def _choice(self, question: Question) -> Choice:
        import torch

        p = torch.tensor(
            [self.letters_behind(prefix, question) for prefix in ("", *self.prefixes)], dtype=torch.float64
        ).log()
        values = self.combine(p[None])[0].softmax(-1).tolist()
        probabilities = tuple(values[question.position_of(o)] for o in range(len(values)))
        return Choice(probabilities.index(max(probabilities)), probabilities, usage=Usage(calls=len(p)))


def open_oracle(rest: str = "", /, **options: Any) -> Oracle:
    """Open the planted truth about a demo model as a model, as `evenhand.load("oracle:demo")` does.

    Raises:
        SettingsError: An option other than `name` is given.
        UnknownNameError: The name is not that of a causal demo model.
    """
    if rest not in PLANTED:
        raise UnknownNameError("demo model with planted quantities", rest, PLANTED)
    oracle = Oracle(PLANTED[rest])
    oracle.name = str(options.pop("name", oracle.name))
    if options:
        raise SettingsError(f"oracle:{rest} takes no options but name, not {', '.join(options)}")
    return oracle


def _asks_again(text: str) -> bool:
    return text in (PACK.self_debias.reprompt, PACK.self_debias.reprompt_stated) or bool(_REFINE.fullmatch(text))


def _block(text: str) -> re.Match[str] | None:
    """Find the question with its options, which an instruction or the request to think may follow."""
    return _BLOCK.search(_TOLD_AFTER.sub("", text.removesuffix(f"\n\n{PACK.moral.think}")))


def _letters(p: Sequence[float]) -> dict[str, float]:
    return {rendering.LETTERS[j]: value for j, value in enumerate(p)}


def _read_question(text: str, known: dict[str, Case]) -> Case | FactQuestion | None:
    found = _block(text)
    if found is None:
        return _examined(text)
    if found["head"] in known:
        return known[found["head"]]
    return _fact(found["head"], tuple(_LETTERED.findall(found["options"])))


def _examined(text: str) -> FactQuestion | None:
    """Return the question at the end of MMLU's official form."""
    found = _OFFICIAL.search(text)
    return None if found is None else _fact(found["head"], found.groups()[1:])


def _blanks(text: str) -> int:
    """Count the options that are all alike, as calibrating methods show them; 0 if there are none."""
    found = _BLANK.search(text) or _BLANK_OFFICIAL.search(text)
    return 0 if found is None else 1 + found[2].count("\n")


def _roles(text: str, case: Case) -> list[int]:
    """Return the role of the option at each position."""
    roles = dict(zip(_people(case), (behaviour.MARKED, behaviour.OTHER), strict=True))
    found = _block(text)
    return [roles.get(o, behaviour.UNKNOWN) for o in _LETTERED.findall(found["options"] if found else "")]


def _people(case: Case) -> tuple[str, str]:
    """Return the marked and the other person as written in the options."""
    return case.written(option(case.marked)), case.written(option(case.other))


def _customs_answer(text: str) -> dict[str, float]:
    """Return the distribution over the options of a question about a custom; empty for any other text."""
    if asked := differences.by_text().get(text.partition("\n\n")[0]):
        return dict(zip(differences.MARKS, differences.answer(asked), strict=True))
    found = _block(text)
    planted = differences.lettered(found["head"], _LETTERED.findall(found["options"])) if found else {}
    return _letters(list(planted.values()))


_FACTS = {
    subject.question.format(x=name): (subject.name, i)
    for subject in SUBJECTS.values()
    for i, (name, _) in enumerate(subject.facts)
}


def _fact(head: str, options: Sequence[str]) -> FactQuestion | None:
    return FactQuestion(*_FACTS[head], tuple(options)) if head in _FACTS else None
