"""The base class of models in this process: their weights can be read, edited, hashed and saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.core.hashing import digest, of_folder
from evenhand.errors import SettingsError
from evenhand.inference import offload_support
from evenhand.inference.offload_support import edit_refused, refuse_edit
from evenhand.interfaces import Model, Weights
from evenhand.models import adapters, saved
from evenhand.models.asking import batching
from evenhand.models.first_process import write_in_first
from evenhand.models.hugging_face import save_module, save_tokenizer
from evenhand.models.kept_hash import WeightHash

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class InProcessModel(Model):
    """A transformers module and its tokenizer, from files or from memory."""

    load_options: dict[str, Any]
    _module: PreTrainedModel
    _tokenizer: PreTrainedTokenizerBase
    _batch_tokens: int | None

    def _hold(
        self,
        module: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        folders: Sequence[Path],
        changed: Callable[[], None],
    ) -> None:
        """Set the module and its tokenizer.

        Args:
            module: Module of the model; asking never changes it.
            tokenizer: Its tokenizer.
            folders: Folders of the unchanged files (model, adapter), for a fast fingerprint; empty if from memory.
            changed: Called when the weights turn out to have changed.
        """
        self._module, self._tokenizer = module, tokenizer
        self._files = [of_folder(folder) for folder in folders]
        self._hash = WeightHash(module, tokenizer, self.name, changed)
        self._handed_out: str | None = None

    @property
    def weights(self) -> Weights:
        """The module and tokenizer, for reading; use `editing` to change them.

        Changes made here are detected too: immediately by a cheap check (see `evenhand.models.kept_hash`) or, if that
        misses them, when all weights are hashed at the end of a cell of a comparison.
        """
        if self._files and self._handed_out is None:
            self._handed_out = self._hash.now()
        return Weights(self._module, self._tokenizer)

    @weights.setter
    def weights(self, given: Weights) -> None:
        raise SettingsError(
            f"the weights of {self.name} cannot be set, since the fingerprint depends on them: change them in `with "
            "model.editing() as weights:`, or wrap another module with evenhand.wrap(module, tokenizer)"
        )

    @contextmanager
    def editing(self) -> Iterator[Weights]:
        """Give the module and tokenizer for changing them within the block; they are rehashed afterwards.

        Raises:
            SettingsError: The weights are offloaded by accelerate, where edits have no effect.
        """
        refuse_edit(self._module, self.name)
        weights = self.weights
        try:
            yield weights
        finally:
            self._hash.recheck()  # it also drops what was derived from the old weights

    @property
    def edit_refused(self) -> str:
        """The reason why the weights cannot be changed (accelerate offloads them), or ""."""
        return edit_refused(self._module, self.name)

    @property
    def save_refused(self) -> str:  # type: ignore[override]  # derived, so it cannot be set
        """The reason why the weights or the adapter cannot be saved, or ""."""
        return offload_support.save_refused(self._module, self.name) or adapters.save_refused(self._module)

    def rehash(self) -> None:
        """Hash all weights now, if they may have been changed."""
        if self._may_differ:
            self._hash.recheck()

    @property
    def weights_hash(self) -> str:  # type: ignore[override]  # derived, so it cannot be set
        """Hash of weights, configuration, adapters and tokenizer, whatever their origin."""
        return self._hash.now()

    @property
    def edited(self) -> bool:  # type: ignore[override]  # derived, so it cannot be set
        """Whether the weights differ from files on disk (this hashes all); always true for an object from memory."""
        self.rehash()
        return self._differs(self._hash.now() if self._may_differ else None)

    @property
    def fingerprint(self) -> str:
        """Content hash of the files while the weights match them, else of the tensors."""
        precision = {"dtype": str(self._module.dtype), **self._quantised()}
        tensors = self._hash.now() if self._may_differ else None
        if self._differs(tensors):
            return digest("tensors", tensors, precision)
        return digest("files", self._files, precision)

    @property
    def precision(self) -> dict[str, Any]:  # type: ignore[override]  # derived, so it cannot be set
        """The option of `evenhand.load` that opens a saved copy in the precision of this one."""
        name = str(self._module.dtype).removeprefix("torch.")
        return {"dtype": name} if name in ("float32", "bfloat16", "float16") else {}

    @property
    def asking(self) -> dict[str, Any]:  # type: ignore[override]  # derived, so it cannot be set
        """Options of `evenhand.load` that concern asking, as JSON values."""
        return {**super().asking, **batching(self._batch_tokens)}

    def facts(self) -> dict[str, Any]:
        """Return the model's training, source, precision and size."""
        trained = {} if self.training is None else self.training.facts()
        return {
            **trained,  # first, so that a folder's record does not override what is known about the model
            **super().facts(),
            "source": self.source or "memory",
            "device": str(self._module.device),
            "parameters": int(sum(p.numel() for p in self._module.parameters())),
            "demo": bool(getattr(self._module.config, "evenhand_demo", False)),
            "dtype": str(self._module.dtype).removeprefix("torch."),
        }

    def save(self, folder: str | Path) -> Path:
        """Write weights or the adapter (safetensors), a base that has no name, the tokenizer and the training record.

        In a distributed launch the first process writes, and the others wait.
        """
        folder = Path(folder)
        if reason := self.save_refused:  # before anything is written
            raise SettingsError(reason)
        write_in_first(folder, lambda: self._write(folder))
        return folder

    def _write(self, folder: Path) -> None:
        saved.begin(folder)
        save_module(self._module, folder)
        save_tokenizer(self._tokenizer, folder)
        self._finish(folder)

    def _finish(self, folder: Path) -> None:
        """Write evenhand.json, the last file."""
        saved.write_weights(folder, self.training)

    @property
    def _may_differ(self) -> bool:
        """Whether the weights may have been changed: they came from memory or were handed out."""
        return not self._files or self._handed_out is not None

    def _differs(self, tensors: str | None) -> bool:
        """Whether the model differs from its files, by the hash of its weights; None if they were not handed out."""
        return not self._files or tensors != self._handed_out

    def _quantised(self) -> dict[str, Any]:
        return {k: v for k, v in self.load_options.items() if k.startswith("load_in_") and v}
