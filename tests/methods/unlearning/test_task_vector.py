"""`task_vector`: what negation does to a model, what is trained once, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evenhand
from evenhand.core import specs
from evenhand.core.artifacts import artefacts
from evenhand.errors import SettingsError
from evenhand.interfaces import Dialogue, Message, Model, OverlapRemoved, Pair, Passage, TrainData
from evenhand.methods.unlearning import _choosing as choosing
from evenhand.methods.unlearning import _fine_tuning as fine_tuning
from evenhand.methods.unlearning import task_vector
from evenhand.methods.unlearning._choosing import choose
from evenhand.methods.unlearning._fine_tuning import Example, divide, pair_examples, text_examples
from evenhand.methods.unlearning._negation import merged
from evenhand.methods.unlearning._task_vectors import from_adapter, total
from evenhand.methods.unlearning.task_vector import TaskVectorNegation
from evenhand.models.fingerprint import of_weights
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.testing import ScriptedModel, check_method, tiny_model
from evenhand.training.packing import IGNORED

JOBS = ("nurse", "doctor", "pilot", "baker")
STATES = ("late", "tired", "here", "there", "sad", "glad")
TEXTS = tuple(f"the {job} said that he was {state}" for job in JOBS for state in STATES)
NEUTRAL = tuple(f"the {state} dog was {other}" for state in STATES for other in STATES)
PAIRS = tuple(
    Pair(f" he was {state}", f" she was {state}", f"the {job} said that", axis="gender", id=f"{job} {state}")
    for job in JOBS
    for state in STATES
) + tuple(
    Pair(f" dog was {state}", f" cat was {state}", f"the {job} and the", axis="pets", id=f"pet {job} {state}")
    for job in JOBS
    for state in STATES
)
MORE = tuple(
    p._replace(prompt=p.prompt.replace("said", "knew"), id=f"{p.id} knew") for p in PAIRS if p.axis == "gender"
)  # type: ignore[union-attr]
WORDS = ("knew", *TEXTS, *NEUTRAL, *(p.counter_stereotyped for p in PAIRS), "and the dog")
QUICK = {"epochs": 8, "patience": 0, "learning_rate": 5e-3, "device": "cpu", "precision": "no", "batch_size": 8}
DATA = TrainData(texts=TEXTS)


def tiny(architecture: str = "llama", **more: Any) -> LocalModel:
    words = tiny_tokenizer(WORDS, chat=False)
    return LocalModel(tiny_module(len(words), architecture, scale=1.0), words, name="tiny", **more)


def method(**more: Any) -> TaskVectorNegation:
    return TaskVectorNegation.build(**{**QUICK, **more})  # type: ignore[no-any-return]


def odds(model: Model, topic: str = "gender") -> float:
    return choosing.log_odds(model, [p for p in PAIRS if p.axis == topic])


def loss(model: Model, texts: tuple[str, ...]) -> float:
    return math.log(choosing.perplexity(model, texts))


# -------------------------------------------------------------------------------------------------- negation


@pytest.mark.parametrize("fit", ["lora", "full"])
def test_biased_texts_become_less_likely_the_more_is_taken_out(fit: str, tmp_path: Path) -> None:
    model = tiny()
    before = of_weights(*model.weights), loss(model, TEXTS), odds(model)
    rate = 5e-3 if fit == "lora" else 1e-3
    with artefacts(tmp_path):
        made = [method(fit=fit, strength=s, learning_rate=rate).apply(model, DATA) for s in (-1.0, 0.0, 0.25, -0.5)]
        assert len([f for f in tmp_path.iterdir() if f.is_dir()]) == 1  # one fine-tune for all of them
    losses = [loss(m, TEXTS) for m in made]
    assert losses[0] < losses[3] < losses[1] < losses[2]
    assert losses[1] == before[1]
    assert odds(made[0]) > odds(made[1]) == odds(model) > odds(made[2])  # he, of he and she
    assert of_weights(*model.weights) == before[0]
    facts = made[2].facts()
    assert facts["form"] == ("adapter" if fit == "lora" else "merged") and facts["strength"] == 0.25
    assert (
        facts["vectors"][0]["norm"] > 0 and facts["vectors"][0]["texts"] + facts["vectors"][0]["held_out_texts"] == 24
    )
    assert made[1].facts()["form"] == "merged" and of_weights(*made[1].weights) == before[0]


def test_both_forms_answer_alike_and_survive_saving(tmp_path: Path) -> None:
    model, passages = tiny("gpt2"), [Passage(t) for t in TEXTS]
    with artefacts(tmp_path / "kept"):
        one, two = (method(form=form, rslora=True).apply(model, DATA) for form in ("adapter", "merged"))
    scores = [np.array([s.logprob for s in m.score(passages)]) for m in (one, two, model)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)
    assert abs(scores[0] - scores[2]).max() > 0.1
    for m, expected in ((one, scores[0]), (two, scores[1])):
        opened = evenhand.load(m.save(tmp_path / m.facts()["form"]))
        assert [s.logprob for s in opened.score(passages)] == pytest.approx(expected, abs=1e-4)
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


def test_minus_one_is_the_fine_tune(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny(), []
    real = fine_tuning.from_adapter

    def caught(tuned: Any, base: Any) -> Any:
        seen.append(tuned)
        return real(tuned, base)

    monkeypatch.setattr(fine_tuning, "from_adapter", caught)
    made = method(strength=-1.0, form="merged").apply(model, DATA)
    ids = torch.tensor([model.weights.tokenizer(TEXTS[0]).input_ids])
    with torch.no_grad():
        ours, theirs = made.weights.module(ids).logits, seen[0](ids).logits
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_several_texts_give_vectors_of_their_own_that_add_up(tmp_path: Path) -> None:
    model = tiny()
    for name, some in (("one", TEXTS), ("two", NEUTRAL)):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(some))
    files = tuple(str(tmp_path / f"{name}.txt") for name in ("one", "two"))
    with artefacts(tmp_path / "kept"):
        both = method(text=files, strength=(0.5, -0.25), form="merged").apply(model)
        alone = [method(text=file, strength=-1.0, form="merged").apply(model) for file in files]
        assert len([f for f in (tmp_path / "kept").iterdir() if f.is_dir()]) == 2
    tensors = [dict(m.weights.module.named_parameters()) for m in (model, both, *alone)]
    for name, p in tensors[0].items():
        expected = p - 0.5 * (tensors[2][name] - p) + 0.25 * (tensors[3][name] - p)
        assert torch.allclose(tensors[1][name], expected, atol=1e-5)
    again = specs.parse(method(text=files, strength=(0.5, -0.25)).spec)
    assert again.settings["text"] == files and again.settings["strength"] == (0.5, -0.25)


def test_the_random_control_is_as_long_and_does_not_do_it(tmp_path: Path) -> None:
    model = tiny()
    with artefacts(tmp_path):
        ours, control = (method(control=c, form="merged").apply(model, DATA) for c in ("none", "random"))
    base = dict(model.weights.module.named_parameters())
    lengths = [
        math.sqrt(sum(float((p - base[n]).detach().square().sum()) for n, p in m.weights.module.named_parameters()))
        for m in (ours, control)
    ]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-3)
    change, random = (loss(m, TEXTS) - loss(model, TEXTS) for m in (ours, control))
    assert change > 5 * abs(random)


def test_the_exported_recipe_leads_to_the_same_model(tmp_path: Path) -> None:
    import yaml
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = evenhand.load(tiny().save(tmp_path / "base"))
    with artefacts(tmp_path / "kept"):
        recipe = yaml.safe_load(method(strength=0.4).export(model, tmp_path / "out", DATA).read_text())
        made = method(strength=0.4, form="merged").apply(model, DATA)
    (part,) = recipe["models"]
    base, adapter = part["model"].split("+")
    assert base == recipe["base_model"] == str(tmp_path / "base") and part["parameters"]["weight"] == -0.4
    opened = AutoModelForCausalLM.from_pretrained(base)
    tuned: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).merge_and_unload()
    for name, p in made.weights.module.named_parameters():
        expected = opened.get_parameter(name) - 0.4 * (tuned.get_parameter(name) - opened.get_parameter(name))
        assert torch.allclose(p, expected, atol=1e-5)
    with pytest.raises(SettingsError, match="save it first"):
        method().export(tiny(), tmp_path / "out", DATA)
    with pytest.raises(SettingsError, match="needs a strength"):
        method(strength="auto", neutral="demo:texts").export(model, tmp_path / "out", DATA)


def test_layers_with_factor_0_stay(tmp_path: Path) -> None:
    model = tiny()
    made = method(per_layer=(0.0, 1.0), form="merged").apply(model, DATA)
    base = model.weights.module
    for name, p in made.weights.module.named_parameters():
        same = torch.equal(p, base.get_parameter(name))
        assert same == (".layers.1." not in name or "norm" in name), name


# ------------------------------------------------------------------------------------- what is learned from


def test_tokens_that_are_learned() -> None:
    words = tiny_tokenizer(WORDS)
    (text,) = text_examples(["the nurse said"], words, 99)
    assert text.ids == text.labels == words("the nurse said").input_ids and not text.kept
    assert [len(e.ids) for e in text_examples(["the nurse said that he"], words, 4)] == [4, 2]
    pair = Pair("he was", "she was", "the nurse said that ", suffix=" late")
    (cut,) = pair_examples([pair], words, 99, whole=False)
    (whole,) = pair_examples([pair], words, 99, whole=True, kept=True)
    assert cut.ids == whole.ids == whole.labels == words("the nurse said that he was late").input_ids
    assert cut.labels == [IGNORED] * 5 + cut.ids[5:] and whole.kept
    chat = Pair("A", "B", Dialogue((Message("user", "Who was there?"),)))
    (asked,) = pair_examples([chat], words, 99, whole=False)
    assert [label for label in asked.labels if label != IGNORED] == words.convert_tokens_to_ids(["A"])
    assert pair_examples([chat], words, 5, whole=False) == []


def test_texts_held_out_are_different_ones() -> None:
    examples = [Example([1, n % 7], [1, n % 7]) for n in range(21)]
    train, held = divide(examples, 0.3, 0)
    assert len(train) + len(held) == 21 and len(held) == 6
    assert not {tuple(e.ids) for e in train} & {tuple(e.ids) for e in held}
    with pytest.raises(SettingsError, match="cannot be divided"):
        divide(examples[:1] * 3, 0.3, 0)


def test_topics_are_unlearned_and_the_others_stay(tmp_path: Path) -> None:
    model, data = tiny(), TrainData(pairs=PAIRS)
    given = {"loss": "continuation", "strength": -1.0, "axes": ("gender",)}  # -1: what is to be subtracted
    with artefacts(tmp_path):
        held, free = (method(retain_kl_weight=keep, **given).apply(model, data) for keep in (5.0, 0.0))
    for made in (held, free):
        assert odds(made) > odds(model) + 0.5
    facts, without = held.facts()["vectors"][0], free.facts()["vectors"][0]
    assert facts["kept_texts"] == without["kept_texts"] > 10
    assert facts["curve"][0]["held_out_divergence"] == pytest.approx(0, abs=1e-5)
    assert facts["curve"][-1]["held_out_divergence"] < 0.3 * without["curve"][-1]["held_out_divergence"]


def test_the_divergence_of_what_stays_is_the_plain_one() -> None:
    model = tiny()
    module, words = model.weights
    plan = method()._plan(module, 4)
    tuned = fine_tuning.tuned_module(module, "lora", plan.adapter, 0)
    with torch.no_grad():
        for p in tuned.parameters():
            if p.requires_grad:
                p.add_(0.1)
    tuned.eval()
    run = fine_tuning._Run(tuned, module, plan)
    learned = text_examples(TEXTS[:3], words, 99)
    kept = pair_examples(PAIRS[24:29], words, 99, whole=False, kept=True)
    (step,) = run.batches([*learned, *kept], np.random.RandomState(0))  # type: ignore[arg-type]
    expected, count = 0.0, 0
    for e in kept:
        with torch.no_grad():
            ours, theirs = (torch.log_softmax(m(torch.tensor([e.ids])).logits[0], -1) for m in (tuned, module))
        places = [n - 1 for n, label in enumerate(e.labels) if label != IGNORED]
        expected += float((theirs.exp() * (theirs - ours)).sum(-1)[places].sum())
        count += len(places)
    nats = sum(
        float(tuned(torch.tensor([e.ids]), labels=torch.tensor([e.ids])).loss) * (len(e.ids) - 1) for e in learned
    )
    nats /= sum(len(e.ids) - 1 for e in learned)
    assert float(run.loss(tuned, step).detach()) == pytest.approx(nats + plan.keep * expected / count, rel=1e-4)
    found = run.evaluate([step])
    assert found["held_out_divergence"] == pytest.approx(expected / count, rel=1e-4)
    assert found["held_out_nats"] == pytest.approx(nats, rel=1e-4)


def test_learning_rates_and_warm_up_of_the_paper() -> None:
    paper = TaskVectorNegation.build(preset="paper")
    llama, opt = (paper._plan(tiny(kind).weights.module, 3200) for kind in ("llama", "opt"))
    assert (llama.schedule.learning_rate, opt.schedule.learning_rate) == (5e-4, 2e-4)
    assert llama.schedule.warmup_ratio == pytest.approx(100 / 2000)
    assert (llama.adapter.rank, llama.adapter.alpha, llama.adapter.dropout, llama.adapter.targets) == (
        8,
        8,
        0.01,
        "attention",
    )
    assert llama.schedule.epochs == 10 and llama.schedule.patience == 0 and llama.batch_size == 16
    assert paper.strengths == (0.2, 0.4, 0.6, 0.8, 1.0)
    tuned = fine_tuning.tuned_module(tiny().weights.module, "lora", llama.adapter, 0)
    names = {n.split(".")[-4] for n, p in tuned.named_parameters() if p.requires_grad}
    assert names == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 10),
        ("warmup_steps", 100),
        ("batch_size", 16),  # 2 texts, 8 times (4 and 4 of OPT)
        ("rank", 8),
        ("dropout", 0.01),
        ("precision", "no"),  # from_pretrained without a dtype, and TrainingArguments without fp16 or bf16
        ("validation_fraction", 0.0),  # eval_dataset is the training data, so the "best" epoch is judged on it
        ("patience", 0),
    ],
)
def test_paper_preset_is_the_released_training(setting: str, value: object) -> None:
    """Dige et al. 2024: VectorInstitute/bias-mitigation-unlearning 9b7c792, task_vectors/train_model.py."""
    assert TaskVectorNegation.build(preset="paper").settings[setting] == value


def test_paper_preset_trains_on_every_text_and_takes_the_last_of_ten_epochs() -> None:
    given = {"preset": "paper", "device": "cpu", "learning_rate": 0.05}
    facts = TaskVectorNegation.build(**given).apply(tiny(), DATA).facts()
    assert (facts["texts"], facts["held_out_texts"], facts["best_epoch"]) == (len(TEXTS), 0, 9)
    assert [sorted(row) for row in facts["curve"]] == [["epoch"], *[["epoch", "train_loss"]] * 10]


def test_an_adapter_on_embeddings_too() -> None:
    model = tiny()
    made = method(embeddings=True, form="merged", targets="attention").apply(model, DATA)
    changed = {
        n
        for n, p in made.weights.module.named_parameters()
        if not torch.equal(p, model.weights.module.get_parameter(n))
    }
    assert "model.embed_tokens.weight" in changed and "lm_head.weight" not in changed
    assert all(n.split(".")[-2] in ("embed_tokens", "q_proj", "v_proj") for n in changed)


def test_a_fine_tune_from_elsewhere(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny()
    tuned: Any = get_peft_model(
        tiny().weights.module, LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "o_proj"])
    )
    with torch.no_grad():
        for n, p in tuned.named_parameters():
            if "lora_B" in n:
                p.normal_()
    tuned.save_pretrained(tmp_path)
    made = method(tuned=str(tmp_path), strength=0.3, form="merged").apply(model)
    expected, _ = merged(model.weights.module, total([(from_adapter(tuned, model.weights.module), lambda n: -0.3)]))
    for name, p in made.weights.module.named_parameters():
        assert torch.allclose(p, expected.get_parameter(name), atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_strength_0_of_a_model_under_an_adapter_on_tied_embeddings_is_that_model(tmp_path: Path) -> None:
    import evenhand

    model = tiny()
    module = model.weights.module
    module.lm_head.weight = module.get_input_embeddings().weight
    module.config.tie_word_embeddings = True
    method(embeddings=True).apply(model, DATA).save(tmp_path / "one")
    one = evenhand.load(tmp_path / "one", trust_folder=True)
    method(embeddings=True, strength=0.0).apply(one, DATA).save(tmp_path / "two")
    two = evenhand.load(tmp_path / "two", trust_folder=True)
    ids = torch.tensor([[1, 5, 9, 2, 7, 3]])
    with torch.no_grad():
        before, first, second = (m.weights.module(input_ids=ids).logits for m in (model, one, two))
    assert float((first - before).abs().max()) > 0.01
    assert float((second - first).abs().max()) < 1e-5


# ------------------------------------------------------------------------------------- choosing the strength


class Fake(ScriptedModel):
    """A model whose perplexity and log-odds are given."""

    def __init__(self, perplexity: float, log_odds: float) -> None:
        super().__init__(abilities=frozenset({"score"}))
        self.given = perplexity, log_odds

    def score(self, passages: Any) -> Any:
        from evenhand.interfaces import Score

        values = {"good": -math.log(self.given[0]) * 3, "he": self.given[1] - 4.0, "she": -4.0}
        return [Score(values[p.continuation], 3) for p in passages]


@pytest.mark.parametrize(
    ("pairs", "limit", "expected"), [(True, 0.5, 0.5), (True, 0.15, 0.25), (False, 0.5, 1.0), (False, 0.05, 0.25)]
)
def test_the_strength_is_chosen_under_the_limit(pairs: bool, limit: float, expected: float) -> None:
    table = {0.0: (10.0, 2.0), 0.25: (10.4, 1.0), 0.5: (12.0, -0.2), 1.0: (15.0, -3.0), 2.0: (15.1, 0.0)}
    found, tried = choose(
        lambda s: Fake(*table[s]), (2.0, 1.0, 0.5, 0.25), ["good"], [Pair("he", "she")] if pairs else [], limit
    )
    assert found == expected
    assert [t.strength for t in tried] == [0.0, 2.0, 1.0, 0.5, 0.25]
    assert tried[3].perplexity == pytest.approx(12.0) and (tried[3].log_odds == pytest.approx(-0.2) if pairs else True)
    with pytest.raises(SettingsError, match="no strength keeps"):
        choose(lambda s: Fake(*table[s]), (2.0,), ["good"], [], 0.1)


def test_auto_chooses_on_pairs_that_were_not_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    (tmp_path / "neutral.txt").write_text("\n\n".join(NEUTRAL))
    seen: dict[str, Any] = {}
    fit, pick = fine_tuning.fit, choosing.choose

    def fitted(module: Any, train: Any, held: Any, *rest: Any) -> Any:
        seen["learned"] = {tuple(e.ids) for e in [*train, *held]}
        return fit(module, train, held, *rest)

    def picked(make: Any, strengths: Any, neutral: Any, pairs: Any, limit: float) -> Any:
        seen["pairs"] = pairs
        return pick(make, strengths, neutral, pairs, limit)

    monkeypatch.setattr(fine_tuning, "fit", fitted)
    monkeypatch.setattr(choosing, "choose", picked)
    made = method(
        strength="auto",
        neutral=str(tmp_path / "neutral.txt"),
        limit=10.0,
        loss="continuation",
        axes=("gender",),
        strengths=(0.25, 0.5),
    ).apply(model, TrainData(pairs=(*PAIRS, *MORE)))
    held = pair_examples(seen["pairs"], model.weights.tokenizer, 99, whole=False)
    assert len(held) == 10 and {p.axis for p in seen["pairs"]} == {"gender"}
    assert not {tuple(e.ids) for e in held} & seen["learned"]
    facts = made.facts()
    assert facts["strength"] in (0.25, 0.5) and [t["strength"] for t in facts["tried"]] == [0.0, 0.25, 0.5]


# ------------------------------------------------------------------------------------------------ contracts


def test_it_keeps_the_contract_of_methods(tmp_path: Path) -> None:
    with artefacts(tmp_path):
        check_method(method(epochs=1), tiny_model(texts=WORDS), DATA)


def test_a_killed_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    whole = method(form="merged").apply(model, DATA)
    calls = {"n": 0}
    real = fine_tuning._Run.evaluate

    def killed(self: Any, steps: Any) -> Any:
        calls["n"] += 1
        if calls["n"] == 4:
            raise KeyboardInterrupt
        return real(self, steps)

    with artefacts(tmp_path):
        with monkeypatch.context() as patched:
            patched.setattr(fine_tuning._Run, "evaluate", killed)
            with pytest.raises(KeyboardInterrupt):
                method(form="merged").apply(model, DATA)
        again = method(form="merged").apply(model, DATA)
    for name, p in again.weights.module.named_parameters():
        assert torch.equal(p, whole.weights.module.get_parameter(name))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"strength": "auto"}, "set neutral="),
        ({"tuned": "x", "text": "y.txt"}, "leave text="),
        ({"loss": "continuation", "text": "y.txt"}, "leave text= out"),
        ({"strength": (1.0, 2.0)}, "2 strengths for 1 vectors"),
        ({"text": ("a.txt", "b.txt", "c.txt"), "strength": (1.0, 2.0)}, "2 strengths for 3 vectors"),
        ({"strengths": (0.0,)}, "strengths"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        method(**given)


def test_what_cannot_be_edited_or_learned_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert specs.parse("task_vector(axes=('Age',),loss=continuation)").settings["axes"] == ("Age",)
    with pytest.raises(SettingsError, match="needs weights"):
        method().apply(ScriptedModel(), DATA)
    with pytest.raises(SettingsError, match="needs biased texts"):
        method().apply(tiny())
    with pytest.raises(SettingsError, match="with pairs"):
        method(loss="continuation").apply(tiny(), DATA)
    with pytest.raises(SettingsError, match="at least 20 different texts, not 3"):
        method().apply(tiny(), TrainData(texts=TEXTS[:3] * 9))
    with pytest.raises(SettingsError, match="no pairs about age; the training data has: gender, pets"):
        method(axes=("age",)).apply(tiny(), TrainData(pairs=PAIRS))
    with pytest.raises(SettingsError, match="quantised"):
        method().apply(tiny(load_options={"load_in_4bit": True}), DATA)
    with pytest.raises(SettingsError, match="form=merged"):
        method(fit="full", form="adapter", epochs=1).apply(tiny(), DATA)
    with pytest.raises(SettingsError, match="is not a folder"):
        method(tuned="nowhere").apply(tiny())
    assert task_vector.TaskVectorNegation.build(preset="paper").spec == "task_vector(preset=paper)"


def test_without_a_hold_out_the_last_epoch_is_taken() -> None:
    (about,) = method(validation_fraction=0, epochs=2, patience=1).apply(tiny(), DATA).facts()["vectors"]
    assert (about["held_out_texts"], about["best_epoch"]) == (0, 1)
    assert [sorted(row) for row in about["curve"]] == [["epoch"], *[["epoch", "train_loss"]] * 2]


def test_stretches_of_one_text_are_on_one_side() -> None:
    words = tiny().weights.tokenizer
    texts = [f"{TEXTS[n]} {TEXTS[n]} {TEXTS[n]}" for n in range(10)]
    examples = text_examples(texts, words, 4)
    assert len(examples) > 20
    train, held = divide(examples, 0.3, 0)
    assert len(train) + len(held) == len(examples) and len(held) >= round(0.3 * len(examples))
    assert not {e.whole for e in train} & {e.whole for e in held}


def test_the_record_counts_the_pairs_that_were_left_out_where_pairs_are_learned(tmp_path: Path) -> None:
    data = TrainData(texts=TEXTS, pairs=PAIRS, overlap_removed=OverlapRemoved(questions=5, texts=3, pairs=2))
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(TEXTS))
    given: dict[str, dict[str, Any]] = {"texts": {}, "pairs": {"loss": "continuation"}, "own": {"text": str(file)}}
    records = {kind: method(epochs=1, **more).apply(tiny(), data).training for kind, more in given.items()}
    found = {kind: record.data.overlap_removed for kind, record in records.items() if record is not None}
    assert found == {"texts": 3, "pairs": 2, "own": None}
