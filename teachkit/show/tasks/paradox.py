"""The exercises of lesson 11."""

import random

import torch
from torch import Tensor

from teachkit.show.task import Task
from teachkit.show.tasks.taylor import generator


def quadratic(rng: random.Random) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient, Hessian, weights and which of them go."""
    g, w = torch.randn(2, 4, generator=generator(rng), dtype=torch.float64)
    A = torch.randn(4, 4, generator=generator(rng), dtype=torch.float64)
    return (
        g,
        A + A.T,
        w,
        torch.tensor(rng.choice([[True, True, False, True], [False, True, True, False]])),
    )


def samples(rng: random.Random) -> tuple[Tensor]:
    """Changes of six samples' losses for three weights, partly in step."""
    common = torch.randn(6, 1, generator=generator(rng), dtype=torch.float64)
    return (common + 0.5 * torch.randn(6, 3, generator=generator(rng), dtype=torch.float64),)


def dialled(rng: random.Random) -> tuple[Tensor, float]:
    """Changes of eight samples' losses for five weights, and λ."""
    return torch.randn(8, 5, generator=generator(rng), dtype=torch.float64), rng.choice([0.5, 2.0])


def joint(g: Tensor, H: Tensor, w: Tensor, gone: Tensor) -> Tensor:
    """The prediction of the quadratic model for removing all of them."""
    step = torch.where(gone, -w, 0.0)
    return g @ step + 0.5 * step @ H @ step


def single(g: Tensor, H: Tensor, w: Tensor, gone: Tensor) -> Tensor:
    """The sum of the predictions for each alone."""
    return (-g * w + 0.5 * H.diagonal() * w**2)[gone].sum()


def ratio(c: Tensor) -> Tensor:
    """SD of the sum, in units of the SD of a sum of independent ones."""
    return c.sum(1).std(correction=0) / c.var(0, correction=0).sum().sqrt()


TASKS = {
    "11.1": Task(
        draw=quadratic,
        answer=single,
        mistakes={
            "this is the joint prediction; the promise leaves the cross terms out": joint,
            "the gradient's term has the wrong sign: the step to zero is −w": lambda g, H, w, gone: (
                (g * w + 0.5 * H.diagonal() * w**2)[gone].sum()
            ),
            "sum over the weights that go, not over those that stay": lambda g, H, w, gone: single(
                g, H, w, ~gone
            ),
        },
    ),
    "11.2": Task(
        draw=quadratic,
        answer=lambda g, H, w, gone: joint(g, H, w, gone) - single(g, H, w, gone),
        mistakes={
            "this is the whole joint prediction; take the promise off": joint,
            "the sign is turned round: joint less promised": lambda g, H, w, gone: (
                single(g, H, w, gone) - joint(g, H, w, gone)
            ),
        },
    ),
    "11.3": Task(
        draw=samples,
        answer=ratio,
        mistakes={
            "divide by the root of the sum of the variances": lambda c: c.sum(1).std(correction=0),
            "variances add, standard deviations do not: divide by the root of the summed variances": (
                lambda c: c.sum(1).std(correction=0) / c.std(0, correction=0).sum()
            ),
            "take the root of both: these are variances": lambda c: (
                c.sum(1).var(correction=0) / c.var(0, correction=0).sum()
            ),
        },
    ),
    "11.4": Task(
        draw=dialled,
        answer=lambda c, dial: c.mean(0) + dial * c.std(0, correction=0),
        mistakes={
            "this is the mean alone; add λ times the spread": lambda c, dial: c.mean(0),
            "use the standard deviation, not the variance": lambda c, dial: (
                c.mean(0) + dial * c.var(0, correction=0)
            ),
            "divide by n, not by n − 1 (correction=0)": lambda c, dial: c.mean(0) + dial * c.std(0),
            "mean and spread are taken over the samples, the first axis": lambda c, dial: (
                c.mean(1) + dial * c.std(1, correction=0)
            ),
        },
    ),
}
