"""Training data in tokens: pairs, texts to retain, and questions with their rewards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from evenhand.core.draws import shuffled
from evenhand.errors import SettingsError
from evenhand.interfaces import Pair, Question
from evenhand.methods.unlearning._dpo import read_pairs
from evenhand.methods.unlearning._pairwise.letters import prompt_tokens
from evenhand.methods.unlearning._pairwise.rewards import is_unknown, rewards_of
from evenhand.models.tokenization import Encoder
from evenhand.training.holding_out import hold_out

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]


class Row(NamedTuple):
    """A tokenised pair; the loss is only on the two continuations."""

    prompt: Ids
    chosen: Ids
    """The counter-stereotyped side, its suffix included."""
    rejected: Ids
    """The stereotyped side, likewise."""
    axis: str

    @property
    def texts(self) -> tuple[Ids, Ids]:
        """Return both whole texts, for `hold_out`."""
        return self.prompt + self.chosen, self.prompt + self.rejected

    @property
    def swapped(self) -> Row:
        """Return the same pair with its sides exchanged."""
        return self._replace(chosen=self.rejected, rejected=self.chosen)


class Rewarded(NamedTuple):
    """A question with the reward of each option, by identity."""

    question: Question
    rewards: tuple[float, ...]
    ambiguous: bool
    """Whether the right option is that the answer cannot be known."""


class Lesson(NamedTuple):
    """Everything that is trained on, and what is held out."""

    train: Sequence[Row]
    held: Sequence[Row]
    left_out: dict[str, int]
    """Number of items that could not be used, by reason."""
    texts: Sequence[Ids] = ()
    questions: Sequence[Rewarded] = ()
    held_questions: Sequence[Rewarded] = ()


class Read(NamedTuple):
    """Usable pairs, equal ones once, and the names of the others, by reason."""

    rows: list[Row]
    repeated: int
    left_out: dict[str, list[str]]


def read_rows(pairs: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, length: int) -> Read:
    """Tokenise pairs as `evenhand.methods.unlearning._dpo.read_pairs` divides prompt and continuation.

    Args:
        pairs: Pairs of texts.
        tokenizer: The model's own.
        length: Maximum number of tokens of a prompt and one side.
    """
    found = read_pairs(pairs, tokenizer, length)
    rows = [
        Row(tuple(row["prompt_ids"]), tuple(row["chosen_ids"]), tuple(row["rejected_ids"]), axis)
        for row, axis in zip(found.rows, found.axes, strict=True)
    ]
    once = list({row[:3]: row for row in reversed(rows)}.values())[::-1]
    return Read(once, len(rows) - len(once), found.left_out)


def divided(rows: Sequence[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Divide rows into training and held-out ones; those that share a text stay together."""
    return hold_out(rows, lambda row: row.texts, fraction, seed)


def read_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int) -> list[Ids]:
    """Tokenise texts, cut at a maximum number of tokens; those without a second token are left out."""
    return [tuple(ids[:length]) for ids in Encoder(tokenizer).plain(texts) if len(ids[:length]) > 1]


def read_questions(
    questions: Sequence[Question], answers: Sequence[int | None], tokenizer: PreTrainedTokenizerBase, length: int
) -> list[Rewarded]:
    """Return questions with a known answer and a prompt that fits, with their rewards.

    Args:
        questions: Multiple-choice questions.
        answers: Identity of the right option of each, or None.
        tokenizer: The model's own.
        length: Maximum number of tokens of a prompt.

    Raises:
        SettingsError: The numbers of answers and questions differ, or all questions with an option "unknown" have
            it as the right answer, so that always abstaining would be learned.
    """
    if len(answers) != len(questions):
        raise SettingsError(f"{len(answers)} answers for {len(questions)} questions: pass one (or None) for each")
    encoder = Encoder(tokenizer)
    known = [(q, a) for q, a in zip(questions, answers, strict=True) if a is not None]
    found = [
        Rewarded(q, rewards_of(q, a), is_unknown(q.options[a])) for q, a in known if prompt_tokens(q, encoder) <= length
    ]
    if found and all(one.ambiguous for one in found):
        raise SettingsError(
            'the right answer to every question is that it cannot be known, so always answering "unknown" would '
            "be learned: add questions whose context names the person (disambiguated rows)"
        )
    return found


def divided_questions(
    questions: Sequence[Rewarded], fraction: float, seed: int
) -> tuple[list[Rewarded], list[Rewarded]]:
    """Divide questions into training and held-out ones; those with equal texts stay together."""

    def texts(one: Rewarded) -> Iterable[str]:
        return [repr((one.question.context, one.question.question, sorted(one.question.options)))]

    return hold_out(questions, texts, fraction, seed)


def adversarial(rows: Sequence[Row], fraction: float, seed: int) -> frozenset[int]:
    """Return indices of the rows whose chosen side is forgotten as well: a seeded draw of a fraction of them."""
    count = round(fraction * len(rows))
    return frozenset(Random(f"{seed}/adversarial").sample(range(len(rows)), count))


def stream(count: int, start: int, size: int, name: str, chosen: Callable[[int], bool] | None = None) -> list[int]:
    """Return part of an endless stream of indices, in which each pass has its own seeded order.

    Args:
        count: Number of items.
        start: Position in the stream.
        size: Number of indices to return.
        name: Seed of the orders.
        chosen: Items that are in the stream; None takes all.
    """
    own = [n for n in range(count) if chosen is None or chosen(n)]
    out: list[int] = []
    while len(out) < size:
        which, at = divmod(start + len(out), len(own))
        out += _order(tuple(own), f"{name}/{which}")[at : at + size - len(out)]
    return out


@lru_cache(maxsize=8)  # a pass has many steps, and a step takes from at most two passes over each of four streams
def _order(own: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Return the order of one pass of a stream."""
    return tuple(shuffled(own, name))
