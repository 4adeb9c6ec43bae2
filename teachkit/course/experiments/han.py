"""Reproduce Han et al. (2015) on MNIST: ``python -m teachkit.course.experiments.han``.

Trains LeNet-300-100 and LeNet-5, prunes each by the course's recipe, and writes every round into
data/experiments/han.json. A run that was interrupted goes on with the next seed. MNIST is read from
the folder in ``TEACHKIT_DATA``, or downloaded once.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from tqdm.auto import tqdm

from teachkit import lab, magnitude, masks
from teachkit.lab.data import Data
from teachkit.lab.evaluation import evaluate

FILE = lab.data.folder() / "experiments" / "han.json"
COMMAND = "python -m teachkit.course.experiments.han"
SETTINGS: dict[str, dict[str, Any]] = {
    "lenet_300_100": {
        "epochs": 12,
        "rate": 2e-3,
        "weight_decay": 1e-4,
        "batch_size": 128,
        "qualities": [0.7, *[0.8] * 5],
        "retraining_epochs": 6,
    },
    "lenet5": {
        "epochs": 4,
        "rate": 2e-3,
        "weight_decay": 1e-4,
        "batch_size": 128,
        "qualities": [0.8, 0.9, 0.9],
        "retraining_epochs": 2,
    },
}
QUICK = {"epochs": 1, "qualities": [1.0], "retraining_epochs": 1}


class Level(NamedTuple):
    """One round, a mean over the seeds: errors in percent, the share of each layer kept in percent.

    ``factor`` is all weights divided by those kept; ``dense`` the error before pruning.
    """

    factor: float
    pruned: float
    retrained: float
    dense: float
    kept: dict[str, float]


def levels(name: str, file: Path | None = None) -> list[Level]:
    """The saved rounds of one network, each a mean over the seeds."""
    saved = load(file or FILE).get("nets", {})
    if name not in saved:
        raise ValueError(f"no saved run of {name!r}; there are {sorted(saved)}; run: {COMMAND}")
    runs = saved[name]["runs"]
    weights = runs[0]["weights"]
    dense = fmean(run["dense"] for run in runs)
    found = []
    for same in zip(*(run["rounds"] for run in runs), strict=True):
        kept = {layer: fmean(r["kept"][layer] for r in same) for layer in weights}
        found.append(
            Level(
                sum(weights.values()) / sum(kept.values()),
                fmean(r["pruned"] for r in same),
                fmean(r["retrained"] for r in same),
                dense,
                {layer: 100 * kept[layer] / n for layer, n in weights.items()},
            )
        )
    return found


def run(name: str, settings: dict[str, Any], data: Data, seed: int) -> dict[str, Any]:
    """Train, prune and retrain one network; errors in percent, counts of weights kept by layer.

    The rate falls to zero along a cosine, in the training and in each round of retraining, so that
    the dense network does not improve by further training alone.
    """
    start = time.process_time()
    adam = partial(torch.optim.Adam, weight_decay=settings["weight_decay"])
    fit = partial(
        lab.training.fit, data=data.train, batch_size=settings["batch_size"], progress=False
    )
    dense, _ = fit(
        lab.models.MODELS[name](seed=seed),
        epochs=settings["epochs"],
        optimizer=partial(adam, lr=settings["rate"]),
        scheduler=partial(CosineAnnealingLR, T_max=settings["epochs"]),
        seed=seed,
    )
    trained = time.process_time()
    _, _, rounds = magnitude.han(
        dense,
        data,
        settings["qualities"],
        epochs=settings["retraining_epochs"],
        batch_size=settings["batch_size"],
        optimizer=partial(adam, lr=settings["rate"] / 10),
        scheduler=partial(CosineAnnealingLR, T_max=settings["retraining_epochs"]),
        seed=seed,
    )
    return {
        "seed": seed,
        "dense": _error(dense, data),
        "weights": {n: w.numel() for n, w in masks.prunable(dense).items()},
        "rounds": [_row(r) for r in rounds],
        "minutes": {
            "training": round((trained - start) / 60, 2),
            "pruning": round((time.process_time() - trained) / 60, 2),
        },
    }


def _row(r: magnitude.Round) -> dict[str, Any]:
    errors = {"pruned": 100 * (1 - r.pruned), "retrained": 100 * (1 - r.retrained)}
    return {
        "quality": r.quality,
        "kept": r.kept,
        **{key: round(value, 3) for key, value in errors.items()},
    }


def _error(net: nn.Module, data: Data) -> float:
    """Test error in percent."""
    return round(100 * (1 - evaluate(net, data.test).accuracy), 3)


def load(file: Path = FILE) -> dict[str, Any]:
    """The saved results; empty where there are none."""
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return found


def save(name: str, settings: dict[str, Any], runs: list[dict[str, Any]], file: Path) -> None:
    """Replace one network's results in the file, all at once or not at all."""
    saved = {"command": COMMAND, "torch": torch.__version__.split("+")[0]} | load(file)
    nets = dict(saved.get("nets", {})) | {name: {"settings": settings, "runs": runs}}
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(saved | {"nets": nets}, indent=1) + "\n", "utf-8")
    os.replace(draft, file)


def main(arguments: Iterable[str], data: Data | None = None) -> int:
    """Run what is not saved yet."""
    parser = argparse.ArgumentParser(COMMAND, description=__doc__)
    parser.add_argument("--net", choices=sorted(SETTINGS), action="append", help="default: both")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one epoch each: does it run?")
    parser.add_argument("--file", type=Path, default=FILE)
    given = parser.parse_args(list(arguments))
    lab.setup()
    torch.set_default_dtype(torch.float32)
    data = data or lab.data.mnist()
    for name in given.net or SETTINGS:
        settings = SETTINGS[name] | (QUICK if given.quick else {})
        old = load(given.file).get("nets", {}).get(name, {})
        runs = old["runs"] if old.get("settings") == settings else []
        for seed in tqdm(range(len(runs), given.seeds), desc=name):
            runs = [*runs, run(name, settings, data, seed)]
            save(name, settings, runs, given.file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
