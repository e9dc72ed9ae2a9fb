"""Fast rendering of many dialogues: the chat template is compiled once and given only what changes between dialogues.

For every dialogue, transformers copies all arguments of the template, and Jinja rebuilds the names that every template
may use; both took longer than the template itself. Here turns are plain texts from the start, and the names are
prepared once. The template runs in transformers' own sandbox, and only after it was seen to write marked dialogues as
transformers does; everything else is left to `apply_chat_template`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from evenhand.interfaces import Message

if TYPE_CHECKING:
    from jinja2 import Template
    from transformers import PreTrainedTokenizerBase

FEW = 4
"""Up to this many dialogues are left to transformers, since compiling the template would take longer."""
_PLAIN = (str, bool, int, float, type(None))
_MARKS = " \u00a0<b>&amp;'\"\\ {{ messages }} {% raw %} \ue000\n\t"
"""Text that templates might change: blanks at its ends, what HTML and Jinja escape, private characters, line ends."""

_compiled: WeakKeyDictionary[Any, dict[tuple[Any, ...], Template | None]] = WeakKeyDictionary()


def written(
    tokenizer: PreTrainedTokenizerBase,
    dialogues: Sequence[Sequence[Message]],
    variables: Mapping[str, Any],
    source: str,
) -> list[str] | None:
    """Render each dialogue as `apply_chat_template` does.

    Args:
        tokenizer: A tokenizer with a chat template.
        dialogues: The turns of each dialogue.
        variables: Variables of the template other than the turns and the special tokens.
        source: The template's text.

    Returns:
        The texts; None if transformers has to write them, because there are only few, something is not plain text, the
        tokenizer overrides `apply_chat_template`, or the template raises an error or was not seen to write the same.
    """
    names = {"tools": None, "documents": None, **tokenizer.special_tokens_map, **variables}
    plain = all(type(m.content) is str for messages in dialogues for m in messages) and all(dialogues)
    if len(dialogues) <= FEW or not plain or not all(map(_is_plain, names.values())):
        return None
    template = _template(tokenizer, names, source)
    try:
        return None if template is None else [_one(template, messages, names) for messages in dialogues]
    except Exception:  # templates raise jinja2 errors of many kinds; transformers raises it in its own words
        return None


def _is_plain(value: Any) -> bool:
    """Whether a value is plain, or a list of texts, as the additional special tokens of some tokenizers are."""
    return type(value) in _PLAIN or (type(value) in (list, tuple) and all(type(one) is str for one in value))


def _one(template: Template, messages: Sequence[Message], names: Mapping[str, Any]) -> str:
    return template.render({**names, "messages": [{"role": str(m.role), "content": m.content} for m in messages]})


def _template(tokenizer: PreTrainedTokenizerBase, names: Mapping[str, Any], source: str) -> Template | None:
    """Return the compiled template if it writes marked dialogues as transformers does; this is tested once."""
    known = _compiled.setdefault(tokenizer, {})
    key = (source, *sorted((name, repr(value)) for name, value in names.items()))
    if key not in known:
        template = _laid_out(tokenizer, source)
        known[key] = template if template is not None and _proven(tokenizer, template, names, source) else None
    return known[key]


def _laid_out(tokenizer: PreTrainedTokenizerBase, source: str) -> Template | None:
    """Compile the template in transformers' sandbox, with the names that all templates may use in one dictionary."""
    from transformers import PreTrainedTokenizerBase

    kind = type(tokenizer)
    usual = kind.apply_chat_template is PreTrainedTokenizerBase.apply_chat_template
    if not usual or "apply_chat_template" in vars(tokenizer):
        return None
    try:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        sandbox = _compile_jinja_template(source).environment
        made: Template = sandbox.template_class.from_code(sandbox, sandbox.compile(source), dict(sandbox.globals))
    except (ImportError, AttributeError):  # another version of transformers
        return None
    return made


def _proven(tokenizer: PreTrainedTokenizerBase, template: Template, names: Mapping[str, Any], source: str) -> bool:
    """Whether the template writes dialogues of several shapes, full of text that it might change, as transformers does.

    A shape that both refuse proves nothing, so at least one has to be written.
    """
    listed = [one for value in names.values() for one in (value if type(value) in (list, tuple) else [value])]
    mark = _MARKS + "".join(one for one in listed if type(one) is str) + " "
    shapes = (("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user"))
    seen = False
    for shape in shapes:
        talk = [Message(role, f"{mark}{n}{mark}") for n, role in enumerate(shape)]  # type: ignore[arg-type]
        theirs = _theirs(tokenizer, talk, names, source)
        try:
            ours = _one(template, talk, names)
        except Exception:  # templates raise jinja2 errors of many kinds
            ours = None
        if ours != theirs:
            return False
        seen = seen or ours is not None
    return seen


def _theirs(
    tokenizer: PreTrainedTokenizerBase, talk: Sequence[Message], names: Mapping[str, Any], source: str
) -> str | None:
    turns = [{"role": m.role, "content": m.content} for m in talk]
    try:
        return str(tokenizer.apply_chat_template(turns, **{**names, "tokenize": False, "chat_template": source}))
    except Exception:  # templates raise jinja2 errors of many kinds
        return None
