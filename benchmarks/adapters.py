"""Adapters by initialisation, target and tied embeddings: merged, saved, and as a task vector of several strengths.

Every figure is the largest difference of logits in float32: between evenhand's result and what PEFT computes with the
adapter on, or, at strength 0, the base. `merge_and_unload` is PEFT's own merge, for comparison.

    python benchmarks/adapters.py
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from evenhand.models.adapters import copied, merged
from evenhand.models.hugging_face import save_module

IDS = torch.tensor([[1, 5, 9, 2, 7, 3]])
STARTS: tuple[Any, ...] = (True, "gaussian", "orthogonal", "pissa", "pissa_niter_4", "olora")
TARGETS = {"q_proj": ["q_proj"], "embed": ["embed_tokens"], "head": ["lm_head"], "both": ["embed_tokens", "lm_head"]}
STRENGTHS = (0.0, 0.5, 1.0)


def base(*, tied: bool) -> Any:
    """Make a Llama with random weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "llama",
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    module: Any = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for p in module.parameters():
            if p.dim() == 2:
                p.mul_(3.0)
    return module


def fine_tuned(module: Any, targets: Sequence[str], start: Any) -> Any:
    """Return a copy of a module with an adapter as after training: none of its parameters is zero."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=12, target_modules=list(targets), init_lora_weights=start)
    torch.manual_seed(1)
    tuned = get_peft_model(copy.deepcopy(module), config)
    with torch.no_grad():
        for p in tuned.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape))
    return tuned.eval()


def logits(module: Any) -> torch.Tensor:
    """Compute the logits of one sequence."""
    with torch.no_grad():
        found: torch.Tensor = module.eval()(input_ids=IDS).logits
    return found


def off(one: torch.Tensor, other: torch.Tensor) -> str:
    """Format the largest absolute difference."""
    return f"{float((one - other).abs().max()):.1e}"


def reopened(module: Any) -> Any:
    """Return a merged model after saving and loading."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        save_module(module, Path(folder))
        return AutoModelForCausalLM.from_pretrained(folder)


def at_strength(tuned: Any, module: Any, strength: float) -> torch.Tensor:
    """Compute the logits of the base with the fine-tune's task vector, times the strength, added to its weights."""
    from evenhand.methods.unlearning._negation import merged as added
    from evenhand.methods.unlearning._task_vectors import from_adapter, total

    return logits(added(module, total([(from_adapter(tuned, module), lambda name: strength)]))[0])


def half_way(tuned: Any, module: Any, strength: float) -> torch.Tensor:
    """Compute the expected logits: weights on the straight line from the base to the merged fine-tune."""
    whole = merged(tuned)
    theirs = dict(module.named_parameters(remove_duplicate=False))
    out = copied(whole)
    with torch.no_grad():
        for name, p in dict(out.named_parameters(remove_duplicate=out.config.tie_word_embeddings)).items():
            p.copy_(theirs[name] + strength * (whole.get_parameter(name) - theirs[name]))
    return logits(out)


def rows() -> Iterator[dict[str, object]]:
    """Yield a row for each initialisation, target and kind of embeddings."""
    for start, targets, tied in product(STARTS, TARGETS, (False, True)):
        module = base(tied=tied)
        tuned = fine_tuned(module, TARGETS[targets], start)
        want, whole = logits(tuned), merged(tuned)
        yield {
            "init_lora_weights": start,
            "targets": targets,
            "embeddings": "tied" if tied else "untied",
            "fine-tune and base": off(want, logits(module)),
            "merge_and_unload": off(logits(copy.deepcopy(tuned).merge_and_unload()), want),
            "merged": off(logits(whole), want),
            "saved and opened": off(logits(reopened(whole)), want),
            **{f"strength {s:g}": off(at_strength(tuned, module, s), half_way(tuned, module, s)) for s in STRENGTHS},
        }


