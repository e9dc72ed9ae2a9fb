"""The main job: what it computes, that it resumes, and that nothing is lost when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.in_process import run_here

import evenhand
from evenhand import Choice, Mitigated, Model, TrainData, settings
from evenhand.errors import DataError, EvenhandError, RunError, SettingsError, UnknownNameError
from evenhand.experiment.comparison import _margin, compare, subsample
from evenhand.interfaces import Method
from evenhand.models.tiny import tiny_model
from evenhand.proving_ground.generator.bbq_questions import all_rows
from evenhand.proving_ground.generator.words import UNKNOWN
from evenhand.testing import ScriptedModel

DEMO = "bbq(source=demo)"
CEILING = 300
"""Seconds after which something is taken to hang. Tests wait for what happens, so that a slow machine fails none."""
HOLDS = """
import signal, sqlite3, sys, time
from pathlib import Path
from evenhand.inference.decoding import Decoder
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
cache, enough, reached = Path(sys.argv.pop(1)), int(sys.argv.pop(1)), Path(sys.argv.pop(1))
real = Decoder._step
def held(*arguments):
    count = sqlite3.connect(cache).execute("SELECT count(*) FROM answers").fetchone()[0] if cache.exists() else 0
    if count >= enough:
        reached.with_suffix(".part").write_text(str(count))
        reached.with_suffix(".part").replace(reached)
        time.sleep(3600)
    return real(*arguments)
