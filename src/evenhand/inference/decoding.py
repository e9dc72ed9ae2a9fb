"""Generation over a tree of prompts: shared beginnings are read once, then rows continue token by token.

Finished rows leave immediately and others take their places, so that no forward is spent on finished ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evenhand.inference.attention import attending
from evenhand.inference.edit_hooks import edit_here, editing_rows
from evenhand.inference.edited_tokens import NEVER, first_edited, symbols
from evenhand.inference.kv_slots import Slots
from evenhand.inference.listening import is_left, listener
from evenhand.inference.prefix_trie import Indices, packs
from evenhand.inference.requests import Generated, Prompt
from evenhand.inference.sampling import end_tokens, finite, no_reply, pick, reply, stopped, uniforms
from evenhand.inference.scoring import input_device
from evenhand.inference.session_kv_cache import Kept
from evenhand.inference.tree_attention import KeysValues
from evenhand.inference.tree_forward import Finish, hidden_states, logits_in_chunks
from evenhand.interfaces import Array, Combine, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class _Row:
    """A prompt that is being continued."""

    index: int
    prompt: Prompt
    uniform: Array
    made: Mapping[int, KeysValues]
    """Keys and values of its prompt; shared by the rows of a pack, and freed with the last of them."""
    paths: list[Indices]
    """Nodes of the prompt, and of each sequence next to it."""
    new: list[int] = field(default_factory=list)
    broken: bool = False
    """Whether its logits were not finite."""
    left: bool = False
    """Whether its reply is no longer needed."""


class Decoder:
    """Continues prompts on one model."""

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        finish: Finish,
        *,
        combine: Combine | None = None,
        kept: Kept | None = None,
    ) -> None:
        """Prepare, under the installed activation edit; nothing is run yet.

        Args:
            module: The model; it must have passed the support probe.
            tokenizer: Its tokenizer, for stop strings and texts.
            sampling: How tokens are drawn.
            finish: Output step found by the support probe.
            combine: Combines the logits of a prompt and of the sequences next to it; None uses the prompt's own.
            kept: Store of known nodes, in which newly read ones are kept.
        """
        self.module, self.tokenizer, self.sampling, self.finish = module, tokenizer, sampling, finish
        self.combine, self.kept, self.edit = combine, kept, edit_here()
        self.ends = end_tokens(module, tokenizer)
        self.listener = listener()
        self.tokens = self.forwards = 0

    def run(self, prompts: Sequence[Prompt], nodes: int, places: int) -> Iterator[tuple[int, Generated]]:
        """Continue prompts; yield each with its index as soon as it is finished.

        Args:
            prompts: Prompts, each with the same number of sequences next to it.
            nodes: Maximum number of tree nodes that are read at once.
            places: Maximum number of prompts that are continued at once.
        """
        lanes = 1 + len(prompts[0].beside)
        room = max(len(ids) for p in prompts for ids in (p.ids, *p.beside)) + self.sampling.max_new_tokens
        slots, active = Slots(places * lanes, room), list[_Row]()
        unread, waiting = self._read(prompts, max(1, nodes // lanes)), deque[_Row]()
        while True:
            if len(active) <= places // 2:  # reading a pack for a few free places would delay the others
                while len(active) + len(waiting) < places and (rows := next(unread, None)) is not None:
                    for row, over in zip(rows, self._over(rows), strict=True):
                        if over:
                            yield row.index, self._reply(row)
                        else:
                            waiting.append(row)
            _admit(slots, active, [waiting.popleft() for _ in range(min(len(waiting), places - len(active)))])
            if not active:
                return
            self._step(slots, active, lanes)
            yield from self._leave(slots, active, lanes)

    def _read(self, prompts: Sequence[Prompt], nodes: int) -> Iterator[list[_Row]]:
        """Read prompts pack by pack; yield their rows with the first token drawn."""
        for group in packs([self._symbols(p.ids) for p in prompts], nodes):
            asked = [prompts[i] for i in group.rows]
            sequences = [self._symbols(ids) for p in asked for ids in (p.ids, *p.beside)]
            kept = self.kept
            found = None if kept is None else [kept.find(ids, len(ids) - 1) for ids in sequences]
            pack = next(packs(sequences, 10**9, found))
            path_of = dict(zip(pack.rows, pack.paths, strict=True))
            paths = [path_of[n] for n in range(len(sequences))]
            hidden, tree = hidden_states(self.module, pack, [int(path[-1]) for path in paths], kept, keep=True)
            self.tokens, self.forwards = self.tokens + len(pack.tokens), self.forwards + 1
            lanes = len(sequences) // len(asked)
            rows = [
                _Row(i, p, uniforms(p, self.sampling), tree.made, paths[n * lanes : (n + 1) * lanes])
                for n, (i, p) in enumerate(zip(group.rows, asked, strict=True))
            ]
            logits = logits_in_chunks(hidden, self.module, self.finish, lanes)
            self._choose(rows, logits)
            yield rows

    def _symbols(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Return a prompt or accompanying sequence with the flags of edited tokens."""
        return symbols(ids, first_edited(self.edit, len(ids) - 1))

    def _step(self, slots: Slots, active: Sequence[_Row], lanes: int) -> None:
        """Feed the newest token of every active row, and draw the next."""
        device = input_device(self.module)
        tokens = torch.tensor([[row.new[-1]] for row in active for _ in range(lanes)], device=device)
        positions = torch.tensor(slots.positions(), device=device)[:, None]
        edited = editing_rows(torch.full(tokens.shape, self.edit is not None))
        with attending(self.module, slots), edited:
            out = self.module(input_ids=tokens, position_ids=positions, use_cache=False)
        self.tokens, self.forwards = self.tokens + len(tokens), self.forwards + 1
        self._choose(active, [out.logits[:, -1]])

    def _choose(self, rows: Sequence[_Row], chunks: Iterable[Tensor]) -> None:
        """Draw a token for every row; the logits come in chunks of whole rows and their accompanying sequences."""
        waiting = iter(rows)
        for chunk in chunks:
            lanes = len(rows[0].paths)
            logits = chunk.float().reshape(-1, lanes, chunk.shape[-1])
            combined = logits[:, 0] if self.combine is None else self.combine(logits)
            mine = list(islice(waiting, len(combined)))
            drawn = [row.uniform[len(row.new)] for row in mine] if self.sampling.temperature > 0 else []
            usable = finite(logits).all(1).tolist() if lanes > 1 else [True] * len(mine)
            for row, token, fine in zip(mine, pick(combined, self.sampling, drawn), usable, strict=True):
                if token is None or not fine:
                    row.broken = True
                else:
                    row.new.append(token)
                    row.left = self.listener is not None and is_left(self.listener, row.prompt, row.new)

    def _over(self, rows: Sequence[_Row]) -> list[bool]:
        """Return whether each row has ended."""
        found = stopped([row.new for row in rows], self.tokenizer, self.sampling.stop)
        most = self.sampling.max_new_tokens
        return [
            row.broken or row.left or stop or row.new[-1] in self.ends or len(row.new) >= most
            for row, stop in zip(rows, found, strict=True)
        ]

    def _leave(self, slots: Slots, active: list[_Row], lanes: int) -> Iterator[tuple[int, Generated]]:
        """Yield the rows that have ended; the last active ones take their places."""
        over = [n for n, ended in enumerate(self._over(active)) if ended]
        if not over:
            return
        for n in over:
            row = active[n]
            if row.broken:
                for lane in range(lanes):
                    slots.clear(n * lanes + lane)
            elif self.kept is not None and self.kept.grows:
                begin = len(row.prompt.ids)
                read = (*self._symbols(row.prompt.ids), *symbols(row.new[:-1], NEVER if self.edit is None else 0))
                self.kept.keep_continuation(read, begin, slots.kept(n * lanes, begin))
            yield row.index, self._reply(row)
        order = slots.drop([n * lanes + lane for n in over for lane in range(lanes)])
        active[:] = [active[place // lanes] for place in order[::lanes]]

    def _reply(self, row: _Row) -> Generated:
        return no_reply() if row.broken else reply(row.new, self.ends, self.sampling, self.tokenizer)


def _admit(slots: Slots, active: list[_Row], rows: Sequence[_Row]) -> None:
    """Assign places to rows; those of one pack are admitted together."""
    for _, group in groupby(rows, key=lambda row: id(row.made)):
        mine = list(group)
        slots.admit(mine[0].made, [path for row in mine for path in row.paths])
        active += mine
        for row in mine:
            row.made = {}
