"""Fuzz for as long as you like: `make fuzz ARGS="--hours 1"`.

Every input has its part of the time of all targets, in rounds. What is found is printed at the end, one line a kind,
and its smallest input is written to a folder: files of readers as they were read, texts of parsers as Python source.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.fuzz import inputs, parsers, readers
from tests.fuzz.outcome import Finding


class Source(NamedTuple):
    """One reader or parser under test."""

    name: str
    drawn: Callable[[random.Random], Any]
    """One input; cheaper than a strategy of hypothesis, whose shrinking is not needed here."""
    judge: Callable[[Any], Finding | None]
    reproducer: Callable[[Any, str, Path], None]
    """Writes the smallest input with the same kind of finding to a folder."""


def main() -> None:
    """Fuzz, print what was found, and end with status 1 where that is anything."""
    options = _options()
    start = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {start}", flush=True)
    sources = [s for s in (*_readers(), *_parsers()) if not options.only or options.only in s.name]
    end = time.monotonic() + 3600 * options.hours
    counts, found = Counter[str](), dict[tuple[str, str], tuple[Source, Any, Finding]]()
    kinds = Counter[tuple[str, str]]()
    for round_number in range(10**9):
        for source in sources:
            _round(source, options.batch, start + round_number, counts, kinds, found)
        total = sum(counts.values())
        print(f"{total:,} inputs, {sum(kinds.values()):,} findings of {len(kinds)} kinds", flush=True)
        if time.monotonic() > end or (options.inputs and total >= options.inputs):
            break
    _report(counts, kinds, found, options.out)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--hours", type=float, default=0.1, help="how long to go on (default: 0.1)")
    options.add_argument("--inputs", type=int, default=0, help="end after so many inputs")
    options.add_argument("--batch", type=int, default=100, help="inputs of a target in a round (default: 100)")
    options.add_argument("--seed", type=int, help="repeat a run; a random one otherwise")
    options.add_argument("--only", default="", help="only targets with this in their name")
    options.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="folder of reproducers")
    return options.parse_args()


def _readers() -> Iterator[Source]:
    for target in readers.targets().values():

        def judge(change: Any, target: readers.Target = target) -> Finding | None:
            return inputs.of_change(target, change)

        def reproducer(change: Any, kind: str, folder: Path, target: readers.Target = target) -> None:
            small = inputs.fewer(target, change, kind)
            inputs.written(inputs.changed_files(target, small), folder)
            (folder / "changes.txt").write_text(inputs.shown(small[1]) + "\n")

        yield Source(f"reader: {target.name}", inputs.drawn, judge, reproducer)


def _parsers() -> Iterator[Source]:
    for parser in parsers.parsers().values():

        def judge(text: Any, parser: parsers.Parser = parser) -> Finding | None:
            return inputs.of_text(parser, text)

        def reproducer(text: Any, kind: str, folder: Path, parser: parsers.Parser = parser) -> None:
            small = text if kind.startswith("hang") else inputs.shorter(parser, text, kind)
            (folder / "text.txt").write_text(ascii(small) + "\n")

        yield Source(f"parser: {parser.name}", partial(parsers.drawn, parser.words), judge, reproducer)


def _round(
    source: Source,
    batch: int,
    start: int,
    counts: Counter[str],
    kinds: Counter[tuple[str, str]],
    found: dict[tuple[str, str], tuple[Source, Any, Finding]],
) -> None:
    draws = random.Random(f"{start} {source.name}")
    for _ in range(batch):
        example = source.drawn(draws)
        counts[source.name.partition(":")[0]] += 1
        result = source.judge(example)
        if result is not None:
            if (source.name, result.kind) not in kinds:
                print(f"{source.name}: {result.kind} -- {result.detail[:200]!a}", flush=True)  # it may be the last word
            kinds[source.name, result.kind] += 1
            found.setdefault((source.name, result.kind), (source, example, result))


def _report(
    counts: Counter[str],
    kinds: Counter[tuple[str, str]],
    found: dict[tuple[str, str], tuple[Source, Any, Finding]],
    out: Path,
) -> None:
    for n, ((name, kind), (source, example, result)) in enumerate(sorted(found.items(), key=lambda item: item[0])):
        folder = out / f"{n:03}"
        folder.mkdir(parents=True, exist_ok=True)
        source.reproducer(example, kind, folder)
        print(f"{kinds[name, kind]:6,} {name}: {kind} -- {result.detail[:200]!a} -> {folder}")
    said = ", ".join(f"{count:,} inputs of {name}s" for name, count in sorted(counts.items()))
    print(f"{said}; {sum(kinds.values()):,} findings of {len(kinds)} kinds")
    raise SystemExit(bool(kinds))


if __name__ == "__main__":
    main()
