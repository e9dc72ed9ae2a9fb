"""Sources of the values in the presets of `pairwise`, as shown in the table of docs/methods.md."""

from __future__ import annotations

from collections.abc import Mapping

from evenhand.training.preset_values import UNSTATED

_UNLEARNING = "locuslab/open-unlearning d3d7cf9"
_BIASUNLEARN = "a101269/BiasUnlearn 2b58a9f"
_OFF = {"dpo_weight": "not part of this loss, off"}
_CDA = "Lu et al. 2018; Zmigrod et al. 2019"
_GRPO = "ours; usual for GRPO with LoRA"

_OF_BIASUNLEARN = {
    **_OFF,
    "": f"{_BIASUNLEARN}, run.sh, README and the defaults of argparse",
    "npo_weight": f"{_BIASUNLEARN}, README (7B) and run.sh",
    "lm_weight": f"{_BIASUNLEARN}, README (7B) and run.sh",
    "retain_kl_weight": f"{_BIASUNLEARN}, README (7B) and run.sh",
    "learning_rate": f"{_BIASUNLEARN}, GPT-2; 2e-5 for 7B models",
    "warmup_ratio": f"{_BIASUNLEARN}: 10 of at most 1,000 steps",
    "batch_size": f"{_BIASUNLEARN}: 4 to be forgotten",
    "retain_batch_size": f"{_BIASUNLEARN}: 28 others",
    "adversarial_fraction": f"{_BIASUNLEARN}: a quarter of the anti-stereotypes is forgotten, too",
    "swap": f"arXiv 2509.25673 and {_BIASUNLEARN}; by validation pairs: ours",
    "check_steps": f"ours; {_BIASUNLEARN}: every 50 steps at first, then every 30 to 3",
    "patience": "nothing but parity ends the training early",
    "stop": f"{_BIASUNLEARN}; by validation pairs: ours",
    "tolerance": f"{_BIASUNLEARN}: every axis within 2 points",
    "npo_form": "arXiv 2509.25673",
    "retain_kl_form": "arXiv 2509.25673",
    "measure": f"ours; {_BIASUNLEARN} counts the preferred sides",
    "targets": f"ours; {_BIASUNLEARN}: the layers of attention of GPT-2, queries, keys, values and outputs of others",
    "validation_fraction": f"ours; {_BIASUNLEARN} swaps and stops by the data that it reports",
    "weight_decay": UNSTATED,
    "max_grad_norm": UNSTATED,
    "precision": UNSTATED,
}

PRESET_SOURCES: Mapping[str, Mapping[str, str]] = {
    "dpo": {"": "arXiv 2305.18290"},
    "cda": {**_OFF, "lm_weight": _CDA, "swapped_lm_weight": f"{_CDA}: the group-swapped copies, in equal parts"},
    "equalise": {**_OFF, "": "ours", "gap_weight": "ours, after debias_NLG (GeBNLP 2024)"},
    "npo": {
        **_OFF,
        "": f"{_UNLEARNING}, NPO",
        "lm_weight": f"{_UNLEARNING}, NPO: weight of the retain loss; of the chosen sides: ours",
    },
    "simnpo": {
        **_OFF,
        "": f"{_UNLEARNING}, SimNPO",
        "lm_weight": f"{_UNLEARNING}, SimNPO: weight of the retain loss; of the chosen sides: ours",
    },
    "biasunlearn": _OF_BIASUNLEARN,
    "biasunlearn_released": {
        **_OF_BIASUNLEARN,
        "npo_form": f"{_BIASUNLEARN}: one sigmoid of the batch's mean nll per token",
        "retain_kl_form": f"{_BIASUNLEARN}: minus the sum of p_ref log p",
        "measure": f"{_BIASUNLEARN}: geometric mean of the probabilities of tokens",
    },
    "expected_reward": {**_OFF, "": "ours", "reward_beta": _GRPO, "learning_rate": _GRPO},
}
"""Sources by preset and setting."""
