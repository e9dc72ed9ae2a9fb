"""Probes that measure planted quantities of a model. Applied to the oracle, a probe gives the planted value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from evenhand.data import mmlu
from evenhand.data.holistic_bias import article
from evenhand.evaluation.mmlu import header
from evenhand.interfaces import Ability, Dialogue, Message, Model, Passage, Question, Sampling
from evenhand.methods.calibration.content_free import content_free, filled
from evenhand.prompting.option_orders import flips, orders_of
from evenhand.prompting.rendering import exam_template
from evenhand.proving_ground.generator import questions, replies
from evenhand.proving_ground.generator.facts import EASY, HARD, SUBJECTS
from evenhand.proving_ground.generator.planted import FAMILY, Planted
from evenhand.proving_ground.generator.questions import FactQuestion
from evenhand.proving_ground.generator.words import (
    AXES,
    DESCRIPTORS,
    EXPLICIT_FRAMES,
    NOUNS,
    OCCUPATIONS,
    PRONOUN_FRAMES,
    STATES,
    TEMPLATES,
)
from evenhand.proving_ground.interventions import (
    CRITICISING,
    EXPLAINING,
    REPROMPT,
    STATED,
    THINKING,
    TOLD,
    abstains,
    bbq_values,
    bias_change,
    judging,
    pooled,
    shares,
    wordings,
)
from evenhand.proving_ground.interventions import Value as Value


class Probe(NamedTuple):
    """A probe of one planted quantity, or of several of one kind."""

    name: str
    about: str
    tolerance: float
    """Largest difference between measured and planted that `check` accepts."""
    needs: frozenset[Ability]
    read: Callable[[Model], list[Value]]


# ----------------------------------------------------------------------------------------- facts and letters


def _fact_question(fact: FactQuestion, name: str) -> Question:
    return Question(name, fact.text, fact.options)


def _tests() -> list[FactQuestion]:
    """Return the MMLU-type test questions, in the order of the files."""
    known = {s.question.format(x=name): (s.name, i) for s in SUBJECTS.values() for i, (name, _) in enumerate(s.facts)}
    rows = [row for name, rows in questions.mmlu_rows().items() if name.startswith("test/") for row in rows]
    return [FactQuestion(*known[row[0]], tuple(row[1:5])) for row in rows]


def knowledge(model: Model) -> list[Value]:
    """Measure accuracy by subject: the MMLU-type test, asked in a chat."""
    tests = _tests()
    answers = model.choose([_fact_question(t, f"fact {i}") for i, t in enumerate(tests)])
    return [
        Value(t.subject, f"{t.subject} {t.fact}", float(a.decision == t.right))
        for t, a in zip(tests, answers, strict=True)
    ]


def five_shot(model: Model) -> list[Value]:
    """Measure accuracy by subject: the MMLU-type test in the official five-shot form."""
    tests = _tests()
    dev = mmlu.load("demo", "test").dev
    headers = {subject: header(subject, shots) for subject, shots in dev.items()}
    asked = [headers[t.subject] + exam_template(Question("", t.text, t.options)) for t in tests]
    passages = [Passage(f" {letter}", text) for text in asked for letter in "ABCD"]
    scores = np.array([s.logprob for s in model.score(passages)]).reshape(len(tests), 4)
    return [
        Value(t.subject, f"{t.subject} {t.fact}", float(best == t.right))
        for t, best in zip(tests, scores.argmax(axis=1), strict=True)
    ]


def hard_knowledge(model: Model) -> list[Value]:
    """Measure accuracy by domain: the GPQA-type set, with the right answer of each question at every letter."""
    rows = [(row, at) for row in questions.gpqa_rows() for at in range(4)]
    asked = []
    for row, at in rows:
        options = [row["Incorrect Answer 1"], row["Incorrect Answer 2"], row["Incorrect Answer 3"]]
        options.insert(at, row["Correct Answer"])
        asked.append(Question(f"{row['Record ID']}-{at}", row["Question"], tuple(options)))
    answers = model.choose(asked)
    return [
        Value(row["Subdomain"], row["Question"], float(a.decision == at))
        for (row, at), a in zip(rows, answers, strict=True)
    ]


def letters(model: Model) -> list[Value]:
    """Measure P(letter) on facts that no model of the family is sure of, with the options in all cyclic orders."""
    asked: list[tuple[str, Question]] = []
    for subject in (*EASY, *HARD):
        size = len(subject.facts)
        unknown = [f for f in range(size) if all(p.knows(subject.name, f, size) == "unknown" for p in FAMILY.values())]
        for fact in unknown:
            answers = [subject.facts[(fact + k) % size][1] for k in range(4)]
            for turn in range(4):
                options = tuple(answers[turn:] + answers[:turn])
                name = f"{subject.name} {fact}"
                asked.append(
                    (name, Question(f"{name} {turn}", subject.question.format(x=subject.facts[fact][0]), options))
                )
    answers_given = model.choose([q for _, q in asked])
    return [
        Value("ABCD"[position], cluster, float((a.probabilities or ())[position]))
        for (cluster, _), a in zip(asked, answers_given, strict=True)
        for position in range(4)
    ]


def letters_of_nothing(model: Model) -> list[Value]:
    """Measure P(letter) on content-free inputs, which calibrating methods ask, with three and with four options."""
    kinds = [(count, filling) for count in (3, 4) for filling in content_free()]
    blanks = [Question("", "", ("",) * count) for count, _ in kinds]
    asked = [
        filled(blank, filling, shows_options=True, name=f"blank {n}")
        for n, (blank, (_, filling)) in enumerate(zip(blanks, kinds, strict=True))
    ]
    return [
        Value(f"{letter} of {count}", filling.content, p)
        for (count, filling), a in zip(kinds, model.choose(asked), strict=True)
        for letter, p in zip("ABCD", a.probabilities or (), strict=False)
    ]


def order_flips(model: Model) -> list[Value]:
    """Measure if the chosen option changes with the order, by domain: the GPQA-type set in all cyclic orders."""
    asked = []
    for row in questions.gpqa_rows():
        options = (row["Correct Answer"], *(row[f"Incorrect Answer {n}"] for n in (1, 2, 3)))
        shown = Question(row["Record ID"], row["Question"], options)
        asked += [(row, shown.reordered(order)) for order in orders_of(shown, "cyclic")]
    answers = model.choose([q for _, q in asked])
    return [
        Value(row["Subdomain"], row["Question"], float(flips([a.decision for a in answers[n : n + 4]])))
        for n, (row, _) in list(enumerate(asked))[::4]
    ]


def labels(model: Model) -> list[Value]:
    """Measure P(label) over all reviews."""
    every = questions.reviews()
    passages = [Passage(f" {label}", questions.review_prompt(r)) for r in every for label in questions.LABELS]
    p = shares(model, passages, len(questions.LABELS))
    return [
        Value(label, r.text, float(row[j]))
        for r, row in zip(every, p, strict=True)
        for j, label in enumerate(questions.LABELS)
    ]


# -------------------------------------------------------------------------------------------------- text world


def pronouns(model: Model) -> list[Value]:
    """Measure P(she) against he for each occupation, if nothing reveals the gender."""
    asked = [(job, frame) for job, frame in product(OCCUPATIONS, PRONOUN_FRAMES)]
    p = _she(model, [(frame, {"occupation": job}) for job, frame in asked])
    return [Value(job, frame, float(v)) for (job, frame), v in zip(asked, p, strict=True)]


def explicit_gender(model: Model) -> list[Value]:
    """Measure P(the right pronoun) if the sentence reveals the gender."""
    asked = [
        (job, frame, gender) for job, frame in product(OCCUPATIONS, EXPLICIT_FRAMES) for gender in ("woman", "man")
    ]
    p = _she(model, [(frame, {"occupation": job, "gender": gender}) for job, frame, gender in asked])
    return [
        Value(gender, job, float(v if gender == "woman" else 1 - v))
        for (job, _, gender), v in zip(asked, p, strict=True)
    ]


def _she(model: Model, asked: Sequence[tuple[str, dict[str, str]]]) -> np.ndarray:
    from evenhand.models.masked import MaskedModel

    if isinstance(model, MaskedModel):
        texts = [frame.format(pronoun="he", state=STATES[0], **by).replace(" he ", "<mask> ", 1) for frame, by in asked]
        pair = np.array(model.fill(texts, [(" she", " he")] * len(texts)))
        raw = np.exp(pair - pair.max(axis=1, keepdims=True))
        return np.asarray(raw[:, 0] / raw.sum(axis=1))
    heads = [frame.partition(" {pronoun}")[0].format(**by) for frame, by in asked]
    return shares(model, [Passage(word, head) for head in heads for word in (" she", " he")], 2)[:, 0]


def descriptors(model: Model) -> list[Value]:
    """Measure the log-probability of a sentence with an axis's first descriptor minus that with its last, in nats."""
    asked = [
        (axis, template, noun, side)
        for axis, template in product(DESCRIPTORS, TEMPLATES)
        for noun in [pair for kind in NOUNS.values() for pair in kind]
        for side in (0, -1)
    ]
    passages = []
    for axis, template, (one, many), side in asked:
        word = [d for bucket in DESCRIPTORS[axis].values() for d in bucket][side]
        text = template.format(noun_phrase=f"{article(word)} {word} {one}", plural_noun_phrase=f"{word} {many}")
        passages.append(Passage(text))
    scores = np.array([s.logprob for s in model.score(passages)]).reshape(-1, 2)
    return [
        Value(axis, template, float(first - last))
        for (axis, template, _, _), (first, last) in zip(asked[::2], scores, strict=True)
    ]


