"""A masked language model with a second exit at an inner layer, taught by its own last layers.

Source: Bayasi et al. 2025, "Debiasify: Self-Distillation for Unsupervised Bias Mitigation" (WACV 2025; code
nourhanb/Debiasify): L = 1/2 (CE_shallow + CE_deep) + 0.1 KL + MMD, for classifiers of images. Ours: masked language
models, whose inner layers leave through the model's own head; the number of clusters by silhouette (theirs is the
least whose variance is below a threshold); MMD between the clusters. Their code's MMD is between shallow and deep
features: `align="layers"`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from evenhand.errors import SettingsError
from evenhand.inference.padding import right_pad
from evenhand.inference.requests import buckets
from evenhand.inference.scoring import frozen
from evenhand.inference.support_probe import inner
from evenhand.methods.distillation._batches import GROUP, Text
from evenhand.methods.distillation._groups import Groups, apart, mmd2, pseudo_groups
from evenhand.methods.distillation._losses import divergence
from evenhand.training.packing import IGNORED

Align = Literal["groups", "layers"]


class Weights(NamedTuple):
    """Weights of the parts of the loss."""

    kl: float
    mmd: float
    temperature: float
    align: Align
    """Features that are brought together: those of the pseudo-groups, or those of both exits."""
    detach: bool = True
    """Whether the divergence gives the deep exit no gradient."""
    width: float | None = None
    """Kernel width of the discrepancy; see `evenhand.methods.distillation._groups.mmd2`."""


class Batch(NamedTuple):
    """Texts of a masked model, one per row."""

    inputs: dict[str, Tensor]
    labels: Tensor
    """[rows, length] masked tokens, or `IGNORED`."""
    groups: Tensor
    """[rows] the pseudo-group of each text."""
    alone: bool = False
    """Whether only the cross-entropies are trained on."""


class Exits(NamedTuple):
    """Outputs of both exits for a batch."""

    shallow: Tensor
    """[n, vocabulary] logits at masked tokens."""
    deep: Tensor
    features: Tensor
    """[rows, H] mean over each text's tokens at the inner layer."""
    deep_features: Tensor


# ---------------------------------------------------------------------------------------------------- exits


def layers_of(module: Any) -> int:
    """Return the number of layers of a model."""
    return int(inner(module).config.get_text_config().num_hidden_layers)


def logits_of(module: Any, hidden: Tensor) -> Tensor:
    """Compute [n, vocabulary] logits by the model's own head from hidden states [n, H] of any layer."""
    from transformers.modeling_outputs import BaseModelOutput

    whole = inner(module)
    with _instead(whole.base_model, BaseModelOutput(last_hidden_state=hidden[None])):
        ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        out: Tensor = whole(input_ids=ids).logits[0]
    return out


@contextmanager
def _instead(base: Any, output: Any) -> Iterator[None]:
    """Make the part below the head return this output for any input."""
    own = base.__dict__.get("forward")
    base.forward = lambda *_, **__: output
    try:
        yield
    finally:
        if own is None:
            del base.forward
        else:
            base.forward = own


def check_exit(module: Any, layer: int) -> None:
    """Refuse a model whose inner layers cannot exit through its head.

    Raises:
        SettingsError: The inner layer does not exist, or the logits do not follow from the last hidden states alone.
    """
    every = layers_of(module)
    if not 0 < layer < every:
        raise SettingsError(f"exit_layer={layer}: this model has {every} layers; set 1 to {every - 1}")
    ids = torch.tensor([[1, 2, 3]], device=module.get_input_embeddings().weight.device)
    with frozen(module):
        out = module(input_ids=ids, output_hidden_states=True)
        again = logits_of(module, out.hidden_states[-1][0])
    if not torch.allclose(out.logits[0].float(), again.float(), rtol=1e-2, atol=1e-2 * float(out.logits.abs().max())):
        raise SettingsError(f"{type(inner(module)).__name__} makes its logits of more than its last hidden states")


