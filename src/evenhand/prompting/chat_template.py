"""Chat templates: each tokenizer's template is probed once on marked turns, and applied only here.

A template may silently drop a turn that it has no branch for (most often the system's), ignore
`add_generation_prompt`, print today's date or open a thought. So every template is tried on turns that can be
recognised. Text that would get lost is moved to a turn that arrives; if that is impossible, the dialogue is refused.
`facts` reports what was done.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from evenhand.errors import SettingsError
from evenhand.interfaces import Message, Role
from evenhand.prompting import compiled_template, thinking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FROZEN = datetime(2024, 7, 26, 12)
"""Date that `strftime_now` gives to every template: the default of Llama 3.1's template. With today's date, a run that
is resumed tomorrow would use other prompts than before."""
_DIRECTIVES = [f"%{flag}{letter}" for letter in "aAbBcdDeFHIjklmMpPrRsStTuUVwWxXyYzZ" for flag in ("", "-")]
REMEDY = "give the tokenizer a template that does (tokenizer.chat_template), or None to be asked in a plain transcript"


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """How a chat template treats the turns of a dialogue."""

    keeps_system: bool
    """Whether a system turn arrives; if not, its text opens the following user turn."""
    drops: frozenset[Role]
    """Roles other than the system whose turns get lost."""
    header: str | None
    """Text that begins the assistant's turn if the template ignores `add_generation_prompt`; "" if nothing is missing,
    None if the text is unknown."""
    dated: bool
    """Whether the template prints the date."""
    style: thinking.Style | None
    """How the template lets the model think; None if it does not."""


def prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, think: bool = False) -> str:
    """Render one dialogue; see `prompts`."""
    return prompts(tokenizer, [messages], think=think)[0]


def prompts(
    tokenizer: PreTrainedTokenizerBase, dialogues: Sequence[Sequence[Message]], *, think: bool = False
) -> list[str]:
    """Render each dialogue as the text that ends where the assistant's next turn begins.

    Args:
        tokenizer: A tokenizer with a chat template.
        dialogues: The turns of each dialogue so far.
        think: Whether a thinking model may think now; otherwise its thought is closed, and the answer comes next.

    Raises:
        SettingsError: The template refuses a dialogue, or loses one of its turns wherever that is placed.
    """
    if not dialogues:
        return []
    found = probed(tokenizer)
    talks = [list(messages) if found.keeps_system else _moved(messages) for messages in dialogues]
    if found.drops and (lost := sorted(found.drops & {m.role for turns in talks for m in turns})):
        raise SettingsError(f"the chat template drops the {' and '.join(lost)} turns of a dialogue: {REMEDY}")
    if found.header is None:
        raise SettingsError(
            "the chat template ignores add_generation_prompt, and how the assistant's turn begins cannot be read "
            f"off a dialogue that has one: {REMEDY}"
        )
    variables: dict[str, Any] = {found.style.switch: False} if found.style and found.style.switch and not think else {}
    try:
        texts = [text + found.header for text in all_rendered(tokenizer, talks, **variables)]
    except Exception as error:  # templates raise jinja2 errors of many kinds
        raise SettingsError(f"the chat template refuses this dialogue: {error}") from error
    closes = found.style is not None and not think and not found.style.switch
    return [thinking.closed(text, found.style.marks) for text in texts] if closes and found.style else texts


def told(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """Render a dialogue that ends with the assistant's turn, including the text that the template adds after it.

    Raises:
        SettingsError: The template refuses the turns.
    """
    turns = list(messages) if probed(tokenizer).keeps_system else _moved(messages)
    try:
        return rendered(tokenizer, turns, add_generation_prompt=False)
    except Exception as error:  # templates raise jinja2 errors of many kinds
        raise SettingsError(f"the chat template refuses this dialogue: {error}") from error


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    messages: Iterable[Message],
    *,
    add_generation_prompt: bool = True,
    date: datetime = FROZEN,
    **variables: Any,
) -> str:
    """Apply the template to one dialogue, always with the same date."""
    options = {**variables, "add_generation_prompt": add_generation_prompt, "date": date}
    return all_rendered(tokenizer, [list(messages)], **options)[0]


def all_rendered(
    tokenizer: PreTrainedTokenizerBase,
    dialogues: Sequence[Sequence[Message]],
    *,
    add_generation_prompt: bool = True,
    date: datetime = FROZEN,
    **variables: Any,
) -> list[str]:
    """Apply the template to many dialogues in one call, always with the same date."""
    source, other = _source(tokenizer), dict[str, str]()
    if "strftime_now" in source:
        other["chat_template"] = source = f"{_calendar(date)}\n{source}"  # Jinja drops the line end after a block here
    variables["add_generation_prompt"] = add_generation_prompt
    texts = compiled_template.written(tokenizer, dialogues, variables, source)
    if texts is not None:
        return texts
    turns = [[{"role": m.role, "content": m.content} for m in messages] for messages in dialogues]
    options = {**variables, **other, "tokenize": False}
    if len(turns) == 1:
        return [str(tokenizer.apply_chat_template(turns[0], **options))]
    return [str(text) for text in tokenizer.apply_chat_template(turns, **options)]


def facts(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Describe what is peculiar about a template, in words; {} if nothing is, or if there is no template."""
    if not getattr(tokenizer, "chat_template", None):
        return {}
    found = probed(tokenizer)
    out: dict[str, Any] = {}
    if not found.keeps_system:
        out["system_turn"] = "opens the user's turn that follows, as the chat template has no place for it"
    if found.header:
        out["assistant_header"] = f"{found.header!r} is added, as the chat template ignores add_generation_prompt"
    if found.dated:
        out["prompt_date"] = f"{FROZEN:%Y-%m-%d}, whatever the day"
    return out


