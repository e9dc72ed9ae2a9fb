"""Where a thought ends and an answer begins, in replies, prompts, limits, histories and records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from evenhand.core.registry import build_benchmark, build_method
from evenhand.evaluation.gpqa import base_prompt
from evenhand.inference import Generated, Prompt
from evenhand.interfaces import Choice, Dialogue, Message, Question, Reply, Sampling, Usage
from evenhand.models.asking import CHOICE_SAMPLING
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.prompting import thinking
from evenhand.prompting.multi_turn import write_then_choose, write_then_write
from evenhand.prompting.rendering import as_dialogue, dialogue_text, parse_choice
from evenhand.prompting.thinking import HARMONY, THINK, Style, answer, closed, divided, is_cut, parts
from evenhand.testing import ScriptedModel

CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
HEAD = "{% if add_generation_prompt %}<assistant>"
SWITCHED = (  # as Qwen3's: the model opens its thought itself, and a variable closes an empty one
    CHAT + HEAD + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
OPENED = CHAT + HEAD + "<think>\n{% endif %}"  # as DeepSeek-R1's
OPENED_SWITCHED = (  # as Qwen3.5's
    CHAT + HEAD + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)
OFF = (  # as the small Qwen3.5's and, with another variable, Granite's: off unless it is asked for
    CHAT + HEAD + "{% if enable_thinking is defined and enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
OFF_QUIETLY = CHAT + HEAD + "{% if thinking %}<think>{% endif %}{% endif %}{# </think> #}"
HISTORY = (  # as QwQ's: it knows thoughts in the history only
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'].split('</think>')[-1] }}<end>{% endfor %}"
    + HEAD
    + "{% endif %}"
)
CHANNELS = (  # as gpt-oss's
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|start|>assistant<|channel|>final<|message|>"
    "{% else %}<|start|>{{ m['role'] }}<|message|>{% endif %}{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}{# <|channel|>analysis<|message|> #}"
)
MISTRAL = CHAT + HEAD + "[THINK]{% endif %}{# [/THINK] #}"  # as Magistral's, whose marks are special tokens
MARKED = ("<think>", "</think>", "[THINK]", "[/THINK]", "<|start|>", "<|end|>", "<|message|>", "<|channel|>")

QUESTION = Question("q", "Who was loud?", ("the cat", "the dog", "not known"))
LIMIT = CHOICE_SAMPLING.max_new_tokens
TALK = Dialogue((Message("user", "Who?"),))


def tokenizer_with(template: str, *, special: bool = False) -> Any:
    tokenizer = tiny_tokenizer(("the cat dog was loud known analysis final assistant hence",))
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(MARKED)})
    else:
        tokenizer.add_tokens(list(MARKED))
    tokenizer.chat_template = template
    return tokenizer


def local(template: str, **options: Any) -> LocalModel:
    tokenizer = tokenizer_with(template)
    return LocalModel(tiny_module(len(tokenizer)), tokenizer, name="tiny", **options)


class Pen:
    """An engine that writes what it is told, token by token, and knows its limit."""

    def __init__(self, tokenizer: Any, texts: Callable[[int], str]) -> None:
        self.tokenizer, self.texts, self.asked, self.sampling = tokenizer, texts, list[Prompt](), list[Sampling]()

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, fingerprint: str) -> list[Generated]:
        out = []
        for prompt in prompts:
            ids = self.tokenizer(self.texts(len(self.asked)), add_special_tokens=False).input_ids
            kept = ids[: sampling.max_new_tokens]
            self.asked.append(prompt)
            self.sampling.append(sampling)
            text = self.tokenizer.decode(kept, skip_special_tokens=True)
            out.append(Generated(tuple(kept), text, finished=len(kept) == len(ids)))
        return out


def writing(template: str, *texts: str, special: bool = False) -> tuple[LocalModel, Pen]:
    tokenizer = tokenizer_with(template, special=special)
    model = LocalModel(tiny_module(len(tokenizer)), tokenizer, name="tiny", answer_by="generation")
    pen = Pen(tokenizer, lambda n: texts[n % len(texts)])
    model.engine = pen  # type: ignore[assignment]
    return model, pen


# ------------------------------------------------------------------------------------------------ finished replies


@pytest.mark.parametrize(
    ("reply", "thought", "said"),
    [
        ("B", "", "B"),
        ("<think>A or C.</think>B", "A or C.", "B"),
        ("A or C.</think> B", "A or C.", "B"),  # the template had opened it
        ("A.</think> or C.</think> B", "A.</think> or C.", "B"),
        ("<think>A</think>B<think>C</think>", "A\n\nC", "B"),
        ("<think>A <think>or</think> C</think>B", "A <think>or\n\nC", "B"),
        ("<think>\n\n</think>\n\nB", "", "B"),
        ("<think>The answer is A", "The answer is A", None),
        ("B <think>or A", "or A", None),
        ("<think>A</think>B<think>C", "A\n\nC", None),
        ("<THINK>A</Think>B", "A", "B"),
        ("<thinking>A</thinking>B", "A", "B"),
        ("[THINK]A[/THINK]B", "A", "B"),
        ("<seed:think>A</seed:think>B", "A", "B"),
        ("<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>final<|message|>B", "A", "B"),
        ("<|channel|>analysis<|message|>A or", "A or", None),
        ("I think (B).", "", "I think (B)."),
        ("", "", ""),
    ],
)
def test_a_reply_is_taken_apart(reply: str, thought: str, said: str | None) -> None:
    assert parts(reply) == (thought, said)
    assert answer(reply) == (said or "") and is_cut(reply) is (said is None)


@pytest.mark.parametrize("reply", ["<think>The answer is (A).", "B <think>or (A)", "[THINK]The answer is (A)."])
def test_a_thought_that_never_ended_is_undecided(reply: str) -> None:
    assert parse_choice(reply, QUESTION) is None


# ----------------------------------------------------------------------------------------------------- the prompt


@pytest.mark.parametrize(
    ("template", "style", "thinks", "answers"),
    [
        (SWITCHED, Style(THINK, False, "enable_thinking"), "", "<think>\n\n</think>\n\n"),
        (OPENED, Style(THINK, True), "<think>\n", "<think>\n\n</think>\n\n"),
        (OPENED.replace("<think>\n", "<think>"), Style(THINK, True), "<think>", "<think>\n\n</think>\n\n"),
        (OPENED_SWITCHED, Style(THINK, True, "enable_thinking"), "<think>\n", "<think>\n\n</think>\n\n"),
        (HISTORY, Style(THINK, False), "", "<think>\n\n</think>\n\n"),
        (MISTRAL, Style(thinking.MARKS[2], True), "[THINK]", "[THINK]\n\n[/THINK]\n\n"),
        (OFF, None, "<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
        (OFF_QUIETLY, None, "", ""),
        (CHAT + HEAD + "</think>{% endif %}", None, "</think>", "</think>"),  # as DeepSeek-V3.1's
        (CHAT + HEAD + "{% endif %}", None, "", ""),
    ],
)
def test_the_answer_comes_after_a_closed_thought(template: str, style: Any, thinks: str, answers: str) -> None:
    tokenizer = tokenizer_with(template)
    head = "<user>Who?<end><assistant>"
    assert dialogue_text(TALK, tokenizer, think=True) == head + thinks
    assert dialogue_text(TALK, tokenizer) == head + answers
    assert LocalModel(tiny_module(len(tokenizer)), tokenizer, name="tiny")._encoder.style == style


def test_the_answer_of_channels_is_in_the_last_of_them() -> None:
    tokenizer = tokenizer_with(CHANNELS)
    head = "<|start|>user<|message|>Who?<|end|><|start|>assistant"
    assert dialogue_text(TALK, tokenizer, think=True) == head
    assert dialogue_text(TALK, tokenizer) == head + "<|channel|>final<|message|>"


def test_what_is_closed_is_not_closed_again() -> None:
    assert closed("a<think>\n\n</think>\n\n", THINK) == "a<think>\n\n</think>\n\n"
    assert closed("a<|channel|>final<|message|>", HARMONY) == "a<|channel|>final<|message|>"


@pytest.mark.parametrize("template", [SWITCHED, OPENED, OPENED_SWITCHED, HISTORY])
@pytest.mark.parametrize("answer_by", ["letters", "text", "text_per_token"])
def test_letters_and_texts_are_read_after_a_closed_thought(template: str, answer_by: Any) -> None:
    """The same weights with a template that does nothing but close the thought."""
    plain = CHAT + HEAD + "<think>\n\n</think>\n\n{% endif %}"
    model, expected = local(template, answer_by=answer_by), local(plain, answer_by=answer_by)
    (got,), (want,) = model.choose([QUESTION]), expected.choose([QUESTION])
    assert got.probabilities == pytest.approx(want.probabilities, rel=1e-6) and got.decision == want.decision


# ----------------------------------------------------------------------------------------------------- the limits


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (OPENED, "the cat </think> the dog"),
        (OPENED_SWITCHED, "the cat </think> the dog"),
        (SWITCHED, "<think> the cat </think> the dog"),
        (HISTORY, "<think> the cat </think> the dog"),
    ],
)
def test_a_reply_keeps_its_thought_whoever_opened_it(template: str, written: str) -> None:
    model, pen = writing(template, written)
    reply = model.generate([TALK], Sampling(max_new_tokens=2))[0]
    assert reply.text == "<think>\nthe cat\n</think>\n\nthe dog" and reply.finished and reply.note == ""
    assert reply.usage.new_tokens == len(pen.tokenizer(written, add_special_tokens=False).input_ids)
    assert model.choose([QUESTION])[0].decision == 1


class Letters:
    """A decoder of one character per token, in which capital letters A to H are special marks."""

    marks: ClassVar = dict(
        A="<think>",
        B="</think>",
        C="<|channel|>",
        D="<|message|>",
        E="<|end|>",
        F="<|start|>",
        G="[THINK]",
        H="[/THINK]",
    )

    def __call__(self, ids: Sequence[int], skip: bool) -> str:
        return "".join(("" if skip else self.marks[c]) if c in self.marks else c for c in map(chr, ids))


def divide(written: str, style: Style, thought: int = 99, answer: int = 99, **options: Any) -> Any:
    given = {"finished": True, **options}
    return divided([*map(ord, written)], Letters(), style, thought_limit=thought, answer_limit=answer, **given)


CLOSED = "<think>\nthe cat\n</think>\n\nthe dog"


@pytest.mark.parametrize(
    ("written", "style"),
    [
        ("the catBthe dog", Style(THINK, True)),
        ("Athe catBthe dog", Style(THINK, False)),
        ("the catBthe dog", Style(THINK, False)),  # the closing mark alone
        ("the catHthe dog", Style(thinking.MARKS[2], True)),  # marks that decoding would drop
        ("CanalysisDthe catEFassistantCfinalDthe dog", Style(HARMONY, False)),
    ],
)
def test_special_marks_are_seen_before_they_are_dropped(written: str, style: Style) -> None:
    assert divide(written, style) == (CLOSED, True, "")


def test_an_answer_without_a_thought_stays_as_it_is() -> None:
    assert divide("the dog", Style(THINK, False)) == ("the dog", True, "")
    assert divide("the dog", Style(THINK, False), answer=3) == ("the", False, "")
    assert divide("CfinalDthe dog", Style(HARMONY, False)).text.endswith("</think>\n\nthe dog")


@pytest.mark.parametrize("style", [Style(THINK, True), Style(THINK, False)])
def test_thought_and_answer_have_limits_of_their_own(style: Style) -> None:
    opening = "" if style.opened else "A"
    assert divide(f"{opening}thoughtBthe dog", style, answer=3) == ("<think>\nthought\n</think>\n\nthe", False, "")
    assert divide(f"{opening}thoughtBthe dog", style, thought=9, answer=7).finished
    cut = divide(f"{opening}thought A is rightBB", style, thought=9, finished=False)
    assert is_cut(cut.text) and not cut.finished and cut.note == "undecided: the thought was cut at 9 tokens"
    ended = divide(f"{opening}A, I think", style)  # the model ended its turn within the thought
    assert is_cut(ended.text) and not ended.finished and ended.note == "undecided: the thought never ended"


def test_stop_strings_end_the_answer_not_the_thought() -> None:
    got = divide("one\ntwoBthree\nfour", Style(THINK, True), stop=("\n",))
    assert got == ("<think>\none\ntwo\n</think>\n\nthree", True, "")


def test_a_thought_that_is_cut_is_undecided_and_says_so() -> None:
    model, pen = writing(OPENED, "the answer is ( A ) . " * 20, "the cat </think> the dog")
    model.thinking_tokens = 12
    cut, right = model.choose([QUESTION, replace(QUESTION, context="Once.")])
    assert (cut.decision, cut.status) == (None, "unparsed") and cut.reply.startswith("<think>\nthe answer")
    assert right.decision == 1 and right.usage.new_tokens == 5
    assert {s.max_new_tokens for s in pen.sampling} == {12 + LIMIT}, "one limit for the thought, one for the answer"
    assert cut.usage.new_tokens == 12 + LIMIT, "what was written is paid for, used or not"


def test_a_thought_gets_what_the_context_leaves() -> None:
    model, pen = writing(OPENED, "the cat </think> the dog")
    assert model.context_length == 1024 and model.thinking_tokens == 4096
    assert model.choose([QUESTION])[0].decision == 1
    assert pen.sampling[0].max_new_tokens == 768 + LIMIT, "a multiple of 256, so that prompts share a batch"


def test_another_limit_asks_anew() -> None:
    """What a run has stored is found by `asking`; the default is left out, so that older runs stay valid."""
    model = local(OPENED)
    before = model.asking
    model.thinking_tokens = 99
    assert "thinking_tokens" not in before and model.asking == {**before, "thinking_tokens": 99}
    plain = local(CHAT + HEAD + "{% endif %}")
    plain.thinking_tokens = 99
    assert "thinking_tokens" not in plain.asking


def test_no_room_for_a_thought_has_it_closed() -> None:
    model, pen = writing(OPENED, "the dog")
    model.thinking_tokens = 0
    assert model.choose([QUESTION])[0].reply == "the dog" and pen.sampling[0].max_new_tokens == LIMIT
    assert pen.tokenizer.decode(pen.asked[0].ids).rstrip().endswith("</think>")
    assert model.facts()["thinking"]["written_replies"] == "without a thought"


def test_facts_say_how_a_model_thinks() -> None:
    assert local(SWITCHED).facts()["thinking"] == {
        "written_replies": "after a thought of at most 4096 tokens",
        "letters_and_texts": "without a thought (template variable enable_thinking=False)",
    }
    assert "empty thought" in local(OPENED).facts()["thinking"]["letters_and_texts"]
    assert "thinking" not in local(CHAT + HEAD + "{% endif %}").facts()


# ----------------------------------------------------------------------------------------- histories and records


def test_later_turns_never_see_a_thought_and_the_record_keeps_it() -> None:
    model = ScriptedModel(reply=lambda d: "<think>A man, so A.</think>B relies on age.", decide=lambda q: 1)
    asked = [as_dialogue(QUESTION, "letters")]
    (got,) = write_then_choose(
        model, [QUESTION], asked, lambda i, d: d.user("So?"), Sampling(), Sampling(max_new_tokens=1)
    )
    shown = asked[0].assistant("B relies on age.").user("So?")
    assert [q.dialogue for q in model.questions] == [shown]
    assert [m.content for m in got.before[1:]] == ["<think>A man, so A.</think>B relies on age.", "So?"]


def test_a_turn_whose_thought_never_ended_ends_the_conversation() -> None:
    model = ScriptedModel(reply=lambda d: "<think>Hm" if d == TALK else "x</think>Fine.")
    other = Dialogue((Message("user", "And who?"),))
    first, second = write_then_write(model, [TALK, other], lambda i, d: d.user("So?"), Sampling(), Sampling())
    assert first.text is None and not first.finished and first.note == "undecided: the thought never ended"
    assert first.before == (*TALK.messages, Message("assistant", "<think>Hm"))
    assert model.dialogues[2:] == [other.assistant("Fine.").user("So?")]
    assert second.text == "x</think>Fine." and second.before[1].content == "x</think>Fine."


class Aloud(ScriptedModel):
    """Chooses by a written reply with a thought."""

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.questions += questions
        out = []
        for q in questions:
            reply = self.reply(q.dialogue or as_dialogue(q, "generation")) or ""
            decision = parse_choice(reply, q)
            status: Any = "unparsed" if decision is None else "answered"
            out.append(Choice(decision, status=status, reply=reply, usage=Usage(1)))
        return out


@pytest.mark.parametrize("spec", ["self_debias", "self_debias(variant=explanation)", "moral_self_correction"])
def test_methods_put_no_thought_back(spec: str) -> None:
    model = Aloud(reply=lambda d: "<think>(A)? No.</think>(B)")
    (got,) = applied(spec, model)
    shown = [*model.dialogues, *(q.dialogue for q in model.questions if q.dialogue)]
    assert len(shown) and not any("think>" in m.content for d in shown for m in d.messages)
    assert got.decision == 1 and any("<think>(A)? No.</think>(B)" in m.content for m in got.before)


def applied(spec: str, model: Any) -> list[Choice]:
    return build_method(spec).apply(model).choose([QUESTION])


def test_a_first_answer_that_is_cut_is_not_followed_up() -> None:
    model = Aloud(reply=lambda d: "<think>(A)")
    (got,) = applied("self_debias", model)
    assert (got.decision, got.reply, got.usage.calls) == (None, "<think>(A)", 1)


def test_a_critic_is_shown_no_thought() -> None:
    def reply(dialogue: Dialogue) -> str:
        return (
            "<think>3?</think>4 Unfair."
            if "Rate from" in dialogue.messages[-1].content
            else ("<think>secret</think>(B)")
        )

    model = Aloud(reply=reply)
    (got,) = applied("intent_self_correction", model)
    assert not any("think>" in m.content for d in model.dialogues for m in d.messages)
    assert sum("<think>secret</think>(B)" in m.content for m in got.before) >= 2, "reasoning and first answer"


def test_a_reply_from_a_server_is_read_alike() -> None:
    assert parse_choice("The cat? (A)? No.</think>\n\n(B)", QUESTION) == 1
    assert Reply("<think>x").text is not None


# -------------------------------------------------------------------------------------------------- the benchmarks


def always_right(bench: Any, end: str = "</think>") -> list[str]:
    """Replies that weigh a wrong option in the thought and then give the right one."""
    out = []
    for item in bench.load():
        wrong, right = "ABCD"[(item.right + 1) % 4], "ABCD"[item.right]
        out.append(f"<think>Maybe the correct answer is ({wrong}).{end}The correct answer is ({right}).")
    return out


@pytest.mark.parametrize("asked", ["zero_shot", "zero_shot_cot"])
def test_gpqa_reads_the_answer_and_not_the_thought(asked: str) -> None:
    bench = build_benchmark(f"gpqa(source=demo,asked={asked})")
    asks = [base_prompt(i.question.question, i.question.options) for i in bench.load()]
    said = dict(zip(asks, always_right(bench), strict=True))

    def reply(dialogue: Dialogue) -> str:
        return next(said[a] for a in asks if a in dialogue.messages[-1].content)

    model = ScriptedModel(reply=reply)
    answers = bench.ask(model, bench.load())
    assert all(a.decision == i.right for a, i in zip(answers, bench.load(), strict=True))
    assert not any("Maybe" in m.content for d in model.dialogues for m in d.messages)


def test_gpqa_leaves_a_cut_thought_undecided() -> None:
    bench = build_benchmark("gpqa(source=demo,asked=zero_shot_cot)")
    model = ScriptedModel(reply=lambda d: "<think>The correct answer is (A).")
    answers = bench.ask(model, bench.load()[:3])
    assert {(a.decision, a.status, a.usage.calls) for a in answers} == {(None, "unparsed", 1)}


def test_b_score_ends_a_conversation_whose_thought_never_ended() -> None:
    bench = build_benchmark("b_score(source=demo,n_single=1,n_turns=3,runs=1)")
    model = ScriptedModel(reply=lambda d: "<think>{{red}}" if len(d.messages) == 3 else "x</think>{{red}}")
    (answer_,) = bench.ask(model, bench.load()[:1])
    assert [s.reply for s in answer_.multi[0]] == ["x</think>{{red}}", "<think>{{red}}", None]
    assert not any("think" in m.content for d in model.dialogues for m in d.messages)


# ----------------------------------------------------------------------------------------- guided and trained models


def test_a_model_behind_prefixes_writes_and_chooses_without_a_thought() -> None:
    model = local(OPENED)
    guided = model.behind(["Once"], lambda logprobs: logprobs[:, 0], "first")
    assert guided.facts()["thinking"]["written_replies"] == "without a thought"
    closing = LocalModel(
        model.weights.module, tokenizer_with(CHAT + HEAD + "<think>\n\n</think>\n\n{% endif %}"), name="x"
    )
    talk, sampling = [TALK], Sampling(max_new_tokens=6)
    assert guided.generate(talk, sampling)[0].text == closing.generate(talk, sampling)[0].text
    (one,), (other,) = guided.choose([QUESTION]), closing.choose([QUESTION])
    assert one.probabilities == pytest.approx(other.probabilities, rel=1e-5)


def test_a_lesson_is_learned_after_a_closed_thought_and_on_the_frozen_day() -> None:
    from evenhand.methods.adjudication._training import Lesson, encode

    dated = "{{ strftime_now('%Y') }}" + CHAT + "{% if add_generation_prompt %}<assistant>{% endif %}"
    for template in (dated, OPENED):
        tokenizer = tokenizer_with(template)
        encoded = encode(tokenizer, Lesson(TALK, "the dog"))
        head = tokenizer(dialogue_text(TALK, tokenizer), add_special_tokens=False).input_ids
        assert encoded.prompt[-len(head) :] == head
        assert tokenizer.decode(encoded.answer).startswith("the dog")
    assert "<end>" in tokenizer_with(dated).decode(encode(tokenizer_with(dated), Lesson(TALK, "the dog")).answer)


def test_the_limit_of_a_thought_is_an_option_of_loading(tmp_path: Path) -> None:
    from evenhand import load
    from evenhand.errors import SettingsError
    from evenhand.models.tiny import tiny_model

    folder = tiny_model(name="thinker").save(tmp_path / "thinker")
    assert load(folder, thinking_tokens=0).thinking_tokens == 0
    assert load(f"{folder}(thinking_tokens=7)").thinking_tokens == 7
    for wrong in (-1, True, 1.5):
        with pytest.raises(SettingsError, match="thinking_tokens"):
            load(folder, thinking_tokens=wrong)
