"""WikiText-2's rows and how they are joined, from lines and from the hub's parquet, and the shared files' counts."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pandas as pd
import pytest

from evenhand.data import wikitext
from evenhand.errors import DataError
from evenhand.evaluation.perplexity import Perplexity

LINES = " \n = A Title = \n \n One word and one more . \n Another . \n"
ROWS = ["", " = A Title = \n", "", " One word and one more . \n", " Another . \n"]
JOINED = "\n\n = A Title = \n\n\n\n\n One word and one more . \n\n\n Another . \n"


def test_lines_and_the_hubs_rows_join_to_the_same_text(tmp_path: Path) -> None:
    assert wikitext.join(ROWS) == JOINED == "\n\n".join(ROWS)
    (tmp_path / "test.txt.gz").write_bytes(gzip.compress(LINES.encode()))
    folder = tmp_path / "wikitext-2-raw-v1"
    folder.mkdir()
    pd.DataFrame({"text": ROWS}).to_parquet(folder / "validation-00000-of-00001.parquet")
    of_lines, of_rows = wikitext.load("test", str(tmp_path)), wikitext.load("validation", str(tmp_path))
    assert of_lines.text == of_rows.text == JOINED
    assert of_lines.facts["rows"] == of_rows.facts["rows"] == 5
    assert of_lines.facts["version"] == "raw"
    assert of_lines.facts["notes"] == ["5 rows, but WikiText-2's part 'test' has 4,358"]
    with pytest.raises(DataError, match="no file of WikiText-2's part 'test'"):
        wikitext.load("test", str(folder))


def test_the_two_versions_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "test.txt"
    file.write_text(" A <unk> word . \n")
    found = wikitext.load("test", str(file))
    assert found.facts["version"] == "tokenised" and "published perplexities are of the raw" in found.facts["notes"][0]


def test_perplexity_reads_it_and_states_the_stride(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text(LINES)
    bench = Perplexity.build(source=f"wikitext2:{tmp_path}", window=4, stride=2)
    items = bench.load()
    assert "".join(i.window.target for i in items) == JOINED.rstrip()
    assert [i.window.words for i in items] == [4, 2, 2, 2, 2]
    assert bench.facts()["stride"] == "2 words" and bench.facts()["words"] == 12
    assert {i.document for i in items} == {"wikitext2 test"}


@pytest.mark.skipif(
    not (Path(os.environ.get("EVENHAND_DATA", "-")) / "wikitext2").is_dir(), reason="WikiText-2 is not here"
)
@pytest.mark.parametrize(("split", "tokens"), [("test", 245_569), ("validation", 217_646)])
def test_the_published_number_of_tokens(split: wikitext.Split, tokens: int) -> None:
    """Merity et al. 2016, table 1: words, and an end token for every line."""
    found = wikitext.load(split)
    assert len(found.text.split()) + found.facts["rows"] == tokens
    assert found.facts["version"] == "tokenised" and len(found.facts["notes"]) == 1
