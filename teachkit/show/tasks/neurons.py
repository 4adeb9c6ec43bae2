"""The exercises of lesson 12."""

import random

import torch
from torch import Tensor

from teachkit.show.task import Task


def parallel(rng: random.Random) -> tuple[Tensor, int, int, float]:
    """Outgoing weights (out, units), the unit i that stays, j that goes, and the ratio a_j / a_i."""
    V = torch.tensor([[rng.uniform(-2, 2) for _ in range(4)] for _ in range(3)])
    i, j = rng.sample(range(4), 2)
    return V, i, j, rng.uniform(0.3, 3)


def merged(V: Tensor, i: int, j: int, ratio: float) -> Tensor:
    """Add ratio · v_j to v_i and leave column j out."""
    V = V.clone()
    V[:, i] += ratio * V[:, j]
    return torch.cat([V[:, :j], V[:, j + 1 :]], 1)


def layer(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """Activations (n, units), outgoing weights (out, units) and which units stay."""
    A = torch.tensor([[rng.uniform(0, 2) for _ in range(5)] for _ in range(12)])
    V = torch.tensor([[rng.uniform(-2, 2) for _ in range(5)] for _ in range(3)])
    keep = torch.tensor([True, False, *(rng.random() < 0.6 for _ in range(3))])
    return A, V, keep


def refit(A: Tensor, V: Tensor, keep: Tensor) -> Tensor:
    """(out, kept), the least-squares weights."""
    found: Tensor = torch.linalg.lstsq(A[:, keep], A @ V.T).solution.T
    return found


def curved(rng: random.Random) -> tuple[Tensor, Tensor]:
    """Outgoing weights (out, units) and H = AᵀA."""
    A, V, _ = layer(rng)
    return V, A.T @ A


def cost(V: Tensor, H: Tensor) -> Tensor:
    """‖v_j‖² / [H⁻¹]_jj."""
    price: Tensor = (V**2).sum(0) / torch.linalg.inv(H).diagonal()
    return price


def played(rng: random.Random) -> tuple[Tensor, Tensor, int]:
    """All masks of four units (16, 4), a value for each, and a unit."""
    masks = (torch.arange(16)[:, None] >> torch.arange(3, -1, -1) & 1).bool()
    values = torch.tensor([rng.uniform(-1, 1) for _ in range(16)])
    return masks, values, rng.randrange(4)


def worth(masks: Tensor, values: Tensor, j: int) -> float:
    """Mean value with the unit minus mean value without it."""
    return float(values[masks[:, j]].mean() - values[~masks[:, j]].mean())


TASKS = {
    "12.1": Task(
        draw=parallel,
        answer=merged,
        mistakes={
            "unit j says ratio times what unit i says: multiply its weights by the ratio": (
                lambda V, i, j, ratio: merged(V, i, j, 1.0)
            ),
            "the ratio is upside down": lambda V, i, j, ratio: merged(V, i, j, 1 / ratio),
            "this deletes the unit: its weights must be added to those of unit i": (
                lambda V, i, j, ratio: merged(V, i, j, 0.0)
            ),
            "unit j goes and unit i stays": (lambda V, i, j, ratio: merged(V, j, i, ratio)),
        },
    ),
    "12.2": Task(
        draw=layer,
        answer=refit,
        mistakes={
            "these are the old weights of the units that stay; refit them": (
                lambda A, V, keep: V[:, keep]
            ),
            "transpose: torch stores (outputs, units)": lambda A, V, keep: refit(A, V, keep).T,
            "the target is what all units said together, A Vᵀ": (
                lambda A, V, keep: (
                    torch.linalg.lstsq(A[:, keep], A[:, ~keep] @ V[:, ~keep].T).solution.T
                )
            ),
        },
    ),
    "12.3": Task(
        draw=curved,
        answer=cost,
        mistakes={
            "divide by the diagonal of the inverse, not by the inverse of the diagonal": (
                lambda V, H: (V**2).sum(0) * H.diagonal()
            ),
            "this forgets the outgoing weights": (lambda V, H: 1 / torch.linalg.inv(H).diagonal()),
            "square the length of the column": (
                lambda V, H: V.norm(dim=0) / torch.linalg.inv(H).diagonal()
            ),
            "each unit has its own outgoing weights, one column": (
                lambda V, H: (V**2).sum() / torch.linalg.inv(H).diagonal()
            ),
        },
    ),
    "12.4": Task(
        draw=played,
        answer=worth,
        mistakes={
            "this is leave-one-out: it compares two masks only": (
                lambda masks, values, j: float(values[-1] - values[15 - 2 ** (3 - j)])
            ),
            "without minus with: the sign is the other way round": (
                lambda masks, values, j: -worth(masks, values, j)
            ),
            "subtract the mean without the unit": (
                lambda masks, values, j: float(values[masks[:, j]].mean())
            ),
        },
    ),
}
