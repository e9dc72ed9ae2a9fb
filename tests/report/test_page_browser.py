"""The decision page in a browser: sort, filter and open an item, with no error and no request.

It takes a Chromium that is installed already; none is downloaded.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.browser import PROGRAMS, Page
from tests.report.test_page import BASELINE, EVIL, Changed, compared, of, record

from evenhand.report import Report, page
from evenhand.report.changes import DIRECTIONS

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, PROGRAMS)), reason=f"none of {', '.join(PROGRAMS)} is installed (apt install chromium)"
)
AMPERSAND = f"{EVIL} & <img src=x onerror=alert(2)> AT&amp;T"
ITEMS = [
    Changed(
        f"Age/{n}" if n % 2 else f"SES/{n}",
        direction=DIRECTIONS[n % 3],
        groups=("Age",) if n % 2 else ("SES",),
        part="disambiguated" if n % 5 == 0 else "ambiguous",
        said=(f"first words {n}", f"other words {n}"),
    )
    for n in range(40)
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [*BASELINE, *of("good", 0.2, 0.8), *of("blunt(k=2)", 0.1, 0.5, accuracy_p=0.001), *of(EVIL, 0.3, 0.8)]
    names = dict.fromkeys(r.method for r in records if r.baseline)
    turned = dict(kind="change", direction="none", main=False, baseline="none")
    report = Report([*records, *(record(name, "became_wrong", 0.25, **turned) for name in names)], {})
    evil = Changed(
        EVIL, groups=(EVIL,), options=(EVIL, EVIL), before_text=EVIL, after_text=EVIL, said=(EVIL, AMPERSAND)
    )
    made = page.context(report, report.provenance(), [compared(ITEMS, "good"), compared([evil], EVIL)])
    out = tmp_path_factory.mktemp("page") / "report.html"
    out.write_text(report._rendered("page.html.j2", plot="", **made), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def open_page(file: Path) -> Iterator[Page]:
    with Page(file) as opened:
        opened.until("document.documentElement.dataset.ready")
        opened.until("document.documentElement.dataset.ready !== 'tables'")
        yield opened


def texts(opened: Page, selector: str) -> list[str]:
    found: list[str] = opened.value(
        f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.innerText.trim())"
    )
    return found


def methods(opened: Page) -> list[str]:
    return texts(opened, "#leaderboard tbody th")


def choose(opened: Page, name: str, value: str) -> None:
    opened.value(
        f"(s => {{ s.value = {json.dumps(value)}; s.dispatchEvent(new Event('change')); }})"
        f"(document.getElementById('changes-{name}'))"
    )


def search(opened: Page, selector: str, text: str) -> None:
    opened.value(f"(i => {{ i.focus(); i.select(); }})(document.querySelector({json.dumps(selector)}))")
    opened.write(text)
    if not text:
        opened.value("(i => { i.value = ''; i.dispatchEvent(new Event('input')); })(document.activeElement)")


def test_the_leaderboard_sorts_by_pointer_and_by_keyboard(open_page: Page) -> None:
    assert methods(open_page)[0] == "none"
    head = "[...document.querySelectorAll('#leaderboard thead th')].find(h => h.innerText.startsWith('accuracy'))"
    open_page.value(f"{head}.click()")
    open_page.until("document.querySelector('#leaderboard tbody th').innerText.startsWith('blunt')")
    assert open_page.value(f"{head}.getAttribute('aria-sort')") == "ascending"
    open_page.value(f"({head}.querySelector('[tabindex]') ?? {head}).focus()")
    open_page.press("Enter")
    open_page.until(f"{head}.getAttribute('aria-sort') === 'descending'")
    assert methods(open_page)[-1] == "blunt(k=2)"


def test_the_leaderboard_filters(open_page: Page) -> None:
    search(open_page, "#leaderboard-title ~ * input[type=search]", "blunt")
    open_page.until("document.querySelectorAll('#leaderboard tbody tr').length === 1")
    assert methods(open_page) == ["blunt(k=2)"]
    search(open_page, "#leaderboard-title ~ * input[type=search]", "")
    open_page.until("document.querySelectorAll('#leaderboard tbody tr').length === 4")


def test_items_are_filtered_by_direction_axis_and_words(open_page: Page) -> None:
    choose(open_page, "method", "good")
    open_page.until("document.getElementById('changes-count').innerText.startsWith('40 of 100')")
    assert texts(open_page, "#changes-table tbody button.open") == [DIRECTIONS[0]] * 10, "right → wrong first"
    assert "wrong → right (13)" in texts(open_page, "#changes-direction option")
    choose(open_page, "direction", "1")
    choose(open_page, "axis", "Age")
    expected = sorted(c.item for c in ITEMS if c.direction == DIRECTIONS[1] and c.groups == ("Age",))
    assert sorted(texts(open_page, "#changes-table tbody td.item")) == expected
    choose(open_page, "direction", "")
    choose(open_page, "axis", "")
    search(open_page, "#changes-all input[type=search]", '"other words 17"')
    open_page.until("document.querySelectorAll('#changes-table tbody td.item').length === 1")
    assert texts(open_page, "#changes-table tbody td.item") == ["Age/17"], "the words stand in a dialogue only"


def test_an_item_opens_with_the_keyboard_and_shows_both_dialogues(open_page: Page) -> None:
    open_page.value("document.querySelector('button.open').focus()")
    open_page.press("Enter")
    (before, after) = texts(open_page, "#changes-table .sides section")
    assert "Before: none" in before and "first words 17" in before and "✓ nobody" in before and "0.900" in before
    assert "After: good" in after and "other words 17" in after and "✓ the old man" in after and "0.800" in after
    lefts = open_page.value("[...document.querySelectorAll('.sides section')].map(s => s.getBoundingClientRect().left)")
    assert lefts[0] < lefts[1], "side by side"
    assert open_page.value("document.querySelector('button.open').getAttribute('aria-expanded')") == "true"
    open_page.press("Enter")
    assert texts(open_page, ".sides") == []
    search(open_page, "#changes-all input[type=search]", "")


def test_a_name_that_looks_like_markup_is_shown_as_it_is(open_page: Page) -> None:
    choose(open_page, "method", EVIL)
    open_page.until("document.getElementById('changes-count').innerText.startsWith('1 of 100')")
    open_page.value("document.querySelector('button.open').click()")
    plain = " ".join(EVIL.split())
    assert texts(open_page, "td.item") == [plain]
    assert all(plain in text for text in texts(open_page, ".sides section"))


def test_a_search_makes_no_markup_of_what_it_looks_through(open_page: Page) -> None:
    choose(open_page, "method", EVIL)
    open_page.until("document.getElementById('changes-count').innerText.startsWith('1 of 100')")
    for words, found in (("onerror=alert(2)> AT&amp;T", 1), ("onerror=alert(2)> AT&T", 0)):
        search(open_page, "#changes-all input[type=search]", f'"{words}"')
        open_page.until(f"document.querySelectorAll('#changes-table tbody td.item').length === {found}")
    search(open_page, "#changes-all input[type=search]", "")
    assert open_page.messages == []


def test_items_are_filtered_by_part(open_page: Page) -> None:
    choose(open_page, "method", "good")
    open_page.until("document.getElementById('changes-count').innerText.startsWith('40 of 100')")
    choose(open_page, "part", "disambiguated")
    assert texts(open_page, "#changes-table tbody td.part") == ["disambiguated"] * 8
    choose(open_page, "part", "")


def test_a_link_in_the_leaderboard_shows_its_items(file: Path) -> None:
    with Page(file) as opened:
        opened.until("document.documentElement.dataset.ready === 'all'")
        choose(opened, "method", EVIL)
        links = texts(opened, "#leaderboard td a")
        assert len(links) == 2, "of the two methods whose items are kept"
        opened.value(
            "[...document.querySelectorAll('#leaderboard td a')].find(a => a.dataset.method === 'good').click()"
        )
        opened.until("document.getElementById('changes-method').value === 'good'")
        opened.until("document.getElementById('changes-direction').value === '0'")
        assert opened.value("document.getElementById('changes-method').value") == "good"
        assert set(texts(opened, "#changes-table tbody button.open")) == {"right → wrong"}


def test_a_point_of_the_chart_names_method_and_settings(open_page: Page) -> None:
    assert open_page.value("document.querySelectorAll('#pareto svg.marks').length") == 1
    open_page.value("document.getElementById('pareto').scrollIntoView({block: 'center'})")
    places = open_page.value(
        "[...document.querySelectorAll('#pareto .mark-symbol.role-mark path')].map(p => p.getBoundingClientRect())"
        ".map(b => [b.x + b.width / 2, b.y + b.height / 2])"
    )
    told = []
    for x, y in places:
        open_page.point(x, y)
        open_page.value("new Promise(done => setTimeout(done, 50))")
        told += texts(open_page, "#vg-tooltip-element")
    assert len(told) == 4
    (blunt,) = [text for text in told if "blunt(k=2)" in text]
    assert "k=2" in blunt.replace("blunt(k=2)", "") and "0.100" in blunt and "0.500" in blunt


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_window_needs_no_sideways_scrolling_of_the_page(file: Path, dark: bool) -> None:
    with Page(file, width=420, dark=dark) as opened:
        opened.until("document.documentElement.dataset.ready === 'all'")
        assert opened.value("document.documentElement.scrollWidth") <= 420
        ground = "getComputedStyle(document.body).backgroundColor"
        light, black = "rgb(255, 255, 255)", "rgb(22, 24, 27)"
        assert opened.value(ground) == (black if dark else light)
        opened.value("document.getElementById('theme').click()")
        assert opened.value(ground) == (light if dark else black)


def test_nothing_is_requested_and_nothing_goes_wrong(open_page: Page, file: Path) -> None:
    """The last one of this page: it covers all that was done before."""
    assert open_page.value("document.documentElement.dataset.ready") == "all"
    assert open_page.messages == []
    outside = [url for url in open_page.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [file.resolve().as_uri()]
