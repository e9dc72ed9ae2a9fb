"""Check that a run that is killed again and again ends like an undisturbed one.

python benchmarks/torture_kills.py [--kills 100] [--only compare] [--seed 0] [--seconds 2] [--fresh 5]

Runs `evenhand compare` (prompts and trainings), `sweep` and `spillover` on the demo, in rounds. In a round, each run is
ended at a random moment, by SIGKILL, SIGINT or SIGTERM in turn, and started again with the same command, until one
finishes. Then, compared with an undisturbed run:

- the records are the same: values within 1e-6, p and the ends of intervals within 1e-4, since what is asked after a
  kill shares its batch with other questions; the table says how many rounds are the same bit for bit;
- what was trained is the same bit for bit, and no epoch was finished twice;
- no answer was computed and stored twice, so that only the current batch is lost;
- the same files are in the folder, and nothing is left in the folder of temporary files;
- SIGINT ended with status 130 and SIGTERM with 143, each within `--seconds` and with one line that says so.

Moments are counted in processor seconds, so that a busy machine changes none. Processes are forked from one that
has imported everything; of so many, one is a `fresh` one, which is also killed while it imports. Ends with status 1
unless all of that holds.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

import psutil
from tables import markdown
from torture_storage import Seen, difference, seen

import evenhand
from evenhand.cli import main as command
from evenhand.cli import signals
from evenhand.core.answer_cache import AnswerCache
from evenhand.experiment import comparison, spillover, sweep  # noqa: F401  # so that forked processes have them
from evenhand.methods.unlearning._pcgu import updates  # noqa: F401
from evenhand.training.checkpoints import Checkpoints

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
DEMO = "bbq(source=demo)"
RUNS = {
    "short": (
        *("compare", "--methods", "instruction,task_vector(epochs=2,strengths=(0.5,))", "--benchmarks", DEMO),
        *("--train", "demo:pairs:Age:20", "--limit", "6", "--replicates", "200"),
    ),
    "compare": (
        *("compare", "--methods", "instruction,task_vector(epochs=2),pcgu(epochs=2)", "--benchmarks", DEMO),
        *("--train", "demo:pairs:Age:60", "--limit", "16", "--replicates", "200"),
    ),
    "sweep": (
        *("sweep", "--method", "task_vector(epochs=1)", "--vary", "strength=0.5,1", "--train", "demo:pairs:Age:60"),
        *("--limit", "8", "--replicates", "200"),
    ),
    "spillover": (
        *("spillover", "pcgu(epochs=1)", "--axes", "Age,Religion", "--limit", "8"),
        *("--train", "demo:pairs:{axis}:40"),
    ),
}
"""Arguments of the runs, by name; `--out` is added."""
HANGS = 300.0
"""Seconds after which a process that was asked to end is considered to hang."""


class Ended(NamedTuple):
    """How a process ended."""

    by: str
    """Name of the signal that it was sent; "" if it finished before."""
    status: int
    seconds: float
    """Wall-clock seconds since the signal."""
    said: str


class Left(NamedTuple):
    """What a finished run has left."""

    records: Seen
    trained: dict[str, str]
    """Digests of weights."""
    files: list[str]


# --------------------------------------------------------------------------------------------------- a process


class Place:
    """Folder of runs of one kind, with their logs."""

    def __init__(self, folder: Path, name: str) -> None:
        """Make an empty place.

        Args:
            folder: Folder, which is created.
            name: A key of `RUNS`.
        """
        self.out, self.temporary, self.log = folder / "run", folder / "temporary", folder / "log"
        self.said = folder / "said"
        self.arguments = [*RUNS[name], "--out", str(self.out)]
        self.temporary.mkdir(parents=True)
        self.log.touch()

    def forked(self) -> int:
        """Run the command in a copy of this process, and return its id once it handles signals."""
        ready, told = os.pipe()
        child = os.fork()
        if not child:
            os.close(ready)
            self._run(told)
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        return child

    def _run(self, told: int) -> NoReturn:
        status = 1
        try:
            for descriptor, file in ((1, Path(os.devnull)), (2, self.said)):
                os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
            tempfile.tempdir = str(self.temporary)
            sys.argv = ["evenhand", *self.arguments]
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
            log_work(self.log)
            warnings.simplefilter("ignore")
            with signals.heard():
                os.write(told, b".")
                command()
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def fresh(self) -> int:
        """Run the command in a process of its own, as a user does, and return its id."""
        code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        code += "from evenhand.cli import signals\n"
        code += "with signals.heard():\n    from evenhand.cli import main\n    main()"
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        with self.said.open("w") as said:
            started = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", code, *self.arguments],
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=environment,
            )
        return started.pid

    def ended(self, child: int, after: float, number: int) -> Ended:
        """Wait for a process, and send it a signal once it has used that many processor seconds."""
        while not (found := os.waitpid(child, os.WNOHANG))[0]:
            if spent(child) >= after:
                began = time.monotonic()
                os.kill(child, number)
                status = waited(child)
                return Ended(signal.Signals(number).name, status, time.monotonic() - began, self.said.read_text())
            time.sleep(0.003)
        return Ended("", os.waitstatus_to_exitcode(found[1]), 0.0, self.said.read_text())


def log_work(log: Path) -> None:
    """Write a line for each stored answer and each kept epoch, which no kill undoes."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    put, keep = AnswerCache.put, Checkpoints.keep

    def logged_put(self: AnswerCache, values: object) -> None:
        pairs = dict(values)  # type: ignore[call-overload]
        put(self, pairs)
        os.write(descriptor, "".join(f"{self.path} {key}\n" for key in pairs).encode())

    def logged_keep(self: Checkpoints, curve: Sequence[object], *more: object) -> None:
        keep(self, curve, *more)  # type: ignore[arg-type]
        os.write(descriptor, f"{self.folder} epoch {len(curve)}\n".encode())

    AnswerCache.put, Checkpoints.keep = logged_put, logged_keep  # type: ignore[method-assign,assignment]


