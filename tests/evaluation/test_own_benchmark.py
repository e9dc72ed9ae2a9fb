"""The benchmark that docs/benchmarks.md shows runs as it stands there, and keeps the contract."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evenhand.core import registry
from evenhand.errors import DataError
from evenhand.evaluation.base import read_rows
from evenhand.interfaces import Choice, Grade
from evenhand.testing import ScriptedModel, check_benchmark

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text()
SHOWN = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, flags=re.DOTALL))
ROWS = """country,continent,capital,other_city
Norway,Europe,Oslo,Bergen
Spain,Europe,Madrid,Seville
Chile,America,Santiago,Concepcion
Kenya,Africa
Ghana,Africa,Accra,Kumasi
"""


@pytest.fixture
def capitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(registry.benchmarks, "_objects", dict(registry.benchmarks._objects))
    (tmp_path / "capitals.py").write_text(SHOWN["capitals.py"])
    (tmp_path / "capitals.csv").write_text(ROWS)
    assert registry.load_plugin(tmp_path / "capitals.py") == ["capitals"]
    return registry.benchmarks.get("capitals").build(source=str(tmp_path / "capitals.csv"))


def test_the_benchmark_with_two_groups_keeps_the_contract_and_has_the_gap_of_known_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.benchmarks, "_objects", dict(registry.benchmarks._objects))
    (tmp_path / "blame.py").write_text(SHOWN["blame.py"])
    assert registry.load_plugin(tmp_path / "blame.py") == ["blame"]
    benchmark = registry.benchmarks.get("blame").build()
    check_benchmark(benchmark)
    items = benchmark.load()
    answers = benchmark.ask(ScriptedModel(decide=lambda q: 0 if "old" in q.context else 2), items)
    tally = benchmark.tally(items, answers)
    assert tally.clusters == ("scene 0", "scene 1")
    found = benchmark.compute(tally.total)
    assert found["gap"].value.tolist() == [1] and found["gap"].n.tolist() == [4]
    assert found["accuracy"].value.tolist() == [0.5]


def test_it_takes_at_most_25_lines_without_numpy() -> None:
    lines = [line for line in SHOWN["capitals.py"].splitlines() if line.strip()]
    assert len(lines) <= 25 and "numpy" not in SHOWN["capitals.py"]
    assert max(map(len, lines)) <= 140


def test_it_keeps_the_contract(capitals: Any) -> None:
    check_benchmark(capitals)


def test_it_counts_right_answers_by_continent_and_leaves_out_a_broken_row(capitals: Any) -> None:
    items = capitals.load()
    assert [i.id for i in items] == ["Norway", "Spain", "Chile", "Ghana"]
    assert len(capitals.facts()["dropped"]) == 1 and ":5:" in capitals.facts()["dropped"][0]
    answers = capitals.ask(ScriptedModel(decide=lambda q: int(q.id == "Spain")), items)
    tally = capitals.tally(items, answers)
    assert tally.clusters == ("Europe", "America", "Africa")
    accuracy = capitals.compute(tally.sums)["accuracy"]
    assert accuracy.value[:, 0].tolist() == [0.5, 1, 1] and accuracy.n[:, 0].tolist() == [2, 1, 1]
    assert capitals.compute(tally.total)["accuracy"].value.tolist() == [0.75]
    assert capitals.gold(items) == [0, 0, 0, 0]
    assert capitals.grades(items[:1], [Choice(None, status="unparsed")]) == [Grade(None, False)]


def test_a_second_row_with_an_id_and_a_row_with_an_empty_cell_cost_no_other_row(capitals: Any, tmp_path: Path) -> None:
    more = ["Norway,Europe,Oslo,Tromso", "Italy,,Rome,Milan", "Japan,Asia, ,Osaka", "Egypt,Africa,Cairo,Luxor"]
    (tmp_path / "more.csv").write_text(ROWS + "\n".join(more))
    bench = type(capitals)(source=str(tmp_path / "more.csv"))
    assert [i.id for i in bench.load()] == ["Norway", "Spain", "Chile", "Ghana", "Egypt"]
    assert [line.partition("more.csv:")[2] for line in bench.facts()["dropped"]] == [
        "5: 2 fields, but the header has 4",
        "7: id 'Norway' already occurs in line 2",
        "8: field 'continent' is empty",
        "9: field 'capital' is empty",
    ]
    check_benchmark(bench)


def test_rows_of_json_lines_and_fields_that_may_be_empty(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Fact:
        id: str
        cluster: str
        note: str | None

    file = tmp_path / "facts.jsonl"
    file.write_text(
        '{"id": "a", "kind": "x", "note": null}\n{"id": null, "kind": "x"}\n{"id": "b", "kind": NaN}\n{"id": 7}\n'
    )
    loaded = read_rows(file, lambda row: Fact(row["id"], row.get("kind") or "", row.get("note")))
    assert loaded.items == [Fact("a", "x", None)]
    reasons = [line.partition("facts.jsonl:")[2] for line in loaded.facts["dropped"]]
    assert reasons[0] == "2: field 'id' is empty" and reasons[1].startswith("3: ")
    assert reasons[2] == "4: the item has id=7" and len(reasons) == 3


def test_an_empty_file_is_said_to_be_empty(capitals: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match=r"empty\.csv is empty; a header line was expected$"):
        type(capitals)(source=str(tmp_path / "empty.csv")).load()


def test_a_file_without_a_usable_row_is_refused_with_the_first_reason(capitals: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("country,continent,capital\nNorway,Europe,Oslo\n")
    with pytest.raises(DataError, match=r"empty\.csv has no usable row; first problem: .*:2: field 'other_city' is"):
        type(capitals)(source=str(tmp_path / "empty.csv")).load()
