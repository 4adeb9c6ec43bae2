"""When training with noise breaks: depth, size of the noise, start of the gates; and what repairs it.

``python -m teachkit.experiments.sparse_stability`` writes four tables into data/experiments; about
half an hour on one core. A run that is interrupted goes on.

All on the digits, MLPs of equal layers that start with N(0, 2 / inputs) (He et al. 2015), thirty epochs of
Adam, five seeds. Judged is the settled network: fixed noise is then gone, a gate is the one without chance.
The second phase, which would repair, is left out.
"""

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from teachkit import experiments, masks, sparse_training
from teachkit.core.types import Batch
from teachkit.engine import gates, sampled
from teachkit.engine.sampled import Sampled
from teachkit.lab import data, models
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row
from teachkit.lab.training import fit

SEEDS, EPOCHS, DRAWS, OUTCOMES = [0, 1, 2, 3, 4], 30, 100, 200_000
KINDS = [
    *(f"noise {sigma}" for sigma in (0, 0.25, 0.5, 1, 2)),
    *("noise 0.5, each sample", "noise 1, each sample"),
    *("L0, half open", "L0, half open, no penalty", "L0, open", "variational dropout"),
]
DEPTHS: experiments.Grid = {"seed": SEEDS, "kind": KINDS, "depth": [1, 2, 4, 8, 16]}
REPAIRS: experiments.Grid = {
    "seed": SEEDS,
    "kind": ["noise 0.5", "L0, half open", "variational dropout"],
    "repair": ["none", "residual", "norm", "rate / 5", "warm-up", "twice as long", "torch's start"],
    "depth": [8],
}
GRADIENTS: experiments.Grid = {
    "seed": SEEDS,
    "at": ["start", "trained"],
    "kind": [kind for kind in KINDS[1:] if "penalty" not in kind],
    "depth": [2, 4, 8, 16],
}
ESTIMATORS: experiments.Grid = {
    "estimator": [
        *("score function", "score function, baseline", "straight through", "hard concrete"),
        *("noise, score", "noise, score, baseline", "noise, reparametrised"),
    ],
    "spread": [0.1, 0.5, 1.0],
}


