"""KoBBQ (Jin et al. 2024, arXiv 2307.16778; naver-ai/KoBBQ 0dd165a): BBQ for Korea, in Korean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from evenhand.core.word_lists import listed
from evenhand.data.bias_rows import BiasRow, BiasRows, read_bias_rows
from evenhand.data.io import layouts, locate
from evenhand.data.io import rows as cells
from evenhand.data.io.checksums import official
from evenhand.errors import DataError

Subset = Literal["test", "all"]
DATASET = locate.Dataset(
    name="kobbq",
    hub="naver-ai/kobbq",
    revision="main",
    patterns=("*.parquet",),
    licence='MIT, with the condition that it "must not be used as training data to generate biased language"',
    home="github.com/naver-ai/KoBBQ",
    evaluation_only='its authors ask that it "must not be used as training data to generate biased language"',
)
FILES: Mapping[Subset, tuple[str, ...]] = {
    "test": ("KoBBQ_test_samples", "kobbq-evaluation-test"),
    "all": ("KoBBQ_all_samples", "kobbq-all-test"),
}
"""Names of each part's files, without their ending: in the repository, and on the hub, where one configuration has
both files, which must not be read as one."""
COUNTS: Mapping[Subset, Mapping[str, int]] = {
    "test": {
        "age": 168,
        "disability_status": 160,
        "domestic_area_of_origin": 176,
        "educational_background": 192,
        "family_structure": 184,
        "gender_identity": 200,
        "physical_appearance": 160,
        "political_orientation": 88,
        "race_ethnicity_nationality": 480,
        "religion": 160,
        "ses": 216,
        "sexual_orientation": 96,
    },
    "all": {
        "age": 3608,
        "disability_status": 2160,
        "domestic_area_of_origin": 800,
        "educational_background": 3240,
        "family_structure": 1096,
        "gender_identity": 768,
        "physical_appearance": 4040,
        "political_orientation": 312,
        "race_ethnicity_nationality": 51856,
        "religion": 688,
        "ses": 6928,
        "sexual_orientation": 552,
    },
}
"""Rows per category."""
COLUMNS = listed("sample_id, label_annotation, context, question, choices, biased_answer, answer")
LABELS = ("NC", "ST", "TM")
"""New templates, those transferred from BBQ, and those whose target group was changed."""
UNKNOWN = 2
"""Index of the unknown option."""
SAME_TEMPLATE = {"race_ethnicity_nationality/041": "race_ethnicity_nationality/040"}
"""Clusters that are one template under two numbers. The files have 269 templates and the paper 268: two made from BBQ's
Nationality 22 differ in one word and in the group they are about, which elsewhere makes versions of one number."""


def load(source: str, subset: Subset = "test", *, partial: bool = False) -> BiasRows:
    """Read KoBBQ.

    Args:
        source: "auto", "hub", "hub:NAME", or a path: a file of either form, or a folder that has one.
        subset: test, the 2,280 rows of the published figures, or all 76,048; of a single file it says which counts to
            expect.
        partial: Whether another number of rows is accepted, with a note.

    Raises:
        DataError: There is no data, not one usable row, or another number of rows than was published.
    """
    path = locate.locate(DATASET, source)
    published = {Path(name).stem: digest for name, digest in official(DATASET.name).files.items()}
    return read_bias_rows(
        DATASET.name,
        path,
        _files(path, subset),
        row_of,
        columns=COLUMNS,
        published=published,
        counts=COUNTS[subset],
        partial=partial,
    )


def _files(path: Path, subset: Subset) -> list[Path]:
    if path.is_file():
        return [path]
    tables = sorted(f for f in path.rglob("*") if f.is_file() and layouts.kind_of(f) in layouts.TABLES)
    for name in FILES[subset]:
        if found := [f for f in tables if locate.stem(f) == name]:
            return found[:1]
    raise DataError(
        f"{path} has none of the files {', '.join(FILES[subset])} (.tsv, .tsv.gz or .parquet) of KoBBQ's part {subset}"
        f"; found: {layouts.found_in(path)}"
    )


def row_of(raw: Mapping[str, Any]) -> BiasRow:
    """Convert a row of the tsv or parquet file.

    `sample_id` is CATEGORY-TEMPLATE-NUMBER-CONTEXT-QUESTION, such as "age-001a-002-amb-bsd"; the letter is a version of
    the template. `biased_answer` already belongs to the question, also where that asks the other way round ("cnt").

    Raises:
        ValueError: It cannot be used; the message names the field.
    """
    for name in COLUMNS:
        if name not in raw:
            raise cells.Refused(f"field {name!r} is missing")
    name = cells.text(raw, "sample_id")
    category, template, kind, polarity = _parts(name)
    options = tuple(cells.texts(raw["choices"], "choices", at_least=3))
    if len(options) != UNKNOWN + 1:
        raise cells.Refused(f"field 'choices' has {len(options)} entries, not 3")
    cells.different({f"choices[{n}]": option for n, option in enumerate(options)})
    target, gold = _place(raw, "biased_answer", options), _place(raw, "answer", options)
    cluster = f"{category}/{template}"
    if target == UNKNOWN or (gold == UNKNOWN) != (kind == "amb"):
        raise cells.Refused(f"sample_id {name!r} does not fit answer {raw['answer']!r} and {raw['biased_answer']!r}")
    return BiasRow(
        id=name,
        parallel="",
        language="ko",
        category=category,
        context_kind="ambiguous" if kind == "amb" else "disambiguated",
        polarity="neg" if polarity == "bsd" else "nonneg",
        context=cells.text(raw, "context"),
        question=cells.text(raw, "question"),
        options=options,
        gold=gold,
        unknown=UNKNOWN,
        target=target,
        counter=1 - target,
        cluster=SAME_TEMPLATE.get(cluster, cluster),
        extra={"label": cells.one_of(raw, "label_annotation", LABELS)},
    )


def _parts(name: str) -> tuple[str, str, str, str]:
    """Split a sample_id into category, template without its version, "amb" or "dis", and "bsd" or "cnt"."""
    parts = name.rsplit("-", 4)
    if len(parts) != 5 or parts[3] not in ("amb", "dis") or parts[4] not in ("bsd", "cnt"):
        raise cells.Refused(f"sample_id {name!r} is not CATEGORY-TEMPLATE-NUMBER-amb|dis-bsd|cnt")
    return parts[0], parts[1].rstrip("abcdefghij"), parts[3], parts[4]


def _place(raw: Mapping[str, Any], name: str, options: tuple[str, ...]) -> int:
    given = cells.text(raw, name)
    if given not in options:
        raise cells.Refused(f"{name} {given!r} is none of the choices {list(options)}")
    return options.index(given)
