"""Parse replies of OpenAI-compatible servers: text or parts, a separate thought, the first token's list."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from evenhand.prompting.thinking import THINK

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Fields of a message in which servers put the model's thought: DeepSeek, vLLM, SGLang, llama.cpp and transformers
serve write the first, OpenRouter, newer vLLM and Ollama the second."""
THOUGHT_PARTS = frozenset({"thinking", "reasoning"})
"""Types of content parts that are a thought (Mistral, Anthropic)."""


class Answered(NamedTuple):
    """A usable reply; the cache stores it as a JSON list."""

    text: str
    """The reply, preceded by its thought, if any, between `<think>` and `</think>`."""
    finished: bool
    prompt_tokens: int
    new_tokens: int
    top: list[list[Any]] | None = None
    """[token, log-probability] pairs of the first new token, if they were asked for and returned."""

    @property
    def hidden(self) -> bool:
        """Whether it was cut before its first word, for example in a thought that the server does not show."""
        return not self.finished and not self.text.strip()


class UnreadableError(ValueError):
    """A reply with status 200 that contains no answer."""


def read_reply(content: bytes, wants_top: bool) -> Answered:
    """Read a chat completion; only the text is relied on, since servers differ in everything else.

    Args:
        content: The body of the HTTP reply.
        wants_top: Whether log-probabilities were asked for; the text may then be missing.

    Raises:
        UnreadableError: The reply has neither text nor thought, and was not cut at the token limit; or the
            model failed before the end.
    """
    try:
        reply = json.loads(content)
        choice = reply["choices"][0]
        message = choice["message"]
        if choice.get("finish_reason") == "error":  # OpenRouter: the model failed while writing
            raise UnreadableError("it ended with an error")
        finished = choice.get("finish_reason") != "length"
        if finished and "content" not in message and not any(message.get(name) for name in THOUGHTS):
            raise KeyError("content")
        said = message.get("content")  # servers leave it out if everything was a thought, shown or not
    except UnreadableError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise UnreadableError(f"{type(error).__name__} while reading it") from None
    top = _top(choice) if wants_top else None
    text, thought = _text(said, message)
    if text is None and not thought:
        if top is None and finished:
            raise UnreadableError("its message has no text")
        # if thoughts are hidden, a reply cut within one, or of a single token, is empty
        text = ""
    usage = reply.get("usage")
    counts = [_count(usage, name) for name in ("prompt_tokens", "completion_tokens")]
    if thought and not text:
        finished = False  # a thought without an answer is unfinished, whatever ended it
    return Answered(_writable(_joined(thought, text)), finished, counts[0], counts[1], top)


def _text(said: Any, message: dict[str, Any]) -> tuple[str | None, str]:
    """Return the answer, or None if there is none, and the thought."""
    given = next((message[name] for name in THOUGHTS if isinstance(message.get(name), str)), "")
    thought = given.strip()
    if isinstance(said, list):
        said, inside = _parts(said)
        thought = "\n\n".join(t for t in (thought, inside) if t)
    if said is None:
        said = message.get("refusal")  # where OpenAI puts a refusal
    if said is not None and not isinstance(said, str):
        raise UnreadableError("its message has no text")
    return said, thought


def _parts(parts: list[Any]) -> tuple[str | None, str]:
    """Return the text and thought of a list of typed parts; other parts, such as images, are ignored."""
    texts: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type") in THOUGHT_PARTS:
            thoughts += [text for key in ("thinking", "reasoning", "text") for text in _strings(part.get(key))]
        elif isinstance(part, dict):
            texts += [text for key in ("text", "refusal") for text in _strings(part.get(key))]
    return "".join(texts) if texts else None, "\n\n".join(t.strip() for t in thoughts if t.strip())


def _strings(value: Any) -> list[str]:
    """Return the texts of a part's field, which is a string or a list of parts."""
    if isinstance(value, list):
        return [str(part["text"]) for part in value if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return [value] if isinstance(value, str) else []


def _joined(thought: str, text: str | None) -> str:
    """Join thought and text as `evenhand.prompting.thinking` reads them; without text, the thought stays open."""
    if not thought:
        return text or ""
    if not text or not text.strip():
        return f"{THINK.opening}\n{thought}"
    return f"{THINK.opening}\n{thought}\n{THINK.closing}\n\n{text.strip()}"


def _writable(text: str) -> str:
    """Replace unpaired surrogates, which cannot be written to a file, by a replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _top(choice: dict[str, Any]) -> list[list[Any]] | None:
    """Return the first token's list; None if any value is not a number, as that token may be the likeliest."""
    try:
        listed = choice["logprobs"]["content"][0]["top_logprobs"]
        return [[str(entry["token"]), _number(entry["logprob"])] for entry in listed] or None
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return None


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or math.isnan(number):
        raise ValueError(value)
    return number
