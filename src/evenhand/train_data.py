"""What methods fit on: read from a file, a benchmark or the proving ground, and kept apart from what is asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evenhand import registry
from evenhand.cache import key
from evenhand.data.proving_ground import practice
from evenhand.errors import DataError, SettingsError, suggest
from evenhand.interfaces import Benchmark, Choice, Question, TrainData

TrainLike = TrainData | str | Path
KEYS = ("id", "context", "question", "options", "answer", "text")
DEMO, TEXTS = "demo", "texts"


class Loaded(NamedTuple):
    """Training data, and which of it is not independent of a benchmark's items."""

    data: TrainData
    clusters: tuple[str, ...] = ()
    """Per question "benchmark/cluster", where it comes from a benchmark; such as a template."""


class Kept(NamedTuple):
    """Training data without what is asked."""

    data: TrainData
    left_out: int
    """Questions and texts that are asked too, or that share a template with what is asked."""


def load(what: TrainLike) -> Loaded:
    """Read training data.

    Args:
        what: Training data; a file of JSON lines, each with "question", "options" and, if known, "answer" (an index or
            an option's text), "context" and "id", or with a "text"; a .txt file of texts, parted by blank lines;
            "demo", the practice questions of the proving ground, or one kind of them, such as "demo:mmlu", or so many
            of these, "demo:mmlu:400"; "demo:texts", practice texts; or a multiple-choice benchmark, such as
            "bbq(source=hub)", of which is taken what is not asked.

    Raises:
        DataError: The file is not there or cannot be read; the line is named.
        SettingsError: It is none of these.
    """
    if isinstance(what, TrainData):
        return Loaded(what)
    text = str(what)
    scheme, _, kind = text.partition(":")
    if scheme == DEMO:
        return Loaded(_practice(kind))
    path = Path(text).expanduser()
    if path.is_file():
        return Loaded(_texts(path) if path.suffix == ".txt" else _lines(path))
    if path.suffix in (".jsonl", ".json", ".txt") or "/" in text.partition("(")[0]:
        raise DataError(f"no training file {text!r}")
    return _of_benchmark(registry.build_benchmark(text))


def digest(data: TrainData) -> str:
    """Hash of training data."""
    return key([_plain(q) for q in data.questions], data.answers, data.texts)[:32]


def without(loaded: Loaded, asked: Sequence[tuple[Benchmark, Sequence[Any]]]) -> Kept:
    """Training data without what any benchmark asks: the same text, or a template of the same benchmark.

    Raises:
        SettingsError: Nothing is left.
    """
    texts, clusters = _asked(asked)
    data = loaded.data
    own = loaded.clusters or ("",) * len(data.questions)
    rows = [
        i
        for i, (q, cluster) in enumerate(zip(data.questions, own, strict=True))
        if cluster not in clusters and _identity(q) not in texts
    ]
    answers = data.answers or (None,) * len(data.questions)
    kept = TrainData(
        tuple(data.questions[i] for i in rows), tuple(answers[i] for i in rows),
        tuple(t for t in data.texts if _normal(t) not in texts),
    )  # fmt: skip
    left_out = len(data.questions) + len(data.texts) - len(kept.questions) - len(kept.texts)
    if not kept.questions and not kept.texts:
        raise SettingsError(
            "nothing is left to train on: all of it is asked too, or shares a template with what is asked; give other "
            "training data, or ask fewer items (limit)"
        )
    return Kept(kept, left_out)


def facts(kept: Kept) -> dict[str, Any]:
    """Plain facts for the manifest."""
    data = kept.data
    counts = {"questions": len(data.questions), "texts": len(data.texts), "left_out": kept.left_out}
    return {**counts, "sha256": digest(data)}


def _practice(wanted: str) -> TrainData:
    """Of "", "KIND" or "KIND:COUNT"."""
    if not wanted:
        return practice.mixed()
    kind, _, count = wanted.partition(":")
    if count and not (count.isdigit() and int(count)):
        raise SettingsError(f"demo:{wanted}: {count!r} is no number of questions; write demo:{kind}:400")
    if kind == TEXTS:
        return TrainData(texts=practice.texts(int(count or practice.TEXTS)))
    for known in practice.KINDS:
        if kind == known:
            return practice.practice(known, int(count or practice.COUNT))
    raise SettingsError(f"no practice questions of kind {kind!r}. {suggest(kind, (*practice.KINDS, TEXTS))}")


