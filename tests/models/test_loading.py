"""What `load` takes, what it refuses and how, and a fingerprint that follows the content and nothing else."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import evenhand
from evenhand.core.hashing import of_folder
from evenhand.core.registry import build_method
from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Choice, Model, Question, Sampling
from evenhand.methods.prompting.self_debias import SelfDebias
from evenhand.models.loading import load, wrap
from evenhand.models.local import LocalModel
from evenhand.models.mitigated import Mitigated
from evenhand.models.tiny import tiny_model, tiny_module, tiny_tokenizer
from evenhand.testing import questions

SHOWN = (1, 2, 0)


def asked() -> list[Question]:
    return [*questions(), Question("x", "Who was there?", ("dog", "cat", "letter"), shown=SHOWN)]


def probabilities(model: Model) -> list[list[float]]:
    return [list(c.probabilities or ()) for c in model.choose(asked())]


def close(one: Model, other: Model) -> bool:
    return probabilities(one) == [pytest.approx(p, abs=1e-5) for p in probabilities(other)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model folder; tests that change it take a `copy`."""
    return tiny_model().save(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def nudge(folder: Path, by: float = 1e-3) -> None:
    """Change one number of one weight on disk."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors[sorted(tensors)[0]].view(-1)[0] += by
    save_file(tensors, file, metadata={"format": "pt"})


# ------------------------------------------------------------------------------------------------ normal folders


def test_a_saved_model_comes_back_with_its_answers_and_its_fingerprint(saved: Path) -> None:
    one, two = load(saved), load(str(saved))
    assert one.fingerprint == two.fingerprint and one.name == "base"
    assert close(one, tiny_model()) and one.facts()["source"] == str(saved)
    assert one.abilities == {"choose", "generate", "score", "weights"}


def test_a_real_model_folder(real_model: Path) -> None:
    model = load(real_model)
    choice = model.choose(asked())[-1]
    assert choice.status == "answered" and sum(choice.probabilities or ()) == pytest.approx(1)
    reply = model.generate([evenhand.Dialogue(()).user("Who?")], Sampling(max_new_tokens=5))[0]
    assert reply.usage.new_tokens in range(6) and model.name == real_model.name


def test_a_model_is_passed_through(tiny: LocalModel) -> None:
    assert load(tiny) is tiny


def test_a_tokenizer_that_was_not_saved_with_it_is_asked_for(copy: Path) -> None:
    for file in copy.glob("*token*"):
        file.unlink()
    with pytest.raises(EvenhandError, match=rf"{copy} has no tokenizer.*save_pretrained"):
        load(copy)


def test_folders_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("/nowhere/at/all", "./nothing", "~/nothing-here", "a/b/c", ""):
        with pytest.raises(SettingsError, match=r"no model folder|not a model folder"):
            load(text)
    with pytest.raises(SettingsError, match=r"config\.json, adapter_config\.json"):
        load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match="no model folder 'file'"):
        load("file")


def test_options_may_stand_in_brackets(saved: Path) -> None:
    model = load(f"{saved}(dtype=bfloat16,answer_by=text,name='mine')")
    assert isinstance(model, LocalModel)
    assert (model.weights.module.dtype, model.answer_by, model.name) == (torch.bfloat16, "text", "mine")
    assert load(f"{saved}(name=one)", name="two").name == "two"


def test_a_folder_with_brackets_in_its_name_is_a_folder(saved: Path, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(saved, tmp_path / "odd (old)"))
    assert load(odd).name == "odd (old)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtyp": "float32"}, "'dtyp' for a local model. Did you mean 'dtype'"),
        ({"anserw_by": "text"}, "Did you mean 'answer_by'"),
        ({"dtype": "float8"}, "'float8' is not known; use one of auto, float32"),
        ({"device": "gpu0"}, "'gpu0' is not known: use 'cpu'"),
        ({"device": "cuda"}, "sees no GPU here"),
        ({"device": "cpu", "device_map": "auto"}, "not both"),
        ({"load_in_4bit": True, "load_in_8bit": True}, "exclude each other"),
        ({"load_in_4bit": True}, r"bitsandbytes: pip install 'evenhand\[quant\]'"),
        ({"load_in_8bit": True}, r"bitsandbytes: pip install 'evenhand\[quant\]'"),
        ({"answer_by": "letter"}, "answer_by 'letter'.*'letters'"),
        ({"too_long": "skp"}, "too_long 'skp'.*'skip'"),
        ({"batch_tokens": 0}, "batch_tokens"),
        ({"sampling": {"temprature": 1.0}}, "sampling"),
        ({"sampling": {"temperature": -1.0}}, "temperature"),
    ],
)
def test_wrong_options_are_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match=message):
        load(saved, **options)


def test_a_device_that_is_not_there_is_an_error_of_ours(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device in ("cuda:99", "xpu", "mps"):
        with pytest.raises(EvenhandError, match=device):
            load(saved, device=device)


def test_wrap_refuses_options_that_concern_loading(tiny: LocalModel) -> None:
    with pytest.raises(SettingsError, match="'dtype'"):
        wrap(*tiny.weights, dtype="float32")
    assert wrap(*tiny.weights, answer_by="text", name="n").name == "n"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", torch.bfloat16, "auto", None])
def test_the_precision_is_the_one_asked_for(saved: Path, dtype: Any) -> None:
    options = {} if dtype is None else {"dtype": dtype}
    wanted = torch.bfloat16 if "bfloat16" in str(dtype) else torch.float32
    model = load(saved, **options)
    assert model.weights.module.dtype == wanted
    same = load(saved).fingerprint == model.fingerprint
    assert same == (wanted == torch.float32), "precision decides answers and so belongs to the fingerprint"
    assert json.loads(json.dumps(model.facts()))["dtype"] == str(wanted).removeprefix("torch.")


# ------------------------------------------------------------------------------------------------ broken folders


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"{}"),
        ("config.json", b'{"model_type": "nothing-known"}'),
        ("config.json", b'{"model_type": "bert"}'),
        ("tokenizer.json", b"{}"),
        ("model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "),
        ("model.safetensors", b"rubbish"),
        ("model.safetensors", None),
    ],
)
def test_broken_files_are_an_error_that_names_the_folder(copy: Path, file: str, content: bytes | None) -> None:
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    with pytest.raises(EvenhandError, match=str(copy)):
        load(copy)


def test_a_checkpoint_that_was_cut_short_is_refused(copy: Path) -> None:
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EvenhandError, match=str(copy)):
        load(copy)


def test_a_checkpoint_that_lacks_a_weight_is_refused(copy: Path) -> None:
    """transformers would fill it with random numbers, which no fingerprint of files could tell."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    lost = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert lost.numel() > 0
    with pytest.raises(EvenhandError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        load(copy)


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    folder = model.save(tmp_path / "tied")
    assert close(load(folder), model)


def test_code_of_others_is_not_run_unless_asked_for(copy: Path) -> None:
    marker = copy / "was-run"
    (copy / "evil.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
        "class EvilConfig(LlamaConfig):\n    model_type = 'evil'\n"
        "class Evil(LlamaForCausalLM):\n    config_class = EvilConfig\n"
    )
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"}}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(EvenhandError, match="trust_remote_code"):
        load(copy)
    assert not marker.exists()


# --------------------------------------------------------------------------------------------------- the hub


def test_a_hub_name_that_is_not_here_is_an_error_that_names_it() -> None:
    with pytest.raises(EvenhandError, match="nobody/no-such-model-here"):
        load("nobody/no-such-model-here")


def test_a_hub_name_in_the_local_cache_is_opened_and_hashed(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    repo = tmp_path / "hub" / "models--some--model"
    shutil.copytree(saved, repo / "snapshots" / "0123456789abcdef0123456789abcdef01234567")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = load("some/model")
    assert close(model, tiny_model()) and model.fingerprint == load(saved).fingerprint
    assert (model.name, model.facts()["source"]) == ("model", "some/model")


# ------------------------------------------------------------------------------------------------- fingerprints


def test_one_number_changed_on_disk_changes_the_fingerprint_and_undoing_it_restores_it(copy: Path) -> None:
    before = load(copy).fingerprint
    kept = (copy / "model.safetensors").read_bytes()
    nudge(copy)
    assert load(copy).fingerprint != before
    (copy / "model.safetensors").write_bytes(kept)
    assert load(copy).fingerprint == before


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "generation_config.json", "chat_template.jinja"])
def test_every_file_that_decides_answers_is_hashed(copy: Path, name: str) -> None:
    before = of_folder(copy)
    file = copy / name
    assert file.is_file()
    file.write_text(file.read_text() + "\n")
    assert of_folder(copy) != before


def test_notes_beside_a_model_do_not_change_it(copy: Path) -> None:
    before = of_folder(copy)
    (copy / "README.md").write_text("A note.")
    (copy / ".DS_Store").write_bytes(b"\x00")
    assert of_folder(copy) == before


def test_the_folders_place_and_name_do_not_count(saved: Path, copy: Path) -> None:
    assert load(saved).fingerprint == load(copy).fingerprint
    assert load(saved, name="other").fingerprint == load(copy).fingerprint


@pytest.mark.parametrize("through_data", [False, True])
def test_an_edit_in_place_is_noticed_and_undoing_it_restores_the_fingerprint(saved: Path, through_data: bool) -> None:
    model = load(saved)
    before = model.fingerprint
    weight = model.weights.module.model.layers[1].mlp.up_proj.weight
    assert model.fingerprint == before, "having it in hand is no edit"
    target = weight.data if through_data else weight
    with torch.no_grad():
        kept = target[3, 5].clone()
        target[3, 5] += 1e-3
        edited = model.fingerprint
        assert edited != before
        target[3, 5] += 1e-3
        assert model.fingerprint not in (before, edited)
        target[3, 5] = kept
    assert model.fingerprint == before


def test_edits_of_everything_but_weights_are_noticed(saved: Path) -> None:
    def template(model: Model) -> None:
        model.weights.tokenizer.chat_template += " "

    def tokens(model: Model) -> None:
        model.weights.tokenizer.add_tokens(["zebra"])

    def config(model: Model) -> None:
        model.weights.module.config.rope_parameters["rope_theta"] *= 2

    def end(model: Model) -> None:
        model.weights.module.generation_config.eos_token_id = [2, 5]

    def precision(model: Model) -> None:
        model.weights.module.to(torch.bfloat16)

    seen = {load(saved).fingerprint}
    for edit in (template, tokens, config, end, precision):
        model = load(saved)
        edit(model)
        assert model.fingerprint not in seen, edit.__name__
        seen.add(model.fingerprint)


def test_answering_is_no_edit(saved: Path) -> None:
    model = load(saved)
    before = model.fingerprint
    model.choose(asked())
    model.generate([evenhand.Dialogue(()).user("Who?")], Sampling(max_new_tokens=3))
    assert model.fingerprint == before and not model.edited


def test_a_wrapped_object_is_hashed_every_time() -> None:
    module, tokenizer = tiny_module(len(tiny_tokenizer())), tiny_tokenizer()
    model = wrap(module, tokenizer)
    before = model.fingerprint
    assert wrap(module, tokenizer, name="other").fingerprint == before == tiny_model().fingerprint
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-3)
    module(torch.tensor([[7, 8, 9]]), labels=torch.tensor([[7, 8, 9]])).loss.backward()
    assert model.fingerprint == before, "gradients are no edit"
    optimiser.step()
    assert model.fingerprint != before
    assert tiny_model(seed=1).fingerprint not in (before, model.fingerprint)


