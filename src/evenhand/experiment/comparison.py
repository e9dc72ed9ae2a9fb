"""`compare`: every model, under every method, on every benchmark, next to the baseline."""

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
from evenhand.core.run_folder import FinishedCell, RunFolder
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
from evenhand.inference.team import Team
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
from evenhand.training.processes import asking_together


class Crew(Protocol):
    """Asks the cells of a comparison elsewhere; see `evenhand.experiment.cell_board`."""

    def ask(self, session: Session, wanted: Sequence[WantedModel], named: Named | None) -> None:
        """Fill the session's cells and manifest, as `Session.ask` does for one model after the other.

        Args:
            session: The session with what is compared.
            wanted: The models.
            named: What to refuse if a model does not support it; None refuses nothing.
        """


ModelLike = str | Path | Model | dict[str, Any]
DEMO_MARGIN = 0.05
"""Default margin for demo models: their 72 templates cannot rule out a smaller loss."""


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
    crew: Crew | None = None,
    **load_options: Any,
) -> Report:
    """Compare mitigation methods on models.

    Args:
        models: What `evenhand.load` takes, {specification: {option: value}}, or a list of these.
        methods: Methods (names, "name(key=value)", stacks "a+b", objects) or a list; "all" is all that apply. The
            baseline is always among them, and so are the controls that a method declares
            (`Method.comparison_rows`).
        benchmarks: Benchmarks likewise; "all" leaves out those whose data is not there, with a warning.
        out: Run folder; running again with the same folder resumes and asks nothing twice. None keeps all in memory.
        train: What methods may fit on: a file, a benchmark, "demo" or `TrainData` (see
            `evenhand.experiment.training_sources.load`). Whatever overlaps with what is asked, or shares a template of
            the same benchmark with it, is left out.
        limit: Maximum number of items per benchmark, a seeded draw in proportion to subjects, categories and the like.
        seed: Seed of that choice and of the bootstrap.
        replicates: Replicates of the bootstrap, for metrics that are neither smooth nor proportions.
        margin: A loss of capability below this is accepted: the verdict says "held". None is 0.02, and 0.05 where all
            models are demo models, whose benchmarks are too small to rule out less.
        alpha: Significance level of the tests; intervals have level 1 - alpha.
        family: Which tests are adjusted together (Holm): "metric" (the methods compared on one), "benchmark" (all its
            main metrics) or "run".
        cache: Answer cache to share between runs; None is the run folder's own.
        show_progress: Show a progress bar with an estimate on standard error.
        answer_by: How multiple-choice questions are answered, unless the benchmark, the method or a model's own options
            say otherwise: "letters", "text", "text_per_token", "text_with_end" or "generation".
        temperature: Temperature of generated answers, likewise.
        samples: Number of independent draws per sampled answer; a row is the mean of its draws.
        seeds: Number of seeds with which a method that has one is repeated: its own and those that follow it.
        wordings: Values of the setting for a method's wording; a method that has one is repeated with each.
        refuse_unsupported: Whether to refuse, before anything is asked, a named method that cannot be applied or a
            named benchmark that cannot be asked; the command line does so. Otherwise it gets a row that says why. With
            several models only the training data are checked, as a method may suit one of them alone.
        drop_refused: Leave a question out of all rows of a model if any of them gave it no decision, as Gallegos et al.
            2025 do; `manifest.json` has the counts. By default refusals count as each benchmark says.
        crew: What asks the cells, such as `evenhand.integrations.ray_crew.RayCrew`; None is this process.
        **load_options: Passed to `evenhand.load` for every model given as text; refused if there is none.

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
    chosen = methods_of(methods, **repeats)
    wishes = Wishes(answer_by, temperature, samples).checked()
    if limit is not None and limit < 1:
        raise SettingsError(f"limit={limit}: give at least 1, or leave it out for all items")
    if replicates < statistics.MIN_REPLICATES:
        raise SettingsError(f"replicates={replicates}: give at least {statistics.MIN_REPLICATES}; 2000 is usual")
    criteria = Criteria(margin=_margin(models) if margin is None else margin, alpha=alpha, family=family)
    folder = None if out is None else RunFolder(out)
    with ExitStack() as stack:
        team = stack.enter_context(asking_together(load_options.get("device")))
        first = team is None or team.first  # it alone writes, and uses the cache
        if folder and first:
            stack.enter_context(folder.locked())
        stack.enter_context(progress.show(show_progress and first))
        items = items_of(benchmarks_of(benchmarks), limit, seed, optional=benchmarks == "all")
        warn_of_overlap(chosen, items)
        wanted = wanted_models(models, load_options)
        where = cache or (folder.cache if folder else None)
        answers = stack.enter_context(answer_cache(where)) if where and first else None
        stack.enter_context(artefacts(folder.artefacts if folder else None))
        kept = training_of(train, items)
        named = Named(chosen if methods != "all" else [], items if benchmarks != "all" else [], train, kept)
        if refuse_unsupported:
            named.refuse_without_data()
        session = Session(folder, answers, chosen, items, kept, wishes, repeats, drop_refused, team)
        session.start(limit, seed, train)
        try:
            if crew is not None and team is not None:
                raise SettingsError(
                    "a crew asks from one process; start the command without torchrun or accelerate launch"
                )
            if crew is not None:
                several = [(spec, given, own_options(spec, given, load_options)) for spec, given in wanted]
                crew.ask(session, several, named if refuse_unsupported and len(wanted) == 1 else None)
                wanted = []
            for n, (spec, options) in enumerate(wanted, 1):  # in turn, so that the largest model decides the memory
                session.manifest["models_left"] = list(map(label_of, wanted[n:]))  # missing if the run is interrupted
                base = Base(spec, options)
                if refuse_unsupported and len(wanted) == 1:
                    named.refuse_unsupported(base.model)
                session.ask(base, own_options(spec, options, load_options), last=n == len(wanted))
                del base
        except BaseException:
            if session.cells:  # what was refused before anything was asked must not replace an earlier result
                session.close(replicates, seed, criteria)
            raise
        return session.close(replicates, seed, criteria)


def _margin(models: ModelLike | Sequence[ModelLike]) -> float:
    """Return the margin if none is given."""
    several = [models] if isinstance(models, str | Path | Model | dict) else list(models)
    return DEMO_MARGIN if several and all(map(is_demo, several)) else CRITERIA.margin


def parted_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split options into those of `evenhand.load` and of `compare`, for callers that load a model once for all runs.

    Args:
        options: Both kinds, as `compare` takes them.
    """
    own = {p.name for p in signature(compare).parameters.values() if p.kind is Parameter.KEYWORD_ONLY}
    return {k: v for k, v in options.items() if k not in own}, {k: v for k, v in options.items() if k in own}


