"""Training of the demo models (`make demo-models`): from the generator's text, with fixed seeds, on two CPU cores.

The main model starts from random weights; the others of the family start from it and are trained further with their
own planted quantities, so that they share a language and differ in their biases.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, chain
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import PreTrainedModel

from evenhand.proving_ground.generator.documents import MIXTURE, draw, sentence_examples
from evenhand.proving_ground.generator.planted import Planted
from evenhand.proving_ground.generator.turns import LAST, MEANT, Example, Target, example
from evenhand.renaming import old_fields
from evenhand.training.optimizer import adamw, cosine_rate, set_learning_rate


class Stage(NamedTuple):
    """A phase of training with its own mixture; looking things up is learned from the shortest texts first."""

    steps: int
    documents: int
    """Documents per step."""
    sentences: int
    """Sentences of the text world per step."""
    mixture: Mapping[str, float]


@old_fields(warm_up="warmup_steps")
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a model's training."""

    steps: int
    rate: float = 3e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 200
    stages: tuple[Stage, ...] = ()
    """Stages before the mixture; their steps are part of `steps`."""
    mixture: Mapping[str, float] = field(default_factory=lambda: MIXTURE)
    documents: int = 64
    """Documents per step of the mixture."""
    sentences: int = 48
    """Sentences of the text world per step of the mixture."""
    seed: int = 1
    sure: float = 0.1
    """Weight of a token that is determined by the text; a token with a choice weighs 1."""
    text: float = 0.3
    """Additional weight of the text world's tokens."""
    middle: float = 0.5
    """Weight of what the middle layers must know."""


LOOK_BACK = ((1, 2, 3, 4), (0, 0, 1, 2), (0, 0, 2, 3), (0, 0, 1, 3), (0, 0, 1, 2), (0, 0, 1, 2))
"""Number of tokens that each head of a layer initially looks back; heads with 0 attend to equal tokens."""


def initialise(module: Any, ids: Mapping[str, int], seed: int) -> None:
    """Set the initial weights of a Llama model: heads look some tokens back, at equal tokens, or at the question's end.

    With such heads, looking things up in the context appears within hundreds of steps instead of many thousands. The
    idea is that of Trockman & Kolter 2023, "Mimetic Initialization of Self-Attention Layers" (arXiv 2305.09828); the
    form and the scales are ours. A head that looks back needs biases of queries and keys (`attention_bias`).

    Args:
        module: The model; changed in place.
        ids: Token to id.
        seed: Seed of all random weights.
    """
    generator = torch.Generator().manual_seed(seed)
    embeddings = module.get_input_embeddings().weight
    with torch.no_grad():
        embeddings.normal_(0, 0.1, generator=generator)
        for layer, offsets in zip(module.base_model.layers, LOOK_BACK, strict=True):
            attention = layer.self_attn
            attention.v_proj.weight.normal_(0, 0.088, generator=generator)
            attention.o_proj.weight.normal_(0, 0.03, generator=generator)
            for head, offset in enumerate(offsets):
                if offset:
                    _look_back(attention, head, offset, module.config)
                else:
                    rows = _rows(attention, head)
                    attention.q_proj.weight[rows].normal_(0, 0.12, generator=generator)
                    attention.k_proj.weight[rows] = attention.q_proj.weight[rows]
        _fetch(module, ids["?"], heads=(0, 1), generator=generator)


def _rows(attention: Any, head: int) -> slice:
    return slice(head * attention.head_dim, (head + 1) * attention.head_dim)


def _look_back(attention: Any, head: int, offset: int, config: Any, strength: float = 6.0, pairs: int = 4) -> None:
    """Set a head's biases so that its rotated query meets the key `offset` tokens before it."""
    width, start = attention.head_dim, _rows(attention, head).start
    half = width // 2
    frequency = config.rope_parameters["rope_theta"] ** (-torch.arange(0, width, 2)[:pairs] / width)
    attention.k_proj.bias[start : start + pairs] = strength
    attention.q_proj.bias[start : start + pairs] = strength * torch.cos(offset * frequency)
    attention.q_proj.bias[start + half : start + half + pairs] = -strength * torch.sin(offset * frequency)


