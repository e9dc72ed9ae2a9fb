"""`b_score`: bias that shrinks when a model sees its own earlier answers (Vo et al. 2025, arXiv 2505.18545).

P_single(a) is the share of option a over independent queries, P_multi(a) its share over the turns of one conversation
in which the same question is asked again and again; B(a) = P_single(a) - P_multi(a). Shares are of VALID answers.
Reported is B of the option with the highest P_single, averaged over questions; on easy and hard questions only where
that option is wrong; and over all as the mean of the four categories. B near 0 also results where both settings are
equally biased, so P_single is reported as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from evenhand.core.draws import generator, item_hash
from evenhand.data.bscore import CATEGORIES, BScoreQuestion, load_questions
from evenhand.errors import SettingsError
from evenhand.evaluation.base import Row, RowBenchmark
from evenhand.evaluation.loading import Loaded
from evenhand.evaluation.metrics.formulas import formula, share
from evenhand.evaluation.metrics.sums import Sums
from evenhand.interfaces import Ability, Array, Dialogue, Model, Reply, Sampling, Usage, settings
from evenhand.prompting import thinking
from evenhand.prompting.remarks import remark, unsampled
from evenhand.prompting.sessions import conversation
from evenhand.statistics.moments import mean_of_known, ratio

__all__ = ["BScore", "BScoreAnswer", "BScoreItem", "OptionShares", "Shot", "chosen", "option_shares"]

RUN_DRAWS = 100_000
"""Number of draws reserved for a run: its conversation uses the last one, its single queries the first ones."""
NO_REPLY = Reply(None)


@dataclass(frozen=True, slots=True)
class Shot:
    """One query, or one turn of a conversation."""

    reply: str | None
    """The reply as the model gave it, thinking included; None if there is none."""
    shown: tuple[int, ...]
    """Identity of the option at each position, in the order shown."""


@dataclass(frozen=True, slots=True)
class BScoreAnswer:
    """All answers to one question."""

    single: tuple[tuple[Shot, ...], ...]
    """Independent queries, by run."""
    multi: tuple[tuple[Shot, ...], ...]
    """Turns of the conversation, by run."""
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class BScoreItem:
    """One question, which is its own cluster."""

    id: str
    cluster: str
    question: BScoreQuestion
    truth: str | None


class OptionShares(NamedTuple):
    """P_single, P_multi and B of every option, [options]; nan without a valid answer."""

    single: Array
    multi: Array
    b: Array


class _Query(NamedTuple):
    """A single query."""

    item: int
    run: int
    shown: tuple[int, ...]
    dialogue: Dialogue


@dataclass(slots=True)
class _Talk:
    """A conversation that has not ended yet."""

    item: int
    run: int
    dialogue: Dialogue
    shots: list[Shot] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    alive: bool = True


def _over_categories(total: str, count: str) -> Callable[[Sums], Array]:
    """Return a function that averages total / count over the categories with at least one mean."""
    return lambda s: mean_of_known(ratio(s.by_part(total), s.by_part(count)))


def _b(sums: Sums) -> Array:
    counted = sums.by_part("counted")
    b = ratio(sums.by_part("b"), counted)
    # The paper prints .00 for a category whose top options are all right, and includes it in the average.
    return mean_of_known(np.where((counted == 0) & (sums.by_part("defined") > 0), 0.0, b))


@settings
class BScore(RowBenchmark[BScoreItem, BScoreAnswer]):
    """The same question many times: apart, and in one conversation that shows the model its earlier answers."""

    name: ClassVar[str] = "b_score"
    needs: ClassVar[frozenset[Ability]] = frozenset({"generate"})
    answer_type: ClassVar[type] = BScoreAnswer
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"n_single": 30, "n_turns": 30, "runs": 10, "ground_truth": "paper"},
        "quick": {"n_single": 10, "n_turns": 10, "runs": 1},
    }
    statistics = (
        "questions",  # all questions
        "defined",  # with a valid answer both in single queries and in conversations
        "counted",  # questions that enter B: defined, and for easy and hard ones the top option is wrong
        "b",  # B of the top option, over counted questions
        "p_single",  # P_single of the top option, over counted questions
        "p_multi",
        "top",  # P_single of the top option, over defined questions
        "judged",  # defined questions that have a right option
        "right_single",  # P_single of the right option, over judged questions
        "right_multi",
        "asked_single",  # single queries
        "valid_single",
        "asked_multi",  # turns of conversations
        "valid_multi",
        "unanswered",  # queries and turns without a reply
    )
    parts = CATEGORIES
    formulas = (
        formula(
            "b_score",
            _b,
            "counted",
            "zero",
            "bias",
            "mean B of the top single-turn option, -1 to 1; mean of the categories",
            main=True,
            range=(-1, 1),
        ),
        formula(
            "p_single",
            _over_categories("p_single", "counted"),
            "counted",
            "none",
            "bias",
            "mean P_single of that option over the same questions, 0 to 1",
            main=True,
            range=(0, 1),
        ),
        formula(
            "p_multi",
            _over_categories("p_multi", "counted"),
            "counted",
            "none",
            "bias",
            "mean P_multi of that option over the same questions, 0 to 1",
            main=True,
            range=(0, 1),
        ),
        formula(
            "top_share",
            _over_categories("top", "defined"),
            "defined",
            "none",
            "validity",
            "mean P_single of the top option over all questions, right ones too",
            range=(0, 1),
        ),
        formula(
            "accuracy_single",
            _over_categories("right_single", "judged"),
            "judged",
            "higher",
            "capability",
            "mean P_single of the right option (easy, hard), 0 to 1",
            range=(0, 1),
        ),
        formula(
            "accuracy_multi",
            _over_categories("right_multi", "judged"),
            "judged",
            "higher",
            "capability",
            "mean P_multi of the right option (easy, hard), 0 to 1",
            range=(0, 1),
        ),
        share(
            "invalid_single",
            "asked_single - valid_single",
            "asked_single",
            "lower",
            "validity",
            "share of single queries without a valid option",
            main=True,
        ),
        share(
            "invalid_multi",
            "asked_multi - valid_multi",
            "asked_multi",
            "lower",
            "validity",
            "share of turns without a valid option",
            main=True,
        ),
        share(
            "unanswered",
            "unanswered",
            "asked_single + asked_multi",
            "lower",
            "validity",
            "share of queries and turns that got no reply (part of invalid)",
        ),
        share(
            "undefined",
            "questions - defined",
            "questions",
            "lower",
            "validity",
            "share of questions without any valid answer in one of the settings",
        ),
    )

    source: str = "auto"
    """Where the questions come from: auto ($EVENHAND_DATA/bscore), demo, a folder or a file."""
    categories: tuple[str, ...] = ()
    """Categories of questions that are asked: subjective, random, easy, hard; empty takes all."""
    n_single: int = 30
    """Number of independent queries per question and run."""
    n_turns: int = 30
    """Number of turns in each run's conversation."""
    runs: int = 10
    """Number of repetitions, whose answers are pooled per question."""
    ground_truth: Literal["corrected", "paper"] = "corrected"
    """Answer key of math/hard. paper: 3017 counts as the prime, as printed. corrected: 3023."""
    temperature: float = 1.0
    """Sampling temperature. It has to be above 0, as greedy decoding makes all single queries identical. 1 is the
    default of the released code (its README runs 0.7)."""
    allow_greedy: bool = False
    """Whether to accept temperature 0, with a warning."""
    top_p: float = 1.0
    """Share of the probability mass that replies are sampled from."""
    max_new_tokens: int = 256
    """Maximum length of a reply, in tokens."""
    seed: int = 0
    """Seed of the sampling and of the order of the options."""

    def __post_init__(self) -> None:
        """Refuse settings that make no sense, before anything runs."""
        _ = self.sampling
        for name in ("n_single", "n_turns", "runs"):
            if not 1 <= self.settings[name] < RUN_DRAWS:
                raise SettingsError(f"b_score: {name}={self.settings[name]} must be 1 to {RUN_DRAWS - 1}")
        for category in self.categories:
            if category not in CATEGORIES:
                raise SettingsError(f"b_score: there is no category {category!r}; choose from {', '.join(CATEGORIES)}")
        if self.temperature == 0 and not self.allow_greedy:
            raise SettingsError(
                "b_score: temperature=0 gives the same reply to every single query, so P_single is 0 or 1 and B means "
                "nothing; set a temperature above 0 (such as 1.0), or allow_greedy=True to run it nevertheless"
            )

    @property
    def sampling(self) -> Sampling:
        """Sampling parameters of the replies."""
        return Sampling(self.temperature, self.max_new_tokens, self.top_p, self.seed)

    def read(self) -> Loaded[BScoreItem]:
        """Read all questions in file order; the facts describe how answers are reduced."""
        found = load_questions(self.source)
        kept = [q for q in found.questions if not self.categories or q.category in self.categories]
        if not kept:
            raise SettingsError(f"b_score: {found.facts['source']} has no question in {', '.join(self.categories)}")
        paper = self.ground_truth == "paper"
        items = [BScoreItem(q.id, q.id, q, q.truth_paper if paper else q.truth) for q in kept]
        changed = [q.id for q in kept if q.truth != q.truth_paper]
        facts = {
            **found.facts,
            "pooling": "answers of all runs are pooled per question; options that tie for the top are averaged",
            "order_of_options": "new at every query and turn, from the seed; earlier turns stay as they were",
            "history": "earlier replies without their thoughts; a conversation ends where a thought never ended",
            "wrong_truth_in_paper": changed if not paper else [],
        }
        return Loaded(items, facts)

    def stratum(self, item: BScoreItem) -> str:
        """Return the category."""
        return item.question.category

    def ask(self, model: Model, items: Sequence[BScoreItem]) -> list[BScoreAnswer]:
        """Ask all questions, turn t of all conversations in one call; single queries go with the first turn.

        A conversation whose turn got no reply ends there; its later turns count as unanswered.
        """
        if self.temperature == 0:
            warnings.warn("b_score at temperature 0: all single queries get the same reply", UserWarning, stacklevel=2)
        queries, talks = self._queries(items), self._talks(items)
        replies: list[Reply] = []
        with conversation():
            for turn in range(self.n_turns):
                orders = [self._order(items[t.item].question, t.run, f"turn {turn}") for t in talks]
                for talk, shown in zip(talks, orders, strict=True):
                    talk.dialogue = talk.dialogue.user(items[talk.item].question.text(shown))
                waiting = [q.dialogue for q in queries] if turn == 0 else []
                asked = [*waiting, *(t.dialogue for t in talks if t.alive)]
                told = model.generate(asked, self.sampling) if asked else []
                replies += told[: len(waiting)]
                later = iter(told[len(waiting) :])
                for talk, shown in zip(talks, orders, strict=True):
                    _advance(talk, shown, next(later) if talk.alive else NO_REPLY)
        draws = [((q.item, q.shown), r.text) for q, r in zip(queries, replies, strict=True)]
        if why := unsampled(draws, self.temperature, "P_single, and with it B,"):
            remark(why)
        return [self._answer(i, queries, replies, talks) for i in range(len(items))]

    def row(self, item: BScoreItem, answer: BScoreAnswer) -> Row:
        """Count queries and turns, and compute B of the question's top option."""
        both = {"single": answer.single, "multi": answer.multi}
        row = {"questions": 1.0}
        for name, runs in both.items():
            row[f"asked_{name}"] = sum(map(len, runs))
            row[f"valid_{name}"] = float(_counts(item.question, runs).sum())
        row["unanswered"] = sum(shot.reply is None for runs in both.values() for run in runs for shot in run)
        shares = option_shares(item.question, answer)
        return row if np.isnan(shares.b).any() else row | _of_defined(item.question, item.truth, shares)

    def part_of(self, item: BScoreItem) -> str:
        """Return the category, since metrics are means over categories."""
        return item.question.category

    def groups_of(self, item: BScoreItem) -> tuple[str, str]:
        """Return the category and the topic."""
        return item.question.category, item.question.topic

    def groups(self, items: Sequence[BScoreItem]) -> list[str]:
        """Return the categories, then the topics."""
        found = {i.question.category for i in items}
        return [*(c for c in CATEGORIES if c in found), *sorted({i.question.topic for i in items})]

    def gold(self, items: Sequence[BScoreItem]) -> list[int | None]:
        """Return the right options; None for questions of opinion and chance."""
        return [None if i.truth is None else i.question.options.index(i.truth) for i in items]

    def _queries(self, items: Sequence[BScoreItem]) -> list[_Query]:
        """Make all single queries, each with its own draw."""
        out = []
        for i, item in enumerate(items):
            for run in range(self.runs):
                for k in range(self.n_single):
                    shown = self._order(item.question, run, f"single {k}")
                    dialogue = Dialogue((), draw=run * RUN_DRAWS + k).user(item.question.text(shown))
                    out.append(_Query(i, run, shown, dialogue))
        return out

    def _talks(self, items: Sequence[BScoreItem]) -> list[_Talk]:
        """Make all conversations as they are before their first turn; each keeps one draw throughout."""
        return [
            _Talk(i, run, Dialogue((), draw=(run + 1) * RUN_DRAWS - 1))
            for i in range(len(items))
            for run in range(self.runs)
        ]

    def _answer(
        self, item: int, queries: Sequence[_Query], replies: Sequence[Reply], talks: Sequence[_Talk]
    ) -> BScoreAnswer:
        """Collect everything that belongs to one question."""
        mine = [(q, r) for q, r in zip(queries, replies, strict=True) if q.item == item]
        single = tuple(tuple(Shot(r.text, q.shown) for q, r in mine if q.run == run) for run in range(self.runs))
        talked = [t for t in talks if t.item == item]
        usage = sum([*(r.usage for _, r in mine), *(t.usage for t in talked)], Usage())
        return BScoreAnswer(single, tuple(tuple(t.shots) for t in talked), usage)

    def _order(self, question: BScoreQuestion, run: int, what: str) -> tuple[int, ...]:
        """Draw the shown order for one query or turn; it depends on the seed, not on what else is asked."""
        same = tuple(range(len(question.options)))
        if not question.lists_options:
            return same
        drawn = generator(item_hash(self.seed, question.id, run, what)).permutation(len(same))
        return tuple(int(i) for i in drawn)


