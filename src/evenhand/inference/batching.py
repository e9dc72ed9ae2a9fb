"""Common parts of engines: requests are merged by ids, rows batched by length, and batches shrink to fit memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from evenhand.core import answer_cache
from evenhand.errors import EvenhandError
from evenhand.inference.activation_edits import ActivationEdit
from evenhand.inference.cached import Divide, Emit, through_cache
from evenhand.inference.edited_tokens import first_edited_of
from evenhand.inference.prefix_parts import of_prompts, of_requests
from evenhand.inference.requests import NOT_FINITE, Generated, Prompt, Request, buckets
from evenhand.inference.scoring import READ_ELEMENTS, input_device
from evenhand.interfaces import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Out = TypeVar("Out")
Made = TypeVar("Made")

NO_ROOM = (
    "not enough memory for a single sequence of {tokens} tokens: "
    "use a smaller dtype, quantisation (load_in_4bit) or a device_map"
)


def read_once(
    requests: Sequence[Request],
    fingerprint: str,
    verb: str,
    compute: Callable[[list[Request], Emit[list[float]]], None],
    edit: ActivationEdit | None = None,
    divide: Divide[Request] = of_requests,
) -> list[tuple[float, ...]]:
    """Return the values of all requests' reads, in order; requests are merged by ids, known answers not recomputed.

    Args:
        requests: Requests, in any order.
        fingerprint: Fingerprint of the model, edit included.
        verb: Name of the kind of request in the cache.
        compute: See `evenhand.inference.cached.through_cache`.
        edit: Edit of the model's activations; requests in which it edits different tokens are not merged.
        divide: See `evenhand.inference.cached.through_cache`.
    """
    rows: dict[tuple[int, ...] | tuple[tuple[int, ...], int], int] = {}
    reads: list[list[tuple[int, int]]] = []
    which = []
    for r in requests:
        row = rows.setdefault(r.ids if edit is None else (r.ids, first_edited_of(edit, r)), len(reads))
        which.append(row)
        if row == len(reads):
            reads.append(list(r.reads))
        else:
            reads[row] += r.reads
    firsts = dict(zip(reversed(which), reversed(requests), strict=True))
    unique = [Request(firsts[row].ids, tuple(sorted(set(some)))) for row, some in enumerate(reads)]

    def keys() -> list[str]:
        return [answer_cache.key(fingerprint, verb, ids, some) for ids, some in unique]

    values = through_cache(unique, keys, compute, "scoring", divide)
    return [_picked(r.reads, unique[row].reads, values[row]) for r, row in zip(requests, which, strict=True)]


def _picked(
    wanted: Sequence[tuple[int, int]], known: Sequence[tuple[int, int]], values: Sequence[float]
) -> tuple[float, ...]:
    """Return the values of some reads of a request that may have more."""
    if wanted == known:
        return tuple(values)
    found = dict(zip(known, values, strict=True))
    return tuple([found[pair] for pair in wanted])


def told_apart(prompts: Sequence[Prompt], sampling: Sampling) -> Sequence[Prompt]:
    """Return prompts as requests for replies: greedy ones differ only in their ids, so their draws are merged."""
    return prompts if sampling.temperature > 0 else [p._replace(draw=0) for p in prompts]


def write_once(
    prompts: Sequence[Prompt],
    sampling: Sampling,
    fingerprint: str,
    compute: Callable[[list[Prompt], Emit[list[Any]]], None],
    also: Sequence[str] = (),
) -> dict[Prompt, Generated]:
    """Return the reply to each prompt; equal prompts are merged, and known replies are not generated again.

    Args:
        prompts: Prompts from `told_apart`, in any order.
        sampling: How tokens are drawn.
        fingerprint: Fingerprint of everything else that determines the replies.
        compute: See `evenhand.inference.cached.through_cache`; its values are `Generated` as lists.
        also: Further parts of the cache keys.
    """
    unique = list(dict.fromkeys(prompts))
    knobs = (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.stop)
    seed = sampling.seed if sampling.temperature > 0 else 0
    keys = [answer_cache.key(fingerprint, "generate", p.ids, p.draw, knobs, seed, *p.beside, *also) for p in unique]
    values = through_cache(unique, keys, compute, "generating", partial(of_prompts, new_tokens=sampling.max_new_tokens))
    return {p: Generated(tuple(v[0]), *v[1:]) for p, v in zip(unique, values, strict=True)}


def has_note(reply: list[Any]) -> bool:
    """Return whether a reply, given as a list, has a note on why it is empty."""
    return bool(Generated(*reply).note)


def has_nan(values: Any) -> bool:
    """Return whether any of the numbers is nan."""
    return bool(np.isnan(np.asarray(values, dtype=np.float64)).any())


def any_nan(values: Sequence[float]) -> bool:
    """Return whether any log-probability is nan; faster than `has_nan` for a few numbers."""
    total = sum(values)
    return total != total and has_nan(values)  # the sum of +inf and -inf is nan, too


def set_aside(emit: Emit[Out], broken: Callable[[Out], bool], aside: list[int]) -> Emit[Out]:
    """Return an `emit` that passes on intact values, and collects the other rows, which must be run again alone.

    Attention multiplies what a row must not see by 0, and 0 times nan is nan: a row that is not finite spoils others
    that share its batch, through padding or their place in a tree.
    """

    def hand_over(rows: list[int], values: list[Out]) -> None:
        spoilt = [broken(v) for v in values]
        aside.extend(row for row, bad in zip(rows, spoilt, strict=True) if bad)
        whole = [n for n, bad in enumerate(spoilt) if not bad]
        if whole:
            emit([rows[n] for n in whole], [values[n] for n in whole])

    return hand_over


def of_equal_length(rows: Iterable[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield batches of rows of equal length, longest first; without padding, rows cannot affect each other."""
    some = list(rows)
    for length in sorted({lengths[i] for i in some}, reverse=True):
        yield [i for i in some if lengths[i] == length]


