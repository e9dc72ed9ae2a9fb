"""Self-reflection, self-awareness and chain of thought are presets: their turns, and the line that alone is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from evenhand.core.registry import build_method
from evenhand.errors import SettingsError
from evenhand.interfaces import Choice, Dialogue, Message, Question, Reply, Sampling, Usage
from evenhand.methods.prompting._answer_lines import answer_line
from evenhand.methods.prompting.instruction import Instruction
from evenhand.methods.prompting.moral_self_correction import MoralSelfCorrection
from evenhand.methods.prompting.self_debias import SelfDebias
from evenhand.models.asking import CHOICE_SAMPLING, choose_by_generation
from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.testing import ScriptedModel, check_method, tiny_model

TEXTS = prompt_pack("en").bias_free_texts
QA = "They met. Who was loud?\n(A) y two\n(B) z three\n(C) x one"
BASELINE = f"Answer the multiple choice question with a single letter.\n\n{QA}"
GREEDY = Sampling(max_new_tokens=128)


def question(**more: object) -> Question:
    given = {"context": "They met.", "shown": (1, 2, 0), "axis": "SES", **more}
    return Question("q", "Who was loud?", ("x one", "y two", "z three"), **given)  # type: ignore[arg-type]


def turns(*contents: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if i % 2 else "user", c) for i, c in enumerate(contents))


class Writing(ScriptedModel):
    """Chooses by what it writes, as an endpoint does; a reply that ends in "..." was cut."""

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.questions += questions
        return choose_by_generation(self, questions, CHOICE_SAMPLING)

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        written = super().generate(dialogues, sampling)
        return [replace(r, finished=not (r.text or "").endswith("...")) for r in written]


# ------------------------------------------------------------------------------------- reflection and awareness


def test_reflection_is_a_second_turn_that_names_the_type_of_bias() -> None:
    again = TEXTS.reflect.format(axis="socioeconomic status")
    assert "bias regarding socioeconomic status" in again
    model = Writing(reply=lambda d: "B" if len(d.messages) == 1 else "It is C.")
    choice = build_method("self_debias(preset=self_reflection)").apply(model).choose([question()])[0]
    assert [d.messages for d in model.dialogues] == [turns(BASELINE), turns(BASELINE, "B", again)]
    assert (choice.decision, choice.usage) == (0, Usage(2)) and choice.before == turns(BASELINE, "B", again)
    assert {(q.answer_by, q.sampling) for q in model.questions} == {("generation", GREEDY)}


def test_reflection_in_an_open_dialogue_names_the_axis_that_was_set() -> None:
    for given, word in (({}, "social group"), ({"axis": "gender"}, "gender")):
        model = ScriptedModel(reply=lambda d: "Hm.")
        SelfDebias.build(variant="reflection", **given).apply(model).generate([Dialogue(turns("Hi"))])
        assert model.dialogues[-1].messages == turns("Hi", "Hm.", TEXTS.reflect_open.format(axis=word))


def test_awareness_is_a_clause_after_the_question() -> None:
    model = ScriptedModel()
    method = build_method("instruction(preset=self_awareness)")
    choice = method.apply(model).choose([question()])[0]
    told = TEXTS.aware.format(axis="socioeconomic status")
    assert choice.before == turns(f"{BASELINE}\n\n{told}") and "bias regarding socioeconomic status" in told
    assert method == Instruction(wording="self_awareness", place="after")


# ------------------------------------------------------------------------------------------------ step by step


def thought_through(reply: str, **more: object) -> Choice:
    model = Writing(reply=lambda d: reply)
    return build_method("moral_self_correction(preset=cot)").apply(model).choose([question(**more)])[0]


def test_one_turn_asks_for_steps_and_the_answer() -> None:
    model = Writing(reply=lambda d: "(A) is a guess, (B) too.\nAnswer: C")
    method = build_method("moral_self_correction(preset=cot)")
    choice = method.apply(model).choose([question()])[0]
    steps = TEXTS.steps.format(axis="socioeconomic status", answer_mark="Answer:")
    asked = turns(f"{QA}\n\n{steps}")
    assert [d.messages for d in model.dialogues] == [asked] == [choice.before]
    assert choice == Choice(0, reply="(A) is a guess, (B) too.\nAnswer: C", before=asked, usage=Usage(1))
    assert (model.questions[0].answer_by, model.questions[0].sampling) == ("generation", GREEDY)
    assert method.reading(model).label == "generation, T=0" and not method.seeded


@pytest.mark.parametrize(
    ("reply", "decision"),
    [
        ("Answer: B", 2),
        ("So it is C.\n\n**Answer:** (B)", 2),
        ("answer: z three", 2),
        ("**Answer**: B", 2),
        ("- Answer: B", 2),
        ("> __Answer__ : (B)", 2),
        ("5. **Answer: (B)**", 2),
        ("Answer\uff1aB", 2),
        ("**Answer**\nB", None),
        ("Answer:\nB", 2),
        ("Answer: A\nNo, that relies on a stereotype.\nAnswer: B", 2),
        ("<think>Answer: A</think>Hm.\nAnswer: B", 2),
        ("It must be B.", None),
        ("The answer: B", None),
        ("(B)\nAnswer: A or B", None),
        ("B is right.\nAnswer: I cannot say.", None),
        ("Answer: B\nOr rather:\nAnswer:", None),
        ("<think>Answer: A", None),
        ("Step 1: B ...", None),
    ],
)
def test_only_the_line_of_the_answer_is_read(reply: str, decision: int | None) -> None:
    choice = thought_through(reply)
    assert choice.decision == decision
    assert choice.status == ("unparsed" if decision is None else "answered")


def test_a_missing_line_and_a_cut_are_named() -> None:
    missing = "no line of the reply begins with 'Answer:'"
    assert thought_through("B").note == missing
    cut = thought_through("Step 1: (B) ...")
    assert cut.cut and cut.note.startswith(missing) and "cut at 128 tokens" in cut.note


def test_a_reply_that_never_came_and_an_answer_without_text_stay() -> None:
    model = Writing(reply=lambda d: None)
    assert MoralSelfCorrection(variant="step_by_step").apply(model).choose([question()])[0].status == "unanswered"
    silent = ScriptedModel(decide=lambda q: 1)
    assert MoralSelfCorrection(variant="step_by_step").apply(silent).choose([question()])[0].decision == 1


def test_an_open_reply_is_its_line_and_the_record_has_all() -> None:
    model = ScriptedModel(reply=lambda d: "First ...\nAnswer: A nurse works hard." if d.draw else "No line.")
    got = MoralSelfCorrection(variant="step_by_step", axis="gender").apply(model)
    replies = got.generate([Dialogue(turns("Who?"), draw=1), Dialogue(turns("Who?"))])
    steps = TEXTS.steps_open.format(axis="gender", answer_mark="Answer:")
    asked = f"Who?\n\n{steps}"
    assert replies[0].text == "A nurse works hard."
    assert replies[0].before == turns(asked, "First ...\nAnswer: A nurse works hard.")
    assert (replies[1].text, replies[1].before) == ("No line.", turns(asked))
    assert "stands whole" in replies[1].note


def test_a_mark_within_a_line_is_none() -> None:
    assert answer_line("My answer: B", "Answer:") is None
    assert answer_line("> Answer: B\n", "Answer:") == "B"
    assert answer_line("Answers: B", "Answer:") is None
    assert answer_line("**Answer: She is a nurse.**", "Answer:") == "She is a nurse."
    assert answer_line("Answer: **She** is a nurse.", "Answer:") == "**She** is a nurse."


# ------------------------------------------------------------------------------------------------------ contract


@pytest.mark.parametrize(
    "spec",
    [
        "self_debias(variant=reflection,keep_stated=True)",
        "self_debias(axis=age)",
        "self_debias(variant=explanation,axis=any)",
        "moral_self_correction(axis=age)",
        "moral_self_correction(variant=step_by_step,place=system)",
        "moral_self_correction(variant=step_by_step,answer_by=letters)",
    ],
)
def test_settings_that_do_nothing_are_refused(spec: str) -> None:
    with pytest.raises(SettingsError, match="leave one of them out"):
        build_method(spec)


def test_steps_have_to_be_written() -> None:
    chooser = ScriptedModel(abilities=frozenset({"choose"}))
    assert "needs generate" in MoralSelfCorrection(variant="step_by_step").unsupported_reason(chooser)
    assert SelfDebias(variant="reflection").unsupported_reason(chooser) == ""


def test_they_speak_german() -> None:
    model = Writing(reply=lambda d: "Hm. (A)\nAntwort: C")
    choice = MoralSelfCorrection(variant="step_by_step", prompts="de").apply(model).choose([question()])[0]
    assert choice.decision == 0 and "Schritt für Schritt" in choice.before[0].content
    SelfDebias(variant="reflection", prompts="de").apply(model).choose([question()])
    assert "beim Merkmal sozialer Status" in model.dialogues[-1].messages[-1].content


@pytest.mark.parametrize(
    "spec",
    [
        "self_debias(preset=self_reflection,max_new_tokens=4)",
        "instruction(preset=self_awareness)",
        "moral_self_correction(preset=cot,reasoning_tokens=6,temperature=1.0)",
    ],
)
def test_they_keep_the_contract(spec: str) -> None:
    check_method(build_method(spec), tiny_model(chat=True))
