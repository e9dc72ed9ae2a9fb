#!/usr/bin/env bash
# TRL's KTO: the reported margin changes its sign with the evaluation batch size, or is missing.
#
# Versions: trl 1.16.0, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: rewards/margins is rewards/chosen - rewards/rejected over the
# evaluation set.
#
# Behaviour: KTO rows are not pairs. Each batch gives the mean reward of its
# wanted rows and that of its unwanted rows, where it has any, and a margin only
# if it has both; evaluate() takes the plain mean of what the batches gave. So
# margins rest on other rows than the two rewards beside them, do not equal their
# difference, and can have the other sign. With batches of one row there is no
# margin at all. There is no warning.
#
# Seen (five rows, three wanted and two unwanted; batches of 1, 2, 4 and 5):
#   rewards/chosen: 0.2802, 0.1188, 0.2802, 0.2802
#   rewards/rejected: 0.25, 0.25, 0.25, 0.25
#   rewards/chosen - rewards/rejected: 0.03019, -0.1312, 0.03019, 0.03019
#   rewards/margins with batches of 1: not reported
#   rewards/margins with batches of 2, 4, 5: -0.2277, 0.4179, 0.03019

set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3 -m venv "$work/venv"
    python="$work/venv/bin/python"
    "$python" -m pip install --quiet --disable-pip-version-check \
        torch==2.13.0 transformers==5.23.0 trl==1.16.0 datasets==5.2.0 accelerate==1.15.0 numpy==2.4.6 \
        safetensors==0.8.0
fi

HF_HUB_OFFLINE=1 "$python" -W ignore - "$work" <<'PY'
import sys

import datasets
import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import KTOConfig, KTOTrainer

torch.set_num_threads(1)
datasets.disable_progress_bars()
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
WORDS = [f"w{number}" for number in range(36)]


def tokenizer():
    vocabulary = {word: number for number, word in enumerate(SPECIAL + WORDS)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    names = dict(zip(["pad_token", "bos_token", "eos_token", "unk_token"], SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def tiny_llama(kind, **options):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **options,
    )
    return kind(config)


def reference():
    """Another model near the first, as the reference of a trained model is."""
    model = tiny_llama(LlamaForCausalLM)
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return model


def words(count, seed):
    drawn = torch.randint(0, len(WORDS), (count,), generator=torch.Generator().manual_seed(seed))
    return " ".join(WORDS[number] for number in drawn)


def settings(kind, batch):
    return kind(
        output_dir=sys.argv[1],
        per_device_eval_batch_size=batch,
        report_to=[],
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )


def results_of(trainer, model, **options):
    built = trainer(model, processing_class=tokenizer(), **options)
    built.remove_callback(PrinterCallback)
    return built.evaluate()


LENGTHS = [2, 3, 4, 5, 30]
BATCHES = [1, 2, 4, 5]


def expect(what, seen, figures, slack=0.02):
    """One figure for each batch size, each within slack (a share)."""
    print(f"{what}: " + ", ".join(f"{value:.4g}" for value in seen))
    if any(abs(value - figure) > slack * abs(figure) for value, figure in zip(seen, figures, strict=True)):
        raise SystemExit(f"changed: {what} was {figures}")


print("trl", trl.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
print("evaluation batches of", BATCHES, "on the same five rows:")

LABELS = [True, True, True, False, False]


def kto(batch):
    rows = [
        {"prompt": words(3, i), "completion": " " + words(n, 100 + i), "label": label}
        for i, (n, label) in enumerate(zip(LENGTHS, LABELS, strict=True))
    ]
    return results_of(
        KTOTrainer,
        tiny_llama(LlamaForCausalLM),
        ref_model=reference(),
        args=settings(KTOConfig, batch),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
    )


seen = [kto(batch) for batch in BATCHES]
chosen = [results["eval_rewards/chosen"] for results in seen]
rejected = [results["eval_rewards/rejected"] for results in seen]
expect("rewards/chosen", chosen, [0.2802, 0.1188, 0.2802, 0.2802])
expect("rewards/rejected", rejected, [0.2500] * 4)
difference = [a - b for a, b in zip(chosen, rejected, strict=True)]
expect("rewards/chosen - rewards/rejected", difference, [0.0302, -0.1312, 0.0302, 0.0302])
if "eval_rewards/margins" in seen[0]:
    raise SystemExit("changed: there are margins for batches of one row")
print("rewards/margins with batches of 1: not reported")
margins = [results["eval_rewards/margins"] for results in seen[1:]]
expect("rewards/margins with batches of 2, 4, 5", margins, [-0.2277, 0.4179, 0.0302])
PY
