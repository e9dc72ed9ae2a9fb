"""The tokens of bare completions with their log-probabilities: `logprobs` and `echo` of /v1/completions.

As in the protocol, `echo` puts the prompt before the reply, in the text and in the lists; the first token has no
probability. The token that ends a reply is listed too, though the text is without it: clients count it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from evenhand.inference import Generated, Prompt, Request
from evenhand.inference.sampling import end_tokens
from evenhand.inference.token_table import Listed, token_tables
from evenhand.integrations.openai_server.texts import following, places
from evenhand.interfaces import Sampling
from evenhand.models.local import LocalModel

WINDOW = 6
"""Number of preceding tokens that decide how a token's text is written, such as whether a blank precedes it."""


class Shown(NamedTuple):
    """The text of a prompt and its reply that a client is shown."""

    head: str
    """The prompt if it is put before the reply, else ""."""
    text: str
    """All of it, the prompt included."""


class TokenList(NamedTuple):
    """The lists of the protocol, one entry per token."""

    tokens: list[str]
    logprobs: list[float | None]
    top: list[dict[str, float] | None]
    offsets: list[int]
    """Where the part of each token begins in the text that belongs to the list; hidden tokens take no characters."""

    def shortened(self, top: int) -> TokenList:
        """Return the lists with at most `top` alternatives of each token, and the token itself."""
        kept = [None if t is None else _kept(t, token, top) for t, token in zip(self.top, self.tokens, strict=True)]
        return self._replace(top=kept)

    def body(self) -> dict[str, object]:
        """Return the lists in the form that clients expect."""
        return {
            "tokens": self.tokens,
            "token_logprobs": self.logprobs,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
        }


def token_lists(
    model: LocalModel,
    prompts: Sequence[Prompt],
    made: Sequence[Generated],
    shown: Sequence[Shown],
    sampling: Sampling,
    *,
    top: int,
    echo: bool,
) -> list[TokenList]:
    """Make the lists for prompts and their replies.

    Args:
        model: The model that wrote the replies.
        prompts: Prompts that were continued.
        made: The replies.
        shown: The texts that belong to the lists.
        sampling: Sampling of the replies; its stop strings show whether a token ended the reply.
        top: How many alternatives of each token are listed.
        echo: Whether the prompt's tokens are listed as well.
    """
    ends = _ends(model, prompts, made, sampling)
    rows = [(*p.ids, *g.ids, *end) for p, g, end in zip(prompts, made, ends, strict=True)]
    starts = [1 if echo else len(p.ids) for p in prompts]
    engine = model.engine
    tables = token_tables(engine.module, rows, starts, top, pad_id=engine.pad_id)
    out = []
    for ids, prompt, each, start, table in zip(rows, prompts, shown, starts, tables, strict=True):
        first = 0 if echo else start
        offsets = places(model, ids, len(prompt.ids), each.head, each.text)[first:]
        out.append(_list(model, ids, first, table)._replace(offsets=offsets))
    return out


def _ends(
    model: LocalModel, prompts: Sequence[Prompt], made: Sequence[Generated], sampling: Sampling
) -> list[tuple[int, ...]]:
    """Return the token that ended each reply; if several could have, the most probable one."""
    known = sorted(end_tokens(model.engine.module, model.engine.tokenizer))
    ended = [
        g.finished and not any(s in following(model.decoded, p.ids, g.ids) for s in sampling.stop)
        for p, g in zip(prompts, made, strict=True)
    ]
    rows = [i for i, yes in enumerate(ended) if yes and known]
    asked = [_after((*prompts[i].ids, *made[i].ids), known) for i in rows]
    values = model.engine.read(asked, model.fingerprint) if len(known) > 1 else [(0.0,)] * len(rows)
    best = {i: known[max(range(len(known)), key=lambda n: v[n])] for i, v in zip(rows, values, strict=True)}
    return [(best[i],) if i in best else () for i in range(len(made))]


def _after(ids: tuple[int, ...], tokens: Sequence[int]) -> Request:
    return Request(ids, tuple((len(ids) - 1, t) for t in tokens))


def _list(model: LocalModel, ids: Sequence[int], start: int, table: Sequence[Listed]) -> TokenList:
    """Make the lists of one row from a token on, without the places; nothing precedes token 0."""
    texts = _Texts(model, ids)
    listed: list[Listed | None] = [*([None] if start == 0 and ids else []), *table]
    out = TokenList([], [], [], [])
    for at, entry in enumerate(listed, start):
        token = texts.at(at, ids[at])
        out.tokens.append(token)
        out.logprobs.append(None if entry is None else entry.logprob)
        out.top.append(None if entry is None else _alternatives(texts, at, token, entry))
    return out


def _alternatives(texts: _Texts, at: int, token: str, entry: Listed) -> dict[str, float]:
    """Return the most probable tokens by their texts, and the token itself; of two with one text, the likelier."""
    out: dict[str, float] = {}
    for other, logprob in entry.top:
        out.setdefault(texts.at(at, other), logprob)
    if entry.top:
        out.setdefault(token, entry.logprob)
    return out


def _kept(top: dict[str, float], token: str, count: int) -> dict[str, float]:
    kept = dict(list(top.items())[:count])
    return kept | {token: top[token]} if count and token in top else kept


class _Texts:
    """Texts of tokens in their row: many vocabularies keep the blank before a word in its token."""

    def __init__(self, model: LocalModel, ids: Sequence[int]) -> None:
        self._tokenizer, self._ids = model.engine.tokenizer, ids
        self._before: tuple[int, list[int], str] = (-1, [], "")

    def at(self, place: int, token: int) -> str:
        """Return the text of a token at a place of the row."""
        if self._before[0] != place:
            window = list(self._ids[max(0, place - WINDOW) : place])
            self._before = (place, window, self._decoded(window))
        _, window, before = self._before
        whole = self._decoded([*window, token])
        return whole[len(before) :] if whole.startswith(before) else self._decoded([token])

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)) if ids else ""
