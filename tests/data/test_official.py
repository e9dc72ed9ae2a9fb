"""Data sets against their published hashes, and fetching them from a server that may lie."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import checksums, download, locate
from evenhand.data.io.checksums import Official, check, not_compared
from evenhand.errors import DataError, SettingsError

ONE = locate.Dataset("one", "", "", (), "MIT", "example.org/one")
FILES = {"a.csv": b"1,2\n", "deep/b.json": b"{}\n"}


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Official({p: bytes_hash(c) for p, c in FILES.items()}, {p: f"/owner/one/abc/{p}" for p in FILES})
    monkeypatch.setattr(checksums, "official", lambda name: known)
    monkeypatch.setattr(download, "official", lambda name: known)
    monkeypatch.setattr(locate, "official", lambda name: known)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    root = tmp_path / "served"
    for path, content in FILES.items():
        file = root / "owner/one/abc" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, directory=str(root), **kwargs)

        def log_message(self, *args) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_every_published_hash_is_one_and_every_file_of_a_repository_has_an_address() -> None:
    for name in checksums._table():
        known = checksums.official(name)
        assert known.files and all(len(h) == 64 and int(h, 16) for h in known.files.values()), name
        assert set(known.urls) in (set(), set(known.files))
    assert checksums.official("gpqa") == Official({}, {})
    assert checksums.official("bbq").urls["Age.jsonl"].startswith("/nyu-mll/BBQ/bea11bd")


@pytest.mark.usefixtures("published")
def test_check_tells_official_packed_changed_and_missing_files_apart(tmp_path: Path) -> None:
    assert check("one", tmp_path) == {"a.csv": "missing", "deep/b.json": "missing"}
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(FILES["a.csv"]))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.json").write_bytes(b"[]")
    assert check("one", tmp_path) == {"a.csv": "official", "deep/b.json": "differs"}


@pytest.mark.usefixtures("published")
def test_what_has_no_published_hash_is_named_as_not_compared(tmp_path: Path) -> None:
    for path in ("a.csv.gz", "data/test.parquet", "b.json", "LICENSE", ".cache/x.json", "deep/b.json"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(gzip.compress(b"") if path.endswith("gz") else b"")
    assert not_compared(tmp_path, check("one", tmp_path)) == ["b.json", "data/test.parquet"]


def test_a_packed_copy_leaves_the_unpacked_files_uncompared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Official({"a.csv": "0" * 64}, {}, {"all.jsonl": bytes_hash(b"{}")})
    monkeypatch.setattr(checksums, "official", lambda name: known)
    (tmp_path / "a.csv").write_bytes(b"1")
    assert not_compared(tmp_path, check("one", tmp_path)) == []
    (tmp_path / "all.jsonl").write_bytes(b"{}")
    assert check("one", tmp_path) == {"all.jsonl": "official"} and not_compared(tmp_path, check("one", tmp_path)) == [
        "a.csv"
    ]


@pytest.mark.usefixtures("published")
def test_fetch_takes_what_is_missing_and_leaves_what_is_there(tmp_path: Path, host: str) -> None:
    mine = tmp_path / "data/one/a.csv"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    folder = download.fetch(ONE, tmp_path / "data", host)
    assert mine.read_bytes() == b"mine"
    assert (folder / "deep/b.json").read_bytes() == FILES["deep/b.json"]
    assert not list(folder.rglob("*.part"))


@pytest.mark.usefixtures("published")
def test_a_changed_download_is_not_kept(tmp_path: Path, host: str) -> None:
    (tmp_path / "served/owner/one/abc/a.csv").write_bytes(b"1,3\n")
    with pytest.raises(DataError, match=r"not the published file: its SHA-256 is .* not kept"):
        download.fetch(ONE, tmp_path / "data", host)
    assert not list((tmp_path / "data").rglob("a.csv*"))


@pytest.mark.usefixtures("published")
def test_a_missing_file_says_how_else_to_get_the_set(tmp_path: Path, host: str) -> None:
    (tmp_path / "served/owner/one/abc/a.csv").unlink()
    with pytest.raises(DataError, match=r"404.*Put the files into a folder one/"):
        download.fetch(ONE, tmp_path / "data", host)


def test_fetch_wants_a_folder_and_something_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(locate.FOLDER_VARIABLE, raising=False)
    with pytest.raises(SettingsError, match="--to FOLDER"):
        download.fetch(ONE)
    with pytest.raises(DataError, match="one cannot be fetched by itself"):
        download.fetch(ONE, tmp_path)
