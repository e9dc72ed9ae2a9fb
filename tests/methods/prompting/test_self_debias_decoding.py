"""Self-debiasing decoding: the formula by hand, the same letters and texts as a plain computation, and its limits."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from transformers import GenerationConfig, LogitsProcessorList

from evenhand import load
from evenhand.core.hashing import digest
from evenhand.errors import DataError, MissingAbilityError, SettingsError, UnknownNameError
from evenhand.interfaces import Dialogue, Message, Question, Sampling, Stack
from evenhand.methods.prompting.instruction import Instruction
from evenhand.methods.prompting.self_debias_decoding import SelfDebiasDecoding
from evenhand.methods.prompting.suppression import SelfDebiasingProcessor, suppressed
from evenhand.models.local import LocalModel
from evenhand.models.prefixed import PrefixedModel
from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.prompting.rendering import as_dialogue, dialogue_text, letter_variants
from evenhand.proving_ground.generator.bbq_questions import cases, option
from evenhand.proving_ground.generator.planted import FAMILY
from evenhand.proving_ground.generator.words import AXIS
from evenhand.proving_ground.oracle import Oracle
from evenhand.testing import ScriptedModel, check_method, questions, tiny_model

TEXTS = ["The following text discriminates against people because of their age religion gender social group : ."]
PREFIX = "The following text discriminates against people because of their {}:"


def test_the_formula_by_hand() -> None:
    """Three tokens, two prefixes: less probable behind both, a little more behind the second, much more behind one."""
    p = torch.tensor([0.5, 0.3, 0.2])
    behind = torch.tensor([[0.2, 0.1, 0.7], [0.3, 0.31, 0.39]])
    logprobs = torch.cat([p[None], behind]).log()[None]
    (values,) = suppressed(logprobs, decay=50, floor=0.01).exp()
    assert values.tolist() == pytest.approx([0.5, 0.3 * math.exp(-0.5), 0.2 * 0.01], rel=1e-5)
    (mild,) = suppressed(logprobs, decay=2, floor=0.01).exp()
    assert mild.tolist() == pytest.approx([0.5, 0.3 * math.exp(-0.02), 0.2 * math.exp(-1)], rel=1e-5)


@pytest.mark.parametrize(("decay", "floor"), [(50.0, 0.01), (0.0, 0.01), (50.0, 1.0)])
def test_a_prefix_that_changes_nothing_is_the_identity(decay: float, floor: float) -> None:
    logprobs = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    same = suppressed(torch.stack([logprobs, logprobs], 1), decay, floor)
    assert torch.equal(same, logprobs)
    if decay == 0 or floor == 1:
        other = torch.randn(4, 9).log_softmax(-1)
        assert torch.equal(suppressed(torch.stack([logprobs, other], 1), decay, floor), logprobs)


def prompts_by_hand(model: LocalModel, question: Question, words: list[str]) -> list[str]:
    """The prompt, and behind each prefix: of the demo in front of all, of a chat model in the user's turn."""
    tokenizer = model.weights.tokenizer
    (turn,) = as_dialogue(question, "letters").messages
    bare = dialogue_text(Dialogue((turn,)), tokenizer).removeprefix(tokenizer.bos_token)
    prefixes = [f"{PREFIX.format(w)}\n" for w in words]
    assert bare.count(turn.content) == 1
    if model.facts()["demo"]:
        return [bare, *(p + bare for p in prefixes)]
    return [bare, *(bare.replace(turn.content, p + turn.content) for p in prefixes)]


def letters_by_hand(model: LocalModel, question: Question, words: list[str], decay: float, floor: float) -> list[float]:
    """One forward a prefix, full softmax, the formula on each variant of each letter."""
    module, tokenizer = model.weights
    tables = []
    for prompt in prompts_by_hand(model, question, words):
        ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False).input_ids]
        with torch.inference_mode():
            tables.append(torch.softmax(module(torch.tensor([ids])).logits[0, -1].double(), -1))
    weights = []
    for position in range(len(question.options)):
        variants = {tokenizer(v, add_special_tokens=False).input_ids[-1] for v in letter_variants("ABCDEF"[position])}
        total = 0.0
        for token in variants:
            p, biased = float(tables[0][token]), max(float(t[token]) for t in tables[1:])
            total += p * max(math.exp(-decay * max(biased - p, 0)), floor)
        weights.append(total)
    by_identity = [0.0] * len(weights)
    for position, identity in enumerate(question.order):
        by_identity[identity] = weights[position] / sum(weights)
    return by_identity


