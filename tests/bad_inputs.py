"""Every public function with one valid call, and every argument of it replaced by what is wrong.

``python tests/bad_inputs.py`` tries all; ``python tests/bad_inputs.py --accepted 200`` then prints
that many of the accepted calls, drawn at random, to be looked at by hand.
"""

import contextlib
import copy
import datetime
import dis
import functools
import importlib
import inspect
import io
import math
import os
import random
import signal
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import sympy
import torch
import torch._dynamo  # an import that the clock interrupts would be left half done
from torch import nn
from torch.nn.functional import cross_entropy

mpl.use("Agg")
HOUSE = Path(__file__).parents[1] / "teachkit"
LESSONS = [
    "hessian",
    "taylor",
    "masks",
    "obd",
    "obs",
    "fisher",
    "magnitude",
    "schedule",
    "structured",
    "sparse_training",
    "paradox",
    "neurons",
    "compression",
    "scale",
]
LAB = [
    "attention",
    "curves",
    "data",
    "evaluation",
    "gguf",
    "language",
    "levenberg",
    "matrices",
    "models",
    "progress",
    "rounds",
    "session",
    "storage",
    "stretching",
    "sweep",
    "teaching",
    "timing",
    "tokens",
    "training",
    "transformers",
]
CORE = ["criteria", "layers", "losses", "objective", "ranking", "recorder", "selection", "weights"]
SHARE = 12  # a test tries one of so many bad calls, others each day
MODULES = [
    *(f"teachkit.{name}" for name in LESSONS),
    *(f"teachkit.lab.{name}" for name in LAB),
    *(f"teachkit.core.{name}" for name in CORE),
    *("teachkit.show", "teachkit.show.plots"),
]
SKIPPED = {
    "lab.data.download": "asks the network",
    "lab.data.mnist": "has no argument",
    "lab.language.shakespeare": "has no argument",
    "lab.tokens.letters": "has no argument",
    "lab.data.digits": "has no argument",
    "lab.data.xor": "has no argument",
    "lab.data.folder": "has no argument",
    "lab.timing.clock": "has no argument",
    "lab.progress.path": "has no argument",
    "lab.progress.log": "has no argument",
    "lab.progress.events": "has no argument",
    "show.environment": "has no argument",
    "show.progress": "has no argument",
    "core.criteria.criterion": "registers what it is given",
    "core.criteria.pruner": "registers what it is given",
    "show.explore": "calls the function it is given and shows what comes",
    "core.selection.pieces": "lends a buffer",
    "core.selection.bracket": "trusts what kth_smallest has checked",
    **{
        f"show.plots.{name}": "draws what it is given, see test_show"
        for name in [
            "draw",
            "explain",
            "lines",
            "points",
            "differences",
            "tiles",
            "contours",
            "histogram",
            "spectrum",
            "scatter",
            "matrices",
        ]
    },
    "lab.data.mnist_files": "asks the network where a file is missing",
    "lab.session.setup": "sets what all other calls rely on",
}


def public():
    """Each public function by a name like ``obd.scores``; what a lesson takes from below, once."""
    found, seen = {}, set()
    for module in map(importlib.import_module, MODULES):
        listed = getattr(module, "__all__", ())
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__ or name in listed
            if name.startswith("_") or not inspect.isfunction(value) or not own:
                continue
            if id(inspect.unwrap(value)) not in seen:
                seen.add(id(inspect.unwrap(value)))
                found[f"{module.__name__.removeprefix('teachkit.')}.{name}"] = value
    return {name: f for name, f in found.items() if name not in SKIPPED}


# One valid value for each parameter, by its name, and by function where names are not enough --------

x, y, z = sympy.symbols("x y z")


def net(inputs=4, hidden=3, classes=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        layers = [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes)]
        return nn.Sequential(*layers).double()


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(n=7):
    return drawn(n, 4, seed=1), torch.arange(n) % 3


def data():
    from teachkit.lab.data import Data

    return Data(batch(), batch(6))


def positive(n=3):
    A = drawn(2 * n, n)
    return A.T @ A / n + torch.eye(n, dtype=torch.float64)


def scores():
    return {"0.weight": drawn(3, 4), "2.weight": drawn(3, 3, seed=2)}


def kept():
    return {name: value > 0 for name, value in scores().items()}


def cut():
    """The network, pruned."""
    from teachkit.core import weights

    return weights.apply(net(), kept())


def units():
    return {"0": torch.tensor([True, False, True])}


def values(n=3):
    return drawn(2**n, seed=3)


def criterion(model, batch, loss=cross_entropy):
    return {n: p.detach().abs() for n, p in model.named_parameters() if p.ndim > 1}


def half(model, batch, sparsity):
    return {
        n: p.detach().abs() > p.abs().median() for n, p in model.named_parameters() if p.ndim > 1
    }


def cell(seed):
    return {"result": seed * 2}


def picture():
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([1, 2])
    return figure


def plain_picture():
    from teachkit import show

    return show.figure(picture(), "A line that goes up from one to two.")


def respond(theta):
    X = torch.tensor([[1.0], [2.0]], dtype=theta.dtype)
    return theta @ X.T, X.expand(len(theta), -1, -1)


FOLDER = Path(tempfile.mkdtemp())
(FOLDER / "rows.jsonl").write_text('{"seed": 1, "result": 2}\n')
(FOLDER / "some").write_bytes(b"some")
SOME = "a6b46dd0d1ae5e86cbc8f37e75ceeb6760230c1ca4ffbcb0c97b96dd7d9c464b"

