"""The documentation site is built without a warning, every page can be reached, and every link leads somewhere."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
from tests.documents import ROOT, pages

SITE = ROOT / "docs" / "site"


def script(name: str) -> ModuleType:
    """A file of docs/site as a module."""
    spec = spec_from_file_location(f"docs_site_{name}", SITE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Found(HTMLParser):
    """Where a page leads, what it loads, and what can be named in it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attributes}
        self.names |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        elif tag in ("link", "script", "img", "iframe"):
            self.loaded |= {given[key] for key in ("href", "src") if key in given}


def read(file: Path) -> Found:
    found = Found()
    found.feed(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 35 s of processor time; on a crowded machine many times that
@pytest.mark.skipif(find_spec("sphinx") is None, reason="it needs pip install 'evenhand[docs]'")
def test_the_site_is_built_and_its_links_hold(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, str(SITE / "build_site.py"), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = {file: read(file) for file in site.rglob("*.html") if "_static" not in file.parts}
    for name in ("docs/like_with_like", "notebooks/07_statistics", "cards/methods/pcgu", "reference/commands"):
        assert site / f"{name}.html" in built
    assert not broken(built)
    assert not {url for found in built.values() for url in found.loaded if url.startswith(("http:", "https:", "//"))}
    assert_reached(
        built, site / "docs" / "index.html", without={site / name for name in ("search.html", "genindex.html")}
    )


def broken(built: dict[Path, Found]) -> list[str]:
    """Links to files or places that do not exist."""
    wrong = []
    for page, found in built.items():
        for url in (*found.links, *found.loaded):
            path, _, place = unquote(url).partition("#")
            if url.startswith(("http:", "https:", "mailto:", "data:", "#top")) or url in ("#", ""):
                continue
            target = (page.parent / path.partition("?")[0]).resolve() if path else page
            if not target.is_file() or (place and target in built and place not in built[target].names):
                wrong.append(f"{page.name}: {url}")
    return wrong


def assert_reached(built: dict[Path, Found], start: Path, without: set[Path]) -> None:
    """Every page is reached from the first one by links."""
    known, left = set[Path](), [start]
    while left:
        page = left.pop()
        if page in built and page not in known:
            known.add(page)
            left += [(page.parent / unquote(url).partition("#")[0]).resolve() for url in built[page].links]
    assert built.keys() - known <= without | {start.parents[1] / "index.html", start.parents[1] / "py-modindex.html"}


def test_a_broken_link_of_the_site_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#x">1</a><a href="b.html#y">2</a><a href="c.html">3</a><p id="z">')
    (tmp_path / "b.html").write_text('<p id="x"><a href="a.html#z">4</a><img src="none.png">')
    built = {file: read(file) for file in tmp_path.iterdir()}
    assert sorted(broken(built)) == ["a.html: b.html#y", "a.html: c.html", "b.html: none.png"]
    with pytest.raises(AssertionError):
        assert_reached({**built, tmp_path / "d.html": Found()}, tmp_path / "a.html", without=set())


def test_the_navigation_is_that_of_the_index() -> None:
    source = [
        "# All\n\n## First\n\n- [one](one.md), [again](one.md) and [a part](two.md#part)\n\n## Second\n\n"
        "- [Two](two.md)\n- [top](../TOP.md)\n- [book](../notebooks/a.ipynb)\n- [away](https://a.b/c.md)\n"
    ]
    conf = script("conf")
    conf.add_navigation(None, "docs/index", source)
    trees = source[0].split("```{toctree}")[1:]
    assert [tree.split("```")[0].split() for tree in trees[:2]] == [
        [":hidden:", ":caption:", "First", "One", "</docs/one>"],
        [":hidden:", ":caption:", "Second", "Two", "</docs/two>", "Top", "</TOP>", "Book", "</notebooks/a>"],
    ]
    assert "/cards/methods" in trees[2] and ":glob:" in trees[3]
    other = ["## First\n\n[one](one.md)\n"]
    conf.add_navigation(None, "docs/other", other)
    assert other == ["## First\n\n[one](one.md)\n"]


def test_docstrings_become_what_sphinx_reads() -> None:
    lines = ["All `Item`s of `a * b`, not *this*.", "", "    import a", "", "Example:", "    b = `c`"]
    script("conf").as_rst(None, "", "", None, None, lines)
    assert lines == [
        r"All ``Item``\ s of ``a * b``, not \*this\*.",
        *("", "::", "", "    import a", "", "Example::", "", "    b = ``c``"),
    ]


@pytest.mark.skipif(find_spec("sphinx") is None, reason="it needs pip install 'evenhand[docs]'")
def test_the_site_has_every_page_and_what_the_pages_link(tmp_path: Path) -> None:
    build_site = script("build_site")
    found = set(build_site.sources())
    assert set(pages()) <= found and len(found) == len(list(build_site.sources()))
    assert {ROOT / "findings" / "trl_kto_margin.sh", ROOT / "data" / "prompts" / "en.yaml"} <= found
    assert not {file for file in found if file.is_relative_to(SITE)}
    (tmp_path / "old.md").write_text("of an earlier build")
    build_site.lay_out(tmp_path)
    readme = tmp_path / "README.md"
    before = readme.stat().st_mtime_ns
    build_site.lay_out(tmp_path)
    assert readme.read_bytes() == (ROOT / "README.md").read_bytes() and readme.stat().st_mtime_ns == before
    assert not (tmp_path / "old.md").exists() and (tmp_path / "reference" / "evenhand.rst").is_file()
