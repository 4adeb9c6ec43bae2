"""Networks whose weights are made anew in every pass: θ̃ = draw(θ, φ), with θ and φ trained together.

A gate, a noise or a mask with scores of its own is a second set of numbers φ beside the weights θ. Here
the network that is trained is an ordinary module around the ordinary network, so that any training loop
and any optimizer take it: its parameters are ``model.…`` (θ) and ``phi.…`` (φ). What the two make of
each other is a function that the lesson gives. In training mode the weights are drawn, one draw for the
whole batch; in evaluation mode they are settled, the same each time; :meth:`Sampled.bake` writes the
settled ones into an ordinary network, and what is zero there is exactly zero.

Noise on weights can also be drawn for each sample on its own and at almost no cost, where a layer is linear
in its weights: then its outputs are Gaussian, too, and it is they that are drawn (:class:`Local`).

Sources: Kingma, Salimans & Welling, Variational Dropout and the Local Reparameterization Trick, NIPS 2015,
section 2.2; Louizos, Welling & Kingma, Learning Sparse Neural Networks through L0 Regularization, ICLR 2018.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, linear

from teachkit.core import checks
from teachkit.core.copies import independent_copy, still_copy
from teachkit.core.layers import UncoveredError, does_more, kind, parameter_name, weighted
from teachkit.core.objective import measured
from teachkit.core.ranking import keep_top
from teachkit.core.reads import Reads
from teachkit.core.types import Batch, Loss, Masks, Params
from teachkit.core.weights import nonzero, trainable

Make = Callable[[Params, Params], Params]
"""From θ and φ to the weights that the network runs with, those that differ from θ."""
MOST = 8.0
TINY = 1e-8  # under a square root, whose slope at zero is infinite


class Sampled(nn.Module):
    """A network that is trained with weights drawn anew in each pass, and judged with settled ones."""

    def __init__(
        self,
        model: nn.Module,
        phi: Mapping[str, Tensor],
        draw: Make,
        settle: Make,
        ramp: "Ramp | None" = None,
    ) -> None:
        super().__init__()
        self.ramp = ramp or Ramp(0)
        self.model, self.draw, self.settle = independent_copy(model), draw, settle
        self.names = list(phi)
        self.phi = nn.ParameterList(nn.Parameter(each.detach().clone()) for each in phi.values())

    def both(self) -> tuple[Params, Params]:
        """θ and φ by name."""
        return dict(self.model.named_parameters()), dict(zip(self.names, self.phi, strict=True))

    def made(self) -> Params:
        """The weights of one pass, drawn or settled."""
        return (self.draw if self.training else self.settle)(*self.both())

    def bake(self) -> tuple[nn.Module, Masks]:
        """The ordinary network with the settled weights, and the masks of its zeros."""
        model = independent_copy(self.model)
        with torch.no_grad():
            for name, value in self.settle(*self.both()).items():
                model.get_parameter(name).copy_(value)
        return model, nonzero(model)

    def forward(self, x: Tensor) -> Tensor:
        """One pass of the network, with these weights."""
        out: Tensor = functional_call(self.model, self.made(), (x,))
        return out


class Local(Sampled):
    """Gaussian weights, drawn at the outputs of their layers for each sample anew.

    ``draw`` gives the variance of each weight. With means W and variances V a layer's output is
    N(x Wᵀ + b, x² Vᵀ): the layer itself computes the mean.
    """

    def forward(self, x: Tensor) -> Tensor:
        """One pass; in evaluation mode with the settled weights."""
        if not self.training:
            return super().forward(x)
        with blurred(self.model, self.made()):
            out: Tensor = self.model(x)
        return out


@contextmanager
def blurred(model: nn.Module, variances: Params) -> Iterator[None]:
    """While it is entered, the layers of these weights add the noise that the variances make."""
    hooks = []
    try:
        for name, variance in variances.items():
            layer = model.get_submodule(name.rpartition(".")[0])
            hooks.append(layer.register_forward_hook(partial(_blur, variance=variance)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _blur(layer: nn.Module, given: tuple[Tensor, ...], mean: Tensor, *, variance: Tensor) -> Tensor:
    spread = applied(layer, given[0] ** 2, variance)
    return mean + (spread + TINY).sqrt() * torch.randn_like(mean)


def applied(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """What a Linear or Conv layer without bias gives with another weight."""
    if isinstance(layer, nn.Linear):
        return linear(x, weight)
    out: Tensor = layer._conv_forward(x, weight, None)  # type: ignore[operator]
    return out


def as_it_is(theta: Params, phi: Params) -> Params:
    """No weight differs from θ."""
    return {}


def variances(theta: Params, phi: Params) -> Params:
    """σ² where φ is log σ²; beyond e⁸ a weight is noise enough."""
    return {name: v.clamp(max=MOST).exp() for name, v in phi.items()}


def added(theta: Params, phi: Params) -> Params:
    """Each weight plus a number of its own from N(0, σ²), φ = log σ²."""
    each = variances(theta, phi).items()
    return {name: theta[name] + v.sqrt() * torch.randn_like(v) for name, v in each}


def ranked(sparsity: float, ramp: "Ramp", theta: Params, phi: Params) -> Params:
    """The weights of the largest φ; straight through, so that the slope at φ is that at the mask."""
    reached = sparsity * (1 - (1 - ramp.share) ** 3)
    kept = keep_top({name: s.detach() for name, s in phi.items()}, reached)
    return {name: theta[name] * (kept[name] + s - s.detach()) for name, s in phi.items()}


def noise(model: nn.Module, sigma: float, *, shared: bool = True) -> Sampled:
    """A network to be trained with θ̃ = M ⊙ θ, M ~ N(1, σ²) for each weight, drawn anew in every pass.

    In evaluation mode it runs with θ; ``noise(…).model`` is the ordinary network. With σ = 0 it computes what
    the model does. ``shared``: one draw for the whole batch; False draws for each sample, at the outputs of
    the layers, and refuses by name what it cannot do so.
    """
    names = list(trainable(model))
    checks.number("sigma", sigma)
    if shared:
        return Sampled(model, {}, partial(_times, names, sigma), as_it_is)
    refuse_nonlocal(model)
    return Local(model, {}, partial(_spread, names, sigma), as_it_is)


def noise_power(sigma: float, layers: int) -> float:
    """E ‖z̃‖² / ‖z‖² − 1 = (1 + σ²)ᴸ − 1: what noise σ on every weight of L layers adds to the outputs' power.

    To one unit Σ Mᵢ wᵢ aᵢ chance adds σ² Σ wᵢ² aᵢ², and for weights of random sign Σ wᵢ² aᵢ² is what to
    expect of (Σ wᵢ aᵢ)². ReLUs halve both (He et al., ICCV 2015, section 2.2). It holds in the mean
    over new weights.

    >>> noise_power(0.5, 1), noise_power(1.0, 3)
    (0.25, 7.0)
    """
    checks.number("sigma", sigma)
    return float((1 + sigma**2) ** checks.whole("layers", layers) - 1)


def _times(names: list[str], sigma: float, theta: Params, phi: Params) -> Params:
    return {name: theta[name] * (1 + sigma * torch.randn_like(theta[name])) for name in names}


def _spread(names: list[str], sigma: float, theta: Params, phi: Params) -> Params:
    return {name: (sigma * theta[name]) ** 2 for name in names}


def refuse_nonlocal(model: nn.Module, x: Tensor | None = None) -> None:
    """Raise UncoveredError for a weight whose noise cannot be drawn at its layer's outputs."""
    named = {parameter_name(name, "weight"): layer for name, layer in weighted(model)}
    holders = [id(layer.weight) for layer in named.values()]
    free = trainable(model)
    for name, w in free.items():
        layer = named.get(name)
        if layer is None or kind(layer).role not in ("linear", "conv"):
            what = type(model.get_submodule(name.rpartition(".")[0])).__name__
            raise UncoveredError(f"the noise of {name!r} cannot be drawn at the outputs of {what}")
        if does_more(layer):
            raise UncoveredError(f"the layer of {name!r}, {does_more(layer)}")
        if holders.count(id(w)) > 1:
            raise UncoveredError(f"the weight {name!r} belongs to two layers")
    if x is not None:
        _refuse_read_outside(still_copy(model), free, x)


