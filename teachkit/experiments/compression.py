"""Fewer bits and bytes: rounding with and without GPTQ, the forms of storage, deep compression on MNIST.

``python -m teachkit.experiments.compression`` writes three tables into data/experiments; about three minutes
on one core. With MNIST in the folder that ``TEACHKIT_DATA`` names it also writes two tables for
LeNet-300-100, in a quarter of an hour; float32, so that their last digits depend on the processor. Seconds
in ``compression_times`` are those of the machine that made it. A run that is interrupted goes on.
"""

import warnings
from functools import cache, partial
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import zstandard
from torch import Tensor, nn

from teachkit import compression, experiments, magnitude, masks
from teachkit.core.types import Data
from teachkit.experiments import han
from teachkit.experiments.networks import annealed, chain, lenet
from teachkit.lab import data, models
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row
from teachkit.lab.timing import csr, times
from teachkit.lab.training import fit

SEEDS = [0, 1, 2, 3, 4]
BITS = [8, 4, 3, 2]
WAYS = ["nearest", "nearest, clipped", "GPTQ", "GPTQ, clipped"]
PER: list[Any] = ["tensor", "channel", 16]
CALIBRATION = 1000  # images of MNIST that GPTQ looks at, drawn anew for each network
ROUNDING: experiments.Grid = {"net": ["A", "C"], "seed": SEEDS, "bits": BITS, "per": PER}
ON_MNIST: experiments.Grid = {"seed": SEEDS, "bits": BITS, "per": ["tensor", "channel", 16]}
SPARSITIES = [0.0, 0.5, 0.8, 0.9, 0.95, 0.99]
KINDS = ["float32", "4 bits", "2 bits"]
FORMATS: experiments.Grid = {"seed": SEEDS, "sparsity": SPARSITIES, "numbers": KINDS}
TIMES: experiments.Grid = {"sparsity": SPARSITIES}
PLAIN = [form for form in compression.FORMS if form not in ("gzip", "lzma", "2:4")]
EPOCHS, RETRAINING = 8, 2  # epochs of the dense network, and of each round
DEEP: experiments.Grid = {"seed": SEEDS, "round": [2, 4, 6], "bits": [3, 4, 5]}


def rounded(net: nn.Module, parts: Data, draw: int, bits: int, per: Any) -> Row:
    """Test accuracy and how far the logits move, ‖f′ − f‖ / ‖f‖, by the way of rounding."""
    x, y = parts.train
    row: Row = {"dense": accuracy(net, parts.test)}
    at = torch.randperm(len(x), generator=torch.Generator().manual_seed(draw))[:CALIBRATION]
    before = net(parts.test[0]).detach()
    for way in WAYS:
        batch = (x[at], y[at]) if way.startswith("GPTQ") else None
        clip: Any = "best" if way.endswith("clipped") else 1.0
        made, _ = compression.round_layers(net, bits, batch, per=per, clip=clip)
        row[way] = accuracy(made, parts.test)
        moved = made(parts.test[0]).detach() - before
        row[f"{way}: moved"] = float(moved.norm() / before.norm())
    return row


def on_digits(net: str, seed: int, bits: int, per: Any) -> Row:
    """The networks A and C on the digits."""
    return rounded(chain(net, seed), data.digits(), 1000 + seed, bits, per)


def on_mnist(seed: int, bits: int, per: Any) -> Row:
    """LeNet-300-100 after five epochs."""
    return rounded(lenet(seed), experiments.mnist(), 1000 + seed, bits, per)


def stored(seed: int, sparsity: float, numbers: str) -> tuple[nn.Module, Any]:
    """Network C in float32, pruned by magnitude, its weights float32 or rounded to 4 or 2 bits a channel."""
    net = masks.apply(net := chain("C", seed), magnitude.keep_largest(net, sparsity)).float()
    if numbers == "float32":
        return net, {}
    return compression.round_layers(net, int(numbers[0]), clip="best")


def formats_cell(seed: int, sparsity: float, numbers: str) -> Row:
    """Bytes of the weights in each form, at the entropy of single numbers, and of the smallest whole file.

    Rounded weights are their whole numbers; their scales, equal in all forms, are counted in the file only.
    """
    net, parts = stored(seed, sparsity, numbers)
    weights = {n: parts[n].numbers if parts else w for n, w in masks.prunable(net).items()}
    row: Row = {form: sum(_bytes(w, form) for w in weights.values()) for form in PLAIN}
    row["entropy"] = sum(compression.bound(w) for w in weights.values())
    with TemporaryDirectory() as folder:
        return row | {"file": compression.save(Path(folder) / "a", net, parts, "deep")}


def _bytes(weight: Tensor, form: str) -> int:
    return compression.pack(weight.detach(), form).bytes


