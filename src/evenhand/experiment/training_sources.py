"""Training data read from a file, a benchmark, a data set of the hub, or a registered source such as demo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core import registry, specs
from evenhand.data import pairs as pair_maker
from evenhand.data import text_source
from evenhand.data.civil_comments import THRESHOLD, toxic_comments
from evenhand.data.io import rows
from evenhand.data.sets import for_evaluation
from evenhand.data.stereoset import check_count
from evenhand.errors import REASON, SHOWN, DataError, SettingsError, UnknownNameError, short, suggest
from evenhand.interfaces import FIRST_NAMES, Benchmark, Pair, Question, QuestionItem, TrainData

TrainLike = TrainData | Benchmark | str | Path | Sequence["TrainData | Benchmark | str | Path"]
PAIR = {
    name: FIRST_NAMES.get(name, name) for name in ("stereotyped", "counter_stereotyped", "prompt", "suffix", "axis")
}
"""Keys of a pair in a file, each with its first name, which files may still have."""
KEYS = tuple(dict.fromkeys(["id", "context", "question", "options", "answer", "text", *PAIR, *PAIR.values()]))
DEMO, PAIRS, STEREOSET = "demo", "pairs", "stereoset"
PUBLISHED_PAIRS = ("bbq", "winogender", "winobias", "stereoset")
"""Benchmarks that messages name first if another one has no pairs."""
STEREOSET_TEXTS = {"tv2k": ("intersentence",), "tv14k": ("intersentence", "intrasentence")}
"""The training texts of Dige et al. 2024 as far as they are StereoSet's, and the kinds of examples they are of."""
COMMENTS = ("comments", "toxicity", "comment_count")
"""Settings of "stereoset:tv14k" that concern its toxic comments."""


class Clusters(NamedTuple):
    """Clusters ("benchmark/cluster"), such as templates, of questions, texts and pairs from a benchmark.

    Each field has one name per item ("" if the item comes from elsewhere), or none at all if no item has a cluster.
    """

    questions: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()


class Loaded(NamedTuple):
    """Training data, and which of it is not independent of a benchmark's items."""

    data: TrainData
    clusters: Clusters = Clusters()


def load(what: TrainLike) -> Loaded:
    """Read training data.

    Args:
        what: `TrainData`, a `Benchmark` whose questions are taken, or a text that names a source; several sources as a
            list, or as one text with " & " between them, are read as one.

            - a file of JSON lines, each with "question", "options" and, if known, "answer" (an index or an option's
              text), "context" and "id"; or with a "text"; or a pair with "stereotyped", "counter_stereotyped" and,
              where there is any, "prompt", "suffix", "axis" and "id";
            - a .txt file of texts separated by empty lines (either kind of file may be gzipped, with the ending .gz);
            - "datasets:NAME[@CONFIGURATION][:SPLIT[:COLUMN]]", all texts of a data set of the hub;
            - "demo", practice questions of the proving ground, or one kind of them, such as "demo:mmlu", or so many of
              these, "demo:mmlu:400"; "demo:texts", practice texts; "demo:pairs[:AXIS][:COUNT]", pairs;
              "demo:biased[:AXIS][:COUNT]", texts that say what the stereotypes of an axis say;
            - the name of a plugin's source, with what it takes after a colon;
            - a multiple-choice benchmark, such as "bbq(source=hub)";
            - "pairs:BENCHMARK", the pairs in bbq (its ambiguous questions), winogender, winobias, stereoset or a
              plugin's benchmark with `pairs`, with settings as in "pairs:bbq(part=fit)";
            - "stereoset:tv2k", StereoSet's examples between sentences, each as context and stereotype;
              "stereoset:tv14k" has those within a sentence too, and with "stereoset:tv14k(comments=PATH)" the toxic
              ones among Civil Comments (a file, or 'datasets:google/civil_comments'; toxicity=0.5 and
              comment_count=None say which). The number of StereoSet's examples is checked against the published one.

    Raises:
        DataError: The file is not there or cannot be read; the line is named.
        SettingsError: It is none of these, or it must not be trained on (`Benchmark.evaluation_only`).
    """
    if not isinstance(what, Benchmark | Path | Sequence):  # `TrainData` and texts are sequences, too
        raise SettingsError(
            f"train={what!r} ({type(what).__name__}) is not training data: give a file, the name of a source such as "
            "demo, a benchmark, evenhand.interfaces.TrainData, or a list of these"
        )
    if isinstance(what, TrainData):
        return Loaded(what)
    if isinstance(what, Benchmark):
        return _of_benchmark(what)
    if isinstance(what, str | Path):
        return _joined([_source(one) for one in _split(what)])
    return _joined([load(one) for one in what])


