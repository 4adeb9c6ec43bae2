"""Gradients of an expectation, one draw at a time: of coins that cannot be differentiated, and of noise.

The objective is E f(m), the mean of a loss over what chance does to a network. Each estimator looks at one
draw and says a gradient; it is without bias where the mean over all draws is the gradient of the
expectation. Its variance decides how many draws one needs. With few coins the expectation and its gradient
are sums over all outcomes (:func:`exact_coins`), with Gaussian noise on few weights an integral that
Gauss and Hermite solve (:func:`exact_noise`): the estimators are held against these.

All estimators take many draws at once, (n, k), and give a gradient for each: f is called with (n, k) and
gives (n,), each row its own number.

Sources: Williams, Simple Statistical Gradient-Following Algorithms, Machine Learning 1992 (REINFORCE);
Bengio, Léonard & Courville, Estimating or Propagating Gradients Through Stochastic Neurons, 2013 (straight
through); Kingma & Welling, Auto-Encoding Variational Bayes, ICLR 2014 (reparametrised).
"""

from collections.abc import Callable
from itertools import product
from math import exp, log
from statistics import fmean, stdev

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks
from teachkit.core.copies import independent_copy
from teachkit.core.objective import measured, refuse_sum_of
from teachkit.core.types import Batch, Loss
from teachkit.core.weights import trainable

Function = Callable[[Tensor], Tensor]
MOST = 12  # coins whose 2ᵏ outcomes are gone through, or weights at whose nodes f is asked
NODES = 24


