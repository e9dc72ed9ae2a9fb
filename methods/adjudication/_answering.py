"""Members answer prompts, and revise an answer after a critique."""

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
    """Its id."""
    author: str
    text: str
    revised: bool = False


def asked(prompt: Prompt, texts: AdjudicationTexts) -> Dialogue:
    """The dialogue that puts a prompt."""
    return Dialogue((Message("user", texts.ask.format(text=prompt.text)),), draw=prompt.draw)


def opening(prompt: Prompt, texts: AdjudicationTexts) -> str:
    """What the answer begins with, or ""."""
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
    """The member's answer to every prompt; an answer that never came is empty."""
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
    """What a critic says of answers, whose authors it is not told."""
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
    """The author's new answers.

    Args:
        author: Who wrote the answers.
        fingerprint: Of its model.
        of: Prompt, answer and critique.
        texts: How it is asked.
        sampling: How the answers are drawn.
        journal: Where they are kept.
        stage: What this is called.
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
    """Replies, each with its beginning where there is one.

    Raises:
        SettingsError: There are beginnings, and the model cannot be given any.
    """
    if not any(begun):
        return [prompting.strip_thinking(r.text or "") for r in model.generate(dialogues, sampling)]
    from evenhand.models.local import LocalModel
    from evenhand.models.tokenization import Encoder

    if not isinstance(model, LocalModel):
        raise SettingsError(f"{model.name} cannot go on with a given beginning; take texts whose opening is empty")
    encoder = Encoder(model.weights.tokenizer)
    heads = encoder.dialogue_texts(dialogues)
    ids = encoder.prompted([head + start for head, start in zip(heads, begun, strict=True)])
    made = model.continued([Ids(tuple(i), d.draw) for i, d in zip(ids, dialogues, strict=True)], sampling)
    return [start + (g.text.rstrip() if g else "") for start, g in zip(begun, made, strict=True)]