COMMON = {
    **dict.fromkeys(("model", "net"), net),
    "module": lambda: nn.ReLU(),
    "layer": lambda: nn.Linear(4, 3).double(),
    "batch": batch,
    "data": data,
    "loss": lambda: cross_entropy,
    **dict.fromkeys(("masks", "kept"), kept),
    "keep": units,
    "x": lambda: batch()[0],
    "scores": scores,
    "sparsity": lambda: 0.5,
    "sparsities": lambda: [0.2, 0.5],
    "generator": lambda: torch.Generator().manual_seed(1),
    "epochs": lambda: 1,
    "progress": lambda: False,
    "k": lambda: 2,
    "steps": lambda: 2,
    "delta": lambda: {"0.weight": drawn(3, 4)},
    "weights": lambda: drawn(3),
    "w": lambda: drawn(4),
    "W": lambda: drawn(2, 3),
    "h": lambda: drawn(4, seed=2),
    "g": lambda: drawn(4, seed=3),
    "H": positive,
    "inverse": positive,
    "q": lambda: 1,
    "weight": lambda: drawn(3, 4),
    "inputs": lambda: drawn(9, 4),
    "mask": lambda: drawn(3, 4) > 0,
    "gradients": lambda: drawn(5, 4),
    "damping": lambda: 0.1,
    "block": lambda: 2,
    "vector": lambda: drawn(4),
    "f": lambda: x**2 + y**2,
    "variables": lambda: (x, y),
    "variable": lambda: x,
    "point": lambda: (1, 2),
    "order": lambda: 2,
    "quality": lambda: 0.7,
    "qualities": lambda: [0.5],
    "values": values,
    "criterion": lambda: criterion,
    "positions": lambda: [0, 2],
    "name": lambda: "0.weight",
    "final": lambda: 0.8,
    "initial": lambda: 0.1,
    "start": lambda: 0,
    "end": lambda: 4,
    "shape": lambda: (3, 4),
    "n": lambda: 3,
    "granularity": lambda: "row",
    "rule": lambda: "uniform",
    "rounds": lambda: 1,
    "tokens": lambda: torch.arange(12).reshape(2, 6) % 7,
    "blocks": lambda: None,
    "chunk": lambda: 2,
    "output": lambda: drawn(7, 3),
    "target": lambda: torch.arange(7) % 3,
    "grid": lambda: {"seed": [1, 2]},
    "cell": lambda: cell,
    "path": lambda: FOLDER / "rows.jsonl",
    "rows": lambda: [{"seed": 1, "q": 1, "result": 2}, {"seed": 1, "q": 2, "result": 3}],
    "figure": picture,
    "alt": lambda: "A line that rises from one to two, drawn with care.",
    "absolute": lambda: False,
    "xlabel": lambda: "x",
    "ylabel": lambda: "y",
    "parts": lambda: [np.array([3.0, 1.0]), np.array([2.0])],
}


def f_of_x():
    return x**2 + sympy.exp(x)


def of_vector():
    return lambda v: (v**3).sum()


def images():
    return torch.arange(32).reshape(2, 4, 4).to(torch.uint8)


def teams():
    from teachkit.neurons import teams

    return {S: float(len(S)) for S in teams(range(3))}


def every_mask():
    from teachkit.neurons import every_mask

    return every_mask(3)


def axes():
    return picture().axes[0]


def interval():
    from teachkit.lab.curves import interval

    return {"a": interval([[1.0, 2.0], [2.0, 3.0]])}


def two(model, batch):
    return torch.tensor(0.5)


def on_grids():
    """A network whose weights are on grids, and what is stored of it."""
    from teachkit.compression import round_layers

    return round_layers(net(), 4)


def shared():
    from teachkit.compression import share_layers

    return share_layers(net(), 2)[1]


def fours():
    from teachkit.compression import grid

    return grid(drawn(3, 4), 4)


def written():
    """The path of a file with a network."""
    from teachkit.compression import save

    save(FOLDER / "net", net(), form="dense")
    return FOLDER / "net"


def noisy():
    from teachkit.sparse_training import noise

    return noise(net(), 0.5)


def talker():
    from teachkit.lab.transformers import transformer

    return transformer(7, width=4, depth=1, heads=2, context=6).double()


def weights_of_talker():
    from teachkit.lab.transformers import transformer

    return dict(transformer().state_dict())


def norms():
    names = [*(f"attention.{each}" for each in "qkvo"), "mlp.up"]
    return {f"blocks.0.{name}.weight": drawn(4).exp() for name in names}


def spoken():
    from teachkit.lab.tokens import Characters, Language

    letters = Characters("abcdefg")
    return Language(talker(), letters.encode, letters.decode)


