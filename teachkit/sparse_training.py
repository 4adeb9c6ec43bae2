"""Training that prunes: change the objective, so that weights become zero while they are trained.

Beside the weights θ a second set of numbers φ is trained: gates, or the size of a noise. The formulas stand
here; networks whose weights are made anew in every pass come from :mod:`teachkit.engine.sampled`, gates of
weights and units from ``gates``, and gradients of what chance does from ``coins``.

Sources: Tibshirani 1996 and Yuan & Lin 2006 (lasso, group lasso); Louizos, Welling & Kingma, ICLR 2018 (L0);
Kingma, Salimans & Welling, NIPS 2015, and Molchanov, Ashukha & Vetrov, ICML 2017 (variational dropout);
Sanh, Wolf & Rush, NeurIPS 2020 (movement pruning); Williams 1992 (score function).
"""

from functools import partial
from math import log
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from teachkit.core import checks, door
from teachkit.core.types import Data, Params
from teachkit.core.weights import trainable
from teachkit.engine import coins, gates, sampled
from teachkit.engine.sampled import Local, Sampled
from teachkit.lab.jointly import Result, jointly

noise, gradient_noise, noise_power = sampled.noise, sampled.gradient_noise, sampled.noise_power
monte_carlo, perturbed = coins.monte_carlo, coins.perturbed
alive, kl_exact, score_function = gates.alive, coins.kl_exact, coins.score_function
straight_through, noise_score = coins.straight_through, coins.noise_score
noise_slope, exact_coins, exact_noise = coins.noise_slope, coins.exact_coins, coins.exact_noise
__all__ = [
    "alive", "exact_coins", "exact_noise", "gradient_noise", "kl_exact", "monte_carlo", "noise",
    "noise_power", "noise_score", "noise_slope", "perturbed", "score_function", "straight_through",
]  # fmt: skip

# --- L1: the absolute value has a kink at zero, and there the solution rests. ---


def soft_threshold(w: Tensor, t: float) -> Tensor:
    """The v with the least ½ (v − w)² + t |v|: sign(w) max(|w| − t, 0).

    Where v > 0 the derivative v − w + t is zero at w − t; for |w| <= t no v ≠ 0 has derivative zero.

    >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1)
    tensor([-2.,  0.,  1.])
    """
    checks.number("t", t)
    return w.sign() * (w.abs() - t).clamp(min=0)


def group_norm(W: Tensor) -> Tensor:
    """√m ‖w_i‖ of each row's m numbers, (rows,); |w| for m = 1."""
    norm: Tensor = torch.linalg.vector_norm(W, dim=1)
    return float(W.shape[1] ** 0.5) * norm


def group_factor(W: Tensor, t: float) -> Tensor:
    """The rows of V with the least ½ ‖V − W‖² + t √m Σ ‖v_i‖ are W's times max(1 − t √m / ‖w_i‖, 0), (rows,).

    The group lasso: m numbers become zero together. For m = 1 it is :func:`soft_threshold`.

    >>> group_factor(torch.tensor([[0.3, 0.4], [6.0, 8.0]]), 5 / 2**0.5).round(decimals=4)
    tensor([0.0000, 0.5000])
    """
    norm, least = group_norm(W), checks.number("t", t) * W.shape[1]
    return ((norm - least).clamp(min=0) / norm).nan_to_num()  # 0 / 0 is 0


# --- L0: a gate for each weight, a coin made so that one can differentiate it. ---

GAMMA, ZETA, BETA = -0.1, 1.1, 2 / 3  # stretched to (γ, ζ), at the temperature β


