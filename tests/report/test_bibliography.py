"""Every method and benchmark has its source, and an entry says what the method's own description says."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from tests.report.test_exports import record

import evenhand.data
from evenhand.core import registry
from evenhand.report import Report
from evenhand.report.bibliography import BENCHMARKS, METHODS, OWN, bibtex, entries

NAMED = [("methods", name) for name in METHODS] + [("benchmarks", name) for name in BENCHMARKS]


def field(entry: str, name: str) -> str:
    found = re.search(rf"^  {name} = \{{(.*)\}},$", entry, re.M)
    return found[1] if found else ""


def test_every_built_in_name_has_a_source_or_is_ours() -> None:
    built_in = {*registry.BUILT_IN["methods"], *registry.BUILT_IN["benchmarks"]}
    assert {*METHODS, *BENCHMARKS, *OWN} == built_in
    assert not {*METHODS, *BENCHMARKS} & {*OWN}
    assert {key for keys in [*METHODS.values(), *BENCHMARKS.values()] for key in keys} == set(entries())


@pytest.mark.parametrize(("kind", "name"), NAMED)
def test_the_sources_agree_with_the_descriptions(kind: str, name: str) -> None:
    place = registry.of_kind(kind).place(name) or ""
    files = [Path(import_module(place.partition(":")[0]).__file__ or "")]
    files += sorted(Path(evenhand.data.__file__ or "").parent.glob("*.py")) if kind == "benchmarks" else []
    said = " ".join(" ".join(file.read_text(encoding="utf-8").split()) for file in files)
    for key in {"methods": METHODS, "benchmarks": BENCHMARKS}[kind][name]:
        entry = entries()[key]
        number, title = field(entry, "eprint"), field(entry, "title").replace("{", "").replace("}", "")
        assert (number or title) in said, f"{key}: {number or title} is not in the description of {name}"


@pytest.mark.parametrize("key", sorted(entries()))
def test_entries_are_whole(key: str) -> None:
    entry = entries()[key]
    assert entry.count("{") == entry.count("}") and entry.startswith("@")
    assert field(entry, "title") and re.fullmatch(r"(19|20)\d\d", field(entry, "year"))
    assert field(entry, "author") or field(entry, "key")
    number = field(entry, "eprint")
    assert not number or re.fullmatch(r"\d{4}\.\d{4,5}", number)
    assert bool(field(entry, "doi")) == bool(field(entry, "pages")) == (key in ("parrish2022bbq", "nangia2020crows"))


def test_what_was_used_is_cited_once() -> None:
    text = bibtex(
        ["pcgu(edit_fraction=0.3)+preference", "pcgu", "none"], ["bbq(source=demo)", "perplexity"], version="1.2"
    )
    keys = re.findall(r"^@\w+\{(\w+),", text, re.M)
    assert keys == ["evenhand", "yu2023unlearning", "dige2024mitigating", "rafailov2023direct", "parrish2022bbq"]
    assert "Software, version 1.2" in text and "%" not in text


def test_the_benchmark_whose_questions_are_asked_is_cited_as_well() -> None:
    text = bibtex([], ["option_order(of='mmlu(shots=0)')"])
    assert "hendrycks2021measuring" in text and "zheng2023selectors" in text


def test_a_plugin_gets_a_comment_in_which_nothing_acts() -> None:
    text = bibtex(["mine@{x}(a=1)", "bad(("], [])
    comments = [line for line in text.splitlines() if line.startswith("%")]
    assert [re.findall(r"source of (.*) is known", line) for line in comments] == [["mine??x?"], ["bad"]]
    assert text.count("@") == 1


def test_a_report_cites_what_has_numbers() -> None:
    rows = [record("self_debias", "bias", 0.1), record("none (generation, T=1)", "bias", 0.1)]
    lost = record("pride", "bias", 0.1, status="failed")
    manifest = {"models": {"m": {"trained_by": "looc(seed=1)"}}, "started": "2026-02-03", "versions": {"evenhand": "9"}}
    text = Report([*rows, lost], manifest).bibtex()
    keys = re.findall(r"^@\w+\{(\w+),", text, re.M)
    assert keys == ["evenhand", "gallegos2025selfdebiasing", "reif2024beyond", "parrish2022bbq"]
    assert "year = {2026}" in text and "version 9" in text and "No source" not in text
