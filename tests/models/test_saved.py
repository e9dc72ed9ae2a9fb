"""Folders saved by somebody: what they may not reach unless the caller allows it, their form, and their version."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from evenhand.core import registry
from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Model
from evenhand.methods.permutation._student import load_student
from evenhand.methods.prompting.self_debias import SelfDebias
from evenhand.models import hugging_face, outside, saved
from evenhand.models.loading import check, load
from evenhand.models.tiny import tiny_model
from evenhand.testing import questions

PLAIN: dict[str, Any] = {"self_debias": {"prompts": "en"}}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights and nothing else."""
    return tiny_model().save(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(autouse=True)
def _nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def put(folder: Path, /, **content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evenhand.json").write_text(json.dumps(content))
    return folder


def mitigated(folder: Path, base: dict[str, Any], method: Any = PLAIN) -> Path:
    return put(folder, kind="mitigated", base={"fingerprint": "x", **base}, method=method)


def based(**base: Any) -> dict[str, Any]:
    return {"kind": "mitigated", "method": PLAIN, "base": {"fingerprint": "x", **base}}


def tuned(**more: Any) -> dict[str, Any]:
    return {"kind": "student", "form": "lora", "name": "x", "facts": {}, **more}


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def refused(folder: Path, what: str) -> None:
    """Whether `load` and `check` refuse a folder for `what`, saying how to allow it, and open nothing."""
    opened: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hugging_face, "open_model", lambda *a, **k: opened.append(a[0]))
        patch.setattr(hugging_face, "kind_of", lambda *a, **k: opened.append(a[0]))
        for refuse in (load, check):
            with pytest.raises(SettingsError, match=f"{re.escape(what)}.*trust_folder=True") as caught:
                refuse(folder)
            assert str(folder) in str(caught.value)
    assert opened == []


# ------------------------------------------------------------------------------------------- what is out of reach


@pytest.mark.parametrize(
    ("base", "what"),
    [
        ({"source": "some/model", "options": {"trust_remote_code": True}}, "running code"),
        ({"source": "some/model", "options": {"attn_implementation": "some/kernel"}}, "some/kernel"),
        ({"source": "demo", "options": {"trust_remote_code": True}}, "running code"),
        ({"source": "/etc"}, "the local path '/etc'"),
        ({"source": "../next/door"}, "the local path '../next/door'"),
        ({"source": "some/../../x"}, "the local path"),
        ({"source": "~/models/x"}, "the local path '~/models/x'"),
        ({"source": "C:\\models"}, "the local path"),
        ({"source": "endpoint:https://evil.example/v1#m"}, "the endpoint 'endpoint:https://evil.example/v1#m'"),
        ({"source": " endpoint:https://evil.example/v1#m(timeout=1)"}, "the endpoint"),
        ({"source": "endpoint:https://me:secret@evil.example/v1#m"}, "//...@evil.example"),
        ({"source": "vllm:http://10.0.0.1:8000/v1#m"}, "the endpoint 'vllm:http://10.0.0.1:8000/v1#m'"),
        ({"source": "endpoint:http://x/v1#m", "options": {"key_env": "HOME"}}, "variable 'HOME'"),
        ({"source": "some/model(trust_remote_code=True)"}, "the model 'some/model(trust_remote_code=True)'"),
        ({"source": "demo(trust_remote_code=True)"}, "demo(trust_remote_code=True)"),
        ({"source": "oracle:/etc"}, "of the loader 'oracle'"),
        ({"source": "judge:other"}, "of the loader 'judge'"),
        ({"source": ""}, "the local path ''"),
    ],
)
def test_a_base_outside_of_the_folder_is_refused(tmp_path: Path, base: dict[str, Any], what: str) -> None:
    refused(mitigated(tmp_path / "m", base), what)
    if "options" in base or "endpoint" in base["source"]:
        refused(put(tmp_path / "e", kind="endpoint", **base), what)


def test_the_secret_of_a_variable_goes_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the variable that a folder names, nor the usual one with the caller's own key."""
    from evenhand.models import endpoint

    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    asked: list[Any] = []
    monkeypatch.setattr(endpoint, "api_key", lambda name: asked.append(name))
    for options in ({}, {"key_env": "OPENAI_API_KEY"}):
        refused(
            put(tmp_path, kind="endpoint", source="endpoint:https://evil.example/v1#m", options=options), "endpoint"
        )
    with pytest.raises(SettingsError, match="trust_folder"):
        load(tmp_path, key_env="OPENAI_API_KEY")
    assert asked == []


def test_a_plugins_loader_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def loader(rest: str = "", **options: Any) -> Model:
        opened.append(rest)
        return tiny_model(source="demo")

    monkeypatch.setattr(registry.models, "_objects", {**registry.models._objects, "myloader": loader})
    for source in ("myloader", "myloader:rm -r"):
        refused(mitigated(tmp_path, {"source": source}), "of the loader 'myloader'")
    assert opened == []


def test_a_relative_name_that_is_a_folder_here_is_no_hub_name(
    tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(plain, tmp_path / "some" / "model")
    monkeypatch.chdir(tmp_path)
    refused(mitigated(tmp_path / "m", {"source": "some/model"}), "the local path 'some/model'")


@pytest.mark.parametrize("name", ["..", ".", "", "../x", "/etc", "a/b", "a\\b", "C:"])
def test_the_folder_of_a_base_is_one_inside(tmp_path: Path, name: str) -> None:
    folder = mitigated(tmp_path / "m", {"folder": name})
    for options in ({}, {"trust_folder": True}):
        with pytest.raises(EvenhandError, match="not the name of a folder inside"):
            load(folder, **options)


def test_a_folder_name_is_not_read_as_a_specification(tmp_path: Path, plain: Path) -> None:
    """With brackets it would have switched options on."""
    shutil.copytree(plain, tmp_path / "m" / "base")
    folder = mitigated(tmp_path / "m", {"folder": "base(trust_remote_code=True)"})
    with pytest.raises(SettingsError, match=r"the base .* is missing"):
        load(folder)


def test_links_out_of_the_folder_are_refused(tmp_path: Path, plain: Path) -> None:
    one = mitigated(tmp_path / "one", {"folder": "base"})
    (one / "base").symlink_to(plain)
    refused(one, f"{str(plain)!r} (the link base)")
    two = mitigated(tmp_path / "two", {"folder": "base"})
    shutil.copytree(plain, two / "base")
    (two / "base" / "model.safetensors").unlink()
    (two / "base" / "model.safetensors").symlink_to(plain / "model.safetensors")
    refused(two, "(the link base/model.safetensors)")
    three = mitigated(tmp_path / "three", {"source": "demo"})
    (three / "learned").symlink_to(plain)
    refused(three, "(the link learned)")


def test_links_inside_and_those_of_the_hubs_cache_are_no_way_out(tmp_path: Path, plain: Path) -> None:
    repository = tmp_path / "models--some--model"
    folder = mitigated(repository / "snapshots" / "abc", {"folder": "base"})
    shutil.copytree(plain, folder / "base")
    (repository / "blobs").mkdir()
    shutil.move(folder / "base" / "model.safetensors", repository / "blobs" / "1")
    (folder / "base" / "model.safetensors").symlink_to(repository / "blobs" / "1")
    assert load(folder).abilities
    plainer = tmp_path / "other"
    shutil.copytree(folder, plainer, symlinks=True)
    refused(plainer, "(the link base/model.safetensors)")


def test_a_folder_that_leads_back_to_itself_is_an_error(tmp_path: Path) -> None:
    folder = mitigated(tmp_path / "m", {"folder": "base"})
    (folder / "base").symlink_to(folder)
    with pytest.raises(EvenhandError, match="leads back"):
        load(folder, trust_folder=True)


def test_what_lies_deeper_is_looked_at_too(tmp_path: Path, plain: Path) -> None:
    outer = mitigated(tmp_path / "m", {"folder": "base"})
    mitigated(outer / "base", {"source": "some/model", "options": {"trust_remote_code": True}})
    refused(outer, "running code")
    put(outer / "base", kind="endpoint", source="endpoint:https://evil.example/v1#m")
    refused(outer, "evil.example")
    adapter = mitigated(tmp_path / "a", {"folder": "base"})
    (adapter / "base").mkdir()
    (adapter / "base" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(plain)}))
    refused(adapter, f"{str(plain)!r} (base of the adapter base)")
    learned = mitigated(tmp_path / "l", {"source": "demo"})
    put(learned / "learned", kind="student", form="lora", name="s", facts={}, precision={"trust_remote_code": True})
    refused(learned, "running code")


