"""`compare`: every model, under every method, on every benchmark, side by side with the untouched model."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from evenhand import statistics
from evenhand.core import progress, provenance, rechecks, registry, specs, versions
from evenhand.core.answer_cache import AnswerCache, answer_cache, contents, key
from evenhand.core.answer_table import stated, usages
from evenhand.core.artifacts import artefacts
from evenhand.core.registry import BenchmarkLike, MethodLike
from evenhand.core.repeats import Repeated, checked_seeds, checked_wordings, repeated
from evenhand.core.run_folder import RunFolder
from evenhand.core.training_record import brief
from evenhand.core.withheld import Withheld
from evenhand.data.io import rows
from evenhand.errors import DataError, EvenhandError, MissingAbilityError, RunError, SettingsError, suggest
from evenhand.experiment import contracts, no_effect, refusals, refused_questions, training_data
from evenhand.experiment.answer_facts import answer_facts, unread_letters
from evenhand.experiment.cells import Cell
from evenhand.experiment.own_texts import warn_of_overlap
from evenhand.experiment.plan import Asked, Plan, Task, Wishes
from evenhand.experiment.scoring import scored
from evenhand.experiment.subsampling import subsample
from evenhand.experiment.training_data import Kept, TrainLike
from evenhand.interfaces import (
    AnswerBy,
    Benchmark,
    Choice,
    Dialogue,
    Method,
    Model,
    Passage,
    Question,
    Reply,
    Sampling,
    TrainData,
    Usage,
)
from evenhand.models.demo_names import is_demo
from evenhand.models.endpoint import SecondRequests, first_look, look_first, second_requests
from evenhand.models.loading import ASKING, LOADING, check, load
from evenhand.prompting.remarks import remarked
from evenhand.report import Report, rivals
from evenhand.report.cost import costs, with_costs
from evenhand.report.opened import at_hand
from evenhand.statistics.criteria import CRITERIA, Criteria, Family

ModelLike = str | Path | Model | dict[str, Any]
DEMO_MARGIN = 0.05
"""72 templates cannot rule out a smaller loss."""


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
    margin: float | None = None,
    alpha: float = CRITERIA.alpha,
    family: Family = CRITERIA.family,
    cache: str | Path | None = None,
    show_progress: bool = True,
    answer_by: AnswerBy | None = None,
    temperature: float | None = None,
    samples: int = 1,
    seeds: int = 1,
    wordings: str | Sequence[str] = (),
    refuse_unsupported: bool = False,
    drop_refused: bool = False,
    **load_options: Any,
) -> Report:
    """Compare mitigation methods on models.

    Args:
        models: What `evenhand.load` takes, {specification: {option: value}}, or a list of these.
        methods: Methods (names, "name(key=value)", stacks "a+b", objects) or a list; "all" is all that apply. The
            untouched model is always among them, and so are the controls that a method declares
            (`Method.comparison_rows`).
        benchmarks: Benchmarks likewise; "all" leaves out those whose data is not there and says so.
        out: Run folder; running again with the same folder resumes and asks nothing twice. None keeps all in memory.
        train: What methods may fit on: a file, a benchmark, "demo" or `TrainData` (see
            `evenhand.experiment.training_data.load`). What is asked too, or shares a template of the same benchmark
            with what is asked, is left out of it.
        limit: At most that many items per benchmark, a seeded draw in proportion to subjects, categories and the like.
        seed: Of that choice and of the bootstrap.
        replicates: Of the bootstrap, which metrics take that are neither smooth nor proportions.
        margin: A loss of capability below this is accepted: the verdict says "held". None is 0.02, and 0.05 where all
            models are demo models, whose benchmarks are too small to rule out less.
        alpha: Level of the tests; intervals have level 1 - alpha.
        family: Which tests are adjusted together (Holm): "metric" (the methods compared on one), "benchmark" (all its
            main metrics) or "run".
        cache: Answer cache to share between runs; None is the run folder's own.
        show_progress: Show a progress bar with an estimate on standard error.
        answer_by: How multiple-choice questions are answered where neither benchmark, method nor a model's own options
            say otherwise: "letters", "text", "text_per_token", "text_with_end" or "generation".
        temperature: Temperature of generated answers, likewise.
        samples: How many independent draws of every sampled answer are taken; a row is the mean of its draws.
        seeds: How many seeds a method that has one is repeated with: its own and those that follow it.
        wordings: Values of the setting that decides a method's wording; a method that has one is repeated with each.
        refuse_unsupported: Whether a method that was named and cannot be applied, or a benchmark that was named and
            cannot be asked, is refused before anything is asked; the command line does so. Otherwise it gets a row that
            says why. With several models only the training data are checked, as a method may suit one of them alone.
        drop_refused: Leave a question out of all rows of a model where any of them gave it no decision, as Gallegos et
            al. 2025 do; `manifest.json` has the counts. By default refusals count as each benchmark says.
        **load_options: Handed to `evenhand.load` for every model given as text; refused where none is.

    Returns:
        A `Report`; it is saved to `out` if given.

    Raises:
        SettingsError: Something asked for cannot be used. Nothing was asked of any model by then.
        DataError: A benchmark's data is missing or broken.
        RunError: The run folder is in use or cannot be written.
    """
    repeats: dict[str, Any] = {
        "seeds": checked_seeds(seeds),
        "wordings": checked_wordings(wordings) if wordings else (),
    }
    chosen = _methods(methods, **repeats)
    wishes = Wishes(answer_by, temperature, samples).checked()
    if limit is not None and limit < 1:
        raise SettingsError(f"limit={limit}: give at least 1, or leave it out for all items")
    if replicates < statistics.MIN_REPLICATES:
        raise SettingsError(f"replicates={replicates}: give at least {statistics.MIN_REPLICATES}; 2000 is usual")
    criteria = Criteria(margin=_margin(models) if margin is None else margin, alpha=alpha, family=family)
    folder = None if out is None else RunFolder(out)
    with ExitStack() as stack:
        if folder:
            stack.enter_context(folder.locked())
        stack.enter_context(progress.show(show_progress))
        items = _items(benchmarks_of(benchmarks), limit, seed, optional=benchmarks == "all")
        warn_of_overlap(chosen, items)
        wanted = _models(models, load_options)
        where = cache or (folder.cache if folder else None)
        answers = stack.enter_context(answer_cache(where)) if where else None
        stack.enter_context(artefacts(folder.path / "artefacts" if folder else None))
        kept = _training(train, items)
        named = _Named(chosen if methods != "all" else [], items if benchmarks != "all" else [], train, kept)
        if refuse_unsupported:
            named.refuse_without_data()
        session = _Session(folder, answers, chosen, items, kept, wishes, repeats, drop_refused)
        session.start(limit, seed, train)
        try:
            for n, (spec, options) in enumerate(wanted, 1):  # in turn: the largest decides the memory, not their sum
                session.manifest["models_left"] = list(map(_label, wanted[n:]))  # what an interrupted run lacks
                base = _Base(spec, options)
                if refuse_unsupported and len(wanted) == 1:
                    named.refuse_unsupported(base.model)
                session.ask(base, _own_options(spec, options, load_options), last=n == len(wanted))
                del base
        except BaseException:
            if session.cells:  # what was refused before anything was asked must not replace an earlier result
                session.close(replicates, seed, criteria)
            raise
        return session.close(replicates, seed, criteria)


def _margin(models: ModelLike | Sequence[ModelLike]) -> float:
    """The margin where none is given."""
    several = [models] if isinstance(models, str | Path | Model | dict) else list(models)
    return DEMO_MARGIN if several and all(map(is_demo, several)) else CRITERIA.margin


def parted_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of `evenhand.load`, and those of `compare`: for callers that load a model once for all comparisons.

    Args:
        options: Both kinds, as `compare` takes them.
    """
    own = {p.name for p in signature(compare).parameters.values() if p.kind is Parameter.KEYWORD_ONLY}
    return {k: v for k, v in options.items() if k not in own}, {k: v for k, v in options.items() if k in own}


