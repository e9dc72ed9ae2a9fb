"""`self_debias_decoding`: suppress tokens that a request to discriminate would make more probable.

Source: Schick et al. 2021, "Self-Diagnosis and Self-Debiasing: A Proposal for Reducing Corpus-Based Bias in NLP" (TACL
9, arXiv 2103.00453), section 4, and its code (timoschick/self-debiasing).

The prompt is read twice: as it is, and after "The following text discriminates against people because of their ...:",
or after the six sentences of the paper's experiments on text of any kind (`preset=paper`). A prefix precedes the
whole prompt; with a chat template it begins the first user turn, where a chat model expects words.
p'(w) is p(w) * max(exp(-50 * max(p_b(w) - p(w), 0)), 0.01), normalised, where p_b is the largest probability after any
of the prefixes. The same holds for the letters of a question, as normalisation cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field

from evenhand.errors import SettingsError
from evenhand.interfaces import Ability, Choice, Dialogue, Method, Model, Question, Reply, Sampling, TrainData, settings
from evenhand.models import Mitigated
from evenhand.prompting.prompt_packs import ATTRIBUTES, PromptPack, prompt_pack

_CODE = "timoschick/self-debiasing c9764e5, self_debiasing.py"

_PLACE = "user's turn"
"""Distinguishes answers from those of earlier releases, whose prefixes preceded a chat template."""


@settings
class SelfDebiasDecoding(Method):
    """Let the model avoid what it would say if it were told to discriminate."""

    name: ClassVar[str] = "self_debias_decoding"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose", "generate"})
    wording_setting: ClassVar[str] = "prompts"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"sentences": ATTRIBUTES, "decay": 50.0, "floor": 0.01}}
    preset_sources: ClassVar[dict[str, dict[str, str]]] = {
        "paper": {
            "sentences": f"{_CODE}, DEBIASING_PREFIXES",
            "decay": f"{_CODE}, --decay_constant",
            "floor": f"{_CODE}, --epsilon",
        }
    }

    axes: tuple[str, ...] = ("auto",)
    """Subjects of the prefixes, one each: auto (the axis of an item, if its benchmark gives one), any, a benchmark's
    name of an axis, or a word."""
    sentences: tuple[str, ...] = ()
    """Prefixes that are whole sentences, by their names in the prompt pack, instead of those about axes. The paper's
    experiments on text of any kind use all six at once, or the one for the attribute in question."""
    decay: Annotated[float, Field(ge=0)] = 50.0
    """Decay constant, the paper's lambda; it compares 10, 50 and 100. At 0 nothing changes."""
    floor: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Minimum factor on a probability, as in the paper's code."""
    prompts: str = "en"
    """Language of the prefix, or path of a prompt pack."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another, before anything is asked."""
        if not self.axes:
            raise ValueError("axes=(): set at least one, such as axes=(auto,)")
        if self.sentences and self.axes != ("auto",):
            raise SettingsError(
                f"axes={self.axes!r}, sentences={self.sentences!r}: sentences replace the prefixes about "
                "axes; leave one of them out"
            )
        self._prefixes(prompt_pack(self.prompts))

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return a reason against a model without token probabilities, or with another method around it."""
        if model is not None and not model.supports_prefixes:
            return (
                f"{self.name} needs a local causal model without another method around it, which {model.name} is not; "
                f"in a stack it comes first: '{self.name}+instruction'"
            )
        return super().unsupported_reason(model, data)

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model: every prompt is read after each prefix, too."""
        pack = prompt_pack(self.prompts)

        def choose(questions: Sequence[Question]) -> list[Choice]:
            groups: dict[tuple[str, ...], list[int]] = {}
            for i, q in enumerate(questions):
                groups.setdefault(self._prefixes(pack, q.axis), []).append(i)
            out: dict[int, Choice] = {}
            for prefixes, rows in groups.items():
                chosen = self._guided(model, prefixes).choose([questions[i] for i in rows])
                out.update(zip(rows, chosen, strict=True))
            return [out[i] for i in range(len(questions))]

        def generate(dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
            return self._guided(model, self._prefixes(pack)).generate(dialogues, sampling)

        return Mitigated(
            model,
            self,
            choose=choose,
            generate=generate,
            abilities=model.abilities - {"score"},
            depends_on=[pack.hash, _PLACE],
        )

    def _prefixes(self, pack: PromptPack, item_axis: str = "") -> tuple[str, ...]:
        if self.sentences:
            word = pack.axis("auto", item_axis)
            return tuple(dict.fromkeys(pack.prefix(name).format(axis=word) for name in self.sentences))
        words = dict.fromkeys(pack.axis(axis, item_axis) for axis in self.axes)
        return tuple(pack.decoding.prefix.format(axis=word) for word in words)

    def _guided(self, model: Model, prefixes: Sequence[str]) -> Model:
        from evenhand.methods.prompting.suppression import suppressed

        return model.behind(prefixes, partial(suppressed, decay=self.decay, floor=self.floor), self.spec)
