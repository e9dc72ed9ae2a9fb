"""What `evenhand.core` does once is done nowhere else: a copy would drift, and orders, hashes and files with it."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "evenhand"

Rule = Callable[[ast.AST], bool]


def called(node: ast.AST) -> str:
    """What a call calls, as it is written; "" of anything else."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def imports(*names: str) -> Rule:
    """An import of one of these modules, or of something in it."""

    def found(node: ast.AST) -> bool:
        if isinstance(node, ast.Import):
            return any(alias.name.partition(".")[0] in names for alias in node.names)
        return isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in names and not node.level

    return found


def moves_files(node: ast.AST) -> bool:
    """A file that takes another one's place: `os.replace`, `Path.replace` and what else does that."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and any(alias.name in ("replace", "rename") for alias in node.names)
    if not isinstance(node, ast.Call):
        return False
    name = called(node)
    of_path = name.endswith((".replace", ".rename")) and len(node.args) == 1 and not node.keywords
    known = ("os.replace", "os.rename", "shutil.move", "tempfile.NamedTemporaryFile", "tempfile.mkstemp")
    return of_path or name in (*known, "NamedTemporaryFile", "mkstemp")


def reads_yaml(node: ast.AST) -> bool:
    """YAML's own readers, and their loaders."""
    loaders = ("load", "load_all", "safe_load", "safe_load_all", "full_load", "SafeLoader", "CSafeLoader", "compose")
    if isinstance(node, ast.ImportFrom):
        return node.module == "yaml" and any(alias.name in loaders for alias in node.names)
    return isinstance(node, ast.Attribute) and ast.unparse(node) in {f"yaml.{name}" for name in loaders}


def sorts_keys(node: ast.AST) -> bool:
    """JSON with sorted keys: the text of a hash or of a key."""
    return called(node) in ("json.dumps", "dumps") and any(
        k.arg == "sort_keys" and ast.unparse(k.value) != "False" for k in getattr(node, "keywords", ())
    )


def seeds_by_text(node: ast.AST) -> bool:
    """A generator that is seeded by the bytes of a text, or a shuffle by a generator of its own."""
    name = called(node)
    encoded = name.endswith("default_rng") and ".encode(" in ast.unparse(node)
    return encoded or (name.endswith(").shuffle") and "Random(" in name)


def compares_beginnings(node: ast.AST) -> bool:
    """How far two sequences agree: `commonprefix`, `takewhile`, or the first unequal pair of a `zip`."""
    if called(node).endswith(("commonprefix", "takewhile")):
        return True
    if called(node) != "next" or not isinstance(node, ast.Call) or not isinstance(node.args[0], ast.GeneratorExp):
        return False
    text = ast.unparse(node.args[0])
    return "zip(" in text and " != " in text


def formats_numbers(node: ast.AST) -> bool:
    """Three decimals, as `number` writes them."""
    return (isinstance(node, ast.FormattedValue) and "'.3f'" in ast.dump(node)) or "'+.3f'" in ast.dump(node)


def formats_decimals(node: ast.AST) -> bool:
    """Any fixed number of decimals, in an f-string or by `str.format` and `format`: what may be written as "-0.0"."""
    if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
        return bool(DECIMALS.search(ast.unparse(node.format_spec)))
    if called(node) == "format" and isinstance(node, ast.Call):
        return any(DECIMALS.search(ast.unparse(arg)) for arg in node.args[1:])
    if isinstance(node, ast.Attribute) and node.attr == "format":
        return isinstance(node.value, ast.Constant) and bool(re.search(r":[^}]*\.\d+[fFeE%]", str(node.value.value)))
    is_percent = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant)
    return is_percent and bool(re.search(r"%[-+ 0\d]*\.\d+[fFeE]", ast.unparse(node)))


DECIMALS = re.compile(r"\.\d+[fFeE%]")
FOR_PEOPLE = "evenhand.core.text_output writes the decimals that people read"
PLACES = {FOR_PEOPLE: ("report/", "proving_ground/shown.py")}
"""Beginnings of the paths of the modules that a rule is about; other rules are about all."""

