"""The exact diagonal of the Hessian, in units of one forward and backward pass.

Cross-entropy, 10 classes, weights without biases. What takes one product per weight runs on a drawn
subset of the weights, and its time is scaled up.
"""

import copy
import importlib
import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap
from torch.nn.functional import cross_entropy, one_hot

from benchmarks.cases import Case, Competitor
from benchmarks.inputs import PASS, images, lazily, one_pass
from teachkit import lab, masks, obd
from teachkit.core.objective import objective
from teachkit.core.types import Batch, Params

IMAGE, DIGIT = (1, 28, 28), (1, 8, 8)
mlp = lab.models.mlp


class Net(NamedTuple):
    """A network, the shape of an image, and how many products fit into memory side by side."""

    build: Callable[[], nn.Sequential]
    shape: tuple[int, int, int]
    many: int


def _dense(*hidden: int, activation: type[nn.Module]) -> Net:
    return Net(partial(mlp, IMAGE, hidden=hidden, activation=activation), IMAGE, 16)


NETS = {
    "LeNet-300-100 ReLU": _dense(300, 100, activation=nn.ReLU),
    "784-300-100-10 tanh": _dense(300, 100, activation=nn.Tanh),
    "LeNet-5 ReLU": Net(lab.models.lenet5, IMAGE, 2),
    "784-300-100-10 GELU": _dense(300, 100, activation=nn.GELU),
    "784-300-100-100-10 tanh": _dense(300, 100, 100, activation=nn.Tanh),
    "digits 64-64-32-10 ReLU": Net(mlp, DIGIT, 64),
}
TINY = {
    "64-8-10 ReLU": Net(partial(mlp, DIGIT, hidden=(8,)), DIGIT, 4),
    "64-8-6-10 GELU": Net(partial(mlp, DIGIT, hidden=(8, 6), activation=nn.GELU), DIGIT, 4),
}


def cases(quick: bool) -> list[Case]:
    """One case a network; tiny networks on 20 samples when quick."""
    chosen, n = (TINY, 20) if quick else (NETS, 1000)
    return [_case(name, net, n) for name, net in chosen.items()]


def _case(name: str, kind: Net, n: int) -> Case:
    """Everyone on one network and one batch."""
    net, (batch, what) = kind.build().eval(), images(n, kind.shape)
    total = sum(w.numel() for w in masks.prunable(net).values())
    order = torch.randperm(total, generator=torch.Generator().manual_seed(1))
    chosen, more = order[: kind.many], order[: max(kind.many, 16)]
    part, scale = f"{len(chosen)} of {total:,} weights, scaled up", total / len(chosen)
    one = f"{len(more)} of {total:,} weights, scaled up; the first gradient not counted"
    relu = any(isinstance(module, nn.ReLU) for module in net)
    extension = "DiagGGNExact" if relu else "DiagHessian"
    two = (batch[0][:2], batch[1][:2])
    way = f"method {obd.diagonal(net, two, progress=False).method!r}"
    competitors = {
        PASS: Competitor(partial(one_pass, net, batch)),
        "teachkit": Competitor(partial(obd.diagonal, net, batch), note=way),
        "BackPACK": Competitor(lazily(backpack, net, batch, extension), note=extension),
        "curvlinops": Competitor(lazily(curvlinops, net, batch, chosen), scale, part),
        "torch.func, vmap": Competitor(partial(products, net, batch, chosen), scale, part),
        "one backward per weight": Competitor(
            lazily(naive, net, batch, more), total / len(more), one
        ),
    }
    return Case(f"{name}, N = {n}, {what}", PASS, competitors, truth="teachkit")


def backpack(net: nn.Module, batch: Batch, extension: str) -> Callable[[], Params]:
    """BackPACK (Dangel, Kunstner & Hennig 2020); biases are left out."""
    peer, kinds = (importlib.import_module(name) for name in ("backpack", "backpack.extensions"))
    own = copy.deepcopy(net)
    weights = masks.prunable(own)
    for name, parameter in own.named_parameters():
        parameter.requires_grad_(name in weights)
    extended, loss = peer.extend(own), peer.extend(nn.CrossEntropyLoss())
    field = {"DiagHessian": "diag_h", "DiagGGNExact": "diag_ggn_exact"}[extension]

    def run() -> Params:
        extended.zero_grad()
        value = loss(extended(batch[0]), batch[1])
        with peer.backpack(getattr(kinds, extension)()):
            value.backward()
        return {name: getattr(w, field) for name, w in weights.items()}

    return run


def curvlinops(net: nn.Module, batch: Batch, chosen: Tensor) -> Callable[[], Params]:
    """curvlinops (Dangel et al. 2025): the Hessian as an operator, times unit vectors."""
    peer = importlib.import_module("curvlinops")
    own = copy.deepcopy(net)
    weights = masks.prunable(own)
    H = peer.HessianLinearOperator(
        own, nn.CrossEntropyLoss(), list(weights.values()), [batch], check_deterministic=False
    )

    def run() -> Params:
        units = one_hot(chosen, H.shape[1]).T.to(batch[0])
        return _partly(weights, chosen, (H @ units)[chosen, torch.arange(len(chosen))])

    return run


def products(net: nn.Module, batch: Batch, chosen: Tensor) -> Params:
    """Forward over reverse mode of torch.func, unit vectors side by side under vmap."""
    value, params = objective(net, batch)
    weights = {name: params[name] for name in masks.prunable(net)}
    total = sum(w.numel() for w in weights.values())

    def entry(position: Tensor) -> Tensor:
        unit = torch.zeros(total, dtype=batch[0].dtype).index_fill(0, position[None], 1.0)
        column = jvp(grad(value), (weights,), (masks.split(unit, weights),))[1]
        flat = torch.cat([part.reshape(-1) for part in column.values()])
        return flat.gather(0, position[None])[0]

    return _partly(weights, chosen, vmap(entry)(chosen))


def naive(net: nn.Module, batch: Batch, chosen: Tensor) -> Callable[[], Params]:
    """One backward pass through the gradient for each weight."""
    weights = masks.prunable(copy.deepcopy(net))
    value = cross_entropy(torch.func.functional_call(net, weights, (batch[0],)), batch[1])
    gradients = torch.autograd.grad(value, list(weights.values()), create_graph=True)
    asked = _partly(weights, chosen, torch.ones(len(chosen)))

    def run() -> Params:
        diagonal = {name: torch.full_like(w, math.nan).detach() for name, w in weights.items()}
        for (name, w), g in zip(weights.items(), gradients, strict=True):
            for at in map(tuple, (asked[name] == 1).nonzero().tolist()):
                (row,) = torch.autograd.grad(g[at], w, retain_graph=True, materialize_grads=True)
                diagonal[name][at] = row[at]
        return diagonal

    return run


def _partly(weights: Params, chosen: Tensor, values: Tensor) -> Params:
    """Values at chosen positions of all weights in a row; NaN elsewhere."""
    flat, taken = torch.zeros(2, sum(w.numel() for w in weights.values()))
    flat[chosen], taken[chosen] = values.detach().to(flat), 1.0
    parts, where = masks.split(flat, weights), masks.split(taken, weights)
    return {name: part.masked_fill(where[name] == 0, math.nan) for name, part in parts.items()}
