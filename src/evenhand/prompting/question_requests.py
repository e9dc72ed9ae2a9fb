"""The request of the baseline prompt, "answer with a single letter", in the languages of question sets. All are ours.

If a language has a prompt pack, its request is the same, so that a method that writes the turn itself asks in the same
words.
"""

from __future__ import annotations

REQUESTS = {
    "ca": "Respon a la pregunta d'opció múltiple amb una sola lletra.",
    "de": "Beantworte die Multiple-Choice-Frage mit einem einzigen Buchstaben.",
    "es": "Responde a la pregunta de opción múltiple con una sola letra.",
    "ko": "다음 객관식 질문에 알파벳 한 글자로만 답하십시오.",
    "nl": "Beantwoord de meerkeuzevraag met één enkele letter.",
    "tr": "Çoktan seçmeli soruyu tek bir harfle yanıtla.",
    "zh": "请只用一个字母回答这道选择题。",
}
"""Requests by ISO 639-1 code; the English one is `evenhand.prompting.rendering.SINGLE_LETTER`."""
