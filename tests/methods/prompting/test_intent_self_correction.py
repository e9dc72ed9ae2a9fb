"""Intent-aware self-correction: exact turns of answering and criticising, early stop, batches, and honest losses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

import evenhand
from evenhand.core.registry import build_method
from evenhand.errors import MissingAbilityError, SettingsError, UnknownNameError
from evenhand.interfaces import Choice, Dialogue, Message, Question, Sampling, Usage
from evenhand.methods.prompting import intent_self_correction
from evenhand.methods.prompting.intent_self_correction import Critique, IntentSelfCorrection, read_critique
from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.proving_ground.generator.words import EXPLAINED
from evenhand.testing import ScriptedModel, check_method, tiny_model

PACK = prompt_pack("en")
TOLD, THINK, DECIDE = PACK.moral.instruction, PACK.moral.think, PACK.moral.decide
ASPECTS = PACK.intent.aspects
QA = "They met. Who was loud?\n(A) y two\n(B) z three\n(C) x one"
FIRST = f"{TOLD}\n\n{QA}\n\n{THINK}"


def question(**more: object) -> Question:
    given = {"context": "They met.", "shown": (1, 2, 0), **more}
    return Question("q", "Who was loud?", ("x one", "y two", "z three"), **given)  # type: ignore[arg-type]


def turns(*contents: str) -> tuple[Message, ...]:
    return tuple(Message("assistant" if i % 2 else "user", c) for i, c in enumerate(contents))


def critique(aspect: str, answer: str, asked: str = QA, reasoning: str = "Hm.") -> str:
    return (
        f"{asked}\n\nReasoning: {reasoning}\nAnswer: {answer}\n\nRate from 0 (not at all) to 4 (fully) whether the "
        f"answer {aspect}. Begin with the digit, then give the reason."
    )


def mark(number: int, aspect: str, text: str, by: str = "scripted") -> Message:
    return Message("system", f"[critique {number}, {aspect}, by {by}; not shown to the model] {text}")


def refined(*lines: str) -> str:
    return "\n".join(
        [
            "A reviewer rated your answer.",
            *lines,
            "Remove bias from your answer by answering the question again with a single letter.",
        ]
    )


class Recording(ScriptedModel):
    """Thinks "Hm.", criticises by script, and remembers how many requests came at once."""

    def __init__(self, judge: Callable[[str], str | None] = lambda asked: "0. Fine.", **script: object) -> None:
        def reply(dialogue: Dialogue) -> str | None:
            text = dialogue.messages[0].content
            return judge(text) if "Rate from 0" in text else None if "broken" in text else "Hm."

        super().__init__(reply=reply, **script)  # type: ignore[arg-type]
        self.batches: list[tuple[str, int]] = []
        self.heard: list[Sampling] = []

    def choose(self, questions):  # type: ignore[no-untyped-def]
        self.batches.append(("choose", len(questions)))
        return super().choose(questions)

    def generate(self, dialogues, sampling=Sampling()):  # type: ignore[no-untyped-def]
        self.batches.append(("generate", len(dialogues)))
        self.heard.append(sampling)
        return super().generate(dialogues, sampling)


def names_somebody(text: str) -> str:
    """A critic who finds fault with every answer but "x one"."""
    return "0. Fine." if "Answer: x one" in text else "3. It guesses."


# -------------------------------------------------------------------------------------------------- transcripts


def test_an_answer_without_fault_stands_after_one_criticism() -> None:
    model = Recording(decide=lambda q: 2)
    choice = IntentSelfCorrection().apply(model).choose([question()])[0]
    history = turns(FIRST, "Hm.", DECIDE)
    assert [d.messages for d in model.dialogues] == [
        turns(FIRST),
        *(turns(critique(aspect, "z three")) for aspect in ASPECTS.values()),
    ]
    assert [q.dialogue and q.dialogue.messages for q in model.questions] == [history]
    assert model.batches == [("generate", 1), ("choose", 1), ("generate", 3)]
    marks = [mark(1, name, "0. Fine.") for name in ASPECTS]
    assert choice == Choice(2, before=(*history, Message("assistant", "B"), *marks), usage=Usage(5))


def test_a_faulty_answer_is_given_again_with_the_feedback_until_it_is_sound() -> None:
    """Identity 1 is shown as A and is at fault; then 0, shown as C, is sound."""
    model = Recording(names_somebody, decide=lambda q: 0 if len(q.dialogue.messages) > 3 else 1)  # type: ignore[union-attr]
    choice = IntentSelfCorrection().apply(model).choose([question()])[0]
    again = refined(*(f"- It {aspect}: 3 of 4. It guesses." for aspect in ASPECTS.values()))
    second = turns(FIRST, "Hm.", DECIDE, "A", again)
    assert model.questions[1].dialogue is not None and model.questions[1].dialogue.messages == second
    assert model.batches == [("generate", 1), ("choose", 1), ("generate", 3), ("choose", 1), ("generate", 3)]
    assert choice.before == (
        *second[:4],
        *(mark(1, name, "3. It guesses.") for name in ASPECTS),
        second[4],
        Message("assistant", "C"),
        *(mark(2, name, "0. Fine.") for name in ASPECTS),
    )
    assert (choice.decision, choice.usage, choice.note) == (0, Usage(9), "")
    assert not any("critique 1" in m.content for q in model.questions if q.dialogue for m in q.dialogue.messages)


@pytest.mark.parametrize("rounds", [1, 3])
def test_rounds_limit_the_answers(rounds: int) -> None:
    model = Recording(lambda asked: "4", decide=lambda q: 1)
    choice = IntentSelfCorrection(rounds=rounds, aspects=("grounds",)).apply(model).choose([question()])[0]
    assert model.batches == [("generate", 1), ("choose", 1), *[("generate", 1), ("choose", 1)] * rounds]
    asked = model.questions[-1].dialogue
    again = refined(f"- It {ASPECTS['grounds']}: 4 of 4.")
    assert asked is not None
    assert asked.messages == (
        *turns(FIRST, "Hm.", DECIDE),
        *[Message("assistant", "A"), Message("user", again)] * rounds,
    )
    assert choice.before[-1] == Message("user", again), "no critique is asked for that nothing follows from"
    assert choice.usage == Usage(2 + 2 * rounds)


@pytest.mark.parametrize(
    ("scores", "threshold", "again"),
    [((1, 1, 1), 1, False), ((0, 2, 0), 1, True), ((0, 0, 0), 0, False), ((0, 0, 1), 0, True), ((4, 4, 4), 4, False)],
)
def test_it_stops_where_every_score_is_at_most_the_threshold(
    scores: tuple[int, ...], threshold: int, again: bool
) -> None:
    by_aspect = dict(zip(ASPECTS.values(), scores, strict=True))
    model = Recording(lambda asked: str(next(s for a, s in by_aspect.items() if a in asked)))
    IntentSelfCorrection(threshold=threshold, rounds=1).apply(model).choose([question()])
    assert len(model.questions) == 1 + again


def test_only_chosen_aspects_are_asked_about() -> None:
    model = Recording(names_somebody, decide=lambda q: 1)
    IntentSelfCorrection(aspects=("equality", "stereotype"), rounds=1).apply(model).choose([question()])
    asked = [d.messages[0].content for d in model.dialogues[1:]]
    assert asked == [critique(ASPECTS[name], "y two") for name in ("stereotype", "equality")]


# ------------------------------------------------------------------------------------------------------- batches


def test_every_turn_is_one_batch_and_items_that_stopped_are_not_asked_again() -> None:
    """Four items: sound at once, sound after one more answer, never sound, never thought about."""

    def decide(q: Question) -> int:
        assert q.dialogue is not None
        answers = (len(q.dialogue.messages) - 1) // 2
        return 0 if "one" in q.context or ("two" in q.context and answers > 1) else 1

    model = Recording(names_somebody, decide=decide)
    asked = [question(context=f"They met {c}.") for c in ("one", "two", "three", "broken")]
    got = IntentSelfCorrection(rounds=2).apply(model).choose(asked)
    assert model.batches == [
        ("generate", 4),
        ("choose", 3),
        ("generate", 9),
        ("choose", 2),
        ("generate", 6),
        ("choose", 1),
    ]
    assert [(c.decision, c.status, c.usage.calls) for c in got] == [
        (0, "answered", 5),
        (0, "answered", 9),
        (1, "answered", 10),
        (None, "unanswered", 1),
    ]
    assert [c.before[0].content.split("\n\n")[1].split(".")[0] for c in got[:3]] == [
        "They met one",
        "They met two",
        "They met three",
    ]
    assert got[3].before == ()


def test_an_answer_that_never_came_touches_its_item_only() -> None:
    """The second of three items is lost at its second answer."""

    class Losing(Recording):
        def choose(self, questions):  # type: ignore[no-untyped-def]
            lost = Choice(None, status="unanswered", note="server gone", usage=Usage(1))
            return [
                lost if "two" in q.context and len(q.dialogue.messages) > 3 else c
                for q, c in zip(questions, super().choose(questions), strict=True)
            ]

    model = Losing(names_somebody, decide=lambda q: 1)
    asked = [question(context=f"They met {c}.") for c in ("one", "two", "three")]
    got = IntentSelfCorrection(rounds=2, aspects=("grounds",)).apply(model).choose(asked)
    assert [(c.status, c.note, c.usage.calls) for c in got] == [
        ("answered", "", 6),
        ("unanswered", "server gone", 4),
        ("answered", "", 6),
    ]
    assert got[1].before[-1].content.startswith("A reviewer")
    assert model.batches[-2:] == [("generate", 2), ("choose", 2)]


# ------------------------------------------------------------------------------------------------ unread critiques


def test_a_critique_without_a_score_is_left_out_and_noted() -> None:
    def judge(asked: str) -> str | None:
        return {"relies": "Biased!", "goes": "3. It guesses.", "would": None}[
            asked.split(" whether the answer ")[1].split()[0]
        ]

    model = Recording(judge, decide=lambda q: 1)
    choice = IntentSelfCorrection(rounds=1).apply(model).choose([question()])[0]
    asked = model.questions[1].dialogue
    assert asked is not None and asked.messages[-1].content == refined(
        f"- It {ASPECTS['grounds']}: 3 of 4. It guesses."
    )
    assert choice.note == "critique 1 has no score for stereotype; critique 1 has no score for equality"
    assert choice.decision == 1 and mark(1, "stereotype", "Biased!") in choice.before


def test_where_no_score_can_be_read_the_answer_stands() -> None:
    model = Recording(lambda asked: "I cannot say.", decide=lambda q: 1)
    choice = IntentSelfCorrection(aspects=("grounds",)).apply(model).choose([question()])[0]
    assert len(model.questions) == 1 and choice.decision == 1
    assert choice.note == "critique 1 has no score for grounds"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3. It guesses.", Critique(3, "It guesses.")),
        ("0", Critique(0, "")),
        ("**4** - Unfair,\n  and rude.", Critique(4, "Unfair, and rude.")),
        ("Score: 2/4. So so.", Critique(2, "So so.")),
        ("1) Nearly fair.", Critique(1, "Nearly fair.")),
        ("<think>4?</think> 1. Fair.", Critique(1, "Fair.")),
        ("3 Menschen", Critique(3, "Menschen")),
        ("5. Beyond the scale.", None),
        ("10", None),
        ("2.5", None),
        ("2,5", None),
        ("0-4", None),
        ("1 - 2", None),
        ("I would say 3.", None),
        ("-", None),
        ("", None),
    ],
)
def test_a_score_is_read_where_a_critique_begins_with_it(text: str, found: Critique | None) -> None:
    assert read_critique(text) == found


# ---------------------------------------------------------------------------------------------------- open replies


def test_an_open_question() -> None:
    """The critic sees question and reply; the second of two is lost while thinking."""

    def reply(d: Dialogue) -> str | None:
        text = d.messages[-1].content
        return "1. Fair." if "Rate from 0" in text else None if "broken" in text else f"reply {len(d.messages)}"

    model = ScriptedModel(reply=reply, abilities=frozenset({"generate"}))
    mitigated = IntentSelfCorrection(aspects=("stereotype",)).apply(model)
    system = Message("system", "Be kind.")
    got = mitigated.generate([Dialogue((system, *turns("Who?"))), Dialogue(turns("broken"))], Sampling(0.4, 40))
    first = (system, *turns(f"{TOLD}\n\nWho?\n\n{THINK}", "reply 2", PACK.moral.decide_open))
    asked = [d.messages for d in model.dialogues]
    assert asked[2] == first
    about = ASPECTS["stereotype"]
    assert asked[3:] == [turns(critique(about, "reply 4", "Who?", "reply 2"))]
    assert mitigated.abilities == {"generate"}
    assert got[1].text is None and got[1].usage == Usage(1)
    assert got[0].text == "reply 4" and got[0].usage == Usage(3) and got[1].before == ()


def test_an_open_answer_is_refined_without_a_letter() -> None:
    def reply(d: Dialogue) -> str:
        text = d.messages[-1].content
        if "Rate from 0" in text:
            return "4. Unfair." if "Answer: reply 3" in text else "1. Fair."
        return f"reply {len(d.messages)}"

    model = ScriptedModel(reply=reply)
    got = IntentSelfCorrection(aspects=("stereotype",)).apply(model).generate([Dialogue(turns("Who?"), draw=7)])[0]
    again = f"A reviewer rated your answer.\n- It {ASPECTS['stereotype']}: 4 of 4. Unfair.\n"
    again += "Remove bias from your answer by answering the question again."
    history = turns(f"{TOLD}\n\nWho?\n\n{THINK}", "reply 1", PACK.moral.decide_open, "reply 3", again)
    assert model.dialogues[3].messages == history
    assert (got.text, got.usage) == ("reply 5", Usage(5)) and {d.draw for d in model.dialogues} == {7}
    assert got.before == (
        *history[:4],
        mark(1, "stereotype", "4. Unfair."),
        history[4],
        Message("assistant", "reply 5"),
        mark(2, "stereotype", "1. Fair."),
    )


# ------------------------------------------------------------------------------------------------------- the critic


def test_another_model_criticises(monkeypatch: pytest.MonkeyPatch) -> None:
    critic = Recording(names_somebody)
    critic.name = "judge"
    loaded: list[str] = []
    monkeypatch.setattr(intent_self_correction, "load", lambda spec: loaded.append(spec) or critic)
    model = Recording(decide=lambda q: 1)
    method = IntentSelfCorrection(critic="some/judge", rounds=1)
    assert loaded == [], "nothing is loaded before it is needed"
    choice = method.apply(model).choose([question()])[0]
    method.apply(model)
    assert loaded == ["some/judge"], "once, however often it is applied"
    assert critic.batches == [("generate", 3)] and model.batches == [("generate", 1), ("choose", 1), ("choose", 1)]
    assert mark(1, "grounds", "3. It guesses.", by="judge") in choice.before and choice.usage == Usage(6)


def test_a_critic_that_cannot_write_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mute = ScriptedModel(abilities=frozenset({"choose", "score"}))
    monkeypatch.setattr(intent_self_correction, "load", lambda spec: mute)
    with pytest.raises(MissingAbilityError, match="critic scripted"):
        IntentSelfCorrection(critic="mute").apply(Recording())
    assert "generate" in IntentSelfCorrection().unsupported_reason(mute)


def test_the_critic_is_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever the name stands for: the same name with other content is another critic."""
    model, one, other = (tiny_model(seed=s) for s in (0, 1, 2))
    prints = []
    for critic in (one, other, one):
        monkeypatch.setattr(intent_self_correction, "load", lambda spec, critic=critic: critic)
        prints.append(IntentSelfCorrection(critic="judge").apply(model).fingerprint)
    assert prints[0] == prints[2] != prints[1]
    assert IntentSelfCorrection().apply(model).fingerprint not in prints


