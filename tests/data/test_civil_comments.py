"""The published training texts of task vectors: StereoSet's count, and toxic comments in every form."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from evenhand.data.civil_comments import toxic_comments
from evenhand.data.stereoset import check_count
from evenhand.errors import DataError, SettingsError
from evenhand.experiment.training_sources import load

ROWS = [
    {"text": "a kind word", "toxicity": 0.0},
    {"text": "just bad", "toxicity": 0.5},
    {"text": "far worse", "toxicity": 0.9},
    {"text": "nearly", "toxicity": 0.49},
]


def written(folder: Path, kind: str) -> str:
    file = folder / f"comments.{kind}"
    if kind == "jsonl":
        file.write_text("\n".join(map(json.dumps, ROWS)))
    elif kind == "csv":
        pd.DataFrame(ROWS).to_csv(file, index=False)
    else:
        pd.DataFrame(ROWS).to_parquet(file)
    return str(file)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_comments_from_the_threshold_on_in_file_order(tmp_path: Path, kind: str) -> None:
    source = written(tmp_path, kind)
    assert toxic_comments(source) == ["just bad", "far worse"]
    assert toxic_comments(source, 0.6) == ["far worse"]
    assert toxic_comments(source, 0.0, 2) == ["a kind word", "just bad"]


def test_what_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path, "jsonl")
    for threshold, count in ((1.5, None), (0.5, 0)):
        with pytest.raises(SettingsError, match="must"):
            toxic_comments(source, threshold, count)
    with pytest.raises(DataError, match=r"no comment with a toxicity of at least 0\.95"):
        toxic_comments(source, 0.95)
    with pytest.raises(DataError, match=r"no column 'toxicity'; it has text"):
        toxic_comments(_file(tmp_path, {"text": "x"}))
    with pytest.warns(UserWarning, match="left out 1 row.*'toxicity' is None"):
        found = toxic_comments(_file(tmp_path, {"text": "x", "toxicity": None}, {"text": "y", "toxicity": 1}))
    assert found == ["y"]


def _file(folder: Path, *found: dict[str, object]) -> str:
    file = folder / "other.jsonl"
    file.write_text("\n".join(map(json.dumps, found)))
    return str(file)


def test_tv_2k_must_have_the_published_number_of_texts(tmp_path: Path) -> None:
    check_count(2_123, ("intersentence",), "x")
    check_count(4_229, ("intersentence", "intrasentence"), "x")
    row = {"type": "intersentence", "target": "nurse", "bias_type": "gender", "context": "One came."}
    row |= {"stereotype": "She was kind.", "anti-stereotype": "He was kind.", "unrelated": "Blue."}
    with pytest.raises(DataError, match=r"has 1 examples of the kind intersentence, but .* has 2,123"):
        load(f"stereoset:tv2k(source='{_file(tmp_path, row)}')")
    assert load(f"stereoset:tv2k(source='{_file(tmp_path, row)}',part=fit)").data.texts == ("One came. She was kind.",)


def test_tv_14k_takes_the_toxic_comments_beside_stereoset(tmp_path: Path) -> None:
    source = written(tmp_path, "parquet")
    plain = load("stereoset:tv14k(source=demo)").data.texts
    more = load(f"stereoset:tv14k(source=demo,comments='{source}',toxicity=0.4,comment_count=2)")
    assert more.data.texts == (*plain, "just bad", "far worse")
    assert more.clusters.texts[-2:] == ("", "") and len(more.clusters.texts) == len(more.data.texts)
    with pytest.raises(SettingsError, match="comments belong to tv14k"):
        load(f"stereoset:tv2k(source=demo,comments='{source}')")
    with pytest.raises(SettingsError, match="need their file"):
        load("stereoset:tv14k(source=demo,toxicity=0.4)")