# ----------------------------------------------------------------------------------------------------- adapters


def with_lora(module: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        return get_peft_model(module, config).eval()


@pytest.fixture
def adapter(copy: Path, tmp_path: Path) -> Iterator[tuple[Path, LocalModel]]:
    """A folder with an adapter on the model in `copy`, and the same in memory."""
    base = load(copy)
    peft = with_lora(base.weights.module)
    peft.save_pretrained(tmp_path / "adapter")
    memory = LocalModel(peft, base.weights.tokenizer, name="memory")
    yield tmp_path / "adapter", memory


def test_an_adapter_folder_answers_as_the_adapted_model_in_memory(
    saved: Path, adapter: tuple[Path, LocalModel]
) -> None:
    folder, memory = adapter
    model = load(folder)
    assert close(model, memory) and not close(model, load(saved))
    assert model.name == "adapter" and model.fingerprint == load(folder).fingerprint
    assert model.fingerprint != load(saved).fingerprint


def test_switching_an_adapter_off_and_on_is_an_edit_that_is_undone(
    adapter: tuple[Path, LocalModel], copy: Path
) -> None:
    model = load(adapter[0])
    before, answers = model.fingerprint, probabilities(model)
    with model.weights.module.disable_adapter():
        assert model.fingerprint != before
        assert close(model, load(copy))
    assert model.fingerprint == before and probabilities(model) == answers


def test_the_adapter_and_its_base_both_count(adapter: tuple[Path, LocalModel], copy: Path) -> None:
    folder, _ = adapter
    before = load(folder).fingerprint
    nudge(copy)
    base_changed = load(folder).fingerprint
    tensors_file = folder / "adapter_model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = load_file(tensors_file)
    tensors[sorted(tensors)[0]] += 1e-3
    save_file(tensors, tensors_file, metadata={"format": "pt"})
    assert len({before, base_changed, load(folder).fingerprint}) == 3


def test_an_adapter_finds_a_base_that_lies_inside_its_folder(adapter: tuple[Path, LocalModel], copy: Path) -> None:
    folder, memory = adapter
    shutil.move(copy, folder / "base")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "base"}))
    assert close(load(folder), memory)


