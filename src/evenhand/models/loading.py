"""`load`: open a hub name, a folder, an adapter, a saved mitigation or an endpoint as a `Model`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from evenhand.core import registry, specs
from evenhand.core.artifacts import nothing_made
from evenhand.errors import EvenhandError, SettingsError, suggest
from evenhand.interfaces import Model
from evenhand.models import demo_names, saved
from evenhand.models.asking import check_asking, sampling_from
from evenhand.models.files import LEARNED, SAVED, require_model, require_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from evenhand.models.architecture import Kind

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
MASKED_ASKING = ("name", "batch_tokens", "too_long")
"""Options in `ASKING` that a masked language model has."""


def load(spec: str | Path | Model, **options: Any) -> Model:
    """Load a model.

    A folder saved by evenhand opens nothing outside itself except models by hub name and evenhand's demo models. One
    that refers to more, such as a base in another folder, an endpoint, an environment variable or code, is refused with
    a list of these. Give `trust_folder=True` to allow all of them, or `base=` to say where the base is. An
    adapter's own folder may name its base by any path, as peft writes it; weights and tokenizer are read from there.
    Opening never trains: a saved method that learns is refused if what it learned was not saved with it.

    Args:
        spec: A hub name ("Qwen/Qwen2.5-0.5B-Instruct"), a model folder, a folder with a PEFT adapter (its base is
            loaded too), a folder saved by evenhand, "endpoint:URL#model", "vllm:URL#model", "demo", the name of a
            plugin's loader, or a `Model`, which is returned as it is. Options may be appended:
            "path(dtype=bfloat16,answer_by=text)".
        **options: For local models `revision`, `dtype` ("auto", "float32", "bfloat16", "float16"; default: float32 on a
            CPU, the checkpoint's own elsewhere), `device` (default: the GPU if there is one), `device_map`,
            `load_in_4bit`, `load_in_8bit`, `attn_implementation`, `trust_remote_code` (default: off); and for asking
            `answer_by` ("letters", "text", "text_per_token", "text_with_end", "generation"), `sampling`,
            `batch_tokens`, `too_long`, `thinking_tokens`, `name`; for saved folders `trust_folder` (default: off) and
            `base`, which takes what `load` takes, except objects. Endpoints and plugins have their own.

    Raises:
        SettingsError: The specification or an option cannot be used, or a saved folder refers to things outside.
        EvenhandError: The files are missing or broken.
    """
    if isinstance(spec, Model):
        return spec
    found = resolve(spec, options)
    if found.kind == "scheme":
        loader: Callable[..., Model] = registry.models.get(found.name)
        return loader(found.rest, **found.options)
    if found.kind == "hub":
        return _load_plain(found.name, None, found.options)
    folder = Path(found.name)
    saved.check(folder, trusted=found.trusted, base=found.base is not None)
    return _load_folder(folder, found.options, found)


def check(spec: str | Path | Model, **options: Any) -> None:
    """Refuse what `load` would refuse, without opening weights: a missing folder or tokenizer, a wrong option.

    Raises:
        SettingsError: The specification or an option cannot be used.
        EvenhandError: Files are missing.
    """
    if isinstance(spec, Model):
        return
    found = resolve(spec, options)
    if found.kind == "scheme":
        registry.models.get(found.name)
        return
    marked = found.kind == "folder" and not saved.holds_weights(Path(found.name))
    if not marked:
        refuse_unknown(found.options, (*ASKING, *LOADING))
        asking_options(found.options)
    if found.kind == "folder":
        folder = Path(found.name)
        require_model(folder)
        saved.check(folder, trusted=found.trusted, base=found.base is not None)
        if not marked and not (folder / "adapter_config.json").is_file():
            require_tokenizer(folder)


class Found(NamedTuple):
    """What a specification refers to."""

    kind: Literal["scheme", "hub", "folder"]
    name: str
    rest: str
    options: dict[str, Any]
    trusted: bool = False
    """Whether the caller allows what a saved folder refers to outside itself."""
    base: str | None = None
    """Base of a saved folder or adapter as given by the caller; None if not given."""


def resolve(spec: str | Path, options: dict[str, Any]) -> Found:
    """Determine what a specification refers to, with the options for its loader.

    Args:
        spec: What `load` takes, except objects.
        options: Options of `load`.

    Raises:
        SettingsError: The specification or an option cannot be used.
    """
    found = _kind_of(spec, options)
    own = dict(found.options)
    trusted = own.pop("trust_folder", False)
    if not isinstance(trusted, bool):
        raise SettingsError(f"trust_folder={trusted!r}: give True or False")
    if found.kind == "scheme":  # such a loader may have an option `base` of its own
        return found._replace(options=own, trusted=trusted)
    base = own.pop("base", None)
    if not isinstance(base, str | Path | None):
        raise SettingsError(f"base={base!r}: give the base's folder or name")
    if base is not None and found.kind == "hub":
        raise SettingsError(f"base={str(base)!r}: {found.name} is neither a saved folder nor an adapter; leave it out")
    return found._replace(options=own, trusted=trusted, base=None if base is None else str(base))


def _kind_of(spec: str | Path, options: dict[str, Any]) -> Found:
    text = str(spec)
    if text.endswith(")") and not _exists(text):
        part = specs.parse(text)
        return _kind_of(part.name, {**part.settings, **options})
    scheme, _, rest = text.partition(":")
    if scheme in registry.models.names():
        return Found("scheme", scheme, rest, options)
    try:
        folder = Path(text).expanduser()
        is_folder, is_there = folder.is_dir(), folder.exists()
    except (OSError, ValueError, RuntimeError) as error:  # path too long; ~ of an unknown user
        raise SettingsError(f"{text[:200]!r} is neither a folder nor a hub name: {str(error)[:200]}") from error
    if is_folder:
        return Found("folder", str(folder.resolve()), "", options)
    if is_there or text.startswith((".", "/", "~")) or text.count("/") > 1 or not text:
        raise SettingsError(f"no model folder {text!r}; give a folder with config.json, a hub name, or {_schemes()}")
    return Found("hub", text, "", options)


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # path too long
        return False


def wrap(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str = "model", **options: Any) -> Model:
    """Make a `Model` of a causal language model or an encoder-decoder that is already in memory.

    Its weights are hashed once, and again after `with model.editing() as weights:` and whenever a check at each call
    finds a change, such as an optimizer step. Writes to a few elements through `.data` may escape that check; they
    are found when `evenhand.compare` hashes all weights at the end of each cell, or immediately by `model.rehash()`.

    Args:
        module: A transformers causal language model, a PEFT model around one, or an encoder-decoder such as T5.
        tokenizer: Its tokenizer.
        name: Label for tables.
        **options: `answer_by`, `sampling`, `batch_tokens`, `too_long`, as for `load`.
    """
    from evenhand.models.local import LocalModel
    from evenhand.models.seq2seq import Seq2SeqModel

    refuse_unknown(options, ASKING)
    form = Seq2SeqModel if module.config.is_encoder_decoder else LocalModel
    return form(module, tokenizer, name=name, **asking_options(options))


def _schemes() -> str:
    rest = ("endpoint", "judge", "oracle", "vllm")
    return ", ".join(f"{n}:..." if n in rest else n for n in registry.models.names())


def _load_folder(folder: Path, options: dict[str, Any], found: Found) -> Model:
    """Open a folder; all parts of a saved one must have passed `saved.check`."""
    if not saved.holds_weights(folder):
        return _load_saved(folder, options, found)
    training = saved.training_of(folder)
    model = _load_weights(folder, options, found)
    model.training = training
    return model


def _load_weights(folder: Path, options: dict[str, Any], found: Found) -> Model:
    if (folder / "adapter_config.json").is_file():
        return _load_adapter(folder, options, found.base)
    require_model(folder)
    if found.base is not None:
        raise SettingsError(f"base={found.base!r}: {folder} contains all its weights; leave base out")
    return _load_plain(str(folder), folder, options)


def _load_saved(folder: Path, options: dict[str, Any], found: Found) -> Model:
    content = saved.read(folder)
    if content["kind"] == "learned":
        raise SettingsError(f"{folder} contains what a method learned, not a model; load the folder above it")
    if content["kind"] in registry.saved_models:
        loader: Callable[..., Model] = registry.saved_models.get(content["kind"])
        return loader(folder, options, base=found.base)
    if content["kind"] == "endpoint":
        return _load_base(folder, content, options, found)
    base = content["base"]
    model = _load_base(folder, base, options, found)
    if "folder" not in base:
        _refuse_other_base(folder, base, model, options, found)
    built = registry.build_method(content["method"])
    learned = folder / LEARNED
    if learned.is_dir():
        return built.restore(model, learned)
    with nothing_made(f"{folder} has no {LEARNED}/, and what {built.name} learned is never recreated when opening"):
        return built.apply(model)


def _load_base(folder: Path, base: dict[str, Any], options: dict[str, Any], found: Found) -> Model:
    """Open the base of a saved folder: the caller's, the one inside, or the one it names, with the saved options."""
    given = {**base.get("options", {}), **options}
    if "folder" not in base:
        return load(found.base or base["source"], **given, trust_folder=found.trusted)
    inner = saved.inside(folder, base["folder"])  # never read as a specification: its name may look like one
    if not inner.is_dir():
        raise SettingsError(f"the base {str(inner)!r} that {folder / SAVED} refers to is missing; save the model again")
    if saved.adds_a_name(inner):  # the base's own file gives its name and place
        if "name" not in options:  # earlier versions wrote the name of the whole model
            given.pop("name", None)
        return _load_folder(inner, given, found)
    model = _load_folder(inner, given, found)
    model.inside_saved = True
    return model


def _refuse_other_base(folder: Path, base: dict[str, Any], model: Model, options: dict[str, Any], found: Found) -> None:
    source = found.base or base["source"]
    own = source.partition(":")[0] in registry.models.names()  # such a loader's options may affect the weights
    same = not options if own else not set(options) & set(LOADING)
    if same and model.fingerprint != base["fingerprint"]:
        raise EvenhandError(
            f"the base model {source} is no longer what {folder} was made from (fingerprint {model.fingerprint}, "
            f"expected {base['fingerprint']}); restore it, or apply the method to it again"
        )


def _load_adapter(folder: Path, options: dict[str, Any], base: str | None) -> Model:
    from evenhand.models import hugging_face

    source = demo_names.located(base) if base else saved.base_of_adapter(folder)
    inner = Path(source).expanduser().resolve() if Path(source).expanduser().is_dir() else None
    source = source if inner is None else str(inner)
    refuse_unknown(options, (*ASKING, *LOADING))
    kind = hugging_face.kind_of(source, **_config_options(options))
    if kind != "causal":
        what = "a masked language model" if kind == "masked" else "an encoder-decoder"
        raise SettingsError(
            f"the base {source} of the adapter {folder} is {what}, and evenhand opens adapters only on "
            "causal models; merge the adapter into its base (evenhand.models.adapters.merged) and save that"
        )
    return _load_local(source, inner, options, adapter=folder)


def _load_plain(source: str, folder: Path | None, options: dict[str, Any]) -> Model:
    """Open weights from a folder or by hub name, as the kind of model that their configuration states."""
    from evenhand.models import hugging_face

    refuse_unknown(options, (*ASKING, *LOADING))
    kind = hugging_face.kind_of(source, **_config_options(options))
    if kind == "masked":
        return _load_masked(source, folder, options)
    return _load_local(source, folder, options, kind=kind)


def _config_options(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("revision", "trust_remote_code") if options.get(key)}


def _load_local(
    source: str, folder: Path | None, options: dict[str, Any], adapter: Path | None = None, kind: Kind = "causal"
) -> Model:
    from evenhand.models import hugging_face
    from evenhand.models.local import LocalModel
    from evenhand.models.seq2seq import Seq2SeqModel

    loading = {k: options[k] for k in LOADING if k in options}
    asking = asking_options(options)
    module, tokenizer = hugging_face.open_model(source, adapter, kind=kind, **loading)
    asking.setdefault("name", Path(adapter or folder or source).name)
    form = Seq2SeqModel if kind == "seq2seq" else LocalModel
    return form(
        module,
        tokenizer,
        source=str(adapter or source),
        folders=hugging_face.content_folders(source, folder, adapter, loading.get("revision")),
        load_options={k: str(v) if k == "dtype" else v for k, v in loading.items()},
        **asking,
    )


def _load_masked(source: str, folder: Path | None, options: dict[str, Any]) -> Model:
    from evenhand.models import hugging_face
    from evenhand.models.masked import MaskedModel

    refuse_unknown(options, (*MASKED_ASKING, *LOADING), "a masked language model")
    loading = {k: options[k] for k in LOADING if k in options}
    asking = {"name": (folder or Path(source)).name, **asking_options(options)}
    module, tokenizer = hugging_face.open_model(source, None, kind="masked", **loading)
    files = hugging_face.content_folders(source, folder, None, loading.get("revision"))
    return MaskedModel(
        module,
        tokenizer,
        source=source,
        folders=files,
        load_options={k: str(v) if k == "dtype" else v for k, v in loading.items()},
        **asking,
    )


def asking_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `load` that concern asking, checked before any weights are opened.

    Args:
        options: Options of `load`; those that concern loading are left out.

    Returns:
        Keyword arguments for a model in this process; a `sampling` of plain values is converted to a `Sampling`.

    Raises:
        SettingsError: A value is invalid.
    """
    asking = {k: options[k] for k in ASKING if k in options}
    check_asking(asking)
    if isinstance(asking.get("sampling"), dict):
        asking["sampling"] = sampling_from(asking["sampling"])
    return asking


def refuse_unknown(options: Iterable[str], known: Sequence[str], what: str = "a local model") -> None:
    """Refuse options of `load` that a model does not have.

    Args:
        options: Names of the given options.
        known: Names of the options that the model has.
        what: What the options belong to, for the message.

    Raises:
        SettingsError: An option is unknown; the message suggests similar names.
    """
    for key in options:
        if key not in known:
            raise SettingsError(f"unknown option {key!r} for {what}. {suggest(key, known)}")
