"""Open models with transformers and peft; only this module knows their loading arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from evenhand.errors import EvenhandError, SettingsError, first_lines
from evenhand.models import architecture, demo_names, sentencepiece, sizes, template_guard
from evenhand.models.adapters import check_saved_alone, copied, name_base, open_adapter, redone_at_opening
from evenhand.models.architecture import Kind
from evenhand.models.files import has_tokenizer, require_tokenizer, unreadable
from evenhand.models.json_files import read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OPENERS: dict[Kind, str] = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}
"""Class of transformers that opens each kind of model."""
QUANTISED = {
    "gptq": "GPTQ",
    "awq": "AWQ",
    "exl2": "ExLlamaV2 (EXL2)",
    "exl3": "ExLlamaV3 (EXL3)",
    "fp8": "FP8",
    "fbgemm-fp8": "FP8 (FBGEMM)",
    "compressed-tensors": "compressed-tensors",
    "modelopt": "ModelOpt",
    "mlx": "MLX",
}
"""Libraries and formats of quantised weights that evenhand does not open, by `quant_method` in config.json."""
_SCALE = re.compile(r"(?:\.|_)(?:weight_scale\w*|scales|qzeros|absmax|SCB)$")
"""Tensors without which quantised weights cannot be read; scales of activations and caches are not included."""
_PLAIN = (
    "Use the checkpoint that it was made from (load_in_4bit=True quantises it when opening), or a server that runs it, "
    "as endpoint:URL#model"
)
DTYPES = ("auto", "float32", "bfloat16", "float16")
_ADAPTER = (
    "{!r} is itself an adapter and not a model: download it and give its folder, and its base is opened, too; as the "
    "base of another adapter, merge it first (evenhand.models.adapters.merged) and save that"
)


def open_model(
    source: str,
    adapter: Path | None,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    load_in_4bit: bool = False,
    load_in_8bit: bool = False,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    kind: Kind = "causal",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open tokenizer and language model, by default a causal one; the tokenizer comes first because it fails fast.

    Raises:
        EvenhandError: The files cannot be obtained or read; the message says which and why.
    """
    import transformers

    opener: Any = getattr(transformers, OPENERS[kind])
    config_of(source, revision=revision, trust_remote_code=trust_remote_code)
    if adapter is not None:
        _refuse_imports(adapter)
    tokenizer = open_tokenizer(
        str(adapter) if adapter and has_tokenizer(adapter) else source, revision, trust_remote_code
    )
    place = _placement(device, device_map, load_in_4bit or load_in_8bit)
    arguments: dict[str, Any] = {
        "revision": revision,
        "dtype": _dtype(dtype, place),
        "attn_implementation": attn_implementation,
        "trust_remote_code": trust_remote_code,
        "device_map": place if not isinstance(place, str) or device_map or load_in_4bit or load_in_8bit else None,
        "quantization_config": _quantisation(load_in_4bit, load_in_8bit),
    }
    try:
        with _no_bars():
            opened: Any = opener.from_pretrained(
                source, output_loading_info=True, **{k: v for k, v in arguments.items() if v is not None}
            )
    except Exception as error:  # safetensors and the architectures raise errors of many kinds
        raise EvenhandError(f"cannot open the model {source!r}: {unreadable(error, Path(source))}") from error
    module, report = opened
    if getattr(module, "_hf_peft_config_loaded", False):  # transformers opens it unchecked, and it could not be merged
        raise EvenhandError(_ADAPTER.format(source))
    if report["missing_keys"]:  # transformers has filled them with random numbers
        missing = sorted(report["missing_keys"])
        what = "an encoder-decoder" if kind == "seq2seq" else f"a {kind} language model"
        raise EvenhandError(
            f"the model {source!r} lacks {len(missing)} weights of {what}: "
            f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}"
        )
    _refuse_unread_scales(report["unexpected_keys"], source)
    _refuse_integers(module, source, revision)
    if adapter is not None:
        module = open_adapter(module, adapter)
        name_base(module, source, adapter)
    if arguments["device_map"] is None:
        module = _moved(module, place)
    return module.eval(), tokenizer