def _texts(path: Path) -> TrainData:
    parts = (part.strip() for part in _read(path).split("\n\n"))
    return TrainData(texts=tuple(part for part in parts if part))


def _lines(path: Path) -> TrainData:
    rows = list(_parsed(path))
    questions = [_question(row, f"{path}:{n}") for n, row in rows if "question" in row]
    names = Counter(q.id for q, _ in questions)
    if double := [name for name, count in names.items() if count > 1]:
        raise DataError(f"{path}: the id {double[0]!r} is there more than once")
    texts = tuple(str(row["text"]) for _, row in rows if "question" not in row)
    return TrainData(tuple(q for q, _ in questions), tuple(a for _, a in questions), texts)


def _parsed(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for n, line in enumerate(_read(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{n} is no JSON: {error}") from error
        if not isinstance(row, dict) or not ("question" in row or "text" in row):
            raise DataError(f'{path}:{n}: an object with "question" and "options", or with "text", was expected')
        for name in row:
            if name not in KEYS:
                raise DataError(f"{path}:{n}: unknown key {name!r}. {suggest(name, KEYS)}")
        yield n, row


def _question(row: dict[str, Any], where: str) -> tuple[Question, int | None]:
    options = row.get("options")
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(o, str) for o in options):
        raise DataError(f'{where}: "options" must be a list of at least two texts, not {options!r}')
    answer = row.get("answer")
    if isinstance(answer, str) and options.count(answer) == 1:
        answer = options.index(answer)
    if answer is not None and (type(answer) is not int or not 0 <= answer < len(options)):
        raise DataError(f'{where}: "answer" is {answer!r}: neither one of the options nor an index of one')
    name = str(row.get("id", where))
    return Question(name, str(row["question"]), tuple(options), context=str(row.get("context", ""))), answer


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the training file {path}: {error}") from error


def _of_benchmark(benchmark: Benchmark) -> Loaded:
    items = benchmark.items()
    if not items or not isinstance(getattr(items[0], "question", None), Question):
        raise SettingsError(f"{benchmark.name} has no multiple-choice questions to train on")
    questions = tuple(item.question for item in items)
    return Loaded(
        TrainData(questions, tuple(_right(benchmark, items))), tuple(_cluster(benchmark, item) for item in items)
    )


def _right(benchmark: Benchmark, items: Sequence[Any]) -> list[int | None]:
    """The right options: those that the benchmark marks as right."""
    found: list[int | None] = [None] * len(items)
    for option in range(max(len(item.question.options) for item in items)):
        for i, mark in enumerate(benchmark.marks(items, [Choice(option)] * len(items)) or ()):
            found[i] = option if mark.right else found[i]
    return found


def _asked(asked: Sequence[tuple[Benchmark, Sequence[Any]]]) -> tuple[set[Any], set[str]]:
    texts: set[Any] = set()
    clusters: set[str] = set()
    for benchmark, items in asked:
        clusters |= {_cluster(benchmark, item) for item in items}
        for question in _questions(items):
            texts |= {_identity(question), _normal(f"{question.context} {question.question}")}
    return texts, clusters


def _questions(items: Iterable[Any]) -> Iterator[Question]:
    """The questions of items, whatever they are called there."""
    for item in items:
        for value in (getattr(item, name, None) for name in ("question", "tested", "held_out")):
            yield from (value,) if isinstance(value, Question) else value if isinstance(value, tuple) else ()


def _cluster(benchmark: Benchmark, item: Any) -> str:
    return f"{benchmark.name}/{item.cluster}"


def _identity(question: Question) -> tuple[str, frozenset[str]]:
    return _normal(f"{question.context} {question.question}"), frozenset(map(_normal, question.options))


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _plain(question: Question) -> tuple[Any, ...]:
    return question.id, question.head, question.context, question.question, question.options, question.order