Decoder._step = held
from evenhand.cli import main
main()
"""
"""The command line, which stops in the middle of writing once the cache has so many answers."""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "evenhand.cli.app", *arguments]
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=CEILING, env=env, check=False)


def record(report: Any, method: str, metric: str, group: str = "overall") -> Any:
    (found,) = [r for r in report.records if (r.method, r.metric, r.group) == (method, metric, group)]
    return found


@settings
class AlwaysUnknown(Method):
    """Answers every BBQ question with its unknown option."""

    name: ClassVar[str] = "always_unknown"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        def choose(questions: Any) -> list[Choice]:
            return [Choice(next(i for i, o in enumerate(q.options) if o in UNKNOWN)) for q in questions]

        return Mitigated(model, self, choose=choose)


@settings
class NoOp(Method):
    """Wraps the model and changes nothing."""

    name: ClassVar[str] = "no_op"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self, choose=model.choose)


@settings
class Broken(Method):
    """Fails when it is asked."""

    name: ClassVar[str] = "broken"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        def choose(questions: Any) -> list[Choice]:
            raise ZeroDivisionError("a plugin's mistake")

        return Mitigated(model, self, choose=choose)


@pytest.fixture(scope="module")
def demo() -> Model:
    return evenhand.load("demo")


def test_numbers_of_known_answers() -> None:
    """A model that always names the stereotyped group: bias 1 in ambiguous contexts, and 0 once it always abstains."""
    from evenhand.evaluation.bbq import items_from_rows

    target = {i.question.id: i.target for i in items_from_rows(all_rows())}
    model = ScriptedModel(decide=lambda q: target[q.id])
    report = compare(model, [AlwaysUnknown(), NoOp()], DEMO, show_progress=False, replicates=200)
    base = record(report, "none", "bias_ambiguous")
    unseen = 1 - 0.025 ** (1 / 72)  # a share of templates that may be otherwise, though none was seen
    assert (base.value, base.low, base.high, base.n, base.clusters) == (
        1.0,
        pytest.approx(1 - 2 * unseen),
        1.0,
        1728,
        72,
    )
    mitigated = record(report, "always_unknown", "bias_ambiguous")
    assert (mitigated.value, mitigated.gain, mitigated.gain_low) == (0.0, 1.0, pytest.approx(1 - 2 * unseen))
    abstains = record(report, "always_unknown", "abstention_disambiguated")
    assert (abstains.value, abstains.difference) == (1.0, 1.0)
    assert record(report, "always_unknown", "accuracy_disambiguated").value == 0.0
    assert record(report, "no_op", "bias_ambiguous").status == "no effect"
    assert record(report, "always_unknown", "bias_ambiguous").status == "ok"


def test_a_failing_method_costs_only_its_own_cell(demo: Model) -> None:
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
        report = compare(demo, [Broken(), "none"], DEMO, limit=12, show_progress=False, replicates=200)
    failed = [r for r in report.records if r.method == "broken"]
    assert [(r.status, r.note) for r in failed] == [("failed", "ZeroDivisionError: a plugin's mistake")]
    assert record(report, "none", "accuracy_ambiguous").status == "ok"


def test_not_applicable_says_why() -> None:
    blind = ScriptedModel(abilities=frozenset({"generate"}))
    report = compare(blind, "none", DEMO, show_progress=False)
    assert [(r.status, r.note) for r in report.records] == [
        ("not applicable", "bbq needs choose, which scripted lacks")
    ]


def test_the_untouched_model_is_always_there_and_first(demo: Model) -> None:
    report = compare(demo, "self_debias", DEMO, limit=12, show_progress=False, replicates=200)
    assert list(dict.fromkeys(r.method for r in report.records)) == ["none", "self_debias"]


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    first = tiny_model(name="m")
    reports = []
    for model in (first, tiny_model(name="m")):
        reports.append(compare(model, "self_debias", DEMO, out=tmp_path, limit=30, show_progress=False, replicates=200))
    assert first.engine.sequences > 0 and model.engine.sequences == 0
    assert repr(reports[0].records) == repr(reports[1].records), "as texts: nan is not equal to itself"
    sessions = [json.loads(line)["event"] for line in (tmp_path / "sessions.jsonl").read_text().splitlines()]
    assert sessions == ["start", "model", "end"] * 2


def test_a_resumed_run_reports_what_answers_cost_not_what_the_cache_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock only moves with the model, a second for each list of requests."""
    clock = [0.0]
    monkeypatch.setattr("evenhand.core.answer_cache.time.monotonic", lambda: clock[0])

    def model() -> Model:
        made = tiny_model(name="m")
        score = made.engine._score

        def slow(*arguments: Any) -> None:
            clock[0] += 1
            score(*arguments)

        monkeypatch.setattr(made.engine, "_score", slow)
        return made

    def cost(**more: Any) -> dict[str, Any]:
        report = compare(model(), "self_debias", DEMO, out=tmp_path, show_progress=False, replicates=200, **more)
        return {c.method: c for c in report.costs()}

    first = cost(limit=20)
    assert first["none"].seconds * 20 == pytest.approx(1) and first["self_debias"].seconds * 20 == pytest.approx(2)
    assert first["self_debias"].extra_seconds * 20 == pytest.approx(1), "the first turn lay in the cache"
    assert cost(limit=20) == first, "cells that are read from the folder keep their cost"
    for file in (tmp_path / "answers").glob("*.parquet"):
        file.unlink()
    from_cache = cost(limit=20)
    assert {m: c.seconds for m, c in from_cache.items()} == pytest.approx({m: c.seconds for m, c in first.items()})
    mixed = cost(limit=30)  # 20 of them lie in the cache, with the second they took together
    assert mixed["none"].seconds * 30 == pytest.approx(2) and mixed["self_debias"].seconds * 30 == pytest.approx(4)


def test_an_edited_model_is_asked_anew(tmp_path: Path) -> None:
    model = tiny_model(name="m")
    compare(model, "none", DEMO, out=tmp_path, limit=12, show_progress=False, replicates=200)
    before = model.engine.sequences
    model.weights.module.get_input_embeddings().weight.data[9] += 1
    compare(model, "none", DEMO, out=tmp_path, limit=12, show_progress=False, replicates=200)
    assert model.engine.sequences == 2 * before


def timed(metric: str) -> bool:
    """Whether a number is one of time, which no two runs have in common."""
    return metric in ("seconds_per_item", "seconds_ratio")


