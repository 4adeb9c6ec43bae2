"""Another size for the inputs of layers, and the same function: outliers brought in, and taken out.

What a norm, or a linear map, makes can be made c times as large if whoever reads it divides by c. The
network computes what it computed; but the weights that read it are c times smaller, and to whoever
judges weights by their size they are other weights. ReLU would let c through, GELU does not: what the
plain MLP's ``down`` reads cannot be stretched; what SwiGLU's reads can, by way of ``up``.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from teachkit.core import checks, door
from teachkit.core.copies import independent_copy
from teachkit.lab.transformers import Block, SwiGLU, blocks_by_name


class Joint(NamedTuple):
    """Tensors whose first dimension makes the inputs of others, whose columns read them.

    Each made number is read ``heads`` times, once by each of the heads that share it, which lie beside each
    other in groups of ``size``.
    """

    makers: tuple[Tensor, ...]
    readers: Mapping[str, Tensor]
    heads: int = 1
    size: int = 1

    @property
    def key(self) -> str:
        """The first weight that reads."""
        return next(iter(self.readers))

    def spread(self, made: Tensor) -> Tensor:
        """A number for each made one (m,) as one for each column that reads it, (m · heads,)."""
        return made.view(-1, self.size).repeat_interleave(self.heads, 0).reshape(-1)

    def gathered(self, read: Tensor) -> Tensor:
        """The mean over the columns that read the same number, (m,)."""
        return read.view(-1, self.heads, self.size).mean(1).reshape(-1)


def joints(model: nn.Module) -> Iterator[Joint]:
    """The places of a transformer of the course where inputs can be stretched, in the order of its blocks."""
    for name, block in blocks_by_name(model).items():
        yield from _joints(name, block)


def stretched(model: nn.Module, factors: Mapping[str, Tensor]) -> nn.Module:
    """A new transformer that computes the same, with inputs that are factors times as large.

    Factors above 0 by the first weight that reads the inputs, one for each number that is made (for an
    attention's ``o`` these are the outputs of ``v``). Also scales what else reads the same inputs.

    >>> from teachkit.lab.transformers import transformer
    >>> net, tokens = transformer(5, width=4, depth=1, heads=1), torch.tensor([[0, 1, 2]])
    >>> other = stretched(net, {"blocks.0.attention.q.weight": torch.tensor([1.0, 1.0, 50.0, 1.0])})
    >>> torch.allclose(other(tokens), net(tokens), atol=1e-5)
    True
    """
    made = independent_copy(model)
    found = {joint.key: joint for joint in joints(made)}
    for name, factor in factors.items():
        if name not in found:
            raise ValueError(f"factors has the key {name!r}; allowed are {sorted(found)}")
        rows = len(found[name].makers[0])
        if factor.shape != (rows,) or not bool((checks.finite(name, factor) > 0).all()):
            raise ValueError(f"factors[{name!r}] must be {rows} numbers above 0, got {factor}")
    with torch.no_grad():
        for name, factor in factors.items():
            _stretch(found[name], factor)
    return made


def equalised(model: nn.Module, norms: Mapping[str, Tensor]) -> nn.Module:
    """A new transformer that computes the same, with inputs of norm 1 wherever they can be stretched.

    ``norms`` are those of each layer's inputs by its weight's name; those that are 0 stay. Where several
    heads share a value it is the root of their mean square that becomes 1.
    """
    factors = {}
    for joint in joints(model):
        if joint.key not in norms:
            raise ValueError(f"norms is missing for {joint.key!r}")
        size = joint.gathered(norms[joint.key].square()).sqrt()
        factors[joint.key] = torch.where(size > 0, 1 / size, 1.0)
    return stretched(model, factors)


def _joints(at: str, block: Block) -> Iterator[Joint]:
    attention, mlp = block.attention, block.mlp
    read = {f"{at}.attention.{name}.weight": getattr(attention, name).weight for name in "qkv"}
    yield Joint(tuple(block.norm_attention.parameters()), read)
    size = len(attention.v.weight) // attention.kv
    o = {f"{at}.attention.o.weight": attention.o.weight}
    yield Joint((attention.v.weight,), o, attention.heads // attention.kv, size)
    names = ("gate", "up") if isinstance(mlp, SwiGLU) else ("up",)
    read = {f"{at}.mlp.{name}.weight": getattr(mlp, name).weight for name in names}
    yield Joint(tuple(block.norm_mlp.parameters()), read)
    if isinstance(mlp, SwiGLU):
        yield Joint((mlp.up.weight,), {f"{at}.mlp.down.weight": mlp.down.weight})


def _stretch(joint: Joint, factor: Tensor) -> None:
    for maker in joint.makers:
        maker.mul_(factor.to(maker).view(-1, *[1] * (maker.ndim - 1)))
    for reader in joint.readers.values():
        reader.div_(joint.spread(factor.to(reader)))


door.hold(globals())
