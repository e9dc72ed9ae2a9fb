"""RedditBias (Barikeri et al. 2021, arXiv 2106.03521; umanlp/RedditBias): comments, and twins about another group."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import locate, on_disk
from evenhand.data.io.content import read_bytes
from evenhand.data.io.delimited import blank, read_delimited
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.rows import one_line_end
from evenhand.errors import DataError, SettingsError

DATASET = locate.Dataset(
    name="redditbias",
    hub="",
    revision="",
    patterns=(),
    licence="MIT",
    home="github.com/umanlp/RedditBias, data/{gender,orientation,race,religion1,religion2}",
)
AXES = {
    "gender": ("female", "male"),
    "orientation": ("lgbtq", "straight"),
    "race": ("black", "white"),
    "religion1": ("jews", "christians"),
    "religion2": ("muslims", "christians"),
}
"""The group that the stereotypes are about, and the one that takes its place in the twin, by axis."""
DEMO_AXES = {
    "gender": ("female", "male"),
    "age": ("old", "young"),
    "class": ("poor", "rich"),
    "religion": ("rare", "common"),
}
"""The two groups by axis for the demo's files, which come from the proving ground."""
ENCODINGS = ("utf-8-sig", "cp1252")
"""One of the released files is Windows-encoded."""


class Twins(NamedTuple):
    """A stereotyping phrase, and the same about the other group."""

    name: str
    """Axis, split and row, such as race/test/12."""
    axis: str
    comment: str
    """The whole comment, which decides what belongs together; phrases of one comment are not independent."""
    target: str
    counter: str


class Loaded(NamedTuple):
    """Twins in file order, and their facts for a report."""

    twins: list[Twins]
    facts: dict[str, Any]


def load_twins(source: str, split: str, axes: tuple[str, ...] = ()) -> Loaded:
    """Read the row-aligned phrases (`comments_processed`) of both groups.

    Args:
        source: "auto" ($EVENHAND_DATA/redditbias), "demo" (the proving ground's, of the package) or a folder with one
            folder per axis.
        split: "test" or "valid".
        axes: Which; empty takes all whose folder is there.

    Returns:
        Usable twins; rows whose two files disagree, or that say nothing, are listed in `facts["dropped"]`.

    Raises:
        SettingsError: An axis that is none.
        DataError: A file or column is missing, the files differ in length, or nothing usable is left.
    """
    demo = source == "demo"
    known = DEMO_AXES if demo else AXES
    for axis in axes:
        if axis not in known:
            raise SettingsError(f"redditbias: no axis {axis!r}; there are {', '.join(known)}")
    folder = demo_folder("redditbias") if demo else _root(locate.locate(DATASET, source))
    problems = locate.Problems()
    twins: list[Twins] = []
    files: dict[str, Any] = {}
    for axis in axes or [a for a in known if (folder / a).is_dir()]:
        twins += _axis(folder / axis, known[axis], split, files, problems)
    if not twins:
        raise DataError(f"{folder} holds no usable RedditBias phrase{problems.first}. {locate.how_to_get(DATASET)}")
    where = "demo: the proving ground's statements, not RedditBias" if demo else str(folder)
    facts = {"source": where, "files": files, "twins": len(twins), "dropped": problems.lines}
    return Loaded(twins, facts)


def _root(folder: Path) -> Path:
    """The folder of the axes' folders: the given one, data/ as in the repository, or the only one within.

    Raises:
        DataError: Several could be meant; the message names them.
    """
    for place in ("", "data/", *on_disk.PLACES[1:]):
        files = on_disk.visible(folder, *(f"{place}{axis}/reddit_comments_*" for axis in AXES))
        roots = sorted({file.parents[1] for file in files})
        if len(roots) > 1:
            raise DataError(
                f"{folder} has RedditBias in {on_disk.listed(roots, folder)}; name one of them as the source"
            )
        if roots:
            return roots[0]
    return folder


def _axis(
    folder: Path, groups: tuple[str, str], split: str, files: dict[str, Any], problems: locate.Problems
) -> list[Twins]:
    axis, (target_group, counter_group) = folder.name, groups
    rows = []
    for group, columns in (
        (target_group, ("comment", "comments_processed")),
        (counter_group, ("comments", "comments_processed")),
    ):
        path = _file(folder, f"reddit_comments_{axis}_{group}_biased_{split}_reduced.csv")
        content = read_bytes(path)
        files[path.name] = {"sha256": bytes_hash(content)}
        # a row that is left out of one file would set all below it against strangers: none may be missing here
        unaligned = locate.Problems()
        rows.append((path, list(read_delimited(path, content, columns, unaligned, encodings=ENCODINGS))))
        if unaligned:
            raise DataError(f"{unaligned.lines[0]}; both files must be whole, as their rows belong together")
    (target_path, targets), (path, counters) = rows
    if len(targets) != len(counters):
        raise DataError(f"{target_path} has {len(targets)} rows, {path.name} {len(counters)}; they must be equal")
    found = []
    for n, ((_, target), (number, counter)) in enumerate(zip(targets, counters, strict=True)):
        reason = blank(target, ("comments_processed",)) or blank(counter, ("comments_processed",))
        texts = tuple(one_line_end(row["comments_processed"]).strip() for row in (target, counter))
        if not reason and texts[0] != one_line_end(counter["comments"]).strip():
            reason = f"column 'comments' is not what row {n + 1} of {target_path.name} says: not its twin"
        if reason:
            problems.add(path, number, reason)
            continue
        found.append(Twins(f"{axis}/{split}/{n}", axis, target["comment"], texts[0], texts[1]))
    return found


def _file(folder: Path, name: str) -> Path:
    path = on_disk.named(folder, name, ("",))
    if path is not None:
        return path
    raise DataError(f"{folder} holds no {name}. {locate.how_to_get(DATASET)}")
