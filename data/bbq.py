"""BBQ (Parrish et al. 2022, nyu-mll/BBQ): reading its rows from a folder, a file, the hub, or the generated sample."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.core.word_lists import listed
from evenhand.data.bbq_target import ANSWERS, is_unknown, target_location
from evenhand.data.io import layouts, locate, on_disk
from evenhand.data.io import rows as cells
from evenhand.data.io.checksums import official
from evenhand.data.io.content import read_bytes
from evenhand.data.io.demo import BBQ_FOLDERS, demo_folder
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="bbq",
    hub="heegyu/bbq",
    revision="main",
    patterns=("*.jsonl", "data/*.jsonl"),
    licence="CC-BY-4.0",
    home="github.com/nyu-mll/BBQ, folder data",
)

NEEDED = (
    *listed(
        """
        example_id, question_index, question_polarity, context_condition, category, answer_info, additional_metadata,
        context, question
        """
    ),
    *ANSWERS,
    "label",
)
CATEGORIES = listed(
    """
    Age, Disability_status, Gender_identity, Nationality, Physical_appearance, Race_ethnicity, Race_x_SES,
    Race_x_gender, Religion, SES, Sexual_orientation
    """
)
KINDS = (".jsonl", ".parquet", ".arrow", ".json")
"""Kinds of tables that a note lists if they were not read; csv files next to BBQ are mostly templates."""
LAYOUTS = ".jsonl, parquet or arrow files with BBQ's fields, in the folder, in data/, or in folders of configurations"
RENAMED = {"answer_label": "label"}
"""Fields that have another name in copies on the hub (Elfsong/BBQ)."""
_BARE = listed(
    """
    old, nonOld, disabled, nonDisabled, lowSES, highSES, obese, nonObese, short, tall, pregnant, notPregnant, posDress,
    negDress, visibleDifference, noVisibleDifference, trans, nonTrans, trans_F, trans_M, nonTrans_F, nonTrans_M, man,
    woman, boy, girl, F, M, gay, bisexual, lesbian, pansexual, straight, Muslim, Christian, Atheist, Jewish, Hindu,
    Mormon, Catholic, Protestant, Sikh, Buddhist, Orthodox, Africa, AsiaPacific, ArabStates, Europe, LatinSouthAmerica,
    MiddleEast, NorthAmerica
    """
)
_RACES = listed(
    """
    Black, African American, African, Latino, Hispanic, Asian, Arab, Middle Eastern, White, Caucasian, European,
    Native American, Roma, South American
    """
)
_PEOPLE = [*_RACES, "Jewish", *(f"{sex}-{race}" for sex in "FM" for race in _RACES)]
GROUPS = frozenset(
    [*_BARE, *_PEOPLE, *(f"{status}-{who}" for status in ("lowSES", "highSES") for who in _PEOPLE), "unknown"]
)
"""How BBQ's files write the groups of `answer_info`."""
STEREOTYPED = listed(
    """
    Afghan, African American, American, Arab, Asian, Atheist, Black, British, Burmese, Catholic, Chinese, Christian,
    D/deaf, Down's syndrome, Eritrean, Ethiopian, F, Guinean, Hindu, Hispanic, Indian, Indonesian, Iranian, Iraqi,
    Irish, Italian, Japanese, Jewish, Kenyan, Korean, Latino, Libyan, M, Malian, Middle Eastern, Mormon, Moroccan,
    Mozambican, Muslim, Namibian, Native American, Nigerian, Orthodox, Pakistani, Palestinian, Roma, Saudi, Sri Lankan,
    Syrian, Thai, Vietnamese, White, Yemeni, autistic people, bisexual, disabled, gay, lesbian, low SES, mentally-ill,
    negDress, nonOld, obese, old, pansexual, physically disabled, pregnant, short, trans, transgender men,
    transgender women, Transgender women, visibleDifference
    """
)
"""How BBQ's files write the groups of `stereotyped_groups`."""


class Loaded(NamedTuple):
    """Rows as in the files, and their facts for a report."""

    rows: list[dict[str, Any]]
    facts: dict[str, Any]


