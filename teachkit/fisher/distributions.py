"""What a loss says of the labels: the model's own distribution, and the gradients it gives.

A loss that is −log p(y | x) comes with a distribution p over labels y. The Fisher matrix is an
average of gradients under it, and all its kinds differ in the labels they take.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from teachkit.core.objective import refuse_coupled
from teachkit.core.types import Loss
from teachkit.obd.losses import MODULES, PLAIN

Kind = Literal["empirical", "true", "sampled"]
NAMES = ("cross_entropy", "mse_loss", "binary_cross_entropy_with_logits (one output)")


def output_gradients(
    output: Tensor, y: Tensor, loss: Loss, kind: Kind, generator: torch.Generator | None = None
) -> Tensor:
    """K gradients of the loss with respect to each sample's output, shape (K, N, ...).

    "empirical": at the labels y, K = 1. "sampled": at one label per sample drawn from the model,
    K = 1. "true": such that (1/K) Σ_k s_k s_kᵀ is the expectation over the model's labels; K is
    the number of outputs C. For cross-entropy s_c = √(C p_c) (p − e_c), one per class; for the mean
    squared error, −log of a Gaussian of variance C/2, s_c = √2 e_c.

    Args:
        output: (N, C), the model's outputs.
        y: (N, ...), the labels.
        loss: a mean loss.
        kind: which labels.
        generator: draws the labels where kind is "sampled".

    Raises:
        ValueError: an unknown kind, a loss whose distribution is not known, or one that is not the
            mean over the samples.

    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {get_args(Kind)}, got {kind!r}")
    loss = _plain(loss)
    if kind == "true":
        return _expected(output, loss)
    labels = y if kind == "empirical" else drawn(output, loss, generator)
    found: Tensor = vmap(grad(_single(loss)))(output, labels)
    if kind == "empirical":
        refuse_coupled(loss, output, y)
    return found[None]


def drawn(output: Tensor, loss: Loss, generator: torch.Generator | None) -> Tensor:
    """One label per sample from the model's own distribution.

    >>> dice = torch.Generator().manual_seed(0)
    >>> drawn(torch.tensor([[9.0, -9.0], [-9.0, 9.0]]), cross_entropy, dice)
    tensor([0, 1])
    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"sampled labels need a torch.Generator, got {type(generator).__name__}")
    loss = _plain(loss)
    _refuse_unknown(output, loss)
    if loss is cross_entropy:
        return torch.multinomial(output.softmax(1), 1, generator=generator)[:, 0]
    if loss is mse_loss:
        noise = torch.randn(output.shape, generator=generator, dtype=output.dtype)
        spread: float = (output[0].numel() / 2) ** 0.5
        return output + spread * noise
    return torch.bernoulli(output.sigmoid(), generator=generator)


def _expected(output: Tensor, loss: Loss) -> Tensor:
    _refuse_unknown(output, loss)
    if loss is cross_entropy:
        p = output.softmax(1)
        classes = torch.eye(p.shape[1], dtype=p.dtype)
        return (p.shape[1] * p.T).sqrt()[..., None] * (p - classes[:, None])
    if loss is mse_loss:
        ones = torch.eye(output[0].numel(), dtype=output.dtype).reshape(-1, 1, *output.shape[1:])
        return (2**0.5 * ones).expand(-1, *output.shape)
    spread: Tensor = (output.sigmoid() * (-output).sigmoid()).sqrt()
    return spread[None]


def _plain(loss: Loss) -> Loss:
    """The function behind a loss module without options, e.g. ``nn.CrossEntropyLoss()``."""
    options = {name: getattr(loss, name, plain) for name, plain in PLAIN.items()}
    module = isinstance(loss, nn.Module) and options == PLAIN
    return MODULES.get(type(loss), loss) if module else loss  # type: ignore[arg-type]


def _single(loss: Loss) -> Loss:
    """The loss of one sample, (C,) and its label."""
    return lambda z, label: loss(z[None], label[None])


def _refuse_unknown(output: Tensor, loss: Loss) -> None:
    """The model's labels are known for three losses."""
    known = (
        (loss is cross_entropy and output.ndim == 2)
        or loss is mse_loss
        or (loss is binary_cross_entropy_with_logits and output[0].numel() == 1)
    )
    if not known:
        name = getattr(loss, "__name__", repr(loss))
        raise ValueError(
            f"the model's distribution of labels is known for {', '.join(NAMES)}, got {name} with "
            f'outputs of shape {tuple(output.shape)}; kind="empirical" takes any mean loss'
        )
