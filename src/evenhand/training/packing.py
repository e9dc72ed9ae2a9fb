"""Packed sequences: many in one row, none of which attends to another, so that there is hardly any padding.

A probe shows which layouts a model supports. Most models of transformers take position ids that begin again as the
border of a sequence; some need a mask that states the borders; for the others each sequence has a row of its own.

If the sequences of a batch share many tokens at their beginnings, its rows are prefix tries instead, in which a shared
prefix is fed once (`evenhand.training.shared_prefixes`).
"""

from __future__ import annotations

import inspect
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.inference.prefix_trie import Pack
from evenhand.inference.requests import buckets
from evenhand.inference.scoring import evaluating, input_device
from evenhand.inference.support_probe import PROBE, REFUSALS, exact_up_to, inner, near
from evenhand.training.hidden import NODES, final_hidden
from evenhand.training.shared_prefixes import TOKEN_CELLS, drops_out, fed, longest_trie, needed, read_places, tries

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORED = -100
"""Label of tokens that are not predicted."""

Kind = Literal["positions", "mask", "padding"]
KINDS: tuple[Kind, ...] = ("positions", "mask", "padding")
"""Borders given by the position ids, by a mask [rows, 1, length, length], or by one sequence per row."""
WORTH = 0.9
"""Tries are fed if they have at most this fraction of the tokens that would be fed without sharing."""


class Layout(NamedTuple):
    """How sequences are laid out for a model, or for several at once."""

    kind: Kind
    limit: int = 10**9
    """Maximum length of sequences that share a row with others (`evenhand.inference.support_probe.exact_up_to`)."""
    dtype: torch.dtype = torch.float32
    """Data type of a mask."""
    shared: bool = False
    """Whether prefixes that sequences share are fed once, if that is worth it."""
    eager: bool = False
    """Whether the attention stores all of its weights, so that shared rows must be shorter."""


class Distinct(NamedTuple):
    """Places of hidden states, each state once."""

    places: Tensor
    """[n] places in the flattened [rows * length] table of a batch."""
    counts: Tensor
    """[n] number of tokens that are predicted from each."""


class Batch(NamedTuple):
    """Sequences laid out in rows.

    With shared prefixes, the rows that are fed have fewer tokens than the sequences. Labels, owners and the hidden
    states from `evenhand.training.final_hidden` are then one row [1, n]: the tokens of each sequence that have a label,
    and the tokens that these are predicted from.
    """

    inputs: dict[str, Any]
    """Arguments of `evenhand.training.final_hidden`; without `NODES` also those of the module."""
    labels: Tensor
    """[rows, length] `IGNORED` at padding and at the first token of each sequence, which nothing predicts."""
    owner: Tensor
    """[rows, length] index of the sequence that a token belongs to, among those packed; -1 at padding."""

    def distinct(self) -> Distinct:
        """Return the places of the flattened table from whose states a token is predicted, each state once."""
        counted = torch.nonzero(self.labels[:, 1:] != IGNORED)
        places = counted[:, 0] * self.labels.shape[1] + counted[:, 1]
        if NODES not in self.inputs:
            return Distinct(places, torch.ones_like(places))
        nodes, which, counts = self.inputs[NODES].flatten()[places].unique(return_inverse=True, return_counts=True)
        one = torch.empty_like(nodes).scatter_(0, which, places)  # any of the places of a node, as all have its state
        return Distinct(one, counts)

    @property
    def fed(self) -> int:
        """Number of tokens that go through the model, padding included."""
        return int(self.inputs["input_ids"].numel())

    def to(self, device: torch.device) -> Batch:
        """Move the batch to a device."""
        inputs = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in self.inputs.items()}
        return Batch(inputs, self.labels.to(device), self.owner.to(device))


def layout_of(*modules: PreTrainedModel, share: bool | None = None) -> Layout:
    """Find the densest layout that changes no result of any of the models; a teacher and a student share it.

    A probe compares hidden states: a sequence must give the same as alone, up to rounding, and bit for bit the same
    whatever precedes it in its row.

    Args:
        modules: Causal language models of transformers, adapters included.
        share: Whether prefixes that sequences share may be fed once. They then have one dropout mask for all
            sequences, so None shares them only if no model has dropout. False is for batches that are read without
            `evenhand.training.final_hidden`. A model that gives other results on a trie never shares.
    """
    limit = min(exact_up_to(module) for module in modules)
    dtype = modules[0].dtype
    fitting = (Layout(kind, limit, dtype) for kind in KINDS)
    found = next(x for x in fitting if x.kind == "padding" or all(_fits(module, x) for module in modules))
    share = not any(map(drops_out, modules)) if share is None else share
    if found.kind == "padding" or not share:
        return found
    shared = found._replace(shared=True, eager=any(m.config._attn_implementation == "eager" for m in modules))
    return shared if all(_fits(module, shared) for module in modules) else found


