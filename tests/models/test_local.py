"""What a local model answers equals a plain Hugging Face computation by hand, whatever tokenizer it has."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from evenhand.errors import ContextTooLongError, SettingsError
from evenhand.inference import Request
from evenhand.interfaces import AnswerBy, Choice, Dialogue, Message, Passage, Question, Sampling, Score, Usage
from evenhand.models.loading import load
from evenhand.models.local import LocalModel
from evenhand.models.tiny import WORDS, tiny_model, tiny_module
from evenhand.models.tokenization import Encoder
from evenhand.prompting.rendering import as_dialogue, dialogue_text
from evenhand.testing import questions

CLOSE = {"abs": 1e-4}
SHOWN = (1, 2, 0)
"""Its inverse is another order."""
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>{{ '\\n' }}"
SPACE_TEMPLATE = TEMPLATE.replace("{{ '\\n' }}", " ")
PIECES = r" ?\w+|[^\w\s]|\s"
SPECIAL = ("<unk>", "<s>", "</s>", "<user>", "<assistant>", "<system>")


def spaced_tokenizer(
    template: str | None = TEMPLATE, *, bos: bool = True, eos: bool = True, pieces: str = PIECES, capcode: bool = False
) -> Any:
    """A word is another token with a blank before it, as in real vocabularies.

    Args:
        template: Of the chat; None for a transcript.
        bos: Whether sequences open with a token.
        eos: Whether there is an end token.
        pieces: How texts are cut.
        capcode: Whether a capital letter becomes two tokens.
    """
    words = [*WORDS.split(), *"^.?():,"]
    glued = [f"{glue}{letter}" for glue in (":", ": ") for letter in "ABCD"]
    vocabulary = {
        t: i for i, t in enumerate(dict.fromkeys([*SPECIAL, "\n", " ", *words, *(f" {w}" for w in words), *glued]))
    }
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    if capcode:
        backend.normalizer = normalizers.Sequence([normalizers.Replace(c, f"^{c.lower()}") for c in "ABCDEFGHIJ"])
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pieces), behavior="removed", invert=True)
    backend.decoder = decoders.Fuse()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        additional_special_tokens=list(SPECIAL[3:]),
        **({"bos_token": "<s>"} if bos else {}),
        **({"eos_token": "</s>"} if eos else {}),
    )
    tokenizer.chat_template = template
    return tokenizer


def local(tokenizer: Any, **options: Any) -> LocalModel:
    return LocalModel(tiny_module(len(tokenizer)), tokenizer, **{"name": "local", **options})


def question(**more: Any) -> Question:
    return Question(
        "item-7", "Who was there?", ("a dog", "a little cat", "not"), **{"context": "Once upon a time.", **more}
    )


LETTERS_PROMPT = (
    "Answer the multiple choice question with a single letter.\n\n"
    "Once upon a time. Who was there?\n(A) a little cat\n(B) not\n(C) a dog"
)
PLAIN_PROMPT = "Once upon a time. Who was there?"


def logprobs(model: LocalModel, ids: Sequence[int]) -> torch.Tensor:
    """[positions, vocabulary], one sequence without padding, float64 normalisation."""
    with torch.no_grad():
        return torch.log_softmax(model.weights.module(torch.tensor([list(ids)])).logits[0].double(), -1)


def continuation(model: LocalModel, head: Sequence[int], tail: Sequence[int]) -> float:
    values = logprobs(model, [*head, *tail])
    return sum(float(values[len(head) + i - 1, t]) for i, t in enumerate(tail))


def ids(tokenizer: Any, text: str, *, bos: bool = True) -> list[int]:
    return ([1] if bos else []) + tokenizer(text, add_special_tokens=False).input_ids


def softmax(values: Sequence[float]) -> list[float]:
    weights = [math.exp(v - max(values)) for v in values]
    return [w / sum(weights) for w in weights]


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Everything that any engine is asked to read."""
    from evenhand.inference import Engine

    seen: list[Request] = []
    real = Engine.read

    def read(self: Engine, requests: Sequence[Request], fingerprint: str) -> list[tuple[float, ...]]:
        seen.extend(requests)
        return real(self, requests, fingerprint)

    monkeypatch.setattr(Engine, "read", read)
    return seen


# ---------------------------------------------------------------------------------------------------- letters


