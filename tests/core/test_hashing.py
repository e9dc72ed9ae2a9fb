"""Hashes name what is stored: they have known answers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from evenhand.core.hashing import bytes_hash, digest, json_hash, of_folder, short_text_hash, stream_hash, text_hash


def test_hashes_of_bytes_and_texts() -> None:
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, of "abc"
    assert bytes_hash(b"abc") == bytes_hash(b"a", memoryview(b"bc")) == known
    assert stream_hash(iter([b"ab", b"", b"c"])) == text_hash("abc") == known
    assert bytes_hash() == hashlib.sha256(b"").hexdigest()
    assert text_hash("größe\ud800") == hashlib.sha256("größe".encode() + b"\xed\xa0\x80").hexdigest()
    assert short_text_hash("abc") == hashlib.blake2b(b"abc", digest_size=12).hexdigest()


def test_hashes_of_json() -> None:
    assert json_hash({"b": 1, "a": [None, True]}) == "f40bd641c310fd1c69473c62b5bf678777c61d50ba962fbdbf52fa7f90290994"
    assert json_hash({"a": [None, True], "b": 1}) == json_hash({"b": 1, "a": (None, True)})
    assert json_hash([Path("x"), 0.1]) == hashlib.sha256(b'["x", 0.1]').hexdigest()


def test_digests_are_of_all_parts() -> None:
    assert digest("größe", {"b": 1, "a": 0.1}) == "362498a8f6feceaf6af81b90f3b0526b"
    assert digest("a", "b") == json_hash(["a", "b"])[:32] != digest("ab")
    assert digest() == hashlib.sha256(b"[]").hexdigest()[:32]


@pytest.mark.parametrize("kind", ["json", "txt", "safetensors"])
def test_the_hash_of_a_folder_is_of_its_content(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"a.{kind}").write_text("x")
    (tmp_path / "notes.md").write_text("y")
    assert of_folder(tmp_path) == digest([(f"a.{kind}", hashlib.sha256(b"x").hexdigest())])
