"""The second language of demo-x: a cipher in which every word of the generator's language has a counterpart.

Every letter is replaced by another, vowels by vowels and consonants by consonants; other characters stay. So a sentence
has the same form in both languages without sharing a word, and what is planted in one can be planted in part in the
other.
"""

from __future__ import annotations

from typing import Literal

Language = Literal["english", "cipher"]
LANGUAGES: tuple[Language, ...] = ("english", "cipher")
VOWELS, CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxyz"
VOWELS_BY, CONSONANTS_BY = 2, 8
"""Places by which letters are rotated. With these, no word used for people has a meaning in both languages."""


def _turned(letters: str, by: int) -> str:
    return letters[by:] + letters[:by]


_PLAIN = VOWELS + CONSONANTS
_CIPHER = _turned(VOWELS, VOWELS_BY) + _turned(CONSONANTS, CONSONANTS_BY)
_THERE = str.maketrans(_PLAIN + _PLAIN.upper(), _CIPHER + _CIPHER.upper())
_BACK = str.maketrans(_CIPHER + _CIPHER.upper(), _PLAIN + _PLAIN.upper())


def encipher(text: str) -> str:
    """Translate an English text into the cipher."""
    return text.translate(_THERE)


def decipher(text: str) -> str:
    """Translate a text in the cipher into English."""
    return text.translate(_BACK)


def written(text: str, language: Language) -> str:
    """Translate an English text into a language."""
    return encipher(text) if language == "cipher" else text


def table_name(axis: str, language: Language) -> str:
    """Return the name of an axis in a language in tables of planted quantities: "Age", "Age in cipher"."""
    return axis if language == "english" else f"{axis} in {language}"
