"""Lesson 00: what its explorers and figures draw, and its exercises."""

import random

from torch import Tensor, nn

from teachkit import masks
from teachkit.core.types import Batch
from teachkit.show import plots, styles
from teachkit.show.exercises import Task, normal, uniform
from teachkit.show.pictures import Picture


def digit(model: nn.Module, batch: Batch, number: int) -> Picture:
    """One test digit as the network sees it, and the probability it gives to each class."""
    image, label = batch[0][number], int(batch[1][number])
    probability = model(image[None]).softmax(1)[0].detach().numpy()
    figure, (left, right) = plots.canvas(2, height=2.6)
    left.imshow(image[0], cmap="gray_r")
    left.set(title=f"test digit {number}: a {label}", xticks=[], yticks=[])
    left.grid(False)
    right.bar(range(10), probability, color=styles.BLUE)
    right.set(xticks=range(10), ylim=(0, 1), xlabel="class", ylabel="probability")
    guess = int(probability.argmax())
    return Picture(figure, f"Test digit {number} shows a {label}; the network says {guess}.")


def weights(rng: random.Random) -> tuple[Tensor]:
    """A weight matrix with some zeros, never half of them, a negative weight and a tiny one."""
    w = normal(rng, 3, 5) * (uniform(rng, 0, 1, 3, 5) < 0.25)
    w[0, 0], w[1, 1], w[2, 2], w[2, 4] = 1.0, 0.0, -1.0, 1e-4
    return (w,)


TASKS = {
    "00.1": Task(
        draw=weights,
        answer=lambda w: masks.sparsity({"w": w != 0}),
        mistakes={
            "this is the density, the fraction that stays; sparsity is the fraction of zeros": (
                lambda w: 1 - masks.sparsity({"w": w != 0})
            ),
            "this is the number of zeros; sparsity is their fraction": lambda w: (w == 0).sum(),
        },
    ),
}
