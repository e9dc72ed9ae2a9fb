"""`evenhand new`: a package with a working method or benchmark, as a starting point for your own."""

from __future__ import annotations

import builtins
import keyword
import re
import secrets
import shutil
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from evenhand.cli.output import write
from evenhand.errors import SettingsError

TEMPLATES = Path(__file__).with_name("new_templates")
RESERVED = {"method": ("all", "stack", "repeated"), "benchmark": ("all", "pairs", "datasets")}
"""Names with a special meaning in lists of methods and benchmarks."""
FORM = re.compile(r"[A-Za-z](?:[A-Za-z0-9_]*[A-Za-z0-9])?")
LONGEST = 30
"""Maximum characters of a name, so that lines of code with it three times stay within 120."""

new = typer.Typer(
    no_args_is_help=True, help="Write a package with a working method or benchmark, as a starting point for your own."
)


class Edits(StrEnum):
    """What the example method changes."""

    PROMPT = "prompt"
    WEIGHTS = "weights"


Name = Annotated[str, typer.Argument(help="Its name on the command line, such as fair_prompt: a Python identifier.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder for the package, new or empty; default: ./evenhand-NAME.")
]


@new.command("method")
def new_method(
    name: Name,
    kind: Annotated[
        Edits, typer.Option("--kind", help="What the example changes: the prompt, or the weights of a copy.")
    ] = Edits.PROMPT,
    out: Out = None,
) -> None:
    """Write a package with a mitigation method, its test and a README; nothing is overwritten."""
    write(_told(create("method", name, kind.value, out)))


@new.command("benchmark")
def new_benchmark(name: Name, out: Out = None) -> None:
    """Write a package with a benchmark, its test and a README; nothing is overwritten."""
    write(_told(create("benchmark", name, "benchmark", out)))


def create(kind: str, name: str, template: str, out: Path | None = None) -> Path:
    """Write a plugin package, whole or not at all.

    Args:
        kind: "method" or "benchmark".
        name: The name to register it under.
        template: File of `new_templates` with the code: "prompt", "weights" or "benchmark".
        out: Target folder; None for "evenhand-NAME" in the current folder.

    Returns:
        The package's folder.

    Raises:
        SettingsError: The name cannot be used, the folder has files, or it cannot be written.
    """
    check_name(kind, name)
    folder = out if out is not None else Path(distribution_name(name))
    files = _files(kind, name, template)
    try:
        _write(folder.expanduser().resolve(), files, folder)
    except OSError as error:
        raise SettingsError(
            f"--out {folder} cannot be written: {error.strerror or error}. Name another folder with --out"
        ) from error
    return folder


def check_name(kind: str, name: str) -> None:
    """Refuse a name that cannot be registered, imported or installed.

    Raises:
        SettingsError: The name cannot be used; the message says why, and what to write instead.
    """
    from evenhand.core import registry

    if not FORM.fullmatch(name):
        raise SettingsError(
            f"the name {name!r} cannot be used for a {kind}: it must consist of ASCII letters, digits and underscores, "
            f"begin with a letter and not end with an underscore, such as {_near(name)!r}"
        )
    if len(name) > LONGEST:
        raise SettingsError(f"the name {name!r} has {len(name)} characters; write one of at most {LONGEST}")
    if keyword.iskeyword(name):
        raise SettingsError(f"the name {name!r} is a reserved word of Python; write something like 'my_{name.lower()}'")
    sources = registry.training_sources.names() if kind == "benchmark" else []
    if name in RESERVED[kind] or name in sources:
        raise SettingsError(f"the name {name!r} has a meaning of its own in a list of {kind}s; write 'my_{name}'")
    for other, known in (("method", registry.methods), ("benchmark", registry.benchmarks)):
        if name in known:
            place = known.place(name) or "this process"
            raise SettingsError(f"there is a {other} {name!r} already ({place}); write something like 'my_{name}'")


def distribution_name(name: str) -> str:
    """Return the name of the package for pip, as PyPI normalises it."""
    return re.sub(r"[-_.]+", "-", f"evenhand-{name}").lower()


def class_name(kind: str, name: str, code: str) -> str:
    """Return the class's name: "FairPrompt" for "fair_prompt", with the kind appended if the code already uses that."""
    made = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    taken = keyword.iskeyword(made) or made in vars(builtins) or re.search(rf"\b{made}\b", code)
    return f"{made}{kind.capitalize()}" if taken else made


def _near(name: str) -> str:
    """Suggest a similar name that could be used instead."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return plain if FORM.fullmatch(plain) else f"my_{plain}".rstrip("_")


def _files(kind: str, name: str, template: str) -> dict[str, str]:
    """Fill in the content of every file, by its path in the package's folder."""
    code, test = _read(f"{template}.py"), _read(f"{template}_test.py")
    package = f"evenhand_{name}"
    tried = (
        f"--methods none,{name} --limit 50" if kind == "method" else f"--benchmarks {name} --methods none,self_debias"
    )
    values = {
        "kind": kind,
        "name": name,
        "package": package,
        "distribution": distribution_name(name),
        "class_name": class_name(kind, name, code + test),
        "try_it": f"evenhand compare {tried}",
    }
    texts = {
        "pyproject.toml": _read("pyproject.toml"),
        "README.md": _read("README.md"),
        f"src/{package}/__init__.py": _read("package.py"),
        f"src/{package}/py.typed": "",
        f"src/{package}/{name}.py": code,
        f"tests/test_{name}.py": test,
    }
    return {path: Template(text).substitute(values) for path, text in texts.items()}


def _read(name: str) -> str:
    return (TEMPLATES / f"{name}.template").read_text(encoding="utf-8")


def _write(folder: Path, files: dict[str, str], shown: Path) -> None:
    """Write all files next to the folder, then move them to it in one step."""
    there = folder.is_dir()
    if folder.exists() and (not there or any(folder.iterdir())):
        what = "is a folder with files in it" if there else "is a file"
        raise SettingsError(f"--out {shown} {what}, and nothing is overwritten; name a new or empty folder with --out")
    if not folder.parent.is_dir():
        raise SettingsError(f"--out {shown}: the folder {folder.parent} does not exist; make it first")
    stage = folder.parent / f".{folder.name[:50]}.{secrets.token_hex(4)}.part"  # not mkdtemp, which others may not read
    try:
        for path, text in files.items():
            file = stage / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        if there:
            _fill(folder, stage)
        else:
            stage.rename(folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _fill(folder: Path, stage: Path) -> None:
    """Move everything into an empty folder, or nothing; a shell may be in the folder, so it is not replaced."""
    moved = []
    try:
        for part in sorted(stage.iterdir()):
            part.rename(folder / part.name)
            moved.append(folder / part.name)
    except BaseException:
        for part in moved:
            shutil.rmtree(part) if part.is_dir() else part.unlink()
        raise


def _told(folder: Path) -> str:
    return f"written to {folder}\ninstall it with: pip install -e {folder}\nREADME.md there describes the next steps"
