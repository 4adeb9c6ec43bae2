"""A chain of Linear layers: its hidden units, what they say, and who reads them."""

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from teachkit import structured
from teachkit.core import checks
from teachkit.core.types import Batch

POINTWISE = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus),
    *(nn.Tanh, nn.Sigmoid, nn.Identity, nn.Dropout),
)


class Hidden(NamedTuple):
    """A hidden layer: the Linear layer that makes its units and the one that reads them, by name."""

    name: str
    reader: str


class Reading(NamedTuple):
    """One hidden layer in the middle of a rebuild, front to back.

    ``incoming`` (units, inputs + 1): weights and bias of each unit. ``said`` A (n, units): what the
    units say on the batch now. ``weight`` V (out, units) and ``bias`` c (out,) of the reader;
    without a bias ``bias`` is None. ``target`` Z (n, out): what the reader made of its inputs in the
    network as it was given, before any layer was touched. ``rest``: what follows the reader.
    """

    incoming: Tensor
    said: Tensor
    weight: Tensor
    bias: Tensor | None
    target: Tensor
    rest: nn.Sequential


class Fold(NamedTuple):
    """What stays: ``keep`` (units,), and the reader's new ``weight`` (out, kept) and ``bias``."""

    keep: Tensor
    weight: Tensor
    bias: Tensor | None


def leaves(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of a chain in order, nested Sequentials opened."""
    if not isinstance(model, nn.Sequential):
        raise ValueError(
            f"the model must be a Sequential chain of Linear layers, got {type(model).__name__}"
        )
    for name, child in model._modules.items():
        assert child is not None  # noqa: S101 - a Sequential holds modules only
        if isinstance(child, nn.Sequential):
            yield from leaves(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def hidden(model: nn.Module) -> list[Hidden]:
    """The hidden layers of a chain of Linear layers, front to back.

    Raises:
        ValueError: the model is not a Sequential of Linear layers, pointwise activations and a
            Flatten in front; the message names the layer.

    >>> hidden(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    [Hidden(name='0', reader='2')]

    """
    linear: list[str] = []
    seen: set[int] = set()
    for name, layer in leaves(checks.model(model)):
        if type(layer) is nn.Linear and id(layer) not in seen:
            linear.append(name)
            seen.add(id(layer))
        elif not (type(layer) in POINTWISE or (type(layer) is nn.Flatten and not linear)):
            raise ValueError(
                f"layer {name!r} is a {type(layer).__name__}; units are removed from chains of "
                "different Linear layers and pointwise activations, with a Flatten in front"
            )
    return [Hidden(a, b) for a, b in itertools.pairwise(linear)]


def activations(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What the units of each hidden layer say on x, (n, units) by layer name, evaluation mode.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> activations(net, torch.ones(5, 1))["0"].shape
    torch.Size([5, 2])
    """
    checks.model(model, checks.finite("x", x))
    readers = {layer.reader: layer.name for layer in hidden(model)}
    said: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, layer in leaves(model):
            if name in readers:
                said[readers[name]] = x
            x = _run(layer, x)
    return said


def after(model: nn.Module, name: str) -> nn.Sequential:
    """The layers behind a named one, in evaluation mode; a copy."""
    names = [n for n, _ in leaves(model)]
    layers = [layer for _, layer in leaves(model)][names.index(name) + 1 :]
    return copy.deepcopy(nn.Sequential(*layers)).eval().requires_grad_(False)


def reading(model: nn.Module, layer: Hidden, x: Tensor, target: Tensor) -> Reading:
    """What a rebuild sees of one hidden layer of the model as it is now."""
    maker, reader = model.get_submodule(layer.name), model.get_submodule(layer.reader)
    assert isinstance(maker, nn.Linear)  # noqa: S101 - hidden() has checked it
    assert isinstance(reader, nn.Linear)  # noqa: S101
    own = maker.bias if maker.bias is not None else maker.weight.new_zeros(len(maker.weight))
    return Reading(
        torch.cat([maker.weight, own[:, None]], 1).detach(),
        activations(model, x)[layer.name],
        reader.weight.detach(),
        None if reader.bias is None else reader.bias.detach(),
        target,
        after(model, layer.reader),
    )


def rebuild(model: nn.Module, batch: Batch, fold: Callable[[str, Reading], Fold]) -> nn.Module:
    """A smaller network: each hidden layer in turn, front to back, is folded and really shrunk.

    Args:
        model: a chain of Linear layers; it is unchanged.
        batch: (x, y) on which the units are observed.
        fold: from a layer's name and :class:`Reading` to what stays of it.

    """
    x, _ = checks.batch(batch)
    said = activations(model, x)
    small = copy.deepcopy(model)
    for layer in hidden(model):
        with torch.no_grad():
            target = _run(model.get_submodule(layer.reader), said[layer.name])
        made = fold(layer.name, reading(small, layer, x, target))
        small = replace(small, layer, made)
    return small


def replace(model: nn.Module, layer: Hidden, made: Fold) -> nn.Module:
    """A smaller model: the units that stay, and the reader with its new weight and bias."""
    changed = copy.deepcopy(model)
    reader = changed.get_submodule(layer.reader)
    assert isinstance(reader, nn.Linear)  # noqa: S101 - hidden() has checked it
    with torch.no_grad():
        reader.weight[:, made.keep] = made.weight.to(reader.weight.dtype)
        if reader.bias is not None and made.bias is not None:
            reader.bias.copy_(made.bias)
    return structured.shrink(changed, {layer.name: made.keep})


def _run(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer in evaluation mode."""
    if isinstance(layer, nn.Dropout):
        return x
    output: Tensor = layer(x)
    return output