def little():
    """A GGUF file without facts and tensors."""
    (FOLDER / "little.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(24))
    return FOLDER / "little.gguf"


def packed_scores():
    from teachkit.lab.matrices import packed

    return packed(scores())


SPECIAL = {
    "hessian.dense": {"f": of_vector, "at": lambda: drawn(3)},
    "hessian.dense_naive": {"f": of_vector, "at": lambda: drawn(3)},
    "hessian.of_model": {"names": lambda: ["0.bias"]},
    "hessian.eigenvalue_signs": {"H": lambda: sympy.Matrix([[2, 0], [0, -1]])},
    "hessian.kind": {"H": lambda: sympy.Matrix([[2, 0], [0, -1]])},
    "hessian.sign_test": {"f": lambda: x**4 - x**2},
    "hessian.autodiff": {"point": lambda: {x: 1.0, y: 2.0}},
    "taylor.lagrange": {
        "f": f_of_x,
        "point": lambda: 0,
        "between": lambda: z,
    },
    "taylor.gradient_and_product": {
        "value": lambda: lambda p: (p["a"] ** 3).sum(),
        "params": lambda: {"a": drawn(3)},
        "step": lambda: {"a": drawn(3, seed=1)},
    },
    "taylor.along": {"t": lambda: [0.5, 1.0]},
    "taylor.together": {"counts": lambda: [1, 2]},
    "masks.keep_quota": {"keep": lambda: {"0.weight": 3, "2.weight": 2}},
    "masks.keep_n_of_m": {"scores": lambda: {"w": drawn(3, 4)}, "n": lambda: 2, "m": lambda: 4},
    "masks.keep_n_of_m_naive": {"scores": lambda: drawn(3, 4), "n": lambda: 2, "m": lambda: 4},
    "masks.removed": {"n": lambda: 10},
    "masks.split": {"flat": lambda: drawn(21), "like": scores},
    "masks.combine": {"masks": lambda: (kept(), kept())},
    "masks.operations_naive": {"rows": lambda: 2, "bias": lambda: True},
    "lab.progress.record": {"kind": lambda: "lesson", "name": lambda: "02"},
    "lab.progress.read": {"content": lambda: b'{"kind": "lesson"}'},
    "lab.progress.summary": {"events": lambda: [{"kind": "lesson", "name": "02", "time": ""}]},
    "lab.progress.joined": {"first": lambda: {"answer": "up"}, "later": lambda: {"answer": "up"}},
    "lab.progress.shown": {"kind": lambda: "quiz", "name": lambda: "02.1"},
    "lab.progress.seen": {"kind": lambda: "quiz", "names": lambda: ["02.1"]},
    "masks.total": {
        "operations": lambda: __import__("teachkit.masks").masks.operations(net(), batch()[0])
    },
    "masks.subset_losses": {"model": lambda: net(4, 1, 3), "k": lambda: 2},
    "masks.best_subset": {"model": lambda: net(4, 1, 3)},
    "masks.subset_losses_naive": {"model": lambda: net(4, 1, 3)},
    "masks.from_torch": {},
    "obd.hutchinson": {"directions": lambda: 3},
    "obd.diagonal": {"method": lambda: "auto"},
    "obd.by_products": {"chunk": lambda: 4},
    "obd.softmax_columns": {"z": lambda: drawn(5, 3)},
    "obd.saliency": {},
    "obs.prune_layer": {"scope": lambda: "row", "method": lambda: "exact", "damping": lambda: 0.1},
    "obs.prune_layers": {"scope": lambda: "layer", "method": lambda: "exact"},
    "obs.curvature": {"kind": lambda: "exact"},
    "obs.prune": {"kind": lambda: "gauss-newton", "H": lambda: None},
    "obs.surgeon": {"block": lambda: 2},
    "fisher.blocks": {},
    "fisher.prune": {"update": lambda: "joint"},
    "fisher.prune_naive": {"F": positive, "w": lambda: drawn(3), "k": lambda: 1},
    "fisher.gradients": {"kind": lambda: "sampled"},
    "fisher.squares": {"a": lambda: drawn(5, 2), "delta": lambda: drawn(5, 3)},
    "fisher.agreement": {"estimate": scores, "exact": scores},
    "magnitude.threshold": {"weights": scores, "k": lambda: 3},
    "magnitude.lamp_naive": {"w": lambda: [-2.0, 1.0, 2.0]},
    "magnitude.quotas_naive": {"shapes": lambda: [(10, 100), (2, 10)], "keep": lambda: 510},
    "magnitude.by_layer": {"factors": lambda: {"0.weight": 1.0}},
    "magnitude.han": {
        "factors": lambda: None,
        "optimizer": lambda: functools.partial(torch.optim.SGD, lr=0.1),
    },
    **{
        f"sparse_training.{name}": {"log_alpha": lambda: drawn(4), "u": lambda: drawn(4).sigmoid()}
        for name in ("gate", "open_chance", "atoms", "settled_gate", "kl")
    },
    "sparse_training.soft_threshold": {"t": lambda: 0.5},
    "sparse_training.group_factor": {"t": lambda: 0.5},
    "sparse_training.density": {"z": lambda: torch.tensor([0.2, 0.7]), "log_alpha": lambda: 0.5},
    "sparse_training.log_ratio": {"log_variance": lambda: drawn(4, seed=2)},
    "sparse_training.kl_exact": {"log_alpha": lambda: 0.5},
    "sparse_training.l1": {"strength": lambda: 0.1},
    "sparse_training.l0": {"strength": lambda: 0.1, "initial": lambda: 0.5},
    "sparse_training.variational_dropout": {"strength": lambda: 0.1},
    "sparse_training.noise": {"sigma": lambda: 0.5},
    "sparse_training.noise_power": {"sigma": lambda: 0.5, "layers": lambda: 3},
    "sparse_training.perturbed": {"sigma": lambda: 0.5},
    "sparse_training.monte_carlo": {"sigma": lambda: 0.5, "samples": lambda: 3},
    "sparse_training.gradient_noise": {"net": noisy, "draws": lambda: 3},
    **{
        f"sparse_training.{name}": {
            "f": lambda: lambda m: (m**2).sum(-1),
            "phi": lambda: drawn(3),
            "m": lambda: torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.float64),
            "w": lambda: drawn(3),
            "eps": lambda: drawn(5, 3),
            "sigma": lambda: 0.5,
        }
        for name in (
            *("exact_coins", "score_function", "straight_through"),
            *("exact_noise", "noise_score", "noise_slope"),
        )
    },
    "scale.prune": {"model": talker, "method": lambda: "sparsegpt"},
    **{f"scale.{name}": {"model": talker} for name in ("perplexity", "input_norms")},
    "scale.layers_of": {"model": talker, "path": lambda: "blocks"},
    "scale.blocks_of": {"path": lambda: ""},
    "scale.says": {"language": spoken, "prompt": lambda: "ab", "count": lambda: 2},
    "scale.owl": {"model": talker, "times": lambda: 2.0, "spread": lambda: 0.05},
    "scale.owl_densities": {
        "shares": lambda: [0.1, 0.2],
        "density": lambda: 0.5,
        "spread": lambda: 0.05,
    },
    "scale.wanda_scores": {"X": lambda: drawn(9, 3)},
    "scale.wanda_naive": {"X": lambda: drawn(9, 3)},
    "scale.sparsegpt_naive": {"X": lambda: drawn(9, 3)},
    "scale.output_error": {"X": lambda: drawn(9, 3), "pruned": lambda: drawn(2, 3, seed=1)},
    **{
        f"scale.{name}": {
            "model": talker,
            "factors": lambda: {"blocks.0.mlp.up.weight": drawn(4).exp()},
            "norms": norms,
        }
        for name in ("stretched", "equalised")
    },
    "scale.unit_scores": {"model": talker},
    "scale.without_units": {
        "model": talker,
        "keep": lambda: {"blocks.0.attention": torch.tensor([True, False])},
    },
    "lab.transformers.blocks_by_name": {"model": talker},
    "lab.stretching.joints": {"model": talker},
    "lab.language.text": {"name": lambda: "devil"},
    "lab.language.halves": {"tokens": lambda: torch.arange(20)},
    **{
        f"lab.language.{name}": {
            "tokens": lambda: torch.arange(20),
            "length": lambda: 3,
            "count": lambda: 2,
        }
        for name in ("windows", "pieces")
    },
    "lab.language.loaded": {"weights": weights_of_talker},
    "lab.gguf.read": {"path": little},
    "lab.gguf.plain": {"blocks": lambda: np.zeros((2, 4), np.uint8)},
    "lab.gguf.halves": {"blocks": lambda: np.zeros((2, 4), np.uint8), "count": lambda: 1},
    "lab.gguf.q8_0": {"blocks": lambda: np.zeros((2, 34), np.uint8)},
    "lab.gguf.q4_1": {"blocks": lambda: np.zeros((2, 20), np.uint8)},
    "lab.matrices.packed": {"tensors": scores, "about": lambda: {"a": "b"}},
    "lab.matrices.read": {"content": packed_scores},
    "lab.attention.rotate": {"base": lambda: 100.0},
    "lab.attention.linear": {"inputs": lambda: 3, "outputs": lambda: 2},
    **{
        f"lab.transformers.{name}": {
            "vocabulary": lambda: 5,
            "width": lambda: 4,
            "depth": lambda: 1,
            "heads": lambda: 2,
            "context": lambda: 6,
            "kv": lambda: 1,
            "inner": lambda: 3,
            "eps": lambda: 1e-5,
            "base": lambda: 100.0,
            "seed": lambda: 0,
        }
        for name in ("transformer", "llama")
    },
    "schedule.delayed": {"schedule": lambda: abs},
    "schedule.every": {"schedule": lambda: abs},
    "schedule.gradual": {"schedule": lambda: lambda t: 0.1 * t, "scope": lambda: "global"},
    "schedule.within_bound": {
        "make": lambda: lambda s: net(),
        "accuracy": lambda: lambda model: 0.9,
        "floor": lambda: 0.5,
        "low": lambda: 0.0,
        "high": lambda: 1.0,
        "tolerance": lambda: 0.1,
    },
    "structured.group_ids": {
        "block": lambda: (2, 2),
        "granularity": lambda: "block",
        "device": lambda: "cpu",
    },
    "structured.group_masks": {
        "block": lambda: (1, 1),
        "scope": lambda: "layer",
        "on_empty": lambda: "allow",
    },
    "structured.group_scores": {"block": lambda: (1, 1)},
    "structured.keep_groups": {
        "scores": lambda: {"0": drawn(4)},
        "scope": lambda: "layer",
        "on_empty": lambda: "refuse",
    },
    "structured.stored": {"form": lambda: "csr"},
    "structured.break_even": {
        "outputs": lambda: 8,
        "inputs": lambda: 8,
        "batch": lambda: 2,
        "block": lambda: 2,
        "sparsities": lambda: [0.5],
    },
    "structured.csr": {"block": lambda: 1},
    "structured.latencies": {"models": lambda: {"a": net()}},
    "structured.group_of": {"index": lambda: (1, 2), "block": lambda: (2, 2)},
    "structured.groups": {"block": lambda: (2, 2)},
    "structured.group_mask_naive": {"score": lambda: drawn(3, 4), "block": lambda: (2, 2)},
    "structured.mean_score": {"score": lambda: drawn(3, 4), "weights": lambda: [(0, 1), (2, 2)]},
    "structured.unit_scores": {"method": lambda: "taylor"},
    "structured.cut": {"outputs": lambda: [0, 2], "inputs": lambda: [1, 3]},
    "structured.csr_parts": {"matrix": lambda: drawn(3, 4)},
    "paradox.predicted_change": {},
    "paradox.mean_plus_spread": {"weight": lambda: 1.0},
    "paradox.matched": {"key": scores, "bins": lambda: 3},
    "paradox.directed": {"share": lambda: 0.8},
    "paradox.part": {"m": lambda: 2},
    "paradox.repair": {"pruned": cut},
    "paradox.repair_naive": {"pruned": cut},
    "neurons.banzhaf": {"keep": lambda: 0.5},
    "neurons.every_mask": {"units": lambda: 3, "device": lambda: "cpu"},
    "neurons.game": {"layer": lambda: "0", "masks": every_mask},
    "neurons.regress": {"masks": every_mask},
    "neurons.merge": {"by": lambda: "regression"},
    "neurons.surgeon": {"outgoing": lambda: True},
    "neurons.both_sides": {"values": scores},
    "neurons.without_unit": {"reader": lambda: "2", "j": lambda: 1},
    "neurons.scores": {"method": lambda: "random"},
    "neurons.least_squares": {
        "X": lambda: drawn(9, 3),
        "Z": lambda: drawn(9, 2),
        "keep": lambda: torch.tensor([True, False, True]),
    },
    "neurons.explained": {
        "A": lambda: drawn(9, 3),
        "keep": lambda: torch.tensor([True, False, True]),
    },
    "core.objective.mapped": {"f": lambda: torch.square},
    "neurons.costs": {},
    "neurons.elimination": {"count": lambda: 1, "bias": lambda: False},
    "neurons.teams": {"units": lambda: [0, 1]},
    "neurons.banzhaf_naive": {"v": teams, "keep": lambda: 0.5},
    "neurons.shapley_naive": {"v": teams},
    "neurons.prune": {"method": lambda: "random", "repaired": lambda: True},
    **{
        f"compression.{name}": {
            "W": lambda: drawn(3, 4),
            "to": fours,
            "numbers": lambda: torch.tensor([[1, -2, 0, 3]] * 3, dtype=torch.int32),
            "bits": lambda: 4,
            "kind": lambda: "affine",
            "per": lambda: "tensor",
            "clip": lambda: 0.9,
            "order": lambda: "given",
        }
        for name in (
            *("grid", "quantize", "dequantize", "rounded", "gptq", "gptq_naive"),
            *("round_layers", "share_layers"),
        )
    },
    "compression.grid_naive": {
        "w": lambda: [0.5, -1.0],
        "bits": lambda: 4,
        "kind": lambda: "affine",
    },
    "compression.round_naive": {
        "w": lambda: [0.5, -1.0],
        "to": lambda: __import__("teachkit.compression").compression.Spacing(0.5, 0, -3, 3),
    },
    "compression.step": {"weights": lambda: drawn(3), "value": lambda: 0.5},
    "compression.kmeans": {"values": lambda: drawn(9), "rounds": lambda: 3},
    "compression.kmeans_naive": {"values": lambda: [0.5, 1.0, 3.0], "rounds": lambda: 3},
    "compression.tune": {"shared": shared},
    "compression.entropy": {"counts": lambda: [3, 1]},
    "compression.huffman_naive": {"counts": lambda: {"a": 3, "b": 1}},
    "compression.relative_naive": {"values": lambda: [0.0, 1.0, 0.0], "bits": lambda: 2},
    "compression.pack": {"tensor": lambda: drawn(3, 4), "form": lambda: "csr"},
    "compression.unpack": {
        "packed": lambda: __import__("teachkit.compression").compression.pack(drawn(3, 4), "csr")
    },
    "compression.smallest": {"tensor": lambda: drawn(3, 4), "forms": lambda: ("dense", "csr")},
    "compression.bound": {"tensor": lambda: drawn(3, 4)},
    "compression.save": {
        "path": lambda: FOLDER / "saved",
        "model": lambda: on_grids()[0],
        "stored": lambda: on_grids()[1],
        "form": lambda: "deep",
    },
    "compression.load": {"path": written},
    **{
        f"compression.{name}": {
            "z": lambda: drawn(5, 3),
            "teacher": lambda: drawn(5, 3, seed=1),
            "temperature": lambda: 2.0,
            "share": lambda: 0.5,
        }
        for name in ("soften", "soft_gradient", "matched_gradient", "soft_loss")
    },
    "compression.soft_targets": {"teacher": net},
    "compression.distil": {
        "teacher": net,
        "student": net,
        "temperature": lambda: 2.0,
        "share": lambda: 0.5,
    },
    "lab.curves.interval": {"runs": lambda: [1.0, 2.0, 4.0], "confidence": lambda: 0.9},
    "lab.curves.spearman": {"a": lambda: [1.0, 2.0, 3.0], "b": lambda: [1.0, 3.0, 2.0]},
    "lab.curves.student": {"confidence": lambda: 0.9, "freedom": lambda: 3},
    "lab.curves.accuracy_curve": {"scope": lambda: "global", "threshold": lambda: 0.5},
    "lab.data.verified": {
        "name": lambda: "some",
        "content": lambda: b"some",
        "sha256": lambda: SOME,
    },
    "lab.data.shipped": {
        "name": lambda: "digits.npz",
        "sha256": lambda: __import__("teachkit.lab.data").lab.data.DIGITS_SHA256,
    },
    "lab.data.monks_rule": {"k": lambda: 1, "a": lambda: (1, 1, 1, 1, 1, 1)},
    "lab.data.monks": {"k": lambda: 1},
    "lab.data.one_hot": {"rows": lambda: [(1, 3, 2, 1, 4, 2)]},
    "lab.data.as_batch": {"images": images, "labels": lambda: torch.tensor([1, 2])},
    "lab.data.mnist_files": {"mirrors": list, "hashes": lambda: {"some": SOME}},
    "lab.data.from_folder": {
        "place": lambda: FOLDER,
        "name": lambda: "some",
        "sha256": lambda: SOME,
    },
    "lab.data.uncompressed": {"path": lambda: FOLDER / "some"},
    "lab.data.cached": {"path": lambda: FOLDER / "some", "sha256": lambda: SOME, "mirrors": list},
    "lab.data.read_idx": {
        "name": lambda: "some",
        "content": lambda: bytes([0, 0, 8, 1, 0, 0, 0, 1, 5]),
    },
    "lab.evaluation.predictions": {"threshold": lambda: 0.5},
    "lab.evaluation.evaluate": {"threshold": lambda: 0.5, "chunk": lambda: 3},
    "lab.evaluation.accuracy": {"threshold": lambda: 0.5, "chunk": lambda: 3},
    "lab.levenberg.fit": {
        "respond": lambda: respond,
        "theta": lambda: drawn(2, 1),
        "target": lambda: drawn(2),
        "decay": lambda: 0.1,
        "keep": lambda: torch.tensor([[True], [True]]),
    },
    "lab.models.build": {"make": lambda: lambda: [nn.ReLU()], "seed": lambda: 0},
    "lab.models.dense": {
        "inputs": lambda: 4,
        "hidden": lambda: [3],
        "classes": lambda: 2,
        "activation": lambda: nn.Tanh,
    },
    "lab.models.mlp": {
        "shape": lambda: (4,),
        "hidden": lambda: [3],
        "classes": lambda: 2,
        "activation": lambda: nn.Tanh,
        "seed": lambda: 0,
    },
    "lab.models.lenet_300_100": {
        "shape": lambda: (1, 4, 4),
        "classes": lambda: 2,
        "seed": lambda: 0,
    },
    "lab.models.lenet5": {"shape": lambda: (1, 8, 8), "classes": lambda: 2, "seed": lambda: 0},
    "lab.models.vgg_like": {"shape": lambda: (1, 4, 4), "classes": lambda: 2, "seed": lambda: 0},
    "lab.models.residual": {"width": lambda: 2, "blocks": lambda: 1, "seed": lambda: 0},
    "lab.rounds.by_criterion": {"scope": lambda: "global"},
    "lab.rounds.retrain": {
        "choose": lambda: half,
        "steps": lambda: [0.5],
        "epochs": lambda: [1],
        "threshold": lambda: 0.5,
        "seed": lambda: 0,
        "settings": lambda: {"a": 1},
    },
    "lab.storage.packed": {"form": lambda: "csr"},
    "lab.sweep.run": {"workers": lambda: 1},
    "lab.sweep.load": {"names": lambda: ["seed"]},
    "lab.sweep.tidy": {"path": lambda: FOLDER / "tidy.jsonl"},
    "lab.sweep.select": {},
    "lab.sweep.column": {"name": lambda: "result", "by": lambda: "q", "over": lambda: "seed"},
    "lab.timing.seconds": {"run": lambda: lambda: None, "repeats": lambda: 1, "now": lambda: None},
    "lab.timing.times": {"works": lambda: {"a": lambda: None}},
    "lab.timing.crossing": {"sparsities": lambda: [0.5, 0.9], "speedup": lambda: [0.5, 2.0]},
    "lab.training.fit": {
        "data": batch,
        "batch_size": lambda: 3,
        "optimizer": lambda: functools.partial(torch.optim.SGD, lr=0.1),
        "groups": lambda: None,
        "penalty": lambda: None,
        "after_step": lambda: None,
        "scheduler": lambda: None,
        "threshold": lambda: 0.5,
        "seed": lambda: 0,
    },
    "core.layers.chain": {"name": str},
    "core.layers.patches": {},
    "core.layers.positions": {"z": lambda: drawn(7, 3)},
    "core.layers.parameter_name": {"layer": lambda: "0", "kind": lambda: "weight"},
    "core.losses.factor": {"p": lambda: drawn(5, 3).softmax(1)},
    "core.losses.derivatives": {"z": lambda: drawn(7, 3), "y": lambda: torch.arange(7) % 3},
    "core.losses.output_gradients": {"y": lambda: torch.arange(7) % 3, "kind": lambda: "sampled"},
    "core.losses.drawn": {},
    "core.recorder.record_calls": {"at_call": lambda: lambda call: None, "graph": lambda: False},
    "core.selection.kth_smallest": {"absolute": lambda: False},
    "core.selection.largest": {"absolute": lambda: False},
    "core.selection.subsets": {"n": lambda: 4},
    "core.weights.boolean": {},
    "core.ranking.count": {},
    "show.check": {"name": lambda: "05.1", "function": lambda: abs},
    "show.explore": {"draw": lambda: lambda: None},
    "show.end": {"lesson": lambda: "02"},
    "show.course_map": {"here": lambda: "00"},
    "show.source": {"function": lambda: net, "docstring": lambda: False},
    "show.quiz": {"name": lambda: "04.1"},
    "show.reveal": {"name": lambda: "04.1", "thing": plain_picture},
    "show.plots.canvas": {"columns": lambda: 1, "width": lambda: 3.0, "height": lambda: 2.0},
    "show.records": {
        "name": lambda: "method",
        "found": lambda: {"OBD": [0.9, 0.8]},
        "at": lambda: [0.5, 0.7],
    },
    "show.table": {
        "data": lambda: {"method": ["OBD"], "accuracy": [0.9]},
        "caption": lambda: "Accuracy by method.",
        "units": lambda: {"accuracy": "%"},
        "digits": lambda: 3,
        "decimals": lambda: 2,
        "signed": lambda: False,
        "best": lambda: "max",
    },
}


