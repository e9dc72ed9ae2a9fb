"""What engines share: requests with the same ids are one, rows of like length go together, and memory is backed off."""

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
from evenhand.inference.cached import Emit, through_cache
from evenhand.inference.edited_tokens import first_edited_of
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
) -> list[tuple[float, ...]]:
    """Values of all requests' reads, in order; requests with the same ids are one, and known answers are not computed.

    Args:
        requests: In any order.
        fingerprint: Of the model, edit included.
        verb: Names the kind of request in the cache.
        compute: See `evenhand.inference.cached.through_cache`.
        edit: Of the model's activations; requests of which it edits other tokens stay apart.
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

    values = through_cache(unique, keys, compute, "scoring")
    return [_picked(r.reads, unique[row].reads, values[row]) for r, row in zip(requests, which, strict=True)]


def _picked(
    wanted: Sequence[tuple[int, int]], known: Sequence[tuple[int, int]], values: Sequence[float]
) -> tuple[float, ...]:
    """The values of some reads of a request that may have more."""
    if wanted == known:
        return tuple(values)
    found = dict(zip(known, values, strict=True))
    return tuple([found[pair] for pair in wanted])


def told_apart(prompts: Sequence[Prompt], sampling: Sampling) -> Sequence[Prompt]:
    """The prompts as requests for replies: greedy ones differ only in their ids, so their draws are one request."""
    return prompts if sampling.temperature > 0 else [p._replace(draw=0) for p in prompts]


def write_once(
    prompts: Sequence[Prompt],
    sampling: Sampling,
    fingerprint: str,
    compute: Callable[[list[Prompt], Emit[list[Any]]], None],
    also: Sequence[str] = (),
) -> dict[Prompt, Generated]:
    """The reply to each prompt; equal prompts are one, and known replies are not written again.

    Args:
        prompts: From `told_apart`, in any order.
        sampling: How tokens are drawn.
        fingerprint: Of everything else that decides the replies.
        compute: See `evenhand.inference.cached.through_cache`; gives a `Generated` as a list.
        also: Further parts of the names in the cache.
    """
    unique = list(dict.fromkeys(prompts))
    knobs = (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.stop)
    seed = sampling.seed if sampling.temperature > 0 else 0
    keys = [answer_cache.key(fingerprint, "generate", p.ids, p.draw, knobs, seed, *p.beside, *also) for p in unique]
    values = through_cache(unique, keys, compute, "generating")
    return {p: Generated(tuple(v[0]), *v[1:]) for p, v in zip(unique, values, strict=True)}


def has_note(reply: list[Any]) -> bool:
    """Whether a reply, as a list, is empty for a reason."""
    return bool(Generated(*reply).note)


def has_nan(values: Any) -> bool:
    """Whether any of some numbers is nan."""
    return bool(np.isnan(np.asarray(values, dtype=np.float64)).any())


def any_nan(values: Sequence[float]) -> bool:
    """Whether any of some log-probabilities is nan: the same as `has_nan`, for a few numbers."""
    total = sum(values)
    return total != total and has_nan(values)  # nan also where +inf and -inf meet


def set_aside(emit: Emit[Out], broken: Callable[[Out], bool], aside: list[int]) -> Emit[Out]:
    """An `emit` that hands over what is whole, and notes the rows of the rest, which are then to be run again alone.

    Attention multiplies what a row must not see by 0, and 0 times nan is nan: one row that is not finite spoils others
    that share its batch, by their padding or their place in a tree.
    """

    def hand_over(rows: list[int], values: list[Out]) -> None:
        spoilt = [broken(v) for v in values]
        aside.extend(row for row, bad in zip(rows, spoilt, strict=True) if bad)
        whole = [n for n, bad in enumerate(spoilt) if not bad]
        if whole:
            emit([rows[n] for n in whole], [values[n] for n in whole])

    return hand_over


def of_equal_length(rows: Iterable[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Rows that need no padding in one batch, the longest first; there nothing of one row reaches another."""
    some = list(rows)
    for length in sorted({lengths[i] for i in some}, reverse=True):
        yield [i for i in some if lengths[i] == length]


class Batches:
    """Runs rows in batches of like length. Counts what it fed, so that sharing can be tested."""

    def __init__(self, module: PreTrainedModel, batch_tokens: int | None) -> None:
        """Nothing is fed yet.

        Args:
            module: What is run.
            batch_tokens: Padded tokens in a batch; halved for good whenever the memory does not suffice. None is 8,192
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
        """Run bucket by bucket; after one that does not fit the memory the rest goes in smaller ones.

        Args:
            lengths: Tokens of each row.
            run: Gives the values of some rows, by their indices.
            emit: Takes them.
            rows: Which of them are run; None is all.
            widths: See `evenhand.inference.requests.buckets`.
            width: The same.
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
        """Warn, once in the life of an engine, that some answers cannot be had."""
        if not broken or self._warned:
            return
        self._warned = True
        precision = str(next(self.module.parameters()).dtype).removeprefix("torch.")
        remedy = (
            "float16 overflows above 65,504: load the model in float32 or bfloat16 (dtype=float32)"
            if precision == "float16"
            else "no smaller precision is to blame: check the weights for nan and infinite values, or load the "
            "checkpoint anew"
        )
        warnings.warn(
            f"{type(self.module).__name__} in {precision}: {NOT_FINITE} (nan or infinite) for {broken} of {asked} "
            f"requests. Their items stay unanswered; {remedy}",
            stacklevel=4,
        )

    def attempt(self, run: Callable[[], Made], sequences: int, longest: int) -> Made | None:
        """What was computed; None where the memory did not suffice.

        Args:
            run: One forward.
            sequences: That it feeds.
            longest: Tokens of the longest, for the error.

        Raises:
            EvenhandError: It did not suffice for a single sequence.
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
        empty_cache()  # outside the handler, whose traceback would keep the big tensors alive
        return None


def widest(config: Any) -> int:
    """Most positions that a batch reads, so that their logits fit the memory."""
    return max(256, READ_ELEMENTS // int(getattr(config, "vocab_size", 50_000)))


def out_of_memory(error: RuntimeError) -> bool:
    """CUDA has an error class of its own; the CPU allocator only a message."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text


def empty_cache() -> None:
    """Give freed memory back to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
