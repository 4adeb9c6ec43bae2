"""Magnitude: rank weights by their size, decide how many each layer keeps, prune and retrain."""

from teachkit.magnitude.criteria import lamp_scores, random_scores, scores
from teachkit.magnitude.densities import RULES, empty_layers, keep_by_rule, quotas, warn_empty
from teachkit.magnitude.recipe import Round, TenthAdam, by_layer, han, han_masks, removed_share
from teachkit.magnitude.selection import keep_largest, threshold
from teachkit.magnitude.sensitivity import sensitivity

__all__ = [
    "RULES",
    "Round",
    "TenthAdam",
    "by_layer",
    "empty_layers",
    "han",
    "han_masks",
    "keep_by_rule",
    "keep_largest",
    "lamp_scores",
    "quotas",
    "random_scores",
    "removed_share",
    "scores",
    "sensitivity",
    "threshold",
    "warn_empty",
]
