"""`perplexity`: how well a model predicts a text file, by strided windows.

A window of `window` words is given to the model; its last `stride` words are scored and the others are context, so that
every word is scored once and (except in a text's first window) with context. exp(-log-likelihood / tokens) depends
on the tokenizer; per word (by blanks, as WikiText is counted) and per byte it can be compared across models.

By default windows are cut in words, not in tokens, so that every model that scores can be asked. That is exact for
tokenizers whose tokens never cross a blank into the next word (such as GPT-2's and Llama's); for others the
first few tokens of a window are approximate, and stride = window is exact.

Published perplexities use windows cut in tokens (Hugging Face's strided sliding window). `window_unit=tokens` does the
same for causal models whose tokens are known; see `evenhand.models.token_windows`. The items are then stretches of
`stride` words, the same for every model, and each has the loss of the tokens that begin in it.

A masked model gives pseudo-perplexity: every token given all others of its window, later ones too (Salazar et al.
2020, arXiv 1910.14659, section 2.2). It is lower than a causal model's perplexity and not comparable with it; for
words of several tokens it is lower still, as each token is predicted with the rest of its word visible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, count
from math import inf
from typing import ClassVar, Literal

import numpy as np

from evenhand.core.hashing import text_hash
from evenhand.data import wikitext
from evenhand.data.text_file import Document, Window, load_documents, windows
from evenhand.data.text_file import Loaded as LoadedDocuments
from evenhand.errors import SettingsError
from evenhand.evaluation.base import Row, RowBenchmark
from evenhand.evaluation.loading import Loaded
from evenhand.evaluation.metrics.formulas import formula, mean, share
from evenhand.evaluation.metrics.sentence_scores import why_unscored
from evenhand.interfaces import Ability, Model, Passage, Score, settings
from evenhand.statistics.moments import ratio

__all__ = ["Perplexity", "TextStretch", "TextWindow", "WindowScore"]


@dataclass(frozen=True, slots=True)
class TextWindow:
    """One window; neighbouring windows of a text form a cluster."""

    id: str
    cluster: str
    document: str
    window: Window


@dataclass(frozen=True, slots=True)
class TextStretch(TextWindow):
    """A stretch of a text whose windows are cut in tokens; its `window` has no context of its own."""

    text: int
    """Index of the benchmark's text that it belongs to: a document, or a line of one."""
    place: int
    """Index of the stretch within the text."""
    text_hash: str
    """Hash of the whole text, on which the context of a stretch depends."""


@dataclass(frozen=True, slots=True)
class WindowScore:
    """Log-likelihood of a window's target."""

    logprob: float | None
    """Natural log-probability, summed over tokens; None where the window was not scored."""
    tokens: int
    note: str = ""
    """Why it was not scored: it is too long for the context, or its logits are not finite."""


_OF_WORDS = {
    "masked_models": "pseudo-perplexity: each token given all others of its window",
    "first_token": "predicted from the opening token, or the end token where a tokenizer has none to open with",
}
_OF_TOKENS = {
    "tokens": "those of each model's tokenizer; their number is `words` times tokens_per_word",
    "first_token": "predicted from the opening token, and not scored where a tokenizer has none to open with",
}


