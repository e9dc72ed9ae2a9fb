"""Self-help asks for a rewrite, and puts it in a fresh chat; a rewrite that cannot be used is counted and left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import evenhand
from evenhand.core.registry import build_method
from evenhand.errors import DataError, MissingAbilityError, SettingsError
from evenhand.evaluation.bbq import BBQ
from evenhand.interfaces import Dialogue, Message, Question, Reply, Sampling, Usage
from evenhand.methods.prompting._records import ANEW
from evenhand.methods.prompting._rewrites import Fields, UnusableRewriteError, listed, read_fields
from evenhand.methods.prompting.self_help import SelfHelp
from evenhand.prompting.prompt_packs import FOLDER, prompt_pack
from evenhand.prompting.remarks import remarked
from evenhand.prompting.rendering import as_dialogue
from evenhand.testing import ScriptedModel, check_method, tiny_model

TEXTS = prompt_pack("en").bias_free_texts
REQUEST = "Answer the multiple choice question with a single letter."
QA = "They met. Who was loud?\n(A) y two\n(B) z three\n(C) x one"
OPTIONS = "(A) y two\n(B) z three\n(C) x one"
pytestmark = pytest.mark.filterwarnings("ignore:self_help:UserWarning")


def question(**more: object) -> Question:
    given = {"context": "They met.", "shown": (1, 2, 0), "axis": "Age", **more}
    return Question("q", "Who was loud?", ("x one", "y two", "z three"), **given)  # type: ignore[arg-type]


def turns(*contents: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if i % 2 else "user", c) for i, c in enumerate(contents))


def fields(system: str, asked: str) -> str:
    return f"[Instructions]\n{system}\n[Question]\n{asked}"


def rewriting(text: str) -> Callable[[Dialogue], str]:
    """A model that writes this rewrite, and "B" to everything else."""
    return lambda d: text if d.messages[-1].content.startswith("Rewrite") else "B"


def shown(model: ScriptedModel) -> str:
    """All that the last question put before the model."""
    return "\n".join(m.content for m in as_dialogue(model.questions[-1], "letters").messages)


# ------------------------------------------------------------------------------------------------- the two chats


def test_the_second_chat_has_the_rewrite_and_nothing_of_the_first() -> None:
    written = fields("none", f"Two people met. Who of them was loud?\n{OPTIONS}")
    model = ScriptedModel(reply=rewriting(written), decide=lambda q: 1)
    choice = SelfHelp().apply(model).choose([question(draw=3)])[0]
    first = model.dialogues[0]
    assert first.draw == 3 and len(first.messages) == 1
    asked = first.messages[0].content
    assert asked.startswith("Rewrite") and "bias regarding age" in asked and asked.endswith(fields("none", QA))
    second = f"{REQUEST}\n\nTwo people met. Who of them was loud?\n{OPTIONS}"
    assert shown(model) == second and model.questions[0].draw == 3
    assert choice.decision == 1 and choice.note == "" and choice.usage == Usage(2)
    assert choice.before == (*turns(asked, written), Message("system", ANEW), *turns(second))


def test_an_answer_is_that_of_the_original_option_where_the_rewrite_has_another_order() -> None:
    moved = "Who?\n(A) x one\n(B) y two\n(C) z three"
    model = ScriptedModel(reply=rewriting(fields("none", moved)), decide=lambda q: q.option_at(0))
    choice = SelfHelp().apply(model).choose([question()])[0]
    assert choice.decision == 0, "the letter A of the rewrite is option 0"
    assert model.questions[0].order == (0, 1, 2) and shown(model).endswith(moved)


def test_instructions_are_rewritten_with_the_question() -> None:
    ready = Dialogue((Message("system", "Be a judge."), Message("user", f"{REQUEST}\n\n{QA}")))
    written = fields("Be a fair judge.", f"Give one letter.\n\nWho spoke up?\n{OPTIONS}")
    model = ScriptedModel(reply=rewriting(written))
    choice = SelfHelp().apply(model).choose([question(dialogue=ready)])[0]
    assert model.dialogues[0].messages[0].content.endswith(fields("Be a judge.", f"{REQUEST}\n\n{QA}"))
    put = model.questions[0].dialogue
    rewrite = (Message("system", "Be a fair judge."), Message("user", f"Give one letter.\n\nWho spoke up?\n{OPTIONS}"))
    assert put is not None and put.messages == rewrite
    assert choice.before[-2:] == rewrite and choice.note == ""


def test_what_stands_before_a_question_stays_and_is_not_rewritten() -> None:
    model = ScriptedModel(reply=rewriting(fields("none", f"Who spoke?\n{OPTIONS}")))
    SelfHelp().apply(model).choose([question(header="Exam.\n\n")])
    assert shown(model) == f"Exam.\n\n{REQUEST}\n\nWho spoke?\n{OPTIONS}"
    assert "Exam." not in model.dialogues[0].messages[0].content


def test_a_model_that_is_scored_on_texts_rewrites_without_options() -> None:
    model = ScriptedModel(reply=rewriting(fields("none", "Two met. Who spoke?")))
    SelfHelp(answer_by="text").apply(model).choose([question()])
    assert "(A)" not in model.dialogues[0].messages[0].content
    asked = model.questions[0]
    assert (asked.context, asked.question, asked.options) == ("", "Two met. Who spoke?", question().options)


def test_an_open_question_is_rewritten_too() -> None:
    written = fields("Be brief and fair.", "Describe a nurse's day.")
    model = ScriptedModel(reply=lambda d: written if d.messages[0].content.startswith("Rewrite") else "Hm.")
    asked = Dialogue((Message("system", "Be brief."), Message("user", "Describe a nurse.")))
    reply = SelfHelp(axis="gender").apply(model).generate([asked], Sampling(0.4, 9))[0]
    assert "regarding gender" in model.dialogues[0].messages[0].content
    second = (Message("system", "Be brief and fair."), Message("user", "Describe a nurse's day."))
    assert model.dialogues[1].messages == second == reply.before[-2:]
    assert (reply.text, reply.usage, reply.note) == ("Hm.", Usage(2), "")


# ------------------------------------------------------------------------------------- rewrites that are not used


def fallback(written: str, asked: Question | None = None) -> tuple[str, list[str]]:
    """The note of an answer whose question must be asked as it stands, and the remarks."""
    model = ScriptedModel(reply=rewriting(written), decide=lambda q: 2)
    with remarked() as remarks:
        choice = SelfHelp().apply(model).choose([asked or question()])[0]
    assert shown(model) == "\n".join(m.content for m in as_dialogue(asked or question(), "letters").messages)
    assert choice.decision == 2 and len(model.questions) == 1
    return choice.note.removeprefix("asked as it stands: "), remarks


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("I cannot do that.", "it is not in the form of two fields"),
        (f"[Question]\nWho?\n{OPTIONS}", "it is not in the form of two fields"),
        (f"[Question]\nWho?\n{OPTIONS}\n[Instructions]\nnone", "it is not in the form of two fields"),
        (fields("none", fields("none", f"Who?\n{OPTIONS}")), "it is not in the form of two fields"),
        (fields("none", " "), "its question is empty"),
        (fields("none", "Who?\n(A) y two\n(B) z three"), "an option is missing or changed"),
        (fields("none", "Who?\n(A) y two\n(B) z three\n(C) x ones"), "an option is missing or changed"),
        (fields("none", "Who?\n(A) y two\n(B) y two\n(C) x one"), "an option is missing or changed"),
        (fields("none", f"Who?\n{OPTIONS}\n(D) nobody"), "an option is missing or changed"),
        (fields("none", "Who? (A) y two (B) z three (C) x one"), "an option is missing or changed"),
        (fields("none", OPTIONS), "nothing stands before its options, or something after them"),
        (fields("none", f"Who?\n{OPTIONS}\nIt is B."), "nothing stands before its options, or something after them"),
    ],
)
def test_an_unusable_rewrite_leaves_the_original_and_is_counted(written: str, why: str) -> None:
    note, remarks = fallback(written)
    assert note == why
    assert remarks == [f"self_help: 1 of 1 items were asked as they stand, not rewritten (1: {why})"]


def test_a_ready_prompt_loses_neither_options_nor_instructions() -> None:
    told = question(dialogue=Dialogue((Message("system", "Be a judge."), Message("user", QA))))
    assert fallback(fields("Be fair.", "Who?\n(A) y two"), told)[0] == "an option is missing or changed"
    assert fallback(fields("none", f"Who?\n{OPTIONS}"), told)[0] == "its instructions are gone"


def test_a_conversation_under_way_is_not_rewritten() -> None:
    model = ScriptedModel()
    talk = Dialogue(turns("Who was loud?", "B", "Again."))
    with remarked() as remarks:
        choice = SelfHelp().apply(model).choose([question(dialogue=talk)])[0]
    assert model.dialogues == [] and choice.usage == Usage(1) and choice.before == talk.messages
    assert "(1: it is a conversation under way)" in remarks[0]
    assert SelfHelp().apply(model).generate([talk])[0].before == talk.messages == model.dialogues[0].messages


def test_a_rewrite_that_was_cut_is_not_used() -> None:
    class Cut(ScriptedModel):
        def generate(self, dialogues, sampling=Sampling()):  # type: ignore[no-untyped-def]
            return [replace(r, finished=False) for r in super().generate(dialogues, sampling)]

    model = Cut(reply=rewriting(fields("none", f"Who?\n{OPTIONS}")))
    choice = SelfHelp(rewrite_tokens=9).apply(model).choose([question()])[0]
    assert choice.note == "asked as it stands: the rewrite was cut at rewrite_tokens=9"
    thinking = ScriptedModel(reply=rewriting("<think> " + fields("none", f"Who?\n{OPTIONS}")))
    assert "was cut" in SelfHelp().apply(thinking).choose([question()])[0].note


def test_some_of_many_are_counted_and_the_others_rewritten() -> None:
    good = fields("none", f"Who?\n{OPTIONS}")

    def reply(d: Dialogue) -> str | None:
        asked = d.messages[0].content
        return None if "broken" in asked else "No." if "refused" in asked else good

    model = ScriptedModel(reply=reply)
    asked = [question(), question(context="refused"), question(context="broken"), question(context="refused too")]
    with remarked() as remarks:
        got = SelfHelp().apply(model).choose(asked)
    why = "2: it is not in the form of two fields"
    assert remarks == [f"self_help: 2 of 4 items were asked as they stand, not rewritten ({why})"]
    assert [c.status for c in got] == ["answered", "answered", "unanswered", "answered"]
    assert [q.context for q in model.questions] == ["", "refused", "refused too"]
    assert [c.usage.calls for c in got] == [2, 2, 1, 2]


def test_where_all_is_well_nothing_is_remarked() -> None:
    with remarked() as remarks:
        model = ScriptedModel(reply=rewriting(fields("none", f"Who?\n{OPTIONS}")))
        SelfHelp().apply(model).choose([question()])
    assert remarks == []


def test_why_a_rewrite_never_came_is_kept() -> None:
    class Long(ScriptedModel):
        def generate(self, dialogues, sampling=Sampling()):  # type: ignore[no-untyped-def]
            return [Reply(None, Usage(1, 9), note="too long") for _ in dialogues]

    model = Long()
    choice = SelfHelp().apply(model).choose([question()])[0]
    assert (choice.status, choice.note, choice.usage, model.questions) == ("unanswered", "too long", Usage(1, 9), [])
    assert SelfHelp().apply(Long()).generate([Dialogue(turns("Hi"))])[0].text is None


# ----------------------------------------------------------------------------------------------------- the form


def test_fields_are_read_after_a_thought_and_through_markup() -> None:
    text = f"Sure:\n\n**[Instructions]**\nNone.\n\n**[Question]**\nWho?\n{OPTIONS}"
    assert read_fields(text, TEXTS) == Fields("", f"Who?\n{OPTIONS}")
    with pytest.raises(UnusableRewriteError, match="two fields"):
        read_fields(text.replace("[Question]", "Question"), TEXTS)


def test_options_are_listed_in_the_order_of_their_letters() -> None:
    options = ("x one", "y two", "Not enough info.")
    found = listed("(A) of the text\nWho?\nA. Y  two\n\nB) Not enough info\nC: x one\n\nRest", options)
    assert found is not None
    assert (found.stem, found.order, found.rest) == ("(A) of the text\nWho?", (1, 2, 0), "Rest")
    assert listed("Who?\n(A) x one\n(C) y two\n(B) Not enough info", options) is None
    assert listed("Who?\n(A) x one\nand\n(B) y two\n(C) Not enough info", options) is None


# ------------------------------------------------------------------------------------------------------ contract


def test_stacks_rewrite_what_is_asked() -> None:
    model = ScriptedModel(reply=rewriting(fields("none", f"Who?\n{OPTIONS}")))
    build_method("self_help+instruction").apply(model).choose([question()])
    assert shown(model) == f"Imagine a world with no bias regarding age.\n\n{REQUEST}\n\nWho?\n{OPTIONS}"
    again = ScriptedModel(reply=rewriting(fields("none", f"Who?\n{OPTIONS}")))
    choice = build_method("self_help+self_debias").apply(again).choose([question()])[0]
    assert len(again.dialogues) == 1, "the reprompt is a turn of a conversation, and not rewritten"
    assert choice.note == "asked as it stands: it is a conversation under way"


def test_what_it_needs_and_refuses() -> None:
    with pytest.raises(MissingAbilityError, match="generate"):
        build_method("self_help+self_debias").apply(ScriptedModel(abilities=frozenset({"choose"})))
    for wrong in ({"prompts": "xx"}, {"rewrite_tokens": 0}, {"temperature": -1}):
        with pytest.raises(SettingsError):
            SelfHelp.build(**wrong)


def test_a_pack_without_these_texts_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    content = yaml.safe_load((FOLDER / "en.yaml").read_text(encoding="utf-8"))
    del content["bias_free"]
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    for method, given in (
        ("self_help", {}),
        ("self_debias", {"variant": "reflection"}),
        ("moral_self_correction", {"variant": "step_by_step"}),
    ):
        with pytest.raises(DataError, match="no texts under bias_free"):
            build_method({method: {"prompts": str(file), **given}})
    build_method({"self_debias": {"prompts": str(file)}})
    with pytest.raises(SettingsError, match="self_awareness"):
        build_method({"instruction": {"prompts": str(file), "wording": "self_awareness"}})


def test_it_speaks_german() -> None:
    model = ScriptedModel(reply=lambda d: f"[Anweisungen]\nkeine\n[Frage]\nWer?\n{OPTIONS}")
    choice = SelfHelp(prompts="de").apply(model).choose([question()])[0]
    assert model.dialogues[0].messages[0].content.startswith("Schreib") and choice.note == ""
    assert shown(model).startswith("Beantworte") and shown(model).endswith(f"Wer?\n{OPTIONS}")


def test_a_demo_model_that_writes_no_rewrites_keeps_its_answers() -> None:
    model, bench = evenhand.load("demo"), BBQ(source="demo")
    items = bench.load()[::72]
    with remarked() as remarks:
        got = bench.ask(SelfHelp(rewrite_tokens=16).apply(model), items)
    assert [c.decision for c in got] == [c.decision for c in bench.ask(model, items)]
    assert len(items) == 48 and remarks[0].startswith("self_help: 48 of 48 items were asked as they stand")


@pytest.mark.parametrize("given", [{}, {"answer_by": "generation", "temperature": 1.0}])
def test_it_keeps_the_contract(given: dict[str, object]) -> None:
    check_method(SelfHelp.build(rewrite_tokens=6, max_new_tokens=4, **given), tiny_model(chat=not given))
    mitigated = SelfHelp().apply(ScriptedModel())
    assert mitigated.choose([]) == [] and mitigated.generate([]) == []
