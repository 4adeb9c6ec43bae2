"""The register of units: which are removed together, which cannot be removed, and why.

Rows and columns of a tensor get units when it is first met; a tensor that stands in two places has the
same in both. A rule *ties* two rows of units, entry by entry, where the calculation pairs them; it *fixes*
units where a removal would change more than the masked network does, with a reason that an error can
quote. Tying and fixing only note down; :meth:`Ties.classes` then finds the connected components, all at
once.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
from torch import Tensor

from teachkit.engine.axes import Axis, Value, along, plain
from teachkit.engine.sizes import Ids


class Mark(NamedTuple):
    """How far the register was filled, to go back there."""

    tied: int
    fixed: int
    resized: int
    uneven: int


class Resize(NamedTuple):
    """An attribute of a module that is the number of these units."""

    module: str
    attribute: str
    ids: Ids


class Ties:
    """The units of a network.

    ``owned`` holds by tensor and dimension the units that lie there; ``made`` by layer what it puts out.
    """

    def __init__(self) -> None:
        self.count = 0
        self.owned: dict[int, dict[int, Ids]] = {}
        self.made: dict[str, Ids] = {}
        self.tied: list[tuple[Ids, Ids]] = []
        self.fixed: list[tuple[Ids, str]] = []
        self.resized: list[Resize] = []
        self.uneven: list[tuple[Ids, str]] = []  # at least two of these must stay

    def new(self, count: int) -> Ids:
        """New units."""
        self.count += count
        return np.arange(self.count - count, self.count)

    def of(self, tensor: Tensor, dim: int = 0) -> Ids:
        """The units along a dimension of a tensor of the model."""
        dims = self.owned.setdefault(id(tensor), {})
        if dim not in dims:
            dims[dim] = self.new(tensor.shape[dim])
        return dims[dim]

    def value(self, tensor: Tensor, dims: int | None = None) -> Value:
        """A parameter or a buffer as a value, with units along its first dimensions."""

        def axis(dim: int, length: int) -> Axis:
            cuts = length > 1 and (dims is None or dim < dims)
            return along(self.of(tensor, dim)) if cuts else plain(length)

        return Value([axis(dim, length) for dim, length in enumerate(tensor.shape)])

    def tie(self, a: Ids, b: Ids, why: str) -> None:
        """Units that go together, entry by entry; one that goes with none is fixed."""
        if a is b:
            return
        alone = (a < 0) != (b < 0)
        if alone.any():
            self.fix(np.maximum(a, b)[alone], why)
        both = (a >= 0) & (b >= 0) & (a != b)
        if both.any():
            self.tied.append((a[both], b[both]))

    def together(self, groups: Ids, why: str) -> None:
        """Units (groups, members) that go together in each group."""
        for other in groups.T[1:]:
            self.tie(groups[:, 0], other, why)

    def fix(self, ids: Ids, why: str) -> None:
        """Units that cannot be removed."""
        ids = ids[ids >= 0]
        if len(ids):
            self.fixed.append((ids, why))

    def mark(self) -> Mark:
        """Where the register stands."""
        return Mark(len(self.tied), len(self.fixed), len(self.resized), len(self.uneven))

    def back(self, mark: Mark) -> None:
        """Forget what was noted since; units stay, they hurt nobody."""
        for notes, length in zip(
            (self.tied, self.fixed, self.resized, self.uneven), mark, strict=True
        ):
            del notes[length:]  # type: ignore[attr-defined]

    @cached_property
    def classes(self) -> Ids:
        """By unit the smallest unit that goes with it: labels sink until all ties agree."""
        label = np.arange(self.count)
        if not self.tied:
            return label
        a, b = (np.concatenate(side) for side in zip(*self.tied, strict=True))
        while (label[a] != label[b]).any():
            low = np.minimum(label[a], label[b])
            np.minimum.at(label, label[a], low)
            np.minimum.at(label, label[b], low)
            while (label != label[label]).any():
                label = label[label]
        return label

    @cached_property
    def reasons(self) -> dict[int, str]:
        """By class the first reason why it cannot be removed."""
        found: dict[int, str] = {}
        for ids, why in self.fixed:
            for each in np.unique(self.classes[ids]).tolist():
                found.setdefault(each, why)
        return found
