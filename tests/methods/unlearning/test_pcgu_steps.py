"""What one step does, what an edit is, and that a run goes on where it was killed."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from evenhand.errors import ContextTooLongError, DataError, EvenhandError, SettingsError
from evenhand.interfaces import Dialogue, Message, Pair
from evenhand.methods.unlearning._pairs import Side, TokenPair, encoded, read_texts
from evenhand.methods.unlearning._pcgu.delta import Delta, between, combined
from evenhand.methods.unlearning._pcgu.fsdp import World
from evenhand.methods.unlearning._pcgu.gradients import Scoring, of_scores, scores, shares_of
from evenhand.methods.unlearning._pcgu.partition import partition
from evenhand.methods.unlearning._pcgu.updates import BEST, CHECKPOINT, Plan, Unlearning, forget
from evenhand.methods.unlearning.pcgu import PCGU
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.training.holding_out import hold_out

TEXTS = ("the nurse said that he was late", "the nurse said that she was here")
WORDS = 41


def module(architecture: str = "gpt2") -> Any:
    made = tiny_module(WORDS, architecture)
    for p in made.parameters():  # biases and norms as unlike as everything else
        if p.dim() == 1:
            p.data += torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) / 10
    return made


def pairs(count: int, words: int = WORDS, hidden: int | None = None) -> list[TokenPair]:
    """Texts of unequal lengths; `hidden` is a mask token."""
    random, out = Random(7), []
    for _ in range(count):
        head = [random.randrange(words) for _ in range(random.randrange(2, 9))]
        one, other = random.sample(range(words), 2)
        at = len(head) - (hidden is None)
        sides = [Side((*head, t if hidden is None else hidden), (at,), (t,)) for t in (one, other)]
        out.append(TokenPair(sides[0], sides[1], "age"))
    return out


def unlearning(
    base: Any,
    some: list[TokenPair],
    how: Scoring = Scoring(causal=True),  # noqa: B008
    folder: Path | None = None,
    axis: Any = "row",
    **more: Any,
) -> Unlearning:
    edited = copy.deepcopy(base).float()
    held = more.pop("held_out", ())
    given = {"epochs": 1, "learning_rate": 0.1, "batch": 8, "micro": 3, "direction": "decrease_advantaged", **more}
    return Unlearning(
        module=edited,
        base=base,
        parts=partition(edited, axis),
        pairs=some,
        held_out=held,
        how=how,
        plan=Plan(**given),
        world=World(edited),
        folder=folder,
        retained=[p.advantaged for p in some],
    )


def weights(of: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in of.named_parameters()}


# ------------------------------------------------------------------------------------------------- a step


@pytest.mark.parametrize(
    ("direction", "on", "off"),
    [
        ("decrease_advantaged", 1.0, 0.0),
        ("increase_disadvantaged", 0.0, -1.0),
        ("both", 1.0, -1.0),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_all_vectors_make_a_plain_step_of_gradient_descent(
    direction: Any, on: float, off: float, reduction: Any
) -> None:
    base, some = module(), pairs(8)
    run = unlearning(base, some, direction=direction, reduction=reduction, share=1.0, zero_rows="kept")
    run.step(some)
    plain = copy.deepcopy(base)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    total = torch.zeros(())
    for pair in some:  # one text at a time: no padding, no micro-batches
        for side, sign in ((pair.advantaged, on), (pair.disadvantaged, off)):
            logits = plain(torch.tensor([side.ids])).logits[0, side.places[0]]
            total = total + sign * torch.log_softmax(logits, -1)[side.tokens[0]]
    (total / (len(some) if reduction == "mean" else 1)).backward()
    optimizer.step()
    for name, p in run.module.named_parameters():
        assert torch.allclose(p, plain.get_parameter(name), atol=2e-6 if reduction == "mean" else 1e-5), name
    assert any(not torch.equal(p, base.get_parameter(n)) for n, p in plain.named_parameters())


@pytest.mark.parametrize("more", [{"k": 0}, {"share": 0.0}])
def test_no_vectors_leave_every_bit_as_it_was(more: dict[str, Any]) -> None:
    base, some = module(), pairs(5)
    run = unlearning(base, some, retain=1.0, **more)
    made = run.run()
    assert made is not None and made.size == 0 and not made.vectors
    for name, p in run.module.named_parameters():
        assert torch.equal(p, base.get_parameter(name))


@pytest.mark.parametrize("axis", ["row", "column"])
@pytest.mark.parametrize("retain", [0.0, 3.0])
def test_only_the_chosen_vectors_are_touched_bit_for_bit(axis: Any, retain: float) -> None:
    base, some = module(), pairs(6)
    base.transformer.wte.weight.data[3] = -0.0  # a zero's sign is a bit, too
    run = unlearning(base, some, axis=axis, k=20, retain=retain)
    run.step(some)
    touched = 0
    for part in run.parts:
        old, new = base.get_parameter(part.name), run.module.get_parameter(part.name)
        views = [t.detach().permute((*part.kept, *part.over)).reshape(part.count, -1) for t in (old, new)]
        same = [torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(*views, strict=True)]
        touched += same.count(False)
    assert touched == 20 == sum(run.seen.state()["chosen"])


def test_two_equal_texts_have_cosines_of_one_everywhere() -> None:
    base = module()
    some = [TokenPair(p.advantaged, p.advantaged, "") for p in pairs(5)]
    run = unlearning(base, some)
    run.step(some)
    facts = run.seen.facts()
    assert facts["cosines"][:-1] == [0] * 19 and facts["cosines"][-1] > 100  # type: ignore[index]


def test_the_weight_of_a_text_does_not_hang_on_its_micro_batch() -> None:
    base, some = module(), [p.advantaged for p in pairs(8)]
    found = []
    for micro in (3, 8, 1):  # 3, 3 and 2 texts; all; each alone
        grads, value = of_scores(base, some, Scoring(causal=True), World(base), micro=micro, reduction="mean")
        found.append((grads, value))
    for grads, value in found[1:]:
        assert value == pytest.approx(found[0][1], rel=1e-5)
        assert all(torch.allclose(g, found[0][0][name], atol=1e-6) for name, g in grads.items())
    assert all(p.grad is None for p in base.parameters())


def test_vectors_without_gradient_take_the_place_of_others_unless_masked() -> None:
    """The trap of the released code: most of what it edits on a small set is rows of words that no text has."""
    base, some = tiny_module(900, "llama"), pairs(4)  # untied: an input row has a gradient where its word stands
    seen = {}
    for zero_rows in ("kept", "masked"):
        run = unlearning(base, some, zero_rows=zero_rows, k=600)
        run.step(some)
        made, seen[zero_rows] = run.delta(), run.seen.facts()
        assert made is not None
        chosen = sum(run.seen.state()["chosen"])
        assert made.size == chosen - round(chosen * float(str(seen[zero_rows]["zero_share_of_chosen"])))
    assert seen["masked"]["zero_share_of_chosen"] == 0.0
    assert seen["masked"]["zero_share"] == seen["kept"]["zero_share"]
    assert seen["kept"]["zero_share_of_chosen"] > 0.4  # type: ignore[operator]


def test_a_step_lowers_the_log_odds_and_the_gate_spares_pairs_that_are_even() -> None:
    base = module()
    some = sorted(pairs(12), key=lambda p: float(_odds(base, [p])[0]))
    low, high = some[:6], some[6:]
    assert float(_odds(base, low).max()) < 0 < float(_odds(base, high).min())
    run = unlearning(base, some, gate=True, direction="both")
    assert run._leaning(some) == high
    run.step(some)
    alone = unlearning(base, high, direction="both")
    alone.step(high)
    assert all(torch.equal(p, alone.module.get_parameter(n)) for n, p in run.module.named_parameters())
    assert _odds(run.module, high).mean() < _odds(base, high).mean() - 0.05
    unmoved = unlearning(base, low, gate=True)
    unmoved.step(low)
    assert all(torch.equal(p, base.get_parameter(n)) for n, p in unmoved.module.named_parameters())


def _odds(of: Any, some: list[TokenPair], how: Scoring = Scoring(causal=True)) -> torch.Tensor:  # noqa: B008
    with torch.no_grad():
        return scores(of, [p.advantaged for p in some], how) - scores(of, [p.disadvantaged for p in some], how)


def test_retaining_holds_what_is_retained() -> None:
    base, some = module(), pairs(8)
    apart = [Side(tuple(reversed(p.advantaged.ids)), p.advantaged.places, (1,)) for p in pairs(16)[8:]]
    found = []
    for retain in (0.0, 2.0):
        run = unlearning(base, some, epochs=3, share=1.0, retain=retain, learning_rate=0.1)
        run.retained = apart
        run.run()
        with torch.no_grad():
            was, now = (scores(m, apart, Scoring(causal=True)) for m in (base, run.module))
        found.append(float((was - now).abs().mean()))
    assert found[1] < 0.7 * found[0]


def test_measures_of_a_score() -> None:
    base, side = module(), Side((3, 5, 7, 9), (1, 2), (7, 9))
    logits = base(torch.tensor([side.ids])).logits[0, [1, 2]].detach()
    values = torch.log_softmax(logits, -1)[[0, 1], [7, 9]]
    found = {}
    for measure, per in product(("logprob", "logit", "probability"), (False, True)):
        how = Scoring(causal=True, measure=measure, per_token=per)
        with torch.no_grad():
            found[measure, per] = float(scores(base, [side, Side((1,), (0,), (2,))], how)[0])
    assert found["logprob", False] == pytest.approx(float(values.sum()), abs=1e-5)
    assert found["logprob", True] == pytest.approx(float(values.mean()), abs=1e-5)
    assert found["logit", False] == pytest.approx(float(logits[[0, 1], [7, 9]].sum()), abs=1e-5)
    assert found["probability", False] == pytest.approx(float(values.sum().exp()), rel=1e-4)


def test_masked_models_are_edited_alike() -> None:
    torch.manual_seed(0)
    base = BertForMaskedLM(
        BertConfig(
            vocab_size=WORDS,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=32,
            hidden_dropout_prob=0.5,
        )
    ).eval()
    some = pairs(8, hidden=4)
    run = unlearning(base, some, Scoring(causal=False), direction="both", epochs=3, learning_rate=0.5)
    run.module.train()  # dropout would show in the odds of two runs
    made = run.run()
    again = unlearning(base, some, Scoring(causal=False), direction="both", epochs=3, learning_rate=0.5)
    again.run()
    assert all(torch.equal(p, again.module.get_parameter(n)) for n, p in run.module.named_parameters())
    odds = [float(_odds(m, some, Scoring(causal=False)).mean()) for m in (base, run.module)]
    assert odds[1] < odds[0] - 0.05 and made is not None and 0 < made.size < run.parts.size


def side_of(length: int, seed: int = 0) -> Side:
    """A text of which every token but the first is scored."""
    ids = tuple(Random(f"{seed}/{length}").randrange(WORDS) for _ in range(length))
    return Side(ids, tuple(range(length - 1)), ids[1:])


def test_pooled_texts_count_by_their_tokens() -> None:
    """Of 10 and 31 scored tokens in one group every token counts 1/41; in groups of their own 1/10 and 1/31."""
    sides = [side_of(11), side_of(32)]
    whole, each = (Scoring(causal=True, per_token=per_token) for per_token in (False, True))
    assert shares_of(sides, whole, "pooled", 2) == [1 / 41, 1 / 41]
    assert shares_of(sides, each, "pooled", 2) == [10 / 41, 31 / 41]
    assert shares_of(sides, whole, "pooled", 1) == [1 / 10, 1 / 31]
    assert shares_of(sides, whole, "mean", 2) == [0.5, 0.5] and shares_of(sides, whole, "sum", 2) == [1, 1]


@pytest.mark.parametrize("micro", [1, 2, 3, 6])
def test_the_pooled_gradient_is_the_sum_of_the_mean_losses_of_transformers(micro: int) -> None:
    """As the released loop accumulates it: `outputs.loss` of a padded batch, backward, gradients added."""
    base, sides = module("llama"), [side_of(n, n) for n in (11, 32, 5, 9, 20)]
    plain = copy.deepcopy(base)
    total = torch.zeros(())
    for group in (sides[:2], sides[2:4], sides[4:]):
        longest = max(len(s.ids) for s in group)
        ids = torch.tensor([[*s.ids, *[0] * (longest - len(s.ids))] for s in group])
        mask = torch.tensor([[1] * len(s.ids) + [0] * (longest - len(s.ids)) for s in group])
        total = total - plain(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
    total.backward()
    found, value = of_scores(base, sides, Scoring(causal=True), World(base), micro=micro, reduction="pooled", pool=2)
    assert value == pytest.approx(float(total.detach()), rel=1e-5)
    for name, grad in found.items():
        torch.testing.assert_close(grad, plain.get_parameter(name).grad, rtol=1e-3, atol=1e-6)


def test_pairs_come_in_the_order_of_the_data_and_the_last_may_make_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    base, some = module(), pairs(22)
    taken: list[list[TokenPair]] = []
    for drop_last, sizes in ((False, [8, 8, 6]), (True, [8, 8])):
        run = unlearning(base, some, shuffle=False, drop_last=drop_last, pool=2)
        monkeypatch.setattr(run, "step", lambda batch, _: taken.append(list(batch)) or 0.0)
        taken.clear()
        run._epoch(0)
        run._epoch(1)
        assert [len(batch) for batch in taken] == sizes * 2
        assert [p for batch in taken for p in batch] == some[: sum(sizes)] * 2


def test_a_last_group_that_is_not_full_counts_as_one() -> None:
    """15,678 pairs in groups of 16 are 980 groups, 30 steps of 32 groups and 20 groups that make none."""
    plan = Plan(epochs=1, learning_rate=1.0, batch=512, micro=16, drop_last=True, pool=16)
    steps = [plan.fills(min(512, 15_678 - start)) for start in range(0, 15_678, 512)]
    assert (steps.count(True), steps.count(False)) == (30, 1)
    assert plan.fills(497) and not plan.fills(496)  # 32 groups, and 31
    assert Plan(epochs=1, learning_rate=1.0, batch=512, micro=16).fills(1)


@pytest.mark.parametrize(("count", "batch", "steps"), [(240, 64, 4), (128, 64, 2), (129, 64, 3), (5, 64, 1)])
def test_the_masked_code_makes_a_step_of_the_last_batch_too(
    count: int, batch: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 240 Winogender pairs three steps of 64 and one of 48: every batch of the DataLoader reaches sim_batch_size."""
    preset = PCGU.build(preset="released_masked")
    assert (preset.batch_size, preset.drop_last) == (batch, False)
    some, run = pairs(1) * count, unlearning(module(), pairs(1))
    monkeypatch.setattr(run, "plan", preset._plan())
    monkeypatch.setattr(run, "pairs", some)
    taken: list[int] = []
    monkeypatch.setattr(run, "step", lambda batch, _: taken.append(len(batch)) or 0.0)
    run._epoch(0)
    assert len(taken) == steps and sum(taken) == count and max(taken) <= batch
    causal = replace(PCGU.build(preset="released")._plan(), batch=batch)
    monkeypatch.setattr(run, "plan", causal)
    taken.clear()
    run._epoch(0)
    assert len(taken) == count // batch + (count % batch > batch - causal.pool), "the causal code drops what is less"


