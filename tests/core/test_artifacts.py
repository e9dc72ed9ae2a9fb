"""Artefacts are whole or absent, made once, and go on from where a killed attempt ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenhand.core.artifacts import active, artefact, artefacts, finished
from evenhand.errors import SettingsError


def writer(calls: list[str], text: str = "done") -> object:
    def make(folder: Path) -> None:
        calls.append("made")
        (folder / "weights").write_text(text)

    return make


def test_without_a_folder_it_is_made_and_gone_afterwards() -> None:
    calls: list[str] = []
    assert active() is None
    with artefact("k", writer(calls)) as folder:  # type: ignore[arg-type]
        assert (folder / "weights").read_text() == "done"
    assert not folder.exists() and calls == ["made"]


def test_a_finished_one_is_not_made_again(tmp_path: Path) -> None:
    calls: list[str] = []
    with artefacts(tmp_path / "kept"):
        for key in ("a", "a", "b"):
            with artefact(key, writer(calls)) as folder:  # type: ignore[arg-type]
                assert folder == tmp_path / "kept" / key and (folder / "weights").is_file()
    assert calls == ["made", "made"] and active() is None
    assert sorted(p.name for p in (tmp_path / "kept").glob("[!.]*")) == ["a", "b"]


def test_a_killed_attempt_is_never_taken_for_whole_and_is_gone_on_with(tmp_path: Path) -> None:
    def killed(folder: Path) -> None:
        (folder / "half").write_text("1")
        raise KeyboardInterrupt

    def finish(folder: Path) -> None:
        assert (folder / "half").read_text() == "1"
        (folder / "whole").write_text("2")

    with artefacts(tmp_path):
        with pytest.raises(KeyboardInterrupt), artefact("k", killed):
            pass
        assert not (tmp_path / "k").exists()
        with artefact("k", finish) as folder:
            assert sorted(p.name for p in folder.iterdir()) == ["half", "whole"]


def test_a_damaged_one_is_moved_aside_and_made_again(tmp_path: Path) -> None:
    calls: list[str] = []

    def opened() -> str:
        with artefacts(tmp_path), artefact("k", writer(calls)) as folder:  # type: ignore[arg-type]
            return (folder / "weights").read_text()

    assert opened() == "done"
    for number, (name, content) in enumerate((("weights", "dime"), ("weights", ""), ("../.k.sha256", "0")), 1):
        (tmp_path / "k" / name).write_text(content)
        aside = tmp_path / f"k.damaged-{number}"
        said = rf"{tmp_path / 'k'} is damaged \(.*: its content is not what was written\): it is now {aside.name}, and"
        with pytest.warns(UserWarning, match=said):
            assert opened() == "done"
        assert (aside / "weights").read_text() == (content if name == "weights" else "done")
        assert opened() == "done" and len(calls) == number + 1
    assert finished(tmp_path) == ["k"]


def test_one_of_an_earlier_version_is_opened_without_checksums(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    with artefacts(tmp_path), artefact("k", writer([])) as folder:  # type: ignore[arg-type]
        assert not list(folder.iterdir())


def test_inner_folders_win_and_none_switches_off(tmp_path: Path) -> None:
    with artefacts(tmp_path / "outer"), artefacts(None):
        assert active() is None
    with artefacts(tmp_path / "outer"), artefacts(tmp_path / "inner"):
        assert active() == tmp_path / "inner"


@pytest.mark.parametrize("key", ["", "../up", ".hidden", "a/b", "ä"])
def test_a_key_that_is_no_name_is_refused(key: str) -> None:
    with pytest.raises(SettingsError, match="cannot name an artefact"), artefact(key, lambda folder: None):
        pass


# ---------------------------------------------------------------------------------------- what every key holds


def test_keys_hold_the_device_type_and_the_precision_that_auto_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from evenhand.core import versions
    from evenhand.core.artifacts import made_with
    from evenhand.models.tiny import tiny_model

    model, bf16 = tiny_model(texts=[]), True
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    assert made_with(model) == [versions.ANSWERS, "cpu", "no"] == made_with(model, precision="no")
    assert made_with(model, device="cuda:1") == [versions.ANSWERS, "cuda", "bf16"]
    assert made_with(model, device="cuda", precision="fp16")[2] == "fp16"
    assert made_with(model, device="mps") == [versions.ANSWERS, "mps", "no"]
    bf16 = False
    assert made_with(model, device="cuda:0")[2] == "no"


def test_every_caller_puts_them_into_its_key() -> None:
    import evenhand

    source = Path(evenhand.__file__).parent
    files = [*(source / "methods").rglob("*.py"), *source.glob("*/*.py")]
    callers = [f for f in files if "artefact(" in (text := f.read_text()) and "digest(" in text]
    names = {f.name for f in callers}
    assert {"trained_method.py", "cross_model_adjudication.py"} <= names, "the methods that train, and one that is none"
    assert [f.name for f in callers if "made_with(" not in f.read_text()] == []


def test_a_copy_trained_elsewhere_is_another_artefact(monkeypatch: pytest.MonkeyPatch) -> None:
    import evenhand.methods.unlearning.task_vector as task_vector
    from evenhand import TrainData
    from evenhand.models.tiny import tiny_model

    keys: list[str] = []

    def keeping(key: str, *_: object) -> None:
        keys.append(key)
        raise KeyboardInterrupt

    monkeypatch.setattr("evenhand.training.trained_method.shared_artefact", keeping)
    words = ("dog", "cat", "letter", "question", "and")
    data = TrainData(texts=tuple(f"There was a {a} and a {b}." for a in words for b in words))
    for how in (["cpu", "no"], ["cuda", "bf16"], ["cuda", "no"], ["cuda", "no"]):
        monkeypatch.setattr(task_vector, "made_with", lambda *_, how=how, **__: how)
        with pytest.raises(KeyboardInterrupt):
            task_vector.TaskVectorNegation().apply(tiny_model(), data)
    assert len(set(keys)) == 3 and keys[2] == keys[3]
