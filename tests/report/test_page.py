"""The decision page as a file: what it keeps and leaves out, how large it becomes, and that no name acts in it."""

from __future__ import annotations

import base64
import gzip
import html
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.test_gpqa import SECRET, rows, write
from tests.report.one_record import record
from tests.report.test_transcript import Talks

from evenhand.core.records import Record
from evenhand.experiment.comparison import compare
from evenhand.interfaces import Message
from evenhand.report import Report, page, page_items, page_libraries
from evenhand.report.changes import DIRECTIONS, Changes
from evenhand.report.page_answer import findings
from evenhand.report.page_items import Compared, chosen, shelves
from evenhand.report.transcript import Transcript
from evenhand.testing import ScriptedModel

EVIL = "</script><script>alert(1)</script>$x$ \"q' {{7*7}} <!--"
BBQ = "bbq"


@dataclass(frozen=True)
class Changed:
    """What the page reads of a `Change`."""

    item: str
    direction: str = DIRECTIONS[0]
    groups: tuple[str, ...] = ("Age",)
    part: str = "ambiguous"
    before: int | None = 0
    after: int | None = 1
    before_text: str = "nobody"
    after_text: str = "the old man"
    before_leaning: str = "unknown"
    after_leaning: str = "stereotyped"
    before_probabilities: tuple[float, ...] | None = (0.9, 0.1)
    after_probabilities: tuple[float, ...] | None = (0.2, 0.8)
    options: tuple[str, ...] = ("nobody", "the old man")
    said: tuple[str, str] = ("Who was it?", "Who was it really?")

    def transcripts(self) -> tuple[Transcript, Transcript]:
        before, after = (
            Transcript("m", "x", BBQ, self.item, (Message("user", text),), f"outcome of {text}") for text in self.said
        )
        return before, after


def compared(found: Sequence[Any], method: str = "good", **more: Any) -> Compared:
    return Compared("m", method, "none", BBQ, Changes(found, more.pop("asked", 100), **more))