@pytest.mark.parametrize(
    ("method", "what"),
    [
        ({"cross_model_adjudication": {"pool": ["endpoint:https://evil.example/v1#m"]}}, "URL in"),
        ({"cross_model_adjudication": {"pool": ["vllm:host#m"]}}, "the endpoint 'vllm:host#m'"),
        (
            {"cross_model_adjudication": {"pool": ["demo-b", "some/model(trust_remote_code=True)"]}},
            "options of its own",
        ),
        ({"cross_model_adjudication": {"pool": ["demo-b"], "output": "/root/there"}}, "setting output"),
        ({"cross_model_adjudication": {"pool": ["demo-b"], "general": "~/.ssh/id"}}, "setting general"),
        ({"task_vector": {"tuned": "/srv/tuned"}}, "the local path '/srv/tuned' (task_vector's setting tuned)"),
        ({"task_vector": {"text": ["demo", "../private.txt"]}}, "'../private.txt'"),
        ({"intent_self_correction": {"critic": "endpoint:https://evil.example/v1#m"}}, "setting critic"),
        ({"intent_self_correction": {"critic": "a=endpoint:host#m"}}, "the endpoint 'endpoint:host#m'"),
        ({"self_debias": {"prompts": "here.json"}}, "the local path 'here.json'"),
        ({"self_debias": {"prompts": ["a", {"b": "/x"}]}}, "'/x'"),
        ({"no_such_method": {"anything": "/x"}}, "'/x'"),
    ],
)
def test_settings_of_a_method_that_reach_outside_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any], what: str
) -> None:
    (tmp_path / "here.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    refused(mitigated(tmp_path / "m", {"source": "demo"}, method), what)


@pytest.mark.parametrize(
    "method",
    [
        {"contextual_calibration": {"texts": ["N/A", "[MASK]", ""]}},
        {"contextual_calibration": {"texts": ["N/A", "he/she", "?"]}},
        {"none": {"stop": ["\n\n", "Question:"]}},
        {"intent_self_correction": {"critic": "some/model"}},
        {"cross_model_adjudication": {"pool": ["demo-b"], "judges": ["judge:demo-b", "oracle:demo"]}},
        {"self_debias": {"prompts": "en", "seed": 3}},
        {"contextual_calibration": {"texts": ["he (she)", "The judge: what?", "5 % of $5", "and so on ..."]}},
    ],
)
def test_settings_that_reach_nothing_are_not(method: dict[str, Any]) -> None:
    assert outside.of_method(method) == []


def test_a_methods_default_is_its_own_even_where_a_folder_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "en").mkdir()
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert outside.of_method({"self_debias": {"prompts": "en"}}) == []
    assert outside.of_source("demo") == ""


