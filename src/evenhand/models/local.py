"""A causal language model in this process: transformers, adapters and quantisation included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.inference import Engine
from evenhand.interfaces import Ability, AnswerBy, Combine, Model, Sampling, TooLong
from evenhand.models.adapters import check_adapters
from evenhand.models.asking import CHOICE_SAMPLING
from evenhand.models.hugging_face import check_embeddings
from evenhand.models.in_process_tokens import InProcessTokenModel
from evenhand.models.prefixed import PrefixedModel
from evenhand.prompting.thinking import THINKING_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LocalModel(InProcessTokenModel):
    """A transformers module and its tokenizer, with all four abilities; `TokenModel` says how it answers."""

    engine: Engine

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
        thinking_tokens: int = THINKING_TOKENS,
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
            batch_tokens: See `evenhand.inference.Engine`.
            too_long: "error" raises when an item does not fit the context; "skip" leaves it unanswered.
            thinking_tokens: Limit of a thought, where the chat template lets the model think; 0 has the thought closed.

        Raises:
            SettingsError: The tokenizer has more tokens than the model embeddings.
        """
        check_embeddings(module, tokenizer, name)
        check_adapters(module, name)
        super().__init__(
            tokenizer,
            Engine(module, tokenizer, batch_tokens),
            name=name,
            source=source,
            load_options=load_options,
            answer_by=answer_by,
            sampling=sampling,
            too_long=too_long,
            thinking_tokens=thinking_tokens,
        )
        self._batch_tokens = batch_tokens
        self._hold(module, tokenizer, folders, self.engine.weights_changed)

    @property
    def abilities(self) -> frozenset[Ability]:
        """All four."""
        return super().abilities | {"weights"}

    def behind(self, prefixes: Sequence[str], combine: Combine, settings: object) -> Model:
        """The same model, guided by what it would say behind other texts; see `PrefixedModel`."""
        return PrefixedModel(self, self.engine, prefixes, combine, settings)
