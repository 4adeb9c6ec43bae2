"""The diagonal of the Hessian by other ways: slow, wrong, historical, and by sampling."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from teachkit import masks
from teachkit.core import checks
from teachkit.core.objective import eval_mode, objective, refuse_sum
from teachkit.core.types import Batch, Loss, Params
from teachkit.obd import losses
from teachkit.obd.chain import chain, forward
from teachkit.obd.stages import UncoveredError, Weighted


def diagonal_naive(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Params:
    """∂²L/∂w_i² for every prunable weight: one backward pass per weight, to read and to check with.

    First all gradients g_i in one pass, then ∂g_i/∂w_i, one pass for each i. For n weights that is
    n + 1 passes; :func:`diagonal` needs the time of about two.
    """
    found: Params = {}
    for name, w, g in _gradients(model, batch, loss):
        h = torch.zeros_like(w)
        for i in range(w.numel()):
            (row,) = torch.autograd.grad(
                g.reshape(-1)[i], w, retain_graph=True, materialize_grads=True
            )
            h.reshape(-1)[i] = row.reshape(-1)[i]
        found[name] = h.detach()
    return found


def row_sums(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Params:
    """Σ_j ∂²L/∂w_i∂w_j over the weights j of the same tensor: the trap, not the diagonal.

    Differentiating the gradient *tensor* in one call differentiates the sum of its entries, so that
    each weight gets the sum of its row of the Hessian. It equals the diagonal only where the
    Hessian of the tensor is diagonal.
    """
    return {
        name: torch.autograd.grad(
            g, w, torch.ones_like(g), retain_graph=True, materialize_grads=True
        )[0].detach()
        for name, w, g in _gradients(model, batch, loss)
    }


def by_products(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    biases: bool = False,
    chunk: int = 32,
    progress: bool = True,
) -> Params:
    """The exact diagonal for any module: h_ii is entry i of H e_i, one product per weight.

    Args:
        model: any module.
        batch: (x, y).
        loss: a mean loss.
        biases: also of the biases.
        chunk: how many products to take at once; more is faster and takes more memory.
        progress: show a progress bar when it takes longer than a few seconds.

    """
    checks.whole("chunk", chunk, 1)
    found: Params = {}
    weights = masks.prunable(model, biases=biases)
    total = sum(w.numel() for w in weights.values())
    with tqdm(total=total, desc="products", disable=not progress, delay=5, leave=False) as bar:
        for name, theta, product in _products(model, batch, loss, biases):
            h = torch.zeros_like(theta).reshape(-1)
            for at in torch.split(torch.arange(theta.numel()), chunk):
                unit = torch.zeros(len(at), theta.numel(), dtype=theta.dtype)
                unit[torch.arange(len(at)), at] = 1
                rows = vmap(product)(unit.reshape(-1, *theta.shape)).reshape(len(at), -1)
                h[at] = rows[torch.arange(len(at)), at]
                bar.update(len(at))
            found[name] = h.reshape(theta.shape)
    return found


class Estimate(NamedTuple):
    """A mean over random directions and its standard error, per weight."""

    mean: Params
    error: Params


def hutchinson(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    directions: int = 100,
    generator: torch.Generator,
) -> Estimate:
    """Estimate the diagonal for any module: E[v ⊙ Hv] with random signs v.

    The standard error is s/√m after m directions; it is as large as the off-diagonal entries of the
    row, √(Σ_{j≠i} h_ij² / m). Each tensor gets directions of its own.
    Source: Hutchinson 1990 (for the trace); Bekas, Kokiopoulou & Saad 2007 (for the diagonal).

    Args:
        model: any module.
        batch: (x, y).
        loss: a mean loss.
        directions: how many, 2 or more.
        generator: a generator of its own.

    """
    checks.whole("directions", directions, 2)
    mean: Params = {}
    error: Params = {}
    for name, theta, product in _products(model, batch, loss, False):
        draws = []
        for _ in range(directions):
            v = torch.randint(0, 2, theta.shape, generator=generator).to(theta.dtype) * 2 - 1
            draws.append(v * product(v))
        stacked = torch.stack(draws)
        mean[name] = stacked.mean(0)
        error[name] = stacked.std(0) / directions**0.5
    return Estimate(mean, error)


def recursion(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Params:
    """LeCun's way: carry only the diagonal back, ∂²ℓ/∂a_j² ≈ Σ_i W_ij² ∂²ℓ/∂z_i².

    Then ∂²ℓ/∂u² = φ′(u)² ∂²ℓ/∂a² + φ″(u) ∂ℓ/∂a, and h_ij = mean of ∂²ℓ/∂z_i² a_j². Exact for the
    last layer; below it the cross terms ∂²ℓ/∂z_i∂z_k are left out.
    Source: LeCun, Denker & Solla, Optimal Brain Damage, 1989, equations 7 to 9.

    Raises:
        UncoveredError: the network is not a chain of known layers; see :func:`diagonal`.

    """
    x, y = checks.batch(batch)
    names = {id(p): name for name, p in checks.model(model, x).named_parameters()}
    layers = chain(model)
    found: Params = {}
    with torch.no_grad():
        run = forward(layers, x)
        end = losses.derivatives(loss, run[-1].z, y)
        delta, r = end.gradient, end.own()
        for stage, layer in zip(reversed(run), reversed(layers), strict=True):
            if isinstance(stage, Weighted):
                found[names[id(layer.weight)]] = stage.diagonal(r).reshape(stage.weight.shape)
            bend, short = stage.bend(delta), stage.pull_diagonal(r)
            if short is None:
                raise UncoveredError(f"{layer} has no short way for a diagonal")
            r = short if bend is None else short + bend
            delta = stage.pull(delta[:, None])[:, 0]
    return {name: found[name] for name in masks.prunable(model)}


def _gradients(
    model: nn.Module, batch: Batch, loss: Loss
) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
    """Each prunable weight with its gradient, which can be differentiated once more."""
    value, params = objective(model, batch, loss)
    leaves = {name: nn.Parameter(params[name]) for name in masks.prunable(model)}
    if not leaves:
        return
    gradients = torch.autograd.grad(
        value(dict(leaves)), list(leaves.values()), create_graph=True, materialize_grads=True
    )
    for (name, w), g in zip(leaves.items(), gradients, strict=True):
        yield name, w, g if g.requires_grad else 0 * w  # a layer that the output does not need


def _products(
    model: nn.Module, batch: Batch, loss: Loss, biases: bool
) -> Iterator[tuple[str, Tensor, Callable[[Tensor], Tensor]]]:
    """Each prunable weight with the function v → Hv of its own block of the Hessian."""
    x, y = checks.batch(batch)
    with torch.no_grad(), eval_mode(checks.model(model, x)):
        refuse_sum(loss, model(x), y)
    value, params = objective(model, batch, loss)
    for name in masks.prunable(model, biases=biases):

        def of_one(p: Tensor, name: str = name) -> Tensor:
            return value({name: p})

        pull = vjp(grad(of_one), params[name])[1]

        def product(v: Tensor, pull: Callable[[Tensor], tuple[Tensor]] = pull) -> Tensor:
            return pull(v)[0]

        yield name, params[name], product