def test_a_students_own_file_sets_no_options_of_loading(tmp_path: Path) -> None:
    """Also where it is opened without `load`, as methods do that restore what they learned."""
    content: dict[str, Any] = {"kind": "student", "form": "lora", "name": "s", "facts": {}}
    (tmp_path / "curve.json").write_text("[]")
    cases: list[dict[str, Any]] = [
        {"precision": {"trust_remote_code": True}, "asking": {}},
        {"precision": {"dtype": "float32"}, "asking": {"trust_remote_code": True}},
        {"precision": {}, "asking": {"base": "/etc"}},
        {"precision": [], "asking": {}},
    ]
    for more in cases:
        put(tmp_path, **content, **more)
        for detached in (False, True):
            with pytest.raises(EvenhandError, match="not as evenhand writes it"):
                load_student(tmp_path, {}, detached=detached)


@pytest.mark.parametrize(
    "text",
    [
        "fair model/base(trust_remote_code=True)",
        "fair model/base(dtype=float32)",
        "fair\nmodel(dtype=float32)",
        "x (\n trust_remote_code = True)",
        "x(#)\ntrust_remote_code=True)",
        "some/model()",
        "some/model( )",
        "demo()",
        "one & bbq(source=there)",
        "pairs:bbq(source=there)",
        "some/model(trust_remote_code=True) ",
        "x(a=" + "-" * 5000 + "1)",
    ],
)
def test_whatever_load_would_read_as_options_is_refused(tmp_path: Path, text: str) -> None:
    """A blank, a line end, a comment or empty brackets hide none of them, nor does the place in a list."""
    for method in (
        {"intent_self_correction": {"critic": text}},
        {"cross_model_adjudication": {"pool": ["demo-b", text]}},
        {"cross_model_adjudication": {"judges": [text]}},
    ):
        refused(mitigated(tmp_path / "m", {"source": "demo"}, method), "options of its own")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("datasets:/etc/there", "the local path '/etc/there'"),
        ("datasets:../x:train:text", "the local path '../x'"),
        ("datasets:here:train", "the local path 'here'"),
        ("datasets:some/name", "the data set"),
        ("demo & ../x", "'../x'"),
        ("file:/etc/passwd", "'/etc/passwd'"),
        ("here ", "'here '"),
        ("a b", "the local path 'a b'"),
        ("$HOME/x", "the environment variable"),
        ("~nobody/x", "the local path"),
    ],
)
def test_a_path_in_any_part_of_a_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, what: str
) -> None:
    for name in ("here", "here ", "a b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    refused(mitigated(tmp_path / "m", {"source": "demo"}, {"task_vector": {"text": text}}), what)


def test_where_something_would_be_written_counts_before_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"preset": "demo", "output": "written_here"}
    folder = mitigated(tmp_path / "m", {"source": "demo"}, {"cross_model_adjudication": settings})
    refused(folder, "the local path 'written_here' (cross_model_adjudication's setting output)")
    for key in ("cache", "log_file", "save_to", "working_dir"):
        assert outside.of_method({"somebodys": {key: "new"}}) == [f"the local path 'new' (somebodys's setting {key})"]
    with pytest.raises(SettingsError, match="opening would have to train"):
        load(folder, trust_folder=True)
    assert not (tmp_path / "written_here").exists()


