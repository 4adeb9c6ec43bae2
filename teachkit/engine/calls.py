"""The one table of calls: which rule stands for a function, a method or an operator of torch."""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from teachkit.engine import cutting, elementwise, reducing, shaping
from teachkit.engine.axes import StrangeError, Value, plain
from teachkit.engine.elementwise import BOTH, EITHER, never, together
from teachkit.engine.sizes import Size, size
from teachkit.engine.ties import Ties

Rule = Callable[..., Any]


class Shape(NamedTuple):
    """What ``x.shape`` is: sizes that are looked up when they are asked for."""

    of: Value


class Opaque:
    """A number of which nothing is known, or a data type or a device."""


def several(zero: elementwise.Zero) -> Rule:
    """The rule of a call that pairs entries of two tensors."""

    def rule(ties: Ties, call: str, input: Any, other: Any, *, alpha: Any = 1) -> Value:
        return together(ties, call, [input, other], zero)

    return rule


def divided(ties: Ties, call: str, input: Any, other: Any) -> Value:
    """A quotient: 0 / 0 would spoil the masked network, so units below the line stay."""
    if isinstance(other, Value):
        ties.fix(other.units, f"{call} is not understood below the line")
    elif other == 0:
        raise StrangeError
    return together(ties, call, [input, other], EITHER)


def larger(ties: Ties, call: str, input: Value, other: Value) -> Value:
    """The larger or smaller of two, entry by entry."""
    if not isinstance(other, Value):
        raise StrangeError
    return together(ties, call, [input, other], BOTH)


def spread(
    ties: Ties, call: str, input: Value, dim: Any = None, *, keepdim: bool = False, **how: Any
) -> Value:
    """A variance or a standard deviation."""
    return reducing.reduced("spread")(ties, call, input, dim, keepdim)


def normalized(
    ties: Ties, call: str, input: Value, p: float = 2.0, dim: int = 1, eps: float = 1e-12
) -> Value:
    """Divided by a norm along a dimension."""
    return reducing.mixed(ties, call, input, dim)


def shaped(ties: Ties, call: str, input: Value, other: Value) -> Value:
    """reshape_as."""
    return shaping.reshape(ties, call, input, [axis.size for axis in other.whole])


def chosen(ties: Ties, call: str, input: Value, mask: Any, value: Any) -> Value:
    """masked_fill."""
    return together(ties, call, [input, mask, value], never)


def where(ties: Ties, call: str, condition: Any, input: Any, other: Any) -> Value:
    """One of two tensors, entry by entry."""
    return together(ties, call, [condition, input, other], never)


def shape(ties: Ties, call: str, input: Value, dim: int | None = None) -> Any:
    """The size of a dimension, or all of them."""
    return Shape(input) if dim is None else input.axis(dim).size


def total(ties: Ties, call: str, input: Value) -> Size:
    """The number of entries."""
    sizes = [axis.size for axis in input.whole]
    made = size(1)
    for each in sizes:
        made = made.times(each)
    return made


def attribute(ties: Ties, call: str, input: Any, name: str) -> Any:
    """``x.shape``, ``x.T``; what says nothing of the numbers."""
    if not isinstance(input, Value):
        raise StrangeError
    if name == "shape":
        return Shape(input)
    if name in ("dtype", "device", "requires_grad", "is_cuda"):
        return Opaque()
    if name in ("T", "mT") and len(input.whole) == 2:
        return shaping.turned(ties, call, input)
    raise StrangeError


def counted(ties: Ties, call: str, *ends: Any, **how: Any) -> Value:
    """arange."""
    return Value([plain()])


def made(ties: Ties, call: str, *sizes: Any, **how: Any) -> Value:
    """Zeros and ones of a shape."""
    return Value([plain(n) for n in shaping.listed(sizes)])


def item(ties: Ties, call: str, input: Any, key: Any) -> Any:
    """One of several results, of several sizes, or a part of a tensor."""
    if isinstance(input, Shape):
        if isinstance(key, int):
            return input.of.axis(key).size
        if not isinstance(key, slice):
            raise StrangeError
        return [axis.size for axis in input.of.whole[key]]
    if isinstance(input, (list, tuple)):
        return input[key]
    return cutting.index(ties, call, input, key)


def calculated(operation: Callable[[Any, Any], Any], sign: int = 0) -> Rule:
    """Products and exact quotients of sizes; what else comes of them is not known."""

    def rule(ties: Ties, call: str, a: Any, b: Any) -> Any:
        left, right = (size(n) if isinstance(n, int) else n for n in (a, b))
        if not (isinstance(left, Size) and isinstance(right, Size)):
            raise StrangeError
        if left.known is not None and right.known is not None:
            return operation(left.known, right.known)
        if not sign or right.factor == 0:
            raise StrangeError
        made = left.times(right, sign)
        whole = made.factor.denominator == 1 or made.now is not None
        if not whole or any(times < 0 for _, times in made.atoms):
            raise StrangeError
        return made

    return rule


