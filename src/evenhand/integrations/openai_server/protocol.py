"""The OpenAI protocol: bodies that are understood, and replies as clients expect them.

Whatever a request asks for that this server does not support is refused, never ignored. Source: the OpenAI API
reference, chat completions and completions.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evenhand.inference import Prompt
from evenhand.integrations.openai_server.answering import Answer, FirstToken, Job
from evenhand.interfaces import Dialogue, Message, Sampling

IGNORED = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
        "tool_choice",
    }
)
"""Fields that do not affect the reply."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "top_k": (0, -1),
    "min_p": (0,),
    "tools": ([],),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "best_of": (1,),
    "suffix": ("",),
    "use_beam_search": (False,),
    "add_special_tokens": (True,),
    "skip_special_tokens": (True,),
    "ignore_eos": (False,),
}
"""Fields that are not supported, with the values that have no effect and are accepted."""
MESSAGE_EXTRAS = frozenset({"name", "refusal", "annotations"})
"""Fields of a message that are not shown to the model."""
MOST_CHOICES = 128
MOST_TOP = 20
STREAM_END = "data: [DONE]\n\n"


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class TextPart(BaseModel):
    """A piece of a message."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]
    text: str


class ChatMessage(_Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = None

    @model_validator(mode="after")
    def _only_text(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if value and name not in MESSAGE_EXTRAS:
                raise ValueError(f"messages may have text only, not {name!r}")
        if self.content is None and not (self.model_extra or {}).get("refusal"):
            raise ValueError(f"the content of a message by {self.role!r} is missing")
        return self

    def message(self) -> Message:
        """Return the turn in the form that models take."""
        content = self.content if self.content is not None else (self.model_extra or {})["refusal"]
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return Message("system" if self.role == "developer" else self.role, text)


class StreamOptions(BaseModel):
    """What a stream contains in addition to the reply."""

    include_usage: bool | None = None


class _Request(_Body):
    """What both kinds of requests share."""

    model: str
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = None
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _whole_characters(cls, body: Any) -> Any:
        if not isinstance(body, dict):  # not a JSON object, and refused as such
            return body
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text has half a character (a surrogate without its pair); send it whole") from None
        return body

    @model_validator(mode="after")
    def _understood(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if value is not None and name not in IGNORED and value not in NEUTRAL.get(name, ()):
                raise ValueError(f"{name!r} is not supported; leave it out")
        if isinstance(self.stop, str):
            self.stop = [self.stop]
        if self.stop and not all(self.stop):
            raise ValueError("a stop string must not be empty")
        return self

    @property
    def usage_in_stream(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def draws(self) -> list[int]:
        """Return one draw per choice. Without a seed they are new each time, so that replies are independent."""
        first = 0 if self.seed is not None or self.temperature == 0 else secrets.randbits(60)
        return [first + i for i in range(self.n or 1)]

    def sampling(self, limit: int) -> Sampling:
        """Return the sampling of the replies.

        Args:
            limit: Maximum number of new tokens if the request gives none.
        """
        return Sampling(
            temperature=1.0 if self.temperature is None else float(self.temperature),
            max_new_tokens=limit if self.max_tokens is None else self.max_tokens,
            top_p=1.0 if self.top_p is None else float(self.top_p),
            seed=self.seed or 0,
            stop=tuple(self.stop or ()),
        )


class ChatRequest(_Request):
    """Body of /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.messages[-1].role == "assistant":
            raise ValueError("the last message is the assistant's, which cannot be continued; end with the user's")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs=true")
        if self.max_tokens is None:
            self.max_tokens = self.max_completion_tokens
        return self

    @property
    def texts(self) -> list[str]:
        """The text of each message as the model is shown it."""
        return [m.message().content for m in self.messages]

    def jobs(self, limit: int) -> list[Job]:
        """Return one job per choice; `limit` is the maximum number of new tokens if the request gives none."""
        messages, sampling = tuple(m.message() for m in self.messages), self.sampling(limit)
        top = (self.top_logprobs or 0) if self.logprobs else None
        return [Job(Dialogue(messages, draw), sampling, top) for draw in self.draws()]


