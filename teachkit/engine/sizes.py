"""Sizes of dimensions that need not be known, and how they hang together.

A :class:`Size` is what ``x.shape[1]`` gives: a factor times atoms, which are sizes that are not known, or
axes with units. Two sizes are the same for every input, and before and after a removal, if their factors
and atoms are the same.
"""

from collections.abc import Hashable, Iterable
from fractions import Fraction
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
NONE = np.full(1, -1)


class Size(NamedTuple):
    """A factor times atoms, each with its power; an atom is an object, or the bytes of units."""

    factor: Fraction
    atoms: frozenset[tuple[Hashable, int]] = frozenset()

    def times(self, other: "Size", sign: int = 1) -> "Size":
        """The product, or with the sign −1 the quotient."""
        if other is ONE:
            return self
        if self is ONE and sign > 0:
            return other
        powers = dict(self.atoms)
        for atom, power in other.atoms:
            powers[atom] = powers.get(atom, 0) + sign * power
        atoms = frozenset((atom, power) for atom, power in powers.items() if power)
        return Size(self.factor * other.factor**sign, atoms)

    @property
    def known(self) -> int | None:
        """The number, if it is one and stays one."""
        return int(self.factor) if not self.atoms and self.factor.denominator == 1 else None

    @property
    def now(self) -> int | None:
        """The number before any removal, if it is known."""
        if any(not isinstance(atom, bytes) for atom, _ in self.atoms):
            return None
        lengths = [Fraction(len(units_of(atom))) ** power for atom, power in self.atoms]
        value = prod(lengths, start=self.factor)
        return int(value) if value.denominator == 1 else None

    @property
    def units(self) -> Ids:
        """The units that the size depends on."""
        atoms = [units_of(atom) for atom, _ in self.atoms if isinstance(atom, bytes)]
        return np.concatenate(atoms) if atoms else NONE[:0]


def units_of(atom: Hashable) -> Ids:
    """The units whose number an atom is."""
    assert isinstance(atom, bytes)  # noqa: S101 -- the caller has looked
    return np.frombuffer(atom, dtype=np.int64)


@lru_cache(maxsize=1024)
def size(number: int) -> Size:
    """A known size."""
    return Size(Fraction(number))


def unknown() -> Size:
    """A size of its own that is not known."""
    return Size(Fraction(1), frozenset([(object(), 1)]))


def product(sizes: Iterable[Size]) -> Size:
    """The product of sizes."""
    made = ONE
    for each in sizes:
        made = made.times(each)
    return made


ONE = size(1)
