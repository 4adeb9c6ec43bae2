"""A network as a chain of stages: each layer at its input, with its first and second derivatives.

A stage carries *columns* S (n, k, ...), k vectors a sample at its output, back to its input: Jᵀ S,
with J the layer's Jacobian. It carries the diagonal r (n, ...) of a diagonal matrix back as well:
the diagonal of Jᵀ diag(r) J. A stage is *mixing* if that product is not diagonal itself.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp
from torch.nn.functional import unfold
from torch.nn.grad import conv2d_input


class UncoveredError(ValueError):
    """The network or its loss is not a chain of known layers; the message says which part."""


class Stage:
    """One layer at one input; this class is the identity."""

    mixing = False
    weight: Tensor | None = None

    def __init__(self, module: nn.Module, a: Tensor) -> None:
        self.a, self.z = a, self.forward(module, a)

    def forward(self, module: nn.Module, a: Tensor) -> Tensor:
        """The layer's output."""
        return a

    def pull(self, S: Tensor) -> Tensor:
        """Jᵀ S for columns (n, k, ...) at the output."""
        return S

    def pull_diagonal(self, r: Tensor) -> Tensor | None:
        """The diagonal of Jᵀ diag(r) J, (n, ...); None where there is no short way."""
        return r

    def bend(self, delta: Tensor) -> Tensor | None:
        """φ″(a) ⊙ δ, the curvature that the layer itself adds; None where it is piecewise linear."""
        return None


class Reshape(Stage):
    """Flatten."""

    def forward(self, module: nn.Module, a: Tensor) -> Tensor:
        z: Tensor = module(a)
        if z.shape[0] != len(a):
            raise UncoveredError(f"{module} changes the number of samples")
        return z

    def pull(self, S: Tensor) -> Tensor:
        return S.reshape(*S.shape[:2], *self.a.shape[1:])

    def pull_diagonal(self, r: Tensor) -> Tensor:
        return r.reshape(self.a.shape)


class Scale(Stage):
    """Batch normalisation in evaluation mode: z = (a − μ) γ / √(σ² + ε) + β, channel by channel."""

    def forward(self, module: nn.Module, a: Tensor) -> Tensor:
        if module.running_var is None:
            raise UncoveredError(f"{module} has no running statistics: it mixes the samples")
        factor = (module.running_var + module.eps).rsqrt()  # type: ignore[operator]
        shift = -module.running_mean * factor  # type: ignore[operator]
        if module.weight is not None:
            factor, shift = factor * module.weight, shift * module.weight + module.bias  # type: ignore[operator]
        self.factor, shift = (t.detach().reshape(-1, *[1] * (a.ndim - 2)) for t in (factor, shift))
        return a * self.factor + shift

    def pull(self, S: Tensor) -> Tensor:
        return S * self.factor

    def pull_diagonal(self, r: Tensor) -> Tensor:
        return r * self.factor**2


class MaxPool(Stage):
    """Each output is one of the inputs, so that Jᵀ diag(r) J is diagonal."""

    def forward(self, module: nn.Module, a: Tensor) -> Tensor:
        z, self.chosen = nn.functional.max_pool2d_with_indices(
            a,
            module.kernel_size,  # type: ignore[arg-type]
            module.stride,  # type: ignore[arg-type]
            module.padding,  # type: ignore[arg-type]
            module.dilation,  # type: ignore[arg-type]
            module.ceil_mode,  # type: ignore[arg-type]
        )
        return z

    def pull(self, S: Tensor) -> Tensor:
        pixels = self.a.shape[2] * self.a.shape[3]
        at = self.chosen.flatten(2)[:, None].expand(*S.shape[:3], -1)
        spread = S.new_zeros(*S.shape[:3], pixels).scatter_add_(3, at, S.flatten(3))
        return spread.reshape(*S.shape[:2], *self.a.shape[1:])

    def pull_diagonal(self, r: Tensor) -> Tensor:
        return self.pull(r[:, None])[:, 0]


