"""A model that is asked in token ids: its tokenizer is in this process, its engine here or on a server."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from evenhand.core.collecting import rarely_collected
from evenhand.errors import ContextTooLongError, SettingsError
from evenhand.inference import Generated, Prompt, Request
from evenhand.inference.requests import continuation_request
from evenhand.interfaces import (
    Ability,
    AnswerBy,
    Architecture,
    Choice,
    Dialogue,
    Model,
    Passage,
    Question,
    Reply,
    Sampling,
    Score,
    TooLong,
    Usage,
)
from evenhand.models import choosing
from evenhand.models.asking import (
    CHOICE_SAMPLING,
    check_asking,
    choose_by_generation,
    plain_sampling,
)
from evenhand.models.letter_prompts import letter_choices, letter_prompts
from evenhand.models.tokenization import Encoder
from evenhand.prompting import chat_template, rendering
from evenhand.prompting.thinking import THINKING_TOKENS, Divided, Style, divided

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TokenEngine(Protocol):
    """Interface of engines: whole lists of token ids in, numbers and token ids out; see `evenhand.inference`."""

    def read(self, requests: Sequence[Request], fingerprint: str) -> list[tuple[float, ...]]:
        """Return the log-probabilities of all requests' reads, in order."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, fingerprint: str) -> list[Generated]:
        """Continue all prompts, in order."""


