"""Many kinds of networks, data and training, each by a name: where an effect occurs, and where not."""

import random
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from mnist1d.data import get_dataset_args, make_dataset
from torch import Tensor, nn

from teachkit import experiments
from teachkit.core.types import Batch
from teachkit.experiments.networks import OPTIONS, STARTS, annealed
from teachkit.lab import data, models
from teachkit.lab.training import fit

DEEP = {depth: partial(models.mlp, hidden=[64] * depth) for depth in (1, 3, 4, 6)}
WIDE = {w: partial(models.mlp, hidden=(w, w // 2)) for w in (16, 32, 128, 256)}
SLOW = {"epochs": 30, "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9)}


class Setting(NamedTuple):
    """How a network comes about: who makes it, on which data, how its inputs are scaled, and training."""

    start: Callable[..., nn.Module] = models.mlp
    data: str = "digits"
    inputs: str = "raw"
    options: Mapping[str, Any] = MappingProxyType({})


def conv(*, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> nn.Sequential:
    """Two 3x3 convolutions of 8 and 16 channels, each max-pooled, and a Linear layer; for images of 8x8."""

    def layers() -> list[nn.Module]:
        first = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        return [*first, *second, nn.Linear(16 * (shape[1] // 4) * (shape[2] // 4), 10)]

    return models.build(layers, seed)


def signal_conv(*, seed: int = 0) -> nn.Sequential:
    """Two convolutions over a signal of 40 numbers, 16 channels each with stride 2, and a Linear layer."""

    def layers() -> list[nn.Module]:
        first = [nn.Conv1d(1, 16, 5, stride=2, padding=2), nn.ReLU()]
        second = [nn.Conv1d(16, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Flatten()]
        return [*first, *second, nn.Linear(160, 10)]

    return models.build(layers, seed)


@cache
def signals() -> data.Data:
    """MNIST-1D: 4000 signals of 40 numbers to train, 1000 to test, (n, 1, 40), about standardised.

    Source: Greydanus & Kobak, Scaling Down Deep Learning with MNIST-1D, ICML 2024; their package.
    """
    drawn = random.getstate(), np.random.get_state()  # noqa: NPY002 -- what the package seeds
    made = make_dataset(get_dataset_args())
    random.setstate(drawn[0])
    np.random.set_state(drawn[1])  # noqa: NPY002
    parts = ((made["x"], made["y"]), (made["x_test"], made["y_test"]))
    train, test = ((torch.tensor(x)[:, None], torch.tensor(y)) for x, y in parts)
    return data.Data(train, test)


DATA: dict[str, Callable[[], data.Data]] = {
    "digits": data.digits,
    "MNIST": experiments.mnist,
    "MNIST-1D": signals,
}


@cache
def prepared(name: str, inputs: str) -> data.Data:
    """A data set, its inputs "raw", "centred" (each pixel's mean taken off) or "standardised"."""
    train, test = DATA[name]()
    mean, sd = train[0].mean(0), train[0].std(0)
    scale = torch.where(sd > 0, sd, 1.0) if inputs == "standardised" else torch.ones_like(sd)

    def scaled(x: Tensor, y: Tensor) -> Batch:
        return (x, y) if inputs == "raw" else ((x - mean) / scale, y)

    return data.Data(scaled(*train), scaled(*test))


@cache
def network(name: str, seed: int) -> nn.Module:
    """A network of ``SETTINGS``."""
    start, origin, inputs, options = SETTINGS[name]
    sets, net = prepared(origin, inputs), start(seed=seed)
    return fit(net.to(sets.train[0].dtype), sets.train, seed=seed, progress=False, **options)[0]


def samples(name: str) -> data.Data:
    """The data of a setting, as its network takes them."""
    return prepared(SETTINGS[name].data, SETTINGS[name].inputs)


KNOWN = {
    name: Setting(STARTS.get(name, models.mlp), options=OPTIONS.get(name, {})) for name in "ABCDFI"
}
DIGITS = {
    **{f"A, {each}": Setting(inputs=each) for each in ("centred", "standardised")},
    **{f"C, {each}": Setting(WIDE[256], inputs=each) for each in ("centred", "standardised")},
    **{f"width {w}": Setting(WIDE[w]) for w in (16, 32, 128)},
}
EPOCHS = {
    **{f"A, {n} epochs": Setting(options={"epochs": n}) for n in (3, 100)},
    "A, standardised, 3 epochs": Setting(inputs="standardised", options={"epochs": 3}),
    "A, centred, 15 epochs": Setting(inputs="centred", options={"epochs": 15}),
    "C, rate falling": Setting(WIDE[256], options=annealed(torch.optim.Adam, 3e-3, 60)),
}
KINDS = {
    **{f"{n} hidden layers": Setting(start) for n, start in DEEP.items()},
    "GELU": Setting(partial(models.mlp, activation=nn.GELU)),
    "GELU, standardised": Setting(partial(models.mlp, activation=nn.GELU), inputs="standardised"),
    "tanh, 256": Setting(partial(WIDE[256], activation=nn.Tanh)),
    "SGD": Setting(options=SLOW),
    "weight decay": Setting(options={"optimizer": partial(torch.optim.AdamW, weight_decay=0.3)}),
}
CONVOLUTIONS = {
    "convolutions": Setting(conv),
    "convolutions, centred": Setting(conv, inputs="centred"),
    "convolutions, rate falling": Setting(conv, options=annealed(torch.optim.Adam, 3e-3, 60)),
    "convolutions, tanh": Setting(lambda *, seed: _with(nn.Tanh, conv(seed=seed))),
}
SIGNALS = {
    "1D": Setting(partial(models.mlp, (1, 40), hidden=(64, 32)), "MNIST-1D"),
    "1D, 256": Setting(partial(models.mlp, (1, 40), hidden=(256, 128)), "MNIST-1D"),
    "1D, rate falling": Setting(
        partial(models.mlp, (1, 40)), "MNIST-1D", options=annealed(torch.optim.Adam, 3e-3, 60)
    ),
    "1D, tanh": Setting(partial(models.mlp, (1, 40), activation=nn.Tanh), "MNIST-1D"),
    "1D, convolutions": Setting(signal_conv, "MNIST-1D"),
}
FAST = {"epochs": 5, "batch_size": 128}
MNIST = {
    "MNIST": Setting(models.lenet_300_100, "MNIST", options=FAST),
    "MNIST, centred": Setting(models.lenet_300_100, "MNIST", "centred", FAST),
    "MNIST, rate falling": Setting(
        models.lenet_300_100,
        "MNIST",
        options=annealed(torch.optim.Adam, 2e-3, 10) | FAST | {"epochs": 10},
    ),
}


def _with(activation: Callable[[], nn.Module], net: nn.Sequential) -> nn.Sequential:
    """The same network with another activation in place of each ReLU."""
    return nn.Sequential(*(activation() if isinstance(m, nn.ReLU) else m for m in net))


SETTINGS: dict[str, Setting] = {
    **KNOWN,
    **DIGITS,
    **EPOCHS,
    **KINDS,
    **CONVOLUTIONS,
    **SIGNALS,
    **MNIST,
}
