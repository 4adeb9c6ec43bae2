"""Rules for calls on one tensor: functions of single numbers, means, norms, pooling; see ``elementwise``.

A function of single numbers lets units through; it also matters whether it makes 0 of 0. What sums over
units is exact if removed ones are 0. What counts, ranks or normalises them is not, and fixes them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from teachkit.engine.axes import Axis, MisfitError, StrangeError, UnclearError, Value, along, plain
from teachkit.engine.cutting import chunk
from teachkit.engine.elementwise import EITHER, contract, never, together
from teachkit.engine.shaping import listed
from teachkit.engine.sizes import Size, size
from teachkit.engine.ties import Ties


def through(value: Value, zero: bool) -> Value:
    """The same units; those that are 0 stay so, or nothing is known of them."""
    if zero:
        return value
    return Value([axis and axis._replace(zero=False) for axis in value.axes], value.strange)


def pointwise(
    ties: Ties, call: str, function: Callable[..., Any], input: Value, *args: Any, **kwargs: Any
) -> Value:
    """A function of single numbers, tried on 0: not finite there, it would spoil the masked network."""
    if any(isinstance(each, (Value, Size)) for each in (*args, *kwargs.values())):
        raise StrangeError
    at_zero = float(function(torch.zeros(1, device="cpu"), *args, **kwargs))
    if at_zero != at_zero or abs(at_zero) == float("inf"):
        raise StrangeError
    return through(input, at_zero == 0)


def dropped(ties: Ties, call: str, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Dropout: nothing happens in evaluation mode."""
    return input


def power(ties: Ties, call: str, input: Value, exponent: Any) -> Value:
    """x to a constant power that is 0 at 0, and finite."""
    if not isinstance(exponent, (int, float)) or exponent <= 0:
        raise StrangeError
    return input


def reduced(kind: str, keeps: bool = True) -> Callable[..., Value]:
    """The rule of a reduction: "sum" is exact over units that are 0, no other is."""

    def rule(
        ties: Ties, call: str, input: Value, dim: Any = None, keepdim: bool = False, **rest: Any
    ) -> Value:
        if rest.keys() - {"dtype"}:
            raise StrangeError
        if isinstance(dim, bool):  # std(x, unbiased)
            raise StrangeError
        if dim is None or dim in ((), []):
            dims = list(range(len(input.whole)))
        else:
            dims = [input.place(d) for d in (dim if isinstance(dim, (tuple, list)) else [dim])]
        for axis in (input.axes[d] for d in dims):
            if axis is not None and not (kind == "sum" and axis.zero):
                ties.fix(axis.units, f"{call} is not understood over it")
        made = [plain(1) if at in dims else axis for at, axis in enumerate(input.axes)]
        return through(
            Value([axis for at, axis in enumerate(made) if keepdim or at not in dims]), keeps
        )

    return rule


def mixed(ties: Ties, call: str, input: Value, dim: int) -> Value:
    """What runs along one dimension and depends on all there, as a softmax."""
    ties.fix(input.axis(dim).units, f"{call} is not understood there")
    return through(input, False)


def softmax(
    ties: Ties, call: str, input: Value, dim: Any = None, _stacklevel: int = 3, dtype: Any = None
) -> Value:
    """Softmax, log-softmax and cumulative sums along a dimension."""
    if not isinstance(dim, int):
        raise StrangeError
    return mixed(ties, call, input, dim)


def over_last(
    ties: Ties, call: str, input: Value, normalized_shape: Sequence[int], *rest: Any, **more: Any
) -> Value:
    """A layer normalisation over the last dimensions, as the code says their sizes."""
    for dim in range(-len(listed([normalized_shape])), 0):
        if input.axes[dim] is None:
            break
        ties.fix(input.axis(dim).units, f"{call} is not understood there")
    made = through(input, False)
    for other in (*rest, *more.values()):
        if isinstance(other, Value):
            ties.fix(other.units, f"{call} is not understood there")
    return made


def pooled(
    dims: int, lengths: Any = None, change: bool = True
) -> Callable[[Ties, str, Value], Value]:
    """The rule of what runs over the last dimensions of an image; ``lengths`` they have afterwards."""

    def rule(ties: Ties, call: str, input: Value, *rest: Any, **more: Any) -> Value:
        if more.get("return_indices"):
            raise StrangeError
        if input.gap is not None:
            input.refine(max(dims + 2, len(input.axes)))
        places, rank = input.whole, len(input.axes)
        if rank < dims + 1:
            raise MisfitError
        if any(not axis.plain for axis in places[rank - dims :]):
            for axis in places[rank - dims :]:
                ties.fix(axis.units, f"{call} is not understood there")
            raise StrangeError
        after = lengths(rest, more) if callable(lengths) else lengths
        after = [after] * dims if after is None or isinstance(after, (int, Size)) else after
        return Value([*places[: rank - dims], *(_place(n) for n in after)])

    return rule


