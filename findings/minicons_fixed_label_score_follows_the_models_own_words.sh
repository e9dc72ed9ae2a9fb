#!/usr/bin/env bash
# minicons scores the second token of a label after the model's own first token, not after the label's.
#
# Versions: minicons 0.3.39, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: fixed_label_score gives log P(label | prompt) of every label,
# the sum that conditional_score gives, so the answers "not enough info" and
# "the nurse" can be compared.
#
# Behaviour: the prompt is continued once, by generate(), and the i-th token of
# every label is read from the i-th step of that continuation. From the second
# token on, a label is scored after words that are not its own. One-token labels
# are exact, longer ones are not, and the larger of two labels can change. The
# settings of the model's generation_config hold, too: a temperature scales the
# scores, top_k makes every label outside it -inf, and where it samples, longer
# labels depend on the seed. There is no error and no warning.
#
# Seen (fixed_label_score, conditional_score summed, log P by a forward pass of the whole text):
#   w5: -3.98342 -3.98343 -3.98343
#   w25 w23 w16: -5.72783 -5.72783 -5.72783     (the model's own continuation)
#   w8 w12: -7.07928 -7.85247 -7.85247
#   w6 w30: -8.30276 -7.0438 -7.0438
#   larger of the two: w8 w12, w6 w30, w6 w30
#   generation_config with temperature 0.6: w5 -4.48038
#   generation_config with top_k 10: w5 -inf
#   seeds 0 to 9, sampled, scores of w8 w12: 9 different

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        torch==2.13.0 transformers==5.23.0 minicons==0.3.39 accelerate==1.15.0 numpy==2.4.6 safetensors==0.8.0
fi

HF_HUB_OFFLINE=1 "$python" -W ignore - <<'PY'
import math
import warnings
from importlib.metadata import version

import torch
import transformers
from minicons.scorer import IncrementalLMScorer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

print("minicons", version("minicons"), "transformers", transformers.__version__, "torch", torch.__version__)
torch.set_num_threads(1)
PROMPT = "w1 w2 w3"

words = ["<pad>", "<eos>", "<unk>"] + [f"w{i}" for i in range(37)]
core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
core.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=core, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
)

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    tie_word_embeddings=False,
    eos_token_id=1,
    pad_token_id=0,
)
model = LlamaForCausalLM(config).eval()
with torch.no_grad():
    for weight in model.parameters():
        weight.add_(torch.randn_like(weight) * 0.2)
scorer = IncrementalLMScorer(model, "cpu", tokenizer=tokenizer)


def fixed(label):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        score = scorer.fixed_label_score([PROMPT], [label])[0, 0].item()
    if any(w.category is UserWarning and "label" in str(w.message).lower() for w in caught):
        raise SystemExit("changed: there is a warning now")
    return score


def conditional(label):
    return scorer.conditional_score([PROMPT], [label], reduction=lambda x: x.sum().item())[0]


@torch.no_grad()
def by_forward(label):
    ids = tokenizer(f"{PROMPT} {label}").input_ids
    start = len(tokenizer(PROMPT).input_ids)
    logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(logs[i - 1, ids[i]].item() for i in range(start, len(ids)))


def near(left, right):
    return abs(left - right) < 1e-3


def compare(label, exact):
    three = fixed(label), conditional(label), by_forward(label)
    print(f"{label}:", *(f"{score:.6g}" for score in three))
    if not near(three[1], three[2]) or near(three[0], three[1]) != exact:
        raise SystemExit(f"changed: {label}")
    return three


compare("w5", exact=True)
ids = torch.tensor([tokenizer(PROMPT).input_ids])
own = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False)[0, ids.shape[1] :]
compare(tokenizer.decode(own), exact=True)
left, right = compare("w8 w12", exact=False), compare("w6 w30", exact=False)
print("larger of the two:", ", ".join("w8 w12" if a > b else "w6 w30" for a, b in zip(left, right, strict=True)))
if not (left[0] > right[0] and left[1] < right[1]):
    raise SystemExit("changed: the larger of the two labels is the same in both")

chosen = model.generation_config
chosen.do_sample, chosen.top_k, chosen.temperature = True, 0, 0.6
warm = fixed("w5")
print(f"generation_config with temperature 0.6: w5 {warm:.6g}")
if near(warm, by_forward("w5")):
    raise SystemExit("changed: the temperature no longer matters")
chosen.top_k, chosen.temperature = 10, 1.0
cut = fixed("w5")
print(f"generation_config with top_k 10: w5 {cut:g}")
if cut != -math.inf:
    raise SystemExit("changed: top_k no longer matters")
chosen.top_k, chosen.suppress_tokens = 0, [1]
seen = []
for seed in range(10):
    torch.manual_seed(seed)
    seen.append(round(fixed("w8 w12"), 4))
print("seeds 0 to 9, sampled, scores of w8 w12:", len(set(seen)), "different")
if len(set(seen)) < 3:
    raise SystemExit("changed: the seed no longer matters")
PY
