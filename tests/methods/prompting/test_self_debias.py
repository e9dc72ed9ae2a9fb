"""Self-debiasing holds exactly the conversation of the paper, and gives up where a turn never came."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evenhand.core.registry import build_method
from evenhand.errors import MissingAbilityError, SettingsError
from evenhand.interfaces import Ability, Choice, Dialogue, Message, Question, Sampling, Usage
from evenhand.methods.prompting.self_debias import SelfDebias
from evenhand.models.mitigated import Mitigated
from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.testing import ScriptedModel, check_method, tiny_model

TEXTS = prompt_pack("en").self_debias
EXPLAIN, REPROMPT, REPROMPT_OPEN = TEXTS.explain, TEXTS.reprompt, TEXTS.reprompt_open
INSTRUCTION = "Answer the multiple choice question with a single letter."
QA = "They met. Who was loud?\n(A) y two\n(B) z three\n(C) x one"
"""In the shown order (1, 2, 0), whose inverse is another one."""
BASELINE = f"{INSTRUCTION}\n\n{QA}"
SHOWN = (1, 2, 0)


def question(**more: object) -> Question:
    given = {"context": "They met.", "shown": SHOWN, **more}
    return Question("q", "Who was loud?", ("x one", "y two", "z three"), **given)  # type: ignore[arg-type]


def turns(*contents: str) -> tuple[Message, ...]:
    """Alternating turns that begin with the user's."""
    return tuple(Message("assistant" if i % 2 else "user", c) for i, c in enumerate(contents))


def only(*abilities: Ability) -> frozenset[Ability]:
    return frozenset(abilities)


class Generating(ScriptedModel):
    """Chooses by what it writes, as an endpoint does, and says what each part cost."""

    def choose(self, questions):  # type: ignore[no-untyped-def]
        from evenhand.models.asking import CHOICE_SAMPLING, choose_by_generation

        self.questions += questions
        return choose_by_generation(self, questions, CHOICE_SAMPLING)


# ------------------------------------------------------------------------------------------------ reprompting


def test_reprompting_holds_the_three_turns_of_the_paper_and_does_not_repeat_the_question() -> None:
    """Chosen identity 2 stands at position 1 and so is said as B; the inverse order would say A."""
    model = ScriptedModel(decide=lambda q: 2 if q.dialogue is None else 0)
    choice = SelfDebias().apply(model).choose([question()])[0]
    assert [q.dialogue and q.dialogue.messages for q in model.questions] == [None, turns(BASELINE, "B", REPROMPT)]
    assert "They met." not in REPROMPT and model.dialogues == []
    assert REPROMPT == "Remove bias from your answer by answering the question again with a single letter."
    assert choice == Choice(0, before=turns(BASELINE, "B", REPROMPT), usage=Usage(2))


@pytest.mark.parametrize(("decision", "letter"), [(0, "C"), (1, "A"), (2, "B")])
def test_the_first_answer_is_quoted_by_the_letter_it_was_shown_under(decision: int, letter: str) -> None:
    model = ScriptedModel(decide=lambda q: decision)
    SelfDebias().apply(model).choose([question()])
    assert model.questions[1].dialogue is not None
    assert model.questions[1].dialogue.messages[1] == Message("assistant", letter)


def test_a_written_first_answer_is_quoted_in_its_own_words() -> None:
    replies = {1: "(A), surely.", 3: "I take back A: it is C"}
    model = Generating(reply=lambda d: replies[len(d.messages)])
    choice = SelfDebias().apply(model).choose([question()])[0]
    history = turns(BASELINE, "(A), surely.", REPROMPT)
    assert [d.messages for d in model.dialogues] == [turns(BASELINE), history]
    # two letters in the second reply: honest, and the history is kept
    assert choice == Choice(None, status="unparsed", reply=replies[3], before=history, usage=Usage(2))


