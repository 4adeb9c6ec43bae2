"""Rules for calls that pair entries of several tensors: sums, products, and products of matrices.

A rule has the arguments of the call that it stands for, with a :class:`Value` for every tensor, and before
them the register of units and the words by which an error names the call. It returns the value of the
result, and ties the units that must go together.
"""

import operator
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from teachkit.engine.axes import Axis, MisfitError, StrangeError, UnclearError, Value, plain
from teachkit.engine.sizes import NONE, Ids
from teachkit.engine.ties import Ties

Zero = Callable[[bool, bool], bool]
BOTH: Zero = operator.and_  # a sum is 0 where both are
EITHER: Zero = operator.or_  # a product is 0 where one is


def never(a: bool, b: bool) -> bool:
    """Nothing is known to be 0."""
    return False


def together(ties: Ties, call: str, values: Sequence[Any], zero: Zero) -> Value:
    """Entry by entry, with broadcasting; numbers are constants that are not zero."""
    made: Value | None = None
    for value in values:
        other = value if isinstance(value, Value) else Value([])
        made = other if made is None else _two(ties, call, made, other, zero)
    assert made is not None  # noqa: S101 -- a call has arguments
    return made


def _two(ties: Ties, call: str, a: Value, b: Value, zero: Zero) -> Value:
    if a.gap is None and b.gap is None:
        pairs = zip_longest(reversed(a.axes), reversed(b.axes))
        return Value([paired(ties, call, x, y, zero) for x, y in pairs][::-1])
    return _gapped(ties, call, a, b, zero)


def _gapped(ties: Ties, call: str, a: Value, b: Value, zero: Zero) -> Value:
    """Where dimensions are not known: those behind the gaps are paired, as torch does from the right."""
    if a.gap is None:
        a, b, turned = b, a, True
    else:
        turned = False
    assert a.gap is not None  # noqa: S101 -- one of the two has a gap
    start = 0 if b.gap is None else b.gap + 1
    tails, head = [a.axes[a.gap + 1 :], b.axes[start:]], a.axes[: a.gap]
    fits = b.gap is None and len(tails[1]) <= len(tails[0])
    count = len(tails[0]) if fits else min(map(len, tails))
    ends = [tail[max(len(tail) - count, 0) :] for tail in tails]
    pairs = [pair[::-1] if turned else pair for pair in zip_longest(*(t[::-1] for t in ends))]
    tail = [paired(ties, call, x, y, zero) for x, y in pairs][::-1]
    if fits:
        return Value([*(paired(ties, call, x, None, zero) for x in head), None, *tail], a.strange)
    for axis in [*head, *b.axes[: len(b.axes) - count], *tails[0][: len(tails[0]) - count]]:
        if axis is not None:
            ties.fix(axis.units, f"{call} joins it with other channels or with an input")
    same = [x for x, y in zip(head, b.axes, strict=False) if _alike(x, y)][:1]
    return Value([*same, None, *tail], a.strange or b.strange)


def _alike(x: Axis | None, y: Axis | None) -> bool:
    return x is not None and y is not None and x.plain and y.plain and x.size == y.size


def paired(ties: Ties, call: str, x: Axis | None, y: Axis | None, zero: Zero) -> Axis:
    """What two axes make that are paired, of which one may be missing, or of length 1."""
    if x is y and x is not None and x.plain:
        return x
    first = x is None or (y is not None and (x.single or _short(x, y)))
    if first or y is None or y.single or _short(y, x):
        one, axis = (x, y) if first else (y, x)
        assert axis is not None  # noqa: S101 -- of two that are paired one is there
        ties.fix(one.units if one else NONE, f"{call} joins it with other channels")
        return axis._replace(zero=zero(*(a is axis and a.zero for a in (x, y))))
    assert x is not None  # noqa: S101 -- a missing one is the short one
    assert y is not None  # noqa: S101
    if x.plain and y.plain:
        return _plain(x, y)
    why = f"{call} joins it with other channels or with an input"
    joined = x if not x.plain else y
    if not _tied(ties, x, y, why):
        for axis in (x, y):
            ties.fix(axis.units, why)
        joined = x if len(x.units) >= len(y.units) else y
    flags = [axis.zero and not axis.plain for axis in (x, y)]
    return joined._replace(zero=zero(*flags))


