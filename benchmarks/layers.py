"""Layer-wise OBS: the full trace of a 300 × 784 layer, and what it keeps of layer and network."""

import math
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from benchmarks.cases import Case, Competitor, Table
from benchmarks.inputs import images, mnist
from teachkit import lab, magnitude, masks, obs
from teachkit.core.types import Batch, Data, Masks
from teachkit.engine import layerwise
from teachkit.engine.grams import gram
from teachkit.engine.layerwise import DAMPING
from teachkit.engine.refit import choose
from teachkit.lab.curves import interval
from teachkit.lab.evaluation import evaluate

SEEDS, EPOCHS, CALIBRATION = 5, 6, 10_000
SPARSITIES = (0.9, 0.95)
Prune = Callable[[nn.Module, Batch, float], nn.Module]


def cases(quick: bool) -> list[Case]:
    """One layer; the two slow ways, without blocks and without batches, run on one row."""
    rows, n = (4, 50) if quick else (300, CALIBRATION)
    shape = (1, 8, 8) if quick else (1, 28, 28)
    (x, _), what = images(n, shape)
    inputs = x.flatten(1)
    generator = torch.Generator().manual_seed(0)
    weight = 0.05 * torch.randn(rows, inputs.shape[1], generator=generator)
    steps = 3 if quick else 8
    part = f"1 of {rows} rows, scaled up"
    first = f"the first {steps} removals of 1 row, scaled up by (1 + 2³ + … + in³) / steps"
    competitors = {
        "H = XᵀX alone": Competitor(partial(gram, inputs)),
        "single pass (SparseGPT), 90 %": Competitor(
            partial(obs.prune_layer_pass, weight, inputs, 0.9)
        ),
        "exact trace (all sparsities)": Competitor(partial(obs.trace_layer, weight, inputs)),
        "exact, pruned at 90 %": Competitor(partial(obs.prune_layer, weight, inputs, 0.9)),
        "rank-one downdate, row by row": Competitor(
            partial(downdates, weight[0], gram(inputs)), rows, part
        ),
        "new inverse for each removal": Competitor(
            partial(inverses, weight[0], gram(inputs), steps), _cubes(inputs, steps) * rows, first
        ),
    }
    title = f"{rows} × {inputs.shape[1]}, {n:,} rows of {what}"
    return [Case(title, "H = XᵀX alone", competitors)]


def tables(quick: bool) -> list[Table]:
    """Output error on test inputs, and accuracy of whole networks that are not retrained."""
    data, what = _data(quick)
    calibration = (data.train[0][:CALIBRATION], data.train[1][:CALIBRATION])
    runs: dict[str, list[list[float]]] = {name: [] for name in ("dense", *METHODS)}
    seeds = range(2 if quick else SEEDS)
    for seed in tqdm(seeds, desc="networks", leave=False):
        net = _trained(seed, quick)
        runs["dense"].append([evaluate(net, data.test).accuracy] * len(SPARSITIES))
        for name, prune in METHODS.items():
            pruned = [prune(net, calibration, s) for s in SPARSITIES]
            runs[name].append([evaluate(one, data.test).accuracy for one in pruned])
    text = (
        f"{_sizes(net)} on {what}, {len(seeds)} seeds, {len(calibration[0]):,} calibration samples, "
        "nothing retrained; mean and 95 % interval."
    )
    rows = [[name, *map(_interval, zip(*found, strict=True))] for name, found in runs.items()]
    head = ["", *(f"{s:.0%}" for s in SPARSITIES)]
    return [
        _errors(_trained(0, quick), calibration, data.test),
        Table("Test accuracy, all layers pruned", head, rows, text),
    ]


def downdates(w: Tensor, H: Tensor) -> Tensor:
    """One row by the textbook: the full inverse is changed by a rank-one matrix at every removal."""
    inverse, w, gone = _inverse(H), w.clone(), torch.zeros(len(w), dtype=torch.bool)
    order = []
    for _ in range(len(w)):
        cost = (w.square() / inverse.diagonal()).masked_fill(gone, math.inf)
        q = int(cost.argmin())
        column = inverse[:, q].clone()
        w -= column * (w[q] / column[q])
        inverse -= torch.outer(column, column / column[q])
        gone[q], w[q] = True, 0.0
        inverse.diagonal()[q] = 1.0
        order.append(q)
    return torch.tensor(order)


def inverses(w: Tensor, H: Tensor, steps: int) -> Tensor:
    """The first removals of one row, each from a fresh inverse of what is left."""
    w, alive = w.clone(), torch.arange(len(w))
    for _ in range(steps):
        inverse = _inverse(H[alive][:, alive])
        q = int((w[alive].square() / inverse.diagonal()).argmin())
        w[alive] -= inverse[:, q] * (w[alive[q]] / inverse[q, q])
        alive = torch.cat([alive[:q], alive[q + 1 :]])
    return w[alive]


class Parts(NamedTuple):
    """What all methods share of one network and batch: weights, H and traces by layer."""

    weights: dict[str, Tensor]
    grams: dict[str, Tensor]
    traces: dict[str, obs.Trace]


@lru_cache(maxsize=1)
def parts(net: nn.Module, batch: Batch) -> Parts:
    """Compute them once for the network at hand."""
    weights, grams = layerwise.matrices(net, batch)
    # Losses in units of the layer's output energy: the order within a layer is the same.
    traces = {n: layerwise.traced(w, grams[n], DAMPING, "global") for n, w in weights.items()}
    return Parts(weights, grams, traces)


