"""A masked language model (BERT and its like) as a `Model`: it scores, and its weights can be trained."""

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
    """A word that a model would put into a blank."""

    text: str
    """The token, without blanks around it."""
    logprob: float
    """Natural log."""


class _Encoded(NamedTuple):
    ids: list[int]
    start: int
    """Where the continuation begins."""
    end: int
    """Where it ends."""


class MaskedModel(InProcessModel):
    """Scores a text by its pseudo-log-likelihood: the sum over its tokens of log P(token | all the others).

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
        """Take a module; `evenhand.load` is the usual way here.

        Args:
            module: The masked language model; asking never changes it.
            tokenizer: Its tokenizer, with a mask token.
            name: Label for tables.
            source: What `evenhand.load` takes to load the same again; None for an object in memory.
            folders: Where the untouched files lie, for a fast fingerprint; none from memory.
            load_options: What it was loaded with (quantisation, precision).
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
        """It neither chooses nor writes."""
        return frozenset({"score", "weights"})

    @property
    def asking(self) -> dict[str, Any]:  # type: ignore[override]  # it is found out, so it cannot be set
        """The options of `evenhand.load` that concern asking, as JSON values."""
        return {"name": self.name, "too_long": self.too_long, **super().asking}

    @cached_property
    def context_length(self) -> int:  # type: ignore[override]  # it is found out, so it cannot be set
        """Maximum number of tokens of a text, special ones included; `UNLIMITED` where none is stated."""
        stated = [int(self._tokenizer.model_max_length), getattr(self._module.config, "max_position_embeddings", None)]
        for name, table in self._module.named_modules():
            padding = getattr(table, "padding_idx", None)
            if name.endswith("position_embeddings") and padding is not None:
                stated.append(int(table.num_embeddings) - padding - 1)  # RoBERTa counts on from the padding's position
        return min([UNLIMITED, *(int(s) for s in stated if s)])  # tokenizers without a limit state a far larger number

    @property
    def context(self) -> int:
        """Old name of `context_length`; it works for one release."""
        warnings.warn("Model.context is now Model.context_length", DeprecationWarning, stacklevel=2)
        return self.context_length

    def score(self, passages: Sequence[Passage], hiding: Sequence[str] = ()) -> list[Score]:
        """Pseudo-log-likelihood of each continuation: its tokens are masked one at a time, all others are seen.

        Args:
            passages: Plain texts.
            hiding: Per passage a stretch of its other text whose tokens are masked throughout, or "" for none. So a
                continuation's prior is had, as in Kurita et al. 2019 (arXiv 1906.07337), section 2.

        Returns:
            One per passage; nan over 0 tokens, and why, where one is too long or its logits are not finite.

        Raises:
            SettingsError: A prompt is a dialogue, a text is empty, a continuation shares a token with what follows, or
                what is to be hidden does not stand exactly once beside the continuation.
            ContextTooLongError: Some do not fit the context and `too_long` is "error". Nothing was computed by then.
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
        """Log-probabilities of single-token candidates at the one mask of each text.

        Args:
            texts: Texts that hold the tokenizer's mask token exactly once.
            candidates: Per text the strings to read, with the blank before them where the tokenizer keeps it.

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
        """The `k` most probable single tokens of each blank, the likeliest first; special tokens are none.

        Args:
            blanks: The text before and behind each blank. The blank between a word and the one before it belongs to the
                fill, that between it and the one behind it to what stands there.
            k: How many, 1 to the size of the vocabulary without special tokens.

        Raises:
            SettingsError: A text holds a mask itself, or there are not `k` tokens.
            ContextTooLongError: A text does not fit the context.
            EvenhandError: The logits at a blank are not finite.
        """
        words = len(self._tokenizer) - len(self._tokenizer.all_special_ids)
        if not 1 <= k <= words:
            raise SettingsError(f"{self.name}: k={k} fills; its vocabulary allows 1 to {words}")
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
        """Ids and log-probabilities of the best tokens at the masks, [rows, 2, k]; ids are exact in float32."""
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
                f"{self.name} is a masked language model; it scores plain texts, not dialogues. Take a causal model"
            )
        name = passage.id or repr(passage.continuation)
        until = passage.prompt + passage.continuation
        ids = list(self._tokenizer(until + passage.suffix)["input_ids"])
        bare = list(self._tokenizer(until + passage.suffix, add_special_tokens=False)["input_ids"])
        before = next(n for n in range(len(ids) + 1) if ids[n : n + len(bare)] == bare)  # opening tokens
        start, end = before + len(self._tokens(passage.prompt)), before + len(bare)
        if passage.suffix:
            mine = self._tokens(until)
            if ids[before : before + len(mine)] != mine:
                raise SettingsError(
                    f"{name}: {passage.continuation!r} shares a token with {passage.suffix!r} behind it; put the "
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
        """Which tokens, counted without special ones, a stretch outside the continuation takes."""
        sides = (str(passage.prompt), passage.suffix)
        if sum(side.count(hiding) for side in sides) != 1:
            raise SettingsError(f"{name}: {hiding!r} must stand exactly once beside {passage.continuation!r}")
        begin = sides[0].find(hiding)
        if begin < 0:
            begin = len(sides[0] + passage.continuation) + sides[1].find(hiding)
        whole = sides[0] + passage.continuation + sides[1]
        return len(self._tokens(whole[:begin])), len(self._tokens(whole[: begin + len(hiding)]))

    def _tokens(self, text: str) -> list[int]:
        """The beginning of a text in tokens; blanks at its end go with what follows, as most vocabularies have them."""
        text = text.rstrip()
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _fitting(self, lengths: Sequence[int], names: Sequence[str]) -> list[int]:
        """Indices of the rows that fit the context, or an error."""
        long = [i for i, n in enumerate(lengths) if n > self.context_length]
        if long and self.too_long == "error":
            raise ContextTooLongError(
                f"{names[long[0]]} {self._overflow(lengths[long[0]])}; {len(long)} of {len(lengths)} texts are too "
                "long. Nothing is cut silently: shorten the text (of perplexity, the window), or take a model with a "
                "longer context"
            )
        return [i for i, n in enumerate(lengths) if n <= self.context_length]

    def _overflow(self, tokens: int) -> str:
        return f"needs {tokens} tokens, the context of {self.name} holds {self.context_length}"

    def _with_one_mask(self, texts: Sequence[str]) -> list[list[int]]:
        rows = [list(self._tokenizer(text)["input_ids"]) for text in texts]
        for text, ids in zip(texts, rows, strict=True):
            if ids.count(self._mask) != 1:
                raise SettingsError(f"{text!r} must hold {self._tokenizer.mask_token} exactly once")
            if len(ids) > self.context_length:
                raise ContextTooLongError(
                    f"{text[:60]!r} needs {len(ids)} tokens, the context of {self.name} holds {self.context_length}"
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
    """The masked language model whose scores a model gives, through methods that leave scores alone; None otherwise."""
    while isinstance(model, Mitigated) and "score" not in model.acts_on:
        model = model.base
    return model if isinstance(model, MaskedModel) else None
