"""Let members answer prompts, and revise an answer after a critique."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from evenhand.core.answer_cache import key
from evenhand.data.adjudication import AdjudicationTexts
from evenhand.errors import SettingsError
from evenhand.inference import Prompt as Ids
from evenhand.interfaces import Dialogue, Message, Model, Sampling
from evenhand.methods.adjudication._asking import Journal
from evenhand.methods.adjudication._groups import Prompt
from evenhand.methods.adjudication._members import Member, opened
from evenhand.prompting import rendering as prompting


class Candidate(NamedTuple):
    """An answer to a prompt."""

    prompt: str
    """Id of the prompt."""
    author: str
    text: str
    revised: bool = False


def asked(prompt: Prompt, texts: AdjudicationTexts) -> Dialogue:
    """Return the dialogue that asks a prompt."""
    return Dialogue((Message("user", texts.ask.format(text=prompt.text)),), draw=prompt.draw)


def opening(prompt: Prompt, texts: AdjudicationTexts) -> str:
    """Return the beginning of the answer, or ""."""
    return texts.opening.format(people=prompt.plural[:1].upper() + prompt.plural[1:])


def answers(
    member: Member,
    fingerprint: str,
    of: Sequence[Prompt],
    texts: AdjudicationTexts,
    sampling: Sampling,
    journal: Journal,
    stage: str,
) -> list[Candidate]:
    """Return the member's answer to every prompt; a missing answer is empty."""
    dialogues = [asked(p, texts) for p in of]
    begun = [opening(p, texts) for p in of]
    return [
        Candidate(p.id, member.name, text)
        for p, text in zip(of, _written(member, fingerprint, dialogues, begun, sampling, journal, stage), strict=True)
    ]


def critiques(
    critic: Member,
    fingerprint: str,
    of: Sequence[tuple[Prompt, str]],
    texts: AdjudicationTexts,
    sampling: Sampling,
    journal: Journal,
    stage: str,
) -> list[str]:
    """Return a critic's comments on answers whose authors it does not know."""
    dialogues = [
        Dialogue((Message("user", texts.critique.format(asked=p.text, answer=texts.anonymous(answer))),))
        for p, answer in of
    ]
    return _written(critic, fingerprint, dialogues, [""] * len(dialogues), sampling, journal, stage)


def revisions(
    author: Member,
    fingerprint: str,
    of: Sequence[tuple[Prompt, str, str]],
    texts: AdjudicationTexts,
    sampling: Sampling,
    journal: Journal,
    stage: str,
) -> list[Candidate]:
    """Return the author's revised answers.

    Args:
        author: The member that wrote the answers.
        fingerprint: Fingerprint of its model.
        of: Prompts with their answers and critiques.
        texts: Texts with which it is asked.
        sampling: Sampling parameters of the answers.
        journal: Stores the answers.
        stage: Name of the stage.
    """
    dialogues = [
        asked(p, texts).assistant(answer).user(texts.revise.format(critique=critique)) for p, answer, critique in of
    ]
    begun = [opening(p, texts) for p, _, _ in of]
    written = _written(author, fingerprint, dialogues, begun, sampling, journal, stage)
    return [Candidate(p.id, author.name, text, True) for (p, _, _), text in zip(of, written, strict=True)]


def _written(
    member: Member,
    fingerprint: str,
    dialogues: Sequence[Dialogue],
    begun: Sequence[str],
    sampling: Sampling,
    journal: Journal,
    stage: str,
) -> list[str]:
    knobs = [sampling.temperature, sampling.max_new_tokens, sampling.top_p, sampling.seed, list(sampling.stop)]
    keys = [
        key("written", fingerprint, [list(m) for m in d.messages], d.draw, start, knobs)
        for d, start in zip(dialogues, begun, strict=True)
    ]
    if not journal.missing(keys):
        return [str(text) for text in journal.once(stage, keys, lambda rows: [])]
    with opened(member) as model:
        return [
            str(text)
            for text in journal.once(
                stage, keys, lambda rows: write(model, [dialogues[i] for i in rows], [begun[i] for i in rows], sampling)
            )
        ]


def write(model: Model, dialogues: Sequence[Dialogue], begun: Sequence[str], sampling: Sampling) -> list[str]:
    """Return replies, each with its given beginning if there is one.

    Raises:
        SettingsError: There are given beginnings, but the model cannot continue them.
    """
    if not any(begun):
        return [prompting.strip_thinking(r.text or "") for r in model.generate(dialogues, sampling)]
    from evenhand.models.local import LocalModel
    from evenhand.models.tokenization import Encoder

    if not isinstance(model, LocalModel):
        raise SettingsError(f"{model.name} cannot continue a given beginning; use texts whose opening is empty")
    encoder = Encoder(model.weights.tokenizer)
    heads = encoder.dialogue_texts(dialogues)
    ids = encoder.prompted([head + start for head, start in zip(heads, begun, strict=True)])
    made = model.continued([Ids(tuple(i), d.draw) for i, d in zip(ids, dialogues, strict=True)], sampling)
    return [start + (g.text.rstrip() if g else "") for start, g in zip(begun, made, strict=True)]
