"""Forecast of what a comparison would cost and could show: cells, calls, tokens, memory, hours, effects.

Every method that learns nothing is applied to a sketch of the model (`evenhand.models.sketch`), and every benchmark
asks it some of its items. So calls and prompts are those of the run, except for what only answers decide: replies are
assumed to have their full length, and earlier replies in a dialogue to be one letter. Training data is counted
separately, at four characters per token, once per model. Hours follow from tokens and parameters by the formula of
`evenhand.experiment.estimates`, at the speed that this machine reaches. They are an upper bound if prompts share
prefixes or answers are cached already, and too low if the model is so small that other work takes longer than its
matrix products.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from evenhand.core.records import is_baseline
from evenhand.core.registry import BenchmarkLike, MethodLike
from evenhand.core.repeats import checked_seeds, checked_wordings, parts_of
from evenhand.errors import MissingAbilityError
from evenhand.experiment import comparison
from evenhand.experiment.devices import ComputeDevice, devices
from evenhand.experiment.estimates import READING, WORKING, WRITING
from evenhand.experiment.learning import learns
from evenhand.experiment.plan import Asked, Plan, Task, Wishes
from evenhand.experiment.subsampling import subsample
from evenhand.interfaces import Benchmark, Method, TrainData, Usage
from evenhand.models.sketch import CHARACTERS_PER_TOKEN, RoughModel, Sketch, SketchedModel, sketch
from evenhand.statistics import smallest_effects
from evenhand.statistics.criteria import Criteria, Family

SAMPLE = 8
"""Items of each benchmark that the sketch is asked; the others are assumed to cost the same on average."""
SEED = 0
"""Seed of the choice of these items."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TRAINING_BYTES = 16
"""Bytes for each trained parameter on top of the base: float32 weights, gradients, and AdamW's two moments. An adapter
needs less than a hundredth of it."""
ADAPTERS = {"student": "lora", "fit": "lora"}
"""Settings of methods, with the value by which an adapter is trained instead of the whole model."""
RANK = "rank"
"""Setting of methods that train an adapter; those without a setting in `ADAPTERS` train nothing else."""


class CellForecast(NamedTuple):
    """One cell of the run."""

    model: str
    row: str
    benchmark: str
    cost: Usage
    refused: str = ""
    """Why it will not be asked; "" if it will."""
    uncounted: str = ""
    """Why its cost could not be counted; it is then the baseline's."""
    requests: frozenset[int] = frozenset()
    """What some of its items ask of the model, as hashes that hold in this process."""


@dataclass(frozen=True)
class ModelForecast:
    """All cells of one model, and what they need."""

    name: str
    sketched: Sketch
    cells: tuple[CellForecast, ...]
    trained_tokens: Mapping[str, float]
    """Tokens that are trained on, by method; an estimate."""
    memory: float | None
    """Bytes: weights, training and `estimates.WORKING`; None if the size is not known."""
    hours: float | None
    """Hours on one of the devices found; None if the size is not known."""

    @property
    def cost(self) -> Usage:
        """Cost of all cells that will be asked."""
        return Usage.total(cell.cost for cell in self.cells if not cell.refused)


class BenchmarkForecast(NamedTuple):
    """Size of a benchmark, and the smallest effects that it can show."""

    name: str
    items: int
    clusters: int
    tests: int
    """Number of tests that are adjusted together with one of its own."""
    share: tuple[float, float]
    """Smallest detectable change of a share: if a cluster counts once, and if all items are independent."""
    deviations: tuple[float, float]
    """Smallest detectable change of a mean, in standard deviations of an item's difference, likewise."""


@dataclass(frozen=True)
class Forecast:
    """A whole run."""

    models: tuple[ModelForecast, ...]
    benchmarks: tuple[BenchmarkForecast, ...]
    devices: tuple[ComputeDevice, ...]
    alpha: float
    workers: int
    """Number of devices that share the cells."""
    notes: tuple[str, ...] = field(default=())

    @property
    def cells(self) -> int:
        """Cells that will be asked."""
        return sum(not cell.refused for model in self.models for cell in model.cells)

    @property
    def hours(self) -> float:
        """Hours for all models whose size is known, one after the other on one device."""
        return sum(model.hours or 0.0 for model in self.models)


