#!/usr/bin/env bash
# RIPA with a word that the model does not know pairs every later word with the wrong partner.
#
# Versions: wefe 1.0.1, gensim 4.4.0, numpy 1.26.4 (CPU).
#
# One would guess: RIPA is defined on pairs (she and he, woman and man), so a
# pair of which one word is missing is left out, and the others keep their score.
#
# Behaviour: the missing word is taken out of its own list only, and the lists
# are then paired by position. With "she" missing from the first list, woman
# meets he, girl meets man, and so on. There is no error and no warning:
# losing one word of six is within the lost_vocabulary_threshold of 20 %.
# The score falls to about a tenth here, since most of the pairs no longer
# differ by gender alone. The same word missing from the second list raises
# an IndexError instead.
#
# Seen (six pairs that differ by one direction only, four attribute words):
#   all six pairs: 1.32536
#   five pairs, without she and he: 1.32536
#   six pairs, she unknown: 0.14063
#   the same six pairs with the lists in the other order, she unknown: IndexError
#   four pairs, without she and he, queen and king: 1.32536
#   six pairs, she and king unknown: 0.14063

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        wefe==1.0.1 gensim==4.4.0 numpy==1.26.4 scipy==1.12.0
fi

"$python" -W ignore - <<'PY'
import warnings
from importlib.metadata import version

import numpy as np
from gensim.models import KeyedVectors
from wefe.metrics import RIPA
from wefe.query import Query
from wefe.word_embedding_model import WordEmbeddingModel

print("wefe", version("wefe"), "gensim", version("gensim"), "numpy", np.__version__)
SIZE = 20
PAIRS = [
    ("she", "he"),
    ("woman", "man"),
    ("girl", "boy"),
    ("mother", "father"),
    ("sister", "brother"),
    ("queen", "king"),
]
ATTRIBUTES = ["home", "family", "cook", "nurse"]


def vectors():
    """Each pair has a place of its own and differs by the one direction that the attributes lean to."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=SIZE)
    direction /= np.linalg.norm(direction)
    table = {}
    for first, second in PAIRS:
        middle = 3 * rng.normal(size=SIZE)
        table[first], table[second] = middle + direction, middle - direction
    for word in ATTRIBUTES:
        table[word] = rng.normal(size=SIZE) + 2 * direction
    return table


def ripa(pairs, unknown=(), turned=False):
    known = {word: vector for word, vector in vectors().items() if word not in unknown}
    keyed = KeyedVectors(SIZE)
    keyed.add_vectors(list(known), list(known.values()))
    sides = [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]
    query = Query(sides[::-1] if turned else sides, [ATTRIBUTES], ["one", "other"], ["home"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = RIPA().run_query(query, WordEmbeddingModel(keyed, "made up"))
    if any(issubclass(w.category, UserWarning) for w in caught):
        raise SystemExit("changed: there is a warning now")
    return float(result["ripa"])


def expect(what, seen, figure, slack=0.01):
    """Seen lies within slack (a share) of the figure."""
    print(f"{what}: {seen:.6g}")
    if not abs(seen - figure) <= slack * abs(figure):
        raise SystemExit(f"changed: {what} was {figure}, is now {seen}")


expect("all six pairs", ripa(PAIRS), 1.32536)
expect("five pairs, without she and he", ripa(PAIRS[1:]), 1.32536)
expect("six pairs, she unknown", ripa(PAIRS, unknown=["she"]), 0.140630)
try:
    ripa(PAIRS, unknown=["she"], turned=True)
except IndexError:
    print("the same six pairs with the lists in the other order, she unknown: IndexError")
else:
    raise SystemExit("changed: the other order raises no error")
expect("four pairs, without she and he, queen and king", ripa(PAIRS[1:5]), 1.32536)
expect("six pairs, she and king unknown", ripa(PAIRS, unknown=["she", "king"]), 0.140630)
PY