@pytest.mark.parametrize(
    ("template", "bos", "prompt"),
    [
        (TEMPLATE, True, f"<user>{LETTERS_PROMPT}\n<assistant>\n"),
        (TEMPLATE, False, f"<user>{LETTERS_PROMPT}\n<assistant>\n"),
        (None, True, f"User: {LETTERS_PROMPT}\n\nAssistant:"),
        (None, False, f"User: {LETTERS_PROMPT}\n\nAssistant:"),
    ],
)
def test_letters_equal_the_sum_of_both_variants_by_hand(template: str | None, bos: bool, prompt: str) -> None:
    tokenizer = spaced_tokenizer(template, bos=bos)
    model = local(tokenizer)
    head = ids(tokenizer, prompt, bos=bos)
    assert 0 not in head, "the prompt must not hold unknown words"
    variants = [[tokenizer.convert_tokens_to_ids(v) for v in (letter, f" {letter}")] for letter in "ABC"]
    assert len({t for pair in variants for t in pair}) == 6
    last = logprobs(model, head)[-1].exp()
    by_letter = [float(last[a] + last[b]) for a, b in variants]
    expected = [0.0, 0.0, 0.0]
    for position, identity in enumerate(SHOWN):
        expected[identity] = by_letter[position] / sum(by_letter)
    got = model.choose([question(shown=SHOWN)])[0]
    assert got.probabilities == pytest.approx(expected, **CLOSE)
    assert got.decision == expected.index(max(expected)) and got.mass == pytest.approx(sum(by_letter), **CLOSE)
    assert got.usage == Usage(1, len(head)) and got.status == "answered"
    assert max(expected) - min(expected) > 0.02, "too flat to notice a wrong mapping"


def test_all_letters_are_read_from_one_sequence_with_the_opening_token_once(fed: list[Request]) -> None:
    for template in (TEMPLATE, "{{ bos_token }}" + TEMPLATE, None):
        tokenizer = spaced_tokenizer(template)
        model = local(tokenizer)
        for way in ("letters", "text"):
            fed.clear()
            model.choose([question(answer_by=way)])
            assert fed and all(r.ids[0] == 1 and r.ids.count(1) == 1 for r in fed), (template, way)
            assert way == "text" or (len({r.ids for r in fed}) == 1 and model.engine.sequences == 1)


def test_a_template_that_writes_its_own_opening_changes_no_answer() -> None:
    asked = [question(), question(answer_by="text"), question(shown=SHOWN)]
    plain = local(spaced_tokenizer(TEMPLATE)).choose(asked)
    assert local(spaced_tokenizer("{{ bos_token }}" + TEMPLATE)).choose(asked) == plain


def test_without_an_opening_token_none_is_made_up(fed: list[Request]) -> None:
    for template in (TEMPLATE, None):
        model = local(spaced_tokenizer(template, bos=False))
        model.choose([question(), question(answer_by="text")])
        assert fed and all(1 not in r.ids and 2 not in r.ids for r in fed)


def test_letters_of_several_tokens_are_read_to_their_end() -> None:
    """A capital is two tokens here: "^" and "a"; the probability of a letter is that of both."""
    tokenizer = spaced_tokenizer(capcode=True, pieces=r" ?\^|\w| ?\w+|[^\w\s]|\s")
    model = local(tokenizer)
    head = ids(tokenizer, f"<user>{LETTERS_PROMPT}\n<assistant>\n")
    values = []
    for letter in "ABC":
        tails = [tokenizer(v, add_special_tokens=False).input_ids for v in (letter, f" {letter}")]
        assert [len(t) for t in tails] == [2, 2]
        values.append(math.log(sum(math.exp(continuation(model, head, t)) for t in tails)))
    by_letter = softmax(values)
    got = model.choose([question(shown=SHOWN)])[0]
    assert got.probabilities == pytest.approx([by_letter[2], by_letter[0], by_letter[1]], **CLOSE)
    assert got.mass is None, "there is no single next token that would be a letter"


def test_variants_that_the_tokenizer_makes_equal_are_counted_once() -> None:
    model = tiny_model()
    tokenizer = model.weights.tokenizer
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": LETTERS_PROMPT}], tokenize=False, add_generation_prompt=True
    )
    last = logprobs(model, tokenizer(prompt, add_special_tokens=False).input_ids)[-1].exp()
    by_letter = [float(last[tokenizer.convert_tokens_to_ids(letter)]) for letter in "ABC"]
    assert model.choose([question(shown=SHOWN)])[0].mass == pytest.approx(sum(by_letter), **CLOSE)


