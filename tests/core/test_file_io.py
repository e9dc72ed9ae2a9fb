"""Files are written whole or not at all, also by a process that is killed."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from evenhand.core import file_io


def files(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir())


def test_text_and_bytes(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    file_io.write_text(target, "größe\n")
    assert target.read_bytes() == "größe\n".encode()
    file_io.write_bytes(target, b"\x00\xff")
    assert target.read_bytes() == b"\x00\xff" and files(tmp_path) == ["a.txt"]


def test_the_target_is_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write(part: Path) -> None:
        part.write_text("new")
        assert target.read_text() == "old" and part.parent == target.parent

    file_io.write_with(target, write)
    assert target.read_text() == "new" and files(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt(), ValueError("half way")])
def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write(part: Path) -> None:
        part.write_text("hal")
        raise error

    with pytest.raises(type(error)):
        file_io.write_with(target, write)
    assert target.read_text() == "old" and files(tmp_path) == ["a.txt"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_io.write_text(tmp_path / "absent" / "a.txt", "x")


def test_a_target_that_is_a_folder_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    with pytest.raises(OSError):
        file_io.write_text(tmp_path / "a", "x")
    assert files(tmp_path) == ["a"] and files(tmp_path / "a") == ["b"]


def test_others_may_read_as_the_umask_says(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    file_io.write_text(tmp_path / "a", "x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


def test_two_writers_of_one_file_do_not_share_a_temporary_one(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"

    def write(part: Path) -> None:
        part.write_text("outer")
        file_io.write_text(target, "inner")
        assert target.read_text() == "inner" and part.read_text() == "outer"

    file_io.write_with(target, write)
    assert target.read_text() == "outer" and files(tmp_path) == ["a.txt"]


@pytest.mark.skipif(os.name == "nt", reason="processes are killed otherwise there")
def test_a_killed_writer_leaves_the_old_file_and_its_rest_can_be_removed(tmp_path: Path) -> None:
    target = tmp_path / "a[1].txt"
    target.write_text("old")
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom evenhand.core import file_io\n"
        "def write(part):\n    part.write_text('hal')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "file_io.write_with(Path(sys.argv[1]), write)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(target)], timeout=120)
    assert done.returncode == -signal.SIGKILL and target.read_text() == "old"
    assert len(files(tmp_path)) == 2, "the unfinished file"
    (tmp_path / "a[1].txt.part").touch()  # somebody else's
    (tmp_path / ".b.txt.12ab.part").touch()
    file_io.remove(target)
    assert files(tmp_path) == [".b.txt.12ab.part", "a[1].txt.part"]
    file_io.remove(target)


def test_what_is_damaged_gets_the_next_free_name(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / "a.txt").write_text(str(number))
        assert file_io.move_aside(tmp_path / "a.txt") == tmp_path / f"a.txt.damaged-{number}"
    assert (tmp_path / "a.txt.damaged-2").read_text() == "2" and not (tmp_path / "a.txt").exists()
    (tmp_path / "folder").mkdir()
    (tmp_path / "into").mkdir()
    assert file_io.move_aside(tmp_path / "folder", tmp_path / "into") == tmp_path / "into" / "folder.damaged-1"
    assert (tmp_path / "into" / "folder.damaged-1").is_dir()
    file_io.move_aside(tmp_path / "gone")  # another process was faster


def test_content_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("name"), replace(*paths)))
    file_io.write_text(tmp_path / "a", "x")
    assert done == ["file", "name", "folder"]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "b").write_text("x")
    done.clear()
    file_io.sync_tree(tmp_path / "deep")
    assert sorted(done) == ["file", "folder", "folder"]


def test_a_disk_that_fails_at_the_last_moment_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_io.write_text(tmp_path / "a", "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        file_io.write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old" and [f.name for f in tmp_path.iterdir()] == ["a"]


def test_a_file_is_synced_by_a_handle_that_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses others."""
    wrote: list[int] = []
    sync = os.fsync

    def synced(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            wrote.append(os.write(handle, b""))
        sync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    file_io.write_text(tmp_path / "a", "x")
    assert wrote == [0] and (tmp_path / "a").read_text() == "x"


def test_a_file_that_may_only_be_read_is_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")
    opened = os.open

    def guarded(path: Path, flags: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags)

    synced: list[int] = []
    monkeypatch.setattr(os, "open", guarded)
    monkeypatch.setattr(os, "fsync", synced.append)
    file_io.sync_tree(tmp_path)
    assert len(synced) == 2


@pytest.mark.parametrize(("number", "raised"), [("EINVAL", False), ("EBADF", False), ("EIO", True), ("EDQUOT", True)])
def test_only_errors_that_lose_content_are_errors(
    number: str, raised: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = {name: code for code, name in errno.errorcode.items()}[number]

    def failing(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError) if raised else nullcontext():
        file_io.write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").exists() is not raised