def test_it_is_saved_with_a_reference_to_the_critic(tmp_path) -> None:  # type: ignore[no-untyped-def]
    mitigated = IntentSelfCorrection(critic="demo-c", aspects=("grounds",)).apply(evenhand.load("demo"))
    folder = mitigated.save(tmp_path / "kept")
    saved = json.loads((folder / "evenhand.json").read_text())
    assert saved["method"]["intent_self_correction"]["critic"] == "demo-c"
    assert not list(folder.rglob("*.safetensors"))
    assert evenhand.load(folder).fingerprint == mitigated.fingerprint


# ---------------------------------------------------------------------------------------------------- stacks, more


def test_in_a_stack_the_record_keeps_what_the_method_below_held() -> None:
    model = Recording(names_somebody, decide=lambda q: 1)
    stacked = build_method("self_debias+intent_self_correction(rounds=1,aspects=('grounds',))").apply(model)
    choice = stacked.choose([question()])[0]
    repeat, anew = PACK.self_debias.reprompt, intent_self_correction.ANEW
    said = [m.content for m in choice.before]
    assert said[:4] == [FIRST, "Hm.", PACK.self_debias.reprompt_open, "Hm."]
    assert said[4:10] == [anew, FIRST, "Hm.", DECIDE, "A", repeat] and said[10] == "A"
    assert said[11].startswith("[critique 1, grounds") and said[12:17] == [anew, FIRST, "Hm.", DECIDE, "A"]
    assert said[17].startswith("A reviewer") and said[18:] == ["A", repeat]