@pytest.mark.parametrize(
    "method",
    [
        {"cross_model_adjudication": {"preset": "demo"}},
        {"task_vector": {"strength": 0.1}},
        {"fair_distillation": {}},
        {"preference": {}},
        {"pcgu": {}},
        {"permutation_distillation": {"preset": "demo"}},
    ],
)
def test_opening_a_folder_trains_nothing(tmp_path: Path, method: dict[str, Any]) -> None:
    folder = mitigated(tmp_path / "m", {"source": "demo"}, method)
    outer = mitigated(tmp_path / "outer", {"folder": "base"})
    shutil.copytree(folder, outer / "base")
    for place in (folder, outer):
        for options in ({}, {"trust_folder": True}):
            for refuse in (load, check):
                with pytest.raises(SettingsError, match=r"has no learned/.*apply the method"):
                    refuse(place, **options)


def test_an_empty_place_of_what_was_learned_is_no_way_around_that(tmp_path: Path) -> None:
    folder = mitigated(tmp_path / "m", {"source": "demo"}, {"preference": {}})
    (folder / "learned").mkdir()
    with pytest.raises(EvenhandError, match=r"m/evenhand\.json is not as evenhand writes it: preference saves nothing"):
        load(folder)


def test_a_plugin_that_trains_without_saying_so_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.core.artifacts import artefact, artefacts
    from evenhand.interfaces import Method, TrainData, settings

    trained: list[Path] = []

    @settings
    class Sly(Method):
        """Trains."""

        name = "sly"

        def apply(self, model: Model, data: TrainData | None = None) -> Model:
            with artefact("abc", trained.append):
                return model

    monkeypatch.setattr(registry.methods, "_objects", {**registry.methods._objects, "sly": Sly})
    folder = mitigated(tmp_path / "m", {"source": "demo", "fingerprint": load("demo").fingerprint}, {"sly": {}})
    with artefacts(tmp_path / "kept"), pytest.raises(SettingsError, match="never recreated"):
        load(folder)
    assert trained == []
    Sly().apply(load("demo"))
    assert len(trained) == 1


