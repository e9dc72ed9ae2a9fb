"""The columns of answers: null where there is nothing, and the same answers when they are read."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pytest

from evenhand.core import answer_table as module
from evenhand.core.answer_table import ANSWER_KIND, DIGEST, AnswerFacts, answer_table, answers_in
from evenhand.interfaces import Choice, Message, Reply, Usage

TURN = (Message("user", "Why?"),)
CHOICES = [
    Choice(1),
    Choice(0, reply="A", note="odd", mass=0.5),
    Choice(None, before=TURN, cut=True),
    Choice(2, before=TURN, reply="C\ud800", usage=Usage(2, 3, 4)),
]
REPLIES = [Reply("yes"), Reply(""), Reply(None, note="gone"), Reply("no", finished=False), Reply("so", before=TURN)]


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(asdict(value)))


@pytest.mark.parametrize("answers", [CHOICES, REPLIES, [Choice(1)], [Reply("yes")]])
def test_answers_are_read_as_they_were(answers: list[Any]) -> None:
    ids = [str(n) for n in range(len(answers))]
    read = answers_in(answer_table(answers, ids, {}))
    assert {i: json.loads(json.dumps(one)) for i, one in read.items()} == dict(
        zip(ids, map(as_json, answers), strict=True)
    )


def test_what_is_not_there_is_null() -> None:
    table = answer_table(CHOICES, ["a", "b", "c", "d"], {}).to_pydict()
    assert table["note"] == [None, "odd", None, None] and table["reply"] == [None, "A", None, "C\\ud800"]
    assert [rest is None for rest in table["rest"]] == [True, True, False, False]
    assert json.loads(table["rest"][2]) == {"before": [["user", "Why?"]]}
    table = answer_table(REPLIES, list("abcde"), {}).to_pydict()
    assert table["reply"] == ["yes", "", None, "no", "so"], "an empty reply is one"
    assert table["note"] == [None, None, "gone", None, None]
    assert [rest is None for rest in table["rest"]] == [True, True, True, False, False]


def test_answers_of_another_kind_are_whole_in_rest() -> None:
    table = answer_table([Choice(1), Reply("")], ["a", "b"], {}, [AnswerFacts(note=""), AnswerFacts(note="x")])
    assert table.to_pydict()["note"] == [None, "x"] and None not in table.to_pydict()["rest"]
    assert [one.get("text", one.get("reply")) for one in answers_in(table).values()] == ["", ""]


def test_a_note_of_none_comes_back_as_none() -> None:
    """No kind of answer has it, but a plugin may."""
    odd = Choice(1, note=None)  # type: ignore[arg-type]
    assert [one["note"] for one in answers_in(answer_table([odd, Choice(1)], ["a", "b"], {})).values()] == [None, ""]


def test_a_table_of_an_earlier_version_is_read_as_before() -> None:
    table = answer_table([Choice(1), Choice(2)], ["a", "b"], {})
    columns = table.to_pydict() | {"note": ["", ""], "reply": ["", ""], "rest": ['{"before": []}'] * 2}
    kept = {ANSWER_KIND: b"Choice", module.ABOUT: b"{}"}
    kept[DIGEST] = module._digest(kept, [columns[name] for name in module._stored_columns("Choice")])
    earlier = pa.table([pa.array(columns[f.name], f.type) for f in table.schema], table.schema.with_metadata(kept))
    assert answers_in(earlier) == answers_in(table)
    assert answers_in(table)["a"]["before"] == [] and answers_in(table)["a"]["note"] == ""
