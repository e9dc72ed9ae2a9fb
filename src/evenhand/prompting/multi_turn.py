"""What methods say to a model around a question: where a text is put, and how the turns of many items go on together.

A turn of all items is one batch. An item whose turn never came leaves as "unanswered", with the reason; the others go
on. A thought is shown to nobody: later turns are given what follows it, and the record keeps all of it.
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
"""From an item's index and its dialogue with the first reply to the dialogue that is asked next."""


# ------------------------------------------------------------------------------------------- where a text is put


def placed(dialogue: Dialogue, text: str, place: Place) -> Dialogue:
    """Put a text before or after the last turn's, or into the system's turn, which is added where there is none.

    A bare text is to be gone on with where it ends, so there "after" is before it too.
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
    """The question with an instruction; one that stands before it leaves template and way of answering open.

    Args:
        question: What is asked.
        text: The instruction.
        place: Where it stands.
        model: Is asked; an instruction elsewhere goes into the prompt for its way of reading answers.
    """
    if place == "before" and question.dialogue is None:
        return question.altered(header=f"{text}\n\n{question.header}")
    return question.altered(dialogue=placed(prompt_of(model, question), text, place))


def question_turn(question: Question) -> Dialogue:
    """The turn that shows a question without the request for a letter; a ready dialogue as it is."""
    turn = Message("user", question.preamble + question_block(question))
    return question.dialogue or Dialogue((turn,), question.draw)


def thinking(question: Question, instruction: str, think: str, place: Place) -> Dialogue:
    """The turn that asks to think about a question first, which is shown without the request for a letter."""
    return placed(placed(question_turn(question), instruction, place), think, "after")


# -------------------------------------------------------------------------------------------- asking, turn by turn


def read_by(model: Model, question: Question) -> AnswerBy:
    """How a model reads the answer to a question: as the methods around it declare, else the question, else the model.

    That is what `Reading.put` makes of the question on its way down a stack.
    """
    return model.declared.answer_by or question.answer_by or model.answer_by or "letters"


def ways_of_reading(model: Model) -> Callable[[Question], AnswerBy]:
    """`read_by` for many questions: what the methods around a model declare is found out once."""
    around, own = model.declared.answer_by, model.answer_by
    return lambda question: around or question.answer_by or own or "letters"


def prompts_of(model: Model) -> Callable[[Question], Dialogue]:
    """`prompt_of` for many questions."""
    way = ways_of_reading(model)
    return lambda question: as_dialogue(question, way(question))


def prompt_of(model: Model, question: Question) -> Dialogue:
    """The dialogue in which a question comes to be answered, if the methods around the model add nothing to it."""
    return as_dialogue(question, read_by(model, question))


def choose_instructed(model: Model, questions: Sequence[Question]) -> list[Choice]:
    """Answers to questions that a method put an instruction to, with the prompt in the record.

    A method below this one that asks something else keeps a record of its own, which stays.
    """
    answers, prompt = model.choose(questions), prompts_of(model)
    return [replace(c, before=c.before or prompt(q).messages) for q, c in zip(questions, answers, strict=True)]


def write_instructed(model: Model, dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
    """Replies to dialogues that a method put an instruction to, with the prompt in the record."""
    replies = model.generate(dialogues, sampling)
    return [replace(r, before=r.before or d.messages) for d, r in zip(dialogues, replies, strict=True)]


def write(model: Model, asked: Sequence[Dialogue], sampling: Sampling) -> tuple[dict[int, Dialogue], list[Reply]]:
    """One written turn of all: by index the dialogues that it came for, with it; and every reply.

    A thought is left out of the dialogues. Where it never ended, there is no turn: the reply has no text then, and its
    record has what was thought.
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
    """The turns of a conversation for the record, where one of them was shown without its thought.

    Args:
        before: The turns, as they were shown.
        turn: Which of them was written by the model.
        written: It as it was written.
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
    """A written turn, then the answer in the same conversation.

    Args:
        model: The model.
        questions: What is answered in the end.
        asked: Per question the dialogue that asks for the written turn.
        follow: Makes the dialogue that asks for the answer.
        writing: How the first turn is drawn.
        answering: How the answer is, where it is generated and its question does not say.
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
    """A written turn, then the reply in the same conversation."""
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
    """The answer to a question that a turn before it never came for."""
    return Choice(None, status="unanswered", note=reply.note, usage=reply.usage, before=reply.before)
