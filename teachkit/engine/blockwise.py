"""A network as a chain of blocks, walked through once: the memory is that of one block's inputs.

What reaches the first block is caught once, for all tokens; from then on only the blocks run, each on
what those before it, pruned already, gave. So a layer is pruned on the inputs that it will have, and
its errors are seen by those after it. That a network is such a chain is not believed but tried out: on
one sample each block must run once, in order, on exactly what the block before it gave; and no weight
may be read but by a call of its layer.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.layers import UncoveredError, parameter_name
from teachkit.core.recorder import Call, record_calls
from teachkit.core.weights import prunable
from teachkit.engine.amounts import Pattern
from teachkit.engine.grams import add_gram, square
from teachkit.engine.onelayer import Method, Needs, Task

Layers = dict[str, nn.Linear]
Sums = dict[str, Tensor]


class Part(NamedTuple):
    """Some of the samples on their way: what a block gets first, and whatever else it gets."""

    hidden: Tensor
    rest: tuple[Any, ...]
    named: dict[str, Any]


class Stop(NamedTuple):
    """A block on the way: its number, its Linear layers by their weights' names, a look at their inputs."""

    number: int
    layers: Layers
    look: Callable[[], Sums]


class _CaughtError(Exception):
    """The first block has been reached; the rest of the network need not run."""


def blocks_of(model: nn.Module, path: str | None = None) -> tuple[str, list[nn.Module]]:
    """The blocks, and where they are: the ModuleList or Sequential that holds most weights, or ``path``.

    >>> blocks_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    ('', [Linear(in_features=2, out_features=2, bias=True), ReLU()])
    """
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module)
    }
    if path is None and lists:
        path = max(lists, key=lambda name: sum(p.numel() for p in lists[name].parameters()))
    if path is None or path not in lists:
        there = sorted(lists) or "no ModuleList or Sequential at all"
        raise ValueError(
            f"blocks must name the list of the model's blocks, got {path!r}; there is {there}"
        )
    return path, list(lists[path])


def layers_of(model: nn.Module, path: str | None = None) -> list[Layers]:
    """The Linear layers of each block by their weights' names; a block may have none.

    Raises:
        UncoveredError: a block has a prunable weight that is no Linear layer's, or shares one.

    """
    prefix, blocks = blocks_of(model, path)
    weights, taken, found = prunable(model), set[int](), []
    for number, block in enumerate(blocks):
        own: Layers = {}
        inside = parameter_name(prefix, str(number))
        for name, module in block.named_modules():
            at = ".".join(each for each in (inside, name, "weight") if each)
            if isinstance(module, nn.Linear) and at in weights:
                own[at] = module
        taken |= {id(layer.weight) for layer in own.values()}
        for name, w in weights.items():
            if name.startswith(f"{inside}.") and id(w) not in taken:
                raise UncoveredError(
                    f"the weight {name!r} is not a Linear layer's; only those of a block are pruned"
                )
        found.append(own)
    return found


def try_chain(model: nn.Module, tokens: Tensor, path: str | None = None) -> None:
    """Run one sample, and refuse a network that is no chain of its blocks.

    Raises:
        UncoveredError: a block runs twice, or never, or on something else than what the one before it
            gave; a layer of a block never runs.

    """
    prefix, blocks = blocks_of(model, path)
    names = [parameter_name(prefix, str(i)) for i in range(len(blocks))]
    watched = list(zip(names, blocks, strict=True))
    watched += [(name, layer) for own in layers_of(model, path) for name, layer in own.items()]
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name, _ in watched}

    def see(call: Call) -> None:
        calls[call.name].append((call.input, first(call.output)))

    record_calls(model, tokens[:1], see, watched)
    for name in calls:
        if len(calls[name]) != 1:
            raise UncoveredError(
                f"{name!r} runs {len(calls[name])} times in a pass; it must run once"
            )
    for before, after in pairwise(names):
        if not _same(calls[before][0][1], calls[after][0][0]):
            raise UncoveredError(
                f"what {before!r} gives is not what {after!r} gets; blocks must form a chain"
            )


