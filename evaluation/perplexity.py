"""`perplexity`: how well a model predicts a text file, by strided windows.

A window of `window` words is given to the model; its last `stride` words are scored, the others are context, so that
every word is scored once and (but for the first window of a text) with context. exp(-log-likelihood / tokens) depends
on the tokenizer; per word (by blanks, as WikiText is counted) and per byte it can be compared across models.

Windows are cut in the text, not in tokens, so that every model that scores can be asked. That is exact for tokenizers
whose tokens never reach across a blank into the next word (GPT-2's, Llama's and their like); for others the few tokens
at a window's beginning are approximate, and stride = window is exact.

A masked model gives pseudo-perplexity: every token given all others of its window, those behind it too (Salazar et al.
2020, arXiv 1910.14659, section 2.2). It is lower than a causal model's perplexity and not to be laid beside one; of
words of several tokens it is lower still, as each is read with the rest of its word in sight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

import numpy as np

from evenhand.data.text_file import Window, load_documents, windows
from evenhand.errors import SettingsError
from evenhand.evaluation.base import Row, RowBenchmark
from evenhand.evaluation.loading import Loaded
from evenhand.evaluation.metrics.formulas import formula, mean, share
from evenhand.evaluation.metrics.sentence_scores import why_unscored
from evenhand.interfaces import Ability, Model, Passage, settings
from evenhand.statistics.moments import ratio

__all__ = ["Perplexity", "TextWindow", "WindowScore"]


@dataclass(frozen=True, slots=True)
class TextWindow:
    """One window; neighbours in a text are one cluster."""

    id: str
    cluster: str
    document: str
    window: Window


@dataclass(frozen=True, slots=True)
class WindowScore:
    """Log-likelihood of a window's target."""

    logprob: float | None
    """Natural log, summed over tokens; None where the window was not scored."""
    tokens: int
    note: str = ""
    """Why it was not scored: it is too long for the context, or the logits are not finite."""


@settings
class Perplexity(RowBenchmark[TextWindow, WindowScore]):
    """Perplexity on your own text: what a method costs the model as a language model."""

    name: ClassVar[str] = "perplexity"
    needs: ClassVar[frozenset[Ability]] = frozenset({"score"})
    answer_type: ClassVar[type] = WindowScore
    statistics = ("loss", "tokens", "words", "bytes", "all_words")
    """Of the scored windows: minus log-likelihood in nats, tokens, words and bytes; then the words of all windows."""
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
    """The text: auto ($EVENHAND_DATA/perplexity), demo, a file, or a folder of .txt and .md files (each a group)."""
    unit: Literal["auto", "text", "line"] = "auto"
    """What windows are cut from: a running text, or each line by itself, where the lines are sentences without
    connection. auto: line of the demo, whose models know single sentences only, and text of all others."""
    window: int = 256
    """Words in a window, context included; the tokens must fit the model's context."""
    stride: int = 128
    """Words that each window scores; smaller gives more context and costs more. Equal to window: no context."""
    block: int = 8
    """Neighbouring windows that are resampled together, as they share context and topic."""

    def __post_init__(self) -> None:
        """Refuse settings that make no sense before anything runs."""
        if self.window < 2:
            raise SettingsError(f"perplexity: window={self.window} must be at least 2 words")
        if not 1 <= self.stride <= self.window:
            raise SettingsError(f"perplexity: stride={self.stride} must be 1 to window={self.window}")
        if self.block < 1:
            raise SettingsError(f"perplexity: block={self.block} must be at least 1 window")

    def read(self) -> Loaded[TextWindow]:
        """All windows, file by file; facts say how the text was cut."""
        found = load_documents(self.source)
        lines = self.unit == "line" or (self.unit == "auto" and self.source == "demo")
        items = [
            TextWindow(f"{d.name}#{n}", f"{d.name}#{n // self.block}", d.name, w)
            for d in found.documents
            for n, w in enumerate(self._windows(d.text, lines=lines))
        ]
        facts = {
            **found.facts,
            "words": sum(i.window.words for i in items),
            "windows": f"{self.window} words, of which the last {self.stride} are scored (all, in a text's first)",
            "unit": "each line by itself" if lines else "running text",
            "masked_models": "pseudo-perplexity: each token given all others of its window",
            "first_token": "predicted from the opening token, or the end token where a tokenizer has none to open with",
        }
        return Loaded(items, facts)

    def _windows(self, text: str, *, lines: bool) -> list[Window]:
        texts = [line.strip() for line in text.split("\n")] if lines else [text]
        return [w for text in texts for w in windows(text, self.window, self.stride)]

    def stratum(self, item: TextWindow) -> str:
        """The file."""
        return item.document

    def ask(self, model: Model, items: Sequence[TextWindow]) -> list[WindowScore]:
        """One passage per window."""
        passages = [Passage(i.window.target, i.window.context, f"perplexity {i.id}") for i in items]
        scores = model.score(passages)
        return [WindowScore(None if math.isnan(s.logprob) else s.logprob, s.tokens, why_unscored([s])) for s in scores]

    def row(self, item: TextWindow, answer: WindowScore) -> Row:
        """Loss and sizes of the window; of one that was not scored its words alone."""
        words = item.window.words
        if answer.logprob is None:
            return {"all_words": words}
        size = len(item.window.target.encode())
        return {"loss": -answer.logprob, "tokens": answer.tokens, "words": words, "bytes": size, "all_words": words}

    def groups_of(self, item: TextWindow) -> tuple[str]:
        """The file."""
        return (item.document,)

    def groups(self, items: Sequence[TextWindow]) -> list[str]:
        """The files as they come, where there are several."""
        documents = list(dict.fromkeys(i.document for i in items))
        return documents if len(documents) > 1 else []

    def strata(self, items: Sequence[TextWindow]) -> dict[str, str]:
        """All blocks of windows together."""
        return {i.cluster: "text" for i in items}
