"""Encode text as token ids, with the opening tokens exactly once and no token lost at a boundary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evenhand.interfaces import Dialogue
from evenhand.models.text_pieces import Ids as Ids
from evenhand.models.text_pieces import TextPieces
from evenhand.prompting import chat_template, rendering

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from evenhand.prompting.thinking import Style


class Encoder:
    """Encodes lists of texts for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Determine once what the tokenizer adds by itself."""
        self.tokenizer = tokenizer
        self.pieces = TextPieces(tokenizer)
        self.templated = rendering.prompt_format(tokenizer) == "chat template"
        self.style: Style | None = chat_template.probed(tokenizer).style if self.templated else None
        """How the chat template lets the model think; None if it does not."""
        self.opening: Ids = _opening(tokenizer)
        """Tokens at the start of every sequence; an end token that the tokenizer would append is not
        included, since texts are continued."""

    def blank(self, dialogue: Dialogue) -> str:
        """Return what separates a dialogue from an option that continues it; "" if a chat template separates them."""
        return "" if rendering.is_chat(dialogue, self.tokenizer) else " "

    def plain(self, texts: Sequence[str]) -> list[Ids]:
        """Encode texts that contain no special tokens of their own."""
        return [self.opening + ids for ids in self._raw(texts)]

    def with_offsets(self, text: str) -> tuple[Ids, list[int]]:
        """Encode a text without special tokens of its own, and return where in it each token begins.

        Returns:
            Token ids, and for each the character at which it begins, 0 for opening tokens. A tokenizer in pure
            Python does not report where its tokens begin; they are then assumed to have equal length.
        """
        if self.tokenizer.is_fast:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids, starts = list(encoded.input_ids), [int(begin) for begin, _ in encoded["offset_mapping"]]
        else:
            ids = self._raw([text])[0]
            starts = [n * len(text) // len(ids) for n in range(len(ids))]
        return self.opening + ids, [0] * len(self.opening) + starts

    def dialogue_texts(self, dialogues: Sequence[Dialogue], *, think: bool = False) -> list[str]:
        """Return the prompt strings of dialogues; chat templates write their special tokens themselves.

        Args:
            dialogues: Dialogues to render.
            think: Whether a model that thinks may do so; by default the thought is closed and the answer follows.
        """
        return rendering.dialogue_texts(dialogues, self.tokenizer, think=think)

    def decoded(self, ids: Sequence[int], skip_special: bool) -> str:
        """Decode new tokens as the engine does, or with special tokens written out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=skip_special))

    def named(self, ids: Sequence[int]) -> str:
        """Format tokens for an error: as in the vocabulary, with their ids."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(ids))
        return " ".join(f"{token!r} (id {i})" for token, i in zip(tokens, ids, strict=True))

    def prompted(self, texts: Sequence[str]) -> list[Ids]:
        """Encode strings that begin with a prompt from `dialogue_texts`."""
        if not self.templated:
            return self.plain(texts)
        return [self._opened(ids) for ids in self._raw(texts)]

    def continuing(self, texts: Sequence[str], continuations: Sequence[str]) -> list[Ids]:
        """Encode prompts from `dialogue_texts`, each together with what continues it."""
        return self.prompted([text + after for text, after in zip(texts, continuations, strict=True)])

    def headed(self, texts: Sequence[str]) -> list[tuple[Ids, str]]:
        """Encode prompts from `dialogue_texts` up to their ends.

        Returns:
            For each prompt the ids of its beginning, and its end as text: a continuation of the prompt affects only
            the ids of the end. If that is not known of a tokenizer, the end is the whole prompt, and there are no ids.
        """
        out: list[tuple[Ids, str]] = []
        for text, (begin, end) in zip(texts, self.pieces.split(texts), strict=True):
            if not begin or len(begin) < len(self.opening):  # the beginning does not contain the whole opening
                out.append(([], text))
            else:
                out.append((self._opened(begin) if self.templated else self.opening + begin, end))
        return out

    def ended(self, ends: Sequence[str], continuations: Sequence[str]) -> list[Ids]:
        """Encode ends from `headed`, of prompts with a beginning, each together with what continues it."""
        return self._raw([end + after for end, after in zip(ends, continuations, strict=True)])

    def _opened(self, ids: Ids) -> Ids:
        """Complete the opening: a template may have written all of it, a part of it, or nothing."""
        whole = self.opening
        written = next((n for n in range(len(whole), 0, -1) if ids[:n] == whole[:n]), 0)
        if written:
            return whole + ids[written:]
        # ChatGLM's "[gMASK] <sop>" opens with two tokens; a template that writes only the last gets the first before it
        written = next((n for n in range(len(whole), 0, -1) if ids[:n] == whole[-n:]), 0)
        return whole + ids[written:]

    def pairs(self, prompts_: Sequence[str | Dialogue], continuations: Sequence[str]) -> list[tuple[Ids, int]]:
        """Encode prompt + continuation as one string and count the tokens that belong to the prompt.

        Trailing blanks of the prompt move to the continuation, since most vocabularies attach a blank to the word after
        it (the rule of lm-evaluation-harness; for chat prompts only spaces, as line ends belong to the template). An
        empty prompt is the opening token alone, or, if the tokenizer has none, the end token.
        """
        out: list[tuple[Ids, int]] = [([], 0)] * len(prompts_)
        for is_chat in (True, False):
            rows = [i for i, p in enumerate(prompts_) if isinstance(p, Dialogue) is is_chat]
            asked = [prompts_[i] for i in rows]
            plain = [p for p in asked if isinstance(p, str)]
            texts = plain or self.dialogue_texts([p for p in asked if isinstance(p, Dialogue)])
            encode = self.prompted if is_chat else self.plain
            heads = encode([t.rstrip(" ") if is_chat else t.rstrip() for t in texts])
            wholes = encode([t + continuations[i] for t, i in zip(texts, rows, strict=True)])
            for i, head, whole in zip(rows, heads, wholes, strict=True):
                out[i] = self._with_opening(whole, len(head))
        return out

    def _with_opening(self, whole: Ids, prompt_length: int) -> tuple[Ids, int]:
        if prompt_length > 0:
            return whole, prompt_length
        end = self.tokenizer.eos_token_id
        return ([int(end), *whole], 1) if end is not None else (whole, 1)

    def _raw(self, texts: Sequence[str]) -> list[Ids]:
        return self.pieces.encode(texts)


def _opening(tokenizer: PreTrainedTokenizerBase) -> Ids:
    """Return all special tokens that the tokenizer puts before a text, in order."""
    bare: Ids = list(tokenizer("a", add_special_tokens=False).input_ids)
    whole: Ids = list(tokenizer("a", add_special_tokens=True).input_ids)
    for start in range(len(whole) - len(bare) + 1) if bare else ():
        if whole[start : start + len(bare)] == bare:
            return whole[:start]
    alone: Ids = list(tokenizer("", add_special_tokens=True).input_ids)  # "a" is tokenised differently after them
    ends = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {tokenizer.bos_token_id, tokenizer.cls_token_id}
    while alone and alone[-1] in ends:
        alone.pop()
    return alone
