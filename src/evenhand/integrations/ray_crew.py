"""The cells of a comparison on a Ray cluster: `evenhand compare run.yaml --on ray`.

One actor per worker has one model and asks one cell at a time (`evenhand.experiment.cell_worker`); this process keeps
the board (`evenhand.experiment.cell_board`) and alone writes to the run folder. Ray itself restarts an actor that died,
on another host if its own is gone, and repeats the cell that it was asking (`max_restarts` and `max_task_retries`; see
docs.ray.io, "Actor Fault Tolerance"). This process owns all objects, so that none is lost with a worker.

Ray sends Python objects between its own processes by pickle: whoever can reach the cluster can run code on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evenhand.core.answer_salvage import Row
from evenhand.errors import EvenhandError, SettingsError
from evenhand.experiment.cell_board import CellBoard, CellPlace
from evenhand.experiment.cell_worker import CellWorker, Outcome, Planned, Refusal
from evenhand.experiment.comparison import Named, Session, WantedModel
from evenhand.experiment.estimates import GIB
from evenhand.experiment.forecast import ModelForecast, model_forecasts

INSTALL = "pip install 'evenhand[ray]'"
ADDRESS = "RAY_ADDRESS"
RETRIES = 5
"""How often a cell is asked again after its worker has died; then it fails, and the others continue."""
PASSED_ON = ("EVENHAND_DATA", "EVENHAND_MODELS", "HF_HUB_OFFLINE", "HF_HOME", "OMP_NUM_THREADS")
"""Environment variables that workers of a cluster are given; keys and tokens are not among them."""


class RayCrew:
    """Asks the cells of a comparison on Ray; give it to `evenhand.compare` as `crew`."""

    def __init__(
        self,
        workers: int | None = None,
        plugins: Sequence[str] = (),
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Check that Ray is installed; nothing is started yet.

        Args:
            workers: How many cells are asked at once; None is one per GPU, or without GPUs one per processor.
            plugins: Python files with methods or benchmarks, which every host must have at the same place.
            say: Called with a line on what each worker will request.

        Raises:
            SettingsError: Ray is not installed.
        """
        try:
            import ray
        except ImportError as error:
            raise SettingsError(f"--on ray needs Ray, which is not installed: {INSTALL}") from error
        self._ray: Any = ray
        self._workers, self._plugins, self._say = workers, [os.path.abspath(p) for p in plugins], say

    def ask(self, session: Session, wanted: Sequence[WantedModel], named: Named | None) -> None:
        """Fill the session's cells; see `evenhand.experiment.comparison.Crew`.

        Raises:
            SettingsError: The cluster does not have what a model needs, or a model is an object.
            RunError: A worker or the run folder failed.
        """
        forecasts = model_forecasts(wanted, session.methods, session.asked, session.wishes, session.data)
        board = CellBoard(session, wanted, named, forecasts)
        started = self._start()
        try:
            crew = self._crew(board, forecasts)
            crew.work()
        finally:
            board.close()
            if started:
                self._ray.shutdown()

    def _start(self) -> bool:
        """Connect to the cluster of RAY_ADDRESS, or start one on this machine.

        Returns:
            Whether it connected: if the caller is connected to a cluster already, that one is used and stays connected.
        """
        if self._ray.is_initialized():
            return False
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send usage reports to its makers
        address = os.environ.get(ADDRESS)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": True}
        if address:
            variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
            self._ray.init(address=address, runtime_env={"env_vars": variables}, **quiet)
        else:
            processors = max(os.cpu_count() or 1, self._workers or 1)
            self._ray.init(address="local", num_cpus=processors, include_dashboard=False, **quiet)
        return True

    def _crew(self, board: CellBoard, forecasts: Sequence[ModelForecast]) -> _Crew:
        there: dict[str, float] = self._ray.cluster_resources()
        gpus, processors = int(there.get("GPU", 0)), int(there.get("CPU", 1))
        workers = self._workers or gpus or processors
        hosts = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        needs = [_requested(model, hosts, workers) for model in forecasts]
        for model, need in zip(forecasts, needs, strict=True):
            self._say(f"{model.name}: {_told(model, need)}")
            _refuse_missing(model.name, need, hosts)
        expected = [len(model.cells) for model in forecasts]
        return _Crew(self._ray, board, needs, expected, workers, self._plugins)


