"""Real removal: smaller dense layers that compute what the masked network computes.

Which units share a fate is known from :mod:`teachkit.engine.channels`. :func:`resolve` turns the wish, a
mask for each layer, into the classes of units that go, and refuses by name what cannot be done;
:func:`cuts` lists the tensors that lose entries, and along which dimension. Removal, zeros and the
prediction of sizes read this one list.

The smaller network comes from ``copy.deepcopy`` with the smaller tensors put into its memo, as if they
were copied already: no large tensor is copied only to be thrown away, whatever else the network holds
comes along, its code stays its own, and the surviving weights are bit-identical. Masks may lie on another
device than the model, and a model on the meta device works: only shapes count there.
"""

import copy
from collections.abc import Iterator, Mapping
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.engine.channels import Channels
from teachkit.engine.sizes import Ids
from teachkit.engine.tracing import same, traced

Keep = Mapping[str, Tensor]
Inputs = Tensor | tuple[Tensor, ...] | None


class Cut(NamedTuple):
    """A tensor that loses entries: its layer and name there, and what stays by dimension."""

    layer: str
    name: str
    tensor: Tensor
    stay: dict[int, Tensor]

    @property
    def left(self) -> int:
        """How many entries stay."""
        masks, shape = self.stay, enumerate(self.tensor.shape)
        return prod(int(masks[d].sum()) if d in masks else n for d, n in shape)


def coupled(model: nn.Module, x: Inputs = None) -> list[tuple[str, ...]]:
    """The Linear and Conv layers whose outputs can be removed; those that share a fate together.

    An addition, as in a residual block, couples the layers whose outputs it adds.

    >>> coupled(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    [('0',)]
    """
    return Channels(model, x).coupled()


def shrink(model: nn.Module, keep: Keep, x: Inputs = None) -> nn.Module:
    """A smaller network without the outputs that ``keep`` marks False; it is dense and of the same class.

    A removed output takes with it its row in its layer, its entries in a batch normalisation, and
    its columns in every layer that reads it. In evaluation mode the result computes what
    :func:`silence` computes, and the surviving weights are bit-identical.

    Args:
        model: any that torch.fx can trace. Its inputs come in batches, and a batch normalisation or a
            PReLU after Linear reads (n, features). What is understood of it stands in
            :mod:`teachkit.engine.modules` and :mod:`teachkit.engine.calls`.
        keep: by layer name, boolean (outputs,), True keeps. One name stands for all layers coupled to it.
        x: an input, or a tuple of them, like those that the network gets. Where how many dimensions
            they have matters, or how large an image is, more can be removed with it.

    Raises:
        ValueError: a layer would be emptied, or something that touches its outputs is not
            understood; the message names both.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> shrink(net, {"0": torch.tensor([True, False, True])})
    Sequential(
      (0): Linear(in_features=2, out_features=2, bias=True)
      (1): ReLU()
      (2): Linear(in_features=2, out_features=1, bias=True)
    )

    """
    channels = Channels(model, x)
    gone = resolve(channels, keep)
    memo: dict[int, object] = {id(cut.tensor): _without(cut) for cut in cuts(channels, gone)}
    small = copy.deepcopy(model, memo)
    _resize(small, channels, gone)
    known = channels.traced
    if known.reads_sizes and not all(map(same, known.graphs, traced(small).graphs)):
        raise ValueError(
            f"the code of {type(model).__name__} computes with the sizes of its layers"
        )
    return small


def silence(model: nn.Module, keep: Keep, x: Inputs = None) -> nn.Module:
    """The masked network: the same size, and zeros where :func:`shrink` removes.

    The weights that read a removed output are zero, too: a sigmoid unit without incoming weights
    still says ½, which is part of the next layer's input until that forgets it.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.Sigmoid(), nn.Linear(2, 1))
    >>> (silence(net, {"0": torch.tensor([True, False])})[2].weight != 0).tolist()
    [[True, False]]
    """
    masked = copy.deepcopy(model)
    for cut in removal(model, keep, x):
        if not cut.name.startswith("running"):
            tensor: Tensor = getattr(masked.get_submodule(cut.layer), cut.name).detach()
            for dimension, stay in cut.stay.items():
                tensor.index_fill_(dimension, _places(~stay, tensor), 0.0)
    return masked


