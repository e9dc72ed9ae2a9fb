"""Rewrites in many shapes: an answer is that of the original's option, or the original is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from evenhand.interfaces import Choice, Dialogue, Message, Question
from evenhand.methods.prompting._rewrites import listed, read_fields
from evenhand.methods.prompting.self_help import SelfHelp
from evenhand.models.asking import CHOICE_SAMPLING, choose_by_generation
from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.prompting.rendering import as_dialogue
from evenhand.testing import ScriptedModel

TEXTS = prompt_pack("en").bias_free_texts
OPTIONS = ("x one", "y two", "z three")
pytestmark = pytest.mark.filterwarnings("ignore:self_help:UserWarning")


class Writing(ScriptedModel):
    """Chooses by what it writes."""

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        return choose_by_generation(self, questions, CHOICE_SAMPLING)


def answered(question: Question, written: str, option: str) -> tuple[int | None, str, str]:
    """What is decided by a model that looks for an option's text and says its letter; the note; and the second chat."""
    asked: list[str] = []

    def reply(dialogue: Dialogue) -> str:
        text = dialogue.messages[-1].content
        if text.startswith("Rewrite"):
            return written
        asked.append("\n".join(m.content for m in dialogue.messages))
        line = next(line for line in text.splitlines() if line.casefold().rstrip(".").endswith(option))
        return line.strip(" -*(")[0]

    model = Writing(reply=reply)
    method = SelfHelp(answer_by="generation")
    (choice,) = method.apply(model).choose([question])
    return choice.decision, choice.note, asked[-1] if asked else ""


def shape(*lines: str, stem: str = "Two met. Who was loud?") -> str:
    return "\n".join(["[Instructions]", "none", "[Question]", stem, *lines])


SHAPES: dict[str, tuple[str, bool]] = {
    "same": (shape("(A) y two", "(B) z three", "(C) x one"), True),
    "reordered": (shape("(A) z three", "(B) x one", "(C) y two"), True),
    "dots": (shape("A. x one", "", "B. y two", "", "C. z three."), True),
    "in a code block": ("```\n" + shape("(A) z three", "(B) x one", "(C) y two") + "\n```", True),
    "marks with colons": (
        shape("(A) z three", "(B) x one", "(C) y two").replace("[Instructions]", "**[Instructions]:**"),
        True,
    ),
    "after a thought": ("<think>[Question]</think>" + shape("(A) z three", "(B) x one", "(C) y two"), True),
    "numbers": (shape("1. x one", "2. y two", "3. z three"), False),
    "small letters": (shape("(a) x one", "(b) y two", "(c) z three"), False),
    "one line": (shape("(A) x one (B) y two (C) z three"), False),
    "not from A on": (shape("(B) x one", "(C) y two", "(D) z three"), False),
    "one twice": (shape("(A) x one", "(B) x one", "(C) z three"), False),
    "one more": (shape("(A) x one", "(B) y two", "(C) z three", "(D) nobody"), False),
    "translated": (shape("(A) x eins", "(B) y zwei", "(C) z drei"), False),
    "listed twice": (
        shape("(A) x one", "(B) y two", "(C) z three", "Who?", "(A) z three", "(B) y two", "(C) x one"),
        False,
    ),
    "with an answer": (shape("(A) x one", "(B) y two", "(C) z three", "Answer: (A)"), False),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("option", OPTIONS)
def test_the_answer_is_that_of_the_option_whose_text_was_chosen(name: str, option: str) -> None:
    written, used = SHAPES[name]
    question = Question("q", "Who was loud?", OPTIONS, context="They met.", shown=(1, 2, 0))
    decision, note, asked = answered(question, written, option)
    assert decision == OPTIONS.index(option), (name, note)
    assert ("Two met." in asked, "They met." in asked) == (used, not used)
    assert note.startswith("asked as it stands") is not used


def test_options_that_cannot_be_told_apart_are_not_rewritten() -> None:
    """The line of one was taken for the other's."""
    question = Question("q", "Which?", ("yes", "Yes.", "no"), shown=(1, 0, 2))
    decision, note, _ = answered(question, shape("(A) Yes.", "(B) yes", "(C) no"), "no")
    assert decision == 2 and "two of its options are alike" in note


def prompt(text: str, *before: Message) -> Question:
    return Question("q", "Who was loud?", OPTIONS, dialogue=Dialogue((*before, Message("user", text))))


@pytest.mark.parametrize("form", ["{}. {}", "{}) {}"])
def test_a_ready_prompt_whose_options_are_not_lettered_is_left_alone(form: str) -> None:
    """A rewrite could exchange them, and nobody would notice."""
    lines = [form.format(n + 1, text) for n, text in enumerate(OPTIONS)]
    _, note, asked = answered(prompt("\n".join(["Who was loud?", *lines])), shape("1. z three", "2. x one"), "x one")
    assert "its options are not listed one per line from A on" in note and asked.startswith("Who was loud?")
    _, note, asked = answered(prompt("Who was loud, x one or y two?\nA, B or C?"), shape("A, x one?"), "x one?")
    assert note == "" and "Two met." in asked  # it shows two of three, which need not be kept


def test_instructions_that_are_called_none_in_brackets_are_gone() -> None:
    for said in ("None.", "(none)", '"none"', "**None**", ""):
        assert read_fields(f"[Instructions]\n{said}\n[Question]\nWho?", TEXTS).system == ""
    assert read_fields("[Instructions]\nSay none.\n[Question]\nWho?", TEXTS).system == "Say none."
    question = prompt("Who?\n(A) x one\n(B) y two\n(C) z three", Message("system", "Be kind."))
    written = shape("(A) x one", "(B) y two", "(C) z three").replace("none", "(none)")
    _, note, asked = answered(question, written, "x one")
    assert "its instructions are gone" in note and asked.startswith("Be kind.")


def test_lettered_lines_of_a_context_are_not_its_options() -> None:
    text = "Notes:\n(A) a walk\n(B) a talk\nWhich?\n(A) y\n(B) x"
    found = listed(text, ("x", "y"))
    assert found is not None and (found.order, found.rest) == ((1, 0), "")
    assert found.stem.endswith("Which?")


@pytest.mark.parametrize("option", OPTIONS)
def test_letters_and_a_generated_answer_are_the_same_option(option: str) -> None:
    question = Question("q", "Who was loud?", OPTIONS, context="They met.", shown=(1, 2, 0))
    written = SHAPES["reordered"][0]

    def decide(asked: Question) -> int:
        lines = as_dialogue(asked, "letters").messages[-1].content.splitlines()
        place = next(line for line in lines if line.endswith(option)).strip("(")[0]
        return asked.order["ABC".index(place)]

    say: Callable[[Dialogue], str] = lambda d: written  # noqa: E731
    (choice,) = SelfHelp(answer_by="letters").apply(ScriptedModel(reply=say, decide=decide)).choose([question])
    assert choice.decision == answered(question, written, option)[0] == OPTIONS.index(option)
