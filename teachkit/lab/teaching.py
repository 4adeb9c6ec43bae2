"""Train a network on what another one says: soft targets, at a temperature.

The teacher's answer to an image is a row of logits v. Softened, softmax(v / T), it also says which wrong
classes are nearly right, and that is what a small network learns from (Hinton, Vinyals & Dean, Distilling
the Knowledge in a Neural Network, 2015). The loss has T² in front, since the gradient of the soft part
falls with 1 / T²: so the share of soft and hard targets means the same at every temperature. Soft targets at
a high temperature take many more epochs than labels (Beyer et al., CVPR 2022); the saved tables show it.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from teachkit.core import checks, door
from teachkit.core.copies import still_copy
from teachkit.core.types import Data, Loss
from teachkit.lab.evaluation import evaluate
from teachkit.lab.training import History, fit

CHUNK = 1000  # samples that the teacher looks at together


def soft_loss(temperature: float = 4.0, share: float = 0.9) -> Loss:
    """share · T² KL(teacher ‖ student at T) + (1 − share) · cross-entropy with the labels, a mean.

    Its targets are those of :func:`soft_targets`, (n, 2, C): the teacher's logits and the labels, one-hot.
    """
    T = checks.positive("temperature", temperature)
    checks.fraction("share", share)
    return partial(_soft_loss, T, share)


def soft_targets(teacher: nn.Module, data: Data) -> Data:
    """The same data with targets (n, 2, C) to train on: the teacher's logits, and the labels one-hot."""
    x, y = data.train
    evaluate(teacher, data.train)  # it takes x, and gives an output a class
    net = still_copy(teacher)
    z = torch.cat([net(part) for part in torch.split(x, CHUNK)])
    return Data((x, torch.stack([z, one_hot(y, z.shape[1]).to(z.dtype)], 1)), data.test)


def distil(
    teacher: nn.Module,
    student: nn.Module,
    data: Data,
    *,
    temperature: float = 4.0,
    share: float = 0.9,
    **options: Any,
) -> tuple[nn.Module, History]:
    """Train a copy of the student on what the teacher says of the training inputs, and on their labels.

    The options are those of ``lab.training.fit``, masks among them: a pruned student stays so.
    """
    evaluate(student, data.train)
    return fit(student, soft_targets(teacher, data), loss=soft_loss(temperature, share), **options)


def _soft_loss(T: float, share: float, output: Tensor, target: Tensor) -> Tensor:
    teacher, label = target.unbind(1)
    log_p = log_softmax(teacher / T, 1)
    soft = (log_p.exp() * (log_p - log_softmax(output / T, 1))).sum(1).mean()
    return share * T**2 * soft + (1 - share) * cross_entropy(output, label)


door.hold(globals())
