"""Weights are hashed once, and again whenever they may have changed; no answer is read or stored under a stale hash."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import evenhand
from evenhand.core import rechecks
from evenhand.core.answer_cache import answer_cache
from evenhand.interfaces import Dialogue, Passage, Question, Sampling
from evenhand.models import checksum, fingerprint
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_model, tiny_tokenizer

TEXT = Passage("the dog saw a little cat")
OTHERS = [Passage("a cat"), Passage("the dog and the cat")]


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checksum tells anything: what only the hash in full may find."""
    monkeypatch.setattr(checksum, "of_tensors", lambda tensors: "")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every time that all weights were hashed."""
    seen: list[int] = []
    real = fingerprint.content_of
    monkeypatch.setattr(fingerprint, "content_of", lambda *given: seen.append(1) or real(*given))
    return seen


def score(model: Any) -> float:
    return float(model.score([TEXT])[0].logprob)


def fresh(model: LocalModel) -> float:
    """What a model says that never had other weights than these."""
    return score(LocalModel(copy.deepcopy(model.weights.module), model.weights.tokenizer, name="fresh"))


def write_unseen(model: LocalModel, by: float = 30.0) -> None:
    """Change one element through `.data`, of a token that the texts hold."""
    module, tokenizer = model._module, model._tokenizer
    module.get_input_embeddings().weight.data[tokenizer.convert_tokens_to_ids("dog"), 1] += by


# ------------------------------------------------------------------------------------------------- how often


def test_asking_hashes_once(hashed: list[int]) -> None:
    model = tiny_model()
    for _ in range(2):
        model.choose([Question("q", "Who was there?", ("a dog", "a cat"))])
        model.score([TEXT])
        model.generate([Dialogue(()).user("Who was there?")], Sampling(max_new_tokens=2))
        model.weights  # noqa: B018
    assert len(hashed) == 1


def test_a_folder_is_hashed_by_its_files_and_once_more_when_the_weights_are_taken(
    hashed: list[int], tmp_path: Path
) -> None:
    model = evenhand.load(tiny_model().save(tmp_path / "tiny"))
    before = model.fingerprint
    score(model)
    assert hashed == []
    for _ in range(3):
        model.weights  # noqa: B018
        score(model)
    assert len(hashed) == 1 and model.fingerprint == before


def test_editing_hashes_once_more_and_undoing_it_restores_the_fingerprint(hashed: list[int]) -> None:
    model = tiny_model()
    before, said = model.fingerprint, score(model)
    with model.editing() as weights:
        weights.module.model.norm.weight.data.mul_(2)
    assert model.fingerprint != before and score(model) == fresh(model) != said
    with model.editing() as weights:
        weights.module.model.norm.weight.data.div_(2)
    assert (model.fingerprint, score(model)) == (before, said)


@pytest.mark.usefixtures("blind")
def test_an_edit_that_fails_half_way_is_noticed() -> None:
    model = tiny_model()
    before = model.fingerprint
    with pytest.raises(KeyError), model.editing():
        write_unseen(model)
        raise KeyError
    assert model.fingerprint != before


# --------------------------------------------------------------------------------------------- what is noticed


def stepped(make: Callable[..., torch.optim.Optimizer], only: str = "", **options: Any) -> Callable[[nn.Module], None]:
    def edit(module: nn.Module) -> None:
        chosen = [p for n, p in module.named_parameters() if only in n]
        for p in chosen:
            p.grad = torch.ones_like(p)
        make(chosen, lr=0.05, **options).step()

    return edit


def each(change: Callable[[Any], Any]) -> Callable[[nn.Module], None]:
    def edit(module: nn.Module) -> None:
        with torch.no_grad():
            for p in module.parameters():
                change(p)

    return edit


def sparse_fused_step(module: Any) -> None:
    """A step that moves two rows of one table, which the counter does not show."""
    table = module.get_input_embeddings().weight
    table.grad = torch.zeros_like(table)
    table.grad[-3:-1] = 1.0
    torch.optim.SGD([table], lr=5.0, fused=True).step()


def assigned(module: Any) -> None:
    module.load_state_dict({n: t * 1.5 for n, t in module.state_dict().items()}, assign=True)


def in_inference_mode(module: Any) -> None:
    with torch.inference_mode():
        module.model.norm.weight.mul_(2)


EDITS: dict[str, Callable[[Any], Any]] = {
    "sgd": stepped(torch.optim.SGD),
    "adamw foreach": stepped(torch.optim.AdamW, foreach=True),
    "adamw fused": stepped(torch.optim.AdamW, fused=True),
    "adam fused, norms": stepped(torch.optim.Adam, "norm", fused=True),
    "sgd fused, few rows": sparse_fused_step,
    "add_": each(lambda p: p.add_(0.1)),
    "copy_": each(lambda p: p.copy_(torch.ones_like(p))),
    "data.mul_": each(lambda p: p.data.mul_(1.5)),
    "data =": each(lambda p: setattr(p, "data", p.data * 1.5)),
    "foreach on data": lambda m: torch._foreach_mul_([p.data for p in m.parameters()], 1.5),
    "numpy": each(lambda p: p.numpy().__imul__(1.5)),
    "load_state_dict": lambda m: m.load_state_dict({n: t * 1.5 for n, t in m.state_dict().items()}),
    "load_state_dict, assign": assigned,
    "vector_to_parameters": lambda m: nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(m.parameters()) * 1.5, m.parameters()
    ),
    "inference_mode": in_inference_mode,
    "one layer": lambda m: m.model.layers[1].mlp.up_proj.weight.data.mul_(1.5),
    "new parameter": lambda m: setattr(m.model.norm, "weight", nn.Parameter(m.model.norm.weight.data * 2)),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=list(EDITS))
def test_every_change_of_all_weights_is_noticed_at_once(edit: Callable[[Any], Any]) -> None:
    model = tiny_model()
    before = model.fingerprint
    score(model)  # the engine keeps what it makes of the weights, which must go, too
    edit(model.weights.module)
    after = model.fingerprint
    assert after != before
    assert score(model) == pytest.approx(fresh(model), abs=1e-4)
    model.rehash()
    assert model.fingerprint == after


def test_a_masked_model_notices_them_too(tmp_path: Path) -> None:
    model = evenhand.load("demo-mlm")
    module = model.weights.module
    passage = [Passage(" she", "The nurse said that", suffix=" was late.")]
    before, said = model.fingerprint, model.score(passage)
    for p in module.parameters():
        p.data.mul_(1.5)
    assert model.fingerprint != before and model.score(passage) != said
    for p in module.parameters():
        p.data.div_(1.5)


def test_switches_and_settings_are_read_at_every_call(hashed: list[int]) -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny_model().weights
    module: Any = get_peft_model(base.module, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    module.add_adapter("other", LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    model = LocalModel(module, base.tokenizer, name="lora")
    layer = module.base_model.model.model.layers[0].self_attn.q_proj
    seen = [model.fingerprint]
    module.set_adapter("other")
    seen.append(model.fingerprint)
    layer.scaling["other"] = 7.0
    seen.append(model.fingerprint)
    with module.disable_adapter():
        seen.append(model.fingerprint)
    assert seen[-1] != model.fingerprint == seen[-2] and len(hashed) == 1, "no tensor has changed"
    module.config.rms_norm_eps = 0.5
    seen.append(model.fingerprint)
    module.generation_config.eos_token_id = [2, 3]
    seen.append(model.fingerprint)
    module.merge_adapter()
    seen.append(model.fingerprint)
    assert len({*seen}) == len(seen)
    merged = model.fingerprint
    module.unmerge_adapter()
    assert model.fingerprint != merged


def test_the_tokenizer_belongs_to_it_and_its_padding_does_not() -> None:
    tokenizer = tiny_tokenizer()
    model = LocalModel(tiny_model().weights.module, tokenizer, name="x")
    seen = [model.fingerprint]
    tokenizer(["the dog", "a"], padding=True, truncation=True, max_length=2)
    model.rehash()
    assert model.fingerprint == seen[0], "transformers leaves the last call's padding in the tokenizer"
    tokenizer.chat_template = "{{ messages }}"
    seen.append(model.fingerprint)
    tokenizer.pad_token = "<unk>"
    seen.append(model.fingerprint)
    tokenizer.backend_tokenizer.normalizer = __import__("tokenizers").normalizers.Lowercase()
    seen.append(model.fingerprint)
    assert len({*seen}) == 4


def test_the_mode_and_gradients_are_no_part_of_it(hashed: list[int]) -> None:
    model = tiny_model()
    before, module = model.fingerprint, model.weights.module
    module.train().requires_grad_(False)
    assert (model.fingerprint, score(model)) == (before, fresh(model)) and module.training


def test_an_edit_that_is_taken_back_is_noticed_both_times(tmp_path: Path) -> None:
    model = tiny_model()
    table = model.weights.module.get_input_embeddings().weight
    before, kept, said = model.fingerprint, table.data.clone(), score(model)
    with answer_cache(tmp_path / "a.db"):
        for _ in range(2):
            write_unseen(model)
            assert model.fingerprint != before and score(model) == fresh(model) != said
            table.data.copy_(kept)
            assert (model.fingerprint, score(model)) == (before, said)


def frequencies(module: Any) -> None:
    module.model.rotary_emb.inv_freq.data.mul_(0.25)


def test_the_frequencies_of_rotary_embeddings_belong_to_it_once_they_are_changed() -> None:
    model = tiny_model()
    module = model.weights.module
    before = model.fingerprint
    frequencies(module)
    after = model.fingerprint
    assert after != before and score(model) == fresh(model)
    assert LocalModel(copy.deepcopy(module), model.weights.tokenizer, name="changed before").fingerprint == after
    module.model.rotary_emb.inv_freq.data.div_(0.25)
    assert model.fingerprint == before


def test_frequencies_that_follow_the_length_of_the_text_are_no_edit() -> None:
    model = tiny_model()
    module = model.weights.module
    module.model.rotary_emb.rope_type = "dynamic"
    before = model.fingerprint
    frequencies(module)
    assert model.fingerprint == before


# ------------------------------------------------------------------------------- what no checksum can notice


@pytest.mark.usefixtures("blind")
def test_what_the_check_cannot_see_is_found_when_all_is_hashed() -> None:
    model = tiny_model()
    before, said = model.fingerprint, score(model)
    write_unseen(model)
    assert model.fingerprint == before, "else this tests nothing"
    model.rehash()
    assert model.fingerprint != before and score(model) == fresh(model) != said


@pytest.mark.usefixtures("blind")
def test_whether_a_model_was_edited_is_never_taken_from_a_kept_hash(tmp_path: Path) -> None:
    model: Any = evenhand.load(tiny_model().save(tmp_path / "tiny"))
    assert not model.edited and model.weights and not model.edited
    write_unseen(model)
    assert model.edited


@pytest.mark.usefixtures("blind")
def test_a_model_that_is_dropped_is_checked_a_last_time(tmp_path: Path) -> None:
    def ask() -> None:
        model = tiny_model()
        score(model)
        model.score(OTHERS[:1])
        write_unseen(model)
        model.score(OTHERS[1:])

    file = tmp_path / "a.db"
    with pytest.warns(RuntimeWarning, match=r"tiny-llama.*2 answers.*removed"), answer_cache(file):
        ask()
        gc.collect()
    with answer_cache(file) as cache:
        assert cache is not None and len(cache) == 1


@pytest.mark.usefixtures("blind")
def test_a_dropped_model_that_cannot_be_checked_counts_as_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    with rechecks.collected() as used:
        model = tiny_model()
        assert model.fingerprint == model.fingerprint
        monkeypatch.setattr(fingerprint, "content_of", lambda *_: 1 / 0)
        del model
        gc.collect()
        assert used.wrong() == ["tiny-llama"]


@pytest.mark.usefixtures("blind")
def test_answers_under_a_hash_that_no_longer_held_do_not_stay(tmp_path: Path) -> None:
    model = tiny_model()
    file = tmp_path / "a.db"
    with pytest.warns(RuntimeWarning, match=r"tiny-llama.*2 answers.*removed"), answer_cache(file):
        score(model)  # under a hash that was just made
        for passage in OTHERS:
            model.score([passage])
            write_unseen(model)
    with answer_cache(file) as cache:
        assert cache is not None and len(cache) == 1
        assert model.score(OTHERS)[1] == LocalModel(*copy.deepcopy(model.weights), name="x").score(OTHERS)[1]


def test_answers_stay_where_all_was_as_it_should_be(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    model = tiny_model()
    with answer_cache(tmp_path / "a.db") as cache:
        score(model)
        model.score(OTHERS)
        for p in model.weights.module.parameters():
            p.data.mul_(1.1)  # noticed: what follows has another key
        model.score(OTHERS)
        assert cache is not None and len(cache) == 5
    with answer_cache(tmp_path / "a.db") as cache:
        assert cache is not None and len(cache) == 5
    assert not [w for w in recwarn if w.category is RuntimeWarning]
