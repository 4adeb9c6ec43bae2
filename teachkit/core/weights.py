"""The weights that can be pruned, and what a mask does to a model.

A mask has the shape of its weight and is boolean: True keeps.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from teachkit.core import checks, door
from teachkit.core.layers import parameter_name, weighted
from teachkit.core.types import Masks, Params


def prunable(model: nn.Module, *, biases: bool = False) -> Params:
    """The weights of Linear and Conv layers (and their biases if asked), keyed as named_parameters().

    The tensors are the model's own, not copies. A weight that two layers share appears once. One
    that a module of another kind owns first, as an embedding may, is left out. ValueError where a
    layer carries a mask of torch.nn.utils.prune.

    >>> {name: tuple(w.shape) for name, w in prunable(nn.Sequential(nn.Linear(3, 2))).items()}
    {'0.weight': (2, 3)}
    """
    kinds = ("weight", "bias") if biases else ("weight",)
    wanted: set[str] = set()
    for name, module in weighted(checks.model(model)):
        if prune.is_pruned(module):
            raise ValueError(
                f"layer {name!r} is masked by torch.nn.utils.prune; "
                "take the mask out with masks.from_torch(model) first"
            )
        wanted.update(parameter_name(name, kind) for kind in kinds)
    return {name: p for name, p in model.named_parameters() if name in wanted}


def keep_all(model: nn.Module) -> Masks:
    """The masks that remove nothing."""
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model).items()}


def nonzero(model: nn.Module) -> Masks:
    """The masks a model carries in its zeros: True where a prunable weight is not zero."""
    return {name: w.detach() != 0 for name, w in prunable(model).items()}


def apply(model: nn.Module, masks: Masks) -> nn.Module:
    """A new model with the weights θ ⊙ M: zero where the mask is False, unchanged elsewhere."""
    checks.masks(masks, dict(checks.model(model).named_parameters()))
    pruned = copy.deepcopy(model)
    params = dict(pruned.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            params[name].masked_fill_(~mask, 0.0)
    return pruned


def combine(*masks: Masks) -> Masks:
    """What all of several masks keep; a key that one of them lacks is not limited by it."""
    combined: Masks = {}
    for given in masks:
        boolean(given)
        for name, mask in given.items():
            other = combined.get(name, mask)
            if other.shape != mask.shape:
                shapes = f"{tuple(other.shape)} and {tuple(mask.shape)}"
                raise ValueError(f"masks[{name!r}] come as {shapes}")
            combined[name] = other & mask
    return combined


def change(model: nn.Module, masks: Masks) -> Params:
    """The step δ = θ ⊙ M − θ that pruning takes: −w where the mask is False, 0 elsewhere."""
    params = dict(checks.model(model).named_parameters())
    return {
        name: torch.where(mask, 0.0, -params[name].detach())
        for name, mask in checks.masks(masks, params).items()
    }


def split(flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut the last dimension of a tensor into pieces shaped like the tensors of a dict, in order.

    >>> split(torch.arange(3), {"a": torch.ones(2), "b": torch.ones(1, 1)})
    {'a': tensor([0, 1]), 'b': tensor([[2]])}
    """
    sizes = [tensor.numel() for tensor in like.values()]
    if flat.shape[-1] != sum(sizes):
        raise ValueError(f"{flat.shape[-1]} entries cannot fill {sum(sizes)} weights")
    parts = torch.split(flat, sizes, dim=-1)
    return {
        name: part.reshape(*flat.shape[:-1], *tensor.shape)
        for (name, tensor), part in zip(like.items(), parts, strict=True)
    }


def boolean(masks: Masks) -> None:
    """Refuse what is not a dict of boolean tensors."""
    checks.masks(masks, masks)


door.hold(globals())
