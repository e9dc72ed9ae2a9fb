"""Where a result comes from: versions and the state of the source tree."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evenhand.core.text_output import without_user_info

PACKAGES = ("evenhand", "torch", "transformers", "peft", "accelerate", "datasets", "numpy", "scipy", "openai")


def versions() -> dict[str, str]:
    """Versions of Python, the machine and the packages that decide results."""
    found = {"python": platform.python_version(), "machine": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def command() -> str:
    """Return the typed command, quoted for a shell and without passwords in URLs; "" if evenhand runs from Python."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    is_module = program.name in ("__main__.py", "app.py") and program.parent.name == "cli"
    if not is_module and program.name.removesuffix(".exe") != "evenhand":
        return ""
    return shlex.join(["evenhand", *map(without_user_info, sys.argv[1:])])


def git_state() -> dict[str, str | bool] | None:
    """Commit and cleanliness of the checkout that evenhand runs from; None for an installed package."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return {"commit": commit, "clean": not _git(here, "status", "--porcelain", "--untracked-files=no")}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
