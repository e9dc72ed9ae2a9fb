"""A user's text files for perplexity: read whole, cut into windows in which every piece of text is scored once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data import wikitext
from evenhand.data.io import locate
from evenhand.data.io.content import read_bytes
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.on_disk import NOTES, visible, without_copies
from evenhand.data.io.rows import decoded, oddities
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="perplexity",
    hub="",
    revision="",
    patterns=(),
    licence="your own",
    home="any plain text in UTF-8, such as the test split of WikiText written to a .txt file",
)
SUFFIXES = (".txt", ".txt.gz", ".md", ".md.gz")
_PIECE = re.compile(r"\s*\S{1,40}")
"""A word with the blanks before it. Longer ones, such as a line of Chinese, are split, so that windows can end."""


class Document(NamedTuple):
    """One text."""

    name: str
    text: str


class Window(NamedTuple):
    """A stretch of a document."""

    context: str
    """Text before the target; empty at the beginning of a document."""
    target: str
    """Text that is scored; the joined targets of a document are the document."""
    words: int
    """Words, by blanks, that begin in the target."""


class Loaded(NamedTuple):
    """Texts by file name, and their facts for a report."""

    documents: list[Document]
    facts: dict[str, Any]


def load_documents(source: str, split: wikitext.Split = "test") -> Loaded:
    """Read text files.

    Args:
        source: "auto", "demo" (proving-ground sentences, one per line), "wikitext2" or "wikitext2:PATH" (one text;
            see `evenhand.data.wikitext`) or a path: a file, or a folder of .txt and .md files.
        split: Which part of WikiText-2.

    Returns:
        Texts with words in them, without byte order mark, with one kind of line end and, but for WikiText-2, without
        blanks at their end. Files that cannot be used are listed in `facts["dropped"]`; `facts["notes"]` says where a
        text has characters that look like others.

    Raises:
        DataError: There is no data, or not one usable text.
    """
    if source == "demo":
        return Loaded(_demo(), {"source": "demo: sentences of the proving ground", "dropped": []})
    if source.partition(":")[0] == wikitext.DATASET.name:
        text, facts = wikitext.load(split, source.partition(":")[2] or "auto")
        # The blanks at its end stay: they are tokens of the published perplexities, too.
        return Loaded([Document(f"{wikitext.DATASET.name} {split}", text)], facts)
    path = locate.locate(DATASET, source)
    documents, dropped, notes, digests = list[Document](), list[str](), list[str](), dict[str, str]()
    for file in _apart(_files(path), dropped):
        content = read_bytes(file, empty=True)
        try:
            text = decoded(content).rstrip()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            dropped.append(f"{file}:{line}: not UTF-8: {error.reason} at byte {error.start}")
            continue
        if not text.strip():
            dropped.append(f"{file}: holds no words")
            continue
        documents.append(Document(file.name, text))
        notes += [f"{file.name} has {odd}" for odd in oddities(text)]
        digests[file.name] = bytes_hash(content)
    if not documents:
        raise DataError(f"{path} holds no usable text; first problem: {dropped[0]}")
    return Loaded(documents, {"source": str(path), "files": digests, "dropped": dropped, "notes": notes})


def _apart(files: list[Path], dropped: list[str]) -> list[Path]:
    """The files without renamed copies, which are noted as dropped."""
    kept, copies = without_copies(files)
    dropped += [f"{file}: a copy of {name}, by its name, which counts once" for file, name in copies.items()]
    return kept


def windows(text: str, size: int, stride: int) -> list[Window]:
    """Cut a text: the first window is scored whole, later ones score `stride` words after `size - stride` of context.

    Args:
        text: Blanks at its end belong to no window.
        size: Words in a window, context included.
        stride: Words that a later window scores, 1 to `size`.
    """
    pieces = _PIECE.findall(text)
    starts = [i == 0 or piece[0].isspace() for i, piece in enumerate(pieces)]
    out, begin = [], 0
    while begin < len(pieces):
        end = min(len(pieces), begin + (size if begin == 0 else stride))
        context = pieces[max(0, begin - (size - stride)) : begin]
        out.append(Window("".join(context), "".join(pieces[begin:end]), sum(starts[begin:end])))
        begin = end
    return out


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = [f for f in visible(path, "*") if f.name.endswith(SUFFIXES) and f.name.upper() not in NOTES]
    if not files:
        raise DataError(f"{path} holds no {', '.join(SUFFIXES)} file")
    return files


def _demo() -> list[Document]:
    files = _files(demo_folder("perplexity"))
    return [Document(f"demo {file.stem}", decoded(read_bytes(file)).rstrip()) for file in files]
