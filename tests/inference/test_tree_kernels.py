"""The kernels for GPUs attend to what the gathered one attends to, and need few calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from evenhand.errors import SettingsError
from evenhand.inference import Engine, Prompt, Request, cascade_tree, flex_tree, tree_kernels
from evenhand.inference.cascade_tree import CascadeTree
from evenhand.inference.flex_tree import FlexTree, layout, subtree_ends
from evenhand.inference.prefix_trie import Pack, packs
from evenhand.inference.tree_attention import TreeAttention
from evenhand.interfaces import Sampling
from evenhand.models.tiny import tiny_model, tiny_tokenizer

WORDS = 60
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "grouped heads": ("llama", {}),
    "wide heads": ("qwen3", {"head_dim": 16}),
    "soft caps": ("gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0}),
}


def engine_of(shape: str, kernel: str) -> Engine:
    kind, more = SHAPES[shape]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": WORDS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **{**sizes, **heads, **ids, **more})
        module: PreTrainedModel = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in module.parameters():  # random weights of a small scale would hide a wrong mask
            parameter.mul_(3 if parameter.dim() == 2 else 1)
    engine = Engine(module, tiny_tokenizer())
    engine.tree_kernel = kernel
    return engine


def sequences(seed: int = 0, rows: int = 60) -> list[tuple[int, ...]]:
    """Sequences of several blocks of nodes, which branch off one another or stand alone."""
    rng = np.random.default_rng(seed)
    heads = [tuple(map(int, rng.integers(7, 40, size=n))) for n in (1, 6, 40, 150)]
    made = [(*heads[rng.integers(4)], *map(int, rng.integers(7, 12, size=rng.integers(1, 9)))) for _ in range(rows)]
    return [*dict.fromkeys(made), tuple(map(int, rng.integers(40, 60, size=50)))]


def requests(seed: int = 0) -> list[Request]:
    return [Request(ids, ((len(ids) - 1, 9), (len(ids) // 2, 11))) for ids in sequences(seed)]


def seen_by(pack: Pack) -> np.ndarray:
    """[nodes, nodes] whether a node attends to another, from the paths."""
    seen = np.zeros((len(pack.tokens),) * 2, dtype=bool)
    for path in pack.paths:
        for n, node in enumerate(path):
            seen[node, path[: n + 1]] = True
    return seen


# ------------------------------------------------------------------------------------------------------ blocks


def test_the_ends_of_a_small_tree() -> None:
    pack = next(packs([(1, 2, 3), (1, 2, 4), (1, 2), (5,)], 100))
    assert pack.tokens == [1, 2, 3, 4, 5]
    assert subtree_ends(pack).tolist() == [4, 4, 3, 4, 5]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("block", [4, 16, 128])
def test_blocks_are_those_of_the_paths(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex_tree, "BLOCK", block)
    pack = next(packs(sequences(seed), 10**6))
    seen, ends = seen_by(pack), subtree_ends(pack)
    nodes = np.arange(len(ends))
    assert ((nodes[None] <= nodes[:, None]) & (nodes[:, None] < ends[None]) == seen).all()
    made = layout(ends)
    starts = range(0, len(ends), block)
    for q, row in enumerate(starts):
        part, full = (
            set(found[q, : counts[q]].tolist())
            for counts, found in ((made.counts, made.indices), (made.full_counts, made.full_indices))
        )
        cells = [seen[row : row + block, k : k + block] for k in starts]
        assert part | full == {k for k, some in enumerate(cells) if some.any()} and not part & full
        assert full == {k for k, some in enumerate(cells) if some.all() and k != q}, "the diagonal is always masked"


# ---------------------------------------------------------------------------------------------------- equality


def plain_flash(
    q: Tensor, k: Tensor, v: Tensor, starts: Any, longest: Any, scaling: float | None, *, causal: bool
) -> tuple[Tensor, Tensor]:
    """What FlashAttention computes, sequence by sequence."""
    out, weight = torch.empty_like(q), q.new_empty(q.shape[1], len(q))
    limits = [list(zip(s[:-1].tolist(), s[1:].tolist(), strict=True)) for s in starts]
    assert [max(end - start for start, end in some) for some in limits] == list(longest)
    assert all(s.dtype == torch.int32 and s[0] == 0 and s[-1] == len(t) for s, t in zip(starts, (q, k), strict=True))
    for (a, b), (c, d) in zip(*limits, strict=True):
        repeats = q.shape[1] // k.shape[1]
        keys, values = (t[c:d].repeat_interleave(repeats, 1) for t in (k, v))
        scores = torch.einsum("qhw,khw->hqk", q[a:b], keys) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        if causal:
            scores = scores.masked_fill(~torch.ones(b - a, d - c, dtype=torch.bool).tril(), -torch.inf)
        weight[:, a:b] = scores.logsumexp(-1)
        out[a:b] = torch.einsum("hqk,khw->qhw", scores.softmax(-1), values)
    return out, weight


@pytest.fixture
def flash_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """FlashAttention on the CPU; whether each call was causal."""
    calls: list[bool] = []

    def counted(*given: Any, causal: bool) -> tuple[Tensor, Tensor]:
        calls.append(causal)
        return plain_flash(*given, causal=causal)

    monkeypatch.setattr(cascade_tree, "supported", lambda query: True)
    monkeypatch.setattr(cascade_tree, "flash", counted)
    return calls


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("kernel", "shape"),
    [("flex", "grouped heads"), ("flex", "soft caps"), *[("cascade", shape) for shape in SHAPES]],
)
def test_reads_are_those_of_gathered_keys(kernel: str, shape: str, flash_calls: list[bool]) -> None:
    usual, other = engine_of(shape, "gathered"), engine_of(shape, kernel)
    expected, found = usual.read(requests(), "f"), other.read(requests(), "f")
    assert other.tried.finish is not None and other.tried.continues
    assert np.abs(np.subtract(found, expected)).max() < 1e-5
    assert (other.forwards, other.tokens) == (usual.forwards, usual.tokens)


def test_replies_are_those_of_gathered_keys(flash_calls: list[bool]) -> None:
    prompts = [Prompt(ids) for ids in sequences()[:20]]
    usual, other = (
        engine_of("grouped heads", kernel).generate(prompts, Sampling(max_new_tokens=5), "f")
        for kernel in ("gathered", "cascade")
    )
    assert [g.ids for g in usual] == [g.ids for g in other] and any(flash_calls)


def test_keys_and_values_are_kept_by_node() -> None:
    pack = next(packs(sequences(), 10**6))
    nodes = len(pack.tokens)
    query, key, value = torch.randn(1, 4, nodes, 8), torch.randn(1, 2, nodes, 8), torch.randn(1, 2, nodes, 8)
    usual, other = TreeAttention(pack, keep=True), CascadeTree(pack, keep=True)
    expected, found = (tree(0, query, key, value, None, None) for tree in (usual, other))
    assert torch.equal(expected, found), "without FlashAttention keys are gathered"
    for one, same in zip(usual.made[0], other.made[0], strict=True):
        assert torch.equal(one, same)


def test_two_calls_of_flash_attention_in_a_layer(flash_calls: list[bool]) -> None:
    engine = engine_of("grouped heads", "cascade")
    assert engine.tried.finish is not None
    flash_calls.clear()
    engine.read(requests(), "f")
    assert engine.forwards == 1 and flash_calls == [True, False] * 2


def test_paths_are_gathered_once_for_runs_that_branch_off_one_node() -> None:
    pack = next(packs([(1, 2, 3), (1, 2, 4, 4), (1, 2, 5), (6,)], 100))
    parts, longest = cascade_tree._parts(pack.runs)
    assert parts.runs.tolist() == [0, 3, 5, 6, 7]
    assert (parts.queries.tolist(), parts.query_starts.tolist()) == ([3, 4, 5], [0, 3])
    assert (parts.keys.tolist(), parts.key_starts.tolist()) == ([0, 1], [0, 2])
    assert longest == (3, 3, 2)


# ------------------------------------------------------------------------------------- mistakes would show


def test_a_wrong_end_is_refused_by_trying_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex_tree, "subtree_ends", lambda pack: np.full(len(pack.tokens), len(pack.tokens)))
    engine = engine_of("grouped heads", "flex")
    with pytest.warns(UserWarning, match="its attention is not that of a plain causal model"):
        assert engine.tried.finish is None


# ---------------------------------------------------------------------------------------------- the setting


def test_the_kernel_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = next(packs([(1, 2), (1, 3)], 100))
    for name, kind in (("gathered", TreeAttention), ("flex", FlexTree), ("cascade", CascadeTree)):
        with tree_kernels.using(name):
            assert type(tree_kernels.tree_of(pack)) is kind
    assert type(tree_kernels.tree_of(pack)) is TreeAttention
    known = Pack()
    known.add(0, (1, 2, 3), 0, np.array([5]))
    with tree_kernels.using("flex"):
        assert type(tree_kernels.tree_of(known, lambda layer: (torch.empty(0),) * 2)) is TreeAttention  # type: ignore[return-value]
    assert tiny_model().engine.tree_kernel == "gathered"
    monkeypatch.setenv("EVENHAND_TREE_KERNEL", "flex")
    assert tiny_model().engine.tree_kernel == "flex"
    monkeypatch.setenv("EVENHAND_TREE_KERNEL", "fast")
    with pytest.raises(SettingsError, match="tree_kernel 'fast' does not exist: use one of gathered, flex, cascade"):
        _ = tiny_model().engine
