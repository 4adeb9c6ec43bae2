"""Which weights a network really reads, and whether a call of their own layer does so.

Recorders see the calls of layers. A weight can also be read without one: attention hands
``out_proj.weight`` to a function, and ``conv2d(x, self.a.weight)`` asks no layer at all. Below autograd
every operation passes through torch's dispatcher with its tensors, whoever asked for it: Python, a
compiled function or a script, with gradients or without. So that is where reads are seen.
"""

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, collects in ``outside`` the names of tensors that an operation reads.

    Inside :meth:`calls`, a layer may read its own weight.

    >>> w = torch.ones(2)
    >>> with Reads([("w", w)]) as reads:
    ...     _ = w.shape, torch.zeros(2)
    ...     inside = set(reads.outside)
    ...     _ = w + 1
    >>> inside, reads.outside
    (set(), {'w'})
    """

    def __init__(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {_place(t): name for name, t in tensors if t.numel()}
        self._calling: list[Hashable] = []
        self._paused = False
        self.outside: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        for t in () if self._paused else _tensors((*args, *(kwargs or {}).values())):
            place = _place(t)
            if place in self._names and place not in self._calling:
                self.outside.add(self._names[place])
        return func(*args, **(kwargs or {}))

    @contextmanager
    def calls(self, layers: Iterable[nn.Module]) -> Iterator[None]:
        """While it is entered, what a call of one of these layers does with its own weight is inside."""
        hooks = []
        try:
            for layer in layers:
                hooks.append(layer.register_forward_pre_hook(self._enter))
                hooks.append(layer.register_forward_hook(self._leave, prepend=True))
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While it is entered, nothing is collected."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def _enter(self, layer: nn.Module, *_: object) -> None:
        self._calling.append(_place(layer.weight))  # type: ignore[arg-type]

    def _leave(self, *_: object) -> None:
        self._calling.pop()


def _place(tensor: Tensor) -> Hashable:
    """Where a tensor's numbers stand, or would stand: the same for a weight and its ``.data``."""
    if tensor.layout is not torch.strided:
        return id(tensor)
    return tensor.data_ptr() or (tensor.untyped_storage()._cdata, tensor.storage_offset())


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments, in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
