"""A model on a vLLM server, asked in token ids: `vllm:URL#model`."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core.hashing import digest
from evenhand.errors import EndpointError, EvenhandError, SettingsError, suggest
from evenhand.interfaces import UNLIMITED, AnswerBy, Sampling, TooLong
from evenhand.models import fingerprint, saved
from evenhand.models.asking import CHOICE_SAMPLING, check_asking, sampling_from
from evenhand.models.endpoint import api_key, client_module
from evenhand.models.token_model import TokenModel
from evenhand.prompting import rendering
from evenhand.prompting.thinking import THINKING_TOKENS
from evenhand.renaming import accept, translated

if TYPE_CHECKING:
    from evenhand.models.endpoint_client import EndpointClient

ASKING = ("name", "answer_by", "sampling", "too_long", "thinking_tokens", "tokenizer")
RENAMED = {"batch": "batch_size"}
"""Old names of options, with the present ones; the old ones work for one release."""
EFFORT = ("concurrency", "batch_size", "timeout", "retries", "backoff", "key_env")


class _Card(NamedTuple):
    """Facts about the model from the server's list."""

    root: str | None
    """Name or folder of what the server loaded."""
    parent: str | None
    """For an adapter, the model it is applied to."""
    context: int | None
    """Maximum number of tokens of a prompt and its continuation."""


