"""Text to token ids, with the beginning-of-sequence token exactly once and no token lost at a boundary."""

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
    """Encodes whole lists for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Find out once what the tokenizer adds by itself."""
        self.tokenizer = tokenizer
        self.pieces = TextPieces(tokenizer)
        self.templated = rendering.prompt_format(tokenizer) == "chat template"
        self.style: Style | None = chat_template.probed(tokenizer).style if self.templated else None
        """How the chat template lets the model think; None where it does not."""
        self.opening: Ids = _opening(tokenizer)
        """What every sequence opens with, one token or several; an end token that the tokenizer would append is not
        wanted, as texts are continued."""

    def blank(self, dialogue: Dialogue) -> str:
        """What separates a dialogue from an option that continues it; a chat template separates them itself."""
        return "" if rendering.is_chat(dialogue, self.tokenizer) else " "

    def plain(self, texts: Sequence[str]) -> list[Ids]:
        """Encode texts that bring no special tokens of their own."""
        return [self.opening + ids for ids in self._raw(texts)]

    def with_offsets(self, text: str) -> tuple[Ids, list[int]]:
        """Encode a text that brings no special tokens of its own, and say where in it each token begins.

        Returns:
            Token ids, and per token the character at which it begins, 0 for opening tokens. A tokenizer written in
            Python alone does not say where its tokens begin; they are taken to be of equal length then.
        """
        if self.tokenizer.is_fast:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids, starts = list(encoded.input_ids), [int(begin) for begin, _ in encoded["offset_mapping"]]
        else:
            ids = self._raw([text])[0]
            starts = [n * len(text) // len(ids) for n in range(len(ids))]
        return self.opening + ids, [0] * len(self.opening) + starts

    def dialogue_texts(self, dialogues: Sequence[Dialogue], *, think: bool = False) -> list[str]:
        """The prompt strings of dialogues; chat templates write their special tokens themselves.

        Args:
            dialogues: What is asked.
            think: Whether a model that thinks may do so; by default its thought is closed and the answer comes next.
        """
        return rendering.dialogue_texts(dialogues, self.tokenizer, think=think)

    def decoded(self, ids: Sequence[int], skip_special: bool) -> str:
        """New tokens as text, as the engine decodes them, or with special tokens written out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=skip_special))

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
            Per prompt the ids of its beginning, and its end as text: whatever continues the prompt changes no ids but
            those of the end. Where that is not known of a tokenizer, the end is the whole prompt, and there are no ids.
        """
        out: list[tuple[Ids, str]] = []
        for text, (begin, end) in zip(texts, self.pieces.split(texts), strict=True):
            if not begin or len(begin) < len(self.opening):  # what the text opens with is not all there
                out.append(([], text))
            else:
                out.append((self._opened(begin) if self.templated else self.opening + begin, end))
        return out

    def ended(self, ends: Sequence[str], continuations: Sequence[str]) -> list[Ids]:
        """Encode ends of prompts from `headed` that have a beginning, each together with what continues it."""
        return self._raw([end + after for end, after in zip(ends, continuations, strict=True)])

    def _opened(self, ids: Ids) -> Ids:
        """The opening and what follows it: a template may have written all of the opening, a part of it, or nothing."""
        whole = self.opening
        written = next((n for n in range(len(whole), 0, -1) if ids[:n] == whole[:n]), 0)
        if written:
            return whole + ids[written:]
        # ChatGLM's "[gMASK] <sop>" opens with two tokens; a template that writes only the last gets the first before it
        written = next((n for n in range(len(whole), 0, -1) if ids[:n] == whole[-n:]), 0)
        return whole + ids[written:]

    def pairs(self, prompts_: Sequence[str | Dialogue], continuations: Sequence[str]) -> list[tuple[Ids, int]]:
        """Encode prompt + continuation as one string and say how many tokens belong to the prompt.

        Trailing blanks of the prompt move to the continuation, since most vocabularies glue a blank to the word after
        it (the rule of lm-evaluation-harness; of a chat prompt only spaces, as its line ends are the template's). An
        empty prompt is the opening token alone, or, where the tokenizer has none, the end token.
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
    """The special tokens that the tokenizer puts before a text, all of them, in its order."""
    bare: Ids = list(tokenizer("a", add_special_tokens=False).input_ids)
    whole: Ids = list(tokenizer("a", add_special_tokens=True).input_ids)
    for start in range(len(whole) - len(bare) + 1) if bare else ():
        if whole[start : start + len(bare)] == bare:
            return whole[:start]
    alone: Ids = list(tokenizer("", add_special_tokens=True).input_ids)  # "a" itself is written otherwise after them
    ends = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {tokenizer.bos_token_id, tokenizer.cls_token_id}
    while alone and alone[-1] in ends:
        alone.pop()
    return alone
