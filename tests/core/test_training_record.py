"""Training records: what is written is read back, and what nobody writes is refused by file and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evenhand.core.training_record import ROWS, brief, of_facts, plain, read, record_of, without_passwords
from evenhand.errors import EvenhandError
from evenhand.interfaces import TrainedFrom, TrainedOn, TrainingRecord
from evenhand.methods.unlearning.preference import Preference
from evenhand.models.tiny import tiny_model

FILE = Path("there/evenhand.json")
WHOLE = TrainingRecord(
    method="task_vector",
    spec="task_vector(epochs=2)",
    settings={"epochs": 2, "axes": ["age"], "text": None},
    base=TrainedFrom(name="tiny", source="org/tiny", fingerprint="f0"),
    data=TrainedOn(unit="texts", source="t.txt", hash="h0", training=9, validation=1, overlap_removed=3),
    precision="bf16",
    seed=-1,
    epochs=2,
    steps=4,
    best_epoch=-1,
    curve=({"epoch": -1.0, "held_out_loss": 2.5}, {"epoch": 0.0, "train_loss": None}),
    seconds=1.5,
    versions={"evenhand": "0.1.0"},
    results={"norm": 0.5, "tried": [[1.0, None]]},
)


def test_a_record_comes_back_from_its_file() -> None:
    assert read(json.loads(json.dumps(plain(WHOLE))), FILE) == WHOLE


def test_what_is_not_known_is_not_written_and_stays_unknown() -> None:
    assert plain(TrainingRecord(method="pcgu")) == {"method": "pcgu", "data": {"unit": "items"}}
    assert read({"method": "pcgu"}, FILE) == TrainingRecord(method="pcgu")


def test_zero_is_known() -> None:
    record = TrainingRecord(method="pcgu", seed=0, best_epoch=0, steps=0, seconds=0.0, data=TrainedOn(validation=0))
    assert read(json.loads(json.dumps(plain(record))), FILE) == record
    assert record.facts()["held_out_items"] == record.facts()["best_epoch"] == record.facts()["steps"] == 0


def test_facts_are_flat_and_count_in_the_datas_own_unit() -> None:
    assert WHOLE.facts() == {
        "method": "task_vector(epochs=2)",
        "base": "tiny",
        "texts": 9,
        "held_out_texts": 1,
        "steps": 4,
        "seconds": 1.5,
        "best_epoch": -1,
        "overlap_removed": 3,
        "curve": [{"epoch": -1.0, "held_out_loss": 2.5}, {"epoch": 0.0, "train_loss": None}],
        "norm": 0.5,
        "tried": [[1.0, None]],
    }


def test_a_method_says_its_settings_base_seed_and_versions() -> None:
    method, model = Preference(seed=3), tiny_model()
    record = record_of(method, model, steps=2, results={"left_out": (1, 2)})
    assert (record.method, record.spec, record.settings) == ("preference", "preference(seed=3)", method.settings)
    assert record.base == TrainedFrom(name=model.name, source=None, fingerprint=model.fingerprint)
    assert (record.seed, record.steps, record.results) == (3, 2, {"left_out": [1, 2]})
    assert set(record.versions) == {"evenhand", "torch", "transformers"}


def test_no_password_of_a_source_is_kept() -> None:
    model = tiny_model(source="endpoint:https://me:secret@host/v1#m")
    model._handed_out, model._files = None, ["untouched"]  # as one from files
    assert record_of(Preference(), model).base.source == "endpoint:https://...@host/v1#m"


def test_no_password_of_a_setting_is_kept() -> None:
    given = {"judges": ["endpoint:https://me:secret@host/v1#m"], "n": 2, "more": {"at": "http://a:b@c"}}
    told = {"judges": ["endpoint:https://...@host/v1#m"], "n": 2, "more": {"at": "http://...@c"}}
    assert without_passwords(given) == told


def test_a_line_for_reports_gives_the_data_the_length_and_the_versions() -> None:
    assert brief(WHOLE) == (
        "from: tiny, texts: 9, held out: 1, left out because a benchmark asks them: 3, epochs: 2, optimizer steps: 4, "
        "weights of epoch: -1, seconds: 1.5, seed: -1, evenhand: 0.1.0"
    )
    assert brief(TrainingRecord(method="pcgu")) == ""
    assert brief(WHOLE, base="tiny") == brief(WHOLE).removeprefix("from: tiny, ")
    assert brief(WHOLE, base="other") == brief(WHOLE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"training is \[\]"),
        ({}, "training has no 'method'"),
        ({"method": 3}, r"training\.method is 3"),
        ({"method": "../../etc/passwd"}, r"training\.method is '\.\./\.\./etc/passwd'"),
        ({"method": "a/b"}, r"training\.method is 'a/b'"),
        ({"method": ""}, r"training\.method is ''"),
        ({"method": ".hidden"}, r"training\.method is '\.hidden'"),
        ({"method": "m" * 1001}, r"training\.method has 1001 characters"),
        ({"code": "import os"}, "training has no 'method'"),
        ({"method": "m", "code": "import os"}, "a key of training is 'code'"),
        ({"method": "m", "settings": ["x"]}, r"training\.settings is \['x'\]"),
        ({"method": "m", "settings": dict.fromkeys(map(str, range(1001)))}, r"training\.settings has 1001 entries"),
        ({"method": "m", "base": "x"}, r"training\.base is 'x'"),
        ({"method": "m", "base": {"source": ["/etc"]}}, r"training\.base\.source is \['/etc'\]"),
        ({"method": "m", "base": {"folder": "x"}}, r"a key of training\.base is 'folder'"),
        ({"method": "m", "data": {"training": -1}}, r"training\.data\.training is -1"),
        ({"method": "m", "data": {"training": True}}, r"training\.data\.training is True"),
        ({"method": "m", "data": {"validation": 1.5}}, r"training\.data\.validation is 1\.5"),
        ({"method": "m", "data": {"training": 2**63}}, r"training\.data\.training is 9223372036854775808"),
        ({"method": "m", "data": {"unit": "../x"}}, r"training\.data\.unit is '\.\./x'"),
        ({"method": "m", "seed": "0"}, r"training\.seed is '0'"),
        ({"method": "m", "steps": -1}, r"training\.steps is -1"),
        ({"method": "m", "epochs": None}, r"training\.epochs is None"),
        ({"method": "m", "best_epoch": -2}, r"training\.best_epoch is -2"),
        ({"method": "m", "seconds": float("inf")}, r"training\.seconds is inf"),
        ({"method": "m", "seconds": float("nan")}, r"training\.seconds is nan"),
        ({"method": "m", "seconds": -1}, r"training\.seconds is -1"),
        ({"method": "m", "curve": {"epoch": 1}}, r"training\.curve is \{"),
        ({"method": "m", "curve": [{"epoch": 1}, 2]}, r"training\.curve\[1\] is 2"),
        ({"method": "m", "curve": [{"loss": "low"}]}, r"training\.curve\[0\]\.loss is 'low'"),
        ({"method": "m", "curve": [{"loss": [1]}]}, r"training\.curve\[0\]\.loss is \[1\]"),
        ({"method": "m", "curve": [dict.fromkeys(map(str, range(101)), 1)]}, r"curve\[0\] has 101 entries"),
        ({"method": "m", "curve": [{"x" * 1001: 1}]}, r"a key of training\.curve\[0\] is"),
        ({"method": "m", "curve": [{}] * (ROWS + 1)}, rf"training\.curve has {ROWS + 1} rows, more than {ROWS}"),
        ({"method": "m", "versions": {"torch": 2}}, r"training\.versions\.torch is 2"),
        ({"method": "m", "results": "fine"}, r"training\.results is 'fine'"),
    ],
)
def test_what_no_record_has_is_refused_by_file_and_key(content: Any, message: str) -> None:
    with pytest.raises(EvenhandError, match=message) as caught:
        read(content, FILE)
    assert str(FILE) in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "facts",
    [
        {
            "method": "preference(epochs=2)",
            "pairs": 22,
            "held_out_pairs": 2,
            "left_out": {"more than 9 tokens": 1},
            "curve": [{"epoch": 1.0, "train_loss": 0.69}],
            "steps": 6,
            "seconds": 0.4,
        },
        {
            "method": "pcgu",
            "base": "tiny",
            "pairs": 8,
            "held_out_pairs": 2,
            "direction": "both",
            "best_epoch": 1,
            "curve": [{"epoch": 0.0, "gap": 1.5}],
            "edited_vectors": 7,
            "steps": 3,
            "by_layer": {"lm_head": {"chosen": 1, "live": 2}},
        },
        {"method": "task_vector", "vectors": [{"texts": 3, "norm": 0.1}], "strength": [1.0], "form": "adapter"},
    ],
    ids=lambda facts: str(facts["method"]),
)
def test_facts_of_earlier_versions_are_read_as_a_record_that_tells_the_same(facts: dict[str, Any]) -> None:
    record = of_facts(facts, FILE)
    assert record.facts() == facts
    assert record.method == facts["method"].partition("(")[0] and record.settings is None and record.seed is None
    assert read(json.loads(json.dumps(plain(record))), FILE) == record


def test_facts_of_an_earlier_student() -> None:
    facts = {"method": "permutation_distillation", "teacher": "t", "training_questions": 80, "held_out_questions": 8}
    record = of_facts(facts, FILE)
    assert record.base.name == "t" and record.data == TrainedOn(unit="questions", validation=8)
    assert record.results == {"teacher": "t", "training_questions": 80}
