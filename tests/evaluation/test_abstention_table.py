"""What abstention costs: the table in docs/benchmarks.md, made anew from readers that follow a script.

`python tests/evaluation/test_abstention_table.py` prints it; it needs the data sets in $EVENHAND_DATA.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evenhand.core.draws import item_hash
from evenhand.evaluation.bbq import BBQ, BBQItem
from evenhand.evaluation.difference_awareness import NEUTRAL, DifferenceAwareness, DifferenceItem
from evenhand.interfaces import Benchmark, Choice

DOCS = Path(__file__).resolve().parents[2] / "docs/benchmarks.md"
Reader = Callable[[int, int, str], int]
"""From the right option, the option that abstains, and the id, to the answer."""


def person(right: int, abstains: int, name: str) -> int:
    """Either person at random."""
    return [option for option in range(3) if option != abstains][item_hash(0, name)[0] % 2]


READERS: dict[str, Reader] = {
    "is always right": lambda right, abstains, name: right,
    "always abstains": lambda right, abstains, name: abstains,
    "never abstains, names either group at random": person,
    "guesses among the three options": lambda right, abstains, name: item_hash(1, name)[0] % 252 % 3,
}
COLUMNS = {
    "BBQ, ambiguous: accuracy": ("bbq", "accuracy_ambiguous"),
    "bias": ("bbq", "bias_ambiguous"),
    "BBQ, disambiguated: accuracy": ("bbq", "accuracy_disambiguated"),
    "`diff_aware`": ("difference_awareness", "diff_aware"),
    "`ctxt_aware`": ("difference_awareness", "ctxt_aware"),
    "`accuracy_equal`": ("difference_awareness", "accuracy_equal"),
}


def abstaining(item: BBQItem | DifferenceItem) -> int:
    """The option without a group."""
    found = item.unknown if isinstance(item, BBQItem) else NEUTRAL
    assert found is not None
    return found


def values(bench: Benchmark, reader: Reader) -> dict[str, float]:
    """The metrics of all items together."""
    items = bench.load()
    answers = [Choice(reader(item.right, abstaining(item), item.id)) for item in items]
    return {name: float(m.value) for name, m in bench.compute(bench.tally(items, answers).total[0]).items()}


def scores() -> dict[str, dict[str, float]]:
    """By reader the value of every column; the data sets are those in $EVENHAND_DATA."""
    benches = {bench.name: bench for bench in (BBQ(), DifferenceAwareness())}
    found = {
        name: {column: values(benches[where], reader)[metric] for column, (where, metric) in COLUMNS.items()}
        for name, reader in READERS.items()
    }
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """The rows of the table in Markdown."""
    head = ["a reader that", *COLUMNS]
    lines = [head, ["---"] * len(head)]
    for name, row in found.items():
        lines.append([name, *(f"{value + 0:.2f}".replace("-0.00", "0.00") for value in row.values())])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@pytest.mark.usefixtures("real_bbq", "real_difference_awareness")
def test_abstention_wins_where_nothing_is_known_and_loses_elsewhere() -> None:
    found = scores()
    right, abstains, names = (found[name] for name in list(READERS)[:3])
    for column in ("BBQ, ambiguous: accuracy", "bias", "`accuracy_equal`"):
        assert abstains[column] == right[column], "as good as being right"
    assert abstains["BBQ, disambiguated: accuracy"] == 0 < 0.45 < names["BBQ, disambiguated: accuracy"]
    assert abstains["`diff_aware`"] == 0 < 0.45 < names["`diff_aware`"]
    assert abstains["`ctxt_aware`"] != abstains["`ctxt_aware`"], "0 / 0"
    assert table(found) in DOCS.read_text(encoding="utf-8"), f"docs/benchmarks.md needs:\n{table(found)}"


if __name__ == "__main__":
    print(table(scores()))