def bound(name, function):
    """The valid call of a function: a value for each argument that is known, else its default."""
    given = {}
    for parameter in inspect.signature(function).parameters.values():
        make = SPECIAL.get(name, {}).get(parameter.name) or COMMON.get(parameter.name)
        if parameter.kind in (parameter.VAR_KEYWORD,):
            continue
        if make is not None:
            given[parameter.name] = make()
        elif (
            parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        ):
            raise KeyError(f"{name} needs a value for {parameter.name}")
    return given


# What is wrong ------------------------------------------------------------------------------------


def lazy():
    return nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.LazyLinear(3))


def broken():
    made = net()
    made[0].weight.data[0, 0] = math.nan
    return made


def spent():
    walk = iter([1, 2])
    list(walk)
    return walk


GENERIC = {
    "None": lambda: None,
    "word": lambda: "word",
    "empty word": lambda: "",
    "3": lambda: 3,
    "-1": lambda: -1,
    "0": lambda: 0,
    "10^30": lambda: 10**30,
    "1.5": lambda: 1.5,
    "NaN": lambda: math.nan,
    "inf": lambda: math.inf,
    "True": lambda: True,
    "numpy 2": lambda: np.int64(2),
    "complex": lambda: 1j,
    "[]": list,
    "[1, 1]": lambda: [1, 1],
    "words": lambda: ["a", "b"],
    "()": tuple,
    "{}": dict,
    "{a: 1}": lambda: {"a": 1},
    "bytes": lambda: b"ab",
    "object": object,
    "a type": lambda: int,
    "f()": lambda: lambda: 0,
    "f(*)": lambda: lambda *a, **k: "nothing",
    "raises": lambda: raises,
    "spent": spent,
    "array": lambda: np.ones(3),
    "scalar tensor": lambda: torch.tensor(0.5),
    "empty tensor": lambda: torch.empty(0),
    "NaN tensor": lambda: torch.tensor([1.0, math.nan]),
    "whole tensor": lambda: torch.arange(6).reshape(2, 3),
    "boolean tensor": lambda: torch.tensor([True, False, True]),
    "complex tensor": lambda: torch.ones(2, dtype=torch.complex64),
    "meta tensor": lambda: torch.empty(3, 4, device="meta"),
    "cube": lambda: torch.ones(2, 3, 4),
    "no weights": lambda: nn.Sequential(nn.ReLU()),
    "lazy model": lazy,
    "meta model": lambda: net().to("meta"),
    "broken model": broken,
    "float32 model": lambda: net().float(),
    "conv model": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)).double(),
    "wrong batch": lambda: (drawn(7, 5), torch.arange(7) % 3),
    "a path": lambda: FOLDER / "nothing",
}