def test_a_variant_that_glues_to_the_prompt_is_left_out() -> None:
    """ ":A" is one token here, ": A" is two: only the second is of the prompt as it stands."""
    tokenizer = spaced_tokenizer(None, pieces=rf":[A-D]|{PIECES}")
    model = local(tokenizer)
    head = ids(tokenizer, f"User: {LETTERS_PROMPT}\n\nAssistant:")
    last = logprobs(model, head)[-1]
    by_letter = softmax([float(last[tokenizer.convert_tokens_to_ids(f" {c}")]) for c in "ABC"])
    got = model.choose([question(shown=SHOWN)])[0]
    assert got.probabilities == pytest.approx([by_letter[2], by_letter[0], by_letter[1]], **CLOSE)
    assert got.mass is not None


def test_letters_that_glue_to_the_prompt_are_all_read_alike() -> None:
    """ ":A" and ": A" are one token each, the other letters are not: all are read from the colon on."""
    tokenizer = spaced_tokenizer(None, pieces=rf":A|: A|{PIECES}")
    model = local(tokenizer)
    head = ids(tokenizer, f"User: {LETTERS_PROMPT}\n\nAssistant:")
    tails = [ids(tokenizer, f": {c}", bos=False) for c in "ABC"]
    assert [len(t) for t in tails] == [1, 2, 2]
    by_letter = softmax([continuation(model, head[:-1], t) for t in tails])
    got = model.choose([question(shown=SHOWN)])[0]
    assert got.probabilities == pytest.approx([by_letter[2], by_letter[0], by_letter[1]], **CLOSE)
    assert got.mass is None


def test_ties_go_to_the_lowest_identity_in_any_order() -> None:
    tokenizer = spaced_tokenizer()
    module = tiny_module(len(tokenizer))
    with torch.no_grad():
        module.get_output_embeddings().weight.zero_()
    model = LocalModel(module, tokenizer, name="flat")
    for shown in (None, SHOWN, (2, 1, 0)):
        got = model.choose([question(shown=shown)])[0]
        assert got.decision == 0 and got.probabilities == pytest.approx([1 / 3] * 3)
        assert got.mass == pytest.approx(6 / len(tokenizer))


# ------------------------------------------------------------------------------------------------ option texts


@pytest.mark.parametrize("way", ["text", "text_per_token", "text_with_end"])
@pytest.mark.parametrize(
    ("template", "prompt", "blank"),
    [
        (TEMPLATE, f"<user>{PLAIN_PROMPT}\n<assistant>\n", ""),
        (None, f"User: {PLAIN_PROMPT}\n\nAssistant:", " "),
        (SPACE_TEMPLATE, f"<user>{PLAIN_PROMPT}\n<assistant>", " "),
    ],
)
def test_texts_equal_sums_and_means_by_hand(template: str | None, prompt: str, blank: str, way: AnswerBy) -> None:
    """In the last case the blank is the template's own and belongs to the word after it."""
    tokenizer = spaced_tokenizer(template)
    model = local(tokenizer)
    head = ids(tokenizer, prompt)
    tails = [ids(tokenizer, blank + option, bos=False) for option in question().options]
    assert [len(t) for t in tails] == [2, 3, 1] and not {0} & {t for tail in tails for t in tail}
    ends = 3 if way == "text_with_end" else 0
    tails = [[*t, 2] if ends else t for t in tails]
    values = [continuation(model, head, t) / (1 if way == "text" else len(t)) for t in tails]
    got = model.choose([question(shown=SHOWN, answer_by=way)])[0]
    assert got.probabilities == pytest.approx(softmax(values), **CLOSE)
    assert got.decision == values.index(max(values)) and got.mass is None
    assert got.usage == Usage(3, 3 * len(head) + 6 + ends)


@pytest.mark.parametrize("template", [TEMPLATE, None])
@pytest.mark.parametrize("form", ["bare", "exam", "input_output"])
def test_with_the_end_token_a_bare_text_is_bare_for_every_model(template: str | None, form: str) -> None:
    """As in the code of the reading's source. A conversation still goes through the chat template."""
    tokenizer = spaced_tokenizer(template)
    model = local(tokenizer)
    asked = question(template=form, answer_by="text_with_end", header="Answer. ")
    text = as_dialogue(asked, "text").messages[0].content
    head = ids(tokenizer, text)
    values = [continuation(model, head, [*ids(tokenizer, f" {o}", bos=False), 2]) for o in asked.options]
    expected = softmax([v / (n + 1) for v, n in zip(values, (2, 3, 1), strict=True)])
    assert model.choose([asked])[0].probabilities == pytest.approx(expected, **CLOSE)
    scores = model.score([Passage(f" {o}</s>", text) for o in asked.options])
    assert expected == pytest.approx(softmax([s.logprob / s.tokens for s in scores]), **CLOSE)
    told = replace(asked, dialogue=as_dialogue(asked, "text_with_end").assistant("Who?").user("dog"))
    assert told.dialogue is not None
    written = dialogue_text(told.dialogue, tokenizer)
    assert written.startswith("<user>Answer." if template else "User: Answer.")


