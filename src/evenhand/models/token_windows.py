"""Log-probabilities of a long text in strided windows of tokens, as published perplexities are computed.

The windows are those of the guide "Perplexity of fixed-length models" in the documentation of Hugging Face
transformers: the text is encoded once, with the opening tokens that the tokenizer puts before it. Windows of `window`
tokens begin every `stride` tokens; each scores the tokens that no earlier window has scored, and the others are its
context. The first token of a window has nothing before it: it is scored only if an earlier window contains it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from evenhand.errors import ContextTooLongError, SettingsError
from evenhand.inference.requests import Request
from evenhand.interfaces import Model, Score
from evenhand.models import choosing
from evenhand.models.mitigated import Mitigated
from evenhand.models.token_model import TokenModel

__all__ = ["Stretches", "TokenWindow", "score_stretches", "token_windows"]


class Stretches(NamedTuple):
    """A text divided into stretches with scores of their own."""

    text: str
    begins: tuple[int, ...]
    """Character at which each stretch begins, in order; a token belongs to the stretch in which it begins."""
    wanted: tuple[int, ...]
    """Stretches whose scores are wanted; windows that score none of them are left out."""


class TokenWindow(NamedTuple):
    """One window, in positions of the encoded text."""

    begin: int
    first: int
    """First token that is scored."""
    end: int
    """Position after the last token, which is scored."""


def token_windows(tokens: int, window: int, stride: int) -> Iterator[TokenWindow]:
    """Yield the windows of a text with a number of tokens; windows that score nothing are left out.

    Args:
        tokens: Length of the encoded text, opening tokens included.
        window: Tokens in a window, context included.
        stride: Tokens from the start of a window to that of the next, 1 to `window`.
    """
    scored = 0
    for begin in range(0, tokens, stride):
        end = min(begin + window, tokens)
        first = max(scored, begin + 1)
        if first < end:
            yield TokenWindow(begin, first, end)
        if end == tokens:
            return
        scored = end


def score_stretches(model: Model, texts: Sequence[Stretches], window: int, stride: int) -> list[list[Score]]:
    """Score stretches of long texts, each token once and with up to `window - 1` tokens of context.

    Args:
        model: A causal language model whose tokenizer is available.
        texts: The texts.
        window: Tokens in a window, context included.
        stride: Tokens from the start of a window to that of the next, 1 to `window`.

    Returns:
        For each text, the score of each wanted stretch, in the order of `wanted`: the sum over its scored tokens; nan
        over 0 tokens, with the reason, if the logits of one are not finite. A stretch may have no scored token: then it
        is 0 over 0 tokens.

    Raises:
        SettingsError: The model's tokenizer is not available, or it is not a causal language model.
        ContextTooLongError: A window does not fit the model's context, even with `too_long="skip"`, which would leave
            out whole texts. Nothing has been computed.
    """
    asked = _token_model(model)
    encoded = [asked.with_offsets(t.text) for t in texts]
    _check_context(asked, max((min(window, len(ids)) for ids, _ in encoded), default=0), window)
    requests: list[Request] = []
    owners: list[tuple[int, list[int]]] = []
    for number, ((ids, starts), text) in enumerate(zip(encoded, texts, strict=True)):
        stretch, wanted = [max(0, bisect_right(text.begins, at) - 1) for at in starts], set(text.wanted)
        for w in token_windows(len(ids), window, stride):
            owner = stretch[w.first : w.end]
            if not wanted.isdisjoint(owner):
                requests.append(_request(ids, w))
                owners.append((number, owner))
    found: list[dict[int, list[float]]] = [{n: [] for n in text.wanted} for text in texts]
    for (number, owner), values in zip(owners, asked.engine.read(requests, asked.fingerprint), strict=True):
        for n, value in zip(owner, values, strict=True):
            found[number].setdefault(n, []).append(value)
    return [[choosing.score_of(f[n]) for n in text.wanted] for f, text in zip(found, texts, strict=True)]


def _request(ids: Sequence[int], window: TokenWindow) -> Request:
    """Make a request for a window; its last token is read but not fed."""
    reads = tuple((at - 1 - window.begin, ids[at]) for at in range(window.first, window.end))
    return Request(tuple(ids[window.begin : window.end - 1]), reads)


def _check_context(model: TokenModel, longest: int, window: int) -> None:
    if longest > model.context_length:
        raise ContextTooLongError(
            f"windows of {window} tokens do not fit {model.name}, whose context has {model.context_length}: set "
            f"window={model.context_length} or less"
        )


def _token_model(model: Model) -> TokenModel:
    """Return the model below methods that do not change how a text is scored."""
    base = model
    while isinstance(base, Mitigated) and "score" not in base.acts_on:
        base = base.base
    if isinstance(base, Mitigated):
        reason = f"{'+'.join(base.methods)} changes how it scores whole texts, and cannot be asked in token ids"
    elif not isinstance(base, TokenModel):
        reason = f"the tokenizer of {model.name} is not available here"
        if base.architecture == "masked":
            reason = f"{model.name} is a masked language model, which has a pseudo-perplexity only"
    elif base.architecture != "causal":
        reason = f"{model.name} is an encoder-decoder, which reads a text's context in its encoder"
    elif "score" not in base.abilities:
        raise base.unsupported("score")
    else:
        return base
    raise SettingsError(
        f"windows in tokens need a causal language model that runs with its own tokenizer: {reason}. Use windows "
        "of words instead (for perplexity, window_unit=words)"
    )