@torch.no_grad()
def walk(
    model: nn.Module,
    tokens: Tensor,
    needs: Needs,
    *,
    path: str | None = None,
    chunk: int = 8,
) -> Iterator[Stop]:
    """Stop at each block in order; whoever walks may change its weights before going on.

    With "norms" a look gives ‖x_j‖² (in,) of each layer's inputs, with "gram" XᵀX (in, in), float64.
    """
    try_chain(model, tokens, path)
    _, blocks = blocks_of(model, path)
    parts = [] if needs == "nothing" else list(_entering(model, blocks[0], tokens, chunk))
    for number, (block, layers) in enumerate(zip(blocks, layers_of(model, path), strict=True)):
        look = partial(_sums, block, layers, parts, whole=needs == "gram")
        yield Stop(number, layers, look)
        if number + 1 < len(blocks):
            parts = [part._replace(hidden=_through(block, part)) for part in parts]


def prune_block(
    stop: Stop, method: Method, asked: Mapping[str, float | Pattern], damping: float, seed: int
) -> dict[str, Tensor]:
    """New weights of a block's layers by their names, and their masks by the names and ".mask"."""
    sums = {} if method.needs == "nothing" else stop.look()
    made: dict[str, Tensor] = {}
    dice = torch.Generator().manual_seed(seed + stop.number)
    for name, layer in stop.layers.items():
        w = layer.weight.detach().double()
        task = Task(asked[name], method.scope, sums.get(name, w), damping, dice)
        try:
            with torch.autocast(w.device.type, enabled=False):
                moved, mask = method.prune(w, task)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
        made |= {name: moved.to(layer.weight.dtype), f"{name}.mask": mask}
    return made


def first(output: Any) -> Tensor:
    """What a block gives; of several things the first."""
    made = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(made, Tensor):
        raise UncoveredError(f"a block must give a tensor, got {type(made).__name__}")
    return made


def _through(block: nn.Module, part: Part) -> Tensor:
    return first(block(part.hidden, *part.rest, **part.named))


def _entering(model: nn.Module, block: nn.Module, tokens: Tensor, chunk: int) -> Iterator[Part]:
    """What reaches the first block, some samples at a time."""
    device = next(model.parameters()).device
    caught: list[Part] = []

    def catch(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        caught.append(Part(given[0], given[1:], named))
        raise _CaughtError

    hook = block.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        for some in torch.split(tokens, checks.whole("chunk", chunk, 1)):
            try:
                model(some.to(device))
            except _CaughtError:
                yield caught.pop()
    finally:
        hook.remove()


def _sums(block: nn.Module, layers: Layers, parts: list[Part], *, whole: bool) -> Sums:
    """‖x_j‖² or XᵀX of what reaches each layer; layers that read the same tensor share the work."""
    sums = {
        name: square(layer.in_features, layer.weight) if whole
        else torch.zeros(layer.in_features, dtype=torch.float64, device=layer.weight.device)
        for name, layer in layers.items()
    }  # fmt: skip
    leaders: dict[str, str] = {}
    seen: list[tuple[Tensor, str]] = []

    def hook(name: str) -> Callable[..., None]:
        def at_call(_: nn.Module, given: tuple[Any, ...]) -> None:
            x = checks.finite(f"the input of {name!r}", given[0])
            same = next((leader for other, leader in seen if other is x), name)
            if leaders.setdefault(name, same) == name:
                add_gram(sums[name], x)
                seen.append((x, name))

        return at_call

    hooks = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        for part in parts:
            _through(block, part)
            seen.clear()
    finally:
        for each in hooks:
            each.remove()
    return {name: sums[leaders.get(name, name)] for name in sums}


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b))
