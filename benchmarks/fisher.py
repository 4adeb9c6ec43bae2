"""The Fisher matrix for the Hessian: cost of its diagonals and inverses, and how good they are."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from benchmarks.cases import Case, Competitor, Table
from benchmarks.inputs import PASS, accuracy, images, mnist, one_pass, words
from teachkit import fisher, lab, magnitude, obd
from teachkit.core.types import Batch, Data, Scores
from teachkit.lab.curves import accuracy_curve

SEEDS, SPARSITIES = 5, (0.8, 0.9, 0.95)
SAMPLES = (8, 32, 128, 512, 1400)
ACTIVATIONS = {"ReLU": nn.ReLU, "tanh": nn.Tanh}
Nets = Sequence[nn.Module]
Criterion = Callable[[nn.Module, Batch, torch.Generator], Scores]
CRITERIA: dict[str, Criterion] = {
    "magnitude": lambda net, batch, dice: magnitude.scores(net),
    "OBD, exact Hessian": lambda net, batch, dice: obd.scores(net, batch),
    "true Fisher": lambda net, batch, dice: fisher.scores(net, batch, kind="true"),
    "sampled Fisher": lambda net, batch, dice: fisher.scores(
        net, batch, kind="sampled", generator=dice
    ),
    "empirical Fisher": lambda net, batch, dice: fisher.scores(net, batch),
}


def cases(quick: bool) -> list[Case]:
    """Diagonals in units of one pass; inverses of blocks in units of the batched Cholesky."""
    (x, y), what = images(20 if quick else 1000, (1, 8, 8))
    net = lab.models.mlp(hidden=(8,) if quick else (64, 32))
    G = fisher.gradients(net, (x[:400], y[:400]))
    diagonals: dict[str, Callable[[], object]] = {
        PASS: partial(one_pass, net, (x, y)),
        "exact Hessian (obd.diagonal)": partial(obd.diagonal, net, (x, y)),
        "true Fisher": partial(fisher.diagonal, net, (x, y), kind="true"),
        "empirical Fisher": partial(fisher.diagonal, net, (x, y)),
        "empirical, from single gradients": lambda: fisher.gradients(net, (x, y)).square().mean(0),
    }
    inverses: dict[str, Callable[[], object]] = {
        "blocks and Cholesky": partial(fisher.inverse_blocks, G, 50, 1e-4),
        "rank-one recursion": partial(fisher.recursion, G, 50, 1e-4),
        "full inverse, diagonal only": partial(fisher.inverse_diagonal, G, 1e-4),
    }
    title = f"digits MLP, N = {len(x)}, {what}"
    return [
        Case(f"diagonal, {title}", PASS, _each(diagonals)),
        Case(f"inverse in blocks of 50, N = {len(G)}", "blocks and Cholesky", _each(inverses)),
    ]


def _each(ways: dict[str, Callable[[], object]]) -> dict[str, Competitor]:
    return {name: Competitor(run) for name, run in ways.items()}


def tables(quick: bool) -> list[Table]:
    """Agreement with the exact Hessian and accuracy after pruning, digits and MNIST."""
    seeds, data = range(2 if quick else SEEDS), lab.data.digits()
    made = []
    hidden = (8,) if quick else (64, 32)
    for name, activation in list(ACTIVATIONS.items())[: 1 if quick else 2]:
        mlp = partial(lab.models.mlp, hidden=hidden, activation=activation)
        nets = [_fit(mlp(seed=s), data, s, 2 if quick else 30) for s in seeds]
        longer = [_fit(net, data, 100 + s, 0 if quick else 300) for s, net in enumerate(nets)]
        for epochs, group in {"30 epochs": nets, "330 epochs": longer}.items():
            title, exact = f"{name}, {epochs}", [obd.scores(net, data.train) for net in group]
            made += [orders(title, group, exact, data), samples(title, group, exact, data)]
            made.append(accuracies(title, group, data, 2 if quick else 10))
    return made if quick or mnist() is None else [*made, published()]


def orders(title: str, nets: Nets, exact: Sequence[Scores], data: Data) -> Table:
    """Scale and order of each criterion's saliencies against the exact ones."""
    rows = []
    for name in CRITERIA:
        scale, order = zip(*_agree(name, nets, exact, data), strict=True)
        rows.append([name, "" if name == "magnitude" else words(scale), words(order)])
    text = "All training samples. Scale: sum of ½ f w² over that of ½ h w². Order: Spearman."
    return Table(f"Saliencies against the Hessian's: {title}", ["", "scale", "order"], rows, text)


