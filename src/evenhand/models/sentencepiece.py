"""Open tokenizers that a folder has only as a SentencePiece model (`tokenizer.model`), as in older checkpoints.

transformers 5.23 makes a tokenizer of such a file that, without `tokenizer_config.json`, leaves out the blank before
the first word and the BOS token. It is therefore opened by the class made for SentencePiece's BPE models, BOS is added
as the model's configuration states, and the pieces are compared with SentencePiece's own before anything is asked.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.errors import EvenhandError, first_lines
from evenhand.models.json_files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Classes that transformers uses if a folder names no tokenizer class."""
TEXTS = ("The dog was there, and the cat was not in the garden?", "A B C D", "once upon a time")
"""Texts whose pieces are compared; their single blanks and ASCII letters are the same under every normaliser."""
_RANKS = re.compile(rb"[A-Za-z0-9+/=]+ \d+\r?\n")


def file_of(folder: Path) -> Path | None:
    """Return a folder's SentencePiece model if it has one and no `tokenizer.json`, else None."""
    if (folder / "tokenizer.json").is_file():
        return None
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        return None
    with file.open("rb") as handle:
        return None if _RANKS.match(handle.read(1000)) else file  # a file of tiktoken ranks has the same name


def open_file(file: Path, **arguments: Any) -> PreTrainedTokenizerBase:
    """Open the tokenizer of a folder that has it as a SentencePiece model.

    Args:
        file: The SentencePiece model; the folder's `tokenizer_config.json` and `config.json` are read, too.
        **arguments: Arguments of `AutoTokenizer.from_pretrained`.

    Raises:
        EvenhandError: A package is missing, the file is broken, or transformers makes different pieces than
            SentencePiece does.
    """
    own = _processor(file)
    from transformers import AutoTokenizer, LlamaTokenizer

    folder = file.parent
    stated = _json(folder / "tokenizer_config.json")
    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), **arguments)
    if type(tokenizer).__name__ in GENERIC and "tokenizer_class" not in stated:
        tokenizer = LlamaTokenizer.from_pretrained(str(folder))
    if "add_bos_token" not in stated and _lacks_bos(tokenizer, _json(folder / "config.json")):
        tokenizer = type(tokenizer).from_pretrained(str(folder), add_bos_token=True)
    _check_pieces(tokenizer, own, file)
    result: PreTrainedTokenizerBase = tokenizer
    return result


def _processor(file: Path) -> Any:
    """Open the file with SentencePiece itself."""
    try:
        importlib.import_module("google.protobuf")
        package: Any = importlib.import_module("sentencepiece")
    except ImportError as error:
        raise EvenhandError(
            f"{file.parent} has its tokenizer only as a SentencePiece model ({file.name}), without tokenizer.json; "
            "to open it: pip install 'evenhand[sentencepiece]'"
        ) from error
    try:
        return package.SentencePieceProcessor(str(file))
    except (OSError, RuntimeError) as error:
        raise EvenhandError(f"{file} is not a SentencePiece model: {first_lines(error)}") from error


def _lacks_bos(tokenizer: Any, config: dict[str, Any]) -> bool:
    """Whether the model's configuration has the tokenizer's BOS token, but the tokenizer does not add it."""
    bos = tokenizer.bos_token_id
    return bos is not None and config.get("bos_token_id") == bos and bos not in tokenizer("a").input_ids


def _check_pieces(tokenizer: Any, own: Any, file: Path) -> None:
    for text in TEXTS:
        wanted = [
            tokenizer.unk_token if own.piece_to_id(piece) == own.unk_id() else piece
            for piece in own.encode(text, out_type=str)
        ]
        made = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
        if _merged(made, tokenizer.unk_token) != _merged(wanted, tokenizer.unk_token):
            raise EvenhandError(
                f"{file}: from {text!r} transformers' {type(tokenizer).__name__} makes {' '.join(made[:4])} ..., "
                f"SentencePiece itself {' '.join(wanted[:4])} ... Set the tokenizer_class in tokenizer_config.json "
                "to the one the model was trained with, or save the tokenizer as tokenizer.json"
            )


def _merged(pieces: list[str], unknown: str) -> list[str]:
    """Merge each run of unknown pieces into one, since libraries split such runs differently."""
    return [piece for n, piece in enumerate(pieces) if piece != unknown or n == 0 or pieces[n - 1] != unknown]


def _json(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