RULES: dict[str, tuple[Rule, dict[str, str]]] = {
    "evenhand.core.hashing and evenhand.core.draws hash": (
        imports("hashlib", "xxhash"),
        {
            "core/hashing.py": "itself",
            "core/draws.py": "itself",
            "models/checksum.py": "tensors are hashed at every question, which needs XXH3",
        },
    ),
    "evenhand.core.file_io writes files whole or not at all": (
        moves_files,
        {
            "core/file_io.py": "itself",
            "core/artifacts.py": "a folder, in which a training that was killed is continued",
            "core/artifact_packing.py": "a folder, which comes whole from another host",
            "experiment/cell_worker.py": "a temporary folder, which gets its name once it is locked",
            "training/checkpoint_folders.py": "a folder",
            "data/io/download.py": "a folder of a repository",
            "models/mitigated.py": "a folder: the base that a copy of a saved model takes along",
            "cli/new.py": "the folder of a new package, or what goes into an empty one",
        },
    ),
    "evenhand.core.yaml_reader reads YAML": (reads_yaml, {"core/yaml_reader.py": "itself"}),
    "evenhand.core.hashing turns JSON into keys": (
        sorts_keys,
        {
            "core/hashing.py": "itself",
            "core/answer_cache.py": "the keys of answers, which refuse what is not JSON",
            "evaluation/metrics/ifeval_checkers.py": "the argument of a function that is cached in memory",
            "models/hugging_face.py": "a tokenizer's file, written as transformers writes it",
        },
    ),
    "evenhand.core.draws seeds by texts": (seeds_by_text, {"core/draws.py": "itself"}),
    "evenhand.core.sequences compares sequences": (compares_beginnings, {"core/sequences.py": "itself"}),
    "evenhand.core.text_output writes numbers": (formats_numbers, {}),
    FOR_PEOPLE: (formats_decimals, {}),
}
"""What is done where: the form that a copy would have, and the modules that may have it, each with the reason."""

COPIES = {
    "evenhand.core.hashing and evenhand.core.draws hash": (
        "import hashlib",
        "from hashlib import sha256",
        "import xxhash",
    ),
    "evenhand.core.file_io writes files whole or not at all": (
        "os.replace(part, target)",
        "part.replace(target)",
        "part.rename(target)",
        "from os import replace",
        "tempfile.NamedTemporaryFile()",
    ),
    "evenhand.core.yaml_reader reads YAML": ("yaml.safe_load(text)", "from yaml import load", "yaml.SafeLoader"),
    "evenhand.core.hashing turns JSON into keys": ("json.dumps(parts, sort_keys=True)",),
    "evenhand.core.draws seeds by texts": (
        "np.random.default_rng([seed, *name.encode()])",
        "Random(f'{seed}/{epoch}').shuffle(order)",
    ),
    "evenhand.core.sequences compares sequences": (
        "os.path.commonprefix([a, b])",
        "sum(1 for _ in takewhile(same, zip(a, b)))",
        "next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), 0)",
    ),
    "evenhand.core.text_output writes numbers": ("f'{value:.3f}'", "f'{value:+.3f}'"),
    FOR_PEOPLE: (
        "f'{value:.2f}'",
        "f'{value:+,.1f} s'",
        "f'{value:.0%}'",
        "'{:.1f}'.format",
        "'from {:.1f}'.format(value)",
        "format(value, '.2f')",
        "'%.2f' % value",
    ),
}
"""Copies that each rule must find."""
OTHERS = (
    "text.replace('a', 'b')",
    "replace(item, axis='age')",
    "self.replace(axis='age')",
    "table.rename(columns={'a': 'b'})",
    "yaml.safe_dump(content)",
    "yaml.YAMLError",
    "json.dumps(content, indent=1)",
    "np.random.default_rng([seed, 1])",
    "random.shuffle(order)",
    "next((a for a, b in zip(x, y, strict=True) if a == b), None)",
    "f'{level:g} %'",
    "f'{seconds:.3g}'",
    "'{}.2f'.format(name)",
    "from evenhand.core.hashing import digest",
)
"""What no rule may find."""


def files() -> Iterator[tuple[str, Path]]:
    """Every module by its path in the package; three of its folders are links."""
    for folder, _, names in os.walk(PACKAGE, followlinks=True):
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            yield path.relative_to(PACKAGE).as_posix(), path


@pytest.fixture(scope="module")
def trees() -> dict[str, list[ast.AST]]:
    return {name: list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))) for name, path in files()}


@pytest.mark.parametrize("what", RULES)
def test_there_is_no_copy(what: str, trees: dict[str, list[ast.AST]]) -> None:
    rule, allowed = RULES[what]
    places = PLACES.get(what, ("",))
    found = {name: node for name, nodes in trees.items() if name.startswith(places) for node in nodes if rule(node)}
    wrong = [f"{name}:{getattr(node, 'lineno', 0)}" for name, node in found.items() if name not in allowed]
    assert not wrong, f"{what}; use it there"
    assert not allowed.keys() - found.keys(), "modules that do not do it any longer"


@pytest.mark.parametrize("what", RULES)
def test_copies_are_found(what: str) -> None:
    rule, _ = RULES[what]
    assert COPIES[what]
    for code in COPIES[what]:
        assert any(rule(node) for node in ast.walk(ast.parse(code))), code
    for code in OTHERS:
        assert not any(rule(node) for node in ast.walk(ast.parse(code))), code


def test_what_is_not_type_checked_ignores_no_undeclared_attribute() -> None:
    """mypy reads `src/evenhand` alone: elsewhere such a comment checks nothing, and looks as if it did."""
    root = PACKAGE.parents[1]
    sources = [path for folder in ("tests", "benchmarks") for path in (root / folder).rglob("*.py")]
    assert len(sources) > 50
    comment = "ignore[attr-" + "defined]"
    assert not [path.name for path in sources if comment in path.read_text(encoding="utf-8")]
