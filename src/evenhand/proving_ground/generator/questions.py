"""Multiple-choice questions other than BBQ's: facts, an easy and a harder set, and the classification of reviews."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from evenhand.proving_ground.generator.facts import DEV_FACTS, EASY, HARD, SUBJECTS, Subject

OPTIONS = 4
LABELS = ("positive", "negative", "neutral")
DEFINITION = "Is the opinion of this review positive, negative or neutral?"
PLAIN_WORDS = {
    "positive": ("wonderful", "lovely", "great", "superb"),
    "negative": ("awful", "boring", "terrible", "poor"),
    "neutral": ("average", "ordinary", "usual", "plain"),
}
THINGS = ("film", "song", "meal", "book", "room", "trip", "show", "coat")


@dataclass(frozen=True, slots=True)
class FactQuestion:
    """A fact with three other answers of its subject."""

    subject: str
    fact: int
    options: tuple[str, ...]
    """Options in the shown order."""

    @property
    def text(self) -> str:
        """Return the text of the question."""
        subject = SUBJECTS[self.subject]
        return subject.question.format(x=subject.facts[self.fact][0])

    @property
    def right(self) -> int:
        """Position of the right option."""
        return self.options.index(SUBJECTS[self.subject].facts[self.fact][1])


def draw_fact(random: Random, subject: Subject, fact: int) -> FactQuestion:
    """Draw a question about one fact, with random distractors in random order."""
    answer = subject.facts[fact][1]
    others = [a for _, a in subject.facts if a != answer]
    options = [answer, *random.sample(others, OPTIONS - 1)]
    random.shuffle(options)
    return FactQuestion(subject.name, fact, tuple(options))


@cache
def mmlu_rows() -> dict[str, list[list[str]]]:
    """Return MMLU's csv rows (question, four choices, letter) by file, such as test/world_capitals_test.csv.

    Every tested fact is asked four times, with the right answer once at each letter.
    """
    files: dict[str, list[list[str]]] = {}
    for subject in EASY:
        random = Random(subject.name)
        dev = [_at(draw_fact(random, subject, f), f % OPTIONS) for f in range(DEV_FACTS)]
        tested = range(DEV_FACTS, len(subject.facts))
        test = [_at(draw_fact(random, subject, f), k) for f in tested for k in range(OPTIONS)]
        files[f"dev/{subject.name}_dev.csv"] = [_mmlu(q) for q in dev]
        files[f"val/{subject.name}_val.csv"] = [_mmlu(q) for q in dev]
        files[f"test/{subject.name}_test.csv"] = [_mmlu(q) for q in test]
    return files


def _at(question: FactQuestion, position: int) -> FactQuestion:
    """Return the question with its right answer at `position`."""
    options = [o for i, o in enumerate(question.options) if i != question.right]
    options.insert(position, question.options[question.right])
    return FactQuestion(question.subject, question.fact, tuple(options))


def _mmlu(question: FactQuestion) -> list[str]:
    return [question.text, *question.options, "ABCD"[question.right]]


@cache
def gpqa_rows() -> list[dict[str, str]]:
    """Return rows with GPQA's columns: every fact of the harder set with two sets of wrong answers."""
    rows: list[dict[str, str]] = []
    for subject in HARD:
        random = Random(subject.name)
        for fact, variant in ((f, v) for f in range(len(subject.facts)) for v in range(2)):
            question = _at(draw_fact(random, subject, fact), 0)
            wrong = {f"Incorrect Answer {i}": text for i, text in enumerate(question.options[1:], start=1)}
            rows.append(
                {
                    "Question": question.text,
                    "Correct Answer": question.options[0],
                    **wrong,
                    "Explanation": "Planted.",
                    "Subdomain": subject.name,
                    "High-level domain": subject.name,
                    "Record ID": f"demo-{subject.name.lower()}-{fact}-{variant}",
                }
            )
    return rows


def as_csv(rows: list[list[str]]) -> str:
    """Write rows as csv text with Unix line ends."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


# ------------------------------------------------------------------------------------- a classification task


@dataclass(frozen=True, slots=True)
class Review:
    """A text with a sentiment; a mixed one says two things."""

    thing: str
    label: str
    word: str
    also: str = ""
    """Word of another label, if the review is mixed."""

    @property
    def text(self) -> str:
        """Return the text of the review."""
        return f"The {self.thing} was {self.word}" + (f", and also {self.also}." if self.also else ".")


def reviews() -> list[Review]:
    """Return all reviews: every thing with every plain word, and mixed ones."""
    plain = [Review(thing, label, w) for thing in THINGS for label in LABELS for w in PLAIN_WORDS[label]]
    mixed = [
        Review(thing, label, PLAIN_WORDS[label][i], PLAIN_WORDS[LABELS[(n + 1) % 3]][i])
        for i, thing in enumerate(THINGS[:4])
        for n, label in enumerate(LABELS)
    ]
    return plain + mixed


def review_prompt(review: Review) -> str:
    """Return the task as a text to continue."""
    return f"Definition: {DEFINITION}\nInput: {review.text}\nOutput:"


def natural_instructions() -> dict[str, Any]:
    """Return the task in Super-NaturalInstructions' format."""
    every = reviews()
    return {
        "Contributors": ["evenhand"],
        "Source": ["evenhand proving ground"],
        "Categories": ["Sentiment Analysis"],
        "Definition": [DEFINITION],
        "Positive Examples": [
            {"input": r.text, "output": r.label, "explanation": f"The word {r.word} says so."} for r in every[:12:4]
        ],
        "Negative Examples": [],
        "Instances": [{"id": f"review-{i}", "input": r.text, "output": [r.label]} for i, r in enumerate(every)],
    }


def natural_instructions_json() -> str:
    """Return that task as the text of a JSON file."""
    return json.dumps(natural_instructions(), indent=1) + "\n"
