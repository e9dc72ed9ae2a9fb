"""Encoder students: an encoder with a small head, over lettered options or over (question, option) pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from evenhand.errors import EvenhandError
from evenhand.inference.padding import right_pad
from evenhand.interfaces import Question
from evenhand.methods.permutation._texts import Asked, lettered_text, pair_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FormName = Literal["encoder", "equivariant"]
MOST_OPTIONS = 10
"""Number of outputs of the head over lettered options; for a question with fewer options the others are not read."""
ALIKE = 0.99
"""Cosine above which an encoder cannot distinguish two embeddings."""


class Network(nn.Module):
    """An encoder, the mean of its last hidden states, and a head of two layers."""

    def __init__(self, encoder: Any, width: int, *, dropout: float = 0.1, seed: int = 0) -> None:
        """Put a head on an encoder.

        Args:
            encoder: A transformers model without head.
            width: Number of outputs.
            dropout: Dropout before the head; an encoder without dropout gets none.
            seed: Seed of the head's weights.
        """
        super().__init__()
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # untrained in many checkpoints, and not used here
        self.encoder, self.config = encoder, encoder.config
        size = int(encoder.config.hidden_size)
        dropout = min(dropout, float(getattr(encoder.config, "hidden_dropout_prob", dropout)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Sequential(
                nn.Dropout(dropout), nn.Linear(size, size), nn.GELU(), nn.Dropout(dropout), nn.Linear(size, width)
            )
            self.mark = nn.Parameter(torch.randn(size))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, marked: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """[rows, width] logits; `marked` [rows] is 1 for rows that the teacher chose, else 0."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask[..., None].to(states.dtype)
        mean = (states * weight).sum(1) / weight.sum(1)
        if marked is not None:
            mean = mean + marked[:, None].to(mean.dtype) * self.mark
        return SequenceClassifierOutput(logits=self.head(mean))

    def get_input_embeddings(self) -> nn.Module:
        """Return the input embeddings."""
        embeddings: nn.Module = self.encoder.get_input_embeddings()
        return embeddings


class Form(ABC):
    """How questions become rows of an encoder, and its outputs scores of options."""

    name: FormName
    width: int
    """Number of outputs per row."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Take the encoder's tokenizer, and the maximum number of tokens of a row."""
        self.tokenizer, self.max_length = tokenizer, max_length
        self.pad = int(tokenizer.pad_token_id or 0)

    @abstractmethod
    def texts(self, asked: Asked) -> list[str]:
        """Return the texts, one per row."""

    @abstractmethod
    def places(self, asked: Asked) -> list[int]:
        """Return where each option's score is, by identity, among the outputs of all the question's rows."""

    @abstractmethod
    def longest_texts(self, question: Question, marked: bool) -> list[str]:
        """Return texts as long as any that the question may become."""

    def fits(self, question: Question) -> str:
        """Return why the question cannot be read at all, or ""."""
        return ""

    def marks(self, asked: Asked) -> list[int]:
        """Return, per row, whether it is marked as the teacher's choice."""
        return [0] * len(self.texts(asked))

    def rows(self, asked: Sequence[Asked]) -> list[list[list[int]]]:
        """Return token ids of each question's rows."""
        texts = [self.texts(a) for a in asked]
        ids = iter(self.encoded([text for some in texts for text in some]))
        return [[next(ids) for _ in some] for some in texts]

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise with the tokenizer's own special tokens; nothing is cut."""
        if not texts:
            return []
        return [list(ids) for ids in self.tokenizer(list(texts), truncation=False, verbose=False).input_ids]

    def scores(self, module: Any, asked: Sequence[Asked]) -> Tensor:
        """Return [questions, most options] unnormalised scores by identity, -inf if a question has fewer options."""
        by_question = self.rows(asked)
        rows = [row for some in by_question for row in some]
        device = next(module.parameters()).device
        ids, mask = right_pad(rows, self.pad, device=device)
        marked = torch.tensor([mark for a in asked for mark in self.marks(a)], device=device)
        logits = module(input_ids=ids, attention_mask=mask, marked=marked).logits.float().flatten()
        wide = max(len(a.question.options) for a in asked)
        places = torch.zeros((len(asked), wide), dtype=torch.long)
        there = torch.zeros_like(places, dtype=torch.bool)
        start = 0
        for n, (a, some) in enumerate(zip(asked, by_question, strict=True)):
            own = self.places(a)
            places[n, : len(own)] = torch.tensor(own) + start
            there[n, : len(own)] = True
            start += len(some) * self.width
        scores: Tensor = logits[places.to(device)].masked_fill(~there.to(device), float("-inf"))
        return scores


