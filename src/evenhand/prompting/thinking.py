"""Where a model's thought ends and its answer begins: the only place that knows.

A reply with a thought is kept as `<think>`, the thought, `</think>`, the answer, whichever marks the model uses and
whether it or its chat template opened the thought. What is parsed, checked or put into a later turn is `answer(reply)`.
A thought that never ends has no answer: the reply is undecided, since a thought names options that it then rejects.

The marks are those of the chat templates of Qwen3 and DeepSeek-R1 (`<think>`), Magistral (`[THINK]`), Seed-OSS
(`<seed:think>`) and gpt-oss (channels of the harmony format, openai/harmony, docs/format.md). An empty thought is what
Qwen3's own template writes for `enable_thinking=False`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from evenhand.core.stop_strings import first_stop

THINKING_TOKENS = 4096
"""Limit of a thought, in tokens, unless the model is given another one; the answer has a limit of its own."""
SWITCHES = ("enable_thinking", "thinking")
"""Variables that turn thinking off in chat templates: Qwen3, SmolLM3 and GLM-4.5; Granite 3.2 and DeepSeek-V3.1."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What a model writes around a thought."""

    opening: str
    closing: str
    empty: str
    """A thought without content: what makes the model answer at once."""


def _pair(opening: str, closing: str) -> Marks:
    return Marks(opening, closing, f"{opening}\n\n{closing}\n\n")


THINK = _pair("<think>", "</think>")
HARMONY = Marks("<|channel|>analysis<|message|>", "<|channel|>final<|message|>", "<|channel|>final<|message|>")
MARKS = (
    THINK,
    _pair("<thinking>", "</thinking>"),
    _pair("[THINK]", "[/THINK]"),
    _pair("<seed:think>", "</seed:think>"),
    HARMONY,
    _pair("<thought>", "</thought>"),
    _pair("<reasoning>", "</reasoning>"),
    _pair("<reflection>", "</reflection>"),
    _pair("◁think▷", "◁/think▷"),
)
_ANY_MARK = re.compile("|".join(re.escape(text) for m in MARKS for text in (m.opening, m.closing)), re.I)
"""Most replies have no mark at all, which one search tells, instead of several for every kind."""
_HARMONY_BETWEEN = re.compile(r"(?:<\|end\|>)?\s*(?:<\|start\|>assistant)?\s*\Z")


# --------------------------------------------------------------------------------------- reading a finished reply


class Parts(NamedTuple):
    """A reply, taken apart."""

    thought: str
    """All that was thought, without its marks; "" where there was no thought."""
    answer: str | None
    """What follows the thought; None where the thought never ended."""


def parts(reply: str) -> Parts:
    """Take a reply apart: a block without an opening mark starts at the beginning, one without a closing has no end."""
    if not _ANY_MARK.search(reply):
        return Parts("", reply.strip())
    thoughts: list[str] = []
    rest = reply
    for marks in MARKS:
        opening, closing = (_pattern(mark) for mark in (marks.opening, marks.closing))
        blocks, rest = _blocks(rest, opening, closing)
        thoughts += blocks
        if ends := list(closing.finditer(rest)):
            thoughts.append(rest[: ends[-1].start()])
            rest = rest[ends[-1].end() :]
        if begun := opening.search(rest):
            thoughts.append(rest[begun.end() :])
            return Parts(_joined(thoughts), None)
    return Parts(_joined(thoughts), rest.strip())


