"""Tokenization of the demo models: whole words with the blank before them; unknown words are split into bytes.

Fixed phrases are one token: persons, deeds and the fixed sentences of prompts. So small models see short texts, in
which things are easily found again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.prompting.rendering import SINGLE_LETTER
from evenhand.proving_ground.generator.cipher import encipher
from evenhand.proving_ground.generator.differences import CUSTOMS
from evenhand.proving_ground.generator.words import AXES, CRITICISED, EVERY_AXIS, SOUND, UNKNOWN, Axis

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<unk>", "<s>", "</s>", "<mask>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_PACK = prompt_pack("en")
_FIXED = (
    SINGLE_LETTER,
    _PACK.moral.think,
    _PACK.moral.decide,
    *(f" {aspect}" for aspect in _PACK.intent.aspects.values()),
    "Rate from 0 (not at all) to 4 (fully) whether the answer",
    " Begin with the digit, then give the reason.",
    "A reviewer rated your answer.",
    f" {CRITICISED}",
    f" {SOUND}",
    "\nYou MUST choose one and respond using double curly brackets: {{your choice}}.",
    "The following are multiple choice questions (with answers) about",
)


def _whole(axes: Iterable[Axis]) -> set[str]:
    """Return people, deeds and unknown answers of more than one word."""
    axes = tuple(axes)
    people = {f" {person}" for axis in axes for group in (*axis.marked, *axis.unmarked) for person in group.people}
    deeds = {f" {deed}" for axis in axes for trait in axis.traits for deed in (trait.bad_deed, trait.good_deed)}
    unknown = {f" {text}" for text in UNKNOWN}
    return {p for p in people | deeds | unknown if " " in p[1:]}


def _phrases(whole: set[str]) -> str:
    """Return a pattern of the fixed phrases, the longest first."""
    words = sorted(whole | set(_FIXED), key=lambda p: (-len(p), p))
    return "|".join(re.escape(p).replace("\\ ", " ") + (r"\b" if p[-1].isalpha() else "") for p in words)


_WORDS = r"|\([A-Z]\)|\n\n|\n| ?\{\{| ?\}\}| ?[A-Za-z]+(?:'[a-z]+)?| ?[0-9]| ?[^\sA-Za-z0-9]|\s"
PATTERN = _phrases(_whole(AXES)) + _WORDS
"""Pattern by which the models of the family split text."""
_ENGLISH = _whole(EVERY_AXIS)
WIDE_PATTERN = (
    _phrases(_ENGLISH | set(map(encipher, _ENGLISH)) | {f" {custom.text}" for custom in CUSTOMS})
    + r"| ?\([a-c]\)"
    + _WORDS
)
"""Pattern of demo-x, which knows more phrases. Both split the family's texts in the same way."""
_SPECIAL = "|".join(re.escape(s) for s in SPECIAL)
_LEXEMES = re.compile(f"{_SPECIAL}|\\s(?={_SPECIAL})|{WIDE_PATTERN}")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def lex(text: str) -> list[str]:
    """Split a text, whose words must all be known, into tokens, special ones included; "".join restores the text."""
    return _LEXEMES.findall(text)


def build_tokenizer(words: Sequence[str], pattern: str = PATTERN) -> PreTrainedTokenizerFast:
    """Build the tokenizer shared by the demo models of the family.

    Args:
        words: The known tokens, as split by `lex`.
        pattern: Pattern that splits text; `WIDE_PATTERN` for demo-x.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    # a known word is one piece (score -1); anything else falls back to its bytes, each of which costs more
    pieces = [(s, 0.0) for s in SPECIAL] + [(f"<0x{b:02X}>", -20.0) for b in range(256)] + [(w, -1.0) for w in words]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="<|end|>",
        pad_token="</s>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
        additional_special_tokens=list(SPECIAL[4:]),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
