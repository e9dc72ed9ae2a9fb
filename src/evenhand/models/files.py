"""What a model folder must hold; checked before anything is opened."""

from __future__ import annotations

from pathlib import Path

from evenhand.errors import EvenhandError, SettingsError, first_lines

SAVED = "evenhand.json"
"""The file that marks a folder saved by evenhand."""
LEARNED = "learned"
"""The folder in it with what a method had learned."""
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def require_model(folder: Path) -> None:
    """Refuse a folder that is none of the kinds that can be loaded."""
    names = ("config.json", "adapter_config.json", SAVED)
    if not any((folder / name).is_file() for name in names):
        if named := sorted(file.parent.name for file in folder.glob("*/adapter_config.json")):
            raise SettingsError(
                f"{folder} has no adapter of its own, but the named ones {', '.join(named)} in subfolders, as peft "
                f"saves them; give one of them, such as {folder / named[0]}"
            )
        raise SettingsError(f"{folder} is no model folder: it holds none of {', '.join(names)}")


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer's files are there."""
    return any((folder / name).is_file() for name in TOKENIZERS) or bool(list(folder.glob("*.tiktoken")))


def require_tokenizer(folder: Path) -> None:
    """Refuse a model folder without tokenizer."""
    if not has_tokenizer(folder):
        raise EvenhandError(
            f"the model folder {folder} holds no tokenizer (tokenizer.json, tokenizer.model, vocab.json or vocab.txt); "
            "save it there with tokenizer.save_pretrained(folder)"
        )


def unreadable(error: Exception, folder: Path) -> str:
    """Why weights cannot be opened; torch's own advice for a .bin file that is more than tensors is to run it."""
    if "weights_only" not in str(error) and "Weights only" not in str(error):
        return first_lines(error)
    files = ", ".join(sorted(f.name for f in folder.glob("*.bin"))) or "a .bin file"
    return (
        f"{files} holds more than tensors, or is broken; reading it could run code, and evenhand never does that. Take "
        "a copy in safetensors, or save the model as such where you trust the file"
    )
