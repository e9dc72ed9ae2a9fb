"""What this process opens, connects to and starts while something hostile is read."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REACHING = ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "shutil.rmtree")
"""Events besides `open` that leave the process, or remove what is there."""
_seen: list[list[tuple[str, str]]] = []
_hooked: list[bool] = []


@contextmanager
def watched() -> Iterator[list[tuple[str, str]]]:
    """Collect (event, path or arguments) of everything that is opened or reached within the block."""
    if not _hooked:  # a hook cannot be taken off again, so there is one for all blocks
        sys.addaudithook(_hook)
        _hooked.append(True)
    seen: list[tuple[str, str]] = []
    _seen.append(seen)
    try:
        yield seen
    finally:
        _seen.remove(seen)


def _hook(event: str, given: tuple[Any, ...]) -> None:
    if not _seen or event not in ("open", *REACHING):
        return
    path = given[0]
    if event == "open" and not isinstance(path, str | bytes):
        return  # a descriptor that is open already
    for seen in _seen:
        seen.append((event, os.fsdecode(path) if isinstance(path, str | bytes) else repr(given)))


def left(seen: list[tuple[str, str]], *inside: Path) -> list[tuple[str, str]]:
    """Events that leave the given folders and the installation.

    Args:
        seen: What `watched` gave.
        inside: Folders that may be read.
    """
    allowed = [*inside, *_installation()]
    roots = [root.resolve() for root in allowed]
    return [
        (event, path)
        for event, path in seen
        if event != "open" or not any(Path(path).resolve().is_relative_to(root) for root in roots)
    ]


def _installation() -> list[Path]:
    """Where Python, its packages and evenhand lie, and what the system and libraries read of the machine."""
    repository = Path(__file__).resolve().parents[2]
    system = [Path(p) for p in ("/usr", "/proc", "/sys", "/dev", "/etc/localtime", "/etc/mime.types", "/lib", "/bin")]
    parts = ("src", "data", "evaluation", "methods", "tests", ".venv")
    packages = [Path(p) for p in sys.path if p and Path(p).resolve() != repository]
    return [*(repository / part for part in parts), *packages, Path(sys.prefix), Path(sys.base_prefix), *system]
