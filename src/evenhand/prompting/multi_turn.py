"""Texts that methods add around a question: where they are placed, and how the turns of many items advance together.

One turn of all items is one batch. An item whose turn was never written leaves as "unanswered", with the reason; the
others continue. A thought is not shown in later turns, which get only the text after it; the record keeps it in full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from evenhand.interfaces import AnswerBy, Choice, Dialogue, Message, Model, Question, Reply, Sampling
from evenhand.prompting import thinking as thoughts
from evenhand.prompting.rendering import BareText, as_dialogue, question_block
from evenhand.prompting.sessions import conversation

Place = Literal["before", "after", "system"]
"""Where an instruction stands: before or after the question in the user's turn, or as the system's turn."""
Follow = Callable[[int, Dialogue], Dialogue]
"""Function of an item's index and its dialogue with the first reply that returns the dialogue to ask next."""


# ------------------------------------------------------------------------------------------- where a text is put


def placed(dialogue: Dialogue, text: str, place: Place) -> Dialogue:
    """Put a text before or after that of the last turn, or into the system's turn, which is added if there is none.

    A bare text must be continued where it ends, so for it "after" means before as well.
    """
    first, last = dialogue.messages[0], dialogue.messages[-1]
    if place == "system":
        if first.role == "system":
            told = first._replace(content=f"{first.content}\n\n{text}")
            return replace(dialogue, messages=(told, *dialogue.messages[1:]))
        return replace(dialogue, messages=(Message("system", text), *dialogue.messages))
    behind = place == "after" and not isinstance(dialogue, BareText)
    joined = f"{last.content}\n\n{text}" if behind else f"{text}\n\n{last.content}"
    return replace(dialogue, messages=(*dialogue.messages[:-1], last._replace(content=joined)))


def instructed(question: Question, text: str, place: Place, model: Model) -> Question:
    """Add an instruction to a question; one before the question leaves its template and way of answering open.

    Args:
        question: What is asked.
        text: The instruction.
        place: Where it stands.
        model: The model that is asked; an instruction elsewhere goes into the prompt for its way of reading answers.
    """
    if place == "before" and question.dialogue is None:
        return question.altered(header=f"{text}\n\n{question.header}")
    return question.altered(dialogue=placed(prompt_of(model, question), text, place))


def question_turn(question: Question) -> Dialogue:
    """Return the turn that shows a question without the request for a letter; a ready dialogue stays as it is."""
    turn = Message("user", question.preamble + question_block(question))
    return question.dialogue or Dialogue((turn,), question.draw)


def thinking(question: Question, instruction: str, think: str, place: Place) -> Dialogue:
    """Return the turn that asks to think about a question first, which it shows without the request for a letter."""
    return placed(placed(question_turn(question), instruction, place), think, "after")


# -------------------------------------------------------------------------------------------- asking, turn by turn


def read_by(model: Model, question: Question) -> AnswerBy:
    """Return how the answer is read: as the methods around the model declare, else the question, else the model.

    `Reading.put` gives the question the same value on its way down a stack.
    """
    return model.declared.answer_by or question.answer_by or model.answer_by or "letters"


def ways_of_reading(model: Model) -> Callable[[Question], AnswerBy]:
    """Return `read_by` for many questions: what the methods around a model declare is looked up once."""
    around, own = model.declared.answer_by, model.answer_by
    return lambda question: around or question.answer_by or own or "letters"


def prompts_of(model: Model) -> Callable[[Question], Dialogue]:
    """Return `prompt_of` for many questions of one model."""
    way = ways_of_reading(model)
    return lambda question: as_dialogue(question, way(question))


def prompt_of(model: Model, question: Question) -> Dialogue:
    """Return the dialogue in which a question is answered if the methods around the model add nothing to it."""
    return as_dialogue(question, read_by(model, question))


def choose_instructed(model: Model, questions: Sequence[Question]) -> list[Choice]:
    """Answer questions to which a method added an instruction, with the prompt in the record.

    The record of a method below this one that asks something else is kept.
    """
    answers, prompt = model.choose(questions), prompts_of(model)
    return [replace(c, before=c.before or prompt(q).messages) for q, c in zip(questions, answers, strict=True)]


