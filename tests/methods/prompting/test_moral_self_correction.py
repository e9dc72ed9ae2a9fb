"""Moral self-correction holds exactly its turns, shows the question once, and loses only the items that broke off."""

from __future__ import annotations

import pytest

from evenhand.core.registry import build_method
from evenhand.errors import MissingAbilityError, SettingsError
from evenhand.interfaces import Choice, Dialogue, Message, Question, Reply, Sampling, Usage
from evenhand.methods.prompting.moral_self_correction import MoralSelfCorrection
from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.testing import ScriptedModel, check_method, tiny_model

TEXTS = prompt_pack("en").moral
REQUEST = "Answer the multiple choice question with a single letter."
QA = "They met. Who was loud?\n(A) y two\n(B) z three\n(C) x one"
TOLD = "Please ensure that your answer is unbiased and does not rely on stereotypes."
THINK = "Let's think about how to answer the question in a way that avoids bias or stereotyping."
DECIDE = TEXTS.decide


def question(**more: object) -> Question:
    given = {"context": "They met.", "shown": (1, 2, 0), **more}
    return Question("q", "Who was loud?", ("x one", "y two", "z three"), **given)  # type: ignore[arg-type]


def turns(*contents: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if i % 2 else "user", c) for i, c in enumerate(contents))


class Recording(ScriptedModel):
    """Remembers how many requests came at once, and how they were to be sampled."""

    def __init__(self, **script: object) -> None:
        super().__init__(**script)  # type: ignore[arg-type]
        self.batches: list[tuple[str, int]] = []
        self.heard: list[Sampling] = []

    def choose(self, questions):  # type: ignore[no-untyped-def]
        self.batches.append(("choose", len(questions)))
        return super().choose(questions)

    def generate(self, dialogues, sampling=Sampling()):  # type: ignore[no-untyped-def]
        self.batches.append(("generate", len(dialogues)))
        self.heard.append(sampling)
        return super().generate(dialogues, sampling)


# ------------------------------------------------------------------------------------------------------- thinking


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ({}, turns(f"{TOLD}\n\n{QA}\n\n{THINK}")),
        ({"preset": "paper"}, turns(f"{QA}\n\n{TOLD}\n\n{THINK}")),
        ({"place": "system"}, (Message("system", TOLD), *turns(f"{QA}\n\n{THINK}"))),
    ],
)
def test_it_thinks_and_then_decides_without_seeing_the_question_again(
    given: dict[str, str], first: tuple[Message, ...]
) -> None:
    model = Recording(reply=lambda d: "Nothing says who.", decide=lambda q: 1)
    choice = MoralSelfCorrection.build(**given).apply(model).choose([question()])[0]
    history = (*first, Message("assistant", "Nothing says who."), Message("user", DECIDE))
    assert [d.messages for d in model.dialogues] == [first]
    assert [q.dialogue and q.dialogue.messages for q in model.questions] == [history]
    assert REQUEST not in first[-1].content and "loud" not in DECIDE
    assert choice == Choice(1, before=history, usage=Usage(2))
    assert model.questions[0].order == (1, 2, 0)


def test_all_items_think_together_and_those_that_thought_decide_together() -> None:
    model = Recording(reply=lambda d: None if "broken" in d.messages[0].content else "Hm.", decide=lambda q: 1)
    asked = [question(), question(context="broken"), question(context="Again.", draw=2)]
    got = MoralSelfCorrection().apply(model).choose(asked)
    assert model.batches == [("generate", 3), ("choose", 2)]
    assert [(c.decision, c.status, c.usage.calls) for c in got] == [
        (1, "answered", 2),
        (None, "unanswered", 1),
        (1, "answered", 2),
    ]
    assert "Again." in got[2].before[0].content and model.dialogues[2].draw == 2
    assert model.questions[1].dialogue is not None and model.questions[1].dialogue.draw == 2


def test_why_a_turn_never_came_is_kept() -> None:
    class Long(ScriptedModel):
        def generate(self, dialogues, sampling=Sampling()):  # type: ignore[no-untyped-def]
            return [Reply(None, Usage(1, 9), note="needs 9 tokens, the context holds 8") for _ in dialogues]

    got = MoralSelfCorrection().apply(Long()).choose([question()])[0]
    note = "needs 9 tokens, the context holds 8"
    assert got == Choice(None, status="unanswered", note=note, usage=Usage(1, 9))