class VllmModel(TokenModel):
    """A model that chooses, generates and scores as a local one does; only the forward passes run on the server.

    A request that fails permanently raises `EndpointError` once all others are answered; with an answer cache these are
    kept, and the next run asks only for the rest.
    """

    def __init__(
        self,
        rest: str,
        *,
        tokenizer: str | None = None,
        name: str | None = None,
        answer_by: AnswerBy = "letters",
        sampling: Sampling = CHOICE_SAMPLING,
        too_long: TooLong = "error",
        thinking_tokens: int = THINKING_TOKENS,
        concurrency: int = 32,
        batch_size: int = 16,
        timeout: float = 600.0,
        retries: int = 4,
        backoff: float = 1.0,
        key_env: str | None = None,
    ) -> None:
        """Ask the server about the model, and open the tokenizer.

        Args:
            rest: "URL#model". User, password and query string of the URL are sent, but neither shown nor saved.
            tokenizer: Hub name or folder of the model's tokenizer; by default the model's name.
            name: Label for tables; the model's name by default.
            answer_by: How `choose` reads the answer if a question does not specify it.
            sampling: How `choose` generates if a question does not specify it.
            too_long: "error" raises when an item does not fit the context; "skip" leaves it unanswered.
            thinking_tokens: Limit of a thought, if the chat template lets the model think; 0 keeps the thought empty.
            concurrency: Maximum number of requests at a time.
            batch_size: Maximum number of prompts in a request; sampled replies always have requests of their own.
            timeout: Maximum time without a response from the server, in seconds.
            retries: How often a request is retried if the server is busy or fails.
            backoff: Seconds before the first retry; doubled each time, at most a minute.
            key_env: Environment variable with the API key; by default EVENHAND_API_KEY, else OPENAI_API_KEY.

        Raises:
            SettingsError: A setting cannot be used, or the server has no such model.
            EndpointError: The server cannot be reached or refuses the key.
            EvenhandError: The tokenizer cannot be opened.
        """
        if concurrency < 1 or batch_size < 1 or timeout <= 0 or retries < 0 or backoff < 0:
            raise SettingsError("concurrency and batch_size must be >= 1, timeout > 0, retries and backoff >= 0")
        module, (variable, key) = client_module(), api_key(key_env)
        address = module.Address(rest, key, "vllm")
        self.url, self.model = address.url, address.model
        effort = {"concurrency": concurrency, "timeout": timeout, "retries": retries, "backoff": backoff}
        client = module.EndpointClient(
            address, key_variable=variable, timeout=timeout, connections=concurrency, retries=retries, backoff=backoff
        )
        self._card = _ask_card(client, self.url, self.model)
        self.tokenizer = tokenizer or self.model
        opened = self._open_tokenizer()
        from evenhand.models.vllm_engine import VllmEngine

        super().__init__(
            opened,
            VllmEngine(client, self.model, opened, concurrency=concurrency, batch=batch_size),
            name=name or self.model,
            source=f"vllm:{self.url}#{self.model}",
            answer_by=answer_by,
            sampling=sampling,
            too_long=too_long,
            thinking_tokens=thinking_tokens,
            load_options={"tokenizer": self.tokenizer, "batch_size": batch_size, **effort}
            | ({"key_env": key_env} if key_env else {}),
        )
        self._tokenizer_hash = fingerprint.of_tokenizer(opened)

    def __repr__(self) -> str:
        """Show the specification, which contains no secrets."""
        return f"VllmModel({self.source!r})"

    @property
    def fingerprint(self) -> str:
        """Hash of the URL, the model's name and the server's facts about it, and the tokenizer; not of the weights."""
        return digest("vllm", self.url, self.model, self._card, self._tokenizer_hash)

    @property
    def context_length(self) -> int:  # type: ignore[override]  # derived, so it cannot be set
        """One token less than the server's `max_model_len`: it always generates one, even for reading."""
        return (self._card.context or UNLIMITED) - 1

    def facts(self) -> dict[str, Any]:
        """Return where the model is, what the server reports about it, and how it is asked."""
        return {
            **super().facts(),
            "source": self.source,
            "root": self._card.root,
            "context": self.context_length,
            "tokenizer": self.tokenizer,
            "answer_by": self.answer_by,
            "prompt_format": rendering.prompt_format(self._tokenizer),
            "fingerprint_of": "url, model name, what the server says of it, tokenizer",
        }

    def save(self, folder: str | Path) -> Path:
        """Save the server's address. The key, and user, password and query of the URL, must be given again."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        options = {**self.load_options, **self.asking}
        saved.write(folder, {"kind": "endpoint", "source": self.source, "options": options})
        return folder

    def _open_tokenizer(self) -> Any:
        from evenhand.models.hugging_face import open_tokenizer

        try:
            return open_tokenizer(self.tokenizer)
        except EvenhandError as error:
            raise EvenhandError(
                f"{error}. Texts are tokenised here: give the tokenizer of the model on the server ({self._card.root}) "
                "as tokenizer=NAME or tokenizer=FOLDER"
            ) from error


accept(VllmModel, RENAMED, lambda given: translated("VllmModel", RENAMED, given))


def open_vllm(rest: str, **options: Any) -> VllmModel:
    """Open "URL#model"; called by `evenhand.load("vllm:URL#model", ...)`.

    Args:
        rest: The text after "vllm:".
        **options: See `VllmModel`; `sampling` may be a dict.

    Raises:
        SettingsError: An option is unknown, or a value is invalid.
    """
    known, options = (*ASKING, *EFFORT), translated("vllm", RENAMED, options)
    for option in options:
        if option not in known:
            raise SettingsError(f"unknown option {option!r} for a vLLM server. {suggest(option, known)}")
    check_asking(options)
    if isinstance(options.get("sampling"), dict):
        options["sampling"] = sampling_from(options["sampling"])
    return VllmModel(rest, **options)


def _ask_card(client: EndpointClient, url: str, model: str) -> _Card:
    """Return the entry of the model in `/v1/models` (vLLM's ModelCard: id, root, parent, max_model_len)."""
    from evenhand.models.endpoint_client import Failed
    from evenhand.models.endpoint_replies import UnreadableError

    def read(content: bytes) -> dict[str, dict[str, Any]]:
        try:
            return {str(card["id"]): card for card in json.loads(content)["data"]}
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableError(f"{type(error).__name__} while reading its list of models") from None

    cards = client.send("/models", None, read, Event())
    if isinstance(cards, Failed):
        raise EndpointError(cards.note)
    if model not in cards:
        raise SettingsError(f"{url} has no model {model!r}. {suggest(model, cards)}")
    card = cards[model]
    base = cards.get(str(card.get("parent")), {})  # an adapter's card does not have the context of its base
    return _Card(card.get("root"), card.get("parent"), card.get("max_model_len") or base.get("max_model_len"))