def forecast(
    models: comparison.ModelLike | Sequence[comparison.ModelLike],
    methods: MethodLike | Sequence[MethodLike] = "all",
    benchmarks: BenchmarkLike | Sequence[BenchmarkLike] = "all",
    *,
    workers: int | None = None,
    sample: int = SAMPLE,
    **options: Any,
) -> Forecast:
    """Estimate what `compare` would cost with the same arguments; no model is asked, and no weights are opened.

    Args:
        models: Models, as `evenhand.compare` takes them.
        methods: Methods, likewise.
        benchmarks: Benchmarks, likewise; their items are read.
        workers: Number of devices that share the cells; None for all that were found.
        sample: Items of each benchmark that prompts are counted on.
        **options: Options of `evenhand.compare` and `evenhand.load`. What does not affect costs is ignored.

    Raises:
        SettingsError: Something asked for cannot be used.
        DataError: A benchmark's data is missing or broken.
    """
    loading, own = comparison.parted_options(options)
    chosen = comparison.methods_of(
        methods, checked_seeds(own.get("seeds", 1)), checked_wordings(own["wordings"]) if own.get("wordings") else ()
    )
    wishes = Wishes(own.get("answer_by"), own.get("temperature"), own.get("samples", 1)).checked()
    asked = comparison.items_of(
        comparison.benchmarks_of(benchmarks), own.get("limit"), own.get("seed", 0), optional=benchmarks == "all"
    )
    kept = comparison.training_of(own.get("train"), asked)
    data = None if kept is None else kept.data
    models_ = comparison.wanted_models(models, loading)
    found = devices()
    wanted = [(spec, given, comparison.own_options(spec, given, loading)) for spec, given in models_]
    done = model_forecasts(wanted, chosen, asked, wishes, data, found[0], sample)
    criteria = Criteria(alpha=own.get("alpha", 0.05), family=own.get("family", "metric"))
    main = {benchmark.spec: sum(metric.main for metric in benchmark.metrics) or 1 for benchmark, _ in asked}
    return Forecast(
        done,
        tuple(_benchmark(benchmark, items, done, criteria, main) for benchmark, items in asked),
        tuple(found),
        criteria.alpha,
        workers or len(found),
    )


def model_forecasts(
    wanted: Sequence[comparison.WantedModel],
    methods: Sequence[Method],
    asked: Sequence[Asked],
    wishes: Wishes,
    data: TrainData | None,
    device: ComputeDevice | None = None,
    sample: int = SAMPLE,
) -> tuple[ModelForecast, ...]:
    """Estimate what each model of a run needs.

    Args:
        wanted: The models, with the options of each.
        methods: Methods, as `compare` has built them.
        asked: Benchmarks with all their items.
        wishes: Wishes of the run.
        data: What methods may fit on.
        device: What hours are estimated for; None leaves them out.
        sample: See `forecast`.
    """
    few = [(benchmark, subsample(items, sample, SEED, benchmark.stratum)) for benchmark, items in asked]
    sizes = {benchmark.spec: len(items) for benchmark, items in asked}
    done = []
    for spec, options, own in wanted:
        one = sketch(spec, **options)
        plan = Plan(one.model, methods, few, comparison.without_own(wishes, own), data)
        done.append(_model(one, plan, sizes, data, device))
    return tuple(done)


# ------------------------------------------------------------------------------------------------------- one model


def _model(
    one: Sketch, plan: Plan, sizes: Mapping[str, int], data: TrainData | None, device: ComputeDevice | None
) -> ModelForecast:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about answers, which mean nothing here
        cells = tuple(_cells(one.model, plan.tasks, sizes, data))
    # a method that one benchmark refuses is trained for the others; of a repeated one, the row has another name
    methods = [task.cell.method for task, cell in zip(plan.tasks, cells, strict=True) if not cell.refused]
    learning = {m.spec: m for m in methods if any(map(learns, parts_of(m)))}
    trained = {spec: _trained_tokens(method, data) for spec, method in learning.items()}
    whole = any(not _by_adapter(part) for m in learning.values() for part in parts_of(m) if learns(part))
    made = ModelForecast(one.model.name, one, cells, trained, None, None)
    if one.parameters is None:
        return made
    memory = one.parameters * (BYTES.get(one.dtype, 4) + TRAINING_BYTES * whole) + WORKING
    hours = None if device is None else _hours(one, made.cost, sum(trained.values()), device)
    return replace(made, memory=memory, hours=hours)


class _Counted(NamedTuple):
    """Counted cost of the items of a cell."""

    cost: Usage = Usage()
    why: str = ""
    """Why it could not be counted; "" if it was."""
    refused: str = ""
    """Why the cell will not be asked; "" if it will."""
    requests: frozenset[int] = frozenset()


def _cells(
    model: SketchedModel | RoughModel, tasks: Sequence[Task], sizes: Mapping[str, int], data: TrainData | None
) -> Iterator[CellForecast]:
    """Yield every cell with its cost; one that cannot be counted costs what the baseline does."""
    untouched: dict[str, Usage] = {}
    known: dict[tuple[str, str, str], _Counted] = {}
    for task in tasks:
        cell, name = task.cell, task.cell.benchmark.spec
        if reason := _refused(cell.method, cell.benchmark, model, data):
            yield CellForecast(cell.model, cell.row, name, Usage(), refused=reason)
            continue
        same = (cell.row, name, str(task.put))  # repetitions differ in what is drawn
        if same not in known:
            known[same] = _counted(task, model)
        cost, why, reason, requests = known[same]
        if reason:
            yield CellForecast(cell.model, cell.row, name, Usage(), refused=reason)
            continue
        scale = sizes[name] / max(1, len(task.items))
        cost = untouched.get(name, Usage()) if why else Usage(*(round(n * scale) for n in _numbers(cost)))
        untouched.setdefault(name, cost)
        yield CellForecast(cell.model, cell.row, name, cost, uncounted=why, requests=requests)


