"""The engine's numbers equal a plain one-by-one Hugging Face forward, whatever the batch."""

from __future__ import annotations

import random

import pytest
import torch

from evenhand import interfaces as eh
from evenhand.inference import Engine, Prompt, Request
from evenhand.models.tiny import ARCHITECTURES, tiny_model, tiny_module

TOLERANCE = 1e-4


def plain_logprob(module: torch.nn.Module, ids: tuple[int, ...], position: int, token: int) -> float:
    """One sequence, no padding, full logits, float64 normalisation."""
    with torch.no_grad():
        logits = module(torch.tensor([ids])).logits[0].double()
    return float(torch.log_softmax(logits, -1)[position, token])


def requests(vocabulary: int, count: int = 24) -> list[Request]:
    rng = random.Random(0)
    made = []
    for _ in range(count):
        ids = tuple(rng.randrange(7, vocabulary) for _ in range(rng.choice([1, 2, 3, 7, 20, 41])))
        reads = {(rng.randrange(len(ids)), rng.randrange(vocabulary)) for _ in range(rng.choice([1, 3]))}
        made.append(Request(ids, tuple(reads)))
    return made


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_reads_equal_plain_forward(architecture: str, budget: int) -> None:
    model = tiny_model(architecture, batch_tokens=budget)
    module = model.weights.module
    asked = requests(module.config.vocab_size)
    got = model.engine.read(asked, "f")
    spread = []
    for request, values in zip(asked, got, strict=True):
        for (position, token), value in zip(request.reads, values, strict=True):
            expected = plain_logprob(module, request.ids, position, token)
            assert value == pytest.approx(expected, abs=TOLERANCE)
            spread.append(expected)
    assert max(spread) - min(spread) > 1, "the model is too flat for this test to notice a wrong mask"


