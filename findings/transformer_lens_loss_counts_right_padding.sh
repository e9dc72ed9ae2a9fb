#!/usr/bin/env bash
# TransformerLens counts the padding of a batch of texts into the loss when it pads right, not when it pads left.
#
# Versions: transformer-lens 4.3.0, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: the loss of a list of texts is the mean over their real
# tokens, and loss_per_token holds 0 where there is none. The side of the padding
# changes nothing, as it changes nothing in the logits of the real tokens.
#
# Behaviour: the bridge makes an attention mask for the texts that it tokenizes,
# and leaves the padding out of the loss, only if it pads left. On the right it
# makes none (the causal model does not need it there), and then every padding
# token is a target like any other, also in loss_per_token and in the number of
# tokens of the mean. There is no error and no warning. Right is the side taken
# when the tokenizer names none. Tokens passed with their attention_mask are
# right on both sides. A sum over loss_per_token, the usual score of a
# sentence in a pair, then depends on the longest sentence of its batch.
#
# Seen (one text of 3 words, one of 6, with a beginning token each):
#   each text alone, summed loss, 3 words: 14.2999
#   each text alone, summed loss, 6 words: 29.7329
#   padding left, summed loss, 3 words: 14.2999
#   padding left, summed loss, 6 words: 29.7329
#   padding right, summed loss, 3 words: 27.9978
#   padding right, summed loss, 6 words: 29.7329
#   mean over the 9 real tokens: 4.89254
#   padding left, loss: 4.89254
#   padding right, loss: 4.81089
#   padding right, tokens with their attention_mask, loss: 4.89254
#   side taken when the tokenizer names none: right

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        torch==2.13.0 transformers==5.23.0 transformer-lens==4.3.0 numpy==2.4.6 safetensors==0.8.0 tokenizers==0.23.3
fi

HF_HUB_OFFLINE=1 "$python" -W ignore - "$work" <<'PY'
import sys
import warnings
from importlib.metadata import version

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

print("transformer-lens", version("transformer-lens"))
print("transformers", transformers.__version__, "torch", torch.__version__)
torch.set_num_threads(1)
PAD = 1
SHORT, LONG = "w1 w2 w3", "w5 w6 w7 w8 w9 w10"


def word_tokenizer(folder):
    words = ["<s>", "<pad>", "<unk>"] + [f"w{i}" for i in range(37)]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="<s>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def tiny_llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=PAD,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model


def expect(what, seen, figure, slack=1e-4):
    """Seen lies within slack (a share) of the figure."""
    print(f"{what}: {seen:.6g}")
    if not abs(seen - figure) <= slack * abs(figure):
        raise SystemExit(f"changed: {what} was {figure}, is now {seen}")


bridge = TransformerBridge.boot_transformers(
    "meta-llama/Llama-3.2-1B", hf_model=tiny_llama(), tokenizer=word_tokenizer(sys.argv[1])
)


@torch.no_grad()
def sums(texts, side="right"):
    return bridge(texts, return_type="loss", loss_per_token=True, padding_side=side).sum(1).tolist()


@torch.no_grad()
def loss(given, **options):
    return bridge(given, return_type="loss", **options).item()


alone = [sums(text)[0] for text in (SHORT, LONG)]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    left, right = sums([SHORT, LONG], "left"), sums([SHORT, LONG], "right")
if any("pad" in str(w.message).lower() for w in caught):
    raise SystemExit("changed: there is a warning now")
for what, seen, figures in [
    ("each text alone", alone, (14.2999, 29.7329)),
    ("padding left", left, (14.2999, 29.7329)),
    ("padding right", right, (27.9978, 29.7329)),
]:
    for text, one, figure in zip(["3 words", "6 words"], seen, figures, strict=True):
        expect(f"{what}, summed loss, {text}", one, figure)

mean = sum(alone) / 9
expect("mean over the 9 real tokens", mean, 4.89254)
expect("padding left, loss", loss([SHORT, LONG], padding_side="left"), mean)
expect("padding right, loss", loss([SHORT, LONG], padding_side="right"), 4.81089)
tokens = bridge.to_tokens([SHORT, LONG], padding_side="right")
masked = loss(tokens, attention_mask=(tokens != PAD).long())
expect("padding right, tokens with their attention_mask, loss", masked, mean)
same = torch.equal(bridge.to_tokens([SHORT, LONG]), tokens)
print("side taken when the tokenizer names none:", "right" if same else "left")
if not same:
    raise SystemExit("changed: the side taken is left")
PY