def _numbers(cost: Usage) -> tuple[int, int, int]:
    return cost.calls, cost.prompt_tokens, cost.new_tokens


def _refused(method: Method, benchmark: Benchmark, model: SketchedModel | RoughModel, data: TrainData | None) -> str:
    """Say why a cell will not be asked, as far as that is known without weights; "" if it will."""
    if lacking := sorted(benchmark.needs - model.abilities):
        return f"{benchmark.name} needs {', '.join(lacking)}, which {model.name} lacks"
    learning = [part for part in parts_of(method) if learns(part)]
    if lacking := sorted({ability for part in learning for ability in part.needs - model.abilities}):
        return f"{method.name} needs {', '.join(lacking)}, which {model.name} lacks"
    try:  # learning methods look at the weights, which are not there
        return method.unsupported_reason(None if learning else model, data)
    except Exception:  # a plugin's mistake
        return ""


def _counted(task: Task, model: SketchedModel | RoughModel) -> _Counted:
    before = model.spent
    model.requests()
    try:
        mitigated = _applied(task.cell.method, model)
        task.cell.benchmark.ask(task.posed(mitigated), task.items)
    except MissingAbilityError as error:
        return _Counted(refused=str(error))
    except Exception as error:  # an error of a plugin, or a method that needs real answers
        return _Counted(why=f"{type(error).__name__}: {error}")
    now = model.spent
    cost = Usage(*(b - a for a, b in zip(_numbers(before), _numbers(now), strict=True)))
    learned = any(map(learns, parts_of(task.cell.method)))  # its answers are those of other weights
    return _Counted(cost, requests=frozenset() if learned else model.requests())


def _applied(method: Method, model: Any) -> Any:
    """Apply those parts of a method that learn nothing."""
    for part in parts_of(method):
        if not learns(part):
            model = part.apply(model)
    return model


def _by_adapter(part: Method) -> bool:
    """Whether only an adapter, or nothing of the model's size, is trained."""
    settings = part.settings
    stated = [settings[name] == value for name, value in ADAPTERS.items() if name in settings]
    always = RANK in settings and not stated  # without a choice, what has a rank is an adapter
    return any(stated) or always or "weights" not in part.needs


def _trained_tokens(method: Method, data: TrainData | None) -> float:
    """Estimate the tokens that a method trains on by the characters of its data and its number of epochs."""
    if data is None:
        return 0.0
    texts = [*data.texts, *(side for p in data.pairs for side in (p.stereotyped, p.counter_stereotyped))]
    questions = [f"{q.preamble}{q.context}{q.question}{''.join(q.options)}" for q in data.questions]
    tokens = sum(map(len, [*texts, *questions])) / CHARACTERS_PER_TOKEN
    return tokens * max(float(part.settings.get("epochs") or 1) for part in parts_of(method) if learns(part))


def _hours(one: Sketch, cost: Usage, trained: float, device: ComputeDevice) -> float:
    """Estimate hours: 2 operations per parameter and token that is read or written, 6 per one that is trained on."""
    peak = device.speed.get(one.dtype) or max(device.speed.values())
    read = (2 * cost.prompt_tokens + 6 * trained) / READING
    return float(one.parameters or 0) * (read + 2 * cost.new_tokens / WRITING) / peak / 3_600


# --------------------------------------------------------------------------------------------------- one benchmark


def _benchmark(
    benchmark: Benchmark,
    items: Sequence[Any],
    models: Sequence[ModelForecast],
    criteria: Criteria,
    main: Mapping[str, int],
) -> BenchmarkForecast:
    sizes = list(Counter(item.cluster for item in items).values())
    tests = _tests(benchmark.spec, models, criteria.family, main)
    given = [(sizes, criteria.alpha, tests, alike) for alike in (1.0, 0.0)]
    share = [smallest_effects.smallest_change_of_share(*one) for one in given]
    mean = [smallest_effects.smallest_difference(*one) for one in given]
    return BenchmarkForecast(benchmark.spec, len(items), len(sizes), tests, (share[0], share[1]), (mean[0], mean[1]))


def _tests(benchmark: str, models: Sequence[ModelForecast], family: Family, main: Mapping[str, int]) -> int:
    """Count the tests that are adjusted together; if each model has a family of its own, in the largest one.

    Args:
        benchmark: Specification of the benchmark.
        models: Forecasts of the models.
        family: Which tests are adjusted together.
        main: Number of main metrics, by benchmark.
    """
    rows = {
        model.name: {
            name: len({c.row for c in model.cells if c.benchmark == name and not c.refused and not is_baseline(c.row)})
            for name in {c.benchmark for c in model.cells}
        }
        for model in models
    }
    if family == "metric":
        return max((of.get(benchmark, 0) for of in rows.values()), default=0)
    if family == "benchmark":
        return max((of.get(benchmark, 0) * main.get(benchmark, 1) for of in rows.values()), default=0)
    return sum(count * main.get(name, 1) for of in rows.values() for name, count in of.items())
