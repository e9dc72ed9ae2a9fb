"""Report expressions that the language of evenhand avoids, where a file has more of them than its baseline allows.

Docstrings, messages, comments and names of the Python sources are read, the settings of methods and benchmarks among
them, and the text of documentation and notebooks outside code. Docstrings must also begin in a way that makes sense
without the name above them. Code in backticks, quotations (block quotes, text in
double quotes) and strings of the demo data are left out: their wording is not ours. `language_baseline.json` next to
this file has the occurrences that were there before the rules, as counts per file: new text follows the rules, and old
text is converted over time.

    python lint/language.py             report new occurrences; part of `make lint`
    python lint/language.py --update    write the present counts, after text was converted or a file was moved
    python lint/language.py --update 'is no'    the same, where the expression is new below and its counts are the first
"""

from __future__ import annotations

import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BASELINE = Path(__file__).with_name("language_baseline.json")
SOURCES = ("src/evenhand", "methods", "evaluation", "data", "benchmarks", "docs", "notebooks")
DATA = ("generator",)
"""Folders whose strings are what demo models read, not what evenhand says."""
PROSE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")

TEXT = {
    r"(?<!\bthere )\bis no\b(?! (?:longer|more|less|better|worse|different|bias|preference)\b)": ("is no", "is not a"),
    r"\bbehind\b": ("behind", "after, following"),
    r"\bbeside\b": ("beside", "next to, compared with"),
    r"\b(?:goes|go|went|going) on\b(?! (?:the|to)\b)": ("goes on", "continues, resumes"),
    r"\bhangs? on\b": ("hangs on", "depends on"),
    r"\b(?:is|are|was|were) told\b(?! (?:apart|to)\b)": ("is told", "reports, warns"),
    r"\bmend(?:s|ed|ing)?\b": ("mend", "fix"),
    r"\bso-manieth\b": ("so-manieth", "every n-th"),
    r"\buntouched model": ("the untouched model", "baseline"),
    r"\bquestions? without content\b": ("question without content", "content-free input"),
    r"\bfavours anyway\b": ("what a prompt favours anyway", "prior"),
    r"\basked too\b": ("what is asked too", "overlap"),
    r"\bleakage\b": ("leakage", "decontamination, overlap"),
    r"\bforests?\b": ("forest", "prefix trie, tree attention"),
    r"\bby trying\b|\btrying out\b": ("found out by trying", "support probe"),
    r"\b(?:one|two|calls|texts|pairs|questions|items|tokens|rows|batches|lessons|nats|points|files?) an? (?:batch|step"
    r"|row|token|question|pair|text|class|group|word|layer|axis|judge|prompt|round|family|language|line)\b": (
        "one a row",
        "one per row",
    ),
}
"""What is looked for in sentences: a pattern, its short name and what to write.

Words that are right as often as not, such as "says", "holds", "share" or "kept", are left to reviewers.
"""
DOCSTRINGS = {
    r"Of\b": ("docstring Of", "a sentence, or a noun phrase that stands alone, such as 'Seed of the draw'"),
    r"(?:As|By|Per|Against|Also (?:the|of|a)|Likewise|Those|Such|So many|The same(?=[.,;:]| (?:as|for|in|of|with)\b)"
    r"|At most|Only (?:the|these|this)|From|Behind|Beside)\b": (
        "docstring fragment",
        "a sentence, or a noun phrase that stands alone, such as 'Axes that are asked'",
    ),
    r"(?:Most|Least)\b(?! of\b)": ("docstring Most, Least", "maximum, minimum"),
}
"""What is looked for at the beginning of docstrings, those of fields and constants among them."""
ARGUMENT = re.compile(r"^ *\*{0,2}\w+: (?:Of|Per)\b")
"""A line of a docstring that describes an argument by a fragment."""
SINGLE_NOUN = re.compile(r"(?:The |An? )?`?\w+`?\.")
"""A docstring of a function that only names a thing, and does not say what is done with it."""
NAMES = {
    r"(?:most|least)_(?!common\b)\w+": ("most_*, least_*", "max_*, min_*"),
    r"held_out": ("held_out", "validation_fraction"),
    r"warm_up(?:_\w+)?": ("warm_up", "warmup_ratio, warmup_steps"),
    r"lacks|untrained|untrainable": ("lacks, untrained", "unsupported_reason"),
    r"locality": ("locality", "retain_kl_weight, retain_lm_weight"),
    r"framed": ("framed", "reply_format"),
    r"Mark": ("Mark", "Grade"),
}
"""What is looked for in names of the code."""
SETTINGS = {
    "topic|topics|categor(?:y|ies)": "axis, axes",
    "share": "edit_fraction, estimation_fraction or another *_fraction",
    "validation": "validation_fraction",
    "batch|micro": "batch_size, micro_batch_size",
    "accumulate": "gradient_accumulation_steps",
    "clip": "max_grad_norm",
    "keep|retain|retain_batch": "retain_kl_weight, retain_lm_weight, retain_batch_size",
    "most|least": "max_*, min_*",
    "other": "counter_stereotyped",
    "after|head": "suffix, preamble",
    "settled|without": "direct_answers, without_prior",
}
"""What is looked for in the names of settings alone, where these words mean what another name is for."""
WITH_SETTINGS = re.compile(r"(?:Has)?Settings|\w*(?:Method|Benchmark)")
"""Names of base classes whose subclasses have settings."""
RENAMING = ("old_fields", "old_arguments")
"""Functions that are given old names as keywords."""