def keywords(function: Callable[..., Any]) -> Rule:
    """The rule of a function of single numbers."""
    return partial(_single, function)


def _single(function: Any, ties: Ties, call: str, input: Value, *args: Any, **more: Any) -> Value:
    return reducing.pointwise(ties, call, function, input, *args, **more)


F = functional
SINGLE = """abs neg exp sin cos tanh sigmoid relu relu_ sqrt square sign clamp clamp_min clamp_max hardtanh
erf expm1 log1p sinh atan asinh silu gelu elu selu celu leaky_relu mish softplus softsign relu6 hardswish
hardsigmoid logsigmoid tanhshrink softshrink hardshrink threshold contiguous clone detach
tanh_ sigmoid_ neg_ abs_ clamp_ negative absolute floor ceil round nan_to_num reciprocal rsqrt log
zeros_like ones_like exp_ square_ sqrt_ leaky_relu_ elu_""".split()  # noqa: SIM905 -- to read
SIZES: dict[object, Rule] = {
    **dict.fromkeys((operator.mul, operator.imul), calculated(operator.mul, 1)),
    **dict.fromkeys((operator.floordiv, operator.ifloordiv), calculated(operator.floordiv, -1)),
    **dict.fromkeys((operator.add, operator.iadd), calculated(operator.add)),
    **dict.fromkeys((operator.sub, operator.isub), calculated(operator.sub)),
}
CALLS: dict[object, Rule] = {}


def _named(names: str, rule: Rule) -> None:
    """One rule for the method, and for the functions of this name in torch, its operators and nn."""
    for name in names.split():
        homes = (torch, functional, operator)
        found = [getattr(home, name) for home in homes if hasattr(home, name)]
        CALLS.update(dict.fromkeys([name, *found], rule))


for _name in SINGLE:
    _homes = (functional, torch, torch.Tensor)
    _function = next((getattr(h, _name) for h in _homes if hasattr(h, _name)), None)
    if _function is not None:
        _named(_name, keywords(_function))
RULES: dict[str, Rule] = {
    "add add_ sub sub_ iadd isub maximum minimum subtract rsub": several(BOTH),
    "mul mul_ imul multiply logical_and": several(EITHER),
    "eq ne lt gt le ge logical_or": several(never),
    "div div_ truediv itruediv divide true_divide": divided,
    "masked_fill masked_fill_": chosen,
    "where": where,
    "pow": reducing.power,
    "to float double half type_as": reducing.dropped,
    "dropout dropout1d dropout2d dropout3d alpha_dropout": reducing.dropped,
    "sum": reducing.reduced("sum"),
    "mean amax amin argmax argmin all any prod": reducing.reduced("other"),
    "logsumexp": reducing.reduced("other", keeps=False),
    "softmax log_softmax": reducing.softmax,
    "cumsum": reducing.mixed,
    "layer_norm rms_norm": reducing.over_last,
    "normalize": normalized,
    "std var": spread,
    "max min": larger,
    "expand_as": several(never),
    "view_as reshape_as": shaped,
    "glu": reducing.glu,
    "pad": reducing.padded,
    "interpolate upsample": reducing.interpolated,
    "scaled_dot_product_attention": reducing.attended,
    "expand": reducing.expand,
    "repeat": reducing.repeat,
    "flatten": shaping.flatten,
    "view reshape": shaping.reshape,
    "permute": shaping.permute,
    "transpose swapaxes swapdims": shaping.transpose,
    "t": shaping.turned,
    "unsqueeze": shaping.unsqueeze,
    "squeeze": shaping.squeeze,
    "cat concat concatenate": cutting.cat,
    "stack": cutting.stack,
    "chunk": cutting.chunk,
    "split": cutting.split,
    "unbind": cutting.unbind,
    "getitem": item,
    "getattr": attribute,
    "size": shape,
    "numel": total,
    "matmul bmm mm imatmul": elementwise.matmul,
    "einsum": elementwise.einsum,
    "linear": elementwise.linear,
    "arange": counted,
    "zeros ones rand randn": made,
}
for _names, _rule in RULES.items():
    _named(_names, _rule)
CALLS[getattr] = attribute
for _dims in (1, 2, 3):
    _named(f"max_pool{_dims}d avg_pool{_dims}d", reducing.pooled(_dims))
    _adaptive = f"adaptive_avg_pool{_dims}d adaptive_max_pool{_dims}d"
    _named(_adaptive, reducing.pooled(_dims, reducing.first_given))
# The rules that know what to do with a size that follows the units; it fixes them for all others.
AWARE = (shaping.reshape, cutting.split, reducing.expand, *SIZES.values())
