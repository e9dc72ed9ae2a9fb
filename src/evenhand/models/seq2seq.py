"""An encoder-decoder (T5, FLAN-T5, BART) as a `Model`: it chooses, scores and writes; no method trains it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.errors import SettingsError
from evenhand.inference.seq2seq import BORDER, Seq2SeqEngine
from evenhand.interfaces import Ability, AnswerBy, Architecture, Dialogue, Passage, Sampling, Score, TooLong
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
    """Encodes a prompt for the encoder and what follows it for the decoder, with `BORDER` between.

    The prompt keeps what the tokenizer puts around it (T5's end token). The decoder begins with its start token, then
    with the token that the checkpoint forces first, or else with what the tokenizer puts before a text: so the decoder
    sees what it saw in training. The rule for scoring is that of lm-evaluation-harness for `backend="seq2seq"`, except
    that blanks before the continuation are left out, since the decoder's text begins there.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, start: Sequence[int]) -> None:
        """Take the tokenizer, and the tokens with which the decoder begins."""
        super().__init__(tokenizer)
        self.start = list(start)

    def plain(self, texts: Sequence[str]) -> list[Ids]:
        """Encode prompts, up to where the decoder's first own token comes."""
        if not texts:
            return []
        sources = self.tokenizer(list(texts), verbose=False).input_ids
        return [[*ids, BORDER, *self.start] for ids in sources]

    def prompted(self, texts: Sequence[str]) -> list[Ids]:
        """The same for strings from `dialogue_texts`; a chat template has written its special tokens itself."""
        if not self.templated:
            return self.plain(texts)
        return [[*ids, BORDER, *self.start] for ids in self._raw(texts)]

    def continuing(self, texts: Sequence[str], continuations: Sequence[str]) -> list[Ids]:
        """Encode prompts from `dialogue_texts`, each with a continuation in the decoder."""
        return self._followed(self.prompted(texts), continuations)

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
        tails = self._raw([text.lstrip() for text in continuations])
        return [[*head, *tail] for head, tail in zip(heads, tails, strict=True)]


class Seq2SeqModel(InProcessTokenModel):
    """An encoder-decoder of transformers and its tokenizer; `TokenModel` says how it answers.

    The prompt is read by the encoder, and letters, option texts, continuations and replies are the decoder's.
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
        """Take a module; `evenhand.load` is the usual way here. The arguments are those of `LocalModel`.

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
    def abilities(self) -> frozenset[Ability]:
        """It answers; no method of evenhand trains or edits an encoder-decoder."""
        return frozenset({"choose", "generate", "score"})

    def score_parted(self, passages: Sequence[Passage]) -> list[Score]:
        """The same as `score`: prompts are always encoded by themselves."""
        return self.score(passages)

    def facts(self) -> dict[str, Any]:
        """Those of any model in this process, and that it is an encoder-decoder."""
        return {**super().facts(), "architecture": "encoder-decoder"}


def _start(module: PreTrainedModel, encoder: Encoder, name: str) -> list[int]:
    """The tokens with which the decoder begins every text."""
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
    """What the first configuration says that says anything of it; None where none does."""
    return next((value for c in configs if (value := getattr(c, key, None)) is not None), None)