class Named(NamedTuple):
    """Methods and benchmarks that were asked for by name, and so are not left out silently."""

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


class Base:
    """A baseline, which can be restored after something changed it."""

    def __init__(self, spec: str | Path | Model, options: dict[str, Any]) -> None:
        """Load the model, unless it is an object."""
        self._spec, self._options = spec, options
        self.model = spec if isinstance(spec, Model) else load(spec, **options)
        self._state = self._found()
        self.broken = ""
        """Why it cannot be asked any more; "" while it can."""

    @property
    def changed(self) -> bool:
        """Whether the model is no longer what it was; hashes all weights that anybody may have changed."""
        self.model.rehash()
        return self._found() != self._state

    def restore(self, culprit: str) -> None:
        """Load the model again; if that is not possible, `broken` says why."""
        why = f"not asked: {culprit} changed {self.model.name}, the model that it was given"
        if isinstance(self._spec, Model):
            self.broken = f"{why}, and one given as an object cannot be loaded again; give its folder or name"
            return
        del self.model  # first, since two of them may not fit into memory
        self.model = load(self._spec, **self._options)
        if self.changed:
            self.broken = f"{why}, and {self._spec} loaded again is not what it was"

    def _found(self) -> tuple[str, str]:
        """Return the fingerprint of weights, tokenizer and precision, and how the model is asked."""
        return self.model.fingerprint, repr(self.model.asking)