def open_weights(source: str) -> PreTrainedModel:
    """Open a causal language model without its tokenizer, in float32 on the CPU, for comparing weights.

    Raises:
        EvenhandError: The files cannot be read; or tensors are missing, or have no place in the model and would be
            left out of the comparison.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config_of(source)
    try:
        with _no_bars():
            opened: Any = AutoModelForCausalLM.from_pretrained(
                source, output_loading_info=True, dtype=torch.float32, trust_remote_code=False
            )
    except Exception as error:  # as in `open_model`
        raise EvenhandError(f"cannot open the model {source!r}: {first_lines(error)}") from error
    module, report = opened
    for key, what in (("missing_keys", "lacks the weights"), ("unexpected_keys", "has weights without a place in it:")):
        if report[key]:
            names = sorted(report[key])
            raise EvenhandError(f"the model {source!r} {what} {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}")
    _refuse_integers(module, source, None)
    result: PreTrainedModel = module.eval()
    return result


def kind_of(source: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Kind:
    """Return which kind of language model a folder or hub name is; only its configuration is read.

    Raises:
        SettingsError: It is not a known kind, or its configuration refers to code that was not allowed.
        EvenhandError: The configuration cannot be obtained or read.
    """
    return architecture.kind_of(config_of(source, revision=revision, trust_remote_code=trust_remote_code), source)


def config_of(source: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Return a model's configuration, and check that nothing in its folder leads to code or to files elsewhere.

    Everything that opens a module from a folder or by name calls this first.

    Raises:
        SettingsError: The configuration refers to code that was not allowed.
        EvenhandError: It cannot be obtained or read, or the index of the weights lists files outside the folder.
    """
    from transformers import AutoConfig

    if Path(source).is_dir():
        _refuse_shards_elsewhere(Path(source))
        if (Path(source) / "adapter_config.json").is_file():  # transformers would open the base that it refers to
            raise EvenhandError(_ADAPTER.format(source))
        sizes.refuse_impossible(Path(source))
    try:
        arguments: dict[str, Any] = {"revision": revision} if revision else {}
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code, **arguments)
    except Exception as error:  # errors of as many kinds as for weights
        raise EvenhandError(f"cannot open the model {source!r}: {first_lines(error)}") from error
    if not trust_remote_code:
        _refuse_kernels(config, source)
    _refuse_quantised(config, source)
    return config


def _refuse_quantised(config: Any, source: str) -> None:
    """Refuse weights quantised by a library that evenhand neither depends on nor tests."""
    stored = config.to_dict()
    named = {**_section(stored, "compression_config"), **_section(stored, "quantization_config")}.get("quant_method")
    if named is None and {"group_size", "bits"} <= _section(stored, "quantization").keys():  # only MLX writes this
        named = "mlx"
    name = str(named).lower().replace("_", "-")
    if name in QUANTISED:
        raise SettingsError(
            f"{source}: its weights are quantised by {QUANTISED[name]}, which evenhand does not open. {_PLAIN}"
        )


def _refuse_unread_scales(unread: Iterable[str], source: str) -> None:
    """Refuse quantised weights that transformers does not know: it warns, and opens them without their scales.

    Raises:
        SettingsError: Scales were left unread; the message names one.
    """
    if scale := next((name for name in sorted(unread) if _SCALE.search(name)), ""):
        raise SettingsError(
            f"{source}: its weights are quantised in a way that transformers does not read: {scale} was left out, "
            f"without which the weights are wrong. {_PLAIN}"
        )


def _refuse_integers(module: PreTrainedModel, source: str, revision: str | None) -> None:
    """Refuse weights stored as integers: without a known quantisation, transformers takes the integers as values.

    Raises:
        SettingsError: A weight is an integer in its file but not in the model; the message names it.
    """
    from safetensors import safe_open

    floating = {name for name, p in module.named_parameters() if p.is_floating_point()}
    folder = Path(source) if Path(source).is_dir() else None
    for file in [f for place in content_folders(source, folder, None, revision) for f in place.glob("*.safetensors")]:
        with safe_open(file, "pt") as stored:
            names = sorted(floating.intersection(stored.keys()))
            found = next((name for name in names if stored.get_slice(name).get_dtype()[0] in "IU"), None)
        if found is not None:
            raise SettingsError(
                f"{source}: its weights are quantised in a way that transformers does not read: {found} is stored as "
                f"integers in {file.name}, without a scale in use. {_PLAIN}"
            )


