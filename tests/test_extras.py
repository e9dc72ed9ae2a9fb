"""Without an extra, evenhand works but for what needs it, and what needs it names the extra.

One process has none of the extras' modules, as after an installation without extras, and tries what needs each of them.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OF_EXTRAS = {
    "bitsandbytes": {"quant"},
    "fastapi": {"serve"},
    "google": {"sentencepiece"},
    "immutabledict": {"ifeval"},
    "langdetect": {"ifeval"},
    "lm_eval": {"lm-eval", "ifeval"},
    "nltk": {"ifeval"},
    "openai": {"endpoint"},
    "ray": {"ray"},
    "sentencepiece": {"sentencepiece"},
    "starlette": {"serve"},
    "trl": {"trl"},
    "uvicorn": {"serve"},
}
"""Modules that evenhand imports and that only an extra brings, with these extras."""
COME_ALONG = {"tokenizers": "transformers", "h11": "huggingface_hub"}
"""Packages that evenhand imports and that a dependency cannot do without, with that dependency."""
NAMED = {
    "endpoint": "endpoints need the openai package: pip install 'evenhand[endpoint]'",
    "vllm": "endpoints need the openai package: pip install 'evenhand[endpoint]'",
    "serve": "serving needs fastapi and uvicorn (No module named 'uvicorn'): pip install 'evenhand[serve]'",
    "quant": "quantised loading needs bitsandbytes: pip install 'evenhand[quant]'",
    "sentencepiece": "to open it: pip install 'evenhand[sentencepiece]'",
    "ray": "--on ray needs Ray, which is not installed: pip install 'evenhand[ray]'",
    "trl": "cross_model_adjudication trains with TRL: pip install 'evenhand[trl]'",
    "lm-eval": "lm-eval is not installed (No module named 'lm_eval'); pip install \"evenhand[lm-eval]\"",
    "ifeval": "ifeval: IFEval's checkers are not installed: pip install 'evenhand[ifeval]'",
}
"""How the error of what needs an extra ends. The client of a vLLM server needs `endpoint` alone."""
NOTHING_NEEDS = {"bench", "docs", "notebook", "dev"}
"""Extras for scripts, notebooks and development: no module of evenhand imports what they bring."""
WITHOUT = """
import importlib, json, sys
from importlib.machinery import PathFinder
from pathlib import Path

GONE = frozenset(sys.argv[2].split(","))


class Without:
    '''Finds what `PathFinder` finds, but for the modules that are to be missing.'''

    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in GONE else PathFinder.find_spec(name, path, target)

    find_distributions = PathFinder.find_distributions
    invalidate_caches = PathFinder.invalidate_caches


sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
assert not GONE & {name.partition(".")[0] for name in sys.modules}

import evenhand
from evenhand.errors import EvenhandError
from evenhand.integrations import lm_eval, openai_server, ray_crew
from evenhand.models.tiny import tiny_model

model = tiny_model()
folder = Path(sys.argv[1])
model.weights.module.save_pretrained(folder)
(folder / "tokenizer.model").write_bytes(b"\\n\\x0e\\n\\x05<unk>")
TRIED = {
    "endpoint": lambda: evenhand.load("endpoint:http://127.0.0.1:9/v1#m"),
    "vllm": lambda: evenhand.load("vllm:http://127.0.0.1:9/v1#m"),
    "serve": lambda: openai_server.serve(model),
    "quant": lambda: evenhand.load("demo", load_in_4bit=True),
    "sentencepiece": lambda: evenhand.load(folder),
    "trl": lambda: evenhand.methods.CrossModelAdjudication(pool=("demo",)).apply(model),
    "ray": lambda: ray_crew.RayCrew(),
    "lm-eval": lambda: lm_eval.as_lm(model),
    "ifeval": lambda: evenhand.evaluation.IFEval(source="demo").load(),
}


def said(what):
    try:
        what()
    except EvenhandError as error:
        return str(error)
    return "no error"


found = {extra: said(what) for extra, what in TRIED.items()}
report = evenhand.compare("demo", "none,instruction", "bbq", limit=4, out=folder / "run")
found["compared"] = sorted({record.method for record in report.records})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What each part says in a process without extras, by extra; and the methods that were compared."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT, str(tmp_path_factory.mktemp("without")), ",".join(OF_EXTRAS)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("extra", sorted(set(PROJECT["optional-dependencies"]) - NOTHING_NEEDS))
def test_what_needs_an_extra_names_it(said: dict[str, object], extra: str) -> None:
    assert str(said[extra]).endswith(NAMED[extra])


def test_methods_are_compared_without_extras(said: dict[str, object]) -> None:
    assert said["compared"] == ["instruction", "none"]


def of_dependencies(lines: list[str]) -> set[str]:
    """Names of packages that some lines of pyproject.toml ask for."""
    return {canonicalize_name(Requirement(line).name) for line in lines}


def imported() -> set[str]:
    """Top-level names of everything that a module of evenhand imports, wherever in the module it does so."""
    found: set[str] = set()
    for folder, _, files in os.walk(ROOT / "src" / "evenhand", followlinks=True):
        for file in (Path(folder, name) for name in files if name.endswith(".py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add((node.module or "").partition(".")[0])
                elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
                    found |= set(re.findall(r"^'(\w+)", ast.unparse(node.args[0])))
    return found - set(sys.stdlib_module_names) - {"evenhand"}


def test_every_import_is_of_a_dependency_or_of_an_extra() -> None:
    distributions = packages_distributions()
    ours = of_dependencies(PROJECT["dependencies"]) | set(COME_ALONG)
    others = {name for name in imported() if not ours & {canonicalize_name(one) for one in distributions.get(name, ())}}
    assert others == set(OF_EXTRAS) - {"immutabledict"}  # lm-eval's checkers import that one
    assert set.union(*OF_EXTRAS.values()) | {"vllm"} | NOTHING_NEEDS == set(PROJECT["optional-dependencies"])
    assert set(NAMED) == set(PROJECT["optional-dependencies"]) - NOTHING_NEEDS
