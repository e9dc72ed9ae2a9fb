"""Shared beginnings: losses and gradients are those of one sequence after the other, from fewer tokens."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, logsigmoid
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from evenhand.inference import blocks, stems
from evenhand.methods.unlearning import _fine_tuning
from evenhand.methods.unlearning._pairwise import sequence_nll
from evenhand.models.tiny import ARCHITECTURES, tiny_model, tiny_module
from evenhand.training import (
    causal_lm_loss,
    chunked_kl,
    final_hidden,
    finish_of,
    layout_of,
    pack,
    packing,
    trie_attention,
    trie_mask,
)
from evenhand.training.gradient_checkpointing import checkpointed
from evenhand.training.loop import Schedule
from evenhand.training.lora import Adapter
from evenhand.training.packing import IGNORED, Batch, Layout
from evenhand.training.shared_prefixes import drops_out, longest_trie, needed, tries

WORDS = 60
SHARED = Layout("positions", shared=True, dtype=torch.float64)
Step = Callable[[Any, list[Batch]], float]


def texts() -> list[list[int]]:
    """Prompts with several ends, one that continues another, one twice, and one apart."""
    rng = random.Random(0)
    one, two, apart = ([rng.randrange(7, WORDS) for _ in range(n)] for n in (14, 9, 5))
    ends = [[rng.randrange(7, WORDS) for _ in range(n)] for n in (1, 4, 6, 3)]
    asked = [one + ends[0], one + ends[1], one + ends[1] + ends[2], one[:8] + ends[3], two + ends[2], two + ends[0]]
    return [*asked, apart, one + ends[1], [8]]


def labels_of(asked: list[list[int]]) -> list[list[int]]:
    """Some are ignored: single ones, all of a sequence, and the ends of one."""
    rng = random.Random(1)
    found = [[t if rng.random() < 0.7 else IGNORED for t in ids] for ids in asked]
    found[3] = [IGNORED] * len(asked[3])
    found[4][-3:] = [IGNORED] * 3
    return found


def made_of(architecture: str, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    return tiny_module(WORDS, architecture, scale=3.0).to(dtype).eval()


def adapter_of(architecture: str, dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, lora_dropout=dropout)
    return get_peft_model(made_of(architecture), config).double().eval()


def gradients(module: Any) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    return found


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert found.keys() == expected.keys() and len(found) > 2
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3
    for name, wanted in expected.items():
        assert float((found[name] - wanted).norm()) < tolerance * (float(wanted.norm()) + 1e-9), name


def plain_sum(module: Any, asked: list[list[int]], labels: list[list[int]]) -> float:
    """Full logits, one sequence at a time."""
    total = 0.0
    for ids, row in zip(asked, labels, strict=True):
        logits = module(torch.tensor([ids]), use_cache=False).logits[0, :-1]
        loss = cross_entropy(logits, torch.tensor(row[1:], dtype=torch.long), reduction="sum")
        loss.backward()
        total += loss.item()
    return total


def shared_sum(module: Any, batches: list[Batch]) -> float:
    total, finish = 0.0, finish_of(module)
    for batch in batches:
        loss = causal_lm_loss(module, batch, finish=finish, chunk=8, reduction="sum")
        loss.backward()
        total += loss.item()
    return total


def check(module: Any, tolerance: float = 1e-5, **how: Any) -> None:
    asked = texts()
    labels = labels_of(asked)
    plain = plain_sum(module, asked, labels)
    expected = gradients(module)
    layout = layout_of(module, share=True)
    assert layout.shared
    batches = pack(asked, layout, labels=labels, **{"length": 24, "tokens": 48, **how})
    assert sum(b.fed for b in batches) < 0.8 * sum(map(len, asked))
    assert shared_sum(module, batches) == pytest.approx(plain, rel=1e-6)
    assert_near(gradients(module), expected, tolerance)


# ------------------------------------------------------------------------------------------- loss and gradients


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_all_weights_have_the_gradients_of_single_sequences(architecture: str) -> None:
    check(made_of(architecture))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gpt2"])
def test_in_float32(architecture: str) -> None:
    module = tiny_module(WORDS, architecture).eval()
    check(module)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_have_them(architecture: str) -> None:
    check(adapter_of(architecture))


def test_several_batches_are_accumulated() -> None:
    module = made_of("llama")
    batches = pack(texts(), SHARED, length=10, tokens=20)
    assert len(batches) > 2
    check(module, length=10, tokens=20)


def test_the_mean_is_over_all_predicted_tokens_repeated_ones_included() -> None:
    module, asked = made_of("llama"), texts()
    (batch,) = pack(asked, SHARED, length=200, tokens=200)
    counted = sum(len(ids) - 1 for ids in asked)
    mean = causal_lm_loss(module, batch, finish=finish_of(module))
    assert mean.item() == pytest.approx(plain_sum(module, asked, asked) / counted, rel=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_under_gradient_checkpointing(architecture: str) -> None:
    module = made_of(architecture)
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    module.train()
    with checkpointed(module):
        check(module)


def test_losses_of_pairs() -> None:
    """A loss that compares sequences: the gradients of a shared prompt are differences."""
    module, prompts, ends = (
        made_of("llama"),
        [[9, 8, 7, 10, 11, 12]] * 2 + [[9, 8, 20, 21]] * 2,
        [[5, 6], [7], [8], [4, 9]],
    )
    found = []
    for layout in (SHARED, Layout("padding")):
        batches = sequence_nll.packed(prompts, ends, layout, 64)
        nll = sequence_nll.sequence_nll(module, batches, 4, finish_of(module))
        (-logsigmoid(0.3 * (nll[1::2] - nll[::2])).sum()).backward()
        found.append((nll.detach(), gradients(module), sum(b.fed for b in batches)))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-9)
    assert_near(found[0][1], found[1][1])
    assert found[0][2] == 6 + 1 + 2 + 1 and found[1][2] == 4 * 8


def test_divergence_from_a_teacher() -> None:
    student, teacher = made_of("llama"), tiny_module(WORDS, "llama", seed=5).double().eval()
    asked = texts()
    labels = labels_of(asked)
    (batch,) = pack(asked, SHARED, labels=labels, length=200, tokens=200)
    places, counts = batch.distinct()
    assert int(counts.sum()) == sum(x != IGNORED for row in labels for x in row[1:]) > len(places)
    with torch.no_grad():
        theirs = final_hidden(teacher, **batch.inputs).flatten(0, 1)[places]
    mine = final_hidden(student, **batch.inputs).flatten(0, 1)[places]
    heads = student.get_output_embeddings(), teacher.get_output_embeddings()
    value = chunked_kl(mine, heads[0], theirs, heads[1], weights=counts, reduction="sum", chunk=4)
    value.backward()
    found, expected = gradients(student), 0.0
    for ids, row in zip(asked, labels, strict=True):
        kept = [n for n, x in enumerate(row[1:]) if x != IGNORED]
        with torch.no_grad():
            given = log_softmax(teacher(torch.tensor([ids])).logits[0, kept], -1)
        ours = log_softmax(student(torch.tensor([ids])).logits[0, kept], -1)
        loss = kl_div(ours, given, reduction="sum", log_target=True)
        loss.backward()
        expected += loss.item()
    assert value.item() == pytest.approx(expected, rel=1e-6)
    assert_near(found, gradients(student))


def test_without_sharing_every_state_is_distinct() -> None:
    asked = texts()
    (batch,) = pack(asked, Layout("positions"), length=200, tokens=200)
    places, counts = batch.distinct()
    assert (counts == 1).all() and len(places) == sum(len(ids) - 1 for ids in asked)
    assert (batch.labels.flatten()[places + 1] != IGNORED).all()


# --------------------------------------------------------------------------------------------- attention by parts

MASKED = ("gemma2",)
"""Whose attention is not torch's own, so that the mask itself is used."""


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Attention goes by parts also where these are small; how many each attention of a layer had."""
    seen: list[int] = []
    by_parts = trie_mask.attended_by_parts

    def counted(query: Tensor, key: Tensor, value: Tensor, parts: Any, scaling: float | None) -> Tensor:
        seen.append(len(parts))
        return by_parts(query, key, value, parts, scaling)

    monkeypatch.setattr(trie_mask, "attended_by_parts", counted)
    monkeypatch.setattr(trie_attention, "PART_CELLS", -(10**6))
    monkeypatch.setattr(stems, "SHORTEST", 4)
    monkeypatch.setattr(blocks, "ALONE", 8)
    return seen


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_by_parts_all_weights_have_the_gradients_of_single_sequences(architecture: str, attended: list[int]) -> None:
    check(made_of(architecture))
    assert bool(attended) == (architecture not in MASKED)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "opt"])
def test_by_parts_in_float32(architecture: str, attended: list[int]) -> None:
    """Without OPT, where the gradient of a key's bias is 0 but for rounding, so that it has no relative error."""
    check(tiny_module(WORDS, architecture).eval())
    assert bool(attended) == (architecture not in MASKED)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_by_parts_adapters_have_them(architecture: str, attended: list[int]) -> None:
    check(adapter_of(architecture))
    assert bool(attended) == (architecture not in MASKED)