class Mixing(Stage):
    """A linear map, the same for every sample, whose outputs share inputs: average pooling."""

    mixing = True

    def forward(self, module: nn.Module, a: Tensor) -> Tensor:
        self.module = module
        return module(a)  # type: ignore[no-any-return]

    def pull(self, S: Tensor) -> Tensor:
        at = S.new_zeros(S.shape[0] * S.shape[1], *self.a.shape[1:])
        back: Tensor = vjp(self.module, at)[1](S.flatten(0, 1))[0]
        return back.reshape(*S.shape[:2], *self.a.shape[1:])

    def pull_diagonal(self, r: Tensor) -> Tensor | None:
        return None

    def rows(self, start: int, stop: int) -> Tensor:
        """The rows of J of some outputs, as columns (1, k, ...) at the input."""
        shape = self.z.shape[1:]
        unit = torch.eye(shape.numel(), dtype=self.a.dtype, device=self.a.device)[start:stop]
        return self.pull(unit.reshape(1, -1, *shape))


class Weighted(Mixing):
    """A layer with prunable weights: z = W a + b, one row of W an output."""

    weight: Tensor

    def diagonal(self, r: Tensor) -> Tensor:
        """The mean over samples of the curvature of each weight where H_z is diag(r)."""
        raise NotImplementedError


class Linear(Weighted):
    """Fully connected."""

    def forward(self, module: nn.Module, a: Tensor) -> Tensor:
        if a.ndim != 2:
            raise UncoveredError(
                f"{module} gets inputs of shape {tuple(a.shape)}, not (samples, units)"
            )
        self.weight = module.weight.detach()  # type: ignore[operator]
        return module(a)  # type: ignore[no-any-return]

    def diagonal(self, r: Tensor) -> Tensor:
        return r.T @ self.a**2 / len(r)

    def pull(self, S: Tensor) -> Tensor:
        return S @ self.weight

    def pull_diagonal(self, r: Tensor) -> Tensor:
        return r @ self.weight**2

    def rows(self, start: int, stop: int) -> Tensor:
        return self.weight[None, start:stop]


class Conv(Weighted):
    """A two-dimensional convolution; ``patches`` (n, groups, positions, numbers a patch)."""

    def forward(self, module: nn.Module, a: Tensor) -> Tensor:
        if module.padding_mode != "zeros":
            raise UncoveredError(f"{module} pads with {module.padding_mode!r}, not with zeros")
        self.weight, self.groups = module.weight.detach(), int(module.groups)  # type: ignore[operator, arg-type]
        self.options: dict[str, Any] = {
            "stride": module.stride,
            "padding": _padding(module),
            "dilation": module.dilation,
        }
        return module(a)  # type: ignore[no-any-return]

    def patches(self) -> Tensor:
        """The inputs of each output pixel, (n, groups, positions, numbers a patch)."""
        cut = unfold(self.a, self.weight.shape[2:], **self.options)
        return cut.reshape(len(cut), self.groups, -1, cut.shape[-1]).transpose(2, 3)

    def per_weight(self, S: Tensor, patches: Tensor) -> Tensor:
        """Σ over positions of column times patch: (n, k, out, numbers a patch)."""
        n, k = S.shape[:2]
        split = S.reshape(n, k, self.groups, -1, patches.shape[2]).transpose(1, 2).flatten(2, 3)
        found = split @ patches  # (n, groups, k · out/groups, numbers a patch)
        back = found.reshape(n, self.groups, k, -1, found.shape[-1]).transpose(1, 2)
        return back.reshape(n, k, -1, found.shape[-1])

    def diagonal(self, r: Tensor) -> Tensor:
        return self.per_weight(r[:, None], self.patches() ** 2)[:, 0].mean(0)

    def pull(self, S: Tensor) -> Tensor:
        return self._back(S, self.weight)

    def pull_diagonal(self, r: Tensor) -> Tensor:
        return self._back(r[:, None], self.weight**2)[:, 0]

    def _back(self, S: Tensor, weight: Tensor) -> Tensor:
        shape = [S.shape[0] * S.shape[1], *self.a.shape[1:]]
        back = conv2d_input(shape, weight, S.flatten(0, 1), groups=self.groups, **self.options)  # type: ignore[no-untyped-call]
        return back.reshape(*S.shape[:2], *self.a.shape[1:])  # type: ignore[no-any-return]


def _padding(module: nn.Module) -> tuple[int, ...]:
    if not isinstance(module.padding, str):
        return tuple(module.padding)  # type: ignore[arg-type]
    total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]  # type: ignore[arg-type]
    if module.padding == "same" and any(t % 2 for t in total):
        raise UncoveredError(f"{module} pads one side more than the other")
    return tuple(t // 2 if module.padding == "same" else 0 for t in total)
