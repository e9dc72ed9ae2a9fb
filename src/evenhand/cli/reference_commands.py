"""Reference page of the documentation site for all commands and options, generated from the parser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from evenhand.cli import marked_tables
from evenhand.cli.app import app


def page() -> str:
    """Render all commands in Markdown."""
    head = (
        "# Commands\n\n`evenhand COMMAND --help` prints the same in a terminal. An option that is marked with + may be "
        "given several times."
    )
    return "\n\n".join([head, *(_section(name, command) for name, command in commands())]) + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command that is not a group, with the words that call it, such as "data fetch"."""
    yield from _below("", get_command(app))


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield a command itself, or the commands of a group."""
    inner = vars(command).get("commands")
    if inner is None:
        yield name, command
        return
    for word, one in inner.items():
        yield from _below(f"{name} {word}".strip(), one)


def _section(name: str, command: Any) -> str:
    usage = " ".join(["evenhand", name, *(_argument(p) for p in command.params if _is_argument(p))])
    rows = [(_names(one), _default(one), _cell(one.help or "")) for one in command.params if one.name != "help"]
    table = marked_tables.table(("argument or option", "default", "what it is"), rows)
    about = " ".join((command.help or "").split("\f")[0].split())
    return f"## evenhand {name}\n\n{_cell(about)}\n\n```\n{usage} [OPTIONS]\n```" + (f"\n\n{table}" if rows else "")


def _is_argument(one: Any) -> bool:
    return not one.opts[0].startswith("-")


def _argument(one: Any) -> str:
    return one.name.upper() if one.required else f"[{one.name.upper()}]"


def _names(one: Any) -> str:
    """How an argument or option is given."""
    if _is_argument(one):
        return f"`{one.name.upper()}`"
    return ", ".join(f"`{name}`" for name in [*one.opts, *one.secondary_opts]) + (" +" if one.multiple else "")


def _default(one: Any) -> str:
    if one.required:
        return "required"
    if one.default in (None, "", False):
        return ""
    return f"`{one.default}`"


def _cell(text: str) -> str:
    """Escape `*`, `<` and `|`, so that Markdown shows them as they are."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
