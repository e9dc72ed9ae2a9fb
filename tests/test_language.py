"""`lint/language.py` finds the expressions that new text should avoid, and only those that are new."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[1] / "lint" / "language.py"


@pytest.fixture
def language() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("evenhand_lint_language", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def found(some: Any) -> list[tuple[int, str]]:
    return sorted((f.line, f.expression) for f in some)


def test_docstrings_comments_messages_and_names_of_python_are_read(language: ModuleType) -> None:
    source = '''"""This is no
method."""
held_out = 1  # it goes on
raise ValueError(f"{held_out} lies behind it")
most_tokens = held_out.behind
'''
    assert found(language.in_python(source)) == [
        (1, "is no"),
        (3, "goes on"),
        (3, "held_out"),
        (4, "behind"),
        (5, "held_out"),
        (5, "most_*, least_*"),
    ]


def test_beginnings_of_docstrings_that_need_the_name_above_them_are_found(language: ModuleType) -> None:
    source = '''"""From a row to sums."""
SEED = 1
"""Of the draw."""


class A:
    """Axes that are asked."""

    size: int = 1
    """Most tokens in a batch."""

    def stratum(self, item):
        """The category."""

    def ask(self, items):
        """Ask all questions.

        Args:
            items: Per question its text.
            seed: Of the draws.
        """
'''
    assert found(language.in_python(source)) == [
        (1, "docstring fragment"),
        (3, "docstring Of"),
        (10, "docstring Most, Least"),
        (13, "docstring noun"),
        (19, "docstring Of"),
        (20, "docstring Of"),
    ]


@pytest.mark.parametrize(
    "source",
    [
        '"""Offers of a shop, from the first one on."""\n',
        'SEED = 1\n"""Seed of the draw."""\n',
        'SEED = 1\n"""The category."""\n',
        'def f():\n    """Return the category."""\n',
        'def f():\n    """The same question with its options in another order."""\n',
        'def f():\n    """Most of the texts, as many as fit."""\n',
        'def f():\n    return g("Of the draw.")\n',
        "x = 1  # Of the draw.\n",
    ],
)
def test_docstrings_that_stand_alone_are_left_alone(language: ModuleType, source: str) -> None:
    assert found(language.in_python(source)) == []


def test_rates_are_written_with_per(language: ModuleType) -> None:
    assert found(language.in_markdown("Two calls a question, one a row.\n\nIt gives each one a name.\n")) == [
        (1, "one a row"),
        (1, "one a row"),
    ]


def test_code_and_quotations_in_docstrings_and_comments_are_left_out(language: ModuleType) -> None:
    source = '''def f():
    """After `Model.behind`: "it is no lamb", as the paper says.

    It lies behind.
    """
    # "goes on" is what `is no` was
    raise ValueError(f"{behind} is {no} {x!r} beside")
'''
    assert found(language.in_python(source)) == [(4, "behind"), (7, "beside")]


def test_strings_that_are_data_are_left_out(language: ModuleType) -> None:
    source = '"""It is no word."""\nWORDS = ("hid behind the door",)  # beside it\nmost_words = 1\n'
    expected = [(1, "is no"), (2, "beside"), (3, "most_*, least_*")]
    assert found(language.in_python(source, data=True)) == expected
    assert (2, "behind") in found(language.in_python(source))


def test_names_of_the_standard_library_are_left_alone(language: ModuleType) -> None:
    assert found(language.in_python("Counter(a).most_common()[0]\n")) == []


def test_strings_that_are_names_are_left_alone(language: ModuleType) -> None:
    assert found(language.in_python('MOVED = {"leakage": "a", "engine.forest": "b", "in a forest": 1}\n')) == [
        (1, "forest")
    ]


def test_every_old_setting_name_of_the_table_is_found(language: ModuleType) -> None:
    names = ["most_tokens", "least_gain", "held_out", "warm_up", "warm_up_steps", "locality", "framed", "Mark"]
    lines = [f"{name} = 1" for name in names]
    assert [f.text for f in language.in_python("\n".join(lines) + "\n")] == lines


@pytest.mark.parametrize(
    "name",
    [
        *["topics", "categories", "share", "keep", "batch", "accumulate", "held_out", "most_tokens", "least_gain"],
        *["retain", "locality", "warm_up", "validation", "micro", "clip", "least", "after", "head", "without"],
    ],
)
@pytest.mark.parametrize(
    "head",
    [
        "@settings\nclass A:",
        "@interfaces.settings\nclass A(Base):",
        "class A(Method):",
        "class A(QuestionBenchmark[Item]):",
        "class A(training.TrainedMethod, Mixin):",
    ],
)
def test_every_old_name_of_a_setting_is_found(language: ModuleType, head: str, name: str) -> None:
    findings = list(language.in_python(f'{head}\n    rate: float = 1\n    {name}: int = 1\n    """Some."""\n'))
    assert [f.text for f in findings] == [f"{name}: int = 1"]


@pytest.mark.parametrize(
    "source",
    [
        "class A(NamedTuple):\n    share: float\n    keep: bool\n",
        "@dataclass\nclass A(Model):\n    batch: int = 1\n",
        "class A(Method):\n    keep: ClassVar[bool] = True\n    batch_size: int = 1\n\n    def share(self): pass\n",
        "def keep(share: float) -> None:\n    batch: int = 1\n",
        "@old_fields(warm_up='warmup_steps')\nclass A: pass\n",
        "@renaming.old_arguments(held_out='validation_fraction')\ndef a(): pass\n",
    ],
)
def test_names_that_are_not_old_settings_are_left_alone(language: ModuleType, source: str) -> None:
    assert found(language.in_python(source)) == []


def test_markdown_is_read_outside_code(language: ModuleType) -> None:
    text = "It is\nno `behind` code.\n\n    behind\n\n```\nbehind\n```\n\nAnd beside it, *besides*.\n"
    assert found(language.in_markdown(text)) == [(1, "is no"), (10, "beside")]
    quoted = '> It stands behind it.\n\nThe paper says "it is no wonder" and goes on.\n'
    assert found(language.in_markdown(quoted)) == [(3, "goes on")]


def test_text_cells_of_notebooks_are_read(language: ModuleType) -> None:
    cells = [
        {"cell_type": "code", "source": ["# behind"]},
        {"cell_type": "markdown", "source": ["One\n", "behind another"]},
    ]
    assert found(language.in_notebook(json.dumps({"cells": cells}))) == [(2, "behind")]


@pytest.mark.parametrize(
    "text",
    [
        "It is no longer here.",
        "There is no such file; where there\nis no pair, it stops.",
        "Based on the table.",
        "He amended it.",
        "going on the list",
        "It went on to win.",
        "They are told apart by their words.",
        "nobody is",
    ],
)
def test_good_english_is_left_alone(language: ModuleType, text: str) -> None:
    assert found(language.in_text(text)) == []


def test_only_more_than_the_baseline_is_reported(language: ModuleType) -> None:
    some = {"a.py": list(language.in_text("behind\nbehind\nbeside"))}
    assert language.report(some, {"a.py": {"behind": 2, "beside": 1}}) == []
    lines = language.report(some, {"a.py": {"behind": 1, "beside": 1}})
    assert lines[0].startswith("a.py: 2 times 'behind', 1 in the baseline; write 'after, following' instead.")
    assert lines[1:] == ["  a.py:1: behind", "  a.py:2: behind"]


def test_the_baseline_shrinks_and_follows_moved_files_but_never_grows(language: ModuleType) -> None:
    some = {"new.py": list(language.in_text("behind"))}
    assert language.more_in_all(some, {"old.py": {"behind": 1}}) == []
    assert language.more_in_all(some, {"old.py": {"beside": 1}}) == ["'behind': 1, 0 in the baseline"]


def test_only_a_new_expression_may_enter_the_baseline(
    language: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(language, "ROOT", tmp_path)
    monkeypatch.setattr(language, "BASELINE", tmp_path / "baseline.json")
    for name in language.PROSE:
        (tmp_path / name).write_text("It is good.\n")
    (tmp_path / "README.md").write_text("It stands behind it.\n")
    assert language.main([]) == 1
    assert language.main(["--update"]) == 0 and language.main([]) == 0
    (tmp_path / "CONTRIBUTING.md").write_text("It stands behind it, beside it.\n")
    assert language.main([]) == language.main(["--update"]) == 1
    assert language.main(["--update", "behind"]) == language.main(["--update", "behind", "beside"]) == 1
    (tmp_path / "CONTRIBUTING.md").write_text("It is beside it.\n")
    assert language.main(["--update"]) == 1
    assert language.main(["--update", "beside"]) == 0 and language.main([]) == 0
