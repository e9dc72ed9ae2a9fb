#!/usr/bin/env bash
# stop_strings may begin in the prompt: generation ends after one token that does not hold the stop string.
#
# Versions: transformers 5.23.0, tokenizers 0.23.3, torch 2.13.0 (CPU).
#
# One would guess: generation ends when the generated text holds a stop string.
#
# Behaviour: the end of prompt and generated tokens together is compared with the
# stop string, so a string that the prompt begins and the first token completes
# ends the generation at once, for that prompt only. Prompts of one template with
# different last words (the groups that are compared, say) get answers of different
# lengths. The generated text alone does not hold the stop string.
#
# Seen (tiny random model with one token for each letter, 6 new tokens at most):
#   'answer: she' goes on with 'wqqqe '
#   'answer: they' goes on with 'iiusks'
#   'answer: she' with stop string 'shew': 1 tokens, 'w', holds it: False
#   'answer: they' with stop string 'shew': 6 tokens, 'iiusks', holds it: False

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        torch==2.13.0 transformers==5.23.0 tokenizers==0.23.3 numpy==2.4.6 safetensors==0.8.0
fi

HF_HUB_OFFLINE=1 "$python" -W ignore - "$work" <<'PY'
import tokenizers
import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.set_num_threads(1)
letters = "abcdefghijklmnopqrstuvwxyz ?.:"
backend = Tokenizer(WordLevel({c: i for i, c in enumerate(letters)}, unk_token="?"))
backend.pre_tokenizer = Split("", "isolated")
backend.decoder = Fuse()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?", clean_up_tokenization_spaces=False)
torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(letters),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        initializer_range=0.3,
    )
).eval()


def answer(prompt, stop=None):
    tokens = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    options = {"stop_strings": [stop], "tokenizer": tokenizer} if stop else {}
    out = model.generate(**tokens, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0, **options)
    return tokenizer.decode(out[0, tokens.input_ids.shape[1] :])


print("transformers", transformers.__version__, "tokenizers", tokenizers.__version__, "torch", torch.__version__)
she, they = "answer: she", "answer: they"
free = {prompt: answer(prompt) for prompt in (she, they)}
for prompt, text in free.items():
    print(f"{prompt!r} goes on with {text!r}")
stop = "she" + free[she][0]
for prompt, wanted in [(she, 1), (they, 6)]:
    text = answer(prompt, stop)
    print(f"{prompt!r} with stop string {stop!r}: {len(text)} tokens, {text!r}, holds it: {stop in text}")
    if len(text) != wanted or stop in text:
        raise SystemExit(f"changed: {len(text)} tokens, was {wanted}")
PY
