"""A masked language model (such as BERT) as a `Model`: it scores texts, and its weights can be trained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evenhand.core.hashing import digest
from evenhand.errors import ContextTooLongError, EvenhandError, SettingsError
from evenhand.inference.encoder import EncoderEngine, Inputs
from evenhand.inference.requests import NOT_FINITE
from evenhand.inference.scoring import log_normaliser, only_rows
from evenhand.interfaces import UNLIMITED, Ability, Architecture, Array, Dialogue, Model, Passage, Score, TooLong
from evenhand.models import choosing
from evenhand.models.adapters import check_adapters
from evenhand.models.hugging_face import check_embeddings
from evenhand.models.in_process import InProcessModel
from evenhand.models.mitigated import Mitigated

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Fill(NamedTuple):
    """A token that a model would put into a blank."""

    text: str
    """Text of the token, stripped."""
    logprob: float
    """Natural logarithm of the probability."""


class _Encoded(NamedTuple):
    ids: list[int]
    start: int
    """Index of the continuation's first token."""
    end: int
    """Index after its last token."""


class MaskedModel(InProcessModel):
    """A masked language model that scores a text by its pseudo-log-likelihood, the sum of log P(token | all others).

    Source: Salazar et al. 2020, "Masked Language Model Scoring" (ACL 2020, arXiv 1910.14659), section 2.
    """

    architecture: Architecture | None = "masked"
    too_long: TooLong

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "model",
        source: str | None = None,
        folders: Sequence[Path] = (),
        load_options: dict[str, Any] | None = None,
        batch_tokens: int | None = None,
        too_long: TooLong = "error",
    ) -> None:
        """Make a model of a module; usually done by `evenhand.load`.

        Args:
            module: The masked language model; asking never changes it.
            tokenizer: Its tokenizer, with a mask token.
            name: Label for tables.
            source: Specification for `evenhand.load` to load the same model again; None for an object in memory.
            folders: Folders of the unchanged files, for a fast fingerprint; empty if from memory.
            load_options: Options it was loaded with (quantisation, precision).
            batch_tokens: See `evenhand.inference.encoder.EncoderEngine`.
            too_long: "error" raises when a text does not fit the context; "skip" leaves it unscored.

        Raises:
            SettingsError: The tokenizer has no mask token, or more tokens than the model has embeddings.
        """
        if tokenizer.mask_token_id is None:
            raise SettingsError(f"{name}: its tokenizer has no mask token, which a masked language model needs")
        check_embeddings(module, tokenizer, name)
        check_adapters(module, name)
        self.name, self.source, self.too_long = name, source, too_long
        self.load_options, self._batch_tokens = load_options or {}, batch_tokens
        self.engine = EncoderEngine(module, tokenizer.pad_token_id or 0, batch_tokens)
        self._hold(module, tokenizer, folders, self.engine.weights_changed)

    @property
    def abilities(self) -> frozenset[Ability]:
        """Scoring and weights; a masked model neither chooses nor generates."""
        return frozenset({"score", "weights"})

    @property
    def asking(self) -> dict[str, Any]:  # type: ignore[override]  # derived, so it cannot be set
        """Options of `evenhand.load` that concern asking, as JSON values."""
        return {"name": self.name, "too_long": self.too_long, **super().asking}

    @cached_property
    def context_length(self) -> int:  # type: ignore[override]  # derived, so it cannot be set
        """Maximum number of tokens of a text, special ones included; `UNLIMITED` if none is stated."""
        stated = [int(self._tokenizer.model_max_length), getattr(self._module.config, "max_position_embeddings", None)]
        for name, table in self._module.named_modules():
            padding = getattr(table, "padding_idx", None)
            if name.endswith("position_embeddings") and padding is not None:
                stated.append(int(table.num_embeddings) - padding - 1)  # RoBERTa's positions start after the padding's
        return min([UNLIMITED, *(int(s) for s in stated if s)])  # tokenizers without a limit state a far larger number

    @property
    def context(self) -> int:
        """Old name of `context_length`; it works for one release."""
        warnings.warn("Model.context is now Model.context_length", DeprecationWarning, stacklevel=2)
        return self.context_length

    def score(self, passages: Sequence[Passage], hiding: Sequence[str] = ()) -> list[Score]:
        """Compute the pseudo-log-likelihood of each continuation: its tokens are masked one at a time.

        Args:
            passages: Plain texts.
            hiding: For each passage, a part of its other text whose tokens are always masked, or "" for none. So a
                continuation's prior is computed as in Kurita et al. 2019 (arXiv 1906.07337), section 2.

        Returns:
            One score per passage; nan over 0 tokens, with the reason, if it is too long or its logits are not finite.

        Raises:
            SettingsError: A prompt is a dialogue, a text is empty, a continuation shares a token with what follows, or
                the text to hide does not occur exactly once outside the continuation.
            ContextTooLongError: Some do not fit the context and `too_long` is "error". Nothing has been computed.
        """
        hidden = hiding or [""] * len(passages)
        encoded = [self._encoded(p, stretch) for p, stretch in zip(passages, hidden, strict=True)]
        fits = self._fitting([len(e.ids) for e in encoded], [p.id or repr(p.continuation[:60]) for p in passages])
        rows: list[list[int]] = []
        places: list[int] = []
        tokens: list[list[int]] = []
        for ids, start, end in encoded:
            if len(ids) <= self.context_length:
                span = range(start, end)
                rows += [[*ids[:at], self._mask, *ids[at + 1 :]] for at in span]
                places += span
                tokens += [[ids[at]] for at in span]
        values = iter(self.engine.masked(rows, places, tokens, self.fingerprint) if rows else [])
        out = [choosing.unscored(self._overflow(len(e.ids))) for e in encoded]
        for i in fits:
            out[i] = choosing.score_of([next(values)[0] for _ in range(encoded[i].start, encoded[i].end)])
        return out

    def fill(self, texts: Sequence[str], candidates: Sequence[Sequence[str]]) -> list[Array]:
        """Compute log-probabilities of single-token candidates at the one mask of each text.

        Args:
            texts: Texts that contain the tokenizer's mask token exactly once.
            candidates: For each text, the strings to read, with the blank before them if the tokenizer keeps it.

        Raises:
            SettingsError: A text has no mask or several, or a candidate is not one token.
            ContextTooLongError: A text does not fit the context.
            EvenhandError: The logits at a mask are not finite.
        """
        rows = self._with_one_mask(texts)
        tokens = [[self._one_token(c) for c in group] for group in candidates]
        places = [ids.index(self._mask) for ids in rows]
        found = [np.array(v) for v in self.engine.masked(rows, places, tokens, self.fingerprint)]
        self._refuse_nan(found, texts)
        return found

    def top_fills(self, blanks: Sequence[tuple[str, str]], k: int) -> list[list[Fill]]:
        """Return the `k` most probable single tokens for each blank, likeliest first, without special tokens.

        Args:
            blanks: Texts before and after each blank. A space before the filled word belongs to the fill; a space after
                it belongs to the text that follows.
            k: Number of tokens, from 1 to the size of the vocabulary without special tokens.

        Raises:
            SettingsError: A text contains a mask already, or there are not `k` tokens.
            ContextTooLongError: A text does not fit the context.
            EvenhandError: The logits at a blank are not finite.
        """
        words = len(self._tokenizer) - len(self._tokenizer.all_special_ids)
        if not 1 <= k <= words:
            raise SettingsError(f"{self.name}: k={k} fills were asked for; its vocabulary allows 1 to {words}")
        rows = self._with_one_mask([f"{b.rstrip()}{self._tokenizer.mask_token}{a}" for b, a in blanks])
        if not rows:
            return []

        def best(inputs: Inputs) -> Tensor:
            return self._best(inputs, k)

        found = self.engine.outputs(rows, best, fingerprint=digest(self.fingerprint, "top", k))
        self._refuse_nan(list(found), [before for before, _ in blanks])
        return [
            [Fill(str(self._tokenizer.decode([int(t)])).strip(), float(v)) for t, v in zip(tokens, values, strict=True)]
            for tokens, values in found
        ]

    # ------------------------------------------------------------------------------------------------ internals

    @property
    def _mask(self) -> int:
        return int(self._tokenizer.mask_token_id)

    def _best(self, inputs: Inputs, k: int) -> Tensor:
        """Return ids and log-probabilities of the best tokens at the masks, [rows, 2, k]; ids are exact in float32."""
        import torch

        at = (inputs["input_ids"] == self._mask).flatten().nonzero()[:, 0]
        head: torch.nn.Module = self._module.get_output_embeddings()
        with only_rows(head, at):
            logits = self._module(**inputs).logits[0].float()
        logprobs = (logits - log_normaliser(logits)[:, None])[:, : len(self._tokenizer)]
        logprobs[:, self._tokenizer.all_special_ids] = -torch.inf
        values, tokens = logprobs.topk(k)
        return torch.stack([tokens.float(), values], dim=1)

    def _encoded(self, passage: Passage, hiding: str) -> _Encoded:
        if isinstance(passage.prompt, Dialogue):
            raise SettingsError(
                f"{self.name} is a masked language model; it scores plain texts, not dialogues. Use a causal model"
            )
        name = passage.id or repr(passage.continuation)
        until = passage.prompt + passage.continuation
        ids = list(self._tokenizer(until + passage.suffix)["input_ids"])
        bare = list(self._tokenizer(until + passage.suffix, add_special_tokens=False)["input_ids"])
        before = next(n for n in range(len(ids) + 1) if ids[n : n + len(bare)] == bare)  # special tokens
        start, end = before + len(self._tokens(passage.prompt)), before + len(bare)
        if passage.suffix:
            mine = self._tokens(until)
            if ids[before : before + len(mine)] != mine:
                raise SettingsError(
                    f"{name}: {passage.continuation!r} shares a token with {passage.suffix!r}, which follows; put the "
                    "boundary before a blank"
                )
            end = before + len(mine)
        if end <= start:
            raise SettingsError(f"{name}: an empty text cannot be scored")
        if hiding:
            first, last = self._stretch(passage, hiding, name)
            ids[before + first : before + last] = [self._mask] * (last - first)
        return _Encoded(ids, start, end)

    def _stretch(self, passage: Passage, hiding: str, name: str) -> tuple[int, int]:
        """Return the range of tokens, counted without special ones, of a text outside the continuation."""
        sides = (str(passage.prompt), passage.suffix)
        if sum(side.count(hiding) for side in sides) != 1:
            raise SettingsError(f"{name}: {hiding!r} must occur exactly once outside {passage.continuation!r}")
        begin = sides[0].find(hiding)
        if begin < 0:
            begin = len(sides[0] + passage.continuation) + sides[1].find(hiding)
        whole = sides[0] + passage.continuation + sides[1]
        return len(self._tokens(whole[:begin])), len(self._tokens(whole[: begin + len(hiding)]))

    def _tokens(self, text: str) -> list[int]:
        """Tokenise the beginning of a text; final blanks belong to what follows, as in most vocabularies."""
        text = text.rstrip()
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _fitting(self, lengths: Sequence[int], names: Sequence[str]) -> list[int]:
        """Return the indices of the rows that fit the context; others are an error or skipped, by `too_long`."""
        long = [i for i, n in enumerate(lengths) if n > self.context_length]
        if long and self.too_long == "error":
            raise ContextTooLongError(
                f"{names[long[0]]} {self._overflow(lengths[long[0]])}; {len(long)} of {len(lengths)} texts are too "
                "long. Texts are never truncated: shorten the text (for perplexity, the window), or use a model with a "
                "longer context"
            )
        return [i for i, n in enumerate(lengths) if n <= self.context_length]

    def _overflow(self, tokens: int) -> str:
        return f"needs {tokens} tokens, but the context of {self.name} has {self.context_length}"

    def _with_one_mask(self, texts: Sequence[str]) -> list[list[int]]:
        rows = [list(self._tokenizer(text)["input_ids"]) for text in texts]
        for text, ids in zip(texts, rows, strict=True):
            if ids.count(self._mask) != 1:
                raise SettingsError(f"{text!r} must contain {self._tokenizer.mask_token} exactly once")
            if len(ids) > self.context_length:
                raise ContextTooLongError(
                    f"{text[:60]!r} needs {len(ids)} tokens, but the context of {self.name} has {self.context_length}"
                )
        return rows

    def _refuse_nan(self, found: Sequence[Array], texts: Sequence[str]) -> None:
        broken = [text for values, text in zip(found, texts, strict=True) if np.isnan(values).any()]
        if broken:
            raise EvenhandError(
                f"{self.name}: {NOT_FINITE} (nan or infinite) at the blank of {broken[0][:60]!r} and {len(broken) - 1} "
                "others; load the model in float32, or check its weights"
            )

    def _one_token(self, text: str) -> int:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise SettingsError(f"candidate {text!r} is {len(ids)} tokens for {self.name}; give single tokens")
        return int(ids[0])


def masked_inside(model: Model) -> MaskedModel | None:
    """Return the masked language model whose scores a model gives, under methods that do not change scores, or None."""
    while isinstance(model, Mitigated) and "score" not in model.acts_on:
        model = model.base
    return model if isinstance(model, MaskedModel) else None
