"""`pcgu`: partitioned contrastive gradient unlearning, which edits the weights that pairs of texts disagree about.

Sources: Yu, Jeoung, Kasi, Yu and Ji 2023, "Unlearning Bias in Language Models by Partitioning Gradients" (Findings of
ACL 2023; CharlesYu2000/PCGU-UnlearningBias), for masked models; Dige et al. 2024 (arXiv 2406.13551;
VectorInstitute/bias-mitigation-unlearning), for causal ones. The papers and their code differ, hence the presets. In
all of them dropout is off (the code leaves it on, which makes two gradients differ where nothing else does).

The released code, where a comment names a file, is VectorInstitute/bias-mitigation-unlearning 9b7c792, folder pcgu/src,
which includes what it took over from the first repository: `WGDataset` in dataset.py, and the masked models' scores in
general_similarity_retrain.py.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from evenhand.core.artifacts import made_with, resolved_precision
from evenhand.core.hashing import digest
from evenhand.errors import SettingsError
from evenhand.interfaces import Ability, Model, Pair, TrainData, TrainedOn, TrainingRecord, settings
from evenhand.training.preset_values import UNSTATED
from evenhand.training.trained_method import Fitted, TrainedMethod

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from evenhand.methods.unlearning._pairs import Side, TokenPair
    from evenhand.methods.unlearning._pcgu.delta import Delta
    from evenhand.methods.unlearning._pcgu.updates import Plan, Unlearning

LEAST_PAIRS = 8
"""Minimum number of pairs for measuring a bias."""
Texts = Sequence[str]
Work = tuple["list[TokenPair]", "list[Side]"]
"""Pairs to unlearn, and what is to be retained."""

_PAPER: Mapping[str, Any] = {
    "architecture": "masked",
    "direction": "decrease_advantaged",
    "measure": "probability",
    "edit_fraction": 0.1,
    "zero_rows": "kept",
    "partition": "row",
    "retain_kl_weight": 0.0,
    "drop_last": False,
    "gate": False,
    "learning_rate": 2e-6,
    "batch_size": 64,
    "epochs": 15,
    "reduction": "sum",
    "max_length": 512,
    "precision": "auto",
    "validation_fraction": 0.0,
    "select": "lowest",
    "target": "answer",
    "embeddings": True,
}
"""What the paper prescribes (for BERT-like models, input aggregation); the presets of the released code name what they
change."""
_RELEASED: Mapping[str, Any] = {
    **_PAPER,
    "as_stored": True,  # partition_params.py looks at shapes alone
    "cosine_eps": 1e-8,  # general_similarity_retrain.py, compute_similarities: torch's cosine_similarity
    "special_tokens": False,  # dataset.py, add_special_tokens=False
    "truncate": True,  # dataset.py, [:max_len]
    "shuffle": False,  # general_similarity_retrain.py, main: a DataLoader without shuffle
}
"""Values shared by both presets of the released code."""
_OF_PAPER: Mapping[str, str] = {
    "": "Yu et al. 2023, ACL Findings",
    "validation_fraction": "nothing is held out in the paper",
    "select": "Yu et al. 2023, ACL Findings: the lowest cosines",
    "target": "Yu et al. 2023, ACL Findings: the word at the hidden place",
    "embeddings": "Yu et al. 2023, ACL Findings: every tensor",
    "gate": "ours, off",
    "retain_kl_weight": "ours, off",
    "zero_rows": "the paper masks nothing",
    "partition": "Yu et al. 2023, ACL Findings, input aggregation",
    "drop_last": UNSTATED,
    "max_length": UNSTATED,
    "precision": UNSTATED,
}
_OF_RELEASED: Mapping[str, str] = {
    **_OF_PAPER,
    "architecture": "general_similarity_retrain.py, is_mlm",
    "direction": "general_similarity_retrain.py, _minimize_grads_2",
    "partition": "general_similarity_retrain.py: input aggregation without --output-agg",
    "precision": "ours: general_similarity_retrain.py has float32",
    "zero_rows": "general_similarity_retrain.py, compute_similarities",
    "select": "general_similarity_retrain.py, find_parameters_to_keep: largest=False",
    "target": "general_similarity_retrain.py, do_an_mlm_backprop: target_tokens",
    "embeddings": "partition_params.py, create_param_partition: every tensor that is trained",
    "as_stored": "partition_params.py, create_param_partition",
    "cosine_eps": "general_similarity_retrain.py, compute_similarities: F.cosine_similarity",
    "special_tokens": "dataset.py: add_special_tokens=False",
    "truncate": "dataset.py: [:max_len]",
    "shuffle": "general_similarity_retrain.py, main: DataLoader",
    "validation_fraction": "general_similarity_retrain.py, retrain: nothing is held out",
}
"""Files are in VectorInstitute/bias-mitigation-unlearning 9b7c792, folder pcgu/src."""


class Lesson(NamedTuple):
    """Everything an edit is computed from."""

    pairs: Sequence[Pair]
    others: Sequence[Pair]
    """Pairs on other axes, on which the model is to stay unchanged."""
    texts: Texts
    """Texts on which the model is to stay unchanged."""
    read: list[TokenPair]
    """The pairs in tokens."""
    retained: list[Side]
    """Other pairs and texts in tokens."""
    mesh: DeviceMesh | None
    """The processes that were launched together."""


@settings
class PCGU(TrainedMethod):
    """Edit, batch by batch, the weights whose gradients of a stereotyped text and its counterpart differ most."""

    training_version: ClassVar[int] = 3
    not_in_key: ClassVar[frozenset[str]] = frozenset({"device", "micro_batch_size"})
    name: ClassVar[str] = "pcgu"
    needs: ClassVar[frozenset[Ability]] = frozenset({"weights"})
    needs_data: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": _PAPER,
        "released": {
            **_RELEASED,
            "architecture": "causal",
            "measure": "logprob",
            "target": "sequence",
            "edit_fraction": 0.3,
            "learning_rate": 2e-4,
            "batch_size": 512,
            "epochs": 3,
            "reduction": "pooled",  # do_an_lm_backprop: the mean over all tokens of a batch; accumulate_grad adds these
            "pool_size": 16,  # the default of -b
            "drop_last": True,  # retrain: what has not reached --sim-batch-size makes no step
            "max_length": 115,  # BBQDataset
        },
        "released_masked": {**_RELEASED, "measure": "logit", "max_length": 24},  # do_an_mlm_backprop, WGDataset
    }
    preset_sources: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "paper": _OF_PAPER,
        "released": {
            **_OF_RELEASED,
            "measure": "general_similarity_retrain.py, do_an_lm_backprop: minus outputs.loss",
            "target": "dataset.py, BBQDataset: labels are the whole text",
            "reduction": "general_similarity_retrain.py, do_an_lm_backprop and accumulate_grad",
            "pool_size": "general_similarity_retrain.py, -b",
            "drop_last": "general_similarity_retrain.py, retrain",
            "edit_fraction": "arXiv 2406.13551: 20 to 40 %",
            "learning_rate": "arXiv 2406.13551, LLaMA-2-7B",
            "batch_size": "arXiv 2406.13551",
            "epochs": "arXiv 2406.13551",
            "max_length": "dataset.py, BBQDataset: max_len",
        },
        "released_masked": {
            **_OF_RELEASED,
            "measure": "general_similarity_retrain.py, do_an_mlm_backprop: logits.sum()",
            "reduction": "general_similarity_retrain.py, do_an_mlm_backprop: logits.sum()",
            "drop_last": (
                "CharlesYu2000/PCGU-UnlearningBias eeae24e, general_similarity_retrain.py: with sim_batch_size -1 each "
                "batch of the DataLoader makes a step, the last one too"
            ),
            "max_length": "dataset.py, WGDataset: max_len",
        },
    }
    added_later: ClassVar[frozenset[str]] = frozenset(
        {"architecture", "pool_size", "cosine_eps", "special_tokens", "truncate", "shuffle", "drop_last"}
    )
    renamed: ClassVar[Mapping[str, str]] = {
        "share": "edit_fraction",
        "batch": "batch_size",
        "held_out": "validation_fraction",
        "most_tokens": "max_length",
        "retain": "retain_kl_weight",
        "retain_batch": "retain_batch_size",
        "topics": "axes",
        "micro": "micro_batch_size",
    }

    architecture: Literal["any", "causal", "masked"] = "any"
    """Which models may be edited. The presets set the architecture of their source: its learning rate belongs to its
    scores, and is meaningless for others."""
    partition: Literal["row", "column"] = "row"
    """Unit of editing: weights that make one output of a layer (row, the paper's input aggregation), or that one input
    feeds (column, its output aggregation)."""
    as_stored: bool = False
    """Whether the transposed layers of GPT-2 (Conv1D) are taken as they are stored, as in the released code: their rows
    are then columns."""
    edit_fraction: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Fraction of the vectors edited in each step; with zero_rows=masked, of those with a gradient. 0.1 in the paper,
    0.3 in the released code for causal models."""
    k: Annotated[int, Field(ge=0)] | None = None
    """Number of vectors edited in each step, instead of `edit_fraction`."""
    select: Literal["lowest", "random"] = "lowest"
    """Which vectors are edited: those of lowest cosine, or, as a control, equally many at random."""
    zero_rows: Literal["masked", "kept"] = "masked"
    """How vectors without a gradient (of tokens that no text contains) are handled. Their cosine is 0, which is below
    every positive one. masked: they are never selected. kept: they may take the places of others, although editing them
    changes nothing."""
    direction: Literal["decrease_advantaged", "increase_disadvantaged", "both"] = "both"
    """What a step does to the scores of the two texts."""
    gate: bool = True
    """Whether pairs whose stereotyped text is not (or no longer) the more probable one are left out of a batch, so that
    what is even is not pushed over; ours."""
    target: Literal["answer", "sequence"] = "answer"
    """Whose score is used: that of the two continuations after their common beginning (answer), or the whole text
    (sequence). A masked model's target is always what the pair names."""
    measure: Literal["logprob", "logit", "probability"] = "logprob"
    """Score of a target."""
    per_token: bool = False
    """Whether scores are divided by their number of tokens."""
    cosine_eps: Annotated[float, Field(ge=0)] = 0.0
    """Minimum norm of a gradient in a cosine: a smaller one is replaced by this, so that its cosine is nearer to 0.
    1e-8 in the released code."""
    reduction: Literal["mean", "sum", "pooled"] = "mean"
    """How the scores of a batch are combined, for which a learning rate is meant. pooled, in the released code for
    causal models, averages over all tokens of `pool_size` texts and adds up these means, so that a long text counts
    more and a step is as many times larger as there are groups in a batch."""
    pool_size: Annotated[int, Field(gt=0)] = 16
    """Number of texts whose tokens are averaged together with reduction=pooled. It is independent of
    `micro_batch_size`, with which it coincides in the released code."""
    embeddings: bool = True
    """Whether input and output embeddings may be edited."""
    retain_kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence from the baseline, on the texts of the training data and on the pairs about axes that
    `axes` leaves out. It only affects the vectors edited in a step."""
    retain_batch_size: Annotated[int, Field(gt=0)] = 16
    """Number of texts per step for that divergence."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.01
    """Learning rate of plain gradient descent."""
    batch_size: Annotated[int, Field(gt=0)] = 32
    """Number of pairs per step."""
    shuffle: bool = True
    """Whether the pairs are shuffled in every epoch; False keeps the order of the training data, as in the released
    code."""
    drop_last: bool = False
    """Whether the last pairs of an epoch are skipped if their groups of `pool_size` do not fill a batch, as in the
    released code for causal models."""
    micro_batch_size: Annotated[int, Field(gt=0)] = 16
    """Number of texts that go through the model at once (on each process)."""
    epochs: Annotated[int, Field(gt=0)] = 6
    """Maximum number of passes over the pairs."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the pairs held out to choose the epoch: the one where their mean log-odds are nearest to zero before
    changing sign, which ends the training. 0 uses the last epoch, as the sources do."""
    axes: tuple[str, ...] = ()
    """Axes to unlearn; empty takes all. Pairs on other axes are used by `retain_kl_weight`."""
    max_length: Annotated[int, Field(gt=3)] = 512
    """Maximum number of tokens of a pair's text; texts to retain are cut to it. 115 in the released code for causal
    models, and 24 for masked ones."""
    truncate: bool = False
    """Whether a pair's texts are cut at `max_length`, rather than refused; pairs that no longer differ are left out,
    and counted under `left_out`. The released code cuts them."""
    special_tokens: bool = True
    """Whether a pair's texts begin, and end for masked models, with the model's special tokens; they do not in the
    released code."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Precision of matrix products; auto is bf16 on GPUs that have it. The edited weights are float32 copies, as half
    precision loses small steps; the result is rounded once."""
    seed: int = 0
    """Seed of the held-out pairs, the order of batches and the texts to retain."""
    device: str | None = None
    """Device on which the model is edited; None is the model's own."""

    # ------------------------------------------------------------------------------------------ what is asked

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return a reason against a model that is not local, whole, causal or masked, or quantised, or no pairs."""
        from evenhand.training import trainable

        reason = super().unsupported_reason(model, data or TrainData())  # the data are checked below
        reason = reason or trainable.unsupported_reason(self.name, model, masked=True)
        if reason:
            return reason
        if model is not None and self.architecture not in ("any", model.architecture):
            return self._other_architecture(model)
        if model is not None and hasattr(model.weights.module, "peft_config"):
            return (
                f"{self.name} edits weights, but {model.name} has an adapter: wrap "
                "evenhand.models.adapters.merged(module) instead, which does not mix up tied embeddings"
            )
        if data is None or not data.pairs:
            return (
                f"{self.name} needs pairs of texts: training data with pairs (train= of compare, --train on the "
                "command line, data= of apply), such as demo:pairs"
            )
        return ""

    def __post_init__(self) -> None:
        """Refuse groups that do not fit into a batch."""
        if self.drop_last and self.batch_size % self.pool_size:
            raise SettingsError(
                f"pcgu: batch_size={self.batch_size} is not a multiple of pool_size={self.pool_size}, which "
                "drop_last=True counts by: change one of them"
            )

    def _other_architecture(self, model: Model) -> str:
        """Return why settings for one kind of model are not used for the other, and which to use instead."""
        preset = "released" if model.architecture == "causal" else "paper or preset=released_masked"
        return (
            f"{self.name}(architecture={self.architecture}) has a learning rate and scores for {self.architecture} "
            f"models; {model.name} is {model.architecture}: set preset={preset}, or architecture=any with a "
            "learning_rate of your own"
        )

    # --------------------------------------------------------------------------------------------- what it does

    def prepared(self, model: Model, data: TrainData) -> Lesson:
        """Return the pairs to unlearn and what to retain, in tokens, and the processes that share the work.

        Raises:
            SettingsError: There are too few pairs, nothing to retain, or a launch that cannot be used.
            DataError: A pair cannot be used.
        """
        from evenhand.methods.unlearning._pcgu.fsdp import launched

        pairs, others = self._chosen(data)
        texts = data.texts if self.retain_kl_weight else ()
        return Lesson(pairs, others, texts, *self._encoded(model, pairs, others, texts), launched())

    def content(self, prepared: Lesson) -> Sequence[object]:
        """The pairs and texts."""
        return [prepared.pairs, prepared.others, prepared.texts]

    def made_with(self, model: Model, prepared: Lesson) -> list[str | int]:
        """Several processes that were launched together decide where they work."""
        device = self.device if prepared.mesh is None else prepared.mesh.device_type
        return made_with(model, device=device, precision=self.precision)

    def opened(self, model: Model, folder: Path) -> Model:
        """A copy of the model with the edit.

        Where it diverged late, the edit is of an epoch before that; the record's results say so under `halted`.
        """
        return self.restore(model, folder)

    def export(self, model: Model, folder: str | Path, data: TrainData | None = None) -> Path:
        """Write the edited model as a plain transformers folder, which transformers and vLLM load without evenhand.

        `save` of the edited model writes the base's name and the edit instead, so that it can be removed again.

        Args:
            model: The model to edit.
            folder: Target folder; it has to be empty or new.
            data: As for `apply`.

        Returns:
            The folder: all weights, edited ones included, in the model's own precision, and its tokenizer.

        Raises:
            SettingsError: As `apply`; or the folder is not empty.
            DivergedError: As `apply`.
        """
        from evenhand.methods.unlearning._pcgu.edited import export

        place = Path(folder).expanduser()
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise SettingsError(f"{place} is not an empty folder: set another one, or empty it")
        return export(self.apply(model, data), place)

    def restore(self, model: Model, folder: Path) -> Model:
        """Apply the saved edit to the model again."""
        from evenhand.methods.unlearning._pcgu.edited import read

        return self._edited(model, *read(folder))

    def _edited(self, model: Model, delta: Delta, record: TrainingRecord | None) -> Model:
        from evenhand.methods.unlearning._pcgu.edited import edited

        if halted := record and record.results.get("halted"):
            warnings.warn(f"{self.name} on {model.name} {halted}. Set a lower learning_rate", stacklevel=3)
        return edited(model, self, delta, record)

    def _chosen(self, data: TrainData) -> tuple[list[Pair], list[Pair]]:
        """Return the pairs to unlearn, and those on other axes, on which the model is to stay unchanged."""
        every = list(data.pairs)
        known = sorted({p.axis for p in every})
        if unknown := [t for t in self.axes if t not in known]:
            raise SettingsError(f"{self.name}: no pairs on {unknown[0]!r}; the data has {', '.join(known)}")
        found = [p for p in every if not self.axes or p.axis in self.axes]
        if len(set(found)) < LEAST_PAIRS:
            raise SettingsError(f"{self.name} needs at least {LEAST_PAIRS} different pairs, not {len(set(found))}")
        others = [p for p in every if self.axes and p.axis not in self.axes]
        if self.retain_kl_weight and not others and not data.texts:
            raise SettingsError(
                f"{self.name}(retain_kl_weight={self.retain_kl_weight}) needs something to retain: texts besides the "
                "pairs, or pairs on axes that axes= leaves out; add some, or set retain_kl_weight=0"
            )
        return found, others if self.retain_kl_weight else []

    def _encoded(self, model: Model, pairs: Sequence[Pair], others: Sequence[Pair], texts: Texts) -> Work:
        from evenhand.methods.unlearning._pairs import encoded, read_texts

        causal = model.architecture == "causal"
        tokenizer, most = model.weights.tokenizer, min(self.max_length, model.context_length)
        made = [
            encoded(
                some,
                tokenizer,
                causal=causal,
                target=self.target,
                context=most,
                special=self.special_tokens,
                truncate=self.truncate,
            )
            for some in (pairs, others)
        ]
        told = read_texts(texts, tokenizer, causal=causal, most=most, seed=self.seed)
        return made[0], [pair.advantaged for pair in made[1]] + told

    def train(self, model: Model, prepared: Lesson, folder: Path) -> Fitted | None:
        """Make the edit; the main process returns it, the others only take part."""
        from evenhand.training.holding_out import hold_out

        train, held = hold_out(prepared.read, lambda pair: pair.texts, self.validation_fraction, self.seed)
        self._refuse_no_step(len(train))
        run = self._run(model, prepared, train, held, folder)
        began = time.monotonic()
        made = run.run()
        if made is None:
            return None
        seen = run.seen.facts()
        more: dict[str, Any] = {"halted": run.halted} if run.halted else {}
        if self.truncate:
            more["left_out"] = len(prepared.pairs) - len(prepared.read)
        known = {
            "data": TrainedOn(
                unit="pairs",
                training=len(train),
                validation=len(held),
                hash=digest(prepared.read, prepared.retained),
            ),
            "precision": "bf16" if run.how.half else "no",
            "epochs": sum("advantaged" in row for row in run.curve),
            "steps": seen.pop("steps"),
            "best_epoch": run.best,
            "curve": tuple(run.curve),
            "seconds": round(time.monotonic() - began, 1),
            "results": {"direction": self.direction, "edited_vectors": made.size, **seen, **more},
        }
        return Fitted(None, known, made)

    def _refuse_no_step(self, pairs: int) -> None:
        """Refuse so few pairs that no step would be made."""
        if self.drop_last and not self._plan().fills(min(pairs, self.batch_size)):
            raise SettingsError(
                f"{self.name}: {pairs} pairs do not fill a batch of {self.batch_size}, so drop_last=True would edit "
                "nothing: set a smaller batch_size, or drop_last=False"
            )

    def _run(
        self, model: Model, prepared: Lesson, train: list[TokenPair], held: list[TokenPair], folder: Path
    ) -> Unlearning:
        """Return the edit before its first step, on a copy of the model in float32."""
        import copy

        from evenhand.methods.unlearning._pcgu.fsdp import World, shard
        from evenhand.methods.unlearning._pcgu.gradients import Scoring
        from evenhand.methods.unlearning._pcgu.partition import partition
        from evenhand.methods.unlearning._pcgu.updates import Unlearning
        from evenhand.training.finite import probes

        (base, tokenizer), mesh = model.weights, prepared.mesh
        device = mesh.device_type if mesh is not None else self.device or str(base.device)
        half = resolved_precision(self.precision, device) == "bf16"
        module: Any = copy.deepcopy(base).float().requires_grad_(True)
        if mesh is None:
            module.to(device)
        else:
            shard(module, mesh, half=half)
        world = World(module, mesh)
        how = Scoring(
            causal=model.architecture == "causal",
            measure=self.measure,
            per_token=self.per_token,
            pad=int(tokenizer.pad_token_id or 0),
            half=half,
        )
        return Unlearning(
            module=module,
            base=base,
            parts=partition(module, self.partition, as_stored=self.as_stored, embeddings=self.embeddings),
            pairs=train,
            held_out=held,
            retained=prepared.retained,
            how=how,
            plan=self._plan(),
            world=world,
            folder=folder,
            tried=probes(tokenizer, model.context_length),
        )

    def _plan(self) -> Plan:
        """The settings that the steps depend on."""
        from evenhand.methods.unlearning._pcgu.updates import Plan

        return Plan(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            batch=self.batch_size,
            micro=self.micro_batch_size,
            share=self.edit_fraction,
            k=self.k,
            select=self.select,
            zero_rows=self.zero_rows,
            direction=self.direction,
            reduction=self.reduction,
            gate=self.gate,
            retain=self.retain_kl_weight,
            retain_batch=self.retain_batch_size,
            seed=self.seed,
            pool=self.pool_size,
            eps=self.cosine_eps,
            shuffle=self.shuffle,
            drop_last=self.drop_last,
        )

    def check(self, model: Model, made: Fitted) -> None:
        """Do nothing: each epoch's edit was tested, and one that gave no finite logits was left out."""

    def keep(self, model: Model, made: Fitted, record: TrainingRecord, folder: Path) -> None:
        """Save the edit, and finally the record of how it was made."""
        from evenhand.methods.unlearning._pcgu.delta import Delta
        from evenhand.methods.unlearning._pcgu.edited import write

        write(Delta(made.more.vectors), record, folder)

    def clean(self, folder: Path) -> None:
        """Remove the edits of single epochs."""
        from evenhand.methods.unlearning._pcgu.updates import forget

        forget(folder)
