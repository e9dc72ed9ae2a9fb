"""Cards of the documentation site, one per method and benchmark, generated from its class and the catalogue.

`python docs/site/build_site.py` generates all pages; nothing is written by hand, so a card cannot be out of date.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from evenhand.cli import catalogue, marked_tables, presets, setting_facts
from evenhand.core import registry, specs
from evenhand.core.catalogue import first_sentence, prompts_per_item
from evenhand.proving_ground.statements import Moves, Statement, Stays, statements
from evenhand.report import bibliography

PAPERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "methods": bibliography.METHODS,
    "benchmarks": bibliography.BENCHMARKS,
}
UP = "../../"
"""Path from a card to the top of the site, where the repository's own pages are."""
PROVING_GROUND = f"[the proving ground]({UP}docs/proving_ground.md)"


def pages(notebooks: Path) -> dict[str, str]:
    """Render all cards and their two lists in Markdown, by their path in the folder of cards.

    Args:
        notebooks: Folder with the notebooks; a card links those whose code names its method or benchmark.
    """
    shown = used_names(notebooks)
    made = {}
    for kind in PAPERS:
        names = registry.BUILT_IN[kind]
        made[f"{kind}.md"] = _list(kind, names)
        made |= {f"{kind}/{name}.md": card(kind, name, shown) for name in names}
    return made


