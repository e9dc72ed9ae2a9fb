"""`compare`: every model, under every method, on every benchmark, side by side with the untouched model."""

from __future__ import annotations

import hashlib
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evenhand import progress, provenance, registry, statistics, train_data
from evenhand.artefacts import artefacts
from evenhand.cache import AnswerCache, answer_cache, key
from evenhand.errors import DataError, EvenhandError, MissingAbilityError, RunError, SettingsError
from evenhand.interfaces import Benchmark, Dialogue, Method, Model, Passage, Question, Sampling, Usage
from evenhand.models.loading import check, load
from evenhand.registry import BenchmarkLike, MethodLike
from evenhand.report import Report
from evenhand.scoring import Cell, score
from evenhand.store import RunFolder
from evenhand.train_data import Kept, TrainLike

ModelLike = str | Path | Model | dict[str, Any]


def compare(
    models: ModelLike | Sequence[ModelLike],
    methods: MethodLike | Sequence[MethodLike] = "all",
    benchmarks: BenchmarkLike | Sequence[BenchmarkLike] = "all",
    *,
    out: str | Path | None = None,
    train: TrainLike | None = None,
    limit: int | None = None,
    seed: int = 0,
    replicates: int = statistics.REPLICATES,
    cache: str | Path | None = None,
    show_progress: bool = True,
    **load_options: Any,
) -> Report:
    """Compare mitigation methods on models.

    Args:
        models: What `evenhand.load` takes, {specification: {option: value}}, or a list of these.
        methods: Methods (names, "name(key=value)", stacks "a+b", objects) or a list; "all" is all that apply. The
            untouched model is always among them.
        benchmarks: Benchmarks likewise; "all" leaves out those whose data is not there and says so.
        out: Run folder; running again with the same folder resumes and asks nothing twice. None keeps all in memory.
        train: What methods may fit on: a file, a benchmark, "demo" or `TrainData` (see `evenhand.train_data.load`).
            What is asked too, or shares a template of the same benchmark with what is asked, is left out of it.
        limit: At most that many items per benchmark, chosen by a seeded hash of their ids.
        seed: Of that choice and of the bootstrap.
        replicates: Of the bootstrap.
        cache: Answer cache to share between runs; None is the run folder's own.
        show_progress: Show a progress bar with an estimate on standard error.
        **load_options: Handed to `evenhand.load` for every model given as text.

    Returns:
        A `Report`; it is saved to `out` if given.

    Raises:
        SettingsError: Something asked for cannot be used. Nothing was asked of any model by then.
        DataError: A benchmark's data is missing or broken.
        RunError: The run folder is in use or cannot be written.
    """
    chosen = _methods(methods)
    if limit is not None and limit < 1:
        raise SettingsError(f"limit={limit}: give at least 1, or leave it out for all items")
    if replicates < 1:
        raise SettingsError(f"replicates={replicates}: give at least 1; 2000 is usual")
    folder = None if out is None else RunFolder(out)
    with ExitStack() as stack:
        if folder:
            stack.enter_context(folder.locked())
        stack.enter_context(progress.show(show_progress))
        items = _items(_benchmarks(benchmarks), limit, seed, optional=benchmarks == "all")
        wanted = _models(models, load_options)
        where = cache or (folder.cache if folder else None)
        answers = stack.enter_context(answer_cache(where)) if where else None
        stack.enter_context(artefacts(folder.path / "artefacts" if folder else None))
        session = _Session(folder, answers, chosen, items, _training(train, items))
        session.start(limit, seed)
        try:
            for spec, options in wanted:  # one after the other: the largest decides the memory, not their sum
                session.ask(spec if isinstance(spec, Model) else load(spec, **options))
        finally:
            report = session.close(replicates, seed)
    return report


Asked = tuple[Benchmark, Sequence[Any]]
"""A benchmark and the items that are asked of it."""