def _short(x: Axis | None, y: Axis | None) -> bool:
    """True if one axis is a single unit, which is repeated along many of the other."""
    if x is None or y is None or x.plain or y.plain or x.size.now != 1:
        return False
    return (y.size.now or 2) > 1


def _plain(x: Axis, y: Axis) -> Axis:
    known = {axis.size.known for axis in (x, y)} - {None}
    if len(known) > 1:
        raise MisfitError
    if x.size == y.size:
        return x
    return plain(known.pop()) if known else plain()


def _tied(ties: Ties, x: Axis, y: Axis, why: str) -> bool:
    """Tie two axes of the same length entry by entry; False where they cannot be matched."""
    if len(x.parts) == len(y.parts) == 1 and not x.plain and not y.plain:
        p, q = x.parts[0], y.parts[0]
        one = len(p.ids) == 1 or len(q.ids) == 1
        alike = len(p.ids) == len(q.ids) and p.outer == q.outer and not one
        if alike and (p.inner == q.inner or (p.inner.known is None and q.inner.known is None)):
            ties.tie(p.ids, q.ids, why)
            return True
    try:
        a, b = x.ids(), y.ids()
    except UnclearError:
        return False
    if len(a) != len(b):
        if 1 in (len(a), len(b)):
            return False  # it is repeated
        raise MisfitError
    ties.tie(a, b, why)
    return True


def contract(ties: Ties, call: str, x: Axis, y: Axis) -> None:
    """Sum the products along two axes: exact if what a removed unit adds is 0 on one side."""
    if x.plain and y.plain:
        _plain(x, y)
    elif not ((x.zero and not x.plain) or (y.zero and not y.plain)):
        ties.fix(x.units, f"{call} sums over it")
        ties.fix(y.units, f"{call} sums over it")
    elif not _tied(ties, x, y, f"{call} sums over it with other channels or with an input"):
        raise UnclearError


def einsum(ties: Ties, call: str, equation: str, *operands: Value) -> Value:
    """Axes with one label are paired; those that the result does not name are summed over."""
    if "->" not in equation or "." in equation or len(operands) != 2:
        raise StrangeError
    left, _, right = equation.replace(" ", "").partition("->")
    names = left.split(",")
    places = []
    for labels, value in zip(names, operands, strict=True):
        value.refine(len(labels))
        if len(set(labels)) != len(labels):
            raise StrangeError
        places.append(dict(zip(labels, value.whole, strict=True)))
    a, b = places
    for label in a.keys() | b.keys():
        if label not in right:
            if not (label in a and label in b):
                raise StrangeError
            contract(ties, call, a[label], b[label])
    return Value([paired(ties, call, a.get(label), b.get(label), EITHER) for label in right])


def matmul(ties: Ties, call: str, input: Value, other: Value) -> Value:
    """The product of matrices, (…, i, k) times (…, k, j)."""
    if other.gap is None and len(other.axes) == 2:
        contract(ties, call, input.axis(-1), other.axis(0))
        return Value([*input.axes[:-1], other.axis(1)])
    a, b = input.whole, other.whole
    if min(len(a), len(b)) < 2:
        raise StrangeError
    contract(ties, call, a[-1], b[-2])
    batch = together(ties, call, [Value([*a[:-2]]), Value([*b[:-2]])], EITHER)
    return Value([*batch.axes, a[-2], b[-1]])


def linear(ties: Ties, call: str, input: Value, weight: Value, bias: Value | None = None) -> Value:
    """x Wᵀ + b with a weight (outputs, inputs)."""
    rows, columns = weight.whole
    if len(input.axes) < 2 and input.gap is None:
        raise MisfitError  # inputs come in batches
    if columns.zero:
        read(ties, call, input, -1, columns.ids())
    else:
        contract(ties, call, input.axis(-1), columns)
    made = Value([*input.axes[:-1], rows])
    return made if bias is None else together(ties, call, [made, bias], BOTH)


def read(ties: Ties, call: str, value: Value, dim: int, columns: Ids) -> None:
    """Tie what lies along a dimension to the columns of a weight that read it."""
    if dim < 0 and value.axes[-1] is None:
        value.axes.append(plain(len(columns)))
    axis, at = value.axis(dim), value.place(dim)
    ties.tie(axis.ids(len(columns)), columns, f"{call} reads it together with an input")
    if axis.plain:
        value.axes[at] = plain(len(columns))
