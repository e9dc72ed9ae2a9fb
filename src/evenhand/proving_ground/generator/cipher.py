"""The second language of demo-x: a cipher in which every word of the generator's language has its counterpart.

Every letter stands for another one, vowels for vowels and consonants for consonants; what is not a letter stays. So a
sentence has the same form in both languages and shares no word, and what is planted in one can be planted in part in
the other.
"""

from __future__ import annotations

from typing import Literal

Language = Literal["english", "cipher"]
LANGUAGES: tuple[Language, ...] = ("english", "cipher")
VOWELS, CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxyz"
VOWELS_BY, CONSONANTS_BY = 2, 8
"""Places by which letters are turned. With these no word that is said of people means something in both languages."""


def _turned(letters: str, by: int) -> str:
    return letters[by:] + letters[:by]


_PLAIN = VOWELS + CONSONANTS
_CIPHER = _turned(VOWELS, VOWELS_BY) + _turned(CONSONANTS, CONSONANTS_BY)
_THERE = str.maketrans(_PLAIN + _PLAIN.upper(), _CIPHER + _CIPHER.upper())
_BACK = str.maketrans(_CIPHER + _CIPHER.upper(), _PLAIN + _PLAIN.upper())


def encipher(text: str) -> str:
    """An English text in the cipher."""
    return text.translate(_THERE)


def decipher(text: str) -> str:
    """A text of the cipher in English."""
    return text.translate(_BACK)


def written(text: str, language: Language) -> str:
    """An English text in a language."""
    return encipher(text) if language == "cipher" else text


def table_name(axis: str, language: Language) -> str:
    """What tables of planted quantities call an axis in a language: "Age", "Age in cipher"."""
    return axis if language == "english" else f"{axis} in {language}"