# ---------------------------------------------------------------------------------------- what the weights' files name


def kernel(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": "somebody/evil"}))


def no_kernel(folder: Path, **options: Any) -> None:
    """Whether opening a folder fails because of its kernel, before transformers is asked for a module."""
    asked: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        import transformers.modeling_utils as made

        patch.setattr(made, "lazy_import_flash_attention", lambda *a, **k: asked.append(a))
        with pytest.raises(EvenhandError, match="loads the attention from the hub"):
            load(folder, **options)
    assert asked == []


def student(folder: Path) -> Path:
    """A tuned language model with its base inside."""
    from peft import LoraConfig, get_peft_model

    from evenhand.methods.permutation._student import LoraStudent
    from evenhand.models.adapters import forget_name

    model = tiny_model()
    tuned: Any = get_peft_model(model.weights.module, LoraConfig(r=2, target_modules=["q_proj"]))
    forget_name(tuned)
    made = LoraStudent(tuned, model.weights.tokenizer, name="s")
    return made.save(folder)


def test_attention_code_is_refused_wherever_a_module_is_opened(tmp_path: Path, plain: Path) -> None:
    one = student(tmp_path / "student")
    assert load(one).abilities
    kernel(one / "base")
    no_kernel(one)
    learned = mitigated(
        tmp_path / "learned",
        {"source": "demo", "fingerprint": load("demo").fingerprint},
        {"permutation_distillation": {"student": "lora"}},
    )
    shutil.copytree(one, learned / "learned")
    no_kernel(learned)
    adapter = tmp_path / "adapter"
    shutil.copytree(one, adapter, ignore=shutil.ignore_patterns("evenhand.json"))
    no_kernel(adapter)
    held = mitigated(tmp_path / "held", {"folder": "base"})
    shutil.copytree(one / "base", held / "base")
    shutil.copy(plain / "tokenizer.json", held / "base")
    no_kernel(held)
    for opened in (hugging_face.open_weights, lambda name: hugging_face.open_model(name, None)):
        with pytest.raises(EvenhandError, match="loads the attention from the hub"):
            opened(str(held / "base"))


def test_attention_code_of_an_encoder_is_refused(tmp_path: Path) -> None:
    from evenhand.methods.permutation._encoder_student import FORMS, Network, open_encoder
    from evenhand.methods.permutation._student import EncoderStudent

    model: Any = load("demo-mlm")
    network = Network(model._module.base_model, FORMS["encoder"].width)
    form = FORMS["encoder"](model._tokenizer, 64)
    folder = EncoderStudent(network, model._tokenizer, form, name="e").save(tmp_path / "e")
    assert load(folder).abilities == {"choose"}
    kernel(folder)
    no_kernel(folder)
    with pytest.raises(EvenhandError, match="loads the attention from the hub"):
        open_encoder(str(folder))


def test_attention_code_of_a_part_of_a_model_is_refused() -> None:
    from transformers import LlamaConfig

    config: Any = LlamaConfig()
    config.text_config = LlamaConfig()
    hugging_face._refuse_kernels(config, "x")
    config.text_config.vision = LlamaConfig.from_dict({"attn_implementation": "somebody/evil@v1"})
    with pytest.raises(SettingsError, match=r"x: its config\.json loads the attention"):
        hugging_face._refuse_kernels(config, "x")


@pytest.mark.parametrize(
    "name", ["../../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "C:\\x", "..\\x"]
)
def test_shards_lie_in_the_folder(tmp_path: Path, plain: Path, name: str) -> None:
    """Of a saved folder and of a plain one."""
    folder = mitigated(tmp_path / "m", {"folder": "base"})
    shutil.copytree(plain, folder / "base")
    (folder / "base" / "model.safetensors").unlink()
    index = folder / "base" / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "b.safetensors", "c": name}}))
    for place in (folder, folder / "base"):
        with pytest.raises(EvenhandError, match=f"{re.escape(str(index))} has weights in .*outside the folder"):
            load(place)
    with pytest.raises(EvenhandError, match="outside the folder"):
        hugging_face.open_weights(str(folder / "base"))