class Session:
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
        team: Team | None = None,
    ) -> None:
        """Take what is compared; nothing is written or asked yet."""
        self.cache, self.methods, self.asked, self.train, self.team = cache, methods, asked, train, team
        self.kept_in = folder
        """Run folder with the finished cells."""
        self.folder = folder if team is None or team.first else None
        """Run folder in the process that writes; None in others."""
        self.wishes, self.repeats, self.drawn, self.generated = wishes, repeats, False, False
        self.drop_refused = drop_refused
        self.data = None if train is None else train.data
        self.cells: list[Cell] = []
        self._mitigated: Model | None = None
        self._said_in_applying: list[str] = []
        """Remarks made while the current method was applied, such as in its training."""
        self._prompts: dict[tuple[str, str, str], str] = {}
        """Digests of what the model was asked for a baseline, by model, row and benchmark."""
        self.resting: Model | None = None
        """The model, until it is asked for the first time."""
        self._contents: dict[str, str] = {}
        """Digest of the items, by benchmark."""
        self.begun = time.monotonic()
        self.manifest: dict[str, Any] = {"usage": [], "applied": [], "unanswered": []}

    def start(self, limit: int | None, seed: int, train: TrainLike | None) -> None:
        """Collect the facts of what is about to be compared; they are written before anything is asked."""
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

    def begin(self) -> None:
        """Write these facts, once, after everything that can be refused."""
        if self.folder and not self.cells:
            _say_what_is_asked_anew(self.folder, self.manifest)
            self.folder.write_manifest(self.manifest)
            self.folder.append_session({"event": "start", **self.manifest})

    def _benchmark_facts(self, benchmark: Benchmark, items: Sequence[Any]) -> dict[str, Any]:
        with suppress(Exception):  # malformed items: their cells fail and say so
            self._contents[benchmark.spec] = contents(items)
        return {**benchmark.facts(), "asked": len(items), "contents": self._contents.get(benchmark.spec, "")}

    def ask(self, base: Base, options: Collection[str] = (), *, last: bool = True) -> None:
        """Ask all benchmarks under all methods on one model, the baseline first.

        Args:
            base: The model.
            options: Names of the options of `load` that were given for this model alone: they override the run's.
            last: Whether no other model follows.

        Raises:
            SettingsError: The run asks for samples or a temperature, and nothing in it would use them.
        """
        tasks, applied = self.planned(base, options, last=last)
        with progress.track(len(tasks), f"comparisons on {base.model.name}", lines_only=True) as step:
            for method in applied:
                self.forget_method()  # one after the other, so that a method's model is freed before the next
                mine = [task for task in tasks if task.cell.method is method]
                for task in mine:
                    self.ask_cell(task, base)
                    step(1)
                    if self.team is not None:
                        self.team.agree(f"{task.cell.label}: {task.cell.status}", task.cell.note)
                self.forget_method()
                self.verify(base, method, [task.cell for task in mine])
        if found := first_look(base.model)[0]:
            self.manifest["models"][base.model.name]["preflight"] = found

    def planned(self, base: Base, options: Collection[str], *, last: bool) -> tuple[list[Task], list[Method]]:
        """Return the tasks of a model, and their methods in the order in which these are applied.

        Args:
            base: The model.
            options: See `ask`.
            last: See `ask`.

        Raises:
            SettingsError: See `ask`.
        """
        self._refuse_outside(base.model)
        plan = Plan(base.model, self.methods, self.asked, without_own(self.wishes, options), self.data)
        self.refuse_idle(plan.draws, plan.generates, last)
        self.begin()
        look_first(base.model, letters=plan.reads_letters, draws=plan.draws)
        self._describe(base.model)
        self.manifest["baselines"][base.model.name] = plan.baselines
        self.resting = base.model
        self.cells += [task.cell for task in plan.tasks]
        return plan.tasks, plan.applied  # not the plan, which has the model, which may have to be loaded again

    def forget_method(self) -> None:
        """Free the model that the last method made; the next cell applies its method anew."""
        self._mitigated = None

    def verify(self, base: Base, method: Method, cells: Sequence[Cell]) -> None:
        """Check that a method left the model as it was: else its cells fail, and the next ones get it loaded again."""
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

    def _refuse_outside(self, model: Model) -> None:
        """Refuse a model that several processes would each ask for everything."""
        if self.team is not None and "weights" not in model.abilities:
            raise SettingsError(
                f"{model.name} does not run in these {self.team.count} processes, so that what it is asked cannot be "
                "split over them: compare it without torchrun or accelerate launch"
            )

    def refuse_idle(self, draws: bool, generates: bool, last: bool) -> None:
        """Refuse wishes that change nothing on any model."""
        self.drawn, self.generated = self.drawn or draws, self.generated or generates
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

    def ask_cell(self, task: Task, base: Base) -> None:
        """Fill a cell; an error there does not affect the others."""
        cell = task.cell
        if base.broken:
            cell.fail(base.broken)
            return
        try:
            self._fill(task, base.model)
        except RunError:
            raise  # the run folder itself is in trouble
        except MissingAbilityError as error:  # found only in asking
            cell.refuse(_said(task, error))
        except (EvenhandError, contracts.NonconformingError) as error:
            cell.fail(_said(task, error))
        except Exception as error:  # an error of a plugin
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
        """Say why the answers may be the baseline's; "" if nothing is known."""
        if cell.is_baseline:
            self._prompts.setdefault((cell.model, cell.row, cell.benchmark.spec), prompts)
            return ""
        known = no_effect.reason(model, mitigated, cell.method, cell.benchmark, cell.answers)
        same = bool(prompts) and prompts == self._prompts.get((cell.model, cell.baseline, cell.benchmark.spec))
        return known or (no_effect.SAME_PROMPTS if same else "")

    def _applied(self, method: Method, model: Model) -> Model:
        """Return the model under a method, which is applied once for all benchmarks."""
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
        """Return answers and their cost, from the run folder if the cell was finished before, else asked now."""
        cell, ids = task.cell, [item.id for item in task.items]
        reading = None if task.reading is None else asdict(task.reading)
        if cell.benchmark.spec not in self._contents:
            self._contents[cell.benchmark.spec] = contents(task.items)  # raises what is wrong with them
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
        stored = self._stored(name, ids, cell.benchmark.answer_type)
        if stored is not None:
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

    def _stored(self, name: str, ids: Sequence[str], answer_type: type) -> FinishedCell | None:
        """Return a cell that was finished before, without gaps; of several processes, all get it or none."""
        stored = self.folder.read_cell(name, ids, answer_type) if self.folder else None
        if stored is not None and any(map(_is_open, stored.answers)):
            stored = None
        if self.team is None or self.kept_in is None or not self.team.first_says(stored is not None):
            return stored
        stored = stored or self.kept_in.read_cell(name, ids, answer_type)
        if stored is None:
            raise RunError(f"this process does not see the answers in {self.kept_in.path}: all need one file system")
        return stored

    @contextmanager
    def _settled(self, asked: Model | None = None) -> Iterator[None]:
        """Hash all weights after the block; if they changed unnoticed, its answers are removed from the cache.

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
    """Return the text of an error, as far as it may be stored."""
    return str(error) if task.cell.benchmark.quotable else Withheld(task.items).error(error, own=True)


def _start(model: Model) -> None:
    """Put a first question to a local model: its first call also imports and probes, which is not a method's cost.

    A server is not asked: `look_first` inspects it before its first request.
    """
    if "weights" not in model.abilities:
        return
    with answer_cache(None), suppress(Exception):  # an error here occurs again where it matters, and is reported there
        if "choose" in model.abilities:
            model.choose([Question("start", "Is this the start?", ("yes", "no"))])
        if "score" in model.abilities:
            model.score([Passage("This is the start.", id="start")])
        if "generate" in model.abilities:
            model.generate([Dialogue(()).user("Is this the start?")], Sampling(max_new_tokens=2))


def _of_server(model: Model, twice: SecondRequests, answers: Sequence[Any], remarks: list[str]) -> dict[str, Any]:
    """Collect the remarks on a cell and on letters of a server, and what second requests for a letter cost."""
    again = second_requests(model).since(twice)
    said = [*remarks, *unread_letters(answers), *([again.line()] if again.items else [])]
    return {"remarks": said, **({"second_requests": again._asdict()} if again.items else {})}


class _Watch:
    """Time that the answers of a cell took, including those from the cache.

    The cache would make a method look faster than the baseline whose first turn it shares, and a resumed run faster
    than an unbroken one. So the seconds that cached answers took when they were computed are added.
    """

    def __init__(self, cache: AnswerCache | None, model: Model) -> None:
        self.cache, self.model = cache, model
        self.begun, self.looked, self.before = time.monotonic(), first_look(model)[1], self._counts()

    def read(self) -> dict[str, Any]:
        """Return seconds of the wall clock, those saved by the cache (None if not all are known), and requests."""
        looked = first_look(self.model)[1] - self.looked  # inspecting the server is not a cost of the answers
        seconds = round(time.monotonic() - self.begun - looked, 4)
        misses, hits, saved, untimed = (a - b for a, b in zip(self._counts(), self.before, strict=True))
        anew = None if self.cache is None else int(misses)
        known = None if untimed else round(saved, 4)
        return {"seconds": seconds, "seconds_saved": known, "asked_anew": anew, "from_cache": int(hits)}

    def _counts(self) -> tuple[float, ...]:
        c = self.cache
        return (0, 0, 0, 0) if c is None else (c.misses, c.hits, c.saved, c.untimed)


def _say_what_is_asked_anew(folder: RunFolder, now: dict[str, Any]) -> None:
    """Warn if a folder has answers that no longer belong to what is asked."""
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
    """An answer that has a status, in a field or a property."""

    @property
    def status(self) -> str:
        """Status, such as "answered"."""


def _is_open(answer: Any) -> bool:
    """Whether an item has no answer; such items are asked again when the run is resumed."""
    if isinstance(answer, Choice | Reply):  # most answers are, and checking a protocol is slow
        return answer.text is None if isinstance(answer, Reply) else answer.status == "unanswered"
    came = not isinstance(answer, _WithStatus) or answer.status != "unanswered"
    return not came or stated(answer).get("text", "") is None


def methods_of(given: MethodLike | Sequence[MethodLike], seeds: int, wordings: Sequence[str]) -> list[Method]:
    """Build the methods, each once, the baseline first; repeated by seed and wording if that was asked for."""
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
    """Build the benchmarks that `compare` would be given, each once; their items are read when first used, then kept.

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
WantedModel = tuple[str | Path | Model, dict[str, Any], set[str]]
"""What to load, with which options, and the names of those that this model alone was given."""