def removal(model: nn.Module, keep: Keep, x: Inputs = None) -> Iterator[Cut]:
    """The tensors of a network that :func:`shrink` makes smaller, and what stays of each.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> [cut.name for cut in removal(net, {"0": torch.tensor([True, False, True])})]
    ['weight', 'bias', 'weight']
    """
    channels = Channels(model, x)
    return cuts(channels, resolve(channels, keep))


def resolve(channels: Channels, keep: Keep) -> Ids:
    """Which classes of units go, boolean by unit; everything that cannot be done is refused here."""
    if not isinstance(keep, Mapping):
        raise TypeError(f"keep must be a dict of masks by layer name, got {type(keep).__name__}")
    classes, count = channels.ties.classes, channels.ties.count
    gone, said = np.zeros(count, dtype=bool), np.full(count, -1)
    names = list(keep)
    for number, (name, mask) in enumerate(keep.items()):
        if name not in channels.outputs:
            known = sorted(channels.outputs)
            raise ValueError(
                f"keep has the key {name!r}; layers whose outputs are followed are {known}"
            )
        ids = classes[channels.outputs[name]]
        _refuse(channels, name, mask, ids)
        goes = ~mask.cpu().numpy()
        odd = (said[ids] >= 0) & (gone[ids] != goes)
        if odd.any():
            raise ValueError(_disagree(names[said[ids][odd][0]], name))
        gone[ids], said[ids] = goes, number
        if (gone[ids] != goes).any():
            raise ValueError(_disagree(name, name))
    _refuse_empty(channels, gone)
    return gone


def _disagree(first: str, second: str) -> str:
    if first == second:
        return (
            f"outputs of layer {first!r} are coupled to each other; keep must say the same of them"
        )
    return (
        f"layers {first!r} and {second!r} are coupled, their outputs are added or multiplied; "
        "keep must say the same of both"
    )


def _refuse(channels: Channels, name: str, mask: Tensor, ids: Ids) -> None:
    """Refuse a mask that does not fit its layer, empties it, or cuts what cannot be cut."""
    checks.masks({name: mask}, {name: torch.empty(len(ids), device="meta")})
    if not mask.any():
        raise ValueError(f"nothing would be left of layer {name!r}: keep one output or more")
    why = channels.why_fixed(ids[~mask.cpu().numpy()])
    if why:
        raise ValueError(f"outputs of layer {name!r} cannot be removed: {why}")


def _refuse_empty(channels: Channels, gone: Ids) -> None:
    """Refuse to leave nothing of a layer that is coupled in part, or one where there must be more."""
    classes = channels.ties.classes
    for name, ids in channels.outputs.items():
        if gone[classes[ids]].all():
            raise ValueError(f"nothing would be left of layer {name!r}: keep one output or more")
    for ids, why in channels.ties.uneven:
        if gone[classes[ids]].any() and (~gone[classes[ids]]).sum() < 2:
            raise ValueError(f"keep two outputs or more where {why}")


def cuts(channels: Channels, gone: Ids) -> Iterator[Cut]:
    """The tensors that lose entries: those along one of whose dimensions units go."""
    classes, owned, seen = channels.ties.classes, channels.ties.owned, set[int]()
    for layer, module in channels.modules.items():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or id(tensor) in seen or id(tensor) not in owned:
                continue
            seen.add(id(tensor))
            goes = {dim: gone[classes[ids]] for dim, ids in sorted(owned[id(tensor)].items())}
            stay = {dim: torch.from_numpy(~each) for dim, each in goes.items() if each.any()}
            if stay:
                yield Cut(layer, name, tensor, stay)


def _places(mask: Tensor, like: Tensor) -> Tensor:
    """Where a mask is True, on the device of another tensor."""
    return mask.nonzero().reshape(-1).to(like.device)


def _without(cut: Cut) -> Tensor:
    """A copy of what stays of a tensor, a parameter if it was one."""
    small = cut.tensor.detach()
    for dimension, stay in cut.stay.items():
        small = small.index_select(dimension, _places(stay, small))
    if isinstance(cut.tensor, nn.Parameter):
        return nn.Parameter(small, requires_grad=cut.tensor.requires_grad)
    return small


def _resize(small: nn.Module, channels: Channels, gone: Ids) -> None:
    """Set the attributes of layers that say their sizes."""
    classes = channels.ties.classes
    for module, attribute, ids in channels.ties.resized:
        goes = gone[classes[ids]] & (ids >= 0)
        if goes.any():
            setattr(small.get_submodule(module), attribute, int((~goes).sum()))
