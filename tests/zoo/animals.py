"""Hostile model folders, each with what it wants. They are stand-ins: what they run would only make a marker."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where an animal lives."""

    folder: Path
    """A plain model folder, of which the animal makes its own."""
    marker: Path
    """What any code that is run would make."""
    outside: Path
    """A folder that nobody has allowed, with a plain model and a text."""


@dataclass(frozen=True)
class Animal:
    """One hostile folder."""

    name: str
    wants: str
    words: str
    """What the refusal has to say, a regular expression; "" where the folder is opened and nothing of that is done."""
    build: Callable[[Place], None]


class Marked:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return open, (str(self.marker), "w")


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file, which need not be there."""
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**content, **changes}))


def config(place: Place, **changes: Any) -> None:
    """Change config.json."""
    edit(place.folder / "config.json", **changes)


def saved(place: Place, **content: Any) -> None:
    """Write an evenhand.json that says what is given."""
    (place.folder / "evenhand.json").write_text(json.dumps({"version": 2, **content}))


def mitigated(place: Place, method: dict[str, Any] | None = None, **base: Any) -> None:
    """Write an evenhand.json of a method around a base."""
    given = {"instruction": {}} if method is None else method
    saved(place, kind="mitigated", method=given, base={"fingerprint": "x", **base})


def adapter(place: Place, **changes: Any) -> None:
    """Make the folder an adapter's, without weights of its own."""
    for file in ("config.json", "model.safetensors", "generation_config.json"):
        (place.folder / file).unlink(missing_ok=True)
    known = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    edit(place.folder / "adapter_config.json", **{"base_model_name_or_path": "demo", **known, **changes})
    header(place.folder / "adapter_model.safetensors", {})


def code(place: Place, name: str) -> None:
    """A module in the folder that makes the marker when it is imported."""
    file = place.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"open({str(place.marker)!r}, 'w').close()\n")


def pickled(place: Place, name: str) -> None:
    """A pickle under the name of weights, in torch's archive."""
    out = io.BytesIO()
    pickle.dump({"model.embed_tokens.weight": Marked(place.marker)}, out, protocol=2)
    with zipfile.ZipFile(place.folder / name, "w") as archive:
        archive.writestr("archive/data.pkl", out.getvalue())
        archive.writestr("archive/version", "3\n")