def statements(model: Model) -> list[Value]:
    """Measure the log-probability of the main model's stereotypes minus that of their opposites, in nats, by axis."""
    planted = FAMILY["demo"]
    cells = [
        (axis.name, group.plural, trait)
        for axis in AXES
        for g, group in enumerate(axis.marked)
        for t, trait in enumerate(axis.traits)
        if planted.lean(axis.name, g, t) > 0
    ]
    scores = model.score([Passage(f"{who} are {word}.") for _, who, t in cells for word in (t.bad, t.good)])
    return [
        Value(axis, f"{who} {trait.bad}", bad.logprob - good.logprob)
        for (axis, who, trait), bad, good in zip(cells, scores[::2], scores[1::2], strict=True)
    ]


# ------------------------------------------------------------------------------------------------------ replies


def ratings(model: Model) -> list[Value]:
    """Measure the expected rating, 0 to 4, of biased and unbiased sentences."""
    every = replies.sentences()
    prompts = [Dialogue((Message("user", replies.RATING_PROMPTS[0].format(text=s.text)),)) for s in every]
    p = shares(model, [Passage(d, prompt) for prompt in prompts for d in replies.DIGITS], len(replies.DIGITS))
    expected = p @ np.arange(len(replies.DIGITS))
    return [Value("biased" if s.biased else "unbiased", s.axis, float(v)) for s, v in zip(every, expected, strict=True)]


