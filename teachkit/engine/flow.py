"""One pass of a network, kept so that derivatives can be pulled back from the output to each layer.

The curvature engine asks one thing of a network: between its weighted layers, and above the last
one, sample by sample, there must be nothing but operations that are linear in pieces, and
activations φ whose second derivative is known. Then each layer's weights act on the loss through
the layer's outputs z alone, and what is curved on the way up is the loss and φ.

Who checks this is autograd's own graph of the pass: it names every operation that really ran, in
functions and hooks too, whatever the code of the network looks like. A weighted layer or a curved
activation stands for itself and is stepped over; any other operation must be in the tables of
``core.layers``; a weight that something else reads than its layer is found there too. What does not
pass is refused by name (``UncoveredError``), and callers take the slow exact way.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn.modules.batchnorm import _BatchNorm

from teachkit.core import checks, layers
from teachkit.core.copies import still_copy
from teachkit.core.layers import UncoveredError, kind, parameter_name
from teachkit.core.recorder import Call, record_calls
from teachkit.core.types import Batch

PART = 2**22  # bytes that the largest layer of the samples taken at a time may have
ONE_TO_ONE = ("pointwise", "prelu", "norm", "nothing", "flatten")
Node = Any  # torch's type of an operation in autograd's graph


class Layer(NamedTuple):
    """One weighted layer in a pass: the name of its weight, the layer, its input a and output z.

    ``top`` is z or what became of it, number by number, before something else reads it: each entry
    of ``top`` depends on one entry of z, and all else on z through ``top``.
    """

    weight: str
    module: nn.Module
    a: Tensor
    z: Tensor
    top: Tensor

    @property
    def simple(self) -> bool:
        """True for a Linear layer that works at one position a sample: its z is (n, out)."""
        return isinstance(self.module, nn.Linear) and self.z.ndim == 2


class Flow(NamedTuple):
    """A pass: the output, the weighted layers in the order of their calls, the curved activations.

    ``made_by`` gives by the number (``id``) of a tensor the call whose output it is; ``calls`` holds
    the tensors, so that their numbers stay theirs.
    """

    output: Tensor
    layers: list[Layer]
    curved: list[Call]
    made_by: dict[int, Call]
    calls: list[Call]


def prepared(model: nn.Module) -> nn.Module:
    """A copy of a model in evaluation mode in which only the weighted layers' parameters move.

    Raises:
        UncoveredError: a layer of another kind than the tables', one that does more than its class
            says, one that shares its weight, or a normalisation that mixes the samples.

    """
    made = still_copy(model)
    owners: dict[int, str] = {}
    for module in made.modules():
        if hasattr(module, "inplace"):
            setattr(module, "inplace", False)  # noqa: B010 -- so that what a layer put out stays as it was
        if kind(module).curved and layers.does_more(module):
            raise UncoveredError(layers.does_more(module))
        if isinstance(module, _BatchNorm) and module.running_var is None:
            raise UncoveredError(f"{module} has no running statistics: it mixes the samples")
    for name, module in layers.weighted(made):
        _refuse_unknown(module)
        key = parameter_name(name, "weight")
        if owners.setdefault(id(module.weight), key) != key:
            raise UncoveredError(f"two layers share a weight: {owners[id(module.weight)]}, {key}")
        module.requires_grad_(True)
    return made


def run(model: nn.Module, x: Tensor) -> Flow:
    """One pass of a prepared model over a batch.

    Raises:
        UncoveredError: something on the way from a layer to the output is not covered.

    """
    calls: list[Call] = []
    versions: list[int] = []

    def keep(call: Call) -> None:
        calls.append(call)
        versions.append(call.output._version)

    known = [(name, module) for name, module in model.named_modules() if kind(module).role]
    output = record_calls(model, x, keep, known, graph=True)
    if not isinstance(output, Tensor) or len(output) != len(x):
        raise UncoveredError("the output is not one tensor with a row a sample")
    weighted = [call for call in calls if isinstance(call.layer, _weighted_kinds())]
    curved = [call for call in calls if kind(call.layer).curved and call.input.requires_grad]
    for call, version in zip(calls, versions, strict=True):
        if call.output._version != version:
            raise UncoveredError(f"the output of layer {call.name!r} is overwritten in place")
    _refuse_odd_calls(weighted, curved, len(x))
    names = {id(p): name for name, p in model.named_parameters()}
    readers = _check_graph(output, [*weighted, *curved], names)
    made_by = {id(c.output): c for c in calls if c.output is not c.input}
    read_by = {id(c.input): c for c in calls if c.output is not c.input}
    flow = [_layer(call, read_by, readers) for call in weighted]
    return Flow(output, flow, curved, made_by, calls)


def parts(model: nn.Module, batch: Batch) -> Iterator[tuple[Flow, Tensor]]:
    """Passes over a part of the samples at a time, each with its targets; memory stays bounded.

    Raises:
        UncoveredError: see :func:`prepared` and :func:`run`, or an output that depends on another
            sample than its own.

    """
    x, y = checks.batch(batch)
    made = prepared(checks.model(model, x))
    try:
        two = run(made, x[:2] if len(x) > 1 else torch.cat([x, x]))
    except UncoveredError:
        raise
    except Exception as error:  # whatever its code raises on a batch of another size
        why = f"{type(model).__name__} does not run on two samples: {error}".split("\n")[0]
        raise UncoveredError(why) from error
    _refuse_mixing(two)
    size = max(1, PART // _widest(two))
    for some in zip(torch.split(x, size), torch.split(y, size), strict=True):
        yield run(made, some[0]), some[1]


def _refuse_mixing(two: Flow) -> None:
    """Raise where the output of the first of two samples depends on the second."""
    tops = [layer.top for layer in two.layers]
    if not two.output.requires_grad:
        return
    for g in grad(two.output[0].sum(), tops, retain_graph=True, allow_unused=True):
        if g is not None and bool(g[1].any()):
            raise UncoveredError("an output depends on more than its own sample")


def _widest(two: Flow) -> int:
    """The most bytes that one of two samples takes in a layer."""
    sizes = [call.output.numel() for call in two.calls] + [two.output.numel()]
    for layer in two.layers:
        positions = layer.z.numel() // layer.z.shape[1]
        weight: Tensor = layer.module.weight  # type: ignore[assignment]
        patch = 1 if layer.simple else positions * weight[0].numel()
        sizes += [layer.a.numel(), patch, 1 if layer.simple else 2 * weight.numel()]
    return max(sizes) // 2 * two.output.element_size()


def _weighted_kinds() -> tuple[type[nn.Module], ...]:
    return (nn.Linear, nn.modules.conv._ConvNd)


def _refuse_unknown(module: nn.Module) -> None:
    what, why = kind(module), layers.does_more(module)
    if why:
        raise UncoveredError(why)
    if what.role not in ("linear", "conv") or what.dims > 2:
        raise UncoveredError(
            f"{type(module).__name__} is not covered; Linear, Conv1d and Conv2d are"
        )


def _refuse_odd_calls(weighted: list[Call], curved: list[Call], samples: int) -> None:
    names = [call.name for call in weighted]
    for call in (call for call in curved if call.output.shape[:1] != (samples,)):
        raise UncoveredError(f"the activation {call.name!r} does not get a row a sample")
    for call in weighted:
        if names.count(call.name) > 1:
            raise UncoveredError(f"layer {call.name!r} is called {names.count(call.name)} times")
        if call.output.ndim < 2 or len(call.output) != samples:
            raise UncoveredError(
                f"layer {call.name!r} puts out {tuple(call.output.shape)}, not a row a sample"
            )
        if not call.output.requires_grad:
            raise UncoveredError(f"layer {call.name!r} runs without gradients")


def _check_graph(
    output: Tensor, known: list[Call], names: dict[int, str]
) -> dict[Node, list[Node]]:
    """Walk down from the output and refuse what is not covered; who reads each operation's result."""
    steps = {call.output.grad_fn: call for call in known}
    readers: dict[Node, list[Node]] = {}
    todo, done = [output.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in done:
            continue
        done.add(node)
        if node in steps:
            below = [steps[node].input.grad_fn]
        else:
            below = [child for child, _ in node.next_functions if child is not None]
            for leaf in (child for child in below if hasattr(child, "variable")):
                name = names.get(id(leaf.variable))  # type: ignore[union-attr]
                raise UncoveredError(f"the weight {name!r} is read without a call of its layer")
            _refuse_operation(node, below)
        for child in below:
            readers.setdefault(child, []).append(node)
        todo += below
    return readers


def _refuse_operation(node: Node, below: list[Node]) -> None:
    name = node.name().removeprefix("torch::autograd::").rstrip("0123456789")
    operation = name.removesuffix("Backward")
    if operation in layers.PIECEWISE_LINEAR:
        return
    if operation == "Div" and node.next_functions[1][0] is None:
        return  # by a constant
    if operation not in layers.LINEAR_IN_ONE:
        raise UncoveredError(f"the operation {operation} is not covered")
    if len(below) > 1:
        raise UncoveredError(f"the operation {operation} joins two activations")
    if getattr(node, "_saved_training", False):
        raise UncoveredError(f"the operation {operation} normalises with the batch's statistics")


def _layer(call: Call, read_by: dict[int, Call], readers: dict[Node, list[Node]]) -> Layer:
    """The record of a weighted layer; for a simple one z is followed up while it has one reader."""
    top = call.output
    record = Layer(parameter_name(call.name, "weight"), call.layer, call.input, call.output, top)
    while record.simple:
        reader = read_by.get(id(top))
        if reader is None or kind(reader.layer).role not in ONE_TO_ONE:
            break
        if layers.does_more(reader.layer) or readers.get(top.grad_fn) != [reader.output.grad_fn]:
            break
        top = reader.output
    return record._replace(top=top)
