"""WinoQueer (Felkner et al., ACL 2023, arXiv 2306.15087; katyfelkner/winoqueer 1180ba6): sentences about LGBTQ+ people.

A pair is one sentence about an LGBTQ+ identity and the same about its counterpart. The sentences are made from
templates, so that pairs with the same predicate are not independent. The file is read from your copy.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from evenhand.core.word_lists import listed
from evenhand.data.io import layouts, locate, rows
from evenhand.data.io.one_table import read_one
from evenhand.data.io.row_counts import demand_rows

DATASET = locate.Dataset(
    name="winoqueer",
    hub="",
    revision="",
    patterns=(),
    licence="MIT",
    home="github.com/katyfelkner/winoqueer (commit 1180ba6), winoqueer_final.csv",
)
FILE = "winoqueer_final.csv"
COLUMNS = ("Gender_ID_x", "Gender_ID_y", "sent_x", "sent_y")
PAIRS = 45_540
"""Rows of the published file."""
GROUPS = listed("LGBTQ, Queer, Transgender, NB, Bisexual, Pansexual, Lesbian, Asexual, Gay")
_COPULA = re.compile(r"\b(?:is|are|was|were)\s+(.*)")


class Pair(NamedTuple):
    """Two sentences that differ in the identity they are about."""

    number: str
    identity: str
    """The LGBTQ+ identity, such as "Lesbian"."""
    counterpart: str
    about: str
    """The sentence about the identity."""
    other: str
    """The sentence about the counterpart."""

    @property
    def predicate(self) -> str:
        """What is said of either: the shared words after "is" or "are", in lower case and without punctuation."""
        return predicate(self.about, self.other)


class Loaded(NamedTuple):
    """Pairs in file order, and their facts for a report."""

    pairs: list[Pair]
    facts: dict[str, Any]


def predicate(about: str, other: str) -> str:
    """What two sentences say of two identities, so that all pairs of one template statement have the same text.

    It is what follows the first "is", "are", "was" or "were" that both sentences share after the last difference;
    without one, all words that both share.
    """
    words = [re.findall(r"[\w'-]+", text.lower()) for text in (about, other)]
    blocks = difflib.SequenceMatcher(None, words[0], words[1], autojunk=False).get_matching_blocks()
    shared = [" ".join(words[0][b.a : b.a + b.size]) for b in blocks if b.size]
    behind = shared[-1] if shared and words[0][-1:] == words[1][-1:] else ""
    if found := _COPULA.search(behind):
        return found[1]
    return " ".join(shared) or " ".join(words[0])


def load_pairs(source: str, *, partial: bool = False) -> Loaded:
    """Read the pairs.

    Args:
        source: "auto" ($EVENHAND_DATA/winoqueer), "demo" (statements of ours), a folder or file (csv, jsonl, parquet),
            or "hub:NAME" for a copy on the hub.
        partial: Whether another number of pairs than the published 45,540 is accepted.

    Raises:
        DataError: There is no data, a column is missing, or the number of pairs is not the published one.
    """
    if source == "demo":
        return Loaded(_demo(), {"source": "demo: statements of ours, not WinoQueer", "dropped": []})
    file = layouts.only_table(locate.locate(DATASET, source), FILE, "WinoQueer", COLUMNS)
    how = locate.how_to_get(DATASET)
    found, facts = read_one(file, COLUMNS, pair_of, what="pair of WinoQueer", how_to_get=how)
    pairs = [pair._replace(number=str(number)) for number, pair in enumerate(found)]
    notes = demand_rows("pairs", len(pairs), PAIRS, file, partial=partial, benchmark=DATASET.name)
    return Loaded(pairs, {**facts, "pairs": len(pairs), "notes": notes})


def pair_of(row: Mapping[str, Any]) -> Pair:
    """A row of the file as a pair without a number.

    Raises:
        Refused: It cannot be used; the message names the column.
    """
    identity, counterpart, about, other = (rows.text(row, column) for column in COLUMNS)
    if about == other:
        raise rows.Refused("sent_x and sent_y are the same sentence")
    return Pair("", rows.known(identity, GROUPS), counterpart, about, other)


def _demo() -> list[Pair]:
    """Harmless statements in the form of the set."""
    said = ("late for dinner", "bad at chess", "fond of loud music", "afraid of dogs", "careless with money")
    identities = (("Lesbian", "Straight"), ("Gay", "Straight"), ("Bisexual", "Heterosexual"), ("Queer", "Cisgender"))
    named = [(one, two, text) for one, two in identities for text in said]
    return [
        Pair(str(n), one, two, f"{one} people are {text}.", f"{two} people are {text}.")
        for n, (one, two, text) in enumerate(named)
    ]
