"""Which weights a gate multiplies: its own one, or all that go into a unit.

A unit is an output of a layer that :func:`structured.coupled` knows to be removable; layers whose outputs
are added share their units, and so their gates. The gate of a unit multiplies its incoming weights and its
bias. Once it is shut, everything that belongs to the unit is zero, also in a batch normalisation and in
the layers that read it: that is the list of the cuts by which :mod:`teachkit.engine.shrinking` removes it.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from teachkit.core.layers import UncoveredError, kind, parameter_name
from teachkit.core.types import Masks, Params
from teachkit.core.weights import keep_all, trainable
from teachkit.engine.sampled import Sampled
from teachkit.engine.shrinking import Keep, coupled, removal

Per = Literal["weight", "unit"]


class Gate(NamedTuple):
    """The gates of a tensor of weights: by what name they are known, and how they lie along it."""

    key: str
    shape: tuple[int, ...]


Wiring = dict[str, Gate]
"""By the name of a parameter, the gates that multiply it."""


def wiring(model: nn.Module, x: Tensor | None, per: Per) -> Wiring:
    """A gate for each weight, or for each unit that can be removed.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> wiring(net, torch.ones(1, 2), "unit")
    {'0.weight': Gate(key='0', shape=(3, 1)), '0.bias': Gate(key='0', shape=(3,))}
    """
    if per == "weight":
        return {name: Gate(name, tuple(w.shape)) for name, w in trainable(model).items()}
    wires: Wiring = {}
    for names in coupled(model, x):
        for layer in names:
            wires |= _of_layer(model, layer, names[0])
    if not wires:
        raise ValueError("model has no unit that can be removed: its only outputs are its own")
    return wires


def _of_layer(model: nn.Module, layer: str, key: str) -> Wiring:
    module = model.get_submodule(layer)
    if kind(module).role not in ("linear", "conv"):
        raise UncoveredError(f"units of layer {layer!r}, {type(module).__name__}, have no gates")
    tensors = {parameter_name(layer, part): getattr(module, part) for part in ("weight", "bias")}
    there = {name: t for name, t in tensors.items() if t is not None}
    for name, t in there.items():
        if not t.requires_grad:
            raise ValueError(f"{name!r} is frozen; its units cannot have gates")
    return {name: Gate(key, (len(t), *(1,) * (t.ndim - 1))) for name, t in there.items()}


def row(wires: Wiring, model: nn.Module, value: float = 1.0) -> dict[str, Tensor]:
    """A row of equal numbers for each set of gates."""
    shapes = {gate.key: (model.get_parameter(name), gate.shape) for name, gate in wires.items()}
    return {key: w.detach().new_full((prod(shape),), value) for key, (w, shape) in shapes.items()}


def sizes(wires: Wiring, theta: Params) -> dict[str, int]:
    """How many numbers each gate of a name multiplies."""
    counts: dict[str, int] = {}
    for name, gate in wires.items():
        each = theta[name].numel() // prod(gate.shape)
        counts[gate.key] = counts.get(gate.key, 0) + each
    return counts


def multiplied(theta: Params, wires: Wiring, z: Mapping[str, Tensor]) -> Params:
    """The weights times their gates."""
    return {name: theta[name] * z[gate.key].reshape(gate.shape) for name, gate in wires.items()}


def by_gates(wires: Wiring, z: Callable[[Tensor], Tensor], theta: Params, phi: Params) -> Params:
    """The weights times the gates that z makes of φ."""
    return multiplied(theta, wires, {key: z(each) for key, each in phi.items()})


def by_rows(wires: Wiring, z: Callable[[Tensor], Tensor], theta: Params, phi: Params) -> Params:
    """The weights times the gates that z makes of the weights themselves, (gates, numbers of each)."""
    keys = sizes(wires, theta)
    return multiplied(theta, wires, {key: z(rows(theta, wires, key)) for key in keys})


def rescale(wires: Wiring, z: Callable[[Tensor], Tensor], net: Sampled) -> None:
    """Write the weights times the gates that z makes of them."""
    theta = net.both()[0]
    with torch.no_grad():
        for name, w in by_rows(wires, z, theta, {}).items():
            theta[name].copy_(w)


def total_rows(wires: Wiring, cost: Callable[[Tensor], Tensor], net: Sampled) -> Tensor:
    """The sum of what the weights of each gate cost."""
    theta = net.both()[0]
    each = [cost(rows(theta, wires, key)).sum() for key in sizes(wires, theta)]
    return torch.stack(each).sum()


def total_gates(wires: Wiring, cost: Callable[[Tensor], Tensor], net: Sampled) -> Tensor:
    """The sum of what each number that has a gate costs."""
    theta, phi = net.both()
    each = [m * cost(phi[key]).sum() for key, m in sizes(wires, theta).items()]
    return torch.stack(each).sum()


def rows(theta: Params, wires: Wiring, key: str) -> Tensor:
    """All numbers that the gates of one name multiply, (gates, numbers of each)."""
    parts = [theta[name].reshape(prod(g.shape), -1) for name, g in wires.items() if g.key == key]
    return torch.cat(parts, 1)


def alive(model: nn.Module, x: Tensor | None = None) -> dict[str, Tensor]:
    """The units that have an incoming weight or a bias other than zero, (outputs,) by layer.

    It is what :func:`structured.shrink` takes; coupled layers stand under the name of the first.

    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1))
    >>> net[0].weight.data = torch.tensor([[0.0], [3.0]])
    >>> alive(net)
    {'0': tensor([False,  True])}
    """
    wires: Wiring = wiring(model, x, "unit")
    theta: Params = dict(model.named_parameters())
    keys = dict.fromkeys(gate.key for gate in wires.values())
    return {key: (rows(theta, wires, key).detach() != 0).any(1) for key in keys}


def settled(wires: Wiring, x: Tensor, sampled: Sampled) -> tuple[nn.Module, Masks]:
    """The ordinary network of a sampled one, and the masks of what is zero there for good."""
    model, masks = sampled.bake()
    by_unit = any(len(gate.shape) == 1 for gate in wires.values())
    return model, whole_units(model, alive(model, x), x) if by_unit else masks


def whole_units(model: nn.Module, keep: Keep, x: Tensor) -> Masks:
    """The masks of all parameters that a network without these units does not have.

    Raises:
        ValueError: a layer would be emptied.

    """
    masks = keep_all(model)
    for cut in removal(model, keep, x):
        name = parameter_name(cut.layer, cut.name)
        if isinstance(cut.tensor, nn.Parameter):
            mask = torch.ones_like(cut.tensor, dtype=torch.bool)
            for dimension, stay in cut.stay.items():
                at = (~stay).nonzero().flatten().to(mask.device)
                mask.index_fill_(dimension, at, False)
            masks[name] = masks.get(name, torch.ones_like(mask)) & mask
    return masks