class _Named(NamedTuple):
    """What was asked for by name, and so is not to be left out."""

    methods: Sequence[Method]
    asked: Sequence[Asked]
    train: TrainLike | None
    kept: Kept | None

    def refuse_without_data(self) -> None:
        """Refuse methods that cannot be trained with the data."""
        refusals.refuse(refusals.training_reasons(self.methods, self.train, self._data))

    def refuse_unsupported(self, model: Model) -> None:
        """Refuse methods that cannot be applied to a model, and benchmarks that cannot be asked of it."""
        refusals.refuse(refusals.model_reasons(model, self.methods, [b for b, _ in self.asked], self._data))

    @property
    def _data(self) -> TrainData | None:
        return None if self.kept is None else self.kept.data


class _Base:
    """An untouched model, and the way to have it again after something changed it."""

    def __init__(self, spec: str | Path | Model, options: dict[str, Any]) -> None:
        self._spec, self._options = spec, options
        self.model = spec if isinstance(spec, Model) else load(spec, **options)
        self._state = self._found()
        self.broken = ""
        """Why it cannot be asked any more."""

    @property
    def changed(self) -> bool:
        """Whether it is no longer what it was; this hashes all weights that anybody had in hand."""
        self.model.rehash()
        return self._found() != self._state

    def restore(self, culprit: str) -> None:
        """Load it again; where that is not possible, `broken` says why."""
        why = f"not asked: {culprit} changed {self.model.name}, the model that it was given"
        if isinstance(self._spec, Model):
            self.broken = f"{why}, and one given as an object cannot be loaded again; give its folder or name"
            return
        del self.model  # first: two of them may not fit into memory
        self.model = load(self._spec, **self._options)
        if self.changed:
            self.broken = f"{why}, and {self._spec} loaded again is not what it was"

    def _found(self) -> tuple[str, str]:
        """Weights, tokenizer and precision; and how it is asked."""
        return self.model.fingerprint, repr(self.model.asking)