class Finding(NamedTuple):
    """An expression in a line."""

    line: int
    expression: str
    better: str
    text: str


def in_python(source: str, *, data: bool = False) -> Iterator[Finding]:
    """Findings in comments, strings and names, but for names in f-strings: only from 3.12 on does Python part these.

    Args:
        source: The text of a module.
        data: Whether its strings are data, so that of these only docstrings are read.
    """
    lines, inside = source.splitlines(), 0
    tree = ast.parse(source)
    yield from _in_settings(tree, lines)
    yield from _in_docstrings(tree, lines)
    declared = _old_names(tree)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        inside += (kind == "FSTRING_START") - (kind == "FSTRING_END")
        if kind == "NAME" and not inside and token.start not in declared:
            for pattern, (expression, better) in NAMES.items():
                if re.fullmatch(pattern, token.string):
                    yield Finding(token.start[0], expression, better, lines[token.start[0] - 1].strip())
        elif kind in ("COMMENT", "STRING", "FSTRING_MIDDLE") and (not data or _is_prose(token)):
            yield from in_text(_without_code(token), token.start[0])


def _in_docstrings(tree: ast.Module, lines: list[str]) -> Iterator[Finding]:
    """Docstrings that only make sense with the name above them; single nouns are only looked for in functions."""
    better = "a sentence that says what is done, such as 'Return the category'"
    for node, number, text in _docstrings(tree):
        for pattern, (expression, instead) in DOCSTRINGS.items():
            if re.match(pattern, text):
                yield Finding(number, expression, instead, lines[number - 1].strip())
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and SINGLE_NOUN.fullmatch(text):
            yield Finding(number, "docstring noun", better, lines[number - 1].strip())
        for below, line in enumerate(text.splitlines()[1:], start=number + 1):
            if ARGUMENT.match(line):
                yield Finding(below, "docstring Of", DOCSTRINGS[r"Of\b"][1], line.strip())


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.AST, int, str]]:
    """What a docstring describes, its line and its text; a string after an assignment describes that."""
    for owner in ast.walk(tree):
        if not isinstance(owner, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        described: list[ast.AST] = [owner, *owner.body]
        for before, part in zip(described, owner.body, strict=False):
            value = part.value if isinstance(part, ast.Expr) else None
            documents = before is owner or isinstance(before, ast.Assign | ast.AnnAssign)
            if documents and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield before, value.lineno, value.value.lstrip(" ")


def _in_settings(tree: ast.Module, lines: list[str]) -> Iterator[Finding]:
    """Old names of settings, in the classes that have some."""
    for cls in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and _has_settings(node)):
        for part in cls.body:
            if not isinstance(part, ast.AnnAssign) or not isinstance(part.target, ast.Name):
                continue
            name = part.target.id
            for pattern, better in SETTINGS.items():
                if re.fullmatch(pattern, name) and "ClassVar" not in ast.unparse(part.annotation):
                    yield Finding(part.lineno, f"setting {name}", better, lines[part.lineno - 1].strip())


def _has_settings(cls: ast.ClassDef) -> bool:
    """Whether `settings` decorates a class, or a base of it is a method or benchmark by its name."""
    decorators = [ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in cls.decorator_list]
    bases = [ast.unparse(b.value if isinstance(b, ast.Subscript) else b) for b in cls.bases]
    return any(_last(name) == "settings" for name in decorators) or any(
        WITH_SETTINGS.fullmatch(_last(name)) for name in bases
    )


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _old_names(tree: ast.Module) -> set[tuple[int, int]]:
    """Places of keywords that are old names because they are declared to be."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {
        (keyword.lineno, keyword.col_offset)
        for call in calls
        if _last(ast.unparse(call.func)) in RENAMING
        for keyword in call.keywords
    }


def _is_prose(token: tokenize.TokenInfo) -> bool:
    return token.type == tokenize.COMMENT or token.string.lstrip("rRbBuUfF").startswith('"""')


