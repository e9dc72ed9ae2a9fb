"""Ctrl-C and SIGTERM wherever they land: status, one line, and an end in time, whatever holds the main thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evenhand.cli import signals

BEFORE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
signal.signal(signal.SIGTERM, signal.SIG_DFL)
from evenhand.cli import signals
signals.GRACE = 0.4
with signals.heard():
    try:
        import threading, time
        def ready():
            print("ready", flush=True)
"""
AFTER = """
    except KeyboardInterrupt:
        signals.stop()
"""
LOOP = "while True: pass"
WAITS = """
import ctypes
ctypes.CDLL(None).usleep.argtypes = [ctypes.c_uint]
ready()
for _ in range(100):  # C code that does not return to Python
    ctypes.CDLL(None).sleep(600)
"""
JOINS = """
def work():
    time.sleep(600)
worker = threading.Thread(target=work)
worker.start()
ready()
worker.join()  # is interrupted, and the interpreter joins it again at its end
"""
SWALLOWS = """
while True:
    try:
        ready()
        while True: pass
    except BaseException:
        pass
"""
FINALIZER = """
class Swallowing:
    def __del__(self):
        ready()
        until = time.monotonic() + 0.2
        while time.monotonic() < until: pass
thing = Swallowing()
del thing
while True: pass
"""


def started(body: str) -> subprocess.Popen[str]:
    code = BEFORE + "".join(f"        {line}\n" for line in body.splitlines()) + AFTER
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("body", "number", "status"),
    [
        (f"ready()\n{LOOP}", signal.SIGINT, 130),
        (f"ready()\n{LOOP}", signal.SIGTERM, 143),
        (WAITS, signal.SIGTERM, 143),
        (JOINS, signal.SIGINT, 130),
        (SWALLOWS, signal.SIGINT, 130),
        (FINALIZER, signal.SIGTERM, 143),
    ],
    ids=["loop", "loop, SIGTERM", "C code", "joined thread", "swallowed", "finalizer"],
)
def test_a_signal_ends_the_process_with_one_line(body: str, number: int, status: int) -> None:
    process = started(body)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert [line for line in said.splitlines() if "stopped" in line] == ["error: stopped"] and "Traceback" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_second_signal_ends_the_process_at_once() -> None:
    """The first one is swallowed, and the time that is left after it would be an hour."""
    process = started(f"signals.GRACE = 3600\n{SWALLOWS}")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_signal_while_the_command_line_is_imported_is_one_line() -> None:
    code = BEFORE.partition("from evenhand")[0] + (
        "import sys\n"
        "class Held:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'evenhand.cli.app':\n"
        "            print('ready', flush=True)\n"
        "            while True: pass\n"
        "sys.meta_path.insert(0, Held())\n"
        "from evenhand.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, "error: stopped\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_signal_to_a_forked_process_does_not_stop_its_parent() -> None:
    body = """
import os
child = os.fork()
if not child:
    time.sleep(60)
    os._exit(0)
ready()
time.sleep(1)  # until the child has its own handlers
os.kill(child, signal.SIGTERM)
_, status = os.waitpid(child, 0)
time.sleep(0.6)  # longer than GRACE
os._exit(7 if os.waitstatus_to_exitcode(status) == -signal.SIGTERM else 8)
"""
    process = started(body)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (7, "")


def test_handlers_are_put_back_and_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with signals.heard():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            inside = signal.getsignal(signal.SIGINT)
            with signals.heard():
                assert signal.getsignal(signal.SIGINT) is inside
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN and signal.getsignal(signal.SIGINT) is not inside
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_message_names_the_folder_that_is_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, said in ((tmp_path, f"kept in {tmp_path}: run the"), (tmp_path / "none", "before anything was asked")):
        with pytest.raises(SystemExit) as ended, signals.working_in(place):
            raise KeyboardInterrupt
        assert ended.value.code == 130 and said in capsys.readouterr().err.replace("\n", "")


def test_a_command_without_a_run_folder_says_that_it_was_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from evenhand.cli import app, catalogue

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(catalogue, "doctor", interrupted)
    monkeypatch.setattr(sys, "argv", ["evenhand", "doctor"])
    monkeypatch.setattr(signals, "_heard", SimpleNamespace(number=0, place=None, told=False))
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 130 and "error: stopped" in capsys.readouterr().err