class Lettered(Form):
    """One row with all options in the shown order, one output per position (Liusie et al. 2024)."""

    name = "encoder"
    width = MOST_OPTIONS

    def texts(self, asked: Asked) -> list[str]:
        """Return the lettered question."""
        return [lettered_text(asked)]

    def places(self, asked: Asked) -> list[int]:
        """Return the position of each option."""
        return [asked.question.position_of(option) for option in range(len(asked.question.options))]

    def longest_texts(self, question: Question, marked: bool) -> list[str]:
        """Return the texts with every letter marked."""
        return [lettered_text(Asked(question, o)) for o in (range(len(question.options)) if marked else [None])]

    def fits(self, question: Question) -> str:
        """Check that the head has enough outputs."""
        count = len(question.options)
        return f"{count} options; this student reads at most {MOST_OPTIONS}" if count > MOST_OPTIONS else ""


class Pairs(Form):
    """One row per option, one output per row: the order of the options cannot matter, by construction (ours)."""

    name = "equivariant"
    width = 1

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Separate question and option as the encoder separates two texts."""
        super().__init__(tokenizer, max_length)
        self.separator = f" {tokenizer.sep_token} " if tokenizer.sep_token else "\n"

    def texts(self, asked: Asked) -> list[str]:
        """Return the pairs, by identity."""
        return pair_texts(asked.question, self.separator)

    def marks(self, asked: Asked) -> list[int]:
        """Mark the option that the teacher chose, not its letter; the head reads it, as the text stays the same."""
        return [int(option == asked.marked) for option in range(len(asked.question.options))]

    def places(self, asked: Asked) -> list[int]:
        """Return identities, as the rows are by identity already."""
        return list(range(len(asked.question.options)))

    def longest_texts(self, question: Question, marked: bool) -> list[str]:
        """Return the pairs, since a mark takes no room."""
        return pair_texts(question, self.separator)


FORMS: dict[FormName, type[Form]] = {"encoder": Lettered, "equivariant": Pairs}


def open_encoder(source: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """Open an encoder without head, in float32, and its tokenizer.

    Args:
        source: A folder, or a hub name.

    Raises:
        EvenhandError: It cannot be found or read.
    """
    from transformers import AutoModel

    from evenhand.models.hugging_face import config_of, open_tokenizer

    config_of(source)
    tokenizer = open_tokenizer(source)
    try:
        with _quiet():
            encoder = AutoModel.from_pretrained(source, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:  # safetensors and the architectures raise errors of many kinds
        raise EvenhandError(f"cannot open the encoder {source!r}: {error}") from error
    return encoder, tokenizer


def part_alike(encoder: Any, ids: Iterable[int], seed: int = 0) -> int:
    """Give tokens that an encoder cannot distinguish their own embeddings, in place; return their number.

    Words that never occurred in pretraining, as in a small vocabulary made for several models, are all pushed the same
    way and become one vector; a student would have to separate them first. Directions are drawn, lengths stay.

    Args:
        encoder: A transformers model.
        ids: The tokens that will be read.
        seed: Seed of the draws.
    """
    used = torch.tensor(sorted(set(ids)))
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        vectors = table[used].float()
        unit = nn.functional.normalize(vectors, dim=-1)
        alike = torch.cat(
            [(part @ unit.T > ALIKE).sum(dim=-1) > 1 for part in torch.split(unit, 1024)]
        )  # each counts itself
        drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed))
        fresh = nn.functional.normalize(drawn, dim=-1) * vectors.norm(dim=-1, keepdim=True)
        table[used[alike]] = fresh[alike].to(table.dtype)
    return int(alike.sum())


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide progress bars that would cover ours, and the expected warning that a checkpoint has another head."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def save_network(network: Network, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write weights (safetensors), the encoder's configuration and the tokenizer."""
    from safetensors.torch import save_model

    network.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_model(network, str(folder / "model.safetensors"))


def open_network(folder: Path, width: int) -> tuple[Network, PreTrainedTokenizerBase]:
    """Open what `save_network` wrote.

    Raises:
        EvenhandError: The files are missing or broken.
    """
    from safetensors.torch import load_model
    from transformers import AutoModel

    from evenhand.models.hugging_face import config_of, open_tokenizer

    tokenizer = open_tokenizer(str(folder))
    try:
        with torch.random.fork_rng(devices=[]):  # initialising weights that are then overwritten draws random numbers
            encoder = AutoModel.from_config(config_of(str(folder)), trust_remote_code=False).float()
        network = Network(encoder, width)
        load_model(network, str(folder / "model.safetensors"))
    except Exception as error:  # as above
        raise EvenhandError(f"cannot open the student in {folder}: {error}") from error
    return network.eval(), tokenizer
