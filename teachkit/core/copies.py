"""Copies of a model that stand on their own, and its weights as arguments.

``copy.deepcopy`` copies modules, but not what a function has closed over: a ``forward`` or a hook that
was made as ``lambda x: linear(x, net.a.weight)`` goes on reading the weights of the first model,
whatever happens to the copy. And ``functional_call`` replaces a parameter in its place in the module
only, not in a list that holds it too. Derivatives would miss what is read there, and a pruned copy
would run with the old weights; so both are found here, and refused by name.
"""

import copy
import dis
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from teachkit.core.layers import UncoveredError, parameter_name
from teachkit.core.reads import Reads
from teachkit.core.types import Params

TORCHS = frozenset(vars(nn.Module()))  # what every module holds; its hooks are looked at by name


def independent_copy(model: nn.Module) -> nn.Module:
    """A deep copy of a model.

    Raises:
        UncoveredError: a forward, a hook or a function that a module holds has closed over a module or
            a parameter of the model; or a module holds a view of a parameter, which torch copies apart.

    >>> net = nn.Linear(1, 1)
    >>> independent_copy(net).weight is net.weight
    False

    """
    own = {_identity(part) for part in (*model.modules(), *model.parameters())}
    for name, module in model.named_modules():
        for what, function in _functions(module):
            if any(_identity(value) in own for value in _reached(function)):
                raise UncoveredError(
                    f"the {what} of {_where(name)} is a function that has closed over a part of the model, "
                    "so that a copy would still read the first one's weights; bind it to the "
                    "module, types.MethodType(function, module), or take the module as an argument"
                )
    _refuse_views(model)
    made = [t for module in model.modules() for t in module._buffers.values() if t is not None]
    # torch copies no tensor that carries a graph, as a buffer does that a forward pass has written
    written = {id(t): t.detach().clone() for t in made if t.grad_fn is not None}
    try:
        return copy.deepcopy(model, written)
    except (RuntimeError, TypeError) as error:
        why = str(error).split("\n")[0]
        raise UncoveredError(f"{type(model).__name__} cannot be copied: {why}") from error


def still_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose parameters record nothing; UncoveredError for a script."""
    refuse_scripts(model)
    return independent_copy(model).eval().requires_grad_(False)


def _identity(part: object) -> int:
    """A tensor is known by its storage, which a view or ``.data`` shares; all else by its id."""
    if isinstance(part, Tensor) and part.layout is torch.strided:
        return int(part.untyped_storage()._cdata)
    return id(part)


def _refuse_views(model: nn.Module) -> None:
    """Refuse a tensor beside the parameters that has one's numbers: its copy would keep the old ones."""
    params = {id(p) for p in model.parameters()}
    storages = {_identity(p): name for name, p in model.named_parameters()}
    for name, module in model.named_modules():
        held = [(key, value) for key, value in vars(module).items() if key not in TORCHS]
        for key, value in (*held, *module._buffers.items()):
            for part in _members(value):
                if id(part) not in params and _identity(part) in storages:
                    raise UncoveredError(
                        f"{key!r} of {_where(name)} holds a view of the weight "
                        f"{storages[_identity(part)]!r}, which would keep the old numbers in a copy; "
                        "take it in the forward"
                    )


