"""Rules about words of several tokens: the projection onto the probabilities of whole words.

Ours; the paper moves single tokens only. A word is a path of tokens, and its probability is the product along it, each
token given those before. The words of all classes make a tree, in which one may begin another: " him" stands for the
texts in which no token follows that leads to a longer word (such as "himself"), so that no text counts twice.
As the events are disjoint, whole words are projected like single tokens (see `project`), and all other texts form one
more event. Written token by token again, the result is a target for the first token and one for each token that follows
a beginning of a word: after any of them, tokens that lead to no word keep their
proportions. It is the nearest distribution over texts that satisfies the rule, as that of `project` is over tokens; if
every word is one token, it is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from evenhand.errors import SettingsError
from evenhand.methods.distillation.rules.packs import components
from evenhand.methods.distillation.rules.projection import Mode, project
from evenhand.methods.distillation.rules.tokens import Ids, SequenceClass, TokenClass, TokenRules

if TYPE_CHECKING:
    from torch import Tensor

LEAF = -1
LEAST_LEFT = 1e-12
"""Minimum share of a beginning's probability that leads to no longer word, which rounding may make 0 or less."""


class Edge(NamedTuple):
    """A step that leads to a word."""

    prefix: int
    """The beginning from which it is taken."""
    token: int
    child: int
    """The beginning to which it leads; `LEAF` if it ends a word that begins no other."""


@dataclass(frozen=True)
class Tree:
    """The words of all classes as paths."""

    prefixes: tuple[Ids, ...]
    """All beginnings of words that are followed by more; the empty one first, shorter before longer ones."""
    edges: tuple[Edge, ...]
    """The steps, in the order of their prefixes."""
    words: tuple[Ids, ...]
    rules: TokenRules
    """The classes, with the index of each word in place of a token id."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Every token that a step takes."""
        return tuple(sorted({edge.token for edge in self.edges}))

    def word_at(self, prefix: int) -> int | None:
        """Return the word that a beginning is by itself, if it is one."""
        return self._number.get(self.prefixes[prefix])

    def word_of(self, edge: Edge) -> int:
        """Return the word that a final step ends."""
        return self._number[(*self.prefixes[edge.prefix], edge.token)]

    @property
    def _number(self) -> dict[Ids, int]:
        return {word: n for n, word in enumerate(self.words)}

    def class_of(self, word: int) -> int:
        """Return the class of a word, by its index."""
        return next(n for n, c in enumerate(self.rules.classes) if any(word in ids for ids in c.ids))


class Targets(NamedTuple):
    """Target distributions after each beginning, in natural logs."""

    steps: Tensor
    """[..., E] of each edge's token, given the edge's prefix."""
    others: Tensor
    """[..., P] of all other tokens together, given that prefix."""
    shift: Tensor
    """[...] what is added to those of the empty prefix: 0 except for geometric."""
    words: Tensor
    """[..., V] of whole words, before the projection."""
    here: Tensor
    """[..., P] share of a beginning's original probability that leads to words; 0 .. 1."""


def tree_of(rules: TokenRules) -> Tree:
    """Build the tree of all classes, including those of single tokens.

    Raises:
        SettingsError: A path of tokens is in two groups, or joins classes with different priors.
    """
    classes = _united([*(_spelled(c) for c in rules.classes), *rules.sequences])
    words = tuple(dict.fromkeys(word for c in classes for group in c.sequences for word in group))
    number = {word: n for n, word in enumerate(words)}
    begun = {word[:n] for word in words for n in range(len(word))}
    prefixes = tuple(sorted(begun, key=lambda p: (len(p), p)))
    where = {prefix: n for n, prefix in enumerate(prefixes)}
    steps = {word[: n + 1] for word in words for n in range(len(word))}
    edges = tuple(sorted(Edge(where[s[:-1]], s[-1], where.get(s, LEAF)) for s in steps))
    as_tokens = tuple(
        TokenClass(c.name, c.groups, tuple(tuple(number[w] for w in group) for group in c.sequences), c.prior)
        for c in classes
    )
    return Tree(prefixes, edges, words, TokenRules(rules.pack, rules.pack_hash, rules.masked, as_tokens))


