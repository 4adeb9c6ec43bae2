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
LN10 = math.log(10)


def tied_scores(rng: random.Random, k: int) -> tuple[Tensor, int]:
    """Scores with ties at the threshold, the first one not among those that stay last."""
    scores = [1.0] * 4 + [2.0] * 4 + [3.0] * 2
    rng.shuffle(scores)
    return torch.tensor(scores), k


def keep(scores: Tensor, k: int) -> Tensor:
    """The mask that keeps the k largest, the first ones on ties."""
    return masks.keep_quota({"w": scores}, {"w": k})["w"]


def mask_matrix(rng: random.Random) -> tuple[Tensor]:
    """A mask (outputs, inputs) with a row that keeps everything and one that keeps nothing."""
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


def interacting(rng: random.Random, kind: str) -> tuple[Loss, int, int]:
    """A loss over the masks of a few weights, and how many to keep; adding one by one finds no pair.

    "together": a and b are worth something only together. "replaced": c and d together do what a
    does, so that taking away one by one loses a first. "any": each mask has a loss of its own.
    """
    n, k = (rng.choice([4, 6]), rng.choice([1, 3])) if kind == "any" else (5, 2)
    a, b, c, d, e = [*rng.sample(range(n), n), 0][:5]
    small = {i: rng.uniform(0.1, 0.2) for i in (c, d, e)}
    own = {mask: rng.random() for mask in itertools.product((False, True), repeat=n)}

    def loss(mask: tuple[bool, ...]) -> float:
        worth = sum(w for i, w in small.items() if mask[i])
        if kind == "together":
            return 2 - worth - (mask[a] and mask[b])
        if kind == "replaced":
            return 2 - worth / 10 - (mask[a] or (mask[c] and mask[d])) - 0.5 * mask[b]
        return own[tuple(map(bool, mask))]

    return loss, n, k


def best(loss: Loss, n: int, k: int) -> set[int]:
    """The positions of the best k of n weights, by trying all."""
    subsets = itertools.combinations(range(n), k)
    return set(min(subsets, key=lambda kept: loss(tuple(i in kept for i in range(n)))))


def greedy(loss: Loss, n: int, k: int) -> set[int]:
    """The positions that look best one at a time: the mistake the exercise is about."""
    alone = sorted(range(n), key=lambda i: loss(tuple(j == i for j in range(n))))
    return set(alone[:k])


def backward(loss: Loss, n: int, k: int) -> set[int]:
    """What is left if the weight that costs least now goes, again and again."""
    left = set(range(n))
    while len(left) > k:
        left = min((left - {i} for i in left), key=lambda s: loss(tuple(j in s for j in range(n))))
    return left


def any_on_ties(scores: Tensor, k: int) -> Tensor:
    """The mask of torch.topk, which keeps any of equal scores."""
    return torch.zeros_like(scores, dtype=torch.bool).scatter(0, scores.topk(k).indices, True)


def last_on_ties(scores: Tensor, k: int) -> Tensor:
    """The mask that keeps the k largest, the last ones on ties."""
    return keep(scores.flip(0), k).flip(0)


TASKS = {
    "03.1": Task(
        draw=tied_scores,
        kinds=[3, 4, 5],
        answer=keep,
        mistakes={
            "ties: a threshold keeps every weight with that score; keep exactly k, the first ones": (
                lambda s, k: s >= s.sort().values[-k]
            ),
            "ties: comparing with > keeps fewer than k": lambda s, k: s > s.sort().values[-k],
            "ties: the first ones stay, not the last": last_on_ties,
            "ties: topk keeps any of them; the first ones stay (a stable sort)": any_on_ties,
            "this keeps the smallest scores": lambda s, k: keep(-s, k),
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
            "multiplications first, then additions": lambda m: counted(m)[::-1],
            "an output is a row of the mask, not a column": lambda m: counted(m.T),
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
            "divide by k!, too: this counts each order of the same k weights": (
                lambda n, k: math.log10(math.perm(n, k))
            ),
            "divide by (n − k)!, too": lambda n, k: (
                (math.lgamma(n + 1) - math.lgamma(k + 1)) / LN10
            ),
            "ln n! is lgamma(n + 1), not lgamma(n)": lambda n, k: (
                (math.lgamma(n) - math.lgamma(k) - math.lgamma(n - k)) / LN10
            ),
        },
    ),
    "03.4": Task(
        draw=interacting,
        kinds=["together", "replaced", "any"],
        answer=best,
        mistakes={
            "these weights look best one at a time, but two weights can be worth more together": greedy,
            "this is the worst set: the loss should be small": (
                lambda loss, n, k: best(lambda mask: -loss(mask), n, k)
            ),
            "removed one by one, and what goes first may be missed later": backward,
            "these are the positions that go; return those that stay": (
                lambda loss, n, k: set(range(n)) - best(loss, n, k)
            ),
        },
    ),
}
