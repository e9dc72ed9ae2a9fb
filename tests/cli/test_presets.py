"""The table of presets: what it says, that every value has a source, and that the documentation has it as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from evenhand.cli import presets
from evenhand.core import registry
from evenhand.errors import SettingsError, UnknownNameError
from evenhand.methods.unlearning.preference import Preference
from evenhand.training.preset_values import UNSTATED, at_defaults
from evenhand.training.trained_method import TrainedMethod

DOCUMENT = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_documentation_has_the_table_as_it_is() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert presets.put(text) == text, "run: python -m evenhand.cli.presets docs/methods.md"


def test_every_value_of_a_preset_has_a_source() -> None:
    found = list(presets.rows())
    assert not [row for row in found if not row.source]
    assert {row.method for row in found} >= {"pcgu", "task_vector", "fair_distillation", "deep_to_shallow", "pride"}


TRAINED = tuple(name for name in registry.BUILT_IN["methods"] if issubclass(registry.methods.get(name), TrainedMethod))
OF_A_STEP = {
    *("epochs", "learning_rate", "learning_rate_decay", "warmup_ratio", "weight_decay", "max_grad_norm", "batch_size"),
    *(
        "gradient_accumulation_steps",
        "max_length",
        "precision",
        "validation_fraction",
        "patience",
        "masking",
        "kl",
        "mmd",
    ),
}
"""Settings that decide what a step of a training does, whatever the method."""
COUNTED_OTHERWISE = {("preference", "epochs"), ("task_vector", "warmup_ratio")}
"""Of which the preset names another setting instead: steps, warmup_steps."""


@pytest.mark.parametrize("name", TRAINED)
def test_every_setting_that_enters_a_training_has_a_source_or_says_that_it_is_ours(name: str) -> None:
    method = registry.methods.get(name)
    key = set(method.build().settings) - set(method.not_in_key) - {"seed", "axes"}
    for preset in method.presets:
        shown = [row for row in presets.rows(name) if row.preset == preset]
        assert key <= {row.setting for row in shown} and len({row.setting for row in shown}) == len(shown)
        assert all(row.source for row in shown)
        assert all(row.source.startswith("ours") for row in shown if row.default)
        built = method.build(preset=preset)
        assert {row.setting: row.value for row in shown if row.default} == {
            row.setting: presets._shown(getattr(built, row.setting)) for row in shown if row.default
        }


@pytest.mark.parametrize("name", sorted({*TRAINED} - {"fairsteer", "steering"}))
def test_a_published_procedure_does_not_follow_our_defaults(name: str) -> None:
    """What decides a step is named by the preset, so that a new default changes no published training."""
    method = registry.methods.get(name)
    wanted = {s for s in OF_A_STEP & set(method.build().settings) if (name, s) not in COUNTED_OTHERWISE}
    for preset, values in method.presets.items():
        if preset.startswith(("paper", "released")):
            assert wanted <= set(values), preset


@pytest.mark.parametrize(
    ("method", "preset", "setting", "value", "source"),
    [
        ("task_vector", "paper", "learning_rate", "None", "train_model.py: 5e-4, and 2e-4 of OPT"),
        ("task_vector", "paper", "max_length", "256", "ours: task_vectors/train_model.py cuts nothing"),
        ("task_vector", "paper", "max_grad_norm", "1.0", "default of TrainingArguments"),
        ("preference", "paper", "rank", "16", "dpo/dpo.py"),
        ("preference", "paper", "alpha", "16", "dpo/dpo.py"),
        ("preference", "paper", "learning_rate", "5e-05", "dpo/dpo.py"),
        ("preference", "paper", "batch_size", "16", "dpo/dpo.py: 4 x 4"),
        ("preference", "paper", "validation_fraction", "0.0", "dpo/dpo.py: nothing is held out"),
        ("deep_to_shallow", "released", "kl", "0.1", "trainer.py: alpha"),
        ("deep_to_shallow", "released", "mmd", "1.0", "trainer.py: added without a weight"),
        ("fair_distillation", "released", "masking", "0.15", "dataloader.py: mlm_mask_prop"),
        ("fair_distillation", "paper", "validation_fraction", "0.1", UNSTATED),
        ("permutation_distillation", "paper", "epochs", "10", UNSTATED),
        ("steering", "caa", "fit_at", "continuation", "at the letter of either answer"),
        ("steering", "siddique", "validation_fraction", "0.2", "validates on 301 to 600"),
        ("steering", "concept_projection", "min_lean", "0.1", "threshold of .1"),
        ("steering", "ablation", "direction", "mean", "whose direction it takes"),
        ("fairsteer", "paper", "penalty", "1.0", "L2 with C = 1"),
        ("fairsteer", "paper", "validation_fraction", "0.2", "80 and 20 % of the rows"),
        ("pcgu", "paper", "target", "answer", "the word at the hidden place"),
        ("pcgu", "released", "select", "lowest", "find_parameters_to_keep: largest=False"),
        ("pcgu", "released_masked", "embeddings", "True", "create_param_partition"),
        ("pride", "paper", "added", "1e-10", "debias_pride.py"),
    ],
)
def test_defaults_that_belong_to_a_procedure_have_a_row(
    method: str, preset: str, setting: str, value: str, source: str
) -> None:
    (row,) = (r for r in presets.rows(method) if (r.preset, r.setting) == (preset, setting))
    assert row.value == value and source in row.source and not row.default


@pytest.mark.parametrize("name", registry.BUILT_IN["methods"])
def test_sources_are_of_settings_that_their_preset_sets(name: str) -> None:
    method = registry.methods.get(name)
    assert not set(method.preset_sources) - set(method.presets)
    for preset, sources in method.preset_sources.items():
        assert not set(sources) - {"", *method.presets[preset]}, preset


def test_a_value_and_its_source() -> None:
    (row,) = (r for r in presets.rows("pcgu") if (r.preset, r.setting) == ("released_masked", "max_length"))
    assert (row.value, row.source) == ("24", "dataset.py, WGDataset: max_len")
    with pytest.raises(UnknownNameError):
        list(presets.rows("pcgus"))


def test_a_table_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    class Given:
        presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"rate": 0.5, "way": "up"}, "demo": {"rate": 1.0}}
        preset_sources: ClassVar[dict[str, dict[str, str]]] = {"paper": {"": "section 3", "way": "main.py"}}

    monkeypatch.setattr(registry.methods, "get", lambda name: Given)
    assert presets.table("given").splitlines() == [
        "| method | preset | setting | value | source |",
        "|---|---|---|---|---|",
        "| `given` | `paper` | `rate` | `0.5` | section 3 |",
        "|  |  | `way` | `up` | main.py |",
        "|  | `demo` | `rate` | `1.0` |  |",
    ]
    text = f"Before.\n{presets.BEGIN}\nold\n{presets.END}\nAfter.\n"
    assert presets.put(text).startswith(f"Before.\n{presets.BEGIN}\n\n| method |") and "old" not in presets.put(text)
    assert presets.put(text).endswith(f"\n\n{presets.END}\nAfter.\n")
    with pytest.raises(SettingsError, match="no marks"):
        presets.put("Before.")


def test_what_is_left_at_its_default_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, dict[str, Any]] = {"bare": {"beta": 0.2}, "demo": {"beta": 0.3}}
    monkeypatch.setattr(Preference, "presets", made)
    monkeypatch.setattr(Preference, "preset_sources", {"bare": {"": "page 3"}, "demo": {"": "ours, for the demo"}})
    found = [line for line in presets.table("preference").splitlines() if "others, at their defaults" in line]
    assert [line.rsplit(" | ", 1)[1] for line in found] == [f"{UNSTATED} |", "ours, for the demo |"]
    assert "`learning_rate=5e-05`" in found[0] and "`beta" not in found[0] and "`seed" not in found[0]
    assert "max_pairs" not in at_defaults(Preference, "bare"), "which decides the data alone"
