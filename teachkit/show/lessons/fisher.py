"""Lesson 06: what its explorers and figures draw, and its exercises."""

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from teachkit import fisher, masks
from teachkit.core.types import Batch, Scores
from teachkit.lab.curves import spearman
from teachkit.show import plots
from teachkit.show.exercises import Task, normal
from teachkit.show.pictures import Picture


def fisher_ranking(
    model: nn.Module, batch: Batch, exact: Scores, samples: int, damping_exponent: int
) -> Picture:
    """Exact saliencies against ½ (f + λ) w² with f from the first samples and λ = 10^exponent."""
    part = (batch[0][:samples], batch[1][:samples])
    f, weights = fisher.diagonal(model, part), masks.prunable(model)
    scores = {
        n: 0.5 * (f[n] + 10.0**damping_exponent) * w.detach() ** 2 for n, w in weights.items()
    }
    h, s = (parameters_to_vector(each.values()) for each in (exact, scores))
    tenth = len(h) // 10
    same = np.intersect1d(h.topk(tenth).indices, s.topk(tenth).indices).size / tenth
    shown = (h > 1e-12) & (s > 1e-12)
    figure, (axes,) = plots.canvas(width=4.8, height=4.2)
    axes.loglog(h[shown][::3], s[shown][::3], ".", markersize=3, alpha=0.5, rasterized=True)
    decades = [1e-12, 1e-9, 1e-6, 1e-3, 1]
    axes.set(xlim=(1e-12, 1), ylim=(1e-12, 1), xticks=decades, yticks=decades)
    axes.minorticks_off()
    says = f"rank correlation {spearman(h, s):.3f}, {100 * same:.0f} % of the best tenth shared"
    given = f"{samples} samples, damping 10^{damping_exponent}"
    alt = f"Saliencies from the Fisher diagonal, {given}, against exact ones: {says}."
    labels = "½ h w², exact Hessian", "½ (f + λ) w²"
    return plots.finish(figure, alt, *labels, says=says)


def rank_one(rng: random.Random) -> tuple[Tensor, Tensor, int]:
    """An inverse (3, 3), a new gradient (3,) and the number of all gradients."""
    root, g = normal(rng, 2, 3, 3)
    return root @ root.T + torch.eye(3, dtype=torch.float64), g[0], rng.choice([5, 10])


def fisher_of(p: Tensor) -> Tensor:
    """Mean over samples of Σ_c p_c (p − e_c)(p − e_c)ᵀ."""
    s = p[:, None] - torch.eye(p.shape[1], dtype=p.dtype)
    return torch.einsum("nc,nci,ncj->ij", p, s, s) / len(p)


def fisher_at_output(z: Tensor) -> Tensor:
    """The same from the outputs before softmax."""
    return fisher_of(z.softmax(1))


def at_likeliest(z: Tensor) -> Tensor:
    """The same with each sample's likeliest label alone."""
    p = z.softmax(1)
    s = p - torch.nn.functional.one_hot(p.argmax(1), p.shape[1])
    return s.T @ s / len(p)


def unweighted(z: Tensor) -> Tensor:
    """The same with every class counted once."""
    p = z.softmax(1)
    s = p[:, None] - torch.eye(p.shape[1], dtype=p.dtype)
    return torch.einsum("nci,ncj->ij", s, s) / len(p)


def added(A: Tensor, g: Tensor, m: int) -> Tensor:
    """Sherman and Morrison's formula for g gᵀ / m."""
    return A - torch.outer(A @ g, A @ g) / (m + g @ A @ g)


TASKS: dict[str, Task] = {
    "06.1": Task(
        draw=lambda rng: (normal(rng, 5, 3),),
        answer=lambda G: G.T @ G / len(G),
        mistakes={
            "divide by the number of gradients": lambda G: G.T @ G,
            "this is the mean gradient times itself; average the products, not the gradients": (
                lambda G: torch.outer(G.mean(0), G.mean(0))
            ),
            "subtract nothing: this is the covariance, the Fisher matrix keeps the mean": (
                lambda G: torch.cov(G.T, correction=0)
            ),
            "this pairs samples; F pairs weights, so it has one row per weight": (
                lambda G: G @ G.T / len(G)
            ),
            "F is an average: divide by m, not by m − 1": lambda G: G.T @ G / (len(G) - 1),
            "this is the diagonal alone": lambda G: torch.diag((G**2).mean(0)),
        },
    ),
    "06.2": Task(
        draw=lambda rng: (normal(rng, 6, 2), normal(rng, 6, 3)),
        answer=lambda delta, a: (delta**2).T @ a**2 / len(a),
        mistakes={
            "square before you add up the samples: this is the square of the mean gradient": (
                lambda delta, a: (delta.T @ a / len(a)) ** 2
            ),
            "divide by the number of samples": lambda delta, a: (delta**2).T @ a**2,
            "this is the mean gradient; its entries are not squared yet": (
                lambda delta, a: delta.T @ a / len(a)
            ),
            "square the inputs, too": lambda delta, a: (delta**2).T @ a / len(a),
            "square the output gradients, too": lambda delta, a: delta.T @ a**2 / len(a),
            "multiply sample by sample, then average: this is a product of two averages": (
                lambda delta, a: torch.outer((delta**2).mean(0), (a**2).mean(0))
            ),
        },
    ),
    "06.3": Task(
        draw=lambda rng: (normal(rng, 4, 3),),
        answer=fisher_at_output,
        mistakes={
            "weigh every class by its probability p_c": unweighted,
            "all classes count, not the likeliest one alone": at_likeliest,
            "divide by the number of samples": lambda z: fisher_at_output(z) * len(z),
            "softmax over the classes of a sample, the last axis": lambda z: fisher_of(
                z.softmax(0)
            ),
            "this is the diagonal alone; the entries −p_i p_j between classes are missing": (
                lambda z: torch.diag(fisher_at_output(z).diagonal())
            ),
        },
    ),
    "06.4": Task(
        draw=rank_one,
        answer=added,
        mistakes={
            "the new term is g gᵀ / m, so m stands where you have 1": lambda A, g, m: added(
                A, g, 1
            ),
            "the sign is wrong: what is added to F is taken from its inverse": (
                lambda A, g, m: 2 * A - added(A, g, m)
            ),
            "the denominator needs gᵀAg beside m": (
                lambda A, g, m: A - torch.outer(A @ g, A @ g) / m
            ),
            "this changes F; A is its inverse": lambda A, g, m: A + torch.outer(g, g) / m,
            "the denominator has gᵀAg, not gᵀg": lambda A, g, m: (
                A - torch.outer(A @ g, A @ g) / (m + g @ g)
            ),
        },
    ),
}
