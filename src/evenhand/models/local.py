"""A causal language model in this process: transformers, adapters and quantisation included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evenhand import prompts
from evenhand.engine import Engine, Prompt
from evenhand.engine.requests import continuation_request
from evenhand.errors import ContextTooLongError, SettingsError
from evenhand.interfaces import (
    Ability,
    AnswerBy,
    Choice,
    Dialogue,
    Model,
    Passage,
    Question,
    Reply,
    Sampling,
    Score,
    Usage,
    Weights,
)
from evenhand.models import choosing, fingerprint
from evenhand.models.asking import CHOICE_SAMPLING, TooLong, check_asking, choose_by_generation, plain_sampling
from evenhand.models.encoding import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LocalModel(Model):
    """A transformers module and its tokenizer, with all four abilities.

    `choose` reads, by default, the log-probabilities of the option letters (`answer_by="letters"`): a letter with and
    without leading blank is added up, and the distribution is normalised over the shown letters. `"text"` and
    `"text_per_token"` score the option texts as continuations; `"generation"` parses a written reply.
    """

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        source: str | None = None,
        folders: Sequence[Path] = (),
        load_options: dict[str, Any] | None = None,
        answer_by: AnswerBy = "letters",
        sampling: Sampling = CHOICE_SAMPLING,
        batch_tokens: int | None = None,
        too_long: TooLong = "error",
    ) -> None:
        """Take a module; `evenhand.load` and `evenhand.wrap` are the usual ways here.

        Args:
            module: The causal language model; asking never changes it.
            tokenizer: Its tokenizer.
            name: Label for tables.
            source: What `evenhand.load` takes to load the same again; None for an object in memory.
            folders: Where the untouched files lie (model, adapter), for a fast fingerprint; none from memory.
            load_options: What it was loaded with (quantisation, revision); part of the fingerprint.
            answer_by: How `choose` reads the answer where a question does not say.
            sampling: How `choose` generates where a question does not say.
            batch_tokens: See `evenhand.engine.Engine`.
            too_long: "error" raises when an item does not fit the context; "skip" leaves it unanswered.
        """
        self.name, self.source, self.load_options = name, source, load_options or {}
        self.answer_by, self.sampling, self.too_long = answer_by, sampling, too_long
        self._module, self._tokenizer = module, tokenizer
        self._files = [fingerprint.of_folder(folder) for folder in folders]
        self._handed_out: str | None = None
        self._encoder = Encoder(tokenizer)
        self.engine = Engine(module, tokenizer, batch_tokens)

    @property
    def abilities(self) -> frozenset[Ability]:
        """All four."""
        return frozenset({"choose", "generate", "score", "weights"})

    @property
    def weights(self) -> Weights:
        """The module and tokenizer; edits in place are noticed by the fingerprint."""
        if self._files and self._handed_out is None:
            self._handed_out = fingerprint.of_weights(self._module, self._tokenizer)
        return Weights(self._module, self._tokenizer)

    @property
    def edited(self) -> bool:
        """Whether the weights may differ from files on disk: always so for an object from memory."""
        if not self._files:
            return True
        return self._handed_out not in (None, fingerprint.of_weights(self._module, self._tokenizer))

    @property
    def fingerprint(self) -> str:
        """Content hash: of the files while nobody had the weights in hand, of the tensors once they differ."""
        precision = {"dtype": str(self._module.dtype), **self._quantised()}
        if self.edited:
            return fingerprint.digest("tensors", fingerprint.of_weights(self._module, self._tokenizer), precision)
        return fingerprint.digest("files", self._files, precision)

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its continuation; unlimited where the model states none."""
        stated = getattr(self._module.config.get_text_config(), "max_position_embeddings", None)
        return int(stated) if stated else 10**9

    @property
    def asking(self) -> dict[str, Any]:
        """The options of `evenhand.load` that concern asking, as JSON values."""
        return {
            "name": self.name,
            "answer_by": self.answer_by,
            "sampling": plain_sampling(self.sampling),
            "too_long": self.too_long,
        }

    @property
    def precision(self) -> dict[str, Any]:
        """The option of `evenhand.load` that opens a saved copy in the precision of this one."""
        name = str(self._module.dtype).removeprefix("torch.")
        return {"dtype": name} if name in ("float32", "bfloat16", "float16") else {}

    def facts(self) -> dict[str, Any]:
        """Source, precision, size and prompt format."""
        return {
            **super().facts(),
            "source": self.source or "memory",
            "device": str(self._module.device),
            "parameters": int(sum(p.numel() for p in self._module.parameters())),
            "answer_by": self.answer_by,
            "prompt_format": prompts.prompt_format(self._tokenizer),
            "demo": bool(getattr(self._module.config, "evenhand_demo", False)),
            **self.load_options,
            "dtype": str(self._module.dtype).removeprefix("torch."),
        }

    def save(self, folder: str | Path) -> Path:
        """Write weights (safetensors) and tokenizer; of a PEFT model the adapter, and a base without name."""
        from evenhand.models.hugging_face import save_module

        folder = Path(folder)
        save_module(self._module, folder)
        self._tokenizer.save_pretrained(folder)
        return folder

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Answer each question the way it asks for (`answer_by`), or the model's way where it does not say."""
        ways: dict[AnswerBy, Callable[[list[Question]], list[Choice]]] = {
            "letters": self._by_letters,
            "text": lambda qs: self._by_text(qs, per_token=False),
            "text_per_token": lambda qs: self._by_text(qs, per_token=True),
            "generation": self._by_generation,
        }
        groups: dict[AnswerBy, list[int]] = {}
        for i, q in enumerate(questions):
            groups.setdefault(q.answer_by or self.answer_by, []).append(i)
        for way in groups:
            check_asking({"answer_by": way})
        out: dict[int, Choice] = {}
        for way, rows in groups.items():
            out.update(zip(rows, ways[way]([questions[i] for i in rows]), strict=True))
        return [out[i] for i in range(len(questions))]

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        """Write the next turn of each dialogue."""
        if not self._encoder.templated:
            sampling = replace(sampling, stop=(*sampling.stop, *prompts.TRANSCRIPT_STOP))
        encoded = self._encoder.prompted(self._encoder.dialogue_texts(dialogues))
        lengths = [len(ids) + sampling.max_new_tokens for ids in encoded]
        fits = self._fitting(lengths, [f"dialogue {i}" for i in range(len(encoded))])
        asked = [Prompt(tuple(encoded[i]), dialogues[i].draw) for i in fits]
        made = dict(zip(fits, self.engine.generate(asked, sampling, self.fingerprint), strict=True))
        replies = []
        for i, ids in enumerate(encoded):
            if i in made:
                usage = Usage(1, len(ids), len(made[i].ids))
                replies.append(Reply(made[i].text.strip(), usage, made[i].finished))
            else:
                replies.append(Reply(None, finished=False, note=self._overflow(lengths[i])))
        return replies

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Log-probability of each continuation given its prompt; without prompt, from the opening token on."""
        names = [p.id or repr(p.continuation[:60]) for p in passages]
        pairs = self._pairs([p.prompt for p in passages], [p.continuation for p in passages], names)
        return self._score_pairs(pairs, names)

    def _pairs(
        self, heads: Sequence[str | Dialogue], continuations: Sequence[str], names: Sequence[str]
    ) -> list[tuple[list[int], int]]:
        for name, continuation in zip(names, continuations, strict=True):
            if not continuation.strip():
                raise SettingsError(f"{name}: an empty text cannot be scored; leave it out or give it words")
        pairs = self._encoder.pairs(heads, continuations)
        for name, (whole, _) in zip(names, pairs, strict=True):
            if len(whole) < 2:
                raise SettingsError(
                    f"{name} is a single token, and this tokenizer has none to begin with: give a prompt"
                )
        return pairs

    def _score_pairs(self, pairs: Sequence[tuple[list[int], int]], names: Sequence[str]) -> list[Score]:
        """Score encoded pairs; those that are skipped as too long are nan over 0 tokens."""
        fits = self._fitting([len(whole) for whole, _ in pairs], names)
        reads = self.engine.read([continuation_request(*pairs[i]) for i in fits], self.fingerprint)
        done = {i: Score(float(sum(values)), len(values)) for i, values in zip(fits, reads, strict=True)}
        return [done.get(i, Score(float("nan"), 0)) for i in range(len(pairs))]

    def _by_letters(self, questions: list[Question]) -> list[Choice]:
        texts = self._encoder.dialogue_texts([prompts.as_dialogue(q, "letters") for q in questions])
        heads = self._encoder.prompted(texts)
        fits = self._fitting([len(h) + 1 for h in heads], [q.id for q in questions])
        strings = [[texts[i] + v for v in choosing.letter_strings(len(questions[i].options))] for i in fits]
        encoded = iter(self._encoder.prompted([s for group in strings for s in group]))
        plans = [
            choosing.letter_plan(heads[i], [next(encoded) for _ in group], len(questions[i].options))
            for i, group in zip(fits, strings, strict=True)
        ]
        reads = iter(self.engine.read([r for plan in plans for r in plan.requests], self.fingerprint))
        done = {}
        for i, plan in zip(fits, plans, strict=True):
            logprobs = np.array([sum(next(reads)) for _ in plan.requests])
            done[i] = choosing.choice_from_letters(questions[i], plan, logprobs, len(heads[i]))
        return [done.get(i) or self._skipped(len(heads[i]) + 1) for i in range(len(questions))]

    def _by_text(self, questions: list[Question], *, per_token: bool) -> list[Choice]:
        blank = "" if self._encoder.templated else " "  # a transcript's turn begins after "Assistant:"
        asked = [(prompts.as_dialogue(q, "text"), blank + option, q.id) for q in questions for option in q.options]
        pairs = self._pairs([a[0] for a in asked], [a[1] for a in asked], [a[2] for a in asked])
        answered = iter(zip(pairs, self._score_pairs(pairs, [a[2] for a in asked]), strict=True))
        out = []
        for q in questions:
            mine = [next(answered) for _ in q.options]
            tokens = [len(whole) for (whole, _), _ in mine]
            if any(s.tokens == 0 for _, s in mine):
                out.append(self._skipped(max(tokens)))
                continue
            values = np.array([s.logprob / (s.tokens if per_token else 1) for _, s in mine])
            out.append(choosing.distribution_choice(values, Usage(len(mine), sum(tokens))))
        return out

    def _by_generation(self, questions: list[Question]) -> list[Choice]:
        return choose_by_generation(self, questions, self.sampling)

    def _fitting(self, lengths: Sequence[int], names: Sequence[str]) -> list[int]:
        """Indices of the rows that fit the context.

        Raises:
            ContextTooLongError: Some do not and `too_long` is "error". Nothing was computed by then.
        """
        long = [i for i, n in enumerate(lengths) if n > self.context]
        if long and self.too_long == "error":
            raise ContextTooLongError(
                f"{names[long[0]]} {self._overflow(lengths[long[0]])}; {len(long)} of {len(lengths)} items are too "
                "long. Nothing is cut silently: take a model with a longer context, shorten the prompt, "
                "or leave such items unanswered with too_long='skip'"
            )
        return [i for i, n in enumerate(lengths) if n <= self.context]

    def _quantised(self) -> dict[str, Any]:
        return {k: v for k, v in self.load_options.items() if k.startswith("load_in_") and v}

    def _overflow(self, tokens: int) -> str:
        return f"needs {tokens} tokens, the context holds {self.context}"

    def _skipped(self, tokens: int) -> Choice:
        return Choice(None, status="unanswered", note=self._overflow(tokens))