def _split(what: str | Path) -> list[str]:
    """Split a text into its sources; a file whose name has the separator is one."""
    text = str(what)
    parts = [text] if Path(text).expanduser().is_file() or "&" not in text else specs.split(text, "&")
    if not parts or not all(part.strip() for part in parts):
        raise SettingsError("no training data is named; give a file, a benchmark or demo")
    return parts


def _source(text: str) -> Loaded:
    scheme, _, rest = text.partition(":")
    if scheme in registry.training_sources:
        return Loaded(text_source.registered(scheme, rest))
    if scheme == PAIRS:
        return _pairs_of(registry.build_benchmark(rest))
    if scheme == STEREOSET:
        return _stereoset_texts(rest)
    if text.startswith(text_source.HUB):
        return Loaded(TrainData(texts=tuple(text_source.texts(text))))
    path = Path(text).expanduser()
    if path.is_file():
        plain = path.with_suffix("") if path.suffix == ".gz" else path
        return Loaded(TrainData(texts=tuple(text_source.texts(text))) if plain.suffix == ".txt" else _lines(path))
    if path.suffix in (".jsonl", ".json", ".txt", ".gz") or "/" in text.partition("(")[0]:
        raise DataError(f"no training file {text!r}")
    name = specs.parse(text).name
    if name not in registry.benchmarks:
        raise _unknown(name)
    return _of_benchmark(registry.build_benchmark(text))


def _unknown(name: str) -> SettingsError:
    """Make the error for a name that no source has, with similar names and the kinds of sources."""
    head, colon, _ = name.partition(":")
    if colon and head in registry.benchmarks:
        return SettingsError(
            f"{name!r} is not a source of training data: the settings of a benchmark go in brackets, as in "
            f"{head}(name=value), and its pairs are {PAIRS}:{head}"
        )
    sources = registry.training_sources.names()
    kinds = (
        f"A source is a file (.jsonl or .txt, also .gz), {', '.join(sources)}, {text_source.HUB}NAME (a data set of "
        f"the hub), {PAIRS}:BENCHMARK, {STEREOSET}:{f' or {STEREOSET}:'.join(STEREOSET_TEXTS)}, or a benchmark of "
        "multiple-choice questions (`evenhand benchmarks` lists them)"
    )
    known = [*sources, PAIRS, text_source.HUB.rstrip(":"), *registry.benchmarks.names()]
    return UnknownNameError("source of training data", head, known, kinds)


def _joined(parts: Sequence[Loaded]) -> Loaded:
    """Join all sources. A question or pair that is in several is kept once; texts may be repeated.

    Raises:
        SettingsError: There is no source.
        DataError: Two different questions have the same id.
    """
    if len(parts) == 1:
        return parts[0]
    if not parts:
        raise SettingsError("no training data is named; give a file, a benchmark or demo")
    questions: dict[Question, tuple[int | None, str]] = {}
    pairs: dict[Pair, str] = {}
    for data, clusters in parts:
        answers = data.answers or (None,) * len(data.questions)
        own = named(clusters.questions, data.questions)
        for question, answer, cluster in zip(data.questions, answers, own, strict=True):
            questions.setdefault(question, (answer, cluster))
        for pair, cluster in zip(data.pairs, named(clusters.pairs, data.pairs), strict=True):
            pairs.setdefault(pair, cluster)
    _no_double([q.id for q in questions], "the training data")
    texts = tuple(t for data, _ in parts for t in data.texts)
    text_clusters = tuple(c for data, clusters in parts for c in named(clusters.texts, data.texts))
    found = TrainData(tuple(questions), tuple(answer for answer, _ in questions.values()), texts, tuple(pairs))
    return Loaded(found, Clusters(tuple(c for _, c in questions.values()), text_clusters, tuple(pairs.values())))


