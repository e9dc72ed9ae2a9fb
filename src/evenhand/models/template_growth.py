"""Determine whether a chat template only iterates over its turns, so that its time and text grow no faster than they.

The template is parsed, not run. In doubt it counts as growing; such a template is tried once, which takes a tenth of a
second, so the rules here may be strict and short.
"""

from __future__ import annotations

from typing import Any

CALLS = frozenset({"raise_exception", "strftime_now", "namespace"})
METHODS = frozenset(
    {"strip", "lstrip", "rstrip", "split", "startswith", "endswith", "upper", "lower", "items", "keys", "values", "get"}
)
FREE = frozenset({"trim", "default", "d", "selectattr", "rejectattr"})
"""Filters that may have arguments, none of which is a size."""
NAMED = frozenset({"map", "select", "reject"})
"""Filters that may have arguments by keyword, as in `map(attribute="role")`; other arguments name a filter to call."""
BARE = frozenset(
    {
        *("length", "count", "upper", "lower", "title", "capitalize", "string", "int"),
        *("first", "last", "list", "items", "safe", "join", "tojson"),
    }
)
"""Filters without arguments; `join` may have a short constant."""
SEPARATOR = 10
"""Maximum length of the constant that texts may be joined by, in characters."""
GROWING_FILTERS = frozenset({"join", "tojson", "string"})
"""Filters that lengthen their input: quotation marks and backslashes are escaped again each time."""
DEPTH = 2
"""Maximum nesting depth of growing steps in an expression."""
SETS = 500
"""Maximum number of assignments in a template that is analysed; a large one has fifty."""
READS = 16
"""Maximum number of names that a growing assignment may read."""


def is_tame(text: str) -> bool:
    """Return whether a template's time and text grow only with its turns.

    Args:
        text: A Jinja template.

    Returns:
        False also if this cannot be determined, or the template cannot be parsed.
    """
    from jinja2 import Environment, TemplateError, nodes

    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
        wild = (nodes.Pow, nodes.Mul, nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock, nodes.With)
        others = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Block, nodes.Extends)
        if any(True for _ in tree.find_all((*wild, *others))):
            return False
        kinds = ((nodes.Mod, _is_number), (nodes.Filter, _is_tame_filter), (nodes.Call, _is_tame_call))
        if not all(is_tame(node) for kind, is_tame in kinds for node in tree.find_all(kind)):
            return False
        if any(_is_deep(loop) for loop in tree.find_all(nodes.For)) or _depth(tree) > DEPTH:
            return False
        return not _grows_on(tree)
    except (TemplateError, RecursionError):
        return False


def _is_number(remainder: Any) -> bool:
    """Whether `%` acts on numbers, as in `loop.index0 % 2`: on texts it can pad to any width."""
    from jinja2 import nodes

    counted = remainder.left
    return isinstance(counted, nodes.Getattr) and isinstance(counted.node, nodes.Name) and counted.node.name == "loop"


def _is_tame_filter(node: Any) -> bool:
    from jinja2 import nodes

    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return False
    if node.name in FREE:
        return True
    if node.name in NAMED:
        return not node.args
    if node.name == "join" and len(node.args) == 1 and not node.kwargs:
        by = node.args[0]
        return isinstance(by, nodes.Const) and len(str(by.value)) <= SEPARATOR
    return node.name in BARE and not node.args and not node.kwargs


def _is_tame_call(call: Any) -> bool:
    from jinja2 import nodes

    if call.dyn_args is not None or call.dyn_kwargs is not None:
        return False
    if isinstance(call.node, nodes.Name):
        return call.node.name in CALLS
    return isinstance(call.node, nodes.Getattr) and call.node.attr in METHODS


def _is_deep(loop: Any) -> bool:
    """Whether a loop is recursive, or has a loop in a loop within it."""
    from jinja2 import nodes

    return loop.recursive or any(True for one in loop.find_all(nodes.For) for _ in one.find_all(nodes.For))


def _grows_on(tree: Any) -> bool:
    """Whether a grown value may grow again: `set b = a ~ a` after `set a = ...`, or with each turn of a loop."""
    from jinja2 import nodes

    bound = [(one.target, one.node) for one in tree.find_all(nodes.Assign)]
    sets = len(bound)
    if sets > SETS:
        return True
    bound += [(loop.target, loop.iter) for loop in tree.find_all(nodes.For)]
    reads = [_names(value) for _, value in bound]
    growing = [_depth(value) > 0 for _, value in bound]
    grown: set[str] = set()
    for _ in bound:  # growth propagates through names, at most one step per name
        before = len(grown)
        grown |= {
            name
            for (target, _), read, grows in zip(bound, reads, growing, strict=True)
            if grows or grown.intersection(read)
            for name in _names(target)
        }
        if len(grown) == before:
            break
    again = any(grows and grown.intersection(read) for read, grows in zip(reads, growing, strict=True))
    return again or any(grows and len(read) > READS for read, grows in zip(reads[:sets], growing, strict=False))


def _names(value: Any) -> list[str]:
    """Return the names in an expression or a target, with repetitions."""
    from jinja2 import nodes

    kinds = (nodes.Name, nodes.NSRef)
    return [node.name for node in [*([value] if isinstance(value, kinds) else []), *value.find_all(kinds)]]


def _depth(node: Any, within: Any = None) -> int:
    """Return the nesting depth of growing steps; a chain of `~` or `+` counts as one."""
    from jinja2 import nodes

    sums = (nodes.Add, nodes.Concat)
    chained = isinstance(node, sums) and isinstance(within, sums)
    deepest = max((_depth(child, node) for child in node.iter_child_nodes()), default=0)
    return deepest + (_is_growing(node) and not chained)


def _is_growing(node: Any) -> bool:
    """Whether the result of a node may be longer than each of its parts."""
    from jinja2 import nodes

    if isinstance(node, nodes.Add):  # adding a number gives a number
        return not any(isinstance(p, nodes.Const) and isinstance(p.value, int) for p in (node.left, node.right))
    if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict):
        return len(node.items) > 1
    if isinstance(node, nodes.Call):
        return isinstance(node.node, nodes.Name) and len(node.args) + len(node.kwargs) > 1
    return isinstance(node, nodes.Concat) or (isinstance(node, nodes.Filter) and node.name in GROWING_FILTERS)
