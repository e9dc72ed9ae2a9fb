"""The engine: whole lists in, batches through the module, out-of-memory backed off, nothing computed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from evenhand import cache
from evenhand.engine.generation import generate_batch
from evenhand.engine.requests import Generated, Prompt, Request, buckets
from evenhand.engine.scoring import READ_ELEMENTS, evaluating, input_device, score_batch
from evenhand.errors import EvenhandError
from evenhand.interfaces import Sampling
from evenhand.progress import track

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Asked = TypeVar("Asked", Request, Prompt)
Out = TypeVar("Out")
Emit = Callable[[list[int], list[Out]], None]


class Engine:
    """Runs requests on one module. Counts what it fed, so that sharing can be tested."""

    def __init__(
        self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int | None = None
    ) -> None:
        """Take a causal language model.

        Args:
            module: A causal language model of transformers, adapters included.
            tokenizer: Its tokenizer.
            batch_tokens: Padded tokens in a batch; None is 8,192 on a CPU and 65,536 elsewhere. Halved for good
                whenever the memory does not suffice.
        """
        self.module, self.tokenizer = module, tokenizer
        on_cpu = input_device(module).type == "cpu"
        self.batch_tokens = batch_tokens or (8_192 if on_cpu else 65_536)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.pad_id = int(pad) if pad is not None else 0
        self.forwards = 0
        self.sequences = 0

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

        def compute(todo: list[Request], emit: Emit[list[float]]) -> None:
            vocabulary = int(getattr(self.module.config.get_text_config(), "vocab_size", 50_000))
            most = max(256, READ_ELEMENTS // vocabulary)
            self._batched(
                [len(r.ids) for r in todo], [len(r.reads) for r in todo], most,
                lambda rows: [list(v) for v in score_batch(self.module, [todo[i] for i in rows], self.pad_id)], emit,
            )  # fmt: skip

        values = self._through_cache(unique, keys, compute, "scoring")
        lookup = {r.ids: dict(zip(r.reads, v, strict=True)) for r, v in zip(unique, values, strict=True)}
        return [tuple(lookup[r.ids][pair] for pair in r.reads) for r in requests]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, fingerprint: str) -> list[Generated]:
        """Continue all prompts, in order. Greedy requests differ only in their ids, so draws are then one request."""
        if sampling.temperature == 0:
            prompts = [Prompt(p.ids) for p in prompts]
        unique = list(dict.fromkeys(prompts))
        knobs = (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.stop)
        seed = sampling.seed if sampling.temperature > 0 else 0
        keys = [cache.key(fingerprint, "generate", p.ids, p.draw, knobs, seed) for p in unique]

        def compute(todo: list[Prompt], emit: Emit[list[Any]]) -> None:
            self._batched(
                [len(p.ids) + sampling.max_new_tokens for p in todo], None, 0,
                lambda rows: [
                    list(g) for g in generate_batch(
                        self.module, self.tokenizer, [todo[i] for i in rows], sampling, self.pad_id)
                ], emit,
            )  # fmt: skip

        values = self._through_cache(unique, keys, compute, "generating")
        made = {p: Generated(tuple(v[0]), v[1], v[2]) for p, v in zip(unique, values, strict=True)}
        return [made[p] for p in prompts]

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
                try:
                    values = run(rows)
                except RuntimeError as error:
                    if not _out_of_memory(error):
                        raise
                    if len(rows) == 1:
                        raise EvenhandError(
                            f"not enough memory for a single sequence of {lengths[rows[0]]} tokens: "
                            "use a smaller dtype, quantisation (load_in_4bit) or a device_map"
                        ) from error
                    values = None
                if values is None:  # outside the handler, whose traceback would keep the big tensors alive
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()
                    self.batch_tokens = max(1, len(rows) * lengths[rows[0]] // 2)
                    rest = sorted(rows + [i for group in waiting for i in group])
                    again = buckets(
                        [lengths[i] for i in rest],
                        self.batch_tokens,
                        [widths[i] for i in rest] if widths else None,
                        width,
                    )
                    waiting = [[rest[i] for i in group] for group in again][::-1]
                    continue
                self.forwards += 1
                self.sequences += len(rows)
                emit(rows, values)


def _out_of_memory(error: RuntimeError) -> bool:
    """CUDA has an error class of its own; the CPU allocator only a message."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text
