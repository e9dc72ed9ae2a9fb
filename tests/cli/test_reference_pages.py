"""Cards and the page of commands: written from the classes and the parser, with what a reader wants to know."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.documents import links

from evenhand.cli import reference_cards, reference_commands
from evenhand.core import registry
from evenhand.core.catalogue import prompts_per_item
from evenhand.errors import UnknownNameError
from evenhand.interfaces import Choice, Dialogue, Method, Passage, Question, Reply, Sampling, Score, settings
from evenhand.testing import ScriptedModel

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference_cards.pages(NOTEBOOKS)


def rows(page: str) -> list[list[str]]:
    """The cells of all tables."""
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_method_and_benchmark_has_a_card_and_is_listed(pages: dict[str, str]) -> None:
    cards = {f"{kind}/{name}.md" for kind in ("methods", "benchmarks") for name in registry.BUILT_IN[kind]}
    assert pages.keys() == cards | {"methods.md", "benchmarks.md"}
    listed = {target for kind in ("methods", "benchmarks") for target in links(pages[f"{kind}.md"])}
    assert listed == cards
    assert all(page.startswith("# ") and page.endswith("\n") for page in pages.values())


@pytest.mark.parametrize("kind", ["methods", "benchmarks"])
def test_a_card_has_every_setting_preset_and_metric(kind: str, pages: dict[str, str]) -> None:
    for name in registry.BUILT_IN[kind]:
        thing = registry.of_kind(kind).get(name)
        first = {row[0] for row in rows(pages[f"{kind}/{name}.md"])}
        assert {f"`{setting}`" for setting in thing.__pydantic_fields__} <= first, name
        if kind == "benchmarks":
            assert {f"`{metric.name}`" for metric in thing.metrics} <= first, name
        for preset in thing.presets:
            assert f"`{preset}`" in pages[f"{kind}/{name}.md"], name


def test_tables_are_whole(pages: dict[str, str]) -> None:
    for name, page in pages.items():
        widths = [len(row) for table in re.findall(r"(?:^\|.*\n)+", page, re.M) for row in rows(table)]
        assert set(widths) <= {2, 3, 4, 5}, name
        for table in re.findall(r"(?:^\|.*\n)+", page, re.M):
            assert len({len(row) for row in rows(table)}) == 1, (name, table.splitlines()[0])


def test_what_the_card_of_a_method_says(pages: dict[str, str]) -> None:
    card = pages["methods/self_debias.md"]
    told = dict(row for row in rows(card) if len(row) == 2)
    assert told["source"].startswith("[Gallegos et al. 2025, Self-Debiasing") and "2402.01981" in told["source"]
    assert told["needs of the model"] == "choose or generate" and told["prompts per item"] == "2"
    assert "(../../notebooks/03a_methods_prompting.ipynb)" in told["notebooks"]
    setting = next(row for row in rows(card) if row[0] == "`max_new_tokens`")
    assert setting[1:3] == ["`64`", "an integer > 0"] and "25 in the paper" in setting[3]
    effects = [row for row in rows(card) if len(row) == 5]
    first = next(row for row in effects if row[0] == "`self_debias` on demo")
    assert first[1:4] == ["ambiguous bias", "Age, Gender_identity, SES, Religion", "move towards 0 by at least 0.08"]
    assert ["", "reading", "all together", "fall at most 0.25", "planted over-abstention after a reprompt"] in effects


def test_what_the_card_of_a_benchmark_says(pages: dict[str, str]) -> None:
    told = dict(row for row in rows(pages["benchmarks/gpqa.md"]) if len(row) == 2)
    assert told["texts may be quoted"].startswith("no") and told["needs of the model"] == "choose"
    metric = next(row for row in rows(pages["benchmarks/bbq.md"]) if row[0] == "`bias_ambiguous`")
    assert metric[2] == "zero"
    assert dict(row for row in rows(pages["benchmarks/perplexity.md"]) if len(row) == 2)["source"] == "ours"


class Counting(ScriptedModel):
    """Answers at once, and counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(abilities=frozenset({"choose", "generate", "score"}))
        self.asked: Counter[str] = Counter()

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.asked["choose"] += len(questions)
        return super().choose(questions)

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        self.asked["generate"] += len(dialogues)
        return super().generate(dialogues)

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        self.asked["score"] += len(passages)
        return [Score(-1.0, 3)] * len(passages)


