"""Every relative link of the documentation leads to a file or heading that exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.documents import ROOT, anchors, links, pages, text_of


def broken(page: Path, text: str) -> list[str]:
    """Targets that do not exist, and headings that the target does not have."""
    wrong = []
    for target in links(text):
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page.resolve()
        inside = file.is_relative_to(ROOT) or not page.is_relative_to(ROOT)
        if (
            not file.exists()
            or not inside
            or (heading and heading not in anchors(text if file == page.resolve() else text_of(file)))
        ):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    assert not broken(page, text_of(page))


def test_every_page_has_its_place_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    listed = {
        (index.parent / target.partition("#")[0]).resolve() for target in links(text_of(index)) if "#" not in target
    }
    assert listed == {page.resolve() for page in pages()} - {index}


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# A `b`: c, d\n\n## Twice\n\n## Twice\n\n```\n# no heading\n```\n")
    text = (
        "# Here\n[1](other.md) [2](other.md#a-b-c-d) [3](#here) [4](other.md#twice-1) [5](https://a.b/c) `[6](no.md)`\n"
    )
    page.write_text(text)
    assert not broken(page, text)
    wrong = ["none.md", "other.md#no-heading", "#there", "other.md#twice-2"]
    assert broken(page, text + " ".join(f"[x]({target})" for target in wrong)) == wrong