def raises(*given, **named):
    raise KeyError("mine")


def spoiled(value):
    """What is nearly right: a valid value with one thing wrong."""
    if isinstance(value, torch.Tensor):
        yield "cut", value[:-1] if value.ndim else value
        yield "transposed", value.mT if value.ndim > 1 else value[None]
        yield "float16", value.half()
        yield "float32", value.float()
        yield "uint8", value.to(torch.uint8)
        yield "int64", value.long()
        yield "boolean", value.bool()
        yield "negative", -value.double() - 1
        yield "large", value.double() * 1e300
        yield "zero", torch.zeros_like(value)
        yield "no rows", value[:0] if value.ndim else value
        yield "meta", value.to("meta")
        yield "flat", value.reshape(-1)
        yield "sparse", value.to_sparse() if value.ndim else value
        if value.is_floating_point():
            yield (
                "one NaN",
                value.index_fill(0, torch.tensor([0]), math.nan) if value.ndim else value,
            )
            yield (
                "one inf",
                value.index_fill(0, torch.tensor([0]), math.inf) if value.ndim else value,
            )
        with torch.inference_mode():
            lent = value.clone()
        yield "inference", lent
    elif hasattr(value, "_fields"):
        for field in value._fields:
            yield f"{field} None", value._replace(**{field: None})
            for name, part in spoiled(getattr(value, field)):
                yield f"{field} {name}", value._replace(**{field: part})
    elif isinstance(value, (list, tuple)):
        kind = type(value)
        yield "twice", kind([*value, *value])
        yield "shorter", value[:-1]
        yield "with a word", kind([*value[:-1], "a"])
        yield "with None", kind([*value[:-1], None])
        yield "reversed", value[::-1]
        if isinstance(value, list):
            yield "from a generator", (each for each in value)
        for i, each in enumerate(value[:2]):
            for name, part in spoiled(each):
                yield f"[{i}] {name}", kind([*value[:i], part, *value[i + 1 :]])
    elif isinstance(value, dict) and value:
        first = next(iter(value))
        yield "one less", {k: v for k, v in value.items() if k != first}
        yield "one more", value | {"other": value[first]}
        yield "key 3", {3: value[first]}
        yield "word in it", value | {first: "a"}
        yield "None in it", value | {first: None}
        for name, part in spoiled(value[first]):
            yield f"[{first!r}] {name}", value | {first: part}
    elif isinstance(value, nn.Module):
        yield "training", copy.deepcopy(value).train()
        with torch.inference_mode():
            lent = copy.deepcopy(value)
        yield "inference", lent
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield "negative", -value - 1
        yield "half", value + 0.5
        yield "more", value + 1
        yield "quoted", str(value)
    elif isinstance(value, str):
        yield "capital", value.upper() + "X"
        yield "with a space", f" {value}"


