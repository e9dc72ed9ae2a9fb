"""Benchmarks whose texts must not be published: what is raised, noted or warned about them by others is not quoted."""

from __future__ import annotations

import io
import json
import random
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from evenhand.core import withheld
from evenhand.core.withheld import REASON, Withheld
from evenhand.errors import ContextTooLongError, DataError, MissingAbilityError
from evenhand.evaluation.bbq import BBQ
from evenhand.experiment.comparison import compare
from evenhand.interfaces import Choice, Method, Model, Question
from evenhand.methods.none import Untouched
from evenhand.models import Mitigated
from evenhand.prompting.remarks import remark
from evenhand.report import Report
from evenhand.testing import ScriptedModel

CANARY = "the zeppelin quietly traded amber marmalade with nine polite lighthouses"
WINDOWS = [CANARY[i : i + 20] for i in range(len(CANARY) - 19)]


class Gated(BBQ):
    """Items with a text that must not be published."""

    quotable: ClassVar[bool] = False

    def load(self) -> list[Any]:
        return [replace(i, question=replace(i.question, context=CANARY)) for i in super().load()[:6]]


@dataclass(frozen=True)
class Quoting(Method):
    """Puts the first question into an error, a note or a warning, as a plugin may."""

    name: ClassVar[str] = "quoting"
    how: str = "foreign"

    def apply(self, model: Model, data: Any = None) -> Model:
        def choose(questions: Sequence[Question]) -> list[Choice]:
            return quoted(self.how, model, questions)

        return Mitigated(model, self, choose=choose)


def quoted(how: str, model: Model, questions: Sequence[Question]) -> list[Choice]:
    first = questions[0]
    said = f"item {first.id} is odd: {first.context!r}"
    if how == "chained":
        try:
            raise KeyError(first.context)
        except KeyError as error:
            raise RuntimeError("no text here") from error
    kinds = {"foreign": ValueError, "ours": ContextTooLongError, "ability": MissingAbilityError, "data": DataError}
    if how in kinds:
        raise kinds[how](said)
    answers = model.choose(questions)
    if how == "note":
        return [replace(a, note=said) for a in answers]
    (warnings.warn if how == "warning" else remark)(said)
    return answers


class Ungraded(Gated):
    """Puts a text into an error as it is scored."""

    def compute(self, sums: Any) -> Any:
        raise ValueError(CANARY)


class Unparsed(Gated):
    """Puts a text into an error as answers are added up."""

    def tally(self, items: Any, answers: Any) -> Any:
        raise ValueError(items[0].question.context)


def everything(folder: Path, method: Method, benchmark: Any, capfd: pytest.CaptureFixture[str]) -> tuple[Report, str]:
    """The report, and all that a run writes, prints and warns of."""
    screen = io.StringIO()
    with warnings.catch_warnings(record=True) as warned, redirect_stderr(screen):
        warnings.simplefilter("always")
        report = compare(ScriptedModel(), method, benchmark, out=folder, show_progress=True)
    shown = io.StringIO()
    Console(file=shown, width=200).print(report)
    said = capfd.readouterr()
    told = [screen.getvalue(), said.out, said.err, shown.getvalue(), str(report), report.markdown(), report.html()]
    told += [str(report.records), json.dumps(report.manifest, default=str), *map(str, warned)]
    told += [f.read_bytes().decode("utf-8", "replace") for f in folder.rglob("*") if f.is_file()]
    return report, "\n".join(told)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("foreign", "ValueError"),
        ("chained", "RuntimeError"),
        ("ours", "ContextTooLongError"),
        ("ability", "MissingAbilityError"),
        ("data", "DataError"),
        ("note", ""),
        ("warning", ""),
        ("remark", ""),
    ],
)
def test_no_sink_has_the_text(how: str, kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    benchmark = Gated(source="demo")
    report, told = everything(tmp_path, Quoting(how), benchmark, capfd)
    assert not [w for w in WINDOWS if w in told]
    assert REASON in told
    notes = " ".join(r.note for r in report.records if r.method.startswith("quoting"))
    assert kind in notes
    if how != "chained":
        assert benchmark.load()[0].id in told


@pytest.mark.parametrize("kind", [Ungraded, Unparsed])
def test_errors_in_scoring_have_no_text(kind: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, told = everything(tmp_path, Untouched(), kind(source="demo"), capfd)
    assert not [w for w in WINDOWS if w in told]
    assert "ValueError" in told and REASON in told


def test_benchmarks_that_may_be_quoted_still_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Open(Gated):
        quotable: ClassVar[bool] = True

    _, told = everything(tmp_path, Quoting(), Open(source="demo"), capfd)
    assert CANARY in told and "Traceback" in told


def test_what_quotes_nothing_is_said_as_it_is() -> None:
    items = Gated(source="demo").load()
    hidden = Withheld(items)
    assert hidden.error(ContextTooLongError("needs 20 tokens"), own=True) == "needs 20 tokens"
    assert hidden.error(ValueError("needs 20 tokens")) == f"ValueError; {REASON}"
    assert Withheld().error(ContextTooLongError("needs 20 tokens"), own=True) == f"ContextTooLongError; {REASON}"
    assert hidden.note("the server was busy") == "the server was busy"


@pytest.mark.parametrize("quote", [CANARY[7:30], CANARY.upper()[10:40], repr(CANARY[5:40]), CANARY.replace(" ", "\n")])
def test_a_part_of_a_text_is_a_quotation(quote: str) -> None:
    items = Gated(source="demo").load()[:1]
    assert Withheld(items).note(f"x {quote} y") == f"a note about {items[0].id}; {REASON}"


@dataclass(frozen=True)
class Entry:
    """An item of two texts."""

    id: str
    text: str
    option: str


def test_an_index_finds_what_a_search_of_every_item_finds() -> None:
    draw = random.Random(7)

    def text(most: int) -> str:
        return "".join(draw.choices("abc", k=draw.randint(0, most)))

    items = [Entry(f"item-{n}", text(60), text(12)) for n in range(40)]
    hidden, found = Withheld(items), []
    for said in (f"{text(40)} {'item-3,' if n % 9 == 0 else ''}" for n in range(300)):
        bare = withheld._bare(said)
        expected = [
            item.id
            for item in items
            if item.id in said.replace(",", " ").split()
            or any(6 <= len(t) < 12 and t in bare for t in (item.text, item.option))
            or any(bare[i : i + 12] in item.text for i in range(len(bare) - 11))
        ]
        assert hidden.ids(said) == expected
        found.append(len(expected))
    assert min(found) == 0 and max(found) > 1


@pytest.mark.parametrize("start", range(6))
def test_a_window_at_any_place_of_a_text_is_found(start: int) -> None:
    text = "".join(map(chr, range(ord("a"), ord("a") + 24)))
    assert Withheld([Entry("i", text, "")]).ids(f"! {text[start : start + 12]} !") == ["i"]
    assert Withheld([Entry("i", text, "")]).ids(f"! {text[start : start + 11]} !") == []


def test_each_note_is_compared_with_items_alike_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    items = [Entry(f"i{n}", "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=50)), "") for n in range(200)]
    compared: list[str] = []
    shares = withheld._shares
    monkeypatch.setattr(withheld, "_shares", lambda parts, text: compared.append(text) or shares(parts, text))
    hidden = Withheld(items)
    for _ in range(3):
        for item in items:
            assert hidden.note(f"odd: {item.text}") == f"a note about {item.id}; {REASON}"
    assert len(compared) == len(items)
