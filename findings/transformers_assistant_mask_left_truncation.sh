#!/usr/bin/env bash
# The assistant mask is empty once left truncation cuts into the first answer, also where later answers are kept.
#
# Versions: transformers 5.23.0, tokenizers 0.23.3 (no torch needed).
#
# One would guess: return_assistant_tokens_mask marks every token of an answer that
# is still there after truncation, on whichever side the text was cut.
#
# Behaviour: answers are looked up from the first to the last, and the search stops
# at the first one whose start is no longer in the text. With
# truncation_side="right" that is right. With "left", where the start of the first
# answer is cut off, the mask is 0 throughout: the rest of that answer and all
# later answers are there and unmarked, without an error or a warning. A loss over
# the mask skips such rows; scores over it are those of short conversations alone.
#
# Seen (answers: "the nurse is late", "she is at home"):
#   whole conversation: the nurse is late <end> she is at home <end>
#   right, 12 tokens: the nurse is late <end>
#   left, 17 tokens: the nurse is late <end> she is at home <end>
#   left, 14 tokens: nothing, kept is: is late <end> <user> and now ? <end> <assistant> she is at home <end>
#   left, 7 tokens: nothing, kept is: <end> <assistant> she is at home <end>

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        transformers==5.23.0 tokenizers==0.23.3 jinja2==3.1.6 numpy==2.4.6
fi

HF_HUB_OFFLINE=1 "$python" -W ignore - "$work" <<'PY'
import warnings

import tokenizers
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for turn in messages %}<{{ turn['role'] }}> "
    "{% if turn['role'] == 'assistant' %}{% generation %}{{ turn['content'] }} <end>{% endgeneration %} "
    "{% else %}{{ turn['content'] }} <end> {% endif %}{% endfor %}"
)
TURNS = [
    {"role": "user", "content": "who is late ?"},
    {"role": "assistant", "content": "the nurse is late"},
    {"role": "user", "content": "and now ?"},
    {"role": "assistant", "content": "she is at home"},
]
MARKS = ["<unk>", "<pad>", "<user>", "<assistant>", "<end>"]
words = sorted({word for turn in TURNS for word in turn["content"].split()})
backend = Tokenizer(WordLevel({word: i for i, word in enumerate(MARKS + words)}, unk_token="<unk>"))
backend.pre_tokenizer = WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>")


def marked(side, length):
    """The tokens that are kept, and those of them that the mask marks."""
    tokenizer.truncation_side = side
    options = {"truncation": True, "max_length": length} if length else {}
    out = tokenizer.apply_chat_template(
        TURNS, chat_template=TEMPLATE, return_dict=True, return_assistant_tokens_mask=True, **options
    )
    kept = tokenizer.convert_ids_to_tokens(out["input_ids"])
    return " ".join(kept), " ".join(t for t, mark in zip(kept, out["assistant_masks"], strict=True) if mark)


print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__)
first, second = "the nurse is late <end>", "she is at home <end>"
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    for name, side, length, wanted in [
        ("whole conversation", "right", None, f"{first} {second}"),
        ("right, 12 tokens", "right", 12, first),
        ("left, 17 tokens", "left", 17, f"{first} {second}"),
        ("left, 14 tokens", "left", 14, ""),
        ("left, 7 tokens", "left", 7, ""),
    ]:
        kept, seen = marked(side, length)
        print(f"{name}: {seen or 'nothing, kept is: ' + kept}")
        if seen != wanted:
            raise SystemExit(f"changed: {name} marks {seen!r}, was {wanted!r}")
        if not wanted and second not in kept:
            raise SystemExit("changed: the second answer is not kept")
if any(w.category is UserWarning for w in caught):
    raise SystemExit(f"changed: there is a warning now: {[str(w.message) for w in caught]}")
PY