READ_WEIGHTS = {"disco", "seat", "winoqueer"}


@pytest.mark.filterwarnings("ignore:all .* draws:UserWarning")  # b_score: the answers are all the same
@pytest.mark.parametrize("name", [name for name in registry.BUILT_IN["benchmarks"] if name not in READ_WEIGHTS])
def test_an_item_takes_as_many_prompts_as_the_catalogue_says(name: str) -> None:
    benchmark, model = registry.build_benchmark(f"{name}(source=demo)"), Counting()
    items = benchmark.load()[:8]
    benchmark.ask(model, items)
    assert {verb: count / len(items) for verb, count in model.asked.items()} == prompts_per_item(name)


def test_the_catalogue_counts_every_benchmark() -> None:
    names = registry.BUILT_IN["benchmarks"]
    assert {name for name in names if not prompts_per_item(name)} == {"disco", "seat"}
    assert prompts_per_item("none of these") == {}
    assert "42.5 (score), with default settings" in reference_cards.card("benchmarks", "holistic_bias", {})
    assert "| prompts per item | none: it reads the weights |" in reference_cards.card("benchmarks", "seat", {})


def test_the_statements_of_a_method_are_found_by_their_spec(pages: dict[str, str]) -> None:
    assert "`instruction(wording=self_awareness)` on demo" in pages["methods/instruction.md"]
    assert "effects --methods permutation,permutation_" in pages["methods/permutation.md"]
    assert (
        "It has no statement" in pages["methods/none.md"] and "proving-ground effects" not in pages["methods/none.md"]
    )


def test_a_notebook_is_linked_where_its_code_names_the_method(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "code", "source": ["evenhand.compare('demo', methods='pcgu(epochs=1),none')"]},
        {"cell_type": "markdown", "source": ["`steering` is elsewhere."]},
    ]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    assert reference_cards.used_names(tmp_path) == {"pcgu": ["a.ipynb"]}
    card = reference_cards.card("methods", "pcgu", {"pcgu": ["a.ipynb"]})
    assert "| notebooks | [a](../../notebooks/a.ipynb) |" in card
    with pytest.raises(UnknownNameError):
        reference_cards.card("methods", "pcgus", {})


def test_a_cell_with_a_bar_stays_one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    @settings
    class Odd(Method):
        """Odd."""

        name = "odd"
        sign: str = "|"
        """Either a|b."""

        def apply(self, model, data=None):  # type: ignore[no-untyped-def]
            return model

    assert rows(reference_cards._settings(Odd))[1] == ["`sign`", "`'\\|'`", "text", "Either a\\|b."]


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("liusie2024teacher", "[Liusie, Fathullah and Gales 2024, "),
        ("reif2024beyond", "[Reif and Schwartz 2024, "),
        ("smith2022sorry", "[Smith et al. 2022, “I'm sorry to hear that”"),
        ("cmaf2026", "CMAF 2026, Cross-Model Adjudication"),
    ],
)
def test_authors_are_written_as_in_a_sentence(entry: str, shown: str) -> None:
    assert reference_cards._cited(entry).startswith(shown)


def test_every_command_has_its_options_as_the_parser_has_them() -> None:
    page = reference_commands.page()
    names = {name for name, _ in reference_commands.commands()}
    assert {"compare", "data fetch", "new method", "proving-ground effects"} <= names
    sections = dict(zip(names, [""] * len(names), strict=True)) | {
        part.partition("\n")[0]: part for part in page.split("\n## evenhand ")[1:]
    }
    assert sections.keys() == names
    assert "| `--margin` |  | Largest loss of capability" in sections["compare"]
    assert "| `--model`, `-m` + |" in sections["compare"] and "evenhand compare [RUN] [OPTIONS]" in sections["compare"]
    assert "| `FOLDER` | required |" in sections["card"] and "| `--port` | `8000` |" in sections["serve"]
    for name, command in reference_commands.commands():
        options = {option for one in command.params for option in one.opts if option.startswith("--")} - {"--help"}
        assert all(f"`{option}`" in sections[name] for option in options), name
