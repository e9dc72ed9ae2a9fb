"""Text to token ids, with the beginning-of-sequence token exactly once and no token lost at a boundary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evenhand import prompts
from evenhand.interfaces import Dialogue

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = list[int]


class Encoder:
    """Encodes whole lists for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Find out once what the tokenizer adds by itself."""
        self.tokenizer = tokenizer
        self.templated = prompts.prompt_format(tokenizer) == "chat template"
        added: Ids = list(tokenizer("", add_special_tokens=True).input_ids)
        self.opening: Ids = [i for i in added if i != tokenizer.eos_token_id or i == tokenizer.bos_token_id][:1]
        """What every sequence opens with; a tokenizer that would also append an end token must not."""

    def blank(self, dialogue: Dialogue) -> str:
        """What separates a dialogue from an option that continues it; a chat template separates them itself."""
        return "" if prompts.is_chat(dialogue, self.tokenizer) else " "

    def plain(self, texts: Sequence[str]) -> list[Ids]:
        """Encode texts that bring no special tokens of their own."""
        return [self.opening + ids for ids in self._raw(texts)]

    def dialogue_texts(self, dialogues: Sequence[Dialogue]) -> list[str]:
        """The prompt strings of dialogues; chat templates write their special tokens themselves."""
        return [prompts.dialogue_text(d, self.tokenizer) for d in dialogues]

    def prompted(self, texts: Sequence[str]) -> list[Ids]:
        """Encode strings that begin with a prompt from `dialogue_texts`."""
        if not self.templated:
            return self.plain(texts)
        opening = self.opening
        # a template without its own BOS still gets the one that the model was trained with
        return [ids if not opening or ids[: len(opening)] == opening else opening + ids for ids in self._raw(texts)]

    def pairs(self, prompts_: Sequence[str | Dialogue], continuations: Sequence[str]) -> list[tuple[Ids, int]]:
        """Encode prompt + continuation as one string and say how many tokens belong to the prompt.

        Trailing blanks of the prompt move to the continuation, since most vocabularies glue a blank to the word after
        it (the rule of lm-evaluation-harness; of a chat prompt only spaces, as its line ends are the template's). An
        empty prompt is the opening token alone, or, where the tokenizer has none, the end token.
        """
        out: list[tuple[Ids, int]] = [([], 0)] * len(prompts_)
        for is_chat in (True, False):
            rows = [i for i, p in enumerate(prompts_) if isinstance(p, Dialogue) is is_chat]
            texts = [
                p if isinstance(p, str) else prompts.dialogue_text(p, self.tokenizer)
                for p in (prompts_[i] for i in rows)
            ]
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
        if not texts:
            return []
        return [list(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids]
