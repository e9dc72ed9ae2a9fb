"""Redaction of secrets in everything stored or shown, in every spelling in which a server may send them back."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "[secret]"
_LONG = 16
"""Minimum length of a secret that is masked wherever it occurs."""
_MIXED = 8
"""Minimum length of such a secret if it has letters and other characters."""
_WORD = 6
"""Minimum length of a secret that is masked in a message even within a word."""


class Redactor:
    """Masks the secrets of one connection."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Prepare all spellings.

        Args:
            secrets: Keys, tokens, user names, passwords; empty ones are left out.
        """
        known = {secret for secret in secrets if secret}
        self._all = _longest_first(form for secret in known for form in spellings(secret))
        self._certain = _longest_first(form for secret in known if is_distinct(secret) for form in spellings(secret))
        self._bytes = [form.encode("utf-8", "replace") for form in self._certain]

    def message(self, text: str) -> str:
        """Mask all secrets in a message for screens, logs, notes and exceptions.

        A short secret is masked only as a whole word.
        """
        for secret in self._all:
            pattern = re.escape(secret)
            text = re.sub(pattern if len(secret) >= _WORD else rf"(?<!\w){pattern}(?!\w)", MASK, text)
        return text

    def data(self, text: str) -> str:
        """Mask secrets in a reply or a name.

        Only those are masked that no text contains by chance: a key such as "EMPTY" or "A", which servers on one's own
        machine take, would otherwise change answers.
        """
        for secret in self._certain:
            text = text.replace(secret, MASK)
        return text

    def content(self, content: bytes) -> bytes:
        """Mask secrets in what a server sent, as `data` does; JSON stays JSON, however its characters are written."""
        if not self._bytes:
            return content
        found = any(secret in content for secret in self._bytes)
        if not found and b"\\" not in content:
            return content
        try:
            parsed = json.loads(content)
            clean = self._cleaned(parsed)
            return content if clean == parsed and not found else json.dumps(clean).encode()
        except ValueError:
            return self.data(content.decode("utf-8", "replace")).encode() if found else content
        except RecursionError:  # it cannot be searched for secrets, so none of it is kept
            return b""

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.data(value)
        if isinstance(value, dict):
            return {self.data(name): self._cleaned(entry) for name, entry in value.items()}
        return [self._cleaned(entry) for entry in value] if isinstance(value, list) else value


def is_distinct(secret: str) -> bool:
    """Whether a secret is too distinct to occur in a text by chance."""
    mixed = any(c.isalpha() for c in secret) and not secret.isalpha()
    return len(secret) >= _LONG or (len(secret) >= _MIXED and mixed)


def spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and as URLs, JSON, HTML, Python and the header of basic authentication write it."""
    plain = unquote(secret)
    for form in dict.fromkeys((secret, plain)):
        yield form
        yield from (quote(form), quote(form, safe=""), quote_plus(form), html.escape(form), repr(form)[1:-1])
        for escaped in (json.dumps(form)[1:-1], json.dumps(form, ensure_ascii=False)[1:-1]):
            yield from (escaped, escaped.replace("/", "\\/"), json.dumps(escaped)[1:-1])
        if len(form) >= _MIXED:
            yield from _in_base64(form.encode("utf-8", "replace"))
    percent = quote(plain, safe="")
    yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), percent)


def _in_base64(secret: bytes) -> Iterator[str]:
    """Yield the base64 forms of a secret, whatever is before and after it, such as a user's name and a colon.

    Three bytes become four characters, so there are three alignments; characters that depend on neighbours are cut.
    """
    for before in range(3):
        whole = base64.b64encode(bytes(before) + secret).decode().rstrip("=")
        begin = (0, 2, 3)[before]
        end = (before + len(secret)) * 8 // 6
        inner = whole[begin:end]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))


def _longest_first(forms: Iterable[str]) -> list[str]:
    return sorted({form for form in forms if form}, key=lambda form: (-len(form), form))
