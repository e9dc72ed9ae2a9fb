"""`instruction`: a debiasing instruction before the question, at three levels of specificity.

Source: Chen et al. 2024, "Causally Testing Gender Bias in LLMs: A Case Study on Occupational Bias" (arXiv 2212.10678;
chenyuen0103/gender-bias): six instructions, two each at low, medium and high specificity, prepended to the prompt.
The originals are `paper_low_1` to `paper_high_2`; they mention gender, and from medium on occupations. `ours_low_1` to
`ours_high_2` are for any axis, as Gallegos et al. 2025 apply them to all groups of BBQ: the two low ones are the
paper's with the axis in place of gender, the others are in our words.

The preset `self_awareness` is a clause after the question that asks to avoid bias of the item's type, like one of the
four prompts of BiasFreeBench (Xu et al. 2025, arXiv 2510.00232); its wording is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from evenhand.errors import SettingsError, UnknownNameError
from evenhand.interfaces import Ability, Choice, Dialogue, Method, Model, Question, Reply, Sampling, TrainData, settings
from evenhand.models import Mitigated
from evenhand.prompting.multi_turn import Place, choose_instructed, instructed, placed, read_by, write_instructed
from evenhand.prompting.prompt_packs import prompt_pack


@settings
class Instruction(Method):
    """Tell the model, in one sentence, to leave stereotypes out."""

    name: ClassVar[str] = "instruction"
    needs_any: ClassVar[frozenset[Ability]] = frozenset({"choose", "generate"})
    wording_setting: ClassVar[str] = "wording"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"self_awareness": {"wording": "self_awareness", "place": "after"}}
    preset_sources: ClassVar[dict[str, dict[str, str]]] = {"self_awareness": {"": "arXiv 2510.00232; wording ours"}}

    wording: str = "low_1"
    """Instruction from the prompt pack: ours_low_1, ours_low_2, ours_medium_1, ours_medium_2, ours_high_1,
    ours_high_2 (also without "ours_"), the paper's originals as paper_low_1 to paper_high_2, self_awareness, or one
    that you added."""
    axis: str = "auto"
    """What the instruction is about: auto (the axis of an item, if its benchmark gives one), any (all at once), or a
    word such as gender. It has to be auto if the wording names no axis, such as the paper's."""
    place: Place = "before"
    """Where the instruction goes: before (as in the paper) or after the question in the user's turn, or system."""
    prompts: str = "en"
    """Language of the texts, or path of a prompt pack."""

    def __post_init__(self) -> None:
        """Refuse a wording that the pack lacks, or an axis that it does not name, before anything is asked."""
        known = prompt_pack(self.prompts).clauses
        if self.wording not in known:
            raise UnknownNameError("instruction", self.wording, known)
        if self.axis != "auto" and "{axis}" not in known[self.wording]:
            raise SettingsError(
                f"axis={self.axis!r}: wording={self.wording} names no axis; leave the axis out, or set a wording that "
                "has a field for it, such as ours_low_1"
            )

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model: every prompt gets the instruction, and no turn is added."""
        pack = prompt_pack(self.prompts)
        clause = pack.clauses[self.wording]

        def told(item_axis: str = "") -> str:
            return clause.format(axis=pack.axis(self.axis, item_axis))

        def choose(questions: Sequence[Question]) -> list[Choice]:
            return choose_instructed(
                model,
                [instructed(pack.worded(q, read_by(model, q)), told(q.axis), self.place, model) for q in questions],
            )

        def generate(dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
            return write_instructed(model, [placed(d, told(), self.place) for d in dialogues], sampling)

        abilities = model.abilities
        return Mitigated(
            model,
            self,
            choose=choose if "choose" in abilities else None,
            generate=generate if "generate" in abilities else None,
            depends_on=[pack.hash],
        )
