"""Apply rules on words of several tokens in the training of a causal student.

The rules are those of `evenhand.methods.distillation.rules.sequences`.

The rule acts where a text begins such a word, or a word that is a beginning of one, and a gate leaves the choice open.
The teacher's probabilities of whole words there are read once, before the training. The student is then taught at every
position that decides about one of the words: after the text so far, and after the text so far followed by each
beginning of a word. Beginnings that the text itself takes are positions of the text; for each of the others an extra
branch is read, the text so far with that beginning, from which nothing else is learned. Elsewhere only rules on single
tokens act.

The rule acts on the teacher's distributions as they are, and the temperature is applied to the result: a product of
tempered probabilities is not the probability of any text, and words that are equal by it are not equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor

from evenhand.inference.scoring import frozen
from evenhand.methods.distillation._batches import Ids, Rows, Text, batches
from evenhand.methods.distillation._states import states_of
from evenhand.methods.distillation.rules import Targets, TokenRules, Tree, project, tree_of
from evenhand.methods.distillation.rules.projection import Mode
from evenhand.methods.distillation.rules.sequences import LEAF, applied, redistributed
from evenhand.training.causal import finish_of
from evenhand.training.packing import IGNORED, Layout

NOWHERE = -1


class WordRule:
    """Transforms a teacher's distributions where texts begin words of several tokens."""

    def __init__(
        self,
        rules: TokenRules,
        *,
        mode: Mode,
        strength: float,
        prior: Mapping[str, float] | None = None,
        soften: bool = True,
        emphasis: float = 0.0,
    ) -> None:
        """Create the rule.

        Args:
            rules: Rules with sequences, in the model's tokenizer.
            mode: See `evenhand.methods.distillation.rules.project`; it acts on whole words.
            strength: See there; above 0.
            prior: See there.
            soften: Whether tokens of the text's own word are replaced by the rule's distribution.
            emphasis: Additional weight of a position, times the share of its probability that leads to words.
        """
        self.tree: Tree = tree_of(rules)
        self.mode, self.strength, self.prior = mode, strength, prior
        self.soften, self.emphasis = soften, emphasis
        self._steps = {(edge.prefix, edge.token): edge.child for edge in self.tree.edges}
        self._concerned = _concerned(self.tree, rules)
        self._starts: dict[tuple[int, ...], int] = {}
        self._class: list[int] = []
        self.targets: Targets | None = None
        """Targets of every start, once the teacher has been read."""
        self._softened = torch.zeros(0)

    @property
    def starts(self) -> int:
        """Number of different positions of texts where the rule acts."""
        return len(self._class)

    # -------------------------------------------------------------------------------------------- in texts

    def marked(self, texts: Iterable[Text]) -> list[Text]:
        """Return a causal model's texts with the positions the rule acts on, each followed by its branches."""
        out = []
        for text in texts:
            spots = [NOWHERE] * len(text.ids)
            branches: list[Text] = []
            for place in range(len(text.ids) - 1):
                if text.open[place] and spots[place] == NOWHERE:  # one that is taken begins no other
                    branches += self._begin(text, place, spots)
            out += [text._replace(spots=spots) if any(n != NOWHERE for n in spots) else text, *branches]
        return out

    def _begin(self, text: Text, place: int, spots: list[int]) -> Iterator[Text]:
        """Note the positions of a start that the text itself takes, and yield the branches for the others."""
        taken, word = self._followed(text.ids, place)
        if word is None or word not in self._concerned:
            return
        start = self._numbered(text.ids[: place + 1], word)
        for prefix, path in enumerate(self.tree.prefixes):
            spot, at = start * len(self.tree.prefixes) + prefix, place + len(path)
            if prefix in taken and at < len(text.ids) - 1:
                spots[at] = spot
            else:
                yield self._branch(text.ids[: place + 1], prefix, spot)

    def _followed(self, ids: Ids, place: int) -> tuple[list[int], int | None]:
        """Return the beginnings that a text takes after a position, and the word that it writes there, if any."""
        taken = [0]
        for token in ids[place + 1 :]:
            child = self._steps.get((taken[-1], token))
            if child is None:
                break
            if child == LEAF:
                return taken, self.tree.words.index((*self.tree.prefixes[taken[-1]], token))
            taken.append(child)
        return taken, self.tree.word_at(taken[-1])

    def _numbered(self, before: Ids, word: int) -> int:
        # the text so far decides all targets; the word decides how its own tokens are softened
        key = (word, *before)
        if key not in self._starts:
            self._starts[key] = len(self._class)
            self._class.append(self.tree.class_of(word))
        return self._starts[key]

    def _branch(self, before: Ids, prefix: int, spot: int) -> Text:
        follows = next(edge.token for edge in self.tree.edges if edge.prefix == prefix)  # any token, as it is not read
        ids = [*before, *self.tree.prefixes[prefix], follows]
        size = len(ids) - 2
        return Text(
            ids,
            [IGNORED] * len(ids),
            [False] * len(ids),
            [*[NOWHERE] * size, spot, NOWHERE],
            [*[False] * size, True, False],
        )

    # ------------------------------------------------------------------------------------------ the teacher

    def read(self, teacher: Any, texts: Sequence[Text], layout: Layout, pad: int, tokens: int) -> None:
        """Ask the teacher what follows each beginning at every start of the marked texts.

        Args:
            teacher: A causal language model; not changed.
            texts: From `marked`: all texts that will be trained or evaluated on.
            layout: Layout of the teacher.
            pad: Token with which rows are padded.
            tokens: Maximum number of tokens in a batch.
        """
        finish, head = finish_of(teacher), teacher.get_output_embeddings()
        found = torch.zeros(self.starts, len(self.tree.edges), dtype=torch.float64)
        needed = [text for text in texts if text.spots]
        with frozen(teacher):
            for rows in batches(needed, layout, tokens, pad, Random(0)) if needed else []:
                places, spots = _spotted(rows)
                inputs = {k: v.to(teacher.device) if isinstance(v, Tensor) else v for k, v in rows.inputs.items()}
                before = states_of(teacher, head, inputs, places, last=False).before_head
                logs = torch.log_softmax(finish(head(before)).float(), -1).double().cpu()
                for prefix, own in enumerate(self._edges()):
                    at = spots % len(self.tree.prefixes) == prefix
                    said = logs[at][:, [self.tree.edges[n].token for n in own]]
                    found[(spots[at] // len(self.tree.prefixes))[:, None], torch.tensor(own)] = said
        self.targets = redistributed(found, self.tree, mode=self.mode, strength=self.strength, prior=self.prior)
        self._softened = self._softened_labels(self.targets.words)

    def _softened_labels(self, words: Tensor) -> Tensor:
        """Return [starts, E + P]: how much of each start's class takes each step, and ends at each beginning."""
        alone = torch.full_like(words, float("-inf"))
        for n, c in enumerate(self.tree.rules.classes):
            own = torch.tensor([w for ids in c.ids for w in ids])
            starts = torch.nonzero(torch.tensor(self._class) == n)
            alone[starts, own] = words[starts, own].log_softmax(-1)
        mode: Mode = "prior" if self.mode == "prior" else "arithmetic"
        made = project(alone, self.tree.rules, mode=mode, prior=self.prior).exp()
        made = torch.where(alone > -torch.inf, made, 0.0)
        steps = [(*self.tree.prefixes[edge.prefix], edge.token) for edge in self.tree.edges]
        through = [[float(word[: len(step)] == step) for step in steps] for word in self.tree.words]
        ended = [[float(word == prefix) for prefix in self.tree.prefixes] for word in self.tree.words]
        return made @ torch.cat([torch.tensor(through), torch.tensor(ended)], 1).to(made)

    def _edges(self) -> list[list[int]]:
        return [[n for n, e in enumerate(self.tree.edges) if e.prefix == p] for p in range(len(self.tree.prefixes))]

    # ------------------------------------------------------------------------------------------- the student

    def target(self, logprobs: Tensor, spots: Tensor) -> Tensor:
        """Return the student's targets at spots [n], [n, vocabulary], from untempered teacher `logprobs`."""
        assert self.targets is not None
        out = logprobs.clone()
        for prefix, at, starts in self._by_prefix(spots):
            here = Targets(*(values[starts] for values in self.targets))
            out[at] = applied(logprobs[at], _on(here, logprobs.device), self.tree, prefix)
        return out

    def weight(self, spots: Tensor) -> Tensor:
        """Return the weight of each spot, [n]."""
        assert self.targets is not None
        count = len(self.tree.prefixes)
        share = self.targets.here[(spots // count).cpu(), (spots % count).cpu()]
        return 1 + self.emphasis * share.float().to(spots.device)

    def soft(self, labels: Tensor, logprobs: Tensor, spots: Tensor) -> Tensor:
        """Return probabilities in place of labels [n], [n, vocabulary]: each group of the word's class gets its share.

        If the class has a word that ends here and others that continue, the share of the ended one is that of the label
        if it is not a step to a word, and otherwise spread as the teacher spreads it.
        """
        hard = torch.zeros_like(logprobs).scatter_(1, labels[:, None], 1.0)
        out = torch.zeros_like(logprobs)
        for prefix, at, starts in self._by_prefix(spots):
            own = self._edges()[prefix]
            tokens = torch.tensor([self.tree.edges[n].token for n in own], device=labels.device)
            steps, ended = self._softened[starts][:, own], self._softened[starts, len(self.tree.edges) + prefix]
            whole = (steps.sum(-1) + ended).clamp_min(1e-300)
            spread = logprobs[at].index_fill(-1, tokens, -torch.inf).softmax(-1)
            spread = torch.where(torch.isin(labels[at], tokens)[:, None], spread, hard[at])
            rest = (ended / whole).to(spread)[:, None] * spread
            out[at] = rest.index_copy(-1, tokens, (steps / whole[:, None]).to(spread))
        return self.strength * out + (1 - self.strength) * hard

    def _by_prefix(self, spots: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield for each beginning the spots after it, and their starts (on the CPU)."""
        count = len(self.tree.prefixes)
        for prefix in sorted(set((spots % count).tolist())):
            at = torch.nonzero(spots % count == prefix).flatten()
            yield int(prefix), at, (spots[at] // count).cpu()


def _concerned(tree: Tree, rules: TokenRules) -> frozenset[int]:
    """Return words of classes with a word of several tokens, and words that begin other words."""
    several = {n for n, c in enumerate(tree.rules.classes) if any(len(tree.words[w]) > 1 for ids in c.ids for w in ids)}
    return frozenset(w for w in range(len(tree.words)) if tree.class_of(w) in several or tree.words[w] in tree.prefixes)


def _spotted(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return positions of a batch that have spots, in the flattened table, and the spots."""
    assert rows.spots is not None
    flat = rows.spots.flatten()
    places = torch.nonzero(flat >= 0).flatten()
    return places, flat[places]


def _on(targets: Targets, device: torch.device) -> Targets:
    return Targets(*(values.to(device) for values in targets))