def _functions(module: nn.Module) -> Iterator[tuple[str, object]]:
    """What may run when a module is called beside its class's code."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for hook in hooks.values():
            yield "forward hook", hook
    for key, value in vars(module).items():
        if key not in TORCHS:
            for part in _members(value):
                yield "replaced forward" if key == "forward" else f"attribute {key!r}", part


def _reached(held: object) -> Iterator[object]:
    """What a function has closed over: in its cells, its defaults and the globals that it names.

    What a bound method or a partial holds is copied with the model, but for the function inside.
    """
    while isinstance(held, (partial, MethodType)):
        held = held.func if isinstance(held, partial) else held.__func__
    waiting, seen = [held] if isinstance(held, FunctionType) else [], set()
    while waiting:
        function = waiting.pop()
        if id(function) in seen or str(function.__module__).startswith("torch."):
            continue
        seen.add(id(function))
        for value in _closed_over(function):
            yield value
            for inner in _inner(value):
                if isinstance(inner, FunctionType):
                    waiting.append(inner)
                else:
                    yield inner


def _closed_over(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield from _members(cell.cell_contents)
        except ValueError:  # a cell that is still empty
            continue
    for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield from _members(value)
    for name in _globals(function.__code__):
        yield from _members(function.__globals__.get(name))


def _globals(code: CodeType) -> Iterator[str]:
    """The globals that a function names, and those of functions made in it."""
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_GLOBAL":
            yield step.argval
        elif isinstance(step.argval, CodeType):
            yield from _globals(step.argval)


def _inner(value: object) -> Iterator[object]:
    """A function, and what a partial or a bound method of it holds."""
    if isinstance(value, partial):
        yield from (*value.args, *value.keywords.values(), *_inner(value.func))
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, FunctionType):
        yield value


def _members(value: object) -> Iterable[object]:
    """A value, or what a list, a tuple or a dict of them holds."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, (list, tuple)) else (value,)


def refuse_scripts(model: nn.Module) -> None:
    """Refuse what torch.jit has made: its layers are not modules of their classes any more."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UncoveredError(f"{_where(name)} is a script; give the module that it was made of")


def _where(name: str) -> str:
    return f"layer {name!r}" if name else "the model"


def caller(frozen: nn.Module, x: Tensor, model: nn.Module) -> Callable[[Params, Tensor], Any]:
    """(parameters, x) → output of a copy of a model, the parameters by any names it gives them.

    A weight that several modules hold is replaced in all of them, once in each. Each call starts with
    the buffers of the copy, so that one that writes into them leaves nothing behind.

    Raises:
        UncoveredError: a part carries a backward hook, or on a few samples of x a weight is read that
            was not given.

    """
    for name, module in frozen.named_modules():
        if module._backward_hooks or module._backward_pre_hooks:
            raise UncoveredError(
                f"{_where(name)} carries a backward hook, which makes another number of a derivative"
            )
    places = _places(frozen)

    def run(given: Params, at: Tensor) -> Any:
        buffers = {name: b.clone() for name, b in frozen.named_buffers()}
        everywhere = {place: given[name] for name in given for place in places[name]}
        with sdpa_kernel(SDPBackend.MATH):  # the attention that has second derivatives
            return functional_call(frozen, {**buffers, **everywhere}, (at,), tie_weights=False)

    _refuse_hidden(run, frozen, x, model)
    return run


def _places(model: nn.Module) -> dict[str, list[str]]:
    """Each parameter's name, and all that it goes by: once for each module that holds it."""
    names = {id(p): name for name, p in model.named_parameters()}
    places: dict[str, list[str]] = {name: [] for name in names.values()}
    for prefix, module in model.named_modules():
        for key, p in module._parameters.items():
            if p is not None:
                places[names[id(p)]].append(parameter_name(prefix, key))
    return places


@torch.no_grad()
def _refuse_hidden(
    run: Callable[[Params, Tensor], Any], frozen: nn.Module, x: Tensor, model: nn.Module
) -> None:
    """Raise where a weight of the model or its copy is read though another was given."""
    given = {name: p.clone() for name, p in frozen.named_parameters()}
    with Reads((*frozen.named_parameters(), *model.named_parameters())) as reads:
        try:
            run(given, x[:2])
        except Exception:  # whatever its code raises on a batch of another size
            run(given, x)
    for name in sorted(reads.outside):
        raise UncoveredError(
            f"the weight {name!r} is also held by something that is no part of the model's modules, "
            "a list or a function: what is read there has no derivative"
        )
