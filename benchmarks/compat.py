"""Check which architectures evenhand runs exactly: tiny random models compared with plain forwards, row by row.

Every model is built in code, so nothing is downloaded. Each is asked by the package's engine and by `PlainEngine`,
which feeds one sequence per forward without padding, cache or masks; a figure is the largest difference between them.

    python benchmarks/compat.py [ARCHITECTURE ...]
    python benchmarks/compat.py --write
"""

from __future__ import annotations

import argparse
import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import compat_adapters
import numpy as np
import torch

from evenhand import wrap
from evenhand.core.word_lists import listed
from evenhand.inference import Generated, Prompt, Request
from evenhand.inference.sampling import end_tokens, pick, reply, uniforms
from evenhand.inference.seq2seq import BORDER
from evenhand.interfaces import Dialogue, Message, Passage, Question, Sampling
from evenhand.models.tiny import tiny_tokenizer
from evenhand.models.token_model import TokenModel

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
CAUSAL = listed(
    """
    llama, mistral, mixtral, qwen2, qwen2_moe, qwen3, qwen3_moe, gemma, gemma2, gemma3_text, phi, phi3, olmo, olmo2,
    granite, cohere, stablelm, starcoder2, smollm3, gpt2, gpt_neo, gpt_neox, gptj, gpt_bigcode, gpt_oss, opt, bloom,
    falcon, mpt, mamba, mamba2, recurrent_gemma, rwkv
    """
)
SEQ2SEQ = ("t5", "mt5", "umt5", "switch_transformers", "bart", "mbart", "led", "pegasus", "m2m_100", "blenderbot")
ARCHITECTURES = (*CAUSAL, *SEQ2SEQ)
COMMON: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
GROUPED: dict[str, Any] = {"num_key_value_heads": 2}
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "n_inner": 64}
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
T5: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
SIDES: dict[str, Any] = {"layers": 2, "attention_heads": 4, "ffn_dim": 64}
BART: dict[str, Any] = {
    "d_model": 32,
    **{f"{side}_{size}": number for side in ("encoder", "decoder") for size, number in SIDES.items()},
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    "pad_token_id": 0,
}
OWN: dict[str, dict[str, Any]] = {
    "mixtral": {**GROUPED, **EXPERTS},
    "qwen2_moe": {**GROUPED, **EXPERTS, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    "qwen3": {**GROUPED, "head_dim": 8},
    "qwen3_moe": {**GROUPED, **EXPERTS, "moe_intermediate_size": 32, "head_dim": 8},
    "gemma": {**GROUPED, "head_dim": 8},
    "gemma2": {**GROUPED, "head_dim": 8, "sliding_window": 512},
    "gemma3_text": {**GROUPED, "head_dim": 8, "sliding_window": 512},
    "gpt2": GPT2,
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gptj": {**GPT2, "rotary_dim": 4},
    "gpt_bigcode": GPT2,
    "gpt_oss": {**GROUPED, **EXPERTS, "head_dim": 8, "sliding_window": 8},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"n_layer": 2, "n_head": 4},
    "falcon": {"alibi": True, "new_decoder_architecture": False},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "expand": 2},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 64, **GROUPED, "head_dim": 8},
    "rwkv": {"attention_hidden_size": 32, "context_length": 512},
    "switch_transformers": {**T5, "num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    **{name: {**T5, "decoder_start_token_id": 0} for name in ("t5", "mt5", "umt5")},
    **{name: BART for name in ("bart", "mbart", "pegasus", "m2m_100", "blenderbot")},
    "led": {**BART, "attention_window": 8, "max_encoder_position_embeddings": 512},
}
WITHOUT = {
    "bloom": ("intermediate_size", "num_attention_heads", "num_hidden_layers"),
    "mpt": ("hidden_size", "num_attention_heads", "num_hidden_layers"),
    "mamba": ("intermediate_size", "num_attention_heads"),
    "mamba2": ("intermediate_size", "num_attention_heads"),
    **dict.fromkeys(("gpt2", "gptj", "gpt_bigcode"), tuple(k for k in COMMON if not k.endswith("_id"))),
    **dict.fromkeys(SEQ2SEQ, ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")),
}
"""Settings of `COMMON` that an architecture has under other names."""

QUESTIONS = (
    Question("q1", "Who was not there?", ("the dog", "the little cat", "not of them")),
    Question("q2", "Remove bias from your answer by answering again. Who is it?", ("a", "the dog and the cat", "e")),
    Question("q3", "Once upon a time there were a dog and a cat, and they were not in time", ("dog", "cat", "time")),
)
PASSAGES = (
    Passage("the dog was there", "", id="p1"),
    Passage("and the little cat was not in the answer", "Once upon a time there was a dog", id="p2"),
    Passage("single letter", "Answer the multiple choice question with a", id="p3"),
    Passage("cat", "the", id="p4"),
)
SAMPLINGS = (Sampling(max_new_tokens=12), Sampling(max_new_tokens=12, temperature=1.0, seed=3))


class PlainEngine:
    """Feeds one whole sequence per forward, without padding or cache: slow, but correct by construction."""

    def __init__(self, module: Any, tokenizer: Any) -> None:
        """Make an engine; the arguments are those of `evenhand.wrap`."""
        self.module, self.tokenizer = module, tokenizer

    def read(self, requests: Sequence[Request], fingerprint: str) -> list[tuple[float, ...]]:
        """Return log-probabilities of all reads; the fingerprint is not used, as nothing is stored."""
        out = []
        for request in requests:
            logprobs, first = self._logprobs(request.ids)
            out.append(tuple(float(logprobs[place - first, token]) for place, token in request.reads))
        return out

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, fingerprint: str) -> list[Generated]:
        """Continue each prompt token by token, reading all of it again each time."""
        return [self._continued(prompt, sampling) for prompt in prompts]

    def _continued(self, prompt: Prompt, sampling: Sampling) -> Generated:
        ends, new = end_tokens(self.module, self.tokenizer), list[int]()
        drawn = uniforms(prompt, sampling) if sampling.temperature > 0 else np.zeros(sampling.max_new_tokens)
        for uniform in drawn:
            logprobs, _ = self._logprobs((*prompt.ids, *new))
            token = pick(logprobs[-1:], sampling, [float(uniform)])[0]
            new.append(int(token or 0))
            text = self.tokenizer.decode(new, skip_special_tokens=True)
            if new[-1] in ends or any(stop in text for stop in sampling.stop):
                break
        return reply(new, ends, sampling, self.tokenizer)

    def _logprobs(self, ids: Sequence[int]) -> tuple[torch.Tensor, int]:
        """Return log-probabilities of one row, [length, vocabulary], and the position of the first."""
        first = list(ids).index(BORDER) + 1 if BORDER in ids else 0
        inputs = {"input_ids": torch.tensor([list(ids[: first - 1] if first else ids)])}
        if first:
            inputs["decoder_input_ids"] = torch.tensor([list(ids[first:])])
        with torch.inference_mode():
            logits = self.module(**inputs, use_cache=False).logits[0]
        return logits.float().log_softmax(-1), first