def load_rows(source: str) -> Loaded:
    """Read BBQ rows.

    Args:
        source: "auto", "hub", "hub:NAME", "demo" (the proving ground's, of the package), "demo-x" (the same with one
            more axis), "demo-x-cipher" (these in the cipher of the model demo-x) or a path.

    Returns:
        Usable rows in file order, as `checked` makes them. Lines that cannot be used are listed in `facts["dropped"]`
        by file, line and field.

    Raises:
        DataError: There is no data, or not one usable row.
    """
    demo = source in BBQ_FOLDERS
    folders = [demo_folder(name) for name in BBQ_FOLDERS[source]] if demo else [locate.locate(DATASET, source)]
    problems, published = locate.Problems(), official(DATASET.name).files
    rows, files, ours = [], {}, []
    seen: set[tuple[str, str]] = set()
    stems = [name.removesuffix(".jsonl") for name in published]
    read = [(folder, _files(folder, stems)) for folder in folders]
    for path, file in [(folder, file) for folder, own in read for file in own]:
        content = read_bytes(file, empty=True)
        digest, name = bytes_hash(content), _name(path, file, stems)
        expected = published.get(f"{name}.jsonl")
        verdict = "unknown file" if expected is None else "official" if digest == expected else "differs from official"
        files[name] = {"sha256": digest, "is": verdict}
        found = _usable(file, content, seen, problems)
        rows += [row for _, row in found]
        ours += [] if verdict == "official" else [(f"{file.name}:{line}", row) for line, row in found]
    if not rows:
        raise DataError(f"{folders[0]} holds no usable BBQ row{problems.first}")
    if demo:  # the names of the files are BBQ's, the content is ours
        facts = {"source": f"{source}: the proving ground's questions, not BBQ", "rows": len(rows), "dropped": []}
        return Loaded(rows, facts)
    changed = [name for name, facts in files.items() if facts["is"] == "differs from official"]
    notes = [f"{', '.join(changed)}: not the official content (SHA-256 differs)"] if changed else []
    notes += [note for folder, own in read for note in _unread(folder, own, stems)]
    notes += [*_unknown_categories([row for _, row in ours]), *_without_target(ours)]
    facts = {"source": str(folders[0]), "rows": len(rows), "files": files, "dropped": problems.lines, "notes": notes}
    return Loaded(rows, facts)


def _files(path: Path, published: Sequence[str]) -> list[Path]:
    """Find the official files if they exist, else the tables of a copy, in any folders."""
    official_ones = layouts.published_tables(path, published) if path.is_dir() else []
    return official_ones or layouts.demanded_tables(path, "BBQ", LAYOUTS)


def _unread(path: Path, read: Sequence[Path], published: Sequence[str]) -> list[str]:
    """Return a note on tables that were not read."""
    why = "files with BBQ's published names are" if layouts.published_stem(read[0]) in published else "one kind is"
    return on_disk.unread(layouts.other_tables(path, read, KINDS), path, f"{why} read")


def _name(path: Path, file: Path, published: Sequence[str]) -> str:
    """Return a file's name for a report: as published, or with its configuration, if each has its own folder."""
    inside = file.relative_to(path).parent if path.is_dir() else Path()
    if (stem := layouts.published_stem(file)) not in published:
        stem = locate.stem(file)
    return stem if inside in (Path(), Path("data")) else f"{inside.as_posix()}/{stem}"


