"""Real removal: smaller dense layers that compute what the masked network computes.

Which channels share a fate is known from :mod:`teachkit.engine.channels`. :func:`resolve` turns the wish,
a mask for each layer, into a mask for each space of channels, and refuses by name what cannot be done;
:func:`selections` says for every layer which outputs and inputs stay; :func:`cuts` lists the tensors that
lose entries, and along which dimension. Removal, zeros and the prediction of sizes read this one list.

The smaller network comes from ``copy.deepcopy`` with the smaller tensors put into its memo, as if they
were copied already: no large tensor is copied only to be thrown away, whatever else the network holds
comes along, its code stays its own, and the surviving weights are bit-identical. Masks may lie on another
device than the model, and a model on the meta device works: only shapes count there.
"""

import copy
from collections.abc import Iterator, Mapping
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.layers import kind
from teachkit.engine.channels import Channels
from teachkit.engine.tracing import trace

Keep = Mapping[str, Tensor]
# The tensors of a layer that have a dimension of channels, and the attributes that say its size.
TENSORS = ("weight", "bias", "running_mean", "running_var")
SIZES = {
    "linear": ("out_features", "in_features"),
    "conv": ("out_channels", "in_channels"),
    "norm": ("num_features",),
    "prelu": ("num_parameters",),
}


class Stay(NamedTuple):
    """Which outputs and which inputs of a layer stay, boolean; None where all do."""

    outputs: Tensor | None
    inputs: Tensor | None


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


def coupled(model: nn.Module) -> list[tuple[str, ...]]:
    """The Linear and Conv layers whose outputs can be removed; those that share a fate together.

    An addition, as in a residual block, couples the layers whose outputs it adds.

    >>> coupled(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    [('0',)]
    """
    channels = Channels(model)
    groups = channels.coupled().items()
    return [tuple(names) for space, names in groups if channels.why_fixed(space) is None]


