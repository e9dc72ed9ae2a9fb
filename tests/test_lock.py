"""`requirements.lock` has what pyproject.toml asks for, in the versions of constraints.txt, with hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LOCK, CONSTRAINTS = (ROOT / name for name in ("requirements.lock", "constraints.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LEFT_OUT = {"torch"}
"""Its wheel depends on the machine; the head of the lock says how it is installed."""
PYTHONS = tuple(
    found[1]
    for c in PROJECT["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", c))
)


def locked() -> dict[str, tuple[Requirement, int]]:
    """Each package of the lock with its requirement and the number of its hashes."""
    text = LOCK.read_text(encoding="utf-8")
    blocks = [b for b in re.split(r"\n(?! )", text) if b and not b.startswith("#")]
    found = [
        (Requirement(b.splitlines()[0].rstrip(" \\")), len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", b)))
        for b in blocks
    ]
    assert len({canonicalize_name(one.name) for one, _ in found}) == len(found)
    return {canonicalize_name(one.name): (one, hashes) for one, hashes in found}


def version(requirement: Requirement) -> Version:
    """The one that `==` pins; a requirement without it fails."""
    (pin,) = requirement.specifier
    assert pin.operator == "==", f"{requirement} is not pinned"
    return Version(pin.version)


def constrained() -> dict[str, Version]:
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): version(pin) for pin in pins}


def wanted(extra: str = "") -> list[Requirement]:
    """What pyproject.toml asks for with an extra, and with the extras that this one names."""
    lines = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    found = []
    for one in map(Requirement, lines):
        if one.name == PROJECT["name"]:
            found += [each for inner in sorted(one.extras) for each in wanted(inner)]
        else:
            found.append(one)
    return found


@pytest.mark.parametrize("requirement", [*wanted(), *wanted("dev")], ids=str)
def test_the_lock_satisfies_the_bounds(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    pinned = constrained()[name] if name in LEFT_OUT else version(locked()[name][0])
    assert requirement.specifier.contains(pinned, prereleases=True), f"{requirement} does not allow {pinned}"


def test_the_lock_has_the_versions_of_the_constraints() -> None:
    pins = constrained()
    ours = {name: version(requirement) for name, (requirement, _) in locked().items()}
    assert {name: v for name, v in ours.items() if name in pins and v != pins[name]} == {}
    assert LEFT_OUT.isdisjoint(ours)
    assert set(pins) - set(ours) == LEFT_OUT


def test_every_locked_package_has_hashes_and_no_address() -> None:
    assert {name for name, (_, hashes) in locked().items() if not hashes} == set()
    assert {name for name, (requirement, _) in locked().items() if requirement.url} == set()
    assert "://" not in LOCK.read_text(encoding="utf-8")


@pytest.mark.parametrize("python", PYTHONS)
def test_what_the_lock_leaves_out_for_a_platform_is_not_asked_for_by_us(python: str) -> None:
    """On Linux, x86-64 and CPython, the markers drop nothing that pyproject.toml names."""
    place = {
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_system": "Linux",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    kept = {name for name, (one, _) in locked().items() if one.marker is None or one.marker.evaluate(place)}
    assert {canonicalize_name(one.name) for one in (*wanted(), *wanted("dev"))} - LEFT_OUT <= kept


def test_the_lock_is_tried_on_every_python_that_the_classifiers_name() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    tried = re.search(r"^PYTHONS := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert tried is not None
    assert PYTHONS[0] == tried[1].split()[0] == oldest
    assert set(PYTHONS) <= set(tried[1].split())
