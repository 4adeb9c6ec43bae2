"""Lesson 14: its exercises, one of which is an experiment."""

import random
from functools import cache
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import scale
from teachkit.core.ranking import keep_n_of_m
from teachkit.lab import language
from teachkit.lab.tokens import Characters
from teachkit.show.exercises import Task, normal, uniform
from teachkit.show.trials import Scored, Trial

MOST, LEFT_OUT = 128, 0.6  # characters of the calibration text, and the sparsity of the experiment


def confused(logits: Tensor, following: Tensor) -> Tensor:
    """The perplexity of (n, V) logits about (n,) tokens."""
    return cross_entropy(logits, following).exp()


def drawn_logits(rng: random.Random) -> tuple[Tensor, Tensor]:
    """Logits of five places about seven tokens, and what followed."""
    return normal(rng, 5, 7) * 2, torch.tensor([rng.randrange(7) for _ in range(5)])


def pattern(scores: Tensor) -> Tensor:
    """The mask that keeps two of every four neighbours."""
    return keep_n_of_m({"w": scores}, 2, 4)["w"]


def drawn_layer(rng: random.Random) -> tuple[Tensor, Tensor]:
    """Weights (4, 8), and norms of the inputs, of which some are large."""
    return normal(rng, 4, 8), uniform(rng, 0.2, 1.0, 8) * torch.tensor([1.0, 30, 1, 1, 9, 1, 1, 5])


def drawn_pass(rng: random.Random) -> tuple[Tensor, Tensor, int, Tensor]:
    """Weights (3, 5), the factor U of an inverse, a column, and whether each output keeps it."""
    X = normal(rng, 9, 5)
    U = torch.linalg.cholesky(torch.linalg.inv(X.T @ X), upper=True)
    keep = torch.tensor([True, False, False])[torch.randperm(3)]
    return normal(rng, 3, 5), U, rng.randrange(4), keep


def one_column(W: Tensor, U: Tensor, j: int, keep: Tensor) -> Tensor:
    """SparseGPT's step: what goes leaves an error, which all further right make up for."""
    error = torch.where(keep, 0.0, W[:, j] / U[j, j])
    return W - torch.outer(error, U[j])


def only_zeroed(W: Tensor, U: Tensor, j: int, keep: Tensor) -> Tensor:
    """The same without the update."""
    made = W.clone()
    made[:, j] *= keep
    return made


@cache
def exam() -> tuple[nn.Module, dict[str, Tensor], dict[str, float]]:
    """The small model, what it is judged on, and its loss there when magnitude has pruned it."""
    speaker = language.shakespeare()
    known = set(Characters(language.text("shakespeare")).known)
    texts = {name: language.text(name) for name in ("shakespeare", "devil")}
    unseen = {
        name: language.halves(speaker.encode("".join(c for c in words if c in known)))[1]
        for name, words in texts.items()
    }
    pieces = {name: language.pieces(tokens, 128, 24) for name, tokens in unseen.items()}
    blunt, _ = scale.prune(speaker.model, pieces["devil"], "magnitude", LEFT_OUT, progress=False)
    return speaker.model, pieces, judged(blunt, pieces)


def judged(net: nn.Module, pieces: dict[str, Tensor]) -> dict[str, float]:
    """The loss on each text."""
    return {name: log(scale.perplexity(net, each, chunk=24)) for name, each in pieces.items()}


def calibrated(answer: Any) -> Scored:
    """SparseGPT, shown nothing but this text: how much of magnitude's loss it avoids on two texts."""
    if not isinstance(answer, str) or not 2 <= len(answer) <= MOST:
        raise ValueError(f"return a text of 2 to {MOST} characters")
    net, pieces, blunt = exam()
    tokens = Characters(language.text("shakespeare")).encode(answer)[None]
    pruned, _ = scale.prune(net, tokens, "sparsegpt", LEFT_OUT, progress=False)
    dense, found = judged(net, pieces), judged(pruned, pieces)
    saved = {k: 1 - (found[k] - dense[k]) / (blunt[k] - dense[k]) for k in pieces}
    told = "; ".join(
        f"on {name} the loss rises by {found[name] - dense[name]:.3f}, magnitude's by "
        f"{blunt[name] - dense[name]:.3f}"
        for name in pieces
    )
    score = 100 * sum(saved.values()) / len(saved)
    if min(saved.values()) < 0.5:
        return Scored(False, f"{told}. On both texts at most half as much is asked for.")
    return Scored(True, f"{told}. Score: {score:.0f} % of magnitude's rise avoided.")


TASKS = {
    "14.1": Task(
        draw=drawn_logits,
        answer=confused,
        mistakes={
            "this is the mean cross-entropy; take exp of it": cross_entropy,
            "the mean comes before exp": lambda logits, following: (
                cross_entropy(logits, following, reduction="none").exp().mean()
            ),
            "the chances come from softmax: logits do not add up to one": lambda logits, following: (
                (-logits.gather(1, following[:, None]).mean()).exp()
            ),
            "the logarithm is the natural one": lambda logits, following: (
                cross_entropy(logits, following) / log(2)
            ).exp(),
            "look at the token that followed, not at the likeliest": lambda logits, following: (
                cross_entropy(logits, logits.argmax(1)).exp()
            ),
        },
    ),
    "14.2": Task(
        draw=drawn_layer,
        answer=lambda W, x: pattern(W.abs() * x),
        mistakes={
            "the size of the inputs is not looked at": lambda W, x: pattern(W.abs()),
            "True keeps": lambda W, x: ~pattern(W.abs() * x),
            "two of every four neighbours, not half of each row": lambda W, x: keep_n_of_m(
                {"w": W.abs() * x}, 4, 8
            )["w"],
            "neighbours are inputs: groups lie along a row": lambda W, x: (
                pattern((W.abs() * x).T.contiguous()).T
            ),
            "signs do not count": lambda W, x: pattern(W * x),
        },
    ),
    "14.3": Task(
        draw=drawn_pass,
        answer=one_column,
        mistakes={
            "the others do not move": only_zeroed,
            "the error is w over U's diagonal": lambda W, U, j, keep: (
                W - torch.outer(torch.where(keep, 0.0, W[:, j]), U[j])
            ),
            "the sign: what goes is made up for, not doubled": lambda W, U, j, keep: (
                2 * W - one_column(W, U, j, keep)
            ),
            "True keeps": lambda W, U, j, keep: one_column(W, U, j, ~keep),
            "outputs that keep their weight do not move": lambda W, U, j, keep: one_column(
                W, U, j, torch.zeros_like(keep)
            ),
        },
    ),
}
TRIALS = {"14.4": Trial(ask=lambda: (), judge=calibrated)}
