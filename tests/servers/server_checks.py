"""What every server must do that evenhand asks: found out on real ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evenhand.interfaces import Dialogue, Model, Sampling
from evenhand.models.endpoint import EndpointModel
from evenhand.models.local import LocalModel

TALKS = ("Who was there?", "Once upon a time there was a", "Explain.", "They")


def dialogues(draws: int = 1) -> list[Dialogue]:
    """Each prompt, that many times."""
    return [Dialogue(Dialogue(()).user(text).messages, draw=n) for text in TALKS for n in range(draws)]


def greedy_replies_are_the_models(server: Model, here: Model) -> None:
    """Word for word what the same weights write in this process."""
    sampling = Sampling(max_new_tokens=12)
    expected = [r.text for r in here.generate(dialogues(), sampling)]
    assert [r.text for r in server.generate(dialogues(), sampling)] == expected


def draws_are_the_models_own(server: EndpointModel, here: LocalModel, draws: int = 50) -> None:
    """First tokens have, on average, the log-probability that draws from the model's own distribution have.

    A server that cuts the distribution (top_k, top_p, min_p) or sharpens it gives likelier tokens; one that does not
    draw at all gives the likeliest. The bound is 4 standard errors.
    """
    replies = server.generate(dialogues(draws), Sampling(temperature=1.0, max_new_tokens=1))
    told = [r.text or "" for r in replies]
    gaps, variances = [], []
    for n, dialogue in enumerate(dialogues()):
        values = _by_text(here, dialogue)
        probabilities = np.array([p for p in values.values() if p > 0])
        mean = float((probabilities * np.log(probabilities)).sum())
        variances.append(float((probabilities * np.log(probabilities) ** 2).sum()) - mean**2)
        mine = told[n * draws : (n + 1) * draws]
        assert all(text in values for text in mine), [text for text in mine if text not in values]
        gaps.append(float(np.mean([math.log(values[text]) for text in mine])) - mean)
    error = math.sqrt(sum(variances) / draws) / len(gaps)
    assert abs(float(np.mean(gaps))) < 4 * error, (gaps, error)


def _by_text(here: LocalModel, dialogue: Dialogue) -> dict[str, float]:
    """The probability of each text that a reply of one token can have."""
    import torch

    prompt = here.dialogue_prompts([dialogue])[0]
    with torch.no_grad():
        logits = here.engine.module(torch.tensor([prompt.ids])).logits[0, -1].double()
    out: dict[str, float] = {}
    tokenizer = here.engine.tokenizer
    for token, probability in enumerate(torch.softmax(logits, -1).tolist()):
        text = str(tokenizer.decode([token], skip_special_tokens=True)).strip()
        out[text] = out.get(text, 0.0) + probability
    return out


def distinct(texts: Sequence[str | None]) -> int:
    """How many different ones there are."""
    return len(set(texts))
