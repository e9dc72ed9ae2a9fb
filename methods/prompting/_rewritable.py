"""Extract what is rewritten from a question or dialogue, and build the question or dialogue from a rewrite."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from evenhand.interfaces import AnswerBy, Dialogue, Message, Question
from evenhand.methods.prompting._rewrites import Fields, Listed, UnusableRewriteError, alike, listed, names_all
from evenhand.prompting.rendering import BY_TEXT, LETTERED, BareText, plain_block, question_block


class Subject(NamedTuple):
    """What is to be rewritten."""

    system: str
    """The system prompt; "" if there is none."""
    text: str
    """The question, with its options if the model is shown them."""
    axis: str = ""
    draw: int = 0


def of_question(question: Question, answer_by: AnswerBy) -> Subject:
    """Extract context, question and shown options without header and demonstrations; or a ready prompt's dialogue.

    Args:
        question: The question.
        answer_by: How its answer is read, which decides whether options are shown.

    Raises:
        UnusableRewriteError: It cannot be rewritten as one question.
    """
    if question.dialogue is not None:
        subject = of_dialogue(question.dialogue)._replace(axis=question.axis, draw=question.draw)
        _check_prompt(subject.text, question)
        return subject
    if not _shows_options(question, answer_by):
        return Subject("", plain_block(question), question.axis, question.draw)
    text = question_block(question)
    if alike(question.options):
        raise UnusableRewriteError("two of its options are alike")
    if listed(text, question.options) is None:
        raise UnusableRewriteError("an option takes more than one line")
    return Subject("", text, question.axis, question.draw)


def of_dialogue(dialogue: Dialogue) -> Subject:
    """Extract the system prompt and the only user turn.

    Raises:
        UnusableRewriteError: There are further turns, which a fresh chat would lose, or it is a text to be continued.
    """
    if isinstance(dialogue, BareText):
        raise UnusableRewriteError("it is a text to be continued")
    *before, last = dialogue.messages
    if last.role != "user" or len(before) > 1 or any(m.role != "system" for m in before):
        raise UnusableRewriteError("it is a conversation under way")
    return Subject(before[0].content if before else "", last.content, draw=dialogue.draw)


def rewritten_question(question: Question, answer_by: AnswerBy, fields: Fields) -> Question:
    """Return the question in other words, with the same options, in the order in which the rewrite has them.

    Args:
        question: The original.
        answer_by: How its answer is read.
        fields: The rewrite.

    Raises:
        UnusableRewriteError: An option is missing or changed, or the instructions are gone.
    """
    if question.dialogue is not None:
        return _rewritten_prompt(question, question.dialogue, fields)
    if not _shows_options(question, answer_by):
        return replace(question, context="", question=fields.question)
    found = _options_of(fields, question)
    if not found.stem or found.rest:
        raise UnusableRewriteError("nothing stands before its options, or something after them")
    return replace(question, context="", question=found.stem, shown=found.order)


def rewritten_dialogue(dialogue: Dialogue, fields: Fields) -> Dialogue:
    """Return the dialogue with both texts in other words, without instructions that it did not have.

    Raises:
        UnusableRewriteError: The instructions are gone.
    """
    *before, last = dialogue.messages
    if before and not fields.system:
        raise UnusableRewriteError("its instructions are gone")
    told = (Message("system", fields.system),) if before else ()
    return replace(dialogue, messages=(*told, last._replace(content=fields.question)))


def _rewritten_prompt(question: Question, dialogue: Dialogue, fields: Fields) -> Question:
    made = replace(question, dialogue=rewritten_dialogue(dialogue, fields))
    if listed(dialogue.messages[-1].content, question.options) is None:
        return made  # the prompt shows no options that a rewrite could lose
    return replace(made, shown=_options_of(fields, question).order)


def _check_prompt(text: str, question: Question) -> None:
    """Refuse a ready prompt with options in which a rewrite could exchange them without being noticed."""
    if not names_all(text, question.options):
        return  # it shows no options
    if alike(question.options):
        raise UnusableRewriteError("two of its options are alike")
    if listed(text, question.options) is None:
        raise UnusableRewriteError("its options are not listed one per line from A on")


def _options_of(fields: Fields, question: Question) -> Listed:
    """Return the options as a rewrite lists them."""
    found = listed(fields.question, question.options)
    if found is None:
        raise UnusableRewriteError("an option is missing or changed")
    if listed(found.stem, question.options) is not None:
        raise UnusableRewriteError("its options are there twice")
    return found


def _shows_options(question: Question, answer_by: AnswerBy) -> bool:
    return question.template == "exam" or (question.template in LETTERED and answer_by not in BY_TEXT)
