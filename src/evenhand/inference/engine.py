"""The engine: runs whole lists in as few forwards as possible, backs off if memory is short, computes nothing twice."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from evenhand.errors import EvenhandError
from evenhand.inference import memory_budget
from evenhand.inference.activation_edits import ActivationEdit
from evenhand.inference.batching import (
    NO_ROOM,
    Batches,
    any_nan,
    empty_cache,
    has_note,
    of_equal_length,
    out_of_memory,
    read_once,
    set_aside,
    told_apart,
    widest,
    write_once,
)
from evenhand.inference.cached import Emit
from evenhand.inference.decoder_layers import check_layers
from evenhand.inference.decoding import Decoder
from evenhand.inference.edit_hooks import check_honoured, installed, without_edit
from evenhand.inference.edited_tokens import first_edited_of, symbols
from evenhand.inference.generation import LOGIT_KNOBS, generate_batch, prescribed
from evenhand.inference.loop_probe import Together, together
from evenhand.inference.prefix_trie import packs
from evenhand.inference.prepacked import Prepacked
from evenhand.inference.requests import Generated, Prompt, Request
from evenhand.inference.sampling import no_reply
from evenhand.inference.scoring import check_ids, evaluating, input_device, score_batch
from evenhand.inference.session_kv_cache import Kept
from evenhand.inference.support_probe import Tried, exact_up_to, try_out
from evenhand.inference.transfers import asynchronous
from evenhand.inference.tree_forward import Finish, score_pack
from evenhand.inference.tree_kernels import GATHERED, checked, using
from evenhand.interfaces import Combine, Sampling
from evenhand.prompting.sessions import is_last_turn, remembered

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TREE_KERNEL = "EVENHAND_TREE_KERNEL"
"""Environment variable with the name of the tree attention kernel; it affects engines made after it is set."""
AT_ONCE = 16
"""Number of replies that are emitted together: each emission is a transaction of the cache."""


class Engine(Batches):
    """Runs requests on one causal language model."""

    def __init__(
        self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int | None = None
    ) -> None:
        """Make an engine for a causal language model.

        Args:
            module: A transformers causal language model, adapters included.
            tokenizer: Its tokenizer.
            batch_tokens: Padded tokens in a batch, tokens of rows that are continued side by side, and tree nodes in a
                pack. None uses what the free memory allows (see `evenhand.inference.memory_budget`), and 8,192 padded
                tokens on a CPU and 65,536 elsewhere. Halved permanently whenever memory does not suffice.
        """
        super().__init__(module, batch_tokens)
        self.tokenizer = tokenizer
        self.pack_nodes = batch_tokens or memory_budget.pack_nodes(module)
        self.row_tokens = batch_tokens or memory_budget.row_tokens(module)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad_id = int(pad) if pad is not None else 0
        self.edit: ActivationEdit | None = None
        """Edit of the activations; None if there is none."""
        self.tree_kernel = checked(os.environ.get(TREE_KERNEL) or GATHERED)
        """Kernel of the tree attention (see `evenhand.inference.tree_kernels`)."""
        self._batch_tokens = batch_tokens
        self._prepacked = Prepacked()

    def edited(self, edit: ActivationEdit) -> Engine:
        """Return an engine of the same module with edited activations; this one is unchanged and stays usable.

        Args:
            edit: Edit that is applied after this engine's own edit, if it has one.

        Raises:
            SettingsError: The edit does not fit the module's layers or hidden size, or the scope of its present edit.
        """
        if edit.is_identity:
            return self
        check_layers(self.module, [*edit.layers], edit.hidden_size)
        made = Engine(self.module, self.tokenizer, self._batch_tokens)
        made.edit = edit if self.edit is None else self.edit.then(edit)
        made.tree_kernel = self.tree_kernel
        made._prepacked = self._prepacked  # it copies the weights, which are the same
        return made

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run forwards within the block: without dropout and gradients, with prepacked weights and the edit."""
        kernel = using(self.tree_kernel)
        with evaluating(self.module), self._prepacked(self.module), installed(self.edit, self.module), kernel:
            yield

    def weights_changed(self) -> None:
        """Drop what was derived from the old weights."""
        self._prepacked.forget()

    @cached_property
    def tried(self) -> Tried:
        """Result of the support probe for trees of tokens; it runs once, and warns of what is not supported."""
        with evaluating(self.module), installed(self.edit, self.module), using(self.tree_kernel):
            if self.edit is not None:
                check_honoured(self.module, self.edit)
            tried = try_out(self.module)
        if tried.finish is None:
            warnings.warn(f"prompts are read without sharing their beginnings: {tried.reason}", stacklevel=2)
        elif not tried.continues:
            warnings.warn("replies are written by transformers' own loop, which shares no beginnings", stacklevel=2)
        return tried

    def _kept(self, fingerprint: str) -> Kept | None:
        """Return the KV cache of the conversation; it starts afresh after an edit of the weights."""
        kept = remembered((id(self), fingerprint), lambda: Kept(memory_budget.kept_bytes(self.module)))
        if kept is not None:
            kept.grows = not is_last_turn()
        return kept

    # ------------------------------------------------------------------------------------------------ scoring

    def read(self, requests: Sequence[Request], fingerprint: str) -> list[tuple[float, ...]]:
        """Return the log-probabilities of all requests' reads, in order; nan, with a warning, if logits are not finite.

        Requests with the same ids are fed once. Known answers are taken from the active cache; new ones are stored as
        each batch ends.
        """
        values = read_once(requests, fingerprint, "read", partial(self._score, self._kept(fingerprint)), self.edit)
        self.warn_not_finite(sum(map(any_nan, values)), len(values))
        return values

    def _score(self, kept: Kept | None, todo: list[Request], emit: Emit[list[float]]) -> None:
        """Score over a tree of shared beginnings; sequence by sequence if the tree is not possible or gives nan."""
        check_ids(self.module, (r.ids for r in todo))
        aside: list[int] = []
        whole = set_aside(emit, any_nan, aside)
        with self.running():
            window, finish = exact_up_to(self.module), self.tried.finish
            fit = [i for i, r in enumerate(todo) if finish is not None and len(r.ids) <= window]
            if finish is not None:
                self._in_packs(todo, fit, finish, kept if self.tried.continues else None, whole)
            self._in_rows(todo, sorted({*range(len(todo))} - {*fit}), whole)
            for rows in of_equal_length(aside, [len(r.ids) for r in todo]):
                self._in_rows(todo, rows, emit)

    def _in_rows(self, todo: list[Request], rows: list[int], emit: Emit[list[float]]) -> None:
        """Score sequences in padded batches."""
        self.run(
            [len(r.ids) for r in todo],
            lambda some: [list(v) for v in score_batch(self.module, [todo[i] for i in some], self.pad_id)],
            emit,
            rows=rows,
            widths=[len(r.reads) for r in todo],
            width=widest(self.module.config.get_text_config()),
        )

    def _in_packs(
        self, todo: list[Request], rows: list[int], finish: Finish, kept: Kept | None, emit: Emit[list[float]]
    ) -> None:
        """Score pack by pack; after one that does not fit into memory, the rest is cut into packs of half its size."""
        while rows:
            left, asked = set(rows), [todo[i] for i in rows]
            ids = [r.ids if self.edit is None else symbols(r.ids, first_edited_of(self.edit, r)) for r in asked]
            firsts = (min(r.reads)[0] for r in asked)
            known = None if kept is None else [kept.find(*pair) for pair in zip(ids, firsts, strict=True)]
            with self._handing_over(emit) as hand_over:
                for pack in packs(ids, self.pack_nodes, known):
                    mine = [rows[r] for r in pack.rows]
                    values = self.attempt(
                        partial(score_pack, self.module, pack, asked, finish, kept), len(mine), len(pack.tokens)
                    )
                    if values is None:
                        self.pack_nodes = max(1, len(pack.tokens) // 2)
                        break
                    self.tokens += len(pack.tokens)
                    left -= set(mine)
                    hand_over(mine, values)
            rows = [i for i in rows if i in left]

    @contextmanager
    def _handing_over(
        self, emit: Emit[list[float]]
    ) -> Iterator[Callable[[list[int], Callable[[], list[list[float]]]], None]]:
        """Emit the values of packs; on a GPU each when the next one is queued, so that the device always has work."""
        lag = int(asynchronous(input_device(self.module)))
        queued = deque[tuple[list[int], Callable[[], list[list[float]]]]]()

        def hand_over(rows: list[int], values: Callable[[], list[list[float]]]) -> None:
            queued.append((rows, values))
            if len(queued) > lag:
                first, fetch = queued.popleft()
                emit(first, fetch())

        try:
            yield hand_over
        finally:  # even if an error has stopped the rest
            for rows, fetch in queued:
                emit(rows, fetch())

    # --------------------------------------------------------------------------------------------- generation

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, fingerprint: str, combine: Combine | None = None
    ) -> list[Generated]:
        """Continue all prompts, in order. Greedy requests differ only in their ids, so their draws share one request.

        A reply whose logits are not finite is empty and has a note, with a warning.

        Args:
            prompts: Prompts, each with the same number of sequences next to it.
            sampling: How tokens are drawn.
            fingerprint: Fingerprint of everything that determines the replies, `combine` included.
            combine: Combines the logits of a prompt and of the sequences next to it.
        """
        once = ("plain",) if prescribed(self.module, LOGIT_KNOBS) else ()  # earlier versions followed these settings

        def compute(todo: list[Prompt], emit: Emit[list[Any]]) -> None:
            self._continue(todo, sampling, combine, self._kept(fingerprint), emit)

        prompts = told_apart(prompts, sampling)
        made = write_once(prompts, sampling, fingerprint, compute, once)
        self.warn_not_finite(sum(bool(g.note) for g in made.values()), len(made))
        return [made[p] for p in prompts]

    def _continue(
        self, todo: list[Prompt], sampling: Sampling, combine: Combine | None, kept: Kept | None, emit: Emit[list[Any]]
    ) -> None:
        """Continue over a tree of prompts, or by transformers' own loop if the tree is not possible.

        Raises:
            EvenhandError: The tree cannot be used, but the tokens depend on other sequences.
        """
        check_ids(self.module, (ids for p in todo for ids in (p.ids, *p.beside)))
        aside: list[int] = []
        whole = set_aside(emit, has_note, aside)
        with self.running():
            window, tried = exact_up_to(self.module), self.tried
            longest = [max(map(len, (p.ids, *p.beside))) + sampling.max_new_tokens for p in todo]
            fit = [i for i, length in enumerate(longest) if tried.continues and length <= window]
            if tried.finish is not None and fit:
                decoder = partial(Decoder, self.module, self.tokenizer, sampling, tried.finish, combine=combine)
                self._decode(partial(decoder, kept=kept), todo, fit, max(longest[i] for i in fit), whole)
                for i in aside.copy():
                    self._decode(decoder, todo, [i], longest[i], emit)
                aside.clear()
            apart = sorted({*range(len(todo))} - {*fit})
            if apart and combine is not None:
                if not tried.finite:
                    return emit(apart, [list(no_reply()) for _ in apart])
                raise EvenhandError(
                    f"{type(self.module).__name__} cannot be guided by other texts: "
                    + (tried.reason or f"{len(apart)} texts are longer than its attention window; shorten them")
                )
            self._by_their_loop(todo, sampling, apart, longest, whole)
            for rows in of_equal_length(aside, [len(p.ids) for p in todo]):
                self._by_their_loop(todo, sampling, rows, longest, emit)

    def _by_their_loop(
        self, todo: list[Prompt], sampling: Sampling, rows: list[int], longest: Sequence[int], emit: Emit[list[Any]]
    ) -> None:
        """Continue by transformers' own loop, in batches as far as that changes no reply."""

        def write(some: list[int]) -> list[list[Any]]:
            batch = [todo[i] for i in some]
            return [list(g) for g in generate_batch(self.module, self.tokenizer, batch, sampling, self.pad_id)]

        way = "all" if len(rows) < 2 else self._together
        lengths = [len(p.ids) for p in todo]
        groups = {"all": [rows], "equal length": of_equal_length(rows, lengths), "none": ([row] for row in rows)}
        for group in groups[way]:
            self.run(longest, write, emit, rows=group)

    @cached_property
    def _together(self) -> Together:
        """Which rows transformers' own loop continues in a batch as it does alone, whatever the edit."""
        with evaluating(self.module), without_edit():
            return together(self.module, self.pad_id)

    def _decode(
        self, new_decoder: Callable[[], Decoder], todo: list[Prompt], rows: list[int], room: int, emit: Emit[list[Any]]
    ) -> None:
        """Continue rows, and emit them as they end; if memory is short, the rest restarts with half as many at once."""
        while rows:
            decoder, places = new_decoder(), max(1, min(len(rows), self.row_tokens // room))
            ended = _handed_over(decoder.run([todo[i] for i in rows], self.pack_nodes, places), rows, emit)
            self.forwards, self.tokens = self.forwards + decoder.forwards, self.tokens + decoder.tokens
            self.sequences += len(ended)
            rows = [i for i in rows if i not in ended]
            if not rows:
                return
            if places == 1 and self.pack_nodes <= room:
                raise EvenhandError(NO_ROOM.format(tokens=room))
            self.row_tokens, self.pack_nodes = max(1, places * room // 2), max(1, self.pack_nodes // 2)
            empty_cache()


def _handed_over(made: Iterator[tuple[int, Generated]], rows: list[int], emit: Emit[list[Any]]) -> set[int]:
    """Emit finished rows, a few at a time; stop when memory does not suffice.

    Returns:
        The rows that have finished.
    """
    waiting: dict[int, list[Any]] = {}
    ended: set[int] = set()

    def flush() -> None:
        ended.update(waiting)
        emit([*waiting], [*waiting.values()])
        waiting.clear()

    try:
        for n, reply in made:
            waiting[rows[n]] = list(reply)
            if len(waiting) == AT_ONCE:
                flush()
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    finally:
        flush()
    return ended
