"""`pcgu`: partitioned contrastive gradient unlearning, which edits the weights that pairs of texts disagree about.

Sources: Yu, Jeoung, Kasi, Yu and Ji 2023, "Unlearning Bias in Language Models by Partitioning Gradients" (Findings of
ACL 2023; CharlesYu2000/PCGU-UnlearningBias), for masked models; Dige et al. 2024 (arXiv 2406.13551;
VectorInstitute/bias-mitigation-unlearning), for causal ones. The papers and their code differ, hence the presets. In
all of them dropout is off (the code leaves it on, which makes two gradients differ where nothing else does).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.core.artifacts import artefact, made_with, resolved_precision
from evenhand.core.hashing import digest
from evenhand.errors import SettingsError
from evenhand.interfaces import Ability, Method, Model, Pair, TrainData, settings

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from evenhand.methods.unlearning._pairs import Side, TokenPair
    from evenhand.methods.unlearning._pcgu.delta import Delta

LEAST_PAIRS = 8
"""Fewer say nothing of a bias."""
VERSION = 2
"""Of what an edit does; part of the name that it is kept under."""
Texts = Sequence[str]
Work = tuple["list[TokenPair]", "list[Side]"]
"""Pairs to unlearn, and what is to be retained."""


@settings
class PCGU(Method):
    """Edit, batch by batch, the weights whose gradients of a stereotyped text and its counterpart differ most."""

    name: ClassVar[str] = "pcgu"
    needs: ClassVar[frozenset[Ability]] = frozenset({"weights"})
    needs_data: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "direction": "decrease_advantaged", "measure": "probability", "share": 0.1, "zero_rows": "kept",
            "gate": False, "learning_rate": 2e-6, "batch": 64, "epochs": 15, "reduction": "sum", "held_out": 0.0,
        },
        "released": {
            "direction": "decrease_advantaged", "measure": "logprob", "target": "sequence", "per_token": True,
            "share": 0.3, "zero_rows": "kept", "as_stored": True, "gate": False, "learning_rate": 2e-4, "batch": 512,
            "epochs": 3, "reduction": "mean", "held_out": 0.0,
        },
        "released_masked": {
            "direction": "decrease_advantaged", "measure": "logit", "share": 0.1, "zero_rows": "kept",
            "as_stored": True, "gate": False, "learning_rate": 2e-6, "batch": 64, "epochs": 15, "reduction": "sum",
            "held_out": 0.0,
        },
    }  # fmt: skip

    partition: Literal["row", "column"] = "row"
    """What makes one output of a layer (the paper's input aggregation), or what one input feeds (its output
    aggregation)."""
    as_stored: bool = False
    """Take the transposed layers of GPT-2 (Conv1D) as they are stored, as the released code does: there its rows are
    columns."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Of the vectors, edited in each step: of those that have a gradient, where the others are masked."""
    k: Annotated[int, Field(ge=0)] | None = None
    """So many vectors in each step, instead of a share."""
    select: Literal["lowest", "random"] = "lowest"
    """The vectors of lowest cosine, or, as a control, as many at random."""
    zero_rows: Literal["masked", "kept"] = "masked"
    """Vectors without a gradient (tokens that no text has) have cosine 0, which beats every positive one; kept lets
    them take the places of others, though an edit of them is none."""
    direction: Literal["decrease_advantaged", "increase_disadvantaged", "both"] = "both"
    """What a step does to the scores of the two texts."""
    gate: bool = True
    """Leave out of a batch the pairs whose stereotyped text is not the likelier one (any more), so that what is even is
    not pushed over (ours)."""
    target: Literal["answer", "sequence"] = "answer"
    """Whose score is taken: what the two continuations do not begin with in common, or the whole text (a masked model's
    target is always what the pair names)."""
    measure: Literal["logprob", "logit", "probability"] = "logprob"
    """The score of a target."""
    per_token: bool = False
    """Divide scores by their number of tokens."""
    reduction: Literal["mean", "sum"] = "mean"
    """Of the scores of a batch; learning rates are for one or the other."""
    embeddings: bool = True
    """Whether input and output embeddings may be edited."""
    retain: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the model as it was, of what it says in the texts of the training data and in
    answer to the pairs on other axes than `topics`. The edited vectors follow it; no others are touched for it."""
    retain_batch: Annotated[int, Field(gt=0)] = 16
    """Texts a step for that."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    """Of plain gradient descent."""
    batch: Annotated[int, Field(gt=0)] = 32
    """Pairs a step."""
    micro: Annotated[int, Field(gt=0)] = 16
    """Texts put through the model at once (on each process)."""
    epochs: Annotated[int, Field(gt=0)] = 6
    """Most passes over the pairs."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the pairs by which the epoch is chosen: that where their mean log-odds are nearest to zero, before they
    change their sign, which ends it. 0 takes the last epoch, as the sources do."""
    topics: tuple[str, ...] = ()
    """Axes to unlearn; empty takes all. Pairs on others are of use to `retain`."""
    most_tokens: Annotated[int, Field(gt=3)] = 512
    """Longest text of a pair; texts to retain are cut there."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Of the products; auto is bf16 on GPUs that have it. The weights that are edited are float32 copies, as half
    precision swallows small steps; the result is rounded once."""
    seed: int = 0
    """Of held-out pairs, the order of batches and the texts to retain."""
    device: str | None = None
    """Where the model is edited; None is where it lies."""

    # ------------------------------------------------------------------------------------------ what is asked

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """The model has to be here, causal or masked, whole, and not quantised; and there have to be pairs."""
        from evenhand.training import trainable

        reason = super().unsupported_reason(model, data or TrainData())  # the data are judged below
        reason = reason or trainable.unsupported_reason(self.name, model, masked=True)
        if reason:
            return reason
        if model is not None and hasattr(model.weights.module, "peft_config"):
            return (
                f"{self.name} edits weights, and {model.name} has an adapter: wrap "
                "evenhand.models.adapters.merged(module) instead, which does not mix up tied embeddings"
            )
        if data is None or not data.pairs:
            return (
                f"{self.name} needs pairs of texts: training data with pairs (train= of compare, --train on the "
                "command line, data= of apply), such as demo:pairs"
            )
        return ""

    # --------------------------------------------------------------------------------------------- what it does

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Edit a copy of the model; several processes that were launched together share the work.

        Raises:
            SettingsError: No pairs, or too few; a model or a launch that cannot be used.
            EvenhandError: The edit diverged before an epoch was finished. Where it diverges later, the edit of an epoch
                before that is kept, with a warning, and the facts say so under `halted`.
            DataError: A pair cannot be used.
        """
        from evenhand.methods.unlearning._pcgu.delta import Delta
        from evenhand.methods.unlearning._pcgu.edited import DELTA
        from evenhand.methods.unlearning._pcgu.fsdp import launched, shared_artefact

        reason = self.unsupported_reason(model, data)
        if reason:
            raise SettingsError(reason)
        pairs, others = self._chosen(data)
        texts = data.texts if data and self.retain else ()
        work = self._encoded(model, pairs, others, texts)
        decisive = {key: value for key, value in self.settings.items() if key not in ("device", "micro")}
        mesh = launched()
        how = made_with(model, device=self.device if mesh is None else mesh.device_type, precision=self.precision)
        key = digest(self.name, VERSION, how, model.fingerprint, decisive, pairs, others, texts)

        def make(folder: Path) -> None:
            self._unlearn(model, work, folder, mesh)

        with artefact(key, make) if mesh is None else shared_artefact(key, mesh, make) as folder:
            return self._edited(model, Delta.load(folder / DELTA))

    def restore(self, model: Model, folder: Path) -> Model:
        """The edit that was saved, put on the model again."""
        from evenhand.methods.unlearning._pcgu.delta import Delta
        from evenhand.methods.unlearning._pcgu.edited import DELTA

        return self._edited(model, Delta.load(folder / DELTA))

    def _edited(self, model: Model, delta: Delta) -> Model:
        from evenhand.methods.unlearning._pcgu.edited import edited

        if halted := delta.facts.get("halted"):
            warnings.warn(f"{self.name} on {model.name} {halted}. Take a lower learning_rate", stacklevel=3)
        return edited(model, self, delta)

    def _chosen(self, data: TrainData | None) -> tuple[list[Pair], list[Pair]]:
        """The pairs to unlearn, and those on other axes, whose answers are to be retained."""
        every = list(data.pairs if data else ())
        known = sorted({p.topic for p in every})
        if unknown := [t for t in self.topics if t not in known]:
            raise SettingsError(f"{self.name}: no pairs on {unknown[0]!r}; these are on {', '.join(known)}")
        found = [p for p in every if not self.topics or p.topic in self.topics]
        if len(set(found)) < LEAST_PAIRS:
            raise SettingsError(f"{self.name} needs at least {LEAST_PAIRS} different pairs, not {len(set(found))}")
        others = [p for p in every if self.topics and p.topic not in self.topics]
        if self.retain and not others and not (data and data.texts):
            raise SettingsError(
                f"{self.name}(retain={self.retain}) needs something to retain: texts beside the pairs, or pairs on "
                "other axes than those of topics=; give some, or retain=0"
            )
        return found, others if self.retain else []

    def _encoded(self, model: Model, pairs: Sequence[Pair], others: Sequence[Pair], texts: Texts) -> Work:
        from evenhand.methods.unlearning._pairs import encoded, read_texts

        causal = model.architecture == "causal"
        tokenizer, most = model.weights.tokenizer, min(self.most_tokens, model.context_length)
        made = [encoded(p, tokenizer, causal=causal, target=self.target, context=most) for p in (pairs, others)]
        told = read_texts(texts, tokenizer, causal=causal, most=most, seed=self.seed)
        return made[0], [pair.advantaged for pair in made[1]] + told

    def _unlearn(self, model: Model, work: Work, folder: Path, mesh: DeviceMesh | None) -> None:
        """Make the edit; the main process writes it, the others only take part."""
        import copy

        from evenhand.methods.unlearning._finite import probes
        from evenhand.methods.unlearning._pcgu.delta import Delta
        from evenhand.methods.unlearning._pcgu.edited import DELTA
        from evenhand.methods.unlearning._pcgu.fsdp import World, shard
        from evenhand.methods.unlearning._pcgu.gradients import Scoring
        from evenhand.methods.unlearning._pcgu.partition import partition
        from evenhand.methods.unlearning._pcgu.updates import Plan, Unlearning, divided

        base, tokenizer = model.weights
        device = mesh.device_type if mesh is not None else self.device or str(base.device)
        half = resolved_precision(self.precision, device) == "bf16"
        module: Any = copy.deepcopy(base).float().requires_grad_(True)
        if mesh is None:
            module.to(device)
        else:
            shard(module, mesh, half=half)
        world = World(module, mesh)
        train, held = divided(work[0], self.held_out, self.seed)
        plan = Plan(
            epochs=self.epochs, learning_rate=self.learning_rate, batch=self.batch, micro=self.micro, share=self.share,
            k=self.k, select=self.select, zero_rows=self.zero_rows, direction=self.direction,
            reduction=self.reduction, gate=self.gate, retain=self.retain, retain_batch=self.retain_batch,
            seed=self.seed,
        )  # fmt: skip
        how = Scoring(
            causal=model.architecture == "causal", measure=self.measure, per_token=self.per_token,
            pad=int(tokenizer.pad_token_id or 0), half=half,
        )  # fmt: skip
        run = Unlearning(
            module=module, base=base, parts=partition(
                module, self.partition, as_stored=self.as_stored, embeddings=self.embeddings
            ), pairs=train, held_out=held, retained=work[1], how=how, plan=plan, world=world, folder=folder,
            tried=probes(tokenizer, model.context_length),
        )  # fmt: skip
        made = run.run()
        if made is None:
            return
        facts = {
            "method": self.spec, "base": model.name, "pairs": len(train), "held_out_pairs": len(held),
            "direction": self.direction, "best_epoch": run.best, "curve": run.curve, "edited_vectors": made.size,
            **run.seen.facts(), **({"halted": run.halted} if run.halted else {}),
        }  # fmt: skip
        Delta(made.vectors, facts).save(folder / DELTA)
        run.forget()
