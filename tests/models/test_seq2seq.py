"""Encoder-decoders: letters, texts, scores and replies are those of plain forwards, whatever they are batched with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from evenhand.errors import ContextTooLongError, SettingsError
from evenhand.inference.seq2seq import BORDER
from evenhand.interfaces import UNLIMITED, Dialogue, Message, Passage, Question, Sampling
from evenhand.models.loading import load, wrap
from evenhand.models.seq2seq import Seq2SeqModel
from evenhand.models.tiny import tiny_tokenizer

QUESTIONS = (
    Question("q1", "Who was not there?", ("the dog", "the little cat")),
    Question("q2", "Once upon a time there were a dog and a cat. Who was not there?", ("the dog", "the cat", "not")),
)
DIALOGUES = [Dialogue((Message("user", q.question),)) for q in QUESTIONS]
KINDS = ("T5", "Bart")


def tokenizer() -> Any:
    """Like T5's: an end token after every prompt, nothing before it."""
    from tokenizers import processors

    made: Any = tiny_tokenizer(chat=False)
    ends = [("</s>", made.eos_token_id)]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=ends)
    return made


def module(kind: str = "T5") -> Any:
    common = {"vocab_size": len(tokenizer()), "d_model": 32, "pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None}
    if kind == "T5":
        sizes: dict[str, Any] = {"d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
    else:
        sides = {f"{s}_{k}": n for s in ("encoder", "decoder") for k, n in (("layers", 2), ("attention_heads", 4))}
        sizes = {**sides, "max_position_embeddings": 64, "decoder_start_token_id": 1, "forced_eos_token_id": None}
    torch.manual_seed(0)
    made: Any = getattr(transformers, f"{kind}ForConditionalGeneration")(
        getattr(transformers, f"{kind}Config")(**common, **sizes)
    ).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3.0)
    return made


def logprobs(made: Any, source: list[int], target: list[int]) -> torch.Tensor:
    """Log-probabilities of every token after each of the decoder's, [length, vocabulary]."""
    with torch.inference_mode():
        logits = made(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([target])).logits[0]
    return logits.log_softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_the_decoders_given_the_prompt_in_the_encoder(kind: str) -> None:
    made, words = module(kind), tokenizer()
    passages = [
        Passage(" the little dog", "Who was there?"),
        Passage("a cat", "Once upon a time there were"),
        Passage("dog"),
    ]
    found = wrap(made, words).score(passages)
    start = made.config.decoder_start_token_id
    for passage, score in zip(passages, found, strict=True):
        target = words(passage.continuation, add_special_tokens=False).input_ids
        source = words(str(passage.prompt)).input_ids
        assert source[-1] == words.eos_token_id
        rows = logprobs(made, source, [start, *target[:-1]])
        assert score.tokens == len(target)
        assert score.logprob == pytest.approx(sum(float(rows[i, t]) for i, t in enumerate(target)), abs=1e-4)


def test_letters_are_the_decoders_first_token() -> None:
    made, words = module(), tokenizer()
    model = wrap(made, words)
    assert isinstance(model, Seq2SeqModel)
    (choice,) = model.choose(QUESTIONS[:1])
    (prompt,) = model.dialogue_prompts([rendered()])
    source = list(prompt.ids[: prompt.ids.index(BORDER)])
    row = logprobs(made, source, [0])[0]
    letters = row[words.convert_tokens_to_ids(["A", "B"])].exp().numpy()
    assert choice.probabilities == pytest.approx(tuple(letters / letters.sum()), abs=1e-5)
    assert choice.mass == pytest.approx(float(letters.sum()), abs=1e-6)


def rendered() -> Dialogue:
    from evenhand.prompting import rendering

    return rendering.as_dialogue(QUESTIONS[0], "letters")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=8), Sampling(max_new_tokens=8, temperature=1.0, seed=1)])
def test_a_reply_does_not_depend_on_its_batch(kind: str, sampling: Sampling) -> None:
    model = wrap(module(kind), tokenizer())
    together = model.generate(DIALOGUES, sampling)
    assert together == [model.generate([dialogue], sampling)[0] for dialogue in DIALOGUES]
    assert all(reply.text for reply in together)
    if kind == "T5" or sampling.temperature > 0:  # the greedy replies of this tiny Bart are all the same
        assert len({reply.text for reply in together}) > 1


def test_a_greedy_reply_is_the_most_probable_token_each_time() -> None:
    made, words = module("Bart"), tokenizer()
    model = wrap(made, words)
    assert isinstance(model, Seq2SeqModel)
    (reply,) = model.generate(DIALOGUES[:1], Sampling(max_new_tokens=5))
    (prompt,) = model.dialogue_prompts(DIALOGUES[:1])
    at = prompt.ids.index(BORDER)
    source, target = list(prompt.ids[:at]), list(prompt.ids[at + 1 :])
    for _ in range(5):
        target.append(int(logprobs(made, source, target)[-1].argmax()))
    assert reply.text == words.decode(target[1:], skip_special_tokens=True).strip()


@pytest.mark.parametrize("way", ["letters", "text", "text_per_token", "text_with_end"])
def test_choices_do_not_depend_on_their_batch(way: str) -> None:
    model = wrap(module("Bart"), tokenizer(), answer_by=way)
    for question, together in zip(QUESTIONS, model.choose(QUESTIONS), strict=True):
        (alone,) = model.choose([question])
        assert alone.probabilities is not None
        assert together.probabilities is not None
        assert np.allclose(together.probabilities, alone.probabilities, atol=1e-5)


