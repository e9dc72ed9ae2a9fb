"""Runs whose cells are asked by several workers, here in one process: the same answers, and nothing asked twice."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any, ClassVar

import pytest

import evenhand
from evenhand.core.artifact_packing import pack, unpack
from evenhand.core.artifacts import artefact as artefact_of
from evenhand.core.artifacts import artefacts, intact
from evenhand.errors import RunError, SettingsError
from evenhand.evaluation.mmlu import MMLU
from evenhand.experiment import cell_worker
from evenhand.experiment.cell_board import CellBoard, CellPlace
from evenhand.experiment.cell_worker import CellWorker, Outcome, Planned, Refusal
from evenhand.experiment.comparison import Named, Session, WantedModel
from evenhand.experiment.forecast import model_forecasts
from evenhand.methods.unlearning.task_vector import TaskVectorNegation

METHODS = ["none", "self_debias", "permutation", "pride"]
MMLU_DEMO, BBQ_DEMO = "mmlu(source=demo)", "bbq(source=demo)"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Workers' folders are made here."""
    monkeypatch.setattr(cell_worker.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(cell_worker.tempfile, "tempdir", str(tmp_path))
    return tmp_path


class Two:
    """A crew of two workers that take turns; the one may be let down in the middle."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.asked: list[tuple[str, str]] = []
        self.boards: list[CellBoard] = []

    def ask(self, session: Session, wanted: Sequence[WantedModel], named: Named | None) -> None:
        forecasts = model_forecasts(wanted, session.methods, session.asked, session.wishes, session.data)
        board = CellBoard(session, wanted, named, forecasts)
        self.boards.append(board)
        try:
            for number in range(len(wanted)):
                self._model(board, number)
        finally:
            board.close()

    def _model(self, board: CellBoard, number: int) -> None:
        workers = [CellWorker(), CellWorker()]
        for worker in workers:
            board.planned(number, worker.begin(board.job, number))
        lots = [board.rows()]
        trained = {key: board.packed(key) for key in board.trained()}
        seen, last = [0, 0], [None, None]
        while board.left:
            for n, worker in enumerate(workers):
                cell = board.take(number, last[n])
                if cell is None:
                    continue
                last[n] = cell
                place = CellPlace(number, cell)
                found = worker.ask(cell, board.files(place), lots[seen[n] :], trained)
                seen[n] = len(lots)
                self.asked.append(
                    (board._models[number].cells[cell].row, board._models[number].cells[cell].benchmark.spec)
                )
                board.done(place, found)
                lots.append(found.rows)
                trained |= found.artefacts
                if self.stop_after is not None and len(self.asked) >= self.stop_after:
                    raise KeyboardInterrupt


def numbers(report: evenhand.Report) -> dict[tuple[str, ...], tuple[float | None, ...]]:
    """All but times."""
    return {
        (r.model, r.method, r.benchmark, r.metric, r.group): tuple(
            None if isnan(v) else v for v in (r.value, r.low, r.high, r.difference, r.p, r.p_holm)
        )
        for r in report.records
        if "seconds" not in r.metric
    }


@pytest.fixture
def in_one_process(tmp_path: Path) -> evenhand.Report:
    return evenhand.compare("demo", METHODS, [MMLU_DEMO, BBQ_DEMO], out=tmp_path / "one", limit=30, show_progress=False)


def keys(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "answers").glob("*.parquet"))


def asked_of(report: evenhand.Report) -> dict[str, Any]:
    kept = ("model", "method", "benchmark", "answers", "prompts", "calls", "prompt_tokens", "new_tokens")
    return {u["answers"]: [u[name] for name in kept] for u in report.manifest["usage"]}


def test_scores_keys_and_notes_are_those_of_one_process(in_one_process: evenhand.Report, tmp_path: Path):
    crew = Two()
    report = evenhand.compare(
        "demo", METHODS, [MMLU_DEMO, BBQ_DEMO], out=tmp_path / "two", limit=30, crew=crew, show_progress=False
    )
    assert numbers(report) == numbers(in_one_process)
    assert keys(tmp_path / "two") == keys(tmp_path / "one")
    assert asked_of(report) == asked_of(in_one_process)
    assert list(asked_of(report)) == list(asked_of(in_one_process))  # in the same order
    assert set(Counter(crew.asked).values()) == {1}
    for name in ("models", "baselines", "benchmarks", "methods", "models_left"):
        assert report.manifest[name] == in_one_process.manifest[name], name
    assert numbers(evenhand.Report.load(tmp_path / "two")) == numbers(report)


def test_a_run_that_was_stopped_goes_on_and_asks_nothing_twice(in_one_process: evenhand.Report, tmp_path: Path):
    given: dict[str, Any] = {"out": tmp_path / "two", "limit": 30, "show_progress": False}
    with pytest.raises(KeyboardInterrupt):
        evenhand.compare("demo", METHODS, [MMLU_DEMO, BBQ_DEMO], crew=Two(stop_after=3), **given)
    done = {name.removesuffix(".parquet") for name in keys(tmp_path / "two")}
    assert len(done) == 3
    report = evenhand.compare("demo", METHODS, [MMLU_DEMO, BBQ_DEMO], crew=Two(), **given)
    anew = {u["answers"]: u["asked_anew"] for u in report.manifest["usage"]}
    assert {key for key in done if anew[key]} == set()
    assert any(anew[key] for key in anew.keys() - done)  # others may lie in the cache
    assert numbers(report) == numbers(in_one_process)


def test_one_process_takes_over_what_workers_have_done(
    in_one_process: evenhand.Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given: dict[str, Any] = {"out": tmp_path / "two", "limit": 30, "show_progress": False}
    evenhand.compare("demo", METHODS, [MMLU_DEMO, BBQ_DEMO], crew=Two(), **given)

    def refuse(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(MMLU, "ask", refuse)
    assert numbers(evenhand.compare("demo", METHODS, [MMLU_DEMO, BBQ_DEMO], **given)) == numbers(in_one_process)


def test_the_untouched_model_comes_first_and_what_asks_the_same_comes_in_order(tmp_path: Path):
    crew = Two()
    evenhand.compare("demo", METHODS, MMLU_DEMO, limit=30, crew=crew, show_progress=False)
    order = [row for row, _ in crew.asked]
    assert order[0] == "none"
    assert order.index("permutation") < order.index("pride")  # both ask in cyclic orders


def test_what_is_learned_is_learned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained: list[str] = []
    real = TaskVectorNegation.train

    def train(self: TaskVectorNegation, *given: Any) -> Any:
        trained.append(self.spec)
        return real(self, *given)

    monkeypatch.setattr(TaskVectorNegation, "train", train)
    method = (
        "task_vector(epochs=1,max_examples=8)"
        if "max_examples" in TaskVectorNegation.build().settings
        else "task_vector(epochs=1)"
    )
    report = evenhand.compare(
        "demo",
        method,
        [MMLU_DEMO, BBQ_DEMO],
        train="demo:texts",
        out=tmp_path / "two",
        limit=8,
        crew=Two(),
        show_progress=False,
    )
    assert trained == [method]
    assert {r.status for r in report.records} == {"ok"}
    assert len([a for a in report.manifest["applied"] if a["method"] == method]) == 1
    assert len(list((tmp_path / "two" / "artefacts").glob("[!.]*"))) == 1


def test_a_damaged_artefact_is_not_given_to_workers_but_replaced(tmp_path: Path):
    def make(folder: Path) -> None:
        (folder / "weights.bin").write_text("right")

    run, worker = tmp_path / "run", tmp_path / "worker"
    for root in (run, worker):
        with artefacts(root), artefact_of("key", make):
            pass
    assert intact(run) == ["key"]
    (run / "key" / "weights.bin").write_text("wrong")
    with pytest.warns(UserWarning, match="is damaged"):
        assert intact(run) == []
    unpack(pack(worker, "key"), run, "key")
    assert intact(run) == ["key"] and (run / "key" / "weights.bin").read_text() == "right"


def test_models_as_objects_are_refused():
    with pytest.raises(SettingsError, match="is an object, which workers cannot load"):
        evenhand.compare(evenhand.load("demo"), "none", MMLU_DEMO, limit=4, crew=Two(), show_progress=False)


def test_a_refusal_of_a_worker_ends_the_run():
    with pytest.raises(SettingsError, match="cannot be"):
        _board().planned(0, Refusal("SettingsError", "this cannot be"))


def _board() -> CellBoard:
    class Session:
        methods: tuple[()] = ()
        asked: tuple[()] = ()
        train = wishes = folder = None
        repeats: ClassVar[dict[str, Any]] = {}

    return CellBoard(Session(), [("demo", {}, set())], None)  # type: ignore[arg-type]


def test_another_model_under_the_same_name_is_refused():
    one = Planned("m", (), {"fingerprint": "a"}, {}, False, False)
    with pytest.raises(RunError, match="not the same on all hosts"):
        CellBoard._refuse_another(one, one._replace(facts={"fingerprint": "b"}))


def test_warnings_of_workers_are_given_again(tmp_path: Path):
    class Warning_(Two):
        def _model(self, board: CellBoard, number: int) -> None:
            real = board.done

            def done(place: CellPlace, found: Outcome) -> None:
                real(place, replace(found, said=(("mind the gap", UserWarning),)))

            board.done = done  # type: ignore[method-assign]
            super()._model(board, number)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        evenhand.compare("demo", "none", MMLU_DEMO, limit=4, crew=Warning_(), show_progress=False)
    assert "mind the gap" in [str(w.message) for w in said]


@pytest.fixture
def artefact(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "made"
    (root / "key" / "inner").mkdir(parents=True)
    (root / "key" / "inner" / "weights.bin").write_bytes(b"\0\1\2")
    (root / ".key.sha256").write_text("sums")
    yield root


def test_artefacts_survive_the_way(artefact: Path, tmp_path: Path):
    unpack(pack(artefact, "key"), tmp_path / "there", "key")
    assert (tmp_path / "there" / "key" / "inner" / "weights.bin").read_bytes() == b"\0\1\2"
    assert (tmp_path / "there" / ".key.sha256").read_text() == "sums"
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == [".key.sha256", "key"]


def test_an_artefact_that_is_another_is_refused(artefact: Path, tmp_path: Path):
    with pytest.raises(RunError, match="cannot store an artefact from elsewhere"):
        unpack(pack(artefact, "key"), tmp_path / "there", "another")
    with pytest.raises(RunError, match="cannot store an artefact from elsewhere"):
        unpack(b"no tar file at all", tmp_path / "elsewhere", "key")


def test_scratch_folders_of_dead_workers_are_removed(scratch: Path):
    alive = CellWorker()
    dead = scratch / f"{cell_worker.PREFIX}dead"
    dead.mkdir()
    (dead / "alive.lock").touch()
    cell_worker.remove_abandoned()
    assert not dead.exists() and alive._scratch.is_dir()


def test_a_worker_that_starts_at_the_same_time_is_not_removed(scratch: Path, monkeypatch: pytest.MonkeyPatch):
    real = cell_worker.FileLock

    def slow(place: Path, **options: Any) -> Any:
        if "timeout" not in options:  # the folder is there, and its lock is not held yet
            cell_worker.remove_abandoned()
        return real(place, **options)

    monkeypatch.setattr(cell_worker, "FileLock", slow)
    worker = CellWorker()
    assert worker._scratch.is_dir() and worker._scratch.name.startswith(cell_worker.PREFIX)
    cell_worker.remove_abandoned()
    assert worker._scratch.is_dir()