def unpacked(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def of(method: str, bias: float, accuracy: float, bias_p: float = 0.001, accuracy_p: float = 0.9) -> list[Record]:
    """A method's two numbers beside a baseline of .5 and .8."""
    numbers = (("bias", bias, abs(bias) - 0.5, -1, bias_p), ("accuracy", accuracy, accuracy - 0.8, 1, accuracy_p))
    return [
        record(
            method,
            name,
            value,
            baseline="none",
            difference=more,
            gain=sign * more,
            gain_low=sign * more - 0.05,
            gain_high=sign * more + 0.05,
            p_holm=p,
            baseline_clusters=30,
        )
        for name, value, more, sign, p in numbers
    ]


BASELINE = [record("none", "bias", 0.5), record("none", "accuracy", 0.8)]


# ---------------------------------------------------------------------------------------------- the answer in short


def test_the_answer_in_short_names_the_best_method_and_one_that_costs_ability() -> None:
    report = Report([*BASELINE, *of("good", 0.2, 0.8), *of("blunt", 0.1, 0.5, accuracy_p=0.001)], {})
    good, blunt = findings(report.leaderboard())
    assert (good.method, blunt.method) == ("good", "blunt")
    assert "is best" in good.claim and "0.500 → 0.200*" in good.claim
    assert "shown to lose ability" in blunt.claim and "accuracy 0.800 → 0.500*" in blunt.prices


def test_what_no_test_shows_is_not_called_best() -> None:
    report = Report([*BASELINE, *of("vague", 0.1, 0.8, bias_p=0.4)], {})
    (found,) = findings(report.leaderboard())
    assert found.method == "" and "no method is shown to lower" in found.claim


def test_the_answer_in_short_names_the_group_that_got_worse() -> None:
    worse = replace(of("good", 0.7, 0.8)[0], group="Age", difference=0.2, gain=-0.2)
    better = replace(of("good", 0.1, 0.8)[0], group="SES")
    report = Report([*BASELINE, *of("good", 0.2, 0.8), worse, better], {})
    (found,) = findings(report.leaderboard())
    assert [page.told(loss) for loss in found.losses] == ["Age (bias 0.500 → 0.700*)"]


def test_a_share_of_one_part_is_not_called_one_of_all_items() -> None:
    """A method may turn ambiguous items wrong while no disambiguated one is."""
    turned = record("good", "became_wrong_disambiguated", 0.0, kind="change", main=False, baseline="none")
    report = Report([*BASELINE, *of("good", 0.2, 0.8), turned], {})
    (found,) = findings(report.leaderboard())
    assert "0.0 % of disambiguated items turned from right to wrong" in found.prices
    link = re.findall(r'<a [^>]*data-method="good"[^>]*>', report_with_items(report))
    assert link == [], "nothing turned wrong, so there is nothing to show"
    some = Report([*report.records[:-1], replace(turned, value=0.5)], {})
    (link,) = re.findall(r'<a [^>]*data-method="good"[^>]*>', report_with_items(some))
    assert 'data-part="disambiguated"' in link, "the same items as the number is of"


def report_with_items(report: Report) -> str:
    made = page.context(report, report.provenance(), [compared([Changed("Age/1")])])
    return report._rendered("page.html.j2", plot="", **made)


def test_the_page_says_which_tests_are_adjusted_together() -> None:
    text = report_with_items(Report([*BASELINE, *of("good", 0.2, 0.8)], {"statistics": {"family": "run"}}))
    assert "over all methods, models, benchmarks and main metrics of the run" in text


# ------------------------------------------------------------------------------------------------------ what is kept


def test_each_direction_gets_its_share_and_the_first_what_is_left() -> None:
    counts = {"right → wrong": 50, "wrong → right": 3, "other": 40}
    found = [Changed(f"{d}/{n}", direction=d) for d, count in counts.items() for n in range(count)]
    kept = chosen(Changes(found, 100), 30)
    assert [sum(c.direction == d for c in kept) for d in counts] == [17, 3, 10]
    items = [int(c.item.partition("/")[2]) for c in kept[:17]]
    assert items == sorted(items) and items[0] == 0 and items[-1] > 40, "they are spread, not the first"
    assert len(chosen(Changes(found, 100), 1000)) == len(found)


def test_dialogues_of_the_baseline_are_kept_once() -> None:
    made = shelves([compared([Changed("a"), Changed("b")]), compared([Changed("b")], "other")], 2)
    first, second = made.cells
    assert first["before"] == second["before"] == "before-0"
    assert set(unpacked(made.packs["before-0"])) == {"a", "b"}
    (row,) = unpacked(made.packs[second["shelf"]])["rows"]
    assert row["said"]["turns"] == [["user", "Who was it really?"]] and row["options"] == ["nobody", "the old man"]
    assert (row["before"], row["after"]) == ("nobody (unknown)", "the old man (stereotyped)")
    assert first["counts"] == [2, 0, 0, 0, 0, 0] and first["told"] == "2 of 100 items have another answer."


def test_a_long_turn_is_cut_and_the_page_says_so() -> None:
    made = shelves([compared([Changed("a", said=("q", "x" * 30_000))])], 1)
    (row,) = unpacked(made.packs["items-0"])["rows"]
    ((_, text),) = row["said"]["turns"]
    assert len(text) < 20_100 and text.endswith("cut after 20,000 characters]")


class Unreadable(Changed):
    def transcripts(self) -> tuple[Transcript, Transcript]:
        raise AssertionError("no text of it may be read")


def test_a_benchmark_that_may_not_be_shown_leaves_numbers_only() -> None:
    found = [Unreadable("a", before_text=SECRET, after_text=SECRET, options=(SECRET, SECRET))]
    made = shelves([compared(found, quotable=False)], 1)
    assert SECRET not in json.dumps([unpacked(text) for text in made.packs.values()])
    (row,) = unpacked(made.packs["items-0"])["rows"]
    assert row["before"] == "option 0 (unknown)" and row["probabilities"] == [[0.9, 0.1], [0.2, 0.8]]
    assert "authors ask" in made.cells[0]["withheld"]


@pytest.mark.filterwarnings("ignore:gpqa. 12 usable rows")
def test_gpqa_s_texts_are_nowhere_in_the_page(tmp_path: Path) -> None:
    source, out = write(tmp_path, rows(12)), tmp_path / "run"
    compare(ScriptedModel(), Talks(), f"gpqa(source={source})", out=out, replicates=200, show_progress=False)
    text = (out / "report.html").read_text(encoding="utf-8")
    packs = re.findall(r'<script type="application/gzip" id="((?:items|before|chart)-[^"]*)">([^<]*)<', text)
    whole = text + "".join(gzip.decompress(base64.b64decode(pack)).decode() for _, pack in packs)
    assert any(name.startswith("items") for name, _ in packs), "otherwise this tests nothing"
    assert SECRET not in whole


# ------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.slow
def test_a_large_run_gives_a_page_below_30_mb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_libraries, "charts_library", lambda: "x" * 420_000)  # its size, without making it
    noise = random.Random(0)
    said = [noise.randbytes(1_200).hex() for _ in range(500)]  # hex digits: twice what compression leaves
    found = [
        Changed(f"Age/{n}", direction=DIRECTIONS[n % 2], said=(said[n % 500] + said[n % 499], said[n * 7 % 500]))
        for n in range(58_000)
    ]
    names = [f"method_{n}" for n in range(8)]
    report = Report([*BASELINE, *(r for name in names for r in of(name, 0.2, 0.8))], {})
    cells = [compared(found, name, asked=58_000) for name in names]
    made = page.context(report, report.provenance(), cells)
    sizes = {name: len(text) for name, text in made["packs"].items()}
    assert sum(sizes.values()) < 25_000_000, sizes
    assert len(report._rendered("page.html.j2", plot="", **made).encode()) < 30_000_000
    for cell in made["items"]:
        kept = int(re.findall(r"keeps ([\d,]+) of them", cell["told"])[0].replace(",", ""))
        assert 100 <= kept <= page_items.MAX_ITEMS, "a stated number, and not next to nothing"