class _Session:
    """One call of `compare`: asks what has not been answered yet and keeps the facts."""

    def __init__(
        self,
        folder: RunFolder | None,
        cache: AnswerCache | None,
        methods: Sequence[Method],
        asked: list[Asked],
        train: Kept | None,
        wishes: Wishes,
        repeats: dict[str, Any],
        drop_refused: bool,
    ) -> None:
        self.folder, self.cache, self.methods, self.asked, self.train = folder, cache, methods, asked, train
        self.wishes, self.repeats, self.drawn, self.generated = wishes, repeats, False, False
        self.drop_refused = drop_refused
        self.data = None if train is None else train.data
        self.cells: list[Cell] = []
        self._mitigated: Model | None = None
        self._said_in_applying: list[str] = []
        """What was remarked as the method at hand was applied, such as in its training."""
        self._prompts: dict[tuple[str, str, str], str] = {}
        """What the model was asked for a baseline, by model, row and benchmark."""
        self.resting: Model | None = None
        """The model, until it is asked for the first time."""
        self._contents: dict[str, str] = {}
        """Digest of the items, by benchmark."""
        self.begun = time.monotonic()
        self.manifest: dict[str, Any] = {"usage": [], "applied": [], "unanswered": []}

    def start(self, limit: int | None, seed: int, train: TrainLike | None) -> None:
        """Put together what is about to be compared; it is written before anything is asked."""
        self.manifest |= {
            "started": _now(),
            "command": provenance.command(),
            "limit": limit,
            "seed": seed,
            "demo": False,
            "models": {},
            "methods": [m.spec for m in self.methods],
            "variants": {m.spec: _variants(m) for m in self.methods if isinstance(m, Repeated)},
            "baselines": {},
            **asdict(self.wishes),
            **self.repeats,
            "drop_refused": self.drop_refused,
            "train": None if self.train is None else training_data.facts(self.train),
            "train_source": training_data.source_of(train),
            "benchmarks": {b.spec: self._benchmark_facts(b, items) for b, items in self.asked},
            "answers_version": versions.ANSWERS,
            "versions": provenance.versions(),
            "git": provenance.git_state(),
        }

    def _begin(self) -> None:
        """Write it down; once, after all that can be refused."""
        if self.folder and not self.cells:
            _say_what_is_asked_anew(self.folder, self.manifest)
            self.folder.write_manifest(self.manifest)
            self.folder.append_session({"event": "start", **self.manifest})

    def _benchmark_facts(self, benchmark: Benchmark, items: Sequence[Any]) -> dict[str, Any]:
        with suppress(Exception):  # items that are not as they should be; their cells fail and say so
            self._contents[benchmark.spec] = contents(items)
        return {**benchmark.facts(), "asked": len(items), "contents": self._contents.get(benchmark.spec, "")}

    def ask(self, base: _Base, options: Collection[str] = (), *, last: bool = True) -> None:
        """All benchmarks and methods on one model, the untouched model first.

        Args:
            base: The model.
            options: Names of the options of `load` that were given for this model alone: they go before the run's.
            last: Whether no other model follows.

        Raises:
            SettingsError: The run asks for samples or a temperature, and there is nothing that either is about.
        """
        plan = Plan(base.model, self.methods, self.asked, _without(self.wishes, options), self.data)
        self._refuse_idle(plan, last)
        self._begin()
        look_first(base.model, letters=plan.reads_letters, draws=plan.draws)
        self._describe(base.model)
        self.manifest["baselines"][base.model.name] = plan.baselines
        self.resting = base.model
        self.cells += [task.cell for task in plan.tasks]
        tasks, applied = plan.tasks, plan.applied
        del plan  # it has the model, which may have to be loaded again
        for method in applied:
            self._mitigated = None  # one after the other, so that what a method has made is gone before the next
            mine = [task for task in tasks if task.cell.method is method]
            for task in mine:
                self._try(task, base)
            self._mitigated = None
            self._verify(base, method, [task.cell for task in mine])
        if found := first_look(base.model)[0]:
            self.manifest["models"][base.model.name]["preflight"] = found

    def _verify(self, base: _Base, method: Method, cells: Sequence[Cell]) -> None:
        """Whether a method left the model as it was: else its cells fail, and the next ones get it loaded again."""
        if base.broken or not base.changed:
            return
        for cell in cells:
            if cell.status == "ok":
                cell.fail(contracts.CHANGED)
            elif cell.status == "failed":
                cell.fail(f"{cell.note}; {contracts.CHANGED}")
        self.resting = None
        culprit = f"a benchmark, under {method.spec}," if cells[0].is_baseline else method.spec
        name = base.model.name
        base.restore(culprit)
        then = "the methods that follow are not asked" if base.broken else "it was loaded again for those that follow"
        warnings.warn(f"{culprit} changed {name}, the model that it was given; {then}", RuntimeWarning, stacklevel=4)

    def _refuse_idle(self, plan: Plan, last: bool) -> None:
        """Refuse wishes that change nothing on any model."""
        self.drawn, self.generated = self.drawn or plan.draws, self.generated or plan.generates
        temperature, samples = self.wishes.temperature, self.wishes.samples
        if not last:
            return
        if temperature and not self.generated:
            raise SettingsError(
                f"temperature={temperature:g}: no answer to a question is generated here, so nothing is drawn; add "
                "answer_by='generation' (--answer-by generation), or leave the temperature out"
            )
        if samples > 1 and not self.drawn:
            raise SettingsError(
                f"samples={samples}: no answer is sampled here, so all samples would be the same; add "
                "answer_by='generation' and temperature=1 (--answer-by generation --temperature 1), take a method that "
                "samples, such as 'self_debias(preset=paper)', or leave samples out"
            )

    def _try(self, task: Task, base: _Base) -> None:
        """Fill a cell; what goes wrong there costs no other."""
        cell = task.cell
        if base.broken:
            cell.fail(base.broken)
            return
        try:
            self._fill(task, base.model)
        except RunError:
            raise  # the run folder itself is in trouble
        except MissingAbilityError as error:  # found out in asking
            cell.refuse(_said(task, error))
        except (EvenhandError, contracts.NonconformingError) as error:
            cell.fail(_said(task, error))
        except Exception as error:  # a plugin's mistake
            hidden = None if cell.benchmark.quotable else Withheld(task.items)
            cell.fail(f"{type(error).__name__}: {error}" if hidden is None else hidden.error(error))
            trace = traceback.format_exc() if hidden is None else hidden.trace(error)
            warnings.warn(f"{cell.label} failed:\n{trace}", RuntimeWarning, stacklevel=3)

    def close(self, replicates: int, seed: int, criteria: Criteria) -> Report:
        """Score what there is, also after an interruption, and write everything."""
        done = [c for c in self.cells if c.status != "running"]
        if self.drop_refused:
            items = {benchmark.spec: asked for benchmark, asked in self.asked}
            self.manifest["refused"] = refused_questions.drop_refused(done, items)
        self.manifest["statistics"] = {**criteria.facts, "replicates": replicates}
        found = scored(done, replicates=replicates, seed=seed, criteria=criteria)
        records = with_costs(found.records, costs(self.manifest))
        self.manifest[rivals.FIELD] = rivals.facts(found.rivals)
        self.manifest["seconds"] = round(time.monotonic() - self.begun, 1)
        report = Report(records, self.manifest, self.folder.path if self.folder else None)
        if self.folder:
            self.folder.append_session({"event": "end", "at": _now(), **self._work()})
            self.folder.write_manifest(self.manifest)
            self.folder.write_scores(records)
            with at_hand(benchmark for benchmark, _ in self.asked):
                report.save(self.folder.path)
        return report

    def _describe(self, model: Model) -> None:
        known: dict[str, Any] = self.manifest["models"]
        if model.name in known:
            raise SettingsError(f"two models are both called {model.name!r}; tell them apart: 'folder(name=other)'")
        record = model.training
        trained = {} if record is None else {"training": brief(record), "trained_by": record.spec or record.method}
        known[model.name] = {**model.facts(), **trained, "fingerprint": model.fingerprint}
        self.manifest["demo"] |= bool(known[model.name].get("demo"))
        if self.folder:
            self.folder.append_session({"event": "model", "name": model.name, **known[model.name]})

    def _fill(self, task: Task, model: Model) -> None:
        cell, items = task.cell, task.items
        reason = cell.method.unsupported_reason(model, self.data)
        if reason:
            cell.refuse(reason)
            return
        mitigated = self._applied(cell.method, model)
        lacking = sorted(cell.benchmark.needs - mitigated.abilities)
        if lacking:
            cell.refuse(f"{cell.benchmark.name} needs {', '.join(lacking)}, which {mitigated.name} lacks")
            return
        contracts.check_ids(items)
        answers, usage = self._answers(task, model, mitigated)
        self.manifest["usage"].append(usage)
        cell.remark = "; ".join((*self._said_in_applying, *usage.get("remarks", ())))
        cell.finish(items, answers)
        if cell.gap is not None:
            place = {"model": cell.model, "method": cell.row, "benchmark": cell.benchmark.spec}
            self.manifest["unanswered"].append({**place, **asdict(cell.gap)})
        if cell.tally is not None:
            cell.no_effect = self._no_effect(cell, model, mitigated, usage.get("prompts", ""))

    def _no_effect(self, cell: Cell, model: Model, mitigated: Model, prompts: str) -> str:
        """Why the answers may be the baseline's, where anything is known."""
        if cell.is_baseline:
            self._prompts.setdefault((cell.model, cell.row, cell.benchmark.spec), prompts)
            return ""
        known = no_effect.reason(model, mitigated, cell.method, cell.benchmark, cell.answers)
        same = bool(prompts) and prompts == self._prompts.get((cell.model, cell.baseline, cell.benchmark.spec))
        return known or (no_effect.SAME_PROMPTS if same else "")

    def _applied(self, method: Method, model: Model) -> Model:
        """The model under a method, which is applied once for all benchmarks."""
        if self._mitigated is None:
            begun = time.monotonic()
            with self._settled(), remarked() as said:
                made = contracts.check_mitigated(method.apply(model, self.data))
            self._mitigated, self._said_in_applying = made, said
            seconds = round(time.monotonic() - begun, 3)
            own = made.training if made.training is not model.training else None
            trained = {} if own is None else {"training": brief(own, base=model.name)}
            self.manifest["applied"].append({"model": model.name, "method": method.spec, "seconds": seconds, **trained})
        return self._mitigated

    def _answers(self, task: Task, model: Model, mitigated: Model) -> tuple[list[Any], dict[str, Any]]:
        """Answers and their cost: from the run folder where the cell was finished before, else asked now."""
        cell, ids = task.cell, [item.id for item in task.items]
        reading = None if task.reading is None else asdict(task.reading)
        if cell.benchmark.spec not in self._contents:
            self._contents[cell.benchmark.spec] = contents(task.items)  # which says what is wrong with them
        about = (cell.benchmark.name, cell.benchmark.key_settings(), self._contents[cell.benchmark.spec])
        name = key(versions.ANSWERS, mitigated.fingerprint, *about, reading, task.sample)[:24]
        whose = {
            "model": cell.model,
            "method": cell.row,
            "benchmark": cell.benchmark.spec,
            "answers": name,
            "baseline": "" if cell.is_baseline else cell.baseline,
            "variant": list(cell.variant),
            "spec": cell.method.spec,
            "answer_by": "" if task.reading is None else task.reading.answer_by,
        }
        if self.folder:
            stored = self.folder.read_cell(name, ids, cell.benchmark.answer_type)
            if stored is not None and not any(map(_is_open, stored.answers)):
                return stored.answers, {**stored.about, **whose, "asked_anew": 0}
        if self.resting is not None:
            resting, self.resting = self.resting, None
            _start(resting)
        watch, twice = _Watch(self.cache, model), second_requests(model)
        hidden = None if cell.benchmark.quotable else Withheld(task.items)
        with (
            self._settled(mitigated),
            no_effect.overheard(model) as heard,
            contracts.checked(mitigated, model),
            nullcontext() if hidden is None else hidden.warnings(),
            remarked() as remarks,
        ):
            answers = cell.benchmark.ask(task.posed(mitigated), task.items)
        contracts.check_answers(cell.benchmark, task.items, answers)
        if hidden is not None:
            answers, remarks = hidden.answers(answers), [hidden.note(text) for text in remarks]
        cost = sum((used for used in usages(answers) if used is not None), Usage())
        found = {"prompts": heard.digest, **_of_server(model, twice, answers, remarks), "items": len(ids)}
        usage = {**whose, **found, **asdict(cost), **watch.read()}
        if self.folder:
            facts = answer_facts(cell.benchmark, task.items, answers, usage)
            self.folder.write_answers(name, answers, ids, usage, facts)
        return answers, usage

    @contextmanager
    def _settled(self, asked: Model | None = None) -> Iterator[None]:
        """Hash all weights once the block is done; where they changed unnoticed, its answers are stored nowhere.

        Args:
            asked: A model whose weights must not change at all.

        Raises:
            NonconformingError: The weights are not those that the answers would be stored under.
        """
        before = asked.fingerprint if asked else ""
        with rechecks.collected() as used:
            try:
                yield
            finally:
                wrong = used.wrong()
                if asked is not None:
                    asked.rehash()
                    wrong = wrong or [asked.name] * (asked.fingerprint != before)
                if wrong and self.cache is not None:
                    self.cache.remove(used.stored)
        if wrong:
            raise contracts.NonconformingError(
                f"the weights of {', '.join(wrong)} changed while it was applied or asked: a method edits a copy, a "
                "benchmark edits none"
            )

    def _work(self) -> dict[str, Any]:
        return {"seconds": self.manifest["seconds"], "usage": self.manifest["usage"]}