def test_results_do_not_depend_on_the_batch_size() -> None:
    reports = [
        compare(
            tiny_model(name="m", batch_tokens=b), "self_debias", DEMO, limit=40, show_progress=False, replicates=200
        )
        for b in (1, 100_000)
    ]
    for a, b in zip(reports[0].records, reports[1].records, strict=True):
        assert (a.metric, a.group, a.n) == (b.metric, b.group, b.n)
        assert timed(a.metric) or a.value == pytest.approx(b.value, abs=1e-4, nan_ok=True)


def test_a_larger_limit_contains_the_smaller_one(demo: Model) -> None:
    from evenhand.evaluation.bbq import BBQ

    items = BBQ(source="demo").load()
    few, many = subsample(items, 20, 0), subsample(items, 90, 0)
    assert len(few) == 20 and {i.id for i in few} <= {i.id for i in many}
    assert subsample(items[::-1], 20, 0) == few[::-1] and subsample(items, 20, 1) != few
    assert subsample(items, 10_000, 0) is items


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(models="demo", methods="self_debia", benchmarks=DEMO), UnknownNameError, "Did you mean 'self_debias'"),
        (dict(models="demo", methods="none", benchmarks="bqb"), UnknownNameError, "Did you mean 'bbq'"),
        (dict(models="demo", methods="none", benchmarks=DEMO, limit=0), SettingsError, "limit=0"),
        (dict(models="demo", methods="none", benchmarks=DEMO, replicates=0), SettingsError, "replicates=0"),
        (dict(models="no/such/folder", methods="none", benchmarks=DEMO), SettingsError, "no model folder"),
        (dict(models=["demo", "demo"], methods="none", benchmarks=DEMO), SettingsError, "given twice"),
        (dict(models="demo", methods="none", benchmarks="bbq(source='/no/such')"), DataError, "/no/such"),
        (dict(models="demo", methods="self_debias(variant=x)", benchmarks=DEMO), SettingsError, "variant='x'"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_asked(
    arguments: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        compare(**arguments, out=tmp_path / "run", show_progress=False)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_killed_run_takes_only_the_rest(tmp_path: Path) -> None:
    """kill -9 in the middle: the second run asks only what is missing and gives the numbers of an unbroken run."""
    arguments = ["compare", "--model", "demo", "--methods", "self_debias(answer_by=generation)", "--benchmarks", DEMO]
    arguments += ["--limit", "240"]
    folder = tmp_path / "run"
    with held(folder, tmp_path, arguments, at_least=40) as (process, answered):
        process.send_signal(signal.SIGKILL)
        process.wait(CEILING)
    broken = run_here("show", str(folder))
    assert broken.returncode == 2 and "run the same command again" in broken.stderr
    done = run_here(*arguments, "--out", str(folder))
    assert done.returncode == 0, done.stderr
    usage = json.loads((folder / "manifest.json").read_text())["usage"]
    asked = sum(u["asked_anew"] for u in usage)
    whole = run_here(*arguments, "--out", str(tmp_path / "whole"))
    assert whole.returncode == 0
    all_asked = sum(u["asked_anew"] for u in json.loads((tmp_path / "whole" / "manifest.json").read_text())["usage"])
    assert 0 < asked <= all_asked - answered
    shown = [json.loads(run_here("show", str(f), "--json").stdout) for f in (folder, tmp_path / "whole")]
    assert len(shown[0]) == len(shown[1]) > 100
    for a, b in zip(*shown, strict=True):
        assert (a["metric"], a["group"], a["n"]) == (b["metric"], b["group"], b["n"])
        assert timed(a["metric"]) or a["value"] == pytest.approx(b["value"], abs=1e-4)  # other batches: float tolerance


@contextmanager
def held(out: Path, scratch: Path, arguments: list[str], at_least: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A run that has come to a stop with at least so many answers in its cache, and how many there are."""
    reached = scratch / "reached"
    command = [sys.executable, "-c", HOLDS, str(out / "cache.sqlite"), str(at_least), str(reached), *arguments]
    env = {**os.environ, "NO_COLOR": "1"}
    with subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            ends = time.monotonic() + CEILING
            while not reached.exists():
                assert process.poll() is None, f"the run ended before it was held: {process.communicate()[1]}"
                assert time.monotonic() < ends, "the run never got going"
                time.sleep(0.05)
            yield process, int(reached.read_text())
        finally:
            process.kill()


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    arguments = ["compare", "--methods", "self_debias(answer_by=generation)", "--replicates", "200", "--limit", "288"]
    out = tmp_path / "run"
    # the untouched model's 288 and some of the method's
    with held(out, tmp_path, arguments, at_least=300) as (process, _):
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=CEILING)
    assert process.returncode == 130 and "run the same command again" in said and "Traceback" not in said
    rows = json.loads(run_here("show", str(out), "--json").stdout)
    assert {r["method"] for r in rows} == {"none"}, "what was finished is shown"


def test_usage_errors_are_short() -> None:
    wrong = run("compare", "--limits", "3")
    assert wrong.returncode == 2 and "No such option" in wrong.stderr and "Traceback" not in wrong.stderr
    assert run("--help").returncode == 0


def test_two_runs_on_one_folder_at_once(tmp_path: Path) -> None:
    from evenhand.core.run_folder import RunFolder

    with RunFolder(tmp_path).locked():
        second = run_here("compare", "--limit", "4", "--methods", "none", "--out", str(tmp_path))
    assert second.returncode == 2
    assert "another run is working in" in second.stderr and "Traceback" not in second.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_what_was_answered_and_resumes(small_disk: Path) -> None:
    arguments = ["compare", "--methods", "self_debias(answer_by=generation)", "--out", str(small_disk / "run")]
    arguments += ["--limit", "240"]  # the first answers that are written are too many already
    full = run(*arguments)
    assert full.returncode == 2, full.stdout + full.stderr
    assert "run" in full.stderr and "free some space" in full.stderr and "Traceback" not in full.stderr
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = run_here(*arguments)
    assert again.returncode == 0, again.stderr


def test_show_prints_one_record_per_number(tmp_path: Path) -> None:
    made = run("compare", "--methods", "self_debias", "--limit", "40", "--replicates", "200", "--out", str(tmp_path))
    assert made.returncode == 0, made.stderr
    assert "demo model, planted bias" in made.stdout
    rows = json.loads(run_here("show", str(tmp_path), "--json").stdout)
    keys = [(r["model"], r["method"], r["benchmark"], r["metric"], r["group"]) for r in rows]
    assert len(set(keys)) == len(keys)
    row = rows[keys.index(("demo", "self_debias", DEMO, "accuracy_ambiguous", "overall"))]
    assert row["low"] <= row["value"] <= row["high"] and row["n"] > 0
    views = ("report.html", "summary.md", "intervals.png")
    for file in (*views, "manifest.json", "sessions.jsonl", "scores.parquet", "cache.sqlite"):
        assert (tmp_path / file).stat().st_size > 0
    assert len(list((tmp_path / "answers").glob("*.parquet"))) == 4  # two methods on the demo's two benchmarks


def test_a_yaml_file_says_it_all(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"models: [demo]\nmethods:\n  - self_debias: {{variant: explanation, max_new_tokens: 4}}\n"
        f"benchmarks: ['{DEMO}']\nlimit: 20\nreplicates: 200\nout: {tmp_path / 'run'}\n"
    )
    made = run_here("compare", str(file))
    assert made.returncode == 0, made.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["methods"] == ["none", "self_debias(variant=explanation,max_new_tokens=4)"]
    file.write_text("models: demo\nmethod: none\n")
    wrong = run_here("compare", str(file))
    assert wrong.returncode == 2 and "Did you mean 'methods'" in wrong.stderr


def test_a_broken_line_is_reported_and_the_rest_is_scored(tmp_path: Path) -> None:
    rows = [json.dumps(r) for r in all_rows()]
    rows[100] = '{"example_id": '
    (tmp_path / "Age.jsonl").write_text("\n".join(rows))
    made = run_here("evaluate", "demo", "--benchmarks", f"bbq(source='{tmp_path}')", "--out", str(tmp_path / "run"))
    assert made.returncode == 0, made.stderr
    assert "Age.jsonl:101: not JSON" in made.stderr
    rows = json.loads(run_here("show", str(tmp_path / "run"), "--json", "--group", "overall").stdout)
    (unparsed,) = [r for r in rows if r["metric"] == "unparsed"]
    assert unparsed["n"] == 3455


def test_debias_saves_a_model_that_loads(tmp_path: Path) -> None:
    made = run("debias", "demo", "self_debias", "--out", str(tmp_path / "m"))
    assert made.returncode == 0, made.stderr
    loaded = evenhand.load(tmp_path / "m")
    assert loaded.facts()["method"] == "self_debias"
    assert loaded.facts()["demo"], "a saved demo model stays labelled"


def test_run_folder_errors_are_no_tracebacks(tmp_path: Path) -> None:
    wrong = run_here("show", str(tmp_path))
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        compare("demo", "none", DEMO, out=tmp_path / "file" / "run", limit=4, show_progress=False)


@pytest.mark.parametrize("command", ["methods", "benchmarks", "models", "data list", "doctor"])
def test_facts_come_as_text_and_as_json(command: str) -> None:
    text, facts = run_here(*command.split()), run_here(*command.split(), "--json")
    assert text.returncode == facts.returncode == 0, text.stderr + facts.stderr
    assert isinstance(json.loads(facts.stdout), dict) and text.stdout.strip()


def test_the_real_model_on_real_rows(real_bbq: Path, real_model: Path, tmp_path: Path) -> None:
    """The main job on real input; also through Python, with the same numbers."""
    made = run_here(
        "compare",
        "--model",
        str(real_model),
        "--methods",
        "none,self_debias",
        "--benchmarks",
        "bbq",
        "--limit",
        "120",
        "--out",
        str(tmp_path),
        "--json",
    )
    assert made.returncode == 0, made.stderr
    rows = json.loads(made.stdout)
    report = evenhand.compare(
        evenhand.load(real_model), methods="none,self_debias", benchmarks="bbq", limit=120, show_progress=False
    )
    assert len(report.records) == len(rows)
    for mine, theirs in zip(report.records, rows, strict=True):
        assert mine.metric == theirs["metric"]
        expected = theirs["value"] if theirs["value"] is not None else float("nan")
        assert timed(mine.metric) or mine.value == pytest.approx(
            expected, abs=1e-6, nan_ok=True
        )  # other batches: float tolerance


def test_settings_that_are_refused_leave_an_earlier_result_as_it_was(tmp_path: Path) -> None:
    run = {"out": tmp_path, "limit": 12, "show_progress": False}
    compare("demo", "instruction", DEMO, **run)
    kept = {f: (tmp_path / f).read_bytes() for f in ("scores.parquet", "report.html", "manifest.json")}
    for wrong in ({"samples": 2}, {"temperature": 1.0}):
        with pytest.raises(SettingsError):
            compare("demo", "instruction", DEMO, **run, **wrong)
    with pytest.raises(EvenhandError):
        compare(str(tmp_path / "no model"), "instruction", DEMO, **run)
    assert kept == {f: (tmp_path / f).read_bytes() for f in kept}


def test_the_margin_is_that_of_demo_models_only_where_all_are_demo_models(tmp_path: Path) -> None:
    assert _margin("demo") == _margin(["demo", "demo-b(answer_by=text)"]) == 0.05
    assert _margin(["demo", "some/model"]) == _margin("some/model") == 0.02
    report = compare("demo", "none", DEMO, limit=12, show_progress=False)
    assert report.manifest["statistics"]["margin"] == report.criteria.margin == 0.05
    again = compare("demo", "none", DEMO, limit=12, show_progress=False, margin=0.1, alpha=0.1, family="run")
    assert (again.criteria.margin, again.criteria.alpha, again.criteria.family) == (0.1, 0.1, "run")
    for wrong in ({"margin": 0}, {"margin": float("inf")}, {"alpha": 1}, {"family": "all"}):
        with pytest.raises(SettingsError):
            compare("demo", "none", DEMO, show_progress=False, **wrong)
