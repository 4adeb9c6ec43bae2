"""The loss as a function of the parameters, and what a loss must be for a mean over samples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.nn import functional as f
from torch.nn.functional import cross_entropy

from teachkit.core import checks, door
from teachkit.core.copies import caller, still_copy
from teachkit.core.types import Batch, Loss, Params

FEW = 8  # samples that show what kind of a mean a loss is
SHAPED = (
    *(f.mse_loss, f.l1_loss, f.smooth_l1_loss, f.huber_loss),
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss),
)  # torch spreads what differs in shape over all pairs, with a warning at most


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Lend the model in evaluation mode; modes and buffers are afterwards what they were."""
    modes = [(module, module.training) for module in model.modules()]
    state = [
        (module, key, b, b._version, b.grad_fn, b.detach().clone())
        for module in model.modules()
        for key, b in module._buffers.items()
        if b is not None and not b.is_inference()
    ]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
        for module, key, b, version, graph, before in state:
            module._buffers[key] = b
            if b._version != version:
                with torch.no_grad():
                    (b if b.grad_fn is graph else b.detach_()).copy_(before)


def objective(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy
) -> tuple[Callable[[Params], Tensor], Params]:
    """Return L and θ: the mean loss as a function of the parameters, and the parameters now.

    L(θ) = (1/N) Σₙ ℓ(f_θ(xₙ), yₙ), in evaluation mode. L takes any part of θ; what is left out
    keeps its value. The function is differentiable and works under ``torch.func`` transforms.
    """
    x, y = checks.batch(batch)
    frozen = still_copy(checks.model(model, x))
    params = {name: p.detach() for name, p in frozen.named_parameters()}
    run = caller(frozen, x, model)
    with torch.no_grad():
        refuse_sum(loss, frozen(x[:FEW]), y[:FEW])

    def value(given: Params) -> Tensor:
        return measured(loss, run(given, x), y)

    return value, params


def measured(loss: Loss, output: Tensor, target: Tensor) -> Tensor:
    """The loss, one number, where output and target fit: (n, 1) and (n,) would become n × n numbers."""
    if not isinstance(output, Tensor):
        raise ValueError(f"model must give one tensor, got {type(output).__name__}")
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
    value = loss(output, target.long() if target.dtype == torch.uint8 else target)
    if not isinstance(value, Tensor) or value.ndim:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the loss must give one number, a mean over the samples, got {shape}")
    return value


def refuse_sum(loss: Loss, output: Tensor, target: Tensor) -> None:
    """Raise unless the loss is a mean: on the same samples twice it must give the same number.

    A mean with class weights, or without the labels to ignore, is one: it divides by what it counts.
    """
    if getattr(loss, "reduction", "mean") == "sum":
        raise ValueError(
            f"the loss must be a mean over the samples, got {loss!r} with reduction 'sum'"
        )
    once = measured(loss, output, target).detach()
    both = torch.cat([output, output]), torch.cat([target, target])
    twice = _on_others(lambda: measured(loss, *both), 2 * len(output)).detach()
    if not torch.allclose(once, twice, rtol=_rough(once), atol=1e-6, equal_nan=True):
        raise ValueError(
            "the loss must be a mean over the samples; on the same samples twice it gives "
            f"{float(twice):.4g} instead of {float(once):.4g}"
        )


def _rough(value: Tensor) -> float:
    """How far two means of the same losses may be apart by rounding alone, of which bfloat16 does much."""
    return max(1e-3, 4 * torch.finfo(value.dtype).eps)


def refuse_sum_of(model: nn.Module, batch: Batch, loss: Loss) -> None:
    """:func:`refuse_sum` on what a model puts out."""
    x, y = checks.batch(batch)
    with torch.no_grad(), eval_mode(checks.model(model, x)):
        refuse_sum(loss, model(x), y)


def sample_gradients(loss: Loss, output: Tensor, target: Tensor) -> Tensor:
    """The gradient of each sample's own loss at its output, (n, ...), where their mean is the loss.

    Raises:
        ValueError: the loss is not the plain mean of single samples' losses. A sum is not, nor is a
            mean with class weights or ignored labels, which divides by the weights of the batch. All
            samples are looked at: the loss must be the mean of theirs, and so must its gradient.

    """
    z = output.detach()
    whole, together = grad_and_value(lambda at: measured(loss, at, target))(z)

    def single(at: Tensor, label: Tensor) -> Tensor:
        return measured(loss, at[None], label[None])

    gradients, values = _on_others(lambda: mapped(grad_and_value(single))(z, target), 1)
    if not torch.allclose(together, values.mean(), rtol=_rough(together), atol=1e-6):
        raise ValueError(
            f"the loss must be the mean over the samples: on {len(z)} samples it is "
            f"{float(together):.4g}, the mean of their single losses is {float(values.mean()):.4g}"
        )
    gap = (len(z) * whole - gradients).abs()
    if not float(gap.max()) <= torch.finfo(z.dtype).eps ** 0.5 * float(gradients.abs().max()):
        raise ValueError(
            "the loss must be the mean over the samples: its gradient at the outputs is not the mean "
            f"of theirs, sample {int(gap.reshape(len(z), -1).amax(1).argmax())} has another weight"
        )
    return gradients  # type: ignore[no-any-return]


def mapped(f: Callable[..., Any]) -> Callable[..., Any]:
    """f for many arguments at once, by vmap, or one after the other where vmap cannot run it."""

    def each(*args: Tensor) -> Any:
        try:
            return vmap(f)(*args)
        except RuntimeError:  # a recurrent layer, a buffer written in place, a branch on a number
            parts = [f(*one) for one in zip(*args, strict=True)]
            if isinstance(parts[0], Tensor):
                return torch.stack(parts)
            return tuple(map(torch.stack, zip(*parts, strict=True)))

    return each


def _on_others(compute: Callable[[], Any], n: int) -> Any:
    """What a loss gives on another number of samples than the batch has."""
    try:
        return compute()
    except (RuntimeError, IndexError) as error:
        why = str(error).split("\n")[0]
        raise ValueError(
            f"the loss must take any number of samples, a mean over them; on {n} it raises: {why}"
        ) from error


door.hold(globals())
