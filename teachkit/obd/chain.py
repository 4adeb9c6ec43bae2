"""A model read as a chain of stages, or refused with the reason."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from teachkit.obd.activations import DERIVATIVES, SMOOTH, Elementwise
from teachkit.obd.stages import (
    Conv,
    Linear,
    MaxPool,
    Mixing,
    Reshape,
    Scale,
    Stage,
    UncoveredError,
)

STAGES: dict[type[nn.Module], type[Stage]] = {
    nn.Identity: Stage,
    nn.Flatten: Reshape,
    nn.MaxPool2d: MaxPool,
    nn.AvgPool2d: Mixing,
    nn.AdaptiveAvgPool2d: Mixing,
    nn.Linear: Linear,
    nn.Conv2d: Conv,
    **dict.fromkeys((*DERIVATIVES, *SMOOTH), Elementwise),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), Scale),
    **dict.fromkeys(_DropoutNd.__subclasses__(), Stage),
}


def chain(model: nn.Module) -> list[nn.Module]:
    """The layers in the order in which they run.

    Raises:
        UncoveredError: not a Sequential of known layers, a hook, or a weight that two layers share.

    """
    layers = list(_walk(model))
    used = [p for layer in layers for p in layer.parameters()]
    if len({id(p) for p in used}) < len(used):
        raise UncoveredError("two layers share a weight")
    return layers


def forward(layers: list[nn.Module], x: Tensor) -> list[Stage]:
    """Run the chain and keep every stage."""
    run: list[Stage] = []
    for layer in layers:
        stage = STAGES[type(layer)](layer, x)
        run.append(stage)
        x = stage.z
    return run


def _walk(module: nn.Module) -> Iterator[nn.Module]:
    if module._forward_hooks or module._forward_pre_hooks:
        raise UncoveredError(f"{type(module).__name__} carries a forward hook")
    if type(module) is nn.Sequential:
        for child in module:
            yield from _walk(child)
    elif type(module) in STAGES:
        yield module
    else:
        known = sorted({kind.__name__ for kind in STAGES})
        raise UncoveredError(
            f"{type(module).__name__} is not covered; a Sequential of these is: {', '.join(known)}"
        )
