"""What a run rests on is said in full: command, settings, data and licences, training, versions, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evenhand.core import provenance as state
from evenhand.core.records import Record
from evenhand.experiment.training_data import source_of
from evenhand.interfaces import TrainData
from evenhand.report import Report
from evenhand.report.provenance import OWN_DATA, UNKNOWN, licence, provenance

MANIFEST: dict[str, Any] = {
    "command": "evenhand compare -m demo",
    "started": "2026-01-02T03:04:05+00:00",
    "seconds": 12.5,
    "seed": 7,
    "limit": 100,
    "samples": 1,
    "temperature": None,
    "statistics": {"alpha": 0.05, "margin": 0.02},
    "models": {
        "m": {"source": "org/m", "dtype": "bfloat16", "parameters": 1234567, "fingerprint": "abc"},
        "tuned": {"training": "pairs: 10", "trained_by": "pcgu"},
    },
    "benchmarks": {
        "bbq": {
            "name": "bbq",
            "source": "/data/bbq",
            "rows": 58492,
            "asked": 100,
            "files": {f"{n}.jsonl": {"sha256": f"hash{n}", "is": "official"} for n in range(4)},
            "contents": "items-hash",
            "dropped": ["a.jsonl:3: not JSON", "a.jsonl:9: empty"],
            "notes": ["1 set is missing"],
        },
        "mmlu(source=demo)": {"name": "mmlu", "source": "demo: the proving ground's facts", "sha256": "data-hash"},
    },
    "train": {
        "questions": 0,
        "texts": 20,
        "pairs": 1080,
        "left_out": 12,
        "left_out_by_kind": {"questions": 0, "texts": 0, "pairs": 12},
        "sha256": "train-hash",
    },
    "train_source": "demo:pairs",
    "applied": [{"model": "m", "method": "pcgu", "training": "pairs: 972, seed: 0"}, {"model": "m", "method": "none"}],
    "versions": {"python": "3.12", "evenhand": "0.1"},
    "git": {"commit": "c0ffee", "clean": False},
    "answers_version": 3,
}
LOST = Record(model="m", method="looc", benchmark="bbq", status="not applicable", note="no demonstrations")


def facts(manifest: dict[str, Any], folder: Path | None = None) -> dict[str, dict[str, str]]:
    sections = provenance(manifest, [LOST], folder)
    return {section.title: {fact.name: fact.text for fact in section.facts} for section in sections}


def test_all_that_is_known_is_said() -> None:
    found = facts(MANIFEST)
    assert found["How it was made"] == {
        "command": "evenhand compare -m demo",
        "started": "2026-01-02T03:04:05+00:00",
        "took": "12.5 s in its last session",
        "seed": "7 (selection of items, and bootstrap)",
    }
    assert found["Settings"] == {"limit": "100", "alpha": "0.05", "margin": "0.02"}
    assert found["Models"]["m"] == "org/m; precision bfloat16; parameters 1,234,567; fingerprint abc"
    assert found["Without numbers"] == {"m, looc on bbq": "not applicable: no demonstrations"}
    assert found["Versions"]["commit of evenhand"] == "c0ffee, with changes that are not committed"
    assert "Files" not in found


def test_data_have_hashes_licences_and_what_was_left_out() -> None:
    found = facts(MANIFEST)["Data"]
    assert found["bbq"] == (
        "100 items asked of 58,492; from /data/bbq; licence: CC-BY-4.0, as published at github.com/nyu-mll/BBQ, "
        "folder data; SHA-256 of its 4 files in manifest.json; SHA-256 of the items asked items-hash; 1 set is "
        "missing; 2 lines left out, the first: a.jsonl:3: not JSON"
    )
    assert f"licence: {OWN_DATA}; SHA-256 of the data data-hash" in found["mmlu(source=demo)"]


def test_training_data_and_what_was_removed_from_it() -> None:
    found = facts(MANIFEST)["Training"]
    assert found == {
        "training data": "demo:pairs; 20 texts, 1,080 pairs",
        "overlap removed": "12 pairs because they are asked, or share a template with what is asked",
        "SHA-256 of the training data": "train-hash",
        "tuned, before this run": "pcgu: pairs: 10",
        "pcgu from m": "pairs: 972, seed: 0",
    }
    clean = {**MANIFEST, "train": {**MANIFEST["train"], "left_out_by_kind": {"pairs": 0}}}
    assert facts(clean)["Training"]["overlap removed"] == "none"


def test_an_unfinished_or_earlier_run_says_what_is_not_known() -> None:
    found = facts({"models": {"m": {}}})
    assert found["How it was made"]["took"] == f"{UNKNOWN}: the last session did not end"
    assert found["How it was made"]["command"] == UNKNOWN
    assert "called from Python" in facts({"command": ""})["How it was made"]["command"]
    assert "Training" not in found and "Data" not in found


@pytest.mark.parametrize(
    ("about", "text"),
    [
        ({"name": "gpqa", "source": "x.csv"}, "CC-BY-4.0, as published at github.com/idavidrein/gpqa; gated"),
        ({"name": "b_score", "source": "x"}, "MIT"),
        ({"name": "option_order", "settings": {"of": "crows_pairs(scoring=x)"}}, "CC-BY-SA-4.0"),
        ({"name": "pronoun_skew", "source": "x.yaml"}, OWN_DATA),
        ({"name": "a_plugin", "source": "x"}, UNKNOWN),
    ],
)
def test_licences(about: dict[str, Any], text: str) -> None:
    assert licence(about).startswith(text)


def test_files_are_linked_within_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    for name in ("manifest.json", "answers/a.parquet", "answers/b.parquet"):
        (tmp_path / name).write_text("{}")
    files = Report([LOST], MANIFEST, tmp_path).provenance()[-1]
    assert files.title == "Files"
    assert {fact.name: fact.link for fact in files.facts} == {
        "report.html": "report.html",
        "summary.md": "summary.md",
        "manifest.json": "manifest.json",
        "answers": "answers/",
    }
    assert files.facts[-1].text == "every answer, 2 files"


def test_the_summary_lists_it_with_links(tmp_path: Path) -> None:
    text = Report([LOST], {**MANIFEST, "command": "evenhand compare -m 'a|b'"}, tmp_path).markdown()
    assert r"- command: evenhand compare -m 'a\|b'" in text and "[summary.md](summary.md)" in text
    assert text.count("no demonstrations") == 2, "in words, and among the rows without numbers, but not here again"


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["/venv/bin/evenhand", "compare", "--methods", "pcgu(k=1)"], "evenhand compare --methods 'pcgu(k=1)'"),
        (["/x/evenhand/cli/__main__.py", "show"], "evenhand show"),
        (["evenhand", "-m", "endpoint:https://u:secret@host/v1#m"], "evenhand -m 'endpoint:https://...@host/v1#m'"),
        (["evenhand", "-m", "vllm:https://host/v1?key=secret#m"], "evenhand -m 'vllm:https://host/v1?...#m'"),
        (["/x/pytest", "-q"], ""),
        ([], ""),
    ],
)
def test_the_command_is_recorded_without_passwords(
    monkeypatch: pytest.MonkeyPatch, typed: list[str], command: str
) -> None:
    monkeypatch.setattr("sys.argv", typed)
    assert state.command() == command


def test_where_training_data_come_from() -> None:
    assert source_of(None) == ""
    assert source_of(TrainData()) == "TrainData given from Python"
    assert source_of(["demo:pairs", Path("a.txt")]) == "demo:pairs & a.txt"
    assert source_of("datasets:https://me:secret@host/x") == "datasets:https://...@host/x"