DEVICES = {"every_mask", "group_ids"}
ENDLESS = {"10^30"}


class Tried(NamedTuple):
    """A bad call: which, what came of it, and whether what came was raw."""

    call: str
    outcome: str
    raw: bool = False
    accepted: bool = False

    def __str__(self):
        return f"{self.call}: {self.outcome}"


class SlowError(BaseException):
    """A call that takes longer than a second; it was not refused."""


def _slow(*_):
    raise SlowError


def bad_calls(name):
    """Which argument is replaced by what: (argument, description, arguments)."""
    function = CALLS[name]
    valid = bound(name, function)
    kinds = {p.name: p.kind for p in inspect.signature(function).parameters.values()}
    for argument in valid:
        several = kinds[argument] is inspect.Parameter.VAR_POSITIONAL
        for word, make in GENERIC.items():
            yield argument, word, (lambda make=make: (make(),)) if several else make
        if not several:
            for word, value in spoiled(valid[argument]):
                yield argument, word, lambda value=value: value


def attempt(name, argument, word, make):
    """Call a function with one bad argument."""
    function = CALLS[name]
    given = bound(name, function) | {argument: make()}
    parameters = inspect.signature(function).parameters
    args = [
        each
        for key, value in given.items()
        if parameters[key].kind in (inspect.Parameter.VAR_POSITIONAL,)
        for each in value
    ]
    named = {
        key: value
        for key, value in given.items()
        if parameters[key].kind is not inspect.Parameter.VAR_POSITIONAL
    }
    call = f"{name}({argument} = {word})"
    old = signal.signal(signal.SIGALRM, _slow)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        made = function(*args, **named)
        if inspect.isgenerator(made):
            made = list(made)
        signal.setitimer(signal.ITIMER_REAL, 0)
        return Tried(call, f"accepted: {short(made)}", accepted=True)
    except SlowError:
        return Tried(call, "slow", accepted=True)
    except Exception as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        return judged(call, argument, error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def short(made):
    return " ".join(repr(made).split())[:300]


def judged(call, argument, error):
    """Raw is what is no sentence of the house's: raised elsewhere, or of another type."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    place = Path(code.co_filename)
    raised = code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    ours = HOUSE in place.parents and raised and isinstance(error, (ValueError, TypeError))
    mine = place == Path(__file__)  # the error of a function that the caller gave
    said = f"{type(error).__name__}: {str(error)[:300]}"
    where = "" if ours or mine else f" [{place.name}:{trace.tb_lineno}]"
    return Tried(call, said + where, raw=not (ours or mine))


def attempts(name, share=1):
    """The bad calls of a function; of ``share`` of them one, others each day."""
    day = datetime.date.today().toordinal()
    with warnings.catch_warnings(action="ignore"):
        for i, (argument, word, make) in enumerate(bad_calls(name)):
            if (i + day) % share == 0 and not (word in ENDLESS and argument in ("workers",)):
                with (
                    contextlib.redirect_stdout(io.StringIO()),
                    contextlib.redirect_stderr(io.StringIO()),
                    contextlib.chdir(FOLDER),  # where a file named "word" is in nobody's way
                ):
                    tried = attempt(name, argument, word, make)
                yield tried


CALLS = public()


def missing():
    """The functions without a valid call, and those whose valid call fails."""
    wrong = []
    with warnings.catch_warnings(action="ignore"):
        for name, function in CALLS.items():
            try:
                given = bound(name, function)
                many = [
                    p.name
                    for p in inspect.signature(function).parameters.values()
                    if p.kind is p.VAR_POSITIONAL
                ]
                args = [each for key in many for each in given.pop(key, ())]
                made = function(*args, **given)
                if inspect.isgenerator(made):
                    list(made)
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {error}"[:300])
    return wrong


def main():
    os.environ.pop("TEACHKIT_DATA", None)
    only = [name for name in CALLS if any(name.startswith(arg) for arg in sys.argv[1:])] or list(
        CALLS
    )
    tried = []
    for name in only:
        tried += attempts(name)
        print(name, len(tried), sum(t.raw for t in tried), file=sys.stderr, flush=True)
    counts = Counter("raw" if t.raw else "accepted" if t.accepted else "refused" for t in tried)
    if "--accepted" in sys.argv:
        number = int(sys.argv[sys.argv.index("--accepted") + 1])
        taken = [t for t in tried if t.accepted]
        for t in random.Random(7).sample(taken, min(number, len(taken))):
            print(t)
    for t in tried:
        if t.raw:
            print("RAW", t)
    general = sum(" cannot work with " in t.outcome for t in tried)
    print(
        len(only), "functions,", len(tried), "bad calls:", dict(counts), "by shapes only:", general
    )


if __name__ == "__main__":
    main()