def _said(task: Task, error: Exception) -> str:
    """What an error says, as far as it may be written down."""
    return str(error) if task.cell.benchmark.quotable else Withheld(task.items).error(error, own=True)


def _start(model: Model) -> None:
    """Put a first question to a local model: its first call also imports and tries out, which is no method's cost.

    A server is not asked for it: `look_first` has one looked at before its first request.
    """
    if "weights" not in model.abilities:
        return
    with answer_cache(None), suppress(Exception):  # what fails here fails again where it matters, and is told there
        if "choose" in model.abilities:
            model.choose([Question("start", "Is this the start?", ("yes", "no"))])
        if "score" in model.abilities:
            model.score([Passage("This is the start.", id="start")])
        if "generate" in model.abilities:
            model.generate([Dialogue(()).user("Is this the start?")], Sampling(max_new_tokens=2))


def _of_server(model: Model, twice: SecondRequests, answers: Sequence[Any], remarks: list[str]) -> dict[str, Any]:
    """The remarks on a cell with those on letters of a server, and what second requests for a letter cost."""
    again = second_requests(model).since(twice)
    said = [*remarks, *unread_letters(answers), *([again.line()] if again.items else [])]
    return {"remarks": said, **({"second_requests": again._asdict()} if again.items else {})}


class _Watch:
    """How long the answers of a cell took, those that lay in the cache included.

    The cache would make a method look faster than the untouched model whose first turn it shares, and a resumed run
    faster than an unbroken one. So the seconds that cached answers took when they were computed are added.
    """

    def __init__(self, cache: AnswerCache | None, model: Model) -> None:
        self.cache, self.model = cache, model
        self.begun, self.looked, self.before = time.monotonic(), first_look(model)[1], self._counts()

    def read(self) -> dict[str, Any]:
        """Seconds of the wall clock now, those saved by the cache (None where not all are known), and requests."""
        looked = first_look(self.model)[1] - self.looked  # of the server: not the cost of an answer
        seconds = round(time.monotonic() - self.begun - looked, 4)
        misses, hits, saved, untimed = (a - b for a, b in zip(self._counts(), self.before, strict=True))
        anew = None if self.cache is None else int(misses)
        known = None if untimed else round(saved, 4)
        return {"seconds": seconds, "seconds_saved": known, "asked_anew": anew, "from_cache": int(hits)}

    def _counts(self) -> tuple[float, ...]:
        c = self.cache
        return (0, 0, 0, 0) if c is None else (c.misses, c.hits, c.saved, c.untimed)