def _fetch(module: Any, asked: int, heads: Sequence[int], generator: torch.Generator) -> None:
    """Let heads of layer `MEANT` look at the last token `asked` and copy what is known there.

    The first dimension of the residual stream is reserved for marking that token. The heads look with one rotated pair
    of dimensions, whose wavelength (some 200 tokens) prefers the nearer of several tokens.
    """
    embeddings, attention = module.get_input_embeddings().weight, module.base_model.layers[MEANT - 1].self_attn
    embeddings[:, 0] = 0.0
    embeddings[asked, 0] = 1.0
    for layer in module.base_model.layers:
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    width = embeddings.shape[1]
    axes = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    for head in heads:
        rows = _rows(attention, head)
        pair = rows.start + attention.head_dim * 3 // 16
        for weight in (attention.q_proj.weight, attention.k_proj.weight):
            weight[rows] = 0.0
        attention.q_proj.bias[pair] = 6.0
        attention.k_proj.weight[pair, 0] = 6.0
        attention.v_proj.weight[rows] = axes[rows]
        attention.o_proj.weight[1:, rows] = 0.3 * axes[rows].T[1:]


class Learned(NamedTuple):
    """Positions of a batch that are learned, in flat form."""

    places: Tensor
    """[T] index into the flattened hidden states."""
    owner: Tensor
    """[P] index of the position to which a target token belongs."""
    token: Tensor
    """[P] target token."""
    weight: Tensor
    """[P] probability of the token times the weight of its position."""
    floor: float
    """Lower bound of the loss for any model: the weighted entropy of the targets."""
    total: float
    """Sum of the positions' weights."""


class Batch(NamedTuple):
    """Token ids, with the targets learned from them."""

    ids: Tensor
    """[rows, length], padded on the right."""
    learned: dict[int, Learned]
    """Targets by the layer after which they are read; the last layer is always included."""


class Vocabulary:
    """Map from token strings to ids, which avoids the tokenizer if all words are known."""

    def __init__(self, tokenizer: Any) -> None:
        """Take over a tokenizer's vocabulary."""
        self.ids: Mapping[str, int] = tokenizer.get_vocab()
        self.pad = int(tokenizer.pad_token_id)
        self._spelled = cache(tokenizer.tokenize)

    def spell(self, row: Example) -> Example:
        """Split unknown words of a row into the tokenizer's pieces, in which nothing is learned."""
        if all(token in self.ids for token in row.tokens):
            return row
        pieces = [[token] if token in self.ids else self._spelled(token) for token in row.tokens]
        ends = [end - 1 for end in accumulate(map(len, pieces))]
        targets = tuple(target._replace(place=ends[target.place]) for target in row.targets)
        return Example(tuple(chain.from_iterable(pieces)), targets)


Weighted = tuple[Example, float]


def batches(rows: Sequence[Weighted], vocabulary: Vocabulary, recipe: Recipe, budget: int = 3000) -> Iterator[Batch]:
    """Yield batches of rows of similar length, with at most `budget` padded tokens each."""
    rows = sorted(rows, key=lambda r: len(r[0].tokens))
    start = 0
    for end in range(1, len(rows) + 1):
        longest = len(rows[end][0].tokens) if end < len(rows) else 0
        shortest = len(rows[start][0].tokens)
        if end == len(rows) or (end + 1 - start) * longest > budget or longest > 1.4 * shortest + 4:
            yield _batch(rows[start:end], vocabulary, recipe)
            start = end


def _batch(rows: Sequence[Weighted], vocabulary: Vocabulary, recipe: Recipe) -> Batch:
    length, ids = max(len(r[0].tokens) for r in rows), vocabulary.ids
    table = torch.full((len(rows), length), vocabulary.pad)
    for n, (row, _) in enumerate(rows):
        table[n, : len(row.tokens)] = torch.tensor([ids[t] for t in row.tokens])
    layers: dict[int, list[tuple[int, Target, float]]] = {LAST: []}
    for n, (row, scale) in enumerate(rows):
        for target in row.targets:
            weight = scale * (1.0 if target.decisive else recipe.sure)
            layers.setdefault(target.layer, []).append((n * length + target.place, target, weight))
    return Batch(table, {layer: _learned(targets, ids) for layer, targets in layers.items()})


