"""The works that a paper using a run should cite: BibTeX of its methods and benchmarks.

The entries are in `references.bib`. A test compares their arXiv numbers and years with those in the sources of the
methods and benchmarks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from evenhand.core import registry, specs
from evenhand.core.records import Record, is_baseline
from evenhand.errors import SettingsError

METHODS: Mapping[str, tuple[str, ...]] = {
    "self_debias": ("gallegos2025selfdebiasing",),
    "instruction": ("chen2024causally",),
    "self_debias_decoding": ("schick2021selfdiagnosis",),
    "moral_self_correction": ("ganguli2023capacity",),
    "intent_self_correction": ("anantaprayoon2025intent",),
    "self_help": ("xu2025biasfreebench",),
    "permutation": ("liusie2024teacher",),
    "permutation_distillation": ("liusie2024teacher",),
    "pride": ("zheng2023selectors",),
    "prior_matching": ("liusie2023word",),
    "contextual_calibration": ("zhao2021calibrate",),
    "domain_calibration": ("fei2023mitigating",),
    "batch_calibration": ("zhou2023batch",),
    "looc": ("reif2024beyond",),
    "fair_distillation": ("delobelle2022fairdistillation",),
    "deep_to_shallow": ("bayasi2025debiasify",),
    "task_vector": ("ilharco2023editing", "zhang2023composing", "dige2024mitigating"),
    "pcgu": ("yu2023unlearning", "dige2024mitigating"),
    "preference": ("rafailov2023direct", "dige2024mitigating"),
    "pairwise": ("rafailov2023direct", "zhang2024negative", "fan2024simplicity", "liu2025unlearning"),
    "steering": ("panickssery2023steering", "siddique2026shifting", "cyberey2025concept", "arditi2024refusal"),
    "fairsteer": ("li2025fairsteer",),
    "cross_model_adjudication": ("cmaf2026",),
}
"""Keys of each method's sources."""
BENCHMARKS: Mapping[str, tuple[str, ...]] = {
    "bbq": ("parrish2022bbq",),
    "holistic_bias": ("smith2022sorry",),
    "mmlu": ("hendrycks2021measuring",),
    "gpqa": ("rein2023gpqa",),
    "ifeval": ("zhou2023instruction",),
    "b_score": ("vo2025bscore",),
    "label_bias": ("reif2024beyond", "wang2022supernaturalinstructions"),
    "option_order": ("liusie2024teacher", "zheng2023selectors"),
    "stereoset": ("nadeem2021stereoset",),
    "crows_pairs": ("nangia2020crows",),
    "winogender": ("rudinger2018gender",),
    "winobias": ("zhao2018gender",),
    "redditbias": ("barikeri2021redditbias",),
    "pronoun_skew": ("kurita2019measuring",),
    "disco": ("webster2020measuring",),
    "seat": ("may2019measuring",),
    "self_diagnosis": ("schick2021selfdiagnosis",),
    "kobbq": ("jin2024kobbq",),
    "esbbq": ("ruizfernandez2025esbbq",),
    "cabbq": ("ruizfernandez2025esbbq",),
    "gg_bbq": ("satheesh2025ggbbq",),
    "mbbq": ("neplenbroek2024mbbq",),
    "cbbq": ("huang2024cbbq",),
    "honest": ("nozza2021honest",),
    "unqover": ("li2020unqovering",),
    "discrim_eval": ("tamkin2023evaluating",),
    "difference_awareness": ("wang2025fairness",),
    "winoqueer": ("felkner2023winoqueer",),
}
"""Keys of each benchmark's sources."""
OWN = ("none", "counterfactual_distillation", "perplexity", "multiple_choice_file")
"""Methods and benchmarks of evenhand without a paper to cite."""
_ENTRY = re.compile(r"^@\w+\{([^,]+),\n.*?^\}$", re.M | re.S)


def bibtex(methods: Iterable[str], benchmarks: Iterable[str], *, version: str = "", year: str = "") -> str:
    """Return the BibTeX of what was used, each entry once, evenhand itself first.

    Args:
        methods: Specs of methods, such as "pcgu(k=0.3)+self_debias"; names are enough.
        benchmarks: Specs of benchmarks. `option_order` also cites the benchmark whose questions it asks.
        version: Version of evenhand; "" leaves it out.
        year: Year of the run; "" leaves it out.

    Returns:
        Entries, and a comment for each name without a known source, such as a plugin's.
    """
    keys: dict[str, None] = {}
    unknown: dict[str, None] = {}
    named = [(METHODS, name) for spec in methods for name in _methods_in(spec)]
    named += [(BENCHMARKS, name) for spec in benchmarks for name in _benchmarks_in(spec)]
    for known, name in named:
        keys |= dict.fromkeys(known.get(name, ()))
        if name not in known and name not in OWN:
            unknown[name] = None
    found = entries()
    comments = [
        f"% No source of {_harmless(name)} is known to evenhand: add what its authors ask for." for name in unknown
    ]
    return "\n\n".join([_evenhand(version, year), *(found[key] for key in keys), *comments]) + "\n"


def bibtex_of_run(records: Sequence[Record], manifest: Mapping[str, Any]) -> str:
    """Return the BibTeX of the methods and benchmarks that have numbers, and of methods that trained a compared model.

    Args:
        records: Records of the run.
        manifest: Manifest of the run.
    """
    used = [r for r in records if r.has_numbers]
    trained = [str(facts.get("trained_by", "")) for facts in manifest.get("models", {}).values()]
    rows = [r.method for r in used if not is_baseline(r.method)]
    return bibtex(
        dict.fromkeys([*rows, *filter(None, trained)]),
        dict.fromkeys(r.benchmark for r in used),
        version=str(manifest.get("versions", {}).get("evenhand", "")),
        year=str(manifest.get("started", ""))[:4],
    )


@cache
def entries() -> Mapping[str, str]:
    """Read all entries of `references.bib` by key."""
    text = files("evenhand.report").joinpath("references.bib").read_text(encoding="utf-8")
    return {match[1]: match[0] for match in _ENTRY.finditer(text)}


def _evenhand(version: str, year: str) -> str:
    fields = {
        "title": "{evenhand}: a social-bias mitigation workbench for language models",
        "key": "evenhand",
        "year": _harmless(year),
        "note": f"Software, version {_harmless(version)}" if version else "Software",
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join(["@misc{evenhand,", *lines, "}"])


def _methods_in(spec: str) -> Iterator[str]:
    """Yield the names of the methods in a stack."""
    try:
        parts = specs.split(spec, "+")
    except SettingsError:  # the name of a method that was registered from Python
        parts = [spec]
    for part in parts:
        yield part.partition("(")[0].strip()


def _benchmarks_in(spec: str) -> Iterator[str]:
    """Yield the benchmark's name, and that of the benchmark whose questions it asks."""
    name = spec.partition("(")[0].strip()
    yield name
    if name == "option_order":
        try:
            yield from _benchmarks_in(registry.build_benchmark(spec).settings["of"])
        except (SettingsError, KeyError):  # written by another version, whose settings are no longer known
            return


def _harmless(text: str) -> str:
    """Remove the characters that BibTeX interprets, comments included, from a name that a plugin chose."""
    return re.sub(r"[^\w .:+-]", "?", text)