class Skip(nn.Module):
    """A layer whose result is added to what it reads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        """The same width out as in."""
        return h + torch.relu(self.inner(h))


def network(depth: int, width: int, seed: int, repair: str = "none", inputs: int = 64) -> nn.Module:
    """An MLP with equal hidden layers; with residual connections, or layer normalisation, if asked."""
    net = models.build(lambda: [nn.Flatten(), *layers(depth, width, repair, inputs)], seed)
    dice = torch.Generator().manual_seed(1000 + seed)
    for part in net.modules() if repair != "torch's start" else ():
        if isinstance(part, nn.Linear):
            w = torch.randn(part.weight.shape, generator=dice, device="cpu")
            inner = repair == "residual" and part.in_features == part.out_features
            part.weight.data = w * (2 / part.in_features / (depth if inner else 1)) ** 0.5
            part.bias.data.zero_()
    return net


def layers(depth: int, width: int, repair: str, inputs: int) -> list[nn.Module]:
    """The layers after the images are flattened."""
    first = [nn.Linear(inputs, width), nn.ReLU()]
    if repair == "residual":
        return [*first, *(Skip(width) for _ in range(depth - 1)), nn.Linear(width, 10)]
    made = models.dense(inputs, (width,) * depth, 10)
    if repair != "norm":
        return made
    hidden = [part for part in made if isinstance(part, nn.Linear)][:-1]
    three = [[part, nn.LayerNorm(width), nn.ReLU()] for part in hidden]
    return [*(part for parts in three for part in parts), made[-1]]


def trained(net: nn.Module, kind: str, seed: int, repair: str = "none") -> tuple[nn.Module, float]:
    """The settled network after training with a kind of noise, and its sparsity."""
    epochs = 2 * EPOCHS if repair.startswith("twice") else EPOCHS
    rate = 2e-4 if repair.startswith("rate") else 1e-3
    if kind.startswith("noise"):
        Adam = partial(torch.optim.Adam, lr=rate)
        options: dict[str, Any] = {"optimizer": Adam, "seed": 100 + seed, "progress": False}
        if repair == "warm-up":  # the noise comes after a third without
            net, _ = fit(net, data.digits().train, epochs=epochs // 3, **options)
            epochs -= epochs // 3
        done, _ = fit(start(net, kind), data.digits().train, epochs=epochs, **options)
        return done.get_submodule("model"), 0.0
    options = {"seed": 100 + seed, "progress": False, "on_empty": "allow", "finish": 0}
    options |= {"epochs": epochs, "rate": rate, "warm": 0.6 if repair == "warm-up" else 0.0}
    train = sparse_training.variational_dropout
    if kind.startswith("L0"):
        initial = 0.5 if "half" in kind else 0.9
        strength = 0.0 if "no penalty" in kind else 0.1
        train = partial(sparse_training.l0, strength=strength, initial=initial)
    else:
        options["warm"] = 0.5
    model, kept, _ = train(net, data.digits(), **options)
    return model, masks.sparsity(kept)


def judged(net: nn.Module, kind: str, seed: int, repair: str = "none") -> Row:
    """Test accuracy and sparsity; a training that diverged has an accuracy of 0."""
    try:
        model, sparsity = trained(net, kind, seed, repair)
    except ValueError as error:
        if "diverged" not in str(error) and "NaN" not in str(error):
            raise
        return {"accuracy": 0.0, "sparsity": 0.0, "diverged": True}
    right = accuracy(model, data.digits().test)
    return {"accuracy": right, "sparsity": sparsity, "diverged": False}


def by_depth(seed: int, kind: str, depth: int) -> Row:
    """Hidden layers of 64 units."""
    return judged(network(depth, 64, seed), kind, seed)


def repaired(seed: int, kind: str, repair: str, depth: int) -> Row:
    """As :func:`by_depth` with one thing changed; variational dropout has its warm-up in any case."""
    return judged(network(depth, 64, seed, repair), kind, seed, repair)


def start(net: nn.Module, kind: str) -> Sampled:
    """The network as its training with a kind of noise begins."""
    if kind.startswith("noise"):
        sigma = float(kind.split(",")[0].split()[1])
        return sparse_training.noise(net, sigma, shared="each" not in kind)
    if kind.startswith("L0"):
        wires = gates.wiring(net, None, "weight")
        phi = gates.row(wires, net, 0.0 if "half" in kind else 2.2)
        draw = partial(gates.by_gates, wires, _gate)
        return Sampled(net, phi, draw, sampled.as_it_is)
    phi = {name: torch.full_like(w, -10.0) for name, w in masks.prunable(net).items()}
    return sampled.Local(net, phi, sampled.variances, sampled.as_it_is)


def _gate(log_alpha: Tensor) -> Tensor:
    return sparse_training.gate(log_alpha, torch.rand_like(log_alpha))


def gradients(seed: int, at: str, kind: str, depth: int) -> Row:
    """‖E g‖² and E ‖g − E g‖² over θ on one batch of 64, and ‖g‖² of the network without noise.

    At the start, or of a network that was trained without noise; there the accuracy with noise, too.
    """
    net, (train, test) = network(depth, 64, seed), data.digits()
    if at == "trained":
        net = dense(depth, seed)
    batch: Batch = train[0][:64], train[1][:64]
    torch.manual_seed(seed)
    signal, noise = sparse_training.gradient_noise(start(net, kind), batch, DRAWS)
    still, _ = sparse_training.gradient_noise(sparse_training.noise(net, 0), batch, 2)
    with torch.no_grad():
        drawn = [start(net, kind).train()(test[0]) for _ in range(20)]
    right = torch.stack(drawn).argmax(2) == test[1]
    return {
        "signal": signal,
        "noise": noise,
        "still": still,
        "accuracy": float(right.double().mean()),
    }


@cache
def dense(depth: int, seed: int) -> nn.Module:
    """The network trained without noise."""
    train = data.digits().train
    return fit(network(depth, 64, seed), train, epochs=EPOCHS, seed=100 + seed, progress=False)[0]


WEIGHTS = torch.tensor([0.8, -1.1, 0.6])


def three_weights(v: Tensor) -> Tensor:
    """The loss of a net with three weights, v₃ tanh(v₁ x₁ + v₂ x₂), for each row of v."""
    dice = torch.Generator().manual_seed(3)
    x = torch.randn(8, 2, generator=dice, dtype=v.dtype, device="cpu")
    y = torch.sin(3 * x[:, 0]) - x[:, 1]
    return ((v[:, 2:] * torch.tanh(v[:, :2] @ x.T) - y) ** 2).mean(1)


def estimator(estimator: str, spread: float) -> Row:
    """Bias, its standard error, and variance of a gradient with three numbers, summed over them.

    ``spread``: for noise σ; for coins the temperature of the hard-concrete gate, the others do not
    have one. The coins' bias is against the coin itself, and so is that of the gate that stands for it.
    """
    rows, want = slopes(estimator, spread)
    bias = rows.mean(0) - want
    error = rows.var(0) / len(rows)
    sums = {"bias": bias.norm(), "error": error.sum().sqrt(), "variance": rows.var(0).sum()}
    return {"gradient": float(want.norm())} | {name: float(each) for name, each in sums.items()}


def slopes(name: str, spread: float, draws: int = OUTCOMES) -> tuple[Tensor, Tensor]:
    """What an estimator says at each of so many draws, (draws, 3), and the exact gradient, (3,)."""
    dice = torch.Generator().manual_seed(0)
    w = WEIGHTS.to(torch.get_default_dtype())
    if name.startswith("noise"):
        eps = torch.randn(draws, 3, generator=dice, device="cpu")
        value, want = sparse_training.exact_noise(three_weights, w, spread)
        if name.endswith("reparametrised"):
            return sparse_training.noise_slope(three_weights, w, spread, eps), want
        baseline = float(value) if name.endswith("baseline") else 0.0
        return sparse_training.noise_score(three_weights, w, spread, eps, baseline), want
    phi, gated = torch.tensor([0.4, -0.3, 1.0]).to(w.dtype), _of_gates
    u = torch.rand(draws, 3, generator=dice, device="cpu")
    value, want = sparse_training.exact_coins(gated, phi)
    if name == "hard concrete":
        at = phi.expand(draws, 3).clone().requires_grad_()
        loss = gated(sparse_training.gate(at, u, spread)).sum()
        return torch.autograd.grad(loss, at)[0], want
    m = (u < torch.sigmoid(phi)).to(w.dtype)
    if name == "straight through":
        return sparse_training.straight_through(gated, phi, m), want
    baseline = float(value) if name.endswith("baseline") else 0.0
    return sparse_training.score_function(gated, phi, m, baseline), want


def _of_gates(m: Tensor) -> Tensor:
    return three_weights(m * WEIGHTS.to(m.dtype))


TABLES: experiments.Tables = {
    "sparse_estimators": (estimator, ESTIMATORS),
    "sparse_gradients": (gradients, GRADIENTS),
    "sparse_depth": (by_depth, DEPTHS),
    "sparse_repairs": (repaired, REPAIRS),
}

if __name__ == "__main__":
    experiments.write(TABLES)
