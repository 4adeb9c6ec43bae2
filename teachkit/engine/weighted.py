"""Rules for layers with numbers: which rows and columns belong to what they read and put out.

A rule has the register of units, a :class:`Layer` and the values that the layer is called with. It may
note attributes that say how many units there are, which a smaller layer must say anew.
"""

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from teachkit.core.layers import kind
from teachkit.engine import elementwise
from teachkit.engine.axes import Axis, StrangeError, Value, along, plain
from teachkit.engine.sizes import Ids
from teachkit.engine.ties import Resize, Ties


class Layer(NamedTuple):
    """A module, its name in the network, and the words by which an error names it."""

    name: str
    module: Any
    call: str

    def sizes(self, ties: Ties, **ids: Ids) -> None:
        """Note attributes that count units."""
        ties.resized += [Resize(self.name, attribute, each) for attribute, each in ids.items()]


def linear(ties: Ties, layer: Layer, x: Value) -> Value:
    """Rows are outputs, columns inputs."""
    module = layer.module
    weight = Value([along(ties.of(module.weight, dim)) for dim in (0, 1)])
    bias = None if module.bias is None else Value([along(ties.of(module.bias))])
    layer.sizes(ties, out_features=ties.of(module.weight), in_features=ties.of(module.weight, 1))
    ties.made[layer.name] = ties.of(module.weight)
    return elementwise.linear(ties, layer.call, x, weight, bias)


def conv(ties: Ties, layer: Layer, x: Value) -> Value:
    """A convolution: weight (outputs, inputs of one group, …), or the other way round if transposed."""
    module, dims = layer.module, kind(layer.module).dims
    x.refine(dims + 2)
    for axis in x.whole[2:]:
        ties.fix(axis.units, f"{layer.call} is not understood there")
    turned = kind(module).role == "transposed"
    reads = ties.of(module.weight, 0 if turned else 1)
    groups, makes = int(module.groups), ties.of(module.weight, 1 if turned else 0)
    read = x.axis(1).ids(int(module.in_channels))
    if groups == 1:
        elementwise.read(ties, layer.call, x, 1, reads)
    else:
        makes = grouped(ties, layer, read, groups, (makes, reads))
    if module.bias is not None:
        ties.tie(ties.of(module.bias), makes, f"{layer.call} has it as a bias")
    layer.sizes(ties, out_channels=makes, in_channels=read if groups > 1 else reads)
    ties.made[layer.name] = makes
    samples = x.whole[0]
    first = samples._replace(zero=samples.zero and module.bias is None)
    return Value([first, along(makes), *(plain() for _ in range(dims))])


