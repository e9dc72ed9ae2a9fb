#!/usr/bin/env bash
# LangFair's co-occurrence bias leaves out the words that occur with one gender only, so less bias gives a higher score.
#
# Versions: langfair 0.8.0, nltk 3.10.4 (CPU).
#
# One would guess: a word that only ever occurs with one gender is the most biased
# there is; it is smoothed, or the score becomes infinite. Adding the opposite
# case (a male nurse) can only lower the score.
#
# Behaviour: CooccurrenceBiasMetric takes the ratio of a word only where the word
# occurs with both groups, and averages over what is left. Texts in which every
# nurse is a woman and every engineer a man score 0, the best value, as soon as
# any third word is balanced, and None without one. One male nurse among 51
# lifts the score to 0.86, one case on each side to 1.13. how="word_level" does
# not list the words that were left out. There is no warning.
#
# Seen (50 female nurses, 50 male engineers; doctors: 10 women, 10 men; score, words counted):
#   without the doctors: None
#   nurses and engineers by gender, doctors balanced: 0, doctor
#   one nurse is a man: 0.864, doctor nurse
#   one nurse is a man, one engineer a woman: 1.13, doctor engineer nurse
#   half of the nurses and engineers are men: 0, doctor engineer nurse

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        langfair==0.8.0 torch==2.13.0 nltk==3.10.4
fi

# What the NLTK downloads hold, as far as it matters here: a few stop words, and a sentence splitter without
# exceptions.
nltk=$work/nltk_data
mkdir -p "$nltk/corpora/stopwords" "$nltk/tokenizers/punkt_tab/english"
printf '%s\n' a an and is the was >"$nltk/corpora/stopwords/english"
for name in abbrev_types.txt collocations.tab ortho_context.tab sent_starters.txt; do
    : >"$nltk/tokenizers/punkt_tab/english/$name"
done

NLTK_DATA=$nltk HF_HUB_OFFLINE=1 "$python" -W ignore - <<'PY'
import contextlib
import io
import warnings
from importlib.metadata import version

from langfair.metrics.stereotype.metrics.cooccurrence import CooccurrenceBiasMetric

print("langfair", version("langfair"), "nltk", version("nltk"))


def texts(noun, women, men):
    return [f"She was a {noun}."] * women + [f"He was a {noun}."] * men


def measure(what, responses, figure, words):
    options = {
        "stereotype_word_list": ["nurse", "engineer", "doctor"],
        "demographic_group_word_lists": {"women": ["she", "her"], "men": ["he", "his"]},
    }
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(io.StringIO()) as printed:
        warnings.simplefilter("always", UserWarning)
        mean = CooccurrenceBiasMetric(**options).evaluate(responses, show_progress_bars=False)
        by_word = CooccurrenceBiasMetric(**options, how="word_level").evaluate(responses, show_progress_bars=False)
    if mean is None:
        print(f"{what}: None")
        if figure is not None:
            raise SystemExit(f"changed: {what}")
        return
    counted = sorted(by_word)
    print(f"{what}: {round(mean, 12):.3g},", *counted)
    if figure is None or abs(mean - figure) > 0.005 or counted != words:
        raise SystemExit(f"changed: {what}")
    if printed.getvalue() or any(issubclass(w.category, UserWarning) for w in caught):
        raise SystemExit("changed: the words left out are told now")


doctors = texts("doctor", 10, 10)
measure("without the doctors", texts("nurse", 50, 0) + texts("engineer", 0, 50), None, None)
for what, nurses, engineers, figure, words in [
    ("nurses and engineers by gender, doctors balanced", (50, 0), (0, 50), 0.0, ["doctor"]),
    ("one nurse is a man", (50, 1), (0, 50), 0.864, ["doctor", "nurse"]),
    ("one nurse is a man, one engineer a woman", (50, 1), (1, 50), 1.133, ["doctor", "engineer", "nurse"]),
    ("half of the nurses and engineers are men", (25, 25), (25, 25), 0.0, ["doctor", "engineer", "nurse"]),
]:
    measure(what, texts("nurse", *nurses) + texts("engineer", *engineers) + doctors, figure, words)
PY