def card(kind: str, name: str, shown: Mapping[str, Sequence[str]]) -> str:
    """Render the card of one method or benchmark.

    Args:
        kind: "methods" or "benchmarks".
        name: Registered name.
        shown: Notebooks that use each name, as `used_names` finds them.

    Raises:
        UnknownNameError: There is no such method or benchmark.
    """
    thing = registry.of_kind(kind).get(name)
    facts = catalogue.entry(kind, name)
    parts = [
        f"# `{name}`",
        facts["about"],
        _table(("", ""), _at_a_glance(kind, name, facts, shown.get(name, ()))),
        _described(thing),
        "## Settings\n\n" + _settings(thing),
        *([f"## Presets\n\n{presets.table(name)}"] if kind == "methods" and thing.presets else []),
        *([f"## Presets\n\n{_presets(thing.presets)}"] if kind == "benchmarks" and thing.presets else []),
        *([f"## On the proving ground\n\n{_effects(name)}"] if kind == "methods" else []),
        *([f"## Metrics\n\n{_metrics(thing)}"] if kind == "benchmarks" else []),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def used_names(notebooks: Path) -> dict[str, list[str]]:
    """Find the notebooks whose code names each method or benchmark; their file names, by name.

    Raises:
        OSError: A notebook cannot be read.
    """
    found: dict[str, list[str]] = {}
    names = {name for kind in PAPERS for name in registry.BUILT_IN[kind]} - {"none"}
    for file in sorted(notebooks.glob("*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for name in names & set(re.findall(r"\w+", code)):
            found.setdefault(name, []).append(file.name)
    return found


def _list(kind: str, names: Sequence[str]) -> str:
    """Render the page that lists all cards of a kind, and puts them into the navigation."""
    rows = [(f"[`{name}`]({kind}/{name}.md)", first_sentence(_about(kind, name))) for name in names]
    tree = "\n".join(f"`{name}` <{kind}/{name}>" for name in names).replace("`", "")
    return "\n\n".join(
        [
            f"# {kind.capitalize()}, one by one",
            "Written from the code of this version.",
            _table((kind.removesuffix("s"), "what it does" if kind == "methods" else "what it measures"), rows),
            f"```{{toctree}}\n:hidden:\n\n{tree}\n```\n",
        ]
    )


def _about(kind: str, name: str) -> str:
    return inspect.getdoc(registry.of_kind(kind).get(name)) or ""


def _at_a_glance(kind: str, name: str, facts: Mapping[str, Any], notebooks: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the facts that help a reader to choose."""
    yield "source", "; ".join(_cited(key) for key in PAPERS[kind].get(name, ())) or facts.get("source") or "ours"
    if kind == "methods":
        yield "needs of the model", facts.get("needs", "nothing")
        yield "trains on", facts.get("trains on", "nothing")
        yield "prompts per item", facts.get("calls per question", "")
        yield "example", _code(facts["example"])
        yield "sweep", _code(facts["sweep"]) if "sweep" in facts else ""
    else:
        thing = registry.of_kind(kind).get(name)
        yield "needs of the model", ", ".join(sorted(thing.needs)) or "depends on the settings"
        yield "prompts per item", _prompts(name)
        yield "example", _code(f"evenhand compare --benchmarks {name}")
        yield "texts may be quoted", "yes" if thing.quotable else "no: reports have numbers only"
        yield "training on it", f"not allowed: {thing.evaluation_only}" if thing.evaluation_only else ""
    yield "notebooks", ", ".join(f"[{_title(one)}]({UP}notebooks/{one})" for one in notebooks)
    yield "class", _code(f"{facts['defined in']}.{registry.of_kind(kind).get(name).__name__}")


def _prompts(benchmark: str) -> str:
    """Describe the prompts per item without a method; a method multiplies them by its own."""
    counted = prompts_per_item(benchmark)
    asked = ", ".join(f"{count:g} ({ability})" for ability, count in counted.items())
    return f"{asked}, with default settings on the demo" if asked else "none: it reads the weights"


def _title(notebook: str) -> str:
    """A notebook's name in words."""
    return notebook.removesuffix(".ipynb").replace("_", " ")


def _described(thing: type) -> str:
    """Return the module docstring (sources, formulas, departures) below a heading; "" if there is none."""
    text = inspect.getdoc(sys.modules[thing.__module__]) or ""
    return f"## What it does\n\n{text}" if text else ""


def _settings(thing: Any) -> str:
    """Render the settings with default, values and description."""
    documented = thing.__pydantic_fields__
    found = [(field.name, setting_facts.parts(field.name, thing, documented)) for field in fields(thing) if field.init]
    if not found:
        return "None."
    rows = [(_code(name), _code(one.default), one.values, one.about) for name, one in found]
    return _table(("setting", "default", "values", "what it is"), rows)


def _presets(given: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (_code(name), ", ".join(_code(f"{key}={value!r}") for key, value in values.items()))
        for name, values in given.items()
    ]
    return _table(("preset", "what it sets"), rows)


def _metrics(thing: Any) -> str:
    return _table(("metric", "what it is", "better"), [(_code(m.name), m.about, m.direction) for m in thing.metrics])


@cache
def _statements() -> Mapping[str, Statement]:
    return statements()


def _effects(name: str) -> str:
    """Render a method's statements about models whose bias is known: what it moves, and with what side effects."""
    found = {key: said for key, said in _statements().items() if name in _methods_in(said.spec or key)}
    if not found:
        return f"It has no statement that {PROVING_GROUND} could test."
    rows = []
    for key, said in found.items():
        trained = f", trained on {_code(said.train)}" if said.train else ""
        where = f"{_code(said.spec or key)} on {', '.join(said.models)}{trained}"
        lines: list[Moves | Stays] = [*said.moves, *said.stays]
        rows += [("" if n else where, *_line(line)) for n, line in enumerate(lines)]
    return "\n\n".join(
        [
            f"What {PROVING_GROUND} tests, on models whose true bias is known:",
            f"    evenhand proving-ground effects --methods {','.join(found)}",
            _table(("applied as", "quantity", "groups", "must", "known side effect"), rows),
        ]
    )


def _methods_in(spec: str) -> set[str]:
    """Return the names in a stack of methods."""
    return {part.partition("(")[0] for part in specs.split(spec, "+")}


def _line(line: Moves | Stays) -> tuple[str, str, str, str]:
    """Format quantity, groups, demand and side effect of one line of a statement."""
    groups = ", ".join(line.groups) or "all together"
    if isinstance(line, Moves):
        most = f" and at most {line.at_most:g}" if line.at_most < float("inf") else ""
        return line.quantity, groups, f"move towards {line.towards:g} by at least {line.at_least:g}{most}", ""
    must = f"stay within {line.within:g}" if line.within is not None else f"fall at most {line.falls_at_most:g}"
    return line.quantity, groups, must, line.side_effect


def _cited(key: str) -> str:
    """Format authors, year and title of a bibliography entry, linked to arXiv if it is there."""
    given: dict[str, str] = dict(re.findall(r"^  (\w+) = \{(.*)\},$", bibliography.entries()[key], re.M))
    title = re.sub(r"[{}]", "", given["title"]).replace("``", "“").replace("''", "”")
    named = f"{_authors(given.get('author', given.get('key', '')))} {given['year']}, {title}"
    return f"[{named}](https://arxiv.org/abs/{given['eprint']})" if "eprint" in given else named


def _authors(text: str) -> str:
    """Format BibTeX's authors for a sentence: "A and others" becomes "A et al."."""
    names = text.split(" and ")
    if names[-1] == "others":
        return f"{', '.join(names[:-1])} et al."
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _code(text: str) -> str:
    """Format a text as code in a cell of a table."""
    return f"`{text}`" if text else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]] | Iterator[Sequence[str]]) -> str:
    """Render a Markdown table, without rows that are empty after their first cell."""
    return marked_tables.table(head, ([cell.replace("|", "\\|") for cell in row] for row in rows if any(row[1:])))