def samples(title: str, nets: Nets, exact: Sequence[Scores], data: Data) -> Table:
    """The order of the saliencies by the number of samples."""
    kinds = ("true Fisher", "empirical Fisher")
    rows = [
        [str(m), *(words([a.order for a in _agree(kind, nets, exact, data, m)]) for kind in kinds)]
        for m in SAMPLES
    ]
    return Table(f"Order by samples: {title}", ["samples", "true", "empirical"], rows)


def _agree(
    name: str, nets: Nets, exact: Sequence[Scores], data: Data, m: int | None = None
) -> list[fisher.Agreement]:
    """How a criterion's scores from m samples, or all, agree with the exact ones, net by net."""
    batches = [data.train if m is None else drawn(data.train, m, i) for i in range(len(nets))]
    scores = [CRITERIA[name](net, batches[i], _dice(i)) for i, net in enumerate(nets)]
    return [fisher.agreement(s, e) for s, e in zip(scores, exact, strict=True)]


def accuracies(title: str, nets: Nets, data: Data, steps: int) -> Table:
    """Test accuracy after pruning without retraining."""
    rows = []
    for name, criterion in CRITERIA.items():
        runs = [
            accuracy_curve(net, criterion(net, data.train, _dice(i)), data.test, SPARSITIES)
            for i, net in enumerate(nets)
        ]
        rows.append([name, *map(words, zip(*runs, strict=True))])
    ways: dict[str, dict[str, Any]] = {
        "blocks, 1 step, updates added up": {"steps": 1, "update": "single"},
        "blocks, 1 step": {"steps": 1},
        f"blocks, {steps} steps, no update": {"steps": steps, "update": "none"},
        f"blocks, {steps} steps": {"steps": steps},
    }
    for label, way in ways.items():
        runs = []
        for i, net in enumerate(tqdm(nets, desc=label, leave=False)):
            part = drawn(data.train, 400, i)
            pruned = (fisher.prune(net, part, s, block=64, **way)[0] for s in SPARSITIES)
            runs.append([accuracy(one, data) for one in pruned])
        rows.append([label, *map(words, zip(*runs, strict=True))])
    text = "Blocks of 64 from 400 samples, damping 1e-4; the rest from all training samples."
    head = ["", *(f"{s:.0%}" for s in SPARSITIES)]
    return Table(f"Test accuracy, no retraining: {title}", head, rows, text)


def published() -> Table:
    """One step to 95 % on the paper's MNIST network, 784-40-20-10: its numbers and ours."""
    paper = {"dense": "93.97 %", "empirical Fisher": "19.88 %", "blocks, 1 step": "84.18 %"}
    runs: dict[str, list[float]] = {}
    data = lab.data.mnist()
    for seed in tqdm(range(SEEDS), desc="MNIST", leave=False):
        net = _fit(lab.models.mlp((1, 28, 28), hidden=(40, 20), seed=seed), data, seed, 3)
        part = drawn(data.train, 2000, seed)
        runs.setdefault("dense", []).append(accuracy(net, data))
        for name in ("magnitude", "OBD, exact Hessian", "empirical Fisher"):
            scores = CRITERIA[name](net, part, _dice(seed))
            runs.setdefault(name, []).extend(accuracy_curve(net, scores, data.test, [0.95]))
        for steps in (1, 10):
            label = f"blocks, {steps} step" + "s" * (steps > 1)
            pruned = fisher.prune(net, part, 0.95, steps=steps)[0]
            runs.setdefault(label, []).append(accuracy(pruned, data))
    rows = [[name, paper.get(name, ""), words(each)] for name, each in runs.items()]
    text = (
        "Singh & Alistarh, NeurIPS 2020 (K-FAC there: 81.26 %). Ours: 3 epochs, 2000 samples, blocks of "
        f"50, damping 1e-4, {SEEDS} seeds; mean and 95 % interval."
    )
    return Table("MNIST, 32,360 weights, 95 % in one step", ["", "paper", "here"], rows, text)


def drawn(batch: Batch, m: int, seed: int) -> Batch:
    """m samples of a batch, drawn without replacement."""
    rows = torch.randperm(len(batch[0]), generator=_dice(seed))[:m]
    return batch[0][rows], batch[1][rows]


def _fit(net: nn.Module, data: Data, seed: int, epochs: int) -> nn.Module:
    return lab.training.fit(net, data, epochs=epochs, seed=seed, progress=False)[0]


def _dice(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(7000 + seed)
