"""Gradients sample by sample, and the diagonal of the Fisher matrix without storing them."""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy, unfold
from torch.utils.hooks import RemovableHandle

from teachkit import masks
from teachkit.core import checks
from teachkit.core.layers import weighted
from teachkit.core.objective import objective
from teachkit.core.types import Batch, Loss, Params, Scores
from teachkit.fisher.distributions import Kind, output_gradients
from teachkit.lab import curves

STORE_LIMIT = 4e9  # bytes of gradients kept at once
CHUNK = 2**23  # numbers of gradients in work at once: 64 MB in float64


def gradients(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    kind: Kind = "empirical",
    generator: torch.Generator | None = None,
) -> Tensor:
    """G, one gradient of the loss per row, (m, n), so that the Fisher matrix is F = GᵀG / m.

    The columns run over the prunable weights in order, each flattened. Evaluation mode.

    Args:
        model: any module whose samples do not mix.
        batch: (x, y) with N samples.
        loss: a mean loss.
        kind: "empirical" takes the gradients at the labels y, m = N; "sampled" at one label per
            sample drawn from the model, m = N; "true" weighs the gradients at every label by its
            probability under the model, m = K·N with K the number of classes or outputs.
        generator: draws the labels where kind is "sampled".

    Raises:
        ValueError: more than 4 GB to store, a loss that is not a mean, or a loss whose labels
            cannot be drawn.

    >>> from teachkit.lab import data, models
    >>> part = tuple(each[:5] for each in data.digits().train)
    >>> tuple(gradients(models.mlp(), part).shape)
    (5, 6464)

    """
    parts = list(gradient_chunks(model, batch, loss, kind=kind, generator=generator, store=True))
    return torch.cat(parts)