def test_shards_in_the_folder_are_opened(tmp_path: Path, plain: Path) -> None:
    module = load(plain).weights.module
    shutil.copytree(plain, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    module.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    assert (tmp_path / "m" / "model.safetensors.index.json").is_file()
    assert load(tmp_path / "m").choose(questions()) == load(plain).choose(questions())


def test_a_students_base_lies_in_its_folder_unless_the_caller_says_otherwise(tmp_path: Path, plain: Path) -> None:
    folder = student(tmp_path / "s")
    before = load(folder).choose(questions())
    file = folder / "adapter_config.json"
    shutil.rmtree(folder / "base")
    for named in (str(plain), "../plain"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": named}))
        shutil.copytree(plain, tmp_path / "plain", dirs_exist_ok=True)
        refused(folder, "(base of the adapter")
        for allowed in ({"trust_folder": True}, {"base": plain}):
            assert load(folder, **allowed).choose(questions()) == before
    (folder / "evenhand.json").unlink()  # the caller names an adapter of peft's
    assert load(folder).choose(questions()) == before


def test_an_adapter_imports_no_module(tmp_path: Path) -> None:
    folder = student(tmp_path / "s")
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "megatron_config": {}, "megatron_core": "evil"}))
    with pytest.raises(SettingsError, match=r"adapter_config\.json has a megatron_config"):
        load(folder)


# ------------------------------------------------------------------------------------------------ how it is allowed


def test_the_caller_allows_it_and_the_users_own_saves_come_back(tmp_path: Path, plain: Path) -> None:
    model = SelfDebias().apply(load(plain))
    folder = model.save(tmp_path / "mine")
    refused(folder, f"the local path {str(plain)!r}")
    for allowed in (
        load(folder, trust_folder=True),
        load(folder, base=plain),
        load(folder, base=str(plain)),
        load(f"{folder}(trust_folder=True)"),
    ):
        assert allowed.choose(questions()) == model.choose(questions())
        assert allowed.fingerprint == model.fingerprint
    check(folder, trust_folder=True)
    assert saved.how_to_load(folder) == f"evenhand.load({str(folder)!r}, trust_folder=True)"
    shutil.copytree(plain, tmp_path / "moved")
    assert load(folder, base=tmp_path / "moved").fingerprint == model.fingerprint


def test_another_base_than_the_folders_is_refused(tmp_path: Path, plain: Path) -> None:
    folder = SelfDebias().apply(load(plain)).save(tmp_path / "mine")
    other = tiny_model(seed=7).save(tmp_path / "other")
    with pytest.raises(EvenhandError, match=f"{other} is no longer what .*mine was made from"):
        load(folder, base=other)


def test_naming_the_base_allows_nothing_else(tmp_path: Path, plain: Path) -> None:
    options = {"trust_remote_code": True}
    folder = mitigated(tmp_path / "m", {"source": "/etc", "options": options}, {"self_debias": {"prompts": "/x"}})
    with pytest.raises(SettingsError, match=r"running code.*'/x'") as caught:
        load(folder, base=plain)
    assert "/etc" not in str(caught.value)


