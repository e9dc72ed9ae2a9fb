"""Damage that was once a traceback, a hang or a wrong result; each with the message that it gives."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evenhand.core import yaml_reader
from evenhand.core.answer_cache import AnswerCache
from evenhand.data import bbq_target, civil_comments, stereoset, text_source, unqover, wikitext
from evenhand.data.io import rows
from evenhand.data.io.content import read_bytes
from evenhand.data.io.delimited import read_delimited
from evenhand.data.io.layouts import delimiter_of, read_table
from evenhand.data.io.locate import Problems
from evenhand.errors import DataError


def test_a_packed_file_with_a_flipped_bit_is_broken_and_not_unpacked_text(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(b"some text\n" * 50, mtime=0))
    content[-6] ^= 1  # in the check sum
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.txt\.gz: the packed content is broken \(CRC check failed"):
        read_bytes(tmp_path / "a.txt.gz")
    with pytest.raises(DataError, match=r"a\.txt\.gz"):
        text_source.texts(str(tmp_path / "a.txt.gz"))


def test_a_broken_stream_of_training_texts_names_its_file(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(b"some text\n" * 50, mtime=0))
    content[12] ^= 0xFF  # in the packed stream: an error of zlib, not of gzip
    (tmp_path / "a.txt.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.txt\.gz"):
        text_source.texts(str(tmp_path / "a.txt.gz"))


@pytest.mark.parametrize("text", ["[" * 200 + "]" * 200, '{"a":' * 150 + "1" + "}" * 150, "[" * 100_000])
def test_json_is_refused_where_it_is_nested_deeply(text: str) -> None:
    with pytest.raises(rows.Refused, match=r"nested too deeply|not JSON"):
        rows.from_json(text)
    assert rows.from_json("[" * 100 + "]" * 100) is not None


@pytest.mark.parametrize("text", ["{[]: 1}", "[" * 300 + "]" * 300, "{" * 5000, "[" + "9" * 5000 + "]"])
def test_a_list_written_as_text_stays_text_where_it_cannot_be_read(text: str) -> None:
    assert rows.unwritten(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 3000, "nested more than 100 deep"),
        ("a: 2001-99-99", "line 1: '2001-99-99' cannot be read as timestamp"),
        ("\na: " + "9" * 5000, "line 2: '999999999999999999...999999999999999999' cannot be read as int"),
        ("a: !!bool x", "cannot be read as bool"),
        ('a: "\\ud800"', "cannot be read as str"),
        ('a: "\\UFFFFFFFF"', "."),
        ("a: &a [*a]", "line 1: the value contains itself"),
        (
            "a: &a [x]\n"
            + "".join(
                f"{c}: &{c} [{','.join(f'*{p}' for _ in range(10))}]\n"
                for p, c in zip("abcdefg", "bcdefgh", strict=True)
            ),
            "more than 1,000,000 values",
        ),
    ],
)
def test_yaml_that_no_file_needs_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(yaml_reader.yaml.YAMLError, match=said) as caught:
        yaml_reader.load(text)
    assert "\n" not in str(caught.value)


def test_yaml_keeps_anchors_and_merged_keys() -> None:
    assert yaml_reader.load("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1},
    }


def test_a_table_with_a_date_that_python_does_not_have_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"when": pa.array([2**62], pa.timestamp("us"))}), file)
    with pytest.raises(DataError, match=r"a\.parquet is not parquet that can be read"):
        list(read_table(file, file.read_bytes(), (), Problems()))


def test_offsets_of_a_damaged_arrow_file_are_not_followed(tmp_path: Path) -> None:
    table, sink = pa.table({"text": ["some", "words"]}), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue().to_pybytes()
    offsets = content.index(b"\x00\x00\x00\x00\x04\x00\x00\x00\x09\x00\x00\x00")
    broken = content[: offsets + 4] + b"\xff\xff\xff\x7f" + content[offsets + 8 :]
    assert [row for _, row in read_table(tmp_path / "a.arrow", content, (), Problems())] == table.to_pylist()
    with pytest.raises(DataError, match=r"a\.arrow is not arrow that can be read"):
        list(read_table(tmp_path / "a.arrow", broken, (), Problems()))


def test_a_stray_carriage_return_in_the_header_is_no_foreign_error(tmp_path: Path) -> None:
    assert delimiter_of(b"a\rb;c;d\n1;2;3\n") in (",", ";")
    assert delimiter_of(b'"a;b\rc') in (",", ";")


def test_doubled_quotes_of_a_tsv_file_are_read_as_before(tmp_path: Path) -> None:
    table = b'id\ttext\n1\t"She said ""yes""."\n'
    assert [row for _, row in read_delimited(Path("a.tsv"), table, (), Problems(), delimiter="\t")] == [
        {"id": "1", "text": 'She said "yes".'}
    ]


@pytest.mark.parametrize("index", ["²", "9" * 5000, "1.5", ""])
def test_a_question_index_that_is_no_number_is_no_template(index: str) -> None:
    assert bbq_target.label_type({"category": "Age", "question_index": index}) == "label"
    assert bbq_target.label_type({"category": "Gender_identity", "question_index": "26"}) == "name"


def test_a_toxicity_beyond_all_numbers_is_left_out(tmp_path: Path) -> None:
    lines = [{"text": "Fine.", "toxicity": 10**400}, {"text": "Bad.", "toxicity": 0.9}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.warns(UserWarning, match="not a share from 0 to 1"):
        assert civil_comments.toxic_comments(str(tmp_path / "a.jsonl")) == ["Bad."]


@pytest.mark.parametrize("data", [["intersentence"], "intersentence", None, {"intersentence": 3}])
def test_a_released_stereoset_of_another_form_is_refused(tmp_path: Path, data: object) -> None:
    (tmp_path / "dev.json").write_text(json.dumps({"data": data}))
    with pytest.raises(DataError, match=r"dev\.json is not StereoSet's"):
        stereoset.load_examples(str(tmp_path))


def test_texts_that_are_not_utf_8_name_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "wiki.test.raw").write_bytes(b"one\ntwo\n\xff\n")
    with pytest.raises(DataError, match=r"wiki\.test\.raw:3: not UTF-8: invalid start byte at byte 8"):
        wikitext.load("test", str(tmp_path))


def test_a_broken_word_list_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "nouns/subjects").mkdir(parents=True)
    (tmp_path / "nouns/subjects/country").write_text("North\n")
    with pytest.raises(DataError, match=r"/nouns/subjects/country:1: 'North' is not"):
        unqover.load(str(tmp_path))


def test_a_damaged_answer_cache_says_what_to_do(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.sqlite")
    cache.put({"a": 1})
    cache._db.execute("UPDATE answers SET value = 'half a'")
    with pytest.warns(UserWarning, match=r"c\.sqlite: an answer does not match its checksum; it is asked again"):
        assert cache.get(["a"]) == {}
    cache.close()
