"""Rules for layers: which rows and columns of their weights belong to what they read and put out.

A rule has the register of units, a :class:`Layer` and the values that the layer is called with. It may
note attributes that say how many units there are, which a smaller layer must say anew.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from teachkit.core.layers import kind
from teachkit.engine import elementwise, reducing, shaping
from teachkit.engine.axes import Axis, Ids, StrangeError, Value, along, plain
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
    return Value([x.axes[0], along(makes), *(plain() for _ in range(dims))])


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
    _channelled(x, _dims(module) + 2 if single or _dims(module) > 1 else 2)
    if single and len(x.axes) != _dims(module) + 2:
        raise StrangeError
    axis, ids = x.axis(1), x.axis(1).ids(int(module.num_features))
    for other in x.axes[2:]:
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
    return Value([*x.axes, along(columns)])


def pointwise(ties: Ties, layer: Layer, x: Value) -> Value:
    """A function of single numbers."""
    return reducing.pointwise(ties, layer.call, layer.module, x)


def pooled(ties: Ties, layer: Layer, x: Value) -> Value:
    """Pooling and padding over the places of an image."""
    module = layer.module
    if getattr(module, "return_indices", False):
        raise StrangeError
    lengths = getattr(module, "output_size", None)
    made = reducing.pooled(kind(module).dims or _dims(module), lengths)(ties, layer.call, x)
    return reducing.through(made, not getattr(module, "value", 0))


def _dims(module: nn.Module) -> int:
    return int(type(module).__name__[-2])


def flattened(ties: Ties, layer: Layer, x: Value) -> Value:
    """nn.Flatten."""
    return shaping.flatten(ties, layer.call, x, layer.module.start_dim, layer.module.end_dim)


def unflattened(ties: Ties, layer: Layer, x: Value) -> Value:
    """nn.Unflatten: the module says the sizes."""
    at = x.place(layer.module.dim)
    made = shaping.reshape(ties, layer.call, Value([x.axes[at]]), *layer.module.unflattened_size)
    return Value([*x.axes[:at], *made.axes, *x.axes[at + 1 :]])


def shuffled(ties: Ties, layer: Layer, x: Value) -> Value:
    """Pixel (un)shuffle: r² neighbouring channels make one of an image r times as large, or back."""
    x.refine(4)
    axis, lead = x.axis(1), x.axes[0]
    if isinstance(layer.module, nn.PixelUnshuffle):
        ids = axis.ids().repeat(layer.module.downscale_factor**2)
    else:
        groups = axis.ids().reshape(-1, layer.module.upscale_factor**2)
        ties.together(groups, f"{layer.call} makes one channel of several")
        ids = np.ascontiguousarray(groups[:, 0])
    return Value([lead, along(ids, axis.zero), plain(), plain()])


def over_last(ties: Ties, layer: Layer, x: Value) -> Value:
    """A layer normalisation."""
    return reducing.over_last(ties, layer.call, x, layer.module.normalized_shape)


def glu(ties: Ties, layer: Layer, x: Value) -> Value:
    """One half times the sigmoid of the other."""
    return reducing.glu(ties, layer.call, x, layer.module.dim)


def softmax(ties: Ties, layer: Layer, x: Value) -> Value:
    """Softmax along a dimension that the module says."""
    return reducing.softmax(ties, layer.call, x, layer.module.dim)


def upsampled(ties: Ties, layer: Layer, x: Value) -> Value:
    """Larger images."""
    return reducing.interpolated(ties, layer.call, x)


def attention(ties: Ties, layer: Layer, query: Value, *rest: Any, **more: Any) -> Any:
    """Multi-head attention: its sizes are bound to each other, so that none of its units can go."""
    close(ties, layer.module, f"{layer.call} is not understood there")
    for value in (query, *rest, *more.values()):
        if isinstance(value, Value):
            ties.fix(value.units, f"{layer.call} is not understood there")
    width: Axis = plain(int(layer.module.embed_dim))
    return [Value([*query.axes[:-1], width]), Value([None], strange=True)]


def transformer(ties: Ties, layer: Layer, src: Value, *rest: Any, **more: Any) -> Value:
    """The layers of a transformer: the hidden units of each one's two Linear layers can go."""
    for value in (src, *rest, *more.values()):
        if isinstance(value, Value):
            ties.fix(value.units, f"{layer.call} is not understood there")
    hidden = set[nn.Module]()
    for name, module in layer.module.named_modules(prefix=layer.name):
        if type(module) in (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer):
            _hidden(ties, Layer(name, module, layer.call))
            hidden |= {module.linear1, module.linear2}
        elif module not in hidden:
            close(ties, module, f"{layer.call} is not understood there", recurse=False)
    out = rest[0] if isinstance(layer.module, nn.Transformer) else src
    return reducing.through(out, False)


def _hidden(ties: Ties, layer: Layer) -> None:
    """Tie what the first Linear layer puts out to what the second reads."""
    module, call = layer.module, layer.call
    x = Value([plain(), None])
    for name in ("linear1", "linear2"):
        part = getattr(module, name)
        if type(part) is not nn.Linear:
            raise StrangeError
        x = linear(ties, Layer(f"{layer.name}.{name}", part, call), x)
        if name == "linear1":
            x = reducing.pointwise(ties, call, module.activation, x)
    ties.fix(x.units, f"{call} is not understood there")


def close(ties: Ties, module: nn.Module, why: str, recurse: bool = True) -> None:
    """Fix what a module owns that is not understood."""
    for tensor in [*module.parameters(recurse), *module.buffers(recurse)]:
        for dim in range(tensor.ndim):
            ties.fix(ties.of(tensor, dim), why)


Rule = Callable[..., Any]
ROLES: dict[str, Rule] = {
    "linear": linear,
    **dict.fromkeys(("conv", "transposed"), conv),
    "norm": scaled,
    "prelu": prelu,
    "pointwise": pointwise,
    "nothing": lambda ties, layer, x: x,
    **dict.fromkeys(("max pool", "mean pool", "pad"), pooled),
    "flatten": flattened,
}
TYPES: dict[type[nn.Module], Rule] = {
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), scaled),
    nn.GroupNorm: in_groups,
    nn.LayerNorm: over_last,
    **({nn.RMSNorm: over_last} if hasattr(nn, "RMSNorm") else {}),
    nn.Embedding: embedding,
    nn.Unflatten: unflattened,
    **dict.fromkeys((nn.PixelShuffle, nn.PixelUnshuffle), shuffled),
    nn.GLU: glu,
    **dict.fromkeys((nn.Softmax, nn.LogSoftmax), softmax),
    **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d), upsampled),
    **dict.fromkeys((nn.Hardshrink, nn.Softshrink, nn.Tanhshrink), pointwise),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), pooled),
    **dict.fromkeys((nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad2d), pooled),
    **dict.fromkeys((nn.ConstantPad1d, nn.ConstantPad2d, nn.ZeroPad1d, nn.LPPool2d), pooled),
    nn.MultiheadAttention: attention,
    **dict.fromkeys((nn.TransformerEncoderLayer, nn.TransformerDecoderLayer), transformer),
    **dict.fromkeys((nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer), transformer),
}


def rule_of(module: nn.Module) -> Rule | None:
    """The rule of a module, None where there is none."""
    return ROLES.get(kind(module).role) or TYPES.get(type(module))