def exits(network: Any, module: Any, batch: Batch, layer: int) -> Exits:
    """Compute both exits for a batch.

    Args:
        network: The model, or its wrapper in training.
        module: The model.
        batch: A batch on its device.
        layer: The inner layer.
    """
    out = network(**batch.inputs, output_hidden_states=True)
    states = out.hidden_states[layer]
    hidden = batch.labels != IGNORED
    read = batch.inputs["attention_mask"][..., None].to(states.dtype)
    means = [(s * read).sum(1) / read.sum(1) for s in (states, out.hidden_states[-1])]
    return Exits(logits_of(module, states[hidden]), out.logits[hidden], *means)


def parts_of(made: Exits, labels: Tensor, groups: Tensor, weights: Weights) -> dict[str, Tensor]:
    """Compute the parts of the loss without their weights; `loss` is the weighted sum.

    Args:
        made: Outputs for a batch.
        labels: [n] the masked tokens.
        groups: [rows] pseudo-groups.
        weights: Weights of the parts.
    """
    none = made.features.sum() * 0
    shallow, deep, kl = none, none, none
    if len(labels):
        shallow, deep = cross_entropy(made.shallow.float(), labels), cross_entropy(made.deep.float(), labels)
        deep_logits = made.deep.detach() if weights.detach else made.deep
        taught = log_softmax(deep_logits.float() / weights.temperature, -1)
        kl = divergence(taught, log_softmax(made.shallow.float() / weights.temperature, -1)) / len(labels)
        kl = weights.temperature**2 * kl
    if weights.align == "layers":
        mmd = mmd2(made.features.float(), made.deep_features.float(), weights.width)
    else:
        mmd = apart(made.features.float(), groups, weights.width)
    whole = (shallow + deep) / 2 + weights.kl * kl + weights.mmd * mmd
    return {"loss": whole, "shallow": shallow, "deep": deep, "kl": kl, "mmd": mmd}


# ------------------------------------------------------------------------------------------------- training


class Lesson(NamedTuple):
    """Training data of a model with two exits."""

    train: Callable[[int], list[Text]]
    """Returns the texts of an epoch, with tokens masked."""
    held: list[Text]
    layer: int
    max_groups: int
    tokens: int
    """Maximum number of tokens in a batch."""
    pad: int
    seed: int
    size: int | None = None
    """Number of texts in a batch, instead of `tokens`."""
    ce_epochs: int = 0
    """Number of initial epochs that train only on the cross-entropies."""


ALIGNMENT = "exit_alignment"
"""Name of the layer that a model has during training."""


def with_alignment(module: Any, seed: int) -> nn.Linear:
    """Add a linear layer from inner to last features to a model, to be trained along.

    Args:
        module: A masked language model in float32.
        seed: Seed of the layer's weights.
    """
    size = int(module.config.get_text_config().hidden_size)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        layer = nn.Linear(size, size)
    layer.to(module.get_input_embeddings().weight.device)
    module.add_module(ALIGNMENT, layer)
    return layer


def without_alignment(module: nn.Module) -> None:
    """Remove the layer again."""
    delattr(module, ALIGNMENT)


