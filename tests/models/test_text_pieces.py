"""Lines that are tokenised by themselves give the ids of the whole text, for every kind of tokenizer that allows it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from evenhand.data.io.demo import MODELS
from evenhand.models.line_boundaries import GPT2, line_ends
from evenhand.models.text_pieces import TextPieces, cut
from evenhand.models.tiny import tiny_tokenizer
from evenhand.models.tokenization import Encoder

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
FRAGMENTS = [
    *("Answer", " the", " question", ".", "?", "!!", "'s", "(A)", " (B)", "C", " 12", "345", "é", "e\u0301", "\u0301"),
    *("\n", "\n", "\n", "\n\n", "\n\n\n", " \n", "\t", "\r\n", " ", "  ", "<|user|>", "<|assistant|>", "<|user|>\n"),
    *(
        "\nYou MUST choose one and respond using double curly brackets: {{your choice}}.",
        "ΣΑΣ",
        "\n(A) Not known",
        "{{",
    ),
    *("\n(", "\nAnswer:", "\n3", "-", "/", "\n/", "Can't be determined", "<mask>", "\u2028", "日本"),
]
CORPUS = ["".join(random.Random(n).choices(FRAGMENTS, k=60)) for n in range(60)]
Build = Callable[[], Tokenizer]


def bpe(*parts: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    """A trained byte-level BPE; the bytes are written by the last part."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence(list(parts)) if len(parts) > 1 else parts[0]
    if normalizer is not None:
        made.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def of_bytes(use_regex: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def gpt2() -> Tokenizer:
    return bpe(of_bytes(use_regex=True))


def llama3() -> Tokenizer:
    return bpe(split(LLAMA3), of_bytes(), normalizer=normalizers.NFC())


def deepseek() -> Tokenizer:
    return bpe(split(r"\p{N}{1,3}"), pre_tokenizers.Digits(individual_digits=True), split(GPT2), of_bytes())


def wordpiece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    )
    return made


def unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


def metaspace() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


def sentencepiece() -> Tokenizer:
    """As Llama 2's: no words, blanks written as a mark, and one put before the text."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False))
    return made


def wrapped(build: Build) -> PreTrainedTokenizerFast:
    made = PreTrainedTokenizerFast(tokenizer_object=build(), unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    made.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True, special=True)})
    return made


BY_LINES: dict[str, Build] = {
    "gpt2": gpt2,
    "llama3": llama3,
    "deepseek": deepseek,
    "wordpiece": wordpiece,
    "unigram": unigram,
}
WHOLE: dict[str, Build] = {
    "metaspace": metaspace,
    "sentencepiece": sentencepiece,
    "bytes without words": lambda: bpe(of_bytes()),
    "a word over lines": lambda: bpe(split(r"\s\w+|\s+"), of_bytes()),
    "a line end not cut out": lambda: bpe(split(r"\w+"), of_bytes()),
    "a class over lines": lambda: bpe(split(r"[^\w]+|\w+|\s+"), of_bytes()),
    "a prepended blank": lambda: bpe(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "blanks stripped": lambda: bpe(of_bytes(use_regex=True), normalizer=normalizers.Strip()),
}


def texts_for(seed: int, count: int = 150) -> list[str]:
    rng = random.Random(seed)
    return ["", "\n", "(A", *("".join(rng.choices(FRAGMENTS, k=rng.randrange(1, 25))) for _ in range(count))]


def check(tokenizer: PreTrainedTokenizerFast) -> None:
    """Texts, and texts with something after them, have the tokenizer's own ids."""
    texts, pieces = texts_for(1), TextPieces(tokenizer)
    own = [list(ids) for ids in tokenizer(texts, add_special_tokens=False).input_ids]
    assert pieces.encode(texts) == own
    for after in ("A", " A", " yes, the\n(A) x", ""):
        whole = tokenizer([t + after for t in texts], add_special_tokens=False).input_ids
        heads = pieces.split(texts)
        ends = pieces.encode([end + after for _, end in heads])
        assert [begin + end for (begin, _), end in zip(heads, ends, strict=True)] == [list(ids) for ids in whole]


@pytest.mark.parametrize("name", BY_LINES)
def test_lines_have_the_ids_of_the_whole_text(name: str) -> None:
    tokenizer = wrapped(BY_LINES[name])
    assert TextPieces(tokenizer).ends is not None
    check(tokenizer)


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_not_sure_is_tokenised_whole(name: str) -> None:
    tokenizer = wrapped(WHOLE[name])
    assert line_ends(tokenizer) is None
    check(tokenizer)


@pytest.mark.parametrize("name", ["demo", "demo-b", "demo-x"])
def test_the_demo_is_read_by_lines_but_for_a_sentence_that_begins_with_its_line_end(name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / name)
    found = line_ends(tokenizer)
    assert found is not None and found.after_blanks and "Y" not in found.begins and {"A", "("} <= found.begins
    check(tokenizer)