def times_cell(sparsity: float) -> Row:
    """A layer of 784 to 300 with random weights: bytes, milliseconds to read it, and to multiply by it.

    Packers with their versions' own bytes stand here too. "2:4" has two of four weights, whatever the
    sparsity. Multiplied is one row and 256 rows, dense, in CSR, and in whole numbers of 8 bits by torch.
    """
    dice = torch.Generator().manual_seed(0)
    W = torch.randn(300, 784, generator=dice, dtype=torch.float32, device="cpu")
    X = torch.randn(256, 784, generator=dice, dtype=torch.float32, device="cpu")
    kept = masks.keep_top({"w": W.abs()}, sparsity)["w"]
    pruned = dict.fromkeys(compression.FORMS, W.masked_fill(~kept, 0.0))
    pruned["2:4"] = W.masked_fill(~masks.keep_n_of_m({"w": W.abs()}, 2, 4)["w"], 0.0)
    packed = {form: compression.pack(w, form) for form, w in pruned.items() if _fits(w, form)}
    row: Row = {f"{form}: bytes": each.bytes for form, each in packed.items()}
    zstd = zstandard.compress(pruned["dense"].numpy().tobytes(), 19)
    row["zstd: bytes"] = len(zstd)
    reads: dict[str, Any] = {form: partial(compression.unpack, p) for form, p in packed.items()}
    reads["zstd"] = partial(zstandard.decompress, zstd)
    row |= {f"{form}: read": 1e3 * s for form, s in times(reads, 5).items()}
    for n in (1, 256):
        works = _products(pruned["dense"], X[:n])
        row |= {f"{name}: {n} rows": 1e3 * s for name, s in times(works).items()}
    return row


def _fits(w: Tensor, form: str) -> bool:
    """A palette cannot hold what is all different."""
    try:
        compression.pack(w, form)
    except ValueError:
        return False
    return True


def _products(W: Tensor, X: Tensor) -> dict[str, Any]:
    sparse, dense = csr(W), W.clone()
    with warnings.catch_warnings(action="ignore"):  # torch says that these will move to torchao
        make: Any = torch.ao.nn.quantized.dynamic.Linear
        whole = make(W.shape[1], len(W), bias_=False)
        scale = float(W.abs().max()) / 127
        whole.set_weight_bias(torch.quantize_per_tensor(W, scale, 0, torch.qint8), None)
    return {
        "dense": lambda: X @ dense.T,
        "csr": lambda: sparse @ X.T,
        "8 bits": lambda: whole(X),
    }


@cache
def pruned_in_rounds(seed: int) -> list[nn.Module]:
    """LeNet-300-100, dense and after each round of the recipe of ``experiments.han``, in fewer epochs."""
    settings, parts = han.SETTINGS["lenet_300_100"], experiments.mnist()
    optimizer = partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-4)
    fixed: dict[str, Any] = {"batch_size": 128, "seed": seed, "progress": False}
    first = fixed | annealed(optimizer, settings["rate"], EPOCHS)
    nets: list[nn.Module] = [fit(models.lenet_300_100(seed=seed).float(), parts.train, **first)[0]]
    later = fixed | annealed(optimizer, settings["rate"], RETRAINING)
    for quality in settings["qualities"]:
        made, _, _ = magnitude.han(nets[-1], parts, [quality], factors=settings["factors"], **later)
        nets.append(made)
    return nets


def deep_cell(seed: int, round: int, bits: int) -> Row:
    """Deep compression: pruned, 2^bits values a layer, these trained for an epoch, Huffman; errors in %."""
    nets, parts = pruned_in_rounds(seed), experiments.mnist()
    shared, books = compression.share_layers(nets[round], bits)
    fall = annealed(torch.optim.Adam, 3e-4, 1)
    tuned, _, _ = compression.tune(
        shared, books, parts.train, batch_size=128, seed=seed, progress=False, **fall
    )
    made = {"dense": nets[0], "pruned": nets[round], "shared": shared, "tuned": tuned}
    row: Row = {name: 100 * (1 - accuracy(net, parts.test)) for name, net in made.items()}
    weights = masks.prunable(tuned).values()
    row["kept"] = sum(int((w != 0).sum()) for w in weights)
    row["parameters"] = sum(prod(p.shape) for p in tuned.parameters())
    sizes = {"relative": nets[round], "indexed": tuned, "deep": tuned}
    with TemporaryDirectory() as folder:
        for form, net in sizes.items():
            row[f"{form}: bytes"] = compression.save(Path(folder) / "a", net, form=form)
    return row


TABLES: experiments.Tables = {
    "compression_rounding": (on_digits, ROUNDING),
    "compression_formats": (formats_cell, FORMATS),
}
ON_MNIST_TABLES: experiments.Tables = {
    "compression_rounding_mnist": (on_mnist, ON_MNIST),
    "compression_deep": (deep_cell, DEEP),
}
MEASURED: experiments.Tables = {"compression_times": (times_cell, TIMES)}

if __name__ == "__main__":
    experiments.main({**TABLES, **MEASURED}, ON_MNIST_TABLES)