def redistributed(
    steps: Tensor,
    tree: Tree,
    *,
    mode: Mode = "arithmetic",
    strength: float = 1.0,
    prior: Mapping[str, float] | None = None,
) -> Targets:
    """Compute the targets from the model's log-probabilities of the tree's steps.

    Args:
        steps: [..., E] of each edge's token, given what stands before and the edge's prefix; not tempered, as a product
            of tempered probabilities is not the probability of any text.
        tree: From `tree_of`.
        mode: See `project`; its settings act on the probabilities of whole words.
        strength: See there.
        prior: See there.

    Raises:
        SettingsError: As `project` does.
    """
    import torch

    steps = steps.double()
    of = [[n for n, edge in enumerate(tree.edges) if edge.prefix == p] for p in range(len(tree.prefixes))]
    left = torch.stack([_left(steps[..., edges]) for edges in of], -1)  # [..., P]
    mass, entering = _masses(steps, tree)
    ends = {tree.word_of(edge): entering[n] for n, edge in enumerate(tree.edges) if edge.child == LEAF}
    ends |= {w: mass[p] + left[..., p] for p in range(len(mass)) if (w := tree.word_at(p)) is not None}
    words = torch.stack([ends[w] for w in range(len(tree.words))], -1)
    rest = _left(words)[..., None]
    moved = project(torch.cat([words, rest], -1), tree.rules, mode=mode, strength=strength, prior=prior)
    shift = moved[..., -1] - rest[..., 0]  # of everything that is not a word; 0 except for geometric
    new, others = _conditionals(tree, of, mass, left, moved, shift)
    here = torch.stack([_share(tree, p, words, mass[p]) for p in range(len(mass))], -1)
    return Targets(new, others, shift, words, here)


def applied(logprobs: Tensor, targets: Targets, tree: Tree, prefix: int) -> Tensor:
    """Apply the rules to distributions after a beginning of a word.

    Args:
        logprobs: [..., vocabulary] natural log-probabilities there.
        targets: Targets at the same positions.
        tree: From `tree_of`.
        prefix: The beginning.

    Returns:
        A new tensor of the same dtype. After the empty beginning, tokens that begin no word stay bit-identical,
        except with geometric.
    """
    import torch

    own = [n for n, edge in enumerate(tree.edges) if edge.prefix == prefix]
    tokens = torch.tensor([tree.edges[n].token for n in own], device=logprobs.device)
    if prefix == 0:
        out = logprobs + targets.shift[..., None].to(logprobs)
    else:  # their sum is taken from here, so that a share too small to be told from 0 before is placed all the same
        beside = logprobs.index_fill(-1, tokens, -math.inf)
        out = beside + (targets.others[..., prefix].to(logprobs) - beside.logsumexp(-1))[..., None]
    return out.index_copy(-1, tokens, targets.steps[..., own].to(logprobs))


def project_tree(
    logprobs: Tensor,
    tree: Tree,
    *,
    mode: Mode = "arithmetic",
    strength: float = 1.0,
    prior: Mapping[str, float] | None = None,
) -> Tensor:
    """Return the distributions after all beginnings of words with the rules applied.

    Args:
        logprobs: [..., P, vocabulary] natural log-probabilities of the next token after each of `tree.prefixes`, all
            after the same text; not tempered.
        tree: From `tree_of`.
        mode: See `evenhand.methods.distillation.rules.project`; it acts on whole words.
        strength: 0 .. 1; at 0 the same tensor object is returned.
        prior: Group -> share, for mode "prior".

    Raises:
        SettingsError: As `project` does, or a token id is beyond the vocabulary.
    """
    import torch

    if tree.tokens and tree.tokens[-1] >= logprobs.shape[-1]:
        raise SettingsError(
            f"the rules contain token id {tree.tokens[-1]}, but the vocabulary ends at {logprobs.shape[-1] - 1}: "
            "resolve the pack with this model's own tokenizer"
        )
    steps = torch.stack([logprobs[..., edge.prefix, edge.token] for edge in tree.edges], -1)
    targets = redistributed(steps, tree, mode=mode, strength=strength, prior=prior)
    if strength == 0:
        return logprobs
    rows = [applied(logprobs[..., p, :], targets, tree, p) for p in range(len(tree.prefixes))]
    return torch.stack(rows, -2)