def test_an_adapter_without_its_base_is_an_error_that_names_it(adapter: tuple[Path, LocalModel], copy: Path) -> None:
    folder, _ = adapter
    shutil.rmtree(copy)
    with pytest.raises(EvenhandError, match=str(copy)):
        load(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(EvenhandError, match="names no base model"):
        load(folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(EvenhandError, match=r"adapter_config\.json"):
        load(folder)


def test_a_broken_adapter_is_an_error_that_names_it(adapter: tuple[Path, LocalModel]) -> None:
    (adapter[0] / "adapter_model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(EvenhandError, match=str(adapter[0])):
        load(adapter[0])


def test_an_adapted_model_is_saved_as_its_adapter(adapter: tuple[Path, LocalModel], tmp_path: Path) -> None:
    model = load(adapter[0])
    folder = model.save(tmp_path / "again")
    assert not (folder / "model.safetensors").exists() and not (folder / "base").exists()
    assert close(load(folder), model)


def test_an_adapted_model_from_memory_is_saved_with_its_base(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    model = wrap(with_lora(tiny_module(len(tokenizer))), tokenizer)
    assert close(load(model.save(tmp_path / "both")), model)


# -------------------------------------------------------------------------------------------- saved mitigations


def test_a_mitigated_model_is_saved_by_reference(saved: Path, tmp_path: Path) -> None:
    model = SelfDebias(temperature=0.5, seed=3).apply(load(saved))
    folder = model.save(tmp_path / "mitigated")
    assert [p.name for p in folder.iterdir()] == ["evenhand.json"]
    again = load(folder, trust_folder=True)
    assert isinstance(again, Mitigated) and again.method == SelfDebias(temperature=0.5, seed=3)
    assert (again.fingerprint, again.name) == (model.fingerprint, model.name)
    assert again.choose(asked()) == model.choose(asked())


def test_how_the_base_was_asked_and_loaded_is_saved_too(saved: Path, tmp_path: Path) -> None:
    own = Sampling(0.5, 7, seed=3, stop=("x",))
    for options in ({"answer_by": "text"}, {"too_long": "skip", "sampling": own}, {"dtype": "bfloat16", "name": "n"}):
        model = SelfDebias().apply(load(saved, **options))
        again = load(model.save(tmp_path / "m"), trust_folder=True)
        assert again.choose(asked()) == model.choose(asked()), options
        assert again.facts() == model.facts() and again.fingerprint == model.fingerprint
        assert isinstance(again, Mitigated) and isinstance(again.base, LocalModel)
        assert {k: getattr(again.base, k, None) for k in options if k != "dtype"} == {
            k: v for k, v in options.items() if k != "dtype"
        }


def test_a_base_that_changed_since_is_refused(copy: Path, tmp_path: Path) -> None:
    folder = SelfDebias().apply(load(copy)).save(tmp_path / "mitigated")
    kept = (copy / "model.safetensors").read_bytes()
    nudge(copy)
    for options in ({}, {"batch_tokens": 64}, {"name": "x"}):
        with pytest.raises(EvenhandError, match=rf"{copy} is no longer what .*mitigated was made from"):
            load(folder, trust_folder=True, **options)
    (copy / "model.safetensors").write_bytes(kept)
    assert load(folder, trust_folder=True).choose(asked()[:1])[0].status == "answered"
    shutil.rmtree(copy)
    with pytest.raises(EvenhandError, match=f"no model folder.*{copy}"):
        load(folder, trust_folder=True)


def test_a_base_in_memory_is_saved_in_full(tmp_path: Path) -> None:
    model = SelfDebias().apply(tiny_model(seed=4, answer_by="text", name="mine"))
    folder = model.save(tmp_path / "mitigated")
    assert (folder / "base" / "model.safetensors").is_file()
    shutil.move(folder, tmp_path / "moved")
    again = load(tmp_path / "moved")
    assert again.choose(asked()) == model.choose(asked()) and again.name == model.name


def test_a_base_that_was_edited_is_saved_in_full_and_in_its_precision(saved: Path, tmp_path: Path) -> None:
    for options in ({}, {"dtype": "bfloat16"}):
        base = load(saved, **options)
        model = SelfDebias().apply(base)
        with torch.no_grad():
            model.weights.module.model.layers[0].mlp.up_proj.weight.mul_(-1)
        assert not close(base, load(saved))
        again = load(model.save(tmp_path / f"edited{len(options)}"))
        assert again.weights.module.dtype == base.weights.module.dtype
        assert again.choose(asked()) == model.choose(asked())


def test_an_edit_that_was_undone_is_saved_by_reference(saved: Path, tmp_path: Path) -> None:
    model = SelfDebias().apply(load(saved))
    with torch.no_grad():
        for _ in range(2):
            model.weights.module.model.layers[0].mlp.up_proj.weight.mul_(-1)
    assert not (model.save(tmp_path / "undone") / "base").exists()


def test_a_stack_is_saved_with_all_its_parts(saved: Path, tmp_path: Path) -> None:
    model = build_method("self_debias(seed=1)+self_debias(variant=explanation)").apply(load(saved))
    again = load(model.save(tmp_path / "stack"), trust_folder=True)
    assert again.choose(asked()[:2]) == model.choose(asked()[:2])
    assert (again.fingerprint, again.name) == (model.fingerprint, model.name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "evenhand.json"),
        ("[]", "evenhand.json"),
        ("{}", "kind None"),
        ('{"kind": "newer"}', "kind 'newer'"),
        ('{"kind": "mitigated"}', "evenhand.json"),
        (
            '{"kind": "mitigated", "base": {"source": "demo", "fingerprint": "x"}, "method": {"none": {}}}',
            "demo is no longer",
        ),
        (
            '{"kind": "mitigated", "base": {"folder": "base", "fingerprint": "x"}, "method": {"none": {}}}',
            r"the base .* is missing",
        ),
    ],
)
def test_a_broken_saved_folder_is_an_error_of_ours(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "evenhand.json").write_text(content)
    with pytest.raises(EvenhandError, match=message):
        load(tmp_path)


def test_an_unanswered_choice_is_what_a_skipping_model_gives_after_loading(saved: Path) -> None:
    long = Question("long", "dog " * 3000, ("dog", "cat"))
    got = load(saved, too_long="skip").choose([long])[0]
    assert isinstance(got, Choice) and got.status == "unanswered"
