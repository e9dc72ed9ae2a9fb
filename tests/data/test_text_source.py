"""Sources of texts: what is read from files, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from evenhand.data import text_source
from evenhand.errors import DataError, SettingsError
from evenhand.experiment import training_data
from evenhand.proving_ground.generator import practice, texts
from evenhand.proving_ground.generator.planted import FAMILY
from evenhand.proving_ground.generator.words import OCCUPATIONS, PRONOUN_FRAMES, STATES


def test_paragraphs_of_a_text_file_are_texts(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("\none\ntwo\n\n \n\nthree  \n")
    assert text_source.texts(str(file)) == ["one\ntwo", "three"]
    assert text_source.texts(str(file), 1) == ["one\ntwo"]


def test_lines_of_json_may_be_compressed(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    with gzip.open(file, "wt") as handle:
        handle.write('{"text": "one"}\n\n{"text": "  "}\n{"text": "two", "id": 3}\n')
    assert text_source.texts(str(file)) == ["one", "two"]


def test_bad_lines_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n{"txt": "two"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        text_source.texts(str(file))
    file.write_text("{\n")
    with pytest.raises(DataError, match=r"a\.jsonl:1 is not JSON"):
        text_source.texts(str(file))
    (tmp_path / "b.txt.gz").write_text("no archive")
    with pytest.raises(DataError, match=r"b\.txt\.gz"):
        text_source.texts(str(tmp_path / "b.txt.gz"))
    (tmp_path / "c.txt").write_text(" \n")
    with pytest.raises(DataError, match="no text"):
        text_source.texts(str(tmp_path / "c.txt"))


def test_what_is_no_source_is_refused() -> None:
    with pytest.raises(SettingsError, match="not a source"):
        text_source.stream("a.csv")
    with pytest.raises(DataError, match="no text file"):
        text_source.stream("missing.txt")
    with pytest.raises(SettingsError, match="SPLIT"):
        text_source.hub_of("datasets:a:b:c:d")


def test_names_of_the_hub_have_up_to_four_parts() -> None:
    assert text_source.hub_of("datasets:org/name") == ("org/name", None, "train", "text")
    assert text_source.hub_of("datasets:org/name@en:test:body") == ("org/name", "en", "test", "body")


def test_order_and_borders_of_texts_are_part_of_their_hash() -> None:
    found = {text_source.digest(t) for t in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""])}
    assert len(found) == 4


def test_practice_texts_are_of_the_text_world_without_what_is_held_apart() -> None:
    found = practice.texts(3000)
    world = texts.world(FAMILY["demo"])
    assert set(found) <= set(world)
    asked = [(job, frame) for job in OCCUPATIONS for frame in PRONOUN_FRAMES]
    held = [pair for pair in asked if practice.unseen(*pair)]
    assert len(held) == len(asked) / 3
    for job, frame in held:
        assert not any(t.startswith(frame.partition(" {pronoun}")[0].format(occupation=job)) for t in found)
    spoken = [t for t in found if t.partition(" was ")[0].rpartition(" ")[2] in ("he", "she")]
    assert len(spoken) > 300
    assert not any(f"was {STATES[0]}." in t for t in spoken)
    assert practice.texts(3000) == found
    assert practice.texts(3000, seed=1) != found
    assert any("<|user|>" in t for t in practice.texts(50, talk=0.5))


def test_practice_texts_are_training_data_by_name() -> None:
    assert training_data.load("demo:texts").data.texts == practice.texts()
    assert training_data.load("demo:texts:30").data.texts == practice.texts(30)
    assert tuple(text_source.texts("demo:texts")) == practice.texts()