def test_by_parts_under_gradient_checkpointing(attended: list[int]) -> None:
    """Each layer attends once more in the backward pass, in the same way."""
    module = made_of("llama").train()
    (batch,) = pack(texts(), SHARED, length=200, tokens=200)
    finish = finish_of(module)
    for wanted in (False, True):
        attended.clear()
        with checkpointed(module, wanted):
            causal_lm_loss(module, batch, finish=finish).backward()
        assert len(attended) == len(module.model.layers) * (2 if wanted else 1) and min(attended) > 1
        gradients(module)
    with checkpointed(module):
        check(module)


def test_by_parts_over_several_batches_and_in_another_dtype(attended: list[int]) -> None:
    check(made_of("llama"), length=10, tokens=20)
    module, asked = made_of("llama"), texts()
    plain = plain_sum(module, asked, asked)
    attended.clear()
    batches = pack(asked, SHARED._replace(dtype=torch.float32), length=200, tokens=200)
    assert shared_sum(module, batches) == pytest.approx(plain, rel=1e-6)
    assert attended, "a mask that is cast keeps its parts"


# ------------------------------------------------------------------------------------------ what is not shared


def test_a_mask_that_shows_siblings_would_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: attention to whatever stands before."""
    from evenhand.training import shared_prefixes

    module = made_of("llama")
    asked = texts()
    plain = plain_sum(module, asked, asked)
    monkeypatch.setattr(shared_prefixes, "_see", lambda seen, trie: seen.copy_(torch.ones_like(seen).tril()))
    wrong = shared_sum(module, pack(asked, SHARED, length=24, tokens=48))
    assert abs(wrong - plain) > 1e-4 * plain
    assert not layout_of(module).shared


def test_dropout_is_not_shared_unless_asked() -> None:
    plain, dropping = adapter_of("llama"), adapter_of("llama", 0.1)
    assert layout_of(plain).shared and not layout_of(plain, share=False).shared
    assert not layout_of(dropping).shared and layout_of(dropping, share=True).shared
    assert not layout_of(plain, dropping).shared
    assert drops_out(made_of("gpt2")) and not layout_of(made_of("gpt2")).shared
    attention = made_of("llama")
    attention.model.layers[1].self_attn.attention_dropout = 0.2
    assert not layout_of(attention).shared


def test_models_that_cannot_be_masked_keep_their_layout() -> None:
    small = {"vocab_size": WORDS, "hidden_size": 32, "n_layer": 2, "n_head": 4}
    bloom = AutoModelForCausalLM.from_config(AutoConfig.for_model("bloom", **small)).eval()
    assert layout_of(bloom, share=True) == Layout("padding")


def test_sequences_that_share_little_are_packed_as_before() -> None:
    rng = random.Random(3)
    asked = [[0, *(rng.randrange(7, WORDS) for _ in range(n))] for n in (30, 25, 40, 33)]
    for found, expected in zip(pack(asked, SHARED), pack(asked, Layout("positions")), strict=True):
        assert found.inputs.keys() == expected.inputs.keys()
        assert torch.equal(found.labels, expected.labels) and torch.equal(found.owner, expected.owner)


def test_sequences_beyond_a_window_go_alone() -> None:
    asked = [[7, 8, 9, 10, 11, 12], [7, 8, 9, 10, 13], [7, 8, 9, 10, 14]]
    alone, shared = pack(asked, SHARED._replace(limit=5))
    assert alone.fed == 6 and set(alone.owner.unique().tolist()) == {0}
    assert shared.fed == 4 and set(shared.owner.unique().tolist()) == {1, 2}


def test_nothing_predicted_is_fed_as_before() -> None:
    asked = [[7, 8, 9]] * 3
    (batch,) = pack(asked, SHARED, labels=[[IGNORED] * 3] * 3)
    assert batch.fed == 9 and (batch.labels == IGNORED).all()


def test_a_mask_of_another_dtype_is_cast() -> None:
    """A float32 mask, of a layout that a float32 student shares, on a model in float64: torch would misread it."""
    module, asked = made_of("llama"), texts()
    batches = pack(asked, SHARED._replace(dtype=torch.float32), length=200, tokens=200)
    assert shared_sum(module, batches) == pytest.approx(plain_sum(module, asked, asked), rel=1e-6)


# ----------------------------------------------------------------------------------------------- what is fed


def test_each_token_of_the_trie_is_fed_once_and_the_last_ones_not_at_all() -> None:
    """Four letters after a prompt of four tokens, and another prompt that shares two of them."""
    module, seen = made_of("llama"), []
    module.get_input_embeddings().register_forward_pre_hook(lambda _, given: seen.append(given[0].tolist()))
    layout = layout_of(module)
    seen.clear()
    asked = [[1, 2, 3, 4, letter] for letter in (5, 6, 7, 8)] + [[1, 2, 9, 5]]
    batches = pack(asked, layout, labels=[[IGNORED] * (len(ids) - 1) + ids[-1:] for ids in asked])
    for batch in batches:
        causal_lm_loss(module, batch, finish=lambda x: x)
    assert seen == [[[1, 2, 3, 4, 9]]]
    (batch,) = batches
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 2]]
    sees = batch.inputs["attention_mask"][0, 0] == 0
    assert [row.nonzero().flatten().tolist() for row in sees] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4]]


def test_the_head_reads_each_state_once() -> None:
    module, rows = made_of("llama"), []
    layout, finish = layout_of(module), finish_of(module)
    asked = [[1, 2, 3, 4, n] for n in (5, 6, 5, 7)]
    (batch,) = pack(asked, layout)
    module.get_output_embeddings().register_forward_hook(lambda _, given, __: rows.append(given[0].shape))
    causal_lm_loss(module, batch, finish=finish)
    assert [shape[-2] for shape in rows] == [1, 4], "transformers' own call for the last place, and one for 16 targets"


def test_what_a_loss_looks_at() -> None:
    asked = [[1, 2, 3, 4, 5], [1, 2, 3, 6, 7]]
    labels = [[1, IGNORED, IGNORED, 4, 5], [IGNORED, 2, IGNORED, 6, IGNORED]]
    (batch,) = pack(asked, SHARED, labels=labels)
    assert batch.owner.tolist() == [[1, 1, 1, 1, 0, 0, 0]], "in the order of the trie"
    assert batch.labels.tolist() == [[IGNORED, 2, IGNORED, 6, IGNORED, 4, 5]]
    fed = batch.inputs["input_ids"].flatten()
    before = fed[batch.inputs["nodes"][0, :-1]]
    assert before[batch.labels[0, 1:] != IGNORED].tolist() == [1, 3, 3, 4]


def test_needed_ends_where_nothing_more_is_predicted() -> None:
    found = needed([[1, 2, 3], [4, 5], [6]], [[1, 2, IGNORED], [IGNORED] * 2, [6]], IGNORED, [0, 1, 2])
    assert found.ids == [[1]] and found.which == [0]


def test_tries_keep_within_their_room_and_part_where_nothing_is_shared() -> None:
    rng = random.Random(2)
    beginnings = [[rng.randrange(1000) for _ in range(30)] for _ in range(3)]
    asked = [start + [n] * 4 for start in beginnings for n in range(2000, 2008)]
    found = tries(asked, 50)
    assert sorted(row for trie in found for row in trie.rows) == list(range(len(asked)))
    assert [len(trie.tokens) for trie in found] == [50, 42] * 3
    assert [len(trie.tokens) for trie in tries(asked, 500)] == [62] * 3
    assert [len(trie.tokens) for trie in tries([[1, 2, 3], [1, 2, 3]], 1)] == [3], "one that adds nothing always fits"


def test_tries_are_shorter_where_attention_is_kept_as_a_whole() -> None:
    assert longest_trie(256, 2048, eager=False) == 2048
    assert longest_trie(256, 2048, eager=True) == 724, "as many cells as eight rows of 256"
    assert longest_trie(256, 128, eager=True) == 128


# ---------------------------------------------------------------------------------------------- in a training


def fine_tuned(fit: str, share: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, int]:
    model, fed = tiny_model(), [0]
    module, tokenizer = model.weights.module, model.weights.tokenizer
    things = [f"there was a little {a} and a big {b}" for a in ("dog", "cat") for b in ("dog", "cat", "day")]
    examples: Any = _fine_tuning.text_examples(things, tokenizer, 32)
    examples += _fine_tuning.text_examples([f"once upon a time {t}" for t in things[:4]], tokenizer, 32, kept=True)
    schedule = Schedule(epochs=3, learning_rate=3e-3, patience=0, device="cpu", gradient_accumulation_steps=2)
    plan = _fine_tuning.Plan(fit, Adapter(2, 4), 5, 64, 1.0, schedule)  # type: ignore[arg-type]

    def counted(*given: Any, **named: Any) -> list[Batch]:
        found = packing.pack(*given, **named)
        fed[0] += sum(b.fed for b in found)
        return found

    monkeypatch.setattr(_fine_tuning, "pack", counted)
    monkeypatch.setattr(_fine_tuning, "layout_of", lambda tuned: layout_of(tuned, share=share))
    return _fine_tuning.fit(module, examples, examples[:3], plan, None, "fine-tuning"), fed[0]


@pytest.mark.parametrize("fit", ["lora", "full"])
def test_a_training_of_several_epochs_takes_the_same_way(fit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (shared, few), (before, many) = (fine_tuned(fit, share, monkeypatch) for share in (True, False))
    assert few < 0.7 * many
    assert shared.vector.norm() == pytest.approx(before.vector.norm(), rel=1e-5)
    curves = shared.training["curve"], before.training["curve"]
    assert curves[0][0]["held_out_loss"] - curves[0][-1]["held_out_loss"] > 0.05
    for row, expected in zip(*curves, strict=True):
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-5)