def named(clusters: Sequence[str], items: Sequence[Any]) -> Sequence[str]:
    """Return a cluster per item, "" if none is known."""
    return clusters or ("",) * len(items)


def cluster_of(benchmark: Benchmark, item: Any) -> str:
    """Return the cluster of an item, distinct from those of other benchmarks."""
    return f"{benchmark.name}/{item.cluster}"


# ----------------------------------------------------------------------------------------------------- files


def _lines(path: Path) -> TrainData:
    """Read questions, texts and pairs of a file; rows with cells that cannot be used are counted in one warning."""
    questions, texts, pairs, refused = [], [], [], []
    for number, row in _parsed(path):
        where = f"{path}:{number}"
        try:
            if "question" in row:
                questions.append(_question(row, where))
            elif "stereotyped" in row:
                pairs.append(_pair(row, where))
            elif str(row["text"]).strip():  # an empty text is left out as text_source does
                texts.append(rows.words(row["text"], "text"))
        except rows.Refused as error:
            refused.append(f"{where}: {error}")
    if refused and not (questions or texts or pairs):
        raise DataError(f"{path} holds nothing to train on; first problem: {short(refused[0], REASON)}")
    text_source.warn_of(refused)
    _no_double([q.id for q, _ in questions], str(path))
    return TrainData(tuple(q for q, _ in questions), tuple(a for _, a in questions), tuple(texts), tuple(pairs))


def _no_double(names: Sequence[str], where: str) -> None:
    if double := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{where}: the id {double[0]!r} is there more than once")