def instructions(model: Model) -> list[Value]:
    """Measure if instructions are followed, by IFEval instruction, judged by IFEval's own checkers."""
    from evenhand.evaluation.metrics.ifeval_checkers import follows

    every = list(replies.writings())
    answers = model.generate([Dialogue((Message("user", w.prompt),)) for w in every], Sampling(max_new_tokens=40))
    return [
        Value(
            w.instruction,
            f"{w.instruction} {w.topic}",
            float(follows(w.instruction, replies.INSTRUCTION_TEXT[w.instruction][1], a.text or "")),
        )
        for w, a in zip(every, answers, strict=True)
    ]


def single_turn(model: Model) -> list[Value]:
    """Measure P(favourite option) at a first turn, by category."""
    out = []
    for question in replies.PREFERENCES:
        prompt = Dialogue((Message("user", question.prompt() + replies.SUFFIX),))
        p = shares(model, [Passage(f"{{{{{o}}}}}", prompt) for o in question.options], len(question.options))
        out.append(Value(question.category, question.topic, float(p[0][question.options.index(question.favourite)])))
    return out


CONVERSATIONS, TURNS = 5, 30


def multi_turn(model: Model) -> list[Value]:
    """Measure the share of the favourite option in conversations of 30 turns, by category; sampled at temperature 1.

    All conversations advance together.
    """
    from random import Random

    random = Random(0)
    talks = [(q, n) for q in replies.PREFERENCES for n in range(CONVERSATIONS)]
    dialogues = [Dialogue((), draw=n) for _, n in talks]
    hits = np.zeros(len(talks))
    valid = np.zeros(len(talks))
    for turn in range(TURNS):
        dialogues = [
            d.user(q.prompt(tuple(random.sample(q.options, len(q.options)))) + replies.SUFFIX)
            for d, (q, _) in zip(dialogues, talks, strict=True)
        ]
        said = model.generate(dialogues, Sampling(temperature=1.0, max_new_tokens=8, seed=turn))
        for i, (reply, (question, _)) in enumerate(zip(said, talks, strict=True)):
            answer = (reply.text or "").strip().removeprefix("{{").removesuffix("}}")
            valid[i] += answer in question.options
            hits[i] += answer == question.favourite
        dialogues = [d.assistant(r.text or "") for d, r in zip(dialogues, said, strict=True)]
    return [
        Value(q.category, f"{q.topic} {n}", float(h / v)) for (q, n), h, v in zip(talks, hits, valid, strict=True) if v
    ]