def test_the_input_output_form_adds_the_full_stop_of_its_source() -> None:
    for text, shown in ((" a dog ", "a dog."), ("a dog?", "a dog?"), ("", "."), ("[MASK]", "[MASK]")):
        asked = Question("q", text, ("a", "b"), header="Is it?\n\n", template="input_output")
        assert as_dialogue(asked, "text").messages[0].content == f"Is it?\n\nInput: {shown}\n\nOutput:"


def test_without_an_end_token_options_with_their_end_cannot_be_scored() -> None:
    model = local(spaced_tokenizer(eos=False))
    asked = [question(answer_by="letters"), question(answer_by="text_with_end")]
    with pytest.raises(SettingsError, match=r"tokenizer of local has none: set its eos_token, or .*'text_per_token'"):
        model.choose(asked)
    assert model.engine.forwards == 0


def test_sum_and_mean_can_disagree() -> None:
    model = local(spaced_tokenizer())
    rng = random.Random(0)
    words = WORDS.split()[:30]
    asked = [Question(f"q{i}", "Who?", tuple(" ".join(rng.choices(words, k=n)) for n in (1, 3, 6))) for i in range(20)]
    sums, means = (
        [c.decision for c in model.choose([replace(q, answer_by=way) for q in asked])]  # type: ignore[arg-type]
        for way in ("text", "text_per_token")
    )
    assert sums.count(0) > means.count(0) and set(means) == {0, 1, 2}


def test_an_empty_option_cannot_be_scored() -> None:
    model = local(spaced_tokenizer())
    with pytest.raises(SettingsError, match="item-7: an empty text"):
        model.choose([Question("item-7", "Who?", ("a dog", " "), answer_by="text")])
    with pytest.raises(SettingsError, match="passage-3: an empty text"):
        model.score([Passage("", "a dog", id="passage-3")])
    assert model.engine.forwards == 0


# ---------------------------------------------------------------------------------------------------- passages


def test_scores_equal_sums_by_hand_and_trailing_blanks_move() -> None:
    tokenizer = spaced_tokenizer()
    model = local(tokenizer)
    head, tail = ids(tokenizer, "Once upon a"), ids(tokenizer, " little dog", bos=False)
    expected = continuation(model, head, tail)
    for prompt, text in (("Once upon a", " little dog"), ("Once upon a ", "little dog")):
        got = model.score([Passage(text, prompt)])[0]
        assert got == (pytest.approx(expected, **CLOSE), 2, "")
    talk = Dialogue((Message("user", "Who?"),))
    head, tail = ids(tokenizer, "<user>Who?\n<assistant>\n"), ids(tokenizer, "dog", bos=False)
    assert model.score([Passage("dog", talk)])[0] == (pytest.approx(continuation(model, head, tail), **CLOSE), 1, "")


def test_without_prompt_the_first_word_counts_after_the_opening_token() -> None:
    tokenizer = spaced_tokenizer()
    model = local(tokenizer)
    tail = ids(tokenizer, "Once upon a time", bos=False)
    assert len(tail) == 4
    got = model.score([Passage("Once upon a time")])[0]
    assert got == (pytest.approx(continuation(model, [1], tail), **CLOSE), 4, "")


def test_without_prompt_and_opening_token_the_end_token_opens() -> None:
    tokenizer = spaced_tokenizer(bos=False)
    model = local(tokenizer)
    tail = ids(tokenizer, "Once upon a time", bos=False)
    got = model.score([Passage("Once upon a time")])[0]
    assert got == (pytest.approx(continuation(model, [2], tail), **CLOSE), 4, "")