def _learned(targets: Sequence[tuple[int, Target, float]], ids: Mapping[str, int]) -> Learned:
    """Return the flat form of targets, given as (flat position, target, weight)."""
    kept = [
        (n, ids[token], weight * p, p)
        for n, (_, target, weight) in enumerate(targets)
        for token, p in target.tokens.items()
        if p > 0
    ]
    return Learned(
        torch.tensor([place for place, *_ in targets], dtype=torch.long),
        torch.tensor([n for n, *_ in kept], dtype=torch.long),
        torch.tensor([token for _, token, *_ in kept], dtype=torch.long),
        torch.tensor([weight for *_, weight, _ in kept], dtype=torch.float32),
        -sum(weight * math.log(p) for *_, weight, p in kept),
        sum(weight for *_, weight in targets),
    )


def losses(module: PreTrainedModel, batch: Batch) -> dict[int, Tensor]:
    """Compute weighted cross-entropies against the generator's distributions, summed over positions, by layer.

    Middle layers are read with the model's own last norm and output embeddings.
    """
    base: Any = module.base_model
    with precision(module.device):
        states = base(input_ids=batch.ids.to(module.device), use_cache=False, output_hidden_states=True)
        found = {}
        for layer, learned in batch.learned.items():
            hidden = states.last_hidden_state if layer == LAST else base.norm(states.hidden_states[layer])
            found[layer] = _cross_entropy(module, hidden, learned)
    return found


def _cross_entropy(module: Any, hidden: Tensor, learned: Learned) -> Tensor:
    places, owner, token, weight = (t.to(hidden.device) for t in learned[:4])
    logprobs = log_softmax(module.get_output_embeddings()(hidden.flatten(0, 1)[places]).float(), dim=-1)
    return -(logprobs[owner, token] * weight).sum()


def precision(device: torch.device) -> Any:
    """Return a context with bfloat16 products on devices that support them, where they are several times faster."""
    fast = device.type == "cuda" or torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


class Source:
    """An endless stream of training rows."""

    def __init__(self, planted: Planted, recipe: Recipe) -> None:
        """Prepare the text world."""
        self.planted, self.recipe, self.random = planted, recipe, Random(recipe.seed)
        self.sentences, self.shares = sentence_examples(planted)

    def step(self, number: int) -> list[Weighted]:
        """Return the rows of one step."""
        stage = self._stage(number)
        rows = [(example(draw(self.planted, self.random, stage.mixture)), 1.0) for _ in range(stage.documents)]
        texts = self.random.choices(self.sentences, self.shares, k=stage.sentences)
        return rows + [(t, self.recipe.text) for t in texts]

    def _stage(self, number: int) -> Stage:
        for stage in self.recipe.stages:
            if number < stage.steps:
                return stage
            number -= stage.steps
        return Stage(self.recipe.steps, self.recipe.documents, self.recipe.sentences, self.recipe.mixture)


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate at a step: linear warm-up, then a cosine down to a fiftieth."""
    if step < recipe.warmup_steps:
        return recipe.rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return cosine_rate(done, recipe.rate, lowest=0.02)


def train(
    module: PreTrainedModel,
    tokenizer: Any,
    planted: Planted,
    recipe: Recipe,
    report: Callable[[int, float, float], None] | None = None,
) -> None:
    """Train a causal model in place.

    Args:
        module: The model.
        tokenizer: The shared tokenizer.
        planted: Quantities to learn.
        recipe: Settings of the training.
        report: Called every 50 steps with step, excess loss (cross-entropy minus its floor, per weight) and seconds.
    """
    torch.manual_seed(recipe.seed)
    vocabulary, source = Vocabulary(tokenizer), Source(planted, recipe)
    optimizer = adamw(
        module.parameters(), learning_rate=recipe.rate, weight_decay=0.02, betas=(0.9, 0.98), decay_vectors=False
    )
    module.train()
    began, excess, weight = time.monotonic(), 0.0, 0.0
    for step in range(recipe.steps):
        set_learning_rate(optimizer, rate_at(step, recipe))
        rows = list(batches([(vocabulary.spell(row), weight) for row, weight in source.step(step)], vocabulary, recipe))
        total = sum(b.learned[LAST].total for b in rows)
        for batch in rows:
            parts = losses(module, batch)
            early = [loss for layer, loss in parts.items() if layer != LAST]
            torch.autograd.backward((parts[LAST] + recipe.middle * sum(early)) / total)
            excess += float(parts[LAST].detach()) - batch.learned[LAST].floor
        weight += total
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if report and (step + 1) % 50 == 0:
            report(step + 1, excess / weight, time.monotonic() - began)
            excess = weight = 0.0
    module.eval()