def dialogues_of(record: Sequence[Message]) -> list[tuple[Message, ...]]:
    """The dialogues that a record says it consists of, without what was never asked."""
    found: list[list[Message]] = [[]]
    for message in record:
        if message.content == intent_self_correction.ANEW:
            found.append([])
        elif "not shown to the model" not in message.content:
            found[-1].append(message)
    return [tuple(f) for f in found]


BELOW = [
    "instruction",
    "instruction(place=after)",
    "instruction(place=system)",
    "self_debias",
    "self_debias(variant=explanation)",
    "moral_self_correction",
    "moral_self_correction(variant=instruction)",
    "moral_self_correction(place=system)",
    "instruction+self_debias",
    "none",
]


@pytest.mark.parametrize("judge", ["0. Fine.", "4. Unfair."])
@pytest.mark.parametrize("below", BELOW)
def test_the_record_of_a_stack_is_what_was_really_asked(below: str, judge: str) -> None:
    model = Recording(lambda asked: judge, decide=lambda q: 1)
    stacked = build_method(f"{below}+intent_self_correction(rounds=2,aspects=('grounds',))").apply(model)
    choice, reply = stacked.choose([question()])[0], stacked.generate([Dialogue(turns("Who?"))])[0]
    asked = [d.messages for d in model.dialogues] + [q.dialogue.messages for q in model.questions if q.dialogue]
    for before in (choice.before, reply.before):
        for said in dialogues_of(before):
            ends = [n for n in range(len(said) + 1) if said[:n] in asked]
            assert ends and len(said) - ends[-1] <= 1, "all but an answer at the end was asked"
            assert all(a.role != b.role for a, b in pairwise(said)), "nobody speaks twice in a row"


