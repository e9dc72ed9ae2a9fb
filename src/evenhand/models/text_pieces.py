"""Tokenise many texts with common parts: every line is tokenised once, if the tokenizer allows it.

Headers, shots, options and the text of a chat template recur in every question of a benchmark, and in every order and
turn in which it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from threading import Lock
from typing import TYPE_CHECKING, Any

from evenhand.models.line_boundaries import LineEnds, line_ends

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEPT = 2_000_000
"""Characters of lines whose ids are kept; beyond that all are dropped."""
PROBES = (
    "Answer it.\n\nIt was A's turn. Who?\n(A) One\n(B) The other\n(C) 12",
    "user: a b\n  c\n\n\nd \ne\t\nf.\ng)\n(h\n\n(i",
    "x\nAnswer: A\nAnswer:  B\n1\n2\n\u00e9\nZ",
)
"""Texts that are tokenised both ways before lines are cut."""

Ids = list[int]
_LOCK = Lock()
"""Held while a table of lines is read and extended."""


class TextPieces:
    """Tokenises texts that contain no special tokens of their own, for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Prepare for a tokenizer; nothing is tokenised yet."""
        self.tokenizer = tokenizer
        self.tokenised = 0
        """Number of texts and lines passed to the tokenizer so far."""
        self.calls = 0
        """Number of calls of the tokenizer so far."""
        self._known: dict[str, Ids] = {}
        self._characters = 0
        self._state: tuple[int, int, bool] | None = None
        self._ends: LineEnds | None = None
        self._alike: bool | None = None

    @property
    def ends(self) -> LineEnds | None:
        """Where texts are cut; None if they are tokenised whole.

        Determined again after tokens were added or `split_special_tokens` was changed.
        """
        tokenizer: Any = self.tokenizer
        state = len(tokenizer), len(tokenizer.added_tokens_decoder), bool(tokenizer.split_special_tokens)
        if state != self._state:
            self._state, self._known, self._characters, self._alike = state, {}, 0, None
            self._ends = self._found()
        return self._ends

    def _found(self) -> LineEnds | None:
        found = line_ends(self.tokenizer)
        if found is None:
            return None
        pieces = [cut(text, found) for text in PROBES]
        made = iter(self._tokenised([*PROBES, *chain.from_iterable(pieces)]))
        wholes = [next(made) for _ in PROBES]
        return found if wholes == [[i for _ in some for i in next(made)] for some in pieces] else None

    def encode(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text, in new lists; equal texts and equal lines are tokenised once."""
        ends = self.ends
        if ends is None:
            return self._whole(texts)
        cuts = [cut(text, ends) for text in texts]
        known = self.known(chain.from_iterable(cuts))
        return [list(chain.from_iterable([known[piece] for piece in pieces])) for pieces in cuts]

    def split(self, texts: Sequence[str]) -> list[tuple[Ids, str]]:
        """Return the ids of each text without its end, and the end; appended text affects only the ids of the end.

        The end is what follows the last line end or special token at which a text is cut, or the whole text if there is
        none.
        """
        ends = self.ends
        if ends is None:
            return [([], text) for text in texts]
        cuts = [cut(text, ends) for text in texts]
        last = {line: _after_special(line, ends) for line in {pieces[-1] for pieces in cuts}}
        known = self.known(chain((p for pieces in cuts for p in pieces[:-1]), (begin for begin, _ in last.values())))
        out = []
        for pieces in cuts:
            begin, end = last[pieces[-1]]
            out.append(([*chain.from_iterable([known[p] for p in pieces[:-1]]), *known[begin]], end))
        return out

    def known(self, pieces: Iterable[str]) -> dict[str, Ids]:
        """Return a table with the ids of these pieces, and of others; they must not be changed."""
        wanted = dict.fromkeys(pieces)
        with _LOCK:  # a server tokenises in several threads
            if new := [piece for piece in wanted if piece not in self._known]:
                if self._characters > KEPT:
                    self._known, self._characters = {}, 0
                    new = list(wanted)
                self._add(new)
            return self._known

    def _add(self, lines: Sequence[str]) -> None:
        """Tokenise lines, each cut further after its special tokens."""
        specials = self._ends.specials if self._ends else None
        parts = [[p for p in specials.split(line) if p] if specials else [line] for line in lines]
        new = [p for p in dict.fromkeys(chain.from_iterable(parts)) if p not in self._known]
        self._known.update(zip(new, self._tokenised(new), strict=True))
        self._known.update((x, [i for p in some for i in self._known[p]]) for x, some in zip(lines, parts, strict=True))
        self._characters += sum(map(len, lines))

    def _whole(self, texts: Sequence[str]) -> list[Ids]:
        once = list(dict.fromkeys(texts))
        made = dict(zip(once, self._tokenised(once), strict=True))
        return [list(made[text]) for text in texts]

    def _tokenised(self, texts: Sequence[str]) -> list[Ids]:
        """Return the tokenizer's ids, without masks, offsets and other parts of an encoding."""
        texts = list(texts)
        if not texts:
            return []
        self.tokenised, self.calls = self.tokenised + len(texts), self.calls + 1
        if (backend := self._backend) is not None:
            return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
        return [list(ids) for ids in self.tokenizer(texts, add_special_tokens=False, verbose=False).input_ids]

    @property
    def _backend(self) -> Any:
        """The backend of a transformers tokenizer; None if there is none, or if transformers does more than call it.

        A call of transformers' tokenizer switches off truncation and padding first; here both must be off already.
        """
        if self._alike is None:
            self._alike = _asks_its_backend(self.tokenizer)
        if not self._alike:
            return None
        fast: Any = self.tokenizer
        backend = fast.backend_tokenizer
        as_set = backend.encode_special_tokens == fast.split_special_tokens
        return backend if as_set and backend.truncation is None and backend.padding is None else None


def _asks_its_backend(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer's ids are those of its backend."""
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    if (
        not isinstance(tokenizer, PreTrainedTokenizerFast)
        or type(tokenizer).__call__ != PreTrainedTokenizerBase.__call__
    ):
        return False
    own = tokenizer(list(PROBES), add_special_tokens=False, verbose=False).input_ids
    made = tokenizer.backend_tokenizer.encode_batch(list(PROBES), add_special_tokens=False)
    return bool([encoding.ids for encoding in made] == own)


def cut(text: str, ends: LineEnds) -> list[str]:
    """Cut a text into lines, with their line ends; lines that may not be separated stay together."""
    begins, after_blanks = ends.begins, ends.after_blanks
    lines = text.split("\n")
    out: list[str] = []
    held = lines[0]
    for line in lines[1:]:
        if line[:1] in begins and (after_blanks or (held and not held[-1].isspace())):
            out.append(held + "\n")
            held = line
        else:
            held = f"{held}\n{line}"
    out.append(held)
    return out


def _after_special(line: str, ends: LineEnds) -> tuple[str, str]:
    """Split a line after its last special token."""
    if ends.specials is None:
        return "", line
    end = ends.specials.split(line)[-1]
    return line[: len(line) - len(end)], end
