"""The hash of a module's weights and tokenizer, computed once, and again whenever they may have changed.

At every call a checksum of all elements (`evenhand.models.checksum`), with their addresses, shapes and torch's version
counters, decides whether the last hash is still valid: an edit is noticed at the next call however it was made (through
`.data`, numpy, a fused optimizer), and so is its reversal. What the checksum may miss on an accelerator is found by
hashing in full, so every use of a kept hash is recorded in `evenhand.core.rechecks`.

Edits that are made and undone within one call, such as in a forward hook, are not noticed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from evenhand.core import rechecks
from evenhand.models import adapters, checksum, fingerprint

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class WeightHash:
    """Keeps the hash of one module and its tokenizer up to date."""

    def __init__(
        self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, changed: Callable[[], None]
    ) -> None:
        """Record the original buffers; no weights are hashed yet.

        Args:
            module: The module, which may change at any time.
            tokenizer: Its tokenizer, which may change likewise.
            name: Name of the model, for messages.
            changed: Called when changed weights are found, to drop what was derived from the old ones.
        """
        self.name = name
        self._module, self._tokenizer, self._changed = module, tokenizer, changed
        self._tensors: tuple[Any, list[Any]] | None = None
        """Result of the cheap check, and the content at that time."""
        self._words: tuple[Any, str] | None = None
        """Result of the cheap check of the tokenizer, and its hash at that time."""
        self._given = fingerprint.given_buffers(module)
        """Original buffers outside the state dict: only buffers that differ are part of the hash."""
        self._used_in: WeakSet[rechecks.Rechecks] = WeakSet()
        """Ledgers in which the kept hash was used since the last full hashing."""

    def now(self) -> str:
        """Return the hash of tensors, configuration, adapters' state and tokenizer; changed ones are rehashed.

        Raises:
            SettingsError: An adapter is partly switched off.
        """
        adapters.check_switches(self._module)
        seen, words = _seen(self._module), _seen_words(self._tokenizer)
        kept = self._tensors is not None and self._tensors[0] == seen
        kept_words = self._words is not None and self._words[0] == words
        ledger = rechecks.active()
        if ledger is not None and (kept or kept_words):
            ledger.use(self)
            self._used_in.add(ledger)
        content = self._tensors[1] if kept and self._tensors else self._hashed(seen)
        text = self._words[1] if kept_words and self._words else self._hashed_words(words)
        return fingerprint.of_content(content, self._module, text)

    def recheck(self, threads: int | None = None) -> None:
        """Hash everything now; if that reveals a change that the cheap check missed, uses of the kept hash are spoilt.

        Args:
            threads: See `evenhand.models.fingerprint.content_of`.
        """
        before, words_before = self._tensors, self._words
        self._hashed(_seen(self._module), threads)
        self._hashed_words(_seen_words(self._tokenizer))
        if _unseen(before, self._tensors) or _unseen(words_before, self._words):
            for ledger in self._used_in:
                ledger.spoil(self.name)
        self._used_in = WeakSet()

    def __del__(self) -> None:
        """Check a dropped model whose answers are being collected a last time; it counts as changed if that fails.

        Keeping the model until the end instead would mean that a session that asks one model after another could not
        free their memory. It runs within garbage collection, so no thread is started.
        """
        if not getattr(self, "_used_in", None) or sys.is_finalizing():
            return
        try:
            self.recheck(threads=1)
        except Exception:  # whatever broke the module, its answers cannot be vouched for
            for ledger in self._used_in:
                ledger.spoil(self.name)

    def _hashed(self, seen: Any, threads: int | None = None) -> list[Any]:
        content = fingerprint.content_of(self._module, threads)
        content += [found for found in fingerprint.buffers_of(self._module) if found not in self._given]
        if self._tensors is not None and self._tensors[1] != content:
            self._changed()
        self._tensors = (seen, content)  # `seen` was taken before: a change in between is noticed at the next call
        return content

    def _hashed_words(self, seen: Any) -> str:
        self._words = (seen, fingerprint.of_tokenizer(self._tokenizer))
        return self._words[1]


def _unseen(before: tuple[Any, Any] | None, now: tuple[Any, Any] | None) -> bool:
    """Whether something changed without the cheap check noticing it."""
    return before is not None and now is not None and before[0] == now[0] and before[1] != now[1]


def _seen(module: torch.nn.Module) -> Any:
    """Return what the cheap check compares: addresses, shapes, versions and a checksum of parameters and buffers."""
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    places = tuple(
        (name, id(t), t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype, t.shape, t.stride())
        for name, t in named
    )
    once = {place[2:]: t for place, (_, t) in zip(places, named, strict=True)}  # tied weights have two names
    return places, checksum.of_tensors(once.values())


def _seen_words(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return what the cheap check compares of a tokenizer: all except vocabulary and merges, but their size."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    steps = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    parts: Any = None
    if backend is not None:
        made = [getattr(backend, step) for step in steps]
        parts = [None if part is None else part.__getstate__() for part in made]
        parts += [id(backend), str(backend.get_added_tokens_decoder())]
    return parts, len(tokenizer), str(tokenizer.special_tokens_map), str(tokenizer.chat_template)