def _refuse_read_outside(frozen: nn.Module, names: Iterable[str], x: Tensor) -> None:
    layers = [frozen.get_submodule(name.rpartition(".")[0]) for name in names]
    with torch.no_grad(), Reads(frozen.named_parameters()) as reads, reads.calls(layers):
        frozen(x[:2])
    for name in names:
        if name in reads.outside:
            raise UncoveredError(f"the weight {name!r} is read outside its layer")


class Ramp:
    """The share of a penalty that counts: from 0 to 1 over so many steps, from then on 1."""

    def __init__(self, steps: float) -> None:
        self.steps, self.at = steps, 0

    @property
    def share(self) -> float:
        """The share now.

        >>> Ramp(4).share, Ramp(0).share
        (0.0, 1.0)
        """
        return min(1.0, self.at / self.steps) if self.steps > 0 else 1.0


def gradient_noise(
    net: Sampled, batch: Batch, draws: int, loss: Loss = cross_entropy
) -> tuple[float, float]:
    """‖E g‖² and E ‖g − E g‖² of the gradient g over θ that one pass gives, estimated from draws.

    The square of a mean of S draws is too large by 1/S of the variance; that is taken off, so that both
    are without bias, and the first can come out below zero.
    """
    checks.whole("draws", draws, 2)
    theta = [p for p in net.model.parameters() if p.requires_grad]
    net.train()
    rows = []
    for _ in range(draws):
        value = measured(loss, net(batch[0]), batch[1])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, theta)]))
    gradients = torch.stack(rows)
    noise = float(gradients.var(0).sum())
    return float((gradients.mean(0) ** 2).sum()) - noise / draws, noise
