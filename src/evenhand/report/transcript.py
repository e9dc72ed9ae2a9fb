"""Transcripts: the whole dialogues that led to answers, read from the run folder.

The question itself is not stored with the answers; it is read again from the benchmark's data. Texts of a benchmark
that must not be published (`quotable = False`) are not shown anywhere.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.core.records import is_baseline
from evenhand.core.run_folder import RunFolder, from_plain
from evenhand.core.sinks import one_line
from evenhand.core.text_output import number, visible
from evenhand.errors import RunError
from evenhand.interfaces import AnswerBy, Benchmark, Choice, Message, Question, Reply
from evenhand.models.readings import asked_by, written_by
from evenhand.prompting.rendering import as_dialogue
from evenhand.report.answers import answers_file
from evenhand.report.opened import Opened, question_of

NOT_RECORDED = "the benchmark's question; what the method made of it was not recorded"
GATED = "the texts of this benchmark are not shown: its authors ask that none of it be published"


@dataclass(frozen=True, slots=True)
class Transcript:
    """One answer with the whole dialogue that led to it."""

    model: str
    method: str
    benchmark: str
    item: str
    turns: tuple[Message, ...]
    """Turns, oldest first; the model's last reply is the last."""
    outcome: str
    """Decision, how it was read and whether it is right."""
    note: str = ""

    def __str__(self) -> str:
        """Return the dialogue as text that is safe to print to a terminal."""
        names = map(one_line, (self.model, self.method, self.benchmark, f"item {self.item}"))
        head = ", ".join(names)
        lines = [head, "=" * len(head), *(f"({self.note})" for _ in range(bool(self.note)))]
        lines += [f"[{turn.role}]\n{turn.content}" for turn in self.turns]
        return visible("\n".join([*lines, f"-> {self.outcome}"]))


def transcripts(folder: Path, usage: list[Mapping[str, Any]], item: str, wanted: Mapping[str, str]) -> list[Transcript]:
    """Read the answers to one item.

    Args:
        folder: Folder of the run.
        usage: The manifest's rows, one per finished cell.
        item: Id of the item.
        wanted: Any of model, method and benchmark, under their names in the report.

    Raises:
        RunError: There is no such cell or item.
    """
    cells = [u for u in usage if all(u.get(k) == v for k, v in wanted.items())]
    if not cells:
        known = "; ".join(f"{u['model']}, {u['method']}, {u['benchmark']}" for u in usage) or "none"
        raise RunError(f"no answers of {', '.join(wanted.values()) or 'any model'} in {folder}; there are: {known}")
    run, found, ids = RunFolder(folder), [], list[str]()
    opened = {spec: Opened(spec) for spec in {str(cell["benchmark"]) for cell in cells}}
    for cell in cells:
        stored = run.stored(answers_file(folder, cell)) if cell.get("answers") else {}
        ids += list(stored)[:1]
        if item in stored:
            found.append(transcript(opened[cell["benchmark"]], cell, item, stored[item]))
    if not found:
        like = f"ids look like {', '.join(dict.fromkeys(ids))}" if ids else "run the same command again to have them"
        raise RunError(f"no answer to an item {item!r} is kept in {folder}; {like}")
    return found


def transcript(opened: Opened, cell: Mapping[str, Any], item: str, stored: dict[str, Any]) -> Transcript:
    """Return one answer with the whole dialogue that led to it.

    Args:
        opened: The benchmark.
        cell: The manifest's facts of the cell, whose names of model, method and benchmark are shown.
        item: Id of the item.
        stored: The answer as stored in the run folder.
    """
    whose = (cell["model"], cell["method"], cell["benchmark"], item)
    benchmark = opened.benchmark
    if benchmark is None:
        return Transcript(*whose, (), "not shown", opened.why)
    answer = from_plain(benchmark.answer_type, stored)
    unit, note = opened.items.get(item), opened.why
    if not benchmark.quotable:
        return Transcript(*whose, (), _outcome(benchmark, unit, answer, quote=False), note or GATED)
    asked, why = _asked(benchmark, unit, answer, cell)
    turns = tuple(Message(m.role, _whole(m.content)) for m in (*asked, *_said(answer)))
    return Transcript(*whose, turns, _outcome(benchmark, unit, answer, quote=True), note or why)


def _asked(benchmark: Benchmark, unit: Any, answer: Any, cell: Mapping[str, Any]) -> tuple[tuple[Message, ...], str]:
    """Return the turns before the last reply: as recorded, else the question as the benchmark asks it."""
    if isinstance(answer, Choice | Reply) and answer.before:
        return answer.before, ""
    note = "" if is_baseline(cell["method"]) else NOT_RECORDED
    if question := question_of(unit):
        put = next(iter(asked_by(benchmark, [unit])), question)  # including additions such as demonstrations
        return as_dialogue(put, _way(put, answer, cell)).messages, note
    written = written_by(benchmark, [unit]) if unit is not None and isinstance(answer, Reply) else ()
    return (written[0].messages, note) if written else ((), "")


def _way(question: Question, answer: Any, cell: Mapping[str, Any]) -> AnswerBy:
    """Return how the answer was read, which decides between a lettered prompt and a plain one.

    The cell states it, except in folders of earlier versions.
    """
    if isinstance(answer, Choice) and answer.reply:
        return "generation"
    known: AnswerBy | None = cell.get("answer_by") or question.answer_by
    return known or "letters"


def _said(answer: Any) -> Iterator[Message]:
    text = answer.reply if isinstance(answer, Choice) else answer.text if isinstance(answer, Reply) else ""
    if text:
        yield Message("assistant", text)


def _whole(text: str) -> str:
    """Escape lone surrogates, which a server may send and no output accepts."""
    return text.encode("utf-8", "backslashreplace").decode()


def _outcome(benchmark: Benchmark, unit: Any, answer: Any, *, quote: bool) -> str:
    if isinstance(answer, Reply):
        return "as written" if answer.text is not None else f"no reply: {answer.note}"
    if not isinstance(answer, Choice):
        return json.dumps(dataclasses.asdict(answer), ensure_ascii=False) if quote else "not shown"
    if answer.decision is None:
        return f"{answer.status}{f': {answer.note}' if answer.note else ''}"
    question = question_of(unit) if quote else None
    text = f"option {answer.decision}" + (f", {question.options[answer.decision]!r}" if question else "")
    if answer.probabilities is not None:
        text += f", probability {number(answer.probabilities[answer.decision])}"
    grades = benchmark.grades([unit], [answer]) if unit is not None else None
    return text + (f": {'right' if grades[0].right else 'wrong'}" if grades else "")