def _place(length: Any) -> Axis:
    return plain(length if isinstance(length, (int, Size)) else None)


def first_given(rest: Sequence[Any], more: dict[str, Any]) -> Any:
    """The output size of an adaptive pooling."""
    return rest[0] if rest else more.get("output_size")


def interpolated(ties: Ties, call: str, input: Value, *rest: Any, **more: Any) -> Value:
    """Images made larger or smaller: every dimension but samples and channels."""
    if input.gap is not None or not all(axis.plain for axis in input.whole[2:]):
        raise StrangeError
    return Value([*input.axes[:2], *(plain() for _ in input.axes[2:])])


def padded(
    ties: Ties, call: str, input: Value, pad: Sequence[Any], mode: str = "constant", value: Any = 0
) -> Value:
    """Entries before and after, from the last dimension on; padded channels belong to no unit."""
    axes, lengths = [*input.axes], list(pad)
    for dim in range(-1, -len(lengths) // 2 - 1, -1):
        before, after = lengths[-2 * dim - 2], lengths[-2 * dim - 1]
        at = input.place(dim)
        if before == after == 0:
            continue
        axis = input.axis(dim)
        if not axis.plain:
            if mode != "constant" or not min(before, after) >= 0:
                raise StrangeError
            axes[at] = _extended(axis, before, after)
        else:
            axes[at] = plain()
    return through(Value(axes), mode != "constant" or not value)


def _extended(axis: Axis, before: int, after: int) -> Axis:
    ids = functional.pad(torch.from_numpy(axis.ids().copy()), (before, after), value=-1)
    return along(ids.numpy(), axis.zero)


def expand(ties: Ties, call: str, input: Value, *sizes: Any) -> Value:
    """Dimensions of length 1 repeated; −1 leaves one as it is."""
    wanted = listed(sizes)
    if len(wanted) < len(input.whole):
        raise MisfitError
    axes = [*(plain(1) for _ in range(len(wanted) - len(input.axes))), *input.whole]
    made = []
    for axis, n in zip(axes, wanted, strict=True):
        if n == -1 or not axis.plain:
            if isinstance(n, int) and n != -1:
                ties.fix(axis.units, f"{call} is not understood: the code says its size")
            elif isinstance(n, Size) and n != axis.size:
                ties.fix(axis.units, f"{call} is not understood: the code says its size")
                ties.fix(n.units, f"{call} is not understood: the code says its size")
            made.append(axis)
        else:
            if isinstance(n, Size):
                ties.fix(n.units, f"{call} repeats as often as there are of it")
            made.append(plain(n))
    return Value(made)


def repeat(ties: Ties, call: str, input: Value, *times: Any) -> Value:
    """Dimensions repeated a known number of times."""
    counts = listed(times)
    if len(counts) != len(input.whole) or not all(isinstance(n, int) for n in counts):
        raise StrangeError
    made = []
    for axis, n in zip(input.whole, counts, strict=True):
        (part, *more) = axis.parts
        if more:
            raise UnclearError
        made.append(
            axis
            if n == 1
            else axis._replace(parts=(part._replace(outer=part.outer.times(size(n))),))
        )
    return Value(made)


def attended(
    ties: Ties,
    call: str,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Value:
    """Scaled dot-product attention: without a scale the code's is one over the root of the size."""
    if enable_gqa or dropout_p or (isinstance(attn_mask, Value) and len(attn_mask.units)):
        raise StrangeError
    if scale is None:
        for each in (query, key):
            ties.fix(each.axis(-1).units, f"{call} is not understood: it scales by their number")
    contract(ties, call, query.axis(-1), key.axis(-1))
    for each in (key, value):
        ties.fix(each.axis(-2).units, f"{call} is not understood there")
    ties.fix(query.axis(-2).units, f"{call} is not understood there")
    heads = [Value([*each.whole[:-2]]) for each in (query, key, value)]
    weights = together(ties, call, heads[:2], never)
    batch = together(ties, call, [weights, heads[2]], EITHER)
    return Value([*batch.axes, query.axis(-2), value.axis(-1)])


def glu(ties: Ties, call: str, input: Value, dim: int = -1) -> Value:
    """One half times the sigmoid of the other: units go in pairs."""
    return chunk(ties, call, input, 2, dim)[0]