def test_checkpoints_of_plans_without_the_later_fields_go_on() -> None:
    run = unlearning(module(), pairs(4))
    assert not {"pool", "eps", "shuffle", "drop_last"} & run._identity[0].keys()
    assert unlearning(module(), pairs(4), shuffle=False)._identity[0]["shuffle"] is False


# ------------------------------------------------------------------------------------------------- an edit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("axis", ["row", "column"])
def test_an_edit_put_on_and_taken_off_leaves_every_bit(dtype: torch.dtype, axis: Any, tmp_path: Path) -> None:
    base = module().to(dtype)
    run = unlearning(base, pairs(8), axis=axis)
    made = run.run()
    assert made is not None and 0 < made.size < run.parts.size
    made.save(tmp_path / "delta.safetensors")
    made = Delta.load(tmp_path / "delta.safetensors")
    there = copy.deepcopy(base)
    made.apply(there)
    assert any(not torch.equal(p, base.get_parameter(n)) for n, p in there.named_parameters())
    for name, p in there.named_parameters():
        assert torch.equal(p, run.module.get_parameter(name).to(dtype)), name
    with pytest.raises(SettingsError, match="not as it was"):
        made.apply(there)
    made.remove(there)
    for name, p in there.named_parameters():
        assert torch.equal(p.view(torch.int16), base.get_parameter(name).view(torch.int16)), name
    with pytest.raises(SettingsError, match="does not have this edit"):
        made.remove(there)


