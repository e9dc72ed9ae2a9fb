"""Where a model's thought ends and its answer begins; no other module decides this.

A reply with a thought is kept as `<think>`, the thought, `</think>`, the answer, whichever marks the model uses and
whether it or its chat template opened the thought. What is parsed, checked or put into a later turn is `answer(reply)`.
If the thought never ends there is no answer: the reply is undecided, since a thought names options that it later
rejects.

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
"""Default limit of a thought, in tokens; the answer has its own limit."""
SWITCHES = ("enable_thinking", "thinking")
"""Variables that turn thinking off in chat templates: Qwen3, SmolLM3 and GLM-4.5; Granite 3.2 and DeepSeek-V3.1."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Marks that a model writes around a thought."""

    opening: str
    closing: str
    empty: str
    """An empty thought, which makes the model answer at once."""


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
"""Pattern that finds any mark in one search instead of several per kind, since many replies have none."""
_HARMONY_BETWEEN = re.compile(r"(?:<\|end\|>)?\s*(?:<\|start\|>assistant)?\s*\Z")


# --------------------------------------------------------------------------------------- reading a finished reply


class Parts(NamedTuple):
    """A reply split into thought and answer."""

    thought: str
    """All thoughts without their marks; "" if there was none."""
    answer: str | None
    """Text after the thought; None if the thought never ended."""


def parts(reply: str) -> Parts:
    """Split a reply: a thought without opening mark starts at the beginning, one without closing mark never ends."""
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
    """Return the blocks from an opening mark to the next closing one, and the text without them, in one pass."""
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
    """Return the reply without its thought; "" if the thought never ended."""
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
    """How a chat template prompts a thinking model."""

    marks: Marks
    opened: bool
    """Whether the prompt itself ends with the opening mark, so that the reply has none."""
    switch: str = ""
    """Variable of the template that, if false, makes the prompt ask for an answer at once; "" if there is none."""


def style_of(source: str, render: Callable[..., str | None]) -> Style | None:
    """Find how a chat template lets the model think; None if it does not, or if thinking is off by default.

    Args:
        source: The template.
        render: Function that returns the prompt for an assistant's turn, given variables of the template; None if the
            template fails.
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
            return None  # off by default: the prompt without a variable asks for an answer at once
        if off is not None and off != prompt and not _ends(off, marks.opening):
            return Style(marks, _ends(prompt, marks.opening), switch)
    return Style(marks, _ends(prompt, marks.opening))


def closed(prompt: str, marks: Marks) -> str:
    """Add an empty thought to the end of a prompt, so that the answer comes next."""
    if _ends(prompt, marks.closing):
        return prompt
    if _ends(prompt, marks.opening):
        return f"{prompt.rstrip()}\n\n{marks.closing}\n\n"
    return prompt + marks.empty


def _ends(prompt: str, mark: str) -> bool:
    return prompt.rstrip().endswith(mark)


# ------------------------------------------------------------------------------------------ what the model wrote


class Divided(NamedTuple):
    """New tokens as a reply."""

    text: str
    """The reply, with its thought between `<think>` and `</think>`."""
    finished: bool
    """Whether the reply is complete; False if the thought or the answer was cut at its limit."""
    note: str
    """Why there is no answer; "" if there is one."""


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
    """Turn new tokens into a reply, with one limit for the thought and another for the answer.

    Args:
        ids: The new tokens.
        decode: Function from tokens to text; its second argument says whether special tokens, which marks may be, are
            left out.
        style: How the model thinks.
        thought_limit: Maximum number of tokens of the thought, including its marks.
        answer_limit: Maximum number of tokens of the answer.
        finished: Whether the model itself ended the reply.
        stop: Strings that end the answer; they do not end a thought.
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
    """Count the tokens of the thought: 0 if the reply is an answer from the start, None if the thought never ends."""
    raw, marks = decode(ids, False), style.marks
    begins = style.opened or raw.lstrip().startswith(marks.opening)
    if marks.closing not in raw:
        return None if begins else 0
    if not begins and marks.opening in raw[: raw.index(marks.closing)]:
        return 0  # an answer that is followed by a thought: `parts` removes that block
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if marks.closing in decode(ids[:middle], False) else (middle + 1, high)
    return low


def _thought(raw: str, marks: Marks) -> str:
    before = raw.partition(marks.closing)[0]
    return _HARMONY_BETWEEN.sub("", before.strip().removeprefix(marks.opening)).strip()
