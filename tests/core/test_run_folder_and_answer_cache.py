"""What was answered is kept: through kills, full disks, other processes, and back into the same objects."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evenhand.core import registry
from evenhand.core.answer_cache import AnswerCache, active, answer_cache, key
from evenhand.core.answer_table import COLUMNS
from evenhand.core.records import Record
from evenhand.core.run_folder import RunFolder, from_plain
from evenhand.errors import RunError
from evenhand.evaluation.b_score import BScoreAnswer, Shot
from evenhand.evaluation.disco import Filled
from evenhand.evaluation.holistic_bias import CellScores
from evenhand.evaluation.honest import Completions
from evenhand.evaluation.label_bias import TaskAnswer
from evenhand.evaluation.metrics.sentence_scores import Scored
from evenhand.evaluation.option_order import OrderAnswer
from evenhand.evaluation.perplexity import WindowScore
from evenhand.evaluation.pronoun_skew import PronounScores
from evenhand.evaluation.redditbias import TwinScores
from evenhand.evaluation.seat import Associations
from evenhand.evaluation.unqover import PairAnswer
from evenhand.interfaces import Choice, Message, Reply, Usage

CHOICES = (
    Choice(
        2,
        probabilities=(0.1, 1 / 3, 1 - 0.1 - 1 / 3),
        reply='C, "weil" 日本 \U0001f600\n',
        mass=0.25,
        before=(Message("system", "be fair"), Message("user", "Wer?"), Message("assistant", "")),
        usage=Usage(3, 250, 7),
        note="größe",
    ),
    Choice(0),
    Choice(None, status="unparsed", reply="neither", probabilities=None, mass=0.0),
    Choice(None, status="unanswered", note="the endpoint said no", usage=Usage(1)),
    Choice(1, probabilities=(0.0, 1.0), mass=5e-324),
)
REPLIES = (Reply("text", Usage(1, 2, 3)), Reply(None, note="never came"), Reply("", finished=False))
OTHERS = (
    TaskAnswer(CHOICES[:2], ()),
    WindowScore(-1 / 3, 4),
    WindowScore(None, 0),
    BScoreAnswer(((Shot("{{a}}", (1, 0)),),), ((Shot(None, (0, 1)), Shot("", (1, 0))),), Usage(1, 2, 3)),
    CellScores((-0.1, None), (3, 0)),
    Scored((-0.1, None), (3, 0)),
    TwinScores(Scored((-0.1, -7.0), (3, 4)), True),
    OrderAnswer(CHOICES[:2]),
    Filled(((("late", "old"), ()),), (((-0.1, -1 / 3), ()),), Usage(1, 2)),
    PronounScores((-0.1, None), (-1 / 3, None), (-2.0,), (-3.0,), alone=False),
    Associations((0.25, -1 / 3), (0.1, 0.0), Usage(8, 0)),
    PairAnswer(CHOICES[:4], Usage(4, 9)),
    Completions(("word", ""), Usage(2, 8), "note"),
)
IDS = ("a", "b", "ü/ü", "d d", "e")


@dataclass(frozen=True)
class Inner:
    tokens: tuple[int, ...]
    message: Message | None = None


@dataclass(frozen=True)
class Custom:
    """What a plugin's benchmark may use as an answer."""

    inner: Inner
    many: list[Inner]
    kind: Literal["x", "y"]
    pairs: tuple[tuple[float, ...], ...] = ()
    late: str = "default"


CUSTOM = (
    Custom(Inner((1, 2), Message("user", "hi")), [Inner(()), Inner((3,))], "y", ((0.5,), (), (1.0, 2.0)), "given"),
    Custom(Inner(()), [], "x"),
)


# ---------------------------------------------------------------------------------------------------------- cache


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "evenhand-test", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as handle:
        try:
            while handle.write(b"x" * 4096):
                pass
        except OSError:
            pass
    return filler


def run(script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False)


