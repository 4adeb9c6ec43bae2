"""Networks whose layers must be cut together, with random numbers in all places."""

import torch
from torch import nn
from torch.nn import functional


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def randomised(model, seed=0):
    """Every parameter and statistic random, in float64, so that nothing is zero or one by chance."""
    g = dice(seed)
    model = model.double()
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=g, dtype=torch.float64) + 0.1)
            assert name.rpartition(".")[2] in ("running_mean", "running_var")
    return model.eval()


def some(size, share, g):
    """A mask that keeps at least one of them."""
    mask = torch.rand(size, generator=g) >= share
    mask[int(torch.randint(size, (1,), generator=g))] = True
    return mask


def chain(g):
    """A random chain of convolutions, normalisations, pooling and linear layers for 8x8 images."""

    def pick(*options):
        return options[int(torch.randint(len(options), (1,), generator=g))]

    layers, channels, size = [], 2, 8
    for _ in range(pick(0, 1, 2)):
        wide = pick(1, 3, 5)
        layers.append(nn.Conv2d(channels, wide, 3, padding=pick(0, 1), bias=pick(True, False)))
        layers += pick([nn.BatchNorm2d(wide)], [])
        layers += [pick(nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.LeakyReLU())]
        layers += pick([nn.MaxPool2d(2, 1)], [nn.AvgPool2d(2, 1)], [])
        channels = wide
    layers += pick([nn.AdaptiveAvgPool2d(1)], [nn.Dropout2d()]) if layers else []
    layers.append(nn.Flatten())
    x = torch.randn(3, 2, size, size, generator=g, dtype=torch.float64)
    width = nn.Sequential(*layers).double().eval()(x).shape[1]
    layers += pick([nn.BatchNorm1d(width)], []) if len(layers) > 1 else []
    for _ in range(pick(1, 2)):
        wide = pick(2, 4, 7)
        layers += [nn.Linear(width, wide, bias=pick(True, False))]
        layers += [*pick([nn.BatchNorm1d(wide)], []), pick(nn.GELU(), nn.Sigmoid(), nn.ReLU())]
        width = wide
    layers += [nn.Dropout(), nn.Linear(width, 3)]
    return nn.Sequential(*layers), x


class Residual(nn.Module):
    """A stem, a residual block with a depthwise layer, a second with a projection, a classifier."""

    def __init__(self, width=5, inner=4, wider=6):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, width, 3, padding=1), nn.BatchNorm2d(width)
        self.a, self.norm_a = nn.Conv2d(width, inner, 3, padding=1), nn.BatchNorm2d(inner)
        self.deep = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.b, self.norm_b = nn.Conv2d(inner, width, 1), nn.BatchNorm2d(width)
        self.c, self.project = nn.Conv2d(width, wider, 3), nn.Conv2d(width, wider, 3)
        self.prelu, self.fc, self.out = nn.PReLU(wider), nn.Linear(wider * 4, 7), nn.Linear(7, 3)

    def forward(self, x):
        x = functional.relu(self.norm(self.stem(x)))
        y = self.deep(torch.relu(self.norm_a(self.a(x))))
        x = functional.relu(x + self.norm_b(self.b(y)))
        x = self.prelu(torch.add(self.c(x).tanh(), self.project(x)))
        x = functional.max_pool2d(x * 0.5, 2)
        return self.out(self.fc(torch.flatten(x, 1)).relu())


COUPLED = [("stem", "b"), ("a", "deep"), ("c", "project"), ("fc",)]