def test_the_demo_and_a_base_in_the_folder_need_no_allowance(tmp_path: Path) -> None:
    demo = SelfDebias().apply(load("demo"))
    assert load(demo.save(tmp_path / "demo")).fingerprint == demo.fingerprint
    assert saved.how_to_load(tmp_path / "demo") == f"evenhand.load({str(tmp_path / 'demo')!r})"
    memory = SelfDebias().apply(SelfDebias(seed=1).apply(tiny_model()))
    assert load(memory.save(tmp_path / "memory")).choose(questions()) == memory.choose(questions())


def test_a_stack_takes_the_base_that_is_named(tmp_path: Path, plain: Path) -> None:
    model = registry.build_method("self_debias(seed=1)+self_debias(variant=explanation)").apply(load(plain))
    folder = model.save(tmp_path / "stack")
    assert load(folder, base=plain).fingerprint == model.fingerprint


def test_a_hub_name_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(EvenhandError, match="cannot open the model 'nobody/no-such-model'"):
        load(mitigated(tmp_path, {"source": "nobody/no-such-model"}))


def test_code_is_run_by_the_callers_own_option_only(tmp_path: Path, plain: Path) -> None:
    """The folder's option is refused; the caller's reaches the base."""
    marker = tmp_path / "was-run"
    base = Path(shutil.copytree(plain, tmp_path / "m" / "base"))
    (base / "evil.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
        "class EvilConfig(LlamaConfig):\n    model_type = 'evil'\n"
        "class Evil(LlamaForCausalLM):\n    config_class = EvilConfig\n"
    )
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"}}
    (base / "config.json").write_text(json.dumps(config))
    refused(mitigated(tmp_path / "m", {"folder": "base", "options": {"trust_remote_code": True}}), "running code")
    with pytest.raises(EvenhandError, match="trust_remote_code"):
        load(mitigated(tmp_path / "m", {"folder": "base"}))
    assert not marker.exists()


@pytest.mark.parametrize("options", [{"trust_folder": "True"}, {"trust_folder": 1}, {"base": 3}])
def test_allowances_of_a_wrong_type_are_refused(plain: Path, options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(options))):
        load(plain, **options)


def test_a_base_where_there_is_none_is_refused(tmp_path: Path, plain: Path) -> None:
    memory = SelfDebias().apply(tiny_model()).save(tmp_path / "memory")
    for spec in (plain, memory, "some/model"):
        with pytest.raises(SettingsError, match=r"leave (it|base) out"):
            load(spec, base="demo")
    assert load(plain, trust_folder=True).abilities == load("demo", trust_folder=True).abilities


# ----------------------------------------------------------------------------------------------- adapters' own rule


def test_an_adapter_may_name_its_base_by_path_and_only_weights_are_read(tmp_path: Path, plain: Path) -> None:
    from peft import LoraConfig, get_peft_model

    tuned: Any = get_peft_model(load(plain).weights.module, LoraConfig(target_modules=["q_proj"]))
    tuned.save_pretrained(tmp_path / "adapter")
    assert load(tmp_path / "adapter").fingerprint == load(tmp_path / "adapter", base=plain).fingerprint
    held = mitigated(tmp_path / "held", {"source": "demo"})  # a saved folder is not opened in the place of weights
    for base in (str(held), "endpoint:https://evil.example/v1#m", f"{plain}(trust_remote_code=True)"):
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = base
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
        with pytest.raises(EvenhandError, match="cannot open the model"):
            load(tmp_path / "adapter")


# -------------------------------------------------------------------------------------------------- form and version