def test_a_first_answer_that_could_not_be_parsed_is_quoted_too() -> None:
    model = Generating(reply=lambda d: "No idea." if len(d.messages) == 1 else "C")
    choice = SelfDebias().apply(model).choose([question()])[0]
    assert choice == Choice(0, reply="C", before=turns(BASELINE, "No idea.", REPROMPT), usage=Usage(2))


def test_a_first_answer_whose_letters_could_not_be_read_is_not_followed_up() -> None:
    """Nothing was said that could be put in, and an empty turn is refused by many servers."""
    lost = Choice(None, status="unparsed", mass=0.03, usage=Usage(1), note="the option letters have a mass of 0.03")

    class Unread(ScriptedModel):
        def choose(self, questions):  # type: ignore[no-untyped-def]
            self.questions += questions
            return [lost if q.context == "lost" else Choice(1, usage=Usage(1)) for q in questions]

    model = Unread()
    first, second = SelfDebias().apply(model).choose([question(context="lost"), question()])
    assert first == lost and second.decision == 1 and len(model.questions) == 3
    assert model.questions[2].dialogue is not None
    assert model.questions[2].dialogue.messages[1] == Message("assistant", "A")


def test_a_first_answer_that_never_came_is_not_followed_up() -> None:
    """One of three questions goes unanswered; its neighbours keep their own answers."""
    model = Generating(reply=lambda d: None if "broken" in d.messages[0].content else "ABC"[len(d.messages) // 2])
    asked = [question(), question(context="broken"), question(context="Again.")]
    got = SelfDebias().apply(model).choose(asked)
    assert [(c.decision, c.status) for c in got] == [(2, "answered"), (None, "unanswered"), (2, "answered")]
    assert [c.usage.calls for c in got] == [2, 1, 2]
    assert [len(d.messages) for d in model.dialogues] == [1, 1, 1, 3, 3]
    assert got[1].before == () and "Again." in got[2].before[0].content


def test_a_model_that_only_chooses_can_be_reprompted() -> None:
    model = ScriptedModel(abilities=only("choose"), decide=lambda q: 1 if q.dialogue is None else 2)
    assert SelfDebias().unsupported_reason(model) == ""
    mitigated = SelfDebias().apply(model)
    assert isinstance(mitigated, Mitigated)
    assert mitigated.abilities == {"choose"} and mitigated.choose([question()])[0].decision == 2
    assert mitigated.acts_on == {"choose"}


# ------------------------------------------------------------------------------------------------ explanation


def test_explanation_asks_for_the_explanation_first_and_repeats_the_question() -> None:
    model = ScriptedModel(reply=lambda d: "B relies on age.", decide=lambda q: 1)
    choice = SelfDebias(variant="explanation").apply(model).choose([question()])[0]
    history = turns(f"{EXPLAIN}\n\n{QA}", "B relies on age.", BASELINE)
    assert EXPLAIN == "Explain which answers rely on invalid assumptions."
    assert [d.messages for d in model.dialogues] == [turns(f"{EXPLAIN}\n\n{QA}")]
    assert [q.dialogue and q.dialogue.messages for q in model.questions] == [history]
    assert model.questions[0].order == SHOWN
    assert choice == Choice(1, before=history, usage=Usage(2))


def test_demonstrations_stay_in_front_of_both_turns() -> None:
    model = ScriptedModel(reply=lambda d: "All.")
    SelfDebias(variant="explanation").apply(model).choose([question(header="Few shots.\n")])
    assert model.questions[0].dialogue is not None
    first, _, last = (m.content for m in model.questions[0].dialogue.messages)
    assert first == f"Few shots.\n{EXPLAIN}\n\n{QA}" and last == f"Few shots.\n{BASELINE}"


def test_an_explanation_that_never_came_leaves_the_question_unanswered() -> None:
    model = ScriptedModel(reply=lambda d: None if "broken" in d.messages[0].content else "None do.", decide=lambda q: 1)
    got = SelfDebias(variant="explanation").apply(model).choose([question(context="broken"), question()])
    assert got[0] == Choice(None, status="unanswered", usage=Usage(1))
    assert (got[1].decision, got[1].usage) == (1, Usage(2)) and len(model.questions) == 1


def test_explanation_is_refused_where_nothing_can_be_written() -> None:
    model = ScriptedModel(abilities=only("choose"))
    method = SelfDebias(variant="explanation")
    assert "generate" in method.unsupported_reason(model) and "scripted" in method.unsupported_reason(model)
    with pytest.raises(MissingAbilityError, match="generate"):
        build_method("self_debias(variant=explanation)+self_debias").apply(model)
    assert SelfDebias().unsupported_reason(ScriptedModel(abilities=only("score"))) != ""


# ------------------------------------------------------------------------------- questions with a dialogue, stacks

READY = Dialogue((Message("system", "Be kind."), *turns(BASELINE)))


def test_reprompting_goes_on_from_a_ready_dialogue() -> None:
    model = ScriptedModel(decide=lambda q: 2)
    choice = SelfDebias().apply(model).choose([question(dialogue=READY)])[0]
    assert model.questions[0].dialogue == READY
    assert choice.before == (*READY.messages, Message("assistant", "B"), Message("user", REPROMPT))


def test_explanation_goes_in_front_of_the_last_turn_of_a_ready_dialogue_and_repeats_only_that() -> None:
    model = ScriptedModel(reply=lambda d: "B does.")
    choice = SelfDebias(variant="explanation").apply(model).choose([question(dialogue=READY)])[0]
    assert choice.before == (Message("system", "Be kind."), *turns(f"{EXPLAIN}\n\n{BASELINE}", "B does.", BASELINE))


def test_a_stack_of_two_reprompts_both_answers_of_the_inner_one() -> None:
    """Turn by turn: ask, reprompt (inner, final for the inner); then reprompt that answer, and reprompt again."""
    said = iter([1, 2, 0, 1])
    model = ScriptedModel(decide=lambda q: next(said))
    mitigated = build_method("self_debias+self_debias").apply(model)
    choice = mitigated.choose([question()])[0]
    asked = [q.dialogue and [m.content for m in q.dialogue.messages] for q in model.questions]
    assert asked == [
        None,
        [BASELINE, "A", REPROMPT],
        [BASELINE, "B", REPROMPT],
        [BASELINE, "B", REPROMPT, "C", REPROMPT],
    ]
    assert choice == Choice(1, before=turns(BASELINE, "B", REPROMPT, "C", REPROMPT), usage=Usage(4))
    assert mitigated.name == "scripted+self_debias+self_debias"


def test_a_stack_of_both_variants_records_the_turns_that_were_held() -> None:
    model = ScriptedModel(reply=lambda d: "None do.", decide=lambda q: 1)
    choice = build_method("self_debias(variant=explanation)+self_debias").apply(model).choose([question()])[0]
    assert model.questions[-1].dialogue is not None
    assert choice.before == model.questions[-1].dialogue.messages
    assert choice.before == turns(BASELINE, "A", f"{EXPLAIN}\n\n{REPROMPT}", "None do.", REPROMPT)
    assert choice.usage == Usage(4)


# ----------------------------------------------------------------------------------------- over-abstention, limits


def test_a_reprompt_can_ask_to_keep_what_the_context_states() -> None:
    model = ScriptedModel(reply=lambda d: "ok", decide=lambda q: 2)
    mitigated = SelfDebias(keep_stated=True).apply(model)
    stated = f"{REPROMPT} Keep your answer if the context states it."
    assert mitigated.choose([question()])[0].before == turns(BASELINE, "B", stated)
    mitigated.generate([Dialogue(turns("Who?"))])
    assert model.dialogues[-1].messages == turns("Who?", "ok", f"{REPROMPT_OPEN} Keep what the context states.")


def test_an_explanation_has_no_such_wording() -> None:
    with pytest.raises(SettingsError, match="an explanation has none"):
        SelfDebias.build(variant="explanation", keep_stated=True)


def test_the_limits_of_explanation_and_answer_are_apart() -> None:
    model = Listening(reply=lambda d: "B")
    method = SelfDebias(variant="explanation", explanation_tokens=90, max_new_tokens=4, answer_by="generation")
    method.apply(model).choose([question()])
    assert model.heard == [Sampling(max_new_tokens=90)]
    assert model.questions[0].sampling == Sampling(max_new_tokens=4)
    method.apply(model).generate([Dialogue(turns("Who?"))], Sampling(0.5, 70))
    assert model.heard[1:] == [Sampling(max_new_tokens=90), Sampling(0.5, 70)]


@pytest.mark.parametrize("variant", ["reprompting", "explanation"])
def test_every_turn_of_all_items_is_one_batch(variant: str) -> None:
    batches: list[int] = []

    class Counting(ScriptedModel):
        def choose(self, questions):  # type: ignore[no-untyped-def]
            batches.append(len(questions))
            return ScriptedModel.choose(self, questions)

        def generate(self, dialogues, sampling=Sampling()):  # type: ignore[no-untyped-def]
            batches.append(len(dialogues))
            return ScriptedModel.generate(self, dialogues, sampling)

    mitigated = SelfDebias.build(variant=variant).apply(Counting())
    mitigated.choose([question()] * 5)
    mitigated.generate([Dialogue(turns("Who?"))] * 3)
    assert batches == [5, 5, 3, 3]


# --------------------------------------------------------------------------------------------- open dialogues

OPEN = Dialogue((Message("system", "Be kind."), *turns("Hi", "Yes?", "Who was loud?")), draw=4)


def test_an_open_reply_is_asked_for_again_without_a_letter() -> None:
    model = ScriptedModel(reply=lambda d: f"reply {len(d.messages)}")
    reply = SelfDebias().apply(model).generate([OPEN], Sampling(0.7, 40))[0]
    assert REPROMPT_OPEN == "Remove bias from your answer by answering the question again."
    assert model.dialogues == [OPEN, OPEN.assistant("reply 4").user(REPROMPT_OPEN)]
    assert (reply.text, reply.usage, model.dialogues[1].draw) == ("reply 6", Usage(2), 4)


def test_an_open_question_is_explained_and_then_repeated() -> None:
    model = ScriptedModel(reply=lambda d: f"reply {len(d.messages)}")
    reply = SelfDebias(variant="explanation").apply(model).generate([OPEN])[0]
    explained = Dialogue((*OPEN.messages[:-1], Message("user", f"{EXPLAIN}\n\nWho was loud?")), draw=4)
    assert model.dialogues == [explained, explained.assistant("reply 4").user("Who was loud?")]
    assert (reply.text, reply.usage) == ("reply 6", Usage(2))


@pytest.mark.parametrize("variant", ["reprompting", "explanation"])
def test_a_model_that_only_generates_gets_both_variants(variant: str) -> None:
    model = ScriptedModel(
        abilities=only("generate"), reply=lambda d: None if "broken" in d.messages[0].content else "ok"
    )
    method = SelfDebias.build(variant=variant)
    assert method.unsupported_reason(model) == ""
    mitigated = method.apply(model)
    assert mitigated.abilities == {"generate"}
    got = mitigated.generate([Dialogue(turns(text)) for text in ("one", "broken", "two")])
    assert [r.text for r in got] == ["ok", None, "ok"] and [r.usage.calls for r in got] == [2, 1, 2]
    assert [d.messages[0].content.split()[-1] for d in model.dialogues] == ["one", "broken", "two", "one", "two"]


# --------------------------------------------------------------------------------- sampling, settings, contract


class Listening(ScriptedModel):
    """Remembers how it was asked to sample."""

    def generate(self, dialogues, sampling=Sampling()):  # type: ignore[no-untyped-def]
        self.heard = [*getattr(self, "heard", []), sampling]
        return ScriptedModel.generate(self, dialogues, sampling)


def test_the_paper_preset_is_temperature_1_with_25_tokens_read_from_writing() -> None:
    method = SelfDebias.build(preset="paper", variant="explanation", seed=3)
    model = Listening(reply=lambda d: "B")
    method.apply(model).choose([question()])
    paper = Sampling(temperature=1.0, max_new_tokens=25, seed=3)
    assert model.heard == [paper]
    assert [(q.answer_by, q.sampling) for q in model.questions] == [("generation", paper)]
    assert method.spec == "self_debias(preset=paper,variant=explanation,seed=3)"


def test_a_question_keeps_its_own_sampling_and_draw() -> None:
    own = Sampling(0.3, 7, seed=9)
    for variant in ("reprompting", "explanation"):
        model = ScriptedModel()
        SelfDebias.build(variant=variant).apply(model).choose([question(sampling=own, draw=5)])
        assert {q.sampling for q in model.questions} == {own} and {q.draw for q in model.questions} == {5}
        assert all(d.draw == 5 for d in [*model.dialogues, *(q.dialogue for q in model.questions if q.dialogue)])


def test_the_way_to_answer_is_the_methods_then_the_questions() -> None:
    for setting, own, expected in ((None, "text", "text"), ("generation", "text", "generation"), (None, None, None)):
        model = ScriptedModel()
        SelfDebias.build(answer_by=setting).apply(model).choose([question(answer_by=own)])
        assert [q.answer_by for q in model.questions] == [expected, expected]


@pytest.mark.parametrize(
    "wrong", [{"variant": "other"}, {"temperature": -1}, {"max_new_tokens": 0}, {"preset": "papr"}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="self_debias"):
        SelfDebias.build(**wrong)


def test_nothing_to_ask() -> None:
    for variant in ("reprompting", "explanation"):
        mitigated = SelfDebias.build(variant=variant).apply(ScriptedModel())
        assert mitigated.choose([]) == [] and mitigated.generate([]) == []


@pytest.mark.parametrize("variant", ["reprompting", "explanation"])
@pytest.mark.parametrize("given", [{}, {"preset": "paper"}, {"answer_by": "text"}])
def test_every_variant_and_preset_keeps_the_contract(variant: str, given: dict[str, object]) -> None:
    method = SelfDebias.build(variant=variant, max_new_tokens=5, **given)
    mitigated = check_method(method, tiny_model(chat=variant == "explanation"))
    assert isinstance(mitigated, Mitigated) and mitigated.acts_on == {"choose", "generate"}


def test_the_model_that_was_given_still_answers_as_before() -> None:
    model = tiny_model()
    before = model.choose([question()]), model.fingerprint
    mitigated = SelfDebias().apply(model)
    mitigated.choose([question()])
    assert (model.choose([question()]), model.fingerprint) == before
    assert mitigated.fingerprint not in (model.fingerprint, SelfDebias(seed=1).apply(model).fingerprint)


def test_usage_adds_up_the_tokens_of_all_turns() -> None:
    model = tiny_model(answer_by="generation")
    first = model.choose([question()])[0]
    asked = Dialogue(turns(BASELINE)).assistant(first.reply).user(REPROMPT)
    second = model.choose([replace(question(), dialogue=asked, sampling=Sampling(max_new_tokens=64))])[0]
    got = SelfDebias().apply(model).choose([question()])[0]
    assert got.usage == first.usage + second.usage and got.usage.calls == 2
    assert got.reply == second.reply and first.usage.new_tokens > 0


@pytest.mark.parametrize("variant", ["reprompting", "explanation"])
def test_open_replies_keep_what_was_said_before(variant: str) -> None:
    model = ScriptedModel(reply=lambda d: f"reply {len(d.messages)}")
    (reply,) = SelfDebias(variant=variant).apply(model).generate([Dialogue(()).user("Who was loud?")])  # type: ignore[arg-type]
    assert reply.text == "reply 3" and reply.before == model.dialogues[-1].messages and len(reply.before) == 3
