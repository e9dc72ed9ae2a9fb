"""Read an answer from the last line of a reply that begins with a mark such as "Answer:", and from nothing else.

The reasoning before it names options and rejects them, so it is never read for the answer.
"""

from __future__ import annotations

import re
from dataclasses import replace

from evenhand.interfaces import Choice, Message, Question, Reply, Sampling
from evenhand.models.asking import parsed
from evenhand.prompting import thinking
from evenhand.prompting.rendering import parse_choice


def answer_line(text: str, mark: str) -> str | None:
    """Return what follows the last mark that begins a line, on that line or the next; None if no line begins with it.

    Case, and signs of markup around the mark, are ignored: "**answer:** (B)" and "- **Answer**: (B)" give "(B)". So
    are the number of a step before it, and a blank before its colon.

    Args:
        text: A reply, its thought included.
        mark: How the line begins.
    """
    word = mark.rstrip(": ")
    colon = "[*_`]*\\s*[:\uff1a]" if mark.rstrip().endswith(":") else ""  # U+FF1A is the colon of Chinese and Japanese
    begin = rf"^(?:[^\S\n]|[*_#>`-])*(?:\d+[.)]\s*[*_`]*)?{re.escape(word)}{colon}[*_`]*\s*(.*)$"
    found = re.findall(begin, thinking.answer(text), re.M | re.I)
    return _closed(found[-1].strip()) if found else None


def _closed(line: str) -> str:
    """Return the line without the end of bold markup that began before it."""
    return line.removesuffix("**").rstrip() if line.count("**") % 2 else line


def reread(choice: Choice, question: Question, mark: str, sampling: Sampling) -> Choice:
    """Read the answer again from its line only; one that was never written stays as it is.

    Args:
        choice: The answer as the whole reply was read.
        question: The question, with the order in which its options were shown.
        mark: How the line begins.
        sampling: How replies are sampled if the question does not set it.
    """
    if not choice.reply:
        return choice
    line = answer_line(choice.reply, mark)
    decision = None if line is None else parse_choice(line, question, not choice.cut)
    reply = Reply(choice.reply, choice.usage, finished=not choice.cut)
    read = parsed(reply, decision, question.sampling or sampling)
    missing = f"no line of the reply begins with {mark!r}" if line is None else ""
    return replace(read, before=choice.before, note="; ".join(n for n in (missing, read.note) if n))


def shortened(reply: Reply, mark: str) -> Reply:
    """Reduce an open reply to its line, keeping all of it in the record; without the line, keep it and add a note."""
    if reply.text is None:
        return reply
    line = answer_line(reply.text, mark)
    if line is None:
        return replace(reply, note=reply.note or f"no line of the reply begins with {mark!r}, so it stands whole")
    return replace(reply, text=line, before=(*reply.before, Message("assistant", reply.text)))
