"""The base class of causal models and encoder-decoders in this process: stated context, and facts about asking."""

from __future__ import annotations

from typing import Any

from evenhand.inference.generation import prescribed
from evenhand.interfaces import UNLIMITED
from evenhand.models.in_process import InProcessModel
from evenhand.models.token_model import TokenModel
from evenhand.prompting import rendering


class InProcessTokenModel(InProcessModel, TokenModel):
    """A transformers module that is asked in tokens; `TokenModel` says how it answers."""

    @property
    def context_length(self) -> int:  # type: ignore[override]  # derived, so it cannot be set
        """Maximum number of tokens of a prompt and its continuation together; `UNLIMITED` if none is stated."""
        stated = getattr(self._module.config.get_text_config(), "max_position_embeddings", None)
        return int(stated) if stated else UNLIMITED

    def facts(self) -> dict[str, Any]:
        """Return source, precision, size, prompt format, and the settings of the generation config that are ignored."""
        ignored, common = prescribed(self._module), super().facts()
        return {
            **common,
            "answer_by": self.answer_by,
            "prompt_format": rendering.prompt_format(self._tokenizer),
            **({"generation_config_ignored": ignored} if ignored else {}),
            **self.load_options,
            "dtype": common["dtype"],
        }