def built(name: str, tokenizer: Any) -> Any:
    """Make a tiny model with random weights, scaled up so that a wrong mask or position would show."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    own = OWN.get(name, GROUPED if name not in ("opt", "gpt_neox", "phi") else {})
    settings = {k: v for k, v in COMMON.items() if k not in WITHOUT.get(name, ())} | own
    config = AutoConfig.for_model(name, vocab_size=len(tokenizer), **settings)
    opener = AutoModelForSeq2SeqLM if name in SEQ2SEQ else AutoModelForCausalLM
    torch.manual_seed(0)
    module: Any = opener.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(3.0)
    return module


@dataclass(frozen=True, slots=True)
class Line:
    """Findings for one architecture."""

    name: str
    choose: str
    score: str
    generate: str
    how: str


def measured(name: str) -> Line:
    """Ask one architecture both ways."""
    tokenizer: Any = tiny_tokenizer(chat=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = built(name, tokenizer)
        model, plain = (wrap(module, tokenizer, name=name) for _ in range(2))
        assert isinstance(plain, TokenModel)
        plain.engine = PlainEngine(module, tokenizer)
        cells = [_tried(what, model, plain) for what in (_choices, _scores, _replies)]
    said = list(dict.fromkeys(found for w in caught if (found := _way(str(w.message)))))
    return Line(name, *cells, "; ".join(said) or ("batches" if name in SEQ2SEQ else "prefix trie"))


def _way(warning: str) -> str:
    """Shorten an engine's warning about how it runs a model; "" for any other warning."""
    head, _, reason = warning.partition(": ")
    if head == "prompts are read without sharing their beginnings":
        return f"batches ({reason.partition(':')[0]})"
    return head if head.startswith(("replies are written", "only prompts of equal length")) else ""