def test_small_steps_are_not_swallowed_by_half_precision() -> None:
    base = module().to(torch.bfloat16)
    run = unlearning(base, pairs(8), learning_rate=1e-5, epochs=2)
    made = run.run()
    assert made is not None and all(v.change.abs().max() > 0 for v in made.vectors.values())
    there = copy.deepcopy(base)
    made.apply(there)  # one such step is nothing in bfloat16: the edit still knows it


def test_edits_add_up_and_one_of_them_comes_off_again() -> None:
    base, every = module(), pairs(16)
    one, other = (unlearning(base, some, k=40).run() for some in (every[:8], every[8:]))
    assert one is not None and other is not None
    both = combined([one, other])
    there = copy.deepcopy(base)
    both.apply(there)
    for name, p in there.named_parameters():
        total = base.get_parameter(name).detach().clone()
        for d in (one, other):
            alone = copy.deepcopy(base)
            d.apply(alone)
            total += alone.get_parameter(name).detach() - base.get_parameter(name).detach()
        assert torch.allclose(p, total, atol=1e-6), name
    both.remove(there)
    assert all(torch.equal(p, base.get_parameter(n)) for n, p in there.named_parameters())
    combined([one, other], [1.0, 0.0]).apply(there)
    one.remove(there)  # the other counts nothing
    columns = unlearning(base, every[:8], axis="column").run()
    assert columns is not None
    with pytest.raises(SettingsError, match="rows in one of them"):
        combined([one, columns])


