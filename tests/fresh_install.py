"""Install a wheel into an environment of its own, without extras, and compare the methods on the demo there.

    python -m tests.fresh_install dist/evenhand-0.1.0-py3-none-any.whl [option of compare ...]

Part of `make package`. It needs a package registry and some minutes, so it is no test. The environment is made in a
temporary folder and removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OF_EXTRAS = ("openai", "fastapi", "trl", "lm_eval", "nbclient", "vllm", "bitsandbytes", "sentencepiece", "pytest")
"""A module of each extra, which must not be there."""
NO_EXTRAS = """
import importlib.util, pathlib, sys, evenhand
there = [name for name in sys.argv[2:] if importlib.util.find_spec(name)]
assert not there, f"without extras, these are installed: {there}"
assert pathlib.Path(evenhand.__file__).is_relative_to(sys.argv[1]), evenhand.__file__
"""


def run(place: Path, *command: str) -> str:
    """Run a program in an empty folder, without what the caller's environment says to Python and evenhand.

    Raises:
        SystemExit: It failed; with its output.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EVENHAND", "VIRTUAL"))}
    done = subprocess.run(
        command,
        cwd=place,
        env={**kept, "HF_HUB_OFFLINE": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")
    return done.stdout


def install(wheel: Path, place: Path) -> Path:
    """Make the environment in `place`, in the tested versions; returns its folder of programs."""
    run(place, sys.executable, "-m", "venv", "env")
    programs = place / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = str(programs / "python")
    run(place, python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel))
    run(place, python, "-m", "pip", "check")
    run(place, python, "-c", NO_EXTRAS, str(place), *OF_EXTRAS)
    return programs


def check_page(run_folder: Path, printed: str) -> None:
    """Make sure that the comparison was printed and that its page shows each method.

    Raises:
        SystemExit: Something is missing.
    """
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    for wanted in ("planted bias", "self_debias", "permutation", "pride"):
        for text, where in ((printed, "what was printed"), (page, "report.html")):
            if wanted not in text:
                raise SystemExit(f"{where} of the comparison lacks {wanted!r}:\n{printed}")


def main(arguments: Sequence[str]) -> None:
    """Check the wheel that the first argument names; the others go to `evenhand compare`."""
    wheel, *options = arguments
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        programs = install(Path(wheel).resolve(), place)
        printed = run(place, str(programs / "evenhand"), "compare", "--out", "run", *options)
        check_page(place / "run", printed)
    print(f"{Path(wheel).name} installs without extras, and compares the methods on the demo:\n\n{printed}")


if __name__ == "__main__":
    main(sys.argv[1:])
