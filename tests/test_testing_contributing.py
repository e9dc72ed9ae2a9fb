"""The methods that CONTRIBUTING.md shows run as they stand there, and keep the contract."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from evenhand.core import registry
from evenhand.errors import SettingsError
from evenhand.testing import check_method, tiny_model

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text()
SHOWN = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, flags=re.DOTALL))


@pytest.fixture
def method(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A method that is shown, registered as `--plugin` does it."""
    monkeypatch.setattr(registry.methods, "_objects", dict(registry.methods._objects))
    file = tmp_path / request.param
    file.write_text(SHOWN[request.param])
    (name,) = registry.load_plugin(file)
    assert f"{name}.py" == request.param
    return registry.methods.get(name)


@pytest.mark.parametrize("method", ["shout.py"], indirect=True)
def test_the_method_that_changes_questions_keeps_the_contract(method: Any) -> None:
    check_method(method(marks=2))


@pytest.mark.parametrize("method", ["same_word.py"], indirect=True)
def test_the_method_that_edits_weights_keeps_the_contract_and_edits_two_rows_alone(method: Any) -> None:
    model = tiny_model(texts=["he she"])
    made = check_method(method(), model)
    before, after = (m.weights.module.get_input_embeddings().weight.detach() for m in (model, made))
    he, she = model.weights.tokenizer.convert_tokens_to_ids(["he", "she"])
    assert (after[he] - (before[he] + before[she]) / 2).abs().max() < 1e-6
    assert (after[he] - after[she]).abs().max() < 1e-6
    assert [n for n in range(len(before)) if not after[n].equal(before[n])] == sorted([he, she])
    half = method(strength=0.5).apply(model).weights.module.get_input_embeddings().weight.detach()
    assert (half[he] - (0.75 * before[he] + 0.25 * before[she])).abs().max() < 1e-6


@pytest.mark.parametrize("method", ["same_word.py"], indirect=True)
def test_words_of_several_tokens_are_refused(method: Any) -> None:
    with pytest.raises(SettingsError, match="must be single tokens of tiny-llama; name others"):
        method(words=("a dog", "a cat")).apply(tiny_model())


def test_nothing_that_is_shown_is_left_out() -> None:
    assert set(SHOWN) == {"shout.py", "same_word.py"}
    assert TEXT.count("```python") == len(SHOWN)
