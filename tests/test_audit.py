"""`lint/audit.py` says what was looked up, and never calls packages safe that nobody looked up."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).resolve().parents[1] / "lint" / "audit.py"
CLEAN = {"name": "idna", "version": "3.20", "vulns": []}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found"}
HOLES = {
    "name": "jinja2",
    "version": "2.11.2",
    "vulns": [{"id": "PYSEC-2021-66", "fix_versions": ["2.11.3"]}, {"id": "CVE-1", "fix_versions": []}],
}
FOUND = ["jinja2 2.11.2: PYSEC-2021-66, fixed in 2.11.3", "jinja2 2.11.2: CVE-1, fixed in no version yet"]


@pytest.fixture
def audit() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("evenhand_lint_audit", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def tool(folder: Path, prints: str, status: int = 0) -> str:
    """A stand-in for pip-audit, which keeps the requirements that it was given."""
    file = folder / "pip-audit"
    file.write_text(
        f"#!{sys.executable}\nimport pathlib, shutil, sys\n"
        f"shutil.copy(sys.argv[-1], {str(folder / 'asked')!r})\n"
        f"{prints}\nsys.exit({status})\n"
    )
    file.chmod(0o755)
    return str(file)


def says(*dependencies: object) -> str:
    return f"print({json.dumps({'dependencies': dependencies, 'fixes': []})!r})"


@pytest.mark.parametrize(
    ("dependencies", "lines", "status"),
    [
        ([CLEAN], ["1 locked packages checked, 0 known vulnerabilities"], 0),
        ([CLEAN, HOLES], [*FOUND, "2 locked packages checked, 2 known vulnerabilities"], 1),
        ([UNKNOWN, HOLES], [*FOUND, "1 locked packages checked, 2 known vulnerabilities; not checked: torch"], 1),
        ([UNKNOWN, UNKNOWN], ["not checked: the vulnerability database knows none of 2 packages from here"], 0),
    ],
)
def test_what_was_found_and_what_was_not_checked(
    audit: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    dependencies: list[object],
    lines: list[str],
    status: int,
) -> None:
    found = audit.main([tool(tmp_path, says(*dependencies), status=1)])
    assert capsys.readouterr().out.splitlines() == lines
    assert found == status
    asked = (tmp_path / "asked").read_text().splitlines()
    assert {name.partition("==")[0] for name in asked} == set(audit.audited())
    assert [line for line in asked if line.startswith("torch==")]


def test_a_database_out_of_reach_is_said_in_one_line(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main([tool(tmp_path, "sys.stderr.write('a warning\\nERROR: no route\\n')", status=1)]) == 0
    assert audit.main([str(tmp_path / "none")]) == 0
    broken, absent = capsys.readouterr().out.splitlines()
    assert broken == "not checked: pip-audit gave no result (ERROR: no route)"
    assert absent.startswith("not checked: pip-audit cannot be run (No such file")