class TokenModel(Model):
    """A model that chooses, generates and scores with a tokenizer and an engine.

    `choose` reads, by default, the log-probabilities of the option letters (`answer_by="letters"`): forms with and
    without a leading blank are added up, and the distribution is normalised over the shown letters. `"text"` scores
    the option texts as continuations, `"text_per_token"` uses the mean over an option's tokens instead of the sum, and
    `"text_with_end"` counts the end-of-text token as one of them, as Reif & Schwartz 2024 (arXiv 2405.02743) do;
    `"generation"` parses a written reply.
    """

    architecture: Architecture | None = "causal"
    answer_by: AnswerBy
    sampling: Sampling
    too_long: TooLong
    thinking_tokens: int

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        engine: TokenEngine,
        *,
        name: str,
        source: str | None = None,
        load_options: dict[str, Any] | None = None,
        answer_by: AnswerBy = "letters",
        sampling: Sampling = CHOICE_SAMPLING,
        too_long: TooLong = "error",
        thinking_tokens: int = THINKING_TOKENS,
    ) -> None:
        """Make a model from a tokenizer and an engine.

        Args:
            tokenizer: Tokenizer of the model.
            engine: Engine that runs the model on token ids.
            name: Label for tables.
            source: Specification for `evenhand.load` to load the same model again; None for an object in memory.
            load_options: Options it was loaded with.
            answer_by: How `choose` reads the answer if a question does not specify it.
            sampling: How `choose` generates if a question does not specify it.
            too_long: "error" raises when an item does not fit the context; "skip" leaves it unanswered.
            thinking_tokens: Limit of a thought, if the chat template lets the model think; 0 keeps the thought empty.
        """
        self.name, self.source, self.load_options = name, source, load_options or {}
        self.answer_by, self.sampling, self.too_long = answer_by, sampling, too_long
        self.engine = engine
        self.thinking_tokens = thinking_tokens
        """Limit of a thought, if the chat template lets the model think; the limit of a reply applies to the answer
        after it. 0 keeps the thought empty, so that the model answers at once. Set it before the model is asked."""
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)

    @property
    def abilities(self) -> frozenset[Ability]:
        """Choosing, generating and scoring; subclasses add "weights" if they give access to them."""
        return frozenset({"choose", "generate", "score"})

    @property
    @abstractmethod
    def context_length(self) -> int:  # type: ignore[override]  # every model with tokens determines it
        """Maximum number of tokens of a prompt and its continuation."""

    @property
    def context(self) -> int:
        """Old name of `context_length`; it works for one release."""
        warnings.warn("Model.context is now Model.context_length", DeprecationWarning, stacklevel=2)
        return self.context_length

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return len(self._tokenizer)

    @property
    def asking(self) -> dict[str, Any]:  # type: ignore[override]  # derived, so it cannot be set
        """Options of `evenhand.load` that concern asking, as JSON values."""
        return {
            "name": self.name,
            "answer_by": self.answer_by,
            "sampling": plain_sampling(self.sampling),
            "too_long": self.too_long,
            # a limit without effect, or the default, is left out
            **({"thinking_tokens": self.thinking_tokens} if self._limits_thought else {}),
        }

    @property
    def _limits_thought(self) -> bool:
        return self._encoder.style is not None and self.thinking_tokens != THINKING_TOKENS

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Answer each question the way it asks for (`answer_by`), or by the model's default."""
        groups: dict[AnswerBy, list[int]] = {}
        for i, q in enumerate(questions):
            groups.setdefault(q.answer_by or self.answer_by, []).append(i)
        for way in groups:
            check_asking({"answer_by": way})
            self._ending(way)
        out: dict[int, Choice] = {}
        with rarely_collected():
            for way, rows in groups.items():
                out.update(zip(rows, self._chosen([questions[i] for i in rows], way), strict=True))
        return [out[i] for i in range(len(questions))]

    def _chosen(self, questions: list[Question], way: AnswerBy) -> list[Choice]:
        if way == "letters":
            return self._by_letters(questions)
        return self._by_generation(questions) if way == "generation" else self._by_text(questions, way)

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        """Write the next turn of each dialogue.

        A model whose chat template lets it think does so first, within `thinking_tokens`; the thought stays in the
        reply, between `<think>` and `</think>`, and in its cost. If it does not end, the item is undecided (noted).
        """
        if self._encoder.style and self.writes_thoughts:
            return self._thought(dialogues, sampling, self._encoder.style)
        return [
            self._reply(prompt, made, sampling, made and Divided(made.text.strip(), made.finished, ""))
            for prompt, made in self.written(dialogues, sampling)
        ]

    def _thought(self, dialogues: Sequence[Dialogue], sampling: Sampling, style: Style) -> list[Reply]:
        """Generate replies after thinking; stop strings and `max_new_tokens` apply to the answer."""
        encoded = self._encoder.prompted(self._encoder.dialogue_texts(dialogues, think=True))
        asked = [Prompt(tuple(ids), d.draw) for ids, d in zip(encoded, dialogues, strict=True)]
        needed = [(p.ids, sampling.max_new_tokens) for p in asked]
        fits = set(self._fitting(needed, [f"dialogue {i}" for i in range(len(asked))]))
        rooms: dict[int, list[int]] = {}
        for i in sorted(fits):
            rooms.setdefault(self._thought_limit(*needed[i]), []).append(i)
        out = {i: self._reply(asked[i], None, sampling, None) for i in range(len(asked)) if i not in fits}
        for limit, rows in rooms.items():
            drawn = replace(sampling, max_new_tokens=limit + sampling.max_new_tokens, stop=())
            for i, made in zip(rows, self.continued([asked[i] for i in rows], drawn, "dialogue"), strict=True):
                opened = style.opened and rendering.is_chat(dialogues[i], self._tokenizer)
                found = made and divided(
                    made.ids,
                    self._encoder.decoded,
                    replace(style, opened=opened),
                    thought_limit=limit,
                    answer_limit=sampling.max_new_tokens,
                    finished=made.finished,
                    stop=sampling.stop,
                )
                out[i] = self._reply(asked[i], made, sampling, found)
        return [out[i] for i in range(len(asked))]

    def _thought_limit(self, ids: Sequence[int], more: int) -> int:
        """Return the limit of a thought before `more` tokens, in steps, so that similar prompts share batches."""
        left = self._room(ids) - more
        if left >= self.thinking_tokens:
            return self.thinking_tokens
        return left - left % 256 if left >= 256 else left

    def _reply(self, prompt: Prompt, made: Generated | None, sampling: Sampling, found: Divided | None) -> Reply:
        if made is None or found is None:
            return Reply(None, finished=False, note=self._overflow(prompt.ids, sampling.max_new_tokens))
        if made.note:
            return Reply(None, Usage(1, len(prompt.ids)), finished=False, note=made.note)
        return Reply(found.text, Usage(1, len(prompt.ids), len(made.ids)), found.finished, found.note)

    def facts(self) -> dict[str, Any]:
        """Return the peculiarities of the chat template, and how the model thinks, if it does."""
        out = {**super().facts(), **chat_template.facts(self._tokenizer)}
        if style := self._encoder.style:
            how = f"template variable {style.switch}=False" if style.switch else "an empty thought in the prompt"
            out["thinking"] = {
                "written_replies": f"after a thought of at most {self.thinking_tokens} tokens"
                if self.thinking_tokens
                else "without a thought",
                "letters_and_texts": f"without a thought ({how})",
            }
        return out

    def written(self, dialogues: Sequence[Dialogue], sampling: Sampling) -> list[tuple[Prompt, Generated | None]]:
        """Return each dialogue in tokens, and what was generated after it; None if it is skipped as too long."""
        asked = self.dialogue_prompts(dialogues)
        return list(zip(asked, self.continued(asked, self.dialogue_sampling(sampling), "dialogue"), strict=True))

    def dialogue_prompts(self, dialogues: Sequence[Dialogue]) -> list[Prompt]:
        """Encode dialogues as `written` continues them: with a closed thought, if the model thinks.

        Only `generate` leaves room for a thought.
        """
        encoded = self._encoder.prompted(self._encoder.dialogue_texts(dialogues))
        return [Prompt(tuple(ids), d.draw) for ids, d in zip(encoded, dialogues, strict=True)]

    def dialogue_sampling(self, sampling: Sampling) -> Sampling:
        """Return the sampling, with the strings that end a turn if there is no chat template."""
        if self._encoder.templated:
            return sampling
        return replace(sampling, stop=(*sampling.stop, *rendering.TRANSCRIPT_STOP))

    @property
    def writes_thoughts(self) -> bool:
        """Whether `generate` lets the model think before it answers."""
        return bool(self._encoder.style and self.thinking_tokens)

    def plain_prompt(self, text: str) -> Prompt:
        """Encode a bare text to be continued."""
        return Prompt(tuple(self._encoder.plain([text])[0]))

    def with_offsets(self, text: str) -> tuple[list[int], list[int]]:
        """Encode a bare text, with opening tokens, and return the character at which each token begins."""
        return self._encoder.with_offsets(text)

    def decoded(self, ids: Sequence[int]) -> str:
        """Decode tokens to text, without special tokens."""
        return self._encoder.decoded(ids, skip_special=True)

    def continued(self, asked: Sequence[Prompt], sampling: Sampling, what: str = "prompt") -> list[Generated | None]:
        """Continue each prompt; None if it is skipped as too long, with a note if its logits are not finite.

        Args:
            asked: Prompts in token ids of the model's tokenizer.
            sampling: How tokens are drawn, and the stop strings.
            what: What an error calls the prompts.
        """
        fits = self._fitting(
            [(p.ids, sampling.max_new_tokens) for p in asked], [f"{what} {i}" for i in range(len(asked))]
        )
        made = self.engine.generate([asked[i] for i in fits], sampling, self.fingerprint)
        done = dict(zip(fits, made, strict=True))
        return [done.get(i) for i in range(len(asked))]

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        """Compute the log-probability of each continuation and its suffix, given its prompt.

        Without a prompt, the continuation is conditioned on the opening token.
        """
        names = [p.id or repr(p.continuation[:60]) for p in passages]
        pairs = self._pairs([p.prompt for p in passages], [p.continuation + p.suffix for p in passages], names)
        return self._score_pairs(pairs, names)

    def score_parted(self, passages: Sequence[Passage]) -> list[Score]:
        """Score continuations of plain texts as lm-evaluation-harness does: each prompt is encoded separately.

        Raises:
            SettingsError: The tokenizer leaves no token of its own to a continuation.
        """
        heads = [str(p.prompt) for p in passages]
        wholes = self._encoder.plain([h + p.continuation for h, p in zip(heads, passages, strict=True)])
        pairs = [choosing.parted(h, w) for h, w in zip(self._encoder.plain(heads), wholes, strict=True)]
        names = [p.id or repr(p.continuation[:60]) for p in passages]
        for (ids, start), passage, name in zip(pairs, passages, names, strict=True):
            if len(ids) == start:
                raise SettingsError(
                    f"{name}: the tokenizer of {self.name} merges {passage.continuation!r} with the text before it, "
                    "so that nothing is left to score; use the tokens of the whole text (for mmlu, tokens=text)"
                )
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
                    f"{name} is a single token, and this tokenizer adds no token before it: give a prompt"
                )
        return pairs

    def _score_pairs(self, pairs: Sequence[tuple[list[int], int]], names: Sequence[str]) -> list[Score]:
        """Score encoded pairs; nan over 0 tokens, with the reason, if one is too long or its logits are not finite."""
        fits = self._fitting([(whole, 0) for whole, _ in pairs], names)
        reads = self.engine.read([continuation_request(*pairs[i]) for i in fits], self.fingerprint)
        done = {i: choosing.score_of(values) for i, values in zip(fits, reads, strict=True)}
        return [done.get(i) or choosing.unscored(self._overflow(whole, 0)) for i, (whole, _) in enumerate(pairs)]

    def _by_letters(self, questions: list[Question]) -> list[Choice]:
        texts = self._encoder.dialogue_texts([rendering.as_dialogue(q, "letters") for q in questions])
        asked = [(text, len(q.options)) for text, q in zip(texts, questions, strict=True)]
        once = {key: q.id for key, q in zip(reversed(asked), reversed(questions), strict=True)}  # by its first question
        prompts = dict(zip(once, letter_prompts(self._encoder, list(once)), strict=True))
        needed = {key: (prompt.ids, 1) for key, prompt in prompts.items()}
        keys = list(once)
        fits = [keys[i] for i in self._fitting(list(needed.values()), list(once.values()))]
        requests = [prompts[key].requests for key in fits]
        reads = iter(self.engine.read([r for some in requests for r in some], self.fingerprint))
        logprobs = {
            key: prompts[key].logprobs([next(reads) for _ in some]) for key, some in zip(fits, requests, strict=True)
        }
        read = [i for i, key in enumerate(asked) if key in logprobs]
        mine = [(questions[i], prompts[asked[i]], logprobs[asked[i]]) for i in read]
        done = dict(zip(read, letter_choices(mine), strict=True))
        return [done.get(i) or self._skipped(*needed[key]) for i, key in enumerate(asked)]

    def _by_text(self, questions: list[Question], way: AnswerBy) -> list[Choice]:
        heads = [rendering.as_dialogue(q, way) for q in questions]
        asked = [
            (head, self._encoder.blank(head) + option, q.id)
            for head, q in zip(heads, questions, strict=True)
            for option in q.options
        ]
        pairs = self._pairs([a[0] for a in asked], [a[1] for a in asked], [a[2] for a in asked])
        pairs = [(whole + self._ending(way), start) for whole, start in pairs]
        answered = iter(zip(pairs, self._score_pairs(pairs, [a[2] for a in asked]), strict=True))
        out = []
        for q in questions:
            mine = [next(answered) for _ in q.options]
            tokens = [len(whole) for (whole, _), _ in mine]
            if why := next((s.note for _, s in mine if s.tokens == 0), ""):
                out.append(Choice(None, status="unanswered", note=why))
                continue
            values = np.array([s.logprob / (1 if way == "text" else s.tokens) for _, s in mine])
            out.append(choosing.distribution_choice(values, Usage(len(mine), sum(tokens))))
        return out

    def _ending(self, way: AnswerBy) -> list[int]:
        """Return the tokens that count as the end of an option.

        Raises:
            SettingsError: The end token is to be scored, and the tokenizer has none.
        """
        if way != "text_with_end":
            return []
        if self._tokenizer.eos_token_id is None:
            raise SettingsError(
                f"answer_by='text_with_end' scores the end token after each option, and the tokenizer of {self.name} "
                "has none: set its eos_token, or use answer_by='text_per_token' (for label_bias, set eos=False)"
            )
        return [int(self._tokenizer.eos_token_id)]

    def _by_generation(self, questions: list[Question]) -> list[Choice]:
        return choose_by_generation(self, questions, self.sampling)

    def _fitting(self, needed: Sequence[tuple[Sequence[int], int]], names: Sequence[str]) -> list[int]:
        """Return the indices of the rows that fit the context.

        Args:
            needed: For each row, its tokens and how many more follow.
            names: What an error calls the rows.

        Raises:
            ContextTooLongError: Some do not fit and `too_long` is "error". Nothing has been computed.
        """
        if self._surely_fits(max((len(ids) + more for ids, more in needed), default=0)):
            return list(range(len(needed)))
        why = [self._overflow(ids, more) for ids, more in needed]
        long = [i for i, said in enumerate(why) if said]
        if long and self.too_long == "error":
            raise ContextTooLongError(
                f"{names[long[0]]} {why[long[0]]}; {len(long)} of {len(why)} items are too "
                "long. Texts are never truncated: use a model with a longer context, shorten the prompt, "
                "or leave such items unanswered with too_long='skip'"
            )
        return [i for i, said in enumerate(why) if not said]

    def _surely_fits(self, longest: int) -> bool:
        """Whether a row of this many tokens fits, and thus all shorter ones."""
        return longest <= self.context_length

    def _room(self, ids: Sequence[int]) -> int:
        """Return how many tokens may follow a prompt."""
        return self.context_length - len(ids)

    def _overflow(self, ids: Sequence[int], more: int) -> str:
        """Return why tokens with that many more after them do not fit; "" if they do."""
        fits = more <= self._room(ids)
        return "" if fits else f"needs {len(ids) + more} tokens, but the context has {self.context_length}"

    def _skipped(self, ids: Sequence[int], more: int) -> Choice:
        return Choice(None, status="unanswered", note=self._overflow(ids, more))
