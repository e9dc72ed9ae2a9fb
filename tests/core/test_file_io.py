"""Files are written whole or not at all, also by a process that is killed."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
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
