"""Size of the decision page of a big run, and a reader's waits: opening, sorting, searching.

make bench        or        python benchmarks/bench_page.py

The run is made up: 58,000 items and 8 methods, each of which changes every second answer. The browser is Chromium.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from browser import Page
from tables import put

from evenhand.core.records import Record
from evenhand.interfaces import Message
from evenhand.report import Report, page
from evenhand.report.changes import DIRECTIONS, Changes
from evenhand.report.page_items import Compared
from evenhand.report.transcript import Transcript

ITEMS, METHODS, RUNS = 58_000, 8, 5
AXES = ("Age", "Disability_status", "Gender_identity", "Nationality", "Race_ethnicity", "Religion", "SES")
WORDS = ("the", "grandmother", "and", "her", "grandson", "waited", "outside", "a", "museum", "with", "one", "umbrella")


@dataclass(frozen=True)
class Changed:
    """A made-up change, with the fields that the page reads."""

    item: str
    direction: str
    groups: tuple[str, ...]
    text: str
    part: str = "ambiguous"
    before: int = 0
    after: int = 1
    before_text: str = "Not enough info"
    after_text: str = "The grandmother"
    before_leaning: str = "unknown"
    after_leaning: str = "stereotyped"
    before_probabilities: tuple[float, ...] = (0.7, 0.2, 0.1)
    after_probabilities: tuple[float, ...] = (0.2, 0.7, 0.1)
    options: tuple[str, ...] = ("Not enough info", "The grandmother", "The grandson")

    def transcripts(self) -> tuple[Transcript, Transcript]:
        turns = [(Message("user", self.text),), (Message("user", self.text), Message("assistant", f"{self.text} B"))]
        before, after = (Transcript("m", "method", "bbq", self.item, said, "option 1") for said in turns)
        return before, after


def changes() -> list[Changed]:
    """Make a change of every second item, with a text of some 600 characters."""
    words = random.Random(0)
    return [
        Changed(
            f"{AXES[n % len(AXES)]}/{n}",
            DIRECTIONS[n % 3],
            (AXES[n % len(AXES)],),
            " ".join(words.choice(WORDS) for _ in range(100)),
        )
        for n in range(0, ITEMS, 2)
    ]


def records() -> list[Record]:
    like: dict[str, Any] = dict(model="m", benchmark="bbq", n=ITEMS, clusters=200, main=True)
    metrics = (("bias", "bias", "zero"), ("accuracy", "capability", "higher"))
    return [
        Record(**like, method=m, metric=name, kind=kind, direction=way, value=0.5, low=0.4, high=0.6, baseline=base)
        for m, base in (("none", ""), *((f"method_{n}", "none") for n in range(METHODS)))
        for name, kind, way in metrics
    ]


def waited(opened: Page, action: str, until: str) -> float:
    """Measure the milliseconds in the page from an action until a condition is true."""
    script = f"""new Promise(done => {{ const start = performance.now(); {action};
        const look = () => ({until}) ? done(performance.now() - start) : requestAnimationFrame(look); look(); }})"""
    found: float = opened.value(script)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    report, found = Report(records(), {}), changes()
    cells = [
        Compared("m", f"method_{n}", "none", "bbq", Changes(found, ITEMS))  # type: ignore[arg-type]
        for n in range(METHODS)
    ]
    begun = time.perf_counter()
    text = report._rendered("page.html.j2", plot="", **page.context(report, report.provenance(), cells))
    made = time.perf_counter() - begun
    file = Path(tempfile.mkdtemp()) / "report.html"
    file.write_text(text, encoding="utf-8")
    begun = time.perf_counter()
    with Page(file) as opened:
        opened.until("document.documentElement.dataset.ready === 'all'")
        ready = time.perf_counter() - begun
        rows = len(opened.value("rows"))
        turns = "grid.order([[6, grid.order()[0][1] === 'asc' ? 'desc' : 'asc']]).draw()"
        sort = min(waited(opened, turns, "true") for _ in range(RUNS))
        words = "grid.search('umbrella museum ' + (window.turn = !window.turn)).draw(), grid.search('umbrella').draw()"
        search = min(waited(opened, words, "true") for _ in range(RUNS))
        axis = "a => { document.getElementById('changes-axis').value = a; fill(); }"
        kept = min(waited(opened, f"({axis})('{AXES[0]}'), ({axis})('')", "true") for _ in range(RUNS))
    row = {
        "page of 58,000 items, 8 methods": f"{rows:,} items kept per method",
        "MB": f"{len(text.encode()) / 1e6:.1f}",
        "made, s": f"{made:.1f}",
        "opened, s": f"{ready:.1f}",
        "sort, ms": f"{sort:.0f}",
        "two searches, ms": f"{search:.0f}",
        "two filters, ms": f"{kept:.0f}",
    }
    put("page", [row], write=given.write)


if __name__ == "__main__":
    main()