def shrink(model: nn.Module, keep: Keep) -> nn.Module:
    """A smaller network without the outputs that ``keep`` marks False; it is dense and of the same class.

    A removed output takes with it its row in its layer, its entries in a batch normalisation, and
    its columns in every layer that reads it. In evaluation mode the result computes what
    :func:`silence` computes, and the surviving weights are bit-identical.

    Args:
        model: made of Linear, Conv1d-3d (plain or depthwise), batch normalisation, pooling,
            ``flatten(x, 1)``, activations, dropout, additions and products. Shapes are not traced:
            inputs come in batches, and a batch normalisation after Linear reads (n, features).
        keep: by layer name, boolean (outputs,), True keeps. One name stands for all layers coupled to it.

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
    channels = Channels(model)
    stays = selections(channels, resolve(channels, keep))
    memo: dict[int, object] = {id(cut.tensor): _without(cut) for cut in cuts(channels, stays)}
    small = copy.deepcopy(model, memo)
    for name, stay in stays.items():
        _resize(small.get_submodule(name), stay)
    if str(trace(small)) != str(channels.graph):
        raise ValueError(
            f"the code of {type(model).__name__} computes with the sizes of its layers"
        )
    return small


def silence(model: nn.Module, keep: Keep) -> nn.Module:
    """The masked network: the same size, and zeros where :func:`shrink` removes.

    The weights that read a removed output are zero, too: a sigmoid unit without incoming weights
    still says ½, which is part of the next layer's input until that forgets it.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.Sigmoid(), nn.Linear(2, 1))
    >>> (silence(net, {"0": torch.tensor([True, False])})[2].weight != 0).tolist()
    [[True, False]]
    """
    masked = copy.deepcopy(model)
    for cut in removal(model, keep):
        if not cut.name.startswith("running"):
            tensor: Tensor = getattr(masked.get_submodule(cut.layer), cut.name).detach()
            for dimension, stay in cut.stay.items():
                tensor.index_fill_(dimension, _places(~stay, tensor), 0.0)
    return masked


def removal(model: nn.Module, keep: Keep) -> Iterator[Cut]:
    """The tensors of a network that :func:`shrink` makes smaller, and what stays of each.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> [cut.name for cut in removal(net, {"0": torch.tensor([True, False, True])})]
    ['weight', 'bias', 'weight']
    """
    channels = Channels(model)
    return cuts(channels, selections(channels, resolve(channels, keep)))


def resolve(channels: Channels, keep: Keep) -> dict[int, Tensor]:
    """What stays of each space that is cut; everything that cannot be done is refused here."""
    if not isinstance(keep, Mapping):
        raise TypeError(f"keep must be a dict of masks by layer name, got {type(keep).__name__}")
    spaces = {name: space for space, names in channels.coupled().items() for name in names}
    masks: dict[int, Tensor] = {}
    named: dict[int, str] = {}
    for name, mask in keep.items():
        if name not in spaces:
            raise ValueError(
                f"keep has the key {name!r}; layers whose outputs are followed are {sorted(spaces)}"
            )
        space = spaces[name]
        _refuse(channels, name, mask, space)
        first, mask = named.setdefault(space, name), mask.cpu()
        if not torch.equal(masks.setdefault(space, mask), mask):
            raise ValueError(
                f"layers {first!r} and {name!r} are coupled, their outputs are added or "
                "multiplied; keep must say the same of both"
            )
    return {space: mask for space, mask in masks.items() if not mask.all()}


def _refuse(channels: Channels, name: str, mask: Tensor, space: int) -> None:
    """Refuse a mask that does not fit its layer, empties it, or cuts what cannot be cut."""
    checks.masks({name: mask}, {name: torch.empty(channels.sizes[space], device="meta")})
    if not mask.any():
        raise ValueError(f"nothing would be left of layer {name!r}: keep one output or more")
    why = channels.why_fixed(space)
    if why and not mask.all():
        raise ValueError(f"outputs of layer {name!r} cannot be removed: {why}")


def selections(channels: Channels, masks: Mapping[int, Tensor]) -> dict[str, Stay]:
    """By layer what stays of its outputs and of its inputs; layers that stay whole are left out.

    After a flatten a layer reads height · width neighbours for each channel, so its mask repeats each
    entry as often. Where each output comes from the input of the same number, inputs follow outputs.
    """
    stays = {}
    for name, made in channels.outputs.items():
        space, per_channel = channels.inputs[name]
        outputs, inputs = masks.get(channels.root(made)), masks.get(channels.root(space))
        if one_for_one(channels.modules[name]):
            outputs, inputs = _repeated(outputs, per_channel), None
        inputs = _repeated(inputs, per_channel)
        if outputs is not None or inputs is not None:
            stays[name] = Stay(outputs, inputs)
    return stays


def cuts(channels: Channels, stays: Mapping[str, Stay]) -> Iterator[Cut]:
    """The tensors that lose entries. Weights have outputs and inputs, all other tensors channels."""
    for layer, both in stays.items():
        module = channels.modules[layer]
        weights = kind(module).role in ("linear", "conv")
        for name in TENSORS:
            tensor = getattr(module, name, None)
            masks = both if weights and name == "weight" else both[:1]
            stay = {dimension: mask for dimension, mask in enumerate(masks) if mask is not None}
            if isinstance(tensor, Tensor) and stay:
                yield Cut(layer, name, tensor, stay)


def one_for_one(module: nn.Module) -> bool:
    """True where each output comes from the input of the same number: normalisation, depthwise."""
    return kind(module).role not in ("linear", "conv") or getattr(module, "groups", 1) > 1


def _repeated(mask: Tensor | None, times: int) -> Tensor | None:
    """Each entry so many times in turn; None if that is never."""
    return None if mask is None or not times else mask.repeat_interleave(times)


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


def _resize(module: nn.Module, stay: Stay) -> None:
    """Set the attributes of a layer that say its size."""
    role = kind(module).role
    sizes = dict(zip(SIZES[role], stay, strict=False))
    if role == "conv" and one_for_one(module):
        sizes = dict.fromkeys((*SIZES["conv"], "groups"), stay.outputs)
    for attribute, mask in sizes.items():
        if mask is not None:
            setattr(module, attribute, int(mask.sum()))
