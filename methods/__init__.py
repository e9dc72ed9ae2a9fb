"""Mitigation methods, one folder per family: a method turns a `Model` into another `Model`.

`from evenhand.methods import PCGU` imports only what that method needs. A method is a file `FAMILY/NAME.py`. It may
import the private files (`_NAME.py`) of its own family, and `training` and the packages below it; no other family, no
benchmark, and neither `report` nor `experiment`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evenhand.core.lazy_names import lazy_names

if TYPE_CHECKING:
    from evenhand.methods.adjudication.cross_model_adjudication import CrossModelAdjudication as CrossModelAdjudication
    from evenhand.methods.calibration.batch_calibration import BatchCalibration as BatchCalibration
    from evenhand.methods.calibration.contextual_calibration import ContextualCalibration as ContextualCalibration
    from evenhand.methods.calibration.domain_calibration import DomainCalibration as DomainCalibration
    from evenhand.methods.calibration.looc import LeaveOneOutCalibration as LeaveOneOutCalibration
    from evenhand.methods.calibration.pride import PriDe as PriDe
    from evenhand.methods.calibration.prior_matching import PriorMatching as PriorMatching
    from evenhand.methods.distillation.counterfactual_distillation import (
        CounterfactualDistillation as CounterfactualDistillation,
    )
    from evenhand.methods.distillation.deep_to_shallow import DeepToShallow as DeepToShallow
    from evenhand.methods.distillation.fair_distillation import FairDistillation as FairDistillation
    from evenhand.methods.none import Untouched as Untouched
    from evenhand.methods.permutation.permutation import Permutation as Permutation
    from evenhand.methods.permutation.permutation_distillation import PermutationDistillation as PermutationDistillation
    from evenhand.methods.prompting.instruction import Instruction as Instruction
    from evenhand.methods.prompting.intent_self_correction import IntentSelfCorrection as IntentSelfCorrection
    from evenhand.methods.prompting.moral_self_correction import MoralSelfCorrection as MoralSelfCorrection
    from evenhand.methods.prompting.self_debias import SelfDebias as SelfDebias
    from evenhand.methods.prompting.self_debias_decoding import SelfDebiasDecoding as SelfDebiasDecoding
    from evenhand.methods.prompting.self_help import SelfHelp as SelfHelp
    from evenhand.methods.steering.fairsteer import FairSteer as FairSteer
    from evenhand.methods.steering.steering import Steering as Steering
    from evenhand.methods.unlearning.pairwise import Pairwise as Pairwise
    from evenhand.methods.unlearning.pcgu import PCGU as PCGU
    from evenhand.methods.unlearning.preference import Preference as Preference
    from evenhand.methods.unlearning.task_vector import TaskVectorNegation as TaskVectorNegation
else:
    _PLACES = {
        "evenhand.methods.adjudication.cross_model_adjudication": ["CrossModelAdjudication"],
        "evenhand.methods.calibration.batch_calibration": ["BatchCalibration"],
        "evenhand.methods.calibration.contextual_calibration": ["ContextualCalibration"],
        "evenhand.methods.calibration.domain_calibration": ["DomainCalibration"],
        "evenhand.methods.calibration.looc": ["LeaveOneOutCalibration"],
        "evenhand.methods.calibration.pride": ["PriDe"],
        "evenhand.methods.calibration.prior_matching": ["PriorMatching"],
        "evenhand.methods.distillation.counterfactual_distillation": ["CounterfactualDistillation"],
        "evenhand.methods.distillation.deep_to_shallow": ["DeepToShallow"],
        "evenhand.methods.distillation.fair_distillation": ["FairDistillation"],
        "evenhand.methods.none": ["Untouched"],
        "evenhand.methods.permutation.permutation": ["Permutation"],
        "evenhand.methods.permutation.permutation_distillation": ["PermutationDistillation"],
        "evenhand.methods.prompting.instruction": ["Instruction"],
        "evenhand.methods.prompting.intent_self_correction": ["IntentSelfCorrection"],
        "evenhand.methods.prompting.moral_self_correction": ["MoralSelfCorrection"],
        "evenhand.methods.prompting.self_debias": ["SelfDebias"],
        "evenhand.methods.prompting.self_debias_decoding": ["SelfDebiasDecoding"],
        "evenhand.methods.prompting.self_help": ["SelfHelp"],
        "evenhand.methods.steering.fairsteer": ["FairSteer"],
        "evenhand.methods.steering.steering": ["Steering"],
        "evenhand.methods.unlearning.pairwise": ["Pairwise"],
        "evenhand.methods.unlearning.pcgu": ["PCGU"],
        "evenhand.methods.unlearning.preference": ["Preference"],
        "evenhand.methods.unlearning.task_vector": ["TaskVectorNegation"],
    }
    __getattr__, __dir__ = lazy_names(__name__, _PLACES)
    __all__ = __dir__()