# ------------------------------------------------------------------------------------------------ internals


def _spelled(c: TokenClass) -> SequenceClass:
    return SequenceClass(c.name, c.groups, tuple(tuple((i,) for i in ids) for ids in c.ids), c.prior)


def _united(classes: Sequence[SequenceClass]) -> list[SequenceClass]:
    """Merge classes that share a path: a vocabulary without capitals spells both cases alike."""
    found = []
    for together in components([w for group in c.sequences for w in group] for c in classes):
        parts = [classes[n] for n in together]
        groups: dict[str, dict[Ids, None]] = {}
        owner: dict[Ids, str] = {}
        for part in parts:
            for group, words in zip(part.groups, part.sequences, strict=True):
                groups.setdefault(group, {}).update(dict.fromkeys(words))
                for word in words:
                    if owner.setdefault(word, group) != group:
                        raise SettingsError(
                            f"rule {part.name}: the tokens {word} stand for group {owner[word]} and for group {group} "
                            "in this tokenizer; take one of the words out of the pack"
                        )
        name = "+".join(dict.fromkeys(part.name for part in parts))
        if any(part.prior != parts[0].prior for part in parts):
            raise SettingsError(f"the rules {name} share words here, but their priors differ: give them the same")
        found.append(SequenceClass(name, tuple(groups), tuple(map(tuple, groups.values())), parts[0].prior))
    return found


def _left(logs: Tensor) -> Tensor:
    """Return the log of 1 minus the sum of probabilities."""
    import torch

    return torch.log((1 - logs.exp().sum(-1)).clamp_min(LEAST_LEFT))


def _masses(steps: Tensor, tree: Tree) -> tuple[list[Tensor], list[Tensor]]:
    """Return log-probabilities of each beginning and of each edge's end, given the text."""
    import torch

    mass = [torch.zeros_like(steps[..., 0])] * len(tree.prefixes)
    entering = []
    for n, edge in enumerate(tree.edges):  # a prefix precedes all longer ones
        entering.append(mass[edge.prefix] + steps[..., n])
        if edge.child != LEAF:
            mass[edge.child] = entering[-1]
    return mass, entering


def _share(tree: Tree, prefix: int, words: Tensor, mass: Tensor) -> Tensor:
    """Return how much of a beginning's probability leads to words."""
    own = tree.prefixes[prefix]
    through = [n for n, word in enumerate(tree.words) if word[: len(own)] == own]
    return (words[..., through].logsumexp(-1) - mass).exp()


def _conditionals(
    tree: Tree,
    of: Sequence[Sequence[int]],
    mass: Sequence[Tensor],
    left: Tensor,
    moved: Tensor,
    shift: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return [..., E] steps and [..., P] all other tokens together, from the new probabilities of whole words."""
    import torch

    steps: dict[int, Tensor] = {}
    others: dict[int, Tensor] = {}
    total: dict[int, Tensor] = {}
    for p in reversed(range(len(tree.prefixes))):
        word = tree.word_at(p)
        stays = mass[p] + left[..., p] + shift if word is None else moved[..., word]
        ends = {n: _entered(tree, n, total, moved) for n in of[p]}
        total[p] = torch.stack([stays, *ends.values()], -1).logsumexp(-1)
        whole = torch.zeros_like(stays) if p == 0 else total[p]
        steps |= {n: end - whole for n, end in ends.items()}
        others[p] = stays - whole
    return torch.stack([steps[n] for n in sorted(steps)], -1), torch.stack([others[p] for p in sorted(others)], -1)


def _entered(tree: Tree, edge: int, total: Mapping[int, Tensor], moved: Tensor) -> Tensor:
    found = tree.edges[edge]
    return moved[..., tree.word_of(found)] if found.child == LEAF else total[found.child]
