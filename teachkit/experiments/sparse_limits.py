"""Where training with noise breaks: one number for depth and noise, and tests of it on other networks.

``python -m teachkit.experiments.sparse_limits`` writes six tables into data/experiments; about an hour
on one core. With MNIST in the folder that ``TEACHKIT_DATA`` names it also writes one for MLPs on
MNIST, float32, in a quarter of an hour. A run that is interrupted goes on.

The number is (1 + s²)^layers − 1: by how much the noise, of relative size s on every weight, adds to the
power of the outputs (``sparse_training.noise_power``). The rest is as in ``sparse_stability``.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import experiments, masks, sparse_training
from teachkit.core.types import Masks
from teachkit.experiments import sparse_stability as before
from teachkit.lab import data
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row
from teachkit.lab.training import fit

SEEDS, DRAWS = [0, 1, 2, 3, 4], 50
POWERS: experiments.Grid = {
    "seed": SEEDS,
    "sigma": [0.25, 0.5, 1.0],
    "depth": [1, 2, 4, 8, 16],
    "width": [16, 64, 256],
}
WIDTHS: experiments.Grid = {
    "seed": SEEDS,
    "kind": ["noise 0.5", "noise 1", "L0, half open", "L0, open", "variational dropout"],
    "width": [16, 64, 256],
    "depth": [4],
}
WIDEST: experiments.Grid = WIDTHS | {"kind": ["noise 0.5", "noise 1"], "width": [1024]}
AFTER: experiments.Grid = {"seed": SEEDS, "width": [16, 64, 256], "depth": [4]}
STARTS: experiments.Grid = {
    "seed": SEEDS,
    "initial": [0.5, 0.7, 0.9, 0.98],
    "strength": [0.0, 0.1, 1.0],
    "depth": [8],
}
CAUSES: experiments.Grid = {
    "seed": SEEDS,
    "way": [
        *("1 draw", "8 draws", "8 times as long", "each sample"),
        "halved, no noise",
        "half open, doubled",
    ],
    "depth": [8, 16],
}
MNIST: experiments.Grid = {"seed": SEEDS, "sigma": [0.0, 0.25, 0.5, 1.0], "depth": [2, 4, 8]}


def power(seed: int, sigma: float, depth: int, width: int) -> Row:
    """By how much noise of size σ raises the mean square of the outputs, of a new network."""
    return {"ratio": ratio(before.network(depth, width, seed), sigma, seed)}


def ratio(net: nn.Module, sigma: float, seed: int) -> float:
    """E ‖z̃‖² / ‖z‖² − 1 over 64 images and so many draws."""
    x, noisy = data.digits().train[0][:64], sparse_training.noise(net, sigma).train()
    torch.manual_seed(seed)
    with torch.no_grad():
        still = float(net(x).square().mean())
        drawn = [float(noisy(x).square().mean()) for _ in range(DRAWS)]
    return sum(drawn) / DRAWS / still - 1


def after(seed: int, width: int, depth: int) -> Row:
    """The noise power before and after training with noise ½."""
    net = before.network(depth, width, seed)
    made, _ = before.trained(net, "noise 0.5", seed)
    return {"new": ratio(net, 0.5, seed), "trained": ratio(made, 0.5, seed)}


def by_width(seed: int, kind: str, width: int, depth: int) -> Row:
    """Four hidden layers, from narrow to wide."""
    return before.judged(before.network(depth, width, seed), kind, seed)


def by_start(seed: int, initial: float, strength: float, depth: int) -> Row:
    """L0 with gates that start half open or more, and with a stronger penalty or none."""
    net = before.network(depth, 64, seed)
    made, kept = gated(net, seed, strength, initial=initial)
    return {"accuracy": accuracy(made, data.digits().test), "sparsity": masks.sparsity(kept)}


def gated(net: nn.Module, seed: int, strength: float, **options: Any) -> tuple[nn.Module, Masks]:
    """The settled network after L0, without the second phase."""
    options |= {"epochs": before.EPOCHS, "finish": 0, "on_empty": "allow"}
    made = sparse_training.l0(
        net, data.digits(), strength, seed=100 + seed, progress=False, **options
    )
    return made[0], made[1]


class Many(nn.Module):
    """Several passes of a network with noise as one longer batch; settled, it is one pass."""

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        self.model, self.draws = model, draws

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of each draw, one after the other."""
        passes = self.draws if self.training else 1
        return torch.cat([self.model(x) for _ in range(passes)])


def _each(outputs: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(outputs, y.repeat(len(outputs) // len(y)))


def cause(seed: int, way: str, depth: int) -> Row:
    """Noise ½ with a gradient of one draw, of eight, or of one for each sample; and two controls.

    The halved weights have no noise; the half-open gates, without penalty, have weights made twice as large.
    """
    net, parts = before.network(depth, 64, seed), data.digits()
    if "," in way:
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(2 if way.endswith("doubled") else 0.5)
    if way.endswith("doubled"):
        return {"accuracy": accuracy(gated(net, seed, 0.0)[0], parts.test)}
    sigma = 0.0 if way.endswith("no noise") else 0.5
    noisy = sparse_training.noise(net, sigma, shared=way != "each sample")
    epochs = before.EPOCHS * (8 if way.endswith("long") else 1)
    options: dict[str, Any] = {"epochs": epochs, "seed": 100 + seed, "progress": False}
    options |= {"optimizer": partial(torch.optim.Adam, lr=1e-3), "loss": _each}
    done, _ = fit(Many(noisy, 8 if way == "8 draws" else 1), parts.train, **options)
    return {"accuracy": accuracy(done.eval(), parts.test)}


def on_mnist(seed: int, sigma: float, depth: int) -> Row:
    """MLPs of equal layers of 100 units on MNIST, three epochs."""
    net = before.network(depth, 100, seed, inputs=784).float()
    noisy = sparse_training.noise(net, sigma)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 128, "seed": 100 + seed}
    options |= {"optimizer": partial(torch.optim.Adam, lr=1e-3), "progress": False}
    done, _ = fit(noisy, experiments.mnist().train, **options)
    return {"accuracy": accuracy(done.get_submodule("model"), experiments.mnist().test)}


TABLES: experiments.Tables = {
    "sparse_powers": (power, POWERS),
    "sparse_trained_power": (after, AFTER),
    "sparse_causes": (cause, CAUSES),
    "sparse_starts": (by_start, STARTS),
    "sparse_widths": (by_width, WIDTHS),
}
LONG: experiments.Tables = {"sparse_widest": (by_width, WIDEST)}  # two minutes a run
ON_MNIST_TABLES: experiments.Tables = {"sparse_mnist_depth": (on_mnist, MNIST)}

if __name__ == "__main__":
    experiments.main({**TABLES, **LONG}, ON_MNIST_TABLES)
