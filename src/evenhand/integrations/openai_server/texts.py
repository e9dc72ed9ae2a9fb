"""Texts of tokens in their context: many vocabularies keep the blank before a word in its token.

Decoded by itself, a reply loses the blank that it begins with. A reply is therefore the text of prompt and reply
without that of the prompt, so that the two together are what the model read and wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evenhand.core.stop_strings import first_stop
from evenhand.inference import Generated, Prompt
from evenhand.models.token_model import TokenModel

Decode = Callable[[Sequence[int]], str]


def following(decode: Decode, prompt: Sequence[int], new: Sequence[int]) -> str:
    """Return the text of new tokens that follow a prompt.

    Args:
        decode: Converts tokens to text.
        prompt: Tokens that were continued. If their text is not the beginning of the whole, as when a character is
            divided between prompt and reply, the new tokens are decoded by themselves.
        new: Tokens that were written.
    """
    before = decode(prompt)
    whole = decode([*prompt, *new])
    return whole[len(before) :] if whole.startswith(before) else decode(new)


def continued(model: TokenModel, prompt: Prompt, made: Generated, stop: Sequence[str]) -> Generated:
    """Give a reply its text as it reads after the prompt, without the first stop string and what follows it."""
    if model.architecture != "causal" or not made.ids:  # a separate decoder begins a new text
        return made
    text = following(model.decoded, prompt.ids, made.ids)
    cut = first_stop(text, stop)
    return made._replace(text=text[:cut], finished=made.finished or cut is not None)


def pieces(decode: Decode, ids: Sequence[int]) -> list[str]:
    """Return what each token adds to the text of those before it; "" for one that is not shown.

    A character of several tokens belongs to the last of them. Each token is decoded with the last one that added
    something, not with all before it, so that the time does not grow with the square of the length.
    """
    out: list[str] = []
    begin, end, before = 0, 0, ""
    for at in range(len(ids)):
        whole = decode(ids[begin : at + 1])
        complete = not whole.endswith("\ufffd") or at == len(ids) - 1
        if len(whole) <= len(before) or not complete:
            out.append("")
            continue
        out.append(whole[len(before) :])
        begin, end = end, at + 1
        before = decode(ids[begin:end])
    return out


def places(model: TokenModel, ids: Sequence[int], prompt: int, head: str, text: str) -> list[int]:
    """Return where in a text the part of each token begins; it ends where the next one begins.

    Args:
        model: The model whose tokenizer is used.
        ids: The tokens of prompt and reply.
        prompt: How many of them are the prompt's.
        head: The prompt as it stands in the text; "" if it does not.
        text: The text with the reply, which may have been cut at a stop string.

    Returns:
        One place per token, none beyond the end of the text. Tokens that are not shown take no character.
    """
    parts = pieces(model.decoded, ids)
    read = parts[:prompt]
    begins = _sums(read) if "".join(read) == head else _given(model, ids[:prompt], head) or _sums(read)
    begins = [min(at, len(head)) for at in begins]
    begins += [len(head) + at for at in _sums(parts[prompt:])]
    return [min(at, len(text)) for at in begins]


def _sums(parts: Sequence[str]) -> list[int]:
    out, place = [], 0
    for part in parts:
        out.append(place)
        place += len(part)
    return out


def _given(model: TokenModel, ids: Sequence[int], text: str) -> list[int]:
    """Return places in a prompt whose decoded text differs, from the tokenizer; none if it gives other tokens.

    The blanks before a token belong to it, as they do in decoded text.
    """
    if not text:
        return []
    encoded, starts = model.with_offsets(text)
    if list(encoded) != list(ids):
        return []
    opening = len(model.with_offsets("")[0])
    out: list[int] = []
    for at, start in enumerate(starts):
        last = out[-1] if out else 0
        word = len(text[:start].rstrip())  # where the word before it ends
        out.append(0 if at <= opening else word if word > last else max(start, last))
    return out
