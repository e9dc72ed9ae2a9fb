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
        """Make a model of a module; usually done by `evenhand.load` or `evenhand.wrap`.

        Args:
            module: The causal language model; asking never changes it.
            tokenizer: Its tokenizer.
            name: Label for tables.
            source: Specification for `evenhand.load` to load the same model again; None for an object in memory.
            folders: Folders of the unchanged files (model, adapter), for a fast fingerprint; empty if from memory.
            load_options: Options it was loaded with (quantisation, revision); part of the fingerprint.
            answer_by: How `choose` reads the answer if a question does not specify it.
            sampling: How `choose` generates if a question does not specify it.
            batch_tokens: See `evenhand.inference.Engine`.
            too_long: "error" raises when an item does not fit the context; "skip" leaves it unanswered.
            thinking_tokens: Limit of a thought, if the chat template lets the model think; 0 keeps the thought empty.

        Raises:
            SettingsError: The tokenizer has more tokens than the model has embeddings.
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
        """All four abilities."""
        return super().abilities | {"weights"}

    def behind(self, prefixes: Sequence[str], combine: Combine, settings: object) -> Model:
        """Return this model guided by what it would write after other texts; see `PrefixedModel`."""
        return PrefixedModel(self, self.engine, prefixes, combine, settings)