class Batches:
    """Runs rows in batches of similar length, and counts what was fed, so that sharing can be tested."""

    def __init__(self, module: PreTrainedModel, batch_tokens: int | None) -> None:
        """Prepare for a model; nothing is fed yet.

        Args:
            module: Model to run.
            batch_tokens: Padded tokens in a batch; halved permanently whenever memory does not suffice. None is 8,192
                on a CPU and 65,536 elsewhere.
        """
        self.module = module
        self.budget = batch_tokens or (8_192 if input_device(module).type == "cpu" else 65_536)
        self.forwards = 0
        self.sequences = 0
        self.tokens = 0
        self._warned = False

    def run(
        self,
        lengths: Sequence[int],
        run: Callable[[list[int]], list[Out]],
        emit: Emit[Out],
        *,
        rows: Iterable[int] | None = None,
        widths: Sequence[int] | None = None,
        width: int = 0,
    ) -> None:
        """Run bucket by bucket; after one that does not fit into memory, the rest runs in smaller ones.

        Args:
            lengths: Number of tokens of each row.
            run: Computes the values of rows, given their indices.
            emit: Receives the rows and their values.
            rows: Rows to run; None is all.
            widths: See `evenhand.inference.requests.buckets`.
            width: See `evenhand.inference.requests.buckets`.
        """
        left = list(range(len(lengths)) if rows is None else rows)
        while left:
            done: set[int] = set()
            parts = [widths[i] for i in left] if widths else None
            for group in buckets([lengths[i] for i in left], self.budget, parts, width):
                some = [left[g] for g in group]
                longest = lengths[some[0]]
                values = self.attempt(partial(run, some), len(some), longest)
                if values is None:
                    self.budget = max(1, len(some) * longest // 2)
                    break
                self.tokens += len(some) * longest
                done.update(some)
                emit(some, values)
            left = [i for i in left if i not in done]

    def warn_not_finite(self, broken: int, asked: int) -> None:
        """Warn, once per engine, that some answers cannot be computed."""
        if not broken or self._warned:
            return
        self._warned = True
        precision = str(next(self.module.parameters()).dtype).removeprefix("torch.")
        remedy = (
            "float16 overflows above 65,504: load the model in float32 or bfloat16 (dtype=float32)"
            if precision == "float16"
            else "no smaller precision is to blame: check the weights for nan and infinite values, or load the "
            "checkpoint again"
        )
        warnings.warn(
            f"{type(self.module).__name__} in {precision}: {NOT_FINITE} (nan or infinite) for {broken} of {asked} "
            f"requests. Their items stay unanswered; {remedy}",
            stacklevel=4,
        )

    def attempt(self, run: Callable[[], Made], sequences: int, longest: int) -> Made | None:
        """Run a forward, and return its result; None if memory did not suffice.

        Args:
            run: Runs one forward.
            sequences: Number of sequences that it feeds.
            longest: Number of tokens of the longest, for the error.

        Raises:
            EvenhandError: Memory did not suffice for a single sequence.
        """
        try:
            values = run()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if sequences == 1:
                raise EvenhandError(NO_ROOM.format(tokens=longest)) from error
        else:
            self.forwards += 1
            self.sequences += sequences
            return values
        empty_cache()  # outside the handler, whose traceback keeps large tensors alive
        return None


def widest(config: Any) -> int:
    """Return the maximum number of positions that a batch reads, so that their logits fit into memory."""
    return max(256, READ_ELEMENTS // int(getattr(config, "vocab_size", 50_000)))


def out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means out of memory: CUDA has a class for it, the CPU allocator only a message."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def empty_cache() -> None:
    """Return freed memory to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
