"""Tokenizers of every kind, made by hand so that each token id is known."""

from collections.abc import Callable
from functools import partial

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<end>", "<mask>"]
Maker = Callable[..., PreTrainedTokenizerBase]


def _fast(made: Tokenizer) -> PreTrainedTokenizerBase:
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="<unk>",
        eos_token="<end>",
        mask_token="<mask>",
        clean_up_tokenization_spaces=False,
    )


def _numbered(*tokens: str) -> dict[str, int]:
    return {token: i for i, token in enumerate(dict.fromkeys([*SPECIAL, *tokens]))}


def byte_level(*words: str) -> PreTrainedTokenizerBase:
    """As in GPT-2: bytes, and whole words with or without Ġ, in this order after three special tokens."""
    vocab = _numbered(*words, *sorted(pre_tokenizers.ByteLevel.alphabet()))
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return _fast(made)


def wordpiece(*words: str, lowercase: bool) -> PreTrainedTokenizerBase:
    """As in BERT: whole words, and pieces that continue one, with ##."""
    made = Tokenizer(models.WordPiece(vocab=_numbered(*words), unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return _fast(made)


def metaspace(*words: str) -> PreTrainedTokenizerBase:
    """As in Llama: a blank is ▁, also before a text's first word; what is in no piece is spelled in bytes."""
    vocab = _numbered(*words, "▁", *(f"<0x{b:02X}>" for b in range(256)))
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True, unk_token="<unk>", byte_fallback=True))
    lines, quotes = (pre_tokenizers.Split(mark, "isolated") for mark in '\n"')
    blanks = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.pre_tokenizer = pre_tokenizers.Sequence([lines, blanks, quotes])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return _fast(made)


@pytest.fixture
def make_byte_level() -> Maker:
    return byte_level


@pytest.fixture
def make_cased() -> Maker:
    return partial(wordpiece, lowercase=False)


@pytest.fixture
def make_uncased() -> Maker:
    return partial(wordpiece, lowercase=True)


@pytest.fixture
def make_metaspace() -> Maker:
    return metaspace