def test_without_any_such_token_the_first_word_is_given() -> None:
    tokenizer = spaced_tokenizer(bos=False, eos=False)
    model = local(tokenizer)
    first, *tail = ids(tokenizer, "Once upon a time", bos=False)
    got = model.score([Passage("Once upon a time")])[0]
    assert got == (pytest.approx(continuation(model, [first], tail), **CLOSE), 3, "")
    with pytest.raises(SettingsError, match="'Once' is a single token"):
        model.score([Passage("Once")])


# ------------------------------------------------------------------------------------------- order and batches

ASKED = [
    *questions(9),
    *(replace(q, shown=tuple(reversed(range(len(q.options)))), answer_by="text") for q in questions(9)),
    *(
        replace(q, header="Once upon a time there was a dog. " * n, answer_by="text_per_token")
        for n, q in enumerate(questions(6))
    ),
    *(
        replace(q, answer_by="text_with_end", template="bare" if n % 2 else "letters")
        for n, q in enumerate(questions(4))
    ),
    *(replace(q, answer_by="generation") for q in questions(4)),
]


def same(ours: Sequence[Choice], theirs: Sequence[Choice]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.probabilities == (b.probabilities and pytest.approx(b.probabilities, **CLOSE))
        assert a.mass == (b.mass and pytest.approx(b.mass, **CLOSE))
        assert replace(a, probabilities=None, mass=None) == replace(b, probabilities=None, mass=None)


@pytest.mark.parametrize("budget", [1, 100, 100_000])
def test_answers_do_not_depend_on_batches_or_the_order_of_questions(budget: int) -> None:
    expected = tiny_model().choose(ASKED)
    assert {c.status for c in expected} >= {"answered"} and len({c.decision for c in expected}) > 2
    model = tiny_model(batch_tokens=budget)
    same(model.choose(ASKED), expected)
    mixed = random.Random(budget).sample(range(len(ASKED)), len(ASKED))
    same(model.choose([ASKED[i] for i in mixed]), [expected[i] for i in mixed])


def test_one_question_alone_is_answered_as_among_others(tiny: LocalModel) -> None:
    together = tiny.choose(ASKED)
    same([tiny.choose([q])[0] for q in ASKED[::5]], together[::5])


def test_the_ways_of_the_model_and_of_the_question() -> None:
    per_question = tiny_model().choose([replace(q, answer_by="text") for q in questions()])
    assert tiny_model(answer_by="text").choose(questions()) == per_question
    by_letters = tiny_model().choose(questions())
    assert tiny_model(answer_by="text").choose([replace(q, answer_by="letters") for q in questions()]) == by_letters
    assert by_letters != per_question


def test_nothing_to_ask(tiny: LocalModel) -> None:
    assert tiny.choose([]) == [] and tiny.generate([]) == [] and tiny.score([]) == []


# ---------------------------------------------------------------------------------------------------- too long


def short_model(context: int, **options: Any) -> LocalModel:
    model = tiny_model(**options)
    model.weights.module.config.max_position_embeddings = context
    return model


LONG = replace(questions()[1], id="the-long-one", context="dog " * 80)


@pytest.mark.parametrize("way", ["letters", "text", "text_per_token", "text_with_end", "generation"])
def test_an_item_that_is_too_long_is_named_and_nothing_is_computed(way: str) -> None:
    context = 130 if way == "generation" else 70  # a generated answer has room for 64 tokens
    model = short_model(context)
    asked = [replace(q, answer_by=way) for q in [questions()[0], LONG, LONG]]
    named = "dialogue 1" if way == "generation" else "the-long-one"
    with pytest.raises(ContextTooLongError, match=f"{named} needs .* but the context has {context}.*too_long='skip'"):
        model.choose(asked)
    assert model.engine.forwards == 0


@pytest.mark.parametrize("way", ["letters", "text", "text_per_token", "text_with_end", "generation"])
def test_skipped_items_are_unanswered_and_the_others_are_as_ever(way: str) -> None:
    sampling = Sampling(max_new_tokens=5)
    asked = [replace(q, answer_by=way, sampling=sampling) for q in [questions()[0], LONG, questions()[2]]]
    got = short_model(70, too_long="skip").choose(asked)
    assert (got[1].decision, got[1].probabilities, got[1].status) == (None, None, "unanswered")
    assert "the context has 70" in got[1].note and got[1].usage.calls == 0
    same([got[0], got[2]], [tiny_model().choose(asked)[0], tiny_model().choose(asked)[2]])


def test_the_last_token_that_fits() -> None:
    """Seven words and the opening token need eight places."""
    passage = Passage("dog cat dog cat dog cat dog", id="p")
    expected = tiny_model().score([passage])
    assert short_model(8).score([passage]) == expected
    with pytest.raises(ContextTooLongError, match="p needs 8 tokens, but the context has 7; 1 of 1"):
        short_model(7).score([passage])
    skipped = short_model(7, too_long="skip").score([passage, Passage("dog")])
    assert math.isnan(skipped[0].logprob) and skipped[0].tokens == 0 and skipped[1].tokens == 1


def test_a_model_that_states_no_length_is_not_limited() -> None:
    model = tiny_model()
    model.weights.module.config.__dict__["max_position_embeddings"] = None
    assert model.context_length == 10**9 and model.choose([LONG])[0].status == "answered"


def test_the_room_for_the_reply_is_part_of_what_must_fit() -> None:
    talk = Dialogue((Message("user", "Who?"),))
    needed = len(Encoder(tiny_model().weights.tokenizer).prompted(tiny_model()._encoder.dialogue_texts([talk]))[0])
    assert short_model(needed + 3).generate([talk], Sampling(max_new_tokens=3))[0].text is not None
    model = short_model(needed + 3, too_long="skip")
    reply = model.generate([talk, talk], Sampling(max_new_tokens=4))[0]
    assert (reply.text, reply.finished, model.engine.forwards) == (None, False, 0) and str(needed + 4) in reply.note


# ---------------------------------------------------------------------------------------------------- replies


def greedy(model: LocalModel, head: list[int], steps: int) -> list[int]:
    out: list[int] = []
    for _ in range(steps):
        token = int(logprobs(model, [*head, *out])[-1].argmax())
        if token == 2:
            break
        out.append(token)
    return out


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_replies_equal_a_plain_loop(template: str | None) -> None:
    tokenizer = spaced_tokenizer(template)
    model = local(tokenizer)
    for text in ("Who was there?", "Once upon a time", "dog"):
        prompt = f"<user>{text}\n<assistant>\n" if template else f"User: {text}\n\nAssistant:"
        head = ids(tokenizer, prompt)
        expected = greedy(model, head, 6)
        reply = model.generate([Dialogue((Message("user", text),))], Sampling(max_new_tokens=6))[0]
        assert reply.text == tokenizer.decode(expected, skip_special_tokens=True).strip()
        assert reply.usage == Usage(1, len(head), len(expected)) and reply.finished == (len(expected) < 6)


def test_a_reply_of_a_transcript_ends_where_the_user_would_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Sampling] = []
    for template, expected in ((None, ("END", "\nUser:", "\nSystem:")), (TEMPLATE, ("END",))):
        model = local(spaced_tokenizer(template))
        monkeypatch.setattr(model.engine, "generate", lambda asked, sampling, _: heard.append(sampling) or [])
        model.generate([], Sampling(stop=("END",)))
        assert heard[-1].stop == expected


