"""The weights that can be pruned, and what a mask does to a model.

A mask has the shape of its weight and is boolean: True keeps.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import prune

from teachkit.core import checks, door
from teachkit.core.copies import independent_copy, refuse_scripts
from teachkit.core.layers import parameter_name
from teachkit.core.types import Masks, Params

_PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")  # where their widths differ


def prunable(model: nn.Module, *, biases: bool = False) -> Params:
    """The weights of Linear and Conv layers (and their biases if asked), keyed as named_parameters().

    The projections of nn.MultiheadAttention are among them. The tensors are the model's own, not
    copies. A weight that two layers share appears once. One that a module of another kind owns first,
    as an embedding may, is left out. ValueError where a layer's weight is not a parameter: it carries
    a mask of torch.nn.utils.prune, is made of others as by weight_norm, or is part of a script.

    >>> {name: tuple(w.shape) for name, w in prunable(nn.Sequential(nn.Linear(3, 2))).items()}
    {'0.weight': (2, 3)}
    """
    kinds = ("weight", "bias") if biases else ("weight",)
    wanted: set[str] = set()
    refuse_scripts(checks.model(model))
    for name, module in model.named_modules():
        _refuse_made(name, module)
        if isinstance(module, (nn.Linear, _ConvNd)):
            wanted.update(parameter_name(name, kind) for kind in kinds)
        elif isinstance(module, nn.MultiheadAttention):
            inward = [f"in_proj_{kind}" for kind in kinds]
            wanted.update(parameter_name(name, key) for key in (*inward, *_PROJECTIONS))
    return {name: p for name, p in model.named_parameters() if name in wanted}


def _refuse_made(name: str, module: nn.Module) -> None:
    """Refuse a weight that is no parameter: what is computed anew in each pass cannot be pruned."""
    where = f"layer {name!r}" if name else "the model"
    if not isinstance(module, (nn.Linear, _ConvNd, nn.MultiheadAttention)):
        return
    if prune.is_pruned(module):
        raise ValueError(
            f"{where} is masked by torch.nn.utils.prune; "
            "take the mask out with masks.from_torch(model) first"
        )
    if (
        not {"weight", "bias"} <= set(module._parameters)
        and "in_proj_weight" not in module._parameters
    ):
        made_of = [key for key, _ in module.named_parameters() if key != "bias"]
        raise ValueError(
            f"the weight of {where} is computed from {made_of}; make it a parameter first, with "
            "parametrize.remove_parametrizations or remove_weight_norm of torch.nn.utils"
        )


def trainable(model: nn.Module) -> Params:
    """The prunable weights that are not frozen; ValueError where there is none."""
    free = {name: w for name, w in prunable(model).items() if w.requires_grad}
    if not free:
        raise ValueError("model has no weight to train: no Linear or Conv layer that is not frozen")
    return free


def keep_all(model: nn.Module) -> Masks:
    """The masks that remove nothing."""
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model).items()}


def nonzero(model: nn.Module) -> Masks:
    """The masks a model carries in its zeros: True where a prunable weight is not zero."""
    return {name: w.detach() != 0 for name, w in prunable(model).items()}


def apply(model: nn.Module, masks: Masks) -> nn.Module:
    """A new model with the weights θ ⊙ M: zero where the mask is False, unchanged elsewhere."""
    checks.masks(masks, dict(checks.model(model).named_parameters()))
    pruned = independent_copy(model)
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
