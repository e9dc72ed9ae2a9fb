"""How long commands take that need no model, beside the help of lm-evaluation-harness.

make bench        or        python benchmarks/bench_startup.py
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from measuring import timed
from tables import put

COMMANDS = ("evenhand --help", "evenhand methods", "evenhand benchmarks", "lm_eval --help")
RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    for command in COMMANDS:
        name, *arguments = command.split()
        run = partial(
            subprocess.run, [str(Path(sys.executable).with_name(name)), *arguments], capture_output=True, check=True
        )
        rows.append({"command": command, "best of five, s": f"{min(timed(run).seconds for _ in range(RUNS)):.2f}"})
    put("start-up", rows, write=given.write)


if __name__ == "__main__":
    main()