def gate(log_alpha: Tensor, u: Tensor, beta: float = BETA) -> Tensor:
    """z = min(1, max(0, γ + (ζ − γ) s)), s = σ((log u − log(1 − u) + log α) / β), u uniform in (0, 1).

    Stretched beyond [0, 1] and cut off there, z is exactly 0 or 1 with a chance above zero, and smooth
    in log α between. Louizos et al. 2018, equations 10 and 11.

    >>> gate(torch.zeros(3), torch.tensor([0.01, 0.5, 0.99]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    s = torch.sigmoid((torch.logit(u) + log_alpha) / beta)
    return (GAMMA + (ZETA - GAMMA) * s).clamp(0, 1)


def open_chance(log_alpha: Tensor, beta: float = BETA) -> Tensor:
    """P(z ≠ 0) = σ(log α − β log(−γ / ζ)); its sum is the expected number of gates, E ‖z‖₀ (equation 12).

    >>> open_chance(torch.tensor([0.0])).round(decimals=4)
    tensor([0.8318])
    """
    return torch.sigmoid(log_alpha - beta * log(-GAMMA / ZETA))


def atoms(log_alpha: Tensor, beta: float = BETA) -> tuple[Tensor, Tensor]:
    """P(z = 0) and P(z = 1); the rest lies between, as :func:`density` says."""
    shut = torch.sigmoid(beta * log(-GAMMA / ZETA) - log_alpha)
    return shut, torch.sigmoid(log_alpha - beta * log((1 - GAMMA) / (ZETA - 1)))


def density(z: Tensor, log_alpha: float, beta: float = BETA) -> Tensor:
    """The density of z between its atoms, 0 < z < 1: the logistic one, by the change of variables."""
    s = (z - GAMMA) / (ZETA - GAMMA)
    p = torch.sigmoid(beta * torch.logit(s) - log_alpha)
    return p * (1 - p) * beta / (s * (1 - s) * (ZETA - GAMMA))


def settled_gate(log_alpha: Tensor) -> Tensor:
    """Without chance, for the trained network: min(1, max(0, γ + (ζ − γ) σ(log α))) (equation 13)."""
    return (GAMMA + (ZETA - GAMMA) * torch.sigmoid(log_alpha)).clamp(0, 1)


# --- Variational dropout: w̃ ~ N(w, α w²), each weight with a noise α that the network chooses itself. ---

LIMIT, CUT = 8.0, 3.0  # |log α| is held below the first; from the second on a weight is noise alone


def log_ratio(w: Tensor, log_variance: Tensor) -> Tensor:
    """log α = log σ² − log w², within ±8: trained is σ², which is added, since ε w has a wilder gradient.

    >>> log_ratio(torch.tensor([1.0, 0.0]), torch.tensor([-3.0, 0.0])).round(decimals=4)
    tensor([-3.,  8.])
    """
    return (log_variance - torch.log(w**2 + 1e-8)).clamp(-LIMIT, LIMIT)


def kl(log_alpha: Tensor) -> Tensor:
    """KL from the log-uniform prior, ≈ ½ log(1 + 1/α) + k₁ (1 − σ(k₂ + k₃ log α)); 0 for α = ∞.

    What it costs to be sure of a weight. Molchanov et al. 2017, equation 14; without approximation
    it is :func:`kl_exact`.

    >>> kl(torch.tensor([-2.0, 0.0, 8.0])).round(decimals=3)
    tensor([1.5410, 0.4310, 0.0000])
    """
    k = 0.63576, 1.87320, 1.48695
    return softplus(-log_alpha) / 2 + k[0] * torch.sigmoid(-k[1] - k[2] * log_alpha)


# --- On any network. The options are those of ``lab.jointly``: epochs, warm, finish, … ---


def l1(
    model: nn.Module,
    data: Data,
    strength: float,
    *,
    per: gates.Per = "weight",
    way: Literal["proximal", "subgradient"] = "proximal",
    least: float = 1e-3,
    **options: Any,
) -> Result:
    """Train with strength · Σ √m ‖w‖ over weights (m = 1: |w|) or over all m numbers that go into a unit.

    "proximal": after each step the thresholds rate · strength, which leave exact zeros. "subgradient": the
    penalty is part of the loss; no weight becomes zero, and those whose size is below ``least`` are cut.
    A layer that has lost all its units is a ValueError.
    """
    checks.number("strength", strength)
    x, same = data.train[0][:2], sampled.as_it_is
    wires = gates.wiring(model, x, per)
    options["settle"] = partial(gates.settled, wires, x)
    if way == "proximal":
        options["move"] = lambda net, rate: gates.rescale(
            wires, partial(group_factor, t=rate * strength), net
        )
        return jointly(Sampled(model, {}, same, same), data, **options)
    large = partial(gates.by_rows, wires, lambda W: group_norm(W) >= least * W.shape[1])
    options["penalty"] = lambda net: strength * gates.total_rows(wires, group_norm, net)
    return jointly(Sampled(model, {}, same, large), data, **options)


def l0(
    model: nn.Module,
    data: Data,
    strength: float,
    *,
    per: gates.Per = "weight",
    initial: float = 0.5,
    beta: float = BETA,
    **options: Any,
) -> Result:
    """Train with strength / N · E ‖θ̃‖₀, θ̃ = z ⊙ θ, a hard-concrete gate z for each weight or unit.

    Louizos et al. 2018. ``initial`` is σ(log α) of every gate at the start, 1 − their dropout rate.
    A layer that has lost all its units is a ValueError.
    """
    checks.number("strength", strength)
    if not 0 < initial < 1 or not beta > 0:
        raise ValueError(f"needs 0 < initial < 1 and beta > 0, got initial={initial}, beta={beta}")
    x, λ = data.train[0][:2], strength / len(data.train[0])
    wires = gates.wiring(model, x, per)
    start = gates.row(wires, model, log(initial / (1 - initial)))
    draw = partial(gates.by_gates, wires, lambda a: gate(a, torch.rand_like(a), beta))
    net = Sampled(model, start, draw, partial(gates.by_gates, wires, settled_gate))
    options["penalty"] = lambda net: (
        λ * gates.total_gates(wires, partial(open_chance, beta=beta), net)
    )
    return jointly(net, data, settle=partial(gates.settled, wires, x), **options)


def variational_dropout(
    model: nn.Module,
    data: Data,
    strength: float = 1.0,
    *,
    local: bool = True,
    log_variance: float = -10.0,
    **options: Any,
) -> Result:
    """Train with strength / N · KL, w̃ ~ N(w, σ²); zero is what ends with log α = log σ²/w² above 3.

    Molchanov et al. 2017. ``local`` draws the noise at the outputs of the layers, for each sample anew;
    ``log_variance`` is log σ² at the start. With strength 1 the objective is a bound of the evidence.
    """
    λ = checks.number("strength", strength) / len(data.train[0])
    if local:
        sampled.refuse_nonlocal(model, data.train[0])
    weights = trainable(model).items()
    start = {name: torch.full_like(w.detach(), log_variance) for name, w in weights}
    kind, draw = (Local, sampled.variances) if local else (Sampled, sampled.added)
    options = {"phi_rate": 1e-3, "penalty": lambda net: λ * _divergence(net), **options}
    return jointly(kind(model, start, draw, _sure), data, **options)


def _sure(theta: Params, phi: Params) -> Params:
    return {name: theta[name] * (log_ratio(theta[name], v) < CUT) for name, v in phi.items()}


def _divergence(net: Sampled) -> Tensor:
    theta, phi = net.both()
    return torch.stack([kl(log_ratio(theta[name], v)).sum() for name, v in phi.items()]).sum()


def movement(model: nn.Module, data: Data, sparsity: float, **options: Any) -> Result:
    """Keep the weights of largest scores S, trained by ∂L/∂S = w ∂L/∂w̃: what moves away from zero stays.

    Sanh, Wolf & Rush 2020. The choice of the largest has no derivative; straight through, its mask counts as
    S. The sparsity rises with a cubic over ``warm`` of the first phase.
    """
    checks.fraction("sparsity", sparsity)
    start = {name: torch.zeros_like(w) for name, w in trainable(model).items()}
    ramp = sampled.Ramp(0)
    draw = partial(sampled.ranked, sparsity, ramp)
    return jointly(Sampled(model, start, draw, draw, ramp), data, **({"warm": 0.7} | options))


door.hold(globals())
