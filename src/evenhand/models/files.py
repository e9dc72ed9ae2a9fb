"""Files that a model folder must contain; checked before anything is opened."""

from __future__ import annotations

from pathlib import Path

from evenhand.errors import EvenhandError, SettingsError, first_lines

SAVED = "evenhand.json"
"""Name of the file that marks a folder saved by evenhand."""
LEARNED = "learned"
"""Name of the subfolder with what a method has learned."""
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
    """Refuse a folder that is not of a kind that can be loaded."""
    names = ("config.json", "adapter_config.json", SAVED)
    if not any((folder / name).is_file() for name in names):
        if named := sorted(file.parent.name for file in folder.glob("*/adapter_config.json")):
            raise SettingsError(
                f"{folder} has no adapter itself, but named ones in subfolders ({', '.join(named)}), as peft "
                f"saves them; give one of them, such as {folder / named[0]}"
            )
        raise SettingsError(f"{folder} is not a model folder: it contains none of {', '.join(names)}")


def has_tokenizer(folder: Path) -> bool:
    """Return whether a folder contains a tokenizer's files."""
    return any((folder / name).is_file() for name in TOKENIZERS) or bool(list(folder.glob("*.tiktoken")))


def require_tokenizer(folder: Path) -> None:
    """Refuse a model folder without a tokenizer."""
    if not has_tokenizer(folder):
        raise EvenhandError(
            f"the model folder {folder} has no tokenizer (tokenizer.json, tokenizer.model, vocab.json or vocab.txt); "
            "save it there with tokenizer.save_pretrained(folder)"
        )


def unreadable(error: Exception, folder: Path) -> str:
    """Explain why weights cannot be opened; torch's own advice for .bin files with more than tensors is to run them."""
    if "weights_only" not in str(error) and "Weights only" not in str(error):
        return first_lines(error)
    files = ", ".join(sorted(f.name for f in folder.glob("*.bin"))) or "a .bin file"
    return (
        f"{files} has more than tensors in it, or is broken; reading it could run code, which evenhand never does. Use "
        "a copy in safetensors, or convert the model to safetensors if you trust the file"
    )
