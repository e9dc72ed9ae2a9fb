"""Long common beginnings: every query still attends to its ancestors, each once, and their keys are not gathered."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tests.inference.test_tree_attention import engine_of, made_of, plainly, read

from evenhand.inference import Request, attention_support, tree_attention
from evenhand.inference import stems as module
from evenhand.inference.blocks import blocks
from evenhand.inference.prefix_trie import Pack, packs
from evenhand.inference.stems import stems

WORDS = 60


def sequences(trunk: int, count: int = 40) -> list[tuple[int, ...]]:
    """Questions after one trunk, after a part of it that goes on in another way, and after nothing."""
    rng = random.Random(0)

    def drawn(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(7, WORDS) for _ in range(length))

    one, other = drawn(trunk), drawn(trunk)
    stems_of = [one, one, one[: trunk // 2] + other, ()]
    return list(dict.fromkeys(rng.choice(stems_of) + drawn(rng.randrange(2, 9)) for _ in range(count)))


def ancestors(pack: Pack) -> dict[int, set[int]]:
    return {int(node): {*path[: n + 1].tolist()} for path in pack.paths for n, node in enumerate(path)}


@pytest.mark.parametrize("shortest", [1, 4, 20, 1000])
def test_every_node_attends_to_its_ancestors_once(shortest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORTEST", shortest)
    pack = next(packs(sequences(30), 10**6))
    made, apart = stems(blocks(pack.runs))
    assert bool(made) == (shortest < 1000)
    expected, seen = ancestors(pack), list[int]()
    for keys, some in [*((stem.keys, stem.blocks) for stem in made), (np.empty(0, dtype=np.int64), apart)]:
        for block in some:
            for query, allowed in zip(block.queries, block.allowed, strict=True):
                found = [*keys.tolist(), *block.keys[allowed].tolist()]
                assert len(found) == len(set(found))
                assert set(found) == expected[int(query)]
                seen.append(int(query))
    assert sorted(seen) == list(range(len(pack.tokens)))


def test_the_keys_of_a_long_beginning_are_not_gathered() -> None:
    trunk = 200
    pack = next(packs([(*range(trunk), 300 + n, *range(400, 420)) for n in range(50)], 10**6))
    attention = tree_attention.TreeAttention(pack)
    (stem,), groups = attention._cascaded()
    assert (stem.keys, stem.queries) == (slice(0, trunk), slice(trunk + 21, trunk + 21 * 50))  # the first is the root's
    assert [group.causal for group in groups] == [True]
    gathered = sum(group.keys.numel() for group in stem.groups)
    assert gathered == 49 * 21


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 4e-2)],
)
def test_attention_is_the_same_in_every_precision(
    dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHORTEST", 4)
    pack = next(packs(sequences(30), 10**6))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, n, len(pack.tokens), 16, generator=generator).to(dtype) for n in (6, 2, 2))
    found = tree_attention.TreeAttention(pack)(0, q, k, v, None, None)
    narrow = tree_attention.TreeAttention(pack)(0, q, k, v[..., :8], None, None)  # values narrower than keys
    assert (found[..., :8] - narrow).abs().max() < 2 * tolerance
    exact = torch.empty(len(pack.tokens), 6, 16, dtype=torch.float64)
    for node, seen in ancestors(pack).items():
        keys, values = (t[0, :, sorted(seen)].double().repeat_interleave(3, 0) for t in (k, v))
        weights = torch.softmax((keys @ q[0, :, node].double()[..., None])[..., 0] / 4, -1)
        exact[node] = (weights[..., None] * values).sum(1)
    assert (found[0].double() - exact).abs().max() < tolerance


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gpt2"])
def test_scores_are_those_of_plain_forwards(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHORTEST", 4)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256} if kind == "gpt2" else {"head_dim": 8}
    engine = engine_of(made_of(kind, **sizes))
    asked = [Request(ids, ((len(ids) - 1, 9), (len(ids) // 2, 11))) for ids in sequences(30)]
    calls: list[int] = []
    plain = tree_attention._attend_to_stem

    def counted(stem: tree_attention.StemGroups, *given: object) -> None:
        calls.append(len(stem.groups))
        plain(stem, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(tree_attention, "_attend_to_stem", counted)
    expected = plainly(engine.module, asked)
    assert read(engine, asked) == pytest.approx(expected, abs=5e-5)
    assert bool(calls) == attention_support.supported()
    monkeypatch.setattr(attention_support, "supported", lambda: False)
    calls.clear()
    assert read(engine_of(engine.module), asked) == pytest.approx(expected, abs=5e-5)
    assert not calls


def test_a_lost_beginning_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the comparison above is sensitive to what the beginning contributes."""
    if not attention_support.supported():
        pytest.skip("this torch has no such attention")
    monkeypatch.setattr(module, "SHORTEST", 4)
    engine = engine_of(made_of("llama"))
    asked = [Request(ids, ((len(ids) - 1, 9),)) for ids in sequences(30)]
    assert engine.tried.finish is not None
    expected, plain = plainly(engine.module, asked), attention_support.attended_with_normaliser

    def lost(*given: object) -> object:
        made, sums = plain(*given)  # type: ignore[arg-type]
        return (made, sums) if given[3] is not None else (made, sums - 100)

    monkeypatch.setattr(attention_support, "attended_with_normaliser", lost)
    assert np.abs(np.subtract(read(engine, asked), expected)).max() > 0.005