def _without_code(token: tokenize.TokenInfo) -> str:
    """A comment or string, with code and quotations blanked: in backticks, in quotes, in the braces of an f-string."""
    text = re.sub(r"`[^`\n]+`", _blank, token.string)
    if _is_prose(token):
        return re.sub(r'(?<!")"[^"\n]+"(?!")', _blank, text)
    if re.fullmatch(r"""["'][\w.]+["']""", text):  # a name, such as that of a module
        return ""
    prefix = re.match(r"\w*", text)
    return re.sub(r"\{[^{}]*\}", _blank, text) if prefix and "f" in prefix[0].lower() else text


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", "~", match[0])


def in_text(text: str, first: int = 1) -> Iterator[Finding]:
    """Findings in sentences; an expression that is broken over two lines is found in the first.

    Args:
        text: Any number of lines.
        first: The number of the first one.
    """
    lines = text.splitlines()
    joined = re.sub(r"\s", " ", text)
    for pattern, (expression, better) in TEXT.items():
        for match in re.finditer(pattern, joined, re.IGNORECASE):
            line = text.count("\n", 0, match.start())
            yield Finding(first + line, expression, better, lines[line].strip())


def in_markdown(text: str, first: int = 1) -> Iterator[Finding]:
    """Findings outside code and quotations."""
    text = re.sub(r"^( *)```.*?^\1```", _blank, text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(?: {4}|\t|>).*$|`[^`\n]+`", _blank, text, flags=re.MULTILINE)
    yield from in_text(re.sub(r'"[^"\n]+"', _blank, text), first)


def in_notebook(source: str) -> Iterator[Finding]:
    """Findings in the text cells; lines are counted within a cell."""
    for cell in json.loads(source)["cells"]:
        if cell["cell_type"] == "markdown":
            yield from in_markdown("".join(cell["source"]))


def _in_module(path: Path, source: str) -> Iterator[Finding]:
    return in_python(source, data=path.parent.name in DATA)


READERS: dict[str, Callable[[Path, str], Iterator[Finding]]] = {
    ".py": _in_module,
    ".md": lambda path, text: in_markdown(text),
    ".ipynb": lambda path, text: in_notebook(text),
}


def files(root: Path) -> Iterator[Path]:
    """Everything that is read, each once: the links in src/evenhand are not followed."""
    for top in SOURCES:
        for path in sorted((root / top).rglob("*")):
            linked = any(p.is_symlink() for p in path.parents if p.is_relative_to(root))
            if path.suffix in READERS and path.is_file() and not linked:
                yield path
    yield from (root / name for name in PROSE)


def findings(root: Path) -> dict[str, list[Finding]]:
    """All occurrences by file."""
    found = {}
    for path in files(root):
        some = sorted(READERS[path.suffix](path, path.read_text(encoding="utf-8")))
        if some:
            found[path.relative_to(root).as_posix()] = some
    return found


def counts(some: Iterable[Finding]) -> dict[str, int]:
    """Occurrences by expression."""
    return dict(sorted(Counter(f.expression for f in some).items()))


def report(found: dict[str, list[Finding]], known: dict[str, dict[str, int]]) -> list[str]:
    """A line for every place of an expression that a file has more often than its baseline allows."""
    out = []
    for file, some in found.items():
        allowed = known.get(file, {})
        for expression, count in counts(some).items():
            if count <= allowed.get(expression, 0):
                continue
            places = [f for f in some if f.expression == expression]
            out.append(
                f"{file}: {count} times {expression!r}, {allowed.get(expression, 0)} in the baseline; write "
                f"{places[0].better!r} instead. One of these is new:"
            )
            out += [f"  {file}:{place.line}: {place.text}" for place in places]
    return out


def more_in_all(found: dict[str, list[Finding]], known: dict[str, dict[str, int]]) -> list[str]:
    """Expressions that all files together have more often than the baseline."""
    before: dict[str, int] = defaultdict(int)
    for allowed in known.values():
        for expression, count in allowed.items():
            before[expression] += count
    now = counts(f for some in found.values() for f in some)
    return [f"{name!r}: {count}, {before[name]} in the baseline" for name, count in now.items() if count > before[name]]


def main(arguments: list[str]) -> int:
    """Check, or write the baseline."""
    found = findings(ROOT)
    known = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    if arguments[:1] == ["--update"]:
        before = {name for allowed in known.values() for name in allowed}
        first = [name for name in arguments[1:] if name not in before]
        more = [line for line in more_in_all(found, known) if not any(line.startswith(f"{name!r}:") for name in first)]
        if known and more:
            print("not written, since the baseline only shrinks:", *more, sep="\n  ")
            return 1
        lines = [f"{json.dumps(file)}: {json.dumps(counts(some))}" for file, some in sorted(found.items())]
        BASELINE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        return 0
    lines = report(found, known)
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
