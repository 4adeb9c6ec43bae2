"""Lesson 03: what its explorers and figures draw, and its exercises."""

import itertools
import math
import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

from teachkit import magnitude, masks
from teachkit.core.types import Batch
from teachkit.lab.evaluation import evaluate
from teachkit.show import plots
from teachkit.show.exercises import Task, uniform
from teachkit.show.pictures import Picture


def pruned(model: nn.Module, batch: Batch, sparsity: float, scope: str) -> Picture:
    """The masks of magnitude pruning, layer by layer, and what accuracy they leave."""
    kept = masks.keep_top(
        magnitude.scores(model), sparsity, "layer" if scope == "per layer" else "global"
    )
    accuracy = evaluate(masks.apply(model, kept), batch).accuracy
    shown = {f"{name}\n{int(m.sum())} of {m.numel()} kept": m.numpy() for name, m in kept.items()}
    alt = (
        f"Masks at sparsity {sparsity:g}, {scope}, black keeps; test accuracy {accuracy:.3f}. "
        + "; ".join(title.replace("\n", " ") for title in shown)
    )
    return plots.matrices(shown, alt=alt, title=f"test accuracy {accuracy:.3f}")


Loss = Callable[[tuple[bool, ...]], float]


def tied_scores(rng: random.Random) -> tuple[Tensor, int]:
    """Scores with ties at the threshold, and how many to keep."""
    scores = [1.0] * 4 + [2.0] * 4 + [3.0] * 2
    rng.shuffle(scores)
    return torch.tensor(scores), rng.choice([3, 4, 5])


def keep(scores: Tensor, k: int) -> Tensor:
    """The mask that keeps the k largest, the first ones on ties."""
    return masks.keep_quota({"w": scores}, {"w": k})["w"]


def mask_matrix(rng: random.Random) -> tuple[Tensor]:
    """A mask (outputs, inputs) with one row that keeps nothing."""
    mask = uniform(rng, 0, 1, 4, 5) < 0.6
    mask[0], mask[1] = True, False
    return (mask,)


def counted(mask: Tensor) -> tuple[int, int]:
    """Multiplications and additions of one matrix-vector product under a mask."""
    layer = torch.nn.Linear(mask.shape[1], mask.shape[0], bias=False)
    return masks.total(
        masks.operations(layer, layer.weight.new_ones(1, mask.shape[1]), {"weight": mask})
    )


def sizes(rng: random.Random) -> tuple[int, int]:
    """N weights of which k stay."""
    n = rng.randrange(50, 2000)
    return n, rng.randrange(5, n // 3)


def interacting(rng: random.Random) -> tuple[Loss, int, int]:
    """A loss over masks of five weights in which the first two are worth something only together."""
    worth = [rng.uniform(0.1, 0.2) for _ in range(5)]

    def loss(mask: tuple[bool, ...]) -> float:
        return 2 - sum(w for w, m in zip(worth, mask, strict=True) if m) - (mask[0] and mask[1])

    worth[0] = worth[1] = 0.01
    return loss, 5, 2


def best(loss: Loss, n: int, k: int) -> set[int]:
    """The positions of the best k of n weights, by trying all."""
    subsets = itertools.combinations(range(n), k)
    return set(min(subsets, key=lambda kept: loss(tuple(i in kept for i in range(n)))))


def greedy(loss: Loss, n: int, k: int) -> set[int]:
    """The positions that look best one at a time: the mistake the exercise is about."""
    alone = sorted(range(n), key=lambda i: loss(tuple(j == i for j in range(n))))
    return set(alone[:k])


TASKS = {
    "03.1": Task(
        draw=tied_scores,
        answer=keep,
        mistakes={
            "ties: a threshold keeps every weight with that score; keep exactly k, the first ones": (
                lambda s, k: s >= s.sort(descending=True).values[k - 1]
            ),
            "ties: comparing with > keeps fewer than k": (
                lambda s, k: s > s.sort(descending=True).values[k - 1]
            ),
        },
    ),
    "03.2": Task(
        draw=mask_matrix,
        answer=counted,
        mistakes={
            "adding r numbers takes r − 1 additions": lambda m: (int(m.sum()), int(m.sum())),
            "a row that keeps nothing takes 0 additions, not −1": (
                lambda m: (int(m.sum()), int(m.sum()) - len(m))
            ),
        },
    ),
    "03.3": Task(
        draw=sizes,
        answer=masks.log10_subsets,
        mistakes={
            "nᵏ counts the order in which weights are picked, too: divide by k!": (
                lambda n, k: k * math.log10(n)
            ),
            "this is the natural logarithm; log₁₀ is asked for": (
                lambda n, k: masks.log10_subsets(n, k) * math.log(10)
            ),
            "this is C(n, k) itself; its logarithm is asked for": math.comb,
        },
    ),
    "03.4": Task(
        draw=interacting,
        answer=best,
        mistakes={
            "these weights look best one at a time, but two weights can be worth more together": greedy,
            "this is the worst set: the loss should be small": (
                lambda loss, n, k: best(lambda mask: -loss(mask), n, k)
            ),
        },
    ),
}