def test_an_instruction_below_makes_two_dialogues_and_a_systems_turn_one() -> None:
    record = []
    for below in ("instruction", "instruction(place=system)"):
        stacked = build_method(f"{below}+intent_self_correction").apply(Recording(decide=lambda q: 1))
        record.append(dialogues_of(stacked.choose([question()])[0].before))
    (draft, decided), (one,) = record
    assert FIRST in draft[0].content and draft[0].content != FIRST and draft[1].content == "Hm."
    assert [m.content for m in decided[:2]] == [FIRST, "Hm."] and decided[2].content != DECIDE
    assert [m.role for m in one] == ["system", "user", "assistant", "user", "assistant"]


def test_a_question_without_text_of_its_own_is_shown_to_the_critic_as_its_prompt() -> None:
    model = Recording()
    ready = Dialogue(turns("What now? Say a letter."))
    asked = Question("q", "", ("yes", "no"), dialogue=ready)
    IntentSelfCorrection(aspects=("grounds",)).apply(model).choose([asked])
    assert model.dialogues[-1].messages == turns(critique(ASPECTS["grounds"], "yes", "What now? Say a letter."))


def test_an_unparsed_answer_is_criticised_as_it_was_written() -> None:
    class Writing(Recording):
        def choose(self, questions):  # type: ignore[no-untyped-def]
            super().choose(questions)
            return [Choice(None, status="unparsed", reply="Who knows.", usage=Usage(1)) for _ in questions]

    model = Writing(lambda asked: "3. It dodges.")
    choice = IntentSelfCorrection(aspects=("grounds",), rounds=1).apply(model).choose([question()])[0]
    assert model.dialogues[1].messages == turns(critique(ASPECTS["grounds"], "Who knows."))
    assert choice.status == "unparsed" and Message("assistant", "Who knows.") in choice.before


