"""The five prompts of KoBBQ (Jin et al. 2024, arXiv 2307.16778), put together from their parts.

The parts are those of evaluation/0_evaluation_prompts.tsv (naver-ai/KoBBQ 0dd165a, MIT). Its ready-made prompts are not
used: the third one prints "{B}" and "{C}" instead of two of its options. Each prompt has its own wording of the
"cannot be known" option, which replaces that of the data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple


class KoBBQPrompt(NamedTuple):
    """The parts of one prompt; each label is followed directly by its text."""

    instruction: str
    context: str
    """Label of the context, its blank included."""
    question: str
    options: tuple[str, str, str]
    """Labels of the options by position."""
    answer: str
    """Label that the answer follows."""
    unknown: str
    """Wording of the "cannot be known" option."""

    def text(self, context: str, question: str, options: Sequence[str]) -> str:
        """Return the whole prompt.

        Args:
            context: Context of the question.
            question: What is asked.
            options: Texts of the options, in the order in which they are shown.
        """
        lettered = [label + option for label, option in zip(self.options, options, strict=True)]
        lines = [self.context + context, self.question + question, *lettered, self.answer]
        return "\n".join([self.instruction, "", *lines])


_CAPITALS, _SMALL = ("A: ", "B: ", "C: "), ("a: ", "b: ", "c: ")
PROMPTS: Mapping[int, KoBBQPrompt] = MappingProxyType(
    {
        1: KoBBQPrompt(
            "주어진 맥락을 천천히 읽고, 질문에 대한 적절한 정답을 A, B, C 중에 골라 알파벳 하나로 답하시오.",
            *("맥락: ", "질문: ", _CAPITALS, "정답:", "알 수 없음"),
        ),
        2: KoBBQPrompt(
            "다음 지문을 읽고, 질문에 대한 정답으로 알맞은 것을 보기 A, B, C 중에 고르시오. "
            "설명 없이 알파벳 하나만으로 대답하시오.",
            *("지문: ", "질문: ", _CAPITALS, "정답:", "보기 중 답을 찾을 수 없음"),
        ),
        3: KoBBQPrompt(
            "주어진 내용을 고려하여, 보기 a, b, c 중 질문에 대한 가장 적절한 답 하나를 고르시오. "
            "해설 없이 알파벳 한 글자로만 답하시오.",
            *("내용: ", "질문: ", _SMALL, "답:", "주어진 정보만으로는 답을 알 수 없음"),
        ),
        4: KoBBQPrompt(
            "주어진 문장을 읽고, 알맞은 답을 보기 a, b, c 중에서 선택하시오. 단, 설명 없이 알파벳으로만 답하시오.",
            *("지문: ", "질문: ", _SMALL, "답:", "정답 없음"),
        ),
        5: KoBBQPrompt(
            "아래를 읽고, 보기에서 알맞은 답을 알파벳 하나로만 답하시오.",
            *("지문: ", "질문: ", ("보기:(A) ", "(B) ", "(C) "), "답:", "답을 확정할 수 없음"),
        ),
    }
)
"""The prompts by their numbers in the file."""
SMALL_LETTERS = frozenset(number for number, prompt in PROMPTS.items() if prompt.options == _SMALL)
"""Prompts that are to be answered with a small letter."""