@pytest.mark.parametrize(
    "value",
    [
        {"decision": None, "probabilities": [0.1, 1 / 3], "mass": 5e-324},
        "größe 日本 \U0001f600 \x00 \u2028",
        "half a pair: \ud83d",
        [],
        None,
        -0.0,
        2**60,
    ],
)
def test_a_value_comes_back_as_it_was_also_from_another_connection(tmp_path: Path, value: Any) -> None:
    with answer_cache(tmp_path / "new" / "folder" / "c.sqlite") as cache:
        assert cache is not None
        cache.put({"k": value})
        assert cache.get(["k"]) == {"k": value}
    with answer_cache(tmp_path / "new" / "folder" / "c.sqlite") as cache:
        assert cache is not None
        assert repr(cache.get(["k"])["k"]) == repr(value)


def test_more_keys_than_sqlite_takes_at_once_are_found_and_counted(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.sqlite")
    cache.put((f"k{i}", i) for i in range(1203))
    wanted = [f"k{i}" for i in range(0, 1300)]
    found = cache.get([*wanted, *wanted[:50]])
    assert found == {f"k{i}": i for i in range(1203)}
    assert (cache.hits, cache.misses, len(cache)) == (1203, 97, 1203)
    assert cache.get([]) == {}


def test_what_is_found_tells_how_long_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("evenhand.core.answer_cache.time.monotonic", lambda: clock[0])

    def after(seconds: float) -> None:
        clock[0] += seconds

    with answer_cache(tmp_path / "c.sqlite") as cache:
        assert cache is not None
        assert cache.get(["a", "b", "c"]) == {} and cache.saved == 0
        after(6)
        cache.put({"a": 1, "b": 2})  # 3 seconds each
        after(1)
        cache.put({"c": 3})
        after(50)  # time that nobody spent on answers
        assert cache.get(["a", "z"]) == {"a": 1} and cache.saved == pytest.approx(3)
        after(4)
        cache.put({"z": 4})
    with answer_cache(tmp_path / "c.sqlite") as again:
        assert again is not None and again.saved == 0
        again.get(["b", "c", "z", "unknown"])
        assert again.saved == pytest.approx(3 + 1 + 4) and again.untimed == 0


def test_a_cache_of_before_times_were_kept_goes_on_and_says_what_is_untimed(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "old.sqlite") as db:
        db.execute("CREATE TABLE answers (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        db.execute("INSERT INTO answers VALUES ('old', '[1, 2]')")
    for _ in range(2):
        with answer_cache(tmp_path / "old.sqlite") as cache:
            assert cache is not None
            cache.put({"new": 3})
            assert cache.get(["old", "new"]) == {"old": [1, 2], "new": 3}
            assert cache.untimed == 1


def test_putting_again_replaces(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.sqlite")
    cache.put({"k": 1, "other": 2})
    cache.put({"k": 3})
    assert cache.get(["k", "other"]) == {"k": 3, "other": 2}


def test_of_values_put_together_all_are_kept_or_none(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.sqlite")
    with pytest.raises(TypeError):
        cache.put([("good", 1), ("bad", object())])
    assert len(cache) == 0


def test_a_key_is_the_hash_of_what_was_asked() -> None:
    text = '["print","größe",1,0.1,null,{"a":[1.0,true],"b":"x"}]'
    parts = ("print", "größe", 1, 0.1, None, {"b": "x", "a": (1.0, True)})
    assert key(*parts) == hashlib.sha256(text.encode()).hexdigest()


def test_keys_tell_apart_what_differs() -> None:
    asked = [
        ("a", "b"),
        ("ab",),
        ("a", ["b"]),
        (["a"], "b"),
        ("b", "a"),
        ("a", "b", None),
        ("1",),
        (1,),
        (1.0,),
        (True,),
        (None,),
        ("None",),
        (0.1,),
        (0.1 + 1e-17 * 2,),
        ("é",),
        ("e\u0301",),
        ("\ud83d",),
        ("\ud83e",),
        (),
        ("",),
    ]
    assert len({key(*parts) for parts in asked}) == len(asked)


def test_a_key_is_the_same_in_another_process() -> None:
    script = "from evenhand.core.answer_cache import key; print(key('größe', {'b': 1, 'a': 0.1}))"
    found = {run(script, PYTHONHASHSEED=seed, PYTHONUTF8="1").stdout.strip() for seed in ("1", "2")}
    assert found == {key("größe", {"a": 0.1, "b": 1})}


def test_the_cache_is_active_inside_its_block_only(tmp_path: Path) -> None:
    assert active() is None
    with answer_cache(tmp_path / "outer.sqlite") as outer:
        assert active() is outer is not None
        with answer_cache(None):
            assert active() is None
        with pytest.raises(KeyError), answer_cache(tmp_path / "inner.sqlite") as inner:
            assert active() is inner is not outer
            raise KeyError
        assert active() is outer
    assert active() is None


def test_what_is_no_cache_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database at all, " * 100)
    for bad in (tmp_path / "text.sqlite", tmp_path, tmp_path / "text.sqlite" / "below"):
        with pytest.raises(RunError, match=rf"cannot use {bad} as answer cache"):
            AnswerCache(bad)


def test_several_processes_open_and_fill_the_same_new_files_at_once(tmp_path: Path) -> None:
    script = """
        import sys, time
        from evenhand.core.answer_cache import AnswerCache
        who, folder = sys.argv[1:]
        print("ready", flush=True)
        start = float(sys.stdin.readline())
        for round in range(20):  # every round a new file, opened by all in the same moment
            while time.time() < start + 0.05 * round:
                pass
            cache = AnswerCache(f"{folder}/{round}.sqlite")
            for batch in range(3):
                cache.put({f"{who} {batch} {i}": [who, i] for i in range(10)})
                assert len(cache.get([f"{who} {batch} {i}" for i in range(10)])) == 10
            cache.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([*command, f"worker {w}", str(tmp_path)], **pipes) for w in range(5)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    start = str(time.time() + 0.1)
    outcomes = []
    for worker in workers:
        worker.stdin.write(start + "\n")
        worker.stdin.flush()
    for worker in workers:
        _, errors = worker.communicate(timeout=600)
        outcomes.append((worker.returncode, errors))
    assert outcomes == [(0, "")] * 5
    for round in range(20):
        with answer_cache(tmp_path / f"{round}.sqlite") as cache:
            assert cache is not None
            assert len(cache) == 5 * 3 * 10


def test_threads_share_one_cache(tmp_path: Path) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that they meet in every call
    cache, errors = AnswerCache(tmp_path / "c.sqlite"), []

    def work(who: int) -> None:
        try:
            for batch in range(100):
                cache.put({f"{who} {batch} {i}": i for i in range(10)})
                assert len(cache.get([f"{who} {batch} {i}" for i in range(10)])) == 10
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert errors == []
    assert len(cache) == 6 * 100 * 10


def test_what_was_put_survives_a_kill(tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from evenhand.core.answer_cache import AnswerCache
        cache = AnswerCache(sys.argv[1])
        for i in range(50):
            cache.put({f"k{i}": i})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(script, str(tmp_path / "c.sqlite")).returncode == -9
    assert AnswerCache(tmp_path / "c.sqlite").get([f"k{i}" for i in range(60)]) == {f"k{i}": i for i in range(50)}


def fill_cache(cache: AnswerCache) -> int:
    """Put until it fails; returns how many batches of two went in."""
    for i in range(10_000):
        try:
            cache.put({f"{i} first": "x" * 8000, f"{i} second": i})
        except RunError as error:
            assert "free some space and run again: what was answered is kept" in str(error)
            assert str(cache.path) in str(error)
            return i
    raise AssertionError("the disk is too large for this test")


def test_a_full_disk_says_what_to_do_and_costs_nothing_that_was_answered(small_disk: Path) -> None:
    cache = AnswerCache(small_disk / "c.sqlite")
    stored = fill_cache(cache)
    fill(small_disk)
    assert stored > 3
    keys = [f"{i} second" for i in range(stored + 1)]
    assert cache.get(keys) == {f"{i} second": i for i in range(stored)}  # the failed batch left nothing behind
    cache.close()
    (small_disk / "filler").unlink()
    again = AnswerCache(small_disk / "c.sqlite")
    assert again.get(keys) == {f"{i} second": i for i in range(stored)}
    assert len(again) == 2 * stored


def test_a_full_cache_goes_on_once_there_is_space(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c.sqlite")
    cache._db.execute("PRAGMA max_page_count=50")  # SQLite's own full disk, for which nobody must be root
    stored = fill_cache(cache)
    assert len(cache) == 2 * stored > 4
    cache._db.execute("PRAGMA max_page_count=5000")
    cache.put({"later": 1})
    assert len(cache) == 2 * stored + 1


def test_a_cache_cannot_be_made_on_a_full_disk(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(RunError, match=r"cannot use .*c\.sqlite as answer cache"):
        AnswerCache(small_disk / "c.sqlite")


# ----------------------------------------------------------------------------------------------------- run folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = RunFolder(tmp_path / "runs" / "one")
    with made.locked():
        yield made


def test_another_process_is_refused_while_one_works_and_let_in_once_it_is_dead(tmp_path: Path) -> None:
    script = """
        import sys
        from evenhand.core.run_folder import RunFolder
        with RunFolder(sys.argv[1]).locked():
            print("held", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "run")]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(RunError, match=r"another run is working in .*run; wait for it, or .* --out"),
            RunFolder(tmp_path / "run").locked(),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with RunFolder(tmp_path / "run").locked():
        assert (tmp_path / "run" / "answers").is_dir()


def test_the_lock_is_given_back_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunFolder(tmp_path).locked():
        raise KeyError
    with RunFolder(tmp_path).locked():
        pass


def test_a_path_that_is_no_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunError, match=f"cannot write to {bad}"), RunFolder(bad).locked():
            pass


def test_answers_come_back_the_same_in_any_order(folder: RunFolder) -> None:
    folder.write_answers("key", CHOICES, IDS, {"model": "größe", "path": Path("x")})
    assert folder.read_answers("key", IDS, Choice) == list(CHOICES)
    (first, *_) = folder.read_answers("key", IDS, Choice) or []
    assert isinstance(first.before[0], Message)
    assert isinstance(first.probabilities, tuple)
    assert isinstance(first.usage, Usage)
    assert folder.read_answers("key", [IDS[3], IDS[0]], Choice) == [CHOICES[3], CHOICES[0]]


def test_the_file_of_answers_says_what_it_is(folder: RunFolder) -> None:
    folder.write_answers("key", CHOICES, IDS, {"model": "größe", "path": Path("x")})
    table = pq.read_table(folder.path / "answers" / "key.parquet")
    assert json.loads(table.schema.metadata[b"evenhand"]) == {"model": "größe", "path": "x"}
    assert table.column_names == list(COLUMNS)


def test_a_reply_with_half_a_surrogate_pair_can_be_stored(folder: RunFolder) -> None:
    cut = Choice(None, status="unparsed", reply="cut here: \ud83d")
    folder.write_answers("key", [cut], ["a"], {})
    assert folder.read_answers("key", ["a"], Choice) == [cut]


def test_answers_that_are_not_all_there_are_none(folder: RunFolder) -> None:
    folder.write_answers("key", CHOICES[:2], IDS[:2], {})
    assert folder.read_answers("key", IDS[:2], Choice) == list(CHOICES[:2])
    assert folder.read_answers("key", IDS[:3], Choice) is None
    assert folder.read_answers("other", IDS[:2], Choice) is None


@pytest.mark.parametrize("answers", [CHOICES, REPLIES, OTHERS, CUSTOM], ids=["Choice", "Reply", "others", "a plugin's"])
def test_every_answer_type_survives_storage(answers: tuple[Any, ...]) -> None:
    for answer in answers:
        assert from_plain(type(answer), json.loads(json.dumps(asdict(answer)))) == answer


def test_the_built_in_benchmarks_answer_types_are_tested_here() -> None:
    built_in = {registry.benchmarks.get(name).answer_type for name in registry.BUILT_IN["benchmarks"]}
    assert built_in <= {type(a) for a in (*CHOICES, *REPLIES, *OTHERS)}


def test_answers_of_an_older_or_newer_version_can_be_read() -> None:
    plain = asdict(CUSTOM[0])
    del plain["late"]
    assert from_plain(Custom, {**plain, "added later": 1}) == Custom(
        CUSTOM[0].inner, CUSTOM[0].many, "y", CUSTOM[0].pairs, "default"
    )


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, ValueError])
def test_a_write_that_breaks_off_leaves_the_earlier_file_or_none(
    folder: RunFolder, trouble: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write_answers("kept", CHOICES, IDS, {})

    def torn(table: Any, file: Path, **options: Any) -> None:
        file.write_bytes(b"PAR1 half of it")
        raise trouble

    monkeypatch.setattr(pq, "write_table", torn)
    for name in ("kept", "new"):
        with pytest.raises(trouble):
            folder.write_answers(name, CHOICES[:1], IDS[:1], {})
    monkeypatch.undo()
    assert [f.name for f in (folder.path / "answers").iterdir()] == ["kept.parquet"]
    assert folder.read_answers("kept", IDS, Choice) == list(CHOICES)


def test_others_may_read_what_a_run_wrote(folder: RunFolder) -> None:
    before = os.umask(0o022)
    try:
        folder.write_answers("key", CHOICES, IDS, {})
        folder.write_manifest({})
        folder.write_scores([])
    finally:
        os.umask(before)
    for name in ("answers/key.parquet", "manifest.json", "scores.parquet"):
        assert (folder.path / name).stat().st_mode & 0o777 == 0o644


def test_every_field_of_a_record_is_in_the_scores(folder: RunFolder) -> None:
    known: dict[str, Any] = {"clusters": 7, "main": True, "status": "no effect", "baseline_clusters": 5}
    numbers = [f.name for f in fields(Record) if f.type == "float"]
    texts = [f.name for f in fields(Record) if f.type == "str"]
    full = Record(**{n: i + 0.5 for i, n in enumerate(numbers)}, **{t: f"{t} ü" for t in texts}, **known)
    assert not [f.name for f in fields(Record) if getattr(full, f.name) == f.default]
    empty = Record(model="m", method="none", benchmark="b", n=0.0, status="failed", note="why")
    folder.write_scores([full, empty])
    rows = pq.read_table(folder.path / "scores.parquet").to_pylist()
    assert list(rows[0]) == [f.name for f in fields(Record)]
    assert Record(**rows[0]) == full
    assert repr(Record(**rows[1])) == repr(empty)
    assert math.isnan(rows[1]["value"])


def test_the_manifest_is_replaced_and_the_log_of_sessions_grows(folder: RunFolder) -> None:
    for session in ({"name": "größe", "path": Path("x")}, {"name": "second"}):
        folder.write_manifest(session)
        folder.append_session(session)
    stored = json.loads((folder.path / "manifest.json").read_text(encoding="utf-8"))
    assert stored == {"name": "second", "checksum": stored["checksum"]} and folder.read_manifest() == {"name": "second"}
    lines = (folder.path / "sessions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"name": "größe", "path": "x"}, {"name": "second"}]


def test_a_session_after_one_that_was_cut_off_gets_a_line_of_its_own(folder: RunFolder) -> None:
    folder.append_session({"n": 1})
    with open(folder.path / "sessions.jsonl", "a") as log:
        log.write('{"n": 2, "cut')
    folder.append_session({"n": 3})
    first, torn, last = (folder.path / "sessions.jsonl").read_text().splitlines()
    assert (json.loads(first), torn, json.loads(last)) == ({"n": 1}, '{"n": 2, "cut', {"n": 3})


def test_a_full_disk_is_named_and_leaves_earlier_files_whole(small_disk: Path) -> None:
    run = RunFolder(small_disk / "run")
    many = [Choice(0, reply=os.urandom(500).hex()) for _ in range(3000)]
    with run.locked():
        run.write_answers("kept", CHOICES, IDS, {})
        run.write_manifest({"kept": True})
        run.append_session({"kept": True})
        said = r"the disk of .*run is full; free some space and run the same command again: what was answered is kept"
        with pytest.raises(RunError, match=said):
            run.write_answers("large", many, [str(i) for i in range(3000)], {})
        filler = fill(small_disk)
        with pytest.raises(RunError, match=said):
            run.write_answers("kept", CHOICES[:1], IDS[:1], {})
        with pytest.raises(RunError, match=said):
            run.write_manifest({"kept": False})
        with pytest.raises(RunError, match=said):
            run.write_scores([Record(model="m", method="none", benchmark="b")])
        with pytest.raises(RunError, match=said):
            run.append_session({"kept": "x" * 10_000})
        assert run.read_answers("kept", IDS, Choice) == list(CHOICES)
        assert run.read_manifest() == {"kept": True}
        assert sorted(f.name for f in run.path.rglob("*") if f.is_file() and f.name != ".lock") == [
            "kept.parquet",
            "manifest.json",
            "sessions.jsonl",
        ]
        filler.unlink()
        run.write_answers("more", CHOICES[:1], IDS[:1], {})
        run.append_session({"after": True})
    lines = (run.path / "sessions.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"kept": True}
    assert json.loads(lines[-1]) == {"after": True}


# ------------------------------------------------------------------------------------ what is asked anew on resume


def bbq_file(folder: Path, *, exchanged: bool = False) -> None:
    """Rows of the demo; exchanged, the first and last answers change places and the labels with them."""
    from evenhand.proving_ground.generator.bbq_questions import all_rows

    rows = [dict(row) for row in all_rows()[:24]]
    for row in rows if exchanged else ():
        row["ans0"], row["ans2"] = row["ans2"], row["ans0"]
        info = dict(row["answer_info"])
        info["ans0"], info["ans2"] = info["ans2"], info["ans0"]
        row["answer_info"], row["label"] = info, 2 - row["label"]
    folder.mkdir(exist_ok=True)
    (folder / "Age.jsonl").write_text("\n".join(map(json.dumps, rows)))


def scores(folder: Path, model: Any, out: Path) -> dict[str, float]:
    from evenhand.experiment.comparison import compare

    spec = f"bbq(source={str(folder)!r})"
    report = compare(model, "none", spec, out=out, show_progress=False, replicates=200)
    return {r.metric: r.value for r in report.records if r.group == "overall"}


def test_a_file_corrected_in_place_under_the_same_ids_is_asked_anew(tmp_path: Path) -> None:
    """faults/01-same-ids: what was 1.000 became .417, the old decisions being read by the new labels."""
    from evenhand.models.tiny import tiny_model

    bbq_file(tmp_path / "data")
    with pytest.warns(UserWarning, match="not the official content"):
        first = scores(tmp_path / "data", tiny_model(source="demo"), tmp_path / "run")
        again = tiny_model(source="demo")
        assert repr(scores(tmp_path / "data", again, tmp_path / "run")) == repr(first)
        assert again.engine.sequences == 0, "the same content is not asked twice"
    bbq_file(tmp_path / "data", exchanged=True)
    with pytest.warns(UserWarning, match="its data is not what it was when .* what changed is asked anew"):
        resumed = scores(tmp_path / "data", tiny_model(source="demo"), tmp_path / "run")
    with pytest.warns(UserWarning, match="not the official content"):
        fresh = scores(tmp_path / "data", tiny_model(source="demo"), tmp_path / "other")
    assert resumed == pytest.approx(fresh, abs=1e-4, nan_ok=True), "other batches: float tolerance"


def test_answers_of_another_version_of_prompts_are_asked_anew_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    from evenhand.core import versions
    from evenhand.experiment.comparison import compare
    from evenhand.testing import ScriptedModel

    def asked() -> int:
        model = ScriptedModel()
        compare(model, "none", "mmlu(source=demo)", out=tmp_path, limit=8, show_progress=False, replicates=200)
        return len(model.questions)

    def lines() -> list[str]:
        found = [str(w.message) for w in recwarn if "asked anew" in str(w.message)]
        recwarn.clear()
        return found

    assert (asked(), lines()) == (8, [])
    monkeypatch.setattr(versions, "ANSWERS", versions.ANSWERS + 1)
    assert asked() == 8
    (line,) = lines()
    assert f"(version {versions.ANSWERS}; there: {versions.ANSWERS - 1})" in line and str(tmp_path) in line
    assert (asked(), lines()) == (0, [])
    facts = json.loads((tmp_path / "manifest.json").read_text())
    del facts["answers_version"]  # as folders were written before there was a number
    del facts["checksum"]
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    asked()
    assert "there: 1)" in lines()[0]


@dataclass(frozen=True)
class Content:
    id: str
    cluster: str = "c"
    text: Any = ""


def test_contents_tell_apart_what_differs_and_nothing_else() -> None:
    from evenhand.core.answer_cache import contents

    values = ["", "a", "b", 1, 1.5, True, None, ("a", "b"), ("ab",), ("b", "a"), {"a": 1}, {"a": 2}, ("a", ("b",))]
    values += [Content("x"), Content("y"), ("é",), ("e\u0301",), 0.1, 0.1 + 2e-17, float("nan"), "\ud83d"]
    found = {contents([Content("i", text=v)]) for v in values}
    assert len(found) == len(values)
    two = [Content("i"), Content("j")]
    assert contents(two) != contents(two[::-1]) and contents(two) != contents(two[:1])
    assert contents([Content("i", text={"b": 1, "a": 2})]) == contents([Content("i", text={"a": 2, "b": 1})])


def test_contents_are_the_same_in_another_process() -> None:
    script = """
        from dataclasses import dataclass
        from typing import Any
        from evenhand.core.answer_cache import contents
        @dataclass
        class Item:
            id: str
            cluster: str
            words: Any
            made: Any = object()
        words = frozenset({"größe", "a", "b", "c"})
        print(contents([Item("i", "c", words), Item("j", "c", {"x": {1, 2, 30, 400}, ("a", 1): None}, len)]))
    """
    found = {run(script, PYTHONHASHSEED=seed, PYTHONUTF8="1").stdout.strip() for seed in ("1", "2", "3")}
    assert len(found) == 1 and len(found.pop()) == 64


# ------------------------------------------------------------------------------------------------------ what is damaged


def flip(file: Path, content: bytes) -> None:
    """Change one bit of the first byte of some content in a file."""
    whole = file.read_bytes()
    assert content in whole
    file.write_bytes(whole.replace(content, bytes([content[0] ^ 1]) + content[1:], 1))


def test_damaged_answers_are_moved_aside_once_new_ones_take_their_place(folder: RunFolder) -> None:
    folder.write_answers("key", CHOICES, IDS, {})
    file = folder.path / "answers" / "key.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"key\.parquet is damaged: .*asked anew"):
        assert folder.read_cell("key", IDS, Choice) is None
    assert file.is_file(), "nothing is lost before there is something new"
    folder.write_answers("key", CHOICES, IDS, {"seconds": 1})
    assert folder.read_cell("key", IDS, Choice) == (list(CHOICES), {"seconds": 1})
    assert (folder.path / "key.parquet.damaged-1").is_file()
    assert [f.name for f in (folder.path / "answers").iterdir()] == ["key.parquet"]


def test_columns_that_only_show_something_are_verified_where_they_are_shown(folder: RunFolder) -> None:
    folder.write_answers("key", CHOICES, IDS, {"model": "m"})
    file = folder.path / "answers" / "key.parquet"
    assert folder.table("key") is not None and folder.table("other") is None
    before = pq.read_table(file)
    place = before.column_names.index("model")
    other = pa.array(["n"] * len(IDS))
    pq.write_table(before.set_column(place, before.schema.field(place), other), file)
    with pytest.raises(RunError, match="its content is not what was written; run the same command again"):
        folder.table("key")
    assert folder.read_answers("key", IDS, Choice) == list(CHOICES)


def test_a_damaged_manifest_is_told_and_moved_aside(folder: RunFolder) -> None:
    folder.write_manifest({"name": "größe", "seed": 1})
    flip(folder.path / "manifest.json", b"seed")
    with pytest.raises(RunError, match=r"manifest\.json holds no facts of a run: its content is not what was written"):
        folder.manifest()
    with pytest.warns(UserWarning, match=r"manifest\.json holds no facts .*; it is made anew"):
        assert folder.read_manifest() == {}
    folder.write_manifest({"name": "second"})
    assert folder.read_manifest() == {"name": "second"} and folder.manifest().verified
    assert "reed" in (folder.path / "manifest.json.damaged-1").read_text(encoding="utf-8")


def test_damaged_scores_are_told_and_moved_aside(folder: RunFolder) -> None:
    records = [Record(model="m", method="none", benchmark="b", metric="accuracy", value=0.5, n=3)]
    folder.write_scores(records)
    assert repr(folder.read_scores()) == repr(records)
    flip(folder.path / "scores.parquet", b"accuracy")
    with pytest.raises(RunError, match=r"scores\.parquet cannot be read"):
        folder.read_scores()
    with pytest.warns(UserWarning, match=r"scores\.parquet cannot be read .*; it is made anew from the answers"):
        folder.write_scores(records)
    assert len(folder.read_scores()) == 1 and (folder.path / "scores.parquet.damaged-1").is_file()


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_sound_files_that_cannot_be_read_for_now_stay(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder.write_answers("key", CHOICES, IDS, {})
    folder.write_scores([])
    folder.write_manifest({"name": "first"})
    before = {file: file.read_bytes() for file in folder.path.rglob("*.*") if file.is_file()}

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(code, "refused")

    with monkeypatch.context() as patched:
        patched.setattr(pq, "ParquetFile", refused)
        patched.setattr(Path, "read_text", refused)
        for read in (lambda: folder.read_cell("key", IDS, Choice), lambda: folder.table("key"), folder.read_manifest):
            with pytest.raises(RunError, match=r"cannot be read .*run again when it can be"):
                read()
        folder.write_scores([])
    assert {file: file.read_bytes() for file in folder.path.rglob("*.*") if file.is_file()} == before


@pytest.mark.parametrize("error", [MemoryError("short"), pa.ArrowMemoryError("malloc of size 9 failed")])
def test_answers_that_do_not_fit_into_memory_are_asked_anew_and_nothing_is_renamed(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, error: MemoryError
) -> None:
    folder.write_answers("key", CHOICES, IDS, {})

    def short(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(pq, "ParquetFile", short)
        with pytest.warns(UserWarning, match=r"key\.parquet cannot be read: .*asked anew"):
            assert folder.read_cell("key", IDS, Choice) is None
    folder.write_answers("key", CHOICES, IDS, {})
    assert not list(folder.path.rglob("*damaged*"))


def test_views_that_are_not_what_was_saved_are_told(folder: RunFolder) -> None:
    assert folder.damaged_view() is None
    for name in ("report.html", "summary.md", "intervals.png"):
        (folder.path / name).write_text(name)
    folder.seal_views()
    assert folder.damaged_view() is None
    (folder.path / "summary.md").write_text("")
    assert str(folder.damaged_view()) == "summary.md: its content is not what was written"


def test_a_folder_of_an_earlier_version_says_once_that_it_has_no_checksums(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    from evenhand import compare
    from evenhand.testing import ScriptedModel

    def said() -> list[str]:
        compare(ScriptedModel(), "none", "mmlu(source=demo)", out=tmp_path, limit=8, show_progress=False)
        found = [str(w.message) for w in recwarn if "checksum" in str(w.message)]
        recwarn.clear()
        return found

    assert said() == []
    facts = json.loads((tmp_path / "manifest.json").read_text())
    del facts["checksum"]
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    assert said() == [
        f"{tmp_path} was made by an earlier version of evenhand: what has no checksum there is used as it is"
    ]
    assert said() == []
