"""Run all torture tests of evenhand, in parts that take less than twenty minutes together: `make torture`.

python benchmarks/torture.py [--minutes 18] [--only kills]

Kills runs, damages what they have stored, floods a server, and fuzzes readers and parsers. Prints a row each; ends with
status 1 if one of them found anything. docs/reliability.md has the commands of their long forms.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tables import markdown

HERE = Path(__file__).parent


def parts(minutes: float) -> dict[str, list[str]]:
    """Return the command of each part, by name.

    Args:
        minutes: Minutes that all parts together may take, of which each has a share.
    """
    return {
        "kills": [str(HERE / "torture_kills.py"), "--kills", "30", "--minutes", f"{0.4 * minutes:.1f}"],
        "storage": [
            *(str(HERE / "torture_storage.py"), "--model", "tiny", "--flips", "800", "--cuts", "60"),
            *("--rounds", "4"),
        ],
        "serve": [str(HERE / "torture_serve.py")],
        "fuzz": ["-m", "tests.fuzz.long_run", "--hours", f"{0.2 * minutes / 60:.3f}"],
    }


def outcome(name: str, command: list[str], limit: float) -> dict[str, object]:
    """Run a part, and return its row of the table, with its last line of output.

    Args:
        name: Name of the part.
        command: Arguments of Python.
        limit: Seconds after which the part is considered to hang.
    """
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False, cwd=HERE.parent, timeout=limit
        )
        status, said = str(done.returncode), done.stdout + (done.stderr if done.returncode else "")
    except subprocess.TimeoutExpired:
        status, said = "hangs", ""
    print(f"{name}\n\n{said}", flush=True)
    told = next((line for line in said.splitlines() if any(sign.isdigit() for sign in line)), "")
    good = "yes" if status == "0" else "NO"
    return {"part": name, "what": told.strip("| "), "minutes": f"{(time.monotonic() - began) / 60:.1f}", "good": good}


def main() -> None:
    """Run all parts, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=18.0, help="approximate time of all parts together")
    parser.add_argument("--only", choices=list(parts(1.0)), help="one part")
    given = parser.parse_args()
    limit = 60 * given.minutes
    chosen = {name: run for name, run in parts(given.minutes).items() if given.only in (None, name)}
    rows = [outcome(name, run, limit) for name, run in chosen.items()]
    print(markdown(rows))
    sys.exit(any(row["good"] == "NO" for row in rows))


if __name__ == "__main__":
    main()