def planted_multi_turn(planted: Planted) -> list[Value]:
    """Compute the exact expected share of the favourite option over 30 turns."""
    return [
        Value(q.category, q.topic, replies.multi_turn_share(planted, q, TURNS)[q.favourite])
        for q in replies.PREFERENCES
    ]


_CHOOSE: frozenset[Ability] = frozenset({"choose"})
_SCORE: frozenset[Ability] = frozenset({"score"})
_GENERATE: frozenset[Ability] = frozenset({"generate"})
_WRITE = _CHOOSE | _GENERATE

PROBES: tuple[Probe, ...] = tuple(
    Probe(*row)
    for row in (
        ("ambiguous bias", "BBQ's ambiguous bias score, by axis", 0.06, _CHOOSE, lambda m: bbq_values(m)["bias"]),
        ("reading", "accuracy in disambiguated contexts", 0.06, _CHOOSE, lambda m: pooled(bbq_values(m)["right"])),
        ("reprompt effect", "change of the bias by a reprompt", 0.09, _CHOOSE, bias_change(REPROMPT)),
        ("reprompt abstention", "change of abstention where the context tells", 0.06, _CHOOSE, abstains(REPROMPT)),
        ("stated reprompt effect", "the same, asked to keep what is stated", 0.08, _CHOOSE, bias_change(STATED)),
        ("stated reprompt abstention", "the same as for a reprompt", 0.06, _CHOOSE, abstains(STATED)),
        ("instruction effect", "change of the bias by an instruction", 0.08, _CHOOSE, bias_change(TOLD)),
        ("instruction wordings", "the same over all axes, by wording", 0.06, _CHOOSE, wordings),
        ("explanation effect", "change of the bias by an explanation", 0.08, _WRITE, bias_change(EXPLAINING)),
        ("explanation abstention", "the same as for a reprompt", 0.06, _WRITE, abstains(EXPLAINING)),
        ("thinking effect", "change of the bias by thinking first", 0.08, _WRITE, bias_change(THINKING)),
        ("thinking abstention", "the same as for a reprompt", 0.06, _WRITE, abstains(THINKING)),
        ("feedback effect", "further change by its own feedback", 0.08, _WRITE, bias_change(CRITICISING, THINKING)),
        ("judging", "expected rating of answers, 0 to 4", 0.25, _SCORE, judging),
        ("letters", "P(letter) where no answer is known", 0.06, _CHOOSE, letters),
        ("letters of nothing", "P(letter) where there is no content", 0.06, _CHOOSE, letters_of_nothing),
        ("knowledge", "accuracy on the MMLU-type test, by subject", 0.06, _CHOOSE, knowledge),
        ("knowledge, five-shot", "the same in the official five-shot form", 0.06, _SCORE, five_shot),
        ("hard knowledge", "accuracy on the GPQA-type set, by domain", 0.06, _CHOOSE, hard_knowledge),
        ("order flips", "share whose answer depends on the order", 0.12, _CHOOSE, order_flips),
        ("labels", "P(label) in the classification of reviews", 0.06, _SCORE, labels),
        ("pronouns", "P(she), by occupation", 0.06, _SCORE, pronouns),
        ("explicit gender", "P(the right pronoun) where the gender is stated", 0.06, _SCORE, explicit_gender),
        ("descriptors", "log-probability, first descriptor less last (nats)", 0.25, _SCORE, descriptors),
        ("statements", "log-probability, stereotyped statement less its opposite (nats)", 0.25, _SCORE, statements),
        ("ratings", "expected rating of sentences, 0 to 4", 0.25, _SCORE, ratings),
        ("instructions", "share followed, by IFEval instruction", 0.09, _GENERATE, instructions),
        ("single turn", "P(favourite option) at a first turn", 0.06, _SCORE, single_turn),
        ("multi turn", "share of the favourite option over 30 turns", 0.08, _GENERATE, multi_turn),
    )
)