def test_edits_of_different_models_do_not_add_up() -> None:
    base, other = module(), module()
    other.transformer.h[0].mlp.c_fc.weight.data += 1
    some = [unlearning(b, pairs(8), share=1.0).run() for b in (base, other)]
    with pytest.raises(SettingsError, match="different weights"):
        combined([d for d in some if d is not None])


def test_a_known_difference_is_the_edit() -> None:
    layer = torch.nn.Linear(2, 4)
    parts = partition(layer)
    old = [p.detach().clone() for p in layer.parameters()]
    new = [p.clone() for p in old]
    new[0][2] = torch.tensor([9.0, -9.0])
    made = between(parts, old, new, {"why": "test"})
    assert made.size == 1 and made.vectors["weight"].index.tolist() == [2] and made.facts == {"why": "test"}
    made.apply(layer, scale=0.5)
    assert layer.weight[2].tolist() == pytest.approx(((old[0][2] + new[0][2]) / 2).tolist())
    made.remove(layer, scale=0.5)
    assert torch.equal(layer.weight, old[0])


def test_broken_files_of_edits_are_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing")
    for name in ("x", "absent"):
        with pytest.raises(EvenhandError, match=name):
            Delta.load(tmp_path / name)


# ------------------------------------------------------------------------------------------------- a run


