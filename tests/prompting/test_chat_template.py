"""Every turn arrives, wherever the chat template has a place for it; prompts are the same on every day."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from tokenizers import processors

from evenhand.errors import SettingsError
from evenhand.interfaces import Dialogue, Message, Passage, Question
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_model, tiny_module, tiny_tokenizer
from evenhand.models.tokenization import Encoder
from evenhand.prompting import chat_template
from evenhand.prompting.rendering import dialogue_text

SYSTEM, HI, YES, WHO = (
    Message("system", "Be kind."),
    Message("user", "Hi"),
    Message("assistant", "Yes?"),
    Message("user", "Who?"),
)
TURNS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
HEAD = "{% if add_generation_prompt %}[assistant]{% endif %}"
TWO_ROLES = (  # nothing is said of a system, which so gets lost without a word
    "{% for m in messages %}{% if m['role'] == 'user' %}[user]{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}[assistant]{{ m['content'] }}{% endif %}{% endfor %}" + HEAD
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m['role'] }}]{{ m['content'] | trim }}{% endfor %}"
    + HEAD
)
LLAMA2 = (  # no generation prompt: the reply follows the closing bracket
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }} </s>{% endif %}{% endfor %}"
)
MISTRAL = (  # the system's text is put into the last user turn
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST]{% if loop.last and messages[0]['role'] == 'system' %}"
    "{{ messages[0]['content'] + '\\n\\n' }}{% endif %}{{ m['content'] }}[/INST]{% elif m['role'] == 'assistant' %}"
    " {{ m['content'] }}</s>{% endif %}{% endfor %}"
)


def tokenizer_with(template: str | None) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def text(template: str, *messages: Message) -> str:
    return dialogue_text(Dialogue(messages), tokenizer_with(template))


# ------------------------------------------------------------------------------------------------ the system's turn


@pytest.mark.parametrize("template", [TWO_ROLES, GEMMA])
def test_a_system_turn_without_a_place_opens_the_users(template: str) -> None:
    assert text(template, SYSTEM, HI) == "[user]Be kind.\n\nHi[assistant]"
    assert text(template, SYSTEM, HI, YES, WHO) == "[user]Be kind.\n\nHi[assistant]Yes?[user]Who?[assistant]"
    assert text(template, HI, YES, SYSTEM, WHO) == "[user]Hi[assistant]Yes?[user]Be kind.\n\nWho?[assistant]"
    assert "opens the user's turn" in chat_template.facts(tokenizer_with(template))["system_turn"]


@pytest.mark.parametrize("talk", [(SYSTEM,), (SYSTEM, YES, WHO), (HI, SYSTEM)])
def test_a_system_turn_that_no_user_turn_follows_is_refused(talk: tuple[Message, ...]) -> None:
    with pytest.raises(SettingsError, match=r"no place for a system turn.*'Be kind\.'"):
        text(TWO_ROLES, *talk)


def test_a_system_turn_that_arrives_stays_where_the_template_puts_it() -> None:
    assert text(TURNS + HEAD, SYSTEM, HI) == "[system]Be kind.[user]Hi[assistant]"
    assert text(MISTRAL, SYSTEM, HI, YES, WHO) == "[INST]Hi[/INST] Yes?</s>[INST]Be kind.\n\nWho?[/INST]"
    assert chat_template.facts(tokenizer_with(TURNS + HEAD)) == chat_template.facts(tokenizer_with(MISTRAL)) == {}


def test_an_instruction_in_the_systems_turn_changes_the_answer() -> None:
    """With a template of two roles, both prompts were the same."""
    tokenizer = tokenizer_with(TWO_ROLES)
    model = LocalModel(tiny_module(len(tokenizer)), tokenizer, name="tiny")
    question = Question("q", "Who was?", ("a", "b", "c"))
    told = [(HI,), (SYSTEM, HI)]
    one, other = model.choose([Question(**{**as_kwargs(question), "dialogue": Dialogue(t)}) for t in told])
    assert one.probabilities != other.probabilities
    assert model.facts()["system_turn"].startswith("opens")


def as_kwargs(question: Question) -> dict[str, Any]:
    return {"id": question.id, "question": question.question, "options": question.options}


# ----------------------------------------------------------------------------------------------- the other turns


@pytest.mark.parametrize(
    ("template", "talk", "lost"),
    [
        (TWO_ROLES.replace("[assistant]{{ m['content'] }}", ""), (HI, YES, WHO), "assistant"),
        (
            "{% for m in messages %}[{{ m['role'] }}]{% for c in m['content'] %}{{ c.text }}{% endfor %}{% endfor %}"
            + HEAD,
            (HI,),
            "user",
        ),  # as those of models that see: a content is a list of parts
    ],
)
def test_turns_that_get_lost_are_refused(template: str, talk: tuple[Message, ...], lost: str) -> None:
    with pytest.raises(SettingsError, match=f"drops the .*{lost}.* turns .*tokenizer.chat_template"):
        text(template, *talk)


def test_a_template_that_keeps_only_the_user_serves_a_single_turn() -> None:
    assert text(TWO_ROLES.replace("[assistant]{{ m['content'] }}", ""), HI) == "[user]Hi[assistant]"


# ------------------------------------------------------------------------------------------ the assistant's header


def test_a_header_that_the_template_leaves_out_is_read_off_a_dialogue() -> None:
    assert text(TURNS, SYSTEM, HI) == "[system]Be kind.[user]Hi[assistant]"
    assert text(TURNS, HI, YES, WHO) == "[user]Hi[assistant]Yes?[user]Who?[assistant]"
    facts = chat_template.facts(tokenizer_with(TURNS))
    assert facts == {"assistant_header": "'[assistant]' is added, as the chat template ignores add_generation_prompt"}
    lines = "{% for m in messages %}{{ m['role'] }}:\n{{ m['content'] }}\n\n{% endfor %}"
    assert text(lines, HI) == "user:\nHi\n\nassistant:\n"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (LLAMA2, "[INST] Hi [/INST]"),  # the blank before a reply is the model's to write
        (TURNS + "[assistant]", "[user]Hi[assistant]"),
        (
            "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>{{ '\n' }}",
            "<user>Hi\n<assistant>\n",
        ),
    ],
)
def test_a_template_that_needs_no_generation_prompt_is_left_alone(template: str, expected: str) -> None:
    assert text(template, HI) == expected
    assert "assistant_header" not in chat_template.facts(tokenizer_with(template))


def test_a_header_that_cannot_be_told_is_refused() -> None:
    untold = (
        "{% for m in messages %}{% if not loop.last or m['role'] == 'user' %}[{{ m['role'] }}]{{ m['content'] }}"
        "{% if messages | length == 1 %}[only]{% endif %}{% endif %}{% endfor %}"
    )
    with pytest.raises(SettingsError, match="ignores add_generation_prompt"):
        text(untold, HI)


# -------------------------------------------------------------------------------------------------------- the date

LLAMA3 = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '1 Jan 1970' %}{%- endif %}"
    "{%- endif %}{{- '[system]Today: ' + date_string }}" + TURNS + HEAD
)
GPT_OSS = (
    "{%- macro opening() -%}{{- 'Current date: ' + strftime_now('%Y-%m-%d') + '\n' }}{%- endmacro -%}"
    "{{- opening() }}" + TURNS + HEAD
)
PARTS = "{{ strftime_now('%A, %B %-d, %H:%M %p, 100%%') }}" + TURNS + HEAD


@pytest.mark.parametrize(
    ("template", "start"),
    [
        (LLAMA3, "[system]Today: 26 Jul 2024[user]Hi"),
        (GPT_OSS, "Current date: 2024-07-26\n[user]Hi"),
        (PARTS, "Friday, July 26, 12:00 PM, 100%[user]Hi"),
        ("\n  {% if strftime_now %}{% endif %}" + TURNS + HEAD, None),  # blanks before it stay as they are
    ],
)
def test_a_template_prints_the_same_date_every_day(template: str, start: str | None) -> None:
    written = text(template, HI)
    if start is None:
        plain = tokenizer_with(template.replace("strftime_now", "true"))
        assert written == dialogue_text(Dialogue((HI,)), plain)
        assert "prompt_date" not in chat_template.facts(tokenizer_with(template))
    else:
        assert written == start + "[assistant]"
        assert chat_template.facts(tokenizer_with(template)) == {"prompt_date": "2024-07-26, whatever the day"}


def test_the_macro_is_what_python_would_print() -> None:
    then = datetime(2031, 3, 5, 16, 7, 9)
    form = "%a %A %b %B %d %e %H %I %j %m %M %p %S %u %y %Y %-d %-m %F %T %%"
    tokenizer = tokenizer_with("{{ strftime_now('" + form + "') }}")
    assert chat_template.rendered(tokenizer, [HI], date=then) == then.strftime(form)


def test_the_date_is_in_a_models_facts() -> None:
    tokenizer = tokenizer_with(GPT_OSS)
    model = LocalModel(tiny_module(len(tokenizer)), tokenizer, name="tiny")
    assert model.facts()["prompt_date"] == "2024-07-26, whatever the day"
    assert "prompt_date" not in tiny_model().facts()


def test_a_template_is_tried_once_until_it_changes() -> None:
    tokenizer = tokenizer_with(TURNS)
    first = chat_template.probed(tokenizer)
    assert chat_template.probed(tokenizer) is first
    tokenizer.chat_template = TWO_ROLES
    assert first.keeps_system and not chat_template.probed(tokenizer).keeps_system


# ------------------------------------------------------------------------------------------------ special tokens


def opening_with(single: str, *tokens: str) -> Any:
    tokenizer = tiny_tokenizer(chat=False)
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    ids = [(t, tokenizer.convert_tokens_to_ids(t)) for t in tokens]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    return tokenizer


@pytest.mark.parametrize(
    ("single", "opening"),
    [
        ("<a> <b> $A", ["<a>", "<b>"]),
        ("<a> <b> $A </s>", ["<a>", "<b>"]),
        ("<a> $A <b>", ["<a>"]),
        ("<a> <a> $A", ["<a>", "<a>"]),
        ("</s> $A </s>", ["</s>"]),  # as OPT's
        ("$A </s>", []),  # as T5's
        ("$A", []),
    ],
)
def test_all_tokens_that_the_tokenizer_itself_puts_first_are_kept(single: str, opening: list[str]) -> None:
    tokenizer = opening_with(single, "<a>", "<b>", "</s>")
    encoder = Encoder(tokenizer)
    expected = tokenizer.convert_tokens_to_ids(opening)
    assert encoder.opening == expected
    words = tokenizer("Who was", add_special_tokens=False).input_ids
    assert encoder.plain(["Who was"]) == encoder.prompted(["Who was"]) == [[*expected, *words]]


@pytest.mark.parametrize("written", ["", "<a><b>", "<a>", "<b>"])
def test_a_template_that_writes_a_part_of_the_opening_gets_the_rest(written: str) -> None:
    tokenizer = opening_with("<a> <b> $A", "<a>", "<b>")
    tokenizer.chat_template = written + TURNS + HEAD
    encoder = Encoder(tokenizer)
    ids = encoder.prompted(encoder.dialogue_texts([Dialogue((HI,))]))[0]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert tokens[:2] == ["<a>", "<b>"] and tokens[2] not in ("<a>", "<b>")


def test_a_score_counts_from_all_of_the_opening() -> None:
    tokenizer = opening_with("<a> <b> $A", "<a>", "<b>")
    model = LocalModel(tiny_module(len(tokenizer)), tokenizer, name="tiny")
    import torch

    ids = tokenizer("Who was not").input_ids
    assert tokenizer.convert_ids_to_tokens(ids)[:2] == ["<a>", "<b>"]
    with torch.no_grad():
        logprobs = model.weights.module(torch.tensor([ids])).logits[0].log_softmax(-1)
    wanted = sum(float(logprobs[i - 1, ids[i]]) for i in range(2, len(ids)))
    got = model.score([Passage("Who was not")])[0]
    assert got.logprob == pytest.approx(wanted, rel=1e-4) and got.tokens == 3