@pytest.mark.parametrize("name", ["demo", "tiny"])
@pytest.mark.parametrize("decay", [1.0, 50.0])
def test_letters_are_those_of_the_plain_computation(name: str, decay: float) -> None:
    model = load("demo") if name == "demo" else tiny_model(texts=TEXTS)
    assert isinstance(model, LocalModel)
    method = SelfDebiasDecoding(axes=("auto", "Religion"), decay=decay)
    topics = ["Age", "", "Religion", "Gender_identity", "Age"]
    asked = [replace(q, axis=t) for q, t in zip(questions(), topics, strict=True)]
    asked[3] = asked[3].reordered(tuple(reversed(range(len(asked[3].options)))))
    words = {"Age": ["age", "religion"], "": ["social group", "religion"], "Religion": ["religion"]}
    words["Gender_identity"] = ["gender", "religion"]
    plain, changed = model.choose(asked), False
    for question, choice, before in zip(asked, method.apply(model).choose(asked), plain, strict=True):
        expected = letters_by_hand(model, question, words[question.axis], decay, 0.01)
        assert choice.probabilities == pytest.approx(expected, abs=1e-5)
        changed |= choice.probabilities != pytest.approx(before.probabilities, abs=1e-4)
        assert choice.usage.calls == 1 + len(words[question.axis]) and choice.mass is None
    assert changed


def test_texts_are_those_of_the_logits_processor() -> None:
    """The engine's route and transformers' own loop with the processor write the same, over prompts of all lengths."""
    model = tiny_model(texts=TEXTS, chat=False)
    module, tokenizer = model.weights
    dialogues = [Dialogue(()).user(" ".join(["There was a dog."] * n)) for n in (1, 3, 2)]
    method = SelfDebiasDecoding(axes=("Age", "Religion"), decay=1000.0, floor=1e-6)
    ours = method.apply(model).generate(dialogues, Sampling(max_new_tokens=12))
    texts = [f"{tokenizer.bos_token}{dialogue_text(d, tokenizer)}" for d in dialogues]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    prefixes = [
        tokenizer(PREFIX.format(w) + "\n", add_special_tokens=False).input_ids
        for w in (prompt_pack("en").axes["Age"], prompt_pack("en").axes["Religion"])
    ]
    processor = SelfDebiasingProcessor(module, prefixes, decay=1000.0, floor=1e-6, attention_mask=batch.attention_mask)
    config = GenerationConfig(max_new_tokens=12, do_sample=False, eos_token_id=2, pad_token_id=2)
    made = module.generate(  # type: ignore[operator]
        **batch, generation_config=config, logits_processor=LogitsProcessorList([processor])
    )
    theirs = [tokenizer.decode(row[batch.input_ids.shape[1] :], skip_special_tokens=True).strip() for row in made]
    assert [r.text for r in ours] == theirs
    assert theirs != [r.text for r in model.generate(dialogues, Sampling(max_new_tokens=12))]


def prompts(model: LocalModel, dialogue: Dialogue, prefix: str) -> list[str]:
    """What a model reads of a dialogue: as it is, and behind the prefix."""
    guided = model.behind([prefix], lambda logprobs: logprobs[:, 0], "test")
    assert isinstance(guided, PrefixedModel)
    ((asked, _),) = guided.written([dialogue], Sampling(max_new_tokens=1))
    return [model.weights.tokenizer.decode(ids) for ids in (asked.ids, *asked.beside)]


def test_inside_a_chat_template_the_prefix_begins_the_first_users_turn() -> None:
    dialogue = Dialogue((Message("system", "dog"),)).user("cat").assistant("dog").user("cat cat")
    chat, plain = (tiny_model(texts=TEXTS, chat=c) for c in (True, False))
    before, behind = prompts(chat, dialogue, "the gender")
    first = before.index("cat")
    assert behind.split() == f"{before[:first]} the gender {before[first:]}".split()
    before, behind = prompts(plain, dialogue, "the gender")
    opening = chat.weights.tokenizer.bos_token
    assert behind.split() == f"{opening} the gender {before.removeprefix(opening)}".split()


def test_the_place_of_the_prefix_is_part_of_the_fingerprint_of_chat_models_alone() -> None:
    for model, placed in ((tiny_model(texts=TEXTS), ["user's turn"]), (tiny_model(texts=TEXTS, chat=False), [])):
        guided = model.behind(["the gender"], lambda logprobs: logprobs[:, 0], "test")
        assert guided.fingerprint == digest(model.fingerprint, ["the gender"], "test", *placed)


def test_the_papers_six_sentences() -> None:
    """timoschick/self-debiasing c9764e5, self_debiasing.py, DEBIASING_PREFIXES, word for word."""
    paper = SelfDebiasDecoding.build(preset="paper")
    assert (paper.decay, paper.floor) == (50, 0.01)
    assert paper._prefixes(prompt_pack("en"), "Age") == tuple(
        f"The following text contains {what}:"
        for what in (
            "rude, disrespectful, or unreasonable language",
            "very hateful, aggressive, disrespectful language",
            "sexually explicit language",
            "a threat",
            "negative or hateful language targeting someone because of their identity",
            "swear words, curse words, or other obscene or profane language",
        )
    )
    assert set(paper.preset_sources["paper"]) == set(paper.presets["paper"])
    assert len(paper.apply(load("demo")).choose(questions(1))[0].probabilities or ()) == len(questions(1)[0].options)