def header(file: Path, content: Any, length: int | None = None, data: bytes = b"") -> None:
    """A safetensors file with any header, and any length that it claims to have."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def tensors(place: Place, content: Any, length: int | None = None, data: bytes = b"") -> None:
    """Replace the weights by such a file."""
    header(place.folder / "model.safetensors", content, length, data)


def one(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    """A header with one tensor."""
    return {"model.norm.weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def auto_map(place: Place) -> None:
    code(place, "evil.py")
    names = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    config(place, model_type="evil", architectures=["Model"], auto_map=names)


def auto_map_of_a_known_type(place: Place) -> None:
    code(place, "evil.py")
    config(place, auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"})


def tokenizer_code(place: Place) -> None:
    code(place, "evil.py")
    names = {"AutoTokenizer": ["evil.Slow", "evil.Fast"]}
    edit(place.folder / "tokenizer_config.json", auto_map=names, tokenizer_class="EvilTokenizer")


def custom_generate(place: Place) -> None:
    code(place, "custom_generate/generate.py")
    edit(place.folder / "generation_config.json", custom_generate=str(place.folder), trust_remote_code=True)


def pickle_for_weights(place: Place) -> None:
    (place.folder / "model.safetensors").unlink()
    pickled(place, "pytorch_model.bin")


def pickle_next_to_weights(place: Place) -> None:
    pickled(place, "pytorch_model.bin")
    pickled(place, "training_args.bin")


def pickle_for_an_adapter(place: Place) -> None:
    adapter(place)
    (place.folder / "adapter_model.safetensors").unlink()
    pickled(place, "adapter_model.bin")


def link(place: Place) -> None:
    mitigated(place, folder="base")
    (place.folder / "base").symlink_to(place.outside / "model")


def linked_weights(place: Place) -> None:
    mitigated(place, folder="base")
    (place.folder / "base").mkdir()
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (place.folder / file).rename(place.folder / "base" / file)
    (place.folder / "base" / "model.safetensors").symlink_to(place.outside / "model" / "model.safetensors")


def shards(place: Place) -> None:
    names = json.dumps({"weight_map": {"lm_head.weight": str(place.outside / "model" / "model.safetensors")}})
    (place.folder / "model.safetensors.index.json").write_text(names)


def template(text: str) -> Callable[[Place], None]:
    """A folder whose chat template is this."""

    def build(place: Place) -> None:
        (place.folder / "chat_template.jinja").write_text(text)
        edit(place.folder / "tokenizer_config.json", chat_template=text)

    return build


FOLDERS = [
    Animal("auto_map", "run evil.py as the model", "trust_remote_code", auto_map),
    Animal("auto_map_known", "run evil.py next to a type that transformers has", "", auto_map_of_a_known_type),
    Animal("tokenizer_code", "run evil.py as the tokenizer", "cannot open the tokenizer.*custom code", tokenizer_code),
    Animal("custom_generate", "run code for decoding", "", custom_generate),
    Animal("trusting_config", "allow code by its own config.json", "", lambda p: config(p, trust_remote_code=True)),
    Animal("pickle", "run code when weights are read", "more than tensors.*safetensors", pickle_for_weights),
    Animal("pickle_beside", "have a pickle read next to good weights", "", pickle_next_to_weights),
    Animal(
        "pickle_adapter",
        "run code when an adapter is read",
        "cannot put the adapter.*never does.*safetensors",
        pickle_for_an_adapter,
    ),
    Animal(
        "header_length", "have 2^62 bytes of header read", "cannot open.*[Hh]eader", lambda p: tensors(p, {}, 2**62)
    ),
    Animal("header_text", "have a header read that is not JSON", "cannot open.*header", lambda p: tensors(p, b"[1, 2")),
    Animal("offsets", "read beyond the end of the file", "cannot open", lambda p: tensors(p, one(offsets=(0, 10**9)))),
    Animal(
        "overlap",
        "read outside by offsets that go backwards",
        "cannot open",
        lambda p: tensors(p, one(offsets=(8, 0)), data=bytes(8)),
    ),
    Animal(
        "shape",
        "have more memory taken than there are bytes",
        "cannot open",
        lambda p: tensors(p, one(shape=(2**40, 2**40)), data=bytes(8)),
    ),
    Animal(
        "vocabulary",
        "have memory taken for 10^12 tokens",
        "vocab_size.*1,000,000,000,000",
        lambda p: config(p, vocab_size=10**12),
    ),
    Animal(
        "layers",
        "have 10^9 layers made",
        "num_hidden_layers.*1,000,000,000",
        lambda p: config(p, num_hidden_layers=10**9),
    ),
    Animal("width", "have matrices of 10^9 columns made", "hidden_size", lambda p: config(p, hidden_size=10**9)),
    Animal("negative", "have a dimension below 0", "vocab_size.*-5", lambda p: config(p, vocab_size=-5)),
    Animal(
        "base_outside",
        "open a model outside of the folder",
        "local path.*trust_folder=True",
        lambda p: mitigated(p, source=str(p.outside / "model")),
    ),
    Animal(
        "base_upwards",
        "open a folder above by '..'",
        "local path.*trust_folder=True",
        lambda p: mitigated(p, source="../outside/model"),
    ),
    Animal(
        "base_folder_upwards",
        "have its own base above itself",
        "not the name of a folder inside",
        lambda p: mitigated(p, folder="../outside/model"),
    ),
    Animal(
        "base_url",
        "reach a server",
        "not a hub name.*trust_folder=True",
        lambda p: mitigated(p, source="https://evil.invalid/model"),
    ),
    Animal(
        "base_endpoint",
        "send questions to a server",
        "endpoint.*trust_folder=True",
        lambda p: mitigated(p, source="endpoint:https://evil.invalid/v1#m"),
    ),
    Animal(
        "endpoint_key",
        "send a secret of the environment",
        "environment variable 'HOME'.*trust_folder=True",
        lambda p: saved(p, kind="endpoint", source="endpoint:https://evil.invalid/v1#m", options={"key_env": "HOME"}),
    ),
    Animal(
        "base_code",
        "allow code of its own base",
        "running code.*trust_folder=True",
        lambda p: mitigated(p, source="nobody/model", options={"trust_remote_code": True}),
    ),
    Animal(
        "kind", "have a plugin open it that is not there", "kind 'evil' is unknown", lambda p: saved(p, kind="evil")
    ),
    Animal(
        "version",
        "be read by rules that are not known",
        "version 99.*update",
        lambda p: saved(p, version=99, kind="trained"),
    ),
    Animal(
        "reads_a_text",
        "read a text of this machine as training data",
        "local path '/etc/hostname'.*trust_folder",
        lambda p: mitigated(p, {"task_vector": {"text": "/etc/hostname"}}, source="demo"),
    ),
    Animal(
        "device_map",
        "write weights to the disk",
        "to the disk.*device_map.*trust_folder=True",
        lambda p: mitigated(p, source="demo", options={"device_map": {"": "disk"}}),
    ),
    Animal(
        "offload_folder",
        "write elsewhere",
        "local path.*offload_folder",
        lambda p: mitigated(p, source="demo", options={"offload_folder": str(p.outside / "new")}),
    ),
    Animal("link", "have its base reached by a link", "the link base.*trust_folder=True", link),
    Animal(
        "linked_weights",
        "have weights read by a link",
        "the link base/model.safetensors.*trust_folder=True",
        linked_weights,
    ),
    Animal("shards", "have weights read elsewhere by an index", "outside the folder", shards),
    Animal(
        "adapter_base",
        "open the base of an adapter by URL",
        "cannot open the model",
        lambda p: adapter(p, base_model_name_or_path="https://evil.invalid/model"),
    ),
    Animal(
        "adapter_endpoint",
        "send questions to a server by an adapter",
        "cannot open the model",
        lambda p: adapter(p, base_model_name_or_path="endpoint:https://evil.invalid/v1#m"),
    ),
    Animal(
        "adapter_code",
        "allow code of its base",
        "cannot open the model",
        lambda p: adapter(p, base_model_name_or_path="nobody/model(trust_remote_code=True)"),
    ),
    Animal(
        "adapter_import",
        "have a module imported by name",
        "megatron_config",
        lambda p: adapter(p, megatron_config={"x": 1}, megatron_core="evil"),
    ),
    Animal(
        "adapter_code_map",
        "have peft import a class by name",
        "does not fit its base",
        lambda p: adapter(
            p, peft_type="LORA", task_type=None, auto_mapping={"base_model_class": "Evil", "parent_library": "evil"}
        ),
    ),
    Animal(
        "template_attributes",
        "read attributes of Python objects",
        "chat template",
        template("{{ messages.__class__.__mro__[1].__subclasses__() }}"),
    ),
    Animal(
        "template_files",
        "read a file",
        "chat template",
        template("{% include '/etc/hostname' %}{{ messages[0].content }}"),
    ),
    Animal(
        "template_endless",
        "loop without end",
        "chat template.*(second|long)",
        template(
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{ messages[0].content }}"
        ),
    ),
    Animal(
        "template_huge",
        "take all memory",
        "chat template.*(memory|long)",
        template("{{ 'x' * 10**11 }}{{ messages[0].content }}"),
    ),
    Animal(
        "template_doubling",
        "take all memory by doubling",
        "chat template.*(memory|long)",
        template(
            "{% set n = namespace(s='xx') %}{% for a in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}"
            "{{ messages[0].content }}"
        ),
    ),
    Animal(
        "template_power",
        "compute without end",
        "chat template.*(second|long)",
        template("{{ (9 ** (9 ** 9)) % 2 }}{{ messages[0].content }}"),
    ),
]
