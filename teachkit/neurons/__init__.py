"""Whole hidden units: delete them, merge them, repair what reads them, ask what each is worth."""

from teachkit.neurons.chain import Fold, Hidden, Reading, activations, hidden, rebuild
from teachkit.neurons.deletion import CRITERIA, greedy, leave_one_out, scores
from teachkit.neurons.games import (
    Regression,
    banzhaf,
    every_mask,
    game,
    random_masks,
    regress,
    shapley,
)
from teachkit.neurons.merging import merge
from teachkit.neurons.pruning import METHODS, delete, prune
from teachkit.neurons.repairing import costs, elimination, least_squares, repair, surgeon

__all__ = [
    "CRITERIA",
    "METHODS",
    "Fold",
    "Hidden",
    "Reading",
    "Regression",
    "activations",
    "banzhaf",
    "costs",
    "delete",
    "elimination",
    "every_mask",
    "game",
    "greedy",
    "hidden",
    "least_squares",
    "leave_one_out",
    "merge",
    "prune",
    "random_masks",
    "rebuild",
    "regress",
    "repair",
    "scores",
    "shapley",
    "surgeon",
]
