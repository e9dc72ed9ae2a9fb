"""Checksums notice every flipped bit, and what has none is said to be unverified."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from evenhand.core import checksums
from evenhand.core.checksums import damage_of_folder, seal_folder, sealed, unsealed
from evenhand.core.hashing import checksum
from evenhand.errors import RunError


@pytest.mark.parametrize("content", [{}, {"a": 1}, {"name": "größe", "x": [0.1, float("inf"), None], "p": Path("q")}])
def test_json_comes_back_verified(content: dict[str, Any]) -> None:
    text = sealed(content)
    known = {name: str(value) if isinstance(value, Path) else value for name, value in content.items()}
    assert unsealed(text) == (known, True)
    assert list(json.loads(text)) == [*known, "checksum"]
    assert unsealed(sealed(json.loads(text))) == (known, True), "a checksum that is given is not one more entry"


def test_the_checksum_is_blake2b_of_the_compact_json() -> None:
    assert (
        json.loads(sealed({"a": [1, "ü"]}))["checksum"]
        == hashlib.blake2b('{"a":[1,"ü"]}'.encode(), digest_size=8).hexdigest()
        == checksum('{"a":[1,"ü"]}')
    )


def test_no_flipped_bit_of_json_changes_its_content_unnoticed() -> None:
    content = {"seed": 1, "models": {"demo": {"bias": 0.25}}, "note": "größe"}
    whole = sealed(content).encode()
    noticed = 0
    for place in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[place // 8] ^= 1 << place % 8
        try:
            found = unsealed(broken.decode())
        except ValueError:
            noticed += 1
            continue
        assert {name: found.content.get(name) for name in content} == content, bytes(broken)
    assert noticed > 0.7 * 8 * len(whole)


@pytest.mark.parametrize(("text", "said"), [("[]", "not a JSON object"), ("{", "Expecting"), ("[" * 10**5, "nested")])
def test_what_is_not_an_object_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        unsealed(text)


def test_json_of_earlier_versions_is_read_unverified() -> None:
    assert unsealed('{"a": 1}') == ({"a": 1}, False)


def filled(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(range(100)))
    (folder / "deep" / "name with  spaces").write_text("x")
    (folder / "journal.sqlite-wal").write_text("of a database, which changes when it is opened")
    return folder


def test_a_folder_is_listed_as_sha256sum_lists_it(tmp_path: Path) -> None:
    folder, listed = filled(tmp_path / "a"), tmp_path / ".list"
    seal_folder(folder, listed)
    first, second, own = listed.read_text().splitlines()
    assert first == f"{hashlib.sha256(b'x').hexdigest()}  deep/name with  spaces"
    assert second == f"{hashlib.sha256(bytes(range(100))).hexdigest()}  weights"
    assert own == f"# {checksum(f'{first}{chr(10)}{second}{chr(10)}')}"
    assert damage_of_folder(folder, listed) == ""
    (folder / "journal.sqlite-wal").unlink()
    (folder / "added later").write_text("")
    assert damage_of_folder(folder, listed) == ""


def test_every_damage_to_a_folder_is_told(tmp_path: Path) -> None:
    folder = filled(tmp_path / "a")
    listed = folder / "list"
    seal_folder(folder, listed)
    for name in ("weights", "deep/name with  spaces", "list"):
        whole = (folder / name).read_bytes()
        for broken in (whole[:-1], bytes(len(whole)), bytes([whole[0] ^ 1]) + whole[1:]):
            (folder / name).write_bytes(broken)
            assert damage_of_folder(folder, listed) == f"{name}: its content is not what was written"
        (folder / name).unlink()
        assert damage_of_folder(folder, listed) == ("" if name == "list" else f"{name} is missing")
        (folder / name).write_bytes(whole)
        assert damage_of_folder(folder, listed) == ""


def test_a_list_opens_nothing_outside_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "a").mkdir()
    lines = f"{hashlib.sha256(b's').hexdigest()}  ../secret\n"
    (tmp_path / "list").write_text(f"{lines}# {checksum(lines)}\n")
    assert damage_of_folder(tmp_path / "a", tmp_path / "list") == "../secret is missing"


def test_a_file_is_read_once_for_its_checksum_and_its_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evenhand.core import hashing

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "m.safetensors").write_bytes(b"weights")
    seal_folder(tmp_path / "a", tmp_path / "list")
    hashing._file_hash.cache_clear()
    read: list[str] = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: (read.append(file.name), real(file, name))[1])
    for _ in range(2):
        assert damage_of_folder(tmp_path / "a", tmp_path / "list") == ""
        hashing.of_folder(tmp_path / "a")
    assert read == [str(tmp_path / "a" / "m.safetensors")]


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\x0b", "\r"])
def test_names_with_another_line_end_are_sound(tmp_path: Path, mark: str) -> None:
    (tmp_path / f"a{mark}b").write_text("x")
    seal_folder(tmp_path, tmp_path / "list")
    assert damage_of_folder(tmp_path, tmp_path / "list") == ""
    (tmp_path / f"a{mark}b").unlink()
    assert damage_of_folder(tmp_path, tmp_path / "list") == f"a{mark}b is missing"


def test_what_was_moved_aside_is_not_part_of_a_folder(tmp_path: Path) -> None:
    folder, aside = filled(tmp_path / "a"), tmp_path / "a" / "deep" / "checkpoint-00001.damaged-1"
    aside.mkdir()
    (aside / "weights").write_text("w")
    seal_folder(folder, tmp_path / "list")
    assert "damaged" not in (tmp_path / "list").read_text()
    (aside / "weights").unlink()
    assert damage_of_folder(folder, tmp_path / "list") == ""


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_what_cannot_be_read_for_now_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder = filled(tmp_path / "a")
    seal_folder(folder, tmp_path / "list")

    def refused(file: Path) -> str:
        raise OSError(code, "refused", str(file))

    monkeypatch.setattr(checksums, "file_hash", refused)
    with pytest.raises(RunError, match=r"cannot be read .*run again when it can be"):
        damage_of_folder(folder, tmp_path / "list")