def gradient_chunks(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    kind: Kind = "empirical",
    generator: torch.Generator | None = None,
    store: bool = False,
) -> Iterator[Tensor]:
    """The rows of :func:`gradients` a few at a time, at most 64 MB."""
    x, y = checks.batch(batch)
    _, params = objective(model, batch, loss)
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    weights = {name: params[name] for name in masks.prunable(model)}
    n = sum(w.numel() for w in weights.values())
    if not n:
        raise ValueError("the model has no prunable weight")
    s = output_gradients(frozen(x), y, loss, kind, generator)
    size = s.shape[0] * s.shape[1] * n * x.element_size()
    if store and size > STORE_LIMIT:
        raise ValueError(
            f"{s.shape[0] * s.shape[1]} gradients of {n} weights take {size / 1e9:.1f} GB, more than "
            f"{STORE_LIMIT / 1e9:.0f} GB; use fewer samples"
        )

    def row(at: Tensor, toward: Tensor) -> Tensor:
        found = grad(lambda w: (functional_call(frozen, w, (at[None],))[0] * toward).sum())(weights)
        return torch.cat([found[name].reshape(-1) for name in weights])

    rows = max(1, CHUNK // n)
    for each in s:
        for i in range(0, len(x), rows):
            yield vmap(row)(x[i : i + rows], each[i : i + rows])


def diagonal(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    kind: Kind = "empirical",
    generator: torch.Generator | None = None,
) -> Params:
    """The diagonal of the Fisher matrix, f_i = (1/N) Σ_n E g_ni², one tensor per prunable weight.

    In a Linear layer the gradient of a sample is δ aᵀ, with δ the gradient at the layer's output
    and a its input, so the mean of its square is one product of matrices, (δ²)ᵀ a² / N, and no
    gradient of a single sample is stored. Layers with several positions per sample (convolutions)
    add them up first. Other layers go through :func:`gradient_chunks`.

    Args:
        model: any module whose samples do not mix.
        batch: (x, y).
        loss: a mean loss.
        kind: "empirical", "true" or "sampled", see :func:`gradients`.
        generator: draws the labels where kind is "sampled".

    >>> net, point = nn.Linear(1, 2, bias=False), (torch.ones(1, 1), torch.tensor([0]))
    >>> _ = net.weight.data.zero_()  # p = (½, ½), g = (−½, ½)
    >>> diagonal(net, point)["weight"].T
    tensor([[0.2500, 0.2500]])

    """
    x, y = checks.batch(batch)
    weights = masks.prunable(checks.model(model, x))
    found = _by_layers(model, (x, y), loss, kind, generator)
    if found is None:
        parts = gradient_chunks(model, batch, loss, kind=kind, generator=generator)
        sums = [((G * G).sum(0), len(G)) for G in parts]
        rows = sum(m for _, m in sums)
        return masks.split(torch.stack([total for total, _ in sums]).sum(0) / rows, weights)
    return {name: found[name].reshape(w.shape) for name, w in weights.items()}


def scores(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    kind: Kind = "empirical",
    generator: torch.Generator | None = None,
) -> Scores:
    """½ f_i w_i²: the saliency of Optimal Brain Damage with the Fisher diagonal for the Hessian's.

    Source: LeCun, Denker & Solla 1989 for the saliency; Theis et al., Faster gaze prediction with
    dense networks and Fisher pruning, 2018, for f.
    """
    f = diagonal(model, batch, loss, kind=kind, generator=generator)
    return {name: 0.5 * f[name] * w.detach() ** 2 for name, w in masks.prunable(model).items()}


class Agreement(NamedTuple):
    """How an estimate compares with the exact values: Σ estimate / Σ exact, and Spearman's correlation.

    A perfect scale is 1; a perfect order is 1 as well, whatever the scale.
    """

    scale: float
    order: float


def agreement(estimate: Params, exact: Params) -> Agreement:
    """Compare two dicts of tensors with the same keys and shapes, all entries together.

    >>> agreement({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([2.0, 4.0])})
    Agreement(scale=0.5, order=1.0)
    """
    checks.entries("estimate", estimate, exact)
    found, true = (torch.cat([given[n].reshape(-1) for n in exact]) for given in (estimate, exact))
    order = round(curves.spearman(found.numpy(), true.numpy()), 12)
    return Agreement(float(found.sum() / true.sum()), order)


class _Seen:
    """What a layer was given and what it gave, in one forward pass."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.calls = module, 0
        self.input = self.output = torch.empty(0)

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self.calls += 1
        self.input, self.output = given[0].detach().clone(), output
        return output.clone()  # what follows may write into it


def _by_layers(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    kind: Kind,
    generator: torch.Generator | None,
) -> Params | None:
    """The diagonal from inputs and output gradients of the layers; None where that is not enough."""
    working = copy.deepcopy(model).eval().requires_grad_(True)
    seen = {_key(name): _Seen(module) for name, module in weighted(working)}
    if set(seen) != set(masks.prunable(working)) or not all(map(_is_covered, seen.values())):
        return None
    hooks: list[RemovableHandle] = [s.module.register_forward_hook(s) for s in seen.values()]
    output = working(batch[0])
    for hook in hooks:
        hook.remove()
    if not seen:
        return {}
    if any(s.calls > 1 or (s.calls and s.input.ndim < 2) for s in seen.values()):
        return None
    toward = output_gradients(output.detach(), batch[1], loss, kind, generator)
    used = {name: s for name, s in seen.items() if s.calls}
    total = {name: torch.zeros_like(s.module.weight) for name, s in seen.items()}  # type: ignore[arg-type]
    for s in toward:
        back = torch.autograd.grad(
            (output * s).sum(),
            [u.output for u in used.values()],
            retain_graph=True,
            materialize_grads=True,
        )
        for (name, u), delta in zip(used.items(), back, strict=True):
            total[name] += _squares(u.module, u.input, delta).reshape(total[name].shape)
    return {name: t.detach() / (len(toward) * len(batch[0])) for name, t in total.items()}


def _key(layer: str) -> str:
    return f"{layer}.weight" if layer else "weight"


def _is_covered(seen: _Seen) -> bool:
    """Linear layers, and two-dimensional convolutions in one group with zeros around."""
    module = seen.module
    plain = isinstance(module, nn.Conv2d) and module.groups == 1
    return isinstance(module, nn.Linear) or (
        plain and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    )


def _squares(module: nn.Module, a: Tensor, delta: Tensor) -> Tensor:
    """Σ_n g_n² of a layer's weight, (outputs, inputs), from its input a and output gradient δ."""
    if isinstance(module, nn.Conv2d):
        a = unfold(a, module.kernel_size, module.dilation, module.padding, module.stride)  # type: ignore[arg-type]
        a, delta = a.transpose(1, 2), delta.flatten(2).transpose(1, 2)
    if a.ndim == 2:
        return _linear_squares(a, delta)
    a, delta = a.flatten(1, -2), delta.flatten(1, -2)  # (N, positions, inputs or outputs)
    rows = max(1, CHUNK // (a.shape[2] * delta.shape[2]))
    parts = zip(torch.split(delta, rows), torch.split(a, rows), strict=True)
    return torch.stack([((d.mT @ b) ** 2).sum(0) for d, b in parts]).sum(0)


def _linear_squares(a: Tensor, delta: Tensor) -> Tensor:
    """Σ_n (δ_n a_nᵀ)² for inputs a (N, inputs) and output gradients δ (N, outputs)."""
    return (delta * delta).T @ (a * a)
