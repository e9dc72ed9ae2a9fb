"""SEAT's tests (May et al. 2019, arXiv 1903.10561): two sets of sentences about people, two of attributes.

The official files are tests/*.jsonl of W4ngatang/sent-bias; each is one JSON object with targ1, targ2, attr1 and attr2,
which have a category and examples. They are read from your copy: nothing of them is shipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import locate, on_disk, rows
from evenhand.data.io.content import read_bytes
from evenhand.data.pronouns import load_pronouns
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="seat",
    hub="",
    revision="",
    patterns=(),
    licence="that of its repository",
    home="github.com/W4ngatang/sent-bias, folder tests",
)
SETS = ("targ1", "targ2", "attr1", "attr2")


class Side(NamedTuple):
    """One set of sentences."""

    category: str
    sentences: tuple[str, ...]


class Test(NamedTuple):
    """One test: whether the first targets are nearer to the first attributes than the second ones are."""

    name: str
    """File name without .jsonl."""
    targets: tuple[Side, Side]
    """Both sets of targets, which have the same number of sentences."""
    attributes: tuple[Side, Side]


class Loaded(NamedTuple):
    """Tests by name, and their facts for a report."""

    tests: list[Test]
    facts: dict[str, Any]


def load(source: str) -> Loaded:
    """Read the tests.

    Args:
        source: "auto" ($EVENHAND_DATA/seat), "demo", a file, or a folder of .jsonl or .json files (or one with a folder
            tests/ of them in it).

    Raises:
        DataError: There is no data, or not one usable test.
    """
    if source == "demo":
        return Loaded(_demo(), {"source": "demo: occupations and pronouns of the proving ground", "dropped": []})
    path = locate.locate(DATASET, source)
    problems, digests, tests = locate.Problems(), dict[str, str](), list[Test]()
    found, copies = on_disk.without_copies(_files(path))
    for file in found:
        content = read_bytes(file, empty=True)
        try:
            tests.append(test_of(locate.stem(file), rows.from_json(rows.decoded(content))))
        except (rows.Refused, UnicodeDecodeError) as error:
            problems.add(file, 1, str(error))
        else:
            digests[file.name] = bytes_hash(content)
    notes = on_disk.unread(list(copies), path, "a file of the same name without the addition is read")
    if not tests:
        raise DataError(f"{path} holds no usable test of SEAT{problems.first}. {locate.how_to_get(DATASET)}")
    return Loaded(tests, {"source": str(path), "files": digests, "dropped": problems.lines, "notes": notes})


def test_of(name: str, raw: Any) -> Test:
    """One test from the content of its file.

    Raises:
        Refused: A set is missing or empty, or the targets are not equally many.
    """
    if not isinstance(raw, Mapping):
        raise rows.Refused(f"an object with {', '.join(SETS)} was expected, not {rows.kind(raw)}")
    one, two, first, second = (_side(raw, which) for which in SETS)
    if len(one.sentences) != len(two.sentences):
        raise rows.Refused(
            f"targ1 has {len(one.sentences)} sentences and targ2 {len(two.sentences)}; the test needs as many on both "
            "sides, without repetitions"
        )
    return Test(name, (one, two), (first, second))


def _side(raw: Mapping[str, Any], which: str) -> Side:
    found = raw.get(which)
    if not isinstance(found, Mapping):
        raise rows.Refused(f"field {which!r} is missing or not an object")
    sentences = tuple(dict.fromkeys(rows.texts(found.get("examples"), f"{which}.examples")))
    return Side(rows.text(found, "category", where=f"{which}.category"), sentences)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    endings = ("*.jsonl", "*.jsonl.gz", "*.json", "*.json.gz")
    for folder in (path / "tests", path):
        if found := on_disk.visible(folder, *endings):
            return found
    nested = on_disk.inner(path)
    return [] if nested is None else _files(nested)


def _demo() -> list[Test]:
    """Make tests of occupations of men and of women against what is said of "he" and of "she", for each frame."""
    found = load_pronouns("demo")
    out = []
    for frame in dict.fromkeys(a.frame for a in found.asked if not a.told):
        jobs = [a for a in found.asked if a.frame == frame]
        women = [a.slots[0].before for a in jobs if (found.shares[a.occupation] or 0) > 0.5]
        men = [a.slots[0].before for a in jobs if (found.shares[a.occupation] or 1) < 0.5]
        count = min(len(men), len(women))
        said = [tuple(f"{form.strip()}{slot.after}" for slot in jobs[0].slots) for form in jobs[0].slots[0].forms]
        targets = Side("Men's", tuple(men[:count])), Side("Women's", tuple(women[:count]))
        out.append(Test(frame, targets, (Side("He", said[0]), Side("She", said[1]))))
    return out
