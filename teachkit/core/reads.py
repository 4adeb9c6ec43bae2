"""Which weights a network really reads, and whether a call of their own layer does so.

Recorders see the calls of layers. A weight can also be read without one: attention hands
``out_proj.weight`` to a function, and ``conv2d(x, self.a.weight)`` asks no layer at all. Below autograd
every operation passes through torch's dispatcher with its tensors, whoever asked for it: Python, a
compiled function or a script, with gradients or without. So that is where reads are seen.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
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
        self._spans = sorted((*_span(t), name) for name, t in tensors if t.numel())
        self._longest = max((end - start for start, end, _ in self._spans), default=0)
        self._calling: list[set[str]] = []
        self._paused = False
        self.outside: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        for t in () if self._paused else _tensors((*args, *(kwargs or {}).values())):
            self.outside.update(self._read(t).difference(*self._calling))
        return func(*args, **(kwargs or {}))

    def _read(self, tensor: Tensor) -> set[str]:
        """The names of the tensors whose numbers this one holds, or some of them, as a view does."""
        start, end = _span(tensor)
        first = bisect_left(self._spans, (start - self._longest,))
        near = self._spans[first : bisect_left(self._spans, (end,), first)]
        return {name for _, until, name in near if until > start}

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
        self._calling.append(self._read(layer.weight))  # type: ignore[arg-type]

    def _leave(self, *_: object) -> None:
        self._calling.pop()


def _span(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor's numbers stand, or would stand: first and last address."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return -id(tensor), -id(tensor) + 1
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    length = (1 + sum((n - 1) * step for n, step in steps)) * tensor.element_size()
    offset = tensor.storage_offset() * tensor.element_size()
    start = tensor.data_ptr() or (tensor.untyped_storage()._cdata << 64) + offset
    return start, start + length


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments, in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
