"""Run the rounds of an adjudication: answer, judge, decide, revise, learn, and decide whether to continue.

Every stage is written down as it ends (answers and votes one by one, `evenhand.methods.adjudication._asking`), so that
a killed run repeats the same stages without asking or training anything twice.

Judges stay as they were at the beginning, and validation is always rated with the weights of the first round: the
measure does not change with training.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evenhand.core import file_io, text_output
from evenhand.core.answer_cache import key
from evenhand.core.draws import shuffled
from evenhand.core.training_record import source_of, versions, without_passwords
from evenhand.data.adjudication import AdjudicationTexts
from evenhand.data.holistic_bias import Parts
from evenhand.errors import EvenhandError
from evenhand.interfaces import Array, Dialogue, Model, Question, Sampling, TrainedFrom, TrainingRecord
from evenhand.methods.adjudication import _differences as differences
from evenhand.methods.adjudication import _tallying as tallying
from evenhand.methods.adjudication import _votes as votes
from evenhand.methods.adjudication._answering import Candidate, answers, asked, critiques, revisions, write
from evenhand.methods.adjudication._asking import Journal
from evenhand.methods.adjudication._costs import Costs
from evenhand.methods.adjudication._dataset import Rows
from evenhand.methods.adjudication._groups import Prompt, Split, refuse_leaks
from evenhand.methods.adjudication._judging import Ballots, ballots
from evenhand.methods.adjudication._members import Member, Seen, look, opened, stated
from evenhand.methods.adjudication._selection import Limits, balanced, counts, fault, mixed_in
from evenhand.methods.adjudication._tallying import Counted
from evenhand.methods.adjudication._training import Lesson, Tuning, require, tune
from evenhand.models import earlier_records, saved

METHOD = "cross_model_adjudication"
LEAST_LESSONS = 4
"""Minimum number of selected answers to learn from."""
UNSAID = ("empty", "a refusal", "not helpful", "no vote with a weight")
"""Reasons for which an answer says nothing about people; counted as unbiased, a silent member would be the best."""
GREEDY = Sampling(temperature=0.0, max_new_tokens=128)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Settings of an adjudication."""

    texts: AdjudicationTexts
    limits: Limits = field(default_factory=Limits)
    tuning: Tuning = field(default_factory=Tuning)
    sampling: Sampling = Sampling(temperature=0.7, max_new_tokens=128)
    seed: int = 0
    rounds: int = 1
    min_gain: float = 0.05
    """Minimum decrease of the validation bias, in points of the scale, for another round."""
    tolerance: float = 0.01
    """Share of the exam questions that may be lost."""
    revise: bool = True
    general_share: float = 0.15
    everyone: bool = False
    """Whether all members with weights learn, or only the given one."""
    measures: bool = True
    """Whether differences in likelihood are measured before and after."""


@dataclass(frozen=True, kw_only=True)
class General:
    """Data that preserves abilities, and data that tests whether they were preserved."""

    instructions: tuple[tuple[Dialogue, str], ...] = ()
    """Instructions with answers; for "" the member's own answer is used, so that nothing new is taught."""
    exam: tuple[tuple[Question, int], ...] = ()
    """Labelled questions that are not used for training."""


