"""Pairs of texts as token ids, with the positions of the target tokens over which a score is summed."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Literal, NamedTuple

from evenhand.core.sequences import common_prefix_length
from evenhand.errors import ContextTooLongError, DataError, SettingsError
from evenhand.interfaces import Dialogue, Pair
from evenhand.models.tokenization import Encoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Target = Literal["answer", "sequence"]
Ids = list[int]


class Side(NamedTuple):
    """One text of a pair."""

    ids: tuple[int, ...]
    """Token ids that the model is shown; a masked model's target is masked in them."""
    places: tuple[int, ...]
    """Positions at which the logits are read."""
    tokens: tuple[int, ...]
    """Tokens whose scores are read there."""


class TokenPair(NamedTuple):
    """A pair in a model's tokens."""

    advantaged: Side
    """The stereotyped text."""
    disadvantaged: Side
    """Its counterpart."""
    axis: str

    @property
    def texts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Both texts as they are shown; pairs that share one must be on the same side of a hold-out."""
        return self.advantaged.ids, self.disadvantaged.ids


def encoded(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    causal: bool,
    target: Target = "answer",
    context: int,
    special: bool = True,
    truncate: bool = False,
) -> list[TokenPair]:
    """Tokenise pairs for a model.

    Args:
        pairs: Pairs of texts.
        tokenizer: The model's.
        causal: Whether the model reads from left to right; else what differs is masked, all of it at once.
        target: "answer" is what follows the common beginning of the two continuations: common first tokens say
            nothing about the bias, and their gradients are equal. "sequence" is every token of the text, for causal
            models only: a masked model's target is what is masked.
        context: Maximum number of tokens of a text.
        special: Whether texts get the special tokens that the tokenizer puts around a text.
        truncate: Whether longer texts are cut there; pairs that no longer differ are left out.

    Raises:
        DataError: The two texts of a pair are equal, or one has no token that could be scored.
        ContextTooLongError: A text does not fit.
        SettingsError: A masked model is given a dialogue.
    """
    made = _causal(pairs, tokenizer, target, special) if causal else _masked(pairs, tokenizer, special)
    if truncate:
        return [cut for pair in made if (cut := _cut(pair, context, causal))]
    for pair, sides in zip(pairs, made, strict=True):
        for side in sides[:2]:
            if len(side.ids) > context:
                raise ContextTooLongError(
                    f"pair {name_of(pair)} needs {len(side.ids)} tokens, at most {context} fit; shorten or leave out"
                )
    return made


def read_texts(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, causal: bool, most: int, seed: int, share: float = 0.15
) -> list[Side]:
    """Tokenise texts with the positions where a model predicts something: every next token, or masked ones.

    Args:
        texts: Plain texts; those without a position to predict are left out.
        tokenizer: The model's.
        causal: Whether the model reads from left to right.
        most: Number of tokens after which a text is cut.
        seed: Seed of the masked tokens.
        share: Share of tokens masked for a masked model, at least one token.
    """
    if causal:
        rows = [ids[:most] for ids in Encoder(tokenizer).plain(texts)]
        return [Side(tuple(ids), tuple(range(len(ids) - 1)), tuple(ids[1:])) for ids in rows if len(ids) > 1]
    out, special, random = [], set(tokenizer.all_special_ids), Random(f"{seed}/hidden")
    for text in texts:
        ids = list(tokenizer(text)["input_ids"])[:most]
        open_places = [n for n, token in enumerate(ids) if token not in special]
        if open_places:
            hidden = sorted(random.sample(open_places, max(1, round(share * len(open_places)))))
            shown = [int(tokenizer.mask_token_id) if n in hidden else t for n, t in enumerate(ids)]
            out.append(Side(tuple(shown), tuple(hidden), tuple(ids[n] for n in hidden)))
    return out


def _cut(pair: TokenPair, length: int, causal: bool) -> TokenPair | None:
    """Return the pair with both texts cut; None if they are then equal, or a text has lost its masked words."""
    sides = []
    for side in (pair.advantaged, pair.disadvantaged):
        kept = sum(place + causal < length for place in side.places)  # a causal model reads a token one place earlier
        if not kept or (not causal and kept < len(side.places)):
            return None
        sides.append(Side(side.ids[:length], side.places[:kept], side.tokens[:kept]))
    return None if sides[0] == sides[1] else TokenPair(sides[0], sides[1], pair.axis)


def _causal(
    pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, target: Target, special: bool
) -> list[TokenPair]:
    encoder = Encoder(tokenizer)
    prompts = [p.prompt for p in pairs]
    tail = [p.suffix if target == "sequence" else "" for p in pairs]
    found = [
        encoder.pairs(prompts, [text + after for text, after in zip(texts, tail, strict=True)])
        for texts in ([p.stereotyped for p in pairs], [p.counter_stereotyped for p in pairs])
    ]
    if not special:
        found = [[_bare(p, *row, encoder) for p, row in zip(pairs, rows, strict=True)] for rows in found]
    out = []
    for pair, (one, start), (other, also) in zip(pairs, *found, strict=True):
        if one == other:
            raise DataError(f"pair {name_of(pair)}: both texts are the same tokens")
        same = common_prefix_length(one, other)
        firsts = (
            (1, 1)
            if target == "sequence"
            else tuple(_first(ids, at, same) for ids, at in ((one, start), (other, also)))
        )
        sides = [
            Side(tuple(ids), tuple(range(at - 1, len(ids) - 1)), tuple(ids[at:]))
            for ids, at in zip((one, other), firsts, strict=True)
        ]
        out.append(TokenPair(sides[0], sides[1], pair.axis))
    return out


def _bare(pair: Pair, ids: Ids, start: int, encoder: Encoder) -> tuple[Ids, int]:
    """Return a text without its opening tokens; a dialogue's special tokens belong to its template, and stay.

    Raises:
        DataError: A single token is left, with nothing before it.
    """
    if isinstance(pair.prompt, Dialogue):
        return ids, start
    opening = len(encoder.opening) or int(not pair.prompt.rstrip())  # without one, an empty prompt is the end token
    if len(ids) - opening < 2:
        raise DataError(f"pair {name_of(pair)}: a text of one token has no score without an opening token")
    return ids[opening:], max(start - opening, 0)


def _first(ids: Ids, start: int, same: int) -> int:
    """Return where the target begins: at the first difference, unless the text ends before it.

    A difference may lie before `start`, in a token that the tokenizer merged of the prompt's end and the text: then it
    belongs to the target, as nothing after it distinguishes the two texts. The last token always does.
    """
    return max(same, 1) if same < len(ids) else max(min(start, len(ids) - 1), 1)


def _masked(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, special: bool) -> list[TokenPair]:
    out = []
    for pair in pairs:
        one, other = (_hidden(pair, text, tokenizer, special) for text in (pair.stereotyped, pair.counter_stereotyped))
        if one == other:
            raise DataError(f"pair {name_of(pair)}: both texts are the same tokens")
        out.append(TokenPair(one, other, pair.axis))
    return out


def _hidden(pair: Pair, text: str, tokenizer: PreTrainedTokenizerBase, special: bool) -> Side:
    if isinstance(pair.prompt, Dialogue):
        raise SettingsError(f"pair {name_of(pair)} has a dialogue before it, which a masked model cannot read")

    def bare(part: str) -> Ids:
        part = part.rstrip()  # a blank goes with what follows, as in most vocabularies
        return list(tokenizer(part, add_special_tokens=False)["input_ids"]) if part else []

    until = pair.prompt + text
    ids = list(tokenizer(until + pair.suffix, add_special_tokens=special)["input_ids"])
    inside = list(tokenizer(until + pair.suffix, add_special_tokens=False)["input_ids"])
    before = next(n for n in range(len(ids) + 1) if ids[n : n + len(inside)] == inside)  # opening tokens
    start, end = before + len(bare(pair.prompt)), before + len(bare(until))
    if end <= start or ids[before:end] != bare(until):
        raise DataError(f"pair {name_of(pair)}: {text!r} shares a token with the text next to it")
    shown = [*ids[:start], *[int(tokenizer.mask_token_id)] * (end - start), *ids[end:]]
    return Side(tuple(shown), tuple(range(start, end)), tuple(ids[start:end]))


def name_of(pair: Pair) -> str:
    """Return the name of a pair in messages."""
    return pair.id or repr(pair.stereotyped[:60])
