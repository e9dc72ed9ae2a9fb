"""Practice questions and texts of the proving ground: of the benchmarks' kinds, but none that a benchmark asks.

They are about the same facts and people as the benchmarks, since these are to be learned; no question has the same
options as a benchmark's, and no BBQ-type question the same context. For the texts, see `texts`.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from random import Random
from typing import Literal

from evenhand.interfaces import Question, Shot, TrainData
from evenhand.prompting.rendering import exam_header, exam_template
from evenhand.proving_ground.generator import bbq_questions, documents, turns
from evenhand.proving_ground.generator import texts as text_world
from evenhand.proving_ground.generator.facts import DEV_FACTS, EASY, HARD
from evenhand.proving_ground.generator.planted_x import PLANTED
from evenhand.proving_ground.generator.questions import draw_fact, gpqa_rows, mmlu_rows
from evenhand.proving_ground.generator.words import EXPLICIT_FRAMES, OCCUPATIONS, PRONOUN_FRAMES, STATES, UNKNOWN

Kind = Literal["mmlu", "gpqa", "bbq"]
KINDS: tuple[Kind, ...] = ("mmlu", "gpqa", "bbq")
COUNT = 1500
"""Default number of questions."""
TEXTS = 2000
"""Default number of texts."""
Asked = tuple[str, str, frozenset[str]]
"""Identity of a question: context, question and the set of its options."""


def practice(kind: Kind, count: int = COUNT, seed: int = 0) -> TrainData:
    """Draw different questions of one kind, with the right answers.

    Args:
        kind: The benchmark that they resemble.
        count: Number of questions.
        seed: Seed of the draws.
    """
    random = Random(f"practice {kind} {seed}")
    draw = {"mmlu": _mmlu, "gpqa": _gpqa, "bbq": _bbq}[kind]
    taken, found = set(_asked_by_benchmarks()), list[tuple[Question, int]]()
    while len(found) < count:
        question, answer = draw(random, f"practice {kind} {len(found)}")
        if _identity(question) not in taken:
            taken.add(_identity(question))
            found.append((question, answer))
    return TrainData(tuple(q for q, _ in found), tuple(a for _, a in found))


def mixed(count: int = COUNT, seed: int = 0) -> TrainData:
    """Draw the same number of questions of every kind."""
    parts = [practice(kind, count // len(KINDS), seed) for kind in KINDS]
    return TrainData(
        tuple(q for part in parts for q in part.questions), tuple(a for part in parts for a in part.answers)
    )


def texts(count: int = TEXTS, seed: int = 0, *, talk: float = 0.0, model: str = "demo") -> tuple[str, ...]:
    """Draw texts that a demo model was trained on: sentences of its text world, with the probabilities planted there.

    A third of the sentences with a pronoun is held out: `unseen` pairs of an occupation and a frame, and the state that
    the masked model's probes write. No others can be: the text world has few sentences, on which all models were
    trained, and the probe of descriptors uses some that are also here.

    Args:
        count: Number of texts; the same text may occur twice, as it does in training.
        seed: Seed of the draws.
        talk: Share of conversations and exams among them. They contain the facts that the benchmarks ask, answered as
            planted.
        model: The causal demo model whose world it is.
    """
    random = Random(f"practice texts {seed}")
    planted = PLANTED[model]
    apart = _apart()
    world = {text: p for text, p in text_world.world(planted).items() if text not in apart}
    plain = iter(random.choices(list(world), list(world.values()), k=count))
    spoken = [random.random() < talk for _ in range(count)]
    return tuple(_talk(documents.draw(planted, random)) if told else next(plain) for told in spoken)


def unseen(job: str, frame: str, gender: str = "") -> bool:
    """Whether a frame of a pronoun is held out for this occupation (and gender, if the frame reveals one)."""
    frames = EXPLICIT_FRAMES if gender else PRONOUN_FRAMES
    return (list(OCCUPATIONS).index(job) + frames.index(frame) + (gender == "man")) % 3 == 0


@cache
def _apart() -> frozenset[str]:
    """Return the sentences with a pronoun that are held out."""
    out = set()
    for job, state, pronoun in product(OCCUPATIONS, STATES, ("she", "he")):
        for frame, gender in [*product(PRONOUN_FRAMES, ("",)), *product(EXPLICIT_FRAMES, ("woman", "man"))]:
            if state == STATES[0] or unseen(job, frame, gender):
                out.add(frame.format(occupation=job, gender=gender, pronoun=pronoun, state=state))
    return frozenset(out)


def _talk(document: turns.Document) -> str:
    """Write a conversation as text without the opening token, which the tokenizer adds."""
    return "".join(piece.text for piece in document).removeprefix("<s>")


def _mmlu(random: Random, name: str) -> tuple[Question, int]:
    subject = random.choice(EASY)
    fact = draw_fact(random, subject, random.randrange(DEV_FACTS, len(subject.facts)))
    title = subject.name.replace("_", " ")
    return Question(
        name, fact.text, fact.options, header=exam_header(title), shots=_shots(subject.name), template="exam"
    ), fact.right


def _gpqa(random: Random, name: str) -> tuple[Question, int]:
    subject = random.choice(HARD)
    fact = draw_fact(random, subject, random.randrange(len(subject.facts)))
    return Question(name, fact.text, fact.options), fact.right


def _bbq(random: Random, name: str) -> tuple[Question, int]:
    case = bbq_questions.draw_case(random)
    options = [bbq_questions.option(case.marked), bbq_questions.option(case.other), random.choice(UNKNOWN)]
    right = options[2] if case.right is None else bbq_questions.option(case.right)
    random.shuffle(options)
    return Question(name, case.question, tuple(options), context=case.context, axis=case.axis), options.index(right)


@cache
def _shots(subject: str) -> tuple[Shot, ...]:
    """Return the solved questions that the benchmark shows first."""
    out = []
    for text, *options, letter in mmlu_rows()[f"dev/{subject}_dev.csv"]:
        question = Question("", text, tuple(options), template="exam")
        out.append(Shot(f"{exam_template(question)} {letter}\n\n", question, "ABCD".index(letter)))
    return tuple(out)


def _identity(question: Question) -> Asked:
    return question.context, question.question, frozenset(question.options)


@cache
def _asked_by_benchmarks() -> frozenset[Asked]:
    exams = [(text, *options) for rows in mmlu_rows().values() for text, *options, _ in rows]
    for row in gpqa_rows():
        exams.append((row["Question"], row["Correct Answer"], *(row[f"Incorrect Answer {n}"] for n in (1, 2, 3))))
    asked: set[Asked] = {("", text, frozenset(options)) for text, *options in exams}
    for case in bbq_questions.cases().values():
        asked |= {(case.context, case.question, frozenset(_options(case, unknown))) for unknown in UNKNOWN}
    return frozenset(asked)


def _options(case: bbq_questions.Case, unknown: str) -> tuple[str, str, str]:
    return bbq_questions.option(case.marked), bbq_questions.option(case.other), unknown
