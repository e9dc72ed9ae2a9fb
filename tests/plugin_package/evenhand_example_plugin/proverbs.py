"""A source of training data: proverbs, for methods that train on plain texts."""

from __future__ import annotations

from evenhand import TrainData
from evenhand.errors import SettingsError

PROVERBS = ("Many hands make light work.", "Look before you leap.", "Still waters run deep.")


def load(rest: str) -> TrainData:
    """Read `--train proverbs`, or the first ones: `--train proverbs:2`.

    Args:
        rest: What follows the colon; "" where nothing does.
    """
    if rest and not rest.isdigit():
        raise SettingsError(f"proverbs:{rest}: {rest!r} is not a number of proverbs; write proverbs:2")
    return TrainData(texts=PROVERBS[: int(rest) if rest else None])
