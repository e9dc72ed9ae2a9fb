"""Partitioned contrastive gradient unlearning: the update loop, on one process or on many.

Yu et al. 2023, "Unlearning Bias in Language Models by Partitioning Gradients" (Findings of ACL 2023): in every batch of
pairs the gradients of the advantaged and of the disadvantaged text are compared vector by vector, and only the vectors
whose gradients are least alike take a step of plain gradient descent. There is no optimizer and so no state except the
weights: a killed run resumes from the last epoch's edit, and repeats at most one epoch.

Plain gradient descent can diverge. Weights, gradients and scores are checked in every epoch, and one that ends with
any non-finite value is discarded: the edit is chosen among the epochs before it, and `halted` says why. The
masters are float32, so the edit is also tested in the precision of the model that it is for, with a few texts.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from evenhand.core import file_io
from evenhand.core.draws import shuffled
from evenhand.core.progress import track
from evenhand.errors import DivergedError, SettingsError
from evenhand.methods.unlearning._pairs import Side, TokenPair
from evenhand.methods.unlearning._pcgu import delta as deltas
from evenhand.methods.unlearning._pcgu.delta import Delta
from evenhand.methods.unlearning._pcgu.fsdp import World, local, whole
from evenhand.methods.unlearning._pcgu.gradients import (
    Reduction,
    Scoring,
    mean_scores,
    of_divergence,
    of_scores,
    scores,
    spread,
)
from evenhand.methods.unlearning._pcgu.partition import Part, Partition
from evenhand.methods.unlearning._pcgu.selection import (
    Diagnosis,
    ZeroRows,
    drawn,
    lowest,
    similarities,
    wanted,
)
from evenhand.training.checkpoint_folders import CheckpointFolders
from evenhand.training.finite import Ids, count_broken, told

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Direction = Literal["decrease_advantaged", "increase_disadvantaged", "both"]
Select = Literal["lowest", "random"]
Grads = dict[str, Tensor]
CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model is edited."""

    epochs: int
    learning_rate: float
    batch: int
    """Number of pairs per step."""
    micro: int
    """Number of texts that go through the module at once, on each rank."""
    share: float = 0.3
    """Fraction of the vectors that are edited in a step."""
    k: int | None = None
    """Number of vectors, instead of `share`."""
    select: Select = "lowest"
    zero_rows: ZeroRows = "masked"
    direction: Direction = "decrease_advantaged"
    reduction: Reduction = "mean"
    gate: bool = False
    """Whether a batch leaves out pairs whose advantaged text is not (or no longer) the more probable one."""
    retain: float = 0.0
    """Weight of the divergence from the unedited model."""
    retain_batch: int = 16
    """Number of texts per step for that divergence."""
    seed: int = 0
    pool: int = 16
    """Number of texts whose tokens are averaged together with reduction="pooled"."""
    eps: float = 0.0
    """Minimum norm of a gradient in a cosine."""
    shuffle: bool = True
    """Whether the pairs are shuffled in every epoch."""
    drop_last: bool = False
    """Whether the last pairs of an epoch are left out if they do not fill a batch (`fills`)."""

    def fills(self, count: int) -> bool:
        """Whether that many pairs form a batch.

        With `drop_last` only those are that the released loop counts as one: it adds the size of a group of `pool`
        pairs for every group, even where the last one has fewer.
        """
        return count > 0 and (not self.drop_last or -(-count // self.pool) * self.pool >= self.batch)


NEW = {"pool": 16, "eps": 0.0, "shuffle": True, "drop_last": False}
"""Fields of `Plan` that checkpoints of earlier versions lack, with the values that applied then."""


@dataclass(kw_only=True)
class Unlearning:
    """Everything needed for an edit, which `run` makes."""

    module: PreTrainedModel
    """Masters in float32, whole or sharded over `world`; edited in place."""
    base: PreTrainedModel
    """The unedited model, whole, in its own precision; not changed."""
    parts: Partition
    pairs: Sequence[TokenPair]
    held_out: Sequence[TokenPair] = ()
    """Pairs whose mean log-odds choose the epoch that is kept: the one where they are nearest to zero before changing
    sign. Without pairs, the last."""
    retained: Sequence[Side] = ()
    """Texts, and positions in them, for `Plan.retain`."""
    tried: Sequence[Ids] = ()
    """Tokenised texts for which each epoch's edit has to give finite logits, in addition to those of the first
    `Plan.micro` pairs."""
    how: Scoring
    plan: Plan
    world: World
    folder: Path | None = None
    """Folder for each epoch's edit, from which a killed run resumes; None stores none."""

    def __post_init__(self) -> None:
        """Initialise the state of a run that has not begun."""
        self.curve: list[dict[str, float]] = []
        self.seen = Diagnosis(self.parts)
        self.halted = ""
        """Why the run ended before its last epoch, if it diverged."""
        self._folders = CheckpointFolders(self.folder)
        self._parameters = dict(self.module.named_parameters())
        self._base = dict(self.base.named_parameters())

    # ------------------------------------------------------------------------------------------------ the run

    def run(self) -> Delta | None:
        """Edit the module, and return the edit; None on ranks other than the main one.

        The module is left with the last epoch's weights, which need not be the edit's. If the run diverges, the edit
        is that of an earlier epoch; `halted` says so, and the caller has to report it.

        Raises:
            DivergedError: Weights, gradients or scores are no longer finite, and no epoch was finished before.
            SettingsError: The folder contains another run.
        """
        self.module.eval()  # dropout would make two gradients differ where nothing else does
        if len(self.pairs) < 1 or (self.plan.retain and not self.retained):
            raise SettingsError(f"{len(self.pairs)} pairs, {len(self.retained)} texts to retain: pass some of each")
        best = self._resume()
        start = self.gap() if self.held_out and not self.curve else None
        if start is not None:
            self.curve.append({"epoch": 0.0, "gap": start})
            best = self._kept(best, self.delta())
        with track(self.plan.epochs, "pcgu") as done:
            done(self._done)
            while not (self.halted or self._finished()):
                try:
                    row, now = self._advanced()
                except DivergedError as error:
                    self._halt(error)
                    break
                self.curve.append(row)
                best = self._kept(best, now)
                done(1)
        return best

    def _advanced(self) -> tuple[dict[str, float], Delta | None]:
        """Run one epoch; return its row of the curve, and the edit on the main rank.

        Raises:
            DivergedError: The epoch left weights or scores that are not finite.
        """
        seen = copy.deepcopy(self.seen.state())
        try:
            row = {"epoch": float(self._done + 1), "advantaged": self._epoch(self._done)}
            self._settle()
            self._refuse_broken_weights()
            if self.held_out:
                row |= {"gap": self.gap()}
            else:
                self._scored(self.pairs[: self.plan.micro], self.how)
            now = self.delta()
            self._refuse_broken_logits(now)
            return row, now
        except DivergedError:
            self.seen.restore(seen)  # what it has chosen is not part of the edit
            raise

    def _halt(self, error: DivergedError) -> None:
        """Keep what was reached before the epoch that diverged, and record why.

        Raises:
            DivergedError: There is nothing to keep.
        """
        why = f"{error} in epoch {self._done + 1} at learning_rate={self.plan.learning_rate:g}"
        if not self._done:
            raise DivergedError(f"pcgu diverged: {why}, before any epoch was finished; set a lower learning_rate")
        self.halted = f"diverged: {why}; the edit is of epoch {self.best}"

    @property
    def _done(self) -> int:
        """Number of finished epochs."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0

    @property
    def best(self) -> int:
        """The epoch whose edit was kept; 0 is the unedited model.

        An epoch that has pushed the held-out pairs to the other side has gone too far, however close to zero it ends.
        """
        if not self.held_out:
            return self._done
        before = [row for row in self.curve if row["gap"] * self.curve[0]["gap"] >= 0]
        return int(min(before, key=lambda row: abs(row["gap"]))["epoch"])

    def _finished(self) -> bool:
        """Whether the last epoch is done, or the held-out pairs have changed sign, after which it only gets worse."""
        if self._done >= self.plan.epochs:
            return True
        gaps = [row["gap"] for row in self.curve if "gap" in row]
        return len(gaps) > 1 and gaps[0] * gaps[-1] <= 0

    def gap(self) -> float:
        """Return the mean log-odds of the advantaged text over the held-out pairs, in nats."""
        return self._scored(self.held_out, Scoring(**{**asdict(self.how), "measure": "logprob"}))

    def _scored(self, some: Sequence[TokenPair], how: Scoring) -> float:
        """Return the mean difference of the two sides' scores; the same on all ranks.

        Raises:
            DivergedError: The mean is not finite.
        """
        sides = [
            mean_scores(self.module, side, how, self.world, micro=self.plan.micro)
            for side in ([p.advantaged for p in some], [p.disadvantaged for p in some])
        ]
        found = sides[0] - sides[1]
        if not math.isfinite(found):
            raise DivergedError(f"the scores of {len(some)} pairs became {found}")
        return found

    def _epoch(self, epoch: int) -> float:
        """Run one pass over the pairs; return the advantaged texts' mean score before their batch's step.

        Batches of which the gate leaves nothing have no score; nan if those are all batches.
        """
        every = range(len(self.pairs))
        order = shuffled(every, f"{self.plan.seed}/{epoch}") if self.plan.shuffle else list(every)
        found = []
        for start in range(0, len(order), self.plan.batch):
            batch = [self.pairs[n] for n in order[start : start + self.plan.batch]]
            if not self.plan.fills(len(batch)):
                break
            found.append(self.step(batch, f"{epoch}/{start}"))
        known = [score for score in found if not math.isnan(score)]
        return sum(known) / len(known) if known else math.nan

    # ------------------------------------------------------------------------------------------------- a step

    def step(self, batch: Sequence[TokenPair], name: str = "0/0") -> float:
        """Choose the vectors of a batch and edit them; return the batch's score of the advantaged texts.

        It is nan if the gate leaves nothing of the batch.

        Raises:
            DivergedError: A score or a gradient is not finite.
        """
        plan = self.plan
        if plan.gate:
            batch = self._leaning(batch)
            if not batch:
                return math.nan
        off, _ = self._gradients([pair.disadvantaged for pair in batch])
        on, value = self._gradients([pair.advantaged for pair in batch])
        if not math.isfinite(value):
            raise DivergedError(f"the score of a batch became {value}")
        found = similarities(self.parts, on, off, self.world, plan.eps)
        count = wanted(found, plan.share, plan.k, plan.zero_rows)
        if plan.select == "random":
            chosen = drawn(found, count, f"{plan.seed}/{name}")
        else:
            chosen = lowest(found, count, zero_rows=plan.zero_rows)
        self.seen.add(found, chosen)
        down = _descent(on, off, plan.direction)
        del on, off  # one set of gradients is left, so that there are never more than two
        kept = self._retaining(name) if plan.retain else {}
        with torch.no_grad():
            for part in self.parts:
                self._edit(part, chosen, down.get(part.name), kept.get(part.name))
        return value

    def _gradients(self, sides: Sequence[Side]) -> tuple[Grads, float]:
        plan = self.plan
        return of_scores(
            self.module, sides, self.how, self.world, micro=plan.micro, reduction=plan.reduction, pool=plan.pool
        )

    def _retaining(self, name: str) -> Grads:
        some = Random(f"{self.plan.seed}/retain/{name}").sample(
            range(len(self.retained)), min(self.plan.retain_batch, len(self.retained))
        )
        return of_divergence(
            self.module,
            self.base,
            [self.retained[n] for n in some],
            self.how,
            self.world,
            micro=self.plan.micro,
            scale=self.plan.retain,
        )[0]

    def _leaning(self, batch: Sequence[TokenPair]) -> list[TokenPair]:
        sums = torch.zeros(len(batch), device=self.world.device)
        how = Scoring(**{**asdict(self.how), "measure": "logprob"})
        with torch.no_grad():
            for group, weights in spread(len(batch), self.world, self.plan.micro):
                odds = scores(self.module, [batch[n].advantaged for n in group], how) - scores(
                    self.module, [batch[n].disadvantaged for n in group], how
                )
                sums[group] += odds * torch.tensor(weights, device=odds.device)
        total = self.world.total([torch.stack([sums] * 3)])[0][0]
        if not bool(total.isfinite().all()):  # otherwise it would pass for even pairs
            raise DivergedError("the log-odds of a batch are no longer finite")
        return [pair for pair, odds in zip(batch, total.tolist(), strict=True) if odds > 0]

    def _edit(self, part: Part, chosen: Tensor, *grads: Tensor | None) -> None:
        mask = part.mask(chosen, self.world.rows(part))
        here = local(self._parameters[part.name].data)
        if not here.numel() or not bool(mask.any()):
            return
        fresh = here
        for grad in grads:
            if grad is not None:
                fresh = fresh.sub(grad, alpha=self.plan.learning_rate)
        here.copy_(torch.where(mask, fresh, here))

    # ------------------------------------------------------------------------------------------- what is kept

    def _settle(self) -> None:
        """Make the masters exactly what the edit says (base + change), so that a resumed run is bit-identical."""
        with torch.no_grad():
            for part in self.parts:
                here = local(self._parameters[part.name].data)
                first, last = self.world.rows(part)
                old = self._base[part.name].data
                old = (old if not part.shape else old[first:last]).to(here.device, torch.float32)
                here.copy_(old + (here - old))

    def _refuse_broken_weights(self) -> None:
        """Check every edited weight in the precision of the target model; all ranks get the same result.

        Raises:
            DivergedError: A weight has become non-finite; float16 ends at 65,504.
        """
        broken = 0
        for part in self.parts:
            here = local(self._parameters[part.name].data)
            first, last = self.world.rows(part)
            old = self._base[part.name].data
            old = (old if not part.shape else old[first:last]).to(here.device)
            moved = here != old.to(torch.float32)
            broken += int((moved & ~here.to(old.dtype).isfinite()).sum())
        if found := int(self.world.sum_of(float(broken))):
            kind = str(next(iter(self._base.values())).dtype).removeprefix("torch.")
            raise DivergedError(f"{found:,} weights are not finite in {kind}")

    def _refuse_broken_logits(self, now: Delta | None) -> None:
        """Test the edit in the precision of the target model on the main rank; all get the same result.

        Args:
            now: The edit, on the main rank.

        Raises:
            DivergedError: The logits of a text are not finite that were so before.
        """
        some = [*self.held_out, *self.pairs][: self.plan.micro]
        texts = [*self.tried, *(side.ids for p in some for side in (p.advantaged, p.disadvantaged))]
        broken = 0
        if now is not None and now.vectors:
            made = {name: self._base[name].detach().clone() for name in now.vectors}
            for name, vectors in now.vectors.items():
                deltas.write(made[name], vectors)
            broken = count_broken(self.base, self.base, texts, made)
        if found := int(self.world.sum_of(float(broken))):
            raise DivergedError(told(found, len(texts), self.base))

    def delta(self) -> Delta | None:
        """The edit as it is now, on the main rank; all ranks have to ask for it together."""
        whole_ones = (whole(self._parameters[p.name]) for p in self.parts)
        if not self.world.main:
            for _ in whole_ones:
                pass
            return None
        return deltas.between(self.parts, (self._base[p.name].detach().cpu() for p in self.parts), whole_ones, {})

    def _kept(self, best: Delta | None, now: Delta | None) -> Delta | None:
        """Keep this epoch's edit as a checkpoint, and return the best one so far."""
        if now is None:
            return None
        best = now if self.best == self._done or best is None else best
        if self.folder is not None:
            facts = {"plan": self._identity, "curve": self.curve, "seen": self.seen.state()}
            last, chosen = Delta(now.vectors, facts), best
            self._folders.keep(self._done, last.nbytes + best.nbytes, lambda part: _write(part, last, chosen))
        return best

    def _resume(self) -> Delta | None:
        """Put the last epoch's edit into the masters, on every rank; the best edit so far is returned."""
        place = self._folders.last() or self.folder  # in which earlier versions had the files themselves
        file = None if place is None else place / CHECKPOINT
        if file is None or not file.is_file():
            return None
        last = Delta.load(file)
        if last.facts["plan"] != self._identity:
            raise SettingsError(f"{file} is of another run; remove it to begin anew")
        self.curve = last.facts["curve"]
        self.seen.restore(last.facts["seen"])
        with torch.no_grad():
            for part in self.parts:
                if part.name in last.vectors:
                    full = self._base[part.name].detach().cpu().to(torch.float32, copy=True)
                    deltas.write(full, last.vectors[part.name])
                    first, end = self.world.rows(part)
                    here = local(self._parameters[part.name].data)
                    here.copy_(full[first:end] if part.shape else full)
        self.world.wait()  # before the main rank writes the next one
        return Delta.load(file.with_name(BEST)) if self.world.main else None

    @property
    def _identity(self) -> Any:
        """What a checkpoint must be of; as JSON gives it back."""
        plan = {name: value for name, value in asdict(self.plan).items() if NEW.get(name, self) != value}
        own = [plan, asdict(self.how), len(self.pairs), len(self.held_out), self.parts.size]
        return json.loads(json.dumps(own))


def forget(folder: Path) -> None:
    """Remove the checkpoints, once the edit is kept elsewhere."""
    CheckpointFolders(folder).remove()
    for name in (CHECKPOINT, BEST):
        file_io.remove(folder / name)


def _write(part: Path, last: Delta, best: Delta) -> None:
    """Write the files of a checkpoint."""
    last.save(part / CHECKPOINT)
    best.save(part / BEST)


def _descent(on: Grads, off: Grads, direction: Direction) -> Grads:
    """What is to be subtracted; written over one of the two sets."""
    if direction == "decrease_advantaged":
        return on
    if direction == "increase_disadvantaged":
        return {name: g.neg_() for name, g in off.items()}
    for name, g in off.items():
        on[name] = on[name].sub_(g) if name in on else g.neg()
    return on
