"""evenhand is installed whole, once, and leaves no `methods` or `data` in site-packages."""

import os
import stat
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import evenhand

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("methods", "evaluation", "data")
MOST_MEGABYTES = 20
"""Of an archive. The demo models take most of it; beyond this they would have to become a package of their own."""
IMPORT_ALL = """
import sys
import evenhand, evenhand.methods, evenhand.evaluation, evenhand.data
for module in (evenhand, evenhand.methods, evenhand.evaluation, evenhand.data):
    assert module.__file__.startswith(sys.argv[1]), module.__file__
"""


def run(*args: str, **env: str) -> None:
    done = subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        cwd="/",
        env={**os.environ, **env},
        check=False,
    )
    assert done.returncode == 0, f"{args}\n{done.stdout}\n{done.stderr}"


def install(source: Path, target: Path) -> None:
    """Install without dependencies; the index is off, so a build that wants one fails loudly."""
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    run("-m", "pip", "install", *options, "--target", str(target), str(source))


def assert_imports_from(place: Path) -> None:
    # PYTHONPATH goes before the environment's own, editable evenhand.
    run("-c", IMPORT_ALL, str(place), PYTHONPATH=str(place), PYTHONDONTWRITEBYTECODE="1")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist, both from the working tree."""
    out = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", str(out), str(ROOT))
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def test_wheel_holds_each_file_once_under_evenhand(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        names = wheel.namelist()
    assert len(names) == len(set(names))
    version = evenhand.__version__
    tops = {name.split("/")[0] for name in names}
    assert tops == {"evenhand", f"evenhand-{version}.dist-info"}
    assert "evenhand/py.typed" in names
    for part in PARTS:
        files = (path for path in (ROOT / part).rglob("*") if path.is_file())
        sources = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
        held = {n.removeprefix("evenhand/") for n in names if n.startswith(f"evenhand/{part}/")}
        assert held == sources


def test_wheel_has_files_in_place_of_the_links(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        modes = {entry.filename: entry.external_attr >> 16 for entry in wheel.infolist()}
        assert [name for name, mode in modes.items() if stat.S_ISLNK(mode)] == []
        for part in PARTS:
            assert wheel.read(f"evenhand/{part}/__init__.py") == (ROOT / part / "__init__.py").read_bytes()


def test_archives_are_small(archives: tuple[Path, Path]) -> None:
    assert [file.name for file in archives if file.stat().st_size > MOST_MEGABYTES * 10**6] == []


def test_sdist_holds_the_folders_and_not_the_links(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[1]) as sdist:
        names = {name.split("/", 1)[1] for name in sdist.getnames() if "/" in name}
        assert not [member.name for member in sdist.getmembers() if member.issym()]
    assert {f"{part}/__init__.py" for part in PARTS} <= names
    assert {"requirements.lock", "constraints.txt", "CITATION.cff", "LICENSE"} <= names
    assert not [n for n in names if ".dist-info" in n]
    assert not [n for n in names if n.startswith(tuple(f"src/evenhand/{part}" for part in PARTS))]


def test_the_version_is_one_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == citation["version"] == evenhand.__version__
    assert project["license"] == citation["license"]


def test_installed_wheel_imports(archives: tuple[Path, Path], tmp_path: Path) -> None:
    install(archives[0], tmp_path)
    assert not [part for part in PARTS if (tmp_path / part).exists()]
    assert_imports_from(tmp_path)


def test_wheel_imports_unopened(archives: tuple[Path, Path]) -> None:
    assert_imports_from(archives[0])


def test_unpacked_sdist_installs_without_links(archives: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(archives[1]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    install(source, tmp_path / "site")
    assert_imports_from(tmp_path / "site")