def test_the_version_is_written_and_files_without_one_are_read(tmp_path: Path) -> None:
    model = SelfDebias().apply(load("demo"))
    folder = model.save(tmp_path / "m")
    content = json.loads((folder / "evenhand.json").read_text())
    assert content.pop("version") == saved.VERSION == 2
    put(folder, **content)
    assert load(folder).fingerprint == model.fingerprint
    put(folder, **content, version=3)
    with pytest.raises(SettingsError, match=r"version 3, but this evenhand reads up to 2; update"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "endpoint"}, "it has no 'source'"),
        ({"kind": "endpoint", "source": ["x"]}, "source is"),
        ({"kind": "endpoint", "source": "demo", "options": []}, r"options is \[\]"),
        ({"kind": ["endpoint"], "source": "demo"}, "kind"),
        ({"kind": "mitigated", "method": [], "base": {}}, "method is"),
        ({"kind": "mitigated", "method": {}, "base": {"fingerprint": "x"}}, "'folder' or a 'source'"),
        ({"kind": "mitigated", "method": {}, "base": {"source": "demo", "folder": "b"}}, "'folder' or a 'source'"),
        ({"kind": "mitigated", "method": {}, "base": {"source": "demo"}}, "no 'fingerprint'"),
        ({"kind": "student", "form": "lora"}, "no 'name'"),
        ({"kind": "mitigated", "version": "1"}, "version is '1'"),
        ({"kind": "mitigated", "version": True}, "version is True"),
        ({"kind": "mitigated", "version": -1}, "version is -1"),
        ({"kind": "endpoint", "source": "demo", "options": {"trust_folder": True}}, "only the caller"),
        (
            {"kind": "mitigated", "method": {}, "base": {"source": "x", "fingerprint": "x", "options": {"base": "/"}}},
            "only the caller",
        ),
        ({"kind": "student", "form": "lora", "name": "x", "facts": {}, "base": {"folder": 5}}, "it has 'base'"),
        ({"kind": "endpoint", "source": "demo", "base": None}, "it has 'base'"),
        ({"kind": "endpoint", "source": "demo", "folder": "inner"}, "it has 'folder'"),
        ({"kind": "endpoint", "source": "a" * 5000}, "source has 5000 characters"),
        (based(source="a" * 5000), "source has 5000 characters"),
        (based(source="demo", folders=1), "it has 'folders'"),
        (
            {**based(source="demo"), "method": {"self_debias": {"prompts": nested(700)}}},
            "nested more than 50 levels deep",
        ),
        (based(source="demo", options={"name": {"a": 1}}), "the option name is"),
        (based(source="demo", options={"sampling": "x"}), "the option sampling is 'x'"),
        (based(source="demo", options={"sampling": {"temperature": "x"}}), "the option sampling is"),
        (based(source="demo", options={"sampling": {"stop": 3}}), "the option sampling is"),
        (based(source="demo", options={"dtype": ["x"]}), "the option dtype is"),
        (based(source="demo", options={"batch_tokens": True}), "the option batch_tokens is True"),
        (tuned(asking={"name": 3}), "the option name is 3"),
        (tuned(precision={"dtype": {}}), "the option dtype is"),
        ({**based(source="demo"), "method": {}}, "write one name"),
        ({**based(source="demo"), "method": {"nope": {}}}, "unknown method 'nope'"),
        (tuned(max_length="x"), "max_length is 'x'"),
    ],
)
def test_what_evenhand_does_not_write_is_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    put(tmp_path, **content)
    for options in ({}, {"trust_folder": True}):
        for refuse in (load, check):
            with pytest.raises(EvenhandError, match=message) as caught:
                refuse(tmp_path, **options)
            assert str(tmp_path / "evenhand.json") in str(caught.value)


def test_the_base_may_be_named_on_the_command_line_as_the_message_says(tmp_path: Path, plain: Path) -> None:
    folder = SelfDebias().apply(load(plain)).save(tmp_path / "mine")
    with pytest.raises(SettingsError) as caught:
        load(folder)
    said = re.search(r"on the command line '([^']*base=[^']*)'", str(caught.value))
    assert said is not None
    assert load(said[1].replace("FOLDER OR NAME", str(plain))).abilities


def test_names_as_long_as_no_path_are_refused() -> None:
    for spec in ("a" * 5000, "/" + "a" * 5000, "a" * 5000 + "(x=1)", "~nobody-of-this-name/x"):
        with pytest.raises(EvenhandError):
            check(spec)
