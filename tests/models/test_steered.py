"""Steered models: who they are, what they share with their base, and gates that are decided on the prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from evenhand import interfaces as eh
from evenhand.core.answer_cache import answer_cache
from evenhand.errors import MissingAbilityError, SettingsError
from evenhand.inference import Prompt, Request
from evenhand.inference.activation_edits import ActivationEdit, LayerEdit, Mode, Scope, TokenGate
from evenhand.inference.prompt_gates import GatedEngine, PromptGate
from evenhand.inference.states import states
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.models.mitigated import Mitigated
from evenhand.models.steered import SteeredModel, engine_of, fingerprint_of, steered
from evenhand.models.tiny import tiny_model, tiny_tokenizer
from evenhand.models.token_model import TokenModel

HIDDEN = 32


def vector(seed: int) -> torch.Tensor:
    return torch.randn(HIDDEN, generator=torch.Generator().manual_seed(seed))


def edit_of(strength: float = 2.0, scope: Scope = "answer", mode: Mode = "add", layer: int = 0) -> ActivationEdit:
    return ActivationEdit({layer: (LayerEdit(mode, vector(1), strength),)}, scope)


def questions() -> list[eh.Question]:
    texts = ["Who was it", "Who was in the dog", "Answer with a cat", "Who was it there"]
    return [eh.Question(str(n), t, ("the cat", "the dog", "of a time")) for n, t in enumerate(texts)]


def test_strength_0_is_the_base() -> None:
    model = tiny_model()
    assert steered(model, edit_of(0.0)) is model
    assert fingerprint_of(model, edit_of(0.0)) == model.fingerprint
    gate = PromptGate(0, vector(2))
    assert steered(model, edit_of(0.0), prompt_gate=gate) is model


def test_all_verbs_are_steered_and_the_base_is_not() -> None:
    model = tiny_model()
    made = steered(model, edit_of(4.0))
    passages = [eh.Passage("a dog was there", "Once upon a time"), eh.Passage("a cat")]
    dialogues = [
        eh.Dialogue((eh.Message("user", "Who was it"),)),
        eh.Dialogue((eh.Message("user", "Once upon a time"),)),
    ]
    before = model.choose(questions()), model.generate(dialogues), model.score(passages)
    steered_ = made.choose(questions()), made.generate(dialogues), made.score(passages)
    after = model.choose(questions()), model.generate(dialogues), model.score(passages)
    assert before == after, "the base answers otherwise, bit for bit, once a model was steered beside it"
    for ours, plain in zip(steered_, before, strict=True):
        assert ours != plain
    assert made.abilities == {"choose", "generate", "score"}
    assert not model.engine.module.model.layers[0]._forward_hooks  # type: ignore[union-attr]


def test_fingerprints_tell_edits_gates_and_bases_apart() -> None:
    model, other = tiny_model(), tiny_model(seed=1)
    gate = PromptGate(0, vector(2))
    made = [
        model,
        other,
        steered(model, edit_of()),
        steered(other, edit_of()),
        steered(model, edit_of(1.0)),
        steered(model, edit_of(scope="after")),
        steered(model, edit_of(mode="ablate")),
        steered(model, edit_of(layer=1)),
        steered(model, edit_of(), prompt_gate=gate),
        steered(model, edit_of(), prompt_gate=PromptGate(1, vector(2))),
        steered(model, edit_of(), prompt_gate=PromptGate(0, vector(2), edit_where="above")),
    ]
    assert len({m.fingerprint for m in made}) == len(made)
    assert steered(tiny_model(), edit_of()).fingerprint == made[2].fingerprint


def test_the_fingerprint_follows_the_weights_of_the_base() -> None:
    model = tiny_model()
    made = steered(model, edit_of())
    before, answered = made.fingerprint, made.choose(questions())
    with model.editing() as weights, torch.no_grad():
        weights.module.get_output_embeddings().weight.mul_(1.5)
    assert made.fingerprint != before
    assert made.choose(questions()) != answered


def test_edits_add_up() -> None:
    model = tiny_model()
    twice, once = steered(steered(model, edit_of(1.0)), edit_of(2.0)), steered(model, edit_of(3.0))
    for ours, other in zip(twice.choose(questions()), once.choose(questions()), strict=True):
        assert ours.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert len(twice.facts()["activation_edit"]["layers"]) == 2


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_a_prompt_gate_splits_prompts_as_its_probe_says(pooling: Any) -> None:
    model = tiny_model()
    prompts = [(1, 8, 9, n) for n in range(10, 22)]
    engine = engine_of(model)
    gate = PromptGate(1, vector(2), pooling=pooling)
    read = states(engine, prompts, [gate.positions(4) for _ in prompts], [1])[:, 0]
    center = float((read @ gate.weight).median())
    gate = PromptGate(1, vector(2), -center - 1e-4, pooling=pooling)
    edited = (read @ gate.weight + gate.bias < 0).tolist()
    assert 0 < sum(edited) < len(edited)
    made, whole = steered(model, edit_of(), prompt_gate=gate), steered(model, edit_of())
    asked = [Request((*ids, 11), ((3, 11), (4, 12))) for ids in prompts]
    engines = [(m.engine, m.fingerprint) for m in (made, model, whole) if isinstance(m, TokenModel)]
    found = [e.read(asked, fingerprint) for e, fingerprint in engines]
    assert len(found) == 3
    sampling = eh.Sampling(max_new_tokens=3)
    replies = [e.generate([Prompt(ids) for ids in prompts], sampling, fingerprint) for e, fingerprint in engines]
    for n, is_edited in enumerate(edited):
        assert found[0][n] == pytest.approx(found[2 if is_edited else 1][n], abs=1e-5)
        assert found[1][n] != pytest.approx(found[2][n], abs=1e-3)
        assert replies[0][n] == replies[2 if is_edited else 1][n]


@pytest.mark.parametrize(("bias", "side", "acts"), [(-1.0, "below", 1), (1.0, "below", 0), (1.0, "above", 1)])
def test_a_prompt_gate_without_weight_is_always_or_never_open(bias: float, side: Any, acts: int) -> None:
    model = tiny_model()
    gate = PromptGate(0, torch.zeros(HIDDEN), bias, edit_where=side)
    made = steered(model, edit_of(), prompt_gate=gate)
    assert made.choose(questions()) == [model, steered(model, edit_of())][acts].choose(questions())


def test_prefixes_guide_a_steered_model() -> None:
    model = tiny_model()
    made = steered(model, edit_of(4.0))
    guided = {m: m.behind(["Once upon a time"], lambda logprobs: logprobs[:, 0], None) for m in (made, model)}
    dialogues = [eh.Dialogue((eh.Message("user", text),)) for text in ("Who was it", "a little dog")]
    for plain, own in guided.items():
        assert own.generate(dialogues) == plain.generate(dialogues)
        for ours, other in zip(own.choose(questions()), plain.choose(questions()), strict=True):
            assert ours.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert made.generate(dialogues) != model.generate(dialogues)


def test_gate_decisions_are_known_to_the_cache(tmp_path: Path) -> None:
    model = tiny_model()
    made = steered(model, edit_of(), prompt_gate=PromptGate(0, vector(2)))
    with answer_cache(tmp_path / "answers"):
        first = made.choose(questions())
        again_model = tiny_model()
        again = steered(again_model, edit_of(), prompt_gate=PromptGate(0, vector(2)))
        assert again.choose(questions()) == first
        assert again_model.engine.forwards == 0


def test_what_cannot_be_steered_says_why() -> None:
    model = tiny_model()
    gated = steered(model, edit_of(), prompt_gate=PromptGate(0, vector(2)))
    assert isinstance(gated, SteeredModel)
    assert isinstance(gated.engine, GatedEngine)
    with pytest.raises(MissingAbilityError, match="a gate decides"):
        steered(gated, edit_of())
    with pytest.raises(MissingAbilityError, match="prompt gate"):
        gated.behind(["x"], lambda x: x[:, 0], None)
    with pytest.raises(SettingsError, match="layer 5"):
        steered(model, edit_of(), prompt_gate=PromptGate(5, vector(2)))
    with pytest.raises(SettingsError, match="'middle'"):
        PromptGate(0, vector(2), pooling="middle")  # type: ignore[arg-type]
    with pytest.raises(MissingAbilityError, match="saved with the method"):
        gated.save("nowhere")

    from evenhand.methods.none import Untouched

    around = Mitigated(model, Untouched())
    with pytest.raises(MissingAbilityError, match="wraps it"):
        steered(around, edit_of())


# --------------------------------------------------------------------------------------------- masked models


def masked_model() -> MaskedModel:
    tokenizer = tiny_tokenizer(chat=False)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=64,
        )
        module = BertForMaskedLM(config).float().eval()
    with torch.no_grad():  # freshly made weights are so small that a wrong row would hardly show
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    return MaskedModel(module, tokenizer, name="tiny-bert")


@pytest.mark.parametrize("mode", ["add", "ablate", "project"])
@pytest.mark.parametrize("gated", [False, True])
def test_masked_models_equal_one_by_one(mode: Mode, gated: bool) -> None:
    model = masked_model()
    gate = TokenGate(vector(3), 0.0) if gated else None
    one = LayerEdit(mode, vector(1) * 3, 1.0, gate=gate)
    made: Any = steered(model, ActivationEdit({0: (one,)}))
    passages = [eh.Passage(t) for t in ("a dog was there", "the cat", "Once upon a time there was a little dog")]
    before, found = model.score(passages), made.score(passages)
    assert model.score(passages) == before
    for passage, score in zip(passages, found, strict=True):
        assert score.logprob == pytest.approx(by_hand(model, passage.continuation, one), abs=1e-4)
    moved = max(abs(score.logprob - plain.logprob) for score, plain in zip(found, before, strict=True))
    assert moved > 0.05, "the edit is too small for this test to notice a wrong row"
    blank = [("a dog was", "there")]
    assert made.top_fills(blank, 3) != model.top_fills(blank, 3)
    assert made.fingerprint != model.fingerprint
    assert made.abilities == {"score"}


def by_hand(model: MaskedModel, text: str, one: LayerEdit) -> float:
    """Pseudo-log-likelihood by plain forwards of one row each with a plain hook; the opening token is left alone."""
    from evenhand.inference.edited_rows import apply_rows

    module, tokenizer = model.weights
    ids = list(tokenizer(text)["input_ids"])

    def hook(_: Any, __: Any, output: Any) -> Any:
        rows = output[0] if isinstance(output, tuple) else output
        rows = torch.cat([rows[:, :1], apply_rows(one, rows[:, 1:])], dim=1)
        return (rows, *output[1:]) if isinstance(output, tuple) else rows

    total = 0.0
    handle = module.bert.encoder.layer[0].register_forward_hook(hook)  # type: ignore[union-attr]
    for at in range(1, len(ids)):
        hidden = [*ids[:at], tokenizer.mask_token_id, *ids[at + 1 :]]
        with torch.no_grad():
            logits = module(input_ids=torch.tensor([hidden])).logits[0, at]
        total += float(torch.log_softmax(logits.double(), -1)[ids[at]])
    handle.remove()
    return total


def test_masked_models_have_no_prompt() -> None:
    model = masked_model()
    for scope in ("answer", "after"):
        with pytest.raises(SettingsError, match=f"scope '{scope}' cannot be used with BertForMaskedLM"):
            steered(model, edit_of(scope=scope))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="no prompt to gate by"):
        steered(model, edit_of(scope="all"), prompt_gate=PromptGate(0, vector(2)))
    made = steered(model, edit_of(scope="all"))
    with pytest.raises(MissingAbilityError, match="'weights'"):
        _ = made.weights
    assert isinstance(model, MaskedModel)
    assert not isinstance(made, LocalModel)
