"""The encoders' engine equals a plain one-by-one forward, whatever the batch, and feeds nothing twice."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from evenhand.core.answer_cache import answer_cache
from evenhand.errors import EvenhandError, SettingsError
from evenhand.inference.encoder import EncoderEngine, Inputs

WORDS, MASK, CLASSES = 60, 5, 3
TOLERANCE = 1e-4
SMALL: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "num_labels": CLASSES,
}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {"pad_token_id": 0},
    "roberta": {"pad_token_id": 1, "type_vocab_size": 1},  # positions begin behind that of the padding
    "xlm-roberta": {"pad_token_id": 1, "type_vocab_size": 1},
    "modernbert": {"pad_token_id": 0, "local_attention": 8, "global_attn_every_n_layers": 2},
    "deberta-v2": {
        "pad_token_id": 0,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "max_relative_positions": 16,
    },
    "electra": {"pad_token_id": 0, "embedding_size": 32},
}


def made_of(kind: str, auto: Any = AutoModelForMaskedLM) -> PreTrainedModel:
    config = AutoConfig.for_model(kind, **{**SMALL, **KINDS.get(kind, {"pad_token_id": 0})})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: PreTrainedModel = auto.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    return module


def engine_of(module: PreTrainedModel, budget: int | None = None) -> EncoderEngine:
    return EncoderEngine(module, int(module.config.pad_token_id), budget)


Asked = tuple[list[list[int]], list[int], list[list[int]]]


def masks(count: int = 8) -> Asked:
    """Every mask of some texts of unequal length, in a mixed order."""
    rng = random.Random(0)
    made = []
    for n in [2, 3, 3, 9, 17, 30, 5, 12][:count]:
        ids = [rng.randrange(7, WORDS) for _ in range(n)]
        made += [([*ids[:at], MASK, *ids[at + 1 :]], at, [ids[at], rng.randrange(7, WORDS)]) for at in range(n)]
    rng.shuffle(made)
    return [m[0] for m in made], [m[1] for m in made], [m[2] for m in made]


def plainly(module: PreTrainedModel, asked: Asked) -> list[list[float]]:
    """One row, no padding, all logits, float64 normalisation."""
    out = []
    with torch.no_grad():
        for ids, place, tokens in zip(*asked, strict=True):
            logits = module(torch.tensor([ids])).logits[0, place].double()
            out.append(torch.log_softmax(logits, -1)[tokens].tolist())
    return out


# --------------------------------------------------------------------------------------------------------- masked


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [1, 100, None])
def test_masks_equal_plain_forwards(kind: str, budget: int | None) -> None:
    module, asked = made_of(kind), masks()
    engine = engine_of(module, budget)
    got, expected = engine.masked(*asked, "f"), plainly(module, asked)
    assert np.abs(np.subtract(got, expected)).max() < TOLERANCE
    assert np.ptp(expected) > 1, "the model is too flat for this test to notice a wrong mask"
    assert engine.sequences == len(asked[0])
    assert (engine.forwards == len(asked[0])) == (budget == 1)


def test_rows_that_differ_in_what_is_read_only_are_fed_once() -> None:
    module = made_of("bert")
    engine = engine_of(module)
    asked: Asked = ([[7, MASK, 9], [7, MASK, 9], [7, MASK, 9], [7, 8, MASK]], [1, 1, 0, 2], [[8], [9, 8], [7], []])
    got = engine.masked(*asked, "f")
    assert engine.sequences == 2 and [len(v) for v in got] == [1, 2, 1, 0]
    for values, expected in zip(got, plainly(module, asked), strict=True):
        assert values == pytest.approx(expected, abs=TOLERANCE)


def test_logits_are_made_at_the_masks_only() -> None:
    module, asked = made_of("bert"), masks(4)
    rows: list[int] = []
    module.get_output_embeddings().register_forward_hook(lambda _, __, out: rows.append(out.shape[:-1].numel()))
    engine_of(module, 50).masked(*asked, "f")
    assert rows[:2] == [2, 9], "the shortest row alone, and padded: whether that changes anything"
    assert sum(rows[2:]) == len(asked[0])


@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2", "electra"])
def test_the_last_layer_is_wide_at_the_masks_only(kind: str) -> None:
    module, asked = made_of(kind), masks()
    fed: list[list[int]] = [[], []]
    wide = [m for name, m in module.named_modules() if name.endswith(".intermediate")]
    for counted, layer in zip(fed, wide, strict=True):
        layer.register_forward_hook(lambda _, __, out, counted=counted: counted.append(out.shape[:-1].numel()))
    engine = engine_of(module, 100)
    engine._padding = True  # known, so that nothing is fed to find it out
    got = engine.masked(*asked, "f")
    assert [sum(counted) for counted in fed] == [engine.tokens, len(asked[0])]
    assert np.abs(np.subtract(got, plainly(module, asked))).max() < TOLERANCE


def test_a_layer_that_is_run_several_times_is_not_cut() -> None:
    module, asked = made_of("bert"), masks(5)
    layers = module.get_submodule("bert.encoder.layer")
    assert isinstance(layers, torch.nn.ModuleList)
    layers[1] = layers[0]
    assert np.abs(np.subtract(engine_of(module).masked(*asked, "f"), plainly(module, asked))).max() < TOLERANCE


def test_a_layer_that_is_run_in_chunks_is_not_cut() -> None:
    import transformers

    from evenhand.inference.last_layer import wide_part_at

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=30, chunk_size_feed_forward=2, **sizes)
    module, ids, rows = transformers.BertModel(config).eval(), torch.arange(12).view(2, 6), torch.tensor([2, 3])
    with torch.no_grad():
        plain = module(ids)[0].flatten(0, 1)[rows]
        with wide_part_at(rows, module):
            assert torch.equal(module(ids)[0].flatten(0, 1)[rows], plain)


def test_scoring_leaves_training_flags_alone() -> None:
    module = made_of("bert").train()
    module.base_model.embeddings.eval()
    engine_of(module).masked(*masks(2), "f")
    assert module.training and not module.base_model.embeddings.training


def test_what_sees_the_padding_is_batched_by_length() -> None:
    """FNet mixes all places of a row, padding included."""
    module, asked = made_of("fnet"), masks()
    engine = engine_of(module)
    with pytest.warns(UserWarning, match="padding changes the results of FNetForMaskedLM"):
        got = engine.masked(*asked, "f")
    assert np.abs(np.subtract(got, plainly(module, asked))).max() < TOLERANCE
    assert engine.forwards == len({len(ids) for ids in asked[0]}) < engine.sequences
    engine._padding = True
    wrong = engine.masked(*asked, "g")
    assert np.abs(np.subtract(got, wrong)).max() > 100 * TOLERANCE, "padded batches would have been wrong"


# -------------------------------------------------------------------------------------------------- memory, cache


def short_of_memory(module: PreTrainedModel, most: int, sizes: list[int]) -> None:
    """Batches of more than `most` rows do not fit."""
    forward = module.forward

    def limited(*args: Any, **inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(*args, **inputs)

    vars(module)["forward"] = limited


def test_batches_are_halved_for_good_where_the_memory_does_not_suffice() -> None:
    module, asked, sizes = made_of("bert"), masks(), []  # type: PreTrainedModel, Asked, list[int]
    expected = plainly(module, asked)
    short_of_memory(module, 3, sizes)
    engine = engine_of(module)
    assert np.abs(np.subtract(engine.masked(*asked, "f"), expected)).max() < TOLERANCE
    failed = [n for n, size in enumerate(sizes) if size > 3]
    assert 1 < len(failed) < 10 and engine.sequences == len(asked[0])
    assert engine.budget < 8_192


def test_a_single_row_that_does_not_fit_is_an_error_and_other_errors_pass() -> None:
    module = made_of("bert")
    short_of_memory(module, 0, [])
    with pytest.raises(EvenhandError, match="single sequence of 3 tokens"):
        engine_of(module).masked([[7, 8, 9]], [1], [[8]], "f")
    with pytest.raises(EvenhandError, match="no embedding"):
        engine_of(made_of("bert")).masked([[7, WORDS + 1, 9]], [1], [[8]], "f")


def test_known_answers_are_not_computed(tmp_path: Path) -> None:
    module, asked = made_of("bert"), masks(4)
    texts = [[7, 8, 9], [10], [7, 8, 9]]
    classifier = made_of("bert", AutoModelForSequenceClassification)
    with answer_cache(tmp_path / "cache"):
        first, again = engine_of(module), engine_of(module)
        values = first.masked(*asked, "f")
        assert again.masked(*asked, "f") == values and again.forwards == 0
        again.masked(*asked, "another model")
        assert again.forwards == first.forwards > 0
        kept, fresh = engine_of(classifier), engine_of(classifier)
        logits = kept.outputs(texts, fingerprint="c")
        assert np.array_equal(fresh.outputs(texts, fingerprint="c"), logits) and fresh.forwards == 0
        fresh.outputs(texts)
        assert fresh.sequences == 2, "without a fingerprint nothing is looked up"
        assert np.array_equal(fresh.outputs(texts, fingerprint="c", types=[[1, 1, 1], [1], [1, 1, 1]]), logits) is False


# -------------------------------------------------------------------------------------------------------- outputs


def texts_and_types() -> tuple[list[list[int]], list[list[int]]]:
    rng = random.Random(1)
    lengths = [3, 8, 3, 20, 11, 8, 1, 33]
    rows = [[rng.randrange(7, WORDS) for _ in range(n)] for n in lengths]
    return [*rows, rows[3]], [[int(i >= n // 2) for i in range(n)] for n in [*lengths, lengths[3]]]


def mean_of(module: PreTrainedModel) -> Callable[[Inputs], Tensor]:
    def run(inputs: Inputs) -> Tensor:
        hidden, seen = module(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
        return (hidden * seen).sum(1) / seen.sum(1)

    return run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [1, 40, None])
def test_classifiers_equal_plain_forwards(kind: str, budget: int | None) -> None:
    module = made_of(kind, AutoModelForSequenceClassification)
    rows, types = texts_and_types()
    engine = engine_of(module, budget)
    typed = kind in ("bert", "electra")
    got = engine.outputs(rows, types=types if typed else None)
    with torch.no_grad():
        extra = [{"token_type_ids": torch.tensor([t])} if typed else {} for t in types]
        expected = [module(torch.tensor([r]), **e).logits[0].tolist() for r, e in zip(rows, extra, strict=True)]
    assert got.shape == (len(rows), CLASSES) and np.abs(got - expected).max() < TOLERANCE
    assert np.ptp(expected, axis=0).min() > 0.01 and engine.sequences == len(rows) - 1
    if typed:
        assert np.abs(got - engine.outputs(rows)).max() > 0.01, "types are handed on"


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_pooled_states_equal_plain_forwards(kind: str) -> None:
    module = made_of(kind, AutoModel)
    rows, _ = texts_and_types()
    got = engine_of(module, 60).outputs(rows, mean_of(module))
    with torch.no_grad():
        expected = [module(torch.tensor([r])).last_hidden_state[0].mean(0).tolist() for r in rows]
    assert got.shape == (len(rows), 32) and np.abs(got - expected).max() < TOLERANCE
    first = engine_of(module).outputs(rows, lambda inputs: module(**inputs).last_hidden_state[:, 0])
    assert np.abs(first - got).max() > 0.01


def test_nothing_asked_and_wrong_types() -> None:
    engine = engine_of(made_of("bert", AutoModelForSequenceClassification))
    assert engine.outputs([]).shape == (0,) and engine.masked([], [], [], "f") == []
    with pytest.raises(SettingsError, match="a type"):
        engine.outputs([[7, 8]], types=[[0]])