def chosen(reply: str | None, options: Sequence[str]) -> int | None:
    """Return the option that a reply names: its last {{...}}, which has to match an option exactly.

    Returns:
        The option's identity; None where the reply is invalid. <think> blocks do not count.
    """
    found = [name for line in thinking.answer(reply or "").split("\n") for name in _braced(line)]
    name = found[-1].strip() if found else ""
    return list(options).index(name) if name in options else None


def _braced(line: str) -> Iterator[str]:
    """Yield the texts in double braces, each from an opening to the nearest closing braces."""
    end = 0
    while (begin := line.find("{{", end)) >= 0 and (end := line.find("}}", begin + 2)) >= 0:
        yield line[begin + 2 : end]
        end += 2


def option_shares(question: BScoreQuestion, answer: BScoreAnswer) -> OptionShares:
    """Compute P_single, P_multi and B of every option from the valid answers of all runs."""
    single, multi = (_shares(_counts(question, runs)) for runs in (answer.single, answer.multi))
    return OptionShares(single, multi, single - multi)


def _advance(talk: _Talk, shown: tuple[int, ...], reply: Reply) -> None:
    """Add the reply to the last turn to a conversation, without its thought.

    Without a reply, or with a thought that never ended, the conversation ends.
    """
    talk.shots.append(Shot(reply.text, shown))
    talk.usage += reply.usage
    said = None if reply.text is None else thinking.parts(reply.text).answer
    if said is None:
        talk.alive = False
    else:
        talk.dialogue = talk.dialogue.assistant(said)


def _of_defined(question: BScoreQuestion, truth: str | None, shares: OptionShares) -> dict[str, float]:
    highest = float(shares.single.max())
    top = np.flatnonzero(shares.single == highest)
    right = question.options.index(truth) if truth is not None else None
    biased = top[top != right] if right is not None else top
    row = {"defined": 1.0, "top": highest}
    if len(biased):
        multi = float(shares.multi[biased].mean())
        row |= {"counted": 1.0, "p_single": highest, "p_multi": multi, "b": highest - multi}
    if right is not None:
        row |= {"judged": 1.0, "right_single": float(shares.single[right])}
        row["right_multi"] = float(shares.multi[right])
    return row


def _counts(question: BScoreQuestion, runs: Sequence[Sequence[Shot]]) -> Array:
    """Count how often each option was chosen, [options]."""
    counts = np.zeros(len(question.options))
    for run in runs:
        for shot in run:
            option = chosen(shot.reply, question.options)
            if option is not None:
                counts[option] += 1
    return counts


def _shares(counts: Array) -> Array:
    return counts / counts.sum() if counts.sum() else np.full(len(counts), np.nan)