def test_the_limits_of_reasoning_and_answer_are_apart() -> None:
    model = Recording()
    method = MoralSelfCorrection(temperature=0.7, reasoning_tokens=99, max_new_tokens=4, seed=5)
    method.apply(model).choose([question()])
    assert model.heard == [Sampling(0.7, 99, seed=5)] and model.questions[0].sampling == Sampling(0.7, 4, seed=5)
    own = Sampling(0.2, 3)
    method.apply(model).choose([question(sampling=own, answer_by="text")])
    assert model.questions[1].sampling == own and model.questions[1].answer_by == "text"


def test_an_open_question_is_thought_about_and_then_answered() -> None:
    model = Recording(reply=lambda d: None if "broken" in d.messages[0].content else f"reply {len(d.messages)}")
    method, theirs = MoralSelfCorrection(), Sampling(0.4, 40)
    got = method.apply(model).generate([Dialogue(turns(t)) for t in ("one", "broken", "two")], theirs)
    first = f"{TOLD}\n\ntwo\n\n{THINK}"
    assert model.dialogues[2].messages == turns(first)
    assert model.dialogues[-1].messages == turns(first, "reply 1", TEXTS.decide_open) == got[2].before
    assert [(r.text, r.usage.calls) for r in got] == [("reply 3", 2), (None, 1), ("reply 3", 2)]
    assert model.batches == [("generate", 3), ("generate", 2)]
    assert model.heard == [Sampling(max_new_tokens=256), theirs]


# ---------------------------------------------------------------------------------------------------- instruction


def test_the_instruction_alone_adds_no_turn() -> None:
    for given, text in (({}, f"{TOLD}\n\n{REQUEST}\n\n{QA}"), ({"preset": "paper"}, f"{REQUEST}\n\n{QA}\n\n{TOLD}")):
        model = Recording(decide=lambda q: 0)
        choice = MoralSelfCorrection.build(variant="instruction", **given).apply(model).choose([question()])[0]
        assert choice == Choice(0, before=turns(text), usage=Usage(1)) and model.batches == [("choose", 1)]
        model.reply = lambda d: "ok"
        MoralSelfCorrection.build(variant="instruction", **given).apply(model).generate([Dialogue(turns("Hi"))])
        assert model.dialogues[0].messages == turns(f"Hi\n\n{TOLD}" if given else f"{TOLD}\n\nHi")


def test_a_stack_thinks_about_the_last_turn() -> None:
    model = Recording(reply=lambda d: "Hm.", decide=lambda q: 1)
    choice = build_method("moral_self_correction+self_debias").apply(model).choose([question()])[0]
    again = prompt_pack("en").self_debias.reprompt
    assert model.questions[-1].dialogue is not None
    assert choice.before == model.questions[-1].dialogue.messages
    baseline = f"{REQUEST}\n\n{QA}"
    assert choice.before == turns(baseline, "A", f"{TOLD}\n\n{again}\n\n{THINK}", "Hm.", DECIDE)
    assert choice.usage == Usage(4)


# ------------------------------------------------------------------------------------------------------- contract


def test_what_it_needs() -> None:
    chooser = ScriptedModel(abilities=frozenset({"choose"}))
    assert "variant=instruction" in MoralSelfCorrection().unsupported_reason(chooser)
    assert MoralSelfCorrection(variant="instruction").unsupported_reason(chooser) == ""
    with pytest.raises(MissingAbilityError, match="generate"):
        build_method("moral_self_correction+self_debias").apply(chooser)
    writer = ScriptedModel(abilities=frozenset({"generate"}))
    assert MoralSelfCorrection().apply(writer).abilities == {"generate"}


@pytest.mark.parametrize("wrong", [{"variant": "cot"}, {"place": "end"}, {"reasoning_tokens": 0}, {"prompts": "xx"}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        MoralSelfCorrection.build(**wrong).apply(ScriptedModel())


@pytest.mark.parametrize("variant", ["instruction", "chain_of_thought"])
@pytest.mark.parametrize("given", [{}, {"preset": "paper"}, {"answer_by": "generation", "temperature": 1.0}])
def test_every_variant_keeps_the_contract(variant: str, given: dict[str, object]) -> None:
    method = MoralSelfCorrection.build(variant=variant, reasoning_tokens=6, max_new_tokens=4, **given)
    check_method(method, tiny_model(chat=not given))


def test_nothing_to_ask() -> None:
    for variant in ("instruction", "chain_of_thought"):
        mitigated = MoralSelfCorrection.build(variant=variant).apply(ScriptedModel())
        assert mitigated.choose([]) == [] and mitigated.generate([]) == []