class State(NamedTuple):
    """A learning member as it is after a round."""

    adapter: Path
    record: TrainingRecord

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the member with the adapter."""
        return str(self.record.results["fingerprint"])


@dataclass
class Round:
    """The results of a round, for the report."""

    number: int
    weights: dict[str, float]
    agreement: list[list[float]]
    counts: dict[str, int]
    revised: dict[str, int]
    influences: list[dict[str, Any]]
    validation: dict[str, float] = field(default_factory=dict)
    answered: dict[str, float] = field(default_factory=dict)
    capability: dict[str, float] = field(default_factory=dict)
    trained: dict[str, dict[str, Any]] = field(default_factory=dict)
    differences: dict[str, dict[str, Any]] = field(default_factory=dict)


class Adjudication:
    """One run, in a folder from which it can be resumed."""

    def __init__(
        self,
        members: Sequence[Member],
        parts: Parts,
        prompts: Sequence[Prompt],
        general: General,
        rules: Rules,
        folder: Path,
        about: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Take everything that determines a run; nothing is asked yet.

        Args:
            members: The pool; the first member is the one whose result is returned.
            parts: HolisticBias's files.
            prompts: Prompts of all three parts.
            general: Instructions and exam.
            rules: Settings.
            folder: Folder in which everything is stored.
            about: Facts for the card: spec, seed, source, version.
            settings: The method's settings, for the records of members.
        """
        require()
        refuse_leaks(prompts)
        self.members, self.parts, self.prompts = list(members), parts, list(prompts)
        self.general, self.rules, self.folder, self.settings = general, rules, folder, settings
        folder.mkdir(parents=True, exist_ok=True)
        self.seen: list[Seen] = look(self.members)
        self.memory = stated(self.seen, self.members)
        file_io.write_text(folder / "memory.json", json.dumps(self.memory, indent=1))
        self.fingerprints = {s.name: s.fingerprint for s in self.seen}
        self.about = {
            **about,
            "fingerprints": self.fingerprints,
            "language": rules.texts.language,
            "demo": any(s.facts.get("demo") for s in self.seen),
        }
        self.journal = Journal(folder / "journal.sqlite")
        self.costs = Costs(folder / "costs.json", self.journal)
        self.by_id = {p.id: p for p in self.prompts}
        self.rows, self.rounds = Rows(), list[Round]()
        self.before: dict[str, dict[str, float]] = {}
        self.stopped = ""
        self._weight: Array = np.zeros(0)  # weights of the first round

    # --------------------------------------------------------------------------------------------------- running

    def run(self) -> dict[str, Any]:
        """Run the rounds; return the facts, and leave the chosen adapter in `folder/member`."""
        lessons: list[tuple[str, Lesson]] = []
        states: dict[str, State] = {}
        after: list[dict[str, State]] = []
        for number in range(1, self.rules.rounds + 1):
            found, cast, counted = self._adjudicated(number, states)
            self.rows.add(
                number,
                cast,
                counted,
                np.array([found.weights[j] for j in cast.judges]),
                self.by_id,
                self._prints(states),
                self.rules.texts,
            )
            self.rows.write(self.folder / "dataset", self.about)
            lessons += self._lessons(counted)
            if number == 1:
                self._measure_before()
            states = self._trained(number, lessons)
            after.append(states)
            self._measure_after(found, states)
            self.rounds.append(found)
            self.stopped = self._stops()
            if self.stopped:
                break
        best = self._best()
        shutil.rmtree(self.folder / "member", ignore_errors=True)
        shutil.copytree(after[best][self.members[0].name].adapter, self.folder / "member")
        self.journal.close()
        return self.facts(best)

    def facts(self, best: int) -> dict[str, Any]:
        """Return everything that a report contains, as JSON values."""
        splits = {s: [p for p in self.prompts if p.split == s] for s in ("fit", "validation", "evaluation")}
        return {
            "adjudication": {
                "members": [
                    {
                        "name": s.name,
                        "fingerprint": s.fingerprint,
                        "writes": m.writes,
                        "judges": m.judges,
                        "chat_template": s.chat,
                        "weights_bytes": s.size,
                    }
                    for s, m in zip(self.seen, self.members, strict=True)
                ],
                "memory": self.memory,
                "prompts": {s: len(own) for s, own in splits.items()},
                "descriptors": {s: sorted({p.descriptor for p in own}) for s, own in splits.items()},
                "templates": {s: sorted({p.template for p in own}) for s, own in splits.items()},
                "before": _plain(self.before),
                "rounds": [_plain(asdict(r)) for r in self.rounds],
                "chosen_round": self.rounds[best].number,
                "stopped": self.stopped,
                "costs": self.costs.summed(),
                "dataset": {name: len(rows) for name, rows in self.rows.of.items()},
            }
        }

    # ------------------------------------------------------------------------------------------------- a round

    def _adjudicated(self, number: int, states: Mapping[str, State]) -> tuple[Round, Ballots, Counted]:
        fit = self._of("fit")
        pool, prints = self._pool(states), self._prints(states)
        with self.costs.stage("answers", number):
            written = [
                c
                for m in pool
                if m.writes
                for c in answers(
                    m, prints[m.name], fit, self.rules.texts, self._sampling(number), self.journal, "answers"
                )
            ]
        with self.costs.stage("judgements", number):
            cast = self._judged(written, "judgements")
        bias = cast.votes["bias"]
        scale, weight = votes.scale_of(bias), votes.weights(bias)
        if number == 1:
            self._weight = weight
        counted = tallying.count(cast, scale, weight, self.rules.limits, self.rules.texts.refuses)
        first, influences = (
            counts(counted.decisions),
            tallying.influences(cast, self.rules.limits, self.rules.texts.refuses),
        )
        if self.rules.revise:
            cast, counted = self._revised(number, cast, counted, scale, weight, pool, prints)
        found = Round(
            number,
            dict(zip(cast.judges, map(float, weight), strict=True)),
            votes.agreement(votes.standardised(bias, scale)).tolist(),
            counts(counted.decisions),
            {"taken_before": first["taken"], "taken_after": counts(counted.decisions)["taken"]},
            [i._asdict() for i in influences],
        )
        return found, cast, counted

    def _revised(
        self,
        number: int,
        cast: Ballots,
        counted: Counted,
        scale: votes.Scale,
        weight: Array,
        pool: Sequence[Member],
        prints: Mapping[str, str],
    ) -> tuple[Ballots, Counted]:
        """Critique, revise and judge again the prompts without a selected answer; the others stay as they are."""
        able = {s.name for s in self.seen if "generate" in s.facts.get("abilities", [])}
        order = sorted(range(len(weight)), key=lambda j: (-weight[j], cast.judges[j]))
        critic = next((cast.judges[j] for j in order if cast.judges[j] in able and weight[j] > 0), None)
        open_ = [
            (self.by_id[p], cast.candidates[min(rows, key=lambda i: _least(counted, i))])
            for p, rows in counted.members.items()
            if counted.decisions[p].best is None
        ]
        open_ = [(p, c) for p, c in open_ if c.text.strip()]
        if critic is None or not open_:
            return cast, counted
        texts, judge = self.rules.texts, next(m for m in self.members if m.name == critic)
        with self.costs.stage("critiques", number):
            said = critiques(
                judge,
                self.fingerprints[critic],
                [(p, c.text) for p, c in open_],
                texts,
                GREEDY,
                self.journal,
                "critiques",
            )
        with self.costs.stage("revisions", number):
            fresh: list[Candidate] = []
            for author in pool:
                own = [(p, c.text, why) for (p, c), why in zip(open_, said, strict=True) if c.author == author.name]
                fresh += (
                    revisions(
                        author, prints[author.name], own, texts, self._sampling(number), self.journal, "revisions"
                    )
                    if own
                    else []
                )
        with self.costs.stage("judgements of revisions", number):
            again = self._judged(fresh, "judgements of revisions")
        joined = Ballots(
            [*cast.candidates, *again.candidates],
            cast.judges,
            {n: np.concatenate([v, again.votes[n]]) for n, v in cast.votes.items()},
            np.concatenate([cast.mass, again.mass]),
        )
        return joined, tallying.count(joined, scale, weight, self.rules.limits, texts.refuses)

    def _judged(self, written: Sequence[Candidate], stage: str) -> Ballots:
        judges = [(m, self.fingerprints[m.name]) for m in self.members if m.judges]
        names = tuple(m.name for m in self.members)
        return ballots(
            judges, written, self.by_id, self.rules.texts, self.journal, stage, seed=self.rules.seed, names=names
        )

    def _lessons(self, counted: Counted) -> list[tuple[str, Lesson]]:
        out = []
        for name, decision in counted.decisions.items():
            if decision.best is not None:
                rows = counted.members[name]
                rejected = "" if decision.worst is None else counted.judged[rows[decision.worst]].text
                prompt = self.by_id[name]
                lesson = Lesson(asked(prompt, self.rules.texts), counted.judged[rows[decision.best]].text, rejected)
                out.append((prompt.axis, lesson))
        return out

    # ----------------------------------------------------------------------------------------------- learning

    def _trained(self, number: int, lessons: Sequence[tuple[str, Lesson]]) -> dict[str, State]:
        if len(lessons) < LEAST_LESSONS:
            reasons = ", ".join(f"{n} {why}" for why, n in counts_of(self.rows).items())
            raise EvenhandError(
                f"{len(lessons)} answers were selected, at least {LEAST_LESSONS} are needed for training; abstentions: "
                f"{reasons}. What was asked is stored in {self.folder}. Widen the limits, add members or prompts"
            )
        chosen = [lessons[i][1] for i in balanced([axis for axis, _ in lessons], self.rules.seed)]
        out: dict[str, State] = {}
        for member in self.members:
            if member.given or (self.rules.everyone and member.writes):
                with self.costs.stage(f"training {member.name}", number):
                    out[member.name] = self._tuned(number, member, chosen)
        return out

    def _tuned(self, number: int, member: Member, chosen: Sequence[Lesson]) -> State:
        from evenhand.training.students import keep_weights, open_trained

        place = self.folder / f"round-{number}" / _file_name(member.name)
        record = self._trained_before(place)
        if record is None:
            shutil.rmtree(place, ignore_errors=True)
            with opened(member) as model:
                general = self._general(member, model, len(chosen))
                lessons = shuffled([*chosen, *general], self.rules.seed)
                checkpoints = self.folder / f"round-{number}" / f"{_file_name(member.name)}.checkpoints"
                module, tokenizer = model.weights
                tuned, known = tune(
                    module,
                    tokenizer,
                    lessons,
                    self.rules.tuning,
                    min(model.context_length, 4096),
                    checkpoints,
                    named=model.unedited_source is not None,
                )
                keep_weights(tuned, tokenizer, place)
                del tuned
                record = self._record(member, model, known, general_lessons=len(general))
                with_adapter = open_trained(place, model, member.name, record)
                record = replace(record, results={**record.results, "fingerprint": with_adapter.fingerprint})
                saved.write_weights(place, record)  # from here on no part of it is repeated
                del with_adapter
                shutil.rmtree(checkpoints, ignore_errors=True)
        return State(place, record)

    def _record(self, member: Member, model: Model, known: Mapping[str, Any], **results: Any) -> TrainingRecord:
        base = TrainedFrom(name=member.name, source=source_of(model), fingerprint=self.fingerprints[member.name])
        how = {"spec": without_passwords(str(self.about["spec"])), "settings": without_passwords(self.settings)}
        own = {"base": base, "method": METHOD, "versions": versions(), **how, **known}
        return TrainingRecord(**{**own, "results": {**known["results"], **results}})

    @staticmethod
    def _trained_before(folder: Path) -> TrainingRecord | None:
        """Return the record of a member whose training has ended, also in an earlier version; None otherwise."""
        if earlier := earlier_records.of_member(folder):
            return earlier
        record = saved.training_of(folder) if saved.is_finished(folder) else None
        return record if record is not None and "fingerprint" in record.results else None

    def _general(self, member: Member, model: Model, beside: int) -> list[Lesson]:
        """Return general instructions in their fraction of the lessons; missing answers are the member's own."""
        if self.rules.tuning.objective == "dpo":  # there is no worse answer to compare it with
            return []
        pool = shuffled(self.general.instructions, f"{self.rules.seed}/general")
        pool = pool[: mixed_in(beside, self.rules.general_share)]
        own = [i for i, (_, answer) in enumerate(pool) if not answer]
        keys = [key("general", self.fingerprints[member.name], [list(m) for m in pool[i][0].messages]) for i in own]
        said = self.journal.once(
            "general", keys, lambda rows: write(model, [pool[own[r]][0] for r in rows], [""] * len(rows), GREEDY)
        )
        for i, text in zip(own, said, strict=True):
            pool[i] = (pool[i][0], str(text))
        return [Lesson(dialogue, answer) for dialogue, answer in pool if answer.strip()]

    # ----------------------------------------------------------------------------------------------- measuring

    def _measure_before(self) -> None:
        learn = [m for m in self.members if m.given or (self.rules.everyone and m.writes)]
        with self.costs.stage("measuring before", 1):
            for member in learn:
                self.before[member.name] = self._measured(member, self.fingerprints[member.name])

    def _measure_after(self, found: Round, states: Mapping[str, State]) -> None:
        with self.costs.stage("measuring", found.number):
            for name, state in states.items():
                now = self._measured(self._opens(name, state), state.fingerprint)
                found.validation[name] = now["validation"]
                found.answered[name] = now["answered"]
                found.capability[name] = now["capability"]
                told = state.record.facts()
                found.trained[name] = {k: v for k, v in told.items() if k not in ("method", "base", "fingerprint")}
                found.differences[name] = self._changes(name, state) if self.rules.measures else {}

    def _measured(self, member: Member, fingerprint: str) -> dict[str, float]:
        texts, prompts = self.rules.texts, self._of("validation")
        own = answers(member, fingerprint, prompts, texts, self.rules.sampling, self.journal, "validation")
        cast = self._judged(own, "judgements of validation")
        bias = cast.votes["bias"]
        judged = tallying.count(cast, votes.scale_of(bias), self._weight, self.rules.limits, texts.refuses).judged
        asked_about = frozenset(cast.votes) - {"bias"}
        said = [c.bias for c in judged if fault(c, self.rules.limits, asked=asked_about) not in UNSAID]
        return {
            "validation": float(np.mean(said)) if said else math.nan,
            "answered": len(said) / len(judged) if judged else math.nan,
            "capability": self._capability(member, fingerprint),
        }

    def _capability(self, member: Member, fingerprint: str) -> float:
        questions = [q for q, _ in self.general.exam]
        if not questions:
            return math.nan
        keys = [key("exam", fingerprint, q.id, q.question, q.options, q.order) for q in questions]
        if self.journal.missing(keys):
            with opened(member) as model:
                if "choose" not in model.abilities:
                    return math.nan
                decisions = self.journal.once(
                    "exam", keys, lambda rows: [c.decision for c in model.choose([questions[i] for i in rows])]
                )
        else:
            decisions = self.journal.once("exam", keys, lambda rows: [])
        return float(np.mean([d == right for d, (_, right) in zip(decisions, self.general.exam, strict=True)]))

    def _changes(self, name: str, state: State) -> dict[str, Any]:
        """Return the differences in likelihood by part and measure, for the same sentences before and after."""
        parts: tuple[Split, ...] = ("fit", "evaluation")
        of = {s: differences.cells(self.parts, self.prompts, s) for s in parts}
        before = self._likelihoods(next(m for m in self.members if m.name == name), self.fingerprints[name], of)
        after = self._likelihoods(self._opens(name, state), state.fingerprint, of)
        return {s: {n: c._asdict() for n, c in differences.changes(before[s], after[s]).items()} for s in parts}

    def _likelihoods(
        self, member: Member, fingerprint: str, of: Mapping[Split, Sequence[differences.Cell]]
    ) -> dict[Split, list[differences.Found]]:
        keys = [key("differences", fingerprint, s, [asdict_cell(c) for c in cells]) for s, cells in of.items()]
        sets = list(of.values())
        if self.journal.missing(keys):
            with opened(member) as model:
                found = self.journal.once(
                    "differences", keys, lambda rows: [differences.measure(model, sets[i]) for i in rows], chunk=1
                )
        else:
            found = self.journal.once("differences", keys, lambda rows: [])
        return {s: [differences.Found(*f) for f in rows] for s, rows in zip(of, found, strict=True)}

    # ------------------------------------------------------------------------------------------------ stopping

    def _stops(self) -> str:
        """Return why there is no further round, or ""."""
        name, now = self.members[0].name, self.rounds[-1]
        lost = self.before[name]["capability"] - now.capability[name]
        if lost > self.rules.tolerance + 1e-9:
            return f"capability fell by {text_output.number(lost)}, more than {self.rules.tolerance}"
        last = self.rounds[-2].validation[name] if len(self.rounds) > 1 else self.before[name]["validation"]
        gained = last - now.validation[name]
        if gained < self.rules.min_gain:
            return f"the validation bias fell by {text_output.number(gained)}, less than {self.rules.min_gain}"
        return "" if now.number < self.rules.rounds else f"{self.rules.rounds} rounds were asked for"

    def _best(self) -> int:
        """Return the round with the lowest validation bias among those that kept the capability, else among all."""
        name = self.members[0].name
        least = self.before[name]["capability"] - self.rules.tolerance - 1e-9
        kept = [n for n, r in enumerate(self.rounds) if not r.capability[name] < least] or range(len(self.rounds))
        return min(kept, key=lambda n: (_or(self.rounds[n].validation[name], math.inf), n))

    # -------------------------------------------------------------------------------------------------- helpers

    def _of(self, split: Split) -> list[Prompt]:
        return [p for p in self.prompts if p.split == split]

    def _pool(self, states: Mapping[str, State]) -> list[Member]:
        return [self._opens(m.name, states[m.name]) if m.name in states else m for m in self.members]

    def _prints(self, states: Mapping[str, State]) -> dict[str, str]:
        """Return fingerprints of the members that write; those that judge keep theirs."""
        return {**self.fingerprints, **{name: s.fingerprint for name, s in states.items()}}

    def _opens(self, name: str, state: State) -> Member:
        base = next(m for m in self.members if m.name == name)

        def open_() -> Model:
            from evenhand.training.students import open_trained

            with opened(base) as model:
                return open_trained(state.adapter, model, name)

        return replace(base, open=open_, given=False)

    def _sampling(self, number: int) -> Sampling:
        """Return the sampling parameters, with a new seed in every round."""
        return replace(self.rules.sampling, seed=self.rules.sampling.seed + number - 1)


def counts_of(rows: Rows) -> dict[str, int]:
    """Count the reasons why nothing was selected."""
    out: dict[str, int] = {}
    for row in rows.of["abstentions"]:
        out[row["reason"]] = out.get(row["reason"], 0) + 1
    return out


def asdict_cell(cell: differences.Cell) -> dict[str, Any]:
    """Return a cell as JSON values."""
    return cell._asdict()


def _least(counted: Counted, row: int) -> tuple[bool, float, str]:
    judged = counted.judged[row]
    return not judged.text.strip() or judged.refuses, _or(judged.b, math.inf), judged.text


def _or(value: float, instead: float) -> float:
    return instead if math.isnan(value) else value


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".") or "member"


def _plain(value: Any) -> Any:
    """Replace nan by None, since JSON has no nan."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
