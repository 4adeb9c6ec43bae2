"""Real removal: smaller dense layers that compute what the masked network computes."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.structured.graph import Channels
from teachkit.structured.tracing import CONV, LINEAR, trace

Keep = Mapping[str, Tensor]


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
    its columns in every layer that reads it: height · width columns each after a flatten. In
    evaluation mode the result computes what :func:`silence` computes, and the surviving weights are
    bit-identical. The channels are followed through the graph that torch.fx traces.

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
    cuts = resolve(channels, keep)
    memo: dict[int, object] = {}
    sizes: dict[str, dict[str, int]] = {}
    for name, (rows, columns) in selections(channels, cuts).items():
        module = channels.modules[name]
        for tensor, dimensions in tensors(module).items():
            memo[id(getattr(module, tensor))] = _cut(
                getattr(module, tensor), (rows, columns)[:dimensions]
            )
        sizes[name] = _sizes(module, rows, columns)
    small = copy.deepcopy(model, memo)
    for name, attributes in sizes.items():
        for attribute, size in attributes.items():
            setattr(small.get_submodule(name), attribute, size)
    own = any(not type(m).__module__.startswith("torch.nn") for m in channels.modules.values())
    if own and str(trace(small)) != str(channels.graph):
        raise ValueError(
            f"the code of {type(model).__name__} computes with the sizes of its layers"
        )
    return small


def silence(model: nn.Module, keep: Keep) -> nn.Module:
    """The masked network: the same size, and zeros where :func:`shrink` removes.

    A removed output's own weights, bias and batch normalisation are zero, and so are the weights that
    read it. The second part matters where an activation is not zero at zero: a sigmoid unit without
    incoming weights still says ½, which is part of the next layer's input until that forgets it.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.Sigmoid(), nn.Linear(2, 1))
    >>> (silence(net, {"0": torch.tensor([True, False])})[2].weight != 0).tolist()
    [[True, False]]
    """
    channels = Channels(model)
    cuts = resolve(channels, keep)
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for name, (rows, columns) in selections(channels, cuts).items():
            module = masked.get_submodule(name)
            for tensor, dimensions in tensors(module).items():
                if tensor.startswith("running"):
                    continue
                value: Tensor = getattr(module, tensor)
                if rows is not None:
                    value[~rows] = 0.0
                if columns is not None and dimensions == 2:
                    value[:, ~columns] = 0.0
    return masked


def resolve(channels: Channels, keep: Keep) -> dict[int, Tensor]:
    """What stays of each space that is cut; everything that cannot be done is refused here."""
    if not isinstance(keep, Mapping):
        raise TypeError(f"keep must be a dict of masks by layer name, got {type(keep).__name__}")
    groups = channels.coupled()
    by_layer = {name: space for space, names in groups.items() for name in names}
    cuts: dict[int, Tensor] = {}
    named: dict[int, str] = {}
    for name, mask in keep.items():
        if name not in by_layer:
            raise ValueError(
                f"keep has the key {name!r}; layers whose outputs are followed are {sorted(by_layer)}"
            )
        space, size = by_layer[name], channels.sizes[by_layer[name]]
        checks.masks({name: mask}, {name: torch.empty(size)})
        if not mask.any():
            raise ValueError(f"nothing would be left of layer {name!r}: keep one output or more")
        why = channels.why_fixed(space)
        if why and not mask.all():
            raise ValueError(f"outputs of layer {name!r} cannot be removed: {why}")
        if space in cuts and not torch.equal(cuts[space], mask):
            raise ValueError(
                f"layers {named[space]!r} and {name!r} are coupled, their outputs are added or "
                "multiplied; keep must say the same of both"
            )
        cuts[space], named[space] = mask, name
    return {space: mask for space, mask in cuts.items() if not mask.all()}


def selections(
    channels: Channels, cuts: Mapping[int, Tensor]
) -> dict[str, tuple[Tensor | None, Tensor | None]]:
    """By layer what stays of its outputs and of its inputs, None where everything does."""
    found = {}
    for name, made in channels.outputs.items():
        space, places = channels.inputs[name]
        rows, columns = cuts.get(channels.root(made)), cuts.get(channels.root(space))
        if one_for_one(channels.modules[name]):
            rows = None if rows is None or not places else rows.repeat_interleave(places)
            columns = None
        elif columns is not None:
            columns = columns.repeat_interleave(places)
        if rows is not None or columns is not None:
            found[name] = (rows, columns)
    return found


def one_for_one(module: nn.Module) -> bool:
    """True where each output comes from the input of the same number: normalisation, depthwise."""
    return type(module) not in (*LINEAR, *CONV) or getattr(module, "groups", 1) > 1


def tensors(module: nn.Module) -> dict[str, int]:
    """The tensors of a layer that have a dimension of channels, and how many such dimensions."""
    wide = type(module) in (*LINEAR, *CONV)
    names = ("weight", "bias", "running_mean", "running_var")
    return {
        name: 2 if wide and name == "weight" else 1
        for name in names
        if isinstance(getattr(module, name, None), Tensor)
    }


def _cut(tensor: Tensor, selected: tuple[Tensor | None, ...]) -> Tensor:
    """A copy of what stays, a parameter if it was one."""
    small = tensor.detach()
    for dimension, mask in enumerate(selected):
        if mask is not None:
            small = small.index_select(dimension, mask.nonzero().reshape(-1).to(tensor.device))
    if small.data_ptr() == tensor.data_ptr():
        small = small.clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(small, requires_grad=tensor.requires_grad)
    return small


def _sizes(module: nn.Module, rows: Tensor | None, columns: Tensor | None) -> dict[str, int]:
    """The attributes of a layer that say its size."""
    made = {} if rows is None else {"out": int(rows.sum())}
    read = {} if columns is None else {"in": int(columns.sum())}
    if type(module) in LINEAR:
        return {f"{side}_features": size for side, size in (made | read).items()}
    if type(module) in CONV:
        if one_for_one(module):
            return dict.fromkeys(("in_channels", "out_channels", "groups"), made["out"])
        return {f"{side}_channels": size for side, size in (made | read).items()}
    return {
        name: made["out"]
        for name in ("num_features", "num_parameters")
        if made and hasattr(module, name)
    }
