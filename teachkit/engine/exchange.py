"""Masks to and from torch.nn.utils.prune.

PyTorch keeps a masked weight as two tensors, the parameter ``weight_orig`` and the buffer
``weight_mask``, and computes ``weight`` from them before each forward pass. Our masks stand beside the
model instead. Going there is one call per owner of a parameter, so that layers that share a weight
share its mask. Coming back takes two detours: torch refuses to copy the computed weight, and removing
a mask moves the parameter to the end of the layer, from where its place has to be found again.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import prune

from teachkit.core import checks
from teachkit.core.copies import independent_copy
from teachkit.core.layers import parameter_name
from teachkit.core.types import Masks
from teachkit.core.weights import keep_all, prunable


def to_torch(model: nn.Module, masks: Masks) -> nn.Module:
    """A new model that carries the masks in torch.nn.utils.prune's way (weight_orig, weight_mask).

    >>> carrying = to_torch(nn.Linear(1, 1), {"weight": Tensor([[0]]) > 0})
    >>> [name for name, _ in carrying.named_parameters()], prune.is_pruned(carrying)
    (['bias', 'weight_orig'], True)
    """
    checks.masks(masks, prunable(model, biases=True))
    carrying = independent_copy(model)
    params = dict(carrying.named_parameters())
    owners = [(m, kind, p) for m in carrying.modules() for kind, p in m._parameters.items()]
    for name, mask in masks.items():
        for module, kind, p in owners:
            if p is params[name]:  # more than once where layers share a weight
                prune.custom_from_mask(module, kind, mask)  # type: ignore[no-untyped-call]
    return carrying


def from_torch(model: nn.Module) -> tuple[nn.Module, Masks]:
    """A plain copy of a model that torch.nn.utils.prune has masked, and its masks.

    Weights without a mask get one that keeps everything.
    """
    # torch refuses to copy a masked weight, the product of weight_orig and weight_mask: lend it one.
    products = [v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor)]
    plain = copy.deepcopy(model, {id(v): v.detach().clone() for v in products})
    masks: Masks = {}
    for name, module in plain.named_modules():
        masks |= {parameter_name(name, kind): mask for kind, mask in _take_out(module).items()}
    return plain, keep_all(plain) | _by_owner(plain, masks)


def _by_owner(plain: nn.Module, masks: Masks) -> Masks:
    """The masks under the first name of each parameter; layers that share it must agree on its mask."""
    owners = {id(p): name for name, p in plain.named_parameters()}
    shared: Masks = {}
    for name, mask in masks.items():
        owner = owners[id(plain.get_parameter(name))]
        if not torch.equal(shared.setdefault(owner, mask), mask):
            raise ValueError(
                f"{owner!r} and {name!r} are one parameter with two different masks, which no one "
                "mask can say"
            )
    return shared


def _take_out(module: nn.Module) -> Masks:
    """Make the masked parameters of one module plain ones in their old places; the masks, by kind."""
    buffers = [key.removesuffix("_mask") for key, _ in module.named_buffers(recurse=False)]
    kinds = [kind for kind in buffers if f"{kind}_orig" in module._parameters]
    masks = {kind: getattr(module, f"{kind}_mask") != 0 for kind in kinds}
    for kind in kinds:
        prune.remove(module, kind)  # type: ignore[no-untyped-call]
    for kind in _order(module):
        if kind in module._parameters:
            module._parameters[kind] = module._parameters.pop(kind)
    return masks


def _order(module: nn.Module) -> tuple[str, ...]:
    """The places of a layer's parameters."""
    if isinstance(module, nn.MultiheadAttention):
        apart = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        return (*apart, "in_proj_weight", "in_proj_bias", "bias_k", "bias_v")
    return ("weight", "bias") if isinstance(module, (nn.Linear, _ConvNd)) else ()
