"""IFEval's own checkers, as lm-evaluation-harness maintains them (extra `ifeval`), made deterministic and offline.

Three things are ours. Language detection is seeded. What the official code draws at random where an argument cannot be
used (keys 1122 and 1129 ask for "#" and "!", and the checker knows only the letters a to z) is drawn from the prompt's
key. And nothing is downloaded: sentences are split by NLTK's English model where it is installed, and else by the same
algorithm with a list of abbreviations from here.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache, lru_cache
from io import StringIO
from typing import Any, Literal, NamedTuple

from evenhand.core.word_lists import listed
from evenhand.errors import SettingsError

Sentences = Literal["auto", "nltk", "built_in"]
SENTENCE_TYPES = frozenset({"length_constraints:number_sentences", "change_case:capital_word_frequency"})
"""Instructions whose checkers split sentences."""
_LOGGER = "lm_eval.tasks.ifeval.instructions"
_ABBREVIATIONS = frozenset(
    listed(
        """
        a.d, a.m, adm, approx, apt, assn, assoc, asst, aug, b.c, bldg, blvd, brig, bros, c.e, capt, cf, cmdr, co, col,
        corp, cpl, d.c, dept, dist, div, dr, e.g, eds, eq, est, etc, feb, fig, figs, ft, gov, hon, hr, hrs, i.e, inc,
        jan, jr, jul, jun, lb, lbs, lt, ltd, maj, mfg, mr, mrs, ms, mt, nov, oct, p.m, p.p.s, p.s, ph.d, pp, pres, prof,
        pvt, rep, rev, sen, sept, sgt, sr, st, u.k, u.n, u.s, u.s.a, univ, vol, vs, yd
        """
    )
)
"""Words whose full stop does not end a sentence."""


class Verdict(NamedTuple):
    """Whether a response follows an instruction, and notes on the check."""

    followed: bool
    note: Literal["", "undetected language", "checker error"] = ""
    """An undetected language counts as followed (official); an error inside a checker does not."""


def available() -> bool:
    """Whether the checkers are installed."""
    return all(importlib.util.find_spec(name) for name in ("lm_eval", "langdetect", "immutabledict", "nltk"))


def splitter(wanted: Sentences = "auto") -> Literal["nltk", "built_in"]:
    """Return which way of splitting sentences is used.

    Raises:
        SettingsError: "nltk" is wanted, but its English model is not installed.
    """
    if wanted == "built_in":
        return "built_in"
    if _has_punkt():
        return "nltk"
    if wanted == "nltk":
        raise SettingsError(
            "sentences='nltk' needs NLTK's English model, which is never fetched at run time: "
            "python -m nltk.downloader punkt_tab, or set sentences='built_in'"
        )
    return "built_in"


def follows(instruction: str, arguments: Mapping[str, Any], response: str) -> bool:
    """Whether a response follows an instruction, strictly: a blank one does not.

    Raises:
        SettingsError: The checkers are not installed.
    """
    return strict(instruction, arguments, response).followed


def strict(
    instruction: str, arguments: Mapping[str, Any], response: str, *, key: int = 0, sentences: Sentences = "auto"
) -> Verdict:
    """The official strict check: the response as it is; a blank one does not follow.

    Args:
        instruction: One of the registered ids, such as "punctuation:no_comma".
        arguments: Arguments of the checker.
        response: The model's text, without its <think> blocks.
        key: The prompt's key, which determines what the official code would draw at random.
        sentences: How sentences are split.

    Raises:
        SettingsError: The checkers are not installed, the instruction is unknown, or `sentences` is not available.
    """
    given = json.dumps(dict(arguments), sort_keys=True)
    return _strict(instruction, given, response, key, splitter(sentences))


def loose(
    instruction: str, arguments: Mapping[str, Any], response: str, *, key: int = 0, sentences: Sentences = "auto"
) -> Verdict:
    """The official loose check: any of the eight `variants` passes strictly. Arguments as for `strict`."""
    last = Verdict(False)
    for variant in variants(response):
        last = strict(instruction, arguments, variant, key=key, sentences=sentences)
        if last.followed:
            return last
    return last


def variants(response: str) -> tuple[str, ...]:
    """The eight readings of the loose check: without first, last or both lines; each also without asterisks."""
    lines = response.split("\n")
    cut = ("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))
    readings = (response, *cut)
    return (*readings, *(r.replace("*", "") for r in readings))


@lru_cache(maxsize=100_000)
def _strict(instruction: str, given: str, response: str, key: int, split: Literal["nltk", "built_in"]) -> Verdict:
    """Check strictly, cached since the loose check and rescoring of saved answers repeat it."""
    types = _registry()
    if instruction not in types:
        raise SettingsError(f"{instruction!r} is not one of IFEval's instructions: {', '.join(sorted(types))}")
    if not response.strip():
        return Verdict(False)
    with _drawn_from(key):
        checker = types[instruction](instruction)
        checker.build_description(**json.loads(given))
    check = _with_sentences(checker, instruction) if split == "built_in" else checker.check_following
    with _watching() as watch:
        try:
            followed = bool(check(response))
        except Exception:  # such as json.loads on thousands of opening brackets; one response must not end a run
            return Verdict(False, "checker error")
    return Verdict(followed, "undetected language" if watch.seen else "")


def _with_sentences(checker: Any, instruction: str) -> Callable[[str], bool]:
    """Return one of the two checkers that split sentences, with the number of sentences."""
    counts: dict[str, tuple[Callable[[str], int], str, str]] = {
        "length_constraints:number_sentences": (count_sentences, "num_sentences", "relation"),
        "change_case:capital_word_frequency": (_capital_words, "capital_frequency", "capital_relation"),
    }
    if instruction not in counts:
        return checker.check_following  # type: ignore[no-any-return]
    count, number, relation = counts[instruction]
    told = checker.get_instruction_args()

    def check(response: str) -> bool:
        found = count(response)
        return bool(found < told[number] if told[relation] == "less than" else found >= told[number])

    return check


def count_sentences(text: str) -> int:
    """Count sentences in the built-in way: NLTK's Punkt algorithm, untrained, with the abbreviations listed here.

    Unlike the trained model it ends no sentence at an ellipsis or at an abbreviation.
    """
    return len(_punkt().tokenize(text))


def _capital_words(text: str) -> int:
    """Count words in capitals, as `nltk.word_tokenize` finds them: sentence by sentence, hyphens inside."""
    from nltk.tokenize.destructive import NLTKWordTokenizer

    words = NLTKWordTokenizer()
    return sum(word.isupper() for sentence in _punkt().tokenize(text) for word in words.tokenize(sentence))


@cache
def _punkt() -> Any:
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(_ABBREVIATIONS)
    return PunktSentenceTokenizer(parameters)


@cache
def _has_punkt() -> bool:
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english")
    except LookupError:
        return False
    return True


@cache
def _registry() -> Mapping[str, Any]:
    if not available():
        raise SettingsError("IFEval's checkers are not installed: pip install 'evenhand[ifeval]'")
    import nltk

    langdetect: Any = importlib.import_module("langdetect")
    langdetect.DetectorFactory.seed = 0  # each detection then starts from the same state
    fetch, nltk.download = nltk.download, lambda *_, **__: False  # the import fetches what `splitter` decides on
    try:
        with redirect_stdout(StringIO()):
            from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT
    finally:
        nltk.download = fetch
    return dict(INSTRUCTION_DICT)


@contextmanager
def _drawn_from(key: int) -> Iterator[None]:
    """Make the official code's random draws depend on the key inside the block, preserving the caller's state."""
    state = random.getstate()
    random.seed(key)
    try:
        yield
    finally:
        random.setstate(state)


class _Watch(logging.Filter):
    """Notices what the checkers log instead of raising, and keeps it (it holds the whole response) out of the log."""

    seen = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Note that there was a record, and drop it."""
        self.seen = True
        return False


@contextmanager
def _watching() -> Iterator[_Watch]:
    watch, logger = _Watch(), logging.getLogger(_LOGGER)
    logger.addFilter(watch)
    try:
        yield watch
    finally:
        logger.removeFilter(watch)
