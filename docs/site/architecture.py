"""Draws the packages of evenhand and what they import, from the import graph: the picture in CONTRIBUTING.md.

    python docs/site/architecture.py      writes docs/images/architecture.svg; a test fails where that is out of date

An arrow leads to a package that is imported. One that follows from others is left out: where a imports b and b imports
c, an arrow from a to c says nothing new about the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp

FILE = Path(__file__).resolve().parents[1] / "images" / "architecture.svg"
COLUMNS = {
    "data": -2,
    "evaluation": 1,
    "integrations": 2,
    "metrics": -1,
    "report": 1,
    "statistics": 2,
    "testing": -2,
    "training": -1,
}
"""Where a package stands in its row, from the middle: such that no arrow crosses another package. Others: 0."""
WIDTH, HEIGHT = 132, 34
STEP_X, STEP_Y = 164, 66
MARGIN = 12


def imports() -> dict[str, set[str]]:
    """Each package, or module at the top, with those that its modules import, lazily and for types included."""
    graph = grimp.build_graph("evenhand", exclude_type_checking_imports=False, cache_dir=None)
    found: dict[str, set[str]] = {_package(module): set() for module in graph.modules}
    for module in graph.modules:
        for target in graph.find_modules_directly_imported_by(module):
            found[_package(module)].add(_package(target))
    for entrance in ("", "__main__"):  # evenhand itself, which gives names of all packages, and its command
        found.pop(entrance, None)
    return {name: targets - {name, ""} for name, targets in found.items()}


def _package(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def below(name: str, graph: Mapping[str, Iterable[str]]) -> set[str]:
    """Everything that a package imports, directly or not."""
    return {one for target in graph[name] for one in (target, *below(target, graph))}


def reduced(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The graph without the imports that follow from others."""
    return {name: targets - {far for near in targets for far in below(near, graph)} for name, targets in graph.items()}


def rows(graph: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """How many packages at most lie below each one, one on top of another."""
    found: dict[str, int] = {}

    def row(name: str) -> int:
        found[name] = found.get(name, 1 + max((row(target) for target in graph[name]), default=-1))
        return found[name]

    for name in graph:
        row(name)
    return found


def picture(graph: Mapping[str, set[str]]) -> str:
    """The graph as SVG, without what follows from other imports."""
    shown, row = reduced(graph), rows(graph)
    columns = [COLUMNS.get(name, 0) for name in graph]
    left, top = min(columns), max(row.values())
    at = {
        name: (
            MARGIN + (COLUMNS.get(name, 0) - left) * STEP_X + WIDTH // 2,
            MARGIN + (top - row[name]) * STEP_Y + HEIGHT // 2,
        )
        for name in graph
    }
    width = 2 * MARGIN + (max(columns) - left) * STEP_X + WIDTH
    height = 2 * MARGIN + top * STEP_Y + HEIGHT
    arrows = [_arrow(at[name], at[target]) for name in sorted(graph) for target in sorted(shown[name])]
    return "\n".join([*_head(width, height), *arrows, *(_box(name, *at[name]) for name in sorted(graph)), "</svg>\n"])


def _head(width: int, height: int) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="14" text-anchor="middle">',
        "<title>The packages of evenhand and what they import</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#5b6b7b"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
    ]


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    return (
        f'<line x1="{start[0]}" y1="{start[1] + HEIGHT // 2}" x2="{end[0]}" y2="{end[1] - HEIGHT // 2}" '
        'stroke="#5b6b7b" marker-end="url(#tip)"/>'
    )


def _box(name: str, x: int, y: int) -> str:
    rect = f'<rect x="{x - WIDTH // 2}" y="{y - HEIGHT // 2}" width="{WIDTH}" height="{HEIGHT}" rx="6"'
    return f'{rect} fill="#eaf1fb" stroke="#2f5f9e"/><text x="{x}" y="{y + 5}" fill="#14273f">{name}</text>'


if __name__ == "__main__":
    FILE.write_text(picture(imports()), encoding="utf-8")