class _Session:
    """One call of `compare`: asks what has not been answered yet and keeps the facts."""

    def __init__(
        self,
        folder: RunFolder | None,
        cache: AnswerCache | None,
        methods: Sequence[Method],
        asked: list[Asked],
        train: Kept | None,
    ) -> None:
        self.folder, self.cache, self.methods, self.asked, self.train = folder, cache, methods, asked, train
        self.data = None if train is None else train.data
        self.cells: list[Cell] = []
        self._mitigated: Model | None = None
        self.resting: Model | None = None
        """The model, until it is asked for the first time."""
        self.begun = time.monotonic()
        self.manifest: dict[str, Any] = {"usage": [], "applied": []}

    def start(self, limit: int | None, seed: int) -> None:
        """Write down what is about to be compared, before any long work."""
        self.manifest |= {
            "started": _now(),
            "limit": limit,
            "seed": seed,
            "demo": False,
            "models": {},
            "methods": [m.spec for m in self.methods],
            "train": None if self.train is None else train_data.facts(self.train),
            "benchmarks": {b.spec: {**b.facts(), "asked": len(items)} for b, items in self.asked},
            "versions": provenance.versions(),
            "git": provenance.git_state(),
        }
        if self.folder:
            self.folder.write_manifest(self.manifest)
            self.folder.append_session({"event": "start", **self.manifest})

    def ask(self, model: Model) -> None:
        """All benchmarks and methods on one model, the untouched model first."""
        self._describe(model)
        self.resting = model
        cells = [(Cell(model.name, m, benchmark), items) for benchmark, items in self.asked for m in self.methods]
        self.cells += [cell for cell, _ in cells]
        for method in self.methods:  # one after the other, so that what a method has made is gone before the next
            self._mitigated = None
            for cell, items in cells:
                if cell.method is method:
                    self._try(cell, model, items)
        self._mitigated = None

    def _try(self, cell: Cell, model: Model, items: Sequence[Any]) -> None:
        """Fill a cell; what goes wrong there costs no other."""
        try:
            self._fill(cell, model, items)
        except RunError:
            raise  # the run folder itself is in trouble
        except MissingAbilityError as error:  # found out in asking
            cell.refuse(str(error))
        except EvenhandError as error:
            cell.fail(str(error))
        except Exception as error:  # a plugin's mistake
            cell.fail(f"{type(error).__name__}: {error}")
            warnings.warn(f"{cell.label} failed:\n{traceback.format_exc()}", RuntimeWarning, stacklevel=3)

    def close(self, replicates: int, seed: int) -> Report:
        """Score what there is, also after an interruption, and write everything."""
        done = [c for c in self.cells if c.status != "running"]
        records = score(done, replicates=replicates, seed=seed)
        self.manifest["seconds"] = round(time.monotonic() - self.begun, 1)
        report = Report(records, self.manifest, self.folder.path if self.folder else None)
        if self.folder:
            self.folder.append_session({"event": "end", "at": _now(), **self._work()})
            self.folder.write_manifest(self.manifest)
            self.folder.write_scores(records)
            report.save(self.folder.path)
        return report

    def _describe(self, model: Model) -> None:
        known: dict[str, Any] = self.manifest["models"]
        if model.name in known:
            raise SettingsError(f"two models are both called {model.name!r}; tell them apart: 'folder(name=other)'")
        known[model.name] = {**model.facts(), "fingerprint": model.fingerprint}
        self.manifest["demo"] |= bool(known[model.name].get("demo"))
        if self.folder:
            self.folder.append_session({"event": "model", "name": model.name, **known[model.name]})

    def _fill(self, cell: Cell, model: Model, items: Sequence[Any]) -> None:
        reason = cell.method.missing(model) or cell.method.untrained(self.data)
        if reason:
            cell.refuse(reason)
            return
        mitigated = self._applied(cell.method, model)
        lacking = sorted(cell.benchmark.needs - mitigated.abilities)
        if lacking:
            cell.refuse(f"{cell.benchmark.name} needs {', '.join(lacking)}, which {mitigated.name} lacks")
            return
        answers, usage = self._answers(cell, mitigated, items)
        cell.finish(items, answers)
        self.manifest["usage"].append(usage)

    def _applied(self, method: Method, model: Model) -> Model:
        """The model under a method, which is applied once for all benchmarks."""
        if self._mitigated is None:
            begun = time.monotonic()
            self._mitigated = method.apply(model, self.data)
            seconds = round(time.monotonic() - begun, 3)
            self.manifest["applied"].append({"model": model.name, "method": method.spec, "seconds": seconds})
        return self._mitigated

    def _answers(self, cell: Cell, model: Model, items: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Answers and their cost: from the run folder where the cell was finished before, else asked now."""
        ids = [item.id for item in items]
        name = key(model.fingerprint, cell.benchmark.name, cell.benchmark.settings, ids)[:24]
        whose = {"model": cell.model, "method": cell.method.spec, "benchmark": cell.benchmark.spec, "answers": name}
        if self.folder:
            stored = self.folder.read_answers(name, ids, cell.benchmark.answer_type)
            if stored is not None and not any(_is_open(a) for a in stored):
                return stored, {**self.folder.read_about(name), **whose, "asked_anew": 0}
        if self.resting is not None:
            resting, self.resting = self.resting, None
            _start(resting)
        watch = _Watch(self.cache)
        answers = cell.benchmark.ask(model, items)
        cost = sum((getattr(a, "usage", Usage()) for a in answers), Usage())
        usage = {**whose, "items": len(ids), **asdict(cost), **watch.read()}
        if self.folder:
            self.folder.write_answers(name, answers, ids, usage)
        return answers, usage

    def _work(self) -> dict[str, Any]:
        return {"seconds": self.manifest["seconds"], "usage": self.manifest["usage"]}


def _start(model: Model) -> None:
    """Put a first question to a local model: its first call also imports and tries out, which is no method's cost."""
    if "weights" not in model.abilities:
        return
    with answer_cache(None), suppress(Exception):  # what fails here fails again where it matters, and is told there
        if "choose" in model.abilities:
            model.choose([Question("start", "Is this the start?", ("yes", "no"))])
        if "score" in model.abilities:
            model.score([Passage("This is the start.", id="start")])
        if "generate" in model.abilities:
            model.generate([Dialogue(()).user("Is this the start?")], Sampling(max_new_tokens=2))


class _Watch:
    """How long the answers of a cell took, those that lay in the cache included.

    The cache would make a method look faster than the untouched model whose first turn it shares, and a resumed run
    faster than an unbroken one. So the seconds that cached answers took when they were computed are added.
    """

    def __init__(self, cache: AnswerCache | None) -> None:
        self.cache = cache
        self.begun, self.before = time.monotonic(), self._counts()

    def read(self) -> dict[str, Any]:
        """Seconds of the wall clock now, those saved by the cache (None where not all are known), and requests."""
        seconds = round(time.monotonic() - self.begun, 4)
        misses, hits, saved, untimed = (a - b for a, b in zip(self._counts(), self.before, strict=True))
        anew = None if self.cache is None else int(misses)
        known = None if untimed else round(saved, 4)
        return {"seconds": seconds, "seconds_saved": known, "asked_anew": anew, "from_cache": int(hits)}

    def _counts(self) -> tuple[float, ...]:
        c = self.cache
        return (0, 0, 0, 0) if c is None else (c.misses, c.hits, c.saved, c.untimed)


def _is_open(answer: Any) -> bool:
    """Whether no answer came; such items are asked again when the run is resumed."""
    return getattr(answer, "status", "") == "unanswered" or getattr(answer, "text", "") is None


def _methods(given: MethodLike | Sequence[MethodLike]) -> list[Method]:
    """Built methods without repetition, the untouched model first."""
    if given == "all":
        wanted: list[MethodLike] = list(registry.methods.load_all())
    elif isinstance(given, str):
        wanted = list(registry.split_specs(given))
    else:
        wanted = [given] if isinstance(given, Method | dict) else list(given)
    built = [registry.build_method("none"), *(registry.build_method(m) for m in wanted)]
    return list({m.spec: m for m in built}.values())


def _benchmarks(given: BenchmarkLike | Sequence[BenchmarkLike]) -> list[Benchmark]:
    if given == "all":
        wanted: list[BenchmarkLike] = list(registry.benchmarks.load_all())
    elif isinstance(given, str):
        wanted = list(registry.split_specs(given))
    else:
        wanted = [given] if isinstance(given, Benchmark | dict) else list(given)
    if not wanted:
        raise SettingsError(f"no benchmark was given; known: {', '.join(registry.benchmarks.names())}")
    return list({b.spec: b for b in (registry.build_benchmark(w) for w in wanted)}.values())


Wanted = tuple[str | Path | Model, dict[str, Any]]


def _models(given: ModelLike | Sequence[ModelLike], options: dict[str, Any]) -> list[Wanted]:
    """What to load and how, checked as far as that goes without opening weights."""
    several: list[ModelLike] = [given] if isinstance(given, str | Path | Model | dict) else list(given)
    if not several:
        raise SettingsError("no model was given; 'demo' needs no download")
    wanted: list[Wanted] = []
    for one in several:
        spec, own = _with_options(one)
        wanted.append((spec, {**options, **own}))
        check(spec, **wanted[-1][1])
    texts = [str(spec) if not isinstance(spec, Model) else spec.name for spec, own in wanted if "name" not in own]
    for text in texts:
        if texts.count(text) > 1:
            raise SettingsError(f"{text!r} is given twice; tell the two apart by name: 'folder(name=other)'")
    return wanted


def _with_options(wanted: ModelLike) -> Wanted:
    if not isinstance(wanted, dict):
        return wanted, {}
    if len(wanted) != 1:
        raise SettingsError(
            f"{wanted!r}: write one model with its options below it: {{'path': {{'dtype': 'float32'}}}}"
        )
    spec, own = next(iter(wanted.items()))
    return spec, dict(own or {})


def _training(train: TrainLike | None, asked: Sequence[Asked]) -> Kept | None:
    """The training data without what is asked; what was left out is said."""
    if train is None:
        return None
    kept = train_data.without(train_data.load(train), asked)
    if kept.left_out:
        warnings.warn(
            f"left {kept.left_out:,} training items out: they are asked too, or share a template with what is asked",
            UserWarning, stacklevel=3,
        )  # fmt: skip
    return kept


def _items(benchmarks: Sequence[Benchmark], limit: int | None, seed: int, *, optional: bool) -> list[Asked]:
    """The items of each benchmark; of those asked for by "all", the ones without data are left out with a warning."""
    found: list[Asked] = []
    for benchmark in benchmarks:
        try:
            found.append((benchmark, subsample(benchmark.items(), limit, seed)))
        except DataError as error:
            if not optional or len(benchmarks) == 1:
                raise
            warnings.warn(f"left out the benchmark {benchmark.name}: {error}", UserWarning, stacklevel=3)
        else:
            facts = benchmark.facts()
            said = [*facts.get("notes", []), *(f"left out {line}" for line in facts.get("dropped", []))]
            for line in said:
                warnings.warn(f"{benchmark.name}: {line}", UserWarning, stacklevel=3)
    return found


def subsample(items: Sequence[Any], limit: int | None, seed: int) -> Sequence[Any]:
    """At most `limit` items, in their own order, chosen by a seeded hash of their ids.

    The choice does not depend on the order of the items, and a larger limit contains the smaller one's choice.
    """
    if limit is None or limit >= len(items):
        return items
    rank = sorted(range(len(items)), key=lambda i: hashlib.sha256(f"{seed}:{items[i].id}".encode()).digest())
    return [items[i] for i in sorted(rank[:limit])]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