def test_a_killed_run_goes_on_and_ends_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, some = module().to(torch.bfloat16), pairs(20)
    options: dict[str, Any] = {"epochs": 4, "held_out": some[:4], "learning_rate": 0.02, "direction": "both"}
    whole = unlearning(base, some[4:], **options)
    whole._finished = lambda: whole._done >= 4  # type: ignore[method-assign]
    expected = whole.run()
    killed = unlearning(base, some[4:], folder=tmp_path, **options)
    epoch = killed._epoch

    def stops(number: int) -> float:
        if number == 2:
            raise KeyboardInterrupt
        return epoch(number)

    monkeypatch.setattr(killed, "_epoch", stops)
    killed._finished = lambda: False  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    again = unlearning(base, some[4:], folder=tmp_path, **options)
    again._finished = lambda: again._done >= 4  # type: ignore[method-assign]
    counted = []
    monkeypatch.setattr(again, "_epoch", lambda n: (counted.append(n), Unlearning._epoch(again, n))[1])
    found = again.run()
    assert counted == [2, 3] and again.curve == whole.curve and again.seen.facts() == whole.seen.facts()
    assert expected is not None and found is not None and found.vectors.keys() == expected.vectors.keys()
    for name, v in expected.vectors.items():
        assert torch.equal(found.vectors[name].change, v.change) and torch.equal(found.vectors[name].index, v.index)
    other = unlearning(base, some[4:], folder=tmp_path, **{**options, "learning_rate": 0.03})
    with pytest.raises(SettingsError, match="another run"):
        other.run()
    forget(tmp_path)
    assert not (tmp_path / CHECKPOINT).exists() and not (tmp_path / BEST).exists()