def outcomes(k: int, device: torch.device | str = "cpu") -> Tensor:
    """All 2ᵏ outcomes of k coins, (2ᵏ, k).

    >>> outcomes(2).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    checks.whole("k", k, 1, MOST)
    kind = torch.get_default_dtype()
    return torch.tensor(list(product((0.0, 1.0), repeat=k)), dtype=kind, device=device)


def chance(m: Tensor, phi: Tensor) -> Tensor:
    """P(m) of coins that show 1 with the probability σ(φ), (n,).

    >>> chance(torch.tensor([[1.0, 0.0]]), torch.zeros(2))
    tensor([0.2500])
    """
    p = torch.sigmoid(phi)
    return torch.where(m > 0, p, 1 - p).prod(-1)


def exact_coins(f: Function, phi: Tensor) -> tuple[Tensor, Tensor]:
    """E f(m) over all outcomes, and its gradient at φ.

    >>> exact_coins(lambda m: m[:, 0], torch.zeros(1))
    (tensor(0.5000), tensor([0.2500]))
    """
    at = phi.detach().requires_grad_()
    m = outcomes(len(phi), phi.device).to(phi.dtype)
    value = (chance(m, at) * asked(f, m).detach()).sum()
    return value.detach(), torch.autograd.grad(value, at)[0]


def score_function(f: Function, phi: Tensor, m: Tensor, baseline: float = 0.0) -> Tensor:
    """(f(m) − b) ∂ log P(m)/∂φ = (f(m) − b)(m − σ(φ)): asks for no derivative of f (REINFORCE).

    >>> score_function(lambda m: m[:, 0], torch.zeros(1), torch.tensor([[1.0]]))
    tensor([[0.5000]])
    """
    return (asked(f, m).detach() - baseline)[:, None] * (m - torch.sigmoid(phi.detach()))


def straight_through(f: Function, phi: Tensor, m: Tensor) -> Tensor:
    """∂f/∂m at the coin as it fell, as if the coin were its probability: times σ′(φ). It has a bias.

    >>> straight_through(lambda m: m[:, 0] ** 2, torch.zeros(1), torch.tensor([[1.0]]))
    tensor([[0.5000]])
    """
    p = torch.sigmoid(phi.detach())
    return slopes(f, m) * p * (1 - p)


def asked(f: Function, rows: Tensor) -> Tensor:
    """f of each row, refused where it is not one number a row."""
    values = f(rows)
    if not isinstance(values, Tensor) or values.shape != rows.shape[:1]:
        got = tuple(values.shape) if isinstance(values, Tensor) else repr(values)[:40]
        raise ValueError(f"f must give one number for each of {len(rows)} rows, got {got}")
    return values


def slopes(f: Function, at: Tensor) -> Tensor:
    """∂f/∂m of each row."""
    where = at.detach().requires_grad_()
    return torch.autograd.grad(asked(f, where).sum(), where)[0]


def noise_score(f: Function, w: Tensor, sigma: float, eps: Tensor, baseline: float = 0.0) -> Tensor:
    """(f(w̃) − b) ∂ log N(w̃; w, σ²w²)/∂w = (f(w̃) − b)(ε/σ + ε² − 1)/w, with w̃ = w (1 + σ ε)."""
    lead = (asked(f, w * (1 + sigma * eps)).detach() - baseline)[:, None]
    return lead * (eps / sigma + eps**2 - 1) / w


def noise_slope(f: Function, w: Tensor, sigma: float, eps: Tensor) -> Tensor:
    """∂f/∂w̃ · ∂w̃/∂w = f′(w̃)(1 + σ ε): the noise is a constant, the weight is moved (reparametrised)."""
    return slopes(f, w * (1 + sigma * eps)) * (1 + sigma * eps)


def exact_noise(f: Function, w: Tensor, sigma: float, nodes: int = NODES) -> tuple[Tensor, Tensor]:
    """E f(w (1 + σ ε)) by the rule of Gauss and Hermite with so many nodes a weight, and its gradient."""
    checks.whole("the weights' number", len(w), 1, 4)
    at, weights = np.polynomial.hermite_e.hermegauss(nodes)
    grid = torch.tensor(list(product(at, repeat=len(w))), dtype=w.dtype, device=w.device)
    share = torch.tensor(list(product(weights, repeat=len(w))), dtype=w.dtype, device=w.device)
    p = share.prod(1) / share.prod(1).sum()
    where = w.detach().requires_grad_()
    value = (p * asked(f, where * (1 + sigma * grid))).sum()
    return value.detach(), torch.autograd.grad(value, where)[0]


def kl_exact(log_alpha: float) -> float:
    """KL from the log-uniform prior to N(w, α w²) without approximation, 0 for α = ∞.

    It is E log|ε| − ½ log α and a constant, ε ~ N(1, α). Now ε²/α is a χ² whose degrees of freedom are
    1 + 2J, J of a Poisson distribution with the mean 1/(2α), and E log χ² with d of them is ψ(d/2) + log 2.
    So KL = ½ E(ψ(½ + J) − ψ(½)) = E Σ_{i<J} 1/(2i + 1): no special function is left.

    >>> round(kl_exact(0.0), 4)
    0.4267
    """
    checks.number("log_alpha", log_alpha, -12)
    mean = 0.5 * exp(-log_alpha)
    j = torch.arange(int(mean + 12 * mean**0.5 + 30), device="cpu").double()
    chance = (j * log(mean) - mean - torch.lgamma(j + 1)).exp()
    return float((chance[1:] * (1 / (2 * j[:-1] + 1)).cumsum(0)).sum())


def perturbed(
    model: nn.Module, sigma: float, generator: torch.Generator | None = None
) -> nn.Module:
    """One ordinary network of the many M ⊙ θ; without a generator the same one each time."""
    drawn, dice = independent_copy(model), checks.dice(generator)
    checks.number("sigma", sigma)
    for w in trainable(drawn).values():
        eps = torch.randn(w.shape, generator=dice, dtype=w.dtype, device=dice.device)
        w.data *= 1 + sigma * eps.to(w.device)
    return drawn


def monte_carlo(
    model: nn.Module,
    batch: Batch,
    sigma: float,
    samples: int = 100,
    loss: Loss = cross_entropy,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """E L(M ⊙ θ), M ~ N(1, σ²): the mean of so many draws, and the standard error of that mean."""
    dice, count = checks.dice(generator), checks.whole("samples", samples, 2)
    refuse_sum_of(model, batch, loss)
    values = []
    for _ in range(count):
        drawn = perturbed(model, sigma, dice).eval()
        with torch.no_grad():
            values.append(float(measured(loss, drawn(batch[0]), batch[1])))
    return fmean(values), stdev(values) / count**0.5
