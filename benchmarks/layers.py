"""OBS on a whole matrix and layer by layer: time, drift, and what it keeps of layer and network.

The whole matrices are random, so that their size and condition can be chosen.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from benchmarks.cases import Case, Competitor, Table
from benchmarks.inputs import accuracy, images, mnist, words
from teachkit import lab, magnitude, masks, obs
from teachkit.core.types import Batch, Data, Masks
from teachkit.engine.grams import wanda_scores
from teachkit.experiments import removals

SEEDS, EPOCHS, CALIBRATION = 5, 6, 10_000
SPARSITIES = (0.9, 0.95)
Prune = Callable[[nn.Module, Batch, float], nn.Module]
Select = Callable[[nn.Module, Batch, float], Masks]


def cases(quick: bool) -> list[Case]:
    """One layer; the two slow ways, without blocks and without batches, run on one row."""
    rows, n, steps = (4, 50, 3) if quick else (300, CALIBRATION, 8)
    (x, _), what = images(n, (1, 8, 8) if quick else (1, 28, 28))
    X = x.flatten(1)
    W = 0.05 * torch.randn(rows, X.shape[1], generator=torch.Generator().manual_seed(0))
    H, all_of_it = X.T @ X, f"1 of {rows} rows, scaled up"
    first = f"the first {steps} removals of 1 row, scaled up by (1 + 2³ + … + in³) / steps"
    gram = "H = XᵀX alone"
    competitors = {
        gram: Competitor(lambda: X.T @ X),
        "single pass (SparseGPT), 90 %": Competitor(partial(obs.prune_layer_pass, W, X, 0.9)),
        "exact trace (all sparsities)": Competitor(partial(obs.trace_layer, W, X)),
        "exact, pruned at 90 %": Competitor(partial(obs.prune_layer, W, X, 0.9)),
        "rank-one downdate, row by row": Competitor(partial(downdates, W[0], H), rows, all_of_it),
        "new inverse for each removal": Competitor(
            partial(inverses, W[0], H, steps), _cubes(len(H), steps) * rows, first
        ),
    }
    return [Case(f"{rows} × {len(H)}, {n:,} rows of {what}", gram, competitors)]


def tables(quick: bool) -> list[Table]:
    """Whole matrices; output error on test inputs, and accuracy of networks that are not retrained."""
    sizes, repeats, n = ((40,), 1, 20) if quick else ((500, 1000, 2000), 5, 400)
    speed, drift = removals.speed_rows, removals.drift_rows
    data, what = _data(quick)
    calibration = (data.train[0][:CALIBRATION], data.train[1][:CALIBRATION])
    runs: dict[str, list[list[float]]] = {name: [] for name in ("dense", *METHODS)}
    seeds = range(2 if quick else SEEDS)
    for seed in tqdm(seeds, desc="networks", leave=False):
        net = _trained(seed, quick)
        runs["dense"].append([accuracy(net, data)] * len(SPARSITIES))
        for name, prune in METHODS.items():
            runs[name].append([accuracy(prune(net, calibration, s), data) for s in SPARSITIES])
    text = (
        f"MLP on {what}, {len(seeds)} seeds, {len(calibration[0]):,} calibration samples, "
        "nothing retrained; mean and 95 % interval."
    )
    rows = [[name, *map(words, zip(*each, strict=True))] for name, each in runs.items()]
    head = ["", *(f"{s:.0%}" for s in SPARSITIES)]
    return [
        as_table("Removing half of n weights", speed(sizes, repeats), speed),
        as_table("Drift after half of the removals", drift(n), drift),
        _errors(_trained(0, quick), calibration, data.test),
        Table("Test accuracy, all layers pruned", head, rows, text),
    ]


def as_table(title: str, rows: Sequence[dict[str, Any]], about: object) -> Table:
    """A table from dicts, with the words of the function that made them.

    >>> as_table("t", [{"n": 2, "ratio": 1.23456}], len).rows
    [['2', '1.23']]
    """
    head = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[row.get(key, "") for key in head] for row in rows]
    text = [[f"{c:.3g}" if isinstance(c, float) else str(c) for c in row] for row in cells]
    return Table(title, head, text, " ".join((about.__doc__ or "").split()))


def downdates(w: Tensor, H: Tensor) -> Tensor:
    """One row by the textbook: the full inverse is changed by a rank-one matrix at every removal."""
    return torch.tensor(removals.downdate_in_place(_ridged(H), w, len(w))[1])


def inverses(w: Tensor, H: Tensor, steps: int) -> Tensor:
    """The first removals of one row, each from a fresh inverse of what is left."""
    w, alive = w.clone(), torch.arange(len(w))
    for _ in range(steps):
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(_ridged(H[alive][:, alive])))
        q = int((w[alive].square() / inverse.diagonal()).argmin())
        w[alive] -= inverse[:, q] * (w[alive[q]] / inverse[q, q])
        alive = torch.cat([alive[:q], alive[q + 1 :]])
    return w[alive]


def _ridged(H: Tensor) -> Tensor:
    return H + 1e-6 * H.diagonal().mean() * torch.eye(len(H), dtype=H.dtype)


def _cubes(n: int, steps: int) -> float:
    """The work of all removals over that of the first few, each the cube of what is left."""
    return sum(m**3 for m in range(n + 1)) / sum(m**3 for m in range(n - steps + 1, n + 1))


def wanda(net: nn.Module, batch: Batch, sparsity: float) -> Masks:
    """Wanda as in the paper: the same share of each row; Linear layers only."""
    kept: Masks = {}
    for name, scores in wanda_scores(net, batch).items():
        n = scores.shape[1]
        kept |= masks.keep_n_of_m({name: scores}, n - masks.removed(n, sparsity), n)
    return kept


def surgery(net: nn.Module, batch: Batch, sparsity: float, **ways: str) -> nn.Module:
    """Layer-wise OBS."""
    return obs.prune_layers(net, batch, sparsity, **ways)[0]  # type: ignore[arg-type]


def masked(select: Select, net: nn.Module, batch: Batch, sparsity: float) -> nn.Module:
    """What a criterion keeps."""
    return masks.apply(net, select(net, batch, sparsity))


def refitted(select: Select, net: nn.Module, batch: Batch, sparsity: float) -> nn.Module:
    """What a criterion keeps, each layer refitted to its own output."""
    return obs.refit_layers(net, batch, select(net, batch, sparsity))


SELECT: dict[str, Select] = {
    "magnitude per layer": lambda net, _, s: masks.keep_top(magnitude.scores(net), s, "layer"),
    "magnitude global": lambda net, _, s: masks.keep_top(magnitude.scores(net), s),
    "Wanda": wanda,
}
METHODS: dict[str, Prune] = {
    **{name: partial(masked, select) for name, select in SELECT.items()},
    **{f"{name} + refit": partial(refitted, select) for name, select in SELECT.items()},
    "single pass (SparseGPT)": partial(surgery, method="pass"),
    "exact OBS, per row": partial(surgery, scope="row"),
    "exact OBS, per layer": partial(surgery, scope="layer"),
    "exact OBS, global": partial(surgery, scope="global"),
}


def _errors(net: nn.Module, calibration: Batch, test: Batch) -> Table:
    """How much the first layer's output changes on inputs it was not fitted to."""
    first = next(module for module in net.modules() if isinstance(module, nn.Linear))
    seen, X = (calibration[0].flatten(1), calibration[1]), test[0].flatten(1)
    dense = X @ first.weight.detach().T
    rows = []
    for name, prune in METHODS.items():
        if "global" in name:
            continue  # for one layer the same as per layer
        pruned = (prune(nn.Sequential(first), seen, s) for s in (0.5, 0.75, 0.9))
        changes = (X @ next(one.parameters()).detach().T - dense for one in pruned)
        rows.append([name, *(f"{float((c.norm() / dense.norm()) ** 2):.2g}" for c in changes)])
    text = "‖XW′ᵀ − XWᵀ‖² / ‖XWᵀ‖² on the test inputs, first layer of the first network."
    return Table("Output error of one layer", ["", "50 %", "75 %", "90 %"], rows, text)


def _data(quick: bool) -> tuple[Data, str]:
    data = None if quick else mnist()
    return (data, "MNIST") if data else (lab.data.digits(), "digits")


@cache
def _trained(seed: int, quick: bool) -> nn.Module:
    """A network trained in float32, whatever the rest runs in."""
    x, y = _data(quick)[0].train
    net = lab.models.mlp(tuple(x.shape[1:]), hidden=(16,) if quick else (300, 100), seed=seed)
    rate = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=EPOCHS)
    options: dict[str, Any] = {"epochs": EPOCHS, "batch_size": 128, "scheduler": rate, "seed": seed}
    fitted, _ = lab.training.fit(net.float(), (x.float(), y), **options, progress=False)
    return fitted.to(torch.get_default_dtype())
