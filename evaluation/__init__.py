"""Benchmarks, one file each: a benchmark turns a `Model` into scores.

`from evenhand.evaluation import BBQ` imports only what that benchmark needs. A benchmark may import `metrics`, which
benchmarks share, `base`, `loading`, the bases of several that begin with `_`, and `training` and the packages below it;
no other benchmark, no method, and neither `report` nor `experiment`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evenhand.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from evenhand.evaluation.b_score import BScore as BScore
    from evenhand.evaluation.base import QuestionBenchmark as QuestionBenchmark
    from evenhand.evaluation.base import RowBenchmark as RowBenchmark
    from evenhand.evaluation.bbq import BBQ as BBQ
    from evenhand.evaluation.cabbq import CaBBQ as CaBBQ
    from evenhand.evaluation.cbbq import CBBQ as CBBQ
    from evenhand.evaluation.crows_pairs import CrowSPairs as CrowSPairs
    from evenhand.evaluation.difference_awareness import DifferenceAwareness as DifferenceAwareness
    from evenhand.evaluation.disco import DisCo as DisCo
    from evenhand.evaluation.discrim_eval import DiscrimEval as DiscrimEval
    from evenhand.evaluation.esbbq import EsBBQ as EsBBQ
    from evenhand.evaluation.gg_bbq import GGBBQ as GGBBQ
    from evenhand.evaluation.gpqa import GPQA as GPQA
    from evenhand.evaluation.holistic_bias import HolisticBias as HolisticBias
    from evenhand.evaluation.honest import Honest as Honest
    from evenhand.evaluation.ifeval import IFEval as IFEval
    from evenhand.evaluation.kobbq import KoBBQ as KoBBQ
    from evenhand.evaluation.label_bias import LabelBias as LabelBias
    from evenhand.evaluation.mbbq import MBBQ as MBBQ
    from evenhand.evaluation.mmlu import MMLU as MMLU
    from evenhand.evaluation.multiple_choice_file import MultipleChoiceFile as MultipleChoiceFile
    from evenhand.evaluation.option_order import OptionOrder as OptionOrder
    from evenhand.evaluation.perplexity import Perplexity as Perplexity
    from evenhand.evaluation.pronoun_skew import PronounSkew as PronounSkew
    from evenhand.evaluation.redditbias import RedditBias as RedditBias
    from evenhand.evaluation.seat import SEAT as SEAT
    from evenhand.evaluation.self_diagnosis import SelfDiagnosis as SelfDiagnosis
    from evenhand.evaluation.stereoset import StereoSet as StereoSet
    from evenhand.evaluation.unqover import UnQover as UnQover
    from evenhand.evaluation.winobias import WinoBias as WinoBias
    from evenhand.evaluation.winogender import Winogender as Winogender
    from evenhand.evaluation.winoqueer import WinoQueer as WinoQueer
else:
    _PLACES = {
        "evenhand.evaluation.b_score": ["BScore"],
        "evenhand.evaluation.base": ["QuestionBenchmark", "RowBenchmark"],
        "evenhand.evaluation.bbq": ["BBQ"],
        "evenhand.evaluation.cabbq": ["CaBBQ"],
        "evenhand.evaluation.cbbq": ["CBBQ"],
        "evenhand.evaluation.crows_pairs": ["CrowSPairs"],
        "evenhand.evaluation.difference_awareness": ["DifferenceAwareness"],
        "evenhand.evaluation.disco": ["DisCo"],
        "evenhand.evaluation.discrim_eval": ["DiscrimEval"],
        "evenhand.evaluation.esbbq": ["EsBBQ"],
        "evenhand.evaluation.gg_bbq": ["GGBBQ"],
        "evenhand.evaluation.gpqa": ["GPQA"],
        "evenhand.evaluation.holistic_bias": ["HolisticBias"],
        "evenhand.evaluation.honest": ["Honest"],
        "evenhand.evaluation.ifeval": ["IFEval"],
        "evenhand.evaluation.kobbq": ["KoBBQ"],
        "evenhand.evaluation.label_bias": ["LabelBias"],
        "evenhand.evaluation.mbbq": ["MBBQ"],
        "evenhand.evaluation.mmlu": ["MMLU"],
        "evenhand.evaluation.multiple_choice_file": ["MultipleChoiceFile"],
        "evenhand.evaluation.option_order": ["OptionOrder"],
        "evenhand.evaluation.perplexity": ["Perplexity"],
        "evenhand.evaluation.pronoun_skew": ["PronounSkew"],
        "evenhand.evaluation.redditbias": ["RedditBias"],
        "evenhand.evaluation.seat": ["SEAT"],
        "evenhand.evaluation.self_diagnosis": ["SelfDiagnosis"],
        "evenhand.evaluation.stereoset": ["StereoSet"],
        "evenhand.evaluation.unqover": ["UnQover"],
        "evenhand.evaluation.winobias": ["WinoBias"],
        "evenhand.evaluation.winogender": ["Winogender"],
        "evenhand.evaluation.winoqueer": ["WinoQueer"],
    }
    __getattr__, __dir__ = lazy_names(__name__, _PLACES)
    __all__ = __dir__()
