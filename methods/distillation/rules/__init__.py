"""Rules for a distribution over the next token: which words are to be equally probable, and where.

`packs` reads the rules from data, `tokens` finds their words in a tokenizer, `projection` moves probability so that
they hold, `sequences` does so for words of several tokens, and `evidence` finds the positions whose context leaves the
choice open.
"""

from evenhand.methods.distillation.rules.evidence import EvidenceGate, open_positions
from evenhand.methods.distillation.rules.packs import Rule, RulePack, WordClass, rule_pack
from evenhand.methods.distillation.rules.projection import MODES, project, released
from evenhand.methods.distillation.rules.sequences import Targets, Tree, project_tree, tree_of
from evenhand.methods.distillation.rules.tokens import SequenceClass, TokenClass, TokenRules, resolve

__all__ = [
    "MODES",
    "EvidenceGate",
    "Rule",
    "RulePack",
    "SequenceClass",
    "Targets",
    "TokenClass",
    "TokenRules",
    "Tree",
    "WordClass",
    "open_positions",
    "project",
    "project_tree",
    "released",
    "resolve",
    "rule_pack",
    "tree_of",
]
