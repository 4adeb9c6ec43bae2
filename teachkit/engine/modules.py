"""The table of the rules of modules, and the rules of layers without numbers; see ``weighted``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from teachkit.core.layers import kind
from teachkit.engine import reducing, shaping
from teachkit.engine.axes import Axis, StrangeError, Value, along, plain
from teachkit.engine.calls import CALLS
from teachkit.engine.ties import Ties
from teachkit.engine.weighted import (
    Layer,
    close,
    conv,
    dimensions,
    embedding,
    in_groups,
    linear,
    prelu,
    scaled,
)


def pointwise(ties: Ties, layer: Layer, x: Value) -> Value:
    """A function of single numbers."""
    return reducing.pointwise(ties, layer.call, layer.module, x)


def pooled(ties: Ties, layer: Layer, x: Value) -> Value:
    """Pooling and padding over the places of an image."""
    module = layer.module
    if getattr(module, "return_indices", False):
        raise StrangeError
    lengths = getattr(module, "output_size", None)
    made = reducing.pooled(kind(module).dims or dimensions(module), lengths)(ties, layer.call, x)
    return reducing.through(made, not getattr(module, "value", 0))


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
    for place in x.whole[2:]:
        ties.fix(place.units, f"{layer.call} is not understood there")
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
    query.refine(max(3, len(query.whole) if query.gap is None else 0))
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
            x = _activated(ties, call, module.activation, x)
    ties.fix(x.units, f"{call} is not understood there")


def _activated(ties: Ties, call: str, function: Any, x: Value) -> Value:
    """What a layer of a transformer does between the two: any function, but most are of single numbers."""
    if isinstance(function, nn.Module):
        single = rule_of(function) is pointwise
    else:
        single = isinstance(CALLS.get(function), partial)  # what ``calls.keywords`` made
    if not single:
        raise StrangeError
    return reducing.pointwise(ties, call, function, x)


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
