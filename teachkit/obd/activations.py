"""Activations as stages: the first and second derivative of each."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from teachkit.obd.stages import Stage

Derivatives = tuple[Tensor, Tensor, Tensor | None]


def _relu(module: nn.Module, a: Tensor) -> Derivatives:
    slope = (a > 0).to(a.dtype)
    return a * slope, slope, None


def _leaky(module: nn.Module, a: Tensor) -> Derivatives:
    slope = torch.where(a > 0, 1.0, float(module.negative_slope)).to(a.dtype)  # type: ignore[arg-type]
    return a * slope, slope, None


def _tanh(module: nn.Module, a: Tensor) -> Derivatives:
    z = a.tanh()
    slope = 1 - z * z
    return z, slope, -2 * z * slope


def _sigmoid(module: nn.Module, a: Tensor) -> Derivatives:
    z = a.sigmoid()
    slope = z * (1 - z)
    return z, slope, slope * (1 - 2 * z)


def _derivatives(module: nn.Module, a: Tensor) -> Derivatives:
    """φ, φ′ and φ″ by autograd: each output depends on its own input alone."""
    with torch.enable_grad():
        at = a.detach().requires_grad_()
        z = module(at.clone())  # a copy: the layer may work in place
        (slope,) = torch.autograd.grad(z.sum(), at, create_graph=True)
        (second,) = torch.autograd.grad(slope.sum(), at)
    return z.detach(), slope.detach(), second


DERIVATIVES: dict[type[nn.Module], Callable[[nn.Module, Tensor], Derivatives]] = {
    nn.ReLU: _relu,
    nn.LeakyReLU: _leaky,
    nn.Tanh: _tanh,
    nn.Sigmoid: _sigmoid,
}
SMOOTH = (nn.GELU, nn.Softplus, nn.ELU, nn.SiLU, nn.Mish, nn.CELU, nn.LogSigmoid, nn.Softsign)


class Elementwise(Stage):
    """An activation z = φ(a): J = diag(φ′)."""

    def forward(self, module: nn.Module, a: Tensor) -> Tensor:
        z, self.slope, self.second = DERIVATIVES.get(type(module), _derivatives)(module, a)
        return z

    def pull(self, S: Tensor) -> Tensor:
        return S * self.slope[:, None]

    def pull_diagonal(self, r: Tensor) -> Tensor:
        return r * self.slope**2

    def bend(self, delta: Tensor) -> Tensor | None:
        return None if self.second is None else self.second * delta