def _say_what_is_asked_anew(folder: RunFolder, now: dict[str, Any]) -> None:
    """A line where a folder has answers that are no longer those to what is asked."""
    before = folder.read_manifest()
    if not folder.has_answers or not before:
        return
    if not folder.manifest().verified:
        warnings.warn(
            f"{folder.path} was made by an earlier version of evenhand: what has no checksum there is used as it is",
            UserWarning,
            stacklevel=4,
        )
    version = before.get("answers_version", 1)
    if version != versions.ANSWERS:
        warnings.warn(
            f"{folder.path}: its answers are asked anew, since evenhand now writes prompts or reads replies in another "
            f"way (version {versions.ANSWERS}; there: {version}); the old ones are not used",
            UserWarning,
            stacklevel=4,
        )
        return
    if any(before.get(name) != now[name] for name in ("limit", "seed")):
        return
    for spec, facts in now["benchmarks"].items():
        known = before.get("benchmarks", {}).get(spec, {}).get("contents", facts["contents"])
        if known != facts["contents"]:
            warnings.warn(
                f"{spec}: its data is not what it was when {folder.path} was last used; what changed is asked anew",
                UserWarning,
                stacklevel=4,
            )


@runtime_checkable
class _WithStatus(Protocol):
    """An answer that says whether it came, in a field or a property."""

    @property
    def status(self) -> str:
        """Such as "answered"."""