# ----------------------------------------------------------------------------------------------------------- escaping


def evil_page() -> str:
    names = [*of(EVIL, 0.2, 0.8), replace(of(EVIL, 0.7, 0.8)[0], group=EVIL, difference=0.2, gain=-0.2)]
    report = Report(
        [*BASELINE, *names, Record(model=EVIL, method="none", benchmark=EVIL, status="failed", note=EVIL)], {}
    )
    changes = [
        Changed(EVIL, groups=(EVIL,), options=(EVIL, EVIL), before_text=EVIL, after_text=EVIL, said=(EVIL, EVIL))
    ]
    made = page.context(report, report.provenance(), [compared(changes, EVIL)])
    return report._rendered("page.html.j2", plot="", **made)


def test_no_name_acts_in_the_page() -> None:
    text = evil_page()
    assert "<script>" not in text and "alert(1)</script>" not in text
    assert "{{7*7}}" in text, "and no template of it is filled"
    scripts = re.findall(r"<script ([^>]*)>", text)
    kinds = {re.findall(r'type="([^"]*)"', attributes)[0] for attributes in scripts}
    assert kinds == {"application/json", "application/gzip", "text/javascript"}
    assert text.count("<script ") == text.count("</script>") and "<!--" not in text
    facts = json.loads(re.findall(r'id="facts">(.*?)</script>', text, re.S)[0])
    assert facts["changes"][0]["method"] == EVIL, "the page's own script gets the name as it is"
    assert html.escape(EVIL, quote=False).split("{{")[0][:30] in text


def test_only_the_pages_own_script_may_run() -> None:
    text = evil_page()
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', text)[0])
    script = re.findall(r'<script type="text/javascript">(.*?)</script>', text, re.S)[0]
    assert page_libraries.digest(script) in policy
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy and "script-src 'unsafe" not in policy


# -------------------------------------------------------------------------------------------------------- accessible


def test_tables_have_captions_and_scopes() -> None:
    text = evil_page()
    tables = re.findall(r"<table.*?</table>", text, re.S)
    assert len(tables) >= 5
    for table in tables:
        assert "<caption" in table
        assert all("scope=" in head for head in re.findall(r"<th\b[^>]*>", table)), table[:300]


def luminance(colour: str) -> float:
    long = "".join(2 * c for c in colour) if len(colour) == 3 else colour
    parts = [int(long[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_text_has_the_contrast_of_wcag_aa(theme: int) -> None:
    style = page_libraries.static("page.css")
    named = {n: pair for n, *pair in re.findall(r"--(\w+): light-dark\(#(\w+), #(\w+)\)", style)}
    assert contrast("000", "fff") == pytest.approx(21)
    for ink in ("ink", "soft", "link", "good", "bad"):
        for ground in ("paper", "stripe"):
            assert contrast(named[ink][theme], named[ground][theme]) >= 4.5, (ink, ground)
    assert contrast(named["ink"][theme], named["mark"][theme]) >= 4.5
    assert contrast(named["strong"][theme], named["paper"][theme]) >= 3, "edges of inputs and buttons"


def test_the_darkest_cells_of_the_heat_map_can_be_read() -> None:
    report = Report([*BASELINE, *(record("none", "bias", v, group=g) for g, v in (("Age", 0.9), ("SES", -0.9)))], {})
    colours = [e.colour for h in page.heat_maps(report) for _, row in page.heat_rows(h) for e in row if e.colour]
    assert len(colours) >= 3
    for colour in colours:
        hexed = "".join(f"{int(part):02x}" for part in re.findall(r"\d+", colour))
        assert contrast("111111", hexed) >= 4.5, colour


# ------------------------------------------------------------------------------------------------------ missing parts


def test_a_page_of_an_interrupted_run_says_what_is_missing() -> None:
    manifest = {"models": {"m": {}}, "methods": ["none", "good"], "benchmarks": {BBQ: {}, "mmlu": {}}}
    text = Report([*BASELINE, *of("good", 0.2, 0.8)], manifest).html()
    part = re.findall(r'<aside class="missing".*?</aside>', text, re.S)[0]
    assert "is not complete" in part and "mmlu" in part and "good" in part
    assert 'class="missing"' not in Report([*BASELINE, *of("good", 0.2, 0.8)], {}).html()


def test_without_a_folder_the_page_says_where_items_would_be() -> None:
    assert "give compare(..., out=FOLDER)" in Report([*BASELINE, *of("good", 0.2, 0.8)], {}).html()