def grouped(ties: Ties, layer: Layer, read: Ids, groups: int, weight: tuple[Ids, Ids]) -> Ids:
    """What a convolution in groups puts out: whole groups of one input go, or the same place of each."""
    makes, reads = weight
    why = f"{layer.call} is a convolution in groups"
    turned = kind(layer.module).role == "transposed"
    inputs = read.reshape(groups, -1)
    if turned:  # weight (inputs, outputs of one group)
        ties.tie(read, reads, f"{why}, of an input")
        if inputs.shape[1] == 1:
            layer.sizes(ties, groups=reads)
            ties.fix(makes if len(makes) > 1 else makes[:0], why)
            return reads.repeat(len(makes))
        ties.together(inputs.T, why)
        return np.tile(makes, groups)
    if inputs.shape[1] == 1:
        ties.tie(read.repeat(len(makes) // groups), makes, f"{why}, of an input")
        layer.sizes(ties, groups=read)
        return makes
    for row in inputs:
        ties.tie(row, reads, why)
    ties.together(makes.reshape(groups, -1).T, why)
    return makes


def scaled(ties: Ties, layer: Layer, x: Value) -> Value:
    """A normalisation of each channel by itself, with numbers for each."""
    module, single = layer.module, isinstance(layer.module, _InstanceNorm)
    _channelled(x, dimensions(module) + 2 if single or dimensions(module) > 1 else 2)
    if single and len(x.axes) != dimensions(module) + 2:
        raise StrangeError
    axis, ids = x.axis(1), x.axis(1).ids(int(module.num_features))
    mixes = not single and module.running_mean is None  # the samples of a batch
    for other in [*x.axes[:mixes], *x.axes[2:]]:
        if other is not None:
            ties.fix(other.units, f"{layer.call} is not understood there")
    _own(ties, layer, ids, ("weight", "bias", "running_mean", "running_var"))
    layer.sizes(ties, num_features=ids)
    keeps = axis.zero and single and module.running_mean is None
    return _new(x, axis._replace(zero=module.weight is not None or keeps))


def _channelled(x: Value, rank: int) -> None:
    """Channels come second: after a Linear layer of unknown rank, as (n, features)."""
    if x.gap is not None and not x.strange and (rank > 2 or len(x.axes) > 2):
        x.refine(rank)


def _new(x: Value, axis: Axis) -> Value:
    """A value with another axis of channels, of which nothing else is 0."""
    made = [a and a._replace(zero=False) for a in x.axes]
    made[1] = axis
    return Value(made)


def _own(ties: Ties, layer: Layer, ids: Ids, names: tuple[str, ...]) -> None:
    """Tie the numbers that a layer has for each channel to the channels."""
    for name in names:
        tensor = getattr(layer.module, name, None)
        if isinstance(tensor, Tensor) and tensor.ndim:
            ties.tie(ids, ties.of(tensor), f"{layer.call} scales it with an input")


def in_groups(ties: Ties, layer: Layer, x: Value) -> Value:
    """A group normalisation: whole groups of channels can go, since each is normalised by itself."""
    _channelled(x, 2)
    module, axis = layer.module, x.axis(1)
    ids = axis.ids(int(module.num_channels))
    groups = ids.reshape(module.num_groups, -1)
    for other in [module.num_groups == 1 and axis, *x.axes[2:]]:
        if other:
            ties.fix(other.units, f"{layer.call} is not understood there")
    ties.together(groups, f"{layer.call} normalises it in groups")
    _own(ties, layer, ids, ("weight", "bias"))
    layer.sizes(ties, num_channels=ids, num_groups=np.ascontiguousarray(groups[:, 0]))
    return _new(x, axis._replace(zero=module.weight is not None))


def prelu(ties: Ties, layer: Layer, x: Value) -> Value:
    """A slope for each channel, or one for all."""
    if layer.module.num_parameters > 1:
        _channelled(x, 2)
        ids = x.axis(1).ids(int(layer.module.num_parameters))
        _own(ties, layer, ids, ("weight",))
        layer.sizes(ties, num_parameters=ids)
    return x


def embedding(ties: Ties, layer: Layer, x: Value) -> Value:
    """A row of numbers for each index."""
    if layer.module.max_norm is not None:
        raise StrangeError
    ties.fix(ties.of(layer.module.weight), "it is an input of the network")
    columns = ties.of(layer.module.weight, 1)
    layer.sizes(ties, embedding_dim=columns)
    rows = [axis and axis._replace(zero=False) for axis in x.axes]  # that of index 0 is a row, too
    return Value([*rows, along(columns)])


def close(ties: Ties, module: nn.Module, why: str, recurse: bool = True) -> None:
    """Fix what a module owns that is not understood."""
    for tensor in [*module.parameters(recurse), *module.buffers(recurse)]:
        for dim in range(tensor.ndim):
            ties.fix(ties.of(tensor, dim), why)


def dimensions(module: nn.Module) -> int:
    """How many dimensions of an image a layer runs over, as its name says."""
    return int(type(module).__name__[-2])


def outputs_first(module: nn.Module, weight: Tensor) -> Tensor:
    """A weight, or numbers of its shape, as rows (outputs, the rest); transposed ones begin with inputs.

    >>> outputs_first(nn.ConvTranspose2d(2, 3, 1), Tensor(2, 3, 1, 1)).shape
    torch.Size([3, 2])
    """
    if kind(module).role != "transposed":
        return weight.flatten(1)
    groups = int(module.groups)  # type: ignore[arg-type]
    rows = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
    return rows.reshape(groups * weight.shape[1], -1)