def _is_open(answer: Any) -> bool:
    """Whether no answer came; such items are asked again when the run is resumed."""
    if isinstance(answer, Choice | Reply):  # most answers are, and a protocol takes its time
        return answer.text is None if isinstance(answer, Reply) else answer.status == "unanswered"
    came = not isinstance(answer, _WithStatus) or answer.status != "unanswered"
    return not came or stated(answer).get("text", "") is None


def _methods(given: MethodLike | Sequence[MethodLike], seeds: int, wordings: Sequence[str]) -> list[Method]:
    """Built methods, each once, the untouched model first; repeated by seed and wording where that was asked for."""
    if given == "all":
        wanted: list[MethodLike] = list(registry.methods.load_all())
    elif isinstance(given, str):
        wanted = list(registry.split_specs(given))
    else:
        wanted = [given] if isinstance(given, Method | dict) else list(given)
    shown = [row for m in wanted for row in registry.build_method(m).comparison_rows().values()]
    built = [repeated(m, seeds, wordings) for m in shown]
    if len(wordings) > 1 and not any(isinstance(m, Repeated) and any(m.wordings) for m in built):
        raise SettingsError(f"wordings={','.join(wordings)}: no method here has a wording to choose")
    if seeds > 1 and not any(isinstance(m, Repeated) for m in built):
        warnings.warn(f"seeds={seeds}: no method here has a seed that decides anything", UserWarning, stacklevel=3)
    return list({m.spec: m for m in (registry.build_method("none"), *built)}.values())


