"""An answer on a line of its own: the last line of a reply that begins with a mark such as "Answer:", and nothing else.

What was reasoned before it names options and rejects them, so it is never read for the answer.
"""

from __future__ import annotations

import re
from dataclasses import replace

from evenhand.interfaces import Choice, Message, Question, Reply, Sampling
from evenhand.models.asking import parsed
from evenhand.prompting import thinking
from evenhand.prompting.rendering import parse_choice


def answer_line(text: str, mark: str) -> str | None:
    """What follows the last mark that begins a line, on that line or else the next; None where no line begins with it.

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
    """The line without the end of what was set in bold before it."""
    return line.removesuffix("**").rstrip() if line.count("**") % 2 else line


def reread(choice: Choice, question: Question, mark: str, sampling: Sampling) -> Choice:
    """The answer as its line alone says it; one that was never written stays as it is.

    Args:
        choice: The answer as the whole reply was read.
        question: What was asked, with the order in which its options were shown.
        mark: How the line begins.
        sampling: How replies are drawn where the question does not say.
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
    """An open reply as its line alone; all of it is in the record. One without the line stays whole, and says so."""
    if reply.text is None:
        return reply
    line = answer_line(reply.text, mark)
    if line is None:
        return replace(reply, note=reply.note or f"no line of the reply begins with {mark!r}, so it stands whole")
    return replace(reply, text=line, before=(*reply.before, Message("assistant", reply.text)))
