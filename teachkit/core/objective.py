"""The loss as a function of the parameters, and what a loss must be for a mean over samples."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as f
from torch.nn.functional import cross_entropy

from teachkit.core import checks, door
from teachkit.core.types import Batch, Loss, Params

FEW = 8  # samples that show what kind of a mean a loss is
SHAPED = (
    *(f.mse_loss, f.l1_loss, f.smooth_l1_loss, f.huber_loss),
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
)  # torch spreads what differs in shape over all pairs, with a warning at most


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Lend the model in evaluation mode; every module gets its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def objective(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy
) -> tuple[Callable[[Params], Tensor], Params]:
    """Return L and θ: the mean loss as a function of the parameters, and the parameters now.

    L(θ) = (1/N) Σₙ ℓ(f_θ(xₙ), yₙ), in evaluation mode. L takes any part of θ; what is left out
    keeps its value. The function is differentiable and works under ``torch.func`` transforms.
    """
    x, y = checks.batch(batch)
    frozen = copy.deepcopy(checks.model(model, x)).eval().requires_grad_(False)
    params = {name: p.detach() for name, p in frozen.named_parameters()}
    with torch.no_grad():
        refuse_sum(loss, frozen(x[:FEW]), y[:FEW])

    def value(given: Params) -> Tensor:
        return measured(loss, functional_call(frozen, given, (x,)), y)

    return value, params


def measured(loss: Loss, output: Tensor, target: Tensor) -> Tensor:
    """The loss, where output and target fit: (n, 1) and (n,) would silently become n × n numbers."""
    shaped = any(loss is each or type(loss) is each for each in SHAPED)
    if shaped and output.shape != target.shape:
        advice = "; give the targets as y[:, None]" if output.shape[1:] == (1,) else ""
        raise ValueError(
            f"the output has shape {tuple(output.shape)} and the targets {tuple(target.shape)}{advice}"
        )
    if output.shape[1:] == (1,) and target.ndim == 1 and target.is_floating_point():
        raise ValueError(
            f"the output has shape {tuple(output.shape)} and the targets {tuple(target.shape)}; "
            "give the targets as y[:, None]"
        )
    return loss(output, target)


def refuse_sum(loss: Loss, output: Tensor, target: Tensor) -> None:
    """Raise unless the loss is a mean: on the same samples twice it must give the same number.

    A mean with class weights, or without the labels to ignore, is one: it divides by what it counts.
    """
    reduction = getattr(loss, "reduction", "mean")
    if reduction == "sum":
        raise ValueError(
            f"the loss must be a mean over the samples, got {loss!r} with reduction 'sum'"
        )
    once = number(loss, output, target)
    twice = number(loss, torch.cat([output, output]), torch.cat([target, target]))
    if not torch.allclose(once, twice, rtol=1e-3, atol=1e-6, equal_nan=True):
        raise ValueError(
            "the loss must be a mean over the samples; on the same samples twice it gives "
            f"{float(twice):.4g} instead of {float(once):.4g}"
        )


def refuse_coupled(loss: Loss, output: Tensor, target: Tensor) -> None:
    """Raise unless the loss is the plain mean of single samples' losses, checked on the first eight.

    A sum is not, nor is a mean with class weights: it divides by the weights of the whole batch.
    """
    z, y = output[:8], target[:8]
    together = number(loss, z, y)
    apart = torch.stack([number(loss, o[None], t[None]) for o, t in zip(z, y, strict=True)])
    if not torch.allclose(together, apart.mean(), rtol=1e-3, atol=1e-6):
        raise ValueError(
            f"the loss must be the mean over the samples: on {len(z)} samples it is "
            f"{float(together):.4g}, the mean of their single losses is {float(apart.mean()):.4g}"
        )


def number(loss: Loss, output: Tensor, target: Tensor) -> Tensor:
    """The loss, if it is one number."""
    value = measured(loss, output, target)
    if not isinstance(value, Tensor) or value.ndim:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the loss must give one number, a mean over the samples, got {shape}")
    return value.detach()


door.hold(globals())