# ------------------------------------------------------------------------------------------------------- facts


def test_facts_are_plain(tiny: LocalModel) -> None:
    facts = tiny.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["dtype"] == "float32" and facts["source"] == "memory" and facts["prompt_format"] == "chat template"
    assert facts["parameters"] == sum(p.numel() for p in tiny.weights.module.parameters()) > 10_000


def test_a_real_model_answers_by_hand_alike(real_model: Path) -> None:
    """Its vocabulary glues ": " into one token, so that only the letters without blank are of the prompt as it is."""
    model = load(real_model)
    assert isinstance(model, LocalModel)
    tokenizer = model.weights.tokenizer
    head = tokenizer(f"User: {LETTERS_PROMPT}\n\nAssistant:").input_ids
    assert head[0] == tokenizer.bos_token_id and head.count(tokenizer.bos_token_id) == 1
    last = logprobs(model, head)[-1]
    wholes = [tokenizer(f"User: {LETTERS_PROMPT}\n\nAssistant:{c}").input_ids for c in "ABC"]
    assert all(w[:-1] == head for w in wholes)
    by_letter = softmax([float(last[w[-1]]) for w in wholes])
    got = model.choose([question(shown=SHOWN)])[0]
    assert got.probabilities == pytest.approx([by_letter[2], by_letter[0], by_letter[1]], **CLOSE)
    whole = tokenizer("Once upon a time there was a dog").input_ids
    assert model.score([Passage("Once upon a time there was a dog")])[0] == Score(
        pytest.approx(continuation(model, whole[:1], whole[1:]), **CLOSE), len(whole) - 1
    )