def spent(child: int) -> float:
    """Return the processor seconds that a process has used."""
    with suppress(psutil.Error):
        times = psutil.Process(child).cpu_times()
        return float(times.user + times.system)
    return 0.0


def waited(child: int) -> int:
    """Return the exit status of a process; one that hangs is killed."""
    ends = time.monotonic() + HANGS
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > ends:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.003)
    return os.waitstatus_to_exitcode(found[1])


# --------------------------------------------------------------------------------------------------- what is left


def left(place: Place) -> Left:
    """Read what a finished run has left in its folder."""
    runs = sorted(file.parent for file in place.out.rglob("manifest.json"))
    found = [seen(evenhand.Report.load(run)) for run in runs]
    records = [row for run in found for row in run.records]
    files = sorted(str(file.relative_to(place.out)) for file in place.out.rglob("*"))
    weights = sorted(place.out.rglob("*.safetensors"))
    digests = {str(f.relative_to(place.out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in weights}
    return Left(Seen(records, {}), digests, files)


def wrong(place: Place, whole: Left) -> Iterator[str]:
    """List differences from what an undisturbed run has left."""
    now = left(place)
    if found := difference(now.records.records, whole.records.records):
        yield f"other records: {found}"
    if now.trained != whole.trained:
        yield f"other weights: {sorted(dict(now.trained.items() ^ whole.trained.items()))}"
    if now.files != whole.files:
        yield f"other files: {sorted({*now.files} ^ {*whole.files})}"
    if there := sorted(file.name for file in place.temporary.iterdir()):
        yield f"temporary files: {there}"
    counts = Counter(place.log.read_text().splitlines())
    if twice := [line for line, many in counts.items() if many > 1]:
        yield f"done twice: {len(twice)} of {len(counts)}, such as {twice[0]}"


def wrong_end(ended: Ended, seconds: float) -> Iterator[str]:
    """List what is wrong with how a process ended."""
    expected = {"": 0, "SIGKILL": -9, "SIGINT": 130, "SIGTERM": 143}[ended.by]
    if ended.status not in (expected, 0):
        yield f"{ended.by or 'no signal'}: status {ended.status} instead of {expected}: {ended.said[-2000:]}"
    elif ended.seconds > seconds:
        yield f"{ended.by}: ended after {ended.seconds:.1f} s, which is more than {seconds:g}"
    elif ended.status > 0 and ("Traceback" in ended.said or ended.said.count("error: stopped") != 1):
        yield f"{ended.by}: said {ended.said[-2000:]!r}"


# ------------------------------------------------------------------------------------------------------- rounds


class Tortured:
    """The runs of one kind, and their outcomes."""

    def __init__(self, name: str, folder: Path, draw: random.Random, seconds: float, fresh: int) -> None:
        """Run once undisturbed.

        Args:
            name: A key of `RUNS`.
            folder: Folder for all files.
            draw: Generator that draws moments.
            seconds: Seconds within which a signal must end a process.
            fresh: One in this many processes is a fresh one; 0 makes none.
        """
        self.name, self.folder, self.draw, self.seconds, self.fresh = name, folder / name, draw, seconds, fresh
        self.kills, self.rounds, self.exact, self.worst = Counter[str](), 0, 0, 0.0
        self.wrong: list[str] = []
        place = Place(self.folder / "whole", name)
        child = place.forked()
        self.length = 0.0
        while not (found := os.waitpid(child, os.WNOHANG))[0]:
            self.length = max(self.length, spent(child))
            time.sleep(0.01)
        if found[1]:
            raise SystemExit(f"{name} fails undisturbed: {place.said.read_text()}")
        self.whole = left(place)
        self.started = 0

    def round(self, most: int) -> None:
        """Kill a run up to that many times, let it finish, and check what it has left."""
        place = Place(self.folder / f"round-{self.rounds}", self.name)
        for kill in range(most + 1):
            ended = self._once(place, last=kill == most)
            for text in wrong_end(ended, self.seconds):
                self._told(text)
            if not ended.by and ended.status == 0:
                break
        self.rounds += 1
        for text in wrong(place, self.whole):
            self._told(text)
        self.exact += repr(left(place).records) == repr(self.whole.records)
        shutil.rmtree(place.out.parent)

    def _once(self, place: Place, *, last: bool) -> Ended:
        self.started += 1
        own = bool(self.fresh) and self.started % self.fresh == 0
        child = place.fresh() if own else place.forked()
        number = SIGNALS[self.started % len(SIGNALS)]
        # finished work is not done again, so that late moments are rarely reached
        moment = self.draw.uniform(0.05, self.length * (2 if own else 1)) * self.draw.choice((0.5, 1))
        ended = place.ended(child, float("inf") if last else moment, number)
        if ended.by:
            self.kills[ended.by] += 1
            self.worst = max(self.worst, ended.seconds)
        return ended

    def _told(self, text: str) -> None:
        self.wrong.append(text)
        print(f"{self.name}, round {self.rounds}: {text}", flush=True)

    def row(self) -> dict[str, object]:
        """Return a row of the table."""
        return {
            "run": self.name,
            **{name.name: self.kills[name.name] for name in SIGNALS},
            "rounds": self.rounds,
            "same bit for bit": self.exact,
            "longest end, s": f"{self.worst:.2f}",
            "wrong": len(self.wrong),
        }


def main() -> None:
    """Kill runs until there have been enough kills."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--only", choices=RUNS, help="one of the commands; default: all but the short one in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds within which a signal must end a process")
    parser.add_argument("--fresh", type=int, default=5, help="one in this many processes imports itself; 0: none")
    parser.add_argument("--round", type=int, default=6, help="kills after which a run may finish and is checked")
    parser.add_argument("--minutes", type=float, default=1e9, help="no round starts that would end later")
    given = parser.parse_args()
    began, draw = time.monotonic(), random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        names = [given.only] if given.only else [name for name in RUNS if name != "short"]
        every = [Tortured(name, Path(folder), draw, given.seconds, given.fresh) for name in names]
        while (done := sum(sum(one.kills.values()) for one in every)) < given.kills:
            if time.monotonic() - began > 60 * given.minutes:
                break
            every[sum(one.rounds for one in every) % len(every)].round(min(given.round, given.kills - done))
    print(f"{done} kills, {sum(one.rounds for one in every)} rounds; seed {given.seed}\n")
    print(markdown([one.row() for one in every]))
    sys.exit(any(one.wrong for one in every) or not done)


if __name__ == "__main__":
    main()