def _renamed(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rename the fields of a row to those of the official files."""
    given = {new: row[old] for old, new in RENAMED.items() if old in row and row.get(new) is None}
    return {**row, **given} if given else row


def _usable(
    file: Path, content: bytes, seen: set[tuple[str, str]], problems: locate.Problems
) -> list[tuple[int, dict[str, Any]]]:
    """Return the usable rows of a file with their lines; `seen` contains the ids of all files."""
    found = []
    for number, raw in layouts.read_table(file, content, ANSWERS, problems):
        try:
            row = checked(_renamed(raw))
            name = (row["category"], str(row["example_id"]))  # 6 and "6" are one id, as an answer is stored by its text
            if name in seen:
                raise cells.Refused(f"example_id {row['example_id']!r} occurs twice in {row['category']}")
        except ValueError as error:
            problems.add(file, number, str(error))
        else:
            seen.add(name)
            found.append((number, row))
    return found


def checked(row: Mapping[str, Any]) -> dict[str, Any]:
    """Normalise a row for asking and scoring: all cells present, texts stripped, names as BBQ writes them.

    Categories, polarities, conditions and groups are recognised by their letters and digits, whatever the case, blanks
    and hyphens. Correct values are not changed: the 31,572 published rows stay as they are, except for blanks at the
    end of 124 options.

    Raises:
        ValueError: It cannot be used; the message names the field.
    """
    for name in NEEDED:
        if name not in row:
            raise cells.Refused(f"field {name!r} is missing")
    category = cells.known(cells.text(row, "category"), CATEGORIES)
    texts = {name: cells.text(row, name) for name in ("context", "question", *ANSWERS)}
    cells.different({name: texts[name] for name in ANSWERS})
    number = cells.identifier(row, "example_id")
    found = {
        **row,
        **texts,
        "example_id": number if isinstance(row["example_id"], str) else int(number),
        "question_index": cells.identifier(row, "question_index"),
        "question_polarity": cells.one_of(row, "question_polarity", ("neg", "nonneg")),
        "context_condition": cells.one_of(row, "context_condition", ("ambig", "disambig")),
        "category": category,
        "label": cells.index(row, "label", len(ANSWERS)),
        "answer_info": _answer_info(row),
        "additional_metadata": _metadata(row),
    }
    unknown = [name for i, name in enumerate(ANSWERS) if is_unknown(found, i)]
    if len(unknown) != 1:
        raise cells.Refused(
            f"field 'answer_info' has the group 'unknown' {len(unknown)} times; exactly one answer says that it cannot "
            "be known"
        )
    _refuse_other_label(found)
    return found if target_location(found) is not None else _as_stereotyped(found)


def _refuse_other_label(row: Mapping[str, Any]) -> None:
    """Refuse a label that no row of BBQ can have, such as one that counts from 1; all 31,572 published rows pass.

    Raises:
        Refused: The label is not the unknown answer although the context is ambiguous, or is it although it is not.
    """
    ambiguous = row["context_condition"] == "ambig"
    if is_unknown(row, row["label"]) != ambiguous:
        right = "the answer 'unknown'" if ambiguous else "a person"
        raise cells.Refused(
            f"label {row['label']} is not {right}, which is right where context_condition is "
            f"{row['context_condition']!r}; labels count from 0"
        )


def _answer_info(row: Mapping[str, Any]) -> dict[str, list[str]]:
    """Read text and group of each answer; either may be empty, as in some official rows."""
    info = cells.unwritten(row.get("answer_info"))
    if not isinstance(info, Mapping):
        raise cells.Refused(f"field 'answer_info' is {cells.kind(info)}, not an object with ans0, ans1 and ans2")
    found = {}
    for name in ANSWERS:
        where, entry = f"answer_info.{name}", cells.unwritten(info.get(name))
        if not isinstance(entry, list) or len(entry) < 2:
            shown = f"a list of {len(entry)}" if isinstance(entry, list) else cells.kind(entry)
            raise cells.Refused(f"field {where!r} is {shown}, not [text, group]")
        for n, part in enumerate(entry):
            if not isinstance(part, str):
                raise cells.Refused(f"field '{where}[{n}]' is {cells.kind(part)}, not a text")
        found[name] = [*entry[:-1], cells.known(entry[-1].strip(), GROUPS)]
    return found


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    metadata = cells.unwritten(row.get("additional_metadata"))
    if not isinstance(metadata, Mapping):
        raise cells.Refused(f"field 'additional_metadata' is {cells.kind(metadata)}, not an object")
    where = "additional_metadata.stereotyped_groups"
    if "stereotyped_groups" not in metadata:
        raise cells.Refused(f"field {where!r} is missing; give a list of groups")
    groups = cells.texts(metadata["stereotyped_groups"], where)
    return {**metadata, "stereotyped_groups": [cells.known(group, STEREOTYPED) for group in groups]}


def _as_stereotyped(row: dict[str, Any]) -> dict[str, Any]:
    """Write the stereotyped groups of a row without target as its people's groups are, if that gives it a target."""
    metadata = row["additional_metadata"]
    groups = [row["answer_info"][name][-1] for name in ANSWERS]
    names = [*groups, *(["F", "M"] if row["category"] == "Gender_identity" else [])]
    written = [cells.known(group, names) for group in metadata["stereotyped_groups"]]
    found = {**row, "additional_metadata": {**metadata, "stereotyped_groups": written}}
    return row if target_location(found) is None else found


def _unknown_categories(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a note on categories that BBQ does not have, as the rule for the stereotyped person depends on them."""
    own = sorted({row["category"] for row in rows} - {*CATEGORIES})
    named = [f"{name!r}" + _perhaps(name) for name in own]
    return [f"not a category of BBQ: {', '.join(named)}; read by the rule of most categories"] if own else []


def _perhaps(name: str) -> str:
    near = difflib.get_close_matches(name, CATEGORIES, n=1, cutoff=0.75)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _without_target(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return a note on rows in no bias score, with the groups that do not match, which explains empty cells."""
    lost = [(place, row) for place, row in rows if target_location(row) is None]
    if not lost:
        return []
    reasons = Counter(_mismatch(row) for _, row in lost)
    (most, _), *others = reasons.most_common()
    rest = f", and {len(others)} other such combinations" if others else ""
    return [
        f"{len(lost):,} of {len(rows):,} rows are in no score of bias or accuracy, as not exactly one person is of "
        f"the stereotyped groups (from {lost[0][0]}): {most}{rest}"
    ]


def _mismatch(row: Mapping[str, Any]) -> str:
    people = [" ".join(row["answer_info"][a][-1:]) for i, a in enumerate(ANSWERS) if not is_unknown(row, i)]
    return f"stereotyped {row['additional_metadata']['stereotyped_groups']}, people {people}"


def wrong(row: Mapping[str, Any]) -> str:
    """Return why a row cannot be used, or ""."""
    try:
        checked(row)
    except ValueError as error:
        return str(error)
    return ""