def _parsed(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for n, row in text_source.objects(path):
        if not row.keys() & {"question", "text", "stereotyped"}:
            raise DataError(
                f'{path}:{n}: an object with "question" and "options", with "text", or with "stereotyped" and '
                '"counter_stereotyped", was expected'
            )
        for name in row:
            if name not in KEYS:
                raise DataError(f"{path}:{n}: unknown key {short(name, SHOWN)!r}. {suggest(name, KEYS)}")
        yield n, row


def _question(row: dict[str, Any], where: str) -> tuple[Question, int | None]:
    """Read the question of a row and its right option.

    Raises:
        Refused: A cell cannot be used.
    """
    given = row.get("options")
    if not isinstance(given, list) or len(given) < 2:
        raise rows.Refused(f'"options" must be a list of at least two texts, not {given!r}')
    options = rows.texts(given, "options")
    rows.different({f"options[{n}]": option for n, option in enumerate(options)}, case=True)
    answer = row.get("answer")
    if isinstance(answer, str) and options.count(answer.strip()) == 1:
        answer = options.index(answer.strip())
    if answer is not None and (type(answer) is not int or not 0 <= answer < len(options)):
        raise rows.Refused(f'"answer" is {answer!r}: neither one of the options nor an index of one')
    context = row.get("context")
    context = "" if context is None or context == "" else rows.words(context, "context")
    return Question(_id(row, where), rows.text(row, "question"), tuple(options), context=context), answer


def _pair(row: dict[str, Any], where: str) -> Pair:
    """Read the pair of a row; blanks are kept, as they separate a prompt from what follows it.

    Raises:
        Refused: A cell cannot be used.
    """
    values = {}
    for name, first in PAIR.items():
        key = first if first in row else name
        if first != name and first in row and name in row:
            raise rows.Refused(f'"{first}" is the old name of "{name}", and both are given')
        value = values[name] = row.get(key, "")
        if not isinstance(value, str) or (name in ("stereotyped", "counter_stereotyped") and not value.strip()):
            raise rows.Refused(f'"{key}" of a pair must be a text, not {value!r}')
    if values["stereotyped"] == values["counter_stereotyped"]:
        raise rows.Refused(f"both sides of the pair are {values['stereotyped']!r}")
    return Pair(**values, id=_id(row, where))


def _id(row: dict[str, Any], where: str) -> str:
    """Return the row's id; 6 and "6" are one, and a row without one is known by its place."""
    return where if row.get("id") is None else rows.identifier(row, "id")


# ------------------------------------------------------------------------------------------------ benchmarks


def _refuse_evaluation_only(benchmark: Benchmark) -> None:
    """Refuse a benchmark that must not be trained on, also if another one asks its items.

    Raises:
        SettingsError: It must not be trained on; the message has the reason.
    """
    for one in (benchmark, benchmark.original):
        if one.evaluation_only:
            raise for_evaluation(one.name, one.evaluation_only)


def _of_benchmark(benchmark: Benchmark) -> Loaded:
    _refuse_evaluation_only(benchmark)
    items = benchmark.load()
    questions = [item.question for item in items if isinstance(item, QuestionItem)]
    if not questions or len(questions) != len(items) or not isinstance(questions[0], Question):
        raise SettingsError(f"{benchmark.name} has no multiple-choice questions to train on")
    gold = benchmark.gold(items) or [None] * len(items)
    clusters = tuple(cluster_of(benchmark.original, item) for item in items)
    return Loaded(TrainData(tuple(questions), tuple(gold)), Clusters(clusters))


def _pairs_of(benchmark: Benchmark) -> Loaded:
    """Read the pairs in a benchmark."""
    _refuse_evaluation_only(benchmark)
    if benchmark.pairs([]) is None:
        known = ", ".join(f"pairs:{name}" for name in _with_pairs())
        raise SettingsError(f"pairs:{benchmark.name}: no pairs are made of it; there are {known}")
    found = [
        (pair, cluster_of(benchmark.original, item))
        for item in benchmark.load()
        for pair in benchmark.pairs([item]) or ()
    ]
    if not found:
        raise SettingsError(f"pairs:{benchmark.spec} has no pair")
    return Loaded(TrainData(pairs=tuple(p for p, _ in found)), Clusters(pairs=tuple(c for _, c in found)))


def _with_pairs() -> list[str]:
    """List the benchmarks that have pairs, in the order in which messages name them."""
    found = [name for name, cls in registry.benchmarks.load_all().items() if cls.pairs is not Benchmark.pairs]
    return sorted(found, key=lambda name: PUBLISHED_PAIRS.index(name) if name in PUBLISHED_PAIRS else len(found))


def _stereoset_texts(wanted: str) -> Loaded:
    """Read the texts of "tv2k" or "tv14k", with or without settings of the benchmark and of comments in brackets."""
    name = wanted.partition("(")[0].strip()
    if name not in STEREOSET_TEXTS:
        raise SettingsError(f"no texts stereoset:{name}. {suggest(name, STEREOSET_TEXTS)}")
    kinds, given = STEREOSET_TEXTS[name], specs.parse(wanted).settings
    about_comments = {key: given.pop(key) for key in COMMENTS if key in given}
    benchmark = registry.build_benchmark({STEREOSET: given})
    found = [
        (pair_maker.stereoset_text(example), cluster_of(benchmark, item))
        for item in benchmark.load()
        for example in item.examples
        if example.kind in kinds
    ]
    if not found:
        raise SettingsError(f"stereoset:{wanted}: {benchmark.spec} has no example of the kind {' or '.join(kinds)}")
    if set(given) <= {"source"} and given.get("source") != DEMO:  # with other settings it is a part on purpose
        check_count(len(found), kinds, benchmark.facts()["source"])
    found += [(text, "") for text in _comments(name, about_comments)]
    return Loaded(TrainData(texts=tuple(t for t, _ in found)), Clusters(texts=tuple(c for _, c in found)))


def _comments(name: str, given: dict[str, Any]) -> list[str]:
    """Read the toxic comments of "tv14k"."""
    if not given:
        return []
    if "comments" not in given or name != "tv14k":
        raise SettingsError(
            f"stereoset:{name}({', '.join(given)}): comments belong to tv14k and need their file: "
            "stereoset:tv14k(comments='PATH'), and, if wanted, toxicity= and comment_count="
        )
    return toxic_comments(given["comments"], given.get("toxicity", THRESHOLD), given.get("comment_count"))
