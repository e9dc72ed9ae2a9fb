"""The two kinds of inputs: mutated files for readers, and texts for parsers, each judged in the same way."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

from hypothesis import strategies as st
from tests.fuzz import mutations
from tests.fuzz.mutations import Mutation
from tests.fuzz.outcome import Finding, finding
from tests.fuzz.parsers import Parser
from tests.fuzz.readers import Target

Change = tuple[int, list[Mutation]]
"""Which file of a target, and what is changed in it."""
changes: st.SearchStrategy[Change] = st.tuples(st.integers(0, 2**16), mutations.strategy())


def drawn(draws: Random) -> Change:
    """A change as `changes` has it."""
    steps = [
        Mutation(draws.choice(mutations.KINDS), draws.randrange(2**20), draws.randrange(2**20))
        for _ in range(draws.randint(1, 3))
    ]
    return draws.randrange(2**16), steps


def changed_files(target: Target, change: Change) -> dict[str, bytes]:
    """The files of a target after a change of one of them."""
    which, steps = change
    name = sorted(target.files)[which % len(target.files)]
    content = target.files[name]
    for step in steps:
        content = mutations.mutated(name, content, step)
    return {**target.files, name: content}


def written(files: dict[str, bytes], root: Path) -> None:
    """Put files into a folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def of_change(target: Target, change: Change) -> Finding | None:
    """What is wrong with how a reader takes a changed file."""
    root = Path(tempfile.mkdtemp(prefix="fuzz"))
    try:
        written(changed_files(target, change), root)
        return finding(lambda: target.read(root), root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def of_text(parser: Parser, text: str) -> Finding | None:
    """What is wrong with how a parser takes a text."""

    def parse() -> None:
        try:
            parser.parse(text)
        except parser.documented:
            return

    return finding(parse)


def fewer(target: Target, change: Change, kind: str) -> Change:
    """The change without the steps that the finding does not need."""
    which, steps = change
    for n in reversed(range(len(steps))):
        rest = steps[:n] + steps[n + 1 :]
        found = of_change(target, (which, rest)) if rest else None
        if found and found.kind == kind:
            steps = rest
    return which, steps


def shorter(parser: Parser, text: str, kind: str) -> str:
    """The text without the parts, of halves down to single characters, that the finding does not need."""
    size = max(1, len(text) // 2)
    while True:
        for begin in range(0, len(text), size):
            rest = text[:begin] + text[begin + size :]
            found = of_text(parser, rest)
            if found and found.kind == kind:
                text = rest
                break
        else:
            if size == 1:
                return text
            size = max(1, size // 2)


def shown(steps: Sequence[Mutation]) -> str:
    """Changes in one line."""
    return ", ".join(f"{m.kind}({m.where}, {m.what})" for m in steps)
