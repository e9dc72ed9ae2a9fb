"""The picture of the packages: it is that of the code, it leaves out nothing that does not follow, and can be read."""

from __future__ import annotations

import re
from itertools import product

from tests.documents import ROOT
from tests.test_layers import RANK
from tests.test_site import script

drawing = script("architecture")


def test_the_picture_is_that_of_the_import_graph() -> None:
    text = drawing.FILE.read_text(encoding="utf-8")
    assert drawing.picture(drawing.imports()) == text, "run: python docs/site/architecture.py"
    assert set(re.findall(r">(\w+)</text>", text)) == set(RANK) - {"__main__"}
    assert "docs/images/architecture.svg" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_what_follows_from_other_imports_is_left_out_and_nothing_else() -> None:
    graph = {"a": {"b", "c", "d"}, "b": {"c"}, "c": set[str](), "d": {"c"}}
    assert drawing.reduced(graph) == {"a": {"b", "d"}, "b": {"c"}, "c": set(), "d": {"c"}}
    assert drawing.rows(graph) == {"a": 2, "b": 1, "c": 0, "d": 1}
    whole = drawing.imports()
    shown = drawing.reduced(whole)
    assert all(drawing.below(name, shown) == drawing.below(name, whole) for name in whole)


def test_no_arrow_crosses_another_package() -> None:
    text = drawing.FILE.read_text(encoding="utf-8")
    boxes = [tuple(map(int, b)) for b in re.findall(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)" rx', text)]
    lines = [tuple(map(int, b)) for b in re.findall(r'<line x1="(\d+)" y1="(\d+)" x2="(\d+)" y2="(\d+)"', text)]
    assert len(boxes) == len(RANK) - 1 and len(lines) > len(RANK)
    for (x1, y1, x2, y2), (x, y, width, height) in product(lines, boxes):
        inside = [
            (px, py)
            for px, py in ((x1 + (x2 - x1) * n / 200, y1 + (y2 - y1) * n / 200) for n in range(1, 200))
            if x < px < x + width and y < py < y + height
        ]
        assert not inside