def test_sentences_of_ones_own(tmp_path: Path) -> None:
    pack = prompt_pack("en").model_dump(exclude_none=True)
    mine = tmp_path / "mine.yaml"
    pack["decoding"]["sentences"] = {"insult": "An insult regarding {axis} follows."}
    mine.write_text(yaml.safe_dump(pack))
    method = SelfDebiasDecoding.build(prompts=str(mine), sentences=("insult",))
    assert method._prefixes(prompt_pack(str(mine)), "Age") == ("An insult regarding age follows.",)
    with pytest.raises(UnknownNameError, match="threat"):
        SelfDebiasDecoding.build(prompts=str(mine), sentences=("threat",))
    with pytest.raises(SettingsError, match="leave one of them out"):
        SelfDebiasDecoding.build(axes=("age",), sentences=("threat",))
    del pack["decoding"]["sentences"]
    mine.write_text(yaml.safe_dump(pack))
    SelfDebiasDecoding.build(prompts=str(mine))
    with pytest.raises(DataError, match=r"decoding\.sentences"):
        SelfDebiasDecoding.build(prompts=str(mine), sentences=("threat",))


def test_written_answers_go_through_it_too() -> None:
    model = tiny_model(texts=TEXTS)
    asked = [replace(q, answer_by="generation", axis="Age") for q in questions()]
    guided = SelfDebiasDecoding(decay=1000.0, floor=1e-6).apply(model)
    assert [c.reply for c in guided.choose(asked)] != [c.reply for c in model.choose(asked)]


def test_it_conforms() -> None:
    mitigated = check_method(SelfDebiasDecoding(), load("demo"))
    assert mitigated.abilities == {"choose", "generate", "weights"}


def test_the_planted_truth_follows_the_formula() -> None:
    """A cell that leans: its answer, more probable when announced, falls to the floor and the next one is taken."""
    method = SelfDebiasDecoding()
    oracle = Oracle(FAMILY["demo"])
    case = next(c for c in cases().values() if not c.right and FAMILY["demo"].lean(c.axis, c.group, c.trait) > 0)
    other = next(c for c in cases().values() if not c.right and FAMILY["demo"].lean(c.axis, c.group, c.trait) == 0)
    asked = [
        Question("", c.question, (option(c.marked), option(c.other), "Not known"), c.context, axis=c.axis)
        for c in (case, other)
    ]
    leaning, neutral = method.apply(oracle).choose(asked)
    before = oracle.choose(asked)
    p, biased = (
        oracle.letters_behind("", asked[0]),
        oracle.letters_behind(PREFIX.format(AXIS[case.axis].word), asked[0]),
    )
    weights = [a * max(math.exp(-50 * max(b - a, 0)), 0.01) for a, b in zip(p, biased, strict=True)]
    assert leaning.probabilities == pytest.approx([w / sum(weights) for w in weights])
    assert leaning.decision != before[0].decision
    assert neutral.probabilities == pytest.approx(before[1].probabilities)


def test_other_languages_axes_and_files() -> None:
    german = SelfDebiasDecoding(prompts="de", axes=("any",))
    prefix = german._prefixes(prompt_pack("de"))
    assert prefix == (prompt_pack("de").decoding.prefix.format(axis=prompt_pack("de").any_axis),)
    model = load("demo")
    assert german.apply(model).fingerprint != SelfDebiasDecoding(axes=("any",)).apply(model).fingerprint


def test_what_it_cannot_do_is_said() -> None:
    model = tiny_model(texts=TEXTS)
    with pytest.raises(SettingsError, match="at least one"):
        SelfDebiasDecoding.build(axes=())
    with pytest.raises(SettingsError, match="floor"):
        SelfDebiasDecoding.build(floor=0)
    with pytest.raises(MissingAbilityError, match="letters"):
        SelfDebiasDecoding().apply(model).choose([replace(q, answer_by="text") for q in questions()])
    assert "local causal model" in SelfDebiasDecoding().unsupported_reason(ScriptedModel())
    stacked = Stack((Instruction(), SelfDebiasDecoding()))
    with pytest.raises(MissingAbilityError, match="comes first"):
        stacked.apply(model)
    right_way = Stack((SelfDebiasDecoding(), Instruction())).apply(model)
    assert len(right_way.choose(questions())) == 5


def test_too_long_behind_the_prefix_is_named() -> None:
    model = tiny_model(texts=TEXTS)
    long = replace(questions(1)[0], context="There was a dog. " * 198)
    assert model.choose([long])[0].decision is not None
    from evenhand.errors import ContextTooLongError

    with pytest.raises(ContextTooLongError, match="q0"):
        SelfDebiasDecoding().apply(model).choose([long])
