"""A masked language model (BERT and its like) as a `Model`: it scores, and its weights can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evenhand.engine.encoder import EncoderEngine
from evenhand.errors import SettingsError
from evenhand.interfaces import Ability, Array, Dialogue, Model, Passage, Score, Weights
from evenhand.models import fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class _Encoded(NamedTuple):
    ids: list[int]
    start: int
    """Where the continuation begins."""
    after: int
    """Number of special tokens behind it."""


class MaskedModel(Model):
    """Scores a text by its pseudo-log-likelihood: the sum over its tokens of log P(token | all the others).

    Source: Salazar et al. 2020, "Masked Language Model Scoring" (ACL 2020, arXiv 1910.14659), section 2.
    """

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "model",
        source: str | None = None,
        folders: Sequence[Path] = (),
        batch_tokens: int | None = None,
    ) -> None:
        """Take a module; `evenhand.load` is the usual way here.

        Args:
            module: The masked language model; asking never changes it.
            tokenizer: Its tokenizer, with a mask token.
            name: Label for tables.
            source: What `evenhand.load` takes to load the same again; None for an object in memory.
            folders: Where the untouched files lie, for a fast fingerprint; none from memory.
            batch_tokens: See `evenhand.engine.encoder.EncoderEngine`.

        Raises:
            SettingsError: The tokenizer has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise SettingsError(f"{name}: its tokenizer has no mask token, which a masked language model needs")
        self.name, self.source = name, source
        self._module, self._tokenizer, self._folders = module, tokenizer, tuple(folders)
        self._handed_out = not folders
        self.engine = EncoderEngine(module, tokenizer.pad_token_id or 0, batch_tokens)

    @property
    def abilities(self) -> frozenset[Ability]:
        """It neither chooses nor writes."""
        return frozenset({"score", "weights"})

    @property
    def fingerprint(self) -> str:
        """Content hash: of the files while nobody had the weights in hand, of the tensors afterwards."""
        if self._handed_out:
            return fingerprint.digest("tensors", fingerprint.of_weights(self._module, self._tokenizer))
        files = [fingerprint.of_folder(folder) for folder in self._folders]
        return fingerprint.digest("files", files, str(self._module.dtype))

    @property
    def weights(self) -> Weights:
        """The module and tokenizer; edits in place are noticed by the fingerprint."""
        self._handed_out = True
        return Weights(self._module, self._tokenizer)

    def save(self, folder: str | Path) -> Path:
        """Write weights (safetensors) and tokenizer."""
        self._module.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        return Path(folder)

    def facts(self) -> dict[str, Any]:
        """Source, precision and size."""
        return {
            **super().facts(),
            "source": self.source or "memory",
            "device": str(self._module.device),
            "parameters": int(sum(p.numel() for p in self._module.parameters())),
            "demo": bool(getattr(self._module.config, "evenhand_demo", False)),
            "dtype": str(self._module.dtype).removeprefix("torch."),
        }

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Pseudo-log-likelihood of each continuation: its tokens are masked one at a time, in prompt + continuation.

        Raises:
            SettingsError: A prompt is a dialogue, or a text is empty.
        """
        rows: list[list[int]] = []
        places: list[int] = []
        tokens: list[list[int]] = []
        lengths: list[int] = []
        for passage in passages:
            ids, start, after = self._encoded(passage)
            span = range(start, len(ids) - after)
            rows += [[*ids[:at], self._mask, *ids[at + 1 :]] for at in span]
            places += span
            tokens += [[ids[at]] for at in span]
            lengths.append(len(span))
        values = iter(self.engine.masked(rows, places, tokens, self.fingerprint))
        return [Score(sum(next(values)[0] for _ in range(n)), n) for n in lengths]

    def fill(self, texts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[Array]:
        """Log-probabilities of single-token candidates at the one mask of each text.

        Args:
            texts: Texts that hold the tokenizer's mask token exactly once.
            candidates: Per text the strings to read, with the blank before them where the tokenizer keeps it.

        Raises:
            SettingsError: A text has no mask or several, or a candidate is not one token.
        """
        rows = [list(self._tokenizer(text)["input_ids"]) for text in texts]
        for text, ids in zip(texts, rows, strict=True):
            if ids.count(self._mask) != 1:
                raise SettingsError(f"{text!r} must hold {self._tokenizer.mask_token} exactly once")
        tokens = [[self._one_token(c) for c in group] for group in candidates]
        places = [ids.index(self._mask) for ids in rows]
        return [np.array(v) for v in self.engine.masked(rows, places, tokens, self.fingerprint)]

    # ------------------------------------------------------------------------------------------------ internals

    @property
    def _mask(self) -> int:
        return int(self._tokenizer.mask_token_id)

    def _encoded(self, passage: Passage) -> _Encoded:
        if isinstance(passage.prompt, Dialogue):
            raise SettingsError(f"{self.name} is a masked language model; it scores plain texts, not dialogues")
        ids = list(self._tokenizer(passage.prompt + passage.continuation)["input_ids"])
        bare = self._tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
        before, after = _leading(bare), _leading(bare[::-1])
        head = self._tokenizer(passage.prompt, add_special_tokens=False)["input_ids"] if passage.prompt else []
        if len(ids) <= before + after + len(head):
            raise SettingsError(f"{passage.id or passage.continuation!r}: an empty text cannot be scored")
        return _Encoded(ids, before + len(head), after)

    def _one_token(self, text: str) -> int:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise SettingsError(f"candidate {text!r} is {len(ids)} tokens for {self.name}; give single tokens")
        return int(ids[0])


def _leading(special: Sequence[int]) -> int:
    """Number of special tokens at the beginning."""
    return next((i for i, flag in enumerate(special) if not flag), len(special))