def test_real_and_tiny_tokenizers(real_model: Path) -> None:
    for folder in (real_model, real_model.parent / "stories260k"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert line_ends(tokenizer) is None
        check(tokenizer)
    assert line_ends(tiny_tokenizer()) is not None
    check(tiny_tokenizer())


def test_a_pattern_that_looks_ahead_keeps_line_ends_together() -> None:
    tokenizer = wrapped(gpt2)
    apart = tokenizer(["a\n\n", "b"], add_special_tokens=False).input_ids
    assert [i for ids in apart for i in ids] != tokenizer("a\n\nb", add_special_tokens=False).input_ids
    found = line_ends(tokenizer)
    assert found is not None and not found.after_blanks
    assert cut("x\na\n\nb\n(c) \nd", found) == ["x\n", "a\n\nb\n", "(c) \nd"]


def test_added_tokens_that_reach_over_a_line_end_or_eat_it_forbid_the_cut() -> None:
    tokenizer = wrapped(gpt2)
    tokenizer.add_tokens([AddedToken("Zed", lstrip=True)])
    found = line_ends(tokenizer)
    assert found is not None and "Z" not in found.begins
    check(tokenizer)
    tokenizer.add_tokens(["\nUser"])
    assert line_ends(tokenizer) is None


def test_a_special_token_that_eats_what_follows_or_is_part_of_another_is_no_place_to_cut() -> None:
    tokenizer = wrapped(gpt2)
    tokenizer.add_tokens([AddedToken("<|r|>", rstrip=True, special=True), AddedToken("<|user|>x", special=True)])
    found = line_ends(tokenizer)
    assert found is not None and found.specials is not None
    assert found.specials.split("a<|r|> b<|user|>xc<|assistant|>d") == ["a<|r|> b<|user|>x", "c<|assistant|>", "d"]


def test_added_tokens_are_noticed_and_what_was_known_is_forgotten() -> None:
    tokenizer = wrapped(gpt2)
    pieces = TextPieces(tokenizer)
    before = pieces.encode(["a\nAnswer"])
    tokenizer.add_tokens(["nsw"])
    after = pieces.encode(["a\nAnswer"])
    assert after != before and after == tokenizer(["a\nAnswer"], add_special_tokens=False).input_ids


def test_special_tokens_that_are_split_from_now_on_are_noticed() -> None:
    tokenizer = wrapped(gpt2)
    pieces = TextPieces(tokenizer)
    texts = ["a<|user|>b\nAnswer"]
    before = pieces.encode(texts)
    for splits in (True, False):
        tokenizer.split_special_tokens = splits
        made = pieces.encode(texts)
        assert (pieces.ends is None) is splits
        assert made == tokenizer(texts, add_special_tokens=False).input_ids
        assert (made == before) is not splits


@pytest.mark.parametrize("kind", [r"\p{C}", r"\p{Cc}+", r"[\p{Cc}\p{L}]+", r"\p{Any}", r"\p{Z}+"])
def test_classes_that_may_have_line_ends_are_no_words_within_a_line(kind: str) -> None:
    assert line_ends(wrapped(lambda: bpe(split(rf"{kind}|\s+(?!\S)|\s+|[^\s]"), of_bytes()))) is None


@pytest.mark.parametrize("kind", [r"\p{Lu}+", r"[\p{P}\p{S}]+", r"\p{Han}+", r"[^\s\p{C}]+"])
def test_classes_without_line_ends_are_words_within_a_line(kind: str) -> None:
    tokenizer = wrapped(lambda: bpe(split(rf"{kind}|\s+(?!\S)|\s+|[^\s]"), of_bytes()))
    assert line_ends(tokenizer) is not None
    check(tokenizer)


def test_each_line_is_tokenised_once() -> None:
    pieces = TextPieces(wrapped(llama3))
    assert pieces.ends is not None
    start, calls = pieces.tokenised, pieces.calls
    texts = [f"<|user|>Answer it.\nHe is {n % 4}.\n(A) One\n(B) Two<|assistant|>" for n in range(100)]
    pieces.encode(texts)
    # "<|user|>", "Answer it.", 4 sentences, an option, and an option with the assistant's token
    assert (pieces.tokenised - start, pieces.calls - calls) == (8, 1)
    pieces.encode(texts)
    pieces.split(texts)
    assert (pieces.tokenised - start, pieces.calls - calls) == (8, 1), "all of it is known"


def test_lists_may_be_changed_by_who_gets_them() -> None:
    pieces = TextPieces(wrapped(gpt2))
    (first,) = pieces.encode(["Answer"])
    first.append(7)
    assert pieces.encode(["Answer"]) == [first[:-1]]


def test_truncation_and_padding_of_the_backend_are_not_followed() -> None:
    tokenizer = wrapped(gpt2)
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    ids = TextPieces(tokenizer).encode(["Answer the question", "A"])
    assert ids == wrapped(gpt2)(["Answer the question", "A"], add_special_tokens=False).input_ids


@pytest.mark.parametrize("name", [*BY_LINES, *WHOLE])
def test_prompts_and_their_ends_have_the_ids_of_prompts_with_what_follows(name: str) -> None:
    encoder = Encoder(wrapped((BY_LINES | WHOLE)[name]))
    texts, after = texts_for(2, 40), " B"
    for text, (begin, end) in zip(texts, encoder.headed(texts), strict=True):
        (whole,) = encoder.continuing([text], [after])
        (made,) = encoder.ended([end], [after]) if begin else encoder.continuing([end], [after])
        assert begin + made == whole
