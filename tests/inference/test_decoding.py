"""Generation over a tree of prompts: equal to a plain loop, sharing counted, and what was read stays between turns."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from evenhand import interfaces as eh
from evenhand.errors import EvenhandError
from evenhand.inference import Engine, Prompt, Request, memory_budget
from evenhand.inference import engine as inside
from evenhand.inference.decoding import Decoder
from evenhand.inference.support_probe import Tried
from evenhand.models.tiny import ARCHITECTURES, tiny_model, tiny_module, tiny_tokenizer
from evenhand.prompting.sessions import conversation

ENDS = [2, *range(5, 200, 6)]
"""So many tokens end a reply that random models end some soon and some late."""
STEPS = eh.Sampling(max_new_tokens=9)


def prompts(count: int = 14) -> list[Prompt]:
    """Texts of many lengths, some with a common beginning, one the beginning of another."""
    rng = random.Random(0)
    trunk = tuple(rng.randrange(7, 60) for _ in range(12))
    made = [trunk[: rng.randrange(1, 12)] + tuple(rng.randrange(7, 60) for _ in range(n % 6)) for n in range(count)]
    return [Prompt(ids) for ids in dict.fromkeys([*made, trunk, (9,)])]


def engine_of(architecture: str = "llama", batch_tokens: int | None = None) -> Engine:
    engine = tiny_model(architecture, batch_tokens=batch_tokens).engine
    assert engine.module.generation_config is not None
    engine.module.generation_config.eos_token_id = ENDS
    return engine


def plain_loop(
    module: PreTrainedModel, ids: Sequence[int], steps: int, beside: Sequence[Sequence[int]] = ()
) -> list[int]:
    """Greedy, one full forward a step; what stands beside is averaged in."""
    new: list[int] = []
    with torch.inference_mode():
        while len(new) < steps:
            logits = [module(torch.tensor([[*text, *new]])).logits[0, -1].float() for text in (ids, *beside)]
            token = int(torch.stack(logits).mean(0).argmax())
            if token in ENDS:
                break
            new.append(token)
    return new


def mean(logits: torch.Tensor) -> torch.Tensor:
    return logits.mean(1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget_", [1, 60, 4096])
def test_rows_that_come_and_go_equal_a_plain_loop(architecture: str, budget_: int) -> None:
    engine, asked = engine_of(architecture, budget_), prompts()
    made = engine.generate(asked, STEPS, "f")
    assert [list(m.ids) for m in made] == [plain_loop(engine.module, p.ids, 9) for p in asked]
    assert engine.tried.continues
    assert len({len(m.ids) for m in made}) > 1, "all end at once: nobody leaves before the others"


def test_equal_under_an_adapter_and_a_soft_cap() -> None:
    from peft import LoraConfig, get_peft_model

    config = AutoConfig.for_model(
        "gemma2",
        vocab_size=60,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=2.0,
        attn_logit_softcapping=1.0,
        sliding_window=99,
        bos_token_id=1,
        eos_token_id=ENDS,
        pad_token_id=0,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config).float().eval()
    module = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    engine = Engine(module, tiny_tokenizer())
    made = engine.generate(prompts(), STEPS, "f")
    assert [list(m.ids) for m in made] == [plain_loop(module, p.ids, 9) for p in prompts()]
    assert engine.tried.continues


def test_shared_beginnings_are_read_once_and_ended_rows_cost_nothing() -> None:
    engine = engine_of()
    trunk = tuple(range(7, 27))
    asked = [Prompt((*trunk, 30 + n)) for n in range(4)]
    made = engine.generate(asked, STEPS, "f")
    fed = [min(len(m.ids), 8) for m in made]  # the last of nine tokens is not fed, nor is an end
    assert engine.tokens == 20 + 4 + sum(fed)
    assert engine.forwards == 1 + max(fed)


def test_samples_equal_those_of_transformers_own_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = eh.Sampling(temperature=1.0, top_p=0.9, max_new_tokens=7, seed=3)
    asked = [Prompt(p.ids, draw) for p in prompts() for draw in range(3)]
    ours = engine_of(batch_tokens=100).generate(asked, sampling, "f")
    monkeypatch.setattr(inside, "try_out", lambda module: Tried(None, "not today"))
    with pytest.warns(UserWarning, match="not today"):
        theirs = engine_of(batch_tokens=100).generate(asked, sampling, "f")
    assert ours == theirs
    assert len({m.ids for m in ours}) > len(prompts())


@pytest.mark.parametrize("budget_", [1, 80, 4096])
def test_what_stands_beside_has_a_say(budget_: int) -> None:
    rng = random.Random(1)
    asked = [
        Prompt(p.ids, beside=tuple((*(rng.randrange(7, 60) for _ in range(n)), *p.ids) for n in (1, 5)))
        for p in prompts()
    ]
    engine = engine_of(batch_tokens=budget_)
    made = engine.generate(asked, STEPS, "f", mean)
    assert [list(m.ids) for m in made] == [plain_loop(engine.module, p.ids, 9, p.beside) for p in asked]
    alone = [list(m.ids) for m in engine.generate(prompts(), STEPS, "f")]
    assert [list(m.ids) for m in made] != alone


def test_stop_strings_end_a_row_and_are_cut_off() -> None:
    engine = engine_of()
    whole = max(engine.generate(prompts(), STEPS, "f"), key=lambda made: len(made.text.split()))
    prompt = prompts()[engine.generate(prompts(), STEPS, "f").index(whole)]
    stop = whole.text.split()[-2]
    (cut,) = engine.generate([prompt], eh.Sampling(max_new_tokens=9, stop=(stop,)), "f")
    assert cut.text == whole.text[: whole.text.index(stop)] and cut.finished
    assert len(cut.ids) < len(whole.ids)


# ------------------------------------------------------------------------------------------ between turns


def test_a_second_turn_reads_only_what_is_new() -> None:
    engine, first = engine_of(), prompts()
    with conversation():
        said = engine.generate(first, STEPS, "f")
        second = [Prompt((*p.ids, *m.ids, 11, 12, 13)) for p, m in zip(first, said, strict=True)]
        before = engine.tokens
        again = engine.generate(second, STEPS, "f")
    # of each: the token that came last, the three of the next turn, and what is written
    assert engine.tokens - before <= sum(4 + len(m.ids) for m in again)
    assert [list(m.ids) for m in again] == [plain_loop(engine.module, p.ids, 9) for p in second]


def test_scores_after_a_reply_begin_where_it_ended() -> None:
    engine, first = engine_of(), prompts(6)
    with conversation():
        said = engine.generate(first, STEPS, "f")
        asked = [
            Request((*p.ids, *m.ids, 11, 12), tuple((len(p.ids) + len(m.ids) + at, 20) for at in (0, 1)))
            for p, m in zip(first, said, strict=True)
        ]
        before = engine.tokens
        kept = engine.read(asked, "f")
        fed = engine.tokens - before
        assert engine.read(asked, "f") == [pytest.approx(v, abs=1e-5) for v in kept]
    assert fed == len(asked) * 2 + sum(len(m.ids) == 9 for m in said)  # and the token that came last, where none ended
    plain = engine_of().read(asked, "f")
    assert kept == [pytest.approx(values, abs=1e-4) for values in plain]


def test_a_read_before_what_is_known_is_still_right() -> None:
    """One sequence may begin behind its known tokens, another with the same tokens is to be read among them."""
    engine = engine_of()
    trunk = tuple(range(7, 27))
    with conversation():
        engine.read([Request(trunk, ((19, 30),))], "f")
        asked = [Request((*trunk, 30), ((20, 31),)), Request((*trunk, 31), ((4, 30), (20, 30)))]
        values = engine.read(asked, "f")
    assert values == [pytest.approx(v, abs=1e-4) for v in engine_of().read(asked, "f")]


def test_other_weights_begin_anew() -> None:
    engine, asked = engine_of(), prompts()
    with conversation():
        engine.generate(asked, STEPS, "before")
        with torch.no_grad():
            engine.module.get_input_embeddings().weight.mul_(-1)
        made = engine.generate(asked, STEPS, "after")
    assert [list(m.ids) for m in made] == [plain_loop(engine.module, p.ids, 9) for p in asked]


@pytest.mark.parametrize("most", [0, 20_000])
def test_what_has_no_room_is_read_again(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_budget, "kept_bytes", lambda module: most)
    engine, first = engine_of(), prompts()
    with conversation():
        said = engine.generate(first, STEPS, "f")
        second = [Prompt((*p.ids, *m.ids, 11)) for p, m in zip(first, said, strict=True)]
        made = engine.generate(second, STEPS, "f")
    assert [list(m.ids) for m in made] == [plain_loop(engine.module, p.ids, 9) for p in second]


def test_nothing_is_kept_outside_of_conversations() -> None:
    engine, asked = engine_of(), prompts()
    engine.generate(asked, STEPS, "f")
    once = engine.tokens
    engine.generate(asked, STEPS, "f")
    assert engine.tokens == 2 * once


# ---------------------------------------------------------------------------------------------- failures


def test_out_of_memory_while_decoding_is_backed_off(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, asked = engine_of(batch_tokens=400), prompts()
    expected = engine.generate(asked, STEPS, "f")
    step, sizes = Decoder._step, list[int]()

    def short_of_memory(self: Decoder, slots: Any, active: Any, lanes: int) -> None:
        sizes.append(len(active))
        if len(active) > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        step(self, slots, active, lanes)

    monkeypatch.setattr(Decoder, "_step", short_of_memory)
    assert engine.generate(asked, STEPS, "f") == expected
    assert max(sizes) > 4 >= sizes[-1]


def test_a_single_row_that_does_not_fit_is_an_error_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from evenhand.core.answer_cache import answer_cache

    step, steps = Decoder._step, list[int]()

    def fails_later(self: Decoder, slots: Any, active: Any, lanes: int) -> None:
        steps.append(len(active))
        if len(steps) > 30:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        step(self, slots, active, lanes)

    monkeypatch.setattr(Decoder, "_step", fails_later)
    engine, asked = engine_of(batch_tokens=1), prompts()
    with answer_cache(tmp_path / "answers.sqlite"):
        with pytest.raises(EvenhandError, match="single sequence of"):
            engine.generate(asked, STEPS, "f")
        monkeypatch.setattr(Decoder, "_step", step)
        before = engine.sequences
        made = engine.generate(asked, STEPS, "f")
    assert 0 < before < len(asked) and engine.sequences == len(asked)
    assert [list(m.ids) for m in made] == [plain_loop(engine.module, p.ids, 9) for p in asked]


def test_what_cannot_be_run_on_a_tree_goes_by_transformers_and_cannot_be_guided() -> None:
    config = AutoConfig.for_model("bloom", vocab_size=60, hidden_size=32, n_layer=2, n_head=4, eos_token_id=ENDS)
    torch.manual_seed(0)
    engine = Engine(AutoModelForCausalLM.from_config(config).float().eval(), tiny_tokenizer())
    with pytest.warns(UserWarning, match="no position ids"):
        made = engine.generate(prompts(), STEPS, "f")
    assert [list(m.ids) for m in made] == [plain_loop(engine.module, p.ids, 9) for p in prompts()]
    with pytest.raises(EvenhandError, match="cannot be guided"):
        engine.generate([Prompt((7, 8), beside=((9, 7, 8),))], STEPS, "f", mean)


def test_rows_longer_than_the_window_go_by_transformers() -> None:
    config = AutoConfig.for_model(
        "mistral",
        vocab_size=60,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=14,
        eos_token_id=ENDS,
        bos_token_id=1,
    )
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config).float().eval()
    made = Engine(module, tiny_tokenizer()).generate(prompts(), STEPS, "f")
    assert [list(m.ids) for m in made] == [plain_loop(module, p.ids, 9) for p in prompts()]


def test_layers_without_numbers_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = tiny_module(60)
    for layer in module.modules():
        if hasattr(layer, "layer_idx"):
            layer.layer_idx = None
    engine = Engine(module, tiny_tokenizer())
    with pytest.warns(UserWarning, match="own loop"):
        assert engine.tried.finish is not None and not engine.tried.continues
