"""Every command that the documentation names is taken by the real parser, with specifications that can be built."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.documents import ROOT, commands, pages, shell_lines, text_of

from evenhand.cli import reference_cards, reference_commands
from evenhand.core import registry, specs
from evenhand.errors import EvenhandError
from evenhand.proving_ground.statements import statements

CHECKED = [page for page in pages() if page.name != "CHANGELOG.md"]
"""Every page but the history, whose commands were those of their time."""
PLUGINS = {
    "fairly",
    "shout",
    "same_word",
    "fair_prompt",
    "fair_weights",
    "capitals",
    "coin",
    "imitation",
    "mine",
    "who_was_it",
}
"""Methods and benchmarks that the documentation writes itself."""
PLACEHOLDER = re.compile(r"[A-Z_]{1,}|.*\.\.\..*|<.*>|\[.*\]|…")
"""What stands for a word of the reader's."""


def refusal(words: Sequence[str]) -> str:
    """Why the parser does not take a command; "" where it does.

    Args:
        words: What follows `evenhand`; a placeholder is left out, or stands for any value of a parameter.
    """
    known = dict(reference_commands.commands())
    names = [" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known]
    if not names:
        groups = {name.partition(" ")[0] for name in known}
        only_name = not words or words[0].startswith("--") or PLACEHOLDER.fullmatch(words[0]) or words[0] in groups
        return "" if only_name and len(words) <= 1 else f"there is no command {words[:2]}"
    command, rest = known[names[0]], words[len(names[0].split()) :]
    numbers = {opt for one in command.params for opt in one.opts if one.type_descriptor.annotation in (int, float)}
    rest = ["1" if PLACEHOLDER.fullmatch(word) and rest[n - 1] in numbers else word for n, word in enumerate(rest)]
    given = any(not word.startswith("-") for word in rest)
    try:
        # Prose names a command with an option and leaves the rest out: what is required may be missing there.
        context = command.make_context(names[0], list(rest), resilient_parsing=not given)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return _unknown_statement(context.params) if names[0] == "proving-ground effects" else _unbuildable(context.params)


def _unknown_statement(params: dict[str, Any]) -> str:
    unknown = set((params.get("methods") or "").split(",")) - {"", *statements()}
    return f"no statements: {sorted(unknown)}" if unknown else ""


def _unbuildable(params: dict[str, Any]) -> str:
    """Why a method or benchmark among the parameters cannot be built."""
    for parameter, build in (("methods", registry.build_method), ("benchmarks", registry.build_benchmark)):
        for spec in specs.split(params.get(parameter) or "", ","):
            name = spec.partition("(")[0].partition("+")[0].strip()
            if name in PLUGINS or name == "all" or PLACEHOLDER.fullmatch(spec):
                continue
            try:
                build(spec)
            except EvenhandError as error:
                return f"{parameter}: {error}"
    return ""


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_taken_by_the_parser(page: Path) -> None:
    found = {shlex.join(words): refusal(words) for words in commands(text_of(page), "evenhand")}
    assert not {line: why for line, why in found.items() if why}


def test_the_commands_of_cards_are_taken_by_the_parser() -> None:
    cards = reference_cards.pages(ROOT / "notebooks")
    found = {line: refusal(line) for text in cards.values() for line in map(tuple, commands(text, "evenhand"))}
    assert not {line: why for line, why in found.items() if why}
    assert len(found) > len(cards)


def test_the_documentation_has_commands_in_every_form() -> None:
    found = [words for page in CHECKED for words in commands(text_of(page), "evenhand")]
    assert {words[0] for words in found if words} >= {"compare", "evaluate", "debias", "serve", "reproduce", "new"}
    assert len(found) > 100


@pytest.mark.parametrize(
    "line",
    [
        "compare --benchmark bbq",
        "compare --limit many",
        "compair",
        "compare --methods self_debias(variants=explanation)",
        "compare --methods self_debais",
        "compare --benchmarks bbq(convention=helmet)",
        "data fetsh bbq",
        "data fetch bbq --too here",
        "proving-ground effects --methods self_debais",
    ],
)
def test_a_wrong_command_is_refused(line: str) -> None:
    assert refusal(line.split())


def test_lines_for_a_shell_are_found() -> None:
    text = "Run `evenhand doctor`.\n\n    evenhand a --b 'c d'  # e\n\n```\n$ evenhand f \\\n  --g | tail -n 7\n```\n\n"
    text += "```python\nevenhand h\n```\n"
    assert sorted(commands(text, "evenhand")) == [["a", "--b", "c d"], ["doctor"], ["f", "--g"]]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_targets_of_make_exist(page: Path) -> None:
    variables = set(re.findall(r"^([A-Z]+) \?=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for words in commands(text_of(page), "make"):
        for word in words:
            assert word.partition("=")[0] in (variables if "=" in word else targets()), words


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_modules_and_scripts_that_python_is_to_run_exist(page: Path) -> None:
    for line in shell_lines(text_of(page)):
        if module := re.match(r"(?:\S*/)?python3? -m (evenhand[\w.]*)", line):
            assert importlib.util.find_spec(module[1]), line
        elif script := re.match(r"(?:\S*/)?python3? ((?:benchmarks|docs|findings|lint)/\S+\.py)", line):
            assert (ROOT / script[1]).is_file(), line