def test_limits_and_temperature() -> None:
    model = Recording()
    method = IntentSelfCorrection(
        temperature=0.7, reasoning_tokens=90, critique_tokens=30, max_new_tokens=4, seed=5, answer_by="generation"
    )
    method.apply(model).choose([question(draw=3)])
    assert model.heard == [Sampling(0.7, 90, seed=5), Sampling(0.7, 30, seed=5)]
    assert model.questions[0].sampling == Sampling(0.7, 4, seed=5) and model.questions[0].answer_by == "generation"
    assert {d.draw for d in model.dialogues} == {3}


@pytest.mark.parametrize(
    "wrong", [{"threshold": 5}, {"threshold": -1}, {"rounds": 0}, {"aspects": ["fairness"]}, {"prompts": "xx"}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        IntentSelfCorrection.build(**wrong)
    with pytest.raises(UnknownNameError, match="stereotype"):
        IntentSelfCorrection(aspects=("stereotypes",))


@pytest.mark.parametrize("given", [{}, {"critic": "demo-c", "rounds": 1}, {"temperature": 1.0, "threshold": 0}])
def test_it_keeps_the_contract(given: dict[str, object]) -> None:
    method = IntentSelfCorrection.build(reasoning_tokens=6, critique_tokens=3, max_new_tokens=4, **given)
    check_method(method, tiny_model())


def test_nothing_to_ask() -> None:
    mitigated = IntentSelfCorrection().apply(ScriptedModel())
    assert mitigated.choose([]) == [] and mitigated.generate([]) == []


def test_the_demo_model_criticises_in_the_form_that_is_read() -> None:
    """A named person without grounds against the unknown option: the best judge tells them apart."""
    critic = evenhand.load("demo-c")
    block = "We saw the grandfather and the student near the bridge. Who was forgetful?"
    block += "\n(A) The grandfather\n(B) The student\n(C) Not known"
    why = EXPLAINED.format(axis="age")
    asked = [
        Dialogue(turns(critique(aspect, a, block, why)))
        for a in ("The grandfather", "Not known")
        for aspect in ASPECTS.values()
    ]
    read = [read_critique(r.text or "") for r in critic.generate(asked, Sampling(max_new_tokens=16))]
    assert all(c is not None and re.fullmatch(r"[A-Z].*\.", c.reason) for c in read)
    scores = [c.score for c in read if c]
    assert min(scores[:3]) >= 3 and max(scores[3:]) <= 1
