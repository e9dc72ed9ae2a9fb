"""What a configuration alone determines: causal, masked or encoder-decoder model, and an encoder's length.

Sources: transformers' own tables of architectures (`transformers.models.auto.modeling_auto`), and what its BERT-like
classes do with `is_decoder`: if it is off, a position also sees the tokens that follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from evenhand.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["causal", "masked", "seq2seq"]
OFFSET_POSITIONS = ("roberta", "camembert", "longformer", "mpnet")
"""Types of encoders whose positions start one after the id of the padding token."""


def kind_of(config: Any, label: str) -> Kind:
    """Determine the class that a model has to be opened as.

    The architecture that the configuration names decides, then the type of model; `is_decoder` decides for types, such
    as BERT, that have both forms. A type that transformers does not know is taken to be causal.

    Args:
        config: A transformers configuration.
        label: Name or folder of the model, for messages.

    Raises:
        SettingsError: It is an encoder-decoder that does not read text, or its architecture and `is_decoder` contradict
            one another.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED,
    )
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as SEQ2SEQ,
    )

    masked, causal = _names(MASKED), _names(CAUSAL)
    named = [str(name) for name in getattr(config, "architectures", None) or []]
    named_masked = any(n in masked - causal or n.endswith("ForMaskedLM") for n in named)
    named_causal = any(n in causal - masked for n in named)
    if getattr(config, "is_encoder_decoder", False) and not named_causal:
        if config.model_type in SEQ2SEQ and not _speech(config):
            return "seq2seq"
        raise SettingsError(
            f"{label} is an encoder-decoder ({named[0] if named else config.model_type}) that transformers does not "
            "open as a text-to-text language model. Use one such as T5 or BART, or a causal or masked model"
        )
    if config.model_type in MASKED and config.model_type in CAUSAL:
        decoder = bool(getattr(config, "is_decoder", False) or getattr(config, "causal", False))
        if (named_causal and not decoder) or (named_masked and not named_causal and decoder):
            raise _contradiction(label, named, decoder)
        return "causal" if decoder else "masked"
    if named_causal or named_masked:
        return "causal" if named_causal else "masked"
    return "masked" if config.model_type in MASKED or _offers_masked(config) else "causal"


def context_of(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the maximum number of tokens that an encoder reads."""
    positions = int(getattr(config, "max_position_embeddings", 0) or 10**9)
    if any(kind in str(config.model_type) for kind in OFFSET_POSITIONS):
        positions -= int(config.pad_token_id or 0) + 1
    return min(positions, int(tokenizer.model_max_length))


def _names(table: Any) -> set[str]:
    """All class names in one of transformers' tables, each value of which is a name or several."""
    return {name for value in table.values() for name in ([value] if isinstance(value, str) else value)}


def _speech(config: Any) -> bool:
    """Whether a model also reads audio; transformers' table of encoder-decoders does not distinguish these."""
    return any(key.startswith(("audio", "speech", "t2u")) for key in config.to_dict())


def _offers_masked(config: Any) -> bool:
    """Whether code that comes with a model offers a masked class, but no causal one."""
    offered = getattr(config, "auto_map", None) or {}
    return "AutoModelForMaskedLM" in offered and "AutoModelForCausalLM" not in offered


def _contradiction(label: str, named: list[str], decoder: bool) -> SettingsError:
    wanted, form = ("False", "masked") if decoder else ("True", "causal")
    return SettingsError(
        f"{label}: its config.json names {named[0]} with is_decoder={decoder}, so that a position sees "
        f"{'only the tokens before it' if decoder else 'also the tokens that follow'}. Set is_decoder to {wanted} "
        f"if it was trained as a {form} language model, or name the other architecture"
    )