@settings
class Perplexity(RowBenchmark[TextWindow, WindowScore]):
    """Perplexity on your own text: what a method costs the model as a language model."""

    name: ClassVar[str] = "perplexity"
    needs: ClassVar[frozenset[Ability]] = frozenset({"score"})
    answer_type: ClassVar[type] = WindowScore
    added_later: ClassVar[frozenset[str]] = frozenset({"split", "window_unit"})
    statistics = ("loss", "tokens", "words", "bytes", "all_words")
    """Sums over scored windows: minus log-likelihood in nats, tokens, words and bytes; last, the words of all
    windows."""
    formulas = (
        formula(
            "perplexity",
            lambda s: np.exp(ratio(s["loss"], s["tokens"])),
            "tokens",
            "lower",
            "capability",
            "exp of the mean loss per token, from 1; depends on the tokenizer",
            main=True,
            range=(1, inf),
        ),
        formula(
            "word_perplexity",
            lambda s: np.exp(ratio(s["loss"], s["words"])),
            "words",
            "lower",
            "capability",
            "exp of the loss per word (by blanks), from 1",
            main=True,
            range=(1, inf),
        ),
        formula(
            "bits_per_byte",
            lambda s: ratio(s["loss"], s["bytes"]) / math.log(2),
            "bytes",
            "lower",
            "capability",
            "loss in bits per byte of UTF-8, from 0",
            range=(0, inf),
        ),
        mean(
            "tokens_per_word",
            "tokens",
            "words",
            "none",
            "validity",
            "tokens of this model's tokenizer per word",
            range=(0, inf),
        ),
        share(
            "unscored",
            "all_words - words",
            "all_words",
            "lower",
            "validity",
            "share of words left out: window too long, or logits not finite",
            main=True,
        ),
    )

    source: str = "auto"
    """Where the text comes from: auto ($EVENHAND_DATA/perplexity), demo, wikitext2 (from $EVENHAND_DATA or the hub; its
    rows are joined by two line feeds, as is usual) or 'wikitext2:PATH', a file, or a folder of .txt and .md files (each
    a group)."""
    split: wikitext.Split = "test"
    """Which part of WikiText-2 is read; ignored for other sources."""
    unit: Literal["auto", "text", "line"] = "auto"
    """What windows are cut from: a running text, or each line by itself if lines are unconnected sentences. auto: line
    for the demo, whose models know single sentences only, and text for all others."""
    window: int = 256
    """Number of words (or tokens, see `window_unit`) in a window, context included; its tokens must fit the model's
    context."""
    stride: int = 128
    """Number of words (or tokens) that each window scores; fewer give more context and cost more. With stride equal to
    window there is no context."""
    block: int = 8
    """Number of neighbouring windows that are resampled together, as they share context and topic; with
    `window_unit=tokens`, of neighbouring stretches of `stride` words."""
    window_unit: Literal["words", "tokens"] = "words"
    """What `window` and `stride` count. words (the default): every model that scores can be asked, and all get the same
    windows. tokens: the strided sliding window of Hugging Face's guide to perplexity (for GPT-2 there: window=1024,
    stride=512); take window and stride from the source of a published figure. It needs a causal model that runs with
    its own tokenizer, so not an endpoint. As in the guide, the first token of a text is not scored if the tokenizer has
    no opening token, and with stride equal to window neither is the first token of each window; figures per word and
    per byte are slightly lower for it."""

    def __post_init__(self) -> None:
        """Refuse settings that make no sense, before anything runs."""
        if self.window < 2:
            raise SettingsError(f"perplexity: window={self.window} must be at least 2 {self.window_unit}")
        if not 1 <= self.stride <= self.window:
            raise SettingsError(f"perplexity: stride={self.stride} must be 1 to window={self.window}")
        if self.block < 1:
            raise SettingsError(f"perplexity: block={self.block} must be at least 1 window")

    def read(self) -> Loaded[TextWindow]:
        """Read all windows, file by file; the facts describe how the text was cut."""
        found = self._documents
        if self.window_unit == "tokens":
            items = self._stretches(found.documents)
        else:
            items = [
                TextWindow(f"{d.name}#{n}", f"{d.name}#{n // self.block}", d.name, w)
                for d in found.documents
                for n, w in enumerate(w for text in self._texts(d) for w in windows(text, self.window, self.stride))
            ]
        facts = {
            **found.facts,
            "words": sum(i.window.words for i in items),
            "windows": f"{self.window} {self.window_unit}, of which the last {self.stride} are scored (all, in a "
            "text's first)",
            "stride": f"{self.stride} {self.window_unit}",
            "unit": "each line by itself" if self._by_line else "running text",
            **(_OF_TOKENS if self.window_unit == "tokens" else _OF_WORDS),
        }
        return Loaded(items, facts)

    @property
    def _by_line(self) -> bool:
        return self.unit == "line" or (self.unit == "auto" and self.source == "demo")

    def _texts(self, document: Document) -> list[str]:
        return [line.strip() for line in document.text.split("\n")] if self._by_line else [document.text]

    @cached_property
    def _documents(self) -> LoadedDocuments:
        """The texts, read once: the items and, with `window_unit=tokens`, a model's windows are cut from them."""
        return load_documents(self.source, self.split)

    @cached_property
    def _whole_texts(self) -> list[str]:
        """The texts whose stretches are the items, with `window_unit=tokens`."""
        return [t for d in self._documents.documents for t in self._texts(d) if t.strip()]

    def _stretches(self, documents: Sequence[Document]) -> list[TextWindow]:
        """Cut the items with `window_unit=tokens`."""
        out: list[TextWindow] = []
        numbers = count()
        for d in documents:
            n = count()
            for text in filter(str.strip, self._texts(d)):
                number, hashed = next(numbers), text_hash(text)
                for place, cut in enumerate(windows(text, self.stride, self.stride)):
                    at = next(n)
                    name, cluster = f"{d.name}#{at}", f"{d.name}#{at // self.block}"
                    out.append(TextStretch(name, cluster, d.name, cut, number, place, hashed))
        return out

    def stratum(self, item: TextWindow) -> str:
        """Return the file."""
        return item.document

    def ask(self, model: Model, items: Sequence[TextWindow]) -> list[WindowScore]:
        """Score one passage per window; with `window_unit=tokens`, all windows that score a token of an item.

        Raises:
            SettingsError: Windows are cut in tokens, but the model's tokens are not known, or it is not causal.
            ContextTooLongError: Windows of that many tokens do not fit the model's context.
        """
        if self.window_unit == "tokens":
            return self._ask_in_tokens(model, items)
        passages = [Passage(i.window.target, i.window.context, f"perplexity {i.id}") for i in items]
        return [_answer(score) for score in model.score(passages)]

    def _ask_in_tokens(self, model: Model, items: Sequence[TextWindow]) -> list[WindowScore]:
        from evenhand.models.token_windows import Stretches, score_stretches  # imports torch

        stretches = [_stretch(i) for i in items]
        places: dict[int, list[int]] = {}
        for i in stretches:
            places.setdefault(i.text, []).append(i.place)
        texts = [
            Stretches(text, _begins(text, self.stride), tuple(places[n]))
            for n, text in enumerate(self._whole_texts)
            if n in places
        ]
        scores = score_stretches(model, texts, self.window, self.stride)
        found = {
            (n, place): _answer(score)
            for n, group in zip(sorted(places), scores, strict=True)
            for place, score in zip(places[n], group, strict=True)
        }
        return [found[i.text, i.place] for i in stretches]

    def row(self, item: TextWindow, answer: WindowScore) -> Row:
        """Return loss and sizes of the window; for one that was not scored, only its words."""
        words = item.window.words
        if answer.logprob is None:
            return {"all_words": words}
        size = len(item.window.target.encode())
        return {"loss": -answer.logprob, "tokens": answer.tokens, "words": words, "bytes": size, "all_words": words}

    def groups_of(self, item: TextWindow) -> tuple[str]:
        """Return the file."""
        return (item.document,)

    def groups(self, items: Sequence[TextWindow]) -> list[str]:
        """Return the files in order of appearance, if there are several."""
        documents = list(dict.fromkeys(i.document for i in items))
        return documents if len(documents) > 1 else []

    def strata(self, items: Sequence[TextWindow]) -> dict[str, str]:
        """Put all blocks of windows into one stratum."""
        return {i.cluster: "text" for i in items}


def _stretch(item: TextWindow) -> TextStretch:
    if isinstance(item, TextStretch):
        return item
    raise SettingsError(
        f"perplexity: item {item.id!r} is a window in words; with window_unit=tokens ask the items of this benchmark's "
        "own load()"
    )


def _begins(text: str, words: int) -> tuple[int, ...]:
    """Return the character at which each stretch of that many words begins."""
    return tuple(accumulate((len(w.target) for w in windows(text, words, words)[:-1]), initial=0))


def _answer(score: Score) -> WindowScore:
    return WindowScore(None if math.isnan(score.logprob) else score.logprob, score.tokens, why_unscored([score]))
