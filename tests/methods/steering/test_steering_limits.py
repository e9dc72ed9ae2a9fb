"""What a sceptical user tries: nothing to learn, wrong answers, rounding, other architectures' limits, odd folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

import evenhand
from evenhand.core.artifacts import artefacts
from evenhand.errors import EvenhandError, SettingsError
from evenhand.evaluation.bbq import BBQ
from evenhand.experiment import no_effect
from evenhand.interfaces import Choice, Model, Pair, Question, TrainData
from evenhand.methods.steering import _activation_method as activation_method
from evenhand.methods.steering import fairsteer
from evenhand.methods.steering._contrasts import of_pair
from evenhand.methods.steering._fit import FILE, base_of
from evenhand.methods.steering._lesson import contrasts, lesson
from evenhand.methods.steering._rows import continuation_rows
from evenhand.methods.steering._states import by_layers
from evenhand.methods.steering._steered import Steered
from evenhand.methods.steering.fairsteer import FairSteer
from evenhand.methods.steering.steering import Steering
from evenhand.models.files import LEARNED
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.models.tiny import tiny_tokenizer
from evenhand.models.tokenization import Encoder

from .steering_pairs import DATA, PLAIN, lettered, plain, tiny

OPTIONS = ("The nurse", "The pilot", "Not known")


def steering(model: Model, data: TrainData = DATA, **given: Any) -> Steered:
    made = Steering.build(**{"layer": 0, **given}).apply(model, data)
    assert isinstance(made, Steered)
    return made


@pytest.fixture(autouse=True)
def few_answers_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model may favour one letter, so that few answers are left of a kind."""
    monkeypatch.setattr(fairsteer, "LEAST_ROWS", 2)


def fair(**given: Any) -> Steered:
    made = FairSteer.build(**{"layer": 0, "fit_at": "answer", **given}).apply(tiny(), DATA)
    assert isinstance(made, Steered)
    return made


# ------------------------------------------------------------------------------------------------ training data


@pytest.mark.parametrize("given", [{}, {"normalise": True}, {"operation": "ablate"}, {"direction": "pca"}])
def test_sides_without_a_difference_are_refused(given: dict[str, Any]) -> None:
    same = tuple(Pair(" he", " he", p.prompt, axis=p.axis, id=p.id) for p in plain())
    with pytest.raises(
        SettingsError, match=r"same states in tiny-llama at layer 0.*sides of the training pairs differ"
    ):
        steering(tiny(), TrainData(pairs=same), **given)


def test_a_right_option_that_there_is_not_is_refused() -> None:
    asked = tuple(Question(f"q{n}", f"Who was {n}", OPTIONS) for n in range(20))
    with pytest.raises(SettingsError, match=r"question 'q0'.*right option 7.*0 to 2"):
        steering(tiny(), TrainData(questions=asked, answers=(7,) * 20))


def test_repeated_pairs_count_once() -> None:
    with pytest.raises(SettingsError, match="at least 8 different pairs or labelled questions, not 1"):
        steering(tiny(), TrainData(pairs=lettered()[:1] * 8))
    same = (Question("", "Who was it", OPTIONS),) * 8
    with pytest.raises(SettingsError, match="not 1"):
        steering(tiny(), TrainData(questions=same, answers=(2,) * 8))


def test_four_options_of_which_a_pair_names_one_are_no_obstacle() -> None:
    asked = tuple(Question(f"pair {n}", "Who was slow", (*OPTIONS, "The cook")) for n in range(20))
    found = contrasts(
        tiny(), Encoder(tiny().weights.tokenizer), lesson("x", TrainData(asked, (2,) * 20, (), lettered()), (), None)
    )
    named = [c for c in found if len(c.answers) == 4 and c.unknown is not None]
    assert named
    assert all(c.unknown == c.other == 2 for c in named)


