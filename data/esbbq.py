"""EsBBQ (Ruiz-Fernandez et al. 2025, arXiv 2507.11216; langtech-bsc/EsBBQ-CaBBQ): BBQ for Spain, in Spanish.

`row_of` and `load_language` read CaBBQ, its Catalan counterpart, as well. The rows of both agree line by line in nine
categories, so that such rows have one id and `parallel` in both; those of PhysicalAppearance do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenhand.core.word_lists import listed
from evenhand.data.bbq_target import ANSWERS
from evenhand.data.bias_rows import BiasRow, BiasRows, read_bias_rows, sides
from evenhand.data.io import layouts, locate
from evenhand.data.io import rows as cells
from evenhand.data.io.checksums import official

EVALUATION_ONLY = (
    "EsBBQ and CaBBQ are test sets: a method trained on their questions would be scored on what it has learned by heart"
)
DATASET = locate.Dataset(
    name="esbbq_cabbq",
    hub="BSC-LT/EsBBQ",
    revision="main",
    patterns=("*.parquet", "*.jsonl"),
    licence="Apache-2.0 (the copy on the hub: CC-BY-4.0)",
    home="github.com/langtech-bsc/EsBBQ-CaBBQ, folders data_es and data_ca",
    benchmark="esbbq",
    evaluation_only=EVALUATION_ONLY,
)
COUNTS = {
    "Age": 4068,
    "DisabilityStatus": 2832,
    "Gender": 4832,
    "LGBTQIA": 2000,
    "Nationality": 504,
    "PhysicalAppearance": 3528,
    "RaceEthnicity": 3716,
    "Religion": 648,
    "SES": 4204,
    "SpanishRegion": 988,
}
"""Rows per category of the files at commit ee2e0f6."""
ALONE = frozenset({"PhysicalAppearance"})
"""Categories whose rows do not match those of the other language line by line."""
NEEDED = listed(
    """
    instance_id, template_id, question_polarity, context_condition, category, stereotyped_groups, answer_info, context,
    question, ans0, ans1, question_type, label
    """
)
UNKNOWN = 2
"""Index of the unknown option; its text in the files is "unknown" in every row, whatever the language."""
WORDINGS = listed(
    """
    No hay suficiente información, No hay información suficiente, No lo sé, No sé, Falta información,
    No se puede responder, No se sabe, No se puede saber, No se puede determinar
    """
)
"""The Spanish wordings that lm-evaluation-harness offers (lm_eval/tasks/esbbq), in its order."""


def load(source: str, *, partial: bool = False) -> BiasRows:
    """Read EsBBQ; see `load_language`."""
    return load_language(DATASET, source, "es", WORDINGS, COUNTS, partial=partial)


def load_language(
    dataset: locate.Dataset,
    source: str,
    language: str,
    wordings: tuple[str, ...],
    counts: Mapping[str, int],
    *,
    partial: bool,
) -> BiasRows:
    """Read one of both sets.

    Args:
        dataset: Where it is found.
        source: "auto", "hub", "hub:NAME", or a path: a file, a folder of files, or the folder above those of both
            languages.
        language: "es" or "ca".
        wordings: Wordings of the unknown option in this language.
        counts: Published number of rows per category.
        partial: Whether another number of rows is accepted, with a note.

    Raises:
        DataError: There is no data, not one usable row, or another number of rows than was published.
    """
    path = locate.locate(dataset, source)
    folder = next((found for name in (language, f"data_{language}") if (found := path / name).is_dir()), path)
    known = official(dataset.name).files
    published = {Path(name).stem: digest for name, digest in known.items() if name.startswith(f"{language}/")}
    return read_bias_rows(
        dataset.benchmark,
        folder,
        _files(folder, dataset.benchmark),
        lambda raw: row_of(raw, language, wordings),
        published=published | {f"{name}.full": digest for name, digest in published.items()},
        counts=counts,
        partial=partial,
    )


def _files(folder: Path, name: str) -> list[Path]:
    """The tables of a folder; where the official ones lie next to parts of them, the whole ones."""
    found = layouts.demanded_tables(folder, name, ".jsonl or parquet files, one per category")
    return [file for file in found if locate.stem(file).endswith(".full")] or found


def row_of(raw: Mapping[str, Any], language: str, wordings: tuple[str, ...]) -> BiasRow:
    """Convert a row of the files or of the hub.

    The bias-consistent option of an ambiguous row is that of the stereotyped group where the question asks for the
    negative trait, else that of the other one; a group is what follows the last comma of its description. Of a
    disambiguated row it follows from `question_type` and the right answer, as in the official score; 4 rows of EsBBQ
    and 12 of CaBBQ, all of PhysicalAppearance, have another type than the groups suggest.

    Args:
        raw: The row by column.
        language: "es" or "ca".
        wordings: Wordings of the unknown option; the first one is in the row.

    Raises:
        ValueError: It cannot be used; the message names the field.
    """
    for name in NEEDED:
        if name not in raw:
            raise cells.Refused(f"field {name!r} is missing")
    category, number = cells.text(raw, "category"), cells.identifier(raw, "instance_id")
    options = tuple(cells.text(raw, answer) for answer in ANSWERS[:UNKNOWN])
    cells.different(dict(zip(ANSWERS, options, strict=False)))
    kind = cells.one_of(raw, "context_condition", ("ambig", "disambig"))
    polarity = cells.one_of(raw, "question_polarity", ("neg", "nonneg"))
    gold = cells.index(raw, "label", len(ANSWERS))
    if (gold == UNKNOWN) != (kind == "ambig"):
        raise cells.Refused(f"label {gold} does not fit a context that is {kind!r}")
    target = _of_groups(raw, polarity) if kind == "ambig" else _of_type(raw, gold)
    alone = category in ALONE
    return BiasRow(
        id=f"{category}/{language}/{number}" if alone else f"{category}/{number}",
        parallel="" if alone else f"{category}/{number}",
        language=language,
        category=category,
        context_kind="ambiguous" if kind == "ambig" else "disambiguated",
        polarity="neg" if polarity == "neg" else "nonneg",
        context=cells.text(raw, "context"),
        question=cells.text(raw, "question"),
        options=(*options, wordings[0]),
        gold=gold,
        unknown=UNKNOWN,
        target=target,
        counter=None if target is None else 1 - target,
        cluster=f"{category}/{cells.identifier(raw, 'template_id')}",
    )


def _of_groups(raw: Mapping[str, Any], polarity: str) -> int | None:
    """The bias-consistent option of an ambiguous row; None unless exactly one person is of the stereotyped groups."""
    stereotyped = cells.texts(raw["stereotyped_groups"], "stereotyped_groups")
    people = range(UNKNOWN)
    return sides([n for n in people if group_of(raw, n) in stereotyped], people, polarity)[0]


def group_of(raw: Mapping[str, Any], option: int) -> str:
    """The social group of a person: the end of the last entry of its `answer_info`, after the last comma.

    Raises:
        ValueError: There is no such entry.
    """
    info, name = raw["answer_info"], ANSWERS[option]
    if not isinstance(info, Mapping) or name not in info:
        raise cells.Refused(f"field 'answer_info' is {cells.kind(info)} without {name!r}")
    return cells.texts(info[name], f"answer_info.{name}")[-1].rpartition(",")[2].strip()


def _of_type(raw: Mapping[str, Any], gold: int) -> int:
    """The bias-consistent option of a disambiguated row."""
    kind = cells.one_of(raw, "question_type", ("pro-stereo", "anti-stereo"))
    return gold if kind == "pro-stereo" else 1 - gold