def benchmarks_of(given: BenchmarkLike | Sequence[BenchmarkLike]) -> list[Benchmark]:
    """The benchmarks that `compare` would be given, each once; their items are read when first used, and then kept.

    Args:
        given: Specs, benchmarks, a list of these, or "all".

    Raises:
        SettingsError: There is none, or one cannot be made.
    """
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
    if options and all(isinstance(one, Model) for one in several):
        _refuse_options(options)
    wanted: list[Wanted] = []
    for one in several:
        spec, own = _with_options(one)
        if own and isinstance(spec, Model):
            _refuse_options(own)
        wanted.append((spec, {**options, **own}))
        check(spec, **wanted[-1][1])
    texts = [str(spec) if not isinstance(spec, Model) else spec.name for spec, own in wanted if "name" not in own]
    for text in texts:
        if texts.count(text) > 1:
            raise SettingsError(f"{text!r} is given twice; tell the two apart by name: 'folder(name=other)'")
    return wanted


def _label(wanted: Wanted) -> str:
    """What a model is called before it is loaded."""
    spec, options = wanted
    return spec.name if isinstance(spec, Model) else str(options.get("name", spec))


def _refuse_options(options: dict[str, Any]) -> None:
    """Options of `evenhand.load` where there is nothing to load: a misspelt one of `compare`, or one that does nothing.

    Raises:
        SettingsError: Always; the message names the near ones.
    """
    name = next(iter(options))
    if name in (*ASKING, *LOADING):
        raise SettingsError(
            f"{name}={options[name]!r}: the models are objects, which are loaded already; give it to evenhand.load or "
            "evenhand.wrap"
        )
    own = [p.name for p in signature(compare).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    raise SettingsError(f"compare: unknown option {name!r}. {suggest(name, own)}")


def _own_options(spec: str | Path | Model, options: dict[str, Any], shared: dict[str, Any]) -> set[str]:
    """Names of the options that one model was given and the others were not."""
    text = "" if isinstance(spec, Model) else str(spec)
    written = specs.parse(text).settings if text.endswith(")") and not Path(text).exists() else {}
    return {*written, *(k for k, v in options.items() if k not in shared or shared[k] is not v)}


def _without(wishes: Wishes, options: Collection[str]) -> Wishes:
    """The run's wishes, but for those about which a model's own options say something."""
    return replace(
        wishes,
        answer_by=None if "answer_by" in options else wishes.answer_by,
        temperature=None if "sampling" in options else wishes.temperature,
    )


def _variants(method: Repeated) -> list[dict[str, Any]]:
    return [
        {"seed": key[0], "wording": key[1], "method": variant.spec, "words": method.wording(key)}
        for key, variant in method.variants.items()
    ]


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
    kept = training_data.without(training_data.load(train), asked)
    if kept.left_out:
        warnings.warn(
            f"left {kept.left_out:,} training items out: they are asked too, or share a template with what is asked",
            UserWarning,
            stacklevel=3,
        )
    return kept


def _items(benchmarks: Sequence[Benchmark], limit: int | None, seed: int, *, optional: bool) -> list[Asked]:
    """The items of each benchmark; of those asked for by "all", the ones without data are left out with a warning.

    What a benchmark has to say of its data is one warning: its notes, how many rows were refused, and the first three.
    """
    found: list[Asked] = []
    for benchmark in benchmarks:
        try:
            found.append((benchmark, subsample(benchmark.load(), limit, seed, benchmark.stratum)))
        except DataError as error:
            if not optional or len(benchmarks) == 1:
                raise
            warnings.warn(f"left out the benchmark {benchmark.name}: {error}", UserWarning, stacklevel=3)
        else:
            facts = benchmark.facts()
            said = [*facts.get("notes", []), rows.summary(facts.get("dropped", []))]
            if text := "; ".join(line for line in said if line):
                warnings.warn(f"{benchmark.name}: {text}", UserWarning, stacklevel=3)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
