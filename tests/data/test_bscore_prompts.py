"""B-score's questions from a clone of the authors' repository, and fetching them."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenhand.data import bscore
from evenhand.data.io import checksums
from evenhand.data.io.locate import fetchable
from evenhand.errors import DataError


def clone(folder: Path, **texts: str) -> Path:
    """Question files as they lie in the repository, by "TOPIC_CATEGORY"."""
    for name, text in texts.items():
        stem = name.replace("__", "-")
        file = folder / "src/prompts" / stem.rpartition("_")[0] / f"{stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def test_a_clone_gives_options_categories_and_the_papers_truths(tmp_path: Path) -> None:
    made = clone(
        tmp_path,
        **{
            "2__choice_gender_objective": "Was she a [male, female] one? ",
            "4__choice_math_hard": "Which is a prime number: [3013, 3017, 3023, 3027]?",
            "10__choice_number_random": "Generate a random digit between 0 and 9.",
        },
    )
    for place in (made, made / "src/prompts"):
        found = {q.id: q for q in bscore.load_questions(str(place)).questions}
        assert set(found) == {"2-choice_gender_objective", "4-choice_math_hard", "10-choice_number_random"}
        gender, math, number = (found[k] for k in sorted(found, key=lambda k: (not k.startswith("2"), k[0] != "4")))
        assert (gender.topic, gender.category, gender.truth) == ("gender", "easy", "female")
        assert gender.prompt == "Was she a [male, female] one? ", "the blank at the end is the file's"
        assert (math.truth_paper, math.truth) == ("3017", "3023"), "3017 is 7 * 431"
        assert number.options == tuple("0123456789") and number.truth is None and not number.lists_options


def test_a_file_that_is_no_question_is_left_out_by_name(tmp_path: Path) -> None:
    made = clone(tmp_path, **{"2__choice_gender_random": "Choose: [a, b].", "2__choice_gender_odd": "Choose: [a, b]."})
    loaded = bscore.load_questions(str(made))
    assert [q.id for q in loaded.questions] == ["2-choice_gender_random"]
    assert len(loaded.facts["dropped"]) == 1 and "2-choice_gender_odd" in loaded.facts["dropped"][0]
    with pytest.raises(DataError, match=r"no \.jsonl"):
        bscore.load_questions(str(tmp_path / "src"))


def test_it_can_be_fetched_and_a_packed_copy_is_checked_by_itself(tmp_path: Path) -> None:
    known = checksums.official("bscore")
    assert fetchable(bscore.DATASET) and len(known.urls) == 36
    assert known.urls["src/prompts/4-choice_math/4-choice_math_hard.txt"].startswith("/anvo25/b-score/5c1c9a46")
    (tmp_path / "questions.jsonl").write_text("{}")
    assert checksums.check("bscore", tmp_path) == {"questions.jsonl": "differs"}
    (tmp_path / "questions.jsonl").unlink()
    assert set(checksums.check("bscore", tmp_path).values()) == {"missing"}
