"""`preference`, the old name of `pairwise(preset=dpo,stop=none)`: it moves the odds of pairs, and what is refused."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import evenhand
from evenhand.core.artifacts import artefacts
from evenhand.errors import SettingsError
from evenhand.interfaces import Dialogue, Message, Pair, Passage, TrainData
from evenhand.methods.unlearning import _choosing as choosing
from evenhand.methods.unlearning import _dpo as dpo
from evenhand.methods.unlearning._pairwise.run import Run
from evenhand.methods.unlearning.pairwise import Pairwise
from evenhand.methods.unlearning.preference import Preference
from evenhand.models.fingerprint import of_weights
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.renaming import RenamedWarning
from evenhand.testing import ScriptedModel
from evenhand.training import trl as through_trl

JOBS = ("nurse", "doctor", "pilot", "baker")
STATES = ("late", "tired", "here", "there", "sad", "glad")
PAIRS = tuple(
    Pair(f" he was {state}", f" she was {state}", f"the {job} said that", axis="gender", id=f"{job} {state}")
    for job in JOBS
    for state in STATES
)
DATA = TrainData(pairs=PAIRS)
pytestmark = pytest.mark.filterwarnings("ignore:methods. preference is now:evenhand.renaming.RenamedWarning")


def tiny(**more: Any) -> LocalModel:
    words = tiny_tokenizer([f"{p.prompt}{p.stereotyped}{p.counter_stereotyped}" for p in PAIRS], chat=False)  # type: ignore[arg-type]
    return LocalModel(tiny_module(len(words), scale=1.0), words, name="tiny", **more)


def method(**more: Any) -> Preference:
    return Preference.build(**{"epochs": 2, "learning_rate": 5e-3, "batch_size": 8, **more})  # type: ignore[no-any-return]


def test_the_other_side_is_preferred_and_everything_else_is_as_it_was(tmp_path: Path) -> None:
    model = tiny()
    before, weights = choosing.log_odds(model, PAIRS), of_weights(*model.weights)
    with artefacts(tmp_path / "kept"):
        made = method().apply(model, DATA)
        again = method().apply(model, DATA)
    assert choosing.log_odds(made, PAIRS) < before - 0.3
    assert of_weights(*model.weights) == weights
    facts = made.facts()
    assert (facts["pairs"], facts["held_out_pairs"], facts["steps"]) == (22, 2, 6)
    assert [row["epoch"] for row in facts["curve"]] == [-1.0, 0.0, 1.0]  # the first is the model before training
    assert facts["curve"][1]["train_loss"] == pytest.approx(math.log(2), abs=0.2)  # the reference is the model itself
    (kept,) = [f for f in (tmp_path / "kept").iterdir() if f.is_dir()]
    assert not (kept / "trainer").exists() and (kept / "adapter_config.json").is_file()
    assert not [f for f in kept.rglob("ref") if f.is_dir()]
    passages = [Passage(p.counter_stereotyped, p.prompt) for p in PAIRS]
    scores = [[s.logprob for s in m.score(passages)] for m in (made, again)]
    opened = evenhand.load(made.save(tmp_path / "saved"))
    assert scores[0] == scores[1]
    assert [s.logprob for s in opened.score(passages)] == pytest.approx(scores[0], abs=1e-5)


def test_what_the_trainer_seeds_is_put_back() -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    drawn()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = drawn()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    with through_trl.own_generators():
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        assert drawn() != expected
    assert drawn() == expected


def test_a_killed_training_goes_on_from_its_last_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, steps = tiny(), {"n": 0}
    real = Run.loss

    def counted(self: Run, *args: Any) -> Any:
        steps["n"] += 1
        if steps["n"] == 5:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(Run, "loss", counted)
    with artefacts(tmp_path):
        with pytest.raises(KeyboardInterrupt):
            method().apply(model, DATA)
        made = method().apply(model, DATA)
    assert steps["n"] == 5 + 3  # three steps an epoch: the second epoch anew, not the first
    assert made.facts()["steps"] == 6


def test_pairs_become_the_tokens_that_models_are_asked_with() -> None:
    words = tiny_tokenizer(["the nurse said that he she was late"])
    tail = Pair("he was", "she was", "the nurse said that ", suffix=" late")
    chat = Pair("A", "B", Dialogue((Message("user", "Who was there?"),)))
    same = Pair("he", "he", "the")
    found = dpo.read_pairs([tail, chat, same], words, 99).rows
    assert len(found) == 2
    assert found[0]["prompt_ids"] == words("the nurse said that").input_ids
    assert found[0]["chosen_ids"] == words("she was late", add_special_tokens=False).input_ids
    assert found[0]["rejected_ids"] == words("he was late", add_special_tokens=False).input_ids
    assert (found[1]["chosen_ids"], found[1]["rejected_ids"]) == tuple(
        [i] for i in words.convert_tokens_to_ids(["B", "A"])
    )
    text = words.decode(found[1]["prompt_ids"])
    assert text.count("<s>") == 1 and text.rstrip().endswith("<assistant>")
    assert len(dpo.read_pairs([tail, chat], words, 8).rows) == 1


def glueing(*pieces: str) -> Any:
    """A tokenizer of letters and of pieces that it merges wherever they stand, across a prompt's end too."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted({c for p in pieces for c in p} | set(" abcdefghijklmnopqrstuvwxyz"))
    vocabulary = {t: i for i, t in enumerate(dict.fromkeys(["<s>", "</s>", "<unk>", *letters, *pieces]))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    either = "|".join([*sorted(pieces, key=len, reverse=True), "."])
    core.pre_tokenizer = pre_tokenizers.Split(Regex(either), "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    made.add_bos_token = True
    return made


def words_of(row: dict[str, list[int]], words: Any, side: str) -> str:
    return "".join(words.convert_ids_to_tokens([*row["prompt_ids"], *row[side]])).removeprefix("<s>")


@pytest.mark.parametrize(
    ("pieces", "pair", "begin"),
    [
        (("world",), Pair("rld", "rk", "hello wo"), "hello "),  # the stereotyped side is merged with its prompt
        (("work",), Pair("rld", "rk", "hello wo"), "hello "),  # the other one
        (("world", "work"), Pair("rld", "rk", "hello wo"), "hello "),  # both, into different tokens
        (("wor",), Pair("rld", "rk", "hello wo"), "hello wor"),  # both, into the same one, which says nothing
        (("he wo", "he worl"), Pair("rld", "rk", "she wo"), "s"),  # one merges more than the other
        ((), Pair("rld", "rk", "hello wo"), "hello wo"),  # nothing is merged
        (("world", "rl"), Pair("rld", "rlds", "hello wo"), "hello "),  # one is the beginning of the other
    ],
)
def test_pairs_that_are_merged_with_their_prompt_are_read_from_the_first_merged_token(
    pieces: tuple[str, ...], pair: Pair, begin: str
) -> None:
    words = glueing(*pieces)
    (row,) = dpo.read_pairs([pair], words, 99).rows
    assert words_of(row, words, "chosen_ids") == pair.prompt + pair.counter_stereotyped  # type: ignore[operator]
    assert words_of(row, words, "rejected_ids") == pair.prompt + pair.stereotyped  # type: ignore[operator]
    assert row["chosen_ids"] and row["rejected_ids"]
    prompt = "".join(words.convert_ids_to_tokens(row["prompt_ids"])).removeprefix("<s>")
    assert begin.startswith(prompt.rstrip()) and prompt, "nothing that a side has merged counts as prompt"


def test_the_pairs_that_vanished_are_trained_on(tmp_path: Path) -> None:
    pairs = [Pair("rld", "rk", f"hello {c} wo", axis="x", id=c) for c in "abcdefghijklmnopqrstuvwxyz"]
    plain = [Pair("she", "he", f"hello {c} said ", axis="x", id=f"{c} plain") for c in "abcdefghijklmnopqrstuvwxyz"]
    found = dpo.read_pairs([*pairs, *plain], glueing("world"), 99)
    assert len(found.rows) == 52 and found.left_out == {}


def test_what_is_left_out_is_named_and_counted_with_its_reason(tmp_path: Path) -> None:
    words = glueing("world")
    long = Pair("he" * 50, "she" * 50, "who ", id="long")
    same = [Pair("É", "é", "who ", id=f"same {i}") for i in range(2)]  # both unknown to the vocabulary
    found = dpo.read_pairs([long, *same, Pair("he", "she", "who ")], words, 60)
    assert len(found.rows) == 1
    assert found.left_out == {
        "more than 60 tokens": ["long"],
        "the same tokens on both sides": ["same 0", "same 1"],
    }


def test_too_few_pairs_say_why() -> None:
    pairs = (*PAIRS[:19], *PAIRS[:3], Pair("he", "he", "the", id="equal"), Pair("he " * 99, "she", "the", id="far"))
    expected = (
        r"not 19: of 24 pairs, 3 repeated, 1 with the same tokens on both sides \(such as equal\), "
        r"1 with more than 64 tokens \(such as far\)"
    )
    with pytest.raises(SettingsError, match=expected):
        method(max_length=64)._rows(tiny(), pairs)


def test_left_out_pairs_are_warned_about_and_part_of_the_facts(tmp_path: Path) -> None:
    data = TrainData(pairs=(*PAIRS, Pair("he", "he", "the", id="equal")))
    with artefacts(tmp_path), pytest.warns(UserWarning, match=r"of 25 pairs, 1 are not used: 1 with the same tokens"):
        made = method(epochs=1).apply(tiny(), data)
    assert made.facts()["left_out"] == {"the same tokens on both sides": 1}
    with artefacts(tmp_path):
        assert method(epochs=1).apply(tiny(), DATA).facts()["left_out"] == {}


def test_the_settings_of_the_source() -> None:
    ours, paper = Preference(), Preference.build(preset="paper")
    assert (ours.rank, ours.alpha, ours.beta, ours.learning_rate) == (16, 16, 0.1, 5e-5)
    assert (paper.steps, paper.dropout, paper.warmup_ratio, paper.batch_size) == (200, 0.05, 0.5, 16)
    assert paper.spec == "preference(preset=paper)"
    made = method(batch_size=12, gradient_accumulation_steps=3)
    plan = made._plan(made.prepared(tiny(), DATA), "cpu")
    assert (plan.sizes.pairs // plan.sizes.parts, plan.schedule.gradient_accumulation_steps) == (4, 3)


def test_the_paper_holds_nothing_out_and_trains_all_steps() -> None:
    """dpo/dpo.py gives the trainer no eval_dataset, and keeps the last step: no fraction and no patience is its."""
    paper = Preference.build(preset="paper")
    assert (paper.validation_fraction, paper.patience, paper.stop, paper.max_length) == (0, 0, "none", 1536)
    facts = Preference.build(preset="paper", steps=5, batch_size=8).apply(tiny(), DATA).facts()
    assert (facts["pairs"], facts["held_out_pairs"], facts["steps"]) == (24, 0, 5)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(SettingsError, match="gradient_accumulation_steps=3"):
        method(gradient_accumulation_steps=3)
    with pytest.raises(SettingsError, match="needs weights"):
        method().apply(ScriptedModel(), DATA)
    with pytest.raises(SettingsError, match="needs pairs"):
        method().apply(tiny(), TrainData(texts=("a",)))
    with pytest.raises(SettingsError, match="no pairs about age; the training data has: gender"):
        method(axes=("age",)).apply(tiny(), DATA)
    with pytest.raises(SettingsError, match="at least 20 different pairs of at most 1024 tokens, not 3"):
        method().apply(tiny(), TrainData(pairs=PAIRS[:3] * 9))
    with pytest.raises(SettingsError, match="not quantised"):
        method().apply(tiny(load_options={"load_in_8bit": True}), DATA)


def test_without_a_hold_out_all_pairs_are_learned(tmp_path: Path) -> None:
    facts = method(validation_fraction=0, epochs=1).apply(tiny(), DATA).facts()
    assert (facts["pairs"], facts["held_out_pairs"]) == (24, 0)
    assert [sorted(row) for row in facts["curve"]] == [["epoch", "train_loss"]]


def test_a_pair_and_its_mirror_image_are_on_one_side() -> None:
    mirrored = [Pair(p.counter_stereotyped, p.stereotyped, p.prompt, axis="gender") for p in PAIRS]
    train, held, _ = method(validation_fraction=0.25)._rows(tiny(), [*PAIRS, *mirrored])
    sides = [{row.prompt + row.chosen for row in some} for some in (train, held)]
    assert len(held) == 12 and len(train) == 36 and not sides[0] & sides[1]


def test_it_is_the_new_method_under_an_old_name(tmp_path: Path) -> None:
    new = Pairwise.build(preset="dpo", stop="none", epochs=1, learning_rate=5e-3, batch_size=8)
    expected = new.apply(tiny(), DATA)
    with pytest.warns(RenamedWarning, match=r"preference is now pairwise\(preset=dpo,stop=none\)"):
        made = method(epochs=1).apply(tiny(), DATA)
    assert of_weights(*made.weights) == of_weights(*expected.weights)
    assert method(epochs=1).settings == new.settings