def test_reads_equal_plain_forward_under_an_adapter() -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny_model()
    module = tiny_module(base.weights.module.config.vocab_size, seed=3)
    torch.manual_seed(0)
    peft = get_peft_model(module, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    engine = Engine(peft, base.weights.tokenizer)
    asked = requests(module.config.vocab_size, 8)
    for request, values in zip(asked, engine.read(asked, "f"), strict=True):
        for (position, token), value in zip(request.reads, values, strict=True):
            assert value == pytest.approx(plain_logprob(peft, request.ids, position, token), abs=TOLERANCE)


def test_identical_sequences_are_fed_once(tiny: eh.Model) -> None:
    model = tiny_model()
    ids = (7, 8, 9)
    values = model.engine.read(
        [Request(ids, ((2, 10),)), Request(ids, ((2, 11), (0, 10))), Request((7, 8), ((1, 9),))], "f"
    )
    assert model.engine.sequences == 2
    assert [len(v) for v in values] == [1, 2, 1]


def test_training_flags_and_weights_are_left_alone() -> None:
    model = tiny_model()
    module = model.weights.module
    module.train()
    module.get_input_embeddings().training = False
    before = model.fingerprint
    model.engine.read([Request((7, 8), ((1, 9),))], "f")
    assert module.training and not module.get_input_embeddings().training
    assert model.fingerprint == before


@pytest.fixture
def without_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.inference import engine as inside
    from evenhand.inference.support_probe import Tried

    monkeypatch.setattr(inside, "try_out", lambda module: Tried(None, "not today"))


@pytest.mark.parametrize("step", ["score_pack", "score_batch"])
@pytest.mark.filterwarnings("ignore:prompts are scored")
def test_out_of_memory_is_backed_off(
    step: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    model = tiny_model(batch_tokens=10_000)
    if step == "score_batch":
        request.getfixturevalue("without_tree")
    asked = requests(model.weights.module.config.vocab_size)
    expected = model.engine.read(asked, "f")
    from evenhand.inference import engine as inside

    real, sizes = getattr(inside, step), []

    def short_of_memory(module, batch, *rest):  # type: ignore[no-untyped-def]
        sizes.append(len(getattr(batch, "rows", batch)))
        if sizes[-1] > 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(module, batch, *rest)

    monkeypatch.setattr(inside, step, short_of_memory)
    got = model.engine.read(asked, "g")
    assert max(sizes) > 3 >= min(sizes)
    for a, b in zip(expected, got, strict=True):
        assert a == pytest.approx(b, abs=TOLERANCE)


@pytest.mark.parametrize("step", ["score_pack", "score_batch"])
@pytest.mark.filterwarnings("ignore:prompts are scored")
def test_a_single_sequence_that_does_not_fit_is_an_error(
    step: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    from evenhand.errors import EvenhandError
    from evenhand.inference import engine as inside

    def never(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    if step == "score_batch":
        request.getfixturevalue("without_tree")
    monkeypatch.setattr(inside, step, never)
    with pytest.raises(EvenhandError, match="single sequence of 2 tokens"):
        tiny_model().engine.read([Request((7, 8), ((1, 9),))], "f")


def test_other_runtime_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.inference import engine as inside

    def broken(*_: object) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(inside, "score_pack", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        tiny_model().engine.read([Request((7, 8), ((1, 9),))], "f")


def greedy_by_hand(module: torch.nn.Module, ids: tuple[int, ...], steps: int, end: set[int]) -> list[int]:
    out: list[int] = []
    with torch.no_grad():
        for _ in range(steps):
            token = int(module(torch.tensor([[*ids, *out]])).logits[0, -1].argmax())
            if token in end:
                break
            out.append(token)
    return out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_generation_equals_a_plain_loop(architecture: str) -> None:
    model = tiny_model(architecture, batch_tokens=120)
    module = model.weights.module
    rng = random.Random(1)
    prompts = [Prompt(tuple(rng.randrange(7, 60) for _ in range(n))) for n in (1, 3, 3, 9, 20)]
    got = model.engine.generate(prompts, eh.Sampling(max_new_tokens=8), "f")
    for prompt, made in zip(prompts, got, strict=True):
        assert list(made.ids) == greedy_by_hand(module, prompt.ids, 8, {2})


def test_samples_do_not_depend_on_the_batch_but_on_seed_and_draw() -> None:
    sampling = eh.Sampling(temperature=1.0, max_new_tokens=6, seed=5)
    prompts = [Prompt((7, 8, 9), draw) for draw in range(4)] + [Prompt(tuple(range(7, 7 + n))) for n in (2, 11, 30)]
    together = tiny_model().engine.generate(prompts, sampling, "f")
    alone = [tiny_model(batch_tokens=1).engine.generate([p], sampling, "f")[0] for p in reversed(prompts)][::-1]
    assert together == alone
    assert len({made.ids for made in together[:4]}) > 1
    other = tiny_model().engine.generate(prompts, eh.Sampling(temperature=1.0, max_new_tokens=6, seed=6), "f")
    assert other != together


def test_sampling_follows_the_distribution() -> None:
    """1,500 draws of one token: total variation from the model's own distribution stays small."""
    model = tiny_model()
    module = model.weights.module
    ids = (7, 8, 9)
    with torch.no_grad():
        p = torch.softmax(module(torch.tensor([ids])).logits[0, -1].double() / 0.7, -1)
    draws = model.engine.generate([Prompt(ids, d) for d in range(1500)], eh.Sampling(0.7, 1), "f")
    counts = torch.zeros_like(p)
    for made in draws:
        counts[made.ids[0] if made.ids else 2] += 1
    top = p.topk(5).indices
    assert (counts[top] / 1500 - p[top]).abs().max() < 0.05


def test_nucleus_never_leaves_the_nucleus() -> None:
    model = tiny_model()
    ids = (7, 8, 9)
    with torch.no_grad():
        p = torch.softmax(model.weights.module(torch.tensor([ids])).logits[0, -1].double(), -1)
    ranked, order = p.sort(descending=True)
    nucleus = set(order[(ranked.cumsum(-1) - ranked) < 0.3].tolist())
    draws = model.engine.generate([Prompt(ids, d) for d in range(200)], eh.Sampling(1.0, 1, top_p=0.3), "f")
    assert {made.ids[0] if made.ids else 2 for made in draws} <= nucleus
