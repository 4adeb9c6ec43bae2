"""The hidden units of a chain of Linear layers: what they put out, who reads them, and how they really go.

A unit of a Linear layer is one row of its weight, its bias, and one column of the next Linear layer, its
*reader*. Deleting, merging and repairing come down to the same walk, :func:`rebuild`: front to back, look
at one hidden layer of the network as it is by then, decide which units stay and what the reader makes of
them, and cut. The decision sees what the units put out on the batch after everything in front of them has
shrunk, and what the reader put out before anything was touched.

What a unit is worth to the loss is measured, see :mod:`teachkit.engine.leave_one_out`: without unit j the
reader loses a_j v_j, and only what comes after it runs again, for all units of a layer together.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks
from teachkit.core.copies import independent_copy
from teachkit.core.layers import UncoveredError, chain, kind
from teachkit.core.objective import measured
from teachkit.core.ranking import removed
from teachkit.core.recorder import record_calls
from teachkit.core.types import Batch, Loss, Scores
from teachkit.engine.leave_one_out import losses, still
from teachkit.engine.shrinking import shrink


class Hidden(NamedTuple):
    """A hidden layer: the Linear layer that makes its units and the one that reads them, by name."""

    name: str
    reader: str


class Layer(NamedTuple):
    """A hidden layer, of a network as it is or in a rebuild.

    ``incoming`` (units, inputs + 1): weights and bias of each unit. ``outputs`` A (n, units): what they
    put out on the batch. ``weight`` V (out, units) and ``bias`` c (out,), or None, of the reader.
    ``target`` Z (n, out): what the reader puts out, in a rebuild what it did in the given network.
    ``rest``: what follows the reader.
    """

    incoming: Tensor
    outputs: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor
    rest: nn.Sequential


class Kept(NamedTuple):
    """What stays of a layer: ``keep`` (units,), the reader's ``weight`` (out, kept) and ``bias``."""

    keep: Tensor
    weight: Tensor
    bias: Tensor | None


def hidden(model: nn.Module) -> list[Hidden]:
    """The hidden layers of a chain of Linear layers, front to back.

    ValueError names the layer that is neither a new Linear layer, nor pointwise, nor a Flatten in front.

    >>> hidden(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    [Hidden(name='0', reader='2')]

    """
    if not isinstance(model, nn.Sequential):
        got = type(model).__name__
        raise ValueError(f"the model must be a Sequential chain of Linear layers, got {got}")
    linear: dict[int, str] = {}
    for name, layer in chain(model):
        role = kind(layer).role
        if role == "linear" and id(layer.weight) not in linear:
            linear[id(layer.weight)] = name
        elif not (role in ("pointwise", "nothing") or (role == "flatten" and not linear)):
            raise ValueError(
                f"layer {name!r} is a {type(layer).__name__}; units are removed from chains of "
                "different Linear layers and pointwise activations, with a Flatten in front"
            )
    return [Hidden(*pair) for pair in itertools.pairwise(linear.values())]


