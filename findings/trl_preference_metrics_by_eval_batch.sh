#!/usr/bin/env bash
# TRL: reported accuracy and margin of a preference evaluation depend on the batch size; the loss does not.
#
# Versions: trl 1.16.0, transformers 5.23.0, torch 2.13.0 (CPU).
#
# One would guess: evaluate() reports the mean over the evaluation set for every
# metric, as it does for eval_loss. The model and the rows are the same each time.
#
# Behaviour: eval_loss is weighted by the rows of a batch. The metrics that
# DPOTrainer and RewardTrainer add themselves are a plain mean of batch means, so
# a short last batch counts as much as a full one. Five pairs of which four are
# ranked right give 0.8, 0.833 or 0.875. Sums over tokens (logps, margins) move
# more when rows differ in length. RewardTrainer's max_reward and min_reward are
# means of the extremes of each batch and move even when batches are full. A set
# whose size the batch size divides has exact means.
#
# Seen (batches of 1, 2, 4 and 5 on the same five rows):
#   DPO eval_loss: 0.6109, 0.6109, 0.6109, 0.6109
#   DPO eval_rewards/accuracies: 0.8, 0.8333, 0.875, 0.8
#   DPO eval_rewards/margins: 0.2305, 0.2701, 0.3197, 0.2305
#   DPO eval_logps/chosen: -53.33, -72.87, -97.28, -53.33
#   Reward eval_loss: 0.6523, 0.6523, 0.6523, 0.6523
#   Reward eval_accuracy: 0.6, 0.6667, 0.75, 0.6
#   Reward eval_margin: 0.3155, 0.4755, 0.6755, 0.3155
#   Reward eval_max_reward: 1.123, 1.208, 1.488, 2.142

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
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    PrinterCallback,
)
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

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


def dpo(batch):
    rows = [
        {"prompt": words(3, i), "chosen": " " + words(n, 100 + i), "rejected": " " + words(4, 200 + i)}
        for i, n in enumerate(LENGTHS)
    ]
    return results_of(
        DPOTrainer,
        tiny_llama(LlamaForCausalLM),
        ref_model=reference(),
        args=settings(DPOConfig, batch),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
    )


def reward(batch):
    rows = [{"chosen": words(n, 100 + i), "rejected": words(4, 200 + i)} for i, n in enumerate(LENGTHS)]
    return results_of(
        RewardTrainer,
        tiny_llama(LlamaForSequenceClassification, num_labels=1),
        args=settings(RewardConfig, batch),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
    )


for name, build, figures in [
    (
        "DPO",
        dpo,
        {
            "eval_loss": [0.6109] * 4,
            "eval_rewards/accuracies": [4 / 5, 5 / 6, 7 / 8, 4 / 5],
            "eval_rewards/margins": [0.2305, 0.2701, 0.3197, 0.2305],
            "eval_logps/chosen": [-53.33, -72.87, -97.28, -53.33],
        },
    ),
    (
        "Reward",
        reward,
        {
            "eval_loss": [0.6523] * 4,
            "eval_accuracy": [3 / 5, 4 / 6, 6 / 8, 3 / 5],
            "eval_margin": [0.3155, 0.4755, 0.6755, 0.3155],
            "eval_max_reward": [1.1229, 1.2082, 1.4882, 2.1421],
        },
    ),
]:
    seen = [build(batch) for batch in BATCHES]
    for metric, wanted in figures.items():
        expect(f"{name} {metric}", [results[metric] for results in seen], wanted)
PY