def test_questions_without_ids_each_have_their_own_likeliest_wrong_option(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    asked = tuple(Question("", f"Who was {n}", OPTIONS) for n in range(8))
    likely = [(0.7, 0.2, 0.1), (0.2, 0.7, 0.1)] * 4
    monkeypatch.setattr(model, "choose", lambda given: [Choice(None, p) for p in likely[: len(given)]])
    used = lesson("x", TrainData(asked, (2,) * 8), (), None)
    made = contrasts(model, Encoder(model.weights.tokenizer), used)
    assert [c.biased for c in made] == [0, 1] * 4


# --------------------------------------------------------------------------------------------------- precision


def in_bfloat16() -> LocalModel:
    module, tokenizer = tiny().weights
    return LocalModel(module.to(torch.bfloat16), tokenizer, name="half")


def test_what_rounding_loses_is_in_the_record_and_explains_no_effect() -> None:
    model = in_bfloat16()
    with pytest.warns(
        UserWarning, match=r"layer 0, 100% of the coordinates of half's states.*bfloat16.*larger strength"
    ):
        lost = steering(model, strength=1e-4)
    assert lost.training is not None
    assert lost.training.results["unchanged_share"] == {"0": 1.0}
    why = no_effect.reason(model, lost, lost.method, BBQ(source="demo"), [])
    assert why.startswith("rounding keeps 100% of the coordinates that steering edits")
    kept = steering(model, strength=1000.0)
    assert kept.training is not None
    assert kept.training.results["unchanged_share"]["0"] < 0.05
    assert no_effect.reason(model, kept, kept.method, BBQ(source="demo"), []) == ""


def test_float32_keeps_what_bfloat16_loses() -> None:
    made = steering(tiny(), strength=1.0)
    assert made.training is not None
    assert made.training.results["unchanged_share"]["0"] < 0.05


def test_closed_gates_are_no_rounding() -> None:
    made = fair(threshold=0.0, strength=10.0)
    assert made.training is not None
    assert made.training.results["unchanged_share"]["0"] < 0.05


# ------------------------------------------------------------------------------------------------ what is fitted


def test_fairsteer_fits_the_layers_that_it_edits_and_all_where_one_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[list[int]] = []
    learned = FairSteer.learned

    def spy(self: FairSteer, *given: Any) -> Any:
        fit, results = learned(self, *given)
        fitted.append(sorted(fit.gates))
        return fit, results

    monkeypatch.setattr(FairSteer, "learned", spy)
    with artefacts(tmp_path):
        fair(layer=1)
        fair(layer=1, strength=2.0)
        fair(layer="all")
        fair(layer="validation")
    assert fitted == [[1], [0, 1]]


def test_a_negative_strength_gets_the_layer_of_the_positive_one(monkeypatch: pytest.MonkeyPatch) -> None:
    strengths: list[float] = []

    def first(edited_at: Any, layers: Any, held: Any) -> tuple[int, list[dict[str, float]]]:
        strengths.append(edited_at(0).edit.layers[0][0].strength)
        return 0, []

    monkeypatch.setattr(activation_method, "chosen", first)
    for strength, control in ((2.0, "none"), (-2.0, "none"), (2.0, "flipped")):
        steering(tiny(), layer="validation", strength=strength, control=control)
    assert strengths == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("scope", ["all", "answer", "after"])
def test_a_fit_on_a_steered_model_reads_the_states_that_its_answers_have(scope: str) -> None:
    """The prompt's last token is edited in scope `answer` while the letter after it is read, not only the letter."""
    base = tiny()
    first = steering(base, PLAIN, scope=scope, strength=3.0)
    vector = 3.0 * first.fit.directions[0][0]
    encoder = Encoder(base.weights.tokenizer)
    rows = continuation_rows(encoder, [of_pair(p) for p in plain()], "other")
    ((_, states),) = by_layers(first, rows, [1], 32)
    start = {"all": 1, "answer": rows[0].position - 1, "after": rows[0].position}
    module = base.weights.module
    for row, state in zip(rows[:6], states[:6, 0], strict=True):

        def change(_: Any, __: Any, output: Any, begin: int = row.position - rows[0].position + start[scope]) -> Any:
            out = (output[0] if isinstance(output, tuple) else output).clone()
            out[:, (1 if scope == "all" else begin) :] += vector
            return (out, *output[1:]) if isinstance(output, tuple) else out

        seen: list[torch.Tensor] = []
        handles = [
            module.model.layers[0].register_forward_hook(change),
            module.model.layers[1].register_forward_hook(
                lambda _, __, output, seen=seen: seen.append(output[0] if isinstance(output, tuple) else output)
            ),
        ]
        with torch.no_grad():
            module(torch.tensor([row.ids]))
        for handle in handles:
            handle.remove()
        assert torch.allclose(state, seen[0].reshape(-1, 32)[row.position], atol=1e-4)


# ------------------------------------------------------------------------------------------------ other models


def test_a_masked_model_is_refused_with_the_reason() -> None:
    tokenizer = tiny_tokenizer(chat=False)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    model = MaskedModel(BertForMaskedLM(config), tokenizer, name="bert")
    for method in (Steering(), FairSteer()):
        reason = method.unsupported_reason(model, PLAIN)
        assert "bert is a masked language model, which reads a whole text at once" in reason


# ------------------------------------------------------------------------------------------------ odd folders


def tampered(made: Steered, folder: Path, change: Any) -> str:
    """What opening a saved model says after its tensors were changed, and its base's hash was kept."""
    made.save(folder)
    learned = folder / LEARNED
    tensors, base = load_file(learned / FILE), base_of(learned)
    save_file(change(tensors), learned / FILE, {"base": base})
    with pytest.raises(EvenhandError) as caught:
        evenhand.load(folder)
    return str(caught.value)


def test_a_direction_of_another_layer_than_the_settings_name_is_refused(tmp_path: Path) -> None:
    said = tampered(steering(tiny()), tmp_path / "m", lambda t: {"direction.1": t["direction.0"].clone()})
    assert "directions of the layers [1], but layer=0 is set" in said


@pytest.mark.parametrize(("gate", "tensor"), [("token", "gate"), ("prompt", "condition")])
def test_a_gate_that_is_missing_is_refused(gate: str, tensor: str, tmp_path: Path) -> None:
    said = tampered(
        fair(gate=gate), tmp_path / "m", lambda t: {k: v.clone() for k, v in t.items() if not k.startswith(tensor)}
    )
    assert f"no gate of layer 0, but gate={gate} is set" in said


def test_a_neutral_state_that_is_missing_is_refused(tmp_path: Path) -> None:
    made = steering(tiny(), operation="project", offset="neutral")
    said = tampered(made, tmp_path / "m", lambda t: {"direction.0": t["direction.0"].clone()})
    assert "no neutral state of layer 0, but offset=neutral is set" in said
