"""`load`: a hub name, a folder, an adapter, a saved mitigation or an endpoint becomes a `Model`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from evenhand import registry, specs
from evenhand.errors import EvenhandError, SettingsError, suggest
from evenhand.interfaces import Model
from evenhand.models.asking import check_asking, sampling_from
from evenhand.models.files import LEARNED, SAVED, require_model, require_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ASKING = ("answer_by", "sampling", "batch_tokens", "too_long", "thinking_tokens", "name")
"""Options of `load` that concern asking, not loading."""
LOADING = (
    "revision",
    "dtype",
    "device",
    "device_map",
    "load_in_4bit",
    "load_in_8bit",
    "attn_implementation",
    "trust_remote_code",
)


def load(spec: str | Path | Model, **options: Any) -> Model:
    """Load a model.

    Args:
        spec: A hub name ("Qwen/Qwen2.5-0.5B-Instruct"), a model folder, a folder with a PEFT adapter (its base is
            loaded too), a folder saved by evenhand, "endpoint:URL#model", "vllm:URL#model", "demo", the name of a
            plugin's loader, or a `Model`, which is returned as it is. Options may be appended:
            "path(dtype=bfloat16,answer_by=text)".
        **options: For local models `revision`, `dtype` ("auto", "float32", "bfloat16", "float16"; default: float32 on a
            CPU, the checkpoint's own elsewhere), `device` (default: the GPU where there is one), `device_map`,
            `load_in_4bit`, `load_in_8bit`, `attn_implementation`, `trust_remote_code` (default: off); and for asking
            `answer_by` ("letters", "text", "text_per_token", "text_with_end", "generation"), `sampling`,
            `batch_tokens`, `too_long`, `thinking_tokens`, `name`. Endpoints and plugins have their own.

    Raises:
        SettingsError: The specification or an option cannot be used.
        EvenhandError: The files are missing or broken.
    """
    if isinstance(spec, Model):
        return spec
    found = _resolve(spec, options)
    if found.kind == "scheme":
        loader: Callable[..., Model] = registry.models.get(found.name)
        return loader(found.rest, **found.options)
    if found.kind == "hub":
        return _load_local(found.name, None, found.options)
    return _load_folder(Path(found.name), found.options)


def check(spec: str | Path | Model, **options: Any) -> None:
    """Refuse what `load` would refuse anyway, without opening any weights: a missing folder, tokenizer, wrong option.

    Raises:
        SettingsError: The specification or an option cannot be used.
        EvenhandError: Files are missing.
    """
    if isinstance(spec, Model):
        return
    found = _resolve(spec, options)
    if found.kind == "scheme":
        registry.models.get(found.name)
        return
    saved = found.kind == "folder" and (Path(found.name) / SAVED).is_file()
    if not saved:
        _refuse_unknown(found.options, (*ASKING, *LOADING))
        _asking(found.options)
    if found.kind == "folder":
        folder = Path(found.name)
        require_model(folder)
        if not saved and not (folder / "adapter_config.json").is_file():
            require_tokenizer(folder)


class _Found(NamedTuple):
    """What a specification stands for."""

    kind: Literal["scheme", "hub", "folder"]
    name: str
    rest: str
    options: dict[str, Any]


def _resolve(spec: str | Path, options: dict[str, Any]) -> _Found:
    text = str(spec)
    if text.endswith(")") and not Path(text).exists():
        part = specs.parse(text)
        return _resolve(part.name, {**part.settings, **options})
    scheme, _, rest = text.partition(":")
    if scheme in registry.models.names():
        return _Found("scheme", scheme, rest, options)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return _Found("folder", str(folder.resolve()), "", options)
    if folder.exists() or text.startswith((".", "/", "~")) or text.count("/") > 1 or not text:
        raise SettingsError(f"no model folder {text!r}; give a folder with config.json, a hub name, or {_schemes()}")
    return _Found("hub", text, "", options)


def wrap(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str = "model", **options: Any) -> Model:
    """Make a `Model` of a causal language model that is already in memory.

    Its weights are hashed each time it is asked, so that a training step in between is never missed.

    Args:
        module: A transformers causal language model or a PEFT model around one.
        tokenizer: Its tokenizer.
        name: Label for tables.
        **options: `answer_by`, `sampling`, `batch_tokens`, `too_long`, as for `load`.
    """
    from evenhand.models.local import LocalModel

    _refuse_unknown(options, ASKING)
    return LocalModel(module, tokenizer, name=name, **_asking(options))


def _schemes() -> str:
    rest = ("endpoint", "judge", "oracle", "vllm")
    return ", ".join(f"{n}:..." if n in rest else n for n in registry.models.names())


def _load_folder(folder: Path, options: dict[str, Any]) -> Model:
    if (folder / SAVED).is_file():
        return _load_saved(folder, options)
    if (folder / "adapter_config.json").is_file():
        return _load_adapter(folder, options)
    require_model(folder)
    if _is_masked(folder):
        return _load_masked(folder, options)
    return _load_local(str(folder), folder, options)


def _load_saved(folder: Path, options: dict[str, Any]) -> Model:
    content = _json(folder / SAVED)
    kind = content.get("kind")
    if kind == "student":
        from evenhand.models.student import load_student

        return load_student(folder, options)
    if kind not in ("endpoint", "mitigated"):
        raise SettingsError(f"{folder / SAVED}: kind {kind!r} is not known to this version of evenhand")
    try:
        base = content if kind == "endpoint" else content["base"]
        source = str(folder / base["folder"]) if "folder" in base else str(base["source"])
        given = {**base.get("options", {}), **options}
        expected, method = (None, None) if kind == "endpoint" else (base["fingerprint"], content["method"])
    except (KeyError, TypeError, AttributeError) as error:
        raise EvenhandError(f"{folder / SAVED} is not as evenhand writes it: {error!r}; save the model anew") from error
    model = load(source, **given)
    if method is None:
        return model
    own = source.partition(":")[0] in registry.models.names()  # the options of such a loader may concern anything
    same = not options if own else not set(options) & set(LOADING)
    if same and "folder" not in base and model.fingerprint != expected:
        raise EvenhandError(
            f"the base model {source} is no longer what {folder} was made from (fingerprint {model.fingerprint}, "
            f"expected {expected}); restore it, or apply the method to it anew"
        )
    built = registry.build_method(method)
    learned = folder / LEARNED
    return built.restore(model, learned) if learned.is_dir() else built.apply(model)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvenhandError(f"cannot read {file}: {error}") from error
    if not isinstance(content, dict):
        raise EvenhandError(f"cannot read {file}: it holds no JSON object")
    return content


def _load_adapter(folder: Path, options: dict[str, Any]) -> Model:
    base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not base:
        raise SettingsError(f"{folder}/adapter_config.json names no base model (base_model_name_or_path)")
    if not Path(base).is_absolute() and (folder / base).is_dir():
        base = str((folder / base).resolve())
    return _load_local(str(base), Path(base) if Path(base).is_dir() else None, options, adapter=folder)


def _load_local(source: str, folder: Path | None, options: dict[str, Any], adapter: Path | None = None) -> Model:
    from evenhand.models import hugging_face
    from evenhand.models.local import LocalModel

    _refuse_unknown(options, (*ASKING, *LOADING))
    loading = {k: options[k] for k in LOADING if k in options}
    asking = _asking(options)
    module, tokenizer = hugging_face.open_model(source, adapter, **loading)
    asking.setdefault("name", Path(adapter or folder or source).name)
    model = LocalModel(
        module,
        tokenizer,
        source=str(adapter or source),
        folders=hugging_face.content_folders(source, folder, adapter, loading.get("revision")),
        load_options={k: str(v) if k == "dtype" else v for k, v in loading.items()},
        **asking,
    )
    return model


def _is_masked(folder: Path) -> bool:
    """Whether a folder's configuration names a masked language model."""
    names = _json(folder / "config.json").get("architectures") or []
    return any(str(name).endswith("ForMaskedLM") for name in names)


def _load_masked(folder: Path, options: dict[str, Any]) -> Model:
    from evenhand.models import hugging_face
    from evenhand.models.masked import MaskedModel

    _refuse_unknown(options, ("name", "batch_tokens", "too_long", *LOADING))
    loading = {k: options[k] for k in LOADING if k in options}
    asking = {"name": folder.name, **_asking(options)}
    module, tokenizer = hugging_face.open_model(str(folder), None, masked=True, **loading)
    return MaskedModel(module, tokenizer, source=str(folder), folders=[folder], **asking)


def _asking(options: dict[str, Any]) -> dict[str, Any]:
    """The options that concern asking, refused before anything big is opened."""
    asking = {k: options[k] for k in ASKING if k in options}
    check_asking(asking)
    if isinstance(asking.get("sampling"), dict):
        asking["sampling"] = sampling_from(asking["sampling"])
    return asking


def _refuse_unknown(options: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in options:
        if key not in known:
            raise SettingsError(f"unknown option {key!r} for a local model. {suggest(key, known)}")
