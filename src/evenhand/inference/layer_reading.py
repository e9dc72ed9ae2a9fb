"""Read hidden states at the outputs of decoder layers, for whole lists of sequences, without logits.

Sequences go through the prefix trie, so that common beginnings are fed once, and the forward
ends at the highest requested layer. States are those after the layer, before the final norm, where
activation edits act. (`output_hidden_states=True` of transformers returns the last layer's after the norm.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from evenhand.errors import EvenhandError, SettingsError
from evenhand.inference.attention import attending
from evenhand.inference.decoder_layers import check_layers, decoder_layers, rows_of
from evenhand.inference.edit_hooks import editing_rows
from evenhand.inference.edited_tokens import first_edited, flags, symbols, token_ids
from evenhand.inference.encoder import EncoderEngine
from evenhand.inference.engine import Engine
from evenhand.inference.padding import right_pad
from evenhand.inference.prefix_trie import Pack, packs
from evenhand.inference.requests import NOT_FINITE
from evenhand.inference.scoring import check_ids, input_device, right_padded_flags
from evenhand.inference.support_probe import exact_up_to
from evenhand.inference.tree_attention import TreeAttention
from evenhand.inference.tree_forward import only_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Sink(Protocol):
    """Receives states batch by batch; a batch that does not fit into memory restarts with fewer sequences."""

    def begin(self, rows: Sequence[int]) -> None:
        """Announce the sequences of the next states; states received since the last `end` are void."""

    def take(self, layer: int, states: Tensor) -> None:
        """Receive the states of one layer, [rows, hidden], on the CPU, in float32 or float64."""

    def end(self) -> None:
        """Confirm that all layers of the batch were received."""


class Asked:
    """The sequences to read, cut after the last position read if later tokens cannot affect it."""

    def __init__(
        self,
        engine: Engine | EncoderEngine,
        sequences: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        layers: Sequence[int],
        prompt_lengths: Sequence[int] | None = None,
    ) -> None:
        """Check the request.

        Raises:
            SettingsError: Positions are missing or outside a sequence, or the model does not have the layers.
        """
        for n, (ids, some) in enumerate(zip(sequences, positions, strict=True)):
            if not some or min(some) < 0 or max(some) >= len(ids):
                raise SettingsError(f"sequence {n} has {len(ids)} tokens, but its states are requested at {list(some)}")
        if not layers:
            raise SettingsError("states are requested at no layer; name at least one")
        check_layers(engine.module, list(layers))
        ends = [min(some) for some in positions] if prompt_lengths is None else [n - 1 for n in prompt_lengths]
        starts = [first_edited(engine.edit, max(0, end)) for end in ends]
        whole = isinstance(engine, EncoderEngine)
        self.engine, self.layers, self.positions = engine, sorted({*layers}), [list(some) for some in positions]
        self.symbols = [
            symbols(ids if whole else ids[: max(some) + 1], start)
            for ids, some, start in zip(sequences, positions, starts, strict=True)
        ]
        self.starts, self.lengths = starts, list(map(len, self.symbols))


def read_layers(asked: Asked, sink: Sink) -> None:
    """Pass the states of all sequences to a sink, in batches; several positions of a sequence are averaged.

    Raises:
        EvenhandError: States are not finite.
    """
    engine = asked.engine
    check_ids(engine.module, map(token_ids, asked.symbols))
    with engine.running():
        rest = list(range(len(asked.symbols)))
        if isinstance(engine, Engine) and engine.tried.finish is not None:
            window = exact_up_to(engine.module)
            short = [n for n in rest if asked.lengths[n] <= window]
            _in_packs(engine, asked, short, sink)
            rest = sorted({*rest} - {*short})
        groups = [rest]
        if isinstance(engine, EncoderEngine) and rest:
            groups = engine.compatible([(tuple(token_ids(row)), ()) for row in asked.symbols], asked.lengths)
        for rows in groups:
            run = partial(_batch, asked, sink)
            engine.run(asked.lengths, run, lambda _, __: None, rows=rows)


def _in_packs(engine: Engine, asked: Asked, rows: list[int], sink: Sink) -> None:
    """Read pack by pack; after one that does not fit into memory, the rest is cut into packs of half its size."""
    while rows:
        left = set(rows)
        for pack in packs([asked.symbols[n] for n in rows], engine.pack_nodes):
            mine = [rows[n] for n in pack.rows]
            if engine.attempt(partial(_pack, asked, mine, pack, sink), len(mine), len(pack.tokens)) is None:
                engine.pack_nodes = max(1, len(pack.tokens) // 2)
                break
            engine.tokens += len(pack.tokens)
            left -= set(mine)
        rows = [n for n in rows if n in left]


def _pack(asked: Asked, rows: list[int], pack: Pack, sink: Sink) -> list[int]:
    module, device = asked.engine.module, input_device(asked.engine.module)
    nodes = [path[asked.positions[n]] for n, path in zip(rows, pack.paths, strict=True)]
    read, slots = np.unique(np.concatenate(nodes), return_inverse=True)
    at = torch.from_numpy(read).to(device)
    ids, positions = (torch.tensor([row], device=device) for row in (token_ids(pack.tokens), pack.positions))
    sink.begin(rows)

    def take(layer: int, states: Tensor) -> None:
        some = states[0].index_select(0, at.to(states.device)).cpu()
        sink.take(layer, _pooled(some[torch.from_numpy(slots.reshape(-1))], [len(n) for n in nodes], layer))

    edited = editing_rows([flags(pack.tokens)])
    with attending(module, TreeAttention(pack)), only_at(at, module), edited:
        _until_read(module, asked.layers, take, input_ids=ids, position_ids=positions, use_cache=False)
    sink.end()
    return rows


def _batch(asked: Asked, sink: Sink, rows: list[int]) -> list[int]:
    """Read one right-padded batch."""
    module, options = asked.engine.module, {} if isinstance(asked.engine, EncoderEngine) else {"use_cache": False}
    padded = right_pad([token_ids(asked.symbols[n]) for n in rows], asked.engine.pad_id, device=input_device(module))
    sink.begin(rows)

    def take(layer: int, states: Tensor) -> None:
        some = [states[k, asked.positions[n]] for k, n in enumerate(rows)]
        sink.take(layer, _pooled(torch.cat(some).cpu(), [len(s) for s in some], layer))

    with editing_rows(right_padded_flags(padded.mask, [asked.starts[n] for n in rows])):
        _until_read(module, asked.layers, take, input_ids=padded.values, attention_mask=padded.mask, **options)
    sink.end()
    return rows


def _pooled(states: Tensor, counts: list[int], layer: int) -> Tensor:
    """Average consecutive rows, [len(counts), hidden]; in float64 if there is anything to average."""
    if not bool(torch.isfinite(states).all()):
        raise EvenhandError(f"hidden states of layer {layer}: {NOT_FINITE.replace('logits', 'they')} (nan or infinite)")
    if max(counts) == 1:
        return states.float() if states.dtype != torch.float64 else states
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    sums = torch.zeros(len(counts), states.shape[1], dtype=torch.float64).index_add_(0, owner, states.double())
    return sums / torch.tensor(counts, dtype=torch.float64)[:, None]


class _AllRead(Exception):
    """Ends a forward once all requested layers have been read."""


_READING: ContextVar[object | None] = ContextVar("layer_reading", default=None)


def _until_read(
    module: PreTrainedModel, layers: Sequence[int], take: Callable[[int, Tensor], None], **inputs: Any
) -> None:
    """Run a model up to the highest of some layers, and pass on the output of each."""
    with _taking(module, layers, take):
        try:
            module(**inputs)
        except _AllRead:
            return
    raise EvenhandError(
        f"{type(module).__name__} runs without the hooks of layer {max(layers)}, so its activations cannot be read; "
        "load it without compilation and fused layers"
    )


@contextmanager
def _taking(module: nn.Module, layers: Sequence[int], take: Callable[[int, Tensor], None]) -> Iterator[None]:
    here = object()

    def hook(layer: int, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if _READING.get() is not here:  # another thread's forward
            return
        take(layer, rows_of(output))
        if layer == max(layers):
            raise _AllRead

    known = decoder_layers(module)
    token = _READING.set(here)
    handles = [known[layer].register_forward_hook(partial(hook, layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        _READING.reset(token)
