"""Secrets in every spelling in which a server may send them back."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest

from evenhand.core.redaction import MASK, Redactor, is_distinct

KEY = 'sk-very/secret+"0123456789"'


def spelled(key: str) -> dict[str, str]:
    """What a server may make of a key."""
    return {
        "plain": f"key {key}.",
        "url": f"?key={quote(key)}",
        "url, strict": f"?key={quote(key, safe='')}&x",
        "url, form": quote_plus(key),
        "url, small": quote(key, safe="").lower() if key.islower() else quote(key),
        "json": json.dumps({"key": key}),
        "json in json": json.dumps(json.dumps({"key": key})),
        "json with slashes": json.dumps(key).replace("/", "\\/"),
        "html": html.escape(key),
        "python": repr([key]),
    }


@pytest.mark.parametrize("form", spelled(KEY))
def test_every_spelling_is_masked(form: str) -> None:
    text = spelled(KEY)[form]
    for clean in (Redactor([KEY]).message(text), Redactor([KEY]).data(text)):
        assert MASK in clean and "0123456789" not in clean and "very" not in clean


@pytest.mark.parametrize("user", ["", "u", "us", "use", "someone"])
def test_basic_authentication_is_masked_for_any_user(user: str) -> None:
    for code in (base64.b64encode, base64.urlsafe_b64encode):
        for text in (f"{user}:{KEY}", f"{user}:{KEY}:", f"{KEY}:{user}"):
            coded = code(text.encode()).decode()
            clean = Redactor([KEY]).message(f"Basic {coded}")
            assert MASK in clean
            assert not any(coded[i : i + 8] in clean for i in range(12, len(coded) - 20))


def test_json_is_masked_however_it_spells_its_characters() -> None:
    spelled_out = "".join(f"\\u{ord(c):04x}" for c in KEY)
    content = f'{{"a": ["{spelled_out}", 1.5, null, true], "{spelled_out}": {{"b": "x{spelled_out}y"}}}}'.encode()
    clean = json.loads(Redactor([KEY]).content(content))
    assert clean == {"a": [MASK, 1.5, None, True], MASK: {"b": f"x{MASK}y"}}


def test_what_has_no_secret_stays_as_it_is() -> None:
    redactor = Redactor([KEY])
    for content in (b'{"a":  1}', b'{"a": "\\u00e9\\n"}', b"no json \xff", b""):
        assert redactor.content(content) == content
    assert Redactor([]).content(b"x") == b"x" and Redactor(["", "EMPTY"]).content(b'"EMPTY"') == b'"EMPTY"'


def test_json_that_is_too_deep_to_look_through_is_dropped() -> None:
    deep = b"[" * 100_000 + b'"\\u0073"' + b"]" * 100_000
    assert Redactor([KEY]).content(deep) == b""


def test_what_is_no_json_is_masked() -> None:
    assert Redactor([KEY]).content(f"<p>{KEY}</p>\xff".encode("latin-1")) == f"<p>{MASK}</p>�".encode()


def test_a_short_key_changes_no_answers_but_no_message_quotes_it() -> None:
    for short in ("A", "EMPTY", "password", "2024-02-01"):
        redactor = Redactor([short])
        assert redactor.data(f"The answer is {short}.") == f"The answer is {short}." and not is_distinct(short)
        assert redactor.message(f"refused: {short}") == f"refused: {MASK}"
    assert Redactor(["A"]).message("All A and BA") == f"All {MASK} and BA"
    assert is_distinct("abcd1234") and is_distinct("correcthorsebattery")