def _blocks(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> tuple[list[str], str]:
    """The blocks from an opening mark to the next closing one, and the text without them; in one pass."""
    blocks, kept, at = [], [], 0
    while (begin := opening.search(text, at)) and (end := closing.search(text, begin.end())):
        blocks.append(text[begin.end() : end.start()])
        kept.append(text[at : begin.start()])
        at = end.end()
    return blocks, "".join([*kept, text[at:]])


@cache
def _pattern(mark: str) -> re.Pattern[str]:
    return re.compile(re.escape(mark), re.I)


def answer(reply: str) -> str:
    """The reply without its thought; "" where the thought never ended."""
    return parts(reply).answer or ""


def is_cut(reply: str) -> bool:
    """Whether the reply ends within its thought, so that it has no answer."""
    return parts(reply).answer is None


def _joined(thoughts: Sequence[str]) -> str:
    cleaned = (_HARMONY_BETWEEN.sub("", t).strip() for t in thoughts)
    return "\n\n".join(t for t in cleaned if t)


# ---------------------------------------------------------------------------------------- how a template thinks


@dataclass(frozen=True, slots=True)
class Style:
    """How a model that thinks is prompted by its chat template."""

    marks: Marks
    opened: bool
    """Whether the prompt itself ends with the opening mark, so that the reply has none."""
    switch: str = ""
    """The template's variable that, when false, makes the prompt ask for an answer at once; "" where there is none."""


def style_of(source: str, render: Callable[..., str | None]) -> Style | None:
    """How a chat template lets the model think; None where it does not, or where thinking is off by default.

    Args:
        source: The template.
        render: The prompt that asks for an assistant's turn, by the variables that the template is given; None where
            the template fails.
    """
    prompt = render()
    if prompt is None:
        return None
    marks = next((m for m in MARKS if m.closing in source or _ends(prompt, m.opening)), None)
    if marks is None or _ends(prompt, marks.closing):
        return None
    for switch in SWITCHES:
        on, off = render(**{switch: True}), render(**{switch: False})
        if off == prompt and on != prompt:
            return None  # off by default: the untouched prompt is the one for an answer at once
        if off is not None and off != prompt and not _ends(off, marks.opening):
            return Style(marks, _ends(prompt, marks.opening), switch)
    return Style(marks, _ends(prompt, marks.opening))


def closed(prompt: str, marks: Marks) -> str:
    """The prompt with an empty thought at its end, so that what comes next is the answer."""
    if _ends(prompt, marks.closing):
        return prompt
    if _ends(prompt, marks.opening):
        return f"{prompt.rstrip()}\n\n{marks.closing}\n\n"
    return prompt + marks.empty


def _ends(prompt: str, mark: str) -> bool:
    return prompt.rstrip().endswith(mark)


# ------------------------------------------------------------------------------------------ what the model wrote


class Divided(NamedTuple):
    """New tokens, as a reply."""

    text: str
    """With the thought, between `<think>` and `</think>`."""
    finished: bool
    """False where the thought or the answer was cut at its limit."""
    note: str
    """Why there is no answer; "" where there is one."""


def divided(
    ids: Sequence[int],
    decode: Callable[[Sequence[int], bool], str],
    style: Style,
    *,
    thought_limit: int,
    answer_limit: int,
    finished: bool,
    stop: Sequence[str] = (),
) -> Divided:
    """Make a reply of new tokens, with a limit for the thought and another one for the answer.

    Args:
        ids: The new tokens.
        decode: From tokens to text; the second argument says whether special tokens are left out. Marks may be such.
        style: How the model thinks.
        thought_limit: Most tokens of the thought, its marks included.
        answer_limit: Most tokens of the answer.
        finished: Whether the model itself ended the reply.
        stop: Strings that end the answer; in a thought they mean nothing.
    """
    end = _end_of_thought(ids, decode, style)
    if end is None or end > thought_limit:
        thought = _thought(decode(ids[:thought_limit], False), style.marks)
        why = f"was cut at {thought_limit} tokens" if len(ids) >= thought_limit else "never ended"
        return Divided(f"{THINK.opening}\n{thought}", False, f"undecided: the thought {why}")
    text = decode(ids[end : end + answer_limit], True)
    cut = first_stop(text, stop)
    text = text[:cut]
    done = cut is not None or (finished and len(ids) - end <= answer_limit)
    if not end:
        return Divided(text.strip(), done, "")
    thought = _thought(decode(ids[:end], False), style.marks)
    return Divided(f"{THINK.opening}\n{thought}\n{THINK.closing}\n\n{text.strip()}", done, "")


def _end_of_thought(ids: Sequence[int], decode: Callable[[Sequence[int], bool], str], style: Style) -> int | None:
    """How many tokens the thought takes: 0 where the reply is an answer from the start, None where it never ends."""
    raw, marks = decode(ids, False), style.marks
    begins = style.opened or raw.lstrip().startswith(marks.opening)
    if marks.closing not in raw:
        return None if begins else 0
    if not begins and marks.opening in raw[: raw.index(marks.closing)]:
        return 0  # an answer that goes on to think: `parts` takes the block out
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if marks.closing in decode(ids[:middle], False) else (middle + 1, high)
    return low


def _thought(raw: str, marks: Marks) -> str:
    before = raw.partition(marks.closing)[0]
    return _HARMONY_BETWEEN.sub("", before.strip().removeprefix(marks.opening)).strip()