class CompletionRequest(_Request):
    """Body of /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP)
    echo: bool | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens: 0 asks for nothing; give at least 1, or echo=true")
        if self.stream and (self.echo or self.logprobs is not None):
            raise ValueError("echo and logprobs are not streamed; leave out stream")
        return self

    def jobs(self, prompts: Sequence[Prompt], limit: int) -> list[Job]:
        """Return one job per prompt and choice.

        Args:
            prompts: `prompts` in tokens.
            limit: Maximum number of new tokens if the request gives none.
        """
        writes = self.max_tokens != 0
        sampling = self.sampling(limit) if writes else self.model_copy(update={"max_tokens": 1}).sampling(limit)
        return [
            Job(
                prompt._replace(draw=draw),
                sampling,
                self.logprobs,
                echo=bool(self.echo),
                echoed=given if isinstance(given, str) else None,
                writes=writes,
            )
            for prompt, given in zip(prompts, self.prompts, strict=True)
            for draw in self.draws()
        ]

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """Every prompt, as text or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------------- replies


def error(message: str, kind: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return the body of a refusal."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_event(body: dict[str, Any]) -> str:
    """Return the event for an error in the middle of a stream, in the protocol's form."""
    return _event(body)


class Writer:
    """Writes the replies to one request, whole or in pieces."""

    def __init__(self, model: str, fingerprint: str, *, chat: bool) -> None:
        """Prepare what all parts of a reply have in common.

        Args:
            model: Name of the model that clients use.
            fingerprint: Fingerprint of the model.
            chat: Whether it is a chat completion.
        """
        self._chat = chat
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"fp_{fingerprint[:16]}",
        }

    def whole(self, answers: Sequence[Answer], usage: dict[str, int]) -> dict[str, Any]:
        """Return the body with all choices."""
        kind = "chat.completion" if self._chat else "text_completion"
        choices = []
        for index, answer in enumerate(answers):
            said = {"message": _message(answer.text)} if self._chat else {"text": answer.text}
            listed = _logprobs(answer.first) if answer.listed is None else answer.listed.body()
            choices.append({"index": index, **said, "logprobs": listed, "finish_reason": _why(answer)})
        return {**self._head, "object": kind, "choices": choices, "usage": usage}

    def pieces(self, answers: Sequence[Answer], usage: dict[str, int] | None) -> Iterator[str]:
        """Yield server-sent events: each choice word by word, then the usage if requested, then the end."""
        for index, answer in enumerate(answers):
            yield self.opening(index, answer.first)
            yield from self.closing(index, answer)
        yield from self.end(usage)

    def opening(self, index: int, first: FirstToken | None = None) -> str:
        """Return the event with which a choice begins."""
        said: dict[str, Any] = {"role": "assistant", "content": ""} if self._chat else {"text": ""}
        return self._event(index, said, logprobs=_logprobs(first))

    def words(self, index: int, text: str) -> Iterator[str]:
        """Yield text of a choice, one event per word, however much of it arrived at once."""
        for piece in re.findall(r"\s*\S+|\s+\Z", text):
            yield self._event(index, {"content": piece} if self._chat else {"text": piece})

    def closing(self, index: int, answer: Answer, sent: str = "") -> Iterator[str]:
        """Yield the text of a choice that was not sent yet, word by word, and why it ends."""
        yield from self.words(index, answer.text.removeprefix(sent))
        yield self._event(index, {} if self._chat else {"text": ""}, reason=_why(answer))

    def end(self, usage: dict[str, int] | None) -> Iterator[str]:
        """Yield the token counts if requested, and the end of the stream."""
        if usage is not None:
            yield _event({**self._head, "object": self._kind, "choices": [], "usage": usage})
        yield STREAM_END

    @property
    def _kind(self) -> str:
        return "chat.completion.chunk" if self._chat else "text_completion"

    def _event(self, index: int, said: dict[str, Any], *, logprobs: Any = None, reason: str | None = None) -> str:
        choice = {"index": index, **({"delta": said} if self._chat else said)}
        choice |= {"logprobs": logprobs, "finish_reason": reason}
        return _event({**self._head, "object": self._kind, "choices": [choice]})


def usage_of(answers: Sequence[Answer], prompts: int) -> dict[str, int]:
    """Count the tokens of all answers as OpenAI does: each of `prompts` once, however many choices it has."""
    each = len(answers) // prompts
    read = sum(answer.prompt_tokens for answer in answers[::each])
    written = sum(answer.new_tokens for answer in answers)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "refusal": None}


def _why(answer: Answer) -> str:
    return "stop" if answer.finished else "length"


def _logprobs(first: FirstToken | None) -> dict[str, Any] | None:
    if first is None:
        return None
    top = [_token(*pair) for pair in first.top]
    return {"content": [{**_token(first.token, first.logprob), "top_logprobs": top}], "refusal": None}


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": list(text.encode("utf-8", "replace"))}