_probed: WeakKeyDictionary[Any, tuple[str, ChatTemplate]] = WeakKeyDictionary()


def probed(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """Probe what the tokenizer's template does; the result is kept until the template changes."""
    source = _source(tokenizer)
    known = _probed.get(tokenizer)
    if known is None or known[0] != source:
        known = source, _probe(tokenizer, source)
        _probed[tokenizer] = known
    return known[1]


def _probe(tokenizer: PreTrainedTokenizerBase, source: str) -> ChatTemplate:
    lost = _lost(tokenizer, "user", "assistant", "user")
    if lost is None:  # a template for one turn only
        lost = _lost(tokenizer, "user") or set()
    talks: list[tuple[Role, ...]] = [("user",), ("user", "assistant", "user")]
    accepted = [t for t in talks if _try(tokenizer, _marked(t)) is not None]
    systems = [_lost(tokenizer, "system", *talk) for talk in accepted]
    dates = {_try(tokenizer, _marked(("user",)), date=d) for d in (FROZEN, datetime(1999, 12, 31, 3, 4, 5))}
    return ChatTemplate(
        keeps_system=all(found is not None and "system" not in found for found in systems),
        drops=frozenset(lost - {"system"}),
        header=_header(tokenizer),
        dated="strftime_now" in source and len(dates) > 1,
        style=thinking.style_of(source, lambda **variables: _try(tokenizer, _marked(("user",)), **variables)),
    )


def _header(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Read the missing start of the assistant's turn off a dialogue that has one; see `ChatTemplate.header`."""
    asked = _try(tokenizer, _marked(("user",)))
    if asked is None or asked != _try(tokenizer, _marked(("user",)), add_generation_prompt=False):
        return ""
    user, assistant = told = _marked(("user", "assistant"))
    whole = _try(tokenizer, told, add_generation_prompt=False)
    if whole is None or assistant.content not in whole:
        return None
    ends = asked.rpartition(user.content)[2]
    between = whole.partition(assistant.content)[0].rpartition(user.content)[2]
    if ends.startswith(between.rstrip()):
        return ""  # the user's turn always ends where the assistant's begins
    # the model itself writes a blank before the reply: vocabularies join it to the first word
    return between.removeprefix(ends).rstrip(" ") if between.startswith(ends) else None


def _lost(tokenizer: PreTrainedTokenizerBase, *roles: Role) -> set[Role] | None:
    """Return the roles of marked turns that do not arrive; None if the template refuses the dialogue."""
    marked = _marked(roles)
    text = _try(tokenizer, marked)
    return None if text is None else {m.role for m in marked if m.content not in text}


def _marked(roles: Sequence[Role]) -> list[Message]:
    return [Message(role, f"evenhand{n}turn") for n, role in enumerate(roles)]


def _try(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], **options: Any) -> str | None:
    try:
        return rendered(tokenizer, messages, **options)
    except Exception:  # templates raise jinja2 errors of many kinds
        return None


def _moved(messages: Sequence[Message]) -> list[Message]:
    """Move the text of each system turn to the beginning of the following user turn."""
    out: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.content)
        elif waiting and message.role == "assistant":
            break
        else:
            out.append(message._replace(content="\n\n".join([*waiting, message.content])))
            waiting = []
    if waiting:
        raise SettingsError(
            "the chat template has no place for a system turn, and no user turn follows the one with the text "
            f"{waiting[0][:40]!r}: put the text into a user turn"
        )
    return out


def _source(tokenizer: PreTrainedTokenizerBase) -> str:
    template = getattr(tokenizer, "chat_template", None)
    return template if isinstance(template, str) else str(tokenizer.get_chat_template())


def _calendar(date: datetime) -> str:
    """Write `strftime_now` as a Jinja macro, since the sandbox of templates takes no functions from outside."""
    said = "".join(f"|replace('{d}','{_said(date, d)}')" for d in _DIRECTIVES if _said(date, d))
    return f"{{% macro strftime_now(format) %}}{{{{ format{said}|replace('%%','%') }}}}{{% endmacro %}}"


def _said(date: datetime, directive: str) -> str:
    text = date.strftime(directive)
    return "" if text == directive or not re.fullmatch(r"[\w :/,.+-]+", text) else text
