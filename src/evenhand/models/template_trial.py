"""A program that renders one chat template under limits, for `evenhand.models.template_guard`; it imports no evenhand.

It reads {"template", "seconds", "bytes", "longest", "path"} as JSON from standard input; `path` is where the caller
finds Jinja. It exits with 0 if the template gave a text or an error of its own, and with 3 if the text is too long
or does not fit into memory; the limit ends a slow one. Any other status says nothing about the template.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

TALKS = (("user",), ("system", "user", "assistant", "user"), ("user", "assistant") * 20)
TEXT = "evenhand0turn Which of the two? "
TOO_LONG = 3


def limited(seconds: int, size: int) -> None:
    """Bound processor time and memory of this process, if the system supports that."""
    try:
        import resource
    except ImportError:  # on Windows; the caller's timeout still ends the process
        return
    for kind, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, size)):
        with suppress(ValueError, OSError):  # macOS does not limit memory
            hard = resource.getrlimit(kind)[1]
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (bound, bound))


def environment() -> Any:
    """Set up Jinja as transformers does for chat templates."""
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block around an assistant's text, which is rendered as it is."""

        def __init__(self, environment: Any) -> None:
            super().__init__(environment)
            self.tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = _tojson
    made.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: "26 Jul 2024"}
    return made


def main() -> int:
    """Render every dialogue, and return the exit status."""
    given = json.load(sys.stdin)
    sys.path[:] = given["path"]
    made = environment()
    limited(given["seconds"], given["bytes"])
    try:
        return TOO_LONG if any(size > given["longest"] for size in _sizes(made, given["template"])) else 0
    except (MemoryError, RecursionError):
        return TOO_LONG


def _sizes(made: Any, template: str) -> Iterator[int]:
    """Yield the length of each rendered dialogue in characters."""
    for talk in TALKS:
        turns = [{"role": role, "content": TEXT * 4} for role in talk]
        try:
            text = made.from_string(template).render(
                messages=turns, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
            )
        except (MemoryError, RecursionError):
            raise
        except Exception:  # refusals of the template or the sandbox, which recur when the model is asked
            continue
        yield len(text)


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, **options)


def _refuse(message: str) -> None:
    raise ValueError(message)


if __name__ == "__main__":
    sys.exit(main())