FOLDERS: dict[str, dict[str, Any]] = {
    "default": {},
    "gaussian": {"init_lora_weights": "gaussian"},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "pissa, rsLoRA": {"init_lora_weights": "pissa", "use_rslora": True},
    "pissa, ranks": {"init_lora_weights": "pissa", "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 5}},
    "pissa, DoRA": {"init_lora_weights": "pissa", "use_dora": True},
    "pissa, embedding": {"init_lora_weights": "pissa", "target_modules": ["q_proj", "embed_tokens"]},
    "pissa, head": {"init_lora_weights": "pissa", "target_modules": ["q_proj", "lm_head"]},
    "pissa, saved modules": {"init_lora_weights": "pissa", "modules_to_save": ["lm_head", "norm"]},
    "pissa, tokens": {"init_lora_weights": "pissa", "trainable_token_indices": [3, 5]},
    "pissa, converted": {"init_lora_weights": "pissa"},
    "pissa_niter_16, converted": {"init_lora_weights": "pissa_niter_16"},
    "pissa_niter_16, residual": {"init_lora_weights": "pissa_niter_16"},
    "olora, residual": {"init_lora_weights": "olora"},
}
"""Fine-tunes for `task_vector(tuned=)`: converted with path_initial_model_for_weight_conversion, or residual, with the
base that the initialisation has changed saved next to the adapter."""


def saved(kind: str, module: Any, folder: Path) -> Any:
    """Write an adapter as after training, and open it again as PEFT does."""
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(1)
    options = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"], **FOLDERS[kind]}
    tuned: Any = get_peft_model(copy.deepcopy(module), LoraConfig(**options))
    config, converted, on = tuned.peft_config["default"], {}, module
    start, config.init_lora_weights = config.init_lora_weights, True
    if kind.endswith("residual"):
        on = copy.deepcopy(tuned).unload()
        on.save_pretrained(folder / "residual")
        config.base_model_name_or_path = str(folder / "residual")
    else:
        tuned.save_pretrained(folder / "start")
        config.init_lora_weights = start
        if kind.endswith("converted"):
            converted = {"path_initial_model_for_weight_conversion": str(folder / "start")}
    with torch.no_grad():
        for p in tuned.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape))
    tuned.eval().save_pretrained(folder / "end", **converted)
    return PeftModel.from_pretrained(copy.deepcopy(on), folder / "end").eval()


def folders() -> Iterator[dict[str, object]]:
    """Yield a row for each fine-tune and kind of embeddings: -1 is compared with PEFT's reload, 0 with the base."""
    from evenhand.methods.unlearning._negation import adapted, by_layer
    from evenhand.methods.unlearning._negation import merged as added
    from evenhand.methods.unlearning._task_vectors import total
    from evenhand.methods.unlearning._tuned_folder import vector_of_folder

    for kind, tied in product(FOLDERS, (False, True)):
        module = base(tied=tied)
        with tempfile.TemporaryDirectory() as name:
            tuned = saved(kind, module, Path(name))
            vector = vector_of_folder(Path(name) / "end", module)
        mirror, theirs = copied(merged(tuned)), dict(module.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for key, p in mirror.named_parameters():
                p.copy_(2 * theirs[key] - p)
        row: dict[str, object] = {"fine-tune": kind, "embeddings": "tied" if tied else "untied"}
        row["fine-tune and base"] = off(logits(tuned), logits(module))
        for strength, want in ((-1.0, tuned), (0.0, module), (1.0, mirror)):
            change = total([(vector, by_layer(-strength, None, 1.0, 2))])
            row[f"merged, {strength:g}"] = off(logits(added(module, change)[0]), logits(want))
            held = change.low_rank and change.changes
            one = off(logits(adapted(module, change, named=False)), logits(want)) if held else "-"
            row[f"adapter, {strength:g}"] = one
        yield row


if __name__ == "__main__":
    from tables import markdown
    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    print(markdown(list(rows())))
    print(markdown(list(folders())))
