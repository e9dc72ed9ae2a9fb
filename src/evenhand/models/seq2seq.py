"""An encoder-decoder (T5, FLAN-T5, BART) as a `Model`: it chooses, scores and generates; no method trains it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.errors import SettingsError
from evenhand.inference.seq2seq import BORDER, Seq2SeqEngine, parted
from evenhand.interfaces import (
    UNLIMITED,
    Ability,
    AnswerBy,
    Architecture,
    Dialogue,
    Passage,
    Sampling,
    Score,
    TooLong,
)
from evenhand.models.adapters import check_adapters
from evenhand.models.asking import CHOICE_SAMPLING
from evenhand.models.hugging_face import check_embeddings
from evenhand.models.in_process_tokens import InProcessTokenModel
from evenhand.models.tokenization import Encoder, Ids
from evenhand.prompting import rendering
from evenhand.prompting.thinking import THINKING_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Seq2SeqEncoder(Encoder):
    """Encodes a prompt for the encoder and the following text for the decoder, with `BORDER` between them.

    The prompt keeps the tokens around it (T5's end token). The decoder begins with its start token, then
    with the token that the checkpoint forces first, or with those that the tokenizer puts before a text, so the decoder
    sees what it saw in training. The rule for scoring is that of lm-evaluation-harness for `backend="seq2seq"`, except
    that blanks before the continuation are left out, since the decoder's text begins there.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, start: Sequence[int]) -> None:
        """Make an encoder from a tokenizer and the tokens with which the decoder begins."""
        super().__init__(tokenizer)
        self.start = list(start)

    def plain(self, texts: Sequence[str]) -> list[Ids]:
        """Encode prompts, including the tokens before the decoder's first own token."""
        if not texts:
            return []
        sources = self.tokenizer(list(texts), verbose=False).input_ids
        return [[*ids, BORDER, *self.start] for ids in sources]

    def prompted(self, texts: Sequence[str]) -> list[Ids]:
        """Encode strings from `dialogue_texts`; a chat template has already written its special tokens."""
        if not self.templated:
            return self.plain(texts)
        return [[*ids, BORDER, *self.start] for ids in self._raw(texts)]

    def continuing(self, texts: Sequence[str], continuations: Sequence[str]) -> list[Ids]:
        """Encode prompts from `dialogue_texts`, each with a continuation in the decoder."""
        return self._followed(self.prompted(texts), continuations)

    def headed(self, texts: Sequence[str]) -> list[tuple[Ids, str]]:
        """Encode prompts from `dialogue_texts`; the text in the decoder does not affect their tokens."""
        return [(ids, "") for ids in self.prompted(texts)]

    def ended(self, ends: Sequence[str], continuations: Sequence[str]) -> list[Ids]:
        """Encode continuations for the decoder."""
        return self._raw([text.lstrip() for text in continuations])

    def pairs(self, prompts_: Sequence[str | Dialogue], continuations: Sequence[str]) -> list[tuple[Ids, int]]:
        """Encode prompts with continuations, and count the tokens before each continuation."""
        heads: list[Ids] = []
        for prompt in prompts_:
            if isinstance(prompt, str):
                heads += self.plain([prompt.rstrip()])
            else:
                heads += self.prompted([rendering.dialogue_text(prompt, self.tokenizer).rstrip(" ")])
        wholes = self._followed(heads, continuations)
        return [(whole, len(head)) for head, whole in zip(heads, wholes, strict=True)]

    def _followed(self, heads: Sequence[Ids], continuations: Sequence[str]) -> list[Ids]:
        tails = self.ended([""] * len(heads), continuations)
        return [[*head, *tail] for head, tail in zip(heads, tails, strict=True)]


class Seq2SeqModel(InProcessTokenModel):
    """An encoder-decoder of transformers and its tokenizer; `TokenModel` says how it answers.

    The prompt is read by the encoder, and letters, option texts, continuations and replies by the decoder.
    """

    architecture: Architecture | None = "seq2seq"
    engine: Seq2SeqEngine

    def __init__(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str = "model",
        source: str | None = None,
        folders: Sequence[Path] = (),
        load_options: dict[str, Any] | None = None,
        answer_by: AnswerBy = "letters",
        sampling: Sampling = CHOICE_SAMPLING,
        batch_tokens: int | None = None,
        too_long: TooLong = "error",
        thinking_tokens: int = THINKING_TOKENS,
    ) -> None:
        """Make a model of a module; usually done by `evenhand.load`. The arguments are those of `LocalModel`.

        Raises:
            SettingsError: The tokenizer has more tokens than the model has embeddings, or no start token is known.
        """
        check_embeddings(module, tokenizer, name)
        check_adapters(module, name)
        super().__init__(
            tokenizer,
            Seq2SeqEngine(module, tokenizer, batch_tokens),
            name=name,
            source=source,
            load_options=load_options,
            answer_by=answer_by,
            sampling=sampling,
            too_long=too_long,
            thinking_tokens=thinking_tokens,
        )
        self._encoder = Seq2SeqEncoder(tokenizer, _start(module, self._encoder, name))
        self._batch_tokens = batch_tokens
        self._hold(module, tokenizer, folders, self.engine.weights_changed)

    @property
    def context_length(self) -> int:  # type: ignore[override]  # derived, so it cannot be set
        """Maximum number of tokens of a prompt, which the encoder reads; `UNLIMITED` if none is stated.

        T5 states none: its positions are relative. LED states one for each side, BART one for both sides. LED pads
        what it reads to a multiple of its attention window, so only whole windows count.
        """
        limit = self._limit("max_encoder_position_embeddings")
        window = _stated(self._configs, "attention_window") or 1
        return limit - limit % int(max(window) if isinstance(window, list | tuple) else window)

    @property
    def decoder_length(self) -> int:
        """Maximum number of tokens that the decoder reads: its start tokens and all tokens of a reply but the last."""
        return self._limit("max_decoder_position_embeddings")

    def _limit(self, key: str) -> int:
        return int(_stated(self._configs, key) or _stated(self._configs, "max_position_embeddings") or UNLIMITED)

    @property
    def _configs(self) -> list[Any]:
        return [self._module.config.get_text_config(), self._module.config]

    def _room(self, ids: Sequence[int]) -> int:
        """Return how many tokens may follow in the decoder; the last of them is not read again."""
        return self.decoder_length + 1 - len(parted(ids)[1])

    def _overflow(self, ids: Sequence[int], more: int) -> str:
        """Return which side has too many tokens, with the numbers; "" if neither has."""
        source, target = parted(ids)
        if len(source) > self.context_length:
            return f"needs {len(source)} tokens in the encoder, which takes {self.context_length}"
        if more > self._room(ids):
            return f"needs {len(target) + more - 1} tokens in the decoder, which takes {self.decoder_length}"
        return ""

    def _surely_fits(self, longest: int) -> bool:
        """Whether a row of this many tokens fits on either side."""
        return longest <= min(self.context_length, self.decoder_length)

    @property
    def abilities(self) -> frozenset[Ability]:
        """Choosing, generating and scoring; no method of evenhand trains or edits an encoder-decoder."""
        return frozenset({"choose", "generate", "score"})

    def score_parted(self, passages: Sequence[Passage]) -> list[Score]:
        """Score like `score`: prompts are always encoded separately."""
        return self.score(passages)

    def facts(self) -> dict[str, Any]:
        """Return the facts of models in this process, the architecture, and the context of each side."""
        sides = {"encoder": self.context_length, "decoder": self.decoder_length}
        stated = {side: tokens for side, tokens in sides.items() if tokens < UNLIMITED}
        return {**super().facts(), "architecture": "encoder-decoder", **({"context": stated} if stated else {})}


def _start(module: PreTrainedModel, encoder: Encoder, name: str) -> list[int]:
    """Return the tokens with which the decoder begins every text."""
    configs: list[Any] = [module.generation_config, module.config]
    start = _stated(configs, "decoder_start_token_id")
    if start is None:
        start = _stated(configs, "bos_token_id")
    if start is None:
        raise SettingsError(
            f"{name}: neither config.json nor generation_config.json has a decoder_start_token_id, with which the "
            "decoder of an encoder-decoder begins; add it there"
        )
    forced = _stated(configs, "forced_bos_token_id")
    return [int(start), *([int(forced)] if forced is not None else encoder.opening)]


def _stated(configs: Sequence[Any], key: str) -> Any:
    """Return a value from the first configuration that has it; None if none has."""
    return next((value for c in configs if (value := getattr(c, key, None)) is not None), None)
