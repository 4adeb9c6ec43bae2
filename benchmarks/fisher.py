"""The Fisher matrix for the Hessian: cost of its diagonals and inverses, and how good they are."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from benchmarks.cases import Case, Competitor, Table
from benchmarks.inputs import PASS, images, mnist, one_pass
from teachkit import fisher, lab, magnitude, obd
from teachkit.core.types import Batch, Data, Scores
from teachkit.engine.blocks import Update
from teachkit.lab.curves import accuracy_curve, interval
from teachkit.lab.evaluation import evaluate

SEEDS, SPARSITIES = 5, (0.8, 0.9, 0.95)
SAMPLES = (8, 32, 128, 512, 1400)
ACTIVATIONS = {"ReLU": nn.ReLU, "tanh": nn.Tanh}
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
    few = (x[: 10 if quick else 400], y[: 10 if quick else 400])
    G = fisher.gradients(net, few)
    diagonals = {
        PASS: Competitor(partial(one_pass, net, (x, y))),
        "exact Hessian (obd.diagonal)": Competitor(partial(obd.diagonal, net, (x, y))),
        "true Fisher": Competitor(partial(fisher.diagonal, net, (x, y), kind="true")),
        "empirical Fisher": Competitor(partial(fisher.diagonal, net, (x, y))),
        "empirical, from single gradients": Competitor(partial(single_gradients, net, (x, y))),
    }
    inverses = {
        "blocks and Cholesky": Competitor(partial(fisher.inverse_blocks, G, 50, 1e-4)),
        "rank-one recursion": Competitor(partial(fisher.recursion, G, 50, 1e-4)),
        "full inverse, diagonal only": Competitor(partial(fisher.inverse_diagonal, G, 1e-4)),
    }
    title = f"digits MLP, N = {len(x)}, {what}"
    return [
        Case(f"diagonal, {title}", PASS, diagonals),
        Case(f"inverse in blocks of 50, N = {len(G)}", "blocks and Cholesky", inverses),
    ]


def single_gradients(net: nn.Module, batch: Batch) -> Tensor:
    """The diagonal of the empirical Fisher matrix from all gradients, stored."""
    return (fisher.gradients(net, batch) ** 2).mean(0)


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
            made += [
                orders(f"{name}, {epochs}", group, data),
                samples(f"{name}, {epochs}", group, data),
            ]
            made.append(accuracies(f"{name}, {epochs}", group, data, 2 if quick else 10))
    return made if quick or mnist() is None else [*made, published()]


def orders(title: str, nets: Sequence[nn.Module], data: Data) -> Table:
    """Scale and order of each criterion's saliencies against the exact ones."""
    rows = []
    exact = [obd.scores(net, data.train) for net in nets]
    for name, criterion in CRITERIA.items():
        found = [criterion(net, data.train, _dice(i)) for i, net in enumerate(nets)]
        both = [fisher.agreement(f, e) for f, e in zip(found, exact, strict=True)]
        scale, order = (_words(column) for column in zip(*both, strict=True))
        rows.append([name, "" if name == "magnitude" else scale, order])
    text = "All training samples. Scale: sum of ½ f w² over that of ½ h w². Order: Spearman."
    return Table(f"Saliencies against the Hessian's: {title}", ["", "scale", "order"], rows, text)


def samples(title: str, nets: Sequence[nn.Module], data: Data) -> Table:
    """The order of the saliencies by the number of samples."""
    rows = []
    exact = [obd.scores(net, data.train) for net in nets]
    for m in SAMPLES:
        row = [str(m)]
        for kind in ("true Fisher", "empirical Fisher"):
            found = [
                CRITERIA[kind](net, drawn(data.train, m, i), _dice(i)) for i, net in enumerate(nets)
            ]
            row.append(
                _words([fisher.agreement(f, e).order for f, e in zip(found, exact, strict=True)])
            )
        rows.append(row)
    return Table(f"Order by samples: {title}", ["samples", "true", "empirical"], rows)


def accuracies(title: str, nets: Sequence[nn.Module], data: Data, steps: int) -> Table:
    """Test accuracy after pruning without retraining."""
    rows = []
    for name, criterion in CRITERIA.items():
        runs = [
            accuracy_curve(net, criterion(net, data.train, _dice(i)), data.test, SPARSITIES)
            for i, net in enumerate(nets)
        ]
        rows.append([name, *map(_words, zip(*runs, strict=True))])
    ways: tuple[tuple[str, int, Update], ...] = (
        ("blocks, 1 step, updates added up", 1, "single"),
        ("blocks, 1 step", 1, "joint"),
        (f"blocks, {steps} steps, no update", steps, "none"),
        (f"blocks, {steps} steps", steps, "joint"),
    )
    for label, count, update in ways:
        prune = partial(fisher.prune, block=64, steps=count, update=update)
        runs = [
            [_accuracy(prune(net, drawn(data.train, 400, i), s)[0], data) for s in SPARSITIES]
            for i, net in enumerate(tqdm(nets, desc=label, leave=False))
        ]
        rows.append([label, *map(_words, zip(*runs, strict=True))])
    text = "Blocks of 64 from 400 samples, damping 1e-4; the rest from all training samples."
    head = ["", *(f"{s:.0%}" for s in SPARSITIES)]
    return Table(f"Test accuracy, no retraining: {title}", head, rows, text)


def published() -> Table:
    """One step to 95 % on the paper's MNIST network, 784-40-20-10: its numbers and ours."""
    paper = {"dense": "93.97 %", "empirical Fisher": "19.88 %", "blocks, 1 step": "84.18 %"}
    runs: dict[str, list[float]] = {}
    data = lab.data.mnist()
    for seed in tqdm(range(SEEDS), desc="MNIST", leave=False):
        net = lab.models.mlp((1, 28, 28), hidden=(40, 20), seed=seed)
        net = lab.training.fit(net, data.train, epochs=3, seed=seed, progress=False)[0]  # type: ignore[assignment]
        part = drawn(data.train, 2000, seed)
        runs.setdefault("dense", []).append(_accuracy(net, data))
        for name in ("magnitude", "OBD, exact Hessian", "empirical Fisher"):
            scores = CRITERIA[name](net, part, _dice(seed))
            runs.setdefault(name, []).extend(accuracy_curve(net, scores, data.test, [0.95]))
        for steps in (1, 10):
            label = f"blocks, {steps} step" + "s" * (steps > 1)
            pruned = fisher.prune(net, part, 0.95, steps=steps)[0]
            runs.setdefault(label, []).append(_accuracy(pruned, data))
    rows = [[name, paper.get(name, ""), _words(found)] for name, found in runs.items()]
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


def _accuracy(net: nn.Module, data: Data) -> float:
    return evaluate(net, data.test).accuracy


def _dice(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(7000 + seed)


def _words(runs: Sequence[float]) -> str:
    i = interval(runs)
    return f"{i.mean:.3g} ({i.low:.3g} to {i.high:.3g})"
