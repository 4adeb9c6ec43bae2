"""The networks of the course, for any input size, all from one short list.

Every builder takes the shape of one input and the number of classes; the same seed gives the
same bytes, and torch's own random state is left alone.
"""

import itertools
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor, nn

from teachkit.core import checks, door

Shape = Sequence[int]


def build(make: Callable[[], list[nn.Module]], seed: int) -> nn.Sequential:
    """Make the layers under a seed of their own."""
    checks.whole("seed", seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(*make())


def dense(
    inputs: int,
    hidden: Sequence[int],
    classes: int,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> list[nn.Module]:
    """Linear layers of these widths with the activation between them, none after the last."""
    widths = [checks.whole("a hidden width", width, 1) for width in hidden]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise([inputs, *widths, checks.whole("classes", classes, 1)]):
        layers += [nn.Linear(before, after), activation()]
    return layers[:-1]


def mlp(
    shape: Shape = (1, 8, 8),
    classes: int = 10,
    *,
    hidden: Sequence[int] = (64, 32),
    activation: Callable[[], nn.Module] = nn.ReLU,
    seed: int = 0,
) -> nn.Sequential:
    """A multilayer perceptron of the flattened input; the default is 64-64-32-10.

    ``hidden=()`` gives softmax regression; ``activation`` makes a module, e.g. ``nn.Tanh``.

    >>> sum(p.numel() for p in mlp().parameters() if p.ndim == 2)
    6464
    """
    inputs = prod(_sizes(shape))
    return build(lambda: [nn.Flatten(), *dense(inputs, hidden, classes, activation)], seed)


def lenet_300_100(shape: Shape = (1, 28, 28), classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """LeNet-300-100: an MLP with 300 and 100 hidden units (LeCun et al. 1998; Han et al. 2015).

    >>> sum(p.numel() for p in lenet_300_100().parameters() if p.ndim == 2)
    266200
    """
    return mlp(shape, classes, hidden=(300, 100), seed=seed)


def lenet5(shape: Shape = (1, 28, 28), classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """LeNet-5 as Han et al. (2015) pruned it: conv 20, conv 50 (both 5x5, max-pooled), 500 units.

    Below 16 pixels the convolutions are padded by 2, so that 8x8 images pass through them.

    >>> sum(p.numel() for p in lenet5().parameters())
    431080
    """
    channels, *size = _image(shape)
    pad = 0 if min(size) >= 16 else 2
    height, width = (
        ((n + 2 * pad - 4) // 2 + 2 * pad - 4) // 2 for n in size
    )  # after both poolings

    def layers() -> list[nn.Module]:
        return [
            *(nn.Conv2d(channels, 20, 5, padding=pad), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(20, 50, 5, padding=pad), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *dense(50 * height * width, [500], classes),
        ]

    return build(layers, seed)


def vgg_like(shape: Shape = (1, 8, 8), classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """A small net after VGG (Simonyan & Zisserman 2015): twice two 3x3 convolutions and a pooling.

    Channels 16, 16, 32, 32, each with batch normalisation, then 64 units.

    >>> sum(p.numel() for p in vgg_like().parameters() if p.ndim > 1)
    25104
    """
    channels, height, width = _image(shape)

    def layers() -> list[nn.Module]:
        made: list[nn.Module] = []
        for before, after in ((channels, 16), (16, 32)):
            for entering in (before, after):
                conv = nn.Conv2d(entering, after, 3, padding=1, bias=False)
                made += [conv, nn.BatchNorm2d(after), nn.ReLU()]
            made.append(nn.MaxPool2d(2))
        return [*made, nn.Flatten(), *dense(32 * (height // 4) * (width // 4), [64], classes)]

    return build(layers, seed)


class Block(nn.Module):
    """Two convolutions whose result is added to what they read (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.b, self.norm_b = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, width, h, w) of the same size out as in."""
        inner = torch.relu(self.norm_a(self.a(x)))
        return torch.relu(x + self.norm_b(self.b(inner)))


def residual(width: int = 8, blocks: int = 2, *, seed: int = 0) -> nn.Sequential:
    """A stem, residual blocks, and a classifier of the mean over the pixels."""
    checks.whole("width", width, 1)
    checks.whole("blocks", blocks)

    def layers() -> list[nn.Module]:
        stem = [nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        body = [Block(width) for _ in range(blocks)]
        return [*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]

    return build(layers, seed)


MODELS: dict[str, Callable[..., nn.Sequential]] = {
    "mlp": mlp,
    "lenet_300_100": lenet_300_100,
    "lenet5": lenet5,
    "vgg_like": vgg_like,
}


def _sizes(shape: Shape) -> list[int]:
    if isinstance(shape, int) or not len(shape):
        raise ValueError(f"shape must hold the sizes of one input, e.g. (1, 8, 8), got {shape!r}")
    return [checks.whole(f"each size in shape {tuple(shape)}", size, 1) for size in shape]


def _image(shape: Shape) -> list[int]:
    if isinstance(shape, int) or len(shape) != 3 or min(shape[1:]) < 4:
        allowed = "(channels, height, width) with height and width of at least 4"
        raise ValueError(f"shape must be {allowed}, got {shape!r}")
    return _sizes(shape)


door.hold(globals())