def test_a_damaged_checkpoint_is_moved_aside_and_one_of_an_earlier_version_is_continued_from(tmp_path: Path) -> None:
    base, some = module(), pairs(12)
    options: dict[str, Any] = {"epochs": 3, "learning_rate": 0.02, "direction": "both"}
    whole = unlearning(base, some, **options).run()
    unlearning(base, some, folder=tmp_path, **options).run()
    (last,) = tmp_path.iterdir()
    assert last.name == "checkpoint-00003"
    assert {f.name for f in last.iterdir()} == {CHECKPOINT, BEST, "checksums.sha256"}
    content = (last / BEST).read_bytes()
    (last / BEST).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = unlearning(base, some, folder=tmp_path, **options)
    with pytest.warns(UserWarning, match=rf"checkpoint-00003 is damaged \({BEST}"):
        found = again.run()
    assert whole is not None and found is not None and again.curve[0]["epoch"] == 1
    for name, v in whole.vectors.items():
        assert torch.equal(found.vectors[name].change, v.change)
    for name in (CHECKPOINT, BEST):
        (tmp_path / "checkpoint-00003" / name).rename(tmp_path / name)
    shutil.rmtree(tmp_path / "checkpoint-00003")
    earlier = unlearning(base, some, folder=tmp_path, **options)
    assert earlier._resume() is not None and earlier._done == 3
    forget(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_epoch_is_kept_whose_held_out_pairs_are_nearest_to_even() -> None:
    base, some = module(), pairs(20)
    lean = [p for p in some if float(_odds(base, [p])[0]) > 0]
    run = unlearning(base, lean, held_out=lean, epochs=30, direction="both", learning_rate=0.05, batch=4)
    made = run.run()
    gaps = [row["gap"] for row in run.curve]
    assert gaps[0] > 0.3 and len(gaps) < 31 and gaps[-1] <= 0 < gaps[-2]
    assert run.best == len(gaps) - 2 and made is not None  # and not the last, which has gone too far
    there = copy.deepcopy(base)
    made.apply(there)
    assert float(_odds(there, lean).mean()) == pytest.approx(gaps[-2], abs=1e-5)


def test_pairs_are_divided_by_text() -> None:
    some = pairs(20) * 2
    train, held = hold_out(some, lambda p: p.texts, 0.2, 0)
    assert len(held) == 8 and len(train) == 32
    assert not {p.advantaged.ids for p in train} & {p.advantaged.ids for p in held}
    assert hold_out(some, lambda p: p.texts, 0.0, 0) == (some, [])
    with pytest.raises(SettingsError, match="divided"):
        hold_out(some[:1], lambda p: p.texts, 0.5, 0)


# ------------------------------------------------------------------------------------------------- pairs


def test_the_target_is_what_two_texts_do_not_begin_with_in_common() -> None:
    words = tiny_tokenizer(TEXTS, chat=False)
    token = {word: words.convert_tokens_to_ids(word) for word in ("he", "she", "was", "late")}
    prompt = "the nurse said"
    some = [Pair(" that he was late", " that she was late", prompt, suffix=" the"), Pair(" he", " he was", prompt)]
    first, second = encoded(some, words, causal=True, context=99)
    assert first.advantaged.tokens == (token["he"], token["was"], token["late"])
    assert first.disadvantaged.tokens == (token["she"], token["was"], token["late"])
    assert [first.advantaged.ids[p + 1] for p in first.advantaged.places] == list(first.advantaged.tokens)
    assert second.advantaged.tokens == (token["he"],) and second.disadvantaged.tokens == (token["was"],)
    whole = encoded(some, words, causal=True, target="sequence", context=99)[0].advantaged
    assert len(whole.tokens) == len(whole.ids) - 1 == 8


def test_texts_without_special_tokens_are_cut_where_the_released_code_cuts_them() -> None:
    words = tiny_tokenizer(TEXTS, chat=False)
    words.add_special_tokens({"mask_token": "<mask>"})
    pair = Pair(" he", " she", "the nurse said that", " was late")
    given: dict[str, Any] = {"context": 6, "special": False, "truncate": True}
    (causal,) = encoded([pair], words, causal=True, target="sequence", **given)
    assert list(causal.advantaged.ids) == words.convert_tokens_to_ids(["the", "nurse", "said", "that", "he", "was"])
    assert causal.advantaged.tokens == causal.advantaged.ids[1:] and causal.advantaged.places == (0, 1, 2, 3, 4)
    (masked,) = encoded([pair], words, causal=False, **given)
    shown = ["the", "nurse", "said", "that", "<mask>", "was"]
    assert list(masked.disadvantaged.ids) == words.convert_tokens_to_ids(shown)
    assert (masked.disadvantaged.places, masked.disadvantaged.tokens) == ((4,), (words.convert_tokens_to_ids("she"),))
    for is_causal in (True, False):  # the pronoun is the fifth token
        assert encoded([pair], words, causal=is_causal, context=4, special=False, truncate=True) == []
        assert len(encoded([pair], words, causal=is_causal, context=5, special=False, truncate=True)) == 1
    with pytest.raises(DataError, match="one token"):
        encoded([Pair("he", "she", id="p3")], words, causal=True, context=9, special=False)


def test_a_dialogue_is_answered_as_the_model_would_be_asked() -> None:
    words = tiny_tokenizer()
    asked = Dialogue((Message("user", "Who was there?"),))
    side = encoded([Pair("A", "B", asked)], words, causal=True, context=99)[0].advantaged
    turns = [{"role": "user", "content": "Who was there?"}]
    prompt = words.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    assert list(side.ids) == [*prompt, words.convert_tokens_to_ids("A")] and side.places == (len(prompt) - 1,)


def test_of_a_masked_model_the_named_words_are_hidden_and_nothing_else() -> None:
    words = tiny_tokenizer(TEXTS, chat=False)
    words.add_special_tokens({"mask_token": "<mask>"})
    pair = encoded([Pair("he", "she", "the nurse said that ", " was late")], words, causal=False, context=99)[0]
    he, she = words.convert_tokens_to_ids(["he", "she"])
    assert pair.advantaged.ids == pair.disadvantaged.ids and (he,) == pair.advantaged.tokens
    assert pair.disadvantaged.tokens == (she,)
    assert [pair.advantaged.ids[n] for n in pair.advantaged.places] == [words.mask_token_id]
    with pytest.raises(SettingsError, match="dialogue"):
        encoded([Pair("he", "she", Dialogue(()))], words, causal=False, context=99)


class Merging:
    """The words of a tokenizer, some merged across the end of a prompt: "wo" + "rld" is the token "world"."""

    def __init__(self) -> None:
        texts = [*TEXTS, "hello", "wo", "rld", "rk", "world", "rlds", "ly"]
        self.words = tiny_tokenizer(texts, chat=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.words, name)

    def __len__(self) -> int:
        return len(self.words)

    def __call__(self, texts: Any, **more: Any) -> Any:
        rows = [texts] if isinstance(texts, str) else list(texts)
        spaced = [r.replace("world", " world ").replace("work", "wo rk") for r in rows]
        return self.words(spaced[0] if isinstance(texts, str) else spaced, **more)


@pytest.mark.parametrize(
    ("stereotyped", "other", "targets"),
    [
        ("rld", "rk", (["world"], ["wo", "rk"])),  # the stereotyped text is merged with its prompt
        ("rk", "rld", (["wo", "rk"], ["world"])),
        ("rld he", "rld she", (["he"], ["she"])),  # both are, alike, and differ behind that
        ("rld", "rld he", (["world"], ["he"])),  # one is the beginning of the other
    ],
)
def test_a_target_that_is_merged_with_its_prompt_is_never_empty(
    stereotyped: str, other: str, targets: tuple[list[str], list[str]]
) -> None:
    words: Any = Merging()
    (found,) = encoded([Pair(stereotyped, other, "hello wo")], words, causal=True, context=99)
    for side, want in zip(found[:2], targets, strict=True):
        assert words.words.convert_ids_to_tokens(list(side.tokens)) == want
        assert list(side.places) == list(range(len(side.ids) - 1 - len(want), len(side.ids) - 1))


def test_pairs_that_cannot_be_used_are_named() -> None:
    words = tiny_tokenizer(TEXTS, chat=False)
    with pytest.raises(DataError, match="p1"):
        encoded([Pair("he", "he", id="p1")], words, causal=True, context=99)
    with pytest.raises(ContextTooLongError, match="p2"):
        encoded([Pair("he was late", "she", id="p2")], words, causal=True, context=3)


def test_texts_to_retain_are_read_everywhere_or_where_they_are_hidden() -> None:
    words = tiny_tokenizer(TEXTS, chat=False)
    words.add_special_tokens({"mask_token": "<mask>"})
    sides = read_texts([*TEXTS, ""], words, causal=True, most=6, seed=0)
    assert [len(s.ids) for s in sides] == [6, 6] and sides[0].places == (0, 1, 2, 3, 4)
    hidden = read_texts(TEXTS, words, causal=False, most=6, seed=0)
    for side in hidden:
        assert [side.ids[n] for n in side.places] == [words.mask_token_id] * len(side.places) and side.places