def _section(stored: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a section of a configuration; {} if it is missing."""
    part = stored.get(key)
    return part if isinstance(part, dict) else {}


def _refuse_kernels(config: Any, source: str) -> None:
    """Refuse attention code on the hub, which transformers would fetch and run (5.23, `hub_kernels`)."""
    parts = [config]
    for part in parts:  # the list grows: a part may have parts
        inner = [one for one in vars(part).values() if hasattr(one, "_attn_implementation")]
        parts += [one for one in inner if all(one is not known for known in parts)]  # equal ones may differ in this
    keys = ("_attn_implementation", "_experts_implementation")
    for value in (getattr(part, key, None) for part in parts for key in keys):
        for named in value.values() if isinstance(value, dict) else [value]:
            if not isinstance(named, str) or not ("/" in named or ":" in named):
                continue
            raise SettingsError(
                f"{source}: its config.json loads the attention from the hub ({named!r}), which is code. Remove "
                "attn_implementation from it, or allow the code with trust_remote_code=True"
            )


def _refuse_shards_elsewhere(folder: Path) -> None:
    """Refuse shards outside the folder; transformers 5.23 joins the names in an index to the folder unchecked."""
    for file in sorted(folder.rglob("*.index.json")):
        shards = read_json(file).get("weight_map")
        for name in dict.fromkeys(map(str, shards.values() if isinstance(shards, dict) else ())):
            if PureWindowsPath(name).anchor or Path(name).is_absolute() or ".." in PureWindowsPath(name).parts:
                raise EvenhandError(
                    f"{file} has weights in {name!r}, outside the folder, which must contain all weights: "
                    "move the file into it and correct its name in the index"
                )


def _refuse_imports(adapter: Path) -> None:
    """Refuse an adapter whose configuration makes peft import a module by name (0.21, `lora/tp_layer.py`)."""
    file = adapter / "adapter_config.json"
    if file.is_file() and (read_json(file).get("megatron_config") is not None):
        raise SettingsError(
            f"{file} has a megatron_config, for which peft imports a module that the file names; evenhand does not "
            "open Megatron adapters: remove it if the adapter's layers are plain ones"
        )


def save_module(module: PreTrainedModel, folder: Path) -> None:
    """Write a module so that its folder can be loaded.

    The base is saved with an adapter if it has no name, or is not what its name refers to: PEFT's initialisations by
    decomposition (PiSSA, OLoRA) change the base, and would change the saved one again when it is opened.

    Raises:
        SettingsError: The adapter's folder would be opened as a model that computes something else.
    """
    check_saved_alone(module)
    with _no_bars():
        module.save_pretrained(folder)
        adapter = folder / "adapter_config.json"
        if not hasattr(module, "peft_config") or not adapter.is_file():
            return
        config = json.loads(adapter.read_text())
        if isinstance(config.get("target_modules"), list):  # a set in PEFT, whose order differs per process
            config["target_modules"] = sorted(config["target_modules"])
        if shipped := demo_names.name_of(config.get("base_model_name_or_path") or ""):
            config["base_model_name_or_path"] = shipped
        start = config.get("init_lora_weights", True)
        if not config.get("base_model_name_or_path") or redone_at_opening(start) == "otherwise":
            if not hasattr(module.base_model, "unload"):
                raise SettingsError(
                    f"an adapter of the kind {config.get('peft_type')} cannot be removed from its base, which has no "
                    "folder or hub name to save: load the base from a folder first"
                )
            base: Any = copied(module)  # taking the adapter off would change the module
            base.unload().save_pretrained(folder / "base")
            plain = {"init_lora_weights": True} if redone_at_opening(start) else {}
            config |= {**plain, "base_model_name_or_path": "base"}
        adapter.write_text(json.dumps(config, indent=2))


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer without the fields in which transformers records where it was opened from.

    A tokenizer that was opened from a folder is thus written unchanged, and keeps its fingerprint.
    """
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    kept = {key: value for key, value in config.items() if key not in ("is_local", "local_files_only")}
    if kept != config:
        file.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def content_folders(source: str, folder: Path | None, adapter: Path | None, revision: str | None) -> list[Path]:
    """Return the folders whose files make up the model: for hub names, the snapshot in the local hub cache."""
    base = folder
    if base is None:
        from transformers.utils.hub import cached_file

        found = cached_file(source, "config.json", revision=revision, local_files_only=True)
        base = Path(found).parent if found else None
    return [p for p in (base, adapter) if p is not None] if base is not None else []


def open_tokenizer(
    source: str, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Open a tokenizer from a folder or by its hub name.

    Raises:
        EvenhandError: It cannot be obtained or read.
    """
    from transformers import AutoTokenizer

    pieces: Path | None = None
    tokenizer: PreTrainedTokenizerBase
    if Path(source).is_dir():
        require_tokenizer(Path(source))
        pieces = sentencepiece.file_of(Path(source))
    arguments: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        if pieces is not None:
            tokenizer = sentencepiece.open_file(pieces, trust_remote_code=trust_remote_code)
        else:
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code, **arguments)
    except EvenhandError:
        raise
    except Exception as error:  # transformers raises nearly anything for a missing tokenizer
        raise EvenhandError(f"cannot open the tokenizer of {source!r}: {first_lines(error)}") from error
    template_guard.check(tokenizer, source)
    return tokenizer


def require_device(device: str) -> torch.device:
    """Return a device by its name.

    Raises:
        SettingsError: There is no device of that name, or torch sees no such GPU on this machine.
    """
    import torch

    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise SettingsError(f"device {device!r} is not known: use 'cpu', 'cuda', 'cuda:1' or 'mps'") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"device {device!r}: torch {torch.__version__} sees no GPU here; use device='cpu'")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device {device!r}: torch sees {torch.cuda.device_count()} GPUs here, counted from 0")
    return found


def _placement(device: str | None, device_map: str | dict[str, Any] | None, quantised: bool) -> Any:
    import torch

    if device is not None and device_map is not None:
        raise SettingsError(f"give device={device!r} or device_map={device_map!r}, not both")
    if device_map is not None:
        return device_map
    if device is not None:
        require_device(device)
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return {"": device or best} if quantised else device or best


def _dtype(dtype: str | None, place: Any) -> Any:
    import torch

    if dtype is None:
        # half precision is slow on most CPUs and float32 is exact, so a CPU gets float32
        return torch.float32 if place == "cpu" else "auto"
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise SettingsError(f"dtype {dtype!r} is not known; use one of {', '.join(DTYPES)}")
    return "auto" if name == "auto" else getattr(torch, name)


def _quantisation(four: bool, eight: bool) -> Any:
    if not (four or eight):
        return None
    if four and eight:
        raise SettingsError("load_in_4bit and load_in_8bit exclude each other: choose one")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise SettingsError("quantised loading needs bitsandbytes: pip install 'evenhand[quant]'") from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=four, load_in_8bit=eight)


def _moved(module: Any, place: str) -> Any:
    import torch

    try:
        return module.to(place)
    except torch.OutOfMemoryError as error:
        raise EvenhandError(
            f"the memory of {place!r} cannot hold the model: use a smaller dtype, load_in_4bit or device_map='auto'"
        ) from error
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingsError(f"device {place!r} cannot be used here: {first_lines(error)}") from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """Turn off transformers' loading bars, which would hide evenhand's progress."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def check_embeddings(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Refuse a tokenizer with token ids for which the model has no embedding.

    Special tokens that no prompt needs may lack one (in Gemma 3's text models, the image token): a text with such
    a token is refused when it is asked.

    Raises:
        SettingsError: An embedding is missing; the message has the numbers, the first tokens and the remedy.
    """
    embedding: Any = module.get_input_embeddings()
    rows = int(embedding.weight.shape[0])
    beyond = {i: t for t, i in tokenizer.get_vocab().items() if i >= rows}
    added = getattr(tokenizer, "added_tokens_decoder", {})
    template = str(getattr(tokenizer, "chat_template", None) or "")
    needed = [
        token
        for i, token in sorted(beyond.items())
        if i not in added or not added[i].special or token in template or i in _prompting(tokenizer)
    ]
    if needed:
        raise SettingsError(
            f"{name}: the tokenizer has ids up to {max(beyond)}, the model embeddings for 0 to {rows - 1}; without an "
            f"embedding are {', '.join(map(repr, needed[:3]))}{' ...' if len(needed) > 3 else ''}. Use the tokenizer "
            "that the model was trained with, or call resize_token_embeddings(len(tokenizer)) and train the new ones"
        )


def _prompting(tokenizer: PreTrainedTokenizerBase) -> set[int | None]:
    """Return the special tokens that may occur in any prompt or batch."""
    names = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
    return {getattr(tokenizer, f"{name}_token_id", None) for name in names}
