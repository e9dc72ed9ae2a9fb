"""The engine: whole lists in, batches through the module, out-of-memory backed off, nothing computed twice."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from evenhand import cache
from evenhand.conversation import remembered
from evenhand.engine import budget
from evenhand.engine.decoding import Combine, Decoder
from evenhand.engine.forest import Finish, score_pack
from evenhand.engine.generation import generate_batch
from evenhand.engine.kept import Kept
from evenhand.engine.prepacked import Prepacked
from evenhand.engine.requests import Generated, Prompt, Request, buckets
from evenhand.engine.scoring import READ_ELEMENTS, evaluating, input_device, score_batch
from evenhand.engine.trie import packs
from evenhand.engine.trying import Tried, exact_up_to, try_out
from evenhand.errors import EvenhandError
from evenhand.interfaces import Sampling
from evenhand.progress import track

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Asked = TypeVar("Asked", Request, Prompt)
Out = TypeVar("Out")
Emit = Callable[[list[int], list[Out]], None]

AT_ONCE = 16
"""Replies that are handed over together: each time is a transaction of the cache."""
NO_ROOM = (
    "not enough memory for a single sequence of {tokens} tokens: "
    "use a smaller dtype, quantisation (load_in_4bit) or a device_map"
)


class Engine:
    """Runs requests on one module. Counts what it fed, so that sharing can be tested."""

    def __init__(
        self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int | None = None
    ) -> None:
        """Take a causal language model.

        Args:
            module: A causal language model of transformers, adapters included.
            tokenizer: Its tokenizer.
            batch_tokens: Padded tokens in a batch, tokens of rows that are continued side by side, and tree nodes in a
                pack. None is 8,192 on a CPU and 65,536 elsewhere, and of nodes what the free memory allows (see
                `evenhand.engine.budget`). Halved for good whenever the memory does not suffice.
        """
        self.module, self.tokenizer = module, tokenizer
        self.batch_tokens = batch_tokens or (8_192 if input_device(module).type == "cpu" else 65_536)
        self.pack_nodes = batch_tokens or budget.pack_nodes(module)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad_id = int(pad) if pad is not None else 0
        self.forwards = 0
        self.sequences = 0
        self.tokens = 0
        self._prepacked = Prepacked()

    def read(self, requests: Sequence[Request], fingerprint: str) -> list[tuple[float, ...]]:
        """Log-probabilities of all requests' reads, in order.

        Requests with the same ids are fed once. Answers come from the active cache where it has them and go there as
        each batch ends.
        """
        merged: dict[tuple[int, ...], dict[tuple[int, int], None]] = {}
        for r in requests:
            merged.setdefault(r.ids, {}).update(dict.fromkeys(r.reads))
        unique = [Request(ids, tuple(sorted(reads))) for ids, reads in merged.items()]
        keys = [cache.key(fingerprint, "read", r.ids, r.reads) for r in unique]

        kept = self._kept(fingerprint)
        values = self._through_cache(unique, keys, partial(self._score, kept), "scoring")
        lookup = {r.ids: dict(zip(r.reads, v, strict=True)) for r, v in zip(unique, values, strict=True)}
        return [tuple(lookup[r.ids][pair] for pair in r.reads) for r in requests]

    def _score(self, kept: Kept | None, todo: list[Request], emit: Emit[list[float]]) -> None:
        """Score over a tree of shared beginnings; sequence by sequence what the tree cannot do."""
        with evaluating(self.module), self._prepacked(self.module):
            window, finish = exact_up_to(self.module), self.tried.finish
            fit = [i for i, r in enumerate(todo) if finish is not None and len(r.ids) <= window]
            if finish is not None:
                self._in_packs(todo, fit, finish, kept if self.tried.continues else None, emit)
            apart = sorted({*range(len(todo))} - {*fit})
            self._in_batches([todo[i] for i in apart], lambda rows, values: emit([apart[r] for r in rows], values))

    @cached_property
    def tried(self) -> Tried:
        """Whether this model can be run on a tree of tokens; found out once, and said where it cannot."""
        with evaluating(self.module):
            tried = try_out(self.module)
        if tried.finish is None:
            warnings.warn(f"prompts are read without sharing their beginnings: {tried.reason}", stacklevel=2)
        elif not tried.continues:
            warnings.warn("replies are written by transformers' own loop, which shares no beginnings", stacklevel=2)
        return tried

    def _kept(self, fingerprint: str) -> Kept | None:
        """What this model keeps within a conversation; an edit of its weights begins anew."""
        return remembered((id(self), fingerprint), lambda: Kept(budget.kept_bytes(self.module)))

    def _in_packs(
        self, todo: list[Request], rows: list[int], finish: Finish, kept: Kept | None, emit: Emit[list[float]]
    ) -> None:
        """Pack by pack; after one that does not fit the memory the rest is cut into packs of half its size."""
        while rows:
            left, asked = set(rows), [todo[i] for i in rows]
            known = None if kept is None else [kept.find(r.ids, min(p for p, _ in r.reads)) for r in asked]
            for pack in packs([r.ids for r in asked], self.pack_nodes, known):
                mine = [rows[r] for r in pack.rows]
                values = self._unless_out_of_memory(
                    partial(score_pack, self.module, pack, asked, finish, kept), len(mine), len(pack.tokens)
                )
                if values is None:
                    self.pack_nodes = max(1, len(pack.tokens) // 2)
                    break
                self.tokens += len(pack.tokens)
                left -= set(mine)
                emit(mine, values)
            rows = [i for i in rows if i in left]

    def _in_batches(self, todo: list[Request], emit: Emit[list[float]]) -> None:
        vocabulary = int(getattr(self.module.config.get_text_config(), "vocab_size", 50_000))
        most = max(256, READ_ELEMENTS // vocabulary)
        self._batched(
            [len(r.ids) for r in todo], [len(r.reads) for r in todo], most,
            lambda rows: [list(v) for v in score_batch(self.module, [todo[i] for i in rows], self.pad_id)], emit,
        )  # fmt: skip

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, fingerprint: str, combine: Combine | None = None
    ) -> list[Generated]:
        """Continue all prompts, in order. Greedy requests differ only in their ids, so draws are then one request.

        Args:
            prompts: All with equally many sequences beside them.
            sampling: How tokens are drawn.
            fingerprint: Of everything that decides the replies, `combine` included.
            combine: How the logits of a prompt and of the sequences beside it become one.
        """
        if sampling.temperature == 0:
            prompts = [p._replace(draw=0) for p in prompts]
        unique = list(dict.fromkeys(prompts))
        knobs = (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.stop)
        seed = sampling.seed if sampling.temperature > 0 else 0
        keys = [cache.key(fingerprint, "generate", p.ids, p.draw, knobs, seed, *p.beside) for p in unique]

        def compute(todo: list[Prompt], emit: Emit[list[Any]]) -> None:
            self._continue(todo, sampling, combine, self._kept(fingerprint), emit)

        values = self._through_cache(unique, keys, compute, "generating")
        made = {p: Generated(tuple(v[0]), v[1], v[2]) for p, v in zip(unique, values, strict=True)}
        return [made[p] for p in prompts]

    def _continue(
        self, todo: list[Prompt], sampling: Sampling, combine: Combine | None, kept: Kept | None, emit: Emit[list[Any]]
    ) -> None:
        """Continue over a tree of prompts; by transformers' own loop what the tree cannot do.

        Raises:
            EvenhandError: The tree cannot be used, and other sequences have a say in the tokens.
        """
        with evaluating(self.module), self._prepacked(self.module):
            window, tried = exact_up_to(self.module), self.tried
            longest = [max(map(len, (p.ids, *p.beside))) + sampling.max_new_tokens for p in todo]
            fit = [i for i, length in enumerate(longest) if tried.finish and tried.continues and length <= window]
            if tried.finish is not None and fit:
                decoder = partial(
                    Decoder, self.module, self.tokenizer, sampling, tried.finish, combine=combine, kept=kept
                )
                self._decode(decoder, todo, fit, max(longest[i] for i in fit), emit)
            apart = sorted({*range(len(todo))} - {*fit})
            if apart and combine is not None:
                raise EvenhandError(
                    f"{type(self.module).__name__} cannot be guided by other texts: "
                    + (tried.reason or f"{len(apart)} texts are longer than its attention window")
                )
            self._batched(
                [longest[i] for i in apart], None, 0,
                lambda rows: [
                    list(g) for g in generate_batch(
                        self.module, self.tokenizer, [todo[apart[r]] for r in rows], sampling, self.pad_id)
                ], lambda rows, values: emit([apart[r] for r in rows], values),
            )  # fmt: skip

    def _decode(
        self, new_decoder: Callable[[], Decoder], todo: list[Prompt], rows: list[int], room: int, emit: Emit[list[Any]]
    ) -> None:
        """Row by row as they end; what did not fit the memory begins anew with half as many at once."""
        while rows:
            decoder, places = new_decoder(), max(1, self.batch_tokens // room)
            ended = _handed_over(decoder.run([todo[i] for i in rows], self.pack_nodes, places), rows, emit)
            self.forwards, self.tokens = self.forwards + decoder.forwards, self.tokens + decoder.tokens
            self.sequences += len(ended)
            rows = [i for i in rows if i not in ended]
            if not rows:
                return
            if places == 1 and self.pack_nodes <= room:
                raise EvenhandError(NO_ROOM.format(tokens=room))
            self.batch_tokens, self.pack_nodes = max(1, places * room // 2), max(1, self.pack_nodes // 2)
            _empty_cache()

    def _through_cache(
        self, unique: list[Asked], keys: list[str], compute: Callable[[list[Asked], Emit[Out]], None], label: str
    ) -> list[Out]:
        store = cache.active()
        known: dict[str, Out] = {} if store is None else store.get(keys)
        todo = [i for i, k in enumerate(keys) if k not in known]
        with track(len(todo), label) as step:

            def emit(rows: list[int], values: list[Out]) -> None:
                fresh = {keys[todo[r]]: v for r, v in zip(rows, values, strict=True)}
                known.update(fresh)
                if store is not None:
                    store.put(fresh)
                step(len(rows))

            if todo:
                compute([unique[i] for i in todo], emit)
        return [known[k] for k in keys]

    def _batched(
        self, lengths: list[int], widths: list[int] | None, width: int,
        run: Callable[[list[int]], list[Out]], emit: Emit[Out],
    ) -> None:  # fmt: skip
        """Run bucket by bucket; a bucket that does not fit is cut in two, and the budget stays halved."""
        waiting = list(buckets(lengths, self.batch_tokens, widths, width))
        waiting.reverse()
        with evaluating(self.module):
            while waiting:
                rows = waiting.pop()
                longest = lengths[rows[0]]
                values = self._unless_out_of_memory(partial(run, rows), len(rows), longest)
                if values is None:
                    self.batch_tokens = max(1, len(rows) * longest // 2)
                    rest = sorted(rows + [i for group in waiting for i in group])
                    again = buckets(
                        [lengths[i] for i in rest],
                        self.batch_tokens,
                        [widths[i] for i in rest] if widths else None,
                        width,
                    )
                    waiting = [[rest[i] for i in group] for group in again][::-1]
                    continue
                self.tokens += len(rows) * longest
                emit(rows, values)

    def _unless_out_of_memory(self, run: Callable[[], list[Out]], sequences: int, tokens: int) -> list[Out] | None:
        """What was computed; None where the memory did not suffice.

        Raises:
            EvenhandError: It did not suffice for a single sequence.
        """
        try:
            values = run()
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            if sequences == 1:
                raise EvenhandError(NO_ROOM.format(tokens=tokens)) from error
        else:
            self.forwards += 1
            self.sequences += sequences
            return values
        _empty_cache()  # outside the handler, whose traceback would keep the big tensors alive
        return None


def _handed_over(made: Iterator[tuple[int, Generated]], rows: list[int], emit: Emit[list[Any]]) -> set[int]:
    """Hand over what ends, a few at a time; when the memory does not suffice that is the end.

    Returns:
        The rows that have ended.
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
        if not _out_of_memory(error):
            raise
    finally:
        flush()
    return ended


def _empty_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _out_of_memory(error: RuntimeError) -> bool:
    """CUDA has an error class of its own; the CPU allocator only a message."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text