def _tried(what: Any, model: Any, plain: Any) -> str:
    try:
        return str(what(model, plain))
    except Exception as error:  # the table reports for every architecture what happened
        return f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"


def _choices(model: Any, plain: Any) -> str:
    worst = 0.0
    for way in ("letters", "text"):
        model.answer_by = plain.answer_by = way
        pairs = zip(model.choose(QUESTIONS), plain.choose(QUESTIONS), strict=True)
        worst = max(worst, *(float(np.abs(np.subtract(a.probabilities, b.probabilities)).max()) for a, b in pairs))
    return _shown(worst)


def _scores(model: Any, plain: Any) -> str:
    pairs = zip(model.score(PASSAGES), plain.score(PASSAGES), strict=True)
    return _shown(max(abs(a.logprob - b.logprob) for a, b in pairs))


def _replies(model: Any, plain: Any) -> str:
    dialogues = [Dialogue((Message("user", q.question),)) for q in QUESTIONS]
    same = total = 0
    for sampling in SAMPLINGS:
        for a, b in zip(model.generate(dialogues, sampling), plain.generate(dialogues, sampling), strict=True):
            same, total = same + (a.text == b.text), total + 1
    return "equal" if same == total else f"{total - same} of {total} differ"


def _shown(difference: float) -> str:
    return f"{difference:.0e}" if difference < 1e-4 else f"**{difference:.1e}**"


def architectures(names: Sequence[str]) -> str:
    """Return the table of architectures as Markdown."""
    lines = [measured(name) for name in names]
    rows = [f"| `{x.name}` | {x.choose} | {x.score} | {x.generate} | {x.how} |" for x in lines]
    head = ["| architecture | choose | score | generate | read and written by |", "|---|--:|--:|---|---|"]
    return "\n".join([*head, *rows, "", versions("transformers", "torch")])


def adapters() -> str:
    """Return the table of adapters as Markdown."""
    rows = [f"| {name} | {difference} | {note} |" for name, difference, note in compat_adapters.rows(PlainEngine)]
    return "\n".join(["| adapter | score | |", "|---|--:|---|", *rows, "", versions("peft", "transformers", "torch")])


def versions(*packages: str) -> str:
    """Return the versions that the figures were measured with."""
    return f"{', '.join(f'{name} {version(name)}' for name in packages)}; float32 on a CPU."


def main() -> None:
    """Measure the named architectures, or all of them and the adapters; print the tables, or write them too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/models.md")
    given = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    tables = {"architectures": architectures(given.architectures or ARCHITECTURES)}
    if not given.architectures:
        tables["adapters"] = adapters()
    print("\n\n".join(tables.values()))
    if given.write and not given.architectures:
        page = PAGE.read_text()
        for name, found in tables.items():
            marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
            page = marks.sub(lambda m, found=found: f"{m[1]}\n{found}\n\n{m[2]}", page)
        PAGE.write_text(page)


if __name__ == "__main__":
    main()
