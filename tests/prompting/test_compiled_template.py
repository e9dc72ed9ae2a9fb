"""Many dialogues are written as transformers writes each, by a template that is compiled once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from jinja2 import Template
from jinja2.exceptions import SecurityError

from evenhand.errors import SettingsError
from evenhand.interfaces import Dialogue, Message
from evenhand.models.tiny import tiny_tokenizer
from evenhand.prompting import chat_template, compiled_template
from evenhand.prompting.rendering import dialogue_texts

TURNS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
HEAD = "{% if add_generation_prompt %}[assistant]{% endif %}"
TEMPLATES = {
    "plain": TURNS + HEAD,
    "trimmed": "{{ bos_token }}{% for m in messages %}\n  {%- set c = m.content | trim %}\n<{{ m.role }}>{{ c }}\n"
    "{% endfor %}\n" + HEAD,
    "generation": "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}" + HEAD,
    "tools": "{% if tools is none %}none{% elif tools is defined %}some{% endif %}{{ documents }}" + TURNS + HEAD,
    "dated": "{{ strftime_now('%d %b %Y') }}" + TURNS + HEAD,
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{{ ns.n }}{{ m | tojson }}{% if loop.last %}{% break %}{% endif %}{% endfor %}" + HEAD,
    "macro": "{% macro say(m) %}<{{ m.role }}>{{ m.content }}{% endmacro %}"
    "{% for m in messages %}{{ say(m) }}{% endfor %}{{ dict(a=1) }}{{ missing is defined }}" + HEAD,
    "thinking": TURNS + HEAD + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}",
}
TEXTS = ("Hi", "  two\n\nlines <b>&amp;</b>\t", "{{ messages }} {% if %}", '‘quoted’ \\ "it" \ue000', "", "<s>[INST]")


def talks(texts: tuple[str, ...] = TEXTS) -> list[list[Message]]:
    one = [[Message("user", text)] for text in texts]
    return one + [[Message("user", "A"), Message("assistant", t), Message("user", t * 2)] for t in texts]


def tokenizer_with(template: str) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("name", TEMPLATES)
def test_many_dialogues_are_written_as_one_by_one(name: str) -> None:
    tokenizer = tokenizer_with(TEMPLATES[name])
    apart = [chat_template.rendered(tokenizer, messages) for messages in talks()]
    assert chat_template.all_rendered(tokenizer, talks()) == apart
    source = (
        TEMPLATES[name] if name != "dated" else f"{chat_template._calendar(chat_template.FROZEN)}\n{TEMPLATES[name]}"
    )
    assert compiled_template.written(tokenizer, talks(), {"add_generation_prompt": True}, source) == apart
    without = [chat_template.rendered(tokenizer, messages, add_generation_prompt=False) for messages in talks()]
    assert chat_template.all_rendered(tokenizer, talks(), add_generation_prompt=False) == without != apart


def test_a_known_text_and_a_variable() -> None:
    tokenizer = tokenizer_with(TEMPLATES["thinking"])
    many = [[Message("user", f"{n}")] for n in range(6)]
    assert chat_template.all_rendered(tokenizer, many) == [f"[user]{n}[assistant]" for n in range(6)]
    closed = chat_template.all_rendered(tokenizer, many, enable_thinking=False)
    assert closed == [f"[user]{n}[assistant]<think></think>" for n in range(6)]


def test_the_sandbox_and_the_proof_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, made, proven = tokenizer_with(TURNS + HEAD), list[str](), list[str]()
    laid_out, proof = compiled_template._laid_out, compiled_template._proven

    def counted_layout(*given: Any) -> Template | None:
        made.append(given[1])
        return laid_out(*given)

    def counted_proof(*given: Any) -> bool:
        proven.append(given[3])
        return proof(*given)

    monkeypatch.setattr(compiled_template, "_laid_out", counted_layout)
    monkeypatch.setattr(compiled_template, "_proven", counted_proof)
    for _ in range(3):
        chat_template.all_rendered(tokenizer, talks())
    assert made == proven == [TURNS + HEAD]
    tokenizer.chat_template = TURNS + "!" + HEAD
    assert chat_template.all_rendered(tokenizer, talks())[0] == "[user]Hi![assistant]"
    assert len(made) == 2


def test_transformers_copies_no_dialogue_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_with(TURNS + HEAD)
    chat_template.all_rendered(tokenizer, talks())  # proven here
    count, usual = [0], type(tokenizer).apply_chat_template

    def counted(self: Any, *given: Any, **options: Any) -> Any:
        count[0] += 1
        return usual(self, *given, **options)

    from transformers import PreTrainedTokenizerBase

    monkeypatch.setattr(PreTrainedTokenizerBase, "apply_chat_template", counted)
    chat_template.all_rendered(tokenizer, talks())
    assert count == [0]
    chat_template.all_rendered(tokenizer, talks()[:1])
    assert count == [1]


def test_a_tokenizer_with_a_way_of_its_own_keeps_it() -> None:
    class Own(type(tiny_tokenizer())):  # type: ignore[misc]
        def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
            found = super().apply_chat_template(conversation, **options)
            return [t.upper() for t in found] if isinstance(found, list) else found.upper()

    tokenizer = tokenizer_with(TURNS + HEAD)
    tokenizer.__class__ = Own
    assert chat_template.all_rendered(tokenizer, talks())[0] == "[USER]HI[ASSISTANT]"


@pytest.mark.parametrize(
    "change",
    [
        lambda template, messages, names: template.render({**names, "messages": []}),
        lambda template, messages, names: template.render(messages=[m._asdict() for m in messages]).replace("<b>", "b"),
    ],
)
def test_what_is_not_proven_equal_is_left_to_transformers(
    change: Callable[[Template, Any, Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = tokenizer_with(TURNS + HEAD)
    expected = [chat_template.rendered(tokenizer, messages) for messages in talks()]
    monkeypatch.setattr(compiled_template, "_one", change)
    assert compiled_template.written(tokenizer, talks(), {"add_generation_prompt": True}, TURNS + HEAD) is None
    assert chat_template.all_rendered(tokenizer, talks()) == expected


def test_special_tokens_in_lists_do_not_stand_in_the_way() -> None:
    """As a tokenizer with code of its own may have them."""

    class Listing(type(tiny_tokenizer())):  # type: ignore[misc]
        """A tokenizer with such a map."""

        @property
        def special_tokens_map(self) -> dict[str, Any]:
            return {**super().special_tokens_map, "additional_special_tokens": ["<one>", "<two>"]}

    tokenizer = tokenizer_with("{{ additional_special_tokens | join('+') }}" + TURNS + HEAD)
    tokenizer.__class__ = Listing
    many = [[Message("user", f"{n}<one>")] for n in range(6)]
    variables, source = {"add_generation_prompt": True}, str(tokenizer.chat_template)
    found = compiled_template.written(tokenizer, many, variables, source)
    assert found == [f"<one>+<two>[user]{n}<one>[assistant]" for n in range(6)]
    assert found == [chat_template.rendered(tokenizer, messages) for messages in many]


def test_what_is_no_plain_text_is_left_to_transformers() -> None:
    class Said(str):
        """A text with more than a text has."""

    tokenizer = tokenizer_with(TURNS + HEAD)
    many = [*talks(), [Message("user", Said("Hi"))]]
    assert compiled_template.written(tokenizer, many, {}, TURNS + HEAD) is None
    assert chat_template.all_rendered(tokenizer, many)[-1] == "[user]Hi[assistant]"
    assert compiled_template.written(tokenizer, talks(), {"more": [1]}, TURNS + HEAD) is None


def test_a_refusal_has_the_templates_words() -> None:
    refusing = (
        "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('never no') }}{% endif %}{% endfor %}"
    )
    tokenizer = tokenizer_with(refusing + TURNS + HEAD)
    many = [Dialogue((Message("user", text),)) for text in ("a", "b", "c", "d", "e", "no")]
    assert dialogue_texts(many[:5], tokenizer)[4] == "[user]e[assistant]"
    with pytest.raises(SettingsError, match="refuses this dialogue: never no"):
        dialogue_texts(many, tokenizer)


def test_templates_stay_in_the_sandbox() -> None:
    source = "{% for m in messages %}{% if m.content == 'x' %}{{ messages.append(m) }}{% endif %}{% endfor %}" + TURNS
    template = compiled_template._template(tokenizer_with(source), {}, source)
    assert template is not None
    assert compiled_template._one(template, [Message("user", "y")], {}) == "[user]y"
    with pytest.raises(SecurityError):
        compiled_template._one(template, [Message("user", "x")], {})