def pack(
    sequences: Sequence[Sequence[int]],
    layout: Layout,
    *,
    labels: Sequence[Sequence[int]] | None = None,
    length: int = 256,
    tokens: int = 2048,
) -> list[Batch]:
    """Lay sequences out in rows, and rows in batches, the longest first.

    Args:
        sequences: Token ids, at least one each.
        layout: From `layout_of`.
        labels: One label per token of each sequence: the token itself if it is to be predicted, else `IGNORED`. None
            predicts everything.
        length: Maximum number of tokens in a row of several sequences. Attention covers the whole row, so rows much
            longer than most sequences cost more than they save. A trie may be longer, up to `tokens`.
        tokens: Maximum number of tokens in a batch, padding included, as the memory allows; a longer row is a batch of
            its own.

    Raises:
        SettingsError: A sequence is empty, or does not have one label per token.
    """
    labels = sequences if labels is None else labels
    if [len(ids) for ids in sequences] != [len(row) for row in labels] or not all(map(len, sequences)):
        raise SettingsError("give at least one token in every sequence, and a label for every token")
    sizes = [len(ids) for ids in sequences]
    beside = [n for n, size in enumerate(sizes) if size <= layout.limit]
    alone = [n for n, size in enumerate(sizes) if size > layout.limit]
    if layout.shared and (shared := _shared(sequences, labels, beside, layout, length, tokens)):
        return [_batch(sequences, labels, [[n]], layout) for n in alone] + shared
    room = 0 if layout.kind == "padding" else length
    rows = [[beside[n] for n in row] for row in best_fit([sizes[n] for n in beside], room)]
    filled = [sum(sizes[n] for n in row) for row in rows]
    groups = [[[n]] for n in alone] + [[rows[r] for r in group] for group in buckets(filled, tokens)]
    return [_batch(sequences, labels, group, layout) for group in groups]