def _requested(model: ModelForecast, hosts: Sequence[Mapping[str, float]], workers: int) -> dict[str, float]:
    """Return what one worker of a model requests from the cluster, as options of an actor.

    Args:
        model: Forecast of the model.
        hosts: Resources of each host of the cluster.
        workers: Number of workers.
    """
    on_gpu = any(host.get("GPU", 0) >= 1 for host in hosts) and not model.sketched.on_cpu
    memory = {} if model.memory is None or on_gpu else {"memory": int(model.memory)}
    need = {"num_gpus": 1 if on_gpu else 0, **memory}
    threads = max(1, int(sum(host.get("CPU", 0) for host in hosts)) // workers)
    # Ray waits without end for a host that has a worker's share, which may be more than any host has
    there = max(sum(_fitting(need, host, 1) for host in hosts), 1)
    while threads > 1 and sum(_fitting(need, host, threads) for host in hosts) < min(workers, there):
        threads -= 1
    return {"num_cpus": threads, **need}


def _fitting(need: Mapping[str, float], host: Mapping[str, float], threads: int) -> int:
    """Return how many workers with a number of threads fit on a host at once."""
    wanted = {"CPU": threads, "GPU": need["num_gpus"], "memory": need.get("memory", 0)}
    return int(min(host.get(name, 0) // amount for name, amount in wanted.items() if amount))


def _told(model: ModelForecast, need: Mapping[str, float]) -> str:
    memory = "memory not known" if model.memory is None else f"{model.memory / GIB:.1f} GiB by its size"
    cells = sum(not cell.refused for cell in model.cells)
    return f"{cells} cells; each worker requests {need['num_cpus']:g} processors, {need['num_gpus']:g} GPUs; {memory}"


def _refuse_missing(name: str, need: Mapping[str, float], hosts: Sequence[Mapping[str, float]]) -> None:
    """Refuse what no host has; Ray would wait for it without end."""
    wanted = [("num_cpus", "CPU"), ("num_gpus", "GPU"), ("memory", "memory")]
    for option, resource in wanted:
        most = max((host.get(resource, 0) for host in hosts), default=0)
        if need.get(option, 0) > most:
            raise SettingsError(
                f"{name} needs {need[option]:,.0f} of {resource} per worker, and no host of the cluster has more than "
                f"{most:,.0f}: add a larger host, or take a smaller dtype"
            )
    if not any(all(need.get(option, 0) <= host.get(resource, 0) for option, resource in wanted) for host in hosts):
        raise SettingsError(f"{name}: no host of the cluster has all that a worker needs at once: {_listed(need)}")


def _listed(need: Mapping[str, float]) -> str:
    return ", ".join(f"{option}={amount:,.0f}" for option, amount in need.items())


class RemoteWorker:
    """A `CellWorker` as an actor; after a restart it begins again, as every call brings all that it needs."""

    def __init__(self, plugins: Sequence[str]) -> None:
        """Start with nothing.

        Args:
            plugins: See `CellWorker`.
        """
        self._worker = CellWorker(plugins)
        self._taken, self._trained = 0, set[str]()

    def begin(self, job: list[Any], number: int) -> Planned | Refusal:
        """See `CellWorker.begin`; the job is passed as a reference in a list, so that it is fetched once."""
        import ray

        return self._worker.begin(ray.get(job[0]), number)

    def ask(
        self,
        job: list[Any],
        place: CellPlace,
        files: Mapping[str, bytes],
        lots: Sequence[Any],
        trained: Mapping[str, Any],
    ) -> Outcome | Refusal:
        """See `CellWorker.ask`; lots and artefacts are references, all of them each time."""
        import ray

        begun = self.begin(job, place.model)
        if isinstance(begun, Refusal):
            return begun
        new: list[list[Row]] = ray.get(list(lots[self._taken :]))
        packed = {key: ray.get(at) for key, at in trained.items() if key not in self._trained}
        try:
            found = self._worker.ask(place.cell, files, new, packed)
        except EvenhandError as error:
            return Refusal(type(error).__name__, str(error))
        self._taken = len(lots)
        self._trained |= {*packed, *found.artefacts}
        return found


@dataclass
class _Member:
    """A worker: an actor with one model."""

    actor: Any
    model: int
    at: int | None = None
    """The cell that it is asking, or asked last."""


@dataclass
class _Crew:
    """All workers of a run."""

    ray: Any
    board: CellBoard
    needs: Sequence[Mapping[str, float]]
    expected: Sequence[int]
    """Number of cells of each model, used until a worker has planned them."""
    workers: int
    plugins: Sequence[str]
    members: list[_Member] = field(default_factory=list)
    waiting: dict[Any, tuple[_Member, CellPlace | None]] = field(default_factory=dict)
    """Calls that have not returned, by reference: the worker, and the cell; None is a call of `begin`."""
    lots: dict[int, list[Any]] = field(default_factory=dict)
    """References to answers, by model."""
    trained: dict[int, dict[str, Any]] = field(default_factory=dict)
    """References to artefacts, by model."""

    def work(self) -> None:
        """Ask all cells."""
        self.job = self.ray.put(self.board.job)
        before = self.board.rows()
        first = [self.ray.put(before)] if before else []
        kept = {key: self.ray.put(self.board.packed(key)) for key in self.board.trained()}
        self.lots = {n: list(first) for n in range(len(self.needs))}
        self.trained = {n: dict(kept) for n in range(len(self.needs))}
        try:
            while self.board.unplanned or self.board.left:
                self._employ()
                ready, _ = self.ray.wait(list(self.waiting), num_returns=1)
                for reference in ready:
                    self._take(reference)
        finally:
            for member in self.members:
                self.ray.kill(member.actor)

    def _employ(self) -> None:
        """Give every idle worker a cell; workers whose model has none left make room for others."""
        busy = {id(member) for member, _ in self.waiting.values()}
        for member in [m for m in self.members if id(m) not in busy and m.model not in self.board.unplanned]:
            cell = self.board.take(member.model, member.at)
            if cell is not None:
                self._ask(member, CellPlace(member.model, cell))
            elif not self.board.pending(member.model):
                self.ray.kill(member.actor)
                self.members.remove(member)
        while len(self.members) < self.workers:
            model = self._most_wanted()
            if model is None:
                return
            options = {**self.needs[model], "max_restarts": -1, "max_task_retries": RETRIES}
            actor = self.ray.remote(RemoteWorker).options(**options).remote(self.plugins)
            member = _Member(actor, model)
            self.members.append(member)
            self.waiting[actor.begin.remote([self.job], model)] = (member, None)

    def _most_wanted(self) -> int | None:
        """Return the model for which another worker helps most; None if none has anything to do."""
        members = [member.model for member in self.members]
        fresh = [n for n in self.board.unplanned if n not in members]
        if fresh:
            return fresh[0]
        unknown = self.board.unplanned
        cells = [many if n in unknown else self.board.pending(n) for n, many in enumerate(self.expected)]
        best = max(range(len(cells)), key=lambda n: cells[n] / (members.count(n) + 1))
        return best if cells[best] > members.count(best) else None

    def _ask(self, member: _Member, place: CellPlace) -> None:
        member.at = place.cell
        trained = self.trained[place.model] if self.board.needs_trained(place) else {}
        called = member.actor.ask.remote([self.job], place, self.board.files(place), self.lots[place.model], trained)
        self.waiting[called] = (member, place)

    def _take(self, reference: Any) -> None:
        member, place = self.waiting.pop(reference)
        try:
            found = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError:
            raise  # an error that another worker would raise as well
        except self.ray.exceptions.RayError as error:  # the actor, its host or its memory
            why = f"its worker died {RETRIES + 1} times: {str(error).splitlines()[0]}"
            if place is None:
                raise EvenhandError(f"a model cannot be loaded, {why}") from error
            self.board.lost(place, f"not finished: {why}; run the same command to ask it again")
            return
        if place is None:
            self.board.planned(member.model, found)
            return
        self.board.done(place, found)
        if found.rows:
            self.lots[place.model].append(self.ray.put(found.rows))
        for key, packed in found.artefacts.items():
            self.trained[place.model][key] = self.ray.put(packed)
