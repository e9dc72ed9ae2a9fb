"""A key that occurs twice is refused in every kind of YAML file that evenhand reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evenhand.core.yaml_reader import DoubleKeyError, load
from evenhand.data import adjudication, disco, pronouns
from evenhand.errors import DataError, EvenhandError, SettingsError
from evenhand.experiment import config
from evenhand.methods.distillation.rules import rule_pack
from evenhand.methods.distillation.rules.packs import FOLDER as WORD_GROUPS
from evenhand.prompting.prompt_packs import FOLDER as PROMPTS
from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.proving_ground.statements import STATEMENTS, statements


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", None),
        ("a: 1\nb: {a: 2, c: [x, {a: no}]}\n", {"a": 1, "b": {"a": 2, "c": ["x", {"a": False}]}}),
        ("\ufeffa: ü\n", {"a": "ü"}),
        ("1: a\n'1': b\n", {1: "a", "1": "b"}),
        ("- {a: 1}\n- {a: 2}\n", [{"a": 1}, {"a": 2}]),
    ],
)
def test_content_is_what_yaml_says(text: str, content: Any) -> None:
    assert load(text) == content == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("a: 1\nb: 2\na: 1\n", "a", (1, 3)),
        ("{a: 1, a: 2}", "a", (1, 1)),
        ("x:\n  - b: {c: 1,\n      c: 2}\n", "c", (2, 3)),
        ("a: 1\n'a': 2\n", "a", (1, 2)),
        ("1: a\n0x1: b\n", "0x1", (1, 2)),
        ("yes: a\ntrue: b\n", "true", (1, 2)),
        ("a: &a {x: 1, x: 2}\n", "x", (1, 1)),
    ],
)
def test_a_double_key_is_refused(text: str, key: str, lines: tuple[int, int]) -> None:
    with pytest.raises(DoubleKeyError) as caught:
        load(text)
    assert (caught.value.key, caught.value.first, caught.value.line) == (key, *lines)
    assert str(caught.value) == f"line {lines[1]}: the key {key!r} is there twice, first in line {lines[0]}"


def test_merged_keys_may_be_overridden() -> None:
    text = "a: &a {x: 1, y: 1}\nouter: {inner: &b {<<: *a, x: 2}}\nc: {<<: *b, y: 3}\nd: {<<: [*a, *b], z: 4}\n"
    assert load(text) == yaml.safe_load(text)
    assert load(text)["c"] == {"x": 2, "y": 3}


@pytest.mark.parametrize("text", ["a: [1\n", "a: !!python/object/apply:os.getcwd []\n", "a: 1\n---\nb: 2\n", "\ta: 1"])
def test_what_is_no_plain_yaml_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        load(text)


def doubled(text: str, key: str) -> str:
    """The text of a file with an empty entry before the first one of a key."""
    return re.sub(rf"^( *){key}:", rf"\1{key}: null\n\1{key}:", text, count=1, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("shipped", "key", "read", "error"),
    [
        (None, "benchmarks", config.read, SettingsError),
        (None, "dtype", config.read, SettingsError),
        (PROMPTS / "en.yaml", "language", lambda f: prompt_pack(str(f)), DataError),
        (PROMPTS / "de.yaml", "feedback", lambda f: prompt_pack(str(f)), DataError),
        (WORD_GROUPS / "en_pronouns.yaml", "axis", rule_pack, DataError),
        (WORD_GROUPS / "en_religion.yaml", "groups", rule_pack, DataError),
        (STATEMENTS, "self_debias", statements, SettingsError),
        (STATEMENTS, "moves", statements, SettingsError),
        (adjudication.FOLDER / "adjudication_en.yaml", "language", adjudication.load_texts, DataError),
        (pronouns.SHIPPED, "fillers", lambda f: pronouns.load_pronouns(str(f)), DataError),
        (disco.SHIPPED, "language", lambda f: disco.load_blanks(str(f)), DataError),
    ],
)
def test_no_kind_of_file_may_have_a_key_twice(
    tmp_path: Path, shipped: Path | None, key: str, read: Callable[[Path], Any], error: type[EvenhandError]
) -> None:
    run = "models: demo\nbenchmarks: bbq(source=demo)\nload:\n  dtype: float32\n"
    text = run if shipped is None else shipped.read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    read(file)
    other = tmp_path / "other.yaml"
    other.write_text(doubled(text, key), encoding="utf-8")
    with pytest.raises(error, match=rf"{re.escape(str(other))}.*'{key}' (is there|stands|occurs) twice"):
        read(other)
