#!/usr/bin/env bash
# A steering vector with min_token_index stops steering as soon as generate() uses its cache.
#
# Versions: steering-vectors 0.12.2, transformers 4.57.6, torch 2.13.0 (CPU). The same with transformers 5.23.0.
#
# One would guess: min_token_index=n steers every token from the n-th on, so
# with n = the length of the prompt it steers the reply and leaves the prompt.
# generate() gives the same tokens with and without its cache.
#
# Behaviour: the index counts inside each forward pass, not in the text. With
# the cache, which is on by default, every new token is a pass of length 1, where
# only index 0 exists. Any min_token_index above 0 therefore steers the prompt
# alone, and the length of the prompt steers nothing: the reply is exactly that
# of the plain model. Without the cache the same call steers as described. There
# is no error and no warning. With the default, 0, both agree.
#
# Seen (a prompt of 6 tokens, 8 new tokens, greedy):
#   plain: 30 0 20 32 35 37 31 20
#   min_token_index=0, cache: 34 34 34 34 34 34 34 34
#   min_token_index=0, no cache: 34 34 34 34 34 34 34 34
#   min_token_index=6, cache: 30 0 20 32 35 37 31 20
#   min_token_index=6, no cache: 30 34 34 34 34 34 34 34
#   min_token_index=3, cache: 34 15 38 1 16 32 16 32
#   min_token_index=3, no cache: 34 34 34 34 34 34 34 34
#   passes of a cached reply in which the first layer was steered: 0 of 8

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        torch==2.13.0 transformers==4.57.6 steering-vectors==0.12.2 numpy==2.4.6 safetensors==0.8.0
fi

HF_HUB_OFFLINE=1 "$python" -W ignore - <<'PY'
import warnings
from importlib.metadata import version

import torch
import transformers
from steering_vectors import SteeringVector
from transformers import LlamaConfig, LlamaForCausalLM

print("steering-vectors", version("steering-vectors"))
print("transformers", transformers.__version__, "torch", torch.__version__)
torch.set_num_threads(1)
PROMPT, NEW = torch.arange(6)[None], 8

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    tie_word_embeddings=False,
)
model = LlamaForCausalLM(config).eval()
vector = SteeringVector({0: torch.randn(32) * 5}, "decoder_block")


def reply(cache=True):
    ids = model.generate(
        PROMPT,
        attention_mask=torch.ones_like(PROMPT),
        max_new_tokens=NEW,
        do_sample=False,
        use_cache=cache,
        eos_token_id=None,
        pad_token_id=0,
    )
    return ids[0, PROMPT.shape[1] :].tolist()


def steered(index, cache):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        with vector.apply(model, min_token_index=index):
            tokens = reply(cache)
    if any("token_index" in str(w.message) for w in caught):
        raise SystemExit("changed: there is a warning now")
    print(f"min_token_index={index}, {'cache' if cache else 'no cache'}:", *tokens)
    return tokens


plain = reply()
print("plain:", *plain)
if reply(cache=False) != plain:
    raise SystemExit("changed: the plain model depends on the cache")
if not steered(0, True) == steered(0, False) != plain:
    raise SystemExit("changed: min_token_index=0 depends on the cache")
if steered(6, True) != plain:
    raise SystemExit("changed: the reply is steered with the cache")
if steered(6, False)[1:] == plain[1:]:
    raise SystemExit("changed: the reply is not steered without the cache")
if steered(3, True) == steered(3, False):
    raise SystemExit("changed: min_token_index=3 does not depend on the cache")

moved = []


def compare(_module, _inputs, output):
    after = output[0] if isinstance(output, tuple) else output
    moved.append(not torch.equal(after, before.pop()))


def remember(_module, _inputs, output):
    before.append((output[0] if isinstance(output, tuple) else output).clone())


before = []
layer = model.model.layers[0]
first = layer.register_forward_hook(remember)
handle = vector.patch_activations(model, min_token_index=PROMPT.shape[1])
last = layer.register_forward_hook(compare)
reply()
for hook in (first, handle, last):
    hook.remove()
print("passes of a cached reply in which the first layer was steered:", sum(moved), "of", len(moved))
if any(moved) or len(moved) != NEW:
    raise SystemExit("changed: some passes are steered")
PY