def test_a_folder_is_opened_as_what_it_is_and_saved_as_the_same(tmp_path: Path) -> None:
    wrap(module(), tokenizer()).save(tmp_path / "t5")
    model = load(tmp_path / "t5")
    assert isinstance(model, Seq2SeqModel)
    assert model.architecture == "seq2seq"
    assert model.abilities == {"choose", "generate", "score"}
    assert model.score([Passage("dog", "the")]) == wrap(module(), tokenizer()).score([Passage("dog", "the")])
    model.save(tmp_path / "again")
    assert load(tmp_path / "again").fingerprint == model.fingerprint


def test_a_prompt_that_several_options_share_is_read_by_the_encoder_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = module()
    rows: list[int] = []
    made.get_encoder().register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    wrap(made, tokenizer()).score([Passage(word, "Who was there?") for word in ("dog", "little cat", "the")])
    assert rows == [1]


def test_a_model_without_a_start_token_is_refused() -> None:
    made = module()
    for config in (made.config, made.generation_config):
        config.decoder_start_token_id = None
    with pytest.raises(SettingsError, match="decoder_start_token_id"):
        wrap(made, tokenizer(), name="t5")


def test_an_encoder_that_sees_padding_gets_prompts_of_one_length_only() -> None:
    made = module()
    encoder = made.get_encoder()
    plain = encoder.forward

    def seeing(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        return plain(*args, **kwargs)

    encoder.forward = seeing
    model, alone = wrap(made, tokenizer()), wrap(made, tokenizer())
    with pytest.warns(UserWarning, match="only prompts of equal length are batched"):
        found = model.score([Passage("dog", "Who?"), Passage("dog", "Once upon a time there were")])
    assert found[0].logprob == pytest.approx(alone.score([Passage("dog", "Who?")])[0].logprob, abs=1e-5)


# ---------------------------------------------------------------------------------------------------- context limits


def limited(kind: str, **more: Any) -> Any:
    """BART reads 16 tokens on each side, LED 64 in the encoder and 12 in the decoder; T5 any number."""
    if kind == "T5":
        return module()
    sides = {f"{s}_{k}": 2 for s in ("encoder", "decoder") for k in ("layers", "attention_heads", "ffn_dim")}
    own: dict[str, Any] = {"max_position_embeddings": 16}
    if kind == "LED":
        own = {"max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 12, "attention_window": 8}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(tokenizer()),
        d_model=16,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
        **sides,
        **{**own, **more},
    )
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()


SIDES = {"Bart": (16, 16), "MBart": (16, 16), "Pegasus": (16, 16), "LED": (64, 12)}


@pytest.mark.parametrize("kind", SIDES)
def test_each_side_has_a_limit_of_its_own(kind: str) -> None:
    """Up to the limit the model runs; one token more is refused with the side that is too long."""
    encoder, decoder = SIDES[kind]
    model = wrap(limited(kind), tokenizer())
    assert isinstance(model, Seq2SeqModel)
    assert (model.context_length, model.decoder_length) == (encoder, decoder)
    assert model.facts()["context"] == {"encoder": encoder, "decoder": decoder}

    def passage(source: int, target: int) -> Passage:  # the encoder reads an end token, the decoder a start token
        return Passage(" cat" * target, "dog" + " dog" * (source - 2))

    whole = model.score([passage(encoder, decoder)])[0]
    assert whole.tokens == decoder and np.isfinite(whole.logprob)
    for given, side, needed in (
        (passage(encoder + 1, decoder), "encoder", encoder + 1),
        (passage(encoder, decoder + 1), "decoder", decoder + 1),
    ):
        with pytest.raises(
            ContextTooLongError, match=f"needs {needed} tokens in the {side}, which takes {needed - 1};"
        ):
            model.score([given])
        skipping = wrap(limited(kind), tokenizer(), too_long="skip")
        scores = skipping.score([given, passage(3, 3)])
        assert f"tokens in the {side}" in scores[0].note and scores[1].tokens == 3


@pytest.mark.parametrize("window", [8, [4, 8]])
def test_of_a_limit_that_is_no_multiple_of_leds_window_whole_windows_count(window: int | list[int]) -> None:
    """LED pads to a multiple of its window: 57 tokens became 64, for which there was no position."""
    model = wrap(limited("LED", max_encoder_position_embeddings=60, attention_window=window), tokenizer())
    assert model.context_length == 56
    assert np.isfinite(model.score([Passage(" cat", "dog" + " dog" * 54)])[0].logprob)
    with pytest.raises(ContextTooLongError, match="needs 57 tokens in the encoder, which takes 56;"):
        model.score([Passage(" cat", "dog" + " dog" * 55)])


@pytest.mark.parametrize("kind", SIDES)
def test_a_reply_may_fill_the_decoder_and_no_more(kind: str) -> None:
    model = wrap(limited(kind), tokenizer())
    decoder = SIDES[kind][1]
    asked = [Dialogue(()).user("dog dog dog")]
    assert model.generate(asked, Sampling(max_new_tokens=decoder))[0].text is not None
    with pytest.raises(ContextTooLongError, match=f"needs {decoder + 1} tokens in the decoder, which takes {decoder}"):
        model.generate(asked, Sampling(max_new_tokens=decoder + 1))


def test_letters_are_refused_where_the_encoder_is_too_short() -> None:
    with pytest.raises(ContextTooLongError, match=r"q1 needs \d+ tokens in the encoder, which takes 16"):
        wrap(limited("Bart"), tokenizer()).choose(QUESTIONS[:1])


def test_t5_has_no_limit() -> None:
    model = wrap(limited("T5"), tokenizer())
    assert isinstance(model, Seq2SeqModel)
    assert model.context_length == model.decoder_length == UNLIMITED and "context" not in model.facts()
    score = model.score([Passage(" cat" * 600, "dog" + " dog" * 600)])[0]
    assert score.tokens == 600 and np.isfinite(score.logprob)