def write_instructed(model: Model, dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
    """Reply to dialogues to which a method added an instruction, with the prompt in the record."""
    replies = model.generate(dialogues, sampling)
    return [replace(r, before=r.before or d.messages) for d, r in zip(dialogues, replies, strict=True)]


def write(model: Model, asked: Sequence[Dialogue], sampling: Sampling) -> tuple[dict[int, Dialogue], list[Reply]]:
    """Let the model write one turn of all dialogues.

    A thought is left out of the dialogues. If it never ended, there is no turn: the reply then has no text, and its
    record contains the thought.

    Returns:
        The dialogues with the new turn, by index, without those for which none was written; and every reply.
    """
    replies = [_with_turn(d, r) for d, r in zip(asked, model.generate(asked, sampling), strict=True)]
    pairs = enumerate(zip(asked, replies, strict=True))
    return {i: d.assistant(thoughts.answer(r.text)) for i, (d, r) in pairs if r.text is not None}, replies


def _with_turn(asked: Dialogue, reply: Reply) -> Reply:
    if reply.text is None or not thoughts.is_cut(reply.text):
        return reply
    record = reply.before or asked.messages
    return replace(
        reply,
        text=None,
        finished=False,
        note=reply.note or "undecided: the thought never ended",
        before=(*record, Message("assistant", reply.text)),
    )


def recorded(before: Sequence[Message], turn: int, written: str) -> tuple[Message, ...]:
    """Return the turns of a conversation for the record, with the thought of a turn that was shown without it.

    Args:
        before: The turns as they were shown.
        turn: Index of the turn that the model wrote.
        written: That turn as the model wrote it.
    """
    shown = Message("assistant", thoughts.answer(written))
    if written == shown.content or tuple(before[turn : turn + 1]) != (shown,):
        return tuple(before)
    return (*before[:turn], Message("assistant", written), *before[turn + 1 :])


def write_then_choose(
    model: Model,
    questions: Sequence[Question],
    asked: Sequence[Dialogue],
    follow: Follow,
    writing: Sampling,
    answering: Sampling,
) -> list[Choice]:
    """Let the model write a turn, then answer in the same conversation.

    Args:
        model: The model.
        questions: The questions to answer in the end.
        asked: For each question, the dialogue that asks for the written turn.
        follow: Makes the dialogue that asks for the answer.
        writing: Sampling of the written turn.
        answering: Sampling of an answer that is generated and whose question sets none.
    """
    with conversation() as talk:
        written, replies = write(model, asked, writing)
        turns = {i: follow(i, d) for i, d in written.items()}
        last = [questions[i].altered(dialogue=d, sampling=questions[i].sampling or answering) for i, d in turns.items()]
        with talk.last():
            answers = model.choose(last)
    done = {
        i: replace(
            c,
            before=recorded(c.before or turns[i].messages, len(asked[i].messages), replies[i].text or ""),
            usage=replies[i].usage + c.usage,
        )
        for i, c in zip(turns, answers, strict=True)
    }
    return [done.get(i) or unanswered(r) for i, r in enumerate(replies)]


def write_then_write(
    model: Model, asked: Sequence[Dialogue], follow: Follow, first: Sampling, second: Sampling
) -> list[Reply]:
    """Let the model write a turn, then reply in the same conversation."""
    with conversation() as talk:
        written, replies = write(model, asked, first)
        turns = {i: follow(i, d) for i, d in written.items()}
        with talk.last():
            answers = model.generate(list(turns.values()), second)
    done = {
        i: replace(
            r,
            before=recorded(r.before or turns[i].messages, len(asked[i].messages), replies[i].text or ""),
            usage=replies[i].usage + r.usage,
        )
        for i, r in zip(turns, answers, strict=True)
    }
    return [done.get(i, r) for i, r in enumerate(replies)]


def unanswered(reply: Reply) -> Choice:
    """Return the answer to a question for which an earlier turn was never written."""
    return Choice(None, status="unanswered", note=reply.note, usage=reply.usage, before=reply.before)