def wanted_models(given: ModelLike | Sequence[ModelLike], options: dict[str, Any]) -> list[Wanted]:
    """Return what to load and how, checked as far as possible without opening weights."""
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


def label_of(wanted: Wanted) -> str:
    """Return the name of a model before it is loaded."""
    spec, options = wanted
    return spec.name if isinstance(spec, Model) else str(options.get("name", spec))


def _refuse_options(options: dict[str, Any]) -> None:
    """Refuse options of `evenhand.load` if nothing is loaded: misspelt ones of `compare`, or ones without effect.

    Raises:
        SettingsError: Always; the message names similar options, or where to give this one.
    """
    name = next(iter(options))
    if name in (*ASKING, *LOADING):
        raise SettingsError(
            f"{name}={options[name]!r}: the models are objects, which are loaded already; give it to evenhand.load or "
            "evenhand.wrap"
        )
    own = [p.name for p in signature(compare).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    raise SettingsError(f"compare: unknown option {name!r}. {suggest(name, own)}")


def own_options(spec: str | Path | Model, options: dict[str, Any], shared: dict[str, Any]) -> set[str]:
    """Return the names of the options that one model was given and the others were not."""
    text = "" if isinstance(spec, Model) else str(spec)
    written = specs.parse(text).settings if text.endswith(")") and not Path(text).exists() else {}
    return {*written, *(k for k, v in options.items() if k not in shared or shared[k] is not v)}


def without_own(wishes: Wishes, options: Collection[str]) -> Wishes:
    """Return the run's wishes, except those that a model's own options override."""
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


def training_of(train: TrainLike | None, asked: Sequence[Asked]) -> Kept | None:
    """Read training data and leave out what is asked, with a warning."""
    if train is None:
        return None
    kept = training_data.without(training_data.load(train), asked)
    if kept.left_out:
        warnings.warn(
            f"left {kept.left_out:,} training items out: they overlap with what is asked, or share a template with it",
            UserWarning,
            stacklevel=3,
        )
    return kept


def items_of(benchmarks: Sequence[Benchmark], limit: int | None, seed: int, *, optional: bool) -> list[Asked]:
    """Return the items of each benchmark; if "all" were asked for, those without data are left out with a warning.

    What a benchmark says about its data is one warning: its notes, how many rows were refused, and the first three.
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
