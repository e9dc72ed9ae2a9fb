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
"""Outputs of the head over lettered options; of a question with fewer options the others are not read."""
ALIKE = 0.99
"""Cosine of two embeddings above which they are one and the same to an encoder."""


class Network(nn.Module):
    """An encoder, the mean of its last hidden states, and a head of two layers."""

    def __init__(self, encoder: Any, width: int, *, dropout: float = 0.1, seed: int = 0) -> None:
        """Put a head on an encoder.

        Args:
            encoder: A model of transformers without head.
            width: Number of outputs.
            dropout: Before the head; an encoder without dropout gets none.
            seed: Of the head's weights.
        """
        super().__init__()
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # untrained in many checkpoints, and not read here
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
        """Where token ids go."""
        embeddings: nn.Module = self.encoder.get_input_embeddings()
        return embeddings


class Form(ABC):
    """How questions become rows of an encoder, and its outputs scores of options."""

    name: FormName
    width: int
    """Outputs a row."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Take the encoder's tokenizer, and the most tokens of a row."""
        self.tokenizer, self.max_length = tokenizer, max_length
        self.pad = int(tokenizer.pad_token_id or 0)

    @abstractmethod
    def texts(self, asked: Asked) -> list[str]:
        """One a row."""

    @abstractmethod
    def places(self, asked: Asked) -> list[int]:
        """Where each option's score stands, by identity, among the outputs of all the question's rows."""

    @abstractmethod
    def longest_texts(self, question: Question, marked: bool) -> list[str]:
        """Texts as long as any that the question may become."""

    def fits(self, question: Question) -> str:
        """Why the question cannot be read at all, or ""."""
        return ""

    def marks(self, asked: Asked) -> list[int]:
        """Per row whether the head is told that the teacher chose it."""
        return [0] * len(self.texts(asked))

    def rows(self, asked: Sequence[Asked]) -> list[list[list[int]]]:
        """Token ids of each question's rows."""
        texts = [self.texts(a) for a in asked]
        ids = iter(self.encoded([text for some in texts for text in some]))
        return [[next(ids) for _ in some] for some in texts]

    def encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, the tokenizer's own special tokens included; nothing is cut."""
        if not texts:
            return []
        return [list(ids) for ids in self.tokenizer(list(texts), truncation=False, verbose=False).input_ids]

    def scores(self, module: Any, asked: Sequence[Asked]) -> Tensor:
        """[questions, most options] unnormalised scores by identity, -inf where a question has fewer options."""
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
    """One row with all options in the shown order, one output a position (Liusie et al. 2024)."""

    name = "encoder"
    width = MOST_OPTIONS

    def texts(self, asked: Asked) -> list[str]:
        """The lettered question."""
        return [lettered_text(asked)]

    def places(self, asked: Asked) -> list[int]:
        """The position of each option."""
        return [asked.question.position_of(option) for option in range(len(asked.question.options))]

    def longest_texts(self, question: Question, marked: bool) -> list[str]:
        """Every letter marked."""
        return [lettered_text(Asked(question, o)) for o in (range(len(question.options)) if marked else [None])]

    def fits(self, question: Question) -> str:
        """The head has so many outputs."""
        count = len(question.options)
        return f"{count} options; this student reads at most {MOST_OPTIONS}" if count > MOST_OPTIONS else ""


class Pairs(Form):
    """One row an option, one output a row: the order of the options cannot matter, by construction (ours)."""

    name = "equivariant"
    width = 1

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """Question and option are parted as the encoder parts two texts."""
        super().__init__(tokenizer, max_length)
        self.separator = f" {tokenizer.sep_token} " if tokenizer.sep_token else "\n"

    def texts(self, asked: Asked) -> list[str]:
        """The pairs, by identity."""
        return pair_texts(asked.question, self.separator)

    def marks(self, asked: Asked) -> list[int]:
        """The option that the teacher chose, not its letter; told to the head, as the text of a pair stays the same."""
        return [int(option == asked.marked) for option in range(len(asked.question.options))]

    def places(self, asked: Asked) -> list[int]:
        """The rows are by identity already."""
        return list(range(len(asked.question.options)))

    def longest_texts(self, question: Question, marked: bool) -> list[str]:
        """A mark takes no room."""
        return pair_texts(question, self.separator)


FORMS: dict[FormName, type[Form]] = {"encoder": Lettered, "equivariant": Pairs}


def open_encoder(source: str) -> tuple[Any, PreTrainedTokenizerBase]:
    """An encoder without head, in float32, and its tokenizer.

    Args:
        source: A folder, or a hub name.

    Raises:
        EvenhandError: It cannot be had or read.
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
    """Give tokens that an encoder cannot tell apart embeddings of their own, in place; returns how many these were.

    Words that a pretraining never met, as of a small vocabulary made for several models, are all pushed the same way
    and end as one vector; a student would have to part them first. Their directions are drawn, their lengths stay.

    Args:
        encoder: A model of transformers.
        ids: The tokens that will be read.
        seed: Of the draws.
    """
    used = torch.tensor(sorted(set(ids)))
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        vectors = table[used].float()
        unit = nn.functional.normalize(vectors, dim=-1)
        alike = torch.cat(
            [(part @ unit.T > ALIKE).sum(dim=-1) > 1 for part in torch.split(unit, 1024)]
        )  # itself is one
        drawn = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed))
        fresh = nn.functional.normalize(drawn, dim=-1) * vectors.norm(dim=-1, keepdim=True)
        table[used[alike]] = fresh[alike].to(table.dtype)
    return int(alike.sum())


@contextmanager
def _quiet() -> Iterator[None]:
    """Bars hide our own progress, and that a checkpoint has another head is expected."""
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
    """What `save_network` wrote.

    Raises:
        EvenhandError: The files are missing or broken.
    """
    from safetensors.torch import load_model
    from transformers import AutoModel

    from evenhand.models.hugging_face import config_of, open_tokenizer

    tokenizer = open_tokenizer(str(folder))
    try:
        with torch.random.fork_rng(devices=[]):  # making weights that are written over draws numbers
            encoder = AutoModel.from_config(config_of(str(folder)), trust_remote_code=False).float()
        network = Network(encoder, width)
        load_model(network, str(folder / "model.safetensors"))
    except Exception as error:  # as above
        raise EvenhandError(f"cannot open the student in {folder}: {error}") from error
    return network.eval(), tokenizer