def activations(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What the units of each hidden layer put out on x, (n, units) by layer name, evaluation mode.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> activations(net, torch.ones(5, 1))["0"].shape
    torch.Size([5, 2])
    """
    checks.model(model, checks.finite("x", x))
    outputs: dict[str, Tensor] = {}
    made_by = {layer.reader: layer.name for layer in hidden(model)}
    readers = [(reader, model.get_submodule(reader)) for reader in made_by]
    record_calls(model, x, lambda call: outputs.update({made_by[call.name]: call.input}), readers)
    for name, each in outputs.items():
        if each.ndim != 2:
            raise UncoveredError(f"layer {name!r} puts out {tuple(each.shape)}, not (n, units)")
    return outputs


def observed(model: nn.Module, x: Tensor) -> dict[str, Layer]:
    """Every hidden layer of a network as it is, by name."""
    outputs, alone = activations(model, x), still(model)
    layers = [layer for _, layer in chain(alone)]
    seen = {}
    for name, reading in hidden(model):
        A, maker, reader = outputs[name], _linear(alone, name), _linear(alone, reading)
        bias = maker.weight.new_zeros(len(maker.weight)) if maker.bias is None else maker.bias
        incoming = torch.cat([maker.weight, bias[:, None]], 1)
        rest = nn.Sequential(*layers[layers.index(reader) + 1 :])
        seen[name] = Layer(incoming, A, reader.weight, reader.bias, reader(A), rest)
    return seen


def rebuild(model: nn.Module, batch: Batch, decide: Callable[[str, Layer], Kept]) -> nn.Module:
    """A smaller network: hidden layer after hidden layer, front to back, is decided on and really cut.

    ``decide`` goes from a layer's name and :class:`Layer` to what stays of it; the model is unchanged.
    """
    x, _ = checks.batch(batch)
    given, small, keep = observed(model, x), independent_copy(model), {}
    for name, reader in hidden(model):
        kept = decide(name, observed(small, x)[name]._replace(target=given[name].target))
        _write(_linear(small, reader), kept)
        keep[name] = kept.keep
    return shrink(small, keep)


def quota(name: str, units: int, sparsity: float) -> int:
    """How many units of a layer go; at least one must stay."""
    gone = removed(units, sparsity)
    if gone == units:
        raise ValueError(
            f"at sparsity {sparsity:g} nothing is left of layer {name!r}, which has {units} units"
        )
    return gone


def leave_one_out(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """The change of the loss without each unit, L(θ without j) − L(θ), (units,) by layer name.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data, net[0].bias.data = torch.tensor([[1.0], [1.0]]), torch.zeros(2)
    >>> net[2].weight.data = torch.tensor([[2.0, 1.0]])
    >>> leave_one_out(net, (torch.ones(1, 1), torch.tensor([[3.0]])), nn.functional.mse_loss)
    {'0': tensor([4., 1.])}

    """
    x, y = checks.batch(batch)
    changes: Scores = {}
    for name, layer in observed(model, x).items():
        output = read(layer)
        before = measured(loss, layer.rest(output), y)
        changes[name] = _without_each(layer, output, y, loss) - before
    return changes


def greedy(
    model: nn.Module, batch: Batch, sparsity: float, loss: Loss = cross_entropy
) -> nn.Module:
    """A smaller network: the unit whose loss without it is least goes, then all are measured again.

    Layer by layer, front to back, until ``masks.removed(units, sparsity)`` of each are gone.
    """

    def decide(name: str, layer: Layer) -> Kept:
        keep, output = torch.ones_like(layer.incoming[:, 0]) > 0, read(layer)
        for _ in range(quota(name, len(keep), sparsity)):
            alive = keep.nonzero()[:, 0]
            part = layer._replace(outputs=layer.outputs[:, alive], weight=layer.weight[:, alive])
            worst = alive[_without_each(part, output, batch[1], loss).argmin()]
            output = output - layer.outputs[:, worst, None] * layer.weight[:, worst]
            keep[worst] = False
        return Kept(keep, layer.weight[:, keep], layer.bias)

    return rebuild(model, batch, decide)


def random_scores(model: nn.Module, generator: torch.Generator | None = None) -> Scores:
    """A score for each hidden unit, (units,) by layer name, drawn from [0, 1); see ``checks.dice``."""
    generator = checks.dice(generator)
    units = {at.name: model.get_parameter(f"{at.name}.weight")[:, 0] for at in hidden(model)}
    draw = partial(torch.rand, generator=generator, device=generator.device)
    return {name: draw(w.shape).to(w.device) for name, w in units.items()}


def read(layer: Layer, masks: Tensor | float = 1.0) -> Tensor:
    """What the reader makes of the units, (A ⊙ mask) Vᵀ + c, (..., n, out)."""
    made = (layer.outputs * masks) @ layer.weight.T
    return made if layer.bias is None else made + layer.bias


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)  # noqa: S101 -- hidden() has checked it
    return layer


@torch.no_grad()
def _write(reader: nn.Linear, kept: Kept) -> None:
    """Give a reader its new weight and bias; it no longer reads what goes."""
    reader.weight.zero_()
    reader.weight[:, kept.keep] = kept.weight.to(reader.weight.dtype)
    if kept.bias is not None:
        reader.bias.copy_(kept.bias)


def _without_each(layer: Layer, output: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """The loss without each unit, (units,), where the reader puts out ``output`` with all of them."""
    return losses(output, -layer.outputs.T, layer.weight.T, layer.rest, y, loss)