def wanda(net: nn.Module, batch: Batch, sparsity: float) -> Masks:
    """|w| · ‖x_j‖₂, the same share of each row (Sun et al., ICLR 2024); Linear layers only."""
    weights, grams, _ = parts(net, batch)
    kept: Masks = {}
    for name, w in weights.items():
        score = w.abs() * grams[name][0].diagonal().sqrt()
        order = score.argsort(dim=1, descending=True, stable=True)
        k = w.shape[1] - masks.removed(w.shape[1], sparsity)
        kept[name] = torch.zeros_like(w, dtype=torch.bool).scatter_(1, order[:, :k], True)
    return kept


def surgery(scope: str) -> Prune:
    """Layer-wise OBS as ``obs.prune_layers`` does it, from the shared traces."""

    def prune(net: nn.Module, batch: Batch, sparsity: float) -> nn.Module:
        weights, grams, traces = parts(net, batch)
        kept = choose(weights, traces, sparsity, scope)
        return layerwise.refitted(net, weights, grams, kept, DAMPING)

    return prune


def _by_magnitude(scope: str) -> Callable[[nn.Module, Batch, float], Masks]:
    return lambda net, batch, s: masks.keep_top(magnitude.scores(net), s, scope)


def _masked(select: Callable[[nn.Module, Batch, float], Masks]) -> Prune:
    return lambda net, batch, s: masks.apply(net, select(net, batch, s))


def _refitted(select: Callable[[nn.Module, Batch, float], Masks]) -> Prune:
    def prune(net: nn.Module, batch: Batch, sparsity: float) -> nn.Module:
        weights, grams, _ = parts(net, batch)
        return layerwise.refitted(net, weights, grams, select(net, batch, sparsity), DAMPING)

    return prune


def _single_pass(net: nn.Module, batch: Batch, sparsity: float) -> nn.Module:
    return obs.prune_layers(net, batch, sparsity, method="pass")[0]


METHODS: dict[str, Prune] = {
    "magnitude, per layer": _masked(_by_magnitude("layer")),
    "magnitude, global": _masked(_by_magnitude("global")),
    "Wanda": _masked(wanda),
    "magnitude per layer + refit": _refitted(_by_magnitude("layer")),
    "magnitude global + refit": _refitted(_by_magnitude("global")),
    "Wanda + refit": _refitted(wanda),
    "single pass (SparseGPT)": _single_pass,
    "exact OBS, per row": surgery("row"),
    "exact OBS, per layer": surgery("layer"),
    "exact OBS, global": surgery("global"),
}


def _errors(net: nn.Module, calibration: Batch, test: Batch) -> Table:
    """How much the first layer's output changes on inputs it was not fitted to."""
    first = next(module for module in net.modules() if isinstance(module, nn.Linear))
    layer = nn.Sequential(first)
    seen, unseen = ((x.flatten(1), y) for x, y in (calibration, test))
    dense = unseen[0] @ first.weight.detach().T
    rows = []
    for name, prune in METHODS.items():
        if "global" in name:
            continue  # for one layer the same as per layer
        errors = []
        for s in (0.5, 0.75, 0.9):
            pruned = prune(layer, seen, s)[0].weight.detach()  # type: ignore[index]
            change = unseen[0] @ pruned.T - dense
            errors.append(float(change.square().sum() / dense.square().sum()))
        rows.append([name, *(f"{error:.2g}" for error in errors)])
    text = "‖XW′ᵀ − XWᵀ‖² / ‖XWᵀ‖² on the test inputs, first layer of the first network."
    return Table("Output error of one layer", ["", "50 %", "75 %", "90 %"], rows, text)


def _data(quick: bool) -> tuple[Data, str]:
    data = None if quick else mnist()
    return (data, "MNIST") if data else (lab.data.digits(), "digits")


@cache
def _trained(seed: int, quick: bool) -> nn.Module:
    """A network trained in float32, whatever the rest runs in."""
    data, _ = _data(quick)
    shape = tuple(data.train[0].shape[1:])
    net = lab.models.mlp(shape, hidden=(16,) if quick else (300, 100), seed=seed).float()
    train = (data.train[0].float(), data.train[1])
    rate = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=EPOCHS)
    fitted, _ = lab.training.fit(
        net, train, epochs=EPOCHS, batch_size=128, scheduler=rate, seed=seed, progress=False
    )
    return fitted.to(torch.get_default_dtype())


def _sizes(net: nn.Module) -> str:
    """The widths of a network of Linear layers, e.g. 784-300-100-10."""
    widths = [w.shape for w in masks.prunable(net).values()]
    return "-".join(str(n) for n in (widths[0][1], *(shape[0] for shape in widths)))


def _interval(runs: tuple[float, ...]) -> str:
    found = interval(runs)
    return f"{float(found.mean):.4f} [{float(found.low):.4f}, {float(found.high):.4f}]"


def _inverse(H: Tensor) -> Tensor:
    ridge = 1e-6 * H.diagonal().mean() * torch.eye(len(H), dtype=H.dtype)
    return torch.cholesky_inverse(torch.linalg.cholesky(H + ridge))


def _cubes(inputs: Tensor, steps: int) -> float:
    """The work of all removals over that of the first few, each the cube of what is left."""
    n = inputs.shape[1]
    return sum(m**3 for m in range(n + 1)) / sum(m**3 for m in range(n - steps + 1, n + 1))