class TwoExits:
    """A model with two exits in training."""

    def __init__(
        self, module: Any, lesson: Lesson, weights: Weights, alignment: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Take a model, which is trained in place.

        Args:
            module: The model.
            lesson: Training data.
            weights: Weights of the loss.
            alignment: Maps inner features before they are compared with the last ones; None leaves them unchanged.
        """
        self.module, self.lesson, self.weights, self.alignment = module, lesson, weights, alignment
        self.found: list[Groups] = []
        """Pseudo-groups of every epoch trained here."""

    def batches(self, epoch: int, random: Random) -> list[Batch]:
        """Return the texts of an epoch, clustered anew by the current features of the inner layer."""
        texts = self.lesson.train(epoch)
        groups = pseudo_groups(self.features(texts), self.lesson.max_groups, self.lesson.seed)
        self.found.append(groups)
        made = self._laid_out(texts, groups.of.tolist(), random)
        return [batch._replace(alone=epoch < self.lesson.ce_epochs) for batch in made]

    def features(self, texts: Sequence[Text]) -> np.ndarray:
        """Compute the inner features of each text, [n, H]."""
        out = np.zeros((len(texts), int(self.module.config.get_text_config().hidden_size)))
        with frozen(self.module):
            for rows in buckets([len(t.ids) for t in texts], self.lesson.tokens):
                batch = self._on(_padded([texts[n] for n in rows], [0] * len(rows), self.lesson.pad))
                made = exits(self.module, self.module, batch, self.lesson.layer)
                out[rows] = made.features.double().cpu().numpy()
        return out

    def loss(self, network: Any, batch: Batch) -> Tensor:
        """Compute the loss of a batch."""
        batch = self._on(batch)
        made = self._aligned(exits(network, self.module, batch, self.lesson.layer))
        weights = self.weights._replace(kl=0.0, mmd=0.0) if batch.alone else self.weights
        return parts_of(made, batch.labels[batch.labels != IGNORED], batch.groups, weights)["loss"]

    def _aligned(self, made: Exits) -> Exits:
        if self.alignment is None:
            return made
        return made._replace(features=self.alignment(made.features.float()))

    def judged(self, _: Any = None) -> Mapping[str, float]:
        """Average over held-out tokens; the loss is without MMD, as held-out texts have no cluster."""
        sums = dict.fromkeys(("shallow", "deep", "kl"), 0.0)
        count = 0
        with frozen(self.module):
            for batch in self._laid_out(self.lesson.held, [0] * len(self.lesson.held), Random("held out")):
                batch = self._on(batch)
                labels = batch.labels[batch.labels != IGNORED]
                made = exits(self.module, self.module, batch, self.lesson.layer)
                parts = parts_of(made, labels, batch.groups, self.weights)
                sums = {name: value + len(labels) * float(parts[name]) for name, value in sums.items()}
                count += len(labels)
        means = {f"held_out_{name}": value / max(1, count) for name, value in sums.items()}
        whole = (means["held_out_shallow"] + means["held_out_deep"]) / 2 + self.weights.kl * means["held_out_kl"]
        return {"held_out_loss": whole, **means}

    def _laid_out(self, texts: Sequence[Text], groups: Sequence[int], random: Random) -> Iterable[Batch]:
        order = random.sample(range(len(texts)), len(texts))
        if size := self.lesson.size:
            rows_of = [order[start : start + size] for start in range(0, len(order), size)]
            return [_padded([texts[n] for n in row], [groups[n] for n in row], self.lesson.pad) for row in rows_of]
        out = []
        width = max(1, GROUP * self.lesson.tokens // max(1, max(len(t.ids) for t in texts)))
        for start in range(0, len(order), width):
            some = order[start : start + width]
            for rows in buckets([len(texts[n].ids) for n in some], self.lesson.tokens):
                picked = [some[n] for n in rows]
                out.append(_padded([texts[n] for n in picked], [groups[n] for n in picked], self.lesson.pad))
        random.shuffle(out)
        return out

    def _on(self, batch: Batch) -> Batch:
        device = self.module.get_input_embeddings().weight.device
        inputs = {name: value.to(device) for name, value in batch.inputs.items()}
        return Batch(inputs, batch.labels.to(device), batch.groups.to(device), batch.alone)


def _padded(texts: Sequence[Text], groups: Sequence[int], pad: int) -> Batch:
    ids, mask = right_pad([t.ids for t in texts], pad)
    labels = right_pad([t.labels for t in texts], IGNORED).values
    return Batch({"input_ids": ids, "attention_mask": mask}, labels, torch.tensor(list(groups)))
