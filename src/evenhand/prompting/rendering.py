"""How a question becomes text and how a reply becomes an answer; no other module does either.

The wording of the `letters` template is the baseline prompt of Gallegos et al. 2025 (arXiv 2402.01981): an instruction,
then context, question and the options as "(A) ... (B) ...".
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from evenhand.errors import SettingsError, UnknownNameError
from evenhand.interfaces import AnswerBy, Dialogue, Message, Question
from evenhand.prompting import chat_template, thinking
from evenhand.prompting.kobbq_prompts import PROMPTS as KOBBQ_PROMPTS
from evenhand.prompting.question_requests import REQUESTS
from evenhand.prompting.reply_parsing import LETTERS as LETTERS
from evenhand.prompting.reply_parsing import read_choice

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BY_TEXT: frozenset[AnswerBy] = frozenset({"text", "text_per_token", "text_with_end"})
"""Ways of answering that score the option texts as continuations without showing them."""
SINGLE_LETTER = "Answer the multiple choice question with a single letter."


# ------------------------------------------------------------------------------------- a question becomes text


def question_block(question: Question) -> str:
    """Write context, question and lettered options in the shown order, without any instruction."""
    return "\n".join([plain_block(question), *_lettered(question, "({}) {}")])


def letters_template(question: Question, request: str = SINGLE_LETTER) -> str:
    """Write the baseline multiple-choice prompt; `request` asks for an answer by letter, in any language."""
    return f"{question.preamble}{request}\n\n{question_block(question)}"


def plain_template(question: Question) -> str:
    """Write context and question without options, for scoring the option texts as continuations."""
    return question.preamble + plain_block(question)


def exam_template(question: Question) -> str:
    """Write a question as MMLU's official code does (hendrycks/test, evaluate.py): "A. " options, then "Answer:"."""
    return question.preamble + "\n".join([plain_block(question), *_lettered(question, "{}. {}"), "Answer:"])


def input_output_template(question: Question) -> str:
    """Write a question as Reif & Schwartz 2024 (schwartz-lab-NLP/label-bias, ni_collator.py): "Input: ...", "Output:".

    The full stop that their code adds is part of the form, so a content-free input gets one too.
    """
    return f"{question.preamble}Input: {stopped(plain_block(question))}\n\nOutput:"


def stopped(text: str) -> str:
    """Strip a text and end it with a full stop unless it ends with punctuation."""
    text = text.strip()
    return text if text[-1:] in string.punctuation and text else f"{text}."


def _lettered(question: Question, form: str) -> list[str]:
    options = question.options
    if len(options) > len(LETTERS):
        raise SettingsError(f"{question.id}: {len(options)} options; at most {len(LETTERS)} can be lettered")
    return [*map(form.format, LETTERS, [options[o] for o in question.order])]


def kobbq_template(question: Question, number: int) -> str:
    """Write one of the five prompts of KoBBQ, by its number; see `evenhand.prompting.kobbq_prompts`."""
    options = [question.options[o] for o in question.order]
    return question.preamble + KOBBQ_PROMPTS[number].text(question.context, question.question, options)


def exam_header(subject: str) -> str:
    """Write the official line above MMLU's questions on a subject, including the blank line after it."""
    return f"The following are multiple choice questions (with answers) about {subject}.\n\n"


def plain_block(question: Question) -> str:
    """Join context and question with a blank."""
    return " ".join(part for part in (question.context, question.question) if part)


TEMPLATES: dict[str, Callable[[Question], str]] = {
    "letters": letters_template,
    "plain": plain_template,
    "exam": exam_template,
    "bare": plain_template,
    "input_output": input_output_template,
    **{f"letters_{language}": partial(letters_template, request=request) for language, request in REQUESTS.items()},
    **{f"kobbq_{number}": partial(kobbq_template, number=number) for number in KOBBQ_PROMPTS},
}
LETTERED = frozenset(name for name in TEMPLATES if name.partition("_")[0] in ("letters", "kobbq"))
"""Templates that show lettered options if letters are asked for, and no options if texts are scored."""
BARE = frozenset({"exam", "bare", "input_output", *(f"kobbq_{number}" for number in KOBBQ_PROMPTS)})
"""Templates whose text is to be continued: a model without a chat template gets it as it is."""


@dataclass(frozen=True, slots=True)
class BareText(Dialogue):
    """One user turn that a model without a chat template reads as bare text, not as a transcript."""


@dataclass(frozen=True, slots=True)
class RawText(BareText):
    """One user turn that every model reads as bare text, even one that has a chat template."""


