"""A model behind a vLLM server, asked in token ids: `vllm:URL#model`."""

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
"""Old names of options with the present ones; the old ones work for one release."""
EFFORT = ("concurrency", "batch_size", "timeout", "retries", "backoff", "key_env")


class _Card(NamedTuple):
    """What the server says of the model."""

    root: str | None
    """Name or folder that the server loaded."""
    parent: str | None
    """Of an adapter, the model that it lies on."""
    context: int | None
    """Most tokens of a prompt and its continuation."""


class VllmModel(TokenModel):
    """Chooses, writes and scores as a local model does; only the forward passes happen on the server.

    A request that fails for good raises `EndpointError` once all others are answered; with an answer cache these are
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
        """Ask the server what it has, and open the tokenizer.

        Args:
            rest: "URL#model". User, password and query string of the URL are sent, but neither shown nor saved.
            tokenizer: Hub name or folder of the model's tokenizer; by default the model's name.
            name: Label for tables; the model's name by default.
            answer_by: How `choose` reads the answer where a question does not say.
            sampling: How `choose` generates where a question does not say.
            too_long: "error" raises when an item does not fit the context; "skip" leaves it unanswered.
            thinking_tokens: Limit of a thought, where the chat template lets the model think; 0 has the thought closed.
            concurrency: Most requests at a time.
            batch_size: Maximum number of prompts in a request; sampled replies are always asked for one by one.
            timeout: Seconds that the server may be silent.
            retries: How often a request that met a busy or broken server is tried again.
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
        """The specification, which holds no secret."""
        return f"VllmModel({self.source!r})"

    @property
    def fingerprint(self) -> str:
        """Hash of the URL, the model's name, what the server says of it, and the tokenizer; it shows no weights."""
        return digest("vllm", self.url, self.model, self._card, self._tokenizer_hash)

    @property
    def context_length(self) -> int:  # type: ignore[override]  # it is found out, so it cannot be set
        """One token less than the server's `max_model_len`: it always writes one more, also where it only reads."""
        return (self._card.context or UNLIMITED) - 1

    def facts(self) -> dict[str, Any]:
        """Where it is, what the server says of it, and how it is asked."""
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
        """Write where the server is. The key, and user, password and query of the URL, must be given anew."""
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
                f"{error}. Token ids are made here: give the tokenizer of what the server runs ({self._card.root}) "
                "as tokenizer=NAME or tokenizer=FOLDER"
            ) from error


accept(VllmModel, RENAMED, lambda given: translated("VllmModel", RENAMED, given))


def open_vllm(rest: str, **options: Any) -> VllmModel:
    """Open "URL#model"; what `evenhand.load("vllm:URL#model", ...)` calls.

    Args:
        rest: What follows "vllm:".
        **options: See `VllmModel`; `sampling` may be a dict.

    Raises:
        SettingsError: An unknown option or a value that cannot be used.
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
    """What `/v1/models` says of the model (vLLM's ModelCard: id, root, parent, max_model_len)."""
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
    base = cards.get(str(card.get("parent")), {})  # an adapter's card does not say how long its base is
    return _Card(card.get("root"), card.get("parent"), card.get("max_model_len") or base.get("max_model_len"))
