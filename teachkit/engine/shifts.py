"""What a step of the weights does to the units on average over the samples, and how to take it back.

A unit computes z = Σ_i w_i a_i + b. A step δ of its weights changes z by Σ_i δ_i a_i on one sample
and by Σ_i δ_i ā_i on average, with ā the mean inputs. The average part is the same for every sample:
it is what a step of the bias b does. A convolution is a unit for each channel, and its positions
count as samples. Layers are Linear, Conv1d and Conv2d, each with a weight of its own, each run once;
what else has weights is refused by name.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from teachkit.core import checks
from teachkit.core.copies import independent_copy
from teachkit.core.layers import UncoveredError, parameter_name, patches, positions, weighted
from teachkit.core.recorder import Call, record_calls
from teachkit.core.types import Params
from teachkit.core.weights import prunable


def mean_inputs(model: nn.Module, x: Tensor) -> Params:
    """ā: for every prunable weight the mean over x of the number that it is multiplied with.

    >>> layer = nn.Linear(2, 1)
    >>> mean_inputs(layer, torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    {'weight': tensor([[2., 2.]])}
    """
    means: Params = {}

    def at_call(call: Call) -> None:
        name = _only_once(call, means)
        w, a = call.layer.get_parameter("weight"), patches(call.layer, call.input).mean((0, 2))
        means[name] = a.repeat_interleave(len(w) // len(a), 0).reshape(w.shape)

    _refuse_shared(model)
    record_calls(checks.model(model, x), x, at_call)
    for name in prunable(model):
        if name not in means:
            raise UncoveredError(
                f"the layer of {name!r} does not run on x, so nothing flows into it"
            )
    return means


def mean_step(model: nn.Module, x: Tensor, delta: Params) -> Params:
    """The step of the biases that shifts each unit's z as δ shifts it on average: Σ_i δ_i ā_i.

    Raises:
        UncoveredError: a layer has no bias to step.

    """
    a = mean_inputs(model, x)
    step = {name: (d * a[name]).flatten(1).sum(1) for name, d in delta.items() if bool(d.any())}
    layers = dict(weighted(model))
    return {_bias(_layer(name), layers[_layer(name)])[0]: shift for name, shift in step.items()}


def restore(model: nn.Module, pruned: nn.Module, x: Tensor, *, spread: bool) -> nn.Module:
    """A copy of the pruned network whose units have the means over x that they have in the model.

    Layer by layer in the order in which they run, so that each is mended behind those that are.

    Args:
        model: the network before.
        pruned: the same network with other weights, e.g. with zeros.
        x: inputs; no labels are needed.
        spread: restore each unit's standard deviation as well, by a factor of its weights. A unit
            that does not vary any more keeps its weights.

    Raises:
        UncoveredError: a layer has no bias, runs more than once, or shares its weight.

    """
    goal: dict[str, tuple[Tensor, Tensor]] = {}

    def measure(call: Call) -> None:
        name = _only_once(call, goal)
        goal[name] = _moments(call)

    def mend(call: Call) -> Tensor:
        bias, wanted = _bias(call.name, call.layer)[1], goal[_only_once(call, done)]
        (mean, sd), (new_mean, new_sd) = wanted, _moments(call)
        varies = new_sd > 1e-12 * sd
        factor = torch.where(varies, sd / new_sd.where(varies, 1), 1) if spread else new_sd * 0 + 1
        weight = call.layer.get_parameter("weight")
        weight.mul_(factor.reshape(-1, *[1] * (weight.ndim - 1)))
        bias.copy_(mean - factor * (new_mean - bias))
        done[parameter_name(call.name, "weight")] = wanted
        shape = _across(call.layer, call.output)
        return (call.output - new_mean.reshape(shape)) * factor.reshape(shape) + mean.reshape(shape)

    _alike(model, pruned)
    _refuse_shared(pruned)
    record_calls(checks.model(model, x), x, measure)
    mended, done = independent_copy(pruned), dict[str, tuple[Tensor, Tensor]]()
    with torch.no_grad():
        record_calls(mended, x, mend)
    return mended


def _moments(call: Call) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each unit's output, (out,)."""
    z = positions(call.layer, call.output).flatten(0, 1)
    return z.mean(0), z.std(0, correction=0)


def _only_once(call: Call, seen: object) -> str:
    """The name of a layer's weight, where the layer is one of those covered and has not run before."""
    name = parameter_name(call.name, "weight")
    if not isinstance(call.layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
        kind = type(call.layer).__name__
        raise UncoveredError(f"layer {call.name!r} is not covered: {kind}, not Linear or Conv1d/2d")
    if name in seen:  # type: ignore[operator]
        raise UncoveredError(f"layer {call.name!r} runs more than once, so it has no one mean")
    return name


def _bias(name: str, layer: nn.Module) -> tuple[str, Tensor]:
    """A layer's bias, by its name in the model."""
    bias = layer._parameters.get("bias")
    if bias is None:
        raise UncoveredError(f"layer {name!r} has no bias that could take up the mean")
    return parameter_name(name, "bias"), bias


def _layer(weight: str) -> str:
    return weight.rpartition(".")[0]


def _across(layer: nn.Module, output: Tensor) -> list[int]:
    """The shape in which one number a unit stands beside a layer's output."""
    ones = [1] * output.ndim
    ones[1 if isinstance(layer, _ConvNd) else -1] = -1
    return ones


def _alike(model: nn.Module, pruned: nn.Module) -> None:
    """Refuse two networks of other layers."""
    here, there = (_shapes(net) for net in (model, pruned))
    for name in {*here, *there}:
        if here.get(name) != there.get(name):
            raise ValueError(
                f"pruned must be the model with other weights; {name!r} has the shape "
                f"{there.get(name)} there and {here.get(name)} in the model"
            )


def _refuse_shared(model: nn.Module) -> None:
    """Refuse a weight that several layers share: it has no one mean input."""
    places = list(_weights(model))
    for name, w in places:
        if sum(w is other for _, other in places) > 1:
            raise UncoveredError(f"the weight {name!r} is shared, so it cannot serve two means")


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, layer in weighted(model):
        yield parameter_name(name, "weight"), layer.get_parameter("weight")