def as_dialogue(question: Question, answer_by: AnswerBy) -> Dialogue:
    """Return the dialogue that asks a question: its own ready one, or one user turn made by its template.

    With `text_with_end` a bare text stays bare for chat models too, as in the code of its source, which does not use
    chat templates (Reif & Schwartz 2024, arXiv 2405.02743).
    """
    if question.dialogue is not None:
        return question.dialogue
    name = question.template
    if name in LETTERED and answer_by in BY_TEXT:
        name = "plain"  # a model that is scored on texts must not see letters
    if name not in TEMPLATES:
        raise UnknownNameError("prompt template", name, TEMPLATES)
    bare = RawText if answer_by == "text_with_end" else BareText
    kind = bare if name in BARE else Dialogue
    return kind((Message("user", TEMPLATES[name](question)),), draw=question.draw)


# ------------------------------------------------------------------------------------ a dialogue becomes text


def prompt_format(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return how dialogues are written for this tokenizer: "chat template" or "plain transcript"."""
    return "chat template" if getattr(tokenizer, "chat_template", None) else "plain transcript"


def letters_in(language: str) -> str:
    """Return the template of the baseline prompt in a language (ISO 639-1); the English one if it has none."""
    return f"letters_{language}" if language in REQUESTS else "letters"


def is_chat(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a dialogue is written by the tokenizer's chat template."""
    raw = isinstance(dialogue, RawText) and len(dialogue.messages) == 1
    return prompt_format(tokenizer) == "chat template" and not raw


def dialogue_text(dialogue: Dialogue, tokenizer: PreTrainedTokenizerBase, *, think: bool = False) -> str:
    """Render a dialogue as the prompt that ends where the assistant's next turn begins.

    Args:
        dialogue: The turns.
        tokenizer: The tokenizer, whose chat template is used if it has one (`evenhand.prompting.chat_template`).
        think: Whether a thinking model may think first. By default its thought is closed, so that the answer comes
            next: only then do the probabilities of letters and option texts mean anything.

    Raises:
        SettingsError: The chat template refuses the dialogue, or would lose a part of it.
    """
    return dialogue_texts([dialogue], tokenizer, think=think)[0]


def dialogue_texts(
    dialogues: Sequence[Dialogue], tokenizer: PreTrainedTokenizerBase, *, think: bool = False
) -> list[str]:
    """Render many dialogues; see `dialogue_text`. Those that use the chat template are written in one call."""
    chats = [is_chat(dialogue, tokenizer) for dialogue in dialogues]
    talks = [dialogue.messages for dialogue, chat in zip(dialogues, chats, strict=True) if chat]
    written = iter(chat_template.prompts(tokenizer, talks, think=think))
    return [next(written) if chat else _plain_text(d) for d, chat in zip(dialogues, chats, strict=True)]


def _plain_text(dialogue: Dialogue) -> str:
    if isinstance(dialogue, BareText) and len(dialogue.messages) == 1:
        return dialogue.messages[0].content
    return transcript(dialogue.messages)


def transcript(messages: Sequence[Message]) -> str:
    """Write a dialogue as plain text, for models without a chat template."""
    titles = {"system": "System", "user": "User", "assistant": "Assistant"}
    turns = [f"{titles[m.role]}: {m.content}" for m in messages]
    return "\n\n".join([*turns, "Assistant:"])


TRANSCRIPT_STOP = ("\nUser:", "\nSystem:")
"""Stop strings that end the reply if a base model continues with the user's part."""


# -------------------------------------------------------------------------------- a reply becomes an answer


def strip_thinking(reply: str) -> str:
    """Return the reply without its thought; "" if the thought never ended (`evenhand.prompting.thinking`)."""
    return thinking.answer(reply)


def parse_choice(reply: str, question: Question, finished: bool = True) -> int | None:
    """Read the identity of the chosen option from a reply; see `evenhand.prompting.reply_parsing.read_choice`.

    Args:
        reply: What the model wrote, <think> blocks included.
        question: What was asked, with the shown order of its options.
        finished: Whether the reply ended by itself; a cut reply counts only if it has the form of an answer.

    Returns:
        The option's identity, or None if the reply is unparsed (a refusal, nothing, or more than one answer).
    """
    return read_choice(strip_thinking(reply), question, finished)


def letter_variants(letter: str) -> tuple[str, ...]:
    """Return the ways in which a model may begin a one-letter reply; their probabilities are added."""
    return letter, f" {letter}"
