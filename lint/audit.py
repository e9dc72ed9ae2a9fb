"""Look up every locked package in the database of known vulnerabilities that pip-audit asks.

What is audited is requirements.lock, and the pins of constraints.txt that the lock leaves out (torch). pip-audit calls
a package that its database does not know "skipped" and still ends with "No known vulnerabilities found", as it does for
all of them where an index other than the public one answers; here these count as not checked.

    python lint/audit.py path/to/pip-audit [option of pip-audit ...]    what `make audit` runs

The exit status is 1 where a vulnerability was found, and 0 where none was or where the last line says "not checked".
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LOCK, CONSTRAINTS = ROOT / "requirements.lock", ROOT / "constraints.txt"


class Audit(NamedTuple):
    """What the database said."""

    checked: int
    """Number of packages that it knows."""
    skipped: list[str]
    """Names of those that it does not know."""
    found: list[str]
    """A line per vulnerability: package, version, id, and the versions that fix it."""


def pins(file: Path) -> dict[str, str]:
    """Versions by normalised name, of a lock or a file of constraints; whatever the platform."""
    lines = (line.split("#")[0].rstrip(" \\") for line in file.read_text(encoding="utf-8").splitlines())
    wanted = [Requirement(line) for line in lines if line and not line.startswith((" ", "-"))]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in wanted}


def audited(lock: Path = LOCK, constraints: Path = CONSTRAINTS) -> dict[str, str]:
    """Versions by name of all that is looked up."""
    return {**pins(constraints), **pins(lock)}


def read(dependencies: Iterable[Mapping[str, Any]]) -> Audit:
    """The `dependencies` of pip-audit's JSON."""
    checked, skipped, found = 0, [], []
    for one in dependencies:
        if "skip_reason" in one:
            skipped.append(one["name"])
            continue
        checked += 1
        for hole in one["vulns"]:
            fixed = ", ".join(hole["fix_versions"]) or "no version yet"
            found.append(f"{one['name']} {one['version']}: {hole['id']}, fixed in {fixed}")
    return Audit(checked, skipped, found)


def report(audit: Audit) -> list[str]:
    """What is printed: vulnerabilities first, a summary last."""
    checked = f"{audit.checked} locked packages checked, {len(audit.found)} known vulnerabilities"
    if not audit.checked:
        return [f"not checked: the vulnerability database knows none of {len(audit.skipped)} packages from here"]
    if audit.skipped:
        return [*audit.found, f"{checked}; not checked: {', '.join(audit.skipped)}"]
    return [*audit.found, checked]


def ask(tool: str, options: Sequence[str], versions: Mapping[str, str]) -> Audit | str:
    """Run pip-audit on these versions; or why it could not be done, in one line."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")
        fixed = ("--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json")
        try:
            done = subprocess.run(
                [tool, *fixed, *options, "-r", str(wanted)], capture_output=True, text=True, check=False
            )
        except OSError as error:
            return f"pip-audit cannot be run ({error.strerror}: {tool})"
    try:
        return read(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return f"pip-audit gave no result ({last[:120]})"


def main(arguments: Sequence[str]) -> int:
    """Audit and print; returns the exit status."""
    if not arguments:
        print("usage: python lint/audit.py path/to/pip-audit [option of pip-audit ...]")
        return 2
    result = ask(arguments[0], arguments[1:], audited())
    print(*([f"not checked: {result}"] if isinstance(result, str) else report(result)), sep="\n")
    return 1 if isinstance(result, Audit) and result.found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