def best_fit(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Put items into bins, the largest first, each where the least room is left; a larger item has its own bin.

    Best-fit decreasing: for many items it needs at most 11/9 of the fewest bins (Johnson et al. 1974, SIAM J. Comput.
    3(4), 299-325), like first-fit decreasing, which takes longer to find its bins.

    Args:
        sizes: Sizes of the items.
        room: Size of a bin.

    Returns:
        Per bin the indices of its items.
    """
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # room left and bin, ascending
    for n in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        at = bisect_left(free, (sizes[n], -1))
        left, chosen = free.pop(at) if at < len(free) else (room, len(bins))
        if chosen == len(bins):
            bins.append([])
        bins[chosen].append(n)
        if left > sizes[n]:
            insort(free, (left - sizes[n], chosen))
    return bins


def _batch(
    sequences: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], rows: Sequence[Sequence[int]], layout: Layout
) -> Batch:
    longest = max(sum(len(sequences[n]) for n in row) for row in rows)
    ids, positions = (torch.zeros((len(rows), longest), dtype=torch.long) for _ in range(2))
    wanted, owner = torch.full_like(ids, IGNORED), torch.full_like(ids, -1)
    for r, row in enumerate(rows):
        start = 0
        for n in row:
            part = slice(start, start + len(sequences[n]))
            ids[r, part], wanted[r, part] = torch.tensor(sequences[n]), torch.tensor(labels[n])
            positions[r, part], owner[r, part] = torch.arange(len(sequences[n])), n
            wanted[r, start] = IGNORED
            start += len(sequences[n])
        positions[r, start:] = torch.arange(longest - start)  # padding is a sequence of its own
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}  # with a cache, borders would be ignored
    if layout.kind == "padding":
        return Batch({**inputs, "attention_mask": (owner >= 0).long()}, wanted, owner)
    inputs["position_ids"] = positions
    if layout.kind == "mask":
        inputs["attention_mask"] = _mask(owner, layout.dtype)
    return Batch(inputs, wanted, owner)


def _shared(
    sequences: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    which: Sequence[int],
    layout: Layout,
    length: int,
    tokens: int,
) -> list[Batch]:
    """Return batches of tries; none if the sequences share too little."""
    wanted = needed(sequences, labels, IGNORED, which)
    found = tries(wanted.ids, longest_trie(length, tokens, layout.eager))
    sizes = [len(trie.tokens) for trie in found]
    if sum(sizes) > WORTH * sum(map(len, wanted.ids)):
        return []
    groups = min(
        (_groups(sizes, room, tokens) for room in [length * n // 8 for n in (8, 7, 6, 5, 4)]), key=_cost(sizes)
    )
    return [
        _shared_batch(sequences, labels, wanted.which, [[found[n] for n in row] for row in group], layout)
        for group in groups
    ]


def _groups(sizes: Sequence[int], room: int, tokens: int) -> list[list[list[int]]]:
    """Group items by batch and row; a row of several items has at most `room` tokens."""
    rows = best_fit(sizes, room)
    groups = buckets([sum(sizes[n] for n in row) for row in rows], tokens)
    return [[rows[r] for r in group] for group in groups]


def _cost(sizes: Sequence[int]) -> Callable[[list[list[list[int]]]], float]:
    """Return a function for the cost of feeding grouped items, in tokens, with padding and attention."""

    def cost(groups: list[list[list[int]]]) -> float:
        longest = [max(sum(sizes[n] for n in row) for row in group) for group in groups]
        return sum(len(g) * length * (1 + length / TOKEN_CELLS) for g, length in zip(groups, longest, strict=True))

    return cost


def _shared_batch(
    sequences: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    which: Sequence[int],
    rows: Sequence[Sequence[Pack]],
    layout: Layout,
) -> Batch:
    """Make a batch of tries, whose rows are places in `which`."""
    made = fed(rows, layout.dtype)
    nodes, wanted, owner = [], [], []
    for at, path in made.paths.items():
        n = which[at]
        places = read_places(labels[n], IGNORED)
        nodes.append(path[torch.tensor(places).clamp_max(len(path) - 1)])  # the last token is neither fed nor read
        wanted.append(torch.tensor([labels[n][place] if place else IGNORED for place in places]))
        owner.append(torch.full((len(places),), n))
    inputs = {"input_ids": made.ids, "use_cache": False, "position_ids": made.positions, "attention_mask": made.mask}
    flat = [torch.cat(parts)[None] for parts in (nodes, wanted, owner)]
    return Batch({**inputs, NODES: flat[0]}, flat[1], flat[2])


def _mask(owner: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the additive mask, [rows, 1, length, length]: 0 for a token itself and earlier ones of its sequence."""
    place = torch.arange(owner.shape[1])
    seen = (owner[:, :, None] == owner[:, None, :]) & (place[:, None] >= place[None, :])
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def _fits(module: PreTrainedModel, layout: Layout) -> bool:
    if "position_ids" not in inspect.signature(inner(module).forward).parameters:
        return False
    words = int(module.config.get_text_config().vocab_size)
    asked = [[token % words for token in ids] for ids in PROBE]
    rows = [[0, 1, 4], [2, 3]]
    first = {len(asked) - 1} if layout.shared else {row[0] for row in rows}  # in a trie, one that shares nothing
    other = [[(token + 1) % words for token in ids] if n in first else ids for n, ids in enumerate(asked)]
    try:
        with evaluating(module):
            made, changed = (_by_sequence(module, _tried(x, rows, layout)) for x in (asked, other))
            plain = [final_hidden(module, input_ids=torch.tensor([ids]).to(made[0].device))[0] for ids in asked]
    except REFUSALS:
        return False
    same = all(torch.equal(made[n], changed[n]) for n in range(len(asked)) if n not in first)
    return same and all(near(one, two[: len(one)]) for one, two in zip(made, plain, strict=True))


def _tried(sequences: Sequence[Sequence[int]], rows: Sequence[Sequence[int]], layout: Layout) -> Batch:
    """Make a batch to probe a layout with."""
    if not layout.shared:
        return _batch(sequences, sequences, rows, layout)
    wanted = needed(sequences, sequences, IGNORED, range(len(sequences)))
    return _shared_batch(sequences, sequences, wanted.which, [tries(wanted.ids, 10**6)], layout)


def _by_sequence(module: PreTrainedModel, batch: Batch) -> list[Tensor]:
    """Return the hidden states of each sequence; in a trie all but the last, from which nothing is predicted."""
    batch = batch.to(input_device(module))
    hidden = final_hidden(module, **batch.inputs)
    last = -1 if NODES in batch.inputs else None
    return [hidden[(batch.owner == n).to(hidden.device)][:last] for n in range(int(batch.owner.max()) + 1)]
